//! Who is behind (A.8): with one operation, asks for it by what stands for it, and one answer is enough; with an object, takes
//! what `f + 1` replicas have alike; with anything at all, finds out by comparing sums when it is quiet.

use super::message::{BUCKETS, Message, Proof, Transferred, VERSIONS_MAX, Version, Write, object_of};
use super::object::{Base, Object, Phase, Plan, Resolving, Stage};
use super::replica::{Behind, Cause, Replica};
use super::{Outbox, Timer};
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::objects::{Image, Step};
use quorate_core::outbox::Note;
use quorate_core::protocol::QueryTicket;
use std::collections::{BTreeMap, BTreeSet};

/// Objects that something here waits for and that are fetched at once, at most; the others are asked for later.
const BEHIND_MAX: usize = 256;
/// Objects that are fetched at once because one replica says that it is further, at most; the others are noticed by their sums later.
const HEARD_MAX: usize = 128;
/// Objects that are read for others at once, at most.
const IMAGES_MAX: usize = 256;
/// Buckets about which one comparison asks.
const BUCKETS_ASKED: usize = 8;
/// So many times sooner replicas compare again while they are repairing.
const COMPARE_SOONER: u32 = 5;
/// How often an object is asked for that nobody waits for.
const TRIES_MAX: u32 = 6;

/// Operations.
impl Replica {
    /// Asks for the operation that this stands for: a correct replica granted it, and has it.
    pub(super) fn want(&mut self, id: Digest, hash: Digest, out: &mut Outbox) {
        if self.wanted.insert((id, hash)) {
            out.broadcast_unsynced(Message::GetWrite { object: id, hash }); // a question
        }
        self.expect_progress(out);
    }

    pub(super) fn on_get_write(&mut self, from: ReplicaId, id: Digest, hash: Digest, out: &mut Outbox) {
        match self.objects.get(&id).and_then(|object| object.body(hash)) {
            Some(write) => out.send_unsynced(Peer::Replica(from), Message::Wrote(write.clone())), // its client's word
            None => out.ignore(Peer::Replica(from), Why::NotHere),
        }
    }

    pub(super) fn on_wrote(&mut self, from: ReplicaId, write: Write, out: &mut Outbox) {
        let (id, hash) = (write.ask().object, write.ask().hash);
        if !self.wanted.remove(&(id, hash)) {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        let (_, object) = self.object(&write.name);
        let operations = match object.phase {
            Phase::Resolving(_) => &mut object.settled,
            _ => &mut object.bodies,
        };
        operations.insert(hash, write);
        self.proceed(id, out);
    }

    /// Does anything here still wait for this operation?
    pub(super) fn is_wanted(&self, id: Digest, hash: Digest) -> bool {
        let Some(object) = self.objects.get(&id) else { return false };
        let pending = object.pending.as_ref().is_some_and(|(proof, _)| proof.statement().hash == hash);
        (pending || matches!(object.phase, Phase::Resolving(_))) && object.body(hash).is_none()
    }
}

/// Objects.
impl Replica {
    /// Asks for the object as others have it: something here waits for it.
    pub(super) fn fall_behind(&mut self, id: Digest, out: &mut Outbox) {
        self.ask_for(id, Cause::Needed, BEHIND_MAX, out);
        self.expect_progress(out);
    }

    /// Asks for an object, unless so many others are asked for because of this. False if so.
    pub(super) fn ask_for(&mut self, id: Digest, cause: Cause, most: usize, out: &mut Outbox) -> bool {
        let count = self.behind.values().filter(|it| it.cause == cause).count();
        match self.behind.get_mut(&id) {
            Some(behind) if cause == Cause::Needed || matches!(behind.cause, Cause::Heard(_)) => behind.cause = cause,
            Some(_) => {}
            None if count < most => {
                self.behind.insert(id, Behind { cause, ..Behind::default() });
                out.broadcast_unsynced(Message::GetObject { object: id }); // a question
            }
            None => return false,
        }
        true
    }

