//! `quorate gateway`: the etcd API in front of a cluster, as a process of its own. `dev` and `serve` offer the same inside.

use crate::cluster::running_file;
use crate::errors::{Advise, failure};
use crate::processes::stdin_closes;
use crate::served::{Machine, Protocol, with_protocol};
use clap::Args;
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use quorate_server::listen::{self, ListenError};
use quorate_server::{Gateway, GatewayConfig, GatewayError, Options};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where etcd's clients look if nobody tells them.
pub const ETCD_ADDRESS: &str = "127.0.0.1:2379";

/// Offer the etcd v3 API in front of a cluster: etcdctl and etcd's clients talk to it
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate gateway --cluster cluster/cluster.toml --listen 127.0.0.1:2379
  quorate gateway --config gateway.toml
  etcdctl --endpoints 127.0.0.1:2379 put greeting hello

A gateway keeps nothing: stop it, start it elsewhere, run several. gateway.toml, beyond loopback:
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
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = ETCD_ADDRESS)]
    listen: String,
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
            let listener = bind(&arguments.listen, "--listen").await?;
            let named = arguments.cluster.or_else(|| std::env::var_os("QUORATE_CLUSTER").map(PathBuf::from));
            start(&named.map_or_else(running_file, Ok)?, listener, Options::default())?
        }
    };
    println!("ready: the etcd v3 API at {}, process {}", gateway.url(), std::process::id());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        () = stdin_closes(), if arguments.until_stdin_closes => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// The gateway that a `gateway.toml` describes.
///
/// # Errors
/// Why it cannot serve.
pub async fn from_file(file: &Path) -> anyhow::Result<Gateway> {
    let config = GatewayConfig::load(file).explain("the gateway cannot start")?;
    let listener = bind(&config.listen, "`listen` in its file").await?;
    start(&config.cluster, listener, config.options())
}

/// Listens for etcd's clients. `how` names what chooses the address.
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
pub fn start(cluster_file: &Path, listener: TcpListener, options: Options) -> anyhow::Result<Gateway> {
    let config = ClusterConfig::load(cluster_file)?;
    if let Some(problem) = config.check().into_iter().find(|problem| !problem.is_warning()) {
        return Err(problem).explain(format!("{} contradicts itself", cluster_file.display()));
    }
    if Machine::of(&config.machine) != Some(Machine::Kv) {
        let what =
            format!("{}: etcd's API needs a key-value store, this is `{}`", cluster_file.display(), config.machine);
        return Err(failure(what, "name a cluster that was made without --events"));
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
        return Err(failure(what, "use `quorate kv`, or a cluster of another protocol: see quorate init --help"));
    }
    let started = with_protocol!(protocol, P => Gateway::start::<P>(&config, &key, listener, options));
    started.map_err(|error| match error {
        GatewayError::Listen(error @ ListenError::Unprotected { .. }) => {
            failure(error.to_string(), "quorate gateway --help shows such a file")
        }
        other => other.into(),
    })
}
