//! The live space-time strip: the last messages as arrows between lines, time from left to right.

use super::html::escaped;
use super::tape::{Arrow, Lane, Scene};
use quorate_core::ids::ReplicaId;
use std::collections::BTreeSet;
use std::fmt::Write;

const WIDTH: f64 = 1000.0;
/// Room for the lines' names.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 20.0;
const LANE: f64 = 52.0;
/// Room for the time below the lowest line.
const BOTTOM: f64 = 30.0;
/// How far the unknown end of an arrow, at a client, is from the known one.
const CLIENT_REACH: f64 = 9.0;
/// How much of the way a lost message is drawn.
const LOST_REACH: f64 = 0.45;
/// With more arrows than this their names would cover each other.
const LABELLED_MAX: usize = 26;
/// Colours that the style sheet has.
const COLOURS: usize = 10;
/// Messages in the list for those who do not see the picture.
const LISTED: usize = 20;

/// The picture, a legend, and the last messages as a list.
pub fn strip(scene: &Scene, replicas: &[ReplicaId]) -> String {
    if scene.arrows.is_empty() && scene.marks.is_empty() {
        return "<p class=\"quiet\">No messages yet. Replicas record them only while somebody looks.</p>".to_owned();
    }
    let drawing = Drawing { scene, replicas };
    let mut html = drawing.svg();
    let labels: BTreeSet<(&str, usize)> = scene.arrows.iter().map(|it| (it.label.as_str(), it.kind)).collect();
    html.push_str("<ul class=\"legend\">");
    for (label, kind) in labels {
        let (colour, label) = (kind % COLOURS, escaped(label));
        let _infallible = write!(
            html,
            "<li><svg class=\"key k{colour}\" viewBox=\"0 0 18 8\" width=\"18\" height=\"8\" aria-hidden=\"true\">\
             <path d=\"M0 4h18\"/></svg>{label}</li>"
        );
    }
    html.push_str("</ul>");
    let shown = scene.arrows.len();
    let from = shown.saturating_sub(LISTED);
    let _infallible = write!(
        html,
        "<details id=\"d-messages\"><summary>The last {} as text</summary><ol class=\"messages\">",
        shown - from
    );
    for arrow in scene.arrows.iter().skip(from) {
        let _infallible = write!(html, "<li>{}</li>", escaped(&sentence(arrow, scene.to)));
    }
    html.push_str("</ol></details>");
    html
}

/// `R0 → R1 Prepare, 0.31 ms`
fn sentence(arrow: &Arrow, now: u64) -> String {
    let ago = now.saturating_sub(arrow.begins()) as f64 / 1e6;
    let fate = match (arrow.sent, arrow.received) {
        (Some(sent), Some(received)) => format!("took {:.2} ms", received.saturating_sub(sent) as f64 / 1e6),
        _ if arrow.is_lost(now) => "has not arrived".to_owned(),
        (Some(_), None) if arrow.to != Lane::Clients => "is under way".to_owned(),
        _ => "the client's end is not recorded".to_owned(),
    };
    format!("{} → {}  {}, {ago:.1} ms before the right edge, {fate}", name(arrow.from), name(arrow.to), arrow.label)
}

fn name(lane: Lane) -> String {
    match lane {
        Lane::Clients => "clients".to_owned(),
        Lane::Replica(replica) => replica.to_string(),
    }
}

/// At most one digit after the point.
fn brief(number: f64) -> String {
    format!("{number:.1}").trim_end_matches(".0").replace('-', "−")
}

struct Drawing<'a> {
    scene: &'a Scene,
    replicas: &'a [ReplicaId],
}

