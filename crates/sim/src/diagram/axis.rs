//! Where a moment is. Between two moments in which something happens there is a place in proportion to the time that
//! passes, but never more than [`GAP_MAX`]: what is longer is shortened, and marked.

/// Space between two different moments, however close they are, pixels.
const GAP_MIN: f64 = 8.0;
/// Space between two moments, however far apart they are, pixels.
const GAP_MAX: f64 = 120.0;
/// A message of median latency spans this, pixels, if nothing happens meanwhile.
const FLIGHT: f64 = 90.0;
/// Where the first moment is, pixels.
const START: f64 = 26.0;
/// Right of the last moment, for its words, pixels.
const END: f64 = 190.0;
/// A picture that would be narrower is stretched up to this, pixels, but not more than [`STRETCH_MAX`] times.
const WIDTH_MIN: f64 = 900.0;
/// See [`WIDTH_MIN`].
const STRETCH_MAX: f64 = 1.8;

/// Idle time that was shortened.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Break {
    /// The middle of its place, pixels.
    pub x: f64,
    /// How much time passes, nanoseconds.
    pub nanos: u64,
}

/// The axis: moments, nanoseconds, and their places, pixels; both ascend.
#[derive(Clone, Debug)]
pub struct Axis {
    points: Vec<(u64, f64)>,
    breaks: Vec<Break>,
}

impl Axis {
    /// An axis for these moments, in any order. `flight` is the median latency of a message, nanoseconds.
    pub fn new(mut moments: Vec<u64>, flight: u64) -> Self {
        moments.sort_unstable();
        moments.dedup();
        let scale = FLIGHT / flight.max(1) as f64;
        let (mut points, mut breaks): (Vec<(u64, f64)>, _) = (Vec::new(), Vec::new());
        for moment in moments {
            let Some((before, at)) = points.last().copied() else {
                points.push((moment, START));
                continue;
            };
            let passes = moment - before;
            let wanted = passes as f64 * scale;
            let x = at + GAP_MIN + wanted.min(GAP_MAX - GAP_MIN);
            if wanted > 3.0 * GAP_MAX {
                breaks.push(Break { x: (at + x) / 2.0, nanos: passes });
            }
            points.push((moment, x));
        }
        let width = points.last().map_or(0.0, |(_, x)| *x);
        let stretch = (WIDTH_MIN / width.max(1.0)).clamp(1.0, STRETCH_MAX);
        let stretched = |x: &mut f64| *x = START + (*x - START) * stretch;
        points.iter_mut().for_each(|(_, x)| stretched(x));
        breaks.iter_mut().for_each(|it| stretched(&mut it.x));
        Self { points, breaks }
    }

    /// Where a moment is; before the first and after the last, the ends.
    pub fn x(&self, moment: u64) -> f64 {
        let after = self.points.partition_point(|(at, _)| *at < moment);
        match (after.checked_sub(1).and_then(|index| self.points.get(index)), self.points.get(after)) {
            (_, Some((at, x))) if *at == moment => *x,
            (Some((a, from)), Some((b, to))) => from + (to - from) * (moment - a) as f64 / (b - a) as f64,
            (None, Some((_, x))) | (Some((_, x)), None) => *x,
            (None, None) => START,
        }
    }

    /// Which moment is at a place.
    pub fn moment(&self, x: f64) -> u64 {
        let after = self.points.partition_point(|(_, at)| *at < x);
        match (after.checked_sub(1).and_then(|index| self.points.get(index)), self.points.get(after)) {
            (Some((a, from)), Some((b, to))) => a + ((b - a) as f64 * (x - from) / (to - from)) as u64,
            (None, Some((at, _))) | (Some((at, _)), None) => *at,
            (None, None) => 0,
        }
    }

    /// The width of everything, pixels.
    pub fn width(&self) -> f64 {
        self.points.last().map_or(START, |(_, x)| *x) + END
    }

    /// Idle time that was shortened.
    pub fn breaks(&self) -> &[Break] {
        &self.breaks
    }

    /// Moments and places.
    pub fn points(&self) -> &[(u64, f64)] {
        &self.points
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_moments_are_further_right_and_idle_time_is_short() {
        let axis = Axis::new(vec![5_000, 1_000, 1_000, 1_001, 900_000_000], 1_000);
        let places: Vec<f64> = [1_000, 1_001, 3_000, 5_000, 900_000_000].iter().map(|at| axis.x(*at)).collect();
        assert!(places.windows(2).all(|pair| pair[0] < pair[1]), "{places:?}");
        assert_eq!(axis.breaks().len(), 1);
        assert!(axis.width() < 800.0, "{}", axis.width());
    }

    #[test]
    fn a_place_leads_back_to_its_moment() {
        let axis = Axis::new(vec![1_000, 2_000, 50_000], 1_000);
        for moment in [1_000, 1_500, 2_000, 30_000, 50_000] {
            assert!(axis.moment(axis.x(moment)).abs_diff(moment) <= 1, "{moment}");
        }
        assert_eq!(axis.moment(-5.0), 1_000);
        assert_eq!(axis.moment(1e9), 50_000);
    }

    #[test]
    fn nothing_at_all_has_an_axis() {
        let axis = Axis::new(Vec::new(), 0);
        assert_eq!((axis.x(5), axis.moment(5.0)), (START, 0));
    }
}
