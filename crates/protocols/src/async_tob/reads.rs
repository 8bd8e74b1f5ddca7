//! Reads that are not ordered.
//!
//! **A replica answers when it has executed every epoch in which it had spoken when the read came**, and a client believes
//! `n - t` equal answers. A write that anybody was told of was decided, so `n - t` replicas had spoken in its epoch before:
//! of every `n - t` that answer, one correct replica is among them, and the others answer like it. So the answer reflects the
//! write, and nothing later than the answer. Replicas that are at different epochs answer differently if somebody writes what
//! is read; then the client has the read ordered.

use super::message::{Message, Told};
use super::replica::Replica;
use super::{Outbox, WINDOW_EPOCHS};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::protocol::{Consistency, QueryTicket};
use std::collections::BTreeMap;

/// Reads that wait or are being answered, at most; beyond it, they are dropped and the client orders them.
const READS_MAX: usize = 4096;
/// Of one client.
const CLIENT_READS_MAX: usize = 1024;

#[derive(Debug)]
struct Read {
    client: ClientId,
    id: u64,
    full: bool,
    query: Bytes,
    /// Answered when this epoch is executed.
    after: OpNumber,
}

/// Reads that are not answered.
#[derive(Debug, Default)]
pub(super) struct Reads {
    waiting: Vec<Read>,
    asked: BTreeMap<QueryTicket, (Read, OpNumber)>,
    by_client: BTreeMap<ClientId, usize>,
    next: u64,
}

impl Replica {
    /// A query that is not to be ordered.
    pub(super) fn on_read(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        full: Option<ReplicaId>,
        query: Bytes,
        out: &mut Outbox,
    ) {
        let of_client = self.reads.by_client.get(&client).copied().unwrap_or_default();
        let count = self.reads.waiting.len().saturating_add(self.reads.asked.len());
        if count >= READS_MAX || of_client >= CLIENT_READS_MAX {
            return out.ignore(Peer::Client(client), Why::Busy);
        }
        if self.silent.is_some() {
            return out.ignore(Peer::Client(client), Why::NotNow); // it does not know where it has spoken
        }
        let after = match consistency {
            Consistency::Linearizable if mutated!("async-tob/reads-what-is-executed") => OpNumber::ZERO,
            Consistency::Linearizable => self.highest_spoken(),
            Consistency::Stale { at_least } if at_least <= self.committed().plus(WINDOW_EPOCHS) => at_least,
            Consistency::Stale { .. } => return out.ignore(Peer::Client(client), Why::NotHere),
            Consistency::Ordered => return out.ignore(Peer::Client(client), Why::NotForSender),
        };
        let full = full.is_none_or(|replica| replica == self.me);
        self.reads.by_client.insert(client, of_client.saturating_add(1));
        self.reads.waiting.push(Read { client, id, full, query, after });
        self.answer_reads(out);
    }

    /// The last epoch of which a client may have been told.
    fn highest_spoken(&self) -> OpNumber {
        let spoken = self.epochs.iter().rev().find(|(_, epoch)| epoch.has_spoken());
        spoken.map_or(self.committed(), |(op, _)| *op).max(self.committed())
    }

    /// Asks the machine for those whose entry is executed.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.waiting.is_empty() || self.machine.fetching.is_some() {
            return;
        }
        let executed = self.machine.executed;
        let (ready, waiting) = std::mem::take(&mut self.reads.waiting).into_iter().partition(|it| it.after <= executed);
        self.reads.waiting = waiting;
        for read in ready {
            let read: Read = read;
            self.reads.next = self.reads.next.wrapping_add(1);
            let ticket = QueryTicket(self.reads.next);
            out.query(ticket, read.query.clone());
            self.reads.asked.insert(ticket, (read, executed));
        }
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((read, op)) = self.reads.asked.remove(&ticket) else { return };
        self.reads.forget(read.client);
        let answer = Told::new(answer, read.full);
        let message = Message::ReadReply { id: read.id, op, answer };
        out.send_unsynced(Peer::Client(read.client), message); // tells of what is committed, and promises nothing
    }

    /// The machine was replaced: what it was asked will not be answered.
    pub(super) fn forget_reads(&mut self) {
        for (read, _) in std::mem::take(&mut self.reads.asked).into_values() {
            self.reads.forget(read.client);
        }
    }
}

impl Reads {
    fn forget(&mut self, client: ClientId) {
        if let Some(count) = self.by_client.get_mut(&client) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_client.remove(&client);
            }
        }
    }
}
