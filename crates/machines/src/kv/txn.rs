//! Transactions: what is checked on sight, what is checked against the state, and the doing.
//!
//! Order of events, as in etcd: every compare, also of nested transactions, looks at the state before; with that the path
//! is known; everything on the path is validated; only then the first write is made. So a transaction is refused
//! whole, or done whole.

use super::error::KvError;
use super::intervals::Intervals;
use super::limits::TXN_OPS_MAX;
use super::operation::{Compare, DeleteRange, Operand, Operator, Put, Range, Txn, TxnOp, check_range};
use super::range::{ReplyBudget, check_revision_in_txn, range};
use super::reply::{DeleteResponse, KeyValue, PutResponse, TxnOpReply, TxnOpResponse, TxnResponse};
use super::store::{Store, Write};
use bytes::Bytes;
use quorate_core::machine::Output;
use std::collections::BTreeSet;

/// Refuses a transaction that is wrong whatever the state.
pub(super) fn check(txn: &Txn) -> Result<(), KvError> {
    check_shape(txn, TXN_OPS_MAX)?;
    Writes::of(&txn.success)?;
    Writes::of(&txn.failure)?;
    Ok(())
}

/// Keys and counts. A nested transaction may have as many entries as the enclosing one left of `entries_max`.
fn check_shape(txn: &Txn, entries_max: usize) -> Result<(), KvError> {
    let entries = txn.compare.len().max(txn.success.len()).max(txn.failure.len());
    let left = entries_max.checked_sub(entries).ok_or(KvError::TooManyOps)?;
    for compare in &txn.compare {
        check_range(&compare.key, &compare.range_end)?;
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Range(range) => check_range(&range.key, &range.range_end)?,
            TxnOp::Put(put) => put.check()?,
            TxnOp::Delete(delete) => check_range(&delete.key, &delete.range_end)?,
            TxnOp::Txn(txn) => check_shape(txn, left)?,
        }
    }
    Ok(())
}

/// What a list of operations could write, to find keys that it could write twice (etcd's `checkIntervals`).
#[derive(Default)]
struct Writes<'a> {
    puts: BTreeSet<&'a [u8]>,
    deletes: Intervals<'a>,
}

