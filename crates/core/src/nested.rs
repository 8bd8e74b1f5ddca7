//! A protocol inside a protocol: HQ and the event store's reception run PBFT. One log, one numbering, one node: the outer
//! replica owns them all and lifts the inner one's effects into its own outbox (`docs/adr/001-seam.md`, *Nesting*).

use crate::outbox::{Effect, Outbox, To, When};
use crate::protocol::Protocol;

/// How the inner protocol's words are said in the outer one's.
#[derive(Clone, Copy, Debug)]
pub struct Lift<I: Protocol, O: Protocol> {
    /// Its messages.
    pub message: fn(I::Message) -> O::Message,
    /// Its records.
    pub record: fn(I::Record) -> O::Record,
    /// Its timers.
    pub timer: fn(I::Timer) -> O::Timer,
}

/// Runs a handler of the inner protocol within a turn of the outer one. What means something to the outer protocol (what
/// to execute, to save, to fetch, to forget) comes back in order instead of going out.
pub fn nested<I: Protocol, O: Protocol>(
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
            | Effect::Speculate { .. }
            | Effect::Commit { .. }
            | Effect::Abort(_)
            | Effect::Propose { .. }
            | Effect::Query { .. }
            | Effect::Step { .. }
            | Effect::Image { .. }
            | Effect::Checkpoint(_)
            | Effect::Fetch { .. }
            | Effect::Forget(_) => intercepted.push(effect),
        }
    }
    intercepted
}
