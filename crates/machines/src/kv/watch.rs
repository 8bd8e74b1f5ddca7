//! Events: the changes of each revision, as they happen and read back from history.
//!
//! What a watcher may count on: batches come in the order of revisions, each revision once and whole, and what is read
//! back by [`events`] equals what was published, except that a `prev_kv` may have been compacted away since.

use super::error::KvError;
use super::limits::{EVENT_BYTES_MAX, EVENTS_BYTES_SOFT_MAX, EVENTS_MAX, EVENTS_SCANNED_SOFT_MAX};
use super::limits::{KEY_OVERHEAD_BYTES, REPLY_BYTES_MAX};
use super::operation::Events;
use super::reply::{Event, EventKind, EventsPart, EventsResponse, KeyValue, WatchBatch};
use super::store::{Change, Place, Step, Store, contains};
use borsh::BorshSerialize;

/// A [`WatchBatch`] that borrows, so that publishing copies each value once.
#[derive(BorshSerialize)]
struct Batch<'a> {
    revision: i64,
    events: Vec<BatchEvent<'a>>,
}

/// An [`Event`] that borrows.
#[derive(BorshSerialize)]
struct BatchEvent<'a> {
    kind: EventKind,
    kv: &'a KeyValue,
    prev_kv: Option<&'a KeyValue>,
}

/// The bytes of the [`WatchBatch`] of the present revision.
pub(super) fn batch(store: &Store, steps: &[Step]) -> Vec<u8> {
    let events: Vec<_> = steps.iter().map(|step| batch_event(store, step)).collect();
    let sizes = events.iter().map(|event| size(event.kv).saturating_add(event.prev_kv.map_or(0, size)));
    let mut bytes = Vec::with_capacity(sizes.fold(16, |sum, size| sum.saturating_add(size).saturating_add(96)));
    write_batch(&Batch { revision: store.revision, events }, &mut bytes);
    if bytes.len() > EVENT_BYTES_MAX {
        bytes.clear();
        write_batch(&Batch { revision: store.revision, events: Vec::new() }, &mut bytes);
    }
    bytes
}

fn write_batch(batch: &Batch<'_>, bytes: &mut Vec<u8>) {
    let written = batch.serialize(bytes);
    assert!(
        written.is_ok(),
        "memory takes all bytes; keys and values are shorter than 4 GiB, a revision has fewer changes"
    );
}

/// A key that changed twice in this revision has in both events what it was at the revision before, as in etcd.
fn batch_event<'a>(store: &'a Store, step: &'a Step) -> BatchEvent<'a> {
    let kv = &step.change.kv;
    let prev_kv = match &step.previous {
        Some(previous) if previous.kv.mod_revision == kv.mod_revision => store.before(&kv.key, kv.mod_revision),
        previous => previous.as_ref().filter(|previous| !previous.kv.is_tombstone()),
    };
    BatchEvent { kind: kind(kv), kv, prev_kv: prev_kv.map(|before| &before.kv) }
}

fn kind(kv: &KeyValue) -> EventKind {
    if kv.is_tombstone() { EventKind::Delete } else { EventKind::Put }
}

/// Reads events back from history, in whole revisions.
pub(super) fn events(store: &Store, query: &Events) -> Result<EventsResponse, KvError> {
    let EventsPart { batches, next_revision, .. } = read(store, query, 0, Cut::BetweenRevisions)?;
    Ok(EventsResponse { batches, next_revision })
}

/// Reads events back from history, perhaps less than a revision of them.
pub(super) fn part(store: &Store, query: &Events, from_change: u64) -> Result<EventsPart, KvError> {
    read(store, query, from_change, Cut::Anywhere)
}

/// Where an answer that is large enough may end.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Cut {
    /// Before the next revision; a revision beyond [`REPLY_BYTES_MAX`] is refused.
    BetweenRevisions,
    /// Before the next change.
    Anywhere,
}

fn read(store: &Store, query: &Events, from_change: u64, cut: Cut) -> Result<EventsPart, KvError> {
    let beyond = store.revision.saturating_add(1);
    if query.from_revision <= 0 {
        return Ok(EventsPart { next_revision: beyond, ..EventsPart::default() });
    }
    if query.from_revision < store.compacted {
        return Err(KvError::Compacted { compact_revision: store.compacted });
    }
    let limit = if query.limit == 0 { EVENTS_MAX } else { query.limit };
    let mut batches: Vec<WatchBatch> = Vec::new();
    let (mut found, mut bytes, mut scanned, mut at) = (0_u64, 0_usize, 0_usize, query.from_revision);
    let start = Place { revision: query.from_revision, sub: from_change };
    for (place, change) in store.history.range(start..) {
        let full = found >= limit || bytes >= EVENTS_BYTES_SOFT_MAX || scanned >= EVENTS_SCANNED_SOFT_MAX;
        if full && (place.revision != at || cut == Cut::Anywhere) {
            return Ok(EventsPart { batches, next_revision: place.revision, next_change: place.sub });
        }
        at = place.revision;
        scanned = scanned.saturating_add(1);
        let Some(event) = event(store, query, change) else {
            continue;
        };
        found = found.saturating_add(1);
        bytes = bytes.saturating_add(size(&event.kv)).saturating_add(event.prev_kv.as_ref().map_or(0, size));
        bytes = bytes.saturating_add(KEY_OVERHEAD_BYTES);
        if bytes > REPLY_BYTES_MAX {
            return Err(KvError::ReplyTooLarge);
        }
        match batches.last_mut().filter(|batch| batch.revision == at) {
            Some(batch) => batch.events.push(event),
            None => batches.push(WatchBatch { revision: at, events: vec![event] }),
        }
    }
    Ok(EventsPart { batches, next_revision: query.from_revision.max(beyond), next_change: 0 })
}

impl Events {
    /// Whether what was done to `key` is an event to the asker, at whatever revision.
    pub fn wants(&self, kind: EventKind, key: &[u8]) -> bool {
        let first: &[u8] = if self.key.is_empty() { &[0] } else { &self.key };
        let filtered = match kind {
            EventKind::Put => self.no_put,
            EventKind::Delete => self.no_delete,
        };
        !filtered && contains(first, &self.range_end, key)
    }
}

/// The event that a change is to the asker, if it is one.
fn event(store: &Store, query: &Events, change: &Change) -> Option<Event> {
    let kv = &change.kv;
    let kind = kind(kv);
    if !query.wants(kind, &kv.key) {
        return None;
    }
    let before = if query.prev_kv { store.before(&kv.key, kv.mod_revision) } else { None };
    Some(Event { kind, kv: kv.clone(), prev_kv: before.map(|before| before.kv.clone()) })
}

fn size(kv: &KeyValue) -> usize {
    kv.key.len().saturating_add(kv.value.len())
}
