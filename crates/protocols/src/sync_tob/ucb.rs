//! Unscheduled consensus broadcast (UCB): clients' requests reach everybody before they are ordered.
//!
//! A replica that has requests *casts* them: it picks the start τ and signs it, so that nobody needs a schedule. What has come
//! with the signatures of f + 1 replicas is in `UnQueued`: one of them is correct and has it, so everybody can get it. Which
//! signatures are made when is the back-end's choice ([`super::Broadcast`]); what the order needs is that all have it some day,
//! and that the block proves it.

use super::content::Bundle;
use super::message::{BUNDLE_BYTES_MAX, Cast, CastId, Chain, Echo, REQUESTS_MAX};
use super::order::Order;
use crate::pbft::Group;
use quorate_core::crypto::{Digest, Signed};
use quorate_core::ids::{ClientId, RecordSeq, ReplicaId};
use quorate_core::time::{Duration, Instant, WallTime};
use std::collections::{BTreeMap, VecDeque};

/// Casts of one sender that are known and not moved, at most. Beyond it, the sender has to wait.
pub(super) const CASTS_MAX: usize = 512;
/// Casts beyond that which are their sender's next: what was left of a life that is over, or has a gap, keeps out nothing that
/// would end it. A correct sender has one in each of its lives.
const NEXT_MAX: usize = 8;
/// Casts of mine that are not moved, at most: others have room for those of this life, and for as many of the one before.
const OWN_CASTS_MAX: usize = CASTS_MAX / 2;
/// Bytes that one request costs beside its operation, for budgets.
const REQUEST_OVERHEAD_BYTES: usize = 128;
/// Bytes of requests that one bundle gathers, unless a single group is longer.
const BUNDLE_BYTES: usize = 512 << 10;

/// Requests that were put off, since somebody else has cast them, and are remembered: beyond so many, and those of one group,
/// nobody is put off. They are forgotten after this time: no client waits so long before it asks again.
const PUT_OFF_MAX: usize = 4096;
const PUT_OFF_FOR: Duration = Duration::from_secs(60);

/// A request as the filter against repetitions knows it.
pub(super) use crate::quorum_client::replica::Key;

/// What became of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Gathered {
    New,
    Known,
    Full,
}

/// Something that was cast, and who has it.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) chain: Chain<Cast>,
    /// Have I signed it?
    pub(super) echo: Option<Signed<Echo<Cast>>>,
}

/// Everything that is not moved.
#[derive(Debug)]
pub(super) struct Ucb {
    /// `UnQueued`, and what is on its way into it.
    casts: BTreeMap<CastId, Known>,
    /// What was cast, by digest; also what is moved and still in the log.
    pub(super) bundles: BTreeMap<Digest, (Bundle, RecordSeq)>,
    /// Bytes of casts of each sender.
    held: BTreeMap<ReplicaId, usize>,
    /// Requests of my clients that are not cast.
    gathered: VecDeque<Group>,
    gathered_bytes: usize,
    /// Requests that I gathered or cast, with their weights.
    mine: BTreeMap<Key, usize>,
    clients: BTreeMap<ClientId, usize>,
    /// Requests that somebody else has cast, and when that came.
    others: BTreeMap<Key, WallTime>,
    /// Requests that were put off because of that, and when they were first.
    put_off: BTreeMap<Key, WallTime>,
    /// The life in which I cast, once it has begun, and what I cast next in it.
    life: Option<u64>,
    seq: u64,
    pub(super) cast_at: Option<Instant>,
}

fn keys(group: &Group) -> impl Iterator<Item = (Key, usize)> + '_ {
    let it = group.statement();
    it.requests
        .iter()
        .map(|(number, body)| ((it.client, it.session, *number), body.len().saturating_add(REQUEST_OVERHEAD_BYTES)))
}

impl Ucb {
    pub(super) fn new() -> Self {
        Self {
            casts: BTreeMap::new(),
            bundles: BTreeMap::new(),
            held: BTreeMap::new(),
            gathered: VecDeque::new(),
            gathered_bytes: 0,
            mine: BTreeMap::new(),
            clients: BTreeMap::new(),
            others: BTreeMap::new(),
            put_off: BTreeMap::new(),
            life: None,
            seq: 0,
            cast_at: None,
        }
    }

