//! A client's session: which requests have a number, and which still wait for one.

use super::links::Attempt;
use quorate_core::ids::{RequestNumber, SessionId};
use quorate_core::protocol::Ticket;
use quorate_core::sessions::{Body, WINDOW};
use quorate_core::time::Instant;
use std::collections::BTreeMap;

/// Bytes of operations in flight, unless a single one is longer: a retry sends them to every replica, and a primary takes
/// 32 MiB from all its clients together ([`crate::vr::Config::pending_bytes`]).
const FLIGHT_BYTES_MAX: usize = 8 << 20;

/// Each phase of the session carries its own data.
#[derive(Debug)]
pub(super) enum Session {
    /// Nobody has asked for anything, or the last one was evicted.
    None,
    /// Asked for one (CT1).
    Opening(Attempt),
    Open(Open),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) id: SessionId,
    /// The last number that was used.
    pub(super) last: RequestNumber,
    /// Requests without an answer. Numbers in order, hence deadlines in order.
    /// Invariant: every one was handed to a link; all are within [`WINDOW`] of `acknowledged`.
    pub(super) sent: BTreeMap<RequestNumber, Sent>,
    /// Bytes of their bodies.
    pub(super) bytes: usize,
}

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) body: Body,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) struct Sent {
    pub(super) ticket: Ticket,
    pub(super) body: Body,
    pub(super) deadline: Instant,
    pub(super) attempt: Attempt,
}

impl Open {
    /// The client knows the answers up to and including this one, or has given them up.
    pub(super) fn acknowledged(&self) -> RequestNumber {
        self.sent.keys().next().map_or(self.last, |first| first.previous())
    }

    /// May one more request of this length be sent?
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        let within = self.last.next().since(self.acknowledged()) <= WINDOW;
        within && (self.sent.is_empty() || self.bytes.saturating_add(bytes) <= FLIGHT_BYTES_MAX)
    }

    /// Gives a request its number.
    pub(super) fn add(&mut self, sent: Sent) -> RequestNumber {
        self.last = self.last.next();
        self.bytes = self.bytes.saturating_add(sent.body.len());
        let former = self.sent.insert(self.last, sent);
        assert!(former.is_none(), "a number names one operation (CT4)");
        self.last
    }

    pub(super) fn remove(&mut self, number: RequestNumber) -> Option<Sent> {
        let sent = self.sent.remove(&number)?;
        self.bytes = self.bytes.saturating_sub(sent.body.len());
        Some(sent)
    }

    pub(super) fn remove_first_if(&mut self, test: impl FnOnce(&Sent) -> bool) -> Option<Sent> {
        let (number, _) = self.sent.first_key_value().filter(|(_, sent)| test(sent))?;
        let number = *number;
        self.remove(number)
    }
}
