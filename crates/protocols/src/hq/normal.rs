//! No contention: writes in two phases (A.3, A.4), reads in one (A.5). No word between replicas.

use super::Outbox;
use super::durable::{ACROSS_REPLY_BYTES_MAX, REPLY_BYTES_MAX, Record, TOO_LONG};
use super::message::{Grant, Message, Proof, ReadRequest, Write, object_of};
use super::object::{Object, Phase};
use super::replica::{Moving, Reading, Replica};
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_core::mutated;
use quorate_core::objects::Stepped;
use quorate_core::outbox::{Class, Note};

/// Reads that the machine is asked and has not answered, at most; beyond it, the client asks again.
const READS_MAX: usize = 4096;

/// Phase 1.
impl Replica {
    /// ⟨WRITE-1, cid, oid, op#, op⟩ (A.4, steps 0 and 1).
    pub(super) fn on_write1(&mut self, from: ClientId, write: Write, out: &mut Outbox) {
        let (ask, peer) = (*write.ask(), Peer::Client(from));
        if ask.client != from {
            return out.ignore(peer, Why::NotForSender);
        }
        if self.course(ask.object).is_in_order() && !mutated!("hq/grants-in-ordered-mode") {
            return self.on_write1_in_order(from, write, out);
        }
        let (keyring, life) = (self.keyring.clone(), self.lives.own());
        let (id, object) = self.object(&write.name);
        if !object.is_free() {
            return self.delay(id, peer, Message::Write1(write), out);
        }
        if let Some(done) = object.now.done.get(&from).filter(|_| object.now.is_over(&ask)) {
            if done.number == ask.number {
                let answer = Self::answer(id, object, from);
                answer.into_iter().for_each(|answer| out.send(peer, answer));
                return;
            }
            return out.ignore(peer, Why::Duplicate);
        }
        if object.now.may_be_over(&ask) {
            let at = object.now.version().ts;
            return out.send(peer, Message::TooOld { object: id, number: ask.number, at });
        }
        let other = object.writes.get(&from).filter(|it| it.ask().number == ask.number && it.ask().hash != ask.hash);
        if other.is_some() {
            out.blame(peer, Fault::Contradiction(format!("two operations as request {}", ask.number)));
        }
        let current = object.now.proof.clone();
        let answer = match &object.grant {
            Some(grant) if grant.statement().is_for(&ask) => Message::Granted { grant: grant.clone(), current },
            Some(grant) if !mutated!("hq/grants-a-place-twice") => {
                let answer = Message::Refused { number: ask.number, grant: grant.clone(), current };
                object.consider(&write);
                answer
            }
            _ if object.seen < life && !mutated!("hq/grants-what-it-has-forgotten") => {
                // Its former self may have granted it to somebody else.
                let is_this = object.writes.get(&from).is_none_or(|it| it.ask().number == ask.number);
                if !object.consider(&write) && is_this {
                    self.wish(id, peer, out); // said again: there may be no quorum without this replica
                }
                return;
            }
            _ => {
                let grant = keyring.sign(Grant::of(&ask, object.next()));
                object.grant = Some(grant.clone());
                object.writes.insert(from, write.clone());
                let seq = out.persist(Class::Promise, Record::Granted(grant.clone(), write));
                self.recorded(id, seq);
                Message::Granted { grant, current }
            }
        };
        out.send(peer, answer);
    }

    /// WRITE-2-ANS from the table of last results.
    fn answer(id: Digest, object: &Object, client: ClientId) -> Option<Message> {
        let done = object.now.done.get(&client)?;
        let (number, results, version) = (done.number, done.results.clone(), done.version);
        Some(Message::Done { object: id, number, results, version, proof: done.proof.clone() })
    }

    /// Tells a client what its last write came to.
    pub(super) fn tell(&self, id: Digest, client: ClientId, out: &mut Outbox) {
        let object = self.objects.get(&id).filter(|_| !self.lives.is_rejoining());
        let answer = object.and_then(|object| Self::answer(id, object, client));
        answer.into_iter().for_each(|answer| out.send(Peer::Client(client), answer));
    }
}

