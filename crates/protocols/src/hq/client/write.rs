//! Writes (A.3): phase 1 with its five outcomes, phase 2. What waits for the write before it goes together, as one write.

use super::{Client, Outbox, alike};
use crate::hq::message::{Ask, Grant, Message, OPERATIONS_MAX, Proof, Version, Write};
use bytes::Bytes;
use quorate_core::crypto::{Certified, Digest, Signed, Verified};
use quorate_core::ids::{OpNumber, Position, ReplicaId, RequestNumber};
use quorate_core::mutated;
use quorate_core::protocol::{Answer, CallError, Ticket};
use quorate_core::time::Instant;
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Rounds of phase 2 after which phase 1 is begun again: a resolution may have superseded the certificate.
const ROUNDS_MAX: u32 = 3;

/// Bytes of operations that go together, at most; one operation may be longer.
const TOGETHER_BYTES_MAX: usize = 64 << 10;

/// Objects whose latest write a client remembers; beyond it, one is forgotten.
const LATEST_MAX: usize = 4096;

#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) ticket: Ticket,
    pub(super) operation: Bytes,
    pub(super) deadline: Instant,
}

/// The writes of one object.
#[derive(Debug)]
pub(super) struct Queue {
    name: Bytes,
    pub(super) current: Option<Writing>,
    pub(super) waiting: VecDeque<Waiting>,
    /// The latest write that this client knows of.
    after: Position,
}

impl Queue {
    pub(super) const fn new(name: Bytes, after: Position) -> Self {
        Self { name, current: None, waiting: VecDeque::new(), after }
    }

    /// What goes together, in the order in which it was asked for.
    fn next(&mut self) -> Vec<Waiting> {
        let (mut together, mut bytes) = (Vec::new(), 0_usize);
        while let Some(next) = self.waiting.front() {
            bytes = bytes.saturating_add(next.operation.len());
            if together.len() == OPERATIONS_MAX || (bytes > TOGETHER_BYTES_MAX && !together.is_empty()) {
                break;
            }
            together.extend(self.waiting.pop_front());
        }
        together
    }

    /// What was not done is asked for before what waits.
    fn put_back(&mut self, calls: Vec<Option<Called>>, operations: Vec<Bytes>) {
        for (call, operation) in calls.into_iter().zip(operations).rev() {
            let waiting = call.map(|Called { ticket, deadline }| Waiting { ticket, operation, deadline });
            waiting.into_iter().for_each(|it| self.waiting.push_front(it));
        }
    }
}

/// Who waits for an operation of a write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Called {
    pub(super) ticket: Ticket,
    pub(super) deadline: Instant,
}

#[derive(Debug)]
pub(super) enum Stage {
    /// Grants are collected.
    One,
    /// The certificate is shown to everybody.
    Two(Proof),
    /// Grants contradicted each other; these.
    Resolving(Vec<Signed<Grant>>),
}

/// A write under way.
#[derive(Debug)]
pub(super) struct Writing {
    /// Who waits for each of its operations; `None`: that one was given up.
    pub(super) calls: Vec<Option<Called>>,
    pub(super) write: Write,
    /// Who has said that PBFT gives the places of the object now.
    pub(super) in_order: BTreeSet<ReplicaId>,
    pub(super) retry_at: Instant,
    pub(super) asked: BTreeSet<ReplicaId>,
    tries: u32,
    pub(super) stage: Stage,
    /// The last grant that each replica has shown, with its latest certificate.
    pub(super) grants: BTreeMap<ReplicaId, (Verified<Grant>, Option<Proof>)>,
    /// Grants up to here are of no use any more.
    floor: Version,
    /// The last certificate that this client has shown to replicas: if that was lost, it is shown again.
    shown: Option<Proof>,
    done: BTreeMap<ReplicaId, Digest>,
    too_old: BTreeMap<ReplicaId, Position>,
}

