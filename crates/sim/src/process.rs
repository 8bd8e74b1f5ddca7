//! One replica as a process: what it has in memory while it lives, what its disk keeps when it dies.

use crate::clock::Clock;
use crate::cluster::Event;
use crate::disk::{Found, Storage};
use crate::history::Moment;
use quorate_core::crypto::Keyring;
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{ClusterId, Epoch, RecordSeq, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::{Action, Identity, Node};
use quorate_core::outbox::Turn;
use quorate_core::protocol::{Protocol, RestoreError};
use std::collections::VecDeque;
use std::sync::Arc;

/// The cluster that every run is about.
pub const CLUSTER: ClusterId = ClusterId::new(0x51 << 96);

/// A replica.
pub struct Process<P: Protocol, M> {
    /// Its place in the group.
    pub id: ReplicaId,
    /// Its disk.
    pub storage: Storage,
    /// Its clocks.
    pub clock: Clock,
    /// How often it has died. What was scheduled for an earlier life is void.
    pub life: u32,
    /// What lives only as long as the process.
    pub running: Option<Running<P, M>>,
    /// While it stands still: what happens to it as soon as it goes on.
    pub paused: Option<Vec<Event>>,
    /// Its disk is slow while the virtual clock has not reached this, nanoseconds.
    pub slow_until: u64,
    /// There is no room on its disk while the virtual clock has not reached this, nanoseconds.
    pub full_until: u64,
    /// Its disk is lost, since when; its owner is bringing it back.
    pub lost: Option<Moment>,
    /// It stays faulty when everything else heals: down, or cut off. Nothing is expected of it.
    pub spared: bool,
    /// Why it will not run again in this run.
    pub stopped: Option<String>,
}

/// A replica's memory.
pub struct Running<P: Protocol, M> {
    /// The protocol.
    pub node: Node<P>,
    /// The machine. It makes events always, for the checkers.
    pub executor: Executor<M>,
    /// Whether the node wants them.
    pub listens: bool,
    /// What the executor is to do, the front one being done now.
    pub jobs: VecDeque<Job>,
    /// The last record appended.
    pub appended: RecordSeq,
    /// Is a sync under way?
    pub syncing: bool,
    /// Nobody waits for what was appended, and it will be synced a little later.
    pub unhurried: bool,
    /// The last record that was reported durable.
    pub synced: RecordSeq,
    /// The snapshots' thread is busy until then, virtual nanoseconds: it does one thing after the other.
    pub snapshots_busy: u64,
    /// When the node will be woken, virtual nanoseconds.
    pub wake: Option<u64>,
}

impl<P: Protocol, M: Machine> Running<P, M> {
    /// Does a job. Whether the node wants events is remembered here: what it does not want is taken from what it hears.
    pub fn run(&mut self, job: Job) -> Done {
        match job {
            Job::Listen { on, wish } => {
                self.listens = on;
                Done::Listening { wish }
            }
            job => self.executor.run(job),
        }
    }
}

/// Why a replica did not start.
#[derive(Debug)]
pub enum StartError {
    /// Its disk refused.
    Disk(String),
    /// Its protocol refused.
    Protocol(RestoreError),
}

impl<P: Protocol, M: Machine> Process<P, M> {
    /// A replica that has never run, with a formatted disk.
    pub fn new(id: ReplicaId, replicas: usize, clock: Clock, may_rot: bool) -> Self {
        let formatted = Storage::format(id, replicas, P::NAME, may_rot);
        let storage = formatted.expect("a new disk in memory takes a format");
        Self {
            id,
            storage,
            clock,
            life: 0,
            running: None,
            paused: None,
            slow_until: 0,
            full_until: 0,
            lost: None,
            spared: false,
            stopped: None,
        }
    }

    /// What the process reads from its clocks now.
    pub fn turn(&self, now: u64, entropy: u64) -> Turn {
        Turn { now: self.clock.monotonic(now), wall: self.clock.wall(now), entropy }
    }

    /// Opens what is on the disk and starts the protocol from it.
    pub fn start(&mut self, config: P::Config, new_machine: fn() -> M, turn: Turn) -> Result<Vec<Action>, StartError> {
        let Found { mut executor, restore, next_seq } =
            self.storage.open::<P, M>(config, new_machine).map_err(StartError::Disk)?;
        let identity = Identity { cluster: CLUSTER, epoch: Epoch::ZERO, replica: self.id };
        let keyring = Arc::new(Keyring::simulated_replica(CLUSTER, Epoch::ZERO, restore.replicas, self.id));
        let started = Node::start_with(identity, keyring, restore, next_seq, true, turn);
        let (node, actions) = started.map_err(StartError::Protocol)?;
        let synced = next_seq.previous();
        let (jobs, snapshots_busy, wake) = (VecDeque::new(), 0, None);
        let (appended, syncing, unhurried) = (synced, false, false);
        executor.run(Job::Listen { on: true, wish: 0 });
        self.running = Some(Running {
            node,
            executor,
            listens: false,
            jobs,
            appended,
            syncing,
            unhurried,
            synced,
            snapshots_busy,
            wake,
        });
        Ok(actions)
    }
}
