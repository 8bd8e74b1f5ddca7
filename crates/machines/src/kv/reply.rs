//! What a client is answered. The bytes are borsh, as in [`super::operation`].

use super::auth::AuthResponse;
use super::error::KvError;
use super::limits::TXN_DEPTH_MAX;
use borsh::io::{self, Read};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::time::WallTime;

/// A key and what it holds. Of a deleted key only `key` and `mod_revision` (of the deletion) are set.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// The revision of its creation: of the first put since it did not exist.
    pub create_revision: i64,
    /// The revision of its last change.
    pub mod_revision: i64,
    /// How many puts since its creation, that one included. Zero: deleted.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease that it ends with; 0 for none.
    pub lease: i64,
}

impl KeyValue {
    /// Whether this says that the key was deleted.
    pub const fn is_tombstone(&self) -> bool {
        self.version == 0
    }
}

/// The answer to an operation or a query.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The store's revision after the request: etcd's `header.revision`.
    pub revision: i64,
    /// The answer, or why there is none.
    pub result: Result<Response, KvError>,
}

/// One kind of answer for each kind of request.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Response {
    /// To [`super::Operation::Put`].
    Put(PutResponse),
    /// To [`super::Operation::Delete`].
    Delete(DeleteResponse),
    /// To [`super::Operation::Txn`].
    Txn(TxnResponse),
    /// To [`super::Operation::Compact`].
    Compact,
    /// To [`super::Operation::LeaseGrant`].
    LeaseGrant {
        /// The lease's id: the one asked for, or the chosen one.
        id: i64,
        /// The TTL that holds, in seconds.
        ttl: i64,
    },
    /// To [`super::Operation::LeaseRevoke`].
    LeaseRevoke,
    /// To [`super::Operation::LeaseKeepAlive`].
    LeaseKeepAlive {
        /// The lease's id.
        id: i64,
        /// Seconds to live from now on; 0 if there is no such lease.
        ttl: i64,
    },
    /// To [`super::Query::Range`].
    Range(RangeResponse),
    /// To [`super::Query::Events`].
    Events(EventsResponse),
    /// To [`super::Query::LeaseTimeToLive`].
    LeaseTimeToLive(LeaseTimeToLiveResponse),
    /// To [`super::Query::LeaseLeases`].
    LeaseLeases(Vec<i64>),
    /// To [`super::Query::Status`].
    Status(Status),
    /// To [`super::Operation::Auth`] and [`super::Query::Auth`].
    Auth(AuthResponse),
    /// To [`super::Query::EventsPart`].
    EventsPart(EventsPart),
}

/// What a put did.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct PutResponse {
    /// What the key was before, if that was asked for and there was something.
    pub prev_kv: Option<KeyValue>,
}

/// What a delete did.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeleteResponse {
    /// How many keys were deleted.
    pub deleted: u64,
    /// What they were before, if that was asked for; in the order of keys.
    pub prev_kvs: Vec<KeyValue>,
}

/// What a range found.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct RangeResponse {
    /// The keys, sorted as asked for.
    pub kvs: Vec<KeyValue>,
    /// Whether `limit` cut some off.
    pub more: bool,
    /// How many keys are in the range, whatever the limit and the revision filters.
    pub count: u64,
}

/// What a transaction did.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize)]
pub struct TxnResponse {
    /// Whether all compares held, hence which list was done.
    pub succeeded: bool,
    /// One answer for each operation of that list.
    pub responses: Vec<TxnOpReply>,
}

/// The answer to one step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub struct TxnOpReply {
    /// The revision when the step was done: the transaction's own once something was written. Zero for a nested
    /// transaction, as in etcd.
    pub revision: i64,
    /// The answer.
    pub response: TxnOpResponse,
}

/// One kind of answer for each kind of step.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub enum TxnOpResponse {
    /// To [`super::TxnOp::Range`].
    Range(RangeResponse),
    /// To [`super::TxnOp::Put`].
    Put(PutResponse),
    /// To [`super::TxnOp::Delete`].
    Delete(DeleteResponse),
    /// To [`super::TxnOp::Txn`].
    Txn(TxnResponse),
}

/// Changes, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EventsResponse {
    /// Whole revisions, ascending; those without an event of interest are left out.
    pub batches: Vec<WatchBatch>,
    /// Where to go on: one after the last revision that was looked at. Beyond the present one: nothing is left.
    pub next_revision: i64,
}

/// Changes, in order; of the last revision perhaps not all.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct EventsPart {
    /// As [`EventsResponse::batches`], but the first and the last may be parts of a revision.
    pub batches: Vec<WatchBatch>,
    /// Where to go on: the revision.
    pub next_revision: i64,
    /// Where to go on: the change within that revision; not 0 if the answer ended within it.
    pub next_change: u64,
}

/// How a lease is.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LeaseTimeToLiveResponse {
    /// The lease's id.
    pub id: i64,
    /// Whole seconds to live; −1 if there is no such lease or its time is over.
    pub ttl: i64,
    /// Its full TTL in seconds; 0 if there is no such lease.
    pub granted_ttl: i64,
    /// When it ends; zero if there is no such lease.
    pub expires: WallTime,
    /// Its keys, sorted, if they were asked for.
    pub keys: Vec<Bytes>,
}

