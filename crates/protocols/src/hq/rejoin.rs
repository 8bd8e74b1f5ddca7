//! A disk that was lost: its replica begins a new life, and comes back when nothing that its former self has promised can be
//! broken any more.
//!
//! The former self has voted in PBFT (the module is silent until that does not matter), has executed and answered, has told what it
//! had executed (START), and has granted. PBFT's order says from which entry on there is a new life: what a START of a former one
//! says is void from there. The replica hears from a quorum of others what each of them has executed or granted, and has all of that
//! itself before it is back. It grants no place of a viewstamp before its new life: of such a place its former self may have granted
//! to somebody else. An object whose next place is one of these is *renewed* when a client needs this replica: PBFT has everybody
//! freeze it, and the resolution that follows gives it a new viewstamp.
//!
//! Guarantees that a replica that is not back answers no client, and that whatever a write, a read or a certificate rests on that its former self
//! was a part of is here when it is. The README argues this ("A lost disk").

use super::Outbox;
use super::durable::Record;
use super::message::{Message, VERSIONS_MAX, Version};
use super::module::Entry;
use super::object::Object;
use super::replica::{Cause, Replica};
use super::turn::Turn;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::outbox::{Class, Note};
use quorate_core::time::{Duration, WallTime};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// The time, as entries have it, between two new lives of one replica: a liar makes STARTs void no more often.
const LIFE_MIN: Duration = Duration::from_secs(16);
/// Renewals that one replica has asked for and that are open, at most. A part of what replicas agree on: one more is not ordered, and asked for again.
const RENEWING_MAX: usize = 256;
/// Renewals that this replica has asked for because clients need them and that are not done, at most; beyond it, they ask again.
const WISHES_MAX: usize = 256;
/// Of these, because one client needs them.
const CLIENT_WISHES_MAX: usize = 16;
/// The same because one replica has listed what does not come by itself, on the way back.
const LIST_WISHES_MAX: usize = 16;
/// Objects that are fetched at once of those that one replica has listed: a liar's take nobody else's room.
const FETCHED_MAX: usize = 16;
/// After so many times of asking, what a replica has granted, or executed alone, is renewed.
const PATIENCE: u32 = 3;

/// Which of its lives a replica lives, as its disk has it; none if its disk was never lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Life {
    /// Names it.
    pub nonce: u64,
    /// The entry of PBFT with which it began; zero until the replica is back.
    pub entry: OpNumber,
}

/// The last life of a replica, as PBFT's order has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Lived {
    /// The entry with which it began.
    pub entry: OpNumber,
    /// How many disks were lost.
    pub number: u64,
    /// Names it.
    pub nonce: u64,
    /// When, by the time of the entry.
    pub time: WallTime,
}

/// What is known of lives. `noted` and `renewing` follow from PBFT's order alone.
#[derive(Debug, Default)]
pub(super) struct Lives {
    /// Of each replica that has lost a disk the last one.
    noted: BTreeMap<ReplicaId, Lived>,
    /// Objects that wait for a resolution after this entry, and who has asked for that; at most [`RENEWING_MAX`] of each.
    renewing: BTreeMap<Digest, (OpNumber, ReplicaId)>,
    /// This replica's own, and the record that says so.
    own: Option<(Life, RecordSeq)>,
    /// On the way back.
    rejoining: Option<Rejoining>,
    /// What it has asked PBFT to renew, and for which client, or because of whose list.
    wishes: BTreeMap<Digest, Peer>,
    /// Which of these is said again next.
    next_wish: Turn<Digest>,
}

/// How far it is.
#[derive(Debug, Default)]
struct Rejoining {
    /// Which life it is is on the disk.
    is_durable: bool,
    /// What the others have executed or granted.
    heard: BTreeMap<ReplicaId, Heard>,
    /// What PBFT had ordered when it had come to the beginning of this life, for objects that have not been through that; `None` until then.
    ordered: Option<BTreeMap<Digest, OpNumber>>,
}

/// What one of the others has executed or granted, page by page.
#[derive(Debug, Default)]
struct Heard {
    /// The page is of what comes after this object.
    after: Digest,
    /// The last object in it, if another page follows.
    next: Option<Digest>,
    /// It was answered.
    answered: bool,
    /// What is not here; a page's worth.
    lacks: BTreeMap<Digest, Lack>,
    /// All of it is here.
    through: bool,
}

