//! A closed loop: so many puts are in flight, and each answer is followed by the next put.

use crate::system::{Sample, Used};
use etcd_client::Client;
use hdrhistogram::Histogram;
use std::path::Path;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Keys that the load is spread over, evenly.
const KEYS: u64 = 100_000;
/// Load before the measurement begins.
const WARM_UP: Duration = Duration::from_secs(1);
/// The longest latency that is told from longer ones, nanoseconds: twice what a put may take. The histogram does not grow.
const LATENCY_MAX: u64 = 60_000_000_000;

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Puts in flight, over all clients.
    pub in_flight: u32,
    /// Bytes of a value.
    pub payload: usize,
    /// How long to measure.
    pub measure: Duration,
}

/// What came of it.
pub struct Outcome {
    /// Nanoseconds from each put to its acknowledgement.
    pub latencies: Histogram<u64>,
    /// Puts that were not acknowledged.
    pub errors: u64,
    /// Why the first of them was not.
    pub first_error: Option<String>,
    /// What it took.
    pub used: Used,
}

struct Worker {
    client: Client,
    load: Load,
    seed: u64,
    begin: Instant,
    end: Instant,
}

#[derive(Default)]
struct Worked {
    latencies: Vec<Duration>,
    errors: u64,
    first_error: Option<String>,
}

/// Runs a load against a cluster whose members are `processes` and write below the folder `disk`.
///
/// # Errors
/// If a worker dies, or the histogram cannot be made.
pub async fn run(clients: &[Client], load: Load, processes: &[u32], disk: &Path) -> anyhow::Result<Outcome> {
    let begin = Instant::now() + WARM_UP;
    let end = begin + load.measure;
    let mut workers = JoinSet::new();
    for (index, client) in (0..load.in_flight).zip(clients.iter().cycle()) {
        let seed = u64::from(index).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        workers.spawn(Worker { client: client.clone(), load, seed, begin, end }.work());
    }
    tokio::time::sleep_until(begin.into()).await;
    let before = Sample::take(processes, disk);
    tokio::time::sleep_until(end.into()).await;
    let used = before.until(&Sample::take(processes, disk));
    let mut outcome =
        Outcome { latencies: Histogram::new_with_bounds(1, LATENCY_MAX, 3)?, errors: 0, first_error: None, used };
    while let Some(worked) = workers.join_next().await {
        let worked = worked?;
        outcome.errors = outcome.errors.saturating_add(worked.errors);
        outcome.first_error = outcome.first_error.or(worked.first_error);
        for latency in worked.latencies {
            outcome.latencies.saturating_record(u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX));
        }
    }
    Ok(outcome)
}

impl Worker {
    async fn work(mut self) -> Worked {
        let mut worked = Worked::default();
        let mut value = vec![0; self.load.payload];
        loop {
            let start = Instant::now();
            if start >= self.end {
                return worked;
            }
            let answer = self.put(&mut value).await;
            let now = Instant::now();
            if now < self.begin || now >= self.end {
                continue;
            }
            match answer {
                Ok(_) => worked.latencies.push(now.duration_since(start)),
                Err(error) => {
                    worked.errors = worked.errors.saturating_add(1);
                    worked.first_error.get_or_insert_with(|| error.to_string());
                }
            }
        }
    }

    async fn put(&mut self, value: &mut [u8]) -> Result<etcd_client::PutResponse, etcd_client::Error> {
        let key = format!("bench/{:010}", self.random() % KEYS);
        for eight in value.chunks_mut(8) {
            let random = self.random().to_le_bytes();
            eight.iter_mut().zip(random).for_each(|(byte, random)| *byte = random);
        }
        self.client.put(key, &*value, None).await
    }

    /// xorshift64: values that do not compress, keys that spread.
    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}
