//! The framework's repository of events over the replicated store.
//!
//! # Snapshots
//! A `PersistedEventStore` that keeps snapshots hands [`PersistedEventRepository::persist`] an aggregate to keep. In cqrs-es 0.5.0 that one
//! has had the events of the command applied twice: `EventSink::write` applies each when the command is handled, and the commit applies
//! them again. A balance would be wrong, silently, for ever. So this repository refuses them with a sentence; [`crate::ReplicatedStore`]
//! makes snapshots of what it has read back.

use crate::event::{category, failed, new_event, serialized, stream, wrong};
use cqrs_es::Aggregate;
use cqrs_es::persist::{
    PersistedEventRepository, PersistenceError, ReplayFeed, ReplayStream, SerializedEvent, SerializedSnapshot,
};
use quorate::events::{Append, EventStore, Expected, Operation, Read, Recorded, Source, StoreError, Write};
use serde_json::Value;

/// Events that a replay holds for a slow reader.
const REPLAYED_MAX: usize = 256;
/// How often an append that gets no answer is sent.
const ATTEMPTS_MAX: usize = 3;

/// The events of all aggregates, in a replicated store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct EventRepository {
    store: EventStore,
}

impl EventRepository {
    /// Over a client of an event store.
    pub fn new(store: EventStore) -> Self {
        Self { store }
    }

    /// The store.
    pub fn store(&self) -> &EventStore {
        &self.store
    }

    /// The events of an aggregate after a version, each believed by the protocol's rule.
    pub(crate) async fn after<A: Aggregate>(
        &self,
        id: &str,
        version: u64,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        let (mut events, mut last) = (Vec::new(), version);
        let mut read = Read { source: Source::Stream(stream::<A>(id)?), ..Read::default() };
        loop {
            read.from = last.saturating_add(1);
            let page = self.store.read(read.clone()).await.map_err(failed)?;
            for event in &page.events {
                last = follows(event, last)?;
                events.push(serialized::<A>(event)?);
            }
            // Versions have no gaps: what lies behind the last one was hidden.
            if page.next > last.saturating_add(1) {
                return Err(hidden(&read.source, last));
            }
            if page.end {
                return Ok(events);
            }
        }
    }

    /// Appends the events of one command, once, if the aggregate is where the first of them says; and what else is to be written
    /// with them, all or nothing.
    pub(crate) async fn append<A: Aggregate>(&self, events: &[SerializedEvent]) -> Result<(), PersistenceError> {
        let Some(first) = events.first() else { return Ok(()) };
        let before = u64::try_from(first.sequence).ok().and_then(|first| first.checked_sub(1));
        let before = before.ok_or_else(|| wrong("the sequence of events begins with 1"))?;
        for (event, sequence) in events.iter().zip(first.sequence..) {
            if event.sequence != sequence || event.aggregate_id != first.aggregate_id {
                return Err(PersistenceError::OptimisticLockError); // what the framework's other repositories say
            }
        }
        let new = events.iter().map(new_event).collect::<Result<Vec<_>, _>>()?;
        let stream = stream::<A>(&first.aggregate_id)?;
        self.persist_all(Append { writes: vec![Write { stream, expected: Expected::Exact(before), events: new }] })
            .await
    }

    /// Appends; what gets no answer is sent again with the same ids, and so done once.
    pub(crate) async fn persist_all(&self, append: Append) -> Result<(), PersistenceError> {
        let operation = Operation::Append(append);
        let mut attempt = 1;
        loop {
            let appended = match self.store.apply(&operation).await {
                Ok(reply) => reply.appended().map_err(StoreError::from),
                Err(error) => Err(error),
            };
            match appended {
                Err(error) if error.is_worth_a_retry() && attempt < ATTEMPTS_MAX => attempt += 1,
                other => return other.map(drop).map_err(failed),
            }
        }
    }

    /// Tells a replay of a source from its beginning to its present end.
    async fn tell<A: Aggregate>(self, source: Source, mut feed: ReplayFeed) -> Result<(), PersistenceError> {
        let mut read = Read { source, from: 1, ..Read::default() };
        loop {
            let page = match self.store.read(read.clone()).await {
                Ok(page) => page,
                Err(error) => return feed.push(Err(failed(error))).await, // a replay that ended silently would look whole
            };
            for event in &page.events {
                feed.push(serialized::<A>(event)).await?;
            }
            if page.end {
                return Ok(());
            }
            read.from = page.next;
        }
    }

    fn replay<A: Aggregate>(&self, source: Source) -> ReplayStream {
        let (feed, stream) = ReplayStream::new(REPLAYED_MAX);
        let repository = self.clone();
        tokio::spawn(async move { repository.tell::<A>(source, feed).await });
        stream
    }
}

/// The version of an event that must be the next.
fn follows(event: &Recorded, last: u64) -> Result<u64, PersistenceError> {
    if event.version == last.saturating_add(1) {
        return Ok(event.version);
    }
    Err(hidden(&Source::Stream(event.stream.clone()), last))
}

fn hidden(source: &Source, version: u64) -> PersistenceError {
    wrong(format!("events of {source:?} after version {version} are hidden: the rest would make another state"))
}

impl PersistedEventRepository for EventRepository {
    async fn get_events<A: Aggregate>(&self, aggregate_id: &str) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.after::<A>(aggregate_id, 0).await
    }

    async fn get_last_events<A: Aggregate>(
        &self,
        aggregate_id: &str,
        last_sequence: usize,
    ) -> Result<Vec<SerializedEvent>, PersistenceError> {
        self.after::<A>(aggregate_id, last_sequence as u64).await
    }

    async fn get_snapshot<A: Aggregate>(&self, _: &str) -> Result<Option<SerializedSnapshot>, PersistenceError> {
        Ok(None)
    }

    async fn persist<A: Aggregate>(
        &self,
        events: &[SerializedEvent],
        snapshot_update: Option<(String, Value, usize)>,
    ) -> Result<(), PersistenceError> {
        if snapshot_update.is_some() {
            return Err(wrong("snapshots of PersistedEventStore hold events twice: use quorate_cqrs::ReplicatedStore"));
        }
        self.append::<A>(events).await
    }

    async fn stream_events<A: Aggregate>(&self, aggregate_id: &str) -> Result<ReplayStream, PersistenceError> {
        Ok(self.replay::<A>(Source::Stream(stream::<A>(aggregate_id)?)))
    }

    async fn stream_all_events<A: Aggregate>(&self) -> Result<ReplayStream, PersistenceError> {
        Ok(self.replay::<A>(Source::Category(category::<A>()?.to_owned())))
    }
}
