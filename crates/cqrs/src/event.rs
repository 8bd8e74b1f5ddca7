//! An event of the framework as one of the store, and back.

use cqrs_es::Aggregate;
use cqrs_es::persist::{PersistenceError, SerializedEvent};
use quorate::events::{EventId, NewEvent, Recorded, StoreError, draw_id};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;

/// What stands between a type and an id in the name of a stream.
const SEPARATOR: char = '-';

/// What the metadata of an event holds.
#[derive(Serialize, Deserialize)]
struct Metadata<'a> {
    /// The version of the event's type, which upcasters look at.
    event_version: Cow<'a, str>,
    metadata: Cow<'a, Value>,
}

/// Anything that went wrong, in words.
#[derive(Debug)]
struct Words(String);

impl std::fmt::Display for Words {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Words {}

/// An error that no retry helps against.
pub fn wrong(words: impl Into<String>) -> PersistenceError {
    PersistenceError::UnknownError(Box::new(Words(words.into())))
}

/// A refusal of the store, or its silence.
pub fn failed(error: StoreError) -> PersistenceError {
    use quorate::events::EventsError::{NoStream, WrongVersion};
    match error {
        StoreError::Refused(WrongVersion { .. } | NoStream { .. }) => PersistenceError::OptimisticLockError,
        StoreError::Refused(error) => PersistenceError::UnknownError(Box::new(error)),
        StoreError::Client(error) => PersistenceError::ConnectionError(Box::new(error)),
    }
}

/// The category of all aggregates of a type.
pub fn category<A: Aggregate>() -> Result<&'static str, PersistenceError> {
    if A::TYPE.is_empty() || A::TYPE.contains(SEPARATOR) {
        return Err(wrong(format!(
            "the TYPE of an aggregate, `{}`, must not be empty or have a `{SEPARATOR}`",
            A::TYPE
        )));
    }
    Ok(A::TYPE)
}

/// The stream of an aggregate.
pub fn stream<A: Aggregate>(id: &str) -> Result<String, PersistenceError> {
    Ok(format!("{}{SEPARATOR}{id}", category::<A>()?))
}

/// An event that is to be appended, with an id of its own.
pub fn new_event(event: &SerializedEvent) -> Result<NewEvent, PersistenceError> {
    let named = |name: &str| event.metadata.get(name).and_then(Value::as_str).and_then(|it| it.parse::<EventId>().ok());
    let metadata =
        Metadata { event_version: Cow::Borrowed(&event.event_version), metadata: Cow::Borrowed(&event.metadata) };
    Ok(NewEvent {
        id: draw_id(),
        kind: event.event_type.clone(),
        data: serde_json::to_vec(&event.payload)?.into(),
        metadata: serde_json::to_vec(&metadata)?.into(),
        correlation: named("correlation_id"),
        causation: named("causation_id"),
    })
}

/// An event that was read.
pub fn serialized<A: Aggregate>(event: &Recorded) -> Result<SerializedEvent, PersistenceError> {
    let id = event.stream.split_once(SEPARATOR).map_or("", |(_, id)| id);
    let metadata: Metadata<'_> = serde_json::from_slice(&event.metadata)?;
    Ok(SerializedEvent::new(
        id.to_owned(),
        usize::try_from(event.version).unwrap_or(usize::MAX),
        A::TYPE.to_owned(),
        event.kind.clone(),
        metadata.event_version.into_owned(),
        serde_json::from_slice(&event.data)?,
        metadata.metadata.into_owned(),
    ))
}
