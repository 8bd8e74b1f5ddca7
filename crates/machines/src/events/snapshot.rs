//! The store as a stream of bytes, and back.
//!
//! ```text
//! stream   version u8 = 1 | frame(header) | frame(stream)* | frame(freed)* | frame(event)* | frame(group)* | BLAKE3 of all before
//! frame    length u32 | body
//! header   position u64 | digest 32 | streams u64 | freed u64 | events u64 | groups u64
//! stream   name | version u64 | first u64 | freed u64 | life u8                    in the order of their first events
//! freed    stream u64 | id 16 | version u64 | position u64 | content 32             ascending by (stream, version)
//! event    position u64 | stream u64 | version u64 | id 16 | type | data | metadata
//!          | correlation 1 or 17 | causation 1 or 17 | time u64                     ascending by position
//! group    as made | next u64 | finished u64 | held | waiting | parked               ascending by name
//! ```
//! Integers are little-endian, a text or list follows its length as a u32 (borsh). Indexes, categories and sums follow from
//! these and are rebuilt. One state has one stream. The sink believes nothing: each part must be one that could have come about,
//! and the hash at the end must be that of the stream.

use super::Events;
use super::digest;
use super::group::{Group, Held, Parked};
use super::limits::*;
use super::operation::{EventId, NewEvent, NewGroup};
use super::store::{Event, Known, Life, Store, Stream};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::machine::{Corrupt, Sink, Source};
use quorate_core::time::WallTime;
use std::ops::Bound;
use std::sync::Arc;

/// The version of the format; the stream's first byte.
const VERSION: u8 = 1;
/// Longest body of a frame, in bytes. A group with all its bounds reached is the longest: new events come to it only while none
/// waits and fewer than [`GROUP_PARKED_MAX`] are parked, and each of its events has a name or a reason.
const FRAME_BYTES_MAX: usize = (GROUP_PARKED_MAX + GROUP_IN_FLIGHT_MAX as usize) * (NAME_BYTES_MAX + 32)
    + FILTER_KINDS_MAX * KIND_BYTES_MAX
    + 4096;
/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

