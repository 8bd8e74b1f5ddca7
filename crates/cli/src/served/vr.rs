//! Viewstamped Replication as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::CrashQuorums;
use quorate_core::time::Duration;
use quorate_protocols::vr::{self, Vr};
use quorate_runtime::config::Timing;

impl Served for Vr {
    const REPLICAS: usize = 3;
    const STEP: usize = 2;

    fn warns(replicas: usize) -> Option<String> {
        let fewer = replicas.saturating_sub(1);
        replicas.is_multiple_of(2).then(|| format!("{replicas} replicas tolerate no more crashes than {fewer} would"))
    }

    const FLUSH_ENTRIES: u64 = vr::WINDOW_ENTRIES;

    fn configure(timing: &Timing) -> vr::Config {
        vr::Config {
            heartbeat: Duration::from_millis(timing.heartbeat_ms),
            view_change: Duration::from_millis(timing.view_change_ms),
            ..vr::Config::default()
        }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        CrashQuorums::new(replicas).filter(|_| replicas >= 3).map(|quorums| quorums.view_change())
    }

    fn rejoin(_: OpNumber, view: View) -> vr::Record {
        vr::rejoin(view)
    }
}
