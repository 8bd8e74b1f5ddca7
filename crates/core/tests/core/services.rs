//! What a node does for clients beside its protocol: status and watches.

use crate::support::{Act, Message, Stage, client, replica, short};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{Done, Job};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Position};
use quorate_core::node::{
    ASKING_MAX, Action, Happened, Input, Payload, RECORDED_MAX, RECORDING, Recorded, Service, WATCHERS_MAX,
};
use quorate_core::outbox::To;
use quorate_core::protocol::Checkpoint;
use quorate_core::sessions::{Event, Outcome};
use quorate_core::wire::Envelope;

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
    Input::Done(Done::Digest { to, nonce: 0, op, position, digest: Digest::ZERO, milestones: Vec::new() })
}

fn executed(op: u64, topic: u32) -> Input {
    let event = Event { position: Position::new(op), topic, bytes: Bytes::from_static(b"e") };
    let outcome = Outcome { events: vec![event], ..Outcome::default() };
    Input::Done(Done::Executed { op: OpNumber::new(op), outcome })
}

fn listening(wish: u64) -> Input {
    Input::Done(Done::Listening { wish })
}

fn watching(id: u128, topic: u32) -> (To, Service) {
    (To::One(client(id)), Service::Watching { topic })
}

/// What the executor is asked for.
fn wished(actions: &[Action]) -> Vec<(bool, u64)> {
    let wish = |action: &Action| match action {
        Action::Run(Job::Listen { on, wish }) => Some((*on, *wish)),
        _ => None,
    };
    actions.iter().filter_map(wish).collect()
}

#[test]
fn one_digest_answers_everybody_who_had_asked_when_it_was_begun() {
    let mut stage = Stage::new();
    assert_eq!(short(&ask(&mut stage, 1, Service::GetStatus { nonce: 11 })), ["run"]);
    for id in 2..2000 {
        assert!(ask(&mut stage, id, Service::GetStatus { nonce: 12 }).is_empty());
    }
    assert_eq!(stage.node.ledger().ignored().get(&Why::Busy), Some(&(1998 - ASKING_MAX as u64)));
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
    assert_eq!(sent(&stage.input(listening(1))), [watching(1, 4), watching(2, 5)]);
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
    stage.input(listening(1));
    let checkpoint = Checkpoint { op: OpNumber::new(9), id: Digest::ZERO };
    let told = sent(&stage.input(Input::Done(Done::Installed { checkpoint, error: None, wake: None })));
    assert_eq!(told, [watching(1, 4)]);
}

#[test]
fn watching_begins_when_the_executor_makes_events_and_ends_with_the_last_watcher() {
    let mut stage = Stage::new();
    let first = ask(&mut stage, 1, Service::Watch { topic: 4 });
    assert_eq!((wished(&first), sent(&first)), (vec![(true, 1)], vec![]), "entries under way will have no events");
    assert!(ask(&mut stage, 2, Service::Watch { topic: 4 }).is_empty(), "it is asked for already");
    assert!(stage.input(Input::Disconnected(client(2))).is_empty());
    assert_eq!(sent(&stage.input(listening(1))), [watching(1, 4)]);
    assert_eq!(sent(&ask(&mut stage, 3, Service::Watch { topic: 5 })), [watching(3, 5)], "from now on at once");
    stage.input(Input::Disconnected(client(1)));
    assert_eq!(wished(&stage.input(Input::Disconnected(client(3)))), [(false, 2)], "nobody is left");
    let next = ask(&mut stage, 4, Service::Watch { topic: 4 });
    assert_eq!((wished(&next), sent(&next)), (vec![(true, 3)], vec![]), "it makes none any more");
    assert_eq!(sent(&stage.input(listening(3))), [watching(4, 4)]);
}

#[test]
fn a_wish_that_was_taken_back_and_made_again_counts_from_its_last_time_on() {
    let mut stage = Stage::new();
    ask(&mut stage, 1, Service::Watch { topic: 4 });
    stage.input(Input::Disconnected(client(1)));
    assert_eq!(wished(&ask(&mut stage, 2, Service::Watch { topic: 4 })), [(true, 3)]);
    assert!(stage.input(listening(1)).is_empty(), "the executor will stop once more");
    assert!(stage.input(listening(2)).is_empty());
    assert_eq!(sent(&stage.input(listening(3))), [watching(2, 4)]);
}

