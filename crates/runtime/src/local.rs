//! A whole cluster in one process, for tests and first steps: real links over loopback, real disks in a temporary folder, a
//! thread for each replica. `quorate dev` runs processes instead; the code of a replica is the same.

use crate::client::{Client, ClientError, ClientOptions, ConnectError};
use crate::config::{ClusterConfig, ConfigError, Limits, Member, ReplicaConfig, Timing, draw_cluster_id};
use crate::keys::{KeyError, KeyPair};
use crate::replica::{self, ServeError};
use bytes::Bytes;
use quorate_core::ids::{Epoch, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::Report;
use quorate_core::protocol::{Answer, Consistency, Protocol};
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// Why a local cluster could not start.
#[derive(Debug, Error)]
pub enum LocalError {
    /// A folder, port, thread or runtime was refused.
    #[error("cannot set the cluster up: {0}")]
    Io(#[from] std::io::Error),
    /// Keys.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The client.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// A replica.
    #[error(transparent)]
    Serve(#[from] ServeError),
}

/// A cluster of threads. Dropping it stops the replicas and removes the folder.
pub struct Local {
    cluster: ClusterConfig,
    key: KeyPair,
    stop: watch::Sender<bool>,
    threads: Vec<JoinHandle<()>>,
    folder: PathBuf,
}

impl Local {
    /// Starts `replicas` replicas of the machine that `machine` makes, under protocol `P`.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn start<P: Protocol, M: Machine>(
        replicas: u8,
        config: P::Config,
        machine: impl Fn() -> M + Send + Sync + 'static,
    ) -> Result<Self, LocalError> {
        let cluster = draw_cluster_id()?;
        let folder = std::env::temp_dir().join(format!("quorate-local-{:032x}", cluster.get()));
        let key = KeyPair::generate()?;
        let mut listeners = Vec::new();
        let mut members = Vec::new();
        for index in 0..replicas {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let own = KeyPair::generate()?;
            let address = listener.local_addr()?.to_string();
            members.push(Member { replica: ReplicaId::new(index), address, public_key: own.public() });
            listeners.push((listener, own));
        }
        let (stop, stopped) = watch::channel(false);
        let machine = Arc::new(machine);
        let mut local = Self {
            cluster: ClusterConfig {
                cluster,
                epoch: Epoch::ZERO,
                protocol: P::NAME.to_owned(),
                key_file: PathBuf::new(),
                members: members.clone(),
            },
            stop,
            threads: Vec::new(),
            folder: folder.clone(),
            key,
        };
        for (member, (listener, own)) in members.iter().zip(listeners) {
            let data_dir = folder.join(format!("replica-{}", member.replica.get()));
            std::fs::create_dir_all(&data_dir)?;
            let settings = ReplicaConfig {
                cluster,
                epoch: Epoch::ZERO,
                protocol: P::NAME.to_owned(),
                replica: member.replica,
                key_file: PathBuf::new(),
                data_dir,
                listen: member.address.clone(),
                clients: vec![local.key.public()],
                members: members.clone(),
                limits: Limits::default(),
                timing: Timing::default(),
            };
            replica::format(&settings)?;
            let (config, machine, stopped) = (config.clone(), machine.clone(), stopped.clone());
            let body = move || run::<P, M>(&settings, &own, listener, config, &*machine, stopped);
            local.threads.push(std::thread::Builder::new().name(format!("{}", member.replica)).spawn(body)?);
        }
        Ok(local)
    }

    /// What a client needs to know of this cluster.
    pub fn cluster(&self) -> (&ClusterConfig, &KeyPair) {
        (&self.cluster, &self.key)
    }

    /// A client that waits for its answers.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn client<P: Protocol>(&self) -> Result<BlockingClient, LocalError> {
        BlockingClient::connect::<P>(&self.cluster, &self.key, ClientOptions::default())
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        let _all_gone = self.stop.send(true);
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                eprintln!("a replica's thread panicked; its message is above");
            }
        }
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            eprintln!("cannot remove {}: {error}", self.folder.display());
        }
    }
}

fn run<P: Protocol, M: Machine>(
    settings: &ReplicaConfig,
    key: &KeyPair,
    listener: TcpListener,
    config: P::Config,
    machine: &dyn Fn() -> M,
    mut stopped: watch::Receiver<bool>,
) {
    let served = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime);
    let served = served.and_then(|runtime| {
        runtime.block_on(async {
            listener.set_nonblocking(true).map_err(ServeError::Runtime)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Runtime)?;
            let started = replica::start::<P, M>(settings, key, listener, config, machine, Box::new(|_| {}))?;
            let stop = async move { drop(stopped.wait_for(|stop| *stop).await) };
            Ok(started.host.run_until(stop).await?)
        })
    });
    if let Err(error) = served {
        eprintln!("{} stopped: {error}", settings.replica);
    }
}

/// A [`Client`] with a thread of its own, for programs without a runtime. Inside one, use [`Client`]: waiting would block it.
pub struct BlockingClient {
    client: Client,
    runtime: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl BlockingClient {
    /// Connects; see [`Client::connect`].
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn connect<P: Protocol>(
        cluster: &ClusterConfig,
        key: &KeyPair,
        options: ClientOptions,
    ) -> Result<Self, LocalError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _inside = runtime.enter();
            Client::connect::<P>(cluster, key, options)?
        };
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        let body = move || drop(runtime.block_on(stopped));
        let thread = std::thread::Builder::new().name("quorate-client".to_owned()).spawn(body)?;
        Ok(Self { client, runtime: handle, stop: Some(stop), thread: Some(thread) })
    }

    /// Applies an operation, exactly once, and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`]; it says whether the operation may have been applied.
    pub fn apply(&self, operation: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.runtime.block_on(self.client.apply(operation))
    }

    /// Asks a query and waits for the answer.
    ///
    /// # Errors
    /// [`ClientError`].
    pub fn read(&self, consistency: Consistency, query: impl Into<Bytes>) -> Result<Answer, ClientError> {
        self.runtime.block_on(self.client.read(consistency, query))
    }

    /// Asks one replica how it is; `None` if it does not say within `patience`.
    pub fn status(&self, replica: ReplicaId, patience: Duration) -> Option<Report> {
        self.runtime.block_on(self.client.status(replica, patience))
    }

    /// The client inside, for many calls at once.
    pub fn inner(&self) -> &Client {
        &self.client
    }
}

impl Drop for BlockingClient {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join(); // it cannot panic, and if it did there is nothing left to do
        }
    }
}
