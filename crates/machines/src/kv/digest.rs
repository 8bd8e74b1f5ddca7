//! The digest: a chain over history, so that it costs a write only as much as what the write changed.
//!
//! Each change of state replaces the digest by `BLAKE3(digest ‖ kind ‖ what changed)`; an operation that changes nothing
//! leaves it alone. Hence equal digests ⇔ equal histories of changes, which implies equal states; the history counts as
//! part of the state, so two histories that end in the same keys still have different digests.
//! A snapshot carries the chain, and a hash of its own over the contents.
//!
//! ```text
//! write       digest 32 | 1 u8 | revision i64 | changes u64 | change*
//! compaction  digest 32 | 2 u8 | revision i64
//! lease       digest 32 | 3 u8 | id i64 | ttl i64 | expires u64      ttl 0: revoked
//! auth        digest 32 | 4 u8 | revision u64 | operation            of users and roles, borsh
//! change      sub u64 | lease i64 | version i64 | key length u64 | value length u64 | key | value
//! ```
//! Integers are little-endian.

use super::lease::Lease;
use super::store::{Step, Store};
use quorate_core::crypto::Digest;

/// The digest after the changes of one revision.
pub(super) fn after_changes(store: &Store, steps: &[Step]) -> Digest {
    let mut hasher = start(store, 1);
    hasher.update(&store.revision.to_le_bytes());
    hasher.update(&(steps.len() as u64).to_le_bytes());
    for Step { change, .. } in steps {
        let kv = &change.kv;
        let mut fixed = [0; 40];
        let numbers = [
            change.sub.to_le_bytes(),
            kv.lease.to_le_bytes(),
            kv.version.to_le_bytes(),
            (kv.key.len() as u64).to_le_bytes(),
            (kv.value.len() as u64).to_le_bytes(),
        ];
        for (into, number) in fixed.chunks_exact_mut(8).zip(numbers) {
            into.copy_from_slice(&number);
        }
        hasher.update(&fixed).update(&kv.key).update(&kv.value);
    }
    finish(&hasher)
}

/// The digest after a compaction.
pub(super) fn after_compaction(store: &Store, revision: i64) -> Digest {
    finish(start(store, 2).update(&revision.to_le_bytes()))
}

/// The digest after a lease was granted, kept alive, or (`None`) revoked.
pub(super) fn after_lease(store: &Store, id: i64, lease: Option<&Lease>) -> Digest {
    let (ttl, expires) = lease.map_or((0, 0), |lease| (lease.ttl, lease.expires.as_nanos()));
    let mut hasher = start(store, 3);
    hasher.update(&id.to_le_bytes()).update(&ttl.to_le_bytes()).update(&expires.to_le_bytes());
    finish(&hasher)
}

/// The digest after users or roles were changed by an operation with these bytes.
pub(super) fn after_auth(store: &Store, operation: &[u8]) -> Digest {
    finish(start(store, 4).update(&store.auth.revision.to_le_bytes()).update(operation))
}

fn start(store: &Store, kind: u8) -> blake3::Hasher {
    let mut hasher = blake3::Hasher::new();
    hasher.update(store.digest.as_bytes()).update(&[kind]);
    hasher
}

fn finish(hasher: &blake3::Hasher) -> Digest {
    Digest::new(*hasher.finalize().as_bytes())
}
