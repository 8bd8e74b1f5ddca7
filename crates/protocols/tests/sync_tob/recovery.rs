//! Restarts in every phase, damaged records, a lost disk.

use crate::harness::{Cluster, OnDisk, config, replica};
use crate::words::small;
use quorate_core::ids::RecordSeq;
use quorate_core::outbox::Class;
use quorate_core::wire::Wire;
use quorate_protocols::sync_tob::{Config, Message, Record, rejoin};

fn agree(it: &Cluster) -> usize {
    let first = it.tape(0);
    assert!(
        (1..it.hosts.len()).all(|id| it.tape(id) == first),
        "{:?}",
        (0..it.hosts.len()).map(|id| it.tape(id)).collect::<Vec<_>>()
    );
    first.len()
}

/// What must never be: two different votes of one replica for one epoch of a view.
fn voted_twice(it: &Cluster) -> bool {
    let said = it.sent.iter().filter_map(crate::harness::Flying::message);
    let votes = said.filter_map(|message| match message {
        Message::Vote(vote) => Some((vote.by(), *vote.statement())),
        _ => None,
    });
    let votes: Vec<_> = votes.collect();
    votes.iter().any(|(by, one)| {
        votes.iter().any(|(who, other)| (by, one.view, one.epoch) == (who, other.view, other.epoch) && one != other)
    })
}

#[test]
fn everybody_may_lose_power_at_any_moment() {
    for moment in 0..40 {
        let mut it = Cluster::with(3, small());
        it.client(1).apply(1, "a").apply(1, "b").apply(1, "c");
        it.submit(1, "d");
        it.run(moment * 5);
        for id in 0..3 {
            it.crash(id);
        }
        (0..3).for_each(|id| it.restart(id));
        it.apply(1, "e");
        it.run(3_000);
        assert!(agree(&it) >= 4, "what was acknowledged is there");
        assert!(!voted_twice(&it));
    }
}

#[test]
fn one_replica_may_lose_power_at_any_moment_while_the_others_go_on() {
    for moment in 0..40 {
        let mut it = Cluster::with(3, small());
        it.client(1).apply(1, "a").apply(1, "b");
        it.submit(1, "c");
        it.run(moment * 5);
        it.crash(1);
        it.run(moment % 7 * 40);
        it.restart(1);
        it.apply(1, "d");
        it.run(3_000);
        assert_eq!(agree(&it), 4);
        assert!(!voted_twice(&it));
    }
}

#[test]
fn a_replica_that_has_started_again_signs_nothing_in_broadcasts_that_began_before() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.run(3_000);
    it.submit(1, "b");
    it.run(30); // a broadcast is under way, or about to be
    it.crash(1);
    it.restart(1);
    it.talk();
    assert!(it.status(1).role.starts_with("fenced"), "{}", it.status(1).role);
    let window = u64::try_from(it.schedule().window().as_millis()).expect("small");
    it.run(window);
    let signed = it.sent.iter().filter(|m| m.from == replica(1) && m.label == "Propose").count();
    assert_eq!(signed, 0, "it only listens");
    it.apply(1, "c");
    it.run(500);
    assert_eq!(agree(&it), 3);
}

#[test]
fn who_missed_much_gets_the_chain_with_its_proof_then_what_it_consists_of() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.isolate(2);
    for index in 0..10 {
        it.apply(1, &format!("x{index}"));
    }
    it.heal();
    it.talk();
    it.run(3_000);
    assert_eq!(agree(&it), 11);
    assert!(it.count("Decided") > 0 && it.count("BundleBody") > 0);
}

#[test]
fn who_is_behind_everybodys_log_fetches_a_state_and_goes_on_from_it() {
    let mut it = Cluster::with(3, small());
    it.client(1).apply(1, "a");
    it.crash(2);
    for index in 0..14 {
        it.apply(1, &format!("x{index}"));
    }
    it.restart(2);
    it.talk();
    it.run(5_000);
    assert!(it.count("StateStable") > 0);
    assert_eq!(agree(&it), 15);
    it.crash(0); // its confirmation is needed now
    it.apply(1, "y");
    it.restart(0);
    it.run(5_000);
    assert_eq!(agree(&it), 16);
    for id in 0..3 {
        it.crash(id);
    }
    (0..3).for_each(|id| it.restart(id));
    it.apply(1, "z");
    it.run(5_000);
    assert_eq!(agree(&it), 17);
}

