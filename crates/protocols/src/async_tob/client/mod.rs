//! The client. It hands its requests to one replica, which puts them into its lane; what is not answered in time goes to all,
//! one of which at least is correct and reachable. It believes a result that `t + 1` replicas send: one of them is correct.
//! One replica sends it in full, the others its digest. Many requests are in flight, and one signature covers all that are
//! sent together.

mod tally;

use super::message::{Group, Message, REQUESTS_MAX, Reply, Requests, Told};
use super::{AsyncTob, ClientTimer};
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{OpNumber, ReplicaId, RequestNumber, SessionId};
use quorate_core::protocol::{self, Answer, Call, CallError, ClientConfig, ClientOutbox, Consistency, Ticket};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::{Body, Ruling, WINDOW};
use quorate_core::time::{Duration, Instant};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tally::Tally;

type Outbox = ClientOutbox<AsyncTob>;

/// Bytes of operations in one message, unless a single one is longer: below the frame that replicas take from clients.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of operations in flight, unless a single one is longer: below what a replica keeps for one client.
const FLIGHT_BYTES_MAX: usize = 8 << 20;
/// The pause before sending again is doubled so often at most.
const DOUBLINGS_MAX: u32 = 4;

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    body: Body,
    deadline: Instant,
}

/// A request under way.
#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    body: Body,
    deadline: Instant,
    tries: u32,
    retry_at: Instant,
    tally: Tally<Ruling>,
}

/// A read that is not ordered.
#[derive(Debug)]
struct Read {
    ticket: Ticket,
    consistency: Consistency,
    query: Bytes,
    deadline: Instant,
    /// When it is ordered instead; `None` until it is sent.
    order_at: Option<Instant>,
    tally: Tally<Bytes>,
}

#[derive(Debug)]
struct Opening {
    tries: u32,
    retry_at: Instant,
    tally: Tally<Ruling>,
}

#[derive(Debug)]
enum Session {
    /// Nobody has asked for anything, or the last one was evicted.
    None,
    /// Asked for one.
    Opening(Opening),
    /// Its name, and the last number that was used.
    Open(SessionId, RequestNumber),
}

/// The client's half.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    keyring: Arc<Keyring>,
    quorums: ByzantineQuorums,
    connected: BTreeSet<ReplicaId>,
    session: Session,
    waiting: VecDeque<Waiting>,
    /// Invariant: all are within [`WINDOW`] of what is acknowledged.
    sent: BTreeMap<RequestNumber, Sent>,
    flight_bytes: usize,
    /// By the id of the attempt.
    reads: BTreeMap<u64, Read>,
    last_read: u64,
    armed: BTreeMap<ClientTimer, Instant>,
}

impl protocol::Client<AsyncTob> for Client {
    fn new(config: ClientConfig) -> Self {
        // Nobody will believe it: a host gives keys to clients of protocols that sign.
        let keyring = Keyring::keyless(quorate_core::ids::ClusterId::new(0), quorate_core::ids::Epoch::ZERO);
        Self::start(config, Arc::new(keyring))
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        let quorums = ByzantineQuorums::new(config.replicas).or_else(|| ByzantineQuorums::new(1));
        Self {
            config,
            keyring,
            quorums: quorums.expect("one replica is a group"),
            connected: BTreeSet::new(),
            session: Session::None,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            flight_bytes: 0,
            reads: BTreeMap::new(),
            last_read: 0,
            armed: BTreeMap::new(),
        }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let deadline = out.now().plus(self.config.timeout);
        match call {
            Call::Apply(bytes) => self.waiting.push_back(Waiting { ticket, body: Body::Apply(bytes), deadline }),
            Call::Read(Consistency::Ordered, query) => {
                self.waiting.push_back(Waiting { ticket, body: Body::Query(query), deadline });
            }
            Call::Read(consistency, query) => {
                self.last_read = self.last_read.wrapping_add(1);
                let read = Read { ticket, consistency, query, deadline, order_at: None, tally: Tally::default() };
                self.reads.insert(self.last_read, read);
            }
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        self.send_reads(out);
        self.open_session(out);
        self.send_waiting(out);
        self.arm(out);
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        match message {
            Message::Reply(reply) => self.on_reply(from, reply, out),
            Message::ReadReply { id, op, answer } => self.on_read_reply(from, id, (op, answer), out),
            _ => {} // also Busy: it is sent again when its time comes
        }
        self.flush(out);
    }

    fn on_timer(&mut self, timer: ClientTimer, out: &mut Outbox) {
        self.armed.remove(&timer);
        match timer {
            ClientTimer::Retry => self.retry(out),
            ClientTimer::Timeout => self.expire(out),
        }
        self.flush(out);
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        if self.connected.insert(replica) {
            self.flush(out);
        }
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        let asked = self.whom().contains(&replica);
        self.connected.remove(&replica);
        if asked {
            let now = out.now(); // what only this one has been given goes to the others at once
            self.sent.values_mut().for_each(|sent| sent.retry_at = now);
            if let Session::Opening(opening) = &mut self.session {
                opening.retry_at = now;
            }
        }
        self.arm(out);
    }
}

/// Sending.
impl Client {
    /// One replica that can be reached: clients spread over all.
    fn whom(&self) -> Vec<ReplicaId> {
        self.one_of(0).into_iter().collect()
    }

