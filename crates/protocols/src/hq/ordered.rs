//! Operations on several objects (A.8): PBFT puts them in one order, each freezes what it touches, as contention does, and the
//! resolutions that follow execute it at one place everywhere.
//!
//! PBFT orders ⟨ORDERED, op⟩: from there on nobody executes anything on the objects that it names, and all tell what they have
//! of them (START). The next resolution of each object, ordered by PBFT too, takes it to one state everywhere, as always, and
//! ends the list L with the operations that have waited for the object, in PBFT's order. When an operation is the next one on
//! all of its objects, a replica grants it; when a quorum has, the machine does it in one step.
//!
//! Guarantees that a replica shows an operation on all of its objects or on none: one that has fetched a part of it
//! does not answer for the rest before that is here, too. The README argues that this is linearizable, beside
//! single-object writes on the same objects.

use super::Outbox;
use super::cut::Cut;
use super::durable::{Joined, Record};
use super::message::{Ask, Message, Ordered, ReadRequest, object_of};
use super::module::Entry;
use super::object::{Item, OUTCOMES_MAX, Object, Outcome, Phase, Plan, Resolving, Stage};
use super::replica::{Behind, Moving, Replica};
use super::turn::Turn;
use crate::pbft::Told;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, Position, RecordSeq, RequestNumber};
use quorate_core::mutated;
use quorate_core::objects::{Step, Stepped};
use quorate_core::outbox::{Class, Note};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Clients whose last operation on several objects is remembered; one more, and the one that PBFT ordered first is forgotten.
pub const ORDERED_CLIENTS_MAX: usize = 256;
/// Operations that wait for the next resolution of one object, at most; one more is not ordered, and its client asks again.
pub(super) const QUEUED_MAX: usize = 16;
/// Operations that wait for a resolution of any object, at most; as above.
const OPEN_MAX: usize = 256;
/// Operations that clients have asked this replica for and that PBFT has not ordered, at most; beyond it, they ask again.
const WAITING_MAX: usize = 1024;
/// Bytes of these that a replica has handed to PBFT and that are not ordered, at most, if they are more than one; and of each client one.
const HANDED_BYTES_MAX: usize = 64 << 10;
/// Reads of several objects that wait until no operation is here in part only, at most; beyond it, clients ask again.
const READS_MAX: usize = 256;

/// A place in PBFT's order: the entry, and the number of the request within it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Rank {
    /// The entry.
    pub entry: OpNumber,
    /// Which of its requests, from 0.
    pub index: u32,
}

/// An operation that PBFT has ordered and this replica has not executed.
#[derive(Debug)]
struct Pending {
    ordered: Ordered,
    /// Its objects, in the order of their names.
    objects: Vec<Digest>,
    /// It was the next one on all of them, and so it was granted.
    granted: bool,
}

/// The last operation of a client.
#[derive(Debug)]
struct Last {
    number: RequestNumber,
    rank: Rank,
}

/// What the last operation of a client came to: executed here, or as the objects say that are had from others.
#[derive(Clone, Debug)]
pub(super) struct Came {
    pub(super) number: RequestNumber,
    pub(super) result: Told<Bytes>,
    /// The record that says so.
    pub(super) seq: RecordSeq,
}

/// What a replica knows of operations on several objects. `last`, `forgotten`, `queued` and `open` follow from PBFT's order
/// alone, and are the same everywhere at the same entry.
#[derive(Debug, Default)]
pub(super) struct Across {
    last: BTreeMap<ClientId, Last>,
    /// Whoever is not in `last` has had nothing ordered after this entry.
    forgotten: OpNumber,
    /// What waits for the next resolution of each object.
    queued: BTreeMap<Digest, Vec<Rank>>,
    /// How many objects of an operation are still to be resolved.
    open: BTreeMap<Rank, usize>,
    /// Not executed here.
    pending: BTreeMap<Rank, Pending>,
    /// What the last operation of a client came to, as far as it is known here.
    results: BTreeMap<ClientId, Came>,
    /// Asked for and not ordered.
    waiting: BTreeMap<ClientId, Ordered>,
    /// Handed to PBFT here and not ordered, as far as is known: whose, and how many bytes.
    handed: BTreeMap<RequestNumber, (ClientId, usize)>,
    /// Whose there was no room for, and who is next.
    held: BTreeSet<ClientId>,
    next_held: Turn<ClientId>,
    /// Who is next of those that wait.
    next_waiting: Turn<ClientId>,
    reads: VecDeque<(ClientId, ReadRequest)>,
    /// The last entry of PBFT that this replica has gone through.
    pub(super) through: OpNumber,
    /// The last entry that what is on its disk knows of, or what it has from others.
    pub(super) known: OpNumber,
}

