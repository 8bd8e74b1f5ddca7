//! What many share, and one liar cannot fill: places, questions, turns, room. A liar is a replica that is down, in whose name the
//! test speaks, with its key and with what others have signed.

use crate::harness::{Cluster, Flying, config, replica};
use crate::subject::Config;
use crate::words::{group, received, reception};
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::sessions::Body;
use quorate_core::time::Duration;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Group};
use quorate_protocols::reception::{Certified, Message, digest};
use std::collections::BTreeSet;

/// The only session that was opened: the first entry's.
const SESSION: u64 = 1;
const BROKER: Peer = Peer::Client(ClientId::BROKER);

/// Four replicas whose primary nobody suspects, all quiet, and R3 a liar.
fn with_liar(config: Config) -> Cluster {
    let module = pbft::Config { view_change: Duration::from_secs(600), ..config.module };
    let mut it = Cluster::with(4, Config { module, ..config });
    it.client(1).apply(1, "a");
    it.run(5_000);
    it.crash(3);
    it.deliver();
    it
}

fn again(by: usize, of: Digest) -> Message {
    Message::Reception { vote: received(by, of, 5), again: true }
}

/// The lowest digests, in their order.
fn low(number: u16) -> Digest {
    let mut bytes = [0; 32];
    bytes[2..4].copy_from_slice(&number.to_be_bytes());
    Digest::new(bytes)
}

/// A broker brings it to R1 only, and its client is gone.
fn given_to_r1_alone(it: &mut Cluster) -> Group {
    it.clients.clear();
    let of = group(1, SESSION, 2, "b");
    it.say(BROKER, 1, Message::Publish(of.clone()));
    of
}

