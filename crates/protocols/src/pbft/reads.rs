//! Read-only requests (Castro and Liskov §5.1): answered from the state, without being ordered.
//!
//! The paper's rule makes a client wait for a quorum of equal replies also for what is ordered, since otherwise a read can
//! miss a write that only f + 1 replicas have executed; and that rule can hang a client whose replies f replicas never send
//! (Berger, Reiser, Bessani, SRDS 2021). Ours asks the reader's replicas instead: **a replica answers a read when it has
//! executed everything that it had prepared when the read came.** A write that anybody was told of is committed, so a quorum
//! had prepared it; one correct replica of every reading quorum is among them, and a reading quorum answers alike.

use super::Outbox;
use super::replica::{Replica, is_prepared};
use crate::quorum_client::replica::Read;
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::protocol::{Consistency, QueryTicket};

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
            return out.ignore(Peer::Client(client), Why::NotNow); // it does not know what it has prepared
        }
        let after = match consistency {
            Consistency::Linearizable if mutated!("pbft/a-read-does-not-wait") => self.machine.executed,
            Consistency::Linearizable => self.highest_prepared(),
            // What a client was told of, a quorum has prepared: f + 1 correct ones answer. What nobody has prepared may never be.
            Consistency::Stale { at_least } if at_least <= self.highest_prepared() => at_least,
            Consistency::Stale { .. } => return out.ignore(Peer::Client(client), Why::NotHere),
            Consistency::Ordered => return out.ignore(Peer::Client(client), Why::NotForSender),
        };
        let full = full.is_none_or(|replica| replica == self.me);
        self.reads.wait(Read { client, id, full, query, after, stale: false });
        self.answer_reads(out);
    }

    /// The last entry that a client may have been told of.
    fn highest_prepared(&self) -> OpNumber {
        let prepared = self.log.iter().rev().find(|(_, slot)| is_prepared(slot) || slot.committed.is_some());
        prepared.map_or(self.committed, |(op, _)| op).max(self.committed).max(self.low())
    }

    /// Asks the machine for those whose entry it has been given.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.none_waits() || self.machine.fetching.is_some() {
            return;
        }
        let given = self.machine.dispatched;
        for (ticket, query) in self.reads.ask(given, |it| it.after <= given) {
            out.query(ticket, query);
        }
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((client, message)) = self.reads.answer(ticket, answer, self.view) else { return };
        out.send_unsynced(Peer::Client(client), message); // tells of what is committed, and promises nothing
    }

    /// A new view may have dropped what a read waits for: then nobody was told of it.
    pub(super) fn reconsider_reads(&mut self) {
        let highest = self.log.last().max(self.committed);
        self.reads.after_at_most(highest);
    }
}
