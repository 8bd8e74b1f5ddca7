//! The store, as naively as can be: the whole state at every revision, and every event. Slow, and too simple to be wrong
//! in the same way as the store.

use bytes::Bytes;
use quorate_core::time::WallTime;
use quorate_machines::kv::*;
use std::collections::BTreeMap;

type State = BTreeMap<Bytes, KeyValue>;

pub struct Model {
    /// What there was at each revision; index 0 is nothing.
    states: Vec<State>,
    events: Vec<Vec<Event>>,
    compacted: i64,
    /// TTL and end, in seconds.
    leases: BTreeMap<i64, (i64, u64)>,
}

fn covers(key: &[u8], range_end: &[u8], wanted: &[u8]) -> bool {
    if range_end.is_empty() {
        return wanted == key;
    }
    wanted >= key && (range_end == b"\0" || wanted < range_end)
}

fn index(revision: i64) -> usize {
    usize::try_from(revision).unwrap()
}

impl Model {
    pub fn new() -> Self {
        Self { states: vec![State::new(); 2], events: vec![vec![]; 2], compacted: -1, leases: BTreeMap::new() }
    }

    pub fn revision(&self) -> i64 {
        i64::try_from(self.states.len()).unwrap() - 1
    }

    fn now(&self) -> &State {
        self.states.last().unwrap()
    }

    pub fn apply(&mut self, seconds: u64, operation: &Operation) -> Reply {
        let result = self.run(seconds, operation);
        Reply { revision: self.revision(), result }
    }

    fn run(&mut self, seconds: u64, operation: &Operation) -> Result<Response, KvError> {
        Ok(match operation {
            Operation::As { .. } | Operation::Auth(_) => panic!("the model has no users"),
            Operation::Put(put) => {
                self.can_put(put)?;
                let mut draft = Draft::of(self);
                let response = draft.put(put);
                self.commit(draft);
                Response::Put(response)
            }
            Operation::Delete(delete) => {
                let mut draft = Draft::of(self);
                let response = draft.delete(delete);
                self.commit(draft);
                Response::Delete(response)
            }
            Operation::Txn(txn) => {
                writes(&txn.success)?;
                writes(&txn.failure)?;
                let before = self.now().clone();
                self.can(&before, txn)?;
                let mut draft = Draft::of(self);
                let response = self.walk(&mut draft, &before, txn);
                self.commit(draft);
                Response::Txn(response)
            }
            Operation::Compact { revision } if *revision <= self.compacted => return Err(self.gone()),
            Operation::Compact { revision } if *revision > self.revision() => return Err(KvError::FutureRevision),
            Operation::Compact { revision } => {
                self.compacted = *revision;
                Response::Compact
            }
            Operation::LeaseGrant { id: 0, .. } => panic!("chosen ids are tested elsewhere"),
            Operation::LeaseGrant { id, .. } if self.leases.contains_key(id) => return Err(KvError::LeaseExists),
            Operation::LeaseGrant { id, ttl } => {
                let ttl = (*ttl).max(2);
                self.leases.insert(*id, (ttl, seconds + ttl.unsigned_abs()));
                Response::LeaseGrant { id: *id, ttl }
            }
            Operation::LeaseRevoke { id } => self.revoke(*id)?,
            Operation::LeaseKeepAlive { id } => match self.leases.get_mut(id).filter(|(_, end)| *end > seconds) {
                Some((ttl, end)) => {
                    *end = seconds + ttl.unsigned_abs();
                    Response::LeaseKeepAlive { id: *id, ttl: *ttl }
                }
                None => Response::LeaseKeepAlive { id: *id, ttl: 0 },
            },
            Operation::Read(query) => self.query(query)?,
        })
    }

    pub fn tick(&mut self, seconds: u64) {
        while let Some((id, _)) =
            self.leases.iter().filter(|(_, (_, end))| *end <= seconds).min_by_key(|(id, (_, end))| (*end, **id))
        {
            self.revoke(*id).unwrap();
        }
    }

    fn revoke(&mut self, id: i64) -> Result<Response, KvError> {
        self.leases.remove(&id).ok_or(KvError::LeaseNotFound)?;
        let mut draft = Draft::of(self);
        for key in self.now().values().filter(|kv| kv.lease == id).map(|kv| kv.key.clone()) {
            draft.delete(&DeleteRange { key, ..DeleteRange::default() });
        }
        self.commit(draft);
        Ok(Response::LeaseRevoke)
    }

