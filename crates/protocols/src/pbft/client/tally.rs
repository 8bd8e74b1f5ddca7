//! What replicas say to one question. A result is believed when enough of them say the same: `f + 1` for what is ordered, a
//! quorum for a read that is not, and for what is tentative. Whoever lies can say what it likes; it counts once, and never alone.

use crate::pbft::message::Told;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId, View};
use quorate_core::quorum::AnswerQuorums;
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// What one replica says.
#[derive(Debug)]
struct Said {
    digest: Digest,
    op: OpNumber,
    /// The view in which the entry is prepared; `None`: it is committed.
    tentative: Option<View>,
}

/// Answers to one question: the last of each replica.
#[derive(Debug)]
pub(super) struct Tally<T> {
    said: BTreeMap<ReplicaId, Said>,
    /// Whole answers, by digest; at most one for each replica.
    full: BTreeMap<ReplicaId, (Digest, T)>,
}

impl Said {
    /// The view and the entry in which it is tentative: replies of several views do not promise anything together.
    fn place(&self) -> Option<(View, OpNumber)> {
        Some((self.tentative?, self.op))
    }
}

impl<T> Default for Tally<T> {
    fn default() -> Self {
        Self { said: BTreeMap::new(), full: BTreeMap::new() }
    }
}

impl<T: Wire + Clone> Tally<T> {
    /// A replica answers; its earlier answer does not count any more, unless only that one was final.
    pub(super) fn add(&mut self, from: ReplicaId, op: OpNumber, told: Told<T>, tentative: Option<View>) {
        if tentative.is_some() && self.said.get(&from).is_some_and(|said| said.tentative.is_none()) {
            return;
        }
        let digest = told.digest();
        self.said.insert(from, Said { digest, op, tentative });
        if let Told::Full(whole) = told {
            self.full.insert(from, (digest, whole));
        }
    }

    /// What `needed` replicas say for good, or a quorum of one entry of one view, once somebody has said it in full; and the
    /// entry that it reflects, or a later one, so that no stale read goes back behind it. Liars may name any entry: of the f + 1
    /// earliest that are named with it, one is true, and a correct replica is at the last of these once f + 1 are that far.
    pub(super) fn believed(&self, needed: usize, quorums: &AnswerQuorums) -> Option<(T, OpNumber)> {
        self.full.values().find_map(|(digest, whole)| {
            let alike = || self.said.values().filter(|said| said.digest == *digest);
            let finals = alike().filter(|said| said.tentative.is_none());
            let ops: Vec<OpNumber> = finals.map(|said| said.op).collect();
            let reached = quorums.vouched(self.said.values().map(|said| said.op)).unwrap_or_default();
            let op = quorums.no_earlier(ops.iter().copied()).unwrap_or_default();
            if ops.len() >= needed && op <= reached {
                return Some((whole.clone(), op));
            }
            // Whoever has committed it has prepared it, too.
            let count = |place| alike().filter(|said| said.tentative.is_none() || said.place() == place).count();
            let place = alike()
                .map(Said::place)
                .find(|place| place.is_some() && quorums.reads().is_some_and(|quorum| count(*place) >= quorum));
            place.flatten().map(|(_, op)| (whole.clone(), op))
        })
    }

    /// Do `needed` replicas say the same, and nobody has said it in full?
    pub(super) fn lacks_full(&self, needed: usize) -> bool {
        let alike = |digest| self.said.values().filter(|said| said.digest == digest).count();
        let is_full = |digest| self.full.values().any(|(full, _)| *full == digest);
        self.said.values().any(|said| alike(said.digest) >= needed && !is_full(said.digest))
    }

    /// How many have answered.
    pub(super) fn count(&self) -> usize {
        self.said.len()
    }
}
