//! `quorate dashboard`: a page that shows a cluster while it runs. `dev` offers the same, with buttons.

use super::dev::Controls;
use super::gateway;
use crate::cluster::{Connection, running_file};
use crate::errors::failure;
use crate::watching;
use clap::Args;
use quorate_core::ids::ReplicaId;
use quorate_server::dashboard::{Dashboard, Lies, Look, Order, Process, Source};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Where a dashboard is shown if nobody says otherwise.
pub const DASHBOARD_ADDRESS: &str = "127.0.0.1:2380";
/// How long a call of the page may take; its pages give up earlier.
const PATIENCE: Duration = Duration::from_secs(7);

/// Show a cluster while it runs, in a browser
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate dashboard
  quorate dashboard --cluster cluster/cluster.toml --listen 127.0.0.1:8080

It asks the replicas only while somebody looks. Beyond loopback (--listen 0.0.0.0:2380) it shows how the replicas are, and
neither keys nor events, since it asks nobody for a password; reach a far one through ssh instead:
  ssh -L 2380:127.0.0.1:2380 db.example.org")]
pub struct Arguments {
    /// The cluster's file; without it QUORATE_CLUSTER, or the `quorate dev` that is running
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Where to listen
    #[arg(long, value_name = "ADDRESS", default_value = DASHBOARD_ADDRESS)]
    listen: String,
}

/// Runs the command.
///
/// # Errors
/// Why it cannot be shown.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = gateway::bind(&arguments.listen, "--listen").await?;
    let named = arguments.cluster.or_else(|| std::env::var_os("QUORATE_CLUSTER").map(PathBuf::from));
    let dashboard = start(&named.map_or_else(running_file, Ok)?, listener, None)?;
    println!("ready: the dashboard at {}, process {}", dashboard.url(), std::process::id());
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts a dashboard of the cluster that `cluster_file` describes; with buttons, if there are controls.
///
/// # Errors
/// Why it cannot be shown.
pub fn start(cluster_file: &Path, listener: TcpListener, controls: Option<Controls>) -> anyhow::Result<Dashboard> {
    let connection = Connection::open(cluster_file, PATIENCE)?;
    let client = connection.client.clone();
    Dashboard::start(Shown { connection, controls }, client, listener)
        .map_err(|error| failure(error.to_string(), "choose another address"))
}

struct Shown {
    connection: Connection,
    controls: Option<Controls>,
}

impl Source for Shown {
    async fn look(&self) -> Look {
        let process = |replica| self.controls.as_ref().map_or(Process::Unknown, |it| it.process(replica));
        let lies = self.controls.as_ref().map_or(Lies::Unspoken, Controls::lies);
        Look { lies, ..watching::look(&self.connection, process).await }
    }

    fn has_controls(&self) -> bool {
        self.controls.is_some()
    }

    async fn act(&self, replica: ReplicaId, order: Order) -> Result<String, String> {
        match &self.controls {
            Some(controls) => controls.order(replica, order).await,
            None => Err("there are no controls here".to_owned()),
        }
    }
}
