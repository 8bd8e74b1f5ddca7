//! What replicas and clients say to each other. Each variant says what the sender claims by sending it.
//!
//! Whatever must convince a third party is a signed [`Statement`]; its domain names protocol, version and phase. The rest
//! relies on the link.

use super::WINDOW_BLOCKS;
use super::content::{Block, Bundle};
use super::log::chained;
use super::order::Order;
use super::schedule::EpochNumber;
use crate::pbft;
use crate::quorum_client;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Digest, Keyring, Signed, Slot, Statement};
use quorate_core::fault::Fault;
use quorate_core::ids::{OpNumber, ReplicaId, View};
use quorate_core::protocol::{Checkpoint, Protocol as _};
use quorate_core::quorum::{REPLICAS_MAX, SyncQuorums};
use quorate_core::sessions::OPERATION_BYTES_MAX;
use quorate_core::time::WallTime;

/// Requests in one bundle, at most.
pub const REQUESTS_MAX: usize = pbft::REQUESTS_MAX;
/// Bytes of one bundle at most: several groups of usual size, or one of the largest.
pub const BUNDLE_BYTES_MAX: usize = 2 * OPERATION_BYTES_MAX;
/// Entries of one block at most.
pub const ENTRIES_MAX: usize = 128;
/// Bytes of requests that one block orders, unless it has one entry only.
pub const BLOCK_BYTES_MAX: u64 = 8 << 20;
/// Blocks and bundles that one `GetBodies` asks for at most.
pub const WANTED_MAX: usize = 64;
/// Views, epochs and entries beyond this are nobody's: it leaves room to count on, whatever a peer says.
const NUMBER_MAX: u64 = 1 << 62;

/// The first statement of a broadcast, by its sender.
pub trait Head: Statement + Eq + Copy {
    /// The domain in which others sign that they have it.
    const ECHO: &'static str;
}

/// Somebody else's statement, signed by one who has it and passes it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Echo<T>(pub T);

impl<T: Head> Statement for Echo<T> {
    // No slot: a correct replica passes two values on, if their sender has signed both.
    const DOMAIN: &'static str = T::ECHO;
    /// In longer chains, and in blocks.
    const COMES_AGAIN: bool = true;
}

/// A chain of signatures (Dolev and Strong): the sender's first, then those of replicas that have passed it on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Chain<T> {
    /// The sender's signature.
    pub head: Signed<T>,
    /// The others', in the order of their numbers.
    pub echoes: Vec<Signed<Echo<T>>>,
}

impl<T: Head> Chain<T> {
    /// A chain that begins.
    pub const fn new(head: Signed<T>) -> Self {
        Self { head, echoes: Vec::new() }
    }

    /// What is said.
    pub const fn statement(&self) -> &T {
        self.head.statement()
    }

    /// How many have signed (k).
    pub fn signers(&self) -> usize {
        self.echoes.len().saturating_add(1)
    }

    /// Has this replica signed?
    pub fn is_signed_by(&self, replica: ReplicaId) -> bool {
        self.head.by() == replica || self.echoes.iter().any(|echo| echo.by() == replica)
    }

    /// The chain with one more signature; the same if that one is there.
    #[must_use]
    pub fn with(mut self, echo: Signed<Echo<T>>) -> Self {
        if !self.is_signed_by(echo.by()) {
            let place = self.echoes.partition_point(|other| other.by() < echo.by());
            self.echoes.insert(place, echo);
        }
        self
    }

    /// The chain with so many signers, and no more.
    #[must_use]
    pub fn shortened(mut self, signers: usize) -> Self {
        self.echoes.truncate(signers.saturating_sub(1));
        self
    }

    /// Checks form, then signatures.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let by = self.head.by();
        let in_order = self.echoes.is_sorted_by(|one, next| one.by() < next.by());
        if !in_order || self.echoes.len() >= REPLICAS_MAX || self.echoes.iter().any(|echo| echo.by() == by) {
            return Err(Fault::Malformed("a chain whose signers are not different, or not in order".to_owned()));
        }
        if self.echoes.iter().any(|echo| echo.statement().0 != *self.head.statement()) {
            return Err(Fault::Malformed("a chain of several statements".to_owned()));
        }
        self.head.prove(keyring)?;
        self.echoes.iter_mut().try_for_each(|echo| echo.prove(keyring))
    }
}

/// Names what one replica has cast: who, in which of its lives, which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct CastId {
    /// The sender.
    pub sender: ReplicaId,
    /// Greater in each life of the sender, whatever it has lost: what it had cast before and forgotten is never cast again
    /// under the same name (`cast.rs::begin_life`).
    pub life: u64,
    /// From 0, dense in one life.
    pub seq: u64,
}

