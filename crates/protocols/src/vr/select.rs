//! Log selection: which log a new view starts with (VRR §4.2 step 3; vr.md §2.12). One pure function of the DoViewChanges
//! that are in, in whatever order they came.
//!
//! VRR takes the log of the largest `log_view` and, among those, the longest: the *canonical* log. It holds every
//! acknowledged entry:
//! - A view has one log. Logs of equal `log_view` are prefixes of one another.
//! - An entry acknowledged in view u is on a replication quorum whose logs are of u or later, and every view change quorum
//!   meets it (`quorum.rs`). By induction over views, every log of a view after u began with that entry in it.
//! - So the canonical log is of u or later. If later, it began with the entry; if of u, the member that acknowledged the
//!   entry is among the canonical, and the longest of them reaches as far.
//!
//! It follows that at each place only the canonical entry can have been acknowledged. `log_view` is the view that a log was
//! last the log *of*; the view in an entry's header says nothing about that (D3).
//!
//! VRR supposes that what was written can be read. Where disks damage entries, taking the winner's log as it comes loses
//! what the winner cannot read, and waiting for it stops the cluster for what nobody was ever promised (D14; Alagappan et
//! al., *Protocol-Aware Recovery*, FAST '18). So each entry beyond the commit number meets one of three fates:
//! - **kept**, if its header is known and somebody can read its batch;
//! - **dropped**, with all that follows, if so many certainly never acknowledged it that no replication quorum can have;
//! - **doubtful** otherwise: wait for more DoViewChanges; when all are in, stop and say so. Never guess.
//!
//! Deviations from the pseudo-code of §2.12, all on the side of keeping:
//! - It asks for nacks first. Here, what can be kept is kept: else three replicas that have all answered would drop the
//!   undamaged entry that one of them holds, which VRR keeps.
//! - It counts an older entry as a nack when the canonical header is unknown. That loses acknowledged entries: see `nacks`.
//! - A canonical header that is damaged wherever it counts may be had from any log: the next entry's `parent` names it.
//! - Two logs in one view are reported, not asserted against: see [`Selection::Stuck`].

use super::message::{DoViewChange, Header};
use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};
use quorate_core::mutated;
use quorate_core::quorum::CrashQuorums;
use std::collections::BTreeMap;
use std::ops::Bound;

/// What the DoViewChanges that are in lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// More are needed.
    Wait,
    /// No answer is safe, and waiting will not bring one. Either all are in, and nobody can tell whether this entry was
    /// committed, or which entry it was: every copy is damaged. Or two logs of one view differ here, whoever is still to
    /// come. Correct replicas never send that; but what a peer sends is no proof of a bug of ours, so it is no panic, and
    /// choosing a side might lose what the other acknowledged.
    Stuck(OpNumber),
    /// The view starts with this log.
    Start(Selected),
}

/// A log to start a view with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// Entries up to this one are committed. At least `after`; the log does not end before it.
    pub committed: OpNumber,
    /// The entry before the first header: the smallest commit number among the canonical logs or, if headers above that are
    /// missing, the next commit number above them. Every sender whose commit number is at least this has the log up to here.
    pub after: OpNumber,
    /// The log after `after`, to its end, each entry the parent of the next.
    pub headers: Vec<Header>,
}

