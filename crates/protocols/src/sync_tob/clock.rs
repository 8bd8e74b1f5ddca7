//! A clock that is kept in step with the others': the monotonic clock and an offset.
//!
//! Replicas ask each other what their clocks show; an answer bounds the difference by half of the time that it took. Marzullo's
//! algorithm finds the difference on which most agree. A quorum that agrees within ε is what the model supposes; then the
//! clock follows its host's calendar as far as the quorum allows, else it is not trusted, and moves to the middle of all that
//! was heard, without the f largest and the f smallest. A calendar that jumps is therefore outvoted.
//!
//! Liars cannot pull correct clocks apart that begin within ε; that they begin so is the host's duty (the model). Where agreement
//! rests on time, a clock that shows its calendar therefore stays with it as long as the answers of a quorum, with their
//! errors, do not say that it is wrong; and no clock moves on the answers of a few.

use super::Config;
use quorate_core::ids::ReplicaId;
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::{Duration, Instant, WallTime};
use std::collections::BTreeMap;

/// What was heard counts for so many rounds of probes.
const FRESH_ROUNDS: u32 = 4;

/// Is the clock to be trusted?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Nobody has asked the others lately: an idle group sends no probes.
    Unknown,
    /// The others were asked, and no quorum agrees within ε.
    Unsynced,
    /// A quorum agrees within ε.
    Synced,
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    /// The other's clock minus ours, nanoseconds.
    difference: i128,
    /// How wrong that may be, nanoseconds.
    error: i128,
    at: Instant,
}

/// A replica's idea of the time that all agree on.
#[derive(Clone, Debug)]
pub struct Clock {
    me: ReplicaId,
    quorums: SyncQuorums,
    epsilon: i128,
    drift_ppm: i128,
    fresh: Duration,
    /// What this clock shows minus the monotonic clock, nanoseconds.
    offset: i128,
    asked: BTreeMap<ReplicaId, Instant>,
    samples: BTreeMap<ReplicaId, Sample>,
    agreed: bool,
    /// The last that was heard had no quorum.
    disagreed: bool,
    /// How long the slowest answer took that still counts.
    slowest: Duration,
}

fn nanos(duration: Duration) -> i128 {
    i128::try_from(duration.as_nanos()).unwrap_or(i128::from(i64::MAX))
}

impl Clock {
    /// A clock that shows what the calendar does, but never less than `floor`.
    pub fn new(
        me: ReplicaId,
        quorums: SyncQuorums,
        config: &Config,
        (now, wall): (Instant, WallTime),
        floor: WallTime,
    ) -> Self {
        let offset = i128::from(wall.max(floor).as_nanos()) - i128::from(now.as_nanos());
        Self {
            me,
            quorums,
            epsilon: nanos(config.epsilon),
            drift_ppm: i128::from(config.drift_ppm.min(1_000_000)),
            fresh: config.probe.saturating_mul(FRESH_ROUNDS),
            offset,
            asked: BTreeMap::new(),
            samples: BTreeMap::new(),
            agreed: false,
            disagreed: false,
            slowest: Duration::ZERO,
        }
    }

    /// What the clock shows.
    pub fn show(&self, now: Instant) -> WallTime {
        let shown = i128::from(now.as_nanos()).saturating_add(self.offset);
        WallTime::from_nanos(u64::try_from(shown.max(0)).unwrap_or(u64::MAX))
    }

    /// How long until the clock shows this; zero if it has.
    pub fn until(&self, time: WallTime, now: Instant) -> Duration {
        time.since(self.show(now))
    }

    /// Is it to be trusted?
    pub fn reading(&self, now: Instant) -> Reading {
        if self.quorums.quorum() == 1 {
            return Reading::Synced;
        }
        let fresh = self.samples.values().filter(|sample| now.since(sample.at) <= self.fresh).count();
        if fresh < self.quorums.quorum().saturating_sub(1) {
            return if self.disagreed { Reading::Unsynced } else { Reading::Unknown };
        }
        if self.agreed { Reading::Synced } else { Reading::Unsynced }
    }

    /// Has the oldest of the answers that count become this old?
    pub fn is_older_than(&self, age: Duration, now: Instant) -> bool {
        let mut ages: Vec<Duration> = self.samples.values().map(|sample| now.since(sample.at)).collect();
        ages.sort_unstable();
        let needed = self.quorums.quorum().saturating_sub(1);
        needed > 0 && needed.checked_sub(1).and_then(|last| ages.get(last)).is_none_or(|oldest| *oldest >= age)
    }

