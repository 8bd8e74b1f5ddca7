//! How many messages a write and a read cost, in closed form, for f from 1 to 5. The paper's figures: 9f + 4 messages at the
//! client for a write; a constant four at each replica that takes part.

use crate::harness::{Cluster, Flying, replica};
use quorate_core::ids::Peer;

/// Messages from and to somebody.
fn of(sent: &[Flying], peer: Peer) -> usize {
    sent.iter().filter(|it| it.from == peer || it.to == peer).count()
}

fn quiet(f: usize) -> Cluster {
    let mut cluster = Cluster::new(3 * f + 1);
    cluster.client(9).apply(9, "warm=up").run(20_000).talk();
    cluster
}

#[test]
fn a_write_costs_its_client_9f_plus_4_messages_and_each_replica_of_the_preferred_quorum_four() {
    for f in 1..=5 {
        let mut cluster = quiet(f);
        let ticket = cluster.submit(9, "a=x");
        cluster.deliver();
        assert!(cluster.answer(9, ticket).is_some());
        let client = Peer::Client(quorate_core::ids::ClientId::new(9));
        assert_eq!(of(&cluster.sent, client), 9 * f + 4, "f = {f}");
        let mut each: Vec<usize> = (0..3 * f + 1).map(|id| of(&cluster.sent, replica(id))).collect();
        each.sort_unstable();
        let expected: Vec<usize> = [vec![1; f], vec![4; 2 * f + 1]].concat();
        assert_eq!(each, expected, "f = {f}: the others only hear of the certificate");
        assert!(cluster.agrees(&["a: x", "warm: up"]));
    }
}

#[test]
fn a_write_to_all_replicas_costs_its_client_12f_plus_4_messages_and_each_replica_four() {
    for f in 1..=5 {
        let mut cluster = quiet(f);
        // One replica of the preferred quorum does not hear the first WRITE-1: all are asked.
        cluster.lose(|it| it.label == "Write1");
        let ticket = cluster.submit(9, "a=x");
        cluster.deliver().heal().talk();
        cluster.run(160);
        assert!(cluster.answer(9, ticket).is_some());
        let client = Peer::Client(quorate_core::ids::ClientId::new(9));
        let sent: Vec<_> = cluster.sent.iter().filter(|it| it.label != "Sums").cloned().collect();
        assert_eq!(of(&sent, client), 12 * f + 4, "f = {f}");
        assert!((0..3 * f + 1).all(|id| of(&sent, replica(id)) == 4), "f = {f}");
    }
}

#[test]
fn a_read_costs_its_client_4f_plus_2_messages_and_each_replica_that_is_asked_two() {
    for f in 1..=5 {
        let mut cluster = quiet(f);
        let ticket = cluster.read(9, "warm");
        cluster.deliver();
        assert_eq!(cluster.answer(9, ticket).as_deref(), Some("up"));
        let client = Peer::Client(quorate_core::ids::ClientId::new(9));
        assert_eq!(of(&cluster.sent, client), 4 * f + 2, "f = {f}");
        let each: Vec<usize> = (0..3 * f + 1).map(|id| of(&cluster.sent, replica(id))).collect();
        assert_eq!((each.iter().filter(|it| **it == 2).count(), each.iter().sum()), (2 * f + 1, 4 * f + 2));
    }
}

#[test]
fn operations_that_go_together_cost_what_one_write_does() {
    for f in 1..=5 {
        let mut cluster = quiet(f);
        let client = Peer::Client(quorate_core::ids::ClientId::new(9));
        let first = cluster.submit(9, "a=x");
        let others: Vec<_> = (0..20).map(|count| cluster.submit(9, &format!("a={count}"))).collect();
        cluster.deliver();
        assert!(others.into_iter().chain([first]).all(|it| cluster.answer(9, it).is_some()));
        assert_eq!(of(&cluster.sent, client), 2 * (9 * f + 4), "f = {f}: the first one, and all the others");
    }
}

/// Messages between replicas with one of these labels.
fn between(sent: &[Flying], labels: &[&str]) -> usize {
    let is_replica = |peer: Peer| matches!(peer, Peer::Replica(_));
    sent.iter()
        .filter(|it| it.from != it.to && is_replica(it.from) && is_replica(it.to) && labels.contains(&it.label))
        .count()
}

#[test]
fn a_write_in_ordered_mode_costs_its_client_6f_plus_2_messages_and_the_replicas_one_entry_of_pbft() {
    for f in 1..=5 {
        let mut cluster = crate::in_order::in_order(3 * f + 1);
        cluster.apply(8, "a=1").apply(7, "a=2"); // now they know that PBFT gives the places
        cluster.talk();
        let (one, two) = (cluster.submit(8, "a=x"), cluster.submit(7, "a=y"));
        cluster.deliver();
        assert!(cluster.answer(8, one).is_some() && cluster.answer(7, two).is_some());
        for client in [8, 7] {
            let client = Peer::Client(quorate_core::ids::ClientId::new(client));
            assert_eq!(of(&cluster.sent, client), 6 * f + 2, "f = {f}");
        }
        // PRE-PREPARE to 3f, PREPARE of 3f to 3f each, COMMIT of 3f + 1 to 3f each; the second write came while the first was under
        // way. Nothing else is said between replicas, however many writes an entry holds.
        let entries = between(&cluster.sent, &["PrePrepare"]) / (3 * f);
        assert!((1..=2).contains(&entries), "{entries}");
        let words = between(&cluster.sent, &["PrePrepare", "Prepare", "Commit"]);
        assert_eq!(words, entries * (3 * f + 9 * f * f + 3 * f * (3 * f + 1)), "f = {f}");
        let all = cluster.sent.iter().filter(|it| it.from != it.to && it.label != "Sums").count();
        assert_eq!(all, words + 2 * (6 * f + 2), "f = {f}");
    }
}
