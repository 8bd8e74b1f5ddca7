//! HotStuff: as many liars as its model has, and what they say.

use super::pbft::PbftLies;
use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::ByzantineQuorums;
use quorate_protocols::hotstuff::{self, HotStuff, Rules};
use quorate_protocols::pbft;

impl Simulated for HotStuff {
    /// Who votes refuses what lies more than `clock_ahead` before it: correct calendars and clocks must agree better than that.
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
        Some(Box::new(HotStuffLies))
    }

    /// As `quorate recover` does it: the others commit something without it, and its new disk says no more than that the old one is
    /// lost.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, _: OpNumber, others: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, hotstuff::rejoin()))
        };
        Some(Rejoin { entries: 0, record })
    }

    /// A replica that has lost a promise counts as one of the `f`: with as many liars beside it there is one too many. So a
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

    /// Both sets of rules, terms of one view and of many, snapshots every few blocks.
    fn config(random: &mut Random) -> hotstuff::Config {
        hotstuff::Config {
            rules: if random.chance(500_000) { Rules::ThreeChain } else { Rules::TwoChain },
            leader_views: if random.chance(400_000) { 1 } else { 1 << random.below(8) },
            state_blocks: 8 + random.below(56),
            state_bytes: 1 << 20,
            block_bytes: 4 << 10,
            run_ahead: if random.chance(500_000) { 0 } else { 3 },
            ..hotstuff::Config::default()
        }
    }
}

/// The lies of a replica of HotStuff: whatever its own key can sign.
#[derive(Debug)]
pub struct HotStuffLies;

fn other_digest(digest: Digest) -> Digest {
    Digest::of_parts(&[b"a lie", digest.as_bytes()])
}

impl Lies<HotStuff> for HotStuffLies {
    /// Another block in the same view; another vote; a timeout that forgets; another state.
    fn other(&self, message: &hotstuff::Message, keyring: &Keyring, _: &mut Random) -> Option<hotstuff::Message> {
        use hotstuff::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Proposal(proposal) => {
                let mut orders = proposal.payload.orders().clone();
                orders.groups.pop();
                orders.tick = !orders.tick;
                let payload = hotstuff::Payload::with(orders, proposal.payload.made().cloned());
                let words = hotstuff::Header { payload: payload.digest(), ..*proposal.header.statement() };
                let header = keyring.sign(words);
                Some(M::Proposal(Box::new(hotstuff::Proposal { header, payload, ..(**proposal).clone() })))
            }
            M::Vote(vote) => {
                let words = *vote.statement();
                Some(M::Vote(keyring.sign(hotstuff::Vote { block: other_digest(words.block), ..words })))
            }
            M::Timeout { timeout, .. } => {
                let view = timeout.statement().view;
                let words = hotstuff::Timeout { view, high: quorate_core::ids::View::ZERO };
                Some(M::Timeout { timeout: keyring.sign(words), justify: hotstuff::Justify::Genesis })
            }
            M::State(vote) => {
                let mut words = *vote.statement();
                words.checkpoint.id = other_digest(words.checkpoint.id);
                Some(M::State(keyring.sign(words)))
            }
            _ => None,
        }
    }

    /// Another state was found.
    fn false_reply(
        &self,
        message: &hotstuff::Message,
        keyring: &Keyring,
        random: &mut Random,
    ) -> Option<hotstuff::Message> {
        let hotstuff::Message::Client(inner) = message else { return None };
        Lies::<pbft::Pbft>::false_reply(&PbftLies::default(), inner, keyring, random).map(hotstuff::Message::Client)
    }

    /// A place far ahead; a timeout instead of a vote; a new view that has led nowhere; a bound below everything.
    fn own(
        &self,
        _: Peer,
        message: &hotstuff::Message,
        keyring: &Keyring,
        _: &mut Random,
    ) -> Option<Vec<hotstuff::Message>> {
        use hotstuff::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::Vote(vote) => {
                let words = hotstuff::Timeout { view: vote.statement().view, high: quorate_core::ids::View::ZERO };
                let timeout = M::Timeout { timeout: keyring.sign(words), justify: hotstuff::Justify::Genesis };
                Some(vec![message.clone(), timeout])
            }
            M::Status(place) => {
                Some(vec![M::Status(hotstuff::Place { committed: place.committed.plus(1000), ..*place })])
            }
            M::NewView { .. } => Some(vec![M::NewView { justify: hotstuff::Justify::Genesis, tc: None }]),
            M::Bound { nonce, .. } => {
                Some(vec![M::Bound { nonce: *nonce, justify: hotstuff::Justify::Genesis, tc: None }])
            }
            // An old certificate under a new block: it forks what others have built on.
            M::Proposal(proposal) => {
                let hotstuff::TimeoutCertificate { .. } = proposal.tc.as_ref()?;
                let orders = proposal.payload.orders().clone();
                let payload = hotstuff::Payload::new(orders);
                let words = hotstuff::Header {
                    parent: hotstuff::genesis(),
                    parent_view: quorate_core::ids::View::ZERO,
                    height: quorate_core::ids::OpNumber::ZERO.next(),
                    payload: payload.digest(),
                    ..*proposal.header.statement()
                };
                let (header, justify) = (keyring.sign(words), hotstuff::Justify::Genesis);
                Some(vec![M::Proposal(Box::new(hotstuff::Proposal {
                    header,
                    justify,
                    payload,
                    tc: proposal.tc.clone(),
                }))])
            }
            _ => None,
        }
    }
}
