//! Restarts in every phase, damaged records, a lost disk.

use crate::harness::{Cluster, OnDisk, config, replica};
use crate::words::{op, orders, pre_prepare, view};
use quorate_core::ids::RecordSeq;
use quorate_core::outbox::Class;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{Config, Message, Record, rejoin};

fn small() -> Config {
    Config { checkpoint_entries: 2, state_entries: 6, ..config() }
}

/// Who voted for what, of all that was ever sent: two different votes for one entry of one view are what must never be.
fn voted_twice(it: &mut Cluster, id: usize) -> bool {
    let votes = it.prepared(id);
    votes.iter().any(|one| votes.iter().any(|other| (one.view, one.op) == (other.view, other.op) && one != other))
}

#[test]
fn a_backup_that_restarts_after_its_vote_votes_for_nothing_else() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let next = it.committed(0) + 1;
    it.liar(0);
    let (one, other) = (orders(it.now, Vec::new()), orders(it.now + 1, Vec::new()));
    it.say(replica(0), 1, pre_prepare(0, 0, next, &one));
    assert!(it.prepared(1).iter().any(|vote| vote.digest == one.digest()));
    it.restart(1);
    it.say(replica(0), 1, pre_prepare(0, 0, next, &other));
    assert!(!voted_twice(&mut it, 1));
}

#[test]
fn a_primary_that_restarts_does_not_lead_its_view_again() {
    // Its last proposal may have left before its disk took it.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.hosts[0].fast_disk = false;
    it.submit(1, "b");
    it.crash(0);
    it.hosts[0].fast_disk = true;
    it.restart(0);
    it.deliver();
    assert_eq!(it.view(0), view(1));
    it.apply(1, "c");
    it.run(2_000);
    assert_eq!(it.tape(0).len(), 3);
    assert!((1..4).all(|id| it.tape(id) == it.tape(0)));
    assert_eq!(it.primary(), Some(1));
}

#[test]
fn everybody_may_lose_power_at_any_moment() {
    for moment in 0..40 {
        let mut it = Cluster::with(4, small());
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
    }
}

#[test]
fn a_replica_that_crashes_while_it_changes_views_goes_on_changing() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.lose(|it| it.label == "NewView");
    it.submit(1, "b");
    it.run(500);
    assert_eq!(it.view(2), view(1));
    it.restart(2);
    assert_eq!(it.view(2), view(1), "it has left view 0 for good");
    it.heal();
    it.apply(1, "c");
    it.run(2_000);
    assert_eq!(it.tape(2), it.tape(1));
}

#[test]
fn a_proposal_that_cannot_be_read_comes_from_the_others() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.crash(2);
    let record = it.hosts[2].journal.iter_mut().find(|it| matches!(it.record(), Record::Proposal(..)));
    record.expect("a proposal").damaged = Some(Some(Class::Entry));
    it.restart(2);
    it.run_until("R2 has it all", |it| it.tape(2) == ["a", "b"]);
}

#[test]
fn a_replica_whose_vote_cannot_be_read_votes_for_nothing_until_the_log_is_stable_beyond_it() {
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.crash(2);
    let record = it.hosts[2].journal.iter_mut().find(|it| matches!(it.record(), Record::Prepare(_)));
    record.expect("a vote").damaged = Some(Some(Class::Promise));
    it.lose(|it| it.label == "GetBeyond"); // see `silence.rs`
    it.restart(2);
    it.run(500);
    it.talk();
    it.apply(1, "c");
    it.run_until("it follows", |it| it.tape(2) == ["a", "b", "c"]);
    assert!(it.prepared(2).is_empty(), "it executes, and does not vote");
    assert_eq!(it.status(2).role, "silent: its promises were lost");
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    assert_eq!(it.status(2).role, "backup");
    it.isolate(3);
    it.apply(1, "with R2's vote");
}

#[test]
fn a_silent_replica_takes_no_part_in_view_changes_and_answers_no_reads() {
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(2);
    let record = it.hosts[2].journal.iter_mut().find(|it| matches!(it.record(), Record::Prepare(_)));
    record.expect("a vote").damaged = Some(None);
    it.lose(|it| it.label == "GetBeyond"); // see `silence.rs`
    it.restart(2);
    it.run(500);
    it.crash(0);
    it.talk();
    let read = it.read(1, quorate_core::protocol::Consistency::Linearizable);
    it.submit(1, "b");
    it.run(3_000);
    assert!(!it.talk().iter().any(|line| line.starts_with("R2 ViewChange") || line.starts_with("R2 ReadReply")));
    assert_eq!(it.answer(1, read), None, "two that vote are no quorum of four");
}

