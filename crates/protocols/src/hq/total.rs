//! HQ in total order: every operation, read or written, of one object or of all, is PBFT's, the module that otherwise orders
//! contention (A.6) and what touches several objects (A.8). Nothing is granted, frozen, resolved or taken back; there is one order of
//! everything, hence one revision, watches, leases, ranges and common snapshots: what etcd's API promises (ADR 029).
//!
//! It is a protocol with a name of its own, so that files, folders and greetings tell the two orders apart, and no replica or
//! client of one ever speaks to one of the other. Words and records are HQ's, those that carry the module's.

use super::durable::Record;
use super::message::Message;
use crate::pbft::{self, Pbft};
use bytes::Bytes;
use quorate_core::crypto::Keyring;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::nested::{Lift, nested};
use quorate_core::outbox::Effect;
use quorate_core::protocol::{
    self, Call, Checkpoint, ClientConfig, ClientEffect, ClientOutbox, Protocol, QueryTicket, Restore, RestoreError,
    Restored, Status, Ticket,
};
use quorate_core::sessions::Outcome;
use quorate_core::time::WallTime;
use std::sync::Arc;

type Outbox = quorate_core::outbox::Outbox<Total>;

/// HQ replication with one order of all operations, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Total;

/// PBFT's words in ours.
const LIFT: Lift<Pbft, Total> = Lift { message: Message::Module, record: Record::Module, timer: |timer| timer };

/// The first and only record of a replica whose disk was lost; see [`pbft::rejoin`]. Here nobody promises anything but votes.
pub fn rejoin(op: OpNumber) -> Record {
    Record::Module(pbft::rejoin(op))
}

impl Protocol for Total {
    const NAME: &'static str = "hq-total";
    const SIGNS: bool = true;
    type Message = Message;
    type Record = Record;
    type Timer = pbft::Timer;
    type ClientTimer = pbft::ClientTimer;
    type Config = pbft::Config;
    type Replica = TotalReplica;
    type Client = TotalClient;

    fn label(message: &Message) -> &'static str {
        message.label()
    }

    fn content(message: &Message, words: &dyn Fn(&[u8]) -> String) -> String {
        match message {
            Message::Module(message) => Pbft::content(message, words),
            other => format!("\n{other:?}"),
        }
    }

    /// Clients ask the module themselves here; replicas ask nothing of it in their own names.
    fn prove(message: &mut Message, keyring: &Keyring) -> Result<(), Fault> {
        match message {
            Message::Module(message) => Pbft::prove(message, keyring),
            _ => Err(Fault::Malformed("a word about objects, where there is one order of everything".to_owned())),
        }
    }
}

/// A replica: the module, whose orders are the machine's.
#[derive(Debug)]
pub struct TotalReplica {
    module: pbft::Replica,
}

impl TotalReplica {
    /// Runs a handler of the module within this turn. What it wants of the machine goes out as it is.
    fn module(
        &mut self,
        out: &mut Outbox,
        handler: impl FnOnce(&mut pbft::Replica, &mut quorate_core::outbox::Outbox<Pbft>),
    ) {
        let module = &mut self.module;
        let wanted = nested(out, &LIFT, |inner| handler(module, inner));
        pass_on(wanted, out);
    }
}

/// What the module wants of the machine and of the log is what this protocol wants.
fn pass_on(wanted: Vec<Effect<Pbft>>, out: &mut Outbox) {
    for effect in wanted {
        match effect {
            Effect::Execute { op, batch } => out.execute(op, batch),
            Effect::Query { ticket, query } => out.query(ticket, query),
            Effect::Checkpoint(op) => out.checkpoint(op),
            Effect::Fetch { checkpoint, from } => out.fetch(checkpoint, from),
            Effect::Forget(before) => out.forget(before),
            // `nested` has lifted all others, but for states tried in advance, which the configuration excludes.
            _ => {}
        }
    }
}