    /// The replica that answers in full: another one than that which orders, which has enough to do.
    fn in_full(&self) -> Option<ReplicaId> {
        self.one_of(1)
    }

    fn one_of(&self, after: u128) -> Option<ReplicaId> {
        let count = self.connected.len().max(1) as u128;
        let index = self.config.client.get().wrapping_add(after) % count;
        self.connected.iter().nth(usize::try_from(index).unwrap_or(0)).copied()
    }

    fn acknowledged(&self) -> RequestNumber {
        let Session::Open(_, last) = self.session else { return RequestNumber::ZERO };
        self.sent.keys().next().map_or(last, |first| first.previous())
    }

    fn pause(&self, tries: u32) -> Duration {
        self.config.retry.saturating_mul(1 << tries.min(DOUBLINGS_MAX))
    }

    fn open_session(&mut self, out: &mut Outbox) {
        if self.waiting.is_empty() || !matches!(self.session, Session::None) || self.connected.is_empty() {
            return;
        }
        let retry_at = out.now().plus(self.pause(0));
        self.session = Session::Opening(Opening { tries: 0, retry_at, tally: Tally::default() });
        let to = self.whom();
        self.send_opening(&to, out);
    }

    fn send_opening(&self, to: &[ReplicaId], out: &mut Outbox) {
        let requests = vec![(RequestNumber::ZERO, Body::Register)];
        self.send(to, SessionId::ZERO, RequestNumber::ZERO, None, requests, out);
    }

    fn send(
        &self,
        to: &[ReplicaId],
        session: SessionId,
        acknowledged: RequestNumber,
        full: Option<ReplicaId>,
        requests: Vec<(RequestNumber, Body)>,
        out: &mut Outbox,
    ) {
        if self.keyring.client().is_none() {
            return; // without a key nobody listens; the calls end in honest timeouts
        }
        let requests = Requests { client: self.config.client, session, acknowledged, full, requests };
        let group: Group = self.keyring.sign_as_client(requests);
        for replica in to {
            out.send(*replica, Message::Request(group.clone()));
        }
    }

    /// Numbers and sends what waits, as far as the window reaches.
    fn send_waiting(&mut self, out: &mut Outbox) {
        let to = self.whom();
        if to.is_empty() {
            return;
        }
        let retry_at = out.now().plus(self.pause(0));
        let mut numbers = Vec::new();
        while let Session::Open(id, last) = self.session {
            let room = last.next().since(self.acknowledged()) <= WINDOW;
            let Some(next) = self.waiting.front().filter(|_| room) else { break };
            let bytes = self.flight_bytes.saturating_add(next.body.len());
            if bytes > FLIGHT_BYTES_MAX && !self.sent.is_empty() {
                break;
            }
            let Some(Waiting { ticket, body, deadline }) = self.waiting.pop_front() else { break };
            self.flight_bytes = bytes;
            self.session = Session::Open(id, last.next());
            let sent = Sent { ticket, body, deadline, tries: 0, retry_at, tally: Tally::default() };
            self.sent.insert(last.next(), sent);
            numbers.push(last.next());
        }
        self.send_numbers(&to, &numbers, self.in_full(), out);
    }

