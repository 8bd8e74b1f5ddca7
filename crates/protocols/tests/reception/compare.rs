//! Comparing what is pending (C.7, *Reconciliation*, the pending part), and replicas that lie about it.

use crate::harness::{Cluster, Flying, config, replica};
use crate::subject::Config;
use crate::words::{group, is_publication};
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, Peer};
use quorate_core::time::Duration;
use quorate_protocols::pbft;
use quorate_protocols::reception::{Held, Item, Message, Part, digest};

/// The only session that was opened: the first entry's.
const SESSION: u64 = 1;
const BROKER: Peer = Peer::Client(ClientId::BROKER);

/// A group whose primary nobody suspects, and a client of it that knows its session.
fn patient() -> Cluster {
    let module = pbft::Config { view_change: Duration::from_secs(600), ..pbft::Config::default() };
    let mut it = Cluster::with(4, Config { module, ..config() });
    it.client(1).apply(1, "a");
    it.run(3_000);
    it.talk();
    it
}

/// The same, in which so many publications are pending at every replica and nothing is ordered while this lasts.
fn stuck(publications: u64) -> Cluster {
    let mut it = patient();
    it.lose(|it| it.label == "Commit");
    publish(&mut it, 0..4, 2..publications + 2);
    it.run(10_000);
    it.talk();
    it
}

fn publish(it: &mut Cluster, to: std::ops::Range<usize>, numbers: std::ops::Range<u64>) {
    for number in numbers {
        let copy = group(1, SESSION, number, &format!("n{number}"));
        for id in to.clone() {
            it.say(BROKER, id, Message::Publish(copy.clone()));
        }
    }
}

/// What is said between replicas of receptions: at first, and again.
fn is_reception(it: &Flying, again: bool) -> bool {
    matches!(it.message(), Some(Message::Reception { again: is, .. }) if is == again) && it.from != it.to
}

fn compares(it: &Cluster) -> Vec<Vec<Part>> {
    let said = it.sent.iter().filter_map(Flying::message);
    said.filter_map(|message| if let Message::Compare(parts) = message { Some(parts) } else { None }).collect()
}

#[test]
fn receptions_that_were_lost_are_told_to_who_lacks_them_and_nobody_else() {
    let mut it = patient();
    it.lose(|it| is_reception(it, false));
    publish(&mut it, 0..4, 2..3);
    it.run(100);
    assert_eq!(it.count("PrePrepare"), 0, "nobody knows of three");
    it.run(1_000);
    assert_eq!(it.applied_times("n2"), 1);
    assert!(it.count("Compare") > 0);
}

#[test]
fn replicas_that_hold_different_publications_come_to_hold_and_order_all_of_them() {
    // A broker that was partitioned, replicas that were, and no client that would ask again.
    let mut it = patient();
    it.lose(|it| (0..4).any(|id| it.from == replica(id)) && it.from != it.to);
    for id in 0..4 {
        let first = 2 + 40 * id as u64;
        publish(&mut it, id..id + 1, first..first + 40);
    }
    it.clients.clear();
    it.run(5_000);
    it.heal();
    it.run(10_000);
    assert!((2..162).all(|number| it.applied_times(&format!("n{number}")) == 1));
}

#[test]
fn what_is_known_to_be_the_same_is_not_compared_again() {
    let mut it = stuck(50);
    it.run(10_000);
    assert_eq!(["Compare", "Same", "Reception", "GetPublication"].map(|label| it.count(label)), [0; 4]);
    it.heal();
    it.run(5_000);
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new(), "and when all is ordered nothing is left to do");
    assert!(it.hosts.iter().all(|host| host.process.as_ref().is_some_and(|it| it.node.deadline().is_none())));
}

