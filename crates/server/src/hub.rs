//! The events of the store, once for all who watch through this gateway.
//!
//! One task follows the cluster's stream of events, as long as anybody is interested, and keeps what happened lately. The
//! stream is one replica's where replicas do not lie; otherwise it has what enough of them have told alike
//! ([`quorate_core::protocol::Protocol::vouch`]). It is checked against revisions: each revision has exactly one batch, so a
//! gap shows at the next one, and is read from history, linearizably. While the stream is silent the cluster is asked once a
//! second whether something was missed, so that replicas that are cut off from the others delay events and lose none.
//!
//! Whoever watches reads at its own pace, by revision: from what is kept here, and beyond that from history. Nobody
//! waits for a slow watcher, and a slow watcher loses nothing (etcd #17529).

use crate::errors::EtcdError;
use crate::limits::{RECENT_BYTES_MAX, RECENT_REVISIONS_MAX, WATCH_RESPONSE_BYTES_SOFT_MAX};
use crate::store::Store;
use bytes::Bytes;
use quorate_core::wire::Wire as _;
use quorate_machines::kv::{Event, Events, KeyValue, KvError, WATCH_TOPIC, WatchBatch};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Silence of the stream after which the cluster is asked whether something was missed.
const QUIET: Duration = Duration::from_secs(1);
/// Between two attempts to follow.
const RETRY: Duration = Duration::from_millis(250);
/// How much of history is read at a time, to catch up.
const EVENTS_AT_A_TIME: u64 = 1_000;

/// How far the gateway has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// The last revision; 0 before the first look.
    pub revision: i64,
    /// Whether the cluster has not answered for longer than a call may take.
    pub lost: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Hub {
    store: Arc<Store>,
    recent: Mutex<Recent>,
    seen: watch::Sender<Seen>,
    interested: watch::Sender<usize>,
    watches: AtomicUsize,
}

/// Batches of consecutive revisions; the last is that of [`Seen::revision`], if there is any.
#[derive(Debug, Default)]
struct Recent {
    batches: VecDeque<WatchBatch>,
    bytes: usize,
}

/// What was read of the events of interest.
#[derive(Debug, Default)]
pub struct Found {
    /// Whole revisions, ascending.
    pub batches: Vec<WatchBatch>,
    /// Where to go on.
    pub next: i64,
}

/// Keeps the hub following as long as it lives.
#[derive(Debug)]
pub struct Interest {
    hub: Arc<Hub>,
}

