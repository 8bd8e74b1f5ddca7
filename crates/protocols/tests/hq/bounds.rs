//! Every queue is bounded, and what is beyond it is asked for again: the README's table *Bounds*, row by row.

use crate::harness::{Cluster, Flying, replica};
use crate::words::{N, grant, ordered, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::protocol::CallError;
use quorate_protocols::hq::{Message, ReadRequest, VERSIONS_MAX, WRITES_MAX, Write, object_of};
use std::collections::BTreeSet;

/// As in the table.
const READS_MAX: usize = 4096;
const DELAYED_MAX: usize = 256;
const CLIENT_DELAYED_MAX: usize = 16;
const HEARD_MAX: usize = 128;
const IMAGES_MAX: usize = 256;
const BUCKETS_ASKED: usize = 8;
const CALLS_MAX: usize = 4096;
const ORDERED_WAITING_MAX: usize = 1024;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn read(nonce: u64, name: Option<&str>) -> Message {
    let name = name.map(|name| Bytes::from(name.to_owned()));
    let query = name.clone().unwrap_or(Bytes::from_static(b"*"));
    Message::Read(ReadRequest { nonce, name, query, full: None })
}

/// `a` has one write, and is frozen everywhere until PBFT is heard.
fn frozen() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    cluster.lose(|it| it.label == "PrePrepare");
    contend(&mut cluster, &[(0, 7), (1, 6), (2, 5), (3, 4)]);
    cluster.deliver();
    cluster
}

/// These replicas hear of a conflict about the second place of `a`, each from a client of its own.
fn contend(cluster: &mut Cluster, to: &[(usize, u128)]) {
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 2))).to_vec();
    for (id, of) in to {
        let own = write_after(*of, 1, &format!("a={of}"), 1);
        cluster.say(client(*of), *id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
}

/// How many of these messages a replica has sent to somebody.
fn sent(cluster: &Cluster, from: usize, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == replica(from) && it.label == label).count()
}

#[test]
fn so_many_requests_are_under_consideration_and_of_each_client_the_latest() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.say(client(8), 1, Message::Write1(write_after(8, 1, "a=8", 1)));
    for of in 0..2 * WRITES_MAX as u128 {
        cluster.say(client(100 + of), 1, Message::Write1(write_after(100 + of, 5, "a=x", 1)));
    }
    // One more of the first of them, and an old copy of another one's.
    cluster.say(client(100), 1, Message::Write1(write_after(100, 6, "a=y", 1)));
    cluster.say(client(101), 1, Message::Write1(write_after(101, 3, "a=z", 1)));
    contend(&mut cluster, &[(1, 7)]);
    let Message::Start(start) = cluster.last(1, "Start") else { panic!("a START") };
    let asks = &start.statement().asks;
    assert_eq!(asks.len(), WRITES_MAX);
    let number = |of: u128| {
        asks.iter().find(|it| it.statement().client == ClientId::new(of)).map(|it| it.statement().number.get())
    };
    assert_eq!((number(8), number(100), number(101), number(102)), (Some(1), Some(6), Some(5), Some(5)));
}

#[test]
fn what_was_asked_for_before_a_write_is_not_considered_after_it() {
    // Else sixteen clients that are gone would keep all others out.
    let mut cluster = Cluster::new(N);
    for of in 0..WRITES_MAX as u128 {
        cluster.say(client(100 + of), 1, Message::Write1(write(100 + of, 5, "a=x")));
    }
    let first = write(100, 5, "a=x");
    let certified = proof(&[0, 1, 2], &first, version(0, 1));
    cluster.say(client(100), 1, Message::Write2 { proof: certified, write: None, answer: false });
    assert_eq!(cluster.tape(1), ["a: x"]);
    contend(&mut cluster, &[(1, 7)]);
    let Message::Start(start) = cluster.last(1, "Start") else { panic!("a START") };
    let clients: Vec<_> = start.statement().asks.iter().map(|it| it.statement().client.get()).collect();
    assert_eq!(clients, [7]);
}

