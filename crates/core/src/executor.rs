//! The machine's side: applies committed batches, answers queries, saves and restores states. Runs apart from the protocol
//! (on a thread of its own in the host), so that a slow machine never delays a vote or a timer: jobs go in, what is done
//! comes out, in order. States that are not committed yet are in a tree (`speculation.rs`).

mod steps;

use crate::crypto::Digest;
use crate::ids::{OpNumber, Peer, Position, SessionId};
use crate::machine::{At, Corrupt, Entropy, Machine, Output, Sink, Source, View};
use crate::mutated;
use crate::objects::{Image, Step, Stepped};
use crate::protocol::{Checkpoint, ProposeTicket, QueryTicket, StateId};
use crate::sessions::{Admission, Batch, Body, Event, Outcome, Reply, Request, Ruling, Sessions};
use crate::speculation::{Branches, Work};
use crate::time::WallTime;
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Every chunk of a snapshot but the last has this size, bytes.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Chunks that a snapshot may have: 64 GiB of state.
pub const CHUNKS_MAX: usize = 65_536;

/// What a snapshot is: where it was taken and what its chunks hash to. Equal on all replicas at the same entry; its digest
/// is the checkpoint's id.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Manifest {
    /// The last entry that the state contains.
    pub op: OpNumber,
    /// How many operations were applied.
    pub position: Position,
    /// [`Executor::digest`] of the state.
    pub digest: Digest,
    /// Bytes of all chunks together.
    pub length: u64,
    /// The digest of each chunk.
    pub chunks: Vec<Digest>,
}

impl Manifest {
    /// The checkpoint that this manifest describes.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { op: self.op, id: Digest::of(&self.encode()) }
    }

    /// How long chunk `index` is; zero beyond the last.
    pub fn chunk_len(&self, index: u32) -> usize {
        let before = (CHUNK_BYTES as u64).saturating_mul(u64::from(index));
        usize::try_from(self.length.saturating_sub(before)).map_or(CHUNK_BYTES, |rest| rest.min(CHUNK_BYTES))
    }

    /// Do the number of chunks and the length agree?
    pub fn is_consistent(&self) -> bool {
        self.chunks.len() <= CHUNKS_MAX && self.length.div_ceil(CHUNK_BYTES as u64) == self.chunks.len() as u64
    }
}

/// A stored snapshot's chunks.
pub trait Chunks: Send + 'static {
    /// Chunk `index`, or a sentence that says why it cannot be read.
    ///
    /// # Errors
    /// For a chunk that is damaged or missing.
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String>;
}

/// What the executor is asked to do.
pub enum Job {
    /// Apply the batch of an entry.
    Execute {
        /// The entry.
        op: OpNumber,
        /// An encoded [`Batch`]; bytes that do not decode are an empty batch, at every replica alike.
        batch: Bytes,
    },
    /// Apply a batch to a state that may never be committed.
    Speculate {
        /// The state that it is applied to.
        parent: StateId,
        /// The name of the state that it leads to.
        state: StateId,
        /// As in [`Job::Execute`].
        batch: Bytes,
    },
    /// A speculative state is the entry's.
    Commit {
        /// The entry.
        op: OpNumber,
        /// The state.
        state: StateId,
    },
    /// A speculative state will never be committed. Its children are gone already.
    Abort(StateId),
    /// Get ready to let the machine add to a batch.
    Propose {
        /// The state that the batch is for.
        parent: StateId,
        /// Comes back.
        ticket: ProposeTicket,
        /// As in [`Job::Execute`].
        batch: Bytes,
    },
    /// Answer a query from the present state.
    Query {
        /// Comes back.
        ticket: QueryTicket,
        /// The machine's query.
        query: Bytes,
    },
    /// Do one step on one object ([`crate::objects`]): an entry of this replica's own order.
    Step {
        /// The entry.
        op: OpNumber,
        /// What to do.
        step: Step,
    },
    /// Give one object as bytes.
    Image {
        /// Comes back.
        ticket: QueryTicket,
        /// The object's name.
        object: Bytes,
    },
    /// Start saving the present state.
    Checkpoint(OpNumber),
    /// Replace the state by a later one.
    Install {
        /// What to install.
        manifest: Manifest,
        /// Where its chunks are.
        chunks: Box<dyn Chunks>,
    },
    /// Say the digest of the present state.
    Digest {
        /// Who asks.
        to: Peer,
        /// Comes back.
        nonce: u64,
    },
    /// From here on, make events of what is executed, or make none any more: nobody watches. At first none are made.
    Listen {
        /// Make them?
        on: bool,
        /// Comes back.
        wish: u64,
    },
}