    /// Sends these requests in as few messages as their bounds allow, each signed once.
    fn send_numbers(&self, to: &[ReplicaId], numbers: &[RequestNumber], full: Option<ReplicaId>, out: &mut Outbox) {
        let Session::Open(session, _) = self.session else { return };
        let acknowledged = self.acknowledged();
        let (mut requests, mut bytes) = (Vec::new(), 0_usize);
        for number in numbers {
            let Some(sent) = self.sent.get(number) else { continue };
            bytes = bytes.saturating_add(sent.body.len());
            if !requests.is_empty() && (requests.len() >= REQUESTS_MAX || bytes > MESSAGE_BYTES_MAX) {
                self.send(to, session, acknowledged, full, std::mem::take(&mut requests), out);
                bytes = sent.body.len();
            }
            requests.push((*number, sent.body.clone()));
        }
        if !requests.is_empty() {
            self.send(to, session, acknowledged, full, requests, out);
        }
    }

    fn send_reads(&mut self, out: &mut Outbox) {
        if self.connected.is_empty() {
            return;
        }
        let (full, order_at) = (self.in_full(), out.now().plus(self.pause(0)));
        for (id, read) in self.reads.iter_mut().filter(|(_, read)| read.order_at.is_none()) {
            read.order_at = Some(order_at);
            for replica in &self.connected {
                let (consistency, query) = (read.consistency, read.query.clone());
                out.send(*replica, Message::Read { id: *id, consistency, full, query });
            }
        }
    }

    /// What was not answered goes to all replicas, and all are to answer in full. A read is ordered instead.
    fn retry(&mut self, out: &mut Outbox) {
        let now = out.now();
        let all: Vec<ReplicaId> = self.connected.iter().copied().collect();
        let mut due = Vec::new();
        let retry = self.config.retry;
        for (number, sent) in self.sent.iter_mut().filter(|(_, sent)| sent.retry_at <= now) {
            sent.tries = sent.tries.saturating_add(1);
            sent.retry_at = now.plus(retry.saturating_mul(1 << sent.tries.min(DOUBLINGS_MAX)));
            due.push(*number);
        }
        self.send_numbers(&all, &due, None, out);
        if let Session::Opening(opening) = &mut self.session
            && opening.retry_at <= now
        {
            opening.tries = opening.tries.saturating_add(1);
            opening.retry_at = now.plus(retry.saturating_mul(1 << opening.tries.min(DOUBLINGS_MAX)));
            self.send_opening(&all, out);
        }
        let late: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, read)| read.order_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            self.order_read(id);
        }
    }

    /// The replicas do not agree on a read, or do not answer: its place in the order decides.
    fn order_read(&mut self, id: u64) {
        let Some(Read { ticket, query, deadline, .. }) = self.reads.remove(&id) else { return };
        self.waiting.push_back(Waiting { ticket, body: Body::Query(query), deadline });
    }

    /// Gives up what has waited too long, and says whether it may have been applied.
    ///
    /// A request that was sent leaves its number behind, counted as acknowledged from the next one on: the table of
    /// sessions refuses what is acknowledged, so a copy that the network still holds is applied once or not at all.
    fn expire(&mut self, out: &mut Outbox) {
        let now = out.now();
        let mut late = |ticket, maybe_applied| out.complete(ticket, Err(CallError::Timeout { maybe_applied }));
        let expired: Vec<_> =
            self.sent.iter().filter(|(_, it)| it.deadline <= now).map(|(number, _)| *number).collect();
        for number in expired {
            if let Some(sent) = self.sent.remove(&number) {
                self.flight_bytes = self.flight_bytes.saturating_sub(sent.body.len());
                late(sent.ticket, matches!(sent.body, Body::Apply(_)));
            }
        }
        self.waiting.retain(|it| {
            let keep = it.deadline > now;
            if !keep {
                late(it.ticket, false);
            }
            keep
        });
        self.reads.retain(|_, it| {
            let keep = it.deadline > now;
            if !keep {
                late(it.ticket, false);
            }
            keep
        });
    }

    /// Tells the host when to wake us, where that changed.
    fn arm(&mut self, out: &mut Outbox) {
        let opening = match &self.session {
            Session::Opening(opening) if !self.waiting.is_empty() => Some(opening.retry_at),
            _ => None,
        };
        let reads = self.reads.values();
        let retries = self.sent.values().map(|sent| sent.retry_at).chain(reads.filter_map(|it| it.order_at));
        let retry = retries.chain(opening).min();
        let deadlines = self.sent.values().map(|it| it.deadline).chain(self.waiting.iter().map(|it| it.deadline));
        let timeout = deadlines.chain(self.reads.values().map(|it| it.deadline)).min();
        for (timer, at) in [(ClientTimer::Retry, retry), (ClientTimer::Timeout, timeout)] {
            match at {
                Some(at) if self.armed.get(&timer) != Some(&at) => {
                    self.armed.insert(timer, at);
                    out.arm(timer, at.since(out.now()));
                }
                None if self.armed.remove(&timer).is_some() => out.disarm(timer),
                _ => {}
            }
        }
    }
}