/// What is not here of what one of the others has executed or granted.
#[derive(Clone, Copy, Debug)]
struct Lack {
    place: Version,
    /// How often it was asked for, or might have come by itself.
    asked: u32,
    /// That replica says that it has only granted it: it is not waited for.
    is_granted: bool,
}

impl Lack {
    /// Is it of use to ask for it?
    const fn is_fetched(&self) -> bool {
        !self.is_granted && self.asked <= PATIENCE
    }
}

impl Heard {
    /// Those of which so many are asked for at once.
    fn fetched(&mut self) -> impl Iterator<Item = (&Digest, &mut Lack)> {
        self.lacks.iter_mut().filter(|(_, lack)| lack.is_fetched()).take(FETCHED_MAX)
    }
}

impl Lives {
    /// As the disk has them: PBFT's order up to the last cut, and this replica's own.
    pub(super) fn restored(noted: BTreeMap<ReplicaId, Lived>, own: Option<(Life, RecordSeq)>) -> Self {
        let rejoining = own.filter(|(life, _)| life.entry == OpNumber::ZERO).map(|_| Rejoining::default());
        Self { noted, own, rejoining, ..Self::default() }
    }

    /// The last life of each replica that has lost a disk.
    pub(super) const fn noted(&self) -> &BTreeMap<ReplicaId, Lived> {
        &self.noted
    }

    /// The entry with which the present life of a replica began, as far as PBFT's order is known here; zero if it is the first.
    pub(super) fn of(&self, replica: ReplicaId) -> OpNumber {
        self.noted.get(&replica).map_or(OpNumber::ZERO, |lived| lived.entry)
    }

    /// The same; `None` if this replica lives its first life, or PBFT's order here does not know of the present one.
    fn began(&self, me: ReplicaId) -> Option<OpNumber> {
        let (life, _) = self.own?;
        self.noted.get(&me).filter(|lived| lived.nonce == life.nonce).map(|lived| lived.entry)
    }

    /// Is a START of this life one that counts?
    pub(super) fn counts(&self, by: ReplicaId, life: OpNumber) -> bool {
        life == self.of(by)
    }

    /// The entry with which this replica's own life began: it is back, and grants places of this viewstamp or later ones. Zero
    /// if it has never lost its disk.
    pub(super) fn own(&self) -> OpNumber {
        self.own.map_or(OpNumber::ZERO, |(life, _)| life.entry)
    }

    /// Does it lack what its former self has promised?
    pub(super) const fn is_rejoining(&self) -> bool {
        self.rejoining.is_some()
    }

    /// Is there something to ask for?
    pub(super) fn is_waiting(&self) -> bool {
        self.is_rejoining() || !self.wishes.is_empty()
    }

    /// Is an object to be renewed?
    pub(super) fn renews(&self, id: Digest) -> bool {
        self.renewing.contains_key(&id)
    }

    /// Is any?
    pub(super) fn is_open(&self) -> bool {
        !self.renewing.is_empty()
    }

    /// Is it to be renewed, and has it not been through that, being through this entry?
    pub(super) fn waits_for(&self, id: Digest, seen: OpNumber) -> bool {
        self.renewing.get(&id).is_some_and(|(entry, _)| *entry > seen)
    }

    /// Another replica shows an object as it has it: has it granted what it has listed, and not executed it?
    pub(super) fn is_granted(&mut self, by: ReplicaId, id: Digest, executed: Version) {
        let heard = self.rejoining.as_mut().and_then(|it| it.heard.get_mut(&by));
        if let Some(lack) = heard.and_then(|heard| heard.lacks.get_mut(&id)).filter(|it| it.place > executed) {
            lack.is_granted = true;
        }
    }

    /// An object is resolved: it was renewed.
    pub(super) fn renewed(&mut self, id: Digest) {
        self.renewing.remove(&id);
        self.wishes.remove(&id);
    }

