//! A protocol so simple that it is right: replica 0 leads for ever, and nothing is committed while it is down. It has a log,
//! acknowledgements, checkpoints, trimming and state transfer, so that the simulator can be tested without trusting a real
//! protocol; each [`Mutation`] takes one thing away that makes it right.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber, SessionId};
use quorate_core::outbox::{Class, Note, Outbox};
use quorate_core::protocol::{
    Answer, Call, CallError, Checkpoint, Client, ClientConfig, ClientOutbox, Protocol, QueryTicket, Replica, Restore,
    RestoreError, Restored, Status, Ticket,
};
use quorate_core::sessions::{self, Batch, Body, Outcome, Request, Ruling};
use quorate_core::time::{Duration, WallTime};
use quorate_core::wire::Wire;
use quorate_sim::{Fault, Random, Simulated};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const LEADER: ReplicaId = ReplicaId::new(0);
const CHECKPOINT_EVERY: u64 = 16;

/// What is wrong with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Nothing.
    None,
    /// The leader tells the others before its own disk has the entry.
    TellsEarly,
    /// A backup acknowledges before its disk has the entry.
    AcknowledgesEarly,
    /// The leader alone decides.
    QuorumOfOne,
    /// The leader answers before the entry is committed.
    RepliesEarly,
    /// A read is answered from whatever the leader has executed.
    ReadsAnything,
    /// Entries after a checkpoint are not executed again after a restart.
    ForgetsTail,
    /// What was lost on the way is not sent again.
    NeverResends,
    /// Each replica puts its own clock into the batch.
    OwnClock,
}

#[derive(Debug)]
pub struct Steady<const M: u8>;

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Message {
    Request(Request),
    Reply(OpNumber, sessions::Reply),
    Read(u64, Bytes),
    ReadReply(u64, OpNumber, Bytes),
    Prepare(OpNumber, Bytes, OpNumber),
    PrepareOk(OpNumber),
    Commit(OpNumber, OpNumber),
    Behind(OpNumber),
    Checkpoint(Checkpoint),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Resend,
}

type Record = (OpNumber, Bytes);

impl<const M: u8> Protocol for Steady<M> {
    const NAME: &'static str = "steady";
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = Timer;
    type Config = Mutation;
    type Replica = SteadyReplica;
    type Client = SteadyClient;

    fn label(message: &Message) -> &'static str {
        match message {
            Message::Request(_) => "Request",
            Message::Reply(..) => "Reply",
            Message::Read(..) => "Read",
            Message::ReadReply(..) => "ReadReply",
            Message::Prepare(..) => "Prepare",
            Message::PrepareOk(_) => "PrepareOk",
            Message::Commit(..) => "Commit",
            Message::Behind(_) => "Behind",
            Message::Checkpoint(_) => "Checkpoint",
        }
    }
}

pub const MUTATIONS: [Mutation; 9] = [
    Mutation::None,
    Mutation::TellsEarly,
    Mutation::AcknowledgesEarly,
    Mutation::QuorumOfOne,
    Mutation::RepliesEarly,
    Mutation::ReadsAnything,
    Mutation::ForgetsTail,
    Mutation::NeverResends,
    Mutation::OwnClock,
];

impl<const M: u8> Simulated for Steady<M> {
    // It cannot repair, and it believes its disk and its clock.
    const EXCLUDED: &'static [Fault] =
        &[Fault::BitRot, Fault::SnapshotRot, Fault::Misdirected, Fault::LyingDisk, Fault::ClockRush];

    fn config(_: &mut Random) -> Mutation {
        MUTATIONS[M as usize]
    }
}

#[derive(Debug)]
pub struct SteadyReplica {
    me: ReplicaId,
    quorum: usize,
    mutation: Mutation,
    log: BTreeMap<OpNumber, (RecordSeq, Bytes)>,
    acknowledged: BTreeMap<ReplicaId, OpNumber>,
    committed: OpNumber,
    asked: OpNumber,
    executed: OpNumber,
    checkpoint: Option<Checkpoint>,
    previous: OpNumber,
    pending: BTreeSet<(ClientId, RequestNumber)>,
    reads: BTreeMap<QueryTicket, (Peer, u64)>,
    next_read: u64,
}

impl SteadyReplica {
    fn last(&self) -> OpNumber {
        self.log.keys().next_back().copied().unwrap_or(self.base())
    }

