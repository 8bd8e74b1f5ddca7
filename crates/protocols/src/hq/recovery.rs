//! What was lost: messages, which are said again while something is under way; and processes, which come back with their
//! disks.
//!
//! A replica whose disk has lost a promise does not start: it may have granted a place that it would grant again. With a new disk it begins a
//! new life (`rejoin.rs`).

use super::contention::Starts;
use super::cut::{Cut, Cuts};
use super::durable::{Joined, Kept, Record};
use super::in_order::Submissions;
use super::message::{Message, Start, Write};
use super::module::{Entry, LIFT};
use super::object::{Object, Outcome, Phase, Plan, Resolving, Stage};
use super::ordered::{Across, Came};
use super::rejoin::{Life, Lives};
use super::replica::{Cause, Compared, Replica, Steps};
use super::turn::Turn;
use super::{Outbox, Timer};
use crate::pbft::{self, Told};
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::nested::nested;
use quorate_core::objects::Step;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{self, Checkpoint, Restore, RestoreError, Restored};
use quorate_core::quorum::ByzantineQuorums;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Objects about which something is said again at once, at most.
const AGAIN_MAX: usize = 64;
/// Objects, and records of PBFT, that are written anew after one step, at most.
const REWRITES_MAX: usize = 4;

/// Messages.
impl Replica {
    /// Makes sure that somebody looks again, as long as there is something to look after.
    pub(super) fn expect_progress(&mut self, out: &mut Outbox) {
        let unsettled = !self.active.is_empty() || !self.wanted.is_empty() || !self.behind.is_empty();
        let unsettled = unsettled
            || self.cuts.is_waiting()
            || self.across.is_waiting()
            || self.submissions.is_waiting()
            || self.catches_up()
            || self.lives.is_waiting();
        if !self.again && unsettled {
            self.again = true;
            self.pause = self.config.resend;
            out.arm(Timer::Again, self.pause);
        }
    }

    /// Says again what is under way (R3: STARTs to all, so that nobody can sit on one).
    pub(super) fn on_again(&mut self, out: &mut Outbox) {
        self.again = false;
        self.give_up();
        let mut shows_gap = self.lacks_entries();
        for id in self.next_active.take(self.active.iter().copied(), AGAIN_MAX) {
            match self.objects.get(&id) {
                Some(Object { phase: Phase::Frozen(start), .. }) => {
                    let start = start.clone();
                    // PBFT alone can tell the others why, and that this is the signer's present life.
                    let Start { conflict, life, .. } = start.statement();
                    shows_gap |= conflict.is_empty() || *life > OpNumber::ZERO;
                    out.send(self.me(), Message::Start(start.clone()));
                    out.broadcast(Message::Start(start));
                    self.submit(id, true, out);
                }
                Some(_) => {
                    let grants = self.sayable(id);
                    if !grants.is_empty() {
                        // To itself, too: after a restart its own are not counted yet.
                        out.send(self.me(), Message::Grants { grants: grants.clone(), again: false });
                        out.broadcast(Message::Grants { grants, again: true });
                    }
                    self.proceed(id, out);
                }
                None => {}
            }
        }
        self.submit_waiting(AGAIN_MAX, out);
        self.submit_late(out);
        self.cuts_again(AGAIN_MAX, out);
        self.rejoin_again(out);
        self.wish_again(AGAIN_MAX, out);
        if shows_gap {
            // PBFT sleeps, and somebody has slept through what it ordered. One entry more, of nothing, shows the gap.
            self.submit_entry(&Entry::Starts(Vec::new()), out);
        }
        for (object, hash) in self.wanted.iter().take(AGAIN_MAX).copied() {
            out.broadcast_unsynced(Message::GetWrite { object, hash }); // a question
        }
        let mut behind: Vec<_> =
            self.behind.iter().map(|(id, it)| (matches!(it.cause, Cause::Heard(_)), Reverse(it.tries), *id)).collect();
        behind.sort_unstable(); // what something waits for, and then what was asked for first
        for (_, _, object) in behind.into_iter().take(AGAIN_MAX) {
            out.broadcast_unsynced(Message::GetObject { object }); // a question
        }
        let pause = self.pause;
        self.expect_progress(out);
        if self.again {
            // However many there are, each has its turn about as often as if it were alone.
            let rounds = u32::try_from(self.active.len().div_ceil(AGAIN_MAX)).unwrap_or(u32::MAX).max(1);
            let longest = (self.config.resend_max / rounds).max(self.config.resend);
            self.pause = pause.saturating_mul(2).min(longest);
            out.arm(Timer::Again, self.pause);
        }
    }
}

