//! `quorate bench`: real processes, real disks, and what the same disk does without us.

mod contention;
pub mod control;
mod crashed;
mod etcd;
mod load;
pub mod system;

use super::status::{Said, ask, columns, leads};
use super::{Machine, Protocol};
use crate::brokers::{BrokerArgs, NatsServer};
use crate::cluster::{ClusterArgs, Connection};
use crate::errors::{Advise, failure};
use crate::layout::{Layout, free_addresses};
use crate::processes::{Replica, holder};
use crate::text::thousands;
use clap::{Args, ValueEnum};
use contention::Shares;
use control::Raw;
use etcd::Front;
use load::{Asked, Load, Watched};
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::Call;
use quorate_core::sessions::WINDOW;
use quorate_machines::kv::Operation;
use quorate_runtime::config::ReplicaConfig;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use system::Sample;
use tokio::task::JoinSet;

/// How long a call of the load may take.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the cluster is left alone for `--idle`.
const IDLE: Duration = Duration::from_secs(5);
/// How long a replica that was killed may take to come back before the next one is.
const BACK_WITHIN: Duration = Duration::from_secs(60);
/// The load of `--failover`: enough that its gaps show, little enough that the machine has time to fail over.
const FAILOVER_IN_FLIGHT: u32 = 16;
/// Clients that the requests in flight come from, unless `--clients` says otherwise: one keeps many in flight.
const CLIENTS_DEFAULT: u32 = 4;
/// The same through etcd's API, where they are connections.
const CONNECTIONS_DEFAULT: u32 = 16;
/// Requests that one of them then keeps in flight at most: half of what a session can, as answers come out of order.
const IN_FLIGHT_EACH: u32 = 512;
/// How long the machine is watched before anything starts.
const QUIET: Duration = Duration::from_secs(1);
/// Cores that other programs may take before the numbers say less.
const QUIET_CORES_MAX: f64 = 0.1;
/// The replicas' counters are read so long before the end, while the load still runs.
const COUNTED_BEFORE_END: Duration = Duration::from_millis(100);

/// Measure throughput and latency with real processes on real disks
#[derive(Clone, Debug, Args)]
#[command(after_help = "Examples:
  quorate bench
  quorate bench --in-flight 64 --seconds 10 --payload 1024 --read-percent 50
  quorate bench --idle --failover --in-flight 1
  quorate bench --protocol async-tob --crashed 1
  quorate bench --protocol pbft --tentative 16 --in-flight 1,64
  quorate bench --api etcd --read-percent 50
  quorate bench --protocol hq --contention 0..1 --in-flight 1,16 --plot contention.svg
  quorate bench --protocol reception --events --in-flight 256,2000
  quorate bench --protocol reception --events --broker nats
  quorate bench --against http://127.0.0.1:2379,http://127.0.0.1:22379 --processes 4711,4712

Every write is on the disks of a majority before it is acknowledged. Each level warms up for a second first.

Columns: `op/s` answers a second; `p50 ms` to `max ms` from a request to its answer; `errors` requests without a good answer;
`fsync/s` fdatasyncs of the replicas' logs a second; `µs/op` processor time of the replicas for each request; `cores`
processors that the replicas kept busy, `client` this program, `foreign` everything else on the machine; `disk B/op` bytes
that the disk was written for each request, by whomever; `MB` memory of the replicas. fsync/s, µs/op, cores, disk B/op and MB
count all replicas together, with --api etcd their gateway, and with --broker nats the server. With --crashed `down` is how many
replicas were killed. Where a protocol promises a latency, `bound ms` is what it promises while its model is kept, and `kept` says
whether p99 is within it.

--contention 0..1 measures several shares of requests that are for one and the same key, each under the protocol and then under
pbft, whose replicas are started beside; the table shows both, and the drawing throughput and latency over the share.

--against puts the same load on anything that speaks etcd's API, and on its leader only if that is among the endpoints.

