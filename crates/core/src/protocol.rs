//! The seam between a protocol and everything else.
//!
//! A protocol is two sans-IO cores, a replica and a client. Inputs are messages, timers and what came back from the
//! executor; outputs are effects in an outbox. No async, clock, randomness, thread or file on this side of the seam.
//! `docs/adr/001-seam.md` walks every planned protocol through it.

use crate::crypto::Keyring;
use crate::fault::Fault;
use crate::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, View};
use crate::objects::{Image, Stepped, Touches};
use crate::outbox::{Class, Outbox};
use crate::quorum::ByzantineQuorums;
use crate::sessions::Outcome;
use crate::time::{Duration, Instant, WallTime};
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use std::fmt::Debug;
use std::sync::Arc;
use thiserror::Error;

/// A replication protocol: its words, its replica, its client.
pub trait Protocol: Sized + Debug + 'static {
    /// The name on the command line and in configuration files.
    const NAME: &'static str;
    /// Does it sign what it says? Then hosts give its replicas and clients keyrings with keys.
    const SIGNS: bool = false;
    /// Does it toss common coins? Then hosts give its replicas keyrings with a hand in them.
    const TOSSES: bool = false;
    /// Between replicas, and between clients and replicas.
    type Message: Wire + Clone + Debug + Send + 'static;
    /// What the write-ahead log holds.
    type Record: Wire + Clone + Debug + Send + 'static;
    /// One variant for each reason to wake a replica up.
    type Timer: Copy + Ord + Debug + Send + 'static;
    /// One variant for each reason to wake a client up.
    type ClientTimer: Copy + Ord + Debug + Send + 'static;
    /// What the owner of a cluster chooses.
    type Config: Clone + Debug + Send + 'static;
    /// The replica's core.
    type Replica: Replica<Self> + Send + 'static;
    /// The client's core.
    type Client: Client<Self> + Send + 'static;

    /// The message's name in the paper, for pictures and logs.
    fn label(message: &Self::Message) -> &'static str;

    /// What a message says, for pictures and traces: in the first line the few words that stand beside its name, in the
    /// second line the rest. `words` puts the bytes of an operation, a query or an answer into words.
    fn content(message: &Self::Message, words: &dyn Fn(&[u8]) -> String) -> String {
        let _no_bytes = words;
        format!("\n{message:?}")
    }

    /// May a client leave this message to a broker, which may lose, repeat, change and delay it? It must prove itself, and what
    /// becomes of it must not depend on when or how often it comes. Nothing else is taken from a broker.
    fn goes_by_broker(_message: &Self::Message) -> bool {
        false
    }

    /// How many of `replicas` replicas must say the same so that one of them, at least, is correct. What so many say is
    /// believed, outside of the protocol's own messages, too: events. 1 where nobody lies, and for protocols that sign
    /// `f + 1` of `3f + 1`; others say it themselves.
    fn vouch(replicas: usize) -> usize {
        match ByzantineQuorums::new(replicas) {
            Some(quorums) if Self::SIGNS => quorums.vouch(),
            _ => 1,
        }
    }

    /// Checks every signature in a message, before a replica or a client is given it, on any thread. What it leaves
    /// unchecked no handler can use: only a checked [`crate::crypto::Signed`] becomes a [`crate::crypto::Verified`].
    /// Protocols that sign nothing have nothing to check.
    ///
    /// # Errors
    /// What is wrong with it: the sender is blamed, for correct replicas check what they pass on.
    fn prove(_message: &mut Self::Message, _keyring: &Keyring) -> Result<(), Fault> {
        Ok(())
    }
}

/// A state that was saved: which entry it follows, and the digest of its manifest (contents, sessions and history).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Checkpoint {
    /// The last entry that the state contains.
    pub op: OpNumber,
    /// The digest of the manifest; equal on all replicas at the same entry.
    pub id: crate::crypto::Digest,
}

/// Names a query that a replica has asked its executor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct QueryTicket(pub u64);

