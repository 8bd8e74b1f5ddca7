//! Virtual time: a queue of what is yet to happen, and each process's own wrong idea of what time it is.

use quorate_core::time::{Instant, WallTime};
use std::collections::BTreeMap;

/// One microsecond of virtual time, in nanoseconds.
pub const MICRO: u64 = 1_000;
/// One millisecond of virtual time, in nanoseconds.
pub const MILLI: u64 = 1_000_000;
/// One second of virtual time, in nanoseconds.
pub const SECOND: u64 = 1_000_000_000;

/// What time it is in the world when a run begins, nanoseconds since 1970.
const EPOCH: u64 = 1_700_000_000 * SECOND;

/// What is yet to happen, by time and, within the same nanosecond, in the order in which it was scheduled.
#[derive(Debug)]
pub struct Queue<E> {
    now: u64,
    next: u64,
    events: BTreeMap<(u64, u64), E>,
}

impl<E> Default for Queue<E> {
    fn default() -> Self {
        Self { now: 0, next: 0, events: BTreeMap::new() }
    }
}

impl<E> Queue<E> {
    /// Virtual nanoseconds since the run began.
    pub fn now(&self) -> u64 {
        self.now
    }

    /// Lets `event` happen `delay` nanoseconds from now.
    pub fn after(&mut self, delay: u64, event: E) {
        self.at(self.now.saturating_add(delay), event);
    }

    /// Lets `event` happen at `time`, or now if that has passed.
    pub fn at(&mut self, time: u64, event: E) {
        self.events.insert((time.max(self.now), self.next), event);
        self.next = self.next.saturating_add(1);
    }

    /// The next thing that happens; time passes up to it.
    pub fn pop(&mut self) -> Option<E> {
        let ((time, _), event) = self.events.pop_first()?;
        self.now = time;
        Some(event)
    }

    /// Lets time pass up to `time`, in which nothing happens.
    pub fn advance(&mut self, time: u64) {
        let next = self.next_at().unwrap_or(u64::MAX);
        self.now = self.now.max(time.min(next));
    }

    /// When the next thing happens.
    pub fn next_at(&self) -> Option<u64> {
        self.events.first_key_value().map(|((time, _), _)| *time)
    }
}

/// A process's clocks: an arbitrary start, a constant drift, and a calendar that is off.
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    /// What the monotonic clock showed when the run began, nanoseconds.
    pub start: u64,
    /// How much faster than the world it runs, millionths; negative for slower.
    pub drift: i64,
    /// How far ahead of the world the calendar is, nanoseconds; negative for behind.
    pub skew: i64,
}

impl Clock {
    /// The monotonic clock at a virtual time.
    pub fn monotonic(&self, now: u64) -> Instant {
        Instant::from_nanos(self.start.saturating_add(self.elapsed(now)))
    }

    /// The calendar at a virtual time.
    pub fn wall(&self, now: u64) -> WallTime {
        WallTime::from_nanos(EPOCH.saturating_add(self.elapsed(now)).saturating_add_signed(self.skew))
    }

    /// The virtual time at which the monotonic clock shows `instant` or a little more.
    pub fn when(&self, instant: Instant) -> u64 {
        let local = i128::from(instant.as_nanos().saturating_sub(self.start));
        let rate = 1_000_000_i128.saturating_add(i128::from(self.drift));
        let world = local.saturating_mul(1_000_000).saturating_add(rate - 1) / rate;
        u64::try_from(world).unwrap_or(u64::MAX)
    }

    fn elapsed(&self, now: u64) -> u64 {
        let drifted = i128::from(now).saturating_mul(i128::from(self.drift)) / 1_000_000;
        u64::try_from(i128::from(now).saturating_add(drifted)).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_happen_in_the_order_of_their_times_then_of_their_scheduling() {
        let mut queue = Queue::default();
        queue.after(5, 'c');
        queue.after(3, 'a');
        queue.after(3, 'b');
        let order: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(order, ['a', 'b', 'c']);
        assert_eq!(queue.now(), 5);
    }

    #[test]
    fn a_drifting_clock_reaches_its_deadline_when_it_says_so() {
        for drift in [-900, 0, 37, 1000] {
            let clock = Clock { start: 77, drift, skew: -5 };
            for now in [0, 1, 999, 123_456_789, 60 * SECOND] {
                let shown = clock.monotonic(now);
                let when = clock.when(shown);
                assert!(clock.monotonic(when) >= shown, "drift {drift} now {now}");
                assert!(when <= now.saturating_add(2), "drift {drift} now {now} when {when}");
            }
        }
    }
}
