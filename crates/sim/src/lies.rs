//! What Viewstamped Replication's messages can be turned into. Its model has no liars: this proves that the adversary is one.

use crate::adversary::Lies;
use crate::random::Random;
use crate::registers;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::Peer;
use quorate_core::sessions::{Batch, Ruling};
use quorate_core::wire::Wire;
use quorate_protocols::vr::{DoViewChange, Entry, Header, Message, Reply, Vr};

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
        let mut lie = |bytes: &Bytes| -> Option<Bytes> {
            let told = registers::Reply::decode(bytes).ok()?;
            Some(registers::Reply { found: told.found ^ random.between(1, 7), ..told }.encode().into())
        };
        let Message::Reply(reply) = message else { return None };
        let rulings = reply.rulings.iter().map(|(number, ruling)| match ruling {
            Ruling::Replied(bytes) => Some((*number, Ruling::Replied(lie(bytes)?))),
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
