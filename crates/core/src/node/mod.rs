//! One replica without its host: the protocol's core, its timers, the rule of durability, state transfer and watches. The
//! simulator and the real host both drive exactly this: inputs go in, actions come out, nothing else connects them.
//!
//! What a host owes a node:
//! 1. append the records of [`Action::Append`] to its log in the order given, sync them together whenever it likes, soon as
//!    far as [`Node::awaited`] says, and report [`Input::Synced`];
//! 2. carry out the other actions in the order given; [`Action::Send`] may leave at once (the node holds back what may not);
//! 3. call [`Node::handle`] with [`Input::Timers`] when [`Node::deadline`] has passed;
//! 4. answer every [`Action::Read`] and every [`Action::Make`], and report [`Input::Saved`] in the order of the saves;
//! 5. read no more frames while [`Node::held`] is above a limit of its own: a slow disk must not become memory.

mod audit;
mod interface;
mod opening;
mod recorder;
mod service;
mod snapshots;

pub use interface::{Action, Input, Part, Payload, Report, Service};
pub use opening::{Opened, Opener, Refused};
pub use recorder::{Happened, RECORDED_MAX, RECORDING, Recorded};
pub use service::{ASKING_MAX, WATCHERS_MAX};
pub use snapshots::{READS_MAX, SNAPSHOTS_KEPT};

use crate::crypto::{Digest, Keyring};
use crate::executor::{Done, Job};
use crate::fault::{Fault, Ledger, Why};
use crate::ids::{ClusterId, Epoch, Peer, RecordSeq, ReplicaId};
use crate::mutated;
use crate::outbox::{Effect, Outbox, To, Turn, When};
use crate::protocol::{Checkpoint, Protocol, Replica, Restore, RestoreError};
use crate::time::Instant;
use crate::transfer::Fetch;
use crate::wire::{Envelope, Wire};
use audit::Audit;
use bytes::Bytes;
use recorder::Recorder;
use service::{Asking, Watchers};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// Who this node is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Its cluster.
    pub cluster: ClusterId,
    /// Its epoch.
    pub epoch: Epoch,
    /// Its place in the group.
    pub replica: ReplicaId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Wake<T> {
    Transfer,
    Protocol(T),
}

enum Held<M> {
    Frame { to: To, bytes: Bytes, label: &'static str },
    Own(M),
    Forget(RecordSeq),
    Fetch { checkpoint: Checkpoint, from: ReplicaId },
}

/// A replica, driven by a host.
pub struct Node<P: Protocol> {
    identity: Identity,
    envelope: Envelope,
    opener: Opener<P>,
    replica: P::Replica,
    timers: BTreeMap<Wake<P::Timer>, Instant>,
    next_seq: RecordSeq,
    durable: RecordSeq,
    syncs: u64,
    held: VecDeque<(RecordSeq, Held<P::Message>)>,
    own: VecDeque<P::Message>,
    fetch: Option<Fetch>,
    installing: Option<Checkpoint>,
    waiting: Vec<Job>,
    reading: BTreeMap<ReplicaId, usize>,
    snapshots: BTreeSet<Checkpoint>,
    watchers: Watchers,
    asking: Asking,
    ledger: Ledger,
    recorder: Recorder,
    audit: Audit,
    turns: u64,
    halted: bool,
}

impl<P: Protocol> Node<P> {
    /// Starts a replica of a protocol that signs nothing: [`Node::start_with`] without keys.
    ///
    /// # Errors
    /// What [`Replica::restore`] says.
    pub fn start(
        identity: Identity,
        restore: Restore<P>,
        next_seq: RecordSeq,
        audit: bool,
        turn: Turn,
    ) -> Result<(Self, Vec<Action>), RestoreError> {
        let keyring = Arc::new(Keyring::keyless(identity.cluster, identity.epoch));
        Self::start_with(identity, keyring, restore, next_seq, audit, turn)
    }

