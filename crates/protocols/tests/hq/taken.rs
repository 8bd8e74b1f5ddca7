//! What a replica takes from others (A.8), rule by rule. Replica 3 is behind with `a`; 1 and 2 say what the test has them say.

use crate::harness::{Cluster, replica};
use crate::words::{N, grant, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::crypto::Certificate;
use quorate_core::ids::{ClientId, OpNumber, Peer, Position, RequestNumber};
use quorate_core::outbox::Note;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{
    Answered, Item, List, Message, Rank, Start, State, Transferred, Version, Write, object_of,
};
use std::collections::BTreeMap;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// `a` with these words, the last of which is this write, at this place.
fn object(words: &[&str], last: &Write, at: Version, seen: u64) -> Transferred {
    let words: Vec<String> = words.iter().map(|it| (*it).to_owned()).collect();
    let image = Some((words, at.ts.get()).encode().into());
    let now = State { at, proof: Some(proof(&[0, 1, 2], last, at)), last: Some(last.clone()), ..State::default() };
    let name = Bytes::from_static(b"a");
    Transferred { name, seen: OpNumber::new(seen), now, image, before: None, list: None }
}

fn says(cluster: &mut Cluster, id: usize, object: &Transferred) {
    cluster.say(replica(id), 3, Message::Object(Box::new(object.clone())));
}

/// Replica 3 has the first write of `a`, hears nothing by itself, and asks for the object.
fn behind() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9).run(5000);
    cluster.lose(|it| it.from != it.to);
    lacks(&mut cluster);
    cluster
}

/// Somebody says that there is more of `a`.
fn lacks(cluster: &mut Cluster) {
    let id = object_of(b"a");
    let versions = vec![(id, version(9, 9))];
    cluster.say(replica(1), 3, Message::Versions { bucket: id.as_bytes()[0], versions });
    assert_eq!(cluster.status(3).missing, 1);
}

fn fetched(cluster: &Cluster) -> usize {
    cluster.hosts[3].notes.iter().filter(|note| matches!(note, Note::Fetched(_))).count()
}

fn second() -> Write {
    write_after(8, 1, "a=2", 1)
}

#[test]
fn what_two_say_alike_is_taken_and_what_they_say_differently_is_not() {
    let mut cluster = behind();
    let good = object(&["1", "2"], &second(), version(0, 2), 0);
    let lie = Transferred { image: object(&["1", "lie"], &second(), version(0, 2), 0).image, ..good.clone() };
    says(&mut cluster, 2, &lie);
    says(&mut cluster, 1, &good);
    assert_eq!((cluster.tape(3), cluster.status(3).missing), (vec!["a: 1".to_owned()], 1));
    says(&mut cluster, 0, &good);
    assert_eq!((cluster.tape(3), cluster.status(3).missing), (vec!["a: 1 2".to_owned()], 0));
}

#[test]
fn one_replica_that_is_no_further_does_not_end_the_search() {
    let mut cluster = behind();
    let here = object(&["1"], &write(9, 1, "a=1"), version(0, 1), 0);
    says(&mut cluster, 2, &here);
    assert_eq!(cluster.status(3).missing, 1);
    says(&mut cluster, 1, &here);
    assert_eq!((cluster.status(3).missing, fetched(&cluster)), (0, 0), "two are: what is here is the latest");
}

