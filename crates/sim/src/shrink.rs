//! From a seed that fails to a short script: the calls and the misfortunes that matter, and when.
//!
//! A script is text. It names the run, what is expected of it, and everything that may go wrong in it, one misfortune a line
//! ([`crate::misfortune`]); nothing else does. It is made by taking away: first calls, then clients, then misfortunes, as long
//! as the same property is violated (delta debugging, Zeller and Hildebrandt 2002).
//!
//! ```text
//! # a reply before the commit; found by seed 3
//! protocol vr
//! seed 3
//! replicas 3
//! clients 1
//! ops 4
//! faults delay,loss,crash
//! expect No acknowledged operation lost
//!
//! at 20.123456 ms: crash            # R0 crashes (crash)
//! R0 to R1, message 7: loss         # Prepare 3: r0 := 4
//! ```

use crate::faults::{Fault, Faults, UnknownFault};
use crate::misfortune::{Misfortune, Misread, Moment, Struck};
use crate::protocols::Simulated;
use crate::report::Report;
use crate::run::{Options, run};
use crate::trace::{Recording, What, name, text};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Runs that shrinking makes at most: what it has by then is short enough, or will not become short.
pub const RUNS_MAX: u32 = 2_000;
/// What a script of a run in which nothing is violated expects.
const NOTHING: &str = "nothing";
/// Where comments begin, in characters, where there is room.
const COMMENTS_AT: usize = 40;

/// A run by name: see the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// The protocol's name.
    pub protocol: String,
    /// The seed, from which everything is drawn that is not said here.
    pub seed: u64,
    /// Replicas.
    pub replicas: usize,
    /// Clients.
    pub clients: usize,
    /// Calls.
    pub ops: u64,
    /// What the seed drew its misfortunes from.
    pub faults: Faults,
    /// The level of criticality, for protocols that have levels; `None` if the seed draws one.
    pub criticality: Option<u8>,
    /// Do faults strike that the protocol's model excludes?
    pub beyond_model: bool,
    /// The property that is violated; `None` if everything is to hold.
    pub expect: Option<String>,
    /// All that goes wrong, with what it does, in words.
    pub misfortunes: Vec<(Misfortune, String)>,
}

/// A script that is not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ScriptError {
    /// A line that names a misfortune, and does not.
    #[error("line {number}: {cause}")]
    Misfortune {
        /// The line's number, from 1.
        number: usize,
        /// Why.
        cause: Misread,
    },
    /// A list of faults that is none.
    #[error("line {number}: {cause}")]
    Faults {
        /// The line's number, from 1.
        number: usize,
        /// Why.
        cause: UnknownFault,
    },
    /// A number that is none, or too great.
    #[error("line {number}: {word:?} is not a number, or not one that can be run")]
    Number {
        /// The line's number, from 1.
        number: usize,
        /// What was written.
        word: String,
    },
    /// A line is missing without which nothing can be run.
    #[error("a script says `protocol NAME` and `seed NUMBER`; this one has no {0}")]
    Missing(&'static str),
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { protocol, seed, replicas, clients, ops, faults, criticality, beyond_model, expect, misfortunes } =
            self;
        writeln!(f, "protocol {protocol}\nseed {seed}\nreplicas {replicas}\nclients {clients}\nops {ops}")?;
        if let Some(level) = criticality {
            writeln!(f, "criticality {level}")?;
        }
        if *beyond_model {
            writeln!(f, "beyond-model")?;
        }
        writeln!(f, "faults {}\nexpect {}", every_name(faults), expect.as_deref().unwrap_or(NOTHING))?;
        if !misfortunes.is_empty() {
            writeln!(f)?;
        }
        for (misfortune, comment) in misfortunes {
            let line = misfortune.to_string();
            match comment.is_empty() {
                true => writeln!(f, "{line}")?,
                false => writeln!(f, "{line:COMMENTS_AT$}  # {comment}")?,
            }
        }
        Ok(())
    }
}

