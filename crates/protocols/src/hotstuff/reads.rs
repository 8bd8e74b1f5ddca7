//! Reads that are not ordered. A reader asks a quorum and believes a quorum of equal answers, as with PBFT.
//!
//! **A replica answers a read when it has executed every block with requests up to its lock.** A write that anybody was told
//! of is committed, so a quorum has voted for the block whose votes commit it, and whoever has voted for that one had a
//! lock at the write's block or above before (with two chains: a certificate, which is the lock). One correct replica of
//! every reading quorum is among them, and a reading quorum answers alike.

use super::Outbox;
use super::message::Message;
use super::replica::Replica;
use crate::quorum_client::replica::Read;
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::protocol::{Consistency, QueryTicket};

/// So far ahead of what is committed a stale read may ask.
const STALE_BLOCKS_MAX: u64 = 128;

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
        if let Err(why) = self.reads.room(client) {
            return out.ignore(Peer::Client(client), why);
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
        self.reads.wait(Read { client, id, full, query, after, stale });
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

    /// Asks the machine for those whose block it has been given.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.none_waits() || self.machine.fetching.is_some() {
            return;
        }
        let given = self.machine.dispatched;
        // Where no block with requests is open, what a read waited for has lost: nobody was told of it.
        let settled = given == self.committed() && self.tree.open().all(|(_, block)| block.payload.is_empty());
        let queries = self.reads.ask(given, |it| it.after <= given || (settled && !it.stale));
        queries.into_iter().for_each(|(ticket, query)| out.query(ticket, query));
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((client, message)) = self.reads.answer(ticket, answer, self.term()) else { return };
        // Tells of what is committed, and promises nothing.
        out.send_unsynced(Peer::Client(client), Message::Client(message));
    }
}
