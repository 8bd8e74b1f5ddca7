//! States: every so many epochs, or bytes, each replica saves its own; when a quorum has the same one, the log below it goes.
//! Who is behind everybody's log fetches a state that `t + 1` replicas name, hence a correct one.

use super::Outbox;
use super::durable::Record;
use super::message::{Decided, Message, StateMark};
use super::pool::Pool;
use super::replica::Replica;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::node::SNAPSHOTS_KEPT;
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::time::WallTime;

/// States of which one may still be installed, beside the one that is being fetched. Beyond it, that one is waited for.
const FETCHES_MAX: usize = 8;
/// Rings of the resend timer at which nothing had come of asking what was decided. From then on, it takes `2t + 1` who say that
/// their logs help: `t` of them may be liars that answer nothing.
const IN_VAIN_MAX: u8 = 4;

impl Replica {
    /// A snapshot that was asked for is on disk: others may fetch it.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        out.note(Note::Checkpointed(checkpoint.op));
        let Some(decided) = self.decided_at(checkpoint.op).cloned() else { return };
        let mark = StateMark { checkpoint, decided };
        self.persist(Record::State(mark.clone()), out);
        self.keep_snapshot(mark);
        out.broadcast(self.status_message(false));
        self.trim(out);
    }

    fn keep_snapshot(&mut self, mark: StateMark) {
        self.snapshots.insert(mark.checkpoint.op, mark);
        while self.snapshots.len() > SNAPSHOTS_KEPT {
            self.snapshots.pop_first();
        }
    }

    pub(super) fn status_message(&self, asks: bool) -> Message {
        let states = self.snapshots.values().cloned().collect();
        Message::Status { committed: self.committed(), base: self.base.op, states, asks }
    }

    /// Who names this state, myself included.
    fn holders(&self, mark: &StateMark) -> Vec<ReplicaId> {
        let others = self.peers.iter().filter(|(_, place)| place.states.contains(mark)).map(|(replica, _)| *replica);
        let own = self.snapshots.values().any(|it| it == mark).then_some(self.me);
        others.filter(|replica| *replica != self.me).chain(own).collect()
    }

    /// Forgets the log below a snapshot of one's own that a quorum has, too. A state of mine that is not theirs is the end.
    pub(super) fn trim(&mut self, out: &mut Outbox) {
        let mut states = self.peers.values().flat_map(|place| &place.states);
        let foreign = |it: &&StateMark| {
            let own = self.snapshots.get(&it.checkpoint.op);
            own.is_some_and(|own| own != *it) && self.holders(it).len() >= self.quorums.vouch()
        };
        if let Some(mark) = states.find(foreign) {
            return out.halt(format!(
                "this replica's state at epoch {} is not that of the others: its machine, its disk or its memory has lied. Keep \
                 the folder for analysis and run `quorate recover` on it",
                mark.checkpoint.op
            ));
        }
        let common = |it: &&StateMark| self.holders(it).len() >= self.quorums.quorum();
        let Some(mark) = self.snapshots.values().rev().find(common).cloned() else { return };
        if mark.checkpoint.op <= self.base.op || mark.checkpoint.op > self.machine.executed {
            return;
        }
        self.begin_after(mark.decided);
        let base = self.persist(Record::Base(self.base_record()), out);
        let lanes = self.lanes.iter().filter_map(super::lanes::Lane::first_record);
        let epochs = self.epochs.values().filter_map(|epoch| epoch.first);
        let decided = self.decided.values().map(|(_, seq)| *seq);
        let first = lanes.chain(epochs).chain(decided).min();
        out.forget(first.map_or(base, |first| first.min(base)));
    }

    /// The log begins after this epoch.
    fn begin_after(&mut self, decided: Decided) {
        for (lane, head) in self.lanes.iter_mut().zip(&decided.heads) {
            lane.commit(*head);
            lane.trim(head.height);
        }
        self.forget_certified();
        self.decided = self.decided.split_off(&decided.op.next());
        self.base = decided;
        self.catch_up.in_vain = 0;
    }

    /// The machine is in a state before the one that the log begins with: that snapshot cannot be read any more.
    pub(super) fn lacks_state(&self) -> bool {
        self.machine.executed < self.base.op && !mutated!("async-tob/keeps-an-old-state")
    }

    /// Fetches a state, if one's own is lost, or if the others' logs begin too late to help.
    pub(super) fn consider_state(&mut self, out: &mut Outbox) {
        let committed = self.committed();
        let helps = |place: &&super::replica::Place| place.base <= committed && place.committed > committed;
        // It takes `t + 1` equal answers, and `t` of those who say that their logs help may answer nothing.
        let lies = if self.catch_up.in_vain < IN_VAIN_MAX { 0 } else { self.quorums.faults() };
        let enough = self.quorums.vouch() + lies;
        let log_helps = || !self.is_behind() || self.peers.values().filter(helps).count() >= enough;
        let from = if self.lacks_state() {
            self.base.op
        } else if log_helps() {
            return;
        } else {
            committed.next()
        };
        let named = self.peers.values().flat_map(|place| &place.states);
        let good = named.filter(|it| it.checkpoint.op >= from && self.holders(it).len() >= self.quorums.vouch());
        let Some(mark) = good.max_by_key(|it| it.checkpoint.op).cloned() else { return };
        let is_full = self.machine.former.len() >= FETCHES_MAX;
        if self.machine.fetching.as_ref().is_some_and(|it| is_full || it.checkpoint.op >= mark.checkpoint.op) {
            return;
        }
        let holders: Vec<_> = self.holders(&mark).into_iter().filter(|it| *it != self.me).collect();
        self.catch_up.turn = self.catch_up.turn.wrapping_add(1);
        let index = usize::try_from(self.catch_up.turn % holders.len().max(1) as u64).unwrap_or(0);
        let Some(from) = holders.get(index).copied() else { return };
        self.persist(Record::State(mark.clone()), out); // the fetch waits for it: a restart finds what belongs to the state
        if mark.checkpoint.op <= self.machine.executed {
            // The machine is there already; only the log was lost.
            self.begin_after(mark.decided);
            self.persist(Record::Base(self.base_record()), out);
            return self.commit_more(out);
        }
        out.note(Note::StateTransfer(mark.checkpoint.op));
        out.fetch(mark.checkpoint, from);
        if let Some(former) = self.machine.fetching.replace(mark) {
            self.machine.former.insert(former.checkpoint.op, former);
        }
    }

    /// The machine is in a fetched state.
    pub(super) fn installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        let known = self.machine.fetching.iter().chain(self.machine.former.values());
        let Some(mark) = known.into_iter().find(|it| it.checkpoint == checkpoint).cloned() else {
            return out.halt(format!("a state was installed at epoch {} that nobody asked for", checkpoint.op));
        };
        if self.machine.fetching.as_ref() == Some(&mark) {
            self.machine.fetching = None;
        }
        self.machine.former = self.machine.former.split_off(&checkpoint.op.next());
        self.reads.forget_asked();
        self.machine.wake = wake;
        (self.machine.boundary, self.machine.boundary_bytes) = (checkpoint.op, 0);
        (self.machine.dispatched, self.machine.executed) = (checkpoint.op, checkpoint.op);
        if checkpoint.op > self.base.op {
            self.begin_after(mark.decided.clone());
            self.persist(Record::Base(self.base_record()), out);
        }
        self.keep_snapshot(mark);
        self.pool = Pool::default(); // what was executed meanwhile is not known; clients ask again
        self.catch_up.wanted = None;
        self.progress = self.progress.wrapping_add(1);
        self.close();
        self.end_silence(out);
        self.commit_more(out);
        self.dispatch(out);
        self.arm_tick(out);
        self.answer_reads(out);
        self.trim(out);
        self.begin(out);
        self.catch_up(out);
        self.expect_progress(out);
    }

    /// It did not come: somebody else will be asked.
    pub(super) fn fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.machine.former.retain(|_, it| it.checkpoint != checkpoint);
        if self.machine.fetching.as_ref().is_some_and(|it| it.checkpoint == checkpoint) {
            self.machine.fetching = None;
            self.dispatch(out);
            self.expect_progress(out);
        }
    }

    /// Where another replica is.
    pub(super) fn on_status(
        &mut self,
        from: ReplicaId,
        committed: OpNumber,
        base: OpNumber,
        states: Vec<StateMark>,
        asks: bool,
        out: &mut Outbox,
    ) {
        if from == self.me {
            return out.ignore(Peer::Replica(from), Why::NotForSender);
        }
        let lanes = self.lanes.len();
        let place = self.peers.entry(from).or_default();
        place.committed = place.committed.max(committed);
        place.base = base;
        place.states = states.into_iter().filter(|it| it.decided.is_of(lanes)).collect();
        if asks {
            out.send(Peer::Replica(from), self.status_message(false));
        }
        self.close();
        self.trim(out);
        self.consider_state(out);
        self.catch_up(out);
        self.begin(out);
        self.expect_progress(out);
    }
}
