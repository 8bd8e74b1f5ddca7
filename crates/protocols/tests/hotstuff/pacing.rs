//! Leaders that propose when their program says so (the seed's `do_propose`).

use crate::harness::{Cluster, Flying, replica};
use crate::words::{config, view};
use quorate_core::node::Input;
use quorate_protocols::hotstuff::{Config, Message, Pacing};

fn on_cue() -> Config {
    Config { pacing: Pacing::OnCue, ..config() }
}

/// R0 leads, and its session is open.
fn begun(config: Config) -> Cluster {
    let mut it = Cluster::with(4, config);
    it.client(1);
    let ticket = it.submit(1, "first");
    for _ in 0..4 {
        it.run(20);
        it.input(0, Input::Cue);
    }
    it.run_until("the session is open", |it| it.answer(1, ticket).is_some());
    it.run(1_000);
    it.talk();
    it
}

/// What R0 has proposed: how many operations in each block.
fn blocks(it: &Cluster) -> Vec<usize> {
    let to_r3 = it.sent.iter().filter(|it| it.from == replica(0) && it.to == replica(3));
    let proposals = to_r3.filter_map(Flying::message).filter_map(|message| match message {
        Message::Proposal(it) => Some(it.payload.operations().count()),
        _ => None,
    });
    proposals.collect()
}

#[test]
fn requests_wait_for_a_cue_and_one_cue_brings_one_block_which_commits_by_itself() {
    let mut it = begun(on_cue());
    for index in 0..5 {
        it.submit(1, &format!("x{index}"));
    }
    it.run(100);
    assert!(blocks(&it).is_empty());
    it.input(0, Input::Cue);
    it.submit(1, "too late");
    it.run(40);
    assert_eq!(blocks(&it), [5, 0, 0], "all that waited, and what commits it");
    assert_eq!(it.tape(2).len(), 6);
    it.input(0, Input::Cue);
    it.run(40);
    assert_eq!(it.tape(2).len(), 7);
}

#[test]
fn a_cue_without_requests_is_a_block_without_requests() {
    let mut it = begun(on_cue());
    it.input(0, Input::Cue);
    it.run(100);
    assert_eq!(blocks(&it), [0]);
    it.submit(1, "x");
    it.run(100);
    assert_eq!(blocks(&it), [0], "that cue is used up");
}

#[test]
fn cues_that_come_before_the_block_of_an_earlier_one_are_one() {
    let mut it = begun(on_cue());
    it.hosts[0].fast_disk = false; // its own vote, without which nothing is certified while R3 is silent
    it.isolate(3);
    it.submit(1, "a");
    it.input(0, Input::Cue);
    it.submit(1, "b");
    for _ in 0..10 {
        it.input(0, Input::Cue);
    }
    it.hosts[0].fast_disk = true;
    it.heal();
    it.sync(0);
    it.run(50);
    it.submit(1, "c");
    it.run(50);
    assert_eq!(it.tape(1), ["first", "a", "b"], "c waits");
}

#[test]
fn a_replica_that_does_not_lead_ignores_cues_and_so_does_one_that_needs_none() {
    let mut it = begun(on_cue());
    it.submit(1, "x");
    for id in 1..4 {
        it.input(id, Input::Cue);
    }
    it.run(100);
    assert!(it.count("Proposal") == 0);
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(1_000);
    it.talk();
    it.input(0, Input::Cue);
    it.run(1_000);
    assert_eq!(it.count("Proposal"), 0);
}

#[test]
fn a_leader_whose_program_gives_no_cue_is_given_up_and_the_next_ones_program_decides() {
    let mut it = begun(on_cue());
    let ticket = it.submit(1, "x");
    it.run(1_000);
    assert!(it.view(1) > view(100), "views end by timeouts as always");
    assert_eq!(it.tape(1), ["first"]);
    for _ in 0..200 {
        if it.answer(1, ticket).is_some() {
            break;
        }
        (0..4).for_each(|id| it.input(id, Input::Cue));
        it.run(20);
    }
    it.run(1_000);
    assert!(it.agrees(&["first", "x"]));
}

#[test]
fn what_the_machine_has_built_ahead_waits_for_the_cue_and_is_proposed_one_by_one() {
    let mut it = begun(Config { run_ahead: 3, block_requests: 1, ..on_cue() });
    for index in 0..5 {
        it.submit(1, &format!("x{index}"));
    }
    it.run(50);
    assert!(blocks(&it).is_empty());
    let built = it.hosts[0].process.as_ref().expect("it runs").executor.branches();
    assert_eq!(built, 3, "the machine has filled its buffer");
    for applied in 2..=6 {
        it.input(0, Input::Cue);
        it.run(20);
        assert_eq!(it.tape(1).len(), applied);
    }
    assert_eq!(it.machine(1).wrong, 0);
}
