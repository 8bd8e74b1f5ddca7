//! Operations on several objects (A.8), rule by rule: what `ordered` does not lead to by itself.

use crate::harness::{Cluster, Flying, replica};
use crate::in_order::order_as;
use crate::words::{N, ordered, ordered_after};
use bytes::Bytes;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::protocol::Ticket;
use quorate_protocols::hq::{Entry, Message, ORDERED_CLIENTS_MAX, OUTCOMES_MAX, ReadRequest, object_of};
use quorate_protocols::pbft::Told;

/// Reads that wait for an operation that is here in part, at most.
const READS_MAX: usize = 256;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// How often a replica has sent this to this client.
fn told(cluster: &Cluster, from: usize, to: u128, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == replica(from) && it.to == client(to) && it.label == label).count()
}

fn read(nonce: u64) -> Message {
    Message::Read(ReadRequest { nonce, name: None, query: Bytes::from_static(b"*"), full: None })
}

#[test]
fn what_a_liar_has_ordered_under_a_clients_name_is_not_done() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let mut forged = ordered(5, 1, "a+b=five");
    forged.operation = "a+b=other".to_owned().into();
    order_as(&mut cluster, 0, &Entry::Ordered(Box::new(forged)));
    cluster.run(1000);
    assert!(cluster.count("Commit") > 0, "it was ordered");
    assert!(cluster.agrees(&["a: 1"]), "{:?}", cluster.tape(0));
    order_as(&mut cluster, 0, &Entry::Ordered(Box::new(ordered(5, 1, "a+b=five"))));
    cluster.run_until("what it has signed is done", |it| it.agrees(&["a: 1 five", "b: five"]));
}

#[test]
fn a_replica_that_has_not_done_it_does_not_say_so() {
    // PBFT has told replica 3 of it, and it lacks the others' grants. Else a quorum that has done it might be none.
    let mut cluster = Cluster::new(N);
    let late = ["Grants", "Write2", "Object"];
    cluster.lose(move |it| it.to == replica(3) && it.from != it.to && late.contains(&it.label));
    let both = ordered(9, 1, "a+b=x");
    for id in 0..N {
        cluster.say(client(9), id, Message::Ordered(Box::new(both.clone())));
    }
    cluster.run_until("three have it", |it| (0..3).all(|id| told(it, id, 9, "OrderedDone") == 1));
    cluster.say(client(9), 3, Message::Ordered(Box::new(both.clone())));
    assert_eq!(told(&cluster, 3, 9, "OrderedDone"), 0);
    cluster.heal();
    cluster.run_until("it has it", |it| told(it, 3, 9, "OrderedDone") == 1);
    // Who asks again is told again; who has had a later one done is not.
    cluster.say(client(9), 3, Message::Ordered(Box::new(both.clone())));
    assert_eq!(told(&cluster, 3, 9, "OrderedDone"), 2);
    cluster.say(client(9), 0, Message::Ordered(Box::new(ordered(9, 2, "a+b=y"))));
    cluster.run_until("the next one", |it| it.tape(3) == ["a: x y", "b: x y"]);
    let before = told(&cluster, 3, 9, "OrderedDone");
    cluster.say(client(9), 3, Message::Ordered(Box::new(both)));
    assert_eq!(told(&cluster, 3, 9, "OrderedDone"), before);
}

#[test]
fn so_many_operations_wait_for_a_resolution_and_more_of_them_come_to_their_turn() {
    // With seventy of them a list would be longer than its grants can be told.
    let mut cluster = Cluster::new(N);
    cluster.apply(99, "a=1").apply(99, "b=1");
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    let tickets: Vec<(u128, Ticket)> = (100..170)
        .map(|id| {
            cluster.client(id);
            (id, cluster.submit(id, "a+b=x"))
        })
        .collect();
    cluster.run(300);
    cluster.heal();
    cluster.run_until("answers", |it| tickets.iter().all(|(id, ticket)| it.answer(*id, *ticket).is_some()));
    assert!(tickets.iter().all(|(id, ticket)| cluster.answer(*id, *ticket).is_some_and(|it| !it.starts_with("error"))));
    assert_eq!(cluster.tape(0)[0].matches('x').count(), 70);
}