impl Drawing<'_> {
    fn svg(&self) -> String {
        let height = TOP + LANE * self.replicas.len() as f64 + BOTTOM;
        let span = self.span_ms();
        let shown = brief(span);
        let mut svg = format!(
            "<div class=\"strip\"><svg viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" \
             aria-label=\"The messages of the last {shown} milliseconds: {} of them\">",
            self.scene.arrows.len()
        );
        let bottom = self.y(Lane::Clients) + LANE * self.replicas.len() as f64 + 8.0;
        for tick in 0..=5_u8 {
            let x = LEFT + (WIDTH - LEFT - RIGHT) * f64::from(tick) / 5.0;
            let at = span * (f64::from(tick) / 5.0 - 1.0);
            let text = if tick == 5 { "now".to_owned() } else { format!("{} ms", brief(at)) };
            let _infallible = write!(
                svg,
                "<path class=\"tick\" d=\"M{x:.1} {TOP}V{bottom:.1}\"/><text class=\"time\" x=\"{x:.1}\" y=\"{:.1}\">{text}</text>",
                bottom + 15.0
            );
        }
        let lanes = std::iter::once(Lane::Clients).chain(self.replicas.iter().copied().map(Lane::Replica));
        for lane in lanes {
            let y = self.y(lane);
            let _infallible = write!(
                svg,
                "<path class=\"lane\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text class=\"name\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 10.0,
                y + 4.0,
                name(lane)
            );
        }
        let labelled = self.scene.arrows.len() <= LABELLED_MAX;
        for arrow in &self.scene.arrows {
            svg.push_str(&self.arrow(arrow, labelled));
        }
        for mark in &self.scene.marks {
            let (x, y) = (self.x(mark.at), self.y(Lane::Replica(mark.replica)));
            let words = escaped(&mark.words);
            let _infallible = write!(
                svg,
                "<g class=\"mark\"><title>{} {words}</title><path d=\"M{x:.1} {:.1}l6 6l-6 6l-6-6Z\"/></g>",
                mark.replica,
                y - 6.0
            );
        }
        svg.push_str("</svg></div>");
        svg
    }

    fn arrow(&self, arrow: &Arrow, labelled: bool) -> String {
        let lost = arrow.is_lost(self.scene.to);
        let x1 = arrow.sent.map(|at| self.x(at));
        let x2 = arrow.received.map(|at| self.x(at));
        let (x1, x2) = match (x1, x2) {
            (Some(x1), Some(x2)) => (x1, x2),
            (Some(x1), None) => (x1, (x1 + CLIENT_REACH).min(WIDTH - RIGHT)),
            (None, Some(x2)) => ((x2 - CLIENT_REACH).max(LEFT), x2),
            (None, None) => return String::new(),
        };
        let (y1, y2) = (self.y(arrow.from), self.y(arrow.to));
        let flying = arrow.received.is_none() && arrow.to != Lane::Clients;
        let reach = if flying { LOST_REACH } else { 1.0 };
        let (x2, y2) = (x1 + (x2 - x1) * reach, y1 + (y2 - y1) * reach);
        let class = if lost { " lost" } else { "" };
        let mut svg = format!(
            "<g class=\"m k{}{class}\"><title>{}</title><path class=\"shaft\" d=\"M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}\"/>",
            arrow.kind % COLOURS,
            escaped(&sentence(arrow, self.scene.to))
        );
        if lost {
            let _infallible =
                write!(svg, "<path class=\"cross\" d=\"M{:.1} {:.1}l8 8m0-8l-8 8\"/>", x2 - 4.0, y2 - 4.0);
        } else if !flying {
            svg.push_str(&head(x1, y1, x2, y2));
        }
        if labelled {
            let (x, y) = (x1 + (x2 - x1) * 0.5, y1 + (y2 - y1) * 0.5 - 4.0);
            let _infallible =
                write!(svg, "<text class=\"label\" x=\"{x:.1}\" y=\"{y:.1}\">{}</text>", escaped(&arrow.label));
        }
        svg.push_str("</g>");
        svg
    }

    fn span_ms(&self) -> f64 {
        self.scene.to.saturating_sub(self.scene.from) as f64 / 1e6
    }

    fn x(&self, at: u64) -> f64 {
        let span = self.scene.to.saturating_sub(self.scene.from).max(1) as f64;
        let share = at.saturating_sub(self.scene.from) as f64 / span;
        LEFT + (WIDTH - LEFT - RIGHT) * share.clamp(0.0, 1.0)
    }

    fn y(&self, lane: Lane) -> f64 {
        let index = match lane {
            Lane::Clients => 0,
            // A replica that is none of ours is drawn at the lowest line.
            Lane::Replica(replica) => {
                1 + self.replicas.iter().position(|it| *it == replica).unwrap_or(self.replicas.len().saturating_sub(1))
            }
        };
        TOP + LANE * index as f64
    }
}

/// A triangle at the end of a line.
fn head(x1: f64, y1: f64, x2: f64, y2: f64) -> String {
    let (dx, dy) = (x2 - x1, y2 - y1);
    let length = dx.hypot(dy).max(1e-6);
    let (ux, uy) = (dx / length, dy / length);
    let (bx, by) = (x2 - ux * 7.0, y2 - uy * 7.0);
    format!(
        "<path class=\"head\" d=\"M{x2:.1} {y2:.1}L{:.1} {:.1}L{:.1} {:.1}Z\"/>",
        bx - uy * 2.8,
        by + ux * 2.8,
        bx + uy * 2.8,
        by - ux * 2.8
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(label: &str, to: u8, received: Option<u64>) -> Arrow {
        let replica = |id| Lane::Replica(ReplicaId::new(id));
        Arrow { from: replica(0), to: replica(to), label: label.to_owned(), kind: 3, sent: Some(1_000_000), received }
    }

    fn drawn(arrows: Vec<Arrow>) -> String {
        let scene = Scene { from: 0, to: 1_000_000_000, arrows, marks: Vec::new() };
        strip(&scene, &[ReplicaId::new(0), ReplicaId::new(1)])
    }

    #[test]
    fn a_lost_message_ends_in_a_cross_and_one_that_arrived_in_a_head() {
        let html = drawn(vec![arrow("Prepare", 1, Some(1_310_000)), arrow("Prepare", 1, None)]);
        assert_eq!((html.matches("class=\"head\"").count(), html.matches("class=\"cross\"").count()), (1, 1));
        assert!(html.contains("R0 → R1  Prepare, 999.0 ms before the right edge, took 0.31 ms"), "{html}");
        assert!(html.contains("has not arrived"));
    }

    #[test]
    fn names_that_replicas_say_are_text() {
        let html = drawn(vec![arrow("<script>alert(1)</script>", 9, None)]);
        assert!(!html.contains("<script"), "{html}");
    }
}
