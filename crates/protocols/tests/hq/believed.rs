//! Clients (A.3, A.5), rule by rule: what they believe, whom they ask, and what they give up.

use crate::harness::{Cluster, replica};
use crate::tape::Tape;
use crate::words::{N, grant, proof, version, write};
use bytes::Bytes;
use quorate_core::crypto::Certificate;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber};
use quorate_core::objects::Touches;
use quorate_core::protocol::{
    Call, CallError, Client as _, ClientConfig, ClientEffect, ClientOutbox, Consistency, Ticket,
};
use quorate_core::time::{Duration, Instant};
use quorate_protocols::hq::{Client, Message, Version, object_of};
use quorate_protocols::pbft::Told;
use std::collections::BTreeSet;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// A client that asks and hears nothing but what the test says; its request has number 1.
fn deaf(operation: &str) -> (Cluster, Ticket) {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|it| it.from == client(9));
    let ticket = cluster.submit(9, operation);
    cluster.deliver();
    (cluster, ticket)
}

fn done(at: Version, result: &str) -> Message {
    let results = vec![Bytes::from(result.to_owned())];
    Message::Done { object: object_of(b"a"), number: RequestNumber::new(1), results, version: at, proof: None }
}

/// These replicas say these things, one each.
fn say(cluster: &mut Cluster, words: impl IntoIterator<Item = (usize, Message)>) {
    for (from, message) in words {
        cluster.tell(from, 9, message);
    }
    cluster.deliver();
}

/// How often the client has sent this since the last `talk`.
fn sent(cluster: &Cluster, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == client(9) && it.label == label).count()
}

/// Whom the client has sent this to.
fn to(cluster: &Cluster, label: &str) -> BTreeSet<usize> {
    let of = cluster.sent.iter().filter(|it| it.from == client(9) && it.label == label);
    of.filter_map(|it| if let Peer::Replica(id) = it.to { Some(id.index()) } else { None }).collect()
}

/// The nonce of its last read.
fn nonce(cluster: &Cluster) -> u64 {
    let read = cluster.sent.iter().rev().find_map(|it| match it.message() {
        Some(Message::Read(read)) => Some(read.nonce),
        _ => None,
    });
    read.expect("a read")
}

// What is believed.

