//! The page around a drawing: one file, nothing to fetch, nothing to build.

use super::draw::{Drawing, KIND_COLOURS, draw, number};
use super::scene::{Scene, cells};
use super::verdict::{Orders, offenders, orders, promise};
use super::{Picture, escaped, millis};
use crate::trace::Recording;
use quorate_core::protocol::Status;
use std::collections::BTreeSet;
use std::fmt::Write;

const SVG_CSS: &str = include_str!("svg.css");
const PAGE_CSS: &str = include_str!("page.css");
const PAGE_JS: &str = include_str!("page.js");

/// Lines of text below the picture at most.
const LINES_MAX: usize = 600;
/// On paper the picture is cut into strips of this width, pixels.
const STRIP: f64 = 1260.0;
/// Room for the lines' names, pixels.
const NAMES: f64 = 44.0;

/// One HTML page that shows a recording.
pub fn page(recording: &Recording, picture: &Picture) -> String {
    let scene = Scene::new(recording, picture);
    let offends = picture.violation.as_ref().map(|it| offenders(recording, it)).unwrap_or_default();
    let drawing = draw(&scene, &offends.iter().copied().collect());
    let title = escaped(&picture.title);
    let mut html = String::new();
    let mut put = |text: &str| html.push_str(text);
    put("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    put("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    put("<meta name=\"color-scheme\" content=\"light dark\">\n");
    put(&format!("<title>{title}</title>\n<style>\n{SVG_CSS}{PAGE_CSS}{}</style></head>\n", filter_rules(&scene)));
    put(&format!("<body class=\"drawing\"><header><h1>{title}</h1>\n"));
    if !picture.about.is_empty() {
        put(&format!("<p class=\"about\">{}</p>\n", escaped(&picture.about)));
    }
    if !picture.command.is_empty() {
        put(&format!("<p class=\"command\"><code>{}</code></p>\n", escaped(&picture.command)));
    }
    put("</header>\n");
    put(&verdict(recording, picture, &offends, &scene));
    let side_by_side = orders(recording, scene.to);
    if picture.violation.is_some() && side_by_side.first_difference.is_some() {
        put(&table_of_orders(&side_by_side, true));
    }
    put(&story(&scene));
    put(&figure(&scene, &drawing));
    put(&states(&scene));
    if picture.violation.is_none() || side_by_side.first_difference.is_none() {
        put(&table_of_orders(&side_by_side, false));
    }
    put(&lines(recording, &scene));
    put(&format!("<script type=\"application/json\" id=\"data\">{}</script>\n", data(&scene, &drawing)));
    put(&format!("<script>\n{PAGE_JS}</script>\n</body></html>\n"));
    html
}

/// The drawing alone, as an SVG file.
pub fn svg(recording: &Recording, picture: &Picture) -> String {
    let scene = Scene::new(recording, picture);
    let offends = picture.violation.as_ref().map(|it| offenders(recording, it)).unwrap_or_default();
    let drawing = draw(&scene, &offends.into_iter().collect::<BTreeSet<usize>>());
    let (width, height) = (number(drawing.width + NAMES), number(drawing.height));
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"drawing\" viewBox=\"{} 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\"><title>{}</title>\n<style>\n{SVG_CSS}.ground {{ fill: var(--bg); }}</style>\n\
         <rect class=\"ground\" x=\"{}\" width=\"{width}\" height=\"{height}\"/>\n",
        number(-NAMES),
        escaped(&picture.title),
        number(-NAMES),
    );
    svg.push_str(&names(&drawing, -NAMES));
    svg.push_str(&drawing.body);
    svg.push_str("</svg>\n");
    svg
}

/// Unchecking a kind of message hides it, without a script.
fn filter_rules(scene: &Scene) -> String {
    let rule = |kind: usize| format!("body:has(#kind{kind}:not(:checked)) .f{kind} {{ display: none; }}\n");
    (0..scene.kinds.len()).map(rule).collect()
}

fn names(drawing: &Drawing, left: f64) -> String {
    let mut svg = String::new();
    for (name, y) in &drawing.lanes {
        let (x, y) = (number(left + 12.0), number(y + 4.5));
        let _infallible = writeln!(
            svg,
            "<text class=\"name\" x=\"{x}\" y=\"{y}\" font-size=\"14\" font-weight=\"700\">{name}</text>"
        );
    }
    svg
}

