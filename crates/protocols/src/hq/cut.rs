//! Cutting PBFT's log: what its order has led to at one entry stands for all entries up to there.
//!
//! PBFT's state inside HQ is what its order says of objects and of operations on several, not the objects themselves. A *cut* is that
//! state at an entry at which no operation on several objects waits for a resolution; all replicas make the same one. A replica
//! votes for it, as PBFT's replicas do for a snapshot, when each object here has been through all that the cut knows of. So when a
//! quorum has voted, `f + 1` correct replicas have every object as far, and whoever is behind needs no entry up to there: it
//! takes the cut, which proves itself by its digest, and the objects from others.
//!
//! Guarantees that a replica that has taken a cut answers no client before its own objects are through it.

use super::Outbox;
use super::durable::Record;
use super::in_order::Course;
use super::message::Message;
use super::ordered::Rank;
use super::rejoin::Lived;
use super::replica::{Moving, Replica};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber};
use quorate_core::mutated;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{self, Checkpoint};
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// Objects that a cut knows of, at most: it is one message. Where more were contended, the log is not cut any more.
pub const CUT_OBJECTS_MAX: usize = 65_536;
/// Cuts that are kept: the last one, and the one that the others may have agreed on last.
const KEPT_MAX: usize = 2;
/// How often a cut is asked for before PBFT is told that nobody has it.
const TRIES_MAX: u32 = 6;

/// What PBFT's order has led to at an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Cut {
    /// The entry.
    pub op: OpNumber,
    /// What the order says of each object that was ever contended.
    pub courses: BTreeMap<Digest, Course>,
    /// The last operation on several objects of each client, and its place.
    pub clients: BTreeMap<ClientId, (RequestNumber, Rank)>,
    /// Whoever is not among them has had nothing ordered after this entry.
    pub forgotten: OpNumber,
    /// The last life of each replica that has lost its disk.
    pub lives: BTreeMap<ReplicaId, Lived>,
}

impl Cut {
    /// What replicas vote for.
    pub fn checkpoint(&self) -> Checkpoint {
        Checkpoint { op: self.op, id: Digest::of(&self.encode()) }
    }
}

/// The cuts that a replica knows of.
#[derive(Debug, Default)]
pub(super) struct Cuts {
    /// The last one in PBFT's order.
    last: OpNumber,
    /// Bytes that PBFT has ordered since.
    bytes: u64,
    /// One that this replica has not voted for, and the objects that have not been through it here.
    pending: Option<(Cut, BTreeSet<Digest>)>,
    /// Those on the disk, with the records that say so; at most [`KEPT_MAX`].
    kept: BTreeMap<OpNumber, (Cut, RecordSeq)>,
    /// One that PBFT has heard of, and how often it was asked for.
    fetching: Option<(Checkpoint, u32)>,
    /// Objects that have not been through the cut that this replica has taken from others.
    lagging: BTreeSet<Digest>,
}

impl Cuts {
    /// As the disk has them.
    pub(super) fn restored(kept: BTreeMap<OpNumber, (Cut, RecordSeq)>) -> Self {
        let last = kept.keys().next_back().copied().unwrap_or_default();
        let mut cuts = Self { last, kept, ..Self::default() };
        cuts.drop_old();
        cuts
    }

    /// The latest on the disk.
    pub(super) fn latest(&self) -> Option<&Cut> {
        self.kept.values().next_back().map(|(cut, _)| cut)
    }

    pub(super) fn count(&self) -> usize {
        self.kept.len()
    }

    /// The one whose record is the first, and that record.
    pub(super) fn oldest(&self) -> Option<(RecordSeq, OpNumber)> {
        self.kept.iter().map(|(op, (_, seq))| (*seq, *op)).min()
    }

    /// Writes one down anew.
    pub(super) fn keep_again(&mut self, op: OpNumber, out: &mut Outbox) {
        if let Some((cut, seq)) = self.kept.get_mut(&op) {
            *seq = out.persist(Class::Promise, Record::Cut(Box::new(cut.clone())));
        }
    }

    fn keep(&mut self, cut: Cut, out: &mut Outbox) {
        let seq = out.persist(Class::Promise, Record::Cut(Box::new(cut.clone())));
        self.kept.insert(cut.op, (cut, seq));
        self.drop_old();
    }

    fn drop_old(&mut self) {
        while self.kept.len() > KEPT_MAX {
            self.kept.pop_first();
        }
    }

