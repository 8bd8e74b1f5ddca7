//! Grants, certificates and reads (A.4, A.5), rule by rule: what the other chapters do not lead to by themselves.

use crate::harness::{Cluster, Flying, replica};
use crate::in_order::in_order;
use crate::words::{N, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::ids::{ClientId, Peer};
use quorate_protocols::hq::{Message, ReadRequest, Write, object_of};
use quorate_protocols::pbft::Told;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// How often a replica has sent this to this client.
fn told(cluster: &Cluster, from: usize, to: u128, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == replica(from) && it.to == client(to) && it.label == label).count()
}

/// A replica is shown a certificate.
fn show(cluster: &mut Cluster, from: Peer, to: usize, write: &Write, ts: u64, with: Option<Write>, answer: bool) {
    let proof = proof(&[0, 1, 2], write, version(0, ts));
    cluster.say(from, to, Message::Write2 { proof, write: with, answer });
}

fn read(nonce: u64, name: Option<&'static str>) -> ReadRequest {
    let name = name.map(|name| Bytes::from_static(name.as_bytes()));
    let query = name.clone().unwrap_or(Bytes::from_static(b"*"));
    ReadRequest { nonce, name, query, full: None }
}

#[test]
fn who_asks_again_is_granted_the_same_place_again() {
    // A.4, step 1.
    let mut cluster = Cluster::new(N);
    let mut grants = Vec::new();
    for _ in 0..2 {
        cluster.say(client(9), 0, Message::Write1(write(9, 1, "a=x")));
        let Message::Granted { grant, .. } = cluster.last(0, "Granted") else { panic!("a grant") };
        grants.push(*grant.statement());
    }
    assert_eq!((cluster.count("Granted"), grants[0]), (2, grants[1]));
}

#[test]
fn a_certificate_that_somebody_else_shows_is_not_answered() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=x");
    show(&mut cluster, client(77), 3, &first, 1, Some(first.clone()), true);
    show(&mut cluster, client(77), 3, &first, 1, None, true);
    assert_eq!((cluster.tape(3), cluster.count("Done")), (vec!["a: x".to_owned()], 0));
}

#[test]
fn a_certificate_that_its_client_shows_again_is_answered_again() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=x");
    show(&mut cluster, client(9), 3, &first, 1, Some(first.clone()), true);
    show(&mut cluster, client(9), 3, &first, 1, None, true);
    assert_eq!(told(&cluster, 3, 9, "Done"), 2);
    // And no more when a later one of this client is done.
    let second = write(9, 2, "a=y");
    show(&mut cluster, client(9), 3, &second, 2, Some(second.clone()), true);
    show(&mut cluster, client(9), 3, &first, 1, None, true);
    assert_eq!(told(&cluster, 3, 9, "Done"), 3);
}

#[test]
fn an_old_copy_of_a_request_is_granted_nothing() {
    // A.4, step 0: its client has had a later one done since.
    let mut cluster = Cluster::new(N);
    let (first, second) = (write(9, 1, "a=x"), write(9, 2, "a=y"));
    for (ts, write) in (1..).zip([&first, &second]) {
        show(&mut cluster, client(9), 3, write, ts, Some(write.clone()), false);
    }
    cluster.talk();
    cluster.say(client(9), 3, Message::Write1(first));
    assert_eq!(cluster.talk(), Vec::<String>::new());
    cluster.say(client(9), 3, Message::Write1(write(9, 3, "a=z")));
    assert_eq!(told(&cluster, 3, 9, "Granted"), 1);
}

#[test]
fn a_certificate_that_ordered_mode_has_passed_is_answered_with_how_it_goes_now() {
    let mut cluster = in_order(N);
    cluster.talk();
    let old = write(5, 1, "a=old");
    show(&mut cluster, client(5), 3, &old, 1, None, true);
    assert_eq!(told(&cluster, 3, 5, "InOrder"), 1);
}

