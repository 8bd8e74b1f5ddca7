//! A liar that fills a bounded table takes nobody else's room in it.

use crate::harness::{Cluster, Flying, config, keyring, replica};
use crate::in_order::{noted, order_all_as, order_as};
use crate::paper::contend;
use crate::rejoin::{is_back, loses_its_disk, returned};
use crate::words::{N, grant, ordered, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Signed};
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber, SessionId};
use quorate_core::sessions::Body;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{Config, Entry, Grant, Message, Start, State, Transferred, Version, Write, object_of};
use quorate_protocols::pbft;

const RESOLVED: &str = "contention is resolved";

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn nine_and_eight(at: Version) -> (Write, Write, Vec<Signed<Grant>>) {
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, at)).to_vec();
    (nine, eight, conflict)
}

fn start(by: usize, seen: u64, object: &[u8]) -> Signed<Start> {
    let (object, seen) = (object_of(object), OpNumber::new(seen));
    keyring(by, N).sign(Start {
        object,
        seen,
        conflict: Vec::new(),
        asks: Vec::new(),
        current: None,
        calm: 0,
        life: OpNumber::ZERO,
    })
}

#[test]
fn a_liar_that_grants_many_places_does_not_keep_a_resolution_from_its_end() {
    // It may know the viewstamp before PBFT has ordered anything: what it says is kept, and counted first.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let (_, eight, conflict) = nine_and_eight(version(0, 2));
    let lies = |from: u64| -> Message {
        let grants = (from..from + 64).map(|ts| grant(3, &eight, version(1, ts))).collect();
        Message::Grants { grants, again: false }
    };
    cluster.lose(|it| it.from == replica(3) || (it.label == "Grants" && it.from != it.to));
    for id in 0..3 {
        cluster.say(replica(3), id, lies(1000));
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    (0..3).for_each(|id| cluster.hosts[id].fast_disk = false);
    for _ in 0..50 {
        (0..3).filter(|id| noted(&cluster, *id, RESOLVED) == 0).collect::<Vec<_>>().into_iter().for_each(|id| {
            cluster.sync(id);
        });
        cluster.deliver();
    }
    assert!((0..3).all(|id| noted(&cluster, id, RESOLVED) == 1), "PBFT has ordered it");
    for id in 0..3 {
        cluster.say(replica(3), id, lies(2000));
        cluster.hosts[id].fast_disk = true;
        cluster.sync(id);
    }
    cluster.lose(|it| it.from == replica(3));
    cluster.run_until("it is done", |it| (0..3).all(|id| it.tape(id) == ["a: 1 eight"]));
}

#[test]
fn a_liar_that_says_starts_of_many_objects_does_not_keep_contention_from_being_resolved() {
    let mut cluster = Cluster::new(N);
    for object in 0..4096_u32 {
        let lie = start(3, 0, &object.to_le_bytes());
        for id in 0..3 {
            cluster.say(replica(3), id, Message::Start(Box::new(lie.clone())));
        }
    }
    cluster.lose(|it| it.from == replica(3));
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
}

#[test]
fn a_liar_that_names_many_objects_does_not_keep_a_replica_behind() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.heal().lose(|it| it.from == replica(1));
    let names = (0_u32..).map(|it| object_of(&it.to_le_bytes())).filter(|id| id.as_bytes()[0] == 0);
    let names: Vec<_> = names.take(300).map(|id| (id, version(0, 1))).collect();
    for _ in 0..6000 {
        cluster.say(replica(1), 3, Message::Versions { bucket: 0, versions: names.clone() });
        cluster.run(10);
        if cluster.tape(3) == ["a: 1 2"] {
            return;
        }
    }
    panic!("a minute has gone: {:?}", cluster.status(3));
}

/// A request to PBFT in the name of this replica.
fn request(id: usize, number: u64, entry: &Entry) -> Message {
    let keyring = keyring(id, N);
    let group = keyring.sign_as_proxy(pbft::Requests {
        client: keyring.address(&keyring.proxy().expect("a replica's")),
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: vec![(RequestNumber::new(number), Body::Apply(entry.encode().into()))],
    });
    Message::Module(pbft::Message::Request(group))
}

