//! The blocks that a replica has: the committed chain since the last snapshot, and the tree that grows on it.

use super::durable::Root;
use super::message::{Block, Header};
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, RecordSeq, View};
use std::collections::{BTreeMap, BTreeSet};

/// A block in its place.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) block: Block,
    /// Its record.
    seq: RecordSeq,
}

/// All blocks after the base.
#[derive(Debug, Default)]
pub(super) struct Tree {
    /// The chain begins after this block.
    base: Root,
    /// The last committed block.
    head: Root,
    nodes: BTreeMap<Digest, Node>,
    /// The committed ones, by height: many.
    chain: BTreeMap<OpNumber, Digest>,
    /// The others: few.
    open: BTreeSet<Digest>,
}

impl Tree {
    pub(super) fn new(base: Root) -> Self {
        Self { base, head: base, ..Self::default() }
    }

    pub(super) const fn base(&self) -> Root {
        self.base
    }

    /// The last committed block.
    pub(super) const fn head(&self) -> Root {
        self.head
    }

    pub(super) fn get(&self, id: Digest) -> Option<&Block> {
        self.nodes.get(&id).map(|node| &node.block)
    }

    /// What makes a block that is here what it is.
    pub(super) fn header(&self, id: Digest) -> Option<Header> {
        self.get(id).map(|block| block.header)
    }

    /// The place of a block that is here, the base included.
    pub(super) fn root(&self, id: Digest) -> Option<Root> {
        if id == self.base.block {
            return Some(self.base);
        }
        self.get(id).map(|block| Root { op: block.header.height, block: id, view: block.header.view })
    }

    pub(super) fn contains(&self, id: Digest) -> bool {
        id == self.base.block || self.nodes.contains_key(&id)
    }

    /// The committed block at this height.
    pub(super) fn at(&self, op: OpNumber) -> Option<&Block> {
        self.get(*self.chain.get(&op)?)
    }

    /// Blocks that are here and not committed.
    pub(super) fn open(&self) -> impl Iterator<Item = (Digest, &Block)> {
        self.open.iter().filter_map(|id| Some((*id, self.get(*id)?)))
    }

    pub(super) fn open_count(&self) -> usize {
        self.open.len()
    }

    /// All blocks above a height, committed or not.
    pub(super) fn above(&self, op: OpNumber) -> impl Iterator<Item = Digest> {
        let committed = self.chain.range(op.next()..).map(|(_, id)| *id);
        let open = self.open().filter(move |(_, block)| block.header.height > op).map(|(id, _)| id);
        committed.chain(open)
    }

    /// Adds a block whose parent is here and one lower, above the committed head.
    pub(super) fn insert(&mut self, id: Digest, block: Block, seq: RecordSeq) {
        debug_assert!(self.root(block.header.parent).is_some_and(|parent| parent.op.next() == block.header.height));
        self.nodes.insert(id, Node { block, seq });
        self.open.insert(id);
    }

    /// The blocks from the committed head, which is not among them, to this one; `None` if it does not descend from it.
    pub(super) fn branch(&self, id: Digest) -> Option<Vec<Digest>> {
        let (mut path, mut at) = (Vec::new(), id);
        while at != self.head.block {
            let block = self.get(at).filter(|block| block.header.height > self.head.op)?;
            path.push(at);
            at = block.header.parent;
        }
        path.reverse();
        Some(path)
    }

    /// The committed chain and then the branch to this block, after a height.
    pub(super) fn line(&self, after: OpNumber, to: Digest) -> Vec<Digest> {
        let chain = self.chain.range(after.next()..).map(|(_, id)| *id);
        let branch = self.branch(to).unwrap_or_default();
        let above = |id: &Digest| self.get(*id).is_some_and(|block| block.header.height > after);
        chain.chain(branch.into_iter().filter(above)).collect()
    }

    /// Commits a child of the head.
    pub(super) fn commit(&mut self, id: Digest) {
        let Some(root) = self.root(id) else { return };
        debug_assert_eq!(root.op, self.head.op.next());
        self.chain.insert(root.op, id);
        self.open.remove(&id);
        self.head = root;
    }

    /// Drops what does not descend from the committed head.
    pub(super) fn drop_losers(&mut self) {
        let losers: Vec<Digest> = self.open.iter().filter(|id| self.branch(**id).is_none()).copied().collect();
        losers.into_iter().for_each(|id| self.drop_open(id));
    }

    fn drop_open(&mut self, id: Digest) {
        self.open.remove(&id);
        self.nodes.remove(&id);
    }

    /// Makes room: drops the open blocks of the lowest views that are not on the branches to `keep`.
    pub(super) fn shrink(&mut self, max: usize, keep: &[Digest]) {
        if self.open_count() <= max {
            return;
        }
        let kept: BTreeSet<Digest> = keep.iter().flat_map(|id| self.branch(*id).unwrap_or_default()).collect();
        let mut others: Vec<(View, Digest)> = self.open().map(|(id, block)| (block.header.view, id)).collect();
        others.retain(|(_, id)| !kept.contains(id));
        others.sort_unstable();
        let surplus = self.open_count().saturating_sub(max);
        others.into_iter().take(surplus).for_each(|(_, id)| self.drop_open(id));
        self.drop_losers(); // what grew on them
    }

    /// The chain begins after this block, which is committed. Returns the first record that is still needed, if any is.
    pub(super) fn begin_at(&mut self, root: Root) -> Option<RecordSeq> {
        self.base = root;
        self.chain = self.chain.split_off(&root.op.next());
        if root.op > self.head.op {
            self.head = root;
            self.chain.clear();
        }
        self.nodes.retain(|_, node| node.block.header.height > root.op);
        self.open.retain(|id| self.nodes.contains_key(id));
        self.drop_losers();
        self.nodes.values().map(|node| node.seq).min()
    }
}
