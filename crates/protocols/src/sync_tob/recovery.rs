//! What was lost: messages, records, a whole disk; and reads that are not ordered.
//!
//! **Messages.** Replicas tell each other where they are ([`Message::Status`]) until all say the same; then they are silent.
//! Who is behind asks one who is ahead, and gets the chain with the proof that it is committed, then what it consists of, or the
//! proof of a state to fetch. Who does not get on says its votes again. Scheduled broadcasts are never repeated: what is
//! late is too late.
//!
//! **Promises.** A replica that cannot read a vote, or has lost its disk, confirms nothing until the others have committed
//! something that began after it came back: whatever it may have voted for is then older than what is certain. Where nothing is
//! ordered, it asks for a block, and whoever leads proposes one without casts.

use super::cast::lives_from;
use super::clock::Reading;
use super::content::{Block, Bundle};
use super::durable::Record;
use super::log::{Link, chained};
use super::message::{CastId, Commit, Message, Place, Vote, WANTED_MAX};
use super::replica::{Phase, Replica};
use super::schedule::EpochNumber;
use super::{Broadcast, Outbox, Timer, WINDOW_BLOCKS};
use crate::quorum_client::replica::Read;
use bytes::Bytes;
use quorate_core::crypto::{Certified, Digest};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, View};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::protocol::{Consistency, QueryTicket};
use quorate_core::time::{Duration, Instant, WallTime};

pub(super) use super::restore::restore;

/// Bytes of bodies that one answer brings at most, unless a single one is longer.
const ANSWER_BYTES_MAX: usize = 2 << 20;
/// Bytes of what tells how a view starts, and of a block's epoch and digest, about: for the quota of who asks again and again.
pub(super) const START_BYTES: usize = 64 << 10;
const LINK_BYTES: usize = 40;
/// Casts and votes that are said again at once.
const AGAIN_MAX: usize = 32;
/// Digests that were asked for and are remembered.
const ASKED_MAX: usize = 4096;

/// Messages.
impl Replica {
    /// Something is under way, or somebody is not known to be where I am.
    fn is_unsettled(&self) -> bool {
        let elsewhere = |replica: ReplicaId| self.peers.get(&replica) != Some(&self.place());
        let busy = self.log.tip().0 > self.committed || self.order.op < self.committed || self.is_behind();
        !self.is_adopted()
            || self.silent
            || busy
            || self.machine.adrift
            || self.casts_something()
            || self.others().any(elsewhere)
    }

    fn casts_something(&self) -> bool {
        self.ucb.iter().any(|(id, _)| id.sender == self.me)
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
        self.doubt = None; // who has not answered may be asked again
        let stalled = self.told == self.committed;
        self.told = self.committed;
        let place = self.place();
        for other in self.others() {
            let asks = self.peers.get(&other) != Some(&place);
            // Says nothing that binds: what is committed is proven by others' votes, and the view is left for good already.
            out.send_unsynced(Peer::Replica(other), Message::Status { place, asks });
        }
        self.cast_again(out);
        if self.silent {
            self.need_clock(out);
            self.ask_beyond(stalled, out);
        }
        if stalled {
            self.say_again(out);
            self.asked = None;
            self.ask_somebody(out);
            self.pause = self.pause.saturating_mul(2).min(self.config.resend_max);
        } else {
            self.pause = self.config.resend;
        }
        self.fetch_missing(out);
        self.dispatch(out);
        self.ask_for_state(out);
        self.again = true;
        out.arm(Timer::Again, self.pause);
    }

    /// My casts that should have been moved long ago: somebody may not have them, or not know who does. With Dolev and Strong
    /// nobody takes them any more: they are cast under a new τ, in a new life.
    fn cast_again(&mut self, out: &mut Outbox) {
        if mutated!("sync-tob/casts-are-not-said-again") {
            return;
        }
        let since = self.now(out);
        let patience = self.schedule.window().saturating_mul(4);
        let old = |id: &CastId| id.sender == self.me;
        let mine =
            self.ucb.iter().filter(|(id, known)| old(id) && since.since(known.chain.statement().start) > patience);
        if self.config.broadcast == Broadcast::DolevStrong {
            let due = mine.count() > 0 && self.reading(out) == Reading::Synced && !self.silent;
            if due && self.begin_life(out) {
                self.cast_more(out);
            }
            return;
        }
        for (_, known) in mine.take(AGAIN_MAX) {
            if let Some((bundle, _)) = self.ucb.bundles.get(&known.chain.statement().bundle) {
                // Its record may be as young as the life; it waits for the disk as when it was cast first.
                out.broadcast(Message::Cast { chain: known.chain.clone(), bundle: bundle.clone() });
            }
        }
    }

