//! HotStuff: a cluster in the hands of the test, some of whose replicas lie.

mod ahead;
mod attacks;
mod behind;
#[path = "../support/chaos.rs"]
mod chaos;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/clients.rs"]
mod clients;
#[path = "../support/dice.rs"]
mod dice;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod history;
mod luck;
mod pacing;
mod paper;
mod pitfalls;
mod recovery;
mod rules;
mod silence;
#[path = "../support/tape.rs"]
mod tape;
mod words;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::hotstuff::{Config, HotStuff as Subject, Message, Record};
}
