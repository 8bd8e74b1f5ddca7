//! One test for each lie, of a replica or of a client, and for each quorum of A.7 that would be one short.

use crate::harness::{Cluster, keyring, replica};
use crate::paper::contend;
use crate::words::{N, grant, other, proof, version, write};
use bytes::Bytes;
use quorate_core::crypto::Certificate;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::objects::MISPLACED;
use quorate_protocols::hq::{Ask, Grant, Message, Write, object_of};

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn resolve(conflict: Vec<quorate_core::crypto::Signed<Grant>>, write: Write) -> Message {
    Message::Resolve { conflict, write }
}

/// From one half of the group to the other.
fn across(it: &crate::harness::Flying) -> bool {
    let half = |peer: Peer| peer == replica(0) || peer == replica(1);
    half(it.from) != half(it.to)
}

// A.7: each quorum, one short.

#[test]
fn two_grants_are_no_certificate() {
    let mut cluster = Cluster::new(4);
    let write = write(9, 1, "a=x");
    let short = proof(&[0, 1], &write, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof: short, write: Some(write.clone()), answer: true });
    assert!(cluster.tape(3).is_empty());
    assert_eq!(cluster.blamed(3), 1);
    let enough = proof(&[0, 1, 2], &write, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof: enough, write: Some(write), answer: true });
    assert_eq!(cluster.tape(3), ["a: x"]);
}

#[test]
fn two_answers_are_not_enough_for_a_write() {
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.lose(|it| it.label == "Done" && (it.from == replica(0) || it.from == replica(1)));
    let ticket = cluster.submit(9, "a=x");
    cluster.run(2000);
    assert_eq!(cluster.answer(9, ticket), None, "f + 1 answers: what one correct replica did can be taken back");
    cluster.heal().run(5000);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1"));
}

#[test]
fn two_answers_are_not_enough_for_a_read() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    cluster.lose(|it| it.label == "ReadAnswer" && (it.from == replica(0) || it.from == replica(1)));
    let ticket = cluster.read(9, "a");
    cluster.run(2000);
    assert_eq!(cluster.answer(9, ticket), None);
}

#[test]
fn two_grants_are_no_conflict() {
    // Fewer would let one liar and a client of its own wake PBFT at will.
    let mut cluster = Cluster::new(4);
    let (one, two) = (write(9, 1, "a=x"), write(8, 1, "a=y"));
    let grants =
        |of: &[(usize, &Write)]| of.iter().map(|(id, write)| grant(*id, write, version(0, 1))).collect::<Vec<_>>();
    cluster.say(client(9), 3, resolve(grants(&[(0, &one), (1, &two)]), one.clone()));
    assert_eq!((cluster.blamed(3), cluster.count("Start")), (1, 0));
    cluster.say(client(9), 3, resolve(grants(&[(0, &one), (0, &two), (1, &one)]), one.clone()));
    assert_eq!((cluster.blamed(3), cluster.count("Start")), (2, 0), "one replica twice");
    cluster.say(client(9), 3, resolve(grants(&[(0, &one), (1, &one), (2, &one)]), one.clone()));
    assert_eq!((cluster.blamed(3), cluster.count("Start")), (3, 0), "they agree");
    cluster.say(client(9), 3, resolve(grants(&[(0, &one), (1, &two), (2, &one)]), one));
    assert!(cluster.count("Start") > 0);
}

#[test]
fn two_starts_are_nothing_to_order() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "Start" && across(it));
    contend(&mut cluster);
    cluster.run(1500);
    assert_eq!(cluster.count("PrePrepare"), 0);
    cluster.heal();
    cluster.run_until("it is ordered", |it| it.count("PrePrepare") > 0);
}

#[test]
fn two_grants_of_a_resolution_execute_nothing() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "Grants" && across(it));
    contend(&mut cluster);
    cluster.run(1500);
    assert!(cluster.count("Grants") > 0);
    assert!((0..4).all(|id| cluster.tape(id).is_empty()));
    cluster.heal();
    cluster.run_until("all have them", |it| (0..4).all(|id| !it.tape(id).is_empty()));
}