#[test]
fn a_quorum_says_the_same_of_a_write_also_where_it_stands() {
    let (mut cluster, ticket) = deaf("a=x");
    say(&mut cluster, [(0, done(version(0, 1), "1")), (1, done(version(0, 1), "1")), (2, done(version(0, 2), "1"))]);
    assert_eq!(cluster.answer(9, ticket), None, "one of them has executed it at another place");
    say(&mut cluster, [(3, done(version(0, 1), "2"))]);
    assert_eq!(cluster.answer(9, ticket), None, "or with another result");
    say(&mut cluster, [(3, done(version(0, 1), "1"))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1"));
}

#[test]
fn a_quorum_says_the_same_of_a_read_also_of_which_write_it_is() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|it| it.from == client(9));
    let ticket = cluster.read(9, "a");
    let nonce = nonce(&cluster);
    let answer = |at: Version, proof| Message::ReadAnswer { nonce, version: at, answer: Told::Full("x".into()), proof };
    say(
        &mut cluster,
        [(0, answer(version(0, 1), None)), (1, answer(version(0, 1), None)), (2, answer(version(0, 2), None))],
    );
    assert_eq!(cluster.answer(9, ticket), None);
    say(&mut cluster, [(3, answer(version(0, 1), None))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("x"));
}

#[test]
fn an_answer_to_another_request_is_none_to_this_one() {
    let (mut cluster, ticket) = deaf("a=x");
    let other = |from: usize| match done(version(0, 1), "1") {
        Message::Done { object, results, version, proof, .. } => {
            (from, Message::Done { object, number: RequestNumber::new(7), results, version, proof })
        }
        _ => unreachable!(),
    };
    say(&mut cluster, (0..N).map(other));
    let at = version(0, 1).ts;
    let forgotten = Message::TooOld { object: object_of(b"a"), number: RequestNumber::new(7), at };
    cluster.talk();
    say(&mut cluster, (0..N).map(|from| (from, forgotten.clone())));
    assert_eq!((cluster.answer(9, ticket), sent(&cluster, "Write1")), (None, 0));
}

#[test]
fn who_is_no_replica_of_the_group_is_not_heard() {
    let (mut cluster, ticket) = deaf("a=x");
    say(&mut cluster, (N..N + 3).map(|from| (from, done(version(0, 1), "1"))));
    assert_eq!(cluster.answer(9, ticket), None);
    cluster.connect(ClientId::new(9), N);
    cluster.talk();
    cluster.run(1000);
    assert!(to(&cluster, "Write1").iter().all(|id| *id < N), "nor asked");
}

#[test]
fn one_replica_that_says_that_a_client_was_forgotten_is_not_believed() {
    let (mut cluster, _) = deaf("a=x");
    cluster.talk();
    let forgotten = Message::TooOld { object: object_of(b"a"), number: RequestNumber::new(1), at: version(0, 9).ts };
    say(&mut cluster, [(0, forgotten.clone())]);
    assert_eq!(sent(&cluster, "Write1"), 0);
    say(&mut cluster, [(1, forgotten)]);
    assert_eq!(sent(&cluster, "Write1"), N - 1, "two are");
}

#[test]
fn one_replica_that_says_that_a_client_of_several_objects_was_forgotten_is_not_believed() {
    let (mut cluster, ticket) = deaf("a+b=x");
    cluster.talk();
    let forgotten =
        |number: u64, at: u64| Message::OrderedTooOld { number: RequestNumber::new(number), at: OpNumber::new(at) };
    say(&mut cluster, [(0, forgotten(1, 9)), (1, forgotten(7, 9)), (2, forgotten(7, 9))]);
    assert_eq!(sent(&cluster, "Ordered"), 0, "nor what is said of another request");
    say(&mut cluster, [(1, forgotten(1, 9))]);
    assert_eq!(sent(&cluster, "Ordered"), N, "two are: it is made anew, once");
    say(&mut cluster, (0..N).map(|from| (from, forgotten(2, 9))));
    assert_eq!((sent(&cluster, "Ordered"), cluster.answer(9, ticket)), (N, None), "it says so already");
}

#[test]
fn more_replicas_than_can_lie_say_what_an_operation_on_several_objects_came_to() {
    let (mut cluster, ticket) = deaf("a+b=x");
    let done = |number: u64, result: Option<&str>| {
        let result = result.map(|it| Told::Full(Bytes::from(it.to_owned())));
        Message::OrderedDone { number: RequestNumber::new(number), result }
    };
    say(&mut cluster, [(0, done(1, Some("lie"))), (1, done(1, None)), (2, done(1, None))]);
    assert_eq!(cluster.answer(9, ticket), None, "one of them says with what result");
    say(&mut cluster, [(1, done(7, Some("lie"))), (3, done(1, Some("true")))]);
    assert_eq!(cluster.answer(9, ticket), None);
    say(&mut cluster, [(2, done(1, Some("true")))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("true"));
}

#[test]
fn results_that_one_replica_makes_up_are_not_in_the_others_way() {
    let (mut cluster, ticket) = deaf("a+b=x");
    let done = |result: &str| {
        let result = Some(Told::Full(Bytes::from(result.to_owned())));
        Message::OrderedDone { number: RequestNumber::new(1), result }
    };
    say(&mut cluster, ["one", "two", "three", "four", "five"].map(|it| (3, done(it))));
    say(&mut cluster, [(0, done("true")), (1, done("true")), (2, done("true"))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("true"));
}

#[test]
fn answers_to_a_read_that_one_replica_makes_up_are_not_in_the_others_way() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|it| it.from == client(9));
    let ticket = cluster.read(9, "a");
    let nonce = nonce(&cluster);
    let answer = |it: &str| {
        let answer = Told::Full(Bytes::from(it.to_owned()));
        Message::ReadAnswer { nonce, version: version(0, 1), answer, proof: None }
    };
    say(&mut cluster, ["one", "two", "three", "four", "five"].map(|it| (3, answer(it))));
    say(&mut cluster, [(0, answer("true")), (1, answer("true")), (2, answer("true"))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("true"));
}

// Grants.

#[test]
fn grants_that_no_correct_replica_gives_make_no_certificate() {
    let mine = write(9, 1, "a=x");
    let (number, at) = (mine.ask().number, version(0, 1));
    let granted = |by: usize, at: Version, current| Message::Granted { grant: grant(by, &mine, at), current };
    let last = write(8, 1, "a=last");
    let of_b = proof(&[0, 1, 2], &write(8, 1, "b=last"), version(0, 1));
    let lies = [
        granted(0, at, None),                                                   // another replica's
        granted(3, version(0, 2), None),                                        // not the next place
        granted(3, version(0, 3), Some(proof(&[0, 1, 2], &last, at))),          // nor this
        granted(3, version(0, 2), Some(of_b)),                                  // after another object's write
        granted(3, at, Some(proof(&[0, 1, 2], &last, version(4, 0)))),          // of an older viewstamp
        Message::Refused { number, grant: grant(2, &last, at), current: None }, // another replica's
    ];
    for (index, lie) in lies.into_iter().enumerate() {
        let (mut cluster, _) = deaf("a=x");
        // A quorum with this one would be three.
        say(&mut cluster, [(1, granted(1, at, None)), (2, granted(2, at, None)), (3, lie)]);
        assert_eq!(
            (sent(&cluster, "Write2"), sent(&cluster, "WriteBack"), sent(&cluster, "Resolve")),
            (0, 0, 0),
            "{index}"
        );
        say(&mut cluster, [(0, granted(0, at, None))]);
        assert_eq!(sent(&cluster, "Write2"), N, "{index}: a quorum is");
    }
}

#[test]
fn an_older_grant_of_a_replica_does_not_take_the_place_of_its_newer_one() {
    let (mut cluster, _) = deaf("a=x");
    let (mine, last) = (write(9, 1, "a=x"), write(8, 1, "a=last"));
    let old = Message::Granted { grant: grant(0, &mine, version(0, 1)), current: None };
    let current = Some(proof(&[0, 1, 2], &last, version(0, 1)));
    let new = |by: usize| Message::Granted { grant: grant(by, &mine, version(0, 2)), current: current.clone() };
    say(&mut cluster, [(0, new(0)), (0, old), (1, new(1)), (2, new(2))]);
    assert_eq!(sent(&cluster, "Write2"), N);
}

#[test]
fn a_certificate_that_proves_nothing_is_not_shown_to_who_is_behind() {
    // A.3, case 4: what the liar shows would be the latest.
    let (mut cluster, _) = deaf("a=x");
    let (mine, last) = (write(9, 1, "a=x"), write(8, 1, "a=last"));
    let honest = |by: usize| Message::Granted { grant: grant(by, &mine, version(0, 1)), current: None };
    let statement = *proof(&[0], &last, version(0, 5)).statement();
    let current = Some(Certificate::claimed(statement, Vec::new()));
    let lie = Message::Granted { grant: grant(3, &mine, version(0, 6)), current };
    say(&mut cluster, [(0, honest(0)), (1, honest(1)), (3, lie)]);
    assert_eq!(sent(&cluster, "WriteBack"), 0);
    say(&mut cluster, [(2, honest(2))]);
    assert_eq!(sent(&cluster, "Write2"), N);
}

#[test]
fn a_certificate_in_an_answer_is_shown_to_all_if_it_is_one_of_this_request() {
    // A.3, case 5.
    let mine = write(9, 1, "a=x");
    let at = version(0, 1);
    let with = |proof| match done(at, "1") {
        Message::Done { object, number, results, version, .. } => {
            Message::Done { object, number, results, version, proof }
        }
        _ => unreachable!(),
    };
    let other = proof(&[0, 1, 2], &write(8, 1, "a=other"), at);
    let (mut cluster, _) = deaf("a=x");
    say(&mut cluster, [(0, with(Some(other))), (1, with(Some(proof(&[0, 1], &mine, at))))]);
    assert_eq!(sent(&cluster, "Write2"), 0, "another one's, and one of too few");
    let (mut cluster, _) = deaf("a=x");
    say(&mut cluster, [(0, with(Some(proof(&[0, 1, 2], &mine, at))))]);
    assert_eq!(to(&cluster, "Write2").len(), N);
    say(&mut cluster, [(1, with(Some(proof(&[0, 1, 2], &mine, at))))]);
    assert_eq!(sent(&cluster, "Write2"), N, "once");
}

#[test]
fn grants_of_different_places_are_neither_a_conflict_nor_looked_at_before_a_quorum_has_answered() {
    let (mut cluster, _) = deaf("a=x");
    let (mine, nine, eight) = (write(9, 1, "a=x"), write(7, 1, "a=seven"), write(8, 1, "a=eight"));
    let refused = |by: usize, of, at: Version| Message::Refused {
        number: mine.ask().number,
        grant: grant(by, of, at),
        current: None,
    };
    say(&mut cluster, [(0, refused(0, &nine, version(0, 1))), (1, refused(1, &eight, version(0, 1)))]);
    say(&mut cluster, [(2, refused(2, &nine, version(5, 1)))]);
    cluster.run(1000);
    assert_eq!(sent(&cluster, "Resolve"), 0, "two of one place, and one of another");
    let (mut cluster, _) = deaf("a=x");
    let current = Some(proof(&[0, 1, 2], &nine, version(0, 1)));
    let ahead = Message::Granted { grant: grant(1, &mine, version(0, 2)), current };
    let behind = |by: usize| Message::Granted { grant: grant(by, &mine, version(0, 1)), current: None };
    say(&mut cluster, [(0, behind(0)), (1, ahead)]);
    assert_eq!(sent(&cluster, "WriteBack"), 0);
    say(&mut cluster, [(2, behind(2))]);
    assert_eq!(to(&cluster, "WriteBack"), BTreeSet::from([0, 2]), "who is behind is shown what another one has");
}

#[test]
fn grants_of_the_contended_place_do_not_end_the_resolution() {
    let (mut cluster, _) = deaf("a=x");
    let (mine, nine, eight) = (write(9, 1, "a=x"), write(7, 1, "a=seven"), write(8, 1, "a=eight"));
    let refused = |by: usize| {
        let of = if by.is_multiple_of(2) { &nine } else { &eight };
        (by, Message::Refused { number: mine.ask().number, grant: grant(by, of, version(0, 1)), current: None })
    };
    say(&mut cluster, (0..N).map(refused));
    assert_eq!(sent(&cluster, "Resolve"), N);
    say(&mut cluster, (0..N).map(refused));
    assert_eq!((sent(&cluster, "Resolve"), sent(&cluster, "WriteBack")), (N, 0));
}

#[test]
fn a_request_that_may_be_done_is_not_made_anew_when_its_client_was_forgotten() {
    let forgotten = |from: usize| {
        let (object, number, at) = (object_of(b"a"), RequestNumber::new(1), version(0, 9).ts);
        (from, Message::TooOld { object, number, at })
    };
    let mine = write(9, 1, "a=x");
    let granted = |by: usize| (by, Message::Granted { grant: grant(by, &mine, version(0, 1)), current: None });
    for done_by_one in [true, false] {
        let (mut cluster, ticket) = deaf("a=x");
        if done_by_one {
            say(&mut cluster, [(0, done(version(0, 1), "1"))]);
        } else {
            say(&mut cluster, (0..3).map(granted)); // it is granted: everybody has been told to do it
        }
        cluster.talk();
        say(&mut cluster, [forgotten(1), forgotten(2)]);
        let said = &cluster.clients[&ClientId::new(9)].answers[&ticket];
        assert!(matches!(said, Err(CallError::Evicted { maybe_applied: true })), "{said:?}");
        assert_eq!(sent(&cluster, "Write1"), 0);
    }
}

// Reads.

#[test]
fn an_answer_to_an_earlier_attempt_is_none_to_this_one() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|it| it.from == client(9));
    let ticket = cluster.read(9, "a");
    let first = nonce(&cluster);
    let answer =
        |nonce: u64| Message::ReadAnswer { nonce, version: version(0, 1), answer: Told::Full("x".into()), proof: None };
    say(&mut cluster, [(0, answer(first)), (1, answer(first))]);
    cluster.run(160);
    let second = nonce(&cluster);
    assert!(second != first);
    say(&mut cluster, [(2, answer(first)), (3, answer(second)), (2, answer(second))]);
    assert_eq!(cluster.answer(9, ticket), None, "two of this attempt");
    say(&mut cluster, [(0, answer(second))]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("x"));
}

