//! What waits for a write of its object goes together, as one write: one number, one signature, one place.

use crate::harness::{Cluster, replica};
use crate::in_order::in_order;
use crate::words::{N, grant, proof, together, version, write};
use quorate_core::ids::{ClientId, Peer};
use quorate_core::objects::MISPLACED;
use quorate_core::protocol::{CallError, Ticket};
use quorate_protocols::hq::{CLIENTS_MAX, Message, OPERATIONS_MAX};

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn submit(cluster: &mut Cluster, id: u128, words: impl IntoIterator<Item = String>) -> Vec<Ticket> {
    words.into_iter().map(|word| cluster.submit(id, &format!("a={word}"))).collect()
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|it| format!("w{it}")).collect()
}

/// How many writes a client has begun: of each it tells one replica, at least, in phase 1.
fn writes(cluster: &Cluster, id: u128) -> usize {
    let asked = cluster.sent.iter().filter(|it| it.from == client(id)).filter_map(|it| match it.message() {
        Some(Message::Write1(write) | Message::Submit(write)) => Some(write.ask().number),
        _ => None,
    });
    asked.collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn what_waits_for_a_write_goes_together_and_each_operation_has_its_own_answer() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    let tickets = submit(&mut cluster, 9, numbered(5));
    cluster.deliver();
    assert_eq!(writes(&cluster, 9), 2, "the first one, and the others");
    let answers: Vec<_> = tickets.iter().map(|ticket| cluster.answer(9, *ticket)).collect();
    assert_eq!(answers, (1..=5).map(|it| Some(it.to_string())).collect::<Vec<_>>());
    assert!(cluster.agrees(&["a: w0 w1 w2 w3 w4"]), "{:?}", cluster.tape(0));
}

#[test]
fn so_many_operations_go_together_and_no_more() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    submit(&mut cluster, 9, numbered(1 + 2 * OPERATIONS_MAX + 1));
    cluster.deliver();
    assert_eq!(writes(&cluster, 9), 4);
    assert!(cluster.agrees(&[&format!("a: {}", numbered(1 + 2 * OPERATIONS_MAX + 1).join(" "))]));
    // Long ones: by their bytes.
    let long = "x".repeat(40 << 10);
    cluster.talk();
    submit(&mut cluster, 9, (0..4).map(|_| long.clone()));
    cluster.deliver();
    assert_eq!(writes(&cluster, 9), 4);
}

#[test]
fn in_ordered_mode_what_waits_goes_together_in_one_entry() {
    let mut cluster = in_order(N);
    cluster.apply(8, "a=1").apply(7, "a=2"); // now they know that PBFT gives the places
    cluster.talk();
    let mut tickets: Vec<_> = submit(&mut cluster, 8, numbered(9)).into_iter().map(|it| (8, it)).collect();
    tickets.extend(submit(&mut cluster, 7, numbered(9)).into_iter().map(|it| (7, it)));
    cluster.deliver();
    assert!(tickets.iter().all(|(id, ticket)| cluster.answer(*id, *ticket).is_some()));
    assert_eq!((writes(&cluster, 8), writes(&cluster, 7)), (2, 2));
    assert!(cluster.count("PrePrepare") <= 4 * (N - 1), "{}", cluster.count("PrePrepare"));
    let tape = cluster.tape(0)[0].clone();
    assert!(tape.contains("w1 w2 w3 w4 w5 w6 w7 w8"), "{tape}");
    assert!((1..N).all(|id| cluster.tape(id)[0] == tape));
}

#[test]
fn a_write_of_several_operations_is_taken_back_whole() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).deliver();
    cluster.apply(9, "a=before");
    // Replica 3 alone executes a certified write of three operations; the others have contradicting grants for the same place.
    let (three, five) = (together(3, 1, &["a=one", "a=two", "a=three"]), write(5, 1, "a=five"));
    let certified = proof(&[0, 1, 3], &three, version(0, 2));
    cluster.say(client(3), 3, Message::Write2 { proof: certified, write: Some(three.clone()), answer: true });
    assert_eq!(cluster.tape(3), ["a: before one two three"]);
    cluster.lose(|it| it.label == "Start" && it.from == replica(3) && it.to != it.from);
    let conflict: Vec<_> =
        [(0, &three), (1, &five), (2, &three)].iter().map(|(id, it)| grant(*id, it, version(0, 2))).collect();
    for id in 0..3 {
        cluster.say(client(5), id, Message::Resolve { conflict: conflict.clone(), write: five.clone() });
    }
    cluster.run(100);
    cluster.heal();
    cluster.run_until("one state", |it| (0..N).all(|id| it.tape(id) == ["a: before five"]));
}

#[test]
fn a_write_of_several_operations_survives_a_power_failure_whole() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    let tickets = submit(&mut cluster, 9, numbered(4));
    cluster.deliver();
    for id in 0..N {
        cluster.crash(id);
    }
    for id in 0..N {
        cluster.restart(id);
    }
    assert!(tickets.iter().all(|ticket| cluster.answer(9, *ticket).is_some()));
    cluster.run(100);
    assert!((0..N).all(|id| cluster.tape(id) == ["a: w0 w1 w2 w3"]), "{:?}", cluster.tape(0));
    // And each replica can still say what all of it came to.
    let again = cluster.sent.iter().rev().find_map(|it| match it.message() {
        Some(Message::Write1(write)) if write.operations.len() == 3 => Some(write),
        _ => None,
    });
    cluster.say(client(9), 2, Message::Write1(again.expect("a write of three")));
    let Message::Done { results, .. } = cluster.last(2, "Done") else { panic!("an answer") };
    assert_eq!(results, ["2", "3", "4"]);
}