    /// PBFT's order is at a cut, at which no renewal is open.
    pub(super) fn install(&mut self, noted: &BTreeMap<ReplicaId, Lived>) {
        self.noted.clone_from(noted);
        self.renewing.clear();
        if let Some(rejoining) = &mut self.rejoining {
            rejoining.ordered = None;
        }
    }

    /// The record that says which life this is.
    pub(super) fn record(&self) -> Option<RecordSeq> {
        self.own.map(|(_, seq)| seq)
    }

    /// Writes it down anew.
    pub(super) fn keep_again(&mut self, out: &mut Outbox) {
        if let Some((life, seq)) = &mut self.own {
            *seq = out.persist(Class::Promise, Record::Life(*life));
        }
    }

    /// For people.
    pub(super) fn role(&self, quorum: usize) -> Option<String> {
        let rejoining = self.rejoining.as_ref()?;
        let through = rejoining.heard.values().filter(|it| it.through).count();
        Some(match &rejoining.ordered {
            None => format!("rejoining: has what {through} of {quorum} have, waits for its entry"),
            Some(left) if through < quorum => {
                format!("rejoining: has what {through} of {quorum} have, {} to be resolved", left.len())
            }
            Some(left) if !left.is_empty() => format!("rejoining: {} to be resolved", left.len()),
            Some(_) => "rejoining: votes soon".to_owned(),
        })
    }
}

/// In PBFT's order.
impl Replica {
    /// ⟨REJOIN, number, nonce⟩: this replica has lost its disk, and so many before. What a START of it says that was said before is void.
    pub(super) fn on_rejoin(&mut self, by: ReplicaId, lived: Lived, out: &mut Outbox) {
        let former = self.lives.noted.get(&by);
        let number = former.map_or(0, |it| it.number).saturating_add(1);
        let is_soon = former.is_some_and(|it| lived.time.since(it.time) < LIFE_MIN);
        if lived.number != number || is_soon {
            return out.ignore(Peer::Replica(by), Why::Duplicate); // of a former life, or said again; or a liar's
        }
        out.note(Note::Other("a replica begins a new life: its disk was lost"));
        self.lives.noted.insert(by, lived);
        self.drop_void_starts();
        self.check_life(out);
    }

    /// STARTs of former lives go.
    pub(super) fn drop_void_starts(&mut self) {
        let lives = &self.lives;
        self.starts.retain_by(|by, start| lives.counts(by, start.life));
    }

    /// A folder of a former life is not this replica's any more: what it has promised since is not in it.
    pub(super) fn check_life(&self, out: &mut Outbox) {
        let Some(noted) = self.lives.noted.get(&self.me).filter(|_| !self.lives.is_rejoining()) else { return };
        let is_own = |(life, _): &(Life, RecordSeq)| life.nonce == noted.nonce || life.entry > noted.entry;
        if !self.lives.own.as_ref().is_some_and(is_own) {
            out.halt(
                "this folder is one that `quorate recover` has replaced: what the replica has promised since then is not in it. Start \
                 the replica with the later folder, or recover it anew"
                    .to_owned(),
            );
        }
    }

    /// ⟨RENEW, oid⟩: a replica may not grant the next place of this object, and somebody needs it to. Once for each object after each of
    /// its returns.
    pub(super) fn on_renew(&mut self, by: ReplicaId, id: Digest, entry: OpNumber, out: &mut Outbox) {
        let (peer, course) = (Peer::Replica(by), self.course(id));
        if self.lives.renews(id) || course.seen >= self.lives.of(by) {
            return out.ignore(peer, Why::Duplicate); // there is a resolution since, or will be one
        }
        let open = self.lives.renewing.values().filter(|(_, asker)| *asker == by).count();
        if course.is_in_order() || open >= RENEWING_MAX || self.cut_is_overdue(entry) {
            return out.ignore(peer, Why::Busy); // it is asked for again
        }
        self.lives.renewing.insert(id, (entry, by));
        out.note(Note::Other("an object is frozen: a replica that has lost its disk may not grant its next place"));
        self.objects.entry(id).or_insert_with(|| Object::new(bytes::Bytes::new()));
        self.proceed(id, out);
    }

