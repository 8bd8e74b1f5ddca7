//! The claims of the paper, one a test (Liskov and Cowling, *Viewstamped Replication Revisited*; VRR), and the rules that later
//! analyses added (vr.md §2.2).

use crate::harness::Cluster;

/// VRR §4.1: four messages and a reply.
#[test]
fn one_request_costs_a_prepare_and_an_acknowledgement_for_each_backup_and_one_reply() {
    let mut it = Cluster::new(3);
    it.apply(1, "a");
    it.talk();
    it.submit(1, "b");
    it.deliver();
    let mut talk = it.talk();
    talk.sort();
    let expected = [
        "C00000000 Request R0",
        "R0 Prepare R1",
        "R0 Prepare R2",
        "R0 Reply C00000000",
        "R1 PrepareOk R0",
        "R2 PrepareOk R0",
    ];
    assert_eq!(talk, expected);
}

#[test]
fn everybody_applies_everything_in_the_same_order() {
    for n in [1, 2, 3, 4, 5] {
        let mut it = Cluster::new(n);
        it.apply(1, "a").apply(2, "b").apply(1, "c").run(200);
        assert!(it.agrees(&["a", "b", "c"]), "n={n}");
    }
}

#[test]
fn a_new_primary_keeps_what_was_acknowledged() {
    for n in [3, 4, 5] {
        let mut it = Cluster::new(n);
        it.apply(1, "a");
        it.crash(0);
        it.apply(1, "b");
        assert!(it.leads(1), "n={n}");
        it.restart(0);
        it.run(1000);
        assert!(it.agrees(&["a", "b"]), "n={n}");
    }
}
