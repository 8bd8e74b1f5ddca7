//! Restarts in every phase, damaged records, a lost disk.

use crate::harness::{Cluster, replica};
use crate::words::{config, group, header, orders, proposal, say, view};
use quorate_core::outbox::Class;
use quorate_protocols::hotstuff::{Config, Message, Record, Rules, genesis};

fn small(rules: Rules) -> Config {
    Config { state_blocks: 6, rules, leader_views: 8, ..config() }
}

/// Two different blocks of one leader in one view.
fn proposed_twice(it: &Cluster) -> bool {
    let headers = it.sent.iter().filter_map(crate::harness::Flying::message).filter_map(|message| match message {
        Message::Proposal(it) => Some(*it.header.statement()),
        _ => None,
    });
    let headers: Vec<_> = headers.collect();
    headers.iter().any(|one| headers.iter().any(|other| one.view == other.view && one != other))
}

#[test]
fn a_replica_that_restarts_after_its_vote_votes_for_nothing_else_and_sends_the_same_again() {
    let mut it = Cluster::with(4, config());
    it.liar(0);
    let (one, other) = (orders(it.now, Vec::new()), orders(it.now + 1, Vec::new()));
    let (first, second) = (header(1, 1, genesis(), 0, &one), header(1, 1, genesis(), 0, &other));
    it.say(replica(0), 1, say(&proposal(0, first, &one, &[])));
    assert!(it.voted(1).iter().any(|vote| vote.block == first.id()));
    it.restart(1);
    it.say(replica(0), 1, say(&proposal(0, second, &other, &[])));
    assert!(!it.voted_twice(1));
    it.talk();
    it.say(replica(0), 1, say(&proposal(0, first, &one, &[])));
    it.run(1_000);
    assert!(!it.voted_twice(1));
}

#[test]
fn a_lock_survives_a_restart() {
    // Pitfall 9: a replica that comes back with the committed block as its lock votes for a fork.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(0);
    let now = it.view(1).get();
    it.restart(1);
    it.talk();
    let payload = orders(it.now, vec![group(9, 1, "fork")]);
    it.say(replica(0), 1, say(&proposal(0, header(now, 1, genesis(), 0, &payload), &payload, &[])));
    assert!(it.voted(1).is_empty());
    assert_eq!(it.view(1), view(now));
}

#[test]
fn a_leader_that_restarts_does_not_lead_its_term_again() {
    // Its last proposal may have left before its disk took it.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.hosts[0].fast_disk = false;
    it.submit(1, "b");
    it.crash(0);
    it.hosts[0].fast_disk = true;
    it.restart(0);
    it.deliver();
    assert!(it.view(1) > view(100), "the others leave with it");
    it.apply(1, "c");
    it.run(2_000);
    assert_eq!(it.tape(0).len(), 3);
    assert!((1..4).all(|id| it.tape(id) == it.tape(0)));
    assert!(!proposed_twice(&it));
}

#[test]
fn a_proposal_is_not_said_again_before_it_is_on_disk_that_its_term_was_begun() {
    // The simulator's seed 616: the disk was slower than the pause before something is said again.
    let mut it = Cluster::with(4, config());
    it.client(1);
    it.hosts[0].fast_disk = false;
    it.submit(1, "a");
    it.run(250);
    let proposals = |it: &Cluster| it.sent.iter().filter(|it| it.from == replica(0) && it.label == "Proposal").count();
    assert_eq!(proposals(&it), 0, "nothing leaves before the disk has it");
    it.crash(0);
    it.hosts[0].fast_disk = true;
    it.restart(0);
    it.submit(1, "b");
    it.run(5_000);
    assert!(!proposed_twice(&it));
    assert!((0..4).all(|id| it.tape(id).len() == 2 && it.tape(id) == it.tape(0)));
}

#[test]
fn what_is_proposed_is_said_again_once_it_is_on_disk() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Proposal");
    it.submit(1, "b");
    it.deliver();
    it.heal().run(250);
    assert!((0..4).all(|id| it.tape(id) == ["a", "b"] && it.view(id) < view(100)), "no term was given up for it");
}

#[test]
fn everybody_may_lose_power_at_any_moment() {
    for (moment, rules) in (0..60).flat_map(|moment| [(moment, Rules::ThreeChain), (moment, Rules::TwoChain)]) {
        let mut it = Cluster::with(4, small(rules));
        it.client(1).apply(1, "a").apply(1, "b").apply(1, "c");
        it.submit(1, "d");
        for _ in 0..moment {
            let Some(next) = it.flying.pop_front() else { break };
            it.hand_over(&next);
        }
        for id in 0..4 {
            it.crash(id);
        }
        (0..4).for_each(|id| it.restart(id));
        it.apply(1, "e");
        it.run(3_000);
        let tape = it.tape(0);
        assert_eq!(tape.iter().filter(|it| *it == "d").count(), 1, "moment {moment}: {tape:?}");
        assert!((1..4).all(|id| it.tape(id) == tape), "moment {moment}");
        assert!((0..4).all(|id| !it.voted_twice(id)), "moment {moment}");
        assert!(!proposed_twice(&it), "moment {moment}");
    }
}

