//! A whole cluster in one thread: nodes, machines, journals, snapshots, clients, a network and a clock, all in the hands of
//! the test. Nothing happens by itself: messages lie in a queue until [`Cluster::deliver`], time passes in
//! [`Cluster::run`]. After every input the replica's invariants are checked, and that no two replicas apply different
//! batches as the same entry.

use crate::subject::{Config, Message, Record, Subject};
use crate::tape::Tape;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::executor::{Chunks, Executor, Job, Make, Manifest};
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::node::{Action, Identity, Input, Node, Part, Payload};
use quorate_core::outbox::{Class, Note, To, Turn};
use quorate_core::protocol::{Checkpoint, Replica as _, Restore, RestoreError, Restored, Status};
use quorate_core::time::{Instant, WallTime};
use quorate_core::wire::{Envelope, Wire};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

pub const ENVELOPE: Envelope = Envelope { cluster: ClusterId::new(7), epoch: Epoch::ZERO };
const MS: u64 = 1_000_000;

/// A message on its way.
#[derive(Clone, Debug)]
pub struct Flying {
    pub from: Peer,
    pub to: Peer,
    pub label: &'static str,
    pub bytes: Bytes,
}

impl Flying {
    /// What it says, if it is the protocol's.
    pub fn message(&self) -> Option<Message> {
        match Envelope::open(&self.bytes) {
            Ok((_, Payload::Protocol(message))) => Some(message),
            _ => None,
        }
    }
}

/// A record on a disk.
#[derive(Clone, Debug)]
pub struct OnDisk {
    pub seq: RecordSeq,
    pub bytes: Vec<u8>,
    /// Cannot be read; its class perhaps can.
    pub damaged: Option<Option<Class>>,
}

impl OnDisk {
    pub fn record(&self) -> Record {
        Record::decode(&self.bytes).expect("what was appended")
    }
}

type Stored = (Manifest, BTreeMap<u32, Bytes>);

/// A replica's disk and, while it runs, its process.
pub struct Host {
    pub journal: Vec<OnDisk>,
    pub durable: RecordSeq,
    pub next_seq: RecordSeq,
    pub snapshots: BTreeMap<Checkpoint, Stored>,
    staged: BTreeMap<Checkpoint, Stored>,
    pub process: Option<Process>,
    /// Syncs by itself after every input.
    pub fast_disk: bool,
    /// Applies at once.
    pub fast_machine: bool,
    /// What its machine is asked to build, if the test lets it take its time.
    pub building: Option<VecDeque<Box<dyn Make>>>,
    pub notes: Vec<Note>,
    pub halted: Option<String>,
    /// Nanoseconds by which its calendar is behind the right time.
    pub behind: u64,
}

pub struct Process {
    pub node: Node<Subject>,
    pub executor: Executor<Tape>,
    jobs: VecDeque<Job>,
}

struct InMemory(BTreeMap<u32, Bytes>);

impl Chunks for InMemory {
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
        self.0.get(&index).map(|bytes| bytes.to_vec()).ok_or_else(|| "missing".to_owned())
    }
}

type Filter = Box<dyn Fn(&Flying) -> bool>;

/// Everything.
pub struct Cluster {
    pub config: Config,
    pub now: u64,
    pub hosts: Vec<Host>,
    pub flying: VecDeque<Flying>,
    cut: BTreeSet<(Peer, Peer)>,
    lose: Option<Filter>,
    pub clients: BTreeMap<ClientId, crate::clients::User>,
    /// Labels of all messages that were sent, in order, with sender and receiver.
    pub sent: Vec<Flying>,
    /// What was applied as which entry, anywhere.
    pub applied: BTreeMap<OpNumber, Digest>,
    /// Peers lie in this test: whether replicas agree is not looked at.
    pub believing: bool,
    turns: u64,
}

/// What this replica can sign with, also if it is a liar's.
pub fn keyring(id: usize, replicas: usize) -> Keyring {
    let me = ReplicaId::new(u8::try_from(id).expect("small"));
    Keyring::simulated_replica(ENVELOPE.cluster, ENVELOPE.epoch, replicas, me)
}

pub fn replica(id: usize) -> Peer {
    Peer::Replica(ReplicaId::new(u8::try_from(id).expect("small")))
}

