//! A replica that has lost its promises, in a group that has nothing to order.

use crate::harness::{Cluster, OnDisk, config, replica};
use crate::words::{group, op};
use quorate_core::ids::{ClientId, Peer, RecordSeq};
use quorate_core::outbox::Class;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{Config, Message, Record, rejoin};

fn small() -> Config {
    Config { checkpoint_entries: 2, state_entries: 6, ..config() }
}

/// A group that was asked for something once, and has come to rest.
fn at_rest(config: Config) -> Cluster {
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(10_000);
    it.talk();
    it
}

/// One of its votes cannot be read.
fn forget(it: &mut Cluster, id: usize) {
    it.crash(id);
    let record = it.hosts[id].journal.iter_mut().find(|it| matches!(it.record(), Record::Prepare(_)));
    record.expect("a vote").damaged = Some(Some(Class::Promise));
    it.restart(id);
}

#[test]
fn in_a_group_at_rest_the_silence_of_a_lost_promise_ends_without_any_client() {
    for (config, victim) in [small(), config()].into_iter().flat_map(|config| [0, 3].map(|victim| (config, victim))) {
        let mut it = at_rest(config);
        forget(&mut it, victim);
        it.run(3_000);
        assert_eq!(it.status(victim).role, "backup", "{}", it.describe(victim));
        it.isolate((victim + 1) % 4);
        it.submit(1, "with its vote");
        it.run_until("the others go on", |it| it.tape(victim) == ["a", "b", "with its vote"]);
        it.heal();
        it.rests_after(10_000);
    }
}

#[test]
fn in_a_group_at_rest_a_lost_disk_s_silence_ends_without_any_client() {
    // `quorate recover` has the others go on before it ends; here it has asked for one entry only.
    let mut it = at_rest(config());
    it.crash(2);
    it.apply(1, "first without it");
    let first = op(it.committed(0));
    let host = &mut it.hosts[2];
    host.snapshots.clear();
    host.journal = vec![OnDisk { seq: RecordSeq::new(1), bytes: rejoin(first).encode(), damaged: None }];
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
    it.restart(2);
    it.run(3_000);
    assert_eq!(it.status(2).role, "backup", "{}", it.describe(2));
    it.rests_after(10_000);
}

#[test]
fn in_a_group_at_rest_a_silence_ends_though_another_one_has_left_the_view_alone() {
    for victim in [0, 2] {
        let mut it = at_rest(small());
        it.isolate(3);
        let asked = Message::Request(group(1, 3, "heard by one"));
        it.say(Peer::Client(ClientId::new(1)), 3, asked).run(1_000);
        assert!(it.view(3) > it.view(1), "{}", it.describe(3));
        it.crash(3).restart(3); // it knows its view, and the request no more
        it.heal().run(3_000);
        assert!(it.view(3) > it.view(1), "alone it moves nobody");
        forget(&mut it, victim);
        it.run(10_000);
        assert_eq!(it.status(victim).role, "backup", "R{victim}: {}", it.describe(victim));
        it.rests_after(10_000);
    }
}

#[test]
fn what_is_lost_on_the_way_to_the_end_of_a_silence_is_said_again() {
    for label in ["GetBound", "Bound", "GetBeyond", "PrePrepare", "Prepare", "Commit", "Checkpoint", "ViewChange"] {
        for victim in [0, 3] {
            let mut it = at_rest(small());
            it.lose(move |it| it.label == label);
            forget(&mut it, victim);
            it.run(3_000);
            it.heal().run(10_000);
            assert_eq!(it.status(victim).role, "backup", "R{victim} without {label}: {}", it.describe(victim));
            it.rests_after(10_000);
        }
    }
}

#[test]
fn who_asks_all_the_time_for_a_stable_log_gets_no_more_than_its_quota() {
    let mut it = at_rest(small());
    it.crash(3);
    let (before, window) = (it.committed(0), it.config.window());
    for _ in 0..1_200 {
        for until in [op(u64::MAX), op(it.committed(0) + window)] {
            for id in 0..3 {
                it.say(replica(3), id, Message::GetBeyond { until });
            }
        }
        it.run(50);
    }
    let entries = it.committed(0) - before;
    assert!((4..=4 * 3 * window).contains(&entries), "{entries} entries in a minute, windows of {window}");
    assert_eq!(it.view(0), it.view(1));
}
