//! States that may be committed: a tree that grows on the committed one. A batch is applied to a fork of its parent's state;
//! a commit makes one child the committed state, in O(1), and an abort drops one. No trace of what was dropped is left,
//! since nobody but the fork was touched.
//!
//! Some batches are only remembered, and applied when they are committed: where the machine cannot fork, where the parent's
//! state is not known, and beyond [`STATES_MAX`]. What is committed is the same in every case.

use crate::protocol::StateId;
use bytes::Bytes;
use std::collections::BTreeMap;

/// States that are kept beside the committed one, at most. More batches are remembered, and applied when they are committed.
pub const STATES_MAX: usize = 64;

/// What can be forked and worked on.
pub trait Work: Sized {
    /// What work comes to.
    type Outcome: Clone;

    /// A copy that shares nothing which work changes; `None` if there is no cheap one.
    fn fork(&self) -> Option<Self>;

    /// Applies a batch.
    fn work(&mut self, batch: &Bytes) -> Self::Outcome;
}

#[derive(Debug)]
struct Branch<S, O> {
    parent: StateId,
    batch: Bytes,
    done: Option<(S, O)>,
}

/// The tree. Its root is the committed state, which the executor holds.
#[derive(Debug)]
pub struct Branches<S, O> {
    /// The committed state's name; `None` after a batch that has none.
    root: Option<StateId>,
    branches: BTreeMap<StateId, Branch<S, O>>,
}

impl<S, O> Default for Branches<S, O> {
    fn default() -> Self {
        Self { root: Some(StateId::default()), branches: BTreeMap::new() }
    }
}

impl<S: Work> Branches<S, S::Outcome> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.branches.len()
    }

    /// The batch that leads to a state.
    pub fn batch(&self, state: StateId) -> Option<&Bytes> {
        self.branches.get(&state).map(|branch| &branch.batch)
    }

    /// A state that is known.
    pub fn state<'a>(&'a self, committed: &'a S, state: StateId) -> Option<&'a S> {
        if self.root == Some(state) {
            return Some(committed);
        }
        self.branches.get(&state)?.done.as_ref().map(|(state, _)| state)
    }

    /// Would committing this state take no work?
    pub fn is_ready(&self, state: StateId) -> bool {
        self.branches.get(&state).is_some_and(|it| it.done.is_some() && Some(it.parent) == self.root)
    }

    /// Applies a batch to a fork of its parent's state, or remembers it.
    pub fn speculate(&mut self, committed: &S, parent: StateId, state: StateId, batch: Bytes) -> Option<S::Outcome> {
        assert!(self.root != Some(state), "a state is named once");
        let room = self.branches.len() < STATES_MAX;
        let done = room.then(|| self.state(committed, parent)).flatten().and_then(S::fork).map(|mut fork| {
            let outcome = fork.work(&batch);
            (fork, outcome)
        });
        let outcome = done.as_ref().map(|(_, outcome)| outcome.clone());
        let before = self.branches.insert(state, Branch { parent, batch, done });
        assert!(before.is_none(), "a state is named once");
        outcome
    }

    /// Makes a child of the committed state the committed one; applies its batch now if it was only remembered, and what was
    /// remembered of its children, for they have a parent now.
    pub fn commit(&mut self, committed: &mut S, state: StateId) -> S::Outcome {
        let Some(branch) = self.branches.remove(&state) else {
            unreachable!("a state is speculated on before it is committed")
        };
        let follows = Some(branch.parent) == self.root;
        let outcome = match branch.done {
            Some((next, outcome)) if follows => {
                *committed = next;
                outcome
            }
            _ => committed.work(&branch.batch),
        };
        self.root = Some(state);
        self.catch_up(committed);
        outcome
    }

    fn catch_up(&mut self, committed: &S) {
        loop {
            let waits =
                self.branches.iter().find(|(_, it)| it.done.is_none() && self.state(committed, it.parent).is_some());
            let Some((id, branch)) = waits.map(|(id, branch)| (*id, branch)) else { return };
            let Some(mut fork) = self.state(committed, branch.parent).and_then(S::fork) else { return };
            let outcome = fork.work(&branch.batch);
            if let Some(branch) = self.branches.get_mut(&id) {
                branch.done = Some((fork, outcome));
            }
        }
    }

    /// Drops a state. Children go first: who forgets one would leave it without a parent for ever.
    pub fn abort(&mut self, state: StateId) {
        assert!(self.branches.values().all(|it| it.parent != state), "children are aborted before their parents");
        self.branches.remove(&state);
    }

    /// Something without a name was applied to the committed state: no branch follows from it any more.
    pub fn overtaken(&mut self) {
        self.root = None;
    }
}