#[derive(Clone, Copy, Debug, Default, BorshSerialize, BorshDeserialize)]
struct Header {
    position: u64,
    digest: Digest,
    streams: u64,
    freed: u64,
    events: u64,
    groups: u64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct StreamFrame {
    name: String,
    version: u64,
    first: u64,
    freed: u64,
    life: u8,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct FreedFrame {
    stream: u64,
    id: EventId,
    version: u64,
    position: u64,
    content: Digest,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct EventFrame {
    position: u64,
    stream: u64,
    version: u64,
    id: EventId,
    kind: String,
    data: Bytes,
    metadata: Bytes,
    correlation: Option<EventId>,
    causation: Option<EventId>,
    time: WallTime,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct GroupFrame {
    made: NewGroup,
    next: u64,
    finished: u64,
    held: Vec<(u64, String, u32, WallTime)>,
    waiting: Vec<(u64, u32)>,
    parked: Vec<(u64, u32, String)>,
}

fn life_byte(life: Life) -> u8 {
    match life {
        Life::Live => 0,
        Life::Deleted => 1,
        Life::Gone => 2,
    }
}

/// Where a source is in its stream.
#[derive(Debug)]
enum Next {
    Header,
    /// The stream with this number.
    Stream(u64),
    /// What was freed, from this place on.
    Freed(usize),
    /// The event after this position.
    Event(u64),
    /// The group after this one.
    Group(Option<Arc<str>>),
    Hash,
    Nothing,
}

/// Writes a state out, frame by frame, from maps that it shares with the machine.
#[derive(Debug)]
pub struct EventsSource {
    store: Store,
    next: Next,
    hasher: blake3::Hasher,
    /// What is known of freed events, in the order of the stream: gathered when it is first asked for.
    freed: Vec<FreedId>,
}

/// (number of the stream, version, id)
type FreedId = (u64, u64, EventId);

impl EventsSource {
    pub(super) fn new(store: Store) -> Self {
        Self { store, next: Next::Header, hasher: blake3::Hasher::new(), freed: Vec::new() }
    }

    /// Appends frames until `into` has `until` bytes or their kind is at its end. Answers with what comes next.
    fn write(&mut self, until: usize, into: &mut Vec<u8>) -> Next {
        match &self.next {
            Next::Header => {
                self.freed = freed(&self.store);
                into.push(VERSION);
                frame(&self.header(), into);
                Next::Stream(0)
            }
            Next::Stream(from) => {
                for number in *from..self.store.streams.len() as u64 {
                    let Some(stream) = self.store.stream(number) else { continue };
                    frame(&stream_frame(stream), into);
                    if into.len() >= until {
                        return Next::Stream(number.saturating_add(1));
                    }
                }
                Next::Freed(0)
            }
            Next::Freed(from) => {
                for (index, (stream, version, id)) in self.freed.iter().enumerate().skip(*from) {
                    let Some(known) = self.store.ids.get(&(*stream, *id)) else { continue };
                    let Known { position, content, .. } = *known;
                    frame(&FreedFrame { stream: *stream, id: *id, version: *version, position, content }, into);
                    if into.len() >= until {
                        return Next::Freed(index.saturating_add(1));
                    }
                }
                Next::Event(0)
            }
            Next::Event(after) => {
                let after = Bound::Excluded(*after);
                for (position, event) in self.store.events.range((after, Bound::Unbounded)) {
                    frame(&event_frame(*position, event), into);
                    if into.len() >= until {
                        return Next::Event(*position);
                    }
                }
                Next::Group(None)
            }
            Next::Group(after) => {
                let after = after.clone().map_or(Bound::Unbounded, Bound::Excluded);
                for (name, group) in self.store.groups.range((after, Bound::Unbounded)) {
                    frame(&group_frame(group), into);
                    if into.len() >= until {
                        return Next::Group(Some(name.clone()));
                    }
                }
                Next::Hash
            }
            Next::Hash => {
                into.extend_from_slice(self.hasher.finalize().as_bytes());
                Next::Nothing
            }
            Next::Nothing => Next::Nothing,
        }
    }

    fn header(&self) -> Header {
        Header {
            position: self.store.position,
            digest: self.store.digest,
            streams: self.store.streams.len() as u64,
            freed: self.freed.len() as u64,
            events: self.store.events.len() as u64,
            groups: self.store.groups.len() as u64,
        }
    }
}

impl Source for EventsSource {
    fn next(&mut self, max_bytes: usize, into: &mut Vec<u8>) -> bool {
        let start = into.len();
        let until = start.saturating_add(max_bytes.max(1));
        while into.len() < until && !matches!(self.next, Next::Nothing) {
            let from = into.len();
            self.next = self.write(until, into);
            self.hasher.update(into.get(from..).unwrap_or_default());
        }
        into.len() > start
    }
}

/// The ids of freed events, by stream and version.
fn freed(store: &Store) -> Vec<FreedId> {
    let is_freed = |stream: u64, version: u64| store.stream(stream).is_some_and(|it| version <= it.freed);
    let all = store.ids.iter().map(|((stream, id), known)| (*stream, known.version, *id));
    let mut freed: Vec<_> = all.filter(|(stream, version, _)| is_freed(*stream, *version)).collect();
    freed.sort_unstable();
    freed
}

fn stream_frame(stream: &Stream) -> StreamFrame {
    let Stream { name, version, first, freed, life, .. } = stream;
    StreamFrame { name: name.to_string(), version: *version, first: *first, freed: *freed, life: life_byte(*life) }
}

fn event_frame(position: u64, event: &Event) -> EventFrame {
    EventFrame {
        position,
        stream: event.stream,
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

fn group_frame(group: &Group) -> GroupFrame {
    let held = group.held.iter().map(|(number, it)| (*number, it.consumer.to_string(), it.attempts, it.until));
    let parked = group.parked.iter().map(|(number, it)| (*number, it.attempts, it.reason.to_string()));
    GroupFrame {
        made: group.made.clone(),
        next: group.next,
        finished: group.finished,
        held: held.collect(),
        waiting: group.waiting.iter().map(|(number, attempts)| (*number, *attempts)).collect(),
        parked: parked.collect(),
    }
}

/// Appends a frame. Bodies are far shorter than 4 GiB, and memory takes all bytes.
fn frame(body: &impl BorshSerialize, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    let written = body.serialize(into);
    assert!(written.is_ok(), "memory takes all bytes, and no part has 2³² of them");
    let length = u32::try_from(into.len().saturating_sub(start).saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(place) = into.get_mut(start..start.saturating_add(4)) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// What a sink waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaited {
    Version,
    Header,
    Stream,
    Freed,
    Event,
    Group,
    Hash,
    Nothing,
}

/// Rebuilds a state. Holds at most one unfinished frame, besides the state so far.
#[derive(Debug)]
pub struct EventsSink {
    store: Store,
    header: Header,
    awaited: Awaited,
    /// Of the kind that is awaited, how many have come.
    come: u64,
    unread: Vec<u8>,
    hasher: blake3::Hasher,
    /// The last freed event: (stream, version).
    last_freed: (u64, u64),
}

fn corrupt<T>(why: impl Into<String>) -> Result<T, Corrupt> {
    Err(Corrupt(why.into()))
}

fn parse<T: BorshDeserialize>(body: &[u8]) -> Result<T, Corrupt> {
    borsh::from_slice(body).or_else(|error| corrupt(format!("a frame that does not parse: {error}")))
}

impl EventsSink {
    pub(super) fn new() -> Self {
        Self {
            store: Store::default(),
            header: Header::default(),
            awaited: Awaited::Version,
            come: 0,
            unread: Vec::new(),
            hasher: blake3::Hasher::new(),
            last_freed: (0, 0),
        }
    }

    /// Reads one item from the front of `bytes`; how long it was, or nothing if it is not all there yet.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        match self.awaited {
            Awaited::Version => match bytes.first() {
                None => Ok(None),
                Some(&VERSION) => {
                    self.awaited = Awaited::Header;
                    Ok(Some(1))
                }
                Some(other) => corrupt(format!("format version {other}; this release reads {VERSION}")),
            },
            Awaited::Hash => {
                let Some(hash) = bytes.get(..HASH_BYTES) else { return Ok(None) };
                if hash != self.hasher.finalize().as_bytes() {
                    return corrupt("the hash at the end is not that of the bytes before");
                }
                self.awaited = Awaited::Nothing;
                Ok(Some(HASH_BYTES))
            }
            Awaited::Nothing if bytes.is_empty() => Ok(None),
            Awaited::Nothing => corrupt("bytes after the end"),
            _ => self.read_frame(bytes),
        }
    }

    fn read_frame(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return corrupt(format!("a frame of {length} bytes; the longest has {FRAME_BYTES_MAX}"));
        }
        let end = length.saturating_add(4);
        let Some(body) = bytes.get(4..end) else { return Ok(None) };
        match self.awaited {
            Awaited::Header => self.take_header(parse(body)?)?,
            Awaited::Stream => self.take_stream(parse(body)?)?,
            Awaited::Freed => self.take_freed(&parse(body)?)?,
            Awaited::Event => self.take_event(parse(body)?)?,
            Awaited::Group => self.take_group(parse(body)?)?,
            Awaited::Version | Awaited::Hash | Awaited::Nothing => return corrupt("a frame where none is due"),
        }
        self.come = self.come.saturating_add(1);
        self.settle();
        Ok(Some(end))
    }

    /// Leaves lists behind that are complete.
    fn settle(&mut self) {
        loop {
            let (due, after) = match self.awaited {
                Awaited::Header => (1, Awaited::Stream),
                Awaited::Stream => (self.header.streams, Awaited::Freed),
                Awaited::Freed => (self.header.freed, Awaited::Event),
                Awaited::Event => (self.header.events, Awaited::Group),
                Awaited::Group => (self.header.groups, Awaited::Hash),
                Awaited::Version | Awaited::Hash | Awaited::Nothing => return,
            };
            if self.come < due {
                return;
            }
            (self.awaited, self.come) = (after, 0);
        }
    }

    fn take_header(&mut self, header: Header) -> Result<(), Corrupt> {
        if header.position > POSITION_MAX || header.freed.checked_add(header.events) != Some(header.position) {
            return corrupt("each position has an event, kept or freed, and these numbers do not agree");
        }
        (self.store.position, self.store.digest) = (header.position, header.digest);
        self.header = header;
        Ok(())
    }

    fn take_stream(&mut self, frame: StreamFrame) -> Result<(), Corrupt> {
        let StreamFrame { name, version, first, freed, life } = frame;
        let shown = name.chars().take(64).collect::<String>();
        let good_name = !name.is_empty() && name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
        if !good_name || self.store.numbers.contains_key(name.as_str()) {
            return corrupt(format!("a second stream `{shown}`, or a name that none can have"));
        }
        let ends = version.checked_add(1);
        if version == 0 || version > self.header.position || first == 0 || freed >= first || Some(first) > ends {
            return corrupt(format!("stream `{shown}` at {version} begins with {first} and is freed up to {freed}"));
        }
        let life = match life {
            0 => Life::Live,
            1 | 2 if Some(first) != ends => return corrupt(format!("stream `{shown}` is deleted and can be read")),
            1 => Life::Deleted,
            2 => Life::Gone,
            other => return corrupt(format!("stream `{shown}` lives as {other}")),
        };
        let number = self.store.number(&name);
        if freed.saturating_add(1) < first {
            self.store.unfreed.insert(number);
        }
        if let Some(stream) = self.store.stream_mut(number) {
            (stream.version, stream.first, stream.freed, stream.life) = (version, first, freed, life);
        }
        Ok(())
    }

    fn take_freed(&mut self, frame: &FreedFrame) -> Result<(), Corrupt> {
        let FreedFrame { stream, id, version, position, content } = *frame;
        let (last_stream, last_version) = self.last_freed;
        let follows = if stream == last_stream { version == last_version.saturating_add(1) } else { version == 1 };
        let within = self.store.stream(stream).is_some_and(|it| version <= it.freed);
        if !follows || !within || stream < last_stream || !(1..=self.header.position).contains(&position) {
            return corrupt(format!("version {version} of stream {stream} is not the next that is freed"));
        }
        if self.store.ids.insert((stream, id), Known { version, position, content }).is_some() {
            return corrupt(format!("stream {stream} has the id {id} twice"));
        }
        self.last_freed = (stream, version);
        Ok(())
    }

    fn take_event(&mut self, frame: EventFrame) -> Result<(), Corrupt> {
        let EventFrame { position, stream, version, id, kind, data, metadata, correlation, causation, time } = frame;
        let last = self.store.events.get_max().map_or(0, |(position, _)| *position);
        let Some(of) = self.store.stream(stream) else { return corrupt(format!("an event of no stream: {stream}")) };
        let (category, freed) = (of.category, of.freed);
        let before = self.store.by_stream.get(&(stream, version.saturating_sub(1)));
        let follows = if version == freed.saturating_add(1) { before.is_none() } else { before.is_some() };
        if position <= last || position > self.header.position || version > of.version || version <= freed || !follows {
            return corrupt(format!("version {version} of stream {stream} cannot be at {position}"));
        }
        let new = NewEvent { id, kind, data, metadata, correlation, causation };
        if new.check().is_err() {
            return corrupt(format!("the event at {position} is larger than any, or has no type"));
        }
        let known = Known { version, position, content: digest::content(&new) };
        if self.store.ids.insert((stream, id), known).is_some() {
            return corrupt(format!("stream {stream} has the id {id} twice"));
        }
        let NewEvent { kind, data, metadata, .. } = new;
        let event = Event { stream, version, id, kind: kind.into(), data, metadata, correlation, causation, time };
        self.store.keep(position, category, event);
        Ok(())
    }

    fn take_group(&mut self, frame: GroupFrame) -> Result<(), Corrupt> {
        let GroupFrame { made, next, finished, held, waiting, parked } = frame;
        let in_order = self.store.groups.get_max().is_none_or(|(last, _)| **last < *made.group);
        if made.check().is_err() || !in_order || next == 0 {
            return corrupt("a group that none can be, or that is out of order");
        }
        let mut group = Group { next, finished, ..Group::new(made) };
        let good = ascending_below(next, held.iter().map(|it| it.0))
            && ascending_below(next, waiting.iter().map(|it| it.0))
            && ascending_below(next, parked.iter().map(|it| it.0));
        let count = held.len().saturating_add(waiting.len()).saturating_add(parked.len());
        group.held.extend(
            held.into_iter().map(|(number, consumer, attempts, until)| {
                (number, Held { consumer: consumer.into(), attempts, until })
            }),
        );
        group.waiting.extend(waiting);
        group.parked.extend(
            parked.into_iter().map(|(number, attempts, reason)| (number, Parked { attempts, reason: reason.into() })),
        );
        let all = group.held.keys().chain(group.waiting.keys()).chain(group.parked.keys());
        if !good || all.collect::<std::collections::BTreeSet<_>>().len() != count {
            return corrupt(format!(
                "group `{}` holds an event twice, or one that it never gave out",
                group.made.group
            ));
        }
        self.store.groups.insert(group.made.group.as_str().into(), group);
        Ok(())
    }

    /// Every version of every stream has come, and all streams together have as many as there are positions.
    fn check_complete(&self) -> Result<(), Corrupt> {
        let sum = self.store.streams.iter().try_fold(0_u64, |sum, stream| sum.checked_add(stream.version));
        if sum != Some(self.header.position) || self.store.ids.len() as u64 != self.header.position {
            return corrupt("the streams do not have as many events as there are positions");
        }
        let whole = (0_u64..).zip(&self.store.streams).all(|(number, stream)| {
            stream.version == stream.freed || self.store.by_stream.contains_key(&(number, stream.version))
        });
        if whole { Ok(()) } else { corrupt("a stream lacks its last events") }
    }
}

fn ascending_below(next: u64, mut numbers: impl Iterator<Item = u64>) -> bool {
    let mut last = 0;
    numbers.all(|number| std::mem::replace(&mut last, number) < number && number < next)
}

impl Sink<Events> for EventsSink {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        let mut unread = std::mem::take(&mut self.unread);
        unread.extend_from_slice(bytes);
        let mut rest = unread.as_slice();
        while let Some(length) = self.read(rest)? {
            let (item, after) = rest.split_at_checked(length).unwrap_or((rest, &[]));
            self.hasher.update(item);
            rest = after;
        }
        let read = unread.len().saturating_sub(rest.len());
        unread.drain(..read);
        self.unread = unread;
        Ok(())
    }

    fn finish(self) -> Result<Events, Corrupt> {
        if self.awaited != Awaited::Nothing {
            return corrupt("the stream ends too early");
        }
        self.check_complete()?;
        Ok(Events { store: self.store })
    }
}
