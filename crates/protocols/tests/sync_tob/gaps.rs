//! What a replica has not judged, and views that start: where `f` liars and one correct replica are a quorum (three replicas, and
//! five), that correct replicas agree rests on what each of them keeps silent about. ADR 033 has the argument.

use crate::harness::{Cluster, Flying, keyring, replica};
use crate::words::{block, confirmation, proposal};
use quorate_core::crypto::Signed;
use quorate_core::ids::View;
use quorate_protocols::sync_tob::{Message, NewView, ViewChange};

fn agree(it: &Cluster, ids: &[usize]) -> usize {
    let tapes: Vec<_> = ids.iter().map(|id| it.tape(*id)).collect();
    assert!(tapes.iter().all(|tape| *tape == tapes[0]), "{tapes:?}");
    tapes[0].len()
}

/// The liar confirms to each of the others whatever that one says, unless the test wants it to keep silent.
fn confirm(it: &mut Cluster, liar: usize, from: &mut usize, says: impl Fn(usize, &Message) -> bool) {
    let said = it.sent[*from..].to_vec();
    *from = it.sent.len();
    let mine = keyring(liar, 3);
    for heard in said.into_iter().filter(|heard| heard.to == replica(liar)) {
        let (Some(message), Some(to)) = (heard.message(), (0..3).find(|id| heard.from == replica(*id))) else {
            continue;
        };
        let Some(answer) = confirmation(&mine, it.now, message) else { continue };
        if says(to, &answer) {
            it.say(replica(liar), to, answer);
        }
    }
}

#[test]
fn a_chain_that_comes_late_begins_no_broadcast_and_fences_nobody() {
    let mut it = Cluster::new(5);
    it.client(1).apply(1, "a");
    it.liar(4);
    let epoch = it.epoch_of(4, 100);
    let late = block(epoch, Vec::new());
    it.run_to(it.schedule().output(it.schedule().start(epoch)), 60_000_000);
    it.submit(1, "b");
    it.run(30); // a broadcast is under way
    for to in 0..4 {
        it.say(replica(4), to, Message::Propose { chain: proposal(4, 5, &late), block: late.clone() });
    }
    it.run(1_000);
    assert!((0..4).all(|id| it.noted(id, "fenced: a timer rang late") == 0), "{:?}", it.hosts[0].notes);
    assert!((0..4).all(|id| it.status(id).view.get() == 0));
    assert_eq!(agree(&it, &[0, 1, 2, 3]), 2);
}

#[test]
fn who_could_not_judge_a_broadcast_votes_for_nothing_later_before_a_quorum_has() {
    // R2 lies, and confirms to each of the others whatever it says. R1's clock is not known when R0's block comes, and is known
    // when the next one does: a vote of R1 for that one alone, and R2's, would be a quorum for a history without the first.
    let mut it = Cluster::new(3);
    it.client(3).apply(3, "a").client(4);
    it.liar(2);
    it.run(30_000);
    it.lose(|it: &Flying| it.to == replica(1) && ["Time", "Status"].contains(&it.label));
    it.talk();
    let mut heard = it.sent.len();
    it.submit(3, "b");
    while it.count("Propose") == 0 {
        confirm(&mut it, 2, &mut heard, |to, it| !(to == 1 && matches!(it, Message::Time { .. })));
        it.run(1);
    }
    let abstains = |it: &Cluster| it.status(1).role.starts_with("abstains");
    assert!(abstains(&it), "{}", it.describe(1));
    it.answer_probe(1, 0);
    it.submit(4, "c");
    for _ in 0..40 {
        confirm(&mut it, 2, &mut heard, |_, _| true);
        it.run(5); // the harness compares what is executed
    }
    assert!(it.tape(0).len() > 1, "R0 and the liar go on");
    it.heal();
    for _ in 0..200 {
        confirm(&mut it, 2, &mut heard, |_, _| true);
        it.run(10);
    }
    assert_eq!(agree(&it, &[0, 1]), 3);
    assert!(!abstains(&it), "a quorum has gone past it");
}

/// The last view change of this replica.
fn change_of(it: &Cluster, id: usize) -> Signed<ViewChange> {
    let Message::ViewChange(change) = it.last(id, "ViewChange") else { panic!("no view change") };
    *change
}

/// How view 1 starts, as its leader R1 says: from these, with a first epoch so long from now.
fn start(it: &Cluster, mut changes: Vec<Signed<ViewChange>>, after_ms: u64) -> Message {
    changes.sort_by_key(Signed::by);
    let first = it.epoch_of(0, after_ms);
    Message::NewView(Box::new(keyring(1, 3).sign(NewView { view: View::new(1), changes, first })))
}

fn nothing_confirmed() -> Signed<ViewChange> {
    let change = ViewChange { view: View::new(1), committed: None, certified: None, links: Vec::new() };
    keyring(1, 3).sign(change)
}

