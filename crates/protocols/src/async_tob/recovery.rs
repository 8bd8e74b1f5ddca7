//! What was lost: messages, epochs, promises.
//!
//! **Messages.** Nobody trusts the network to deliver. While something is under way and nothing gets on, a replica says again
//! what it has said, to those who may lack it. This is the only use of time, and nothing is concluded from it.
//!
//! **Epochs.** Who is behind asks all others what was decided, believes what `t + 1` of them say, and pulls batches by their
//! digests from anybody.
//!
//! **Promises.** A replica that cannot read what it has said is silent until the group is beyond every epoch in which its
//! former self can have spoken; see the README for the argument. Where nothing is ordered, it asks for epochs that order nothing.

use super::agreement::Word;
use super::durable::{Record, Silence};
use super::epoch::Epoch;
use super::lanes::Uncertified;
use super::message::{DECIDED_MAX, Decided, Head, Message, Vote};
use super::replica::Replica;
use super::{HEIGHTS_PER_EPOCH_BITS, Outbox, Timer, WINDOW_EPOCHS};
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use std::collections::BTreeMap;

/// Batches that one answer brings at most, and bytes of their payloads, unless a single one is longer.
const ANSWER_BATCHES_MAX: usize = 64;
const ANSWER_BYTES_MAX: usize = 4 << 20;
/// One's own batches that are said again at once.
const AGAIN_BATCHES_MAX: usize = 4;
/// Decided epochs that are kept of what each of the others says.
const CLAIMS_MAX: u64 = 2 * DECIDED_MAX as u64;

/// Retransmission.
impl Replica {
    /// Something is under way here.
    fn is_busy(&self) -> bool {
        let begun = self.epochs.last_key_value().is_some_and(|(op, _)| *op > self.committed());
        let certified = self.lanes.iter().any(|lane| lane.certified.is_some());
        let asks_bound = self.silent.is_some_and(|silence| silence.until.is_none());
        begun
            || certified
            || asks_bound
            || self.tick_due
            || self.uncertified.len() > 0
            || self.catch_up.wanted.is_some()
            || self.is_behind()
            || self.lacks_state()
    }

    /// Something is under way, or somebody is not known to be where I am.
    fn is_unsettled(&self) -> bool {
        let committed = self.committed();
        let elsewhere = |replica: ReplicaId| self.peers.get(&replica).is_none_or(|place| place.committed != committed);
        self.is_busy() || self.silent.is_some() || self.others().any(elsewhere)
    }

    /// Makes sure that somebody looks again, as long as there is something to look after.
    pub(super) fn expect_progress(&mut self, out: &mut Outbox) {
        if !self.again && self.is_unsettled() {
            self.again = true;
            self.pause = self.config.resend;
            out.arm(Timer::Resend, self.pause);
        }
    }

    /// If nothing has got on since the last time, says again what may have been lost, and asks.
    pub(super) fn on_resend(&mut self, out: &mut Outbox) {
        self.again = false;
        if !self.is_unsettled() {
            return;
        }
        self.speak_now(out); // a DECIDE that was in no hurry
        let (stalled, behind) = (self.told == self.progress, self.was_at == self.committed());
        (self.told, self.was_at) = (self.progress, self.committed());
        if behind {
            self.ask_again(out);
            self.ask_beyond(out);
        }
        self.ask_bound(out);
        if stalled {
            self.say_again(out);
            let longest = if self.is_busy() { self.config.resend_busy_max } else { self.config.resend_max };
            self.pause = self.pause.saturating_mul(2).min(longest);
        } else {
            self.lane_again(out);
            self.pause = self.config.resend;
        }
        self.again = true;
        out.arm(Timer::Resend, self.pause);
    }

    fn say_again(&mut self, out: &mut Outbox) {
        if mutated!("async-tob/says-nothing-again") {
            return;
        }
        out.broadcast(self.status_message(true)); // waits for the disk: others forget what they have said because of it
        let last = self.last_decided();
        if last.op > OpNumber::ZERO {
            out.broadcast(Message::Commit { op: last.op, root: last.root });
        }
        self.lanes.iter_mut().for_each(|lane| lane.asked = false);
        self.batches_again(out);
        for op in self.epochs.keys().copied().collect::<Vec<_>>() {
            self.epoch_again(op, out);
        }
        self.begin(out);
    }

