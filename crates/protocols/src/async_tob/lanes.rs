//! Lanes: every replica has one, and puts its clients' requests there, batch after batch. A batch that a quorum has
//! acknowledged is certified, and with it everything before it; epochs only say how far each lane is committed.
//!
//! This is the data; `normal.rs` has the handlers.

use super::message::{Ack, Batch, Head};
use quorate_core::crypto::{Certificate, Digest, Verified};
use quorate_core::ids::{RecordSeq, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};

/// Batches of one lane above what is committed that a replica holds, at most; beyond it, none is acknowledged.
pub const LANE_BATCHES_MAX: usize = 32;
/// Bytes of their payloads.
pub const LANE_BYTES_MAX: usize = 16 << 20;
/// Batches of its own lane that a correct replica has above what is committed. Half of what others hold: a replica that has
/// lost its disk, and does not know what it had sent, still has room.
pub const OWN_BATCHES_MAX: usize = LANE_BATCHES_MAX / 2;
/// Bytes of their payloads, unless a single one is longer.
pub const OWN_BYTES_MAX: usize = LANE_BYTES_MAX / 2;

#[derive(Debug)]
struct Held {
    batch: Batch,
    /// Where it is in the log; `None`: only in memory, since it is not acknowledged and nobody needs it yet.
    seq: Option<RecordSeq>,
}

/// One lane.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// The last batch that an epoch has committed.
    pub(super) committed: Head,
    /// The highest certificate above it.
    pub(super) certified: Option<Certificate<Ack>>,
    /// What I have acknowledged, by height; above what is committed.
    acked: BTreeMap<u64, Digest>,
    /// Batches, also those that are committed and not in a snapshot yet.
    held: BTreeMap<Head, Held>,
    /// Somebody was asked for what is missing below a batch; asked again when the resend timer rings.
    pub(super) asked: bool,
}

impl Lane {
    pub(super) fn batch(&self, head: Head) -> Option<&Batch> {
        self.held.get(&head).map(|it| &it.batch)
    }

    pub(super) fn holds(&self, head: Head) -> bool {
        self.held.contains_key(&head)
    }

    /// What I have acknowledged at this height.
    pub(super) fn acked_at(&self, height: u64) -> Option<Head> {
        self.acked.get(&height).map(|digest| Head { height, digest: *digest })
    }

    /// All of them.
    pub(super) fn acked(&self) -> impl Iterator<Item = Head> {
        self.acked.iter().map(|(height, digest)| Head { height: *height, digest: *digest })
    }

    fn above(&self, height: u64) -> impl Iterator<Item = (&Head, &Held)> {
        let from = Head { height: height.saturating_add(1), digest: Digest::ZERO };
        self.held.range(from..)
    }

    /// How many batches, and bytes of payloads, are held above what is committed.
    pub(super) fn pending(&self) -> (usize, usize) {
        let above = self.above(self.committed.height);
        above.fold((0, 0), |(count, bytes), (_, it)| (count + 1, it.batch.payload.len().saturating_add(bytes)))
    }

    /// Keeps a batch, not acknowledged.
    pub(super) fn hold(&mut self, batch: Batch) {
        self.held.entry(batch.head()).or_insert(Held { batch, seq: None });
    }

    pub(super) fn is_recorded(&self, head: Head) -> bool {
        self.held.get(&head).is_some_and(|it| it.seq.is_some())
    }

    pub(super) fn recorded(&mut self, head: Head, seq: RecordSeq) {
        if let Some(held) = self.held.get_mut(&head) {
            held.seq.get_or_insert(seq);
        }
    }

    pub(super) fn ack(&mut self, head: Head) {
        self.acked.insert(head.height, head.digest);
    }

    /// The lowest batch that can be acknowledged: nothing else was at its height, and what is before it is here.
    pub(super) fn to_ack(&self) -> Option<Head> {
        let mut open = self.above(self.committed.height).filter(|(head, _)| !self.acked.contains_key(&head.height));
        open.find(|(_, it)| self.is_grounded(it.batch.parent())).map(|(head, _)| *head)
    }