/// Names a state that may be committed. The protocol chooses it, so that a child can be asked for before its parent is
/// done; equal on all replicas or not, as the protocol likes. The default names the state that a replica starts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct StateId(pub crate::crypto::Digest);

/// Names a proposal that a replica has asked its machine for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ProposeTicket(pub u64);

/// One record as the log gave it back.
#[derive(Clone, Debug)]
pub enum Restored<R> {
    /// Intact.
    Found {
        /// Its place in the log.
        seq: RecordSeq,
        /// The record.
        record: R,
    },
    /// There was at least one record here, and it cannot be read. Its bytes were durable once: it may have been
    /// acknowledged.
    Damaged {
        /// The first place that is damaged.
        seq: RecordSeq,
        /// How many records may be missing here.
        at_most: u64,
        /// What the record was appended as, if that can still be read.
        class: Option<Class>,
    },
}

/// What a replica finds when it starts.
#[derive(Clone, Debug)]
pub struct Restore<P: Protocol> {
    /// Who this is.
    pub replica: ReplicaId,
    /// How many replicas there are.
    pub replicas: usize,
    /// What the owner chose.
    pub config: P::Config,
    /// The log, in order. Empty on the first start.
    pub records: Vec<Restored<P::Record>>,
    /// Damage at the end of the log: records after the last one found may have existed and been acknowledged.
    pub tail_damaged: bool,
    /// The checkpoint that the machine was restored from; `None` for a machine in its first state.
    pub checkpoint: Option<Checkpoint>,
    /// When the machine wants its next tick.
    pub wake: Option<WallTime>,
}

/// The replica cannot go on from what its disk holds.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The group's size is not one that the protocol can run.
    #[error("a group of {0} replicas is not possible: choose between 1 and {max}", max = crate::quorum::REPLICAS_MAX)]
    GroupSize(usize),
    /// A promise that this replica made to others cannot be read any more.
    #[error(
        "this replica's promises to the others are damaged ({0}), so it cannot take part without endangering what is \
         committed; run `quorate recover` on its folder"
    )]
    PromisesLost(String),
    /// The protocol signs what it says, and was started without a key.
    #[error("this protocol signs its messages: start the replica with its key")]
    NoKey,
    /// The records contradict each other in a way that no crash explains.
    #[error("the log contradicts itself ({0}): keep the folder for analysis and run `quorate recover` on it")]
    Contradiction(String),
}

/// A replica's place in its group, for people.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Status {
    /// `primary`, `backup`, or what the replica is busy with instead.
    pub role: String,
    /// The view that it is in.
    pub view: View,
    /// The last entry of its log.
    pub op: OpNumber,
    /// The last entry that it knows to be committed.
    pub committed: OpNumber,
    /// The last entry that its machine has applied.
    pub executed: OpNumber,
    /// The last checkpoint that is durable here.
    pub checkpoint: OpNumber,
    /// Entries that it knows to be damaged or missing.
    pub missing: u64,
}

/// The replica's half of a protocol.
///
/// Every method is one turn. A handler has three paragraphs: refuse, assert, act.
pub trait Replica<P: Protocol>: Sized {
    /// Starts from what the disk holds.
    ///
    /// # Errors
    /// [`RestoreError`] when going on could break a promise; its text says what to do.
    fn restore(restore: Restore<P>, out: &mut Outbox<P>) -> Result<Self, RestoreError>;

    /// Starts from what the disk holds, with keys. Protocols that sign implement this one, and refuse to
    /// [`Replica::restore`] without keys; for the others it is the same.
    ///
    /// # Errors
    /// As [`Replica::restore`].
    fn start(restore: Restore<P>, _keyring: Arc<Keyring>, out: &mut Outbox<P>) -> Result<Self, RestoreError> {
        Self::restore(restore, out)
    }

    /// A message has arrived. `from` is authenticated by the link; the contents are not to be trusted.
    fn on_message(&mut self, from: Peer, message: P::Message, out: &mut Outbox<P>);

    /// It is time.
    fn on_timer(&mut self, timer: P::Timer, out: &mut Outbox<P>);