#[test]
fn a_replica_whose_vote_cannot_be_read_confirms_nothing_until_the_others_have_gone_on() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a").apply(1, "b");
    it.crash(2);
    let vote =
        it.hosts[2].journal.iter().rposition(|record| matches!(record.record(), Record::Voted(_))).expect("a vote");
    it.hosts[2].journal[vote].damaged = Some(Some(Class::Promise));
    it.restart(2);
    assert!(it.status(2).role.starts_with("silent"));
    it.talk();
    it.run(500);
    let said =
        |it: &Cluster| it.sent.iter().filter(|m| m.from == replica(2) && matches!(m.label, "Vote" | "Commit")).count();
    assert_eq!(said(&it), 0);
    it.apply(1, "c");
    it.run(1_000);
    assert_eq!(it.status(2).role, "leads in turn");
    it.crash(0);
    it.apply(1, "d"); // with its confirmation
    it.restart(0);
    it.run(3_000);
    assert_eq!(agree(&it), 4);
}

#[test]
fn a_lost_disk_comes_back_empty_and_silent_until_the_others_have_gone_on() {
    for config in [config(), small()] {
        let mut it = Cluster::with(3, Config { ..config });
        it.client(1);
        for index in 0..11 {
            it.apply(1, &format!("x{index}"));
        }
        it.crash(1);
        it.apply(1, "without it");
        let host = &mut it.hosts[1];
        host.snapshots.clear();
        host.journal = vec![OnDisk { seq: RecordSeq::new(1), bytes: rejoin().encode(), damaged: None }];
        (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
        it.restart(1);
        assert!(it.status(1).role.starts_with("silent"));
        it.run(3_000);
        it.apply(1, "with it");
        it.run(3_000);
        assert_eq!(agree(&it), 13);
        it.crash(0);
        it.apply(1, "with its confirmation");
        it.restart(0);
        it.run(5_000);
        assert_eq!(agree(&it), 14);
    }
}

#[test]
fn a_damaged_entry_is_had_from_the_others() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a").apply(1, "b").apply(1, "c");
    it.crash(2);
    let is_entry = |record: &&mut OnDisk| matches!(record.record(), Record::Bundle(..) | Record::Block(_));
    it.hosts[2].journal.iter_mut().filter(is_entry).for_each(|record| record.damaged = Some(Some(Class::Entry)));
    it.restart(2);
    it.run(3_000);
    assert_eq!(agree(&it), 3);
}

#[test]
fn a_replica_whose_snapshot_cannot_be_read_takes_a_state_from_the_others() {
    for (n, entries_too) in [(3, false), (3, true), (4, false), (4, true)] {
        let mut it = Cluster::with(n, small());
        it.client(1);
        for index in 0..14 {
            it.apply(1, &format!("x{index}"));
        }
        it.run(500);
        it.crash(2);
        it.hosts[2].snapshots.clear();
        let is_entry = |it: &&mut OnDisk| {
            matches!(it.record(), Record::Bundle(..) | Record::Block(_) | Record::Committed(_) | Record::Ordered(_))
        };
        if entries_too {
            it.hosts[2].journal.iter_mut().filter(is_entry).for_each(|it| it.damaged = Some(Some(Class::Entry)));
        }
        it.restart(2);
        it.run(1_000);
        it.apply(1, "y");
        it.run(3_000);
        assert_eq!(agree(&it), 15, "n={n}");
        for id in 0..(n - 1) / 2 {
            it.crash(id); // its confirmation is needed now
        }
        it.apply(1, "z");
        (0..(n - 1) / 2).for_each(|id| it.restart(id));
        it.run(3_000);
        assert_eq!(agree(&it), 16, "n={n}");
    }
}

#[test]
fn a_client_that_was_cut_off_for_long_asks_again_before_its_call_is_over() {
    // A call has 10 s. While nobody was heard, the pause has grown to its longest: 16 of the usual ones, as for other protocols.
    let mut it = Cluster::new(3);
    it.client(1);
    it.lose(|_| true);
    let ticket = it.submit(1, "a");
    it.run(12_000);
    it.heal();
    let healed = it.now;
    it.run_until("an answer", |it| it.answer(1, ticket).is_some());
    let took = (it.now - healed) / crate::words::MS;
    assert!(took <= 16 * 150 + 1_000, "{took} ms");
}
