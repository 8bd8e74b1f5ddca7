//! Contention (A.6), rule by rule: what the other chapters of these tests do not lead to by themselves.

use crate::harness::{Cluster, Flying, keyring, replica};
use crate::in_order::{noted, order_as};
use crate::words::{N, grant, proof, version, write, write_after};
use quorate_core::crypto::{Certificate, Signature, Signed};
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_protocols::hq::{Entry, Grant, Message, Proof, Start, Version, Write, object_of};

const RESOLVED: &str = "contention is resolved";

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// What these replicas have granted of one place.
fn conflict(of: &[(usize, &Write)], at: Version) -> Vec<Signed<Grant>> {
    of.iter().map(|(id, write)| grant(*id, write, at)).collect()
}

/// The same signers, the same statement, and signatures that are none.
fn forged(grants: &[Signed<Grant>]) -> Vec<Signed<Grant>> {
    grants.iter().map(|it| Signed::claimed(it.by(), *it.statement(), Signature::new([7; 64]))).collect()
}

/// Clients 9 and 8 want the same place of `a`.
fn nine_and_eight(at: Version) -> (Write, Write, Vec<Signed<Grant>>) {
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = conflict(&[(0, &nine), (1, &eight), (2, &nine)], at);
    (nine, eight, conflict)
}

/// These replicas hear of it, each with a request of a client that no other replica knows of: none of these is in L.
fn resolve_to_nothing(cluster: &mut Cluster, at: Version, to: &[(usize, u128)]) {
    let (_, _, conflict) = nine_and_eight(at);
    for (id, of) in to {
        let own = write_after(*of, 1, &format!("a={of}"), 1);
        cluster.say(client(*of), *id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
}

/// How often a replica has sent this to this client.
fn told(cluster: &Cluster, from: usize, to: u128, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == replica(from) && it.to == client(to) && it.label == label).count()
}

fn start(by: usize, seen: u64, conflict: Vec<Signed<Grant>>, current: Option<Proof>) -> Signed<Start> {
    let (object, seen) = (object_of(b"a"), OpNumber::new(seen));
    keyring(by, N).sign(Start { object, seen, conflict, asks: Vec::new(), current, calm: 0, life: OpNumber::ZERO })
}

// Who hears a RESOLVE.

#[test]
fn a_conflict_with_forged_signatures_freezes_nothing() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let (_, eight, conflict) = nine_and_eight(version(0, 2));
    cluster.say(client(8), 3, Message::Resolve { conflict: forged(&conflict), write: eight });
    assert_eq!((cluster.blamed(3), cluster.count("Start")), (1, 0));
}

#[test]
fn a_conflict_of_another_object_than_the_request_freezes_nothing() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let (_, _, conflict) = nine_and_eight(version(0, 2));
    cluster.say(client(7), 3, Message::Resolve { conflict, write: write(7, 1, "b=x") });
    assert_eq!((cluster.blamed(3), cluster.count("Start")), (1, 0));
}

#[test]
fn grants_of_two_places_or_of_two_objects_are_no_conflict() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let other = write(8, 9, "b=eight");
    let places = vec![grant(0, &nine, version(0, 2)), grant(1, &eight, version(0, 3)), grant(2, &nine, version(0, 2))];
    let objects = conflict(&[(0, &nine), (1, &other), (2, &nine)], version(0, 2));
    for (count, lie) in (1..).zip([places, objects]) {
        cluster.say(client(8), 3, Message::Resolve { conflict: lie, write: eight.clone() });
        assert_eq!((cluster.blamed(3), cluster.count("Start")), (count, 0));
    }
}

