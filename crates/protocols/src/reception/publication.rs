//! From a publication to its certificate: receive, say so, count, ask for what is missing (steps 2 to 4 of the specification).

use super::durable::Record;
use super::message::{Certified, Message, Reception as Received, digest, weight};
use super::order::SESSION;
use super::replica::Replica;
use super::replies::name;
use super::{LIFT, Outbox, Timer};
use crate::pbft::{self, Group};
use quorate_core::crypto::{Digest, Verified};
use quorate_core::fault::Why;
use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::mutated;
use quorate_core::nested::nested;
use quorate_core::outbox::Class;
use quorate_core::time::{Duration, Instant, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// Publications that are not here and of which one replica has told: a liar's inventions fill its own places only.
pub(super) const PARKED_MAX: usize = 4096;
/// How often a publication is asked for that nobody gives, until another replica tells of it.
const PULLS_MAX: u32 = 8;
/// Publications that one turn of a timer asks for: of each replica's, equally many while it tells of more.
const PULLED_AT_ONCE_MAX: usize = 256;

/// A publication that is not here.
#[derive(Debug, Default)]
pub(super) struct Unknown {
    /// Questions for it that are left, until somebody says that it still waits.
    left: u32,
    /// Who was asked last.
    asked: Option<ReplicaId>,
}

/// The publications that are not here and of which one replica tells, over its own link.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub digests: BTreeSet<Digest>,
    /// The last one that was asked for in this replica's share of the questions.
    last: Digest,
}

impl Told {
    /// In turn: first what follows the last one that was asked for.
    fn in_turn(&self) -> impl Iterator<Item = Digest> + '_ {
        let behind = self.digests.range((Bound::Excluded(self.last), Bound::Unbounded));
        behind.chain(self.digests.range(..=self.last)).copied()
    }
}

/// A publication that is received and not ordered.
#[derive(Debug)]
pub(super) struct Pending {
    pub group: Group,
    /// The first of its records.
    pub seq: RecordSeq,
    /// When it was received here (rts).
    pub time: WallTime,
    /// The replica from which it was pulled, in whose share it is; `None`: its client, by whatever way.
    pub giver: Option<ReplicaId>,
    /// Its client has asked again, over its own link: it is answered in full, whomever it had chosen for that.
    pub in_full: bool,
    pub stage: Stage,
    /// When it is spoken of again, and the pause after that.
    pub next: Instant,
    pub pause: Duration,
}

/// How far a publication is.
#[derive(Debug)]
pub(super) enum Stage {
    /// Too few have received it, as far as is known here.
    Received,
    /// Enough have. It is in PBFT's hands once it was handed over.
    Certified {
        certified: Box<Certified>,
        /// My request to PBFT, the same at every attempt.
        request: Option<Group>,
    },
}

impl Replica {
    /// A publication, by whatever way: it proves itself. What was ordered already came late, or twice: a broker may repeat
    /// everything for ever, and nothing is ordered again for it. A client that has no answer says so over its own link.
    pub(super) fn on_publish(&mut self, from: Peer, group: Group, out: &mut Outbox) {
        let digest = digest(&group);
        if self.inserted.contains_key(&digest) || self.spent.covers(&group) {
            return out.ignore(from, Why::Duplicate);
        }
        self.take(from, digest, group, false, out);
    }

    /// A client asks again, over its own link: for the answer, perhaps, of something that was ordered.
    pub(super) fn on_submit(&mut self, from: Peer, group: Group, out: &mut Outbox) {
        if from != Peer::Client(group.statement().client) {
            return self.on_publish(from, group, out); // nobody asks in somebody else's name
        }
        let digest = digest(&group);
        if let Some(pending) = self.pending.get_mut(&digest) {
            pending.in_full = true;
        }
        if self.will_reply(&group) {
            return out.ignore(from, Why::Duplicate); // the machine has it
        }
        self.take(from, digest, group, true, out);
    }

