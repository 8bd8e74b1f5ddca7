//! What a run came to.

use crate::checker::Violation;
use crate::faults::Fault;
use crate::misfortune::Struck;
use crate::trace::Recording;
use quorate_core::crypto::Digest;
use quorate_core::ids::View;
use quorate_core::outbox::Note;
use quorate_core::protocol::{Answer, CallError};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What happened in a run, in numbers: a run in which nothing went wrong proves little, and this shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Events that happened.
    pub events: u64,
    /// Messages that were sent and not lost.
    pub messages: u64,
    /// Messages that found their link cut.
    pub cut: u64,
    /// Faults injected, by kind.
    pub faults: BTreeMap<Fault, u64>,
    /// What replicas noted, by kind.
    pub notes: BTreeMap<&'static str, u64>,
    /// Views that started anywhere.
    pub views: BTreeSet<View>,
    /// Calls that were answered.
    pub answered: u64,
    /// Calls that ended without an answer in time.
    pub timed_out: u64,
    /// Calls that ended with an eviction.
    pub evicted: u64,
    /// Calls that were refused.
    pub refused_calls: u64,
    /// Replicas that refused to start from a rotten disk.
    pub refused: u64,
    /// Virtual milliseconds from healing until everything was answered and everybody agreed; in a sum, the longest.
    pub calm_ms: u64,
}

impl Counts {
    pub(crate) fn fault(&mut self, fault: Fault) {
        let count = self.faults.entry(fault).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn note(&mut self, note: &Note) {
        let name = match note {
            Note::Suspects(_) => "suspicions",
            Note::ViewChange(_) => "view changes",
            Note::ViewStarted { view, .. } => {
                self.views.insert(*view);
                "view starts"
            }
            Note::Committed(_) => "commits",
            Note::Checkpointed(_) => "checkpoints",
            Note::Repaired(_) => "repairs",
            Note::Fetched(_) => "entries fetched",
            Note::StateTransfer(_) => "state transfers",
            Note::RecoveringHead => "unknown log heads",
            Note::Other(text) => text,
        };
        let count = self.notes.entry(name).or_default();
        *count = count.saturating_add(1);
    }

    pub(crate) fn answer(&mut self, result: &Result<Answer, CallError>) {
        let count = match result {
            Ok(_) => &mut self.answered,
            Err(CallError::Timeout { .. }) => &mut self.timed_out,
            Err(CallError::Evicted { .. }) => &mut self.evicted,
            Err(CallError::Refused(_)) => &mut self.refused_calls,
        };
        *count = count.saturating_add(1);
    }

    /// Adds another run's numbers. Views are counted, not named, in a sum: see [`crate::campaign::Summary::views`].
    pub fn add(&mut self, other: &Self) {
        let plus = |into: &mut u64, more: u64| *into = into.saturating_add(more);
        plus(&mut self.events, other.events);
        plus(&mut self.messages, other.messages);
        plus(&mut self.cut, other.cut);
        plus(&mut self.answered, other.answered);
        plus(&mut self.timed_out, other.timed_out);
        plus(&mut self.evicted, other.evicted);
        plus(&mut self.refused_calls, other.refused_calls);
        plus(&mut self.refused, other.refused);
        self.calm_ms = self.calm_ms.max(other.calm_ms);
        for (fault, more) in &other.faults {
            plus(self.faults.entry(*fault).or_default(), *more);
        }
        for (note, more) in &other.notes {
            plus(self.notes.entry(note).or_default(), *more);
        }
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |pairs: Vec<(String, u64)>| -> String {
            let words: Vec<String> = pairs.into_iter().map(|(name, count)| format!("{name} {count}")).collect();
            if words.is_empty() { "none".to_owned() } else { words.join(", ") }
        };
        writeln!(f, "events     {} ({} messages, {} into cut links)", self.events, self.messages, self.cut)?;
        let calls = [
            ("answered", self.answered),
            ("timed out", self.timed_out),
            ("evicted", self.evicted),
            ("refused", self.refused_calls),
            ("replicas that refused to start", self.refused),
        ];
        let calls = calls.iter().filter(|(_, count)| *count > 0).map(|(name, count)| ((*name).to_owned(), *count));
        writeln!(f, "calls      {}", list(calls.collect()))?;
        writeln!(
            f,
            "faults     {}",
            list(self.faults.iter().map(|(fault, count)| (fault.to_string(), *count)).collect())
        )?;
        write!(f, "protocol   {}", list(self.notes.iter().map(|(note, count)| ((*note).to_owned(), *count)).collect()))
    }
}

/// What a run came to.
#[derive(Clone, Debug)]
pub struct Report {
    /// The run's seed.
    pub seed: u64,
    /// What was violated; `None` for a run in which everything held that was promised.
    pub violation: Option<Violation>,
    /// What broke beyond the protocol's model, where nobody had promised that it would not.
    pub beyond: Option<Violation>,
    /// The command that repeats the run.
    pub replay: String,
    /// What happened, in numbers.
    pub counts: Counts,
    /// Virtual nanoseconds that the run took.
    pub virtual_nanos: u64,
    /// The digest of every turn: equal for two runs of one seed.
    pub audit: Digest,
    /// What happened, if it was asked for.
    pub trace: Recording,
    /// What went wrong, decision by decision.
    pub struck: Vec<Struck>,
}

impl Report {
    /// Did everything hold?
    pub fn holds(&self) -> bool {
        self.violation.is_none()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.violation {
            None => match &self.beyond {
                None => writeln!(f, "seed {} holds", self.seed)?,
                Some(broken) => writeln!(f, "seed {} is beyond the model, and breaks {broken}", self.seed)?,
            },
            Some(violation) => {
                writeln!(f, "seed {} violates {violation}", self.seed)?;
                writeln!(f, "replay     {}", self.replay)?;
            }
        }
        write!(f, "{}", self.counts)
    }
}