/// Phase 1.
impl Client {
    /// Nothing is asked of an object any more: what remains is the latest write of it that this client knows of.
    fn remember(&mut self, id: Digest, after: Position) {
        if self.latest.len() >= LATEST_MAX {
            self.latest.pop_first(); // whoever forgets is told, and asks again ([`Message::TooOld`])
        }
        self.latest.insert(id, after);
    }

    /// The next write of an object.
    pub(super) fn begin(&mut self, id: Digest, out: &mut Outbox) {
        let Some(queue) = self.writes.get_mut(&id).filter(|queue| queue.current.is_none()) else { return };
        let together = queue.next();
        if together.is_empty() {
            let after = queue.after;
            self.writes.remove(&id);
            return self.remember(id, after);
        }
        self.number = self.number.next();
        let (client, number, after) = (self.config.client, self.number, queue.after);
        let called = |it: &Waiting| Some(Called { ticket: it.ticket, deadline: it.deadline });
        let calls = together.iter().map(called).collect();
        let operations: Vec<Bytes> = together.into_iter().map(|it| it.operation).collect();
        let hash = Write::hash(client, number, &queue.name, &operations);
        let ask = self.keyring.sign_as_client(Ask { client, object: id, number, hash, after });
        let write = Write { name: queue.name.clone(), operations, ask };
        queue.current = Some(Writing {
            calls,
            write,
            in_order: BTreeSet::new(),
            retry_at: out.now(),
            asked: BTreeSet::new(),
            tries: 0,
            stage: Stage::One,
            grants: BTreeMap::new(),
            floor: Version::default(),
            shown: None,
            done: BTreeMap::new(),
            too_old: BTreeMap::new(),
        });
        if self.in_order.contains(&id) {
            self.ask(id, &[], out);
            return self.submit_to_rest(id, out);
        }
        let to = self.preferred(id);
        self.ask(id, &to, out);
    }

    /// ⟨WRITE-1⟩ to these.
    fn ask(&mut self, id: Digest, to: &[ReplicaId], out: &mut Outbox) {
        let tries = self.writes.get(&id).and_then(|queue| queue.current.as_ref()).map_or(0, |it| it.tries);
        let retry_at = out.now().plus(self.pause(tries));
        let Some(current) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        current.retry_at = retry_at;
        for replica in to {
            current.asked.insert(*replica);
            out.send(*replica, Message::Write1(current.write.clone()));
        }
    }

    /// ⟨WRITE-1-OK⟩ or ⟨WRITE-1-REFUSED⟩: whose the next place is says the grant itself.
    pub(super) fn on_phase1(
        &mut self,
        from: ReplicaId,
        grant: Signed<Grant>,
        current: Option<Proof>,
        out: &mut Outbox,
    ) {
        let Ok(grant) = grant.verified() else { return };
        let (id, version) = (grant.statement().object, grant.statement().version);
        let latest = current.as_ref().map_or(Version::default(), |proof| proof.statement().version);
        let of_it = current.as_ref().is_none_or(|proof| proof.statement().object == id);
        // What PBFT's order has led to has no certificate.
        let follows = version.ts == latest.ts.next() || (current.is_none() && version.vs > OpNumber::ZERO);
        if grant.by() != from || !of_it || !follows || version.vs < latest.vs {
            return; // no correct replica says that
        }
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        let older = writing.grants.get(&from).is_some_and(|(known, _)| known.statement().version > version);
        let of_old = match &writing.stage {
            Stage::One => version <= writing.floor,
            // Places beyond the conflict are given when it is resolved, and may be given before this client's RESOLVE arrives.
            Stage::Resolving(conflict) => conflict.iter().any(|grant| version <= grant.statement().version),
            Stage::Two(_) => true,
        };
        if older || of_old {
            return;
        }
        writing.grants.insert(from, (grant, current));
        if writing.grants.len() >= self.quorums.vouch() {
            writing.stage = Stage::One; // one of them is correct: the conflict is over, and ordered mode, too
            self.in_order.remove(&id);
            self.classify(id, false, out);
        }
    }