    /// Asks again for what is missing here, if nothing was committed since the last time: whatever else gets on, also under
    /// the load of others, does not answer these questions.
    fn ask_again(&mut self, out: &mut Outbox) {
        if mutated!("async-tob/asks-once") {
            return;
        }
        let in_vain = self.catch_up.asked == Some(self.committed()) && self.catch_up.wanted.is_none();
        self.catch_up.in_vain = if in_vain { self.catch_up.in_vain.saturating_add(1) } else { 0 };
        self.catch_up.asked = None;
        if self.is_behind() {
            self.ask_decided(out);
        }
        self.consider_state(out);
        self.catch_up.stream = None;
        if let Some(wanted) = self.catch_up.wanted.take() {
            self.want(wanted, out);
        }
        for op in self.epochs.keys().copied().collect::<Vec<_>>() {
            let missing = self.epochs.get(&op).map(Epoch::missing).unwrap_or_default();
            for proposer in missing {
                out.broadcast_unsynced(Message::GetProp { op, proposer }); // a question
            }
        }
    }

    /// Says batches again if my lane has stood for a while, whatever else gets on: epochs of others, perhaps without anything in
    /// them, acknowledge none of mine.
    fn lane_again(&mut self, out: &mut Outbox) {
        let (lowest, now) = (self.uncertified.lowest(), out.now());
        match self.stands.filter(|(height, _)| lowest == Some(*height)) {
            None => self.stands = lowest.map(|height| (height, now)),
            Some((_, since)) if now.since(since) < self.config.resend_busy_max => {}
            Some(_) if mutated!("async-tob/says-nothing-again") => {}
            Some((height, _)) => {
                self.stands = Some((height, now));
                self.batches_again(out);
            }
        }
    }

    /// My batches that too few have acknowledged, to those who have not. They are on disk: my own acknowledgement is here.
    fn batches_again(&mut self, out: &mut Outbox) {
        let me = self.me;
        let heights = self.uncertified.heights();
        for height in heights.into_iter().take(AGAIN_BATCHES_MAX) {
            let Some(lane) = self.lanes.get(me.index()) else { return };
            let Some(acks) = self.uncertified.get_mut(height).filter(|acks| acks.contains_key(&me)) else { continue };
            let have: Vec<ReplicaId> = acks.keys().copied().collect();
            let Some(batch) = lane.acked_at(height).and_then(|head| lane.batch(head)) else { continue };
            let certificate = lane.certified.clone();
            for other in self.quorums.members().filter(|it| *it != me && !have.contains(it)) {
                let (batch, certificate) = (batch.clone(), certificate.clone());
                out.send_unsynced(Peer::Replica(other), Message::Batch { batch, certificate }); // it is on disk
            }
        }
    }

    /// What I have said in an epoch: my proposal to those who have not committed it, and my words to everybody. Whoever has
    /// decided and committed joins a further round only when it hears of it, and it may be the one without whom that round
    /// does not end.
    fn epoch_again(&mut self, op: OpNumber, out: &mut Outbox) {
        let me = self.me;
        let lacks = |it: &ReplicaId| self.peers.get(it).is_none_or(|place| place.committed < op);
        let Some(epoch) = self.epochs.get(&op) else { return };
        let own = epoch.approved.get(&me);
        let is_durable = epoch.certificates.contains_key(&me) || epoch.approvals.contains_key(&me);
        // Not my own alone: whoever wishes for a proposal makes sure that everybody can, in the end.
        let open = |it: &ReplicaId| epoch.agreements.get(it).is_none_or(|agreement| !agreement.is_over());
        let certificates = || epoch.certificates.iter().filter(|(it, _)| **it == me || open(it)).map(|(_, it)| it);
        let over = |vote: &&Vote| {
            let agreement = epoch.agreements.get(&vote.about);
            matches!(vote.word, Word::Decide(_)) || agreement.is_none_or(|it| !it.is_over())
        };
        let words: Vec<Vote> = epoch.said.iter().filter(over).copied().collect();
        for other in self.others() {
            let to = Peer::Replica(other);
            // All of it is on disk: my approval and my words came back.
            if lacks(&other) {
                if let Some(own) = own.filter(|_| is_durable) {
                    out.send_unsynced(to, Message::Prop(Box::new(own.vector.signed().clone())));
                }
                for certificate in certificates() {
                    out.send_unsynced(to, Message::PCert(certificate.clone()));
                }
            }
            for some in words.chunks(super::WORDS_MAX) {
                out.send_unsynced(to, Message::Agree(some.to_vec()));
            }
        }
    }

