//! The loop around [`quorate_core::node::Node`]: one replica, one process, one event loop.
//!
//! Links and protocol share a thread, because a hop between threads costs more than a turn. The disk, the machine and the
//! snapshots have a thread each; they answer with [`Event`]s. The loop sleeps until something happens.

mod clock;
mod disk;
mod machine;
mod snapshots;

pub(crate) use clock::Clock;

use crate::link::{Incoming, Links};
use bytes::Bytes;
use quorate_core::executor::{Chunks, Done, Executor, Job, Manifest};
use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::{Action, Identity, Input, Node, Part};
use quorate_core::outbox::{Class, Note, To};
use quorate_core::protocol::{Checkpoint, Protocol, Restore, RestoreError};
use quorate_store::Disk;
use quorate_store::replica::Opened;
use std::collections::BTreeSet;
use std::sync::mpsc;
use thiserror::Error;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// What a thread beside the loop has to say. The channel is unbounded; what is in it is bounded by what the node asked for.
enum Event {
    Synced(RecordSeq),
    Done(Vec<Done>),
    Saved(Checkpoint),
    Prepared(Manifest, BTreeSet<u32>),
    Stored(Checkpoint),
    Install(Manifest, Box<dyn Chunks>),
    Read { to: ReplicaId, checkpoint: Checkpoint, part: Part, bytes: Option<Bytes> },
    DiskFailed(String),
}

