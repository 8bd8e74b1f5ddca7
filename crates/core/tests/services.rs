//! What a node does for clients beside its protocol: status and watches.

mod support;

use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::Done;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Position};
use quorate_core::node::{ASKING_MAX, Action, Input, Payload, Service, WATCHERS_MAX};
use quorate_core::outbox::To;
use quorate_core::protocol::Checkpoint;
use quorate_core::sessions::{Event, Outcome};
use quorate_core::wire::Envelope;
use support::{Message, Stage, client, replica, short};

fn ask(stage: &mut Stage, id: u128, service: Service) -> Vec<Action> {
    stage.payload(client(id), &Payload::Service(service))
}

/// What clients are sent, in order: to whom, and what.
fn sent(actions: &[Action]) -> Vec<(To, Service)> {
    let service = |action: &Action| match action {
        Action::Send { to, bytes, .. } => match Envelope::open::<Payload<Message>>(bytes) {
            Ok((_, Payload::Service(service))) => Some((*to, service)),
            _ => None,
        },
        _ => None,
    };
    actions.iter().filter_map(service).collect()
}

fn digest(op: u64) -> Input {
    let (to, op, position) = (client(0), OpNumber::new(op), Position::new(op));
    Input::Done(Done::Digest { to, nonce: 0, op, position, digest: Digest::ZERO })
}

fn executed(op: u64, topic: u32) -> Input {
    let event = Event { position: Position::new(op), topic, bytes: Bytes::from_static(b"e") };
    let outcome = Outcome { events: vec![event], ..Outcome::default() };
    Input::Done(Done::Executed { op: OpNumber::new(op), outcome })
}

#[test]
fn one_digest_answers_everybody_who_had_asked_when_it_was_begun() {
    let mut stage = Stage::new();
    assert_eq!(short(&ask(&mut stage, 1, Service::GetStatus { nonce: 11 })), ["run"]);
    for id in 2..1000 {
        assert!(ask(&mut stage, id, Service::GetStatus { nonce: 12 }).is_empty());
    }
    assert_eq!(stage.node.ledger().ignored().get(&Why::Busy), Some(&(998 - ASKING_MAX as u64)));
    let answered = stage.input(digest(5));
    let first = sent(&answered);
    assert!(matches!(first.as_slice(), [(To::One(to), Service::Status { nonce: 11, .. })] if *to == client(1)));
    assert_eq!(answered.len(), 2, "and the next digest is begun");
    assert_eq!(sent(&stage.input(digest(6))).len(), ASKING_MAX);
    assert_eq!(short(&ask(&mut stage, 1, Service::GetStatus { nonce: 13 })), ["run"]);
}

#[test]
fn events_go_to_those_who_watch_their_topic() {
    let mut stage = Stage::new();
    assert!(sent(&stage.input(executed(1, 4))).is_empty());
    ask(&mut stage, 1, Service::Watch { topic: 4 });
    ask(&mut stage, 2, Service::Watch { topic: 5 });
    let events = sent(&stage.input(executed(2, 4)));
    assert!(
        matches!(events.as_slice(), [(To::One(to), Service::Events(events))] if *to == client(1) && events.len() == 1)
    );
    stage.input(Input::Disconnected(client(1)));
    assert!(sent(&stage.input(executed(3, 4))).is_empty());
}

#[test]
fn watchers_are_told_when_a_state_transfer_has_skipped_events() {
    let mut stage = Stage::new();
    ask(&mut stage, 1, Service::Watch { topic: 4 });
    let checkpoint = Checkpoint { op: OpNumber::new(9), id: Digest::ZERO };
    let told = sent(&stage.input(Input::Done(Done::Installed { checkpoint, error: None, wake: None })));
    assert_eq!(told, [(To::One(client(1)), Service::Watching { topic: 4 })]);
}

#[test]
fn watchers_are_bounded_and_services_are_for_clients_only() {
    let mut stage = Stage::new();
    for id in 0..=WATCHERS_MAX as u128 {
        ask(&mut stage, id, Service::Watch { topic: 4 });
    }
    assert_eq!(stage.node.ledger().ignored().get(&Why::Busy), Some(&1));
    assert!(stage.payload(replica(2), &Payload::Service(Service::Watch { topic: 4 })).is_empty());
    assert_eq!(stage.node.ledger().ignored().get(&Why::NotForSender), Some(&1));
}