impl Across {
    /// As the disk has it; the rest is in PBFT's order.
    pub(super) fn restored(results: BTreeMap<ClientId, Came>, known: OpNumber) -> Self {
        Self { results, known, ..Self::default() }
    }

    pub(super) fn is_queued(&self, id: Digest) -> bool {
        self.queued.contains_key(&id)
    }

    /// The objects for which something is.
    pub(super) fn queued(&self) -> impl Iterator<Item = &Digest> {
        self.queued.keys()
    }

    /// Has something been ordered that this object has not been through, and that no resolution has taken yet?
    pub(super) fn waits_for(&self, id: Digest, joined: Rank) -> bool {
        self.queued.get(&id).is_some_and(|ranks| ranks.iter().any(|rank| *rank > joined))
    }

    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// How many results are known.
    pub(super) fn results(&self) -> usize {
        self.results.len()
    }

    /// The result that was written down first, and where.
    pub(super) fn oldest_result(&self) -> Option<(RecordSeq, ClientId)> {
        self.results.iter().map(|(client, came)| (came.seq, *client)).min()
    }

    /// Writes a result down anew.
    pub(super) fn keep_result(&mut self, client: ClientId, out: &mut Outbox) {
        let Some(came) = self.results.get_mut(&client) else { return };
        let record = Record::Came { client, number: came.number, result: came.result.clone() };
        came.seq = out.persist(Class::Promise, record);
    }

    fn is_over(&self, ordered: &Ordered) -> bool {
        let ask = ordered.ask();
        match self.last.get(&ask.client) {
            Some(last) => last.number >= ask.number && !mutated!("hq/orders-a-request-twice"),
            None => ask.after < self.forgotten,
        }
    }

    /// Does an operation wait for a resolution of one of its objects?
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// The last operation of each client, and the entry up to which others are forgotten.
    pub(super) fn clients(&self) -> (BTreeMap<ClientId, (RequestNumber, Rank)>, OpNumber) {
        (self.last.iter().map(|(client, it)| (*client, (it.number, it.rank))).collect(), self.forgotten)
    }

    /// PBFT's order is at this cut: nothing waits, and what is here in part comes with the objects.
    pub(super) fn install(&mut self, cut: &Cut) {
        let last = cut.clients.iter().map(|(client, (number, rank))| (*client, Last { number: *number, rank: *rank }));
        (self.last, self.forgotten) = (last.collect(), cut.forgotten);
        self.queued.clear();
        self.open.clear();
        self.pending.clear();
        self.reads.clear();
        (self.through, self.known) = (cut.op, self.known.max(cut.op));
    }

    /// PBFT has ordered a request of this replica.
    pub(super) fn ordered(&mut self, number: RequestNumber) {
        self.handed.remove(&number);
    }

    /// May this one's be handed to PBFT now?
    fn may_hand_over(&self, client: ClientId, bytes: usize) -> bool {
        let handed = self.handed.values().map(|(_, bytes)| *bytes).fold(bytes, usize::saturating_add);
        let is_alone = self.handed.values().all(|(of, _)| *of != client);
        is_alone && (self.handed.is_empty() || handed <= HANDED_BYTES_MAX)
    }

    fn has_room(&self, ordered: &Ordered) -> bool {
        let is_full = |name: &Bytes| self.queued.get(&object_of(name)).is_some_and(|it| it.len() >= QUEUED_MAX);
        let former = self.last.get(&ordered.ask().client); // of each client one: a liar's take nobody else's room
        let is_open = former.is_some_and(|former| self.open.contains_key(&former.rank));
        !is_open && self.open.len() < OPEN_MAX && !ordered.names.iter().any(is_full)
    }

    /// A client's operation was ordered; one client is forgotten if there are too many.
    fn remember(&mut self, client: ClientId, number: RequestNumber, rank: Rank) {
        self.last.insert(client, Last { number, rank });
        if self.last.len() > ORDERED_CLIENTS_MAX
            && let Some((oldest, entry)) =
                self.last.iter().min_by_key(|(_, it)| it.rank).map(|(client, it)| (*client, it.rank.entry))
        {
            self.last.remove(&oldest);
            self.results.remove(&oldest);
            self.forgotten = self.forgotten.max(entry.next());
        }
    }
}

