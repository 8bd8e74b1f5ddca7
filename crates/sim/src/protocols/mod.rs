//! What the simulator must know of each protocol: how to configure it for short runs, what its model allows, and what its
//! messages can be turned into by a replica that lies. One file for each protocol.

mod async_tob;
mod hotstuff;
mod hq;
mod naive;
mod pbft;
mod reception;
mod sync_tob;
mod vr;

use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::ids::OpNumber;
use quorate_core::outbox::Class;
use quorate_core::protocol::{Protocol, Status};

/// A protocol that can be simulated.
pub trait Simulated: Protocol {
    /// Faults that its model excludes: they are never injected, whatever the list says.
    const EXCLUDED: &'static [Fault];

    /// Replicas of a run, unless somebody asks for another number: as few as go on without one.
    const REPLICAS: u8 = 3;

    /// Does each object have an order of its own? Then replicas count their steps each for itself, pass through no common
    /// states, have no equal snapshots and publish no events; each register is judged as if it were alone.
    const PER_OBJECT: bool = false;

    /// Do its clients publish through brokers?
    const BROKERED: bool = false;

    /// Must the log with which a view starts hold all that anybody has executed, and does the note of its start say how far it
    /// goes? Then an exhaustive search looks at it when it starts, and not only when something else is executed.
    const VIEWS_INHERIT: bool = false;

    /// A configuration for short runs, with limits so small that checkpoints, trimming and state transfer do happen.
    fn config(random: &mut Random) -> Self::Config;

    /// The same as [`Simulated::config`], at a level of criticality, where a protocol has levels.
    fn config_at(random: &mut Random, _criticality: Option<u8>) -> Self::Config {
        Self::config(random)
    }

    /// How many levels of criticality its requests may name in a group of so many; none where there are no levels.
    fn levels(_replicas: usize) -> u8 {
        0
    }

    /// How a replica whose disk is lost comes back; `None` if it cannot.
    fn rejoin() -> Option<Rejoin<Self>> {
        None
    }

    /// How many replicas of a group may be down for ever, and all the others still make progress.
    fn spared(_replicas: usize) -> usize {
        0
    }

    /// Properties that its theory promises even when this fault, which its model excludes, strikes. A replica that stops and
    /// says why is always allowed then.
    fn promised_beyond(_excluded: Fault) -> &'static [&'static str] {
        &[]
    }

    /// Notes that a campaign of many seeds must have seen: what never happened was never tested.
    const EXPECTED: &'static [&'static str] = &[];

    /// How many replicas of a group may lie in its model.
    fn liars(_replicas: usize) -> usize {
        0
    }

    /// What its messages can be turned into by a replica that lies.
    fn lies() -> Option<Box<dyn Lies<Self>>> {
        None
    }

    /// Does its model exclude this fault in a group of so many?
    fn excludes(fault: Fault, replicas: usize) -> bool {
        // No protocol here survives a disk that makes a replica break its word, unless it counts that one as a liar.
        fault == Fault::LyingDisk
            || Self::EXCLUDED.contains(&fault)
            || (fault.is_lie() && Self::liars(replicas) == 0)
            || (fault.is_brokers() && !Self::BROKERED)
    }

    /// What of a list of faults its model allows in a group of so many.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        excluded.fold(faults.clone(), |faults, fault| faults.without(*fault))
    }
}

/// What `quorate recover` does for a replica whose disk is lost.
pub struct Rejoin<P: Protocol> {
    /// So many entries the others commit first, one after the other, with the replica down; 0: none.
    pub entries: u64,
    /// The first record of the new log, from the number of replicas, the first of these entries, and the states of those
    /// others that have it; `None` if they are too few.
    #[expect(clippy::type_complexity, reason = "a record and its class, if there are enough")]
    pub record: fn(usize, OpNumber, &[Status]) -> Option<(Class, P::Record)>,
}

impl<P: Protocol> Clone for Rejoin<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Rejoin<P> {}
