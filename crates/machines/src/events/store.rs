//! The data: events by position, and what finds them. All maps are persistent, so that a view and a snapshot are clones in
//! O(1).
//!
//! *Hidden* events (truncated, or of a deleted stream) are in no answer any more; *freed* ones have left the memory, too. Of a
//! freed event its id and the digest of its contents remain: an append that is repeated years later is still known.

use super::digest;
use super::group::Group;
use super::operation::{EventId, NewEvent, category};
use super::reply::{Recorded, Status, StreamInfo};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet, Vector};
use quorate_core::crypto::Digest;
use quorate_core::time::WallTime;
use std::sync::Arc;

/// Everything.
#[derive(Clone, Debug, Default)]
pub(super) struct Store {
    /// How many events were recorded.
    pub position: u64,
    /// The chain over all that happened (`digest`).
    pub digest: Digest,
    /// Bytes of data and metadata of the events that are kept.
    pub bytes: u64,
    /// By number, in the order of their first events.
    pub streams: Vector<Stream>,
    pub numbers: OrdMap<Arc<str>, u64>,
    /// In the order of their first events.
    pub categories: OrdMap<Arc<str>, u64>,
    /// The events that are kept, by position.
    pub events: OrdMap<u64, Arc<Event>>,
    /// (number of the stream, version) → position
    pub by_stream: OrdMap<(u64, u64), u64>,
    /// (number of the category, position)
    pub by_category: OrdSet<(u64, u64)>,
    /// (number of the stream, id) → where it is, or was
    pub ids: OrdMap<(u64, EventId), Known>,
    /// The numbers of the streams that have hidden events which are not freed.
    pub unfreed: OrdSet<u64>,
    pub groups: OrdMap<Arc<str>, Group>,
}

/// A stream. Invariant: `freed < first`, and versions `freed + 1` to `version` are kept.
#[derive(Clone, Debug)]
pub(super) struct Stream {
    pub name: Arc<str>,
    pub category: u64,
    /// How many events it has had.
    pub version: u64,
    /// The first version that can be read; `version + 1` at most.
    pub first: u64,
    /// Versions up to this one are freed.
    pub freed: u64,
    pub life: Life,
}

/// May a stream be appended to, and is it there?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Life {
    Live,
    /// Deleted; an append brings it back.
    Deleted,
    /// Deleted for ever.
    Gone,
}

/// An event that is kept.
#[derive(Clone, Debug)]
pub(super) struct Event {
    /// The number of its stream.
    pub stream: u64,
    pub version: u64,
    pub id: EventId,
    pub kind: Arc<str>,
    pub data: Bytes,
    pub metadata: Bytes,
    pub correlation: Option<EventId>,
    pub causation: Option<EventId>,
    pub time: WallTime,
}

/// What is known of an id for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    pub version: u64,
    pub position: u64,
    /// The digest of the event's contents.
    pub content: Digest,
}

impl Event {
    /// What it counts in [`Store::bytes`].
    pub fn len(&self) -> u64 {
        self.data.len().saturating_add(self.metadata.len()) as u64
    }
}

impl Store {
    /// A stream and its number, if it ever had an event.
    pub fn find(&self, stream: &str) -> Option<(u64, &Stream)> {
        let number = *self.numbers.get(stream)?;
        Some((number, self.stream(number)?))
    }

    pub fn stream(&self, number: u64) -> Option<&Stream> {
        self.streams.get(usize::try_from(number).ok()?)
    }

    pub fn stream_mut(&mut self, number: u64) -> Option<&mut Stream> {
        self.streams.get_mut(usize::try_from(number).ok()?)
    }

    /// The number of this stream, which is made if it is new.
    pub fn number(&mut self, stream: &str) -> u64 {
        if let Some(number) = self.numbers.get(stream) {
            return *number;
        }
        let category: Arc<str> = category(stream).into();
        let categories = self.categories.len() as u64;
        let category = *self.categories.entry(category).or_insert(categories);
        let number = self.streams.len() as u64;
        let name: Arc<str> = stream.into();
        self.numbers.insert(name.clone(), number);
        self.streams.push_back(Stream { name, category, version: 0, first: 1, freed: 0, life: Life::Live });
        number
    }

    /// Records an event at the end of a stream that exists. Its version.
    pub fn record(&mut self, number: u64, new: NewEvent, time: WallTime) -> u64 {
        let content = digest::content(&new);
        let position = self.position.saturating_add(1);
        let Some(stream) = self.stream_mut(number) else { return 0 };
        stream.life = Life::Live;
        stream.version = stream.version.saturating_add(1);
        let (version, category) = (stream.version, stream.category);
        let name = stream.name.clone();
        let NewEvent { id, kind, data, metadata, correlation, causation } = new;
        let event =
            Event { stream: number, version, id, kind: kind.into(), data, metadata, correlation, causation, time };
        let known = Known { version, position, content };
        self.digest = digest::after_event(&self.digest, &name, &event, &known);
        self.ids.insert((number, id), known);
        self.position = position;
        self.keep(position, category, event);
        version
    }

    /// Enters an event that is kept into the maps.
    pub fn keep(&mut self, position: u64, category: u64, event: Event) {
        self.bytes = self.bytes.saturating_add(event.len());
        self.by_stream.insert((event.stream, event.version), position);
        self.by_category.insert((category, position));
        self.events.insert(position, Arc::new(event));
    }

    /// Frees the memory of a stream's oldest kept event, which is hidden.
    pub fn free_one(&mut self, number: u64) -> bool {
        let Some(stream) = self.stream_mut(number).filter(|stream| stream.freed.saturating_add(1) < stream.first)
        else {
            return false;
        };
        stream.freed = stream.freed.saturating_add(1);
        let (version, category) = (stream.freed, stream.category);
        if let Some(position) = self.by_stream.remove(&(number, version)) {
            self.by_category.remove(&(category, position));
            if let Some(event) = self.events.remove(&position) {
                self.bytes = self.bytes.saturating_sub(event.len());
            }
        }
        true
    }

    /// Hidden events that are not freed.
    pub fn hidden(&self) -> u64 {
        let of =
            |number: &u64| self.stream(*number).map_or(0, |it| it.first.saturating_sub(1).saturating_sub(it.freed));
        self.unfreed.iter().map(of).fold(0, u64::saturating_add)
    }

    /// Can this event be read?
    pub fn is_visible(&self, event: &Event) -> bool {
        self.stream(event.stream).is_some_and(|stream| event.version >= stream.first)
    }

    /// An event for a client.
    pub fn recorded(&self, position: u64, event: &Event) -> Recorded {
        Recorded {
            position,
            stream: self.stream(event.stream).map(|stream| stream.name.to_string()).unwrap_or_default(),
            version: event.version,
            id: event.id,
            kind: event.kind.to_string(),
            data: event.data.clone(),
            metadata: event.metadata.clone(),
            correlation: event.correlation,
            causation: event.causation,
            time: event.time,
        }
    }

    pub fn status(&self) -> Status {
        Status {
            position: self.position,
            streams: self.streams.len() as u64,
            events: self.events.len() as u64,
            bytes: self.bytes,
            groups: self.groups.len() as u64,
            digest: self.digest,
        }
    }
}

impl Stream {
    pub fn info(&self) -> StreamInfo {
        StreamInfo {
            stream: self.name.to_string(),
            version: self.version,
            first: self.first,
            deleted: self.life != Life::Live,
            gone: self.life == Life::Gone,
        }
    }
}
