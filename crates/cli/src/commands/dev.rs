//! `quorate dev`: a whole cluster on this machine, without set-up.

mod controls;

use super::dashboard::{self, DASHBOARD_ADDRESS};
use super::gateway::{self, ETCD_ADDRESS, EVENTS_ADDRESS, Offered};
use super::{Machine, Protocol};
use crate::brokers::{BrokerArgs, NatsServer};
use crate::cluster::{Connection, register};
use crate::errors::{Advise, failure};
use crate::layout::{Layout, free_addresses};
use crate::lying;
use crate::processes::{Replica, describe, holder, last_words, signal};
use clap::Args;
pub use controls::Controls;
use controls::Ordered;
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::Call;
use quorate_runtime::config::ClusterConfig;
use quorate_server::Options;
use quorate_server::dashboard::Dashboard;
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal as listen};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

/// Between two looks at the pid files of replicas that were started by hand.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a replica may take to stop.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long the first write may take.
const FIRST_WRITE_PATIENCE: Duration = Duration::from_secs(30);

/// Start a whole cluster on this machine, without set-up
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate dev
  quorate dev --protocol pbft       four replicas, one of which may lie
  quorate dev --protocol hq         each key in an order of its own, made by its clients; no etcd API
  quorate dev --events              an event store instead of the key-value store: see `quorate events --help`
  quorate dev --protocol reception --events    its events are certified by who has received them
  quorate dev --protocol reception --events --broker nats     clients publish through a NATS server that nobody trusts
  quorate dev --dir cluster         keeps everything in ./cluster; run again, it goes on where it stopped

Each replica is a process of its own with its own disk folder. Kill one and see what happens: nothing that was acknowledged
is lost, and `quorate serve --config cluster/replica-N/replica.toml` brings it back. Ctrl-C stops all of them.")]
pub struct Arguments {
    /// The replication protocol
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// How many replicas; without it, as few as survive the loss of one: 3 with vr and sync-tob, 4 with the others
    #[arg(long)]
    replicas: Option<usize>,
    /// Where to keep the cluster; without it, a temporary folder that goes away with the cluster
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Replicate an event store instead of the key-value store
    #[arg(long)]
    events: bool,
    /// With reception: how many of the 3e + 1 replicas that certify a publication may lie (e); without it, as many as the cluster
    /// bears
    #[arg(long, value_name = "E")]
    criticality: Option<u8>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// Where to offer the etcd v3 API, for etcdctl and etcd's clients; `off` for nowhere [default: 127.0.0.1:2379]. It needs one
    /// order of all keys: a new cluster of `hq` with this flag is one of `hq-total`
    #[arg(long, value_name = "ADDRESS|off")]
    etcd: Option<String>,
    /// Where to offer an event store over HTTP (--events); `off` for nowhere
    #[arg(long, value_name = "ADDRESS|off", default_value = EVENTS_ADDRESS)]
    http: String,
    /// Where to show the dashboard; `off` for nowhere
    #[arg(long, value_name = "ADDRESS|off", default_value = DASHBOARD_ADDRESS)]
    dashboard: String,
}

impl Arguments {
    /// What the files of the folder say, if there are any.
    fn found(&self) -> Option<ClusterConfig> {
        let file = self.dir.as_deref().and_then(Layout::existing).map(|layout| layout.cluster_file());
        file.and_then(|file| ClusterConfig::load(&file).ok())
    }

    /// Is it an event store, by its flag or by the files of the folder?
    fn replicates_events(&self) -> bool {
        self.found().map_or(self.events, |config| Machine::of(&config.machine) == Some(Machine::Events))
    }

    /// Its protocol, by the files of the folder or by its flag.
    fn protocol(&self) -> Protocol {
        let found = self.found().and_then(|config| Protocol::named(&config.protocol));
        found.or(self.chosen()).unwrap_or_default()
    }

    /// The protocol that the flags choose. Whoever wants etcd's API from HQ gets it in total order (ADR 029), and is told so.
    fn chosen(&self) -> Option<Protocol> {
        match self.protocol {
            Some(Protocol::Hq) if self.wants_etcd() => Some(Protocol::HqTotal),
            chosen => chosen,
        }
    }

    /// Was etcd's API asked for, by its flag?
    fn wants_etcd(&self) -> bool {
        self.etcd.as_ref().is_some_and(|address| address != "off")
    }

    /// What the replicas of a new cluster replicate.
    fn machine(&self) -> Machine {
        if self.events { Machine::Events } else { Machine::Kv }
    }
}

