//! Brokers on the command line and in files: which one clients publish to, and the NATS server that `dev` and `bench` start.

use crate::errors::{Advise, failure};
use crate::layout::{Layout, free_addresses};
use crate::processes::signal;
use crate::served::Protocol;
use clap::Args;
use quorate_nats::Nats;
use quorate_runtime::broker::{Broker, BrokerFaults, Direct, Faulty, Intake};
use quorate_runtime::config::{ClusterConfig, ReplicaConfig};
use quorate_runtime::link::LinkHandle;
use rustix::process::Signal;
use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::task::JoinSet;

/// The program that is started for `--broker nats`.
const PROGRAM: &str = "nats-server";
/// How long it may take until it listens.
const START_PATIENCE: Duration = Duration::from_secs(10);

/// The flags of commands that make a cluster.
#[derive(Clone, Debug, Default, Args)]
pub struct BrokerArgs {
    /// With reception: where clients publish, nats://HOST:PORT, or `nats` to start a server beside the replicas; without it, over
    /// their own links. Nobody trusts it
    #[arg(long, value_name = "nats|URL")]
    broker: Option<String>,
    /// With reception: what clients make the broker do wrong, to show that nothing comes of it: drop, duplicate, reorder, tamper,
    /// delay, partition, loss, or all; NAME:300 triples one
    #[arg(long, value_name = "FAULTS")]
    broker_faults: Option<BrokerFaults>,
}

/// What these flags come to.
#[derive(Clone, Debug, Default)]
pub struct Choice {
    /// The broker's address, for the files.
    pub url: Option<String>,
    /// What clients make it do wrong.
    pub faults: Option<String>,
    /// Where a server of ours is to listen.
    own: Option<String>,
}

impl BrokerArgs {
    /// Was anything said about a broker?
    pub const fn is_given(&self) -> bool {
        self.broker.is_some() || self.broker_faults.is_some()
    }

    /// Which broker, for a cluster of this protocol.
    ///
    /// # Errors
    /// If the protocol's clients publish nothing, or there is no server to be started.
    pub fn choose(&self, protocol: Protocol) -> anyhow::Result<Choice> {
        if self.is_given() && !protocol.certifies_reception() {
            let what = format!("the clients of `{protocol}` publish nothing that a broker could carry");
            return Err(failure(what, "leave --broker and --broker-faults out, or choose --protocol reception"));
        }
        let own = match self.broker.as_deref() {
            Some("nats") => Some(free_addresses(1)?.remove(0)),
            _ => None,
        };
        if own.is_some() && std::process::Command::new(PROGRAM).arg("--version").output().is_err() {
            let advice = "install it (on Debian: apt-get install nats-server), or name a server that runs: --broker nats://HOST:PORT";
            return Err(failure(format!("there is no {PROGRAM} to start"), advice));
        }
        let url = own.as_ref().map(|address| format!("nats://{address}")).or_else(|| self.broker.clone());
        Ok(Choice { url, faults: self.broker_faults.as_ref().map(ToString::to_string), own })
    }

    /// The same where nothing can be started.
    ///
    /// # Errors
    /// As [`BrokerArgs::choose`]; and if a server was to be started.
    pub fn choose_running(&self, protocol: Protocol) -> anyhow::Result<Choice> {
        if self.broker.as_deref() == Some("nats") {
            return Err(failure(
                "which NATS server? This command starts nothing",
                "name it: --broker nats://HOST:PORT; `quorate dev --broker nats` starts one",
            ));
        }
        self.choose(protocol)
    }
}

/// What a client publishes through.
///
/// # Errors
/// If its files name a broker that is none, or clients of its protocol publish nothing.
pub fn of_client(config: &ClusterConfig) -> anyhow::Result<impl FnOnce(LinkHandle) -> Arc<dyn Broker> + use<>> {
    refuse_useless(config.broker.as_deref().or(config.broker_faults.as_deref()), &config.protocol)?;
    let nats = config.broker.as_deref().map(|url| Nats::for_client(url, config.cluster));
    let nats =
        nats.transpose().advise("the cluster's file names no broker", "correct `broker` in it, or leave it out")?;
    let faults: Option<BrokerFaults> = config.broker_faults.as_deref().map(str::parse).transpose()?;
    let seed = config.broker_seed;
    Ok(move |links| {
        let broker: Arc<dyn Broker> = match nats {
            Some(nats) => Arc::new(nats),
            None => Arc::new(Direct::over(links)),
        };
        match faults {
            Some(faults) => Arc::new(Faulty::new(broker, faults, seed)),
            None => broker,
        }
    })
}

/// Brings a replica what its broker has for it, as long as the result lives.
///
/// # Errors
/// As [`of_client`].
pub fn of_replica(config: &ReplicaConfig, links: LinkHandle) -> anyhow::Result<JoinSet<()>> {
    let Some(url) = &config.broker else { return Ok(JoinSet::new()) };
    refuse_useless(Some(url), &config.protocol)?;
    let nats = Nats::for_replica(url, config.cluster);
    let nats = nats.advise("the replica's file names no broker", "correct `broker` in it, or leave it out")?;
    Ok(Arc::new(nats).subscribe(config.replica, Intake::of(links)))
}

