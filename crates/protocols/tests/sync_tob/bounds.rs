//! The model's bounds: what happens at them, and beyond them. Never does a replica execute something else than the others: the
//! harness compares all that is executed.

use crate::harness::{Cluster, Flying, config, replica};
use crate::words::MS;
use quorate_core::time::WallTime;
use quorate_protocols::sync_tob::Message;

fn started(n: usize) -> Cluster {
    let mut it = Cluster::new(n);
    it.client(1).apply(1, "a");
    it.run(3_000); // what is known of clocks is old: they are asked again
    it
}

/// R1's clock is set so far ahead of the others', and hears nothing that would set it right.
fn skewed(n: usize, by_ms: i64) -> Cluster {
    let mut it = started(n);
    it.lose(|it: &Flying| it.label == "Time" && (it.to == replica(1) || it.from == replica(1)));
    it.submit(1, "b");
    it.deliver();
    it.answer_probe(1, by_ms);
    it
}

fn agree(it: &Cluster) -> usize {
    let first = it.tape(0);
    assert!(
        (1..it.hosts.len()).all(|id| it.tape(id) == first),
        "{:?}",
        (0..it.hosts.len()).map(|id| it.tape(id)).collect::<Vec<_>>()
    );
    first.len()
}

#[test]
fn clocks_that_differ_by_the_bound_are_safe_and_nothing_has_to_be_settled() {
    let mut it = skewed(3, 9);
    it.run(500);
    for index in 0..20 {
        it.submit(1, &format!("x{index}"));
        it.run(33);
    }
    it.run(500);
    assert_eq!(agree(&it), 22);
    assert!((0..3).all(|id| it.status(id).view.get() == 0 && it.noted(id, "SafetyAtRisk") == 0));
    let led = it.sent.iter().filter(|m| m.label == "Propose" && m.from == replica(1)).count();
    assert!(led > 0, "the one that is ahead leads, too");
}

#[test]
fn a_clock_beyond_the_bound_is_noticed_before_anything_differs() {
    let mut it = skewed(3, 150);
    it.run(500);
    let votes = |it: &Cluster| it.sent.iter().filter(|m| m.label == "Vote" && m.from == replica(1)).count();
    let at_risk = |it: &Cluster| it.status(1).role.starts_with("SafetyAtRisk");
    let mut doubted = 0;
    for index in 0..20 {
        it.submit(1, &format!("x{index}"));
        for _ in 0..33 {
            let (before, doubts) = (votes(&it), at_risk(&it));
            it.run(1);
            doubted += usize::from(doubts && at_risk(&it));
            assert!(!(doubts && at_risk(&it)) || votes(&it) == before, "it confirms nothing while it doubts");
        }
    }
    assert!(doubted > 0, "`status` shows it");
    it.run(1_000);
    assert_eq!(it.noted(0, "SafetyAtRisk") + it.noted(2, "SafetyAtRisk"), 0, "those who are within the bound go on");
    assert!(it.noted(1, "SafetyAtRisk") > 0, "chains with a correct signer came too late for it");
    assert_eq!(agree(&it), 22, "the others have confirmed without it, and it has followed");
    it.heal();
    it.run(10_000); // what it believed of clocks has become old
    it.apply(1, "y");
    it.run(300);
    assert_eq!(agree(&it), 23);
}

#[test]
fn two_clocks_beyond_the_bound_stop_outputs_or_delay_them_and_nobody_differs() {
    let mut it = started(3);
    it.lose(|it: &Flying| it.label == "Time");
    it.submit(1, "b");
    it.deliver();
    it.answer_probe(1, 170);
    it.answer_probe(2, -170);
    for index in 0..20 {
        it.submit(1, &format!("x{index}"));
        it.run(50);
    }
    it.run(2_000);
    agree_as_far_as_they_are(&it);
    it.heal();
    it.run(20_000);
    it.apply(1, "y");
    it.run(1_000);
    agree(&it);
}

fn agree_as_far_as_they_are(it: &Cluster) {
    let longest = (0..it.hosts.len()).map(|id| it.tape(id)).max_by_key(Vec::len).expect("some");
    assert!((0..it.hosts.len()).all(|id| longest.starts_with(&it.tape(id))));
}

#[test]
fn a_block_that_reaches_half_of_the_replicas_is_settled_by_a_view() {
    // n = 4: two vote for it, two have no output. No quorum ever confirms either.
    let mut it = started(4);
    let half = |peer| peer == replica(2) || peer == replica(3);
    it.lose(move |it: &Flying| it.label == "Propose" && (half(it.to) || half(it.from)));
    let ticket = it.submit(1, "b");
    it.run(400);
    assert_eq!(it.answer(1, ticket), None, "no output without confirmation");
    it.heal();
    it.run_until("an answer", |it| it.answer(1, ticket).is_some());
    it.run(1_000);
    assert_eq!(agree(&it), 2);
    assert!(it.status(0).view.get() > 0);
    let view = it.status(0).view;
    it.apply(1, "c");
    it.run(5_000);
    assert!((0..4).all(|id| it.status(id).view == view), "and then the model is kept again");
}

