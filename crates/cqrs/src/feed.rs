//! Events for a query, from any position on.
//!
//! The framework dispatches events to queries after a command, in the process that handled it: a query that is made later has seen
//! nothing, and one whose process dies in between misses an event for ever. A feed reads from the store instead. It brings each event to
//! the query at least once, in the order of the store; the number that it gives back, kept together with what the query made of the events,
//! makes that once.

use crate::store::ReplicatedStore;
use cqrs_es::persist::PersistenceError;
use cqrs_es::{Aggregate, Query};
use quorate::events::{Filter, Item, StoreError};
use std::fmt;

/// Why a feed ends.
#[derive(Debug)]
pub enum FeedError {
    /// The store refuses, or its client is closed. That the cluster is away is no reason: the feed goes on by itself.
    Store(StoreError),
    /// An event that the program cannot read. Leaving it out would be a lie.
    Unreadable {
        /// Its position.
        position: u64,
        /// What is wrong with it.
        why: PersistenceError,
    },
}

impl fmt::Display for FeedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FeedError::Store(error) => error.fmt(f),
            FeedError::Unreadable { position, why } => write!(f, "the event at position {position}: {why}"),
        }
    }
}

impl std::error::Error for FeedError {}

/// Brings the events of all aggregates of a type to a query, from a position on (1: from the first). After each page `keep` is told the
/// position to go on from; the feed ends when it says `false`.
///
/// # Errors
/// [`FeedError`]
pub async fn feed<A: Aggregate>(
    store: &ReplicatedStore<A>,
    query: &dyn Query<A>,
    from: u64,
    mut keep: impl FnMut(u64) -> bool,
) -> Result<(), FeedError> {
    let unreadable = |position| move |why| FeedError::Unreadable { position, why };
    let source = ReplicatedStore::<A>::source().map_err(unreadable(from))?;
    let mut subscription = store.repository().store().subscribe(source, Filter::default(), from);
    loop {
        let next = match subscription.next().await.map_err(FeedError::Store)? {
            Item::Events(events, next) => {
                for event in &events {
                    let envelope = store.recorded(event).map_err(unreadable(event.position))?;
                    let id = envelope.aggregate_id.clone();
                    query.dispatch(&id, &[envelope]).await;
                }
                next
            }
            Item::Passed(next) => next,
            Item::Live => subscription.next_number(),
            Item::Silent(_) | Item::Heard => continue,
        };
        if !keep(next) {
            return Ok(());
        }
    }
}
