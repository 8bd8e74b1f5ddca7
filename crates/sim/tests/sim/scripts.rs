//! Shrinking finds what matters, and scripts that were kept still show what they were kept for.

use crate::steady;

use quorate_core::protocol::Protocol;
use quorate_protocols::naive::Naive;
use quorate_protocols::pbft::Pbft;
use quorate_protocols::vr::Vr;
use quorate_sim::faults::Fault;
use quorate_sim::shrink::{RUNS_MAX, Script, shrink};
use quorate_sim::{Options, Report, Simulated, run};
use std::path::Path;
use steady::{Mutation, Steady};

type TellsEarly = Steady<{ Mutation::TellsEarly as u8 }>;

/// The first seed that catches a protocol.
fn first_failure<P: Simulated>() -> Options {
    let options = |seed| Options { seed, ..Options::default() };
    let seed = (1..60).find(|seed| !run::<P>(&options(*seed)).holds()).expect("some seed catches it");
    options(seed)
}

fn play(script: &Script) -> Report {
    match script.protocol.as_str() {
        Vr::NAME => run::<Vr>(&script.options()),
        Naive::NAME => run::<Naive>(&script.options()),
        other => panic!("no protocol {other} here"),
    }
}

#[test]
fn a_leader_that_tells_too_early_is_caught_by_a_crash_and_little_else() {
    let options = first_failure::<TellsEarly>();
    let before = run::<TellsEarly>(&options);
    let mut runs = 0;
    let script = shrink::<TellsEarly>(&options, |progress| runs = progress.runs).expect("it fails");
    let report = run::<TellsEarly>(&script.options());
    assert!(script.expects(&report), "{script}\n{report}");
    assert!(script.misfortunes.len() <= 8 && script.misfortunes.len() < before.struck.len(), "{script}");
    let crashes = |fault: Fault| {
        matches!(fault, Fault::Crash | Fault::CrashAll | Fault::PersistCrash | Fault::SyncError | Fault::FullDisk)
    };
    assert!(script.misfortunes.iter().any(|(it, _)| crashes(it.fault)), "{script}");
    assert!(runs > 0 && runs <= RUNS_MAX);
}

#[test]
fn each_line_of_a_short_script_matters() {
    let script = shrink::<TellsEarly>(&first_failure::<TellsEarly>(), |_| {}).expect("it fails");
    for left_out in 0..script.misfortunes.len() {
        let mut shorter = script.clone();
        let (misfortune, _) = shorter.misfortunes.remove(left_out);
        let report = run::<TellsEarly>(&shorter.options());
        assert!(!shorter.expects(&report), "without {misfortune} it fails all the same:\n{script}");
    }
}

#[test]
fn a_run_is_the_same_when_all_that_went_wrong_in_it_is_listed() {
    for seed in [1, 2, 7] {
        let free = run::<Vr>(&Options { seed, ..Options::default() });
        let only = Some(free.struck.iter().map(|it| it.misfortune.clone()).collect());
        let listed = run::<Vr>(&Options { seed, only, ..Options::default() });
        assert_eq!((free.audit, &free.counts, &free.struck), (listed.audit, &listed.counts, &listed.struck));
        assert!(free.struck.len() > 5, "seed {seed} is a lucky one");
    }
}

#[test]
fn lies_are_listed_and_left_out_like_any_misfortune() {
    let options = Options {
        replicas: 4,
        ops: 30,
        beyond_model: true, // so that one of them lies
        faults: "equivocate,withhold,drip".parse().expect("a list"),
        ..Options::default()
    };
    let lies = |report: &Report| report.struck.iter().filter(|it| it.misfortune.fault.is_lie()).count();
    let seeds = (1..10).map(|seed| Options { seed, ..options.clone() });
    let free = seeds.map(|options| run::<Pbft>(&options)).find(|report| lies(report) > 5).expect("somebody lies");
    let again = |only| run::<Pbft>(&Options { seed: free.seed, only: Some(only), ..options.clone() });
    let listed = again(free.struck.iter().map(|it| it.misfortune.clone()).collect());
    assert_eq!((free.audit, &free.counts, &free.struck), (listed.audit, &listed.counts, &listed.struck));
    let honest = again(Default::default());
    assert!(honest.holds() && lies(&honest) == 0 && honest.counts.faults.is_empty(), "{honest}");
}

#[test]
fn with_an_empty_list_nothing_goes_wrong() {
    let report = run::<Vr>(&Options { only: Some(Default::default()), ..Options::default() });
    assert!(report.holds() && report.struck.is_empty() && report.counts.faults.is_empty(), "{report}");
}

#[test]
fn every_script_that_was_kept_shows_what_it_was_kept_for() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let mut played = 0;
    for file in std::fs::read_dir(folder).expect("a folder of scripts") {
        let file = file.expect("a file").path();
        let text = std::fs::read_to_string(&file).expect("a text");
        let script: Script = text.parse().unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let report = play(&script);
        assert!(script.expects(&report), "{}\n{report}", file.display());
        played += 1;
    }
    assert!(played > 0, "no script was kept");
}
