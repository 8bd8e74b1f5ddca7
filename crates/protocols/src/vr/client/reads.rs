//! A client's reads that do not go through the log.

use super::links::{Attempt, Links};
use super::{Message, Outbox};
use bytes::Bytes;
use quorate_core::ids::OpNumber;
use quorate_core::protocol::{Consistency, Ticket};
use quorate_core::time::Instant;
use std::collections::{BTreeMap, VecDeque};

/// Attempts at one read whose answer still counts. Older ones are forgotten.
const READ_IDS_MAX: usize = 8;

/// Reads that do not go through the log.
#[derive(Debug, Default)]
pub(super) struct Reads {
    /// The last id that was used. Orders reads, and names each attempt at one.
    last: u64,
    /// By the id that orders them, hence in the order of their deadlines.
    pub(super) reads: BTreeMap<u64, Read>,
    /// Whose attempt an id is.
    attempts: BTreeMap<u64, u64>,
    /// Reads that came since the last flush.
    pub(super) fresh: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct Read {
    pub(super) ticket: Ticket,
    consistency: Consistency,
    query: Bytes,
    pub(super) deadline: Instant,
    pub(super) attempt: Attempt,
    /// Has any link been given it?
    pub(super) sent: bool,
    /// Its last attempts. At most [`READ_IDS_MAX`].
    ids: VecDeque<u64>,
}

impl Reads {
    pub(super) fn add(
        &mut self,
        ticket: Ticket,
        consistency: Consistency,
        query: Bytes,
        deadline: Instant,
        attempt: Attempt,
    ) {
        self.last = self.last.saturating_add(1);
        let key = self.last;
        let read = Read { ticket, consistency, query, deadline, attempt, sent: false, ids: VecDeque::new() };
        self.reads.insert(key, read);
        self.fresh.push(key);
    }

    pub(super) fn keys(&self) -> Vec<u64> {
        self.reads.keys().copied().collect()
    }

    /// Sends a read if it wants someone or is due; under a new id each time.
    pub(super) fn deliver(&mut self, key: u64, links: &mut Links, out: &mut Outbox) {
        let Some(read) = self.reads.get_mut(&key) else { return };
        let to = read.attempt.step(links, out.now());
        if to.is_empty() {
            return;
        }
        self.last = self.last.saturating_add(1);
        let id = self.last;
        read.sent = true;
        read.ids.push_back(id);
        self.attempts.insert(id, key);
        if read.ids.len() > READ_IDS_MAX {
            let oldest = read.ids.pop_front();
            oldest.map(|id| self.attempts.remove(&id));
        }
        for replica in to.iter() {
            out.send(replica, Message::Read { id, consistency: read.consistency, query: read.query.clone() });
        }
    }

    /// The read that this answers, if it is one that we wait for, and as fresh as it must be.
    pub(super) fn answered(&mut self, id: u64, op: OpNumber) -> Option<Read> {
        let key = *self.attempts.get(&id)?;
        let read = self.reads.get(&key)?;
        match read.consistency {
            Consistency::Stale { at_least } if op < at_least => None,
            _ => self.remove(key),
        }
    }

    fn remove(&mut self, key: u64) -> Option<Read> {
        let read = self.reads.remove(&key)?;
        for id in &read.ids {
            self.attempts.remove(id);
        }
        Some(read)
    }

    pub(super) fn remove_first_if(&mut self, test: impl FnOnce(&Read) -> bool) -> Option<Read> {
        let (key, _) = self.reads.first_key_value().filter(|(_, read)| test(read))?;
        let key = *key;
        self.remove(key)
    }
}
