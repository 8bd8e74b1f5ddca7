//! What follows from a quorum of STARTs (A.6, R4), the same on every replica: all go to the greatest certificate that one of
//! them shows, taking back one write if need be; the requests in them get their places in one order; a quorum's grants for
//! these are certificates like any other.

use super::Outbox;
use super::durable::Asked;
use super::message::{Ask, GRANTS_MAX, Grant, Message, Start, Version};
use super::object::{Base, Item, List, Object, Phase, Plan, Resolving, Stage, State};
use super::ordered::{QUEUED_MAX, Rank};
use super::replica::Replica;
use quorate_core::crypto::{ClientKey, Digest, Evidence, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::objects::{Step, Stepped};
use quorate_core::outbox::Note;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

impl Replica {
    /// resolve(startQ), in PBFT's order.
    pub(super) fn on_resolution(&mut self, vs: OpNumber, starts: Vec<Signed<Start>>, out: &mut Outbox) {
        let Some(id) = starts.first().map(|start| start.statement().object) else { return };
        let mut course = self.course(id);
        let seen = course.seen;
        let in_order = starts.is_sorted_by(|one, next| one.by() < next.by());
        let (is_queued, is_renewed) = (self.across.is_queued(id), self.lives.renews(id));
        let of_one = starts.iter().all(|start| {
            let it = start.statement();
            let has_cause = is_queued || is_renewed || !it.conflict.is_empty();
            (it.object, it.seen) == (id, seen) && has_cause && self.lives.counts(start.by(), it.life)
        });
        let mut starts = starts;
        let proven = in_order && of_one && starts.iter_mut().all(|start| start.prove(&self.keyring).is_ok());
        if !proven || starts.len() < self.start_quorum() {
            return out.ignore(self.me(), Why::NotNow); // the same contention was resolved before, or it is none
        }
        let calm = self.quorums.vouched(starts.iter().map(|start| start.statement().calm)).unwrap_or(0);
        let contended = starts.iter().any(|start| !start.statement().conflict.is_empty());
        let currents = || starts.iter().filter_map(|start| start.statement().current.clone());
        let base = match mutated!("hq/resolves-from-the-first-start") {
            true => starts.first().and_then(|start| start.statement().current.clone()),
            false => currents().max_by_key(|proof| proof.statement().version),
        };
        // What ordered mode has led to has no certificate; a write since then has one, of its viewstamp.
        let base = match base {
            Some(proof) if proof.statement().version.vs == seen => Base::Shown(Some(proof)),
            _ if course.unproven && !mutated!("hq/wants-a-certificate-of-ordered-mode") => Base::Through(seen),
            base => Base::Shown(base),
        };
        let ends_in_order = course.resolve(vs, contended, is_queued, calm);
        course.unproven = ends_in_order || matches!(base, Base::Through(_));
        self.courses.insert(id, course);
        let ordered = self.take_queued(id);
        self.lives.renewed(id);
        self.starts.retain(|start| start.object != id || start.seen >= vs);
        let object = self.objects.entry(id).or_insert_with(|| Object::new(bytes::Bytes::new()));
        let under_way = |it: &Resolving| it.vs >= vs;
        let resolving = matches!(&object.phase, Phase::Resolving(it) if under_way(it));
        if object.seen >= vs || resolving || object.decided.as_ref().is_some_and(|it| under_way(it)) {
            return; // the object has been through it, as the disk or another replica says
        }
        if !object.is_in_turn() {
            object.due.clear(); // others have been through it all, or there would be no STARTs: it is had from them
        }
        let asks = vouched(&starts, self.quorums.vouch());
        let early = self.early.remove(&id).unwrap_or_default();
        // What was asked of this replica outlives its way to C: perhaps nobody else who is correct has it.
        let known: Vec<_> = asks.iter().filter_map(|ask| object.body(ask.statement().hash)).cloned().collect();
        object.settle(known);
        let mut resolving = Resolving { base, asks, ordered, in_order: ends_in_order, ..Resolving::new(vs) };
        for grant in early.into_values().flatten() {
            if grant.statement().version.vs == vs {
                count(&mut resolving, grant);
            }
        }
        object.decided = Some(Box::new(resolving));
        if !object.is_moving() {
            self.keep(id, None, out); // a restart on the way to C finds these operations
        }
        out.note(Note::Other("contention is resolved"));
        if ends_in_order {
            out.note(Note::Other("an object goes to ordered mode"));
        }
        self.proceed(id, out);
    }

    /// R4, a to f, as far as it goes.
    pub(super) fn proceed_resolving(&mut self, id: Digest, out: &mut Outbox) {
        if self.behind.contains_key(&id) && self.adopt(id, out) {
            return;
        }
        let Some(object) = self.objects.get_mut(&id) else { return };
        let Phase::Resolving(resolving) = std::mem::replace(&mut object.phase, Phase::Free) else { return };
        let mut resolving = resolving;
        match std::mem::replace(&mut resolving.stage, Stage::Reaching) {
            Stage::Reaching => self.reach(id, resolving, out),
            Stage::Granting(plan) => self.run_plan(id, resolving, plan, out),
            stage @ (Stage::Undoing | Stage::Executing(..) | Stage::Running(..) | Stage::Joining(_)) => {
                resolving.stage = stage; // the machine is at work
                self.set_resolving(id, resolving);
            }
        }
    }

    fn set_resolving(&mut self, id: Digest, resolving: Box<Resolving>) {
        if let Some(object) = self.objects.get_mut(&id) {
            object.phase = Phase::Resolving(resolving);
        }
    }

    /// R4, a and b: to C.
    fn reach(&mut self, id: Digest, mut resolving: Box<Resolving>, out: &mut Outbox) {
        let Some(object) = self.objects.get(&id) else { return };
        let here = object.now.version();
        let (order, shown) = match &resolving.base {
            Base::Shown(None) => (here.cmp(&Version::default()), None),
            Base::Shown(Some(proof)) => (here.cmp(&proof.statement().version), Some(proof.clone())),
            Base::Through(entry) if object.seen < *entry => (Ordering::Less, None),
            Base::Through(entry) if object.now.is_certified_at(*entry) => (Ordering::Greater, None),
            Base::Through(_) => (Ordering::Equal, None),
        };
        if order == Ordering::Equal {
            return self.plan(id, resolving, out);
        }
        if order == Ordering::Greater {
            let is_base = |state: &State| match &resolving.base {
                Base::Shown(None) => state.version() == Version::default(),
                Base::Shown(Some(proof)) => state.version() == proof.statement().version,
                Base::Through(entry) => !state.is_certified_at(*entry),
            };
            let Some((_, image)) = object.before.as_ref().filter(|(state, _)| is_base(state)) else {
                return out.halt(format!(
                    "this replica has executed write {} of an object, and a quorum of STARTs knows neither of it nor of the one \
                     before: more replicas lie than the group tolerates",
                    here.ts
                ));
            };
            let step = Step::Put { object: object.name.clone(), image: image.clone() };
            if self.step(id, step, out) {
                resolving.stage = Stage::Undoing;
            }
            return self.set_resolving(id, resolving);
        }
        let next = shown.filter(|proof| proof.statement().version == object.next());
        let Some(proof) = next else {
            self.set_resolving(id, resolving);
            return self.fall_behind(id, out);
        };
        let Some(write) = object.body(proof.statement().hash).cloned() else {
            self.set_resolving(id, resolving);
            return self.want(id, proof.statement().hash, out);
        };
        if self.step(id, write.step(proof.statement().version.ts), out) {
            resolving.stage = Stage::Executing(proof, write);
        }
        self.set_resolving(id, resolving);
    }

    /// R4, c to e: L, and my grants for it.
    fn plan(&mut self, id: Digest, mut resolving: Box<Resolving>, out: &mut Outbox) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        // Nobody takes C back any more. Some have taken a write back to come here, and others have not: from here on all have
        // the same again, and who is behind can have it from any of them.
        object.before = None;
        object.seen = object.seen.max(object.now.version().vs); // at C the earlier resolution is over
        let asks = order(&resolving.asks, resolving.vs, object);
        let asks = asks.iter().map(|ask| Item { ask: *ask.statement(), ordered: None });
        let items: Vec<Item> = asks.chain(std::mem::take(&mut resolving.ordered)).collect();
        let (vs, first, resolving_in_order) = (resolving.vs, object.now.version().ts.next(), resolving.in_order);
        if items.is_empty() {
            return self.finish(id, vs, out);
        }
        let settled = items.iter().filter_map(|item| object.body(item.ask.hash)).cloned();
        object.settled = settled.map(|write| (write.ask().hash, write)).collect();
        let ordered = items.first().and_then(|item| item.ordered);
        let list = List { vs, first, items, in_order: resolving.in_order };
        resolving.stage = Stage::Granting(Plan::new(list, 0, &self.keyring));
        self.set_resolving(id, resolving);
        self.keep(id, None, out); // before any of it is executed: a restart must not compute it anew from a later state
        self.say_grants(id, out);
        match ordered {
            Some(rank) => self.run_ordered(rank, out),
            None if resolving_in_order => self.proceed_resolving(id, out),
            None => {}
        }
    }

    /// My grants for an object's list that others may have. An operation on several objects is granted where it is the next
    /// one on all of them: so `f + 1` correct replicas can execute what a quorum has granted, whatever they lack of others.
    pub(super) fn sayable(&self, id: Digest) -> Vec<Signed<Grant>> {
        let Some(Object { phase: Phase::Resolving(it), .. }) = self.objects.get(&id) else { return Vec::new() };
        let Some(plan) = it.plan() else { return Vec::new() };
        let may = |(index, item): (usize, &Item)| match item.ordered {
            None => true,
            Some(_) if index < plan.executed => true,
            Some(rank) => index == plan.executed && self.is_reached(rank),
        };
        let items = plan.list.items.iter().enumerate();
        items.zip(&plan.own).filter(|(item, _)| may(*item)).map(|(_, grant)| grant.clone()).collect()
    }

    /// Tells everybody, itself too, what it grants of an object's list.
    pub(super) fn say_grants(&self, id: Digest, out: &mut Outbox) {
        let grants = self.sayable(id);
        if !grants.is_empty() {
            out.broadcast(Message::Grants { grants: grants.clone(), again: false });
            out.send(self.me(), Message::Grants { grants, again: false });
        }
    }

    /// My grants of what a resolution has ordered (R4, e).
    pub(super) fn on_grants(&mut self, from: ReplicaId, grants: Vec<Verified<Grant>>, again: bool, out: &mut Outbox) {
        let peer = Peer::Replica(from);
        let Some((id, vs)) = grants.first().map(|it| (it.statement().object, it.statement().version.vs)) else {
            return out.ignore(peer, Why::Unasked);
        };
        let of_one =
            |it: &Verified<Grant>| it.by() == from && (it.statement().object, it.statement().version.vs) == (id, vs);
        if !grants.iter().all(of_one) {
            return out.blame(peer, Fault::Malformed("grants of several resolutions".to_owned()));
        }
        let Some(object) = self.objects.get_mut(&id) else { return self.keep_early(from, id, grants, out) };
        let resolving = match (&mut object.phase, &mut object.decided) {
            (Phase::Resolving(it), _) if it.vs == vs => Some(it),
            (_, Some(it)) if it.vs == vs => Some(it),
            _ => None,
        };
        if let Some(resolving) = resolving {
            let lacks = grants.iter().map(|it| it.statement().version).collect();
            let lies: Vec<Evidence> = grants.into_iter().filter_map(|grant| count(resolving, grant)).collect();
            lies.into_iter().for_each(|evidence| out.blame(peer, evidence.into()));
            if again {
                self.show(from, id, &lacks, out);
            }
            return self.proceed(id, out);
        }
        if vs <= object.seen {
            if again {
                let lacks = grants.iter().map(|it| it.statement().version).collect();
                self.show(from, id, &lacks, out);
                self.help(from, id, out);
            }
            return out.ignore(peer, Why::OldView);
        }
        self.keep_early(from, id, grants, out);
    }

    /// Grants of a resolution that PBFT has not told this replica of: it will.
    fn keep_early(&mut self, from: ReplicaId, id: Digest, grants: Vec<Verified<Grant>>, out: &mut Outbox) {
        if !self.early.contains_key(&id) && self.early.len() >= super::contention::CONTENDED_MAX {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        let known = self.early.entry(id).or_default().entry(from).or_default();
        let of = |grants: &[Verified<Grant>]| grants.first().map(|it| it.statement().version.vs);
        if of(known) < of(&grants) {
            known.clear();
        }
        for grant in grants {
            let is_new = known.iter().all(|it| it.statement().version != grant.statement().version);
            let of_it = known.first().is_none_or(|it| it.statement().version.vs == grant.statement().version.vs);
            if is_new && of_it && known.len() < GRANTS_MAX {
                known.push(grant);
            }
        }
    }

    /// R4, f: what a quorum has granted is executed, in order; when all is, the object is free.
    fn run_plan(&mut self, id: Digest, mut resolving: Box<Resolving>, plan: Plan, out: &mut Outbox) {
        let Some(item) = plan.list.items.get(plan.executed).copied() else {
            let vs = resolving.vs;
            resolving.stage = Stage::Granting(plan);
            self.set_resolving(id, resolving);
            return self.finish(id, vs, out);
        };
        if let Some(rank) = item.ordered {
            resolving.stage = Stage::Granting(plan);
            self.set_resolving(id, resolving);
            return self.run_ordered(rank, out);
        }
        let quorum = self.quorum() - usize::from(mutated!("hq/resolution-quorum-one-short"));
        let next = Some(item.ask);
        let ready = next.filter(|_| plan.list.in_order || resolving.proof(&plan, plan.executed, quorum).is_some());
        let write = ready.and_then(|ask| self.objects.get(&id)?.body(ask.hash).cloned());
        let (Some(ask), Some(write)) = (ready, write.clone()) else {
            resolving.stage = Stage::Granting(plan);
            self.set_resolving(id, resolving);
            if let (Some(ask), None) = (ready, write) {
                self.want(id, ask.hash, out);
            }
            return;
        };
        let step = write.step(plan.list.first.plus(plan.executed as u64));
        assert!(ask.hash == write.ask().hash, "an operation is found by what stands for it");
        resolving.stage = if self.step(id, step, out) { Stage::Running(plan, write) } else { Stage::Granting(plan) };
        self.set_resolving(id, resolving);
    }

    /// The machine has done a step of a resolution.
    pub(super) fn stepped_resolving(
        &mut self,
        id: Digest,
        op: OpNumber,
        mut resolving: Resolving,
        stepped: Stepped,
        out: &mut Outbox,
    ) {
        match std::mem::replace(&mut resolving.stage, Stage::Reaching) {
            Stage::Undoing => self.undone(id, op, out),
            Stage::Executing(proof, write) => self.executed(id, op, proof, write, stepped, out),
            Stage::Running(mut plan, write) => {
                let quorum = self.quorum() - usize::from(mutated!("hq/resolution-quorum-one-short"));
                let client = write.ask().client;
                if plan.list.in_order {
                    let rank = Rank { entry: resolving.vs, index: u32::try_from(plan.executed).unwrap_or(u32::MAX) };
                    let at = Version { vs: resolving.vs, ts: plan.list.first.plus(plan.executed as u64) };
                    self.executed_in_order(id, op, (rank, at, false), write, stepped, out);
                    plan.executed = plan.executed.saturating_add(1);
                } else if let Some(proof) = resolving.proof(&plan, plan.executed, quorum) {
                    self.executed(id, op, proof, write, stepped, out);
                    plan.executed = plan.executed.saturating_add(1);
                    self.tell(id, client, out);
                }
                resolving.stage = Stage::Granting(plan);
            }
            stage @ (Stage::Reaching | Stage::Granting(_) | Stage::Joining(_)) => resolving.stage = stage,
        }
        self.set_resolving(id, Box::new(resolving));
    }

    /// R4, b: the latest write is taken back, and with it what its client was told.
    fn undone(&mut self, id: Digest, op: OpNumber, out: &mut Outbox) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let former = object.now.version();
        let Some((state, image)) = object.before.take() else { return };
        let undone = std::mem::replace(&mut object.now, state);
        if let Some(write) = undone.last {
            object.bodies.insert(write.ask().hash, write); // it is asked for still, perhaps
        }
        object.grant = None;
        let version = object.now.version();
        if let Some(seq) = self.keep(id, Some((op, image)), out) {
            self.steps.records.push_back((op, seq));
        }
        out.note(Note::Other("a write was taken back"));
        self.changed(id, former, version, out);
    }

    /// The object is free again, at a new viewstamp.
    fn finish(&mut self, id: Digest, vs: OpNumber, out: &mut Outbox) {
        let granted = self.sayable(id);
        let Some(object) = self.objects.get_mut(&id) else { return };
        object.granted = granted;
        object.pass(vs);
        object.writes.clear();
        object.bodies.clear();
        object.phase = Phase::Free;
        self.active.remove(&id);
        self.behind.remove(&id);
        self.keep(id, None, out);
        self.proceed(id, out);
    }
}