    /// Which of the outcomes is it? `late`: whoever has not answered will not.
    fn classify(&mut self, id: Digest, late: bool, out: &mut Outbox) {
        let (quorum, count, grace) = (self.quorum(), self.quorums.replicas(), self.grace());
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        let mut alike: BTreeMap<Grant, usize> = BTreeMap::new();
        for (grant, _) in writing.grants.values() {
            *alike.entry(*grant.statement()).or_default() += 1;
        }
        let Some(best) = alike.iter().max_by_key(|(_, count)| **count).map(|(grant, _)| *grant) else { return };
        let grants = writing.grants.values().map(|(grant, _)| grant);
        let enough = quorum - usize::from(mutated!("hq/certificate-of-too-few"));
        if let Some(proof) = Certified::assemble(grants, &best, enough) {
            let proof = proof.into_certificate();
            if best.is_for(writing.write.ask()) {
                return self.phase_two(id, proof, out); // case 1
            }
            // Case 2: somebody began and did not finish. Do that write, then consider mine.
            writing.floor = best.version;
            writing.grants.clear();
            writing.shown = Some(proof.clone());
            let to: Vec<_> = writing.asked.iter().copied().collect();
            return self.write_back(id, &proof, &to, out);
        }
        if writing.grants.len() < quorum {
            return;
        }
        let mut places: BTreeMap<Version, usize> = BTreeMap::new();
        for (grant, _) in writing.grants.values() {
            *places.entry(grant.statement().version).or_default() += 1;
        }
        let Some(place) = places.into_iter().find(|(_, count)| *count >= quorum).map(|(place, _)| place) else {
            if !late {
                self.even_out(id, out); // case 4
            }
            return;
        };
        let most = alike.iter().filter(|(grant, _)| grant.version == place).map(|(_, count)| *count).max().unwrap_or(0);
        let outstanding = count.saturating_sub(writing.grants.len());
        if late || most.saturating_add(outstanding) < quorum {
            return self.resolve(id, place, out); // case 3
        }
        // A quorum has answered, not alike, and those who have not may still make one: a moment more, and all are asked.
        writing.retry_at = out.now().plus(grace);
        let to: Vec<_> = self.connected.iter().copied().filter(|it| !writing.asked.contains(it)).collect();
        for replica in to {
            writing.asked.insert(replica);
            out.send(replica, Message::Write1(writing.write.clone()));
        }
    }

    /// ⟨WRITEBACK-WRITE, writeC, w1⟩.
    fn write_back(&mut self, id: Digest, proof: &Proof, to: &[ReplicaId], out: &mut Outbox) {
        let retry_at = out.now().plus(self.pause(0));
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        writing.retry_at = retry_at;
        for replica in to {
            out.send(*replica, Message::WriteBack { proof: proof.clone(), write: writing.write.clone() });
        }
    }

    /// Case 4: some replicas are behind. They are shown the latest certificate that another one has.
    fn even_out(&mut self, id: Digest, out: &mut Outbox) {
        let grace = self.grace();
        let Some((proof, writing)) = self.latest_shown(id) else { return };
        let latest = proof.as_ref().map_or(Version::default(), |proof| proof.statement().version);
        let behind = writing.grants.iter().filter(|(_, (grant, _))| grant.statement().version <= latest);
        let behind: Vec<ReplicaId> = behind.map(|(replica, _)| *replica).collect();
        behind.iter().for_each(|replica| drop(writing.grants.remove(replica)));
        match proof {
            Some(proof) if !behind.is_empty() => self.write_back(id, &proof, &behind, out),
            // Some have yet to hear of a resolution, or somebody lies: what they say by then decides.
            _ => writing.retry_at = writing.retry_at.min(out.now().plus(grace)),
        }
    }

