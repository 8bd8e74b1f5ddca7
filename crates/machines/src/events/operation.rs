//! What a client asks for: [`Operation`]s go through the log, [`Query`]s may be answered from a view.
//!
//! The bytes are borsh: one form per value, integers little-endian, lists and texts behind a 32-bit count, nothing left
//! over. Borsh sets nothing aside for a list beyond what its bytes bring, so bytes cost no more memory than they are worth.

use super::error::{EventsError, Limit, List};
use super::limits::*;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// The name of an event within its stream, drawn or derived by whoever makes it: 16 bytes, written as a UUID.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct EventId(pub [u8; 16]);

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = u128::from_be_bytes(self.0);
        let part = |shift: u32, bits: u32| (number >> shift) & ((1 << bits) - 1);
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            part(96, 32),
            part(80, 16),
            part(64, 16),
            part(48, 16),
            part(0, 48)
        )
    }
}

impl fmt::Debug for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Text that is no event id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event id is written as 32 hexadecimal digits, with or without hyphens")]
pub struct BadEventId;

impl FromStr for EventId {
    type Err = BadEventId;

    fn from_str(text: &str) -> Result<Self, BadEventId> {
        let digits: String = text.chars().filter(|it| *it != '-').collect();
        if digits.len() != 32 || !digits.bytes().all(|it| it.is_ascii_hexdigit()) {
            return Err(BadEventId);
        }
        u128::from_str_radix(&digits, 16).map(|number| Self(number.to_be_bytes())).map_err(|_| BadEventId)
    }
}

/// Where a writer expects a stream to be. A version counts the events that a stream has had; 0: none yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Expected {
    /// Anywhere.
    #[default]
    Any,
    /// It has no events, or was deleted.
    NoStream,
    /// At this version.
    Exact(u64),
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Any => f.write_str("any"),
            Expected::NoStream => f.write_str("no stream"),
            Expected::Exact(version) => write!(f, "{version}"),
        }
    }
}

/// A request that is ordered by the log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operation {
    /// Appends events to one stream or several, all or none.
    Append(Append),
    /// Hides the events of a stream before a version, at once and everywhere.
    Truncate {
        /// The stream.
        stream: String,
        /// The first version that stays; beyond the last, all are hidden.
        before: u64,
    },
    /// Hides all events of a stream. Its versions go on from where they were if somebody appends again.
    Delete {
        /// The stream.
        stream: String,
        /// Where the stream must be.
        expected: Expected,
        /// Nobody shall ever append to it again.
        forever: bool,
    },
    /// Frees the memory of hidden events.
    Scavenge {
        /// Most events; 0 for [`SCAVENGE_EVENTS_MAX`], which is also the most.
        limit: u32,
    },
    /// Makes a group of consumers that share the events of a source. Asking again for the same group changes nothing.
    CreateGroup(NewGroup),
    /// Forgets a group.
    DeleteGroup {
        /// The group.
        group: String,
    },
    /// Gives events to a consumer, which shall acknowledge them in time.
    Take {
        /// The group.
        group: String,
        /// Who takes.
        consumer: String,
        /// Most events; 0 for as many as the group has in flight.
        limit: u32,
    },
    /// The work on events is done, whoever holds them now.
    Ack {
        /// The group.
        group: String,
        /// Their numbers in the group's source.
        numbers: Vec<u64>,
    },
    /// The consumer that holds these events could not do the work.
    Nack {
        /// The group.
        group: String,
        /// Who says so.
        consumer: String,
        /// Their numbers in the group's source.
        numbers: Vec<u64>,
        /// What shall become of them.
        verdict: Verdict,
        /// Why, for people.
        reason: String,
    },
    /// Decides about all events that a group has set aside.
    Unpark {
        /// The group.
        group: String,
        /// Give them out again; otherwise they are done with.
        replay: bool,
    },
}

/// Appends to several streams, all or none: the seed's "command that modifies several objects".
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Append {
    /// In the order in which they are recorded. One without events only demands that its stream be where it is expected. A
    /// stream may come again, without an expectation: so events of several streams keep their order.
    pub writes: Vec<Write>,
}

/// What is appended to one stream.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Write {
    /// The stream. What stands before the first `-` is its category.
    pub stream: String,
    /// Where it must be. A repetition of an append that was done is answered as it was, whatever is expected.
    pub expected: Expected,
    /// The events, in order.
    pub events: Vec<NewEvent>,
}

