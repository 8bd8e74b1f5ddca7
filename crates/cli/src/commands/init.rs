//! `quorate init`: keys and files for a real deployment.

use super::{Machine, Protocol};
use crate::brokers::BrokerArgs;
use crate::errors::failure;
use crate::layout::{Layout, free_addresses};
use clap::Args;
use quorate_core::ids::ReplicaId;
use std::path::PathBuf;
use std::process::ExitCode;

/// Write keys and one configuration file per replica, for a real deployment
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate init --dir cluster --addresses 10.0.0.1:7000,10.0.0.2:7000,10.0.0.3:7000

Then copy cluster/replica-N to machine N and start it there with `quorate serve --config replica-N/replica.toml`. Clients
need cluster/cluster.toml and cluster/client.key. The links are encrypted; whoever has a key file can speak in its name.")]
pub struct Arguments {
    /// The replication protocol
    #[arg(long, value_enum, default_value_t)]
    protocol: Protocol,
    /// Replicate an event store instead of the key-value store
    #[arg(long)]
    events: bool,
    /// With reception: how many of the 3e + 1 replicas that certify a publication may lie (e); without it, as many as the cluster
    /// bears
    #[arg(long, value_name = "E")]
    criticality: Option<u8>,
    #[command(flatten)]
    broker: BrokerArgs,
    /// How many replicas; without it, as few as survive the loss of one: 3 with vr and sync-tob, 4 with the others
    #[arg(long)]
    replicas: Option<usize>,
    /// The folder to make
    #[arg(long)]
    dir: PathBuf,
    /// Where the replicas will listen, host:port each; without it, free ports of this machine
    #[arg(long, value_delimiter = ',')]
    addresses: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the folder is not empty or cannot be written, or the addresses are not as many as the replicas.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let given = arguments.addresses.len();
    let replicas = arguments.replicas.unwrap_or(if given == 0 { arguments.protocol.replicas() } else { given });
    if given != 0 && given != replicas {
        let what = format!("{replicas} replicas were asked for, but {given} addresses were given");
        return Err(failure(what, "give one address for each replica"));
    }
    let addresses = if given == 0 { free_addresses(replicas)? } else { arguments.addresses.clone() };
    let machine = if arguments.events { Machine::Events } else { Machine::Kv };
    let (dir, protocol, level) = (&arguments.dir, arguments.protocol.name(), arguments.criticality);
    let broker = arguments.broker.choose_running(arguments.protocol)?;
    let layout = Layout::create(dir, protocol, machine, level, &broker, &addresses)?;
    if let Some(warning) = arguments.protocol.warns(replicas) {
        eprintln!("warning: {warning}");
    }
    if arguments.protocol.tosses() {
        println!(
            "the coins: this command was their trusted dealer. Whoever watched it, or reads one more of the files replica.coin \
             than replicas may lie, knows all coins in advance"
        );
    }
    for (index, address) in (0_u8..).zip(&addresses) {
        let config = layout.replica(ReplicaId::new(index)).config_file();
        println!("replica {index} at {address}: quorate serve --config {}", config.display());
    }
    println!("clients: --cluster {}", layout.cluster_file().display());
    Ok(ExitCode::SUCCESS)
}
