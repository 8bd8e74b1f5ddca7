//! The last messages and notes of a replica, for people who look on: pictures of a cluster that runs.
//!
//! Nothing is kept until a client asks with `Service::GetRecorded`, and nothing any more when nobody has asked for
//! [`RECORDING`]: until then a message costs one look at a flag. What is kept are names, times and marks, never contents. No
//! protocol can read it, and no timer is armed for it.

use super::{Action, Payload};
use crate::ids::{Peer, ReplicaId};
use crate::outbox::{Note, To, Turn};
use crate::time::{Duration, Instant, WallTime};
use crate::transfer;
use borsh::{BorshDeserialize, BorshSerialize};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// How many messages and notes are kept; the oldest go first.
pub const RECORDED_MAX: usize = 1024;
/// How long after the last question a replica goes on recording.
pub const RECORDING: Duration = Duration::from_secs(10);
/// Bytes at the beginning and at the end of a frame that its mark is made of.
const MARKED_BYTES: usize = 64;

/// What happened at a replica, and when by its calendar clock: the beginning of the turn in which it happened.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Recorded {
    /// When.
    pub at: WallTime,
    /// What.
    pub what: Happened,
}

/// See [`Recorded`].
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Happened {
    /// A message left: it was handed to the link.
    Sent {
        /// To whom.
        to: Peer,
        /// Its name in the paper.
        label: Cow<'static, str>,
        /// Of the frame's bytes: where it arrives, it has the same.
        mark: u32,
    },
    /// A message arrived and was taken apart.
    Received {
        /// Who sent it.
        from: Peer,
        /// Its name in the paper.
        label: Cow<'static, str>,
        /// As in [`Happened::Sent`].
        mark: u32,
    },
    /// The protocol remarked on something.
    Noted(Cow<'static, str>),
}

/// Keeps what happens, while somebody looks.
#[derive(Debug)]
pub(super) struct Recorder {
    me: ReplicaId,
    replicas: usize,
    /// Shared with whoever opens frames on other threads.
    on: Arc<AtomicBool>,
    until: Instant,
    /// The number of the next thing that is kept: clients ask for what they have not seen.
    next: u64,
    kept: VecDeque<Recorded>,
}

impl Recorder {
    pub(super) fn new(me: ReplicaId, replicas: usize, on: Arc<AtomicBool>) -> Self {
        Self { me, replicas, on, until: Instant::default(), next: 0, kept: VecDeque::new() }
    }

    /// Goes on, or begins, and gives what was kept from number `from` on; with the number to ask for next time.
    pub(super) fn answer(&mut self, from: u64, now: Instant) -> (Vec<Recorded>, u64) {
        self.on.store(true, Ordering::Relaxed);
        self.until = now.plus(RECORDING);
        let oldest = self.next.saturating_sub(self.kept.len() as u64);
        let seen = usize::try_from(from.saturating_sub(oldest)).unwrap_or(usize::MAX);
        // A number from a former life of this replica is beyond what there is: then everything is new.
        let seen = if from > self.next { 0 } else { seen };
        (self.kept.iter().skip(seen).cloned().collect(), self.next)
    }

    /// What a turn sends and notes.
    pub(super) fn actions(&mut self, actions: &[Action], turn: Turn) {
        if !self.is_on(turn.now) {
            return;
        }
        for action in actions {
            match action {
                Action::Send { label, .. } if super::service::LABELS.contains(label) => {}
                Action::Send { to: To::One(to), bytes, label } => self.sent(*to, label, mark(bytes), turn.wall),
                Action::Send { to: To::Others, bytes, label } => {
                    let mark = mark(bytes);
                    let (me, all) = (self.me, (0_u8..).take(self.replicas).map(ReplicaId::new));
                    for other in all.filter(|it| *it != me) {
                        self.sent(Peer::Replica(other), label, mark, turn.wall);
                    }
                }
                Action::Note(note) => {
                    if let Some(words) = words(note) {
                        self.keep(turn.wall, Happened::Noted(words));
                    }
                }
                _ => {}
            }
        }
    }

    /// A message that has arrived.
    pub(super) fn received(&mut self, from: Peer, label: &'static str, mark: u32, turn: Turn) {
        if self.is_on(turn.now) {
            self.keep(turn.wall, Happened::Received { from, label: Cow::Borrowed(label), mark });
        }
    }

    fn sent(&mut self, to: Peer, label: &'static str, mark: u32, at: WallTime) {
        self.keep(at, Happened::Sent { to, label: Cow::Borrowed(label), mark });
    }

    fn keep(&mut self, at: WallTime, what: Happened) {
        if self.kept.len() == RECORDED_MAX {
            self.kept.pop_front();
        }
        self.kept.push_back(Recorded { at, what });
        self.next = self.next.saturating_add(1);
    }

    fn is_on(&mut self, now: Instant) -> bool {
        if !self.on.load(Ordering::Relaxed) {
            return false;
        }
        if now > self.until {
            self.on.store(false, Ordering::Relaxed);
            self.kept = VecDeque::new();
            return false;
        }
        true
    }
}

/// Tells frames apart: 32 bits of their length and of the bytes at both ends (FNV-1a), where messages differ.
pub(super) fn mark(bytes: &[u8]) -> u32 {
    let (head, rest) = bytes.split_at(bytes.len().min(MARKED_BYTES));
    let tail = rest.get(rest.len().saturating_sub(MARKED_BYTES)..).unwrap_or_default();
    let length = (bytes.len() as u64).to_le_bytes();
    let step = |mark: u32, byte: &u8| (mark ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    length.iter().chain(head).chain(tail).fold(0x811c_9dc5, step)
}

/// The name of what arrived; nothing for questions about the replica, which are the asker's own doing.
pub(super) fn label<M>(payload: &Payload<M>, protocol: impl Fn(&M) -> &'static str) -> Option<&'static str> {
    match payload {
        Payload::Protocol(message) => Some(protocol(message)),
        Payload::Transfer(message) => Some(transfer_label(message)),
        Payload::Service(_) => None,
    }
}

/// The name of a message of state transfer.
pub(super) const fn transfer_label(message: &transfer::Message) -> &'static str {
    use transfer::Message as M;
    match message {
        M::GetManifest(_) => "GetManifest",
        M::Manifest(_) => "Manifest",
        M::Unavailable(_) => "Unavailable",
        M::GetChunk(..) => "GetChunk",
        M::Chunk(..) => "Chunk",
    }
}

/// A note in words; entries that were committed or fetched are too many to be worth one each.
fn words(note: &Note) -> Option<Cow<'static, str>> {
    Some(match note {
        Note::Committed(_) | Note::Fetched(_) => return None,
        Note::Suspects(view) => format!("suspects the primary of view {view}").into(),
        Note::ViewChange(view) => format!("changes to view {view}").into(),
        Note::ViewStarted { view, primary, .. } => format!("view {view} has started, {primary} leads").into(),
        Note::Checkpointed(op) => format!("checkpoint at {op}").into(),
        Note::Repaired(op) => format!("repaired entry {op}").into(),
        Note::StateTransfer(op) => format!("fetches the checkpoint at {op}").into(),
        Note::RecoveringHead => "waits to be told the end of its log".into(),
        Note::Other(words) => Cow::Borrowed(words),
    })
}
