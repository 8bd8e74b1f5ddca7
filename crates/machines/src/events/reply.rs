//! What a client is answered. The bytes are borsh.

use super::error::EventsError;
use super::operation::{EventId, NewGroup, Source};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::time::WallTime;

/// The answer to an operation or a query.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// How many events the store has recorded: the position of the last.
    pub position: u64,
    /// What it came to.
    pub result: Result<Response, EventsError>,
}

/// What a request that was not refused came to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// The events are in their streams.
    Appended(Appended),
    /// It is done.
    Done,
    /// Memory was freed.
    Scavenged {
        /// Of so many events.
        freed: u64,
        /// So many hidden events are left.
        left: u64,
    },
    /// Events for a consumer.
    Taken(Taken),
    /// A page of events.
    Page(Page),
    /// How a stream is.
    Stream(StreamInfo),
    /// A page of streams.
    Streams(Vec<StreamInfo>),
    /// How a group is.
    Group(Box<GroupInfo>),
    /// The names of all groups.
    Groups(Vec<String>),
    /// How the store is.
    Status(Status),
}

/// Where appended events are.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Appended {
    /// For each write, in the order of the request.
    pub writes: Vec<Written>,
    /// They were there already: this is a repetition.
    pub repeated: bool,
}

/// Where the events of one write are.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Written {
    /// The stream.
    pub stream: String,
    /// The version of the last of them; without any, the version of the stream.
    pub version: u64,
    /// The position of the last of them; without any, 0. The events of one write follow each other without gaps.
    pub position: u64,
}

/// An event as it was recorded.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Recorded {
    /// Which event of all it is, from 1, without gaps.
    pub position: u64,
    /// Its stream.
    pub stream: String,
    /// Which event of the stream it is, from 1, without gaps.
    pub version: u64,
    /// Its name in the stream.
    pub id: EventId,
    /// Its type.
    pub kind: String,
    /// What happened.
    pub data: Bytes,
    /// What is to be known about it.
    pub metadata: Bytes,
    /// What it belongs to.
    pub correlation: Option<EventId>,
    /// What led to it.
    pub causation: Option<EventId>,
    /// When it was recorded, by agreement.
    pub time: WallTime,
}

impl Recorded {
    /// Its number in a source that has it.
    pub fn number(&self, source: &Source) -> u64 {
        match source {
            Source::Stream(_) => self.version,
            Source::All | Source::Category(_) => self.position,
        }
    }
}

/// A page of events.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Page {
    /// The events, in the order that was asked for.
    pub events: Vec<Recorded>,
    /// Where the next page begins. Forwards this is right for ever: what is read from there is what comes after. Backwards,
    /// 0 when nothing is left.
    pub next: u64,
    /// There is nothing more, by now.
    pub end: bool,
}

/// Events for a consumer.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Taken {
    /// The events.
    pub events: Vec<Delivery>,
    /// There is nothing to give out beyond these, by now.
    pub end: bool,
}

/// An event that a consumer was given.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Delivery {
    /// Its number in the group's source, for the acknowledgement.
    pub number: u64,
    /// How often it has been given out, this time included.
    pub attempt: u32,
    /// The event.
    pub event: Recorded,
}

/// How a stream is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StreamInfo {
    /// Its name.
    pub stream: String,
    /// How many events it has had: the version of the last.
    pub version: u64,
    /// The first version that can be read; one more than `version` if none can.
    pub first: u64,
    /// It was deleted, and nothing was appended since.
    pub deleted: bool,
    /// Nobody can append to it any more.
    pub gone: bool,
}

/// How a group is: what an operator needs to see whether it moves.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct GroupInfo {
    /// What it was made as.
    pub group: NewGroup,
    /// The next number that was never given out.
    pub next: u64,
    /// The last number of its source: what is between is its lag.
    pub head: u64,
    /// Events that are with consumers.
    pub in_flight: u64,
    /// Events that wait to be given out again.
    pub waiting: u64,
    /// Events that were acknowledged or skipped, in all.
    pub finished: u64,
    /// Events that are set aside, the first hundred.
    pub parked: Vec<ParkedInfo>,
    /// How many are set aside.
    pub parked_count: u64,
}

/// An event that is set aside.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ParkedInfo {
    /// Its number in the group's source.
    pub number: u64,
    /// How often it was given out.
    pub attempts: u32,
    /// What the last consumer said.
    pub reason: String,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// How many events were recorded.
    pub position: u64,
    /// How many streams there have been.
    pub streams: u64,
    /// How many events are kept.
    pub events: u64,
    /// Bytes of data and metadata of the events that are kept.
    pub bytes: u64,
    /// How many groups there are.
    pub groups: u64,
    /// The digest of the history.
    pub digest: Digest,
}

/// What [`super::EVENTS_TOPIC`] carries, borsh-encoded: a hint that there is something to read. It brings no events, since
/// under a protocol whose replicas may lie nobody believes the stream of a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Published {
    /// The position of the last event.
    pub position: u64,
}

impl Reply {
    /// The reply that `bytes` are.
    ///
    /// # Errors
    /// [`EventsError::Undecodable`]: whoever answered is not an event store.
    pub fn decode(bytes: &[u8]) -> Result<Self, EventsError> {
        borsh::from_slice(bytes).map_err(|_| EventsError::Undecodable)
    }

    /// Where appended events are.
    ///
    /// # Errors
    /// The store's refusal; [`EventsError::Undecodable`] for an answer of another kind. So with the next ones.
    pub fn appended(self) -> Result<Appended, EventsError> {
        match self.result? {
            Response::Appended(appended) => Ok(appended),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// A page of events.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn page(self) -> Result<Page, EventsError> {
        match self.result? {
            Response::Page(page) => Ok(page),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// Events for a consumer.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn taken(self) -> Result<Taken, EventsError> {
        match self.result? {
            Response::Taken(taken) => Ok(taken),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// How a stream is.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn stream(self) -> Result<StreamInfo, EventsError> {
        match self.result? {
            Response::Stream(info) => Ok(info),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// A page of streams.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn streams(self) -> Result<Vec<StreamInfo>, EventsError> {
        match self.result? {
            Response::Streams(streams) => Ok(streams),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// How a group is.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn group(self) -> Result<GroupInfo, EventsError> {
        match self.result? {
            Response::Group(group) => Ok(*group),
            _ => Err(EventsError::Undecodable),
        }
    }

    /// How the store is.
    ///
    /// # Errors
    /// As [`Reply::appended`].
    pub fn status(self) -> Result<Status, EventsError> {
        match self.result? {
            Response::Status(status) => Ok(status),
            _ => Err(EventsError::Undecodable),
        }
    }
}