/// ⟨sender, seq, τ, H(x)⟩: I have cast this at this time (UCB). All deadlines follow from the signed τ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cast {
    /// Its name.
    pub id: CastId,
    /// When, by the sender's clock (τ).
    pub start: WallTime,
    /// What: the digest of a bundle.
    pub bundle: Digest,
    /// Bytes of the bundle.
    pub bytes: u64,
}

impl Statement for Cast {
    const DOMAIN: &'static str = "sync-tob/1 cast";
    /// In every echo, and in the block that moves it.
    const COMES_AGAIN: bool = true;

    /// One sender casts one thing under one name; lives are far below the limit of numbers.
    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::new(self.id.life), op: OpNumber::new(self.id.seq) })
    }
}

impl Head for Cast {
    const ECHO: &'static str = "sync-tob/1 echo of a cast";
}

/// ⟨e, H(block)⟩: this is what I, its leader, order in the epoch (SCB).
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// The view.
    pub view: View,
    /// The epoch (e).
    pub epoch: EpochNumber,
    /// The block.
    pub block: Digest,
}

impl Statement for Proposal {
    const DOMAIN: &'static str = "sync-tob/1 proposal";
    /// From everybody who passes it on.
    const COMES_AGAIN: bool = true;

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: OpNumber::new(self.epoch.get()) })
    }
}

impl Head for Proposal {
    const ECHO: &'static str = "sync-tob/1 echo of a proposal";
}

/// My output of the epoch was this block, and those of all epochs since the block before it were ⊥.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The view.
    pub view: View,
    /// The block's number: blocks are counted, empty epochs are not.
    pub op: OpNumber,
    /// The epoch.
    pub epoch: EpochNumber,
    /// The chain of all blocks before it.
    pub parent: Digest,
    /// The block.
    pub block: Digest,
}

impl Vote {
    /// The chain of all blocks up to this one.
    pub fn chain(&self) -> Digest {
        chained(self.parent, self.op, self.epoch, self.block)
    }
}

impl Statement for Vote {
    const DOMAIN: &'static str = "sync-tob/1 vote";

    /// One vote for each epoch of a view.
    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: OpNumber::new(self.epoch.get()) })
    }
}

/// I hold a certificate that a quorum had this output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// The view of the certificate.
    pub view: View,
    /// The block's number.
    pub op: OpNumber,
    /// Its epoch.
    pub epoch: EpochNumber,
    /// The chain of all blocks up to it.
    pub chain: Digest,
}

impl Statement for Commit {
    const DOMAIN: &'static str = "sync-tob/1 commit";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: OpNumber::new(self.epoch.get()) })
    }
}

/// The signer has the state at this block on its disk, and serves it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct State {
    /// The block, and the digest of machine, sessions and history.
    pub checkpoint: Checkpoint,
    /// What the order of later blocks depends on.
    pub order: Order,
}

impl Statement for State {
    const DOMAIN: &'static str = "sync-tob/1 state";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: self.checkpoint.op })
    }
}

/// The signer has left all lower views; this is what it has confirmed.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// The view to change to.
    pub view: View,
    /// The last block that is committed here; `None` before the first.
    pub committed: Option<Certificate<Commit>>,
    /// The certificate of the highest view, and in it of the highest epoch, if it is of a later block.
    pub certified: Option<Certificate<Vote>>,
    /// Epoch and digest of each block after the committed one, up to the certified one.
    pub links: Vec<(EpochNumber, Digest)>,
}

impl ViewChange {
    /// Number, epoch and chain of the last committed block.
    pub fn base(&self) -> (OpNumber, EpochNumber, Digest) {
        let commit = self.committed.as_ref().map(Certificate::statement);
        commit.map_or((OpNumber::ZERO, EpochNumber::ZERO, Digest::ZERO), |it| (it.op, it.epoch, it.chain))
    }

    /// Why no correct replica sends it, apart from signatures.
    fn check(&self) -> Option<String> {
        let (mut op, mut epoch, mut chain) = self.base();
        if self.links.len() as u64 > WINDOW_BLOCKS {
            return Some("it tells of more than a window".to_owned());
        }
        for (next, block) in &self.links {
            if *next <= epoch {
                return Some("its epochs go back".to_owned());
            }
            (op, epoch) = (op.next(), *next);
            chain = chained(chain, op, epoch, *block);
        }
        let last = self.certified.as_ref().map(|it| it.statement());
        let fits = match last {
            None => self.links.is_empty(),
            Some(vote) => {
                !self.links.is_empty()
                    && (vote.op, vote.epoch, vote.chain()) == (op, epoch, chain)
                    && vote.view < self.view
            }
        };
        (!fits).then(|| "its blocks do not lead to its certificate".to_owned())
    }
}