/// What the checkers say, on top of everything.
fn verdict(recording: &Recording, picture: &Picture, offends: &[usize], scene: &Scene) -> String {
    let Some(violation) = &picture.violation else {
        return "<section class=\"verdict good\"><h2>Everything that was checked holds</h2></section>\n".to_owned();
    };
    let property = escaped(violation.property);
    let mut html = format!("<section class=\"verdict bad\"><h2>{property} is violated");
    let _infallible =
        write!(html, " <small>at {}</small></h2>\n<p>{}", millis(violation.at), promise(violation.property));
    if picture.expected {
        html.push_str(" This protocol breaks it on purpose.");
    }
    html.push_str("</p>\n<ul>\n");
    for event in offends {
        let Some(happened) = recording.events.get(*event) else { continue };
        let text = crate::trace::text(&happened.what, &Default::default()).unwrap_or_default();
        let (at, text) = (millis(happened.at), escaped(&text));
        if (scene.from..=scene.to).contains(&happened.at) {
            let _infallible = writeln!(html, "<li><a href=\"#e{event}\">{at}</a> <b>{text}</b></li>");
        } else {
            let _infallible = writeln!(html, "<li>{at} <b>{text}</b> <small>(not in the picture)</small></li>");
        }
    }
    let _infallible = write!(
        html,
        "</ul>\n<details><summary>What the checker says</summary><p class=\"detail\">{}</p></details>",
        escaped(&violation.detail)
    );
    html.push_str("</section>\n");
    html
}

