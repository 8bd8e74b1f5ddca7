//! What was lost: messages, power, records, disks.

use crate::harness::{Cluster, OnDisk, config, replica};
use crate::words::LIAR;
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::outbox::{Class, Note};
use quorate_core::wire::Wire;
use quorate_protocols::async_tob::agreement::Word;
use quorate_protocols::async_tob::{Config, Message, Record, Vote, WINDOW_EPOCHS, rejoin};
use std::cell::Cell;
use std::collections::BTreeSet;

/// States every few epochs.
fn small() -> Config {
    Config { state_epochs: 8, ..config() }
}

/// All have answered, agree, and hold each once.
fn all_is_well(it: &mut Cluster, operations: &[&str]) {
    it.run_until("everybody has everything", |it| {
        (0..it.hosts.len()).all(|id| operations.iter().all(|operation| it.tape(id).contains(&(*operation).to_owned())))
    });
    it.run(3_000);
    let tape = it.tape(0);
    assert!((1..it.hosts.len()).all(|id| it.tape(id) == tape));
    assert!(operations.iter().all(|operation| tape.iter().filter(|it| it == operation).count() == 1), "{tape:?}");
}

#[test]
fn everybody_may_lose_power_after_any_message_and_goes_on() {
    let mut steps = 0;
    for after in 0.. {
        let mut it = Cluster::new(4);
        it.client(4).apply(4, "a");
        it.run(2_000);
        it.submit(4, "b");
        for _ in 0..after {
            let Some(next) = it.flying.pop_front() else { break };
            it.hand_over(&next);
        }
        let done = it.flying.is_empty();
        for id in 0..4 {
            it.crash(id);
        }
        it.flying.clear();
        (0..4).for_each(|id| it.restart(id));
        all_is_well(&mut it, &["a", "b"]);
        steps = after;
        if done {
            break;
        }
    }
    assert!(steps > 60, "{steps} steps");
}

#[test]
fn everybody_may_lose_power_after_any_sync_and_goes_on() {
    // Slow disks: what was not synced is gone with the power.
    for after in 0..80 {
        let mut it = Cluster::new(4);
        it.client(4).apply(4, "a");
        it.run(2_000);
        (0..4).for_each(|id| it.hosts[id].fast_disk = false);
        it.submit(4, "b");
        for step in 0..after {
            it.deliver();
            it.sync(step % 4);
        }
        for id in 0..4 {
            it.crash(id);
        }
        it.flying.clear();
        (0..4).for_each(|id| it.hosts[id].fast_disk = true);
        (0..4).for_each(|id| it.restart(id));
        all_is_well(&mut it, &["a", "b"]);
    }
}

#[test]
fn a_replica_that_is_alone_may_lose_power_after_any_record_and_goes_on() {
    // Nobody says again to it what it had not counted yet: it must take up by itself what its own records say.
    let mut runs = 0;
    for syncs in 0..12 {
        for kept in 0.. {
            let mut it = Cluster::new(1);
            it.client(4).apply(4, "a");
            it.run(2_000);
            it.hosts[0].fast_disk = false;
            it.submit(4, "b");
            for _ in 0..syncs {
                it.deliver();
                it.sync(0);
            }
            it.deliver();
            let host = &mut it.hosts[0];
            let unsynced = host.next_seq.previous().since(host.durable);
            if kept > unsynced {
                break;
            }
            host.durable = host.durable.plus(kept);
            host.fast_disk = true;
            it.restart(0);
            all_is_well(&mut it, &["a", "b"]);
            runs += 1;
        }
    }
    assert!(runs > 12, "{runs} places to die");
}

#[test]
fn a_replica_whose_snapshots_are_lost_fetches_a_state_though_its_log_is_whole() {
    let mut it = Cluster::with(4, small());
    it.client(4);
    for index in 0..30 {
        it.apply(4, &format!("x{index}"));
    }
    it.run(3_000);
    it.crash(LIAR);
    it.hosts[LIAR].snapshots.clear();
    it.restart(LIAR);
    it.run_until("it has a state again", |it| it.tape(LIAR) == it.tape(0));
    it.crash(0).apply(4, "it is needed now");
    it.run(2_000);
    assert_eq!(it.tape(LIAR), it.tape(1));
}

