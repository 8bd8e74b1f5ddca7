//! PBFT as processes: the same commands, the same store, four replicas one of which may go at any moment.

use crate::common::Cluster;
use crate::common::import::Victim::Role;

#[test]
fn an_import_survives_kill_9_of_any_one_of_four() {
    let mut cluster = Cluster::serve_all_of("pbft", 4);
    let kills = [(10, Role("primary")), (30, Role("backup")), (50, Role("primary"))];
    cluster.import_under_kills((50_000, 16), &kills, Cluster::position);
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}

#[test]
fn a_lost_disk_comes_back_through_recover() {
    let mut cluster = Cluster::serve_all_of("pbft", 4);
    cluster.lose_and_recover(2);
    cluster.wait_until_nobody_is_silent();
    cluster.wait_until_agreed();
    cluster.needs_the_vote_without(3);
}

#[test]
fn three_replicas_are_warned_of_and_an_unknown_protocol_is_refused() {
    let cluster = Cluster::init_of("pbft", 4);
    let dir = cluster.scratch().join("three").display().to_string();
    let made = cluster.run(&["init", "--protocol", "pbft", "--replicas", "3", "--dir", &dir]);
    assert!(made.ok && made.stderr.contains("tolerate no liar"), "{}", made.stderr);
    cluster.must_fail(&["init", "--protocol", "paxos", "--dir", &dir]);
}
