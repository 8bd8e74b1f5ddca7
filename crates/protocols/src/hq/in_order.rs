//! Ordered mode (A.9, pitfall 2): an object that is contended again and again has its places from PBFT, for a while.
//!
//! A resolution of an object that was contended shortly before ends in ordered mode. From there on nobody grants its places; a
//! request for it is an entry of PBFT, one of many in one entry, and is executed there by everybody who has been through what
//! PBFT has ordered for the object before. No STARTs, no grants, no certificate: the entry stands for them, and whoever lacks it
//! has it from PBFT's own log. The mode is over after a window of requests, which doubles while contention goes on, or when
//! one client is alone; the last entry is the viewstamp of what is granted then.
//!
//! Guarantees that all replicas at one entry of PBFT agree whether an object is in ordered mode ([`Course`] follows from PBFT's
//! order alone), and that a place is granted only by who has been through all that PBFT has ordered for the object.

use super::Outbox;
use super::durable::Record;
use super::message::{Message, Version, Write};
use super::module::Entry;
use super::object::{Object, Phase};
use super::ordered::Rank;
use super::replica::Replica;
use super::turn::Turn;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::Digest;
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber};
use quorate_core::mutated;
use quorate_core::objects::Stepped;
use quorate_core::outbox::{Class, Note};
use std::collections::{BTreeMap, BTreeSet};

/// Writes within which an object that was contended is contended *again*; so many without contention halve the window.
pub const CALM_WRITES: u64 = 32;
/// Requests that the first window has.
pub const WINDOW_MIN: u32 = 64;
/// Requests that a window has, at most.
pub const WINDOW_MAX: u32 = 4096;
/// Requests of one client in a row that end a window: nobody competes with it.
pub const ALONE_MAX: u32 = 8;
/// Requests that this replica was asked for and that PBFT has not ordered, at most; beyond it, their clients ask again.
const WAITING_MAX: usize = 1024;
/// Of one client, those of so many objects.
const CLIENT_WAITING_MAX: usize = 16;
/// Requests, and bytes of their operations, that are handed to PBFT at once, at most; the others follow.
const TOGETHER_MAX: usize = 256;
const TOGETHER_BYTES_MAX: usize = 64 << 10;

/// What PBFT's order says of an object: the same on every replica that is at the same entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Course {
    /// The last entry that the object has to go through, a resolution or requests of ordered mode: the viewstamp of what is
    /// granted after it.
    pub(super) seen: OpNumber,
    /// The one before.
    former: OpNumber,
    /// The last resolution.
    pub(super) resolved: OpNumber,
    /// Nobody has a certificate for what the object is at `seen`, perhaps.
    pub(super) unproven: bool,
    /// Requests of the last window, or half of those of the first; zero if the object was never contended.
    window: u32,
    /// Requests until ordered mode is over; zero: it is.
    left: u32,
    /// Whose request was the last one, and how many in a row were of this client.
    row: (ClientId, u32),
}

impl Course {
    /// Does PBFT give the places?
    pub(super) const fn is_in_order(&self) -> bool {
        self.left > 0
    }

    /// A resolution, of contention (`contended`) or of what touches several objects, `calm` writes after the last one. True if it ends
    /// in ordered mode. One that carries an operation on several objects does not: what is granted of that is granted for a reason.
    pub(super) fn resolve(&mut self, vs: OpNumber, contended: bool, several: bool, calm: u64) -> bool {
        (self.former, self.seen, self.resolved) = (self.seen, vs, vs);
        if contended && !several {
            let halves = u32::try_from(calm / CALM_WRITES).unwrap_or(u32::MAX);
            if halves > 0 || self.window == 0 {
                let window = self.window.checked_shr(halves).unwrap_or(0);
                self.window = window.max(WINDOW_MIN / 2);
            } else {
                self.window = self.window.saturating_mul(2).min(WINDOW_MAX);
                self.left = self.window;
                self.row = (ClientId::new(0), 0);
            }
        }
        self.is_in_order()
    }

    /// A request of ordered mode, in this entry: the entry that the object has to be through before it. `None`: it has no place.
    fn take(&mut self, entry: OpNumber, client: ClientId) -> Option<OpNumber> {
        // What a resolution and the requests after it did in one entry would be one viewstamp for two things.
        if !self.is_in_order() || self.resolved == entry {
            return None;
        }
        if self.seen != entry {
            (self.former, self.seen) = (self.seen, entry);
        }
        self.unproven = true;
        self.left = self.left.saturating_sub(1);
        self.row = if self.row.0 == client { (client, self.row.1.saturating_add(1)) } else { (client, 1) };
        if self.row.1 >= ALONE_MAX {
            self.left = 0;
            self.window = (self.window / 2).max(WINDOW_MIN / 2);
        }
        Some(self.former)
    }
}

