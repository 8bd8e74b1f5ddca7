//! Audit and state. Every confirmation is an audit of the whole history, since it names the chain of all blocks; every
//! [`Config::state_blocks`](super::Config::state_blocks) the state itself is saved, signed and compared. What a quorum has signed lets the log's
//! beginning go and others catch up; whoever has something else has diverged, and halts.

use super::Outbox;
use super::durable::Record;
use super::message::{Message, State};
use super::replica::Replica;
use quorate_core::crypto::{Certificate, Certified, Digest, Evidence, Verified};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::outbox::Note;
use quorate_core::protocol::Checkpoint;
use quorate_core::time::WallTime;
use std::collections::BTreeSet;

/// Fetches of states that were given up for a later one, and are remembered until that is here: an installation that has begun
/// cannot be stopped.
const FETCHES_MAX: usize = 4;

/// States that are remembered of each replica: those that may still become stable.
const STATE_VOTES_MAX: usize = 4;

impl Replica {
    /// A quorum has confirmed something else than was executed here.
    pub(super) fn diverged(&self, op: OpNumber, out: &mut Outbox) {
        out.halt(format!(
            "Diverged: this replica has executed something else than a quorum up to block {op}: the bounds on delays and clocks \
             were broken while too many lied, or its disk or its memory has lied. Keep the folder for analysis, look at the \
             evidence in `quorate status`, and run `quorate recover` on it"
        ));
    }

    /// A snapshot that was asked for is on disk: others may fetch it.
    pub(super) fn saved(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        out.note(Note::Checkpointed(checkpoint.op));
        let Some(order) = self.orders.get(&checkpoint.op).cloned() else { return };
        self.orders = self.orders.split_off(&checkpoint.op);
        self.own_state(State { checkpoint, order }, out);
    }

    /// Says that this state is on my disk.
    pub(super) fn own_state(&mut self, state: State, out: &mut Outbox) {
        self.snapshots.insert(state.checkpoint.op, state.clone());
        let vote = self.keyring.sign(state);
        out.broadcast(Message::State(Box::new(vote.clone())));
        out.send(self.me(), Message::State(Box::new(vote)));
    }

