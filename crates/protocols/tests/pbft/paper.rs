//! One test for each claim of Castro and Liskov 1999, in its order.

use crate::harness::{Cluster, ENVELOPE, Flying, config, replica};
use crate::words::{commit, op, orders, pre_prepare, prepare, view};
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_core::node::Payload;
use quorate_core::protocol::Consistency;
use quorate_protocols::pbft::{Config, Message, Proposal, Told};

/// Checkpoints every few entries.
fn small() -> Config {
    Config { checkpoint_entries: 4, state_entries: 8, ..config() }
}

#[test]
fn one_request_costs_one_pre_prepare_and_two_rounds_of_votes() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let counts = ["Request", "PrePrepare", "Prepare", "Commit", "Reply"].map(|label| it.count(label));
    let n = 4;
    assert_eq!(counts, [1, n - 1, (n - 1) * (n - 1), n * (n - 1), n]);
    let others = it
        .talk()
        .iter()
        .filter(|line| !line.contains("Re") && !line.contains("Pre") && !line.contains("Commit"))
        .count();
    assert_eq!(others, 0, "nothing else is said");
}

/// Bytes of all messages of each name that one request of so many bytes costs a group of `n`.
fn bytes_of_a_request(n: usize, payload: usize) -> [usize; 5] {
    let mut it = Cluster::new(n);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    it.submit(1, &"x".repeat(payload));
    it.deliver();
    ["Request", "PrePrepare", "Prepare", "Commit", "Reply"].map(|label| {
        let sent = it.sent.iter().filter(|sent| sent.label == label);
        sent.map(|sent| sent.bytes.len()).sum()
    })
}

#[test]
fn the_bytes_of_a_request_follow_the_formula() {
    // The operation travels once to the primary and once to each backup; votes and replies do not grow with it.
    for n in [4, 7] {
        let (short, long) = (bytes_of_a_request(n, 100), bytes_of_a_request(n, 1_100));
        let grown: Vec<usize> = long.iter().zip(short).map(|(long, short)| long - short).collect();
        assert_eq!(grown, [1_000, (n - 1) * 1_000, 0, 0, 0]);
        let sealed = |message| crate::harness::ENVELOPE.seal(&quorate_core::node::Payload::Protocol(message)).len();
        let digest = quorate_core::crypto::Digest::ZERO;
        let (a_prepare, a_commit) =
            (Message::Prepare(prepare(1, 0, 1, digest)), Message::Commit(commit(1, 0, 1, digest)));
        assert_eq!(short[2], (n - 1) * (n - 1) * sealed(a_prepare));
        assert_eq!(short[3], n * (n - 1) * sealed(a_commit));
    }
}

#[test]
fn views_change_from_time_to_time_if_they_are_to() {
    let mut it = Cluster::with(4, Config { rotate_entries: 8, ..small() });
    it.client(1);
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    assert!((3..=6).contains(&it.view(1).get()), "every eight to twelve entries: {}", it.view(1));
    it.run(3_000);
    assert!((0..4).all(|id| it.tape(id).len() == 40 && it.view(id) == it.view(0)));
}

#[test]
fn an_idle_group_whose_members_agree_says_nothing_and_waits_for_nothing() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.rests_after(10_000);
}

#[test]
fn everybody_executes_everything_in_one_order() {
    let mut it = Cluster::new(4);
    it.client(1).client(2);
    for index in 0..20 {
        it.submit(1 + index % 2, &format!("x{index}"));
    }
    it.run(1_000);
    let tape = it.tape(0);
    assert_eq!(tape.len(), 20);
    assert!((1..4).all(|id| it.tape(id) == tape));
}

#[test]
fn a_backup_votes_only_when_proposal_and_vote_are_on_its_disk() {
    // §4.2, and the rule of durability: whoever comes back must not vote otherwise.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.hosts[1].fast_disk = false;
    it.talk();
    it.submit(1, "b");
    it.deliver();
    assert!(it.prepared(1).is_empty());
    it.sync(1);
    assert_eq!(it.prepared(1).len(), 3, "to each of the others");
}

