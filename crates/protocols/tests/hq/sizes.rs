//! Bounds in bytes: whatever clients do, no record is longer than the log takes, and no message than a frame.

use crate::harness::{Cluster, config, replica};
use crate::words::{N, grant, version, write, write_after};
use quorate_core::crypto::Signed;
use quorate_core::ids::{ClientId, Peer};
use quorate_protocols::hq::{
    Config, Grant, Message, RESULTS_BYTES_MAX, Record, TOO_LONG, WRITES_BYTES_MAX, Write, object_of,
};

/// As `WalConfig` has it by default, and `runtime`'s frames.
const BODY_BYTES_MAX: usize = 17 << 20;
const FRAME_BYTES_MAX: usize = 20 << 20;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// The longest record of any replica, the longest message of any.
fn longest(cluster: &Cluster) -> (usize, usize) {
    let records = cluster.hosts.iter().flat_map(|host| &host.journal).map(|it| it.bytes.len());
    let sent = cluster.sent.iter().map(|it| it.bytes.len());
    (records.max().unwrap_or(0), sent.max().unwrap_or(0))
}

fn fits(cluster: &Cluster) {
    let (record, message) = longest(cluster);
    assert!(record < BODY_BYTES_MAX && message < FRAME_BYTES_MAX, "{record} {message}");
}

/// An operation on `a` of this many bytes.
fn of_bytes(word: &str, bytes: usize) -> String {
    format!("a={word}{}", "x".repeat(bytes - word.len() - 2))
}

/// These replicas hear that their grants of the next place contradict each other.
fn conflict(cluster: &mut Cluster, to: impl IntoIterator<Item = usize>, ts: u64, of: u128) {
    let (nine, eight) = (write_after(9, 900, "a=nine", ts - 1), write_after(8, 900, "a=eight", ts - 1));
    let conflict: Vec<Signed<Grant>> =
        [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, ts))).to_vec();
    let own = write_after(of, 900, &format!("a={of}"), ts - 1);
    for id in to {
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own.clone() });
    }
}

#[test]
fn a_reply_that_no_record_takes_is_not_told_and_its_operation_is_done() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).apply(9, "a=1");
    let told = std::str::from_utf8(TOO_LONG).expect("text");
    for operation in ["a=huge", "a+b=huge"] {
        let ticket = cluster.submit(9, operation);
        cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
        assert_eq!(cluster.answer(9, ticket).as_deref(), Some(told));
    }
    cluster.run_until("all have it", |it| it.agrees(&["a: 1 huge huge", "b: huge"]));
    fits(&cluster);
    (0..N).for_each(|id| cluster.restart(id));
    assert!(cluster.agrees(&["a: 1 huge huge", "b: huge"]));
    assert_eq!(cluster.look(9, "b"), "huge");
}

#[test]
fn a_reply_that_no_record_takes_is_not_told_in_ordered_mode() {
    let mut cluster = crate::in_order::in_order(N);
    let ticket = cluster.submit(9, "a=huge");
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    assert_eq!(cluster.answer(9, ticket).as_deref(), std::str::from_utf8(TOO_LONG).ok());
    fits(&cluster);
}

#[test]
fn so_many_bytes_of_results_are_kept_with_an_object_and_of_the_last_write_all() {
    let mut cluster = Cluster::new(N);
    for of in 1..=12 {
        cluster.apply(of, "a=long");
    }
    cluster.apply(7, "b=1").run(3000).talk();
    cluster.say(replica(3), 0, Message::GetObject { object: object_of(b"a") });
    let Message::Object(object) = cluster.last(0, "Object") else { panic!("an object") };
    let bytes = object.now.done.values().flat_map(|it| &it.results).map(bytes::Bytes::len).sum::<usize>();
    assert!(bytes <= RESULTS_BYTES_MAX && object.now.done.contains_key(&ClientId::new(12)), "{bytes}");
    // The last write's client is answered again; one that was forgotten is told that.
    let number = object.now.done[&ClientId::new(12)].number.get();
    let again = |of: u128, number: u64| Message::Write1(write(of, number, "a=long"));
    cluster.say(client(12), 0, again(12, number)).say(client(1), 0, again(1, 1));
    assert!(matches!(cluster.last(0, "Done"), Message::Done { .. }));
    assert!(matches!(cluster.last(0, "TooOld"), Message::TooOld { .. }));
    conflict(&mut cluster, 0..N, 13, 7);
    cluster.run_until("it is over", |it| (0..N).all(|id| it.tape(id)[0].ends_with(" 7")));
    fits(&cluster);
}

#[test]
fn so_many_bytes_of_requests_are_under_consideration_and_what_is_granted_is_one_of_them() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let long = 1_400_000;
    for of in 100..112 {
        cluster.say(client(of), 1, Message::Write1(write_after(of, 1, &of_bytes("long", long), 1)));
    }
    cluster.say(client(200), 1, Message::Write1(write_after(200, 1, "a=short", 1)));
    conflict(&mut cluster, [1], 2, 7);
    let Message::Start(start) = cluster.last(1, "Start") else { panic!("a START") };
    let clients: Vec<_> = start.statement().asks.iter().map(|it| it.statement().client.get()).collect();
    assert_eq!(clients, [7, 100, 200], "there is room for short ones");
    fits(&cluster);
    assert!(longest(&cluster).0 < 2 * WRITES_BYTES_MAX);
}

#[test]
fn a_resolution_of_long_operations_outlives_restarts() {
    // Their operations have a record of their own, before that of their object.
    let mut cluster = Cluster::with(N, Config { log_slack: 4, ..config() });
    cluster.apply(9, "a=1");
    let long: Vec<Write> = (100..104).map(|of| write_after(of, 1, &of_bytes(&of.to_string(), 900_000), 1)).collect();
    for id in 0..N {
        for write in [&long[id % 2], &long[(id + 1) % 2]] {
            cluster.say(Peer::Client(write.ask().client), id, Message::Write1(write.clone()));
        }
    }
    cluster.lose(|it| it.label == "Grants" && it.from != it.to);
    conflict(&mut cluster, 0..N, 2, 7);
    cluster.run(1000);
    let apart = |cluster: &Cluster, id: usize| {
        cluster.hosts[id].journal.iter().filter(|it| matches!(it.record(), Record::Writes(..))).count()
    };
    assert!((0..N).all(|id| apart(&cluster, id) > 0));
    (0..N).for_each(|id| cluster.restart(id));
    cluster.run(1000);
    assert!((0..N).all(|id| cluster.status(id).role == "resolving contention"));
    cluster.heal();
    let has = |it: &Cluster, id: usize, word: &str| it.tape(id)[0].contains(&format!(" {word}"));
    cluster.run_until("it is over", |it| (0..N).all(|id| ["100x", "101x", "7"].iter().all(|word| has(it, id, word))));
    // The log's beginning goes, and what it said is known after a restart.
    for count in 0..100 {
        cluster.apply(9, &format!("b={count}"));
    }
    let hash = long[0].ask().hash;
    (0..N).for_each(|id| cluster.restart(id));
    cluster.talk();
    cluster.say(replica(3), 0, Message::GetWrite { object: object_of(b"a"), hash });
    assert_eq!(cluster.count("Wrote"), 1, "somebody may lack it");
    fits(&cluster);
}
