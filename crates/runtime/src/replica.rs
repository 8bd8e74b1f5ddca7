//! From a `replica.toml` to a running replica: the folder is checked, what it holds is restored, the host starts.

use crate::config::ReplicaConfig;
use crate::host::{Host, HostError};
use crate::keys::KeyPair;
use crate::link::{LinkError, Links, Pace};
use quorate_core::machine::Machine;
use quorate_core::node::Identity;
use quorate_core::outbox::Note;
use quorate_core::protocol::Protocol;
use quorate_store::replica::{Belongs, FolderError};
use quorate_store::{DiskError, RealDisk};
use std::path::Path;
use thiserror::Error;
use tokio::net::TcpListener;

/// Why a replica does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its links.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It stopped by itself.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The operating system refused a runtime or a socket.
    #[error("the operating system refused: {0}")]
    Runtime(std::io::Error),
}

/// What a replica's folder says about whose it is.
pub fn belongs(config: &ReplicaConfig) -> Belongs {
    Belongs {
        cluster: config.cluster,
        epoch: config.epoch,
        replica: config.replica,
        replicas: u8::try_from(config.members.len()).unwrap_or(u8::MAX),
        protocol: config.protocol.clone(),
    }
}

/// Makes the data folder of a new replica. Never called for a folder that may have held one: see [`FolderError`].
///
/// # Errors
/// [`ServeError::Folder`] if there is a replica in it already.
pub fn format(config: &ReplicaConfig) -> Result<(), ServeError> {
    let disk = RealDisk::open(&config.data_dir)?;
    let _lock = disk.lock()?;
    quorate_store::replica::format(&disk, &belongs(config))?;
    Ok(())
}

/// Is there a replica, readable or not, in this data folder?
///
/// # Errors
/// What the disk says.
pub fn is_formatted(data_dir: &Path) -> Result<bool, ServeError> {
    Ok(quorate_store::replica::is_formatted(&RealDisk::open(data_dir)?)?)
}

/// Starts a replica from its folder, on the runtime that this is called in.
///
/// # Errors
/// [`ServeError`], whose text says what to do.
pub fn start<P: Protocol, M: Machine>(
    config: &ReplicaConfig,
    key: &KeyPair,
    listener: TcpListener,
    protocol: P::Config,
    machine: &dyn Fn() -> M,
    notes: fn(&Note),
) -> Result<Host<P>, ServeError> {
    let disk = RealDisk::open(&config.data_dir)?;
    let lock = disk.lock()?;
    let opened = quorate_store::replica::open(disk, &belongs(config), machine)?;
    for finding in &opened.findings {
        eprintln!("{}: {finding}", config.replica);
    }
    let (opened, restore) = opened.into_parts::<P>(config.members.len(), protocol)?;
    let identity = Identity { cluster: config.cluster, epoch: config.epoch, replica: config.replica };
    let links = Links::start(config, key, listener, Pace::default())?;
    Ok(Host::start(identity, opened, restore, links, lock, notes)?)
}
