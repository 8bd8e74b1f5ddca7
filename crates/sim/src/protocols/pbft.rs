//! PBFT: as many liars as its model has, and what they say.

use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use crate::registers;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::{Body, Ruling};
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Pbft};
use std::cell::RefCell;
use std::collections::BTreeMap;

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
        Some(Box::new(PbftLies::default()))
    }

    /// As `quorate recover` does it: the others commit until the log is stable beyond what the former self can have voted for.
    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, first: OpNumber, others: &[Status]| {
            let quorums = ByzantineQuorums::new(replicas).filter(|quorums| quorums.faults() > 0)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, pbft::rejoin(first)))
        };
        Some(Rejoin { entries: pbft::WINDOW_ENTRIES_MAX + pbft::CHECKPOINT_ENTRIES_MAX, record })
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

    /// Snapshots every few entries.
    fn config(random: &mut Random) -> pbft::Config {
        pbft::Config {
            checkpoint_entries: 2 + random.below(14),
            state_entries: 8 + random.below(56),
            state_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            in_flight_entries: 1 + random.below(8),
            tentative_requests: if random.chance(400_000) { 1 << random.below(5) } else { 0 },
            ..pbft::Config::default()
        }
    }
}

/// Proposals that liars remember to have proposed two versions of, at most.
const FORKS_MAX: usize = 256;

/// The lies of a replica of PBFT: whatever its own key can sign. All liars of a run share what they have said: they vote for
/// what another one of them has proposed.
#[derive(Debug, Default)]
pub struct PbftLies {
    /// What some were given in the place of a proposal.
    forks: RefCell<BTreeMap<Digest, Digest>>,
}

impl PbftLies {
    /// What the victims were given in the place of this, if they were given something.
    fn other_digest(&self, digest: Digest) -> Digest {
        let fork = self.forks.borrow().get(&digest).copied();
        fork.unwrap_or_else(|| Digest::of_parts(&[b"a lie", digest.as_bytes()]))
    }

    fn fork(&self, from: Digest, to: Digest) {
        let mut forks = self.forks.borrow_mut();
        forks.insert(from, to);
        if forks.len() > FORKS_MAX {
            forks.pop_first();
        }
    }

    /// The same request with another operation, under the client's signature of the first one.
    pub(super) fn forged(group: &pbft::Group) -> Option<pbft::Group> {
        let mut words = group.statement().clone();
        let (_, body) = words.requests.iter_mut().find(|(_, body)| matches!(body, Body::Apply(_)))?;
        *body = Body::Apply(registers::Operation::Put { key: 0, value: u64::MAX }.encode().into());
        Some(pbft::Group::claimed(group.by(), words, *group.signature()))
    }
}

impl Lies<Pbft> for PbftLies {
    /// Another proposal or vote in the same slot; a view change that forgets; a new view that leaves something out.
    fn other(&self, message: &pbft::Message, keyring: &Keyring, _: &mut Random) -> Option<pbft::Message> {
        use pbft::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        match message {
            M::PrePrepare { vote, proposal } => {
                let content = proposal.content();
                let pbft::Content::Orders(orders) = &*content else { return None };
                let mut orders = orders.clone();
                orders.groups.pop();
                let honest = vote.statement().digest;
                let proposal = pbft::Proposal::new(pbft::Content::Orders(orders));
                self.fork(honest, proposal.digest());
                let words = pbft::Prepare { digest: proposal.digest(), ..*vote.statement() };
                Some(M::PrePrepare { vote: keyring.sign(words), proposal })
            }
            M::Prepare(vote) => {
                let words = *vote.statement();
                Some(M::Prepare(keyring.sign(pbft::Prepare { digest: self.other_digest(words.digest), ..words })))
            }
            M::Commit(vote) => {
                let words = *vote.statement();
                Some(M::Commit(keyring.sign(pbft::Commit { digest: self.other_digest(words.digest), ..words })))
            }
            M::Checkpoint(vote) => {
                let words = *vote.statement();
                let chain = self.other_digest(words.chain);
                Some(M::Checkpoint(keyring.sign(pbft::LogCheckpoint { chain, ..words })))
            }
            M::State(vote) => {
                let mut words = *vote.statement();
                words.checkpoint.id = self.other_digest(words.checkpoint.id);
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
            M::Reply(reply) | M::Tentative(reply) => {
                let lie = |told: &Told<Ruling>, random: &mut Random| match told {
                    Told::Full(Ruling::Replied(bytes)) => {
                        Some(Told::Full(Ruling::Replied(registers::other_answer(bytes, random)?)))
                    }
                    Told::Full(other) => Some(Told::Full(other.clone())),
                    Told::Digest(digest) => Some(Told::Digest(self.other_digest(*digest))),
                };
                let rulings = reply.rulings.iter().map(|(number, told)| Some((*number, lie(told, random)?)));
                let lie = pbft::Reply { rulings: rulings.collect::<Option<_>>()?, ..reply.clone() };
                Some(if matches!(message, M::Tentative(_)) { M::Tentative(lie) } else { M::Reply(lie) })
            }
            M::ReadReply { view, id, op, answer: Told::Full(bytes) } => {
                let answer = Told::Full(registers::other_answer(bytes, random)?);
                Some(M::ReadReply { view: *view, id: *id, op: *op, answer })
            }
            _ => None,
        }
    }

    /// A view change that has prepared nothing; a place far ahead; the wish for another view instead of a vote; a proposal
    /// that changes when it is sent again; a request that its client has not signed; a new view in which nothing was prepared.
    fn own(
        &self,
        _: Peer,
        message: &pbft::Message,
        keyring: &Keyring,
        random: &mut Random,
    ) -> Option<Vec<pbft::Message>> {
        use pbft::Message as M;
        keyring.replica()?; // without a key there is nothing to sign
        let forgetful = |view| {
            let words = pbft::ViewChange { view, stable: None, prepared: Vec::new() };
            M::ViewChange(Box::new(keyring.sign(words)))
        };
        match message {
            M::PrePrepare { vote, proposal } => {
                let content = proposal.content();
                let pbft::Content::Orders(orders) = &*content else { return None };
                let mut orders = orders.clone();
                if random.chance(500_000) {
                    orders.groups.clear(); // to whom it comes again, it is another one
                } else {
                    let group = orders.groups.iter_mut().find_map(|group| Some((Self::forged(group)?, group)));
                    let (forged, group) = group?;
                    *group = forged;
                }
                let proposal = pbft::Proposal::new(pbft::Content::Orders(orders));
                let words = pbft::Prepare { digest: proposal.digest(), ..*vote.statement() };
                Some(vec![M::PrePrepare { vote: keyring.sign(words), proposal }])
            }
            M::NewView(start) => {
                let mut words = start.statement().clone();
                for vote in &mut words.proposals {
                    let digest = pbft::Proposal::null(vote.statement().op).digest();
                    *vote = keyring.sign(pbft::Prepare { digest, ..*vote.statement() });
                }
                Some(vec![M::NewView(Box::new(keyring.sign(words)))])
            }
            M::ViewChange(change) => Some(vec![forgetful(change.statement().view)]),
            M::Commit(vote) => Some(vec![message.clone(), forgetful(vote.statement().view.next())]),
            M::Status(place) => Some(vec![M::Status(pbft::Place { committed: place.committed.plus(1000), ..*place })]),
            _ => None,
        }
    }
}
