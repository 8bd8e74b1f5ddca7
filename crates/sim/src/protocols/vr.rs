//! Viewstamped Replication. Its model has no liars: its lies are there to prove that the adversary is one.

use super::{Rejoin, Simulated};
use crate::adversary::Lies;
use crate::checker::Property;
use crate::faults::Fault;
use crate::random::Random;
use crate::registers;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, Peer};
use quorate_core::outbox::Class;
use quorate_core::protocol::Status;
use quorate_core::quorum::CrashQuorums;
use quorate_core::sessions::{Batch, Ruling};
use quorate_core::time::Duration;
use quorate_core::wire::Wire;
use quorate_protocols::vr::{self, DoViewChange, Entry, Header, Message, Reads, Reply, ViewChangePolicy, Vr};

impl Simulated for Vr {
    /// Leases suppose that clocks do not run apart by more than `drift_percent`.
    const EXCLUDED: &'static [Fault] = &[Fault::ClockRush];

    const VIEWS_INHERIT: bool = true;

    const EXPECTED: &'static [&'static str] = &[
        "checkpoints",
        "commits",
        "entries fetched",
        "forfeits the view: its log or state is too far behind",
        "repairs",
        "state transfers",
        "suspicions",
        "unknown log heads",
        "view changes",
        "view starts",
    ];

    fn spared(replicas: usize) -> usize {
        CrashQuorums::new(replicas).map_or(0, |quorums| quorums.faults())
    }

    /// With clocks that run apart, leases may answer with what is past; the log is as safe as ever (vr.md §2.8).
    fn promised_beyond(excluded: Fault) -> &'static [&'static str] {
        match excluded {
            Fault::ClockRush => &[
                Property::AGREEMENT,
                Property::DIGESTS,
                Property::SAFETY,
                Property::SNAPSHOTS,
                Property::WATCHES,
                Property::EXACTLY_ONCE,
                Property::DURABILITY,
                Property::INVARIANT,
                Property::STORE,
                Property::NO_PANIC,
            ],
            _ => &[],
        }
    }

    fn lies() -> Option<Box<dyn Lies<Self>>> {
        Some(Box::new(VrLies))
    }

    fn rejoin() -> Option<Rejoin<Self>> {
        let record = |replicas: usize, _: OpNumber, others: &[Status]| {
            let quorums = CrashQuorums::new(replicas)?;
            let view = others.iter().map(|status| status.view).max()?;
            (others.len() >= quorums.view_change()).then(|| (Class::Promise, vr::rejoin(view)))
        };
        Some(Rejoin { entries: vr::WINDOW_ENTRIES, record })
    }

    /// Checkpoints every few entries; either kind of read, leases only as far as clocks allow; mostly the quorum policy.
    fn config(random: &mut Random) -> vr::Config {
        vr::Config {
            checkpoint_entries: 4 + random.below(28),
            checkpoint_bytes: 1 << 20,
            batch_bytes: 4 << 10,
            abdicate: Duration::from_millis(800),
            reads: if random.below(3) == 0 { Reads::Lease } else { Reads::Index },
            policy: if random.below(5) == 0 { ViewChangePolicy::Direct } else { ViewChangePolicy::Quorum },
            ..vr::Config::default()
        }
    }
}

/// The lies of a replica of Viewstamped Replication.
#[derive(Debug)]
pub struct VrLies;

impl Lies<Vr> for VrLies {
    /// Another entry under the same number.
    fn other(&self, message: &Message, _: &Keyring, _: &mut Random) -> Option<Message> {
        let Message::Prepare { view, entry, committed } = message else { return None };
        let mut batch = Batch::decode(&entry.batch).ok()?;
        batch.requests.pop();
        let batch = Bytes::from(batch.encode());
        let bytes = u32::try_from(batch.len()).ok()?;
        let header = Header { batch: Digest::of(&batch), bytes, ..entry.header };
        Some(Message::Prepare { view: *view, entry: Entry { header, batch }, committed: *committed })
    }

    /// Another state was found.
    fn false_reply(&self, message: &Message, _: &Keyring, random: &mut Random) -> Option<Message> {
        let Message::Reply(reply) = message else { return None };
        let rulings = reply.rulings.iter().map(|(number, ruling)| match ruling {
            Ruling::Replied(bytes) => Some((*number, Ruling::Replied(registers::other_answer(bytes, random)?))),
            other => Some((*number, other.clone())),
        });
        Some(Message::Reply(Reply { rulings: rulings.collect::<Option<_>>()?, ..reply.clone() }))
    }

    /// A log that is newer than all others and holds nothing; a commit number that nobody has reached.
    fn own(&self, _: Peer, message: &Message, _: &Keyring, _: &mut Random) -> Option<Vec<Message>> {
        match message {
            Message::DoViewChange(change) => {
                let empty = DoViewChange { log_view: change.view.previous(), vouches: Vec::new(), ..change.clone() };
                Some(vec![Message::DoViewChange(empty)])
            }
            Message::Commit { view, op, checkpoint, stable, round, sent, .. } => Some(vec![Message::Commit {
                view: *view,
                committed: *op,
                op: *op,
                checkpoint: *checkpoint,
                stable: *stable,
                round: *round,
                sent: *sent,
            }]),
            _ => None,
        }
    }
}