/// Runs the command.
///
/// # Errors
/// Why the cluster cannot start.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let start = Instant::now();
    // etcd's API and the dashboard's browser need a key-value store whose keys have one order.
    let (etcd, page) = match arguments.replicates_events() || !arguments.protocol().has_one_order() {
        true => ("off", "off"),
        false => (arguments.etcd.as_deref().unwrap_or(ETCD_ADDRESS), arguments.dashboard.as_str()),
    };
    let public = match arguments.replicates_events() {
        true => bind(&arguments.http, "--http ADDRESS, or do without HTTP with --http off").await?,
        false => bind(etcd, "--etcd ADDRESS, or do without the etcd API with --etcd off").await?,
    };
    let page = bind(page, "--dashboard ADDRESS, or do without it with --dashboard off").await?;
    let temporary = match arguments.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("quorate-dev-").tempdir()?),
    };
    let dir = arguments.dir.clone().or_else(|| temporary.as_ref().map(|it| it.path().to_owned())).unwrap_or_default();
    let (layout, config) = create_or_resume(&dir, &arguments)?;
    let (controls, orders) = Controls::new(lying::lies(&layout, &config));
    let mut dev = Dev { layout, config, up: Vec::new(), broker: None, controls };
    let _registration = register(&dev.layout.cluster_file())?;
    let ready = tokio::select! {
        ready = dev.start() => ready,
        _ = interrupt.recv() => Err(failure("stopped before the cluster was ready", "run it again")),
        _ = terminate.recv() => Err(failure("stopped before the cluster was ready", "run it again")),
    };
    if let Err(error) = ready {
        dev.stop().await;
        return Err(error);
    }
    let shown = dev.offer(public, page);
    match &shown {
        Ok((gateway, dashboard)) => {
            dev.welcome(start.elapsed(), temporary.as_ref(), &dir, gateway.as_ref(), dashboard.as_ref());
        }
        Err(_) => dev.stop().await,
    }
    let _until_the_end = shown?;
    tokio::select! {
        () = dev.watch_over(orders) => {}
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    println!("stopping");
    dev.stop().await;
    match temporary {
        Some(temporary) => {
            let path = temporary.path().display().to_string();
            temporary.close().advise(format!("cannot remove {path}"), "remove it by hand")?;
            println!("stopped; {path} is removed");
        }
        None => println!("stopped; go on with: {} dev --dir {}", program(), dir.display()),
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes the cluster's files, or reads those that are there and holds the flags against them.
fn create_or_resume(dir: &Path, arguments: &Arguments) -> anyhow::Result<(Layout, ClusterConfig)> {
    let Some(layout) = Layout::existing(dir) else {
        let protocol = arguments.chosen().unwrap_or_default();
        let addresses = free_addresses(arguments.replicas.unwrap_or(protocol.replicas()))?;
        let (machine, broker) = (arguments.machine(), arguments.broker.choose(protocol)?);
        let layout = Layout::create(dir, protocol.name(), machine, arguments.criticality, &broker, &addresses)?;
        let config = ClusterConfig::load(&layout.cluster_file())?;
        layout.mark_play(config.cluster)?;
        return Ok((layout, config));
    };
    let config = ClusterConfig::load(&layout.cluster_file())?;
    let shown = dir.display();
    if let Some(replicas) = arguments.replicas.filter(|it| *it != config.members.len()) {
        let what = format!("the cluster in {shown} has {} replicas, not {replicas}", config.members.len());
        return Err(failure(what, "leave --replicas out, or choose another folder"));
    }
    let in_order = Protocol::named(&config.protocol).is_none_or(Protocol::has_one_order);
    if arguments.wants_etcd() && !in_order {
        let what =
            format!("the cluster in {shown} runs `{}`, and etcd's API needs one order of all keys", config.protocol);
        return Err(failure(what, "leave --etcd out, or choose another folder: the order is made with the cluster"));
    }
    if let Some(protocol) = arguments.chosen().filter(|it| it.to_string() != config.protocol) {
        let what = format!("the cluster in {shown} runs `{}`, not `{protocol}`", config.protocol);
        return Err(failure(what, "leave --protocol out, or choose another folder"));
    }
    if arguments.criticality.is_some() {
        let what = format!("how critical receptions are in {shown} is in its files");
        return Err(failure(what, "leave --criticality out, or choose another folder"));
    }
    if arguments.broker.is_given() {
        let what = format!("which broker the cluster in {shown} has is in its files");
        return Err(failure(what, "leave --broker and --broker-faults out, or choose another folder"));
    }
    if arguments.events && Machine::of(&config.machine) != Some(Machine::Events) {
        let what = format!("the cluster in {shown} replicates `{}`, not an event store", config.machine);
        return Err(failure(what, "leave --events out, or choose another folder"));
    }
    Ok((layout, config))
}

/// Listens at an address, unless it is `off`.
async fn bind(address: &str, how: &str) -> anyhow::Result<Option<TcpListener>> {
    match address {
        "off" => Ok(None),
        address => gateway::bind(address, how).await.map(Some),
    }
}

struct Dev {
    layout: Layout,
    config: ClusterConfig,
    up: Vec<Watched>,
    broker: Option<NatsServer>,
    controls: Controls,
}

/// A replica that we look after.
struct Watched {
    id: ReplicaId,
    /// Ours, until it ends.
    child: Option<Replica>,
    /// Started by hand: its process, as its pid file says.
    by_hand: Option<u32>,
    /// It was told to stand still.
    paused: bool,
    /// Replicas whose messages it was told to drop.
    cut: Vec<ReplicaId>,
    /// The lie that it was told to tell.
    lies: Option<String>,
}

impl Dev {
    /// Starts all replicas that do not run yet, and waits for the first acknowledged write.
    async fn start(&mut self) -> anyhow::Result<()> {
        self.broker = NatsServer::start(&self.layout, self.config.broker.as_deref()).await?;
        let mut starting = JoinSet::new();
        for member in &self.config.members {
            let folder = self.layout.replica(member.replica);
            let by_hand = holder(&folder.pid_file());
            self.up.push(Watched {
                id: member.replica,
                child: None,
                by_hand,
                paused: false,
                cut: Vec::new(),
                lies: None,
            });
            if by_hand.is_none() {
                starting.spawn(Replica::start(member.replica, folder));
            }
        }
        let connection = Connection::open(&self.layout.cluster_file(), FIRST_WRITE_PATIENCE)?;
        while let Some(started) = starting.join_next().await {
            let replica = started??;
            if let Some(watched) = self.up.iter_mut().find(|it| it.id == replica.id) {
                watched.child = Some(replica);
            }
        }
        let nothing = Machine::of(&self.config.machine).unwrap_or_default().nothing()?;
        connection.call(Call::Apply(nothing.into())).await?;
        self.publish();
        Ok(())
    }

    /// Offers the cluster to others, as far as there are listeners for it.
    fn offer(
        &self,
        public: Option<TcpListener>,
        page: Option<TcpListener>,
    ) -> anyhow::Result<(Option<Offered>, Option<Dashboard>)> {
        let file = self.layout.cluster_file();
        let gateway = public.map(|listener| gateway::start(&file, listener, Options::default())).transpose()?;
        let dashboard =
            page.map(|listener| dashboard::start(&file, listener, Some(self.controls.clone()))).transpose()?;
        Ok((gateway, dashboard))
    }

    fn welcome(
        &self,
        took: Duration,
        temporary: Option<&TempDir>,
        dir: &Path,
        gateway: Option<&Offered>,
        dashboard: Option<&Dashboard>,
    ) {
        let (count, protocol) = (self.config.members.len(), &self.config.protocol);
        println!("{count} replicas run {protocol}; the first write was acknowledged after {:.2} s", took.as_secs_f64());
        if Protocol::named(protocol) == Some(Protocol::HqTotal) {
            println!(
                "  ONE ORDER of all keys, for etcd's API: PBFT, which is in HQ, orders every operation. What it costs is HQ's own way: \
                 no client writes a key in two round trips without a leader. That is `--protocol hq`, without etcd's API"
            );
        }
        for (watched, member) in self.up.iter().zip(&self.config.members) {
            let pid = watched.child.as_ref().and_then(Replica::pid).or(watched.by_hand).unwrap_or_default();
            println!("  replica {}  {}  process {pid}", watched.id.get(), member.address);
        }
        match temporary {
            Some(_) => println!("  {} holds their disks, and is removed at the end; --dir DIR keeps it", dir.display()),
            None => println!("  {} holds their disks", dir.display()),
        }
        if Protocol::named(protocol).is_some_and(Protocol::tosses) {
            println!(
                "  the keys of its coins were dealt here: whoever made the cluster could know all coins in advance"
            );
        }
        if let Some(url) = &self.config.broker {
            println!("  clients publish through {url}, which nobody trusts");
        }
        if let Some(faults) = &self.config.broker_faults {
            println!("  and make it do wrong: {faults}");
        }
        if let Some(gateway) = gateway {
            println!("  {} is at {}", gateway.words(), gateway.url());
        }
        if let Some(dashboard) = dashboard {
            println!("  look at it, and break it, at {}", dashboard.url());
        }
        let quorate = program();
        println!("\nTry in another terminal:");
        if Machine::of(&self.config.machine) == Some(Machine::Events) {
            println!("  {quorate} events append --stream account-1 --type opened --data '{{\"owner\":\"Ann\"}}'");
            println!("  {quorate} events read --stream account-1");
            println!("  {quorate} events subscribe --all");
        } else {
            println!("  {quorate} kv put greeting hello");
            println!("  {quorate} kv get greeting");
        }
        println!("  {quorate} top");
        if Protocol::named(protocol).is_some_and(|it| !it.has_one_order()) {
            println!("  (each key has an order of its own: no watch, no lease, no etcd API, and no dashboard of keys;");
            println!(
                "  with --protocol hq-total, or --etcd ADDRESS, a new cluster has one order of all keys, and all of these)"
            );
        }
        match gateway {
            Some(Offered::Etcd(gateway)) => println!("  etcdctl --endpoints {} get greeting", gateway.address()),
            Some(Offered::Events(gateway)) => println!("  curl {}/v1/streams/account-1", gateway.address()),
            None => {}
        }
        println!("  kill -9 $(cat {})", self.layout.replica(ReplicaId::new(0)).pid_file().display());
        println!("  {}", self.restart_command(ReplicaId::new(0)));
        if let Some(broker) = &self.broker {
            println!("  kill -9 $(cat {})", broker.pid_file().display());
            println!("  {}", NatsServer::command(&self.layout));
        }
        println!();
        println!("Ctrl-C stops all replicas.");
    }

    fn restart_command(&self, replica: ReplicaId) -> String {
        format!("{} serve --config {}", program(), self.layout.replica(replica).config_file().display())
    }

    /// Tells of replicas that end, and of those that somebody starts again; does what the dashboard's buttons say. Never ends.
    async fn watch_over(&mut self, mut orders: mpsc::Receiver<Ordered>) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                Some(ordered) = orders.recv() => self.obey(ordered).await,
            }
            for index in 0..self.up.len() {
                self.look_at(index).await;
            }
            if self.broker.as_mut().is_some_and(NatsServer::has_ended) {
                println!("the broker has ended; clients publish over their own links until it is back");
                println!("  start it again: {}", NatsServer::command(&self.layout));
            }
            self.publish();
        }
    }

    async fn look_at(&mut self, index: usize) {
        let Some(watched) = self.up.get_mut(index) else { return };
        let (id, folder) = (watched.id, self.layout.replica(watched.id));
        if let Some(child) = &mut watched.child {
            // Ends at once if the process has ended.
            let Ok(ended) = tokio::time::timeout(Duration::ZERO, child.ended()).await else { return };
            let how = ended.map_or_else(|error| error.to_string(), describe);
            watched.child = None;
            (watched.paused, watched.cut, watched.lies) = (false, Vec::new(), None);
            println!("{id} has ended ({how})");
            if how.starts_with("exit status") {
                println!("  {}", last_words(&folder));
            }
            println!("  start it again: {}", self.restart_command(id));
            return;
        }
        let found = holder(&folder.pid_file());
        match (watched.by_hand, found) {
            (None, Some(pid)) => println!("{id} is back, as process {pid}"),
            (Some(_), None) => println!("{id} has ended; start it again: {} serve --config …", program()),
            _ => {}
        }
        watched.paused &= watched.by_hand == found;
        watched.by_hand = found;
    }

    /// Stops our replicas, and those whose pid file names a living process; and the broker, if we have started it.
    async fn stop(&mut self) {
        for watched in &mut self.up {
            let pid = holder(&self.layout.replica(watched.id).pid_file());
            let pid = watched.child.as_ref().and_then(Replica::pid).or(pid);
            if let Some(pid) = pid {
                let _gone_already = signal(pid, Signal::TERM);
                let _not_paused = signal(pid, Signal::CONT); // who stands still does not hear the first
            }
        }
        let until = Instant::now() + STOP_PATIENCE;
        for watched in &mut self.up {
            if let Some(child) = &mut watched.child
                && let Err(error) = child.stop(until.saturating_duration_since(Instant::now())).await
            {
                eprintln!("{}: {error}", watched.id);
            }
            let file = self.layout.replica(watched.id).pid_file();
            while holder(&file).is_some() && Instant::now() < until {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            if let Some(pid) = holder(&file) {
                eprintln!("{} (process {pid}), which was started by hand, does not stop", watched.id);
            }
        }
        if let Some(broker) = &mut self.broker {
            broker.stop(until.saturating_duration_since(Instant::now())).await;
        }
    }
}

/// How whoever runs this program calls it.
pub fn program() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "quorate".to_owned())
}