#[test]
fn what_a_replica_has_asked_of_pbft_is_not_taken_from_another_one() {
    // It would be ordered again and again, and fill the room for what that replica asks for next.
    let mut cluster = Cluster::new(N);
    cluster.talk();
    let nothing = request(2, 1 << 60, &Entry::Starts(Vec::new()));
    for id in 0..N {
        cluster.say(replica(3), id, nothing.clone());
    }
    cluster.run(1000);
    assert_eq!(cluster.count("PrePrepare"), 0);
    for id in 0..N {
        cluster.say(replica(2), id, nothing.clone());
    }
    cluster.run(1000);
    assert_eq!(cluster.count("PrePrepare"), N - 1);
}

#[test]
fn what_a_liar_asks_of_pbft_takes_nobody_elses_room_there() {
    let module = pbft::Config { pending_bytes: 400_000, client_bytes: 400_000, ..config().module };
    let mut cluster = Cluster::with(N, Config { module, ..config() });
    cluster.lose(|it| it.label == "PrePrepare");
    for number in 0..4 {
        let long = ordered(5, number + 1, &format!("a+b={}", "x".repeat(95_000)));
        cluster.say(replica(3), 0, request(3, (1 << 60) + number, &Entry::Ordered(Box::new(long))));
    }
    let keyring = keyring(0, N);
    let own = Peer::Client(keyring.address(&keyring.proxy().expect("a replica's")));
    let long = ordered(6, 1, &format!("a+b={}", "x".repeat(50_000)));
    cluster.say(client(6), 0, Message::Ordered(Box::new(long)));
    assert_eq!(cluster.sent.iter().filter(|it| it.label == "Busy" && it.to == own).count(), 0);
}

#[test]
fn a_client_has_one_operation_on_several_objects_that_waits_for_a_resolution() {
    const FROZEN: &str = "objects are frozen: an operation touches several";
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    let entries: Vec<Entry> = (1..=20).map(|number| Entry::Ordered(Box::new(ordered(5, number, "a+b=x")))).collect();
    order_all_as(&mut cluster, 1, &entries);
    assert_eq!(noted(&cluster, 0, FROZEN), 1);
    order_as(&mut cluster, 1, &Entry::Ordered(Box::new(ordered(6, 1, "a+b=y"))));
    assert_eq!(noted(&cluster, 0, FROZEN), 2, "there is room for another one's");
    cluster.heal();
    cluster.run_until("both are done", |it| it.agrees(&["a: x y", "b: x y"]));
    order_as(&mut cluster, 1, &Entry::Ordered(Box::new(ordered(5, 2, "a+b=z"))));
    cluster.run_until("and the next", |it| it.agrees(&["a: x y z", "b: x y z"]));
}

// A lost disk: replica 3's.

const RENEWS: &str = "an object is frozen: a replica that has lost its disk may not grant its next place";

#[test]
fn renewals_that_a_liar_asks_for_take_nobody_elses_room() {
    let mut cluster = returned();
    order_as(&mut cluster, 1, &Entry::Rejoin { number: 1, nonce: 77 }); // it says that it has lost its disk, too
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    for lot in 0..6_u64 {
        let of = |it: u64| Entry::Renew(Digest::of(&(60 * lot + it).to_le_bytes()));
        order_all_as(&mut cluster, 1, &(0..60).map(of).collect::<Vec<_>>());
    }
    cluster.run(100);
    assert_eq!(noted(&cluster, 0, RENEWS), 256);
    order_as(&mut cluster, 3, &Entry::Renew(object_of(b"a")));
    assert_eq!(noted(&cluster, 0, RENEWS), 257);
}

