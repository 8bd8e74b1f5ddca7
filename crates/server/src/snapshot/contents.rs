//! What a snapshot holds, read through the cluster: etcd's buckets, in the order of their names.

use super::Part;
use crate::errors::EtcdError;
use crate::hub::kv_size;
use crate::limits::{PAGE_KEYS_MAX, RANGE_BYTES_MAX};
use crate::proto::authpb::{self, permission};
use crate::proto::etcdserverpb::ResponseHeader;
use crate::proto::{leasepb, mvccpb};
use crate::store::{Read, Store};
use bytes::Bytes;
use prost::Message;
use quorate_core::time::WallTime;
use quorate_machines::kv::{
    AuthQuery, AuthResponse, Event, EventKind, Events, KeyValue, KvError, Permission, PermissionKind, Query, Range,
    Response as Answer, WatchBatch,
};
use std::collections::BTreeMap;
use tokio::sync::mpsc;

type Entry = (Vec<u8>, Vec<u8>);

/// Sends all buckets to be written. The header is that of the revision that they are of.
///
/// # Errors
/// No answer; compacted meanwhile; too much to be held here that was there before the last compaction.
pub async fn gather(store: &Store, parts: &mpsc::Sender<Part>) -> Result<ResponseHeader, EtcdError> {
    // Leases that end while this reads are in it, and so are those that begin: a key never names one that is not.
    let mut leases = leases(store).await?;
    let status = store.status().await?;
    let (present, compacted) = (status.revision, status.compact_revision);
    let to = Gatherer { store, parts };
    to.bucket("alarm", Vec::new()).await?;
    to.users_and_roles().await?;
    to.bucket("cluster", Vec::new()).await?;
    to.send(Part::Bucket("key")).await?;
    to.kept_by_compaction(compacted).await?;
    to.history(compacted.max(1).saturating_add(1), present).await?;
    to.send(Part::End).await?;
    leases.extend(self::leases(store).await?);
    to.bucket("lease", leases.into_iter().map(lease_entry).collect()).await?;
    to.bucket("members", Vec::new()).await?;
    to.bucket("members_removed", Vec::new()).await?;
    to.bucket("meta", meta(compacted)).await?;
    to.send(Part::Whole).await?;
    Ok(store.header(present))
}

struct Gatherer<'a> {
    store: &'a Store,
    parts: &'a mpsc::Sender<Part>,
}

impl Gatherer<'_> {
    async fn send(&self, part: Part) -> Result<(), EtcdError> {
        let gone = |_| EtcdError::NoRoom("the file could not be written".to_owned());
        self.parts.send(part).await.map_err(gone)
    }

    async fn bucket(&self, name: &'static str, entries: Vec<Entry>) -> Result<(), EtcdError> {
        self.send(Part::Bucket(name)).await?;
        self.send(Part::Entries(entries)).await?;
        self.send(Part::End).await
    }

    /// The keys as they were at the last compaction, in the order of their changes. They come in that of keys, so all of them
    /// are held here.
    async fn kept_by_compaction(&self, compacted: i64) -> Result<(), EtcdError> {
        if compacted < 1 {
            return Ok(());
        }
        let mut range = Range { revision: compacted, limit: PAGE_KEYS_MAX, ..Range::prefix("") };
        let (mut changes, mut bytes): (BTreeMap<i64, Vec<KeyValue>>, usize) = (BTreeMap::new(), 0);
        loop {
            let page = match self.store.query(Read::Linearizable, &Query::Range(range.clone())).await {
                Ok((_, Answer::Range(page))) => page,
                Ok(_) => return Err(EtcdError::Strange),
                Err(EtcdError::Kv(KvError::ReplyTooLarge)) if range.limit > 1 => {
                    range.limit /= 2;
                    continue;
                }
                Err(error) => return Err(error),
            };
            bytes = page.kvs.iter().fold(bytes, |sum, kv| sum.saturating_add(kv_size(kv)));
            if bytes > RANGE_BYTES_MAX {
                return Err(EtcdError::SnapshotTooLarge);
            }
            let last = page.kvs.last().filter(|_| page.more).map(|kv| kv.key.clone());
            page.kvs.into_iter().for_each(|kv| changes.entry(kv.mod_revision).or_default().push(kv));
            match last {
                Some(last) => range = range.after(&last, compacted),
                None => break,
            }
        }
        for (revision, kvs) in changes {
            let numbered = (0_i64..).zip(kvs);
            let entries = numbered.map(|(sub, kv)| change_entry(revision, sub, EventKind::Put, kv));
            self.send(Part::Entries(entries.collect())).await?;
        }
        Ok(())
    }

    /// All changes from one revision to another.
    async fn history(&self, mut next: i64, last: i64) -> Result<(), EtcdError> {
        let all = Bytes::from_static(&[0]);
        while next <= last {
            let events = Events { key: all.clone(), range_end: all.clone(), from_revision: next, ..Events::default() };
            let found = self.store.events_from(events).await?;
            let batches = found.batches.into_iter().take_while(|batch| batch.revision <= last);
            let entries = batches.flat_map(|WatchBatch { revision, events }| {
                let numbered = (0_i64..).zip(events);
                numbered.map(move |(sub, Event { kind, kv, .. })| change_entry(revision, sub, kind, kv))
            });
            self.send(Part::Entries(entries.collect())).await?;
            next = found.next;
        }
        Ok(())
    }

    async fn users_and_roles(&self) -> Result<(), EtcdError> {
        let AuthResponse::Status { enabled, revision } = self.ask(AuthQuery::Status).await? else {
            return Err(EtcdError::Strange);
        };
        let enabled = (b"authEnabled".to_vec(), vec![u8::from(enabled)]);
        self.bucket("auth", vec![enabled, (b"authRevision".to_vec(), revision.to_be_bytes().to_vec())]).await?;
        let mut entries = Vec::new();
        for name in self.names(AuthQuery::Roles).await? {
            let AuthResponse::Permissions(permissions) = self.ask(AuthQuery::Role { name: name.clone() }).await? else {
                return Err(EtcdError::Strange);
            };
            let key_permission = permissions.into_iter().map(permission_told).collect();
            let role = authpb::Role { name: name.clone().into(), key_permission };
            entries.push((name.into_bytes(), role.encode_to_vec()));
        }
        self.bucket("authRoles", entries).await?;
        let mut entries = Vec::new();
        for name in self.names(AuthQuery::Users).await? {
            let roles = self.names(AuthQuery::User { name: name.clone() }).await?;
            let AuthResponse::Secret { hash, .. } = self.ask(AuthQuery::Secret { name: name.clone() }).await? else {
                return Err(EtcdError::Strange);
            };
            let options = Some(authpb::UserAddOptions { no_password: hash.is_none() });
            let password = hash.unwrap_or_default().into();
            let user = authpb::User { name: name.clone().into(), password, roles, options };
            entries.push((name.into_bytes(), user.encode_to_vec()));
        }
        self.bucket("authUsers", entries).await
    }

    async fn names(&self, query: AuthQuery) -> Result<Vec<String>, EtcdError> {
        match self.ask(query).await? {
            AuthResponse::Names(names) => Ok(names),
            _ => Err(EtcdError::Strange),
        }
    }

    async fn ask(&self, query: AuthQuery) -> Result<AuthResponse, EtcdError> {
        match self.store.query(Read::Linearizable, &Query::Auth(query)).await?.1 {
            Answer::Auth(answer) => Ok(answer),
            _ => Err(EtcdError::Strange),
        }
    }
}

