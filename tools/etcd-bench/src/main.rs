//! The load of `quorate bench`, put on an etcd cluster.
//!
//! Every put goes to the leader: through another member it would take one more hop, and a client of Quorate finds the
//! primary too. Keys, values, warm-up, histogram and clock are those of `crates/cli/src/commands/bench/load.rs`, and one
//! thread runs it all as there; processor time is read by the very same code.

mod load;
#[path = "../../../crates/cli/src/commands/bench/system.rs"]
mod system;

use anyhow::{Context, bail};
use clap::Parser;
use etcd_client::{Client, ConnectOptions};
use load::Load;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio::task::JoinSet;

/// How long a put may take; also how long the cluster may take to answer the first.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long one try of the first put may take, before another connection is tried.
const FIRST_TRY: Duration = Duration::from_millis(500);
/// Between two tries of the first put.
const FIRST_PAUSE: Duration = Duration::from_millis(5);

/// Put the load of `quorate bench` on an etcd cluster
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Client addresses of all members, as host:port
    #[arg(long, value_delimiter = ',', required = true)]
    endpoints: Vec<String>,
    /// Puts in flight, one line each
    #[arg(long, value_delimiter = ',', default_value = "1,16,64,256", value_parser = clap::value_parser!(u32).range(1..=16384))]
    in_flight: Vec<u32>,
    /// Seconds that each level is measured for, after one second of warm-up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Bytes of a value
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    payload: u32,
    /// HTTP/2 connections, at most one for each put in flight
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=512))]
    connections: u32,
    /// The members' processes, for their processor time, memory and disk writes
    #[arg(long, value_delimiter = ',')]
    pids: Vec<u32>,
    /// A folder on the disk that the members write to
    #[arg(long, default_value = ".", value_name = "DIR")]
    dir: PathBuf,
    /// Print one JSON object for each level
    #[arg(long)]
    json: bool,
    /// Only wait until a put is acknowledged by any member
    #[arg(long)]
    first_put: bool,
}

/// One line. The names are those of `quorate bench --json`; `replica_…` are sums over `--pids`.
#[derive(Debug, Serialize)]
struct Level {
    in_flight: u32,
    clients: u32,
    ops_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    errors: u64,
    replica_us_per_op: f64,
    replica_cores: f64,
    client_cores: f64,
    foreign_cores: f64,
    written_bytes_per_op: Option<f64>,
    resident_mb: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    if arguments.first_put {
        let acknowledged = tokio::time::timeout(PATIENCE, first_put(&arguments.endpoints)).await;
        return acknowledged.context("no member acknowledged a put: see their log files");
    }
    let leader = leader(&arguments.endpoints).await?;
    for &in_flight in &arguments.in_flight {
        let level = level(&arguments, leader, in_flight).await?;
        if arguments.json {
            println!("{}", serde_json::to_string(&level)?);
        } else {
            println!("{}", level.line());
        }
    }
    Ok(())
}

async fn connect(endpoint: &str) -> anyhow::Result<Client> {
    let options = ConnectOptions::new().with_timeout(PATIENCE);
    Client::connect([endpoint], Some(options)).await.with_context(|| format!("cannot connect to {endpoint}"))
}

/// Asks all members at once, again and again: whichever answers first.
async fn first_put(endpoints: &[String]) {
    let mut members = JoinSet::new();
    for endpoint in endpoints {
        let endpoint = endpoint.clone();
        members.spawn(async move {
            let put = async || anyhow::Ok(connect(&endpoint).await?.put("bench/first", "write", None).await?);
            while !matches!(tokio::time::timeout(FIRST_TRY, put()).await, Ok(Ok(_))) {
                tokio::time::sleep(FIRST_PAUSE).await;
            }
        });
    }
    members.join_next().await;
}

async fn leader(endpoints: &[String]) -> anyhow::Result<&str> {
    for endpoint in endpoints {
        let status = connect(endpoint).await?.status().await;
        let status = status.with_context(|| format!("{endpoint} does not tell its status"))?;
        if status.header().is_some_and(|header| header.member_id() == status.leader()) {
            return Ok(endpoint);
        }
    }
    bail!("none of these members is the leader: name all members in --endpoints")
}

async fn level(arguments: &Arguments, leader: &str, in_flight: u32) -> anyhow::Result<Level> {
    let mut clients = Vec::new();
    for _ in 0..arguments.connections.min(in_flight) {
        clients.push(connect(leader).await?);
    }
    let load = Load {
        in_flight,
        payload: usize::try_from(arguments.payload)?,
        measure: Duration::from_secs(arguments.seconds),
    };
    let outcome = load::run(&clients, load, &arguments.pids, &arguments.dir).await?;
    let operations = outcome.latencies.len() as f64;
    if operations == 0.0 {
        bail!("not one put was acknowledged: {}", outcome.first_error.unwrap_or_default());
    }
    let ms = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1e6;
    let used = outcome.used;
    Ok(Level {
        in_flight,
        clients: u32::try_from(clients.len())?,
        ops_per_second: operations / used.seconds,
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
        p999_ms: ms(0.999),
        max_ms: outcome.latencies.max() as f64 / 1e6,
        errors: outcome.errors,
        replica_us_per_op: used.replicas * used.seconds * 1e6 / operations,
        replica_cores: used.replicas,
        client_cores: used.client,
        foreign_cores: used.foreign,
        written_bytes_per_op: used.written.map(|bytes| bytes as f64 / operations),
        resident_mb: arguments.pids.iter().map(|pid| system::resident(*pid)).sum::<u64>() as f64 / 1e6,
    })
}

impl Level {
    fn line(&self) -> String {
        format!(
            "{} in flight: {:.0} puts/s, p50 {:.2} ms, p99 {:.2} ms, p99.9 {:.2} ms, {} errors; \
             cores: members {:.2}, this program {:.2}, foreign {:.2}",
            self.in_flight,
            self.ops_per_second,
            self.p50_ms,
            self.p99_ms,
            self.p999_ms,
            self.errors,
            self.replica_cores,
            self.client_cores,
            self.foreign_cores
        )
    }
}
