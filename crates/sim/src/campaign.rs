//! Many seeds on many threads. The only threads of the simulator: one seed never sees another.

use crate::faults::Fault;
use crate::protocols::Simulated;
use crate::report::{Counts, Report};
use crate::run::{Options, run};
use quorate_core::crypto::Digest;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc;

/// From so many seeds on, a campaign says what never happened in it.
pub const COVERING_SEEDS: u64 = 500;
/// Failures that a summary keeps whole; more are only counted.
pub const FAILURES_MAX: usize = 100;

/// What many runs came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds in which something was violated.
    pub failed: u64,
    /// The first of them, by seed.
    pub failures: Vec<Report>,
    /// Violations by property.
    pub properties: BTreeMap<&'static str, u64>,
    /// What broke beyond the model, where nobody had promised that it would not: seeds by property.
    pub beyond: BTreeMap<&'static str, u64>,
    /// Notes that such a campaign must have seen, and faults that were asked for, which never came.
    pub never: Vec<String>,
    /// All turns of all runs, whatever the order in which they ended: equal for equal seeds, on any number of threads.
    pub audit: Digest,
    /// All numbers together.
    pub counts: Counts,
    /// Views that started, counted per run.
    pub views: u64,
    /// Seeds in which each kind of note was made at least once.
    pub seeds_with: BTreeMap<&'static str, u64>,
    /// Real milliseconds that it took.
    pub elapsed_ms: u64,
}

impl Summary {
    /// Seeds per real second, over all threads.
    pub fn seeds_per_second(&self) -> u64 {
        self.seeds.saturating_mul(1000) / self.elapsed_ms.max(1)
    }

    /// What should have happened in so many runs and did not: what never happened was never tested.
    fn look_for_gaps<P: Simulated>(&mut self, options: &Options) {
        if self.seeds < COVERING_SEEDS {
            return;
        }
        let notes = P::EXPECTED.iter().filter(|note| !self.counts.notes.contains_key(*note));
        let notes = notes.map(|note| format!("protocol: {note}"));
        let faults = options.faults_of::<P>();
        let asked = Fault::ALL.iter().filter(|fault| faults.has(**fault));
        let faults =
            asked.filter(|fault| !self.counts.faults.contains_key(fault)).map(|fault| format!("fault: {fault}"));
        self.never = notes.chain(faults).collect();
    }

    /// Did everything hold in every run?
    pub fn holds(&self) -> bool {
        self.failed == 0
    }

    fn add(&mut self, report: Report) {
        self.seeds = self.seeds.saturating_add(1);
        self.counts.add(&report.counts);
        self.views = self.views.saturating_add(report.counts.views.len() as u64);
        for note in report.counts.notes.keys() {
            let count = self.seeds_with.entry(note).or_default();
            *count = count.saturating_add(1);
        }
        let turns = Digest::of_parts(&[&report.seed.to_le_bytes(), report.audit.as_bytes()]);
        let mixed = self.audit.as_bytes().iter().zip(turns.as_bytes()).map(|(one, other)| one ^ other);
        let mixed: Vec<u8> = mixed.collect();
        self.audit = mixed.first_chunk().map_or(self.audit, |bytes| Digest::new(*bytes));
        if let Some(broken) = &report.beyond {
            let count = self.beyond.entry(broken.property).or_default();
            *count = count.saturating_add(1);
        }
        if let Some(violation) = &report.violation {
            self.failed = self.failed.saturating_add(1);
            let count = self.properties.entry(violation.property).or_default();
            *count = count.saturating_add(1);
            self.failures.push(report);
            self.failures.sort_by_key(|failure| failure.seed);
            self.failures.truncate(FAILURES_MAX);
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seeds, {} failed, {} seeds/s", self.seeds, self.failed, self.seeds_per_second())?;
        writeln!(f, "{}", self.counts)?;
        write!(f, "views      {} started", self.views)?;
        for (note, seeds) in &self.seeds_with {
            write!(f, "\n  {note}: in {seeds} seeds")?;
        }
        for (property, count) in &self.beyond {
            write!(f, "\nbeyond the model {property} broke in {count} seeds")?;
        }
        for never in &self.never {
            write!(f, "\nNEVER HAPPENED {never}")?;
        }
        for (property, count) in &self.properties {
            write!(f, "\nVIOLATED   {property}: {count} seeds")?;
        }
        Ok(())
    }
}

/// Runs every seed of `seeds` on `jobs` threads. `progress` hears of every report, in the order in which they come, on
/// the calling thread, and ends the campaign by returning false.
pub fn campaign<P: Simulated>(
    options: &Options,
    seeds: Range<u64>,
    jobs: usize,
    mut progress: impl FnMut(&Report) -> bool,
) -> Summary {
    #[expect(clippy::disallowed_types, reason = "how long it took is told to people and decides nothing")]
    let started = std::time::Instant::now();
    let next = AtomicU64::new(seeds.start);
    let stop = AtomicBool::new(false);
    let mut summary = Summary::default();
    std::thread::scope(|scope| {
        let (sender, reports) = mpsc::channel();
        for _ in 0..jobs.max(1) {
            let (sender, next, stop, end) = (sender.clone(), &next, &stop, seeds.end);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let report = (seed < end).then(|| run::<P>(&Options { seed, ..options.clone() }));
                    if report.is_none_or(|report| sender.send(report).is_err()) {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in reports {
            if !progress(&report) {
                stop.store(true, Ordering::Relaxed);
            }
            summary.add(report);
        }
    });
    summary.look_for_gaps::<P>(options);
    summary.elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    summary
}
