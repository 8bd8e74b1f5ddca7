//! Epochs: everybody proposes how far the lanes are certified, one agreement for each proposal says whether it counts, and
//! the union of those that count is next. No step waits for a time: each waits for `n - t` replicas, or for one's own disk.

use super::agreement::{Agreement, Refused, Step, Word};
use super::durable::Record;
use super::message::{Approval, Decided, Message, Vector, Vote, WORDS_MAX};
use super::replica::Replica;
use super::{Outbox, WINDOW_EPOCHS};
use quorate_core::crypto::{Certificate, Certified, CoinShare, Digest, Evidence, Toss, Verified};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::mutated;
use quorate_core::outbox::Note;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// Shares of one coin.
#[derive(Debug, Default)]
struct Shares {
    here: BTreeMap<ReplicaId, CoinShare>,
    /// Who sent what is none. Asked no more.
    liars: BTreeSet<ReplicaId>,
}

/// A proposal and its digest.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) digest: Digest,
    pub(super) vector: Verified<Vector>,
}

/// One epoch that not everybody is known to be done with.
#[derive(Debug)]
pub(super) struct Epoch {
    /// The first proposal of each replica: approved, unless this replica is silent.
    pub(super) approved: BTreeMap<ReplicaId, Proposal>,
    /// Proposals that a quorum has approved, where they are not those above.
    pulled: BTreeMap<ReplicaId, Proposal>,
    /// Who has approved mine.
    pub(super) approvals: BTreeMap<ReplicaId, Verified<Approval>>,
    pub(super) certificates: BTreeMap<ReplicaId, Certificate<Approval>>,
    pub(super) agreements: BTreeMap<ReplicaId, Agreement>,
    shares: BTreeMap<(ReplicaId, u32), Shares>,
    /// What I have said, once it is on disk: it may be said again.
    pub(super) said: Vec<Vote>,
    /// I have said something, perhaps not on disk yet.
    spoken: bool,
    /// The agreements know their first coins: the epoch before is decided here.
    has_coins: bool,
    /// The first record about this epoch.
    pub(super) first: Option<RecordSeq>,
}

impl Epoch {
    pub(super) fn new(quorums: ByzantineQuorums) -> Self {
        Self {
            approved: BTreeMap::new(),
            pulled: BTreeMap::new(),
            approvals: BTreeMap::new(),
            certificates: BTreeMap::new(),
            agreements: quorums.members().map(|member| (member, Agreement::new(quorums))).collect(),
            shares: BTreeMap::new(),
            said: Vec::new(),
            spoken: false,
            has_coins: false,
            first: None,
        }
    }

    pub(super) fn has_spoken(&self) -> bool {
        self.spoken
    }

    pub(super) fn recorded(&mut self, seq: RecordSeq) {
        self.first.get_or_insert(seq);
    }

    /// As its records have it. The words come back as a message to oneself, to be counted.
    pub(super) fn restore(&mut self, quorums: ByzantineQuorums, words: &[Vote]) {
        for (member, agreement) in &mut self.agreements {
            let of_it = words.iter().filter(|vote| vote.about == *member).map(|vote| vote.word);
            *agreement = Agreement::restore(quorums, of_it);
        }
        (self.spoken, self.has_coins) = (!words.is_empty(), false);
    }

    /// The epoch before is decided: what was decided about each replica's proposal is tried first in this one.
    fn show_coins(&mut self, counted: &[bool]) -> Vec<(ReplicaId, Vec<Step>)> {
        self.has_coins = true;
        let agreements = self.agreements.iter_mut().zip(counted);
        agreements.map(|((about, agreement), counted)| (*about, agreement.on_first_coin(*counted))).collect()
    }

    /// The proposal that a quorum has approved, if it is here.
    pub(super) fn certified(&self, proposer: ReplicaId) -> Option<&Verified<Vector>> {
        let digest = self.certificates.get(&proposer)?.statement().digest;
        let found = [&self.approved, &self.pulled].into_iter().filter_map(|all| all.get(&proposer));
        found.into_iter().find(|it| it.digest == digest).map(|it| &it.vector)
    }