#[test]
fn a_certificate_in_an_answer_to_a_read_is_of_what_it_says() {
    // Who is behind is shown what is proved; who names more than he proves is not listened to.
    let (one, two) = (write(8, 1, "a=1"), write(8, 2, "a=2"));
    let good = |by: &[usize]| Some(proof(by, &two, version(0, 2)));
    let lies = [
        (version(0, 3), good(&[0, 1, 2])),
        (version(0, 3), Some(proof(&[0, 1, 2], &write(8, 3, "b=3"), version(0, 3)))),
        (version(0, 2), good(&[0, 1])),
    ];
    for (index, (at, lie)) in lies.into_iter().enumerate() {
        let mut cluster = Cluster::new(N);
        cluster.client(9).lose(|it| it.from == client(9));
        cluster.read(9, "a");
        let nonce = nonce(&cluster);
        let answer =
            |at: Version, proof| Message::ReadAnswer { nonce, version: at, answer: Told::Full("x".into()), proof };
        let behind = || answer(version(0, 1), Some(proof(&[0, 1, 2], &one, version(0, 1))));
        say(&mut cluster, [(0, behind()), (1, behind()), (3, answer(at, lie))]);
        assert_eq!(sent(&cluster, "WriteBackRead"), 0, "{index}");
        say(&mut cluster, [(2, answer(version(0, 2), good(&[0, 1, 2])))]);
        assert_eq!(to(&cluster, "WriteBackRead"), BTreeSet::from([0, 1]), "{index}");
    }
}

