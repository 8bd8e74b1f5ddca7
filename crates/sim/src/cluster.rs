//! The world: replicas, clients, links and disks on one thread and one virtual clock. Pops the next event, lets it happen.
//!
//! Chapters: `turns.rs` (replicas), `calls.rs` (clients), `nemesis.rs` (what goes wrong).

use crate::adversary::{Adversary, Frame, Lies};
use crate::broker::Broker;
use crate::checker::watches::Watches;
use crate::checker::{Property, Violation, Witness};
use crate::client::ClientProcess;
use crate::clock::{Clock, MILLI, Queue, SECOND};
use crate::faults::{Aspect, Fault, Faults};
use crate::history::History;
use crate::misfortune::{Fortune, Misfortune, Moment, Struck};
use crate::network::{Fate, Network};
use crate::process::Process;
use crate::protocols::Rejoin;
use crate::random::Random;
use crate::report::Counts;
use crate::trace::{Recording, Trace, Travel, What, name, words};
use crate::workload::Workload;
use bytes::Bytes;
use quorate_core::executor::{Make, Save};
use quorate_core::ids::{Peer, RecordSeq, ReplicaId, View};
use quorate_core::machine::Machine;
use quorate_core::node::{Input, Payload};
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;
use quorate_core::transfer;
use quorate_core::wire::Envelope;
use std::collections::BTreeSet;

/// Events after which a run is a storm of messages that feeds itself: a hundred times what a run of a few hundred calls has.
const EVENTS_MAX: u64 = 2_000_000;

/// How long a run that is recorded goes on after a violation, virtual nanoseconds.
const AFTERMATH: u64 = 15 * MILLI;
/// Events that happen after a violation, at most.
const AFTERMATH_EVENTS_MAX: u64 = 150;

/// What a run is made of.
pub struct Setup<P: Protocol, M> {
    /// Decides everything.
    pub seed: u64,
    /// How many replicas.
    pub replicas: usize,
    /// How many clients.
    pub clients: usize,
    /// Calls that the clients make on their own in all; none in a scripted run.
    pub calls: u64,
    /// Some of them write two registers at once.
    pub pairs: bool,
    /// Of how many levels of criticality each write may name one; 0 for none.
    pub levels: u8,
    /// What may go wrong. Every seed draws its own rates.
    pub faults: Faults,
    /// So many replicas lie, if the faults have lies.
    pub liars: usize,
    /// What a liar makes of the protocol's messages.
    pub lies: Option<Box<dyn Lies<P>>>,
    /// How a replica whose disk is lost comes back.
    pub rejoin: Option<Rejoin<P>>,
    /// The protocol's configuration.
    pub config: P::Config,
    /// The machine's first state.
    pub machine: fn() -> M,
    /// Keep what happens.
    pub trace: bool,
    /// If there is a list, nothing else goes wrong.
    pub only: Option<BTreeSet<Misfortune>>,
}