`raw fdatasync` is what a write of so many bytes costs on the same disk without us, before and after. If other programs took
more than a tenth of a core, the numbers say little about this one: the last line says so.")]
pub struct Arguments {
    /// The replication protocol
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// How to ask: as the cluster's own client, or through a gateway with etcd's API, which is started beside the replicas
    #[arg(long, value_enum, default_value_t)]
    api: Api,
    /// Replicate an event store: each write appends an event to one of a thousand streams, each read asks how far one is
    #[arg(long, conflicts_with = "against")]
    events: bool,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Measure these endpoints of etcd's API, whoever they are, instead of starting anything
    #[arg(long, value_name = "URLS", value_delimiter = ',', conflicts_with_all = ["cluster", "protocol", "replicas", "failover", "api"])]
    against: Vec<String>,
    /// With --against, the processes on this machine to count as replicas
    #[arg(long, value_name = "PIDS", value_delimiter = ',', requires = "against")]
    processes: Vec<u32>,
    /// How many replicas to start; without it, as few as survive the loss of one
    #[arg(long, value_name = "COUNT")]
    replicas: Option<usize>,
    /// Requests that wait for their answers at any time: a list, one row of the table for each number
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "1,16,64,256", value_parser = clap::value_parser!(u32).range(1..=16384))]
    in_flight: Vec<u32>,
    /// Seconds that each level is measured for
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Bytes of a value
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    payload: u32,
    /// Clients that share the requests in flight, each with connections of its own; without it, 4, with etcd's API 16 (fewer
    /// requests: 1 each)
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: Option<u32>,
    /// Of 100 requests, so many are linearizable reads
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    read_percent: u64,
    /// The share of the requests that are for one and the same key, from 0 to 1; or A..B: several shares, and pbft beside
    #[arg(long, value_name = "SHARE", default_value = "0", conflicts_with = "against")]
    contention: Shares,
    /// With --contention A..B, draw throughput and latency over the share into this SVG file
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where the replicas put their disks; without it, the temporary folder
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Measure a cluster that runs already, instead of starting one
    #[arg(long, value_name = "FILE", conflicts_with_all = ["dir", "replicas", "failover"])]
    cluster: Option<PathBuf>,
    /// Also measure what the replicas use when nothing is asked of them
    #[arg(long)]
    idle: bool,
    /// Also kill -9 the primary under load, three times, and measure the longest gap between two answers
    #[arg(long)]
    failover: bool,
    /// In the end kill -9 so many replicas that do not lead, and measure every level again without them
    #[arg(long, value_name = "COUNT", default_value_t = 0, conflicts_with_all = ["against", "cluster", "failover"])]
    crashed: usize,
    /// With pbft: entries of at most so many requests are executed, and answered tentatively, as soon as they are prepared
    #[arg(long, value_name = "REQUESTS", conflicts_with_all = ["against", "cluster"], value_parser = clap::value_parser!(u64).range(0..=1024))]
    tentative: Option<u64>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl Arguments {
    /// What the replicas replicate.
    fn machine(&self) -> Machine {
        if self.events { Machine::Events } else { Machine::Kv }
    }
}

/// How the load asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
enum Api {
    /// As the cluster's own client
    #[default]
    Own,
    /// Through a gateway, as etcd's clients do
    Etcd,
}

