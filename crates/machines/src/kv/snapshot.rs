//! The store as a stream of bytes, and back.
//!
//! ```text
//! stream   version u8 | frame(header) | auth | frame(lease)* | frame(change)* | BLAKE3 of all bytes before 32 | frame(own)*
//! frame    length u32 | body
//! header   revision i64 | compacted i64 | length u32 and last link of the digest's chain | leases u64 | changes u64
//! auth     version 3: nothing; version 4: frame(auth header) | frame(user)* | frame(role)*
//! auth header   enabled u8 | revision u64 | enabled at u64 | users u64 | roles u64
//! user     name | 0 u8, or 1 u8 and hash | since u64 | count u32 | role's name*      ascending by name
//! role     name | count u32 | (kind u8 | key | range end)*                           ascending by name
//! lease    id i64 | ttl i64 | expires u64                                        ascending by id
//! change   sub u64 | key | create i64 | mod i64 | version i64 | value | lease i64    ascending by (mod, sub)
//! own      key | revision i64 | 0, or 1 and key, create, mod, version, value, lease    a key with an order of its own,
//!                                                                                      ascending by key
//! ```
//! A store whose users and roles were never touched is written as version 3.
//! Integers are little-endian; keys, values and names follow their length as a u32 (borsh). Nothing else is state: which keys
//! exist, what a lease holds, the counters, all follow from the changes that are kept, and are rebuilt from them.
//! One state has one stream. The sink believes nothing: each change must be one that could have followed
//! the changes before it, and the hash at the end must be that of the stream.

use super::Kv;
use super::auth::{Auth, Permission, ROOT, Role, User};
use super::digest::Chain;
use super::lease::Lease;
use super::limits::{KEY_BYTES_MAX, LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN, REVISION_MAX, VALUE_BYTES_MAX};
use super::limits::{NAME_BYTES_MAX, PASSWORD_HASH_BYTES_MAX, PERMISSIONS_PER_ROLE_MAX};
use super::limits::{ROLES_MAX, ROLES_PER_USER_MAX, USERS_MAX};
use super::objects::{Own, Owns};
use super::reply::KeyValue;
use super::store::{Change, Place, Store};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use imbl::OrdSet;
use quorate_core::machine::{Corrupt, Sink, Source};
use quorate_core::time::WallTime;
use std::ops::Bound;
use std::sync::Arc;

/// The version of the format without users and roles; the stream's first byte.
const VERSION: u8 = 3;
/// The version with them.
const VERSION_AUTH: u8 = 4;

/// Longest body of a frame, in bytes: a change with the longest key and value, and its numbers.
const FRAME_BYTES_MAX: usize = KEY_BYTES_MAX + VALUE_BYTES_MAX + 128;

/// Bytes of the hash at the end.
const HASH_BYTES: usize = 32;