#[test]
fn one_that_differs_of_many_is_found_in_a_few_short_messages() {
    let mut it = stuck(300);
    it.lose(|it| it.label == "Commit" || is_reception(it, false));
    publish(&mut it, 2..3, 5_000..5_001);
    it.run(1_500);
    let told = compares(&it);
    let items = told.iter().flatten().map(|part| match &part.held {
        Held::Digest(_) => 0,
        Held::Each(items) | Held::Answer(items) => items.len(),
    });
    let items = items.sum::<usize>();
    assert!(items < 600, "{items}: to each of three, most are told of by digests");
    assert!(told.len() < 100 && it.sent.iter().all(|it| it.label != "Compare" || it.bytes.len() < 4_096));
    let of = digest(&group(1, SESSION, 5_000, "n5000"));
    let receivers = (0..4).filter(|id| {
        it.sent.iter().any(|sent| match sent.message() {
            Some(Message::Reception { vote, .. }) => sent.from == replica(*id) && vote.statement().digest == of,
            _ => false,
        })
    });
    assert_eq!(receivers.count(), 4, "everybody has pulled it");
}

#[test]
fn a_replica_that_has_just_started_is_told_what_it_has_forgotten() {
    // Receptions of others are not on its disk. Nobody else has a reason to compare: it has said that it holds the same.
    let mut it = stuck(20);
    it.restart(1);
    it.run(5_000);
    assert!(it.sent.iter().any(|it| it.to == replica(1) && is_reception(it, false)), "the others' are said again");
    it.talk();
    it.run(5_000);
    assert_eq!(["Compare", "Same", "Reception"].map(|label| it.count(label)), [0; 3]);
}

#[test]
fn what_the_primary_is_known_to_hold_it_is_not_given_again() {
    let mut it = stuck(3);
    it.run(30_000);
    assert_eq!((it.count("Reception"), it.count("Request")), (0, 0));
}

/// A liar's place: R3 is down, and the test speaks in its name.
fn with_liar() -> Cluster {
    let mut it = patient();
    it.crash(3);
    it.deliver();
    it.talk();
    it
}

fn whole(held: Held) -> Message {
    Message::Compare(vec![Part { from: Digest::ZERO, until: None, held }])
}

fn ignored(it: &Cluster, id: usize, why: Why) -> u64 {
    let node = &it.hosts[id].process.as_ref().expect("it runs").node;
    node.ledger().ignored().get(&why).copied().unwrap_or_default()
}

#[test]
fn false_digests_are_answered_as_often_as_their_quota_says_and_change_nothing() {
    let mut it = with_liar();
    it.lose(|it| it.label == "Commit");
    publish(&mut it, 0..3, 2..102);
    it.run(1_000);
    it.talk();
    let before = it.hosts[0].journal.len();
    for index in 0..1_000_u64 {
        it.say(replica(3), 0, whole(Held::Digest(Digest::of(&index.to_le_bytes()))));
    }
    let answers = it.sent.iter().filter(|it| it.from == replica(0) && it.to == replica(3));
    let bytes: usize = answers.clone().map(|it| it.bytes.len()).sum();
    assert!(answers.count() <= 16 && bytes < 64 * 1024, "{bytes} bytes");
    assert!(ignored(&it, 0, Why::Busy) >= 984);
    assert_eq!(it.hosts[0].journal.len(), before);
    it.heal();
    it.run(5_000);
    assert!((2..102).all(|number| it.applied_times(&format!("n{number}")) == 1));
}

#[test]
fn invented_publications_are_neither_asked_for_nor_remembered() {
    let mut it = with_liar();
    let mut invented: Vec<_> =
        (0..1_000_u64).map(|index| Item { digest: Digest::of(&index.to_le_bytes()), received_by: u16::MAX }).collect();
    invented.sort_by_key(|item| item.digest);
    for _ in 0..10 {
        it.say(replica(3), 0, whole(Held::Each(invented.clone())));
        it.say(replica(3), 1, whole(Held::Answer(invented.clone())));
        it.run(1_000);
    }
    assert_eq!((it.count("GetPublication"), it.count("Reception")), (0, 0));
    assert!(it.sent.iter().all(|it| it.label != "Compare" || it.bytes.len() < 200));
    assert!(it.hosts.iter().take(3).all(|host| host.process.as_ref().is_some_and(|it| it.node.deadline().is_none())));
}