#[test]
fn operations_whose_answers_would_be_too_long_together_are_done_by_the_next_write() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    let tickets = submit(&mut cluster, 9, ["first", "w", "long1", "long2", "last"].map(str::to_owned));
    cluster.deliver();
    let answers = tickets.iter().map(|ticket| cluster.answer(9, *ticket).map(|it| it.trim().to_owned()));
    assert_eq!(answers.collect::<Vec<_>>(), (1..=5).map(|it| Some(it.to_string())).collect::<Vec<_>>());
    assert_eq!(writes(&cluster, 9), 4, "first; w and long1; long2; last");
    assert!(cluster.agrees(&["a: first w long1 long2 last"]), "{:?}", cluster.tape(0));
}

#[test]
fn an_operation_among_others_that_touches_something_else_changes_nothing() {
    let mut cluster = Cluster::new(N);
    let lie = together(9, 1, &["a=x", "b=y", "a=z"]);
    let certified = proof(&[0, 1, 2], &lie, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(lie), answer: true });
    let Message::Done { results, .. } = cluster.last(3, "Done") else { panic!("an answer") };
    assert_eq!(results, [&b"1"[..], MISPLACED, b"2"]);
    assert_eq!(cluster.tape(3), ["a: x z"]);
}

#[test]
fn a_write_of_nothing_or_of_too_much_is_refused() {
    let mut cluster = Cluster::new(N);
    let many = vec!["a=x"; OPERATIONS_MAX + 1];
    let long = "a=".to_owned() + &"x".repeat(quorate_core::sessions::OPERATION_BYTES_MAX / 2);
    for lie in [together(9, 1, &[]), together(9, 1, &many), together(9, 1, &[&long, &long])] {
        let before = cluster.blamed(0);
        cluster.say(client(9), 0, Message::Write1(lie));
        assert_eq!((cluster.blamed(0) - before, cluster.count("Granted")), (1, 0));
    }
    cluster.say(client(9), 0, Message::Write1(together(9, 1, &many[..OPERATIONS_MAX])));
    assert_eq!(cluster.count("Granted"), 1);
}

#[test]
fn what_stands_for_a_write_covers_every_operation_of_it() {
    let mut cluster = Cluster::new(N);
    let signed = together(9, 1, &["a=x", "a=y"]);
    let others = [&["a=x", "a=z"][..], &["a=x"], &["a=x", "a=y", "a=z"], &["a=y", "a=x"]];
    for other in others {
        let mut lie = signed.clone();
        lie.operations = together(9, 1, other).operations;
        let before = cluster.blamed(0);
        cluster.say(client(9), 0, Message::Write1(lie));
        assert_eq!((cluster.blamed(0) - before, cluster.count("Granted")), (1, 0));
    }
}

#[test]
fn an_operation_that_does_not_fit_an_entry_is_refused_by_its_client() {
    // PBFT's replicas would call an entry with it malformed, and nobody could order what comes after.
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    let long = "x".repeat(quorate_core::sessions::OPERATION_BYTES_MAX - 100);
    let ticket = cluster.submit(9, &format!("a={long}"));
    assert!(cluster.answer(9, ticket).is_some_and(|it| it.contains("longer than any")));
    assert_eq!(cluster.count("Write1"), 0);
}

#[test]
fn a_call_that_is_given_up_does_not_take_the_others_of_its_write_with_it() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).talk();
    cluster.lose(|it| it.label == "Done" || it.label == "Granted");
    let mut tickets = Vec::new();
    for word in ["first", "second", "third"] {
        tickets.extend(submit(&mut cluster, 9, [word.to_owned()]));
        cluster.run(5000);
    }
    let timed_out = |it: &Cluster, ticket| {
        let said = it.clients[&ClientId::new(9)].answers.get(&ticket);
        matches!(said, Some(Err(CallError::Timeout { maybe_applied: true })))
    };
    cluster.run(45_500); // a minute after the first one, and a little more
    cluster.run_until("second is given up", |it| timed_out(it, tickets[1]));
    assert!(timed_out(&cluster, tickets[0]));
    assert_eq!(cluster.answer(9, tickets[2]), None, "it went with the second, and has time left");
    cluster.heal();
    cluster.run_until("third is answered", |it| it.answer(9, tickets[2]).is_some());
    assert!(cluster.answer(9, tickets[2]).is_some_and(|it| !it.starts_with("error")));
    cluster.run(3000);
    assert!(
        cluster.agrees(&["a: second third"]) || cluster.agrees(&["a: first second third"]),
        "{:?}",
        cluster.tape(0)
    );
}

#[test]
fn a_client_that_was_forgotten_asks_for_all_operations_of_its_write_anew() {
    let mut cluster = in_order(N);
    cluster.client(1).apply(1, "a=known");
    for other in 10..=(CLIENTS_MAX as u128 + 11) {
        cluster.apply(other, "a=more");
    }
    let tickets = cluster.submit_together(1, &["a=w0", "a=w1", "a=w2", "a=w3"]);
    cluster.run_until("answers", |it| tickets.iter().all(|ticket| it.answer(1, *ticket).is_some()));
    cluster.run(3000);
    assert!(tickets.iter().all(|ticket| cluster.answer(1, *ticket).is_some_and(|it| !it.starts_with("error"))));
    assert!(cluster.tape(0)[0].ends_with("w0 w1 w2 w3"), "{:?}", cluster.tape(0));
}
