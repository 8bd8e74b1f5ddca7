//! One replica without its host: the protocol's core, its timers, the rule of durability, state transfer and watches. The
//! simulator and the real host both drive exactly this: inputs go in, actions come out, nothing else connects them.
//!
//! What a host owes a node:
//! 1. append the records of [`Action::Append`] to its log in the order given, sync them together whenever it likes, and
//!    report [`Input::Synced`];
//! 2. carry out the other actions in the order given; [`Action::Send`] may leave at once (the node holds back what may not);
//! 3. call [`Node::handle`] with [`Input::Timers`] when [`Node::deadline`] has passed;
//! 4. answer every [`Action::Read`], and report [`Input::Saved`] in the order of the saves;
//! 5. read no more frames while [`Node::held`] is above a limit of its own: a slow disk must not become memory.

use crate::crypto::Digest;
use crate::executor::{Done, Job, Manifest, Save};
use crate::fault::{Fault, Ledger, Why};
use crate::ids::{ClientId, ClusterId, Epoch, OpNumber, Peer, Position, RecordSeq, ReplicaId};
use crate::outbox::{Class, Effect, Note, Outbox, To, Turn, When};
use crate::protocol::{Checkpoint, Protocol, Replica, Restore, RestoreError, Status};
use crate::sessions::Event;
use crate::time::Instant;
use crate::transfer::{self, Fetch, Step};
use crate::wire::{Envelope, Wire};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Clients that may watch events at one replica.
pub const WATCHERS_MAX: usize = 1024;
/// Clients that may wait for the next answer to [`Service::GetStatus`].
pub const ASKING_MAX: usize = 64;
/// Snapshots that a replica keeps: the last one, and the one before for a peer that is fetching it.
pub const SNAPSHOTS_KEPT: usize = 2;

/// Parts of snapshots that are being read for one peer: twice what a correct one asks for, as it repeats itself after a
/// silence.
pub const READS_MAX: usize = 2 * transfer::IN_FLIGHT_MAX;

/// What travels in a frame, after its envelope.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub enum Payload<M> {
    /// The protocol's.
    Protocol(M),
    /// State transfer's; replicas only.
    Transfer(transfer::Message),
    /// Questions about a replica, and watches.
    Service(Service),
}

/// What a client may ask any replica, beside the protocol.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Service {
    /// How are you?
    GetStatus {
        /// Comes back.
        nonce: u64,
    },
    /// So.
    Status {
        /// The question's.
        nonce: u64,
        /// The answer.
        report: Report,
    },
    /// Send me the machine's events of this topic from now on.
    Watch {
        /// The topic.
        topic: u32,
    },
    /// Watching has begun: the events of what is applied from now on follow. Said again, unasked, after a state transfer:
    /// events may have been skipped, so read the state again.
    Watching {
        /// The topic.
        topic: u32,
    },
    /// Events, in order.
    Events(Vec<Event>),
}

/// One replica's answer to [`Service::GetStatus`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Report {
    /// Which replica.
    pub replica: ReplicaId,
    /// Which protocol it runs.
    pub protocol: String,
    /// Its place.
    pub status: Status,
    /// The last entry that the digest covers.
    pub op: OpNumber,
    /// How many operations the digest covers.
    pub position: Position,
    /// The digest of machine and sessions.
    pub digest: Digest,
    /// Messages that it ignored, in all.
    pub ignored: u64,
    /// Lies that it noticed, in all.
    pub blamed: u64,
    /// The last lie, in words.
    pub last_fault: Option<String>,
}