    /// Proposals that count, or may, and are missing here, or their proof.
    pub(super) fn missing(&self) -> Vec<ReplicaId> {
        let wanted = |(it, agreement): &(&ReplicaId, &Agreement)| {
            agreement.decided() != Some(false)
                && (agreement.decided() == Some(true) || self.certificates.contains_key(it))
                && self.certified(**it).is_none()
        };
        self.agreements.iter().filter(wanted).map(|(it, _)| *it).collect()
    }

    fn agreed(&self, value: bool) -> usize {
        self.agreements.values().filter(|it| it.decided() == Some(value)).count()
    }

    /// The proposals that count, once it is known of all and they are here.
    fn union(&self) -> Option<Vec<&Verified<Vector>>> {
        if self.agreements.values().any(|it| it.decided().is_none()) {
            return None;
        }
        let any = mutated!("async-tob/union-of-what-is-here");
        let counts = self.agreements.iter().filter(|(it, agreement)| {
            if any { self.certified(**it).is_some() } else { agreement.decided() == Some(true) }
        });
        counts.map(|(proposer, _)| self.certified(*proposer)).collect()
    }

    /// Is there a sign that somebody has begun it?
    fn is_begun(&self) -> bool {
        !self.approved.is_empty() || !self.certificates.is_empty()
    }
}

/// Proposals.
impl Replica {
    /// ⟨Prop e, i, U⟩, once for each epoch: if a lane has got on, if somebody else has begun, if the machine wants its tick, if
    /// a silent replica has to get beyond this epoch.
    pub(super) fn begin(&mut self, out: &mut Outbox) {
        let op = self.committed().next();
        if !self.may_speak(op) || self.refuses_epoch(op).is_some() {
            return;
        }
        let me = self.me;
        if self.epochs.get(&op).is_some_and(|epoch| epoch.approved.contains_key(&me)) {
            return;
        }
        let joined = self.epochs.get(&op).is_some_and(Epoch::is_begun);
        let heads: Vec<_> = self.lanes.iter().filter_map(|lane| lane.certified.clone()).collect();
        if heads.is_empty() && !joined && !self.tick_due && !self.seeks_beyond() {
            return;
        }
        self.tick_due = false;
        let vector = self.keyring.sign(Vector { op, time: out.wall(), heads });
        out.broadcast(Message::Prop(Box::new(vector.clone())));
        if let Ok(vector) = vector.verified() {
            self.approve(vector, out); // my own, too
        }
        self.expect_progress(out);
    }

    /// ⟨Prop e, j, U⟩ of another replica, or my former self's; also as the answer to `GetProp`.
    pub(super) fn on_prop(&mut self, from: ReplicaId, vector: Verified<Vector>, out: &mut Outbox) {
        let (by, op) = (vector.by(), vector.statement().op);
        if let Some(why) = self.refuses_epoch(op) {
            return out.ignore(Peer::Replica(from), why);
        }
        let proposal = Proposal { digest: vector.statement().digest(), vector };
        let digest = proposal.digest;
        let may_speak = self.may_speak(op);
        let epoch = self.epoch(op);
        let is_certified = epoch.certificates.get(&by).is_some_and(|it| it.statement().digest == digest);
        match epoch.approved.get(&by).map(|it| (it.digest, it.vector.clone())) {
            Some((approved, _)) if approved == digest => {
                if from == by && may_speak {
                    let again = self.keyring.sign(Approval { op, proposer: by, digest });
                    out.send(Peer::Replica(by), Message::PAck(again)); // it has not heard of it
                }
                return out.ignore(Peer::Replica(from), Why::Duplicate);
            }
            Some((_, approved)) => {
                if is_certified {
                    epoch.pulled.insert(by, proposal.clone());
                    self.consider(op, out);
                }
                self.convict(Evidence::of(&approved, &proposal.vector), out);
                return;
            }
            None => {}
        }
        if let Err(fault) = self.check_heads(&proposal.vector) {
            return out.blame(Peer::Replica(by), fault);
        }
        if may_speak {
            self.approve(proposal.vector, out);
            self.begin(out);
        } else {
            self.epoch(op).pulled.insert(by, proposal);
        }
        self.consider(op, out);
    }

