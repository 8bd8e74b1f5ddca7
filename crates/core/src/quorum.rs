//! Quorum arithmetic: here and nowhere else. Integers only; the intersection is asserted where a quorum is made.

use crate::ids::{OpNumber, ReplicaId, View};
use crate::mutated;

/// Replicas that the arithmetic is made for. Groups of real processes are smaller: see the configuration's own limit.
pub const REPLICAS_MAX: usize = 100;

/// Quorums of a group that fails only by crashing: `n = 2f + 1` replicas tolerate `f` (VRR §2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashQuorums {
    n: usize,
    replication: usize,
    view_change: usize,
    nack: usize,
}

impl CrashQuorums {
    /// The quorums of `n` replicas; `None` unless `1 ≤ n ≤ REPLICAS_MAX`.
    ///
    /// For even `n` above two, replication needs only half: any view change quorum is one larger and still meets it.
    pub fn new(n: usize) -> Option<Self> {
        if n == 0 || n > REPLICAS_MAX {
            return None;
        }
        let majority = n / 2 + 1;
        let replication = if n == 2 { 2 } else { n.div_ceil(2) };
        let view_change = majority.max(n - replication + 1);
        let nack = n - replication + 1;
        assert!(replication + view_change > n, "an operation that committed is known to every view change");
        assert!(view_change + view_change > n, "two views cannot both start without a common replica");
        assert!(nack + replication > n, "an operation that a nack quorum never prepared did not commit");
        assert!(nack <= view_change, "a view change quorum can decide to drop what nobody prepared");
        Some(Self { n, replication, view_change, nack })
    }

    /// Replicas in the group.
    pub const fn replicas(&self) -> usize {
        self.n
    }

    /// Replicas, the primary included, that must hold an operation durably before it is committed.
    pub const fn replication(&self) -> usize {
        self.replication
    }

    /// Replicas that must take part in a view change.
    pub const fn view_change(&self) -> usize {
        self.view_change
    }

    /// Replicas that must certainly never have prepared an operation before it may be dropped.
    pub const fn nack(&self) -> usize {
        self.nack
    }

    /// Crashed replicas that the group goes on without.
    pub const fn faults(&self) -> usize {
        self.n - self.view_change
    }

    /// Replicas besides the primary that must promise not to start a view, so that no view change quorum can form
    /// without one of the promisers or the primary (vr.md §2.8, leases).
    pub const fn lease_promises(&self) -> usize {
        self.n - self.view_change
    }

    /// The highest entry that a replication quorum holds, when each replica holds every entry up to the one given for it
    /// (VRR §4.1 step 5). `held` has one number for each replica that has said so in this view, its own included.
    pub fn replicated(&self, held: impl IntoIterator<Item = OpNumber>) -> OpNumber {
        let mut held: Vec<OpNumber> = held.into_iter().collect();
        held.sort_unstable_by(|one, other| other.cmp(one));
        let short = usize::from(mutated!("quorum/replication-one-short"));
        held.get(self.replication - 1 - short).copied().unwrap_or(OpNumber::ZERO)
    }

    /// The replica that leads `view`: round robin (VRR §4).
    pub fn primary(&self, view: View) -> ReplicaId {
        let index = view.get() % self.n as u64;
        ReplicaId::new(u8::try_from(index).unwrap_or(0)) // index < REPLICAS_MAX
    }

    /// Every replica of the group, in order.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new)
    }

    /// Is `replica` in the group?
    pub const fn contains(&self, replica: ReplicaId) -> bool {
        replica.index() < self.n
    }
}

/// Quorums of a group some of whose members may lie: `n ≥ 3f + 1` replicas tolerate `f` (Castro and Liskov 1999, §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByzantineQuorums {
    n: usize,
    faults: usize,
    quorum: usize,
}

impl ByzantineQuorums {
    /// The quorums of `n` replicas; `None` unless `1 ≤ n ≤ REPLICAS_MAX`. Fewer than four replicas tolerate no liar.
    ///
    /// A quorum is `ceil((n + f + 1) / 2)`, not `2f + 1`: the two differ unless `n = 3f + 1`, and with the latter two quorums
    /// of five replicas can meet in the liar alone.
    pub fn new(n: usize) -> Option<Self> {
        if n == 0 || n > REPLICAS_MAX {
            return None;
        }
        let faults = (n - 1) / 3;
        let quorum = (n + faults + 1).div_ceil(2);
        assert!(quorum + quorum > n + faults, "two quorums have a correct replica in common");
        assert!(quorum + faults <= n, "the correct replicas alone are a quorum");
        Some(Self { n, faults, quorum })
    }

    /// The smallest group that tolerates so many liars: `3f + 1`.
    pub fn tolerating(faults: usize) -> Option<Self> {
        Self::new(faults.checked_mul(3)?.checked_add(1)?)
    }

