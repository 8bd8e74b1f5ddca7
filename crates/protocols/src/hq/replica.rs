//! The replica: its state, and which handler takes what. The chapters are `normal` (the paper's §3.1 and §3.2: no contention),
//! `contention` and `resolve` (§3.3), `in_order` (ordered mode), `transfer` (who is behind), `module` (PBFT inside), `recovery` (the disk).

use super::contention::Starts;
use super::cut::Cuts;
use super::durable::Record;
use super::in_order::{Course, Submissions};
use super::message::{BUCKETS, Grant, Message, Proof, Transferred, Version};
use super::object::{Object, Phase};
use super::ordered::{Across, Rank};
use super::rejoin::Lives;
use super::turn::Turn;
use super::{Config, Hq, Outbox, Timer};
use crate::pbft;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::objects::{Image, Step, Stepped};
use quorate_core::outbox::Class;
use quorate_core::protocol::{self, Checkpoint, QueryTicket, Restore, RestoreError, Status};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Outcome;
use quorate_core::time::{Duration, WallTime};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// A read that the machine is asked.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) client: ClientId,
    pub(super) nonce: u64,
    pub(super) full: bool,
    pub(super) version: Version,
    pub(super) proof: Option<Proof>,
}

/// This replica's own order of steps.
#[derive(Debug, Default)]
pub(super) struct Steps {
    /// The last one asked for.
    pub(super) asked: OpNumber,
    /// The last one done, and kept.
    pub(super) done: OpNumber,
    /// What those are about that the machine has not done.
    pub(super) moving: BTreeMap<OpNumber, Moving>,
    /// Steps up to here belong to an earlier life.
    pub(super) replayed: OpNumber,
    /// No more steps until all are done and kept: a snapshot is due.
    pub(super) barrier: bool,
    /// Objects that wait for that.
    pub(super) stalled: BTreeSet<Digest>,
    /// The last snapshot that was asked for, and the last that is durable.
    pub(super) snapshot: OpNumber,
    pub(super) saved: OpNumber,
    /// The records of the steps after the last durable snapshot.
    pub(super) records: VecDeque<(OpNumber, RecordSeq)>,
}

/// What a step is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moving {
    /// One object.
    One(Digest),
    /// An operation on several.
    Several(Rank),
}

/// Why this replica asks for an object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// Something here waits for it.
    #[default]
    Needed,
    /// It is on the way back, and this one has executed or granted more, it says.
    Listed(ReplicaId),
    /// This one says that there is more of it than here.
    Heard(ReplicaId),
}

/// An object that this replica is behind with.
#[derive(Debug, Default)]
pub(super) struct Behind {
    pub(super) cause: Cause,
    pub(super) told: BTreeMap<ReplicaId, Transferred>,
    pub(super) tries: u32,
}

/// What everybody has, in sums.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) own: Vec<u64>,
    /// What was told last.
    pub(super) told: Vec<u64>,
    pub(super) others: BTreeMap<ReplicaId, Vec<u64>>,
    pub(super) armed: bool,
    pub(super) pause: Duration,
}

impl Compared {
    pub(super) fn new(pause: Duration) -> Self {
        Self { own: vec![0; BUCKETS], told: Vec::new(), others: BTreeMap::new(), armed: false, pause }
    }
}

/// A replica of HQ.
#[derive(Debug)]
pub struct Replica {
    pub(super) me: ReplicaId,
    pub(super) quorums: ByzantineQuorums,
    pub(super) config: Config,
    pub(super) keyring: Arc<Keyring>,
    pub(super) objects: BTreeMap<Digest, Object>,

    /// PBFT, and its records by the numbers that it knows them by, with the numbers that they have.
    pub(super) module: pbft::Replica,
    pub(super) carried: BTreeMap<RecordSeq, (RecordSeq, pbft::Record)>,
    /// The former by the latter.
    pub(super) places: BTreeMap<RecordSeq, RecordSeq>,
    /// What PBFT's order says of each object that was ever contended.
    pub(super) courses: BTreeMap<Digest, Course>,
    /// Requests for objects in ordered mode.
    pub(super) submissions: Submissions,
    /// Requests that this replica has made to PBFT.
    pub(super) requests: u64,
    /// STARTs by object and signer.
    pub(super) starts: Starts,
    /// What was handed to PBFT as its primary: once for each resolution.
    pub(super) submitted: BTreeMap<Digest, OpNumber>,
    /// Grants of resolutions that this replica has not come to.
    pub(super) early: BTreeMap<Digest, BTreeMap<ReplicaId, Vec<Verified<Grant>>>>,
    /// Operations on several objects.
    pub(super) across: Across,
    /// What lets PBFT's log be cut.
    pub(super) cuts: Cuts,
    /// Which replicas have lost their disks, this one too, and what follows from that.
    pub(super) lives: Lives,
    /// Objects that are frozen or being resolved, and which of them is told of next.
    pub(super) active: BTreeSet<Digest>,
    pub(super) next_active: Turn<Digest>,

