//! Lines, arrows and marks, as SVG. Every element says where it is in time (`data-x`), so that the page can stretch the time
//! axis without touching heights or letters; the numbers here are those of zoom 1.

use super::axis::Axis;
use super::scene::{Arrow, Band, End, Glyph, Lane, Look, Mark, Scene};
use super::{escaped, millis};
use crate::trace::short;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Colours of views: `v0`, `v1` and so on in `svg.css`, then again from the first.
pub const VIEW_COLOURS: u64 = 6;
/// Colours of kinds of messages: `k0`, `k1` and so on in `svg.css`, then again from the first.
pub const KIND_COLOURS: usize = 10;

/// Above the first line: captions and the axis, pixels.
const TOP: f64 = 74.0;
/// Below a client's line, pixels.
const CLIENT: f64 = 66.0;
/// Below a replica's line, pixels.
const REPLICA: f64 = 104.0;
/// Half the height of a replica's line, pixels.
const HALF: f64 = 5.0;
/// An average letter of the labels, pixels.
const LETTER: f64 = 5.7;
/// Longest text beside a name or a mark, in characters.
const GIST_CHARACTERS_MAX: usize = 30;

/// A picture: the SVG's contents and its size.
pub struct Drawing {
    /// What stands between `<svg>` and `</svg>`.
    pub body: String,
    /// Pixels at zoom 1.
    pub width: f64,
    /// Pixels.
    pub height: f64,
    /// The lines' names and heights.
    pub lanes: Vec<(String, f64)>,
    /// Time and place.
    pub axis: Axis,
}

/// Draws a scene. `offends` are the events that show the violation.
pub fn draw(scene: &Scene, offends: &BTreeSet<usize>) -> Drawing {
    let axis = Axis::new(scene.moments(), scene.flight());
    let mut pen = Pen { scene, offends, axis: &axis, taken: Vec::new(), body: String::new() };
    pen.lanes();
    pen.time();
    pen.bands();
    pen.calls();
    // Words find their places in the order of their weight; what is drawn later lies on top.
    let marks = pen.marks();
    let arrows = pen.arrows();
    pen.body.push_str(&arrows);
    pen.body.push_str(&marks);
    pen.violation();
    let body = pen.body;
    let lanes = (0..scene.clients.len() + scene.replicas).map(|lane| (lane_name(scene, lane), height(scene, lane)));
    let lanes: Vec<(String, f64)> = lanes.collect();
    let bottom = lanes.last().map_or(TOP, |(_, y)| *y) + 44.0;
    Drawing { body, width: axis.width(), height: bottom, lanes, axis }
}

struct Pen<'a> {
    scene: &'a Scene,
    offends: &'a BTreeSet<usize>,
    axis: &'a Axis,
    /// Where words stand already: left, top, right, bottom.
    taken: Vec<[f64; 4]>,
    body: String,
}

fn lane_name(scene: &Scene, lane: Lane) -> String {
    match (lane.checked_sub(scene.clients.len()), scene.clients.get(lane)) {
        (Some(replica), _) => format!("R{replica}"),
        (None, client) => format!("C{}", client.copied().unwrap_or(lane)),
    }
}

/// Where a process's line is.
fn height(scene: &Scene, lane: Lane) -> f64 {
    let clients = scene.clients.len();
    let (clients, replicas) = (lane.min(clients), lane.saturating_sub(clients));
    TOP + clients as f64 * CLIENT + replicas as f64 * REPLICA
}

