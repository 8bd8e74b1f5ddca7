//! What was lost: messages, records, a whole disk.
//!
//! **Messages.** Replicas tell each other where they are ([`Message::Status`]) until all say the same; then they are silent.
//! Who is behind asks one who is ahead, and gets entries with the proof that they are committed, or the proof of a state to
//! fetch. Who does not get on says its votes again.
//!
//! **Promises.** A replica that cannot read a vote, or has lost its disk, may have voted for anything up to the high
//! watermark of its former self. It votes for nothing until the log is stable beyond that; see the README for the argument. Where
//! nothing is ordered, it asks for entries, and the primary makes them without requests.

use super::answered::Answered;
use super::durable::{Base, Record, Silence};
use super::log::Log;
use super::message::{Commit, LogCheckpoint, Message, Place, Proposal, StateCheckpoint};
use super::pace::{Grants, Pace, Quotas};
use super::pool::Pool;
use super::replica::{Bounds, Machine, Phase, Replica};
use super::select::select;
use super::tentative::Tentative;
use super::{Outbox, Timer, WINDOW_ENTRIES_MAX};
use crate::quorum_client::replica::Reads;
use quorate_core::crypto::{Certificate, Certified, Digest, Keyring, Signed};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::{Restore, RestoreError, Restored};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::WallTime;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Entries that one answer brings at most, and bytes of their proposals, unless a single one is longer.
const ANSWER_ENTRIES_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Bytes of a certificate in a view change, about: for the quota of who asks for views again and again.
const CERTIFICATE_BYTES: usize = 512;
/// Entries whose votes are said again at once.
const AGAIN_ENTRIES_MAX: usize = 32;

/// Messages.
impl Replica {
    /// Something is under way, or somebody is not known to be where I am.
    fn is_unsettled(&self) -> bool {
        let elsewhere = |replica: ReplicaId| {
            let place = self.peers.get(&replica).copied().unwrap_or(Place::BEGINNING);
            place.committed != self.committed || place.view != self.view || !place.active || place.stable != self.low()
        };
        let others = || self.quorums.members().filter(|replica| *replica != self.me);
        let overdue = self.machine.executed.since(self.low()) >= self.config.interval();
        !self.is_active()
            || self.silent.is_some()
            || overdue
            || self.log.last() > self.committed
            || others().any(elsewhere)
    }

    /// Makes sure that somebody looks again, as long as there is something to look after.
    pub(super) fn expect_progress(&mut self, out: &mut Outbox) {
        if !self.again && self.is_unsettled() {
            self.again = true;
            self.pause = self.config.resend;
            out.arm(Timer::Again, self.pause);
        }
    }

    /// Tells where it is. If nothing has moved since the last time, says again what may have been lost, and asks.
    pub(super) fn on_again(&mut self, out: &mut Outbox) {
        self.again = false;
        if !self.is_unsettled() {
            return;
        }
        let stalled = self.told == self.committed;
        self.told = self.committed;
        // Says nothing that binds: `committed` is proven by others' votes, and the view is left for good already.
        out.broadcast_unsynced(Message::Status(self.place()));
        if let (Phase::Changing { .. }, Some(change)) = (&self.phase, &self.own_change) {
            out.broadcast_unsynced(Message::ViewChange(Box::new(change.clone()))); // it came back durable
        }
        match self.silent.map(|silence| silence.until) {
            Some(None) => out.broadcast_unsynced(Message::GetBound { nonce: self.bounds.nonce }),
            Some(Some(until)) if stalled => out.broadcast_unsynced(Message::GetBeyond { until }), // a question
            _ => {}
        }
        if stalled {
            self.say_again(out);
            self.ask_somebody(out);
            self.ask_where_they_are(out);
            self.fetch_missing(out);
            self.fetch_shown(None, out);
            self.weigh_changes(out); // perhaps what was lacking has come as committed
            self.pause = self.pause.saturating_mul(2).min(self.config.resend_max);
        } else {
            self.pause = self.config.resend;
        }
        self.again = true;
        out.arm(Timer::Again, self.pause);
    }