#[test]
fn a_conflict_that_a_resolution_ended_without_a_write_is_over() {
    // Pitfall 4: (vs, ts) decides. The latest write is the one before, and the place is of an older viewstamp.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    resolve_to_nothing(&mut cluster, version(0, 2), &[(0, 7), (1, 6), (2, 5), (3, 4)]);
    cluster
        .run_until("resolved", |it| (0..N).all(|id| noted(it, id, RESOLVED) == 1 && it.status(id).role == "replica"));
    cluster.run(1000).talk();
    let (nine, eight, conflict) = nine_and_eight(version(0, 2));
    cluster.say(client(8), 1, Message::Resolve { conflict: forged(&conflict), write: eight });
    assert_eq!((cluster.blamed(1), cluster.count("Start"), told(&cluster, 1, 8, "Granted")), (0, 0, 1));
    // Nor does a certificate of that place say anything, and nobody looks at its signatures.
    let statement = *proof(&[0], &nine, version(0, 2)).statement();
    let old = [proof(&[0, 2, 3], &nine, version(0, 2)), Certificate::claimed(statement, Vec::new())];
    for proof in old {
        let write = Some(nine.clone());
        cluster.say(client(9), 2, Message::Write2 { proof, write, answer: true });
    }
    cluster.run(1000);
    assert_eq!(cluster.blamed(2), 0);
    assert!(cluster.agrees(&["a: 1"]), "{:?}", cluster.tape(2));
}

#[test]
fn a_certificate_that_lacks_something_is_void_after_a_resolution_and_nobody_waits_for_it() {
    // Replica 3 has a certificate of the second place, and not its operation, when a resolution ends without a write.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let (nine, _, _) = nine_and_eight(version(0, 2));
    let certified = proof(&[0, 2, 3], &nine, version(0, 2));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: None, answer: false });
    resolve_to_nothing(&mut cluster, version(0, 2), &[(0, 7), (1, 6), (2, 5)]);
    cluster.run_until("resolved", |it| (0..N).all(|id| noted(it, id, RESOLVED) == 1));
    cluster.run(5000).crash(0);
    cluster.apply(8, "a=2");
    assert!(cluster.agrees(&["a: 1 2"]), "{:?}", cluster.tape(3));
}

#[test]
fn who_executes_a_write_freezes_after_it_and_says_so() {
    let mut cluster = Cluster::new(N);
    cluster.hosts[3].fast_machine = false;
    let first = write(9, 1, "a=1");
    let certified = proof(&[0, 1, 2], &first, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(first), answer: false });
    resolve_to_nothing(&mut cluster, version(0, 2), &[(3, 7)]);
    assert_eq!(cluster.count("Start"), 0, "the machine is at work on the object");
    cluster.work(3);
    let Message::Start(start) = cluster.last(3, "Start") else { panic!("a START") };
    let current = start.statement().current.as_ref().map(|proof| proof.statement().version);
    assert_eq!((current, cluster.tape(3)), (Some(version(0, 1)), vec!["a: 1".to_owned()]));
}

#[test]
fn a_conflict_of_a_resolution_to_come_makes_a_replica_catch_up_and_not_freeze() {
    // Its START would be of no use to anybody.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").talk();
    resolve_to_nothing(&mut cluster, version(5, 2), &[(3, 7)]);
    assert_eq!((cluster.count("Start"), cluster.count("GetObject")), (0, N - 1));
    assert_eq!(cluster.blamed(3), 0);
}

#[test]
fn a_start_waits_for_the_disk() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").talk();
    cluster.hosts[1].fast_disk = false;
    resolve_to_nothing(&mut cluster, version(0, 2), &[(1, 7)]);
    assert_eq!(cluster.count("Start"), 0);
    cluster.sync(1);
    assert!(cluster.count("Start") > 0);
}