    pub(super) steps: Steps,
    pub(super) reads: BTreeMap<QueryTicket, Reading>,
    pub(super) images: BTreeMap<QueryTicket, (ReplicaId, Transferred)>,
    pub(super) last_ticket: u64,
    /// Operations that are asked for: object, and what stands for it.
    pub(super) wanted: BTreeSet<(Digest, Digest)>,
    pub(super) behind: BTreeMap<Digest, Behind>,
    pub(super) compared: Compared,
    /// [`Timer::Again`] is armed.
    pub(super) again: bool,
    pub(super) pause: Duration,
    /// The first record that each object needs.
    pub(super) firsts: BTreeSet<(RecordSeq, Digest)>,
}

impl Replica {
    pub(super) fn quorum(&self) -> usize {
        self.quorums.quorum()
    }

    pub(super) fn me(&self) -> Peer {
        Peer::Replica(self.me)
    }

    pub(super) fn ticket(&mut self) -> QueryTicket {
        self.last_ticket = self.last_ticket.wrapping_add(1);
        QueryTicket(self.last_ticket)
    }

    /// The object with this name, from its first mention on.
    pub(super) fn object(&mut self, name: &Bytes) -> (Digest, &mut Object) {
        let id = super::message::object_of(name);
        let object = self.objects.entry(id).or_insert_with(|| Object::new(name.clone()));
        if object.name.is_empty() {
            object.name = name.clone();
        }
        (id, object)
    }

    /// Writes everything about an object down, anew.
    pub(super) fn keep(&mut self, id: Digest, step: Option<(OpNumber, Image)>, out: &mut Outbox) -> Option<RecordSeq> {
        let upto = self.steps.done;
        let object = self.objects.get_mut(&id)?;
        let mut kept = object.kept(id, step, upto);
        let apart = Object::kept_apart(&mut kept).map(|(writes, settled)| Record::Writes(writes, settled));
        let apart = apart.map(|record| out.persist(Class::Promise, record));
        let seq = out.persist(Class::Promise, Record::Object(Box::new(kept)));
        let first = apart.unwrap_or(seq);
        if let Some(former) = object.first.replace(first) {
            self.firsts.remove(&(former, id));
        }
        self.firsts.insert((first, id));
        Some(seq)
    }