#[test]
fn a_replica_that_crashes_after_its_timeout_keeps_it() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(0);
    it.lose(|it| it.label == "Timeout");
    it.submit(1, "b");
    it.run(1_500);
    for id in 1..4 {
        it.restart(id);
    }
    it.heal();
    it.run_until("they go on", |it| (1..4).all(|id| it.tape(id) == ["a", "b"]));
}

#[test]
fn a_replica_whose_snapshot_is_gone_fetches_one() {
    let mut it = Cluster::with(4, small(Rules::ThreeChain));
    it.client(1);
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.crash(3);
    it.hosts[3].snapshots.clear();
    it.restart(3);
    it.run_until("R3 has it all", |it| it.tape(3).len() == 20);
}

#[test]
fn a_snapshot_says_which_block_it_is_of_before_it_is_made() {
    let mut it = Cluster::with(4, small(Rules::ThreeChain));
    it.client(1).apply(1, "first");
    it.hosts[1].fast_disk = false;
    for index in 0..12 {
        it.apply(1, &format!("x{index}"));
    }
    assert!(it.hosts[1].snapshots.is_empty(), "its disk has taken no record of the block");
    it.hosts[1].fast_disk = true;
    it.sync(1).run(3_000);
    assert!(!it.hosts[1].snapshots.is_empty());
    it.restart(1);
    it.run(1_000);
    assert_eq!(it.tape(1), it.tape(0));
}

#[test]
fn the_log_is_forgotten_below_a_state_that_a_quorum_has() {
    let mut it = Cluster::with(4, small(Rules::ThreeChain));
    it.client(1);
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    let blocks = |it: &Cluster| it.hosts[1].journal.iter().filter(|it| matches!(it.record(), Record::Block(_))).count();
    assert!(blocks(&it) < 60, "{} blocks are left", blocks(&it));
    (0..4).for_each(|id| it.restart(id));
    it.apply(1, "last");
    it.run(2_000);
    assert!((0..4).all(|id| it.tape(id).len() == 41));
}

/// What the log holds of one replica is damaged where the test says.
fn damage(it: &mut Cluster, id: usize, class: Class, which: impl Fn(&Record) -> bool) {
    let journal = &mut it.hosts[id].journal;
    let found = journal.iter_mut().rev().find(|record| which(&record.record())).expect("there is one");
    found.damaged = Some(Some(class));
}

#[test]
fn a_damaged_block_is_had_from_the_others() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.crash(3);
    damage(&mut it, 3, Class::Entry, |record| matches!(record, Record::Block(_)));
    it.restart(3);
    it.apply(1, "c");
    it.run_until("R3 has it all", |it| it.tape(3) == ["a", "b", "c"]);
}

#[test]
fn a_replica_whose_promises_cannot_be_read_is_silent_until_a_block_beyond_them_is_committed() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, small(rules));
        it.client(1).apply(1, "a");
        it.run(2_000);
        it.crash(3);
        damage(&mut it, 3, Class::Promise, |record| matches!(record, Record::Safety(_)));
        it.lose(|it| it.label == "GetBeyond"); // see `silence.rs`
        it.restart(3);
        it.run(1_000); // it has asked, and knows the bound
        it.talk();
        let bound = it.view(0).get() + 1; // two beyond the highest certificate
        it.apply(1, "b");
        assert!(it.voted(3).iter().all(|vote| vote.view > view(bound)), "it may have voted otherwise");
        for index in 0..30 {
            it.apply(1, &format!("x{index}"));
        }
        it.run(1_000);
        assert!(!it.status(3).role.starts_with("silent"), "{}", it.describe(3));
        it.isolate(2);
        it.apply(1, "with its vote");
        assert!((0..4).all(|id| !it.voted_twice(id)));
    }
}

#[test]
fn a_lost_disk_asks_with_a_nonce_and_votes_only_beyond_what_a_quorum_of_others_reports() {
    let mut it = Cluster::with(4, small(Rules::ThreeChain));
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.lose_disk(3);
    it.talk();
    it.isolate(2);
    it.restart(3);
    it.run(3_000);
    assert!(it.status(3).role.starts_with("silent"));
    it.heal();
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    assert!(!it.status(3).role.starts_with("silent"), "{}", it.describe(3));
    assert_eq!(it.tape(3), it.tape(0));
    let end = it.voted(3).iter().map(|vote| vote.view).min();
    assert!(end.is_some_and(|first| first > view(16)), "{end:?}");
    assert!(it.sent.iter().any(|it| it.label == "GetBound"));
    assert!(matches!(it.last(0, "Bound"), Message::Bound { nonce, .. } if nonce != 0));
}