/// The log's beginning.
impl Replica {
    /// A step was done and written down: is a snapshot due, or the log too long?
    pub(super) fn after_step(&mut self, out: &mut Outbox) {
        if self.steps.asked.since(self.steps.snapshot) >= self.config.state_steps {
            self.steps.barrier = true;
        }
        if self.steps.barrier && self.steps.moving.is_empty() {
            // The snapshot must not hold what the log may forget in a power failure: it waits until this comes back.
            out.send(self.me(), Message::Steps(self.steps.asked));
        }
        self.clean(out);
    }

    /// Everything that the machine has done is on the disk.
    pub(super) fn on_steps(&mut self, from: ReplicaId, op: OpNumber, out: &mut Outbox) {
        if from != self.me || !self.steps.barrier || op != self.steps.asked {
            return out.ignore(Peer::Replica(from), quorate_core::fault::Why::NotForSender);
        }
        self.steps.barrier = false;
        self.steps.snapshot = op;
        out.checkpoint(op);
        for id in std::mem::take(&mut self.steps.stalled) {
            self.proceed(id, out);
        }
    }

    /// A snapshot is on disk: the steps that it contains need not be done again.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        out.note(Note::Checkpointed(checkpoint.op));
        self.steps.saved = checkpoint.op;
        while self.steps.records.front().is_some_and(|(op, _)| *op <= checkpoint.op) {
            self.steps.records.pop_front();
        }
        self.clean(out);
    }

    /// Writes anew what is needed of the log's beginning, a little at a time, and forgets the rest.
    pub(super) fn clean(&mut self, out: &mut Outbox) {
        let objects = self.firsts.len().saturating_add(self.across.results()).saturating_add(self.cuts.count());
        let objects = objects.saturating_add(usize::from(self.lives.record().is_some()));
        let needed = objects.saturating_add(self.carried.len()).saturating_add(self.steps.records.len()) as u64;
        let limit = needed.saturating_mul(2).saturating_add(self.config.log_slack);
        let Some(first) = self.lowest() else { return };
        if out.next_seq().since(first) <= limit {
            return;
        }
        for _ in 0..REWRITES_MAX {
            let object = self.firsts.first().copied();
            let record = self.places.first_key_value().map(|(place, known)| (*place, *known));
            let result = self.across.oldest_result();
            let cut = self.cuts.oldest();
            let life = self.lives.record();
            let others = [object.map(|(seq, _)| seq), record.map(|(place, _)| place), cut.map(|(seq, _)| seq), life];
            if let Some((seq, client)) = result
                && others.into_iter().flatten().all(|other| seq <= other)
            {
                self.across.keep_result(client, out);
                continue;
            }
            if let Some((seq, op)) = cut
                && others.into_iter().flatten().all(|other| seq <= other)
            {
                self.cuts.keep_again(op, out);
                continue;
            }
            if let Some(seq) = life
                && others.into_iter().flatten().all(|other| seq <= other)
            {
                self.lives.keep_again(out);
                continue;
            }
            match (object, record) {
                (Some((seq, id)), other) if other.is_none_or(|(place, _)| seq < place) => {
                    if self.objects.get(&id).is_some_and(Object::is_moving) {
                        break;
                    }
                    self.keep(id, None, out);
                }
                (_, Some((place, known))) => {
                    let Some((current, record)) = self.carried.get_mut(&known) else { break };
                    *current = out.persist(Class::Promise, Record::Carried(known, record.clone()));
                    self.places.remove(&place);
                    self.places.insert(*current, known);
                }
                _ => break,
            }
        }
        if let Some(first) = self.lowest() {
            out.forget(first);
        }
    }

    /// The first record that anything needs.
    fn lowest(&self) -> Option<RecordSeq> {
        let object = self.firsts.first().map(|(seq, _)| *seq);
        let record = self.places.first_key_value().map(|(place, _)| *place);
        let step = self.steps.records.front().map(|(_, seq)| *seq);
        let result = self.across.oldest_result().map(|(seq, _)| seq);
        let cut = self.cuts.oldest().map(|(seq, _)| seq);
        [object, record, step, result, cut, self.lives.record()].into_iter().flatten().min()
    }
}