    /// A record was added to those that an object needs.
    pub(super) fn recorded(&mut self, id: Digest, seq: RecordSeq) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        if object.first.is_none() {
            object.first = Some(seq);
            self.firsts.insert((seq, id));
        }
    }

    /// Asks the machine for a step; false while none may begin.
    pub(super) fn step(&mut self, id: Digest, step: Step, out: &mut Outbox) -> bool {
        if self.steps.barrier {
            self.steps.stalled.insert(id);
            return false;
        }
        self.steps.asked = self.steps.asked.next();
        self.steps.moving.insert(self.steps.asked, Moving::One(id));
        out.step(self.steps.asked, step);
        true
    }

    fn on_replicas_message(&mut self, from: ReplicaId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        match message {
            Message::Write2 { proof, write, .. } => {
                let write = write.map(super::Write::proven).transpose()?;
                self.on_write2(Peer::Replica(from), proof, write, false, out);
            }
            Message::Start(start) => self.on_start(start.verified()?, out),
            Message::Grants { grants, again } => {
                let grants = grants.into_iter().map(quorate_core::crypto::Signed::verified);
                self.on_grants(from, grants.collect::<Result<_, _>>()?, again, out);
            }
            Message::GetWrite { object, hash } => self.on_get_write(from, object, hash, out),
            Message::Wrote(write) => self.on_wrote(from, write.proven()?, out),
            Message::GetObject { object } => self.on_get_object(from, object, out),
            Message::Object(transferred) => self.on_object(from, *transferred, out),
            Message::Sums { sums, ask } => self.on_sums(from, sums, ask, out),
            Message::GetVersions { bucket, after } => self.on_get_versions(from, bucket, after, out),
            Message::Versions { bucket, versions } => self.on_versions(from, bucket, versions, out),
            Message::GetCut(op) => self.on_get_cut(from, op, out),
            Message::Cut(cut) => self.on_cut(from, *cut, out),
            Message::GetExecuted { nonce, after } => self.on_get_executed(from, nonce, after, out),
            Message::Executed { nonce, after, places } => {
                self.on_executed_elsewhere(from, nonce, after, places, out);
            }
            Message::Steps(op) => self.on_steps(from, op, out),
            // Each asks PBFT for its own only, and says so itself: who says again what others have asked for fills their room.
            Message::Module(pbft::Message::Request(group)) if self.asker(group.statement().client) != Some(from) => {
                out.ignore(Peer::Replica(from), Why::NotForSender);
            }
            Message::Module(message) => {
                let from = Peer::Replica(from);
                self.module(out, |module, out| protocol::Replica::on_message(module, from, message, out));
            }
            Message::Write1(_)
            | Message::Granted { .. }
            | Message::Refused { .. }
            | Message::TooOld { .. }
            | Message::InOrder { .. }
            | Message::Submit(_)
            | Message::Done { .. }
            | Message::Ordered(_)
            | Message::OrderedDone { .. }
            | Message::OrderedTooOld { .. }
            | Message::WriteBack { .. }
            | Message::Read(_)
            | Message::WriteBackRead { .. }
            | Message::ReadAnswer { .. }
            | Message::Resolve { .. } => out.ignore(Peer::Replica(from), Why::NotForSender),
        }
        Ok(())
    }

    fn on_clients_message(&mut self, from: ClientId, message: Message, out: &mut Outbox) -> Result<(), Fault> {
        let peer = Peer::Client(from);
        if self.lives.is_rejoining() {
            // A certificate says everything, whoever shows it; and nobody is answered.
            match message {
                Message::Write2 { proof, write, .. } => {
                    let write = write.map(super::Write::proven).transpose()?;
                    self.on_write2(peer, proof, write, false, out);
                }
                Message::WriteBack { proof, .. } | Message::WriteBackRead { proof, .. } => {
                    self.on_write2(peer, proof, None, false, out);
                }
                _ => out.ignore(peer, Why::NotNow),
            }
            return Ok(());
        }
        if self.catches_up() {
            out.ignore(peer, Why::NotNow);
            return Ok(());
        }
        match message {
            Message::Ordered(ordered) => self.on_ordered(from, *ordered, out),
            Message::Write1(write) => self.on_write1(from, write.proven()?, out),
            Message::Submit(write) => self.on_submit(from, write.proven()?, out),
            Message::Write2 { proof, write, answer } => {
                let write = write.map(super::Write::proven).transpose()?;
                self.on_write2(peer, proof, write, answer, out);
            }
            Message::WriteBack { proof, write } => self.on_write_back(from, proof, write.proven()?, out),
            Message::Read(read) => self.on_read(from, read, out),
            Message::WriteBackRead { proof, read } => self.on_write_back_read(from, proof, read, out),
            Message::Resolve { conflict, write } => self.on_resolve(from, conflict, write.proven()?, out),
            _ => out.ignore(peer, Why::NotForSender),
        }
        Ok(())
    }

    /// A message, now or when its object was free again.
    pub(super) fn take(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        let taken = match from {
            Peer::Replica(replica) if self.quorums.contains(replica) => self.on_replicas_message(replica, message, out),
            Peer::Client(client) => self.on_clients_message(client, message, out),
            Peer::Replica(_) => {
                out.ignore(from, Why::NotForSender);
                Ok(())
            }
        };
        if let Err(fault) = taken {
            out.blame(from, fault);
        }
    }

    /// What is done at the end of a turn.
    pub(super) fn end_turn(&mut self, out: &mut Outbox) {
        self.settle_cuts(out);
        self.settle_rejoining(out);
        self.submit_held(out);
        self.submit_in_order(out);
    }

    /// Keeps a message until its object is free.
    pub(super) fn delay(&mut self, id: Digest, from: Peer, message: Message, out: &mut Outbox) {
        let kept = self.objects.get_mut(&id).is_some_and(|object| object.delay(from, message));
        if !kept {
            out.ignore(from, Why::Busy);
        }
    }

    /// Does what has become possible on an object.
    pub(super) fn proceed(&mut self, id: Digest, out: &mut Outbox) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        if object.is_moving() {
            return;
        }
        if self.run_due(id, out) {
            return self.expect_progress(out);
        }
        let Some(object) = self.objects.get_mut(&id) else { return };
        if let Some(mut decided) = object.decided.take() {
            decided.left = object.list().filter(|_| object.is_between()).cloned();
            object.phase = Phase::Resolving(decided);
            self.active.insert(id);
        }
        let (is_free, is_resolving) =
            (matches!(object.phase, Phase::Free), matches!(object.phase, Phase::Resolving(_)));
        if is_resolving {
            self.proceed_resolving(id, out);
        } else if is_free && self.objects.get(&id).is_some_and(|object| self.has_to_freeze(id, object)) {
            self.joins(id, out);
        } else if !self.adopt(id, out) && is_free && !self.joins(id, out) {
            self.proceed_writing(id, out);
        }
        self.expect_progress(out);
    }

    /// The object is free: what waited for that is handled, in order, until it is not.
    pub(super) fn replay(&mut self, id: Digest, out: &mut Outbox) {
        let count = self.objects.get(&id).map_or(0, |object| object.delayed.len());
        for _ in 0..count {
            let Some(object) = self.objects.get_mut(&id).filter(|object| object.is_free()) else { return };
            let Some((from, message)) = object.delayed.pop_front() else { return };
            self.take(from, message, out);
        }
    }

    fn on_query_answered(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some(read) = self.reads.remove(&ticket) else { return };
        let answer = pbft::Told::new(answer, read.full);
        let message = Message::ReadAnswer { nonce: read.nonce, version: read.version, answer, proof: read.proof };
        // Waits for the disk: what the machine has executed was written down before the machine answered.
        out.send(Peer::Client(read.client), message);
    }
}

