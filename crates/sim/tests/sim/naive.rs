//! The wrong protocol on purpose: it proves that the checkers can fail, and that they do not cry wolf.

use quorate_core::machine::{Query, View};
use quorate_machines::counter::Counter;
use quorate_protocols::naive::Naive;
use quorate_sim::registers::Registers;
use quorate_sim::{Faults, Options, Property, Scenario, campaign, run};

fn value(it: &Scenario<Naive, Counter>, replica: usize) -> String {
    let mut text = Vec::new();
    if let Some(counter) = it.cluster.machine(replica) {
        counter.view().query(b"", &mut text);
    }
    String::from_utf8_lossy(&text).into_owned()
}

/// Seed 004, *Problem*: "1, divideret med 2, plus 1 kunne give resultaterne: 1.5 eller 1".
#[test]
fn naive_diverges_on_the_seeds_example() {
    let mut it = Scenario::<Naive, Counter>::new(1, 2, 2, (), Counter::default);
    for client in [0, 1] {
        it.apply(client, "add 0"); // opens the client's session at both replicas, one client after the other
        assert!(it.settle());
        it.run_ms(20);
    }
    it.apply(0, "set 1");
    assert!(it.settle());
    it.run_ms(20);
    assert_eq!((value(&it, 0), value(&it, 1)), ("1".to_owned(), "1".to_owned()));

    // Replica 0 hears "÷2" first, replica 1 "+1": each is as right as the other.
    let (halver, adder, first, second) = (it.client(0), it.client(1), it.replica(0), it.replica(1));
    it.hold(adder, first).hold(halver, second);
    it.apply(0, "div 2");
    it.apply(1, "add 1");
    it.run_ms(20);
    assert_eq!((value(&it, 0), value(&it, 1)), ("0.5".to_owned(), "2".to_owned()));
    assert_eq!(it.cluster.violation().map(|violation| violation.property), Some(Property::AGREEMENT));

    it.cluster.go_on();
    it.release(adder, first).release(halver, second);
    it.run_ms(20);
    it.cluster.go_on();
    it.run_ms(20);
    assert_eq!((value(&it, 0), value(&it, 1)), ("1.5".to_owned(), "1".to_owned()));
}

#[test]
fn random_seeds_catch_naive() {
    let options = Options { ops: 60, ..Options::default() };
    let summary = campaign::<Naive>(&options, 1..41, 2, |_| true);
    assert_eq!(summary.failed, 40, "{summary}");
}

#[test]
fn naive_is_caught_even_in_a_world_without_faults() {
    let options = Options { faults: Faults::none(), ..Options::default() };
    let summary = campaign::<Naive>(&options, 1..21, 2, |_| true);
    assert!(summary.failed >= 18, "{summary}");
    assert!(summary.properties.contains_key(Property::AGREEMENT), "{summary}");
}

#[test]
fn naive_is_fine_under_a_lucky_star() {
    // One client, a world without faults: every replica receives in the order of sending.
    let options = Options { clients: 1, faults: Faults::none(), ops: 40, twice: true, ..Options::default() };
    for seed in 1..6 {
        let report = run::<Naive>(&Options { seed, ..options.clone() });
        assert!(report.holds(), "{report}");
        assert!(report.counts.answered > 40);
    }
}

#[test]
fn a_seed_is_one_run_and_prints_the_command_that_repeats_it() {
    let options = Options { seed: 3, trace: true, ..Options::default() };
    let (first, second) = (run::<Naive>(&options), run::<Naive>(&options));
    assert_eq!(first.audit, second.audit);
    assert_eq!(first.trace, second.trace);
    assert_eq!(first.counts, second.counts);
    assert_eq!(first.replay, "quorate sim --protocol naive --seed 3 --replicas 3 --ops 150 --faults all");
}

#[test]
fn a_scenario_can_hold_a_link_and_let_it_go() {
    let mut it = Scenario::<Naive, Registers>::new(1, 3, 1, (), Registers::default);
    let (client, first) = (it.client(0), it.replica(0));
    it.hold(client, first);
    it.apply(0, b"?".to_vec());
    it.run_ms(50);
    it.release(client, first);
    assert!(it.settle());
}
