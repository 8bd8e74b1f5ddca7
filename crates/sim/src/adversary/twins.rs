//! Twins (Bano et al., *Twins: BFT Systems Made Robust*, OPODIS 2021): two live copies of one replica, with one name and key,
//! each with its own disk. Both are honest and know nothing of each other; together they equivocate, vote twice and forget.

use crate::clock::SECOND;
use quorate_core::crypto::Digest;
use quorate_core::ids::Peer;

/// How long everybody keeps meeting the same twin, nanoseconds.
const SIDES_LAST: u64 = 2 * SECOND;

/// One replica of which there are two.
#[derive(Clone, Copy, Debug)]
pub struct Twins {
    /// The place of the one among the processes.
    pub original: usize,
    /// The place of the other.
    pub copy: usize,
    /// Decides who meets whom.
    pub luck: u64,
}

impl Twins {
    /// Does this peer hear the twin at `place` now, and does that one hear it?
    pub fn meets(&self, peer: Peer, place: usize, now: u64) -> bool {
        let mixed = Digest::of(format!("{} {peer:?} {}", self.luck, now / SIDES_LAST).as_bytes());
        let side = mixed.as_bytes().first().map_or(0, |byte| byte % 5);
        match side {
            0 | 1 => place == self.original,
            2 | 3 => place == self.copy,
            _ => true,
        }
    }
}
