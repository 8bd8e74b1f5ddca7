//! Contention, until PBFT has decided (A.6, R1 to R3): who sees that grants contradict each other has the object frozen; the
//! replicas tell what they know of it, and a quorum of that is what PBFT orders.
//!
//! Guarantees that a frozen replica executes nothing: a write that completed was executed by `f + 1` correct replicas before
//! they froze, one of which is in every quorum of STARTs.

use super::Outbox;
use super::message::{Grant, Message, Start, Write, conflict_of, prove_conflict};
use super::module::Entry;
use super::object::{Object, Phase};
use super::replica::Replica;
use quorate_core::crypto::{Digest, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use std::collections::BTreeMap;

/// STARTs of one signer that are kept, at most, each of another object; beyond it they are told again when there is room. One's own always are.
pub(super) const CONTENDED_MAX: usize = 4096;

/// The last START of each object that each signer has said.
#[derive(Debug, Default)]
pub(super) struct Starts(BTreeMap<ReplicaId, BTreeMap<Digest, Verified<Start>>>);

impl Starts {
    /// Those of an object, in the order of their signers.
    pub(super) fn of(&self, id: Digest) -> impl Iterator<Item = &Verified<Start>> {
        self.0.values().filter_map(move |starts| starts.get(&id))
    }

    /// The objects that there are some of.
    pub(super) fn objects(&self) -> impl Iterator<Item = &Digest> {
        self.0.values().flat_map(BTreeMap::keys)
    }

    /// Has this signer no room for one of this object? A liar's do not take the others' room.
    fn is_full(&self, by: ReplicaId, id: Digest) -> bool {
        self.0.get(&by).is_some_and(|starts| starts.len() >= CONTENDED_MAX && !starts.contains_key(&id))
    }

    fn insert(&mut self, start: Verified<Start>) {
        self.0.entry(start.by()).or_default().insert(start.statement().object, start);
    }

    /// Those go that do not fulfil this.
    pub(super) fn retain(&mut self, stays: impl Fn(&Start) -> bool) {
        self.0.values_mut().for_each(|starts| starts.retain(|_, start| stays(start.statement())));
    }

    /// Those go that do not fulfil this, of one signer.
    pub(super) fn retain_by(&mut self, stays: impl Fn(ReplicaId, &Start) -> bool) {
        self.0.iter_mut().for_each(|(by, starts)| starts.retain(|_, start| stays(*by, start.statement())));
    }
}

impl Replica {
    /// ⟨RESOLVE, conflictC, w1⟩ (R1).
    pub(super) fn on_resolve(&mut self, from: ClientId, conflict: Vec<Signed<Grant>>, write: Write, out: &mut Outbox) {
        let peer = Peer::Client(from);
        let Some((id, version)) = conflict_of(&conflict, self.quorum()).filter(|(id, _)| *id == write.ask().object)
        else {
            return out.blame(peer, Fault::Malformed("a conflict that is none".to_owned()));
        };
        let (_, object) = self.object(&write.name);
        if version.vs < object.seen || version <= object.now.version() {
            return self.on_write1(from, write, out); // it is over: cheap, whoever repeats it
        }
        let is_ahead = version.vs > object.seen;
        if matches!(object.phase, Phase::Frozen(_) | Phase::Resolving(_)) {
            return self.delay(id, peer, Message::Write1(write), out);
        }
        if object.is_moving() {
            return self.delay(id, peer, Message::Resolve { conflict, write }, out);
        }
        let mut conflict = conflict;
        if let Err(fault) = prove_conflict(&mut conflict, &self.keyring) {
            return out.blame(peer, fault);
        }
        if is_ahead {
            // There was a resolution that this replica has not been through: its START would be of no use to anybody.
            out.ignore(peer, Why::NewerView); // it will be said again
            return self.fall_behind(id, out);
        }
        if let Some(object) = self.objects.get_mut(&id) {
            object.consider(&write);
        }
        self.freeze(id, conflict, out);
        self.expect_progress(out);
    }

    /// Executes and grants nothing on the object until contention is resolved, and says what it has.
    pub(super) fn freeze(&mut self, id: Digest, conflict: Vec<Signed<Grant>>, out: &mut Outbox) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let asks = object.writes.values().map(|write| write.ask.clone()).collect();
        let current = object.now.proof.clone();
        let (calm, life) = (object.now.version().ts.since(object.freed), self.lives.own());
        let start = self.keyring.sign(Start { object: id, seen: object.seen, conflict, asks, current, calm, life });
        if !start.statement().conflict.is_empty() {
            out.note(Note::Other("an object is frozen: its clients contend"));
        }
        object.phase = Phase::Frozen(Box::new(start.clone()));
        self.active.insert(id);
        if !mutated!("hq/start-is-not-durable") {
            self.keep(id, None, out);
        }
        let primary = self.primary();
        out.send(self.me(), Message::Start(Box::new(start.clone())));
        if primary != self.me {
            out.send(Peer::Replica(primary), Message::Start(Box::new(start)));
        }
    }

    /// ⟨START, oid, conflictC, ops, currentC⟩ (R2, R3). Who hears of it freezes, too, even if it has gone past the conflict:
    /// the one who has frozen can be freed by a resolution only.
    pub(super) fn on_start(&mut self, start: Verified<Start>, out: &mut Outbox) {
        let (by, it) = (start.by(), start.statement());
        let (id, seen) = (it.object, it.seen);
        if !self.lives.counts(by, it.life) {
            return out.ignore(Peer::Replica(by), Why::OldView); // of a former life, or of one that PBFT here does not know
        }
        let known = self.resolved(id).max(self.objects.get(&id).map_or(OpNumber::ZERO, |object| object.seen));
        if seen < known {
            if by != self.me {
                self.help(by, id, out);
            }
            return out.ignore(Peer::Replica(by), Why::OldView);
        }
        if by != self.me && self.starts.is_full(by, id) {
            return out.ignore(Peer::Replica(by), Why::Busy);
        }
        self.starts.insert(start);
        self.objects.entry(id).or_insert_with(|| Object::new(bytes::Bytes::new()));
        if self.objects.get(&id).is_some_and(|object| object.seen < seen) {
            self.hear_of(by, [id], out); // there was a resolution that this replica has not been through, it says
        }
        self.proceed(id, out);
        self.submit(id, false, out);
    }

    /// Freezes an object that others have frozen, or that something waits for that touches others, too. A START without a
    /// conflict freezes nobody: PBFT says to everybody what it is about.
    pub(super) fn joins(&mut self, id: Digest, out: &mut Outbox) -> bool {
        let Some(object) = self.objects.get(&id).filter(|_| !self.lives.is_rejoining()) else { return false };
        if self.has_to_freeze(id, object) {
            self.freeze(id, Vec::new(), out);
            return true;
        }
        let contends =
            |start: &&Verified<Start>| start.statement().seen == object.seen && !start.statement().conflict.is_empty();
        let Some(start) = self.starts.of(id).find(contends) else { return false };
        let conflict = start.statement().conflict.clone();
        self.freeze(id, conflict, out);
        true
    }

    /// A quorum of STARTs becomes one operation of PBFT. Its primary asks at once; the others when it takes long, so that
    /// PBFT watches its primary (R3).
    pub(super) fn submit(&mut self, id: Digest, late: bool, out: &mut Outbox) {
        let is_primary = self.primary() == self.me;
        // Whoever has the object from others knows of a resolution before PBFT here does.
        let seen = self.resolved(id).max(self.objects.get(&id).map_or(OpNumber::ZERO, |object| object.seen));
        let is_queued = self.across.is_queued(id) || self.lives.renews(id);
        let counts = |start: &&Verified<Start>| {
            start.statement().seen == seen && (is_queued || !start.statement().conflict.is_empty())
        };
        let starts = self.starts.of(id).filter(counts);
        let mut starts: Vec<Signed<Start>> = starts.map(|start| start.signed().clone()).collect();
        let once = self.submitted.get(&id).is_some_and(|done| *done >= seen);
        if starts.len() < self.start_quorum() || (!late && (once || !is_primary)) {
            return;
        }
        starts.truncate(self.start_quorum());
        self.submitted.insert(id, seen);
        self.submit_entry(&Entry::Starts(starts), out);
    }

    /// How many STARTs make an operation (startQ).
    pub(super) fn start_quorum(&self) -> usize {
        self.quorum()
    }
}