/// Something that is going to happen.
pub enum Event {
    /// A frame arrives.
    Frame { from: Peer, to: Peer, bytes: Bytes, travel: Travel },
    /// A frame arrives at the other one of twins.
    Twin { from: Peer, place: usize, bytes: Bytes, travel: Travel },
    /// A liar says late what it had to say.
    Speak { from: usize, to: Peer, bytes: Bytes, label: &'static str },
    /// The node's deadline may have passed.
    Wake { replica: usize, life: u32 },
    /// The host reports something to the node.
    Report { replica: usize, life: u32, input: Input },
    /// The disk has synced everything appended through this record.
    Synced { replica: usize, life: u32, seq: RecordSeq },
    /// Records that nobody waits for have waited for long enough.
    SyncAnyhow { replica: usize, life: u32 },
    /// The executor has done the job in front.
    Worked { replica: usize, life: u32 },
    /// The machine has added to a batch.
    Make { replica: usize, life: u32, make: Box<dyn Make> },
    /// A snapshot has been written out.
    Save { replica: usize, life: u32, save: Box<dyn Save> },
    /// A replica starts (again).
    Start { replica: usize },
    /// A replica that stood still goes on.
    Resume { replica: usize, life: u32 },
    /// A cut of the network ends.
    Heal { cut: u64 },
    /// A client's deadline may have passed.
    ClientWake { client: usize, life: u32 },
    /// A client has thought enough.
    Think { client: usize, life: u32 },
    /// A client's link to a replica comes up, if nothing is in its way.
    LinkUp { client: usize, life: u32, replica: usize },
    /// A client notices that its link to a replica is down: the replica has died for the `deaths`-th time.
    LinkDown { client: usize, life: u32, replica: usize, deaths: u32 },
    /// Misfortune looks around.
    Nemesis,
    /// There is room on a replica's disk again.
    Room { replica: usize },
    /// The owner of a replica whose disk is lost sees whether it can come back.
    Recover { replica: usize },
}

impl Event {
    /// The replica to which it happens, and in which of its lives.
    fn replica(&self) -> Option<(usize, Option<u32>)> {
        match self {
            Event::Frame { to: Peer::Replica(id), .. } => Some((id.index(), None)),
            Event::Twin { place, .. } => Some((*place, None)),
            Event::Wake { replica, life }
            | Event::Report { replica, life, .. }
            | Event::Synced { replica, life, .. }
            | Event::SyncAnyhow { replica, life }
            | Event::Worked { replica, life }
            | Event::Make { replica, life, .. }
            | Event::Save { replica, life, .. } => Some((*replica, Some(*life))),
            _ => None,
        }
    }
}

/// A cluster in a run.
pub struct Cluster<P: Protocol, M> {
    pub(crate) queue: Queue<Event>,
    pub(crate) network: Network,
    pub(crate) broker: Broker,
    pub(crate) replicas: Vec<Process<P, M>>,
    pub(crate) clients: Vec<ClientProcess<P>>,
    pub(crate) workload: Workload,
    pub(crate) history: History,
    pub(crate) witness: Witness,
    /// From how many levels of criticality writes draw one, and by which luck.
    pub(crate) levels: (u8, u64),
    pub(crate) watches: Watches,
    pub(crate) adversary: Adversary<P>,
    /// Replicas in the group. There is one process more if one of them has a twin.
    pub(crate) members: usize,
    pub(crate) counts: Counts,
    pub(crate) trace: Trace,
    pub(crate) faults: Faults,
    pub(crate) entropy: Random,
    pub(crate) nemesis: Random,
    pub(crate) looks: Random,
    pub(crate) fortune: Fortune,
    pub(crate) rot_victim: usize,
    /// Disks that were replaced.
    pub(crate) disks_lost: u64,
    /// Does an owner bring back a replica that cannot come back by itself?
    pub(crate) owned: bool,
    pub(crate) rejoin: Option<Rejoin<P>>,
    /// The greatest view that has started anywhere, and who leads it.
    pub(crate) leader: Option<(View, usize)>,
    pub(crate) patience: (Duration, Duration),
    pub(crate) violation: Option<Violation>,
    pub(crate) audits: Vec<quorate_core::crypto::Digest>,
    pub(crate) held: Vec<(Travel, Bytes)>,
    config: P::Config,
    machine: fn() -> M,
}

impl<P: Protocol, M: Machine> Cluster<P, M> {
    /// All processes start now.
    pub fn new(setup: Setup<P, M>) -> Self {
        let mut random = Random::new(setup.seed);
        // The broker has luck of its own: without one, a seed is the same run as where there are no brokers.
        let levels = (setup.levels, setup.seed);
        let (of_broker, faults) = setup.faults.split();
        let broker = Broker::new(setup.seed, &of_broker);
        let faults = faults.drawn(&mut random);
        let mut network = Network::new(random.fork(), &faults);
        let workload = Workload::new(random.fork(), setup.calls, setup.pairs);
        let (entropy, nemesis, looks) = (random.fork(), random.fork(), random.fork());
        let mut fortune = Fortune::new(random.bits(), setup.only);
        let mut always = |fault| faults.has(fault) && fortune.allows(Moment::Beginning, fault, 0);
        let (skewed, impatient) = (always(Fault::ClockSkew), always(Fault::ClientRetry));
        if faults.has(Fault::Jitter) && !always(Fault::Jitter) {
            network.even();
        }
        let rot_victim = random.index(setup.replicas);
        let decays = [Fault::BitRot, Fault::Misdirected].iter().any(|fault| faults.has(*fault));
        let rots = |id: ReplicaId| id.index() == rot_victim && decays;
        let rushes = always(Fault::ClockRush);
        let drift = faults.aspect(Aspect::ClockDrift);
        let owned = faults.has(Fault::LostDisk) && setup.rejoin.is_some() && setup.replicas > 2;
        let ids = (0..setup.replicas).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new);
        let mut replicas: Vec<_> = ids
            .map(|id| Process::new(id, setup.replicas, clock(&mut random, skewed, rushes, drift), rots(id)))
            .collect();
        let liars = if Fault::ALL.iter().any(|fault| fault.is_lie() && faults.has(*fault)) { setup.liars } else { 0 };
        let mut adversary = if liars == 0 {
            Adversary::none()
        } else {
            let clients = (0..setup.clients).map(|index| Peer::Client(crate::client::address(index, 0)));
            let peers: Vec<Peer> = replicas.iter().map(|it| Peer::Replica(it.id)).chain(clients).collect();
            Adversary::new(random.fork(), &faults, liars, &peers, setup.lies)
        };
        if adversary.twins().is_some() && !always(Fault::Twins) {
            adversary.no_twins();
        }
        if let Some(original) = adversary.twins().and_then(|twins| replicas.get(twins.original)) {
            let copy = Process::new(original.id, setup.replicas, clock(&mut random, skewed, rushes, drift), false);
            replicas.push(copy);
        }
        let retry = if impatient { random.between(4, 40) } else { 150 };
        let patience = (Duration::from_millis(retry), Duration::from_secs(10));
        let count = setup.replicas;
        let mut clients: Vec<_> =
            (0..setup.clients).map(|index| ClientProcess::new(index, 0, count, patience.0, patience.1)).collect();
        clients.iter_mut().for_each(ClientProcess::knows::<M>);
        let mut cluster = Self {
            queue: Queue::default(),
            network,
            broker,
            replicas,
            clients,
            workload,
            levels,
            history: History::default(),
            witness: Witness::default(),
            watches: Watches::default(),
            adversary,
            members: setup.replicas,
            counts: Counts::default(),
            trace: Trace::new(setup.trace),
            faults,
            entropy,
            nemesis,
            looks,
            fortune,
            rot_victim,
            disks_lost: 0,
            owned,
            rejoin: setup.rejoin,
            leader: None,
            patience,
            violation: None,
            audits: Vec::new(),
            held: Vec::new(),
            config: setup.config,
            machine: setup.machine,
        };
        for (fault, count) in [
            (Fault::Twins, usize::from(cluster.adversary.twins().is_some())),
            (Fault::ClockSkew, if skewed { setup.replicas } else { 0 }),
            (Fault::ClockRush, if rushes { setup.replicas } else { 0 }),
            (Fault::ClientRetry, if retry < 150 { setup.clients } else { 0 }),
        ] {
            (0..count).for_each(|_| cluster.counts.fault(fault));
        }
        cluster.begin(setup.calls > 0);
        cluster
    }