    /// Replicas in the group.
    pub const fn replicas(&self) -> usize {
        self.n
    }

    /// Liars that the group tolerates (f).
    pub const fn faults(&self) -> usize {
        self.faults
    }

    /// Replicas any two sets of which have a correct one in common.
    pub fn quorum(&self) -> usize {
        self.quorum - usize::from(mutated!("quorum/byzantine-one-short"))
    }

    /// Replicas that answer whatever the liars do (n - f): who waits for more may wait for ever.
    pub const fn answering(&self) -> usize {
        self.n - self.faults
    }

    /// Replicas one of which at least is correct (f + 1): what they all say, a correct one says.
    pub const fn vouch(&self) -> usize {
        self.faults + 1
    }

    /// Of numbers that different replicas report, the largest that a correct one certainly reaches: the (f + 1)-th. `None`
    /// with fewer reports.
    pub fn vouched<T: Copy + Ord>(&self, reports: impl IntoIterator<Item = T>) -> Option<T> {
        nth_highest(self.faults, reports)
    }

    /// How many equal answers a client believes, of a group with `reads` for what is read without being ordered.
    pub const fn answers(&self, reads: usize) -> AnswerQuorums {
        AnswerQuorums { n: self.n, faults: self.faults, reads: Some(reads) }
    }

    /// The replica that leads `view`: round robin (§4: `p = v mod |R|`).
    pub fn primary(&self, view: View) -> ReplicaId {
        let index = view.get() % self.n as u64;
        ReplicaId::new(u8::try_from(index).unwrap_or(0)) // index < REPLICAS_MAX
    }

    /// Every replica of the group, in order.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new)
    }

    /// Is `replica` in the group?
    pub const fn contains(&self, replica: ReplicaId) -> bool {
        replica.index() < self.n
    }
}

/// Quorums of a group some of whose members may lie, and whose messages and clocks keep their bounds: with signatures, `n ≥
/// 2f + 1` replicas tolerate `f`. A quorum is all but `f`, hence a majority; what a quorum has confirmed is the only such thing
/// even when no bound was kept, as long as at most [`SyncQuorums::faults_without_bounds`] lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SyncQuorums {
    n: usize,
    faults: usize,
    quorum: usize,
}

impl SyncQuorums {
    /// The quorums of `n` replicas; `None` unless `1 ≤ n ≤ REPLICAS_MAX`. Fewer than three replicas tolerate no liar.
    pub fn new(n: usize) -> Option<Self> {
        if n == 0 || n > REPLICAS_MAX {
            return None;
        }
        let faults = (n - 1) / 2;
        let quorum = n - faults;
        assert!(quorum > faults, "in a quorum there is a correct replica");
        assert!(quorum + quorum > n, "two quorums have a replica in common");
        Some(Self { n, faults, quorum })
    }

    /// Replicas in the group.
    pub const fn replicas(&self) -> usize {
        self.n
    }

    /// Liars that the group tolerates while bounds are kept (f, or `t_s`).
    pub const fn faults(&self) -> usize {
        self.faults
    }

    /// Liars despite whom two quorums have a correct replica in common (`t_a`): `t_a + 2 t_s < n`.
    pub const fn faults_without_bounds(&self) -> usize {
        2 * self.quorum - self.n - 1
    }

    /// Are more liars tolerated than those despite whom two quorums meet in a correct replica? Then that quorums agree rests on
    /// bounds of time, else on counting alone.
    pub const fn rests_on_time(&self) -> bool {
        self.faults > self.faults_without_bounds()
    }

    /// All replicas but those that may be faulty.
    pub fn quorum(&self) -> usize {
        self.quorum - usize::from(mutated!("quorum/sync-one-short"))
    }

    /// Replicas one of which at least is correct (f + 1): what they all say, a correct one says.
    pub const fn vouch(&self) -> usize {
        self.faults + 1
    }

    /// Of numbers that different replicas report, the largest that a correct one certainly reaches: the (f + 1)-th. `None`
    /// with fewer reports.
    pub fn vouched<T: Copy + Ord>(&self, reports: impl IntoIterator<Item = T>) -> Option<T> {
        nth_highest(self.faults, reports)
    }

    /// How many equal answers a client believes. What is read is ordered: a quorum here need not know what another one has
    /// told.
    pub const fn answers(&self) -> AnswerQuorums {
        AnswerQuorums { n: self.n, faults: self.faults, reads: None }
    }

    /// Whose turn it is, round robin: of epochs to lead, of views to start.
    pub fn turn(&self, number: u64) -> ReplicaId {
        ReplicaId::new(u8::try_from(number % self.n as u64).unwrap_or(0)) // below REPLICAS_MAX
    }

