//! What a replica keeps on disk. A vote is here before it is sent: a replica that comes back knows what it has confirmed.
//! Whatever two different signatures could convict it of is, too: the lives in which it casts, and the epochs that it has led.
//! Signatures under the blocks of others are not: they fill no slot, and who comes back signs nothing before every broadcast
//! in which it may have signed is over (`guard.rs`).

use super::content::{Block, Bundle};
use super::log::Link;
use super::message::{Cast, Commit, NewView, State, Vote};
use super::order::Order;
use super::schedule::EpochNumber;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Certificate, Signed};
use quorate_core::ids::View;
use quorate_core::outbox::Class;

/// The small part of a replica's memory, written anew when the log's beginning is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// The log begins after this block: the state up to it is in a snapshot.
    pub order: Order,
    /// The view.
    pub view: View,
    /// How the view started; `None` for view zero, and while it has not.
    pub start: Option<Signed<NewView>>,
    /// The last vote.
    pub voted: Option<Vote>,
    /// The certificate of the highest view, and in it of the highest epoch.
    pub certified: Option<Certificate<Vote>>,
    /// The last proof that something is committed.
    pub committed: Option<Certificate<Commit>>,
    /// The last state that a quorum has.
    pub state: Option<Certificate<State>>,
    /// The last life in which anything was cast; zero before the first.
    pub life: u64,
    /// The last epoch that was led.
    pub led: EpochNumber,
    /// Promises were lost: nothing is confirmed until the others have confirmed something later without this replica.
    pub silent: bool,
}

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// What was cast; the name, if it was the name that brought it. Peers have the same bytes.
    Bundle(Option<Signed<Cast>>, Bundle),
    /// What a block moves. Peers have the same bytes.
    Block(Block),
    /// A block's place in the chain; what was there and after it is gone.
    Link(Link),
    /// My output. I say nothing else about this epoch, or an earlier one, in this view.
    Voted(Vote),
    /// A quorum had the same.
    Certified(Certificate<Vote>),
    /// It is committed. Peers have such proofs too.
    Committed(Certificate<Commit>),
    /// I have left all lower views.
    Left(View),
    /// A view has started.
    Started(Signed<NewView>),
    /// I cast in this life, and in no lower one any more.
    Life(u64),
    /// I have led this epoch: I propose nothing else in it, and nothing in an earlier one.
    Led(EpochNumber),
    /// What the order depended on when a snapshot was begun, or is about to be fetched.
    Ordered(Order),
    /// Everything small, anew.
    Base(Box<Base>),
}

impl Record {
    /// How many copies: what nobody else can tell gets two.
    pub(super) const fn class(&self) -> Class {
        match self {
            Record::Bundle(..) | Record::Block(_) | Record::Committed(_) | Record::Ordered(_) => Class::Entry,
            Record::Link(_)
            | Record::Voted(_)
            | Record::Certified(_)
            | Record::Left(_)
            | Record::Started(_)
            | Record::Life(_)
            | Record::Led(_)
            | Record::Base(_) => Class::Promise,
        }
    }
}
