//! A group that is slower than its clients are patient: what they ask again must not make it slower.

use crate::harness::{Cluster, Flying, config, replica};
use crate::subject::Config;
use crate::words::{is_publication, signed};
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber};
use quorate_core::protocol::Consistency;
use quorate_core::sessions::Body;
use quorate_core::time::Duration;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Content};
use quorate_protocols::reception::{Certified, Message, digest};
use std::collections::{BTreeMap, BTreeSet};

/// A group whose primary nobody suspects for being slow, and a client of it that knows its session.
fn slow() -> Cluster {
    let module = pbft::Config { view_change: Duration::from_secs(60), ..pbft::Config::default() };
    let mut it = Cluster::with(4, Config { module, ..config() });
    it.client(1).apply(1, "a");
    it.run(3_000);
    it
}

impl Cluster {
    /// As which entries each publication was proposed.
    fn proposed(&self) -> BTreeMap<Digest, BTreeSet<OpNumber>> {
        let mut found: BTreeMap<Digest, BTreeSet<OpNumber>> = BTreeMap::new();
        for message in self.sent.iter().filter_map(Flying::message) {
            let Message::Module(pbft::Message::PrePrepare { vote, proposal }) = message else { continue };
            let content = proposal.content();
            let Content::Orders(orders) = &*content else { continue };
            for (_, body) in orders.groups.iter().flat_map(|group| &group.statement().requests) {
                let Body::Apply(bytes) = body else { continue };
                let certified = Certified::decode(bytes).expect("a certificate");
                found.entry(digest(&certified.group)).or_default().insert(vote.statement().op);
            }
        }
        found
    }
}

const CLIENT: Peer = Peer::Client(ClientId::new(1));

/// Something that is not ordered while it lasts.
const NOT_ORDERED: fn(&Flying) -> bool = |it| it.label == "Commit";

#[test]
fn what_is_asked_again_while_the_group_is_slow_is_received_certified_and_ordered_once() {
    let mut it = slow();
    it.talk();
    it.lose(NOT_ORDERED);
    let tickets: Vec<_> = ["b", "c", "d"].map(|operation| it.submit(1, operation)).into();
    it.run(5_000);
    assert!(it.count("Submit") >= 3 * 4 * 3, "the client has asked again and again");
    it.heal();
    it.run_until("everything is answered", |it| tickets.iter().all(|ticket| it.answer(1, *ticket).is_some()));
    it.run(5_000);
    let proposed = it.proposed();
    assert_eq!(proposed.len(), 3, "three publications");
    assert!(proposed.values().all(|entries| entries.len() == 1), "each proposed as one entry: {proposed:?}");
    assert!(["b", "c", "d"].iter().all(|operation| it.applied_times(operation) == 1));
}

#[test]
fn bytes_that_the_primary_has_are_not_passed_on_to_it_again() {
    let mut it = slow();
    it.talk();
    it.lose(NOT_ORDERED);
    it.submit(1, &"x".repeat(100_000));
    it.run(5_000);
    assert_eq!(it.count("Request"), 0);
    let among = |it: &Flying| [it.from, it.to].iter().all(|peer| (0..4).any(|id| *peer == replica(id)));
    let large = |it: &&Flying| among(it) && it.bytes.len() >= 100_000 && it.label != "PrePrepare";
    assert_eq!(it.sent.iter().filter(large).map(|it| it.label).collect::<Vec<_>>(), Vec::<&str>::new());
}

#[test]
fn what_every_backup_passes_on_is_ordered_once() {
    // Nobody knows that the primary has it.
    let mut it = slow();
    it.talk();
    it.lose(|it| NOT_ORDERED(it) || (it.label == "Reception" && it.from == replica(0)));
    let ticket = it.submit(1, "b");
    it.run(5_000);
    assert!(it.count("Request") >= 3);
    it.heal();
    it.run_until("it is answered", |it| it.answer(1, ticket).is_some());
    it.run(3_000);
    assert_eq!(it.proposed().values().map(BTreeSet::len).collect::<Vec<_>>(), [1]);
}

#[test]
fn a_primary_that_lacks_a_publication_is_given_it_with_its_certificate() {
    let mut it = slow();
    it.lose(|it| it.to == replica(0) && (is_publication(it) || it.label == "Publication"));
    let ticket = it.submit(1, "b");
    it.run(5_000);
    assert!(it.answer(1, ticket).is_some());
    assert!(it.count("Request") > 0);
}

