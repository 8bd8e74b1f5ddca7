//! Leaders, partitions and lost disks round by round (Bano et al., *Twins*, OPODIS 2021; HotStuff's README, *Why a lost promise …*).
//! `cargo run --profile ci -p quorate-sim --example rounds` plays all scenarios; here they are thinned out. That bad rules are caught
//! with the same scenarios is in `tests/mutations.rs`.

use quorate_protocols::hotstuff::Rules;
use quorate_sim::rounds::{Searched, Space};

fn clean(space: Space, rules: Rules, scenarios: u64) -> Searched {
    let searched = space.search(rules, scenarios);
    if let Some((number, wrong)) = &searched.wrong {
        panic!("{wrong}: scenario {number} of {space:?}: {}", space.scenario(rules, *number));
    }
    assert_eq!(searched.scenarios, scenarios);
    searched
}

#[test]
fn two_leaders_that_take_turns_in_any_order_commit_one_chain() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let searched = clean(Space::Duels, rules, 200);
        assert!(searched.executed > 0 || rules == Rules::ThreeChain, "two blocks commit nothing with three chains");
    }
}

#[test]
fn a_twin_on_either_side_of_any_partition_breaks_neither_set_of_rules() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        clean(Space::Sides, rules, 200);
    }
}

#[test]
fn disks_lost_one_after_the_other_break_neither_set_of_rules_and_who_lost_one_votes_again() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let searched = clean(Space::Rejoins, rules, 200);
        assert!(searched.executed > 0 && searched.lost >= 200 && searched.back > 0, "{searched:?}");
    }
}