/// A request that PBFT has ordered for an object in ordered mode.
#[derive(Debug)]
pub(super) struct Due {
    rank: Rank,
    /// The entry that the object has to be through before.
    former: OpNumber,
    /// The object is through the entry with it.
    last: bool,
    write: Write,
}

/// A request that is to be ordered.
#[derive(Debug)]
struct Waiting {
    write: Write,
    /// It was handed to PBFT here.
    submitted: bool,
    /// It has waited for long, as far as that was looked at.
    late: bool,
}

/// Requests for objects in ordered mode that PBFT has not ordered.
#[derive(Debug, Default)]
pub(super) struct Submissions {
    waiting: BTreeMap<(Digest, ClientId), Waiting>,
    /// The last request to PBFT that is under way: what comes meanwhile goes together.
    under_way: Option<RequestNumber>,
    /// Which is handed over next, and which of those that have waited for long.
    next: Turn<(Digest, ClientId)>,
    next_late: Turn<(Digest, ClientId)>,
}

impl Submissions {
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// What they are about.
    pub(super) fn objects(&self) -> BTreeSet<Digest> {
        self.waiting.keys().map(|(object, _)| *object).collect()
    }
}

/// Until PBFT has ordered it.
impl Replica {
    /// What PBFT's order says of this object.
    pub(super) fn course(&self, id: Digest) -> Course {
        self.courses.get(&id).copied().unwrap_or_default()
    }

    /// From a client that knows of ordered mode: as WRITE-1, and no answer until it is done.
    pub(super) fn on_submit(&mut self, from: ClientId, write: Write, out: &mut Outbox) {
        let id = write.ask().object;
        match self.course(id).is_in_order() {
            true if write.ask().client == from => drop(self.accept(from, write, out)),
            true => out.ignore(Peer::Client(from), Why::NotForSender),
            false => self.on_write1(from, write, out),
        }
    }

    /// WRITE-1 for an object in ordered mode: its client is told, and asks everybody.
    pub(super) fn on_write1_in_order(&mut self, from: ClientId, write: Write, out: &mut Outbox) {
        let (object, number) = (write.ask().object, write.ask().number);
        if self.accept(from, write, out) {
            out.send_unsynced(Peer::Client(from), Message::InOrder { object, number }); // PBFT's word, not ours
        }
    }

    /// A request to be ordered. False if there is nothing to order.
    fn accept(&mut self, from: ClientId, write: Write, out: &mut Outbox) -> bool {
        let (ask, peer) = (*write.ask(), Peer::Client(from));
        let resolved = self.course(ask.object).resolved;
        let (id, object) = self.object(&write.name);
        // Before it has been through the resolution, what it has done may be taken back.
        if object.seen >= resolved && !object.is_moving() {
            if object.now.is_over(&ask) {
                match object.now.done.get(&from) {
                    Some(done) if done.number == ask.number => self.tell(id, from, out),
                    _ => out.ignore(peer, Why::Duplicate),
                }
                return false;
            }
            if object.now.may_be_over(&ask) {
                let at = object.now.version().ts;
                out.send(peer, Message::TooOld { object: id, number: ask.number, at });
                return false;
            }
        }
        let waiting = &mut self.submissions.waiting;
        match waiting.get(&(id, from)) {
            Some(known) if known.write.ask().number >= ask.number => return true,
            Some(_) => {}
            None => {
                let of_one = waiting.keys().filter(|(_, client)| *client == from).count();
                if waiting.len() >= WAITING_MAX || of_one >= CLIENT_WAITING_MAX {
                    out.ignore(peer, Why::Busy);
                    return false;
                }
            }
        }
        waiting.insert((id, from), Waiting { write, submitted: false, late: false });
        self.expect_progress(out);
        true
    }

    /// At the end of a turn: PBFT's primary hands over what waits, all of it at once, and one lot after the other.
    pub(super) fn submit_in_order(&mut self, out: &mut Outbox) {
        if self.submissions.waiting.is_empty() || self.submissions.under_way.is_some() || self.primary() != self.me {
            return;
        }
        self.hand_over(false, out);
    }