#[test]
fn a_commit_waits_for_its_certificate_to_be_on_disk() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.talk();
    it.submit(1, "b");
    it.lose(|it| it.label == "Commit");
    it.hosts[1].fast_disk = false;
    it.deliver();
    assert_eq!(it.count("Prepare"), 6, "a quorum has voted, R1 has not said so yet");
    let commits = |it: &mut Cluster| it.sent.iter().filter(|it| it.from == replica(1) && it.label == "Commit").count();
    assert_eq!(commits(&mut it), 0);
    it.sync(1);
    assert_eq!(commits(&mut it), 3);
}

#[test]
fn the_primary_counts_its_own_vote_only_when_it_is_durable() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.hosts[0].fast_disk = false;
    it.cut(3, 0);
    let before = it.committed(0);
    it.submit(1, "b");
    it.deliver();
    assert_eq!(it.committed(0), before, "two backups and itself would be a quorum");
    it.sync(0);
    it.deliver();
    it.sync(0);
    it.deliver();
    assert!(it.committed(0) > before);
}

#[test]
fn two_of_four_prepare_nothing() {
    // §4.2: prepared needs a PRE-PREPARE and 2f PREPAREs.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(1_000);
    let before = it.committed(0);
    it.isolate(2).isolate(3);
    it.talk();
    it.submit(1, "b");
    it.deliver();
    assert_eq!(it.count("Commit"), 0);
    assert_eq!(it.committed(0), before);
}

#[test]
fn three_of_four_go_on() {
    let mut it = Cluster::new(4);
    it.client(1).isolate(3);
    it.apply(1, "a").apply(1, "b");
    assert_eq!(it.tape(0), ["a", "b"]);
}

#[test]
fn a_request_whose_primary_is_silent_is_executed_in_the_next_view() {
    // §4.4
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.apply(1, "b");
    assert!(it.view(1) >= view(1));
    assert_eq!(it.tape(1), ["a", "b"]);
}

#[test]
fn primaries_that_are_silent_one_after_the_other_are_passed_over() {
    let mut it = Cluster::new(7);
    it.client(1).apply(1, "a");
    it.crash(0).crash(1);
    it.apply(1, "b");
    assert_eq!(it.primary(), Some(2));
}

#[test]
fn what_committed_anywhere_keeps_its_place_in_the_next_view() {
    // §4.4: R1 alone learns that `b` is committed; R0, R1 disappear from the others' sight.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Commit" && it.to != replica(1));
    it.submit(1, "b");
    it.deliver();
    assert_eq!(it.tape(1), ["a", "b"]);
    assert_eq!(it.tape(2), ["a"]);
    it.crash(0);
    it.heal().lose(|it| it.label == "Committed");
    it.submit(1, "c");
    it.run(3_000);
    assert_eq!(it.tape(2).get(1).map(String::as_str), Some("b"));
    it.heal().run(3_000);
    assert_eq!(it.tape(1), it.tape(2));
}

#[test]
fn a_gap_is_filled_by_a_request_that_does_nothing() {
    // §4.4: entry 2 reaches nobody, entry 3 is prepared.
    let mut it = Cluster::with(4, Config { in_flight_entries: 4, ..config() });
    it.client(1).client(2).apply(1, "a").apply(2, "b");
    let next = it.committed(0) + 1;
    it.lose(
        move |it| matches!(it.message(), Some(Message::PrePrepare { vote, .. }) if vote.statement().op == op(next)),
    );
    it.submit(1, "lost");
    it.deliver();
    it.submit(2, "kept");
    it.deliver();
    it.crash(0);
    it.heal();
    it.clients.clear();
    it.client(3);
    it.apply(3, "c");
    it.run(2_000);
    let null = Proposal::null(op(next)).digest();
    let started = it.last(1, "NewView");
    let Message::NewView(start) = started else { panic!("a new view") };
    assert!(start.statement().proposals.iter().any(|vote| vote.statement().digest == null));
    assert!(it.agrees(&["a", "b", "kept", "c"]));
}

#[test]
fn null_requests_of_different_entries_have_different_digests() {
    assert_ne!(Proposal::null(op(1)).digest(), Proposal::null(op(2)).digest());
}

