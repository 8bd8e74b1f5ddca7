//! PBFT: as many liars as its model has, and what they say.

use super::Simulated;
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use crate::registers;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::Peer;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Ruling;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Pbft};

impl Simulated for Pbft {
    /// A backup refuses what lies more than `clock_ahead` before it: correct calendars and clocks must agree better than that.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush, Fault::ClockJump];
    const REPLICAS: u8 = 4;

    const EXPECTED: &'static [&'static str] =
        &["checkpoints", "commits", "entries fetched", "state transfers", "suspicions", "view changes", "view starts"];

    fn spared(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn liars(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(PbftLies))
    }

    /// A replica that has lost a promise counts as one of the `f`: with as many liars beside it there is one too many. So a
    /// list with lies has no damaged logs; `--faults` without the lies has them.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        let allowed = excluded.fold(faults.clone(), |faults, fault| faults.without(*fault));
        if !Fault::ALL.iter().any(|fault| fault.is_lie() && allowed.has(*fault)) {
            return allowed;
        }
        [Fault::BitRot, Fault::Misdirected].into_iter().fold(allowed, |faults, fault| faults.without(fault))
    }

    /// Snapshots every few entries.
    fn config(random: &mut Random) -> pbft::Config {
        pbft::Config {
            checkpoint_entries: 2 + random.below(14),
            state_entries: 8 + random.below(56),
            state_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            in_flight_entries: 1 + random.below(8),
            ..pbft::Config::default()
        }
    }
}

/// The lies of a replica of PBFT: whatever its own key can sign.
#[derive(Debug)]
pub struct PbftLies;

impl PbftLies {
    fn other_digest(digest: Digest) -> Digest {
        Digest::of_parts(&[b"a lie", digest.as_bytes()])
    }

    /// A register's answer, with another value.
    fn other_answer(bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
        let told = registers::Reply::decode(bytes).ok()?;
        Some(registers::Reply { found: told.found ^ random.between(1, 7), ..told }.encode().into())
    }
}

impl Lies<Pbft> for PbftLies {
    /// Another proposal or vote in the same slot; a view change that forgets; a new view that leaves something out.
    fn other(&self, message: &pbft::Message, keyring: &Keyring, _: &mut Random) -> Option<pbft::Message> {
        use pbft::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::PrePrepare { vote, proposal } => {
                let pbft::Content::Orders(orders) = proposal.content() else { return None };
                let mut orders = orders.clone();
                orders.groups.pop();
                let proposal = pbft::Proposal::new(pbft::Content::Orders(orders));
                let words = pbft::Prepare { digest: proposal.digest(), ..*vote.statement() };
                Some(M::PrePrepare { vote: keyring.sign(words), proposal })
            }
            M::Prepare(vote) => {
                let words = *vote.statement();
                Some(M::Prepare(keyring.sign(pbft::Prepare { digest: Self::other_digest(words.digest), ..words })))
            }
            M::Commit(vote) => {
                let words = *vote.statement();
                Some(M::Commit(keyring.sign(pbft::Commit { digest: Self::other_digest(words.digest), ..words })))
            }
            M::Checkpoint(vote) => {
                let words = *vote.statement();
                let chain = Self::other_digest(words.chain);
                Some(M::Checkpoint(keyring.sign(pbft::LogCheckpoint { chain, ..words })))
            }
            M::State(vote) => {
                let mut words = *vote.statement();
                words.checkpoint.id = Self::other_digest(words.checkpoint.id);
                Some(M::State(keyring.sign(words)))
            }
            M::ViewChange(change) => {
                let mut words = change.statement().clone();
                words.prepared.pop()?;
                Some(M::ViewChange(Box::new(keyring.sign(words))))
            }
            M::NewView(start) => {
                let mut words = start.statement().clone();
                words.proposals.pop()?;
                Some(M::NewView(Box::new(keyring.sign(words))))
            }
            _ => None,
        }
    }

    /// Another state was found.
    fn false_reply(&self, message: &pbft::Message, _: &Keyring, random: &mut Random) -> Option<pbft::Message> {
        use pbft::{Message as M, Told};
        match message {
            M::Reply(reply) => {
                let lie = |told: &Told<Ruling>, random: &mut Random| match told {
                    Told::Full(Ruling::Replied(bytes)) => {
                        Some(Told::Full(Ruling::Replied(Self::other_answer(bytes, random)?)))
                    }
                    Told::Full(other) => Some(Told::Full(other.clone())),
                    Told::Digest(digest) => Some(Told::Digest(Self::other_digest(*digest))),
                };
                let rulings = reply.rulings.iter().map(|(number, told)| Some((*number, lie(told, random)?)));
                Some(M::Reply(pbft::Reply { rulings: rulings.collect::<Option<_>>()?, ..reply.clone() }))
            }
            M::ReadReply { view, id, op, answer: Told::Full(bytes) } => {
                let answer = Told::Full(Self::other_answer(bytes, random)?);
                Some(M::ReadReply { view: *view, id: *id, op: *op, answer })
            }
            _ => None,
        }
    }

    /// A view change that has prepared nothing; a place far ahead; the wish for another view instead of a vote.
    fn own(&self, _: Peer, message: &pbft::Message, keyring: &Keyring, _: &mut Random) -> Option<Vec<pbft::Message>> {
        use pbft::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        let forgetful = |view| {
            let words = pbft::ViewChange { view, stable: None, prepared: Vec::new() };
            M::ViewChange(Box::new(keyring.sign(words)))
        };
        match message {
            M::ViewChange(change) => Some(vec![forgetful(change.statement().view)]),
            M::Commit(vote) => Some(vec![message.clone(), forgetful(vote.statement().view.next())]),
            M::Status(place) => Some(vec![M::Status(pbft::Place { committed: place.committed.plus(1000), ..*place })]),
            _ => None,
        }
    }
}
