//! A closed loop: so many requests are in flight, and each answer is followed by the next request.

use super::control::{histogram, nanos};
use super::etcd;
use super::system::{Sample, Used};
use bytes::Bytes;
use hdrhistogram::Histogram;
use quorate_core::protocol::{Answer, Consistency};
use quorate_machines::events;
use quorate_machines::kv::{Operation, Query, Reply};
use quorate_runtime::client::{Client, ClientError};
use quorate_server::proto::etcdserverpb::kv_client::KvClient;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;
use tonic::transport::Channel;

/// Keys that the load is spread over, evenly.
const KEYS: u64 = 100_000;
/// Shares of requests are told apart to one in so many.
const SHARES: u64 = 10_000;
/// Streams that events are spread over.
const STREAMS: u64 = 1000;
/// Load before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Requests in flight, over all clients.
    pub in_flight: u32,
    /// Bytes of a value.
    pub payload: usize,
    /// Of 100 requests, so many are reads.
    pub read_percent: u64,
    /// The share of the requests that are for one and the same key, from 0 to 1.
    pub contended: f64,
    /// How long to measure.
    pub measure: Duration,
}

/// What is watched during a load.
#[derive(Clone, Copy, Debug)]
pub struct Watched<'a> {
    /// The replicas, as far as they are on this machine.
    pub processes: &'a [u32],
    /// Where their disks are.
    pub disk: &'a Path,
}

/// What came of it.
pub struct Outcome {
    /// Nanoseconds from each request to its answer.
    pub latencies: Histogram<u64>,
    /// Requests without a good answer.
    pub errors: u64,
    /// What it took.
    pub used: Used,
    /// When answers came, of all workers; not sorted.
    pub answered: Vec<Instant>,
}

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub enum Asked {
    /// The cluster, as its own client.
    Cluster(Client),
    /// The same, where it replicates an event store.
    Events(Client),
    /// Whoever speaks etcd's API.
    Etcd(KvClient<Channel>),
}

struct Worker {
    asked: Asked,
    load: Load,
    seed: u64,
    begin: Instant,
    end: Instant,
}

struct Worked {
    answered: Vec<(Instant, Duration)>,
    errors: u64,
}

/// Runs a load against a cluster, and says what it took; `during` runs beside it, from the moment when the measurement
/// begins.
///
/// # Errors
/// If a worker dies, or the histogram cannot be made.
pub async fn run(
    clients: &[Asked],
    load: Load,
    watched: Watched<'_>,
    during: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<Outcome> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + load.measure;
    let mut workers = JoinSet::new();
    for (index, asked) in (0..load.in_flight).zip(clients.iter().cycle()) {
        let seed = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        workers.spawn(Worker { asked: asked.clone(), load, seed, begin, end }.work());
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = Sample::take(watched.processes, watched.disk);
    let measured = async {
        tokio::time::sleep_until(end.into()).await;
        Sample::take(watched.processes, watched.disk)
    };
    let (after, during) = tokio::join!(measured, during);
    during?;
    let mut outcome = Outcome { latencies: histogram(), errors: 0, used: before.until(&after), answered: Vec::new() };
    while let Some(worked) = workers.join_next().await {
        let worked = worked?;
        outcome.errors = outcome.errors.saturating_add(worked.errors);
        for (at, latency) in worked.answered {
            outcome.latencies.saturating_record(nanos(latency));
            outcome.answered.push(at);
        }
    }
    Ok(outcome)
}

impl Worker {
    async fn work(mut self) -> Worked {
        let mut worked = Worked { answered: Vec::new(), errors: 0 };
        let mut value = vec![0; self.load.payload];
        loop {
            let start = Instant::now();
            if start >= self.end {
                return worked;
            }
            let good = self.ask(&mut value).await;
            let now = Instant::now();
            if now < self.begin || now >= self.end {
                continue;
            }
            if good {
                worked.answered.push((now, now.duration_since(start)));
            } else {
                worked.errors = worked.errors.saturating_add(1);
            }
        }
    }

    async fn ask(&mut self, value: &mut [u8]) -> bool {
        let contended = ((self.random() % SHARES) as f64) < self.load.contended * SHARES as f64;
        let key = if contended { 0 } else { self.random() % KEYS };
        let key = Bytes::from(format!("bench/{key:010}"));
        let reads = self.random() % 100 < self.load.read_percent;
        if !reads {
            for eight in value.chunks_mut(8) {
                let random = self.random().to_le_bytes();
                eight.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
            }
        }
        match &mut self.asked {
            Asked::Cluster(client) if reads => get(client, key).await,
            Asked::Cluster(client) => put(client, key, Bytes::copy_from_slice(value)).await,
            Asked::Events(client) => {
                let (client, stream) = (client.clone(), format!("bench-{}", self.random() % STREAMS));
                let id = [self.random().to_le_bytes(), self.random().to_le_bytes()];
                if reads { version(&client, stream).await } else { append(&client, stream, id, value).await }
            }
            Asked::Etcd(client) if reads => etcd::get(client, key).await,
            Asked::Etcd(client) => etcd::put(client, key, Bytes::copy_from_slice(value)).await,
        }
    }

    /// xorshift64: values that do not compress, keys that spread.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

/// Reads a key, linearizably. Whether there was a good answer.
async fn get(client: &Client, key: Bytes) -> bool {
    let Ok(query) = Query::get(key).encode() else { return false };
    is_good(client.read(Consistency::Linearizable, query).await)
}

/// Writes a key. Whether there was a good answer.
async fn put(client: &Client, key: Bytes, value: Bytes) -> bool {
    let Ok(operation) = Operation::put(key, value).encode() else { return false };
    is_good(client.apply(operation).await)
}

/// Appends an event. Whether there was a good answer.
async fn append(client: &Client, stream: String, id: [[u8; 8]; 2], data: &[u8]) -> bool {
    let id = events::EventId(id.concat().try_into().unwrap_or_default());
    let event =
        events::NewEvent { id, kind: "benched".to_owned(), data: Bytes::copy_from_slice(data), ..Default::default() };
    let write = events::Write { stream, expected: events::Expected::Any, events: vec![event] };
    let Ok(operation) = events::Operation::Append(events::Append { writes: vec![write] }).encode() else {
        return false;
    };
    let answer = client.apply(operation).await;
    answer.is_ok_and(|answer| events::Reply::decode(&answer.reply).is_ok_and(|reply| reply.result.is_ok()))
}

/// Asks how far a stream is, linearizably. Whether there was a good answer; that there is no such stream yet is one.
async fn version(client: &Client, stream: String) -> bool {
    let Ok(query) = events::Query::Stream { stream }.encode() else { return false };
    let answer = client.read(Consistency::Linearizable, query).await;
    answer.is_ok_and(|answer| events::Reply::decode(&answer.reply).is_ok())
}

fn is_good(answer: Result<Answer, ClientError>) -> bool {
    answer.is_ok_and(|answer| Reply::decode(&answer.reply).is_ok_and(|reply| reply.result.is_ok()))
}

/// The longest time between two answers, one after the other.
pub fn longest_gap(mut answered: Vec<Instant>) -> Duration {
    answered.sort_unstable();
    let pairs = answered.windows(2).filter_map(|pair| Some(pair.last()?.duration_since(*pair.first()?)));
    pairs.max().unwrap_or_default()
}