#[test]
fn watchers_are_bounded_and_services_are_for_clients_only() {
    let mut stage = Stage::new();
    for id in 1..=WATCHERS_MAX as u128 + 1 {
        ask(&mut stage, id, Service::Watch { topic: 4 });
    }
    assert_eq!(stage.node.ledger().ignored().get(&Why::Busy), Some(&1));
    assert!(stage.payload(replica(2), &Payload::Service(Service::Watch { topic: 4 })).is_empty());
    assert_eq!(stage.node.ledger().ignored().get(&Why::NotForSender), Some(&1));
}

/// What the node has recorded from this number on, in words, and the number to ask for next.
fn recorded(stage: &mut Stage, from: u64) -> (Vec<String>, u64) {
    let answer = sent(&ask(stage, 1, Service::GetRecorded { nonce: 5, from })).pop();
    let Some((_, Service::Recorded { nonce: 5, recorded, next })) = answer else { panic!("{answer:?}") };
    let words = |it: &Recorded| match &it.what {
        Happened::Sent { to, label, .. } => format!("{label} to {to}"),
        Happened::Received { from, label, .. } => format!("{label} from {from}"),
        Happened::Noted(words) => words.to_string(),
    };
    (recorded.iter().map(words).collect(), next)
}

#[test]
fn messages_are_recorded_from_the_first_question_on_and_each_is_told_once() {
    let mut stage = Stage::new();
    stage.tell(&[Act::TellAll(7)]);
    assert_eq!(recorded(&mut stage, 0), (vec![], 0), "nobody looked");
    stage.tell(&[Act::TellAll(7)]);
    let (words, next) = recorded(&mut stage, 0);
    assert_eq!(words, ["Word from R2", "Word to R0", "Word to R2"]);
    assert_eq!(recorded(&mut stage, next), (vec![], next), "the questions themselves are not recorded");
    stage.tell(&[]);
    assert_eq!(recorded(&mut stage, next).0, ["Word from R2"]);
    assert_eq!(recorded(&mut stage, 1 << 40).0.len(), 4, "a number of a former life");
}

#[test]
fn a_message_is_recorded_as_sent_when_it_leaves_and_not_while_it_is_held() {
    let mut stage = Stage::new();
    recorded(&mut stage, 0);
    stage.tell(&[Act::Persist(1), Act::Tell(0, 5)]);
    assert_eq!(recorded(&mut stage, 0).0, ["Word from R2"]);
    stage.input(Input::Synced(quorate_core::ids::RecordSeq::new(1)));
    assert_eq!(recorded(&mut stage, 0).0, ["Word from R2", "Word to R0"]);
}

#[test]
fn what_is_sent_has_the_mark_of_what_arrives_and_other_bytes_have_another() {
    let mut stage = Stage::new();
    recorded(&mut stage, 0);
    let word = |number| Payload::Protocol(Message::Word(number));
    stage.payload(replica(2), &word(7));
    stage.payload(replica(2), &word(8));
    stage.tell(&[Act::TellAll(7)]);
    let answer = sent(&ask(&mut stage, 1, Service::GetRecorded { nonce: 5, from: 0 })).pop();
    let Some((_, Service::Recorded { recorded, .. })) = answer else { panic!("{answer:?}") };
    let marks: Vec<u32> = recorded
        .iter()
        .filter_map(|it| match it.what {
            Happened::Sent { mark, .. } | Happened::Received { mark, .. } => Some(mark),
            Happened::Noted(_) => None,
        })
        .collect();
    let [seven, eight, _, sent, _] = marks[..] else { panic!("{marks:?}") };
    assert_eq!(seven, sent);
    assert_ne!(seven, eight);
}

#[test]
fn what_is_recorded_is_bounded_and_ends_when_nobody_has_asked_for_a_while() {
    let mut stage = Stage::new();
    recorded(&mut stage, 0);
    for _ in 0..RECORDED_MAX {
        stage.tell(&[Act::TellAll(7)]);
    }
    let (words, next) = recorded(&mut stage, 0);
    assert_eq!((words.len(), next), (RECORDED_MAX, 3 * RECORDED_MAX as u64));
    stage.later(RECORDING.as_millis() as u64 + 1);
    stage.tell(&[Act::TellAll(7)]);
    assert_eq!(recorded(&mut stage, 0), (vec![], next), "forgotten, and nothing new was kept");
    stage.tell(&[]);
    assert_eq!(recorded(&mut stage, next).0.len(), 1, "it goes on when somebody asks again");
}

#[test]
fn replicas_cannot_ask_for_what_was_recorded() {
    let mut stage = Stage::new();
    assert!(stage.payload(replica(2), &Payload::Service(Service::GetRecorded { nonce: 1, from: 0 })).is_empty());
    assert_eq!(stage.node.ledger().ignored().get(&Why::NotForSender), Some(&1));
}
