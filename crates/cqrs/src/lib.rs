//! The framework [`cqrs_es`] over a replicated event store: its aggregates, commands, upcasters and queries, and events that survive
//! the loss, and under some protocols the lies, of as many replicas as the cluster bears.
//!
//! # What is where
//! The events of an aggregate are a stream, `TYPE-ID`; so all aggregates of a type are a category. Version and sequence are the same
//! number. The event's version and the metadata of the framework are in the event's metadata. `correlation_id` and `causation_id` in the
//! metadata, if they are UUIDs, are the event's own, so that events can be read by them.
//!
//! # Which store
//! - [`ReplicatedStore`] is an [`cqrs_es::EventStore`] with upcasters and snapshots.
//! - [`EventRepository`] is a [`cqrs_es::persist::PersistedEventRepository`]: for `PersistedEventStore::new_event_store`, and for replays.
//!   It refuses the snapshots that `PersistedEventStore` makes, since those of cqrs-es 0.5.0 hold events twice (`repository.rs`).
//! - [`feed()`] brings events to a [`cqrs_es::Query`] from any position on, also those that no running program dispatched.
//!
//! # Conflicts and silence
//! Whoever appends to an aggregate that somebody else has changed since it was loaded gets `AggregateConflict`, and nothing was
//! changed. An append that gets no answer is sent again with the same ids, so it is done once; if there is still no answer the error is a
//! `DatabaseConnectionError`, whose text says whether the events may be there.

mod event;
mod feed;
mod repository;
mod store;

pub use feed::{FeedError, feed};
pub use repository::EventRepository;
pub use store::{Context, ReplicatedStore};
