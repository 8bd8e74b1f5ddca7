//! Line charts as SVG, for numbers that people would rather look at than read.

use std::fmt::Write;

/// A chart: lines over one axis. The vertical one is logarithmic.
#[derive(Debug)]
pub struct Chart {
    /// Above it.
    pub title: String,
    /// What the horizontal axis counts.
    pub across: &'static str,
    /// What the vertical axis counts.
    pub up: &'static str,
    /// The horizontal axis begins at zero and is linear; otherwise it is logarithmic, too.
    pub linear: bool,
    /// The lines.
    pub lines: Vec<Line>,
}

/// One line.
#[derive(Debug)]
pub struct Line {
    /// Its name.
    pub name: String,
    /// Its points, from left to right. No number is negative, and none is zero unless it lies on a linear axis.
    pub points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 620.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 74.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 52.0;
/// So many places on the horizontal axis are named one by one.
const COLUMNS_MAX: usize = 10;
/// Distinguishable also for those who do not see red and green apart (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

/// Draws charts one below the other.
pub fn svg(charts: &[Chart]) -> String {
    let height = HEIGHT * charts.len() as f64;
    let mut out = String::new();
    let _infallible = writeln!(
        out,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"system-ui, sans-serif\" \
         font-size=\"12\" fill=\"#222\"><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
    );
    for (index, chart) in charts.iter().enumerate() {
        draw(chart, HEIGHT * index as f64, &mut out);
    }
    out.push_str("</svg>\n");
    out
}

fn draw(chart: &Chart, top: f64, out: &mut String) {
    let all = || chart.lines.iter().flat_map(|line| &line.points);
    let across = all().map(|point| point.0);
    let across = if chart.linear { Scale::linear(across) } else { Scale::of(across) };
    let up = Scale::of(all().map(|point| point.1));
    let x = |value: f64| LEFT + across.place(value) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| top + HEIGHT - BOTTOM - up.place(value) * (HEIGHT - TOP - BOTTOM);
    let (bottom, right) = (top + HEIGHT - BOTTOM, WIDTH - RIGHT);
    let mut add = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    add(format!("<text x=\"{LEFT}\" y=\"{}\" font-weight=\"600\">{}</text>", top + 22.0, escape(&chart.title)));
    for (place, label) in up.marks() {
        let y = y(place);
        add(format!("<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#ddd\"/>"));
        add(format!("<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>", LEFT - 8.0, y + 4.0));
    }
    let mut columns: Vec<f64> = all().map(|point| point.0).collect();
    columns.sort_unstable_by(f64::total_cmp);
    columns.dedup();
    let columns = if columns.len() > COLUMNS_MAX { across.marks() } else { named(&columns) };
    for (place, label) in columns {
        let x = x(place);
        add(format!("<path d=\"M{x:.1} {bottom}v5\" stroke=\"#222\"/>"));
        add(format!("<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>", bottom + 19.0));
    }
    add(format!("<path d=\"M{LEFT} {bottom}H{right}\" stroke=\"#222\"/>"));
    let middle = f64::midpoint(LEFT, right);
    add(format!("<text x=\"{middle}\" y=\"{}\" text-anchor=\"middle\">{}</text>", bottom + 38.0, chart.across));
    let side = f64::midpoint(top + TOP, bottom);
    add(format!(
        "<text x=\"16\" y=\"{side}\" text-anchor=\"middle\" transform=\"rotate(-90 16 {side})\">{}</text>",
        chart.up
    ));
    for ((index, line), colour) in chart.lines.iter().enumerate().zip(COLOURS.iter().cycle()) {
        let points: Vec<String> = line.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
        add(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            points.join(" ")
        ));
        for (a, b) in &line.points {
            add(format!("<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"2.5\" fill=\"{colour}\"/>", x(*a), y(*b)));
        }
        let label = top + TOP + 8.0 + 18.0 * index as f64;
        add(format!("<path d=\"M{} {}h16\" stroke=\"{colour}\" stroke-width=\"2\"/>", right + 10.0, label - 4.0));
        add(format!("<text x=\"{}\" y=\"{label}\">{}</text>", right + 32.0, escape(&line.name)));
    }
}

