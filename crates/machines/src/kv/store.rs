//! Multi-version storage: every change has a place in history, and every key knows the places of its changes.
//!
//! Three persistent maps: `keys` (key → newest change, places of older ones), `history` (place → change) and the leases.
//! Cloning them is O(1), so a view or a snapshot costs nothing until the store goes on. A change is shared between
//! `keys` and `history`. Within a revision, changes are numbered in the order in which they were made.

use super::auth::Auth;
use super::digest::Chain;
use super::lease::Leases;
use super::places::{Key, Places};
use super::reply::KeyValue;
use super::watch;
use bytes::Bytes;
use imbl::OrdMap;
use quorate_core::machine::Output;
use std::ops::Bound;
use std::sync::Arc;

/// A place in history: the revision, and the number of the change within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) revision: i64,
    pub(super) sub: u64,
}

impl Place {
    /// Where the changes of `revision` begin.
    pub(super) const fn first(revision: i64) -> Self {
        Self { revision, sub: 0 }
    }
}

/// One change of one key: a put, or a tombstone.
#[derive(Debug)]
pub(super) struct Change {
    pub(super) kv: KeyValue,
    /// The number of the change within `kv.mod_revision`.
    pub(super) sub: u64,
}

impl Change {
    pub(super) fn place(&self) -> Place {
        Place { revision: self.kv.mod_revision, sub: self.sub }
    }

    /// Bytes that keeping this change costs, besides the bookkeeping.
    pub(super) fn bytes(&self) -> u64 {
        (self.kv.key.len() as u64).saturating_add(self.kv.value.len() as u64)
    }
}

/// All that is kept of one key.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    /// Whether `newest` is a put; here so that counting keys need not follow the pointer.
    pub(super) live: bool,
    pub(super) newest: Arc<Change>,
    /// Places of the changes before `newest` that are kept, ascending.
    pub(super) older: Option<Arc<Places>>,
}

/// The state. Invariants: every change in `history` is `newest` or in `older` of its key's entry, and the reverse;
/// `compacted` ≤ `revision`; of each key at most one change at or before `compacted` is kept.
#[derive(Clone, Debug)]
pub(super) struct Store {
    /// The present revision. 1 before the first write.
    pub(super) revision: i64,
    /// The revision of the latest compaction: the oldest that can be read. −1 if there was none.
    pub(super) compacted: i64,
    pub(super) keys: OrdMap<Key, Entry>,
    pub(super) history: OrdMap<Place, Arc<Change>>,
    pub(super) leases: Leases,
    pub(super) auth: Arc<Auth>,
    /// The chain over all changes since the beginning.
    pub(super) chain: Chain,
    /// How many keys are live.
    pub(super) live: u64,
    /// Sum of [`Change::bytes`] over `history`.
    pub(super) bytes: u64,
}

/// Where the keys from `key` to `range_end` end, as etcd writes it. `None`: not a range of several keys.
fn end_of<'a>(key: &[u8], range_end: &'a [u8]) -> Option<Bound<&'a [u8]>> {
    match range_end {
        [] => None,
        [0] => Some(Bound::Unbounded),
        end => (key < end).then_some(Bound::Excluded(end)),
    }
}

/// Whether `wanted` is among the keys from `key` to `range_end`.
pub(super) fn contains(key: &[u8], range_end: &[u8], wanted: &[u8]) -> bool {
    match range_end {
        [] => wanted == key,
        [0] => wanted >= key,
        end => key <= wanted && wanted < end,
    }
}

impl Store {
    pub(super) fn new() -> Self {
        Self {
            revision: 1,
            compacted: -1,
            keys: OrdMap::new(),
            history: OrdMap::new(),
            leases: Leases::default(),
            auth: Arc::new(Auth::new()),
            chain: Chain::new(),
            live: 0,
            bytes: 0,
        }
    }

