//! HQ in the simulator: crashes, network and disks, clients that die between the phases, and as many liars as its model has.

use quorate_protocols::hq::Hq;
use quorate_sim::{Options, run};

fn holds(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run::<Hq>(&Options { seed, replicas: 4, ..options.clone() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..4, &Options { twice: true, ..Options::default() });
}
