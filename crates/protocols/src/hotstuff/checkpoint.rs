//! Checkpoints of the state, which let the log's beginning go, and the transfer of a state to who is behind all logs.

use super::Outbox;
use super::durable::Record;
use super::message::{Message, StateCheckpoint};
use super::replica::Replica;
use crate::pbft::pool::Pool;
use quorate_core::crypto::{Certified, Digest, Verified};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::time::WallTime;

/// Fetches of states that were given up for a later one, and are remembered until that is here: an installation that has begun
/// cannot be stopped.
const FETCHES_MAX: usize = 4;

/// State checkpoints that are remembered of each replica: those that may still become stable.
const STATE_VOTES_MAX: usize = 4;
/// Blocks of own snapshots that are remembered: more than snapshots are kept.
const BOUNDARIES_MAX: usize = 8;

impl Replica {
    /// A snapshot is due after this block, which the machine was just given. It waits for the record that says which block
    /// that is: without it, nobody who finds the snapshot later would know what to build on it.
    pub(super) fn begin_snapshot(&mut self, op: OpNumber, block: Digest, out: &mut Outbox) {
        let Some(root) = self.tree.root(block) else { return };
        (self.machine.boundary, self.machine.boundary_bytes) = (op, 0);
        self.boundaries.insert(op, root);
        self.machine.holding = Some(op);
        self.persist(Record::Root(root), out);
        out.send(self.me(), Message::Durable(op));
    }

    /// The record is on disk. The machine was given nothing else meanwhile.
    pub(super) fn on_durable(&mut self, op: OpNumber, out: &mut Outbox) {
        if self.machine.holding != Some(op) {
            return out.ignore(self.me(), Why::NotNow); // another state was installed meanwhile
        }
        self.machine.holding = None;
        out.checkpoint(op);
        self.dispatch(out);
    }

