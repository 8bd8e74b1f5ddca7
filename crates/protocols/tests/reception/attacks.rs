//! One test for each lie. R0 leads view 0; a liar is a replica that is down, in whose name the test speaks, with its key and
//! nobody else's.

use crate::harness::{Cluster, keyring, replica};
use crate::words::{group, is_publication, proposal, received, reception};
use quorate_core::crypto::Digest;
use quorate_core::fault::Fault;
use quorate_core::quorum::ByzantineQuorums;
use quorate_protocols::pbft;
use quorate_protocols::reception::{Certified, Levels, Message, digest};

/// Four replicas that have executed something, all quiet, and one a liar.
fn with_liar(liar: usize) -> Cluster {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(liar);
    it.deliver();
    it.talk();
    it
}

fn blamed_of(it: &Cluster, id: usize) -> Option<Fault> {
    let node = &it.hosts[id].process.as_ref().expect("it runs").node;
    node.ledger().last().map(|(_, fault)| fault.clone())
}

#[test]
fn a_clock_that_is_years_ahead_or_behind_does_not_move_a_certified_time() {
    for wrong in [0, 1, u64::MAX >> 1] {
        let mut it = with_liar(3);
        it.lose(|it| it.label == "Reception" && it.from == replica(2) && it.from != it.to);
        it.submit(1, "lease");
        it.deliver();
        let group = it.published(1);
        for id in 0..3 {
            it.say(replica(3), id, reception(3, digest(&group), wrong));
        }
        it.run(100);
        let honest: Vec<u64> = (0..2).map(|id| it.received_at(id, &group)[0]).collect();
        let time = it.leased_at(0);
        assert!((honest[0].min(honest[1])..=honest[0].max(honest[1])).contains(&time), "{time} is not honest");
        assert_eq!(time, it.leased_at(1));
    }
}

#[test]
fn f_clocks_of_3f_plus_1_that_say_anything_do_not_move_a_certified_time_out_of_the_honest_range() {
    // Pompē §3: the median of 2f + 1 times, f of them lies, lies between two honest ones. Every choice of signers and liars.
    for faults in [1_usize, 2] {
        let replicas = 3 * faults + 1;
        let quorums = ByzantineQuorums::new(replicas).expect("a group");
        let of = group(1, 1, 2, "b");
        let honest = |by: usize| 1_000 + 10 * by as u64;
        for signers in subsets(replicas).filter(|them| them.len() == quorums.quorum()) {
            for liars in subsets(replicas).filter(|them| them.len() <= faults) {
                for lie in [0, 999, 1_015, 2_000, u64::MAX] {
                    let time = |by: usize| if liars.contains(&by) { lie } else { honest(by) };
                    let vote = |by: &usize| {
                        let time = quorate_core::time::WallTime::from_nanos(time(*by));
                        keyring(*by, replicas)
                            .sign(quorate_protocols::reception::Received { digest: digest(&of), time })
                    };
                    let certified = Certified { group: of.clone(), receptions: signers.iter().map(vote).collect() };
                    let time = certified.time(&Levels::new(&crate::harness::config(), quorums)).as_nanos();
                    let true_times = signers.iter().filter(|by| !liars.contains(by)).map(|by| honest(*by));
                    let (first, last) = (true_times.clone().min().expect("one"), true_times.max().expect("one"));
                    assert!((first..=last).contains(&time), "{time}: {signers:?} sign, {liars:?} lie {lie}");
                }
            }
        }
    }
}

fn subsets(of: usize) -> impl Iterator<Item = Vec<usize>> {
    (0_u32..1 << of).map(move |chosen| (0..of).filter(|member| chosen & (1 << member) != 0).collect())
}

#[test]
fn a_committee_of_liars_does_not_choose_a_time_far_ahead_for_good() {
    // e = 0: one replica certifies the time. Agreed time never goes back, so year 2500 would expire every lease.
    let config = crate::subject::Config { criticality: Some(0), ..crate::harness::config() };
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(3);
    it.lose(|it| it.from != it.to && it.label == "Reception");
    for index in 0..20 {
        it.submit(1, if index == 19 { "lease" } else { "b" });
        it.deliver();
        let of = digest(&it.published(1));
        for id in 0..3 {
            it.say(replica(3), id, reception(3, of, u64::MAX >> 1));
        }
    }
    it.heal();
    it.run_until("it is applied", |it| (0..3).all(|id| it.tape(id).contains(&"lease".to_owned())));
    assert!((0..3).all(|id| it.leased_at(id) <= it.now), "{} is ahead of {}", it.leased_at(0), it.now);
}

