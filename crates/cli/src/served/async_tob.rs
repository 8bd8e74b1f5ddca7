//! Asynchronous total-order broadcast as real processes.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::ByzantineQuorums;
use quorate_protocols::async_tob::{self, AsyncTob};
use quorate_runtime::config::Timing;

impl Served for AsyncTob {
    const REPLICAS: usize = 4;
    const STEP: usize = 3;

    fn warns(replicas: usize) -> Option<String> {
        let spared = ByzantineQuorums::new(replicas)?.faults();
        (spared == 0).then(|| format!("{replicas} replicas tolerate no liar, and no crash; four tolerate one"))
    }

    /// Until the group is beyond every epoch in which the former self can have spoken.
    const FLUSH_ENTRIES: u64 = async_tob::WINDOW_EPOCHS + 1;

    /// It has no patience to configure: nobody waits for a time to pass.
    fn configure(_: &Timing) -> async_tob::Config {
        async_tob::Config::default()
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
        quorums.map(|quorums| quorums.quorum())
    }

    fn rejoin(first: OpNumber, _: View) -> async_tob::Record {
        async_tob::rejoin(first)
    }
}