/// An event that is to be.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewEvent {
    /// Its name in the stream: an event that was appended is not appended again.
    pub id: EventId,
    /// What kind of thing happened: its type.
    pub kind: String,
    /// What happened; the store does not look into it.
    pub data: Bytes,
    /// What is to be known about it; the store does not look into it.
    pub metadata: Bytes,
    /// What it belongs to: the same in all events that one request led to.
    pub correlation: Option<EventId>,
    /// The event or command that led to it.
    pub causation: Option<EventId>,
}

/// Where events are read from. Its *numbers* are versions in a stream, positions elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Source {
    /// All events, in the order of their positions.
    #[default]
    All,
    /// The events of all streams whose names begin with it and `-`, and of the stream of that name.
    Category(String),
    /// The events of one stream.
    Stream(String),
}

/// Which events of a source. What is left out counts as anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Filter {
    /// Of one of these types.
    pub kinds: Vec<String>,
    /// With this correlation.
    pub correlation: Option<EventId>,
}

/// A group to be made.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewGroup {
    /// Its name.
    pub group: String,
    /// What its consumers share.
    pub source: Source,
    /// Which of it.
    pub filter: Filter,
    /// The first number that it gives out; 0 or 1 for the first.
    pub from: u64,
    /// How it gives out.
    pub settings: Settings,
}

/// How a group gives out events.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Settings {
    /// After so long without an acknowledgement an event is given to somebody else, in nanoseconds of agreed time. 30 s.
    pub retry_after_nanos: u64,
    /// After so many attempts an event is parked. 10.
    pub attempts_max: u32,
    /// Events that are with consumers at a time. 256.
    pub in_flight_max: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { retry_after_nanos: 30_000_000_000, attempts_max: 10, in_flight_max: 256 }
    }
}

/// What shall become of an event that a consumer could not work on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Verdict {
    /// Give it out again, unless it was given out too often: then it is parked.
    Retry,
    /// Set it aside until somebody decides.
    Park,
    /// It is done with.
    Skip,
}

/// A request that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Query {
    /// Reads a page of events.
    Read(Read),
    /// How a stream is.
    Stream {
        /// Which.
        stream: String,
    },
    /// The streams that exist, by name.
    Streams {
        /// The names after this one; all for an empty one.
        after: String,
        /// Only of this category; all if it is empty.
        category: String,
        /// Most; 0 for [`LIST_MAX`], which is also the most.
        limit: u32,
    },
    /// How a group is.
    Group {
        /// Which.
        group: String,
    },
    /// The names of all groups.
    Groups,
    /// Positions, sizes and digest.
    Status,
}

/// Reads events.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Read {
    /// Where from.
    pub source: Source,
    /// Which of them.
    pub filter: Filter,
    /// The first number of interest, itself included; backwards, anything beyond the end is the end.
    pub from: u64,
    /// From there to the beginning instead of to the end.
    pub backwards: bool,
    /// Most events; 0 for [`READ_EVENTS_MAX`], which is also the most.
    pub limit: u32,
}

impl Operation {
    /// The first byte of an [`Operation::Append`].
    pub(super) const APPEND: u8 = 0;

    /// The operation's bytes.
    ///
    /// # Errors
    /// What a replica would refuse on sight.
    pub fn encode(&self) -> Result<Vec<u8>, EventsError> {
        self.check()?;
        encode(self)
    }

    /// The operation that `bytes` are.
    ///
    /// # Errors
    /// As [`Operation::encode`], and [`EventsError::Undecodable`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EventsError> {
        let operation: Self = decode(bytes)?;
        operation.check()?;
        Ok(operation)
    }

    /// Refuses what is wrong whatever the state.
    fn check(&self) -> Result<(), EventsError> {
        match self {
            Operation::Append(append) => append.check(),
            Operation::Truncate { stream, .. } | Operation::Delete { stream, .. } => check_name(stream),
            Operation::Scavenge { .. } => Ok(()),
            Operation::CreateGroup(new) => new.check(),
            Operation::DeleteGroup { group } | Operation::Unpark { group, .. } => check_name(group),
            Operation::Take { group, consumer, .. } => check_name(group).and_then(|()| check_name(consumer)),
            Operation::Ack { group, numbers } => check_name(group).and_then(|()| check_numbers(numbers)),
            Operation::Nack { group, consumer, numbers, reason, .. } => {
                check_name(group)?;
                check_name(consumer)?;
                check_numbers(numbers)?;
                within(reason.len(), REASON_BYTES_MAX, Limit::Reason)
            }
        }
    }
}

impl Append {
    /// Appends to one stream.
    pub fn to(stream: impl Into<String>, expected: Expected, events: Vec<NewEvent>) -> Self {
        Self { writes: vec![Write { stream: stream.into(), expected, events }] }
    }

