//! Practical Byzantine Fault Tolerance: `3f + 1` replicas go on, and agree, while `f` of them lie.
//!
//! Source: M. Castro and B. Liskov, *Practical Byzantine Fault Tolerance*, OSDI 1999, in the variant with signatures: a view
//! change carries complete certificates of what was prepared. Model: messages delayed, lost, repeated and reordered; `f` of
//! `3f + 1` replicas do anything at all; the others crash and come back with their disks.
//!
//! Deviations, in short: votes are on disk before they are sent; the log's checkpoints and the state's are two things; what
//! is committed carries a proof that anyone can pass on. The README argues each.

mod answered;
mod audit;
mod checkpoint;
mod client;
mod durable;
mod invariants;
mod log;
mod message;
mod normal;
pub(crate) mod pace;
pub(crate) mod pool;
mod reads;
mod recovery;
mod replica;
pub mod select;
mod tentative;
mod view_change;
mod words;

pub(crate) use answered::Answered;
pub(crate) use audit::audit;
pub use client::{Client, Manner};
pub(crate) use client::{DOUBLINGS_MAX, nobody};
pub use durable::{Base, Record, Silence};
pub use message::{
    Commit, Content, Group, LogCheckpoint, Message, NewView, Orders, Place, Prepare, Proposal, Reply, Requests,
    StateCheckpoint, Told, ViewChange,
};
pub use message::{PROPOSAL_BYTES_MAX, REQUESTS_MAX, WANTED_MAX};
pub(crate) use message::{check_group, prove_group};
pub use replica::Replica;

use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::ids::OpNumber;
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<Pbft>;

/// Entries between two checkpoints of the log (K), at most.
pub const CHECKPOINT_ENTRIES_MAX: u64 = 64;
/// Entries above the last stable checkpoint in which replicas vote (L = 2K), at most: the distance between the watermarks.
pub const WINDOW_ENTRIES_MAX: u64 = 2 * CHECKPOINT_ENTRIES_MAX;

/// Practical Byzantine Fault Tolerance, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pbft;

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long a request may wait for its execution before the primary is suspected; 300 ms. Doubles with each view that
    /// brings nothing.
    pub view_change: Duration,
    /// How long to wait before telling or asking again; 100 ms. Doubles up to [`Config::resend_max`].
    pub resend: Duration,
    /// The longest pause between two attempts; 2 s.
    pub resend_max: Duration,
    /// Entries between two checkpoints of the log (K); 64, and never more than [`CHECKPOINT_ENTRIES_MAX`]. Replicas vote
    /// within twice as many (L). Part of the replicated state machine.
    pub checkpoint_entries: u64,
    /// Entries between two snapshots of the state; 16,384. Part of the replicated state machine.
    pub state_entries: u64,
    /// Bytes of proposals between two snapshots of the state; 64 MiB. Part of the replicated state machine.
    pub state_bytes: u64,
    /// Bytes of requests that an entry gathers; 256 KiB.
    pub batch_bytes: usize,
    /// Entries under way while which the primary gathers requests, unless an entry is full; 1. Every entry costs signatures
    /// and syncs; with more of them under way each holds less.
    pub in_flight_entries: u64,
    /// Bytes of requests that wait, at most; 32 MiB. Beyond it, clients are told that the replica is busy. What replicas pass
    /// on is not in it.
    pub pending_bytes: usize,
    /// Bytes of requests of one client that wait, at most; 12 MiB: more than a correct one has in flight. As many of what one
    /// replica has passed on.
    pub client_bytes: usize,
    /// The period in which a primary must keep up while requests wait: see `pace.rs`; 1 s. Zero: only silence is suspicious.
    pub keep_up: Duration,
    /// Entries after which a view is left, at the next stable checkpoint, whoever leads it; 0: never. A primary that is bad
    /// in a way that nobody notices is so for a while only. Equal on all replicas.
    pub rotate_entries: u64,
    /// Entries of at most so many requests are executed as soon as they are prepared, and answered tentatively (`tentative.rs`);
    /// 0: none. It saves a client one round of messages, and costs a fork of the state and a second reply.
    pub tentative_requests: usize,
    /// How far the primary's clock may be ahead of one's own; 10 s. Agreed time never goes back: a primary that says the
    /// year 2500 would expire every lease for good.
    pub clock_ahead: Duration,
}

impl Config {
    /// Entries between two checkpoints of the log (K).
    pub fn interval(&self) -> u64 {
        self.checkpoint_entries.clamp(1, CHECKPOINT_ENTRIES_MAX)
    }

    /// The distance between the watermarks (L = 2K).
    pub fn window(&self) -> u64 {
        self.interval().saturating_mul(2)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            view_change: Duration::from_millis(300),
            resend: Duration::from_millis(100),
            resend_max: Duration::from_secs(2),
            checkpoint_entries: CHECKPOINT_ENTRIES_MAX,
            state_entries: 16_384,
            state_bytes: 64 << 20,
            batch_bytes: 256 << 10,
            in_flight_entries: 1,
            pending_bytes: 32 << 20,
            client_bytes: 12 << 20,
            keep_up: Duration::from_secs(1),
            rotate_entries: 0,
            tentative_requests: 0,
            clock_ahead: Duration::from_secs(10),
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When to suspect the primary: the oldest authentic request has waited too long.
    Progress,
    /// When to give up a view that a quorum wants and that does not start.
    NewView,
    /// When to tell where one is, and to say again what may have been lost.
    Again,
    /// When the machine wants a tick, or should have had it.
    Tick,
}

/// When to wake a client up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientTimer {
    /// When to send again what was not answered, to all replicas.
    Retry,
    /// When the oldest call has waited too long.
    Timeout,
}

/// The first and only record of a replica whose disk was lost. `op` is an entry that a client was answered for after the
/// disk was lost: no stable checkpoint that the former self knew lies beyond it, so the former self has voted for nothing
/// beyond `op + L`. The new life votes for nothing until the log is stable there (the README has the argument).
pub fn rejoin(op: OpNumber) -> Record {
    let until = Some(op.plus(WINDOW_ENTRIES_MAX));
    Record::Base(Box::new(Base { silent: Some(Silence { until }), ..Base::default() }))
}

impl Protocol for Pbft {
    const NAME: &'static str = "pbft";
    const SIGNS: bool = true;
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = ClientTimer;
    type Config = Config;
    type Replica = Replica;
    type Client = Client;

    fn label(message: &Message) -> &'static str {
        message.label()
    }

    fn content(message: &Message, words: &dyn Fn(&[u8]) -> String) -> String {
        message.content(words)
    }

    fn prove(message: &mut Message, keyring: &Keyring) -> Result<(), Fault> {
        if message.is_by_proxy() {
            return Err(Fault::Malformed("a replica's request in the place of a client's".to_owned()));
        }
        message.prove(keyring)
    }
}
