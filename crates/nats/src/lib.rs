//! NATS as a broker: publications go through JetStream, one subject for each replica.
//!
//! **What it is used for.** One stream for a cluster, `quorate-CLUSTER`, with the subjects `quorate.CLUSTER.REPLICA`, on the
//! server's disk; each replica has a durable consumer of its own subject, acknowledges what it has taken, and goes on there when
//! it comes back. Both sides make what is missing, so a server that has lost everything is set up again by whoever is there.
//!
//! **What it is trusted with.** Nothing ([`quorate_runtime::broker`]). JetStream acknowledges before it syncs its disk, and may
//! lose what it has acknowledged: whoever waits for an answer that does not come submits to the replicas directly. While the
//! server is away, or refuses, [`Broker::publish`] says so at once and publications go over links.
//!
//! **Bounds.** A publication waits on the server for 20 s at most: who is away longer is told by the other replicas, and an older
//! backlog would only be received in vain. The stream has at most 256 MiB, of which the oldest go first. In a client at most 1,024
//! publications wait to be written and 1,024 for the server's word; beyond that they go over links. What is longer than the
//! server takes (1 MiB unless it says otherwise) goes over links, too.
//!
//! Nothing newer than nats-server 2.9 is asked for.

mod consume;
mod publish;

use async_nats::jetstream::{self, Context};
use async_nats::{Client, ConnectOptions, Event, ServerAddr};
use bytes::Bytes;
use quorate_core::ids::{ClusterId, ReplicaId};
use quorate_runtime::broker::{Broker, Intake, Left};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinSet;

/// Publications of a client that wait to be written, at most.
const QUEUE_MAX: usize = 1024;
/// How long the server keeps a publication.
const KEPT: Duration = Duration::from_secs(20);
/// Bytes of the stream on the server, at most.
const STREAM_BYTES_MAX: i64 = 256 << 20;
/// How long the server may take for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(2);
/// Between two attempts to set up what is missing.
const RETRY: Duration = Duration::from_millis(200);
/// Between two attempts to connect, at most.
const RECONNECT_MAX: Duration = Duration::from_millis(500);
/// Bytes of a message, unless the server says otherwise: the default of nats-server.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// An address that is none.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{url} is no address of a NATS server; write nats://host:port")]
pub struct NoAddress {
    /// What was written.
    pub url: String,
}

/// What a cluster's things are called on the server.
#[derive(Clone, Copy, Debug)]
struct Names {
    cluster: ClusterId,
}

impl Names {
    fn stream(self) -> String {
        format!("quorate-{:032x}", self.cluster.get())
    }

    fn subject(self, replica: ReplicaId) -> String {
        format!("quorate.{:032x}.{}", self.cluster.get(), replica.get())
    }

    fn consumer(replica: ReplicaId) -> String {
        format!("replica-{}", replica.get())
    }

    /// The stream as whoever comes first makes it.
    fn stream_config(self) -> jetstream::stream::Config {
        jetstream::stream::Config {
            name: self.stream(),
            subjects: vec![format!("quorate.{:032x}.*", self.cluster.get())],
            max_age: KEPT,
            max_bytes: STREAM_BYTES_MAX,
            discard: jetstream::stream::DiscardPolicy::Old,
            storage: jetstream::stream::StorageType::File,
            ..jetstream::stream::Config::default()
        }
    }
}

/// A NATS server, or several that are one. A client's half connects when it is opened, a replica's when it subscribes.
#[derive(Debug)]
pub struct Nats {
    address: ServerAddr,
    names: Names,
    link: Arc<Link>,
    queue: mpsc::Sender<(ReplicaId, Bytes)>,
    /// Ends with the broker.
    publishing: JoinSet<()>,
}

/// What is known of the connection.
#[derive(Debug)]
struct Link {
    /// Publications are taken.
    is_well: AtomicBool,
    /// It was lost.
    lost: Notify,
    payload_bytes_max: AtomicUsize,
}

impl Nats {
    /// For a client: connects in the background, on the runtime that this is called in. Until it has, nothing is taken.
    ///
    /// # Errors
    /// [`NoAddress`].
    pub fn for_client(url: &str, cluster: ClusterId) -> Result<Self, NoAddress> {
        let mut broker = Self::new(url, cluster)?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        broker.queue = queue;
        let (address, names, link) = (broker.address.clone(), broker.names, broker.link.clone());
        broker.publishing.spawn(publish::run(address, names, link, waiting));
        Ok(broker)
    }

    /// For a replica, which publishes nothing.
    ///
    /// # Errors
    /// [`NoAddress`].
    pub fn for_replica(url: &str, cluster: ClusterId) -> Result<Self, NoAddress> {
        Self::new(url, cluster)
    }

    fn new(url: &str, cluster: ClusterId) -> Result<Self, NoAddress> {
        let address: Option<ServerAddr> = url.parse().ok().filter(|address: &ServerAddr| !address.host().is_empty());
        let address = address.ok_or_else(|| NoAddress { url: url.to_owned() })?;
        let payload_bytes_max = AtomicUsize::new(PAYLOAD_BYTES_MAX);
        let link = Link { is_well: AtomicBool::new(false), lost: Notify::new(), payload_bytes_max };
        let (queue, _nobody) = mpsc::channel(1);
        Ok(Self { address, names: Names { cluster }, link: Arc::new(link), queue, publishing: JoinSet::new() })
    }

    /// Is the server there, and does it take publications?
    pub fn is_well(&self) -> bool {
        self.link.is_well.load(Ordering::Relaxed)
    }
}

impl Broker for Nats {
    fn publish(&self, to: ReplicaId, body: Bytes) -> Left {
        let fits = body.len() <= self.link.payload_bytes_max.load(Ordering::Relaxed);
        if fits && self.is_well() && self.queue.try_send((to, body)).is_ok() { Left::Taken } else { Left::Unavailable }
    }

    fn subscribe(self: Arc<Self>, replica: ReplicaId, intake: Intake) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        tasks.spawn(consume::run(self.address.clone(), self.names, replica, intake));
        tasks
    }
}

/// Connects, however long it takes; from then on the connection comes back by itself.
async fn connect(address: &ServerAddr, link: Option<Arc<Link>>) -> Client {
    loop {
        let link = link.clone();
        let options = ConnectOptions::new()
            .name("quorate")
            .connection_timeout(ANSWER_MAX)
            .retry_on_initial_connect()
            .reconnect_delay_callback(|attempt| {
                let doubled = Duration::from_millis(20).saturating_mul(1 << attempt.min(5));
                doubled.min(RECONNECT_MAX)
            })
            .event_callback(move |event| {
                if matches!(event, Event::Disconnected | Event::Closed)
                    && let Some(link) = &link
                {
                    link.is_well.store(false, Ordering::Relaxed);
                    link.lost.notify_one();
                }
                std::future::ready(())
            });
        match options.connect(address.clone()).await {
            Ok(client) => return client,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}

/// JetStream behind a connection.
fn context(client: Client) -> Context {
    let builder = jetstream::ContextBuilder::new().timeout(ANSWER_MAX).ack_timeout(ANSWER_MAX);
    builder.max_ack_inflight(QUEUE_MAX).build(client)
}
