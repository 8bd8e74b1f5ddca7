//! The client's half of HQ (A.3, A.5): it collects grants, makes certificates of them, and has them executed; it finishes what
//! others began and left, and asks for a resolution when grants contradict each other. It has one write under way for each
//! object; others wait. It believes what a quorum says: what fewer have executed may be taken back (A.7).

mod in_order;
mod ordered;
mod read;
mod write;

use super::message::{Message, ReadRequest, Version, Write, object_of};
use super::{ClientTimer, Hq};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{Position, ReplicaId, RequestNumber};
use quorate_core::objects::{Objects, Touches};
use quorate_core::protocol::{self, Call, CallError, ClientConfig, ClientOutbox, Ticket};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::{Duration, Instant};
use read::Read;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use write::Queue;

type Outbox = ClientOutbox<Hq>;

/// The pause before sending again is doubled so often at most.
const DOUBLINGS_MAX: u32 = 4;
/// Operations that wait for others on the same object, at most; beyond it they are refused.
const WAITING_MAX: usize = 4096;

/// The client's half of HQ.
#[derive(Debug)]
pub struct Client {
    config: ClientConfig,
    keyring: Arc<Keyring>,
    quorums: ByzantineQuorums,
    touches: Option<Touches>,
    connected: BTreeSet<ReplicaId>,
    /// Those that were asked and did not answer: not in a preferred quorum if it can do without.
    suspects: BTreeSet<ReplicaId>,
    number: RequestNumber,
    /// Objects of which something is asked.
    writes: BTreeMap<Digest, Queue>,
    /// The latest write that this client knows of, of other objects.
    latest: BTreeMap<Digest, Position>,
    /// Objects in ordered mode, as far as this client knows.
    in_order: BTreeSet<Digest>,
    /// Operations on several objects.
    ordered: ordered::Queue,
    reads: BTreeMap<u64, Read>,
    /// Objects on which the next write can begin, and reads that were not sent.
    ready: BTreeSet<Digest>,
    unsent: BTreeSet<u64>,
    last_nonce: u64,
    armed: BTreeMap<ClientTimer, Instant>,
}

/// What is asked of a machine: what its operations touch, or what its queries look at.
type Which = fn(Touches) -> fn(&[u8]) -> Objects;