#[derive(BorshSerialize, BorshDeserialize)]
struct Header {
    revision: i64,
    compacted: i64,
    chain: Vec<u8>,
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
struct AuthFrame {
    enabled: bool,
    revision: u64,
    enabled_at: u64,
    users: u64,
    roles: u64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct UserFrame {
    name: String,
    hash: Option<String>,
    since: u64,
    roles: Vec<String>,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct RoleFrame {
    name: String,
    permissions: Vec<Permission>,
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
    Auth,
    /// The user after this name.
    User(Option<String>),
    /// The role after this name.
    Role(Option<String>),
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
        match &self.next {
            Next::Header => {
                let untouched = self.store.auth.revision == Auth::new().revision;
                into.push(if untouched { VERSION } else { VERSION_AUTH });
                frame(&self.header(), into);
                if untouched { Next::Lease(None) } else { Next::Auth }
            }
            Next::Auth => {
                frame(&self.auth_header(), into);
                Next::User(None)
            }
            Next::User(after) => {
                for (name, user) in self.store.auth.users.range::<_, String>((beyond(after.as_ref()), Bound::Unbounded))
                {
                    let roles = user.roles.iter().cloned().collect();
                    let hash = user.hash.clone();
                    frame(&UserFrame { name: name.clone(), hash, since: user.since, roles }, into);
                    if into.len() >= until {
                        return Next::User(Some(name.clone()));
                    }
                }
                Next::Role(None)
            }
            Next::Role(after) => {
                for (name, role) in self.store.auth.roles.range::<_, String>((beyond(after.as_ref()), Bound::Unbounded))
                {
                    frame(&RoleFrame { name: name.clone(), permissions: role.permissions.clone() }, into);
                    if into.len() >= until {
                        return Next::Role(Some(name.clone()));
                    }
                }
                Next::Lease(None)
            }
            Next::Lease(after) => {
                for (id, lease) in self.store.leases.after(*after) {
                    frame(&LeaseFrame { id, ttl: lease.ttl, expires: lease.expires }, into);
                    if into.len() >= until {
                        return Next::Lease(Some(id));
                    }
                }
                Next::Change(None)
            }
            Next::Change(after) => {
                for (place, change) in self.store.history.range::<_, Place>((beyond(after.as_ref()), Bound::Unbounded))
                {
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
            Next::Own(after) => {
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

    fn auth_header(&self) -> AuthFrame {
        let auth = &self.store.auth;
        AuthFrame {
            enabled: auth.enabled,
            revision: auth.revision,
            enabled_at: auth.enabled_at,
            users: auth.users.len() as u64,
            roles: auth.roles.len() as u64,
        }
    }

    fn header(&self) -> Header {
        Header {
            revision: self.store.revision,
            compacted: self.store.compacted,
            chain: self.store.chain.link().to_vec(),
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

/// Beyond the last that was written; from the beginning, if there was none.
fn beyond<T>(last: Option<&T>) -> Bound<&T> {
    last.map_or(Bound::Unbounded, Bound::Excluded)
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
    Header { with_auth: bool },
    Auth { rest: Rest },
    Users { left: u64, roles: u64, rest: Rest },
    Roles { left: u64, rest: Rest },
    Leases { left: u64, changes: u64 },
    Changes { left: u64 },
    Hash,
    Owns,
}

/// What the header says of what comes after users and roles.
#[derive(Clone, Copy, Debug)]
struct Rest {
    leases: u64,
    changes: u64,
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
            Awaited::Hash => self.read_hash(bytes),
            _ => self.read_frame(bytes),
        }
    }

    fn read_version(&mut self, bytes: &[u8]) -> Result<Option<usize>, Corrupt> {
        match bytes.first() {
            None => Ok(None),
            Some(version @ &(VERSION | VERSION_AUTH)) => {
                self.awaited = Awaited::Header { with_auth: *version == VERSION_AUTH };
                Ok(Some(1))
            }
            Some(other) => corrupt(format!("format version {other}; this release reads {VERSION} and {VERSION_AUTH}")),
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
            Awaited::Header { with_auth } => self.on_header(&parse(body)?, with_auth)?,
            Awaited::Auth { rest } => self.on_auth(&parse(body)?, rest)?,
            Awaited::Users { left, roles, rest } => {
                self.on_user(parse(body)?)?;
                Awaited::Users { left: left.saturating_sub(1), roles, rest }
            }
            Awaited::Roles { left, rest } => {
                self.on_role(parse(body)?)?;
                Awaited::Roles { left: left.saturating_sub(1), rest }
            }
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
            Awaited::Users { left: 0, roles, rest } => self.settle(Awaited::Roles { left: roles, rest }),
            Awaited::Roles { left: 0, rest: Rest { leases, changes } } => {
                self.check_auth()?;
                self.settle(Awaited::Leases { left: leases, changes })
            }
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

    fn on_header(&mut self, header: &Header, with_auth: bool) -> Result<Awaited, Corrupt> {
        let &Header { revision, compacted, ref chain, leases, changes } = header;
        if !(1..=REVISION_MAX).contains(&revision) {
            return corrupt(format!("revision {revision} is not within 1 to {REVISION_MAX}"));
        }
        if !(-1..=revision).contains(&compacted) {
            return corrupt(format!("compacted at {compacted}, beyond revision {revision}"));
        }
        let Some(chain) = Chain::restored(chain) else {
            return corrupt(format!("a link of the digest's chain with {} bytes", chain.len()));
        };
        self.store = Store { revision, compacted, chain, ..Store::new() };
        let rest = Rest { leases, changes };
        Ok(if with_auth { Awaited::Auth { rest } } else { Awaited::Leases { left: leases, changes } })
    }

    fn on_auth(&mut self, frame: &AuthFrame, rest: Rest) -> Result<Awaited, Corrupt> {
        let &AuthFrame { enabled, revision, enabled_at, users, roles } = frame;
        let untouched = Auth::new();
        if revision <= untouched.revision || enabled_at > revision {
            return corrupt(format!("users and roles at revision {revision}, counted since {enabled_at}"));
        }
        if users > USERS_MAX as u64 || roles > ROLES_MAX as u64 {
            return corrupt(format!("{users} users and {roles} roles"));
        }
        self.store.auth = Arc::new(Auth { enabled, revision, enabled_at, ..untouched });
        Ok(Awaited::Users { left: users, roles, rest })
    }

    fn on_user(&mut self, frame: UserFrame) -> Result<(), Corrupt> {
        let UserFrame { name, hash, since, roles } = frame;
        let auth = Arc::make_mut(&mut self.store.auth);
        let in_order = auth.users.get_max().is_none_or(|(last, _)| *last < name);
        let roles_in_order = roles.is_sorted_by(|one, other| one < other);
        if !in_order || !roles_in_order || name.is_empty() {
            return corrupt(format!("user {name:?} or a role of it is out of order"));
        }
        let hash_bytes = hash.as_ref().map_or(0, String::len);
        let longest = roles.iter().map(String::len).max().unwrap_or_default().max(name.len());
        if longest > NAME_BYTES_MAX || hash_bytes > PASSWORD_HASH_BYTES_MAX || roles.len() > ROLES_PER_USER_MAX {
            return corrupt(format!("user {name:?} is beyond a limit"));
        }
        if since > auth.revision {
            return corrupt(format!("user {name:?} is of revision {since}, beyond {}", auth.revision));
        }
        auth.users.insert(name, Arc::new(User { hash, since, roles: roles.into_iter().collect() }));
        Ok(())
    }

    fn on_role(&mut self, frame: RoleFrame) -> Result<(), Corrupt> {
        let RoleFrame { name, permissions } = frame;
        let auth = Arc::make_mut(&mut self.store.auth);
        let in_order = auth.roles.get_max().is_none_or(|(last, _)| *last < name);
        let place = |it: &Permission| (it.key.clone(), it.range_end.clone());
        let permissions_in_order = permissions.is_sorted_by(|one, other| place(one) < place(other));
        if !in_order || !permissions_in_order || name.is_empty() {
            return corrupt(format!("role {name:?} or a permission of it is out of order"));
        }
        let longest = permissions.iter().map(|it| it.key.len().max(it.range_end.len())).max().unwrap_or_default();
        if name.len() > NAME_BYTES_MAX || permissions.len() > PERMISSIONS_PER_ROLE_MAX || longest > KEY_BYTES_MAX {
            return corrupt(format!("role {name:?} is beyond a limit"));
        }
        auth.roles.insert(name, Arc::new(Role { permissions }));
        Ok(())
    }

    /// Every role that a user has exists or is `root`; where users count, there is a root.
    fn check_auth(&self) -> Result<(), Corrupt> {
        let auth = &self.store.auth;
        for (name, user) in &auth.users {
            if let Some(role) = user.roles.iter().find(|role| *role != ROOT && !auth.roles.contains_key(*role)) {
                return corrupt(format!("user {name:?} has role {role:?}, which does not exist"));
            }
        }
        if auth.enabled && !auth.users.get(ROOT).is_some_and(|root| root.is_root()) {
            return corrupt("users count, and there is no root");
        }
        Ok(())
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
