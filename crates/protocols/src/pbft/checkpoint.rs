//! Checkpoints (Castro and Liskov §4.3), in two kinds. A checkpoint of the *log* moves the watermarks: every
//! [`Config::checkpoint_entries`](super::Config::checkpoint_entries), cheap, without looking at the state. A checkpoint of the *state* lets
//! the log's beginning go: rarer, since it writes the whole state out.

use super::Outbox;
use super::answered::Answered;
use super::durable::Record;
use super::message::{LogCheckpoint, Message, StateCheckpoint};
use super::pool::Pool;
use super::replica::Replica;
use quorate_core::crypto::{Certified, Verified};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::time::WallTime;

/// State checkpoints that are remembered of each replica: those that may still become stable.
const STATE_VOTES_MAX: usize = 4;

/// Fetches of states that were given up for a later one, and are remembered until that is here: an installation that has begun
/// cannot be stopped.
const FETCHES_MAX: usize = 4;

/// The log.
impl Replica {
    /// ⟨CHECKPOINT n, d, i⟩: everything up to here was executed and is on my disk (the message waits for it).
    ///
    /// Only within one's own watermarks: who has signed `h` has a stable checkpoint at `h - L` or later, on which replicas
    /// that have lost promises rely.
    pub(super) fn vote_checkpoint(&mut self, op: OpNumber, out: &mut Outbox) {
        let told = self.own_checkpoint.as_ref().is_some_and(|vote| vote.statement().op >= op);
        if !op.get().is_multiple_of(self.config.interval()) || op <= self.low() || op > self.high() || told {
            return;
        }
        let Some(chain) = self.log.get(op).and_then(|slot| slot.chain) else { return };
        let vote = self.keyring.sign(LogCheckpoint { op, chain });
        out.broadcast(Message::Checkpoint(vote.clone()));
        out.send(self.me(), Message::Checkpoint(vote));
    }

    /// ⟨CHECKPOINT n, d, i⟩.
    pub(super) fn on_checkpoint_vote(&mut self, vote: Verified<LogCheckpoint>, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        let farthest = self.high().plus(self.config.window()); // a replica that is behind hears of the next ones
        if it.op <= self.low() || it.op > farthest || !it.op.get().is_multiple_of(self.config.interval()) {
            return out.ignore(from, Why::OutsideWindow);
        }
        if vote.by() == self.me {
            self.own_checkpoint = Some(vote.signed().clone());
        }
        let quorum = self.quorums.quorum();
        let votes = self.checkpoint_votes.entry(it.op).or_default();
        if let Err(evidence) = votes.add(vote) {
            return self.convict(evidence, out);
        }
        if let Some(certified) = votes.certify(&it, quorum) {
            self.on_stable(certified, out);
        } else if votes.certify(&it, self.quorums.vouch()).is_some() {
            self.learn_chain(&it, out);
        }
    }

    /// `f + 1` replicas vouch for what the log is up to here, one of them correct. A replica whose snapshot was on disk before the
    /// records of what is in it does not know that by itself, and nobody could go on if its vote were the last of a quorum. What it
    /// has executed was committed, so the chain is the same.
    fn learn_chain(&mut self, it: &LogCheckpoint, out: &mut Outbox) {
        let is_known = self.log.get(it.op).is_some_and(|slot| slot.chain.is_some());
        if is_known || it.op > self.machine.executed || mutated!("pbft/never-learns-its-chain") {
            return;
        }
        self.log.slot(it.op).chain = Some(it.chain);
        self.vote_boundary(out);
    }

    /// The log is stable up to here: a quorum has executed it. The watermarks move, votes below go.
    pub(super) fn on_stable(&mut self, certified: Certified<LogCheckpoint>, out: &mut Outbox) {
        if self.raise_watermarks(certified, out) {
            self.use_window(out);
        }
    }

