//! The client: one session, numbered requests, and the rule when an answer counts (VRR §4, vr.md §2.3 step 1, §2.7).
//!
//! Promises. Every call completes exactly once. A number of a session never names two operations, so that the table of
//! sessions applies each operation at most once whatever the network repeats (CT4). `maybe_applied` is false only if no
//! link was ever given the operation (CT7).
//!
//! Deviations from VRR: a session is a window of [`WINDOW`] requests, not one; it is opened by an ordered operation (CT1),
//! which also is what a restarted client does (CT3: VRR's "last number plus two" can answer with another call's reply).
//!
//! One rule decides what is sent. Each request and read knows the replicas that were *handed* it on a link that is still
//! up. It *wants* the believed primary, or every connected replica while the primary is not connected (backups pass requests
//! on and tell readers the view). What it wants and was not handed to is sent at once; what is unanswered for too long goes
//! to every connected replica. Connecting, disconnecting and learning a view only change the two sets.
//!
//! Left out: closing the session. A client that leaves is forgotten when the table needs its place.

use super::message::{REQUESTS_MAX, Request};
use super::{ClientTimer, Message, Reply, Vr};
use bytes::Bytes;
use quorate_core::ids::{ClientId, OpNumber, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::protocol::{self, Answer, Call, CallError, ClientConfig, Consistency, Ticket};
use quorate_core::quorum::CrashQuorums;
use quorate_core::sessions::{Body, OPERATION_BYTES_MAX, Ruling, WINDOW};
use quorate_core::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of operations in one message, unless a single one is longer: well below the frame that replicas take from clients.
const MESSAGE_BYTES_MAX: usize = 512 << 10;
/// Bytes of operations in flight, unless a single one is longer: a retry sends them to every replica, and a primary takes
/// 32 MiB from all its clients together ([`super::Config::pending_bytes`]).
const FLIGHT_BYTES_MAX: usize = 8 << 20;
/// The longest silence between two attempts at one request.
const RETRY_MAX: Duration = Duration::from_secs(2);
/// The shortest: a retry delay of zero must not spin.
const RETRY_MIN: Duration = Duration::from_millis(1);
/// Attempts at one read whose answer still counts. Older ones are forgotten.
const READ_IDS_MAX: usize = 8;

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

/// What the client believes about the replicas, and how patient it is.
#[derive(Debug)]
struct Links {
    quorums: CrashQuorums,
    /// The greatest view that anyone has told; its primary is the believed one.
    view: View,
    connected: Replicas,
    retry: Duration,
    /// No attempt is due earlier than this.
    soonest: Option<Instant>,
}

/// A set of replicas; bit i stands for replica i (a group has at most 15).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Replicas(u16);

/// Each phase of the session carries its own data.
#[derive(Debug)]
enum Session {
    /// Nobody has asked for anything, or the last one was evicted.
    None,
    /// Asked for one (CT1).
    Opening(Attempt),
    Open(Open),
}

/// An open session.
#[derive(Debug)]
struct Open {
    id: SessionId,
    /// The last number that was used.
    last: RequestNumber,
    /// Requests without an answer. Numbers in order, hence deadlines in order.
    /// Invariant: every one was handed to a link; all are within [`WINDOW`] of `acknowledged`.
    sent: BTreeMap<RequestNumber, Sent>,
    /// Bytes of their bodies.
    bytes: usize,
}

#[derive(Debug)]
struct Waiting {
    ticket: Ticket,
    body: Body,
    deadline: Instant,
}

#[derive(Debug)]
struct Sent {
    ticket: Ticket,
    body: Body,
    deadline: Instant,
    attempt: Attempt,
}

/// Reads that do not go through the log.
#[derive(Debug, Default)]
struct Reads {
    /// The last id that was used. Orders reads, and names each attempt at one.
    last: u64,
    /// By the id that orders them, hence in the order of their deadlines.
    reads: BTreeMap<u64, Read>,
    /// Whose attempt an id is.
    attempts: BTreeMap<u64, u64>,
    /// Reads that came since the last flush.
    fresh: Vec<u64>,
}

#[derive(Debug)]
struct Read {
    ticket: Ticket,
    consistency: Consistency,
    query: Bytes,
    deadline: Instant,
    attempt: Attempt,
    /// Has any link been given it?
    sent: bool,
    /// Its last attempts. At most [`READ_IDS_MAX`].
    ids: VecDeque<u64>,
}

/// How far the sending of one thing has got.
#[derive(Debug)]
struct Attempt {
    whom: Whom,
    /// The replicas that it was handed to, on a link that is still up, and that count: learning a view makes the new
    /// primary one that was not told yet.
    handed: Replicas,
    /// When to send it again. Means nothing while `handed` is empty.
    due: Instant,
    /// Silence before the next retry.
    delay: Duration,
    /// The primary has said since that it is busy: it lives, so the next retry does not bother the others, which would only
    /// pass on what it already refused.
    busy: bool,
    /// The last retry spared the others. The next one does not: what says that it is busy may be cut off from them.
    spared: bool,
}

/// Who can answer.
#[derive(Debug)]
enum Whom {
    /// The primary.
    Primary,
    /// Any one replica; the next to ask is this one, or the next one after it that is connected.
    Any(usize),
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

/// What is sent, and when.
impl Client {
    /// Sends everything that wants a replica which was not handed it, or that is due.
    fn sweep(&mut self, out: &mut Outbox) {
        let now = out.now();
        self.links.soonest = None; // every attempt that counts is looked at below
        let mut groups: BTreeMap<Replicas, Vec<RequestNumber>> = BTreeMap::new();
        if let Session::Open(open) = &mut self.session {
            for (number, sent) in &mut open.sent {
                let to = sent.attempt.step(&mut self.links, now);
                if !to.is_empty() {
                    groups.entry(to).or_default().push(*number);
                }
            }
        }
        for (to, numbers) in groups {
            self.send_requests(to, &numbers, out);
        }
        self.reads.fresh.clear(); // they are among all
        for key in self.reads.keys() {
            self.reads.deliver(key, &mut self.links, out);
        }
        self.send_new(out);
    }

    /// Sends what was not sent before, as far as it may be.
    fn send_new(&mut self, out: &mut Outbox) {
        for key in std::mem::take(&mut self.reads.fresh) {
            self.reads.deliver(key, &mut self.links, out);
        }
        self.open_session(out);
        self.send_waiting(out);
        self.arm(out);
    }

    /// Asks for a session if a request waits for one, by an operation that is ordered like any other (CT1).
    fn open_session(&mut self, out: &mut Outbox) {
        if self.waiting.is_empty() {
            return; // nobody needs it: no retries either
        }
        if matches!(self.session, Session::None) {
            self.session = Session::Opening(Attempt::new(Whom::Primary));
        }
        let Session::Opening(attempt) = &mut self.session else { return };
        let to = attempt.step(&mut self.links, out.now());
        let request = Request {
            client: self.client,
            session: SessionId::ZERO,
            acknowledged: RequestNumber::ZERO,
            requests: vec![(RequestNumber::ZERO, Body::Register)],
        };
        for replica in to.iter() {
            out.send(replica, Message::Request(request.clone()));
        }
    }

    /// Numbers and sends what waits, as far as the window reaches. Without a link nothing gets a number: a number means
    /// that a link was given the request.
    fn send_waiting(&mut self, out: &mut Outbox) {
        let Session::Open(open) = &mut self.session else { return };
        let to = self.links.wanted();
        if to.is_empty() {
            return;
        }
        let mut numbers = Vec::new();
        while let Some(Waiting { ticket, body, deadline }) =
            self.waiting.pop_front_if(|next| open.has_room(next.body.len()))
        {
            let mut attempt = Attempt::new(Whom::Primary);
            let wanted = attempt.step(&mut self.links, out.now());
            assert_eq!(wanted, to, "a new request wants what every new request wants");
            numbers.push(open.add(Sent { ticket, body, deadline, attempt }));
        }
        self.send_requests(to, &numbers, out);
    }

    /// Sends these requests of the open session in as few messages as their bounds allow.
    fn send_requests(&self, to: Replicas, numbers: &[RequestNumber], out: &mut Outbox) {
        let Some(open) = self.open() else { return };
        let acknowledged = open.acknowledged();
        let (mut requests, mut bytes) = (Vec::new(), 0_usize);
        let mut send = |requests: Vec<(RequestNumber, Body)>| {
            if requests.is_empty() {
                return;
            }
            let request = Request { client: self.client, session: open.id, acknowledged, requests };
            for replica in to.iter() {
                out.send(replica, Message::Request(request.clone()));
            }
        };
        for number in numbers {
            let Some(sent) = open.sent.get(number) else { continue };
            assert!(*number > acknowledged, "what is acknowledged is never sent again");
            assert!(number.since(acknowledged) <= WINDOW, "nothing is sent that the table would have to refuse");
            let more = bytes.saturating_add(sent.body.len());
            if requests.len() >= REQUESTS_MAX || more > MESSAGE_BYTES_MAX {
                send(std::mem::take(&mut requests));
                bytes = 0;
            }
            bytes = bytes.saturating_add(sent.body.len());
            requests.push((*number, sent.body.clone()));
        }
        send(requests);
    }

    /// Gives up what has waited too long, and says whether it may have been applied (CT7).
    ///
    /// A request that was sent leaves its number behind: used, never sent again, and from the next request on counted as
    /// acknowledged. That is safe: the table refuses what is acknowledged, so a copy that the network still holds is either
    /// ordered before that acknowledgement, and applied once, or after it, and not applied. `maybe_applied` covers both.
    fn expire(&mut self, out: &mut Outbox) {
        let now = out.now();
        let mut late = |ticket, maybe_applied| out.complete(ticket, Err(CallError::Timeout { maybe_applied }));
        if let Session::Open(open) = &mut self.session {
            while let Some(sent) = open.remove_first_if(|sent| sent.deadline <= now) {
                late(sent.ticket, true);
            }
        }
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.deadline <= now) {
            late(waiting.ticket, false);
        }
        while let Some(read) = self.reads.remove_first_if(|read| read.deadline <= now) {
            late(read.ticket, read.sent);
        }
    }

    /// Tells the host when to wake us, where that changed. The retry may come early, when the one that was due first has
    /// been answered since; then it finds nothing to do and is armed again.
    fn arm(&mut self, out: &mut Outbox) {
        let sent = self.open().and_then(|open| open.sent.values().next());
        let opening = matches!(self.session, Session::Opening(_)) && !self.waiting.is_empty();
        let unanswered = opening || sent.is_some() || !self.reads.reads.is_empty();
        let first = [
            sent.map(|sent| sent.deadline),
            self.waiting.front().map(|waiting| waiting.deadline),
            self.reads.reads.values().next().map(|read| read.deadline),
        ];
        let timeout = first.into_iter().flatten().min();
        self.links.soonest = self.links.soonest.filter(|_| unanswered);
        set_timer(&mut self.armed_retry, ClientTimer::Retry, self.links.soonest, out);
        set_timer(&mut self.armed_timeout, ClientTimer::Timeout, timeout, out);
    }

    /// What a replica was handed does not count any more.
    fn forget_handed(&mut self, replica: ReplicaId) {
        for attempt in self.attempts() {
            attempt.handed.remove(replica);
        }
    }

    /// All that is under way.
    fn attempts(&mut self) -> impl Iterator<Item = &mut Attempt> {
        let (opening, open) = match &mut self.session {
            Session::None => (None, None),
            Session::Opening(attempt) => (Some(attempt), None),
            Session::Open(open) => (None, Some(open)),
        };
        let sent = open.into_iter().flat_map(|open| open.sent.values_mut()).map(|sent| &mut sent.attempt);
        let reads = self.reads.reads.values_mut().map(|read| &mut read.attempt);
        opening.into_iter().chain(sent).chain(reads)
    }

    fn open(&self) -> Option<&Open> {
        match &self.session {
            Session::Open(open) => Some(open),
            Session::None | Session::Opening(_) => None,
        }
    }

    /// The replica that this client asks first for stale reads: clients spread over all.
    fn home(&self) -> usize {
        let index = self.client.get() % self.links.quorums.replicas() as u128;
        usize::try_from(index).unwrap_or(0) // less than the number of replicas
    }
}

fn refused(number: RequestNumber, why: &str) -> CallError {
    CallError::Refused(format!("the cluster says that request {number} {why}"))
}

fn set_timer(armed: &mut Option<Instant>, timer: ClientTimer, at: Option<Instant>, out: &mut Outbox) {
    if *armed == at {
        return;
    }
    match at {
        Some(at) => out.arm(timer, at.since(out.now())),
        None => out.disarm(timer),
    }
    *armed = at;
}

impl Open {
    /// The client knows the answers up to and including this one, or has given them up.
    fn acknowledged(&self) -> RequestNumber {
        self.sent.keys().next().map_or(self.last, |first| first.previous())
    }

    /// May one more request of this length be sent?
    fn has_room(&self, bytes: usize) -> bool {
        let within = self.last.next().since(self.acknowledged()) <= WINDOW;
        within && (self.sent.is_empty() || self.bytes.saturating_add(bytes) <= FLIGHT_BYTES_MAX)
    }

    /// Gives a request its number.
    fn add(&mut self, sent: Sent) -> RequestNumber {
        self.last = self.last.next();
        self.bytes = self.bytes.saturating_add(sent.body.len());
        let former = self.sent.insert(self.last, sent);
        assert!(former.is_none(), "a number names one operation (CT4)");
        self.last
    }

    fn remove(&mut self, number: RequestNumber) -> Option<Sent> {
        let sent = self.sent.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(sent.body.len());
        Some(sent)
    }

    fn remove_first_if(&mut self, test: impl FnOnce(&Sent) -> bool) -> Option<Sent> {
        let (number, _) = self.sent.first_key_value().filter(|(_, sent)| test(sent))?;
        let number = *number;
        self.remove(number)
    }
}

impl Reads {
    fn add(&mut self, ticket: Ticket, consistency: Consistency, query: Bytes, deadline: Instant, attempt: Attempt) {
        self.last = self.last.saturating_add(1);
        let key = self.last;
        let read = Read { ticket, consistency, query, deadline, attempt, sent: false, ids: VecDeque::new() };
        self.reads.insert(key, read);
        self.fresh.push(key);
    }

    fn keys(&self) -> Vec<u64> {
        self.reads.keys().copied().collect()
    }

    /// Sends a read if it wants someone or is due; under a new id each time.
    fn deliver(&mut self, key: u64, links: &mut Links, out: &mut Outbox) {
        let Some(read) = self.reads.get_mut(&key) else { return };
        let to = read.attempt.step(links, out.now());
        if to.is_empty() {
            return;
        }
        self.last = self.last.saturating_add(1);
        let id = self.last;
        read.sent = true;
        read.ids.push_back(id);
        self.attempts.insert(id, key);
        if read.ids.len() > READ_IDS_MAX {
            let oldest = read.ids.pop_front();
            oldest.map(|id| self.attempts.remove(&id));
        }
        for replica in to.iter() {
            out.send(replica, Message::Read { id, consistency: read.consistency, query: read.query.clone() });
        }
    }

    /// The read that this answers, if it is one that we wait for, and as fresh as it must be.
    fn answered(&mut self, id: u64, op: OpNumber) -> Option<Read> {
        let key = *self.attempts.get(&id)?;
        let read = self.reads.get(&key)?;
        match read.consistency {
            Consistency::Stale { at_least } if op < at_least => None,
            _ => self.remove(key),
        }
    }

    fn remove(&mut self, key: u64) -> Option<Read> {
        let read = self.reads.remove(&key)?;
        for id in &read.ids {
            self.attempts.remove(id);
        }
        Some(read)
    }

    fn remove_first_if(&mut self, test: impl FnOnce(&Read) -> bool) -> Option<Read> {
        let (key, _) = self.reads.first_key_value().filter(|(_, read)| test(read))?;
        let key = *key;
        self.remove(key)
    }
}

impl Attempt {
    fn new(whom: Whom) -> Self {
        Self {
            whom,
            handed: Replicas::default(),
            due: Instant::default(),
            delay: Duration::ZERO,
            busy: false,
            spared: false,
        }
    }

    /// Whom to send it to now, if anyone. What this returns has to be sent: it counts as handed.
    fn step(&mut self, links: &mut Links, now: Instant) -> Replicas {
        let again = !self.handed.is_empty() && self.due <= now;
        let to = match &mut self.whom {
            Whom::Primary if again && self.busy && !self.spared => links.wanted(),
            Whom::Primary if again => links.connected,
            Whom::Primary => links.wanted().without(self.handed),
            Whom::Any(next) if again || self.handed.is_empty() => links.rotate(next),
            Whom::Any(_) => Replicas::default(),
        };
        if !to.is_empty() {
            // Silence makes it slower. A link or a primary that is new says nothing about the next answer.
            self.delay = if again { self.delay.saturating_mul(2).min(RETRY_MAX.max(links.retry)) } else { links.retry };
            self.handed = self.handed.union(to);
            self.due = now.plus(self.delay);
            self.spared = again && self.busy && !self.spared;
            self.busy = false;
        }
        if !self.handed.is_empty() {
            links.soonest = Some(links.soonest.map_or(self.due, |soonest| soonest.min(self.due)));
        }
        to
    }
}

impl Links {
    /// Who should be handed what the primary decides: the primary; while it is not connected, everyone who is.
    fn wanted(&self) -> Replicas {
        let mut primary = Replicas::default();
        primary.insert(self.quorums.primary(self.view));
        let reachable = primary.both(self.connected);
        if reachable.is_empty() { self.connected } else { reachable }
    }

    /// The first connected replica from `next` on, round the group; moves `next` beyond it.
    fn rotate(&self, next: &mut usize) -> Replicas {
        let connected = || self.connected.iter();
        let found = connected().find(|replica| replica.index() >= *next).or_else(|| connected().next());
        let mut one = Replicas::default();
        if let Some(replica) = found {
            one.insert(replica);
            *next = replica.index().saturating_add(1);
        }
        one
    }
}

impl Replicas {
    fn bit(replica: ReplicaId) -> u16 {
        1_u16.checked_shl(u32::from(replica.get())).unwrap_or(0)
    }

    fn insert(&mut self, replica: ReplicaId) {
        self.0 |= Self::bit(replica);
    }

    fn remove(&mut self, replica: ReplicaId) {
        self.0 &= !Self::bit(replica);
    }

    fn contains(self, replica: ReplicaId) -> bool {
        self.0 & Self::bit(replica) != 0
    }

    fn is_empty(self) -> bool {
        self.0 == 0
    }

    fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn both(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    fn iter(self) -> impl Iterator<Item = ReplicaId> {
        (0..16).map(ReplicaId::new).filter(move |replica| self.contains(*replica))
    }
}
