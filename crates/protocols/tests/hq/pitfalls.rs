//! A.9 of the specification, one by one.

use crate::harness::{Cluster, replica};
use crate::paper::contend;
use crate::words::{grant, proof, version, write};
use quorate_core::ids::{ClientId, Peer};
use quorate_protocols::hq::Message;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

#[test]
fn p01_a_client_that_says_two_things_gets_one_of_them() {
    let mut cluster = Cluster::new(4);
    let (one, two) = (write(9, 1, "a=uno"), write(9, 1, "a=duo"));
    for id in 0..4 {
        let said = if id < 2 { one.clone() } else { two.clone() };
        cluster.say(client(9), id, Message::Write1(said));
    }
    cluster.apply(8, "a=honest");
    cluster.run(5000);
    let words = cluster.tape(0);
    let own = words[0].matches("uno").count() + words[0].matches("duo").count();
    assert!(own <= 1 && words[0].contains("honest"), "{words:?}");
    assert!((1..4).all(|id| cluster.tape(id) == words));
}

#[test]
fn p02_a_grant_at_one_replica_does_not_wake_pbft() {
    // Three of four still make a certificate: one odd grant is waited out, not resolved.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.say(client(7), 0, Message::Write1(write(7, 1, "a=odd")));
    cluster.apply(9, "a=x");
    assert_eq!(cluster.count("Resolve"), 0);
}

#[test]
fn p03_a_primary_that_sits_on_a_conflict_is_replaced() {
    let mut cluster = Cluster::new(4);
    cluster.client(9).client(8);
    cluster.deliver();
    cluster.lose(|it| it.from == replica(0) && it.label != "Granted" && it.label != "Refused");
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    assert!(cluster.status(1).view.get() > 0, "PBFT has another primary");
}

#[test]
fn p03_a_resolve_that_one_replica_has_heard_freezes_all() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "Resolve" && it.to != replica(2));
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
}

#[test]
fn p04_a_certificate_from_before_a_resolution_is_never_executed() {
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run(5000);
    let before = cluster.tape(0);
    // The next place in number, at the old viewstamp: (vs, ts) decides, not ts alone.
    let late = write(7, 1, "a=late");
    for id in 0..4 {
        let proof = proof(&[0, 1, 2], &late, version(0, 3));
        cluster.say(client(7), id, Message::Write2 { proof, write: Some(late.clone()), answer: true });
    }
    cluster.deliver();
    assert!((0..4).all(|id| cluster.tape(id) == before));
}

#[test]
fn p05_a_conflict_that_is_over_costs_a_look_and_no_signature_check() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    let (one, two) = (write(9, 2, "a=y"), write(8, 1, "a=z"));
    // All of it forged: whoever looked at the signatures would blame the client.
    let mut conflict: Vec<_> = (0..3).map(|id| grant(id, if id == 0 { &one } else { &two }, version(0, 1))).collect();
    for it in &mut conflict {
        *it = quorate_core::crypto::Signed::claimed(
            it.by(),
            *it.statement(),
            quorate_core::crypto::Signature::new([7; 64]),
        );
    }
    cluster.talk();
    for _ in 0..50 {
        cluster.say(client(8), 1, Message::Resolve { conflict: conflict.clone(), write: two.clone() });
    }
    assert_eq!((cluster.blamed(1), cluster.count("Start")), (0, 0));
    assert!(cluster.count("Granted") > 0, "the request in it is considered as any");
}

#[test]
fn p06_a_client_that_stops_after_phase_1_does_not_stop_the_next() {
    let mut cluster = Cluster::new(4);
    for id in 0..4 {
        cluster.say(client(9), id, Message::Write1(write(9, 1, "a=left")));
    }
    cluster.apply(8, "a=next");
    assert!(cluster.agrees(&["a: left next"]));
}

#[test]
fn p07_of_two_operations_under_one_number_the_first_wins_at_each_replica() {
    let mut cluster = Cluster::new(4);
    let first = write(9, 1, "a=first");
    cluster.say(client(9), 0, Message::Write1(first.clone()));
    cluster.say(client(9), 0, Message::Write1(write(9, 1, "a=other")));
    let Message::Refused { grant: told, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
    assert_eq!(told.statement().hash, first.ask().hash);
    assert_eq!(cluster.blamed(0), 1, "the client has signed both");
}

#[test]
fn p08_a_read_of_a_frozen_object_waits() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "PrePrepare");
    let tickets = contend(&mut cluster);
    cluster.run(50);
    cluster.talk();
    let ticket = cluster.read(9, "a");
    cluster.deliver();
    assert_eq!((cluster.answer(9, ticket), cluster.count("ReadAnswer")), (None, 0));
    cluster.heal();
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run_until("a read", |it| it.answer(9, ticket).is_some());
}

