//! HotStuff as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::Duration;
use quorate_protocols::hotstuff::{self, HotStuff};
use quorate_runtime::config::Timing;

impl Served for HotStuff {
    const REPLICAS: usize = 4;
    const STEP: usize = 3;

    fn warns(replicas: usize) -> Option<String> {
        let spared = ByzantineQuorums::new(replicas)?.faults();
        (spared == 0).then(|| format!("{replicas} replicas tolerate no liar, and no crash; four tolerate one"))
    }

    /// The new life itself asks how far the old one may have voted, and waits until a block beyond that is committed: no
    /// entries must be committed for it beforehand.
    const FLUSH_ENTRIES: u64 = 1;

    fn configure(timing: &Timing) -> hotstuff::Config {
        hotstuff::Config { timeout: Duration::from_millis(timing.view_change_ms), ..hotstuff::Config::default() }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
        quorums.map(|quorums| quorums.quorum())
    }

    fn rejoin(_: OpNumber, _: View) -> hotstuff::Record {
        hotstuff::rejoin()
    }
}
