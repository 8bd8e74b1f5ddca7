//! No correct replica ever fills one slot twice, whatever it has lost and whatever its calendar shows: two casts under one
//! name, two blocks for one epoch, two votes would convict it.

use crate::harness::{Cluster, Flying, OnDisk, config, replica};
use crate::words::{MS, small};
use quorate_core::crypto::{Digest, Slot, Statement};
use quorate_core::ids::{RecordSeq, ReplicaId};
use quorate_core::wire::Wire;
use quorate_protocols::sync_tob::{Broadcast, Config, Message, rejoin};
use std::collections::BTreeMap;

const HOUR: u64 = 3_600_000 * MS;

/// The slots that were filled twice, with who did it.
fn filled_twice(sent: &[Flying]) -> Vec<(ReplicaId, &'static str, Slot)> {
    let (mut filled, mut twice) = (BTreeMap::new(), Vec::new());
    for message in sent.iter().filter_map(Flying::message) {
        let (by, domain, slot, words) = match &message {
            Message::Cast { chain, .. } => said(chain.head.by(), chain.statement()),
            Message::Echo { head, .. } => said(head.by(), head.statement()),
            Message::Propose { chain, .. } => said(chain.head.by(), chain.statement()),
            Message::Vote(vote) => said(vote.by(), vote.statement()),
            Message::Commit(vote) => said(vote.by(), vote.statement()),
            _ => continue,
        };
        let key = (by, domain, slot.view, slot.op);
        if *filled.entry(key).or_insert(words) != words {
            twice.push((by, domain, slot));
        }
    }
    twice
}

fn said<T: Statement>(by: ReplicaId, words: &T) -> (ReplicaId, &'static str, Slot, Digest) {
    (by, T::DOMAIN, words.slot().expect("it fills one"), Digest::of(&words.encode()))
}

/// In how many lives this replica has cast.
fn lives(it: &Cluster, of: usize) -> usize {
    let casts = it.sent.iter().filter_map(Flying::message).filter_map(|message| match message {
        Message::Cast { chain, .. } => Some(chain.statement().id),
        _ => None,
    });
    casts.filter(|id| id.sender.index() == of).map(|id| id.life).collect::<std::collections::BTreeSet<_>>().len()
}

/// Its disk is replaced by an empty one, as `quorate recover` does.
fn lose_disk(it: &mut Cluster, id: usize) {
    let host = &mut it.hosts[id];
    host.snapshots.clear();
    host.journal = vec![OnDisk { seq: RecordSeq::new(1), bytes: rejoin().encode(), damaged: None }];
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
}

/// Nobody hears that anybody has what was cast, so nothing is ordered, and the others know of each name only what they were
/// sent. (With three replicas, the sender and one other are enough: these tests are of five.)
fn order_nothing(it: &mut Cluster) {
    it.lose(|it: &Flying| it.label == "Echo");
}

#[test]
fn a_replica_that_restarts_with_its_calendar_set_back_casts_under_new_names() {
    for broadcast in [Broadcast::Flood, Broadcast::DolevStrong] {
        for moment in [0, 3, 60, 600] {
            let mut it = Cluster::with(5, Config { broadcast, ..small() });
            it.client(1).apply(1, "a"); // R1 casts what client 1 asks for
            order_nothing(&mut it);
            for round in 0..4 {
                it.crash(1);
                it.hosts[1].behind = HOUR;
                it.restart(1);
                it.run(500); // it has listened, and the others' clocks have set its own
                it.submit(1, &format!("x{round}"));
                it.run(moment);
            }
            assert!(lives(&it, 1) > 3 || moment < 600, "it has cast in several lives");
            assert_eq!(filled_twice(&it.sent), []);
            it.heal();
            it.apply(1, "b");
            it.run(3_000);
            assert_eq!(filled_twice(&it.sent), []);
            assert!((0..5).all(|id| it.blamed(id) == 0));
        }
    }
}

#[test]
fn a_replica_that_has_lost_its_disk_casts_under_new_names_even_if_nobody_ordered_the_old_ones() {
    for broadcast in [Broadcast::Flood, Broadcast::DolevStrong] {
        for restarts in 0..4 {
            let mut it = Cluster::with(5, Config { broadcast, ..config() });
            it.client(1).client(3).apply(1, "a");
            order_nothing(&mut it);
            for round in 0..=restarts {
                if round > 0 {
                    it.crash(1);
                    it.restart(1);
                    it.run(300);
                }
                it.submit(1, &format!("x{round}")); // the others hold it, and nobody ever orders it
                it.run(100);
            }
            let before = lives(&it, 1);
            it.crash(1);
            lose_disk(&mut it, 1);
            it.hosts[1].behind = HOUR;
            it.heal();
            it.restart(1);
            it.run(1_000);
            it.apply(3, "the others go on");
            it.run(1_000);
            assert_eq!(it.status(1).role, "leads in turn", "its silence is over");
            order_nothing(&mut it);
            for round in 0..3 {
                it.submit(1, &format!("y{round}"));
                it.run(300);
            }
            it.heal();
            it.apply(1, "b");
            it.run(3_000);
            assert!(lives(&it, 1) > before, "{broadcast:?}: it casts again");
            assert_eq!(filled_twice(&it.sent), [], "{broadcast:?}, {restarts} restarts");
            assert!((0..5).all(|id| it.blamed(id) == 0));
        }
    }
}

#[test]
fn a_cast_leaves_when_the_life_that_names_it_is_on_disk() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.crash(1);
    it.restart(1);
    it.run(500);
    it.apply(2, "clocks are known").talk();
    it.hosts[1].fast_disk = false;
    it.submit(1, "b");
    it.run(30);
    let cast = |it: &Cluster| it.sent.iter().filter(|m| m.from == replica(1) && m.label == "Cast").count();
    assert_eq!(cast(&it), 0);
    it.sync(1);
    it.deliver();
    assert!(cast(&it) > 0);
}

#[test]
fn no_leader_proposes_twice_in_an_epoch_that_comes_again() {
    for behind_ms in [30, 100, 400, 700, 1_000] {
        let mut it = Cluster::new(3);
        it.client(1).apply(1, "a");
        it.submit(1, "b");
        it.run_until("a proposal of R0", |it| it.sent.iter().any(|m| m.label == "Propose" && m.from == replica(0)));
        // A majority restarts with calendars that are behind, and hears nobody else: the epoch begins again for them.
        it.isolate(2);
        for id in [0, 1] {
            it.crash(id);
            it.hosts[id].behind = behind_ms * MS;
        }
        (0..2).for_each(|id| it.restart(id));
        for index in 0..20 {
            it.submit(1, &format!("x{index}"));
            it.run(71);
        }
        it.heal();
        it.run(3_000);
        assert_eq!(filled_twice(&it.sent), [], "{behind_ms} ms");
        assert!((0..3).all(|id| it.blamed(id) == 0));
    }
}