#[test]
fn p09_a_result_follows_from_the_object_and_its_place() {
    // The tape asserts that it is given the object's own count, and is given no time.
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=1").apply(9, "b=1").apply(8, "a=2");
    assert!(cluster.agrees(&["a: 1 2", "b: 1"]));
}

#[test]
fn p10_a_certificate_that_says_nothing_new_is_not_verified_again() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    let again = write(9, 1, "a=x");
    let forged =
        quorate_core::crypto::Certificate::claimed(*proof(&[0], &again, version(0, 1)).statement(), Vec::new());
    let message = Message::WriteBack { proof: forged, write: write(8, 1, "a=y") };
    cluster.say(client(8), 1, message);
    assert_eq!((cluster.blamed(1), cluster.count("Refused")), (0, 0));
    let Message::Granted { grant, .. } = cluster.last(1, "Granted") else { panic!("a grant") };
    assert_eq!(grant.statement().version, version(0, 2));
}

#[test]
fn a_write_that_f_replicas_executed_is_taken_back_and_done_again_elsewhere() {
    // `FIELD.md`: undo of an f-executed write, the replica outside startQ.
    let mut cluster = Cluster::new(4);
    cluster.client(9).client(8).deliver();
    let nine = write(9, 1, "a=nine");
    // Replica 3 alone executes a certified write; the others have contradicting grants for the same place.
    let certified = proof(&[0, 1, 3], &nine, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(nine.clone()), answer: true });
    assert_eq!(cluster.tape(3), ["a: nine"]);
    cluster.lose(|it| it.label == "Start" && it.from == replica(3) && it.to != it.from);
    let eight = write(8, 1, "a=eight");
    let conflict: Vec<_> =
        [(0, &nine), (1, &eight), (2, &nine)].iter().map(|(id, it)| grant(*id, it, version(0, 1))).collect();
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write1(nine.clone()));
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run(100);
    cluster.heal();
    cluster.run_until("one state", |it| (0..4).all(|id| it.tape(id) == it.tape(0) && !it.tape(id).is_empty()));
    let tape = cluster.tape(0);
    assert_eq!(tape[0].matches("nine").count(), 1, "{tape:?}");
    assert_eq!(tape[0].matches("eight").count(), 1, "{tape:?}");
}

#[test]
fn a_client_that_was_forgotten_is_told_and_its_old_requests_are_not_new() {
    use quorate_protocols::hq::CLIENTS_MAX;
    let mut cluster = Cluster::new(4);
    cluster.apply(1, "a=first");
    for other in 2..=(CLIENTS_MAX as u128 + 2) {
        cluster.apply(other, "a=more");
    }
    cluster.talk();
    // A copy of the first request, which the network kept.
    for id in 0..4 {
        cluster.say(client(1), id, Message::Write1(write(1, 1, "a=first")));
    }
    assert_eq!((cluster.count("TooOld"), cluster.count("Granted")), (4, 0));
    cluster.apply(1, "a=again");
    assert!(cluster.tape(0)[0].ends_with("again"));
    assert_eq!(cluster.tape(0)[0].matches("first").count(), 1);
}

#[test]
fn a_client_that_was_forgotten_while_it_repeated_a_write_is_told_that_nobody_knows() {
    use quorate_core::protocol::CallError;
    use quorate_protocols::hq::CLIENTS_MAX;
    let mut cluster = Cluster::new(4);
    cluster.client(1);
    cluster.lose(|it| it.label == "Done" && it.to == client(1));
    let ticket = cluster.submit(1, "a=first");
    cluster.run(100);
    assert!(cluster.agrees(&["a: first"]), "it is done, and its client has not heard so");
    for other in 2..=(CLIENTS_MAX as u128 + 2) {
        cluster.apply(other, "a=more").gone(other);
    }
    cluster.run_until("an answer", |it| it.answer(1, ticket).is_some());
    let said = &cluster.clients[&ClientId::new(1)].answers[&ticket];
    assert!(matches!(said, Err(CallError::Evicted { maybe_applied: true })), "{said:?}");
    assert_eq!(cluster.tape(0)[0].matches("first").count(), 1, "to make it anew would do it twice");
}
