//! A tiny cluster without luck and time: everything that can happen next is a choice.

use super::Scope;
use super::rejoin::Owner;
use crate::checker::Property;
use crate::client::address;
use crate::process::CLUSTER;
use crate::protocols::Simulated;
use crate::registers::{Operation, Registers};
use crate::trace::{name, words};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{Epoch, OpNumber, Peer, RecordSeq, ReplicaId, View};
use quorate_core::node::{Action, Identity, Input, Node, Payload};
use quorate_core::outbox::{Note, To, Turn};
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
    /// A replica dies and its disk is lost; what it had sent may arrive at any time from now on, or never.
    LoseDisk(usize),
    /// The oldest message that a replica's former self has sent to somebody arrives.
    Haunt(Peer, Peer),
    /// The owner of a replica whose disk is lost starts it from a new one.
    Rejoin(usize),
    /// Nothing else is due, and the owner of a replica that is back asks for one more entry.
    Ask,
}

pub(super) struct Host<P: Simulated> {
    pub(super) running: Option<(Node<P>, Executor<Registers>)>,
    journal: Vec<Vec<u8>>,
    clock: Instant,
    lives: u64,
    rings: u64,
    /// Its disk is gone, and its owner has not brought it back yet.
    lost: bool,
}

pub(super) struct Caller<P: Simulated> {
    core: P::Client,
    answers: usize,
    /// Answers after which it falls silent.
    wants: usize,
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

/// What is on its way between each two processes, oldest first.
type Links = BTreeMap<(Peer, Peer), VecDeque<Flying>>;

/// The cluster.
pub struct World<P: Simulated> {
    pub(super) hosts: Vec<Host<P>>,
    callers: Vec<Caller<P>>,
    /// Brings back a replica whose disk is lost; the last of the callers is its client.
    pub(super) owner: Option<Owner>,
    links: Links,
    /// What replicas sent whose disks are lost.
    ghosts: Links,
    /// Messages that were sent so far.
    sent: u64,
    /// What was executed first as each entry, and by whom.
    executed: BTreeMap<OpNumber, (usize, Digest)>,
    pub(super) left: Scope,
    violation: Option<String>,
}

pub(super) fn replica(index: usize) -> Peer {
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
        let clock = Instant::from_nanos(1);
        let host = || Host { running: None, journal: Vec::new(), clock, lives: 0, rings: 0, lost: false };
        let patience = Duration::from_secs(1);
        let caller = |index| {
            let client = address(index, 0);
            let config = ClientConfig { client, replicas: scope.replicas, retry: patience, timeout: patience };
            let keyring = Keyring::simulated_client(CLUSTER, Epoch::ZERO, scope.replicas, client);
            let (core, wants) = (P::Client::start(config, Arc::new(keyring)), scope.answers);
            Caller { core, answers: 0, wants, heard: Digest::default() }
        };
        let owner = Owner::of::<P>(scope);
        let callers = scope.clients.saturating_add(usize::from(owner.is_some()));
        let mut world = Self {
            hosts: (0..scope.replicas).map(|_| host()).collect(),
            callers: (0..callers).map(caller).collect(),
            owner,
            links: BTreeMap::new(),
            ghosts: BTreeMap::new(),
            sent: 0,
            executed: BTreeMap::new(),
            left: *scope,
            violation: None,
        };
        for index in 0..scope.replicas {
            world.start(index);
        }
        (0..scope.clients).for_each(|index| world.ask(index, index as u64 + 1));
        world
    }

    /// A client asks for a write of this value.
    pub(super) fn ask(&mut self, client: usize, value: u64) {
        let call = Call::Apply(Operation::Put { key: 0, value }.encode().into());
        let links: Vec<ReplicaId> =
            (0..self.hosts.len()).filter_map(|it| u8::try_from(it).ok()).map(ReplicaId::new).collect();
        self.client_turn(client, |core, out| {
            links.into_iter().for_each(|replica| core.on_connected(replica, out));
            core.submit(Ticket(value), call, out);
            core.flush(out);
        });
    }

