//! The store as a stream of bytes, and back.
//!
//! ```text
//! stream   version u8 = 1 | frame(header) | frame(lease)* | frame(change)* | BLAKE3 of all bytes before 32 | frame(own)*
//! frame    length u32 | body
//! header   revision i64 | compacted i64 | digest 32 | leases u64 | changes u64
//! lease    id i64 | ttl i64 | expires u64                                        ascending by id
//! change   sub u64 | key | create i64 | mod i64 | version i64 | value | lease i64    ascending by (mod, sub)
//! own      key | revision i64 | 0, or 1 and key, create, mod, version, value, lease    a key with an order of its own,
//!                                                                                      ascending by key
//! ```
//! Integers are little-endian; key and value follow their length as a u32 (borsh). Nothing else is state: which keys
//! exist, what a lease holds, the counters, all follow from the changes that are kept, and are rebuilt from them.
//! One state has one stream. The sink believes nothing: each change must be one that could have followed
//! the changes before it, and the hash at the end must be that of the stream.

use super::Kv;
use super::lease::Lease;
use super::limits::{KEY_BYTES_MAX, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, REVISION_MAX, VALUE_BYTES_MAX};
use super::objects::{Own, Owns};
use super::reply::KeyValue;
use super::store::{Change, Place, Store};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use imbl::OrdSet;
use quorate_core::crypto::Digest;
use quorate_core::machine::{Corrupt, Sink, Source};
use quorate_core::time::WallTime;
use std::ops::Bound;

/// The version of the format; the stream's first byte.
const VERSION: u8 = 1;

/// Longest body of a frame, in bytes: a change with the longest key and value, and its numbers.
const FRAME_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 128;

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

