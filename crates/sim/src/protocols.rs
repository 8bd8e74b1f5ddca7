//! What the simulator must know of each protocol: how to configure it for short runs, and what its model allows.

use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::protocol::Protocol;
use quorate_protocols::naive::Naive;

/// A protocol that can be simulated.
pub trait Simulated: Protocol {
    /// Faults that its model excludes: they are never injected, whatever the list says.
    const EXCLUDED: &'static [Fault];

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
