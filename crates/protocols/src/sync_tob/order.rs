//! What the deterministic move from `UnQueued` to `Queued` depends on, and the move itself.

use super::content::Block;
use super::log::Link;
use super::message::{Cast, CastId};
use super::schedule::EpochNumber;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};

/// So many epochs after the block that convicts it, a leader stops leading: until then everybody knows the block.
const DEMOTION_LAG_EPOCHS: u64 = 256;

/// What a sender's next cast is called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Next {
    /// Its life.
    pub life: u64,
    /// Its number in that life.
    pub seq: u64,
}

/// A leader that was proven to lie does not lead in these epochs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Demotion {
    /// The first.
    pub from: EpochNumber,
    /// The first after them.
    pub until: EpochNumber,
}

/// After which block, and what follows from all blocks up to it. Equal wherever the same blocks were moved.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Order {
    /// The last block.
    pub op: OpNumber,
    /// Its epoch.
    pub epoch: EpochNumber,
    /// The chain of all blocks up to it.
    pub chain: Digest,
    /// For each replica, what it casts next.
    pub next: Vec<Next>,
    /// For each replica, when it may not lead.
    pub demoted: Vec<Demotion>,
}

impl Order {
    /// Before the first block.
    pub fn new(replicas: usize) -> Self {
        Self { next: vec![Next::default(); replicas], demoted: vec![Demotion::default(); replicas], ..Self::default() }
    }

    /// Is it this cast's turn? Each sender's casts are moved in the order of their numbers, without gaps; a new life begins at
    /// zero, and what was left of the one before is never moved.
    pub fn is_next(&self, id: CastId) -> bool {
        let Some(next) = self.next.get(id.sender.index()) else { return false };
        if id.life == next.life { id.seq == next.seq } else { id.life > next.life && id.seq == 0 }
    }

    /// Can this cast still be moved some day?
    pub fn is_open(&self, id: CastId) -> bool {
        let next = self.next.get(id.sender.index()).copied();
        next.is_some_and(|next| Next { life: id.life, seq: id.seq } >= next)
    }

    /// The casts of a sender that are not moved begin here.
    pub fn next_of(&self, sender: ReplicaId) -> Next {
        self.next.get(sender.index()).copied().unwrap_or_default()
    }

    /// May this replica lead the epoch, as far as its lies go?
    pub fn may_lead(&self, replica: ReplicaId, epoch: EpochNumber) -> bool {
        let demoted = self.demoted.get(replica.index()).copied().unwrap_or_default();
        epoch < demoted.from || epoch >= demoted.until
    }

    /// Counts a cast as moved.
    pub fn take(&mut self, id: CastId) -> bool {
        let is_next = self.is_next(id);
        if is_next && let Some(next) = self.next.get_mut(id.sender.index()) {
            *next = Next { life: id.life, seq: id.seq.saturating_add(1) };
        }
        is_next
    }

    /// Moves what a block says; what was moved before, or is not its sender's next, is skipped at every replica alike.
    /// Returns what was moved, in order.
    pub fn apply(&mut self, link: &Link, block: &Block, demote_epochs: u64) -> Vec<Cast> {
        (self.op, self.epoch, self.chain) = (link.op, link.epoch, link.chain);
        let entries = block.content().entries.iter().map(|entry| *entry.statement());
        let moved = entries.filter(|cast| self.take(cast.id)).collect();
        for (lie, _) in &block.content().demote {
            if let Some(demoted) = self.demoted.get_mut(lie.by().index()).filter(|it| link.epoch >= it.until) {
                let from = link.epoch.plus(DEMOTION_LAG_EPOCHS);
                *demoted = Demotion { from, until: from.plus(demote_epochs) };
            }
        }
        moved
    }
}
