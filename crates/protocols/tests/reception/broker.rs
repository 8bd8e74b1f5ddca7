//! The matrix of broker faults (specification C.5), one test for each, and a broker with all of them at every level of
//! criticality. Whatever it does, what is acknowledged is there once, in one order.

use crate::harness::{Cluster, Flying, config, replica};
use crate::subject::Config;
use crate::words::{group, is_publication};
use bytes::Bytes;
use quorate_core::crypto::Signed;
use quorate_core::ids::{ClientId, Peer};
use quorate_core::protocol::Consistency;
use quorate_core::sessions::Body;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Group};
use quorate_protocols::reception::Message;

/// A client that is connected, and knows its session.
fn ready() -> Cluster {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it
}

/// A broker proves nothing, what it carries does.
const BROKER: Peer = Peer::Client(ClientId::BROKER);

#[test]
fn drop_one_copy_at_one_correct_replica_is_enough() {
    let mut it = ready();
    it.lose(|it| is_publication(it) && it.to != replica(2));
    let ticket = it.submit(1, "b");
    it.run(1_000);
    assert!(it.answer(1, ticket).is_some());
    it.run(1_000);
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn duplicate_a_publication_that_comes_many_times_is_inserted_once() {
    let mut it = ready();
    let ticket = it.submit(1, "b");
    let copy = it.published(1);
    for round in 0..5 {
        for id in 0..4 {
            it.say(BROKER, id, Message::Publish(copy.clone()));
        }
        it.run(round * 30);
    }
    it.run(3_000);
    assert!(it.answer(1, ticket).is_some());
    assert_eq!(it.applied_times("b"), 1);
}

#[test]
fn reorder_replicas_that_receive_in_different_orders_insert_in_one() {
    let mut it = ready();
    let session = it.session(1);
    let groups: Vec<Group> = (2..8).map(|number| group(1, session, number, &format!("n{number}"))).collect();
    for id in 0..4 {
        for index in 0..groups.len() {
            let index = (index * 5 + id * 2) % groups.len();
            it.say(BROKER, id, Message::Publish(groups[index].clone()));
        }
    }
    it.run(3_000);
    assert_eq!((2..8).map(|number| it.applied_times(&format!("n{number}"))).sum::<usize>(), groups.len());
}

#[test]
fn tamper_what_was_changed_on_its_way_is_never_kept() {
    let mut it = ready();
    let session = it.session(1);
    let good = group(1, session, 2, "pay ann");
    let mut words = good.statement().clone();
    words.requests[0].1 = Body::Apply(Bytes::from_static(b"pay bob"));
    let forged: Group = Signed::claimed(good.by(), words, *good.signature());
    let before = it.blamed(0);
    for id in 0..4 {
        it.say(BROKER, id, Message::Publish(forged.clone()));
    }
    it.run(1_000);
    assert_eq!(it.applied_times("pay bob"), 0);
    assert_eq!(it.blamed(0), before + 1);
    assert_eq!(it.count("Reception"), it.sent.iter().filter(|it| it.label == "Reception").count());
    for index in 0..good.encode().len() {
        let mut bytes = Message::Publish(good.clone()).encode();
        bytes[index + 1] ^= 1;
        if let Ok(bent) = Message::decode(&bytes) {
            it.say(BROKER, 1, bent);
        }
    }
    it.run(1_000);
    assert_eq!(it.tape(0), ["a"]);
}

#[test]
fn replay_an_old_publication_changes_nothing() {
    let mut it = ready();
    it.apply(1, "b").apply(1, "c");
    let first = it.sent.iter().find(|it| is_publication(it)).and_then(crate::harness::Flying::message).expect("one");
    it.run(5_000);
    let tape = it.tape(0);
    for _ in 0..3 {
        for id in 0..4 {
            it.say(BROKER, id, first.clone());
        }
        it.run(2_000);
    }
    assert_eq!(it.applied_times("b"), 1);
    assert_eq!(it.tape(0), tape);
}

#[test]
fn partition_replicas_that_get_different_publications_get_them_all() {
    let mut it = ready();
    let session = it.session(1);
    for number in 2..6 {
        let to = usize::try_from(number).expect("small") % 4;
        it.say(BROKER, to, Message::Publish(group(1, session, number, &format!("n{number}"))));
    }
    it.run(3_000);
    assert!((2..6).all(|number| it.applied_times(&format!("n{number}")) == 1));
}

#[test]
fn delay_what_comes_long_after_it_was_inserted_is_late() {
    let mut it = ready();
    it.lose(|it| is_publication(it) && it.to == replica(3));
    let ticket = it.submit(1, "b");
    let copy = it.published(1);
    it.run(2_000);
    assert!(it.answer(1, ticket).is_some());
    it.heal();
    it.talk();
    it.say(BROKER, 3, Message::Publish(copy));
    it.run(2_000);
    assert_eq!(it.talk(), Vec::<String>::new(), "nobody is troubled by the late copy");
}

#[test]
fn total_loss_is_survived_by_submitting_to_the_replicas_directly() {
    let mut it = ready();
    it.lose(|it| it.label == "Publish");
    let ticket = it.submit(1, "b");
    it.run(100);
    assert_eq!(it.answer(1, ticket), None);
    it.run(1_000);
    assert!(it.answer(1, ticket).is_some());
    assert_eq!(it.applied_times("b"), 1);
    it.apply(1, "c");
    assert!(it.count("Submit") > 0, "what is new is published first, and then submitted");
}

#[test]
fn a_client_leaves_to_the_broker_what_is_new_and_nothing_twice() {
    let mut it = ready();
    it.talk();
    it.apply(1, "b");
    assert_eq!((it.count("Publish"), it.count("Submit")), (4, 0));
    it.talk();
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "c");
    it.run(400);
    assert_eq!((it.count("Publish"), it.count("Submit")), (4, 4));
    it.heal();
    it.run_until("its answers come again", |it| it.answer(1, ticket).is_some());
    assert_eq!(it.applied_times("c"), 1);
}