    fn begin(&mut self, busy: bool) {
        for replica in 0..self.replicas.len() {
            let delay = self.nemesis.below(5 * MILLI);
            self.queue.after(delay, Event::Start { replica });
        }
        if busy {
            for client in 0..self.clients.len() {
                self.workload.begin(client);
                let delay = 5 * MILLI + self.workload.think();
                self.queue.after(delay, Event::Think { client, life: 0 });
            }
            self.queue.after(20 * MILLI, Event::Nemesis);
        }
    }

    /// What happened, if a trace was wanted.
    pub fn into_recording(self) -> Recording {
        self.into_recording_and_struck().0
    }

    /// What happened, if a trace was wanted, and what went wrong.
    pub(crate) fn into_recording_and_struck(self) -> (Recording, Vec<Struck>) {
        let recording = self.trace.into_recording(self.replicas.len(), self.clients.len());
        (recording, self.fortune.into_struck())
    }

    /// Virtual nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        self.queue.now()
    }

    /// What was violated first, if anything.
    pub fn violation(&self) -> Option<&Violation> {
        self.violation.as_ref()
    }

    /// Forgets what was violated, so that a script can show where it leads; returns it.
    pub fn go_on(&mut self) -> Option<Violation> {
        self.violation.take()
    }

    /// What clients asked and were told.
    pub fn history(&self) -> &History {
        &self.history
    }

    /// A replica's machine; `None` while the replica is down.
    pub fn machine(&self, replica: usize) -> Option<&M> {
        self.replicas.get(replica)?.running.as_ref().map(|running| running.executor.machine())
    }

    /// Lets the next event happen. False when nothing will ever happen again, or something was violated.
    pub fn step(&mut self) -> bool {
        self.violation.is_none() && self.advance() && self.violation.is_none()
    }

    /// Lets things go on for a while after a violation, to see where it leads. The violation stays what it is.
    pub(crate) fn aftermath(&mut self) {
        let end = self.now().saturating_add(AFTERMATH);
        let events = self.counts.events.saturating_add(AFTERMATH_EVENTS_MAX);
        while self.queue.next_at().is_some_and(|at| at <= end) && self.counts.events < events && self.advance() {}
    }

    /// Lets the next event happen, whatever was violated. False when nothing will ever happen again.
    fn advance(&mut self) -> bool {
        let Some(event) = self.queue.pop() else { return false };
        self.counts.events = self.counts.events.saturating_add(1);
        if self.counts.events > EVENTS_MAX {
            self.violate(
                Property::NO_STORM,
                format!("{} events, the last ones at one another's heels", self.counts.events),
            );
            return false;
        }
        if let Some((replica, life)) = event.replica() {
            let Some(process) = self.replicas.get_mut(replica) else { return true };
            if process.running.is_none() || life.is_some_and(|life| life != process.life) {
                if let Event::Frame { travel, .. } = event {
                    self.trace.add(self.queue.now(), || What::Missed(travel));
                }
                return true; // it happens to a process that is dead
            }
            if let Some(deferred) = &mut process.paused {
                deferred.push(event);
                return true;
            }
        }
        self.happen(event);
        true
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Frame { from, to: Peer::Replica(to), bytes, travel } => {
                self.on_frame(from, to.index(), bytes, travel);
            }
            Event::Frame { from, to: Peer::Client(to), bytes, travel } => {
                self.on_client_frame(from, to, &bytes, travel);
            }
            Event::Twin { from, place, bytes, travel } => self.on_frame(from, place, bytes, travel),
            Event::Speak { from, to, bytes, label } => self.speak(from, to, bytes, label),
            Event::Wake { replica, .. } => self.on_wake(replica),
            Event::Report { replica, input, .. } => self.input(replica, input),
            Event::Synced { replica, seq, .. } => self.on_synced(replica, seq),
            Event::SyncAnyhow { replica, .. } => self.on_sync_anyhow(replica),
            Event::Worked { replica, .. } => self.on_worked(replica),
            Event::Make { replica, make, .. } => self.on_make(replica, make),
            Event::Save { replica, save, .. } => self.on_save(replica, save),
            Event::Start { replica } => self.start(replica),
            Event::Resume { replica, life } => self.resume(replica, life),
            Event::Heal { cut } => {
                self.trace.add(self.queue.now(), || What::Healed(format!("cut {cut} heals")));
                self.network.heal(cut);
            }
            Event::ClientWake { client, life } => self.on_client_wake(client, life),
            Event::Think { client, life } => self.on_think(client, life),
            Event::LinkUp { client, life, replica } => self.on_link_up(client, life, replica),
            Event::LinkDown { client, life, replica, deaths } => self.on_link_down(client, life, replica, deaths),
            Event::Nemesis => self.on_nemesis(),
            Event::Room { replica } => self.on_room(replica),
            Event::Recover { replica } => self.on_recover(replica),
        }
    }

    /// Runs until `time`, or until something is violated.
    pub fn run_until(&mut self, time: u64) {
        while self.queue.next_at().is_some_and(|at| at <= time) && self.step() {}
        self.queue.advance(time);
    }

    /// Lets a frame leave.
    pub(crate) fn transmit(&mut self, from: Peer, to: Peer, bytes: Bytes, label: &'static str) {
        let travel = self.trace.sent(self.queue.now(), (from, to), label, || content::<P>(&bytes));
        self.dispatch(travel, bytes);
    }

    /// Decides what becomes of a frame that has left, or that a scenario had kept back.
    pub(crate) fn dispatch(&mut self, travel: Travel, bytes: Bytes) {
        let (now, Travel { from, to, .. }) = (self.now(), travel);
        let fate = self.network.fate(from, to, now, &mut self.fortune);
        match &fate {
            Fate::Arrives(_) => {} // will be an event of its own
            Fate::Lost => self.trace.add(now, || What::Lost(travel)),
            Fate::Cut => self.trace.add(now, || What::Cut(travel)),
            Fate::Held => self.trace.add(now, || What::Held(travel)),
        }
        match fate {
            Fate::Arrives(delays) => {
                self.counts.messages = self.counts.messages.saturating_add(1);
                if delays.len() > 1 {
                    self.counts.fault(Fault::Duplication);
                }
                for delay in delays {
                    self.arrive(from, delay, bytes.clone(), travel);
                }
            }
            Fate::Lost => self.counts.fault(Fault::Loss),
            Fate::Cut => self.counts.cut = self.counts.cut.saturating_add(1),
            Fate::Held => self.held.push((travel, bytes)),
        }
    }

    /// A frame will arrive, as if from `from`, at whoever bears the name that it travels to.
    pub(crate) fn arrive(&mut self, from: Peer, delay: u64, bytes: Bytes, travel: Travel) {
        let (now, to) = (self.now(), travel.to);
        let twins = self.adversary.twins().filter(|twins| is_at(to, twins.original));
        if let Some(twins) = twins.filter(|twins| twins.meets(travel.from, twins.copy, now)) {
            let (place, bytes) = (twins.copy, bytes.clone());
            self.queue.after(delay, Event::Twin { from, place, bytes, travel });
        }
        if twins.is_none_or(|twins| twins.meets(travel.from, twins.original, now)) {
            self.queue.after(delay, Event::Frame { from, to, bytes, travel });
        }
    }

    /// A replica says something to a peer; if it lies, something else, or at another time.
    pub(crate) fn say(&mut self, replica: usize, to: Peer, bytes: Bytes, label: &'static str) {
        if !self.adversary.lies(replica) {
            return self.speak(replica, to, bytes, label);
        }
        let now = self.now();
        let frame = Frame { to, bytes, label, delay: 0 };
        let (frames, told) = self.adversary.speak(replica, frame, &mut self.fortune, now);
        for (fault, count) in told {
            (0..count).for_each(|_| self.counts.fault(fault));
            let lie = || format!("{fault}, with a {label} to {}", name(to));
            self.trace.add(now, || What::Lied { replica, lie: lie() });
        }
        for Frame { to, bytes, label, delay } in frames {
            if delay == 0 {
                self.speak(replica, to, bytes, label);
            } else {
                self.queue.after(delay, Event::Speak { from: replica, to, bytes, label });
            }
        }
    }

    /// Lets a replica's frame leave. Of twins, the one that a peer does not meet is not heard by it.
    fn speak(&mut self, replica: usize, to: Peer, bytes: Bytes, label: &'static str) {
        let now = self.now();
        let Some(from) = self.replicas.get(replica).map(|process| Peer::Replica(process.id)) else { return };
        let twins = self.adversary.twins().filter(|twins| is_at(from, twins.original));
        if twins.is_none_or(|twins| twins.meets(to, replica, now)) {
            self.transmit(from, to, bytes, label);
        }
    }

    /// Starts a replica from what its disk holds.
    pub(crate) fn start(&mut self, replica: usize) {
        let (now, entropy) = (self.now(), self.entropy.bits());
        let (config, machine) = (self.config.clone(), self.machine);
        let Some(process) = self.replicas.get_mut(replica) else { return };
        let away = process.stopped.is_some() || process.lost.is_some() || process.spared;
        if process.running.is_some() || away {
            return;
        }
        process.storage.full(process.full_until > now);
        let turn = process.turn(now, entropy);
        let started = process.start(config, machine, turn);
        let life = process.life;
        match started {
            Ok(actions) => {
                self.trace.add(now, || What::Started { replica, life });
                for client in 0..if replica < self.members { self.clients.len() } else { 0 } {
                    self.connect(client, replica);
                }
                self.look_at(replica);
                self.carry_out(replica, actions);
                self.rearm(replica);
            }
            Err(error) => self.did_not_start(replica, &error),
        }
    }

    pub(crate) fn violate(&mut self, property: &'static str, detail: String) {
        let now = self.now();
        if self.violation.is_none() {
            self.trace.add(now, || What::Violated { property, detail: detail.clone() });
            self.violation = Some(Violation { property, detail, at: now });
        }
    }
}