/// The list without `all` and `-name`: what is added to the faults later must not change what the seed draws here.
fn every_name(faults: &Faults) -> String {
    let named = Fault::ALL.iter().filter(|fault| faults.has(**fault)).map(|fault| match faults.rate(*fault) {
        100 => fault.to_string(),
        rate => format!("{fault}:{rate}"),
    });
    let named: Vec<String> = named.collect();
    let named = if named.is_empty() { "none".to_owned() } else { named.join(",") };
    named + &faults.aspects_as_text()
}

impl FromStr for Script {
    type Err = ScriptError;

    fn from_str(script: &str) -> Result<Self, ScriptError> {
        let (mut protocol, mut seed, mut expect) = (None, None, None);
        let usual = Options::default();
        let (mut replicas, mut clients, mut ops, mut faults) = (usual.replicas, usual.clients, usual.ops, usual.faults);
        let (mut misfortunes, mut criticality, mut beyond_model) = (Vec::new(), None, false);
        for (index, line) in script.lines().enumerate() {
            let number = index + 1;
            let (line, comment) = line.split_once('#').unwrap_or((line, ""));
            let line = line.trim();
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "" => {}
                "protocol" => protocol = Some(value.trim().to_owned()),
                "seed" => seed = Some(read(number, value, u64::MAX)?),
                "replicas" => replicas = read(number, value, REPLICAS_MAX)? as usize,
                "clients" => clients = read(number, value, CLIENTS_MAX)? as usize,
                "ops" => ops = read(number, value, OPS_MAX)?,
                "faults" => faults = value.parse().map_err(|cause| ScriptError::Faults { number, cause })?,
                "criticality" => criticality = Some(read(number, value, LEVEL_MAX)? as u8),
                "beyond-model" => beyond_model = true,
                "expect" => expect = Some(value.trim().to_owned()).filter(|it| it != NOTHING),
                _ => {
                    let misfortune = line.parse().map_err(|cause| ScriptError::Misfortune { number, cause })?;
                    misfortunes.push((misfortune, comment.trim().to_owned()));
                }
            }
        }
        let protocol = protocol.ok_or(ScriptError::Missing("protocol"))?;
        let seed = seed.ok_or(ScriptError::Missing("seed"))?;
        Ok(Self { protocol, seed, replicas, clients, ops, faults, criticality, beyond_model, expect, misfortunes })
    }
}

/// The most replicas that a script may ask for.
const REPLICAS_MAX: u64 = quorate_core::quorum::REPLICAS_MAX as u64;
/// The most clients that a script may ask for.
const CLIENTS_MAX: u64 = 32;
/// The most calls that a script may ask for.
const OPS_MAX: u64 = 1_000_000;
/// The highest level of criticality that a script may ask for.
const LEVEL_MAX: u64 = 255;

fn read(number: usize, word: &str, max: u64) -> Result<u64, ScriptError> {
    let word = word.trim();
    let read = word.parse().ok().filter(|it| *it <= max);
    read.ok_or_else(|| ScriptError::Number { number, word: word.to_owned() })
}

impl Script {
    /// What to run.
    pub fn options(&self) -> Options {
        let Self { seed, replicas, clients, ops, faults, criticality, beyond_model, .. } = self;
        let only = Some(self.misfortunes.iter().map(|(it, _)| it.clone()).collect());
        let (faults, beyond_model, usual) = (faults.clone(), *beyond_model, Options::default());
        let (seed, replicas, clients, ops, criticality) = (*seed, *replicas, *clients, *ops, *criticality);
        Options { seed, replicas, clients, ops, faults, criticality, beyond_model, only, ..usual }
    }

    /// Does a report show what the script expects?
    pub fn expects(&self, report: &Report) -> bool {
        report.violation.as_ref().map(|it| it.property) == self.expect.as_deref()
    }
}

/// How far shrinking has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Runs made.
    pub runs: u32,
    /// Calls left.
    pub ops: u64,
    /// Misfortunes left.
    pub misfortunes: usize,
}

