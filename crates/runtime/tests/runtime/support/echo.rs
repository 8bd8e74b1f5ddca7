//! The smallest protocol that gives a host all kinds of work: R0 leads for ever. It persists an entry, sends it, executes it
//! when a majority has it on disk, and answers. Nothing here survives the loss of R0; that is not what it is for.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::outbox::{Class, Note, Outbox};
use quorate_core::protocol::{
    Answer, Call, CallError, Checkpoint, Client, ClientConfig, ClientOutbox, Consistency, Protocol, QueryTicket,
    Replica, Restore, RestoreError, Restored, Status, Ticket,
};
use quorate_core::sessions::{Batch, Body, Outcome, Reply, Request, Ruling};
use quorate_core::time::{Duration, Instant, WallTime};
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

pub const HEARTBEAT: Duration = Duration::from_millis(10);
pub const LEADER: ReplicaId = ReplicaId::new(0);
/// What a replica notes at each heartbeat that it hears.
pub const HEARD: Note = Note::Other("heartbeat");

#[derive(Debug)]
pub struct Echo;

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Message {
    Request(Request),
    Reply(OpNumber, Reply),
    Read(u64, Bytes),
    ReadReply(u64, OpNumber, Bytes),
    Append(Entry),
    Ack(OpNumber),
    Heartbeat(OpNumber),
    GetEntry(OpNumber),
    Gone(Checkpoint),
}

#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Entry {
    op: OpNumber,
    batch: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    Heartbeat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientTimer {
    Again,
}

/// Entries between two checkpoints; the log keeps nothing before the last one.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub checkpoint_entries: u64,
}

impl Protocol for Echo {
    const NAME: &'static str = "echo";
    type Message = Message;
    type Record = Entry;
    type Timer = Timer;
    type ClientTimer = ClientTimer;
    type Config = Config;
    type Replica = EchoReplica;
    type Client = EchoClient;

    fn label(_: &Message) -> &'static str {
        "message"
    }
}

pub struct EchoReplica {
    me: ReplicaId,
    majority: usize,
    config: Config,
    log: BTreeMap<OpNumber, (RecordSeq, Bytes)>,
    acks: BTreeMap<OpNumber, BTreeSet<ReplicaId>>,
    last: OpNumber,
    committed: OpNumber,
    asked: OpNumber,
    executed: OpNumber,
    checkpoint: Checkpoint,
    fetching: bool,
    reads: BTreeMap<QueryTicket, (Peer, u64)>,
    next_ticket: u64,
}

impl EchoReplica {
    fn append(&mut self, entry: Entry, out: &mut Outbox<Echo>) {
        self.last = entry.op;
        let seq = out.persist(Class::Entry, entry.clone());
        self.log.insert(entry.op, (seq, entry.batch));
    }

    fn commit_through(&mut self, op: OpNumber, out: &mut Outbox<Echo>) {
        self.committed = self.committed.max(op.min(self.last));
        while self.asked < self.committed && !self.fetching {
            let op = self.asked.next();
            let Some((_, batch)) = self.log.get(&op) else { return };
            out.execute(op, batch.clone());
            self.asked = op;
        }
    }

    fn entry(&self, op: OpNumber) -> Option<Entry> {
        self.log.get(&op).map(|(_, batch)| Entry { op, batch: batch.clone() })
    }
}

