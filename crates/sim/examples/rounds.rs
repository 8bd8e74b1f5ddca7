//! Plays all scenarios of a space, or some of them spread over it, under both sets of rules:
//! `cargo run --profile ci -p quorate-sim --example rounds -- duels|sides|rejoins [COUNT]`.

use quorate_protocols::hotstuff::Rules;
use quorate_sim::rounds::Space;
use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let space = match words.first().map(String::as_str) {
        Some("duels") => Space::Duels,
        Some("sides") => Space::Sides,
        Some("rejoins") => Space::Rejoins,
        _ => {
            eprintln!("error: say which scenarios: duels, sides or rejoins, and perhaps how many of them");
            return ExitCode::FAILURE;
        }
    };
    let count = words.get(1).and_then(|word| word.parse().ok()).unwrap_or(u64::MAX);
    let mut holds = true;
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let searched = space.search(rules, count);
        println!(
            "{space:?} under {rules:?}: {} of {} scenarios, {} entries executed, {} disks lost, {} replicas back",
            searched.scenarios,
            space.count(),
            searched.executed,
            searched.lost,
            searched.back,
        );
        if let Some((number, wrong)) = searched.wrong {
            println!("VIOLATED {wrong}\n  scenario {number}: {}", space.scenario(rules, number));
            holds = false;
        }
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