#[test]
fn a_resolution_that_all_have_heard_of_waits_for_no_timer() {
    // The primary's own START is one of the three, and each one's own grants are among the three that are needed.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").crash(3);
    let (_, eight, conflict) = nine_and_eight(version(0, 2));
    for id in 0..3 {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.deliver();
    assert!((0..3).all(|id| noted(&cluster, id, RESOLVED) == 1));
    assert!(cluster.agrees(&["a: 1 eight"]), "{:?}", cluster.tape(0));
}

#[test]
fn a_request_that_comes_while_its_object_is_frozen_is_answered_when_that_is_over() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    cluster.lose(|it| it.label == "PrePrepare");
    resolve_to_nothing(&mut cluster, version(0, 2), &[(0, 7), (1, 6), (2, 5), (3, 4)]);
    cluster.deliver();
    // One in a RESOLVE, one in a WRITE-1, and a certificate of the contended place.
    resolve_to_nothing(&mut cluster, version(0, 2), &[(3, 3)]);
    cluster.say(client(2), 3, Message::Write1(write_after(2, 1, "a=2", 1)));
    let (nine, _, _) = nine_and_eight(version(0, 2));
    cluster.talk();
    let certified = proof(&[0, 2, 3], &nine, version(0, 2));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: None, answer: true });
    assert_eq!(cluster.talk(), Vec::<String>::new(), "what it has said of itself must stay true");
    cluster.heal();
    cluster.run_until("resolved", |it| noted(it, 3, RESOLVED) == 1 && it.status(3).role == "replica");
    cluster.deliver();
    assert_eq!(told(&cluster, 3, 3, "Granted") + told(&cluster, 3, 3, "Refused"), 1);
    assert_eq!(told(&cluster, 3, 2, "Granted") + told(&cluster, 3, 2, "Refused"), 1);
}

#[test]
fn a_frozen_replica_that_hears_of_a_later_resolution_asks_for_the_object() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    cluster.lose(|it| it.from != it.to);
    resolve_to_nothing(&mut cluster, version(0, 2), &[(3, 7)]);
    cluster.talk();
    let later = write_after(6, 1, "a=later", 1);
    let certified = proof(&[0, 1, 2], &later, version(5, 3));
    cluster.say(client(6), 3, Message::Write2 { proof: certified, write: Some(later), answer: false });
    assert_eq!(cluster.count("GetObject"), N - 1);
    assert_eq!(cluster.tape(3), ["a: 1"]);
}

#[test]
fn who_was_frozen_and_missed_the_resolution_is_freed() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9).run(5000);
    cluster.isolate(3);
    resolve_to_nothing(&mut cluster, version(0, 2), &[(0, 7), (1, 6), (2, 5), (3, 4)]);
    cluster.run(5000);
    assert_eq!(cluster.status(3).role, "resolving contention");
    assert_eq!(cluster.status(0).role, "replica");
    cluster.heal().crash(0);
    cluster.run_until("free", |it| it.status(3).role == "replica");
    cluster.apply(8, "a=2");
}

// What a liar has PBFT order.

