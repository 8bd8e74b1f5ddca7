//! Waiting in line: what locks and elections are made of (etcd's *concurrency* recipes).
//!
//! Whoever wants something puts a key under its name, with a lease. The keys queue up in the order of their creation; the
//! oldest has what they all want. Each waits only for the one before it, so that nobody is woken in vain.
//!
//! All of it is done with the rights of whoever asked: who may write under a name may queue up there, and who may read under
//! it may look who is first.

use crate::access::Access;
use crate::errors::EtcdError;
use crate::gateway::Api;
use crate::hub::Hub;
use crate::proto::etcdserverpb::ResponseHeader;
use crate::store::Read;
use bytes::Bytes;
use quorate_machines::kv::{
    Compare, DeleteRange, Events, KeyValue, KvError, Operand, Operation, Put, Query, Range, Response, SortOrder,
    SortTarget, Txn, TxnOp, TxnOpResponse, TxnResponse,
};
use std::sync::Arc;
use std::time::Duration;
use tonic::metadata::MetadataMap;

/// Seconds that a lease lives that was granted because a client came without one (etcd's session).
const LEASE_SECONDS: i64 = 60;
/// How often a lease is kept alive in the time that it lives.
const KEEPALIVES_PER_TTL: u32 = 3;

/// Where lines are: the store as the caller may use it, and what happens in it.
#[derive(Clone, Debug)]
pub struct Line {
    access: Access,
    hub: Arc<Hub>,
}

impl Api {
    /// Lines, for whoever sent this.
    pub(crate) fn line(&self, metadata: &MetadataMap) -> Line {
        Line { access: self.access(metadata), hub: self.hub.clone() }
    }
}

/// A place in the line. Dropped while it waits, its key is deleted: the client is gone.
#[derive(Debug)]
pub struct Place {
    line: Line,
    prefix: Bytes,
    /// The key that stands in the line.
    pub key: Bytes,
    /// When it was created.
    pub revision: i64,
    /// What it lives with.
    pub lease: i64,
    ttl: Duration,
    waits: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.waits {
            let (access, operation) = (self.line.access.clone(), Operation::delete(self.key.clone()));
            tokio::spawn(async move { access.apply(operation).await });
        }
    }
}

impl Place {
    /// Joins the line of `name`; with `lease` again, the same place. The key's value is `value`, and changes to it.
    ///
    /// # Errors
    /// A lease that does not exist, or no answer.
    pub async fn take(line: &Line, name: &[u8], lease: i64, value: Bytes) -> Result<Self, EtcdError> {
        let lease = if lease == 0 { granted(line).await? } else { lease };
        let ttl = kept_alive(line, lease).await?;
        let prefix = Bytes::from([name, b"/"].concat());
        let key = Bytes::from([&prefix[..], format!("{lease:x}").as_bytes()].concat());
        let put = Put { lease, ..Put::new(key.clone(), value.clone()) };
        let get = Range { key: key.clone(), ..Range::default() };
        let txn = Txn {
            compare: vec![Compare::equal(key.clone(), Operand::Create(0))],
            success: vec![TxnOp::Put(put)],
            failure: vec![TxnOp::Range(get)],
        };
        let (header, response) = transact(line, txn).await?;
        let before = if response.succeeded { None } else { first(response) };
        let revision = before.as_ref().map_or(header.revision, |kv| kv.create_revision);
        let place = Self { line: line.clone(), prefix, key, revision, lease, ttl, waits: true };
        if before.is_some_and(|kv| kv.value != value) {
            set_value(line, &place.key, revision, lease, value).await?;
        }
        Ok(place)
    }

    /// Waits until nobody is before it. The header is that of the moment when this was so.
    ///
    /// # Errors
    /// [`EtcdError::SessionExpired`] if the lease ends before; no answer.
    pub async fn wait(mut self) -> Result<(ResponseHeader, Self), EtcdError> {
        let (_interest, _) = self.line.hub.join();
        loop {
            let before = Range {
                order: SortOrder::Descend,
                target: SortTarget::Create,
                max_create_revision: self.revision.saturating_sub(1),
                limit: 1,
                ..Range::prefix(self.prefix.clone())
            };
            let (header, response) = self.line.access.query(Read::Linearizable, Query::Range(before)).await?;
            let Response::Range(range) = response else { return Err(EtcdError::Strange) };
            match range.kvs.into_iter().next() {
                Some(other) => self.wait_for_deletion(other.key, header.revision).await?,
                None => {
                    self.check_key().await?;
                    self.waits = false;
                    return Ok((header, self));
                }
            }
        }
    }

    async fn wait_for_deletion(&self, key: Bytes, since: i64) -> Result<(), EtcdError> {
        let interest = Events { key, no_put: true, ..Events::default() };
        let mut deletion = std::pin::pin!(next_event(&self.line, &interest, since.saturating_add(1)));
        loop {
            tokio::select! {
                found = &mut deletion => return found.map(drop),
                () = tokio::time::sleep(self.ttl / KEEPALIVES_PER_TTL) => {
                    kept_alive(&self.line, self.lease).await?;
                }
            }
        }
    }