    fn base(&self) -> OpNumber {
        self.checkpoint.map(|checkpoint| checkpoint.op).unwrap_or_default()
    }

    fn leads(&self) -> bool {
        self.me == LEADER
    }

    fn keep<const M: u8>(&mut self, op: OpNumber, batch: Bytes, out: &mut Outbox<Steady<M>>) {
        let seq = out.persist(Class::Entry, (op, batch.clone()));
        self.log.insert(op, (seq, batch));
    }

    fn on_request<const M: u8>(&mut self, from: Peer, request: Request, out: &mut Outbox<Steady<M>>) {
        if !self.leads() {
            return out.ignore(from, Why::NotPrimary);
        }
        if !self.pending.insert((request.client, request.number)) {
            return out.ignore(from, Why::Duplicate); // in the log already, and not yet executed
        }
        let batch = Batch { time: out.wall(), tick: false, requests: vec![request] };
        let (op, batch) = (self.last().next(), Bytes::from(batch.encode()));
        self.keep(op, batch.clone(), out);
        let prepare = Message::Prepare(op, batch, self.committed);
        if self.mutation == Mutation::TellsEarly {
            out.broadcast_unsynced(prepare)
        } else {
            out.broadcast(prepare)
        }
        out.send(Peer::Replica(self.me), Message::PrepareOk(op));
        if self.mutation == Mutation::RepliesEarly {
            self.committed = op;
            self.execute(out);
        }
    }

    fn on_prepare<const M: u8>(
        &mut self,
        op: OpNumber,
        batch: Bytes,
        committed: OpNumber,
        out: &mut Outbox<Steady<M>>,
    ) {
        let batch = match (self.mutation, Batch::decode(&batch)) {
            (Mutation::OwnClock, Ok(decoded)) => Batch { time: out.wall(), ..decoded }.encode().into(),
            _ => batch,
        };
        if op == self.last().next() {
            self.keep(op, batch, out);
        }
        let ok = Message::PrepareOk(self.last());
        let early = self.mutation == Mutation::AcknowledgesEarly;
        if early {
            out.send_unsynced(Peer::Replica(LEADER), ok)
        } else {
            out.send(Peer::Replica(LEADER), ok)
        }
        self.learn(committed, out);
    }

    fn learn<const M: u8>(&mut self, committed: OpNumber, out: &mut Outbox<Steady<M>>) {
        self.committed = self.committed.max(committed);
        self.execute(out);
    }

    fn execute<const M: u8>(&mut self, out: &mut Outbox<Steady<M>>) {
        while self.asked < self.committed.min(self.last()) {
            let Some((_, batch)) = self.log.get(&self.asked.next()) else { return };
            self.asked = self.asked.next();
            out.execute(self.asked, batch.clone());
            if self.asked.get().is_multiple_of(CHECKPOINT_EVERY) {
                out.checkpoint(self.asked);
            }
        }
    }

    fn on_prepare_ok<const M: u8>(&mut self, from: ReplicaId, op: OpNumber, out: &mut Outbox<Steady<M>>) {
        let acknowledged = self.acknowledged.entry(from).or_default();
        *acknowledged = (*acknowledged).max(op);
        let mut all: Vec<OpNumber> = self.acknowledged.values().copied().collect();
        all.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(op) = all.get(self.quorum - 1).copied() {
            self.learn(op, out);
        }
    }

    /// Sends a backup what it lacks: entries, or a checkpoint if they are gone.
    fn feed<const M: u8>(&mut self, to: ReplicaId, after: OpNumber, out: &mut Outbox<Steady<M>>) {
        let first = self.log.keys().next().copied().unwrap_or(self.last().next());
        if let Some(checkpoint) = self.checkpoint.filter(|it| after.next() < first && it.op > after) {
            return out.send(Peer::Replica(to), Message::Checkpoint(checkpoint));
        }
        for (op, (_, batch)) in self.log.range(after.next()..).take(8) {
            out.send(Peer::Replica(to), Message::Prepare(*op, batch.clone(), self.committed));
        }
    }

    fn trim<const M: u8>(&mut self, checkpoint: Checkpoint, out: &mut Outbox<Steady<M>>) {
        self.log = self.log.split_off(&self.previous.next());
        if let Some((seq, _)) = self.log.values().next() {
            out.forget(*seq);
        }
        self.previous = checkpoint.op;
        self.checkpoint = Some(checkpoint);
    }
}

