//! One test for each claim of the specification, in its order.

use crate::dice::Dice;
use crate::harness::{Cluster, replica};
use crate::words::{LIAR, id, op, prop};
use quorate_core::protocol::Consistency;
use quorate_protocols::async_tob::agreement::Word;
use quorate_protocols::async_tob::{Message, Vote};

#[test]
fn one_request_costs_what_the_specification_says() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let counts = ["Request", "Batch", "Ack", "Prop", "PAck", "PCert", "Commit", "Reply"].map(|label| it.count(label));
    let n = 4;
    let all = n * (n - 1);
    assert_eq!(counts, [1, n - 1, n - 1, all, all, all, all, n]);
}

#[test]
fn a_read_names_the_entry_that_it_reflects_and_none_before_it() {
    Cluster::new(4).reads_behind_a_write(50);
}

/// How many messages of words were sent, and words in them; what goes to three others counts once.
fn words(it: &Cluster) -> (usize, usize) {
    let said: Vec<_> = (0..4).flat_map(|id| it.said(id, "Agree")).collect();
    let words = said.iter().map(|message| if let Message::Agree(votes) = message { votes.len() } else { 0 });
    (said.len() / 3, words.sum::<usize>() / 3)
}

#[test]
fn words_gather_while_a_sync_is_under_way() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.talk();
    (0..4).for_each(|id| it.hosts[id].fast_disk = false);
    let ticket = it.submit(4, "b");
    let mut syncs = 0;
    while it.answer(4, ticket).is_none() {
        it.deliver();
        for id in 0..4 {
            it.sync(id);
        }
        syncs += 1;
        assert!(syncs < 30, "it gets on");
    }
    let (messages, words) = words(&it);
    assert!(words >= 4 * 4 * 3, "{words}: three echoes of four agreements");
    assert!(messages <= 30, "{messages} messages of words, with {syncs} syncs");
    assert!(syncs <= 14, "{syncs} syncs one after the other");
}

#[test]
fn nobody_speaks_to_say_decide_where_all_commit_by_themselves_and_who_lacks_it_hears_it() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.talk();
    it.apply(4, "b").run(2_000);
    // Messages in which somebody says DECIDE, and nothing else.
    let decides = |it: &Cluster| {
        let said = (0..4).flat_map(|id| it.said(id, "Agree"));
        let words = said.filter_map(|message| if let Message::Agree(votes) = message { Some(votes) } else { None });
        words.filter(|votes| votes.iter().all(|vote| matches!(vote.word, Word::Decide(_)))).count()
    };
    assert_eq!(decides(&it), 0);
    // R2 and R3 hear no ECHO3: R0 and R1 commit, and are not n - t.
    it.lose(|it| {
        let thirds = |votes: Vec<Vote>| votes.iter().any(|vote| matches!(vote.word, Word::Echo3(..)));
        (it.to == replica(2) || it.to == replica(3))
            && it.message().is_some_and(|it| if let Message::Agree(votes) = it { thirds(votes) } else { false })
    });
    it.submit(4, "c");
    it.run(1_000);
    assert!(decides(&it) > 0);
    assert!(it.agrees(&["a", "b", "c"]));
}

#[test]
fn everybody_executes_everything_in_one_order() {
    let mut it = Cluster::new(4);
    it.client(1).client(2).client(3);
    for index in 0..60 {
        it.submit(1 + index % 3, &format!("x{index}"));
    }
    it.run(3_000);
    let tape = it.tape(0);
    assert_eq!(tape.len(), 60);
    assert!((1..4).all(|id| it.tape(id) == tape));
}

#[test]
fn an_idle_group_whose_members_agree_says_nothing_and_waits_for_nothing() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.rests_after(10_000);
}

#[test]
fn an_epoch_ends_without_the_one_that_is_down_and_without_a_coin() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.crash(3);
    it.talk();
    let ticket = it.submit(4, "b");
    it.deliver(); // no time passes: nothing waits for a timeout
    assert_eq!(it.answer(4, ticket).as_deref(), Some("2"));
    assert!(!it.hosts.iter().any(|host| host.notes.iter().any(|note| format!("{note:?}").contains("coin"))));
}

/// The last round in which anybody has said something about R3's proposal.
fn last_round(it: &Cluster) -> Option<u32> {
    let said = (0..4).flat_map(|id| it.said(id, "Agree"));
    let votes = said.filter_map(|message| if let Message::Agree(votes) = message { Some(votes) } else { None });
    let rounds = votes.flatten().filter(|vote| vote.about == id(3)).filter_map(|vote| match vote.word {
        Word::Echo1(round, _) | Word::Echo2(round, _) | Word::Echo3(round, _) | Word::Share(round, _) => Some(round),
        Word::Decide(_) => None,
    });
    rounds.max()
}

#[test]
fn the_proposal_of_one_that_is_down_takes_one_round_after_the_first_epoch_without_it() {
    // What was decided about it in one epoch is what is tried first in the next (ADR 024).
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    let mut rounds = Vec::new();
    let mut go_on = |it: &mut Cluster, operation: &str| {
        it.talk();
        it.apply(4, operation).run(2_000);
        rounds.push(last_round(it));
    };
    go_on(&mut it, "b");
    it.crash(3);
    go_on(&mut it, "c");
    go_on(&mut it, "d");
    it.restart(3);
    it.run(2_000);
    go_on(&mut it, "e");
    go_on(&mut it, "f");
    assert_eq!(rounds, [0, 1, 0, 1, 0].map(Some));
    assert!(it.agrees(&["a", "b", "c", "d", "e", "f"]));
}