/// What the executor has done.
pub enum Done {
    /// A batch was applied.
    Executed {
        /// The entry.
        op: OpNumber,
        /// What it came to.
        outcome: Outcome,
    },
    /// A batch was applied to a speculative state, if that was possible: otherwise it is applied when it is committed.
    Speculated {
        /// The state.
        state: StateId,
        /// What it comes to if it is committed.
        outcome: Option<Outcome>,
    },
    /// A speculative state is gone.
    Aborted(StateId),
    /// The machine is ready to add to a batch, on any thread.
    Proposing(Box<dyn Make>),
    /// A query was answered.
    Queried {
        /// Which.
        ticket: QueryTicket,
        /// The machine's answer.
        answer: Bytes,
    },
    /// A step was done.
    Stepped {
        /// The entry.
        op: OpNumber,
        /// What it led to.
        stepped: Stepped,
    },
    /// An object as bytes.
    Image {
        /// Which question.
        ticket: QueryTicket,
        /// The object.
        image: Image,
    },
    /// A state is ready to be written out, on any thread.
    Saving(Box<dyn Save>),
    /// The state was replaced, or could not be.
    Installed {
        /// By which checkpoint.
        checkpoint: Checkpoint,
        /// Why not.
        error: Option<Corrupt>,
        /// When the machine wants its next tick.
        wake: Option<WallTime>,
    },
    /// The state was not replaced by this checkpoint: it is as far, or further.
    Overtaken(Checkpoint),
    /// The digest of the present state.
    Digest {
        /// Who asked.
        to: Peer,
        /// The question's.
        nonce: u64,
        /// The last entry applied.
        op: OpNumber,
        /// How many operations were applied.
        position: Position,
        /// [`Executor::digest`].
        digest: Digest,
        /// [`Report::milestones`](crate::node::Report::milestones).
        milestones: Vec<(OpNumber, Digest)>,
    },
    /// What is executed from here on has events, or has none.
    Listening {
        /// The wish's.
        wish: u64,
    },
}

/// A state that is being written out: chunk after chunk, then the manifest.
pub trait Save: Send {
    /// The last entry that the state contains.
    fn op(&self) -> OpNumber;

    /// The next chunk; `None` after the last.
    fn next_chunk(&mut self) -> Option<Vec<u8>>;

    /// The manifest of the chunks given out.
    fn finish(self: Box<Self>) -> Manifest;
}

/// A machine that is about to add to a batch: the step that may be expensive. Nothing waits for it but the proposal.
pub trait Make: Send {
    /// Does it; `None` if the machine has nothing to add.
    fn make(self: Box<Self>) -> (ProposeTicket, Option<Bytes>);
}

struct Making<M> {
    machine: Option<(M, At)>,
    ticket: ProposeTicket,
    batch: Bytes,
}