    /// Every head that is proposed is certified. Certificates that are known are not looked at again.
    fn check_heads(&mut self, vector: &Verified<Vector>) -> Result<(), Fault> {
        let quorum = self.quorums.quorum();
        for certificate in &vector.statement().heads {
            let it = certificate.statement();
            let Some(lane) = self.lane(it.lane) else {
                return Err(Fault::Malformed("a head of no lane".to_owned()));
            };
            let known = lane.committed == it.head
                || lane.certified.as_ref().is_some_and(|certified| certified.statement() == it);
            if !known {
                let mut certificate = certificate.clone();
                certificate.prove(&self.keyring, quorum)?;
                self.learn(certificate.certified(quorum)?);
            }
        }
        Ok(())
    }

    /// ⟨PAck e, j, H(U)⟩: I keep this proposal, and approve no other of that replica in that epoch.
    fn approve(&mut self, vector: Verified<Vector>, out: &mut Outbox) {
        let (op, proposer, digest) = (vector.statement().op, vector.by(), vector.statement().digest());
        let seq = self.persist(Record::Approved(Box::new(vector.signed().clone())), out);
        let approval = self.keyring.sign(Approval { op, proposer, digest });
        out.send(Peer::Replica(proposer), Message::PAck(approval)); // my own comes back when it is on disk
        let epoch = self.epoch(op);
        epoch.recorded(seq);
        epoch.approved.insert(proposer, Proposal { digest, vector });
    }

    /// ⟨PAck e, i, H(U)⟩ for my proposal. A quorum of them proves that `t + 1` correct replicas keep it, and approve no other:
    /// ⟨PCert e, i⟩.
    pub(super) fn on_pack(&mut self, approval: Verified<Approval>, out: &mut Outbox) {
        let (by, it, quorum, me) = (approval.by(), *approval.statement(), self.quorums.quorum(), self.me);
        let Some(epoch) = self.epochs.get_mut(&it.op).filter(|_| it.proposer == me) else {
            return out.ignore(Peer::Replica(by), Why::OldView);
        };
        let is_mine = epoch.approved.get(&me).is_some_and(|mine| mine.digest == it.digest);
        if !is_mine || epoch.certificates.contains_key(&me) {
            return out.ignore(Peer::Replica(by), Why::Duplicate);
        }
        epoch.approvals.insert(by, approval);
        let Some(certified) = Certified::assemble(epoch.approvals.values(), &it, quorum) else { return };
        let certificate = certified.into_certificate();
        epoch.certificates.insert(me, certificate.clone());
        out.broadcast_unsynced(Message::PCert(certificate)); // others' promises, with their signatures: nothing of mine
        self.consider(it.op, out);
    }

    /// ⟨PCert e, j⟩: a quorum has seen that proposal.
    pub(super) fn on_pcert(&mut self, certified: Certified<Approval>, out: &mut Outbox) {
        let it = *certified.statement();
        if let Some(why) = self.refuses_epoch(it.op) {
            return out.ignore(Peer::Replica(it.proposer), why);
        }
        if !self.quorums.contains(it.proposer) {
            return out.ignore(self.me(), Why::NotForSender);
        }
        self.epoch(it.op).certificates.entry(it.proposer).or_insert_with(|| certified.into_certificate());
        self.begin(out);
        self.consider(it.op, out);
        self.expect_progress(out);
    }
}

/// Agreements.
impl Replica {
    /// Something about an epoch is new.
    pub(super) fn consider(&mut self, op: OpNumber, out: &mut Outbox) {
        self.wish(op, out);
        self.commit_more(out);
    }

