//! Byzantine reception over PBFT as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_protocols::pbft::Pbft;
use quorate_protocols::reception::{self, Reception};
use quorate_runtime::config::Timing;

impl Served for Reception {
    const STEP: usize = 3;
    const REPLICAS: usize = Pbft::REPLICAS;

    fn warns(replicas: usize) -> Option<String> {
        Pbft::warns(replicas)
    }

    const FLUSH_ENTRIES: u64 = Pbft::FLUSH_ENTRIES;

    fn configure(timing: &Timing) -> reception::Config {
        reception::Config { module: Pbft::configure(timing), ..reception::Config::default() }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        Pbft::witnesses(replicas)
    }

    fn rejoin(first: OpNumber, _: View) -> reception::Record {
        reception::rejoin(first)
    }
}
