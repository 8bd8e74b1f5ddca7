//! Whether a user may do something, in a state. etcd's rules, where it has them (its `apply_auth.go`).

use super::{Auth, AuthQuery, Permission, User, Who};
use crate::kv::error::{AuthError, KvError};
use crate::kv::intervals::Intervals;
use crate::kv::operation::{DeleteRange, Operation, Put, Query, Range, Txn, TxnOp};
use crate::kv::store::Store;
use bytes::Bytes;

/// Refuses an operation that `who` may not do.
pub(in crate::kv) fn operation(store: &Store, who: &Who, operation: &Operation) -> Result<(), KvError> {
    if let Operation::Read(query) = operation {
        return self::query(store, who, query);
    }
    let Some(rights) = Rights::of(store, who)? else { return Ok(()) };
    rights.check_operation(operation).map_err(KvError::Auth)
}

/// Refuses a query that `who` may not ask.
pub(in crate::kv) fn query(store: &Store, who: &Who, query: &Query) -> Result<(), KvError> {
    if matches!(query, Query::Auth(AuthQuery::Secret { .. })) {
        return Err(AuthError::PermissionDenied.into());
    }
    let Some(rights) = Rights::of(store, who)? else { return Ok(()) };
    rights.check_query(query).map_err(KvError::Auth)
}

/// What a user may do who may not do everything.
struct Rights<'a> {
    store: &'a Store,
    who: &'a Who,
    user: &'a User,
    readable: Intervals<'a>,
    writable: Intervals<'a>,
}

impl<'a> Rights<'a> {
    /// `None`: everything.
    fn of(store: &'a Store, who: &'a Who) -> Result<Option<Self>, AuthError> {
        let auth: &Auth = &store.auth;
        if !auth.enabled {
            return Ok(None);
        }
        if who.user.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        let user = auth.users.get(&who.user).ok_or(AuthError::InvalidToken)?;
        if who.since < user.since.max(auth.enabled_at) {
            return Err(AuthError::InvalidToken);
        }
        if user.is_root() {
            return Ok(None);
        }
        let (mut readable, mut writable) = (Intervals::default(), Intervals::default());
        for role in user.roles.iter().filter_map(|role| auth.roles.get(role)) {
            for permission in &role.permissions {
                let Permission { key, range_end, .. } = permission;
                if permission.reads() {
                    readable.add(key, range_end);
                }
                if permission.writes() {
                    writable.add(key, range_end);
                }
            }
        }
        Ok(Some(Self { store, who, user, readable, writable }))
    }

    fn check_operation(&self, operation: &Operation) -> Result<(), AuthError> {
        match operation {
            Operation::Put(put) => self.check_put(put),
            Operation::Delete(delete) => self.check_delete(delete),
            Operation::Txn(txn) => self.check_txn(txn),
            Operation::LeaseRevoke { id } => self.check_lease_writable(*id),
            Operation::Compact { .. } | Operation::LeaseGrant { .. } | Operation::LeaseKeepAlive { .. } => Ok(()),
            Operation::Auth(_) | Operation::As { .. } | Operation::Read(_) => Err(AuthError::PermissionDenied),
        }
    }

    fn check_query(&self, query: &Query) -> Result<(), AuthError> {
        let allowed = match query {
            Query::Range(range) => return self.check_range(range),
            Query::Events(events) | Query::EventsPart { events, .. } => {
                let key: &[u8] = if events.key.is_empty() { &[0] } else { &events.key };
                self.readable.covers(key, &events.range_end)
            }
            Query::LeaseTimeToLive { id, keys: true, .. } => {
                let lease = self.store.leases.get(*id);
                lease.is_none_or(|lease| lease.keys.iter().all(|key| self.readable.contains(key)))
            }
            Query::LeaseTimeToLive { .. } | Query::LeaseLeases | Query::Status => true,
            // of itself, and of what it may do, a user may know
            Query::Auth(AuthQuery::User { name }) => *name == self.who.user,
            Query::Auth(AuthQuery::Role { name }) => self.user.roles.contains(name),
            Query::Auth(_) | Query::As { .. } => false,
        };
        if allowed { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    fn check_put(&self, put: &Put) -> Result<(), AuthError> {
        if !self.writable.contains(&put.key) || (put.prev_kv && !self.readable.contains(&put.key)) {
            return Err(AuthError::PermissionDenied);
        }
        self.check_lease_writable(put.lease)
    }

    /// Whoever may not write a key may neither end the lease that it lives with, nor use it: the key would outlive its rights.
    fn check_lease_writable(&self, id: i64) -> Result<(), AuthError> {
        let lease = self.store.leases.get(id);
        let allowed = lease.is_none_or(|lease| lease.keys.iter().all(|key| self.writable.contains(key)));
        if allowed { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    fn check_delete(&self, delete: &DeleteRange) -> Result<(), AuthError> {
        let DeleteRange { key, range_end, prev_kv } = delete;
        let allowed = self.writable.covers(key, range_end) && (!prev_kv || self.readable.covers(key, range_end));
        if allowed { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    fn check_range(&self, range: &Range) -> Result<(), AuthError> {
        self.check_readable(&range.key, &range.range_end)
    }

    fn check_readable(&self, key: &Bytes, range_end: &Bytes) -> Result<(), AuthError> {
        if self.readable.covers(key, range_end) { Ok(()) } else { Err(AuthError::PermissionDenied) }
    }

    /// All of it, whatever will be done of it: otherwise, what is refused would tell what a key is. Recursion is as deep as the
    /// transaction is nested, which decoding has bounded.
    fn check_txn(&self, txn: &Txn) -> Result<(), AuthError> {
        for compare in &txn.compare {
            self.check_readable(&compare.key, &compare.range_end)?;
        }
        txn.success.iter().chain(&txn.failure).try_for_each(|step| match step {
            TxnOp::Range(range) => self.check_range(range),
            TxnOp::Put(put) => self.check_put(put),
            TxnOp::Delete(delete) => self.check_delete(delete),
            TxnOp::Txn(txn) => self.check_txn(txn),
        })
    }
}