    /// Votes that are on disk, for entries that are not committed here.
    fn say_again(&self, out: &mut Outbox) {
        if let Some(vote) = self.own_checkpoint.as_ref().filter(|vote| vote.statement().op > self.low()) {
            out.broadcast_unsynced(Message::Checkpoint(vote.clone())); // it came back durable
        }
        if !self.is_active() {
            return;
        }
        let after = self.committed.max(self.low());
        for (_, slot) in self.log.after(after).take(AGAIN_ENTRIES_MAX) {
            let proposal = slot.accepted.and_then(|it| slot.proposal(it.digest));
            if let (true, Some(vote), Some(proposal)) = (self.is_primary(), &slot.pre_prepare, proposal) {
                // As when it was proposed.
                out.broadcast_unsynced(Message::PrePrepare { vote: vote.clone(), proposal: proposal.clone() });
            } else if let Some(vote) = &slot.own_prepare {
                out.broadcast_unsynced(Message::Prepare(vote.clone())); // it came back durable
            }
            if let Some(vote) = &slot.own_commit {
                out.broadcast_unsynced(Message::Commit(vote.clone())); // it came back durable
            }
        }
    }

    /// ⟨STATUS⟩: where somebody is. Whoever has missed a view is told of it.
    pub(super) fn on_status(&mut self, from: ReplicaId, place: Place, out: &mut Outbox) {
        if from == self.me {
            self.ready |= place.view == self.view; // everything before this message is on disk
            return self.propose_more(out);
        }
        self.peers.insert(from, place);
        let to = Peer::Replica(from);
        let behind = (place.view, place.active) < (self.view, self.is_active());
        if behind && !self.quotas.admits(from, self.config.resend, out.now()) {
            out.ignore(to, Why::Busy);
        } else if behind {
            let certificates = self.start.as_ref().map_or(0, |start| {
                let changes = start.statement().changes.iter();
                changes.map(|change| change.statement().prepared.len().saturating_add(1)).sum::<usize>()
            });
            self.quotas.spend(from, certificates.saturating_mul(CERTIFICATE_BYTES));
            match (&self.start, &self.own_change) {
                (Some(start), _) if self.is_active() => out.send(to, Message::NewView(Box::new(start.clone()))),
                (_, Some(change)) => out.send(to, Message::ViewChange(Box::new(change.clone()))),
                _ => {}
            }
        } else if (place.view, place.active) > (self.view, self.is_active()) {
            out.send_unsynced(to, Message::Status(self.place())); // a question
        }
        if place.stable < self.low()
            && let Some(stable) = self.stable.clone()
        {
            out.send_unsynced(to, Message::Stable(stable)); // carries its proof
        }
        if self.asked.is_some_and(|(replica, _)| replica == from) {
            let moved = self.asked.take().is_some_and(|(_, then)| then < self.committed);
            if moved && place.committed > self.committed && self.machine.fetching.is_none() {
                self.ask(from, out);
            }
        } else if place.committed > self.committed.plus(self.config.window()) && self.asked.is_none() {
            self.ask(from, out);
        }
        self.expect_progress(out);
    }

    /// Asks one who says that it is ahead; another one each time.
    pub(super) fn ask_somebody(&mut self, out: &mut Outbox) {
        let ahead = self.peers.iter().filter(|(_, place)| place.committed > self.committed);
        let ahead: Vec<ReplicaId> = ahead.map(|(replica, _)| *replica).collect();
        self.ask_turn = self.ask_turn.wrapping_add(1);
        let index = usize::try_from(self.ask_turn % (ahead.len().max(1) as u64)).unwrap_or(0);
        if let Some(replica) = ahead.get(index).copied() {
            self.ask(replica, out);
        }
    }

    /// Asks those who have last said that they were behind. Who has caught up since, and knows that all the others are where it
    /// is, says nothing by itself any more.
    fn ask_where_they_are(&self, out: &mut Outbox) {
        let place = self.place();
        let others = self.quorums.members().filter(|replica| *replica != self.me);
        for replica in others {
            let told = self.peers.get(&replica).copied().unwrap_or(Place::BEGINNING);
            if told != place && told.committed <= place.committed {
                // A question; its answer ends with where the other one is.
                out.send_unsynced(Peer::Replica(replica), Message::GetCommitted { after: place.committed });
            }
        }
    }

