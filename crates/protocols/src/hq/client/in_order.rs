//! Ordered mode (A.9, pitfall 2), as a client sees it: PBFT gives the places of an object, so everybody is asked at once, and
//! what a quorum says it came to is believed as always. That an object is in this mode is a hint: who says so falsely costs a few
//! messages and no round.

use super::write::{Stage, Writing};
use super::{Client, Outbox};
use crate::hq::message::Message;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ReplicaId, RequestNumber};

/// Objects in ordered mode that a client remembers; beyond it, one is forgotten, and costs a message more of each replica.
const REMEMBERED_MAX: usize = 4096;

impl Client {
    /// PBFT gives the places of this object now, says one replica. Those that were not asked are asked. When one of those that say
    /// so is correct, what was collected before is of no use any more, and the next write begins here.
    pub(super) fn on_in_order(&mut self, from: ReplicaId, id: Digest, number: RequestNumber, out: &mut Outbox) {
        let vouch = self.quorums.vouch();
        let pause = self.pause(0);
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        if writing.write.ask().number != number {
            return;
        }
        let is_new = writing.in_order.insert(from);
        let is_vouched = writing.in_order.len() >= vouch;
        if is_vouched && !matches!(writing.stage, Stage::One) {
            writing.stage = Stage::One;
            writing.grants.clear();
            writing.asked.clear();
            writing.retry_at = out.now().plus(pause);
        }
        if is_new && matches!(writing.stage, Stage::One) {
            self.submit_to_rest(id, out);
        }
        if is_vouched {
            if self.in_order.len() >= REMEMBERED_MAX {
                self.in_order.pop_first();
            }
            self.in_order.insert(id);
        }
    }

    /// ⟨SUBMIT⟩ to all that were not asked.
    pub(super) fn submit_to_rest(&mut self, id: Digest, out: &mut Outbox) {
        let Some(Writing { asked, write, .. }) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut())
        else {
            return;
        };
        for replica in &self.connected {
            if asked.insert(*replica) {
                out.send(*replica, Message::Submit(write.clone()));
            }
        }
    }
}
