//! Reads that are not ordered.
//!
//! **A replica answers when it has executed every epoch in which it had spoken when the read came**, and a client believes
//! `n - t` equal answers. A write that anybody was told of was decided, so `n - t` replicas had spoken in its epoch before:
//! of every `n - t` that answer, one correct replica is among them, and the others answer like it. So the answer reflects the
//! write, and nothing later than the answer. Replicas that are at different epochs answer differently if somebody writes what
//! is read; then the client has the read ordered.

use super::message::Message;
use super::replica::Replica;
use super::{Outbox, WINDOW_EPOCHS};
use crate::quorum_client::replica::Read;
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, View};
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
        if self.silent.is_some() {
            return out.ignore(Peer::Client(client), Why::NotNow); // it does not know where it has spoken
        }
        let after = match consistency {
            Consistency::Linearizable => self.highest_spoken(),
            Consistency::Stale { at_least } if at_least <= self.committed().plus(WINDOW_EPOCHS) => at_least,
            Consistency::Stale { .. } => return out.ignore(Peer::Client(client), Why::NotHere),
            Consistency::Ordered => return out.ignore(Peer::Client(client), Why::NotForSender),
        };
        let stale = matches!(consistency, Consistency::Stale { .. });
        let full = full.is_none_or(|replica| replica == self.me);
        self.reads.wait(Read { client, id, full, query, after, stale });
        self.answer_reads(out);
    }

    /// The last epoch of which a client may have been told.
    fn highest_spoken(&self) -> OpNumber {
        let spoken = self.epochs.iter().rev().find(|(_, epoch)| epoch.has_spoken());
        spoken.map_or(self.committed(), |(op, _)| *op).max(self.committed())
    }

    /// Asks the machine for those whose entry it has been given.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.none_waits() || self.machine.fetching.is_some() {
            return;
        }
        let given = self.machine.dispatched;
        let queries = self.reads.ask(given, |it| it.after <= given);
        queries.into_iter().for_each(|(ticket, query)| out.query(ticket, query));
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((client, message)) = self.reads.answer(ticket, answer, View::ZERO) else { return };
        // Tells of what is committed, and promises nothing.
        out.send_unsynced(Peer::Client(client), Message::Client(message));
    }
}
