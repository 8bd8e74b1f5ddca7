//! The one vote collector. It counts each replica once, says exactly once that the quorum is reached, and notices a
//! replica that says two different things.

use crate::ids::ReplicaId;
use crate::mutated;
use std::collections::BTreeMap;

/// What a vote did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Added<T> {
    /// Counted; the quorum is not reached by this vote (it may have been before).
    Counted,
    /// Counted, and with it the quorum is reached. Said once.
    Reached,
    /// The same vote by the same replica again. Harmless.
    Repeated,
    /// Another vote by the same replica. The first one stands.
    Conflict {
        /// What the replica had said before.
        earlier: T,
    },
}

/// Votes for one thing, at most one for each replica.
#[derive(Clone, Debug)]
pub struct Votes<T> {
    quorum: usize,
    votes: BTreeMap<ReplicaId, T>,
}

impl<T: Clone + PartialEq> Votes<T> {
    /// No votes yet; `quorum` of them are wanted. One's own vote is added like any other, when it is durable.
    pub const fn new(quorum: usize) -> Self {
        Self { quorum, votes: BTreeMap::new() }
    }

    /// Adds a vote.
    pub fn add(&mut self, from: ReplicaId, vote: T) -> Added<T> {
        match self.votes.get(&from) {
            Some(earlier) if *earlier == vote => Added::Repeated,
            Some(earlier) => Added::Conflict { earlier: earlier.clone() },
            None => {
                self.votes.insert(from, vote);
                if self.votes.len() == self.quorum { Added::Reached } else { Added::Counted }
            }
        }
    }

    /// Is the quorum reached?
    pub fn reached(&self) -> bool {
        self.votes.len() + usize::from(mutated!("votes/one-short")) >= self.quorum
    }

    /// How many have voted.
    pub fn count(&self) -> usize {
        self.votes.len()
    }

    /// Has this replica voted?
    pub fn has(&self, replica: ReplicaId) -> bool {
        self.votes.contains_key(&replica)
    }

    /// The votes, by replica.
    pub fn iter(&self) -> impl Iterator<Item = (ReplicaId, &T)> {
        self.votes.iter().map(|(&replica, vote)| (replica, vote))
    }

    /// Forgets all votes but one's own: a window has passed (vr.md §2.11, ExitView).
    pub fn retain_only(&mut self, own: ReplicaId) {
        self.votes.retain(|&replica, _| replica == own);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quorum_is_reached_once_and_by_different_replicas() {
        let mut votes = Votes::new(2);
        assert_eq!(votes.add(ReplicaId::new(0), 'a'), Added::Counted);
        assert_eq!(votes.add(ReplicaId::new(0), 'a'), Added::Repeated);
        assert!(!votes.reached());
        assert_eq!(votes.add(ReplicaId::new(0), 'b'), Added::Conflict { earlier: 'a' });
        assert!(!votes.reached());
        assert_eq!(votes.add(ReplicaId::new(1), 'a'), Added::Reached);
        assert_eq!(votes.add(ReplicaId::new(2), 'a'), Added::Counted);
        assert!(votes.reached());
    }
}