    /// Half of the time that the slowest answer took: an estimate of the delay that messages have now.
    pub const fn slowest(&self) -> Duration {
        self.slowest
    }

    /// All others are being asked now. While clocks do not agree, everybody moves: what was heard before says nothing.
    pub fn ask(&mut self, now: Instant) {
        if !self.agreed {
            self.samples.clear();
        }
        let others = self.quorums.members().filter(|replica| *replica != self.me);
        self.asked = others.map(|replica| (replica, now)).collect();
    }

    /// Another replica's clock showed this when it answered what was asked at `sent`. By how much our clock was moved,
    /// nanoseconds; `None` if the answer does not count.
    pub fn on_answer(
        &mut self,
        from: ReplicaId,
        sent: u64,
        shown: WallTime,
        (now, wall): (Instant, WallTime),
    ) -> Option<u64> {
        let asked = self.asked.get(&from).copied().filter(|asked| asked.as_nanos() == sent)?;
        self.asked.remove(&from);
        let error = nanos(now.since(asked)) / 2;
        let ours = i128::from(self.show(now).as_nanos());
        let difference = i128::from(shown.as_nanos()).saturating_add(error).saturating_sub(ours);
        let known = self.samples.get(&from).filter(|known| now.since(known.at) <= self.fresh / 2);
        if known.is_some_and(|known| known.error.saturating_mul(4) < error) {
            return None; // an answer that was held up says less than an older one
        }
        self.slowest = now.since(asked) / 2;
        self.samples.insert(from, Sample { difference, error, at: now });
        let all = self.samples.len().saturating_add(1) >= self.quorums.replicas();
        Some(self.judge(all, now, wall))
    }

    /// Those who have not answered by now are not waited for. By how much the clock was moved, nanoseconds.
    pub fn settle(&mut self, now: Instant, wall: WallTime) -> u64 {
        self.samples.retain(|_, sample| now.since(sample.at) <= self.fresh);
        let enough = self.samples.len().saturating_add(1) >= self.quorums.quorum();
        if enough && !self.agreed { self.judge(true, now, wall) } else { 0 }
    }

    /// Looks for a quorum that agrees; without one, moves to the middle if everybody was heard.
    fn judge(&mut self, all: bool, now: Instant, wall: WallTime) -> u64 {
        let drift = |sample: &Sample| nanos(now.since(sample.at)) / 1_000_000 * self.drift_ppm * 2;
        let others =
            self.samples.values().map(|sample| (sample.difference, sample.error.saturating_add(drift(sample))));
        let intervals: Vec<(i128, i128)> = std::iter::once((0, 0)).chain(others).collect();
        let (count, low, high) = marzullo(&intervals);
        let calendar = i128::from(wall.as_nanos()) - i128::from(self.show(now).as_nanos());
        let may_agree = |(difference, error): &&(i128, i128)| (difference - calendar).abs() - error <= self.epsilon;
        let may_agree = intervals.iter().skip(1).filter(may_agree).count().saturating_add(1) >= self.quorums.quorum();
        let stays = self.quorums.rests_on_time() && may_agree && calendar.abs() <= self.epsilon;
        if stays || count >= self.quorums.quorum() {
            let wanted = if calendar.abs() <= self.epsilon { calendar } else { 0 };
            let step = if stays { calendar } else { wanted.clamp(low, high) };
            let within = |(difference, error): &&(i128, i128)| (difference - step).abs() + error <= self.epsilon;
            self.agreed = intervals.iter().filter(within).count() >= self.quorums.quorum();
            self.disagreed = !self.agreed;
            if self.quorums.rests_on_time() && !(stays || all || self.agreed) {
                return 0;
            }
            self.step(step);
            return u64::try_from(step.unsigned_abs()).unwrap_or(u64::MAX);
        }
        (self.agreed, self.disagreed) = (false, true);
        if !all {
            return 0;
        }
        let mut heard: Vec<i128> = intervals.iter().map(|(difference, _)| *difference).collect();
        heard.sort_unstable();
        let extremes = self.quorums.faults().min(heard.len().saturating_sub(1) / 2);
        let inner = heard.get(extremes..heard.len().saturating_sub(extremes)).unwrap_or_default();
        let middle = inner.first().zip(inner.last()).map_or(0, |(low, high)| low.midpoint(*high));
        self.step(middle);
        self.samples.clear(); // the others move, too: ask again
        u64::try_from(middle.unsigned_abs()).unwrap_or(u64::MAX)
    }

    fn step(&mut self, by: i128) {
        self.offset = self.offset.saturating_add(by);
        self.samples.values_mut().for_each(|sample| sample.difference = sample.difference.saturating_sub(by));
    }
}