/// Makes a failing run short. `None` if nothing is violated in it. `progress` hears of every run.
pub fn shrink<P: Simulated>(options: &Options, progress: impl FnMut(Progress)) -> Option<Script> {
    let first = run::<P>(&Options { twice: false, trace: false, ..options.clone() });
    let property = first.violation.as_ref()?.property;
    let kept = misfortunes(&first.struck);
    let mut shrinking = Shrinking { property, runs: 0, options: options.clone(), kept, progress };
    shrinking.options.twice = false;
    shrinking.calls::<P>();
    shrinking.clients::<P>();
    shrinking.misfortunes::<P>();
    shrinking.calls::<P>();
    shrinking.misfortunes::<P>();
    Some(shrinking.script::<P>())
}

fn misfortunes(struck: &[Struck]) -> Vec<Misfortune> {
    let all: BTreeSet<Misfortune> = struck.iter().map(|it| it.misfortune.clone()).collect();
    all.into_iter().collect()
}

struct Shrinking<F> {
    property: &'static str,
    runs: u32,
    options: Options,
    kept: Vec<Misfortune>,
    progress: F,
}

impl<F: FnMut(Progress)> Shrinking<F> {
    /// Is the property still violated, if just this much goes wrong? Then nothing else need. Also forgets misfortunes that
    /// did not get their turn.
    fn fails<P: Simulated>(&mut self, options: &Options, kept: &[Misfortune]) -> bool {
        if self.runs == RUNS_MAX {
            return false;
        }
        self.runs += 1;
        let only = Some(kept.iter().cloned().collect());
        let report = run::<P>(&Options { only, trace: false, ..options.clone() });
        let fails = report.violation.is_some_and(|it| it.property == self.property);
        if fails {
            (self.options, self.kept) = (options.clone(), misfortunes(&report.struck));
        }
        (self.progress)(Progress { runs: self.runs, ops: self.options.ops, misfortunes: self.kept.len() });
        fails
    }

    /// Fewer calls: half of them, a quarter less, and so on down to one less.
    fn calls<P: Simulated>(&mut self) {
        let mut step = self.options.ops / 2;
        while step > 0 {
            let ops = self.options.ops.saturating_sub(step).max(1);
            let fewer = Options { ops, ..self.options.clone() };
            if ops == self.options.ops || !self.fails::<P>(&fewer, &self.kept.clone()) {
                step /= 2;
            }
        }
    }

    fn clients<P: Simulated>(&mut self) {
        while self.options.clients > 1 {
            let fewer = Options { clients: self.options.clients - 1, ..self.options.clone() };
            if !self.fails::<P>(&fewer, &self.kept.clone()) {
                return;
            }
        }
    }

    /// Fewer misfortunes: none, all of one kind less, then without each half, each quarter, and so on, until none can be left
    /// out alone.
    fn misfortunes<P: Simulated>(&mut self) {
        if self.without::<P>(|_, _| true) {
            return;
        }
        for fault in Fault::ALL.iter().rev() {
            self.without::<P>(|_, it| it.fault == *fault);
        }
        let mut size = self.kept.len().div_ceil(2);
        while size > 0 && self.runs < RUNS_MAX {
            let mut start = 0;
            let mut shorter = false;
            while start < self.kept.len() {
                match self.without::<P>(|at, _| (start..start + size).contains(&at)) {
                    true => shorter = true, // what followed has moved up
                    false => start += size,
                }
            }
            if size > 1 || !shorter {
                size /= 2;
            }
        }
    }

    /// Leaves misfortunes out, if it fails without them too. True if it does and there were any.
    fn without<P: Simulated>(&mut self, leave_out: impl Fn(usize, &Misfortune) -> bool) -> bool {
        let kept = self.kept.iter().enumerate().filter(|(at, it)| !leave_out(*at, it));
        let rest: Vec<Misfortune> = kept.map(|(_, it)| it.clone()).collect();
        rest.len() < self.kept.len() && self.fails::<P>(&self.options.clone(), &rest)
    }