impl protocol::Replica<Hq> for Replica {
    fn restore(_: Restore<Hq>, _: &mut Outbox) -> Result<Self, RestoreError> {
        Err(RestoreError::NoKey)
    }

    fn start(restore: Restore<Hq>, keyring: Arc<Keyring>, out: &mut Outbox) -> Result<Self, RestoreError> {
        super::recovery::restore(restore, keyring, out)
    }

    fn on_message(&mut self, from: Peer, message: Message, out: &mut Outbox) {
        self.take(from, message, out);
        self.end_turn(out);
    }

    fn on_timer(&mut self, timer: Timer, out: &mut Outbox) {
        match timer {
            Timer::Module(timer) => self.module(out, |module, out| protocol::Replica::on_timer(module, timer, out)),
            Timer::Again => self.on_again(out),
            Timer::Compare => self.on_compare(out),
        }
        self.end_turn(out);
    }

    /// Nothing is executed by PBFT's order in the machine.
    fn on_executed(&mut self, _: OpNumber, _: Outcome, _: &mut Outbox) {}

    fn on_queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        self.on_query_answered(ticket, answer, out);
    }

    fn on_stepped(&mut self, op: OpNumber, stepped: Stepped, out: &mut Outbox) {
        self.stepped(op, stepped, out);
        self.end_turn(out);
    }

    fn on_image(&mut self, ticket: QueryTicket, image: Image, out: &mut Outbox) {
        self.imaged(ticket, image, out);
    }

    fn on_checkpoint(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.saved(checkpoint, out);
    }

    /// No checkpoint of others is ever fetched: there is no state that all replicas pass through.
    fn on_installed(&mut self, _: Checkpoint, _: Option<WallTime>, _: &mut Outbox) {}

    fn on_fetch_failed(&mut self, _: Checkpoint, _: &mut Outbox) {}

    fn status(&self) -> Status {
        let role = match (self.active.len(), self.behind.len()) {
            (0, 0) => "replica",
            (0, _) => "catching up",
            _ => "resolving contention",
        };
        Status {
            role: self.lives.role(self.quorum()).unwrap_or_else(|| role.to_owned()),
            view: self.module.view(),
            op: self.steps.asked,
            committed: self.steps.done,
            executed: self.steps.done,
            checkpoint: self.steps.saved,
            // One that is not back lacks something, whatever that is.
            missing: (self.behind.len() as u64).max(u64::from(self.lives.is_rejoining())),
        }
    }

    fn check(&self) -> Result<(), String> {
        super::invariants::check(self)
    }
}
