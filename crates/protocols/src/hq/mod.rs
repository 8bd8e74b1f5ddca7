//! HQ replication: while nobody competes for an object, its clients order their writes themselves, in two round trips and
//! without a word between replicas; when somebody does, PBFT, asleep until then, decides.
//!
//! Source: J. Cowling, D. Myers, B. Liskov, R. Rodrigues, L. Shrira, *HQ Replication: A Hybrid Quorum Protocol for Byzantine
//! Fault Tolerance*, OSDI 2006. Model: as PBFT's, `f` of `3f + 1` replicas do anything at all, and so do any number of
//! clients. The state is a set of objects, each with an order of its own.
//!
//! Deviations, in short: every promise is on disk before it is sent; all grants are signed; the place of a resolution in
//! PBFT's order is the viewstamp; replicas compare what they have when it is quiet. The README argues each.

mod client;
mod contention;
mod cut;
mod durable;
mod in_order;
mod invariants;
mod message;
mod module;
mod normal;
mod object;
mod ordered;
mod recovery;
mod rejoin;
mod replica;
mod resolve;
pub mod total;
mod transfer;
mod turn;

pub use client::Client;
pub use cut::{CUT_OBJECTS_MAX, Cut};
pub use durable::{
    ACROSS_REPLY_BYTES_MAX, Joined, Kept, REPLY_BYTES_MAX, RESULTS_BYTES_MAX, Record, TOO_LONG, WRITES_BYTES_MAX,
};
pub use in_order::{ALONE_MAX, CALM_WRITES, Course, WINDOW_MAX, WINDOW_MIN};
pub use message::{
    Ask, Grant, Message, NAME_BYTES_MAX, OBJECTS_MAX, OPERATIONS_MAX, Ordered, OrderedAsk, Proof, ReadRequest, Start,
    Transferred, VERSIONS_MAX, Version, WRITES_MAX, Write, conflict_of, name_of, object_of,
};
pub use module::Entry;
pub use object::{Answered, CLIENTS_MAX, Item, List, OUTCOMES_MAX, Outcome, State};
pub use ordered::{ORDERED_CLIENTS_MAX, Rank};
pub use rejoin::{Life, Lived};
pub use replica::Replica;
pub use total::Total;

use crate::pbft;
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<Hq>;

/// HQ replication, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hq;

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Of the protocol that resolves contention.
    pub module: pbft::Config,
    /// Entries of its log between two cuts of it; 4,096. Part of what replicas agree on.
    pub cut_entries: u64,
    /// Bytes of entries between two cuts; 16 MiB. Part of what replicas agree on.
    pub cut_bytes: u64,
    /// How long to wait before asking or telling again; 50 ms. Doubles up to [`Config::resend_max`].
    pub resend: Duration,
    /// The longest pause between two attempts; 2 s.
    pub resend_max: Duration,
    /// How long after a write replicas compare what they have; 1 s.
    pub compare: Duration,
    /// Steps of the machine between two snapshots of the state; 65,536.
    pub state_steps: u64,
    /// Records of the log beyond those that are needed before old ones are written anew; 4,096.
    pub log_slack: u64,
}

impl Default for Config {
    fn default() -> Self {
        let module = pbft::Config { state_entries: u64::MAX, state_bytes: u64::MAX, ..pbft::Config::default() };
        Self {
            module,
            cut_entries: 4_096,
            cut_bytes: 16 << 20,
            resend: Duration::from_millis(50),
            resend_max: Duration::from_secs(2),
            compare: Duration::from_secs(1),
            state_steps: 65_536,
            log_slack: 4_096,
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// What PBFT wants to be woken for.
    Module(pbft::Timer),
    /// When to say again what is under way: a resolution, a question for an operation or an object.
    Again,
    /// When to compare with the others what everybody has.
    Compare,
}

/// When to wake a client up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ClientTimer {
    /// When to send again what was not answered, to all replicas; when answers that differ have had their grace.
    Retry,
    /// When the oldest call has waited too long.
    Timeout,
}

impl Protocol for Hq {
    const NAME: &'static str = "hq";
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

    fn prove(message: &mut Message, keyring: &Keyring) -> Result<(), Fault> {
        message.prove(keyring)
    }
}