#[test]
fn who_says_that_it_holds_nothing_is_sent_a_bounded_number_of_receptions_for_each_question() {
    let mut it = with_liar();
    it.lose(|it| it.label == "Commit");
    publish(&mut it, 0..3, 2..402);
    it.run(1_000);
    it.talk();
    it.say(replica(3), 0, whole(Held::Each(Vec::new())));
    let to_liar = it.sent.iter().filter(|it| it.to == replica(3)).count();
    assert_eq!(to_liar, 256, "of 400 publications");
}

#[test]
fn a_liar_that_says_same_to_everything_keeps_nobody_from_comparing_with_the_others() {
    let mut it = with_liar();
    it.lose(|it| is_reception(it, false));
    publish(&mut it, 0..1, 2..3);
    publish(&mut it, 1..2, 3..4);
    for _ in 0..40 {
        it.run(50);
        let asked = it.sent.iter().filter(|it| it.label == "Compare" && it.to == replica(3));
        let said: Vec<_> = asked.filter_map(|it| Some((it.from, it.message()?))).collect();
        for (from, message) in said {
            let (Peer::Replica(id), Message::Compare(parts)) = (from, message) else { continue };
            let Held::Digest(digest) = parts[0].held else { continue };
            it.say(replica(3), id.index(), Message::Same { digest });
        }
        it.talk();
    }
    it.run(3_000);
    assert!(["n2", "n3"].iter().all(|operation| it.applied_times(operation) == 1));
}

#[test]
fn an_answer_that_nobody_has_asked_for_is_ignored() {
    let mut it = with_liar();
    it.lose(|it| it.label == "Commit");
    publish(&mut it, 0..3, 2..5);
    it.run(1_000);
    let before = ignored(&it, 0, Why::Unasked);
    it.say(replica(3), 0, Message::Same { digest: Digest::of(b"whatever") });
    assert_eq!(ignored(&it, 0, Why::Unasked), before + 1);
}

#[test]
fn comparisons_that_no_correct_replica_makes_are_blamed() {
    let (low, high) = (Digest::new([1; 32]), Digest::new([2; 32]));
    let item = |digest| Item { digest, received_by: 1 };
    let part = |from, until, held| Part { from, until, held };
    let digests = Held::Digest(low);
    let cases = [
        Vec::new(),
        vec![part(low, Some(low), digests.clone())],
        vec![part(low, None, digests.clone()), part(high, None, digests.clone())],
        vec![part(high, None, digests.clone()), part(low, Some(high), digests.clone())],
        vec![part(low, None, Held::Each(vec![item(high), item(low)]))],
        vec![part(low, None, Held::Answer(vec![item(high), item(high)]))],
        vec![part(low, Some(high), Held::Each(vec![item(high)]))],
        (0..65_u8).map(|at| part(Digest::new([at; 32]), Some(Digest::new([at + 1; 32])), digests.clone())).collect(),
        vec![part(Digest::ZERO, None, Held::Each((0..1_025_u16).map(|at| item(numbered(at))).collect()))],
    ];
    for parts in cases {
        let mut it = with_liar();
        let before = it.blamed(0);
        it.say(replica(3), 0, Message::Compare(parts.clone()));
        assert_eq!(it.blamed(0), before + 1, "{parts:?}");
        let node = &it.hosts[0].process.as_ref().expect("it runs").node;
        assert!(matches!(node.ledger().last(), Some((_, Fault::Malformed(_)))));
        assert_eq!(it.talk(), Vec::<String>::new());
    }
}

/// Digests in the order of their numbers.
fn numbered(number: u16) -> Digest {
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&number.to_be_bytes());
    Digest::new(bytes)
}

#[test]
fn a_client_compares_nothing() {
    let mut it = with_liar();
    it.say(Peer::Client(ClientId::new(1)), 0, whole(Held::Digest(Digest::ZERO)));
    it.say(BROKER, 0, whole(Held::Digest(Digest::ZERO)));
    assert_eq!(it.talk(), Vec::<String>::new());
    assert!(!it.sent.iter().any(is_publication));
}