/// What everybody executed, entry by entry.
fn table_of_orders(orders: &Orders, matters: bool) -> String {
    if orders.entries.is_empty() {
        return String::new();
    }
    let heading = match orders.first_difference {
        Some(op) => format!("The replicas part at entry {op}"),
        None => "What each replica executed".to_owned(),
    };
    let mut html = match matters {
        true => format!("<section class=\"orders\"><h2>{heading}</h2>"),
        false => format!("<details class=\"orders\"><summary>{heading}</summary>"),
    };
    html.push_str("<div class=\"wide-table\"><table><tr><th></th>");
    for op in &orders.entries {
        let _infallible = write!(html, "<th>entry {op}</th>");
    }
    html.push_str("</tr>\n");
    for (replica, row) in orders.rows.iter().enumerate() {
        let _infallible = write!(html, "<tr><th>R{replica}</th>");
        for cell in row {
            match cell {
                None => html.push_str("<td class=\"none\">–</td>"),
                Some(cell) => {
                    let class = if cell.differs { " class=\"differs\"" } else { "" };
                    let (event, text) = (cell.event, escaped(&cell.text));
                    let _infallible = write!(html, "<td{class}><a href=\"#e{event}\">{text}</a></td>");
                }
            }
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></div>");
    html.push_str(if matters { "</section>\n" } else { "</details>\n" });
    html
}

/// What a scenario says, in order.
fn story(scene: &Scene) -> String {
    let told: Vec<_> = scene.captions.iter().filter(|caption| caption.told).collect();
    if told.is_empty() {
        return String::new();
    }
    let mut html = "<ol class=\"story\">\n".to_owned();
    for caption in told {
        let (event, text) = (caption.event, escaped(&caption.text));
        let _infallible = writeln!(html, "<li><a href=\"#e{event}\">{}</a> {text}</li>", millis(caption.at));
    }
    html.push_str("</ol>\n");
    html
}

fn figure(scene: &Scene, drawing: &Drawing) -> String {
    let mut html = "<figure>\n<div class=\"tools\"><span class=\"buttons\">".to_owned();
    for (id, text, tip) in [
        ("out", "−", "Less detail (key −)"),
        ("in", "+", "More detail (key +)"),
        ("fit", "fit", "All of it (key 0)"),
        ("bad", "violation", "Go to the violation (key v)"),
    ] {
        if id != "bad" || scene.violated.is_some() {
            let _infallible = write!(html, "<button id=\"{id}\" title=\"{tip}\">{text}</button>");
        }
    }
    html.push_str("</span>\n<span class=\"kinds\">");
    for (kind, (label, count)) in scene.kinds.iter().enumerate() {
        let _infallible = write!(
            html,
            "<label class=\"k{}\"><input type=\"checkbox\" id=\"kind{kind}\" checked><i></i>{label} <small>{count}</small></label>",
            kind % KIND_COLOURS
        );
    }
    html.push_str("</span></div>\n");
    let (width, height) = (number(drawing.width), number(drawing.height));
    let _infallible = write!(
        html,
        "<div class=\"stage\"><svg class=\"names\" width=\"{NAMES}\" height=\"{height}\">\n{}</svg>\n\
         <div class=\"scroll\" tabindex=\"0\" aria-label=\"Space-time diagram\"><svg id=\"picture\" width=\"{width}\" \
         height=\"{height}\" role=\"img\">\n<g id=\"all\" class=\"drawing\">\n{}</g>\n</svg></div></div>\n",
        names(drawing, 0.0),
        drawing.body
    );
    html.push_str(&strips(drawing));
    let _infallible = write!(html, "<figcaption>{} {LEGEND}</figcaption>\n</figure>\n", escaped(&scene.left_out));
    html
}

/// How to read it.
const LEGEND: &str = "Time runs to the right; idle time is shortened and marked. Strong line: the replica leads; its colour is the view. \
<svg class=\"key\" viewBox=\"-10 -10 20 20\"><g class=\"mark executed\"><path d=\"M0 -7L7 0L0 7L-7 0Z\"/></g></svg> executes an entry, \
<svg class=\"key\" viewBox=\"-5 2 12 12\"><g class=\"mark synced\"><rect x=\"-2.5\" y=\"5.5\" width=\"5\" height=\"5\"/></g></svg> what was written is on disk, \
<svg class=\"key\" viewBox=\"-10 -10 20 20\"><g class=\"mark crash\"><circle r=\"8\"/><path d=\"M-3.4 -3.4L3.4 3.4M-3.4 3.4L3.4 -3.4\"/></g></svg> crashes, \
<svg class=\"key\" viewBox=\"-10 -10 20 20\"><g class=\"mark start\"><circle r=\"7\"/><path d=\"M-2.4 -3.8L4 0L-2.4 3.8Z\"/></g></svg> starts. \
An arrow that ends in a cross did not arrive. Point at anything to read it.";

/// The table that follows the cursor; without a script it shows how the picture ends.
fn states(scene: &Scene) -> String {
    let mut last: Vec<Option<&Status>> = vec![None; scene.replicas];
    for (_, replica, status) in &scene.statuses {
        if let Some(last) = last.get_mut(*replica) {
            *last = status.as_ref();
        }
    }
    let rows: String = last.iter().enumerate().map(|(replica, status)| cells(replica, *status)).collect();
    format!(
        "<section class=\"states\"><table><caption>State at <b id=\"moment\">{}</b></caption><thead><tr><th></th><th>role</th>\
         <th>view</th><th>log</th><th>committed</th><th>executed</th><th>checkpoint</th></tr></thead>\
         <tbody id=\"states\">{rows}</tbody></table></section>\n",
        millis(scene.to)
    )
}

/// The same as text.
fn lines(recording: &Recording, scene: &Scene) -> String {
    let shown: Vec<_> =
        recording.events.iter().filter(|it| (scene.from..=scene.to).contains(&it.at)).cloned().collect();
    let part = Recording { events: shown, ..recording.clone() };
    let all: Vec<String> = part.lines().collect();
    let more = match all.len().checked_sub(LINES_MAX) {
        Some(more) if more > 0 => format!("… and {more} more lines\n"),
        _ => String::new(),
    };
    let text: Vec<String> = all.iter().take(LINES_MAX).map(|line| escaped(line)).collect();
    format!(
        "<details class=\"lines\"><summary>The same as text</summary><pre>{}\n{more}</pre></details>\n",
        text.join("\n")
    )
}

/// The picture for paper: strips below one another.
fn strips(drawing: &Drawing) -> String {
    let mut html = "<div class=\"strips\" aria-hidden=\"true\">\n".to_owned();
    let mut x = 0.0;
    while x < drawing.width {
        let (left, width, height) = (number(x - NAMES), number(STRIP + NAMES), number(drawing.height));
        let _infallible = writeln!(
            html,
            "<svg viewBox=\"{left} 0 {width} {height}\"><svg x=\"{}\" width=\"{}\" height=\"{height}\" viewBox=\"{} 0 {} \
             {height}\"><use href=\"#all\"/></svg>{}</svg>",
            number(x),
            number(STRIP),
            number(x),
            number(STRIP),
            names(drawing, x - NAMES)
        );
        x += STRIP;
    }
    html.push_str("</div>\n");
    html
}

/// What the script needs: moments (microseconds) and places, and every change of a status.
fn data(scene: &Scene, drawing: &Drawing) -> String {
    let points: Vec<String> =
        drawing.axis.points().iter().map(|(at, x)| format!("[{},{}]", at / 1000, number(*x))).collect();
    let rows = scene.statuses.iter().map(|(at, replica, status)| match status {
        None => format!("[{},{replica}]", at / 1000),
        Some(it) => {
            let numbers = [it.view.get(), it.op.get(), it.committed.get(), it.executed.get(), it.checkpoint.get()];
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            format!("[{},{replica},{},{}]", at / 1000, json(&it.role), numbers.join(","))
        }
    });
    let rows: Vec<String> = rows.collect();
    format!("{{\"points\":[{}],\"states\":[{}]}}", points.join(","), rows.join(","))
}

/// A JSON string that is safe inside a script element.
fn json(text: &str) -> String {
    let mut out = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '<' => out.push_str("\\u003c"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}
