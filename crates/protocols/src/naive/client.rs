//! The client: sends to everyone, believes whoever answers first.

use super::message::Message;
use super::{ClientOutbox, Naive};
use bytes::Bytes;
use quorate_core::ids::{OpNumber, ReplicaId, RequestNumber, SessionId};
use quorate_core::protocol::{Answer, Call, CallError, Client, ClientConfig, Ticket};
use quorate_core::sessions::{Body, Request, Ruling};
use quorate_core::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// Calls that one client has in flight at most; more wait.
pub const CALLS_IN_FLIGHT_MAX: usize = 64;

/// Why a client wakes up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientTimer {
    /// When to send again what nobody has answered.
    Retry,
}

#[derive(Debug)]
struct Pending {
    ticket: Ticket,
    body: Body,
    since: Instant,
}

/// A client.
#[derive(Debug)]
pub struct NaiveClient {
    config: ClientConfig,
    session: Option<SessionId>,
    next: RequestNumber,
    waiting: VecDeque<(Ticket, Body, Instant)>,
    pending: BTreeMap<RequestNumber, Pending>,
}

impl Client<Naive> for NaiveClient {
    fn new(config: ClientConfig) -> Self {
        let next = RequestNumber::new(1);
        Self { config, session: None, next, waiting: VecDeque::new(), pending: BTreeMap::new() }
    }

    /// Reads of any consistency go the way of writes: there is nothing better to offer.
    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut ClientOutbox) {
        let body = match call {
            Call::Apply(operation) => Body::Apply(operation),
            Call::Read(_, query) => Body::Query(query),
        };
        self.waiting.push_back((ticket, body, out.now()));
    }

    fn flush(&mut self, out: &mut ClientOutbox) {
        out.arm(ClientTimer::Retry, self.config.retry);
        if self.session.is_none() {
            return self.broadcast(SessionId::ZERO, RequestNumber::ZERO, Body::Register, out);
        }
        self.send_waiting(out);
    }

    fn on_message(&mut self, _: ReplicaId, message: Message, out: &mut ClientOutbox) {
        let Message::Reply(answer) = message else { return };
        match answer.reply.ruling {
            Ruling::Opened(session) if self.session.is_none() => {
                self.session = Some(session);
                self.send_waiting(out);
            }
            Ruling::Replied(reply) => self.complete(answer.reply.number, answer.op, reply, out),
            Ruling::Evicted | Ruling::OutsideWindow | Ruling::Reused => {
                if let Some(pending) = self.pending.remove(&answer.reply.number) {
                    out.complete(pending.ticket, Err(CallError::Evicted { maybe_applied: true }));
                }
            }
            Ruling::Opened(_) | Ruling::Closed => {}
        }
    }

    fn on_timer(&mut self, timer: ClientTimer, out: &mut ClientOutbox) {
        match timer {
            ClientTimer::Retry => self.on_retry(out),
        }
    }

    fn on_connected(&mut self, _: ReplicaId, _: &mut ClientOutbox) {}

    fn on_disconnected(&mut self, _: ReplicaId, _: &mut ClientOutbox) {}
}

impl NaiveClient {
    fn send_waiting(&mut self, out: &mut ClientOutbox) {
        let Some(session) = self.session else { return };
        while self.pending.len() < CALLS_IN_FLIGHT_MAX
            && let Some((ticket, body, since)) = self.waiting.pop_front()
        {
            let number = self.next;
            self.next = number.next();
            self.pending.insert(number, Pending { ticket, body: body.clone(), since });
            self.broadcast(session, number, body, out);
        }
    }

    fn broadcast(&self, session: SessionId, number: RequestNumber, body: Body, out: &mut ClientOutbox) {
        let client = self.config.client;
        let request = Request { client, session, number, acknowledged: RequestNumber::ZERO, body };
        for replica in (0..self.config.replicas).filter_map(|index| u8::try_from(index).ok()) {
            out.send(ReplicaId::new(replica), Message::Request(request.clone()));
        }
    }

    fn complete(&mut self, number: RequestNumber, op: OpNumber, reply: Bytes, out: &mut ClientOutbox) {
        if let Some(pending) = self.pending.remove(&number) {
            out.complete(pending.ticket, Ok(Answer { reply, op }));
        }
        self.send_waiting(out);
    }

    fn on_retry(&mut self, out: &mut ClientOutbox) {
        let is_late = |since: Instant, limit: Duration| out.now().since(since) >= limit;
        let limit = self.config.timeout;
        let late: Vec<RequestNumber> =
            self.pending.iter().filter(|(_, it)| is_late(it.since, limit)).map(|(number, _)| *number).collect();
        let unsent = self.waiting.iter().take_while(|(.., since)| is_late(*since, limit)).count();
        for number in late {
            if let Some(pending) = self.pending.remove(&number) {
                out.complete(pending.ticket, Err(CallError::Timeout { maybe_applied: true }));
            }
        }
        for (ticket, ..) in self.waiting.drain(..unsent) {
            out.complete(ticket, Err(CallError::Timeout { maybe_applied: false }));
        }
        if self.pending.is_empty() && self.waiting.is_empty() {
            return;
        }
        if let Some(session) = self.session {
            for (number, pending) in &self.pending {
                self.broadcast(session, *number, pending.body.clone(), out);
            }
        }
        self.flush(out);
    }
}