    /// Gives agreements their inputs: 1 where a quorum has seen the proposal and it is here, 0 for the rest as soon as
    /// `n - t` are in (Ben-Or, Kelmer, Rabin). Whose proposal did not count in the epoch before, and has not even arrived when
    /// `n - t` that counted are seen, is not waited for: its agreement runs beside the others' (ADR 024).
    fn wish(&mut self, op: OpNumber, out: &mut Outbox) {
        let may_speak = self.may_speak(op) && op <= self.closed().plus(WINDOW_EPOCHS);
        let answering = self.quorums.answering();
        let counted = self.decided_at(op.previous()).map(|it| it.counted.clone()).unwrap_or_default();
        let Some(epoch) = self.epochs.get_mut(&op).filter(|_| may_speak) else { return };
        let enough = epoch.agreed(true) >= answering;
        // Only those that counted before: nobody wishes 0 for these early, so they will count, and `n - t` do.
        let (was_here, was_missing) = (Some(&true), Some(&false));
        let others = self.quorums.members().filter(|it| counted.get(it.index()) == was_here);
        let others = others.filter(|it| epoch.certified(*it).is_some()).count() >= answering;
        let (mut steps, mut wished) = (Vec::new(), Vec::new());
        for member in self.quorums.members() {
            let seen = epoch.certified(member).is_some()
                || (mutated!("async-tob/wants-what-few-have-seen") && epoch.approved.contains_key(&member));
            let is_missing =
                others && counted.get(member.index()) == was_missing && !epoch.approved.contains_key(&member);
            let Some(agreement) = epoch.agreements.get_mut(&member).filter(|it| !it.has_input()) else { continue };
            if seen {
                steps.push((member, agreement.input(true)));
                wished.extend(epoch.certificates.get(&member).cloned());
            } else if enough || is_missing {
                steps.push((member, agreement.input(false)));
            }
        }
        for certificate in wished {
            if !mutated!("async-tob/certificates-are-not-durable") {
                let seq = self.persist(Record::Certified(certificate), out);
                self.epoch(op).recorded(seq);
            }
        }
        for (about, steps) in steps {
            self.take_steps(op, about, steps, out);
        }
    }

    /// Shows the agreements of an epoch their first coins, once what they follow from is decided here. What does so late, since
    /// this replica is behind, has waited with what it was told.
    fn show_coins(&mut self, out: &mut Outbox) {
        let dark = self.epochs.iter().filter(|(_, epoch)| !epoch.has_coins);
        let known = dark.filter_map(|(op, _)| Some((*op, self.decided_at(op.previous())?.counted.clone())));
        for (op, counted) in known.collect::<Vec<_>>() {
            let steps = self.epoch(op).show_coins(&counted);
            if self.may_speak(op) {
                for (about, steps) in steps {
                    self.take_steps(op, about, steps, out);
                }
                self.wish(op, out);
            }
        }
    }

    fn take_steps(&mut self, op: OpNumber, about: ReplicaId, steps: Vec<Step>, out: &mut Outbox) {
        let mut todo: Vec<Step> = steps;
        while !todo.is_empty() {
            for step in std::mem::take(&mut todo) {
                match step {
                    Step::Say(word) => self.say(Vote { op, about, word }),
                    Step::Toss(round) => {
                        if let Some(share) = self.keyring.coin_share(&coin_name(op, about, round)) {
                            self.say(Vote { op, about, word: Word::Share(round, share) });
                        }
                        todo.extend(self.toss(op, about, round, out));
                    }
                    Step::Decided(_) => self.progress = self.progress.wrapping_add(1),
                    Step::GaveUp => out.halt(format!(
                        "the agreement on {about}'s proposal for epoch {op} has tossed a hundred coins in vain: somebody knows \
                         them in advance. Make a new cluster, with coin keys that nobody has seen"
                    )),
                }
            }
        }
    }

    /// Puts a word among those that are to be said.
    fn say(&mut self, vote: Vote) {
        self.epoch(vote.op).spoken = true;
        self.words.push(vote);
    }

    /// Says what has gathered, if nothing is on its way to the disk: then it would have to wait for that anyhow. One sync,
    /// one message for all agreements. Called at the end of every turn. A DECIDE by itself waits for another word, or for the
    /// resend timer: whoever has not decided enters a further round and takes the others along, and in the good case all
    /// commit, and nobody needs it.
    pub(super) fn speak(&mut self, out: &mut Outbox) {
        if self.words.iter().any(|vote| !matches!(vote.word, Word::Decide(_))) {
            self.speak_now(out);
        }
    }