impl Replica<Echo> for EchoReplica {
    fn restore(restore: Restore<Echo>, out: &mut Outbox<Echo>) -> Result<Self, RestoreError> {
        let checkpoint = restore.checkpoint.unwrap_or_default();
        let mut log = BTreeMap::new();
        for record in restore.records {
            match record {
                Restored::Found { seq, record } => drop(log.insert(record.op, (seq, record.batch))),
                Restored::Damaged { .. } => return Err(RestoreError::PromisesLost("an entry".to_owned())),
            }
        }
        log.retain(|op, _| *op > checkpoint.op);
        let last = log.keys().last().copied().unwrap_or(checkpoint.op);
        log.keys().for_each(|op| out.send(Peer::Replica(LEADER), Message::Ack(*op)));
        out.arm(Timer::Heartbeat, HEARTBEAT);
        let op = checkpoint.op;
        Ok(Self {
            me: restore.replica,
            majority: restore.replicas.div_ceil(2),
            config: restore.config,
            log,
            acks: BTreeMap::new(),
            last,
            committed: op,
            asked: op,
            executed: op,
            checkpoint,
            fetching: false,
            reads: BTreeMap::new(),
            next_ticket: 0,
        })
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox<Echo>) {
        match (message, from) {
            (Message::Request(request), Peer::Client(_)) if self.me == LEADER => {
                let batch = Batch { time: out.wall(), tick: false, requests: vec![request] };
                let entry = Entry { op: self.last.next(), batch: batch.encode().into() };
                self.append(entry.clone(), out);
                out.broadcast(Message::Append(entry.clone()));
                out.send(Peer::Replica(LEADER), Message::Ack(entry.op));
            }
            (Message::Read(number, query), Peer::Client(_)) => {
                self.next_ticket += 1;
                self.reads.insert(QueryTicket(self.next_ticket), (from, number));
                out.query(QueryTicket(self.next_ticket), query);
            }
            (Message::Append(entry), Peer::Replica(_)) => {
                let op = entry.op;
                if op == self.last.next() && !self.fetching {
                    self.append(entry, out);
                }
                if op <= self.last {
                    out.send(from, Message::Ack(op));
                }
            }
            (Message::Ack(op), Peer::Replica(replica)) if self.me == LEADER => {
                let acks = self.acks.entry(op).or_default();
                acks.insert(replica);
                if acks.len() >= self.majority {
                    self.commit_through(op, out);
                }
            }
            (Message::Heartbeat(committed), Peer::Replica(_)) => {
                out.note(HEARD);
                self.commit_through(committed, out);
                if committed > self.last && !self.fetching {
                    out.send(from, Message::GetEntry(self.last.next()));
                }
            }
            (Message::GetEntry(op), Peer::Replica(_)) => {
                let gone = Message::Gone(self.checkpoint);
                out.send(from, self.entry(op).map_or(gone, Message::Append));
            }
            (Message::Gone(checkpoint), Peer::Replica(replica)) if checkpoint.op > self.last && !self.fetching => {
                self.fetching = true;
                out.fetch(checkpoint, replica);
            }
            _ => {}
        }
    }

    fn on_timer(&mut self, _: Timer, out: &mut Outbox<Echo>) {
        out.arm(Timer::Heartbeat, HEARTBEAT);
        if self.me == LEADER {
            out.broadcast_unsynced(Message::Heartbeat(self.committed)); // says nothing that could be lost
            if let Some(entry) = self.entry(self.committed.next()) {
                out.broadcast(Message::Append(entry));
            }
        }
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox<Echo>) {
        self.executed = op;
        if self.me == LEADER {
            for reply in outcome.replies {
                out.send(Peer::Client(reply.client), Message::Reply(op, reply));
            }
        }
        if op.get().is_multiple_of(self.config.checkpoint_entries) && self.asked == op {
            out.checkpoint(op);
        }
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox<Echo>) {
        if let Some((to, number)) = self.reads.remove(&ticket) {
            out.send(to, Message::ReadReply(number, self.executed, answer));
        }
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox<Echo>) {
        self.checkpoint = checkpoint;
        self.log.retain(|op, _| *op > checkpoint.op);
        self.acks.retain(|op, _| *op > checkpoint.op);
        if let Some((seq, _)) = self.log.values().next() {
            out.forget(*seq);
        }
        out.note(Note::Checkpointed(checkpoint.op));
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, _: Option<WallTime>, out: &mut Outbox<Echo>) {
        let op = checkpoint.op;
        (self.last, self.committed, self.asked, self.executed, self.fetching) = (op, op, op, op, false);
        (self.checkpoint, self.log) = (checkpoint, BTreeMap::new());
        out.note(Note::StateTransfer(op));
    }

    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox<Echo>) {
        self.fetching = false;
    }

    fn status(&self) -> Status {
        let (op, committed, executed, checkpoint) = (self.last, self.committed, self.executed, self.checkpoint.op);
        let role = if self.me == LEADER { "leader" } else { "follower" }.to_owned();
        Status { role, view: View::ZERO, op, committed, executed, checkpoint, missing: 0 }
    }

    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}

