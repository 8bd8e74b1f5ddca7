//! What a replica keeps on disk, besides what PBFT keeps.

use crate::pbft::{self, Group};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::time::WallTime;

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// PBFT's.
    Module(pbft::Record),
    /// A publication. Whoever else has received it has the same bytes.
    Publication(Group),
    /// My promise: it is kept until it is ordered, and this is when I received it. Nobody else can tell.
    Received {
        /// The publication.
        digest: Digest,
        /// When.
        time: WallTime,
    },
    /// These are ordered: PBFT's log has them.
    Inserted(Vec<Digest>),
}
