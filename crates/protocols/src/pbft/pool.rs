//! Requests that wait to be executed. Whoever orders proposes them, the others watch that somebody does. Each client has a queue
//! of its own, with a limit of its own, and they take turns: nobody waits behind somebody else's flood. What a replica passes on is
//! in that replica's queue, and what it costs is that replica's: it may be anything that the client has ever signed. HotStuff's leaders and
//! the owners of asynchronous broadcast's lanes keep their requests in the same way.

use super::message::{Group, Orders, REQUESTS_MAX};
use quorate_core::ids::{ClientId, ReplicaId, RequestNumber, SessionId};
use quorate_core::sessions::OPERATION_BYTES_MAX;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;

/// Bytes that one request costs beside its operation, for budgets.
const REQUEST_OVERHEAD_BYTES: usize = 128;
/// What the largest group costs.
const GROUP_BYTES_MAX: usize = OPERATION_BYTES_MAX + REQUESTS_MAX * REQUEST_OVERHEAD_BYTES;

/// A request as the filter against repetitions knows it.
pub(crate) type Key = (ClientId, SessionId, RequestNumber);

/// In whose queue a group is: of the client that has asked over its own link, or of the replica that has passed it on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Holder {
    Client(ClientId),
    Replica(ReplicaId),
}

#[derive(Debug)]
struct Waiting {
    group: Group,
    holder: Holder,
    bytes: usize,
    /// Requests of it that are not executed.
    left: usize,
    /// Whoever orders now has been told of it from here.
    told: bool,
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
    /// Those that somebody waits for.
    watched: BTreeSet<u64>,
    /// Not proposed.
    ready: BTreeMap<Holder, VecDeque<u64>>,
    /// Bytes of each holder, and of all clients.
    held: BTreeMap<Holder, usize>,
    of_clients: usize,
    ready_requests: usize,
    ready_bytes: usize,
    next: u64,
    /// Whose turn it was last.
    served: Option<Holder>,
}

/// What each of so many clients may have of the room of all: the largest group at least.
pub(super) fn share(limit: usize, replicas: usize) -> usize {
    limit.checked_div(replicas).unwrap_or_default().max(GROUP_BYTES_MAX)
}

pub(crate) fn keys(group: &Group) -> impl Iterator<Item = Key> {
    let it = group.statement();
    it.requests.iter().map(|(number, _)| (it.client, it.session, *number))
}

impl Pool {
    /// The group that has been waited for longest, by its place in the order of arrival.
    pub(crate) fn oldest(&self) -> Option<u64> {
        self.watched.first().copied()
    }

    /// That group, unless whoever orders has been told of it from here. It counts as told from now on.
    pub(super) fn tell_oldest(&mut self) -> Option<Group> {
        let waiting = self.groups.get_mut(&self.oldest()?).filter(|it| !it.told)?;
        waiting.told = true;
        Some(waiting.group.clone())
    }

    /// Whoever orders is told of these.
    pub(super) fn tell(&mut self, group: &Group) {
        for place in self.places(group) {
            self.groups.entry(place).and_modify(|it| it.told = true);
        }
    }

    /// Where requests of this group wait.
    fn places(&self, group: &Group) -> BTreeSet<u64> {
        keys(group).filter_map(|key| self.keys.get(&key).copied()).collect()
    }

    /// Is there an entry's worth, or anything, to propose?
    pub(crate) const fn is_ready(&self, bytes: usize) -> (bool, bool) {
        let full = self.ready_bytes >= bytes || self.ready_requests >= REQUESTS_MAX;
        (full, self.ready_requests > 0)
    }

    /// Groups that clients have asked for here and that are not proposed, as many as fit.
    pub(crate) fn waiting(&self, bytes_max: usize) -> Vec<Group> {
        let mut bytes = 0_usize;
        let of_clients = self.ready.iter().filter(|(holder, _)| matches!(holder, Holder::Client(_)));
        let ready = of_clients.flat_map(|(_, queue)| queue).filter_map(|place| self.groups.get(place));
        let fits = ready.filter(|it| {
            let more = bytes.saturating_add(it.bytes);
            let fits = more <= bytes_max;
            bytes = if fits { more } else { bytes };
            fits
        });
        fits.map(|it| it.group.clone()).collect()
    }

    /// Takes a group from its client, unless all of its requests wait already, or are `known` for another reason. Bytes: that the
    /// groups of all clients, and those of one, may have. One that comes with little never meets a full house: nobody takes
    /// more than what is left for others.
    pub(crate) fn add(&mut self, group: Group, known: impl Fn(&Key) -> bool, limits: (usize, usize)) -> Added {
        let holder = Holder::Client(group.statement().client);
        for place in self.places(&group) {
            if !self.take_over(place, holder, limits) {
                return Added::Full;
            }
        }
        if keys(&group).all(|key| self.keys.contains_key(&key) || known(&key)) {
            return Added::Known;
        }
        if !self.has_room(holder, weight(&group), limits) {
            return Added::Full;
        }
        self.enter(group, holder, true);
        Added::New
    }

    /// Takes a group that a replica has passed on, within what one replica may have here, the largest group at least. If it is
    /// `watched`, somebody waits for it; else only when its client asks for it here.
    pub(crate) fn relay(&mut self, group: Group, by: ReplicaId, limit: usize, watched: bool) -> Added {
        let holder = Holder::Replica(by);
        if keys(&group).all(|key| self.keys.contains_key(&key)) {
            return Added::Known;
        }
        if self.held(holder).saturating_add(weight(&group)) > limit.max(GROUP_BYTES_MAX) {
            return Added::Full;
        }
        self.enter(group, holder, watched);
        Added::New
    }