#[test]
fn a_stable_checkpoint_moves_the_watermarks_and_nothing_beyond_them_is_accepted() {
    // §4.3
    let mut it = Cluster::with(4, small());
    it.client(1);
    for index in 0..9 {
        it.apply(1, &format!("x{index}"));
    }
    let last = it.committed(0);
    let far = orders(it.now, Vec::new());
    it.talk();
    let beyond = last / 4 * 4 + 2 * 8 + 1;
    it.say(replica(0), 1, pre_prepare(0, 0, beyond, &far));
    assert!(it.prepared(1).is_empty());
}

#[test]
fn a_proposal_just_above_the_watermark_is_held_until_the_watermark_moves() {
    let mut it = Cluster::with(4, small());
    it.client(1).lose(|it| it.label == "Checkpoint" && it.to == replica(3));
    for index in 0..12 {
        it.submit(1, &format!("x{index}"));
        it.run(20);
    }
    it.heal();
    it.run_until("R3 catches up", |it| it.tape(3).len() == 12);
    assert_eq!(it.view(3), view(0), "no view change for that");
}

#[test]
fn a_replica_behind_everybodys_log_fetches_the_state() {
    // §5.3.2 of the journal version
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "first").isolate(3);
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.talk();
    it.heal();
    it.run_until("R3 has it all", |it| it.tape(3).len() == 41);
    assert!(it.talk().iter().any(|line| line.starts_with("R3 GetManifest")));
}

#[test]
fn a_replica_that_missed_a_view_is_told_of_it() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").isolate(3).crash(0);
    it.heal().isolate(3).restart(0);
    it.apply(1, "b");
    assert!(it.view(1) > view(0));
    it.heal();
    it.run_until("R3 follows", |it| it.view(3) == it.view(1) && it.tape(3).len() == 2);
}

#[test]
fn a_read_only_request_is_answered_without_being_ordered() {
    // §5.1
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.talk();
    let ticket = it.read(1, Consistency::Linearizable);
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("a b"));
    assert_eq!(it.count("PrePrepare"), 0);
}

/// What a liar answers to client 2's first read.
fn answers_the_read(it: &mut Cluster, from: usize, op: OpNumber, answer: &'static str) {
    let reply = Message::ReadReply { view: view(0), id: 1, op, answer: Told::Full(answer.into()) };
    let bytes = ENVELOPE.seal(&Payload::Protocol(reply));
    let to = Peer::Client(ClientId::new(2));
    it.hand_over(&Flying { from: replica(from), to, label: "ReadReply", bytes });
}

#[test]
fn a_read_sees_a_write_that_only_one_correct_replica_has_executed() {
    // The write is answered by R0 and R1; R2 and R3 have prepared it and lack the COMMITs. A read of R1, R2, R3 must see it.
    let mut it = Cluster::new(4);
    it.client(1).client(2).apply(1, "a").apply(2, "b");
    it.run(2_000);
    it.lose(|it| matches!(it.label, "Commit" | "Committed") && (it.to == replica(2) || it.to == replica(3)));
    let write = it.submit(1, "c");
    it.deliver();
    assert!(it.answer(1, write).is_some(), "f + 1 have executed it");
    it.liar(0);
    let read = it.read(2, Consistency::Linearizable);
    it.deliver();
    answers_the_read(&mut it, 0, op(4), "a b");
    it.run(100);
    assert_eq!(it.answer(2, read), None, "R2 and R3 have prepared `c`, and do not help the liar to forget it");
    it.heal();
    it.run_until("the read is answered", |it| it.answer(2, read).is_some());
    assert_eq!(it.answer(2, read).as_deref(), Some("a b c"));
}

#[test]
fn a_read_names_the_entry_that_it_reflects_and_none_before_it() {
    Cluster::new(4).reads_behind_a_write(50);
}