/// Intervals as by default, but for checkpoints: none unless a test wants them.
pub fn config() -> Config {
    Config::default()
}

impl Cluster {
    pub fn new(n: usize) -> Self {
        Self::with(n, config())
    }

    /// `n` replicas, started for the first time.
    pub fn with(n: usize, config: Config) -> Self {
        let mut cluster = Self::off(n, config);
        (0..n).for_each(|id| cluster.restart(id));
        cluster.deliver();
        cluster
    }

    /// `n` replicas that were never started.
    pub fn off(n: usize, config: Config) -> Self {
        let host = || Host {
            journal: Vec::new(),
            durable: RecordSeq::ZERO,
            next_seq: RecordSeq::ZERO.next(),
            snapshots: BTreeMap::new(),
            staged: BTreeMap::new(),
            process: None,
            fast_disk: true,
            fast_machine: true,
            building: None,
            notes: Vec::new(),
            halted: None,
            behind: 0,
        };
        let hosts = (0..n).map(|_| host()).collect();
        Self {
            config,
            now: 1_000_000 * MS,
            hosts,
            flying: VecDeque::new(),
            cut: BTreeSet::new(),
            lose: None,
            clients: BTreeMap::new(),
            sent: Vec::new(),
            applied: BTreeMap::new(),
            believing: false,
            turns: 0,
        }
    }

    pub fn turn(&mut self) -> Turn {
        self.turns += 1;
        let entropy = Digest::of(&self.turns.to_le_bytes());
        let entropy = u64::from_le_bytes(*entropy.as_bytes().first_chunk().expect("32 bytes"));
        Turn { now: Instant::from_nanos(self.now), wall: WallTime::from_nanos(self.now), entropy }
    }

    /// A turn of this replica, by its own calendar.
    fn turn_of(&mut self, id: usize) -> Turn {
        let wall = WallTime::from_nanos(self.now.saturating_sub(self.hosts[id].behind));
        Turn { wall, ..self.turn() }
    }
}

/// Faults.
impl Cluster {
    /// A power failure: what is not synced is gone.
    pub fn crash(&mut self, id: usize) -> &mut Self {
        let host = &mut self.hosts[id];
        host.process = None;
        host.journal.retain(|record| record.seq <= host.durable);
        host.next_seq = host.durable.next();
        host.staged.clear();
        self.flying.retain(|it| it.to != replica(id));
        self
    }

    /// # Panics
    /// If the replica refuses to start.
    pub fn restart(&mut self, id: usize) {
        if let Err(error) = self.try_restart(id) {
            panic!("R{id} does not start: {error}");
        }
    }

    pub fn try_restart(&mut self, id: usize) -> Result<(), RestoreError> {
        self.crash(id);
        let turn = self.turn_of(id);
        let (replicas, config) = (self.hosts.len(), self.config);
        let host = &mut self.hosts[id];
        host.halted = None;
        let (checkpoint, executor) = match host.snapshots.last_key_value() {
            None => (None, Executor::new(Tape::default())),
            Some((checkpoint, (manifest, chunks))) => {
                let executor = Executor::restore(manifest, &mut InMemory(chunks.clone()));
                (Some(*checkpoint), executor.expect("an intact snapshot"))
            }
        };
        let records = host.journal.iter().map(|it| match it.damaged {
            None => Restored::Found { seq: it.seq, record: it.record() },
            Some(class) => Restored::Damaged { seq: it.seq, at_most: 1, class },
        });
        let restore = Restore {
            replica: ReplicaId::new(u8::try_from(id).expect("small")),
            replicas,
            config,
            records: records.collect(),
            tail_damaged: host.journal.last().is_some_and(|it| it.damaged.is_some()),
            checkpoint,
            wake: executor.wake(),
        };
        let identity = Identity { cluster: ENVELOPE.cluster, epoch: ENVELOPE.epoch, replica: restore.replica };
        let keyring = Arc::new(keyring(id, replicas));
        let (node, actions) = Node::start_with(identity, keyring, restore, host.next_seq, false, turn)?;
        host.process = Some(Process { node, executor, jobs: VecDeque::new() });
        self.carry_out(id, actions);
        self.check(id);
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.connect(client, id);
        }
        Ok(())
    }

    /// Cuts both directions between a replica and everybody else.
    pub fn isolate(&mut self, id: usize) -> &mut Self {
        for other in self.peers() {
            self.cut.insert((replica(id), other));
            self.cut.insert((other, replica(id)));
        }
        self
    }

    /// Nothing arrives at this replica; what it says does.
    pub fn deafen(&mut self, id: usize) -> &mut Self {
        let others = self.peers();
        self.cut.extend(others.into_iter().map(|other| (other, replica(id))));
        self
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize) -> &mut Self {
        self.cut.insert((replica(from), replica(to)));
        self
    }

    /// Every link works, and nothing is lost any more.
    pub fn heal(&mut self) -> &mut Self {
        self.cut.clear();
        self.lose = None;
        self
    }

    /// Loses what the filter picks.
    pub fn lose(&mut self, filter: impl Fn(&Flying) -> bool + 'static) -> &mut Self {
        self.lose = Some(Box::new(filter));
        self
    }

    fn peers(&self) -> Vec<Peer> {
        let clients = self.clients.keys().map(|id| Peer::Client(*id));
        (0..self.hosts.len()).map(replica).chain(clients).collect()
    }
}

