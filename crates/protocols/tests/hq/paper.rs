//! HQ's claims, one test each (sections of `docs` in the specification: A.3 writes, A.5 reads, A.6 contention, A.8 the rest).

use crate::harness::Cluster;
use crate::words::{grant, proof, version, write};
use quorate_core::ids::{ClientId, Peer};
use quorate_protocols::hq::Message;

#[test]
fn a_write_takes_two_round_trips_and_everybody_executes_it() {
    // A.3: WRITE-1 and its answers, WRITE-2 and its answers.
    let mut cluster = Cluster::new(4);
    cluster.client(9).talk();
    let ticket = cluster.submit(9, "a=x");
    cluster.deliver();
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1"));
    assert!(cluster.agrees(&["a: x"]));
    let labels: Vec<&str> = cluster.sent.iter().map(|it| it.label).collect();
    assert!(labels.iter().all(|label| ["Write1", "Granted", "Write2", "Done"].contains(label)), "{labels:?}");
}

#[test]
fn a_read_takes_one_round_trip() {
    // A.5
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    cluster.talk();
    let ticket = cluster.read(9, "a");
    cluster.deliver();
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("x"));
    assert!(cluster.sent.iter().all(|it| ["Read", "ReadAnswer"].contains(&it.label)));
}

#[test]
fn no_replica_speaks_to_another_about_a_write() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x").apply(9, "b=y");
    let between = |it: &&crate::harness::Flying| {
        matches!((it.from, it.to), (Peer::Replica(from), Peer::Replica(to)) if from != to) && it.label != "Sums"
    };
    assert_eq!(cluster.sent.iter().filter(between).count(), 0);
}

#[test]
fn each_object_has_an_order_of_its_own() {
    // A.1: two replicas may execute writes of different objects in different orders.
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=1").apply(9, "b=1").apply(9, "a=2").apply(8, "b=2");
    assert!(cluster.agrees(&["a: 1 2", "b: 1 2"]));
    assert_eq!(cluster.look(8, "a"), "1 2");
    assert_eq!(cluster.look(8, "*"), "a: 1 2; b: 1 2");
}

#[test]
fn a_client_that_stops_after_phase_1_is_completed_by_the_next() {
    // A.3, case 2, and pitfall 6.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.lose(|it| it.label == "Write2");
    cluster.submit(9, "a=first");
    cluster.deliver();
    cluster.gone(9).heal();
    cluster.apply(8, "a=second");
    assert!(cluster.agrees(&["a: first second"]), "{:?}", cluster.tape(0));
    assert_eq!(cluster.count("Resolve"), 0, "nobody contends: PBFT sleeps on");
}

#[test]
fn a_replica_that_was_asked_twice_answers_twice_and_executes_once() {
    // A.4, step 1: oldops.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.lose(|it| it.label == "Done");
    let ticket = cluster.submit(9, "a=x");
    cluster.run(400);
    cluster.heal();
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    assert!(cluster.agrees(&["a: x"]));
}

#[test]
fn clients_that_contend_are_put_in_one_order_by_pbft() {
    // A.3, case 3, and A.6.
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run(3000);
    let tape = cluster.tape(0);
    assert!(tape == ["a: nine eight"] || tape == ["a: eight nine"], "{tape:?}");
    assert!((1..4).all(|id| cluster.tape(id) == tape));
    assert!(cluster.count("PrePrepare") > 0);
}

/// Two clients whose WRITE-1s reach half of the replicas each first: no grant gets a quorum.
pub fn contend(cluster: &mut Cluster) -> [(u128, quorate_core::protocol::Ticket); 2] {
    cluster.client(9).client(8).deliver();
    for id in 0..4 {
        let (client, word) = if id < 2 { (9, "a=nine") } else { (8, "a=eight") };
        cluster.say(Peer::Client(ClientId::new(client)), id, Message::Write1(write(client, 1, word)));
    }
    let nine = cluster.submit(9, "a=nine");
    let eight = cluster.submit(8, "a=eight");
    [(9, nine), (8, eight)]
}

#[test]
fn after_a_resolution_writes_need_no_pbft_again() {
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run(10_000);
    cluster.talk();
    cluster.apply(9, "a=later");
    assert_eq!(cluster.count("Resolve") + cluster.count("PrePrepare"), 0);
    let tape = cluster.tape(0);
    assert!((1..4).all(|id| cluster.tape(id) == tape));
    assert!(tape[0].ends_with("later"));
}

#[test]
fn a_replica_that_missed_writes_is_brought_on_by_the_next_client() {
    // A.3, case 4: uneven.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.heal();
    for client in [8, 7, 6] {
        cluster.apply(client, &format!("a={client}"));
    }
    cluster.run_until("all are even", |it| (0..4).all(|id| it.tape(id) == ["a: 1 2 8 7 6"]));
}

#[test]
fn a_replica_that_missed_everything_learns_of_it_when_it_is_quiet() {
    // A.8: anti-entropy.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.isolate(3);
    cluster.apply(9, "a=1").apply(9, "b=2");
    cluster.heal();
    cluster.run_until("it has all", |it| it.agrees(&["a: 1", "b: 2"]));
    // The latest write of each came with its proof, before any image: there is nothing left to ask for.
    cluster.run(100);
    assert_eq!(cluster.status(3).missing, 0, "{:?}", cluster.status(3));
}

#[test]
fn an_idle_group_says_nothing() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=1");
    cluster.run(20_000);
    cluster.talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new());
}

#[test]
fn whoever_has_a_certificate_may_have_it_executed() {
    // A.3, phase 2: unsigned, its meaning is the certificate's.
    let mut cluster = Cluster::new(4);
    let write = write(9, 1, "a=x");
    let proof = proof(&[0, 1, 2], &write, version(0, 1));
    cluster.say(Peer::Client(ClientId::new(77)), 3, Message::Write2 { proof, write: Some(write), answer: false });
    assert_eq!(cluster.tape(3), ["a: x"]);
}

#[test]
fn a_replica_that_lacks_the_operation_asks_for_it() {
    // A.4, step 3: found by its hash, one answer is enough.
    let mut cluster = Cluster::new(4);
    let write = write(9, 1, "a=x");
    for id in 0..2 {
        cluster.say(Peer::Client(ClientId::new(9)), id, Message::Write1(write.clone()));
    }
    let proof = proof(&[0, 1, 2], &write, version(0, 1));
    cluster.say(Peer::Client(ClientId::new(9)), 3, Message::Write2 { proof, write: None, answer: false });
    cluster.deliver();
    assert_eq!(cluster.tape(3), ["a: x"]);
    assert_eq!(cluster.count("GetWrite"), 3);
}

#[test]
fn one_grant_is_outstanding_and_the_next_client_is_refused() {
    // A.4, step 1.
    let mut cluster = Cluster::new(4);
    let (first, second) = (write(9, 1, "a=x"), write(8, 1, "a=y"));
    cluster.say(Peer::Client(ClientId::new(9)), 0, Message::Write1(first.clone()));
    cluster.say(Peer::Client(ClientId::new(8)), 0, Message::Write1(second));
    let Message::Refused { grant: told, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
    assert_eq!(told.statement(), grant(0, &first, version(0, 1)).statement());
}
