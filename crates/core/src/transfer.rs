//! State transfer: how a replica whose log cannot catch up gets a checkpoint, chunk by chunk. Bytes only: *which*
//! checkpoint may be believed, and when it lets us forget the log, is the protocol's business.
//!
//! One fetch at a time, at most [`IN_FLIGHT_MAX`] chunks asked for and not answered; what has arrived is kept by the store
//! and not asked for again, also after a restart.

use crate::executor::Manifest;
use crate::ids::ReplicaId;
use crate::protocol::Checkpoint;
use crate::time::{Duration, Instant};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::collections::BTreeSet;

/// Chunks asked for and not yet answered.
pub const IN_FLIGHT_MAX: usize = 4;
/// Silence after which a question is asked again.
pub const RETRY: Duration = Duration::from_millis(500);
/// Questions without an answer after which a fetch has failed.
pub const ATTEMPTS_MAX: u32 = 6;

/// How long one source is given before it is asked what it has brought meanwhile.
pub const STRETCH: Duration = Duration::from_secs(30);
/// Chunks that it brings in that time, or another one has its turn: what has come is kept, so a slow network loses a question by
/// that, and a liar that gives a chunk now and then cannot keep a replica for as long as a state has chunks.
pub const STRETCH_CHUNKS: u32 = 30;

/// Between replicas, beside the protocol's own messages.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// What does this checkpoint consist of?
    GetManifest(Checkpoint),
    /// This.
    Manifest(Manifest),
    /// This replica does not have it.
    Unavailable(Checkpoint),
    /// This chunk of it, please.
    GetChunk(Checkpoint, u32),
    /// A chunk.
    Chunk(Checkpoint, u32, Bytes),
}

/// What a fetch wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Send this to the source.
    Ask(Message),
    /// Get ready to store chunks, and say which are there already.
    Begin(Manifest),
    /// Store this chunk.
    Put(u32, Bytes),
    /// Every chunk is stored: make it a snapshot.
    Finish(Checkpoint),
    /// The source has sent what no correct replica sends.
    Blame(String),
    /// Give up.
    Fail,
}

#[derive(Debug)]
enum Stage {
    Asking,
    Preparing,
    Receiving { manifest: Manifest, missing: BTreeSet<u32>, asked: BTreeSet<u32> },
    Finishing,
}

/// A fetch under way.
#[derive(Debug)]
pub struct Fetch {
    checkpoint: Checkpoint,
    from: ReplicaId,
    stage: Stage,
    attempts: u32,
    deadline: Instant,
    /// Since then so many chunks have come.
    since: Instant,
    came: u32,
}

impl Fetch {
    /// Starts: asks for the manifest.
    pub fn new(checkpoint: Checkpoint, from: ReplicaId, now: Instant) -> (Self, Step) {
        let (stage, deadline) = (Stage::Asking, now.plus(RETRY));
        let fetch = Self { checkpoint, from, stage, attempts: 0, deadline, since: now, came: 0 };
        (fetch, Step::Ask(Message::GetManifest(checkpoint)))
    }

    /// What is fetched.
    pub fn checkpoint(&self) -> Checkpoint {
        self.checkpoint
    }

    /// From whom.
    pub fn source(&self) -> ReplicaId {
        self.from
    }

    /// Is every chunk here, and the store told to make it a snapshot?
    pub fn is_finishing(&self) -> bool {
        matches!(self.stage, Stage::Finishing)
    }

    /// When [`Fetch::on_deadline`] is due.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// The manifest has come.
    pub fn on_manifest(&mut self, manifest: Manifest, now: Instant) -> Vec<Step> {
        if !matches!(self.stage, Stage::Asking) || manifest.checkpoint() != self.checkpoint {
            return Vec::new(); // the answer to an earlier question
        }
        if !manifest.is_consistent() {
            return vec![Step::Fail];
        }
        self.progress(now);
        self.stage = Stage::Preparing;
        vec![Step::Begin(manifest)]
    }

    /// The store is ready and lacks these chunks.
    pub fn on_prepared(&mut self, manifest: Manifest, missing: BTreeSet<u32>, now: Instant) -> Vec<Step> {
        if !matches!(self.stage, Stage::Preparing) {
            return Vec::new(); // an earlier fetch of the same checkpoint had asked the store too
        }
        self.stage = Stage::Receiving { manifest, missing, asked: BTreeSet::new() };
        (self.since, self.came) = (now, 0); // our own disk took the time before
        self.ask_more(now)
    }

    /// A chunk has come.
    pub fn on_chunk(&mut self, index: u32, bytes: Bytes, now: Instant) -> Vec<Step> {
        let Stage::Receiving { manifest, missing, asked } = &mut self.stage else { return Vec::new() };
        if !asked.remove(&index) || !missing.contains(&index) {
            return Vec::new();
        }
        let expected = manifest.chunks.get(index as usize);
        if expected != Some(&crate::crypto::Digest::of(&bytes)) {
            return vec![Step::Blame(format!("chunk {index} of checkpoint {}", self.checkpoint.op)), Step::Fail];
        }
        missing.remove(&index);
        self.came = self.came.saturating_add(1);
        self.progress(now);
        let mut steps = vec![Step::Put(index, bytes)];
        steps.extend(self.ask_more(now));
        steps
    }

    /// Nothing has come for too long.
    pub fn on_deadline(&mut self, now: Instant) -> Vec<Step> {
        self.deadline = now.plus(RETRY);
        if matches!(self.stage, Stage::Preparing | Stage::Finishing) {
            return Vec::new(); // our own disk or machine is busy, for as long as it takes
        }
        self.attempts = self.attempts.saturating_add(1);
        if self.attempts > ATTEMPTS_MAX || self.is_slow(now) {
            return vec![Step::Fail];
        }
        match &mut self.stage {
            Stage::Asking => vec![Step::Ask(Message::GetManifest(self.checkpoint))],
            Stage::Preparing | Stage::Finishing => Vec::new(),
            Stage::Receiving { asked, .. } => {
                asked.clear();
                self.ask_more(now)
            }
        }
    }

    fn ask_more(&mut self, now: Instant) -> Vec<Step> {
        let Stage::Receiving { missing, asked, .. } = &mut self.stage else { return Vec::new() };
        if missing.is_empty() {
            self.stage = Stage::Finishing;
            return vec![Step::Finish(self.checkpoint)];
        }
        let room = IN_FLIGHT_MAX.saturating_sub(asked.len());
        let next: Vec<u32> = missing.difference(asked).copied().take(room).collect();
        asked.extend(&next);
        self.deadline = now.plus(RETRY);
        next.into_iter().map(|index| Step::Ask(Message::GetChunk(self.checkpoint, index))).collect()
    }

    /// Has it brought too little for too long? Whoever never pauses for [`RETRY`] is not asked.
    fn is_slow(&mut self, now: Instant) -> bool {
        if now.since(self.since) < STRETCH {
            return false;
        }
        self.since = now;
        std::mem::take(&mut self.came) < STRETCH_CHUNKS
    }

    fn progress(&mut self, now: Instant) {
        self.attempts = 0;
        self.deadline = now.plus(RETRY);
    }
}