/// What happened.
pub enum Input {
    /// A frame has arrived over an authenticated link.
    Frame {
        /// Who sent it.
        from: Peer,
        /// Envelope and payload.
        bytes: Bytes,
    },
    /// The link to a peer is down.
    Disconnected(Peer),
    /// [`Node::deadline`] has passed.
    Timers,
    /// The log is durable through this record.
    Synced(RecordSeq),
    /// The executor has done a job.
    Done(Done),
    /// A snapshot of our own state is durable.
    Saved(Checkpoint),
    /// The store is ready for a snapshot that arrives in chunks, and lacks these.
    Prepared(Manifest, BTreeSet<u32>),
    /// A snapshot that arrived in chunks is durable.
    Stored(Checkpoint),
    /// A part of a snapshot was read for a peer; `None` if it could not be.
    Read {
        /// For whom.
        to: ReplicaId,
        /// Of which snapshot.
        checkpoint: Checkpoint,
        /// Which part.
        part: Part,
        /// Its bytes: an encoded manifest, or a chunk.
        bytes: Option<Bytes>,
    },
}

/// A part of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its manifest.
    Manifest,
    /// A chunk.
    Chunk(u32),
}

/// What the host must do.
pub enum Action {
    /// Append to the log.
    Append {
        /// The record's place.
        seq: RecordSeq,
        /// How many copies.
        class: Class,
        /// The encoded record.
        bytes: Vec<u8>,
    },
    /// Send a frame's contents.
    Send {
        /// To whom.
        to: To,
        /// Envelope and payload.
        bytes: Bytes,
        /// The message's name, for pictures.
        label: &'static str,
    },
    /// Give a job to the executor.
    Run(Job),
    /// Write a snapshot out (off this thread), then report [`Input::Saved`].
    Save(Box<dyn Save>),
    /// Read a part of a stored snapshot, then report [`Input::Read`].
    Read {
        /// For whom.
        to: ReplicaId,
        /// Of which snapshot.
        checkpoint: Checkpoint,
        /// Which part.
        part: Part,
    },
    /// Get ready to store a snapshot in chunks, then report [`Input::Prepared`].
    Prepare(Manifest),
    /// Store a chunk of it.
    Put(Checkpoint, u32, Bytes),
    /// Make it a snapshot, then report [`Input::Stored`].
    Finish(Checkpoint),
    /// Give the executor [`Job::Install`] with this stored snapshot.
    Install(Checkpoint),
    /// Records before this one are not needed any more.
    Forget(RecordSeq),
    /// Snapshots before this entry are not needed any more.
    ForgetSnapshots(OpNumber),
    /// Show and log.
    Note(Note),
    /// Stop the process, with this sentence.
    Halt(String),
}

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

/// Clients that ask for the status, with their nonces. The digest that the answer holds costs the executor as much as a
/// batch does: one is computed at a time, for all who had asked when it was begun.
#[derive(Default)]
struct Asking {
    being_answered: BTreeMap<ClientId, u64>,
    waiting: BTreeMap<ClientId, u64>,
}

/// A replica, driven by a host.
pub struct Node<P: Protocol> {
    identity: Identity,
    replicas: usize,
    envelope: Envelope,
    replica: P::Replica,
    timers: BTreeMap<Wake<P::Timer>, Instant>,
    next_seq: RecordSeq,
    durable: RecordSeq,
    held: VecDeque<(RecordSeq, Held<P::Message>)>,
    own: VecDeque<P::Message>,
    fetch: Option<Fetch>,
    installing: Option<Checkpoint>,
    waiting: Vec<Job>,
    reading: BTreeMap<ReplicaId, usize>,
    snapshots: BTreeSet<Checkpoint>,
    watchers: BTreeMap<ClientId, u32>,
    asking: Asking,
    ledger: Ledger,
    audit: Option<blake3::Hasher>,
    turns: u64,
    halted: bool,
}