    /// The machine has applied the batch of an entry.
    fn on_executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox<P>);

    /// The machine has applied a batch to a state that may never be committed: what its replies would be. Advisory; it does
    /// not come for a batch that is applied only when it is committed.
    fn on_speculated(&mut self, _state: StateId, _outcome: Outcome, _out: &mut Outbox<P>) {}

    /// The machine has added to a batch; `None` if it has nothing to add, or the state was not there.
    fn on_proposed(&mut self, _ticket: ProposeTicket, _made: Option<Bytes>, _out: &mut Outbox<P>) {}

    /// The program that this replica runs in wants it to propose now. For protocols whose leaders can be told to.
    fn on_cue(&mut self, _out: &mut Outbox<P>) {}

    /// The machine has answered.
    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox<P>);

    /// The machine has done a step on an object. For protocols that ask for steps.
    fn on_stepped(&mut self, _op: OpNumber, _stepped: Stepped, _out: &mut Outbox<P>) {}

    /// The machine gives an object as bytes. For protocols that ask for images.
    fn on_image(&mut self, _ticket: QueryTicket, _image: Image, _out: &mut Outbox<P>) {}

    /// A checkpoint that this replica asked for is durable.
    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox<P>);

    /// A fetched checkpoint is durable and the machine is in its state; it wants its next tick at `wake`.
    ///
    /// Executions, queries, proposals and checkpoints that were asked for and are not answered by now will not be: those
    /// through the checkpoint's entry are contained in it, those after it are to be asked for again. Speculative states
    /// are gone, and the present one has the name that a replica starts with. It may be the checkpoint of a fetch
    /// that was replaced when it was too late to stop it.
    fn on_installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox<P>);

    /// A fetch has failed: the source does not have it (any more), what came was not what its digest says, or the machine
    /// has got as far meanwhile. Nothing that was asked for is void.
    fn on_fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox<P>);

    /// For people.
    fn status(&self) -> Status;

    /// The named invariants of the protocol, checked by the simulator after every turn.
    ///
    /// # Errors
    /// The name of the one that does not hold, with the values that break it.
    fn check(&self) -> Result<(), String>;
}

/// How fresh a read must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Consistency {
    /// Reflects every write that was acknowledged before the read began, by whatever means the protocol has.
    Linearizable,
    /// Goes through the log like a write.
    Ordered,
    /// One replica's state, which contains at least this entry.
    Stale {
        /// An entry that the client has seen.
        at_least: OpNumber,
    },
}

/// What an application asks of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// Apply an operation, exactly once.
    Apply(Bytes),
    /// Answer a query.
    Read(Consistency, Bytes),
}

/// Names a call that an application waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What an application gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The machine's reply.
    pub reply: Bytes,
    /// The log entry that it reflects, or a later one that is there: stale reads that pass it as `at_least` do not go back.
    pub op: OpNumber,
}

/// Why a call has no answer. Honest about what may have happened.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum CallError {
    /// Nobody answered in time.
    #[error("no answer in time; {}", if *maybe_applied { "the operation may have been applied" } else { "the operation was not sent" })]
    Timeout {
        /// May the operation have been applied, or still be?
        maybe_applied: bool,
    },
    /// The cluster has forgotten this client's session: too many others were active since.
    #[error("the cluster has closed this client's session to make room for others; {}", if *maybe_applied { "the operation may have been applied" } else { "the operation was not applied" })]
    Evicted {
        /// May the operation have been applied?
        maybe_applied: bool,
    },
    /// The cluster will not do it; it was not applied.
    #[error("refused: {0}")]
    Refused(String),
}

/// What a client wants done.
#[derive(Clone, Debug)]
pub enum ClientEffect<P: Protocol> {
    /// Send a message to one replica.
    Send(ReplicaId, P::Message),
    /// Wake up for this reason at this time.
    Arm {
        /// The reason.
        timer: P::ClientTimer,
        /// When.
        at: Instant,
    },
    /// Do not wake up for this reason.
    Disarm(P::ClientTimer),
    /// A call is over.
    Complete(Ticket, Result<Answer, CallError>),
}

