//! A seed is a run: every turn is hashed, and two runs agree on each, on any number of threads.

use quorate_protocols::vr::Vr;
use quorate_sim::{Fault, Faults, Options, Summary, campaign, run};

fn seeds(jobs: usize) -> Summary {
    campaign::<Vr>(&Options::default(), 1..31, jobs, |_| true)
}

#[test]
fn two_runs_of_a_seed_agree_on_every_turn() {
    for seed in 1..9 {
        let report = run::<Vr>(&Options { seed, twice: true, ..Options::default() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn one_thread_and_two_give_the_same_turns_and_the_same_numbers() {
    let (one, two) = (seeds(1), seeds(2));
    assert_eq!(one.audit, two.audit);
    assert_eq!(one.counts, two.counts);
    assert_eq!((one.failed, one.views, one.seeds_with), (two.failed, two.views, two.seeds_with));
}

#[test]
fn another_seed_has_other_turns() {
    let (one, other) = (Options { seed: 1, ..Options::default() }, Options { seed: 2, ..Options::default() });
    assert_ne!(run::<Vr>(&one).audit, run::<Vr>(&other).audit);
}

#[test]
fn a_run_with_liars_is_repeatable_too() {
    let lies = Fault::ALL.iter().filter(|fault| fault.is_lie()).map(|fault| fault.name());
    let faults: Faults = lies.collect::<Vec<_>>().join(",").parse().expect("a list of faults");
    for seed in 1..5 {
        let options = Options { seed, faults: faults.clone(), beyond_model: true, ..Options::default() };
        let (one, other) = (run::<Vr>(&options), run::<Vr>(&options));
        assert_eq!((one.audit, one.counts, one.beyond), (other.audit, other.counts, other.beyond));
    }
}