#[test]
fn a_committee_that_is_silent_does_not_keep_a_publication_from_being_ordered() {
    // Found by seed 27: e = 0, and the one replica of the committee is a liar that says nothing. A quorum of the group will do.
    let config = crate::subject::Config { criticality: Some(0), ..crate::harness::config() };
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(3);
    for index in 0..12 {
        let ticket = it.submit(1, &format!("x{index}"));
        it.run(1_000);
        assert!(it.answer(1, ticket).is_some(), "x{index}");
    }
    assert_eq!(it.applied_times("x11"), 1);
}

#[test]
fn replicas_that_are_full_of_different_publications_order_them_all_and_have_room_again() {
    // A client, or a broker, that gives each replica something else until all are full.
    let config = crate::subject::Config { pending_bytes: 4 * 4_000, ..crate::harness::config() };
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let session = it.session(1);
    let mut number = 1;
    for id in 0..4 {
        for _ in 0..12 {
            number += 1;
            it.say(replica(3), id, Message::Publish(group(1, session, number, &"x".repeat(200))));
        }
    }
    assert!(it.count("Busy") > 0, "they are full");
    it.run(10_000);
    it.apply(2, "after");
    assert_eq!(it.applied_times("after"), 1);
    it.run(10_000);
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new(), "nothing is pending");
}

#[test]
fn who_has_received_one_publication_at_two_times_counts_once() {
    let mut it = with_liar(3);
    it.lose(|it| it.label == "Reception" && it.from != it.to);
    it.submit(1, "b");
    it.deliver();
    let of = digest(&it.published(1));
    it.say(replica(3), 0, reception(3, of, 5));
    it.say(replica(3), 0, reception(3, of, 6));
    it.run(100);
    assert_eq!(it.count("PrePrepare"), 0, "the liar and R0 are two, not three");
}

#[test]
fn receptions_of_inventions_fill_the_liars_own_places_only() {
    let mut it = with_liar(3);
    for index in 0..5000_u64 {
        it.say(replica(3), 0, reception(3, Digest::of(&index.to_le_bytes()), index));
    }
    it.flying.clear();
    it.lose(|it| is_publication(it) && it.to == replica(0));
    let ticket = it.submit(1, "b");
    it.run_until("others' receptions are counted", |it| it.answer(1, ticket).is_some());
    it.heal();
    it.run(60_000);
    it.talk();
    it.run(60_000);
    assert_eq!(it.count("GetPublication"), 0, "nobody asks for inventions for ever");
}

#[test]
fn a_reception_that_somebody_else_has_not_signed_is_blamed_on_who_brings_it() {
    let mut it = with_liar(3);
    it.lose(|it| it.label == "Reception" && it.from != it.to);
    it.submit(1, "b");
    it.deliver();
    let of = digest(&it.published(1));
    let own = received(3, of, 5);
    for by in [1_u8, 2] {
        let by = quorate_core::ids::ReplicaId::new(by);
        let vote = quorate_core::crypto::Signed::claimed(by, *own.statement(), *own.signature());
        it.say(replica(3), 0, Message::Reception { vote, again: false });
    }
    assert!(matches!(blamed_of(&it, 0), Some(Fault::BadSignature(_))));
    it.run(100);
    assert_eq!(it.count("PrePrepare"), 0);
}