    fn check(&self) -> Result<(), EventsError> {
        within(self.writes.len(), WRITES_MAX, Limit::Writes)?;
        let events = self.writes.iter().fold(0_usize, |sum, write| sum.saturating_add(write.events.len()));
        within(events, APPEND_EVENTS_MAX, Limit::Events)?;
        if events == 0 {
            return Err(EventsError::BadList(List::NoEvents));
        }
        let (mut streams, mut ids) = (BTreeSet::new(), BTreeSet::new());
        for write in &self.writes {
            check_name(&write.stream)?;
            if !streams.insert(&write.stream) && write.expected != Expected::Any {
                return Err(EventsError::BadList(List::ExpectedTwice));
            }
            for event in &write.events {
                event.check()?;
                if !ids.insert((&write.stream, event.id)) {
                    return Err(EventsError::BadList(List::IdTwice));
                }
            }
        }
        Ok(())
    }
}

impl NewEvent {
    pub(super) fn check(&self) -> Result<(), EventsError> {
        check_kind(&self.kind)?;
        within(self.data.len(), DATA_BYTES_MAX, Limit::Data)?;
        within(self.metadata.len(), METADATA_BYTES_MAX, Limit::Metadata)
    }
}

impl NewGroup {
    pub(super) fn check(&self) -> Result<(), EventsError> {
        check_name(&self.group)?;
        self.source.check()?;
        self.filter.check()?;
        let Settings { retry_after_nanos, attempts_max, in_flight_max } = self.settings;
        let good = (1..=RETRY_AFTER_NANOS_MAX).contains(&retry_after_nanos)
            && attempts_max > 0
            && (1..=GROUP_IN_FLIGHT_MAX).contains(&in_flight_max);
        if good { Ok(()) } else { Err(EventsError::TooLarge(Limit::Settings)) }
    }
}

impl Source {
    fn check(&self) -> Result<(), EventsError> {
        match self {
            Source::All => Ok(()),
            Source::Category(name) | Source::Stream(name) => check_name(name),
        }
    }
}

impl Filter {
    fn check(&self) -> Result<(), EventsError> {
        within(self.kinds.len(), FILTER_KINDS_MAX, Limit::Kinds)?;
        self.kinds.iter().try_for_each(|kind| check_kind(kind))
    }
}

impl Query {
    /// The query's bytes.
    ///
    /// # Errors
    /// As [`Operation::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, EventsError> {
        self.check()?;
        encode(self)
    }

    /// The query that `bytes` are.
    ///
    /// # Errors
    /// As [`Operation::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, EventsError> {
        let query: Self = decode(bytes)?;
        query.check()?;
        Ok(query)
    }

    fn check(&self) -> Result<(), EventsError> {
        match self {
            Query::Read(read) => read.source.check().and_then(|()| read.filter.check()),
            Query::Stream { stream } => check_name(stream),
            Query::Group { group } => check_name(group),
            Query::Streams { after, category, .. } => {
                let short = after.len().max(category.len()) <= NAME_BYTES_MAX;
                if short { Ok(()) } else { Err(EventsError::BadName) }
            }
            Query::Groups | Query::Status => Ok(()),
        }
    }
}

/// The category of a stream: what stands before the first `-` of its name, or all of it.
pub fn category(stream: &str) -> &str {
    stream.split_once('-').map_or(stream, |(category, _)| category)
}

fn check_name(name: &str) -> Result<(), EventsError> {
    check_text(name, NAME_BYTES_MAX)
}

fn check_kind(kind: &str) -> Result<(), EventsError> {
    check_text(kind, KIND_BYTES_MAX)
}

fn check_text(text: &str, bytes_max: usize) -> Result<(), EventsError> {
    let good = !text.is_empty() && text.len() <= bytes_max && !text.chars().any(char::is_control);
    if good { Ok(()) } else { Err(EventsError::BadName) }
}

fn check_numbers(numbers: &[u64]) -> Result<(), EventsError> {
    within(numbers.len(), ACK_NUMBERS_MAX, Limit::Numbers)
}

fn within(found: usize, max: usize, limit: Limit) -> Result<(), EventsError> {
    if found > max { Err(EventsError::TooLarge(limit)) } else { Ok(()) }
}

fn encode<T: BorshSerialize>(request: &T) -> Result<Vec<u8>, EventsError> {
    let bytes = borsh::to_vec(request).map_err(|_| EventsError::TooLarge(Limit::Operation))?;
    within(bytes.len(), OPERATION_BYTES_MAX, Limit::Operation)?;
    Ok(bytes)
}

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, EventsError> {
    within(bytes.len(), OPERATION_BYTES_MAX, Limit::Operation)?;
    borsh::from_slice(bytes).map_err(|_| EventsError::Undecodable)
}
