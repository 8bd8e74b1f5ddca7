//! A protocol inside a protocol: the inner one's turn becomes a part of the outer one's.

use crate::support::{Act, Message, Puppet, Strings, replica};
use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::nested::{Lift, nested};
use quorate_core::outbox::{Effect, Outbox, To, Turn, When};
use quorate_core::protocol::{Protocol, Replica};
use quorate_core::time::Instant;

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
    type Replica = crate::support::Unused;
    type Client = crate::support::Unused;

    fn label(_: &Option<Message>) -> &'static str {
        "Inner"
    }
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