impl<const M: u8> Replica<Steady<M>> for SteadyReplica {
    fn restore(restore: Restore<Steady<M>>, out: &mut Outbox<Steady<M>>) -> Result<Self, RestoreError> {
        let mut log = BTreeMap::new();
        for restored in restore.records {
            if let Restored::Found { seq, record: (op, batch) } = restored {
                log.insert(op, (seq, batch));
            }
        }
        let newest: Vec<OpNumber> = log.keys().rev().copied().collect();
        let gap = newest.windows(2).find(|pair| pair[1].next() != pair[0]).map(|pair| pair[0]);
        if let Some(first) = gap {
            log = log.split_off(&first); // what is older was replaced by a checkpoint
        }
        let base = restore.checkpoint.map(|checkpoint| checkpoint.op).unwrap_or_default();
        let mut asked = base;
        if restore.config == Mutation::ForgetsTail {
            asked = log.keys().next_back().copied().unwrap_or(base);
            log.retain(|op, _| *op <= base);
            asked = asked.min(base);
        }
        let last = log.keys().next_back().copied().unwrap_or(base);
        if last < base {
            log.clear();
        }
        let quorum = if restore.config == Mutation::QuorumOfOne { 1 } else { restore.replicas / 2 + 1 };
        let mut replica = Self {
            me: restore.replica,
            quorum,
            mutation: restore.config,
            log,
            acknowledged: BTreeMap::new(),
            committed: base,
            asked,
            executed: base,
            checkpoint: restore.checkpoint,
            previous: OpNumber::ZERO,
            pending: BTreeSet::new(),
            reads: BTreeMap::new(),
            next_read: 0,
        };
        replica.previous = replica.log.keys().next().copied().unwrap_or(base.next()).previous();
        out.arm(Timer::Resend, Duration::from_millis(30));
        if replica.leads() {
            replica.acknowledged.insert(LEADER, replica.last());
        }
        Ok(replica)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox<Steady<M>>) {
        match (message, from) {
            (Message::Request(request), _) => self.on_request(from, request, out),
            (Message::Read(nonce, query), _) => {
                let ticket = QueryTicket(self.next_read);
                self.next_read += 1;
                self.reads.insert(ticket, (from, nonce));
                out.query(ticket, query);
            }
            (Message::Prepare(op, batch, committed), _) => self.on_prepare(op, batch, committed, out),
            (Message::PrepareOk(op), Peer::Replica(from)) => self.on_prepare_ok(from, op, out),
            (Message::Commit(last, committed), _) => {
                if last > self.last() {
                    out.send(from, Message::Behind(self.last()));
                }
                out.send(from, Message::PrepareOk(self.last().min(last)));
                self.learn(committed, out);
            }
            (Message::Behind(after), Peer::Replica(from)) => self.feed(from, after, out),
            (Message::Checkpoint(checkpoint), Peer::Replica(from)) if checkpoint.op > self.last() => {
                out.note(Note::StateTransfer(checkpoint.op));
                out.fetch(checkpoint, from);
            }
            _ => out.ignore(from, Why::NotNow),
        }
    }

    fn on_timer(&mut self, _: Timer, out: &mut Outbox<Steady<M>>) {
        out.arm(Timer::Resend, Duration::from_millis(30));
        if self.leads() && self.mutation != Mutation::NeverResends {
            out.broadcast(Message::Commit(self.last(), self.committed));
        }
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox<Steady<M>>) {
        self.executed = op;
        let leads = self.leads();
        for reply in outcome.replies.into_iter().filter(|_| leads) {
            self.pending.remove(&(reply.client, reply.number));
            out.send(Peer::Client(reply.client), Message::Reply(op, reply));
        }
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox<Steady<M>>) {
        if let Some((client, nonce)) = self.reads.remove(&ticket) {
            out.send(client, Message::ReadReply(nonce, self.executed, answer));
        }
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox<Steady<M>>) {
        if self.checkpoint.is_none_or(|it| it.op < checkpoint.op) {
            out.note(Note::Checkpointed(checkpoint.op));
            self.trim(checkpoint, out);
        }
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, _: Option<WallTime>, out: &mut Outbox<Steady<M>>) {
        self.checkpoint = Some(checkpoint);
        if checkpoint.op > self.last() || self.log.keys().next().is_none_or(|first| *first > checkpoint.op.next()) {
            self.log.clear();
        }
        (self.asked, self.executed) = (checkpoint.op, checkpoint.op);
        self.learn(checkpoint.op, out);
    }

    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox<Steady<M>>) {}

    fn status(&self) -> Status {
        Status::default()
    }

    fn check(&self) -> Result<(), String> {
        let (first, last) = (self.log.keys().next(), self.log.keys().next_back());
        let span = first.zip(last).map_or(0, |(first, last)| last.since(*first) + 1);
        let dense = span == self.log.len() as u64;
        if dense { Ok(()) } else { Err("the_log_has_no_gaps".to_owned()) }
    }
}