/// Until PBFT has ordered it.
impl Replica {
    /// Has PBFT here not come to what its objects have been through? Then an operation may be here in part without this replica
    /// knowing which, and PBFT may give the places of an object: clients are not answered.
    pub(super) fn catches_up(&self) -> bool {
        self.across.through < self.across.known || self.cuts.lags()
    }

    /// Does the disk, or do `f + 1` others, know of entries of PBFT that this replica has not come to, and needs?
    pub(super) fn lacks_entries(&self) -> bool {
        let entries = |behind: &Behind| behind.told.values().map(|it| it.now.joined.entry).collect::<Vec<_>>();
        let told = self.behind.values().filter_map(|behind| self.quorums.vouched(entries(behind)));
        told.chain([self.across.known]).any(|entry| entry > self.across.through)
    }

    /// ⟨ORDERED, names, op⟩ from a client: PBFT's primary has it ordered at once, the others when that takes long.
    pub(super) fn on_ordered(&mut self, from: ClientId, ordered: Ordered, out: &mut Outbox) {
        let (ask, peer) = (*ordered.ask(), Peer::Client(from));
        if ask.client != from {
            return out.ignore(peer, Why::NotForSender);
        }
        if self.across.is_over(&ordered) {
            return self.tell_ordered(from, ask.number, out);
        }
        if self.across.waiting.len() >= WAITING_MAX && !self.across.waiting.contains_key(&from) {
            return out.ignore(peer, Why::Busy);
        }
        let is_new = self.across.waiting.get(&from).is_none_or(|known| known.ask().number < ask.number);
        if !is_new {
            return out.ignore(peer, Why::Duplicate);
        }
        self.across.waiting.insert(from, ordered);
        if self.primary() == self.me && !self.hand_ordered_over(from, out) {
            self.across.held.insert(from);
        }
        self.expect_progress(out);
    }

    /// What is known of a client's operation that is over, or older than what is remembered.
    fn tell_ordered(&self, client: ClientId, number: RequestNumber, out: &mut Outbox) {
        let peer = Peer::Client(client);
        if self.lives.is_rejoining() {
            return out.ignore(peer, Why::NotNow);
        }
        match self.across.last.get(&client) {
            Some(last) if last.number > number => out.ignore(peer, Why::Duplicate),
            Some(last) if self.across.pending.contains_key(&last.rank) => out.ignore(peer, Why::Busy),
            Some(_) => {
                let known = self.across.results.get(&client).filter(|it| it.number == number);
                let result = known.map(|it| it.result.clone());
                out.send(peer, Message::OrderedDone { number, result });
            }
            None => out.send(peer, Message::OrderedTooOld { number, at: self.across.forgotten }),
        }
    }

    /// What was asked of this replica and is not ordered yet (R3: PBFT watches its primary).
    pub(super) fn submit_waiting(&mut self, most: usize, out: &mut Outbox) {
        self.across.handed.clear(); // perhaps PBFT had no room for it
        let Across { waiting, next_waiting, .. } = &mut self.across;
        let mut last = None;
        for (index, client) in next_waiting.order(waiting.keys().copied()).into_iter().enumerate() {
            if index >= most || !self.hand_ordered_over(client, out) {
                last.into_iter().for_each(|last| self.across.next_waiting.stop_at(last));
                return;
            }
            last = Some(client);
        }
    }

    /// At the end of a turn: PBFT's primary hands over what there was no room for, one client after the other.
    pub(super) fn submit_held(&mut self, out: &mut Outbox) {
        if self.across.held.is_empty() || self.primary() != self.me {
            return self.across.held.clear();
        }
        let Across { held, next_held, .. } = &mut self.across;
        let mut last = None;
        for client in next_held.order(held.iter().copied()) {
            if self.across.waiting.contains_key(&client) && !self.hand_ordered_over(client, out) {
                last.into_iter().for_each(|last| self.across.next_held.stop_at(last));
                return;
            }
            self.across.held.remove(&client);
            last = Some(client);
        }
    }

    /// Has what a client waits for ordered; false if so much is under way that it has to wait.
    fn hand_ordered_over(&mut self, client: ClientId, out: &mut Outbox) -> bool {
        let Some(ordered) = self.across.waiting.get(&client) else { return true };
        let bytes = ordered.names.iter().map(Bytes::len).fold(ordered.operation.len(), usize::saturating_add);
        if !self.across.may_hand_over(client, bytes) {
            return false;
        }
        let entry = Entry::Ordered(Box::new(ordered.clone()));
        let number = RequestNumber::new(self.requests).next();
        self.across.handed.insert(number, (client, bytes));
        self.submit_entry(&entry, out);
        true
    }
}