/// Counts a grant of a resolution; proof, if its signer has said otherwise before.
fn count(resolving: &mut Resolving, grant: Verified<Grant>) -> Option<Evidence> {
    let (by, version) = (grant.by(), grant.statement().version);
    // Of each signer so many places: a liar's do not take the others' room.
    let of_it = resolving.votes.values().filter(|votes| votes.contains_key(&by)).count();
    let is_known = resolving.votes.get(&version).is_some_and(|votes| votes.contains_key(&by));
    if of_it >= GRANTS_MAX && !is_known {
        return None;
    }
    let votes = resolving.votes.entry(version).or_default();
    match votes.get(&grant.by()) {
        None => {
            votes.insert(grant.by(), grant);
            None
        }
        Some(earlier) => Evidence::of(earlier, &grant),
    }
}

/// The requests that `f + 1` STARTs hold: one of these replicas is correct and has the operation. One that fewer hold may
/// stand for an operation that nobody will ever show; its client asks again.
fn vouched(starts: &[Signed<Start>], vouch: usize) -> Vec<Signed<Ask, ClientKey>> {
    let mut held: BTreeMap<(ClientId, u64, Digest), (BTreeSet<ReplicaId>, &Asked)> = BTreeMap::new();
    for (start, ask) in starts.iter().flat_map(|start| start.statement().asks.iter().map(move |ask| (start, ask))) {
        let it = ask.statement();
        let key = (it.client, it.number.get(), it.hash);
        held.entry(key).or_insert_with(|| (BTreeSet::new(), ask)).0.insert(start.by());
    }
    held.into_values().filter(|(by, _)| by.len() >= vouch).map(|(_, ask)| ask.clone()).collect()
}