    /// Votes that are on disk, for blocks that are not committed here.
    fn say_again(&self, out: &mut Outbox) {
        if let (Phase::Changing { .. }, Some(change)) = (&self.phase, &self.own_change) {
            out.broadcast_unsynced(Message::ViewChange(Box::new(change.clone()))); // it came back durable
        }
        for vote in self.votes.of(self.me).take(AGAIN_MAX) {
            out.broadcast_unsynced(Message::Vote(vote.signed().clone())); // it came back durable
        }
        for vote in self.commits.of(self.me).take(AGAIN_MAX) {
            out.broadcast_unsynced(Message::Commit(vote.signed().clone())); // it came back durable
        }
    }

    /// ⟨STATUS⟩: where somebody is. Whoever has missed a view is told of it.
    pub(super) fn on_status(&mut self, from: ReplicaId, place: Place, asks: bool, out: &mut Outbox) {
        if from == self.me {
            return;
        }
        self.peers.insert(from, place);
        let behind = (place.view, place.active) < (self.view, self.is_active());
        if behind && !self.quotas.admits(from, self.config.resend, out.now()) {
            out.ignore(Peer::Replica(from), Why::Busy);
        } else if behind {
            self.quotas.spend(from, START_BYTES);
            self.tell_start(from, out);
            if let (Phase::Changing { .. }, Some(change)) = (&self.phase, &self.own_change) {
                out.send_unsynced(Peer::Replica(from), Message::ViewChange(Box::new(change.clone()))); // it came back durable
            }
        }
        if asks {
            // Says nothing that binds.
            out.send_unsynced(Peer::Replica(from), Message::Status { place: self.place(), asks: false });
        }
        if place.committed > self.committed {
            self.ask_somebody(out);
        }
        self.expect_progress(out);
    }

    /// Asks one who is further on for what is committed after what is here.
    pub(super) fn ask_somebody(&mut self, out: &mut Outbox) {
        if self.asked.is_some_and(|(_, at)| at == self.committed) || self.machine.fetching.is_some() {
            return; // asked already
        }
        let ahead =
            self.peers.iter().filter(|(_, place)| place.committed > self.committed).map(|(replica, _)| *replica);
        let mut ahead: Vec<ReplicaId> = ahead.collect();
        if ahead.is_empty() && self.is_behind() {
            ahead = self.others().collect();
        }
        let index = usize::try_from(self.ask_turn % (ahead.len().max(1) as u64)).unwrap_or(0);
        let Some(whom) = ahead.get(index).copied() else { return };
        self.ask_turn = self.ask_turn.wrapping_add(1);
        self.asked = Some((whom, self.committed));
        out.send_unsynced(Peer::Replica(whom), Message::GetDecided { after: self.committed }); // a question
    }

    /// What is committed here cannot be executed, since something that it consists of is missing. Perhaps the others have
    /// let it go, and have a state in its place: whoever is asked for a block before its log sends the proof of one.
    fn ask_for_state(&mut self, out: &mut Outbox) {
        let after = self.lacks_after();
        let lacks = self.machine.adrift || (after < self.committed && !self.is_complete(after.next()));
        if !lacks || self.machine.fetching.is_some() {
            return;
        }
        if self.machine.adrift {
            self.body_turn = self.body_turn.wrapping_add(1); // no bodies are asked for now
        }
        let Some(whom) = self.whose_bodies() else { return };
        out.send_unsynced(Peer::Replica(whom), Message::GetDecided { after }); // a question
    }

    /// What the machine has not been given begins after this block.
    fn lacks_after(&self) -> OpNumber {
        if self.machine.adrift { OpNumber::ZERO } else { self.order.op }
    }

    /// A state that was to be fetched did not come.
    pub(super) fn ask_all_for_state(&self, out: &mut Outbox) {
        for other in self.others() {
            out.send_unsynced(Peer::Replica(other), Message::GetDecided { after: self.lacks_after() }); // a question
        }
    }

