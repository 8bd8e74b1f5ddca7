//! Viewstamped Replication: `2f + 1` replicas go on without `f` that crashed, and lose nothing that was acknowledged.
//!
//! Sources: B. Liskov and J. Cowling, *Viewstamped Replication Revisited*, MIT-CSAIL-TR-2012-021 (VRR), with the corrections
//! that later analyses made necessary (D1-D20 in the README). Model: crashes with intact or lost disks, messages delayed,
//! lost, repeated and reordered. Not lies: peers are authenticated by the link and believed.
//!
//! Deviations, in short: the log is on disk, and so are `view` and `log_view` before anyone is told; a view is left only by a
//! quorum; logs travel as headers; recovery without a disk is a named operation. The README argues each.

mod checkpoint;
mod client;
mod durable;
mod invariants;
mod log;
mod message;
mod normal;
mod reads;
mod recovery;
mod replica;
pub mod select;
mod view_change;

pub use client::Client;
pub use durable::{Base, Promise, Record, Suffix};
pub use message::{BATCH_BYTES_MAX, ENTRIES_MAX, HEADERS_MAX, REQUESTS_MAX};
pub use message::{DoViewChange, Entry, Header, Message, Reply, Request, StartView, Vouch};
pub use replica::Replica;

use quorate_core::ids::View;
use quorate_core::protocol::Protocol;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<Vr>;

/// Entries that are prepared and not committed, at most: the window W (vr.md D20). Fixed for all replicas: log selection and
/// `quorate recover` rely on it.
pub const WINDOW_ENTRIES: u64 = 32;

/// Viewstamped Replication, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Vr;

/// How the primary answers linearizable reads (vr.md §2.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reads {
    /// A round of heartbeats proves that it still leads: safe whatever clocks do.
    Index,
    /// Promises of the backups not to leave the view for a while: no round, but clocks must not run apart by more than
    /// [`Config::drift_percent`].
    Lease,
}

/// How a replica leaves a view (vr.md §2.4, §2.10). All are safe; they differ in who can disturb whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ViewChangePolicy {
    /// Only a quorum of suspicions ends a view: one cut-off or deaf replica disturbs nobody.
    Quorum,
    /// Each suspicion moves the suspecting replica to the next view and draws the others with it (seed 001; Oki and
    /// Liskov 1988). VRR's own shape, for comparison.
    Direct,
}

/// What the owner of a cluster chooses. Equal on all replicas but for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// How often an idle primary shows that it lives; 50 ms.
    pub heartbeat: Duration,
    /// Silence of the primary after which a backup wants to leave the view; 300 ms. At least four heartbeats.
    pub view_change: Duration,
    /// How long to wait before asking or telling again what was not answered; 100 ms.
    pub resend: Duration,
    /// How long a primary with unacknowledged entries goes on pretending to lead; 2 s.
    pub abdicate: Duration,
    /// Entries between two checkpoints; 16,384. A checkpoint writes the whole state: with small entries and a large state,
    /// frequent ones write more than the log does. Part of the replicated state machine: equal on all replicas.
    pub checkpoint_entries: u64,
    /// Bytes of batches between two checkpoints; 64 MiB. Equal on all replicas.
    pub checkpoint_bytes: u64,
    /// Bytes of requests that an entry gathers while the disk is busy; 256 KiB.
    pub batch_bytes: usize,
    /// Bytes of requests that wait for an entry, at most; 32 MiB. Beyond it, clients are told that the primary is busy.
    pub pending_bytes: usize,
    /// How linearizable reads are answered.
    pub reads: Reads,
    /// How much two replicas' clocks may differ in speed, percent; 10. Only leases look at it.
    pub drift_percent: u32,
    /// How a view is left.
    pub policy: ViewChangePolicy,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            view_change: Duration::from_millis(300),
            resend: Duration::from_millis(100),
            abdicate: Duration::from_secs(2),
            checkpoint_entries: 16_384,
            checkpoint_bytes: 64 << 20,
            batch_bytes: 256 << 10,
            pending_bytes: 32 << 20,
            reads: Reads::Index,
            drift_percent: 10,
            policy: ViewChangePolicy::Quorum,
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When to show the backups that the primary lives.
    Heartbeat,
    /// When to send again what no quorum has acknowledged.
    PrepareAgain,
    /// When a primary that nobody acknowledges falls silent.
    Abdicate,
    /// When to suspect the primary.
    PrimarySilent,
    /// When to say again that the view should end, that it changes, or to ask for its start.
    ViewAgain,
    /// When a view change has taken too long.
    ViewChangeStalled,
    /// When to ask again for entries that are missing.
    Repair,
    /// When to start a round of reads again.
    ReadAgain,
    /// When the machine wants a tick.
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

impl Protocol for Vr {
    const NAME: &'static str = "vr";
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = ClientTimer;
    type Config = Config;
    type Replica = Replica;
    type Client = Client;

    fn label(message: &Message) -> &'static str {
        match message {
            Message::Request(_) => "Request",
            Message::Reply(_) => "Reply",
            Message::Busy { .. } => "Busy",
            Message::Read { .. } => "Read",
            Message::ReadReply { .. } => "ReadReply",
            Message::NotPrimary { .. } => "NotPrimary",
            Message::Prepare { .. } => "Prepare",
            Message::PrepareOk { .. } => "PrepareOk",
            Message::Commit { .. } => "Commit",
            Message::CommitOk { .. } => "CommitOk",
            Message::ExitView { .. } => "ExitView",
            Message::DoViewChange(_) => "DoViewChange",
            Message::StartView(_) => "StartView",
            Message::GetView { .. } => "GetView",
            Message::GetHeaders { .. } => "GetHeaders",
            Message::Headers { .. } => "Headers",
            Message::CheckpointDue { .. } => "CheckpointDue",
            Message::GetEntries { .. } => "GetEntries",
            Message::Entry(_) => "Entry",
        }
    }

    fn content(message: &Message, words: &dyn Fn(&[u8]) -> String) -> String {
        message.content(words)
    }
}

/// The first and only record of a replica whose disk was lost (vr.md §2.5, case D). `view` is the greatest that a view change
/// quorum of the others reports, after [`WINDOW_ENTRIES`] ordered no-ops were committed.
///
/// The new life starts two views on: its former self may have acknowledged entries in `view` and may have sent a
/// DoViewChange for `view + 1`, and remembers neither. It vouches for nothing until it has been told the log of a view
/// that its former self cannot have taken part in.
pub fn rejoin(view: View) -> Record {
    Record::Promise(Promise {
        view: view.plus(2),
        log_view: View::ZERO,
        committed: quorate_core::ids::OpNumber::ZERO,
        base: Base::default(),
        suffix: None,
        head_known: false,
    })
}
