//! What a replica has promised: the view it is in, the view that its log is from, where its log begins. Only this type
//! changes them, and every change is a record (vr.md §2.2, R2-R4).
//!
//! The log on disk is a journal: entries as they were appended or repaired, and promises. A promise with a suffix says what
//! the log is after a view change, and by that also what is no longer in it (R6).

use super::message::{Entry, Header};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, View};

/// What the write-ahead log holds.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// An entry of the log. Others have it too.
    Entry(Entry),
    /// A promise. Nobody else has it.
    Promise(Promise),
}

/// The entry after which the log begins: everything up to it is in the checkpoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Base {
    /// The entry.
    pub op: OpNumber,
    /// Its checksum; [`Digest::ZERO`] for entry 0, which does not exist.
    pub checksum: Digest,
}

/// The log after a view change: what it is from `after` on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Suffix {
    /// The log up to and including this entry is as before.
    pub after: OpNumber,
    /// What follows.
    pub headers: Vec<Header>,
}

/// A promise. The last one counts; each is complete but for the suffix, which is an event in the log's history.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Promise {
    /// The view that this replica is in; it takes part in no lower one.
    pub view: View,
    /// The last view in which its log was the view's log (v' of DoViewChange). Not the last entry's view (D3).
    pub log_view: View,
    /// Entries up to this one are committed: a hint, the truth may be further.
    pub committed: OpNumber,
    /// Where the log begins.
    pub base: Base,
    /// The log became this, here in the journal.
    pub suffix: Option<Suffix>,
    /// The end of the log is known. Not after the disk was lost ([`super::rejoin`]).
    pub head_known: bool,
}

/// The promises in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Durable {
    promise: Promise,
}

impl Durable {
    /// A replica that has never promised anything.
    pub(super) fn first() -> (Self, Record) {
        let promise = Promise {
            view: View::ZERO,
            log_view: View::ZERO,
            committed: OpNumber::ZERO,
            base: Base::default(),
            suffix: None,
            head_known: true,
        };
        let durable = Self { promise };
        let record = durable.record(None);
        (durable, record)
    }

    /// What the journal's last promise says.
    pub(super) fn restored(promise: &Promise) -> Self {
        Self { promise: Promise { suffix: None, ..promise.clone() } }
    }

    pub(super) fn view(&self) -> View {
        self.promise.view
    }

    pub(super) fn log_view(&self) -> View {
        self.promise.log_view
    }

    pub(super) fn base(&self) -> Base {
        self.promise.base
    }

    pub(super) fn head_known(&self) -> bool {
        self.promise.head_known
    }

    /// Moves to a higher view, with the log of the old one.
    #[must_use]
    pub(super) fn enter(&mut self, view: View, committed: OpNumber) -> Record {
        assert!(view > self.promise.view, "views only go up");
        self.promise.view = view;
        self.promise.committed = committed;
        self.record(None)
    }

    /// The view has started with this log: log and view change in one record (R4).
    #[must_use]
    pub(super) fn start(&mut self, view: View, committed: OpNumber, base: Base, suffix: Suffix) -> Record {
        assert!(view >= self.promise.view, "views only go up");
        self.promise.view = view;
        self.promise.log_view = view;
        self.promise.committed = committed;
        self.promise.base = base;
        self.promise.head_known = true;
        self.record(Some(suffix))
    }

    /// The log begins later from now on, and is this, if that can be said: then the records before may be forgotten.
    #[must_use]
    pub(super) fn rebase(&mut self, base: Base, committed: OpNumber, suffix: Option<Suffix>) -> Record {
        assert!(base.op >= self.promise.base.op, "a log never gets its beginning back");
        self.promise.base = base;
        self.promise.committed = committed;
        self.record(suffix)
    }

    fn record(&self, suffix: Option<Suffix>) -> Record {
        assert!(self.promise.view >= self.promise.log_view, "a log is of a view that was entered");
        Record::Promise(Promise { suffix, ..self.promise.clone() })
    }
}