#[test]
fn renewals_that_one_client_needs_take_nobody_elses_room() {
    let mut cluster = returned();
    cluster.lose(|it| it.label == "Request");
    let ask = |cluster: &mut Cluster, of: u128, name: &str| {
        for _ in 0..2 {
            cluster.say(client(of), 3, Message::Write1(write(of, 1, &format!("{name}=x"))));
        }
    };
    for count in 0..300 {
        ask(&mut cluster, 5, &format!("n{count}"));
    }
    cluster.talk();
    ask(&mut cluster, 6, "new");
    let asked = |it: &&Flying| it.from == replica(3) && it.to == replica(0) && it.label == "Request";
    assert!(cluster.sent.iter().any(|it| asked(&it)));
}

#[test]
fn a_list_of_what_does_not_exist_takes_nobody_elses_room() {
    let mut cluster = Cluster::new(N);
    for count in 0..400 {
        let write = write(5, 1, &format!("n{count}=x"));
        let proof = proof(&[0, 1, 2], &write, version(0, 1));
        for id in 0..3 {
            let said = Message::Write2 { proof: proof.clone(), write: Some(write.clone()), answer: false };
            cluster.say(client(5), id, said);
        }
    }
    cluster.lose(|it| ["Executed", "Sums", "Versions"].contains(&it.label));
    loses_its_disk(&mut cluster, 3);
    cluster.run(20);
    let Message::GetExecuted { nonce, after } = cluster.last(3, "GetExecuted") else { panic!("a question") };
    let mut invented = (0_u64..).map(|it| Digest::of(&it.to_le_bytes()));
    let mut lie = |cluster: &mut Cluster, lots: usize| {
        for _ in 0..lots {
            let mut places: Vec<_> = invented.by_ref().take(16).map(|id| (id, version(0, 9))).collect();
            places.sort();
            cluster.say(replica(0), 3, Message::Executed { nonce, after, places });
        }
    };
    lie(&mut cluster, 20);
    cluster.lose(|it| ["Sums", "Versions"].contains(&it.label) || it.label == "Executed" && it.from == replica(0));
    for _ in 0..40 {
        lie(&mut cluster, 4);
        cluster.run(10);
        cluster.talk();
    }
    assert_eq!(cluster.tape(3).len(), 400);
}

#[test]
fn grants_that_nobody_uses_do_not_keep_a_lost_disk_from_coming_back() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    for count in 0..600 {
        for id in 0..N {
            cluster.say(client(5), id, Message::Write1(write(5, 1, &format!("n{count}=x"))));
        }
    }
    loses_its_disk(&mut cluster, 3);
    cluster.run(4000);
    assert!(is_back(&cluster, 3), "{:?}", cluster.status(3));
    assert!(noted(&cluster, 0, RENEWS) >= 600);
}

#[test]
fn renewals_because_of_a_liars_list_take_nobody_elses_room() {
    let mut cluster = Cluster::new(N);
    for id in 0..N {
        cluster.say(client(5), id, Message::Write1(write(5, 1, "granted=x")));
    }
    cluster.lose(|it| it.label == "Executed" && it.to == replica(3));
    loses_its_disk(&mut cluster, 3);
    cluster.run(20);
    let Message::GetExecuted { nonce, after } = cluster.last(3, "GetExecuted") else { panic!("a question") };
    let is_left_out = |it: &Flying| it.label == "Start" && it.from != it.to || it.from == replica(1);
    cluster
        .lose(move |it| is_left_out(it) && it.label != "PrePrepare" && it.label != "Prepare" && it.label != "Commit");
    let mut names: Vec<_> = (0..1000).map(|it| Bytes::from(format!("n{it}"))).collect();
    names.sort_by_key(|name| object_of(name));
    let places = names.iter().map(|name| (object_of(name), version(0, 1))).collect();
    cluster.say(replica(1), 3, Message::Executed { nonce, after, places });
    for name in names {
        let (seen, now, image) = (OpNumber::ZERO, State::default(), None);
        let shown = Transferred { name, seen, now, image, before: None, list: None };
        cluster.say(replica(1), 3, Message::Object(Box::new(shown)));
    }
    cluster.run(3000);
    assert_eq!(noted(&cluster, 0, RENEWS), 17);
}