#[test]
fn an_old_copy_is_not_new_though_its_client_was_forgotten_with_the_entry_that_it_names() {
    // The client knew of that entry when it asked, and its operation was ordered there.
    let mut cluster = Cluster::new(N);
    let first = ordered_after(1, 1, "a+b=first", 1);
    for id in 0..N {
        cluster.say(client(1), id, Message::Ordered(Box::new(first.clone())));
    }
    cluster.run_until("it is done", |it| it.agrees(&["a: first", "b: first"]));
    for other in 2..=(ORDERED_CLIENTS_MAX as u128 + 1) {
        cluster.apply(other, "c+d=more").gone(other);
    }
    cluster.talk();
    for id in 0..N {
        cluster.say(client(1), id, Message::Ordered(Box::new(first.clone())));
    }
    cluster.run(1000);
    assert_eq!((cluster.count("OrderedTooOld"), cluster.count("PrePrepare")), (N, 0));
    assert_eq!(cluster.tape(0)[0], "a: first");
}

#[test]
fn an_object_carries_so_many_outcomes_and_is_taken_with_them() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    for count in 0..OUTCOMES_MAX + 4 {
        cluster.apply(9, &format!("a+b={count}"));
    }
    cluster.heal();
    cluster.run_until("it has both", |it| it.tape(3) == it.tape(0));
    cluster.say(replica(3), 0, Message::GetObject { object: object_of(b"a") });
    let Message::Object(given) = cluster.last(0, "Object") else { panic!("an object") };
    assert_eq!(given.now.outcomes.len(), OUTCOMES_MAX);
    assert!((0..N).all(|id| cluster.blamed(id) == 0));
}

/// Replica 3 has been told by PBFT of an operation on `a` and `b`, and can have it from others only.
fn one_lacks_it() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "b=1").run(5000);
    cluster.lose(|it| kept_back(it) || is_object(it, b"a") || is_object(it, b"b"));
    cluster.apply(8, "a+b=x").gone(8);
    cluster.run(500);
    assert_eq!(cluster.tape(3), ["a: 1", "b: 1"]);
    cluster
}

/// How replica 3 would come to execute it, or notice by itself that it lacks something.
fn kept_back(it: &Flying) -> bool {
    it.to == replica(3) && ["Grants", "Write2", "Sums", "Versions", "GetVersions"].contains(&it.label)
}

fn is_object(it: &Flying, name: &[u8]) -> bool {
    matches!(it.message(), Some(Message::Object(transferred)) if transferred.name == name)
}

/// What replica 3 has answered to reads.
fn answers(cluster: &Cluster) -> Vec<Told<Bytes>> {
    let of = cluster.sent.iter().filter(|it| it.from == replica(3)).filter_map(Flying::message);
    let answer = |it| if let Message::ReadAnswer { answer, .. } = it { Some(answer) } else { None };
    of.filter_map(answer).collect()
}

#[test]
fn what_is_here_in_part_has_the_rest_fetched_and_so_many_reads_wait_for_it() {
    let mut cluster = one_lacks_it();
    cluster.lose(|it| kept_back(it) || is_object(it, b"b"));
    lack(&mut cluster);
    cluster.run_until("it has a part", |it| it.tape(3) == ["a: 1 x", "b: 1"]);
    for nonce in 0..=READS_MAX as u64 {
        cluster.say(client(7), 3, read(nonce));
    }
    assert_eq!(answers(&cluster), []);
    cluster.lose(kept_back);
    cluster.run_until("it has all of it", |it| it.tape(3) == ["a: 1 x", "b: 1 x"]);
    let whole = Told::Full(Bytes::from_static(b"a: 1 x; b: 1 x"));
    assert_eq!(answers(&cluster), vec![whole; READS_MAX]);
}

#[test]
fn a_range_is_not_read_while_a_part_of_an_operation_is_on_its_way_into_the_machine() {
    let mut cluster = one_lacks_it();
    cluster.hosts[3].fast_machine = false;
    cluster.lose(|it| kept_back(it) || is_object(it, b"b"));
    lack(&mut cluster);
    cluster.run(200);
    assert_eq!(cluster.tape(3), ["a: 1", "b: 1"], "the machine has not come to it");
    cluster.say(client(7), 3, read(1));
    cluster.work(3);
    assert_eq!((cluster.tape(3), answers(&cluster)), (vec!["a: 1 x".to_owned(), "b: 1".to_owned()], vec![]));
    cluster.hosts[3].fast_machine = true;
    cluster.lose(kept_back);
    cluster.run_until("it has all of it", |it| !answers(it).is_empty());
    assert_eq!(answers(&cluster), [Told::Full(Bytes::from_static(b"a: 1 x; b: 1 x"))]);
}

/// Replica 3 hears that there is more of `a`.
fn lack(cluster: &mut Cluster) {
    let id = object_of(b"a");
    let versions = vec![(id, crate::words::version(99, 99))];
    cluster.say(replica(1), 3, Message::Versions { bucket: id.as_bytes()[0], versions });
}