    /// Has something been ordered that has this object frozen until a resolution? While this replica is not back it says nothing of what it has.
    pub(super) fn has_to_freeze(&self, id: Digest, object: &Object) -> bool {
        let waits = self.across.waits_for(id, object.now.joined) || self.lives.waits_for(id, object.seen);
        waits && !self.lives.is_rejoining()
    }
}

/// Renewal.
impl Replica {
    /// A client asks again for what this replica may not grant, or it needs that itself: PBFT is asked to have the object renewed.
    pub(super) fn wish(&mut self, id: Digest, why: Peer, out: &mut Outbox) {
        let wishes = &self.lives.wishes;
        let of_one = wishes.values().filter(|of| **of == why).count();
        let of_clients = wishes.values().filter(|of| matches!(of, Peer::Client(_))).count();
        let has_room = match why {
            Peer::Client(_) => of_clients < WISHES_MAX && of_one < CLIENT_WISHES_MAX,
            Peer::Replica(_) => of_one < LIST_WISHES_MAX,
        };
        if !has_room || wishes.contains_key(&id) || self.lives.renews(id) || !self.is_wish(id) {
            return;
        }
        self.lives.wishes.insert(id, why);
        self.submit_to_all(&[Entry::Renew(id)], out);
        self.expect_progress(out);
    }

    /// Is it of use to have it renewed?
    fn is_wish(&self, id: Digest) -> bool {
        let course = self.course(id);
        self.lives.began(self.me).is_some_and(|began| course.seen < began) && !course.is_in_order()
    }

    /// Says again what it has asked PBFT for.
    pub(super) fn wish_again(&mut self, most: usize, out: &mut Outbox) {
        let over: Vec<Digest> = self.lives.wishes.keys().filter(|id| !self.is_wish(**id)).copied().collect();
        for id in over {
            self.lives.wishes.remove(&id);
        }
        let Lives { wishes, next_wish, renewing, .. } = &mut self.lives;
        let wishes = next_wish.take(wishes.keys().filter(|id| !renewing.contains_key(*id)).copied(), most);
        let entries: Vec<Entry> = wishes.into_iter().map(Entry::Renew).collect();
        if !entries.is_empty() {
            self.submit_to_all(&entries, out);
        }
    }

    /// Asks PBFT in this replica's name, and tells the request to everybody: PBFT here may be silent.
    fn submit_to_all(&mut self, entries: &[Entry], out: &mut Outbox) {
        let (_, request) = self.submit_entries(entries, out);
        request.into_iter().for_each(|request| out.broadcast(Message::Module(request)));
    }
}

/// The way back.
impl Replica {
    /// A start without what was promised. Which life it is must be on the disk before PBFT hears of it.
    pub(super) fn begin_rejoining(&mut self, out: &mut Outbox) {
        if let Some((life, _)) = self.lives.own.filter(|_| self.lives.is_rejoining()) {
            out.send(self.me(), Message::GetExecuted { nonce: life.nonce, after: Digest::ZERO });
            self.rejoin_again(out);
        }
    }

    /// Has PBFT order that this is a new life, until it is.
    fn say_rejoin(&mut self, out: &mut Outbox) {
        let is_durable = self.lives.rejoining.as_ref().is_some_and(|it| it.is_durable);
        let Some((life, _)) = self.lives.own.filter(|_| is_durable) else { return };
        let noted = self.lives.noted.get(&self.me);
        if noted.is_some_and(|it| it.nonce == life.nonce) {
            return;
        }
        let number = noted.map_or(0, |it| it.number).saturating_add(1);
        self.submit_to_all(&[Entry::Rejoin { number, nonce: life.nonce }], out);
    }

