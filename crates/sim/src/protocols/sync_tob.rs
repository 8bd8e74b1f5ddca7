//! Synchronous total-order broadcast. With an even number of replicas two quorums have a correct one in common despite one
//! liar: then every fault of the network strikes, too, and safety holds without any bound on time. With an odd number
//! liars need the bounds: then messages and processes are on time.

use super::pbft::PbftLies;
use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::faults::{Fault, Faults};
use crate::random::Random;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::{Duration, WallTime};
use quorate_protocols::pbft;
use quorate_protocols::sync_tob::{self, Block, Bundle, Chain, Message, Moves, SyncTob};
use std::cell::RefCell;
use std::collections::BTreeMap;

/// What makes messages or processes late, or clocks differ by more than the bound.
const UNTIMELY: &[Fault] = &[
    Fault::Delay,
    Fault::Loss,
    Fault::Reorder,
    Fault::Jitter,
    Fault::SlowLink,
    Fault::Partition,
    Fault::OneWay,
    Fault::Partial,
    Fault::Crash,
    Fault::CrashAll,
    Fault::PersistCrash,
    Fault::Pause,
    Fault::SlowSync,
    Fault::SyncError,
    Fault::FullDisk,
    Fault::LostDisk,
    Fault::BitRot,
    Fault::SnapshotRot,
    Fault::Misdirected,
    Fault::ClockSkew,
    Fault::ClockJump,
];

impl Simulated for SyncTob {
    /// Clocks that run apart faster than anybody allows for are never in step.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush];
    const REPLICAS: u8 = 4;

    const EXPECTED: &'static [&'static str] =
        &["checkpoints", "commits", "entries fetched", "state transfers", "suspicions", "view changes", "view starts"];

    fn spared(replicas: usize) -> usize {
        SyncQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn liars(replicas: usize) -> usize {
        SyncQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(SyncTobLies::default()))
    }

    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, _: OpNumber, others: &[Status]| {
            let quorums = SyncQuorums::new(replicas)?;
            (others.len() >= quorums.quorum()).then(|| (Class::Promise, sync_tob::rejoin()))
        };
        Some(Rejoin { entries: 1, record })
    }

    /// As many liars as quorums bear strike in any weather; more, and replicas that have lost promises beside them, need the
    /// bounds on time.
    fn allowed(faults: &Faults, replicas: usize) -> Faults {
        let excluded = Fault::ALL.iter().filter(|fault| Self::excludes(**fault, replicas));
        let allowed = excluded.fold(faults.clone(), |faults, fault| faults.without(*fault));
        if !Fault::ALL.iter().any(|fault| fault.is_lie() && allowed.has(*fault)) {
            return allowed;
        }
        let any_weather = SyncQuorums::new(replicas).is_some_and(|it| it.faults() <= it.faults_without_bounds());
        let without: &[Fault] =
            if any_weather { &[Fault::BitRot, Fault::Misdirected, Fault::LostDisk] } else { UNTIMELY };
        without.iter().fold(allowed, |faults, fault| faults.without(*fault))
    }

    /// Short rounds, and snapshots every few blocks.
    fn config(random: &mut Random) -> sync_tob::Config {
        sync_tob::Config {
            delta: Duration::from_millis(10 + random.below(20)),
            epsilon: Duration::from_millis(4),
            epoch: Duration::from_millis(2 + random.below(18)),
            broadcast: if random.below(4) == 0 { sync_tob::Broadcast::DolevStrong } else { sync_tob::Broadcast::Flood },
            state_blocks: 8 + random.below(56),
            state_bytes: 1 << 20,
            cast_pause: Duration::from_millis(random.below(10)),
            ..sync_tob::Config::default()
        }
    }
}

/// The lies of a replica: whatever its own key can sign. It remembers what it has told whom, so that its votes for a block
/// go with the block that it has shown.
#[derive(Debug, Default)]
pub struct SyncTobLies {
    /// What it tells the others in the place of a block, or of a chain of blocks.
    instead: RefCell<BTreeMap<Digest, Digest>>,
}

impl SyncTobLies {
    fn other_digest(digest: Digest) -> Digest {
        Digest::of_parts(&[b"a lie", digest.as_bytes()])
    }