    /// The entries of the keys from `key` to `range_end`, tombstones included, in the order of keys.
    pub(super) fn entries<'a>(&'a self, key: &'a [u8], range_end: &'a [u8]) -> impl Iterator<Item = &'a Entry> + 'a {
        let single = if range_end.is_empty() { self.keys.get::<[u8]>(key) } else { None };
        let many = end_of(key, range_end).map(|end| self.keys.range::<_, [u8]>((Bound::Included(key), end)));
        single.into_iter().chain(many.into_iter().flatten().map(|(_, entry)| entry))
    }

    /// The change that made `key` what it is now, unless it does not exist.
    pub(super) fn current(&self, key: &[u8]) -> Option<&Arc<Change>> {
        self.keys.get::<[u8]>(key).filter(|entry| entry.live).map(|entry| &entry.newest)
    }

    /// The change that made the entry's key what it was at `revision`, unless it did not exist then.
    pub(super) fn at<'a>(&'a self, entry: &'a Entry, revision: i64) -> Option<&'a Arc<Change>> {
        if entry.newest.kv.mod_revision <= revision {
            return entry.live.then_some(&entry.newest);
        }
        let place = entry.older.as_ref()?.last_at(revision)?;
        self.history.get(&place).filter(|change| !change.kv.is_tombstone())
    }

    /// What `key` was just before `revision`; nothing if that has been compacted away.
    pub(super) fn before(&self, key: &[u8], revision: i64) -> Option<&Arc<Change>> {
        let before = revision.saturating_sub(1);
        if before < self.compacted {
            return None;
        }
        self.at(self.keys.get::<[u8]>(key)?, before)
    }

    /// Enters a change of `key` at the end of history and of the key's entry. `change` is made from the key's newest
    /// change until now. One walk down the tree: this is what a put costs.
    pub(super) fn enter(&mut self, key: &Bytes, change: impl FnOnce(Option<&Change>) -> Change) -> Step {
        let step = match self.keys.get_mut::<[u8]>(key.as_ref()) {
            Some(entry) => {
                let change = Arc::new(change(Some(&entry.newest)));
                let previous = std::mem::replace(&mut entry.newest, change.clone());
                Arc::make_mut(entry.older.get_or_insert_default()).push(previous.place());
                let was_live = std::mem::replace(&mut entry.live, !change.kv.is_tombstone());
                self.live = self.live.saturating_sub(u64::from(was_live));
                Step { change, previous: Some(previous) }
            }
            None => {
                let change = Arc::new(change(None));
                let entry = Entry { live: !change.kv.is_tombstone(), newest: change.clone(), older: None };
                self.keys.insert(Key::new(key), entry);
                Step { change, previous: None }
            }
        };
        self.live = self.live.saturating_add(u64::from(!step.change.kv.is_tombstone()));
        self.bytes = self.bytes.saturating_add(step.change.bytes());
        self.history.insert(step.change.place(), step.change.clone());
        step
    }

    /// Forgets, of each key, what is before its last change at or before `revision`; and that one too if it is a
    /// tombstone from before `revision`. A deletion made *at* `revision` is kept: a watch may start there (etcd #19179).
    /// Costs time in the number of changes since the last compaction, not in the number of keys.
    pub(super) fn compact(&mut self, revision: i64) {
        let since = Place::first(self.compacted);
        let end = Place::first(revision.saturating_add(1));
        let touched: Vec<Arc<Change>> = self.history.range(since..end).map(|(_, change)| change.clone()).collect();
        for change in touched {
            self.compact_key(change.kv.key.as_ref(), revision);
        }
        self.compacted = revision;
    }

    fn compact_key(&mut self, key: &[u8], revision: i64) {
        let Some(entry) = self.keys.get_mut::<[u8]>(key) else {
            return;
        };
        let gone_before = |change: &Change| change.kv.is_tombstone() && change.kv.mod_revision < revision;
        if entry.newest.kv.mod_revision <= revision {
            let dropped = entry.older.take();
            let last = if gone_before(&entry.newest) { Some(entry.newest.place()) } else { None };
            if last.is_some() {
                self.keys.remove::<[u8]>(key);
            }
            self.forget(dropped.iter().flat_map(|places| places.iter()).chain(last));
            return;
        }
        let Some(older) = &mut entry.older else { return };
        let Some(last) = older.last_at(revision) else { return };
        let last_is_gone = self.history.get(&last).is_some_and(|change| gone_before(change));
        let keep_from = if last_is_gone { Place { sub: last.sub.saturating_add(1), ..last } } else { last };
        if older.iter().next().is_some_and(|first| first >= keep_from) {
            return; // done already, for another change of this key
        }
        let dropped = Arc::make_mut(older).drop_before(keep_from);
        if older.is_empty() {
            entry.older = None;
        }
        self.forget(dropped.into_iter());
    }

    fn forget(&mut self, places: impl Iterator<Item = Place>) {
        for place in places {
            if let Some(change) = self.history.remove(&place) {
                self.bytes = self.bytes.saturating_sub(change.bytes());
            }
        }
    }
}

