//! Synchronous total-order broadcast in the simulator: crashes, network, disks and liars, as far as each model allows.

use quorate_protocols::sync_tob::SyncTob;
use quorate_sim::{Fault, Options, run};

fn holds(seeds: std::ops::Range<u64>, options: &Options) {
    for seed in seeds {
        let report = run::<SyncTob>(&Options { seed, ..options.clone() });
        assert!(report.holds(), "{report}");
    }
}

#[test]
fn without_faults_everything_is_ordered() {
    holds(1..4, &Options { replicas: 3, faults: quorate_sim::Faults::none(), ..Options::default() });
}

#[test]
fn with_five_replicas_two_liars_break_nothing_while_messages_are_in_time() {
    holds(1..11, &Options { replicas: 5, ..Options::default() });
}

#[test]
fn seeds_that_found_a_bug_hold() {
    // Clients that had heard nobody for a minute asked again only after as long as a call may take.
    holds(38..39, &Options { replicas: 4, ..Options::default() });
    // A liar's late chains fenced correct replicas, and these voted for a history without what they had missed.
    holds(229..230, &Options { replicas: 5, ..Options::default() });
    // A view took a certificate of a lower view that had lost for another history, since nobody showed any other but of commits.
    holds(2982..2983, &Options { replicas: 4, ..Options::default() });
    holds(695..696, &Options { replicas: 3, ..Options::default() });
    // A view that its leader had started in two ways, and a certificate that was kept though its branch had lost.
    holds(2468..2469, &Options { replicas: 4, ..Options::default() });
    // The same by other causes, and views that started without what was committed.
    holds(190..191, &Options { replicas: 5, ..Options::default() });
}

#[test]
fn two_runs_of_a_seed_agree_in_every_turn() {
    holds(1..3, &Options { replicas: 4, twice: true, ..Options::default() });
}

#[test]
fn with_four_replicas_one_liar_breaks_nothing_whatever_the_network_does() {
    holds(1..21, &Options { replicas: 4, ..Options::default() });
}

#[test]
fn with_three_replicas_one_liar_breaks_nothing_while_messages_are_in_time() {
    holds(1..17, &Options { replicas: 3, ..Options::default() });
}

#[test]
fn without_liars_no_fault_of_network_disks_and_clocks_breaks_three_replicas() {
    let honest = Fault::ALL.iter().filter(|fault| fault.is_lie());
    let faults = honest.fold(Options::default().faults, |faults, lie| faults.without(*lie));
    // Who gathered view changes for a view started it with fewer than a quorum: some had moved on meanwhile.
    holds(308..309, &Options { replicas: 3, faults: faults.clone(), ..Options::default() });
    holds(1..17, &Options { replicas: 3, faults, ..Options::default() });
}
