//! A protocol inside a protocol (HQ and reception run PBFT): the outer one lifts the inner one's effects into its own
//! outbox with public functions only. One log, one numbering, one node.

mod support;

use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::outbox::{Effect, Outbox, To, Turn, When};
use quorate_core::protocol::{Protocol, Replica};
use quorate_core::time::Instant;
use support::{Act, Message, Puppet, Strings, replica};

/// The outer protocol's words: its own are left out here, the inner one's are wrapped.
#[derive(Debug)]
struct Outer;

impl Protocol for Outer {
    const NAME: &'static str = "outer";
    type Message = Option<Message>;
    type Record = Option<u8>;
    type Timer = Option<u8>;
    type ClientTimer = u8;
    type Config = ();
    type Replica = support::Unused;
    type Client = support::Unused;

    fn label(_: &Option<Message>) -> &'static str {
        "Inner"
    }
}

/// How the inner protocol's words are said in the outer one's.
struct Lift<I: Protocol, O: Protocol> {
    message: fn(I::Message) -> O::Message,
    record: fn(I::Record) -> O::Record,
    timer: fn(I::Timer) -> O::Timer,
}

/// Runs a handler of the inner protocol within a turn of the outer one. What means something to the outer protocol (what
/// to execute, to save, to fetch, to forget) comes back in order instead of going out.
fn nested<I: Protocol, O: Protocol>(
    out: &mut Outbox<O>,
    lift: &Lift<I, O>,
    handler: impl FnOnce(&mut Outbox<I>),
) -> Vec<Effect<I>> {
    let mut inner = Outbox::new(out.turn(), out.next_seq());
    handler(&mut inner);
    let mut intercepted = Vec::new();
    for effect in inner.into_effects().0 {
        match effect {
            Effect::Persist { seq, class, record } => {
                let lifted = out.persist(class, (lift.record)(record));
                assert_eq!(lifted, seq, "the outer protocol persists nothing while the inner one's turn is lifted");
            }
            Effect::Send { to, message, when } => {
                let message = (lift.message)(message);
                match (to, when) {
                    (To::One(peer), When::Durable) => out.send(peer, message),
                    (To::One(peer), When::Now) => out.send_unsynced(peer, message),
                    (To::Others, When::Durable) => out.broadcast(message),
                    (To::Others, When::Now) => out.broadcast_unsynced(message),
                }
            }
            Effect::Arm { timer, at } => out.arm((lift.timer)(timer), at.since(out.now())),
            Effect::Disarm(timer) => out.disarm((lift.timer)(timer)),
            Effect::Halt(reason) => out.halt(reason),
            Effect::Ignore(from, why) => out.ignore(from, why),
            Effect::Blame(from, fault) => out.blame(from, fault),
            Effect::Note(note) => out.note(note),
            Effect::Execute { .. }
            | Effect::Query { .. }
            | Effect::Checkpoint(_)
            | Effect::Fetch { .. }
            | Effect::Forget(_) => intercepted.push(effect),
        }
    }
    intercepted
}

#[test]
fn an_inner_protocols_turn_becomes_a_part_of_the_outer_ones() {
    let lift = Lift::<Puppet, Outer> { message: Some, record: Some, timer: Some };
    let turn = Turn { now: Instant::from_nanos(5), ..Turn::default() };
    let mut out = Outbox::<Outer>::new(turn, RecordSeq::new(40));
    out.persist(quorate_core::outbox::Class::Promise, None);
    let mut inner = Strings::default();
    let acts = [Act::Persist(9), Act::Tell(1, 3), Act::Arm(7, 1), Act::Execute(1), Act::Forget(41), Act::TellNow(0, 4)];
    let kept = nested(&mut out, &lift, |out| inner.on_message(replica(2), Message::Do(acts.to_vec()), out));
    let place = out.persist(quorate_core::outbox::Class::Entry, None);

    assert!(matches!(kept.as_slice(), [Effect::Execute { .. }, Effect::Forget(before)] if before.get() == 41));
    assert_eq!(place, RecordSeq::new(42), "one numbering for both");
    let own = To::One(Peer::Replica(ReplicaId::new(1)));
    let lifted = out.effects();
    assert!(matches!(&lifted[1], Effect::Persist { seq, record: Some(9), .. } if seq.get() == 41));
    assert!(
        matches!(&lifted[2], Effect::Send { to, message: Some(Message::Word(3)), when: When::Durable } if *to == own)
    );
    assert!(matches!(&lifted[3], Effect::Arm { timer: Some(7), at } if at.as_nanos() == 1_000_005));
    assert!(matches!(&lifted[4], Effect::Send { message: Some(Message::Word(4)), when: When::Now, .. }));
}
