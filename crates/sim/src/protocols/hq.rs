//! HQ: liars among replicas, who say whatever their own key can sign, and clients that crash between the phases. In total order:
//! PBFT's liars.

use super::pbft::PbftLies;
use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use crate::registers;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer, Position};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::time::Duration;
use quorate_protocols::hq::total::{self, Total};
use quorate_protocols::hq::{self, Hq};
use quorate_protocols::pbft::{self, Pbft, Told};

impl Simulated for Hq {
    /// As PBFT's, which it runs.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush, Fault::ClockJump];
    const REPLICAS: u8 = 4;
    const PER_OBJECT: bool = true;

    const EXPECTED: &'static [&'static str] = &["commits", "entries fetched"];

    fn spared(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn liars(replicas: usize) -> usize {
        ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(HqLies))
    }

    /// As `quorate recover` does it: its new disk says no more than that the old one is lost, and all else is the replica's.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, _: OpNumber, _: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0);
            quorums.map(|_| (Class::Promise, hq::Record::Lost))
        };
        Some(Rejoin { entries: 0, record })
    }

    /// A replica that has lost a promise counts as one of the `f` until it is back: with as many liars beside it there is one too
    /// many. So a list with lies has no damaged disks and no lost one; `--faults` without the lies has them.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        let allowed = excluded.fold(faults.clone(), |faults, fault| faults.without(*fault));
        if !Fault::ALL.iter().any(|fault| fault.is_lie() && allowed.has(*fault)) {
            return allowed;
        }
        let decays = [Fault::BitRot, Fault::Misdirected, Fault::SnapshotRot, Fault::LostDisk];
        decays.into_iter().fold(allowed, |faults, fault| faults.without(fault))
    }

    /// Snapshots and cuts every few steps, and logs whose beginning goes at once.
    fn config(random: &mut Random) -> hq::Config {
        let module = hq::Config::default().module;
        hq::Config {
            module: pbft::Config { checkpoint_entries: 1 + random.below(16), ..module },
            state_steps: 4 + random.below(60),
            log_slack: 8 + random.below(60),
            cut_entries: 2 + random.below(30),
            compare: Duration::from_millis(random.between(50, 1000)),
            ..hq::Config::default()
        }
    }
}

/// The lies of a replica of HQ: whatever its own key can sign.
#[derive(Debug)]
pub struct HqLies;

impl HqLies {
    fn other_digest(digest: Digest) -> Digest {
        Digest::of_parts(&[b"a lie", digest.as_bytes()])
    }
}