    /// Receives a publication, unless it is here or its answers are.
    fn take(&mut self, from: Peer, digest: Digest, group: Group, in_full: bool, out: &mut Outbox) {
        let client = group.statement().client;
        let is_here = self.pending.contains_key(&digest) && !mutated!("reception/a-second-copy-is-received-again");
        if is_here || self.reply_again(&group, in_full, out) {
            return out.ignore(from, Why::Duplicate); // whoever cannot answer receives it, and then it is ordered again
        }
        if !self.has_room(&group, None) {
            let view = self.module.view();
            // Promises nothing; the view is no secret.
            out.send_unsynced(Peer::Client(client), Message::Module(pbft::Message::Busy { view }));
            return out.ignore(from, Why::Busy);
        }

        self.inserted.remove(&digest);
        self.receive(digest, group, None, out);
        if let Some(pending) = self.pending.get_mut(&digest) {
            pending.in_full = in_full;
        }
    }

    /// Clients have a share of the room, and so has each replica for what is pulled from it: as large as clients have there. So
    /// replicas that are full of different publications can still pull each other's, have them ordered, and have room again.
    /// No client gets more of the clients' share than it leaves free.
    fn has_room(&self, group: &Group, giver: Option<ReplicaId>) -> bool {
        let bytes = weight(group);
        let share = self.config.pending_bytes.checked_div(self.quorums.replicas()).unwrap_or_default();
        let taken = self.bytes.get(&giver).copied().unwrap_or_default();
        let of_client = self.client_bytes.get(&group.statement().client).copied().unwrap_or_default();
        let free = share.saturating_sub(taken);
        let fits_client = giver.is_some() || of_client.saturating_add(bytes) <= self.config.client_bytes.min(free);
        bytes <= free && fits_client
    }

    /// Keeps a publication, and tells everybody when it is on disk: ⟨d, rts⟩.
    fn receive(&mut self, digest: Digest, group: Group, giver: Option<ReplicaId>, out: &mut Outbox) {
        let seq = out.persist(Class::Entry, Record::Publication(group.clone()));
        let time = self.promised.remove(&digest).unwrap_or_else(|| {
            let next = WallTime::from_nanos(self.clock.as_nanos().saturating_add(1));
            next.max(out.wall())
        });
        self.clock = self.clock.max(time);
        out.persist(Class::Promise, Record::Received { digest, time });
        let vote = self.keyring.sign(Received { digest, time });
        out.broadcast(Message::Reception { vote: vote.clone(), again: false });
        out.send(self.me(), Message::Reception { vote, again: false });

        let (next, pause) = (out.now().plus(self.config.resend), self.config.resend);
        let stage = Stage::Received;
        self.enter(digest, Pending { group, seq, time, giver, in_full: false, stage, next, pause });
        self.certify(digest, out);
        self.expect_again(out);
    }

    /// Enters a publication into the books.
    pub(super) fn enter(&mut self, digest: Digest, pending: Pending) {
        let bytes = weight(&pending.group);
        let taken = self.bytes.entry(pending.giver).or_default();
        *taken = taken.saturating_add(bytes);
        if pending.giver.is_none() {
            let of_client = self.client_bytes.entry(pending.group.statement().client).or_default();
            *of_client = of_client.saturating_add(bytes);
        }
        self.needed.insert(pending.seq);
        self.pending.insert(digest, pending);
        self.lacks_no_more(digest);
    }

    /// Takes a publication out of the books: it is ordered.
    pub(super) fn leave(&mut self, digest: Digest) {
        self.receptions.remove(&digest);
        self.comparisons.waiting.remove(&digest);
        let Some(pending) = self.pending.remove(&digest) else { return };
        self.needed.remove(&pending.seq);
        let bytes = if mutated!("reception/full-for-ever") { 0 } else { weight(&pending.group) };
        self.bytes.entry(pending.giver).and_modify(|taken| *taken = taken.saturating_sub(bytes));
        let client = pending.group.statement().client;
        if pending.giver.is_none()
            && let Some(of_client) = self.client_bytes.get_mut(&client)
        {
            *of_client = of_client.saturating_sub(bytes);
            if *of_client == 0 {
                self.client_bytes.remove(&client);
            }
        }
    }

