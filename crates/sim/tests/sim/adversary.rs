//! The adversary is one: replicas that lie break a protocol whose model has no liars. And a run beyond the model says what
//! broke, and demands nothing of it.

use quorate_protocols::vr::Vr;
use quorate_sim::{Fault, Faults, Options, Property, Simulated, Summary, campaign};

fn beyond(faults: &str, seeds: u64) -> Summary {
    let faults: Faults = faults.parse().expect("a list of faults");
    let options = Options { faults, beyond_model: true, ..Options::default() };
    campaign::<Vr>(&options, 1..seeds + 1, 2, |_| true)
}

/// Was agreement lost, by what a replica did or by what it saw and stopped?
fn diverges(summary: &Summary) -> bool {
    [Property::AGREEMENT, Property::SAFETY, Property::DIGESTS, Property::NO_HALT]
        .iter()
        .any(|property| summary.beyond.contains_key(property))
}

#[test]
fn twins_break_viewstamped_replication() {
    let summary = beyond("twins,crash,partition", 60);
    assert!(summary.holds() && diverges(&summary), "{summary}");
}

#[test]
fn a_replica_that_says_two_things_breaks_viewstamped_replication() {
    let summary = beyond("equivocate:400,crash,partition", 60);
    assert!(summary.holds() && diverges(&summary), "{summary}");
}

#[test]
fn a_replica_that_claims_an_empty_log_breaks_viewstamped_replication() {
    let summary = beyond("own-lies:400,crash,partition", 60);
    assert!(summary.holds() && diverges(&summary), "{summary}");
}

#[test]
fn a_replica_that_answers_wrongly_is_believed_by_a_client_that_trusts_one() {
    let summary = beyond("false-reply", 20);
    let caught = [Property::REVISIONS, Property::LINEARIZABILITY, Property::SAFETY];
    assert!(caught.iter().any(|property| summary.beyond.contains_key(property)), "{summary}");
}

#[test]
fn every_lie_is_told() {
    let lies: Vec<&str> = Fault::ALL.iter().filter(|fault| fault.is_lie()).map(|fault| fault.name()).collect();
    let summary = beyond(&format!("{},crash,one-way", lies.join(",")), 150);
    let missing: Vec<_> =
        Fault::ALL.iter().filter(|it| it.is_lie() && !summary.counts.faults.contains_key(it)).collect();
    assert!(missing.is_empty(), "never told: {missing:?}\n{summary}");
}

#[test]
fn a_liar_that_does_only_what_networks_do_breaks_nothing() {
    let summary = beyond("flood,drip,withhold:50,silent", 40);
    let harmless = [Property::LIVENESS_1, Property::LIVENESS_2, Property::CONVERGENCE];
    let broken: Vec<_> = summary.beyond.keys().filter(|property| !harmless.contains(property)).collect();
    assert!(summary.holds() && broken.is_empty(), "{summary}");
}

#[test]
fn within_its_model_nobody_lies() {
    let allowed = Vr::allowed(&Faults::all(), 3);
    assert!(Fault::ALL.iter().all(|fault| !(fault.is_lie() && allowed.has(*fault))));
    assert!(!allowed.has(Fault::ClockRush) && !allowed.has(Fault::LyingDisk));
}

#[test]
fn clocks_that_run_apart_break_no_promise_but_that_of_fresh_reads() {
    let summary = beyond("clock-rush,partition,one-way,pause", 60);
    assert!(summary.holds(), "{summary}\n{:?}", summary.failures.first().map(ToString::to_string));
}