/// Phase 2.
impl Replica {
    /// ⟨WRITE-2, writeC⟩ (A.4, step 2). Whoever sends it: the certificate says everything.
    pub(super) fn on_write2(&mut self, from: Peer, proof: Proof, write: Option<Write>, answer: bool, out: &mut Outbox) {
        let grant = *proof.statement();
        let (id, wants) = (grant.object, answer && from == Peer::Client(grant.client));
        let is_in_order = self.course(id).is_in_order();
        if let Some(object) = self.objects.get(&id) {
            // Cheap first: a certificate that says nothing new is not looked at any closer.
            if grant.version <= object.now.version() {
                let number = object.now.done.get(&grant.client).map(|done| done.number);
                return match number {
                    Some(number) if number == grant.number && wants => self.tell(id, grant.client, out),
                    Some(number) if number > grant.number => out.ignore(from, Why::Duplicate),
                    // It was superseded: its client asks as everybody does now.
                    _ if wants && is_in_order => {
                        out.send_unsynced(from, Message::InOrder { object: id, number: grant.number }); // PBFT's word
                    }
                    _ => out.ignore(from, Why::Duplicate),
                };
            }
            if grant.version.vs < object.seen {
                return out.ignore(from, Why::OldView);
            }
        }
        let mut proof = proof;
        if let Err(fault) = proof.prove(&self.keyring, self.quorum()) {
            return out.blame(from, fault);
        }
        let object = self.objects.entry(id).or_insert_with(|| Object::new(bytes::Bytes::new()));
        if let Some(write) = write.filter(|write| grant.is_for(write.ask())) {
            if object.name.is_empty() {
                object.name = write.name.clone();
            }
            if object.body(grant.hash).is_none() {
                object.bodies.insert(grant.hash, write);
            }
        }
        match &mut object.phase {
            Phase::Frozen(_) if grant.version.vs <= object.seen => {
                // A frozen object executes nothing: what it has said of itself must stay true.
                return self.delay(id, from, Message::Write2 { proof, write: None, answer }, out);
            }
            Phase::Resolving(it) if grant.version.vs < it.vs => return out.ignore(from, Why::OldView),
            Phase::Resolving(it) if it.plan().is_some_and(|plan| plan.list.has(&grant)) => {
                it.shown.insert(grant.version, proof);
                return self.proceed(id, out);
            }
            Phase::Frozen(_) | Phase::Resolving(_) => return self.fall_behind(id, out),
            Phase::Free | Phase::Writing(..) | Phase::InOrder(_) | Phase::Taking(_) => {}
        }
        if object.pending.as_ref().is_none_or(|(known, _)| known.statement().version < grant.version) {
            object.pending = Some((proof, wants));
        } else if let Some((known, waits)) = &mut object.pending
            && *known.statement() == grant
        {
            *waits |= wants;
        }
        self.proceed(id, out);
    }

