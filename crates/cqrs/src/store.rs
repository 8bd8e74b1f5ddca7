//! The framework's event store, with upcasters and snapshots.
//!
//! A snapshot is an event of a stream of its own, `snapshot.TYPE-ID`, that holds the aggregate and its version. It saves reading, and no
//! more: one that is missing, or that the present program cannot read, only makes loading slower. It is made of what was read back after
//! a command, so it holds what every reader would have seen; the ones before it are hidden.

use crate::event::{category, serialized, stream, wrong};
use crate::repository::EventRepository;
use cqrs_es::persist::{EventUpcaster, PersistenceError, SerializedEvent};
use cqrs_es::{Aggregate, AggregateContext, AggregateError, EventEnvelope, EventStore};
use quorate::events::{Append, Expected, NewEvent, Operation, Read, Source, draw_id};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::marker::PhantomData;
use std::num::NonZeroU64;
use std::sync::Arc;

/// An aggregate as it was loaded.
#[derive(Debug)]
pub struct Context<A> {
    id: String,
    aggregate: A,
    /// How many events have happened to it.
    version: u64,
}

impl<A: Aggregate> AggregateContext<A> for Context<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.aggregate
    }
}

#[derive(Serialize, Deserialize)]
struct Snapshot<A> {
    version: u64,
    aggregate: A,
}

/// A borrowed [`Snapshot`]: the same bytes.
#[derive(Serialize)]
struct SnapshotRef<'a, A> {
    version: u64,
    aggregate: &'a A,
}

/// The events of the aggregates of a type, in a replicated store. Cheap to clone.
pub struct ReplicatedStore<A> {
    repository: EventRepository,
    upcasters: Arc<Vec<Box<dyn EventUpcaster>>>,
    snapshot_every: Option<NonZeroU64>,
    of: PhantomData<fn() -> A>,
}

impl<A> Clone for ReplicatedStore<A> {
    fn clone(&self) -> Self {
        let Self { repository, upcasters, snapshot_every, of } = self;
        Self { repository: repository.clone(), upcasters: upcasters.clone(), snapshot_every: *snapshot_every, of: *of }
    }
}

impl<A> fmt::Debug for ReplicatedStore<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplicatedStore").field("snapshot_every", &self.snapshot_every).finish_non_exhaustive()
    }
}

impl<A: Aggregate> ReplicatedStore<A> {
    /// Over a client of an event store.
    pub fn new(store: quorate::events::EventStore) -> Self {
        Self {
            repository: EventRepository::new(store),
            upcasters: Arc::default(),
            snapshot_every: None,
            of: PhantomData,
        }
    }

    /// With functions that make old forms of events new ones, in the order in which they are tried.
    #[must_use]
    pub fn with_upcasters(mut self, upcasters: Vec<Box<dyn EventUpcaster>>) -> Self {
        self.upcasters = Arc::new(upcasters);
        self
    }

    /// With a snapshot of an aggregate after each so many of its events.
    #[must_use]
    pub fn with_snapshot_every(mut self, events: NonZeroU64) -> Self {
        self.snapshot_every = Some(events);
        self
    }

    /// The events as the present program knows them.
    pub(crate) fn envelopes(&self, events: Vec<SerializedEvent>) -> Result<Vec<EventEnvelope<A>>, PersistenceError> {
        events.into_iter().map(|event| self.envelope(event)).collect()
    }

    fn envelope(&self, event: SerializedEvent) -> Result<EventEnvelope<A>, PersistenceError> {
        let upcast = |event: SerializedEvent, upcaster: &dyn EventUpcaster| {
            let applies = upcaster.can_upcast(&event.event_type, &event.event_version);
            if applies { upcaster.upcast(event) } else { event }
        };
        self.upcasters.iter().map(|upcaster| &**upcaster).fold(event, upcast).try_into()
    }

    /// The same for an event that was read.
    pub(crate) fn recorded(&self, event: &quorate::events::Recorded) -> Result<EventEnvelope<A>, PersistenceError> {
        self.envelope(serialized::<A>(event)?)
    }