    /// Somebody lacks a proposal that counts, or may.
    pub(super) fn on_get_prop(&mut self, from: ReplicaId, op: OpNumber, proposer: ReplicaId, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        let Some(epoch) = self.epochs.get(&op) else { return out.ignore(to, Why::NotHere) };
        let approved = epoch.approved.get(&proposer).map(|it| &it.vector);
        let vector = epoch.certified(proposer).or(approved);
        if vector.is_none() {
            out.ignore(to, Why::NotHere);
        }
        // Both carry their proofs, and others hold them.
        if let Some(certificate) = epoch.certificates.get(&proposer) {
            out.send_unsynced(to, Message::PCert(certificate.clone()));
        }
        if let Some(vector) = vector {
            out.send_unsynced(to, Message::Prop(Box::new(vector.signed().clone())));
        }
    }
}

/// Catching up.
impl Replica {
    /// The last epoch that a correct one of the others has committed.
    fn elsewhere(&self) -> OpNumber {
        let others = self.others().filter_map(|it| self.peers.get(&it)).map(|place| place.committed);
        self.quorums.vouched(others).unwrap_or_default()
    }

    pub(super) fn is_behind(&self) -> bool {
        self.elsewhere() > self.committed()
    }

    /// Asks, if the others are so far ahead that their words will not come any more, or are no news.
    pub(super) fn catch_up(&mut self, out: &mut Outbox) {
        let far = self.elsewhere() > self.committed().next() || (self.is_behind() && self.closed() > self.committed());
        if far && self.catch_up.asked != Some(self.committed()) && self.catch_up.wanted.is_none() {
            self.ask_decided(out);
        }
    }

    fn ask_decided(&mut self, out: &mut Outbox) {
        self.catch_up.asked = Some(self.committed());
        out.broadcast_unsynced(Message::GetDecided { after: self.committed() }); // a question
    }

    /// What was decided after this epoch? Who asks for what is not in the log any more is told what states there are.
    pub(super) fn on_get_decided(&mut self, from: ReplicaId, after: OpNumber, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        let known = self.decided.range(after.next()..).take(DECIDED_MAX).map(|(_, (decided, _))| decided.clone());
        let known: Vec<Decided> = known.collect();
        if after < self.base.op || known.is_empty() {
            out.send(to, self.status_message(false));
        } else {
            out.send(to, Message::Decided(known)); // waits for the disk: it says that I have committed them
        }
    }

    /// What one of the others says was decided.
    pub(super) fn on_decided(&mut self, from: ReplicaId, all: Vec<Decided>, out: &mut Outbox) {
        let (committed, lanes) = (self.committed(), self.lanes.len());
        let near = |it: &Decided| it.op > committed && it.op <= committed.plus(CLAIMS_MAX) && it.is_of(lanes);
        let claims = self.catch_up.claims.entry(from).or_default();
        claims.retain(|op, _| *op > committed);
        claims.extend(all.into_iter().filter(near).map(|it| (it.op, it)));
        if let Some((last, _)) = claims.last_key_value() {
            let last = *last;
            let place = self.peers.entry(from).or_default();
            place.committed = place.committed.max(last);
        }
        self.commit_more(out);
        self.expect_progress(out);
    }

    /// What `t + 1` of the others say an epoch came to, and follows on what I have. What does not follow is not counted: its root
    /// may be the one that the others name, and the rest a lie.
    pub(super) fn vouched_for(&self, op: OpNumber) -> Option<Decided> {
        let last = self.last_decided();
        let follows = |it: &&Decided| last.next(it.time, it.heads.clone(), it.counted.clone()) == **it;
        let mut said: BTreeMap<Digest, (usize, &Decided)> = BTreeMap::new();
        for decided in self.catch_up.claims.values().filter_map(|claims| claims.get(&op)).filter(follows) {
            said.entry(decided.root).or_insert((0, decided)).0 += 1;
        }
        let needed = if mutated!("async-tob/catches-up-from-one") { 1 } else { self.quorums.vouch() };
        said.into_values().find(|(count, _)| *count >= needed).map(|(_, decided)| decided.clone())
    }