#[test]
fn one_replicas_word_for_an_object_is_not_taken() {
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.isolate(3);
    cluster.apply(9, "a=x").apply(9, "a=y"); // the certificate of the last one alone is of no use
    cluster.heal();
    cluster.lose(|it| it.label == "Object" && it.from != replica(0));
    cluster.run(8000);
    assert!(cluster.count("Object") > 0);
    assert!(cluster.tape(3).is_empty(), "f + 1 must say the same: {:?}", cluster.tape(3));
    cluster.heal();
    cluster.run_until("f + 1 have said it", |it| it.tape(3) == ["a: x y"]);
}

// Lies.

#[test]
fn a_certificate_with_a_forged_signature_is_refused() {
    let mut cluster = Cluster::new(4);
    let write = write(9, 1, "a=x");
    let honest = proof(&[0, 1, 2], &write, version(0, 1));
    let mut signatures = honest.signatures().to_vec();
    signatures[2].1 = signatures[1].1;
    let forged = Certificate::claimed(*honest.statement(), signatures);
    cluster.say(client(9), 3, Message::Write2 { proof: forged, write: Some(write), answer: true });
    assert_eq!((cluster.tape(3).len(), cluster.blamed(3)), (0, 1));
}

#[test]
fn a_request_that_its_client_has_not_signed_is_refused() {
    let mut cluster = Cluster::new(4);
    let mut forged = write(9, 1, "a=x");
    forged.operations = vec![Bytes::from_static(b"a=y")];
    cluster.say(client(9), 0, Message::Write1(forged));
    let eight = write(8, 1, "a=x");
    cluster.say(client(9), 0, Message::Write1(eight));
    assert_eq!(cluster.count("Granted"), 0, "nor one that is another client's");
}

#[test]
fn an_operation_under_another_objects_name_changes_nothing() {
    let mut cluster = Cluster::new(4);
    let mut lie = write(9, 1, "a=x");
    let (name, id) = (Bytes::from_static(b"b"), ClientId::new(9));
    let hash = Write::hash(id, lie.ask().number, &name, &lie.operations);
    let ask = Ask { object: object_of(&name), hash, ..*lie.ask() };
    let key = quorate_core::crypto::Keyring::simulated_client(
        crate::harness::ENVELOPE.cluster,
        crate::harness::ENVELOPE.epoch,
        N,
        id,
    );
    (lie.name, lie.ask) = (name, key.sign_as_client(ask));
    let proof = proof(&[0, 1, 2], &lie, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof, write: Some(lie), answer: true });
    assert!(cluster.tape(3).is_empty());
    let Message::Done { results, .. } = cluster.last(3, "Done") else { panic!("an answer") };
    assert_eq!(results, [MISPLACED]);
}

#[test]
fn a_replica_that_lies_about_a_result_is_outvoted() {
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.lose(|it| it.label == "Done" && it.from == replica(0));
    let ticket = cluster.submit(9, "a=x");
    cluster.deliver();
    for _ in 0..3 {
        let results = vec![Bytes::from_static(b"7")];
        let write = write(9, 1, "a=x");
        let lie = Message::Done {
            object: write.ask().object,
            number: write.ask().number,
            results,
            version: version(0, 1),
            proof: None,
        };
        let bytes = crate::harness::ENVELOPE.seal(&quorate_core::node::Payload::Protocol(lie));
        cluster.send(crate::harness::Flying { from: replica(0), to: client(9), label: "Lie", bytes });
    }
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1"));
}

#[test]
fn a_replica_that_grants_a_place_twice_in_a_resolution_is_convicted() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "Grants" && it.from != it.to);
    contend(&mut cluster);
    cluster.run(200);
    let Message::Grants { grants, .. } = cluster.last(1, "Grants") else { panic!("grants") };
    let key = keyring(1, N);
    let lie = Grant { hash: other(grants[0].statement().hash), ..*grants[0].statement() };
    let lies = vec![key.sign(lie)];
    cluster.say(replica(1), 0, Message::Grants { grants, again: false });
    cluster.say(replica(1), 0, Message::Grants { grants: lies, again: false });
    let proofs = cluster.hosts[0].process.as_ref().expect("it runs").node.ledger().proofs().len();
    assert_eq!(proofs, 1);
}

#[test]
fn a_client_cannot_speak_to_pbft() {
    let mut cluster = Cluster::new(4);
    let status = quorate_protocols::pbft::Message::GetCommitted { after: Default::default() };
    cluster.talk();
    cluster.say(client(9), 0, Message::Module(status));
    assert!(cluster.talk().is_empty());
}
