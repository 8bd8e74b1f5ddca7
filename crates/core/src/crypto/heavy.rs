//! Heavy statements: those that hold many signatures, such as a view change with its certificates. One frame of them costs
//! whoever gets it hundreds of checks, so a keyring keeps two rules for them.
//!
//! **What was checked is not checked again.** A keyring remembers the last [`REMEMBERED_MAX`] of each signer and kind that it
//! has checked, by a digest of everything in them, the signatures too: they come again, as they are, when they are said again
//! and when a new view is shown to follow from them.
//!
//! **What no correct replica sends is not checked at all.** Only the signer's own signature is, and then:
//! - *of one signer and view, [`DISTINCT_MAX`] at most.* A correct replica says one thing in a view; another one after a
//!   restart, if its stable checkpoint has moved meanwhile.
//! - *nothing below what the signer itself has signed.* Views only go up: whoever gets such a thing has no use for it.
//! - *nothing further than a group's size from a view that a correct replica has reached*: from the one that the owner is in,
//!   or from one that `f + 1` replicas claim to have reached. A correct replica goes on from a view only with a quorum, so it is
//!   never far from `f + 1` others, and it says its view change again until the others have said theirs.
//!
//! So between two steps of the group a liar costs at most `DISTINCT_MAX · (2n + 1)` full checks, whatever it sends.

use super::digest::Digest;
use crate::fault::Why;
use crate::ids::{ReplicaId, View};
use crate::quorum::ByzantineQuorums;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Different statements of one kind, signer and view that are checked at most; more are ignored.
const DISTINCT_MAX: usize = 4;
/// Statements of one kind and signer that are known to be good, at most; the oldest is forgotten, and checked again.
const REMEMBERED_MAX: usize = 4;

/// The kind of statement, and who signed it.
pub(super) type Kind = (&'static str, ReplicaId);

/// What is known of one signer's statements of one kind.
#[derive(Default)]
struct Seen {
    /// The highest view that it has signed one for.
    view: View,
    /// Those of that view that were looked at.
    looked_at: Vec<Digest>,
    /// The last ones that are good.
    good: VecDeque<Digest>,
}

#[derive(Default)]
struct State {
    /// The view that the owner is in.
    reached: View,
    /// The highest view that each replica has signed anything heavy for.
    claimed: BTreeMap<ReplicaId, View>,
    seen: BTreeMap<Kind, Seen>,
}

/// What a keyring knows of heavy statements. Members are few and kinds are the protocol's, so it is small.
#[derive(Default)]
pub(super) struct Heavy(Mutex<State>);

impl fmt::Debug for Heavy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("heavy statements")
    }
}

impl Heavy {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The owner is in this view.
    pub(super) fn reached(&self, view: View) {
        let mut state = self.state();
        state.reached = state.reached.max(view);
    }

    /// Is the statement with this name known to be good?
    pub(super) fn is_good(&self, kind: Kind, name: &Digest) -> bool {
        self.state().seen.get(&kind).is_some_and(|seen| seen.good.contains(name))
    }

    /// It is good.
    pub(super) fn good(&self, kind: Kind, name: Digest) {
        let mut state = self.state();
        let good = &mut state.seen.entry(kind).or_default().good;
        if !good.contains(&name) {
            good.push_back(name);
        }
        while good.len() > REMEMBERED_MAX {
            good.pop_front();
        }
    }

    /// The signer has signed something for this view.
    pub(super) fn claims(&self, by: ReplicaId, view: View) {
        let mut state = self.state();
        let claimed = state.claimed.entry(by).or_default();
        *claimed = (*claimed).max(view);
    }

    /// May what the signer has signed for this view be checked, in a group of so many?
    pub(super) fn admits(&self, kind: Kind, view: View, name: Digest, replicas: usize) -> Result<(), Why> {
        let mut state = self.state();
        let claimed = state.claimed.values().copied();
        let vouched = ByzantineQuorums::new(replicas).and_then(|quorums| quorums.vouched(claimed));
        let reached = state.reached.max(vouched.unwrap_or_default());
        if view.get().abs_diff(reached.get()) > replicas as u64 {
            return Err(Why::Busy);
        }
        let seen = state.seen.entry(kind).or_default();
        if view < seen.view {
            return Err(Why::OldView);
        }
        if view > seen.view {
            seen.view = view;
            seen.looked_at.clear();
        }
        if seen.looked_at.contains(&name) {
            return Ok(()); // it was opened with others, one of which was bad, and is opened again
        }
        if seen.looked_at.len() >= DISTINCT_MAX {
            return Err(Why::Busy);
        }
        seen.looked_at.push(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Kind = ("a test's", ReplicaId::new(3));

    fn name(number: u64) -> Digest {
        Digest::of(&number.to_le_bytes())
    }

    fn admitted(heavy: &Heavy, view: u64, of: std::ops::Range<u64>) -> usize {
        of.filter(|number| heavy.admits(KIND, View::new(view), name(*number), 4).is_ok()).count()
    }

    #[test]
    fn of_one_view_a_signer_is_heard_a_few_times_and_the_same_thing_again_costs_nothing() {
        let heavy = Heavy::default();
        assert_eq!(admitted(&heavy, 1, 0..100), DISTINCT_MAX);
        assert_eq!(admitted(&heavy, 1, 0..2), 2);
        assert_eq!(admitted(&heavy, 2, 100..200), DISTINCT_MAX);
        assert_eq!(heavy.admits(KIND, View::new(1), name(0), 4), Err(Why::OldView));
    }

    #[test]
    fn who_signs_for_view_after_view_is_heard_up_to_where_a_correct_replica_can_be() {
        let heavy = Heavy::default();
        let all: usize = (1..1_000).map(|view| admitted(&heavy, view, view * 10..view * 10 + 10)).sum();
        assert_eq!(all, 4 * DISTINCT_MAX);
        heavy.claims(KIND.1, View::new(1_000));
        assert_eq!(admitted(&heavy, 1_000, 0..9), 0, "its own word is not enough");
        heavy.claims(ReplicaId::new(0), View::new(999));
        assert_eq!(admitted(&heavy, 1_000, 0..9), DISTINCT_MAX, "two of four: one of them is correct");
    }

    #[test]
    fn who_is_in_a_view_itself_hears_of_the_next_ones_at_once() {
        let heavy = Heavy::default();
        heavy.reached(View::new(500));
        assert_eq!(admitted(&heavy, 501, 0..1), 1);
        assert_eq!(admitted(&heavy, 505, 0..1), 0);
    }

    #[test]
    fn what_is_good_is_remembered_a_few_deep() {
        let heavy = Heavy::default();
        (0..10).for_each(|number| heavy.good(KIND, name(number)));
        assert_eq!((0..10).filter(|number| heavy.is_good(KIND, &name(*number))).count(), REMEMBERED_MAX);
        assert!(heavy.is_good(KIND, &name(9)) && !heavy.is_good(("another", KIND.1), &name(9)));
    }
}