#[test]
fn a_view_does_not_start_without_what_is_committed_anywhere() {
    // R1 lies and leads view 1. R0 has committed a block with its help. R2 has not heard of it, and wants a view. R1 starts it
    // from what R2 and it itself say to have confirmed.
    let mut it = Cluster::new(3);
    it.client(3).apply(3, "a").client(5);
    it.run(500);
    it.liar(1);
    it.cut(0, 2).cut(2, 0);
    it.submit(3, "b");
    it.submit(5, "c");
    let mut heard = 0;
    while it.count("ViewChange") == 0 {
        let binds = |it: &Message| matches!(it, Message::Vote(_) | Message::Commit(_));
        confirm(&mut it, 1, &mut heard, |to, it| to == 0 || !binds(it));
        it.run(2);
    }
    assert_eq!((it.tape(0).len(), it.tape(2).len()), (2, 1));
    assert_eq!((it.status(0).view.get(), it.status(2).view.get()), (0, 1));
    it.heal();
    let start = start(&it, vec![change_of(&it, 2), nothing_confirmed()], 300);
    it.say(replica(1), 2, start);
    it.run(90); // less than two rounds
    assert_eq!(it.status(2).role, "changing view");
    assert_eq!(it.status(0).view.get(), 1, "R0 was told, and confirms nothing in view 0 any more");
    it.run(5_000);
    assert!(it.noted(2, "a view's start lacks what is certified") > 0, "{}", it.describe(2));
    assert_eq!(agree(&it, &[0, 2]), 3);
    assert_eq!(it.tape(0)[1], "b");
}

/// R0 and R2 have left view 0, since they heard no votes of each other; R1, which leads the next view, lies.
fn changing() -> Cluster {
    let mut it = Cluster::new(3);
    it.client(3).apply(3, "a");
    it.run(500);
    it.liar(1);
    it.lose(|it: &Flying| it.label == "Vote");
    it.submit(3, "b");
    it.run_until("both have left the view", |it| it.status(0).view.get() == 1 && it.status(2).view.get() == 1);
    it.heal();
    it.deliver();
    it
}

#[test]
fn a_view_that_starts_in_two_ways_starts_nowhere() {
    let mut it = changing();
    let changes = vec![change_of(&it, 0), change_of(&it, 2)];
    let starts = [start(&it, changes.clone(), 300), start(&it, changes, 400)];
    it.say(replica(1), 0, starts[0].clone());
    it.say(replica(1), 2, starts[1].clone());
    it.deliver();
    assert!(it.blamed(0) > 0 && it.blamed(2) > 0);
    it.run(110); // two rounds
    assert!([0, 2].iter().all(|id| it.status(*id).role == "changing view"));
    it.run_until("the next view", |it| it.status(0).view.get() == 2 && it.status(2).view.get() == 2);
    it.apply(3, "c");
    it.run(500);
    assert_eq!(agree(&it, &[0, 2]), 3);
}

#[test]
fn a_view_starts_two_rounds_after_everybody_was_told_of_it() {
    let mut it = changing();
    let start = start(&it, vec![change_of(&it, 0), change_of(&it, 2)], 300);
    it.talk();
    it.say(replica(1), 0, start);
    it.deliver();
    let told = it.sent.iter().filter(|m| (m.from, m.to, m.label) == (replica(0), replica(2), "NewView")).count();
    assert_eq!(told, 1, "who hears of it passes it on");
    it.run(98);
    assert!([0, 2].iter().all(|id| it.status(*id).role == "changing view"));
    it.run(5);
    assert!([0, 2].iter().all(|id| it.status(*id).role != "changing view" && it.status(*id).view.get() == 1));
    it.apply(3, "c");
    it.run(500);
    assert_eq!(agree(&it, &[0, 2]), 3);
}

/// R2 hears nothing of one block, and no votes, so it votes for two later ones without it. R1 goes down as soon as the first
/// block is committed; then R2 hears of it.
fn one_that_missed_a_block() -> Cluster {
    let mut it = Cluster::new(3);
    it.client(3).apply(3, "a");
    it.run(500);
    it.talk();
    it.lose(|it: &Flying| it.to == replica(2) && ["Vote", "Commit", "Propose", "Status"].contains(&it.label));
    it.submit(3, "b");
    while it.count("Propose") == 0 {
        it.run(1);
    }
    it.lose(|it: &Flying| it.to == replica(2) && ["Vote", "Commit", "Status"].contains(&it.label));
    let before = it.committed(0);
    it.submit(3, "c");
    it.run(40);
    it.submit(3, "d");
    while it.committed(0) == before {
        it.run(1);
    }
    it.crash(1);
    it.run(120);
    let votes = it.sent.iter().filter(|m| m.from == replica(2) && m.label == "Vote").count();
    assert!(votes > 2, "R2 has voted for what follows");
    it.heal();
    it.run(110); // they tell each other where they are
    it
}

#[test]
fn outputs_after_one_that_was_missed_follow_it() {
    let mut it = one_that_missed_a_block();
    it.submit(3, "e"); // R2's vote for it names all three
    it.run(300);
    assert_eq!(agree(&it, &[0, 2]), 5);
    assert_eq!(it.status(0).view.get(), 0, "and no view had to settle it");
}

#[test]
fn who_comes_back_does_not_vote_again_in_an_epoch_in_which_it_has_voted() {
    // What it voted for without the first block follows that block now: a vote for it would be another one in its epoch.
    let mut it = one_that_missed_a_block();
    it.restart(2);
    it.run(2_000);
    it.apply(3, "e");
    assert_eq!(it.blamed(0), 0, "R2 has not contradicted itself");
    assert_eq!(agree(&it, &[0, 2]), 5);
}