    /// Asks for objects as others have them: one replica says that it is further. What a liar says takes nobody else's room.
    pub(super) fn hear_of(&mut self, from: ReplicaId, ids: impl IntoIterator<Item = Digest>, out: &mut Outbox) {
        let cause = Cause::Heard(from);
        let mut heard = self.behind.values().filter(|it| it.cause == cause).count();
        for id in ids {
            if heard < HEARD_MAX && !self.behind.contains_key(&id) {
                heard = heard.saturating_add(1);
                self.behind.insert(id, Behind { cause, ..Behind::default() });
                out.broadcast_unsynced(Message::GetObject { object: id }); // a question
            }
        }
        self.expect_progress(out);
    }

    pub(super) fn on_get_object(&mut self, from: ReplicaId, id: Digest, out: &mut Outbox) {
        let whole = |it: &&Object| !it.is_moving() && !it.name.is_empty() && (!it.is_between() || it.list().is_some());
        let Some(object) = self.objects.get(&id).filter(whole) else {
            return out.ignore(Peer::Replica(from), Why::NotHere);
        };
        if self.images.len() >= IMAGES_MAX {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        if let (Some(proof), write) = (object.now.proof.clone(), object.now.last.clone()) {
            // The latest write proves itself. Perhaps it is all that is lacking, and nobody else has it to vouch for it.
            out.send(Peer::Replica(from), Message::Write2 { proof, write, answer: false });
        }
        let (name, now, before) = (object.name.clone(), object.now.clone(), object.before.clone());
        let list = object.list().filter(|_| object.is_between()).cloned();
        let transferred = Transferred { name: name.clone(), seen: object.seen, now, image: None, before, list };
        let ticket = self.ticket();
        self.images.insert(ticket, (from, transferred));
        out.image(ticket, name);
    }

    /// The machine has given an object that somebody has asked for.
    pub(super) fn imaged(&mut self, ticket: QueryTicket, image: Image, out: &mut Outbox) {
        let Some((to, mut transferred)) = self.images.remove(&ticket) else { return };
        transferred.image = image;
        // Waits for the disk: it vouches for what was executed.
        out.send(Peer::Replica(to), Message::Object(Box::new(transferred)));
    }

    pub(super) fn on_object(&mut self, from: ReplicaId, transferred: Transferred, out: &mut Outbox) {
        let id = object_of(&transferred.name);
        self.lives.is_granted(from, id, transferred.now.version());
        let Some(behind) = self.behind.get_mut(&id) else {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        };
        behind.told.insert(from, transferred.clone());
        let (_, object) = self.object(&transferred.name);
        if !object.is_moving() && !self.adopt(id, out) && self.is_level(id) {
            self.behind.remove(&id);
        }
        self.expect_progress(out);
    }

    /// Is nobody further, as far as `f + 1` replicas tell? What was lacking has come by another way: a certificate proves
    /// itself. If the others are further after all, their sums will say so.
    fn is_level(&self, id: Digest) -> bool {
        let (Some(behind), Some(object)) = (self.behind.get(&id), self.objects.get(&id)) else { return false };
        let here = (object.seen, object.now.version());
        let not_further = behind.told.values().filter(|it| (it.seen, it.now.version()) <= here);
        object.is_free() && not_further.count() >= self.quorums.vouch()
    }

    /// Takes what `f + 1` replicas have alike, if it is further than what is here. One that has frozen the object takes only
    /// what a resolution has led to: it has said in its START what it has executed, and that must stay true. The middle of a
    /// resolution's list is for those alone who know from PBFT that they are to carry it out.
    pub(super) fn adopt(&mut self, id: Digest, out: &mut Outbox) -> bool {
        let (Some(behind), Some(object)) = (self.behind.get(&id), self.objects.get(&id)) else { return false };
        // What touches several objects is here in part until the others have come: this replica must know which they are.
        let known = |it: &Transferred| it.now.joined.entry <= self.across.through;
        let further = |it: &Transferred| {
            (it.seen, it.now.version()) > (object.seen, object.now.version())
                && it.now.version() >= object.now.version()
        };
        let fits = |it: &Transferred| match &object.phase {
            Phase::Free => it.is_whole() && further(it),
            Phase::Frozen(_) => it.is_whole() && it.seen > object.seen,
            Phase::Resolving(resolving) if it.is_whole() => it.seen >= resolving.vs,
            Phase::Resolving(resolving) => it.is_within(resolving.vs) && it.now.version() > object.now.version(),
            Phase::Writing(..) | Phase::InOrder(_) | Phase::Taking(_) => false,
        };
        let vouch = if mutated!("hq/believes-one-replica") { 1 } else { self.quorums.vouch() };
        let alike = |digest: Digest| behind.told.values().filter(|it| it.digest() == digest).count();
        let fitting = behind.told.values().filter(|it| fits(it) && known(it) && alike(it.digest()) >= vouch);
        let furthest = fitting.max_by_key(|it| (it.seen, it.now.version())).cloned();
        let chosen = furthest.or_else(|| self.at_base(behind, object, vouch));
        let Some(chosen) = chosen else { return false };
        let step = Step::Put { object: chosen.name.clone(), image: chosen.image.clone() };
        if !self.step(id, step, out) {
            return true; // when the snapshot is done
        }
        let Some(object) = self.objects.get_mut(&id) else { return true };
        let former = std::mem::replace(&mut object.phase, Phase::Taking(Box::new(chosen)));
        if let Phase::Resolving(resolving) = former {
            object.decided.get_or_insert(resolving);
        }
        true
    }

    /// On the way to C: the object at C, as `f + 1` replicas have it alike now, whether they know of the resolution or not. Who knows
    /// has forgotten the object before C, as nobody takes C back any more, and who does not has it still; this replica would
    /// forget it at once, too.
    fn at_base(&self, behind: &Behind, object: &Object, vouch: usize) -> Option<Transferred> {
        let Phase::Resolving(resolving) = &object.phase else { return None };
        if !matches!(resolving.stage, Stage::Reaching) {
            return None;
        }
        let is_base = |it: &Transferred| match &resolving.base {
            Base::Shown(proof) => proof.as_ref().is_some_and(|proof| it.now.version() == proof.statement().version),
            // Nobody who has been through it has executed anything since.
            Base::Through(entry) => {
                it.seen >= *entry && it.now.version().vs <= *entry && !it.now.is_certified_at(*entry)
            }
        };
        // Whatever they say: C itself says which entry led to it.
        let (is_behind, entry) = match &resolving.base {
            Base::Shown(proof) => {
                let base = proof.as_ref().map_or(Version::default(), |proof| proof.statement().version);
                (object.now.version() < base, base.vs)
            }
            Base::Through(entry) => (object.seen < *entry, *entry),
        };
        let mut alike: BTreeMap<Digest, Vec<&Transferred>> = BTreeMap::new();
        for it in behind.told.values().filter(|it| is_behind && is_base(it)) {
            if it.now.joined.entry <= self.across.through {
                alike.entry(it.present()).or_default().push(it);
            }
        }
        let found = alike.into_values().find(|those| those.len() >= vouch)?;
        let found = (*found.first()?).clone();
        Some(Transferred { seen: object.seen.max(entry), before: None, list: None, ..found })
    }

    /// The machine has what another replica had.
    pub(super) fn taken(&mut self, id: Digest, op: OpNumber, transferred: Transferred, out: &mut Outbox) {
        let Transferred { name, seen, mut now, image, mut before, list } = transferred;
        for state in before.iter_mut().map(|(state, _)| state).chain([&mut now]) {
            // Nobody has looked at these.
            state.done.values_mut().for_each(|done| done.proof = None);
        }
        let Some(object) = self.objects.get_mut(&id) else { return };
        let former = object.now.version();
        let version = now.version();
        (object.name, object.now, object.before) = (name, now, before);
        object.pass(seen);
        // PBFT may give its places by now, as far as this replica knows.
        self.across.known = self.across.known.max(object.seen);
        object.writes.clear();
        if object.decided.as_ref().is_some_and(|it| it.vs <= object.seen) {
            object.decided = None;
        }
        if let Some(list) = list {
            let vs = list.vs;
            let known = object.decided.take_if(|it| it.vs == vs);
            let mut resolving = known.unwrap_or_else(|| Box::new(Resolving::new(vs)));
            let executed = list.executed(version);
            resolving.stage = Stage::Granting(Plan::new(list, executed, &self.keyring));
            object.phase = Phase::Resolving(resolving);
        } else if object.decided.is_none() {
            self.active.remove(&id);
        }
        self.behind.remove(&id);
        if let Some(seq) = self.keep(id, Some((op, image)), out) {
            self.steps.records.push_back((op, seq));
        }
        out.note(Note::Fetched(op));
        self.changed(id, former, version, out);
        self.check_ordered(id, out);
    }

    /// Somebody is in the midst of what is over here.
    pub(super) fn help(&mut self, to: ReplicaId, id: Digest, out: &mut Outbox) {
        let Some(object) = self.objects.get(&id) else { return };
        let to = Peer::Replica(to);
        if !object.granted.is_empty() {
            out.send(to, Message::Grants { grants: object.granted.clone(), again: false });
        }
        if let Some(proof) = object.now.proof.clone() {
            out.send(to, Message::Write2 { proof, write: object.now.last.clone(), answer: false });
        }
    }

    /// Shows the certificates of these places, as far as they are here: what a liar has granted to one replica only is
    /// of use to all.
    pub(super) fn show(&self, to: ReplicaId, id: Digest, places: &BTreeSet<Version>, out: &mut Outbox) {
        let Some(object) = self.objects.get(&id) else { return };
        let proofs = object.now.done.values().filter_map(|done| done.proof.as_ref()).chain(&object.now.proof);
        let proofs = proofs.map(|proof| (proof.statement().version, proof));
        let proofs: BTreeMap<Version, &Proof> = proofs.filter(|(version, _)| places.contains(version)).collect();
        for proof in proofs.into_values() {
            let write = object.body(proof.statement().hash).cloned();
            out.send(Peer::Replica(to), Message::Write2 { proof: proof.clone(), write, answer: false });
        }
    }
}

/// Sums.
impl Replica {
    /// What an object at a version adds to its bucket.
    pub(super) fn share(id: Digest, version: Version) -> u64 {
        if version == Version::default() {
            return 0;
        }
        let parts: [&[u8]; 3] = [id.as_bytes(), &version.vs.get().to_le_bytes(), &version.ts.get().to_le_bytes()];
        Digest::of_parts(&parts).as_bytes().first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }

