//! The simulator itself, judged by a protocol that is right for obvious reasons and by the ways in which it can be made wrong.

use crate::steady;

use quorate_sim::{Options, Property, Simulated, Summary, campaign, run};
use steady::{MUTATIONS, Mutation, Steady};

fn seeds<P: Simulated>(count: u64) -> Summary {
    campaign::<P>(&Options::default(), 1..count + 1, 2, |_| true)
}

/// Index of a mutation, as the const parameter of the protocol.
const fn m(mutation: Mutation) -> u8 {
    mutation as u8
}

fn first(summary: &Summary) -> String {
    summary.failures.first().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn a_protocol_that_is_right_survives_every_fault() {
    let summary = seeds::<Steady<{ m(Mutation::None) }>>(30);
    assert!(summary.holds(), "{summary}\n{}", first(&summary));
    for kind in ["checkpoints", "state transfers"] {
        assert!(summary.counts.notes.get(kind).is_some_and(|count| *count > 3), "{kind}: {summary}");
    }
}

#[test]
fn two_runs_of_a_seed_are_one_run() {
    for seed in 1..9 {
        let report = run::<Steady<{ m(Mutation::None) }>>(&Options { seed, twice: true, ..Options::default() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn the_list_of_mutations_is_in_the_order_of_their_numbers() {
    assert!(MUTATIONS.iter().enumerate().all(|(index, mutation)| *mutation as usize == index));
}

#[test]
fn a_leader_that_tells_before_its_disk_has_the_entry_is_caught() {
    let summary = seeds::<Steady<{ m(Mutation::TellsEarly) }>>(30);
    assert!(!summary.holds(), "{summary}");
}

#[test]
fn a_backup_that_acknowledges_before_its_disk_has_the_entry_is_caught() {
    // Harmless while the leader never loses its disk: the leader has every entry. The simulator must not cry wolf.
    let summary = seeds::<Steady<{ m(Mutation::AcknowledgesEarly) }>>(30);
    assert!(summary.holds(), "{summary}\n{}", first(&summary));
}

#[test]
fn a_reply_before_the_commit_is_caught() {
    let summary = seeds::<Steady<{ m(Mutation::RepliesEarly) }>>(30);
    assert!(!summary.holds(), "{summary}");
}

#[test]
fn reads_from_a_replica_that_may_be_behind_are_caught() {
    let summary = seeds::<Steady<{ m(Mutation::ReadsAnything) }>>(20);
    let caught = [Property::LINEARIZABILITY, Property::REVISIONS];
    assert!(caught.iter().any(|property| summary.properties.contains_key(property)), "{summary}");
}

#[test]
fn a_protocol_that_never_sends_again_breaks_liveness() {
    let summary = seeds::<Steady<{ m(Mutation::NeverResends) }>>(20);
    let live = [Property::LIVENESS_1, Property::LIVENESS_2, Property::CONVERGENCE];
    assert!(summary.properties.keys().any(|property| live.contains(property)), "{summary}");
}

#[test]
fn replicas_that_put_their_own_clocks_into_the_state_are_caught() {
    let summary = seeds::<Steady<{ m(Mutation::OwnClock) }>>(20);
    assert!(summary.properties.contains_key(Property::AGREEMENT), "{summary}");
}
