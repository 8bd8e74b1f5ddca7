//! Reception in the simulator: brokers that do what they like, crashes, disks, and as many liars as the model has, at every level
//! of criticality.

use quorate_protocols::reception::{PENDING_DIFFERED, Reception};
use quorate_sim::{Fault, Faults, Options, run};
use std::collections::BTreeSet;

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
    // None of them had a broker.
    let options = Options { replicas: 4, faults: Faults::all().split().1, ..Options::default() };
    [69, 75, 191, 27].into_iter().for_each(|seed| holds(seed..seed + 1, &options));
}

#[test]
fn two_liars_of_seven_do_not_break_it_either() {
    holds(1..6, &Options { replicas: 7, ops: 80, ..Options::default() });
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..4, &Options { replicas: 4, twice: true, ..Options::default() });
}

/// The matrix of C.5: each fault of a broker alone and thick, then all of them, at every level of criticality; in every second
/// seed with crashes and liars.
#[test]
fn no_fault_of_a_broker_breaks_it_at_any_level_of_criticality() {
    let brokers: Vec<Fault> = Fault::ALL.iter().copied().filter(|fault| fault.is_brokers()).collect();
    let alone = brokers.iter().map(|fault| (vec![*fault], format!("{fault}:400")));
    let together = brokers.iter().map(|fault| format!("{fault}:400")).collect::<Vec<_>>().join(",");
    for (faults, list) in alone.chain([(brokers.clone(), together)]) {
        let mut struck = BTreeSet::new();
        for (criticality, replicas) in [(0, 4), (1, 4), (0, 7), (1, 7), (2, 7)] {
            for (seed, others) in [(1, ""), (2, ",crash,equivocate,own-lies,silent")] {
                let faults = format!("{list}{others}").parse().expect("a list");
                let criticality = Some(criticality);
                let options = Options { seed, replicas, criticality, ops: 40, faults, ..Options::default() };
                let report = run::<Reception>(&options);
                assert!(report.holds(), "{report}");
                struck.extend(report.counts.faults.into_keys());
            }
        }
        assert!(faults.len() > 1 || struck.contains(&faults[0]), "{list} never struck: {struck:?}");
    }
}

/// What is compared differs where copies and receptions are lost, and requests of all levels meet: a run without that proves nothing of it.
#[test]
fn what_waits_differs_and_is_mended_and_requests_of_all_levels_meet_in_one_cluster() {
    let faults: Faults =
        "loss:300,partition,crash,broker-drop:300,broker-partition:300,broker-loss:200".parse().expect("a list");
    let mut noted = BTreeSet::new();
    for (seed, replicas) in (1..5).flat_map(|seed| [(seed, 4), (seed, 7)]) {
        let options = Options { seed, replicas, ops: 60, faults: faults.clone(), ..Options::default() };
        let report = run::<Reception>(&options);
        assert!(report.holds(), "{report}");
        noted.extend(report.counts.notes.into_keys());
    }
    assert!(noted.contains(PENDING_DIFFERED), "{noted:?}");
    assert!(noted.contains("levels of criticality named"), "{noted:?}");
}

#[test]
fn a_broker_is_found_where_protocols_publish_and_nowhere_else() {
    let faults: Faults = "broker-drop:900,broker-tamper:900".parse().expect("a list");
    let options = Options { replicas: 4, faults, ops: 30, ..Options::default() };
    assert!(run::<Reception>(&options).counts.faults.contains_key(&Fault::BrokerDrop));
    let pbft = run::<quorate_protocols::pbft::Pbft>(&options);
    assert!(pbft.holds() && pbft.counts.faults.is_empty(), "{pbft}");
}