    /// Who is asked now for what is missing.
    fn whose_bodies(&self) -> Option<ReplicaId> {
        let others: Vec<ReplicaId> = self.others().collect();
        let index = usize::try_from(self.body_turn % (others.len().max(1) as u64)).unwrap_or(0);
        others.get(index).copied()
    }

    /// What is committed after this block?
    pub(super) fn on_get_decided(&mut self, from: ReplicaId, after: OpNumber, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        if after < self.base.op {
            return match self.state.clone() {
                Some(state) => out.send_unsynced(to, Message::StateStable(Box::new(state))), // carries its proof
                None => out.ignore(to, Why::NotHere),
            };
        }
        let reach = after.plus(WINDOW_BLOCKS);
        let far = self.log.proofs.range(after.next()..=reach).next_back();
        let Some((op, (certificate, _))) = far.or_else(|| self.log.proofs.range(after.next()..).next()) else {
            return out.ignore(to, Why::NotHere);
        };
        let links: Vec<_> = self.log.after(after).take_while(|link| link.op <= *op).collect();
        let links: Vec<_> = links.iter().map(|link| (link.epoch, link.block)).collect();
        self.quotas.spend(from, links.len().saturating_mul(LINK_BYTES));
        if links.len() as u64 > WINDOW_BLOCKS.saturating_mul(2) {
            return out.ignore(to, Why::NotHere);
        }
        // Carries its proof.
        out.send_unsynced(to, Message::Decided { first: after.next(), links, certificate: certificate.clone() });
    }

    /// The chain up to a block, with the proof that the block is committed.
    pub(super) fn on_decided(
        &mut self,
        from: ReplicaId,
        first: OpNumber,
        links: &[(EpochNumber, Digest)],
        proof: Certified<Commit>,
        out: &mut Outbox,
    ) {
        let it = *proof.statement();
        if self.asked.is_some_and(|(whom, _)| whom == from) {
            self.asked = None;
        }
        let doubted = self.doubt.take_if(|doubt| *doubt == (from, first.previous())).is_some();
        if it.op <= self.committed {
            out.ignore(Peer::Replica(from), Why::Duplicate);
            if doubted && self.log.chain_at(it.op) == Some(it.chain) {
                self.compare(from, it.op, out); // up to there, histories are one
            }
            return self.on_proof(proof, out);
        }
        let parent =
            self.log.chain_at(first.previous()).filter(|_| first > OpNumber::ZERO && first <= self.committed.next());
        let Some(mut chain) = parent else {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        };
        let (mut op, mut path) = (first.previous(), Vec::new());
        for (epoch, block) in links {
            op = op.next();
            chain = chained(chain, op, *epoch, *block);
            path.push(Link { op, epoch: *epoch, block: *block, chain });
        }
        if (op, chain) != (it.op, it.chain) {
            if !doubted && first.previous() > self.log.base.0 {
                return self.compare(from, self.log.base.0, out);
            }
            if first.previous() > OpNumber::ZERO {
                self.compare(from, OpNumber::ZERO, out); // whose state is certain?
            }
            return out.blame(Peer::Replica(from), Fault::Contradiction("it proves another chain".to_owned()));
        }
        let (committed, outputs) = (self.committed, self.outputs_after(self.committed, it.epoch));
        if path.iter().any(|link| link.op <= committed && self.log.get(link.op) != Some(*link)) {
            return self.diverged(committed, out);
        }
        for link in path.into_iter().filter(|link| link.op > committed) {
            if self.log.get(link.op) != Some(link) {
                self.put(link, out);
                out.note(Note::Fetched(link.op));
            }
        }
        self.on_proof(proof, out);
        if self.committed == it.op && self.is_adopted() && self.log.tip().0 == it.op {
            self.follow_again(outputs, out);
            self.vote_more(out);
        }
        self.fetch_missing(out);
        self.ask_somebody(out);
        self.expect_progress(out);
    }

    /// A vote names the whole history before it. If that is not the one that is committed here, its signer lies, or was late and
    /// will follow, or histories differ: it is asked for what it can prove.
    pub(super) fn audit(&mut self, by: ReplicaId, vote: Vote, out: &mut Outbox) {
        let before = vote.op.previous();
        let ours = self.log.chain_at(before).filter(|_| before <= self.committed);
        if ours.is_some_and(|chain| chain != vote.parent) && self.doubt.is_none_or(|(whom, _)| whom != by) {
            self.compare(by, self.log.base.0, out);
        }
    }