/// In PBFT's order.
impl Replica {
    /// PBFT has ordered an operation on several objects: they are frozen, here as everywhere.
    pub(super) fn on_decided_ordered(&mut self, rank: Rank, ordered: Ordered, out: &mut Outbox) {
        let mut ordered = ordered;
        if ordered.prove(&self.keyring).is_err() {
            return out.ignore(self.me(), Why::NotNow); // a liar had it ordered
        }
        let ask = *ordered.ask();
        let is_over = self.across.is_over(&ordered);
        if !is_over && (!self.across.has_room(&ordered) || self.cut_is_overdue(rank.entry)) {
            return out.ignore(self.me(), Why::Busy); // it waits, and is ordered again
        }
        if self.across.waiting.get(&ask.client).is_some_and(|known| known.ask().number <= ask.number) {
            self.across.waiting.remove(&ask.client);
        }
        if is_over {
            return out.ignore(self.me(), Why::Duplicate); // several replicas have asked for it
        }
        self.across.remember(ask.client, ask.number, rank);
        let objects: Vec<Digest> = ordered.names.iter().map(|name| self.object(name).0).collect();
        for id in &objects {
            self.across.queued.entry(*id).or_default().push(rank);
            self.end_order(*id, rank.entry, out);
        }
        self.across.open.insert(rank, objects.len());
        if objects.iter().all(|id| self.is_past(*id, rank)) {
            return self.recall(rank, &objects, out); // before a restart
        }
        self.across.pending.insert(rank, Pending { ordered, objects: objects.clone(), granted: false });
        out.note(Note::Other("objects are frozen: an operation touches several"));
        objects.into_iter().for_each(|id| self.proceed(id, out));
        self.run_ordered(rank, out);
    }

    /// An object is resolved: what has waited for that comes after what its clients have asked for.
    pub(super) fn take_queued(&mut self, id: Digest) -> Vec<Item> {
        let ranks = self.across.queued.remove(&id).unwrap_or_default();
        for rank in &ranks {
            let is_last = match self.across.open.get_mut(rank) {
                Some(left) => {
                    *left = left.saturating_sub(1);
                    *left == 0
                }
                None => false,
            };
            if is_last {
                self.across.open.remove(rank);
            }
        }
        ranks.into_iter().filter_map(|rank| Some(Item { ask: self.ask_of(rank, id)?, ordered: Some(rank) })).collect()
    }

    /// What is granted of an operation on one of its objects.
    fn ask_of(&self, rank: Rank, object: Digest) -> Option<Ask> {
        let ask = self.across.pending.get(&rank)?.ordered.ask();
        Some(Ask { client: ask.client, object, number: ask.number, hash: ask.hash, after: Position::ZERO })
    }
}

/// Execution.
impl Replica {
    /// Has this object been through an operation? Those of one object are executed in their order.
    fn is_past(&self, id: Digest, rank: Rank) -> bool {
        self.objects.get(&id).is_some_and(|object| object.now.joined >= rank)
    }

    /// The resolution and the list in which it is the next one on this object, if it is.
    fn next(&self, id: Digest, rank: Rank) -> Option<(&Resolving, &Plan)> {
        let Phase::Resolving(resolving) = &self.objects.get(&id)?.phase else { return None };
        let Stage::Granting(plan) = &resolving.stage else { return None };
        let item = plan.list.items.get(plan.executed).filter(|item| item.ordered == Some(rank))?;
        assert!(item.ask.object == id, "an item is of the object whose list it is in");
        Some((resolving, plan))
    }

    /// Where it comes on this object, if it is the next one there and a quorum has granted it.
    fn granted_place(&self, id: Digest, rank: Rank) -> Option<Position> {
        let (resolving, plan) = self.next(id, rank)?;
        resolving.proof(plan, plan.executed, self.quorum())?;
        Some(plan.list.first.plus(plan.executed as u64))
    }

    /// Is it the next one on all of its objects here?
    pub(super) fn is_reached(&self, rank: Rank) -> bool {
        let pending = self.across.pending.get(&rank);
        pending.is_some_and(|it| it.objects.iter().all(|id| self.next(*id, rank).is_some()))
    }

