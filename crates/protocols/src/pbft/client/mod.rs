//! The client of a cluster some of whose replicas lie (Castro and Liskov §4.1). It believes a result that `f + 1` replicas
//! send: one of them is correct. One replica sends it in full, the others its digest. Many requests are in flight, and one
//! signature covers all that are sent together. What is not answered in time goes to all replicas, whom it makes suspect
//! the primary if that one sits on it.
//!
//! It serves all protocols whose clients ask like PBFT's ([`crate::quorum_client`]); [`Manner`] is what they differ in.

mod tally;

use super::message::{Group, Message, REQUESTS_MAX, Reply, Requests, Told};
use super::{ClientTimer, Pbft};
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::ids::{ClusterId, Epoch, OpNumber, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::mutated;
use quorate_core::protocol::{self, Answer, Call, CallError, ClientConfig, ClientOutbox, Consistency, Ticket};
use quorate_core::quorum::{AnswerQuorums, ByzantineQuorums};
use quorate_core::sessions::{Body, Ruling, WINDOW};
use quorate_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use tally::Tally;

type Outbox = ClientOutbox<Pbft>;

/// Bytes of operations in one message, unless a single one is longer: below the frame that replicas take from clients.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of operations in flight, unless a single one is longer: below what a replica keeps for one client.
const FLIGHT_BYTES_MAX: usize = 8 << 20;
/// The pause before sending again is doubled so often at most, unless a protocol's usual pause is longer.
pub(crate) const DOUBLINGS_MAX: u32 = 4;

/// What the protocols that share this client differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manner {
    /// How many must say the same.
    pub quorums: AnswerQuorums,
    /// Is there one replica that orders what all clients ask? Then requests go to whom `f + 1` name; else to one replica of
    /// the client's choice, and clients spread over all.
    pub led: bool,
}

impl Manner {
    /// PBFT's: a primary, and a quorum for reads that are not ordered (§4.1, §4.4).
    pub fn led(replicas: usize) -> Self {
        let quorums = ByzantineQuorums::new(replicas).or_else(|| ByzantineQuorums::new(1));
        let quorums = quorums.expect("one replica is a group");
        Self { quorums: quorums.answers(quorums.quorum()), led: true }
    }
}

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

/// The client's half of PBFT.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    keyring: Arc<Keyring>,
    manner: Manner,
    /// The pause before sending again is doubled so often at most.
    doublings: u32,
    connected: BTreeSet<ReplicaId>,
    /// The view that each replica says it is in.
    views: BTreeMap<ReplicaId, View>,
    /// Whom requests go to where nobody leads.
    home: Option<ReplicaId>,
    /// How often whoever was to answer in full did not, though enough others had answered.
    let_down: u128,
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

/// No key: nobody will believe whoever has none. A host gives keys to clients of protocols that sign.
pub(crate) fn nobody() -> Keyring {
    Keyring::keyless(ClusterId::new(0), Epoch::ZERO)
}

impl Client {
    /// A client of a protocol with these manners.
    pub(crate) const fn with(manner: Manner, config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        Self {
            config,
            keyring,
            manner,
            doublings: DOUBLINGS_MAX,
            connected: BTreeSet::new(),
            views: BTreeMap::new(),
            home: None,
            let_down: 0,
            session: Session::None,
            waiting: VecDeque::new(),
            sent: BTreeMap::new(),
            flight_bytes: 0,
            reads: BTreeMap::new(),
            last_read: 0,
            armed: BTreeMap::new(),
        }
    }

    /// The same, which doubles its pause so often at most.
    pub(crate) fn doubling(self, doublings: u32) -> Self {
        Self { doublings, ..self }
    }
}