/// Answers.
impl Client {
    /// Answers to requests.
    fn on_reply(&mut self, from: ReplicaId, reply: Reply, out: &mut Outbox) {
        if !self.quorums.contains(from) {
            return;
        }
        let needed = self.quorums.vouch();
        for (number, told) in reply.rulings {
            if reply.session == SessionId::ZERO {
                self.on_opened(from, reply.op, told);
                continue;
            }
            let Session::Open(id, _) = self.session else { return };
            if reply.session != id || told == Told::Full(Ruling::OutsideWindow) {
                continue; // another session's; or it is sent again when its time comes
            }
            let Some(sent) = self.sent.get_mut(&number) else { continue };
            sent.tally.add(from, reply.op, told);
            if let Some((ruling, op)) = sent.tally.believed(needed, &self.quorums) {
                self.on_ruling(number, ruling, op, out);
            }
        }
    }

    fn on_opened(&mut self, from: ReplicaId, op: OpNumber, told: Told<Ruling>) {
        let Session::Opening(opening) = &mut self.session else { return };
        opening.tally.add(from, op, told);
        if let Some((Ruling::Opened(id), _)) = opening.tally.believed(self.quorums.vouch(), &self.quorums) {
            self.session = Session::Open(id, RequestNumber::ZERO);
        }
    }

    fn on_ruling(&mut self, number: RequestNumber, ruling: Ruling, op: OpNumber, out: &mut Outbox) {
        let Some(sent) = self.sent.remove(&number) else { return };
        self.flight_bytes = self.flight_bytes.saturating_sub(sent.body.len());
        match ruling {
            Ruling::Replied(reply) => out.complete(sent.ticket, Ok(Answer { reply, op })),
            Ruling::Evicted => {
                // A copy of it may have been applied before the session went.
                out.complete(sent.ticket, Err(CallError::Evicted { maybe_applied: true }));
                for (_, other) in std::mem::take(&mut self.sent) {
                    out.complete(other.ticket, Err(CallError::Evicted { maybe_applied: true }));
                }
                self.flight_bytes = 0;
                self.session = Session::None;
            }
            Ruling::Reused | Ruling::Closed | Ruling::Opened(_) | Ruling::OutsideWindow => {
                let what = format!("the replicas say that request {number} of this session was another one");
                out.complete(sent.ticket, Err(CallError::Refused(what)));
            }
        }
    }

    fn on_read_reply(&mut self, from: ReplicaId, id: u64, (op, answer): (OpNumber, Told<Bytes>), out: &mut Outbox) {
        if !self.quorums.contains(from) {
            return;
        }
        let Some(read) = self.reads.get_mut(&id) else { return };
        let needed = match read.consistency {
            Consistency::Stale { at_least } if op < at_least => return,
            Consistency::Stale { .. } => self.quorums.vouch(),
            Consistency::Linearizable | Consistency::Ordered => self.quorums.answering(),
        };
        read.tally.add(from, op, answer);
        if let Some((reply, op)) = read.tally.believed(needed, &self.quorums) {
            if let Some(read) = self.reads.remove(&id) {
                out.complete(read.ticket, Ok(Answer { reply, op }));
            }
        } else if read.tally.count() == self.quorums.replicas() {
            self.order_read(id); // all have answered, and not alike
        }
    }
}
