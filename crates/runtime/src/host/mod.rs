//! The loop around [`quorate_core::node::Node`]: one replica, one event loop.
//!
//! Links and protocol share a thread, because a hop between threads costs more than a turn. The disk, the machine and the
//! snapshots have a thread each; they answer with events. The loop sleeps until something happens.
//!
//! **Promises.** The node's actions are carried out in its order. A replica never goes on without one of its threads: when
//! one fails or panics, [`Host::run_until`] ends and says why. The data folder stays locked until the last thread that may
//! write there has ended.

mod clock;
mod cue;
mod disk;
mod fair;
mod machine;
mod opening;
mod proposals;
mod snapshots;
mod thread;

pub(crate) use clock::Clock;
pub use cue::Cue;
pub use thread::Thread;

use crate::link::{Incoming, LinkHandle, Links};
use bytes::Bytes;
use machine::{Quick, Refused};
use opening::{Openers, Seen};
use quorate_core::crypto::Keyring;
use quorate_core::executor::{Chunks, Done, Job, Make, Manifest};
use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::{Action, Identity, Input, Node, Part};
use quorate_core::outbox::{Class, Note, To};
use quorate_core::protocol::{Checkpoint, ProposeTicket, Protocol, Restore, RestoreError};
use quorate_store::replica::Opened;
use quorate_store::{Disk, DiskError, FolderLock};
use std::collections::BTreeSet;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;
use thiserror::Error;
use thread::Threads;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::JoinSet;

/// How long a replica that was asked to stop waits for its threads. Then it ends as in a crash, which is safe.
const STOP_MAX: Duration = Duration::from_secs(2);
/// How long a replica that stops lets its links write what is queued.
const FLUSH: Duration = Duration::from_millis(50);

/// What becomes of a frame that is about to leave for a peer: nothing, itself, another, several, each with its addressee.
pub type Mouth = Box<dyn FnMut(Peer, Bytes) -> Vec<(Peer, Bytes)> + Send>;

/// Hears the notes of the protocol.
pub type Notes = Box<dyn FnMut(&Note) + Send>;

/// What a thread beside the loop has to say. The channel is unbounded; what is in it is bounded by what the node asked for.
enum Event {
    Synced(RecordSeq),
    /// What the machine's thread has done.
    Done(Vec<Done>),
    /// An installation that failed before the machine heard of it.
    Unusable(Done),
    Made(ProposeTicket, Option<Bytes>),
    Saved(Checkpoint),
    Prepared(Manifest, BTreeSet<u32>),
    Stored(Checkpoint),
    Install(Manifest, Box<dyn Chunks>),
    Read {
        to: ReplicaId,
        checkpoint: Checkpoint,
        part: Part,
        bytes: Option<Bytes>,
    },
    Failed(HostError),
    Ended(Thread),
}

/// Why a replica stopped by itself.
#[derive(Debug, Error)]
pub enum HostError {
    /// It could not start.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// The disk is full.
    #[error(
        "the disk is full, so this replica has stopped; nothing that it acknowledged is lost. Free space, or move the data \
         folder to a larger disk, and start it again ({0})"
    )]
    DiskFull(DiskError),
    /// The disk failed. After a failed write or sync nobody knows what it holds, so the process stops and, started again,
    /// goes on from what is really there.
    #[error("the disk failed: {0}")]
    Disk(String),
    /// The protocol found that going on could make this replica lie.
    #[error("{0}")]
    Halted(String),
    /// A thread could not be started.
    #[error("cannot start a thread: {0}")]
    Thread(std::io::Error),
    /// A thread ended without saying why: a bug in the machine or in us.
    #[error(
        "the {0} thread ended unexpectedly; its message is above. A panic in a state machine is a bug of the machine"
    )]
    ThreadEnded(Thread),
}

/// A running replica.
pub struct Host<P: Protocol> {
    node: Node<P>,
    links: Links,
    others: Vec<Peer>,
    clock: Clock,
    events: UnboundedReceiver<Event>,
    openers: Openers<P>,
    disk: mpsc::Sender<disk::Order>,
    /// The last record whose sync the disk was asked for.
    asked_for: RecordSeq,
    quick: Box<dyn Quick>,
    machine: mpsc::Sender<Vec<Job>>,
    /// Jobs that are with the machine's thread.
    machine_busy: usize,
    snapshots: mpsc::Sender<snapshots::Order>,
    proposals: mpsc::Sender<Box<dyn Make>>,
    notes: Notes,
    cue: Option<Cue>,
    /// Through what it speaks, if not for itself.
    mouth: Option<Mouth>,
}

