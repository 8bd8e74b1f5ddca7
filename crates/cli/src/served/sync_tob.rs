//! Synchronous total-order broadcast as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::Duration;
use quorate_protocols::sync_tob::{self, SyncTob};
use quorate_runtime::config::Timing;

impl Served for SyncTob {
    const REPLICAS: usize = 3;
    const STEP: usize = 2;

    fn warns(replicas: usize) -> Option<String> {
        let quorums = SyncQuorums::new(replicas)?;
        let (bounded, unbounded) = (quorums.faults(), quorums.faults_without_bounds());
        if bounded == 0 {
            return Some(format!("{replicas} replicas tolerate no liar, and no crash; three tolerate one"));
        }
        (replicas.is_multiple_of(2) && bounded > unbounded).then(|| {
            let fewer = replicas.saturating_sub(1);
            format!("{replicas} replicas tolerate no more liars than {fewer} would, but {unbounded} of them even if time bounds break")
        })
    }

    /// What the former self may have confirmed is older than anything that the others commit from now on.
    const FLUSH_ENTRIES: u64 = 1;

    fn configure(timing: &Timing) -> sync_tob::Config {
        sync_tob::Config {
            delta: Duration::from_millis(timing.delay_bound_ms),
            epsilon: Duration::from_millis(timing.clock_bound_ms),
            ..sync_tob::Config::default()
        }
    }

    fn latency_bound_ms(replicas: usize, down: usize, timing: &Timing) -> Option<f64> {
        let quorums = SyncQuorums::new(replicas)?;
        let bound = Self::configure(timing).latency_bound(&quorums, down);
        Some(bound.as_secs_f64() * 1000.0)
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        let quorums = SyncQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
        quorums.map(|quorums| quorums.quorum())
    }

    fn rejoin(_: OpNumber, _: View) -> sync_tob::Record {
        sync_tob::rejoin()
    }
}