#[test]
fn an_operation_that_is_not_the_certificates_is_not_executed_under_it() {
    let mut cluster = Cluster::new(N);
    let (granted, other) = (write(9, 1, "a=granted"), write(8, 1, "a=other"));
    show(&mut cluster, client(8), 3, &granted, 1, Some(other), false);
    assert!(cluster.tape(3).is_empty(), "{:?}", cluster.tape(3));
    assert_eq!(cluster.count("GetWrite"), N - 1);
    show(&mut cluster, client(9), 3, &granted, 1, Some(granted.clone()), false);
    assert_eq!(cluster.tape(3), ["a: granted"]);
    // Nor does it give the object its name.
    let (granted, of_b) = (write(9, 1, "c=granted"), write(8, 1, "b=other"));
    show(&mut cluster, client(8), 3, &granted, 1, Some(of_b), false);
    show(&mut cluster, client(9), 3, &granted, 1, Some(granted.clone()), false);
    cluster.say(replica(1), 3, Message::GetObject { object: object_of(b"c") });
    let Message::Object(given) = cluster.last(3, "Object") else { panic!("an object") };
    assert_eq!((given.name.as_ref(), cluster.tape(3)[1].as_str()), (&b"c"[..], "c: granted"));
}

#[test]
fn an_operation_that_nobody_has_sent_is_asked_for_again() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=x");
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write1(first.clone()));
    }
    cluster.lose(|it| it.label == "GetWrite");
    show(&mut cluster, client(9), 3, &first, 1, None, false);
    cluster.run(10);
    cluster.heal();
    cluster.lose(|it| ["Sums", "Versions", "Object"].contains(&it.label));
    cluster.run_until("it has it", |it| it.tape(3) == ["a: x"]);
}

#[test]
fn of_certificates_that_cannot_be_executed_yet_the_latest_is_kept() {
    // Replica 3 lacks four writes, and it alone has heard of the fifth.
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    for ts in 1..=4 {
        cluster.apply(9, &format!("a={ts}"));
    }
    cluster.gone(9);
    for (number, ts) in [(3, 3), (5, 5), (4, 4)] {
        let write = write(9, number, &format!("a={ts}"));
        show(&mut cluster, client(9), 3, &write, ts, Some(write.clone()), false);
    }
    cluster.heal();
    cluster.run_until("it is done", |it| it.agrees(&["a: 1 2 3 4 5"]));
}

#[test]
fn a_client_waits_for_a_certificate_that_somebody_else_has_shown_before() {
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.label == "Wrote");
    let first = write(9, 1, "a=x");
    show(&mut cluster, replica(0), 3, &first, 1, None, false);
    show(&mut cluster, client(9), 3, &first, 1, None, true);
    cluster.say(replica(0), 3, Message::Wrote(first));
    assert_eq!((cluster.tape(3), told(&cluster, 3, 9, "Done")), (vec!["a: x".to_owned()], 1));
}

#[test]
fn a_client_is_answered_though_its_write_has_come_another_way() {
    // Replica 3 lacks what comes before; it has both from others.
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(8, "a=2").gone(8);
    show(&mut cluster, client(8), 3, &write(8, 1, "a=2"), 2, None, true);
    cluster.lose(|it| it.label == "Write2").heal();
    cluster.lose(|it| it.label == "Write2");
    cluster.run_until("it has both", |it| it.tape(3) == ["a: 1 2"]);
    assert_eq!(told(&cluster, 3, 8, "Done"), 1);
}

#[test]
fn a_write_back_is_of_one_object() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=x");
    let proof = proof(&[0, 1, 2], &first, version(0, 1));
    cluster.say(client(8), 3, Message::WriteBack { proof, write: write(8, 1, "b=y") });
    assert_eq!((cluster.blamed(3), cluster.count("Granted"), cluster.count("GetWrite")), (1, 0, 0));
}