#[derive(Debug, Default, Serialize)]
struct Results {
    /// What is replicated.
    machine: &'static str,
    /// With --against, the endpoints.
    protocol: String,
    api: Api,
    /// Do clients publish through a broker?
    brokered: bool,
    replicas: usize,
    payload_bytes: u32,
    read_percent: u64,
    /// The share of the requests that were for one key.
    contention: f64,
    seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_write_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle: Option<Idle>,
    /// What other programs took of the processors before anything started.
    foreign_cores_before: f64,
    levels: Vec<Level>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failover_gap_ms: Vec<f64>,
    raw_before: Vec<Raw>,
    raw_after: Vec<Raw>,
    /// p50 with one request in flight, over the mean of the raw p50 of 256 bytes before and after.
    #[serde(skip_serializing_if = "Option::is_none")]
    p50_over_raw: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Level {
    in_flight: u32,
    /// Replicas that were killed before.
    crashed: usize,
    clients: u32,
    ops_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    p999_ms: f64,
    max_ms: f64,
    /// What the protocol promises for a request while its model is kept, if it promises anything; and is p99 within it?
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bound_kept: Option<bool>,
    errors: u64,
    /// Of all replicas together; nothing if one of them did not say.
    fsyncs_per_second: Option<f64>,
    replica_us_per_op: f64,
    replica_cores: f64,
    client_cores: f64,
    foreign_cores: f64,
    /// What the disk was written, by all programs; nothing if the system does not say.
    written_bytes_per_op: Option<f64>,
    resident_mb: f64,
}

#[derive(Debug, Serialize)]
struct Idle {
    cores_per_replica: f64,
    resident_mb_per_replica: f64,
    foreign_cores: f64,
}

/// Runs the command.
///
/// # Errors
/// Why it cannot be measured.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    contention::check(&arguments)?;
    crashed::check(&arguments)?;
    if arguments.tentative.is_some() && arguments.protocol != Protocol::Pbft {
        let what = format!("`{}` answers nothing tentatively", arguments.protocol);
        return Err(failure(what, "leave --tentative out, or choose --protocol pbft"));
    }
    let place = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let temporary = tempfile::Builder::new()
        .prefix("quorate-bench-")
        .tempdir_in(&place)
        .advise(format!("cannot create a folder in {}", place.display()), "choose another place with --dir")?;
    if arguments.events && arguments.api == Api::Etcd {
        return Err(failure("etcd's API needs the key-value store", "leave --events or --api etcd out"));
    }
    if arguments.contention.is_span() {
        return contention::run(&arguments, temporary.path()).await;
    }
    let mut results = Results {
        machine: arguments.machine().name(),
        protocol: arguments.protocol.to_string(),
        api: if arguments.against.is_empty() { arguments.api } else { Api::Etcd },
        brokered: arguments.broker.is_given(),
        replicas: arguments.replicas.unwrap_or(arguments.protocol.replicas()),
        payload_bytes: arguments.payload,
        read_percent: arguments.read_percent,
        contention: arguments.contention.first(),
        seconds: arguments.seconds,
        foreign_cores_before: foreign(temporary.path()).await,
        raw_before: control::measure(temporary.path()).explain("the disk cannot be measured")?,
        ..Results::default()
    };
    let mut target = Target::start(&arguments, &temporary.path().join("cluster"), &mut results).await?;
    let measured = target.measure(&arguments, &mut results).await;
    target.stop().await;
    measured?;
    results.raw_after = control::measure(temporary.path()).explain("the disk cannot be measured")?;
    let raw = |raws: &[Raw]| raws.first().map_or(0.0, |raw| raw.p50_us);
    let raw_ms = (raw(&results.raw_before) + raw(&results.raw_after)) / 2000.0;
    results.p50_over_raw = results.levels.iter().find(|it| it.in_flight == 1).map(|it| it.p50_ms / raw_ms);
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&results)?);
    } else {
        show(&results);
    }
    Ok(ExitCode::SUCCESS)
}

/// The cluster that is measured, and the clients that ask it.
struct Target {
    /// As its own client; nothing if it is somebody else's.
    connection: Option<Connection>,
    /// Through etcd's API.
    front: Option<Front>,
    /// Processes that were named.
    named: Vec<u32>,
    layout: Option<Layout>,
    /// A folder on the disk that the replicas use, as far as they are on this machine.
    disk: PathBuf,
    /// Those that we started.
    replicas: Vec<Replica>,
    /// The broker that we started.
    broker: Option<NatsServer>,
}