impl<P: Protocol> Node<P> {
    /// Starts a replica from what its disk holds. `next_seq` is the number of the log's next record; everything before it
    /// is durable. With `audit`, every turn is hashed ([`Node::audit`]).
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
        let mut out = Outbox::new(turn, next_seq);
        let (replicas, snapshots) = (restore.replicas, restore.checkpoint.into_iter().collect());
        let replica = P::Replica::restore(restore, &mut out)?;
        let envelope = Envelope { cluster: identity.cluster, epoch: identity.epoch };
        let mut node = Self {
            identity,
            replicas,
            envelope,
            replica,
            timers: BTreeMap::new(),
            next_seq,
            durable: next_seq.previous(),
            held: VecDeque::new(),
            own: VecDeque::new(),
            fetch: None,
            installing: None,
            waiting: Vec::new(),
            reading: BTreeMap::new(),
            snapshots,
            watchers: BTreeMap::new(),
            asking: Asking::default(),
            ledger: Ledger::default(),
            audit: audit.then(blake3::Hasher::new),
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
        match input {
            Input::Frame { from, bytes } => self.on_frame(from, &bytes, turn, actions),
            Input::Disconnected(peer) => self.on_disconnected(peer),
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
            Input::Stored(checkpoint) => self.on_stored(checkpoint, actions),
            Input::Read { to, checkpoint, part, bytes } => self.on_read(to, checkpoint, part, bytes, actions),
        }
        self.settle(turn, actions);
    }

    /// When [`Input::Timers`] is due.
    pub fn deadline(&self) -> Option<Instant> {
        self.timers.values().min().copied()
    }