    /// A client falls silent after so many more answers.
    pub(super) fn listen(&mut self, client: usize, wants: usize) {
        if let Some(caller) = self.callers.get_mut(client) {
            caller.wants = wants;
        }
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

    /// What was chosen on a path.
    pub fn chosen(scope: &Scope, path: &[u8]) -> Vec<Choice> {
        let mut world = Self::new(scope);
        let mut chosen = Vec::new();
        for index in path {
            let Some(choice) = world.choices().get(usize::from(*index)).copied() else { continue };
            chosen.push(choice);
            world.take(choice);
        }
        chosen
    }

    /// The world after these choices, and each in words; `None` if one of them cannot be made.
    pub fn follow(scope: &Scope, path: &[Choice]) -> Option<(Self, Vec<String>)> {
        let mut world = Self::new(scope);
        let mut told = Vec::new();
        for choice in path {
            if !world.choices().contains(choice) {
                return None;
            }
            told.push(world.words(*choice));
            world.take(*choice);
        }
        Some((world, told))
    }

    /// Everything that can happen next, what is due first.
    ///
    /// Where deviations are bounded, what happens to one replica is not tried before what is due at another: nobody could tell
    /// the difference. It happens when something is due at that replica, or nothing is due at all.
    pub fn choices(&self) -> Vec<Choice> {
        let due = self.due();
        let bounded = self.left.deviations.is_some();
        let strays = self.left.deviations != Some(0);
        let here = |to: Peer| !bounded || due.is_none_or(|(_, due)| due == to);
        let links = |from: &Links| -> Vec<(Peer, Peer)> { from.keys().copied().collect() };
        let mut choices: Vec<Choice> = due.map(|(from, to)| Choice::Deliver(from, to)).into_iter().collect();
        for (from, to) in links(&self.links).into_iter().filter(|link| Some(*link) != due) {
            if strays && here(to) {
                choices.push(Choice::Deliver(from, to));
            }
        }
        if self.left.losses > 0 {
            let lost = links(&self.links).into_iter().filter(|link| !bounded || Some(*link) == due);
            choices.extend(lost.map(|(from, to)| Choice::Lose(from, to)));
        }
        choices.extend(links(&self.ghosts).into_iter().filter(|(_, to)| here(*to)).map(|(a, b)| Choice::Haunt(a, b)));
        if due.is_none() && self.owner_waits() {
            choices.push(Choice::Ask);
        }
        for (index, host) in self.hosts.iter().enumerate() {
            match &host.running {
                None if due.is_some() && !strays => {}
                None if !host.lost => choices.push(Choice::Start(index)),
                None if self.record(index).is_some() => choices.push(Choice::Rejoin(index)),
                None => {}
                Some((node, _)) => {
                    // A primary's timers only say again what it said: no message is lost for good that it need say again.
                    let leads = node.replica().status().role.starts_with("primary");
                    let rings = self.left.timeouts > 0 && node.deadline().is_some() && !leads;
                    if rings && here(replica(index)) && (due.is_none() || strays) {
                        choices.push(Choice::Ring(index));
                    }
                    if self.left.crashes > 0 && here(replica(index)) {
                        choices.push(Choice::Crash(index));
                    }
                    // What it has sent is then out of turn, so this differs from losing it later.
                    let sends = due.is_some_and(|(from, _)| from == replica(index));
                    let idle = self.owner.as_ref().is_some_and(Owner::is_idle);
                    if self.left.lost_disks > 0 && idle && (sends || here(replica(index))) {
                        choices.push(Choice::LoseDisk(index));
                    }
                }
            }
        }
        choices
    }

    /// The link whose oldest message was sent before all others.
    fn due(&self) -> Option<(Peer, Peer)> {
        let heads = self.links.iter().filter_map(|(link, waiting)| Some((waiting.front()?.number, *link)));
        heads.min().map(|(_, link)| link)
    }

    /// Is it something else's turn?
    fn deviates(&self, choice: Choice) -> bool {
        match choice {
            Choice::Deliver(from, to) => self.due() != Some((from, to)),
            Choice::Ring(_) | Choice::Start(_) | Choice::Rejoin(_) => self.due().is_some(),
            Choice::Lose(..) | Choice::Crash(_) | Choice::LoseDisk(_) | Choice::Haunt(..) | Choice::Ask => false,
        }
    }

    /// Lets one thing happen.
    pub fn take(&mut self, choice: Choice) {
        if self.deviates(choice) {
            self.left.deviations = self.left.deviations.map(|left| left.saturating_sub(1));
        }
        match choice {
            Choice::Deliver(from, to) => {
                if let Some(flying) = pop(&mut self.links, (from, to)) {
                    self.input(place(to), Input::Frame { from, bytes: flying.bytes });
                }
            }
            Choice::Haunt(from, to) => {
                if let Some(flying) = pop(&mut self.ghosts, (from, to)) {
                    self.input(place(to), Input::Frame { from, bytes: flying.bytes });
                }
            }
            Choice::Lose(from, to) => {
                self.left.losses = self.left.losses.saturating_sub(1);
                pop(&mut self.links, (from, to));
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
                self.kill(index);
            }
            Choice::Start(index) => self.start(index),
            Choice::LoseDisk(index) => {
                self.left.lost_disks = self.left.lost_disks.saturating_sub(1);
                self.kill(index);
                let of_it = self.links.extract_if(.., |(from, _), _| *from == replica(index));
                self.ghosts.extend(of_it);
                if let Some(host) = self.hosts.get_mut(index) {
                    host.journal.clear();
                }
                self.give_to_owner(index);
            }
            Choice::Rejoin(index) => self.rejoin(index),
            Choice::Ask => self.owner_asks(),
        }
    }

    fn kill(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.running = None;
            host.lives = host.lives.saturating_add(1);
        }
        self.links.retain(|(_, to), _| *to != replica(index));
        self.ghosts.retain(|(_, to), _| *to != replica(index));
    }

    /// A replica starts from a disk that holds this.
    pub(super) fn start_from(&mut self, index: usize, journal: Vec<Vec<u8>>) {
        if let Some(host) = self.hosts.get_mut(index) {
            (host.journal, host.lost) = (journal, false);
        }
        self.start(index);
    }

