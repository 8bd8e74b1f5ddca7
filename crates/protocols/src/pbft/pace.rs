//! What a primary must achieve, and what a peer may ask for.
//!
//! **A primary that must keep up.** The timer of §4.4 replaces a primary that stops. One that is slow on purpose stays just
//! below it, for ever (Clement, Wong, Alvisi, Dahlin and Marchetti, *Making Byzantine Fault Tolerant Systems Tolerate Byzantine
//! Faults*, NSDI 2009, "Aardvark", §4.4). So a backup counts what is executed in each period. While requests wait at the
//! backups, which means that clients have lost patience with the primary, a period must bring what this view is required to:
//! at first half of what the last views achieved in their best periods, then a little more each period, up to three fourths of
//! the best. Two periods in a row that bring less are too many: one may be somebody else's load. Where the demand has fallen for good, a few changes of view later nobody remembers the better days. It costs no
//! timer and no message: periods end when something is executed, and a primary that executes nothing meets §4.4.
//!
//! **Quotas.** A question is short and its answer long. Each replica gets [`ANSWER_BYTES_MAX`] of answers in a period; what it
//! asks for beyond that is ignored, and asked again by those who are honest.
//!
//! **Grants.** A replica that has lost its promises is silent until the group has got beyond what it may have promised. In a group
//! that has nothing to order it asks the others to get there all the same; each replica is granted that once in 8 `resend_max`.

use super::Outbox;
use super::replica::Replica;
use quorate_core::fault::Why;
use quorate_core::ids::ReplicaId;
use quorate_core::outbox::Note;
use quorate_core::time::{Duration, Instant};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of answers that one replica gets in a period of [`Config::resend`](super::Config::resend), unless the last one is
/// longer.
pub(super) const ANSWER_BYTES_MAX: usize = 8 << 20;
/// What an answer costs beside its bytes, for the quota: 2,048 questions in a period are too many, however short the answers.
const ANSWER_OVERHEAD_BYTES: usize = 4 << 10;

/// A period counts against the primary if requests waited here for a fourth of it.
const PRESSURE_PART: u64 = 4;
/// A primary is left after so many periods in a row that brought too little.
const BAD_PERIODS: u8 = 2;
/// What is required rises by this part of itself each period.
const RISE_PART: u64 = 64;

/// What the primary achieves.
#[derive(Debug, Default)]
pub(super) struct Pace {
    began: Option<Instant>,
    /// Requests executed in this period.
    executed: u64,
    /// Requests wait here since then; the nanoseconds of this period in which some waited before.
    waiting: Option<Instant>,
    waited: u64,
    /// What a period must bring; zero while nothing is known, and in the first period of a view.
    required: u64,
    /// Periods in a row that brought less.
    bad: u8,
    /// The best period of this view; of each of the views before.
    best: u64,
    former: VecDeque<u64>,
}

impl Pace {
    /// A view has started: what it must achieve follows from the last `views`.
    pub(super) fn begin(&mut self, views: usize) {
        self.former.push_back(self.best);
        while self.former.len() > views {
            self.former.pop_front();
        }
        let former = std::mem::take(&mut self.former);
        let required = former.iter().max().map_or(0, |best| best / 2);
        *self = Self { former, required, ..Self::default() };
    }

    /// Requests wait here, or none does.
    pub(super) fn note(&mut self, waits: bool, now: Instant) {
        match (self.waiting, waits) {
            (None, true) => self.waiting = Some(now),
            (Some(since), false) => {
                self.waited = self.waited.saturating_add(nanos(now.since(since)));
                self.waiting = None;
            }
            _ => {}
        }
    }

    /// So many requests were executed. At the end of a period: was that enough?
    pub(super) fn executed(&mut self, requests: u64, period: Duration, now: Instant) -> bool {
        self.executed = self.executed.saturating_add(requests);
        let Some(began) = self.began else {
            self.next_period(now);
            return true;
        };
        let (elapsed, period) = (nanos(now.since(began)), nanos(period));
        if elapsed < period || period == 0 {
            return true;
        }
        self.note(false, now);
        let pressed = self.waited >= elapsed / PRESSURE_PART;
        let brought = u64::try_from(u128::from(self.executed) * u128::from(period) / u128::from(elapsed));
        let brought = brought.unwrap_or(u64::MAX);
        self.bad = if pressed && brought < self.required { self.bad.saturating_add(1) } else { 0 };
        self.best = self.best.max(brought);
        let limit = self.former.iter().copied().max().unwrap_or_default().max(self.best) / 4 * 3;
        self.required = self.required.saturating_add(self.required / RISE_PART).max(self.best / 2).min(limit);
        self.next_period(now);
        self.bad < BAD_PERIODS
    }