    fn commit(&mut self, draft: Draft) {
        if !draft.events.is_empty() {
            self.states.push(draft.state);
            self.events.push(draft.events);
        }
    }

    fn gone(&self) -> KvError {
        KvError::Compacted { compact_revision: self.compacted }
    }

    fn can_put(&self, put: &Put) -> Result<(), KvError> {
        if put.lease != 0 && !self.leases.contains_key(&put.lease) {
            return Err(KvError::LeaseNotFound);
        }
        if self.keeps_nothing(put) { Err(KvError::KeyNotFound) } else { Ok(()) }
    }

    fn keeps_nothing(&self, put: &Put) -> bool {
        (put.ignore_value || put.ignore_lease) && !self.now().contains_key(&put.key)
    }

    fn can_read(&self, revision: i64) -> Result<(), KvError> {
        match revision {
            revision if revision > self.revision() => Err(KvError::FutureRevision),
            revision if revision > 0 && revision < self.compacted => Err(self.gone()),
            _ => Ok(()),
        }
    }

    /// All puts of the path, then all ranges.
    fn can(&self, before: &State, txn: &Txn) -> Result<(), KvError> {
        let path = path(before, txn);
        path.iter().try_for_each(|op| match op {
            TxnOp::Put(put) if self.keeps_nothing(put) => Err(KvError::KeyNotFound),
            TxnOp::Put(put) => self.can_put(put),
            _ => Ok(()),
        })?;
        path.iter().try_for_each(|op| match op {
            TxnOp::Range(range) if range.revision < 0 && range.revision < self.compacted => Err(self.gone()),
            TxnOp::Range(range) => self.can_read(range.revision),
            _ => Ok(()),
        })
    }

    fn walk(&self, draft: &mut Draft, before: &State, txn: &Txn) -> TxnResponse {
        let succeeded = holds(before, txn);
        let mut responses = Vec::new();
        for op in if succeeded { &txn.success } else { &txn.failure } {
            let response = match op {
                TxnOp::Range(range) if range.revision > 0 => {
                    TxnOpResponse::Range(read(&self.states[index(range.revision)], range))
                }
                TxnOp::Range(range) => TxnOpResponse::Range(read(&draft.state, range)),
                TxnOp::Put(put) => TxnOpResponse::Put(draft.put(put)),
                TxnOp::Delete(delete) => TxnOpResponse::Delete(draft.delete(delete)),
                TxnOp::Txn(txn) => TxnOpResponse::Txn(self.walk(draft, before, txn)),
            };
            let revision = if draft.events.is_empty() { self.revision() } else { self.revision() + 1 };
            let revision = if matches!(op, TxnOp::Txn(_)) { 0 } else { revision };
            responses.push(TxnOpReply { revision, response });
        }
        TxnResponse { succeeded, responses }
    }

    pub fn query(&self, query: &Query) -> Result<Response, KvError> {
        Ok(match query {
            Query::Range(range) => {
                self.can_read(range.revision)?;
                let revision = if range.revision > 0 { range.revision } else { self.revision() };
                Response::Range(read(&self.states[index(revision)], range))
            }
            Query::Events(events) => Response::Events(self.read_events(events)?),
            Query::LeaseTimeToLive { id, keys, now } => {
                Response::LeaseTimeToLive(self.time_to_live(*id, *keys, now.as_nanos() / 1_000_000_000))
            }
            Query::LeaseLeases => {
                let mut ids: Vec<_> = self.leases.iter().map(|(id, (_, end))| (*end, *id)).collect();
                ids.sort_unstable();
                Response::LeaseLeases(ids.into_iter().map(|(_, id)| id).collect())
            }
            Query::Status => panic!("the digest is the store's own"),
            Query::As { .. } | Query::Auth(_) | Query::EventsPart { .. } => panic!("the model is not asked"),
        })
    }

    fn time_to_live(&self, id: i64, keys: bool, now: u64) -> LeaseTimeToLiveResponse {
        let Some((granted_ttl, end)) = self.leases.get(&id).copied() else {
            return LeaseTimeToLiveResponse { id, ttl: -1, ..LeaseTimeToLiveResponse::default() };
        };
        let held = self.now().values().filter(|kv| keys && kv.lease == id).map(|kv| kv.key.clone());
        LeaseTimeToLiveResponse {
            id,
            ttl: if end > now { i64::try_from(end - now).unwrap() } else { -1 },
            granted_ttl,
            expires: WallTime::from_nanos(end * 1_000_000_000),
            keys: held.collect(),
        }
    }