    /// What was not ordered in time is handed to PBFT by everybody, so that it watches its primary (R3).
    pub(super) fn submit_late(&mut self, out: &mut Outbox) {
        self.submissions.under_way = None;
        self.hand_over(true, out);
        self.submissions.waiting.values_mut().for_each(|it| it.late = true);
    }

    /// One lot, of those that have waited for long or of those that were not handed over.
    fn hand_over(&mut self, late: bool, out: &mut Outbox) {
        let (mut together, mut bytes, mut last) = (Vec::new(), 0_usize, None);
        let Submissions { waiting, next, next_late, .. } = &mut self.submissions;
        let turn = if late { next_late } else { next };
        let those = waiting.iter().filter(|(_, it)| if late { it.late } else { !it.submitted });
        for key in turn.order(those.map(|(key, _)| *key)) {
            let Some(it) = waiting.get_mut(&key) else { continue };
            bytes = bytes.saturating_add(Write::bytes(&it.write.name, &it.write.operations));
            if let Some(last) = last.filter(|_| bytes > TOGETHER_BYTES_MAX || together.len() >= TOGETHER_MAX) {
                turn.stop_at(last);
                break;
            }
            it.submitted = true;
            together.push(Entry::Write(Box::new(it.write.clone())));
            last = Some(key);
        }
        if !together.is_empty() {
            self.submissions.under_way = Some(self.submit_entries(&together, out).0);
        }
    }

    /// PBFT has ordered a request of this replica.
    pub(super) fn submitted(&mut self, client: ClientId, number: RequestNumber) {
        let own = self.keyring.proxy().map(|key| self.keyring.address(&key));
        if own == Some(client) {
            self.submissions.under_way = self.submissions.under_way.filter(|under_way| *under_way != number);
            self.across.ordered(number);
        }
    }
}

/// In PBFT's order.
impl Replica {
    /// PBFT has ordered a request for an object alone. `None`: it has no place.
    pub(super) fn on_decided_write(&mut self, rank: Rank, write: Write, out: &mut Outbox) -> Option<Digest> {
        let key = (write.ask().object, write.ask().client);
        let mut write = write;
        // Whoever has had it from its client has looked at its signature.
        let known = self.submissions.waiting.get(&key).filter(|it| it.write == write).map(|it| it.write.clone());
        if let Some(known) = known {
            write = known;
        } else if write.prove(&self.keyring).is_err() {
            out.ignore(self.me(), Why::NotNow); // a liar had it ordered
            return None;
        }
        let ask = *write.ask();
        let id = ask.object;
        let former = self.courses.get_mut(&id).and_then(|course| course.take(rank.entry, ask.client));
        let Some(former) = former else {
            out.ignore(self.me(), Why::Duplicate); // the mode is over
            return None;
        };
        if self.submissions.waiting.get(&key).is_some_and(|it| it.write.ask().number <= ask.number) {
            self.submissions.waiting.remove(&key);
        }
        let is_over = !self.course(id).is_in_order();
        let (_, object) = self.object(&write.name);
        if rank.entry > object.seen && rank > object.through {
            object.due.push_back(Due { rank, former, last: false, write });
        }
        if is_over {
            self.leave_order(id, out);
        }
        Some(id)
    }

    /// No more comes for this object in this entry.
    pub(super) fn seal(&mut self, id: Digest, entry: OpNumber) {
        let object = self.objects.get_mut(&id);
        if let Some(due) = object.and_then(|object| object.due.back_mut()).filter(|due| due.rank.entry == entry) {
            due.last = true;
        }
    }

    /// PBFT has ordered an operation that touches this object and others: ordered mode is over.
    pub(super) fn end_order(&mut self, id: Digest, entry: OpNumber, out: &mut Outbox) {
        self.seal(id, entry);
        let Some(course) = self.courses.get_mut(&id).filter(|course| course.is_in_order()) else { return };
        course.left = 0;
        self.leave_order(id, out);
    }

    /// Ordered mode is over: what PBFT has not ordered is asked for as anything.
    pub(super) fn leave_order(&mut self, id: Digest, out: &mut Outbox) {
        out.note(Note::Other("an object leaves ordered mode"));
        let of_it: Vec<ClientId> =
            self.submissions.waiting.keys().filter(|(object, _)| *object == id).map(|(_, client)| *client).collect();
        for client in of_it {
            if let Some(it) = self.submissions.waiting.remove(&(id, client)) {
                self.delay(id, Peer::Client(client), Message::Write1(it.write), out);
            }
        }
    }
}