impl protocol::Replica<Total> for TotalReplica {
    fn restore(_: Restore<Total>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<Total>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        let records: Option<Vec<_>> = restore.records.into_iter().map(of_module).collect();
        let Some(records) = records else {
            return Err(RestoreError::Contradiction("a record about one object, in total order".to_owned()));
        };
        let inner = Restore::<Pbft> {
            replica: restore.replica,
            replicas: restore.replicas,
            // Nothing is executed before it is known to be committed.
            config: pbft::Config { tentative_requests: 0, ..restore.config },
            records,
            tail_damaged: restore.tail_damaged,
            checkpoint: restore.checkpoint,
            wake: restore.wake,
        };
        let mut started = Err(RestoreError::NoKey);
        let wanted = nested(out, &LIFT, |inner_out| {
            started = <pbft::Replica as protocol::Replica<Pbft>>::start(inner, keyring, inner_out);
        });
        pass_on(wanted, out);
        Ok(Self { module: started? })
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let Message::Module(message) = message else { return out.ignore(from, Why::NotForSender) };
        self.module(out, |module, inner| protocol::Replica::on_message(module, from, message, inner));
    }

    fn on_timer(&mut self, timer: pbft::Timer, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_timer(module, timer, inner));
    }

    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_executed(module, op, outcome, inner));
    }

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_queried(module, ticket, answer, inner));
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_checkpoint(module, checkpoint, inner));
    }

    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_installed(module, checkpoint, wake, inner));
    }

    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.module(out, |module, inner| protocol::Replica::on_fetch_failed(module, checkpoint, inner));
    }

    fn status(&self) -> Status {
        protocol::Replica::status(&self.module)
    }

    fn check(&self) -> Result<(), String> {
        protocol::Replica::check(&self.module)
    }
}

/// What the disk holds, as the module knows it; `None` if it is not the module's.
fn of_module(record: Restored<Record>) -> Option<Restored<pbft::Record>> {
    match record {
        Restored::Found { seq, record: Record::Module(record) } => Some(Restored::Found { seq, record }),
        Restored::Found { .. } => None,
        Restored::Damaged { seq, at_most, class } => Some(Restored::Damaged { seq, at_most, class }),
    }
}

/// A client: the module's, which believes what `f + 1` replicas say of an order, and a quorum of a read.
#[derive(Debug)]
pub struct TotalClient {
    module: pbft::Client,
}

impl TotalClient {
    /// Runs a handler of the module's client.
    fn module(
        &mut self,
        out: &mut ClientOutbox<Total>,
        handler: impl FnOnce(&mut pbft::Client, &mut ClientOutbox<Pbft>),
    ) {
        let mut inner = ClientOutbox::new(out.now());
        handler(&mut self.module, &mut inner);
        for effect in inner.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => out.send(to, Message::Module(message)),
                ClientEffect::Arm { timer, at } => out.arm(timer, at.since(out.now())),
                ClientEffect::Disarm(timer) => out.disarm(timer),
                ClientEffect::Complete(ticket, result) => out.complete(ticket, result),
            }
        }
    }
}

impl protocol::Client<Total> for TotalClient {
    fn new(config: ClientConfig) -> Self {
        Self { module: pbft::Client::new(config) }
    }

    fn start(config: ClientConfig, keyring: Arc<Keyring>) -> Self {
        Self { module: pbft::Client::start(config, keyring) }
    }

    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut ClientOutbox<Total>) {
        self.module(out, |module, inner| module.submit(ticket, call, inner));
    }

    fn flush(&mut self, out: &mut ClientOutbox<Total>) {
        self.module(out, |module, inner| module.flush(inner));
    }

    fn on_message(&mut self, from: ReplicaId, message: Message, out: &mut ClientOutbox<Total>) {
        if let Message::Module(message) = message {
            self.module(out, |module, inner| module.on_message(from, message, inner));
        }
    }

    fn on_timer(&mut self, timer: pbft::ClientTimer, out: &mut ClientOutbox<Total>) {
        self.module(out, |module, inner| module.on_timer(timer, inner));
    }

    fn on_connected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<Total>) {
        self.module(out, |module, inner| module.on_connected(replica, inner));
    }

    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<Total>) {
        self.module(out, |module, inner| module.on_disconnected(replica, inner));
    }
}
