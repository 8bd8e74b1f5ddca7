//! Appending, hiding and freeing.
//!
//! # Idempotence
//! An append is judged as a whole, by the ids of its events within their streams:
//! - none is known: it is *fresh*, and every stream must be where it is expected;
//! - all are known, each stream's at consecutive versions, in the same order, with the same contents, and after the version
//!   expected if one was named: it is a *repetition*, and is answered as the first time, whatever the streams are now;
//! - otherwise an id was used twice, which is refused.
//!
//! This is exact for every kind of expectation, and for ever: ids outlive the events that are freed.

use super::digest;
use super::error::EventsError;
use super::limits::SCAVENGE_EVENTS_MAX;
use super::operation::{Append, Expected, Write};
use super::reply::{Appended, Response, Written};
use super::store::{Known, Life, Store};
use quorate_core::machine::At;

/// Appends, or says what a repetition was answered. Whether anything changed.
pub(super) fn append(store: &mut Store, at: &At, append: Append) -> Result<(Response, bool), EventsError> {
    if let Some(writes) = repeated(store, &append)? {
        return Ok((Response::Appended(Appended { writes, repeated: true }), false));
    }
    append.writes.iter().try_for_each(|write| check_expected(store, write))?;
    let writes = append.writes.into_iter().map(|write| record(store, at, write)).collect();
    Ok((Response::Appended(Appended { writes, repeated: false }), true))
}

/// Where the events are, if all of them are there; `None` if none is.
fn repeated(store: &Store, append: &Append) -> Result<Option<Vec<Written>>, EventsError> {
    let known = |write: &Write| {
        let (number, _) = store.find(&write.stream)?;
        let found = write.events.iter().find_map(|event| Some((event.id, *store.ids.get(&(number, event.id))?)));
        found.map(|(id, known)| EventsError::IdReused { stream: write.stream.clone(), id, version: known.version })
    };
    let Some(reused) = append.writes.iter().find_map(known) else { return Ok(None) };
    let places: Option<Vec<_>> = append.writes.iter().map(|write| repeated_write(store, write)).collect();
    let Some(places) = places else { return Err(reused) };
    for (write, place) in append.writes.iter().zip(&places) {
        let before = place.version.saturating_sub(write.events.len() as u64);
        if !write.events.is_empty() && matches!(write.expected, Expected::Exact(version) if version != before) {
            return Err(wrong_version(store, write));
        }
    }
    Ok(Some(places))
}

/// Where all events of a write are, if they are there as they are in the write.
fn repeated_write(store: &Store, write: &Write) -> Option<Written> {
    let found = store.find(&write.stream);
    let Some(last) = write.events.last() else {
        let version = found.map_or(0, |(_, stream)| stream.version);
        return Some(Written { stream: write.stream.clone(), version, position: 0 });
    };
    let (number, _) = found?;
    let first = store.ids.get(&(number, write.events.first()?.id))?.version;
    for (version, event) in (first..).zip(&write.events) {
        let known = store.ids.get(&(number, event.id))?;
        if known.version != version || known.content != digest::content(event) {
            return None;
        }
    }
    let Known { version, position, .. } = *store.ids.get(&(number, last.id))?;
    Some(Written { stream: write.stream.clone(), version, position })
}

fn check_expected(store: &Store, write: &Write) -> Result<(), EventsError> {
    let (version, life) = match store.find(&write.stream) {
        Some((_, stream)) => (stream.version, stream.life),
        None => (0, Life::Deleted),
    };
    if life == Life::Gone && !write.events.is_empty() {
        return Err(EventsError::StreamGone { stream: write.stream.clone() });
    }
    let met = match write.expected {
        Expected::Any => true,
        Expected::NoStream => life != Life::Live,
        Expected::Exact(expected) => version == expected,
    };
    if met { Ok(()) } else { Err(wrong_version(store, write)) }
}

fn wrong_version(store: &Store, write: &Write) -> EventsError {
    EventsError::WrongVersion {
        stream: write.stream.clone(),
        expected: write.expected,
        found: store.find(&write.stream).map_or(0, |(_, stream)| stream.version),
    }
}

fn record(store: &mut Store, at: &At, write: Write) -> Written {
    let Write { stream, expected: _, events } = write;
    if events.is_empty() {
        let version = store.find(&stream).map_or(0, |(_, stream)| stream.version);
        return Written { stream, version, position: 0 };
    }
    let number = store.number(&stream);
    let version = events.into_iter().fold(0, |_, event| store.record(number, event, at.time));
    Written { stream, version, position: store.position }
}

/// Hides the events of a stream before a version.
pub(super) fn truncate(store: &mut Store, stream: &str, before: u64) -> Result<(Response, bool), EventsError> {
    let no_stream = || EventsError::NoStream { stream: stream.to_owned() };
    let (number, found) = store.find(stream).filter(|(_, it)| it.life == Life::Live).ok_or_else(no_stream)?;
    let before = before.min(found.version.saturating_add(1));
    let changes = before > found.first;
    if changes {
        hide(store, number, before);
    }
    Ok((Response::Done, changes))
}

/// Hides all events of a stream.
pub(super) fn delete(
    store: &mut Store,
    stream: &str,
    expected: Expected,
    forever: bool,
) -> Result<(Response, bool), EventsError> {
    let no_stream = || EventsError::NoStream { stream: stream.to_owned() };
    let (number, found) = store.find(stream).ok_or_else(no_stream)?;
    let (version, life) = (found.version, found.life);
    let after = if forever { Life::Gone } else { Life::Deleted };
    if life == Life::Gone {
        let repeated = forever;
        return if repeated {
            Ok((Response::Done, false))
        } else {
            Err(EventsError::StreamGone { stream: stream.into() })
        };
    }
    let expectation = Write { stream: stream.to_owned(), expected, events: Vec::new() };
    check_expected(store, &expectation)?;
    if life == after {
        return Ok((Response::Done, false));
    }
    hide(store, number, version.saturating_add(1));
    if let Some(found) = store.stream_mut(number) {
        found.life = after;
    }
    Ok((Response::Done, true))
}

fn hide(store: &mut Store, number: u64, before: u64) {
    if let Some(stream) = store.stream_mut(number) {
        stream.first = before;
        store.unfreed.insert(number);
    }
}

/// Frees hidden events, the oldest streams' first.
pub(super) fn scavenge(store: &mut Store, limit: u32) -> (Response, bool) {
    let limit = if limit == 0 { SCAVENGE_EVENTS_MAX } else { limit.min(SCAVENGE_EVENTS_MAX) };
    let mut freed = 0_u32;
    while freed < limit
        && let Some(number) = store.unfreed.get_min().copied()
    {
        if store.free_one(number) {
            freed = freed.saturating_add(1);
        } else {
            store.unfreed.remove(&number);
        }
    }
    while let Some(number) = store.unfreed.get_min().copied()
        && store.stream(number).is_none_or(|it| it.freed.saturating_add(1) >= it.first)
    {
        store.unfreed.remove(&number);
    }
    (Response::Scavenged { freed: u64::from(freed), left: store.hidden() }, freed > 0)
}
