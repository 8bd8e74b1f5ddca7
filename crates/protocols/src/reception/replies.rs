//! What clients are told (step 1 of the specification: a client publishes until `f + 1` replicas say the same). PBFT, inside,
//! sees requests of replicas and answers nobody: who asked for what stands in the publications, which only this protocol opens. How
//! answers are split is shared (`quorum_client`).

use super::Outbox;
use super::message::Message;
use super::replica::Replica;
use crate::pbft::{self, Group, Reply, Told};
use crate::quorum_client::replica::{self, Key};
use quorate_core::crypto::Digest;
use quorate_core::fault::Fault;
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId, RequestNumber, SessionId};
use quorate_core::mutated;
use quorate_core::sessions::{self, Ruling};
use std::collections::{BTreeMap, BTreeSet};

/// Whom the answers of an entry are for: all of its publications but the operations.
#[derive(Debug, Default)]
pub(super) struct Asked {
    in_full: BTreeMap<Key, Option<ReplicaId>>,
    acknowledged: BTreeMap<(ClientId, SessionId), RequestNumber>,
}

impl Asked {
    /// Of these groups; with each, whether its client has asked everybody for a full answer.
    pub(super) fn of<'a>(groups: impl Iterator<Item = (&'a Group, bool)>) -> Self {
        let mut asked = Self::default();
        for (it, all_in_full) in groups.map(|(group, in_full)| (group.statement(), in_full)) {
            let full = it.full.filter(|_| !all_in_full);
            let of = (it.client, it.session);
            let acknowledged = asked.acknowledged.entry(of).or_default();
            *acknowledged = it.acknowledged.max(*acknowledged);
            for (number, _) in &it.requests {
                // One that came again is answered in full by all, whatever the first copy has asked for.
                let in_full = asked.in_full.entry((it.client, it.session, *number)).or_insert(full);
                *in_full = in_full.filter(|_| full.is_some());
            }
        }
        asked
    }

    /// Is this one's answer under way? Then everybody gives it in full.
    fn ask_in_full(&mut self, key: &Key) -> bool {
        self.in_full.get_mut(key).map(|full| *full = None).is_some()
    }
}

impl Replica {
    /// An entry is applied: everybody whose publication it brought is answered, in full or with a digest, as the client has asked.
    /// A client that has used one number for two requests has signed both.
    pub(super) fn reply(&mut self, op: OpNumber, replies: Vec<sessions::Reply>, out: &mut Outbox) {
        let Asked { in_full, acknowledged } = self.asked.remove(&op).unwrap_or_default();
        if mutated!("reception/answers-nobody") {
            return;
        }
        let reused = replies.iter().filter(|reply| reply.ruling == Ruling::Reused).map(|reply| reply.client);
        for client in reused.collect::<BTreeSet<_>>() {
            out.blame(Peer::Client(client), Fault::Contradiction("two requests under one number".to_owned()));
        }
        for reply in replies.iter().filter(|reply| reply.ruling == Ruling::Evicted) {
            self.spent.end((reply.client, reply.session));
        }
        for (of, acknowledged) in acknowledged.into_iter().filter(|((_, session), _)| *session != SessionId::ZERO) {
            self.spent.learn(of, acknowledged);
            let its = replies.iter().filter(|reply| (reply.client, reply.session) == of);
            self.answered.give(of, acknowledged, op, its.map(|reply| (reply.number, &reply.ruling)));
        }
        for (client, message) in replica::replies((self.me, self.module.view(), op), &in_full, replies) {
            self.tell(client, message, out);
        }
    }

    /// The machine has all of these, and has not answered yet: what a client asks for again meanwhile is not received again.
    pub(super) fn will_reply(&mut self, group: &Group) -> bool {
        let it = group.statement();
        let mut keys = it.requests.iter().map(|(number, _)| (it.client, it.session, *number));
        let asked = &mut self.asked;
        keys.all(|key| asked.values_mut().any(|asked| asked.ask_in_full(&key)))
    }

    /// Says again what the client may not have heard, if that is all that it asks for. A publication is ordered as a whole, and
    /// answers are forgotten from the first on, when the client acknowledges them: so what precedes an answer that is known is
    /// acknowledged.
    pub(super) fn reply_again(&self, group: &Group, in_full: bool, out: &mut Outbox) -> bool {
        let it = group.statement();
        let answered = self.answered.to(group);
        let known = || answered.values().flatten().map(|(number, _)| *number);
        let Some(first) = known().min() else { return false };
        if known().count() < it.requests.iter().filter(|(number, _)| *number >= first).count() {
            return false;
        }
        let is_full = in_full || it.full.is_none_or(|replica| replica == self.me);
        for (op, rulings) in answered {
            let rulings = rulings.into_iter().map(|(number, ruling)| (number, Told::new(ruling, is_full))).collect();
            let reply = Reply { view: self.module.view(), op, session: it.session, rulings };
            self.tell(it.client, pbft::Message::Reply(reply), out);
        }
        true
    }

    fn tell(&self, client: ClientId, reply: pbft::Message, out: &mut Outbox) {
        // Follows from what a quorum has on its disks; nothing in it is a promise of ours alone.
        out.send_unsynced(Peer::Client(client), Message::Module(reply));
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