fn refuse_useless(said: Option<&str>, protocol: &str) -> anyhow::Result<()> {
    let publishes = Protocol::named(protocol).is_some_and(Protocol::certifies_reception);
    if said.is_none() || publishes {
        return Ok(());
    }
    let what = format!("the file names a broker, and the clients of `{protocol}` publish nothing");
    Err(failure(what, "leave `broker` out of the cluster's files"))
}

/// A NATS server of ours, beside the replicas of a cluster's folder.
#[derive(Debug)]
pub struct NatsServer {
    /// Ends the server when we end, however we end. Before `child`: a value that is dropped has ended both, this one first.
    watcher: Option<Child>,
    /// Nothing if somebody has started it by hand.
    child: Option<Child>,
    pid_file: PathBuf,
}

/// What waits for the end of whoever holds the other end of its stdin, and then ends a process. Told something, it lets it live.
const WATCHER: &str = "read -r _ || kill -TERM \"$1\"";

/// A process that ends another one when we do: the kernel closes our end of its stdin even after kill -9. The server itself
/// reads no stdin, so somebody must do it for it; no safe call asks the kernel to do so without.
fn watcher(of: u32) -> std::io::Result<Child> {
    let mut command = Command::new("sh");
    command
        .args(["-c", WATCHER, "sh", &of.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.process_group(0).kill_on_drop(true).spawn()
}

impl Choice {
    /// Writes the configuration of the server that is to be started, if there is to be one.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_beside(&self, layout: &Layout) -> anyhow::Result<()> {
        let Some(address) = &self.own else { return Ok(()) };
        let folder = fs::canonicalize(layout.folder())?.join("broker");
        fs::create_dir_all(&folder).explain(format!("cannot create {}", folder.display()))?;
        let quoted = |path: PathBuf| toml::Value::String(path.to_string_lossy().into_owned()).to_string();
        let text = format!(
            "# The broker that `quorate dev --broker nats` starts. Nothing in it is trusted, and nothing is lost with it.\n\
             listen: \"{address}\"\npid_file: {}\njetstream {{\n  store_dir: {}\n  max_memory_store: 64MB\n  \
             max_file_store: 1GB\n}}\n",
            quoted(folder.join("pid")),
            quoted(folder.join("data"))
        );
        let file = folder.join("nats.conf");
        fs::write(&file, text).explain(format!("cannot write {}", file.display()))
    }
}

impl NatsServer {
    /// Starts the server that this folder has a configuration for, unless it runs; `None` if there is none.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(layout: &Layout, url: Option<&str>) -> anyhow::Result<Option<Self>> {
        let (folder, file) = (layout.broker(), layout.broker().join("nats.conf"));
        let Some(address) = url.and_then(|url| url.strip_prefix("nats://")).filter(|_| file.is_file()) else {
            return Ok(None);
        };
        let pid_file = folder.join("pid");
        if TcpStream::connect(address).await.is_ok() {
            return Ok(Some(Self { watcher: None, child: None, pid_file }));
        }
        let log = OpenOptions::new().create(true).append(true).open(folder.join("log"))?;
        let mut command = Command::new(PROGRAM);
        command.arg("-c").arg(&file).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.process_group(0).kill_on_drop(true).spawn();
        let advice = "install it (on Debian: apt-get install nats-server)";
        let mut child = child.advise(format!("cannot start {PROGRAM}"), advice)?;
        let watcher =
            child.id().map(watcher).transpose().explain("cannot start `sh`, which would end the broker with us")?;
        let until = Instant::now() + START_PATIENCE;
        while TcpStream::connect(address).await.is_err() {
            if child.try_wait()?.is_some() || Instant::now() > until {
                let what = format!("{PROGRAM} does not listen at {address}");
                return Err(failure(what, format!("{} says why", folder.join("log").display())));
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(Some(Self { watcher, child: Some(child), pid_file }))
    }

    /// Its process, if it is ours.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(Child::id)
    }

    /// Has it ended since we looked last?
    pub fn has_ended(&mut self) -> bool {
        let ended = self.child.as_mut().is_some_and(|child| !matches!(child.try_wait(), Ok(None)));
        if ended {
            (self.watcher, self.child) = (None, None); // its number may be another process's from now on
        }
        ended
    }

    /// How to start it by hand.
    pub fn command(layout: &Layout) -> String {
        format!("{PROGRAM} -c {}", layout.broker().join("nats.conf").display())
    }

    /// Where its number is.
    pub fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    /// Stops it, if it is ours.
    pub async fn stop(&mut self, patience: Duration) {
        let Some(child) = &mut self.child else { return };
        if let Some(pid) = child.id() {
            let _gone_already = signal(pid, Signal::TERM);
        }
        if tokio::time::timeout(patience, child.wait()).await.is_err() {
            let _gone_already = child.kill().await;
        }
        self.watcher = None;
    }
}