    /// ⟨Commit e⟩: another replica has committed an epoch. If `t + 1` have committed something else than I, I must stop.
    pub(super) fn on_commit(&mut self, from: ReplicaId, op: OpNumber, root: Digest, out: &mut Outbox) {
        if from == self.me {
            return out.ignore(Peer::Replica(from), Why::NotForSender);
        }
        let place = self.peers.entry(from).or_default();
        if op < place.committed {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        (place.committed, place.said) = (op, Some((op, root)));
        if self.decided_at(op).is_some_and(|own| own.root != root && op > OpNumber::ZERO) {
            let otherwise = self.peers.values().filter(|it| it.said == Some((op, root)));
            if otherwise.count() >= self.quorums.vouch() {
                return out.halt(format!(
                    "this replica has committed something else than the others in epoch {op}: its disk or its memory has lied. \
                     Keep the folder for analysis and run `quorate recover` on it"
                ));
            }
        }
        self.close();
        self.catch_up(out);
        self.begin(out);
        self.expect_progress(out);
    }

    /// Sets out for a batch that is decided and missing. What is below it comes with it.
    pub(super) fn want(&mut self, (lane, head): (ReplicaId, Head), out: &mut Outbox) {
        if self.catch_up.wanted == Some((lane, head)) {
            return;
        }
        self.catch_up.wanted = Some((lane, head));
        if self.catch_up.stream.is_some_and(|(of, height)| of == lane && head.height < height) {
            return; // it is on its way
        }
        self.catch_up.stream = Some((lane, head.height));
        self.catch_up.turn = self.catch_up.turn.wrapping_add(1);
        let others: Vec<_> = self.others().collect();
        let index = usize::try_from(self.catch_up.turn % others.len().max(1) as u64).unwrap_or(0);
        let above = self.lane(lane).map_or(0, |lane| lane.committed.height);
        if let Some(other) = others.get(index).copied().map(Peer::Replica) {
            out.send_unsynced(other, Message::GetChain { lane, head, above }); // a question
        }
    }

    /// The batch that was wanted: its digest proves it.
    pub(super) fn take_wanted(&mut self, batch: super::Batch, out: &mut Outbox) {
        self.catch_up.wanted = None;
        out.note(Note::Fetched(self.committed().next()));
        if let Some(lane) = self.lane_mut(batch.lane()) {
            lane.hold(batch);
        }
        self.progress = self.progress.wrapping_add(1);
        self.commit_more(out);
        self.expect_progress(out);
    }

    /// Somebody lacks a batch, and perhaps what is below it: the highest first, so that each proves the next.
    pub(super) fn on_get_chain(&mut self, from: ReplicaId, lane: ReplicaId, head: Head, above: u64, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(to, Why::Busy);
        }
        let Some(lane) = self.lane(lane) else { return out.ignore(to, Why::NotHere) };
        let (mut at, mut bytes, mut count) = (head, 0_usize, 0);
        while let Some(batch) = lane.batch(at).filter(|it| it.height() > above) {
            bytes = bytes.saturating_add(batch.payload.len());
            if count > 0 && (bytes > ANSWER_BYTES_MAX || count >= ANSWER_BATCHES_MAX) {
                break;
            }
            count += 1;
            at = batch.parent();
            // Its owner's promise, and its digest proves it: nothing of mine.
            out.send_unsynced(to, Message::Batch { batch: batch.clone(), certificate: None });
        }
        self.quotas.spend(from, bytes);
        if count == 0 {
            out.ignore(to, Why::NotHere);
        }
    }
}

/// Promises that were lost.
impl Replica {
    /// In which epochs may my former self have spoken? Asked until a quorum has answered.
    pub(super) fn ask_bound(&self, out: &mut Outbox) {
        if self.silent.is_some_and(|silence| silence.until.is_none()) {
            out.broadcast_unsynced(Message::GetBound { nonce: self.bounds.nonce }); // a question
        }
    }

