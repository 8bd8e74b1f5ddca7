//! Asynchronous total-order broadcast: `3t + 1` replicas go on, and agree, while `t` of them lie, and whatever the network
//! does. Nothing waits for a time to pass: no leader, no timeout, no view.
//!
//! Source: the lecture that the project's seed quotes (everybody proposes a block; a block that `t + 1` correct replicas have
//! seen is approved; the union of the approved ones is next; asynchronous Byzantine agreement says which ones), built of known
//! parts: certified lanes as in Narwhal and Dumbo-NG, the common subset of Ben-Or, Kelmer and Rabin (PODC 1994), and the
//! binary agreement of [`agreement`].
//!
//! Deviations, in short: promises are on disk as they were said, and not the inputs that led to them (ADR 016); where a
//! replica is, nobody signs; certificates of proposals are pulled, not flooded. The README argues each.

pub mod agreement;
mod checkpoint;
mod client;
mod durable;
mod epoch;
mod invariants;
mod lanes;
mod message;
mod normal;
mod pool;
mod reads;
mod recovery;
mod replica;
mod restore;

pub use client::Client;
pub use durable::{Base, Record, Silence};
pub use lanes::{LANE_BATCHES_MAX, LANE_BYTES_MAX, OWN_BATCHES_MAX};
pub use message::{Ack, Approval, Batch, Decided, Head, Link, Message, Payload, StateMark, Vector, Vote};
pub use message::{DECIDED_MAX, PAYLOAD_BYTES_MAX, REQUESTS_MAX, WORDS_MAX};
pub use replica::Replica;

use crate::pbft;
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::ids::OpNumber;
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<AsyncTob>;

/// Epochs after the last one that `n - t` replicas have committed in which a replica speaks.
pub const WINDOW_EPOCHS: u64 = 8;
/// In which the heights of a lane's new life begin: an epoch commits far fewer batches of one lane.
const HEIGHTS_PER_EPOCH_BITS: u32 = 20;

/// Asynchronous total-order broadcast, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AsyncTob;

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How long to wait before saying again what may have been lost; 100 ms. Doubles up to [`Config::resend_max`]. Not a
    /// timeout: nobody is suspected when it ends.
    pub resend: Duration,
    /// The longest pause between two attempts while something is under way; 400 ms.
    pub resend_busy_max: Duration,
    /// The longest pause between two attempts to tell somebody who does not answer where the others are; 2 s.
    pub resend_max: Duration,
    /// Epochs between two snapshots of the state; 4096. Part of the replicated state machine.
    pub state_epochs: u64,
    /// Bytes of payloads between two snapshots of the state; 64 MiB. Part of the replicated state machine.
    pub state_bytes: u64,
    /// Bytes of requests that a batch gathers; 256 KiB.
    pub batch_bytes: usize,
    /// Batches of one's own lane that are not certified yet and while which requests gather, unless a batch is full; 1.
    pub in_flight_batches: usize,
    /// Bytes of requests that wait, at most; 32 MiB. Beyond it, clients are told that the replica is busy.
    pub pending_bytes: usize,
    /// Bytes of requests of one client that wait, at most; 12 MiB: more than a correct one has in flight.
    pub client_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            resend: Duration::from_millis(100),
            resend_busy_max: Duration::from_millis(400),
            resend_max: Duration::from_secs(2),
            state_epochs: 4096,
            state_bytes: 64 << 20,
            batch_bytes: 256 << 10,
            in_flight_batches: 1,
            pending_bytes: 32 << 20,
            client_bytes: 12 << 20,
        }
    }
}

/// When to wake a replica up. Neither is a timeout of the protocol: agreement has none, and cannot have one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When to say again what may have been lost.
    Resend,
    /// When the machine wants a tick.
    Tick,
}

/// The first and only record of a replica whose disk was lost. `op` is an epoch with something that a client asked for after
/// the disk was lost: when that was asked, nobody had decided it, so the former self has spoken in no epoch beyond
/// `op + WINDOW_EPOCHS`. The new life says nothing until the group is there (the README has the argument).
pub fn rejoin(op: OpNumber) -> Record {
    let until = Some(op.plus(WINDOW_EPOCHS));
    Record::Base(Box::new(Base { decided: None, height: 0, silent: Some(Silence { until }) }))
}

impl Protocol for AsyncTob {
    const NAME: &'static str = "async-tob";
    const SIGNS: bool = true;
    const TOSSES: bool = true;
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = pbft::ClientTimer;
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