    /// The low watermark goes up to a stable checkpoint, unless it is there. Nothing is voted for here: a view that begins
    /// with this has to choose first what its entries are.
    pub(super) fn raise_watermarks(&mut self, certified: Certified<LogCheckpoint>, out: &mut Outbox) -> bool {
        let it = *certified.statement();
        if it.op <= self.low() {
            out.ignore(self.me(), Why::Duplicate);
            return false;
        }
        if self.committed >= it.op
            && let Some(chain) = self.log.get(it.op).and_then(|slot| slot.chain)
            && chain != it.chain
        {
            out.halt(format!(
                "this replica has executed something else than a quorum up to entry {}: its disk or its memory has lied. \
                 Keep the folder for analysis and run `quorate recover` on it",
                it.op
            ));
            return false;
        }
        let certificate = certified.into_certificate();
        self.persist(Record::Stable(certificate.clone()), out);
        self.stable = Some(certificate);
        self.checkpoint_votes = self.checkpoint_votes.split_off(&it.op.next());
        self.log.settle(it.op);
        self.proposed = self.proposed.max(it.op);
        self.end_silence(out);
        true
    }

    /// What the watermarks kept waiting goes on.
    pub(super) fn use_window(&mut self, out: &mut Outbox) {
        self.take_early(self.high(), out);
        self.vote_boundary(out);
        self.trim(out);
        self.rotate(out);
        self.propose_more(out);
        self.expect_progress(out);
    }

    /// Votes for the last checkpoint that was executed, if that was not possible when it was, or the vote may be lost.
    pub(super) fn vote_boundary(&mut self, out: &mut Outbox) {
        let within = self.machine.executed.min(self.high()).get();
        let boundary = within / self.config.interval() * self.config.interval();
        self.vote_checkpoint(OpNumber::new(boundary), out);
    }
}