    fn next_period(&mut self, now: Instant) {
        (self.began, self.executed, self.waited, self.waiting) = (Some(now), 0, 0, None);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// What was answered to each replica in this period.
#[derive(Debug, Default)]
pub(crate) struct Quotas {
    began: Option<Instant>,
    spent: BTreeMap<ReplicaId, usize>,
}

impl Quotas {
    /// May this replica be answered? It is charged for having asked.
    pub(crate) fn admits(&mut self, from: ReplicaId, period: Duration, now: Instant) -> bool {
        if self.began.is_none_or(|began| now.since(began) >= period) {
            self.began = Some(now);
            self.spent.clear();
        }
        let spent = self.spent.entry(from).or_default();
        let admitted = *spent < ANSWER_BYTES_MAX;
        if admitted {
            *spent = spent.saturating_add(ANSWER_OVERHEAD_BYTES);
        }
        admitted
    }

    /// The answer had so many bytes.
    pub(crate) fn spend(&mut self, from: ReplicaId, bytes: usize) {
        if let Some(spent) = self.spent.get_mut(&from) {
            *spent = spent.saturating_add(bytes);
        }
    }
}

/// Each replica is granted one wish in so many periods of `resend_max`: in 16 s. Nobody loses its disk more often, and of a group
/// at rest a liar gets no more work than that.
const GRANT_PERIODS: u32 = 8;

/// What silent replicas have asked the others to get beyond, and were granted; `T` is a view, an entry or a time.
#[derive(Debug)]
pub(crate) struct Grants<T> {
    highest: Option<T>,
    to: BTreeMap<ReplicaId, Grant<T>>,
}

/// The last one to a replica.
#[derive(Debug)]
struct Grant<T> {
    until: T,
    at: Instant,
    /// When it was asked for last.
    asked: Instant,
}

impl<T> Default for Grants<T> {
    fn default() -> Self {
        Self { highest: None, to: BTreeMap::new() }
    }
}

impl<T: Copy + Ord> Grants<T> {
    /// Grants this, unless the replica has had its share. What was granted may be asked for again once in each `resend`. True if it
    /// is granted for the first time.
    pub(crate) fn grant(
        &mut self,
        to: ReplicaId,
        until: T,
        (resend, resend_max): (Duration, Duration),
        now: Instant,
    ) -> Result<bool, Why> {
        let first = match self.to.get_mut(&to) {
            Some(grant) if until <= grant.until => {
                if now.since(grant.asked) < resend {
                    return Err(Why::Busy);
                }
                grant.asked = now;
                false
            }
            Some(grant) if now.since(grant.at) < resend_max.saturating_mul(GRANT_PERIODS) => return Err(Why::Busy),
            _ => {
                self.to.insert(to, Grant { until, at: now, asked: now });
                true
            }
        };
        self.highest = self.highest.max(Some(until));
        Ok(first)
    }

    /// The furthest of what was granted.
    pub(crate) fn until(&self) -> Option<T> {
        self.highest
    }
}

impl Replica {
    /// So many requests were executed; a primary that brings too few is left.
    pub(super) fn keeps_up(&mut self, requests: u64, out: &mut Outbox) {
        let waits = self.pool.oldest().is_some();
        let enough = self.pace.executed(requests, self.config.keep_up, out.now());
        self.pace.note(waits, out.now());
        if !enough && self.is_active() && !self.is_primary() && self.may_vote() {
            out.note(Note::Suspects(self.view));
            self.leave_view(self.view.next(), out);
        }
    }

    /// The view has lasted long enough, if views are to change from time to time.
    pub(super) fn rotate(&mut self, out: &mut Outbox) {
        let lasted = self.low().since(self.view_began);
        if self.config.rotate_entries > 0 && lasted >= self.config.rotate_entries && self.is_active() && self.may_vote()
        {
            self.leave_view(self.view.next(), out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PERIOD: Duration = Duration::from_secs(1);

    /// So many periods of so many requests each, with requests that wait or none; true if all were enough.
    fn periods(pace: &mut Pace, now: &mut u64, count: u64, requests: u64, waits: bool) -> bool {
        (0..count).all(|_| {
            pace.note(waits, Instant::from_nanos(*now));
            *now += 1_000_000_000;
            pace.executed(requests, PERIOD, Instant::from_nanos(*now))
        })
    }

    #[test]
    fn what_is_required_rises_and_a_primary_at_its_best_meets_it() {
        let (mut pace, mut now) = (Pace::default(), 1);
        assert!(periods(&mut pace, &mut now, 200, 1000, true));
        assert!(pace.required > 700, "{pace:?}");
        assert!(periods(&mut pace, &mut now, 1, 650, true) && periods(&mut pace, &mut now, 1, 1000, true), "once");
        assert!(!periods(&mut pace, &mut now, 2, 650, true), "no longer enough");
    }

    #[test]
    fn a_primary_at_a_third_of_what_others_achieved_is_left_at_once() {
        let (mut pace, mut now) = (Pace::default(), 1);
        assert!(periods(&mut pace, &mut now, 3, 1000, false));
        pace.begin(4);
        assert!(!periods(&mut pace, &mut now, 3, 330, true));
    }

    #[test]
    fn who_is_asked_for_less_may_do_less() {
        let (mut pace, mut now) = (Pace::default(), 1);
        assert!(periods(&mut pace, &mut now, 3, 1000, true));
        assert!(periods(&mut pace, &mut now, 50, 10, false), "nobody waits");
    }

    #[test]
    fn when_everybody_is_slow_views_stop_changing() {
        let (mut pace, mut now) = (Pace::default(), 1);
        assert!(periods(&mut pace, &mut now, 3, 1000, true));
        let mut changes = 0;
        for _ in 0..50 {
            if !periods(&mut pace, &mut now, 3, 100, true) {
                changes += 1;
                pace.begin(4);
            }
        }
        assert!((1..=5).contains(&changes), "{changes}");
    }

    #[test]
    fn one_replica_is_granted_one_wish_in_eight_periods_and_may_repeat_it() {
        let mut grants = Grants::default();
        let (greedy, other) = (ReplicaId::new(1), ReplicaId::new(2));
        let at = |seconds: u64| Instant::from_nanos(seconds * 1_000_000_000);
        let mut ask = |who, until: u64, now| grants.grant(who, until, (PERIOD, PERIOD), at(now));
        assert_eq!(ask(greedy, 5, 1), Ok(true));
        assert_eq!(ask(greedy, 6, 2), Err(Why::Busy));
        assert_eq!(ask(other, 6, 2), Ok(true), "others have wishes of their own");
        assert_eq!(ask(greedy, 5, 3), Ok(false));
        assert_eq!(ask(greedy, 4, 3), Err(Why::Busy), "not all the time");
        assert_eq!(ask(greedy, 7, 8), Err(Why::Busy));
        assert_eq!(ask(greedy, 7, 9), Ok(true));
        assert_eq!(grants.until(), Some(7));
    }

    #[test]
    fn one_replica_gets_its_quota_and_no_more_until_the_next_period() {
        let mut quotas = Quotas::default();
        let (greedy, other) = (ReplicaId::new(1), ReplicaId::new(2));
        let answered = |quotas: &mut Quotas, now| {
            let asked = (0..100).filter(|_| {
                let admitted = quotas.admits(greedy, PERIOD, Instant::from_nanos(now));
                quotas.spend(greedy, if admitted { 1 << 20 } else { 0 });
                admitted
            });
            asked.count()
        };
        assert_eq!(answered(&mut quotas, 1), 8);
        assert!(quotas.admits(other, PERIOD, Instant::from_nanos(2)));
        assert_eq!(answered(&mut quotas, 2_000_000_000), 8);
    }
}