    /// Every replica of the group, in order.
    pub fn members(&self) -> impl Iterator<Item = ReplicaId> + use<> {
        (0..self.n).filter_map(|index| u8::try_from(index).ok()).map(ReplicaId::new)
    }

    /// Is `replica` in the group?
    pub const fn contains(&self, replica: ReplicaId) -> bool {
        replica.index() < self.n
    }
}

/// How many replicas must say the same before a client believes it, in a group some of whose members may lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnswerQuorums {
    n: usize,
    faults: usize,
    reads: Option<usize>,
}

impl AnswerQuorums {
    /// Replicas in the group.
    pub const fn replicas(&self) -> usize {
        self.n
    }

    /// Equal answers to what was ordered, one of which at least is a correct replica's (f + 1).
    pub const fn vouch(&self) -> usize {
        self.faults + 1
    }

    /// Equal answers to a linearizable read that was not ordered; `None` where no number is enough.
    pub const fn reads(&self) -> Option<usize> {
        self.reads
    }

    /// Of numbers that different replicas report, the largest that a correct one certainly reaches: the (f + 1)-th. `None`
    /// with fewer reports.
    pub fn vouched<T: Copy + Ord>(&self, reports: impl IntoIterator<Item = T>) -> Option<T> {
        nth_highest(self.faults, reports)
    }

    /// Of numbers that different replicas report, the smallest that is certainly no smaller than what a correct one reports: the
    /// (f + 1)-th from below. `None` with fewer reports.
    pub fn no_earlier<T: Copy + Ord>(&self, reports: impl IntoIterator<Item = T>) -> Option<T> {
        nth_highest(self.faults, reports.into_iter().map(std::cmp::Reverse)).map(|it| it.0)
    }

    /// The replica that leads `view`: round robin.
    pub fn primary(&self, view: View) -> ReplicaId {
        ReplicaId::new(u8::try_from(view.get() % self.n as u64).unwrap_or(0)) // below REPLICAS_MAX
    }

    /// Is `replica` in the group?
    pub const fn contains(&self, replica: ReplicaId) -> bool {
        replica.index() < self.n
    }
}

