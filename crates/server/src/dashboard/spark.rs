//! Sparklines: a number over the last five minutes, as a small drawing.

use super::html::escaped;
use std::fmt::Write;

/// Points that fill the width, until there are more.
const POINTS_MIN: usize = 60;
const WIDTH: f64 = 300.0;
const HEIGHT: f64 = 64.0;
/// Room above the highest point, so that its line is not cut.
const HEADROOM: f64 = 4.0;

/// A drawing of the points, oldest first; a point without a number is a gap. `about` is said to those who do not see it.
pub fn sparkline(points: impl ExactSizeIterator<Item = Option<f64>>, class: &str, about: &str) -> String {
    let count = points.len();
    let points: Vec<(usize, Option<f64>)> = points.enumerate().collect();
    let top = points.iter().filter_map(|(_, value)| *value).fold(0.0, f64::max).max(1e-9);
    let steps = (count.max(POINTS_MIN) - 1) as f64;
    let x = |index: usize| WIDTH - (count.saturating_sub(1).saturating_sub(index)) as f64 * WIDTH / steps;
    let y = |value: f64| HEIGHT - 1.0 - value / top * (HEIGHT - 1.0 - HEADROOM);
    let (mut line, mut area) = (String::new(), String::new());
    for run in points.split(|(_, value)| value.is_none()) {
        let run: Vec<(f64, f64)> = run.iter().filter_map(|(index, value)| Some((x(*index), y((*value)?)))).collect();
        let (Some(first), Some(last)) = (run.first(), run.last()) else { continue };
        let _infallible = write!(area, "M{:.1} {HEIGHT}", first.0);
        for (index, (x, y)) in run.iter().enumerate() {
            let pen = if index == 0 { 'M' } else { 'L' };
            let _infallible = write!(line, "{pen}{x:.1} {y:.1}");
            let _infallible = write!(area, "L{x:.1} {y:.1}");
        }
        if run.len() == 1 {
            line.push_str("h.1"); // a point of its own, drawn by the line's round ends
        }
        let _infallible = write!(area, "L{:.1} {HEIGHT}Z", last.0);
    }
    format!(
        "<svg class=\"spark {class}\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
         aria-label=\"{}\"><path class=\"area\" d=\"{area}\"/><path class=\"line\" d=\"{line}\"/></svg>",
        escaped(about)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_is_at_the_right_and_a_gap_stays_a_gap() {
        let svg = sparkline([Some(1.0), None, Some(2.0), Some(4.0)].into_iter(), "ops", "a \"b\"");
        assert!(svg.contains("aria-label=\"a &quot;b&quot;\""));
        let line = svg.split("class=\"line\" d=\"").nth(1).and_then(|it| it.split('"').next()).expect("a line");
        assert_eq!(line.matches('M').count(), 2, "{line}");
        assert!(line.ends_with("L300.0 4.0"), "{line}");
    }

    #[test]
    fn nothing_yet_is_drawn_as_nothing() {
        let svg = sparkline([None, None].into_iter(), "ops", "nothing");
        assert!(svg.contains("class=\"line\" d=\"\""), "{svg}");
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