    /// Is there an object that others have to bring on, or a cut that they have to show?
    pub(super) fn is_waiting(&self) -> bool {
        self.fetching.is_some() || !self.lagging.is_empty()
    }

    /// Has this replica taken a cut that not all of its objects have been through?
    pub(super) fn lags(&self) -> bool {
        !self.lagging.is_empty() && !mutated!("hq/answers-behind-a-cut")
    }

    /// Does anything here wait for this object?
    pub(super) fn waits_for(&self, id: Digest) -> bool {
        self.lagging.contains(&id)
    }
}

/// One's own.
impl Replica {
    pub(super) fn is_through(&self, id: Digest, entry: OpNumber) -> bool {
        self.objects.get(&id).is_some_and(|object| object.seen >= entry)
    }

    /// Those that have not been through what PBFT's order says of them, and what that is.
    pub(super) fn behind_order(&self) -> BTreeMap<Digest, OpNumber> {
        let behind = self.courses.iter().filter(|(id, course)| !self.is_through(**id, course.seen));
        behind.map(|(id, course)| (*id, course.seen)).collect()
    }

    /// Is the log so many times as long, at this entry, as it is to be?
    fn is_long(&self, op: OpNumber, times: u64) -> bool {
        let (entries, bytes) = (self.config.cut_entries.max(1), self.config.cut_bytes.max(1));
        let is_long = op.since(self.cuts.last) >= entries.saturating_mul(times);
        (is_long || self.cuts.bytes >= bytes.saturating_mul(times)) && self.courses.len() <= CUT_OBJECTS_MAX
    }

    /// A cut is made where no operation on several objects waits, and no renewal. Where it has not come to that for long, no more of them are ordered
    /// until it has.
    pub(super) fn cut_is_overdue(&self, op: OpNumber) -> bool {
        self.is_long(op, 2)
    }

    /// PBFT's order has come to this entry: is it one at which everybody cuts?
    pub(super) fn consider_cut(&mut self, op: OpNumber, bytes: usize) {
        self.cuts.bytes = self.cuts.bytes.saturating_add(bytes as u64);
        if !self.is_long(op, 1) || self.across.is_open() || self.lives.is_open() {
            return;
        }
        (self.cuts.last, self.cuts.bytes) = (op, 0);
        let (clients, forgotten) = self.across.clients();
        let lives = self.lives.noted().clone();
        let cut = Cut { op, courses: self.courses.clone(), clients, forgotten, lives };
        self.cuts.pending = Some((cut, self.behind_order().into_keys().collect())); // one that was not voted for yet is passed by
    }

    /// At the end of a turn: votes for a cut that its objects have been through; goes on answering when they have.
    pub(super) fn settle_cuts(&mut self, out: &mut Outbox) {
        while let Some(id) = self.cuts.lagging.first().copied() {
            if !self.is_through(id, self.taken_course(id)) {
                break;
            }
            self.cuts.lagging.remove(&id);
            self.recall_all(id, out);
        }
        let Some((cut, behind)) = &mut self.cuts.pending else { return };
        let objects = &self.objects;
        let seen = |id: &Digest| objects.get(id).map(|object| object.seen);
        let is_through = |id: &Digest| seen(id) >= cut.courses.get(id).map(|course| course.seen);
        while let Some(id) = behind.first().copied() {
            if !is_through(&id) && !mutated!("hq/cuts-before-its-objects-are-through") {
                return;
            }
            behind.remove(&id);
        }
        let Some((cut, _)) = self.cuts.pending.take() else { return };
        let checkpoint = cut.checkpoint();
        self.cuts.keep(cut, out);
        out.note(Note::Other("PBFT's order was cut"));
        self.module(out, |module, out| protocol::Replica::on_checkpoint(module, checkpoint, out));
    }

    /// How far the cut that was taken says that an object is.
    fn taken_course(&self, id: Digest) -> OpNumber {
        let taken = self.cuts.latest().and_then(|cut| cut.courses.get(&id));
        taken.map_or(OpNumber::ZERO, |course| course.seen)
    }
}