    /// Executes an operation if it is the next one on all of its objects. One that others have executed and that came with one
    /// object from them comes with the others, too.
    pub(super) fn run_ordered(&mut self, rank: Rank, out: &mut Outbox) {
        let Some(pending) = self.across.pending.get(&rank) else { return };
        let objects = pending.objects.clone();
        let (past, here): (Vec<Digest>, Vec<Digest>) = objects.iter().partition(|id| self.is_past(**id, rank));
        if here.is_empty() {
            return self.over(rank, None, out);
        }
        if !past.is_empty() {
            return here.into_iter().for_each(|id| self.fall_behind(id, out));
        }
        if !self.is_reached(rank) {
            return;
        }
        let Some(pending) = self.across.pending.get_mut(&rank) else { return };
        if !std::mem::replace(&mut pending.granted, true) {
            objects.iter().for_each(|id| self.say_grants(*id, out));
        }
        let places: Option<Vec<Position>> = objects.iter().map(|id| self.granted_place(*id, rank)).collect();
        let (Some(places), Some(pending)) = (places, self.across.pending.get(&rank)) else { return };
        let touched = pending.ordered.names.iter().cloned().zip(places).collect();
        let step = Step::Across { objects: touched, operation: pending.ordered.operation.clone() };
        if !self.step_across(rank, &objects, step, out) {
            return; // when the snapshot is done
        }
        for id in objects {
            let Some(Object { phase: Phase::Resolving(it), .. }) = self.objects.get_mut(&id) else { continue };
            if let Stage::Granting(plan) = std::mem::replace(&mut it.stage, Stage::Reaching) {
                it.stage = Stage::Joining(plan);
            }
        }
    }

    fn step_across(&mut self, rank: Rank, objects: &[Digest], step: Step, out: &mut Outbox) -> bool {
        if self.steps.barrier {
            self.steps.stalled.extend(objects);
            return false;
        }
        self.steps.asked = self.steps.asked.next();
        self.steps.moving.insert(self.steps.asked, Moving::Several(rank));
        out.step(self.steps.asked, step);
        true
    }

    /// The machine has executed an operation on several objects: it is written down, for all of them in one record.
    pub(super) fn stepped_across(&mut self, op: OpNumber, rank: Rank, stepped: Stepped, out: &mut Outbox) {
        let Some(pending) = self.across.pending.get(&rank) else { return };
        let (objects, names) = (pending.objects.clone(), pending.ordered.names.clone());
        let (ask, operation) = (*pending.ordered.ask(), pending.ordered.operation.clone());
        let (quorum, mut joined, mut changed) = (self.quorum(), Vec::new(), Vec::new());
        let result = stepped.replies.into_iter().next().unwrap_or_default();
        let told = Told::Full(result.clone());
        let outcome = Outcome { client: ask.client, number: ask.number, result: told.digest() };
        for (id, name) in objects.iter().zip(names) {
            let Some(object) = self.objects.get_mut(id) else { continue };
            let Phase::Resolving(mut it) = std::mem::replace(&mut object.phase, Phase::Free) else { continue };
            let former = object.now.version();
            if let Stage::Joining(mut plan) = std::mem::replace(&mut it.stage, Stage::Reaching) {
                if let Some(proof) = it.proof(&plan, plan.executed, quorum) {
                    object.join(proof.clone(), rank, outcome);
                    joined.push(Joined { name, proof });
                    changed.push((*id, former, object.now.version()));
                }
                plan.executed = plan.executed.saturating_add(1);
                it.stage = Stage::Granting(plan);
            }
            object.phase = Phase::Resolving(it);
        }
        assert_eq!(
            joined.len(),
            objects.len(),
            "an operation was granted on all of its objects before it was executed"
        );
        let (client, number) = (ask.client, ask.number);
        let record = Record::Ordered { op, rank, client, number, operation, result, joined };
        let seq = out.next_seq();
        if !mutated!("hq/ordered-execution-is-not-durable") {
            out.persist(Class::Promise, record);
            self.steps.records.push_back((op, seq));
            objects.iter().for_each(|id| self.recorded(*id, seq));
        }
        out.note(Note::Committed(op));
        changed.into_iter().for_each(|(id, from, to)| self.changed(id, from, to, out));
        self.over(rank, Some((told, seq)), out);
        self.after_step(out);
        objects.into_iter().for_each(|id| self.proceed(id, out));
    }

