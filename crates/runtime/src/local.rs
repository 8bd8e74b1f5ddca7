//! A whole cluster in one process, for tests and first steps: real links over loopback, real disks in a temporary folder, a
//! thread for each replica. `quorate dev` runs processes instead; the code of a replica is the same.

use crate::apart::Relays;
use crate::broker::{Broker, Direct, Intake};
use crate::client::{Client, ClientError, ClientOptions, ConnectError};
use crate::coin;
use crate::config::{ClusterConfig, ConfigError, Limits, Member, ReplicaConfig, Timing, draw_cluster_id};
use crate::host::Cue;
use crate::keys::{KeyError, KeyPair};
use crate::link::LinkHandle;
use crate::replica::{self, ServeError};
use bytes::Bytes;
use quorate_core::ids::{Epoch, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::Report;
use quorate_core::objects::Touches;
use quorate_core::outbox::Note;
use quorate_core::protocol::{Answer, Consistency, Protocol};
use quorate_store::{DiskError, FolderLock, RealDisk};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};

/// How often, and how long apart, a replica that starts again asks for a folder that its former life has not left.
const LOCK_ATTEMPTS: u32 = 400;
const LOCK_PAUSE: Duration = Duration::from_millis(5);

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
    touches: Touches,
    replicas: Vec<Place>,
    run: Arc<Run>,
    folder: PathBuf,
    broker: Option<Arc<dyn Broker>>,
    /// Between replicas that are far apart.
    relays: Option<Relays>,
}

/// Runs a replica until it is told to end.
type Run = dyn Fn(&Seat, TcpListener, watch::Receiver<Ending>) -> Result<(), ServeError> + Send + Sync;

struct Seat {
    settings: ReplicaConfig,
    key: KeyPair,
    cue: Cue,
    broker: Option<Arc<dyn Broker>>,
}

struct Place {
    seat: Arc<Seat>,
    running: Option<(watch::Sender<Ending>, JoinHandle<()>)>,
}