impl Target {
    async fn start(arguments: &Arguments, dir: &Path, results: &mut Results) -> anyhow::Result<Self> {
        if !arguments.against.is_empty() {
            let front = Front::against(&arguments.against).await?;
            (results.protocol, results.replicas) = (front.names(), arguments.processes.len());
            let named = arguments.processes.clone();
            let disk = dir.parent().map(Path::to_owned).unwrap_or_default();
            return Ok(Self {
                connection: None,
                front: Some(front),
                named,
                layout: None,
                disk,
                replicas: Vec::new(),
                broker: None,
            });
        }
        let front = async |file: &Path| match arguments.api {
            Api::Own => Ok(None),
            Api::Etcd => Front::gateway(file).await.map(Some),
        };
        if let Some(file) = &arguments.cluster {
            let connection = ClusterArgs { cluster: Some(file.clone()), timeout: PATIENCE.as_secs() }.connect()?;
            connection.must_replicate(arguments.machine())?;
            results.replicas = connection.config.members.len();
            results.protocol.clone_from(&connection.config.protocol);
            let layout = file.parent().and_then(Layout::existing);
            let disk = file.parent().map(Path::to_owned).unwrap_or_default();
            let (front, connection) = (front(file).await?, Some(connection));
            return Ok(Self { connection, front, named: Vec::new(), layout, disk, replicas: Vec::new(), broker: None });
        }
        let addresses = free_addresses(results.replicas)?;
        let machine = arguments.machine();
        let choice = arguments.broker.choose(arguments.protocol)?;
        let layout = Layout::create(dir, &arguments.protocol.to_string(), machine, None, &choice, &addresses)?;
        if let Some(requests) = arguments.tentative {
            layout.answer_tentatively(results.replicas, usize::try_from(requests)?)?;
        }
        let broker = NatsServer::start(&layout, choice.url.as_deref()).await?;
        let start = Instant::now();
        let mut starting = JoinSet::new();
        for index in (0_u8..).take(results.replicas) {
            let id = ReplicaId::new(index);
            starting.spawn(Replica::start(id, layout.replica(id)));
        }
        let connection = Connection::open(&layout.cluster_file(), PATIENCE)?;
        match machine {
            Machine::Kv => drop(connection.apply(&Operation::put("bench/first", "write")).await?.result?),
            Machine::Events => drop(connection.call(Call::Apply(machine.nothing()?.into())).await?),
        }
        results.first_write_ms = Some(start.elapsed().as_secs_f64() * 1000.0);
        let mut replicas = Vec::new();
        while let Some(started) = starting.join_next().await {
            replicas.push(started??);
        }
        let front = front(&layout.cluster_file()).await?;
        let (connection, layout) = (Some(connection), Some(layout));
        Ok(Self { connection, front, named: Vec::new(), layout, disk: dir.to_owned(), replicas, broker })
    }

    /// The processes of all replicas, as far as they are on this machine.
    fn processes(&self) -> Vec<u32> {
        let mut processes = self.named.clone();
        if let (Some(layout), Some(connection)) = (&self.layout, &self.connection) {
            let members = connection.config.members.iter();
            processes.extend(members.filter_map(|member| holder(&layout.replica(member.replica).pid_file())));
        }
        processes.extend(self.front.as_ref().and_then(Front::process));
        processes.extend(self.broker.as_ref().and_then(NatsServer::pid));
        processes
    }

    async fn measure(&mut self, arguments: &Arguments, results: &mut Results) -> anyhow::Result<()> {
        if arguments.idle {
            results.idle = Some(self.idle().await);
        }
        self.levels(arguments, 0, results).await?;
        if arguments.crashed > 0 {
            self.crash(arguments.crashed).await?;
            self.levels(arguments, arguments.crashed, results).await?;
        }
        if arguments.failover {
            for _ in 0..3 {
                let gap = self.fail_over(arguments).await?;
                eprintln!("primary killed: longest gap between two answers {gap:.0} ms");
                results.failover_gap_ms.push(gap);
            }
        }
        Ok(())
    }

    /// Measures each level that is asked for, with so many replicas killed.
    async fn levels(&self, arguments: &Arguments, crashed: usize, results: &mut Results) -> anyhow::Result<()> {
        for &in_flight in &arguments.in_flight {
            let mut level = self.level(arguments, in_flight, arguments.contention.first()).await?;
            level.crashed = crashed;
            level.bound_ms = self.bound_ms(crashed);
            level.bound_kept = level.bound_ms.map(|bound| level.p99_ms <= bound);
            eprintln!(
                "{in_flight} in flight: {} op/s, p50 {:.2} ms, p99 {:.2} ms",
                thousands(level.ops_per_second as u64),
                level.p50_ms,
                level.p99_ms
            );
            results.levels.push(level);
        }
        Ok(())
    }

    /// What the protocol promises for a request with the bounds in the replicas' files while so many are down, milliseconds.
    fn bound_ms(&self, down: usize) -> Option<f64> {
        let (layout, members) = (self.layout.as_ref()?, &self.connection.as_ref()?.config.members);
        let file = ReplicaConfig::load(&layout.replica(members.first()?.replica).config_file()).ok()?;
        Protocol::named(&file.protocol)?.latency_bound_ms(members.len(), down, &file.timing)
    }