impl<M: Machine> Make for Making<M> {
    fn make(self: Box<Self>) -> (ProposeTicket, Option<Bytes>) {
        let batch = Batch::decode(&self.batch).unwrap_or_default();
        let operations = batch.requests.into_iter().filter_map(|request| match request.body {
            Body::Apply(operation) | Body::Critical(_, operation) => Some(operation),
            _ => None,
        });
        let operations: Vec<Bytes> = operations.collect();
        let made = self.machine.and_then(|(machine, at)| machine.propose(&at, &operations));
        (self.ticket, made.map(Bytes::from))
    }
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Head {
    op: OpNumber,
    position: Position,
    time: WallTime,
    sessions: Sessions,
}

/// The largest batch, or write of an object, that [`Executor::run_quick`] takes: requests, and bytes encoded.
const QUICK_REQUESTS_MAX: usize = 8;
const QUICK_BYTES_MAX: usize = 16 * 1024;

/// A machine with its sessions and its place in the order.
#[derive(Debug)]
pub(crate) struct State<M> {
    machine: M,
    sessions: Sessions,
    position: Position,
    time: WallTime,
}

/// The committed state, and those that may follow it.
#[derive(Debug)]
pub struct Executor<M> {
    op: OpNumber,
    state: State<M>,
    /// Whether events are made.
    heard: bool,
    branches: Branches<State<M>, Outcome>,
    milestones: Milestones,
}

/// States after entries at which all replicas look. Under a load no two replicas are asked for their state after the same entry, so
/// whoever wants to know whether they differ compares these. Their digests leave the sessions out: those may be long.
#[derive(Debug, Default)]
struct Milestones(BTreeMap<OpNumber, Digest>);

impl Milestones {
    /// Entries between two of them; every so many is kept for longer, for replicas that are far apart.
    const NEAR_ENTRIES: u64 = 64;
    const FAR_ENTRIES: u64 = 4096;
    /// So many of each kind are remembered.
    const OF_EACH: u64 = 8;

    fn pass<M: Machine>(&mut self, op: OpNumber, state: &State<M>) {
        if !op.get().is_multiple_of(Self::NEAR_ENTRIES) {
            return;
        }
        let (position, time) = (state.position.get().to_le_bytes(), state.time.as_nanos().to_le_bytes());
        self.0.insert(op, Digest::of_parts(&[b"milestone", &position, &time, state.machine.digest().as_bytes()]));
        self.0.retain(|at, _| {
            let is_far = at.get().is_multiple_of(Self::FAR_ENTRIES);
            op.since(*at) < Self::OF_EACH.saturating_mul(if is_far { Self::FAR_ENTRIES } else { Self::NEAR_ENTRIES })
        });
    }
}

impl<M: Machine> Executor<M> {
    /// A machine in its first state.
    pub fn new(machine: M) -> Self {
        let (position, time) = (Position::ZERO, WallTime::default());
        Self::of(OpNumber::ZERO, State { machine, sessions: Sessions::default(), position, time })
    }

