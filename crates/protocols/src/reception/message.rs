//! What replicas and clients say to each other, and what is signed.

use super::compare;
use super::criticality::{self, Levels};
use crate::pbft::{self, Group, Pbft, check_group, prove_group};
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{Digest, Keyring, Signed, Statement, Verified};
use quorate_core::fault::Fault;
use quorate_core::mutated;
use quorate_core::protocol::Protocol;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::OPERATION_BYTES_MAX;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;

/// Bytes of a publication: with its certificate it must fit into one operation of PBFT.
pub const PUBLICATION_BYTES_MAX: usize = OPERATION_BYTES_MAX - 8 * 1024;

/// ⟨d, rts⟩: the signer has the publication with this digest on its disk, received it at this time, and keeps it until it is
/// ordered. Published again after that, it is received again, at another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reception {
    /// The publication (d).
    pub digest: Digest,
    /// The signer's clock when it first had it (rts): greater at each of its receptions.
    pub time: WallTime,
}

impl Statement for Reception {
    const DOMAIN: &'static str = "reception/1 reception";
}

/// A publication and who has received it: what PBFT orders.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Certified {
    /// What a client has published.
    pub group: Group,
    /// A quorum of its committee's receptions, and as many others' as are needed for one correct replica of the group; in the
    /// order of their signers.
    pub receptions: Vec<Signed<Reception>>,
}

/// The digest of a publication: of what is signed, not of the signature.
pub fn digest(group: &Group) -> Digest {
    Digest::of_parts(&[b"reception publication", &group.statement().encode()])
}

impl Certified {
    /// The certificate that these receptions make, if they are enough: of the committee, or, if some of it are silent, of a quorum
    /// of the whole group.
    pub(super) fn assemble<'a>(
        group: &Group,
        receptions: impl Iterator<Item = &'a Verified<Reception>>,
        levels: &Levels,
    ) -> Option<Self> {
        let (all, committee) = (levels.group(), levels.assembled_at(group));
        let members = levels.committee(digest(group), &committee);
        let (inside, outside): (Vec<_>, Vec<_>) = receptions.partition(|it| members.contains(&it.by()));
        let more = all.vouch().saturating_sub(committee.quorum());
        let missing = usize::from(mutated!("reception/certified-by-one-too-few"));
        let needed = committee.quorum().saturating_sub(missing);
        let of_committee = inside.len() >= needed && outside.len() >= more;
        let is_of_group = inside.len().saturating_add(outside.len()) >= all.quorum();
        if !of_committee && (!is_of_group || mutated!("reception/the-committee-or-nobody")) {
            return None;
        }
        let (of_inside, of_outside) = match of_committee {
            true => (needed, more),
            false => (inside.len(), all.quorum().saturating_sub(inside.len())),
        };
        let chosen = inside.into_iter().take(of_inside).chain(outside.into_iter().take(of_outside));
        let mut receptions: Vec<_> = chosen.map(|it| it.signed().clone()).collect();
        receptions.sort_by_key(Signed::by);
        Some(Self { group: group.clone(), receptions })
    }

    /// Checks its form: who has received what. Signatures are looked at elsewhere. The same at every replica.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check(&self, digest: Digest, levels: &Levels) -> Result<(), Fault> {
        let refused = |what: &str| Err(Fault::Malformed(format!("a certificate of reception {what}")));
        let (group, committee) = (levels.group(), levels.of(&self.group));
        let members = levels.committee(digest, &committee);
        if !self.receptions.is_sorted_by(|one, next| one.by() < next.by()) {
            return refused("names a replica twice, or not in order");
        }
        if self.receptions.iter().any(|it| it.statement().digest != digest) {
            return refused("is of another publication");
        }
        let inside = self.receptions.iter().filter(|it| members.contains(&it.by())).count();
        let all = committee.quorum().max(group.vouch());
        let of_committee = inside == committee.quorum() && self.receptions.len() == all;
        if !of_committee && !self.is_of_group(group) {
            return refused("has too few receptions, or too many");
        }
        Ok(())
    }

    /// Is it one in its form? Its signatures are another matter.
    pub fn holds(&self, levels: &Levels) -> bool {
        self.check(digest(&self.group), levels).is_ok()
    }

    /// Checks what its client has signed.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn prove_group(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        prove_publication(&mut self.group, keyring)
    }

    /// Checks all signatures in it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        self.prove_group(keyring)?;
        self.receptions.iter_mut().try_for_each(|vote| vote.prove(keyring))
    }

    /// Has a quorum of the whole group received it? Then at most f of those lie, whatever the level of criticality: so many are
    /// never enough for a committee's certificate, unless the committee is the group.
    fn is_of_group(&self, group: &ByzantineQuorums) -> bool {
        self.receptions.len() == group.quorum() && self.receptions.iter().all(|it| group.contains(it.by()))
    }

    /// Liars that its time bears: f if a quorum of the group has received it, or a committee of the highest level; else those of
    /// its committee's level (e).
    pub fn level(&self, levels: &Levels) -> usize {
        let of_group = self.is_of_group(levels.group());
        if of_group { levels.group().faults() } else { levels.of(&self.group).faults() }
    }

    /// The certified time (cts): the median of the committee's reception times, of `2e + 1` of which at most e lie, or that of a
    /// quorum of the group, of which at most f do. So it is between the times of two correct ones, whatever clocks the liars have.
    pub fn time(&self, levels: &Levels) -> WallTime {
        let of_group = self.is_of_group(levels.group());
        let committee = levels.of(&self.group);
        let members = levels.committee(digest(&self.group), &committee);
        let counted = self.receptions.iter().filter(|it| of_group || members.contains(&it.by()));
        let mut times: Vec<WallTime> = counted.map(|it| it.statement().time).collect();
        times.sort_unstable();
        times.get(self.level(levels)).copied().unwrap_or_default()
    }
}