/// The highest but `n` of them.
fn nth_highest<T: Copy + Ord>(n: usize, reports: impl IntoIterator<Item = T>) -> Option<T> {
    let mut reports: Vec<T> = reports.into_iter().collect();
    reports.sort_unstable_by(|one, other| other.cmp(one));
    reports.get(n).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_liars_push_what_is_no_earlier_than_a_correct_report_below_it() {
        let quorums = ByzantineQuorums::new(7).expect("a legal size").answers(5);
        assert_eq!(quorums.no_earlier([9, 9]), None);
        assert_eq!(quorums.no_earlier([0, 9, 0]), Some(9), "two liars, and one report that is true");
        assert_eq!(quorums.no_earlier([99, 9, 99, 8, 7]), Some(9));
    }

    #[test]
    fn every_group_size_has_intersecting_quorums_by_enumeration() {
        for n in 1..=15 {
            let quorums = CrashQuorums::new(n).expect("a legal size");
            let of_size = |size: usize| (0u32..1 << n).filter(move |set| set.count_ones() as usize == size);
            for replicated in of_size(quorums.replication()).take(2000) {
                // The worst view change quorum is the one that avoids as many of the replicated as it can.
                let others = n - replicated.count_ones() as usize;
                assert!(quorums.view_change() > others, "n={n}");
                assert!(
                    others < quorums.nack(),
                    "n={n}: those outside a replication quorum must not form a nack quorum"
                );
            }
        }
    }

    #[test]
    fn quorums_intersect_in_groups_of_every_size() {
        for n in 1..=REPLICAS_MAX {
            assert!(CrashQuorums::new(n).is_some_and(|it| it.replication() + it.view_change() > n));
            assert!(ByzantineQuorums::new(n).is_some_and(|it| 2 * it.quorum() > n + it.faults()));
        }
    }

    #[test]
    fn the_table_of_the_specification_holds() {
        let table: Vec<_> = (1..=6).filter_map(CrashQuorums::new).collect();
        assert_eq!(table.iter().map(CrashQuorums::nack).collect::<Vec<_>>(), [1, 1, 2, 3, 3, 4]);
        assert_eq!(table.iter().map(CrashQuorums::replication).collect::<Vec<_>>(), [1, 2, 2, 2, 3, 3]);
        assert_eq!(table.iter().map(CrashQuorums::view_change).collect::<Vec<_>>(), [1, 2, 2, 3, 3, 4]);
        assert_eq!(table.iter().map(CrashQuorums::faults).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2]);
    }

    #[test]
    fn an_entry_is_replicated_when_exactly_a_quorum_holds_it_whatever_the_order_of_the_answers() {
        for n in 1..=7 {
            let quorums = CrashQuorums::new(n).expect("a legal size");
            for sets in 0..3_u32.pow(u32::try_from(n).expect("small")) {
                let held: Vec<_> =
                    (0..n).map(|index| sets / 3_u32.pow(u32::try_from(index).expect("small")) % 3).collect();
                let ops = held.iter().map(|op| OpNumber::new(u64::from(*op)));
                let replicated = quorums.replicated(ops);
                for op in 1..=2 {
                    let holders = held.iter().filter(|held| **held >= op).count();
                    assert_eq!(replicated >= OpNumber::new(u64::from(op)), holders >= quorums.replication());
                }
            }
        }
    }

    #[test]
    fn any_two_byzantine_quorums_have_a_correct_replica_in_common_by_enumeration() {
        for n in 1..=12 {
            let quorums = ByzantineQuorums::new(n).expect("a legal size");
            let of_size = |size: usize| (0u32..1 << n).filter(move |set| set.count_ones() as usize == size);
            let one = (1_u32 << quorums.quorum()) - 1; // sets differ by renaming only: one of them is enough
            for other in of_size(quorums.quorum()) {
                let common = (one & other).count_ones() as usize;
                assert!(common > quorums.faults(), "n={n}: {one:b} and {other:b} may meet in liars alone");
            }
            assert!(quorums.quorum() <= n - quorums.faults(), "n={n}: liars can keep a quorum from forming");
        }
    }

    #[test]
    fn two_f_and_one_would_not_be_a_quorum_of_five_replicas() {
        let quorums = ByzantineQuorums::new(5).expect("a legal size");
        assert_eq!((quorums.faults(), quorums.quorum(), quorums.vouch()), (1, 4, 2));
        let two_f_and_one = 2 * quorums.faults() + 1;
        assert!(two_f_and_one + two_f_and_one <= quorums.replicas() + quorums.faults(), "two of them meet in one liar");
        let table: Vec<_> = (1..=13).filter_map(ByzantineQuorums::new).map(|it| it.quorum()).collect();
        assert_eq!(table, [1, 2, 2, 3, 4, 4, 5, 6, 6, 7, 8, 8, 9]);
    }

    #[test]
    fn what_one_liar_reports_is_not_vouched_for() {
        let quorums = ByzantineQuorums::new(4).expect("a legal size");
        let op = OpNumber::new;
        assert_eq!(quorums.vouched([op(99), op(7), op(5)]), Some(op(7)));
        assert_eq!(quorums.vouched([op(99)]), None);
    }

    #[test]
    fn two_quorums_that_trust_clocks_meet_in_a_correct_replica_if_few_enough_lie_without_bounds() {
        for n in 1..=12 {
            let quorums = SyncQuorums::new(n).expect("a legal size");
            let one = (1_u32 << quorums.quorum()) - 1; // sets differ by renaming only: one of them is enough
            for other in (0u32..1 << n).filter(|set| set.count_ones() as usize == quorums.quorum()) {
                assert!((one & other).count_ones() as usize > quorums.faults_without_bounds(), "n={n}");
            }
            assert!(quorums.quorum() > quorums.faults() && quorums.quorum() <= n - quorums.faults());
            assert!(quorums.faults_without_bounds() + 2 * quorums.faults() < n, "n={n}: no protocol can do more");
        }
        let table: Vec<_> = (1..=7).filter_map(SyncQuorums::new).collect();
        assert_eq!(table.iter().map(SyncQuorums::faults).collect::<Vec<_>>(), [0, 0, 1, 1, 2, 2, 3]);
        assert_eq!(table.iter().map(SyncQuorums::quorum).collect::<Vec<_>>(), [1, 2, 2, 3, 3, 4, 4]);
        assert_eq!(table.iter().map(SyncQuorums::faults_without_bounds).collect::<Vec<_>>(), [0, 1, 0, 1, 0, 1, 0]);
        let rests: Vec<_> = table.iter().filter(|it| it.rests_on_time()).map(SyncQuorums::replicas).collect();
        assert_eq!(rests, [3, 5, 6, 7]);
    }

    #[test]
    fn a_group_of_none_or_of_too_many_is_refused() {
        assert_eq!(SyncQuorums::new(0), None);
        assert_eq!(SyncQuorums::new(REPLICAS_MAX + 1), None);
        assert_eq!(ByzantineQuorums::new(0), None);
        assert_eq!(ByzantineQuorums::new(REPLICAS_MAX + 1), None);
        assert_eq!(CrashQuorums::new(0), None);
        assert_eq!(CrashQuorums::new(REPLICAS_MAX + 1), None);
    }
}
