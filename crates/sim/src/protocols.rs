//! What the simulator must know of each protocol: how to configure it for short runs, and what its model allows.

use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::protocol::Protocol;
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

    /// What of a list of faults its model allows.
    fn allowed(faults: &Faults) -> Faults {
        Self::EXCLUDED.iter().fold(faults.clone(), |faults, fault| faults.without(*fault))
    }
}

impl Simulated for Naive {
    const EXCLUDED: &'static [Fault] = &[];

    fn config(_: &mut Random) {}
}

impl Simulated for Pbft {
    const EXCLUDED: &'static [Fault] = &[];
    const REPLICAS: u8 = 4;

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
    const EXCLUDED: &'static [Fault] = &[];

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
