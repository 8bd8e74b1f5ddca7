//! PBFT in the simulator: crashes, network and disks, and as many liars as its model has.

use quorate_core::time::Duration;
use quorate_protocols::pbft::{Config, Pbft};
use quorate_sim::bad_primary::{Bad, replace};
use quorate_sim::exhaustive::{Scope, explore};
use quorate_sim::{Fault, Faults, Options, Property, Summary, campaign, run};

fn holds(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run::<Pbft>(&Options { seed, replicas: 4, ..options.clone() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn no_fault_and_no_lie_breaks_it() {
    holds(1..31, &Options { ops: 200, ..Options::default() });
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..4, &Options { twice: true, ..Options::default() });
}

#[test]
fn without_liars_one_replica_may_lose_promises() {
    let honest = Fault::ALL.iter().filter(|fault| fault.is_lie());
    let faults = honest.fold(Options::default().faults, |faults, lie| faults.without(*lie));
    holds(1..21, &Options { faults, ..Options::default() });
}

#[test]
fn a_replica_whose_disk_is_lost_comes_back_and_breaks_no_promise() {
    let faults: Faults = "lost-disk:800,crash:200,partition,loss,persist-crash".parse().expect("a list of faults");
    let mut lost = 0;
    for seed in 1..21 {
        let report = run::<Pbft>(&Options { seed, replicas: 4, faults: faults.clone(), ..Options::default() });
        assert!(report.holds(), "{report}");
        lost += report.counts.faults.get(&Fault::LostDisk).copied().unwrap_or_default();
    }
    assert!(lost > 5, "{lost}");
}

fn colluders(replicas: usize, beyond_model: bool) -> Summary {
    let faults: Faults = "collude,crash,partition".parse().expect("a list of faults");
    let options = Options { faults, beyond_model, replicas, ..Options::default() };
    campaign::<Pbft>(&options, 1..21, 2, |_| true)
}

#[test]
fn two_liars_of_four_who_work_together_break_it() {
    let summary = colluders(4, true);
    let parted = [Property::AGREEMENT, Property::SAFETY, Property::DIGESTS, Property::NO_HALT];
    let broken: u64 = parted.iter().filter_map(|property| summary.beyond.get(property)).sum();
    assert!(broken >= 3, "{summary}");
}

#[test]
fn one_liar_of_four_and_two_of_seven_who_work_together_break_nothing() {
    for replicas in [4, 7] {
        let summary = colluders(replicas, false);
        assert!(summary.holds() && summary.counts.faults.contains_key(&Fault::Collude), "{summary}");
    }
}

#[test]
fn small_scopes_are_explored_with_keys() {
    let scope = Scope { replicas: 3, crashes: 0, timeouts: 1, states_max: 1_500, ..Scope::default() };
    let explored = explore::<Pbft>(&scope, |_| {});
    assert!(explored.violation.is_none() && explored.states > 100, "{explored}");
}

#[test]
fn a_primary_that_is_silent_equivocates_or_is_slow_is_replaced() {
    for (bad, limit_ms) in [(Bad::Silent, 1_500), (Bad::Equivocating, 1_500), (Bad::Slow, 6_000)] {
        let replaced = replace::<Pbft>(1, 4, Config::default(), bad);
        assert!(replaced.after_ms.is_some_and(|after| after < limit_ms), "{bad}: {replaced:?}");
        assert!(replaced.after > replaced.before / 2, "{bad}: {replaced:?}");
    }
}

#[test]
fn a_slow_primary_stays_for_ever_where_it_need_not_keep_up() {
    let config = Config { keep_up: Duration::from_secs(0), ..Config::default() };
    let replaced = replace::<Pbft>(1, 4, config, Bad::Slow);
    assert_eq!(replaced.after_ms, None, "{replaced:?}");
}