    async fn idle(&self) -> Idle {
        let processes = self.processes();
        let count = processes.len().max(1) as f64;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let before = Sample::take(&processes, &self.disk);
        tokio::time::sleep(IDLE).await;
        let used = before.until(&Sample::take(&processes, &self.disk));
        Idle {
            cores_per_replica: used.replicas / count,
            resident_mb_per_replica: megabytes(&processes) / count,
            foreign_cores: used.foreign,
        }
    }

    async fn clients(&self, arguments: &Arguments, in_flight: u32) -> anyhow::Result<Vec<Asked>> {
        if let Some(front) = &self.front {
            let count = arguments.clients.unwrap_or(CONNECTIONS_DEFAULT).min(in_flight);
            return Ok(front.clients(count).await?.into_iter().map(Asked::Etcd).collect());
        }
        let connection = self.own()?;
        let asked = match arguments.machine() {
            Machine::Kv => Asked::Cluster,
            Machine::Events => Asked::Events,
        };
        (0..client_count(arguments, in_flight)?).map(|_| Ok(asked(connection.another()?.client))).collect()
    }

    fn own(&self) -> anyhow::Result<&Connection> {
        self.connection.as_ref().ok_or_else(|| failure("this cluster is not ours to ask", "leave --against out"))
    }

    /// Measures so many requests in flight, of which this share is for one key.
    async fn level(&self, arguments: &Arguments, in_flight: u32, share: f64) -> anyhow::Result<Level> {
        let clients = self.clients(arguments, in_flight).await?;
        let processes = self.processes();
        let load = Load { contended: share, ..self.load(arguments, in_flight) };
        let mut fsyncs_per_second = None;
        let count_syncs = async {
            let Some(connection) = &self.connection else { return Ok(()) };
            let before = Syncs::count(connection).await;
            tokio::time::sleep(load.measure.saturating_sub(COUNTED_BEFORE_END)).await;
            let after = Syncs::count(connection).await;
            fsyncs_per_second = before.zip(after).map(|(before, after)| before.per_second_until(&after));
            Ok(())
        };
        let outcome =
            load::run(&clients, load, Watched { processes: &processes, disk: &self.disk }, count_syncs).await?;
        let operations = outcome.latencies.len() as f64;
        if operations == 0.0 {
            return Err(failure("not one request was answered", "see the replicas' log files"));
        }
        let ms = |quantile| outcome.latencies.value_at_quantile(quantile) as f64 / 1e6;
        let used = outcome.used;
        Ok(Level {
            in_flight,
            crashed: 0,
            clients: clients.len() as u32,
            ops_per_second: operations / used.seconds,
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            p999_ms: ms(0.999),
            max_ms: outcome.latencies.max() as f64 / 1e6,
            bound_ms: None,
            bound_kept: None,
            errors: outcome.errors,
            fsyncs_per_second,
            replica_us_per_op: used.replicas * used.seconds * 1e6 / operations,
            replica_cores: used.replicas,
            client_cores: used.client,
            foreign_cores: used.foreign,
            written_bytes_per_op: used.written.map(|bytes| bytes as f64 / operations),
            resident_mb: megabytes(&processes),
        })
    }

    fn load(&self, arguments: &Arguments, in_flight: u32) -> Load {
        Load {
            in_flight,
            payload: arguments.payload as usize,
            read_percent: arguments.read_percent,
            contended: arguments.contention.first(),
            measure: Duration::from_secs(arguments.seconds),
        }
    }

    /// Kills the primary in the middle of a load, and brings it back after. Milliseconds.
    async fn fail_over(&mut self, arguments: &Arguments) -> anyhow::Result<f64> {
        let clients = self.clients(arguments, FAILOVER_IN_FLIGHT).await?;
        let load = self.load(arguments, FAILOVER_IN_FLIGHT);
        let primary = self.primary().await?;
        let Some(index) = self.replicas.iter().position(|replica| replica.id == primary) else {
            return Err(failure(format!("{primary}, the primary, is not ours to kill"), "leave --failover out"));
        };
        let mut victim = self.replicas.swap_remove(index);
        let kill = async {
            tokio::time::sleep(load.measure / 2).await;
            victim.kill().await.explain("cannot kill the primary")
        };
        let outcome = load::run(&clients, load, Watched { processes: &[], disk: &self.disk }, kill).await?;
        self.replicas.push(Replica::start(victim.id, victim.folder.clone()).await?);
        self.all_are_back().await?;
        Ok(load::longest_gap(outcome.answered).as_secs_f64() * 1000.0)
    }

