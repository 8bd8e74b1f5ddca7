//! The leader that runs ahead (the seed's README): its machine builds payloads before their blocks, on states that are not
//! committed; what loses leaves no trace.

use crate::harness::{Cluster, replica};
use crate::words::{config, view};
use quorate_protocols::hotstuff::{Config, Message, Rules};
use std::collections::VecDeque;

fn ahead(depth: usize) -> Config {
    Config { run_ahead: depth, block_requests: 1, ..config() }
}

/// Nobody's machine has met a proposal that was made for another state, and all are alike.
fn clean(it: &Cluster) {
    let running: Vec<_> = (0..it.hosts.len()).filter(|id| it.hosts[*id].process.is_some()).collect();
    assert!(running.iter().all(|id| it.machine(*id) == it.machine(running[0])));
    assert_eq!(it.machine(running[0]).wrong, 0);
}

#[test]
fn what_the_leaders_machine_has_built_goes_in_front_of_the_requests_everywhere() {
    let mut it = Cluster::with(4, ahead(3));
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    assert_eq!(it.tape(3), ["a", "b"]);
    assert!(it.machine(3).made.contains(&b"0+1".to_vec()), "{:?}", it.machine(3).made);
    clean(&it);
}

#[test]
fn a_leader_begins_to_build_when_a_block_of_its_own_is_committed() {
    let mut it = Cluster::with(4, ahead(3));
    it.hosts[0].building = Some(VecDeque::new());
    it.client(1);
    let first = it.submit(1, "a");
    it.lose(|it| it.label == "Vote");
    it.run(200);
    assert!(!it.build(0), "its empty blocks are not committed");
    it.heal();
    it.run(300);
    while it.build(0) {
        it.run(20);
    }
    it.run_until("answered", |it| it.answer(1, first).is_some());
}

#[test]
fn a_machine_that_takes_its_time_delays_neither_votes_nor_blocks_nor_costs_a_term() {
    // 200 ms for each proposal; a request is committed while the next one is being built.
    let mut it = Cluster::with(4, ahead(3));
    it.client(1).apply(1, "first");
    it.hosts[0].building = Some(VecDeque::new());
    let tickets: Vec<_> = (0..20).map(|index| it.submit(1, &format!("x{index}"))).collect();
    let mut done = Vec::new();
    for _ in 0..26 {
        it.run(200);
        it.build(0);
        it.run(10);
        done.push(it.tape(2).len());
    }
    assert!(tickets.iter().all(|ticket| it.answer(1, *ticket).is_some()));
    assert_eq!(it.count("Timeout"), 0);
    assert!(it.view(1) < view(100), "no term was lost");
    assert!(done.windows(2).all(|pair| pair[1] <= pair[0] + 1), "one proposal, one block: {done:?}");
    clean(&it);
}

#[test]
fn several_payloads_are_built_before_the_first_of_them_is_committed() {
    let mut it = Cluster::with(4, ahead(3));
    it.client(1).apply(1, "first");
    it.run(1_000);
    it.lose(|it| it.label == "Vote");
    for index in 0..9 {
        it.submit(1, &format!("x{index}"));
    }
    it.deliver();
    let process = it.hosts[0].process.as_ref().expect("it runs");
    assert_eq!(process.executor.branches(), 4, "one in a block that nobody votes for, three that wait for theirs");
    assert_eq!(it.tape(0), ["first"]);
    it.heal();
    it.run_until("all are applied", |it| it.tape(0).len() == 10);
    clean(&it);
}

#[test]
fn replies_leave_when_the_block_is_committed_and_not_before() {
    let mut it = Cluster::with(4, ahead(3));
    it.client(1).apply(1, "first");
    it.run(1_000);
    it.lose(|it| it.label == "Vote");
    let ticket = it.submit(1, "x");
    it.run(100);
    assert!(it.hosts[1].process.as_ref().is_some_and(|it| it.executor.branches() > 0), "R1 has applied it");
    assert_eq!(it.answer(1, ticket), None);
    assert_eq!(it.tape(1), ["first"], "and nobody sees it");
}

#[test]
fn what_a_leader_that_is_given_up_has_built_is_dropped_and_its_requests_wait_again() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, Config { rules, ..ahead(3) });
        it.client(1).apply(1, "first");
        it.run(1_000);
        it.lose(|it| it.label == "Proposal" && it.from == replica(0));
        for index in 0..9 {
            it.submit(1, &format!("x{index}"));
        }
        it.run(400);
        it.heal();
        it.run_until("all are applied", |it| (0..4).all(|id| it.tape(id).len() == 10));
        it.run(2_000);
        assert!(it.view(0) > view(100));
        let branches = |id: usize| it.hosts[id].process.as_ref().map(|it| it.executor.branches());
        assert!((0..4).all(|id| branches(id) == Some(0)), "{:?}", (0..4).map(branches).collect::<Vec<_>>());
        clean(&it);
    }
}

#[test]
fn a_block_without_requests_between_them_does_not_spoil_what_was_built() {
    let mut it = Cluster::with(4, ahead(3));
    it.client(1).apply(1, "first");
    it.run(1_000);
    it.hosts[0].building = Some(VecDeque::new());
    it.talk();
    it.submit(1, "x");
    it.submit(1, "y");
    it.build(0);
    it.run(50); // x is in a block, empty ones follow and commit it
    it.build(0);
    it.run_until("both are applied", |it| it.tape(3).len() == 3);
    let payloads = it.sent.iter().filter(|it| it.to == replica(3)).filter_map(crate::harness::Flying::message);
    let empty = payloads.filter(|message| matches!(message, Message::Proposal(it) if it.payload.is_empty()));
    assert!(empty.count() >= 4);
    clean(&it);
}

#[test]
fn a_replica_that_fetches_a_state_forgets_what_it_speculated_on() {
    let mut it = Cluster::with(4, Config { state_blocks: 8, ..ahead(3) });
    it.client(1).apply(1, "first").isolate(3);
    for index in 0..30 {
        it.apply(1, &format!("x{index}"));
    }
    it.heal();
    it.run_until("R3 has it all", |it| it.tape(3).len() == 31);
    it.crash(2);
    it.apply(1, "with R3");
    clean(&it);
}
