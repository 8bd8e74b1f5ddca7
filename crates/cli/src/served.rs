//! What the commands must know of each protocol that runs as real processes. The one place where a protocol's name becomes
//! its type.

use clap::ValueEnum;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::{ByzantineQuorums, CrashQuorums};
use quorate_core::time::Duration;
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::vr::{self, Vr};
use quorate_runtime::config::Timing;
use std::fmt;

/// The protocols that can run as real processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Viewstamped Replication: 2f+1 replicas survive f crashes
    #[default]
    Vr,
    /// Practical Byzantine Fault Tolerance: 3f+1 replicas survive f that lie
    Pbft,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Protocol {
    /// The name in files.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Vr => <Vr as quorate_core::protocol::Protocol>::NAME,
            Protocol::Pbft => <Pbft as quorate_core::protocol::Protocol>::NAME,
        }
    }

    /// The one that a file names, if this release runs it.
    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|protocol| protocol.name() == name)
    }

    /// How many replicas, unless somebody asks for another number: as few as survive the loss of one.
    pub const fn replicas(self) -> usize {
        match self {
            Protocol::Vr => 3,
            Protocol::Pbft => 4,
        }
    }

    /// Why a number of replicas is a waste, or worse.
    pub fn warns(self, replicas: usize) -> Option<String> {
        match self {
            Protocol::Vr if replicas.is_multiple_of(2) => {
                Some(format!("{replicas} replicas tolerate no more crashes than {} would", replicas.saturating_sub(1)))
            }
            Protocol::Pbft if ByzantineQuorums::new(replicas).is_some_and(|quorums| quorums.faults() == 0) => {
                Some(format!("{replicas} replicas tolerate no liar, and no crash; four tolerate one"))
            }
            _ => None,
        }
    }
}

/// A protocol that runs as real processes.
pub trait Served: quorate_core::protocol::Protocol {
    /// Its configuration, with the patience that a file gives it.
    fn configure(timing: &Timing) -> Self::Config;

    /// Entries that the others must commit before a replica whose disk was lost may begin anew.
    const FLUSH_ENTRIES: u64;

    /// How many of the others must say which view they are in.
    fn witnesses(replicas: usize) -> Option<usize>;

    /// The first record of a replica whose disk was lost: `first` was committed after that, the others are in `view`.
    fn rejoin(first: OpNumber, view: View) -> Self::Record;
}

impl Served for Vr {
    const FLUSH_ENTRIES: u64 = vr::WINDOW_ENTRIES;

    fn configure(timing: &Timing) -> vr::Config {
        vr::Config {
            heartbeat: Duration::from_millis(timing.heartbeat_ms),
            view_change: Duration::from_millis(timing.view_change_ms),
            ..vr::Config::default()
        }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        CrashQuorums::new(replicas).filter(|_| replicas >= 3).map(|quorums| quorums.view_change())
    }

    fn rejoin(_: OpNumber, view: View) -> vr::Record {
        vr::rejoin(view)
    }
}

impl Served for Pbft {
    /// Until the log is stable beyond what the former self can have voted for.
    const FLUSH_ENTRIES: u64 = pbft::WINDOW_ENTRIES_MAX + pbft::CHECKPOINT_ENTRIES_MAX;

    fn configure(timing: &Timing) -> pbft::Config {
        pbft::Config { view_change: Duration::from_millis(timing.view_change_ms), ..pbft::Config::default() }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
        quorums.map(|quorums| quorums.quorum())
    }

    fn rejoin(first: OpNumber, _: View) -> pbft::Record {
        pbft::rejoin(first)
    }
}

/// Runs `$body` with `$P` standing for the type of `$protocol`.
macro_rules! with_protocol {
    ($protocol:expr, $P:ident => $body:expr) => {
        match $protocol {
            $crate::served::Protocol::Vr => {
                type $P = quorate_protocols::vr::Vr;
                $body
            }
            $crate::served::Protocol::Pbft => {
                type $P = quorate_protocols::pbft::Pbft;
                $body
            }
        }
    };
}
pub(crate) use with_protocol;
