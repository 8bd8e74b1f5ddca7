//! The entries that a replica knows of, and the votes for them.

use super::message::{Commit, Content, Prepare, Proposal};
use quorate_core::crypto::{Certificate, Certified, Digest, Evidence, Signed, Statement, Verified};
use quorate_core::ids::{OpNumber, RecordSeq, ReplicaId, View};
use std::collections::BTreeMap;
use std::sync::Arc;

/// At most one vote of each replica for one entry, in the present view.
#[derive(Debug)]
pub(super) struct Ballots<T>(BTreeMap<ReplicaId, Verified<T>>);

impl<T> Default for Ballots<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Statement> Ballots<T> {
    /// Counts a vote, unless its signer has voted otherwise: then that is proven.
    pub(super) fn add(&mut self, vote: Verified<T>) -> Result<(), Option<Evidence>> {
        match self.0.get(&vote.by()) {
            None => {
                self.0.insert(vote.by(), vote);
                Ok(())
            }
            Some(earlier) if earlier.statement() == vote.statement() => Ok(()),
            Some(earlier) => Err(Evidence::of(earlier, &vote)),
        }
    }

    /// The certificate, if a quorum says this.
    pub(super) fn certify(&self, statement: &T, quorum: usize) -> Option<Certified<T>> {
        if self.0.len() < quorum {
            return None;
        }
        Certified::assemble(self.0.values(), statement, quorum)
    }
}

/// One entry.
#[derive(Debug, Default)]
pub(super) struct Slot {
    /// What the primary of the present view proposes.
    pub(super) accepted: Option<Prepare>,
    /// My vote was written in this view (perhaps it is not on disk yet).
    pub(super) voted: Option<Prepare>,
    /// The primary's PRE-PREPARE as it travels, to be sent again.
    pub(super) pre_prepare: Option<Signed<Prepare>>,
    /// My votes, once they are on disk: they may be sent again.
    pub(super) own_prepare: Option<Signed<Prepare>>,
    pub(super) own_commit: Option<Signed<Commit>>,
    pub(super) prepares: Ballots<Prepare>,
    pub(super) commits: Ballots<Commit>,
    /// The certificate of the highest view in which the entry was prepared here (P).
    pub(super) prepared: Option<Certified<Prepare>>,
    pub(super) committed: Option<Certificate<Commit>>,
    /// Chain of digests up to this entry, once everything up to it is committed and here.
    pub(super) chain: Option<Digest>,
    /// Proposals that one of the above names.
    proposals: BTreeMap<Digest, Proposal>,
    /// The first record about this entry.
    first: Option<RecordSeq>,
}

impl Slot {
    pub(super) fn proposal(&self, digest: Digest) -> Option<&Proposal> {
        self.proposals.get(&digest)
    }

    /// The digest that is decided, if it is known to be.
    pub(super) fn decided(&self) -> Option<Digest> {
        self.committed.as_ref().map(|it| it.statement().digest)
    }

    /// Does anything here need the proposal with this digest?
    pub(super) fn names(&self, digest: Digest) -> bool {
        self.accepted.is_some_and(|it| it.digest == digest)
            || self.prepared.as_ref().is_some_and(|it| it.statement().digest == digest)
            || self.decided() == Some(digest)
    }

    /// A digest that something here names and whose proposal is missing.
    pub(super) fn missing(&self) -> Option<Digest> {
        let prepared = self.prepared.as_ref().map(|it| it.statement().digest);
        let named = [self.decided(), self.accepted.map(|it| it.digest), prepared];
        named.into_iter().flatten().find(|digest| !self.proposals.contains_key(digest))
    }

    /// Keeps a proposal, and no others than those that are named.
    pub(super) fn keep(&mut self, proposal: Proposal) {
        let mut proposals = std::mem::take(&mut self.proposals);
        proposals.insert(proposal.digest(), proposal);
        proposals.retain(|digest, _| self.names(*digest));
        self.proposals = proposals;
    }

    /// The content of a proposal, which is kept only as bytes from now on.
    pub(super) fn unpack(&mut self, digest: Digest) -> Option<Arc<Content>> {
        let proposal = self.proposals.get_mut(&digest)?;
        let content = proposal.content();
        proposal.pack();
        Some(content)
    }

    /// As its record has it: what names it may come later.
    pub(super) fn restore_proposal(&mut self, proposal: Proposal) {
        self.proposals.insert(proposal.digest(), proposal);
    }

    pub(super) fn recorded(&mut self, seq: RecordSeq) {
        self.first.get_or_insert(seq);
    }

    /// Forgets what belongs to a view. What was prepared stays.
    pub(super) fn leave_view(&mut self) {
        self.accepted = None;
        self.voted = None;
        self.pre_prepare = None;
        self.own_prepare = None;
        self.own_commit = None;
        self.prepares = Ballots::default();
        self.commits = Ballots::default();
    }

    /// The log is stable here: only what is committed is of use.
    pub(super) fn settle(&mut self) {
        self.leave_view();
        if self.committed.is_some() {
            self.prepared = None;
            let decided = self.decided();
            self.proposals.retain(|digest, _| Some(*digest) == decided);
        }
    }

    pub(super) fn is_prepared_in(&self, view: View) -> bool {
        self.prepared.as_ref().is_some_and(|it| it.statement().view == view)
    }
}

/// All entries after the log's beginning.
#[derive(Debug, Default)]
pub(super) struct Log {
    slots: BTreeMap<OpNumber, Slot>,
}

impl Log {
    pub(super) fn get(&self, op: OpNumber) -> Option<&Slot> {
        self.slots.get(&op)
    }

    pub(super) fn slot(&mut self, op: OpNumber) -> &mut Slot {
        self.slots.entry(op).or_default()
    }

    pub(super) fn get_mut(&mut self, op: OpNumber) -> Option<&mut Slot> {
        self.slots.get_mut(&op)
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (OpNumber, &Slot)> {
        self.slots.iter().map(|(op, slot)| (*op, slot))
    }

    pub(super) fn after(&self, op: OpNumber) -> impl DoubleEndedIterator<Item = (OpNumber, &Slot)> {
        self.slots.range(op.next()..).map(|(op, slot)| (*op, slot))
    }

    pub(super) fn ops_after(&self, op: OpNumber) -> Vec<OpNumber> {
        self.after(op).map(|(op, _)| op).collect()
    }

    pub(super) fn last(&self) -> OpNumber {
        self.slots.last_key_value().map_or(OpNumber::ZERO, |(op, _)| *op)
    }

    pub(super) fn leave_view(&mut self, stable: OpNumber) {
        self.slots.range_mut(stable.next()..).for_each(|(_, slot)| slot.leave_view());
    }

    pub(super) fn settle(&mut self, through: OpNumber) {
        self.slots.range_mut(..=through).for_each(|(_, slot)| slot.settle());
    }

    /// Drops entries up to this one; returns the first record that is still needed, if any is.
    pub(super) fn drop_through(&mut self, op: OpNumber) -> Option<RecordSeq> {
        self.slots = self.slots.split_off(&op.next());
        self.slots.values().filter_map(|slot| slot.first).min()
    }
}

/// The chain of digests, one entry on.
pub(super) fn chained(before: Digest, digest: Digest) -> Digest {
    Digest::of_parts(&[b"pbft chain", before.as_bytes(), digest.as_bytes()])
}
