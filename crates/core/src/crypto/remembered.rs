//! Signatures that were checked and come again: a statement that travels by itself first, and then inside what others say, as it
//! is. A keyring remembers the last [`REMEMBERED_MAX`] of each signer, by a digest of everything that was checked, the
//! signature too, and does not check them again. It remembers good ones only, so nobody but the signer can make it forget any,
//! and what is forgotten is checked again.

use super::digest::Digest;
use crate::ids::ReplicaId;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Good signatures of one signer that are remembered, at most; the oldest is forgotten. Some seconds of a busy group.
const REMEMBERED_MAX: usize = 2048;

/// The last names of something, in the order in which they came.
#[derive(Default)]
pub(super) struct Last {
    order: VecDeque<Digest>,
    names: BTreeSet<Digest>,
}

impl Last {
    pub(super) fn has(&self, name: &Digest) -> bool {
        self.names.contains(name)
    }

    /// Adds one; forgets the oldest beyond `most`.
    pub(super) fn add(&mut self, name: Digest, most: usize) {
        if self.names.insert(name) {
            self.order.push_back(name);
        }
        while self.order.len() > most
            && let Some(oldest) = self.order.pop_front()
        {
            self.names.remove(&oldest);
        }
    }
}

/// What a keyring remembers. Signers are the members of a group, so it is bounded.
#[derive(Default)]
pub(super) struct Remembered(Mutex<BTreeMap<ReplicaId, Last>>);

impl fmt::Debug for Remembered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signatures that were checked")
    }
}

impl Remembered {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ReplicaId, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Was it checked?
    pub(super) fn has(&self, by: ReplicaId, name: &Digest) -> bool {
        self.all().get(&by).is_some_and(|good| good.has(name))
    }

    /// It was checked, and is good.
    pub(super) fn add(&self, by: ReplicaId, name: Digest) {
        self.all().entry(by).or_default().add(name, REMEMBERED_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_each_signer_are_remembered_whatever_another_one_signs() {
        let (one, other) = (ReplicaId::new(0), ReplicaId::new(1));
        let name = |number: usize| Digest::of(&number.to_le_bytes());
        let remembered = Remembered::default();
        remembered.add(one, name(0));
        (0..2 * REMEMBERED_MAX).for_each(|number| remembered.add(other, name(number)));
        assert!(remembered.has(one, &name(0)));
        let kept = (0..2 * REMEMBERED_MAX).filter(|number| remembered.has(other, &name(*number)));
        assert_eq!(kept.collect::<Vec<_>>(), (REMEMBERED_MAX..2 * REMEMBERED_MAX).collect::<Vec<_>>());
        assert!(!remembered.has(one, &name(1)), "of another signer it says nothing");
    }
}
