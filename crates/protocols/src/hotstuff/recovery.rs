//! What was lost: messages, blocks, promises.
//!
//! **Messages.** Replicas tell each other where they are ([`Message::Status`]) until all say the same; then they are silent.
//! Who is behind in views is sent the certificates; who is behind in blocks asks one who is ahead, and gets blocks, each with
//! its own certificate, or the proof of a state to fetch. Who does not get on says its votes again.
//!
//! **Promises.** A replica that cannot read its promises, or has lost its disk, asks how far its former self may have voted,
//! and votes for nothing before a block beyond that is committed; see the README for the argument. Where nothing is ordered, it
//! asks for such a block, and the leader proposes without requests until there is one.

use super::durable::Silence;
use super::message::{Block, Justify, Message, Place, Qc, Tc, Vote};
use super::replica::{Asked, Replica};
use super::{Outbox, Timer};
use quorate_core::crypto::{Certified, Digest};
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;

/// Blocks that one answer brings at most, and bytes of their payloads, unless a single one is longer.
const ANSWER_BLOCKS_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 1 << 20;
/// What a question costs whoever asks it, beside the bytes of the answer, of its quota of 8 MiB in each period of `resend`: 128 questions
/// for blocks bring more of them than a group makes meanwhile.
const QUESTION_BYTES: usize = 60 << 10;
/// So far ahead somebody must be to be asked at once; what is less is on its way.
const BEHIND_BLOCKS: u64 = 8;
/// Views that a leader crosses with blocks without requests. If there are more, it is cheaper to leave the term.
const CROSSED_VIEWS_MAX: u64 = 16;

/// Messages.
impl Replica {
    /// Something is under way, or somebody is not known to be where I am.
    fn is_unsettled(&self) -> bool {
        let here = self.place();
        let mut others = self.quorums.members().filter(|replica| *replica != self.me);
        self.silent.is_some()
            || self.concern.is_some()
            || self.own_timeout.is_some()
            || self.lacks_blocks()
            || others.any(|replica| self.peers.get(&replica) != Some(&here))
    }

    fn lacks_blocks(&self) -> bool {
        self.early.is_some() || !self.tree.contains(self.high.block())
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
        let here = self.place();
        let stalled = self.told == here;
        // The others may go on meanwhile, and whoever was asked may say nothing, or a block at a time.
        let is_far = self.machine.fetching.is_none() && self.peers.values().any(|place| self.is_far_behind(place));
        let waits = is_far && self.told.committed == here.committed;
        self.told = here;
        // Says nothing that binds: views are left for good, and what is committed is proven by others' votes.
        out.broadcast_unsynced(Message::Status(here));
        match self.silent.map(|silence| silence.until) {
            Some(None) => out.broadcast_unsynced(Message::GetBound { nonce: self.bounds.nonce }),
            Some(Some(until)) if stalled => out.broadcast_unsynced(Message::GetBeyond { until }), // a question
            _ => {}
        }
        if stalled {
            self.say_again(out);
        }
        if stalled || is_far {
            self.ask_somebody(out);
        }
        if stalled || waits {
            self.pause = self.pause.saturating_mul(2).min(self.config.resend_max);
        } else {
            self.pause = self.config.resend;
        }
        self.again = true;
        out.arm(Timer::Again, self.pause);
    }

    /// What is on disk and may have been lost on its way.
    fn say_again(&self, out: &mut Outbox) {
        if let Some(timeout) = self.own_timeout.clone() {
            // The promise came back durable; the certificate carries its proof, and may be a higher one by now.
            out.broadcast_unsynced(Message::Timeout { timeout, justify: self.high.justify() });
        }
        let own_vote = self.own_vote.as_ref().map(|vote| vote.statement().view);
        match &self.proposed {
            // As when it was proposed. The vote for it has come back durable, hence it is on disk, too, that the term was begun: a
            // slow disk takes longer than the pause before this.
            Some(it) if own_vote == Some(self.view()) || mutated!("hotstuff/proposes-again-before-the-sync") => {
                out.broadcast_unsynced(Message::Proposal(Box::new(it.clone())));
            }
            _ => self.vote_again(out),
        }
    }

