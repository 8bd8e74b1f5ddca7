//! `quorate dev`: a whole cluster on this machine, without set-up.

use super::Protocol;
use super::gateway::{self, ETCD_ADDRESS};
use crate::cluster::{Connection, register};
use crate::errors::{Advise, failure};
use crate::layout::{Layout, free_addresses};
use crate::processes::{Replica, describe, holder, last_words, signal};
use clap::Args;
use quorate_core::ids::ReplicaId;
use quorate_machines::kv::Operation;
use quorate_runtime::config::ClusterConfig;
use quorate_server::{Gateway, Options};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::signal::unix::{SignalKind, signal as listen};
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
  quorate dev --dir cluster         keeps everything in ./cluster; run again, it goes on where it stopped

Each replica is a process of its own with its own disk folder. Kill one and see what happens: nothing that was acknowledged
is lost, and `quorate serve --config cluster/replica-N/replica.toml` brings it back. Ctrl-C stops all of them.")]
pub struct Arguments {
    /// The replication protocol
    #[arg(long, value_enum)]
    protocol: Option<Protocol>,
    /// How many replicas; without it, as few as survive the loss of one: 3 with vr, 4 with pbft
    #[arg(long)]
    replicas: Option<usize>,
    /// Where to keep the cluster; without it, a temporary folder that goes away with the cluster
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Where to offer the etcd v3 API, for etcdctl and etcd's clients; `off` for nowhere
    #[arg(long, value_name = "ADDRESS|off", default_value = ETCD_ADDRESS)]
    etcd: String,
}

/// Runs the command.
///
/// # Errors
/// Why the cluster cannot start.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    let start = Instant::now();
    let listener = match arguments.etcd.as_str() {
        "off" => None,
        address => Some(gateway::bind(address, "--etcd ADDRESS, or do without the etcd API with --etcd off").await?),
    };
    let temporary = match arguments.dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("quorate-dev-").tempdir()?),
    };
    let dir = arguments.dir.clone().or_else(|| temporary.as_ref().map(|it| it.path().to_owned())).unwrap_or_default();
    let (layout, config) = create_or_resume(&dir, &arguments)?;
    let mut dev = Dev { layout, config, up: Vec::new() };
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
    let offered = Protocol::named(&dev.config.protocol).is_none_or(Protocol::offers_etcd);
    let gateway = match listener.filter(|_| offered) {
        Some(listener) => Some(gateway::start(&dev.layout.cluster_file(), listener, Options::default())?),
        None => None,
    };
    dev.welcome(start.elapsed(), temporary.as_ref(), &dir, gateway.as_ref());
    tokio::select! {
        () = dev.watch_over() => {}
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
        let protocol = arguments.protocol.unwrap_or_default();
        let addresses = free_addresses(arguments.replicas.unwrap_or(protocol.replicas()))?;
        let layout = Layout::create(dir, protocol.name(), &addresses)?;
        let config = ClusterConfig::load(&layout.cluster_file())?;
        return Ok((layout, config));
    };
    let config = ClusterConfig::load(&layout.cluster_file())?;
    let shown = dir.display();
    if let Some(replicas) = arguments.replicas.filter(|it| *it != config.members.len()) {
        let what = format!("the cluster in {shown} has {} replicas, not {replicas}", config.members.len());
        return Err(failure(what, "leave --replicas out, or choose another folder"));
    }
    if let Some(protocol) = arguments.protocol.filter(|it| it.to_string() != config.protocol) {
        let what = format!("the cluster in {shown} runs `{}`, not `{protocol}`", config.protocol);
        return Err(failure(what, "leave --protocol out, or choose another folder"));
    }
    Ok((layout, config))
}

struct Dev {
    layout: Layout,
    config: ClusterConfig,
    up: Vec<Watched>,
}

/// A replica that we look after.
struct Watched {
    id: ReplicaId,
    /// Ours, until it ends.
    child: Option<Replica>,
    /// Started by hand: its process, as its pid file says.
    by_hand: Option<u32>,
}

impl Dev {
    /// Starts all replicas that do not run yet, and waits for the first acknowledged write.
    async fn start(&mut self) -> anyhow::Result<()> {
        let mut starting = JoinSet::new();
        for member in &self.config.members {
            let folder = self.layout.replica(member.replica);
            let by_hand = holder(&folder.pid_file());
            self.up.push(Watched { id: member.replica, child: None, by_hand });
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
        // Deleting a key that does not exist takes the whole way through the log and changes nothing.
        connection.apply(&Operation::delete("quorate/dev/first-write")).await?.result?;
        Ok(())
    }

    fn welcome(&self, took: Duration, temporary: Option<&TempDir>, dir: &Path, gateway: Option<&Gateway>) {
        let (count, protocol) = (self.config.members.len(), &self.config.protocol);
        println!("{count} replicas run {protocol}; the first write was acknowledged after {:.2} s", took.as_secs_f64());
        for (watched, member) in self.up.iter().zip(&self.config.members) {
            let pid = watched.child.as_ref().and_then(Replica::pid).or(watched.by_hand).unwrap_or_default();
            println!("  replica {}  {}  process {pid}", watched.id.get(), member.address);
        }
        match temporary {
            Some(_) => println!("  {} holds their disks, and is removed at the end; --dir DIR keeps it", dir.display()),
            None => println!("  {} holds their disks", dir.display()),
        }
        if let Some(gateway) = gateway {
            println!("  the etcd v3 API is at {}", gateway.url());
        }
        let quorate = program();
        println!("\nTry in another terminal:");
        println!("  {quorate} kv put greeting hello");
        println!("  {quorate} kv get greeting");
        println!("  {quorate} status");
        if let Some(gateway) = gateway {
            println!("  etcdctl --endpoints {} get greeting", gateway.address());
        }
        println!("  kill -9 $(cat {})", self.layout.replica(ReplicaId::new(0)).pid_file().display());
        println!("  {}\n", self.restart_command(ReplicaId::new(0)));
        println!("Ctrl-C stops all replicas.");
    }

    fn restart_command(&self, replica: ReplicaId) -> String {
        format!("{} serve --config {}", program(), self.layout.replica(replica).config_file().display())
    }

    /// Tells of replicas that end, and of those that somebody starts again. Never ends.
    async fn watch_over(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            for index in 0..self.up.len() {
                self.look_at(index).await;
            }
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
        watched.by_hand = found;
    }

    /// Stops our replicas, and those whose pid file names a living process.
    async fn stop(&mut self) {
        for watched in &mut self.up {
            let pid = holder(&self.layout.replica(watched.id).pid_file());
            let pid = watched.child.as_ref().and_then(Replica::pid).or(pid);
            if let Some(pid) = pid {
                let _gone_already = signal(pid, Signal::TERM);
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
    }
}

/// How whoever runs this program calls it.
pub fn program() -> String {
    std::env::args().next().filter(|name| !name.is_empty()).unwrap_or_else(|| "quorate".to_owned())
}