#[test]
fn a_certificate_that_does_not_hold_is_void_at_every_replica() {
    let next = |it: &Cluster| it.status(1).committed.get() + 1;
    let cases: [(&str, Spoil); 4] = [
        ("too few", |certified| certified.receptions.truncate(2)),
        ("one twice", |certified| certified.receptions[1] = certified.receptions[0].clone()),
        ("of something else", |certified| certified.receptions[0] = received(0, Digest::of(b"other"), 1)),
        ("forged", |certified| {
            let own = received(0, certified.receptions[1].statement().digest, 9);
            let by = certified.receptions[1].by();
            certified.receptions[1] = quorate_core::crypto::Signed::claimed(by, *own.statement(), *own.signature());
        }),
    ];
    for (name, spoil) in cases {
        let mut it = with_liar(0);
        let of = group(1, it_session(&it), 2, "forged");
        let receptions = (0..3).map(|by| received(by, digest(&of), 5)).collect();
        let mut certified = Certified { group: of, receptions };
        spoil(&mut certified);
        let (at, now) = (next(&it), it.now);
        for to in 1..4 {
            it.say(replica(0), to, proposal(at, now, std::slice::from_ref(&certified)));
        }
        it.run(1_000);
        assert!(it.status(1).committed.get() >= at, "{name}: the entry is agreed on, and brings nothing");
        assert_eq!(it.applied_times("forged"), 0, "{name}");
    }
    // With three true receptions it holds: the liar's own and two that it has collected.
    let mut it = with_liar(0);
    let of = group(1, it_session(&it), 2, "true");
    let receptions = (0..3).map(|by| keyring(by, 4).sign(*received(by, digest(&of), 5).statement())).collect();
    let (at, now) = (next(&it), it.now);
    for to in 1..4 {
        it.say(
            replica(0),
            to,
            proposal(at, now, &[Certified { group: of.clone(), receptions: Vec::clone(&receptions) }]),
        );
    }
    it.run(1_000);
    assert_eq!(it.applied_times("true"), 1);
}

/// What a liar does to a certificate.
type Spoil = fn(&mut Certified);

/// The only session that was opened: the first entry's.
fn it_session(it: &Cluster) -> u64 {
    assert!(it.status(1).committed.get() >= 2);
    1
}

#[test]
fn a_replica_cannot_publish_in_the_place_of_a_client_nor_a_client_ask_pbft() {
    let mut it = with_liar(3);
    let keys = keyring(3, 4);
    let client = keys.address(&keys.proxy().expect("a replica"));
    let words = pbft::Requests { client, ..group(1, 1, 2, "b").statement().clone() };
    it.say(replica(3), 0, Message::Publish(keys.sign_as_proxy(words)));
    assert!(matches!(blamed_of(&it, 0), Some(Fault::Malformed(_))));
    let request = pbft::Message::Request(group(1, it_session(&it), 2, "b"));
    it.say(replica(3), 1, Message::Module(request));
    assert!(matches!(blamed_of(&it, 1), Some(Fault::Malformed(_))));
    it.run(1_000);
    assert_eq!(it.applied_times("b"), 0);
}

#[test]
fn a_primary_that_leaves_a_certificate_out_is_replaced() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    // R0 goes on leading PBFT, and hears of no publication and no request.
    it.lose(|it| {
        it.to == replica(0) && matches!(it.label, "Publish" | "Submit" | "Reception" | "Publication" | "Request")
    });
    let ticket = it.submit(1, "b");
    it.run_until("it is ordered", |it| it.answer(1, ticket).is_some());
    assert!(!it.leads(0));
}

#[test]
fn after_a_primary_died_nobody_waits_for_a_request_that_was_done_on_another_way() {
    // Backups have asked PBFT for what the dead primary sat on; one request is ordered, and the others are done with it.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(0);
    for index in 0..10 {
        it.apply(1, &format!("x{index}"));
    }
    let view = it.view(1);
    for index in 10..60 {
        it.apply(1, &format!("x{index}"));
        it.run(200);
    }
    assert_eq!(it.view(1), view, "no primary is suspected for nothing");
}

#[test]
fn a_client_that_floods_is_told_that_there_is_no_room_and_others_are_served() {
    let config = crate::subject::Config { client_bytes: 4_000, ..crate::harness::config() };
    let mut it = Cluster::with(4, config);
    it.client(1).client(2);
    it.apply(1, "a").apply(2, "b");
    it.run(1_000);
    it.lose(|it| it.label == "PrePrepare");
    for _ in 0..20 {
        it.submit(1, &"x".repeat(1000));
        it.deliver();
    }
    it.heal();
    assert!(it.count("Busy") > 0);
    it.apply(2, "c");
    assert_eq!(it.applied_times("c"), 1);
}
