//! The replica: append, execute, answer. No order but its own.

use super::message::{Message, Record, Reply};
use super::{Naive, Outbox};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{Checkpoint, QueryTicket, Replica, Restore, RestoreError, Restored, Status};
use quorate_core::sessions::{Batch, Outcome, Request};
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;

/// A replica never waits for anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {}

/// What has been received and what of it is executed.
#[derive(Debug, Default)]
pub struct NaiveReplica {
    received: OpNumber,
    executed: OpNumber,
}

impl Replica<Naive> for NaiveReplica {
    /// Executes everything again, from the first state: there are no checkpoints.
    fn restore(restore: Restore<Naive>, out: &mut Outbox) -> Result<Self, RestoreError> {
        let mut replica = Self::default();
        for restored in restore.records {
            match restored {
                Restored::Found { record, .. } => {
                    replica.received = replica.received.next();
                    out.execute(replica.received, record.batch);
                }
                Restored::Damaged { .. } => out.note(Note::Other("a damaged request is forgotten")),
            }
        }
        Ok(replica)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        match message {
            Message::Request(request) => self.on_request(request, out),
            Message::Reply(_) => out.ignore(from, Why::NotForSender),
        }
    }

    fn on_timer(&mut self, timer: Timer, _out: &mut Outbox) {
        match timer {}
    }

    /// Seed 004, *Replicated State Machine*: "ved input Deliver … output y på IO".
    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        assert_eq!(op, self.executed.next(), "the executor answers in order");
        self.executed = op;
        for reply in outcome.replies {
            out.send(Peer::Client(reply.client), Message::Reply(Reply { op, reply }));
        }
    }

    fn on_queried(&mut self, _: QueryTicket, _: Bytes, _: &mut Outbox) {}

    fn on_checkpoint(&mut self, _: Checkpoint, _: &mut Outbox) {}

    fn on_installed(&mut self, _: Checkpoint, _: Option<WallTime>, _: &mut Outbox) {}

    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox) {}

    fn status(&self) -> Status {
        let (op, executed) = (self.received, self.executed);
        Status { role: "on its own".to_owned(), op, committed: op, executed, ..Status::default() }
    }

    fn check(&self) -> Result<(), String> {
        if self.executed > self.received {
            return Err(format!("executed_was_received: {} > {}", self.executed, self.received));
        }
        Ok(())
    }
}

impl NaiveReplica {
    /// Seed 004, *Naiv implementering*: "blot … lade alle parter sende deres beskeder rundt". The batch carries no time: no
    /// two replicas would agree on one, and the order alone shall be to blame.
    fn on_request(&mut self, request: Request, out: &mut Outbox) {
        let batch = Batch { requests: vec![request], ..Batch::default() };
        let op = self.received.next();
        let batch = Bytes::from(batch.encode());
        out.persist(Class::Entry, Record { op, batch: batch.clone() });
        out.execute(op, batch);
        self.received = op;
    }
}
