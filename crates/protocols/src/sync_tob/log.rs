//! The chain of blocks above the last state: what this replica takes for the outputs of the epochs, confirmed or not.

use super::content::Block;
use super::schedule::EpochNumber;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Digest};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

use super::message::Commit;

/// One block's place in the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Link {
    /// Its number.
    pub op: OpNumber,
    /// Its epoch.
    pub epoch: EpochNumber,
    /// Its digest.
    pub block: Digest,
    /// The chain of all blocks up to it.
    pub chain: Digest,
}

/// The chain of blocks, one longer.
pub fn chained(parent: Digest, op: OpNumber, epoch: EpochNumber, block: Digest) -> Digest {
    Digest::of_parts(&[b"sync-tob chain", parent.as_bytes(), &(op, epoch).encode(), block.as_bytes()])
}

/// The chain.
#[derive(Debug, Default)]
pub(super) struct Log {
    /// It begins after this block.
    pub(super) base: (OpNumber, EpochNumber, Digest),
    links: BTreeMap<OpNumber, (Link, RecordSeq)>,
    /// What the digests stand for, as far as it is here.
    pub(super) blocks: BTreeMap<Digest, (Block, RecordSeq)>,
    /// Proofs that a block, and with it all before it, is committed.
    pub(super) proofs: BTreeMap<OpNumber, (Certificate<Commit>, RecordSeq)>,
}

impl Log {
    /// Number, epoch and chain of the last block.
    pub(super) fn tip(&self) -> (OpNumber, EpochNumber, Digest) {
        self.links.values().next_back().map_or(self.base, |(link, _)| (link.op, link.epoch, link.chain))
    }

    pub(super) fn get(&self, op: OpNumber) -> Option<Link> {
        self.links.get(&op).map(|(link, _)| *link)
    }

    /// The chain up to this block, if it is known.
    pub(super) fn chain_at(&self, op: OpNumber) -> Option<Digest> {
        if op == self.base.0 { Some(self.base.2) } else { self.get(op).map(|link| link.chain) }
    }

    /// The epoch of this block, if it is known.
    pub(super) fn epoch_at(&self, op: OpNumber) -> Option<EpochNumber> {
        if op == self.base.0 { Some(self.base.1) } else { self.get(op).map(|link| link.epoch) }
    }

    pub(super) fn after(&self, op: OpNumber) -> impl Iterator<Item = Link> + '_ {
        self.links.range(op.next()..).map(|(_, (link, _))| *link)
    }

    /// The link that would follow the block `op - 1`.
    pub(super) fn following(&self, op: OpNumber, epoch: EpochNumber, block: Digest) -> Option<Link> {
        let parent = self.chain_at(op.previous()).filter(|_| op > OpNumber::ZERO)?;
        Some(Link { op, epoch, block, chain: chained(parent, op, epoch, block) })
    }

    /// Puts a link in its place; what was there and after it goes.
    pub(super) fn put(&mut self, link: Link, seq: RecordSeq) {
        self.cut(link.op);
        self.links.insert(link.op, (link, seq));
    }

    /// Drops this block and all after it.
    pub(super) fn cut(&mut self, op: OpNumber) {
        let _dropped = self.links.split_off(&op);
    }

    /// Begins after this block; what was before it goes. If it is not in the chain, all goes.
    pub(super) fn begin_after(&mut self, base: (OpNumber, EpochNumber, Digest)) {
        if self.chain_at(base.0) != Some(base.2) {
            self.links.clear();
        }
        self.base = base;
        self.links = self.links.split_off(&base.0.next());
        self.proofs = self.proofs.split_off(&base.0.next());
    }

    /// The first record that is still needed, as far as the chain is concerned.
    pub(super) fn first_record(&self) -> Option<RecordSeq> {
        let links = self.links.values().map(|(_, seq)| *seq);
        let blocks = self.blocks.values().map(|(_, seq)| *seq);
        links.chain(blocks).chain(self.proofs.values().map(|(_, seq)| *seq)).min()
    }

    /// Drops the bodies of blocks that are neither in the chain nor wanted for something else.
    pub(super) fn keep_blocks(&mut self, wanted: impl Fn(&Digest) -> bool) {
        let links = &self.links;
        self.blocks.retain(|digest, _| wanted(digest) || links.values().any(|(link, _)| link.block == *digest));
    }
}
