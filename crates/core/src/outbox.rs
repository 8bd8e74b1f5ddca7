//! Effects as data. A handler is given what happened and an [`Outbox`]; what it wants done, it writes there.
//!
//! # A turn is the unit of durability
//! One call of a handler is one turn. Everything persisted in a turn, and in any turn before it, is on disk before
//! anything that [`Outbox::send`] puts into it leaves. What may go earlier says so with [`Outbox::send_unsynced`] and argues why at
//! the call. A replica's vote to itself is a message to itself: it comes back as an input once it is durable, so nobody
//! counts a vote that a power failure could take back.

use crate::fault::{Fault, Why};
use crate::ids::{OpNumber, Peer, RecordSeq, ReplicaId, View};
use crate::objects::Step;
use crate::protocol::{Checkpoint, ProposeTicket, Protocol, QueryTicket, StateId};
use crate::time::{Duration, Instant, WallTime};
use bytes::Bytes;

/// What the host read from its clocks and its random source when the turn began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Turn {
    /// Monotonic: for deadlines.
    pub now: Instant,
    /// Calendar: what a leader proposes as the agreed time of an entry.
    pub wall: WallTime,
    /// Unpredictable bits: for nonces.
    pub entropy: u64,
}

/// How the log keeps a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// One copy. If it is damaged, peers have the same bytes.
    Entry,
    /// Two copies. Nobody else has it: a view, a vote, a promise.
    Promise,
}

/// Who a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum To {
    /// One peer. Oneself is allowed: the message comes back when it is durable.
    One(Peer),
    /// Every other replica.
    Others,
}

/// When a message may leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// After everything persisted in this turn and before it is on disk.
    Durable,
    /// At once.
    Now,
}

/// Something worth drawing, logging and counting. Never read back by a protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// The replica suspects the primary of a view.
    Suspects(View),
    /// The replica takes part in changing to a view.
    ViewChange(View),
    /// The view has started at this replica.
    ViewStarted {
        /// The view.
        view: View,
        /// Who leads it.
        primary: ReplicaId,
        /// The last entry of the log that it started with.
        op: OpNumber,
    },
    /// Entries through this one are known to be committed.
    Committed(OpNumber),
    /// A checkpoint is durable here.
    Checkpointed(OpNumber),
    /// An entry that was damaged on this disk, or may have been, was replaced by a peer's copy.
    Repaired(OpNumber),
    /// An entry that had not come here before was had from a peer: this replica was behind.
    Fetched(OpNumber),
    /// The replica fetches a checkpoint because its log cannot catch up.
    StateTransfer(OpNumber),
    /// The replica cannot know the end of its log and waits to be told.
    RecoveringHead,
    /// Anything else, in the paper's words.
    Other(&'static str),
}