    /// The latest certificate that a replica has shown; who has shown one that proves nothing is not listened to.
    fn latest_shown(&mut self, id: Digest) -> Option<(Option<Proof>, &mut Writing)> {
        let quorum = self.quorum();
        let keyring = self.keyring.clone();
        let writing = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut())?;
        loop {
            let shown = writing.grants.iter().filter_map(|(from, (_, current))| Some((*from, current.clone()?)));
            let Some((from, mut proof)) = shown.max_by_key(|(_, proof)| proof.statement().version) else {
                return Some((None, writing));
            };
            if proof.prove(&keyring, quorum).is_ok() {
                return Some((Some(proof), writing));
            }
            writing.grants.remove(&from); // a lie
        }
    }

    /// Case 3: ⟨RESOLVE, conflictC, w1⟩ to all. What contradicts each other are the grants of one place.
    fn resolve(&mut self, id: Digest, place: Version, out: &mut Outbox) {
        let retry_at = out.now().plus(self.pause(1));
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        let grants = writing.grants.values().map(|(grant, _)| grant);
        let conflict: Vec<_> =
            grants.filter(|grant| grant.statement().version == place).map(|grant| grant.signed().clone()).collect();
        writing.grants.clear();
        writing.retry_at = retry_at;
        for replica in &self.connected {
            let (conflict, write) = (conflict.clone(), writing.write.clone());
            out.send(*replica, Message::Resolve { conflict, write });
        }
        writing.stage = Stage::Resolving(conflict);
    }

    /// Replicas have forgotten this client. If one of them is correct, the request is made anew, with what they know; unless it
    /// was said several times, or granted, or somebody has done it: then it may have been done, and forgotten after that.
    pub(super) fn on_too_old(
        &mut self,
        from: ReplicaId,
        id: Digest,
        number: RequestNumber,
        at: Position,
        out: &mut Outbox,
    ) {
        let Some(queue) = self.writes.get_mut(&id) else { return };
        let Some(writing) = queue.current.as_mut().filter(|it| it.write.ask().number == number) else { return };
        writing.too_old.insert(from, at);
        let Some(after) = self.quorums.vouched(writing.too_old.values().copied()) else { return };
        queue.after = queue.after.max(after);
        if let Some(writing) = queue.current.take() {
            if writing.tries == 0 && writing.done.is_empty() && matches!(writing.stage, Stage::One) {
                queue.put_back(writing.calls, writing.write.operations);
            } else {
                for call in writing.calls.into_iter().flatten() {
                    out.complete(call.ticket, Err(CallError::Evicted { maybe_applied: true }));
                }
            }
        }
        self.begin(id, out);
    }
}

/// Phase 2.
impl Client {
    /// ⟨WRITE-2, writeC⟩ to all; whoever was not asked in phase 1 gets the operation with it, and need not answer.
    fn phase_two(&mut self, id: Digest, proof: Proof, out: &mut Outbox) {
        let retry_at = out.now().plus(self.pause(0));
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        (writing.retry_at, writing.tries) = (retry_at, 0);
        for replica in &self.connected {
            let answer = writing.asked.contains(replica);
            let write = (!answer).then(|| writing.write.clone());
            out.send(*replica, Message::Write2 { proof: proof.clone(), write, answer });
        }
        writing.stage = Stage::Two(proof);
    }

