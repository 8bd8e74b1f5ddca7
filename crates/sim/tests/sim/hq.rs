//! HQ in the simulator: crashes, network and disks, clients that die between the phases, and as many liars as its model has.

use quorate_protocols::hq::{Hq, Total};
use quorate_sim::{Fault, Options, run};
use std::collections::BTreeMap;

fn four() -> Options {
    Options { replicas: 4, ..Options::default() }
}

/// How often something was noted in all of these runs.
fn holds(seeds: std::ops::Range<u64>, options: &Options) -> BTreeMap<&'static str, u64> {
    let mut noted = BTreeMap::new();
    for seed in seeds {
        let report = run::<Hq>(&Options { seed, ..options.clone() });
        assert!(report.holds(), "{report}");
        for (note, count) in report.counts.notes {
            *noted.entry(note).or_default() += count;
        }
    }
    noted
}

#[test]
fn no_fault_and_no_lie_breaks_it() {
    holds(1..31, &Options { ops: 200, ..four() });
}

/// Many clients and few keys: objects go to ordered mode and come back from it, whatever else happens (A.9, pitfall 2).
#[test]
fn no_fault_and_no_lie_breaks_ordered_mode() {
    let noted = holds(1..16, &Options { ops: 400, clients: 8, ..four() });
    let cuts = ["PBFT's order was cut", "a cut of PBFT's order was taken from others"];
    let modes =
        ["an object goes to ordered mode", "a write was executed in ordered mode", "an object leaves ordered mode"];
    for what in modes.into_iter().chain(cuts) {
        assert!(noted.get(what).is_some_and(|count| *count > 0), "{what}: {noted:?}");
    }
}

/// Seven replicas, two of which lie: quorums of five, and two correct ones that vouch are not enough.
#[test]
fn no_fault_and_two_liars_break_a_group_of_seven() {
    holds(1..6, &Options { replicas: 7, ops: 150, ..Options::default() });
    let noted = holds(2..4, &Options { replicas: 7, ops: 300, clients: 8, ..Options::default() });
    assert!(noted.get("a write was executed in ordered mode").is_some_and(|count| *count > 0), "{noted:?}");
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..4, &Options { twice: true, ..four() });
}

#[test]
fn without_liars_one_replica_may_lose_promises() {
    let honest = Fault::ALL.iter().filter(|fault| fault.is_lie());
    let faults = honest.fold(Options::default().faults, |faults, lie| faults.without(*lie));
    holds(1..21, &Options { faults, ..four() });
}

/// One order of everything (ADR 029): PBFT's promises and PBFT's faults.
#[test]
fn in_total_order_no_fault_and_no_lie_breaks_it() {
    for seed in 1..16 {
        let report = run::<Total>(&Options { seed, replicas: 4, ..Options::default() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn in_total_order_a_lost_disk_comes_back() {
    let faults: quorate_sim::Faults = "lost-disk:300,crash,loss".parse().expect("a list");
    let mut lost = 0;
    for seed in 1..9 {
        let report = run::<Total>(&Options { seed, replicas: 4, faults: faults.clone(), ..Options::default() });
        assert!(report.holds(), "{report}");
        lost += u64::from(report.counts.faults.contains_key(&Fault::LostDisk));
    }
    assert!(lost > 0, "no disk was lost");
}