#[test]
fn who_repeats_what_a_correct_replica_has_received_long_ago_takes_none_of_its_places() {
    let mut it = with_liar(config());
    // What R1 has had, and everybody has ordered since; as far as R0 and R2 remember that, and long before.
    let ordered = digest(&it.published(1));
    it.talk();
    for id in [0, 2] {
        it.say(replica(3), id, again(1, ordered));
        for index in 0..5_000_u64 {
            it.say(replica(3), id, again(1, Digest::of(&index.to_le_bytes())));
        }
    }
    it.run(5_000);
    assert_eq!(it.count("GetPublication"), 0, "R1 has not said that it waits");
    given_to_r1_alone(&mut it);
    it.run(5_000);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn what_a_correct_replica_has_is_pulled_however_many_inventions_are_told_of_again_and_again() {
    let mut it = with_liar(config());
    for id in [0, 2] {
        for number in 0..600 {
            it.say(replica(3), id, reception(3, low(number), 5));
        }
    }
    given_to_r1_alone(&mut it);
    for _ in 0..50 {
        for id in [0, 2] {
            for number in 0..300 {
                it.say(replica(3), id, again(3, low(number)));
            }
        }
        it.flying.retain(|it| it.to != replica(3));
        it.run(100);
    }
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn who_says_that_it_has_something_and_never_gives_it_is_not_the_only_one_that_is_asked() {
    let mut it = with_liar(config());
    it.lose(|it| it.label == "GetPublication");
    let of = digest(&given_to_r1_alone(&mut it));
    for id in [0, 2] {
        it.say(replica(3), id, reception(3, of, 5));
    }
    it.run(10_000);
    assert_eq!(it.applied_times("b"), 0, "all questions were lost");
    it.heal();
    it.run(10_000);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn another_one_is_asked_when_another_one_tells_of_it() {
    let mut it = with_liar(config());
    it.lose(|it| it.to == replica(1) || it.to == replica(2));
    let of = Digest::of(b"whatever");
    let asked = |it: &Cluster, id: usize| {
        let asked = it.sent.iter().filter(|it| it.label == "GetPublication" && it.from == replica(0));
        asked.filter(|it| it.to == replica(id)).count()
    };
    it.say(replica(1), 0, reception(1, of, 5));
    it.run(10_000);
    assert_eq!([asked(&it, 1), asked(&it, 2)], [8, 0]);
    it.say(replica(2), 0, reception(2, of, 5));
    assert_eq!([asked(&it, 1), asked(&it, 2)], [8, 1]);
    it.run(10_000);
    assert_eq!([asked(&it, 1), asked(&it, 2)], [12, 4]);
}

#[test]
fn everything_that_waits_is_handed_over_in_turn_whatever_its_digest() {
    // R0 leads, and nobody hears of it.
    let mut it = with_liar(Config { resend_max: config().resend, ..config() });
    it.restart(3);
    it.run(1_000);
    it.crash(0);
    let rare = (1..).map(|number| group(2, SESSION, number, "rare")).find(|it| digest(it).as_bytes()[0] > 250);
    let rare = rare.expect("one of them");
    let flood = (2..).map(|number| group(1, SESSION, number, "flood")).filter(|it| digest(it) < digest(&rare));
    let mut flood: Vec<Group> = flood.take(400).collect();
    flood.push(rare.clone());
    for of in &flood {
        for id in 1..4 {
            it.say(BROKER, id, Message::Publish(of.clone()));
        }
    }
    it.run(250);
    for id in 1..4 {
        assert!(handed_over(&it, id).contains(&digest(&rare)), "R{id}: it is its client's turn");
    }
    it.run(500);
    for id in 1..4 {
        assert_eq!(handed_over(&it, id).len(), flood.len(), "R{id}");
    }
}

/// What a backup has asked R0 to order.
fn handed_over(it: &Cluster, id: usize) -> BTreeSet<Digest> {
    let sent = it.sent.iter().filter(|it| it.from == replica(id) && it.to == replica(0)).filter_map(Flying::message);
    let groups = sent.filter_map(|message| match message {
        Message::Module(pbft::Message::Request(group)) => Some(group),
        _ => None,
    });
    let bodies = groups.flat_map(|group| group.statement().requests.clone());
    let certified = bodies.filter_map(|(_, body)| match body {
        Body::Apply(bytes) => Certified::decode(&bytes).ok(),
        _ => None,
    });
    certified.map(|it| digest(&it.group)).collect()
}

#[test]
fn who_asks_for_the_same_bytes_again_and_again_is_given_as_many_as_its_quota_says() {
    let mut it = with_liar(config());
    it.lose(|it| it.label == "Commit");
    let of = group(1, SESSION, 2, &"x".repeat(1 << 20));
    it.say(BROKER, 0, Message::Publish(of.clone()));
    let given = |it: &Cluster| it.sent.iter().filter(|it| it.label == "Publication" && it.to == replica(3)).count();
    for _ in 0..100 {
        it.say(replica(3), 0, Message::GetPublication { digest: digest(&of) });
    }
    assert_eq!(given(&it), 8, "of 1 MiB each");
    it.run(300);
    it.say(replica(3), 0, Message::GetPublication { digest: digest(&of) });
    assert_eq!(given(&it), 9);
}

#[test]
fn a_client_leaves_others_room_though_its_own_limit_is_above_the_room_of_all() {
    let config = Config { pending_bytes: 4 * 8_000, client_bytes: 12 << 20, ..config() };
    let mut it = with_liar(config);
    it.lose(|it| it.label == "Commit");
    let busy = |it: &Cluster, client| it.sent.iter().any(|it| it.label == "Busy" && it.to == peer(client));
    for number in 2..42 {
        it.say(peer(1), 0, Message::Publish(group(1, SESSION, number, "x")));
    }
    assert!(busy(&it, 1));
    it.say(peer(2), 0, Message::Publish(group(2, SESSION, 1, "other")));
    assert!(!busy(&it, 2));
}

fn peer(client: u128) -> Peer {
    Peer::Client(ClientId::new(client))
}