#[test]
fn a_broker_that_repeats_everything_has_nothing_ordered_again() {
    // The client has acknowledged what follows from these, so no replica remembers the answers.
    let mut it = ready();
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(5_000);
    let copies: Vec<Message> = it.sent.iter().filter(|it| it.label == "Publish").filter_map(Flying::message).collect();
    assert!(copies.len() >= 80);
    it.talk();
    for copy in copies {
        for id in 0..4 {
            it.say(BROKER, id, copy.clone());
        }
    }
    it.run(10_000);
    assert_eq!((it.count("Reception"), it.count("PrePrepare")), (0, 0));
}

#[test]
fn a_broker_that_repeats_what_is_older_than_all_digests_that_are_remembered_has_nothing_ordered_again() {
    // Replicas that have started again remember no digests of what is in their snapshots: as if 16,384 others had been ordered since.
    let module = pbft::Config { checkpoint_entries: 4, state_entries: 8, ..Default::default() };
    let mut it = Cluster::with(4, Config { module, ..config() });
    it.client(1);
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(5_000);
    let copies: Vec<Message> = it.sent.iter().filter(|it| it.label == "Publish").filter_map(Flying::message).collect();
    for id in 0..4 {
        it.crash(id);
    }
    (0..4).for_each(|id| it.restart(id));
    it.run(5_000);
    it.apply(1, "later"); // which acknowledges all of these
    it.run(5_000);
    it.talk();
    for copy in copies {
        let Message::Publish(group) = &copy else { unreachable!("only these were kept") };
        if group.statement().session.get() == 0 {
            continue; // it asks for a session, and is given the one that it has
        }
        for id in 0..4 {
            it.say(BROKER, id, copy.clone());
        }
        it.run(100);
    }
    it.run(5_000);
    assert_eq!(it.talk(), Vec::<String>::new());
    assert!((0..20).all(|index| it.applied_times(&format!("x{index}")) == 1));
}

#[test]
fn of_a_session_that_is_gone_a_broker_has_one_publication_ordered_and_no_more() {
    let mut it = ready();
    let entries = |it: &Cluster| it.status(0).committed.get();
    let before = entries(&it);
    for number in 1..=10 {
        for id in 0..4 {
            it.say(BROKER, id, Message::Publish(group(1, 999, number, "never")));
        }
        it.run(1_000);
    }
    assert_eq!(entries(&it), before + 1);
    assert_eq!(it.applied_times("never"), 0);
}