/// The writes of one operation: they share one new revision, which exists once there is a first change.
#[derive(Debug)]
pub(super) struct Write<'a> {
    pub(super) store: &'a mut Store,
    steps: Vec<Step>,
}

/// A change, and what was newest of its key until then.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) change: Arc<Change>,
    pub(super) previous: Option<Arc<Change>>,
}

impl<'a> Write<'a> {
    pub(super) fn new(store: &'a mut Store) -> Self {
        Self { store, steps: Vec::new() }
    }

    /// The revision as this operation sees it: the new one as soon as something has changed.
    pub(super) fn revision(&self) -> i64 {
        if self.steps.is_empty() { self.store.revision } else { self.next_revision() }
    }

    fn next_revision(&self) -> i64 {
        self.store.revision.saturating_add(1)
    }

    /// Puts `key`. Answers with what it was before, if it existed.
    pub(super) fn put(&mut self, key: Bytes, value: Bytes, lease: i64) -> Option<Arc<Change>> {
        let place = self.next_place();
        let step = self.store.enter(&key, |newest| {
            let before = newest.map(|change| &change.kv).filter(|kv| !kv.is_tombstone());
            Change {
                kv: KeyValue {
                    key: newest.map_or_else(|| key.clone(), |change| change.kv.key.clone()),
                    create_revision: before.map_or(place.revision, |kv| kv.create_revision),
                    mod_revision: place.revision,
                    version: before.map_or(0, |kv| kv.version).saturating_add(1),
                    value,
                    lease,
                },
                sub: place.sub,
            }
        });
        let before = step.previous.clone().filter(|previous| !previous.kv.is_tombstone());
        let lease_before = before.as_ref().map_or(0, |before| before.kv.lease);
        if lease != lease_before {
            self.store.leases.detach(lease_before, &key);
            self.store.leases.attach(lease, &step.change.kv.key);
        }
        self.steps.push(step);
        before
    }

    /// Deletes the keys from `key` to `range_end`. Answers with what they were before, in the order of keys.
    pub(super) fn delete(&mut self, key: &[u8], range_end: &[u8]) -> Vec<Arc<Change>> {
        let live = self.store.entries(key, range_end).filter(|entry| entry.live);
        let live: Vec<Arc<Change>> = live.map(|entry| entry.newest.clone()).collect();
        for Change { kv: before, .. } in live.iter().map(Arc::as_ref) {
            let Place { revision, sub } = self.next_place();
            let kv = KeyValue { key: before.key.clone(), mod_revision: revision, ..KeyValue::default() };
            let step = self.store.enter(&before.key, |_| Change { kv, sub });
            self.store.leases.detach(before.lease, &before.key);
            self.steps.push(step);
        }
        live
    }

    fn next_place(&self) -> Place {
        Place { revision: self.next_revision(), sub: self.steps.len() as u64 }
    }

    /// Makes the new revision the present one, if there is one: bumps, extends the digest, publishes the event.
    pub(super) fn finish(self, out: &mut Output) {
        if self.steps.is_empty() {
            return;
        }
        self.store.revision = self.next_revision();
        self.store.chain.changes(self.store.revision, &self.steps);
        if out.is_heard() {
            out.event(super::WATCH_TOPIC, watch::batch(self.store, &self.steps));
        }
    }
}