    /// ⟨d, rts⟩ from a replica, oneself included: it comes back when it is on disk. Of what is not here, and of what was ordered
    /// lately, only its signer may tell: who repeats what others have signed long ago fills none of their places.
    pub(super) fn on_reception(&mut self, from: ReplicaId, vote: Verified<Received>, again: bool, out: &mut Outbox) {
        let (by, it) = (vote.by(), *vote.statement());
        if let Some(ordered_at) = self.inserted.get(&it.digest) {
            if !again || from != by || out.now().since(*ordered_at) < self.config.resend_max {
                return out.ignore(Peer::Replica(from), Why::Duplicate);
            }
            // It has missed the order, or its client asks again: ordered once more, everybody is done with it and it is answered.
            self.inserted.remove(&it.digest);
        }
        let is_here = self.pending.contains_key(&it.digest);
        if !is_here && from != by {
            return out.ignore(Peer::Replica(from), Why::NotForSender);
        }
        let votes = self.receptions.get(&it.digest);
        let known = votes.and_then(|votes| votes.get(&by)).map(|known| known.statement().time);
        if known == Some(it.time) && again && !is_here {
            // It still waits, and all questions were lost: one more for each time that it says so.
            if let Some(unknown) = self.unknown.get_mut(&it.digest) {
                unknown.left = unknown.left.max(1);
            }
            return self.expect_pull(out);
        }
        if known == Some(it.time) {
            return out.ignore(Peer::Replica(from), Why::Duplicate);
        }
        if known.is_some() {
            // What was ordered may be published again, and received again at another time. Either time is this replica's word, and
            // it counts once.
            self.receptions.entry(it.digest).or_default().insert(by, vote);
            return;
        }
        let parked = self.parked.get(&by).map_or(0, |told| told.digests.len());
        if !is_here && parked >= PARKED_MAX {
            return out.ignore(Peer::Replica(by), Why::Busy);
        }

        let votes = self.receptions.entry(it.digest).or_default();
        votes.insert(by, vote);
        if is_here {
            self.compare_soon(it.digest);
            return self.certify(it.digest, out);
        }
        let enough = votes.len() == self.quorums.vouch();
        self.parked.entry(by).or_default().digests.insert(it.digest);
        self.unknown.entry(it.digest).or_default().left = PULLS_MAX;
        if enough {
            self.ask_for(it.digest, out); // a correct replica has it: it is not a liar's invention
        } else {
            self.expect_pull(out);
        }
    }

    /// Enough have received it: hand it to PBFT.
    pub(super) fn certify(&mut self, digest: Digest, out: &mut Outbox) {
        let is_new = self.pending.get(&digest).is_some_and(|pending| matches!(pending.stage, Stage::Received));
        let Some(certified) = self.certificate(digest).filter(|_| is_new) else { return };
        if let Some(pending) = self.pending.get_mut(&digest) {
            pending.stage = Stage::Certified { certified: Box::new(certified), request: None };
        }
        if self.module.leads() {
            self.hand_over(digest, out);
        }
        self.expect_again(out);
    }
}

/// What is missing.
impl Replica {
    pub(super) fn expect_pull(&mut self, out: &mut Outbox) {
        if !self.pulling && self.unknown.values().any(|it| it.left > 0) {
            self.pulling = true;
            out.arm(Timer::Pull, self.config.pull);
        }
    }

    /// Others have had it for a while: their copy will do.
    pub(super) fn on_pull(&mut self, out: &mut Outbox) {
        self.pulling = false;
        for digest in self.wanted() {
            self.ask_for(digest, out);
        }
        if self.unknown.values().any(|it| it.left > 0) {
            self.pulling = true;
            out.arm(Timer::Pull, self.config.resend);
        }
    }

    /// What this turn asks for: the next ones of what each replica tells of, so that no liar's inventions are in front of what a
    /// correct one has.
    fn wanted(&mut self) -> BTreeSet<Digest> {
        let (mut wanted, mut last) = (BTreeSet::new(), BTreeMap::new());
        let is_due = |digest: &Digest| self.unknown.get(digest).is_some_and(|it| it.left > 0);
        let mut tellers: Vec<_> = self.parked.iter().map(|(by, told)| (*by, told.in_turn().filter(is_due))).collect();
        while wanted.len() < PULLED_AT_ONCE_MAX && !tellers.is_empty() {
            tellers.retain_mut(|(by, told)| {
                if wanted.len() >= PULLED_AT_ONCE_MAX {
                    return false;
                }
                let Some(digest) = told.find(|digest| !wanted.contains(digest)) else { return false };
                last.insert(*by, digest);
                wanted.insert(digest)
            });
        }
        drop(tellers);
        for (by, digest) in last {
            self.parked.entry(by).and_modify(|told| told.last = digest);
        }
        wanted
    }