/// How a replica is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    NotYet,
    InOrder,
    AsInACrash,
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
    ) -> Result<Self, LocalError>
    where
        P::Config: Sync,
    {
        Self::begin::<P, M>(replicas, config, machine, None, None)
    }

    /// As [`Local::start`], with replicas that are far apart: what one of them sends another takes `one_way` longer, to a
    /// millisecond. Clients are beside each of them. Nothing else of a wide area is imitated: no loss, no limit of the rate.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn start_apart<P: Protocol, M: Machine>(
        replicas: u8,
        config: P::Config,
        machine: impl Fn() -> M + Send + Sync + 'static,
        one_way: Duration,
    ) -> Result<Self, LocalError>
    where
        P::Config: Sync,
    {
        Self::begin::<P, M>(replicas, config, machine, None, Some(one_way))
    }

    /// As [`Local::start`]; clients publish through this broker, if there is one and the protocol's clients publish.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn start_with<P: Protocol, M: Machine>(
        replicas: u8,
        config: P::Config,
        machine: impl Fn() -> M + Send + Sync + 'static,
        broker: Option<Arc<dyn Broker>>,
    ) -> Result<Self, LocalError>
    where
        P::Config: Sync,
    {
        Self::begin::<P, M>(replicas, config, machine, broker, None)
    }

    fn begin<P: Protocol, M: Machine>(
        replicas: u8,
        config: P::Config,
        machine: impl Fn() -> M + Send + Sync + 'static,
        broker: Option<Arc<dyn Broker>>,
        one_way: Option<Duration>,
    ) -> Result<Self, LocalError>
    where
        P::Config: Sync,
    {
        let cluster = draw_cluster_id()?;
        let folder = std::env::temp_dir().join(format!("quorate-local-{:032x}", cluster.get()));
        let key = KeyPair::generate()?;
        let run = move |seat: &Seat, listener, ending| run::<P, M>(seat, listener, config.clone(), &machine, ending);
        let mut local = Self {
            cluster: ClusterConfig {
                cluster,
                epoch: Epoch::ZERO,
                protocol: P::NAME.to_owned(),
                machine: "own".to_owned(),
                key_file: PathBuf::new(),
                broker: None,
                broker_faults: None,
                broker_seed: 0,
                members: Vec::new(),
            },
            key,
            touches: Touches::of::<M>(),
            replicas: Vec::new(),
            run: Arc::new(run),
            folder,
            broker,
            relays: None,
        };
        local.set_up(replicas, P::TOSSES, one_way)?;
        Ok(local)
    }

    /// Draws keys and ports, makes folders, starts everybody.
    fn set_up(&mut self, replicas: u8, tosses: bool, one_way: Option<Duration>) -> Result<(), LocalError> {
        let coins = if tosses { coin::deal(usize::from(replicas))? } else { Vec::new() };
        let (mut drawn, mut places) = (Vec::new(), Vec::new());
        for replica in (0..replicas).map(ReplicaId::new) {
            let (listener, key) = (TcpListener::bind("127.0.0.1:0")?, KeyPair::generate()?);
            let address = listener.local_addr()?;
            places.push((replica, address));
            self.cluster.members.push(Member { replica, address: address.to_string(), public_key: key.public() });
            drawn.push((listener, key));
        }
        self.relays = one_way.map(|one_way| Relays::start(&places, one_way)).transpose()?;
        for (member, (listener, key)) in self.cluster.members.iter().zip(drawn) {
            let settings = ReplicaConfig {
                cluster: self.cluster.cluster,
                epoch: self.cluster.epoch,
                protocol: self.cluster.protocol.clone(),
                machine: self.cluster.machine.clone(),
                replica: member.replica,
                key_file: self.folder.join(format!("replica-{}.key", member.replica.get())), // only its name is used
                data_dir: self.folder.join(format!("replica-{}", member.replica.get())),
                listen: member.address.clone(),
                clients: vec![self.key.public()],
                members: self.members_as_seen_by(member.replica),
                criticality: None,
                tentative_requests: None,
                broker: None,
                limits: Limits::default(),
                timing: Timing::on_one_machine(),
            };
            replica::format(&settings)?;
            if let Some(keys) = coins.get(member.replica.index()) {
                coin::save(keys, &coin::file_beside(&settings.key_file))?;
            }
            let seat = Arc::new(Seat { settings, key, cue: Cue::default(), broker: self.broker.clone() });
            let running = Some(spawn(&self.run, &seat, listener)?);
            self.replicas.push(Place { seat, running });
        }
        Ok(())
    }

    /// Who is where, for a replica: the others are at the near ends of their relays, if there are any.
    fn members_as_seen_by(&self, replica: ReplicaId) -> Vec<Member> {
        let relay = |to| self.relays.as_ref().and_then(|relays| relays.address(replica, to));
        let near = |member: &Member| {
            let address = relay(member.replica).map_or_else(|| member.address.clone(), |it: SocketAddr| it.to_string());
            Member { address, ..member.clone() }
        };
        self.cluster.members.iter().map(near).collect()
    }

    /// Ends a replica as a crash of its process would: what it has not synced is gone. Does nothing if it does not run.
    pub fn crash(&mut self, replica: ReplicaId) {
        if let Some(place) = self.replicas.get_mut(replica.index()) {
            place.end(Ending::AsInACrash);
        }
    }

    /// Starts a replica that crashed, from its disk. Does nothing if it runs.
    ///
    /// # Errors
    /// [`LocalError::Io`] if its port is taken, or a thread is refused.
    pub fn restart(&mut self, replica: ReplicaId) -> Result<(), LocalError> {
        if let Some(place) = self.replicas.get_mut(replica.index()).filter(|place| place.running.is_none()) {
            let listener = TcpListener::bind(&place.seat.settings.listen)?;
            place.running = Some(spawn(&self.run, &place.seat, listener)?);
        }
        Ok(())
    }

    /// Tells a replica to propose now: see [`Cue`]. Does nothing if it does not run.
    pub fn propose(&self, replica: ReplicaId) {
        if let Some(place) = self.replicas.get(replica.index()).filter(|place| place.running.is_some()) {
            place.seat.cue.propose();
        }
    }

    /// The folder of a replica's data, to look at: running or not. `None` if there is no such replica.
    pub fn data_dir(&self, replica: ReplicaId) -> Option<&Path> {
        self.replicas.get(replica.index()).map(|place| place.seat.settings.data_dir.as_path())
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
        let options = ClientOptions { touches: Some(self.touches), ..ClientOptions::default() };
        let broker = self.broker.clone();
        BlockingClient::connect_through::<P>(&self.cluster, &self.key, options, |links| {
            broker.unwrap_or_else(|| Arc::new(Direct::over(links)))
        })
    }
}

