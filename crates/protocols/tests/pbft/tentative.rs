//! Tentative execution (Castro and Liskov §5.1): one round of messages less for the client, and nothing else that it can see.

use crate::harness::{Cluster, ENVELOPE, Flying, config, replica};
use crate::words::{op, view};
use quorate_core::ids::{ClientId, Peer, RequestNumber, SessionId};
use quorate_core::node::Payload;
use quorate_core::protocol::Consistency;
use quorate_core::sessions::Ruling;
use quorate_protocols::pbft::{Config, Message, Reply, Told};

fn tries() -> Config {
    Config { tentative_requests: 16, ..config() }
}

/// Four replicas that have executed `a`, all quiet.
fn four() -> Cluster {
    let mut it = Cluster::with(4, tries());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.talk();
    it
}

#[test]
fn a_request_is_answered_when_it_is_prepared_and_nobody_has_committed_it() {
    let mut it = four();
    let before = it.committed(0);
    it.lose(|it| it.label == "Commit");
    let ticket = it.submit(1, "b");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    assert!((0..4).all(|id| it.committed(id) == before && it.tape(id) == ["a"]));
    it.heal().run(3_000);
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn a_request_costs_one_reply_more_of_each_replica() {
    let mut it = four();
    it.submit(1, "b");
    it.deliver();
    let counts = ["Request", "PrePrepare", "Prepare", "Commit", "Tentative", "Reply"].map(|label| it.count(label));
    assert_eq!(counts, [1, 3, 9, 12, 4, 4]);
}

#[test]
fn a_tentative_reply_waits_for_the_certificate_to_be_on_disk() {
    let mut it = four();
    it.lose(|it| it.label == "Commit");
    it.hosts[1].fast_disk = false;
    it.hosts[2].fast_disk = false;
    let ticket = it.submit(1, "b");
    it.deliver();
    it.sync(1).sync(2); // their votes
    it.deliver();
    assert_eq!(it.answer(1, ticket), None);
    it.sync(1); // its certificate
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"), "three of four");
}

#[test]
fn two_tentative_replies_are_believed_by_nobody_and_two_final_ones_are() {
    let mut it = four();
    it.lose(|it| it.label == "Commit" || (it.label == "Tentative" && [replica(2), replica(3)].contains(&it.from)));
    let ticket = it.submit(1, "b");
    it.run(100);
    assert_eq!(it.answer(1, ticket), None);
    it.heal()
        .lose(|it| it.label == "Tentative" || (it.label == "Reply" && [replica(2), replica(3)].contains(&it.from)));
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
}

/// R`from` says so to client 1.
fn says(it: &mut Cluster, from: usize, in_view: u64, at: u64, is_final: bool) {
    let rulings = vec![(RequestNumber::new(2), Told::Full(Ruling::Replied("x".into())))];
    let reply = Reply { view: view(in_view), op: op(at), session: SessionId::new(1), rulings };
    let message = if is_final { Message::Reply(reply) } else { Message::Tentative(reply) };
    let bytes = ENVELOPE.seal(&Payload::Protocol(message));
    it.hand_over(&Flying { from: replica(from), to: Peer::Client(ClientId::new(1)), label: "Reply", bytes });
}

#[test]
fn tentative_replies_count_together_only_for_one_entry_of_one_view() {
    for (of_third, believed) in [((1, 3), false), ((0, 4), false), ((0, 3), true)] {
        let mut it = four();
        it.lose(|it| matches!(it.label, "Reply" | "Tentative"));
        let ticket = it.submit(1, "b");
        it.deliver();
        it.heal();
        says(&mut it, 0, 0, 3, false);
        says(&mut it, 1, 0, 3, false);
        says(&mut it, 2, of_third.0, of_third.1, false);
        assert_eq!(it.answer(1, ticket).is_some(), believed, "{of_third:?}");
    }
}

#[test]
fn a_final_reply_counts_with_tentative_ones_and_is_not_taken_back() {
    let mut it = four();
    it.lose(|it| matches!(it.label, "Reply" | "Tentative"));
    let ticket = it.submit(1, "b");
    it.deliver();
    it.heal();
    says(&mut it, 2, 7, 9, true);
    says(&mut it, 2, 1, 4, false);
    says(&mut it, 0, 0, 3, false);
    assert_eq!(it.answer(1, ticket), None);
    says(&mut it, 1, 0, 3, false);
    assert_eq!(it.answer(1, ticket).as_deref(), Some("x"));
}

#[test]
fn what_was_answered_tentatively_keeps_its_place_in_the_next_view() {
    let mut it = four();
    it.lose(|it| it.label == "Commit");
    let ticket = it.submit(1, "b");
    it.deliver();
    assert!(it.answer(1, ticket).is_some());
    it.crash(0);
    it.heal();
    it.apply(1, "c");
    it.restart(0);
    it.run(3_000);
    assert!(it.agrees(&["a", "b", "c"]));
}

#[test]
fn what_was_tried_and_did_not_last_is_undone() {
    // R1 alone prepares `b` and executes it; the others go on without R1, and order `c` there.
    let mut it = four();
    it.client(2).apply(2, "other");
    it.run(2_000);
    it.lose(|it| it.label == "Prepare" && it.to != replica(1));
    let ticket = it.submit(1, "b");
    it.deliver();
    let tried = it.hosts[1].process.as_ref().map(|process| process.executor.branches());
    assert_eq!((tried, it.answer(1, ticket)), (Some(1), None));
    it.crash(0);
    it.heal().isolate(1);
    it.clients.remove(&ClientId::new(1)); // nobody asks for `b` again
    it.restart(0); // a primary that restarts leaves its view
    it.apply(2, "c");
    it.heal();
    it.apply(2, "d");
    it.run(5_000);
    let tape = it.tape(0);
    assert!((1..4).all(|id| it.tape(id) == tape), "{tape:?} {:?}", it.tape(1));
    assert_eq!(tape, ["a", "other", "c", "d"]);
    let left = it.hosts[1].process.as_ref().map(|process| process.executor.branches());
    assert_eq!(left, Some(0));
}

#[test]
fn a_read_without_order_waits_for_what_was_answered_tentatively() {
    // §5.1.3: it reflects committed states only.
    let mut it = four();
    it.client(2).apply(2, "other");
    it.run(2_000);
    it.lose(|it| matches!(it.label, "Commit" | "Committed"));
    let write = it.submit(1, "b");
    it.deliver();
    assert!(it.answer(1, write).is_some());
    let read = it.read(2, Consistency::Linearizable);
    it.run(100);
    assert_eq!(it.answer(2, read), None);
    it.heal();
    it.run_until("the read is answered", |it| it.answer(2, read).is_some());
    assert_eq!(it.answer(2, read).as_deref(), Some("a other b"));
}

#[test]
fn a_checkpoint_is_never_tentative() {
    let mut it = Cluster::with(4, Config { state_entries: 1, checkpoint_entries: 1, ..tries() });
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Commit");
    let ticket = it.submit(1, "b");
    it.deliver();
    assert!(it.answer(1, ticket).is_some());
    for id in 0..4 {
        let last = it.hosts[id].snapshots.keys().map(|checkpoint| checkpoint.op).max().expect("a snapshot");
        assert_eq!(last, op(it.committed(id)));
    }
}

#[test]
fn an_entry_of_many_requests_is_executed_when_it_is_committed() {
    let mut it = Cluster::with(4, Config { tentative_requests: 2, ..config() });
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.hosts[0].fast_disk = false;
    it.talk();
    for index in 0..9 {
        it.submit(1, &format!("x{index}"));
    }
    it.deliver();
    it.hosts[0].fast_disk = true;
    it.sync(0).run(500);
    assert_eq!(it.tape(0).len(), 10);
    assert!(it.count("Tentative") < it.count("Reply"), "{} of {}", it.count("Tentative"), it.count("Reply"));
    it.talk();
    it.apply(1, "y").apply(1, "z");
    assert!(it.count("Tentative") >= 4, "small ones are tried again");
    it.run(2_000);
    assert!((1..4).all(|id| it.tape(id) == it.tape(0)));
}