    /// Takes a client's requests, unless all of them are on their way, by me or, `since` then, by somebody else. A client is put
    /// off for that long once, whoever casts its requests how often meanwhile.
    pub(super) fn gather(
        &mut self,
        group: Group,
        (since, now): (WallTime, WallTime),
        limit: usize,
        client_limit: usize,
    ) -> Gathered {
        if self.put_off.len() >= PUT_OFF_MAX {
            self.put_off.retain(|_, at| now.since(*at) < PUT_OFF_FOR);
        }
        let room = self.put_off.len() < PUT_OFF_MAX;
        let may_wait = |key: &Key| self.put_off.get(key).map_or(room, |at| *at >= since);
        let is_cast = |key: &Key| self.others.get(key).is_some_and(|at| *at >= since);
        if keys(&group).all(|(key, _)| self.mine.contains_key(&key) || (is_cast(&key) && may_wait(&key))) {
            for (key, _) in keys(&group).filter(|(key, _)| !self.mine.contains_key(key)) {
                self.put_off.entry(key).or_insert(now);
            }
            return Gathered::Known;
        }
        let client = group.statement().client;
        let bytes = keys(&group).map(|(_, bytes)| bytes).fold(0, usize::saturating_add);
        let of_client = self.clients.get(&client).copied().unwrap_or_default();
        let all = self.clients.values().copied().fold(0, usize::saturating_add);
        if all.saturating_add(bytes) > limit || of_client.saturating_add(bytes) > client_limit {
            return Gathered::Full;
        }
        for (key, bytes) in keys(&group) {
            if self.mine.insert(key, bytes).is_none() {
                let sum = self.clients.entry(key.0).or_default();
                *sum = sum.saturating_add(bytes);
            }
        }
        self.gathered_bytes = self.gathered_bytes.saturating_add(bytes);
        self.gathered.push_back(group);
        Gathered::New
    }

    pub(super) fn has_gathered(&self) -> bool {
        !self.gathered.is_empty()
    }

    /// Takes what is to be cast next, with its name; `None` before a life has begun.
    pub(super) fn take(&mut self, me: ReplicaId) -> Option<(CastId, Bundle)> {
        let life = self.life?;
        let (mut groups, mut bytes, mut requests) = (Vec::new(), 0_usize, 0_usize);
        while let Some(group) = self.gathered.front() {
            let more = keys(group).map(|(_, bytes)| bytes).fold(0, usize::saturating_add);
            let count = requests.saturating_add(group.statement().requests.len());
            if !groups.is_empty() && (bytes.saturating_add(more) > BUNDLE_BYTES || count > REQUESTS_MAX) {
                break;
            }
            (bytes, requests) = (bytes.saturating_add(more), count);
            groups.extend(self.gathered.pop_front());
        }
        self.gathered_bytes = self.gathered_bytes.saturating_sub(bytes);
        let id = CastId { sender: me, life, seq: self.seq };
        self.seq = self.seq.saturating_add(1);
        Some((id, Bundle::new(groups)))
    }

    /// The life in which I cast, if one has begun.
    pub(super) const fn life(&self) -> Option<u64> {
        self.life
    }

    /// This life begins. What is cast in an earlier one and not moved is gathered again.
    pub(super) fn begin(&mut self, me: ReplicaId, life: u64) {
        let mine: Vec<CastId> = self.casts.keys().copied().filter(|id| id.sender == me).collect();
        for id in mine {
            if let Some((bundle, _)) = self.forget(id).and_then(|digest| self.bundles.get(&digest)) {
                let groups = bundle.content().clone();
                let bytes = groups.iter().flat_map(keys).map(|(_, bytes)| bytes).fold(0, usize::saturating_add);
                self.gathered_bytes = self.gathered_bytes.saturating_add(bytes);
                self.gathered.extend(groups);
            }
        }
        (self.life, self.seq) = (Some(life), 0);
    }

    pub(super) fn get(&self, id: CastId) -> Option<&Known> {
        self.casts.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: CastId) -> Option<&mut Known> {
        self.casts.get_mut(&id)
    }

    /// Is there room for something of this length by this sender? `is_next`: it can be moved before anything else of that sender.
    pub(super) fn has_room(&self, sender: ReplicaId, bytes: u64, is_next: bool, limit: usize) -> bool {
        let held = self.held.get(&sender).copied().unwrap_or_default();
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        let more = if is_next { NEXT_MAX } else { 0 };
        let (casts, limit) = (CASTS_MAX + more, limit.saturating_add(more * BUNDLE_BYTES_MAX));
        let count = self.of(sender).take(casts).count();
        count < casts && (held == 0 || held.saturating_add(bytes) <= limit)
    }

    /// Are as many of my casts under way as may be? What is left of a former life does not count: it is over.
    pub(super) fn is_waiting(&self, me: ReplicaId) -> bool {
        let under_way = self.of(me).filter(|(id, _)| Some(id.life) == self.life);
        under_way.take(OWN_CASTS_MAX).count() == OWN_CASTS_MAX
    }

    fn of(&self, sender: ReplicaId) -> impl Iterator<Item = (&CastId, &Known)> {
        let first = CastId { sender, life: 0, seq: 0 };
        let last = CastId { sender, life: u64::MAX, seq: u64::MAX };
        self.casts.range(first..=last)
    }