/// Execution.
impl Replica {
    /// Executes the next request that PBFT has ordered for the object, if it has been through what comes before. True if it is
    /// busy with that.
    pub(super) fn run_due(&mut self, id: Digest, out: &mut Outbox) -> bool {
        loop {
            let Some(object) = self.objects.get_mut(&id) else { return false };
            let may = |due: &Due| due.former == object.seen && matches!(object.phase, Phase::Free);
            if !object.due.front().is_some_and(may) {
                return false;
            }
            let Some(due) = object.due.pop_front() else { return false };
            let ask = *due.write.ask();
            let (is_over, is_old) = (object.now.is_over(&ask), object.now.may_be_over(&ask));
            if is_over || is_old {
                let at = object.now.version().ts;
                if is_old && !is_over {
                    out.send(Peer::Client(ask.client), Message::TooOld { object: id, number: ask.number, at });
                }
                object.passed(due.rank, due.last);
                if due.last {
                    self.keep(id, None, out); // no record of an execution says that it is through the entry
                }
                continue;
            }
            let step = due.write.step(object.now.version().ts.next());
            let runs = self.step(id, step, out);
            if let Some(object) = self.objects.get_mut(&id) {
                match runs {
                    true => object.phase = Phase::InOrder(Box::new(due)),
                    false => object.due.push_front(due), // when the snapshot is done
                }
            }
            return true;
        }
    }

    /// The machine has executed a request that PBFT has ordered. Nobody takes it back, so nothing is kept of the object before.
    pub(super) fn stepped_in_order(&mut self, id: Digest, op: OpNumber, due: Due, stepped: Stepped, out: &mut Outbox) {
        let Some(object) = self.objects.get(&id) else { return };
        let at = Version { vs: due.rank.entry, ts: object.now.version().ts.next() };
        let Due { rank, last, write, .. } = due;
        self.executed_in_order(id, op, (rank, at, last), write, stepped, out);
    }

    /// The same, and for what a resolution that ends in ordered mode has put in order.
    pub(super) fn executed_in_order(
        &mut self,
        id: Digest,
        op: OpNumber,
        (rank, at, last): (Rank, Version, bool),
        write: Write,
        stepped: Stepped,
        out: &mut Outbox,
    ) {
        let Some(object) = self.objects.get_mut(&id) else { return };
        let (former, client, results) = (object.now.version(), write.ask().client, stepped.replies);
        object.execute_in_order(rank, at, last, &write, results.clone());
        object.bodies.clear();
        if !mutated!("hq/execution-in-order-is-not-durable") {
            let seq = out.persist(Class::Promise, Record::InOrder { op, rank, at, write, results, last });
            self.steps.records.push_back((op, seq));
            self.recorded(id, seq);
        }
        out.note(Note::Committed(op));
        out.note(Note::Other("a write was executed in ordered mode"));
        self.changed(id, former, at, out);
        self.tell(id, client, out);
    }
}

impl Object {
    /// A request of ordered mode was executed here.
    pub(super) fn execute_in_order(
        &mut self,
        rank: Rank,
        at: Version,
        last: bool,
        write: &Write,
        results: Vec<bytes::Bytes>,
    ) {
        self.now = self.now.after(at, None, write.clone(), results);
        self.before = None;
        self.grant = None;
        self.writes.clear();
        self.passed(rank, last);
    }

    /// A request of ordered mode had its turn here, whatever it came to.
    fn passed(&mut self, rank: Rank, last: bool) {
        self.through = rank;
        if last {
            self.pass(rank.entry);
        }
    }

    /// It has been through this entry, and all that PBFT has ordered for it before.
    pub(super) fn pass(&mut self, entry: OpNumber) {
        if entry > self.seen {
            (self.seen, self.freed) = (entry, self.now.version().ts);
        }
        self.grant = None;
        while self.due.front().is_some_and(|due| due.rank.entry <= entry) {
            self.due.pop_front();
        }
    }

    /// Does it get on with what PBFT has ordered for it in ordered mode?
    pub(super) fn is_in_turn(&self) -> bool {
        match &self.phase {
            Phase::InOrder(_) => true,
            Phase::Free => self.due.front().is_some_and(|due| due.former == self.seen),
            _ => false,
        }
    }
}