#[test]
fn nothing_that_is_here_is_given_up_for_what_others_had_before() {
    // They have been through a resolution that took the latest write back: this replica will hear of it from PBFT.
    let mut cluster = behind();
    let early = write(9, 1, "a=1");
    let certified = proof(&[0, 1, 2], &second(), version(0, 2));
    cluster.say(client(8), 3, Message::Write2 { proof: certified, write: Some(second()), answer: false });
    assert_eq!(cluster.tape(3), ["a: 1 2"]);
    lacks(&mut cluster);
    let before = object(&["1"], &early, version(0, 1), 5);
    for id in [1, 2] {
        says(&mut cluster, id, &before);
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1 2".to_owned()], 0));
}

#[test]
fn of_what_several_say_alike_the_furthest_is_taken() {
    let mut cluster = Cluster::new(7);
    cluster.lose(|it| it.from != it.to);
    let id = object_of(b"a");
    let versions = vec![(id, version(9, 9))];
    cluster.say(replica(1), 3, Message::Versions { bucket: id.as_bytes()[0], versions });
    let with = |words: &[&str], number: u64, ts: u64| {
        let last = write(8, number, "a=x");
        let mut object = object(words, &last, version(0, ts), 0);
        object.now.proof = Some(proof_of_seven(&last, version(0, ts)));
        object
    };
    let (near, far) = (with(&["1", "2"], 2, 2), with(&["1", "2", "3"], 3, 3));
    cluster.hosts[3].fast_machine = false;
    // Three of seven vouch for each; the nearer is complete last.
    for (id, object) in [(0, &far), (1, &far), (4, &near), (5, &near)] {
        says(&mut cluster, id, object);
    }
    says(&mut cluster, 2, &far);
    cluster.work(3);
    assert_eq!(cluster.tape(3), ["a: 1 2 3"]);
}

/// As [`proof`], in a group of seven.
fn proof_of_seven(write: &Write, at: Version) -> quorate_protocols::hq::Proof {
    use crate::harness::keyring;
    use quorate_core::crypto::Certified;
    use quorate_protocols::hq::Grant;
    let statement = Grant::of(write.ask(), at);
    let grants: Vec<_> = (0..5).map(|id| keyring(id, 7).sign(statement).verified().expect("it is our own")).collect();
    Certified::assemble(&grants, &statement, 5).expect("all say the same").into_certificate()
}

#[test]
fn who_has_frozen_takes_only_what_a_resolution_has_led_to() {
    // A.6: its START says what it has executed, and a quorum may count on that.
    let mut cluster = behind();
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 3))).to_vec();
    cluster.say(client(8), 3, Message::Resolve { conflict, write: eight });
    assert_eq!(cluster.count("Start"), 1, "to PBFT's primary");
    let further = object(&["1", "2"], &second(), version(0, 2), 0);
    for id in [1, 2] {
        says(&mut cluster, id, &further);
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1".to_owned()], 0));
    let resolved = Transferred { seen: OpNumber::new(1), ..further };
    for id in [1, 2] {
        says(&mut cluster, id, &resolved);
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1 2".to_owned()], 1));
}

/// `a` in the middle of what a resolution does to it: the first of two is done.
fn in_the_middle() -> Transferred {
    let (two, three) = (second(), write_after(7, 1, "a=3", 1));
    let at = version(5, 2);
    let items = vec![Item { ask: *two.ask(), ordered: None }, Item { ask: *three.ask(), ordered: None }];
    let list = List { vs: OpNumber::new(5), first: Position::new(2), items, in_order: false };
    Transferred { list: Some(list), ..object(&["1", "2"], &two, at, 0) }
}

#[test]
fn the_middle_of_a_list_is_taken_by_nobody_who_is_not_to_carry_it_out() {
    // PBFT has told this replica of no resolution: it would have to come back to where that begins, and could not.
    let mut cluster = behind();
    for id in [1, 2] {
        says(&mut cluster, id, &in_the_middle());
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1".to_owned()], 0));
    // Nor when it has frozen the object.
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 2))).to_vec();
    cluster.say(client(8), 3, Message::Resolve { conflict, write: eight });
    for id in [1, 2] {
        says(&mut cluster, id, &in_the_middle());
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1".to_owned()], 0));
}

#[test]
fn who_carries_out_a_resolution_takes_nothing_from_before_it() {
    // All four contend; nobody's grants of it arrive at replica 3, so it stays where the resolution begins.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9).run(5000);
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 2))).to_vec();
    cluster.lose(|it| it.to == replica(3) && it.from != it.to && ["Grants", "Write2", "Object"].contains(&it.label));
    for id in 0..N {
        cluster.say(client(8), id, Message::Resolve { conflict: conflict.clone(), write: eight.clone() });
    }
    cluster.run_until("the others are done", |it| (0..3).all(|id| it.tape(id) == ["a: 1 eight"]));
    cluster.run(1000);
    assert_eq!(cluster.tape(3), ["a: 1"]);
    // Two say that it was written without a resolution; and then that it is in the middle of another one.
    let mut early = object(&["1", "2"], &second(), version(0, 2), 0);
    cluster.lose(|it| it.from != it.to);
    for said in [early.clone(), in_the_middle()] {
        let ask = Message::Write2 {
            proof: proof(&[0, 1, 2], &write_after(6, 1, "a=6", 1), version(8, 4)),
            write: None,
            answer: false,
        };
        cluster.say(client(6), 3, ask);
        assert_eq!(cluster.status(3).missing, 1);
        for id in [1, 2] {
            says(&mut cluster, id, &said);
        }
        assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1".to_owned()], 0));
    }
    early.seen = OpNumber::new(8);
    for id in [1, 2] {
        says(&mut cluster, id, &early);
    }
    assert_eq!(fetched(&cluster), 1, "what comes after it is taken");
}