    /// A replica stays away until its owner brings it back.
    pub(super) fn away(&mut self, index: usize) {
        if let Some(host) = self.hosts.get_mut(index) {
            host.lost = true;
        }
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
                Action::Note(Note::ViewStarted { view, primary, op })
                    if P::VIEWS_INHERIT && primary.index() == index =>
                {
                    self.begins(view, op);
                }
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

    /// A view starts with a log up to this entry.
    fn begins(&mut self, view: View, op: OpNumber) {
        if let Some((last, (first, _))) = self.executed.last_key_value().filter(|(last, _)| **last > op) {
            let what = format!(
                "{}: {view} starts with a log up to {op}, and R{first} has executed {last}",
                Property::DURABILITY
            );
            self.violate(what);
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
        if caller.answers >= caller.wants {
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
        let mut told = Vec::new();
        let envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };
        for effect in out.into_effects() {
            match effect {
                ClientEffect::Send(to, message) => {
                    let (label, from) = (P::label(&message), Peer::Client(address(client, 0)));
                    let bytes = envelope.seal(&Payload::Protocol(message));
                    self.send(from, Peer::Replica(to), bytes, label);
                }
                ClientEffect::Complete(_, Ok(answer)) => told.push(answer.op),
                // Clients are patient here, and what they are told is counted when they are told.
                ClientEffect::Complete(_, Err(_)) | ClientEffect::Arm { .. } | ClientEffect::Disarm(_) => {}
            }
        }
        if self.owner.is_some() && client == self.left.clients {
            told.into_iter().for_each(|op| self.owner_is_told(op));
        }
    }

    pub(super) fn violate(&mut self, what: String) {
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
        self.callers.iter().take(self.left.clients).all(|caller| caller.answers >= self.left.answers)
    }

    fn words(&self, choice: Choice) -> String {
        let message = |from: &Peer, to: &Peer| {
            let links = if matches!(choice, Choice::Haunt(..)) { &self.ghosts } else { &self.links };
            let Some(Flying { bytes, label, .. }) = links.get(&(*from, *to)).and_then(VecDeque::front) else {
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
            Choice::LoseDisk(index) => format!("R{index} loses its disk"),
            Choice::Haunt(from, to) => format!("its former self: {}", message(&from, &to)),
            Choice::Rejoin(index) => format!("R{index} starts from a new disk"),
            Choice::Ask => "the owner asks for one more entry".to_owned(),
        }
    }

    /// Names the state: what every replica knows and has on its disk, what is on its way, what clients were told, and what may
    /// still go wrong. Two states with one name have the same future.
    pub fn digest(&self) -> Digest {
        self.named(&format!("{:?}", self.left))
    }

    /// The same without what may still go wrong: names what a story that is over has come to.
    pub fn ending(&self) -> Digest {
        self.named("")
    }

    fn named(&self, left: &str) -> Digest {
        let mut name = Name(Vec::new());
        // Who executed an entry first matters to the one who is told of a violation only.
        let executed: Vec<_> = self.executed.iter().map(|(op, (_, batch))| (op, batch)).collect();
        let mut told = write!(name, "{left} {executed:?} {:?}", self.owner);
        for host in &self.hosts {
            let Host { running, journal, clock, lives, rings, lost } = host;
            told = told.and_then(|()| write!(name, "\n{clock:?} {lives} {rings} {lost} "));
            journal.iter().for_each(|record| name.bytes(record));
            if let Some((node, executor)) = running {
                let (replica, timers) = (node.replica(), node.timers());
                told = told.and_then(|()| write!(name, "{replica:?} {timers} {:?}", executor.digest()));
            }
        }
        for caller in &self.callers {
            // Who has all answers says nothing any more, whatever they were and in whatever order they came.
            let heard = (caller.answers < caller.wants).then_some((caller.answers, caller.heard));
            told = told.and_then(|()| write!(name, "\n{heard:?}"));
        }
        let flying = |links: &'_ Links| -> Vec<((Peer, Peer), u64, Bytes)> {
            let all =
                links.iter().flat_map(|(link, waiting)| waiting.iter().map(|it| (*link, it.number, it.bytes.clone())));
            all.collect()
        };
        let mut living = flying(&self.links);
        if self.left.deviations.is_some() {
            living.sort_by_key(|(_, number, _)| *number); // whose turn it is depends on the order of all
        }
        for (kind, all) in [("", living), ("was ", flying(&self.ghosts))] {
            for ((from, to), _, bytes) in all {
                told = told.and_then(|()| write!(name, "\n{kind}{from:?} {to:?} "));
                name.bytes(&bytes);
            }
        }
        debug_assert!(told.is_ok(), "a buffer takes everything");
        Digest::of(&name.0)
    }
}

/// Takes the oldest message of a link.
fn pop(links: &mut Links, link: (Peer, Peer)) -> Option<Flying> {
    let waiting = links.get_mut(&link)?;
    let popped = waiting.pop_front();
    if waiting.is_empty() {
        links.remove(&link);
    }
    popped
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
