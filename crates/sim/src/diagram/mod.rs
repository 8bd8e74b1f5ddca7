//! Pictures of runs: a recording becomes one HTML page, or one SVG, that needs no network, no fonts and no build step.
//!
//! The page holds a space-time diagram: time runs to the right, each process is a line, each message an arrow with its name
//! in the paper. Idle time is shortened, and says so. It is readable without JavaScript and on paper; with JavaScript it
//! zooms, follows the cursor with a table of states, and jumps to what offends. Equal recordings give equal bytes.
//!
//! | file | holds |
//! |---|---|
//! | `scene` | what of a recording is drawn, and what is left out |
//! | `axis` | where a moment is |
//! | `draw` | lines, arrows and marks, as SVG |
//! | `verdict` | what was violated, by which events, and what everybody executed |
//! | `page`, `page.css`, `page.js`, `svg.css` | the page around it |

mod axis;
mod draw;
mod page;
mod scene;
mod verdict;

pub use page::{page, svg};

use crate::checker::Violation;

/// Messages that are drawn at most when nobody says which part of a run to draw. More cannot be looked at.
pub const ARROWS_MAX: usize = 160;
/// Messages that are drawn at most, whatever was asked for: browsers become slow beyond it.
pub const ARROWS_LIMIT: usize = 2000;

/// What to draw, and what to write above it.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// The page's title.
    pub title: String,
    /// What it shows, in a few sentences; may be empty.
    pub about: String,
    /// The command that makes it again.
    pub command: String,
    /// What was violated, if anything.
    pub violation: Option<Violation>,
    /// Is the violation what the picture is there to show?
    pub expected: bool,
    /// Draw from here, virtual nanoseconds. Without it and `to`: everything, or the part around the violation.
    pub from: Option<u64>,
    /// Draw up to here, virtual nanoseconds.
    pub to: Option<u64>,
}

/// Text that is safe between and inside tags.
fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            c if c.is_control() && c != '\n' => safe.push(' '),
            c => safe.push(c),
        }
    }
    safe
}

/// Virtual time for people: milliseconds with three places.
fn millis(nanos: u64) -> String {
    format!("{}.{:03} ms", nanos / 1_000_000, nanos / 1_000 % 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_run_becomes_a_tag() {
        assert_eq!(escaped("<b a=\"1\">&\u{7}</b>"), "&lt;b a=&quot;1&quot;&gt;&amp; &lt;/b&gt;");
    }
}
