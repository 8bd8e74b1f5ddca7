//! What a protocol's messages can be turned into. The model of Viewstamped Replication has no liars: there it proves that the
//! adversary is one.

use crate::adversary::Lies;
use crate::random::Random;
use crate::registers;
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::Peer;
use quorate_core::sessions::{Batch, Ruling};
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{self, Pbft};
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
