//! `quorate gateway`: a public interface in front of a cluster, as a process of its own: the etcd API for a key-value store, HTTP for
//! an event store. `dev` and `serve` offer the same inside.

use crate::cluster::{Connection, running_file};
use crate::errors::{Advise, failure};
use crate::processes::stdin_closes;
use crate::served::{Machine, Protocol, with_protocol};
use clap::Args;
use quorate::events::EventStore;
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use quorate_server::events::limits::CALL_PATIENCE;
use quorate_server::listen::{self, ListenError};
use quorate_server::{EventsGateway, Gateway, GatewayConfig, GatewayError, Options};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where etcd's clients look if nobody tells them.
pub const ETCD_ADDRESS: &str = "127.0.0.1:2379";
/// Where an event store is offered if nobody says otherwise.
pub const EVENTS_ADDRESS: &str = "127.0.0.1:2381";

/// Offer a public interface in front of a cluster: the etcd v3 API, or HTTP for an event store
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate gateway --cluster cluster/cluster.toml --listen 127.0.0.1:2379
  quorate gateway --config gateway.toml
  etcdctl --endpoints 127.0.0.1:2379 put greeting hello
  quorate gateway --cluster events/cluster.toml        an event store: see docs/events-http.md
  curl 127.0.0.1:2381/v1/all

What is offered is what the cluster replicates: etcd's API for a key-value store, HTTP, JSON and server-sent events for an event
store. A gateway keeps nothing: stop it, start it elsewhere, run several. gateway.toml, beyond loopback:
  cluster = \"cluster.toml\"
  listen = \"0.0.0.0:2379\"
  advertise = \"https://db.example.org:2379\"
  cert_file = \"gateway.crt\"
  key_file = \"gateway.key\"
  client_ca_file = \"clients-ca.crt\"
  token_seconds = 86400                # how long a user's login holds, if there are users")]
pub struct Arguments {
    /// The cluster's file; without it QUORATE_CLUSTER, or the `quorate dev` that is running
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The gateway's file, instead of --cluster and --listen; needed beyond loopback, for certificates
    #[arg(long, value_name = "FILE", conflicts_with_all = ["cluster", "listen"])]
    config: Option<PathBuf>,
    /// Where to listen; without it 127.0.0.1:2379, or 127.0.0.1:2381 for an event store
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Stop when stdin closes: how `bench` makes sure that its gateway ends with it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it cannot serve.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let gateway = match &arguments.config {
        Some(file) => from_file(file).await?,
        None => {
            let named = arguments.cluster.or_else(|| std::env::var_os("QUORATE_CLUSTER").map(PathBuf::from));
            let cluster = named.map_or_else(running_file, Ok)?;
            let usual = match Machine::of(&ClusterConfig::load(&cluster)?.machine) {
                Some(Machine::Events) => EVENTS_ADDRESS,
                _ => ETCD_ADDRESS,
            };
            let listener = bind(arguments.listen.as_deref().unwrap_or(usual), "--listen").await?;
            start(&cluster, listener, Options::default())?
        }
    };
    println!("ready: {} at {}, process {}", gateway.words(), gateway.url(), std::process::id());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closes(), if arguments.until_stdin_closes => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// A gateway that serves; dropping it ends that.
#[derive(Debug)]
pub enum Offered {
    /// A key-value store.
    Etcd(Gateway),
    /// An event store.
    Events(EventsGateway),
}

impl Offered {
    /// What it offers.
    pub fn words(&self) -> &'static str {
        match self {
            Offered::Etcd(_) => "the etcd v3 API",
            Offered::Events(_) => "the event store over HTTP",
        }
    }

    /// Where clients are told to connect.
    pub fn url(&self) -> &str {
        match self {
            Offered::Etcd(gateway) => gateway.url(),
            Offered::Events(gateway) => gateway.url(),
        }
    }
}

/// The gateway that a `gateway.toml` describes.
///
/// # Errors
/// Why it cannot serve.
pub async fn from_file(file: &Path) -> anyhow::Result<Offered> {
    let config = GatewayConfig::load(file).explain("the gateway cannot start")?;
    let listener = bind(&config.listen, "`listen` in its file").await?;
    start(&config.cluster, listener, config.options())
}

/// Listens for clients. `how` names what chooses the address.
///
/// # Errors
/// If somebody else does, or it is no address.
pub async fn bind(address: &str, how: &str) -> anyhow::Result<TcpListener> {
    let advice = |error: &ListenError| match error {
        ListenError::InUse { .. } => {
            format!("stop that program, or choose another address with {how} (port 0: a free one)")
        }
        _ => format!("correct {how}"),
    };
    match listen::bind(address).await {
        Ok(listener) => Ok(listener),
        Err(error) => {
            let advice = advice(&error);
            Err(failure(error.to_string(), advice))
        }
    }
}

/// Starts a gateway to the cluster that `cluster_file` describes.
///
/// # Errors
/// Why it cannot serve.
pub fn start(cluster_file: &Path, listener: TcpListener, options: Options) -> anyhow::Result<Offered> {
    let config = ClusterConfig::load(cluster_file)?;
    if let Some(problem) = config.check().into_iter().find(|problem| !problem.is_warning()) {
        return Err(problem).explain(format!("{} contradicts itself", cluster_file.display()));
    }
    match Machine::of(&config.machine) {
        Some(Machine::Kv) => {}
        Some(Machine::Events) => {
            let connection = Connection::open(cluster_file, CALL_PATIENCE)?;
            let store = EventStore::over(connection.client.clone(), connection.another()?.client);
            let started = EventsGateway::start(store, listener, &options);
            return started.map(Offered::Events).map_err(explained);
        }
        None => {
            let what =
                format!("{}: this release does not know the machine `{}`", cluster_file.display(), config.machine);
            return Err(failure(what, "use the release that the replicas run"));
        }
    }
    let key = KeyPair::load(&config.key_file)?.key;
    let Some(protocol) = Protocol::named(&config.protocol) else {
        let (file, other) = (cluster_file.display(), &config.protocol);
        let what = format!("{file}: this release has no client for the protocol `{other}`");
        return Err(failure(what, "use the release that the replicas run"));
    };
    if !protocol.has_one_order() {
        let what = format!(
            "etcd's API needs one order of all keys, for its revisions, watches and leases; `{protocol}` has none"
        );
        return Err(failure(what, "use `quorate kv`, or make a cluster with quorate init --protocol hq-total"));
    }
    let started = with_protocol!(protocol, P => Gateway::start::<P>(&config, &key, listener, options));
    started.map(Offered::Etcd).map_err(|error| match error {
        GatewayError::Listen(error) => explained(error),
        other @ GatewayError::Connect(_) => other.into(),
    })
}

fn explained(error: ListenError) -> anyhow::Error {
    match error {
        ListenError::Unprotected { .. } => failure(error.to_string(), "quorate gateway --help shows such a file"),
        other => other.into(),
    }
}
