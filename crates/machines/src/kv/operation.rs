//! What a client asks for: [`Operation`]s go through the log, [`Query`]s may be answered from a view.
//!
//! The bytes are borsh: one form per value, integers little-endian, lists behind a 32-bit count, nothing left over. A
//! transaction is decoded with a budget of entries and levels, so that bytes cannot cost more memory or stack than they
//! are worth. Field names and meanings are etcd's; where etcd has "absent", so have we zero or empty.

use super::auth::{AuthOperation, AuthQuery, Who};
use super::error::{KvError, Limit};
use super::limits::{EVENTS_MAX, KEY_BYTES_MAX, OPERATION_BYTES_MAX, VALUE_BYTES_MAX};
use super::limits::{TXN_DEPTH_MAX, TXN_OPS_MAX, TXN_OPS_TOTAL_MAX};
use borsh::de::EnumExt;
use borsh::io::{self, Read};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::time::WallTime;

/// A request that is ordered by the log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operation {
    /// Writes one key.
    Put(Put),
    /// Deletes one key or a range of them.
    Delete(DeleteRange),
    /// Compares, then does one of two lists of operations, at one revision.
    Txn(Txn),
    /// Forgets what is older than a revision. The state *at* that revision stays readable.
    Compact {
        /// From 0 to the present revision, and beyond the last compaction.
        revision: i64,
    },
    /// Creates a lease.
    LeaseGrant {
        /// The id; 0 lets the machine choose.
        id: i64,
        /// Seconds; lengthened to [`super::limits::LEASE_TTL_SECONDS_MIN`].
        ttl: i64,
    },
    /// Ends a lease and deletes its keys, in one revision.
    LeaseRevoke {
        /// The lease.
        id: i64,
    },
    /// Lets a lease begin again with its full TTL.
    LeaseKeepAlive {
        /// The lease.
        id: i64,
    },
    /// A query that goes through the log, for protocols without another way to read the latest state.
    Read(Query),
    /// What a user asks for, with a user's rights. Everything else has all rights: whoever has a key of the cluster could
    /// claim to be any user.
    As {
        /// Who asks.
        who: Who,
        /// What for; not another of this kind.
        operation: Labelled<Operation>,
    },
    /// Changes users, roles, or whether they count.
    Auth(AuthOperation),
}

/// A request that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Query {
    /// Reads keys, now or at an older revision.
    Range(Range),
    /// Reads changes, in their order.
    Events(Events),
    /// How long a lease has to live.
    LeaseTimeToLive {
        /// The lease.
        id: i64,
        /// Whether to list its keys.
        keys: bool,
        /// The time for which the answer holds; the state itself knows when a lease ends, not what time it is.
        now: WallTime,
    },
    /// The ids of all leases, the soonest to end first.
    LeaseLeases,
    /// Revisions, sizes and digest.
    Status,
    /// What a user asks for, with a user's rights.
    As {
        /// Who asks.
        who: Who,
        /// What for; not another of this kind.
        query: Labelled<Query>,
    },
    /// Reads users and roles.
    Auth(AuthQuery),
    /// As [`Query::Events`], but an answer may end within a revision: how one that is larger than an answer is read.
    EventsPart {
        /// What is of interest; its first revision may be one that was read in part.
        events: Events,
        /// Which change of that revision to begin with; 0 for the first.
        from_change: u64,
    },
}

/// What stands behind a label: anything but another label, so that decoding is as deep as a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labelled<T>(Box<T>);

impl<T> Labelled<T> {
    /// What is asked for.
    pub fn new(request: T) -> Self {
        Self(Box::new(request))
    }

    /// What is asked for.
    pub fn get(&self) -> &T {
        &self.0
    }

    /// What is asked for.
    pub fn into_inner(self) -> T {
        *self.0
    }
}

impl<T: BorshSerialize> BorshSerialize for Labelled<T> {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.0.serialize(writer)
    }
}

