//! PBFT as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::Duration;
use quorate_protocols::pbft::{self, Pbft};
use quorate_runtime::config::{ReplicaConfig, Timing};

impl Served for Pbft {
    const REPLICAS: usize = 4;
    const STEP: usize = 3;

    fn warns(replicas: usize) -> Option<String> {
        let spared = ByzantineQuorums::new(replicas)?.faults();
        (spared == 0).then(|| format!("{replicas} replicas tolerate no liar, and no crash; four tolerate one"))
    }

    /// Until the log is stable beyond what the former self can have voted for.
    const FLUSH_ENTRIES: u64 = pbft::WINDOW_ENTRIES_MAX + pbft::CHECKPOINT_ENTRIES_MAX;

    fn configure(timing: &Timing) -> pbft::Config {
        pbft::Config { view_change: Duration::from_millis(timing.view_change_ms), ..pbft::Config::default() }
    }

    fn configure_from(file: &ReplicaConfig) -> pbft::Config {
        let tentative_requests = file.tentative_requests.unwrap_or_default();
        pbft::Config { tentative_requests, ..Self::configure(&file.timing) }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
        quorums.map(|quorums| quorums.quorum())
    }

    fn rejoin(first: OpNumber, _: View) -> pbft::Record {
        pbft::rejoin(first)
    }
}
