//! The last five minutes, as rates: made of what replicas count since they started.

use super::Look;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Points that are kept, one a second.
pub const POINTS_MAX: usize = 300;

/// What happened between two looks.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Point {
    /// Operations applied a second, by the replica that is furthest; nothing if none of them said so twice in a row.
    pub ops_per_second: Option<f64>,
    /// Log syncs a second, of all replicas that answered twice in a row.
    pub syncs_per_second: Option<f64>,
    /// How long a linearizable read took, in milliseconds; nothing if it had no answer in time.
    pub read_ms: Option<f64>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct History {
    points: VecDeque<Point>,
    last: Option<(Instant, Counts)>,
}

#[derive(Debug)]
struct Counts {
    position: Option<u64>,
    syncs: Vec<Option<u64>>,
}

impl Counts {
    fn of(look: &Look) -> Self {
        let facts = || look.replicas.iter().map(|it| it.facts.as_ref().ok());
        Self {
            position: facts().flatten().map(|it| it.position).max(),
            syncs: facts().map(|it| it.map(|it| it.syncs)).collect(),
        }
    }
}

impl History {
    /// Adds a look that was taken at `at`, and how long a linearizable read took beside it.
    pub fn push(&mut self, look: &Look, read: Option<Duration>, at: Instant) -> Point {
        let counts = Counts::of(look);
        let mut point = Point { read_ms: read.map(|it| it.as_secs_f64() * 1000.0), ..Point::default() };
        if let Some((before, last)) = &self.last {
            let seconds = at.saturating_duration_since(*before).as_secs_f64().max(1e-3);
            // A replica that has restarted counts from zero again.
            let grown = |from: Option<u64>, to: Option<u64>| to?.checked_sub(from?).map(|it| it as f64 / seconds);
            point.ops_per_second = grown(last.position, counts.position);
            let syncs: Vec<f64> = last.syncs.iter().zip(&counts.syncs).filter_map(|(a, b)| grown(*a, *b)).collect();
            point.syncs_per_second = (!syncs.is_empty()).then(|| syncs.iter().sum());
        }
        self.last = Some((at, counts));
        if self.points.len() == POINTS_MAX {
            self.points.pop_front();
        }
        self.points.push_back(point);
        point
    }

    /// Nobody looked for a while: what comes next does not continue what was.
    pub fn interrupt(&mut self) {
        self.last = None;
        self.points.clear();
    }

    /// The points, oldest first.
    pub fn points(&self) -> impl ExactSizeIterator<Item = &Point> {
        self.points.iter()
    }

    /// The newest point.
    pub fn last(&self) -> Point {
        self.points.back().copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Facts, Process, ReplicaLook};
    use super::*;
    use quorate_core::ids::ReplicaId;

    fn look(replicas: &[Option<(u64, u64)>]) -> Look {
        let looks = (0_u8..).zip(replicas).map(|(index, it)| ReplicaLook {
            replica: ReplicaId::new(index),
            address: String::new(),
            facts: match it {
                Some((position, syncs)) => Ok(Facts { position: *position, syncs: *syncs, ..Facts::default() }),
                None => Err("silent".to_owned()),
            },
            process: Process::Unknown,
        });
        Look { replicas: looks.collect(), ..Look::default() }
    }

    #[test]
    fn rates_are_of_the_furthest_replica_and_of_all_syncs_between_two_looks() {
        let (mut history, start) = (History::default(), Instant::now());
        assert_eq!(history.push(&look(&[Some((10, 1)), Some((5, 2))]), None, start), Point::default());
        let later = start + Duration::from_secs(2);
        let point = history.push(&look(&[Some((30, 3)), Some((40, 6))]), Some(Duration::from_millis(3)), later);
        let expected = Point { ops_per_second: Some(15.0), syncs_per_second: Some(3.0), read_ms: Some(3.0) };
        assert_eq!(point, expected);
    }

    #[test]
    fn a_replica_that_was_silent_or_began_anew_is_no_rate() {
        let (mut history, start) = (History::default(), Instant::now());
        let second = Duration::from_secs(1);
        history.push(&look(&[Some((10, 9)), None]), None, start);
        let point = history.push(&look(&[None, Some((7, 9))]), None, start + second);
        assert_eq!((point.ops_per_second, point.syncs_per_second), (None, None));
        let point = history.push(&look(&[None, Some((9, 1))]), None, start + 2 * second);
        assert_eq!((point.ops_per_second, point.syncs_per_second), (Some(2.0), None));
    }

    #[test]
    fn five_minutes_are_kept_and_nothing_of_the_time_before_a_pause() {
        let (mut history, start) = (History::default(), Instant::now());
        for second in 0..POINTS_MAX as u64 + 5 {
            history.push(&look(&[Some((second, 0))]), None, start + Duration::from_secs(second));
        }
        assert_eq!(history.points().len(), POINTS_MAX);
        history.interrupt();
        assert_eq!(history.push(&look(&[Some((9000, 0))]), None, start + Duration::from_secs(900)), Point::default());
        assert_eq!(history.points().len(), 1);
    }
}
