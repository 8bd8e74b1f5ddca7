//! Where there is more to say than is said at once, each has its turn, whatever its name is.

use crate::harness::{Cluster, config, keyring, replica};
use crate::in_order::{in_order, in_order_with};
use crate::words::{N, grant, ordered, version, write};
use quorate_core::crypto::{Digest, Signed};
use quorate_core::ids::{ClientId, Peer};
use quorate_core::sessions::Body;
use quorate_core::time::Duration;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{Config, Entry, Grant, Message, Write, object_of};
use quorate_protocols::pbft;
use std::collections::{BTreeMap, BTreeSet};

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// What replica 1 has asked PBFT's primary for.
fn asked(cluster: &Cluster) -> Vec<Entry> {
    let sent = cluster.sent.iter().filter(|it| it.from == replica(1) && it.to == replica(0));
    let groups = sent.filter_map(|it| match it.message() {
        Some(Message::Module(pbft::Message::Request(group))) => Some(group.statement().requests.clone()),
        _ => None,
    });
    let bodies = groups.flatten().filter_map(|(_, body)| match body {
        Body::Apply(bytes) => Entry::decode(&bytes).ok(),
        _ => None,
    });
    bodies.collect()
}

#[test]
fn objects_that_are_frozen_are_told_of_in_turn() {
    // Nobody answers replica 1, and nothing is resolved: the others' clients have chosen names with small digests.
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.to == replica(1) && it.from != it.to);
    let mut names: Vec<String> = (0..200).map(|it| format!("n{it}")).collect();
    names.sort_by_key(|name| object_of(name.as_bytes()));
    for name in &names {
        let pair = [9, 8].map(|of| write(of, 1, &format!("{name}={of}")));
        let conflict: Vec<Signed<Grant>> =
            [(0, &pair[0]), (1, &pair[1]), (2, &pair[0])].map(|(id, it)| grant(id, it, version(0, 1))).to_vec();
        cluster.say(client(9), 1, Message::Resolve { conflict, write: pair[0].clone() });
    }
    cluster.deliver().talk();
    cluster.run(20_000);
    let mut told: BTreeMap<Digest, usize> = BTreeMap::new();
    for it in cluster.sent.iter().filter(|it| it.from == replica(1) && it.to == replica(2)) {
        if let Some(Message::Start(start)) = it.message() {
            *told.entry(start.statement().object).or_default() += 1;
        }
    }
    assert_eq!(told.len(), names.len());
    assert!(told.values().all(|times| *times >= 8), "every two seconds, as if it were alone: {:?}", told.values());
}

#[test]
fn clients_of_several_objects_that_wait_for_long_are_handed_over_in_turn() {
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.to == replica(1) && it.from != it.to);
    for of in 100..200 {
        cluster.say(client(of), 1, Message::Ordered(Box::new(ordered(of, 1, "a+b=x"))));
    }
    cluster.run(8000);
    let clients: BTreeSet<ClientId> = asked(&cluster)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Ordered(ordered) => Some(ordered.ask().client),
            _ => None,
        })
        .collect();
    assert_eq!(clients.len(), 100);
}

/// A request for `a` that is longer than a lot.
fn long(of: u128, number: u64) -> Write {
    write(of, number, &format!("a=w{of}.{number}{}", "x".repeat(70_000)))
}

#[test]
fn a_client_of_an_object_in_ordered_mode_does_not_wait_for_one_who_always_has_another_request() {
    let mut cluster = in_order(N);
    let after = u64::try_from(cluster.tape(0)[0].split(' ').count() - 1).expect("small");
    let request = |of: u128, number: u64| {
        let write = long(of, number);
        crate::words::write_after(of, number, std::str::from_utf8(&write.operations[0]).expect("text"), after)
    };
    let (mut number, mut said) = (1, false);
    for _ in 0..3000 {
        for of in [1, 2] {
            cluster.say(client(of), 0, Message::Submit(request(of, number)));
        }
        number += 1;
        if !said {
            said = true;
            let small = crate::words::write_after(3, 1, "a=victim", after);
            cluster.say(client(3), 0, Message::Submit(small));
        }
        let Some(next) = cluster.flying.pop_front() else { break };
        cluster.hand_over(&next);
        let tape = cluster.tape(0)[0].clone();
        if tape.contains("victim") {
            return;
        }
        assert!(tape.matches('w').count() < 8, "the others have had {}", tape.matches('w').count());
    }
    panic!("it was not done");
}

#[test]
fn late_requests_for_objects_in_ordered_mode_are_handed_over_in_turn() {
    let module = pbft::Config { view_change: Duration::from_secs(60), ..config().module };
    let mut cluster = in_order_with(N, Config { module, ..config() });
    cluster.run(5000);
    cluster.lose(|it| it.to == replica(1) && it.from != it.to);
    let after = u64::try_from(cluster.tape(1)[0].split(' ').count() - 1).expect("small");
    for of in 1..=4 {
        let operation = format!("a={}", "x".repeat(40_000));
        cluster.say(client(of), 1, Message::Submit(crate::words::write_after(of, 1, &operation, after)));
    }
    cluster.run(12_000);
    let clients: BTreeSet<ClientId> = asked(&cluster)
        .into_iter()
        .filter_map(|entry| match entry {
            Entry::Write(write) => Some(write.ask().client),
            _ => None,
        })
        .collect();
    assert!((1..=4).all(|of| clients.contains(&ClientId::new(of))), "{clients:?}");
}

/// How often this replica was told that the pool of PBFT has no room for its requests.
fn busy(cluster: &Cluster, id: usize) -> usize {
    let keyring = keyring(id, N);
    let own = Peer::Client(keyring.address(&keyring.proxy().expect("a replica's")));
    cluster.sent.iter().filter(|it| it.to == own && it.label == "Busy").count()
}

fn small_pool() -> Config {
    let module = pbft::Config { pending_bytes: 400_000, client_bytes: 400_000, ..config().module };
    Config { module, ..config() }
}

#[test]
fn what_clients_ask_for_is_handed_over_a_lot_at_a_time() {
    // Else there were no room for the replica's own requests.
    let mut cluster = Cluster::with(N, small_pool());
    cluster.talk();
    for of in 100..110 {
        let operation = format!("a+b={}", "x".repeat(40_000));
        cluster.say(client(of), 0, Message::Ordered(Box::new(ordered(of, 1, &operation))));
    }
    assert_eq!(busy(&cluster, 0), 0);
    cluster.deliver();
    cluster.run_until("all are done", |it| it.tape(0).first().is_some_and(|line| line.split(' ').count() == 11));
    assert_eq!(busy(&cluster, 0), 0);
}

#[test]
fn a_client_with_one_request_after_the_other_has_one_of_them_handed_over() {
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.from != it.to);
    for number in 1..=20 {
        cluster.say(client(5), 0, Message::Ordered(Box::new(ordered(5, number, "a+b=x"))));
    }
    let proposed = |cluster: &Cluster| cluster.sent.iter().filter(|it| it.label == "PrePrepare").count();
    assert_eq!(proposed(&cluster), N - 1, "the first one");
    cluster.heal();
    cluster.run_until("the last is done", |it| it.tape(0).first().is_some_and(|line| line.split(' ').count() == 3));
    cluster.run(3000);
    assert_eq!(cluster.tape(0)[0], "a: x x", "the first and the last");
}