/// What the records say, in their order.
#[derive(Default)]
struct Replayed {
    objects: BTreeMap<Digest, Object>,
    steps: BTreeMap<OpNumber, (RecordSeq, Step)>,
    /// The last step that any record knows of.
    last: OpNumber,
    carried: BTreeMap<RecordSeq, (RecordSeq, pbft::Record)>,
    results: BTreeMap<ClientId, Came>,
    cuts: BTreeMap<OpNumber, (Cut, RecordSeq)>,
    /// The disk was lost.
    lost: bool,
    life: Option<(Life, RecordSeq)>,
    /// What belongs to the object in the record that follows this one.
    apart: Option<(RecordSeq, Vec<Write>, Vec<Write>)>,
}

impl Replayed {
    fn take(&mut self, seq: RecordSeq, record: Record, keyring: &Keyring) {
        match record {
            Record::Granted(grant, write) => {
                let id = grant.statement().object;
                let object = self.objects.entry(id).or_insert_with(|| Object::new(write.name.clone()));
                object.first.get_or_insert(seq);
                object.name = write.name.clone();
                if grant.statement().version == object.next() {
                    object.grant = Some(grant);
                    object.writes.insert(write.ask().client, write);
                }
            }
            Record::Executed { op, proof, write, results, before } => {
                let id = proof.statement().object;
                let object = self.objects.entry(id).or_insert_with(|| Object::new(write.name.clone()));
                object.first.get_or_insert(seq);
                object.name = write.name.clone();
                let step = write.step(proof.statement().version.ts);
                let next = object.now.after(proof.statement().version, Some(proof), write, results);
                object.before = Some((std::mem::replace(&mut object.now, next), before));
                object.grant = None;
                object.writes.clear();
                self.last = self.last.max(op);
                self.steps.insert(op, (seq, step));
            }
            Record::InOrder { op, rank, at, write, results, last } => {
                let object = self.objects.entry(write.ask().object).or_insert_with(|| Object::new(write.name.clone()));
                object.first.get_or_insert(seq);
                object.name = write.name.clone();
                object.execute_in_order(rank, at, last, &write, results);
                self.last = self.last.max(op);
                self.steps.insert(op, (seq, write.step(at.ts)));
            }
            Record::Ordered { op, rank, client, number, operation, result, joined } => {
                let mut touched = Vec::new();
                let result = Told::Full(result);
                let outcome = Outcome { client, number, result: result.digest() };
                for Joined { name, proof } in joined {
                    let id = proof.statement().object;
                    let object = self.objects.entry(id).or_insert_with(|| Object::new(name.clone()));
                    object.first.get_or_insert(seq);
                    touched.push((name, proof.statement().version.ts));
                    object.join(proof, rank, outcome);
                }
                self.last = self.last.max(op);
                self.steps.insert(op, (seq, Step::Across { objects: touched, operation }));
                self.results.insert(client, Came { number, result, seq });
            }
            Record::Came { client, number, result } => {
                self.results.insert(client, Came { number, result, seq });
            }
            Record::Object(mut kept) => {
                let (id, name) = (kept.object, kept.name.clone());
                let apart = self.apart.take().filter(|(before, ..)| before.next() == seq);
                let first = apart.map_or(seq, |(before, writes, settled)| {
                    (kept.writes, kept.settled) = (writes, settled);
                    before
                });
                self.last = self.last.max(kept.upto);
                if let Some((op, image)) = kept.step.clone() {
                    self.last = self.last.max(op);
                    self.steps.insert(op, (seq, Step::Put { object: name.clone(), image }));
                }
                let mut object = restored(*kept, keyring);
                object.first = Some(first);
                self.objects.insert(id, object);
            }
            Record::Writes(writes, settled) => self.apart = Some((seq, writes, settled)),
            Record::Cut(cut) => drop(self.cuts.insert(cut.op, (*cut, seq))),
            Record::Lost => self.lost = true,
            Record::Life(life) => self.life = Some((life, seq)),
            Record::Module(record) => drop(self.carried.insert(seq, (seq, record))),
            Record::Carried(known, record) => drop(self.carried.insert(known, (seq, record))),
        }
    }
}