#[test]
fn a_state_that_is_installed_after_two_changes_of_mind_is_taken() {
    let mut it = Cluster::with(4, small());
    it.client(4).apply(4, "first");
    it.isolate(LIAR);
    let states = |it: &mut Cluster, count: usize| {
        for _ in 0..count {
            (0..8).for_each(|_| assert!(it.apply(4, "x").hosts.len() == 4));
        }
    };
    states(&mut it, 3);
    it.hosts[LIAR].fast_machine = false; // it installs when the test lets it
    it.heal().run(3_000);
    assert_eq!(it.status(LIAR).role, "fetching state");
    for _ in 0..3 {
        states(&mut it, 1);
        it.run(1_000);
    }
    it.hosts[LIAR].fast_machine = true;
    it.work(LIAR);
    it.run(5_000);
    assert_eq!(it.hosts[LIAR].halted, None);
    assert_eq!(it.tape(LIAR), it.tape(0));
}

#[test]
fn a_replica_that_is_alone_and_has_lost_the_state_before_its_log_does_not_start() {
    let mut it = Cluster::with(1, small());
    it.client(4);
    for index in 0..30 {
        it.apply(4, &format!("x{index}"));
    }
    it.run(3_000);
    it.hosts[0].snapshots.clear();
    let refused = it.try_restart(0).expect_err("nobody else has that state");
    assert!(refused.to_string().contains("no state"), "{refused}");
}

#[test]
fn nothing_is_said_and_nothing_counts_before_it_is_on_disk() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.talk();
    it.hosts[1].fast_disk = false;
    it.submit(4, "b");
    it.deliver();
    let promises = ["Ack", "Prop", "PAck", "Agree", "Commit"];
    let said = |it: &Cluster| it.sent.iter().filter(|it| it.from == replica(1) && promises.contains(&it.label)).count();
    assert_eq!(said(&it), 0);
    it.sync(1);
    assert!(said(&it) > 0);
}

/// What a replica has said in agreements, as far as the test has not looked away.
fn words_of(it: &Cluster, id: usize) -> BTreeSet<String> {
    let said = it.said(id, "Agree").into_iter();
    let votes = said.filter_map(|message| if let Message::Agree(votes) = message { Some(votes) } else { None });
    votes.flatten().map(|vote| format!("{vote:?}")).collect()
}

#[test]
fn a_replica_that_comes_back_says_the_words_of_its_former_life_again() {
    // Nobody hears a third echo: the epoch does not end. R1 comes back alone, and knows from its disk alone what it has said.
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.talk();
    it.lose(|it| {
        let third = |vote: &Vote| matches!(vote.word, Word::Echo3(..));
        matches!(it.message(), Some(Message::Agree(votes)) if votes.iter().any(third))
    });
    it.submit(4, "b");
    it.deliver();
    let before = words_of(&it, 1);
    assert!(before.len() >= 3 * 3, "three echoes of three agreements at least: {before:?}");
    it.crash(1).isolate(1);
    it.talk();
    it.restart(1);
    it.run(1_000);
    let after = words_of(&it, 1);
    assert!(after.is_superset(&before), "{:?}", before.difference(&after));
    it.heal().run(3_000);
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn a_third_of_all_messages_may_be_lost() {
    let mut it = Cluster::new(4);
    it.client(1).client(2);
    let seed = Cell::new(7_u64);
    it.lose(move |_| {
        let mut next = seed.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        seed.set(next);
        next % 100 < 30
    });
    let operations: Vec<String> = (0..30).map(|index| format!("x{index}")).collect();
    let tickets: Vec<_> = operations.iter().enumerate().map(|(at, it_)| (1 + at as u128 % 2, it_.clone())).collect();
    let tickets: Vec<_> =
        tickets.into_iter().map(|(client, operation)| (client, it.submit(client, &operation))).collect();
    it.run_until("everything is answered", |it| {
        tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some())
    });
    it.heal();
    let operations: Vec<&str> = operations.iter().map(String::as_str).collect();
    all_is_well(&mut it, &operations);
}

#[test]
fn words_are_said_again_to_those_who_have_committed_too() {
    // R2 and R3 hear no ECHO3 and no DECIDE: R0 and R1 commit, and are not n - t. If R2 and R3 came to a further round, it
    // would not end without one of the two, who join only when they hear of it.
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    let late = |vote: &Vote| matches!(vote.word, Word::Echo3(..) | Word::Decide(_));
    it.lose(move |it| {
        let Some(Message::Agree(votes)) = it.message() else { return false };
        (it.to == replica(2) || it.to == replica(3)) && votes.iter().any(late)
    });
    it.submit(4, "b");
    it.deliver();
    assert_eq!([0, 1, 2, 3].map(|id| it.tape(id).len()), [2, 2, 1, 1]);
    it.talk();
    it.run(1_000);
    let again = it.sent.iter().any(|it| it.from == replica(2) && it.to == replica(0) && it.label == "Agree");
    assert!(again, "R0 has committed, and hears it all the same");
    it.heal().run(3_000);
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn a_replica_far_behind_gets_the_epochs_that_are_in_the_log() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "first");
    it.isolate(LIAR);
    for index in 0..30 {
        it.apply(4, &format!("x{index}"));
    }
    it.heal().run(10_000);
    assert_eq!(it.tape(LIAR), it.tape(0));
    assert!(it.count("Decided") > 0);
    assert_eq!(it.count("GetManifest"), 0);
}