    fn ask(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.asked = Some((replica, self.committed));
        out.send_unsynced(Peer::Replica(replica), Message::GetCommitted { after: self.committed }); // a question
    }

    /// Somebody is behind.
    pub(super) fn on_get_committed(&mut self, from: ReplicaId, after: OpNumber, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        if let Some(stable) = self.stable.clone().filter(|it| it.statement().op > after) {
            out.send_unsynced(to, Message::Stable(stable)); // carries its proof
        }
        if after < self.base.0 {
            match self.state.clone().filter(|it| it.statement().checkpoint.op > after) {
                Some(state) => out.send_unsynced(to, Message::StateStable(state)), // carries its proof
                None => out.ignore(to, Why::NotHere),
            }
            // Perhaps nobody has that state any more, and the votes for a later one were lost.
            if let Some((_, own)) = self.snapshots.range(self.state_op().next()..).next_back() {
                out.broadcast(Message::State(self.keyring.sign(*own)));
                out.send(self.me(), Message::State(self.keyring.sign(*own)));
            }
            return;
        }
        let mut bytes = 0_usize;
        for (op, slot) in self.log.after(after).take(ANSWER_ENTRIES_MAX) {
            let Some(certificate) = slot.committed.clone().filter(|_| op <= self.committed) else { break };
            let Some(proposal) = slot.proposal(certificate.statement().digest).cloned() else { break };
            bytes = bytes.saturating_add(proposal.len());
            out.send_unsynced(to, Message::Committed { certificate, proposal }); // carries its proof
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        self.quotas.spend(from, bytes);
        out.send_unsynced(to, Message::Status(self.place())); // the end of the answer
    }

    /// An entry with the proof that it is committed, whatever the view.
    pub(super) fn on_committed(&mut self, proof: Certified<Commit>, proposal: Proposal, out: &mut Outbox) {
        let Commit { op, .. } = *proof.statement();
        let reach = self.committed.max(self.low()).plus(2 * self.config.window());
        if op <= self.committed || op > reach {
            return out.ignore(self.me(), Why::OutsideWindow);
        }
        let slot = self.log.slot(op);
        let is_new = slot.committed.is_none();
        if is_new {
            slot.committed = Some(proof.certificate().clone());
            self.keyring.has_enough(proof.statement());
        }
        let lacks = slot.missing() == Some(proposal.digest());
        if lacks {
            slot.keep(proposal.clone());
            self.keep(op, Record::Proposal(op, proposal), out);
        }
        if is_new {
            self.keep(op, Record::Committed(proof.into_certificate()), out);
        }
        if is_new || lacks {
            out.note(Note::Fetched(op));
            self.advance(out);
        }
        self.expect_progress(out);
    }

    /// Somebody knows an entry by its digest only.
    pub(super) fn on_get_proposals(&mut self, from: ReplicaId, wanted: &[(OpNumber, Digest)], out: &mut Outbox) {
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        let mut bytes = 0_usize;
        for (op, digest) in wanted {
            let Some(proposal) = self.log.get(*op).and_then(|slot| slot.proposal(*digest)).cloned() else { continue };
            bytes = bytes.saturating_add(proposal.len());
            out.send_unsynced(Peer::Replica(from), Message::Proposal { op: *op, proposal }); // its digest proves it
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        self.quotas.spend(from, bytes);
    }

    /// What a digest stands for, if it is one that this replica waits for: a quorum has accepted or prepared it, hence correct
    /// replicas have checked its requests.
    pub(super) fn on_proposal(&mut self, op: OpNumber, proposal: Proposal, out: &mut Outbox) {
        let digest = proposal.digest();
        if self.lacks_shown(op, digest) {
            return self.take_shown(op, proposal, out);
        }
        let wanted = self.log.get(op).is_some_and(|slot| slot.names(digest) && slot.proposal(digest).is_none());
        if !wanted {
            return out.ignore(self.me(), Why::Unasked);
        }
        self.log.slot(op).keep(proposal.clone());
        self.keep(op, Record::Proposal(op, proposal), out);
        self.vote(op, out);
        self.check_prepared(op, out);
        self.advance(out);
    }
}

/// Promises that were lost.
impl Replica {
    /// Somebody asks how far its former self may have voted.
    pub(super) fn on_get_bound(&mut self, from: ReplicaId, nonce: u64, out: &mut Outbox) {
        out.send(Peer::Replica(from), Message::Bound { nonce, view: self.view, stable: self.stable.clone() });
    }

    /// With the answers of a quorum of others, the bound is known: the former self voted within a window of a stable
    /// checkpoint that one of them has signed, and is itself within a window of having.
    pub(super) fn on_bound(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        _view: View,
        stable: Option<Certificate<LogCheckpoint>>,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let asked = self.silent.is_some_and(|silence| silence.until.is_none()) && nonce == self.bounds.nonce;
        if !asked || from == self.me {
            out.ignore(Peer::Replica(from), Why::Unasked);
            return Ok(());
        }
        let op = stable.as_ref().map_or(OpNumber::ZERO, |stable| stable.statement().op);
        self.bounds.told.insert(from, op);
        if let Some(stable) = stable.filter(|_| op > self.low()) {
            self.on_stable(stable.certified(self.quorums.quorum())?, out);
        }
        if self.bounds.told.len() >= self.quorums.quorum() {
            let highest = self.bounds.told.values().max().copied().unwrap_or_default();
            self.silent = Some(Silence { until: Some(highest.plus(2 * self.config.window())) });
            self.persist(Record::Base(self.base_record()), out);
        }
        Ok(())
    }

    /// The log is stable beyond everything that the former self can have voted for: what it forgot does not matter any more.
    pub(super) fn end_silence(&mut self, out: &mut Outbox) {
        if self.silent.is_some_and(|silence| silence.until.is_some_and(|until| self.low() >= until)) {
            self.silent = None;
            self.persist(Record::Base(self.base_record()), out);
            out.note(Note::Other("votes again: the log is stable beyond everything that was forgotten"));
        }
    }
}

/// Somebody's silence in a group that has nothing to order.
impl Replica {
    /// A silent replica asks for a stable log beyond everything that its former self may have voted for: the primary makes
    /// entries without requests. Nothing that is safe rests on who asks, or for what: they are entries like all others.
    ///
    /// No timer runs for it: the silent replica asks until its silence is over, and what was lost meanwhile is said again.
    pub(super) fn on_get_beyond(&mut self, from: ReplicaId, until: OpNumber, out: &mut Outbox) {
        let peer = Peer::Replica(from);
        if self.low() >= until {
            return out.ignore(peer, Why::Duplicate); // statuses tell who is behind
        }
        let promised = self.low().plus(2 * self.config.window()).max(self.committed.plus(WINDOW_ENTRIES_MAX));
        if until > promised {
            return out.ignore(peer, Why::OutsideWindow); // its former self was not there, or this replica is behind
        }
        if !self.is_active() {
            return out.ignore(peer, Why::NotNow);
        }
        if from == self.primary() {
            return self.leave_view(self.view.next(), out); // it says that it does not lead
        }
        match self.grants.grant(from, until, (self.config.resend, self.config.resend_max), out.now()) {
            Ok(true) => {}
            Ok(false) => self.say_again(out), // perhaps something was lost
            Err(why) => return out.ignore(peer, why),
        }
        if let Some(view) = self.is_left_by_too_many(from) {
            return self.leave_view(view, out);
        }
        self.propose_more(out);
    }

    /// Where to go if those who have left this view, and one who is silent, are f + 1: the others are no quorum, and nothing that
    /// waits would tell them so, since in a group at rest nothing does.
    fn is_left_by_too_many(&self, silent: ReplicaId) -> Option<View> {
        let changes = self.changes.iter().filter(|(by, _)| **by != silent);
        let left = changes.map(|(_, it)| it.statement().view).filter(|view| *view > self.view);
        let is_enough = left.clone().count().saturating_add(1) >= self.quorums.vouch();
        left.min().filter(|_| is_enough)
    }

    /// Is this entry wanted though there is nothing to order?
    pub(super) fn seeks_beyond(&self, op: OpNumber) -> bool {
        let interval = self.config.interval();
        let wanted =
            |until: OpNumber| self.low() < until && op.get() <= until.get().div_ceil(interval).saturating_mul(interval);
        self.grants.until().is_some_and(wanted)
    }
}

/// What the records say, in their order.
#[derive(Default)]
struct Replayed {
    base: Base,
    left: bool,
    log: Log,
    states: BTreeMap<OpNumber, StateCheckpoint>,
    lost: Option<String>,
}

impl Replayed {
    fn take(&mut self, record: Restored<Record>, keyring: &Keyring, quorum: usize) {
        let (seq, record) = match record {
            Restored::Found { seq, record } => (seq, record),
            Restored::Damaged { class: Some(Class::Entry), .. } => return, // peers have it
            Restored::Damaged { seq, .. } => {
                self.lost = Some(format!("record {seq}"));
                return;
            }
        };
        let op = match &record {
            Record::Proposal(op, _) => *op,
            Record::Prepare(vote) => vote.op,
            Record::Prepared(certificate) => certificate.statement().op,
            Record::Committed(certificate) => certificate.statement().op,
            _ => OpNumber::ZERO,
        };
        if op > self.base.op {
            self.log.slot(op).recorded(seq);
        } else if op > OpNumber::ZERO {
            return;
        }
        match record {
            Record::Proposal(op, proposal) => self.log.slot(op).restore_proposal(proposal),
            Record::Prepare(vote) => {
                let slot = self.log.slot(op);
                slot.accepted = Some(vote);
                slot.voted = Some(vote);
            }
            Record::Prepared(mut certificate) => match certificate.prove(keyring, quorum) {
                Ok(()) => self.log.slot(op).prepared = certificate.certified(quorum).ok(),
                Err(_) => self.lost = Some(format!("the certificate in record {seq}")),
            },
            Record::Committed(certificate) => self.log.slot(op).committed = Some(certificate),
            Record::Left(view) => {
                (self.base.view, self.base.start, self.left) = (view, None, true);
                self.log.leave_view(OpNumber::ZERO);
            }
            Record::Started(start) => {
                self.base.view = start.statement().view;
                (self.base.start, self.left) = (Some(start), false);
                self.log.leave_view(OpNumber::ZERO);
            }
            Record::Stable(certificate) => self.base.stable = Some(certificate),
            Record::State(state) => drop(self.states.insert(state.checkpoint.op, state)),
            Record::Base(base) => {
                self.left = base.start.is_none() && base.view > View::ZERO;
                self.log.drop_through(base.op);
                self.base = *base;
            }
        }
    }
}

/// Computes the chain of digests up to an entry, as far as everything from the log's beginning is known to be committed.
fn chain_to(log: &mut Log, base: &Base, to: OpNumber) -> Option<Digest> {
    let mut chain = base.chain;
    let mut op = base.op;
    while op < to {
        op = op.next();
        let slot = log.get_mut(op)?;
        chain = super::log::chained(chain, slot.decided()?);
        slot.chain = Some(chain);
    }
    (op == to).then_some(chain)
}

/// Starts from what the disk holds.
pub(super) fn restore(
    restore: Restore<super::Pbft>,
    keyring: Arc<Keyring>,
    out: &mut Outbox,
) -> Result<Replica, RestoreError> {
    let quorums = ByzantineQuorums::new(restore.replicas).ok_or(RestoreError::GroupSize(restore.replicas))?;
    if keyring.replica() != Some(restore.replica) || keyring.replicas() != restore.replicas {
        return Err(RestoreError::NoKey);
    }
    let is_new = restore.records.is_empty() && !restore.tail_damaged;
    let mut replayed = Replayed::default();
    for record in restore.records {
        replayed.take(record, &keyring, quorums.quorum());
    }
    let Replayed { mut base, left, mut log, states, lost } = replayed;
    let lost = lost.or_else(|| restore.tail_damaged.then(|| "the end of the log".to_owned()));
    if let Some(what) = &lost {
        if quorums.faults() == 0 {
            return Err(RestoreError::PromisesLost(what.clone()));
        }
        base.silent = Some(Silence { until: None });
    }
    if let Some(stable) = &base.stable {
        log.settle(stable.statement().op);
    }
    let at = restore.checkpoint.map_or(OpNumber::ZERO, |checkpoint| checkpoint.op);
    let own = states.get(&at).copied().filter(|it| Some(it.checkpoint) == restore.checkpoint);
    let chain = chain_to(&mut log, &base, at);
    let own = own.or_else(|| {
        // The snapshot became durable before the record that tells of it.
        Some(StateCheckpoint { checkpoint: restore.checkpoint?, chain: chain? })
    });
    if let Some(own) = own {
        log.slot(at).chain = Some(own.chain);
    }
    let mut machine = Machine { dispatched: at, executed: at, boundary: at, wake: restore.wake, ..Machine::default() };
    machine.boundary_bytes = 0;
    let starts = base.start.as_ref().map(|start| start.statement());
    let view_began = starts.map_or(OpNumber::ZERO, |it| select(it.changes.iter().map(Signed::statement)).last());
    let phase = if left { Phase::Changing { quorum: false } } else { Phase::Active };
    let mut replica = Replica {
        me: restore.replica,
        quorums,
        config: restore.config,
        keyring,
        view: base.view,
        start: base.start,
        stable: base.stable,
        state: base.state,
        base: (base.op, base.chain),
        silent: base.silent,
        phase,
        log,
        committed: at,
        proposed: OpNumber::ZERO,
        early: BTreeMap::new(),
        pool: Pool::default(),
        answered: Answered::default(),
        watched: None,
        pace: Pace::default(),
        quotas: Quotas::default(),
        view_began,
        attempts: 0,
        changes: BTreeMap::new(),
        shown: BTreeMap::new(),
        own_change: None,
        checkpoint_votes: BTreeMap::new(),
        own_checkpoint: None,
        state_votes: BTreeMap::new(),
        snapshots: own.map(|own| (at, own)).into_iter().collect(),
        machine,
        tentative: Tentative::default(),
        reads: Reads::default(),
        batch_time: WallTime::default(),
        tick_due: false,
        ticked: OpNumber::ZERO,
        peers: BTreeMap::new(),
        asked: None,
        ask_turn: 0,
        again: false,
        pause: restore.config.resend,
        told: at,
        ready: false,
        bounds: Bounds { nonce: out.nonce(), told: BTreeMap::new() },
        grants: Grants::default(),
    };
    replica.resume(is_new, lost.is_some(), out);
    Ok(replica)
}

impl Replica {
    /// Takes up what the former life was doing.
    fn resume(&mut self, is_new: bool, lost: bool, out: &mut Outbox) {
        self.keyring.reached(self.view);
        if is_new || lost {
            self.persist(Record::Base(self.base_record()), out);
        }
        if lost {
            out.note(Note::Other("promises are damaged: it votes for nothing until the log is stable beyond them"));
        }
        for op in self.log.ops_after(self.low()) {
            let view = self.view;
            let slot = self.log.slot(op);
            slot.own_prepare = slot.voted.map(|vote| self.keyring.sign(vote)); // the same vote: it is on disk
            let prepared = slot.prepared.as_ref().map(|it| *it.statement()).filter(|it| it.view == view);
            slot.own_commit = prepared.map(|it| self.keyring.sign(Commit { view, op, digest: it.digest }));
        }
        out.send(self.me(), Message::Status(self.place()));
        if self.may_vote() && !is_new && self.is_primary() && !mutated!("pbft/leads-its-view-again") {
            // It may have proposed what its disk never took: it does not lead, nor vote in, this view again.
            self.leave_view(self.view.next(), out);
        } else if !self.is_active() && self.may_vote() {
            self.change_again(out);
        }
        self.vote_boundary(out); // perhaps the vote was lost, and it is not executed again
        self.advance(out);
        self.arm_tick(out);
        self.expect_progress(out);
    }
}
