//! Levels of criticality (C.3): what each request chooses, and that a low level is its writer's risk and nobody else's.

use crate::harness::{Cluster, Flying, config, replica};
use crate::subject::Config;
use crate::words::{is_publication, proposal, received, signed};
use bytes::Bytes;
use quorate_core::fault::Fault;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Body;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Content, Group};
use quorate_protocols::reception::{Certified, Levels, Message, digest};

fn at_level(level: u8, operation: &str) -> Body {
    Body::Critical(level, Bytes::from(operation.to_owned()))
}

fn levels(replicas: usize) -> Levels {
    Levels::new(&config(), ByzantineQuorums::new(replicas).expect("a group"))
}

/// The certificates that primaries have proposed.
fn certificates(it: &Cluster) -> Vec<Certified> {
    let mut found = Vec::new();
    for message in it.sent.iter().filter_map(Flying::message) {
        let Message::Module(pbft::Message::PrePrepare { proposal, .. }) = message else { continue };
        let Content::Orders(orders) = &*proposal.content() else { continue };
        for (_, body) in orders.groups.iter().flat_map(|group| &group.statement().requests) {
            let Body::Apply(bytes) = body else { continue };
            found.push(Certified::decode(bytes).expect("a certificate"));
        }
    }
    found
}

/// A client that is connected, and knows its session.
fn ready(replicas: usize) -> Cluster {
    let mut it = Cluster::new(replicas);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.talk();
    it
}

#[test]
fn a_level_has_three_times_as_many_copies_and_one_and_the_usual_level_one_for_everybody() {
    // C.3: n = 3e + 1 publications; and so many more that one correct replica receives it though e say nothing.
    for (level, copies) in [(Some(0), 3), (Some(1), 4), (Some(2), 7), (None, 7)] {
        let mut it = ready(7);
        let ticket = match level {
            Some(level) => it.submit_at(1, level, "b"),
            None => it.submit(1, "b"),
        };
        assert_eq!(it.count("Publish"), copies, "level {level:?}");
        it.run(1_000);
        assert!(it.answer(1, ticket).is_some());
        assert_eq!((it.count("Submit"), it.applied_times("b")), (0, 1));
    }
}

#[test]
fn two_e_plus_1_of_its_committee_certify_a_request_and_one_correct_replica_in_all() {
    for (level, receptions) in [(0_u8, 3), (1, 3), (2, 5)] {
        let mut it = ready(7);
        for index in 0..10 {
            it.submit_at(1, level, &format!("x{index}"));
            it.run(500);
        }
        let certificates = certificates(&it);
        assert!(!certificates.is_empty());
        for certified in certificates {
            assert_eq!((certified.receptions.len(), certified.level(&levels(7))), (receptions, usize::from(level)));
        }
        assert!((0..10).all(|index| it.applied_times(&format!("x{index}")) == 1));
    }
}

#[test]
fn committees_are_spread_over_all_replicas_and_the_same_for_everybody() {
    let mut it = ready(7);
    let mut received = std::collections::BTreeMap::<Peer, usize>::new();
    for index in 0..70 {
        it.submit_at(1, 0, &format!("x{index}"));
        it.run(100);
    }
    for sent in it.sent.iter().filter(|it| is_publication(it)) {
        *received.entry(sent.to).or_default() += 1;
    }
    assert_eq!((received.len(), received.values().sum::<usize>()), (7, 210));
    assert!(received.values().all(|count| (12..=52).contains(count)), "{received:?}");
}

