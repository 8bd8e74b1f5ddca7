//! What a replica keeps on disk: what it has promised, before it says so. A replica that comes back says the same again.

use super::message::{Approval, Batch, Decided, StateMark, Vector, Vote};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Signed};
use quorate_core::ids::OpNumber;
use quorate_core::outbox::Class;

/// The small part of a replica's memory, written anew when the log's beginning is forgotten.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// The log begins after this epoch: the state up to it is in a snapshot. `None`: after nothing.
    pub decided: Option<Decided>,
    /// The height of the last batch of its own lane.
    pub height: u64,
    /// Promises were lost: nothing is signed or said until the group is beyond the bound, which may have to be asked for.
    pub silent: Option<Silence>,
}

/// Why and how long a replica says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Silence {
    /// The former self has spoken in no epoch after this one; `None` while that is not known.
    pub until: Option<OpNumber>,
}

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// A batch of a lane. `true`: I have acknowledged it, and acknowledge no other at its height; or it is my own.
    Batch(Batch, bool),
    /// A proposal that I have approved, or my own: no other of that replica in that epoch.
    Approved(Box<Signed<Vector>>),
    /// A quorum has approved a proposal: why I wish that it counts. If it does, and all forget this, nobody finds it.
    Certified(Certificate<Approval>),
    /// Words of agreements that I have said.
    Said(Vec<Vote>),
    /// What an epoch came to. Peers know it, too.
    Decided(Decided),
    /// A state is in a snapshot of mine, or about to be fetched.
    State(StateMark),
    /// Everything small, anew.
    Base(Box<Base>),
}

impl Record {
    /// How many copies: what nobody else can tell gets two. That a batch was acknowledged nobody else can tell either, but a
    /// payload is long: who cannot read it counts as one who has lost a promise.
    pub(super) const fn class(&self) -> Class {
        match self {
            Record::Batch(..) | Record::Certified(_) | Record::Decided(_) | Record::State(_) => Class::Entry,
            Record::Approved(_) | Record::Said(_) | Record::Base(_) => Class::Promise,
        }
    }
}