#[test]
fn what_an_operation_on_several_objects_led_to_waits_for_pbft() {
    // ADR 028: this replica must know which other objects are here in part. It has PBFT show what it lacks.
    let mut cluster = behind();
    let rank = Rank { entry: OpNumber::new(9), index: 0 };
    let mut joined = object(&["1", "2"], &second(), version(9, 2), 9);
    (joined.now.last, joined.now.joined) = (None, rank);
    cluster.talk();
    for id in [1, 2] {
        says(&mut cluster, id, &joined);
    }
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1".to_owned()], 0));
    cluster.run(1000);
    assert!(cluster.sent.iter().any(|it| it.from == replica(3) && it.label == "Request"), "{:?}", cluster.talk());
}

#[test]
fn a_certificate_that_nobody_has_looked_at_is_not_shown_to_others() {
    // What two say alike is what the object is; the proofs of earlier writes in it are one replica's word.
    let mut cluster = behind();
    let mut honest = object(&["1", "2"], &second(), version(0, 2), 0);
    let first = write(9, 1, "a=1");
    let statement = *proof(&[0], &first, version(0, 1)).statement();
    let done = |proof| {
        let results = vec![Bytes::from_static(b"1")];
        let one = Answered { number: RequestNumber::new(1), results, version: version(0, 1), proof };
        BTreeMap::from([(ClientId::new(9), one)])
    };
    honest.now.done = done(None);
    let mut liar = honest.clone();
    liar.now.done = done(Some(Certificate::claimed(statement, Vec::new())));
    says(&mut cluster, 1, &liar);
    says(&mut cluster, 2, &liar);
    assert_eq!(cluster.tape(3), ["a: 1 2"]);
    cluster.say(client(9), 3, Message::Write1(first));
    let Message::Done { proof, .. } = cluster.last(3, "Done") else { panic!("an answer") };
    assert_eq!(proof, None);
}

#[test]
fn what_was_asked_for_before_an_object_was_had_from_others_is_not_considered_after_it() {
    let mut cluster = behind();
    cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=7", 1)));
    cluster.say(client(6), 3, Message::Write1(write_after(6, 1, "a=6", 1)));
    let good = object(&["1", "2"], &second(), version(0, 2), 0);
    for id in [1, 2] {
        says(&mut cluster, id, &good);
    }
    assert_eq!(cluster.tape(3), ["a: 1 2"]);
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 3))).to_vec();
    cluster.say(client(8), 3, Message::Resolve { conflict, write: eight });
    let Message::Start(start) = cluster.last(3, "Start") else { panic!("a START") };
    let clients: Vec<_> = start.statement().asks.iter().map(|it| it.statement().client.get()).collect();
    assert_eq!(clients, [8]);
}

/// Replica 3 lacks both writes of `a` when a resolution begins that goes to the second, and hears nothing by itself.
fn on_the_way() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").gone(9).heal();
    let late = ["Write2", "Object", "Wrote", "Sums", "Versions", "GetVersions", "Grants"];
    cluster.lose(move |it| it.to == replica(3) && it.from != it.to && late.contains(&it.label));
    let (nine, eight) = (write_after(7, 9, "a=seven", 1), write_after(8, 9, "a=eight", 1));
    let conflict = [(0, &nine), (1, &eight), (2, &nine)].map(|(id, it)| grant(id, it, version(0, 3))).to_vec();
    for (id, of) in [(0, 17), (1, 16), (2, 15)] {
        let own = write_after(of, 1, &format!("a={of}"), 1);
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it is on its way", |it| it.status(3).missing == 1 && it.status(0).role == "replica");
    cluster.lose(|it| it.from != it.to);
    assert!(cluster.tape(3).is_empty());
    cluster
}