#[test]
fn a_read_with_a_write_back_is_answered_after_the_write() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=x");
    cluster.say(client(9), 3, Message::Write1(first.clone()));
    let proof = proof(&[0, 1, 2], &first, version(0, 1));
    cluster.say(client(8), 3, Message::WriteBackRead { proof, read: read(5, Some("a")) });
    let Message::ReadAnswer { nonce, version: at, answer, .. } = cluster.last(3, "ReadAnswer") else {
        panic!("an answer")
    };
    assert_eq!((nonce, at, answer), (5, version(0, 1), Told::Full(Bytes::from_static(b"x"))));
}

#[test]
fn one_replica_says_the_whole_answer_to_a_read_and_the_others_its_digest() {
    let mut cluster = Cluster::new(N);
    let long = "x".repeat(1000);
    cluster.apply(9, &format!("a={long}"));
    cluster.talk();
    assert_eq!(cluster.look(9, "a"), long);
    let whole = |it: &&Flying| matches!(it.message(), Some(Message::ReadAnswer { answer: Told::Full(_), .. }));
    assert_eq!((cluster.count("ReadAnswer"), cluster.sent.iter().filter(whole).count()), (N - 1, 1));
}

/// Is this about `b`?
fn of_b(it: &Flying) -> bool {
    match it.message() {
        Some(Message::Object(transferred)) => transferred.name == b"b"[..],
        Some(Message::GetObject { object }) => object == object_of(b"b"),
        _ => false,
    }
}

#[test]
fn a_range_is_not_read_while_an_operation_is_here_in_part() {
    // ADR 028. Replica 3 has `a` from others, past the operation on both, and not `b`.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "b=1").apply(9, "c=1");
    let kept_back = |it: &Flying| it.to == replica(3) && ["Grants", "Write2"].contains(&it.label);
    cluster.lose(move |it| kept_back(it) || of_b(it));
    cluster.apply(8, "a+b=x").gone(8);
    cluster.run_until("it has a part", |it| it.tape(3)[0] == "a: 1 x");
    assert_eq!(cluster.tape(3)[1], "b: 1");
    cluster.talk();
    cluster.say(client(7), 3, Message::Read(read(1, None)));
    cluster.say(client(7), 3, Message::Read(read(2, Some("c"))));
    cluster.deliver();
    let answers = |it: &Cluster| -> Vec<(u64, Told<Bytes>)> {
        let of = it.sent.iter().filter(|it| it.from == replica(3)).filter_map(Flying::message);
        let answer = |it| if let Message::ReadAnswer { nonce, answer, .. } = it { Some((nonce, answer)) } else { None };
        of.filter_map(answer).collect()
    };
    let one = (2, Told::Full(Bytes::from_static(b"1")));
    assert_eq!(answers(&cluster), std::slice::from_ref(&one), "one object is read as always");
    cluster.heal();
    cluster.run_until("it has all of it", |it| answers(it).len() == 2);
    assert_eq!(answers(&cluster), [one, (1, Told::Full(Bytes::from_static(b"a: 1 x; b: 1 x; c: 1")))]);
}

#[test]
fn an_answer_to_a_read_waits_for_the_disk() {
    // What it shows may be lost with the disk: `f + 1` have shown it, perhaps.
    let mut cluster = Cluster::new(N);
    cluster.hosts[3].fast_disk = false;
    let first = write_after(9, 1, "a=x", 0);
    show(&mut cluster, client(9), 3, &first, 1, Some(first.clone()), true);
    cluster.say(client(8), 3, Message::Read(read(1, Some("a"))));
    cluster.deliver();
    assert_eq!((cluster.tape(3).len(), cluster.count("ReadAnswer"), cluster.count("Done")), (1, 0, 0));
    cluster.sync(3);
    assert_eq!((cluster.count("ReadAnswer"), cluster.count("Done")), (1, 1));
}