#[test]
fn a_replica_ten_thousand_epochs_behind_fetches_a_state_and_takes_part_again() {
    let mut it = Cluster::with(4, Config { state_epochs: 500, ..config() });
    it.client(4).apply(4, "first");
    it.isolate(LIAR);
    let before = it.committed(0);
    while it.committed(0) < before + 10_000 {
        it.apply(4, "x");
        it.sent.clear();
    }
    it.heal().run(10_000);
    assert_eq!(it.tape(LIAR), it.tape(0));
    assert!(it.count("GetManifest") > 0);
    it.talk();
    it.crash(0).apply(4, "it is needed now");
    assert!(it.sent.iter().any(|it| it.from == replica(LIAR) && it.label == "PAck"));
}

#[test]
fn a_replica_asks_again_for_what_it_lacks_also_while_the_others_go_on_all_the_time() {
    // The epochs of the others are something that gets on here as well; what is missing is missing all the same.
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "first");
    it.isolate(LIAR);
    for index in 0..10 {
        it.apply(4, &format!("x{index}"));
    }
    it.heal().lose(|it| it.label == "GetChain");
    for index in 10..14 {
        it.apply(4, &format!("x{index}")).run(20);
    }
    assert!(it.count("GetChain") > 0 && it.committed(LIAR) < it.committed(0));
    it.heal();
    for index in 14..40 {
        it.apply(4, &format!("x{index}")).run(20);
    }
    assert_eq!(it.tape(LIAR), it.tape(0));
}

#[test]
fn the_log_is_forgotten_only_below_a_state_that_a_quorum_has() {
    let mut it = Cluster::with(4, small());
    it.client(4).apply(4, "a");
    it.lose(|it| it.label == "Status");
    for index in 0..20 {
        it.apply(4, &format!("x{index}"));
    }
    let bases = |it: &Cluster| it.hosts[0].journal.iter().filter(|it| matches!(it.record(), Record::Base(_))).count();
    let long = it.hosts[0].journal.len();
    assert_eq!(bases(&it), 1, "nobody knows that the others have it");
    it.heal().run(5_000);
    for index in 20..30 {
        it.apply(4, &format!("x{index}"));
    }
    it.run(3_000);
    assert!(it.hosts[0].journal.len() < long, "{} records", it.hosts[0].journal.len());
    (0..4).for_each(|id| it.restart(id));
    all_is_well(&mut it, &["a", "x0", "x29"]);
}

/// The liar's log says nothing that can be read in one of its records.
fn damage(it: &mut Cluster, which: impl Fn(&Record) -> bool) {
    it.crash(LIAR);
    let record = it.hosts[LIAR].journal.iter_mut().rev().find(|it| which(&it.record())).expect("such a record");
    record.damaged = Some(Some(Class::Promise));
}

#[test]
fn a_replica_whose_words_cannot_be_read_says_nothing_until_the_group_is_beyond_them() {
    for kind in 0..3 {
        let mut it = Cluster::new(4);
        it.client(4).apply(4, "a");
        it.run(2_000);
        damage(&mut it, |record| match kind {
            0 => matches!(record, Record::Said(_)),
            1 => matches!(record, Record::Approved(_)),
            _ => matches!(record, Record::Batch(_, true)),
        });
        it.lose(|it| it.label == "GetBeyond"); // at rest, the group would get there by itself (`silence.rs`)
        it.restart(LIAR);
        it.run(2_000);
        it.talk();
        assert_eq!(it.status(LIAR).role, "silent: its promises were lost");
        it.apply(4, "b");
        let promises = ["Ack", "Prop", "PAck", "Agree", "Batch"];
        let said = |it: &Cluster| it.sent.iter().any(|it| it.from == replica(LIAR) && promises.contains(&it.label));
        assert!(!said(&it));
        assert_eq!(it.tape(LIAR), it.tape(0), "it follows all the same");
        for index in 0..=WINDOW_EPOCHS {
            it.apply(4, &format!("x{index}"));
        }
        it.run(2_000);
        assert_eq!(it.status(LIAR).role, "member");
        it.crash(0).apply(4, "it is needed now");
    }
}