    /// The script, with what each misfortune does, as its run tells.
    fn script<P: Simulated>(&self) -> Script {
        let Options { seed, replicas, clients, ops, faults, criticality, beyond_model, .. } = self.options.clone();
        let only = Some(self.kept.iter().cloned().collect());
        let told = run::<P>(&Options { only, trace: true, ..self.options.clone() });
        let mut struck: Vec<&Struck> = told.struck.iter().collect();
        struck.sort_by_key(|it| it.at);
        let misfortunes = struck.iter().map(|it| (it.misfortune.clone(), does(&told.trace, it))).collect();
        let (protocol, expect) = (P::NAME.to_owned(), Some(self.property.to_owned()));
        Script { protocol, seed, replicas, clients, ops, faults, criticality, beyond_model, expect, misfortunes }
    }
}

/// What a misfortune does, in words, as far as the recording tells.
fn does(recording: &Recording, struck: &Struck) -> String {
    let events = recording.events.iter().filter(|event| event.at == struck.at);
    let said = events.filter_map(|event| match (&struck.misfortune.moment, &event.what) {
        (Moment::Message(from, to, _), What::Sent { travel, content }) => {
            let is_it = name(travel.from) == *from && name(travel.to) == *to;
            is_it.then(|| {
                format!("{} {}", travel.label, content.split('\n').next().unwrap_or_default()).trim().to_owned()
            })
        }
        (Moment::Frame(liar, _), it @ What::Lied { replica, .. }) if replica == liar => text(it, &Default::default()),
        (Moment::Look(_), it @ (What::Crashed { .. } | What::Paused(_) | What::Fault { .. } | What::ClientDied(_)))
        | (Moment::Step(..), it @ What::Crashed { .. }) => text(it, &Default::default()),
        _ => None,
    });
    let said: BTreeSet<String> = said.map(|it| it.replace('#', "no. ")).collect();
    let said: Vec<String> = said.into_iter().collect();
    said.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checker::Property;
    use quorate_protocols::naive::Naive;

    #[test]
    fn a_script_reads_back_as_it_was_written() {
        let misfortune = |line: &str| line.parse::<Misfortune>().expect(line);
        let script = Script {
            protocol: "vr".to_owned(),
            seed: 7,
            replicas: 5,
            clients: 1,
            ops: 4,
            faults: "-jitter".parse().expect("a list"),
            criticality: Some(2),
            beyond_model: true,
            expect: Some(Property::DURABILITY.to_owned()),
            misfortunes: vec![
                (misfortune("at 1.000002 ms: crash"), "R1 crashes".to_owned()),
                (misfortune("R0 to C0, message 3: loss"), String::new()),
            ],
        };
        assert_eq!(script.to_string().parse(), Ok(script.clone()));
        assert!(!script.to_string().contains("jitter"), "a list that grows with the faults: {script}");
        let holds = Script { expect: None, ..script };
        assert_eq!(holds.to_string().parse(), Ok(holds));
    }

    #[test]
    fn what_is_wrong_in_a_script_is_named_with_its_line() {
        let read = |text: &str| text.parse::<Script>().expect_err(text).to_string();
        assert!(read("protocol vr").contains("no seed"));
        assert!(read("protocol vr\nseed x").starts_with("line 2"));
        assert!(read("protocol vr\nseed 1\nreplicas 199").starts_with("line 3"));
        assert!(read("protocol vr\nseed 1\n\nfaults luck").starts_with("line 4"));
        assert!(read("protocol vr\nseed 1\nR0 to R1: loss").starts_with("line 3"));
    }

    #[test]
    fn naive_needs_hardly_a_misfortune_and_few_calls() {
        let script = shrink::<Naive>(&Options { seed: 3, ..Options::default() }, |_| {}).expect("naive diverges");
        assert!(script.misfortunes.len() <= 1 && script.ops <= 4, "{script}");
        assert!(script.expects(&run::<Naive>(&script.options())), "{script}");
    }

    #[test]
    fn a_run_that_holds_cannot_be_shrunk() {
        let options = Options { clients: 1, ops: 10, faults: Faults::none(), ..Options::default() };
        assert_eq!(shrink::<Naive>(&options, |_| {}), None);
    }
}