impl<T: EnumExt + Label> BorshDeserialize for Labelled<T> {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        match u8::deserialize_reader(reader)? {
            label if label == T::LABEL => Err(refuse(KvError::Undecodable)),
            tag => T::deserialize_variant(reader, tag).map(Self::new),
        }
    }
}

/// A kind of request that may come with a label.
pub trait Label {
    /// The tag of the label.
    const LABEL: u8;
}

impl Label for Operation {
    const LABEL: u8 = 8;
}

impl Label for Query {
    const LABEL: u8 = 5;
}

/// Writes one key.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Put {
    /// The key; not empty.
    pub key: Bytes,
    /// The value.
    pub value: Bytes,
    /// The lease that the key shall end with; 0 for none. A lease that it had before no longer holds it.
    pub lease: i64,
    /// Whether to answer with what the key was before.
    pub prev_kv: bool,
    /// Keeps the value: the key must exist and `value` be empty.
    pub ignore_value: bool,
    /// Keeps the lease: the key must exist and `lease` be 0.
    pub ignore_lease: bool,
}

/// Deletes one key or a range of them.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct DeleteRange {
    /// The first key; not empty.
    pub key: Bytes,
    /// Empty: only `key`. One zero byte: all from `key` on. Otherwise the first key that is out of the range.
    pub range_end: Bytes,
    /// Whether to answer with what the keys were before.
    pub prev_kv: bool,
}

/// Reads keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Range {
    /// The first key; not empty.
    pub key: Bytes,
    /// As in [`DeleteRange::range_end`].
    pub range_end: Bytes,
    /// Most keys to answer with; 0 for all.
    pub limit: u64,
    /// The revision to read at; 0 or less for the present one.
    pub revision: i64,
    /// Which way to sort.
    pub order: SortOrder,
    /// What to sort by.
    pub target: SortTarget,
    /// Leaves values out (after sorting).
    pub keys_only: bool,
    /// Answers with the count only.
    pub count_only: bool,
    /// Leaves out keys modified before this revision; 0 for no bound. So with the next three.
    pub min_mod_revision: i64,
    /// Leaves out keys modified after this revision.
    pub max_mod_revision: i64,
    /// Leaves out keys created before this revision.
    pub min_create_revision: i64,
    /// Leaves out keys created after this revision.
    pub max_create_revision: i64,
}

/// Which way to sort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SortOrder {
    /// By key; with another target, as [`SortOrder::Ascend`].
    #[default]
    None,
    /// Smallest first.
    Ascend,
    /// Largest first.
    Descend,
}

/// What to sort by. Equals are in the order of their keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum SortTarget {
    /// The key.
    #[default]
    Key,
    /// The version.
    Version,
    /// The revision of the key's creation.
    Create,
    /// The revision of the last change.
    Mod,
    /// The value.
    Value,
}

/// Reads changes of a range of keys in the order in which they happened: how a watcher catches up, or polls.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Events {
    /// The first key; empty is read as one zero byte.
    pub key: Bytes,
    /// As in [`DeleteRange::range_end`].
    pub range_end: Bytes,
    /// The first revision of interest; 0 or less: whatever comes after the present one.
    pub from_revision: i64,
    /// Events after which the answer ends with the revision that it is in; 0 for [`EVENTS_MAX`], which is also the most.
    pub limit: u64,
    /// Whether each event brings what the key was before.
    pub prev_kv: bool,
    /// Leaves puts out.
    pub no_put: bool,
    /// Leaves deletes out.
    pub no_delete: bool,
}

/// If every compare holds, `success` is done, otherwise `failure`: at one revision, or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize)]
pub struct Txn {
    /// Conditions on the state before the transaction. None at all: holds.
    pub compare: Vec<Compare>,
    /// What to do if all hold.
    pub success: Vec<TxnOp>,
    /// What to do otherwise.
    pub failure: Vec<TxnOp>,
}

/// One step of a transaction. Sees what earlier steps wrote.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize)]
pub enum TxnOp {
    /// Reads.
    Range(Range),
    /// Writes.
    Put(Put),
    /// Deletes.
    Delete(DeleteRange),
    /// Another transaction. Its compares, too, look at the state before the outermost one.
    Txn(Txn),
}

