//! Quorate's deterministic simulator: a whole cluster on one thread, one virtual clock and one seed.
//!
//! Replicas and clients are the real ones (`quorate_core::node`, `executor`, the protocol's client); only network, disk,
//! clocks and luck are ours. A run is a *storm*, in which clients call while everything that the protocol's model allows
//! goes wrong, then a *calm*, in which everything heals and progress is required, then judgement by the [`checker`]s.
//! Equal seeds give equal runs, turn by turn, and a run that violates something prints the command that repeats it.
//!
//! ```
//! use quorate_protocols::naive::Naive;
//! use quorate_sim::{Options, run};
//!
//! let report = run::<Naive>(&Options { seed: 1, ..Options::default() });
//! assert!(!report.holds(), "replicas that deliver as received do not stay equal");
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `random`, `clock` | the seed; virtual time |
//! | `network`, `disk`, `faults`, `nemesis`, `troubles` | what can go wrong, and what does |
//! | `misfortune`, `shrink` | each thing that went wrong, by a name of its own; which of them matter |
//! | `adversary/` | replicas that lie: one file for each lie |
//! | `process`, `client` | one replica, one client |
//! | `broker` | what stands between clients and replicas, and may do anything |
//! | `cluster`, `turns`, `calls` | the world, and how replicas and clients take their turns in it |
//! | `registers`, `workload`, `history` | the machine, what is asked of it, what was answered |
//! | `checker/` | one file for each property |
//! | `protocols/` | one file for each protocol: its model, its limits, its own lies |
//! | `run`, `campaign`, `report`, `trace` | one run, many runs, what is told of them |
//! | `script`, `scenarios` | scenarios written by hand; those that have a name |
//! | `diagram` | pictures |
//! | `model/` | what everything costs: throughput and latency of groups that fit no single computer |
//! | `bad_primary` | how long a primary stays that lies or is slow |
//! | `exhaustive` | every interleaving of a tiny cluster |
//! | `rounds` | leaders, partitions and lost disks, round by round: the generator of the Twins paper |

pub mod bad_primary;
pub mod campaign;
pub mod checker;
pub mod diagram;
pub mod exhaustive;
pub mod faults;
pub mod history;
pub mod misfortune;
pub mod model;
#[cfg(feature = "mutations")]
pub mod mutations;
pub mod protocols;
pub mod registers;
pub mod report;
pub mod rounds;
pub mod run;
pub mod scenarios;
pub mod script;
pub mod shrink;
pub mod trace;

pub mod adversary;

mod broker;
mod calls;
mod client;
mod clock;
mod cluster;
mod disk;
mod nemesis;
mod network;
mod process;
mod random;
mod troubles;
mod turns;
mod workload;

pub use adversary::Lies;
pub use campaign::{Summary, campaign};
pub use checker::{Property, Violation};
pub use cluster::Cluster;
pub use faults::{Aspect, Fault, Faults, UnknownFault};
pub use protocols::{Rejoin, Simulated};
pub use random::Random;
pub use report::{Counts, Report};
pub use run::{Options, name_runs_in_panics, run};
pub use script::Scenario;
pub use trace::Recording;