// Whom a client asks.

#[test]
fn who_cannot_be_reached_any_more_is_not_waited_for() {
    for operation in ["a=x", "a+b=x", "a"] {
        let mut cluster = Cluster::new(N);
        cluster.client(9).talk();
        let (label, all) = if operation == "a" {
            ("Read", false)
        } else if operation == "a=x" {
            ("Write1", false)
        } else {
            ("Ordered", true)
        };
        cluster.lose(|it| it.from == client(9));
        let ticket = if operation == "a" { cluster.read(9, "a") } else { cluster.submit(9, operation) };
        let asked = to(&cluster, label);
        assert_eq!(asked.len(), if all { N } else { N - 1 });
        let gone = *asked.iter().next().expect("some");
        cluster.heal().talk();
        cluster.lose(move |it| it.from == client(9) && it.to == replica(gone));
        cluster.disconnect(9, gone);
        cluster.run(2);
        assert!(!to(&cluster, label).is_empty(), "{operation}: the others are asked at once");
        cluster.run(140);
        assert!(cluster.answer(9, ticket).is_some(), "{operation}");
        assert!(!to(&cluster, label).contains(&gone), "{operation}: he is not");
    }
}

#[test]
fn who_can_be_reached_again_is_asked_if_a_quorum_was_not() {
    let mut cluster = Cluster::new(N);
    cluster.client(9);
    (1..N).for_each(|id| cluster.disconnect(9, id));
    let write = cluster.submit(9, "a=x");
    let read = cluster.read(9, "b");
    cluster.deliver();
    assert_eq!((to(&cluster, "Write1"), to(&cluster, "Read")), (BTreeSet::from([0]), BTreeSet::from([0])));
    for id in [1, 1, 2] {
        cluster.connect(ClientId::new(9), id);
    }
    assert_eq!((sent(&cluster, "Write1"), sent(&cluster, "Read")), (3, 3), "each once");
    cluster.lose(|it| it.label == "Granted" || it.label == "ReadAnswer");
    cluster.deliver();
    cluster.connect(ClientId::new(9), 3);
    assert_eq!((sent(&cluster, "Write1"), sent(&cluster, "Read")), (3, 3), "a quorum was");
    cluster.heal();
    cluster.run_until("answers", |it| it.answer(9, write).is_some() && it.answer(9, read).is_some());
}

