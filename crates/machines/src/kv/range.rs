//! Range queries: what etcd calls `Range`, from the present or an older revision.

use super::error::KvError;
use super::limits::{KEY_OVERHEAD_BYTES, REPLY_BYTES_MAX};
use super::operation::{Range, SortOrder, SortTarget};
use super::reply::{KeyValue, RangeResponse};
use super::store::{Change, Store};
use bytes::Bytes;
use std::sync::Arc;

/// Bytes that the ranges of one request may still return.
#[derive(Debug)]
pub(super) struct ReplyBudget(usize);

impl ReplyBudget {
    pub(super) const fn new() -> Self {
        Self(REPLY_BYTES_MAX)
    }

    pub(super) fn spend(&mut self, kv: &KeyValue) -> Result<(), KvError> {
        let bytes = kv.key.len().saturating_add(kv.value.len()).saturating_add(KEY_OVERHEAD_BYTES);
        self.0 = self.0.checked_sub(bytes).ok_or(KvError::ReplyTooLarge)?;
        Ok(())
    }
}

/// Refuses a revision that is not there yet, or no longer. The compacted revision itself can be read.
pub(super) fn check_revision(store: &Store, revision: i64) -> Result<(), KvError> {
    if revision > store.revision {
        return Err(KvError::FutureRevision);
    }
    if revision > 0 && revision < store.compacted {
        return Err(KvError::Compacted { compact_revision: store.compacted });
    }
    Ok(())
}

/// As [`check_revision`], inside a transaction: there etcd refuses a revision below zero once anything was compacted.
pub(super) fn check_revision_in_txn(store: &Store, revision: i64) -> Result<(), KvError> {
    if revision < 0 && revision < store.compacted {
        return Err(KvError::Compacted { compact_revision: store.compacted });
    }
    check_revision(store, revision)
}

/// Answers a range whose revision has been checked. 0 or less reads what is there now, also inside a transaction.
pub(super) fn range(store: &Store, range: &Range, budget: &mut ReplyBudget) -> Result<RangeResponse, KvError> {
    if range.count_only {
        return Ok(RangeResponse { count: found(store, range).count() as u64, ..RangeResponse::default() });
    }
    let (selected, count) = if narrows_or_sorts(range) { select_all(store, range) } else { select_first(store, range) };
    let cut = cut(range).map_or(selected.len(), |limit| limit.min(selected.len()));
    let more = cut < selected.len();
    let mut kvs = Vec::with_capacity(cut);
    for change in selected.into_iter().take(cut) {
        let kv = shown(&change.kv, range.keys_only);
        budget.spend(&kv)?;
        kvs.push(kv);
    }
    Ok(RangeResponse { kvs, more, count })
}

/// The changes that made the keys in the range what they were at the revision, in the order of keys.
fn found<'a>(store: &'a Store, range: &'a Range) -> impl Iterator<Item = &'a Arc<Change>> + 'a {
    let revision = if range.revision > 0 { range.revision } else { i64::MAX };
    store.entries(&range.key, &range.range_end).filter_map(move |entry| store.at(entry, revision))
}

fn cut(range: &Range) -> Option<usize> {
    if range.limit == 0 { None } else { Some(usize::try_from(range.limit).unwrap_or(usize::MAX)) }
}

/// Whether the first keys may not be the ones to return.
fn narrows_or_sorts(range: &Range) -> bool {
    let bounds = [range.min_mod_revision, range.max_mod_revision, range.min_create_revision, range.max_create_revision];
    range.order == SortOrder::Descend || range.target != SortTarget::Key || bounds.iter().any(|bound| *bound != 0)
}

/// The first keys up to one beyond the limit, and the count of all.
fn select_first<'a>(store: &'a Store, range: &'a Range) -> (Vec<&'a Arc<Change>>, u64) {
    let mut found = found(store, range);
    let limit = cut(range).map_or(usize::MAX, |limit| limit.saturating_add(1));
    let first: Vec<_> = found.by_ref().take(limit).collect();
    let count = (first.len() as u64).saturating_add(found.count() as u64);
    (first, count)
}

/// All keys that the filters let through, sorted, and the count before filtering.
fn select_all<'a>(store: &'a Store, range: &'a Range) -> (Vec<&'a Arc<Change>>, u64) {
    let mut count: u64 = 0;
    let counted = found(store, range).inspect(|_| count = count.saturating_add(1));
    let mut selected: Vec<_> = counted.filter(|change| passes(range, &change.kv)).collect();
    sort(&mut selected, range);
    (selected, count)
}

fn passes(range: &Range, kv: &KeyValue) -> bool {
    let within = |revision: i64, min: i64, max: i64| (min == 0 || revision >= min) && (max == 0 || revision <= max);
    within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision)
        && within(kv.create_revision, range.min_create_revision, range.max_create_revision)
}

/// Stable: equals stay in the order of their keys.
fn sort(selected: &mut [&Arc<Change>], range: &Range) {
    selected.sort_by(|left, right| {
        let (left, right) = (&left.kv, &right.kv);
        let ascending = match range.target {
            SortTarget::Key => left.key.cmp(&right.key),
            SortTarget::Version => left.version.cmp(&right.version),
            SortTarget::Create => left.create_revision.cmp(&right.create_revision),
            SortTarget::Mod => left.mod_revision.cmp(&right.mod_revision),
            SortTarget::Value => left.value.cmp(&right.value),
        };
        if range.order == SortOrder::Descend { ascending.reverse() } else { ascending }
    });
}

fn shown(kv: &KeyValue, keys_only: bool) -> KeyValue {
    if keys_only { KeyValue { key: kv.key.clone(), value: Bytes::new(), ..*kv } } else { kv.clone() }
}
