//! The lists of mutations: named ways to break this project, each of which some seed must catch. A checker that nothing
//! ever sets off proves nothing; these lists prove that together they notice what matters.
//!
//! A mutation is one place in the code (`quorate_core::mutated!`). It exists only with the cargo feature `mutations`. Each
//! protocol has its list, and the seeds that catch what is on it in a text beside it; the example `mutations` of this crate
//! finds them anew. Seeds mean other runs after every change of protocol or simulator, so that is done whenever
//! `tests/mutations.rs` says so.

mod async_tob;
mod hotstuff;
mod hq;
mod pbft;
mod reception;
mod searched;
mod sync_tob;
mod vr;

pub use searched::{LOST_DISK, SEARCHED, Searched};

use crate::checker::Violation;
use crate::faults::Faults;
use crate::report::Report;
use crate::run::Options;
use quorate_core::mutation;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Seeds that are tried for one mutation, at most.
pub const SEEDS_MAX: u64 = 2000;

/// One way to break the code.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    /// Area and name, as `mutated!` asks for it.
    pub name: &'static str,
    /// What is done wrong.
    pub wrong: &'static str,
    /// The faults under which it shows soonest.
    pub faults: &'static str,
    /// Replicas of the group that it is tried on.
    pub replicas: usize,
    /// Runs the protocol that it is tried on.
    pub run: fn(&Options) -> Report,
}

/// What is broken to be caught by runs of one protocol.
#[derive(Clone, Copy, Debug)]
pub struct List {
    /// The protocol's name.
    pub protocol: &'static str,
    /// Name, seed and violated property of each, a line each.
    pub kept: &'static str,
    /// In the order in which they are read best.
    pub mutations: &'static [Mutation],
}

/// All lists.
pub const LISTS: &[List] =
    &[vr::LIST, pbft::LIST, reception::LIST, hotstuff::LIST, sync_tob::LIST, async_tob::LIST, hq::LIST];

impl List {
    /// The seed that is kept for a mutation.
    pub fn seed(&self, mutation: &Mutation) -> Option<u64> {
        let lines = self.kept.lines().filter_map(|line| line.split_once(' '));
        lines.filter(|(name, _)| *name == mutation.name).find_map(|(_, rest)| rest.split(' ').next()?.parse().ok())
    }
}

impl Mutation {
    /// What to run to catch it with a seed.
    pub fn options(&self, seed: u64) -> Options {
        let faults: Faults = self.faults.parse().unwrap_or_else(|_| Faults::all());
        Options { seed, faults, replicas: self.replicas, ..Options::default() }
    }

    /// Runs one seed with it: the report, and whether the run came to the place that it breaks.
    pub fn run(&self, seed: u64) -> (Report, bool) {
        mutation::with(Some(self.name), || (self.run)(&self.options(seed)))
    }

    /// Runs one seed without it.
    pub fn run_unbroken(&self, seed: u64) -> Report {
        (self.run)(&self.options(seed))
    }
}

/// What a search came to.
#[derive(Clone, Debug)]
pub struct Caught {
    /// The first seed found in which it is caught and which holds without it.
    pub seed: u64,
    /// What was violated.
    pub violation: Violation,
}

/// Looks for a seed that catches a mutation and is clean without it, among the first `seeds`, on `jobs` threads. Also says
/// in how many runs the broken place was reached.
pub fn search(mutation: &Mutation, seeds: u64, jobs: usize) -> (Option<Caught>, u64) {
    let next = AtomicU64::new(1);
    let end = AtomicU64::new(seeds);
    let reached = AtomicU64::new(0);
    let found: Mutex<BTreeMap<u64, Violation>> = Mutex::default();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > end.load(Ordering::Relaxed) {
                        return;
                    }
                    let (report, here) = mutation.run(seed);
                    reached.fetch_add(u64::from(here), Ordering::Relaxed);
                    if let Some(violation) = report.violation
                        && mutation.run_unbroken(seed).holds()
                    {
                        end.fetch_min(seed, Ordering::Relaxed);
                        found.lock().unwrap_or_else(std::sync::PoisonError::into_inner).insert(seed, violation);
                    }
                }
            });
        }
    });
    let found = found.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    let first = found.into_iter().next().map(|(seed, violation)| Caught { seed, violation });
    (first, reached.into_inner())
}
