//! PBFT behind Byzantine reception, as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_protocols::pbft::Pbft;
use quorate_protocols::reception::{self, Reception};
use quorate_runtime::config::{ReplicaConfig, Timing};

impl Served for Reception {
    const REPLICAS: usize = Pbft::REPLICAS;
    const STEP: usize = Pbft::STEP;

    fn warns(replicas: usize) -> Option<String> {
        Pbft::warns(replicas)
    }

    fn configure(timing: &Timing) -> reception::Config {
        reception::Config { module: Pbft::configure(timing), ..reception::Config::default() }
    }

    fn configure_from(file: &ReplicaConfig) -> reception::Config {
        reception::Config { criticality: file.criticality, ..Self::configure(&file.timing) }
    }

    const CERTIFIES_RECEPTION: bool = true;
    const FLUSH_ENTRIES: u64 = Pbft::FLUSH_ENTRIES;

    fn witnesses(replicas: usize) -> Option<usize> {
        Pbft::witnesses(replicas)
    }

    fn rejoin(first: OpNumber, _: View) -> reception::Record {
        reception::rejoin(first)
    }
}
