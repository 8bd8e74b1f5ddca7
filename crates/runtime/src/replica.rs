//! From a `replica.toml` to a running replica: the folder is checked, what it holds is restored, the host starts.

use crate::coin;
use crate::config::ReplicaConfig;
use crate::host::{Host, HostError, Notes};
use crate::keys::{KeyError, KeyPair, random};
use crate::link::{LinkError, Links, Pace};
use quorate_core::crypto::{Keyring, KeyringError};
use quorate_core::ids::RecordSeq;
use quorate_core::machine::Machine;
use quorate_core::node::Identity;
use quorate_core::protocol::Protocol;
use quorate_store::replica::{Belongs, FolderError};
use quorate_store::{Disk, DiskError, FolderLock, RealDisk};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use tokio::net::TcpListener;

/// Why a replica does not run.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Its folder.
    #[error("{}: {source}", folder.display())]
    Folder {
        /// Which.
        folder: PathBuf,
        /// What is wrong with it.
        source: Box<FolderError>,
    },
    /// The system's randomness.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The keys of its group.
    #[error(transparent)]
    Keyring(#[from] KeyringError),
    /// Its disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Its links.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It stopped by itself.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The configuration names another protocol than this program was asked to run.
    #[error("the configuration says protocol `{found}`, this program was asked to run `{expected}`")]
    OtherProtocol {
        /// What the configuration says.
        found: String,
        /// What was asked for.
        expected: &'static str,
    },
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
    let log_id = u128::from_le_bytes(random()?);
    quorate_store::replica::format(&disk, &belongs(config), log_id).map_err(in_folder(&config.data_dir))
}

/// Is there a replica, readable or not, in this data folder?
///
/// # Errors
/// What the disk says.
pub fn is_formatted(data_dir: &Path) -> Result<bool, ServeError> {
    Ok(quorate_store::replica::is_formatted(&RealDisk::open(data_dir)?)?)
}

/// The records that a replica's log holds, and how many numbers of records cannot be read. Reads the whole log, changes nothing,
/// and takes no lock: the replica may be running, and then what it writes meanwhile is there or not.
///
/// # Errors
/// [`ServeError::Folder`] if there is no replica of protocol `P` in the folder, or a record was written by another release.
#[expect(clippy::type_complexity, reason = "records with their numbers, and a count")]
pub fn read_log<P: Protocol>(data_dir: &Path) -> Result<(Vec<(RecordSeq, P::Record)>, u64), ServeError> {
    let folder = in_folder(data_dir);
    let (belongs, records, damaged) = quorate_store::look_at_log::<P>(&RealDisk::open(data_dir)?).map_err(&folder)?;
    if belongs.protocol != P::NAME {
        return Err(ServeError::OtherProtocol { found: belongs.protocol, expected: P::NAME });
    }
    Ok((records, damaged))
}

/// A replica that is about to run.
pub struct Started<P: Protocol> {
    /// The replica.
    pub host: Host<P>,
    /// What was found damaged, torn or repaired on its disk: sentences for people.
    pub findings: Vec<String>,
}

/// Starts a replica from its folder, on the runtime that this is called in. `machine` makes a machine in its first state.
///
/// # Errors
/// [`ServeError`], whose text says what to do.
pub fn start<P: Protocol, M: Machine>(
    config: &ReplicaConfig,
    key: &KeyPair,
    listener: TcpListener,
    protocol: P::Config,
    machine: &dyn Fn() -> M,
    notes: Notes,
) -> Result<Started<P>, ServeError> {
    let disk = RealDisk::open(&config.data_dir)?;
    let lock = disk.lock()?;
    start_on(disk, lock, config, key, listener, protocol, machine, notes)
}

/// Like [`start`], from any disk.
#[allow(clippy::too_many_arguments, reason = "one caller above, the others are tests")]
pub fn start_on<P: Protocol, M: Machine, D: Disk>(
    disk: D,
    lock: FolderLock,
    config: &ReplicaConfig,
    key: &KeyPair,
    listener: TcpListener,
    protocol: P::Config,
    machine: &dyn Fn() -> M,
    notes: Notes,
) -> Result<Started<P>, ServeError> {
    if config.protocol != P::NAME {
        return Err(ServeError::OtherProtocol { found: config.protocol.clone(), expected: P::NAME });
    }
    let folder = in_folder(&config.data_dir);
    let mut opened = quorate_store::replica::open(disk, &belongs(config), machine).map_err(&folder)?;
    let restore = opened.restore::<P>(config.members.len(), protocol).map_err(&folder)?;
    let findings = std::mem::take(&mut opened.findings);
    let identity = Identity { cluster: config.cluster, epoch: config.epoch, replica: config.replica };
    let links = Links::start(config, key, listener, Pace::default())?;
    let keyring = Arc::new(keyring::<P>(config, key)?);
    let host = Host::start(identity, keyring, opened, restore, links, lock, notes)?;
    Ok(Started { host, findings })
}

/// The keys of a replica whose protocol signs; none for others.
fn keyring<P: Protocol>(config: &ReplicaConfig, key: &KeyPair) -> Result<Keyring, ServeError> {
    if !P::SIGNS {
        return Ok(Keyring::keyless(config.cluster, config.epoch));
    }
    let replicas: Vec<_> = config.members.iter().map(|member| member.public_key.for_statements()).collect();
    let clients: Vec<_> = config.clients.iter().map(|key| key.for_statements()).collect();
    let keyring = Keyring::ed25519(config.cluster, config.epoch, &replicas, &clients)?;
    let keyring = keyring.of_replica(config.replica, key.secret()?)?;
    if !P::TOSSES {
        return Ok(keyring);
    }
    Ok(keyring.with_coin(&coin::load(&coin::file_beside(&config.key_file))?)?)
}

fn in_folder(folder: &Path) -> impl Fn(FolderError) -> ServeError {
    move |source| ServeError::Folder { folder: folder.to_owned(), source: Box::new(source) }
}