/// Everybody stands still while a broadcast is under way.
fn stood_still(n: usize) -> Cluster {
    let mut it = started(n);
    let ticket = it.submit(1, "b");
    it.run(60); // a broadcast is under way
    it.now += 300 * MS;
    it.talk();
    it.deliver();
    it.run(1);
    assert_eq!(it.count("Vote"), 0, "whether the block came in time nobody can say");
    assert!((0..n).all(|id| it.noted(id, "fenced: a timer rang late") > 0));
    it.run_until("an answer", |it| it.answer(1, ticket).is_some());
    it.run(300);
    assert_eq!(agree(&it), 2);
    it
}

#[test]
fn a_process_that_stood_still_says_so_and_signs_nothing_that_began_before() {
    let it = stood_still(4);
    assert!((0..4).all(|id| it.status(id).view.get() == 0));
}

#[test]
fn where_agreement_rests_on_time_what_everybody_missed_is_settled_by_one_view() {
    // Each of three has missed an output that another one may have had: none votes for what follows before a view has started.
    let mut it = stood_still(3);
    assert!((0..3).all(|id| it.noted(id, "abstains") > 0));
    let view = it.status(0).view;
    assert_eq!(view.get(), 1);
    it.apply(1, "c");
    it.run(5_000);
    assert!((0..3).all(|id| it.status(id).view == view));
}

#[test]
fn a_disk_that_takes_longer_than_the_bound_stops_outputs_that_need_it_and_status_says_so() {
    let mut it = started(3);
    it.isolate(0);
    it.hosts[2].fast_disk = false; // two of three are enough, if both have it on disk
    let ticket = it.submit(1, "b");
    for _ in 0..20 {
        it.run(30); // echo and vote wait for the disk
    }
    assert_eq!(it.answer(1, ticket), None);
    it.hosts[2].fast_disk = true;
    it.sync(2);
    it.run(90);
    it.hosts[2].fast_disk = false;
    it.run(300); // the output has come, the vote is not on disk
    assert!(it.noted(2, "slow disk") > 0);
    assert!(it.status(2).role.starts_with("slow disk"), "{}", it.status(2).role);
    assert_eq!(it.answer(1, ticket), None);
    it.hosts[2].fast_disk = true;
    it.sync(2);
    it.heal();
    it.run_until("an answer", |it| it.answer(1, ticket).is_some());
    it.apply(1, "c");
    it.run(300);
    assert_eq!(agree(&it), 3);
    assert_eq!(it.status(2).role, "leads in turn");
}

#[test]
fn a_replica_whose_clock_agrees_with_nobody_refuses_requests_and_others_take_them() {
    let mut it = started(3);
    it.lose(|it: &Flying| it.label == "Time" && it.to == replica(0));
    it.client(2);
    let ticket = it.submit(2, "b");
    it.deliver();
    for round in 0..4 {
        let Message::Probe { sent } = it.last(0, "Probe") else { panic!("no probe") };
        let time = |ms: i64| WallTime::from_nanos(it.now.saturating_add_signed(ms * MS as i64));
        let (ahead, behind) = (time(200 + round), time(-200 - round));
        it.say(replica(1), 0, Message::Time { sent, clock: ahead });
        if round == 0 {
            assert!(!it.status(0).role.starts_with("Unsynced"), "one other alone is no majority");
        }
        it.say(replica(2), 0, Message::Time { sent, clock: behind });
        it.run(50);
    }
    it.run_until("an answer", |it| it.answer(2, ticket).is_some());
    it.heal();
    it.run(12_000);
    it.apply(2, "c");
    it.run(300);
    assert_eq!(agree(&it), 3);
}

#[test]
fn a_clock_waits_for_all_who_may_be_correct_before_it_moves() {
    // R3 and R4 lie, and answer at once that R0 is 15 ms late. R1's answer takes as long as it may, there and not back; R2's as
    // long as it may in both directions. Then nothing says that R0 is wrong.
    let mut it = started(5);
    it.lose(|m: &Flying| m.label == "Time" && m.to == replica(0));
    it.restart(0); // it knows nothing of the others' clocks
    it.crash(3).crash(4);
    it.submit(1, "b");
    it.deliver();
    let Message::Probe { sent } = it.last(0, "Probe") else { panic!("no probe") };
    let asked = it.now;
    let answer = |it: &mut Cluster, from: usize, ms: u64| {
        let shown = asked + (it.now - asked) / 2 + ms * MS;
        it.say(replica(from), 0, Message::Time { sent, clock: WallTime::from_nanos(shown) });
    };
    let is_right = |it: &mut Cluster| {
        it.say(replica(1), 0, Message::Probe { sent: 1 });
        let Message::Time { clock, .. } = it.last(0, "Time") else { panic!("it tells its time") };
        assert!(clock.as_nanos().abs_diff(it.now) < MS, "{clock:?} at {}", it.now);
    };
    it.run(1);
    answer(&mut it, 3, 15);
    answer(&mut it, 4, 15);
    it.run(39);
    answer(&mut it, 1, 0);
    is_right(&mut it);
    it.run(40);
    is_right(&mut it);
    answer(&mut it, 2, 0);
    is_right(&mut it);
    it.run(100);
    is_right(&mut it);
}

#[test]
fn outputs_need_no_clock_of_more_than_a_quorum() {
    for n in [3, 4, 5] {
        let mut it = Cluster::with(n, config());
        it.client(1).apply(1, "a");
        let f = (n - 1) / 2;
        for id in 0..f {
            it.crash(id);
        }
        it.apply(1, "b").apply(1, "c");
        (0..f).for_each(|id| it.restart(id));
        it.run(3_000);
        assert_eq!(agree(&it), 3, "n={n}");
    }
}
