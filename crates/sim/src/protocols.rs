//! What the simulator must know of each protocol: how to configure it for short runs, and what its model allows.

use crate::adversary::Lies;
use crate::checker::Property;
use crate::faults::{Fault, Faults};
use crate::lies::{PbftLies, VrLies};
use crate::random::Random;
use quorate_core::outbox::Class;
use quorate_core::protocol::{Protocol, Status};
use quorate_core::quorum::{ByzantineQuorums, CrashQuorums};
use quorate_core::time::Duration;
use quorate_protocols::naive::Naive;
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::vr::{self, Reads, ViewChangePolicy, Vr};

/// A protocol that can be simulated.
pub trait Simulated: Protocol {
    /// Faults that its model excludes: they are never injected, whatever the list says.
    const EXCLUDED: &'static [Fault];

    /// Replicas of a run, unless somebody asks for another number: as few as go on without one.
    const REPLICAS: u8 = 3;

    /// A configuration for short runs, with limits so small that checkpoints, trimming and state transfer do happen.
    fn config(random: &mut Random) -> Self::Config;

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
        fault == Fault::LyingDisk || Self::EXCLUDED.contains(&fault) || (fault.is_lie() && Self::liars(replicas) == 0)
    }

    /// What of a list of faults its model allows in a group of so many.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        excluded.fold(faults.clone(), |faults, fault| faults.without(*fault))
    }
}

/// What `quorate recover` does for a replica whose disk is lost.
pub struct Rejoin<P: Protocol> {
    /// So many entries the others commit first, one after the other, with the replica down.
    pub entries: u64,
    /// The first record of the new log, from the number of replicas and the states of those others that have the first of
    /// these entries; `None` if they are too few.
    #[expect(clippy::type_complexity, reason = "a record and its class, if there are enough")]
    pub record: fn(usize, &[Status]) -> Option<(Class, P::Record)>,
}

impl<P: Protocol> Clone for Rejoin<P> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<P: Protocol> Copy for Rejoin<P> {}

impl Simulated for Naive {
    const EXCLUDED: &'static [Fault] = &[];

    fn config(_: &mut Random) {}
}

impl Simulated for Pbft {
    /// A backup refuses what lies more than `clock_ahead` before it: correct calendars and clocks must agree better than that.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush, Fault::ClockJump];
    const REPLICAS: u8 = 4;

    const EXPECTED: &'static [&'static str] =
        &["checkpoints", "commits", "entries fetched", "state transfers", "suspicions", "view changes", "view starts"];

    fn spared(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn liars(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(PbftLies))
    }

    /// A replica that has lost a promise counts as one of the `f`: with as many liars beside it there is one too many. So a
    /// list with lies has no damaged logs; `--faults` without the lies has them.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        let allowed = excluded.fold(faults.clone(), |faults, fault| faults.without(*fault));
        if !Fault::ALL.iter().any(|fault| fault.is_lie() && allowed.has(*fault)) {
            return allowed;
        }
        [Fault::BitRot, Fault::Misdirected].into_iter().fold(allowed, |faults, fault| faults.without(fault))
    }

    /// Snapshots every few entries.
    fn config(random: &mut Random) -> pbft::Config {
        pbft::Config {
            checkpoint_entries: 2 + random.below(14),
            state_entries: 8 + random.below(56),
            state_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            in_flight_entries: 1 + random.below(8),
            ..pbft::Config::default()
        }
    }
}

impl Simulated for Vr {
    /// Leases suppose that clocks do not run apart by more than `drift_percent`.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush];

    const EXPECTED: &'static [&'static str] = &[
        "checkpoints",
        "commits",
        "entries fetched",
        "forfeits the view: its log or state is too far behind",
        "repairs",
        "state transfers",
        "suspicions",
        "unknown log heads",
        "view changes",
        "view starts",
    ];

    fn spared(replicas: usize) -> usize {
        CrashQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    /// With clocks that run apart, leases may answer with what is past; the log is as safe as ever (vr.md §2.8).
    fn promised_beyond(excluded: Fault) -> &'static [&'static str] {
        match excluded {
            Fault::ClockRush => &[
                Property::AGREEMENT,
                Property::DIGESTS,
                Property::SAFETY,
                Property::SNAPSHOTS,
                Property::WATCHES,
                Property::EXACTLY_ONCE,
                Property::DURABILITY,
                Property::INVARIANT,
                Property::STORE,
                Property::NO_PANIC,
            ],
            _ => &[],
        }
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(VrLies))
    }

    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, others: &[Status]| {
            let quorums = CrashQuorums::new(replicas)?;
            let view = others.iter().map(|status| status.view).max()?;
            (others.len() >= quorums.view_change()).then(|| (Class::Promise, vr::rejoin(view)))
        };
        Some(Rejoin { entries: vr::WINDOW_ENTRIES, record })
    }

    /// Checkpoints every few entries; either kind of read, leases only as far as clocks allow; mostly the quorum policy.
    fn config(random: &mut Random) -> vr::Config {
        vr::Config {
            checkpoint_entries: 4 + random.below(28),
            checkpoint_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            abdicate: Duration::from_millis(800),
            reads: if random.below(3) == 0 { Reads::Lease } else { Reads::Index },
            policy: if random.below(5) == 0 { ViewChangePolicy::Direct } else { ViewChangePolicy::Quorum },
            ..vr::Config::default()
        }
    }
}