    /// Somebody asks in which epochs its former self may have spoken.
    pub(super) fn on_get_bound(&mut self, from: ReplicaId, nonce: u64, out: &mut Outbox) {
        out.send(Peer::Replica(from), Message::Bound { nonce, committed: self.committed() });
    }

    /// With the answers of a quorum of others, the bound is known: the former self spoke within a window of what `n - t` had
    /// committed, and correct ones of those have answered. Answers that come later lower it.
    pub(super) fn on_bound(&mut self, from: ReplicaId, nonce: u64, committed: OpNumber, out: &mut Outbox) {
        let Some(silence) = self.silent.filter(|_| nonce == self.bounds.nonce && from != self.me) else {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        };
        self.bounds.told.insert(from, committed);
        if self.bounds.told.len() < self.quorums.quorum() {
            return;
        }
        // How many correct ones of those have answered at least: this replica is one of the t, so t - 1 of the others lie at most. For
        // the same reason the t-th highest answer is not beyond all correct ones.
        let (faults, missing) = (self.quorums.faults(), self.others().count() - self.bounds.told.len());
        let correct = self.quorums.answering().saturating_sub(faults + missing);
        let mut told: Vec<OpNumber> = self.bounds.told.values().copied().collect();
        told.sort_unstable_by(|one, other| other.cmp(one));
        let until = told.get(correct.min(faults).saturating_sub(1)).copied().unwrap_or_default().plus(WINDOW_EPOCHS);
        if silence.until.is_none_or(|known| until < known) {
            self.silent = Some(Silence { until: Some(until) });
            self.persist(Record::Base(self.base_record()), out);
            self.end_silence(out);
            self.expect_progress(out);
        }
    }

    /// Asks for epochs up to the bound, where nothing moves by itself.
    fn ask_beyond(&self, out: &mut Outbox) {
        let until = self.silent.and_then(|silence| silence.until);
        if let Some(until) = until.filter(|until| *until > self.committed()) {
            out.broadcast_unsynced(Message::GetBeyond { until }); // a question
        }
    }

    /// A silent replica asks the group to get beyond this epoch. Whoever hears it begins epochs, though no lane has got on. Nothing
    /// that is safe rests on it: an epoch that orders nothing is agreed upon like any other.
    pub(super) fn on_get_beyond(&mut self, from: ReplicaId, until: OpNumber, out: &mut Outbox) {
        let (peer, committed) = (Peer::Replica(from), self.committed());
        if until <= committed {
            return out.ignore(peer, Why::Duplicate); // it lacks what is committed; statuses tell who is behind
        }
        if until > committed.plus(WINDOW_EPOCHS) {
            return out.ignore(peer, Why::OutsideWindow); // no former self has promised that
        }
        match self.grants.grant(from, until, (self.config.resend, self.config.resend_max), out.now()) {
            Ok(_) => self.begin(out),
            Err(why) => out.ignore(peer, why),
        }
    }

    /// Is an epoch wanted though no lane has got on?
    pub(super) fn seeks_beyond(&self) -> bool {
        self.grants.until().is_some_and(|until| until > self.committed())
    }

    /// The group is beyond every epoch in which the former self can have spoken: what it forgot does not matter any more. Its
    /// lane goes on at heights that the former self has not used.
    pub(super) fn end_silence(&mut self, out: &mut Outbox) {
        let until = self.silent.and_then(|silence| silence.until);
        if let Some(until) = until.filter(|until| self.committed() >= *until) {
            self.silent = None;
            if !mutated!("async-tob/uses-heights-again") {
                self.floor = self.floor.max(until.get().saturating_mul(1 << HEIGHTS_PER_EPOCH_BITS));
            }
            self.persist(Record::Base(self.base_record()), out);
            out.note(Note::Other("speaks again: the group is beyond everything that was forgotten"));
            // While it was silent it heard words and answered none. Where it speaks now, it hears them again.
            let quorums = self.quorums;
            self.epochs.values_mut().for_each(|epoch| epoch.restore(quorums, &[]));
            self.uncertified = Uncertified::default();
            if let Some(lane) = self.lanes.get_mut(self.me.index()) {
                lane.abandon();
            }
            for member in self.quorums.members() {
                self.ack_more(member, out);
            }
        }
    }
}