impl Drop for Interest {
    fn drop(&mut self) {
        self.hub.interested.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Hub {
    /// A hub; [`Hub::run`] is to be spawned.
    pub fn new(store: Arc<Store>) -> Arc<Self> {
        Arc::new(Self {
            store,
            recent: Mutex::default(),
            seen: watch::Sender::default(),
            interested: watch::Sender::new(0),
            watches: AtomicUsize::new(0),
        })
    }

    /// Says that somebody watches.
    pub fn join(self: &Arc<Self>) -> (Interest, watch::Receiver<Seen>) {
        self.interested.send_modify(|count| *count = count.saturating_add(1));
        (Interest { hub: self.clone() }, self.seen.subscribe())
    }

    /// How many watches there are, for the metrics.
    pub fn watches(&self) -> &AtomicUsize {
        &self.watches
    }

    /// Streams that are interested, for the metrics.
    pub fn streams(&self) -> usize {
        *self.interested.borrow()
    }

    /// Events of interest from `next` on: some of them, in whole revisions. `found.next` beyond what is [`Seen`]: all.
    ///
    /// # Errors
    /// [`KvError::Compacted`], or that the cluster does not answer.
    pub async fn read(&self, interest: &Events, next: i64) -> Result<Found, EtcdError> {
        if let Some(found) = self.recent().read(interest, next) {
            return Ok(found);
        }
        self.history(interest.clone(), next).await
    }

    async fn history(&self, interest: Events, next: i64) -> Result<Found, EtcdError> {
        self.store.events_from(Events { from_revision: next, limit: EVENTS_AT_A_TIME, ..interest }).await
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows the cluster whenever somebody is interested. Never ends.
    pub async fn run(self: Arc<Self>) {
        let mut interested = self.interested.subscribe();
        loop {
            if interested.wait_for(|count| *count > 0).await.is_err() {
                return;
            }
            let followed = tokio::select! {
                followed = self.follow() => followed,
                _ = interested.wait_for(|count| *count == 0) => {
                    *self.recent() = Recent::default(); // what happens until somebody comes again is not seen
                    self.seen.send_replace(Seen::default());
                    continue;
                }
            };
            if followed.is_err() {
                self.seen.send_if_modified(|seen| !std::mem::replace(&mut seen.lost, true));
                tokio::time::sleep(RETRY).await;
            }
        }
    }

    /// Follows the stream until it ends or has missed something.
    async fn follow(&self) -> Result<(), EtcdError> {
        let mut stream = self.store.events().watch(WATCH_TOPIC).await?;
        // What is applied from here on is in the stream; what came before is in history.
        self.catch_up().await?;
        loop {
            match tokio::time::timeout(QUIET, stream.recv()).await {
                Ok(None) => return Ok(()),
                Ok(Some(events)) => {
                    self.take(events.into_iter().map(|event| event.bytes)).await?;
                    self.take_ready(&mut stream).await?;
                }
                Err(_) if self.catch_up().await? => return Ok(()), // it does not tell all: try others
                Err(_) => {}
            }
        }
    }

    async fn take_ready(
        &self,
        stream: &mut mpsc::Receiver<Vec<quorate_core::sessions::Event>>,
    ) -> Result<(), EtcdError> {
        while let Ok(events) = stream.try_recv() {
            self.take(events.into_iter().map(|event| event.bytes)).await?;
        }
        Ok(())
    }

    async fn take(&self, batches: impl Iterator<Item = Bytes>) -> Result<(), EtcdError> {
        for bytes in batches {
            let batch = WatchBatch::decode(&bytes).map_err(|_| EtcdError::Strange)?;
            let next = self.seen.borrow().revision.saturating_add(1);
            if batch.revision == next && !batch.events.is_empty() {
                self.push(batch);
            } else if batch.revision >= next {
                self.catch_up().await?;
            }
        }
        Ok(())
    }

    /// Reads from history what has not been seen. Whether there was anything.
    async fn catch_up(&self) -> Result<bool, EtcdError> {
        let mut missed = false;
        loop {
            let last = self.seen.borrow().revision;
            if last == 0 {
                let revision = self.store.status().await?.revision;
                self.seen.send_replace(Seen { revision, lost: false });
                return Ok(false);
            }
            let all = Bytes::from_static(&[0]);
            let all = Events { key: all.clone(), range_end: all, prev_kv: true, ..Events::default() };
            let next = last.saturating_add(1);
            match self.history(all, next).await {
                Ok(found) if found.batches.is_empty() => {
                    self.seen.send_if_modified(|seen| std::mem::replace(&mut seen.lost, false));
                    return Ok(missed);
                }
                Ok(found) => {
                    missed = true;
                    found.batches.into_iter().for_each(|batch| self.push(batch));
                }
                Err(EtcdError::Kv(KvError::Compacted { .. } | KvError::ReplyTooLarge)) => {
                    *self.recent() = Recent::default(); // each watcher reads for itself what is left, or what it wants of it
                    self.seen.send_modify(|seen| seen.revision = 0);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The next revision has happened.
    fn push(&self, batch: WatchBatch) {
        let revision = batch.revision;
        self.recent().push(batch);
        self.seen.send_replace(Seen { revision, lost: false });
    }
}

impl Recent {
    fn push(&mut self, batch: WatchBatch) {
        if self.batches.back().is_some_and(|last| last.revision.saturating_add(1) != batch.revision) {
            *self = Self::default();
        }
        self.bytes = self.bytes.saturating_add(size(&batch.events));
        self.batches.push_back(batch);
        while self.batches.len() > RECENT_REVISIONS_MAX || self.bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.batches.pop_front() else { break };
            self.bytes = self.bytes.saturating_sub(size(&oldest.events));
        }
    }

    /// `None` if it was too long ago, or is not there yet.
    fn read(&self, interest: &Events, next: i64) -> Option<Found> {
        let first = self.batches.front()?.revision;
        let skip = usize::try_from(next.checked_sub(first)?).ok().filter(|skip| *skip < self.batches.len())?;
        let (mut found, mut bytes) = (Found { batches: Vec::new(), next }, 0_usize);
        for batch in self.batches.range(skip..) {
            if bytes >= WATCH_RESPONSE_BYTES_SOFT_MAX {
                break;
            }
            found.next = batch.revision.saturating_add(1);
            let wanted = batch.events.iter().filter(|event| interest.wants(event.kind, &event.kv.key));
            let events: Vec<Event> = wanted.map(|event| shown(event, interest.prev_kv)).collect();
            if !events.is_empty() {
                bytes = bytes.saturating_add(size(&events));
                found.batches.push(WatchBatch { revision: batch.revision, events });
            }
        }
        Some(found)
    }
}

fn shown(event: &Event, prev_kv: bool) -> Event {
    let prev_kv = if prev_kv { event.prev_kv.clone() } else { None };
    Event { kind: event.kind, kv: event.kv.clone(), prev_kv }
}

/// Bytes of keys and values.
pub fn size(events: &[Event]) -> usize {
    let kvs = events.iter().flat_map(|event| std::iter::once(&event.kv).chain(&event.prev_kv));
    kvs.fold(0, |sum: usize, kv| sum.saturating_add(kv_size(kv)))
}

/// Bytes of a key and its value.
pub fn kv_size(kv: &KeyValue) -> usize {
    kv.key.len().saturating_add(kv.value.len())
}

/// How many there are, counted as long as they live.
#[derive(Debug)]
pub struct Counted {
    hub: Arc<Hub>,
}

impl Counted {
    /// One more.
    pub fn new(hub: &Arc<Hub>) -> Self {
        hub.watches.fetch_add(1, Ordering::Relaxed);
        Self { hub: hub.clone() }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.hub.watches.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_machines::kv::EventKind;

    fn put(revision: i64, key: &'static str, value_bytes: usize) -> WatchBatch {
        let kv = KeyValue {
            key: Bytes::from_static(key.as_bytes()),
            value: vec![0; value_bytes].into(),
            mod_revision: revision,
            version: 1,
            ..KeyValue::default()
        };
        WatchBatch { revision, events: vec![Event { kind: EventKind::Put, kv, prev_kv: None }] }
    }

    fn key(key: &'static str) -> Events {
        Events { key: Bytes::from_static(key.as_bytes()), ..Events::default() }
    }

    #[test]
    fn what_happened_lately_is_read_from_any_revision_in_it_and_from_no_other() {
        let mut recent = Recent::default();
        for (revision, name) in [(5, "a"), (6, "b"), (7, "a")] {
            recent.push(put(revision, name, 1));
        }
        let read = |next| recent.read(&key("a"), next);
        let revisions = |found: &Found| found.batches.iter().map(|batch| batch.revision).collect::<Vec<_>>();
        assert_eq!(read(5).map(|found| (revisions(&found), found.next)), Some((vec![5, 7], 8)));
        assert_eq!(read(6).map(|found| (revisions(&found), found.next)), Some((vec![7], 8)));
        assert!(read(4).is_none(), "too long ago");
        assert!(read(8).is_none(), "not there yet");
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_in_revisions() {
        let mut recent = Recent::default();
        (0..40).for_each(|revision| recent.push(put(revision, "k", 1 << 20)));
        assert!(recent.bytes <= RECENT_BYTES_MAX, "{} bytes", recent.bytes);
        assert!(!recent.batches.is_empty());
        let mut recent = Recent::default();
        (0..10_000).for_each(|revision| recent.push(put(revision, "k", 0)));
        assert_eq!(recent.batches.len(), RECENT_REVISIONS_MAX);
    }

    #[test]
    fn a_gap_empties_what_is_kept_for_all_of_it_is_consecutive() {
        let mut recent = Recent::default();
        recent.push(put(5, "k", 1));
        recent.push(put(9, "k", 1));
        assert!(recent.read(&key("k"), 5).is_none());
        assert_eq!(recent.read(&key("k"), 9).map(|found| found.next), Some(10));
    }

    #[test]
    fn a_long_answer_ends_with_a_whole_revision() {
        let mut recent = Recent::default();
        (1..=4).for_each(|revision| recent.push(put(revision, "k", WATCH_RESPONSE_BYTES_SOFT_MAX / 2)));
        let found = recent.read(&key("k"), 1).expect("it is recent");
        assert_eq!((found.batches.len(), found.next), (2, 3));
    }
}