/// A client, its next request, whom it asked first; it is answered.
fn asked_first(cluster: &mut Cluster, read: bool) -> BTreeSet<usize> {
    cluster.talk();
    let ticket = if read { cluster.read(9, "a") } else { cluster.submit(9, "a=x") };
    let asked = to(cluster, if read { "Read" } else { "Write1" });
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    cluster.run(1000);
    asked
}

#[test]
fn who_did_not_answer_is_not_preferred_until_he_does() {
    for read in [false, true] {
        let mut cluster = Cluster::new(N);
        cluster.client(9);
        let usual = asked_first(&mut cluster, read);
        let silent = *usual.iter().next().expect("some");
        cluster.lose(move |it| it.from == replica(silent) && matches!(it.to, Peer::Client(_)));
        assert_eq!(asked_first(&mut cluster, read), usual);
        assert!(!asked_first(&mut cluster, read).contains(&silent), "read: {read}");
        cluster.heal();
        let other = write(9, 1, "z=x");
        let word = Message::TooOld { object: other.ask().object, number: RequestNumber::new(99), at: version(0, 1).ts };
        cluster.tell(silent, 9, word);
        cluster.deliver();
        assert_eq!(asked_first(&mut cluster, read), usual, "now as at first");
    }
}

#[test]
fn who_was_to_say_the_whole_answer_and_says_nothing_starves_no_read() {
    let mut cluster = Cluster::new(N);
    let long = "x".repeat(1000); // a short one costs no more than its digest
    cluster.apply(9, &format!("a={long}")).talk();
    let ticket = cluster.read(9, "a");
    let full = cluster.sent.iter().find_map(|it| match it.message() {
        Some(Message::Read(read)) => read.full,
        _ => None,
    });
    let full = replica(full.expect("one of them").index());
    cluster.lose(move |it| it.from == full && it.label == "ReadAnswer");
    cluster.run(1000);
    assert_eq!(cluster.answer(9, ticket), Some(long));
}

