//! What is cast and what is ordered: encoded once, named by the digest of the encoding.

use super::message::quorums;
use super::message::{BLOCK_BYTES_MAX, BUNDLE_BYTES_MAX, Cast, Chain, ENTRIES_MAX, Proposal, REQUESTS_MAX};
use super::schedule::EpochNumber;
use crate::pbft::{Group, check_group, prove_group};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring, Signed, Statement};
use quorate_core::fault::Fault;
use quorate_core::quorum::REPLICAS_MAX;
use quorate_core::wire::Wire;
use std::io;
use std::sync::Arc;

/// What is cast, its encoding and its digest: they cannot disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents<T> {
    bytes: Bytes,
    digest: Digest,
    content: Arc<T>,
}

impl<T: Wire> Contents<T> {
    /// Encodes the content.
    pub fn new(content: T) -> Self {
        let bytes = Bytes::from(content.encode());
        Self { digest: Digest::of_parts(&[b"sync-tob", &bytes]), bytes, content: Arc::new(content) }
    }

    /// The digest of the encoding.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What was encoded.
    pub fn content(&self) -> &T {
        &self.content
    }

    /// Bytes of the encoding.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: every content has an encoding.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl<T> BorshSerialize for Contents<T> {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.bytes.serialize(writer)
    }
}

impl<T: Wire> BorshDeserialize for Contents<T> {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bytes = Bytes::deserialize_reader(reader)?;
        let content = T::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))?;
        Ok(Self { digest: Digest::of_parts(&[b"sync-tob", &bytes]), bytes, content: Arc::new(content) })
    }
}

/// What one replica casts at once: groups of clients' requests.
pub type Bundle = Contents<Vec<Group>>;

impl Bundle {
    pub(super) fn check(&self) -> Option<&'static str> {
        let requests = self.content().iter().map(|group| group.statement().requests.len());
        if self.len() > BUNDLE_BYTES_MAX || requests.fold(0, usize::saturating_add) > REQUESTS_MAX {
            return Some("more than one bundle takes");
        }
        self.content().iter().find_map(check_group)
    }

    /// Checks the clients' signatures.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        Arc::make_mut(&mut self.content).iter_mut().try_for_each(|group| prove_group(group, keyring))
    }
}

/// What an epoch moves from `UnQueued` to `Queued`.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Moves {
    /// The epoch.
    pub epoch: EpochNumber,
    /// Does the machine get the tick that it asked for?
    pub tick: bool,
    /// What was cast, each with the signatures of f + 1 replicas, in the order in which it is moved.
    pub entries: Vec<Chain<Cast>>,
    /// Leaders that have lied: two proposals each for one epoch.
    pub demote: Vec<(Signed<Proposal>, Signed<Proposal>)>,
}

/// A block and its digest.
pub type Block = Contents<Moves>;

impl Block {
    pub(super) fn check(&self) -> Option<&'static str> {
        let it = self.content();
        let bytes = it.entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.statement().bytes));
        if it.entries.len() > ENTRIES_MAX || (it.entries.len() > 1 && bytes > BLOCK_BYTES_MAX) {
            return Some("more than one block takes");
        }
        let lies = it.demote.iter().all(|(one, other)| {
            one.by() == other.by()
                && one.statement() != other.statement()
                && one.statement().slot() == other.statement().slot()
        });
        (!lies || it.demote.len() > REPLICAS_MAX).then_some("it convicts without proof")
    }

    /// Checks that f + 1 have signed each entry, and the proofs against leaders.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let needed = quorums(keyring)?.vouch();
        let it = Arc::make_mut(&mut self.content);
        if it.entries.iter().any(|entry| entry.signers() < needed || entry.statement().id.sender != entry.head.by()) {
            return Err(Fault::Malformed("a block that orders what too few have".to_owned()));
        }
        it.entries.iter_mut().try_for_each(|entry| entry.prove(keyring))?;
        it.demote.iter_mut().try_for_each(|(one, other)| one.prove(keyring).and_then(|()| other.prove(keyring)))
    }
}