/// A scale from the smallest to the largest number: logarithmic, or from zero on and linear.
struct Scale {
    low: f64,
    high: f64,
    linear: bool,
}

impl Scale {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let low = values.clone().fold(f64::INFINITY, f64::min);
        let high = values.fold(f64::NEG_INFINITY, f64::max);
        match low.is_finite() && low > 0.0 {
            true if high > low * 1.2 => Self { low, high, linear: false },
            true => Self { low: low * 0.7, high: high * 1.4, linear: false },
            false => Self { low: 1.0, high: 10.0, linear: false },
        }
    }

    fn linear(values: impl Iterator<Item = f64>) -> Self {
        let high = values.fold(0.0, f64::max);
        Self { low: 0.0, high: if high > 0.0 { high } else { 1.0 }, linear: true }
    }

    /// From 0 to 1.
    fn place(&self, value: f64) -> f64 {
        if self.linear {
            return (value / self.high).clamp(0.0, 1.0);
        }
        ((value / self.low).ln() / (self.high / self.low).ln()).clamp(0.0, 1.0)
    }

    /// Round numbers within the scale, with their texts: 1, 2 and 5 times a power of ten, or more of them on a short scale.
    fn marks(&self) -> Vec<(f64, String)> {
        if self.linear {
            return named(&[0.0, 0.25, 0.5, 0.75, 1.0].map(|part| part * self.high));
        }
        let powers = (self.low.log10().floor() as i32)..=(self.high.log10().ceil() as i32);
        let digits: &[f64] =
            if self.high / self.low > 8.0 { &[1.0, 2.0, 5.0] } else { &[1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 7.0] };
        let round = powers.flat_map(|power| digits.iter().map(move |digit| (*digit, power)));
        let within = round.map(|(digit, power)| (digit * 10_f64.powi(power), power));
        let within = within.filter(|(value, _)| (self.low * 0.999..=self.high * 1.001).contains(value));
        within.map(|(value, power)| (value, short(value, power))).collect()
    }
}

/// Numbers with their texts.
fn named(values: &[f64]) -> Vec<(f64, String)> {
    let power = |value: f64| if value > 0.0 { value.log10().floor() as i32 } else { 0 };
    values.iter().map(|value| (*value, short(*value, power(*value)))).collect()
}

/// Two digits of a number whose first one counts this power of ten.
fn short(value: f64, power: i32) -> String {
    let (scaled, unit) = match value {
        value if value >= 1e6 => (value / 1e6, "M"),
        value if value >= 1e3 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let digits = if value < 1.0 { usize::try_from(-power).unwrap_or(0).saturating_add(1) } else { 1 };
    let text = format!("{scaled:.digits$}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let lines = vec![Line { name: "a < b".to_owned(), points }];
        Chart { title: "a & b".to_owned(), across: "replicas", up: "op/s", linear: false, lines }
    }

    #[test]
    fn a_chart_has_its_points_its_marks_and_its_names() {
        let drawn = svg(&[chart(vec![(4.0, 1000.0), (100.0, 50_000.0)])]);
        assert_eq!(drawn.matches("<circle").count(), 2);
        assert!(drawn.contains(">10k<") && drawn.contains(">100<") && drawn.contains("a &lt; b"), "{drawn}");
    }

    #[test]
    fn a_linear_axis_begins_at_zero() {
        let chart = Chart { linear: true, ..chart(vec![(0.0, 10.0), (0.25, 20.0), (1.0, 40.0)]) };
        let drawn = svg(&[chart]);
        assert!(drawn.contains("<circle cx=\"74.0\"") && drawn.contains(">0.25<") && !drawn.contains("NaN"), "{drawn}");
    }

    #[test]
    fn a_chart_without_extent_is_drawn_all_the_same() {
        for points in [vec![], vec![(4.0, 7.0)], vec![(4.0, 7.0), (7.0, 7.0)]] {
            let drawn = svg(&[chart(points)]);
            assert!(drawn.ends_with("</svg>\n") && !drawn.contains("NaN"), "{drawn}");
        }
    }
}