#[test]
fn a_primary_that_lacks_receptions_is_given_those_that_a_backup_has() {
    let mut it = slow();
    it.talk();
    it.lose(|it| it.label == "Reception" && it.to == replica(0) && it.from != replica(1));
    let ticket = it.submit(1, "b");
    it.run(5_000);
    assert!(it.answer(1, ticket).is_some());
    assert_eq!(it.count("Request"), 0);
}

/// Loses what one replica answers, the one that the client has chosen for full answers. Whether each replica has answered in full
/// the first time, and the last time.
fn answered_without_the_chosen_one(slow_at: impl Fn(&mut Cluster, bool)) -> Vec<(bool, bool)> {
    let mut it = slow();
    for number in 0..20 {
        it.apply(1, &format!("operation {number}"));
    }
    it.run(3_000);
    it.talk();
    it.lose(|it| it.label == "Reply" && it.from == replica(2));
    slow_at(&mut it, true);
    let ticket = it.read(1, Consistency::Ordered);
    it.run(2_000);
    assert!(it.count("Submit") > 0);
    slow_at(&mut it, false);
    it.run_until("it is answered", |it| it.answer(1, ticket).is_some());
    let said = || it.sent.iter().filter_map(|sent| Some((sent.from, sent.message()?)));
    let digests = said().filter_map(|(_, message)| match message {
        Message::Reception { vote, .. } => Some(vote.statement().digest),
        _ => None,
    });
    assert_eq!(digests.collect::<BTreeSet<_>>().len(), 1, "it is one publication, and received once");
    let by = |id: usize| {
        let full = said().filter_map(move |(from, message)| match message {
            Message::Module(pbft::Message::Reply(reply)) if from == replica(id) => {
                Some(reply.rulings.iter().all(|(_, told)| matches!(told, pbft::Told::Full(_))))
            }
            _ => None,
        });
        full.collect::<Vec<bool>>()
    };
    (0..4).map(by).map(|told| (told[0], told[told.len() - 1])).collect()
}

#[test]
fn who_asks_again_is_answered_in_full_by_everybody_who_has_answered() {
    let told = answered_without_the_chosen_one(|_, _| {});
    assert_eq!(told, [(false, true), (false, true), (true, true), (false, true)]);
}

#[test]
fn who_asks_again_before_it_is_ordered_is_answered_in_full_by_everybody() {
    let told = answered_without_the_chosen_one(|it, slow| {
        it.lose(move |it| (slow && NOT_ORDERED(it)) || (it.label == "Reply" && it.from == replica(2)));
    });
    assert_eq!(told, [(true, true); 4]);
}

#[test]
fn who_asks_again_while_the_machine_is_busy_with_it_is_answered_in_full_by_everybody() {
    let told = answered_without_the_chosen_one(|it, slow| {
        for id in 0..4 {
            it.hosts[id].fast_machine = !slow;
            if !slow {
                it.work(id);
            }
        }
    });
    assert_eq!(told, [(true, true); 4]);
}

#[test]
fn a_publication_whose_first_answers_are_acknowledged_is_answered_again_and_not_ordered_again() {
    let mut it = slow();
    let session = it.session(1);
    let text = |operation: &str| Body::Apply(operation.to_owned().into());
    let two = signed(1, session, 0, vec![(2, text("b")), (3, text("c"))]);
    let next = signed(1, session, 2, vec![(4, text("d"))]);
    for group in [&two, &next] {
        for id in 0..4 {
            it.say(CLIENT, id, Message::Publish(group.clone()));
        }
        it.run(3_000);
    }
    assert_eq!(it.applied_times("d"), 1);
    it.talk();
    for id in 0..4 {
        it.say(CLIENT, id, Message::Submit(two.clone()));
    }
    it.run(3_000);
    assert_eq!((it.count("Reply"), it.count("Reception"), it.count("PrePrepare")), (4, 0, 0));
    let numbers = it.sent.iter().filter_map(Flying::message).flat_map(|message| match message {
        Message::Module(pbft::Message::Reply(reply)) => reply.rulings.into_iter().map(|(number, _)| number).collect(),
        _ => Vec::new(),
    });
    assert!(numbers.into_iter().all(|number| number == RequestNumber::new(3)), "2 is acknowledged");
}