#[test]
fn starts_that_are_none_resolve_nothing() {
    let at = version(0, 2);
    let (_, _, contended) = nine_and_eight(at);
    let honest = |by: usize| start(by, 0, contended.clone(), None);
    let of_b = {
        let (nine, eight) = (write(9, 9, "b=nine"), write(8, 9, "b=eight"));
        let conflict = conflict(&[(0, &nine), (1, &eight), (2, &nine)], version(0, 1));
        let words = Start { object: object_of(b"b"), conflict, ..honest(2).statement().clone() };
        keyring(2, N).sign(words)
    };
    let later = |by: usize| start(by, 5, nine_and_eight(version(5, 2)).2, None);
    let unsigned = Signed::claimed(honest(2).by(), honest(2).statement().clone(), Signature::new([7; 64]));
    let lies = [
        vec![honest(1), honest(1), honest(1)],
        vec![honest(0), honest(1), of_b],
        vec![later(0), later(1), later(2)],
        vec![start(0, 0, Vec::new(), None), start(1, 0, Vec::new(), None), start(2, 0, Vec::new(), None)],
        vec![honest(0), honest(1), unsigned],
        vec![honest(0), honest(1)],
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let mut cluster = Cluster::new(N);
        cluster.apply(9, "a=1");
        order_as(&mut cluster, 0, &Entry::Starts(lie));
        cluster.run(500);
        assert!(cluster.count("Commit") > 0, "it was ordered");
        assert!((0..N).all(|id| noted(&cluster, id, RESOLVED) == 0), "{index}");
        cluster.say(client(5), 3, Message::Write1(write_after(5, 1, "a=5", 1)));
        let Message::Granted { grant, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
        assert_eq!(grant.statement().version, at, "{index}");
    }
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    order_as(&mut cluster, 0, &Entry::Starts(vec![honest(0), honest(1), honest(2)]));
    cluster.run(500);
    assert!((0..N).all(|id| noted(&cluster, id, RESOLVED) == 1), "a quorum's are a resolution");
}

// What a resolution leads to.

#[test]
fn a_resolution_goes_to_the_greatest_certificate_that_a_start_shows() {
    // A.6, R4, a: replica 0, whose START comes first, lacks the last write. Everybody else would take it back.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let to_zero = |it: &Flying| {
        it.to == replica(0) && ["Write1", "Write2", "WriteBack", "Sums", "Versions", "Object"].contains(&it.label)
    };
    cluster.lose(move |it| to_zero(it) || (it.label == "Start" && it.from == replica(3) && it.to != it.from));
    cluster.apply(9, "a=2").gone(9);
    assert_eq!(cluster.tape(0), ["a: 1"]);
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let grants = conflict(&[(1, &nine), (2, &eight), (3, &nine)], version(0, 3));
    for (id, of) in [(0, 7), (1, 6), (2, 5)] {
        let own = write_after(of, 1, &format!("a={of}"), 1);
        cluster.say(client(of), id, Message::Resolve { conflict: grants.clone(), write: own });
    }
    cluster.run_until("all are there", |it| {
        (0..N).all(|id| noted(it, id, RESOLVED) == 1 && it.tape(id) == ["a: 1 2"] && it.status(id).role == "replica")
    });
    cluster.apply(4, "a=3");
}

#[test]
fn what_pbft_decides_waits_for_the_machine() {
    // Replica 3 executes a certified write when it hears that a resolution takes it back.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    cluster.hosts[3].fast_machine = false;
    let (nine, eight, conflict) = nine_and_eight(version(0, 2));
    let certified = proof(&[0, 2, 3], &nine, version(0, 2));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(nine), answer: false });
    for id in 0..3 {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run_until("the others are done", |it| (0..3).all(|id| it.tape(id) == ["a: 1 eight"]));
    assert_eq!((noted(&cluster, 3, RESOLVED), cluster.tape(3)), (1, vec!["a: 1".to_owned()]));
    cluster.hosts[3].fast_machine = true;
    cluster.work(3);
    assert!(noted(&cluster, 3, "a write was taken back") == 1);
    cluster.run_until("one state", |it| it.tape(3) == ["a: 1 eight"]);
}

#[test]
fn who_would_have_to_take_back_two_writes_stops_and_says_so() {
    // More replicas lie than the group tolerates: there are certificates that no quorum of STARTs knows of.
    let mut cluster = Cluster::new(N);
    for (number, ts) in [(1, 1), (2, 2)] {
        let write = write(9, number, &format!("a={ts}"));
        let certified = proof(&[0, 1, 2], &write, version(0, ts));
        cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(write), answer: false });
    }
    cluster.lose(|it| it.from == replica(3) && it.to != it.from);
    let (_, _, conflict) = nine_and_eight(version(0, 1));
    for (id, of) in [(0, 7), (1, 6), (2, 5)] {
        let own = write(of, 1, &format!("a={of}"));
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it stops", |it| it.hosts[3].halted.is_some());
    assert_eq!(cluster.tape(3), ["a: 1 2"], "and takes back none");
    assert!((0..3).all(|id| cluster.hosts[id].halted.is_none()));
}