#[test]
fn what_was_asked_for_before_a_resolution_is_not_considered_after_it() {
    let mut cluster = frozen();
    cluster.heal();
    cluster.run_until("it is over", |it| (0..N).all(|id| it.status(id).role == "replica"));
    cluster.say(client(3), 1, Message::Write1(write_after(3, 1, "a=3", 1)));
    let Message::Granted { grant: granted, .. } = cluster.last(1, "Granted") else { panic!("a grant") };
    let at = granted.statement().version;
    let (nine, eight) = (write_after(9, 10, "a=nine", 1), write_after(8, 10, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, at)).to_vec();
    cluster.say(client(8), 1, Message::Resolve { conflict, write: eight });
    let Message::Start(start) = cluster.last(1, "Start") else { panic!("a START") };
    let clients: Vec<_> = start.statement().asks.iter().map(|it| it.statement().client.get()).collect();
    assert_eq!(clients, [3, 8]);
}

#[test]
fn an_operation_that_came_with_a_certificate_is_forgotten_when_it_cannot_be_taken_back_any_more() {
    let mut cluster = Cluster::new(N);
    let writes: Vec<Write> = (1..=3).map(|number| write(9, number, &format!("a={number}"))).collect();
    for (ts, write) in (1..).zip(&writes) {
        let certified = proof(&[0, 1, 2], write, version(0, ts));
        cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(write.clone()), answer: false });
    }
    assert_eq!(cluster.tape(3), ["a: 1 2 3"]);
    for (write, here) in writes.iter().zip([0, 1, 2]) {
        cluster.say(replica(1), 3, Message::GetWrite { object: write.ask().object, hash: write.ask().hash });
        assert_eq!(cluster.count("Wrote"), here);
    }
}

#[test]
fn an_operation_that_nobody_asked_for_is_not_kept() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let other = write_after(8, 1, "a=other", 1);
    cluster.say(replica(1), 3, Message::Wrote(other.clone()));
    cluster.say(replica(2), 3, Message::GetWrite { object: other.ask().object, hash: other.ask().hash });
    assert_eq!(cluster.count("Wrote"), 0);
}

#[test]
fn so_many_reads_are_asked_of_the_machine() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").talk();
    cluster.hosts[0].fast_machine = false;
    for nonce in 0..READS_MAX as u64 + 1 {
        cluster.say(client(8), 0, read(nonce, Some("a")));
    }
    cluster.work(0);
    assert_eq!(cluster.count("ReadAnswer"), READS_MAX);
    cluster.say(client(8), 0, read(9999, Some("a")));
    cluster.work(0);
    assert_eq!(cluster.count("ReadAnswer"), READS_MAX + 1, "there is room again");
}

#[test]
fn so_many_messages_wait_for_an_object_and_of_each_client_a_few() {
    let mut cluster = frozen();
    cluster.talk();
    for nonce in 0..CLIENT_DELAYED_MAX as u64 + 1 {
        cluster.say(client(100), 3, read(nonce, Some("a")));
    }
    for of in 101..=120 {
        for nonce in 0..CLIENT_DELAYED_MAX as u64 {
            cluster.say(client(of), 3, read(nonce, Some("a")));
        }
    }
    cluster.heal();
    cluster.run_until("it is over", |it| it.status(3).role == "replica");
    cluster.deliver();
    let to = |of: u128| cluster.sent.iter().filter(|it| it.to == client(of) && it.label == "ReadAnswer").count();
    assert_eq!(to(100), CLIENT_DELAYED_MAX);
    assert_eq!(sent(&cluster, 3, "ReadAnswer"), DELAYED_MAX);
}

#[test]
fn what_waits_for_an_object_and_is_said_again_waits_once() {
    let mut cluster = frozen();
    cluster.talk();
    for _ in 0..5 {
        cluster.say(client(100), 3, read(1, Some("a")));
    }
    cluster.heal();
    cluster.run_until("it is over", |it| it.status(3).role == "replica");
    cluster.deliver();
    assert_eq!(sent(&cluster, 3, "ReadAnswer"), 1);
}

