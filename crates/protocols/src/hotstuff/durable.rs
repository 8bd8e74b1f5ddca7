//! What a replica keeps on disk. A vote is here before it is sent: a replica that comes back knows what it has promised.

use super::message::{Block, Justify, StateCheckpoint, Timeout, TimeoutCertificate, Vote, genesis};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Digest};
use quorate_core::ids::{OpNumber, View};
use quorate_core::outbox::Class;

/// A block by its place: enough to build on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Root {
    /// Its height.
    pub op: OpNumber,
    /// Its name.
    pub block: Digest,
    /// Its view.
    pub view: View,
}

impl Default for Root {
    fn default() -> Self {
        Self { op: OpNumber::ZERO, block: genesis(), view: View::ZERO }
    }
}

/// The promises, written whole each time: the last one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Safety {
    /// The view that was entered last.
    pub view: View,
    /// No vote in this view or a lower one any more (the paper's *vheight*).
    pub voted: View,
    /// The last vote: the same may be sent again.
    pub vote: Option<Vote>,
    /// The last timeout: the same may be sent again.
    pub timeout: Option<Timeout>,
    /// The last view of the last term in which this replica has proposed. Another life does not propose up to it.
    pub begun: View,
    /// The lock (*b_lock*).
    pub locked: Root,
    /// The highest certificate (*qc_high*).
    pub high: Justify,
    /// The highest timeout certificate.
    pub tc: Option<TimeoutCertificate>,
}

/// Everything small, written anew when the log's beginning is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// The log begins after this block: the state up to it is in a snapshot.
    pub root: Root,
    /// The promises.
    pub safety: Safety,
    /// The blocks of this replica's snapshots.
    pub roots: Vec<Root>,
    /// The last state that a quorum has.
    pub state: Option<Certificate<StateCheckpoint>>,
    /// Promises were lost: nothing is voted for until a block beyond the bound is committed.
    pub silent: Option<Silence>,
}

/// Why and how long a replica does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Silence {
    /// The former self has promised nothing about later views; `None` while that is not known.
    pub until: Option<View>,
}

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A block. Peers have it too.
    Block(Box<Block>),
    /// The promises.
    Safety(Box<Safety>),
    /// A snapshot of the state after this block is about to be made or fetched.
    Root(Root),
    /// Everything small, anew.
    Base(Box<Base>),
}

impl Record {
    /// How many copies: what nobody else can tell gets two.
    pub(super) const fn class(&self) -> Class {
        match self {
            Record::Block(_) => Class::Entry,
            Record::Safety(_) | Record::Root(_) | Record::Base(_) => Class::Promise,
        }
    }
}
