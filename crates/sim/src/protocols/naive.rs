//! Naive broadcast: the model of a protocol that excludes nothing and survives nothing.

use super::Simulated;
use crate::faults::Fault;
use crate::random::Random;
use quorate_protocols::naive::Naive;

impl Simulated for Naive {
    const EXCLUDED: &'static [Fault] = &[];

    fn config(_: &mut Random) {}
}
