//! Leases: ids with an end, and the keys that end with them.
//!
//! Time is agreed time only. A lease whose end has come is deleted by the next tick, which [`Leases::next_expiry`] asks
//! for; until then puts may still name it (as in etcd), but it cannot be kept alive any more.

use super::error::KvError;
use super::limits::{LEASE_TTL_SECONDS_MAX, LEASE_TTL_SECONDS_MIN};
use super::reply::{LeaseTimeToLiveResponse, Response};
use super::store::{Store, Write};
use bytes::Bytes;
use imbl::{OrdMap, OrdSet};
use quorate_core::machine::{At, Output};
use quorate_core::time::{Duration, WallTime};

/// One lease.
#[derive(Clone, Debug, Default)]
pub(super) struct Lease {
    /// Seconds that it lives after being granted or kept alive; positive.
    pub(super) ttl: i64,
    /// When it ends.
    pub(super) expires: WallTime,
    /// The keys that end with it.
    pub(super) keys: OrdSet<Bytes>,
}

/// All leases. Invariant: `ends` has exactly the (`expires`, id) of `by_id`.
#[derive(Clone, Debug, Default)]
pub(super) struct Leases {
    by_id: OrdMap<i64, Lease>,
    ends: OrdSet<(WallTime, i64)>,
}

impl Leases {
    pub(super) fn get(&self, id: i64) -> Option<&Lease> {
        self.by_id.get(&id)
    }

    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Leases with an id above `after`, in the order of ids; all of them for `None`.
    pub(super) fn after(&self, after: Option<i64>) -> impl Iterator<Item = (i64, &Lease)> {
        let from = after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        self.by_id.range((from, std::ops::Bound::Unbounded)).map(|(id, lease)| (*id, lease))
    }

    /// Ids, the soonest to end first.
    pub(super) fn ids_by_end(&self) -> Vec<i64> {
        self.ends.iter().map(|(_, id)| *id).collect()
    }

    /// When the next lease ends, and which.
    pub(super) fn next_expiry(&self) -> Option<(WallTime, i64)> {
        self.ends.get_min().copied()
    }

    /// Adds or replaces a lease.
    pub(super) fn set(&mut self, id: i64, lease: Lease) {
        let expires = lease.expires;
        if let Some(before) = self.by_id.insert(id, lease) {
            self.ends.remove(&(before.expires, id));
        }
        self.ends.insert((expires, id));
    }

    fn remove(&mut self, id: i64) {
        if let Some(lease) = self.by_id.remove(&id) {
            self.ends.remove(&(lease.expires, id));
        }
    }

    /// Lets `key` end with lease `id`; 0 is no lease.
    pub(super) fn attach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.insert(key.clone());
        }
    }

    /// Lets `key` no longer end with lease `id`.
    pub(super) fn detach(&mut self, id: i64, key: &Bytes) {
        if let Some(lease) = self.by_id.get_mut(&id) {
            lease.keys.remove(key);
        }
    }

    /// A positive id that no lease has, by agreement: from the entropy of the operation's place.
    fn free_id(&self, at: &At) -> i64 {
        let bytes = at.entropy.bytes();
        let drawn = u64::from_le_bytes(std::array::from_fn(|index| bytes[index]));
        let mut id = (drawn & i64::MAX.unsigned_abs()).cast_signed().max(1);
        while self.by_id.contains_key(&id) {
            id = if id == i64::MAX { 1 } else { id.saturating_add(1) };
        }
        id
    }
}

/// Creates a lease.
pub(super) fn grant(store: &mut Store, at: &At, id: i64, ttl: i64) -> Result<Response, KvError> {
    if ttl > LEASE_TTL_SECONDS_MAX {
        return Err(KvError::LeaseTtlTooLarge);
    }
    if store.leases.get(id).is_some() {
        return Err(KvError::LeaseExists);
    }
    let id = if id == 0 { store.leases.free_id(at) } else { id };
    let ttl = ttl.max(LEASE_TTL_SECONDS_MIN);
    let lease = Lease { ttl, expires: end(at, ttl), keys: OrdSet::new() };
    store.chain.lease(id, Some(&lease));
    store.leases.set(id, lease);
    Ok(Response::LeaseGrant { id, ttl })
}

/// Lets a lease begin again. A lease that is over answers with a TTL of 0, which is no error.
pub(super) fn keep_alive(store: &mut Store, at: &At, id: i64) -> Response {
    let Some(lease) = store.leases.get(id).filter(|lease| lease.expires > at.time) else {
        return Response::LeaseKeepAlive { id, ttl: 0 };
    };
    let lease = Lease { expires: end(at, lease.ttl), ..lease.clone() };
    let ttl = lease.ttl;
    if store.leases.get(id).is_some_and(|before| before.expires != lease.expires) {
        store.chain.lease(id, Some(&lease));
        store.leases.set(id, lease);
    }
    Response::LeaseKeepAlive { id, ttl }
}

/// Ends a lease and deletes its keys, in one revision and in the order of keys.
pub(super) fn revoke(store: &mut Store, id: i64, out: &mut Output) -> Result<Response, KvError> {
    let keys = store.leases.get(id).ok_or(KvError::LeaseNotFound)?.keys.clone();
    let mut write = Write::new(store);
    for key in &keys {
        write.delete(key, &[]);
    }
    write.finish(out);
    store.chain.lease(id, None);
    store.leases.remove(id);
    Ok(Response::LeaseRevoke)
}

/// Ends every lease whose time has come, the soonest first, among equals the smallest id; each in a revision of its own.
pub(super) fn expire(store: &mut Store, at: &At, out: &mut Output) {
    while let Some((expires, id)) = store.leases.next_expiry().filter(|(expires, _)| *expires <= at.time) {
        let ended = revoke(store, id, out);
        assert!(ended.is_ok(), "lease {id} is listed to end at {expires:?}, so it exists");
    }
}

/// `ttl` seconds from now; a TTL is at most [`LEASE_TTL_SECONDS_MAX`].
fn end(at: &At, ttl: i64) -> WallTime {
    at.time.plus(Duration::from_secs(ttl.unsigned_abs()))
}

/// How long a lease has to live at `now`.
pub(super) fn time_to_live(store: &Store, id: i64, keys: bool, now: WallTime) -> LeaseTimeToLiveResponse {
    let Some(lease) = store.leases.get(id) else {
        return LeaseTimeToLiveResponse { id, ttl: -1, ..LeaseTimeToLiveResponse::default() };
    };
    let left = i64::try_from(lease.expires.since(now).as_secs()).unwrap_or(i64::MAX);
    LeaseTimeToLiveResponse {
        id,
        ttl: if lease.expires > now { left } else { -1 },
        granted_ttl: lease.ttl,
        expires: lease.expires,
        keys: if keys { lease.keys.iter().cloned().collect() } else { Vec::new() },
    }
}