impl Lies<Hq> for HqLies {
    /// Another grant of the same place; a START that has executed nothing; grants in another order.
    fn other(&self, message: &hq::Message, keyring: &Keyring, _: &mut Random) -> Option<hq::Message> {
        use hq::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Granted { grant, current } => {
                let words = *grant.statement();
                let grant = keyring.sign(hq::Grant { hash: Self::other_digest(words.hash), ..words });
                Some(M::Granted { grant, current: current.clone() })
            }
            M::Refused { number, grant, current } => {
                let words = *grant.statement();
                let grant = keyring.sign(hq::Grant { hash: Self::other_digest(words.hash), ..words });
                Some(M::Refused { number: *number, grant, current: current.clone() })
            }
            M::Start(start) => {
                let mut words = start.statement().clone();
                (words.current, words.asks) = (None, Vec::new());
                Some(M::Start(Box::new(keyring.sign(words))))
            }
            M::Grants { grants, again } => {
                let lie = |grant: &hq::Grant| hq::Grant { hash: Self::other_digest(grant.hash), ..*grant };
                let grants = grants.iter().map(|grant| keyring.sign(lie(grant.statement()))).collect();
                Some(M::Grants { grants, again: *again })
            }
            M::Object(transferred) => {
                let mut lie = transferred.clone();
                lie.image = None;
                Some(M::Object(lie))
            }
            // Nobody has ever contended.
            M::Cut(cut) => Some(M::Cut(Box::new(hq::Cut { courses: Default::default(), ..*cut.clone() }))),
            M::InOrder { object, number } => {
                Some(M::TooOld { object: *object, number: *number, at: Position::new(u64::MAX) })
            }
            // It was done, and it was not.
            M::OrderedTooOld { number, .. } => Some(M::OrderedDone { number: *number, result: None }),
            M::OrderedDone { number, .. } => Some(M::OrderedTooOld { number: *number, at: OpNumber::new(u64::MAX) }),
            _ => None,
        }
    }

    /// Another state was found.
    fn false_reply(&self, message: &hq::Message, _: &Keyring, random: &mut Random) -> Option<hq::Message> {
        use hq::Message as M;
        match message {
            M::Done { object, number, results, version, proof } => {
                let mut results = results.clone();
                let lie = registers::other_answer(results.last()?, random)?;
                *results.last_mut()? = lie;
                Some(M::Done { object: *object, number: *number, results, version: *version, proof: proof.clone() })
            }
            M::OrderedDone { number, result: Some(Told::Full(result)) } => {
                let result = Some(Told::Full(registers::other_answer(result, random)?));
                Some(M::OrderedDone { number: *number, result })
            }
            M::ReadAnswer { nonce, version, answer: Told::Full(bytes), proof } => {
                let answer = Told::Full(registers::other_answer(bytes, random)?);
                Some(M::ReadAnswer { nonce: *nonce, version: *version, answer, proof: proof.clone() })
            }
            _ => None,
        }
    }

    /// A grant of a place far ahead, or none at all, since PBFT gives the places; sums of nothing; it never saw the write.
    fn own(&self, _: Peer, message: &hq::Message, keyring: &Keyring, _: &mut Random) -> Option<Vec<hq::Message>> {
        use hq::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Granted { grant, current } => {
                let mut words = *grant.statement();
                let in_order = M::InOrder { object: words.object, number: words.number };
                words.version.ts = words.version.ts.plus(7);
                Some(vec![M::Granted { grant: keyring.sign(words), current: current.clone() }, in_order])
            }
            M::Sums { sums, ask } => Some(vec![M::Sums { sums: vec![1; sums.len()], ask: *ask }]),
            M::Start(start) => {
                let (mut nothing, mut causeless) = (start.statement().clone(), start.statement().clone());
                nothing.current = None;
                (causeless.conflict, nothing.calm) = (Vec::new(), u64::MAX);
                let lies = [nothing, causeless].map(|words| M::Start(Box::new(keyring.sign(words))));
                Some([message.clone()].into_iter().chain(lies).collect())
            }
            _ => None,
        }
    }
}

impl Simulated for Total {
    const EXCLUDED: &'static [Fault] = Pbft::EXCLUDED;
    const REPLICAS: u8 = Pbft::REPLICAS;
    const EXPECTED: &'static [&'static str] = Pbft::EXPECTED;

    fn spared(replicas: usize) -> usize {
        Pbft::spared(replicas)
    }

    fn liars(replicas: usize) -> usize {
        Pbft::liars(replicas)
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(TotalLies::default()))
    }

    /// As PBFT's: nobody has promised anything but votes.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, first: OpNumber, others: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, total::rejoin(first)))
        };
        Some(Rejoin { entries: pbft::WINDOW_ENTRIES_MAX + pbft::CHECKPOINT_ENTRIES_MAX, record })
    }

    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        Pbft::allowed(faults, replicas)
    }

    fn config(random: &mut Random) -> pbft::Config {
        Pbft::config(random)
    }
}

/// The lies of a replica in total order: PBFT's; and words about objects, where there are none.
#[derive(Debug, Default)]
pub struct TotalLies {
    module: PbftLies,
}

impl Lies<Total> for TotalLies {
    fn other(&self, message: &hq::Message, keyring: &Keyring, random: &mut Random) -> Option<hq::Message> {
        let hq::Message::Module(message) = message else { return None };
        self.module.other(message, keyring, random).map(hq::Message::Module)
    }

    fn false_reply(&self, message: &hq::Message, keyring: &Keyring, random: &mut Random) -> Option<hq::Message> {
        let hq::Message::Module(message) = message else { return None };
        self.module.false_reply(message, keyring, random).map(hq::Message::Module)
    }

    fn own(&self, to: Peer, message: &hq::Message, keyring: &Keyring, random: &mut Random) -> Option<Vec<hq::Message>> {
        let hq::Message::Module(message) = message else { return None };
        let lies = self.module.own(to, message, keyring, random)?;
        let astray = hq::Message::GetObject { object: Digest::ZERO };
        Some(lies.into_iter().map(hq::Message::Module).chain([astray]).collect())
    }
}