    fn instead(&self, digest: Digest) -> Digest {
        self.instead.borrow().get(&digest).copied().unwrap_or_else(|| Self::other_digest(digest))
    }
}

impl Lies<SyncTob> for SyncTobLies {
    /// Another block for the same epoch, another bundle under the same name, another vote; a view change that forgets.
    fn other(&self, message: &Message, keyring: &Keyring, _: &mut Random) -> Option<Message> {
        let me = keyring.replica()?; // without a key there is nothing to sign
        match message {
            Message::Propose { chain, block } if chain.head.by() == me => {
                let moves = block.content();
                let entries = moves.entries.iter().rev().skip(1).cloned().collect();
                let block = Block::new(Moves { entries, tick: !moves.tick, ..moves.clone() });
                let words = sync_tob::Proposal { block: block.digest(), ..*chain.statement() };
                self.instead.borrow_mut().insert(chain.statement().block, block.digest());
                Some(Message::Propose { chain: Chain::new(keyring.sign(words)), block })
            }
            Message::Cast { chain, bundle } if chain.head.by() == me => {
                let mut groups = bundle.content().clone();
                groups.pop();
                let bundle = Bundle::new(groups);
                let bytes = bundle.len() as u64;
                let words = sync_tob::Cast { bundle: bundle.digest(), bytes, ..*chain.statement() };
                Some(Message::Cast { chain: Chain::new(keyring.sign(words)), bundle })
            }
            Message::Vote(vote) => {
                let words = *vote.statement();
                let other = sync_tob::Vote { block: self.instead(words.block), ..words };
                self.instead.borrow_mut().insert(words.chain(), other.chain());
                Some(Message::Vote(keyring.sign(other)))
            }
            Message::Commit(vote) => {
                let words = *vote.statement();
                Some(Message::Commit(keyring.sign(sync_tob::Commit { chain: self.instead(words.chain), ..words })))
            }
            Message::State(vote) => {
                let mut words = vote.statement().clone();
                words.checkpoint.id = Self::other_digest(words.checkpoint.id);
                Some(Message::State(Box::new(keyring.sign(words))))
            }
            Message::ViewChange(change) => {
                let words = sync_tob::ViewChange { certified: None, links: Vec::new(), ..change.statement().clone() };
                Some(Message::ViewChange(Box::new(keyring.sign(words))))
            }
            Message::NewView(start) => {
                let words = sync_tob::NewView { first: start.statement().first.plus(3), ..start.statement().clone() };
                Some(Message::NewView(Box::new(keyring.sign(words))))
            }
            _ => None,
        }
    }

    /// Another state was found.
    fn false_reply(&self, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Message> {
        let Message::Client(inner) = message else { return None };
        Lies::<pbft::Pbft>::false_reply(&PbftLies::default(), inner, keyring, random).map(Message::Client)
    }

    /// A clock that is wrong, each time otherwise; an empty block; a view change beside a vote; a place far ahead.
    fn own(&self, _: Peer, message: &Message, keyring: &Keyring, random: &mut Random) -> Option<Vec<Message>> {
        let me = keyring.replica()?; // without a key there is nothing to sign
        match message {
            Message::Time { sent, clock } => {
                let off = random.between(0, 40_000_000).wrapping_sub(20_000_000);
                let clock = WallTime::from_nanos(clock.as_nanos().wrapping_add(off));
                Some(vec![Message::Time { sent: *sent, clock }])
            }
            Message::Propose { chain, block } if chain.head.by() == me => {
                let block = Block::new(Moves { entries: Vec::new(), ..block.content().clone() });
                let words = sync_tob::Proposal { block: block.digest(), ..*chain.statement() };
                Some(vec![Message::Propose { chain: Chain::new(keyring.sign(words)), block }])
            }
            Message::Commit(vote) => {
                let view = vote.statement().view.next();
                let words = sync_tob::ViewChange { view, committed: None, certified: None, links: Vec::new() };
                Some(vec![message.clone(), Message::ViewChange(Box::new(keyring.sign(words)))])
            }
            Message::Status { place, asks } => {
                let place = sync_tob::Place { committed: place.committed.plus(1000), ..*place };
                Some(vec![Message::Status { place, asks: *asks }])
            }
            _ => None,
        }
    }
}