impl Statement for ViewChange {
    // No slot: between two attempts at one view more may be committed.
    const DOMAIN: &'static str = "sync-tob/1 view change";

    fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let quorum = quorum(keyring)?;
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what));
        }
        self.committed.iter_mut().try_for_each(|it| it.prove(keyring, quorum))?;
        self.certified.iter_mut().try_for_each(|it| it.prove(keyring, quorum))
    }
}

/// The view starts with what follows from these; its first epoch is this.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewView {
    /// The view.
    pub view: View,
    /// A quorum's view changes, in the order of their signers.
    pub changes: Vec<Signed<ViewChange>>,
    /// The first epoch that belongs to the view.
    pub first: EpochNumber,
}

impl Statement for NewView {
    const DOMAIN: &'static str = "sync-tob/1 new view";

    fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let quorum = quorum(keyring)?;
        let in_order = self.changes.is_sorted_by(|one, next| one.by() < next.by());
        if !in_order || self.changes.len() != quorum || self.changes.iter().any(|it| it.statement().view != self.view) {
            return Err(Fault::Malformed("a new view without a quorum of view changes".to_owned()));
        }
        self.changes.iter_mut().try_for_each(|change| change.prove(keyring))
    }
}

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Place {
    /// Its view.
    pub view: View,
    /// Has the view started there?
    pub active: bool,
    /// It holds everything up to here, committed.
    pub committed: OpNumber,
}

/// The words of synchronous total-order broadcast.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client ↔ replica: requests, reads and their answers, in PBFT's words.
    Client(pbft::Message),

    /// Replica → all (UCB): this is to be ordered.
    Cast {
        /// Who says so.
        chain: Chain<Cast>,
        /// What it is.
        bundle: Bundle,
    },
    /// Replica → all: I have what was cast.
    Echo {
        /// The sender's signature.
        head: Signed<Cast>,
        /// Mine.
        echo: Signed<Echo<Cast>>,
    },
    /// Leader → all, and whoever takes it → those who have not signed it (SCB): this is the block of the epoch.
    Propose {
        /// Who says so.
        chain: Chain<Proposal>,
        /// The block.
        block: Block,
    },
    /// Replica → all: this was my output.
    Vote(Signed<Vote>),
    /// Replica → all: it was that of a quorum.
    Commit(Signed<Commit>),
    /// Replica → all: a state is on my disk.
    State(Box<Signed<State>>),

    /// Replica → all: I have left all lower views.
    ViewChange(Box<Signed<ViewChange>>),
    /// Who leads the view → all, and whoever has it → who missed it: the view starts.
    NewView(Box<Signed<NewView>>),

    /// Replica → replica: this is where I am.
    Status {
        /// Where.
        place: Place,
        /// And you?
        asks: bool,
    },
    /// Replica → replica: send me what is committed after this block.
    GetDecided {
        /// The block.
        after: OpNumber,
    },
    /// The answer: epochs and digests of the blocks after it, and the proof that they are committed.
    Decided {
        /// The number of the first of them.
        first: OpNumber,
        /// Epoch and digest of each.
        links: Vec<(EpochNumber, Digest)>,
        /// The proof, for the last of them.
        certificate: Certificate<Commit>,
    },
    /// The answer, if those blocks are gone: a quorum has this state.
    StateStable(Box<Certificate<State>>),
    /// Replica → replicas: send me what these digests stand for.
    GetBodies {
        /// Blocks.
        blocks: Vec<Digest>,
        /// Bundles.
        bundles: Vec<Digest>,
    },
    /// The answer.
    BlockBody(Block),
    /// The answer.
    BundleBody(Bundle),

    /// Replica → replica: what does your clock show?
    Probe {
        /// The sender's own clock, for itself.
        sent: u64,
    },
    /// The answer.
    Time {
        /// The question's.
        sent: u64,
        /// My clock, as far as it is kept in step.
        clock: WallTime,
    },

    /// A silent replica → replicas, while nothing moves: commit a block of an epoch that begins at this time or later, so that my
    /// silence ends.
    GetBeyond {
        /// The time, by the clocks that are kept in step.
        until: WallTime,
    },
}

