//! Requests that wait to be executed. Whoever orders proposes them, the others watch that somebody does. Each client has a queue
//! of its own, with a limit of its own, and they take turns: nobody waits behind somebody else's flood. HotStuff's leaders and
//! the owners of asynchronous broadcast's lanes keep their requests in the same way.

use super::message::{Group, Orders, REQUESTS_MAX};
use quorate_core::ids::{ClientId, RequestNumber, SessionId};
use std::collections::{BTreeMap, VecDeque};

/// Bytes that one request costs beside its operation, for budgets.
const REQUEST_OVERHEAD_BYTES: usize = 128;

/// A request as the filter against repetitions knows it.
pub(crate) type Key = (ClientId, SessionId, RequestNumber);

#[derive(Debug)]
struct Waiting {
    group: Group,
    bytes: usize,
    /// Requests of it that are not executed.
    left: usize,
}

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Added {
    New,
    Known,
    Full,
}

/// The requests that wait.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    /// In the order of arrival.
    groups: BTreeMap<u64, Waiting>,
    /// Which group a request belongs to.
    keys: BTreeMap<Key, u64>,
    /// Not proposed, by client.
    ready: BTreeMap<ClientId, VecDeque<u64>>,
    client_bytes: BTreeMap<ClientId, usize>,
    bytes: usize,
    ready_requests: usize,
    ready_bytes: usize,
    next: u64,
    /// Whose turn it was last.
    served: ClientId,
}

pub(crate) fn keys(group: &Group) -> impl Iterator<Item = Key> {
    let it = group.statement();
    it.requests.iter().map(|(number, _)| (it.client, it.session, *number))
}

impl Pool {
    /// The group that has waited longest, by its place in the order of arrival.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.groups.keys().next().copied()
    }

    /// Is there an entry's worth, or anything, to propose?
    pub(crate) const fn is_ready(&self, bytes: usize) -> (bool, bool) {
        let full = self.ready_bytes >= bytes || self.ready_requests >= REQUESTS_MAX;
        (full, self.ready_requests > 0)
    }

    /// Groups that are not proposed, in the order of arrival, as many as fit.
    pub(crate) fn waiting(&self, bytes_max: usize) -> Vec<Group> {
        let mut bytes = 0_usize;
        let ready = self.ready.values().flatten().filter_map(|place| self.groups.get(place));
        let fits = ready.take_while(|it| {
            bytes = bytes.saturating_add(it.bytes);
            bytes <= bytes_max
        });
        fits.map(|it| it.group.clone()).collect()
    }

    /// Takes a group, unless all of its requests wait already, or are `known` for another reason. Bytes: that all groups, and
    /// those of one client, may have.
    pub(crate) fn add(
        &mut self,
        group: Group,
        known: impl Fn(&Key) -> bool,
        (limit, client_limit): (usize, usize),
    ) -> Added {
        if keys(&group).all(|key| self.keys.contains_key(&key) || known(&key)) {
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
    pub(crate) fn take(&mut self, requests_max: usize, bytes_max: usize) -> Vec<Group> {
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
            if !taken.is_empty() && (more.0 > bytes_max || more.1 > requests_max) {
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
    pub(crate) fn executed(&mut self, key: Key) {
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
        let Some(client) = self.client_of(place) else { return };
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

    /// Somebody has proposed them: they are not proposed again, unless that proposal loses.
    pub(crate) fn proposed(&mut self, orders: &Orders) {
        for key in orders.groups.iter().flat_map(keys) {
            let place = self.keys.get(&key).copied();
            if let Some((client, place)) = place.and_then(|it| Some((self.client_of(it)?, it))) {
                self.unready(client, place);
            }
        }
    }

    fn client_of(&self, place: u64) -> Option<ClientId> {
        self.groups.get(&place).map(|it| it.group.statement().client)
    }

    /// Whatever was proposed may have lost: nothing that waits counts as proposed.
    pub(crate) fn propose_again(&mut self) {
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
