//! The client: one session, numbered requests, and the rule when an answer counts (VRR §4, vr.md §2.3 step 1, §2.7).
//!
//! Promises. Every call completes exactly once. A number of a session never names two operations, so that the table of
//! sessions applies each operation at most once whatever the network repeats (CT4). `maybe_applied` is false only if no
//! link was ever given the operation (CT7).
//!
//! Deviations from VRR: a session is a window of `WINDOW` requests, not one; it is opened by an ordered operation (CT1),
//! which also is what a restarted client does (CT3: VRR's "last number plus two" can answer with another call's reply).
//!
//! One rule decides what is sent. Each request and read knows the replicas that were *handed* it on a link that is still
//! up. It *wants* the believed primary, or every connected replica while the primary is not connected (backups pass requests
//! on and tell readers the view). What it wants and was not handed to is sent at once; what is unanswered for too long goes
//! to every connected replica. Connecting, disconnecting and learning a view only change the two sets.
//!
//! Left out: closing the session. A client that leaves is forgotten when the table needs its place.

mod links;
mod reads;
mod sending;
mod session;

use super::{ClientTimer, Message, Reply, Vr};
use links::{Attempt, Links, RETRY_MIN, Replicas, Whom};
use quorate_core::ids::{ClientId, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::protocol::{self, Answer, Call, CallError, ClientConfig, Consistency, Ticket};
use quorate_core::quorum::CrashQuorums;
use quorate_core::sessions::{Body, OPERATION_BYTES_MAX, Ruling};
use quorate_core::time::{Duration, Instant};
use reads::Reads;
use session::{Open, Session, Waiting};
use std::collections::{BTreeMap, VecDeque};

type Outbox = protocol::ClientOutbox<Vr>;

/// The client's half of Viewstamped Replication.
#[derive(Debug)]
pub struct Client {
    client: ClientId,
    timeout: Duration,
    links: Links,
    /// The greatest session that was ever opened for this client.
    newest: SessionId,
    session: Session,
    /// Requests without a number: never sent to anybody. Not bounded here: each is a call that somebody waits for, and
    /// whoever makes calls bounds them. In the order of their deadlines.
    waiting: VecDeque<Waiting>,
    reads: Reads,
    /// What the host was last told, for each timer.
    armed_retry: Option<Instant>,
    armed_timeout: Option<Instant>,
}

impl protocol::Client<Vr> for Client {
    /// # Panics
    /// If no group can have `config.replicas` replicas.
    fn new(config: ClientConfig) -> Self {
        let quorums = CrashQuorums::new(config.replicas).expect("the host has checked the size of the group");
        let retry = config.retry.max(RETRY_MIN);
        let links = Links { quorums, view: View::ZERO, connected: Replicas::default(), retry, soonest: None };
        Self {
            client: config.client,
            timeout: config.timeout,
            links,
            newest: SessionId::ZERO,
            session: Session::None,
            waiting: VecDeque::new(),
            reads: Reads::default(),
            armed_retry: None,
            armed_timeout: None,
        }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let (Call::Apply(bytes) | Call::Read(_, bytes)) = &call;
        if bytes.len() > OPERATION_BYTES_MAX {
            let why = format!("the operation has {} bytes; a cluster takes at most {OPERATION_BYTES_MAX}", bytes.len());
            return out.complete(ticket, Err(CallError::Refused(why)));
        }
        let deadline = out.now().plus(self.timeout);
        match call {
            Call::Apply(bytes) => self.waiting.push_back(Waiting { ticket, body: Body::Apply(bytes), deadline }),
            Call::Read(Consistency::Ordered, query) => {
                self.waiting.push_back(Waiting { ticket, body: Body::Query(query), deadline });
            }
            Call::Read(consistency, query) => {
                let whom = match consistency {
                    Consistency::Stale { .. } => Whom::Any(self.home()),
                    Consistency::Linearizable | Consistency::Ordered => Whom::Primary,
                };
                self.reads.add(ticket, consistency, query, deadline, Attempt::new(whom));
            }
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.send_new(out);
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        if !self.links.quorums.contains(from) {
            return;
        }
        match message {
            Message::Reply(reply) => self.on_reply(reply, out),
            Message::Busy { view } => self.on_busy(view, out),
            Message::ReadReply { view, id, op, answer } => {
                self.on_read_reply(from, view, id, Answer { reply: answer, op }, out)
            }
            Message::NotPrimary { view } => self.on_not_primary(view, out),
            // Between replicas, or from a client: not for us.
            Message::Request(_)
            | Message::Read { .. }
            | Message::Prepare { .. }
            | Message::PrepareOk { .. }
            | Message::Commit { .. }
            | Message::CommitOk { .. }
            | Message::ExitView { .. }
            | Message::DoViewChange(_)
            | Message::StartView(_)
            | Message::GetView { .. }
            | Message::GetHeaders { .. }
            | Message::Headers { .. }
            | Message::CheckpointDue { .. }
            | Message::GetEntries { .. }
            | Message::Entry(_) => {}
        }
    }

    fn on_timer(&mut self, timer: ClientTimer, out: &mut Outbox) {
        match timer {
            ClientTimer::Retry => {
                self.armed_retry = None;
                self.sweep(out);
            }
            ClientTimer::Timeout => {
                self.armed_timeout = None;
                self.expire(out);
                self.send_new(out); // numbers that were given up may have made room in the window
            }
        }
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        if !self.links.quorums.contains(replica) {
            return;
        }
        self.links.connected.insert(replica);
        self.forget_handed(replica); // a new link; what the old one still carried is lost
        self.sweep(out);
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.links.connected.remove(replica);
        self.forget_handed(replica);
        self.sweep(out);
    }
}

/// What replicas say.
impl Client {
    /// ⟨Reply v, s, x⟩ (VRR §4.1 step 7). Replies of another session are late: each carries its session.
    fn on_reply(&mut self, reply: Reply, out: &mut Outbox) {
        let learned = self.learn(reply.view);
        if reply.session == SessionId::ZERO {
            self.on_opened(&reply);
        } else if self.open().is_some_and(|open| open.id == reply.session) {
            self.on_rulings(reply, out);
        }
        if learned { self.sweep(out) } else { self.send_new(out) }
    }

    /// A session was opened for us, if we wait for one. After an eviction, answers to what opened the former session may
    /// still be on their way, and numbers used again in *that* session would find its replies. Sessions are named after
    /// positions of the log, which only grow (CT1): a new one is greater than all before.
    fn on_opened(&mut self, reply: &Reply) {
        if !matches!(self.session, Session::Opening(_)) {
            return;
        }
        let opened = reply.rulings.iter().filter_map(|(_, ruling)| match ruling {
            Ruling::Opened(session) => Some(*session),
            _ => None,
        });
        let Some(id) = opened.max().filter(|id| *id > self.newest) else { return };
        self.newest = id;
        self.session = Session::Open(Open { id, last: RequestNumber::ZERO, sent: BTreeMap::new(), bytes: 0 });
    }

    /// Answers to requests of the open session. Those that nobody waits for were answered before, or given up.
    fn on_rulings(&mut self, reply: Reply, out: &mut Outbox) {
        let Session::Open(open) = &mut self.session else { return };
        let mut evicted = false;
        for (number, ruling) in reply.rulings {
            let result = match ruling {
                Ruling::Replied(bytes) => Ok(Answer { reply: bytes, op: reply.op }),
                Ruling::Evicted => {
                    evicted = true;
                    continue;
                }
                Ruling::Opened(_) => continue, // opens no session here; whoever says so is wrong
                Ruling::OutsideWindow => Err(refused(number, "is further ahead than the cluster keeps replies for")),
                Ruling::Reused => Err(refused(number, "was used for another operation")),
                Ruling::Closed => Err(refused(number, "belongs to a session that is closed")),
            };
            if let Some(sent) = open.remove(number) {
                out.complete(sent.ticket, result);
            }
        }
        if evicted {
            self.on_evicted(out);
        }
    }

    /// The table has closed our session (CT1), for good. Whatever was sent in it may have been applied before; what was never
    /// sent has no number yet and goes into the next session.
    fn on_evicted(&mut self, out: &mut Outbox) {
        let Session::Open(open) = std::mem::replace(&mut self.session, Session::None) else { return };
        for sent in open.sent.into_values() {
            out.complete(sent.ticket, Err(CallError::Evicted { maybe_applied: true }));
        }
    }

    /// The primary took nothing of a message. We cannot tell which, so everything waits for its retry, and a view that we
    /// learn in this way sends nothing at once.
    fn on_busy(&mut self, view: View, out: &mut Outbox) {
        if view < self.links.view {
            return; // it led once
        }
        self.links.view = view;
        let wanted = self.links.wanted();
        for attempt in self.attempts().filter(|it| matches!(it.whom, Whom::Primary) && !it.handed.is_empty()) {
            attempt.handed = attempt.handed.union(wanted);
            attempt.busy = true;
        }
        self.sweep(out);
    }

    /// The answer to a read. An answer to an earlier attempt at the same call counts too: it was computed after the call
    /// began, and is as fresh as the call asked for by the same rule as the last one.
    fn on_read_reply(&mut self, from: ReplicaId, view: View, id: u64, answer: Answer, out: &mut Outbox) {
        // A backup's view is where it is, not where the primary is.
        let learned = self.links.quorums.primary(view) == from && self.learn(view);
        if let Some(read) = self.reads.answered(id, answer.op) {
            out.complete(read.ticket, Ok(answer));
        }
        if learned { self.sweep(out) } else { self.arm(out) }
    }

    /// Another replica leads. Only a view that is news sends reads again: two replicas that point at each other get one
    /// message for each view, not a stream.
    fn on_not_primary(&mut self, view: View, out: &mut Outbox) {
        if self.learn(view) {
            self.sweep(out);
        }
    }

    /// Takes note of a greater view: its primary has to be told everything (again), unless it was told as a primary.
    fn learn(&mut self, view: View) -> bool {
        if view <= self.links.view {
            return false;
        }
        self.links.view = view;
        let primary = self.links.quorums.primary(view);
        for attempt in self.attempts().filter(|it| matches!(it.whom, Whom::Primary)) {
            attempt.handed.remove(primary);
        }
        true
    }
}

fn refused(number: RequestNumber, why: &str) -> CallError {
    CallError::Refused(format!("the cluster says that request {number} {why}"))
}