    /// The source of all events of the type.
    pub(crate) fn source() -> Result<Source, PersistenceError> {
        Ok(Source::Category(category::<A>()?.to_owned()))
    }

    pub(crate) fn repository(&self) -> &EventRepository {
        &self.repository
    }

    async fn load(&self, id: &str) -> Result<Context<A>, PersistenceError> {
        let kept = if self.snapshot_every.is_some() { self.snapshot(id).await? } else { None };
        let Snapshot { version, aggregate } = kept.unwrap_or_else(|| Snapshot { version: 0, aggregate: A::default() });
        let mut context = Context { id: id.to_owned(), aggregate, version };
        for envelope in self.envelopes(self.repository.after::<A>(id, version).await?)? {
            context.version = envelope.sequence as u64;
            context.aggregate.apply(envelope.payload);
        }
        Ok(context)
    }

    /// The last snapshot; `None` if there is none, or it is of another form of the aggregate.
    async fn snapshot(&self, id: &str) -> Result<Option<Snapshot<A>>, PersistenceError> {
        let source = Source::Stream(snapshots::<A>(id)?);
        let last = Read { source, from: u64::MAX, backwards: true, limit: 1, ..Read::default() };
        let page = self.repository.store().read(last).await.map_err(crate::event::failed)?;
        Ok(page.events.first().and_then(|event| serde_json::from_slice(&event.data).ok()))
    }

    /// Keeps a snapshot of an aggregate as everybody sees it. Its events are safe already: an error costs time at the next load, and
    /// nothing else.
    async fn keep(&self, id: &str) -> Result<(), PersistenceError> {
        let context = self.load(id).await?;
        let stream = snapshots::<A>(id)?;
        let snapshot = SnapshotRef { version: context.version, aggregate: &context.aggregate };
        let data = serde_json::to_vec(&snapshot)?.into();
        let event = NewEvent { id: draw_id(), kind: "snapshot".to_owned(), data, ..NewEvent::default() };
        let append = Append::to(stream.clone(), Expected::Any, vec![event]);
        let reply = self.repository.store().append_all(append).await.map_err(crate::event::failed)?;
        let before = reply.writes.first().map_or(0, |write| write.version);
        let hide = Operation::Truncate { stream, before };
        self.repository.store().apply(&hide).await.map_err(crate::event::failed)?;
        Ok(())
    }
}

/// The stream of an aggregate's snapshots. Its category is not the aggregate's.
fn snapshots<A: Aggregate>(id: &str) -> Result<String, PersistenceError> {
    Ok(format!("snapshot.{}", stream::<A>(id)?))
}

impl<A: Aggregate> EventStore<A> for ReplicatedStore<A> {
    type AC = Context<A>;

    async fn load_events(&self, aggregate_id: &str) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        Ok(self.envelopes(self.repository.after::<A>(aggregate_id, 0).await?)?)
    }

    async fn load_aggregate(&self, aggregate_id: &str) -> Result<Context<A>, AggregateError<A::Error>> {
        Ok(self.load(aggregate_id).await?)
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: Context<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let Context { id, version, .. } = context;
        let first = usize::try_from(version).ok().and_then(|version| version.checked_add(1));
        let first = first.ok_or_else(|| wrong("the aggregate has more events than this machine can count"))?;
        let envelopes: Vec<EventEnvelope<A>> = (first..)
            .zip(events)
            .map(|(sequence, payload)| EventEnvelope {
                aggregate_id: id.clone(),
                sequence,
                payload,
                metadata: metadata.clone(),
            })
            .collect();
        let serialized = envelopes.iter().map(SerializedEvent::try_from).collect::<Result<Vec<_>, _>>()?;
        self.repository.append::<A>(&serialized).await?;
        let last = version.saturating_add(envelopes.len() as u64);
        if self.snapshot_every.is_some_and(|every| last / every > version / every) {
            let _only_slower_without = self.keep(&id).await;
        }
        Ok(envelopes)
    }
}
