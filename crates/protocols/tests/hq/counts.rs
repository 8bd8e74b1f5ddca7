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