/// What one pass of the loop gathered for the other threads.
#[derive(Default)]
struct Gathered {
    records: Vec<(RecordSeq, Class, Vec<u8>)>,
    jobs: Vec<Job>,
    forget: Option<RecordSeq>,
}

impl Gathered {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.jobs.is_empty() && self.forget.is_none()
    }
}

impl<P: Protocol> Host<P> {
    /// Starts a replica from what its disk holds. `lock` keeps other processes out of the folder until the replica's last
    /// thread has ended.
    ///
    /// # Errors
    /// [`HostError::Restore`] when the protocol cannot go on from it.
    pub fn start<D: Disk, M: Machine>(
        identity: Identity,
        keyring: Arc<Keyring>,
        opened: Opened<D, M>,
        restore: Restore<P>,
        links: Links,
        lock: FolderLock,
        notes: Notes,
    ) -> Result<Self, HostError> {
        let mut clock = Clock::start();
        let others = (0..restore.replicas)
            .filter_map(|index| u8::try_from(index).ok().map(ReplicaId::new))
            .filter(|replica| *replica != identity.replica)
            .map(Peer::Replica)
            .collect();
        let (node, actions) = Node::start_with(identity, keyring, restore, opened.next_seq(), false, clock.turn())?;
        let (sender, events) = unbounded_channel();
        let threads = Threads::new(sender.clone(), lock);
        let start = |thread, body: Body| threads.spawn(thread, body).map_err(HostError::Thread);
        let openers = if P::SIGNS { Openers::start(&node.opener(), &threads)? } else { Openers::none() };
        let Opened { wal, executor, snapshots: stored, .. } = opened;
        let (disk, orders) = mpsc::channel();
        let (own, out) = (threads.clone(), sender.clone());
        start(Thread::Disk, Box::new(move || disk::run(wal, own, &orders, &out)))?;
        let (machine, jobs) = mpsc::channel();
        let (shared, out) = (Arc::new(Mutex::new(executor)), sender.clone());
        let quick = Box::new(shared.clone());
        start(Thread::Machine, Box::new(move || machine::run(&shared, &jobs, &out)))?;
        let (proposals, orders) = mpsc::channel();
        let out = sender.clone();
        start(Thread::Proposals, Box::new(move || proposals::run(&orders, &out)))?;
        let (snapshots, orders) = mpsc::channel();
        start(Thread::Snapshots, Box::new(move || snapshots::run(stored, &orders, &sender)))?;
        let machine_busy = 0;
        let mut host = Self {
            node,
            links,
            others,
            clock,
            events,
            openers,
            disk,
            quick,
            machine,
            asked_for: RecordSeq::default(),
            machine_busy,
            snapshots,
            proposals,
            notes,
            cue: None,
            mouth: None,
        };
        let mut gathered = Gathered::default();
        host.carry_out(actions, &mut gathered)?;
        host.hand_over(gathered)?;
        Ok(host)
    }

    /// Lets a program tell this replica when to propose, if its protocol is configured to wait for that.
    pub fn cued_by(self, cue: &Cue) -> Self {
        Self { cue: Some(cue.clone()), ..self }
    }

    /// The connections and their counters, for whoever shows them while the replica runs.
    pub fn links(&self) -> LinkHandle {
        self.links.handle()
    }

    /// From now on this decides what becomes of every frame that leaves. For replicas that misbehave on purpose (`quorate dev`,
    /// ADR 032): no replica that keeps its word has one.
    pub fn speak_through(&mut self, mouth: Mouth) {
        self.mouth = Some(mouth);
    }