    /// Is this place committed, or have I acknowledged it?
    pub(super) fn is_grounded(&self, parent: Head) -> bool {
        parent.height <= self.committed.height || self.acked.get(&parent.height) == Some(&parent.digest)
    }

    /// The last batch that I have acknowledged, or that is committed: where one's own lane goes on.
    pub(super) fn last(&self) -> Head {
        let acked = self.acked.last_key_value().map(|(height, digest)| Head { height: *height, digest: *digest });
        acked.unwrap_or_default().max(self.committed)
    }

    /// The owner's new life: what is above the last batch that is committed is not built on. Its records may be damaged in
    /// the middle, and nobody else may have them. If others have certified some of it, it is fetched like anybody's.
    pub(super) fn abandon(&mut self) {
        self.acked.clear();
        drop(self.held.split_off(&Head { height: self.committed.height.saturating_add(1), digest: Digest::ZERO }));
    }

    /// Takes a certificate, if it is for something higher.
    pub(super) fn certify(&mut self, certificate: Certificate<Ack>) -> bool {
        let height = certificate.statement().head.height;
        let higher = height > self.committed.height && height > self.certified_height();
        if higher {
            self.certified = Some(certificate);
        }
        higher
    }

    pub(super) fn certified_height(&self) -> u64 {
        self.certified.as_ref().map_or(0, |it| it.statement().head.height)
    }

    /// From `to` down to above `above`, the highest first.
    ///
    /// # Errors
    /// The first batch on the way that is not here.
    pub(super) fn chain(&self, to: Head, above: u64) -> Result<Vec<&Batch>, Head> {
        let (mut at, mut chain) = (to, Vec::new());
        while at.height > above {
            let batch = self.batch(at).ok_or(at)?;
            chain.push(batch);
            at = batch.parent(); // lower: nobody takes a batch that is not above its parent
        }
        Ok(chain)
    }

    /// The batches down from `to` that are here, above `above`.
    pub(super) fn known(&self, to: Head, above: u64) -> impl Iterator<Item = &Batch> {
        let next = move |batch: &&Batch| self.batch(batch.parent()).filter(|it| it.height() > above);
        std::iter::successors(self.batch(to).filter(|_| to.height > above), next)
    }

    /// Everything up to here is committed.
    pub(super) fn commit(&mut self, head: Head) {
        self.committed = self.committed.max(head);
        self.acked = self.acked.split_off(&self.committed.height.saturating_add(1));
        if self.certified_height() <= self.committed.height {
            self.certified = None;
        }
        self.drop_orphans();
    }

    /// Drops what is in a snapshot.
    pub(super) fn trim(&mut self, through: u64) {
        let rest = Head { height: through.saturating_add(1), digest: Digest::ZERO };
        self.held = self.held.split_off(&rest);
    }

    /// Drops what is too low to be committed and was never acknowledged. What was, stays until it is trimmed: others may
    /// have committed it on the way to something higher.
    fn drop_orphans(&mut self) {
        let committed = self.committed.height;
        self.held.retain(|head, it| it.seq.is_some() || head.height > committed);
    }

    /// The first record that is still needed.
    pub(super) fn first_record(&self) -> Option<RecordSeq> {
        self.held.values().filter_map(|it| it.seq).min()
    }
}

/// One's own batches that are not certified yet: who has acknowledged which.
#[derive(Debug, Default)]
pub(super) struct Uncertified(BTreeMap<u64, BTreeMap<ReplicaId, Verified<Ack>>>);

impl Uncertified {
    pub(super) fn add(&mut self, height: u64) {
        self.0.entry(height).or_default();
    }

    pub(super) fn get_mut(&mut self, height: u64) -> Option<&mut BTreeMap<ReplicaId, Verified<Ack>>> {
        self.0.get_mut(&height)
    }

    /// Everything up to here is certified.
    pub(super) fn forget(&mut self, through: u64) {
        self.0 = self.0.split_off(&through.saturating_add(1));
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn lowest(&self) -> Option<u64> {
        self.0.keys().next().copied()
    }

    pub(super) fn heights(&self) -> BTreeSet<u64> {
        self.0.keys().copied().collect()
    }
}
