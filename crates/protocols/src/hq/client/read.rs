//! Reads (A.5): one round trip to a quorum that answers alike.

use super::{Client, Outbox, alike};
use crate::hq::message::{Message, Proof, ReadRequest, Version, object_of};
use crate::pbft::Told;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::protocol::{Answer, Ticket};
use quorate_core::time::Instant;
use std::collections::{BTreeMap, BTreeSet};

/// A read under way.
#[derive(Debug)]
pub(super) struct Read {
    pub(super) ticket: Ticket,
    pub(super) request: ReadRequest,
    pub(super) deadline: Instant,
    pub(super) retry_at: Instant,
    pub(super) asked: BTreeSet<ReplicaId>,
    tries: u32,
    answers: BTreeMap<ReplicaId, (Version, Digest, Option<Proof>)>,
    /// What each has said in full last: nobody takes another one's room.
    whole: BTreeMap<ReplicaId, (Digest, Bytes)>,
}

impl Read {
    pub(super) fn new(ticket: Ticket, request: ReadRequest, deadline: Instant) -> Self {
        let (answers, whole) = (BTreeMap::new(), BTreeMap::new());
        Self { ticket, request, deadline, retry_at: deadline, asked: BTreeSet::new(), tries: 0, answers, whole }
    }

    fn id(&self) -> Digest {
        self.request.name.as_ref().map_or(Digest::ZERO, |name| object_of(name))
    }
}

impl Client {
    /// ⟨READ, cid, oid, op, nonce⟩ to a preferred quorum, one of which answers in full.
    pub(super) fn send_reads(&mut self, out: &mut Outbox) {
        if self.connected.is_empty() {
            return;
        }
        for nonce in std::mem::take(&mut self.unsent) {
            let Some(id) = self.reads.get(&nonce).map(Read::id) else { continue };
            let to = self.preferred(id);
            let retry_at = out.now().plus(self.pause(0));
            let Some(read) = self.reads.get_mut(&nonce) else { continue };
            read.retry_at = retry_at;
            read.request.full = to.first().copied();
            for replica in to {
                read.asked.insert(replica);
                out.send(replica, Message::Read(read.request.clone()));
            }
        }
    }

    /// ⟨READ-ANS, result, nonce, currentC, rid⟩.
    pub(super) fn on_read_answer(
        &mut self,
        from: ReplicaId,
        nonce: u64,
        version: Version,
        answer: Told<Bytes>,
        proof: Option<Proof>,
        out: &mut Outbox,
    ) {
        let needed = self.quorum();
        let Some(read) = self.reads.get_mut(&nonce) else { return };
        let said = alike(answer.digest().as_bytes(), version);
        read.answers.insert(from, (version, said, proof));
        if let Told::Full(whole) = answer {
            read.whole.insert(from, (said, whole));
        }
        let alike = |said: &Digest| read.answers.values().filter(|(_, other, _)| other == said).count();
        let agreed = read.whole.values().find(|(said, _)| alike(said) >= needed);
        if let Some((_, reply)) = agreed {
            let answer = Answer { reply: reply.clone(), op: OpNumber::new(version.ts.get()) };
            out.complete(read.ticket, Ok(answer));
            self.reads.remove(&nonce);
        } else if read.answers.len() >= needed {
            self.even_out_read(nonce, out);
        }
    }

    /// Some replicas are behind: they are shown the latest certificate, and asked again ⟨WRITEBACK-READ⟩.
    fn even_out_read(&mut self, nonce: u64, out: &mut Outbox) {
        let (quorum, keyring, grace) = (self.quorum(), self.keyring.clone(), self.grace());
        let Some(read) = self.reads.get_mut(&nonce) else { return };
        let id = read.id();
        let request = ReadRequest { full: None, ..read.request.clone() };
        let others: Vec<_> = self.connected.iter().copied().filter(|it| !read.asked.contains(it)).collect();
        for replica in others {
            read.asked.insert(replica);
            out.send(replica, Message::Read(request.clone()));
        }
        // The latest write that somebody proves: who names one and cannot is not listened to.
        let proof = loop {
            // What PBFT's order has led to has no certificate: whoever lacks it has it from PBFT.
            let shown = read.answers.iter().filter(|(_, (_, _, proof))| proof.is_some());
            let Some((from, (version, _, proof))) = shown.max_by_key(|(_, (version, ..))| *version) else { break None };
            let (from, version, proof) = (*from, *version, proof.clone());
            let of_it = |it: &Proof| it.statement().version == version && it.statement().object == id;
            if let Some(mut proof) = proof.filter(of_it)
                && proof.prove(&keyring, quorum).is_ok()
            {
                break Some(proof);
            }
            read.answers.remove(&from);
        };
        let Some(proof) = proof else {
            read.retry_at = read.retry_at.min(out.now().plus(grace));
            return;
        };
        let latest = proof.statement().version;
        let behind: Vec<_> =
            read.answers.iter().filter(|(_, (version, _, _))| *version < latest).map(|(it, _)| *it).collect();
        for replica in &behind {
            read.answers.remove(replica);
            out.send(*replica, Message::WriteBackRead { proof: proof.clone(), read: request.clone() });
        }
        if behind.is_empty() || read.answers.values().any(|(version, ..)| *version > latest) {
            // Alike in place, not in words; or some have been through more of PBFT's order.
            read.retry_at = read.retry_at.min(out.now().plus(grace));
        }
    }

    /// Everybody is asked anew, in full: an answer to an earlier attempt is not one to this.
    pub(super) fn retry_read(&mut self, nonce: u64, out: &mut Outbox) {
        let Some(mut read) = self.reads.remove(&nonce) else { return };
        let silent = read.asked.iter().filter(|it| !read.answers.contains_key(it));
        self.suspects.extend(silent.copied());
        read.tries = read.tries.saturating_add(1);
        read.retry_at = out.now().plus(self.pause(read.tries));
        self.last_nonce = self.last_nonce.wrapping_add(1);
        read.request = ReadRequest { nonce: self.last_nonce, full: None, ..read.request };
        (read.answers, read.whole) = (BTreeMap::new(), BTreeMap::new());
        for replica in &self.connected {
            read.asked.insert(*replica);
            out.send(*replica, Message::Read(read.request.clone()));
        }
        self.reads.insert(self.last_nonce, read);
    }
}
