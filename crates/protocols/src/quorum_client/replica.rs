//! What a replica owes such a client: its requests in the form that a machine takes, answers, and reads.

use crate::pbft::{Message, REQUESTS_MAX, Reply, Requests, Told};
use bytes::Bytes;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::protocol::QueryTicket;
use quorate_core::sessions::{self, Ruling};
use std::collections::BTreeMap;

/// Names a request.
pub(crate) type Key = (ClientId, SessionId, RequestNumber);

type Rulings = Vec<(RequestNumber, Told<Ruling>)>;

/// The requests of these groups, in their order.
pub(crate) fn requests<'a>(groups: impl Iterator<Item = &'a Requests>) -> Vec<sessions::Request> {
    let requests = groups.flat_map(|group| {
        group.requests.iter().map(|(number, body)| sessions::Request {
            client: group.client,
            session: group.session,
            number: *number,
            acknowledged: group.acknowledged,
            body: body.clone(),
        })
    });
    requests.collect()
}

/// Who answers each request of these groups in full; `None`: all do.
pub(crate) fn in_full<'a>(groups: impl Iterator<Item = &'a Requests>) -> BTreeMap<Key, Option<ReplicaId>> {
    let keys = groups.flat_map(|group| {
        group.requests.iter().map(|(number, _)| ((group.client, group.session, *number), group.full))
    });
    keys.collect()
}

/// What `me`, in `view`, tells clients of the entry `op`: each as many messages as their bound demands.
pub(crate) fn replies(
    (me, view, op): (ReplicaId, View, OpNumber),
    in_full: &BTreeMap<Key, Option<ReplicaId>>,
    replies: Vec<sessions::Reply>,
) -> Vec<(ClientId, Message)> {
    let mut of: BTreeMap<(ClientId, SessionId), Rulings> = BTreeMap::new();
    for reply in replies {
        let asked = in_full.get(&(reply.client, reply.session, reply.number)).copied().flatten();
        let told = Told::new(reply.ruling, asked.is_none_or(|replica| replica == me));
        of.entry((reply.client, reply.session)).or_default().push((reply.number, told));
    }
    let mut messages = Vec::new();
    for ((client, session), mut rulings) in of {
        while !rulings.is_empty() {
            let rest = rulings.split_off(rulings.len().min(REQUESTS_MAX));
            messages.push((client, Message::Reply(Reply { view, op, session, rulings })));
            rulings = rest;
        }
    }
    messages
}

/// Reads that wait or are being answered, at most; beyond it they are dropped, and the client has them ordered.
const READS_MAX: usize = 4096;
/// Of one client.
const CLIENT_READS_MAX: usize = 1024;
/// Bytes of their queries, of all and of one client: when there are so many, no more are taken.
const READS_BYTES_MAX: usize = 32 << 20;
const CLIENT_READS_BYTES_MAX: usize = 8 << 20;

/// A query that is not ordered.
#[derive(Debug)]
pub(crate) struct Read {
    /// Who asks.
    pub client: ClientId,
    /// The client's name for it.
    pub id: u64,
    /// In full, or its digest?
    pub full: bool,
    /// The machine's query.
    pub query: Bytes,
    /// Answered when the machine has been given this entry.
    pub after: OpNumber,
    /// Must it only reflect what the client has seen?
    pub stale: bool,
}

/// Reads that are not answered.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    waiting: Vec<Read>,
    asked: BTreeMap<QueryTicket, (Read, OpNumber)>,
    /// Reads, and bytes of their queries, of each client.
    by_client: BTreeMap<ClientId, (usize, usize)>,
    bytes: usize,
    next: u64,
}

impl Reads {
    /// Is there room for one more of this client's? Nobody's take more than what is left for others.
    ///
    /// # Errors
    ///
    /// [`Why::Busy`]: there is none.
    pub(crate) fn room(&self, client: ClientId) -> Result<(), Why> {
        let (of_client, bytes) = self.by_client.get(&client).copied().unwrap_or_default();
        let count = self.waiting.len().saturating_add(self.asked.len());
        let left = READS_BYTES_MAX.saturating_sub(self.bytes);
        let is_full = count >= READS_MAX || of_client >= CLIENT_READS_MAX;
        if is_full || bytes >= CLIENT_READS_BYTES_MAX.min(left) { Err(Why::Busy) } else { Ok(()) }
    }

    /// It waits for its entry. There must be [room](Reads::room).
    pub(crate) fn wait(&mut self, read: Read) {
        let (count, bytes) = self.by_client.entry(read.client).or_default();
        *count = count.saturating_add(1);
        *bytes = bytes.saturating_add(read.query.len());
        self.bytes = self.bytes.saturating_add(read.query.len());
        self.waiting.push(read);
    }

    /// Does none wait?
    pub(crate) const fn none_waits(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Entries after this one may never be: what waits for one of them waits for this one.
    pub(crate) fn after_at_most(&mut self, op: OpNumber) {
        self.waiting.iter_mut().for_each(|read| read.after = read.after.min(op));
    }

    /// What the machine is to be asked now that it has been given everything up to `given`: all reads that are `ready`. It answers
    /// after having executed that, so `given` is what the answer reflects: an earlier entry would let the client's next stale
    /// read go back.
    pub(crate) fn ask(&mut self, given: OpNumber, ready: impl Fn(&Read) -> bool) -> Vec<(QueryTicket, Bytes)> {
        let (ready, waiting): (Vec<Read>, _) = std::mem::take(&mut self.waiting).into_iter().partition(ready);
        self.waiting = waiting;
        let mut queries = Vec::with_capacity(ready.len());
        for read in ready {
            self.next = self.next.wrapping_add(1);
            let ticket = QueryTicket(self.next);
            queries.push((ticket, read.query.clone()));
            self.asked.insert(ticket, (read, given));
        }
        queries
    }

    /// The machine's answer, for whom it is; `None` if nobody waits for it any more.
    pub(crate) fn answer(&mut self, ticket: QueryTicket, answer: Bytes, view: View) -> Option<(ClientId, Message)> {
        let (read, op) = self.asked.remove(&ticket)?;
        self.forget(&read);
        let answer = Told::new(answer, read.full);
        Some((read.client, Message::ReadReply { view, id: read.id, op, answer }))
    }

    /// The machine was replaced: what it was asked will not be answered.
    pub(crate) fn forget_asked(&mut self) {
        for (read, _) in std::mem::take(&mut self.asked).into_values() {
            self.forget(&read);
        }
    }

    fn forget(&mut self, read: &Read) {
        self.bytes = self.bytes.saturating_sub(read.query.len());
        if let Some((count, bytes)) = self.by_client.get_mut(&read.client) {
            *count = count.saturating_sub(1);
            *bytes = bytes.saturating_sub(read.query.len());
            if *count == 0 {
                self.by_client.remove(&read.client);
            }
        }
    }
}