#[derive(BorshSerialize, BorshDeserialize)]
struct Header {
    revision: i64,
    compacted: i64,
    digest: Digest,
    leases: u64,
    changes: u64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct LeaseFrame {
    id: i64,
    ttl: i64,
    expires: WallTime,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct ChangeFrame<K> {
    sub: u64,
    kv: K,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct OwnFrame {
    key: Bytes,
    own: Own,
}

/// Where a source is in its stream.
#[derive(Debug)]
enum Next {
    Header,
    /// The lease after this id.
    Lease(Option<i64>),
    /// The change after this place.
    Change(Option<Place>),
    Hash,
    /// The key with an order of its own after this one.
    Own(Option<Bytes>),
    Nothing,
}

/// Writes a state out, frame by frame, from maps that it shares with the machine.
#[derive(Debug)]
pub struct KvSource {
    store: Store,
    owns: Owns,
    next: Next,
    hasher: blake3::Hasher,
}

impl KvSource {
    pub(super) fn new(store: Store, owns: Owns) -> Self {
        Self { store, owns, next: Next::Header, hasher: blake3::Hasher::new() }
    }

    /// Appends frames until `into` has `until` bytes or their kind is at its end. Answers with what comes next.
    fn write(&self, until: usize, into: &mut Vec<u8>) -> Next {
        match self.next {
            Next::Header => {
                into.push(VERSION);
                frame(&self.header(), into);
                Next::Lease(None)
            }
            Next::Lease(after) => {
                for (id, lease) in self.store.leases.after(after) {
                    frame(&LeaseFrame { id, ttl: lease.ttl, expires: lease.expires }, into);
                    if into.len() >= until {
                        return Next::Lease(Some(id));
                    }
                }
                Next::Change(None)
            }
            Next::Change(after) => {
                let from = after.map_or(Bound::Unbounded, Bound::Excluded);
                for (place, change) in self.store.history.range((from, Bound::Unbounded)) {
                    frame(&ChangeFrame { sub: change.sub, kv: &change.kv }, into);
                    if into.len() >= until {
                        return Next::Change(Some(*place));
                    }
                }
                Next::Hash
            }
            Next::Hash => {
                into.extend_from_slice(self.hasher.finalize().as_bytes());
                Next::Own(None)
            }
            Next::Own(ref after) => {
                for (key, own) in self.owns.after(after.as_ref()) {
                    frame(&OwnFrame { key: key.clone(), own: own.clone() }, into);
                    if into.len() >= until {
                        return Next::Own(Some(key.clone()));
                    }
                }
                Next::Nothing
            }
            Next::Nothing => Next::Nothing,
        }
    }

    fn header(&self) -> Header {
        Header {
            revision: self.store.revision,
            compacted: self.store.compacted,
            digest: self.store.digest,
            leases: self.store.leases.len() as u64,
            changes: self.store.history.len() as u64,
        }
    }
}

impl Source for KvSource {
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

/// Appends a frame. Bodies are far shorter than 4 GiB, and memory takes all bytes.
fn frame(body: &impl BorshSerialize, into: &mut Vec<u8>) {
    let start = into.len();
    into.extend_from_slice(&[0; 4]);
    let written = body.serialize(into);
    assert!(written.is_ok(), "keys and values are shorter than 4 GiB");
    let length = u32::try_from(into.len().saturating_sub(start).saturating_sub(4)).unwrap_or(u32::MAX);
    if let Some(place) = into.get_mut(start..start.saturating_add(4)) {
        place.copy_from_slice(&length.to_le_bytes());
    }
}

/// What a sink waits for.
#[derive(Debug)]
enum Awaited {
    Version,
    Header,
    Leases { left: u64, changes: u64 },
    Changes { left: u64 },
    Hash,
    Owns,
}

/// Rebuilds a state. Holds at most one unfinished frame, besides the state so far.
#[derive(Debug)]
pub struct KvSink {
    store: Store,
    awaited: Awaited,
    unread: Vec<u8>,
    hasher: blake3::Hasher,
    last_lease: Option<i64>,
    last_change: Option<Place>,
    owns: Owns,
    last_own: Option<Bytes>,
}

fn corrupt<T>(why: impl Into<String>) -> Result<T, Corrupt> {
    Err(Corrupt(why.into()))
}

impl KvSink {
    pub(super) fn new() -> Self {
        Self {
            store: Store::new(),
            awaited: Awaited::Version,
            unread: Vec::new(),
            hasher: blake3::Hasher::new(),
            last_lease: None,
            last_change: None,
            owns: Owns::default(),
            last_own: None,
        }
    }

    /// Reads one item from the front of `bytes`; how long it was, or nothing if it is not all there yet.
    fn read(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        match self.awaited {
            Awaited::Version => self.read_version(bytes),
            Awaited::Header | Awaited::Leases { .. } | Awaited::Changes { .. } => self.read_frame(bytes),
            Awaited::Hash => self.read_hash(bytes),
            Awaited::Owns => self.read_frame(bytes),
        }
    }

    fn read_version(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        match bytes.first() {
            None => Ok(None),
            Some(&VERSION) => {
                self.awaited = Awaited::Header;
                Ok(Some(1))
            }
            Some(other) => corrupt(format!("format version {other}; this release reads {VERSION}")),
        }
    }

    fn read_hash(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        let Some(hash) = bytes.get(..HASH_BYTES) else {
            return Ok(None);
        };
        if hash != self.hasher.finalize().as_bytes() {
            return corrupt("the hash at the end is not that of the bytes before");
        }
        self.awaited = Awaited::Owns;
        Ok(Some(HASH_BYTES))
    }

    fn read_frame(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        let Some(length) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let length = u32::from_le_bytes(*length) as usize;
        if length > FRAME_BYTES_MAX {
            return corrupt(format!("a frame of {length} bytes; the longest has {FRAME_BYTES_MAX}"));
        }
        let end = length.saturating_add(4);
        let Some(body) = bytes.get(4..end) else { return Ok(None) };
        let awaited = match self.awaited {
            Awaited::Header => self.on_header(parse(body)?)?,
            Awaited::Leases { left, changes } => {
                self.on_lease(&parse(body)?)?;
                Awaited::Leases { left: left.saturating_sub(1), changes }
            }
            Awaited::Changes { left } => {
                self.on_change(parse(body)?)?;
                Awaited::Changes { left: left.saturating_sub(1) }
            }
            Awaited::Owns => {
                self.on_own(parse(body)?)?;
                Awaited::Owns
            }
            Awaited::Version | Awaited::Hash => return corrupt("a frame where none is due"),
        };
        self.awaited = self.settle(awaited)?;
        Ok(Some(end))
    }

    /// What is awaited once lists that are complete have been left behind.
    fn settle(&self, awaited: Awaited) -> Result<Awaited, Corrupt> {
        match awaited {
            Awaited::Leases { left: 0, changes } => self.settle(Awaited::Changes { left: changes }),
            Awaited::Changes { left: 0 } => {
                let last = self.last_change.map_or(1, |place| place.revision);
                if last.max(self.store.compacted) != self.store.revision {
                    return corrupt(format!("revision {} is claimed, {last} is the last", self.store.revision));
                }
                Ok(Awaited::Hash)
            }
            other => Ok(other),
        }
    }

    fn on_header(&mut self, header: Header) -> Result<Awaited, Corrupt> {
        let Header { revision, compacted, digest, leases, changes } = header;
        if !(1..=REVISION_MAX).contains(&revision) {
            return corrupt(format!("revision {revision} is not within 1 to {REVISION_MAX}"));
        }
        if !(-1..=revision).contains(&compacted) {
            return corrupt(format!("compacted at {compacted}, beyond revision {revision}"));
        }
        self.store = Store { revision, compacted, digest, ..Store::new() };
        Ok(Awaited::Leases { left: leases, changes })
    }

    fn on_lease(&mut self, frame: &LeaseFrame) -> Result<(), Corrupt> {
        let &LeaseFrame { id, ttl, expires } = frame;
        if self.last_lease.is_some_and(|last| last >= id) || id == 0 {
            return corrupt(format!("lease {id} is out of order"));
        }
        if !(LEASE_TTL_SECONDS_MIN..=LEASE_TTL_SECONDS_MAX).contains(&ttl) {
            return corrupt(format!("lease {id} has a TTL of {ttl} seconds"));
        }
        self.last_lease = Some(id);
        self.store.leases.set(id, Lease { ttl, expires, keys: OrdSet::new() });
        Ok(())
    }

    fn on_own(&mut self, frame: OwnFrame) -> Result<(), Corrupt> {
        let OwnFrame { key, own } = frame;
        if self.last_own.as_ref().is_some_and(|last| *last >= key) {
            return corrupt("keys with orders of their own are not in order");
        }
        if let Some(kv) = &own.kv {
            check_sizes(kv)?;
            if kv.key != key || kv.mod_revision != own.revision {
                return corrupt("a key that is not what its order has led to");
            }
        }
        self.owns.set(&key, Some(own));
        self.last_own = Some(key);
        Ok(())
    }

    fn on_change(&mut self, frame: ChangeFrame<KeyValue>) -> Result<(), Corrupt> {
        let change = Change { kv: frame.kv, sub: frame.sub };
        let place = change.place();
        self.check_place(place)?;
        check_sizes(&change.kv)?;
        let entry = self.store.keys.get::<[u8]>(change.kv.key.as_ref());
        let previous = entry.map(|entry| &entry.newest.kv);
        if !follows(previous, &change.kv, self.store.compacted) {
            return corrupt(format!("the change at {}.{} does not follow its key's last", place.revision, place.sub));
        }
        if let Some(before) = previous {
            self.store.leases.detach(before.lease, &before.key);
        }
        // an older put may name a lease that is over; the newest of a key may not, which `finish` checks
        self.store.leases.attach(change.kv.lease, &change.kv.key);
        self.last_change = Some(place);
        self.store.enter(&change.kv.key.clone(), |_| change);
        Ok(())
    }

    /// After the compacted revision, every revision has changes, numbered without gaps.
    fn check_place(&self, place: Place) -> Result<(), Corrupt> {
        let last = self.last_change.unwrap_or(Place::first(1));
        let compacted = self.store.compacted;
        let in_order = if place.revision <= compacted {
            place > last
        } else if place.revision == last.revision {
            place.sub == last.sub.saturating_add(1)
        } else {
            place == Place::first(last.revision.max(compacted).saturating_add(1))
        };
        if !in_order || place.revision < 2 || place.revision > self.store.revision {
            return corrupt(format!(
                "a change at {}.{} after {}.{}",
                place.revision, place.sub, last.revision, last.sub
            ));
        }
        Ok(())
    }

    /// Every lease that a live key names exists.
    fn check_leases(&self) -> Result<(), Corrupt> {
        for entry in self.store.keys.values() {
            let lease = entry.newest.kv.lease;
            if entry.live && lease != 0 && self.store.leases.get(lease).is_none() {
                return corrupt(format!("a key names lease {lease}, which does not exist"));
            }
        }
        Ok(())
    }
}

impl Sink<Kv> for KvSink {
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

    fn finish(self) -> Result<Kv, Corrupt> {
        if !matches!(self.awaited, Awaited::Owns) || !self.unread.is_empty() {
            return corrupt("the stream ends too early");
        }
        self.check_leases()?;
        Ok(Kv { store: self.store, owns: self.owns })
    }
}

fn parse<T: BorshDeserialize>(body: &[u8]) -> Result<T, Corrupt> {
    borsh::from_slice(body).or_else(|error| corrupt(format!("a frame that does not parse: {error}")))
}

fn check_sizes(kv: &KeyValue) -> Result<(), Corrupt> {
    if kv.key.is_empty() || kv.key.len() > KEY_BYTES_MAX || kv.value.len() > VALUE_BYTES_MAX {
        return corrupt(format!("a key of {} bytes with a value of {}", kv.key.len(), kv.value.len()));
    }
    Ok(())
}

/// Whether `kv` can be the next change of its key after `previous` (of what is kept).
fn follows(previous: Option<&KeyValue>, kv: &KeyValue, compacted: i64) -> bool {
    let created_now = kv.version == 1 && kv.create_revision == kv.mod_revision;
    let kept_by_compaction = kv.mod_revision <= compacted;
    if kept_by_compaction && previous.is_some() {
        return false;
    }
    if kv.is_tombstone() {
        let bare = kv.value.is_empty() && kv.lease == 0 && kv.create_revision == 0;
        let of_something = previous.is_some_and(|previous| !previous.is_tombstone());
        return bare && (of_something || kv.mod_revision == compacted);
    }
    match previous.filter(|previous| !previous.is_tombstone()) {
        Some(previous) => {
            Some(kv.version) == previous.version.checked_add(1) && kv.create_revision == previous.create_revision
        }
        None if kept_by_compaction => {
            let older = kv.version > 1 && (2..kv.mod_revision).contains(&kv.create_revision);
            created_now || older
        }
        None => created_now,
    }
}