    fn read_events(&self, query: &Events) -> Result<EventsResponse, KvError> {
        let (mut batches, mut found, present) = (Vec::new(), 0, self.revision());
        if query.from_revision <= 0 {
            return Ok(EventsResponse { batches, next_revision: present + 1 });
        }
        if query.from_revision < self.compacted {
            return Err(self.gone());
        }
        let mut revision = query.from_revision;
        while revision <= present && (query.limit == 0 || found < query.limit) {
            let events: Vec<_> = self.events_of(revision).into_iter().filter(|event| wanted(query, event)).collect();
            found += events.len() as u64;
            if !events.is_empty() {
                batches.push(WatchBatch { revision, events });
            }
            revision += 1;
        }
        if !query.prev_kv {
            batches.iter_mut().flat_map(|batch| &mut batch.events).for_each(|event| event.prev_kv = None);
        }
        Ok(EventsResponse { batches, next_revision: revision })
    }

    /// At the compacted revision only each key's last event is kept, and nobody knows any more what was before.
    fn events_of(&self, revision: i64) -> Vec<Event> {
        let mut events = self.events[index(revision)].clone();
        if revision == self.compacted {
            let all = events.clone();
            let mut number = 0;
            events.retain(|event| {
                number += 1;
                all[number..].iter().all(|later| later.kv.key != event.kv.key)
            });
            events.iter_mut().for_each(|event| event.prev_kv = None);
        }
        events
    }

    /// Every revision as it was published.
    pub fn batches(&self) -> Vec<WatchBatch> {
        let batches = self.events.iter().enumerate().skip(2);
        batches
            .map(|(at, events)| WatchBatch { revision: i64::try_from(at).unwrap(), events: events.clone() })
            .collect()
    }
}

fn wanted(query: &Events, event: &Event) -> bool {
    let filtered = if event.kind == EventKind::Put { query.no_put } else { query.no_delete };
    !filtered && covers(&query.key, &query.range_end, &event.kv.key)
}

/// The next revision, in the making.
struct Draft {
    before: State,
    state: State,
    revision: i64,
    events: Vec<Event>,
}

impl Draft {
    fn of(model: &Model) -> Self {
        let state = model.now().clone();
        Self { before: state.clone(), state, revision: model.revision() + 1, events: vec![] }
    }

    fn event(&mut self, kind: EventKind, kv: KeyValue) {
        let prev_kv = self.before.get(&kv.key).cloned();
        self.events.push(Event { kind, kv, prev_kv });
    }

    fn put(&mut self, put: &Put) -> PutResponse {
        let before = self.state.get(&put.key).cloned();
        let old = before.clone().unwrap_or_default();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if old.version == 0 { self.revision } else { old.create_revision },
            mod_revision: self.revision,
            version: old.version + 1,
            value: if put.ignore_value { old.value } else { put.value.clone() },
            lease: if put.ignore_lease { old.lease } else { put.lease },
        };
        self.state.insert(put.key.clone(), kv.clone());
        self.event(EventKind::Put, kv);
        PutResponse { prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRange) -> DeleteResponse {
        let hit = |kv: &&KeyValue| covers(&delete.key, &delete.range_end, &kv.key);
        let gone: Vec<_> = self.state.values().filter(hit).cloned().collect();
        for kv in &gone {
            self.state.remove(&kv.key);
            let tombstone = KeyValue { key: kv.key.clone(), mod_revision: self.revision, ..KeyValue::default() };
            self.event(EventKind::Delete, tombstone);
        }
        DeleteResponse { deleted: gone.len() as u64, prev_kvs: if delete.prev_kv { gone } else { vec![] } }
    }
}