/// Time and messages.
impl Cluster {
    /// Delivers everything that is on its way, and what follows from it.
    pub fn deliver(&mut self) -> &mut Self {
        for _ in 0..200_000 {
            let Some(next) = self.flying.pop_front() else { return self };
            self.hand_over(&next);
        }
        let last = self.sent.iter().rev().take(6).map(|it| format!("{} to {}: {:?}", it.from, it.to, it.message()));
        let last = last.collect::<Vec<_>>().join("\n");
        let states = (0..self.hosts.len()).map(|id| self.describe(id)).collect::<Vec<_>>().join("\n");
        panic!("the cluster does not come to rest:\n{states}\n{last}");
    }

    pub fn hand_over(&mut self, it: &Flying) {
        let lost = self.cut.contains(&(it.from, it.to)) || self.lose.as_ref().is_some_and(|lose| lose(it));
        match it.to {
            _ if lost => {}
            Peer::Replica(id) => self.input(id.index(), Input::Frame { from: it.from, bytes: it.bytes.clone() }),
            Peer::Client(client) => self.at_client(client, it),
        }
    }

    /// Delivers, and lets timers fire, for so many milliseconds.
    pub fn run(&mut self, ms: u64) -> &mut Self {
        let end = self.now + ms * MS;
        loop {
            self.deliver();
            let nodes = self.hosts.iter().filter_map(|host| host.process.as_ref()?.node.deadline());
            let users = self.clients.values().filter_map(crate::clients::User::deadline);
            let next = nodes.chain(users).map(Instant::as_nanos).min();
            match next.filter(|next| *next <= end) {
                None => break,
                Some(next) => self.now = self.now.max(next),
            }
            for id in 0..self.hosts.len() {
                let process = self.hosts[id].process.as_ref();
                if process.is_some_and(|it| it.node.deadline().is_some_and(|at| at.as_nanos() <= self.now)) {
                    self.input(id, Input::Timers);
                }
            }
            self.client_timers();
        }
        self.now = end;
        self
    }

    /// Runs until it holds, for 20 s at most.
    pub fn run_until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> &mut Self {
        for _ in 0..2000 {
            if holds(self) {
                return self;
            }
            self.run(10);
        }
        for it in self.sent.iter().rev().take(30).rev() {
            eprintln!("{} to {}: {:?}", it.from, it.to, it.message());
        }
        let states: Vec<_> = (0..self.hosts.len()).map(|id| self.describe(id)).collect();
        panic!("never: {what}\n{}", states.join("\n"));
    }

    /// Once nothing is under way (after `ms` milliseconds), nothing is said for a minute, and no timer runs.
    ///
    /// # Panics
    /// If the group does anything.
    pub fn rests_after(&mut self, ms: u64) {
        self.run(ms);
        self.talk();
        self.run(60_000);
        assert_eq!(self.talk(), Vec::<String>::new());
        let running: Vec<_> = self.hosts.iter().filter_map(|host| host.process.as_ref()).collect();
        assert!(!running.is_empty() && running.iter().all(|it| it.node.deadline().is_none()));
    }

    pub fn describe(&self, id: usize) -> String {
        match &self.hosts[id].process {
            None => format!("R{id} is down"),
            Some(process) => format!("R{id} {:?} halted {:?}", process.node.replica().status(), self.hosts[id].halted),
        }
    }