// Who is behind.

fn versions(names: impl IntoIterator<Item = Digest>, bucket: u8) -> Message {
    Message::Versions { bucket, versions: names.into_iter().map(|id| (id, version(0, 1))).collect() }
}

/// Objects of one bucket.
fn of_bucket(bucket: u8, count: usize) -> Vec<(String, Digest)> {
    let all = (0..).map(|it| format!("n{it}")).map(|name| (name.clone(), object_of(name.as_bytes())));
    let mut found: Vec<_> = all.filter(|(_, id)| id.as_bytes()[0] == bucket).take(count).collect();
    found.sort_by_key(|(_, id)| *id);
    found
}

#[test]
fn so_many_objects_are_fetched_at_once_and_given_up_when_nobody_has_them() {
    let mut cluster = Cluster::new(N);
    let ids = || of_bucket(0, 2 * HEARD_MAX + 50).into_iter().map(|(_, id)| id);
    cluster.say(replica(1), 3, versions(ids(), 0));
    assert_eq!(cluster.count("GetObject"), HEARD_MAX * (N - 1));
    assert_eq!(cluster.status(3).missing, HEARD_MAX as u64);
    cluster.say(replica(2), 3, versions(ids(), 0));
    assert_eq!(cluster.status(3).missing, 2 * HEARD_MAX as u64, "what one names takes nobody else's room");
    cluster.run(30_000);
    assert_eq!(cluster.status(3).missing, 0);
    cluster.talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new(), "a liar named them: nobody asks for ever");
}

#[test]
fn an_object_that_something_waits_for_is_not_given_up() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").gone(9);
    let latest = write(9, 2, "a=2");
    let certified = proof(&[0, 1, 2], &latest, version(0, 2));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: None, answer: false });
    cluster.run(60_000);
    cluster.heal();
    cluster.lose(|it| ["Sums", "Versions", "GetVersions"].contains(&it.label));
    cluster.run_until("it has it", |it| it.tape(3) == ["a: 1 2"]);
}

#[test]
fn versions_that_are_no_news_bring_no_question() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").run(5000).talk();
    let id = object_of(b"a");
    cluster.say(replica(1), 3, versions([id], id.as_bytes()[0]));
    let elsewhere = of_bucket(7, 1)[0].1;
    cluster.say(replica(1), 3, versions([elsewhere], 8));
    assert_eq!(cluster.count("GetObject"), 0);
}

#[test]
fn versions_are_told_a_page_at_a_time_and_of_one_bucket() {
    let mut cluster = Cluster::new(N);
    let names = of_bucket(7, VERSIONS_MAX + 1);
    for (name, _) in names.iter().chain(&of_bucket(6, 1)).chain(&of_bucket(8, 1)) {
        let write = write(9, 1, &format!("{name}=x"));
        let certified = proof(&[0, 1, 2], &write, version(0, 1));
        cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(write), answer: false });
    }
    let mut found = Vec::new();
    let mut after = Digest::ZERO;
    for count in [VERSIONS_MAX, 1, 0] {
        cluster.say(replica(1), 3, Message::GetVersions { bucket: 7, after });
        let Message::Versions { versions, .. } = cluster.last(3, "Versions") else { panic!("versions") };
        assert_eq!(versions.len(), count);
        found.extend(versions.iter().map(|(id, _)| *id));
        after = found.last().copied().expect("some");
    }
    assert_eq!(found, names.iter().map(|(_, id)| *id).collect::<Vec<_>>());
    // And who is told a whole page asks for the next one.
    cluster.talk();
    let page = names.iter().take(VERSIONS_MAX).map(|(_, id)| *id);
    cluster.say(replica(1), 2, versions(page, 7));
    let Message::GetVersions { bucket, after } = cluster.last(2, "GetVersions") else { panic!("a question") };
    assert_eq!((bucket, after), (7, names[VERSIONS_MAX - 1].1));
}