fn read(state: &State, range: &Range) -> RangeResponse {
    let mut kvs: Vec<_> = state.values().filter(|kv| covers(&range.key, &range.range_end, &kv.key)).cloned().collect();
    let count = kvs.len() as u64;
    if range.count_only {
        return RangeResponse { count, ..RangeResponse::default() };
    }
    kvs.retain(|kv| {
        let below = |max: i64, revision| max != 0 && revision > max;
        kv.mod_revision >= range.min_mod_revision
            && kv.create_revision >= range.min_create_revision
            && !below(range.max_mod_revision, kv.mod_revision)
            && !below(range.max_create_revision, kv.create_revision)
    });
    kvs.sort_by_key(|kv| match range.target {
        SortTarget::Key => (0, kv.key.clone()),
        SortTarget::Version => (kv.version, Bytes::new()),
        SortTarget::Create => (kv.create_revision, Bytes::new()),
        SortTarget::Mod => (kv.mod_revision, Bytes::new()),
        SortTarget::Value => (0, kv.value.clone()),
    });
    if range.order == SortOrder::Descend {
        // descending, equals still in the order of keys
        kvs.reverse();
        let rank = |kv: &KeyValue| match range.target {
            SortTarget::Key => (0, kv.key.clone()),
            SortTarget::Version => (kv.version, Bytes::new()),
            SortTarget::Create => (kv.create_revision, Bytes::new()),
            SortTarget::Mod => (kv.mod_revision, Bytes::new()),
            SortTarget::Value => (0, kv.value.clone()),
        };
        kvs =
            kvs.chunk_by(|left, right| rank(left) == rank(right)).flat_map(|same| same.iter().rev().cloned()).collect();
    }
    let limit = if range.limit == 0 { kvs.len() } else { usize::try_from(range.limit).unwrap().min(kvs.len()) };
    let more = limit < kvs.len();
    kvs.truncate(limit);
    if range.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { kvs, more, count }
}

fn holds(state: &State, txn: &Txn) -> bool {
    txn.compare.iter().all(|compare| {
        let kvs: Vec<_> =
            state.values().filter(|kv| covers(&compare.key, &compare.range_end, &kv.key)).cloned().collect();
        match (&compare.operand, kvs.as_slice()) {
            (Operand::Value(_), []) => false,
            (_, []) => relates(compare, &KeyValue::default()),
            (_, kvs) => kvs.iter().all(|kv| relates(compare, kv)),
        }
    })
}

fn relates(compare: &Compare, kv: &KeyValue) -> bool {
    fn is<T: Ord>(operator: Operator, left: &T, right: &T) -> bool {
        match operator {
            Operator::Equal => left == right,
            Operator::NotEqual => left != right,
            Operator::Greater => left > right,
            Operator::Less => left < right,
        }
    }
    match &compare.operand {
        Operand::Version(version) => is(compare.operator, &kv.version, version),
        Operand::Create(revision) => is(compare.operator, &kv.create_revision, revision),
        Operand::Mod(revision) => is(compare.operator, &kv.mod_revision, revision),
        Operand::Value(value) => is(compare.operator, &kv.value, value),
        Operand::Lease(lease) => is(compare.operator, &kv.lease, lease),
    }
}

type Writes = (Vec<Bytes>, Vec<(Bytes, Bytes)>);

/// etcd's `checkIntervals`, with lists.
fn writes(ops: &[TxnOp]) -> Result<Writes, KvError> {
    let (mut puts, mut deletes): Writes = (vec![], vec![]);
    let put = |puts: &mut Vec<Bytes>, deletes: &[(Bytes, Bytes)], key: &Bytes, safe: &[Bytes]| {
        let deleted = deletes.iter().any(|(start, end)| covers(start, end, key));
        if deleted || (puts.contains(key) && !safe.contains(key)) {
            return Err(KvError::DuplicateKey);
        }
        if !puts.contains(key) {
            puts.push(key.clone());
        }
        Ok(())
    };
    for op in ops {
        if let TxnOp::Delete(delete) = op {
            deletes.push((delete.key.clone(), delete.range_end.clone()));
        }
    }
    for op in ops {
        let TxnOp::Txn(txn) = op else { continue };
        let (success, failure) = (writes(&txn.success)?, writes(&txn.failure)?);
        success.0.iter().try_for_each(|key| put(&mut puts, &deletes, key, &[]))?;
        failure.0.iter().try_for_each(|key| put(&mut puts, &deletes, key, &success.0))?;
        deletes.extend(success.1.into_iter().chain(failure.1));
    }
    for op in ops {
        if let TxnOp::Put(one) = op {
            put(&mut puts, &deletes, &one.key, &[])?;
        }
    }
    Ok((puts, deletes))
}

/// What a transaction does, enclosed ones included.
fn path<'a>(before: &State, txn: &'a Txn) -> Vec<&'a TxnOp> {
    let chosen = if holds(before, txn) { &txn.success } else { &txn.failure };
    let steps = chosen.iter().flat_map(|op| match op {
        TxnOp::Txn(txn) => path(before, txn),
        other => vec![other],
    });
    steps.collect()
}
