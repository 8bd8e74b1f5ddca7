//! Keys with an order of their own, for protocols that do not order everything (`quorate_core::objects`).
//!
//! Each key is a store of its own in which nothing else was ever written: its revision begins at 1 and counts the changes of
//! this key alone, so `mod_revision` and compares by it mean what they mean in etcd, key by key. Of its history the latest
//! change is kept. A transaction that names several keys finds them in one store whose revision is the greatest of theirs, and
//! gives the keys that it changes the next one: of all of them that is the latest. What needs one order for all keys (leases,
//! compaction, deletes of ranges) has no place here; a range shows each key as it is.

use super::Kv;
use super::error::KvError;
use super::operation::{Compare, DeleteRange, Operand, Operation, Put, Query, Range, Txn, TxnOp};
use super::range::ReplyBudget;
use super::reply::{KeyValue, RangeResponse, Reply};
use super::store::{Change, Store};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use imbl::OrdMap;
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output};
use quorate_core::objects::{Image, Objects};
use std::ops::Bound;
use std::sync::Arc;

/// A key: how often it has changed, and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub(super) struct Own {
    pub(super) revision: i64,
    pub(super) kv: Option<KeyValue>,
}

/// All keys that have an order of their own.
#[derive(Clone, Debug, Default)]
pub(super) struct Owns {
    keys: OrdMap<Bytes, Arc<Own>>,
    /// A sum over all of them, so that it does not matter in which order they came.
    sum: [u64; 4],
}

impl Own {
    /// A store in which nothing but this key was ever written.
    fn store(&self) -> Store {
        let mut store = Store { revision: self.revision, ..Store::new() };
        if let Some(kv) = &self.kv {
            store.enter(&kv.key, |_| Change { kv: kv.clone(), sub: 0 });
        }
        store
    }

    fn share(&self, key: &[u8]) -> [u64; 4] {
        let bytes = borsh::to_vec(self).unwrap_or_default();
        let digest = Digest::of_parts(&[b"kv key", &(key.len() as u64).to_le_bytes(), key, &bytes]);
        let mut words = digest.as_bytes().chunks_exact(8);
        std::array::from_fn(|_| {
            let word = words.next().and_then(<[u8]>::first_chunk::<8>);
            word.map_or(0, |word| u64::from_le_bytes(*word))
        })
    }
}

impl Owns {
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys after this one, in order.
    pub(super) fn after(&self, key: Option<&Bytes>) -> impl Iterator<Item = (&Bytes, &Own)> {
        let from = key.map_or(Bound::Unbounded, |key| Bound::Excluded(key.clone()));
        self.keys.range((from, Bound::Unbounded)).map(|(key, own)| (key, own.as_ref()))
    }

    pub(super) fn set(&mut self, key: &Bytes, own: Option<Own>) {
        let former = match &own {
            Some(own) => self.keys.insert(key.clone(), Arc::new(own.clone())),
            None => self.keys.remove(key),
        };
        for (place, share) in self.sum.iter_mut().zip(former.map_or([0; 4], |former| former.share(key))) {
            *place = place.wrapping_sub(share);
        }
        for (place, share) in self.sum.iter_mut().zip(own.map_or([0; 4], |own| own.share(key))) {
            *place = place.wrapping_add(share);
        }
    }

    /// The digest of a store that these belong to.
    pub(super) fn digest(&self, store: Digest) -> Digest {
        if self.is_empty() {
            return store;
        }
        let sum: Vec<u8> = self.sum.iter().flat_map(|word| word.to_le_bytes()).collect();
        Digest::of_parts(&[store.as_bytes(), &sum])
    }

    /// The keys of a range as one store, to be read, and the greatest of their revisions.
    pub(super) fn store(&self, range: &Range) -> Store {
        let mut store = Store::new();
        let mut sub = 0;
        let key = Bytes::copy_from_slice(&range.key);
        let last = self.keys.get(&key).map(|own| (&key, own.as_ref()));
        let single = last.into_iter().filter(|_| range.range_end.is_empty());
        let many =
            self.keys.range((Bound::Included(key.clone()), Bound::Unbounded)).filter(|_| !range.range_end.is_empty());
        let many = many.map(|(key, own)| (key, own.as_ref()));
        let is_in = |key: &Bytes| super::store::contains(&range.key, &range.range_end, key);
        for (_, own) in single.chain(many).take_while(|(key, _)| is_in(key)) {
            store.revision = store.revision.max(own.revision);
            if let Some(kv) = &own.kv {
                store.enter(&kv.key, |_| Change { kv: kv.clone(), sub });
                sub = sub.saturating_add(1);
            }
        }
        store
    }
}

/// Reads keys with orders of their own, as they are. Of one key a revision can be asked for, and is there or not; several
/// have none in common: a page of a longer range, which names that of its first page, shows its keys as they are.
pub(super) fn range(store: &Store, asked: &Range) -> Result<RangeResponse, KvError> {
    if asked.range_end.is_empty() && asked.revision > store.revision {
        return Err(KvError::FutureRevision);
    }
    if asked.range_end.is_empty() && asked.revision > 0 && asked.revision < store.revision {
        return Err(KvError::Compacted { compact_revision: store.revision });
    }
    super::range::range(store, &Range { revision: 0, ..asked.clone() }, &mut ReplyBudget::new())
}