    /// Says again what is under way on the way back.
    pub(super) fn rejoin_again(&mut self, out: &mut Outbox) {
        self.say_rejoin(out);
        let Some((life, _)) = self.lives.own else { return };
        let others: Vec<ReplicaId> = self.quorums.members().filter(|it| *it != self.me).collect();
        let Some(mut rejoining) = self.lives.rejoining.take() else { return };
        let mut lacking = Vec::new();
        for other in others {
            let heard = rejoining.heard.entry(other).or_default();
            if heard.through {
                continue;
            }
            heard.lacks.retain(|id, lack| !self.has_reached(*id, lack.place));
            heard.fetched().for_each(|(_, lack)| lack.asked = lack.asked.saturating_add(1));
            // The others of the page wait for nobody: nothing comes of asking for them.
            let granted = heard.lacks.values_mut().filter(|lack| lack.is_granted);
            granted.for_each(|lack| lack.asked = lack.asked.saturating_add(1));
            let those = heard.lacks.iter().filter(|(_, lack)| lack.asked > 0);
            lacking.extend(those.map(|(id, lack)| (lack.asked > PATIENCE, *id, other)));
            let question = Message::GetExecuted { nonce: life.nonce, after: heard.after };
            out.send_unsynced(Peer::Replica(other), question); // a question
        }
        let left: BTreeSet<Digest> =
            rejoining.ordered.iter().flat_map(BTreeMap::keys).take(FETCHED_MAX).copied().collect();
        self.lives.rejoining = Some(rejoining);
        let is_in_turn = |it: &Self, id: &Digest| it.objects.get(id).is_some_and(|object| object.is_in_turn());
        for id in &left {
            if !is_in_turn(self, id) {
                self.fall_behind(*id, out);
            }
        }
        lacking.sort_unstable(); // what may still come by itself first
        for (is_late, id, by) in lacking.into_iter().filter(|(_, id, _)| !left.contains(id)) {
            if !is_in_turn(self, &id) {
                self.ask_for(id, Cause::Listed(by), FETCHED_MAX, out);
            }
            if is_late {
                self.wish(id, Peer::Replica(by), out);
            }
        }
        self.expect_progress(out);
    }

    /// What one replica has listed is not asked for when it does not list it any more, unless another one does.
    fn leave_lists(&mut self, heard: &BTreeMap<ReplicaId, Heard>) {
        self.behind.retain(|id, behind| {
            let Cause::Listed(by) = behind.cause else { return true };
            let lists = |heard: &Heard| heard.lacks.contains_key(id);
            let first = heard.get(&by).filter(|heard| lists(heard)).map(|_| by);
            let by = first.or_else(|| heard.iter().find(|(_, heard)| lists(heard)).map(|(by, _)| *by));
            by.into_iter().for_each(|by| behind.cause = Cause::Listed(by));
            by.is_some()
        });
    }

    /// Somebody who has lost its disk asks what this replica has executed or granted.
    pub(super) fn on_get_executed(&mut self, from: ReplicaId, nonce: u64, after: Digest, out: &mut Outbox) {
        let to = Peer::Replica(from);
        if let Some(rejoining) = &mut self.lives.rejoining {
            if from != self.me {
                return out.ignore(to, Why::NotNow); // it does not know itself
            }
            rejoining.is_durable = true; // as this message says
            return self.say_rejoin(out);
        }
        let here = self.objects.range((Bound::Excluded(after), Bound::Unbounded));
        let places = here.map(|(id, object)| (*id, object.furthest())).filter(|(_, it)| *it > Version::default());
        let places = places.take(VERSIONS_MAX).collect();
        // What it has promised is in memory before anybody hears of it.
        out.send_unsynced(to, Message::Executed { nonce, after, places });
    }

    /// The answer.
    pub(super) fn on_executed_elsewhere(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        after: Digest,
        places: Vec<(Digest, Version)>,
        out: &mut Outbox,
    ) {
        let peer = Peer::Replica(from);
        let in_order = places.is_sorted_by(|(one, _), (next, _)| one < next);
        let follows = places.first().is_none_or(|(first, _)| *first > after);
        if !in_order || !follows || places.iter().any(|(_, place)| *place == Version::default()) {
            return out.blame(peer, Fault::Malformed("a list of objects out of order".to_owned()));
        }
        let is_own = self.lives.own.is_some_and(|(life, _)| life.nonce == nonce) && from != self.me;
        if !is_own {
            return out.ignore(peer, Why::Unasked);
        }
        let lacks: Vec<_> = places.iter().filter(|(id, place)| !self.has_reached(*id, *place)).copied().collect();
        let Some(rejoining) = &mut self.lives.rejoining else {
            return out.ignore(peer, Why::Unasked); // it is back
        };
        let heard = rejoining.heard.entry(from).or_default();
        if heard.through || heard.after != after {
            return out.ignore(peer, Why::Duplicate);
        }
        let former = std::mem::take(&mut heard.lacks);
        let lack = |id: &Digest, place| {
            let is_same = |it: &&Lack| it.place == place;
            let asked = former.get(id).map_or(0, |it| it.asked);
            Lack { place, asked, is_granted: former.get(id).filter(is_same).is_some_and(|it| it.is_granted) }
        };
        heard.lacks = lacks.into_iter().map(|(id, place)| (id, lack(&id, place))).collect();
        heard.next = places.last().map(|(id, _)| *id).filter(|_| places.len() >= VERSIONS_MAX);
        heard.answered = true;
    }

