//! A replica that has lost its promises, in a group that has nothing to order.

use crate::harness::{Cluster, replica};
use crate::words::{config, under, view};
use quorate_protocols::hotstuff::{Config, Message, Rules};

const BOTH: [Rules; 2] = [Rules::ThreeChain, Rules::TwoChain];

/// A group that was asked for something once, and has come to rest.
fn at_rest(config: Config) -> Cluster {
    let mut it = Cluster::with(4, config);
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(10_000);
    it
}

#[test]
fn in_a_group_at_rest_a_lost_disk_s_silence_ends_without_any_client() {
    for (rules, leader_views) in BOTH.into_iter().flat_map(|rules| [1, 2, 8, 100, 4096].map(|views| (rules, views))) {
        for victim in 0..4 {
            let mut it = at_rest(Config { rules, leader_views, ..config() });
            it.lose_disk(victim).restart(victim);
            it.run(1_500);
            assert!(!it.is_silent(victim), "{rules:?}, terms of {leader_views}: {}", it.describe(victim));
            it.isolate((victim + 1) % 4);
            it.submit(1, "with its vote");
            it.run_until("the others go on", |it| it.tape(victim) == ["a", "b", "with its vote"]);
            assert!((0..4).all(|id| !it.voted_twice(id)), "{rules:?}, terms of {leader_views}, R{victim}");
            it.heal();
            it.rests_after(10_000);
        }
    }
}

#[test]
fn seven_replicas_bring_two_back_one_after_the_other() {
    for rules in BOTH {
        let mut it = Cluster::with(7, under(rules));
        it.client(1).apply(1, "a");
        it.run(10_000);
        for victim in [0, 1] {
            it.lose_disk(victim).restart(victim);
            it.run(1_500);
            assert!(!it.is_silent(victim), "{rules:?}: {}", it.describe(victim));
        }
        it.rests_after(10_000);
    }
}

#[test]
fn what_is_lost_on_the_way_to_the_end_of_a_silence_is_said_again() {
    for (rules, label) in BOTH.into_iter().flat_map(|rules| {
        ["GetBound", "Bound", "GetBeyond", "Proposal", "Vote", "NewView", "Timeout"].map(|label| (rules, label))
    }) {
        let mut it = at_rest(under(rules));
        it.lose(move |it| it.label == label);
        it.lose_disk(3).restart(3);
        it.run(3_000);
        it.heal().run(6_000);
        assert!(!it.is_silent(3), "{rules:?} without {label}: {}", it.describe(3));
        it.rests_after(10_000);
    }
}

#[test]
fn a_silent_replica_that_restarts_goes_on_asking() {
    for rules in BOTH {
        let mut it = at_rest(under(rules));
        it.lose(|it| it.label == "GetBeyond");
        it.lose_disk(3).restart(3);
        it.run(1_000);
        it.restart(3);
        it.heal().run(3_000);
        assert!(!it.is_silent(3), "{rules:?}: {}", it.describe(3));
    }
}

#[test]
fn while_a_replica_cannot_be_brought_back_it_asks_seldom_and_the_others_wait_for_nothing() {
    let mut it = at_rest(config());
    it.lose(|it| it.label == "GetBeyond");
    it.lose_disk(3).restart(3);
    it.run(20_000);
    it.talk();
    it.run(20_000);
    assert!(it.is_silent(3));
    assert!((10..=12).contains(&it.count("GetBeyond").div_ceil(3)), "once in `resend_max`");
    let waits = |id: usize| it.hosts[id].process.as_ref().is_some_and(|it| it.node.deadline().is_some());
    assert!(waits(3) && !(0..3).any(waits));
}

#[test]
fn who_asks_all_the_time_for_a_block_beyond_gets_no_more_than_its_quota() {
    // A minute is four periods of `GRANT_PERIODS`.
    for rules in BOTH {
        let mut it = at_rest(under(rules));
        it.liar(3).talk();
        let before = it.view(0);
        for _ in 0..1_200 {
            let until = match rules {
                Rules::ThreeChain => it.view(0).next(),
                Rules::TwoChain => view(it.view(0).get().div_ceil(100) * 100), // the end of the term
            };
            for id in 0..3 {
                it.say(replica(3), id, Message::GetBeyond { until });
            }
            it.run(50);
        }
        let proposals = it.sent.iter().filter(|it| it.label == "Proposal" && it.to == replica(1)).count();
        assert!((4..=4 * 7).contains(&proposals), "{rules:?}: {proposals} blocks in a minute");
        let terms = (it.view(0).get() - 1) / 100 - (before.get() - 1) / 100;
        assert!(terms <= if rules == Rules::TwoChain { 8 } else { 0 }, "{terms} terms");
    }
}

#[test]
fn nobody_is_led_to_a_view_that_a_former_self_cannot_have_seen() {
    for rules in BOTH {
        let mut it = at_rest(under(rules));
        it.liar(3).talk();
        let far = match rules {
            Rules::ThreeChain => it.view(0).plus(2),
            Rules::TwoChain => view(101).plus(100),
        };
        for until in [far, far.plus(1 << 20), view(1 << 62)] {
            for id in 0..3 {
                it.say(replica(3), id, Message::GetBeyond { until });
            }
        }
        it.run(1_000);
        assert_eq!((it.count("Proposal"), it.count("Timeout")), (0, 0), "{rules:?}");
    }
}

#[test]
fn where_something_is_under_way_no_leader_leaves_for_somebody_s_silence() {
    let mut it = at_rest(under(Rules::TwoChain));
    it.liar(3);
    it.lose(|it| it.label == "Vote");
    it.submit(1, "c");
    it.deliver();
    it.talk();
    for id in 0..3 {
        it.say(replica(3), id, Message::GetBeyond { until: view(100) });
    }
    it.heal().run(250);
    assert_eq!(it.count("Timeout"), 0);
    assert_eq!(it.tape(0), ["a", "b", "c"]);
}
