//! The digest: a chain over history, one link for each event and for each other operation that changed something. A link
//! holds the *digest* of an event's contents, so that the chain can be checked when the contents are freed.
//!
//! ```text
//! event       digest 32 | 1 u8 | position u64 | version u64 | time u64 | id 16 | content 32 | stream
//! operation   digest 32 | 2 u8 | time u64 | the operation's bytes
//! content     borsh of (type, data, metadata, correlation, causation)
//! ```
//! Integers are little-endian. What stands last has no length before it: nothing follows.

use super::operation::NewEvent;
use super::store::{Event, Known};
use borsh::BorshSerialize;
use quorate_core::crypto::Digest;
use quorate_core::time::WallTime;

/// The digest of what an event says, without its id and its place.
pub(super) fn content(event: &NewEvent) -> Digest {
    let NewEvent { id: _, kind, data, metadata, correlation, causation } = event;
    let mut hasher = blake3::Hasher::new();
    let written = (kind, data, metadata, correlation, causation).serialize(&mut hasher);
    assert!(written.is_ok(), "a hasher takes all bytes, and no part has 2³² of them");
    finish(&hasher)
}

/// The digest after an event was recorded.
pub(super) fn after_event(before: &Digest, stream: &str, event: &Event, known: &Known) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(&[1]);
    hasher.update(&known.position.to_le_bytes()).update(&known.version.to_le_bytes());
    hasher.update(&event.time.as_nanos().to_le_bytes()).update(&event.id.0);
    hasher.update(known.content.as_bytes()).update(stream.as_bytes());
    finish(&hasher)
}

/// The digest after any other operation that changed something.
pub(super) fn after_operation(before: &Digest, time: WallTime, operation: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(&[2]);
    hasher.update(&time.as_nanos().to_le_bytes()).update(operation);
    finish(&hasher)
}

fn finish(hasher: &blake3::Hasher) -> Digest {
    Digest::new(*hasher.finalize().as_bytes())
}