    /// Has the object come to this place here, or has it been through a resolution of this life? Whatever was answered, or
    /// rests on what was executed or granted there, is in it then.
    fn has_reached(&self, id: Digest, place: Version) -> bool {
        let began = self.lives.began(self.me);
        let is_new = |object: &Object| began.is_some_and(|began| object.seen >= began);
        self.objects.get(&id).is_some_and(|object| object.now.version() >= place || is_new(object))
    }

    /// At the end of a turn: looks at what has come, and asks for what comes next. Is it back?
    pub(super) fn settle_rejoining(&mut self, out: &mut Outbox) {
        let Some(mut rejoining) = self.lives.rejoining.take() else { return };
        let nonce = self.lives.own.map_or(0, |(life, _)| life.nonce);
        for (other, heard) in &mut rejoining.heard {
            let first: Vec<_> = heard.fetched().map(|(id, lack)| (*id, lack.place)).collect();
            for (id, _) in first.into_iter().filter(|(id, place)| self.has_reached(*id, *place)) {
                heard.lacks.remove(&id);
            }
            for (id, lack) in heard.fetched().filter(|(_, lack)| lack.asked == 0) {
                lack.asked = u32::from(self.ask_for(*id, Cause::Listed(*other), FETCHED_MAX, out));
            }
            if heard.through || !heard.answered || !heard.lacks.is_empty() {
                continue;
            }
            heard.answered = false;
            match heard.next.take() {
                None => heard.through = true,
                Some(after) => {
                    heard.after = after;
                    let question = Message::GetExecuted { nonce, after };
                    out.send_unsynced(Peer::Replica(*other), question); // a question
                }
            }
        }
        self.leave_lists(&rejoining.heard);
        let began = self.lives.began(self.me).filter(|began| self.across.through >= *began);
        if began.is_some() {
            let ordered = rejoining.ordered.get_or_insert_with(|| self.behind_order());
            while let Some((id, entry)) = ordered.first_key_value().map(|(id, entry)| (*id, *entry)) {
                if !self.is_through(id, entry) {
                    break;
                }
                ordered.remove(&id);
            }
        }
        let through = rejoining.heard.values().filter(|it| it.through).count();
        let has_heard = through >= self.quorum();
        let is_level = rejoining.ordered.as_ref().is_some_and(BTreeMap::is_empty);
        match began.filter(|_| has_heard && is_level && self.module.may_vote()) {
            Some(began) => self.come_back(began, out),
            None => self.lives.rejoining = Some(rejoining),
        }
    }

    /// From here on it answers, tells, and grants what its former self cannot have granted.
    fn come_back(&mut self, entry: OpNumber, out: &mut Outbox) {
        let Some((life, _)) = self.lives.own else { return };
        let life = Life { entry, ..life };
        self.lives.own = Some((life, out.persist(Class::Promise, Record::Life(life))));
        out.note(Note::Other(
            "is back: it has what the others have, and what its former self has promised does not matter",
        ));
        let waiting = self.across.queued().chain(self.starts.objects()).chain(self.lives.renewing.keys());
        let waiting: BTreeSet<Digest> = waiting.copied().collect();
        waiting.into_iter().for_each(|id| self.proceed(id, out));
    }
}

impl Object {
    /// The furthest place that was executed or granted here.
    fn furthest(&self) -> Version {
        let granted = self.grant.as_ref().map(|grant| grant.statement().version);
        granted.map_or(self.now.version(), |granted| granted.max(self.now.version()))
    }
}