/// L (R4, c and d): the requests that are not over, of each client one, in an order that no client can choose.
fn order(asks: &[Signed<Ask, ClientKey>], vs: OpNumber, object: &Object) -> Vec<Signed<Ask, ClientKey>> {
    let open = |ask: &Ask| !object.now.is_over(ask) && !object.now.may_be_over(ask);
    let mut first: BTreeMap<ClientId, &Signed<Ask, ClientKey>> = BTreeMap::new();
    for signed in asks.iter().filter(|signed| open(signed.statement())) {
        let it = signed.statement();
        let rank = |ask: &Ask| (ask.number, ask.hash);
        if first.get(&it.client).is_none_or(|known| rank(it) < rank(known.statement())) {
            first.insert(it.client, signed);
        }
    }
    let mut all: Vec<_> = first.into_values().cloned().collect();
    all.sort_by_key(|signed| salted(signed.statement(), vs));
    all.truncate(GRANTS_MAX - QUEUED_MAX); // there is room for what touches other objects, too
    all
}

fn salted(ask: &Ask, vs: OpNumber) -> Digest {
    let numbers = [vs.get().to_le_bytes(), ask.number.get().to_le_bytes()].concat();
    Digest::of_parts(&[b"hq order", &numbers, &ask.client.get().to_le_bytes(), ask.hash.as_bytes()])
}
