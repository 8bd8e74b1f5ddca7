//! A tiny cluster without luck and time: everything that can happen next is a choice.

use super::Scope;
use crate::client::address;
use crate::process::CLUSTER;
use crate::protocols::Simulated;
use crate::registers::{Operation, Registers};
use crate::trace::{name, words};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{Epoch, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::node::{Action, Identity, Input, Node, Payload};
use quorate_core::outbox::{To, Turn};
use quorate_core::protocol::{
    Call, Client, ClientConfig, ClientEffect, ClientOutbox, Replica, Restore, Restored, Ticket,
};
use quorate_core::time::{Duration, Instant, WallTime};
use quorate_core::wire::{Envelope, Wire};
use std::collections::{BTreeMap, VecDeque};
use std::fmt::{Debug, Write};
use std::sync::Arc;

/// One thing that can happen next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The oldest message of a link arrives.
    Deliver(Peer, Peer),
    /// The oldest message of a link is lost.
    Lose(Peer, Peer),
    /// A replica's next timer rings.
    Ring(usize),
    /// A replica dies; what was sent to it is gone.
    Crash(usize),
    /// A replica starts from its disk.
    Start(usize),
}

struct Host<P: Simulated> {
    running: Option<(Node<P>, Executor<Registers>)>,
    journal: Vec<Vec<u8>>,
    clock: Instant,
    lives: u64,
    rings: u64,
}

struct Caller<P: Simulated> {
    core: P::Client,
    answers: usize,
    /// Names all that it was told, in order: what it knows follows from that.
    heard: Digest,
}

/// A message on its way.
struct Flying {
    bytes: Bytes,
    label: &'static str,
    /// Its place in the order of sending.
    number: u64,
}

/// The cluster.
pub struct World<P: Simulated> {
    hosts: Vec<Host<P>>,
    callers: Vec<Caller<P>>,
    links: BTreeMap<(Peer, Peer), VecDeque<Flying>>,
    /// Messages that were sent so far.
    sent: u64,
    /// What was executed first as each entry, and by whom.
    executed: BTreeMap<OpNumber, (usize, Digest)>,
    left: Scope,
    violation: Option<String>,
}

fn replica(index: usize) -> Peer {
    Peer::Replica(ReplicaId::new(u8::try_from(index).unwrap_or(u8::MAX)))
}

fn place(peer: Peer) -> usize {
    match peer {
        Peer::Replica(id) => id.index(),
        Peer::Client(id) => crate::client::whose(id).map_or(usize::MAX, |(client, _)| client),
    }
}

