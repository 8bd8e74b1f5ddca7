//! Normal operation (HotStuff §5): the leader proposes a block on the highest certificate that it knows, everybody votes to
//! the leader of the next view, whose certificate of these votes is in the next block.

use super::durable::Record;
use super::message::{Block, Header, Message, Payload, Proposal, Qc, Tc, Vote};
use super::replica::Replica;
use super::{Outbox, Pacing, Timer};
use crate::pbft::pool::Added;
use crate::pbft::{self, Group, Orders, Requests};
use crate::quorum_client;
use quorate_core::crypto::{Certified, ClientKey, Digest, Evidence, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::sessions::Outcome;
use std::collections::BTreeMap;

/// Blocks that the machine may have been given and not applied. More wait in the chain.
const EXECUTING_MAX: u64 = 64;
/// Blocks that are not committed, at most: beyond it, those of the lowest views go (whoever needs one asks for it), and
/// nobody votes for a block that orders something.
pub(super) const OPEN_BLOCKS_MAX: usize = 128;

/// Requests.
impl Replica {
    /// Requests that a client has signed. Those that were executed before are ordered again: whoever applies them knows, and
    /// answers again.
    ///
    /// What a replica passes on is that replica's to answer for. In a long term it is passed on to the leader only, so nobody else
    /// waits for it unless its client asks here, too; where terms are short, whoever has it leads soon.
    pub(super) fn on_request(&mut self, from: Peer, group: Verified<Requests, ClientKey>, out: &mut Outbox) {
        let client = group.statement().client;
        let group: Group = group.into_signed();
        let from_client = matches!(from, Peer::Client(_));
        let added = match from {
            Peer::Replica(by) => self.pool.relay(group.clone(), by, self.config.client_bytes, self.tells_all()),
            Peer::Client(_) => {
                let limits = (self.config.pending_bytes, self.config.client_bytes);
                self.pool.add(group.clone(), |_| false, limits)
            }
        };
        match added {
            Added::Full => {
                if from_client {
                    // Promises nothing; the view is no secret.
                    let busy = pbft::Message::Busy { view: self.term() };
                    out.send_unsynced(Peer::Client(client), Message::Client(busy));
                }
                return out.ignore(from, Why::Busy);
            }
            Added::Known if !from_client => return out.ignore(from, Why::Duplicate),
            Added::Known | Added::New => {}
        }
        if from_client {
            self.pass_on(group, out);
        }
        self.watch(out);
        self.run_ahead(out);
        self.propose_more(out);
        self.expect_progress(out);
    }

    /// Does each replica lead soon?
    fn tells_all(&self) -> bool {
        self.config.views() < self.quorums.replicas() as u64
    }

    /// To whoever will propose it: the leader of a long term, or all, if each of them leads soon. What a client has signed may
    /// be passed on at once: it is the client's promise, not ours.
    fn pass_on(&self, group: Group, out: &mut Outbox) {
        let request = Message::Client(pbft::Message::Request(group));
        if self.tells_all() {
            out.broadcast_unsynced(request);
        } else if !self.leads() {
            out.send_unsynced(Peer::Replica(self.leader(self.view())), request);
        }
    }

    /// Proposes in the present view, if it leads, may, and there is something to propose or to commit. Says whether it did.
    ///
    /// A chain at rest has nothing to commit: then nobody proposes, and nothing costs anything.
    pub(super) fn propose_more(&mut self, out: &mut Outbox) -> bool {
        let view = self.view();
        let justified = self.high.view().next() == view || self.tc.as_ref().is_some_and(|tc| tc.view().next() == view);
        let may = self.leads() && self.may_vote() && view > self.not_before && self.safety.voted < view;
        if !may || !justified || self.proposed.is_some() {
            return false;
        }
        let Some(parent) = self.tree.root(self.high.block()) else { return false };
        let Some(branch) = self.tree.branch(parent.block) else { return false };
        let commits = branch.iter().filter_map(|id| self.tree.get(*id)).any(|block| !block.payload.is_empty());
        let room = branch.len() < OPEN_BLOCKS_MAX;
        let cued = room && (self.cued || self.config.pacing == Pacing::Prompt);
        let payload = if cued { self.next_payload(parent, out) } else { None };
        let beats = self.cued && room && payload.is_none() && !self.has_work();
        let rests = payload.is_none() && !commits && !self.needs_a_commit() && !beats;
        if rests && (!self.seeks_beyond() || self.leaves_to_get_beyond(out)) {
            return false;
        }
        self.cued &= payload.is_none() && !beats;
        let payload = payload.unwrap_or_else(Payload::nothing);
        if payload.orders().tick {
            self.ticked = parent.op.next();
        }
        let header = Header {
            view,
            height: parent.op.next(),
            parent: parent.block,
            parent_view: parent.view,
            payload: payload.digest(),
        };
        self.propose(header, payload, out);
        self.run_ahead(out);
        true
    }

    /// The program that this replica runs in wants the leader to propose now (the seed's `do_propose`).
    pub(super) fn cue(&mut self, out: &mut Outbox) {
        if self.config.pacing == Pacing::Prompt || !self.leads() || !self.may_vote() {
            return out.ignore(self.me(), Why::NotNow);
        }
        self.cued = true;
        self.run_ahead(out);
        self.propose_more(out);
    }

    /// Is there something that a block is to bring, now or when the machine has built it?
    fn has_work(&self) -> bool {
        self.pool.is_ready(0).1 || self.tick_due || self.is_ahead()
    }

    /// What waits, as a payload; `None` if nothing does.
    pub(super) fn gather(&mut self, out: &Outbox) -> Option<Orders> {
        let groups = self.pool.take(self.config.block_requests, self.config.block_bytes);
        let tick = std::mem::take(&mut self.tick_due);
        if groups.is_empty() && !tick {
            return None;
        }
        self.batch_time = self.batch_time.max(out.wall());
        Some(Orders { time: self.batch_time, tick, groups })
    }

    fn propose(&mut self, header: Header, payload: Payload, out: &mut Outbox) {
        let signed = self.keyring.sign(header);
        let follows = header.parent_view.next() == header.view;
        let tc = self.tc.as_ref().filter(|_| !follows).map(|tc| tc.certificate().clone());
        let proposal = Proposal { header: signed.clone(), justify: self.high.justify(), tc, payload };
        let message = Message::Proposal(Box::new(proposal.clone()));
        if self.safety.begun < header.view {
            self.safety.begun = self.config.term_end(header.view);
            self.dirty = true;
            out.broadcast(message);
        } else {
            // May overtake our own disk. What it promises is that nothing else is proposed in this view, and that is kept: it
            // is on disk that this replica has begun the term, and no other life of it proposes in a term that was begun.
            // It counts its own vote only when that comes back durable.
            out.broadcast_unsynced(message);
        }
        self.add_block(proposal.block(), out);
        self.proposed = Some(proposal);
        if let Ok(header) = signed.verified() {
            self.seen = Some(header);
        }
        self.vote(&header, None, out);
        self.watch(out);
        self.expect_progress(out);
    }

    /// The machine wants a tick, and the clock says that it is time: the next block carries it. Who sees it missed for long
    /// suspects the leader.
    pub(super) fn on_tick(&mut self, out: &mut Outbox) {
        let Some(wake) = self.machine.wake else { return };
        if !self.leads() && out.wall() >= wake.plus(self.config.clock_ahead) {
            out.note(Note::Suspects(self.view()));
            self.attempts = self.attempts.saturating_add(1);
            self.time_out(self.config.term_end(self.view()), out);
        }
        self.arm_tick(out);
        self.propose_more(out);
    }

    pub(super) fn arm_tick(&mut self, out: &mut Outbox) {
        let Some(wake) = self.machine.wake else { return out.disarm(Timer::Tick) };
        if !self.leads() {
            // Clocks may differ by `clock_ahead`, and the leader needs a moment.
            let late = wake.plus(self.config.clock_ahead).since(out.wall());
            return out.arm(Timer::Tick, late.saturating_add(self.patience()));
        }
        if self.ticked > self.machine.executed {
            return; // it is ordered; the machine says what comes next when it has had it
        }
        if out.wall() >= wake {
            self.tick_due = true;
        } else {
            out.arm(Timer::Tick, wake.since(out.wall()));
        }
    }
}

/// Blocks and votes.
impl Replica {
    /// The leader's block of a view. What is in it is taken for what it proves, whatever the view.
    pub(super) fn on_proposal(&mut self, from: ReplicaId, it: Proposal, out: &mut Outbox) -> Result<(), Fault> {
        let header = it.header.clone().verified()?;
        let (by, words) = (Peer::Replica(header.by()), *header.statement());
        if header.by() != self.leader(words.view) {
            out.blame(by, Fault::Contradiction(format!("it proposes in view {}, which it does not lead", words.view)));
            return Ok(());
        }
        let quorum = self.quorums.quorum();
        let qc = it.justify.clone().certified(quorum)?;
        let tc = it.tc.clone().map(|tc| tc.certified(quorum)).transpose()?;
        self.on_qc(&qc, out);
        if let Some(tc) = tc.clone() {
            self.on_tc(tc, out);
        }
        if words.view < self.view() {
            self.expect_progress(out);
            out.ignore(by, Why::OldView);
            return Ok(());
        }
        assert_eq!(
            words.view,
            self.view(),
            "its certificates, whose form was checked, lead to its view and no further"
        );
        match &self.seen {
            Some(seen) if *seen.statement() != words => {
                self.convict(Evidence::of(seen, &header), out);
                return Ok(());
            }
            Some(_) if self.early.is_none() => {
                self.vote_again(out); // it was said again: perhaps the vote was lost
                out.ignore(by, Why::Duplicate);
                return Ok(());
            }
            _ => self.seen = Some(header),
        }
        if !self.tree.contains(words.parent) {
            self.early = Some(Box::new(it));
            if !self.awaits_blocks() {
                self.ask(from, out);
            }
            self.expect_progress(out);
            return Ok(());
        }
        self.take_proposal(it, tc.as_ref(), out);
        Ok(())
    }

    /// A proposal whose parent is here.
    fn take_proposal(&mut self, it: Proposal, tc: Option<&Tc>, out: &mut Outbox) {
        self.early = None;
        let header = *it.header.statement();
        if let Some(why) = self.refuses_block(&header) {
            return out.ignore(Peer::Replica(it.header.by()), why);
        }
        let votes = self.refuses_content(&it.payload, out).is_none();
        self.add_block(it.block(), out);
        if votes {
            self.vote(&header, tc, out);
        }
        self.propose_more(out);
        self.watch(out);
        self.expect_progress(out);
    }

    /// The proposal that has waited for its parent, if that is here now.
    pub(super) fn take_early(&mut self, out: &mut Outbox) {
        let Some(early) = &self.early else { return };
        let header = *early.header.statement();
        if header.view != self.view() || !self.tree.contains(header.parent) {
            return;
        }
        let Some(early) = self.early.take() else { return };
        let tc = early.tc.clone().map(|tc| tc.certified(self.quorums.quorum())).transpose().ok().flatten();
        self.take_proposal(*early, tc.as_ref(), out);
    }

    /// What has no place in the tree.
    pub(super) fn refuses_block(&self, header: &Header) -> Option<Why> {
        let Some(parent) = self.tree.root(header.parent) else { return Some(Why::Gap) };
        if (parent.op.next(), parent.view) != (header.height, header.parent_view) {
            return Some(Why::WrongChain);
        }
        if header.height <= self.committed() || self.tree.branch(header.parent).is_none() {
            return Some(Why::WrongChain); // it does not grow from what is committed
        }
        None
    }

    /// What a correct leader does not propose, or not now.
    fn refuses_content(&self, payload: &Payload, out: &Outbox) -> Option<Why> {
        if payload.orders().time > out.wall().plus(self.config.clock_ahead) {
            return Some(Why::NotNow);
        }
        (self.tree.open_count() > OPEN_BLOCKS_MAX && !payload.is_empty()).then_some(Why::Busy)
    }

    /// Keeps a block whose parent is here.
    pub(super) fn add_block(&mut self, block: Block, out: &mut Outbox) {
        let id = block.header.id();
        if self.tree.contains(id) {
            return;
        }
        self.pool.proposed(block.payload.orders());
        self.speculate(&block, out);
        let seq = self.persist(Record::Block(Box::new(block.clone())), out);
        self.tree.insert(id, block, seq);
        let decisive = self.decisive.as_ref().map(Qc::block);
        let keep = [self.high.block(), id, self.safety.locked.block, decisive.unwrap_or(id)];
        self.tree.shrink(OPEN_BLOCKS_MAX, &keep);
        if id == self.high.block() {
            self.apply_qc(&self.high.clone(), out);
        }
    }

    /// ⟨VOTE v, b⟩ to the leader of the next view: once in a view, by the rules, and never before it is on disk.
    fn vote(&mut self, header: &Header, tc: Option<&Tc>, out: &mut Outbox) {
        let own_tc = self.tc.clone();
        if !self.may_vote() || !self.config.rules.may_vote(&self.safety, header, tc.or(own_tc.as_ref())) {
            return;
        }
        let vote = Vote { view: header.view, block: header.id() };
        self.safety.voted = header.view;
        self.safety.vote = Some(vote);
        self.dirty = !mutated!("hotstuff/vote-is-not-durable");
        self.own_vote = None;
        let vote = self.keyring.sign(vote);
        let to = self.leader(header.view.next());
        if mutated!("hotstuff/votes-before-the-sync") {
            out.send_unsynced(Peer::Replica(to), Message::Vote(vote.clone()));
        }
        out.send(Peer::Replica(to), Message::Vote(vote.clone()));
        if to != self.me {
            out.send(self.me(), Message::Vote(vote)); // comes back when it is durable: then it may be said again
        }
    }

    /// The vote of the present view, once more: it is on disk.
    pub(super) fn vote_again(&self, out: &mut Outbox) {
        let Some(vote) = self.own_vote.as_ref().filter(|vote| vote.statement().view == self.view()) else { return };
        let to = self.leader(vote.statement().view.next());
        if to != self.me {
            out.send_unsynced(Peer::Replica(to), Message::Vote(vote.clone()));
        }
    }

    /// ⟨VOTE v, b⟩, one's own included.
    pub(super) fn on_vote(&mut self, vote: Verified<Vote>, out: &mut Outbox) {
        let (by, it) = (vote.by(), *vote.statement());
        let from = Peer::Replica(by);
        if by == self.me {
            self.own_vote = Some(vote.signed().clone());
        }
        if self.leader(it.view.next()) != self.me {
            if by != self.me {
                out.ignore(from, Why::NotForSender);
            }
            return;
        }
        if it.view <= self.high.view() {
            return out.ignore(from, Why::OldView); // it has its certificate, or a later one
        }
        match self.votes.get(&by) {
            Some(known) if *known.statement() == it => return out.ignore(from, Why::Duplicate),
            Some(known) if known.statement().view == it.view => return self.convict(Evidence::of(known, &vote), out),
            Some(known) if known.statement().view > it.view => return out.ignore(from, Why::OldView),
            _ => drop(self.votes.insert(by, vote)),
        }
        let quorum = self.quorums.quorum() - usize::from(mutated!("hotstuff/certificate-of-one-less"));
        let Some(certified) = Certified::assemble(self.votes.values(), &it, quorum) else { return };
        self.on_qc(&Qc::Quorum(certified), out);
        if !self.propose_more(out) {
            // Nothing follows, so no block brings the certificate to the others. It carries its proof.
            out.broadcast_unsynced(self.new_view());
        }
        self.watch(out);
        self.expect_progress(out);
    }

    /// A certificate (the paper's *update*): the highest is kept, it locks, it commits, and its view is over.
    pub(super) fn on_qc(&mut self, qc: &Qc, out: &mut Outbox) {
        if qc.view() > self.high.view() {
            self.high = qc.clone();
            self.safety.high = qc.justify();
            self.dirty = true;
        }
        self.apply_qc(qc, out);
        self.enter(qc.view().next(), out);
    }

    /// What a certificate means, as far as its block is here.
    pub(super) fn apply_qc(&mut self, qc: &Qc, out: &mut Outbox) {
        let (rules, certified, before) = (self.config.rules, qc.block(), self.committed());
        if let Some(lock) = rules.locks(&self.tree, certified).filter(|lock| lock.view > self.safety.locked.view)
            && !mutated!("hotstuff/never-locks")
        {
            self.safety.locked = lock;
            self.dirty = true;
        }
        if let Some(block) = rules.commits(|id| self.tree.header(id), certified) {
            self.commit(block, out);
        }
        if self.committed() > before {
            self.decisive = Some(qc.clone());
        }
    }
}

/// Commits and executions.
impl Replica {
    /// Commits a block and all before it, the lowest first.
    pub(super) fn commit(&mut self, block: Digest, out: &mut Outbox) {
        let Some(root) = self.tree.root(block).filter(|root| root.op > self.committed()) else { return };
        let Some(branch) = self.tree.branch(block) else {
            return out.halt(format!(
                "a quorum has committed the block {block} at height {}, which does not follow from what this replica has \
                 committed at height {}: more replicas lie than this group tolerates, or its own disk has. Keep the folder \
                 for analysis",
                root.op,
                self.committed()
            ));
        };
        branch.into_iter().for_each(|id| self.tree.commit(id));
        let open = self.tree.open_count();
        self.tree.drop_losers();
        if self.tree.open_count() < open {
            self.propose_losers_again();
        }
        self.attempts = 0;
        out.note(Note::Committed(self.committed()));
        self.end_silence(out);
        self.dispatch(out);
        self.abort_losers(out);
        self.run_ahead(out);
    }

    /// Gives the machine what is committed, and asks for a snapshot where one is due.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        self.outrun_fetch();
        while self.machine.dispatched < self.committed()
            && self.machine.dispatched.since(self.machine.executed) < EXECUTING_MAX
            && self.machine.fetching.is_none()
            && self.machine.holding.is_none()
        {
            let op = self.machine.dispatched.next();
            let Some(block) = self.tree.at(op) else { return };
            let (payload, id) = (block.payload.clone(), block.header.id());
            self.machine.dispatched = op;
            self.give(op, &payload, out);
            let bytes = payload.len() as u64;
            self.machine.boundary_bytes = self.machine.boundary_bytes.saturating_add(bytes);
            let blocks = op.since(self.machine.boundary);
            if blocks >= self.config.state_blocks || self.machine.boundary_bytes >= self.config.state_bytes {
                self.begin_snapshot(op, id, out);
            }
        }
    }

    /// Answers clients, and what else follows from an execution.
    pub(super) fn executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.machine.executed = op;
        self.machine.wake = outcome.wake;
        let mut full = BTreeMap::new();
        if let Some(block) = self.tree.at(op).filter(|block| !block.payload.is_empty()) {
            self.machine.worked = op;
            full = quorum_client::replica::in_full(block.payload.orders().groups.iter().map(Group::statement));
        }
        for (client, reply) in quorum_client::replica::replies((self.me, self.term(), op), &full, outcome.replies) {
            // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
            out.send_unsynced(Peer::Client(client), Message::Client(reply));
        }
        for key in full.into_keys() {
            self.pool.executed(key);
        }
        self.dispatch(out);
        self.answer_reads(out);
        self.watch(out);
        self.arm_tick(out);
        self.propose_more(out);
        self.expect_progress(out);
    }
}