    /// Waits until all replicas have one state: to kill the next one before that would measure how long a restart takes.
    async fn all_are_back(&self) -> anyhow::Result<()> {
        let until = Instant::now() + BACK_WITHIN;
        while Instant::now() < until {
            let status = ask(self.own()?, Duration::from_secs(2)).await;
            let states: Vec<_> = status.replicas.iter().map(|row| row.said.as_ref().map(|said| &said.digest)).collect();
            if states.iter().all(|state| state.is_some() && *state == states[0]) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let what = format!("a killed replica was not back within {} s of its start", BACK_WITHIN.as_secs());
        Err(failure(what, "look at `quorate status` and the replica's output; a smaller store restarts sooner"))
    }

    async fn primary(&self) -> anyhow::Result<ReplicaId> {
        let status = ask(self.own()?, Duration::from_secs(2)).await;
        let led = Protocol::named(&status.protocol).is_none_or(Protocol::has_one_order);
        let leads = |said: &Said| !led || leads(&said.role); // where nobody leads, anybody will do
        let found = status.replicas.iter().find(|row| row.said.as_ref().is_some_and(leads));
        found.map(|row| ReplicaId::new(row.replica)).ok_or_else(|| failure("there is no primary", "try again"))
    }

    async fn stop(&mut self) {
        for replica in &mut self.replicas {
            if let Err(error) = replica.stop(Duration::from_secs(5)).await {
                eprintln!("{}: {error}", replica.id);
            }
        }
        if let Some(broker) = &mut self.broker {
            broker.stop(Duration::from_secs(5)).await;
        }
    }
}

/// How many clients share so many requests.
fn client_count(arguments: &Arguments, in_flight: u32) -> anyhow::Result<u32> {
    let count = arguments.clients.unwrap_or(CLIENTS_DEFAULT.max(in_flight.div_ceil(IN_FLIGHT_EACH))).min(in_flight);
    if u64::from(in_flight.div_ceil(count)) > WINDOW {
        let what = format!("{count} clients cannot keep {in_flight} requests in flight: each keeps at most {WINDOW}");
        return Err(failure(what, "ask for more --clients, or fewer requests --in-flight"));
    }
    Ok(count)
}

/// What other programs take of the processors, with nothing of ours running. Cores.
async fn foreign(disk: &Path) -> f64 {
    let before = Sample::take(&[], disk);
    tokio::time::sleep(QUIET).await;
    before.until(&Sample::take(&[], disk)).foreign
}

/// How often the replicas have synced their logs, all together.
struct Syncs {
    at: Instant,
    count: u64,
}

impl Syncs {
    /// Asks all replicas; `None` if one does not answer.
    async fn count(connection: &Connection) -> Option<Self> {
        let status = ask(connection, Duration::from_secs(2)).await;
        let counts: Option<Vec<u64>> = status.replicas.iter().map(|row| Some(row.said.as_ref()?.syncs)).collect();
        Some(Self { at: Instant::now(), count: counts?.into_iter().sum() })
    }

