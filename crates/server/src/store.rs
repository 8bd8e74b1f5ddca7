//! The cluster, as the gateway sees it: operations and queries in, responses with etcd's header out.

use crate::errors::EtcdError;
use crate::hub::Found;
use crate::limits::{CALL_PATIENCE, OPERATION_BYTES_MAX, RANGE_BYTES_MAX};
use crate::proto::etcdserverpb::ResponseHeader;
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::node::Report;
use quorate_core::objects::Touches;
use quorate_core::protocol::{CallError, Consistency, Protocol};
use quorate_machines::kv::{Events, Kv, KvError, Operation, Query, Reply, Response, Status};
use quorate_runtime::client::{Client, ClientError, ClientOptions, ConnectError};
use quorate_runtime::config::{ClusterConfig, Member};
use quorate_runtime::keys::KeyPair;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a replica may take to say how it is.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// A client of the cluster that all requests share: one session, whose window lets many be under way at once.
#[derive(Debug)]
pub struct Store {
    client: Client,
    /// A connection for events.
    events: Client,
    members: Vec<Member>,
    cluster_id: u64,
    /// The greatest view that a replica has told of: etcd's term.
    term: AtomicU64,
}

impl Store {
    /// Connects, in the background.
    ///
    /// # Errors
    /// [`ConnectError`]
    pub fn connect<P: Protocol>(config: &ClusterConfig, key: &KeyPair) -> Result<Self, ConnectError> {
        let options =
            ClientOptions { timeout: CALL_PATIENCE, touches: Some(Touches::of::<Kv>()), ..ClientOptions::default() };
        Ok(Self {
            client: Client::connect::<P>(config, key, options)?,
            events: Client::connect::<P>(config, key, options)?,
            members: config.members.clone(),
            cluster_id: folded(&config.cluster.get().to_be_bytes()),
            term: AtomicU64::new(1),
        })
    }

    /// Applies an operation, once. One that the cluster has certainly not seen is tried again.
    ///
    /// # Errors
    /// The store's refusal, or that there is no answer.
    pub async fn apply(&self, operation: &Operation) -> Result<(ResponseHeader, Response), EtcdError> {
        let bytes = encoded(operation.encode())?;
        let answer = match self.client.apply(bytes.clone()).await {
            Err(ClientError::Call { error: CallError::Evicted { maybe_applied: false }, .. }) => {
                self.client.apply(bytes).await?
            }
            other => other?,
        };
        self.opened(&answer.reply)
    }

    /// Asks a query.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn query(&self, read: Read, query: &Query) -> Result<(ResponseHeader, Response), EtcdError> {
        let bytes = encoded(query.encode())?;
        let consistency = match read {
            Read::Linearizable => Consistency::Linearizable,
            Read::Serializable => Consistency::Stale { at_least: OpNumber::ZERO },
        };
        self.opened(&self.client.read(consistency, bytes).await?.reply)
    }

    /// Revisions and sizes, and nothing older than this call.
    ///
    /// # Errors
    /// As [`Store::apply`].
    pub async fn status(&self) -> Result<Status, EtcdError> {
        match self.query(Read::Linearizable, &Query::Status).await?.1 {
            Response::Status(status) => Ok(status),
            _ => Err(EtcdError::Strange),
        }
    }

    /// The events of interest from `interest.from_revision` on: some of them, in whole revisions. A revision that is larger than
    /// an answer of the cluster is read in parts.
    ///
    /// # Errors
    /// [`KvError::ReplyTooLarge`] for a revision beyond [`RANGE_BYTES_MAX`]; as [`Store::apply`].
    pub async fn events_from(&self, interest: Events) -> Result<Found, EtcdError> {
        let mut found = Found { batches: Vec::new(), next: interest.from_revision };
        let (mut from_change, mut bytes) = (0, 0_usize);
        loop {
            let events = Events { from_revision: found.next, ..interest.clone() };
            let query = Query::EventsPart { events, from_change };
            let Response::EventsPart(part) = self.query(Read::Linearizable, &query).await?.1 else {
                return Err(EtcdError::Strange);
            };
            for batch in part.batches {
                bytes = bytes.saturating_add(crate::hub::size(&batch.events));
                match found.batches.last_mut().filter(|last| last.revision == batch.revision) {
                    Some(last) => last.events.extend(batch.events),
                    None => found.batches.push(batch),
                }
            }
            (found.next, from_change) = (part.next_revision, part.next_change);
            if from_change == 0 {
                return Ok(found);
            }
            if bytes > RANGE_BYTES_MAX {
                return Err(EtcdError::Kv(KvError::ReplyTooLarge));
            }
        }
    }

    fn opened(&self, reply: &[u8]) -> Result<(ResponseHeader, Response), EtcdError> {
        let reply = Reply::decode(reply).map_err(|_| EtcdError::Strange)?;
        Ok((self.header(reply.revision), reply.result?))
    }

    /// etcd's header for an answer that reflects `revision`.
    pub fn header(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.gateway_id(),
            revision,
            raft_term: self.term.load(Ordering::Relaxed),
        }
    }

    /// What the gateway calls itself where etcd has a member: no replica's id.
    fn gateway_id(&self) -> u64 {
        self.cluster_id ^ 1
    }

    /// The replicas.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// How every replica is that says so in time.
    pub async fn reports(&self) -> Vec<Report> {
        let mut reports = Vec::new();
        for asked in self.ask_all() {
            reports.extend(asked.await.ok().flatten());
        }
        let view = self.vouched(&reports, |it| it.view.get());
        self.term.fetch_max(view.saturating_add(1), Ordering::Relaxed);
        reports
    }

    /// The greatest number in `reports` that is no liar's alone.
    pub fn vouched(&self, reports: &[Report], number: impl Fn(&quorate_core::protocol::Status) -> u64) -> u64 {
        self.client.vouched(reports.iter().map(|report| number(&report.status)))
    }

    fn ask_all(&self) -> Vec<tokio::task::JoinHandle<Option<Report>>> {
        let ask = |replica: ReplicaId| {
            let client = self.client.clone();
            tokio::spawn(async move { client.status(replica, STATUS_PATIENCE).await })
        };
        self.members.iter().map(|member| ask(member.replica)).collect()
    }

    /// The client whose only use is to watch.
    pub fn events(&self) -> &Client {
        &self.events
    }
}

/// How fresh an answer must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Read {
    /// Nothing older than the request.
    Linearizable,
    /// Any replica's state.
    Serializable,
}

impl Read {
    /// etcd's flag.
    pub const fn serializable(flag: bool) -> Self {
        if flag { Read::Serializable } else { Read::Linearizable }
    }
}

/// The id that etcd's clients see for a replica: of its key, so that it is the same for every gateway.
pub fn member_id(member: &Member) -> u64 {
    folded(member.public_key.to_string().as_bytes())
}

/// Eight bytes of a digest; never zero, which means "nobody" to etcd.
fn folded(bytes: &[u8]) -> u64 {
    let digest = quorate_core::crypto::Digest::of(bytes);
    let first: [u8; 8] = std::array::from_fn(|index| digest.as_bytes()[index]);
    u64::from_be_bytes(first).max(2)
}

/// What is longer than the cluster takes is refused as etcd does it, before it is sent.
fn encoded(bytes: Result<Vec<u8>, quorate_machines::kv::KvError>) -> Result<Vec<u8>, EtcdError> {
    let bytes = bytes?;
    if bytes.len() > OPERATION_BYTES_MAX { Err(EtcdError::RequestTooLarge) } else { Ok(bytes) }
}
