//! What replicas say to one question. A result is believed when enough of them say the same: `f + 1` for what is ordered, a
//! quorum for a read that is not. Whoever lies can say what it likes; it counts once, and never alone.

use crate::pbft::message::Told;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::quorum::AnswerQuorums;
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// Answers to one question: the last of each replica.
#[derive(Debug)]
pub(super) struct Tally<T> {
    said: BTreeMap<ReplicaId, (Digest, OpNumber)>,
    /// Whole answers, by digest; at most one for each replica.
    full: BTreeMap<ReplicaId, (Digest, T)>,
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self { said: BTreeMap::new(), full: BTreeMap::new() }
    }
}

impl<T: Wire + Clone> Tally<T> {
    /// A replica answers; its earlier answer does not count any more.
    pub(super) fn add(&mut self, from: ReplicaId, op: OpNumber, told: Told<T>) {
        let digest = told.digest();
        self.said.insert(from, (digest, op));
        if let Told::Full(whole) = told {
            self.full.insert(from, (digest, whole));
        }
    }

    /// What `needed` replicas say, once somebody has said it in full; and an entry that one correct replica of them at least
    /// has executed.
    pub(super) fn believed(&self, needed: usize, quorums: &AnswerQuorums) -> Option<(T, OpNumber)> {
        self.full.values().find_map(|(digest, whole)| {
            let alike: Vec<OpNumber> =
                self.said.values().filter(|(said, _)| said == digest).map(|(_, op)| *op).collect();
            (alike.len() >= needed).then(|| (whole.clone(), quorums.vouched(alike).unwrap_or_default()))
        })
    }

    /// How many have answered.
    pub(super) fn count(&self) -> usize {
        self.said.len()
    }
}