    fn per_second_until(&self, later: &Self) -> f64 {
        later.count.saturating_sub(self.count) as f64 / later.at.duration_since(self.at).as_secs_f64().max(1e-9)
    }
}

fn megabytes(processes: &[u32]) -> f64 {
    processes.iter().map(|pid| system::resident(*pid)).sum::<u64>() as f64 / 1e6
}

/// Columns of the table up to `max ms`: the bound follows.
const MAX_MS_END: usize = 7;

fn show(results: &Results) {
    let head = [
        "in flight",
        "clients",
        "op/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "max ms",
        "errors",
        "fsync/s",
        "µs/op",
        "cores",
        "client",
        "foreign",
        "disk B/op",
        "MB",
    ];
    let bounds = results.levels.iter().any(|level| level.bound_ms.is_some());
    let crashes = results.levels.iter().any(|level| level.crashed > 0);
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for level in &results.levels {
        lines.push(vec![
            level.in_flight.to_string(),
            level.clients.to_string(),
            thousands(level.ops_per_second as u64),
            format!("{:.2}", level.p50_ms),
            format!("{:.2}", level.p99_ms),
            format!("{:.2}", level.p999_ms),
            format!("{:.1}", level.max_ms),
            level.errors.to_string(),
            level.fsyncs_per_second.map_or_else(|| "-".to_owned(), |rate| thousands(rate as u64)),
            format!("{:.1}", level.replica_us_per_op),
            format!("{:.2}", level.replica_cores),
            format!("{:.2}", level.client_cores),
            format!("{:.2}", level.foreign_cores),
            level.written_bytes_per_op.map_or_else(|| "-".to_owned(), |bytes| format!("{bytes:.0}")),
            format!("{:.0}", level.resident_mb),
        ]);
    }
    let levels = std::iter::once(None).chain(results.levels.iter().map(Some));
    for (line, level) in lines.iter_mut().zip(levels) {
        if bounds {
            let bound = level.map_or("bound ms".to_owned(), |it| format!("{:.0}", it.bound_ms.unwrap_or_default()));
            let kept = level.map_or("kept", |it| if it.bound_kept == Some(true) { "yes" } else { "NO" });
            line.splice(MAX_MS_END..MAX_MS_END, [bound, kept.to_owned()]);
        }
        if crashes {
            line.insert(1, level.map_or("down".to_owned(), |it| it.crashed.to_string()));
        }
    }
    let through = match (results.api, results.brokered) {
        (Api::Etcd, _) => " through etcd's API",
        (_, true) => " through a broker",
        _ => "",
    };
    let contended = match results.contention {
        share if share > 0.0 => format!(", a share of {share} for one key"),
        _ => String::new(),
    };
    println!(
        "{}{through}, {} replicas, values of {} bytes, {} % reads{contended}, {} s each",
        results.protocol, results.replicas, results.payload_bytes, results.read_percent, results.seconds
    );
    println!("{}", columns(&lines));
    for (when, raws) in [("before", &results.raw_before), ("after", &results.raw_after)] {
        for raw in raws {
            println!("raw fdatasync {when}: {} B p50 {:.0} µs, p99 {:.0} µs", raw.bytes, raw.p50_us, raw.p99_us);
        }
    }
    if let Some(ratio) = results.p50_over_raw {
        println!("p50 with one in flight = {ratio:.1} × raw");
    }
    if bounds {
        let kept = results.levels.iter().filter(|level| level.bound_kept == Some(true)).count();
        println!("p99 is within the latency bound of the configuration at {kept} of {} levels", results.levels.len());
    }
    if let Some(words) = crashed::words(results) {
        println!("{words}");
    }
    if let Some(ms) = results.first_write_ms {
        println!("first acknowledged write {ms:.0} ms after starting {} empty replicas", results.replicas);
    }
    if let Some(idle) = &results.idle {
        println!(
            "idle: {:.2} % of a core and {:.0} MB for each replica (foreign {:.2} cores)",
            idle.cores_per_replica * 100.0,
            idle.resident_mb_per_replica,
            idle.foreign_cores
        );
    }
    if !results.failover_gap_ms.is_empty() {
        let gaps: Vec<_> = results.failover_gap_ms.iter().map(|gap| format!("{gap:.0}")).collect();
        println!("kill -9 of the primary under load: longest gap between two answers {} ms", gaps.join(", "));
    }
    let levels = results.levels.iter().map(|level| level.foreign_cores);
    let idle = results.idle.iter().map(|idle| idle.foreign_cores);
    let most = levels.chain(idle).chain([results.foreign_cores_before]).fold(0.0, f64::max);
    if most > QUIET_CORES_MAX {
        println!(
            "NOT QUIET: other programs took up to {most:.2} cores; these numbers say little, measure again without them"
        );
    } else {
        println!("quiet: other programs took at most {most:.2} cores");
    }
}
