//! Two small structures that the store's maps are made of; both are about what a clone of a shared tree node costs.

use super::store::Place;
use bytes::Bytes;
use imbl::Vector;
use std::borrow::Borrow;
use std::cmp::Ordering;
use std::sync::Arc;

/// Longest key that is kept inside a tree node. With its length and tag it fills a cache line.
const INLINE_BYTES_MAX: usize = 62;

/// A key of the tree. Short ones are in the node itself: looking for a key follows no pointers, and copying a node that
/// a view shares touches no reference counts.
#[derive(Clone, Debug)]
pub(super) enum Key {
    Inline { length: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Bytes),
}

impl Key {
    pub(super) fn new(key: &Bytes) -> Self {
        let mut bytes = [0; INLINE_BYTES_MAX];
        match (bytes.get_mut(..key.len()), u8::try_from(key.len())) {
            (Some(into), Ok(length)) => {
                into.copy_from_slice(key);
                Key::Inline { length, bytes }
            }
            _ => Key::Shared(key.clone()),
        }
    }

    fn as_slice(&self) -> &[u8] {
        match self {
            Key::Inline { length, bytes } => bytes.get(..usize::from(*length)).unwrap_or_default(),
            Key::Shared(bytes) => bytes,
        }
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.as_slice()
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Key {}

impl PartialOrd for Key {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Key {
    fn cmp(&self, other: &Self) -> Ordering {
        self.as_slice().cmp(other.as_slice())
    }
}

/// Places in a block.
const BLOCK: usize = 32;

/// Ascending places, appended at the end and dropped from the front. A clone shares all full blocks, so that a key that
/// was changed a million times is as cheap to change while a view looks on as one that was changed forty times.
#[derive(Clone, Debug, Default)]
pub(super) struct Places {
    full: Vector<Arc<[Place]>>,
    tail: Vec<Place>,
}

impl Places {
    pub(super) fn push(&mut self, place: Place) {
        if self.tail.len() >= BLOCK {
            self.full.push_back(self.tail.as_slice().into());
            self.tail.clear();
        }
        self.tail.push(place);
    }

    /// The last place at or before `revision`.
    pub(super) fn last_at(&self, revision: i64) -> Option<Place> {
        let end = Place::first(revision.saturating_add(1));
        let last_in =
            |places: &[Place]| places.get(places.partition_point(|place| *place < end).checked_sub(1)?).copied();
        last_in(&self.tail).or_else(|| {
            let after = self.full.binary_search_by(|block| block.first().cmp(&Some(&end)));
            last_in(self.full.get(after.unwrap_or_else(|index| index).checked_sub(1)?)?)
        })
    }

    /// All places, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = Place> + '_ {
        self.full.iter().flat_map(|block| block.iter()).chain(&self.tail).copied()
    }

    /// Drops the places before `place`; answers with them. Costs as much as there are places.
    pub(super) fn drop_before(&mut self, place: Place) -> Vec<Place> {
        let (dropped, kept): (Vec<_>, Vec<_>) = self.iter().partition(|other| *other < place);
        *self = Self::default();
        kept.into_iter().for_each(|place| self.push(place));
        dropped
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }
}
