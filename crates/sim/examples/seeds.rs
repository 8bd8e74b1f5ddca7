//! Runs many seeds of one protocol and says what came of them:
//! `cargo run --release -p quorate-sim --example seeds -- naive 1 1000 [FAULTS] [OPS] [REPLICAS]`.
//! With one seed, prints the last lines of what happened too.

use quorate_protocols::naive::Naive;
use quorate_protocols::sync_tob::SyncTob;
use quorate_protocols::vr::Vr;
use quorate_sim::{Options, Simulated, campaign, name_runs_in_panics, run};
use std::process::ExitCode;

fn main() -> ExitCode {
    name_runs_in_panics();
    let words: Vec<String> = std::env::args().skip(1).collect();
    let word = |index: usize, default: &'static str| words.get(index).cloned().unwrap_or_else(|| default.to_owned());
    let number = |index, default| word(index, default).parse().unwrap_or(1);
    let faults = match word(3, "all").parse() {
        Ok(faults) => faults,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let (first, last) = (number(1, "1"), number(2, "100"));
    let replicas = usize::try_from(number(5, "3")).unwrap_or(3);
    let options = Options { ops: number(4, "150"), faults, replicas, ..Options::default() };
    match word(0, "naive").as_str() {
        "naive" => go::<Naive>(options, first, last),
        "vr" => go::<Vr>(options, first, last),
        "sync-tob" => go::<SyncTob>(options, first, last),
        other => {
            eprintln!("{other:?} is not a protocol that can be simulated");
            ExitCode::FAILURE
        }
    }
}

fn go<P: Simulated>(options: Options, first: u64, last: u64) -> ExitCode {
    if first == last {
        let report = run::<P>(&Options { seed: first, trace: true, twice: true, ..options });
        for line in report.trace.lines() {
            println!("{line}");
        }
        println!("{report}");
        return if report.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let summary = campaign::<P>(&options, first..last.saturating_add(1), jobs, |_| true);
    for failure in summary.failures.iter().take(20) {
        println!("{failure}\n");
    }
    println!("{summary}");
    if summary.holds() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