/// A condition on one key, or on each key of a range.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Compare {
    /// The first key; not empty.
    pub key: Bytes,
    /// As in [`DeleteRange::range_end`].
    pub range_end: Bytes,
    /// How the key's property (left) relates to the operand (right).
    pub operator: Operator,
    /// The property, and what it is compared with.
    pub operand: Operand,
}

/// How two values relate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operator {
    /// =
    Equal,
    /// !=
    NotEqual,
    /// >
    Greater,
    /// <
    Less,
}

/// A property of a key and a value for it. A missing key has zeros; its value compares as false, whatever the operator.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operand {
    /// How often the key was written since it was created.
    Version(i64),
    /// The revision of its creation.
    Create(i64),
    /// The revision of its last change.
    Mod(i64),
    /// Its value.
    Value(Bytes),
    /// Its lease.
    Lease(i64),
}

impl Operation {
    /// The first byte of a [`Operation::Put`].
    pub(super) const PUT: u8 = 0;

    /// The bytes of what stands behind a label, if there is one; of bytes that begin like an operation.
    pub(super) fn behind_label(bytes: &[u8]) -> Option<&[u8]> {
        let (tag, rest) = bytes.split_first()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let after = usize::try_from(u32::from_le_bytes(*length)).ok()?.checked_add(8)?; // the name, and since when
        if *tag == Self::LABEL { rest.get(after..) } else { None }
    }

    /// The operation's bytes.
    ///
    /// # Errors
    /// What a replica would refuse on sight: limits passed, an empty key, a duplicate key in a transaction.
    pub fn encode(&self) -> Result<Vec<u8>, KvError> {
        self.check()?;
        encode(self)
    }

    /// The operation that `bytes` are.
    ///
    /// # Errors
    /// As [`Operation::encode`], and [`KvError::Undecodable`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        let operation: Self = decode(bytes)?;
        operation.check()?;
        Ok(operation)
    }

    /// Refuses what is wrong whatever the state.
    fn check(&self) -> Result<(), KvError> {
        match self {
            Operation::Put(put) => put.check(),
            Operation::Delete(delete) => check_range(&delete.key, &delete.range_end),
            Operation::Txn(txn) => super::txn::check(txn),
            Operation::Read(query) => query.check(),
            Operation::As { who, operation } => who.check().and_then(|()| operation.get().check()),
            Operation::Auth(auth) => auth.check(),
            Operation::Compact { .. }
            | Operation::LeaseGrant { .. }
            | Operation::LeaseRevoke { .. }
            | Operation::LeaseKeepAlive { .. } => Ok(()),
        }
    }
}

impl Query {
    /// The query's bytes.
    ///
    /// # Errors
    /// As [`Operation::encode`].
    pub fn encode(&self) -> Result<Vec<u8>, KvError> {
        self.check()?;
        encode(self)
    }

    /// The query that `bytes` are.
    ///
    /// # Errors
    /// As [`Operation::decode`].
    pub fn decode(bytes: &[u8]) -> Result<Self, KvError> {
        let query: Self = decode(bytes)?;
        query.check()?;
        Ok(query)
    }

    fn check(&self) -> Result<(), KvError> {
        match self {
            Query::Range(range) => check_range(&range.key, &range.range_end),
            Query::Events(events) | Query::EventsPart { events, .. } => events.check(),
            Query::As { who, query } => who.check().and_then(|()| query.get().check()),
            Query::Auth(auth) => auth.check(),
            Query::LeaseTimeToLive { .. } | Query::LeaseLeases | Query::Status => Ok(()),
        }
    }
}

impl Events {
    fn check(&self) -> Result<(), KvError> {
        if self.limit > EVENTS_MAX {
            return Err(KvError::RequestTooLarge(Limit::Events));
        }
        check_length(&self.key).and_then(|()| check_length(&self.range_end))
    }
}

