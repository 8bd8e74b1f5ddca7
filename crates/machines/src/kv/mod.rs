//! A key-value store with etcd's data model: revisions, transactions, leases, watches, compaction.
//!
//! # What it promises
//! The semantics of etcd v3's KV, Lease and Watch, without gRPC: what an etcd client can observe through them and a
//! gateway cannot add on its own is decided here, the same on every replica. The store's revision starts at 1; each
//! operation that changes keys makes one new revision, whatever the number of its changes.
//!
//! # Where we deviate from etcd
//! - Leases end by agreed time, at an agreed place in the log; nobody's clock or leadership extends them.
//! - Limits that etcd leaves to gRPC or to memory have names: [`limits`].
//! - Sorting by something else than the key looks at all keys before `limit` cuts (etcd cuts first when the order is
//!   NONE); equals are in the order of keys (etcd: in no order).
//! - A delete from a key on (`range_end` = one zero byte) counts as covering all of these keys when a transaction is
//!   searched for duplicate keys.
//! - `Compact` is done when it is answered; etcd's works on in the background.
//!
//! # What it leaves out
//! A size quota (`NOSPACE`), and what belongs to the gateway: watch ids, progress
//! notifications, fragments, cluster and member ids in headers.
//!
//! # How to read it
//! `operation` and `reply` are the interface, `store` the data, `txn`, `range`, `lease`, `watch` and `auth` the rules, `objects`
//! what remains of them under a protocol that orders each key by itself, `digest` and
//! `snapshot` the two forms in which replicas compare and copy states.

mod auth;
mod client;
mod digest;
mod error;
mod intervals;
mod lease;
pub mod limits;
mod objects;
mod operation;
mod places;
mod range;
mod reply;
mod snapshot;
mod store;
mod txn;
mod watch;

pub use auth::{AuthOperation, AuthQuery, AuthResponse, Permission, PermissionKind, ROOT, Who};
pub use client::{Expected, prefix_end};
pub use error::{AuthError, Code, KvError, Limit};
pub use operation::{Compare, DeleteRange, Events, Label, Labelled, Operand, Operation, Operator, Put, Query, Range};
pub use operation::{SortOrder, SortTarget, Txn, TxnOp};
pub use reply::{
    DeleteResponse, Event, EventKind, EventsPart, EventsResponse, KeyValue, LeaseTimeToLiveResponse, PutResponse,
};
pub use reply::{RangeResponse, Reply, Response, Status, TxnOpReply, TxnOpResponse, TxnResponse, WatchBatch};
pub use snapshot::{KvSink, KvSource};

use bytes::Bytes;
use objects::Owns;
use quorate_core::crypto::Digest;
use quorate_core::machine::{self, At, Corrupt, Output, Snapshot, StateMachine, View};
use quorate_core::objects::{Image, Objects};
use quorate_core::time::WallTime;
use range::ReplyBudget;
use std::sync::Arc;
use store::{Store, Write};

/// The topic of the events that the store publishes: one [`WatchBatch`] for each revision.
pub const WATCH_TOPIC: u32 = 1;

/// The store as a machine.
#[derive(Clone, Debug)]
pub struct Kv {
    store: Store,
    /// Keys that have an order of their own; none unless the protocol orders each by itself.
    owns: Owns,
}

/// The store as it was when the view was taken.
#[derive(Clone, Debug)]
pub struct KvView {
    store: Store,
    owns: Owns,
}

impl Kv {
    /// An empty store, at revision 1.
    pub fn new() -> Self {
        Self { store: Store::new(), owns: Owns::default() }
    }

    fn run(&mut self, at: &At, operation: Operation, out: &mut Output) -> Result<Response, KvError> {
        let store = &mut self.store;
        match operation {
            Operation::Put(put) => {
                txn::validate_put(store, &put)?;
                let mut write = Write::new(store);
                let response = txn::put(&mut write, put, &mut ReplyBudget::new())?;
                write.finish(out);
                Ok(Response::Put(response))
            }
            Operation::Delete(delete) => txn::delete_alone(store, &delete, out).map(Response::Delete),
            Operation::Txn(txn) => txn::run(store, &txn, out).map(Response::Txn),
            Operation::Compact { revision } => compact(store, revision),
            Operation::LeaseGrant { id, ttl } => lease::grant(store, at, id, ttl),
            Operation::LeaseRevoke { id } => lease::revoke(store, id, out),
            Operation::LeaseKeepAlive { id } => Ok(lease::keep_alive(store, at, id)),
            Operation::Read(query) => answer(store, &query),
            Operation::As { who, operation } => {
                auth::permit_operation(store, &who, operation.get())?;
                self.run(at, operation.into_inner(), out)
            }
            Operation::Auth(operation) => change_auth(store, operation),
        }
    }
}

impl Default for Kv {
    fn default() -> Self {
        Self::new()
    }
}

