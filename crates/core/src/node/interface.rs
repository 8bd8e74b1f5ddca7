//! What goes into a node and what comes out of it: what happened, what the host must do, and what travels in frames.

use super::Recorded;
use crate::crypto::Digest;
use crate::executor::{Done, Job, Make, Manifest, Save};
use crate::ids::{OpNumber, Peer, Position, RecordSeq, ReplicaId};
use crate::outbox::{Class, Note, To};
use crate::protocol::{Checkpoint, ProposeTicket, Status};
use crate::sessions::Event;
use crate::transfer;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::collections::BTreeSet;

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
        report: Box<Report>,
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
    /// What messages came and went here lately? A replica keeps that only while somebody asks.
    GetRecorded {
        /// Comes back.
        nonce: u64,
        /// The first number that the client has not seen: `next` of the last answer.
        from: u64,
    },
    /// These.
    Recorded {
        /// The question's.
        nonce: u64,
        /// In the order in which it happened, at most [`RECORDED_MAX`](super::RECORDED_MAX).
        recorded: Vec<Recorded>,
        /// What to ask for next time.
        next: u64,
    },
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
    /// Digests, without the sessions, of its states after the last entries that are multiples of 64 and of 4,096: eight of each,
    /// less if it has started since. Equal at replicas that agree, whatever entry each was asked after.
    pub milestones: Vec<(OpNumber, Digest)>,
    /// Messages that it ignored, in all.
    pub ignored: u64,
    /// Lies that it noticed, in all.
    pub blamed: u64,
    /// The last lie, in words.
    pub last_fault: Option<String>,
    /// Proofs against replicas, in words: two statements each that nobody makes who follows the protocol.
    pub evidence: Vec<String>,
    /// How often its log was synced since it started: each sync made everything durable that waited for it.
    pub syncs: u64,
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
    /// [`Node::deadline`](super::Node::deadline) has passed.
    Timers,
    /// The log is durable through this record.
    Synced(RecordSeq),
    /// The executor has done a job.
    Done(Done),
    /// The program that this replica runs in wants it to propose now ([`crate::protocol::Replica::on_cue`]).
    Cue,
    /// The machine has added to a batch.
    Made(ProposeTicket, Option<Bytes>),
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
    /// Let the machine add to a batch (off this thread, and off the executor's), then report [`Input::Made`].
    Make(Box<dyn Make>),
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
