//! One test for each step of the seed and of its specification (C.3, C.4).

use crate::harness::{Cluster, config, replica};
use crate::subject::Config;
use crate::words::{group, is_publication, proposal, received};
use quorate_core::protocol::Consistency;
use quorate_protocols::pbft;
use quorate_protocols::reception::{Certified, Message, digest};

#[test]
fn a_request_is_published_to_everybody_received_told_of_without_its_payload_and_ordered_once() {
    // Seed: "Steps", "Protocol". n = 3e + 1 copies, one reception of each replica to each other, then PBFT.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let operation = "x".repeat(1000);
    let ticket = it.submit(1, &operation);
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let n = 4;
    let counts = ["Publish", "Reception", "GetPublication", "PrePrepare", "Prepare", "Commit", "Reply"]
        .map(|it_is| it.count(it_is));
    assert_eq!(counts, [n, n * (n - 1), 0, n - 1, (n - 1) * (n - 1), n * (n - 1), n]);
    assert!(it.sent.iter().filter(|it| it.label == "Reception").all(|it| it.bytes.len() < 250), "no payload in it");
}

#[test]
fn an_idle_group_says_nothing_and_waits_for_nothing() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.rests_after(10_000);
}

#[test]
fn a_replica_tells_of_a_publication_only_when_it_is_on_its_disk() {
    // "It broadcasts a message informing of the reception and persistence of a request."
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.hosts[1].fast_disk = false;
    it.talk();
    it.submit(1, "b");
    it.deliver();
    let told = |it: &Cluster| it.sent.iter().filter(|it| it.from == replica(1) && it.label == "Reception").count();
    assert_eq!(told(&it), 0);
    it.sync(1);
    assert_eq!(told(&it), 3, "to each of the others");
}

#[test]
fn what_one_reception_too_few_have_received_is_not_ordered() {
    // "Once 2f + 1 reception messages are received, the event is inserted."
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Reception" && (it.from == replica(2) || it.from == replica(3)) && it.from != it.to);
    it.hosts[2].fast_disk = false;
    it.hosts[3].fast_disk = false;
    it.talk();
    let ticket = it.submit(1, "b");
    it.run(1_000);
    assert_eq!((it.answer(1, ticket), it.count("PrePrepare")), (None, 0));
    it.heal();
    (2..4).for_each(|id| it.hosts[id].fast_disk = true);
    it.sync(2).sync(3);
    it.run_until("it is ordered", |it| it.answer(1, ticket).is_some());
}

#[test]
fn who_did_not_get_a_copy_pulls_it_from_one_who_says_that_it_did() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| is_publication(it) && it.to == replica(3));
    it.talk();
    let ticket = it.submit(1, "b");
    it.run(15);
    assert_eq!(it.count("GetPublication"), 1, "two others have it: it is no invention, and worth asking for at once");
    it.run(2_000);
    assert!(it.answer(1, ticket).is_some());
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn the_certified_time_is_the_median_of_reception_times_and_that_of_the_machine() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(1_000);
    // Copies arrive at R0, R1, R2 and R3 with a pause between them.
    it.lose(is_publication);
    it.submit(1, "lease");
    it.deliver();
    let group = it.published(1);
    it.heal();
    let start = it.now;
    for id in 0..3 {
        it.now = start + 5_000_000 * id as u64;
        it.lose(|it| it.label == "GetPublication");
        it.say(replica(3), id, Message::Publish(group.clone()));
        it.deliver();
    }
    it.heal();
    it.run(500);
    let median = it.received_at(1, &group)[0];
    assert_eq!(median, start + 5_000_000);
    assert!((0..4).all(|id| it.leased_at(id) == median));
}

#[test]
fn what_one_entry_brings_is_inserted_by_certified_time_in_whatever_order_the_primary_has_put_it() {
    // Pompē: if every correct replica received a before b, then a's median is smaller.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "start");
    it.run(2_000);
    it.crash(0);
    it.deliver();
    let certified = |number: u64, operation: &str, times: [u64; 3]| {
        let of = group(1, 1, number, operation);
        let receptions = (0..3).zip(times).map(|(by, time)| received(by, digest(&of), time)).collect();
        Certified { group: of, receptions }
    };
    let entry = [certified(3, "b", [1, 31, 32]), certified(2, "a", [29, 21, 22]), certified(4, "c", [99, 98, 10])];
    let (at, now) = (it.status(1).committed.get() + 1, it.now);
    for to in 1..4 {
        it.say(replica(0), to, proposal(at, now, &entry));
    }
    it.run(2_000);
    assert_eq!(it.tape(1), ["start", "a", "b", "c"], "22, 31 and 98 are the medians");
    assert_eq!(it.applied_times("a"), 1);
}