#[test]
fn one_comparison_asks_about_a_few_buckets() {
    let mut cluster = Cluster::new(N);
    cluster.say(replica(1), 3, Message::Sums { sums: vec![1; 256], ask: true });
    assert_eq!((cluster.count("GetVersions"), sent(&cluster, 3, "Sums")), (BUCKETS_ASKED, 1));
    cluster.say(replica(1), 3, Message::Sums { sums: vec![0; 256], ask: false });
    assert_eq!((cluster.count("GetVersions"), sent(&cluster, 3, "Sums")), (BUCKETS_ASKED, 1));
}

#[test]
fn so_many_objects_are_read_for_others_at_once() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").talk();
    cluster.hosts[0].fast_machine = false;
    for _ in 0..=IMAGES_MAX {
        cluster.say(replica(1), 0, Message::GetObject { object: object_of(b"a") });
    }
    cluster.work(0);
    assert_eq!(cluster.count("Object"), IMAGES_MAX);
}

#[test]
fn an_object_that_nobody_asked_for_is_not_taken() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").heal().lose(|it| it.to == replica(3));
    for id in 0..3 {
        cluster.say(replica(3), id, Message::GetObject { object: object_of(b"a") });
        let object = cluster.last(id, "Object");
        cluster.say(replica(id), 3, object);
    }
    assert!(cluster.tape(3).is_empty(), "{:?}", cluster.tape(3));
}

// Operations on several objects.

#[test]
fn so_many_operations_on_several_objects_wait_to_be_ordered() {
    let mut cluster = Cluster::new(N);
    // A backup keeps them, and has them ordered when that takes long.
    cluster.lose(|it| it.from == replica(0) || it.from == replica(2) || it.from == replica(3));
    for of in 0..ORDERED_WAITING_MAX as u128 {
        cluster.say(client(100 + of), 1, Message::Ordered(Box::new(ordered(100 + of, 1, "a+b=x"))));
    }
    let last = 100 + ORDERED_WAITING_MAX as u128;
    let busy =
        |it: &Cluster| it.hosts[1].process.as_ref().expect("it runs").node.ledger().ignored().values().sum::<u64>();
    let before = busy(&cluster);
    cluster.say(client(last), 1, Message::Ordered(Box::new(ordered(last, 1, "a+b=x"))));
    assert_eq!(busy(&cluster), before + 1);
    cluster.say(client(100), 1, Message::Ordered(Box::new(ordered(100, 2, "a+b=y"))));
    assert_eq!(busy(&cluster), before + 1, "a client that is known already has a later one");
}

// Clients.

#[test]
fn so_many_operations_wait_at_a_client() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|_| true);
    let refused = |cluster: &Cluster, ticket| {
        let said = cluster.clients[&ClientId::new(9)].answers.get(&ticket);
        matches!(said, Some(Err(CallError::Refused(_))))
    };
    for operation in ["a=x", "a+b=x"] {
        let tickets: Vec<_> = (0..CALLS_MAX + 2).map(|_| cluster.submit(9, operation)).collect();
        let refused = tickets.iter().map(|ticket| refused(&cluster, *ticket)).collect::<Vec<_>>();
        assert_eq!(refused.iter().filter(|it| **it).count(), 1, "one is under way, {CALLS_MAX} wait");
        assert_eq!(refused.last(), Some(&true));
    }
}

#[test]
fn an_operation_that_is_lacking_is_asked_for_once_however_often_it_is_missed() {
    let mut cluster = Cluster::new(N);
    cluster.lose(|it: &Flying| it.label == "GetWrite");
    let lacking = write(9, 1, "a=x");
    let certified = proof(&[0, 1, 2], &lacking, version(0, 1));
    for _ in 0..5 {
        cluster.say(client(9), 3, Message::Write2 { proof: certified.clone(), write: None, answer: false });
    }
    assert_eq!(cluster.count("GetWrite"), N - 1);
    let labels: BTreeSet<_> = cluster.sent.iter().map(|it| it.label).collect();
    assert_eq!(labels.into_iter().collect::<Vec<_>>(), ["GetWrite"]);
}