#[test]
fn a_request_that_the_greatest_certificate_is_of_is_not_in_the_list() {
    // A.6, R4, c: replica 0 shows that it is done, and 1 and 2 have been asked for it.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let (nine, eight, conflict) = nine_and_eight(version(0, 2));
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write1(nine.clone()));
    }
    let certified = proof(&[0, 2, 3], &nine, version(0, 2));
    cluster.lose(|it| it.label == "Start" && it.from == replica(3) && it.to != it.from);
    cluster.say(client(9), 0, Message::Write2 { proof: certified, write: None, answer: false });
    assert_eq!(cluster.tape(0), ["a: 1 nine"]);
    for id in 1..3 {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run_until("all have it", |it| it.agrees(&["a: 1 nine eight"]));
    cluster.run(2000);
    assert!(cluster.agrees(&["a: 1 nine eight"]), "{:?}", cluster.tape(0));
}

/// Six clients, of each of which everybody knows, contend; replica 3 has a slow machine.
fn six_contend() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    cluster.hosts[3].fast_machine = false;
    let (_, _, conflict) = nine_and_eight(version(0, 2));
    for of in 11..17 {
        let own = write_after(of, 1, &format!("a={of}"), 1);
        for id in 0..N {
            cluster.say(client(of), id, Message::Write1(own.clone()));
        }
    }
    for id in 0..N {
        let own = write_after(11, 1, "a=11", 1);
        cluster.say(client(11), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("three are done", |it| (0..3).all(|id| it.tape(id)[0].split(' ').count() == 8));
    cluster
}

#[test]
fn a_restart_in_the_middle_of_a_list_does_not_begin_it_anew() {
    // A.6, R4, e: L was computed where the resolution begins, and one write can be taken back, not three.
    let mut cluster = six_contend();
    cluster.lose(|it| it.to != it.from && (it.to == replica(3) || it.from == replica(3)));
    for _ in 0..3 {
        assert!(cluster.work_once(3));
    }
    assert_eq!(cluster.tape(3)[0].split(' ').count(), 5);
    cluster.restart(3);
    cluster.hosts[3].fast_machine = true;
    cluster.work(3);
    cluster.heal();
    cluster.run_until("one state", |it| it.tape(3) == it.tape(0));
    assert_eq!(cluster.hosts[3].halted, None);
}

#[test]
fn no_client_chooses_its_place_in_a_list() {
    let cluster = six_contend();
    let words: Vec<String> = cluster.tape(0)[0].split(' ').skip(2).map(str::to_owned).collect();
    assert!(words.len() == 6 && !words.is_sorted(), "{words:?}");
    let clients = (11..17).map(|of| told(&cluster, 0, of, "Done"));
    assert!(clients.into_iter().all(|count| count == 1), "and each is told");
}

#[test]
fn a_grant_after_a_resolution_outlives_a_restart() {
    // The place is of the viewstamp of the resolution: the disk knows that this replica has been through it.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    resolve_to_nothing(&mut cluster, version(0, 2), &[(0, 7), (1, 6), (2, 5), (3, 4)]);
    cluster
        .run_until("resolved", |it| (0..N).all(|id| noted(it, id, RESOLVED) == 1 && it.status(id).role == "replica"));
    cluster.say(client(3), 0, Message::Write1(write_after(3, 1, "a=3", 1)));
    let Message::Granted { grant: granted, .. } = cluster.last(0, "Granted") else { panic!("a grant") };
    assert!(granted.statement().version > version(0, 2));
    cluster.restart(0);
    cluster.deliver();
    cluster.say(client(2), 0, Message::Write1(write_after(2, 1, "a=2", 1)));
    let Message::Refused { grant: again, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
    assert_eq!(again.statement(), granted.statement());
}

#[test]
fn a_write_that_was_taken_back_has_given_its_place_to_nobody() {
    // Replica 3 has executed it, and granted the place after it.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let (nine, eight, _) = nine_and_eight(version(0, 2));
    let certified = proof(&[0, 2, 3], &nine, version(0, 2));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(nine.clone()), answer: false });
    cluster.say(client(2), 3, Message::Write1(write_after(2, 1, "a=2", 2)));
    let Message::Granted { grant: granted, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert_eq!(granted.statement().version, version(0, 3));
    cluster.lose(|it| it.label == "Start" && it.from == replica(3) && it.to != it.from);
    let conflict = conflict(&[(0, &nine), (1, &eight), (2, &nine)], version(0, 2));
    for id in 0..3 {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run_until("it is taken back", |it| it.agrees(&["a: 1 eight"]));
    cluster.say(client(2), 3, Message::Write1(write_after(2, 2, "a=2", 2)));
    let Message::Granted { grant: granted, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert!(granted.statement().version.ts == version(0, 3).ts && granted.statement().version > version(1, 0));
}

// Grants of a resolution, and who lacks them.

#[test]
fn grants_are_their_signers_and_of_one_resolution() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let (one, other) = (write_after(8, 1, "a=x", 1), write(8, 1, "b=x"));
    let at = version(5, 2);
    let lies = [
        vec![grant(2, &one, at)],
        vec![grant(1, &one, at), grant(2, &one, version(5, 3))],
        vec![grant(1, &one, at), grant(1, &one, version(6, 3))],
        vec![grant(1, &one, at), grant(1, &other, version(5, 3))],
    ];
    for (count, grants) in (1..).zip(lies) {
        cluster.say(replica(1), 0, Message::Grants { grants, again: false });
        assert_eq!(cluster.blamed(0), count);
    }
    cluster.say(replica(1), 0, Message::Grants { grants: vec![grant(1, &one, at)], again: false });
    assert_eq!(cluster.blamed(0), 4);
}

#[test]
fn grants_that_come_before_pbfts_word_are_kept() {
    // Replica 3 hears of the resolution last, and all of the others' grants once, before that.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let late = |it: &Flying| {
        let others = ["Write2", "Object", "Wrote", "Sums", "Versions"].contains(&it.label);
        it.to == replica(3) && it.from != it.to && (others || matches!(it.message(), Some(Message::Module(_))))
    };
    cluster.lose(late);
    let (_, eight, conflict) = nine_and_eight(version(0, 2));
    for id in 0..N {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run(200);
    assert!((0..3).all(|id| cluster.tape(id) == ["a: 1 eight"]));
    assert_eq!(cluster.tape(3), ["a: 1"]);
    cluster.lose(|it| {
        let others = ["Grants", "Write2", "Object", "Wrote", "Sums", "Versions"];
        it.to == replica(3) && it.from != it.to && others.contains(&it.label)
    });
    order_as(&mut cluster, 0, &Entry::Starts(Vec::new())); // shows PBFT here what it lacks
    cluster.run_until("it has them", |it| it.tape(3) == ["a: 1 eight"]);
}

#[test]
fn who_is_in_the_midst_of_what_is_over_is_shown_how_it_went() {
    // Replica 3 has lost the others' grants, and has nothing but its own questions to have them back by.
    for by_grants in [true, false] {
        let mut cluster = Cluster::new(N);
        cluster.apply(9, "a=1").gone(9);
        cluster.lose(|it| it.to == replica(3) && it.from != it.to && ["Grants", "Write2"].contains(&it.label));
        let (_, eight, conflict) = nine_and_eight(version(0, 2));
        for id in 0..N {
            cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
        }
        cluster.run_until("the others are done", |it| (0..3).all(|id| it.tape(id) == ["a: 1 eight"]));
        assert_eq!(cluster.tape(3), ["a: 1"]);
        cluster.heal();
        let no_more = if by_grants { "Write2" } else { "Grants" };
        let others = ["Object", "Sums", "Versions", "GetVersions"];
        cluster.lose(move |it| {
            it.to == replica(3) && (it.label == no_more || others.contains(&it.label)) && it.from != it.to
        });
        cluster.run_until("it has them", |it| it.tape(3) == ["a: 1 eight"]);
    }
}