    pub(super) fn speak_now(&mut self, out: &mut Outbox) {
        if self.speaking || self.words.is_empty() {
            return;
        }
        let rest = self.words.split_off(self.words.len().min(WORDS_MAX));
        let words = std::mem::replace(&mut self.words, rest);
        let seq = self.persist(Record::Said(words.clone()), out);
        for vote in &words {
            self.epoch(vote.op).recorded(seq);
        }
        self.speaking = true;
        out.broadcast(Message::Agree(words.clone()));
        out.send(self.me(), Message::Agree(words)); // comes back when they are on disk, and only then counts
        self.expect_progress(out);
    }

    /// Words of agreements, one's own included.
    pub(super) fn on_agree(&mut self, from: ReplicaId, votes: Vec<Vote>, out: &mut Outbox) {
        let own = from == self.me;
        if own {
            self.speaking = false;
        }
        let mut touched = BTreeSet::new();
        for vote in votes {
            let refused =
                self.refuses_epoch(vote.op).or((!self.quorums.contains(vote.about)).then_some(Why::NotForSender));
            if let Some(why) = refused {
                out.ignore(Peer::Replica(from), why);
                continue;
            }
            if own {
                self.epoch(vote.op).said.push(vote);
            }
            touched.insert(vote.op);
            self.take_word(from, vote, out);
        }
        for op in touched {
            self.consider(op, out);
        }
    }

    fn take_word(&mut self, from: ReplicaId, vote: Vote, out: &mut Outbox) {
        let Vote { op, about, word } = vote;
        let may_speak = self.may_speak(op);
        let epoch = self.epoch(op);
        let Some(agreement) = epoch.agreements.get_mut(&about) else { return };
        if let Word::Share(round, share) = word {
            if agreement.is_over() || !agreement.is_near(round) {
                return out.ignore(Peer::Replica(from), Why::OutsideWindow);
            }
            let shares = epoch.shares.entry((about, round)).or_default();
            if !shares.liars.contains(&from) {
                shares.here.entry(from).or_insert(share);
            }
            let steps = self.toss(op, about, round, out);
            return self.take_steps(op, about, steps, out);
        }
        match agreement.on_word(from, word) {
            Ok(steps) if may_speak => self.take_steps(op, about, steps, out),
            Ok(_) => {} // it listens, and says nothing
            Err(Refused::Late(why)) => out.ignore(Peer::Replica(from), why),
            Err(Refused::Contradicts) => {
                let what = format!("two words in one place of the agreement on {about}'s proposal for epoch {op}");
                out.blame(Peer::Replica(from), Fault::Contradiction(what));
            }
        }
    }

    /// Tosses the coin of a round, if this replica waits for it and there are enough shares. They are combined unseen; only if
    /// that gives nothing, each is looked at.
    fn toss(&mut self, op: OpNumber, about: ReplicaId, round: u32, out: &mut Outbox) -> Vec<Step> {
        let keyring = self.keyring.clone();
        let epoch = self.epoch(op);
        let Some(agreement) = epoch.agreements.get_mut(&about).filter(|it| it.awaits_coin() == Some(round)) else {
            return Vec::new();
        };
        let Some(shares) = epoch.shares.get_mut(&(about, round)) else { return Vec::new() };
        loop {
            match keyring.toss(&coin_name(op, about, round), &shares.here) {
                Toss::Waits => return Vec::new(),
                Toss::Fell(value) => {
                    out.note(Note::Other("tossed a coin"));
                    return agreement.on_coin(round, value);
                }
                Toss::Lies(liars) => {
                    for liar in liars {
                        shares.here.remove(&liar);
                        shares.liars.insert(liar);
                        let what = format!("a share of no coin: epoch {op}, {about}'s proposal, round {round}");
                        out.blame(Peer::Replica(liar), Fault::Contradiction(what));
                    }
                }
            }
        }
    }
}

/// Coins of different agreements and rounds are different: one for several would be known before all are bound.
fn coin_name(op: OpNumber, about: ReplicaId, round: u32) -> Digest {
    Digest::of_parts(&[b"async-tob/1 coin", &(op, about, round).encode()])
}