    pub(super) fn bucket(id: Digest) -> u8 {
        id.as_bytes().first().copied().unwrap_or(0)
    }

    /// An object has another version: when it is quiet, that is compared.
    pub(super) fn changed(&mut self, id: Digest, from: Version, to: Version, out: &mut Outbox) {
        if let Some(sum) = self.compared.own.get_mut(usize::from(Self::bucket(id))) {
            *sum = sum.wrapping_sub(Self::share(id, from)).wrapping_add(Self::share(id, to));
        }
        self.compare_soon(out);
    }

    pub(super) fn compare_soon(&mut self, out: &mut Outbox) {
        if !self.compared.armed {
            self.compared.armed = true;
            self.compared.pause = self.config.compare;
            out.arm(Timer::Compare, self.compared.pause);
        }
    }

    /// Tells the others what it has, until all say the same.
    pub(super) fn on_compare(&mut self, out: &mut Outbox) {
        self.compared.armed = false;
        let own = &self.compared.own;
        let mut others = self.quorums.members().filter(|replica| *replica != self.me);
        let settled = others.all(|replica| self.compared.others.get(&replica) == Some(own));
        let gets_on = self.compared.told != *own;
        self.compared.told.clone_from(own);
        out.broadcast_unsynced(Message::Sums { sums: own.clone(), ask: true }); // promises nothing
        if !settled {
            self.compared.armed = true;
            let longer = self.compared.pause.saturating_mul(2).min(self.config.resend_max);
            // A round finds a few buckets' worth. As long as that brings anything, the next one follows soon.
            self.compared.pause = if gets_on { self.config.compare / COMPARE_SOONER } else { longer };
            out.arm(Timer::Compare, self.compared.pause);
        }
    }

