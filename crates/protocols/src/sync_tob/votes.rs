//! Signed statements of one kind, by epoch: at most one of each replica in an epoch.

use super::WINDOW_BLOCKS;
use super::schedule::EpochNumber;
use quorate_core::crypto::{Certified, Evidence, Statement, Verified};
use quorate_core::ids::ReplicaId;
use std::collections::BTreeMap;

/// Epochs in which one replica's statements are kept: who follows the protocol has fewer under way.
const EPOCHS_MAX: usize = 2 * WINDOW_BLOCKS as usize;

/// What became of a statement.
pub(super) enum Added {
    /// Counted.
    Counted,
    /// The same again.
    Repeated,
    /// Another than before: the proof.
    Lie(Option<Evidence>),
    /// Too many of this replica are kept.
    TooMany,
}

/// The statements.
#[derive(Debug)]
pub(super) struct Ballots<T> {
    votes: BTreeMap<EpochNumber, BTreeMap<ReplicaId, Verified<T>>>,
}

impl<T> Default for Ballots<T> {
    fn default() -> Self {
        Self { votes: BTreeMap::new() }
    }
}

impl<T: Statement> Ballots<T> {
    pub(super) fn add(&mut self, epoch: EpochNumber, vote: Verified<T>) -> Added {
        let by = vote.by();
        match self.votes.get(&epoch).and_then(|votes| votes.get(&by)) {
            Some(earlier) if earlier.statement() == vote.statement() => Added::Repeated,
            Some(earlier) => Added::Lie(Evidence::of(earlier, &vote)),
            None if self.votes.values().filter(|votes| votes.contains_key(&by)).count() >= EPOCHS_MAX => Added::TooMany,
            None => {
                self.votes.entry(epoch).or_default().insert(by, vote);
                Added::Counted
            }
        }
    }

    /// The certificate that a quorum says this.
    pub(super) fn certify(&self, epoch: EpochNumber, statement: &T, quorum: usize) -> Option<Certified<T>> {
        Certified::assemble(self.votes.get(&epoch)?.values(), statement, quorum)
    }

    /// One's own statements, as they were signed.
    pub(super) fn of(&self, replica: ReplicaId) -> impl Iterator<Item = &Verified<T>> {
        self.votes.values().filter_map(move |votes| votes.get(&replica))
    }

    /// Forgets everything up to this epoch.
    pub(super) fn forget_through(&mut self, epoch: EpochNumber) {
        self.votes = self.votes.split_off(&epoch.next());
    }

    pub(super) fn clear(&mut self) {
        self.votes.clear();
    }
}