impl protocol::Client<Hq> for Client {
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
            touches: None,
            connected: BTreeSet::new(),
            suspects: BTreeSet::new(),
            number: RequestNumber::ZERO,
            writes: BTreeMap::new(),
            latest: BTreeMap::new(),
            in_order: BTreeSet::new(),
            ordered: ordered::Queue::default(),
            reads: BTreeMap::new(),
            ready: BTreeSet::new(),
            unsent: BTreeSet::new(),
            last_nonce: 0,
            armed: BTreeMap::new(),
        }
    }

    fn knows(&mut self, touches: Touches) {
        self.touches = Some(touches);
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut Outbox) {
        let deadline = out.now().plus(self.config.timeout);
        let touched = |of: Which, bytes: &[u8]| self.touches.map_or(Objects::All, |touches| of(touches)(bytes));
        match call {
            Call::Apply(operation) => match touched(|it| it.operation, &operation) {
                Objects::One(name) => self.submit_write(ticket, name, operation, deadline, out),
                Objects::Many(names) => self.submit_ordered(ticket, names, operation, deadline, out),
                Objects::All => {
                    let what = "hq orders objects by their names, and this operation touches several that it does not \
                                name (a range, a lease, all of them): name them, or run the cluster with pbft";
                    out.complete(ticket, Err(CallError::Refused(what.to_owned())));
                }
            },
            Call::Read(_, query) => {
                let name = match touched(|it| it.query, &query) {
                    Objects::One(name) => Some(name),
                    Objects::Many(_) | Objects::All => None,
                };
                self.last_nonce = self.last_nonce.wrapping_add(1);
                let request = ReadRequest { nonce: self.last_nonce, name, query, full: None };
                self.reads.insert(self.last_nonce, Read::new(ticket, request, deadline));
                self.unsent.insert(self.last_nonce);
            }
        }
    }

    fn flush(&mut self, out: &mut Outbox) {
        for id in std::mem::take(&mut self.ready) {
            self.begin(id, out);
        }
        self.begin_ordered(out);
        self.send_reads(out);
        self.arm(out);
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) {
        if !self.quorums.contains(from) {
            return;
        }
        self.suspects.remove(&from);
        match message {
            Message::Granted { grant, current } => self.on_phase1(from, grant, current, out),
            Message::Refused { grant, current, .. } => self.on_phase1(from, grant, current, out),
            Message::TooOld { object, number, at } => self.on_too_old(from, object, number, at, out),
            Message::Done { object, number, results, version, proof } => {
                self.on_done(from, object, number, (results, version), proof, out);
            }
            Message::InOrder { object, number } => self.on_in_order(from, object, number, out),
            Message::OrderedDone { number, result } => self.on_ordered_done(from, number, result, out),
            Message::OrderedTooOld { number, at } => self.on_ordered_too_old(from, number, at, out),
            Message::ReadAnswer { nonce, version, answer, proof } => {
                self.on_read_answer(from, nonce, version, answer, proof, out);
            }
            _ => {}
        }
        protocol::Client::flush(self, out);
    }

    fn on_timer(&mut self, timer: ClientTimer, out: &mut Outbox) {
        self.armed.remove(&timer);
        match timer {
            ClientTimer::Retry => self.retry(out),
            ClientTimer::Timeout => self.expire(out),
        }
        protocol::Client::flush(self, out);
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        if self.quorums.contains(replica) && self.connected.insert(replica) {
            self.suspects.remove(&replica);
            self.say_to(replica, out);
            protocol::Client::flush(self, out);
        }
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.connected.remove(&replica);
        let now = out.now(); // whoever was to answer does not: ask the others at once
        self.writes.values_mut().filter_map(|queue| queue.current.as_mut()).for_each(|it| it.retry_at = now);
        self.ordered.current.iter_mut().for_each(|it| it.retry_at = now);
        self.reads.values_mut().for_each(|it| it.retry_at = now);
        self.arm(out);
    }
}

impl Client {
    fn quorum(&self) -> usize {
        self.quorums.quorum()
    }

    /// A quorum of those that answer, for one object always the same, for different objects different ones (A.8).
    fn preferred(&self, id: Digest) -> Vec<ReplicaId> {
        let turn = u64::from_le_bytes(*id.as_bytes().first_chunk().unwrap_or(&[0; 8]));
        let count = self.quorums.replicas() as u64;
        let mut all: Vec<_> = self.connected.iter().copied().collect();
        let distance = |it: &ReplicaId| (it.index() as u64).wrapping_add(count).wrapping_sub(turn % count) % count;
        all.sort_by_key(|it| (self.suspects.contains(it), distance(it)));
        all.truncate(self.quorum());
        all
    }

    fn pause(&self, tries: u32) -> Duration {
        self.config.retry.saturating_mul(1 << tries.min(DOUBLINGS_MAX))
    }

    /// How long answers that differ are waited for before PBFT is woken: about a round trip.
    fn grace(&self) -> Duration {
        self.config.retry / 8
    }

    /// Gives up what has waited too long, and says whether it may have been applied.
    fn expire(&mut self, out: &mut Outbox) {
        let now = out.now();
        self.expire_ordered(out);
        for (id, queue) in &mut self.writes {
            for call in queue.current.iter_mut().flat_map(|it| &mut it.calls) {
                if let Some(call) = call.take_if(|it| it.deadline <= now) {
                    out.complete(call.ticket, Err(CallError::Timeout { maybe_applied: true }));
                }
            }
            if queue.current.take_if(|it| it.calls.iter().all(Option::is_none)).is_some() {
                // A quorum may have granted it: the next write of the object finishes it first.
                self.ready.insert(*id);
            }
            queue.waiting.retain(|it| {
                let keep = it.deadline > now;
                if !keep {
                    out.complete(it.ticket, Err(CallError::Timeout { maybe_applied: false }));
                }
                keep
            });
        }
        self.reads.retain(|_, it| {
            let keep = it.deadline > now;
            if !keep {
                out.complete(it.ticket, Err(CallError::Timeout { maybe_applied: false }));
            }
            keep
        });
    }

