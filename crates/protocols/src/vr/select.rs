//! Log selection: which log a new view starts with (VRR §4.2 step 3; vr.md §2.12). One pure function.

use super::message::{DoViewChange, Header};
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::quorum::CrashQuorums;

/// What the DoViewChanges that are in lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// More are needed.
    Wait,
    /// All are in, and nobody can tell whether this entry was committed: its every copy is damaged.
    Stuck(OpNumber),
    /// The view starts with this log.
    Start(Selected),
}

/// A log to start a view with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Entries up to this one are committed.
    pub committed: OpNumber,
    /// The entry before the first header: the smallest commit number among the logs that count.
    pub after: OpNumber,
    /// The log after `after`, to its end.
    pub headers: Vec<Header>,
}

/// Placeholder.
pub fn select(_changes: &[(ReplicaId, &DoViewChange)], _quorums: &CrashQuorums, _window: u64) -> Selection {
    Selection::Wait
}