    /// Its history does not seem to be the one that is here. It is asked for its own, from where both were certain to be one.
    fn compare(&mut self, with: ReplicaId, after: OpNumber, out: &mut Outbox) {
        self.doubt = Some((with, after));
        out.send_unsynced(Peer::Replica(with), Message::GetDecided { after }); // a question
    }

    /// Asks one of the others, each time another one, for what this replica knows by its digest only.
    pub(super) fn fetch_missing(&mut self, out: &mut Outbox) {
        if self.machine.adrift {
            return; // what blocks move is not known here
        }
        let (now, again) = (out.now(), self.config.resend);
        let once = mutated!("sync-tob/asks-once");
        let due = |digest: &Digest| self.wanted.get(digest).is_none_or(|at: &Instant| !once && now.since(*at) >= again);
        let (blocks, bundles) = self.lacks(self.log.tip().0);
        let blocks: Vec<Digest> = blocks.into_iter().filter(due).take(WANTED_MAX).collect();
        let room = WANTED_MAX.saturating_sub(blocks.len());
        let bundles: Vec<Digest> = bundles.into_iter().filter(due).take(room).collect();
        if blocks.is_empty() && bundles.is_empty() {
            return;
        }
        if self.wanted.len() > ASKED_MAX {
            self.wanted.clear();
        }
        self.wanted.extend(blocks.iter().chain(&bundles).map(|digest| (*digest, now)));
        self.body_turn = self.body_turn.wrapping_add(1);
        let Some(whom) = self.whose_bodies() else { return };
        out.send_unsynced(Peer::Replica(whom), Message::GetBodies { blocks, bundles }); // a question
        self.expect_progress(out);
    }

    /// What do these digests stand for?
    pub(super) fn on_get_bodies(&mut self, from: ReplicaId, blocks: &[Digest], bundles: &[Digest], out: &mut Outbox) {
        let (to, mut bytes) = (Peer::Replica(from), 0_usize);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        for digest in blocks {
            let running = || self.running.values().flat_map(|it| &it.blocks).find(|block| block.digest() == *digest);
            let found = self.log.blocks.get(digest).map(|(block, _)| block).or_else(running);
            if let Some(block) = found.filter(|_| bytes <= ANSWER_BYTES_MAX) {
                bytes = bytes.saturating_add(block.len());
                out.send_unsynced(to, Message::BlockBody(block.clone())); // its digest proves it
            }
        }
        for digest in bundles {
            if let Some((bundle, _)) = self.ucb.bundles.get(digest).filter(|_| bytes <= ANSWER_BYTES_MAX) {
                bytes = bytes.saturating_add(bundle.len());
                out.send_unsynced(to, Message::BundleBody(bundle.clone())); // its digest proves it
            }
        }
        self.quotas.spend(from, bytes);
    }

    /// A block, if it is one that this replica waits for.
    pub(super) fn on_block_body(&mut self, block: Block, out: &mut Outbox) {
        let digest = block.digest();
        let wanted =
            self.wanted.remove(&digest).is_some() && self.log.after(self.order.op).any(|link| link.block == digest);
        if !wanted {
            return out.ignore(self.me(), Why::Unasked);
        }
        self.keep_block(block, out);
        self.fetch_missing(out);
        self.got_body(out);
    }

    /// A bundle, if it is one that this replica waits for: f + 1 replicas have signed for it, hence a correct one has checked
    /// its requests.
    pub(super) fn on_bundle_body(&mut self, bundle: Bundle, out: &mut Outbox) {
        let digest = bundle.digest();
        if self.wanted.remove(&digest).is_none() || self.ucb.bundles.contains_key(&digest) {
            return out.ignore(self.me(), Why::Unasked);
        }
        let seq = self.persist(Record::Bundle(None, bundle.clone()), out);
        self.ucb.hold(bundle, seq, self.now(out), false);
        self.got_body(out);
    }

    fn got_body(&mut self, out: &mut Outbox) {
        self.vote_more(out);
        self.dispatch(out);
        self.arm_epoch(out);
        self.expect_progress(out);
    }