/// Which keys an operation touches, if it names them all and needs nothing that all keys share.
pub(super) fn touched(operation: &[u8]) -> Objects {
    let one = |key: Option<&Bytes>| key.map_or(Objects::All, |key| Objects::One(key.clone()));
    match Operation::decode(operation) {
        Ok(Operation::Put(put)) => one(of_put(&put)),
        Ok(Operation::Delete(delete)) => one(of_delete(&delete)),
        Ok(Operation::Txn(txn)) => {
            let mut keys = Some(Vec::new());
            of_txn(&txn, &mut keys);
            keys.map_or(Objects::All, Objects::of)
        }
        _ => Objects::All,
    }
}

/// Which key a query looks at, if only one, as it is now.
pub(super) fn looked_at(query: &[u8]) -> Objects {
    match Query::decode(query) {
        Ok(Query::Range(range)) if range.range_end.is_empty() && range.revision <= 0 => Objects::One(range.key),
        _ => Objects::All,
    }
}

fn of_put(put: &Put) -> Option<&Bytes> {
    (put.lease == 0).then_some(&put.key)
}

fn of_delete(delete: &DeleteRange) -> Option<&Bytes> {
    delete.range_end.is_empty().then_some(&delete.key)
}

fn of_compare(compare: &Compare) -> Option<&Bytes> {
    let fits = compare.range_end.is_empty() && !matches!(compare.operand, Operand::Lease(_));
    fits.then_some(&compare.key)
}

/// Collects the keys of a transaction; nothing if it needs more than keys.
fn of_txn(txn: &Txn, keys: &mut Option<Vec<Bytes>>) {
    fn add(keys: &mut Option<Vec<Bytes>>, key: Option<&Bytes>) {
        match (key, keys.as_mut()) {
            (Some(key), Some(keys)) => keys.push(key.clone()),
            _ => *keys = None,
        }
    }
    for compare in &txn.compare {
        add(keys, of_compare(compare));
    }
    for op in txn.success.iter().chain(&txn.failure) {
        match op {
            TxnOp::Range(range) => add(keys, (range.range_end.is_empty() && range.revision <= 0).then_some(&range.key)),
            TxnOp::Put(put) => add(keys, of_put(put)),
            TxnOp::Delete(delete) => add(keys, of_delete(delete)),
            TxnOp::Txn(txn) => of_txn(txn, keys), // as deep as the decoder lets it be
        }
    }
}

impl Kv {
    /// One key as it is.
    pub(super) fn own(&self, key: &[u8]) -> Option<&Own> {
        self.owns.keys.get(&Bytes::copy_from_slice(key)).map(Arc::as_ref)
    }

    /// Applies an operation in a store in which there is nothing but its key.
    pub(super) fn run_alone(&mut self, key: &[u8], at: &At, operation: &[u8]) -> Reply {
        let key = Bytes::copy_from_slice(key);
        let store = self.own(&key).map_or_else(Store::new, Own::store);
        let mut alone = Self { store, owns: Owns::default() };
        let decoded = Operation::decode(operation);
        let result = decoded.and_then(|operation| alone.run(at, operation, &mut Output::default()));
        let revision = alone.store.revision;
        let kv = alone.store.current(&key).map(|change| change.kv.clone());
        if revision > 1 {
            self.owns.set(&key, Some(Own { revision, kv }));
        }
        Reply { revision, result }
    }

    /// Applies an operation in a store in which there are its keys alone.
    pub(super) fn run_across(&mut self, keys: &[Bytes], at: &At, operation: &[u8]) -> Reply {
        let mut store = Store::new();
        for (sub, key) in (0..).zip(keys) {
            let Some(own) = self.own(key) else { continue };
            store.revision = store.revision.max(own.revision);
            if let Some(kv) = &own.kv {
                store.enter(&kv.key, |_| Change { kv: kv.clone(), sub });
            }
        }
        let before = store.revision;
        let mut alone = Self { store, owns: Owns::default() };
        let decoded = Operation::decode(operation);
        let result = decoded.and_then(|operation| alone.run(at, operation, &mut Output::default()));
        let revision = alone.store.revision;
        let is_new = |kv: &KeyValue| kv.mod_revision > before;
        let entries = keys.iter().filter_map(|key| alone.store.keys.get::<[u8]>(key.as_ref()));
        for entry in entries.filter(|entry| is_new(&entry.newest.kv)) {
            let kv = entry.live.then(|| entry.newest.kv.clone());
            self.owns.set(&entry.newest.kv.key, Some(Own { revision, kv }));
        }
        Reply { revision, result }
    }

    pub(super) fn own_image(&self, key: &[u8]) -> Image {
        self.own(key).map(|own| Bytes::from(borsh::to_vec(own).unwrap_or_default()))
    }

    pub(super) fn put_own(&mut self, key: &[u8], image: Option<&[u8]>) -> Result<(), Corrupt> {
        let own = image.map(borsh::from_slice::<Own>).transpose();
        let own = own.map_err(|error| Corrupt(format!("a key that does not decode: {error}")))?;
        if own.as_ref().and_then(|own| own.kv.as_ref()).is_some_and(|kv| kv.key.as_ref() != key) {
            return Err(Corrupt("a key under another one's name".to_owned()));
        }
        self.owns.set(&Bytes::copy_from_slice(key), own);
        Ok(())
    }
}