    /// What a replica has passed on is asked for by its client. False if the client has no room for it.
    fn take_over(&mut self, place: u64, holder: Holder, limits: (usize, usize)) -> bool {
        let Some(waiting) = self.groups.get(&place).filter(|it| it.holder != holder) else { return true };
        let bytes = waiting.bytes;
        if !self.has_room(holder, bytes, limits) {
            return false;
        }
        let was_ready = self.unready(place);
        self.charge(place, false);
        self.groups.entry(place).and_modify(|it| it.holder = holder);
        self.charge(place, true);
        if was_ready {
            self.make_ready(place);
        }
        self.watched.insert(place);
        true
    }

    fn held(&self, holder: Holder) -> usize {
        self.held.get(&holder).copied().unwrap_or_default()
    }

    fn has_room(&self, client: Holder, bytes: usize, (limit, client_limit): (usize, usize)) -> bool {
        let left = limit.saturating_sub(self.of_clients);
        self.held(client).saturating_add(bytes) <= client_limit.min(left)
    }

    fn enter(&mut self, group: Group, holder: Holder, watched: bool) {
        self.next = self.next.saturating_add(1);
        let (place, bytes, mut left) = (self.next, weight(&group), 0_usize);
        for key in keys(&group) {
            self.keys.entry(key).or_insert_with(|| {
                left = left.saturating_add(1);
                place
            });
        }
        self.groups.insert(place, Waiting { group, holder, bytes, left, told: false });
        self.charge(place, true);
        self.make_ready(place);
        if watched {
            self.watched.insert(place);
        }
    }

    /// Puts a group's bytes on its holder's account, or takes them off.
    fn charge(&mut self, place: u64, on: bool) {
        let Some(Waiting { holder, bytes, .. }) = self.groups.get(&place) else { return };
        let changed = |sum: usize| if on { sum.saturating_add(*bytes) } else { sum.saturating_sub(*bytes) };
        if matches!(holder, Holder::Client(_)) {
            self.of_clients = changed(self.of_clients);
        }
        match changed(self.held.get(holder).copied().unwrap_or_default()) {
            0 => drop(self.held.remove(holder)),
            some => drop(self.held.insert(*holder, some)),
        }
    }

    fn make_ready(&mut self, place: u64) {
        let Some(waiting) = self.groups.get(&place) else { return };
        self.ready_requests = self.ready_requests.saturating_add(waiting.group.statement().requests.len());
        self.ready_bytes = self.ready_bytes.saturating_add(waiting.bytes);
        self.ready.entry(waiting.holder).or_default().push_back(place);
    }

    /// Takes groups to propose, one of each holder in turn, as many as fit; at least one if there is any.
    pub(crate) fn take(&mut self, requests_max: usize, bytes_max: usize) -> Vec<Group> {
        let (mut taken, mut bytes, mut requests) = (Vec::new(), 0_usize, 0_usize);
        loop {
            let after = self.served.map_or(Bound::Unbounded, Bound::Excluded);
            let next = self.ready.range((after, Bound::Unbounded)).next().or_else(|| self.ready.iter().next());
            let Some((holder, place)) = next.and_then(|(holder, queue)| Some((*holder, *queue.front()?))) else {
                break;
            };
            let Some(waiting) = self.groups.get(&place) else { break }; // what is ready is here
            let count = waiting.group.statement().requests.len();
            let more = (bytes.saturating_add(waiting.bytes), requests.saturating_add(count));
            if !taken.is_empty() && (more.0 > bytes_max || more.1 > requests_max) {
                break;
            }
            (bytes, requests) = more;
            taken.push(waiting.group.clone());
            self.unready(place);
            self.served = Some(holder);
        }
        taken
    }

    /// It is proposed, or done, or changes hands. Was it ready?
    fn unready(&mut self, place: u64) -> bool {
        let Some(waiting) = self.groups.get(&place) else { return false };
        let Some(queue) = self.ready.get_mut(&waiting.holder) else { return false };
        let before = queue.len();
        queue.retain(|it| *it != place);
        let was_ready = queue.len() < before;
        if queue.is_empty() {
            self.ready.remove(&waiting.holder);
        }
        if was_ready {
            self.ready_requests = self.ready_requests.saturating_sub(waiting.group.statement().requests.len());
            self.ready_bytes = self.ready_bytes.saturating_sub(waiting.bytes);
        }
        was_ready
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
        self.unready(place);
        self.charge(place, false);
        self.groups.remove(&place);
        self.watched.remove(&place);
    }

    /// Somebody has proposed them: they are not proposed again, unless that proposal loses.
    pub(crate) fn proposed(&mut self, orders: &Orders) {
        for key in orders.groups.iter().flat_map(keys) {
            if let Some(place) = self.keys.get(&key).copied() {
                self.unready(place);
            }
        }
    }

    /// Whatever was proposed may have lost, and another one orders: nothing that waits counts as proposed, or as told.
    pub(crate) fn propose_again(&mut self) {
        self.ready.clear();
        (self.ready_bytes, self.ready_requests) = (0, 0);
        for place in self.groups.keys().copied().collect::<Vec<_>>() {
            self.groups.entry(place).and_modify(|it| it.told = false);
            self.make_ready(place);
        }
    }
}

/// What a group costs.
fn weight(group: &Group) -> usize {
    let bodies = group.statement().requests.iter().map(|(_, body)| body.len().saturating_add(REQUEST_OVERHEAD_BYTES));
    bodies.fold(0, usize::saturating_add)
}