#[test]
fn requests_of_all_levels_have_one_order_in_one_cluster() {
    let mut it = Cluster::new(7);
    it.client(1).client(2).client(3);
    let mut tickets = Vec::new();
    for index in 0..60_u8 {
        let client = 1 + u128::from(index % 3);
        let operation = format!("x{index}");
        tickets.push(match index % 4 {
            3 => (client, it.submit(client, &operation)),
            level => (client, it.submit_at(client, level, &operation)),
        });
        it.run(u64::from(index % 5));
    }
    it.run(3_000);
    assert!(tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    assert!((0..60).all(|index| it.applied_times(&format!("x{index}")) == 1));
    assert_eq!(it.tape(0).len(), 60);
}

#[test]
fn what_names_several_levels_has_the_highest_and_what_names_none_the_usual_one() {
    let plain = || Body::Apply(Bytes::from_static(b"b"));
    let of = |levels: &Levels, bodies: Vec<Body>| {
        let requests = (2..).zip(bodies).collect();
        levels.of(&signed(1, 1, 0, requests)).faults()
    };
    let highest = levels(7);
    assert_eq!(of(&highest, vec![at_level(0, "b"), at_level(1, "c")]), 1);
    assert_eq!(of(&highest, vec![at_level(0, "b"), plain()]), 2);
    let usual = Config { criticality: Some(1), ..config() };
    let usual = Levels::new(&usual, ByzantineQuorums::new(7).expect("a group"));
    assert_eq!(of(&usual, vec![plain()]), 1);
    assert_eq!(of(&usual, vec![plain(), at_level(0, "b")]), 1);
    assert_eq!(of(&usual, vec![at_level(2, "b"), plain()]), 2);
}

#[test]
fn a_level_that_the_group_does_not_have_is_refused_by_the_client_and_blamed_by_replicas() {
    let mut it = ready(4);
    let ticket = it.submit_at(1, 2, "b");
    assert!(it.answer(1, ticket).is_some_and(|answer| answer.contains("its highest is 1")));
    let session = it.session_or_first();
    let of = signed(1, session, 0, vec![(2, at_level(2, "b"))]);
    let before = it.blamed(0);
    it.say(Peer::Client(ClientId::new(1)), 0, Message::Publish(of.clone()));
    assert_eq!(it.blamed(0), before + 1);
    it.say(replica(3), 1, Message::Publish(of));
    let node = &it.hosts[1].process.as_ref().expect("it runs").node;
    assert!(matches!(node.ledger().last(), Some((_, Fault::Malformed(_)))));
    it.run(1_000);
    assert_eq!(it.applied_times("b"), 0);
}

impl Cluster {
    /// The only session that was opened: the first entry's.
    fn session_or_first(&self) -> u64 {
        assert!(self.status(1).committed.get() >= 2);
        1
    }
}

/// Four replicas, of which the first, which leads, is down: the test proposes in its name. With this entry as the next one.
fn proposed(it: &mut Cluster, time: u64, entry: &[Certified]) {
    let at = it.status(1).committed.get() + 1;
    for to in 1..4 {
        it.say(replica(0), to, proposal(at, time, entry));
    }
    it.run(2_000);
}

fn led_by_a_liar() -> Cluster {
    let mut it = ready(4);
    it.crash(0);
    it.deliver();
    it
}

fn certified(of: &Group, times: &[(usize, u64)]) -> Certified {
    let receptions = times.iter().map(|(by, time)| received(*by, digest(of), *time)).collect();
    Certified { group: of.clone(), receptions }
}

/// A publication of this client whose committee of one is this replica: a client that tries many wordings can choose it.
fn with_committee(number: u64, operation: &str, member: usize) -> Group {
    let one = |index: u32| signed(1, 1, 0, vec![(number, at_level(0, &format!("{operation}{index}")))]);
    let mut tried = (0..).map(one);
    let others = [(member + 1) % 4, (member + 2) % 4];
    let is_its = |of: &Group| {
        // With this member's reception and one other it is a certificate of level 0, with any two others it is none.
        let holds = |by: [usize; 2]| {
            let mut by = by;
            by.sort_unstable();
            certified(of, &by.map(|by| (by, 5))).holds(&levels(4))
        };
        holds([member, others[0]]) && holds([member, others[1]]) && !holds(others)
    };
    tried.find(is_its).expect("one of four")
}

#[test]
fn a_certificate_at_a_lower_level_than_was_named_is_void_at_every_replica() {
    let mut it = led_by_a_liar();
    let session = it.session_or_first();
    let named = |number, level| signed(1, session, 0, vec![(number, at_level(level, &format!("level {level}")))]);
    let time = it.now;
    proposed(&mut it, time, &[certified(&named(2, 1), &[(0, 5), (1, 6)])]);
    assert_eq!(it.applied_times("level 1"), 0);
    // Three are enough for the highest level, and for every other one.
    proposed(&mut it, time, &[certified(&named(3, 1), &[(0, 5), (1, 6), (2, 7)])]);
    proposed(&mut it, time, &[certified(&named(4, 0), &[(0, 5), (1, 6), (2, 7)])]);
    assert_eq!((it.applied_times("level 1"), it.applied_times("level 0")), (1, 1));
}

#[test]
fn what_bears_more_liars_is_inserted_before_what_bears_fewer_whatever_times_they_claim() {
    // A committee of one liar claims to have received its accomplice's publication before everything else.
    let mut it = led_by_a_liar();
    let session = it.session_or_first();
    let honest = signed(1, session, 0, vec![(2, at_level(1, "honest"))]);
    let early = with_committee(3, "early", 0);
    let entry = [certified(&early, &[(0, 1), (1, 90)]), certified(&honest, &[(0, 1), (1, 50), (2, 51)])];
    let time = it.now;
    proposed(&mut it, time, &entry);
    let tape = it.tape(1);
    assert_eq!(tape.len(), 3);
    assert_eq!(tape[1], "honest");
}

#[test]
fn a_low_level_moves_the_clock_no_further_than_the_primarys_and_nobody_elses_time_at_all() {
    let mut it = led_by_a_liar();
    let session = it.session_or_first();
    let (time, year_2500) = (it.now, u64::MAX >> 1);
    let late = with_committee(2, "late", 0);
    proposed(&mut it, time, &[certified(&late, &[(0, year_2500), (1, 5)])]);
    let lease = signed(1, session, 0, vec![(3, Body::Apply(Bytes::from_static(b"lease")))]);
    proposed(&mut it, time, &[certified(&lease, &[(0, 5), (1, 6), (2, 7)])]);
    assert_eq!(it.tape(1).len(), 3);
    assert!((1..4).all(|id| it.leased_at(id) == time), "{} for {time}", it.leased_at(1));
}

#[test]
fn copies_for_a_committee_that_are_lost_are_submitted_to_everybody() {
    let mut it = ready(7);
    it.lose(|it| it.label == "Publish");
    let ticket = it.submit_at(1, 0, "b");
    it.run(1_000);
    assert!(it.answer(1, ticket).is_some());
    assert_eq!((it.count("Publish"), it.applied_times("b")), (3, 1));
    assert!(it.count("Submit") >= 7);
}

#[test]
fn a_committee_that_says_nothing_does_not_keep_a_request_from_being_ordered() {
    // As with the cluster's level: a quorum of the group will do.
    let mut it = ready(4);
    it.crash(3);
    for index in 0..12 {
        let ticket = it.submit_at(1, 0, &format!("x{index}"));
        it.run(1_000);
        assert!(it.answer(1, ticket).is_some(), "x{index}");
    }
    assert_eq!(it.applied_times("x11"), 1);
}