    /// Tells the host when to wake us, where that changed.
    fn arm(&mut self, out: &mut Outbox) {
        let current = || self.writes.values().filter_map(|queue| queue.current.as_ref());
        let ordered = self.ordered.current.iter();
        let retries = current().map(|it| it.retry_at).chain(self.reads.values().map(|it| it.retry_at));
        let retry = retries.chain(ordered.clone().map(|it| it.retry_at)).min();
        let waiting = self.writes.values().filter_map(|queue| queue.waiting.front()).map(|it| it.deadline);
        let reads = self.reads.values().map(|it| it.deadline);
        let ordered = ordered.map(|it| it.deadline).chain(self.ordered.waiting.front().map(|(_, it)| it.deadline));
        let called = current().flat_map(|it| it.calls.iter().flatten()).map(|it| it.deadline);
        let timeout = called.chain(waiting).chain(reads).chain(ordered).min();
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

    fn retry(&mut self, out: &mut Outbox) {
        let now = out.now();
        self.retry_ordered(out);
        let due = |queue: &Queue| queue.current.as_ref().is_some_and(|it| it.retry_at <= now);
        let writes: Vec<Digest> = self.writes.iter().filter(|(_, it)| due(it)).map(|(id, _)| *id).collect();
        writes.into_iter().for_each(|id| self.retry_write(id, out));
        let reads: Vec<u64> = self.reads.iter().filter(|(_, it)| it.retry_at <= now).map(|(nonce, _)| *nonce).collect();
        reads.into_iter().for_each(|nonce| self.retry_read(nonce, out));
    }

    /// A replica can be reached (again): whatever lacks a quorum goes to it, too.
    fn say_to(&mut self, replica: ReplicaId, out: &mut Outbox) {
        let quorum = self.quorum();
        self.say_ordered(Some(replica), out);
        for queue in self.writes.values_mut() {
            if let Some(current) = queue.current.as_mut().filter(|it| it.asked.len() < quorum) {
                current.asked.insert(replica);
                out.send(replica, Message::Write1(current.write.clone()));
            }
        }
        for read in self.reads.values_mut().filter(|it| it.asked.len() < quorum) {
            read.asked.insert(replica);
            out.send(replica, Message::Read(ReadRequest { full: None, ..read.request.clone() }));
        }
    }

    fn submit_write(&mut self, ticket: Ticket, name: Bytes, operation: Bytes, deadline: Instant, out: &mut Outbox) {
        if self.keyring.client().is_none() {
            let what = "a client without a key cannot write";
            return out.complete(ticket, Err(CallError::Refused(what.to_owned())));
        }
        if !Write::fits(&name, std::slice::from_ref(&operation)) {
            let what = "an operation longer than any";
            return out.complete(ticket, Err(CallError::Refused(what.to_owned())));
        }
        let id = object_of(&name);
        let after = self.latest.remove(&id).unwrap_or_default();
        let queue = self.writes.entry(id).or_insert_with(|| Queue::new(name, after));
        if queue.waiting.len() >= WAITING_MAX {
            let what = "too many operations on this object wait already";
            return out.complete(ticket, Err(CallError::Refused(what.to_owned())));
        }
        queue.waiting.push_back(write::Waiting { ticket, operation, deadline });
        if queue.current.is_none() {
            self.ready.insert(id);
        }
    }
}

/// What two replicas must say alike.
fn alike(result: &[u8], version: Version) -> Digest {
    let numbers = [version.vs.get().to_le_bytes(), version.ts.get().to_le_bytes()].concat();
    Digest::of_parts(&[&numbers, result])
}
