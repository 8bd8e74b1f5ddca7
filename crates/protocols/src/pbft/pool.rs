//! Requests that wait to be executed. A primary proposes them, a backup watches that somebody does. Each client has a queue
//! of its own, with a limit of its own, and they take turns: nobody waits behind somebody else's flood.

use super::message::{Group, REQUESTS_MAX};
use quorate_core::ids::{ClientId, RequestNumber, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that one request costs beside its operation, for budgets.
const REQUEST_OVERHEAD_BYTES: usize = 128;

/// A request as the filter against repetitions knows it.
pub(super) type Key = (ClientId, SessionId, RequestNumber);

#[derive(Debug)]
struct Waiting {
    group: Group,
    bytes: usize,
    /// Requests of it that are not executed.
    left: usize,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Known,
    Full,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Pool {
    /// In the order of arrival.
    groups: BTreeMap<u64, Waiting>,
    /// Which group a request belongs to.
    keys: BTreeMap<Key, u64>,
    /// Not proposed in this view, by client.
    ready: BTreeMap<ClientId, VecDeque<u64>>,
    client_bytes: BTreeMap<ClientId, usize>,
    bytes: usize,
    ready_requests: usize,
    ready_bytes: usize,
    next: u64,
    /// Whose turn it was last.
    served: ClientId,
}

fn keys(group: &Group) -> impl Iterator<Item = Key> {
    let it = group.statement();
    it.requests.iter().map(|(number, _)| (it.client, it.session, *number))
}

impl Pool {
    /// The group that has waited longest, by its place in the order of arrival.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.groups.keys().next().copied()
    }

    /// Is there an entry's worth, or anything, to propose?
    pub(super) fn is_ready(&self, bytes: usize) -> (bool, bool) {
        let full = self.ready_bytes >= bytes || self.ready_requests >= REQUESTS_MAX;
        (full, self.ready_requests > 0)
    }

    /// Takes a group, unless all of its requests wait already, or are among those that were `answered`.
    pub(super) fn add(&mut self, group: Group, answered: &[RequestNumber], limit: usize, client_limit: usize) -> Added {
        if keys(&group).all(|key| self.keys.contains_key(&key) || answered.contains(&key.2)) {
            return Added::Known;
        }
        let it = group.statement();
        let bytes =
            it.requests.iter().map(|(_, body)| body.len().saturating_add(REQUEST_OVERHEAD_BYTES)).sum::<usize>();
        let of_client = self.client_bytes.entry(it.client).or_default();
        if self.bytes.saturating_add(bytes) > limit || of_client.saturating_add(bytes) > client_limit {
            if *of_client == 0 {
                self.client_bytes.remove(&group.statement().client);
            }
            return Added::Full;
        }
        *of_client = of_client.saturating_add(bytes);
        self.bytes = self.bytes.saturating_add(bytes);
        self.next = self.next.saturating_add(1);
        let (place, client) = (self.next, it.client);
        let mut left = 0_usize;
        for key in keys(&group) {
            self.keys.entry(key).or_insert_with(|| {
                left = left.saturating_add(1);
                place
            });
        }
        self.ready_requests = self.ready_requests.saturating_add(it.requests.len());
        self.ready_bytes = self.ready_bytes.saturating_add(bytes);
        self.ready.entry(client).or_default().push_back(place);
        self.groups.insert(place, Waiting { group, bytes, left });
        Added::New
    }

    /// Takes groups to propose, one of each client in turn, as many as fit; at least one if there is any.
    pub(super) fn take(&mut self, bytes_max: usize) -> Vec<Group> {
        let (mut taken, mut bytes, mut requests) = (Vec::new(), 0_usize, 0_usize);
        loop {
            let next = self.ready.range(next_client(self.served)..).next().or_else(|| self.ready.iter().next());
            let Some((client, place)) = next.and_then(|(client, queue)| Some((*client, *queue.front()?))) else {
                break;
            };
            let Some(waiting) = self.groups.get(&place) else {
                self.unready(client, place);
                continue; // executed meanwhile
            };
            let count = waiting.group.statement().requests.len();
            let more = (bytes.saturating_add(waiting.bytes), requests.saturating_add(count));
            if !taken.is_empty() && (more.0 > bytes_max || more.1 > REQUESTS_MAX) {
                break;
            }
            (bytes, requests) = more;
            taken.push(waiting.group.clone());
            self.unready(client, place);
            self.served = client;
        }
        taken
    }

    fn unready(&mut self, client: ClientId, place: u64) {
        if let Some(queue) = self.ready.get_mut(&client) {
            let before = queue.len();
            queue.retain(|it| *it != place);
            let was_ready = queue.len() < before;
            if queue.is_empty() {
                self.ready.remove(&client);
            }
            if let Some(waiting) = self.groups.get(&place).filter(|_| was_ready) {
                self.ready_requests = self.ready_requests.saturating_sub(waiting.group.statement().requests.len());
                self.ready_bytes = self.ready_bytes.saturating_sub(waiting.bytes);
            }
        }
    }

    /// A request was executed. What waited for nothing else is done.
    pub(super) fn executed(&mut self, key: Key) {
        let Some(place) = self.keys.remove(&key) else { return };
        let Some(waiting) = self.groups.get_mut(&place) else { return };
        waiting.left = waiting.left.saturating_sub(1);
        if waiting.left == 0 {
            self.forget(place);
        }
    }

    /// A request with this name is done, whichever of the clients asked for it: for a protocol around this one, whose replicas are
    /// the clients and give the same thing the same name.
    pub(super) fn withdraw(&mut self, session: SessionId, number: RequestNumber) {
        let mut from = Some(ClientId::new(0));
        while let Some(client) = from {
            let next = self.keys.range((client, SessionId::ZERO, RequestNumber::ZERO)..).next();
            let Some((client, ..)) = next.map(|(key, _)| *key) else { return };
            self.executed((client, session, number));
            from = client.get().checked_add(1).map(ClientId::new);
        }
    }

    fn forget(&mut self, place: u64) {
        let Some(client) = self.groups.get(&place).map(|it| it.group.statement().client) else { return };
        self.unready(client, place);
        if let Some(waiting) = self.groups.remove(&place) {
            self.bytes = self.bytes.saturating_sub(waiting.bytes);
            if let Some(bytes) = self.client_bytes.get_mut(&client) {
                *bytes = bytes.saturating_sub(waiting.bytes);
                if *bytes == 0 {
                    self.client_bytes.remove(&client);
                }
            }
        }
    }

    /// A view has started: nothing that waits is proposed in it yet.
    pub(super) fn propose_again(&mut self) {
        self.ready.clear();
        (self.ready_bytes, self.ready_requests) = (0, 0);
        for (place, waiting) in &self.groups {
            self.ready.entry(waiting.group.statement().client).or_default().push_back(*place);
            self.ready_bytes = self.ready_bytes.saturating_add(waiting.bytes);
            self.ready_requests = self.ready_requests.saturating_add(waiting.group.statement().requests.len());
        }
    }
}

fn next_client(client: ClientId) -> ClientId {
    ClientId::new(client.get().saturating_add(1))
}