/// A number with one place at most.
pub fn number(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

fn gist(text: &str) -> String {
    match text.char_indices().nth(GIST_CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * LETTER
}

impl Pen<'_> {
    fn put(&mut self, text: std::fmt::Arguments<'_>) {
        let _infallible = self.body.write_fmt(text);
    }

    fn y(&self, lane: Lane) -> f64 {
        height(self.scene, lane)
    }

    fn is_free(&self, [left, top, right, bottom]: [f64; 4]) -> bool {
        self.taken.iter().all(|[l, t, r, b]| right < *l || *r < left || bottom < *t || *b < top)
    }

    /// Takes the place for words, if nobody has.
    fn takes(&mut self, boxes: &[[f64; 4]]) -> bool {
        let free = boxes.iter().all(|it| self.is_free(*it));
        if free {
            self.taken.extend_from_slice(boxes);
        }
        free
    }

    fn lanes(&mut self) {
        let end = self.axis.width();
        for lane in 0..self.scene.clients.len() + self.scene.replicas {
            let y = number(self.y(lane));
            let kind = if lane < self.scene.clients.len() { "client" } else { "replica" };
            let end = number(end);
            self.put(format_args!(
                "<path class=\"lane {kind}\" data-x=\"0 {end}\" data-y=\"{y} {y}\" d=\"M0 {y}L{end} {y}\"/>\n"
            ));
        }
    }

    /// The axis: a moment every hundred pixels or so, and where idle time was shortened.
    fn time(&mut self) {
        let bottom = number(self.y((self.scene.clients.len() + self.scene.replicas).saturating_sub(1)) + 34.0);
        let (mut x, width) = (self.axis.x(self.scene.from), self.axis.width());
        while x < width - 150.0 {
            let (at, tenths) = (number(x), self.axis.moment(x) / 100_000);
            let text = format!("{}.{} ms", tenths / 10, tenths % 10);
            self.put(format_args!(
                "<g class=\"tick\" data-x=\"{at}\" data-y=\"0\" transform=\"translate({at} 0)\"><path d=\"M0 44V{bottom}\"/>\
                 <text y=\"39\">{text}</text></g>\n"
            ));
            x += 120.0;
        }
        for it in self.axis.breaks().to_vec() {
            let (at, passes) = (number(it.x), it.nanos / 1_000_000);
            self.put(format_args!(
                "<g class=\"break\" data-x=\"{at}\" data-y=\"0\" transform=\"translate({at} 0)\"><path d=\"M0 52V{bottom}\"/>\
                 <text y=\"58\">{passes} ms</text></g>\n"
            ));
        }
        for (index, caption) in self.scene.captions.iter().enumerate() {
            let (at, event, tip) = (number(self.axis.x(caption.at)), caption.event, escaped(&caption.text));
            let (class, sign) = match caption.told {
                true => ("said", (self.scene.captions[..=index].iter().filter(|it| it.told).count()).to_string()),
                false => ("world", "!".to_owned()),
            };
            self.put(format_args!(
                "<g class=\"{class}\" id=\"e{event}\" data-x=\"{at}\" data-y=\"0\" transform=\"translate({at} 0)\">\
                 <title>{tip}</title><path d=\"M0 22V{bottom}\"/><circle cy=\"14\" r=\"9\"/><text y=\"18\">{sign}</text></g>\n"
            ));
        }
    }

    /// Replicas' lines: coloured by view, strong where a replica leads, dashed where it is down.
    fn bands(&mut self) {
        let mut last: Vec<(u64, String)> = Vec::new();
        for Band { lane, from, to, look } in &self.scene.bands {
            let (y, left, right) = (self.y(*lane), self.axis.x(*from), self.axis.x(*to));
            let (x1, x2) = (number(left), number(right));
            match look {
                Look::Down | Look::Paused => {
                    let (class, text) = if *look == Look::Down { ("down", "down") } else { ("paused", "stands still") };
                    let y = number(y);
                    self.put(format_args!(
                        "<path class=\"{class}\" data-x=\"{x1} {x2}\" data-y=\"{y} {y}\" d=\"M{x1} {y}L{x2} {y}\">\
                         <title>{text}</title></path>\n"
                    ));
                }
                Look::Up { view, role } => {
                    let leads = role.starts_with("primary") || role.starts_with("leader");
                    let (class, view_colour) = (if leads { "leads" } else { "follows" }, view % VIEW_COLOURS);
                    let (top, width) = (number(y - HALF), number((right - left).max(0.5)));
                    let role = escaped(role);
                    self.put(format_args!(
                        "<rect class=\"band {class} v{view_colour}\" data-x=\"{x1} {x2}\" x=\"{x1}\" y=\"{top}\" \
                         width=\"{width}\" height=\"{}\"><title>view {view}, {role}</title></rect>\n",
                        2.0 * HALF
                    ));
                    let text = format!("{role}, view {view}");
                    let index = lane - self.scene.clients.len();
                    let known = (*view, text.clone());
                    if last.get(index) == Some(&known) {
                        continue;
                    }
                    last.resize(self.scene.replicas.max(last.len()), (u64::MAX, String::new()));
                    let place = [left, y - 19.0, left + width_of(&text) + 4.0, y - 8.0];
                    if right - left > 24.0 && self.takes(&[place]) {
                        if let Some(last) = last.get_mut(index) {
                            *last = known;
                        }
                        let y = number(y - 10.0);
                        self.put(format_args!(
                            "<text class=\"role v{view_colour}\" data-x=\"{x1}\" data-y=\"{y}\" \
                             transform=\"translate({x1} {y})\">{text}</text>\n"
                        ));
                    }
                }
            }
        }
    }

    /// From a client's call to its answer: a light bar on the client's line.
    fn calls(&mut self) {
        let mut open: Vec<(Lane, u64)> = Vec::new();
        let mut bars = String::new();
        for mark in &self.scene.marks {
            match mark.glyph {
                Glyph::Called => open.push((mark.lane, mark.at)),
                Glyph::Told | Glyph::Excused => {
                    let Some(index) = open.iter().position(|(lane, _)| *lane == mark.lane) else { continue };
                    let (lane, from) = open.remove(index);
                    let (x1, x2) = (self.axis.x(from), self.axis.x(mark.at));
                    let (y, width) = (number(self.y(lane) - 3.0), number((x2 - x1).max(0.5)));
                    let (x1, x2) = (number(x1), number(x2));
                    let _infallible = writeln!(
                        bars,
                        "<rect class=\"call\" data-x=\"{x1} {x2}\" x=\"{x1}\" y=\"{y}\" width=\"{width}\" height=\"6\"/>"
                    );
                }
                _ => {}
            }
        }
        self.body.push_str(&bars);
    }

    fn marks(&mut self) -> String {
        let mut svg = String::new();
        let scene = self.scene;
        // Heavier words first: they get the places.
        let weight = |mark: &&Mark| match mark.glyph {
            _ if self.offends.contains(&mark.event) => 0,
            Glyph::Crash | Glyph::Lie => 1,
            Glyph::Executed | Glyph::Called | Glyph::Told | Glyph::Excused => 2,
            Glyph::Start | Glyph::Fault => 3,
            Glyph::Noted | Glyph::Committed | Glyph::Synced(_) => 4,
        };
        let mut marks: Vec<&Mark> = scene.marks.iter().collect();
        marks.sort_by_key(weight);
        for mark in marks {
            self.mark(mark, &mut svg);
        }
        svg
    }

    fn mark(&mut self, mark: &Mark, svg: &mut String) {
        let (x, y) = (self.axis.x(mark.at), self.y(mark.lane));
        let (class, shape) = shape(mark.glyph);
        let offends = if self.offends.contains(&mark.event) { " offends" } else { "" };
        let (at, line, tip) = (number(x), number(y), escaped(&mark.tip));
        let _infallible = write!(
            svg,
            "<g class=\"mark {class}{offends}\" id=\"e{}\" data-x=\"{at}\" data-y=\"{line}\" \
             transform=\"translate({at} {line})\"><title>{tip}</title>",
            mark.event
        );
        if !offends.is_empty() {
            svg.push_str("<circle class=\"ring\" r=\"13\"/>");
        }
        svg.push_str(shape);
        let text = gist(&mark.text);
        if !text.is_empty() {
            let width = width_of(&text);
            let rows: &[f64] = match mark.glyph {
                Glyph::Called | Glyph::Told | Glyph::Excused => &[-10.0, -22.0],
                _ => &[21.0, 33.0],
            };
            let place = |row: &f64| [x - 3.0, y + row - 9.0, x + width, y + row + 1.0];
            let row = rows.iter().find(|row| self.is_free(place(row))).copied();
            let crowded = if row.is_none() { " class=\"crowded\"" } else { "" };
            let row = row.unwrap_or(*rows.first().unwrap_or(&21.0));
            if crowded.is_empty() {
                self.taken.push(place(&row));
            }
            let _infallible = write!(svg, "<text{crowded} x=\"-3\" y=\"{}\">{}</text>", number(row), escaped(&text));
        }
        svg.push_str("</g>\n");
        if let Glyph::Synced(since) = mark.glyph {
            let (from, y) = (number(self.axis.x(since)), number(y + HALF + 3.0));
            let _infallible = writeln!(
                svg,
                "<path class=\"writing\" data-x=\"{from} {at}\" data-y=\"{y} {y}\" d=\"M{from} {y}L{at} {y}\"/>"
            );
        }
    }

    fn arrows(&mut self) -> String {
        let mut svg = String::new();
        let scene = self.scene;
        let mut labels = String::new(); // on top of all arrows
        for arrow in &scene.arrows {
            self.arrow(arrow, &mut svg, &mut labels);
        }
        svg + &labels
    }

    fn arrow(&mut self, arrow: &Arrow, svg: &mut String, labels: &mut String) {
        let (from, to) = (self.y(arrow.from), self.y(arrow.to));
        let away = if to > from { HALF } else { -HALF };
        let (x1, y1) = (self.axis.x(arrow.left), from + if arrow.from < self.scene.clients.len() { 0.0 } else { away });
        let target = to - if arrow.to < self.scene.clients.len() { 0.0 } else { away };
        let (x2, y2, class) = match arrow.end {
            End::Arrived(at) => (self.axis.x(at), target, "arrived"),
            End::Missed(at) => (self.axis.x(at), target, "missed"),
            End::Lost => (x1 + 30.0, y1 + (target - y1) * 0.55, "lost"),
            End::Cut => (x1 + 22.0, y1 + (target - y1) * 0.4, "cut"),
            End::Held => (x1 + 18.0, y1 + (target - y1) * 0.3, "kept"),
            End::Flying => {
                let end = self.axis.x(self.scene.to).max(x1 + 6.0);
                let share = ((end - x1) / 66.0).clamp(0.15, 0.8);
                (x1 + (end - x1).min(66.0), y1 + (target - y1) * share, "flying")
            }
        };
        let (label, _) = self.scene.kinds.get(arrow.kind).copied().unwrap_or_default();
        let late = if arrow.held && arrow.arrival().is_some() { " held" } else { "" };
        let again = if arrow.again { " again" } else { "" };
        let (dx, dy) = (x2 - x1, y2 - y1);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        let (cos, sin) = (dx / length, dy / length);
        let coordinates = [x1, y1, x2, y2].map(number);
        let [a, b, c, d] = &coordinates;
        let mut tip = format!("{}\n{}", millis(arrow.left), arrow.tip);
        match arrow.end {
            End::Arrived(at) => tip = format!("{} to {}\n{}", millis(arrow.left), millis(at), arrow.tip),
            End::Missed(_) => tip.push_str("\ncomes to a process that is not there any more"),
            End::Lost => tip.push_str("\nis lost"),
            End::Cut => tip.push_str("\nfinds its link cut"),
            End::Held => tip.push_str("\nis kept back"),
            End::Flying => tip.push_str("\nis still on its way when the picture ends"),
        }
        let _infallible = write!(
            svg,
            "<g class=\"m k{} f{} {class}{late}{again}\" data-x=\"{a} {c}\" data-y=\"{b} {d}\"><title>{}</title>\
             <path class=\"wide\" d=\"M{a} {b}L{c} {d}\"/><path class=\"shaft\" d=\"M{a} {b}L{c} {d}\"/>\
             <path class=\"head\" d=\"{}\" transform=\"matrix({} {} {} {} {c} {d})\"/>",
            arrow.kind % KIND_COLOURS,
            arrow.kind,
            escaped(&tip),
            head(arrow.end),
            unit(cos),
            unit(sin),
            unit(-sin),
            unit(cos),
        );
        svg.push_str("</g>\n");
        if !arrow.again {
            self.label(labels, (label, arrow.kind), &arrow.gist, [x1, y1, x2, y2]);
        }
    }

    /// The message's name along its arrow, where there is room: with what it says, or alone, or only when looked at.
    fn label(&mut self, svg: &mut String, (label, kind): (&str, usize), said: &str, [x1, y1, x2, y2]: [f64; 4]) {
        let (dx, dy) = (x2 - x1, y2 - y1);
        let length = (dx * dx + dy * dy).sqrt().max(1.0);
        let (cos, sin) = (dx / length, dy / length);
        let full = short(if said.is_empty() { label.to_owned() } else { format!("{label} {}", gist(said)) });
        let mut chosen = None;
        'search: for text in [full.as_str(), label] {
            let width = width_of(text);
            if width > length - 8.0 {
                continue;
            }
            for share in [0.5, 0.36, 0.64, 0.26, 0.74] {
                let inside = share * length > width / 2.0 + 3.0 && (1.0 - share) * length > width / 2.0 + 6.0;
                let (x, y) = (x1 + dx * share + sin * 5.0, y1 + dy * share - cos * 5.0);
                let steps = (width / 9.0).ceil().max(1.0) as usize;
                let spot = |step: usize| {
                    let along = (step as f64 + 0.5) / steps as f64 * width - width / 2.0;
                    let (x, y) = (x + along * cos, y + along * sin);
                    [x - 5.0, y - 5.0, x + 5.0, y + 5.0]
                };
                let spots: Vec<[f64; 4]> = (0..steps).map(spot).collect();
                if inside && self.takes(&spots) {
                    chosen = Some((text, share));
                    break 'search;
                }
            }
        }
        let (text, share, crowded) = match chosen {
            Some((text, share)) => (text, share, ""),
            None => (label, 0.5, " crowded"),
        };
        let (x, y) = (number(x1 + dx * share), number(y1 + dy * share));
        let [a, b, c, d] = [x1, y1, x2, y2].map(number);
        let _infallible = writeln!(
            svg,
            "<text class=\"label k{} f{kind}{crowded}\" data-x=\"{a} {c}\" data-y=\"{b} {d}\" data-t=\"{share}\" y=\"-4\" \
             transform=\"matrix({} {} {} {} {x} {y})\">{}</text>",
            kind % KIND_COLOURS,
            unit(cos),
            unit(sin),
            unit(-sin),
            unit(cos),
            escaped(text)
        );
    }

    fn violation(&mut self) {
        let Some((at, event)) = self.scene.violated else { return };
        let bottom = number(self.y((self.scene.clients.len() + self.scene.replicas).saturating_sub(1)) + 40.0);
        let x = number(self.axis.x(at));
        self.put(format_args!(
            "<g class=\"violated\" id=\"e{event}\" data-x=\"{x}\" data-y=\"0\" transform=\"translate({x} 0)\">\
             <path d=\"M0 26V{bottom}\"/><circle cy=\"14\" r=\"9\"/><text y=\"18\">✕</text></g>\n"
        ));
    }
}