impl Put {
    pub(super) fn check(&self) -> Result<(), KvError> {
        check_key(&self.key)?;
        if self.value.len() > VALUE_BYTES_MAX {
            return Err(KvError::RequestTooLarge(Limit::Value));
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(KvError::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(KvError::LeaseProvided);
        }
        Ok(())
    }
}

/// A key that must be there and fit; the end of its range must fit.
pub(super) fn check_range(key: &Bytes, range_end: &Bytes) -> Result<(), KvError> {
    check_key(key)?;
    check_length(range_end)
}

fn check_key(key: &Bytes) -> Result<(), KvError> {
    if key.is_empty() {
        return Err(KvError::EmptyKey);
    }
    check_length(key)
}

fn check_length(key: &Bytes) -> Result<(), KvError> {
    if key.len() > KEY_BYTES_MAX { Err(KvError::RequestTooLarge(Limit::Key)) } else { Ok(()) }
}

fn encode<T: BorshSerialize>(request: &T) -> Result<Vec<u8>, KvError> {
    let bytes = borsh::to_vec(request).map_err(|_| KvError::RequestTooLarge(Limit::Operation))?;
    if bytes.len() > OPERATION_BYTES_MAX {
        return Err(KvError::RequestTooLarge(Limit::Operation));
    }
    Ok(bytes)
}

fn decode<T: BorshDeserialize>(bytes: &[u8]) -> Result<T, KvError> {
    if bytes.len() > OPERATION_BYTES_MAX {
        return Err(KvError::RequestTooLarge(Limit::Operation));
    }
    borsh::from_slice(bytes).map_err(|error| refusal(&error).unwrap_or(KvError::Undecodable))
}

/// The refusal that [`refuse`] wrapped.
fn refusal(error: &io::Error) -> Option<KvError> {
    error.get_ref()?.downcast_ref().copied()
}

/// A refusal as the only kind of error that a borsh decoder can return.
fn refuse(error: KvError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

/// What may still be decoded of a transaction.
struct Budget {
    levels: usize,
    entries: usize,
}

impl BorshDeserialize for Txn {
    fn deserialize_reader<R: Read>(reader: &mut R) -> io::Result<Self> {
        decode_txn(reader, &mut Budget { levels: TXN_DEPTH_MAX, entries: TXN_OPS_TOTAL_MAX })
    }
}

fn decode_txn<R: Read>(reader: &mut R, budget: &mut Budget) -> io::Result<Txn> {
    budget.levels = budget.levels.checked_sub(1).ok_or_else(|| refuse(KvError::TooManyOps))?;
    let compare = decode_list(reader, budget, |reader, _| Compare::deserialize_reader(reader))?;
    let success = decode_list(reader, budget, decode_txn_op)?;
    let failure = decode_list(reader, budget, decode_txn_op)?;
    budget.levels = budget.levels.saturating_add(1);
    Ok(Txn { compare, success, failure })
}

/// The count is checked before anything is set aside for it.
fn decode_list<R: Read, T>(
    reader: &mut R,
    budget: &mut Budget,
    mut entry: impl FnMut(&mut R, &mut Budget) -> io::Result<T>,
) -> io::Result<Vec<T>> {
    let count = u32::deserialize_reader(reader)? as usize;
    budget.entries = budget.entries.checked_sub(count).ok_or_else(|| refuse(KvError::TooManyOps))?;
    if count > TXN_OPS_MAX {
        return Err(refuse(KvError::TooManyOps));
    }
    (0..count).map(|_| entry(reader, budget)).collect()
}

fn decode_txn_op<R: Read>(reader: &mut R, budget: &mut Budget) -> io::Result<TxnOp> {
    match u8::deserialize_reader(reader)? {
        0 => Ok(TxnOp::Range(Range::deserialize_reader(reader)?)),
        1 => Ok(TxnOp::Put(Put::deserialize_reader(reader)?)),
        2 => Ok(TxnOp::Delete(DeleteRange::deserialize_reader(reader)?)),
        3 => Ok(TxnOp::Txn(decode_txn(reader, budget)?)),
        _ => Err(refuse(KvError::Undecodable)),
    }
}