#[test]
fn the_proposal_of_one_that_stays_down_is_decided_beside_the_others() {
    // In the first epoch without it, nobody wishes 0 before n - t are decided: its agreement comes after theirs. Later ones know
    // that it was missing, and that it has sent nothing (ADR 024).
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    let said = |it: &mut Cluster, operation: &str| {
        let before = it.sent.len();
        it.apply(4, operation).run(2_000);
        let of_first = |m: &&crate::harness::Flying| (m.from, m.to, m.label) == (replica(0), replica(1), "Agree");
        it.sent[before..].iter().filter(of_first).count()
    };
    let with = said(&mut it, "b");
    it.crash(3);
    let first = said(&mut it, "c");
    let later = [said(&mut it, "d"), said(&mut it, "e")];
    assert!(first >= with + 2, "{first} messages of words after {with}");
    assert!(later.iter().all(|later| *later < with), "{later:?}: no more steps than with it, and fewer to speak");
    it.restart(3);
    it.run(2_000);
    it.apply(4, "f").apply(4, "g").run(2_000);
    assert!(it.agrees(&["a", "b", "c", "d", "e", "f", "g"]));
}

#[test]
fn whoever_has_seen_a_proposal_tells_the_others_of_it() {
    // R2 was missing, and nobody hears its proposal in time. R3 lies: it shows to R0 alone that its own proposal is certified. R0 has
    // seen three that counted before, wishes for them, and gives R2's up; R3 helps it. Now R3's proposal is one of three that are
    // needed, and one correct replica alone can wish for it.
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.run(2_000);
    it.crash(2);
    it.apply(4, "b").run(2_000);
    it.restart(2);
    it.run(2_000);
    let next = it.committed(0) + 1;
    it.crash(LIAR);
    it.deliver();
    it.talk();
    it.lose(|m| m.from == replica(2) && m.label == "Prop");
    let ticket = it.submit(4, "c");
    it.deliver();
    for to in 0..3 {
        it.say(replica(LIAR), to, prop(next, 1, Vec::new()));
    }
    it.deliver();
    let certificate = it.certificate(&[0, 1], next);
    it.say(replica(LIAR), 0, certificate);
    for to in 0..3 {
        let vote = Vote { op: op(next), about: id(2), word: Word::Echo1(0, false) };
        it.say(replica(LIAR), to, Message::Agree(vec![vote]));
    }
    it.deliver();
    assert_eq!(it.answer(4, ticket), None);
    it.heal();
    it.run_until("R0 has told of it", |it| it.answer(4, ticket).is_some());
    it.run(2_000);
    assert!((0..3).all(|id| it.tape(id) == ["a", "b", "c"]));
    let counted = it.history(0).into_iter().find(|it| it.op == op(next)).map(|it| it.counted);
    assert_eq!(counted.as_deref(), Some(&[true, true, false, true][..]));
}

#[test]
fn no_step_of_an_epoch_waits_for_a_time_in_whatever_order_messages_arrive() {
    for seed in 0..40 {
        let mut dice = Dice::new(seed);
        let mut it = Cluster::new(4);
        it.client(4).apply(4, "a");
        it.run(2_000);
        if dice.one_in(2) {
            it.crash(1 + dice.below(3)); // not the one whose lane the client's is
        }
        let now = it.now;
        let tickets = ["b", "c", "d"].map(|operation| it.submit(4, operation));
        while !it.flying.is_empty() {
            let next = it.flying.remove(dice.below(it.flying.len())).expect("it is one of them");
            it.hand_over(&next);
        }
        let late = tickets.into_iter().find(|ticket| it.answer(4, *ticket).is_none());
        assert_eq!(late, None, "seed {seed}: all messages have arrived, and nothing is to be waited for");
        assert_eq!(it.now, now);
    }
}

#[test]
fn a_request_whose_replica_is_down_is_ordered_by_another_one_after_a_retry() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.isolate(0);
    it.apply(4, "b"); // the client does not know that R0 is cut off
    assert!((1..4).all(|id| it.tape(id) == ["a", "b"]));
}

#[test]
fn a_read_that_is_not_ordered_sees_every_write_that_was_answered_before_it() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "a");
    it.hosts[1].fast_machine = false;
    it.hosts[2].fast_machine = false;
    let write = it.submit(4, "b");
    it.deliver();
    assert_eq!(it.answer(4, write).as_deref(), Some("2"), "R0 and R3 have executed it");
    let epochs = it.committed(0);
    let read = it.read(4, Consistency::Linearizable);
    it.deliver();
    assert_eq!(it.answer(4, read), None, "R1 and R2 know that they have spoken in that epoch");
    it.work(1).work(2).deliver();
    assert_eq!(it.answer(4, read).as_deref(), Some("a b"));
    assert_eq!(it.committed(0), epochs, "it was not ordered");
}

#[test]
fn the_tick_that_the_machine_wants_comes_with_agreed_time() {
    let mut it = Cluster::new(4);
    it.client(4).apply(4, "lease");
    it.run(3_000);
    assert!((0..4).all(|id| it.tape(id) == ["lease", "tick"]));
}

#[test]
fn one_two_and_three_replicas_work_too_and_tolerate_nobody() {
    for n in 1..4 {
        let mut it = Cluster::new(n);
        it.client(1).apply(1, "a").apply(1, "b");
        it.run(2_000);
        assert!(it.agrees(&["a", "b"]));
    }
}

#[test]
fn seven_replicas_go_on_without_two() {
    let mut it = Cluster::new(7);
    it.client(1).client(2).apply(1, "a");
    it.crash(5).crash(6);
    it.apply(1, "b").apply(2, "c");
    it.run(2_000);
    assert!(it.agrees(&["a", "b", "c"]));
}