    /// What the others have committed is younger than anything that was forgotten: what was forgotten does not matter.
    pub(super) fn end_silence(&mut self, epoch: EpochNumber, out: &mut Outbox) {
        if self.silent && self.silent_until.is_some_and(|until| self.schedule.start(epoch) >= until) {
            self.silent = false;
            // Every life that was forgotten began before this block was committed; every epoch led is before its epoch.
            if !mutated!("sync-tob/silence-forgets-lives") {
                self.life = self.life.max(lives_from(self.committed));
            }
            self.led = self.led.max(epoch);
            self.persist(Record::Base(self.base_record()), out);
            out.note(Note::Other("confirms again: others have confirmed what began after it came back"));
        }
    }
}

/// Somebody's silence in a group that has nothing to order.
impl Replica {
    /// Asks for a block that began late enough, once it is that late and nothing moves by itself.
    fn ask_beyond(&self, stalled: bool, out: &mut Outbox) {
        let now = self.now(out);
        if let Some(until) = self.silent_until.filter(|until| stalled && now >= *until) {
            for other in self.others() {
                out.send_unsynced(Peer::Replica(other), Message::GetBeyond { until }); // a question
            }
        }
    }

    /// A silent replica asks for a block of an epoch that begins then or later. Whoever leads proposes one, though nothing is cast.
    /// Nothing that is safe rests on it: a block without casts has an output, votes and a place like any other.
    pub(super) fn on_get_beyond(&mut self, from: ReplicaId, until: WallTime, out: &mut Outbox) {
        let peer = Peer::Replica(from);
        self.need_clock(out);
        if self.schedule.start(self.log.tip().1) >= until {
            return out.ignore(peer, Why::Duplicate); // it is an output; statuses tell who is behind
        }
        if self.reading(out) != Reading::Synced || until > self.now(out) {
            return out.ignore(peer, Why::NotNow);
        }
        match self.grants.grant(from, until, (self.config.resend, self.config.resend_max), out.now()) {
            Ok(_) => self.arm_epoch(out),
            Err(why) => out.ignore(peer, why),
        }
    }

    /// Is a block wanted though nothing is cast, and none under way that is young enough?
    pub(super) fn seeks_beyond(&self) -> bool {
        let young = |epoch: EpochNumber| self.grants.until().is_some_and(|until| self.schedule.start(epoch) >= until);
        let running =
            || self.running.iter().filter(|(_, it)| !it.instance.is_concluded()).any(|(epoch, _)| young(*epoch));
        self.grants.until().is_some() && !young(self.log.tip().1) && !running()
    }
}

/// Reads. A linearizable one is ordered like a write: which writes others have been told of, a replica knows only a round later.
impl Replica {
    /// A query that is not to be ordered.
    pub(super) fn on_read(
        &mut self,
        client: ClientId,
        id: u64,
        consistency: Consistency,
        full: Option<ReplicaId>,
        query: Bytes,
        out: &mut Outbox,
    ) {
        if let Err(why) = self.reads.room(client) {
            return out.ignore(Peer::Client(client), why);
        }
        let Consistency::Stale { at_least: after } = consistency else {
            return out.ignore(Peer::Client(client), Why::NotForSender);
        };
        if after > self.committed.plus(WINDOW_BLOCKS) {
            return out.ignore(Peer::Client(client), Why::NotHere);
        }
        let full = full.is_none_or(|replica| replica == self.me);
        self.reads.wait(Read { client, id, full, query, after, stale: true });
        self.answer_reads(out);
    }

    /// Asks the machine for those whose block it has been given.
    pub(super) fn answer_reads(&mut self, out: &mut Outbox) {
        if self.reads.none_waits() || self.machine.fetching.is_some() {
            return;
        }
        let given = self.order.op;
        let queries = self.reads.ask(given, |it| it.after <= given);
        queries.into_iter().for_each(|(ticket, query)| out.query(ticket, query));
    }

    pub(super) fn queried(&mut self, ticket: QueryTicket, answer: Bytes, out: &mut Outbox) {
        let Some((client, message)) = self.reads.answer(ticket, answer, View::ZERO) else { return };
        // Tells of what is committed, and promises nothing.
        out.send_unsynced(Peer::Client(client), Message::Client(message));
    }
}

/// How long a replica listens before it takes part, after it has come back: until every broadcast in which its former life may
/// have signed is over.
pub(super) fn listen(replica: &Replica) -> Duration {
    replica.schedule.window().saturating_add(replica.config.epsilon.saturating_mul(2))
}