#[test]
fn different_objects_have_different_quorums() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|_| true).talk();
    let mut quorums = BTreeSet::new();
    for object in 0..40 {
        cluster.talk();
        cluster.read(9, &format!("n{object}"));
        quorums.insert(to(&cluster, "Read"));
    }
    assert_eq!(quorums.len(), N, "the load is everybody's");
}

#[test]
fn who_gets_no_answer_asks_less_and_less_often() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|_| true).talk();
    for operation in ["a=x", "b+c=x"] {
        cluster.submit(9, operation);
    }
    cluster.read(9, "d");
    cluster.run(50_000);
    for label in ["Write1", "Ordered", "Read"] {
        let count = sent(&cluster, label);
        assert!((20..=30 * N).contains(&count), "{label}: {count}");
    }
}

#[test]
fn what_waits_for_too_long_is_given_up_and_was_not_applied() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).lose(|_| true);
    let first = [cluster.submit(9, "a=x"), cluster.submit(9, "a+b=x")];
    let waiting = [cluster.submit(9, "a=y"), cluster.submit(9, "a+b=y"), cluster.read(9, "a")];
    cluster.run(59_000);
    assert!(cluster.clients[&ClientId::new(9)].answers.is_empty());
    cluster.run(2000);
    let said = |ticket: &Ticket| match cluster.clients[&ClientId::new(9)].answers.get(ticket) {
        Some(Err(CallError::Timeout { maybe_applied })) => Some(*maybe_applied),
        _ => None,
    };
    assert_eq!((first.map(|it| said(&it)), waiting.map(|it| said(&it))), ([Some(true); 2], [Some(false); 3]));
    cluster.heal();
    cluster.apply(9, "a=z");
}

#[test]
fn a_client_says_which_write_it_knew_of_when_it_asked() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "b=1").apply(9, "a=2").apply(9, "a=3");
    let after = |word: &str| {
        let asked = cluster.sent.iter().find_map(|it| match it.message() {
            Some(Message::Write1(write)) if write.operations[0] == word.as_bytes() => Some(write.ask().after.get()),
            _ => None,
        });
        asked.expect("it was asked for")
    };
    assert_eq!((after("a=1"), after("b=1"), after("a=2"), after("a=3")), (0, 0, 1, 2));
}

#[test]
fn a_client_without_a_key_writes_nothing() {
    let (retry, timeout) = (Duration::from_millis(150), Duration::from_secs(60));
    let mut core = Client::new(ClientConfig { client: ClientId::new(9), replicas: N, retry, timeout });
    core.knows(Touches::of::<Tape>());
    let mut out = ClientOutbox::new(Instant::from_nanos(1));
    for (ticket, operation) in [(1, "a=x"), (2, "a+b=x")] {
        core.submit(Ticket(ticket), Call::Apply(operation.into()), &mut out);
    }
    core.submit(Ticket(3), Call::Read(Consistency::Linearizable, "a".into()), &mut out);
    let effects = out.into_effects();
    let refused = effects.iter().filter(|it| matches!(it, ClientEffect::Complete(_, Err(CallError::Refused(_)))));
    assert_eq!(refused.count(), 2);
}

#[test]
fn an_operation_on_too_many_objects_is_refused_by_its_client() {
    let mut cluster = Cluster::new(N);
    cluster.client(9);
    let names = |count: usize| (0..count).map(|it| format!("n{it:04}")).collect::<Vec<_>>().join("+");
    let ticket = cluster.submit(9, &format!("{}=x", names(129)));
    assert!(cluster.answer(9, ticket).is_some_and(|it| it.contains("128 objects")));
    assert_eq!(sent(&cluster, "Ordered"), 0);
}