    pub(super) fn on_sums(&mut self, from: ReplicaId, sums: Vec<u64>, ask: bool, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if ask {
            out.send_unsynced(to, Message::Sums { sums: self.compared.own.clone(), ask: false }); // promises nothing
        }
        let differ = (0..BUCKETS).filter(|bucket| self.compared.own.get(*bucket) != sums.get(*bucket));
        let differ: Vec<u8> = differ.filter_map(|bucket| u8::try_from(bucket).ok()).collect();
        for bucket in differ.iter().take(BUCKETS_ASKED) {
            out.send_unsynced(to, Message::GetVersions { bucket: *bucket, after: Digest::ZERO }); // a question
        }
        self.compared.others.insert(from, sums);
        if !differ.is_empty() {
            self.compare_soon(out);
        }
    }

    pub(super) fn on_get_versions(&mut self, from: ReplicaId, bucket: u8, after: Digest, out: &mut Outbox) {
        let mut first = [0; 32];
        if let Some(byte) = first.first_mut() {
            *byte = bucket;
        }
        let begin = after.max(Digest::new(first));
        let here = self.objects.range(begin..).filter(|(id, _)| **id > after);
        let here = here.take_while(|(id, _)| Self::bucket(**id) == bucket);
        let versions = here.map(|(id, object)| (*id, object.now.version())).filter(|(_, it)| *it > Version::default());
        let versions = versions.take(VERSIONS_MAX).collect();
        out.send_unsynced(Peer::Replica(from), Message::Versions { bucket, versions }); // promises nothing
    }