impl<'a> Writes<'a> {
    /// etcd's order of looking: deletes of this list, then nested transactions, then puts of this list. It does not
    /// notice a nested put whose key a *later* nested transaction deletes; nor do we, and do them in order.
    fn of(ops: &'a [TxnOp]) -> Result<Self, KvError> {
        let mut writes = Self::default();
        for op in ops {
            if let TxnOp::Delete(delete) = op {
                writes.deletes.add(&delete.key, &delete.range_end);
            }
        }
        for op in ops {
            if let TxnOp::Txn(txn) = op {
                writes.add_nested(Self::of(&txn.success)?, Self::of(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let TxnOp::Put(put) = op {
                writes.add_put(&put.key)?;
            }
        }
        Ok(writes)
    }

    /// Success and failure exclude each other, so a key may be in both.
    fn add_nested(&mut self, success: Self, failure: Self) -> Result<(), KvError> {
        for key in &success.puts {
            self.add_put(key)?;
        }
        for key in failure.puts {
            if success.puts.contains(key) {
                continue;
            }
            self.add_put(key)?;
        }
        self.deletes.add_all(success.deletes);
        self.deletes.add_all(failure.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: &'a [u8]) -> Result<(), KvError> {
        if self.deletes.contains(key) || !self.puts.insert(key) { Err(KvError::DuplicateKey) } else { Ok(()) }
    }
}

/// A transaction whose compares have been answered: the operations that are to be done.
struct Path<'a> {
    succeeded: bool,
    steps: Vec<Step<'a>>,
}

enum Step<'a> {
    Range(&'a Range),
    Put(&'a Put),
    Delete(&'a DeleteRange),
    Nested(Path<'a>),
}

impl<'a> Path<'a> {
    fn of(store: &Store, txn: &'a Txn) -> Self {
        let succeeded = txn.compare.iter().all(|compare| holds(store, compare));
        let ops = if succeeded { &txn.success } else { &txn.failure };
        let step = |op: &'a TxnOp| match op {
            TxnOp::Range(range) => Step::Range(range),
            TxnOp::Put(put) => Step::Put(put),
            TxnOp::Delete(delete) => Step::Delete(delete),
            TxnOp::Txn(txn) => Step::Nested(Path::of(store, txn)),
        };
        Self { succeeded, steps: ops.iter().map(step).collect() }
    }

    /// Whether a step tells what is there, or was: only then may the answer turn out too large.
    fn reads(&self) -> bool {
        self.steps.iter().any(|step| match step {
            Step::Range(_) => true,
            Step::Put(put) => put.prev_kv,
            Step::Delete(delete) => delete.prev_kv,
            Step::Nested(path) => path.reads(),
        })
    }

    /// Refuses what cannot be done in the state before the transaction: all puts are looked at before the first range, and
    /// of a put first what it keeps, so that of several reasons the same one is given as by etcd.
    fn validate(&self, store: &Store) -> Result<(), KvError> {
        self.validate_puts(store)?;
        self.validate_ranges(store)
    }

    fn validate_puts(&self, store: &Store) -> Result<(), KvError> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Put(put) => validate_kept(store, put).and_then(|()| validate_lease(store, put)),
            Step::Range(_) | Step::Delete(_) => Ok(()),
            Step::Nested(path) => path.validate_puts(store),
        })
    }

    fn validate_ranges(&self, store: &Store) -> Result<(), KvError> {
        self.steps.iter().try_for_each(|step| match step {
            Step::Range(range) => check_revision_in_txn(store, range.revision),
            Step::Put(_) | Step::Delete(_) => Ok(()),
            Step::Nested(path) => path.validate_ranges(store),
        })
    }
}

/// Refuses a put, outside a transaction, that cannot be done now: its lease is unknown, or there is nothing to keep.
pub(super) fn validate_put(store: &Store, put: &Put) -> Result<(), KvError> {
    validate_lease(store, put)?;
    validate_kept(store, put)
}

fn validate_lease(store: &Store, put: &Put) -> Result<(), KvError> {
    let known = put.lease == 0 || store.leases.get(put.lease).is_some();
    if known { Ok(()) } else { Err(KvError::LeaseNotFound) }
}

fn validate_kept(store: &Store, put: &Put) -> Result<(), KvError> {
    let keeps = put.ignore_value || put.ignore_lease;
    if keeps && store.current(&put.key).is_none() { Err(KvError::KeyNotFound) } else { Ok(()) }
}

/// Whether a compare holds for every key of its range.
fn holds(store: &Store, compare: &Compare) -> bool {
    let mut live = store.entries(&compare.key, &compare.range_end).filter(|entry| entry.live).peekable();
    if live.peek().is_none() {
        // nothing has no value, not an empty one: false even for "not equal"
        return !matches!(compare.operand, Operand::Value(_)) && relates(compare, &KeyValue::default());
    }
    live.all(|entry| relates(compare, &entry.newest.kv))
}

fn relates(compare: &Compare, kv: &KeyValue) -> bool {
    let ordering = match &compare.operand {
        Operand::Version(version) => kv.version.cmp(version),
        Operand::Create(revision) => kv.create_revision.cmp(revision),
        Operand::Mod(revision) => kv.mod_revision.cmp(revision),
        Operand::Value(value) => kv.value.cmp(value),
        Operand::Lease(lease) => kv.lease.cmp(lease),
    };
    match compare.operator {
        Operator::Equal => ordering.is_eq(),
        Operator::NotEqual => ordering.is_ne(),
        Operator::Greater => ordering.is_gt(),
        Operator::Less => ordering.is_lt(),
    }
}

/// Does a transaction that has passed [`check`].
pub(super) fn run(store: &mut Store, txn: &Txn, out: &mut Output) -> Result<TxnResponse, KvError> {
    let path = Path::of(store, txn);
    path.validate(store)?;
    let before = path.reads().then(|| store.clone());
    let mut write = Write::new(store);
    match walk(&mut write, &path, &mut ReplyBudget::new()) {
        Ok(response) => {
            write.finish(out);
            Ok(response)
        }
        Err(refusal) => {
            if let Some(before) = before {
                *store = before;
            }
            Err(refusal)
        }
    }
}

/// Does the steps of a path, in their order.
///
/// # Errors
/// [`KvError::ReplyTooLarge`], and nothing else.
fn walk(write: &mut Write<'_>, path: &Path<'_>, budget: &mut ReplyBudget) -> Result<TxnResponse, KvError> {
    let mut responses = Vec::with_capacity(path.steps.len());
    for step in &path.steps {
        let response = match step {
            Step::Range(request) => TxnOpResponse::Range(range(write.store, request, budget)?),
            Step::Put(request) => TxnOpResponse::Put(put(write, (*request).clone(), budget)?),
            Step::Delete(request) => TxnOpResponse::Delete(delete(write, request, budget)?),
            Step::Nested(path) => TxnOpResponse::Txn(walk(write, path, budget)?),
        };
        let revision = if matches!(step, Step::Nested(_)) { 0 } else { write.revision() };
        responses.push(TxnOpReply { revision, response });
    }
    Ok(TxnResponse { succeeded: path.succeeded, responses })
}

/// Does a put that has passed [`validate_put`].
///
/// # Errors
/// [`KvError::ReplyTooLarge`], and nothing else: not for the first answer of a budget.
pub(super) fn put(write: &mut Write<'_>, put: Put, budget: &mut ReplyBudget) -> Result<PutResponse, KvError> {
    let Put { key, mut value, mut lease, prev_kv, ignore_value, ignore_lease } = put;
    if ignore_value || ignore_lease {
        let before = write.store.current(&key).map(|change| &change.kv);
        if ignore_value {
            value = before.map_or_else(Bytes::new, |kv| kv.value.clone());
        }
        if ignore_lease {
            lease = before.map_or(0, |kv| kv.lease);
        }
    }
    let before = write.put(key, value, lease).filter(|_| prev_kv).map(|change| change.kv.clone());
    before.iter().try_for_each(|kv| budget.spend(kv))?;
    Ok(PutResponse { prev_kv: before })
}

/// Does a delete that is no transaction's.
pub(super) fn delete_alone(
    store: &mut Store,
    request: &DeleteRange,
    out: &mut Output,
) -> Result<DeleteResponse, KvError> {
    let before = request.prev_kv.then(|| store.clone());
    let mut write = Write::new(store);
    match delete(&mut write, request, &mut ReplyBudget::new()) {
        Ok(response) => {
            write.finish(out);
            Ok(response)
        }
        Err(refusal) => {
            if let Some(before) = before {
                *store = before;
            }
            Err(refusal)
        }
    }
}

/// Does a delete.
///
/// # Errors
/// [`KvError::ReplyTooLarge`], and nothing else: only where what was there before is to be told.
fn delete(write: &mut Write<'_>, request: &DeleteRange, budget: &mut ReplyBudget) -> Result<DeleteResponse, KvError> {
    let deleted = write.delete(&request.key, &request.range_end);
    let told = if request.prev_kv { deleted.as_slice() } else { &[] };
    told.iter().try_for_each(|change| budget.spend(&change.kv))?;
    let prev_kvs = told.iter().map(|change| change.kv.clone()).collect();
    Ok(DeleteResponse { deleted: deleted.len() as u64, prev_kvs })
}