    /// A snapshot that was asked for is on disk: others may fetch it.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        out.note(Note::Checkpointed(checkpoint.op));
        let Some(root) = self.boundaries.get(&checkpoint.op).copied() else { return };
        let it = StateCheckpoint { checkpoint, root };
        self.snapshots.insert(checkpoint.op, it);
        let vote = self.keyring.sign(it);
        out.broadcast(Message::State(vote.clone()));
        out.send(self.me(), Message::State(vote));
    }

    /// A replica has this state.
    pub(super) fn on_state_vote(&mut self, vote: Verified<StateCheckpoint>, out: &mut Outbox) {
        let (by, it) = (vote.by(), *vote.statement());
        if it.checkpoint.op <= self.state_op() {
            return out.ignore(Peer::Replica(by), Why::OutsideWindow);
        }
        let of_one = self.state_votes.entry(by).or_default();
        if let Some(earlier) = of_one.get(&it.checkpoint.op).filter(|earlier| *earlier.statement() != it) {
            let evidence = quorate_core::crypto::Evidence::of(earlier, &vote);
            return self.convict(evidence, out);
        }
        of_one.insert(it.checkpoint.op, vote);
        while of_one.len() > STATE_VOTES_MAX {
            of_one.pop_first();
        }
        let votes = self.state_votes.values().filter_map(|of_one| of_one.get(&it.checkpoint.op));
        if let Some(certified) = Certified::assemble(votes, &it, self.quorums.quorum()) {
            self.adopt_state(certified, out);
        }
    }

    /// The last state that a quorum has.
    pub(super) fn state_op(&self) -> OpNumber {
        self.state.as_ref().map_or(OpNumber::ZERO, |state| state.statement().checkpoint.op)
    }

    fn adopt_state(&mut self, certified: Certified<StateCheckpoint>, out: &mut Outbox) {
        let it = *certified.statement();
        if self.snapshots.get(&it.checkpoint.op).is_some_and(|own| *own != it) {
            return out.halt(format!(
                "this replica's state at height {} is not that of a quorum: its machine, its disk or its memory has lied. \
                 Keep the folder for analysis and run `quorate recover` on it",
                it.checkpoint.op
            ));
        }
        self.state = Some(certified.into_certificate());
        for of_one in self.state_votes.values_mut() {
            *of_one = of_one.split_off(&it.checkpoint.op.next());
        }
        self.trim(out);
    }

    /// Forgets the log's beginning: what is in a state that a quorum has, and in a snapshot of one's own.
    pub(super) fn trim(&mut self, out: &mut Outbox) {
        let limit = self.state_op().min(self.machine.executed);
        let Some(own) = self.snapshots.range(..=limit).next_back().map(|(_, own)| *own) else { return };
        if own.root.op > self.tree.base().op {
            self.begin_at(own, out);
        }
    }

    fn begin_at(&mut self, own: StateCheckpoint, out: &mut Outbox) {
        self.snapshots = self.snapshots.split_off(&own.root.op);
        while self.boundaries.len() > BOUNDARIES_MAX {
            self.boundaries.pop_first();
        }
        let first = self.tree.begin_at(own.root);
        let base = self.write_base(out);
        out.forget(first.map_or(base, |first| first.min(base)));
    }

    /// ⟨a quorum has this state⟩, from someone whose log begins later than I need: fetch it.
    pub(super) fn on_state_stable(&mut self, from: ReplicaId, certified: Certified<StateCheckpoint>, out: &mut Outbox) {
        let it = *certified.statement();
        let op = it.checkpoint.op;
        let room = self.machine.former.len() < FETCHES_MAX;
        let is_new = self.machine.fetching.is_none_or(|fetching| fetching.checkpoint.op < op && room);
        if op <= self.machine.dispatched || op <= self.committed() || !is_new {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        let signers = certified.certificate().signatures().iter().map(|(by, _)| *by).collect();
        if op > self.state_op() {
            self.adopt_state(certified, out);
        }
        let (it, holders) = self.vouched_state().unwrap_or((it, signers));
        let from = self.source(holders, from);
        if let Some(former) = self.machine.fetching.replace(it) {
            self.machine.former.insert(former.checkpoint.op, former);
        }
        self.boundaries.insert(it.root.op, it.root);
        self.persist(Record::Root(it.root), out); // the fetch waits for it: a restart finds the state's block
        out.note(Note::StateTransfer(it.checkpoint.op));
        out.fetch(it.checkpoint, from);
    }

    /// Who is asked for a state: whoever has told of it, or another one of those who have signed that they have it. Who has failed
    /// is asked again when all have: who speaks first each time is not the source each time.
    fn source(&mut self, mut holders: Vec<ReplicaId>, told_by: ReplicaId) -> ReplicaId {
        holders.retain(|replica| *replica != self.me);
        holders.sort_unstable_by_key(|replica| (*replica != told_by, *replica));
        if holders.iter().all(|replica| self.machine.failed.contains(replica)) {
            self.machine.failed.clear();
        }
        let source = holders.into_iter().find(|replica| !self.machine.failed.contains(replica)).unwrap_or(told_by);
        self.machine.source = Some(source);
        source
    }

    /// A later state that f + 1 replicas have, hence a correct one, and these: perhaps nobody keeps the last one that a
    /// quorum has said to have, since those who started again serve only their newest.
    fn vouched_state(&self) -> Option<(StateCheckpoint, Vec<ReplicaId>)> {
        let votes = || self.state_votes.values().flat_map(|of_one| of_one.values());
        let alike =
            |it: &StateCheckpoint| votes().filter(|vote| vote.statement() == it).map(Verified::by).collect::<Vec<_>>();
        let later = votes().map(|vote| *vote.statement()).filter(|it| it.checkpoint.op > self.state_op());
        let best = later.filter(|it| alike(it).len() >= self.quorums.vouch()).max_by_key(|it| it.checkpoint.op)?;
        Some((best, alike(&best)))
    }

    /// What is committed, and here, has passed the state that is being fetched: the machine does not wait for it.
    pub(super) fn outrun_fetch(&mut self) {
        let executed = self.machine.executed;
        self.machine.former.retain(|op, _| *op > executed); // who executes has passed them, too
        let (committed, is_here) = (self.committed(), self.tree.base().op <= self.machine.dispatched);
        let room = self.machine.former.len() < FETCHES_MAX;
        let passed = |it: &mut StateCheckpoint| it.checkpoint.op <= committed && is_here && room;
        if let Some(it) = self.machine.fetching.take_if(passed) {
            self.machine.former.insert(it.checkpoint.op, it);
        }
    }

    /// The machine is in a fetched state.
    pub(super) fn installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        let known = self.machine.fetching.iter().chain(self.machine.former.values());
        let Some(it) = known.into_iter().find(|it| it.checkpoint == checkpoint).copied() else {
            return out.halt(format!("a state was installed at height {} that nobody asked for", checkpoint.op));
        };
        if self.machine.fetching == Some(it) {
            self.machine.fetching = None;
        }
        self.machine.former = self.machine.former.split_off(&checkpoint.op.next());
        self.machine.failed.clear();
        self.reads.forget_asked();
        self.forget_ahead();
        self.machine.wake = wake;
        self.machine.holding = None;
        (self.machine.boundary, self.machine.boundary_bytes) = (checkpoint.op, 0);
        (self.machine.dispatched, self.machine.executed) = (checkpoint.op, checkpoint.op);
        self.snapshots.insert(checkpoint.op, it);
        if it.root.op > self.committed() {
            self.begin_at(it, out);
        }
        self.pool = Pool::default(); // what was executed meanwhile is not known; clients ask again
        self.trim(out);
        self.end_silence(out);
        self.apply_qc(&self.high.clone(), out);
        self.dispatch(out);
        self.watch(out);
        self.arm_tick(out);
        self.answer_reads(out);
        self.ask_somebody(out);
        self.expect_progress(out);
    }

    /// It did not come: somebody else will be asked.
    pub(super) fn fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.machine.former.retain(|_, it| it.checkpoint != checkpoint);
        if self.machine.fetching.is_some_and(|it| it.checkpoint == checkpoint) {
            self.machine.fetching = None;
            self.machine.failed.extend(self.machine.source.take());
            self.dispatch(out);
            self.asked = None;
            self.expect_progress(out);
        }
    }
}