/// Selects the log of the view that `changes` are for: one DoViewChange a replica, the caller's own included. `window` is
/// the number of entries that a primary prepares beyond its commit number at most.
pub fn select(changes: &[(ReplicaId, &DoViewChange)], quorums: &CrashQuorums, window: u64) -> Selection {
    for (index, (replica, change)) in changes.iter().enumerate() {
        assert!(quorums.contains(*replica));
        assert!(changes[..index].iter().all(|(other, _)| other != replica), "a replica counts once");
        assert_eq!(change.view, changes[0].1.view);
    }
    if changes.len() + usize::from(mutated!("vr/view-change-quorum-one-short")) < quorums.view_change() {
        return Selection::Wait;
    }
    let all_in = changes.len() == quorums.replicas();
    let doubt = |op| if all_in { Selection::Stuck(op) } else { Selection::Wait };

    let log = match Canonical::of(changes) {
        Ok(log) => log,
        Err(op) => return Selection::Stuck(op),
    };
    let committed = committed(changes, window);
    if log.top < committed {
        return doubt(log.top.next()); // no correct replicas send that; what is committed is not ours to shorten
    }
    let mut head = committed;
    while head < log.top {
        let op = head.next();
        let nack = if mutated!("vr/one-nack-drops") { 1 } else { quorums.nack() };
        match log.fate(op, nack) {
            Fate::Kept if mutated!("vr/keeps-only-what-is-committed") => break,
            Fate::Kept => head = op,
            Fate::Dropped => break,
            Fate::Doubtful => return doubt(op),
        }
    }
    match log.after(head) {
        Ok(after) => Selection::Start(Selected { committed, after, headers: log.between(after, head) }),
        Err(op) => doubt(op),
    }
}

/// The last entry that is certainly committed: what any sender knows to be, the losers too (D15); and since a primary
/// prepares no more than `window` entries beyond its commit number, whoever holds an entry proves that one committed.
fn committed(changes: &[(ReplicaId, &DoViewChange)], window: u64) -> OpNumber {
    let before_window = |op: OpNumber| OpNumber::new(op.get().saturating_sub(window));
    let known = changes.iter().map(|(_, change)| change.committed.max(before_window(change.op())));
    known.max().unwrap_or_default()
}

/// What becomes of an entry.
enum Fate {
    Kept,
    Dropped,
    Doubtful,
}

/// The canonical log, as far as it is known.
struct Canonical<'a> {
    changes: &'a [(ReplicaId, &'a DoViewChange)],
    /// The smallest commit number among the canonical: up to here, none of them lists its log.
    floor: OpNumber,
    /// The last entry.
    top: OpNumber,
    /// The headers that are known, after `floor`.
    headers: BTreeMap<OpNumber, Header>,
}

