//! The machine's side: applies committed batches, answers queries, saves and restores states. Runs apart from the protocol
//! (on a thread of its own in the host), so that a slow machine never delays a vote or a timer: jobs go in, what is done
//! comes out, in order.
//!
//! The tree of speculative states (commit, abort) that HotStuff, PBFT's tentative execution and HQ's one-level undo need
//! belongs here and arrives with the first of them.

use crate::crypto::Digest;
use crate::ids::{OpNumber, Peer, Position, SessionId};
use crate::machine::{At, Corrupt, Machine, Output, Sink, Source, View};
use crate::mutated;
use crate::objects::{self, Image, MISPLACED, Objects, Step, Stepped};
use crate::protocol::{Checkpoint, QueryTicket};
use crate::sessions::{Admission, Batch, Body, Event, Outcome, Reply, Request, Ruling, Sessions};
use crate::time::WallTime;
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

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

#[derive(BorshSerialize, BorshDeserialize)]
struct Head {
    op: OpNumber,
    position: Position,
    time: WallTime,
    sessions: Sessions,
}

/// The largest batch that [`Executor::run_quick`] takes: requests, and bytes encoded.
const QUICK_REQUESTS_MAX: usize = 8;
const QUICK_BYTES_MAX: usize = 16 * 1024;

/// A machine with its sessions and its place in the order.
#[derive(Debug)]
pub struct Executor<M> {
    machine: M,
    sessions: Sessions,
    op: OpNumber,
    position: Position,
    time: WallTime,
}

impl<M: Machine> Executor<M> {
    /// A machine in its first state.
    pub fn new(machine: M) -> Self {
        let (op, position, time) = (OpNumber::ZERO, Position::ZERO, WallTime::default());
        Self { machine, sessions: Sessions::default(), op, position, time }
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
        let restored = Self { machine, sessions, op, position, time };
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
            Job::Query { ticket, query } => {
                let mut answer = Vec::new();
                self.machine.view().query(&query, &mut answer);
                Done::Queried { ticket, answer: answer.into() }
            }
            Job::Step { op, step } => Done::Stepped { op, stepped: self.step(op, step) },
            Job::Image { ticket, object } => Done::Image { ticket, image: self.machine.image(&object) },
            Job::Checkpoint(op) => {
                assert_eq!(op, self.op, "a checkpoint follows the execution of its entry");
                Done::Saving(self.save())
            }
            Job::Install { manifest, .. } if manifest.op <= self.op => Done::Overtaken(manifest.checkpoint()),
            Job::Install { manifest, mut chunks } => {
                let restored = Self::restore(&manifest, chunks.as_mut());
                let error = match restored {
                    Ok(executor) => {
                        *self = executor;
                        None
                    }
                    Err(error) => Some(error),
                };
                Done::Installed { checkpoint: manifest.checkpoint(), error, wake: self.machine.wake() }
            }
            Job::Digest { to, nonce } => {
                Done::Digest { to, nonce, op: self.op, position: self.position, digest: self.digest() }
            }
        }
    }

    /// Does a job at once if that takes microseconds, as the machine says of its operations
    /// ([`crate::machine::StateMachine::is_quick`]); gives it back otherwise.
    ///
    /// # Errors
    /// The job, untouched: it is one for [`Executor::run`], on a thread of its own.
    pub fn run_quick(&mut self, job: Job) -> Result<Done, Job> {
        let Job::Execute { op, batch } = job else { return Err(job) };
        if batch.len() > QUICK_BYTES_MAX {
            return Err(Job::Execute { op, batch });
        }
        let decoded = Batch::decode(&batch).unwrap_or_default();
        let is_quick = |request: &Request| match &request.body {
            Body::Apply(operation) => self.machine.is_quick(operation),
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
        let sessions = if forgotten { Digest::ZERO } else { Digest::of(&self.sessions.encode()) };
        let (position, time) = (self.position.get().to_le_bytes(), self.time.as_nanos().to_le_bytes());
        Digest::of_parts(&[&position, &time, sessions.as_bytes(), self.machine.digest().as_bytes()])
    }

    /// The last entry applied.
    pub fn op(&self) -> OpNumber {
        self.op
    }

    /// When the machine wants its next tick.
    pub fn wake(&self) -> Option<WallTime> {
        self.machine.wake()
    }

    /// The machine, to look at.
    pub fn machine(&self) -> &M {
        &self.machine
    }

    fn execute(&mut self, op: OpNumber, batch: Batch) -> Outcome {
        assert_eq!(op, self.op.next(), "entries are applied in order, each once");
        self.op = op;
        self.time = self.time.max(batch.time);
        let mut outcome = Outcome::default();
        if batch.tick && self.machine.wake().is_some_and(|time| time <= self.time) {
            self.position = self.position.next();
            let at = self.at(SessionId::ZERO);
            let mut output = Output::default();
            self.machine.tick(&at, &mut output);
            self.publish(output, &mut outcome);
        }
        for request in &batch.requests {
            self.position = self.position.next();
            if let Some(ruling) = self.rule(request, &mut outcome) {
                let Request { client, session, number, .. } = *request;
                outcome.replies.push(Reply { client, session, number, ruling });
            }
        }
        outcome.wake = self.machine.wake();
        outcome
    }

    fn step(&mut self, op: OpNumber, step: Step) -> Stepped {
        assert_eq!(op, self.op.next(), "steps are done in order, each once");
        self.op = op;
        match step {
            Step::Apply { object, at, operation } => {
                let before = self.machine.image(&object);
                if M::objects(&operation) != Objects::One(object.clone()) {
                    return Stepped { reply: MISPLACED.into(), before };
                }
                let entropy = objects::entropy(&object, at);
                let at = At { position: at, time: WallTime::default(), session: SessionId::ZERO, entropy };
                let mut output = Output::default();
                self.machine.apply_to(&object, &at, &operation, &mut output);
                Stepped { reply: output.take().0.into(), before }
            }
            Step::Put { object, image } => {
                let before = self.machine.image(&object);
                let put = self.machine.put_image(&object, image.as_deref());
                assert!(
                    put.is_ok(),
                    "an image is this machine's own, or that of several replicas, one of which is correct"
                );
                Stepped { reply: Bytes::new(), before }
            }
        }
    }

    fn rule(&mut self, request: &Request, outcome: &mut Outcome) -> Option<Ruling> {
        if request.body == Body::Register {
            return Some(Ruling::Opened(self.sessions.open(request.client, self.position)));
        }
        match self.sessions.admit(request, self.position) {
            Admission::Answered(ruling) => return Some(ruling),
            Admission::Acknowledged => return None,
            Admission::Fresh => {}
        }
        let reply = match &request.body {
            Body::Apply(operation) => {
                let at = self.at(request.session);
                let mut output = Output::default();
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
        let entropy = Digest::of_parts(&[b"quorate entropy", &self.position.get().to_le_bytes()]);
        At { position: self.position, time: self.time, session, entropy: *entropy.as_bytes() }
    }

    fn save(&self) -> Box<dyn Save> {
        let forgotten = mutated!("executor/checkpoint-without-sessions");
        let sessions = if forgotten { Sessions::default() } else { self.sessions.clone() };
        let head = Head { op: self.op, position: self.position, time: self.time, sessions }.encode();
        let mut buffer = (head.len() as u64).to_le_bytes().to_vec();
        buffer.extend_from_slice(&head);
        let (op, position, digest) = (self.op, self.position, self.digest());
        let manifest = Manifest { op, position, digest, length: 0, chunks: Vec::new() };
        Box::new(Saving { source: self.machine.snapshot(), buffer, manifest })
    }
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
