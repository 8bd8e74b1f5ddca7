//! Looks for the seeds that catch the mutations, and prints them in the form of `src/mutations.txt`:
//! `cargo run --profile ci -p quorate-sim --features mutations --example mutations -- [SEEDS] [NAME-PART] [FAULTS]`.

use quorate_protocols::vr::Vr;
use quorate_sim::mutations::{ALL, SEEDS_MAX, search};
use std::process::ExitCode;

fn main() -> ExitCode {
    std::panic::set_hook(Box::new(|_| {})); // a panic is a violation like any other here, and is reported as one
    let words: Vec<String> = std::env::args().skip(1).collect();
    let seeds = words.first().and_then(|word| word.parse().ok()).unwrap_or(SEEDS_MAX);
    let faults: Option<&'static str> = words.get(2).map(|word| &*word.clone().leak());
    let part = words.get(1).cloned().unwrap_or_default();
    let jobs = std::thread::available_parallelism().map_or(1, usize::from);
    let mut missed = 0_u32;
    for mutation in ALL.iter().filter(|mutation| mutation.name.contains(&part)) {
        let mut mutation = *mutation;
        if let Some(faults) = faults {
            mutation.faults = faults;
        }
        match search::<Vr>(&mutation, seeds, jobs) {
            (Some(caught), _) => println!("{} {} {}", mutation.name, caught.seed, caught.violation.property),
            (None, reached) => {
                missed = missed.saturating_add(1);
                println!("# {}: not caught in {seeds} seeds, reached in {reached}", mutation.name);
            }
        }
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