#[derive(Debug)]
pub struct SteadyClient {
    config: ClientConfig,
    session: Option<SessionId>,
    next: u64,
    waiting: VecDeque<(Ticket, Body)>,
    pending: BTreeMap<u64, (Ticket, Body)>,
    reads: BTreeMap<u64, (Ticket, Bytes)>,
}

impl SteadyClient {
    fn send<const M: u8>(&mut self, out: &mut ClientOutbox<Steady<M>>) {
        let client = self.config.client;
        let request = |session, number, body| {
            let number = RequestNumber::new(number);
            Message::Request(Request { client, session, number, acknowledged: RequestNumber::ZERO, body })
        };
        let Some(session) = self.session else {
            return out.send(LEADER, request(SessionId::ZERO, 0, Body::Register));
        };
        while let Some((ticket, body)) = self.waiting.pop_front() {
            self.next += 1;
            self.pending.insert(self.next, (ticket, body.clone()));
            out.send(LEADER, request(session, self.next, body));
        }
    }
}

impl<const M: u8> Client<Steady<M>> for SteadyClient {
    fn new(config: ClientConfig) -> Self {
        let (waiting, pending, reads) = (VecDeque::new(), BTreeMap::new(), BTreeMap::new());
        Self { config, session: None, next: 0, waiting, pending, reads }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut ClientOutbox<Steady<M>>) {
        match call {
            Call::Apply(operation) => self.waiting.push_back((ticket, Body::Apply(operation))),
            Call::Read(_, query) if MUTATIONS[M as usize] == Mutation::ReadsAnything => {
                self.next += 1;
                self.reads.insert(self.next, (ticket, query.clone()));
                out.send(ReplicaId::new(1), Message::Read(self.next, query));
            }
            Call::Read(_, query) => self.waiting.push_back((ticket, Body::Query(query))),
        }
    }

    fn flush(&mut self, out: &mut ClientOutbox<Steady<M>>) {
        out.arm(Timer::Resend, self.config.retry);
        self.send(out);
    }

    fn on_message(&mut self, _: ReplicaId, message: Message, out: &mut ClientOutbox<Steady<M>>) {
        match message {
            Message::Reply(op, reply) => match reply.ruling {
                Ruling::Opened(session) => self.session = Some(session),
                Ruling::Replied(bytes) => {
                    if let Some((ticket, _)) = self.pending.remove(&reply.number.get()) {
                        out.complete(ticket, Ok(Answer { reply: bytes, op }));
                    }
                }
                other => {
                    if let Some((ticket, _)) = self.pending.remove(&reply.number.get()) {
                        out.complete(ticket, Err(CallError::Refused(format!("{other:?}"))));
                    }
                }
            },
            Message::ReadReply(nonce, op, reply) => {
                if let Some((ticket, _)) = self.reads.remove(&nonce) {
                    out.complete(ticket, Ok(Answer { reply, op }));
                }
            }
            _ => {}
        }
        self.send(out);
    }

    fn on_timer(&mut self, _: Timer, out: &mut ClientOutbox<Steady<M>>) {
        if self.waiting.is_empty() && self.pending.is_empty() && self.reads.is_empty() {
            return;
        }
        if let Some(session) = self.session {
            for (number, (_, body)) in &self.pending {
                let (client, number) = (self.config.client, RequestNumber::new(*number));
                let acknowledged = RequestNumber::ZERO;
                let request = Request { client, session, number, acknowledged, body: body.clone() };
                out.send(LEADER, Message::Request(request));
            }
        }
        for (nonce, (_, query)) in &self.reads {
            out.send(ReplicaId::new(1), Message::Read(*nonce, query.clone()));
        }
        self.flush(out);
    }

    fn on_connected(&mut self, _: ReplicaId, _: &mut ClientOutbox<Steady<M>>) {}

    fn on_disconnected(&mut self, _: ReplicaId, _: &mut ClientOutbox<Steady<M>>) {}
}