#[test]
fn a_lane_whose_middle_nobody_has_goes_on_above_it() {
    let mut it = Cluster::with(4, Config { in_flight_batches: 8, ..config() });
    it.client(4).client(7).apply(4, "a").apply(7, "into its own lane"); // 7 % 4 = 3
    it.run(2_000);
    it.lose(|it| it.from == replica(LIAR));
    for operation in ["never sent", "never sent, and damaged", "never sent either"] {
        it.submit(7, operation);
        it.deliver();
    }
    it.crash(LIAR);
    let batches = it.hosts[LIAR].journal.iter_mut().rev().filter(|it| matches!(it.record(), Record::Batch(..)));
    batches.into_iter().nth(1).expect("three batches").damaged = Some(Some(Class::Entry));
    it.restart(LIAR);
    it.heal();
    assert_eq!(it.status(LIAR).role, "silent: its promises were lost");
    for index in 0..=2 * WINDOW_EPOCHS {
        it.apply(4, &format!("x{index}"));
    }
    it.run_until("it speaks again", |it| it.status(LIAR).role == "member");
    it.apply(7, "into its own lane again");
    it.run(3_000);
    let heights = it.history(0).pop().expect("something is decided").heads;
    assert!(heights[LIAR].height >= 1 << 20, "{:?}", heights[LIAR]);
}

#[test]
fn a_lost_disk_begins_anew_beyond_everything_that_its_former_self_can_have_said() {
    let mut it = Cluster::with(4, small());
    it.client(4).client(3).apply(3, "into its own lane").apply(4, "a");
    it.run(2_000);
    it.crash(LIAR);
    it.apply(4, "after the loss");
    let first = OpNumber::new(it.committed(0));
    for index in 0..WINDOW_EPOCHS {
        it.apply(4, &format!("x{index}"));
    }
    let host = &mut it.hosts[LIAR];
    host.snapshots.clear();
    let seq = RecordSeq::ZERO.next();
    host.journal = vec![OnDisk { seq, bytes: rejoin(first).encode(), damaged: None }];
    (host.durable, host.next_seq) = (seq, seq.next());
    it.restart(LIAR);
    it.run_until("it has caught up", |it| it.status(LIAR).role == "member" && it.tape(LIAR) == it.tape(0));
    it.client(7).apply(7, "into its own lane again"); // 7 % 4 = 3
    it.crash(0).apply(4, "it is needed now");
    let convicted = |id: usize| it.hosts[id].process.as_ref().is_some_and(|it| !it.node.ledger().proofs().is_empty());
    assert!(!(1..3).any(convicted), "it has contradicted itself nowhere");
}

#[test]
fn a_replica_whose_snapshot_is_ahead_of_its_log_asks_for_what_it_lacks() {
    let mut it = Cluster::with(4, small());
    it.client(4);
    for index in 0..20 {
        it.apply(4, &format!("x{index}"));
    }
    it.run(2_000);
    it.crash(LIAR);
    let keep = it.hosts[LIAR].journal.iter().position(|it| matches!(it.record(), Record::State(_)));
    let keep = keep.map_or(3, |at| at.min(3));
    it.hosts[LIAR].journal.truncate(keep.max(1));
    let last = it.hosts[LIAR].journal.last().expect("a record").seq;
    (it.hosts[LIAR].durable, it.hosts[LIAR].next_seq) = (last, last.next());
    it.restart(LIAR);
    it.run(5_000);
    it.apply(4, "on");
    it.run(5_000);
    assert_eq!(it.tape(LIAR), it.tape(0));
}

#[test]
fn a_replica_that_has_installed_a_state_may_change_its_mind_as_often_as_before() {
    let mut it = Cluster::with(4, small());
    it.client(4).apply(4, "first");
    let states = |it: &mut Cluster, count: usize| {
        for _ in 0..8 * count {
            it.apply(4, "x");
        }
    };
    let fetches = |it: &Cluster| {
        let notes = it.hosts[LIAR].notes.iter();
        notes.filter(|note| matches!(note, Note::StateTransfer(_))).count()
    };
    for _ in 0..2 {
        it.isolate(LIAR);
        states(&mut it, 3);
        it.hosts[LIAR].fast_machine = false; // it installs when the test lets it
        it.heal().run(3_000);
        let before = fetches(&it);
        for _ in 0..9 {
            states(&mut it, 1);
            it.run(1_000);
        }
        assert!(fetches(&it) >= before + 6, "{} and {before}", fetches(&it));
        it.hosts[LIAR].fast_machine = true;
        it.work(LIAR).run(5_000);
        assert_eq!(it.hosts[LIAR].halted, None);
        assert_eq!(it.tape(LIAR), it.tape(0));
    }
}