impl StateMachine for Kv {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        let result = Operation::decode(operation).and_then(|operation| self.run(at, operation, out));
        out.reply(&encode(&Reply { revision: self.store.revision, result }));
    }

    /// A put looks at one key and its lease, and changes one path of a tree. Whether a user may do it is more to look at.
    fn is_quick(&self, operation: &[u8]) -> bool {
        match Operation::behind_label(operation) {
            Some(labelled) => !self.store.auth.enabled && matches!(labelled, [Operation::PUT, ..]),
            None => matches!(operation, [Operation::PUT, ..]),
        }
    }

    fn tick(&mut self, at: &At, out: &mut Output) {
        lease::expire(&mut self.store, at, out);
    }

    fn wake(&self) -> Option<WallTime> {
        self.store.leases.next_expiry().map(|(expires, _)| expires)
    }

    fn objects(operation: &[u8]) -> Objects {
        objects::touched(operation)
    }

    fn queried(query: &[u8]) -> Objects {
        objects::looked_at(query)
    }

    fn apply_to(&mut self, object: &[u8], at: &At, operation: &[u8], out: &mut Output) {
        let reply = self.run_alone(object, at, operation);
        out.reply(&encode(&reply));
    }

    fn apply_across(&mut self, objects: &[Bytes], at: &At, operation: &[u8], out: &mut Output) {
        let reply = self.run_across(objects, at, operation);
        out.reply(&encode(&reply));
    }

    fn image(&self, object: &[u8]) -> Image {
        self.own_image(object)
    }

    fn put_image(&mut self, object: &[u8], image: Option<&[u8]>) -> Result<(), Corrupt> {
        self.put_own(object, image)
    }

    fn digest(&self) -> Digest {
        self.owns.digest(self.store.chain.digest())
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }
}

impl machine::Query for Kv {
    type View = KvView;

    fn view(&self) -> KvView {
        KvView { store: self.store.clone(), owns: self.owns.clone() }
    }
}

impl View for KvView {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        let query = Query::decode(query);
        let (revision, result) = match &query {
            Ok(Query::Range(range)) if !self.owns.is_empty() => {
                let store = self.owns.store(range);
                let result = objects::range(&store, range);
                (store.revision, result.map(Response::Range))
            }
            Ok(query) => (self.store.revision, answer(&self.store, query)),
            Err(error) => (self.store.revision, Err(*error)),
        };
        reply.extend_from_slice(&encode(&Reply { revision, result }));
    }
}

impl Snapshot for Kv {
    type Source = KvSource;
    type Sink = KvSink;

    fn snapshot(&self) -> KvSource {
        KvSource::new(self.store.clone(), self.owns.clone())
    }

    fn rebuild() -> KvSink {
        KvSink::new()
    }
}

fn answer(store: &Store, query: &Query) -> Result<Response, KvError> {
    match query {
        Query::Range(request) => {
            range::check_revision(store, request.revision)?;
            range::range(store, request, &mut ReplyBudget::new()).map(Response::Range)
        }
        Query::Events(events) => watch::events(store, events).map(Response::Events),
        Query::EventsPart { events, from_change } => watch::part(store, events, *from_change).map(Response::EventsPart),
        Query::LeaseTimeToLive { id, keys, now } => {
            Ok(Response::LeaseTimeToLive(lease::time_to_live(store, *id, *keys, *now)))
        }
        Query::LeaseLeases => Ok(Response::LeaseLeases(store.leases.ids_by_end())),
        Query::Status => Ok(Response::Status(status(store))),
        Query::As { who, query } => {
            auth::permit_query(store, who, query.get())?;
            answer(store, query.get())
        }
        Query::Auth(query) => Ok(Response::Auth(store.auth.answer(query)?)),
    }
}

fn change_auth(store: &mut Store, operation: AuthOperation) -> Result<Response, KvError> {
    let bytes = borsh::to_vec(&operation);
    assert!(bytes.is_ok(), "memory takes all bytes, and a name is shorter than 4 GiB");
    if Arc::make_mut(&mut store.auth).change(operation)? {
        store.chain.auth(store.auth.revision, &bytes.unwrap_or_default());
    }
    Ok(Response::Auth(AuthResponse::Done))
}

fn compact(store: &mut Store, revision: i64) -> Result<Response, KvError> {
    if revision <= store.compacted {
        return Err(KvError::Compacted { compact_revision: store.compacted });
    }
    if revision > store.revision {
        return Err(KvError::FutureRevision);
    }
    store.compact(revision);
    store.chain.compaction(revision);
    Ok(Response::Compact)
}

fn status(store: &Store) -> Status {
    Status {
        revision: store.revision,
        compact_revision: store.compacted,
        keys: store.live,
        changes: store.history.len() as u64,
        bytes: store.bytes,
        leases: store.leases.len() as u64,
        digest: store.chain.digest(),
    }
}

fn encode(reply: &Reply) -> Vec<u8> {
    let bytes = borsh::to_vec(reply);
    assert!(bytes.is_ok(), "memory takes all bytes, and no list in a reply has 2³² entries");
    bytes.unwrap_or_default()
}
