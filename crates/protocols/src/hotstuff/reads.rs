//! Reads that are not ordered. A reader asks a quorum and believes a quorum of equal answers, as with PBFT.
//!
//! **A replica answers a read when it has executed every block with requests up to its lock.** A write that anybody was told
//! of is committed, so a quorum has voted for the block whose votes commit it, and whoever has voted for that one had a
//! lock at the write's block or above before (with two chains: a certificate, which is the lock). One correct replica of
//! every reading quorum is among them, and a reading quorum answers alike.

use super::Outbox;
use super::message::Message;
use super::replica::Replica;
use crate::pbft::{self, Told};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::protocol::{Consistency, QueryTicket};
use std::collections::BTreeMap;

/// Reads that wait or are being answered, at most; beyond it, they are dropped and the client orders them.
const READS_MAX: usize = 4096;
/// So far ahead of what is committed a stale read may ask.
const STALE_BLOCKS_MAX: u64 = 128;
/// Of one client.
const CLIENT_READS_MAX: usize = 1024;

#[derive(Debug)]
struct Read {
    client: ClientId,
    id: u64,
    full: bool,
    query: Bytes,
    /// Answered when this is executed.
    after: OpNumber,
    /// It asked for a state that contains `after`, whatever became of it.
    stale: bool,
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
        if !self.may_vote() {
            return out.ignore(Peer::Client(client), Why::NotNow); // it does not know its lock
        }
        let after = match consistency {
            Consistency::Linearizable => self.highest_locked(),
            Consistency::Stale { at_least } if at_least <= self.committed().plus(STALE_BLOCKS_MAX) => Some(at_least),
            Consistency::Stale { .. } => None,
            Consistency::Ordered => return out.ignore(Peer::Client(client), Why::NotForSender),
        };
        let Some(after) = after else { return out.ignore(Peer::Client(client), Why::NotHere) };
        let stale = matches!(consistency, Consistency::Stale { .. });
        let full = full.is_none_or(|replica| replica == self.me);
        self.reads.by_client.insert(client, of_client.saturating_add(1));
        self.reads.waiting.push(Read { client, id, full, query, after, stale });
        self.answer_reads(out);
    }

    /// The last block that a client may have been told of; `None` if it is not known here.
    fn highest_locked(&self) -> Option<OpNumber> {
        let lock = self.safety.locked;
        if lock.op <= self.committed() || mutated!("hotstuff/reads-without-the-lock") {
            return Some(self.committed());
        }
        let branch = self.tree.branch(lock.block)?;
        let full = branch.iter().rev().filter_map(|id| self.tree.get(*id)).find(|block| !block.payload.is_empty());
        Some(full.map_or(self.committed(), |block| block.header.height))
    }

    /// Asks the machine for those whose entry is executed.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.waiting.is_empty() || self.machine.fetching.is_some() {
            return;
        }
        let executed = self.machine.executed;
        // Where no block with requests is open, what a read waited for has lost: nobody was told of it.
        let settled = executed == self.committed() && self.tree.open().all(|(_, block)| block.payload.is_empty());
        let waiting = std::mem::take(&mut self.reads.waiting).into_iter();
        let (ready, waiting) = waiting.partition(|it| it.after <= executed || (settled && !it.stale));
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
        let message = pbft::Message::ReadReply { view: self.term(), id: read.id, op, answer };
        // Tells of what is committed, and promises nothing.
        out.send_unsynced(Peer::Client(read.client), Message::Client(message));
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