    /// A message is there, whoever is said to have sent it.
    pub fn say(&mut self, from: Peer, to: usize, message: Message) -> &mut Self {
        let bytes = ENVELOPE.seal(&Payload::Protocol(message));
        self.input(to, Input::Frame { from, bytes });
        self
    }

    pub fn input(&mut self, id: usize, input: Input) {
        let turn = self.turn_of(id);
        let Some(process) = &mut self.hosts[id].process else { return };
        let mut actions = Vec::new();
        process.node.handle(input, turn, &mut actions);
        self.carry_out(id, actions);
        self.check(id);
    }

    fn check(&self, id: usize) {
        let Some(process) = &self.hosts[id].process else { return };
        if self.hosts[id].halted.is_none() {
            process.node.replica().check().unwrap_or_else(|broken| panic!("R{id}: {broken}"));
        }
    }

    /// The log of this replica reaches its disk.
    pub fn sync(&mut self, id: usize) -> &mut Self {
        let host = &mut self.hosts[id];
        let last = host.next_seq.previous();
        if host.process.is_some() && host.durable < last {
            host.durable = last;
            self.input(id, Input::Synced(last));
        }
        self
    }

    /// The machine does what it was asked to.
    pub fn work(&mut self, id: usize) -> &mut Self {
        while self.work_once(id) {}
        self
    }

    /// The machine does the first thing that it was asked for; false if there is none.
    pub fn work_once(&mut self, id: usize) -> bool {
        if let Some(process) = &mut self.hosts[id].process {
            let Some(job) = process.jobs.pop_front() else { return false };
            let given = match &job {
                Job::Execute { op, batch } => Some((*op, batch.clone())),
                Job::Commit { op, state } => process.executor.speculated(*state).map(|batch| (*op, batch.clone())),
                _ => None,
            };
            if let Some((op, batch)) = &given {
                let digest = Digest::of(batch);
                let known = *self.applied.entry(*op).or_insert(digest);
                assert!(known == digest || self.believing, "R{id} applies another batch as entry {op}");
            }
            let done = process.executor.run(job);
            self.input(id, Input::Done(done));
            return true;
        }
        false
    }

    /// The machine has built one proposal, if it was asked to.
    pub fn build(&mut self, id: usize) -> bool {
        let next = self.hosts[id].building.as_mut().and_then(VecDeque::pop_front);
        let Some((ticket, made)) = next.map(|make| make.make()) else { return false };
        self.input(id, Input::Made(ticket, made));
        true
    }

    fn carry_out(&mut self, id: usize, actions: Vec<Action>) {
        for action in actions {
            self.act(id, action);
        }
        if self.hosts[id].fast_disk {
            self.sync(id);
        }
        if self.hosts[id].fast_machine {
            self.work(id);
        }
    }

    fn act(&mut self, id: usize, action: Action) {
        let host = &mut self.hosts[id];
        match action {
            Action::Append { seq, bytes, .. } => {
                assert_eq!(seq, host.next_seq, "records come in order");
                host.next_seq = seq.next();
                host.journal.push(OnDisk { seq, bytes, damaged: None });
            }
            Action::Send { to: To::One(to), bytes, label } => self.send(Flying { from: replica(id), to, label, bytes }),
            Action::Send { to: To::Others, bytes, label } => {
                for to in (0..self.hosts.len()).filter(|to| *to != id).map(replica) {
                    self.send(Flying { from: replica(id), to, label, bytes: bytes.clone() });
                }
            }
            Action::Run(job) => host.process.iter_mut().next().expect("it acts").jobs.push_back(job),
            Action::Note(note) => host.notes.push(note),
            Action::Halt(reason) => host.halted = Some(reason),
            Action::Forget(before) => host.journal.retain(|record| record.seq >= before),
            other => self.act_on_snapshots(id, other),
        }
    }

