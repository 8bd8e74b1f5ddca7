//! Requests that wait to be executed: for a batch of this replica's lane, or in some lane.

use crate::pbft::Group;
use crate::pbft::pool::{Added, Key, Pool as Waiting, keys};
use quorate_core::ids::ReplicaId;
use std::collections::{BTreeMap, BTreeSet};

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// Those of this replica's clients.
    pub waiting: Waiting,
    /// Requests in certified batches of lanes, and in which.
    elsewhere: BTreeSet<Key>,
    noted: BTreeMap<(ReplicaId, u64), Vec<Key>>,
}

impl Pool {
    /// Takes a group, unless all of its requests wait already, or are in a lane.
    pub(super) fn add(&mut self, group: Group, limits: (usize, usize)) -> Added {
        self.waiting.add(group, |key| self.elsewhere.contains(key), limits)
    }

    /// These are in a certified batch of this lane: they need no other, until the lane is committed that far. Bounded by what
    /// lanes may hold.
    pub(super) fn note(&mut self, lane: ReplicaId, height: u64, group: &Group) {
        self.elsewhere.extend(keys(group));
        self.noted.entry((lane, height)).or_default().extend(keys(group));
    }

    /// The lane is committed and executed up to here. What was noted and is not executed now never will be: a lane that
    /// forks leaves one side out.
    pub(super) fn settle(&mut self, lane: ReplicaId, height: u64) {
        let rest = self.noted.split_off(&(lane, height.saturating_add(1)));
        let mut done = std::mem::replace(&mut self.noted, rest);
        let settled = done.split_off(&(lane, 0));
        for key in settled.into_values().flatten() {
            self.elsewhere.remove(&key);
        }
        self.noted.append(&mut done); // lanes before this one
    }
}