    /// ⟨WRITE-2-ANS, result, currentC, rid⟩.
    pub(super) fn on_done(
        &mut self,
        from: ReplicaId,
        id: Digest,
        number: RequestNumber,
        (results, version): (Vec<Bytes>, Version),
        proof: Option<Proof>,
        out: &mut Outbox,
    ) {
        let quorum = self.quorum();
        let keyring = self.keyring.clone();
        let Some(queue) = self.writes.get_mut(&id) else { return };
        let Some(writing) = queue.current.as_mut().filter(|it| it.write.ask().number == number) else { return };
        let said = alike(&results.encode(), version);
        writing.done.insert(from, said);
        if writing.done.values().filter(|other| **other == said).count() >= quorum {
            queue.after = queue.after.max(version.ts);
            if let Some(Writing { mut calls, mut write, .. }) = queue.current.take() {
                let mut results = results;
                if mutated!("hq/answers-in-another-order") {
                    results.reverse();
                }
                let done = calls.len().min(results.len());
                // The others were not done: the replies would have been too long for one message.
                queue.put_back(calls.split_off(done), write.operations.split_off(done));
                for (call, reply) in calls.into_iter().zip(results).filter_map(|(call, reply)| Some((call?, reply))) {
                    out.complete(call.ticket, Ok(Answer { reply, op: OpNumber::new(version.ts.get()) }));
                }
            }
            return self.begin(id, out);
        }
        if matches!(writing.stage, Stage::Two(_)) {
            return;
        }
        // Case 5: it was executed already, by somebody's write-back or by a resolution. Show everybody.
        let ask = *writing.write.ask();
        if let Some(mut proof) = proof.filter(|proof| proof.statement().is_for(&ask))
            && proof.prove(&keyring, quorum).is_ok()
        {
            writing.asked.extend(self.connected.iter().copied());
            self.phase_two(id, proof, out);
        }
    }

    /// No answer in time: everybody is asked, and those who were and said nothing are not preferred any more.
    pub(super) fn retry_write(&mut self, id: Digest, out: &mut Outbox) {
        let quorum = self.quorum();
        let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) else { return };
        writing.tries = writing.tries.saturating_add(1);
        let tries = writing.tries;
        let all: Vec<ReplicaId> = self.connected.iter().copied().collect();
        match &writing.stage {
            Stage::One => {
                let silent = writing.asked.iter().filter(|it| !writing.grants.contains_key(it));
                self.suspects.extend(silent.copied());
                if writing.grants.len() >= quorum {
                    self.classify(id, true, out);
                }
                self.ask_again(id, &all, out);
            }
            Stage::Two(proof) if tries <= ROUNDS_MAX => {
                let silent = writing.asked.iter().filter(|it| !writing.done.contains_key(it));
                self.suspects.extend(silent.copied());
                let (proof, write) = (proof.clone(), writing.write.clone());
                writing.asked.extend(all.iter().copied());
                for replica in all {
                    let write = Some(write.clone());
                    out.send(replica, Message::Write2 { proof: proof.clone(), write, answer: true });
                }
                self.postpone(id, tries, out);
            }
            Stage::Resolving(conflict) if tries % 2 == 1 => {
                for replica in all {
                    let (conflict, write) = (conflict.clone(), writing.write.clone());
                    out.send(replica, Message::Resolve { conflict, write });
                }
                self.postpone(id, tries, out);
            }
            Stage::Two(_) | Stage::Resolving(_) => {
                writing.stage = Stage::One;
                writing.grants.clear();
                self.ask_again(id, &all, out);
            }
        }
    }

    /// Phase 1 anew, if that is where it is: what was said may have been lost, and what was heard may be over. The latest
    /// certificate goes with it: whoever lacks that has nobody else to have it from, perhaps.
    fn ask_again(&mut self, id: Digest, all: &[ReplicaId], out: &mut Outbox) {
        let Some((proof, writing)) = self.latest_shown(id) else { return };
        if !matches!(writing.stage, Stage::One) {
            return;
        }
        writing.floor = Version::default();
        let shown = [proof, writing.shown.take()].into_iter().flatten().max_by_key(|it| it.statement().version);
        writing.shown.clone_from(&shown);
        match shown {
            None => self.ask(id, all, out),
            Some(proof) => {
                writing.asked.extend(all.iter().copied());
                self.write_back(id, &proof, all, out);
            }
        }
        let tries = self.writes.get(&id).and_then(|queue| queue.current.as_ref()).map_or(0, |it| it.tries);
        self.postpone(id, tries, out);
    }

    fn postpone(&mut self, id: Digest, tries: u32, out: &mut Outbox) {
        let retry_at = out.now().plus(self.pause(tries));
        if let Some(writing) = self.writes.get_mut(&id).and_then(|queue| queue.current.as_mut()) {
            writing.retry_at = writing.retry_at.max(retry_at);
        }
    }
}