#[test]
fn on_the_way_to_the_greatest_certificate_that_object_is_taken_and_no_other() {
    let mut cluster = on_the_way();
    let two = write(9, 2, "a=2");
    let other = object(&["1", "2", "3"], &write_after(6, 1, "a=3", 1), version(0, 3), 0);
    for id in [1, 2] {
        says(&mut cluster, id, &other);
    }
    assert_eq!((cluster.tape(3).len(), fetched(&cluster)), (0, 0), "it is not where the resolution begins");
    let good = object(&["1", "2"], &two, version(0, 2), 0);
    let lie = Transferred { image: other.image.clone(), ..good.clone() };
    for (id, said) in [(1, &good), (2, &lie)] {
        says(&mut cluster, id, said);
    }
    assert_eq!((cluster.tape(3).len(), fetched(&cluster)), (0, 0), "they are not alike");
    // A liar has it as the others do, and says that it has been through more.
    let liar = Transferred { seen: OpNumber::new(99), before: Some((other.now, other.image)), ..good };
    says(&mut cluster, 0, &liar);
    assert_eq!((cluster.tape(3), fetched(&cluster)), (vec!["a: 1 2".to_owned()], 1));
    cluster.heal();
    cluster.run_until("free", |it| it.status(3).role == "replica");
    cluster.say(client(5), 3, Message::Write1(write_after(5, 1, "a=5", 1)));
    let Message::Granted { grant, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert!(grant.statement().version.vs < OpNumber::new(99), "{:?}", grant.statement());
}

// Who gives.

#[test]
fn an_object_is_given_when_it_is_on_the_disk_and_not_while_the_machine_is_at_work_on_it() {
    let mut cluster = Cluster::new(N);
    let first = write(9, 1, "a=1");
    let id = object_of(b"a");
    cluster.hosts[1].fast_machine = false;
    let certified = proof(&[0, 1, 2], &first, version(0, 1));
    cluster.say(client(9), 1, Message::Write2 { proof: certified, write: Some(first), answer: false });
    cluster.say(replica(3), 1, Message::GetObject { object: id });
    cluster.hosts[1].fast_disk = false;
    cluster.work(1);
    assert_eq!(cluster.count("Object"), 0, "its image would be of another state");
    cluster.say(replica(3), 1, Message::GetObject { object: id });
    cluster.work(1);
    assert_eq!(
        (cluster.tape(1), cluster.count("Object")),
        (vec!["a: 1".to_owned()], 0),
        "it vouches for what it has executed"
    );
    cluster.sync(1);
    assert_eq!(cluster.count("Object"), 1);
}

#[test]
fn an_object_whose_name_nobody_has_said_is_not_given() {
    let mut cluster = Cluster::new(N);
    let words = Start {
        object: object_of(b"z"),
        seen: OpNumber::ZERO,
        conflict: Vec::new(),
        asks: Vec::new(),
        current: None,
        calm: 0,
        life: OpNumber::ZERO,
    };
    let start = crate::harness::keyring(2, N).sign(words);
    cluster.say(replica(2), 1, Message::Start(Box::new(start)));
    cluster.say(replica(3), 1, Message::GetObject { object: object_of(b"z") });
    assert_eq!(cluster.count("Object"), 0);
}

#[test]
fn replicas_that_are_alike_again_say_so_and_rest() {
    // One has had an object from others, another has taken a write back: their sums are right, or they would compare for ever.
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").heal();
    cluster.run_until("it has it", |it| it.agrees(&["a: 1 2"]));
    cluster.gone(9).run(20_000);
    let lost = write_after(7, 1, "a=lost", 2);
    let certified = proof(&[0, 1, 3], &lost, version(0, 3));
    cluster.lose(|it| it.to != it.from && it.from == replica(3) && it.label != "Sums");
    cluster.say(client(7), 3, Message::Write2 { proof: certified, write: Some(lost.clone()), answer: false });
    let eight = write_after(8, 1, "a=eight", 2);
    let conflict = [(0, &lost), (1, &eight), (2, &lost)].map(|(id, it)| grant(id, it, version(0, 3))).to_vec();
    for (id, of) in [(0, 7), (1, 6), (2, 5)] {
        let own = write_after(of, 9, &format!("a={of}"), 2);
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it is taken back", |it| it.agrees(&["a: 1 2"]) && it.status(3).role == "replica");
    cluster.heal();
    cluster.run(120_000).talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new());
}

#[test]
fn who_restarts_compares_what_it_has_and_rests_when_all_are_alike() {
    // Everybody loses power, so nobody remembers that replica 3 was behind.
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").gone(9);
    (0..N).for_each(|id| cluster.restart(id));
    cluster.heal();
    cluster.run_until("it has it", |it| it.agrees(&["a: 1 2"]));
    cluster.restart(2);
    cluster.run(120_000).talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new(), "their sums are alike after a restart, too");
}