    /// A certified write, or what waited for the object to be free.
    pub(super) fn proceed_writing(&mut self, id: Digest, out: &mut Outbox) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let Some((proof, answer)) = object.pending.clone() else { return self.replay(id, out) };
        let grant = *proof.statement();
        if grant.version <= object.now.version() || grant.version.vs < object.seen {
            object.pending = None;
            let executed = object.now.done.get(&grant.client).is_some_and(|done| done.number == grant.number);
            if answer && executed {
                self.tell(id, grant.client, out);
            }
            return self.replay(id, out);
        }
        if grant.version != object.next() && !mutated!("hq/executes-past-a-gap") {
            return self.fall_behind(id, out);
        }
        let Some(write) = object.body(grant.hash).cloned() else { return self.want(id, grant.hash, out) };
        let step = write.step(grant.version.ts);
        if self.step(id, step, out)
            && let Some(object) = self.objects.get_mut(&id)
        {
            object.pending = None;
            object.phase = Phase::Writing(Box::new((proof, write)), answer);
        }
    }

    /// The machine has done a step.
    pub(super) fn stepped(&mut self, op: OpNumber, mut stepped: Stepped, out: &mut Outbox) {
        if op <= self.steps.replayed {
            return;
        }
        let id = match self.steps.moving.remove(&op) {
            Some(Moving::One(id)) => id,
            Some(Moving::Several(rank)) => {
                self.steps.done = op;
                shorten(&mut stepped, ACROSS_REPLY_BYTES_MAX);
                return self.stepped_across(op, rank, stepped, out);
            }
            None => return,
        };
        shorten(&mut stepped, REPLY_BYTES_MAX);
        let Some(object) = self.objects.get_mut(&id) else { return };
        self.steps.done = op;
        match std::mem::replace(&mut object.phase, Phase::Free) {
            Phase::Writing(written, answer) => {
                let (proof, write) = *written;
                let client = write.ask().client;
                self.executed(id, op, proof, write, stepped, out);
                if answer {
                    self.tell(id, client, out);
                }
            }
            Phase::InOrder(due) => self.stepped_in_order(id, op, *due, stepped, out),
            Phase::Taking(transferred) => self.taken(id, op, *transferred, out),
            Phase::Resolving(resolving) => self.stepped_resolving(id, op, *resolving, stepped, out),
            other @ (Phase::Free | Phase::Frozen(_)) => {
                object.phase = other; // no step was asked for in these
            }
        }
        self.after_step(out);
        self.proceed(id, out);
    }

    /// A.4, steps 4 and 6: what was executed is written down before anybody hears of it.
    pub(super) fn executed(
        &mut self,
        id: Digest,
        op: OpNumber,
        proof: Proof,
        write: Write,
        stepped: Stepped,
        out: &mut Outbox,
    ) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let Stepped { replies: results, before } = stepped;
        let former = object.now.version();
        let next = object.now.after(proof.statement().version, Some(proof.clone()), write.clone(), results.clone());
        let state = std::mem::replace(&mut object.now, next);
        object.before = Some((state, before.clone()));
        object.grant = None;
        object.writes.clear();
        object.bodies.clear();
        let version = object.now.version();
        if !mutated!("hq/execution-is-not-durable") {
            let record = Record::Executed { op, proof, write, results, before };
            let seq = out.persist(Class::Promise, record);
            self.steps.records.push_back((op, seq));
            self.recorded(id, seq);
        }
        out.note(Note::Committed(op));
        self.changed(id, former, version, out);
    }
}

/// Write-backs and reads.
impl Replica {
    /// ⟨WRITEBACK-WRITE, writeC, w1⟩: as WRITE-2, then as WRITE-1.
    pub(super) fn on_write_back(&mut self, from: ClientId, proof: Proof, write: Write, out: &mut Outbox) {
        if write.ask().object != proof.statement().object {
            return out.blame(Peer::Client(from), Fault::Malformed("a write-back of two objects".to_owned()));
        }
        self.on_write2(Peer::Client(from), proof, None, false, out);
        self.on_write1(from, write, out);
    }

    /// ⟨WRITEBACK-READ, writeC, r⟩: as WRITE-2, then as READ.
    pub(super) fn on_write_back_read(&mut self, from: ClientId, proof: Proof, read: ReadRequest, out: &mut Outbox) {
        self.on_write2(Peer::Client(from), proof, None, false, out);
        self.on_read(from, read, out);
    }

    /// ⟨READ, cid, oid, op, nonce⟩ (A.5). An object that is busy or frozen answers when it is free.
    pub(super) fn on_read(&mut self, from: ClientId, read: ReadRequest, out: &mut Outbox) {
        if self.reads.len() >= READS_MAX {
            return out.ignore(Peer::Client(from), Why::Busy);
        }
        if self.wait_whole(from, &read, out) {
            return;
        }
        let id = read.name.as_ref().map(|name| object_of(name));
        let known = id.and_then(|id| Some((id, self.objects.get(&id)?)));
        let (version, proof) = match known {
            Some((id, object)) if !object.is_free() => {
                return self.delay(id, Peer::Client(from), Message::Read(read), out);
            }
            Some((_, object)) => (object.now.version(), object.now.proof.clone()),
            None => (super::Version::default(), None),
        };
        let full = read.full.is_none_or(|replica| replica == self.me);
        let ticket = self.ticket();
        self.reads.insert(ticket, Reading { client: from, nonce: read.nonce, full, version, proof });
        out.query(ticket, read.query);
    }
}

/// What no record would take is told to nobody. All replicas do so with the same replies.
fn shorten(stepped: &mut Stepped, bytes_max: usize) {
    for reply in stepped.replies.iter_mut().filter(|reply| reply.len() > bytes_max) {
        *reply = bytes::Bytes::from_static(TOO_LONG);
    }
}
