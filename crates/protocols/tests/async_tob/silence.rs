//! A replica that has lost its promises, in a group that has nothing to order.

use crate::harness::{Cluster, OnDisk, config, replica};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::outbox::Class;
use quorate_core::wire::Wire;
use quorate_protocols::async_tob::{Message, Record, WINDOW_EPOCHS, rejoin};

/// A group that was asked for something once, and has come to rest.
fn at_rest(n: usize) -> Cluster {
    let mut it = Cluster::with(n, config());
    it.client(4).apply(4, "a").apply(4, "b");
    it.run(20_000);
    it.talk();
    it
}

/// One of its words cannot be read.
fn forget(it: &mut Cluster, id: usize) {
    it.crash(id);
    let record = it.hosts[id].journal.iter_mut().find(|it| matches!(it.record(), Record::Said(_)));
    record.expect("a word").damaged = Some(Some(Class::Promise));
    it.restart(id);
}

#[test]
fn in_a_group_at_rest_the_silence_of_a_lost_promise_ends_without_any_client() {
    for (n, victim) in [(4, 0), (4, 3), (7, 2)] {
        let mut it = at_rest(n);
        forget(&mut it, victim);
        assert!(it.status(victim).role.starts_with("silent"));
        it.run(5_000);
        assert_eq!(it.status(victim).role, "member", "{}", it.describe(victim));
        for id in (0..n).filter(|id| *id != victim).take((n - 1) / 3) {
            it.isolate(id);
        }
        it.submit(4, "with its words");
        it.run_until("the others go on", |it| it.tape(victim) == ["a", "b", "with its words"]);
        it.heal();
        it.rests_after(20_000);
    }
}

#[test]
fn in_a_group_at_rest_a_lost_disk_s_silence_ends_without_any_client() {
    // `quorate recover` has the others go on before it ends; here it has asked for one epoch only.
    let mut it = at_rest(4);
    it.crash(2);
    it.apply(4, "first without it");
    let first = OpNumber::new(it.committed(0));
    let host = &mut it.hosts[2];
    host.snapshots.clear();
    host.journal = vec![OnDisk { seq: RecordSeq::new(1), bytes: rejoin(first).encode(), damaged: None }];
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
    it.restart(2);
    it.run(5_000);
    assert_eq!(it.status(2).role, "member", "{}", it.describe(2));
    assert_eq!(it.tape(2), ["a", "b", "first without it"]);
    it.rests_after(20_000);
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut it = at_rest(4);
    it.lose(|it| it.label == "GetBeyond");
    forget(&mut it, 2);
    it.run(20_000);
    it.talk();
    it.run(20_000);
    let asked = it.count("GetBeyond").div_ceil(3);
    assert!((10..=12).contains(&asked), "{asked} in ten times `resend_max`");
    assert!(it.status(2).role.starts_with("silent"));
    it.heal().run(10_000);
    assert_eq!(it.status(2).role, "member");
    it.rests_after(20_000);
}

#[test]
fn who_asks_all_the_time_gets_one_window_of_epochs_in_sixteen_seconds() {
    let mut it = at_rest(4);
    it.crash(2);
    let before = it.committed(0);
    for _ in 0..1_200 {
        let committed = it.committed(0);
        for until in [committed + 1, committed + WINDOW_EPOCHS, committed + WINDOW_EPOCHS + 1, u64::MAX >> 8] {
            for id in [0, 1, 3] {
                it.say(replica(2), id, Message::GetBeyond { until: OpNumber::new(until) });
            }
        }
        it.run(50);
    }
    let epochs = it.committed(0) - before;
    assert!((3..=4 * WINDOW_EPOCHS).contains(&epochs), "{epochs} epochs in a minute");
}

/// R2 is silent, and these answer first, and too much.
fn exaggerate(n: usize, liars: &[usize]) {
    let mut it = at_rest(n);
    for liar in liars {
        it.crash(*liar);
    }
    forget(&mut it, 2);
    let Message::GetBound { nonce } = it.last(2, "GetBound") else { panic!("a question") };
    for liar in liars {
        it.say(replica(*liar), 2, Message::Bound { nonce, committed: OpNumber::new(1 << 61) });
    }
    it.run(10_000);
    assert_eq!(it.status(2).role, "member", "{}", it.describe(2));
    it.apply(4, "with its words");
}

#[test]
fn a_liar_that_answers_too_much_keeps_nobody_silent() {
    exaggerate(7, &[6]);
}

#[test]
fn what_two_liars_of_a_quorum_answer_is_lowered_by_answers_that_come_later() {
    exaggerate(10, &[8, 9]);
}
