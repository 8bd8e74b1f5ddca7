//! What a node promises to its protocol and to its peers, whatever either of them does.

use crate::support::{Act, ENVELOPE, Message, Stage, client, replica, short};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Ledger, Why};
use quorate_core::ids::{ClusterId, Epoch, RecordSeq};
use quorate_core::node::{Input, Payload};
use quorate_core::transfer::RETRY;
use quorate_core::wire::Envelope;

#[test]
fn what_a_turn_sends_leaves_when_everything_that_it_persisted_is_durable() {
    let mut stage = Stage::new();
    let told = stage.tell(&[Act::Tell(0, 5), Act::Persist(1), Act::TellNow(0, 6), Act::Persist(2)]);
    assert_eq!(short(&told), ["append 1", "send 6 to One(Replica(ReplicaId(0)))", "append 2"]);
    assert!(short(&stage.input(Input::Synced(RecordSeq::new(1)))).is_empty(), "half a turn is no turn");
    assert_eq!(stage.node.held(), 1);
    assert_eq!(short(&stage.input(Input::Synced(RecordSeq::new(2)))), ["send 5 to One(Replica(ReplicaId(0)))"]);
    assert_eq!(short(&stage.tell(&[Act::TellAll(7)])), ["send 7 to Others"], "nothing is on its way to disk now");
}

#[test]
fn a_turn_that_persists_nothing_still_waits_for_the_turns_before_it() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Persist(1)]);
    assert!(short(&stage.tell(&[Act::TellAll(7)])).is_empty());
    assert_eq!(short(&stage.input(Input::Synced(RecordSeq::new(1)))), ["send 7 to Others"]);
}

#[test]
fn a_record_is_awaited_if_something_waits_until_it_is_durable() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Persist(1), Act::TellNow(0, 6)]);
    assert_eq!(stage.node.awaited(), None, "what has left waits for nothing");
    stage.tell(&[Act::Tell(0, 5)]);
    assert_eq!(stage.node.awaited(), Some(RecordSeq::new(1)), "a later turn waits, too");
    stage.tell(&[Act::Persist(2)]);
    assert_eq!(stage.node.awaited(), Some(RecordSeq::new(1)));
    stage.tell(&[Act::Persist(3), Act::Tell(1, 8)]);
    assert_eq!(stage.node.awaited(), Some(RecordSeq::new(3)), "oneself waits, too");
    stage.input(Input::Synced(RecordSeq::new(3)));
    assert_eq!(stage.node.awaited(), None);
    stage.tell(&[Act::Persist(4), Act::Forget(1)]);
    assert_eq!(stage.node.awaited(), Some(RecordSeq::new(4)), "what is forgotten waits for what replaces it");
}

#[test]
fn a_replicas_vote_to_itself_comes_back_when_it_is_durable() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Persist(1), Act::Tell(1, 8)]);
    assert!(stage.heard().is_empty());
    stage.input(Input::Synced(RecordSeq::new(1)));
    assert_eq!(stage.heard(), ["R1 says 8"]);
}

#[test]
fn no_bytes_can_panic_a_node() {
    let mut stage = Stage::new();
    let good = ENVELOPE.seal(&Payload::Protocol(Message::Do(vec![Act::Arm(1, 5), Act::Arm(2, 5)])));
    for length in 0..good.len() {
        stage.input(Input::Frame { from: replica(2), bytes: good.slice(..length) });
        let mut bent = good.to_vec();
        bent[length] ^= 0xff;
        stage.input(Input::Frame { from: replica(2), bytes: bent.into() });
    }
    assert!(matches!(stage.node.ledger().last(), Some((_, Fault::Malformed(_)))));
}

#[test]
fn a_message_of_another_epoch_is_late_even_if_it_is_not_one_of_this_protocol() {
    let mut stage = Stage::new();
    let other = Envelope { epoch: Epoch::new(1), ..ENVELOPE };
    stage.input(Input::Frame { from: replica(2), bytes: other.seal(&[0xff_u8; 9]) });
    assert_eq!(stage.node.ledger().ignored().get(&Why::OtherEpoch), Some(&1));
    assert!(stage.node.ledger().blamed().is_empty());
    let other = Envelope { cluster: ClusterId::new(8), ..ENVELOPE };
    stage.input(Input::Frame { from: replica(2), bytes: other.seal(&Payload::Protocol(Message::Word(1))) });
    assert!(matches!(stage.node.ledger().last(), Some((_, Fault::OtherCluster))));
}