    pub(super) fn on_versions(
        &mut self,
        from: ReplicaId,
        bucket: u8,
        versions: Vec<(Digest, Version)>,
        out: &mut Outbox,
    ) {
        let full = versions.len() == VERSIONS_MAX;
        let last = versions.last().map(|(id, _)| *id);
        let lacks = |id: &Digest, version| self.objects.get(id).is_none_or(|it| it.now.version() < version);
        let further = versions.into_iter().filter(|(id, version)| Self::bucket(*id) == bucket && lacks(id, *version));
        let further: Vec<Digest> = further.map(|(id, _)| id).collect();
        self.hear_of(from, further, out);
        if let Some(after) = last.filter(|_| full) {
            out.send_unsynced(Peer::Replica(from), Message::GetVersions { bucket, after }); // a question
        }
    }
}

impl Replica {
    /// Objects that nobody has any more, or that nobody here waits for, are not asked for for ever.
    pub(super) fn give_up(&mut self) {
        let objects = &self.objects;
        let cuts = &self.cuts;
        let is_busy = |it: &Object| it.pending.is_some() || !matches!(it.phase, Phase::Free);
        let waits = |id: &Digest| cuts.waits_for(*id) || objects.get(id).is_some_and(is_busy);
        self.behind.retain(|id, behind| {
            behind.tries = behind.tries.saturating_add(1);
            behind.tries <= TRIES_MAX || waits(id)
        });
        let gone: Vec<_> = self.wanted.iter().filter(|(id, hash)| !self.is_wanted(*id, *hash)).copied().collect();
        self.wanted.retain(|it| !gone.contains(it));
    }
}
