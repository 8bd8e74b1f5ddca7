//! `quorate sim`: protocols in the simulator.

use super::status::columns;
use crate::errors::failure;
use crate::progress::Progress;
use crate::text::{count, thousands};
use clap::{Args, ValueEnum};
use quorate_protocols::naive::Naive;
use quorate_protocols::pbft::Pbft;
use quorate_protocols::vr::Vr;
use quorate_sim::{Faults, Options, Report, Simulated, Summary, campaign, name_runs_in_panics, run as run_seed};
use serde_json::{Value, json};
use std::ops::Range;
use std::process::ExitCode;

/// Failures that are shown one by one.
const SHOWN_MAX: usize = 5;

/// Run a protocol in the simulator, with crashes, partitions and broken disks
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate sim --protocol vr --seeds 1000
  quorate sim --protocol vr --seed 7 --trace
  quorate sim --protocol naive --seeds 20      fails: replicas that deliver as received diverge
  quorate sim --protocol vr --seeds 100 --faults loss,crash:300

A seed decides everything: the same seed gives the same run. Exit status 1, and the command that repeats the run, if
anything was violated.")]
pub struct Arguments {
    /// The protocol
    #[arg(long, value_enum, default_value_t = Simulatable::Vr)]
    protocol: Simulatable,
    /// Run this one seed
    #[arg(long, conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Run so many seeds, from 1
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// What may go wrong: all, none, or names separated by commas; -NAME leaves one out, NAME:300 triples it
    #[arg(long, default_value = "all", allow_hyphen_values = true)]
    faults: Faults,
    /// Calls that the clients of one run make
    #[arg(long, default_value_t = 150)]
    ops: u64,
    /// Replicas; without it, as few as go on without one of them
    #[arg(long, value_parser = clap::value_parser!(u8).range(1..=15))]
    replicas: Option<u8>,
    /// Clients
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=32))]
    clients: u8,
    /// Seeds at a time; without it, one for each core
    #[arg(long)]
    jobs: Option<usize>,
    /// Print the last lines of what happened (one seed)
    #[arg(long, requires = "seed")]
    trace: bool,
    /// Run every seed twice and compare every turn
    #[arg(long)]
    twice: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Simulatable {
    /// Viewstamped Replication
    Vr,
    /// Practical Byzantine Fault Tolerance
    Pbft,
    /// Deliver as received: wrong on purpose, to see that the checkers notice
    Naive,
}

/// Runs the command.
///
/// # Errors
/// Contradictory flags. A violation is no error: it is shown, and the exit status is 1.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    if arguments.seeds == 0 {
        return Err(failure("no seeds, nothing to run", "ask for at least one: --seeds 1"));
    }
    name_runs_in_panics();
    let holds = match arguments.protocol {
        Simulatable::Vr => simulate::<Vr>(arguments),
        Simulatable::Pbft => simulate::<Pbft>(arguments),
        Simulatable::Naive => simulate::<Naive>(arguments),
    };
    Ok(if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn simulate<P: Simulated>(arguments: &Arguments) -> bool {
    let options = Options {
        seed: arguments.seed.unwrap_or(1),
        replicas: usize::from(arguments.replicas.unwrap_or(P::REPLICAS)),
        clients: usize::from(arguments.clients),
        ops: arguments.ops,
        faults: arguments.faults.clone(),
        trace: arguments.trace,
        twice: arguments.twice,
    };
    if arguments.seed.is_some() {
        let report = run_seed::<P>(&options);
        show_one(&report, arguments.json);
        return report.holds();
    }
    let jobs = arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
    let summary = many::<P>(&options, 1..arguments.seeds.saturating_add(1), jobs);
    if arguments.json {
        println!("{}", json_summary(P::NAME, &summary));
    } else {
        show(P::NAME, &summary);
    }
    summary.holds()
}

fn many<P: Simulated>(options: &Options, seeds: Range<u64>, jobs: usize) -> Summary {
    let mut progress = Progress::start("sim", "seeds", seeds.end.saturating_sub(seeds.start));
    let mut shown = 0_usize;
    let summary = campaign::<P>(options, seeds, jobs, |report| {
        if let Some(violation) = &report.violation
            && shown < SHOWN_MAX
        {
            shown = shown.saturating_add(1);
            progress.say(&format!("seed {} violates {violation}\n  replay: {}", report.seed, report.replay));
        }
        progress.add(1);
        true
    });
    progress.finish();
    summary
}

fn show_one(report: &Report, json: bool) {
    if json {
        println!("{}", json_report(report));
        return;
    }
    for line in &report.trace {
        println!("{line}");
    }
    println!("{report}");
}

fn show(protocol: &str, summary: &Summary) {
    let counts = &summary.counts;
    let mut lines = vec![vec!["what".to_owned(), "times".to_owned(), "seeds".to_owned()]];
    let mut line = |what: String, times: u64, seeds: Option<u64>| {
        lines.push(vec![what, thousands(times), seeds.map_or_else(String::new, thousands)]);
    };
    line("events".to_owned(), counts.events, None);
    line("messages".to_owned(), counts.messages, None);
    line("calls answered".to_owned(), counts.answered, None);
    line("calls without an answer in time".to_owned(), counts.timed_out, None);
    for (fault, times) in &counts.faults {
        line(format!("fault: {fault}"), *times, None);
    }
    line("messages into cut links".to_owned(), counts.cut, None);
    line("replicas that refused to start".to_owned(), counts.refused, None);
    for (note, times) in &counts.notes {
        line(format!("protocol: {note}"), *times, summary.seeds_with.get(note).copied());
    }
    line("views started".to_owned(), summary.views, None);
    for (property, seeds) in &summary.properties {
        line(format!("VIOLATED: {property}"), *seeds, Some(*seeds));
    }
    println!("{}", columns(&lines));
    let rate = thousands(summary.seeds_per_second());
    println!("{protocol}: {}, {} violated, {rate} seeds a second", count(summary.seeds, "seed"), summary.failed);
    if let Some(first) = summary.failures.first() {
        println!("repeat the first: {} --trace", first.replay);
    }
}

fn json_summary(protocol: &str, summary: &Summary) -> Value {
    let faults = summary.counts.faults.iter().map(|(fault, times)| (fault.to_string(), Value::from(*times)));
    json!({
        "protocol": protocol,
        "seeds": summary.seeds,
        "failed": summary.failed,
        "seeds_per_second": summary.seeds_per_second(),
        "events": summary.counts.events,
        "messages": summary.counts.messages,
        "answered": summary.counts.answered,
        "timed_out": summary.counts.timed_out,
        "views": summary.views,
        "faults": faults.collect::<serde_json::Map<_, _>>(),
        "notes": summary.counts.notes,
        "seeds_with": summary.seeds_with,
        "violations": summary.properties,
        "failures": summary.failures.iter().map(json_report).collect::<Vec<_>>(),
    })
}

fn json_report(report: &Report) -> Value {
    json!({
        "seed": report.seed,
        "violation": report.violation.as_ref().map(ToString::to_string),
        "replay": report.replay,
        "virtual_ms": report.virtual_nanos / 1_000_000,
        "audit": crate::text::hex(report.audit.as_bytes()),
        "trace": report.trace,
    })
}
