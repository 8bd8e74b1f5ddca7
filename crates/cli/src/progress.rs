//! How far long work has come: a bar on a terminal, otherwise a plain line every few seconds.

use crate::text::thousands;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// Between two plain lines.
const LINE_EVERY: Duration = Duration::from_secs(3);

/// The progress of one piece of work, on stderr.
pub struct Progress {
    bar: ProgressBar,
    plain: Option<Plain>,
}

struct Plain {
    what: &'static str,
    unit: &'static str,
    start: Instant,
    last: Instant,
}

impl Progress {
    /// Work named `what`, counted in `unit`; `total` of 0 if nobody knows how much there is.
    pub fn start(what: &'static str, unit: &'static str, total: u64) -> Self {
        let now = Instant::now();
        if !std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target((total > 0).then_some(total), ProgressDrawTarget::hidden());
            return Self { bar, plain: Some(Plain { what, unit, start: now, last: now }) };
        }
        let (bar, template) = if total > 0 {
            (ProgressBar::new(total), "{prefix} [{bar:32}] {human_pos} of {human_len} {msg}, {per_sec}, {eta} left")
        } else {
            (ProgressBar::new_spinner(), "{prefix} {spinner} {human_pos} {msg}, {per_sec}")
        };
        let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(what);
        bar.set_message(unit);
        Self { bar, plain: None }
    }

    /// `count` more are done.
    pub fn add(&mut self, count: u64) {
        self.bar.inc(count);
        if let Some(plain) = &mut self.plain
            && plain.last.elapsed() >= LINE_EVERY
        {
            plain.last = Instant::now();
            eprintln!("{}", plain.line(self.bar.position(), self.bar.length()));
        }
    }

    /// Says something without disturbing the bar.
    pub fn say(&self, line: &str) {
        if self.plain.is_some() {
            eprintln!("{line}");
        } else {
            self.bar.suspend(|| eprintln!("{line}"));
        }
    }

    /// The work is over; the bar goes away.
    pub fn finish(self) {
        self.bar.finish_and_clear();
    }
}

impl Plain {
    fn line(&self, done: u64, total: Option<u64>) -> String {
        let rate = u128::from(done).saturating_mul(1000) / self.start.elapsed().as_millis().max(1);
        let rate = thousands(u64::try_from(rate).unwrap_or(u64::MAX));
        let (what, unit, done) = (self.what, self.unit, thousands(done));
        match total {
            Some(total) => format!("{what}: {done} of {} {unit}, {rate} a second", thousands(total)),
            None => format!("{what}: {done} {unit}, {rate} a second"),
        }
    }
}