#[test]
fn a_level_of_criticality_decides_how_many_must_have_received() {
    // Seed: n = 3 × errors + 1.
    for (criticality, replicas, silent) in [(0, 4, 2), (1, 4, 1), (0, 7, 4), (1, 7, 2), (2, 7, 2)] {
        let mut it = Cluster::with(replicas, Config { criticality: Some(criticality), ..config() });
        it.client(1).apply(1, "a");
        it.run(1_000);
        // So many replicas receive nothing and tell of nothing, but take part in ordering.
        let deaf: Vec<_> = (replicas - silent..replicas).map(replica).collect();
        let others = deaf.clone();
        it.lose(move |it| {
            let receives = matches!(it.label, "Publish" | "Submit" | "Publication" | "Reception");
            receives && (others.contains(&it.to) || others.contains(&it.from))
        });
        let ticket = it.submit(1, "b");
        it.run(300);
        let level = usize::from(criticality);
        let enough = replicas - silent >= (2 * level + 1).max((replicas - 1) / 3 + 1) && level > 0 || silent == 0;
        if enough && replicas == 3 * level + 1 {
            assert!(it.answer(1, ticket).is_some(), "e = {criticality} of {replicas}, {silent} silent");
        }
        it.heal();
        it.run_until("everybody has it", |it| it.answer(1, ticket).is_some());
        it.run(3_000);
        assert_eq!(it.applied_times("b"), 1);
    }
}

#[test]
fn a_read_sees_what_was_acknowledged_before_it() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").apply(1, "b");
    let ticket = it.read(1, Consistency::Linearizable);
    it.run(1_000);
    assert_eq!(it.answer(1, ticket).as_deref(), Some("a b"));
}

#[test]
fn everybody_inserts_everything_in_one_order() {
    let mut it = Cluster::new(4);
    it.client(1).client(2).client(3);
    for index in 0..30 {
        it.submit(1 + index % 3, &format!("x{index}"));
        it.run(index as u64 % 4);
    }
    it.run(3_000);
    assert_eq!(it.tape(0).len(), 30);
    assert_eq!(it.applied_times("x7"), 1);
}

#[test]
fn a_client_whose_answers_were_lost_is_answered_again_and_nothing_is_ordered_again() {
    // Castro and Liskov §4.1, as PBFT does it: whoever has answered says it again.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(100);
    it.heal();
    it.talk();
    it.run_until("it is answered", |it| it.answer(1, ticket).is_some());
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    assert_eq!((it.count("Reception"), it.count("PrePrepare")), (0, 0));
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn one_replica_answers_in_full_and_the_others_with_digests() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.talk();
    it.apply(1, "b");
    let replies = it.sent.iter().filter(|it| it.label == "Reply").filter_map(crate::harness::Flying::message);
    let rulings = replies.flat_map(|message| match message {
        Message::Module(pbft::Message::Reply(reply)) => reply.rulings,
        other => panic!("{other:?} is no reply"),
    });
    let full = rulings.filter(|(_, told)| matches!(told, pbft::Told::Full(_))).count();
    assert_eq!((it.count("Reply"), full), (4, 4), "an answer that is shorter than a digest is sent as it is");
}

#[test]
fn a_question_that_was_lost_eight_times_is_asked_again_when_somebody_still_waits() {
    // Only R3 has it, and nobody hears its answers for long; the client is gone.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| (is_publication(it) && it.to != replica(3)) || it.label == "GetPublication");
    it.submit(1, "b");
    it.deliver();
    it.clients.clear();
    it.run(10_000);
    assert_eq!(it.applied_times("b"), 0);
    it.heal();
    it.run(5_000);
    assert_eq!(it.applied_times("b"), 1);
}
