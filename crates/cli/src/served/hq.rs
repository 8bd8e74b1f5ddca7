//! HQ as real processes, in either of its orders.

use super::Served;
use quorate_core::ids::{OpNumber, View};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::Duration;
use quorate_protocols::hq::total::{self, Total};
use quorate_protocols::hq::{self, Hq};
use quorate_protocols::pbft::{self, Pbft};
use quorate_runtime::config::Timing;

impl Served for Hq {
    const REPLICAS: usize = 4;
    const STEP: usize = 3;
    const ONE_ORDER: bool = false;

    fn warns(replicas: usize) -> Option<String> {
        let spared = ByzantineQuorums::new(replicas)?.faults();
        (spared == 0).then(|| format!("{replicas} replicas tolerate no liar, and no crash; four tolerate one"))
    }

    /// The replica waits itself until nothing that it has promised matters.
    const FLUSH_ENTRIES: u64 = 0;

    fn configure(timing: &Timing) -> hq::Config {
        let config = hq::Config::default();
        let module = pbft::Config { view_change: Duration::from_millis(timing.view_change_ms), ..config.module };
        hq::Config { module, ..config }
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        Pbft::witnesses(replicas)
    }

    /// It says no more than that the disk was lost; what it may have promised the replica asks the others itself.
    fn rejoin(_: OpNumber, _: View) -> hq::Record {
        hq::Record::Lost
    }
}

impl Served for Total {
    const REPLICAS: usize = Pbft::REPLICAS;
    const STEP: usize = Pbft::STEP;

    fn warns(replicas: usize) -> Option<String> {
        Pbft::warns(replicas)
    }

    const FLUSH_ENTRIES: u64 = Pbft::FLUSH_ENTRIES;

    fn configure(timing: &Timing) -> pbft::Config {
        Pbft::configure(timing)
    }

    fn witnesses(replicas: usize) -> Option<usize> {
        Pbft::witnesses(replicas)
    }

    /// Nobody has granted anything: votes are all that is promised.
    fn rejoin(first: OpNumber, _: View) -> hq::Record {
        total::rejoin(first)
    }
}
