//! A liar that fills a bounded table takes nobody else's room in it.

use crate::harness::{Cluster, keyring, replica};
use crate::in_order::noted;
use crate::paper::contend;
use crate::words::{N, grant, version, write_after};
use quorate_core::crypto::Signed;
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_protocols::hq::{Grant, Message, Start, Version, Write, object_of};

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