struct Waiting {
    ticket: Ticket,
    deadline: Instant,
    what: Call,
    sent: bool,
}

/// Opens a session, then sends everything again every 50 ms until it is answered or too old.
pub struct EchoClient {
    config: ClientConfig,
    session: SessionId,
    next: u64,
    waiting: BTreeMap<u64, Waiting>,
}

impl EchoClient {
    fn send(&self, number: u64, call: &Call, out: &mut ClientOutbox<Echo>) {
        let body = match call {
            Call::Apply(bytes) => Body::Apply(bytes.clone()),
            Call::Read(Consistency::Ordered, query) => Body::Query(query.clone()),
            Call::Read(_, query) => return out.send(LEADER, Message::Read(number, query.clone())),
        };
        out.send(LEADER, Message::Request(request(self.config.client, self.session, number, body)));
    }

    fn answered(&mut self, number: u64, op: OpNumber, reply: Bytes, out: &mut ClientOutbox<Echo>) {
        if let Some(waiting) = self.waiting.remove(&number) {
            out.complete(waiting.ticket, Ok(Answer { reply, op }));
        }
    }

    fn send_all(&mut self, again: bool, out: &mut ClientOutbox<Echo>) {
        if self.session == SessionId::ZERO {
            let register = request(self.config.client, self.session, 0, Body::Register);
            return out.send(LEADER, Message::Request(register));
        }
        let mut waiting = std::mem::take(&mut self.waiting);
        for (number, call) in waiting.iter_mut().filter(|(_, call)| again || !call.sent) {
            self.send(*number, &call.what, out);
            call.sent = true;
        }
        self.waiting = waiting;
    }
}

fn request(client: ClientId, session: SessionId, number: u64, body: Body) -> Request {
    Request { client, session, number: RequestNumber::new(number), acknowledged: RequestNumber::ZERO, body }
}

impl Client<Echo> for EchoClient {
    fn new(config: ClientConfig) -> Self {
        Self { config, session: SessionId::ZERO, next: 0, waiting: BTreeMap::new() }
    }

    fn submit(&mut self, ticket: Ticket, what: Call, out: &mut ClientOutbox<Echo>) {
        self.next += 1;
        let deadline = out.now().plus(self.config.timeout);
        self.waiting.insert(self.next, Waiting { ticket, deadline, what, sent: false });
        out.arm(ClientTimer::Again, Duration::from_millis(50));
    }

    fn flush(&mut self, out: &mut ClientOutbox<Echo>) {
        if self.session != SessionId::ZERO {
            self.send_all(false, out);
        }
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut ClientOutbox<Echo>) {
        match message {
            Message::Reply(_, Reply { ruling: Ruling::Opened(session), .. }) if self.session == SessionId::ZERO => {
                self.session = session;
            }
            Message::Reply(op, Reply { number, ruling: Ruling::Replied(reply), .. }) => {
                self.answered(number.get(), op, reply, out);
            }
            Message::ReadReply(number, op, answer) if from == LEADER => self.answered(number, op, answer, out),
            _ => {}
        }
    }

    fn on_timer(&mut self, _: ClientTimer, out: &mut ClientOutbox<Echo>) {
        let now = out.now();
        let late: Vec<u64> =
            self.waiting.iter().filter(|(_, it)| it.deadline <= now).map(|(number, _)| *number).collect();
        for number in late {
            if let Some(Waiting { ticket, sent, .. }) = self.waiting.remove(&number) {
                out.complete(ticket, Err(CallError::Timeout { maybe_applied: sent }));
            }
        }
        if !self.waiting.is_empty() {
            self.send_all(true, out);
            out.arm(ClientTimer::Again, Duration::from_millis(50));
        }
    }

    fn on_connected(&mut self, _: ReplicaId, out: &mut ClientOutbox<Echo>) {
        self.send_all(true, out);
    }

    fn on_disconnected(&mut self, _: ReplicaId, _: &mut ClientOutbox<Echo>) {}
}