    /// ⟨I have this state⟩.
    pub(super) fn on_state(&mut self, vote: Verified<State>, out: &mut Outbox) {
        let (by, it) = (vote.by(), vote.statement().clone());
        if it.checkpoint.op <= self.state_op() || it.order.op != it.checkpoint.op {
            return out.ignore(Peer::Replica(by), Why::OutsideWindow);
        }
        let of_one = self.state_votes.entry(by).or_default();
        if let Some(earlier) = of_one.get(&it.checkpoint.op).filter(|earlier| *earlier.statement() != it) {
            let evidence = Evidence::of(earlier, &vote);
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

    fn adopt_state(&mut self, certified: Certified<State>, out: &mut Outbox) {
        let it = certified.statement().clone();
        if self.snapshots.get(&it.checkpoint.op).is_some_and(|own| *own != it) {
            return self.diverged(it.checkpoint.op, out);
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
        let Some(own) = self.snapshots.range(..=limit).next_back().map(|(_, own)| own.clone()) else { return };
        let op = own.checkpoint.op;
        // What proves the last commit is part of a view change: it stays until a later block is proven.
        let proven = self.log.proofs.keys().next_back().is_some_and(|last| *last > op);
        if op <= self.base.op || !proven {
            return;
        }
        self.snapshots = self.snapshots.split_off(&op);
        self.base = own.order;
        self.log.begin_after((self.base.op, self.base.epoch, self.base.chain));
        self.forget_bodies();
        let base = self.persist(Record::Base(self.base_record()), out);
        self.keep_unqueued(out);
        let bundles = self.ucb.bundles.values().map(|(_, seq)| *seq);
        let first = self.log.first_record().into_iter().chain(bundles).min();
        out.forget(first.map_or(base, |first| first.min(base)));
    }

    /// Forgets what can never be moved again. What is in a block of the log stays: others may have to catch up.
    pub(super) fn forget_closed(&mut self, moved: &[super::Cast]) {
        let mut closed = self.ucb.forget_closed(&self.order);
        closed.retain(|digest| !moved.iter().any(|cast| cast.bundle == *digest));
        let in_log = |digest: &Digest| {
            let mut blocks = self.log.blocks.values().map(|(block, _)| block.content());
            blocks.any(|block| block.entries.iter().any(|entry| entry.statement().bundle == *digest))
        };
        let gone: Vec<Digest> = closed.into_iter().filter(|digest| !in_log(digest)).collect();
        gone.into_iter().for_each(|digest| self.ucb.drop_bundle(digest));
    }

    /// Lets go what blocks and bundles nobody needs any more.
    fn forget_bodies(&mut self) {
        let running = self.running.values().flat_map(|it| it.blocks.iter().map(|block| block.digest()));
        let running: BTreeSet<Digest> = running.collect();
        self.log.keep_blocks(|digest| running.contains(digest));
        let blocks = self.log.blocks.values().map(|(block, _)| block.content());
        let running = self.running.values().flat_map(|it| it.blocks.iter().map(super::Block::content));
        let entries = blocks.chain(running).flat_map(|block| block.entries.iter());
        let named: BTreeSet<Digest> = entries.map(|entry| entry.statement().bundle).collect();
        let moved: BTreeSet<Digest> = self.moved.values().flatten().copied().collect();
        self.ucb.keep_bundles(|digest| named.contains(digest) || moved.contains(digest));
    }

    /// What is in `UnQueued` for long would keep the log's beginning: it is written anew.
    fn keep_unqueued(&mut self, out: &mut Outbox) {
        let known: Vec<_> = self.ucb.iter().map(|(_, known)| known.chain.head.clone()).collect();
        for head in known {
            let Some((bundle, _)) = self.ucb.bundles.get(&head.statement().bundle).cloned() else { continue };
            let seq = self.persist(Record::Bundle(Some(head), bundle.clone()), out);
            self.ucb.bundles.insert(bundle.digest(), (bundle, seq));
        }
    }

    /// ⟨a quorum has this state⟩, from someone whose log begins later than I need: fetch it.
    pub(super) fn on_state_stable(&mut self, from: ReplicaId, certified: Certified<State>, out: &mut Outbox) {
        let it = certified.statement().clone();
        let op = it.checkpoint.op;
        let own = self.snapshots.get(&op).or(self
            .state
            .as_ref()
            .map(Certificate::statement)
            .filter(|own| own.checkpoint.op == op));
        if own.is_some_and(|own| *own != it) {
            return self.diverged(op, out);
        }
        let known = if self.machine.adrift { op < self.base.op } else { op <= self.order.op };
        if known || it.order.op != op {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        if op > self.state_op() {
            self.adopt_state(certified, out);
        }
        // One that is older than the last that a quorum has, perhaps only a liar keeps.
        let last = self.state.as_ref().map(Certificate::statement).filter(|last| last.checkpoint.op > op);
        let it = last.cloned().unwrap_or(it);
        let room = self.machine.former.len() < FETCHES_MAX;
        let is_new =
            self.machine.fetching.as_ref().is_none_or(|fetching| fetching.checkpoint.op < it.checkpoint.op && room);
        if !is_new {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        let (it, from) = self.vouched_state().unwrap_or((it, from));
        let op = it.checkpoint.op;
        self.persist(Record::Ordered(it.order.clone()), out); // the fetch waits for it: a restart finds the order
        let checkpoint = it.checkpoint;
        if let Some(former) = self.machine.fetching.replace(it) {
            self.machine.former.insert(former.checkpoint.op, former);
        }
        out.note(Note::StateTransfer(op));
        out.fetch(checkpoint, self.source(from));
    }

    /// From whom a state is fetched: from who has told of it, until a fetch has failed. From then on from one of the others, whoever
    /// tells, until that fails, too, and then from the next one. Not only from those who have signed it: which signatures a
    /// certificate shows, liars choose.
    fn source(&self, told: ReplicaId) -> ReplicaId {
        let others: Vec<ReplicaId> = self.others().collect();
        let turn = usize::try_from(self.machine.failed % (others.len().max(1) as u64)).unwrap_or(0);
        others.get(turn).copied().filter(|_| self.machine.failed > 0).unwrap_or(told)
    }

    /// A later state that f + 1 replicas have, hence a correct one, and one of them: perhaps nobody keeps the last one that a
    /// quorum has said to have.
    fn vouched_state(&self) -> Option<(State, ReplicaId)> {
        let votes = || self.state_votes.values().flat_map(|of_one| of_one.values());
        let alike = |it: &State| votes().filter(|vote| vote.statement() == it).map(Verified::by).collect::<Vec<_>>();
        let later = votes().map(|vote| vote.statement().clone()).filter(|it| it.checkpoint.op > self.state_op());
        let best = later.filter(|it| alike(it).len() >= self.quorums.vouch()).max_by_key(|it| it.checkpoint.op)?;
        let others: Vec<_> = alike(&best).into_iter().filter(|replica| *replica != self.me).collect();
        let index = usize::try_from(self.ask_turn % (others.len().max(1) as u64)).unwrap_or(0);
        let from = others.get(index).copied()?;
        Some((best, from))
    }

    /// The machine is in a fetched state.
    pub(super) fn installed(&mut self, checkpoint: Checkpoint, wake: Option<WallTime>, out: &mut Outbox) {
        let known = self.machine.fetching.iter().chain(self.machine.former.values());
        let Some(it) = known.into_iter().find(|it| it.checkpoint == checkpoint).cloned() else {
            return out.halt(format!("a state was installed at block {} that nobody asked for", checkpoint.op));
        };
        if self.machine.fetching.as_ref() == Some(&it) {
            self.machine.fetching = None;
        }
        self.machine.former = self.machine.former.split_off(&checkpoint.op.next());
        let op = checkpoint.op;
        (self.machine.wake, self.machine.adrift) = (wake, false);
        (self.machine.boundary, self.machine.boundary_bytes, self.machine.executed) = (op, 0, op);
        self.order = it.order.clone();
        self.snapshots.insert(op, it.clone());
        self.moved.clear();
        self.reads.forget_asked();
        if op > self.committed {
            self.committed = op;
            self.base = it.order;
            self.log.begin_after((self.base.op, self.base.epoch, self.base.chain));
            let _lost = self.forget_lost_certificate(op);
            self.persist(Record::Base(self.base_record()), out);
            self.votes.forget_through(self.base.epoch);
            self.commits.forget_through(self.base.epoch);
        }
        self.heard = self.heard.max(self.committed);
        self.ucb.forget_requests(); // what was executed meanwhile is not known; clients ask again
        self.forget_closed(&[]);
        self.forget_bodies();
        self.adopt_start(out);
        self.dispatch(out);
        self.watch(out);
        self.arm_tick(out);
        self.answer_reads(out);
        self.ask_somebody(out);
        self.expect_progress(out);
    }

    /// It did not come. All are asked what there is, for who told of it may lie; and somebody else will be the source.
    pub(super) fn fetch_failed(&mut self, checkpoint: Checkpoint, out: &mut Outbox) {
        self.machine.former.retain(|_, it| it.checkpoint != checkpoint);
        if self.machine.fetching.as_ref().is_some_and(|it| it.checkpoint == checkpoint) {
            self.machine.fetching = None;
            self.machine.failed = self.machine.failed.saturating_add(1);
            self.dispatch(out);
            self.asked = None;
            self.ask_all_for_state(out);
            self.expect_progress(out);
        }
    }
}