/// One thing that a handler wants done.
#[derive(Clone, Debug)]
pub enum Effect<P: Protocol> {
    /// Append to the write-ahead log.
    Persist {
        /// The record's place in the log.
        seq: RecordSeq,
        /// How many copies to keep.
        class: Class,
        /// What to keep.
        record: P::Record,
    },
    /// Send a message.
    Send {
        /// To whom.
        to: To,
        /// What.
        message: P::Message,
        /// When it may leave.
        when: When,
    },
    /// Wake up for this reason at this time; replaces an earlier time for the same reason.
    Arm {
        /// The reason.
        timer: P::Timer,
        /// When.
        at: Instant,
    },
    /// Do not wake up for this reason.
    Disarm(P::Timer),
    /// Apply a committed batch; [`crate::protocol::Replica::on_executed`] follows. Batches are applied in the order given.
    Execute {
        /// The log entry that holds it.
        op: OpNumber,
        /// An encoded [`crate::sessions::Batch`].
        batch: Bytes,
    },
    /// Apply a batch to a state that may never be committed, and give the state that it leads to a name.
    Speculate {
        /// The state that it is applied to: the one committed last, or a speculative one.
        parent: StateId,
        /// The new state.
        state: StateId,
        /// An encoded [`crate::sessions::Batch`].
        batch: Bytes,
    },
    /// A speculative state, whose parent was committed last, is the entry's; [`crate::protocol::Replica::on_executed`] follows.
    Commit {
        /// The log entry.
        op: OpNumber,
        /// The state.
        state: StateId,
    },
    /// A speculative state will never be committed. Its children are aborted before it.
    Abort(StateId),
    /// Let the machine add to a batch; [`crate::protocol::Replica::on_proposed`] follows.
    Propose {
        /// The state that the batch is for.
        parent: StateId,
        /// Comes back with the answer.
        ticket: ProposeTicket,
        /// An encoded [`crate::sessions::Batch`].
        batch: Bytes,
    },
    /// Answer from the state that all executions asked for so far lead to.
    Query {
        /// Comes back with the answer.
        ticket: QueryTicket,
        /// The machine's query.
        query: Bytes,
    },
    /// Do one step on one object, after everything asked for before; [`crate::protocol::Replica::on_stepped`] follows.
    Step {
        /// This replica's own count of steps, from 1.
        op: OpNumber,
        /// What to do.
        step: Step,
    },
    /// Give one object as bytes, as all steps asked for so far leave it; [`crate::protocol::Replica::on_image`] follows.
    Image {
        /// Comes back.
        ticket: QueryTicket,
        /// The object's name.
        object: Bytes,
    },
    /// Save the state that all executions asked for so far lead to, as the checkpoint at this entry.
    Checkpoint(OpNumber),
    /// Get this checkpoint from others, store it, and replace the machine's state by it.
    Fetch {
        /// What to fetch.
        checkpoint: Checkpoint,
        /// Who is known to have it.
        from: ReplicaId,
    },
    /// Records before this one are not needed any more.
    Forget(RecordSeq),
    /// Stop this replica: going on could make it lie.
    Halt(String),
    /// The message just handled was not taken.
    Ignore(Peer, Why),
    /// The message just handled is one that no correct peer sends.
    Blame(Peer, Fault),
    /// For people.
    Note(Note),
}

/// Where a handler writes what it wants done.
#[derive(Debug)]
pub struct Outbox<P: Protocol> {
    turn: Turn,
    next_seq: RecordSeq,
    effects: Vec<Effect<P>>,
}

impl<P: Protocol> Outbox<P> {
    /// An empty outbox for a turn whose first record will be `next_seq`.
    pub fn new(turn: Turn, next_seq: RecordSeq) -> Self {
        Self { turn, next_seq, effects: Vec::new() }
    }

    /// The monotonic clock at the beginning of this turn.
    pub fn now(&self) -> Instant {
        self.turn.now
    }

    /// The calendar clock at the beginning of this turn.
    pub fn wall(&self) -> WallTime {
        self.turn.wall
    }

    /// A number that nobody could predict before this turn.
    pub fn nonce(&self) -> u64 {
        self.turn.entropy
    }

    /// Keeps a record; whatever this turn sends waits for it. Returns its place, for [`Outbox::forget`].
    pub fn persist(&mut self, class: Class, record: P::Record) -> RecordSeq {
        let seq = self.next_seq;
        self.next_seq = seq.next();
        self.effects.push(Effect::Persist { seq, class, record });
        seq
    }

    /// Sends once this turn is durable.
    pub fn send(&mut self, to: Peer, message: P::Message) {
        self.effects.push(Effect::Send { to: To::One(to), message, when: When::Durable });
    }

    /// Sends to every other replica once this turn is durable.
    pub fn broadcast(&mut self, message: P::Message) {
        self.effects.push(Effect::Send { to: To::Others, message, when: When::Durable });
    }

    /// Sends at once. The caller argues in a comment why nothing that the message promises is still on its way to disk.
    pub fn send_unsynced(&mut self, to: Peer, message: P::Message) {
        self.effects.push(Effect::Send { to: To::One(to), message, when: When::Now });
    }

    /// Sends to every other replica at once; see [`Outbox::send_unsynced`].
    pub fn broadcast_unsynced(&mut self, message: P::Message) {
        self.effects.push(Effect::Send { to: To::Others, message, when: When::Now });
    }

