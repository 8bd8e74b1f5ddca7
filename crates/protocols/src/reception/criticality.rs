//! Levels of criticality (C.3). A request names how many liars among those who vouch for its reception it bears: at level e, a
//! committee of `3e + 1` replicas receives it and `2e + 1` of them certify it. Whoever names none has the level that the cluster's
//! owner has chosen, or the highest, f. The order is PBFT's, at every level, so a level is about two things only: who has received it
//! when it is ordered, and who chooses its time.
//!
//! The committee is the first `3e + 1` replicas in an order that follows from the publication's digest (rendezvous hashing). So it is the
//! same for everybody, and spread evenly over what many clients publish. A client that tries many wordings can choose its own
//! committee; what it gains is said in the README.

use super::Config;
use super::message::digest;
use crate::pbft::Group;
use quorate_core::crypto::Digest;
use quorate_core::ids::ReplicaId;
use quorate_core::mutated;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::Body;
use std::collections::BTreeSet;

/// The levels of a group: what is enough for each publication.
#[derive(Clone, Copy, Debug)]
pub struct Levels {
    group: ByzantineQuorums,
    /// Of publications that name no level.
    usual: usize,
}

impl Levels {
    /// Those of a group whose owner has chosen this: never more than the group bears.
    pub fn new(config: &Config, group: ByzantineQuorums) -> Self {
        let usual = config.criticality.map_or(group.faults(), |level| usize::from(level).min(group.faults()));
        Self { group, usual }
    }

    /// The whole group's quorums, which are PBFT's.
    pub const fn group(&self) -> &ByzantineQuorums {
        &self.group
    }

    /// What is enough of a publication's committee. The highest level that it names is that of all in it: nothing is certified by
    /// fewer than its client has asked for.
    pub fn of(&self, group: &Group) -> ByzantineQuorums {
        let level = group.statement().requests.iter().map(|(_, body)| named(body).unwrap_or(self.usual)).max();
        self.at(level.unwrap_or(self.usual))
    }

    /// The same, for who makes a certificate.
    pub(super) fn assembled_at(&self, group: &Group) -> ByzantineQuorums {
        if mutated!("reception/certified-at-the-lowest-level") { self.at(0) } else { self.of(group) }
    }

    fn at(&self, level: usize) -> ByzantineQuorums {
        ByzantineQuorums::tolerating(level.min(self.group.faults())).unwrap_or(self.group)
    }

    /// The committee of a publication: the first of all replicas in an order that follows from its digest.
    pub(super) fn committee(&self, digest: Digest, quorums: &ByzantineQuorums) -> BTreeSet<ReplicaId> {
        if quorums.replicas() >= self.group.replicas() {
            return self.group.members().collect();
        }
        ranked(digest, &self.group).into_iter().take(quorums.replicas()).collect()
    }
}

/// The level that a request names.
fn named(body: &Body) -> Option<usize> {
    match body {
        Body::Critical(level, _) => Some(usize::from(*level)),
        Body::Register | Body::Apply(_) | Body::Query(_) | Body::Close => None,
    }
}

/// Are there such levels in a group of so many?
pub(super) fn is_possible(group: &Group, replicas: usize) -> bool {
    let highest = group.statement().requests.iter().filter_map(|(_, body)| named(body)).max().unwrap_or_default();
    ByzantineQuorums::new(replicas).is_some_and(|quorums| highest <= quorums.faults())
}

/// To whom a client publishes: if all that it asks for names a level, to the committee, and to as many more as must receive it so that one
/// of them is correct though e say nothing; else to everybody, since it does not know the group's usual level.
pub(super) fn recipients(group: &Group, quorums: &ByzantineQuorums) -> Vec<ReplicaId> {
    let levels = group.statement().requests.iter().map(|(_, body)| named(body));
    let highest = levels.collect::<Option<Vec<usize>>>().and_then(|levels| levels.into_iter().max());
    let committee = highest.and_then(|level| Some((level, ByzantineQuorums::tolerating(level)?)));
    let Some((level, committee)) = committee else { return quorums.members().collect() };
    let copies = committee.replicas().max(quorums.vouch().saturating_add(level));
    ranked(digest(group), quorums).into_iter().take(copies).collect()
}

/// All replicas, in the order in which they receive a publication with this digest.
fn ranked(digest: Digest, of: &ByzantineQuorums) -> Vec<ReplicaId> {
    let place = |replica: &ReplicaId| Digest::of_parts(&[b"reception committee", digest.as_bytes(), &[replica.get()]]);
    let mut all: Vec<ReplicaId> = of.members().collect();
    all.sort_by_cached_key(place);
    all
}