    /// Something that was cast becomes known.
    pub(super) fn insert(&mut self, chain: Chain<Cast>) {
        let cast = *chain.statement();
        let held = self.held.entry(cast.id.sender).or_default();
        *held = held.saturating_add(usize::try_from(cast.bytes).unwrap_or(usize::MAX));
        self.casts.insert(cast.id, Known { chain, echo: None });
    }

    /// What was cast is here.
    pub(super) fn hold(&mut self, bundle: Bundle, seq: RecordSeq, clock: WallTime, is_mine: bool) {
        if !is_mine {
            let all = bundle.content().iter().flat_map(keys);
            for (key, _) in all {
                self.others.entry(key).or_insert(clock);
            }
        }
        self.bundles.insert(bundle.digest(), (bundle, seq));
    }

    /// Is it in `UnQueued`?
    fn is_ready(&self, known: &Known, needed: usize) -> bool {
        known.chain.signers() >= needed && self.bundles.contains_key(&known.chain.statement().bundle)
    }

    /// Is anything in `UnQueued`?
    pub(super) fn any_ready(&self, needed: usize) -> bool {
        self.casts.values().any(|known| self.is_ready(known, needed))
    }

    /// Is anything known that is not moved, or waits to be cast?
    pub(super) fn is_empty(&self) -> bool {
        self.casts.is_empty() && self.gathered.is_empty()
    }

    /// What a leader orders: of each sender in turn what is next, as far as the bounds allow; `cast_by` is the latest start.
    pub(super) fn select(
        &self,
        order: &mut Order,
        needed: usize,
        cast_by: WallTime,
        (entries_max, bytes_max): (usize, u64),
    ) -> Vec<Chain<Cast>> {
        let (mut entries, mut bytes) = (Vec::new(), 0_u64);
        loop {
            let before = entries.len();
            for sender in (0..order.next.len()).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new) {
                let ready = |(id, known): &(&CastId, &Known)| {
                    order.is_next(**id) && self.is_ready(known, needed) && known.chain.statement().start <= cast_by
                };
                let Some((id, known)) = self.of(sender).find(ready) else { continue };
                let more = bytes.saturating_add(known.chain.statement().bytes);
                if entries.len() >= entries_max || (!entries.is_empty() && more > bytes_max) {
                    return entries;
                }
                bytes = more;
                order.take(*id);
                entries.push(known.chain.clone().shortened(needed)); // so many prove that a correct replica has it
            }
            if entries.len() == before {
                return entries;
            }
        }
    }

    /// A request was executed.
    pub(super) fn executed(&mut self, key: Key) {
        self.put_off.remove(&key);
        self.release(key);
    }

    fn release(&mut self, key: Key) {
        self.others.remove(&key);
        if let Some(bytes) = self.mine.remove(&key)
            && let Some(sum) = self.clients.get_mut(&key.0)
        {
            *sum = sum.saturating_sub(bytes);
            if *sum == 0 {
                self.clients.remove(&key.0);
            }
        }
    }

    /// Forgets the names of what was moved, and of what never will be. Returns what they stood for.
    pub(super) fn forget_closed(&mut self, order: &Order) -> Vec<Digest> {
        let closed: Vec<CastId> = self.casts.keys().copied().filter(|id| !order.is_open(*id)).collect();
        closed.into_iter().filter_map(|id| self.forget(id)).collect()
    }

    /// Drops a bundle that nobody will move. Its requests may be cast again.
    pub(super) fn drop_bundle(&mut self, digest: Digest) {
        if self.casts.values().any(|known| known.chain.statement().bundle == digest) {
            return; // it has another name, too
        }
        let lost = self.bundles.remove(&digest);
        for (key, _) in lost.iter().flat_map(|(bundle, _)| bundle.content().iter().flat_map(keys)) {
            self.release(key);
        }
    }

    fn forget(&mut self, id: CastId) -> Option<Digest> {
        let cast = *self.casts.remove(&id)?.chain.statement();
        if let Some(held) = self.held.get_mut(&id.sender) {
            *held = held.saturating_sub(usize::try_from(cast.bytes).unwrap_or(usize::MAX));
        }
        Some(cast.bundle)
    }

    /// Drops bundles that are neither known under a name nor wanted for something else.
    pub(super) fn keep_bundles(&mut self, wanted: impl Fn(&Digest) -> bool) {
        let named: std::collections::BTreeSet<Digest> =
            self.casts.values().map(|known| known.chain.statement().bundle).collect();
        self.bundles.retain(|digest, _| named.contains(digest) || wanted(digest));
    }

    /// What was cast and is not moved.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&CastId, &Known)> {
        self.casts.iter()
    }

    /// The machine has jumped: which requests were executed meanwhile is not known. Clients ask again.
    pub(super) fn forget_requests(&mut self) {
        self.others.clear();
        self.put_off.clear();
        self.mine.clear();
        self.clients.clear();
        self.gathered.clear();
        self.gathered_bytes = 0;
    }
}