impl protocol::Client<Pbft> for Client {
    fn new(config: ClientConfig) -> Self {
        Self::start(config, Arc::new(nobody()))
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        let manner = Manner::led(config.replicas);
        Self::with(manner, config, keyring)
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let deadline = out.now().plus(self.config.timeout);
        match call {
            Call::Apply(bytes) => self.waiting.push_back(Waiting { ticket, body: Body::Apply(bytes), deadline }),
            Call::Read(consistency, query) if self.is_ordered(consistency) => {
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
            Message::Reply(reply) => self.on_reply(from, reply, false, out),
            Message::Tentative(reply) => self.on_reply(from, reply, true, out),
            Message::ReadReply { view, id, op, answer } => self.on_read_reply(from, view, id, (op, answer), out),
            Message::Busy { view } => drop(self.views.insert(from, view)), // it is sent again when its time comes
            _ => {}
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
        self.connected.remove(&replica);
        if self.chosen() == Some(replica) {
            self.home = None;
            let now = out.now(); // what only that one has been given goes to the others at once
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
    /// Who orders what this client asks, whether or not it can be reached: whom `f + 1` replicas let believe to lead.
    fn chosen(&self) -> Option<ReplicaId> {
        if !self.manner.led {
            return self.home;
        }
        let view = self.manner.quorums.vouched(self.views.values().copied()).unwrap_or_default();
        Some(self.manner.quorums.primary(view))
    }

    /// That one if it can be reached; else everybody who can, or another one where any will do.
    fn whom(&mut self) -> Vec<ReplicaId> {
        let reached = self.chosen().filter(|replica| self.connected.contains(replica));
        if self.manner.led {
            return reached.map_or_else(|| self.connected.iter().copied().collect(), |it| vec![it]);
        }
        self.home = reached.or_else(|| self.spread(self.connected.iter().copied(), 0));
        self.home.into_iter().collect()
    }

    /// The replica that answers in full: not the one that orders, which has enough to do, and clients spread over the others.
    /// Another one after each time that it was not given.
    fn in_full(&self) -> Option<ReplicaId> {
        let orders = self.chosen();
        self.spread(self.connected.iter().copied().filter(|replica| Some(*replica) != orders), self.let_down)
    }

    /// One of these, another one for another client, and so many places further.
    fn spread(&self, among: impl Iterator<Item = ReplicaId>, further: u128) -> Option<ReplicaId> {
        let among: Vec<_> = among.collect();
        let index = self.config.client.get().wrapping_add(further) % among.len().max(1) as u128;
        among.get(usize::try_from(index).unwrap_or(0)).copied()
    }

    /// Must it have a place in the order, whoever answers?
    const fn is_ordered(&self, consistency: Consistency) -> bool {
        match consistency {
            Consistency::Ordered => true,
            Consistency::Linearizable => self.manner.quorums.reads().is_none(),
            Consistency::Stale { .. } => false,
        }
    }

    /// For a protocol around this one, which has levels of criticality: applies an operation at one of them.
    pub(crate) fn submit_at(&mut self, ticket: Ticket, level: u8, operation: Bytes, out: &Outbox) {
        let (body, deadline) = (Body::Critical(level, operation), out.now().plus(self.config.timeout));
        self.waiting.push_back(Waiting { ticket, body, deadline });
    }

    /// The session that is open, and up to which number all in it is answered: what is not may be asked again.
    pub(crate) fn acknowledged_in(&self) -> (SessionId, RequestNumber) {
        let Session::Open(session, _) = self.session else { return (SessionId::ZERO, RequestNumber::ZERO) };
        (session, self.acknowledged())
    }

    fn acknowledged(&self) -> RequestNumber {
        let Session::Open(_, last) = self.session else { return RequestNumber::ZERO };
        self.sent.keys().next().map_or(last, |first| first.previous())
    }

    fn open_session(&mut self, out: &mut Outbox) {
        if self.waiting.is_empty() || !matches!(self.session, Session::None) || self.connected.is_empty() {
            return;
        }
        let retry_at = out.now().plus(self.config.retry);
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
        if self.waiting.is_empty() {
            return; // whom to ask is decided when there is something to ask, among all who can be reached then
        }
        let to = self.whom();
        if to.is_empty() {
            return;
        }
        let retry_at = out.now().plus(self.config.retry);
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
        let (full, order_at) = (self.in_full(), out.now().plus(self.config.retry));
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
        let (retry, doublings) = (self.config.retry, self.doublings);
        let (mut due, mut let_down) = (Vec::new(), false);
        for (number, sent) in self.sent.iter_mut().filter(|(_, sent)| sent.retry_at <= now) {
            let_down |= sent.tally.lacks_full(self.manner.quorums.vouch());
            sent.tries = sent.tries.saturating_add(1);
            sent.retry_at = now.plus(retry.saturating_mul(1 << sent.tries.min(doublings)));
            due.push(*number);
        }
        self.send_numbers(&all, &due, None, out);
        if let Session::Opening(opening) = &mut self.session
            && opening.retry_at <= now
        {
            opening.tries = opening.tries.saturating_add(1);
            opening.retry_at = now.plus(retry.saturating_mul(1 << opening.tries.min(doublings)));
            self.send_opening(&all, out);
        }
        let late: Vec<u64> = self
            .reads
            .iter()
            .filter(|(_, read)| read.order_at.is_some_and(|at| at <= now))
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            let_down |= self.reads.get(&id).is_some_and(|it| it.tally.lacks_full(self.manner.quorums.vouch()));
            self.order_read(id);
        }
        self.let_down = self.let_down.wrapping_add(let_down.into());
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
                late(sent.ticket, matches!(sent.body, Body::Apply(_) | Body::Critical(..)));
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
    /// ⟨REPLY v, t, c, i, r⟩, or what is said before it is committed.
    fn on_reply(&mut self, from: ReplicaId, reply: Reply, is_tentative: bool, out: &mut Outbox) {
        if !self.manner.quorums.contains(from) {
            return;
        }
        self.views.insert(from, reply.view);
        let tentative = is_tentative.then_some(reply.view);
        let needed = if mutated!("pbft/a-client-believes-one") { 1 } else { self.manner.quorums.vouch() };
        for (number, told) in reply.rulings {
            if reply.session == SessionId::ZERO {
                self.on_opened(from, reply.op, told, tentative);
                continue;
            }
            let Session::Open(id, _) = self.session else { return };
            if reply.session != id || told == Told::Full(Ruling::OutsideWindow) {
                continue; // another session's; or it is sent again when its time comes
            }
            let Some(sent) = self.sent.get_mut(&number) else { continue };
            sent.tally.add(from, reply.op, told, tentative);
            if let Some((ruling, op)) = sent.tally.believed(needed, &self.manner.quorums) {
                self.on_ruling(number, ruling, op, out);
            }
        }
    }

    fn on_opened(&mut self, from: ReplicaId, op: OpNumber, told: Told<Ruling>, tentative: Option<View>) {
        let quorums = self.manner.quorums;
        let Session::Opening(opening) = &mut self.session else { return };
        opening.tally.add(from, op, told, tentative);
        if let Some((Ruling::Opened(id), _)) = opening.tally.believed(quorums.vouch(), &quorums) {
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

    fn on_read_reply(
        &mut self,
        from: ReplicaId,
        view: View,
        id: u64,
        (op, answer): (OpNumber, Told<Bytes>),
        out: &mut Outbox,
    ) {
        if !self.manner.quorums.contains(from) {
            return;
        }
        self.views.insert(from, view);
        let quorums = self.manner.quorums;
        let Some(read) = self.reads.get_mut(&id) else { return };
        let needed = match read.consistency {
            Consistency::Stale { at_least } if op < at_least => return,
            Consistency::Stale { .. } => quorums.vouch(),
            _ if mutated!("pbft/a-read-believes-f-plus-one") => quorums.vouch(),
            Consistency::Linearizable | Consistency::Ordered => quorums.reads().unwrap_or(usize::MAX),
        };
        read.tally.add(from, op, answer, None);
        if let Some((reply, op)) = read.tally.believed(needed, &quorums) {
            if let Some(read) = self.reads.remove(&id) {
                out.complete(read.ticket, Ok(Answer { reply, op }));
            }
        } else if read.tally.count() == quorums.replicas() {
            self.order_read(id); // all have answered, and not alike
        }
    }
}