    /// ⟨STATUS⟩: where somebody is. Whoever has missed a view, and says for the second time that it is there, is sent the
    /// certificates. Who is behind and moves has them on their way, and a certificate is a quorum of signatures to check: if each
    /// of a hundred replicas sent each other one some, they would do nothing else.
    pub(super) fn on_status(&mut self, from: ReplicaId, place: Place, out: &mut Outbox) {
        let rests = self.peers.insert(from, place) == Some(place);
        let to = Peer::Replica(from);
        let behind = place.view < self.view() || place.high < self.high.view();
        let ahead = place.view > self.view() || place.high > self.high.view();
        if behind && rests && !self.admits(from, out) {
            out.ignore(to, Why::Busy);
        } else if behind && rests {
            out.send_unsynced(to, self.new_view()); // carries its proofs
        } else if ahead && !behind && self.told == self.place() {
            out.send_unsynced(to, Message::Status(self.place())); // a question, of one who rests, too
        } else if place == self.place() && rests && !self.again && self.admits(from, out) {
            out.send_unsynced(to, Message::Status(place)); // it does not know that I am there, too
        }
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.replica == from) {
            asked.told = true; // perhaps a word of its own, and the answer comes
            let asked = *asked;
            // What commits a block may not have had room in the answer that brought it: the next one goes on from there.
            let reached = asked.brought.max(self.committed());
            let wants = place.committed > self.committed() || self.lacks_blocks();
            if reached > asked.after && wants && self.machine.fetching.is_none() {
                self.ask_after(from, reached, out);
            }
        } else if self.is_far_behind(&place) && !self.awaits_blocks() {
            self.ask(from, out);
        }
        self.expect_progress(out);
    }

    fn is_far_behind(&self, place: &Place) -> bool {
        place.committed > self.committed().plus(BEHIND_BLOCKS)
    }

    /// Asks one who says that it is ahead; another one each time.
    pub(super) fn ask_somebody(&mut self, out: &mut Outbox) {
        let lacks = self.lacks_blocks();
        let (committed, high) = (self.committed(), self.high.view());
        let ahead = |place: &Place| place.committed > committed || (lacks && place.high >= high);
        let ahead: Vec<ReplicaId> =
            self.peers.iter().filter(|(_, place)| ahead(place)).map(|(replica, _)| *replica).collect();
        self.ask_turn = self.ask_turn.wrapping_add(1);
        let index = usize::try_from(self.ask_turn % (ahead.len().max(1) as u64)).unwrap_or(0);
        if let Some(replica) = ahead.get(index).copied() {
            self.ask(replica, out);
        }
    }

    /// Was a question asked, and nothing heard of whom it went to?
    pub(super) fn awaits_blocks(&self) -> bool {
        self.asked.is_some_and(|asked| !asked.told)
    }

    pub(super) fn ask(&mut self, replica: ReplicaId, out: &mut Outbox) {
        self.ask_after(replica, self.committed(), out);
    }

    fn ask_after(&mut self, replica: ReplicaId, after: OpNumber, out: &mut Outbox) {
        self.asked = Some(Asked { replica, after, brought: after, told: false });
        out.send_unsynced(Peer::Replica(replica), Message::GetBlocks { after }); // a question
    }

    /// May this replica be answered once more in this period? Answers are longer than questions, and lead to others: who asks again
    /// and again, or lets its former questions be repeated, would keep everybody else busy.
    pub(super) fn admits(&mut self, from: ReplicaId, out: &Outbox) -> bool {
        let admitted = self.quotas.admits(from, self.config.resend, out.now());
        if admitted {
            self.quotas.spend(from, QUESTION_BYTES);
        }
        admitted
    }

    /// Somebody is behind.
    pub(super) fn on_get_blocks(&mut self, from: ReplicaId, after: OpNumber, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.admits(from, out) {
            return out.ignore(to, Why::Busy);
        }
        if after < self.tree.base().op {
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
        let line = self.tree.line(after, self.high.block());
        let mut bytes = 0_usize;
        for (index, id) in line.iter().enumerate().take(ANSWER_BLOCKS_MAX) {
            let Some(block) = self.tree.get(*id) else { break };
            let child = line.get(index.saturating_add(1)).and_then(|id| self.tree.get(*id));
            let Some(proof) = child.map(|it| it.justify.clone()).or_else(|| self.proof_of(block)) else { break };
            let Justify::Quorum(proof) = proof else { break };
            bytes = bytes.saturating_add(block.payload.len());
            out.send_unsynced(to, Message::Block { block: Box::new(block.clone()), proof }); // carries its proof
            if bytes > ANSWER_BYTES_MAX {
                break;
            }
        }
        bytes = bytes.saturating_add(self.show_decision(to, &line, out));
        self.quotas.spend(from, bytes);
        out.send_unsynced(to, self.new_view()); // carries its proofs
        out.send_unsynced(to, Message::Status(self.place())); // the end of the answer
    }

    /// A branch that was left may have committed the last block: nothing on the highest one says so, and a group at rest makes nothing
    /// that would. Says how many bytes of payloads that were.
    fn show_decision(&self, to: Peer, line: &[Digest], out: &mut Outbox) -> usize {
        let Some(decisive) = &self.decisive else { return 0 };
        let left = self.tree.branch(decisive.block()).unwrap_or_default();
        let blocks: Vec<&Block> = left.iter().filter_map(|id| self.tree.get(*id)).collect();
        let proofs = blocks.iter().skip(1).map(|child| child.justify.clone()).chain([decisive.justify()]);
        let mut bytes = 0_usize;
        for (block, proof) in blocks.iter().zip(proofs).filter(|(block, _)| !line.contains(&block.header.id())) {
            if let Justify::Quorum(proof) = proof {
                bytes = bytes.saturating_add(block.payload.len());
                out.send_unsynced(to, Message::Block { block: Box::new((*block).clone()), proof }); // carries its proof
            }
        }
        bytes
    }

    fn proof_of(&self, block: &Block) -> Option<Justify> {
        (self.high.block() == block.header.id()).then(|| self.high.justify())
    }

    /// A block with its own certificate. Of a block that is here that may be what has not come yet.
    pub(super) fn on_block(&mut self, from: ReplicaId, block: Block, proof: Certified<Vote>, out: &mut Outbox) {
        let (id, height) = (block.header.id(), block.header.height);
        let old = height <= self.committed();
        let known = old || self.tree.contains(id);
        let refused = if known { old.then_some(Why::Duplicate) } else { self.refuses_block(&block.header) };
        if let Some(asked) = self.asked.as_mut().filter(|asked| asked.replica == from && (known || refused.is_none())) {
            asked.brought = asked.brought.max(height);
        }
        if let Some(why) = refused {
            return out.ignore(Peer::Replica(from), why);
        }
        if !known {
            out.note(Note::Fetched(height));
            self.add_block(block, out);
        }
        self.on_qc(&Qc::Quorum(proof), out);
        self.take_early(out);
        self.propose_more(out);
        self.watch(out);
        self.expect_progress(out);
    }
}

