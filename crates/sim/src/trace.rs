//! The last things that happened, as text: for a person who looks at a failure.

use crate::client::whose;
use crate::clock::MICRO;
use crate::network::Fate;
use quorate_core::ids::Peer;
use std::collections::VecDeque;

/// Lines that are kept; older ones are dropped.
pub const LINES_MAX: usize = 20_000;

/// The last [`LINES_MAX`] lines, if anybody wants them.
#[derive(Debug)]
pub struct Trace {
    lines: Option<VecDeque<String>>,
}

impl Trace {
    /// A trace that keeps lines, or one that ignores them.
    pub fn new(wanted: bool) -> Self {
        Self { lines: wanted.then(VecDeque::new) }
    }

    /// Something happened.
    pub fn line(&mut self, now: u64, text: impl FnOnce() -> String) {
        if let Some(lines) = &mut self.lines {
            if lines.len() == LINES_MAX {
                lines.pop_front();
            }
            let micros = now / MICRO;
            lines.push_back(format!("{:>7}.{:03} ms  {}", micros / 1000, micros % 1000, text()));
        }
    }

    /// A message left.
    pub fn sent(&mut self, now: u64, from: Peer, to: Peer, label: &'static str, fate: &Fate) {
        let word = match fate {
            Fate::Arrives(_) => return, // its arrival will be a line
            Fate::Lost => "is lost",
            Fate::Cut => "finds its link cut",
            Fate::Held => "is held",
        };
        self.line(now, || format!("{} → {}  {label} {word}", name(from), name(to)));
    }

    /// A message arrived.
    pub fn arrived(&mut self, now: u64, from: Peer, to: Peer, label: &'static str) {
        self.line(now, || format!("{} → {}  {label}", name(from), name(to)));
    }

    /// The lines, oldest first.
    pub fn into_lines(self) -> Vec<String> {
        self.lines.map(Vec::from).unwrap_or_default()
    }
}

fn name(peer: Peer) -> String {
    match peer {
        Peer::Replica(id) => id.to_string(),
        Peer::Client(id) => whose(id).map_or_else(|| id.to_string(), |(client, life)| format!("C{client}.{life}")),
    }
}
