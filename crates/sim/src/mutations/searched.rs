//! Rules whose breaking no seed shows and an exhaustive search does: the orders that hurt are one in millions.

use crate::exhaustive::{Explored, Scope, explore};
use quorate_protocols::vr::Vr;

/// One way to break the code, and where to look for what comes of it.
#[derive(Clone, Copy, Debug)]
pub struct Searched {
    /// Area and name, as `mutated!` asks for it.
    pub name: &'static str,
    /// What is done wrong.
    pub wrong: &'static str,
    /// The scope in which it shows.
    pub scope: Scope,
    /// Explores the protocol that it is tried on.
    pub explore: fn(&Scope) -> Explored,
}

/// A disk is lost, two replicas suspect the primary, and nothing happens out of turn but what the former self had sent.
pub const LOST_DISK: Scope = Scope {
    replicas: 3,
    clients: 1,
    answers: 2,
    crashes: 0,
    timeouts: 2,
    losses: 0,
    lost_disks: 1,
    deviations: Some(0),
    states_max: 1_000_000,
};

fn vr(scope: &Scope) -> Explored {
    explore::<Vr>(scope, |_| {})
}

/// The list.
pub const SEARCHED: &[Searched] = &[Searched {
    name: "recover/an-empty-disk-is-a-first-start",
    wrong: "a replica that has lost its disk starts as one that has never run",
    scope: Scope { losses: 1, ..LOST_DISK },
    explore: vr,
}];
