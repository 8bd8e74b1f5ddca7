//! A replica that has lost its promises, in a group that has nothing to order.

use crate::harness::{Cluster, OnDisk, config, replica};
use quorate_core::ids::RecordSeq;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use quorate_protocols::sync_tob::{Message, rejoin};

/// A group that was asked for something once, and has come to rest.
fn at_rest(n: usize) -> Cluster {
    let mut it = Cluster::with(n, config());
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(20_000);
    it.talk();
    it
}

fn lose_disk(it: &mut Cluster, id: usize) {
    it.crash(id);
    let host = &mut it.hosts[id];
    host.snapshots.clear();
    host.journal = vec![OnDisk { seq: RecordSeq::new(1), bytes: rejoin().encode(), damaged: None }];
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
    it.restart(id);
}

#[test]
fn in_a_group_at_rest_a_lost_disk_s_silence_ends_without_any_client() {
    for (n, victim) in [(3, 0), (3, 1), (3, 2), (4, 0), (4, 3), (5, 2)] {
        let mut it = at_rest(n);
        lose_disk(&mut it, victim);
        assert!(it.status(victim).role.starts_with("silent"));
        it.run(3_000);
        assert_eq!(it.status(victim).role, "leads in turn", "R{victim} of {n}");
        for id in (0..n).filter(|id| *id != victim).take((n - 1) / 2) {
            it.isolate(id);
        }
        it.submit(1, "with its vote");
        it.run_until("the others go on", |it| it.tape(victim) == ["a", "b", "with its vote"]);
        it.heal();
        it.rests_after(20_000);
    }
}

#[test]
fn a_question_that_is_lost_is_asked_again() {
    let mut it = at_rest(3);
    it.lose(|it| it.label == "GetBeyond");
    lose_disk(&mut it, 2);
    it.run(20_000);
    it.talk();
    it.run(20_000);
    assert!(
        (10..=12).contains(&it.count("GetBeyond").div_ceil(2)),
        "{} in ten times `resend_max`",
        it.count("GetBeyond")
    );
    assert!(it.status(2).role.starts_with("silent"));
    it.heal().run(5_000);
    assert_eq!(it.status(2).role, "leads in turn");
    it.rests_after(20_000);
}

#[test]
fn who_asks_all_the_time_gets_one_block_in_sixteen_seconds() {
    let mut it = at_rest(3);
    it.crash(2);
    let before = it.status(0).committed.get();
    for _ in 0..1_200 {
        let until = WallTime::from_nanos(it.now - 1_000_000_000);
        for until in [until, WallTime::from_nanos(u64::MAX)] {
            for id in 0..2 {
                it.say(replica(2), id, Message::GetBeyond { until });
            }
        }
        it.run(50);
    }
    let blocks = it.status(0).committed.get() - before;
    assert!((3..=5).contains(&blocks), "{blocks} blocks in a minute");
}
