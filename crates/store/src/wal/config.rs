//! What a caller chooses: the shape of a log, and how carefully a record is kept.

use super::{WalError, segment};

/// How carefully a record is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// One copy: others have it too, so that a damaged one can be fetched again.
    Entry,
    /// Two copies: nobody else has it (a vote, a view), and forgetting it may break a protocol.
    Promise,
}

/// The shape of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WalConfig {
    /// Tells this log from every other: random, chosen once, kept in the superblock. Clients should not learn it.
    pub log_id: u128,
    /// Bytes of a full-size segment: 64 MiB; a multiple of 4096, at least 16 KiB.
    pub segment_bytes: u64,
    /// Bytes of the first segment: 4 MiB, small because it delays the first write; as above, and at most `segment_bytes`.
    pub first_segment_bytes: u64,
    /// The longest body in bytes: 17 MiB, at most 1 GiB. A longer one than a segment holds gets a segment of its own size.
    pub body_bytes_max: usize,
}

impl WalConfig {
    /// The defaults, for the log `log_id`.
    pub fn new(log_id: u128) -> Self {
        Self { log_id, segment_bytes: 64 << 20, first_segment_bytes: 4 << 20, body_bytes_max: 17 << 20 }
    }

    /// Whether the numbers make sense.
    ///
    /// # Errors
    /// [`WalError::Config`] with the reason.
    pub fn check(&self) -> Result<(), WalError> {
        let sized = |bytes: u64| bytes.is_multiple_of(segment::BLOCK as u64) && (16 << 10..=1 << 40).contains(&bytes);
        if !sized(self.segment_bytes) || !sized(self.first_segment_bytes) {
            return Err(WalError::Config("a segment's size is a multiple of 4096 bytes, from 16 KiB to 1 TiB"));
        }
        if self.first_segment_bytes > self.segment_bytes {
            return Err(WalError::Config("the first segment is not larger than the others"));
        }
        if self.body_bytes_max > 1 << 30 {
            return Err(WalError::Config("a body has at most 1 GiB"));
        }
        Ok(())
    }
}