/// A number between -1 and 1.
fn unit(value: f64) -> String {
    let text = format!("{value:.3}");
    if text == "-0.000" { "0.000".to_owned() } else { text }
}

/// How an arrow ends, pointing right.
fn head(end: End) -> &'static str {
    match end {
        End::Arrived(_) => "M0 0L-8 -3.4L-6.2 0L-8 3.4Z",
        End::Missed(_) | End::Lost | End::Cut => "M-4 -4L4 4M-4 4L4 -4",
        End::Held => "M0 -4V4M3 -4V4",
        End::Flying => "M0 0",
    }
}

/// A mark's class and shape around the origin.
fn shape(glyph: Glyph) -> (&'static str, &'static str) {
    match glyph {
        Glyph::Crash => ("crash", "<circle r=\"8\"/><path d=\"M-3.4 -3.4L3.4 3.4M-3.4 3.4L3.4 -3.4\"/>"),
        Glyph::Start => ("start", "<circle r=\"7\"/><path d=\"M-2.4 -3.8L4 0L-2.4 3.8Z\"/>"),
        Glyph::Synced(_) => ("synced", "<rect x=\"-2.5\" y=\"5.5\" width=\"5\" height=\"5\"/>"),
        Glyph::Executed => ("executed", "<path d=\"M0 -7L7 0L0 7L-7 0Z\"/>"),
        Glyph::Committed => ("committed", "<path d=\"M-3.4 0L-0.8 2.8L3.6 -2.8\"/>"),
        Glyph::Noted => ("noted", "<circle r=\"3.6\"/>"),
        Glyph::Fault => ("fault", "<path d=\"M1 -8L-4 1H-0.5L-1 8L4.5 -1.5H0.8Z\"/>"),
        Glyph::Lie => ("lie", "<circle r=\"8\"/><path d=\"M0 -4.5V1M0 3.4V4.4\"/>"),
        Glyph::Called => ("called", "<circle r=\"4.5\"/>"),
        Glyph::Told => ("told", "<circle r=\"4.5\"/>"),
        Glyph::Excused => ("excused", "<circle r=\"4.5\"/><path d=\"M-2 -2L2 2M-2 2L2 -2\"/>"),
    }
}
