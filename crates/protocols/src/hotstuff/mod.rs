//! Chained HotStuff: `3f + 1` replicas go on, and agree, while `f` of them lie. One kind of vote, one block at a time; each
//! block carries the certificate of its parent, and is committed by the blocks that follow it.
//!
//! Sources: M. Yin, D. Malkhi, M. K. Reiter, G. Golan Gueta, I. Abraham, *HotStuff: BFT Consensus with Linearity and
//! Responsiveness*, PODC 2019, chained as in its §5; the pacemaker and the rules of two chains from R. Gelashvili et al.,
//! *Jolteon and Ditto*, FC 2022. Model: messages delayed, lost, repeated and reordered; `f` of `3f + 1` replicas do anything at
//! all; the others crash and come back with their disks.
//!
//! Deviations, in short: views are numbered and may be skipped, so only blocks of consecutive views commit; votes are on disk
//! before they are sent; one replica leads a *term* of many views, and a timeout ends the whole term; clients are PBFT's. The
//! README argues each.

mod ahead;
mod checkpoint;
mod client;
mod durable;
mod history;
mod invariants;
mod message;
mod normal;
mod pacemaker;
mod reads;
mod recovery;
mod replica;
mod restore;
mod safety;
mod tree;

pub use client::Client;
pub use durable::{Base, Record, Root, Safety, Silence};
pub use history::{History, NotHere};
pub use message::{
    Block, Header, Justify, Message, PAYLOAD_BYTES_MAX, Payload, Place, Proposal, StateCheckpoint, Timeout,
    TimeoutCertificate, Vote, genesis,
};
pub use replica::Replica;
pub use safety::Rules;

use crate::pbft;
use quorate_core::crypto::Keyring;
use quorate_core::fault::Fault;
use quorate_core::ids::{ReplicaId, View};
use quorate_core::protocol::Protocol;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::Duration;

/// The outbox of this protocol.
pub(crate) type Outbox = quorate_core::outbox::Outbox<HotStuff>;

/// Chained HotStuff, as a [`Protocol`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HotStuff;

/// When a leader puts requests into a block.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Pacing {
    /// As soon as some wait and the block before is certified.
    #[default]
    Prompt,
    /// When the program that the replica runs in says so (the seed's `do_propose`): one cue, one block with what waits, or with
    /// what the machine has built, and an empty one if nothing waits. The blocks without requests that commit it follow by
    /// themselves. Cues that come before the block of an earlier one are one cue; who does not lead ignores them. The pacemaker
    /// goes on as always: a leader that lets a request wait for longer than [`Config::timeout`] is given up, and the next
    /// leader's program is the one to give cues.
    OnCue,
}

/// Views of a term in which it is worth while to run ahead.
const AHEAD_VIEWS_MIN: u64 = 16;

/// What the owner of a cluster chooses. Equal on all replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Which certificates commit a block.
    pub rules: Rules,
    /// Views that one replica leads before the next one does; 4,096. With 1, every block has another leader; under the rule of
    /// three chains it is never less than 2 (see [`Config::views`]).
    pub leader_views: u64,
    /// When a leader proposes: promptly, or when its program says so.
    pub pacing: Pacing,
    /// How long a request may wait for its execution before a replica stops voting in the leader's term; 300 ms. Grows by a
    /// half with each attempt since the last commit, up to 64 times.
    pub timeout: Duration,
    /// How long to wait before telling or asking again; 100 ms. Doubles up to [`Config::resend_max`].
    pub resend: Duration,
    /// The longest pause between two attempts; 2 s.
    pub resend_max: Duration,
    /// Blocks between two snapshots of the state; 16,384. Part of the replicated state machine.
    pub state_blocks: u64,
    /// Bytes of payloads between two snapshots of the state; 64 MiB. Part of the replicated state machine.
    pub state_bytes: u64,
    /// Requests that a block gathers at most, unless one group has more; 1,024.
    pub block_requests: usize,
    /// Bytes of requests that a block gathers at most, unless one group has more; 512 KiB.
    pub block_bytes: usize,
    /// How many payloads the leader's machine may build ahead of the blocks; 0 for machines that build nothing: requests then
    /// go into blocks as they are, and batches are applied when they are committed. Otherwise (3 is usual) they are applied as
    /// soon as they are proposed, to states that are dropped if the block loses. With 1, the machine builds only on what is
    /// committed. Has no effect in terms of less than 16 views.
    pub run_ahead: usize,
    /// Bytes of requests that wait, at most; 32 MiB. Beyond it, clients are told that the replica is busy.
    pub pending_bytes: usize,
    /// Bytes of requests of one client that wait, at most; 12 MiB: more than a correct one has in flight.
    pub client_bytes: usize,
    /// How far the leader's clock may be ahead of one's own; 10 s. Agreed time never goes back: a leader that says the year
    /// 2500 would expire every lease for good.
    pub clock_ahead: Duration,
}

impl Config {
    /// Views of a term. To commit, a rule of `c` chains needs `c` blocks of consecutive views and one more leader who collects
    /// the votes for the last: `c + 1` views of correct leaders in a row. With `n > 3f`, some three leaders in a row are
    /// correct, and no more of four: with three chains and a new leader for each view, four replicas one of which is
    /// silent never commit anything.
    pub fn views(&self) -> u64 {
        let least = match self.rules {
            Rules::ThreeChain => 2,
            Rules::TwoChain => 1,
        };
        self.leader_views.max(least)
    }

    /// Do leaders' machines build ahead? In shorter terms a leader is gone before a block of its own is committed.
    pub fn runs_ahead(&self) -> bool {
        self.run_ahead > 0 && self.views() >= AHEAD_VIEWS_MIN
    }

    /// The term that a view belongs to. The genesis block alone is of view zero.
    pub fn term(&self, view: View) -> u64 {
        view.previous().get() / self.views()
    }

    /// The last view of the term that a view belongs to.
    pub fn term_end(&self, view: View) -> View {
        View::new(self.term(view).saturating_add(1).saturating_mul(self.views()))
    }

    /// Who leads a view.
    pub fn leader(&self, quorums: &ByzantineQuorums, view: View) -> ReplicaId {
        quorums.primary(View::new(self.term(view)))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rules: Rules::ThreeChain,
            leader_views: 4096,
            pacing: Pacing::Prompt,
            timeout: Duration::from_millis(300),
            resend: Duration::from_millis(100),
            resend_max: Duration::from_secs(2),
            state_blocks: 16_384,
            state_bytes: 64 << 20,
            block_requests: pbft::REQUESTS_MAX,
            block_bytes: 512 << 10,
            run_ahead: 0,
            pending_bytes: 32 << 20,
            client_bytes: 12 << 20,
            clock_ahead: Duration::from_secs(10),
        }
    }
}

/// When to wake a replica up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Timer {
    /// When to give the leader up: the oldest request, or the oldest block with requests, has waited too long.
    Progress,
    /// When to tell where one is, and to say again what may have been lost.
    Again,
    /// When the machine wants a tick, or should have had it.
    Tick,
}

/// The first and only record of a replica whose disk was lost. It asks the others how far its former self may have voted,
/// and votes for nothing before a block beyond that is committed (the README has the argument).
pub fn rejoin() -> Record {
    Record::Base(Box::new(Base { silent: Some(Silence { until: None }), ..Base::default() }))
}

impl Protocol for HotStuff {
    const NAME: &'static str = "hotstuff";
    const SIGNS: bool = true;
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
