//! Seed 004, the protocol: what clients ask is cast to all; the leader of an epoch orders what is in `UnQueued` by a scheduled
//! broadcast; everybody moves it to `Queued` in the order of the epochs. Epochs overlap: the next leader does not wait for
//! the last output. What is an output here is executed when all but f have confirmed the same.

use super::clock::Reading;
use super::content::{Block, Moves};
use super::durable::Record;
use super::log::Link;
use super::message::{BLOCK_BYTES_MAX, Cast, Chain, Commit, ENTRIES_MAX, Echo, Message, Proposal, Vote};
use super::replica::{Replica, Running};
use super::scb::{Instance, Taken};
use super::schedule::EpochNumber;
use super::votes::Added;
use super::{Broadcast, Outbox, Timer, WINDOW_BLOCKS};
use crate::pbft::Group;
use crate::quorum_client;
use quorate_core::crypto::{Certified, Digest, Evidence, Signed, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::sessions::{Batch, Outcome};
use quorate_core::time::{Duration, WallTime};
use quorate_core::wire::Wire;

/// Blocks that the machine may have been given and not applied. More wait in the log.
const EXECUTING_MAX: u64 = 64;
/// Broadcasts whose output was so many windows ago are forgotten, with the lateness that they could still prove.
const REMEMBERED_WINDOWS: u32 = 4;

/// Leading.
impl Replica {
    /// Rings at the next epoch that I lead, if there is something to order. An idle group arms nothing.
    pub(super) fn arm_epoch(&mut self, out: &mut Outbox) {
        if self.due.is_some() || !self.is_adopted() || self.silent || self.reading(out) != Reading::Synced {
            return;
        }
        let ready = self.ucb.any_ready(self.quorums.vouch()) || self.tick_is_due(self.now(out)) || self.seeks_beyond();
        if !ready {
            return;
        }
        let first = self.led.max(self.schedule.epoch_at(self.now(out))).next().max(self.first_epoch());
        let is_mine = |epoch: &EpochNumber| self.quorums.turn(epoch.get()) == self.me;
        let mut next = (0..self.quorums.replicas() as u64).map(|more| first.plus(more)).filter(is_mine);
        let Some(next) = next.next().filter(|epoch| self.order.may_lead(self.me, *epoch)) else { return };
        self.due = Some(next);
        out.arm(Timer::Epoch, self.clock.until(self.schedule.start(next), out.now()));
        self.watch(out);
    }

    /// i = e mod n, and it is time.
    pub(super) fn on_epoch(&mut self, out: &mut Outbox) {
        let Some(epoch) = self.due.take() else { return };
        if !self.is_adopted() || epoch <= self.led || epoch < self.first_epoch() {
            return self.arm_epoch(out);
        }
        self.led = epoch;
        let start = self.schedule.start(epoch);
        if !self.stood_still(start, out) && self.may_judge(start, out) {
            self.propose(epoch, out);
        }
        self.arm_epoch(out);
    }

    /// The block of the epoch: what is in `UnQueued` and in no block under way, by scheduled broadcast.
    fn propose(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        let (tip, start) = (self.log.tip(), self.schedule.start(epoch));
        if tip.0.since(self.committed) >= WINDOW_BLOCKS / 2
            || self.guard.is_at_risk()
            || self.is_behind()
            || self.machine.adrift
        {
            return; // first what is under way has to be confirmed
        }
        let mut order = self.order.clone();
        let under_way: Vec<Block> = self.under_way().cloned().collect();
        for cast in under_way.iter().flat_map(|block| &block.content().entries) {
            order.take(cast.statement().id);
        }
        let cast_by = match self.config.broadcast {
            Broadcast::Flood => WallTime::from_nanos(u64::MAX),
            Broadcast::DolevStrong => self.delivered_by(start),
        };
        let needed = if mutated!("sync-tob/orders-what-few-have") { 1 } else { self.quorums.vouch() };
        let entries = self.ucb.select(&mut order, needed, cast_by, (ENTRIES_MAX, BLOCK_BYTES_MAX));
        let tick = self.tick_is_due(start) && !under_way.iter().any(|block| block.content().tick);
        let demote: Vec<_> = self.to_demote(epoch);
        if entries.is_empty() && !tick && !self.seeks_beyond() {
            return;
        }
        let block = Block::new(Moves { epoch, tick, entries, demote });
        let head = self.keyring.sign(Proposal { view: self.view, epoch, block: block.digest() });
        let chain = Chain::new(head);
        self.persist(Record::Led(epoch), out);
        out.broadcast(Message::Propose { chain: chain.clone(), block: block.clone() });
        let running = self.running.entry(epoch);
        let running = running.or_insert_with(|| Running { instance: Instance::new(start), blocks: Vec::new() });
        let clock = self.clock.show(out.now());
        let _own = running.instance.offer(&chain, clock.max(start), self.quorums.faults(), &self.schedule);
        running.blocks.push(block);
        self.arm_output(out);
        self.expect_progress(out);
    }

    /// What was cast before this is delivered when the epoch begins: `τ_u + (f + 1) R ≤ τ_e`, the same everywhere.
    fn delivered_by(&self, start: WallTime) -> WallTime {
        let window = u64::try_from(self.schedule.window().as_nanos()).unwrap_or(u64::MAX);
        WallTime::from_nanos(start.as_nanos().saturating_sub(window))
    }

    /// Blocks that may be ordered before the next one: not executed, or without an output yet.
    fn under_way(&self) -> impl Iterator<Item = &Block> {
        let links = self.log.after(self.order.op).filter_map(|link| self.log.blocks.get(&link.block));
        let running = self.running.values().filter(|it| !it.instance.is_concluded()).flat_map(|it| &it.blocks);
        links.map(|(block, _)| block).chain(running)
    }

    fn to_demote(&self, epoch: EpochNumber) -> Vec<(Signed<Proposal>, Signed<Proposal>)> {
        let may_lead = |replica: &ReplicaId| self.order.demoted.get(replica.index()).is_none_or(|it| epoch >= it.until);
        self.convicted.iter().filter(|(replica, _)| may_lead(replica)).map(|(_, proof)| proof.clone()).collect()
    }

    /// Does the machine want a tick by then?
    pub(super) fn tick_is_due(&self, at: WallTime) -> bool {
        self.machine.wake.is_some_and(|wake| wake <= at) && self.machine.executed == self.order.op
    }

    /// It is time for a tick: some leader will order it.
    pub(super) fn on_tick(&mut self, out: &mut Outbox) {
        self.need_clock(out);
        self.arm_tick(out);
        self.arm_epoch(out);
    }

    pub(super) fn arm_tick(&mut self, out: &mut Outbox) {
        let Some(wake) = self.machine.wake else { return out.disarm(Timer::Tick) };
        let clock = self.now(out);
        // When it is due and does not come, looks again: perhaps clocks were not known.
        let again = self.schedule.window().saturating_mul(2);
        out.arm(Timer::Tick, if wake > clock { wake.since(clock) } else { again });
    }
}

/// Scheduled broadcasts.
impl Replica {
    /// ⟨e, H(block)⟩ with a chain of signatures: taken if it came in time, signed and passed on at once.
    pub(super) fn on_propose(
        &mut self,
        from: ReplicaId,
        chain: Chain<Proposal>,
        block: Block,
        out: &mut Outbox,
    ) -> Result<(), Fault> {
        let (it, leader) = (*chain.statement(), chain.head.by());
        self.need_clock(out);
        if let Some(why) = self.refuses_proposal(&chain, &block, out) {
            self.miss_refused(&chain, why, out);
            out.ignore(Peer::Replica(from), why);
            return Ok(());
        }
        if leader != self.quorums.turn(it.epoch.get()) {
            return Err(Fault::Contradiction(format!(
                "it passes on a block of epoch {} by who does not lead it",
                it.epoch
            )));
        }
        let (start, clock, faults) = (self.schedule.start(it.epoch), self.now(out), self.quorums.faults());
        let running = self.running.entry(it.epoch);
        let running = running.or_insert_with(|| Running { instance: Instance::new(start), blocks: Vec::new() });
        let taken = running.instance.offer(&chain, clock, faults, &self.schedule);
        if running.instance.values().is_empty() {
            self.running.remove(&it.epoch); // nothing came in time: there is nothing to have an output
        }
        match taken {
            Taken::New { pass_on } => {
                if let Some(running) = self.running.get_mut(&it.epoch) {
                    running.blocks.push(block.clone());
                }
                self.convict_leader(it.epoch, out);
                if pass_on && self.may_judge(start, out) {
                    self.pass_on(chain, block, out);
                } else if pass_on {
                    self.miss(it.epoch, out); // what the others make of it, nobody learns from me
                }
                self.fetch_missing(out);
                self.arm_output(out);
                self.expect_progress(out);
            }
            Taken::Known | Taken::Third => out.ignore(Peer::Replica(from), Why::Duplicate),
            Taken::Early => out.ignore(Peer::Replica(from), Why::OutsideWindow),
            Taken::Late => out.ignore(Peer::Replica(from), Why::OutsideWindow),
            Taken::Evidence => {
                out.ignore(Peer::Replica(from), Why::OutsideWindow);
                self.on_evidence(it.epoch, out);
            }
        }
        Ok(())
    }

    fn refuses_proposal(&self, chain: &Chain<Proposal>, block: &Block, out: &Outbox) -> Option<Why> {
        let it = chain.statement();
        if let Some(why) = self.refuses_view(it.view) {
            return Some(why);
        }
        let (start, clock) = (self.schedule.start(it.epoch), self.now(out));
        let opens = self.schedule.opens(start, chain.signers());
        if it.epoch < self.first_epoch() || clock > self.forgotten(start) || clock < opens {
            return Some(Why::OutsideWindow);
        }
        if !self.order.may_lead(chain.head.by(), it.epoch) {
            return Some(Why::NotPrimary);
        }
        if self.reading(out) != Reading::Synced {
            return Some(Why::NotNow);
        }
        let by = self.delivered_by(start);
        let too_young = |entry: &Chain<Cast>| entry.statement().start > by;
        let early = self.config.broadcast == Broadcast::DolevStrong && block.content().entries.iter().any(too_young);
        early.then_some(Why::OutsideWindow)
    }

    /// A chain that others may have taken, and that this replica could not judge: its clock is not in step, or the view has not
    /// started here.
    fn miss_refused(&mut self, chain: &Chain<Proposal>, why: Why, out: &mut Outbox) {
        let (it, clock) = (*chain.statement(), self.now(out));
        let start = self.schedule.start(it.epoch);
        let plausible = clock >= self.schedule.opens(start, chain.signers()) && clock <= self.forgotten(start);
        if !plausible || chain.head.by() != self.quorums.turn(it.epoch.get()) {
            return;
        }
        match why {
            Why::NotNow if self.is_active() => self.miss(it.epoch, out),
            Why::NotNow | Why::NewerView => self.miss_ahead(it.epoch),
            _ => {}
        }
    }

    /// What comes later than this about a broadcast is not looked at any more.
    fn forgotten(&self, start: WallTime) -> WallTime {
        self.schedule.output(start).plus(self.schedule.window().saturating_mul(REMEMBERED_WINDOWS))
    }

    fn pass_on(&self, chain: Chain<Proposal>, block: Block, out: &mut Outbox) {
        let longer = chain.clone().with(self.keyring.sign(Echo(*chain.statement())));
        for other in Instance::strangers(&chain, self.others()) {
            // Not on disk: a correct replica passes several values on, and one that comes back signs nothing in broadcasts
            // in which it may have signed (`guard.rs`).
            out.send_unsynced(Peer::Replica(other), Message::Propose { chain: longer.clone(), block: block.clone() });
        }
    }

    /// Two values in one epoch convict its leader.
    fn convict_leader(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        let Some([one, other]) = self.running.get(&epoch).map(|it| it.instance.values()) else { return };
        let (first, second) = (one.head.clone(), other.head.clone());
        if let (Ok(one), Ok(other)) = (first.clone().verified(), second.clone().verified())
            && let Some(evidence) = Evidence::of(&one, &other)
        {
            self.convicted.entry(evidence.accused()).or_insert((first, second));
            self.convict(Some(evidence), out);
        }
    }

    /// Rings at the earliest output.
    pub(super) fn arm_output(&mut self, out: &mut Outbox) {
        let outputs = self.running.values().filter(|it| !it.instance.is_concluded());
        let next = outputs.map(|it| self.schedule.output(it.instance.start())).min();
        if let Some(next) = next {
            out.arm(Timer::Output, self.clock.until(next, out.now()));
        }
    }

    /// `C = τ + (f + 1) R`: broadcasts have their outputs, in the order of the epochs.
    pub(super) fn on_output(&mut self, out: &mut Outbox) {
        let clock = self.now(out);
        let is_due = |it: &Running| !it.instance.is_concluded() && self.schedule.output(it.instance.start()) <= clock;
        let due: Vec<EpochNumber> = self.running.iter().filter(|(_, it)| is_due(it)).map(|(epoch, _)| *epoch).collect();
        if let Some(first) = due.first() {
            self.stood_still(self.schedule.output(self.schedule.start(*first)), out);
        }
        for epoch in due {
            self.conclude(epoch, out);
        }
        let old: Vec<EpochNumber> = self
            .running
            .iter()
            .filter(|(_, it)| it.instance.is_concluded())
            .filter(|(_, it)| self.forgotten(it.instance.start()) <= clock)
            .map(|(epoch, _)| *epoch)
            .collect();
        self.running.retain(|epoch, _| !old.contains(epoch));
        self.arm_output(out);
        self.arm_epoch(out);
    }

    fn conclude(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        let start = self.schedule.start(epoch);
        let judged = self.may_judge(start, out);
        let Some(running) = self.running.get_mut(&epoch) else { return };
        let value = running.instance.conclude().map(|chain| chain.statement().block);
        let block = value.and_then(|value| running.blocks.iter().find(|block| block.digest() == value).cloned());
        running.blocks.clear();
        if !judged {
            self.miss(epoch, out);
        } else if let Some(block) = block {
            self.append(epoch, block, out);
        }
    }

    /// This block is my output of the epoch: it follows what I took for the outputs of the epochs before.
    fn append(&mut self, epoch: EpochNumber, block: Block, out: &mut Outbox) {
        let (tip, last, _) = self.log.tip();
        let full = tip.since(self.committed) >= WINDOW_BLOCKS;
        if !self.is_adopted() || epoch <= last || full || self.is_behind() {
            return self.miss(epoch, out);
        }
        let Some(link) = self.log.following(tip.next(), epoch, block.digest()) else { return };
        self.keep_block(block, out);
        self.put(link, out);
        self.vote_more(out);
        self.watch(out);
        self.expect_progress(out);
    }

    pub(super) fn put(&mut self, link: Link, out: &mut Outbox) {
        let seq = self.persist(Record::Link(link), out);
        self.log.put(link, seq);
    }

    /// My outputs of epochs after this one, which would go with what is after this block.
    pub(super) fn outputs_after(&self, op: OpNumber, epoch: EpochNumber) -> Vec<(EpochNumber, Digest)> {
        let later = self.log.after(op).filter(|link| link.epoch > epoch);
        later.map(|link| (link.epoch, link.block)).collect()
    }

    /// What was before them is another chain now. They follow that one: what an epoch's output is does not depend on it.
    pub(super) fn follow_again(&mut self, outputs: Vec<(EpochNumber, Digest)>, out: &mut Outbox) {
        for (epoch, block) in outputs {
            let (tip, last, _) = self.log.tip();
            let link = self.log.following(tip.next(), epoch, block).filter(|_| epoch > last);
            if let Some(link) = link {
                self.put(link, out);
            }
        }
    }

    pub(super) fn keep_block(&mut self, block: Block, out: &mut Outbox) {
        if !self.log.blocks.contains_key(&block.digest()) {
            let seq = self.persist(Record::Block(block.clone()), out);
            self.log.blocks.insert(block.digest(), (block, seq));
        }
    }
}

/// Confirmations.
impl Replica {
    /// Votes for what is new in the chain: once for each epoch of a view, in their order, and never before block and
    /// bundles are here and on disk.
    pub(super) fn vote_more(&mut self, out: &mut Outbox) {
        let doubts = self.guard.is_at_risk() || self.guard.has_missed();
        if !self.is_adopted() || self.silent || doubts || self.machine.adrift {
            return;
        }
        let last = self.voted.filter(|vote| vote.view == self.view).map(|vote| vote.epoch);
        let from = self.vote_from.max(self.committed.next()).previous();
        let due = |link: &Link| last.is_none_or(|last| link.epoch > last);
        let links: Vec<Link> = self.log.after(from).filter(due).collect();
        for link in links {
            let Some(parent) = self.log.chain_at(link.op.previous()) else { return };
            if !self.is_complete(link.op) {
                return self.fetch_missing(out);
            }
            let vote = Vote { view: self.view, op: link.op, epoch: link.epoch, parent, block: link.block };
            self.voted = Some(vote);
            self.persist(Record::Voted(vote), out);
            let vote = self.keyring.sign(vote);
            out.broadcast(Message::Vote(vote.clone()));
            out.send(self.me(), Message::Vote(vote));
            if self.vote_made.is_none() {
                self.vote_made = Some(out.now());
                out.arm(Timer::Disk, self.config.delta.saturating_add(Duration::from_nanos(1)));
            }
        }
        self.watch(out);
    }

    /// Is everything here that the blocks up to this one move?
    pub(super) fn is_complete(&self, op: OpNumber) -> bool {
        let (blocks, bundles) = self.lacks(op);
        blocks.is_empty() && bundles.is_empty()
    }

    /// The blocks up to this one that are not here, and the bundles that they move and are not here. What a block names and
    /// does not move, since it was moved before or never will be, nobody needs, and perhaps nobody has.
    pub(super) fn lacks(&self, op: OpNumber) -> (Vec<Digest>, Vec<Digest>) {
        let (mut order, mut blocks, mut bundles) = (self.order.clone(), Vec::new(), Vec::new());
        for link in self.log.after(order.op).take_while(|link| link.op <= op) {
            let Some((block, _)) = self.log.blocks.get(&link.block) else {
                blocks.push(link.block);
                continue;
            };
            if !blocks.is_empty() {
                continue; // what it moves is not known before the one that is missing is here
            }
            let moved =
                block.content().entries.iter().map(|entry| *entry.statement()).filter(|cast| order.take(cast.id));
            bundles.extend(moved.map(|cast| cast.bundle).filter(|bundle| !self.ucb.bundles.contains_key(bundle)));
        }
        (blocks, bundles)
    }

    /// ⟨my output of epoch e was this⟩, one's own included: it comes back when it is on disk.
    pub(super) fn on_vote(&mut self, vote: Verified<Vote>, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        if vote.by() == self.me {
            self.vote_is_durable(out);
        } else {
            self.audit(vote.by(), it, out);
        }
        if let Some(why) = self.refuses_view(it.view) {
            return out.ignore(from, why);
        }
        if self.log.epoch_at(self.committed).is_some_and(|committed| it.epoch <= committed) {
            return out.ignore(from, Why::OldView); // decided
        }
        match self.votes.add(it.epoch, vote) {
            Added::Lie(evidence) => return self.convict(evidence, out),
            Added::Repeated => return out.ignore(from, Why::Duplicate),
            Added::TooMany => return out.ignore(from, Why::OutsideWindow),
            Added::Counted => {}
        }
        let needed = if mutated!("sync-tob/one-vote-is-enough") { 1 } else { self.quorums.quorum() };
        if let Some(certified) = self.votes.certify(it.epoch, &it, needed) {
            self.on_certified(certified, out);
        }
        self.expect_progress(out);
    }

    /// A quorum had this output. If mine was another one, or none, I was among the faulty: theirs counts.
    fn on_certified(&mut self, certified: Certified<Vote>, out: &mut Outbox) {
        let it = *certified.statement();
        let known = self.certified.as_ref().map(|known| (known.statement().view, known.statement().epoch));
        if !self.is_adopted() || it.op <= self.committed || known >= Some((it.view, it.epoch)) {
            return;
        }
        if self.log.get(it.op).is_none_or(|link| link.chain != it.chain()) {
            let Some(link) = self.log.following(it.op, it.epoch, it.block).filter(|link| link.chain == it.chain())
            else {
                return; // something before it is missing here; it is asked for when it is committed
            };
            if self.log.get(it.op).is_some() {
                out.note(Note::Other("a quorum had another output than this replica: theirs counts"));
            }
            let outputs = self.outputs_after(link.op.previous(), link.epoch);
            self.put(link, out);
            self.follow_again(outputs, out);
            self.fetch_missing(out);
        }
        self.persist(Record::Certified(certified.certificate().clone()), out);
        self.certified = Some(certified);
        self.reconsider_risk(out);
        self.vote_more(out);
        if self.silent {
            return;
        }
        let commit = Commit { view: it.view, op: it.op, epoch: it.epoch, chain: it.chain() };
        let commit = self.keyring.sign(commit);
        out.broadcast(Message::Commit(commit.clone()));
        out.send(self.me(), Message::Commit(commit));
    }

    /// ⟨I hold a certificate⟩, one's own included.
    pub(super) fn on_commit(&mut self, vote: Verified<Commit>, out: &mut Outbox) {
        let (from, it) = (Peer::Replica(vote.by()), *vote.statement());
        if let Some(why) = self.refuses_view(it.view) {
            return out.ignore(from, why);
        }
        if self.log.epoch_at(self.committed).is_some_and(|committed| it.epoch <= committed) {
            return out.ignore(from, Why::OldView); // decided
        }
        match self.commits.add(it.epoch, vote) {
            Added::Lie(evidence) => return self.convict(evidence, out),
            Added::Repeated => return out.ignore(from, Why::Duplicate),
            Added::TooMany => return out.ignore(from, Why::OutsideWindow),
            Added::Counted => {}
        }
        let needed = if mutated!("sync-tob/one-certificate-is-enough") { 1 } else { self.quorums.quorum() };
        if let Some(certified) = self.commits.certify(it.epoch, &it, needed) {
            self.on_proof(certified, out);
        }
        self.expect_progress(out);
    }

    /// A block, and with it all before it, is committed.
    pub(super) fn on_proof(&mut self, proof: Certified<Commit>, out: &mut Outbox) {
        let it = *proof.statement();
        let here = self.log.chain_at(it.op);
        if it.op <= self.committed {
            if here.is_some_and(|chain| chain != it.chain) {
                self.diverged(it.op, out);
            }
            return;
        }
        self.heard = self.heard.max(it.op);
        if here != Some(it.chain) {
            return self.ask_somebody(out); // the chain to it is not here
        }
        let lost = self.forget_lost_certificate(it.op);
        if lost.is_some_and(|lost| (lost.view, lost.epoch) >= (it.view, it.epoch)) {
            return self.contradicted(out);
        }
        let certificate = proof.into_certificate();
        let seq = self.persist(Record::Committed(certificate.clone()), out);
        self.log.proofs.insert(it.op, (certificate, seq));
        self.committed = it.op;
        self.attempts = 0;
        self.votes.forget_through(it.epoch);
        self.commits.forget_through(it.epoch);
        out.note(Note::Committed(it.op));
        self.end_silence(it.epoch, out);
        self.reconsider_risk(out);
        self.adopt_start(out);
        if self.change_due {
            self.change_again(out); // what it has to show is here now
        }
        self.dispatch(out);
        self.watch(out); // what was moved does not wait any more
        self.cast_more(out); // perhaps a life may begin now
        self.trim(out); // what a quorum has the state of can go, now that a later block is proven
        self.arm_epoch(out);
    }

    /// The chain up to this block is certain. A certificate of a block beyond it that is on another chain can lead nowhere any
    /// more: who led the view has started it in two ways, and what was certified before won in the other one only.
    pub(super) fn forget_lost_certificate(&mut self, op: OpNumber) -> Option<Vote> {
        let it = *self.certified.as_ref()?.statement();
        let lost = it.op > op && self.log.chain_at(it.op) != Some(it.chain());
        if !lost {
            return None;
        }
        self.certified = None; // on disk it stays, and is not believed there either, since the chain has no place for it
        Some(it)
    }

    /// Gives the machine what is committed, moved from `UnQueued` to `Queued`, and asks for a snapshot where one is due.
    pub(super) fn dispatch(&mut self, out: &mut Outbox) {
        while self.order.op < self.committed
            && self.order.op.since(self.machine.executed) < EXECUTING_MAX
            && self.machine.fetching.is_none()
            && !self.machine.adrift
        {
            let Some(link) = self.log.get(self.order.op.next()) else { return };
            if !self.is_complete(link.op) {
                return self.fetch_missing(out);
            }
            let Some((block, _)) = self.log.blocks.get(&link.block) else { return };
            let moved = self.order.apply(&link, block, self.config.demote_epochs);
            let batch = self.batch(link.epoch, block.content().tick, &moved);
            let bytes = moved.iter().fold(0, |sum: u64, cast| sum.saturating_add(cast.bytes));
            self.moved.insert(link.op, moved.iter().map(|cast| cast.bundle).collect());
            out.execute(link.op, batch.encode().into());
            self.forget_closed(&moved);
            self.machine.boundary_bytes = self.machine.boundary_bytes.saturating_add(bytes);
            let blocks = link.op.since(self.machine.boundary);
            if blocks >= self.config.state_blocks.max(1) || self.machine.boundary_bytes >= self.config.state_bytes {
                (self.machine.boundary, self.machine.boundary_bytes) = (link.op, 0);
                self.orders.insert(link.op, self.order.clone());
                self.persist(Record::Ordered(self.order.clone()), out);
                out.checkpoint(link.op);
            }
        }
    }

    /// What the machine is given: the requests that were moved, at the time when the epoch began. No leader chooses it.
    fn batch(&self, epoch: EpochNumber, tick: bool, moved: &[Cast]) -> Batch {
        let bundles = moved.iter().filter_map(|cast| self.ucb.bundles.get(&cast.bundle));
        let groups = bundles.flat_map(|(bundle, _)| bundle.content()).map(Group::statement);
        Batch { time: self.schedule.start(epoch), tick, requests: quorum_client::replica::requests(groups) }
    }

    /// What follows from an execution: replies.
    pub(super) fn executed(&mut self, op: OpNumber, outcome: Outcome, out: &mut Outbox) {
        self.machine.executed = op;
        self.machine.wake = outcome.wake;
        let moved = self.moved.remove(&op).unwrap_or_default();
        let bundles = moved.iter().filter_map(|digest| self.ucb.bundles.get(digest));
        let groups = bundles.flat_map(|(bundle, _)| bundle.content()).map(Group::statement);
        let full = quorum_client::replica::in_full(groups);
        for (client, reply) in quorum_client::replica::replies((self.me, View::ZERO, op), &full, outcome.replies) {
            // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
            out.send_unsynced(Peer::Client(client), Message::Client(reply));
        }
        full.into_keys().for_each(|key| self.ucb.executed(key));
        self.dispatch(out);
        self.cast_more(out); // perhaps some of mine were moved now
        self.answer_reads(out);
        self.arm_tick(out);
        self.arm_epoch(out);
        self.expect_progress(out);
    }
}