impl<'a> Canonical<'a> {
    /// Puts the log together. Fails with the first entry on which two logs of its view differ.
    fn of(changes: &'a [(ReplicaId, &'a DoViewChange)]) -> Result<Self, OpNumber> {
        let log_view = changes.iter().map(|(_, change)| change.log_view).max();
        let canonical = || changes.iter().map(|(_, change)| *change).filter(|change| Some(change.log_view) == log_view);
        let mut log = Self {
            changes,
            floor: canonical().map(|change| change.committed).min().unwrap_or_default(),
            top: canonical().map(DoViewChange::op).max().unwrap_or_default(),
            headers: BTreeMap::new(),
        };
        if mutated!("vr/shortest-log") {
            log.top = canonical().map(DoViewChange::op).min().unwrap_or_default();
        }
        let mut conflict = None;
        for header in canonical().flat_map(|change| &change.vouches).filter_map(|vouch| vouch.header) {
            let known = *log.headers.entry(header.op).or_insert(header);
            if known != header {
                conflict = Some(conflict.map_or(header.op, |op: OpNumber| op.min(header.op)));
            }
        }
        log.fill_gaps();
        match conflict.or_else(|| log.break_in_chain()) {
            Some(op) => Err(op),
            None => Ok(log),
        }
    }

    /// Finds headers that are damaged wherever they count in the logs that do not: an entry's checksum covers everything
    /// before it, so whatever has the checksum that the next entry names is the canonical entry, whoever kept it.
    fn fill_gaps(&mut self) {
        let above_gap = |(op, _): &(&OpNumber, &Header)| !self.headers.contains_key(&op.previous());
        let gaps: Vec<_> =
            self.headers.iter().filter(above_gap).map(|(op, next)| (op.previous(), next.parent)).collect();
        for (mut op, mut checksum) in gaps {
            while op > self.floor && !self.headers.contains_key(&op) {
                let mut headers = self.changes.iter().filter_map(|(_, change)| change.vouch(op)?.header);
                let Some(header) = headers.find(|header| header.checksum() == checksum) else { break };
                self.headers.insert(op, header);
                (op, checksum) = (op.previous(), header.parent);
            }
        }
    }

    /// The first entry that is not the child of the entry before it.
    fn break_in_chain(&self) -> Option<OpNumber> {
        let mut pairs = self.headers.iter().zip(self.headers.iter().skip(1));
        let broken = pairs.find(|((op, one), (next, two))| op.next() == **next && two.parent != one.checksum());
        broken.map(|(_, (next, _))| *next)
    }

    /// The checksum of an entry, from its header or from the next one's.
    fn checksum(&self, op: OpNumber) -> Option<Digest> {
        let named = || self.headers.get(&op.next()).map(|next| next.parent);
        self.headers.get(&op).map(Header::checksum).or_else(named)
    }

    /// What becomes of an entry that nobody knows to be committed.
    fn fate(&self, op: OpNumber, nack_quorum: usize) -> Fate {
        let mut vouches = self.changes.iter().filter_map(|(_, change)| change.vouch(op));
        let header = self.headers.get(&op);
        if header.is_some() && vouches.any(|vouch| vouch.present && vouch.header.as_ref() == header) {
            return Fate::Kept; // even if nobody waits for it: VRR keeps it
        }
        let checksum = self.checksum(op);
        let nacks = self.changes.iter().filter(|(_, change)| nacks(change, op, checksum)).count();
        if nacks >= nack_quorum { Fate::Dropped } else { Fate::Doubtful }
    }

    /// From where on all headers up to `head` are known: a commit number, so that somebody has what is before. Fails with
    /// the entry whose header is missing.
    ///
    /// A header may be missing with nothing damaged: a backup that fell behind lists 1 and 2, the primary 6 and 7 with a
    /// commit number of 5 (D13). Entries 3 to 5 are committed and the primary has them; only nobody needed to say so.
    /// If none of the senders has come so far, `committed` is beyond the gap only because of the window: the entry must not
    /// be dropped, cannot be named to the backups, and is doubtful like any other that nobody can produce. That a batch up
    /// to `committed` can be read is not asked: senders do not list what they know to be committed, and which log it is
    /// does not depend on it.
    fn after(&self, head: OpNumber) -> Result<OpNumber, OpNumber> {
        let mut gap = head;
        while gap > self.floor && self.headers.contains_key(&gap) {
            gap = gap.previous();
        }
        let commit_numbers = self.changes.iter().map(|(_, change)| change.committed);
        commit_numbers.filter(|committed| *committed >= gap).min().ok_or(gap)
    }

    /// The headers after `after`, to `head`.
    fn between(&self, after: OpNumber, head: OpNumber) -> Vec<Header> {
        assert!(after <= head, "no sender's commit number is beyond the selected log");
        self.headers.range((Bound::Excluded(after), Bound::Included(head))).map(|(_, header)| *header).collect()
    }
}

/// Has the sender certainly not acknowledged the canonical entry `op`, in the view that made it count or any since? `op` is
/// beyond every commit number; `checksum` is the canonical entry's, if known.
///
/// Whoever acknowledged an entry that was then committed has it in its log for good, since every later log that it can have
/// adopted holds it. So a shorter log is a nack, and so is another entry in this place. A damaged entry is not: it may be
/// the one.
///
/// Neither is an intact entry while the canonical one is unknown. The sender's log is older, but the entry may have been
/// carried over into the canonical log: R1 and R2 acknowledge `a` in view 1, R2 starts view 2 with it and then cannot read
/// it, R1 restarts and has forgotten its commit number. R0 lacks `a`; R1's intact copy would be the second nack, and the
/// last copy of `a` would vote for dropping it.
fn nacks(change: &DoViewChange, op: OpNumber, checksum: Option<Digest>) -> bool {
    let Some(vouch) = change.vouch(op) else { return true };
    let other = vouch.header.zip(checksum).is_some_and(|(header, checksum)| header.checksum() != checksum);
    vouch.nack || other || (mutated!("vr/damage-is-a-nack") && !vouch.present)
}
