//! Looks for the seeds that catch the mutations of a protocol's list, and prints them in the form in which
//! `src/mutations/PROTOCOL.txt` keeps them:
//! `cargo run --profile ci -p quorate-sim --features mutations --example mutations -- PROTOCOL [SEEDS] [NAME-PART] [FAULTS]`.

use quorate_sim::mutations::{LISTS, SEEDS_MAX, search};
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a panic is a violation like any other here, and is reported as one
    let words: Vec<String> = std::env::args().skip(1).collect();
    let Some(list) = LISTS.iter().find(|list| words.first().is_some_and(|word| word == list.protocol)) else {
        let known: Vec<&str> = LISTS.iter().map(|list| list.protocol).collect();
        eprintln!("error: say whose mutations: {}", known.join(", "));
        return ExitCode::FAILURE;
    };
    let seeds = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(SEEDS_MAX);
    let part = words.get(2).cloned().unwrap_or_default();
    let faults: Option<&'static str> = words.get(3).map(|word| &*word.clone().leak());
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = 0_u32;
    for mutation in list.mutations.iter().filter(|mutation| mutation.name.contains(&part)) {
        let mut mutation = *mutation;
        if let Some(faults) = faults {
            mutation.faults = faults;
        }
        match search(&mutation, seeds, jobs) {
            (Some(caught), _) => println!("{} {} {}", mutation.name, caught.seed, caught.violation.property),
            (None, reached) => {
                missed = missed.saturating_add(1);
                println!("# {}: not caught in {seeds} seeds, reached in {reached}", mutation.name);
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