/// How the store is.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// The present revision; 1 for a store that was never written to.
    pub revision: i64,
    /// The revision of the latest compaction; −1 if there was none.
    pub compact_revision: i64,
    /// How many keys exist now.
    pub keys: u64,
    /// How many changes are kept, the newest of each key included.
    pub changes: u64,
    /// Bytes of the keys and values of all changes that are kept.
    pub bytes: u64,
    /// How many leases there are.
    pub leases: u64,
    /// The digest of the history.
    pub digest: Digest,
}

/// All changes of one revision: what [`super::WATCH_TOPIC`] carries, borsh-encoded.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct WatchBatch {
    /// The revision.
    pub revision: i64,
    /// Its changes in the order in which they were made. None at all: they are more than
    /// [`super::limits::EVENT_BYTES_MAX`] together, and to be read with [`super::Query::EventsPart`].
    pub events: Vec<Event>,
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Event {
    /// What was done.
    pub kind: EventKind,
    /// The key after the change.
    pub kv: KeyValue,
    /// The key at the revision before, unless it did not exist then, or was compacted away.
    pub prev_kv: Option<KeyValue>,
}

impl Event {
    /// Whether the change created the key.
    pub fn is_create(&self) -> bool {
        self.kind == EventKind::Put && self.kv.create_revision == self.kv.mod_revision
    }
}

/// What was done to a key. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum EventKind {
    /// It was written.
    Put,
    /// It was deleted.
    Delete,
}

impl Reply {
    /// The reply that `bytes` are.
    ///
    /// # Errors
    /// [`KvError::Undecodable`]: whoever answered is not a store.
    pub fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        borsh::from_slice(bytes).map_err(|_| KvError::Undecodable)
    }

    /// The keys that a range found.
    ///
    /// # Errors
    /// The store's refusal; [`KvError::Undecodable`] for an answer of another kind.
    pub fn range(self) -> Result<RangeResponse, KvError> {
        match self.result? {
            Response::Range(range) => Ok(range),
            _ => Err(KvError::Undecodable),
        }
    }

    /// The one key that a get found.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn get(self) -> Result<Option<KeyValue>, KvError> {
        Ok(self.range()?.kvs.into_iter().next())
    }

    /// What a transaction did.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn txn(self) -> Result<TxnResponse, KvError> {
        match self.result? {
            Response::Txn(txn) => Ok(txn),
            _ => Err(KvError::Undecodable),
        }
    }

    /// How many keys a delete deleted.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn deleted(self) -> Result<u64, KvError> {
        match self.result? {
            Response::Delete(delete) => Ok(delete.deleted),
            _ => Err(KvError::Undecodable),
        }
    }

    /// The changes that an events query found.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn events(self) -> Result<EventsResponse, KvError> {
        match self.result? {
            Response::Events(events) => Ok(events),
            _ => Err(KvError::Undecodable),
        }
    }

    /// How the store is.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn status(self) -> Result<Status, KvError> {
        match self.result? {
            Response::Status(status) => Ok(status),
            _ => Err(KvError::Undecodable),
        }
    }

    /// Id and TTL of a lease that was granted or kept alive.
    ///
    /// # Errors
    /// As [`Reply::range`].
    pub fn lease(self) -> Result<(i64, i64), KvError> {
        match self.result? {
            Response::LeaseGrant { id, ttl } | Response::LeaseKeepAlive { id, ttl } => Ok((id, ttl)),
            _ => Err(KvError::Undecodable),
        }
    }
}

impl BorshDeserialize for TxnResponse {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        decode_txn(reader, TXN_DEPTH_MAX)
    }
}

/// Bounded in depth: a reply may come from a liar.
fn decode_txn<R: Read>(reader: &mut R, levels: usize) -> io::Result<TxnResponse> {
    let levels = levels.checked_sub(1).ok_or(io::ErrorKind::InvalidData)?;
    let succeeded = bool::deserialize_reader(reader)?;
    let count = u32::deserialize_reader(reader)?;
    let responses = (0..count).map(|_| decode_txn_op(reader, levels)).collect::<io::Result<_>>()?;
    Ok(TxnResponse { succeeded, responses })
}

fn decode_txn_op<R: Read>(reader: &mut R, levels: usize) -> io::Result<TxnOpReply> {
    let revision = i64::deserialize_reader(reader)?;
    let response = match u8::deserialize_reader(reader)? {
        0 => TxnOpResponse::Range(RangeResponse::deserialize_reader(reader)?),
        1 => TxnOpResponse::Put(PutResponse::deserialize_reader(reader)?),
        2 => TxnOpResponse::Delete(DeleteResponse::deserialize_reader(reader)?),
        3 => TxnOpResponse::Txn(decode_txn(reader, levels)?),
        _ => return Err(io::ErrorKind::InvalidData.into()),
    };
    Ok(TxnOpReply { revision, response })
}