impl Drop for Local {
    fn drop(&mut self) {
        for (ending, _) in self.replicas.iter().filter_map(|place| place.running.as_ref()) {
            ending.send_replace(Ending::InOrder); // all at once, then wait for each
        }
        for place in &mut self.replicas {
            place.end(Ending::InOrder);
        }
        match std::fs::remove_dir_all(&self.folder) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                eprintln!("cannot remove {}: {error}", self.folder.display());
            }
            _ => {}
        }
    }
}

impl Place {
    fn end(&mut self, how: Ending) {
        if let Some((ending, thread)) = self.running.take() {
            ending.send_replace(how);
            if thread.join().is_err() {
                eprintln!("the thread of {} panicked; its message is above", self.seat.settings.replica);
            }
        }
    }
}

fn spawn(
    run: &Arc<Run>,
    seat: &Arc<Seat>,
    listener: TcpListener,
) -> std::io::Result<(watch::Sender<Ending>, JoinHandle<()>)> {
    let (ending, ended) = watch::channel(Ending::NotYet);
    let (run, seat) = (run.clone(), seat.clone());
    let name = seat.settings.replica.to_string();
    let body = move || {
        if let Err(error) = run(&seat, listener, ended) {
            eprintln!("{} stopped: {error}", seat.settings.replica);
        }
    };
    let thread = std::thread::Builder::new().name(name).spawn(body)?;
    Ok((ending, thread))
}

fn run<P: Protocol, M: Machine>(
    seat: &Seat,
    listener: TcpListener,
    config: P::Config,
    machine: &dyn Fn() -> M,
    mut ending: watch::Receiver<Ending>,
) -> Result<(), ServeError> {
    let Seat { settings, key, cue, broker } = seat;
    let disk = RealDisk::open(&settings.data_dir)?;
    let lock = lock_soon(&disk)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(ServeError::Runtime)?;
    runtime.block_on(async {
        listener.set_nonblocking(true).map_err(ServeError::Runtime)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(ServeError::Runtime)?;
        let notes = Box::new(|_: &Note| {});
        let started = replica::start_on::<P, M, _>(disk, lock, settings, key, listener, config, machine, notes)?;
        let intake = Intake::of(started.host.links());
        let _brought = broker.as_ref().map(|broker| broker.clone().subscribe(settings.replica, intake));
        let mut crashing = ending.clone();
        let stop = async move { drop(ending.wait_for(|it| *it == Ending::InOrder).await) };
        tokio::select! {
            stopped = started.host.cued_by(cue).run_until(stop) => Ok(stopped?),
            _ = crashing.wait_for(|it| *it == Ending::AsInACrash) => Ok(()),
        }
    })
}

/// Locks a folder that another life of the same replica may be about to leave.
fn lock_soon(disk: &RealDisk) -> Result<FolderLock, DiskError> {
    for _ in 0..LOCK_ATTEMPTS {
        match disk.lock() {
            Err(error) if error.kind == ErrorKind::AlreadyExists => std::thread::sleep(LOCK_PAUSE),
            other => return other,
        }
    }
    disk.lock()
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
        Self::connect_through::<P>(cluster, key, options, |links| Arc::new(Direct::over(links)))
    }

    /// Connects through a broker; see [`Client::connect_through`].
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn connect_through<P: Protocol>(
        cluster: &ClusterConfig,
        key: &KeyPair,
        options: ClientOptions,
        broker: impl FnOnce(LinkHandle) -> Arc<dyn Broker>,
    ) -> Result<Self, LocalError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = {
            let _inside = runtime.enter();
            Client::connect_through::<P>(cluster, key, options, broker)?
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