#[test]
fn a_lost_disk_begins_anew_after_the_log_has_passed_what_it_may_have_voted_for() {
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(2);
    it.apply(1, "first without it");
    let first = op(it.committed(0));
    let host = &mut it.hosts[2];
    host.journal.clear();
    host.snapshots.clear();
    let bytes = rejoin(first).encode();
    host.journal.push(OnDisk { seq: RecordSeq::new(1), bytes, damaged: None });
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
    it.lose(|it| it.label == "GetBeyond"); // see `silence.rs`
    it.talk();
    it.restart(2);
    it.apply(1, "b");
    it.run(2_000);
    assert!(it.prepared(2).is_empty());
    for index in 0..140 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    assert_eq!((it.status(2).role.as_str(), it.tape(2).len()), ("backup", 143));
}

#[test]
fn a_group_that_tolerates_nobody_does_not_start_without_its_promises() {
    let mut it = Cluster::new(1);
    it.client(1).apply(1, "a");
    it.crash(0);
    let record = it.hosts[0].journal.iter_mut().find(|it| matches!(it.record(), Record::Prepare(_)));
    record.expect("a vote").damaged = Some(Some(Class::Promise));
    assert!(it.try_restart(0).is_err());
}

#[test]
fn the_log_is_forgotten_only_below_a_state_that_a_quorum_has() {
    let mut it = Cluster::with(4, small());
    it.client(1).lose(|it| it.label == "State");
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    let before = it.hosts[0].journal.len();
    assert!(before > 60, "everything is still there: {before}");
    it.heal();
    for index in 20..40 {
        it.apply(1, &format!("x{index}"));
    }
    let kept = it.hosts[0].journal.iter().filter(|it| matches!(it.record(), Record::Proposal(..))).count();
    assert!(kept < 20, "{kept} proposals");
    it.crash(0);
    it.restart(0);
    it.apply(1, "after");
    it.run(2_000);
    assert_eq!(it.tape(0).len(), 41);
}

#[test]
fn a_replica_whose_snapshot_was_on_disk_before_its_log_vouches_for_checkpoints_again() {
    // The simulator's seed 560 without lies: one replica is gone, and the votes of all the others are needed.
    let mut it = Cluster::with(4, Config { checkpoint_entries: 4, state_entries: 6, ..config() });
    it.client(1).lose(|it| it.label == "State" || (it.label == "Checkpoint" && it.to == replica(2)));
    while it.committed(2) < 7 {
        it.apply(1, "x");
    }
    it.crash(2);
    assert!(!it.hosts[2].snapshots.is_empty());
    it.hosts[2].journal.retain(|record| match record.record() {
        Record::Committed(certificate) => certificate.statement().op != op(5),
        Record::State(_) => false,
        _ => true,
    });
    it.crash(1);
    it.heal().restart(2);
    for index in 0..20 {
        it.apply(1, &format!("y{index}"));
    }
    it.run(2_000);
    assert!([0, 2, 3].iter().all(|id| it.tape(*id) == it.tape(0)) && it.tape(0).len() >= 26);
}

#[test]
fn a_replica_whose_snapshot_is_gone_fetches_the_state() {
    let mut it = Cluster::with(4, small());
    it.client(1);
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.crash(2);
    it.hosts[2].snapshots.clear();
    it.restart(2);
    it.run_until("R2 has it all", |it| it.tape(2).len() == 20);
}

#[test]
fn a_replica_that_has_executed_something_else_than_a_quorum_stops() {
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a").lose(|it| it.label == "Checkpoint");
    it.apply(1, "b").apply(1, "c");
    let chain = quorate_core::crypto::Digest::of(b"another history");
    let words = quorate_protocols::pbft::LogCheckpoint { op: op(4), chain };
    for by in [0, 1, 3] {
        let vote = crate::harness::keyring(by, 4).sign(words);
        it.say(replica(by), 2, Message::Checkpoint(vote));
    }
    assert!(it.hosts[2].halted.is_some());
}

#[test]
fn a_vote_for_a_checkpoint_that_was_lost_is_said_again_after_a_restart() {
    // Everybody is at the high watermark, in a snapshot: nothing is executed again.
    let mut it = Cluster::with(4, Config { checkpoint_entries: 4, state_entries: 8, ..config() });
    it.client(1).lose(|it| it.label == "Checkpoint");
    for index in 0..7 {
        it.apply(1, &format!("x{index}"));
    }
    assert_eq!(it.committed(0), 8);
    for id in 0..4 {
        it.crash(id);
    }
    it.heal();
    (0..4).for_each(|id| it.restart(id));
    it.apply(1, "beyond the watermark");
}

#[test]
fn who_is_thought_to_be_behind_is_asked_and_then_everybody_is_quiet() {
    // R3 hears where the others are and they do not hear it: it has no reason to speak again.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(3_000);
    it.lose(|it| it.from == replica(3) && it.label == "Status");
    it.apply(1, "b");
    it.run(3_000);
    it.heal().run(10_000);
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new());
}
