//! Asynchronous total-order broadcast in the simulator: crashes, network, disks and clocks, and as many liars as its model has.

use quorate_protocols::async_tob::AsyncTob;
use quorate_sim::{Fault, Faults, Options, Property, Summary, campaign, run};

fn holds(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run::<AsyncTob>(&Options { seed, ..options.clone() });
        assert!(report.holds(), "{report}");
    }
}

fn honest() -> Faults {
    let lies = Fault::ALL.iter().filter(|fault| fault.is_lie());
    lies.fold(Faults::all(), |faults, lie| faults.without(*lie))
}

#[test]
fn no_fault_and_no_lie_breaks_it() {
    holds(1..31, &Options { replicas: 4, ops: 100, ..Options::default() });
}

#[test]
fn seeds_that_found_a_bug_hold() {
    // Words were not said again to a replica that had decided and committed, and the rest could not end a round without it.
    holds(208..209, &Options { replicas: 4, ..Options::default() });
}

#[test]
fn two_liars_of_seven_break_nothing() {
    holds(1..4, &Options { replicas: 7, ops: 60, ..Options::default() });
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..3, &Options { replicas: 4, twice: true, ops: 100, ..Options::default() });
}

#[test]
fn without_liars_one_replica_may_lose_promises() {
    holds(1..21, &Options { replicas: 4, faults: honest(), ops: 100, ..Options::default() });
}

#[test]
fn a_group_of_one_survives_everything_but_the_damage_of_its_disk() {
    let damage = [Fault::BitRot, Fault::SnapshotRot, Fault::Misdirected, Fault::LostDisk];
    let faults = damage.into_iter().fold(honest(), |faults, fault| faults.without(fault));
    holds(1..21, &Options { replicas: 1, faults, ops: 100, ..Options::default() });
}

#[test]
fn a_replica_whose_disk_is_lost_comes_back_and_breaks_no_promise() {
    let faults: Faults = "lost-disk:800,crash:200,partition,loss,persist-crash".parse().expect("a list of faults");
    let mut lost = 0;
    for seed in 1..11 {
        let options = Options { seed, replicas: 4, faults: faults.clone(), ..Options::default() };
        let report = run::<AsyncTob>(&options);
        assert!(report.holds(), "{report}");
        lost += report.counts.faults.get(&Fault::LostDisk).copied().unwrap_or_default();
    }
    assert!(lost > 2, "{lost}");
}

fn colluders(beyond_model: bool) -> Summary {
    let faults: Faults = "collude,crash,partition".parse().expect("a list of faults");
    let options = Options { faults, beyond_model, replicas: 4, ops: 60, ..Options::default() };
    campaign::<AsyncTob>(&options, 1..11, 2, |_| true)
}

#[test]
fn two_liars_of_four_who_work_together_break_it() {
    let summary = colluders(true);
    let parted = [Property::AGREEMENT, Property::SAFETY, Property::DIGESTS, Property::NO_HALT, Property::CONVERGENCE];
    let broken: u64 = parted.iter().filter_map(|property| summary.beyond.get(property)).sum();
    assert!(broken >= 1, "{summary}");
}

#[test]
fn one_liar_of_four_breaks_nothing_by_saying_the_same_to_all_its_victims() {
    let summary = colluders(false);
    assert!(summary.holds() && summary.counts.faults.contains_key(&Fault::Collude), "{summary}");
}
