//! The digest: a chain over history, so that it costs a write only as much as what the write changed.
//!
//! Each change of state is appended to the last link of the chain; a link that has [`LINK_BYTES`] is closed, and the next one begins with its
//! hash. The digest is `BLAKE3(last link)`: whoever asks for it pays for one link, and a change costs its bytes, which are hashed many at
//! a time. An operation that changes nothing leaves it alone. Hence equal digests ⇔ equal histories of changes, which implies equal
//! states; the history counts as part of the state, so two histories that end in the same keys still have different
//! digests. A snapshot carries the last link, and a hash of its own over the contents.
//!
//! ```text
//! link        BLAKE3(link before) 32 | record*                       the first: BLAKE3("quorate kv history v2")
//! write       1 u8 | revision i64 | changes u64 | change*
//! compaction  2 u8 | revision i64
//! lease       3 u8 | id i64 | ttl i64 | expires u64                  ttl 0: revoked
//! auth        4 u8 | revision u64 | length u64 | operation           of users and roles, borsh
//! change      sub u64 | lease i64 | version i64 | key length u64 | value length u64 | key | value
//! ```
//! Integers are little-endian. A record says where it ends, so two lists of records are never the same bytes.

use super::lease::Lease;
use super::store::Step;
use quorate_core::crypto::Digest;
use std::sync::Arc;

/// A link of so many bytes is closed: enough for the hash to work on several parts at once, little enough to copy when a
/// view shares it.
const LINK_BYTES: usize = 8 * 1024;
/// Room that the last link may keep for itself after a large change, in bytes.
const LINK_ROOM_BYTES: usize = 8 * LINK_BYTES;
const DIGEST_BYTES: usize = 32;

/// The chain over all changes since the beginning: its last link. A copy is shared until one of both goes on.
#[derive(Clone, Debug)]
pub(super) struct Chain(Arc<Vec<u8>>);

impl Chain {
    pub(super) fn new() -> Self {
        Self(Arc::new(Digest::of(b"quorate kv history v2").as_bytes().to_vec()))
    }

    /// From a snapshot; `None` if the bytes are no last link.
    pub(super) fn restored(link: &[u8]) -> Option<Self> {
        (DIGEST_BYTES..LINK_BYTES).contains(&link.len()).then(|| Self(Arc::new(link.to_vec())))
    }

    /// The last link, for a snapshot.
    pub(super) fn link(&self) -> &[u8] {
        &self.0
    }

    pub(super) fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }

    /// The changes of one revision.
    pub(super) fn changes(&mut self, revision: i64, steps: &[Step]) {
        self.extend(|link| {
            link.push(1);
            link.extend_from_slice(&revision.to_le_bytes());
            link.extend_from_slice(&(steps.len() as u64).to_le_bytes());
            for Step { change, .. } in steps {
                let kv = &change.kv;
                let numbers = [
                    change.sub.to_le_bytes(),
                    kv.lease.to_le_bytes(),
                    kv.version.to_le_bytes(),
                    (kv.key.len() as u64).to_le_bytes(),
                    (kv.value.len() as u64).to_le_bytes(),
                ];
                link.extend_from_slice(numbers.as_flattened());
                link.extend_from_slice(&kv.key);
                link.extend_from_slice(&kv.value);
            }
        });
    }

    /// A compaction.
    pub(super) fn compaction(&mut self, revision: i64) {
        self.extend(|link| {
            link.push(2);
            link.extend_from_slice(&revision.to_le_bytes());
        });
    }

    /// A lease was granted, kept alive, or (`None`) revoked.
    pub(super) fn lease(&mut self, id: i64, lease: Option<&Lease>) {
        let (ttl, expires) = lease.map_or((0, 0), |lease| (lease.ttl, lease.expires.as_nanos()));
        self.extend(|link| {
            link.push(3);
            link.extend_from_slice([id.to_le_bytes(), ttl.to_le_bytes(), expires.to_le_bytes()].as_flattened());
        });
    }

    /// Users or roles were changed by an operation with these bytes; they are at this revision now.
    pub(super) fn auth(&mut self, revision: u64, operation: &[u8]) {
        self.extend(|link| {
            link.push(4);
            link.extend_from_slice([revision.to_le_bytes(), (operation.len() as u64).to_le_bytes()].as_flattened());
            link.extend_from_slice(operation);
        });
    }

    fn extend(&mut self, record: impl FnOnce(&mut Vec<u8>)) {
        let link = Arc::make_mut(&mut self.0);
        record(link);
        if link.len() >= LINK_BYTES {
            let digest = Digest::of(link);
            link.clear();
            link.shrink_to(LINK_ROOM_BYTES);
            link.extend_from_slice(digest.as_bytes());
        }
    }
}