    /// How many messages wait for the disk: above a limit of its own, a host reads no more frames until the log is synced.
    pub fn held(&self) -> usize {
        self.held.len()
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
        self.audit.as_ref().map(|hasher| Digest::new(*hasher.finalize().as_bytes()))
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
        self.record(&effects);
        self.next_seq = next_seq; // of the whole turn: a message waits also for what was persisted after it was written
        for effect in effects {
            match effect {
                Effect::Persist { seq, class, record } => {
                    actions.push(Action::Append { seq, class, bytes: record.encode() });
                }
                Effect::Send { to, message, when } => self.send(to, message, when, actions),
                Effect::Arm { timer, at } => {
                    self.timers.insert(Wake::Protocol(timer), at);
                }
                Effect::Disarm(timer) => {
                    self.timers.remove(&Wake::Protocol(timer));
                }
                Effect::Execute { op, batch } => self.run(Job::Execute { op, batch }, actions),
                Effect::Query { ticket, query } => self.run(Job::Query { ticket, query }, actions),
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
        let may_leave = when == When::Now || self.durable >= wait_for;
        if own && may_leave {
            self.own.push_back(message);
        } else if own {
            self.held.push_back((wait_for, Held::Own(message)));
        } else {
            let label = P::label(&message);
            let bytes = self.envelope.seal(&Payload::Protocol(message));
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
        if self.durable >= wait_for {
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
        self.durable = self.durable.max(seq);
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

    fn on_frame(&mut self, from: Peer, bytes: &[u8], turn: Turn, actions: &mut Vec<Action>) {
        if matches!(from, Peer::Replica(it) if it == self.identity.replica || it.index() >= self.replicas) {
            // Not a member, or someone with our own key: its votes must not count, least of all as ours.
            return self.ledger.ignore(Why::NotForSender);
        }
        let (envelope, body) = match Envelope::split(bytes) {
            Ok(parts) => parts,
            Err(error) => return self.ledger.blame(from, Fault::Malformed(error.0)),
        };
        if envelope.cluster != self.envelope.cluster {
            return self.ledger.blame(from, Fault::OtherCluster);
        }
        if envelope.epoch != self.envelope.epoch {
            return self.ledger.ignore(Why::OtherEpoch); // perhaps of another protocol: do not even decode it
        }
        let payload = match Payload::<P::Message>::decode(body) {
            Ok(payload) => payload,
            Err(error) => return self.ledger.blame(from, Fault::Malformed(error.0)),
        };
        match (payload, from) {
            (Payload::Protocol(message), _) => {
                self.turn(turn, actions, |replica, out| replica.on_message(from, message, out));
            }
            (Payload::Transfer(message), Peer::Replica(replica)) => self.on_transfer(replica, message, turn, actions),
            (Payload::Service(message), Peer::Client(client)) => self.on_service(client, message, actions),
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
            Done::Queried { ticket, answer } => {
                self.turn(turn, actions, |replica, out| replica.on_queried(ticket, answer, out));
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
            Done::Overtaken(checkpoint) => self.not_installed(checkpoint, turn, actions),
            Done::Digest { op, position, digest, .. } => {
                let report = self.report(op, position, digest);
                for (client, nonce) in std::mem::take(&mut self.asking.being_answered) {
                    let status = Service::Status { nonce, report: report.clone() };
                    self.answer(Peer::Client(client), status, "Status", actions);
                }
                self.compute_digest(actions);
            }
        }
    }
}

/// Snapshots: serving them, fetching them.
impl<P: Protocol> Node<P> {
    fn keep_snapshot(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        self.snapshots.insert(checkpoint);
        while self.snapshots.len() > SNAPSHOTS_KEPT {
            self.snapshots.pop_first();
        }
        if let Some(first) = self.snapshots.first() {
            actions.push(Action::ForgetSnapshots(first.op));
        }
    }

    fn on_stored(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        if self.fetches(checkpoint) && self.fetch.as_ref().is_some_and(Fetch::is_finishing) {
            self.installing = Some(checkpoint);
            actions.push(Action::Install(checkpoint));
        } // otherwise the protocol has asked for another one meanwhile
    }

    fn fetches(&self, checkpoint: Checkpoint) -> bool {
        self.fetch.as_ref().is_some_and(|fetch| fetch.checkpoint() == checkpoint)
    }

    /// Lets the jobs go that waited for this checkpoint, unless yet another one is being installed.
    fn end_install(&mut self, checkpoint: Checkpoint, actions: &mut Vec<Action>) {
        if self.installing == Some(checkpoint) {
            self.installing = None;
            actions.extend(self.waiting.drain(..).map(Action::Run));
        }
    }

    fn not_installed(&mut self, checkpoint: Checkpoint, turn: Turn, actions: &mut Vec<Action>) {
        self.end_install(checkpoint, actions);
        if self.fetches(checkpoint) {
            self.take_steps(vec![Step::Fail], turn, actions);
        }
    }

    fn on_transfer(&mut self, from: ReplicaId, message: transfer::Message, turn: Turn, actions: &mut Vec<Action>) {
        use transfer::Message as M;
        match message {
            M::GetManifest(checkpoint) | M::GetChunk(checkpoint, _) if !self.snapshots.contains(&checkpoint) => {
                self.send_transfer(from, M::Unavailable(checkpoint), actions);
            }
            M::GetManifest(checkpoint) => self.read(from, checkpoint, Part::Manifest, actions),
            M::GetChunk(checkpoint, index) => self.read(from, checkpoint, Part::Chunk(index), actions),
            M::Manifest(_) | M::Chunk(..) | M::Unavailable(_) => {
                let steps = match &mut self.fetch {
                    Some(fetch) if fetch.source() == from => match message {
                        M::Manifest(manifest) => fetch.on_manifest(manifest, turn.now),
                        M::Chunk(checkpoint, index, bytes) if checkpoint == fetch.checkpoint() => {
                            fetch.on_chunk(index, bytes, turn.now)
                        }
                        M::Unavailable(checkpoint) if checkpoint == fetch.checkpoint() => vec![Step::Fail],
                        _ => Vec::new(),
                    },
                    _ => return self.ledger.ignore(Why::Unasked),
                };
                self.take_steps(steps, turn, actions);
            }
        }
    }

    fn read(&mut self, to: ReplicaId, checkpoint: Checkpoint, part: Part, actions: &mut Vec<Action>) {
        let reading = self.reading.entry(to).or_default();
        if *reading >= READS_MAX {
            return self.ledger.ignore(Why::Busy);
        }
        *reading += 1;
        actions.push(Action::Read { to, checkpoint, part });
    }

    fn on_read(
        &mut self,
        to: ReplicaId,
        checkpoint: Checkpoint,
        part: Part,
        bytes: Option<Bytes>,
        actions: &mut Vec<Action>,
    ) {
        if let Some(reading) = self.reading.get_mut(&to) {
            *reading = reading.saturating_sub(1);
        }
        let message = match (part, bytes) {
            (Part::Manifest, None) => {
                self.snapshots.remove(&checkpoint); // damaged or gone: do not offer it again
                transfer::Message::Unavailable(checkpoint)
            }
            // Perhaps damaged; perhaps there is no such chunk, and asking for it must not withdraw the snapshot.
            (Part::Chunk(_), None) => transfer::Message::Unavailable(checkpoint),
            (Part::Manifest, Some(bytes)) => match Manifest::decode(&bytes) {
                Ok(manifest) => transfer::Message::Manifest(manifest),
                Err(_) => transfer::Message::Unavailable(checkpoint),
            },
            (Part::Chunk(index), Some(bytes)) => transfer::Message::Chunk(checkpoint, index, bytes),
        };
        self.send_transfer(to, message, actions);
    }

    fn start_fetch(&mut self, checkpoint: Checkpoint, from: ReplicaId, now: Instant, actions: &mut Vec<Action>) {
        let (fetch, step) = Fetch::new(checkpoint, from, now);
        self.timers.insert(Wake::Transfer, fetch.deadline());
        self.fetch = Some(fetch);
        if let Step::Ask(message) = step {
            self.send_transfer(from, message, actions);
        }
    }

    fn end_fetch(&mut self) {
        self.fetch = None;
        self.timers.remove(&Wake::Transfer);
    }

    fn take_steps(&mut self, steps: Vec<Step>, turn: Turn, actions: &mut Vec<Action>) {
        for step in steps {
            let Some(fetch) = &self.fetch else { return };
            let (checkpoint, from) = (fetch.checkpoint(), fetch.source());
            match step {
                Step::Ask(message) => self.send_transfer(from, message, actions),
                Step::Begin(manifest) => actions.push(Action::Prepare(manifest)),
                Step::Put(index, bytes) => actions.push(Action::Put(checkpoint, index, bytes)),
                Step::Finish(checkpoint) => actions.push(Action::Finish(checkpoint)),
                Step::Blame(what) => self.ledger.blame(Peer::Replica(from), Fault::WrongBytes(what)),
                Step::Fail => {
                    self.end_fetch();
                    self.turn(turn, actions, |replica, out| replica.on_fetch_failed(checkpoint, out));
                }
            }
        }
        if let Some(fetch) = &self.fetch {
            self.timers.insert(Wake::Transfer, fetch.deadline());
        }
    }

    fn send_transfer(&self, to: ReplicaId, message: transfer::Message, actions: &mut Vec<Action>) {
        use transfer::Message as M;
        let label = match message {
            M::GetManifest(_) => "GetManifest",
            M::Manifest(_) => "Manifest",
            M::Unavailable(_) => "Unavailable",
            M::GetChunk(..) => "GetChunk",
            M::Chunk(..) => "Chunk",
        };
        let bytes = self.envelope.seal(&Payload::<P::Message>::Transfer(message));
        actions.push(Action::Send { to: To::One(Peer::Replica(to)), bytes, label });
    }
}

/// Status and watches.
impl<P: Protocol> Node<P> {
    fn on_service(&mut self, from: ClientId, message: Service, actions: &mut Vec<Action>) {
        match message {
            Service::GetStatus { nonce } => {
                if self.asking.waiting.len() >= ASKING_MAX && !self.asking.waiting.contains_key(&from) {
                    return self.ledger.ignore(Why::Busy);
                }
                self.asking.waiting.insert(from, nonce);
                self.compute_digest(actions);
            }
            Service::Watch { topic } => {
                if self.watchers.len() >= WATCHERS_MAX && !self.watchers.contains_key(&from) {
                    return self.ledger.ignore(Why::Busy);
                }
                self.watchers.insert(from, topic);
                self.answer(Peer::Client(from), Service::Watching { topic }, "Watching", actions);
            }
            Service::Status { .. } | Service::Watching { .. } | Service::Events(_) => {
                self.ledger.ignore(Why::NotForSender);
            }
        }
    }

    /// Has the digest computed for those who wait for it, unless it is being computed for others.
    fn compute_digest(&mut self, actions: &mut Vec<Action>) {
        if !self.asking.being_answered.is_empty() {
            return;
        }
        if let Some((client, nonce)) = self.asking.waiting.first_key_value() {
            actions.push(Action::Run(Job::Digest { to: Peer::Client(*client), nonce: *nonce }));
            self.asking.being_answered = std::mem::take(&mut self.asking.waiting);
        }
    }

    fn on_disconnected(&mut self, peer: Peer) {
        if let Peer::Client(client) = peer {
            self.watchers.remove(&client);
            self.asking.waiting.remove(&client);
        }
    }

    /// Sends an entry's events to those who watch. They follow from committed entries, so they may leave at once.
    fn publish(&mut self, events: &[Event], actions: &mut Vec<Action>) {
        if events.is_empty() {
            return;
        }
        let topics: BTreeSet<u32> = self.watchers.values().copied().collect();
        for topic in topics {
            let events: Vec<Event> = events.iter().filter(|event| event.topic == topic).cloned().collect();
            if events.is_empty() {
                continue;
            }
            let bytes = self.envelope.seal(&Payload::<P::Message>::Service(Service::Events(events)));
            for (client, _) in self.watchers.iter().filter(|(_, watched)| **watched == topic) {
                let to = To::One(Peer::Client(*client));
                actions.push(Action::Send { to, bytes: bytes.clone(), label: "Events" });
            }
        }
    }

    /// The machine has jumped: the events in between were not published here.
    fn tell_watchers(&self, actions: &mut Vec<Action>) {
        for (client, topic) in &self.watchers {
            self.answer(Peer::Client(*client), Service::Watching { topic: *topic }, "Watching", actions);
        }
    }

    fn report(&self, op: OpNumber, position: Position, digest: Digest) -> Report {
        Report {
            replica: self.identity.replica,
            protocol: P::NAME.to_owned(),
            status: self.replica.status(),
            op,
            position,
            digest,
            ignored: self.ledger.ignored().values().fold(0, |sum, count| sum.saturating_add(*count)),
            blamed: self.ledger.blamed().values().fold(0, |sum, count| sum.saturating_add(*count)),
            last_fault: self.ledger.last().map(|(peer, fault)| format!("{peer}: {fault:?}")),
        }
    }

    fn answer(&self, to: Peer, message: Service, label: &'static str, actions: &mut Vec<Action>) {
        let bytes = self.envelope.seal(&Payload::<P::Message>::Service(message));
        actions.push(Action::Send { to: To::One(to), bytes, label });
    }

    /// Hashes a turn's effects: two runs of a seed must agree on every one.
    fn record(&mut self, effects: &[Effect<P>]) {
        let Some(hasher) = &mut self.audit else { return };
        for effect in effects {
            match effect {
                Effect::Persist { seq, record, .. } => {
                    hasher.update(&seq.get().to_le_bytes());
                    hasher.update(&record.encode());
                }
                Effect::Send { to, message, when } => {
                    hasher.update(format!("{to:?} {when:?}").as_bytes());
                    hasher.update(&message.encode());
                }
                other => {
                    hasher.update(format!("{other:?}").as_bytes());
                }
            }
        }
    }
}