/// Where a client's core writes what it wants done.
#[derive(Debug)]
pub struct ClientOutbox<P: Protocol> {
    now: Instant,
    effects: Vec<ClientEffect<P>>,
}

impl<P: Protocol> ClientOutbox<P> {
    /// An empty outbox at this time.
    pub fn new(now: Instant) -> Self {
        Self { now, effects: Vec::new() }
    }

    /// The monotonic clock at the beginning of this turn.
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Sends a message to one replica.
    pub fn send(&mut self, to: ReplicaId, message: P::Message) {
        self.effects.push(ClientEffect::Send(to, message));
    }

    /// Wakes up for `timer` after `delay`, replacing an earlier time for the same reason.
    pub fn arm(&mut self, timer: P::ClientTimer, delay: Duration) {
        let at = self.now.plus(delay);
        self.effects.push(ClientEffect::Arm { timer, at });
    }

    /// Does not wake up for `timer`.
    pub fn disarm(&mut self, timer: P::ClientTimer) {
        self.effects.push(ClientEffect::Disarm(timer));
    }

    /// Ends a call.
    pub fn complete(&mut self, ticket: Ticket, result: Result<Answer, CallError>) {
        self.effects.push(ClientEffect::Complete(ticket, result));
    }

    /// What was written, in order.
    pub fn into_effects(self) -> Vec<ClientEffect<P>> {
        self.effects
    }
}

/// What clients of protocols without levels answer who names one.
const NO_LEVELS: &str = "the protocol of this cluster has no levels of criticality, reception alone has: name none";

/// How a client behaves.
#[derive(Clone, Copy, Debug)]
pub struct ClientConfig {
    /// This client process.
    pub client: ClientId,
    /// How many replicas there are.
    pub replicas: usize,
    /// Without an answer for this long, the request is sent to every replica. 150 ms.
    pub retry: Duration,
    /// Without an answer for this long, the call fails. 10 s.
    pub timeout: Duration,
}

/// The client's half of a protocol: it opens its session by itself, numbers requests, retries, and believes a reply when
/// the protocol's rule says so.
pub trait Client<P: Protocol>: Sized {
    /// A client that has not said anything yet.
    fn new(config: ClientConfig) -> Self;

    /// A client with keys: the keyring's owner is `config.client`. For protocols that sign nothing, it is [`Client::new`].
    fn start(config: ClientConfig, _keyring: Arc<Keyring>) -> Self {
        Self::new(config)
    }

    /// What operations and queries of the cluster's machine touch: said once, before the first call. Protocols that order
    /// everything need not know.
    fn knows(&mut self, _touches: Touches) {}

    /// The application asks for something. Calls beyond the session's window wait inside the client.
    fn submit(&mut self, ticket: Ticket, call: Call, out: &mut ClientOutbox<P>);

    /// The application asks for an operation to be applied, at a level of criticality. For protocols that have levels; the others
    /// refuse.
    fn submit_critical(&mut self, ticket: Ticket, _level: u8, _operation: Bytes, out: &mut ClientOutbox<P>) {
        out.complete(ticket, Err(CallError::Refused(NO_LEVELS.to_owned())));
    }

    /// All calls that were ready have been submitted: send what was gathered, in as few messages as possible.
    fn flush(&mut self, out: &mut ClientOutbox<P>);

    /// A message has arrived.
    fn on_message(&mut self, from: ReplicaId, message: P::Message, out: &mut ClientOutbox<P>);

    /// It is time.
    fn on_timer(&mut self, timer: P::ClientTimer, out: &mut ClientOutbox<P>);

    /// The link to a replica came up: what it has not heard can be sent again.
    fn on_connected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<P>);

    /// The link to a replica is down: do not wait for the timer.
    fn on_disconnected(&mut self, replica: ReplicaId, out: &mut ClientOutbox<P>);
}
