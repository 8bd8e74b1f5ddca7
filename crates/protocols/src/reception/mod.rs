//! Byzantine reception: requests come by any way, even through a broker that lies; what enough replicas have *received and
//! kept* is certified, with a time that no minority chooses, and PBFT orders the certificates.
//!
//! Source: the project's seed 002, `resilience` ("an event is stored in a replica with the event reception timestamp … once
//! 2f+1 reception messages are received, the event is inserted"), with the median of reception times of Y. Zhang et al.,
//! *Byzantine Ordered Consensus without Byzantine Oligarchy* (Pompē), OSDI 2020, and PBFT (Castro and Liskov 1999) as the engine
//! that orders. Model: PBFT's, and brokers that do anything at all with what clients publish.
//!
//! Deviations, in short: a publication is known by its digest and not by a number that its client gives; certificates are ordered
//! together with what they certify; who wins among contradicting publications, the order decides. The README argues each.

mod audit;
mod client;
mod compare;
mod criticality;
mod durable;
mod invariants;
mod message;
mod order;
mod publication;
mod recovery;
mod replica;
mod replies;
mod spent;

pub use client::Client;
pub use compare::PENDING_DIFFERED;
pub use criticality::Levels;
pub use durable::Record;
pub use message::{Certified, Held, Item, Message, PUBLICATION_BYTES_MAX, Part, Reception as Received, digest};
pub use replica::Replica;

use crate::pbft::{self, Pbft};
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::ids::OpNumber;
use quorate_core::nested::Lift;
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<Reception>;

/// Byzantine reception over PBFT, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reception;

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// PBFT's; without its tentative execution, whatever it says.
    pub module: pbft::Config,
    /// The criticality level (`errors` of the seed, e) of what names none: a publication is certified by `2e + 1` of a committee of
    /// `3e + 1` replicas. `None`: as many as the group tolerates; more is never taken.
    pub criticality: Option<u8>,
    /// How long to wait for a publication that others have received before asking for it; 20 ms.
    pub pull: Duration,
    /// How long to wait before saying or asking again; 200 ms. Doubles for each publication up to [`Config::resend_max`].
    pub resend: Duration,
    /// The longest pause between two attempts; 2 s.
    pub resend_max: Duration,
    /// Bytes of publications that wait to be ordered, at most; 64 MiB. Clients have one of `n` shares of it, and what is pulled
    /// from each replica another. Beyond it, clients are told that the replica is busy.
    pub pending_bytes: usize,
    /// Bytes of them that one client has brought, at most; 12 MiB. Never more than it leaves free of the clients' share.
    pub client_bytes: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            module: pbft::Config::default(),
            criticality: None,
            pull: Duration::from_millis(20),
            resend: Duration::from_millis(200),
            resend_max: Duration::from_secs(2),
            pending_bytes: 64 << 20,
            client_bytes: 12 << 20,
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// PBFT's.
    Module(pbft::Timer),
    /// When to ask for publications that others have received.
    Pull,
    /// When to compare what is pending with the others, and to hand over what the primary has not proposed.
    Again,
}

/// PBFT's words in ours.
pub(crate) const LIFT: Lift<Pbft, Reception> =
    Lift { message: Message::Module, record: Record::Module, timer: Timer::Module };

/// The first and only record of a replica whose disk was lost; see [`pbft::rejoin`]. What the former self had received and not
/// ordered, enough others have received, too.
pub fn rejoin(op: OpNumber) -> Record {
    Record::Module(pbft::rejoin(op))
}

impl Protocol for Reception {
    const NAME: &'static str = "reception";
    const SIGNS: bool = true;
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = pbft::ClientTimer;
    type Config = Config;
    type Replica = Replica;
    type Client = Client;

    fn goes_by_broker(message: &Message) -> bool {
        matches!(message, Message::Publish(_))
    }

    fn label(message: &Message) -> &'static str {
        message.label()
    }

    fn prove(message: &mut Message, keyring: &Keyring) -> Result<(), Fault> {
        message.prove(keyring)
    }
}