    /// Starts a replica from what its disk holds. `next_seq` is the number of the log's next record; everything before it
    /// is durable. With `audit`, every turn is hashed ([`Node::audit`]).
    ///
    /// # Errors
    /// What [`Replica::start`] says.
    pub fn start_with(
        identity: Identity,
        keyring: Arc<Keyring>,
        restore: Restore<P>,
        next_seq: RecordSeq,
        audit: bool,
        turn: Turn,
    ) -> Result<(Self, Vec<Action>), RestoreError> {
        let mut out = Outbox::new(turn, next_seq);
        let (replicas, snapshots) = (restore.replicas, restore.checkpoint.into_iter().collect());
        let replica = P::Replica::start(restore, keyring.clone(), &mut out)?;
        let envelope = Envelope { cluster: identity.cluster, epoch: identity.epoch };
        let opener = Opener::new(&identity, replicas, keyring);
        let recorder = Recorder::new(identity.replica, replicas, opener.recording());
        let mut node = Self {
            identity,
            envelope,
            opener,
            replica,
            timers: BTreeMap::new(),
            next_seq,
            durable: next_seq.previous(),
            syncs: 0,
            held: VecDeque::new(),
            own: VecDeque::new(),
            fetch: None,
            installing: None,
            waiting: Vec::new(),
            reading: BTreeMap::new(),
            snapshots,
            watchers: Watchers::default(),
            asking: Asking::default(),
            ledger: Ledger::default(),
            recorder,
            audit: Audit::new(audit),
            turns: 0,
            halted: false,
        };
        let mut actions = Vec::new();
        node.carry_out(out, turn, &mut actions);
        node.settle(turn, &mut actions);
        Ok((node, actions))
    }

    /// Takes one input. Afterwards the node is at rest: its messages to itself that are durable have been handled too.
    pub fn handle(&mut self, input: Input, turn: Turn, actions: &mut Vec<Action>) {
        if self.halted {
            return;
        }
        let before = actions.len();
        match input {
            Input::Frame { from, bytes } => {
                let opened = self.opener.open(from, &bytes);
                self.on_opened(opened, turn, actions);
            }
            Input::Disconnected(peer) => self.on_disconnected(peer, actions),
            Input::Timers => self.on_timers(turn, actions),
            Input::Synced(seq) => self.on_synced(seq, turn.now, actions),
            Input::Done(done) => self.on_done(done, turn, actions),
            Input::Saved(checkpoint) => {
                self.keep_snapshot(checkpoint, actions);
                self.turn(turn, actions, |replica, out| replica.on_checkpoint(checkpoint, out));
            }
            Input::Prepared(manifest, missing) => {
                let steps = match &mut self.fetch {
                    Some(fetch) if fetch.checkpoint() == manifest.checkpoint() => {
                        fetch.on_prepared(manifest, missing, turn.now)
                    }
                    _ => Vec::new(),
                };
                self.take_steps(steps, turn, actions);
            }
            Input::Made(ticket, made) => {
                self.turn(turn, actions, |replica, out| replica.on_proposed(ticket, made, out));
            }
            Input::Cue => self.turn(turn, actions, |replica, out| replica.on_cue(out)),
            Input::Stored(checkpoint) => self.on_stored(checkpoint, actions),
            Input::Read { to, checkpoint, part, bytes } => self.on_read(to, checkpoint, part, bytes, actions),
        }
        self.settle(turn, actions);
        self.recorder.actions(actions.get(before..).unwrap_or_default(), turn);
    }

    /// Takes a frame that [`Node::opener`] has looked at, on whatever thread. Instead of [`Input::Frame`]; the frames of one
    /// peer must come in the order in which they arrived.
    pub fn handle_opened(&mut self, opened: Result<Opened<P>, Refused>, turn: Turn, actions: &mut Vec<Action>) {
        if !self.halted {
            let before = actions.len();
            self.on_opened(opened, turn, actions);
            self.settle(turn, actions);
            self.recorder.actions(actions.get(before..).unwrap_or_default(), turn);
        }
    }