    /// An operation is on all of its objects here.
    fn over(&mut self, rank: Rank, result: Option<(Told<Bytes>, RecordSeq)>, out: &mut Outbox) {
        let Some(Pending { ordered, objects, .. }) = self.across.pending.remove(&rank) else { return };
        let (client, number) = (ordered.ask().client, ordered.ask().number);
        if self.across.last.get(&client).is_some_and(|last| last.rank == rank) {
            match result {
                Some((result, seq)) => drop(self.across.results.insert(client, Came { number, result, seq })),
                None => self.recall(rank, &objects, out),
            }
            self.tell_ordered(client, number, out);
        }
        if !self.is_torn() {
            let reads: Vec<_> = std::mem::take(&mut self.across.reads).into();
            reads.into_iter().for_each(|(client, read)| self.on_read(client, read, out));
        }
    }

    /// An operation was not executed here, or that was forgotten: `f + 1` replicas who gave an object have said with it what the
    /// operation came to. The digest is enough: whoever has executed it tells its client the whole.
    fn recall(&mut self, rank: Rank, objects: &[Digest], out: &mut Outbox) {
        let carried = |id: &Digest| self.objects.get(id)?.now.outcomes.get(&rank).copied();
        let Some(Outcome { client, number, result }) = objects.iter().find_map(carried) else { return };
        if self.across.results.get(&client).is_none_or(|known| known.number < number) {
            let result = Told::Digest(result);
            let seq = out.persist(Class::Promise, Record::Came { client, number, result: result.clone() });
            self.across.results.insert(client, Came { number, result, seq });
        }
    }

    /// The same for all that an object says, when this replica has not gone through the entries that ordered it.
    pub(super) fn recall_all(&mut self, id: Digest, out: &mut Outbox) {
        let outcomes = self.objects.get(&id).map(|object| object.now.outcomes.clone()).unwrap_or_default();
        let is_last =
            |rank: &Rank, it: &Outcome| self.across.last.get(&it.client).is_some_and(|last| last.rank == *rank);
        let last: Vec<Rank> = outcomes.iter().filter(|(rank, it)| is_last(rank, it)).map(|(rank, _)| *rank).collect();
        last.into_iter().for_each(|rank| self.recall(rank, &[id], out));
    }

    /// An object was replaced by what others have: perhaps they have been through operations that wait here.
    pub(super) fn check_ordered(&mut self, id: Digest, out: &mut Outbox) {
        let pending = self.across.pending.iter();
        let ranks: Vec<Rank> = pending.filter(|(_, it)| it.objects.contains(&id)).map(|(rank, _)| *rank).collect();
        ranks.into_iter().for_each(|rank| self.run_ordered(rank, out));
    }

    /// Is an operation here in part, or may it be, since an object of it is being replaced?
    fn is_torn(&self) -> bool {
        self.across.pending.iter().any(|(rank, pending)| {
            let is_moving = |id: &Digest| self.objects.get(id).is_some_and(|it| matches!(it.phase, Phase::Taking(_)));
            pending.objects.iter().any(|id| is_moving(id) || self.is_past(*id, *rank))
        })
    }

    /// A read of several objects waits while an operation is here in part. False if it need not.
    pub(super) fn wait_whole(&mut self, from: ClientId, read: &ReadRequest, out: &mut Outbox) -> bool {
        if read.name.is_some() || !self.is_torn() {
            return false;
        }
        if self.across.reads.len() >= READS_MAX {
            out.ignore(Peer::Client(from), Why::Busy);
        } else {
            self.across.reads.push_back((from, read.clone()));
        }
        true
    }

    /// After a restart, when PBFT is where it was: what the disk knows of clients that were forgotten is of no use.
    pub(super) fn forget_results(&mut self) {
        if self.across.through != self.across.known {
            return;
        }
        let known: BTreeSet<ClientId> = self.across.last.keys().copied().collect();
        self.across.results.retain(|client, _| known.contains(client));
    }
}

impl Object {
    /// An operation on several objects was executed here. Nobody takes it back: who has frozen the object after it has been
    /// through the resolution that brought it, and so has it.
    pub(super) fn join(&mut self, proof: super::Proof, rank: Rank, outcome: Outcome) {
        self.now.at = proof.statement().version;
        self.now.proof = Some(proof);
        self.now.last = None;
        self.now.joined = rank;
        self.now.outcomes.insert(rank, outcome);
        if self.now.outcomes.len() > OUTCOMES_MAX {
            self.now.outcomes.pop_first();
        }
        self.before = None;
        self.grant = None;
    }
}
