//! What a replica keeps on disk. A vote is here before it is sent: a replica that comes back knows what it has promised.

use super::message::{Commit, LogCheckpoint, NewView, Prepare, Proposal, StateCheckpoint};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Digest, Signed};
use quorate_core::ids::{OpNumber, View};
use quorate_core::outbox::Class;

/// The small part of a replica's memory, written anew when the log's beginning is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// The log begins after this entry: the state up to it is in a snapshot.
    pub op: OpNumber,
    /// The chain of the proposals' digests up to it.
    pub chain: Digest,
    /// The view.
    pub view: View,
    /// How the view started; `None` for view zero, and while it has not.
    pub start: Option<Signed<NewView>>,
    /// The last stable checkpoint of the log.
    pub stable: Option<Certificate<LogCheckpoint>>,
    /// The last state that a quorum has.
    pub state: Option<Certificate<StateCheckpoint>>,
    /// Promises were lost: nothing is voted for until a stable checkpoint reaches the bound, which may have to be asked for.
    pub silent: Option<Silence>,
}

/// Why and how long a replica does not vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Silence {
    /// The former self has voted for nothing beyond this entry; `None` while that is not known.
    pub until: Option<OpNumber>,
}

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// What was proposed for an entry. Peers have the same bytes.
    Proposal(OpNumber, Proposal),
    /// My vote: nothing else for this entry in this view.
    Prepare(Prepare),
    /// It is prepared: what my COMMIT says, and what my VIEW-CHANGE must tell.
    Prepared(Certificate<Prepare>),
    /// It is committed. Peers have such proofs too.
    Committed(Certificate<Commit>),
    /// I have left all lower views.
    Left(View),
    /// A view has started.
    Started(Signed<NewView>),
    /// A checkpoint of the log is stable.
    Stable(Certificate<LogCheckpoint>),
    /// A state is in a snapshot of mine, or about to be fetched.
    State(StateCheckpoint),
    /// Everything small, anew.
    Base(Box<Base>),
}

impl Record {
    /// How many copies: what nobody else can tell gets two.
    pub(super) const fn class(&self) -> Class {
        match self {
            Record::Proposal(..) | Record::Committed(_) | Record::State(_) => Class::Entry,
            Record::Prepare(_)
            | Record::Prepared(_)
            | Record::Left(_)
            | Record::Started(_)
            | Record::Stable(_)
            | Record::Base(_) => Class::Promise,
        }
    }
}