/// The state.
impl Replica {
    /// A snapshot that was asked for is on disk: others may fetch it.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        out.note(Note::Checkpointed(checkpoint.op));
        let Some(chain) = self.log.get(checkpoint.op).and_then(|slot| slot.chain) else { return };
        let it = StateCheckpoint { checkpoint, chain };
        self.snapshots.insert(checkpoint.op, it);
        self.persist(Record::State(it), out);
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
                "this replica's state at entry {} is not that of a quorum: its machine, its disk or its memory has lied. Keep \
                 the folder for analysis and run `quorate recover` on it",
                it.checkpoint.op
            ));
        }
        self.state = Some(certified.into_certificate());
        for of_one in self.state_votes.values_mut() {
            *of_one = of_one.split_off(&it.checkpoint.op.next());
        }
        self.trim(out);
    }

    /// Forgets the log's beginning: what is stable, in a state that a quorum has, and in a snapshot of one's own.
    pub(super) fn trim(&mut self, out: &mut Outbox) {
        let limit = self.state_op().min(self.low()).min(self.machine.executed);
        let limit = if mutated!("pbft/the-log-goes-without-a-state") { self.machine.executed } else { limit };
        let Some((op, own)) = self.snapshots.range(..=limit).next_back().map(|(op, own)| (*op, *own)) else { return };
        if op <= self.base.0 {
            return;
        }
        self.base = (op, own.chain);
        self.snapshots = self.snapshots.split_off(&op);
        let first = self.log.drop_through(op);
        let base = self.persist(Record::Base(self.base_record()), out);
        self.machine.noted = None; // its record may go with the log's beginning
        out.forget(first.map_or(base, |first| first.min(base)));
    }

    /// ⟨a quorum has this state⟩, from someone whose log begins later than I need: fetch it.
    pub(super) fn on_state_stable(&mut self, from: ReplicaId, certified: Certified<StateCheckpoint>, out: &mut Outbox) {
        let it = *certified.statement();
        let op = it.checkpoint.op;
        let room = self.machine.former.len() < FETCHES_MAX;
        let is_new = self.machine.fetching.is_none_or(|fetching| fetching.checkpoint.op < op && room);
        if op <= self.machine.dispatched || op <= self.committed || !is_new {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        let signers: Vec<ReplicaId> = certified.certificate().signatures().iter().map(|(by, _)| *by).collect();
        if op > self.state_op() {
            self.adopt_state(certified, out);
        }
        let (it, from) = self.vouched_state().unwrap_or_else(|| (it, self.source(from, &signers)));
        let op = it.checkpoint.op;
        if let Some(former) = self.machine.fetching.replace(it) {
            self.machine.former.insert(former.checkpoint.op, former);
        }
        self.machine.source = Some(from);
        if self.machine.noted.replace(it) != Some(it) {
            self.persist(Record::State(it), out); // the fetch waits for it: a restart finds the state's chain
        }
        out.note(Note::StateTransfer(op));
        out.fetch(it.checkpoint, from);
    }

    /// Whom to fetch a state from: whoever tells of it, unless that one has failed to give one. Then one after the other of those who
    /// have signed that they have it, f + 1 of whom are correct; when all have failed, from the beginning.
    fn source(&mut self, from: ReplicaId, signers: &[ReplicaId]) -> ReplicaId {
        let failed = &mut self.machine.failed;
        let mut others = std::iter::once(&from).chain(signers).filter(|it| **it != self.me && !failed.contains(it));
        let next = others.next().copied();
        next.unwrap_or_else(|| {
            failed.clear();
            from
        })
    }

    /// A later state that f + 1 replicas have, hence a correct one, and one of them: perhaps nobody keeps the last one that a
    /// quorum has said to have, since those who started again serve only their newest.
    fn vouched_state(&self) -> Option<(StateCheckpoint, ReplicaId)> {
        let votes = || self.state_votes.values().flat_map(|of_one| of_one.values());
        let alike =
            |it: &StateCheckpoint| votes().filter(|vote| vote.statement() == it).map(Verified::by).collect::<Vec<_>>();
        let later = votes().map(|vote| *vote.statement()).filter(|it| it.checkpoint.op > self.state_op());
        let best = later.filter(|it| alike(it).len() >= self.quorums.vouch()).max_by_key(|it| it.checkpoint.op)?;
        let mut others: Vec<_> = alike(&best).into_iter().filter(|replica| *replica != self.me).collect();
        if others.iter().any(|replica| !self.machine.failed.contains(replica)) {
            others.retain(|replica| !self.machine.failed.contains(replica));
        }
        let index = usize::try_from(self.ask_turn % (others.len().max(1) as u64)).unwrap_or(0);
        Some((best, others.get(index).copied()?))
    }

    /// The machine is in a fetched state.
    pub(super) fn installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        let known = self.machine.fetching.iter().chain(self.machine.former.values());
        let Some(it) = known.into_iter().find(|it| it.checkpoint == checkpoint).copied() else {
            return out.halt(format!("a state was installed at entry {} that nobody asked for", checkpoint.op));
        };
        if self.machine.fetching == Some(it) {
            (self.machine.fetching, self.machine.source) = (None, None);
        }
        self.machine.failed.clear();
        self.machine.former = self.machine.former.split_off(&checkpoint.op.next());
        self.reads.forget_asked();
        self.forget_tried();
        self.machine.wake = wake;
        (self.machine.boundary, self.machine.boundary_bytes) = (checkpoint.op, 0);
        (self.machine.dispatched, self.machine.executed) = (checkpoint.op, checkpoint.op);
        self.snapshots.insert(checkpoint.op, it);
        self.committed = self.committed.max(checkpoint.op);
        self.log.slot(checkpoint.op).chain = Some(it.chain);
        self.proposed = self.proposed.max(checkpoint.op);
        self.vote_boundary(out);
        self.answered = Answered::default();
        self.pool = Pool::default(); // what was executed meanwhile is not known; clients ask again
        self.watch(out);
        self.trim(out);
        self.advance(out);
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
