//! Reception in the simulator: a network between clients and replicas that behaves like the worst of brokers, crashes, disks, and
//! as many liars as the model has, at every level of criticality.

use quorate_protocols::reception::Reception;
use quorate_sim::{Options, run};

fn holds(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run::<Reception>(&Options { seed, ..options.clone() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn no_fault_and_no_lie_breaks_it() {
    holds(1..21, &Options { replicas: 4, ..Options::default() });
}

#[test]
fn seeds_that_found_a_bug_hold() {
    // A session that was opened again: the same publication, received again at other times. 27: a committee of one silent liar.
    [69, 75, 191, 27]
        .into_iter()
        .for_each(|seed| holds(seed..seed + 1, &Options { replicas: 4, ..Options::default() }));
}

#[test]
fn two_liars_of_seven_do_not_break_it_either() {
    holds(1..6, &Options { replicas: 7, ops: 80, ..Options::default() });
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..4, &Options { replicas: 4, twice: true, ..Options::default() });
}