    /// Asks one of those who say that they have it: the next one after who was asked last, so one who is silent is only one of them.
    fn ask_for(&mut self, digest: Digest, out: &mut Outbox) {
        let Some(unknown) = self.unknown.get_mut(&digest) else { return };
        unknown.left = unknown.left.saturating_sub(1);
        let Some(votes) = self.receptions.get(&digest) else { return };
        let behind = unknown.asked.map_or(Bound::Unbounded, Bound::Excluded);
        let next = votes.range((behind, Bound::Unbounded)).next().or_else(|| votes.first_key_value());
        if let Some((replica, _)) = next {
            unknown.asked = Some(*replica);
            out.send_unsynced(Peer::Replica(*replica), Message::GetPublication { digest }); // a question
        }
        self.expect_pull(out);
    }

    /// It is here, or ordered: nobody is asked for it any more.
    fn lacks_no_more(&mut self, digest: Digest) {
        if self.unknown.remove(&digest).is_some() {
            for told in self.parked.values_mut() {
                told.digests.remove(&digest);
            }
        }
    }

    /// Somebody lacks what it has heard of.
    pub(super) fn on_get_publication(&mut self, from: ReplicaId, digest: Digest, out: &mut Outbox) {
        if !self.quotas.admits(from, self.config.resend, out.now()) {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        let Some(pending) = self.pending.get(&digest) else {
            return out.ignore(Peer::Replica(from), Why::NotHere);
        };
        self.quotas.spend(from, weight(&pending.group));
        // Its client's promise, not ours.
        out.send_unsynced(Peer::Replica(from), Message::Publication(pending.group.clone()));
    }

    /// The answer: only what was asked for.
    pub(super) fn on_publication(&mut self, from: ReplicaId, group: Group, out: &mut Outbox) {
        let digest = digest(&group);
        if !self.unknown.contains_key(&digest) {
            return out.ignore(Peer::Replica(from), Why::Unasked);
        }
        if !self.has_room(&group, Some(from)) {
            return out.ignore(Peer::Replica(from), Why::Busy);
        }
        self.receive(digest, group, Some(from), out);
    }

    /// These are ordered: what was promised is kept.
    pub(super) fn settle(&mut self, digests: Vec<Digest>, out: &mut Outbox) {
        let known: Vec<Digest> = digests.iter().copied().filter(|it| self.pending.contains_key(it)).collect();
        if !known.is_empty() {
            out.persist(Class::Entry, Record::Inserted(known));
        }
        let module = &mut self.module;
        // Otherwise a replica that asked PBFT for one of these would wait for its own request, and suspect one primary after the
        // other.
        let wanted = nested(out, &LIFT, |inner| module.withdraw(SESSION, digests.iter().copied().map(name), inner));
        assert!(wanted.is_empty(), "withdrawing moves a timer and nothing else");
        for digest in digests {
            self.lacks_no_more(digest);
            if !mutated!("reception/what-is-ordered-stays-pending") {
                self.leave(digest);
            }
            if self.inserted.insert(digest, out.now()).is_none() {
                self.inserted_order.push_back(digest);
            }
        }
        while self.inserted_order.len() > INSERTED_MAX {
            if let Some(oldest) = self.inserted_order.pop_front() {
                self.inserted.remove(&oldest);
            }
        }
        self.forget(out);
    }

    /// While something waits, the timer looks from time to time whether it is due.
    pub(super) fn expect_again(&mut self, out: &mut Outbox) {
        if !self.again && !self.pending.is_empty() {
            self.again = true;
            out.arm(Timer::Again, self.config.resend);
        }
    }
}

/// Digests that are remembered after they were ordered.
pub(super) const INSERTED_MAX: usize = 16_384;
