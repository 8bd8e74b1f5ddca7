//! The three answers to a bad message: late → ignore, with a reason that is counted; a lie → blame, kept as evidence; our
//! own bug → assert. Nothing that a peer or a client sends can panic a replica.

use crate::crypto::Evidence;
use crate::ids::{ClientId, Peer, ReplicaId};
use std::collections::BTreeMap;

/// Why a message was not taken. Nobody is to blame: networks delay, repeat and reorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// It belongs to a view that is over.
    OldView,
    /// It belongs to a view that this replica has yet to learn of.
    NewerView,
    /// It belongs to an epoch that is over, or not begun.
    OtherEpoch,
    /// This replica is not in the state in which the message means something.
    NotNow,
    /// Only the primary takes it.
    NotPrimary,
    /// The primary does not take it.
    NotBackup,
    /// The sender is not the one who may say this.
    NotForSender,
    /// It says what is known already.
    Duplicate,
    /// Something before it is missing.
    Gap,
    /// It is beyond the window that this replica keeps.
    OutsideWindow,
    /// It does not continue the log that this replica holds.
    WrongChain,
    /// A queue is full; the sender tries again.
    Busy,
    /// It answers a question that was not asked, or not lately.
    Unasked,
    /// What it asks for is not here, or not readable.
    NotHere,
}

/// A statement that no correct peer makes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Bytes that do not decode, or decode to something out of bounds.
    Malformed(String),
    /// A message of another cluster.
    OtherCluster,
    /// Two different statements where only one may be made.
    Contradiction(String),
    /// A chunk or a log entry whose bytes are not what its digest says.
    WrongBytes(String),
    /// A statement, named by its domain, that the one who is said to have made it has not signed.
    BadSignature(&'static str),
    /// Two signed statements that contradict each other: whoever made both is convicted, for others too.
    Proof(Box<Evidence>),
    /// No lie: checking it would cost more than whoever sends it may cost now. The message is ignored.
    NotNow(Why),
}

/// Counts, per peer, of what was ignored and what was blamed. Bounded: reasons are few and peers are members or the
/// single bucket of all clients, [`Ledger::CLIENTS`]. A client draws its own name, so names must not fill the book. Of the
/// proofs against a replica the first is kept: one is enough.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    ignored: BTreeMap<Why, u64>,
    blamed: BTreeMap<Peer, u64>,
    last: Option<(Peer, Fault)>,
    proofs: BTreeMap<ReplicaId, Evidence>,
}

impl Ledger {
    /// Under this name all clients are blamed.
    pub const CLIENTS: Peer = Peer::Client(ClientId::new(0));

    /// Counts a message that was ignored.
    pub fn ignore(&mut self, why: Why) {
        let count = self.ignored.entry(why).or_default();
        *count = count.saturating_add(1);
    }

    /// Counts a lie and keeps the last one; a client's never in place of a replica's.
    pub fn blame(&mut self, from: Peer, fault: Fault) {
        if let Fault::Proof(evidence) = &fault {
            self.proofs.entry(evidence.accused()).or_insert_with(|| evidence.as_ref().clone());
        }
        let is_client = matches!(from, Peer::Client(_));
        let count = self.blamed.entry(if is_client { Self::CLIENTS } else { from }).or_default();
        *count = count.saturating_add(1);
        if !is_client || !matches!(self.last, Some((Peer::Replica(_), _))) {
            self.last = Some((from, fault));
        }
    }

    /// Messages ignored, by reason.
    pub fn ignored(&self) -> &BTreeMap<Why, u64> {
        &self.ignored
    }

    /// Lies, by peer.
    pub fn blamed(&self) -> &BTreeMap<Peer, u64> {
        &self.blamed
    }

    /// What convicts replicas, one proof for each.
    pub fn proofs(&self) -> &BTreeMap<ReplicaId, Evidence> {
        &self.proofs
    }

    /// The last lie.
    pub fn last(&self) -> Option<&(Peer, Fault)> {
        self.last.as_ref()
    }
}