/// Promises that were lost.
impl Replica {
    /// Somebody asks how far its former self may have voted.
    pub(super) fn on_get_bound(&mut self, from: ReplicaId, nonce: u64, out: &mut Outbox) {
        if !self.admits(from, out) {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        let tc = self.tc.as_ref().map(|tc| tc.certificate().clone());
        // Waits for the disk: what it says here must still be true after a crash.
        out.send(Peer::Replica(from), Message::Bound { nonce, justify: self.high.justify(), tc });
    }

    /// With the answers of a quorum of others, the bound is known.
    pub(super) fn on_bound(&mut self, from: ReplicaId, nonce: u64, qc: Qc, tc: Option<Tc>, out: &mut Outbox) {
        let asked = self.silent.is_some_and(|silence| silence.until.is_none()) && nonce == self.bounds.nonce;
        if !asked || from == self.me {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        let view = tc.as_ref().map_or(qc.view(), |tc| tc.view().max(qc.view()));
        self.bounds.told.insert(from, view);
        self.on_qc(&qc, out);
        if let Some(tc) = tc {
            self.on_tc(tc, out);
        }
        if self.bounds.told.len() >= self.quorums.quorum() {
            let highest = self.bounds.told.values().max().copied().unwrap_or_default();
            let until = self.config.rules.promised_until(highest.plus(2), &self.config);
            self.silent = Some(Silence { until: Some(until) });
            self.safety.voted = self.safety.voted.max(until);
            let term = self.config.term_end(until);
            self.safety.begun = self.safety.begun.max(term); // it may have proposed there, too
            self.not_before = self.not_before.max(term);
            self.write_base(out);
            self.end_silence(out);
        }
        self.watch(out);
        self.expect_progress(out);
    }

    /// A block is committed beyond everything that the former self can have voted for: what it forgot does not matter any
    /// more.
    pub(super) fn end_silence(&mut self, out: &mut Outbox) {
        let over = |until| self.tree.head().view > until;
        if self.silent.is_some_and(|silence| silence.until.is_some_and(over)) {
            self.silent = None;
            self.write_base(out);
            out.note(Note::Other("votes again: a block is committed beyond everything that was forgotten"));
        }
    }
}

/// Somebody's silence in a group that has nothing to order.
impl Replica {
    /// A silent replica asks for a block beyond everything that its former self may have voted for. Nothing that is safe rests
    /// on who asks, or for what: blocks without requests are proposed, voted for and committed as all others are.
    ///
    /// No timer runs for it: the silent replica asks until its silence is over, and what was lost meanwhile is said again.
    pub(super) fn on_get_beyond(&mut self, from: ReplicaId, until: View, out: &mut Outbox) {
        let peer = Peer::Replica(from);
        if self.tree.head().view > until {
            return out.ignore(peer, Why::Duplicate); // it is committed; statuses tell who is behind
        }
        if until > self.config.rules.promised_until(self.view().next(), &self.config) {
            return out.ignore(peer, Why::NewerView); // its former self was not there, or this replica is behind
        }
        if from == self.leader(self.view()) {
            self.time_out(self.config.term_end(self.view()), out); // it says that it does not lead
        }
        if self.concern.is_some() {
            return out.ignore(peer, Why::NotNow); // what is under way gets beyond it
        }
        match self.grants.grant(from, until, (self.config.resend, self.config.resend_max), out.now()) {
            Ok(true) => {}
            Ok(false) => self.say_again(out), // perhaps something was lost
            Err(why) => return out.ignore(peer, why),
        }
        self.propose_more(out);
    }

    /// Is a block wanted though there is nothing to order?
    pub(super) fn seeks_beyond(&self) -> bool {
        self.grants.until().is_some_and(|until| self.tree.head().view <= until)
    }

    /// Leaves the term if it would take too many blocks to get beyond what is wanted (two chains: the bound is the end of a
    /// term). Says whether it did.
    pub(super) fn leaves_to_get_beyond(&mut self, out: &mut Outbox) -> bool {
        let far = self.grants.until().is_some_and(|until| until.since(self.view()) > CROSSED_VIEWS_MAX);
        if far {
            self.time_out(self.config.term_end(self.view()), out);
        }
        far
    }
}
