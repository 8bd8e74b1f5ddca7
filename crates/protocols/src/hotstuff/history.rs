//! The committed blocks that a replica's log still holds, for who wants to read them: height → name, height → block. The seed gives
//! its machine the same when it recovers ("knowledge of which blocks committed").
//!
//! Pure: it is given records, wherever they come from. It believes them, as checksums have let them pass; who wants to convince
//! somebody else takes the certificate of a block from its child ([`Block::justify`]).

use super::durable::{Record, Root};
use super::message::Block;
use super::restore::Replayed;
use super::safety::Rules;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::protocol::Restored;
use std::collections::BTreeMap;
use thiserror::Error;

/// The committed chain, as far as a log has it. The heights in it have no gap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    head: Root,
    /// The names of the blocks that are here, and of the parent of the lowest.
    names: BTreeMap<OpNumber, Digest>,
    blocks: BTreeMap<OpNumber, Block>,
}

/// Why there is no block at a height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum NotHere {
    /// It was, and a snapshot holds what it did.
    #[error(
        "the block at height {asked} is not in this log, which can be read from height {first} on: what was before is in a \
         snapshot (larger `state_blocks` and `state_bytes` keep more), or its record is damaged, as `quorate verify` would tell"
    )]
    Forgotten {
        /// The height asked for.
        asked: OpNumber,
        /// The lowest height that there is; one more than the last committed one if there is none.
        first: OpNumber,
    },
    /// Nobody has told this replica that there is one.
    #[error("no block is known to be committed at height {asked}; the last one is at {last}")]
    NotCommitted {
        /// The height asked for.
        asked: OpNumber,
        /// The last committed height.
        last: OpNumber,
    },
}

impl History {
    /// What these records, in their order, say under these rules. Records that cannot be read are left out; what is lower than
    /// a missing block is not told.
    pub fn of(records: impl IntoIterator<Item = (RecordSeq, Record)>, rules: Rules) -> Self {
        let mut replayed = Replayed::default();
        records.into_iter().for_each(|(seq, record)| replayed.take(Restored::Found { seq, record }));
        let Replayed { base, blocks, roots, .. } = replayed;
        let mut by_name: BTreeMap<Digest, Block> =
            blocks.into_iter().map(|(_, block)| (block.header.id(), block)).collect();
        let header = |name: Digest| by_name.get(&name).map(|block| block.header);
        let certified = by_name.values().map(|block| block.header.parent).chain([base.safety.high.block()]);
        let committed = certified.filter_map(|name| rules.commits(header, name)).filter_map(header);
        let places = committed.map(|it| Root { op: it.height, block: it.id(), view: it.view });
        // A snapshot is made, or fetched, of nothing but what is committed.
        let snapshots = roots.into_values().chain([base.root]);
        let head = places.chain(snapshots).max_by_key(|root| root.op).unwrap_or_default();
        let mut history = Self { head, ..Self::default() };
        history.names.insert(head.op, head.block);
        let mut at = head.block;
        while let Some(block) = by_name.remove(&at) {
            let height = block.header.height;
            at = block.header.parent;
            history.names.insert(height.previous(), at);
            history.blocks.insert(height, block);
        }
        history
    }

    /// The last committed block, whether it is here or only its place is known.
    pub const fn head(&self) -> Root {
        self.head
    }

    /// The heights that are here, the lowest and the highest; `None` if none is.
    pub fn heights(&self) -> Option<(OpNumber, OpNumber)> {
        let (first, last) = (self.blocks.first_key_value(), self.blocks.last_key_value());
        first.zip(last).map(|((first, _), (last, _))| (*first, *last))
    }

    /// The name of the committed block at a height. Also known for the parent of the lowest block.
    ///
    /// # Errors
    /// [`NotHere`].
    pub fn name(&self, height: OpNumber) -> Result<Digest, NotHere> {
        self.names.get(&height).copied().ok_or_else(|| self.lacks(height))
    }

    /// The committed block at a height.
    ///
    /// # Errors
    /// [`NotHere`].
    pub fn block(&self, height: OpNumber) -> Result<&Block, NotHere> {
        self.blocks.get(&height).ok_or_else(|| self.lacks(height))
    }

    /// All committed blocks that are here, the lowest first.
    pub fn blocks(&self) -> impl DoubleEndedIterator<Item = (OpNumber, &Block)> {
        self.blocks.iter().map(|(height, block)| (*height, block))
    }

    fn lacks(&self, asked: OpNumber) -> NotHere {
        if asked > self.head.op {
            return NotHere::NotCommitted { asked, last: self.head.op };
        }
        let first = self.heights().map_or(self.head.op.next(), |(first, _)| first);
        NotHere::Forgotten { asked, first }
    }
}
