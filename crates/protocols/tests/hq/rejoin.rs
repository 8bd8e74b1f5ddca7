//! A disk that was lost: when its replica is back, and what it may do before and after. Replica 3 loses it here.

use crate::harness::{Cluster, Flying, OnDisk, replica};
use crate::in_order::noted;
use crate::words::{N, version, write, write_after};
use quorate_core::ids::{ClientId, Peer, RecordSeq};
use quorate_core::wire::Wire;
use quorate_protocols::hq::{Message, Record};

const BACK: &str = "is back: it has what the others have, and what its former self has promised does not matter";

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// What `quorate recover` leaves.
fn new_disk(cluster: &mut Cluster, id: usize) {
    cluster.crash(id);
    let host = &mut cluster.hosts[id];
    host.journal.clear();
    host.snapshots.clear();
    host.journal.push(OnDisk { seq: RecordSeq::new(1), bytes: Record::Lost.encode(), damaged: None });
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
}

fn is_back(cluster: &Cluster, id: usize) -> bool {
    !cluster.status(id).role.starts_with("rejoining")
}

fn comes_back(cluster: &mut Cluster, id: usize) {
    cluster.run_until("it is back", |it| is_back(it, id));
}

/// A group whose replica 3 has lost its disk and is back; `a` and `b` were written before.
fn returned() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(8, "a=2").apply(9, "b=1");
    new_disk(&mut cluster, 3);
    cluster.apply(9, "a=3");
    cluster.restart(3);
    comes_back(&mut cluster, 3);
    cluster
}

#[test]
fn a_replica_whose_disk_was_lost_comes_back_in_a_group_at_rest() {
    let mut cluster = returned();
    assert!(cluster.agrees(&["a: 1 2 3", "b: 1"]), "{:?}", cluster.tape(3));
    assert_eq!(noted(&cluster, 3, BACK), 1);
    cluster.rests_after(20_000);
}

#[test]
fn with_it_back_another_one_may_go() {
    let mut cluster = returned();
    cluster.crash(1);
    cluster.apply(9, "a=4").apply(8, "b=2").apply(7, "new=1").apply(7, "a=5");
    assert!(cluster.agrees(&["a: 1 2 3 4 5", "b: 1 2", "new: 1"]), "{:?}", cluster.tape(3));
    assert_eq!(cluster.look(9, "a"), "1 2 3 4 5");
}