impl<P: Simulated> World<P>
where
    P::Config: Default,
    P::Replica: Debug,
{
    /// All replicas have started, and all clients have called.
    pub fn new(scope: &Scope) -> Self {
        let host = || Host { running: None, journal: Vec::new(), clock: Instant::from_nanos(1), lives: 0, rings: 0 };
        let patience = Duration::from_secs(1);
        let caller = |index| {
            let client = address(index, 0);
            let config = ClientConfig { client, replicas: scope.replicas, retry: patience, timeout: patience };
            let keyring = Keyring::simulated_client(CLUSTER, Epoch::ZERO, scope.replicas, client);
            Caller { core: P::Client::start(config, Arc::new(keyring)), answers: 0, heard: Digest::default() }
        };
        let mut world = Self {
            hosts: (0..scope.replicas).map(|_| host()).collect(),
            callers: (0..scope.clients).map(caller).collect(),
            links: BTreeMap::new(),
            sent: 0,
            executed: BTreeMap::new(),
            left: *scope,
            violation: None,
        };
        for index in 0..scope.replicas {
            world.start(index);
        }
        for index in 0..scope.clients {
            let value = index as u64 + 1;
            let call = Call::Apply(Operation::Put { key: 0, value }.encode().into());
            let links = (0..scope.replicas).filter_map(|it| u8::try_from(it).ok()).map(ReplicaId::new);
            world.client_turn(index, |core, out| {
                links.for_each(|replica| core.on_connected(replica, out));
                core.submit(Ticket(value), call, out);
                core.flush(out);
            });
        }
        world
    }

    /// The world after these choices; each is an index into what could be chosen then.
    pub fn after(scope: &Scope, path: &[u8]) -> Self {
        let mut world = Self::new(scope);
        for index in path {
            if let Some(choice) = world.choices().get(usize::from(*index)) {
                world.take(*choice);
            }
        }
        world
    }

    /// What happens on a path, in words.
    pub fn tell(scope: &Scope, path: &[u8]) -> Vec<String> {
        let mut world = Self::new(scope);
        let mut told = Vec::new();
        for index in path {
            let Some(choice) = world.choices().get(usize::from(*index)).copied() else { continue };
            told.push(world.words(choice));
            world.take(choice);
        }
        told
    }

    /// Everything that can happen next, in a fixed order.
    pub fn choices(&self) -> Vec<Choice> {
        let mut choices: Vec<Choice> = self.links.keys().map(|(from, to)| Choice::Deliver(*from, *to)).collect();
        if self.left.losses > 0 {
            choices.extend(self.links.keys().map(|(from, to)| Choice::Lose(*from, *to)));
        }
        for (index, host) in self.hosts.iter().enumerate() {
            match &host.running {
                None => choices.push(Choice::Start(index)),
                Some((node, _)) => {
                    // A primary's timers only say again what it said: no message is lost for good that it need say again.
                    let leads = node.replica().status().role.starts_with("primary");
                    if self.left.timeouts > 0 && node.deadline().is_some() && !leads {
                        choices.push(Choice::Ring(index));
                    }
                    if self.left.crashes > 0 {
                        choices.push(Choice::Crash(index));
                    }
                }
            }
        }
        if self.left.deviations == Some(0) {
            choices.retain(|choice| !self.deviates(*choice));
        }
        choices
    }

    /// Is it something else's turn?
    fn deviates(&self, choice: Choice) -> bool {
        let heads = self.links.iter().filter_map(|(link, waiting)| Some((waiting.front()?.number, *link)));
        let first = heads.min().map(|(_, link)| link);
        match choice {
            Choice::Deliver(from, to) => first != Some((from, to)),
            Choice::Ring(_) | Choice::Start(_) => first.is_some(),
            Choice::Lose(..) | Choice::Crash(_) => false,
        }
    }

    /// Lets one thing happen.
    pub fn take(&mut self, choice: Choice) {
        if self.deviates(choice) {
            self.left.deviations = self.left.deviations.map(|left| left.saturating_sub(1));
        }
        match choice {
            Choice::Deliver(from, to) => {
                if let Some(flying) = self.pop(from, to) {
                    self.input(place(to), Input::Frame { from, bytes: flying.bytes });
                }
            }
            Choice::Lose(from, to) => {
                self.left.losses = self.left.losses.saturating_sub(1);
                self.pop(from, to);
            }
            Choice::Ring(index) => {
                self.left.timeouts = self.left.timeouts.saturating_sub(1);
                if let Some(host) = self.hosts.get_mut(index) {
                    let deadline = host.running.as_ref().and_then(|(node, _)| node.deadline());
                    host.clock = deadline.unwrap_or(host.clock).max(host.clock);
                    host.rings = host.rings.saturating_add(1);
                }
                self.input(index, Input::Timers);
            }
            Choice::Crash(index) => {
                self.left.crashes = self.left.crashes.saturating_sub(1);
                if let Some(host) = self.hosts.get_mut(index) {
                    host.running = None;
                    host.lives = host.lives.saturating_add(1);
                }
                self.links.retain(|(_, to), _| *to != replica(index));
            }
            Choice::Start(index) => self.start(index),
        }
    }

    fn pop(&mut self, from: Peer, to: Peer) -> Option<Flying> {
        let link = self.links.get_mut(&(from, to))?;
        let popped = link.pop_front();
        if link.is_empty() {
            self.links.remove(&(from, to));
        }
        popped
    }

    fn send(&mut self, from: Peer, to: Peer, bytes: Bytes, label: &'static str) {
        let is_down = |index: usize| self.hosts.get(index).is_none_or(|host| host.running.is_none());
        match to {
            Peer::Replica(id) if is_down(id.index()) => {} // there is nobody
            Peer::Client(_) => self.hear(place(to), from, &bytes),
            _ => {
                self.sent = self.sent.saturating_add(1);
                let flying = Flying { bytes, label, number: self.sent };
                self.links.entry((from, to)).or_default().push_back(flying);
            }
        }
    }

    fn start(&mut self, index: usize) {
        let replicas = self.hosts.len();
        let Some(host) = self.hosts.get_mut(index) else { return };
        let turn = host.turn();
        let Peer::Replica(id) = replica(index) else { return };
        let found = host.journal.iter().zip(1_u64..).map(|(bytes, seq)| match P::Record::decode(bytes) {
            Ok(record) => Restored::Found { seq: RecordSeq::new(seq), record },
            Err(_) => Restored::Damaged { seq: RecordSeq::new(seq), at_most: 1, class: None },
        });
        let (records, config) = (found.collect(), P::Config::default());
        let (tail_damaged, checkpoint, wake) = (false, None, None);
        let restore = Restore { replica: id, replicas, config, records, tail_damaged, checkpoint, wake };
        let identity = Identity { cluster: CLUSTER, epoch: Epoch::ZERO, replica: id };
        let next = RecordSeq::new(host.journal.len() as u64 + 1);
        let keyring = Arc::new(Keyring::simulated_replica(CLUSTER, Epoch::ZERO, replicas, id));
        match Node::start_with(identity, keyring, restore, next, false, turn) {
            Ok((node, actions)) => {
                host.running = Some((node, Executor::new(Registers::default())));
                self.carry_out(index, actions);
            }
            Err(error) => self.violate(format!("R{index} does not start: {error}")),
        }
    }

    fn input(&mut self, index: usize, input: Input) {
        let Some(host) = self.hosts.get_mut(index) else { return };
        let turn = host.turn();
        let Some((node, _)) = &mut host.running else { return };
        let mut actions = Vec::new();
        node.handle(input, turn, &mut actions);
        if let Err(broken) = node.replica().check() {
            self.violate(format!("R{index}: {broken}"));
        }
        self.carry_out(index, actions);
    }

    /// Carries actions out, and what follows: the disk syncs and the machine works at once.
    fn carry_out(&mut self, index: usize, actions: Vec<Action>) {
        let from = replica(index);
        let mut synced = None;
        let mut done = Vec::new();
        for action in actions {
            match action {
                Action::Append { seq, bytes, .. } => {
                    if let Some(host) = self.hosts.get_mut(index) {
                        host.journal.push(bytes);
                    }
                    synced = Some(seq);
                }
                Action::Send { to: To::One(to), bytes, label } => self.send(from, to, bytes, label),
                Action::Send { to: To::Others, bytes, label } => {
                    for other in (0..self.hosts.len()).filter(|other| *other != index) {
                        self.send(from, replica(other), bytes.clone(), label);
                    }
                }
                Action::Run(job) => done.extend(self.work(index, job)),
                Action::Halt(why) => self.violate(format!("R{index} halts: {why}")),
                Action::Note(_) | Action::Forget(_) | Action::ForgetSnapshots(_) => {}
                Action::Save(_) | Action::Read { .. } | Action::Prepare(_) | Action::Put(..) | Action::Finish(_) => {
                    self.violate(format!("R{index} makes a checkpoint, which this scope does not have"));
                }
                Action::Make(_) => {
                    self.violate(format!("R{index} lets its machine propose, which this scope does not have"))
                }
                Action::Install(_) => self.violate(format!("R{index} installs a checkpoint, which nobody has made")),
            }
        }
        if let Some(seq) = synced {
            self.input(index, Input::Synced(seq));
        }
        for done in done {
            self.input(index, Input::Done(done));
        }
    }

    fn work(&mut self, index: usize, job: Job) -> Option<Done> {
        if let Job::Execute { op, batch } = &job {
            let digest = Digest::of(batch);
            let (first, expected) = *self.executed.entry(*op).or_insert((index, digest));
            if expected != digest {
                self.violate(format!("Agreement: entry {op}: R{first} executed another batch than R{index}"));
            }
        }
        let (_, executor) = self.hosts.get_mut(index)?.running.as_mut()?;
        Some(executor.run(job))
    }

    /// Clients hear at once, and fall silent after so many answers as the scope says.
    fn hear(&mut self, client: usize, from: Peer, bytes: &[u8]) {
        let Peer::Replica(from) = from else { return };
        let Some(caller) = self.callers.get_mut(client) else { return };
        caller.answers = caller.answers.saturating_add(1);
        caller.heard = Digest::of_parts(&[caller.heard.as_bytes(), &[from.get()], bytes]);
        if caller.answers >= self.left.answers {
            return;
        }
        if let Ok((_, Payload::Protocol(message))) = Envelope::open::<Payload<P::Message>>(bytes) {
            self.client_turn(client, |core, out| core.on_message(from, message, out));
        }
    }

    fn client_turn(&mut self, client: usize, turn: impl FnOnce(&mut P::Client, &mut ClientOutbox<P>)) {
        let Some(caller) = self.callers.get_mut(client) else { return };
        let mut out = ClientOutbox::new(Instant::from_nanos(1));
        turn(&mut caller.core, &mut out);
        let envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => {
                    let (label, from) = (P::label(&message), Peer::Client(address(client, 0)));
                    let bytes = envelope.seal(&Payload::Protocol(message));
                    self.send(from, Peer::Replica(to), bytes, label);
                }
                // Clients are patient here, and what they are told is counted when they are told.
                ClientEffect::Complete(..) | ClientEffect::Arm { .. } | ClientEffect::Disarm(_) => {}
            }
        }
    }

    fn violate(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// What is wrong, if anything is.
    pub fn violation(&self) -> Option<&str> {
        self.violation.as_deref()
    }

    /// The greatest view that some replica leads.
    pub fn view(&self) -> u64 {
        let running = self.hosts.iter().filter_map(|host| host.running.as_ref());
        let statuses = running.map(|(node, _)| node.replica().status());
        statuses.filter(|status| status.role.starts_with("primary")).map(|it| it.view.get()).max().unwrap_or(0)
    }

    /// Have all clients all their answers?
    pub fn is_answered(&self) -> bool {
        self.callers.iter().all(|caller| caller.answers >= self.left.answers)
    }

    fn words(&self, choice: Choice) -> String {
        let message = |from: &Peer, to: &Peer| {
            let Some(Flying { bytes, label, .. }) = self.links.get(&(*from, *to)).and_then(VecDeque::front) else {
                return String::new();
            };
            let content = match Envelope::open::<Payload<P::Message>>(bytes) {
                Ok((_, Payload::Protocol(message))) => P::content(&message, &words),
                _ => String::new(),
            };
            format!("{} → {}  {label} {}", name(*from), name(*to), content.replace('\n', " · "))
        };
        match choice {
            Choice::Deliver(from, to) => message(&from, &to),
            Choice::Lose(from, to) => format!("{} is lost", message(&from, &to)),
            Choice::Ring(index) => format!("R{index}'s timer rings"),
            Choice::Crash(index) => format!("R{index} crashes"),
            Choice::Start(index) => format!("R{index} starts"),
        }
    }

    /// Names the state: what every replica knows and has on its disk, what is on its way, what clients were told, and what may
    /// still go wrong. Two states with one name have the same future.
    pub fn digest(&self) -> Digest {
        let mut name = Name(Vec::new());
        // Who executed an entry first matters to the one who is told of a violation only.
        let executed: Vec<_> = self.executed.iter().map(|(op, (_, batch))| (op, batch)).collect();
        let mut told = write!(name, "{:?} {executed:?}", self.left);
        for host in &self.hosts {
            let Host { running, journal, clock, lives, rings } = host;
            told = told.and_then(|()| write!(name, "\n{clock:?} {lives} {rings} "));
            journal.iter().for_each(|record| name.bytes(record));
            if let Some((node, executor)) = running {
                let (replica, timers) = (node.replica(), node.timers());
                told = told.and_then(|()| write!(name, "{replica:?} {timers} {:?}", executor.digest()));
            }
        }
        for caller in &self.callers {
            // Who has all answers says nothing any more, whatever they were and in whatever order they came.
            let heard = (caller.answers < self.left.answers).then_some((caller.answers, caller.heard));
            told = told.and_then(|()| write!(name, "\n{heard:?}"));
        }
        let links = self.links.iter();
        let mut flying: Vec<_> = links.flat_map(|(link, waiting)| waiting.iter().map(move |it| (*link, it))).collect();
        if self.left.deviations.is_some() {
            flying.sort_by_key(|(_, it)| it.number); // whose turn it is depends on the order of all
        }
        for ((from, to), it) in flying {
            told = told.and_then(|()| write!(name, "\n{from:?} {to:?} "));
            name.bytes(&it.bytes);
        }
        debug_assert!(told.is_ok(), "a buffer takes everything");
        Digest::of(&name.0)
    }
}

/// A state's name, before it is shortened.
struct Name(Vec<u8>);

impl Name {
    fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        self.0.extend_from_slice(bytes);
    }
}

impl Write for Name {
    fn write_str(&mut self, words: &str) -> std::fmt::Result {
        self.0.extend_from_slice(words.as_bytes());
        Ok(())
    }
}

impl<P: Simulated> Host<P> {
    /// Nonces must differ between lives and rings, and be equal in equal states.
    fn turn(&self) -> Turn {
        let entropy = self.lives.saturating_mul(0x1_0000).saturating_add(self.rings).saturating_add(1);
        Turn { now: self.clock, wall: WallTime::from_nanos(1), entropy }
    }
}