fn restored(kept: Kept, keyring: &Keyring) -> Object {
    let mut object = Object::new(kept.name);
    (object.now, object.before, object.seen, object.grant) = (kept.now, kept.before, kept.seen, kept.grant);
    (object.freed, object.through) = (kept.freed, kept.through);
    object.granted = kept.granted;
    object.settled = kept.settled.into_iter().map(|write| (write.ask().hash, write)).collect();
    object.writes = kept.writes.into_iter().map(|write| (write.ask().client, write)).collect();
    if let Some(start) = kept.frozen {
        object.phase = Phase::Frozen(Box::new(keyring.sign(start))); // the same statement: it is on disk
    }
    if let Some(list) = kept.list {
        let vs = list.vs;
        let in_order = list.in_order;
        let stage = Stage::Granting(Plan::new(list, 0, keyring));
        object.phase = Phase::Resolving(Box::new(Resolving { stage, in_order, ..Resolving::new(vs) }));
    }
    object
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<super::Hq>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = ByzantineQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    if keyring.replica() != Some(restore.replica) || keyring.replicas() != restore.replicas {
        return Err(RestoreError::NoKey);
    }
    let lost = |what: &str| Err(RestoreError::PromisesLost(what.to_owned()));
    if restore.tail_damaged {
        return lost("the end of the log");
    }
    let mut replayed = Replayed::default();
    for record in restore.records {
        match record {
            Restored::Found { seq, record } => replayed.take(seq, record, &keyring),
            Restored::Damaged { seq, .. } => return lost(&format!("record {seq}")),
        }
    }
    let Replayed { mut objects, mut steps, last, carried, results, cuts, lost: is_lost, life, apart: _ } = replayed;
    let saved = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let mut expected = saved;
    let records = steps.split_off(&saved.next());
    let complete = records.keys().all(|op| {
        expected = expected.next();
        *op == expected
    });
    if !complete || expected < last {
        return lost("the snapshot, or a step after it");
    }
    for object in objects.values_mut() {
        if let Phase::Resolving(it) = &mut object.phase
            && let Stage::Granting(plan) = &mut it.stage
        {
            plan.executed = plan.list.executed(object.now.version()).min(plan.list.items.len());
        }
    }
    let asked = saved.max(last);
    let known = carried.iter().map(|(known, (_, record))| Restored::Found { seq: *known, record: record.clone() });
    let pbft::Config { pending_bytes, client_bytes, .. } = restore.config.module;
    let client_bytes = client_bytes.min(pending_bytes / restore.replicas.max(1));
    let inner = Restore {
        replica: restore.replica,
        replicas: restore.replicas,
        // Resolutions are not the machine's: there is nothing to try in advance. Its clients are the replicas, and those that lie take
        // nobody else's room.
        config: pbft::Config { tentative_requests: 0, client_bytes, ..restore.config.module },
        records: known.collect(),
        // What it has voted for in a former life is forgotten, like all other promises.
        tail_damaged: is_lost && carried.is_empty(),
        checkpoint: cuts.values().next_back().map(|(cut, _)| cut.checkpoint()),
        wake: None,
    };
    let (mut module, before) = (None, out.effects().len());
    let wanted = nested(out, &LIFT, |inner_out| {
        module = Some(<pbft::Replica as protocol::Replica<pbft::Pbft>>::start(inner, keyring.clone(), inner_out));
    });
    let module = module.unwrap_or(Err(RestoreError::NoKey))?;
    let entries = objects.values().map(|it| it.now.joined.entry.max(it.seen).max(it.now.version().vs));
    let known = entries.chain(life.map(|(life, _)| life.entry)).max().unwrap_or_default();
    let life = life.or_else(|| {
        let life = is_lost.then(|| Life { nonce: out.nonce(), entry: OpNumber::ZERO })?;
        Some((life, out.persist(Class::Promise, Record::Life(life))))
    });
    let active = objects.iter().filter(|(_, it)| !matches!(it.phase, Phase::Free)).map(|(id, _)| *id).collect();
    let mut compared = Compared::new(restore.config.compare);
    for (id, object) in &objects {
        if let Some(sum) = compared.own.get_mut(usize::from(Replica::bucket(*id))) {
            *sum = sum.wrapping_add(Replica::share_of(*id, object));
        }
    }
    let firsts: BTreeSet<_> = objects.iter().filter_map(|(id, object)| Some((object.first?, *id))).collect();
    let places = carried.iter().map(|(known, (place, _))| (*place, *known)).collect();
    let mut replica = Replica {
        me: restore.replica,
        quorums,
        config: restore.config,
        keyring,
        objects,
        module,
        carried,
        places,
        courses: cuts.values().next_back().map(|(cut, _)| cut.courses.clone()).unwrap_or_default(),
        submissions: Submissions::default(),
        requests: out.nonce() >> 2, // another life's numbers are not used again
        starts: Starts::default(),
        submitted: BTreeMap::new(),
        early: BTreeMap::new(),
        across: Across::restored(results, known),
        lives: Lives::restored(cuts.values().next_back().map(|(cut, _)| cut.lives.clone()).unwrap_or_default(), life),
        cuts: Cuts::restored(cuts),
        active,
        next_active: Turn::default(),
        steps: Steps {
            asked,
            done: asked,
            replayed: asked,
            snapshot: saved,
            saved,
            records: records.iter().map(|(op, (seq, _))| (*op, *seq)).collect(),
            ..Steps::default()
        },
        reads: BTreeMap::new(),
        images: BTreeMap::new(),
        last_ticket: 0,
        wanted: BTreeSet::new(),
        behind: BTreeMap::new(),
        compared,
        again: false,
        pause: restore.config.resend,
        firsts,
    };
    for (op, (_, step)) in records {
        out.step(op, step);
    }
    replica.note_records(before, out);
    if let Some(cut) = replica.cuts.latest().cloned() {
        replica.across.install(&cut);
        replica.follow_cut(out);
    }
    replica.carry_out_module(wanted.into(), out);
    replica.forget_results();
    let active: Vec<Digest> = replica.active.iter().copied().collect();
    active.into_iter().for_each(|id| replica.proceed(id, out));
    if !replica.objects.is_empty() {
        replica.compare_soon(out);
    }
    replica.check_life(out);
    replica.begin_rejoining(out);
    replica.settle_cuts(out);
    replica.expect_progress(out);
    Ok(replica)
}

impl Replica {
    fn share_of(id: Digest, object: &Object) -> u64 {
        Self::share(id, object.now.version())
    }
}
