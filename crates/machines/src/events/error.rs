//! Refusals.

use super::limits::*;
use super::operation::{EventId, Expected};
use borsh::{BorshDeserialize, BorshSerialize};
use thiserror::Error;

/// Why a request was refused. A refused request changed nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Error)]
pub enum EventsError {
    /// The stream is not where the writer expects it: somebody else has appended meanwhile.
    #[error(
        "stream `{stream}` is at version {found}, not at the one expected ({expected}): read it again and decide anew"
    )]
    WrongVersion {
        /// The stream.
        stream: String,
        /// What was expected.
        expected: Expected,
        /// How many events the stream has had; 0 if it does not exist.
        found: u64,
    },
    /// The id names another event of the stream, or the same one elsewhere: not a repetition of what was appended.
    #[error("event id {id} was used for another event of stream `{stream}`, its version {version}")]
    IdReused {
        /// The stream.
        stream: String,
        /// The id.
        id: EventId,
        /// The version that has it.
        version: u64,
    },
    /// The stream was deleted for ever.
    #[error("stream `{stream}` was deleted for ever")]
    StreamGone {
        /// The stream.
        stream: String,
    },
    /// There is no such stream, or it is deleted.
    #[error("there is no stream `{stream}`")]
    NoStream {
        /// The stream.
        stream: String,
    },
    /// There is no such group.
    #[error("there is no group `{group}`")]
    NoGroup {
        /// The group.
        group: String,
    },
    /// The group exists, with another source or other settings.
    #[error("group `{group}` exists, with another source or other settings")]
    GroupExists {
        /// The group.
        group: String,
    },
    /// Too many events of the group are set aside.
    #[error("{GROUP_PARKED_MAX} events of group `{group}` are parked: replay or discard them")]
    GroupFull {
        /// The group.
        group: String,
    },
    /// A part of the request is beyond its bound.
    #[error("{0}")]
    TooLarge(Limit),
    /// A name is empty, longer than [`NAME_BYTES_MAX`], or has control characters.
    #[error("a name has 1 to {NAME_BYTES_MAX} bytes and no control characters; a type has at most {KIND_BYTES_MAX}")]
    BadName,
    /// A list that must not be empty is, or names something twice.
    #[error("{0}")]
    BadList(List),
    /// The bytes are not a request: unknown tag, truncated, or bytes left over.
    #[error("the bytes are not a request to an event store")]
    Undecodable,
}

/// Which bound a request went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Error)]
pub enum Limit {
    /// [`DATA_BYTES_MAX`]
    #[error("an event's data has at most {DATA_BYTES_MAX} bytes")]
    Data,
    /// [`METADATA_BYTES_MAX`]
    #[error("an event's metadata has at most {METADATA_BYTES_MAX} bytes")]
    Metadata,
    /// [`OPERATION_BYTES_MAX`]
    #[error("a request has at most {OPERATION_BYTES_MAX} bytes")]
    Operation,
    /// [`WRITES_MAX`]
    #[error("an append has at most {WRITES_MAX} writes")]
    Writes,
    /// [`APPEND_EVENTS_MAX`]
    #[error("an append brings at most {APPEND_EVENTS_MAX} events")]
    Events,
    /// [`FILTER_KINDS_MAX`]
    #[error("a filter names at most {FILTER_KINDS_MAX} types")]
    Kinds,
    /// [`GROUPS_MAX`]
    #[error("there are {GROUPS_MAX} groups already")]
    Groups,
    /// [`ACK_NUMBERS_MAX`]
    #[error("an acknowledgement names at most {ACK_NUMBERS_MAX} events")]
    Numbers,
    /// [`REASON_BYTES_MAX`]
    #[error("a reason has at most {REASON_BYTES_MAX} bytes")]
    Reason,
    /// [`GROUP_IN_FLIGHT_MAX`], [`RETRY_AFTER_NANOS_MAX`], and one at least.
    #[error("a group has 1 to {GROUP_IN_FLIGHT_MAX} events in flight, 1 attempt or more, and retries within a day")]
    Settings,
}

/// What is wrong with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Error)]
pub enum List {
    /// An append without events.
    #[error("an append brings at least one event")]
    NoEvents,
    /// An append that names a stream again, with an expectation.
    #[error("an append says once where a stream is expected, where it names the stream first")]
    ExpectedTwice,
    /// An append that gives two events of a stream one id.
    #[error("two events of a stream cannot have one id")]
    IdTwice,
}