#[test]
fn no_stale_read_goes_back_because_a_liar_names_an_earlier_entry() {
    // R0 has executed `b`, R3 has not. R2 says what R0 says of the read, and that it were R3's entry.
    let mut it = Cluster::new(4);
    it.client(1).client(2).apply(1, "a");
    it.run(2_000);
    let before = op(it.committed(3));
    it.isolate(3);
    let write = it.submit(1, "b");
    it.run_until("the write is answered", |it| it.answer(1, write).is_some());
    it.liar(2);
    it.lose(|it| it.label == "ReadReply" && it.from == replica(1));
    let read = it.read(2, Consistency::Stale { at_least: before });
    answers_the_read(&mut it, 2, before, "a b");
    it.deliver();
    it.heal();
    it.run_until("the read is answered", |it| it.answer(2, read).is_some());
    assert_eq!(it.answer(2, read).as_deref(), Some("a b"));
    assert!(it.answered_at(2, read) >= it.answered_at(1, write));
}

#[test]
fn no_stale_read_waits_for_an_entry_that_only_a_liar_names() {
    let mut it = Cluster::new(4);
    it.client(1).client(2).apply(1, "a");
    it.run(2_000);
    it.liar(2);
    it.lose(|it| it.label == "ReadReply" && (it.from == replica(1) || it.from == replica(3)));
    let read = it.read(2, Consistency::Stale { at_least: op(0) });
    answers_the_read(&mut it, 2, op(1 << 40), "a");
    it.deliver();
    it.heal();
    it.run_until("the read is answered", |it| it.answer(2, read).is_some());
    assert_eq!(it.answered_at(2, read), op(it.committed(0)));
}

#[test]
fn a_client_believes_what_f_plus_1_replicas_say_and_gets_it_in_full_from_one() {
    // §4.1, §5.1
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.isolate(1).isolate(2);
    let ticket = it.submit(1, "b");
    it.deliver();
    assert_eq!(it.answer(1, ticket), None);
    it.heal();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
}

#[test]
fn a_reply_that_was_lost_is_sent_again_when_the_client_asks_again() {
    // §4.1
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(50);
    assert_eq!(it.answer(1, ticket), None);
    it.heal();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
    assert_eq!(it.tape(0), ["a", "b"], "applied once");
}

#[test]
fn a_request_that_was_answered_is_answered_again_without_being_ordered_again() {
    // §4.1
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(50);
    let committed = it.committed(0);
    it.heal().talk();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
    assert_eq!((it.count("PrePrepare"), it.committed(0)), (0, committed));
    assert!(it.count("Request") == 4 && it.count("Reply") == 4, "nobody passes on what it can answer");
    assert_eq!(it.tape(0), ["a", "b"]);
}

#[test]
fn what_only_some_can_answer_again_is_ordered_again_without_a_view_change() {
    let mut it = Cluster::with(4, Config { checkpoint_entries: 2, state_entries: 1, ..config() });
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(50);
    for id in 1..4 {
        it.restart(id); // they forget what they have answered; R0, the primary, does not
    }
    it.heal();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
    assert_eq!((it.view(1), it.tape(0)), (view(0), vec!["a".to_owned(), "b".to_owned()]));
}

#[test]
fn requests_gather_while_entries_are_under_way() {
    let mut it = Cluster::with(4, Config { in_flight_entries: 1, ..config() });
    it.client(1).client(2).client(3).apply(1, "a").apply(2, "b").apply(3, "c");
    it.talk();
    it.hosts[0].fast_disk = false;
    for index in 0..9 {
        it.submit(1 + index % 3, &format!("x{index}"));
    }
    it.deliver();
    for _ in 0..6 {
        it.sync(0).deliver();
    }
    it.hosts[0].fast_disk = true;
    it.sync(0).run(500);
    assert_eq!(it.tape(0).len(), 12);
    assert!(it.count("PrePrepare") <= 3 * 3, "nine requests in few entries: {}", it.count("PrePrepare"));
}

#[test]
fn the_tick_that_the_machine_asked_for_comes_from_the_log() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "lease");
    it.run(1_500);
    assert!(it.agrees(&["lease", "tick"]));
    assert_eq!(it.view(0), view(0));
}

#[test]
fn votes_of_another_view_are_not_counted() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let next = it.committed(0) + 1;
    let proposal = orders(it.now, Vec::new());
    it.liar(3);
    it.say(replica(3), 1, Message::Prepare(prepare(3, 7, next, proposal.digest())));
    it.say(replica(3), 1, Message::Commit(commit(3, 7, next, proposal.digest())));
    assert_eq!(it.status(1).op, op(next - 1));
}
