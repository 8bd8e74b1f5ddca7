//! Operations on several objects (A.8): asked of everybody, ordered by PBFT, one after the other.

use super::write::Waiting;
use super::{Client, Outbox};
use crate::hq::message::{Message, Ordered, OrderedAsk};
use crate::pbft::Told;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId, RequestNumber};
use quorate_core::protocol::{Answer, CallError, Ticket};
use quorate_core::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// What this client wants done to several objects.
#[derive(Debug, Default)]
pub(super) struct Queue {
    pub(super) current: Option<Ordering>,
    pub(super) waiting: VecDeque<(Vec<Bytes>, Waiting)>,
    /// An entry that PBFT had ordered, as far as this client knows.
    after: OpNumber,
}

/// An operation under way.
#[derive(Debug)]
pub(super) struct Ordering {
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
    pub(super) retry_at: Instant,
    request: Ordered,
    tries: u32,
    /// Who has executed it, and what it came to, if they know.
    done: BTreeMap<ReplicaId, Option<Digest>>,
    /// What each has said in full last: nobody takes another one's room.
    results: BTreeMap<ReplicaId, (Digest, Bytes)>,
    too_old: BTreeMap<ReplicaId, OpNumber>,
}

impl Client {
    pub(super) fn submit_ordered(
        &mut self,
        ticket: Ticket,
        names: Vec<Bytes>,
        operation: Bytes,
        deadline: Instant,
        out: &mut Outbox,
    ) {
        let refused = if self.keyring.client().is_none() {
            Some("a client without a key cannot write")
        } else if !Ordered::fits(&names, &operation) {
            Some("an operation touches 128 objects at most, and it and their names fit a request")
        } else if self.ordered.waiting.len() >= super::WAITING_MAX {
            Some("too many operations on several objects wait already")
        } else {
            None
        };
        match refused {
            Some(what) => out.complete(ticket, Err(CallError::Refused(what.to_owned()))),
            None => self.ordered.waiting.push_back((names, Waiting { ticket, operation, deadline })),
        }
    }

    /// ⟨ORDERED, op⟩ to all, if none is under way: replicas know of each client the last one only.
    pub(super) fn begin_ordered(&mut self, out: &mut Outbox) {
        if self.ordered.current.is_some() {
            return;
        }
        let Some((names, next)) = self.ordered.waiting.pop_front() else { return };
        self.number = self.number.next();
        let (client, number, after) = (self.config.client, self.number, self.ordered.after);
        let hash = Ordered::hash(client, number, &names, &next.operation);
        let ask = self.keyring.sign_as_client(OrderedAsk { client, number, hash, after });
        let request = Ordered { names, operation: next.operation, ask };
        self.ordered.current = Some(Ordering {
            ticket: next.ticket,
            deadline: next.deadline,
            retry_at: out.now().plus(self.pause(0)),
            request,
            tries: 0,
            done: BTreeMap::new(),
            results: BTreeMap::new(),
            too_old: BTreeMap::new(),
        });
        self.say_ordered(None, out);
    }

    /// Says it to one replica, or to all that can be reached and have not done it.
    pub(super) fn say_ordered(&mut self, to: Option<ReplicaId>, out: &mut Outbox) {
        let Some(current) = &self.ordered.current else { return };
        for replica in self.connected.iter().filter(|it| to.is_none_or(|to| to == **it)) {
            out.send(*replica, Message::Ordered(Box::new(current.request.clone())));
        }
    }

    /// A quorum has it on all of its objects: whoever reads from a quorum now sees it. One more replica than can lie has said the same
    /// result, one of them in full.
    pub(super) fn on_ordered_done(
        &mut self,
        from: ReplicaId,
        number: RequestNumber,
        result: Option<Told<Bytes>>,
        out: &mut Outbox,
    ) {
        let vouch = self.quorums.vouch();
        let needed = self.quorum();
        let Some(current) = &mut self.ordered.current else { return };
        if current.request.ask().number != number {
            return;
        }
        let said = result.as_ref().map(Told::digest);
        current.done.insert(from, said);
        if let (Some(said), Some(Told::Full(result))) = (said, result) {
            current.results.insert(from, (said, result));
        }
        let alike = |digest: &Digest| current.done.values().filter(|other| **other == Some(*digest)).count();
        let agreed = current.results.values().find(|(digest, _)| alike(digest) >= vouch);
        if let Some((_, reply)) = agreed.filter(|_| current.done.len() >= needed) {
            out.complete(current.ticket, Ok(Answer { reply: reply.clone(), op: OpNumber::ZERO }));
            self.ordered.current = None;
        }
    }

    /// Replicas have forgotten this client. If one of them is correct, the request is made anew, with what they know; unless it
    /// was said several times: then it may have been done, and forgotten after that.
    pub(super) fn on_ordered_too_old(
        &mut self,
        from: ReplicaId,
        number: RequestNumber,
        at: OpNumber,
        out: &mut Outbox,
    ) {
        let Some(current) = self.ordered.current.as_mut().filter(|it| it.request.ask().number == number) else {
            return;
        };
        current.too_old.insert(from, at);
        let Some(after) = self.quorums.vouched(current.too_old.values().copied()) else { return };
        if after <= self.ordered.after {
            return;
        }
        self.ordered.after = after;
        if let Some(current) = self.ordered.current.take() {
            let Ordering { ticket, deadline, tries, request: Ordered { names, operation, .. }, .. } = current;
            if tries > 0 {
                return out.complete(ticket, Err(CallError::Evicted { maybe_applied: true }));
            }
            self.ordered.waiting.push_front((names, Waiting { ticket, operation, deadline }));
        }
    }

    /// No answer in time: everybody is asked again.
    pub(super) fn retry_ordered(&mut self, out: &mut Outbox) {
        let now = out.now();
        let Some(tries) = self.ordered.current.as_ref().filter(|it| it.retry_at <= now).map(|it| it.tries) else {
            return;
        };
        let pause = self.pause(tries.saturating_add(1));
        if let Some(current) = &mut self.ordered.current {
            (current.tries, current.retry_at) = (tries.saturating_add(1), now.plus(pause));
        }
        self.say_ordered(None, out);
    }

    /// Gives up what has waited too long, and says whether it may have been applied.
    pub(super) fn expire_ordered(&mut self, out: &mut Outbox) {
        let now = out.now();
        if let Some(current) = self.ordered.current.take_if(|it| it.deadline <= now) {
            out.complete(current.ticket, Err(CallError::Timeout { maybe_applied: true }));
        }
        self.ordered.waiting.retain(|(_, it)| {
            let keep = it.deadline > now;
            if !keep {
                out.complete(it.ticket, Err(CallError::Timeout { maybe_applied: false }));
            }
            keep
        });
    }
}