    /// Has the lease ended, and the key with it, while this waited?
    async fn check_key(&self) -> Result<(), EtcdError> {
        let query = Query::get(self.key.clone());
        match self.line.access.query(Read::Linearizable, query).await?.1 {
            Response::Range(range) if range.kvs.iter().any(|kv| kv.create_revision == self.revision) => Ok(()),
            Response::Range(_) => Err(EtcdError::SessionExpired),
            _ => Err(EtcdError::Strange),
        }
    }
}

/// Whoever is first in the line of `name`.
///
/// # Errors
/// No answer.
pub async fn head(line: &Line, name: &[u8]) -> Result<(ResponseHeader, Option<KeyValue>), EtcdError> {
    let prefix = Bytes::from([name, b"/"].concat());
    let oldest = Range { order: SortOrder::Ascend, target: SortTarget::Create, limit: 1, ..Range::prefix(prefix) };
    match line.access.query(Read::Linearizable, Query::Range(oldest)).await? {
        (header, Response::Range(range)) => Ok((header, range.kvs.into_iter().next())),
        _ => Err(EtcdError::Strange),
    }
}

/// Gives the key another value, if it is still the one that was created at `revision`.
///
/// # Errors
/// [`EtcdError::NotLeader`] if it is not; no answer.
pub async fn set_value(
    line: &Line,
    key: &Bytes,
    revision: i64,
    lease: i64,
    value: Bytes,
) -> Result<ResponseHeader, EtcdError> {
    let put = TxnOp::Put(Put { lease, ..Put::new(key.clone(), value) });
    let (header, response) = transact(line, if_created(key, revision, put)).await?;
    if response.succeeded { Ok(header) } else { Err(EtcdError::NotLeader) }
}

/// Leaves the line, if the key is still the one that was created at `revision`.
///
/// # Errors
/// No answer.
pub async fn leave(line: &Line, key: &Bytes, revision: i64) -> Result<ResponseHeader, EtcdError> {
    let delete = TxnOp::Delete(DeleteRange { key: key.clone(), ..DeleteRange::default() });
    Ok(transact(line, if_created(key, revision, delete)).await?.0)
}

/// The first event of interest from a revision on, and its revision.
///
/// # Errors
/// Compacted meanwhile; no answer.
pub async fn next_event(line: &Line, interest: &Events, from: i64) -> Result<(i64, KeyValue), EtcdError> {
    let (_interest, mut seen) = line.hub.join();
    let mut next = from;
    loop {
        if next <= seen.borrow_and_update().revision {
            let found = line.hub.read(interest, next).await?;
            let mut batches = found
                .batches
                .into_iter()
                .flat_map(|batch| batch.events.into_iter().map(move |it| (batch.revision, it.kv)));
            if let Some(event) = batches.next() {
                return Ok(event);
            }
            next = found.next.max(next);
        } else if seen.changed().await.is_err() {
            return Err(EtcdError::Stopped);
        }
    }
}

fn if_created(key: &Bytes, revision: i64, operation: TxnOp) -> Txn {
    let compare = Compare::equal(key.clone(), Operand::Create(revision));
    Txn { compare: vec![compare], success: vec![operation], failure: Vec::new() }
}

async fn transact(line: &Line, txn: Txn) -> Result<(ResponseHeader, TxnResponse), EtcdError> {
    match line.access.apply(Operation::Txn(txn)).await? {
        (header, Response::Txn(response)) => Ok((header, response)),
        _ => Err(EtcdError::Strange),
    }
}

/// The key that the first step of a transaction read.
fn first(response: TxnResponse) -> Option<KeyValue> {
    match response.responses.into_iter().next()?.response {
        TxnOpResponse::Range(range) => range.kvs.into_iter().next(),
        _ => None,
    }
}

async fn granted(line: &Line) -> Result<i64, EtcdError> {
    match line.access.apply(Operation::LeaseGrant { id: 0, ttl: LEASE_SECONDS }).await?.1 {
        Response::LeaseGrant { id, .. } => Ok(id),
        _ => Err(EtcdError::Strange),
    }
}

/// How long the lease lives from now on.
async fn kept_alive(line: &Line, id: i64) -> Result<Duration, EtcdError> {
    match line.access.apply(Operation::LeaseKeepAlive { id }).await?.1 {
        Response::LeaseKeepAlive { ttl, .. } if ttl > 0 => Ok(Duration::from_secs(ttl.unsigned_abs())),
        Response::LeaseKeepAlive { .. } => Err(EtcdError::Kv(KvError::LeaseNotFound)),
        _ => Err(EtcdError::Strange),
    }
}
