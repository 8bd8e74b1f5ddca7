//! Synchronous total-order broadcast: `2f + 1` replicas whose clocks and links keep their bounds go on, and agree, while `f`
//! of them lie.
//!
//! Source: the lecture of seed 004, with its two broadcasts. *Scheduled* (SCB): Dolev and Strong, *Authenticated Algorithms
//! for Byzantine Agreement*, SIAM J. Comput. 1983, with deadlines in the place of rounds. *Unscheduled* (UCB): its sender
//! picks the start and signs it. Model: signatures; clocks differ by less than ε; what a correct replica sends to another is
//! processed there within Δ.
//!
//! Deviations, in short: an output counts once all but `f` have confirmed it, so late messages cost time and not agreement;
//! blocks are numbered without the empty epochs between them; views settle what an asynchronous moment left undecided. The
//! README argues each.

mod cast;
mod checkpoint;
mod client;
mod clock;
mod content;
mod durable;
mod guard;
mod invariants;
mod log;
mod message;
mod normal;
mod order;
mod recovery;
mod replica;
mod restore;
mod scb;
mod schedule;
mod ucb;
mod view_change;
mod votes;

pub use client::Client;
pub use clock::{Clock, Reading};
pub use content::{Block, Bundle, Contents, Moves};
pub use durable::{Base, Record};
pub use message::{BLOCK_BYTES_MAX, BUNDLE_BYTES_MAX, ENTRIES_MAX, REQUESTS_MAX, WANTED_MAX};
pub use message::{
    Cast, CastId, Chain, Commit, Echo, Head, Message, NewView, Place, Proposal, State, ViewChange, Vote,
};
pub use order::{Demotion, Next, Order};
pub use replica::Replica;
pub use scb::{Instance, Taken};
pub use schedule::{EpochNumber, Schedule};

use crate::pbft;
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::protocol::Protocol;
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<SyncTob>;

/// Blocks that may be voted on and not committed, at most.
pub const WINDOW_BLOCKS: u64 = 128;

/// Synchronous total-order broadcast, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncTob;

/// How clients' requests reach everybody before they are ordered (UCB).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Broadcast {
    /// Sent once to everybody; whoever holds it signs that it does, and `f + 1` such signatures let a leader order it.
    #[default]
    Flood,
    /// Dolev and Strong with the start that the sender signed: everybody delivers it at the same time, or nobody.
    DolevStrong,
}

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// What a correct replica sends is processed by another within this (Δ); 40 ms. It must cover the scheduler's and the
    /// network's worst moments: beyond it outputs stop.
    pub delta: Duration,
    /// Clocks of two correct replicas differ by less than this (ε); 10 ms.
    pub epsilon: Duration,
    /// How much faster or slower than real time a clock may run (ρ), millionths; 200.
    pub drift_ppm: u64,
    /// Between the starts of two epochs (T); 20 ms. Never less than 1 ms.
    pub epoch: Duration,
    /// How requests reach everybody.
    pub broadcast: Broadcast,
    /// Between two rounds of probes of clocks that are in use; 2 s. Four such rounds without an answer, and a clock is not
    /// known any more.
    pub probe: Duration,
    /// How long to wait before telling or asking again; 100 ms. Doubles up to [`Config::resend_max`].
    pub resend: Duration,
    /// The longest pause between two attempts; 2 s.
    pub resend_max: Duration,
    /// Blocks between two snapshots of the state; 4096. Part of the replicated state machine.
    pub state_blocks: u64,
    /// Bytes of requests between two snapshots of the state; 64 MiB. Part of the replicated state machine.
    pub state_bytes: u64,
    /// Between two casts of one replica, while requests keep coming; 10 ms.
    pub cast_pause: Duration,
    /// Bytes of requests that one replica has on their way to be ordered, at most; 16 MiB. Beyond it, its clients are told that
    /// it is busy, and the others hold no more of it.
    pub sender_bytes: usize,
    /// Bytes of requests of one client that wait at one replica, at most; 12 MiB.
    pub client_bytes: usize,
    /// For so many epochs a leader that is proven to lie does not lead; 4096. Part of the replicated state machine.
    pub demote_epochs: u64,
}

impl Config {
    /// From a request's arrival at a correct replica to its execution everywhere, while the model is kept and `faulty` replicas
    /// are down or keep silent: a pause before it is cast, two delays until all know that enough have it (with Dolev and
    /// Strong, a whole broadcast), the rest of an epoch and the epochs of faulty leaders, a broadcast, and two rounds of
    /// confirmation.
    pub fn latency_bound(&self, quorums: &quorate_core::quorum::SyncQuorums, faulty: usize) -> Duration {
        let schedule = Schedule::new(self, quorums);
        let cast = match self.broadcast {
            Broadcast::Flood => self.delta.saturating_mul(2),
            Broadcast::DolevStrong => schedule.window(),
        };
        let epochs = self.epoch.saturating_mul(u32::try_from(faulty).unwrap_or(u32::MAX).saturating_add(1));
        let waits = self.cast_pause.saturating_add(cast).saturating_add(epochs);
        waits.saturating_add(schedule.window()).saturating_add(self.delta.saturating_mul(2))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            delta: Duration::from_millis(40),
            epsilon: Duration::from_millis(10),
            drift_ppm: 200,
            epoch: Duration::from_millis(20),
            broadcast: Broadcast::Flood,
            probe: Duration::from_secs(2),
            resend: Duration::from_millis(100),
            resend_max: Duration::from_secs(2),
            state_blocks: 4096,
            state_bytes: 64 << 20,
            cast_pause: Duration::from_millis(10),
            sender_bytes: 16 << 20,
            client_bytes: 12 << 20,
            demote_epochs: 4096,
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When the next epoch that I lead begins, and there is something to order.
    Epoch,
    /// When the earliest scheduled broadcast under way has its output.
    Output,
    /// When the requests that have gathered are cast.
    Cast,
    /// When clocks are probed again.
    Probe,
    /// When a replica that stood still, or has just started, has listened long enough.
    Listen,
    /// When a vote should be on disk.
    Disk,
    /// When to give up waiting that what I have confirmed is confirmed by enough others.
    Stuck,
    /// When to give up a view that a quorum wants and that does not start.
    NewView,
    /// When everybody who is correct has left the view before and has said what is certified there: the view may start.
    Settle,
    /// When to tell where one is, and to say again what may have been lost.
    Again,
    /// When the machine wants a tick.
    Tick,
}

/// The first and only record of a replica whose disk was lost: it knows nothing of what it had confirmed, so it confirms
/// nothing until the others have committed something that began after it came back.
pub fn rejoin() -> Record {
    Record::Base(Box::new(Base { silent: true, ..Base::default() }))
}

impl Protocol for SyncTob {
    const NAME: &'static str = "sync-tob";
    const SIGNS: bool = true;
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = pbft::ClientTimer;
    type Config = Config;
    type Replica = Replica;
    type Client = Client;

    fn vouch(replicas: usize) -> usize {
        SyncQuorums::new(replicas).map_or(1, |quorums| quorums.vouch())
    }

    fn label(message: &Message) -> &'static str {
        message.label()
    }

    fn prove(message: &mut Message, keyring: &Keyring) -> Result<(), Fault> {
        message.prove(keyring)
    }
}