    fn act_on_snapshots(&mut self, id: usize, action: Action) {
        let host = &mut self.hosts[id];
        let input = match action {
            Action::Save(mut save) => {
                let chunks = (0..).zip(std::iter::from_fn(|| save.next_chunk().map(Bytes::from))).collect();
                let manifest = save.finish();
                let checkpoint = manifest.checkpoint();
                host.snapshots.insert(checkpoint, (manifest, chunks));
                Input::Saved(checkpoint)
            }
            Action::Read { to, checkpoint, part } => {
                let stored = host.snapshots.get(&checkpoint);
                let bytes = stored.and_then(|(manifest, chunks)| match part {
                    Part::Manifest => Some(Bytes::from(manifest.encode())),
                    Part::Chunk(index) => chunks.get(&index).cloned(),
                });
                Input::Read { to, checkpoint, part, bytes }
            }
            Action::Prepare(manifest) => {
                let missing = (0..).take(manifest.chunks.len()).collect();
                host.staged.insert(manifest.checkpoint(), (manifest.clone(), BTreeMap::new()));
                Input::Prepared(manifest, missing)
            }
            Action::Put(checkpoint, index, bytes) => {
                host.staged.entry(checkpoint).and_modify(|it| drop(it.1.insert(index, bytes)));
                return;
            }
            Action::Finish(checkpoint) => {
                let stored = host.staged.remove(&checkpoint).expect("it was prepared");
                host.snapshots.insert(checkpoint, stored);
                Input::Stored(checkpoint)
            }
            Action::Install(checkpoint) => {
                let (manifest, chunks) = host.snapshots[&checkpoint].clone();
                let job = Job::Install { manifest, chunks: Box::new(InMemory(chunks)) };
                return host.process.as_mut().expect("it acts").jobs.push_back(job);
            }
            Action::ForgetSnapshots(before) => {
                host.snapshots.retain(|checkpoint, _| checkpoint.op >= before);
                return;
            }
            Action::Make(make) => {
                if let Some(building) = &mut host.building {
                    return building.push_back(make);
                }
                let (ticket, made) = make.make();
                Input::Made(ticket, made)
            }
            _ => unreachable!("handled by the caller"),
        };
        self.input(id, input);
    }

    pub fn send(&mut self, it: Flying) {
        self.sent.push(it.clone());
        self.flying.push_back(it);
    }
}

/// Looking.
impl Cluster {
    pub fn status(&self, id: usize) -> Status {
        self.hosts[id].process.as_ref().expect("it runs").node.replica().status()
    }

    pub fn tape(&self, id: usize) -> Vec<String> {
        self.hosts[id].process.as_ref().expect("it runs").executor.machine().text()
    }

    pub fn machine(&self, id: usize) -> &Tape {
        self.hosts[id].process.as_ref().expect("it runs").executor.machine()
    }

    /// Who leads the highest view, if it has started at a replica that runs.
    pub fn primary(&self) -> Option<usize> {
        let running = (0..self.hosts.len()).filter(|id| self.hosts[*id].process.is_some());
        let leaders = running.filter(|id| self.status(*id).role == "primary");
        leaders.max_by_key(|id| self.status(*id).view)
    }

    /// Does this replica lead?
    pub fn leads(&self, id: usize) -> bool {
        self.primary() == Some(id)
    }

    pub fn view(&self, id: usize) -> View {
        self.status(id).view
    }

    /// All messages that were sent since the last call, as `R0 Prepare R1`.
    pub fn talk(&mut self) -> Vec<String> {
        std::mem::take(&mut self.sent).iter().map(|it| format!("{} {} {}", it.from, it.label, it.to)).collect()
    }

    /// How many messages of this name were sent since the last [`Cluster::talk`].
    pub fn count(&self, label: &str) -> usize {
        self.sent.iter().filter(|it| it.label == label).count()
    }

    /// Everybody who runs is in the same state, and it is this.
    pub fn agrees(&self, tape: &[&str]) -> bool {
        let running = (0..self.hosts.len()).filter(|id| self.hosts[*id].process.is_some());
        running.into_iter().all(|id| self.tape(id) == tape)
    }

    /// The reasons why this replica ignored messages, and how often it blamed.
    pub fn blamed(&self, id: usize) -> u64 {
        self.hosts[id].process.as_ref().expect("it runs").node.ledger().blamed().values().sum()
    }

    /// The last message of this name that was sent from one to the other.
    pub fn last(&self, from: usize, label: &str) -> Message {
        let found = self.sent.iter().rev().find(|it| it.from == replica(from) && it.label == label);
        found.and_then(Flying::message).unwrap_or_else(|| panic!("R{from} sent no {label}"))
    }
}
