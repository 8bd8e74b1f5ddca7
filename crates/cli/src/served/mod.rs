//! What the commands must know of each protocol that runs as real processes. The one place where a protocol's name becomes
//! its type.

mod hq;
mod pbft;
mod vr;

use clap::ValueEnum;
use quorate_core::ids::{OpNumber, View};
use quorate_runtime::config::Timing;
use std::fmt;

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
            $crate::served::Protocol::Hq => {
                type $P = quorate_protocols::hq::Hq;
                $body
            }
        }
    };
}
pub(crate) use with_protocol;

/// The protocols that can run as real processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Viewstamped Replication: 2f+1 replicas survive f crashes
    #[default]
    Vr,
    /// Practical Byzantine Fault Tolerance: 3f+1 replicas survive f that lie
    Pbft,
    /// HQ replication: 3f+1 replicas survive f that lie; each key is ordered by its clients
    Hq,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Protocol {
    /// The name in files.
    pub fn name(self) -> &'static str {
        with_protocol!(self, P => <P as quorate_core::protocol::Protocol>::NAME)
    }

    /// The one that a file names, if this release runs it.
    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|protocol| protocol.name() == name)
    }

    /// How many replicas, unless somebody asks for another number.
    pub fn replicas(self) -> usize {
        with_protocol!(self, P => P::REPLICAS)
    }

    /// Does what etcd's clients rely on hold under it?
    pub fn offers_etcd(self) -> bool {
        with_protocol!(self, P => P::OFFERS_ETCD)
    }

    /// Why a number of replicas is a waste, or worse.
    pub fn warns(self, replicas: usize) -> Option<String> {
        with_protocol!(self, P => P::warns(replicas))
    }
}

/// A protocol that runs as real processes.
pub trait Served: quorate_core::protocol::Protocol {
    /// Replicas, unless somebody asks for another number: as few as survive the loss of one.
    const REPLICAS: usize;

    /// Does what etcd's clients rely on hold under it: one revision for all keys, watches, leases?
    const OFFERS_ETCD: bool = true;

    /// Why a number of replicas is a waste, or worse.
    fn warns(replicas: usize) -> Option<String>;

    /// Its configuration, with the patience that a file gives it.
    fn configure(timing: &Timing) -> Self::Config;

    /// Entries that the others must commit before a replica whose disk was lost may begin anew.
    const FLUSH_ENTRIES: u64;

    /// How many of the others must say which view they are in.
    fn witnesses(replicas: usize) -> Option<usize>;

    /// The first record of a replica whose disk was lost: `first` was committed after that, the others are in `view`.
    fn rejoin(first: OpNumber, view: View) -> Self::Record;
}