/// Others'.
impl Replica {
    /// PBFT has heard of a cut that a quorum has voted for, and has not the entries up to it.
    pub(super) fn fetch_cut(&mut self, checkpoint: Checkpoint, from: ReplicaId, out: &mut Outbox) {
        let former = self.cuts.fetching.replace((checkpoint, 0)).filter(|(former, _)| *former != checkpoint);
        if let Some((former, _)) = former {
            // It is not asked for any more, and PBFT waits for a few at a time.
            self.module(out, |module, out| protocol::Replica::on_fetch_failed(module, former, out));
        }
        out.send_unsynced(Peer::Replica(from), Message::GetCut(checkpoint.op)); // a question
        self.expect_progress(out);
    }

    /// Says again what has to do with cuts.
    pub(super) fn cuts_again(&mut self, most: usize, out: &mut Outbox) {
        if let Some((checkpoint, tries)) = self.cuts.fetching {
            if tries >= TRIES_MAX {
                self.cuts.fetching = None;
                self.module(out, |module, out| protocol::Replica::on_fetch_failed(module, checkpoint, out));
            } else {
                self.cuts.fetching = Some((checkpoint, tries.saturating_add(1)));
                out.broadcast_unsynced(Message::GetCut(checkpoint.op)); // a question
            }
        }
        let lagging: Vec<Digest> = self.cuts.lagging.iter().take(most).copied().collect();
        for id in lagging {
            if !self.is_through(id, self.taken_course(id)) && !self.objects.get(&id).is_some_and(|it| it.is_in_turn()) {
                self.fall_behind(id, out);
            }
        }
    }

    /// Somebody is behind.
    pub(super) fn on_get_cut(&mut self, from: ReplicaId, op: OpNumber, out: &mut Outbox) {
        let to = Peer::Replica(from);
        match self.cuts.kept.get(&op) {
            Some((cut, _)) => out.send_unsynced(to, Message::Cut(Box::new(cut.clone()))), // its digest proves it
            None => out.ignore(to, Why::NotHere),
        }
    }

    /// The answer. A quorum has voted for its digest.
    pub(super) fn on_cut(&mut self, from: ReplicaId, cut: Cut, out: &mut Outbox) {
        let peer = Peer::Replica(from);
        let Some((checkpoint, _)) = self.cuts.fetching.filter(|(asked, _)| asked.op == cut.op) else {
            return out.ignore(peer, Why::Unasked);
        };
        if cut.checkpoint() != checkpoint {
            return out.blame(peer, Fault::WrongBytes(format!("the cut at entry {}", cut.op)));
        }
        if self.steps.moving.values().any(|it| matches!(it, Moving::Several(_))) {
            return out.ignore(peer, Why::Busy); // it is asked for again when the machine has done that
        }
        self.cuts.fetching = None;
        if cut.op <= self.across.through {
            return out.ignore(peer, Why::Duplicate);
        }
        self.install(cut, out);
        self.module(out, |module, out| protocol::Replica::on_installed(module, checkpoint, None, out));
        self.forget_results();
        self.expect_progress(out);
    }

    /// PBFT's order is at the cut. What was on the way to it here is over: others have been through it.
    fn install(&mut self, cut: Cut, out: &mut Outbox) {
        out.note(Note::Other("a cut of PBFT's order was taken from others"));
        let op = cut.op;
        self.courses.clone_from(&cut.courses);
        self.across.install(&cut);
        self.lives.install(&cut.lives);
        self.drop_void_starts();
        self.check_life(out);
        (self.cuts.last, self.cuts.bytes, self.cuts.pending) = (op, 0, None);
        let courses = &cut.courses;
        let is_old = |id: &Digest, seen: OpNumber| courses.get(id).is_some_and(|course| seen < course.seen);
        self.starts.retain(|start| !is_old(&start.object, start.seen));
        self.cuts.keep(cut, out);
        self.follow_cut(out);
        let waiting = self.submissions.objects();
        let over: Vec<Digest> = waiting.into_iter().filter(|id| !self.course(*id).is_in_order()).collect();
        over.into_iter().for_each(|id| self.leave_order(id, out));
    }

    /// Objects that have not been through the latest cut are had from others, but those that get there by themselves.
    pub(super) fn follow_cut(&mut self, out: &mut Outbox) {
        self.cuts.lagging = self.behind_order().into_keys().collect();
        let lagging: Vec<Digest> = self.cuts.lagging.iter().copied().collect();
        for id in lagging {
            if self.objects.get(&id).is_some_and(|object| object.is_in_turn()) {
                continue;
            }
            if let Some(object) = self.objects.get_mut(&id) {
                object.due.clear();
            }
            self.fall_behind(id, out);
        }
    }
}