#[test]
fn a_replica_that_halts_says_nothing_more() {
    let mut stage = Stage::new();
    assert_eq!(short(&stage.tell(&[Act::Persist(1), Act::Halt, Act::TellNow(0, 6)])), ["append 1", "halt"]);
    assert!(short(&stage.tell(&[Act::TellAll(7)])).is_empty());
}

#[test]
fn a_timer_that_halts_the_replica_is_the_last_to_fire() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Arm(99, 5), Act::Arm(100, 5)]);
    stage.later(5);
    assert_eq!(short(&stage.input(Input::Timers)), ["halt"]);
    assert_eq!(stage.heard(), ["timer 99"]);
}

#[test]
fn old_records_are_dropped_only_when_what_replaces_them_is_durable() {
    let mut stage = Stage::new();
    assert_eq!(short(&stage.tell(&[Act::Persist(1), Act::Forget(1)])), ["append 1"]);
    assert_eq!(short(&stage.input(Input::Synced(RecordSeq::new(1)))), ["forget 1"]);
}

#[test]
fn a_fetch_begins_only_when_its_turn_is_durable() {
    let asks = ["send GetManifest to One(Replica(ReplicaId(2)))"];
    let mut stage = Stage::new();
    let told = stage.tell(&[Act::Persist(1), Act::Fetch(10, Digest::ZERO, 2), Act::Persist(2)]);
    assert_eq!(short(&told), ["append 1", "append 2"], "a power loss may still take the turn back");
    assert!(short(&stage.input(Input::Synced(RecordSeq::new(1)))).is_empty(), "half a turn is no turn");
    assert_eq!((stage.node.held(), stage.node.deadline()), (1, None), "no retry of what has not begun");
    stage.later(7);
    assert_eq!(short(&stage.input(Input::Synced(RecordSeq::new(2)))), asks);
    assert_eq!(stage.node.deadline(), Some(stage.now.plus(RETRY)), "its patience begins with it");

    stage.tell(&[Act::Persist(3)]);
    let told = stage.tell(&[Act::Fetch(20, Digest::ZERO, 2)]);
    assert!(short(&told).is_empty(), "what it follows from may be in an earlier turn");
    assert_eq!(short(&stage.input(Input::Synced(RecordSeq::new(3)))), asks);
    assert_eq!(short(&stage.tell(&[Act::Fetch(30, Digest::ZERO, 2)])), asks, "nothing is on its way to disk now");
}

#[test]
fn timers_that_are_overdue_fire_in_the_order_in_which_they_were_due() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Arm(1, 9), Act::Arm(2, 3), Act::Arm(3, 6), Act::Arm(4, 50)]);
    stage.later(20);
    stage.input(Input::Timers);
    assert_eq!(stage.heard(), ["timer 2", "timer 3", "timer 1"]);
}

#[test]
fn two_turns_of_one_input_have_different_nonces() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Arm(50, 1), Act::Arm(51, 1)]);
    stage.later(1);
    let told = short(&stage.input(Input::Timers));
    assert_eq!(told.len(), 2);
    assert_ne!(told[0], told[1]);
}

#[test]
fn nobody_outside_the_group_is_heard_nor_anyone_who_speaks_as_ourselves() {
    let mut stage = Stage::new();
    for from in [replica(1), replica(3), replica(255)] {
        stage.payload(from, &Payload::Protocol(Message::Word(4)));
    }
    assert!(stage.heard().is_empty());
    assert_eq!(stage.node.ledger().ignored().get(&Why::NotForSender), Some(&3));
}

#[test]
fn clients_cannot_fill_the_book_of_lies_and_so_hide_a_replicas() {
    let mut stage = Stage::new();
    stage.input(Input::Frame { from: replica(2), bytes: Bytes::new() });
    for id in 0..1000 {
        stage.input(Input::Frame { from: client(id), bytes: Bytes::new() });
    }
    stage.input(Input::Frame { from: replica(0), bytes: Bytes::new() });
    stage.input(Input::Frame { from: client(5), bytes: Bytes::new() });
    let blamed: Vec<_> = stage.node.ledger().blamed().iter().map(|(peer, count)| (*peer, *count)).collect();
    assert_eq!(blamed, [(replica(0), 1), (replica(2), 1), (Ledger::CLIENTS, 1001)]);
    assert!(matches!(stage.node.ledger().last(), Some((from, _)) if *from == replica(0)));
}