/// A publication that waits to be ordered, and whose receptions of it are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Item {
    /// The publication.
    pub digest: Digest,
    /// The replicas, one bit for each: the lowest is R0's.
    pub received_by: u16,
}

/// What waits at a replica of a range of digests.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Part {
    /// The first digest of the range.
    pub from: Digest,
    /// The first one behind it; `None` if there is none.
    pub until: Option<Digest>,
    /// What waits.
    pub held: Held,
}

/// How it is told.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Held {
    /// By the digest of all of it.
    Digest(Digest),
    /// One by one, in order: tell me in the same way, if I lack something.
    Each(Vec<Item>),
    /// The same, as the answer.
    Answer(Vec<Item>),
}

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client → replica, by any way: a publication. It proves itself.
    Publish(Group),
    /// Replica → all: received and kept. No payload.
    Reception {
        /// The statement.
        vote: Signed<Reception>,
        /// It was said before, and is still not ordered there: who had it ordered long ago takes part again.
        again: bool,
    },
    /// Replica → one who has received it: what does this digest stand for?
    GetPublication {
        /// The digest.
        digest: Digest,
    },
    /// The answer. It proves itself.
    Publication(Group),
    /// PBFT's: between replicas, its answers to clients, and clients' reads.
    Module(pbft::Message),
    /// Client → replica, over its own link: a publication again, in case that it was lost on every way, or its answers were.
    Submit(Group),
    /// Replica → replica: this waits here, of these ranges. Promises nothing.
    Compare(Vec<Part>),
    /// The answer, if exactly the same waits there.
    Same {
        /// The digest of all that waits.
        digest: Digest,
    },
}

impl Message {
    /// Checks form, then signatures.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        match self {
            Message::Publish(group) | Message::Publication(group) | Message::Submit(group) => {
                prove_publication(group, keyring)
            }
            Message::Reception { vote, .. } => vote.prove(keyring),
            Message::Compare(parts) => match compare::check(parts) {
                Some(what) => Err(Fault::Malformed(what.to_owned())),
                None => Ok(()),
            },
            Message::GetPublication { .. } | Message::Same { .. } => Ok(()),
            Message::Module(message) => message.prove_inside(keyring),
        }
    }

    /// The message's name.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Message::Publish(_) => "Publish",
            Message::Reception { .. } => "Reception",
            Message::GetPublication { .. } => "GetPublication",
            Message::Publication(_) => "Publication",
            Message::Module(message) => Pbft::label(message),
            Message::Submit(_) => "Submit",
            Message::Compare(_) => "Compare",
            Message::Same { .. } => "Same",
        }
    }
}

/// A client's own signature, over requests that fit.
fn prove_publication(group: &mut Group, keyring: &Keyring) -> Result<(), Fault> {
    if mutated!("reception/publications-are-not-checked") {
        return Ok(());
    }
    if group.by().is_proxy() {
        return Err(Fault::Malformed("a replica publishes in the place of a client".to_owned()));
    }
    if let Some(what) = check_group(group) {
        return Err(Fault::Malformed(what.to_owned()));
    }
    if weight(group) > PUBLICATION_BYTES_MAX {
        return Err(Fault::Malformed("a publication longer than any".to_owned()));
    }
    if !criticality::is_possible(group, keyring.replicas()) {
        return Err(Fault::Malformed("a level of criticality that the group does not have".to_owned()));
    }
    prove_group(group, keyring)
}

/// Bytes of a publication: what it costs in memory and in an operation of PBFT.
pub(super) fn weight(group: &Group) -> usize {
    const REQUEST_OVERHEAD_BYTES: usize = 32;
    let requests = &group.statement().requests;
    requests.iter().map(|(_, body)| body.len().saturating_add(REQUEST_OVERHEAD_BYTES)).fold(256, usize::saturating_add)
}