/// The smallest range that most of the intervals (middle and half width) share, with their number (Marzullo 1984).
fn marzullo(intervals: &[(i128, i128)]) -> (usize, i128, i128) {
    let mut edges: Vec<(i128, i8)> = Vec::with_capacity(intervals.len().saturating_mul(2));
    for (middle, half) in intervals {
        edges.push((middle.saturating_sub(*half), -1)); // begins; of equal edges, those that begin come first
        edges.push((middle.saturating_add(*half), 1));
    }
    edges.sort_unstable();
    let (mut open, mut best) = (0_usize, (0, 0, 0));
    for (index, (edge, kind)) in edges.iter().enumerate() {
        if *kind < 0 {
            open = open.saturating_add(1);
            if open > best.0 {
                let end = edges.get(index.saturating_add(1)).map_or(*edge, |(end, _)| *end);
                best = (open, *edge, end);
            }
        } else {
            open = open.saturating_sub(1);
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i128 = 1_000_000;

    #[test]
    fn most_agree_where_most_intervals_overlap() {
        assert_eq!(marzullo(&[(0, 0), (2, 3), (100, 1)]), (2, 0, 0));
        assert_eq!(marzullo(&[(10, 2), (12, 1), (11, 1)]), (3, 11, 12));
        assert_eq!(marzullo(&[(5, 5)]), (1, 0, 10));
    }

    fn clocks(replicas: usize, calendars: &[u64]) -> Vec<Clock> {
        let quorums = SyncQuorums::new(replicas).expect("a legal size");
        let new = |(index, calendar): (usize, &u64)| {
            let me = ReplicaId::new(u8::try_from(index).expect("small"));
            let wall = WallTime::from_nanos(*calendar);
            Clock::new(me, quorums, &Config::default(), (Instant::from_nanos(7), wall), WallTime::default())
        };
        calendars.iter().enumerate().map(new).collect()
    }

    /// All ask all; an answer takes 1 ms there and back. Those that lie say what `lie` makes of the truth for this asker.
    fn round(clocks: &mut [Clock], at: u64, lie: impl Fn(usize, usize, u64) -> u64) {
        let (asked, now) = (Instant::from_nanos(at), Instant::from_nanos(at + 1_000_000));
        clocks.iter_mut().for_each(|clock| clock.ask(asked));
        let shown: Vec<u64> = clocks.iter().map(|it| it.show(Instant::from_nanos(at + 500_000)).as_nanos()).collect();
        for (asker, clock) in clocks.iter_mut().enumerate() {
            for (other, shown) in shown.iter().enumerate().filter(|(other, _)| *other != asker) {
                let from = ReplicaId::new(u8::try_from(other).expect("small"));
                let told = WallTime::from_nanos(lie(asker, other, *shown));
                let _moved = clock.on_answer(from, at, told, (now, clock.show(now)));
            }
        }
    }

    fn spread(clocks: &[Clock], now: u64) -> i128 {
        let shown: Vec<_> = clocks.iter().map(|it| i128::from(it.show(Instant::from_nanos(now)).as_nanos())).collect();
        shown.iter().max().expect("some") - shown.iter().min().expect("some")
    }

    #[test]
    fn clocks_that_disagree_meet_in_the_middle_and_are_trusted_then() {
        for replicas in 2..=7 {
            let calendars: Vec<u64> = (0..replicas as u64).map(|it| 4_000_000_000 + it * it * 700_000_000).collect();
            let mut clocks = clocks(replicas, &calendars);
            for at in 1..=4_u64 {
                round(&mut clocks, at * 50_000_000, |_, _, shown| shown);
            }
            let now = 202_000_000;
            assert!(spread(&clocks, now) <= MS, "{replicas}: {}", spread(&clocks, now));
            assert!(clocks.iter().all(|it| it.reading(Instant::from_nanos(now)) == Reading::Synced));
        }
    }

    #[test]
    fn liars_that_answer_fast_do_not_pull_a_clock_by_as_much_as_honest_answers_take() {
        // Two of five say each time that the asker is 9 ms late. Honest answers take 30 ms, so their errors are beyond ε.
        let quorums = SyncQuorums::new(5).expect("a legal size");
        let (me, begun) = (ReplicaId::new(0), 4_000_000_000_u64);
        let calendar = |at: u64| (Instant::from_nanos(at), WallTime::from_nanos(begun + at));
        let mut clock = Clock::new(me, quorums, &Config::default(), calendar(0), WallTime::default());
        for round in 1..=20_u64 {
            let asked = round * 2_000_000_000;
            clock.ask(calendar(asked).0);
            for (from, after, lie) in
                [(3, 1_000_000, 9_000_000), (4, 1_000_000, 9_000_000), (1, 30_000_000, 0), (2, 30_000_000, 0)]
            {
                let now = calendar(asked + after);
                let shown = match lie {
                    0 => WallTime::from_nanos(begun + asked + after / 2),
                    lie => WallTime::from_nanos(clock.show(now.0).as_nanos() - after / 2 + lie),
                };
                let _moved = clock.on_answer(ReplicaId::new(from), asked, shown, now);
                let off = i128::from(clock.show(now.0).as_nanos()) - i128::from(now.1.as_nanos());
                assert!(off.abs() <= MS, "round {round}: off by {off} ns");
            }
        }
    }

    #[test]
    fn no_clock_moves_on_the_answers_of_a_few() {
        // Two of five say 15 ms more. One honest answer is so slow that it rules nothing out; the other one is on its way.
        let quorums = SyncQuorums::new(5).expect("a legal size");
        let calendar = |at: u64| (Instant::from_nanos(at), WallTime::from_nanos(4_000_000_000 + at));
        let mut clock = Clock::new(ReplicaId::new(0), quorums, &Config::default(), calendar(0), WallTime::default());
        clock.ask(calendar(0).0);
        for (from, after, lie) in
            [(3, 1_000_000, 15_000_000), (4, 1_000_000, 15_000_000), (1, 40_000_000, 0), (2, 42_000_000, 0)]
        {
            let shown = WallTime::from_nanos(4_000_000_000 + after / 2 + lie);
            let moved = clock.on_answer(ReplicaId::new(from), 0, shown, calendar(after));
            assert_eq!(moved, Some(0), "R{from}");
            assert_eq!(clock.show(calendar(after).0), calendar(after).1);
        }
    }

    #[test]
    fn no_clock_moves_to_the_middle_of_fewer_than_a_quorum() {
        let quorums = SyncQuorums::new(5).expect("a legal size");
        let calendar = |at: u64| (Instant::from_nanos(at), WallTime::from_nanos(4_000_000_000 + at));
        let mut clock = Clock::new(ReplicaId::new(0), quorums, &Config::default(), calendar(0), WallTime::default());
        clock.ask(calendar(0).0);
        let shown = WallTime::from_nanos(4_700_000_000);
        assert_eq!(clock.on_answer(ReplicaId::new(3), 0, shown, calendar(1_000_000)), Some(0));
        let later = calendar(100_000_000);
        assert_eq!(clock.settle(later.0, later.1), 0, "nobody else has answered");
        assert_eq!(clock.show(later.0), later.1);
    }

    #[test]
    fn a_liar_does_not_pull_clocks_apart_that_begin_within_the_bound() {
        let mut clocks = clocks(3, &[4_000_000_000, 4_003_000_000, 4_001_000_000]);
        for at in 1..=30_u64 {
            // R2 tells R0 that it is early and R1 that it is late, each time a little more.
            round(&mut clocks, at * 50_000_000, |asker, other, shown| match (asker, other) {
                (0, 2) => shown - at * 3_000_000,
                (1, 2) => shown + at * 3_000_000,
                _ => shown,
            });
            let now = at * 50_000_000 + 1_000_000;
            assert!(spread(&clocks[..2], now) <= 10 * MS, "{}", spread(&clocks[..2], now));
        }
    }

    #[test]
    fn without_a_quorum_that_agrees_within_epsilon_a_clock_is_not_trusted() {
        let mut clocks = clocks(3, &[4_000_000_000, 5_000_000_000, 7_000_000_000]);
        assert_eq!(clocks[0].reading(Instant::from_nanos(8)), Reading::Unknown);
        round(&mut clocks[..1], 50_000_000, |_, _, shown| shown); // nobody answers
        let now = Instant::from_nanos(51_000_000);
        clocks[0].ask(Instant::from_nanos(50_000_000));
        for other in [1, 2] {
            let told = WallTime::from_nanos(4_051_000_000 + u64::from(other) * 20_000_000);
            let _moved = clocks[0].on_answer(ReplicaId::new(other), 50_000_000, told, (now, WallTime::default()));
        }
        assert_ne!(clocks[0].reading(now), Reading::Synced);
    }

    #[test]
    fn an_answer_that_nobody_asked_for_does_not_count() {
        let mut clocks = clocks(3, &[0, 0, 0]);
        let now = Instant::from_nanos(9);
        assert_eq!(clocks[0].on_answer(ReplicaId::new(1), 3, WallTime::default(), (now, WallTime::default())), None);
    }
}