impl Message {
    /// Why no correct peer sends this, apart from signatures.
    fn check(&self) -> Option<&'static str> {
        let beyond = |numbers: &[u64]| numbers.iter().any(|number| *number > NUMBER_MAX);
        match self {
            Message::Cast { chain, bundle } => match chain.statement() {
                cast if cast.bundle != bundle.digest() => Some("a cast of another bundle"),
                cast if cast.bytes != bundle.len() as u64 => Some("a cast of another length"),
                cast if cast.id.sender != chain.head.by() => Some("a cast in another's name"),
                cast if beyond(&[cast.id.life, cast.id.seq]) => Some("a number out of all bounds"),
                _ => bundle.check(),
            },
            Message::Echo { head, echo } if echo.statement().0 != *head.statement() => Some("an echo of another cast"),
            Message::Echo { head, .. } if head.statement().id.sender != head.by() => Some("a cast in another's name"),
            Message::Echo { head, .. } if beyond(&[head.statement().id.life, head.statement().id.seq]) => {
                Some("a number out of all bounds")
            }
            Message::Propose { chain, block } => match chain.statement() {
                it if it.block != block.digest() => Some("a proposal of another block"),
                it if it.epoch != block.content().epoch => Some("a block of another epoch"),
                it if beyond(&[it.view.get(), it.epoch.get()]) => Some("a number out of all bounds"),
                _ => block.check(),
            },
            Message::Vote(vote) if beyond(&[vote.statement().op.get(), vote.statement().epoch.get()]) => {
                Some("a number out of all bounds")
            }
            Message::Commit(vote) if beyond(&[vote.statement().op.get(), vote.statement().epoch.get()]) => {
                Some("a number out of all bounds")
            }
            Message::BundleBody(bundle) => bundle.check(),
            Message::BlockBody(block) => block.check(),
            Message::GetBodies { blocks, bundles } if blocks.len().saturating_add(bundles.len()) > WANTED_MAX => {
                Some("a question for too much")
            }
            Message::Decided { links, .. }
                if links.is_empty() || links.len() as u64 > WINDOW_BLOCKS.saturating_mul(2) =>
            {
                Some("no blocks, or too many")
            }
            Message::ViewChange(change) if beyond(&[change.statement().view.get()]) => Some("a view out of all bounds"),
            Message::NewView(view) if beyond(&[view.statement().view.get(), view.statement().first.get()]) => {
                Some("a view out of all bounds")
            }
            Message::Status { place, .. } if beyond(&[place.view.get(), place.committed.get()]) => {
                Some("a number out of all bounds")
            }
            _ => None,
        }
    }

    /// Checks form, then signatures: what a handler is given is signed by whom it says.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what.to_owned()));
        }
        let quorum = quorum(keyring)?;
        match self {
            Message::Client(message) => quorum_client::prove(message, keyring),
            Message::Cast { chain, bundle } => {
                chain.prove(keyring)?;
                bundle.prove(keyring)
            }
            Message::Echo { head, echo } => {
                head.prove(keyring)?;
                echo.prove(keyring)
            }
            Message::Propose { chain, block } => {
                chain.prove(keyring)?;
                block.prove(keyring)
            }
            Message::Vote(vote) => vote.prove(keyring),
            Message::Commit(vote) => vote.prove(keyring),
            Message::State(vote) => vote.prove(keyring),
            Message::ViewChange(change) => change.prove(keyring),
            Message::NewView(start) => start.prove(keyring),
            Message::Decided { certificate, .. } => certificate.prove(keyring, quorum),
            Message::StateStable(certificate) => certificate.prove(keyring, quorum),
            Message::BlockBody(block) => block.prove(keyring),
            Message::BundleBody(bundle) => bundle.prove(keyring),
            Message::Status { .. }
            | Message::GetDecided { .. }
            | Message::GetBodies { .. }
            | Message::GetBeyond { .. }
            | Message::Probe { .. }
            | Message::Time { .. } => Ok(()),
        }
    }

    /// The message's name.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Message::Client(message) => pbft::Pbft::label(message),
            Message::Cast { .. } => "Cast",
            Message::Echo { .. } => "Echo",
            Message::Propose { .. } => "Propose",
            Message::Vote(_) => "Vote",
            Message::Commit(_) => "Commit",
            Message::State(_) => "State",
            Message::ViewChange(_) => "ViewChange",
            Message::NewView(_) => "NewView",
            Message::Status { .. } => "Status",
            Message::GetDecided { .. } => "GetDecided",
            Message::Decided { .. } => "Decided",
            Message::StateStable(_) => "StateStable",
            Message::GetBodies { .. } => "GetBodies",
            Message::BlockBody(_) => "BlockBody",
            Message::BundleBody(_) => "BundleBody",
            Message::Probe { .. } => "Probe",
            Message::Time { .. } => "Time",
            Message::GetBeyond { .. } => "GetBeyond",
        }
    }
}

pub(super) fn quorums(keyring: &Keyring) -> Result<SyncQuorums, Fault> {
    SyncQuorums::new(keyring.replicas()).ok_or_else(|| Fault::Malformed("a group without keys".to_owned()))
}

fn quorum(keyring: &Keyring) -> Result<usize, Fault> {
    Ok(quorums(keyring)?.quorum())
}
