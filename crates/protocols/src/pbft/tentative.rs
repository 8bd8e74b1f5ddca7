//! Tentative execution (Castro and Liskov §5.1): an entry is executed as soon as it is prepared, on a fork of the committed
//! state, and answered with ⟨TENTATIVE-REPLY⟩; the COMMITs follow meanwhile. A client believes a quorum of such replies for one
//! entry of one view, or `f + 1` final ones, which follow in any case.
//!
//! **What a tentative reply promises.** "Everything below is committed, and this entry is prepared here, on my disk, in this
//! view." A quorum of replicas that promise so holds enough correct ones for every later quorum of view changes to have one of
//! them, which shows the certificate; no later view can have another one for that entry (`select.rs`). So the entry will be
//! committed where the client was told, whatever fails.
//!
//! **What is undone.** One entry at most is ahead of what is committed, since the paper wants all lower ones to be known as
//! committed. A view change drops its state: the fork goes, and nobody has touched what is committed. Reads without order, events
//! and checkpoints know of committed states only; a read waits for what is prepared (`reads.rs`), which covers everything that
//! a client may have been told of tentatively.
//!
//! A fork makes the first change of each part of a state a copy, so large entries are not worth it: see
//! [`Config::tentative_requests`](super::Config::tentative_requests).

use super::Outbox;
use super::message::{Content, Message, Proposal};
use super::normal::replies_to;
use super::replica::Replica;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::mutated;
use quorate_core::protocol::StateId;
use quorate_core::sessions::Outcome;

/// A prepared entry that the machine was given.
#[derive(Clone, Copy, Debug)]
struct Tried {
    op: OpNumber,
    digest: Digest,
    state: StateId,
}

/// What is ahead of the committed state.
#[derive(Debug, Default)]
pub(super) struct Tentative {
    /// The name of the last committed state that has one.
    name: StateId,
    tried: Option<Tried>,
}

impl Tentative {
    /// The entry that was given to the machine without being committed.
    pub(super) fn op(&self) -> Option<OpNumber> {
        self.tried.map(|tried| tried.op)
    }

    fn child(&self, op: OpNumber, digest: Digest) -> StateId {
        let op = op.get().to_le_bytes();
        StateId(Digest::of_parts(&[b"pbft state", self.name.0.as_bytes(), &op, digest.as_bytes()]))
    }
}

impl Replica {
    /// Is an entry worth a fork?
    fn is_small(&self, proposal: &Proposal) -> bool {
        match &*proposal.content() {
            Content::Null(_) => false,
            Content::Orders(orders) => (1..=self.config.tentative_requests).contains(&orders.requests().count()),
        }
    }

    /// Executes the entry after the last committed one, if it is prepared in this view.
    pub(super) fn try_next(&mut self, out: &mut Outbox) {
        let may = self.config.tentative_requests > 0 && self.is_active() && self.machine.fetching.is_none();
        if !may || self.tentative.tried.is_some() || self.machine.dispatched < self.committed {
            return;
        }
        let op = self.committed.next();
        let Some(slot) = self.log.get(op).filter(|slot| slot.is_prepared_in(self.view)) else { return };
        let Some(digest) = slot.prepared.as_ref().map(|it| it.statement().digest) else { return };
        let Some(proposal) = slot.proposal(digest).filter(|it| self.is_small(it)) else { return };
        let (batch, state) = (proposal.batch(), self.tentative.child(op, digest));
        self.tentative.tried = Some(Tried { op, digest, state });
        out.speculate(self.tentative.name, state, batch);
    }

    /// It is executed, and if it is still the next one, those who asked are told.
    pub(super) fn tried(&mut self, state: StateId, outcome: Outcome, out: &mut Outbox) {
        let Some(Tried { op, digest, .. }) = self.tentative.tried.filter(|tried| tried.state == state) else { return };
        let Some(slot) = self.log.get(op) else { return };
        let durable = slot.own_commit.is_some() || mutated!("pbft/a-tentative-reply-before-the-sync");
        let Some(content) = slot.proposal(digest).map(Proposal::content) else { return };
        let Content::Orders(orders) = &*content else { return };
        for (client, reply) in replies_to(orders, (self.me, self.view, op), outcome.replies, |_, _| ()) {
            if durable {
                // The certificate is on disk: our COMMIT, which follows from it, has come back durable.
                out.send_unsynced(Peer::Client(client), Message::Tentative(reply));
            } else {
                out.send(Peer::Client(client), Message::Tentative(reply));
            }
        }
    }

    /// Gives the machine a committed entry: that which it has tried takes its place, anything else replaces it.
    pub(super) fn give(&mut self, op: OpNumber, proposal: &Proposal, out: &mut Outbox) {
        let state = self.tentative.child(op, proposal.digest());
        let is_tried = self.tentative.tried.is_some_and(|tried| tried.state == state);
        if !is_tried {
            self.undo(out);
            if !self.is_small(proposal) {
                return out.execute(op, proposal.batch());
            }
            out.speculate(self.tentative.name, state, proposal.batch());
        }
        self.tentative.tried = None;
        out.commit(op, state);
        self.tentative.name = state;
    }

    /// The view is left: what was tried in it may never be committed.
    pub(super) fn undo(&mut self, out: &mut Outbox) {
        if let Some(tried) = self.tentative.tried.take() {
            out.abort(tried.state);
        }
    }

    /// The machine was replaced: nothing that was tried is there any more.
    pub(super) fn forget_tried(&mut self) {
        self.tentative = Tentative::default();
    }
}
