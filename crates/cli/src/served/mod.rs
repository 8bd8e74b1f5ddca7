//! What the commands must know of each protocol that runs as real processes. The one place where a protocol's name becomes
//! its type.

mod async_tob;
mod hotstuff;
mod hq;
mod machine;
mod pbft;
mod reception;
mod sync_tob;
mod vr;

pub use machine::Machine;

use clap::ValueEnum;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::{ByzantineQuorums, CrashQuorums};
use quorate_runtime::config::{ReplicaConfig, Timing};
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
            $crate::served::Protocol::Reception => {
                type $P = quorate_protocols::reception::Reception;
                $body
            }
            $crate::served::Protocol::HotStuff => {
                type $P = quorate_protocols::hotstuff::HotStuff;
                $body
            }
            $crate::served::Protocol::Hq => {
                type $P = quorate_protocols::hq::Hq;
                $body
            }
            $crate::served::Protocol::HqTotal => {
                type $P = quorate_protocols::hq::Total;
                $body
            }
            $crate::served::Protocol::SyncTob => {
                type $P = quorate_protocols::sync_tob::SyncTob;
                $body
            }
            $crate::served::Protocol::AsyncTob => {
                type $P = quorate_protocols::async_tob::AsyncTob;
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
    /// PBFT behind Byzantine reception: requests come by any way, and at a time that no f replicas choose
    Reception,
    /// Chained HotStuff: 3f+1 replicas survive f that lie
    #[value(name = "hotstuff")]
    HotStuff,
    /// HQ replication: 3f+1 replicas survive f that lie; each key has an order of its own, which its clients make
    Hq,
    /// HQ in total order: the same, and one order of all keys, made by the PBFT in it; what etcd's API needs
    #[value(name = "hq-total")]
    HqTotal,
    /// Experimental. Synchronous total-order broadcast: 2f+1 replicas survive f that lie, as long as delays and clocks keep their bounds
    SyncTob,
    /// Experimental. Asynchronous total-order broadcast: 3t+1 replicas survive t that lie, and wait for no time to pass
    AsyncTob,
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

    /// Does it toss common coins, with keys that a trusted dealer makes?
    pub fn tosses(self) -> bool {
        with_protocol!(self, P => <P as quorate_core::protocol::Protocol>::TOSSES)
    }

    /// Does it put all operations in one order? Without that there is no revision of all keys, no watch, no lease, and no
    /// event store.
    pub fn has_one_order(self) -> bool {
        with_protocol!(self, P => P::ONE_ORDER)
    }

    /// Does it certify who has received what?
    pub fn certifies_reception(self) -> bool {
        with_protocol!(self, P => P::CERTIFIES_RECEPTION)
    }

    /// What the configuration promises for a request while the model is kept and so many replicas are down, milliseconds, if it
    /// promises anything.
    pub fn latency_bound_ms(self, replicas: usize, down: usize, timing: &Timing) -> Option<f64> {
        with_protocol!(self, P => P::latency_bound_ms(replicas, down, timing))
    }

    /// Of so many replicas, those that must run for the cluster to go on.
    pub fn needed(self, replicas: usize) -> usize {
        let bears_liars = with_protocol!(self, P => P::STEP) == 3;
        let byzantine = || ByzantineQuorums::new(replicas).map(|quorums| quorums.quorum());
        let crash = || CrashQuorums::new(replicas).map(|quorums| quorums.view_change());
        let needed = if bears_liars { byzantine() } else { crash() };
        needed.unwrap_or(replicas)
    }

    /// Of so many replicas, those that may be faulty: `f`.
    pub fn faults(self, replicas: usize) -> usize {
        match with_protocol!(self, P => P::STEP) {
            3 => ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults()),
            _ => replicas.saturating_sub(self.needed(replicas)),
        }
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

    /// So many more replicas tolerate one fault more.
    const STEP: usize;

    /// Does it put all operations in one order, or has each object its own?
    const ONE_ORDER: bool = true;

    /// Why a number of replicas is a waste, or worse.
    fn warns(replicas: usize) -> Option<String>;

    /// Its configuration, with the patience that a file gives it.
    fn configure(timing: &Timing) -> Self::Config;

    /// The same for a replica's file, which may say more than how patient it is.
    fn configure_from(file: &ReplicaConfig) -> Self::Config {
        Self::configure(&file.timing)
    }

    /// Does it certify who has received what, so that a file can say how critical that is?
    const CERTIFIES_RECEPTION: bool = false;

    /// Entries that the others must commit before a replica whose disk was lost may begin anew; 0: it finds out itself what it may have
    /// promised.
    const FLUSH_ENTRIES: u64;

    /// How many of the others must say which view they are in.
    fn witnesses(replicas: usize) -> Option<usize>;

    /// What the configuration promises for a request while the model is kept and so many replicas are down, milliseconds, if it
    /// promises anything.
    fn latency_bound_ms(_replicas: usize, _down: usize, _timing: &Timing) -> Option<f64> {
        None
    }

    /// The first record of a replica whose disk was lost: `first` was committed after that, the others are in `view`.
    fn rejoin(first: OpNumber, view: View) -> Self::Record;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_needs_a_majority_where_replicas_crash_and_more_where_they_lie() {
        let needed = |protocol: Protocol| [1, 3, 4, 5, 7].map(|replicas| protocol.needed(replicas));
        assert_eq!(needed(Protocol::Vr), [1, 2, 3, 3, 4]);
        assert_eq!(needed(Protocol::SyncTob), [1, 2, 3, 3, 4]);
        assert_eq!(needed(Protocol::Pbft), [1, 2, 3, 4, 5]);
        let faults = |protocol: Protocol| [1, 3, 4, 5, 6, 7].map(|replicas| protocol.faults(replicas));
        assert_eq!(faults(Protocol::Vr), [0, 1, 1, 2, 2, 3]);
        assert_eq!(faults(Protocol::SyncTob), [0, 1, 1, 2, 2, 3]);
        assert_eq!(faults(Protocol::Pbft), [0, 0, 1, 1, 1, 2]);
    }
}