    /// Runs until it fails or `stop` is ready. Then everything appended is synced, what that lets leave is sent, and the
    /// folder is unlocked: at most two seconds. Dropping the future stops the replica as a crash would, and that is safe.
    ///
    /// # Errors
    /// Why it stopped by itself.
    pub async fn run_until(self, stop: impl Future<Output = ()> + Send + 'static) -> Result<(), HostError> {
        // A task of its own: to wake a task is to put it into a queue, to wake the future that a runtime blocks on takes two
        // calls of the system. The set ends the task when it is dropped.
        let mut task = JoinSet::new();
        task.spawn(self.run(stop));
        match task.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(error)) => match error.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                Err(_) => Ok(()), // the runtime is shutting down, and this replica with it
            },
            None => Ok(()), // cannot be: it was spawned above
        }
    }

    async fn run(mut self, stop: impl Future<Output = ()>) -> Result<(), HostError> {
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return self.shut_down().await,
                passed = self.pass() => passed?,
            }
        }
    }

    /// Waits for something to happen and deals with all that has. Dropped while it waits, it has lost nothing.
    async fn pass(&mut self) -> Result<(), HostError> {
        let deadline = self.node.deadline().map(|at| self.clock.at(at));
        let except = self.openers.have_enough_of();
        let (mut event, mut seen, mut incoming, mut cued) = (None, None, Vec::new(), false);
        tokio::select! {
            biased;
            received = self.events.recv() => match received {
                Some(received) => event = Some(received),
                None => return Err(HostError::ThreadEnded(Thread::Disk)), // cannot be: each says first that it ends
            },
            received = self.openers.recv() => seen = Some(received),
            received = self.links.recv_except(&except) => incoming = received,
            () = cue::given(self.cue.as_ref()), if self.cue.is_some() => cued = true,
            () = sleep_until(deadline) => {}
        }
        let mut gathered = Gathered::default();
        while let Some(one) = event {
            self.on_event(one, &mut gathered)?;
            event = self.events.try_recv().ok();
        }
        while let Some(one) = seen {
            self.on_seen(one, &mut gathered)?;
            seen = self.openers.try_recv();
        }
        if incoming.is_empty() {
            incoming = self.links.try_recv_except(&self.openers.have_enough_of()); // so that a busy disk or machine cannot keep the links waiting
        }
        for one in incoming {
            self.on_incoming(one, &mut gathered)?;
        }
        if cued {
            self.feed(Input::Cue, &mut gathered)?;
        }
        if self.node.deadline().is_some_and(|at| at <= self.clock.now()) {
            self.feed(Input::Timers, &mut gathered)?;
        }
        self.hand_over(gathered)?;
        tokio::task::yield_now().await; // the links' tasks write what this pass sent, and read what has come
        Ok(())
    }

    async fn shut_down(self) -> Result<(), HostError> {
        let Self {
            mut node,
            links,
            others,
            mut clock,
            mut events,
            openers,
            disk,
            machine,
            snapshots,
            proposals,
            mut mouth,
            ..
        } = self;
        drop((openers, disk, machine, snapshots, proposals)); // each thread ends when it has done what it was asked
        let ended = async {
            while let Some(event) = events.recv().await {
                let input = match event {
                    Event::Synced(seq) => Input::Synced(seq),
                    Event::Failed(error) => return Err(error),
                    _ => continue,
                };
                let mut actions = Vec::new();
                node.handle(input, clock.turn(), &mut actions);
                for action in actions {
                    match (action, &mut mouth) {
                        (Action::Send { to, bytes, .. }, None) => send(&links, &others, to, bytes),
                        (Action::Send { to, bytes, .. }, Some(mouth)) => {
                            send_through(mouth, &links, &others, to, &bytes);
                        }
                        _ => {}
                    }
                }
            }
            Ok(())
        };
        let stopped = tokio::time::timeout(STOP_MAX, ended).await;
        tokio::time::sleep(FLUSH).await;
        stopped.unwrap_or(Ok(())) // a thread that is still busy cannot undo what is durable
    }

    fn on_incoming(&mut self, incoming: Incoming, gathered: &mut Gathered) -> Result<(), HostError> {
        match incoming {
            Incoming::Message { from, body } => match self.openers.open(from, body) {
                Some(bytes) => self.feed(Input::Frame { from, bytes }, gathered),
                None => Ok(()),
            },
            Incoming::Disconnected { peer, .. } if self.openers.disconnected(peer) => Ok(()),
            Incoming::Disconnected { peer, .. } => self.feed(Input::Disconnected(peer), gathered),
            Incoming::Connected(_) | Incoming::DialFailed { .. } => Ok(()),
        }
    }

    fn on_seen(&mut self, seen: Seen<P>, gathered: &mut Gathered) -> Result<(), HostError> {
        match seen {
            Seen::Frame(opened) => {
                let mut actions = Vec::new();
                self.node.handle_opened(*opened, self.clock.turn(), &mut actions);
                self.carry_out(actions, gathered)
            }
            Seen::Disconnected(peer) => self.feed(Input::Disconnected(peer), gathered),
        }
    }

    fn on_event(&mut self, event: Event, gathered: &mut Gathered) -> Result<(), HostError> {
        let input = match event {
            Event::Synced(seq) => Input::Synced(seq),
            Event::Done(done) => {
                self.machine_busy -= done.len();
                return done.into_iter().try_for_each(|done| self.feed(Input::Done(done), gathered));
            }
            Event::Unusable(done) => Input::Done(done),
            Event::Made(ticket, made) => Input::Made(ticket, made),
            Event::Saved(checkpoint) => Input::Saved(checkpoint),
            Event::Prepared(manifest, missing) => Input::Prepared(manifest, missing),
            Event::Stored(checkpoint) => Input::Stored(checkpoint),
            Event::Read { to, checkpoint, part, bytes } => Input::Read { to, checkpoint, part, bytes },
            Event::Install(manifest, chunks) => {
                gathered.jobs.push(Job::Install { manifest, chunks });
                return Ok(());
            }
            Event::Failed(error) => return Err(error),
            Event::Ended(Thread::Segment) => return Ok(()),
            Event::Ended(thread) => return Err(HostError::ThreadEnded(thread)),
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
                Action::Send { to, bytes, .. } => match &mut self.mouth {
                    None => send(&self.links, &self.others, to, bytes),
                    Some(mouth) => send_through(mouth, &self.links, &self.others, to, &bytes),
                },
                Action::Run(job) => gathered.jobs.push(job),
                Action::Make(make) => self.proposals.send(make).map_err(|_| self.ended(Thread::Proposals))?,
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

    fn bulk(&mut self, order: snapshots::Order) -> Result<(), HostError> {
        self.snapshots.send(order).map_err(|_| self.ended(Thread::Snapshots))
    }

    /// Gives each thread what this pass gathered for it, and does at once what is quick.
    fn hand_over(&mut self, mut gathered: Gathered) -> Result<(), HostError> {
        while !gathered.is_empty() {
            self.hand_out(&mut gathered)?;
        }
        self.ask_for_sync()
    }

    /// Tells the disk, once, that something waits for what it was given.
    fn ask_for_sync(&mut self) -> Result<(), HostError> {
        let awaited = self.node.awaited().filter(|awaited| *awaited > self.asked_for);
        let Some(awaited) = awaited else { return Ok(()) };
        self.asked_for = awaited;
        self.disk.send(disk::Order::Sync).map_err(|_| self.ended(Thread::Disk))
    }

    /// Gives the disk its records, in one message, and the machine its jobs: those at the front that are quick are done here,
    /// and may gather more; the others go to its thread.
    fn hand_out(&mut self, gathered: &mut Gathered) -> Result<(), HostError> {
        if !gathered.records.is_empty() {
            let order = disk::Order::Append(std::mem::take(&mut gathered.records));
            self.disk.send(order).map_err(|_| self.ended(Thread::Disk))?;
        }
        self.ask_for_sync()?;
        if let Some(before) = gathered.forget.take() {
            self.disk.send(disk::Order::Forget(before)).map_err(|_| self.ended(Thread::Disk))?;
        }
        let mut jobs = std::mem::take(&mut gathered.jobs).into_iter();
        let mut slow = Vec::new();
        while self.machine_busy == 0
            && slow.is_empty()
            && let Some(job) = jobs.next()
        {
            match self.quick.run(job) {
                Ok(done) => self.feed(Input::Done(done), gathered)?,
                Err(Refused::Slow(job)) => slow.push(job),
                Err(Refused::Panicked) => return Err(HostError::ThreadEnded(Thread::Machine)),
            }
        }
        slow.extend(jobs);
        if !slow.is_empty() {
            self.machine_busy += slow.len();
            self.machine.send(slow).map_err(|_| self.ended(Thread::Machine))?;
        }
        Ok(())
    }

    /// Why a thread does not take orders any more: it may have said so.
    fn ended(&mut self, thread: Thread) -> HostError {
        while let Ok(event) = self.events.try_recv() {
            if let Event::Failed(error) = event {
                return error;
            }
        }
        HostError::ThreadEnded(thread)
    }
}

/// Ready when the process is asked to stop, by SIGTERM or Ctrl-C: what a server gives to [`Host::run_until`].
///
/// # Errors
/// If the system does not let the process listen for signals.
pub fn asked_to_stop() -> std::io::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

type Body = Box<dyn FnOnce() -> Result<(), HostError> + Send>;

/// A message that finds no connection, or no room, is dropped and counted by the link: protocols repeat themselves.
fn send(links: &Links, others: &[Peer], to: To, bytes: Bytes) {
    match to {
        To::One(peer) => drop(links.send(peer, bytes)),
        To::Others => {
            for peer in others.iter().copied() {
                let _dropped = links.send(peer, bytes.clone());
            }
        }
    }
}

fn send_through(mouth: &mut Mouth, links: &Links, others: &[Peer], to: To, bytes: &Bytes) {
    let peers = match &to {
        To::One(peer) => std::slice::from_ref(peer),
        To::Others => others,
    };
    for (peer, bytes) in peers.iter().flat_map(|peer| mouth(*peer, bytes.clone())) {
        let _dropped = links.send(peer, bytes);
    }
}

pub(crate) async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}