    /// What decodes frames and checks signatures, to take to another thread.
    pub fn opener(&self) -> Opener<P> {
        self.opener.clone()
    }

    /// When [`Input::Timers`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        if self.halted {
            return None; // nothing would come of it
        }
        self.timers.values().min().copied()
    }

    /// All timers and their times, as text: for people, and for whoever compares states.
    pub fn timers(&self) -> String {
        format!("{:?}", self.timers)
    }

    /// How many messages wait for the disk: above a limit of its own, a host reads no more frames until the log is synced.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// The last record whose sync something waits for. Records after it are synced with those that come, or a little later:
    /// a sync that nobody waits for is one that others do.
    pub fn awaited(&self) -> Option<RecordSeq> {
        self.held.back().map(|(wait_for, _)| *wait_for)
    }

    /// The protocol's core, to look at.
    pub fn replica(&self) -> &P::Replica {
        &self.replica
    }

    /// What was ignored and what was blamed.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The digest of all turns so far; `None` unless asked for at the start.
    pub fn audit(&self) -> Option<Digest> {
        self.audit.digest()
    }

    /// Runs one handler of the protocol and carries its effects out. One input can lead to several turns; each has a
    /// nonce of its own.
    fn turn(&mut self, turn: Turn, actions: &mut Vec<Action>, handler: impl FnOnce(&mut P::Replica, &mut Outbox<P>)) {
        if self.halted {
            return;
        }
        self.turns = self.turns.wrapping_add(1);
        let mixed = Digest::of_parts(&[&turn.entropy.to_le_bytes(), &self.turns.to_le_bytes()]);
        let entropy = mixed.as_bytes().first_chunk().map_or(turn.entropy, |bytes| u64::from_le_bytes(*bytes));
        let mut out = Outbox::new(Turn { entropy, ..turn }, self.next_seq);
        handler(&mut self.replica, &mut out);
        self.carry_out(out, turn, actions);
    }

    fn carry_out(&mut self, out: Outbox<P>, turn: Turn, actions: &mut Vec<Action>) {
        let (effects, next_seq) = out.into_effects();
        self.next_seq = next_seq; // of the whole turn: a message waits also for what was persisted after it was written
        for effect in effects {
            self.audit.other(&effect);
            match effect {
                Effect::Persist { seq, class, record } => {
                    let bytes = record.encode();
                    self.audit.persisted(seq, &bytes);
                    actions.push(Action::Append { seq, class, bytes });
                }
                Effect::Send { to, message, when } => self.send(to, message, when, actions),
                Effect::Arm { timer, at } => {
                    self.timers.insert(Wake::Protocol(timer), at);
                }
                Effect::Disarm(timer) => {
                    self.timers.remove(&Wake::Protocol(timer));
                }
                Effect::Execute { op, batch } => self.run(Job::Execute { op, batch }, actions),
                Effect::Speculate { parent, state, batch } => {
                    self.run(Job::Speculate { parent, state, batch }, actions);
                }
                Effect::Commit { op, state } => self.run(Job::Commit { op, state }, actions),
                Effect::Abort(state) => self.run(Job::Abort(state), actions),
                Effect::Propose { parent, ticket, batch } => {
                    self.run(Job::Propose { parent, ticket, batch }, actions);
                }
                Effect::Query { ticket, query } => self.run(Job::Query { ticket, query }, actions),
                Effect::Step { op, step } => self.run(Job::Step { op, step }, actions),
                Effect::Image { ticket, object } => self.run(Job::Image { ticket, object }, actions),
                Effect::Checkpoint(op) => self.run(Job::Checkpoint(op), actions),
                Effect::Fetch { checkpoint, from } => self.hold_fetch(checkpoint, from, turn.now, actions),
                Effect::Forget(before) => self.forget(before, actions),
                Effect::Ignore(_, why) => self.ledger.ignore(why),
                Effect::Blame(from, fault) => self.ledger.blame(from, fault),
                Effect::Note(note) => actions.push(Action::Note(note)),
                Effect::Halt(reason) => {
                    self.halted = true;
                    actions.push(Action::Halt(reason));
                    return; // what the turn wrote after this is not done either
                }
            }
        }
    }

    /// Gives the executor a job. While a checkpoint is being installed jobs wait: they were asked for in view of a state
    /// that is about to be replaced.
    fn run(&mut self, job: Job, actions: &mut Vec<Action>) {
        if self.installing.is_some() {
            self.waiting.push(job);
        } else {
            actions.push(Action::Run(job));
        }
    }

    /// Lets a message leave, or holds it until this turn is durable.
    fn send(&mut self, to: To, message: P::Message, when: When, actions: &mut Vec<Action>) {
        let own = to == To::One(Peer::Replica(self.identity.replica));
        let wait_for = self.next_seq.previous();
        let mut may_leave = when == When::Now || self.durable >= wait_for;
        if mutated!("node/own-vote-before-the-sync") {
            may_leave |= own;
        }
        if mutated!("node/send-before-the-sync") {
            may_leave |= !own;
        }
        if own && self.audit.is_on() {
            self.audit.sent(to, when, &message.encode());
        }
        if own && may_leave {
            self.own.push_back(message);
        } else if own {
            self.held.push_back((wait_for, Held::Own(message)));
        } else {
            let label = P::label(&message);
            let bytes = self.envelope.seal(&Payload::Protocol(message));
            self.audit.sent(to, when, &bytes);
            if may_leave {
                actions.push(Action::Send { to, bytes, label });
            } else {
                self.held.push_back((wait_for, Held::Frame { to, bytes, label }));
            }
        }
    }

    /// Lets the log drop records once this turn is durable: it may have written what replaces them.
    fn forget(&mut self, before: RecordSeq, actions: &mut Vec<Action>) {
        let wait_for = self.next_seq.previous();
        if self.durable >= wait_for || mutated!("node/forget-before-the-sync") {
            actions.push(Action::Forget(before));
        } else {
            self.held.push_back((wait_for, Held::Forget(before)));
        }
    }

    /// Fetches once this turn is durable: a snapshot that is stored must not belong to a log that a power loss takes back.
    fn hold_fetch(&mut self, checkpoint: Checkpoint, from: ReplicaId, now: Instant, actions: &mut Vec<Action>) {
        let wait_for = self.next_seq.previous();
        if self.durable >= wait_for {
            self.start_fetch(checkpoint, from, now, actions);
        } else {
            self.held.push_back((wait_for, Held::Fetch { checkpoint, from }));
        }
    }

    fn on_synced(&mut self, seq: RecordSeq, now: Instant, actions: &mut Vec<Action>) {
        assert!(seq < self.next_seq, "the log cannot hold records that were never appended");
        if seq > self.durable {
            self.durable = seq;
            self.syncs = self.syncs.saturating_add(1);
        }
        while let Some((wait_for, _)) = self.held.front() {
            if *wait_for > self.durable {
                break;
            }
            match self.held.pop_front() {
                Some((_, Held::Frame { to, bytes, label })) => actions.push(Action::Send { to, bytes, label }),
                Some((_, Held::Own(message))) => self.own.push_back(message),
                Some((_, Held::Forget(before))) => actions.push(Action::Forget(before)),
                Some((_, Held::Fetch { checkpoint, from })) => self.start_fetch(checkpoint, from, now, actions),
                None => break,
            }
        }
    }

    /// Handles the messages to itself that are durable, until there are none.
    fn settle(&mut self, turn: Turn, actions: &mut Vec<Action>) {
        while let Some(message) = self.own.pop_front() {
            if self.halted {
                return;
            }
            let from = Peer::Replica(self.identity.replica);
            self.turn(turn, actions, |replica, out| replica.on_message(from, message, out));
        }
    }

    fn on_opened(&mut self, opened: Result<Opened<P>, Refused>, turn: Turn, actions: &mut Vec<Action>) {
        let Opened { from, payload, mark } = match opened {
            Ok(opened) => opened,
            Err(Refused::Ignored(why)) => return self.ledger.ignore(why),
            Err(Refused::Blamed(from, fault)) => return self.ledger.blame(from, fault),
        };
        if let Some((label, mark)) = recorder::label(&payload, P::label).zip(mark) {
            self.recorder.received(from, label, mark, turn);
        }
        match (payload, from) {
            (Payload::Protocol(message), _) => {
                self.turn(turn, actions, |replica, out| replica.on_message(from, message, out));
            }
            (Payload::Transfer(message), Peer::Replica(replica)) => self.on_transfer(replica, message, turn, actions),
            (Payload::Service(message), Peer::Client(client)) => self.on_service(client, message, turn.now, actions),
            (Payload::Transfer(_) | Payload::Service(_), _) => self.ledger.ignore(Why::NotForSender),
        }
    }

    fn on_timers(&mut self, turn: Turn, actions: &mut Vec<Action>) {
        let due = self.timers.iter().filter(|(_, at)| **at <= turn.now);
        let due: BTreeSet<_> = due.map(|(wake, at)| (*at, *wake)).collect(); // a host that slept keeps their order
        for (_, wake) in due {
            // An earlier timer of this round may have disarmed or postponed this one.
            if self.timers.get(&wake).is_none_or(|at| *at > turn.now) {
                continue;
            }
            self.timers.remove(&wake);
            match wake {
                Wake::Protocol(timer) => self.turn(turn, actions, |replica, out| replica.on_timer(timer, out)),
                Wake::Transfer => {
                    let steps = self.fetch.as_mut().map(|fetch| fetch.on_deadline(turn.now)).unwrap_or_default();
                    self.take_steps(steps, turn, actions);
                }
            }
        }
    }

    fn on_done(&mut self, done: Done, turn: Turn, actions: &mut Vec<Action>) {
        match done {
            Done::Executed { op, outcome } => {
                self.publish(&outcome.events, actions);
                self.turn(turn, actions, |replica, out| replica.on_executed(op, outcome, out));
            }
            Done::Speculated { state, outcome: Some(outcome) } => {
                self.turn(turn, actions, |replica, out| replica.on_speculated(state, outcome, out));
            }
            Done::Speculated { outcome: None, .. } | Done::Aborted(_) => {}
            Done::Proposing(make) => actions.push(Action::Make(make)),
            Done::Queried { ticket, answer } => {
                self.turn(turn, actions, |replica, out| replica.on_queried(ticket, answer, out));
            }
            Done::Stepped { op, stepped } => {
                self.turn(turn, actions, |replica, out| replica.on_stepped(op, stepped, out));
            }
            Done::Image { ticket, image } => {
                self.turn(turn, actions, |replica, out| replica.on_image(ticket, image, out));
            }
            Done::Saving(save) => actions.push(Action::Save(save)),
            Done::Installed { checkpoint, error: None, wake } => {
                self.waiting.clear(); // asked for in view of the state that is gone
                self.end_install(checkpoint, actions);
                self.keep_snapshot(checkpoint, actions);
                if self.fetches(checkpoint) {
                    self.end_fetch();
                }
                self.tell_watchers(actions);
                self.turn(turn, actions, |replica, out| replica.on_installed(checkpoint, wake, out));
            }
            Done::Installed { checkpoint, error: Some(error), .. } => {
                self.ledger.blame(Peer::Replica(self.identity.replica), Fault::WrongBytes(error.0));
                self.not_installed(checkpoint, turn, actions);
            }
            Done::Listening { wish } => self.on_listening(wish, actions),
            Done::Overtaken(checkpoint) => self.not_installed(checkpoint, turn, actions),
            Done::Digest { op, position, digest, milestones, .. } => {
                let report = Report { milestones, ..self.report(op, position, digest) };
                for (client, nonce) in std::mem::take(&mut self.asking.being_answered) {
                    let status = Service::Status { nonce, report: Box::new(report.clone()) };
                    self.answer(Peer::Client(client), status, "Status", actions);
                }
                self.compute_digest(actions);
            }
        }
    }
}
