//! Clusters of real hosts in one process: real sockets on loopback, real disks in a temporary folder.

pub mod disk;
pub mod echo;

use crate::common::{self, Seat, soon};
use borsh::{BorshDeserialize, BorshSerialize};
use disk::{Gate, Gated};
use echo::{Config, Echo};
use quorate_core::ids::ReplicaId;
use quorate_core::machine::{At, Output};
use quorate_core::outbox::Note;
use quorate_core::small::Small;
use quorate_runtime::client::{Client, ClientOptions};
use quorate_runtime::host::HostError;
use quorate_runtime::keys::KeyPair;
use quorate_runtime::link::listen;
use quorate_runtime::replica::{self, ServeError};
use quorate_store::RealDisk;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Stops the machines that hold it, while a test wants it to.
#[derive(Clone, Debug, Default)]
pub struct Brake(Arc<(Mutex<(bool, usize)>, Condvar)>);

impl Brake {
    pub fn pull(&self, pulled: bool) {
        self.0.0.lock().expect("not poisoned").0 = pulled;
        self.0.1.notify_all();
    }

    pub fn held_up(&self) -> usize {
        self.0.0.lock().expect("not poisoned").1
    }

    fn pass(&self) {
        let mut state = self.0.0.lock().expect("not poisoned");
        state.1 += 1;
        while state.0 {
            state = self.0.1.wait(state).expect("not poisoned");
        }
        state.1 -= 1;
    }
}

/// Counts bytes. Some operations are special.
#[derive(Clone, Debug, Default, BorshSerialize, BorshDeserialize)]
pub struct Tally {
    pub bytes: u64,
    #[borsh(skip)]
    brake: Brake,
}

impl Small for Tally {
    fn apply(&mut self, _: &At, operation: &[u8], out: &mut Output) {
        match operation {
            b"block, then panic" => {
                self.brake.pass();
                panic!("a bug in the machine");
            }
            b"block" => self.brake.pass(),
            b"shout" => out.event(7, b"hear, hear".to_vec()),
            _ => {}
        }
        self.bytes += operation.len() as u64;
        out.reply(self.bytes.to_string().as_bytes());
    }

    fn query(&self, _: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.bytes.to_string().as_bytes());
    }
}

struct Running {
    task: JoinHandle<Result<(), HostError>>,
    stop: oneshot::Sender<()>,
}

pub struct Cluster {
    pub seats: Vec<Seat>,
    pub gates: Vec<Gate>,
    pub brake: Brake,
    notes: Vec<Arc<Mutex<Vec<Note>>>>,
    running: Vec<Option<Running>>,
    key: KeyPair,
    config: Config,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Formatted, not started.
    pub async fn new(replicas: u8, checkpoint_entries: u64) -> Self {
        let (key, folder) = (common::key(), tempfile::tempdir().expect("a folder"));
        let mut seats = common::seats(replicas, &[key.public()]).await;
        for (index, seat) in seats.iter_mut().enumerate() {
            seat.config.protocol = "echo".to_owned();
            seat.config.data_dir = folder.path().join(index.to_string());
            replica::format(&seat.config).expect("formats");
        }
        Self {
            gates: seats.iter().map(|_| Gate::default()).collect(),
            notes: seats.iter().map(|_| Arc::default()).collect(),
            running: seats.iter().map(|_| None).collect(),
            seats,
            brake: Brake::default(),
            key,
            config: Config { checkpoint_entries },
            _folder: folder,
        }
    }

    pub async fn started(replicas: u8) -> Self {
        let mut cluster = Self::new(replicas, 1000).await;
        for index in 0..usize::from(replicas) {
            cluster.start(index).await;
        }
        cluster
    }

    /// Starts a replica that does not run; returns what it found on its disk.
    pub async fn start(&mut self, index: usize) -> Vec<String> {
        self.try_start(index).await.expect("starts")
    }

    pub async fn try_start(&mut self, index: usize) -> Result<Vec<String>, ServeError> {
        let seat = &mut self.seats[index];
        let listener = match seat.listener.take() {
            Some(listener) => listener,
            None => listen(&seat.config.listen).await.expect("the port of before"),
        };
        let disk = RealDisk::open(&seat.config.data_dir)?;
        let lock = soon(async {
            loop {
                match disk.lock() {
                    Ok(lock) => return lock,
                    Err(_) => tokio::time::sleep(Duration::from_millis(2)).await, // the threads of before still end
                }
            }
        });
        let lock = lock.await;
        self.gates[index] = Gate::default();
        let disk = Gated { disk, gate: self.gates[index].clone() };
        let (brake, notes) = (self.brake.clone(), self.notes[index].clone());
        let machine = move || Tally { bytes: 0, brake: brake.clone() };
        let hear = Box::new(move |note: &Note| notes.lock().expect("not poisoned").push(note.clone()));
        let (config, key) = (&seat.config, &seat.key);
        let started = replica::start_on::<Echo, _, _>(disk, lock, config, key, listener, self.config, &machine, hear)?;
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(started.host.run_until(async move { drop(stopped.await) }));
        self.running[index] = Some(Running { task, stop });
        Ok(started.findings)
    }

    /// As a crash.
    pub async fn kill(&mut self, index: usize) {
        let running = self.running[index].take().expect("runs");
        running.task.abort();
        drop(soon(running.task).await);
    }

    /// As SIGTERM.
    pub async fn stop(&mut self, index: usize) -> Result<(), HostError> {
        let running = self.running[index].take().expect("runs");
        drop(running.stop);
        soon(running.task).await.expect("no panic")
    }

    /// Why it stopped by itself.
    pub async fn ended(&mut self, index: usize) -> String {
        let running = self.running[index].take().expect("runs");
        soon(running.task).await.expect("no panic").expect_err("it does not stop without a reason").to_string()
    }

    pub fn client(&self) -> Client {
        self.patient_client(Duration::from_secs(20))
    }

    pub fn patient_client(&self, timeout: Duration) -> Client {
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        Client::connect::<Echo>(&self.seats[0].for_clients(), &self.key, options).expect("connects")
    }

    pub fn count(&self, index: usize, wanted: impl Fn(&Note) -> bool) -> usize {
        self.notes[index].lock().expect("not poisoned").iter().filter(|note| wanted(note)).count()
    }

    /// Waits until a replica has heard this many further heartbeats.
    pub async fn heartbeats(&self, index: usize, more: usize) {
        let heard = || self.count(index, |note| *note == echo::HEARD);
        let before = heard();
        until(|| heard() >= before + more).await;
    }
}

pub async fn until(wanted: impl Fn() -> bool) {
    soon(async {
        while !wanted() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
    .await;
}

pub fn r(index: u8) -> ReplicaId {
    ReplicaId::new(index)
}
