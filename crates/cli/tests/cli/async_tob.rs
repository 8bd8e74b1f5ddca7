//! Asynchronous total-order broadcast as processes: the same commands, the same store, four replicas one of which may go at any
//! moment. There is no leader to look for.

use crate::common::import::Victim::Replica;
use crate::common::{Cluster, eventually};

#[test]
fn an_import_survives_kill_9_of_any_one_of_four() {
    let mut cluster = Cluster::serve_all_of("async-tob", 4);
    let kills = [(10, Replica(0)), (30, Replica(1)), (50, Replica(2))];
    cluster.import_under_kills((20_000, 64), &kills, Cluster::position);
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}

#[test]
fn everybody_killed_at_once_comes_back_with_all_that_was_acknowledged() {
    let mut cluster = Cluster::serve_all_of("async-tob", 4);
    cluster.outlives_the_death_of_all();
}

#[test]
fn a_lost_disk_comes_back_through_recover() {
    let mut cluster = Cluster::serve_all_of("async-tob", 4);
    cluster.lose_and_recover(2);
    eventually("the others have gone on, and it speaks again", || {
        cluster.must(&["kv", "put", "on", "and on"]);
        cluster.status()["replicas"][2]["role"] == "member"
    });
    cluster.needs_the_vote_without(1);
}
