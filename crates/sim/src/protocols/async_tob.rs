//! Asynchronous total-order broadcast: as many liars as its model has, and what they say.

use super::pbft::PbftLies;
use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::crypto::{Certificate, CoinShare, Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer, ReplicaId};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::ByzantineQuorums;
use quorate_protocols::async_tob::agreement::Word;
use quorate_protocols::async_tob::{self, AsyncTob};
use quorate_protocols::pbft;

impl Simulated for AsyncTob {
    /// No clock can break it: agreed time lies between the clocks of correct replicas.
    const EXCLUDED: &'static [Fault] = &[];
    const REPLICAS: u8 = 4;

    const EXPECTED: &'static [&'static str] = &["checkpoints", "commits", "entries fetched", "state transfers"];

    fn spared(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn liars(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(AsyncTobLies))
    }

    /// As `quorate recover` does it: the others commit until the group is beyond every epoch in which the former self can have
    /// spoken.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, first: OpNumber, others: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, async_tob::rejoin(first)))
        };
        Some(Rejoin { entries: async_tob::WINDOW_EPOCHS + 1, record })
    }

    /// A replica that has lost a promise counts as one of the `t`: with as many liars beside it there is one too many. So a
    /// list with lies has no damaged logs and no lost disk; `--faults` without the lies has them.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        let allowed = excluded.fold(faults.clone(), |faults, fault| faults.without(*fault));
        if !Fault::ALL.iter().any(|fault| fault.is_lie() && allowed.has(*fault)) {
            return allowed;
        }
        [Fault::BitRot, Fault::Misdirected, Fault::LostDisk]
            .into_iter()
            .fold(allowed, |faults, fault| faults.without(fault))
    }

    /// Snapshots every few epochs.
    fn config(random: &mut Random) -> async_tob::Config {
        async_tob::Config {
            state_epochs: 8 + random.below(56),
            state_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            in_flight_batches: 1 + random.index(4),
            ..async_tob::Config::default()
        }
    }
}

/// The lies of a replica: whatever its own key can sign, and words that contradict each other.
#[derive(Debug)]
pub struct AsyncTobLies;

impl AsyncTobLies {
    fn other_digest(digest: Digest) -> Digest {
        Digest::of_parts(&[b"a lie", digest.as_bytes()])
    }

    fn other_word(word: Word, random: &mut Random) -> Word {
        match word {
            Word::Echo1(round, value) => Word::Echo1(round, !value),
            Word::Echo2(round, value) => Word::Echo2(round, !value),
            Word::Echo3(round, Some(value)) => Word::Echo3(round, random.chance(500_000).then_some(!value)),
            Word::Echo3(round, None) => Word::Echo3(round, Some(random.chance(500_000))),
            Word::Share(round, _) => Word::Share(round, CoinShare::new([7; 48])),
            Word::Decide(value) => Word::Decide(!value),
        }
    }
}

impl Lies<AsyncTob> for AsyncTobLies {
    /// A fork of the lane, another vector, other words.
    fn other(
        &self,
        message: &async_tob::Message,
        keyring: &Keyring,
        random: &mut Random,
    ) -> Option<async_tob::Message> {
        use async_tob::Message as M;
        let me = keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Batch { batch, certificate } if batch.lane() == me => {
                let mut groups = batch.payload.groups().to_vec();
                groups.pop(); // of one: a batch with nothing in it
                groups.truncate(1);
                let payload = async_tob::Payload::new(groups);
                let words = async_tob::Link { payload: payload.digest(), ..*batch.link.statement() };
                let link = keyring.sign(words);
                Some(M::Batch { batch: async_tob::Batch { link, payload }, certificate: certificate.clone() })
            }
            M::Ack(ack) => {
                let mut words = *ack.statement();
                words.head.digest = Self::other_digest(words.head.digest);
                Some(M::Ack(keyring.sign(words)))
            }
            M::Prop(vector) if vector.by() == me => {
                let mut words = vector.statement().clone();
                if words.heads.pop().is_none() {
                    words.time = words.time.plus(std::time::Duration::from_secs(3600));
                }
                Some(M::Prop(Box::new(keyring.sign(words))))
            }
            M::PAck(approval) => {
                let words = *approval.statement();
                let digest = Self::other_digest(words.digest);
                Some(M::PAck(keyring.sign(async_tob::Approval { digest, ..words })))
            }
            M::Agree(votes) => {
                let other = |vote: &async_tob::Vote, random: &mut Random| async_tob::Vote {
                    word: Self::other_word(vote.word, random),
                    ..*vote
                };
                Some(M::Agree(votes.iter().map(|vote| other(vote, random)).collect()))
            }
            M::Commit { op, root } => Some(M::Commit { op: *op, root: Self::other_digest(*root) }),
            M::Decided(all) => {
                let mut all = all.clone();
                let last = all.last_mut()?;
                last.root = Self::other_digest(last.root);
                Some(M::Decided(all))
            }
            _ => None,
        }
    }

    /// Another state was found.
    fn false_reply(
        &self,
        message: &async_tob::Message,
        keyring: &Keyring,
        random: &mut Random,
    ) -> Option<async_tob::Message> {
        let async_tob::Message::Client(inner) = message else { return None };
        Lies::<pbft::Pbft>::false_reply(&PbftLies::default(), inner, keyring, random).map(async_tob::Message::Client)
    }

    /// An empty epoch far too early, a clock years ahead, a head that nobody has certified, a history of its own, both echoes at once, a commit far ahead.
    fn own(
        &self,
        _: Peer,
        message: &async_tob::Message,
        keyring: &Keyring,
        random: &mut Random,
    ) -> Option<Vec<async_tob::Message>> {
        use async_tob::Message as M;
        let me = keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Prop(vector) if vector.by() == me => {
                let words = vector.statement();
                let time = words.time.plus(std::time::Duration::from_secs(1 << 30));
                let ahead = async_tob::Vector { op: words.op.next(), time, heads: Vec::new() };
                let made_up = async_tob::Ack {
                    lane: me,
                    head: async_tob::Head { height: 1 << 40, digest: Self::other_digest(Digest::ZERO) },
                };
                let own = *keyring.sign(made_up).signature();
                let signatures = (0..keyring.replicas()).filter_map(|id| u8::try_from(id).ok());
                let signatures = signatures.map(|id| (ReplicaId::new(id), own)).collect();
                let forged = Certificate::claimed(made_up, signatures);
                let late = if random.chance(500_000) {
                    async_tob::Vector { time, ..words.clone() }
                } else {
                    async_tob::Vector { heads: vec![forged], ..words.clone() }
                };
                Some(vec![M::Prop(Box::new(keyring.sign(late))), M::Prop(Box::new(keyring.sign(ahead)))])
            }
            M::Agree(votes) => {
                let both = |vote: &async_tob::Vote| match vote.word {
                    Word::Echo1(round, value) => {
                        vec![*vote, async_tob::Vote { word: Word::Echo1(round, !value), ..*vote }]
                    }
                    _ => vec![*vote],
                };
                Some(vec![M::Agree(votes.iter().flat_map(both).collect())])
            }
            M::Commit { op, root } => Some(vec![message.clone(), M::Commit { op: op.plus(1000), root: *root }]),
            M::Decided(all) => {
                let first = all.first()?;
                let mut lie = async_tob::Decided::nothing(first.heads.len());
                lie.op = first.op.previous();
                Some(vec![M::Decided(vec![lie.next(first.time, lie.heads.clone(), lie.counted.clone())])])
            }
            _ => None,
        }
    }
}