/// Commit.
impl Replica {
    /// Commits one epoch after the other, as far as it is known what they came to and everything is here.
    pub(super) fn commit_more(&mut self, out: &mut Outbox) {
        let before = self.committed();
        self.show_coins(out);
        while let Some(decided) = self.outcome() {
            if let Some(missing) = self.missing_batch(&decided) {
                self.want(missing, out);
                break;
            }
            self.commit(decided, out);
            self.show_coins(out);
        }
        if self.committed() == before {
            return;
        }
        out.note(Note::Committed(self.committed()));
        self.close();
        self.end_silence(out);
        self.dispatch(out);
        for member in self.quorums.members() {
            self.ack_more(member, out);
        }
        self.fill_lane(out);
        self.begin(out);
        self.catch_up(out);
        self.expect_progress(out);
    }

    /// What the next epoch came to: as `t + 1` others say, or as the agreements say.
    fn outcome(&self) -> Option<Decided> {
        let last = self.last_decided();
        let op = last.op.next();
        if let Some(decided) = self.vouched_for(op) {
            return Some(decided);
        }
        let epoch = self.epochs.get(&op)?;
        let union = epoch.union()?;
        // At least n - t proposals count, and of their clocks t + 1 are not behind the one that is taken, hence one of a
        // correct replica; as many are not before it.
        let times = union.iter().map(|it| it.statement().time);
        let time = self.quorums.vouched(times);
        let mut heads = last.heads.clone();
        for certificate in union.iter().flat_map(|it| &it.statement().heads) {
            let it = certificate.statement();
            if let Some(head) = heads.get_mut(it.lane.index()).filter(|head| head.height < it.head.height) {
                *head = it.head;
            }
        }
        let counted = epoch.agreements.values().map(|it| it.decided() == Some(true)).collect();
        Some(last.next(time.unwrap_or(last.time).max(last.time), heads, counted))
    }

    /// The first batch that is not here, of those that an epoch orders.
    fn missing_batch(&self, decided: &Decided) -> Option<(ReplicaId, super::Head)> {
        let lanes = self.quorums.members().zip(self.lanes.iter().zip(&decided.heads));
        lanes.into_iter().find_map(|(id, (lane, head))| Some((id, lane.chain(*head, lane.committed.height).err()?)))
    }

    fn commit(&mut self, decided: Decided, out: &mut Outbox) {
        let op = decided.op;
        for (id, head) in self.quorums.members().zip(decided.heads.clone()) {
            self.keep_chain(id, head, out);
            if let Some(lane) = self.lane_mut(id) {
                lane.commit(head);
            }
        }
        self.forget_certified();
        let root = decided.root;
        let seq = self.persist(Record::Decided(decided.clone()), out);
        self.decided.insert(op, (decided, seq));
        (self.catch_up.wanted, self.catch_up.stream, self.catch_up.in_vain) = (None, None, 0);
        self.progress = self.progress.wrapping_add(1);
        // Others forget what they have said in an epoch that n - t have committed: it must be on disk.
        out.broadcast(Message::Commit { op, root });
    }

    /// What is committed is in the log, also what came as an orphan.
    fn keep_chain(&mut self, id: ReplicaId, head: super::Head, out: &mut Outbox) {
        let Some(lane) = self.lane(id) else { return };
        let chain = lane.chain(head, lane.committed.height).unwrap_or_default();
        let lacking: Vec<_> = chain.into_iter().filter(|batch| !lane.is_recorded(batch.head())).cloned().collect();
        for batch in lacking {
            let head = batch.head();
            let seq = self.persist(Record::Batch(batch, false), out);
            if let Some(lane) = self.lane_mut(id) {
                lane.recorded(head, seq);
            }
        }
    }

    /// Forgets the epochs that `n - t` replicas have committed: whoever lacks one asks for what it came to.
    pub(super) fn close(&mut self) {
        let closed = self.closed();
        self.epochs = self.epochs.split_off(&closed.next());
        self.words.retain(|vote| vote.op > closed);
    }
}