/// What a frame says, in words.
fn content<P: Protocol>(bytes: &[u8]) -> String {
    match Envelope::open::<Payload<P::Message>>(bytes) {
        Ok((_, Payload::Protocol(message))) => P::content(&message, &words),
        Ok((_, Payload::Transfer(message))) => transfer(&message),
        Ok((_, Payload::Service(message))) => format!("\n{message:?}"),
        Err(error) => format!("\n{error}"),
    }
}

fn transfer(message: &transfer::Message) -> String {
    match message {
        transfer::Message::GetManifest(checkpoint) => {
            format!("{}\nwhat does this checkpoint consist of?", checkpoint.op)
        }
        transfer::Message::Manifest(manifest) => format!("{}\nof this", manifest.checkpoint().op),
        transfer::Message::Unavailable(checkpoint) => format!("{}\nI do not have it", checkpoint.op),
        transfer::Message::GetChunk(checkpoint, index) => format!("{} #{index}\n", checkpoint.op),
        transfer::Message::Chunk(checkpoint, index, bytes) => {
            format!("{} #{index}\n{} bytes", checkpoint.op, bytes.len())
        }
    }
}

fn is_at(peer: Peer, place: usize) -> bool {
    matches!(peer, Peer::Replica(id) if id.index() == place)
}

/// `part`: per cent of the usual drift.
fn clock(random: &mut Random, skewed: bool, rushes: bool, part: u32) -> Clock {
    let start = random.below(1000 * SECOND);
    if rushes {
        let drift = i64::try_from(random.below(1_400_001)).unwrap_or(0) - 700_000; // up to 70 % slower or faster
        return Clock { start, drift, skew: 0 };
    }
    if !skewed {
        return Clock { start, ..Clock::default() };
    }
    let drift = i64::try_from(random.below(401)).unwrap_or(0) - 200; // millionths; a bad quartz has 100
    let drift = drift.saturating_mul(i64::from(part)) / 100;
    let skew = i64::try_from(random.below(4 * SECOND)).unwrap_or(0) - 2_000_000_000;
    Clock { start, drift, skew }
}