/// Why a replica stopped by itself.
#[derive(Debug, Error)]
pub enum HostError {
    /// It could not start.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The disk failed. After a failed write or sync nobody knows what it holds, so the process stops and, started again,
    /// goes on from what is really there.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// The protocol found that going on could make this replica lie.
    #[error("{0}")]
    Halted(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
    /// A thread ended without saying why: a bug in the machine or in us.
    #[error("the {0} thread ended unexpectedly; its message is above")]
    ThreadEnded(&'static str),
}

/// A running replica.
pub struct Host<P: Protocol> {
    node: Node<P>,
    links: Links,
    others: Vec<Peer>,
    clock: Clock,
    events: UnboundedReceiver<Event>,
    disk: mpsc::Sender<disk::Order>,
    machine: mpsc::Sender<Vec<Job>>,
    snapshots: mpsc::Sender<snapshots::Order>,
    notes: fn(&Note),
}

/// What one pass of the loop gathered for the other threads.
#[derive(Default)]
struct Gathered {
    records: Vec<(RecordSeq, Class, Vec<u8>)>,
    jobs: Vec<Job>,
    forget: Option<RecordSeq>,
}

impl<P: Protocol> Host<P> {
    /// Starts a replica from what its disk holds. Must run inside a `current_thread` runtime.
    ///
    /// # Errors
    /// [`HostError::Restore`] when the protocol cannot go on from it.
    pub fn start<D: Disk, M: Machine>(
        identity: Identity,
        opened: Opened<D, M>,
        restore: Restore<P>,
        links: Links,
        notes: fn(&Note),
    ) -> Result<Self, HostError> {
        let clock = Clock::start();
        let others = (0..restore.replicas)
            .filter_map(|index| u8::try_from(index).ok().map(ReplicaId::new))
            .filter(|replica| *replica != identity.replica)
            .map(Peer::Replica)
            .collect();
        let next_seq = RecordSeq::new(opened.wal.next_seq());
        let (node, actions) = Node::start(identity, restore, next_seq, false, clock.turn())?;
        let (sender, events) = unbounded_channel();
        let (disk, orders) = mpsc::channel();
        let wal = opened.wal;
        spawn("disk", sender.clone(), move |events| disk::run(wal, &orders, events))?;
        let (machine, jobs) = mpsc::channel();
        let executor: Executor<M> = opened.executor;
        spawn("machine", sender.clone(), move |events| machine::run(executor, &jobs, events))?;
        let (snapshots, orders) = mpsc::channel();
        let stored = opened.snapshots;
        spawn("snapshots", sender, move |events| snapshots::run(stored, &orders, events))?;
        let mut host = Self { node, links, others, clock, events, disk, machine, snapshots, notes };
        let mut gathered = Gathered::default();
        host.carry_out(actions, &mut gathered)?;
        host.hand_over(gathered)?;
        Ok(host)
    }

    /// Runs until it fails. Dropping the future stops the replica as a crash would, and that is safe.
    ///
    /// # Errors
    /// Why it stopped.
    pub async fn run(mut self) -> Result<std::convert::Infallible, HostError> {
        loop {
            let deadline = self.node.deadline().map(|at| self.clock.at(at));
            let (mut event, mut incoming) = (None, Vec::new());
            tokio::select! {
                biased;
                received = self.events.recv() => event = received,
                received = self.links.recv() => incoming = received,
                () = sleep_until(deadline) => {}
            }
            let mut gathered = Gathered::default();
            while let Some(one) = event {
                self.on_event(one, &mut gathered)?;
                event = self.events.try_recv().ok();
            }
            if incoming.is_empty() {
                incoming = self.links.try_recv(); // so that a busy disk or machine cannot keep the links waiting
            }
            for one in incoming {
                self.on_incoming(one, &mut gathered)?;
            }
            if self.node.deadline().is_some_and(|at| at <= self.clock.now()) {
                self.feed(Input::Timers, &mut gathered)?;
            }
            self.hand_over(gathered)?;
            tokio::task::yield_now().await; // the links' tasks write what this pass sent, and read what has come
        }
    }

    fn on_incoming(&mut self, incoming: Incoming, gathered: &mut Gathered) -> Result<(), HostError> {
        match incoming {
            Incoming::Message { from, body } => self.feed(Input::Frame { from, bytes: body }, gathered),
            Incoming::Disconnected { peer, .. } => self.feed(Input::Disconnected(peer), gathered),
            Incoming::Connected(_) | Incoming::DialFailed { .. } => Ok(()),
        }
    }

    fn on_event(&mut self, event: Event, gathered: &mut Gathered) -> Result<(), HostError> {
        let input = match event {
            Event::Synced(seq) => Input::Synced(seq),
            Event::Done(done) => {
                return done.into_iter().try_for_each(|done| self.feed(Input::Done(done), gathered));
            }
            Event::Saved(checkpoint) => Input::Saved(checkpoint),
            Event::Prepared(manifest, missing) => Input::Prepared(manifest, missing),
            Event::Stored(checkpoint) => Input::Stored(checkpoint),
            Event::Read { to, checkpoint, part, bytes } => Input::Read { to, checkpoint, part, bytes },
            Event::Install(manifest, chunks) => {
                gathered.jobs.push(Job::Install { manifest, chunks });
                return Ok(());
            }
            Event::DiskFailed(error) => return Err(HostError::Disk(error)),
        };
        self.feed(input, gathered)
    }

    fn feed(&mut self, input: Input, gathered: &mut Gathered) -> Result<(), HostError> {
        let mut actions = Vec::new();
        self.node.handle(input, self.clock.turn(), &mut actions);
        self.carry_out(actions, gathered)
    }

    fn carry_out(&mut self, actions: Vec<Action>, gathered: &mut Gathered) -> Result<(), HostError> {
        for action in actions {
            match action {
                Action::Append { seq, class, bytes } => gathered.records.push((seq, class, bytes)),
                Action::Send { to, bytes, .. } => self.send(to, bytes),
                Action::Run(job) => gathered.jobs.push(job),
                Action::Save(save) => self.bulk(snapshots::Order::Save(save))?,
                Action::Read { to, checkpoint, part } => self.bulk(snapshots::Order::Read { to, checkpoint, part })?,
                Action::Prepare(manifest) => self.bulk(snapshots::Order::Prepare(manifest))?,
                Action::Put(checkpoint, index, bytes) => self.bulk(snapshots::Order::Put(checkpoint, index, bytes))?,
                Action::Finish(checkpoint) => self.bulk(snapshots::Order::Finish(checkpoint))?,
                Action::Install(checkpoint) => self.bulk(snapshots::Order::Install(checkpoint))?,
                Action::ForgetSnapshots(before) => self.bulk(snapshots::Order::Forget(before))?,
                Action::Forget(before) => gathered.forget = Some(before),
                Action::Note(note) => (self.notes)(&note),
                Action::Halt(reason) => return Err(HostError::Halted(reason)),
            }
        }
        Ok(())
    }

    /// A message that finds no connection, or no room, is dropped and counted by the link: protocols repeat themselves.
    fn send(&self, to: To, bytes: Bytes) {
        match to {
            To::One(peer) => drop(self.links.send(peer, bytes)),
            To::Others => {
                for peer in self.others.iter().copied() {
                    let _dropped = self.links.send(peer, bytes.clone());
                }
            }
        }
    }

    fn bulk(&self, order: snapshots::Order) -> Result<(), HostError> {
        self.snapshots.send(order).map_err(|_| HostError::ThreadEnded("snapshots"))
    }

    /// Gives each thread what this pass gathered for it, in one message.
    fn hand_over(&mut self, gathered: Gathered) -> Result<(), HostError> {
        if !gathered.records.is_empty() {
            let order = disk::Order::Append(gathered.records);
            self.disk.send(order).map_err(|_| self.disk_ended())?;
        }
        if let Some(before) = gathered.forget {
            self.disk.send(disk::Order::Forget(before)).map_err(|_| self.disk_ended())?;
        }
        if !gathered.jobs.is_empty() {
            self.machine.send(gathered.jobs).map_err(|_| HostError::ThreadEnded("machine"))?;
        }
        Ok(())
    }

    /// The disk's thread says why it ends before it does.
    fn disk_ended(&mut self) -> HostError {
        while let Ok(event) = self.events.try_recv() {
            if let Event::DiskFailed(error) = event {
                return HostError::Disk(error);
            }
        }
        HostError::ThreadEnded("disk")
    }
}

fn spawn(
    name: &str,
    events: UnboundedSender<Event>,
    body: impl FnOnce(&UnboundedSender<Event>) + Send + 'static,
) -> std::io::Result<()> {
    std::thread::Builder::new().name(format!("quorate-{name}")).spawn(move || body(&events)).map(drop)
}

pub(crate) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