    /// Wakes up for `timer` after `delay`, replacing an earlier time for the same reason.
    pub fn arm(&mut self, timer: P::Timer, delay: Duration) {
        let at = self.turn.now.plus(delay);
        self.effects.push(Effect::Arm { timer, at });
    }

    /// Does not wake up for `timer`.
    pub fn disarm(&mut self, timer: P::Timer) {
        self.effects.push(Effect::Disarm(timer));
    }

    /// Applies a committed batch after all those asked for before.
    pub fn execute(&mut self, op: OpNumber, batch: Bytes) {
        self.effects.push(Effect::Execute { op, batch });
    }

    /// Applies a batch to a state that may never be committed. Every state named here is committed or aborted in the end,
    /// exactly once, unless a checkpoint is installed meanwhile.
    pub fn speculate(&mut self, parent: StateId, state: StateId, batch: Bytes) {
        self.effects.push(Effect::Speculate { parent, state, batch });
    }

    /// Makes a speculative state the committed one, as the next entry's.
    pub fn commit(&mut self, op: OpNumber, state: StateId) {
        self.effects.push(Effect::Commit { op, state });
    }

    /// Drops a speculative state without children.
    pub fn abort(&mut self, state: StateId) {
        self.effects.push(Effect::Abort(state));
    }

    /// Lets the machine add to a batch that is meant for a state.
    pub fn propose(&mut self, parent: StateId, ticket: ProposeTicket, batch: Bytes) {
        self.effects.push(Effect::Propose { parent, ticket, batch });
    }

    /// Answers from the state after all executions asked for so far.
    pub fn query(&mut self, ticket: QueryTicket, query: Bytes) {
        self.effects.push(Effect::Query { ticket, query });
    }

    /// Does a step on an object after all those asked for before.
    pub fn step(&mut self, op: OpNumber, step: Step) {
        self.effects.push(Effect::Step { op, step });
    }

    /// Gives an object as bytes, after all steps asked for so far.
    pub fn image(&mut self, ticket: QueryTicket, object: Bytes) {
        self.effects.push(Effect::Image { ticket, object });
    }

    /// Saves the state after all executions asked for so far.
    pub fn checkpoint(&mut self, op: OpNumber) {
        self.effects.push(Effect::Checkpoint(op));
    }

    /// Fetches and installs a checkpoint later than what was executed; replaces a fetch under way.
    ///
    /// The machine may be replaced at any moment until the fetch is over. What was executed first is answered first; what is
    /// asked for while the checkpoint is being installed waits, and is void if the installation succeeds: see
    /// [`crate::protocol::Replica::on_installed`].
    pub fn fetch(&mut self, checkpoint: Checkpoint, from: ReplicaId) {
        self.effects.push(Effect::Fetch { checkpoint, from });
    }

    /// Lets the log drop the records before `before`, once this turn is durable.
    pub fn forget(&mut self, before: RecordSeq) {
        self.effects.push(Effect::Forget(before));
    }

    /// Stops this replica, loudly.
    pub fn halt(&mut self, reason: String) {
        self.effects.push(Effect::Halt(reason));
    }

    /// The message was late, early or not for us: counted.
    pub fn ignore(&mut self, from: Peer, why: Why) {
        self.effects.push(Effect::Ignore(from, why));
    }

    /// The message is a lie: counted, kept.
    pub fn blame(&mut self, from: Peer, fault: Fault) {
        self.effects.push(Effect::Blame(from, fault));
    }

    /// Something for people to see.
    pub fn note(&mut self, note: Note) {
        self.effects.push(Effect::Note(note));
    }

    /// What was written, in order, and the number of the record after the last.
    pub fn into_effects(self) -> (Vec<Effect<P>>, RecordSeq) {
        (self.effects, self.next_seq)
    }

    /// The place of the next record: where a protocol inside this one starts its own outbox (`docs/adr/001-seam.md`).
    pub fn next_seq(&self) -> RecordSeq {
        self.next_seq
    }

    /// The clocks and the random bits of this turn.
    pub fn turn(&self) -> Turn {
        self.turn
    }

    /// What was written so far, in order.
    pub fn effects(&self) -> &[Effect<P>] {
        &self.effects
    }
}
