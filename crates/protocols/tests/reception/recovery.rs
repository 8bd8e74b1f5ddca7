//! The disk: what was promised is kept, with the same times, whoever loses power.

use crate::harness::{Cluster, Flying, replica};
use crate::subject::Record;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::outbox::Class;
use quorate_protocols::reception::Message;

fn is_reception_record(record: &Record) -> bool {
    matches!(record, Record::Received { .. })
}

/// A publication that everybody has received and nobody has ordered; its client is gone.
fn stuck() -> Cluster {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "PrePrepare");
    it.submit(1, "b");
    it.deliver();
    it.clients.clear();
    it
}

#[test]
fn what_was_received_is_ordered_after_everybody_has_lost_power_and_the_client_is_gone() {
    let mut it = stuck();
    for id in 0..4 {
        it.crash(id);
    }
    it.heal();
    (0..4).for_each(|id| it.restart(id));
    it.run(5_000);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn a_replica_that_comes_back_says_the_same_times_as_before() {
    let mut it = stuck();
    let of = it.published(1);
    let before: Vec<_> = (0..4).map(|id| it.received_at(id, &of)).collect();
    it.now += 10_000_000_000;
    for id in 0..4 {
        it.crash(id);
    }
    (0..4).for_each(|id| it.restart(id));
    it.run(100);
    for (id, before) in before.iter().enumerate() {
        assert_eq!(it.received_at(id, &of), *before);
        assert_eq!(it.blamed(id), 0);
    }
}

#[test]
fn a_publication_whose_bytes_are_damaged_is_pulled_and_keeps_its_time() {
    let mut it = stuck();
    let of = it.published(1);
    let before = it.received_at(2, &of);
    it.crash(2);
    let damaged = it.hosts[2].journal.iter().rposition(|it| matches!(it.record(), Record::Publication(_)));
    it.hosts[2].journal[damaged.expect("a record")].damaged = Some(Some(Class::Entry));
    it.restart(2);
    it.run(3_000);
    assert!(it.sent.iter().any(|it| it.from == replica(2) && it.label == "GetPublication"));
    assert_eq!(it.received_at(2, &of), before);
    it.heal();
    it.run(3_000);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn what_was_ordered_is_not_received_again_after_a_restart() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.crash(1);
    assert!(it.hosts[1].journal.iter().any(|it| is_reception_record(&it.record())), "the log still has it");
    it.talk();
    it.restart(1);
    it.run(3_000);
    let told = it.sent.iter().filter(|it| it.from == replica(1) && it.label == "Reception").count();
    assert_eq!(told, 0);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn a_replica_that_missed_the_order_learns_that_its_publication_is_settled() {
    // It has received something, and comes back when the others have ordered it and gone on far beyond their logs.
    let config = crate::subject::Config {
        module: quorate_protocols::pbft::Config { checkpoint_entries: 4, state_entries: 8, ..Default::default() },
        ..crate::harness::config()
    };
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a");
    it.run(1_000);
    it.lose(|it| it.label == "PrePrepare");
    let ticket = it.submit(1, "b");
    it.deliver();
    it.crash(3);
    it.heal();
    it.run_until("the others order it", |it| it.answer(1, ticket).is_some());
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.restart(3);
    it.run(20_000);
    assert_eq!(it.applied_times("b"), 1);
    it.talk();
    it.run(60_000);
    assert_eq!(it.count("Reception"), 0, "R3 does not speak of it for ever");
}

#[test]
fn what_was_ordered_and_is_published_again_is_ordered_again_with_new_times_whatever_is_remembered_of_the_old_ones() {
    // Found by seed 69: a client that opens its session again publishes the same bytes. R1 has an old reception of R3 in its books.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    let of = it.published(1);
    it.run(2_000);
    let old = it.sent.iter().find(|it| it.from == replica(3) && it.label == "Reception" && received(it, &of)).cloned();
    for _ in 0..2 {
        it.talk();
        for id in 0..4 {
            it.say(Peer::Client(ClientId::new(1)), id, Message::Submit(of.clone()));
            if id == 1 {
                it.hand_over(&Flying { to: replica(1), ..old.clone().expect("a reception") });
            }
        }
        it.run(5_000);
    }
    assert!(it.count("Reply") > 0, "it is answered again");
    assert_eq!(it.applied_times("a"), 1);
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new(), "nothing is pending");
}

fn received(it: &Flying, of: &quorate_protocols::pbft::Group) -> bool {
    let Some(Message::Reception { vote, .. }) = it.message() else { return false };
    vote.statement().digest == quorate_protocols::reception::digest(of)
}

#[test]
fn the_log_keeps_a_publication_until_it_is_ordered_and_not_much_longer() {
    let config = crate::subject::Config {
        module: quorate_protocols::pbft::Config { checkpoint_entries: 4, state_entries: 8, ..Default::default() },
        ..crate::harness::config()
    };
    let mut it = Cluster::with(4, config);
    it.client(1).client(2);
    it.apply(1, "a").apply(2, "b");
    // R3 alone receives something that the others never hear of, nor can ask for.
    it.lose(|it| {
        let of_r3 = it.from == replica(3) && matches!(it.label, "Reception" | "Publication");
        of_r3 && matches!(it.message(), Some(Message::Reception { .. } | Message::Publication(_))) && is_held(it)
    });
    let session = it.session(2);
    it.say(replica(0), 3, Message::Publish(crate::words::group(2, session, 9, "held")));
    for index in 0..60 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(3_000);
    let has = |it: &Cluster| {
        it.hosts[3].journal.iter().any(|it| matches!(it.record(), Record::Publication(group) if group == crate::words::group(2, session, 9, "held")))
    };
    assert!(has(&it), "it is promised");
    it.heal();
    it.run(5_000);
    for index in 0..60 {
        it.apply(1, &format!("y{index}"));
    }
    it.run(3_000);
    assert_eq!(it.applied_times("held"), 1);
    assert!(!has(&it), "it is in the state now");
    assert!(it.hosts[0].journal.len() < 400, "{} records", it.hosts[0].journal.len());
}

/// A reception or copy of the publication that R3 alone has: its number is 9.
fn is_held(it: &Flying) -> bool {
    match it.message() {
        Some(Message::Publication(group)) => group.statement().requests[0].0.get() == 9,
        // All receptions of R3: the others are three, and enough without it.
        Some(Message::Reception { .. }) => true,
        _ => false,
    }
}
