//! What clients are told (step 1 of the specification: a client publishes until `f + 1` replicas say the same). PBFT, inside,
//! sees requests of replicas and answers nobody: who asked for what stands in the publications, which only this protocol opens.

use super::Outbox;
use super::message::Message;
use super::replica::Replica;
use crate::pbft::{self, Group, Reply, Told};
use quorate_core::crypto::Digest;
use quorate_core::fault::Fault;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, RequestNumber, SessionId};
use quorate_core::mutated;
use quorate_core::sessions::{self, Ruling};
use std::collections::BTreeMap;

type Rulings = Vec<(RequestNumber, Told<Ruling>)>;

/// Whom one publication's answers are for: all of it but the operations.
#[derive(Debug)]
pub(super) struct Asked {
    client: ClientId,
    session: SessionId,
    acknowledged: RequestNumber,
    full: Option<ReplicaId>,
    numbers: Vec<RequestNumber>,
}

impl Asked {
    pub(super) fn of(group: &Group) -> Self {
        let it = group.statement();
        let numbers = it.requests.iter().map(|(number, _)| *number).collect();
        Self { client: it.client, session: it.session, acknowledged: it.acknowledged, full: it.full, numbers }
    }
}

impl Replica {
    /// An entry is applied: everybody whose publication it brought is answered, in full or with a digest, as the client has asked.
    /// A client that has used one number for two requests has signed both.
    pub(super) fn reply(&mut self, op: OpNumber, replies: Vec<sessions::Reply>, out: &mut Outbox) {
        let asked = self.asked.remove(&op).unwrap_or_default();
        if mutated!("reception/answers-nobody") {
            return;
        }
        let mut replies = replies.into_iter().peekable(); // in the order of the requests, one for each at most
        let mut told: BTreeMap<(ClientId, SessionId), Rulings> = BTreeMap::new();
        for it in asked {
            let of = (it.client, it.session);
            let mut rulings = Vec::with_capacity(it.numbers.len());
            for number in it.numbers {
                let is_its = |reply: &sessions::Reply| ((reply.client, reply.session), reply.number) == (of, number);
                rulings.extend(replies.next_if(is_its).map(|reply| (number, reply.ruling)));
            }
            if rulings.iter().any(|(_, ruling)| *ruling == Ruling::Reused) {
                out.blame(Peer::Client(it.client), Fault::Contradiction("two requests under one number".to_owned()));
            }
            if it.session != SessionId::ZERO {
                let known = rulings.iter().map(|(number, ruling)| (*number, ruling));
                self.answered.give(of, it.acknowledged, op, known);
            }
            let is_full = it.full.is_none_or(|replica| replica == self.me);
            let rulings = rulings.into_iter().map(|(number, ruling)| (number, Told::new(ruling, is_full)));
            told.entry(of).or_default().extend(rulings);
        }
        for ((client, session), rulings) in told.into_iter().filter(|(_, rulings)| !rulings.is_empty()) {
            self.tell(client, Reply { view: self.module.view(), op, session, rulings }, out);
        }
    }

    /// Says again what the client may not have heard, if that is all that it asks for.
    pub(super) fn reply_again(&self, group: &Group, out: &mut Outbox) -> bool {
        let it = group.statement();
        let answered = self.answered.to(group);
        if answered.values().map(Vec::len).sum::<usize>() < it.requests.len() {
            return false;
        }
        let is_full = it.full.is_none_or(|replica| replica == self.me);
        for (op, rulings) in answered {
            let rulings = rulings.into_iter().map(|(number, ruling)| (number, Told::new(ruling, is_full))).collect();
            self.tell(it.client, Reply { view: self.module.view(), op, session: it.session, rulings }, out);
        }
        true
    }

    fn tell(&self, client: ClientId, reply: Reply, out: &mut Outbox) {
        // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
        out.send_unsynced(Peer::Client(client), Message::Module(pbft::Message::Reply(reply)));
    }

    /// The machine was replaced: what it was given is not answered, and receptions of what is not here may be of what the new
    /// state holds. Whoever still waits for one of these says so again.
    pub(super) fn forget_what_was_heard(&mut self) {
        self.asked.clear();
        self.parked.clear();
        for digest in std::mem::take(&mut self.unknown).into_keys() {
            self.receptions.remove(&digest);
        }
    }
}

/// The number under which every replica asks PBFT for a publication: when it is ordered, what others asked is done, too. The
/// digest's first 62 bits: PBFT knows no larger ones.
pub(super) fn name(digest: Digest) -> RequestNumber {
    let first = digest.as_bytes().first_chunk().copied().unwrap_or_default();
    RequestNumber::new(u64::from_be_bytes(first) >> NAME_SHIFT)
}

/// The digests that have this name: from the first to the last.
pub(super) fn named(name: RequestNumber) -> std::ops::RangeInclusive<Digest> {
    let bound = |low: u64, fill: u8| {
        let mut bytes = [fill; 32];
        let (head, _) = bytes.split_at_mut(8);
        head.copy_from_slice(&(name.get().wrapping_shl(NAME_SHIFT) | low).to_be_bytes());
        Digest::new(bytes)
    };
    bound(0, 0)..=bound((1 << NAME_SHIFT) - 1, u8::MAX)
}

const NAME_SHIFT: u32 = 2;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_for_the_digests_that_begin_alike() {
        for index in 0..64_u8 {
            let digest = Digest::of(&[index]);
            assert!(named(name(digest)).contains(&digest));
            assert!(!named(name(digest)).contains(&Digest::of(&[index, 0])));
        }
        assert!(named(name(Digest::new([255; 32]))).contains(&Digest::new([255; 32])));
    }
}