/// All leases with their TTL in seconds.
async fn leases(store: &Store) -> Result<BTreeMap<i64, i64>, EtcdError> {
    let Answer::LeaseLeases(ids) = store.query(Read::Linearizable, &Query::LeaseLeases).await?.1 else {
        return Err(EtcdError::Strange);
    };
    let mut leases = BTreeMap::new();
    for id in ids {
        let query = Query::LeaseTimeToLive { id, keys: false, now: WallTime::default() };
        match store.query(Read::Linearizable, &query).await?.1 {
            Answer::LeaseTimeToLive(lease) if lease.granted_ttl > 0 => drop(leases.insert(id, lease.granted_ttl)),
            Answer::LeaseTimeToLive(_) => {} // it has ended meanwhile, and its keys with it
            _ => return Err(EtcdError::Strange),
        }
    }
    Ok(leases)
}

fn lease_entry((id, ttl): (i64, i64)) -> Entry {
    (id.to_be_bytes().to_vec(), leasepb::Lease { id, ttl }.encode_to_vec())
}

/// etcd's name for the place of a change: `revision_sub`, in bytes that sort as they count.
fn place(revision: i64, sub: i64) -> Vec<u8> {
    [&revision.to_be_bytes()[..], b"_", &sub.to_be_bytes()].concat()
}

fn change_entry(revision: i64, sub: i64, kind: EventKind, kv: KeyValue) -> Entry {
    let mut place = place(revision, sub);
    match kind {
        EventKind::Put => (place, crate::convert::key_value(kv).encode_to_vec()),
        EventKind::Delete => {
            place.push(b't');
            (place, mvccpb::KeyValue { key: kv.key, ..mvccpb::KeyValue::default() }.encode_to_vec())
        }
    }
}

/// What etcd keeps of itself: how much of its log the database contains, and its last compaction.
fn meta(compacted: i64) -> Vec<Entry> {
    let mut entries = vec![(b"consistent_index".to_vec(), 1_u64.to_be_bytes().to_vec())];
    if compacted > 0 {
        entries.push((b"finishedCompactRev".to_vec(), place(compacted, 0)));
        entries.push((b"scheduledCompactRev".to_vec(), place(compacted, 0)));
    }
    entries
}

fn permission_told(permission: Permission) -> authpb::Permission {
    let Permission { kind, key, range_end } = permission;
    let kind = match kind {
        PermissionKind::Read => permission::Type::Read,
        PermissionKind::Write => permission::Type::Write,
        PermissionKind::ReadWrite => permission::Type::Readwrite,
    };
    authpb::Permission { perm_type: kind.into(), key, range_end }
}
