//! The two messages, and the one record.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::ids::OpNumber;
use quorate_core::sessions;

/// What travels.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client to every replica: please apply this.
    Request(sessions::Request),
    /// Replica to client: it came to this, in the order in which *I* received it.
    Reply(Reply),
}

/// What one replica answers.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The replica's own number of the entry.
    pub op: OpNumber,
    /// What the request came to.
    pub reply: sessions::Reply,
}

/// What the log holds: a batch of one request, received as entry `op`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Record {
    /// The replica's own number of the entry.
    pub op: OpNumber,
    /// An encoded batch.
    pub batch: Bytes,
}