#[test]
fn nothing_but_publications_is_taken_from_a_broker_and_nobody_asks_again_for_a_client() {
    let mut it = ready();
    it.apply(1, "b");
    it.run(5_000);
    let copy = it.published(1);
    let (number, query) = (7, Bytes::new());
    let read = pbft::Message::Read { id: number, consistency: Consistency::Ordered, full: None, query };
    it.talk();
    for id in 0..4 {
        it.say(BROKER, id, Message::Submit(copy.clone()));
        it.say(BROKER, id, Message::Module(read.clone()));
        it.say(Peer::Client(ClientId::new(2)), id, Message::Submit(copy.clone()));
        it.say(replica((id + 1) % 4), id, Message::Submit(copy.clone()));
    }
    it.run(5_000);
    assert_eq!(it.talk(), Vec::<String>::new());
    assert!((0..4).all(|id| it.blamed(id) == 0), "whoever stands behind a broker is not known");
}

#[test]
fn of_two_publications_that_contradict_each_other_the_order_takes_one_and_nothing_is_stuck() {
    // C.5, the equivocating publisher: one number, two requests, to different replicas.
    let mut it = ready();
    let session = it.session(1);
    for id in 0..4 {
        let said = if id % 2 == 0 { "one" } else { "other" };
        it.say(BROKER, id, Message::Publish(group(1, session, 2, said)));
    }
    it.run(3_000);
    assert_eq!(it.applied_times("one") + it.applied_times("other"), 1);
    assert!((0..4).all(|id| it.blamed(id) == 1), "its client has signed both");
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new(), "nothing is pending");
}

#[test]
fn a_broker_with_every_fault_at_every_level_of_criticality() {
    for (criticality, replicas) in [(0, 4), (1, 4), (0, 7), (1, 7), (2, 7)] {
        for seed in 0..4 {
            worst_broker(criticality, replicas, seed, false);
        }
    }
}

#[test]
fn a_broker_with_every_fault_and_requests_of_all_levels_of_criticality_in_one_cluster() {
    for (replicas, seed) in [(4, 4), (4, 5), (7, 6), (7, 7), (7, 8)] {
        worst_broker(1, replicas, seed, true);
    }
}

/// Publications pass through a broker that loses, repeats, delays, reorders, tampers and cuts off, as the seed says.
fn worst_broker(criticality: u8, replicas: usize, seed: u64, each_its_own: bool) {
    let mut it = Cluster::with(replicas, Config { criticality: Some(criticality), ..config() });
    let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut below = move |count: u64| {
        dice ^= dice << 13;
        dice ^= dice >> 7;
        dice ^= dice << 17;
        (dice >> 11) % count
    };
    it.client(1).apply(1, "start");
    let mut held: Vec<(usize, Message)> = Vec::new();
    let mut tickets = Vec::new();
    for round in 0..40_u8 {
        it.lose(is_publication);
        let levels = u8::try_from(replicas.div_ceil(3)).expect("few");
        let level = (round % (levels + 1)).checked_sub(1).filter(|_| each_its_own);
        let operation = format!("x{round}");
        tickets.push(match level {
            Some(level) => it.submit_at(1, level, &operation),
            None => it.submit(1, &operation),
        });
        it.deliver();
        it.heal();
        let copy = Message::Publish(it.published(1));
        for to in 0..replicas {
            for _ in 0..below(3) {
                held.push((to, copy.clone()));
            }
        }
        for _ in 0..below(8) {
            if held.is_empty() {
                break;
            }
            let (to, message) = held.remove(usize::try_from(below(held.len() as u64)).expect("small"));
            let mut bytes = message.encode();
            if below(10) == 0 {
                let place = usize::try_from(below(bytes.len() as u64)).expect("small");
                bytes[place] ^= 1 << below(8);
            }
            if let Ok(message) = Message::decode(&bytes) {
                it.say(BROKER, to, message);
            }
        }
        it.lose(is_publication);
        it.run(below(40));
    }
    it.heal();
    let what = format!("everything is answered: e = {criticality} of {replicas}, seed {seed}");
    it.run_until(&what, |it| tickets.iter().all(|ticket| it.answer(1, *ticket).is_some()));
    it.run(5_000);
    assert!((0..40).all(|round| it.applied_times(&format!("x{round}")) == 1), "seed {seed}");
}