    fn of(op: OpNumber, state: State<M>) -> Self {
        Self { op, state, heard: false, branches: Branches::default(), milestones: Milestones::default() }
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// [`Corrupt`] when a chunk cannot be read or the state is not what the manifest says.
    pub fn restore(manifest: &Manifest, chunks: &mut dyn Chunks) -> Result<Self, Corrupt> {
        let mut head = Vec::new();
        let mut sink = None;
        for (index, expected) in (0u32..).zip(&manifest.chunks) {
            let chunk = chunks.chunk(index).map_err(Corrupt)?;
            if Digest::of(&chunk) != *expected {
                return Err(Corrupt(format!("chunk {index} is not what the manifest says")));
            }
            match &mut sink {
                None => {
                    head.extend_from_slice(&chunk);
                    sink = Self::split_head(&mut head)?;
                }
                Some((_, sink)) => M::Sink::push(sink, &chunk)?,
            }
        }
        let (head, sink) = sink.ok_or_else(|| Corrupt("it ends within its head".to_owned()))?;
        let machine = sink.finish()?;
        let Head { op, position, time, sessions } = head;
        let restored = Self::of(op, State { machine, sessions, position, time });
        if (op, position, restored.digest()) != (manifest.op, manifest.position, manifest.digest) {
            return Err(Corrupt("its state is not the one that its manifest names".to_owned()));
        }
        Ok(restored)
    }

    /// Once `bytes` hold the whole head: decodes it and gives what follows to a new sink.
    fn split_head(bytes: &mut Vec<u8>) -> Result<Option<(Head, M::Sink)>, Corrupt> {
        let Some((length, rest)) = bytes.split_first_chunk() else { return Ok(None) };
        let length = usize::try_from(u64::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((head, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let head = Head::decode(head).map_err(|error| Corrupt(error.to_string()))?;
        let mut sink = M::rebuild();
        sink.push(rest)?;
        bytes.clear();
        Ok(Some((head, sink)))
    }

    /// Does one job.
    pub fn run(&mut self, job: Job) -> Done {
        match job {
            Job::Execute { op, batch } => {
                Done::Executed { op, outcome: self.execute(op, Batch::decode(&batch).unwrap_or_default()) }
            }
            Job::Speculate { parent, state, batch } => {
                let outcome = self.branches.speculate(&self.state, parent, state, batch);
                Done::Speculated { state, outcome }
            }
            Job::Commit { op, state } => Done::Executed { op, outcome: self.commit(op, state) },
            Job::Abort(state) => {
                self.branches.abort(state);
                Done::Aborted(state)
            }
            Job::Propose { parent, ticket, batch } => {
                let state = self.branches.state(&self.state, parent).and_then(State::fork);
                let machine = state.map(|state| {
                    let at = state.next_at();
                    (state.machine, at)
                });
                Done::Proposing(Box::new(Making { machine, ticket, batch }))
            }
            Job::Query { ticket, query } => {
                let mut answer = Vec::new();
                self.state.machine.view().query(&query, &mut answer);
                Done::Queried { ticket, answer: answer.into() }
            }
            Job::Step { op, step } => Done::Stepped { op, stepped: self.step(op, step) },
            Job::Image { ticket, object } => Done::Image { ticket, image: self.state.machine.image(&object) },
            Job::Checkpoint(op) => {
                assert_eq!(op, self.op, "a checkpoint follows the execution of its entry");
                Done::Saving(self.save())
            }
            Job::Install { manifest, .. } if manifest.op <= self.op => Done::Overtaken(manifest.checkpoint()),
            Job::Install { manifest, mut chunks } => {
                let restored = Self::restore(&manifest, chunks.as_mut());
                let error = match restored {
                    Ok(executor) => {
                        *self = Self { heard: self.heard, ..executor }; // what was speculated is void
                        None
                    }
                    Err(error) => Some(error),
                };
                Done::Installed { checkpoint: manifest.checkpoint(), error, wake: self.wake() }
            }
            Job::Digest { to, nonce } => {
                let milestones = self.milestones.0.iter().map(|(op, digest)| (*op, *digest)).collect();
                let (op, position, digest) = (self.op, self.state.position, self.digest());
                Done::Digest { to, nonce, op, position, digest, milestones }
            }
            Job::Listen { on, wish } => {
                self.heard = on;
                Done::Listening { wish }
            }
        }
    }

    /// Does a job at once if that takes microseconds, as the machine says of its operations
    /// ([`crate::machine::StateMachine::is_quick`]); gives it back otherwise.
    ///
    /// # Errors
    /// The job, untouched: it is one for [`Executor::run`], on a thread of its own.
    pub fn run_quick(&mut self, job: Job) -> Result<Done, Job> {
        let (op, batch) = match job {
            Job::Execute { op, batch } => (op, batch),
            // What was applied before takes its place, or goes.
            Job::Commit { state, .. } if self.branches.is_ready(state) => return Ok(self.run(job)),
            Job::Abort(_) => return Ok(self.run(job)),
            Job::Step { op, step } if self.is_quick(&step) => {
                return Ok(Done::Stepped { op, stepped: self.step(op, step) });
            }
            other => return Err(other),
        };
        if batch.len() > QUICK_BYTES_MAX {
            return Err(Job::Execute { op, batch });
        }
        let decoded = Batch::decode(&batch).unwrap_or_default();
        let is_quick = |request: &Request| match &request.body {
            Body::Apply(operation) | Body::Critical(_, operation) => self.state.machine.is_quick(operation),
            Body::Register | Body::Close => true,
            Body::Query(_) => false,
        };
        if decoded.tick || decoded.requests.len() > QUICK_REQUESTS_MAX || !decoded.requests.iter().all(is_quick) {
            return Err(Job::Execute { op, batch });
        }
        Ok(Done::Executed { op, outcome: self.execute(op, decoded) })
    }

    /// The digest of everything that is replicated: machine, sessions, position, time.
    pub fn digest(&self) -> Digest {
        let forgotten = mutated!("executor/checkpoint-without-sessions"); // a forgetful checkpoint must not betray itself
        let state = &self.state;
        let sessions = if forgotten { Digest::ZERO } else { Digest::of(&state.sessions.encode()) };
        let (position, time) = (state.position.get().to_le_bytes(), state.time.as_nanos().to_le_bytes());
        Digest::of_parts(&[&position, &time, sessions.as_bytes(), state.machine.digest().as_bytes()])
    }

    /// The last entry applied.
    pub fn op(&self) -> OpNumber {
        self.op
    }

    /// When the machine wants its next tick.
    pub fn wake(&self) -> Option<WallTime> {
        self.state.machine.wake()
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &M {
        &self.state.machine
    }

    /// The batch that a speculative state is made with, if it is here.
    pub fn speculated(&self, state: StateId) -> Option<&Bytes> {
        self.branches.batch(state)
    }

    /// How many speculative states there are.
    pub fn branches(&self) -> usize {
        self.branches.len()
    }

    fn execute(&mut self, op: OpNumber, batch: Batch) -> Outcome {
        assert_eq!(op, self.op.next(), "entries are applied in order, each once");
        self.op = op;
        if !batch.is_nothing() {
            self.branches.overtaken();
        }
        let outcome = self.state.apply(batch, self.heard);
        self.milestones.pass(op, &self.state);
        outcome
    }

    fn commit(&mut self, op: OpNumber, state: StateId) -> Outcome {
        assert_eq!(op, self.op.next(), "entries are committed in order, each once");
        self.op = op;
        let outcome = self.branches.commit(&mut self.state, state);
        self.milestones.pass(op, &self.state);
        outcome
    }

    fn save(&self) -> Box<dyn Save> {
        let forgotten = mutated!("executor/checkpoint-without-sessions");
        let sessions = if forgotten { Sessions::default() } else { self.state.sessions.clone() };
        let (position, time) = (self.state.position, self.state.time);
        let head = Head { op: self.op, position, time, sessions }.encode();
        let mut buffer = (head.len() as u64).to_le_bytes().to_vec();
        buffer.extend_from_slice(&head);
        let (op, digest) = (self.op, self.digest());
        let manifest = Manifest { op, position, digest, length: 0, chunks: Vec::new() };
        Box::new(Saving { source: self.state.machine.snapshot(), buffer, manifest })
    }
}

impl<M: Machine> Work for State<M> {
    type Outcome = Outcome;

    fn fork(&self) -> Option<Self> {
        let (sessions, position, time) = (self.sessions.clone(), self.position, self.time);
        Some(Self { machine: self.machine.fork()?, sessions, position, time })
    }

    /// Always with events: somebody may watch by the time that it is committed.
    fn work(&mut self, batch: &Bytes) -> Outcome {
        self.apply(Batch::decode(batch).unwrap_or_default(), true)
    }
}

impl<M: Machine> State<M> {
    fn apply(&mut self, batch: Batch, heard: bool) -> Outcome {
        let output = || if heard { Output::default() } else { Output::unheard() };
        self.time = self.time.max(batch.time);
        let mut outcome = Outcome::default();
        let mut requests = batch.requests.as_slice();
        if let Some((first, rest)) = requests.split_first()
            && let Some(made) = first.made()
        {
            // Before the tick: the machine has made it for the state that is before all of the batch.
            requests = rest;
            self.position = self.position.next();
            let at = self.at(SessionId::ZERO);
            let mut output = output();
            self.machine.proposed(&at, made, &mut output);
            self.publish(output, &mut outcome);
        }
        if batch.tick && self.machine.wake().is_some_and(|time| time <= self.time) {
            self.position = self.position.next();
            let at = self.at(SessionId::ZERO);
            let mut output = output();
            self.machine.tick(&at, &mut output);
            self.publish(output, &mut outcome);
        }
        for request in requests {
            self.position = self.position.next();
            if let Some(ruling) = self.rule(request, output(), &mut outcome) {
                let Request { client, session, number, .. } = *request;
                outcome.replies.push(Reply { client, session, number, ruling });
            }
        }
        outcome.wake = self.machine.wake();
        outcome
    }

    /// Where the next operation will be applied, if it is the protocol's own.
    fn next_at(&self) -> At {
        at(self.position.next(), self.time, SessionId::ZERO)
    }

    fn rule(&mut self, request: &Request, mut output: Output, outcome: &mut Outcome) -> Option<Ruling> {
        if request.body == Body::Register {
            return Some(Ruling::Opened(self.sessions.open(request.client, self.position)));
        }
        match self.sessions.admit(request, self.position) {
            Admission::Answered(ruling) => return Some(ruling),
            Admission::Acknowledged => return None,
            Admission::Fresh => {}
        }
        let reply = match &request.body {
            Body::Apply(operation) | Body::Critical(_, operation) => {
                let at = self.at(request.session);
                self.machine.apply(&at, operation, &mut output);
                self.publish(output, outcome)
            }
            Body::Query(query) => {
                let mut answer = Vec::new();
                self.machine.view().query(query, &mut answer);
                answer.into()
            }
            Body::Close => {
                self.sessions.close(request.session);
                return Some(Ruling::Closed);
            }
            Body::Register => return None, // answered above
        };
        self.sessions.store(request, reply.clone());
        Some(Ruling::Replied(reply))
    }

    fn publish(&self, output: Output, outcome: &mut Outcome) -> Bytes {
        let (reply, events) = output.take();
        let position = self.position;
        let event = |(topic, bytes): (u32, Vec<u8>)| Event { position, topic, bytes: bytes.into() };
        outcome.events.extend(events.into_iter().map(event));
        reply.into()
    }

    fn at(&self, session: SessionId) -> At {
        at(self.position, self.time, session)
    }
}

fn at(position: Position, time: WallTime, session: SessionId) -> At {
    At { position, time, session, entropy: Entropy::Position(position) }
}

struct Saving<S> {
    source: S,
    buffer: Vec<u8>,
    manifest: Manifest,
}

impl<S: Source> Save for Saving<S> {
    fn op(&self) -> OpNumber {
        self.manifest.op
    }

    fn next_chunk(&mut self) -> Option<Vec<u8>> {
        while self.buffer.len() < CHUNK_BYTES && self.source.next(CHUNK_BYTES - self.buffer.len(), &mut self.buffer) {}
        if self.buffer.is_empty() {
            return None;
        }
        let rest = self.buffer.split_off(self.buffer.len().min(CHUNK_BYTES));
        let chunk = std::mem::replace(&mut self.buffer, rest);
        self.manifest.length = self.manifest.length.saturating_add(chunk.len() as u64);
        self.manifest.chunks.push(Digest::of(&chunk));
        Some(chunk)
    }

    fn finish(self: Box<Self>) -> Manifest {
        self.manifest
    }
}
