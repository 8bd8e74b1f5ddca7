//! One test for each claim of Yin et al. 2019 (chained HotStuff, §5) and of Gelashvili et al. 2022 (pacemaker, two chains).

use crate::harness::{Cluster, ENVELOPE, Flying, replica};
use crate::words::{config, under, view};
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_core::node::Payload;
use quorate_core::protocol::Consistency;
use quorate_protocols::hotstuff::{Config, Message, Place, Rules};
use quorate_protocols::pbft::{self, Told};

/// Snapshots every few blocks.
fn small() -> Config {
    Config { state_blocks: 8, ..config() }
}

#[test]
fn a_request_is_committed_by_the_three_blocks_that_begin_with_its_own() {
    // §5: three chains. R0 leads and its certificates are in its own blocks.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let counts = ["Proposal", "Vote", "NewView", "Reply"].map(|label| it.count(label));
    let (n, blocks) = (4, 3);
    assert_eq!(counts, [blocks * (n - 1), blocks * (n - 1), n - 1, n], "linear in the number of replicas");
}

#[test]
fn with_two_chains_it_takes_one_block_less() {
    let mut it = Cluster::with(4, under(Rules::TwoChain));
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    assert_eq!(it.count("Proposal"), 2 * 3);
}

#[test]
fn an_idle_group_whose_members_agree_says_nothing_and_waits_for_nothing() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).apply(1, "a");
        it.rests_after(10_000);
    }
}

#[test]
fn a_group_at_rest_whose_last_words_were_lost_comes_to_rest_all_the_same() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Status" && it.from == crate::harness::replica(3));
    it.run(10_000);
    it.heal().run(10_000);
    it.talk();
    it.run(60_000);
    assert_eq!(it.talk(), Vec::<String>::new());
}

#[test]
fn everybody_executes_everything_in_one_order() {
    for leader_views in [1, 3, 100] {
        let mut it = Cluster::with(4, Config { leader_views, ..config() });
        it.client(1).client(2);
        for index in 0..20 {
            it.submit(1 + index % 2, &format!("x{index}"));
        }
        it.run(1_000);
        let tape = it.tape(0);
        assert_eq!(tape.len(), 20, "terms of {leader_views}");
        assert!((1..4).all(|id| it.tape(id) == tape));
    }
}

#[test]
fn leaders_take_turns_without_any_timeout() {
    let mut it = Cluster::with(4, Config { leader_views: 1, ..under(Rules::TwoChain) });
    it.client(1);
    for index in 0..8 {
        it.apply(1, &format!("x{index}"));
    }
    let leaders: std::collections::BTreeSet<_> =
        it.sent.iter().filter(|it| it.label == "Proposal").map(|it| it.from).collect();
    assert_eq!(leaders.len(), 4);
    assert_eq!(it.count("Timeout"), 0);
}

#[test]
fn the_end_of_a_term_costs_a_client_no_time() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, Config { leader_views: 7, ..under(rules) });
        it.client(1).client(2).apply(1, "a").apply(2, "b");
        for index in 0..60 {
            let tickets = [it.submit(1, &format!("x{index}")), it.submit(2, &format!("y{index}"))];
            it.deliver();
            assert!(tickets.iter().zip(1..).all(|(ticket, client)| it.answer(client, *ticket).is_some()), "{index}");
        }
        assert_eq!(it.count("Timeout"), 0);
        assert!(it.view(1) > view(100));
    }
}

#[test]
fn a_vote_waits_for_the_disk() {
    // Whoever comes back must not vote otherwise.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.hosts[1].fast_disk = false;
    it.talk();
    it.submit(1, "b");
    it.deliver();
    assert!(it.voted(1).is_empty());
    it.sync(1);
    assert!(!it.voted(1).is_empty());
}

#[test]
fn the_leader_counts_its_own_vote_only_when_it_is_durable() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.hosts[0].fast_disk = false;
    it.isolate(3);
    let before = it.view(0);
    it.submit(1, "b");
    it.deliver();
    assert_eq!(it.view(0), before, "two others and itself would be a quorum");
    it.sync(0);
    assert!(it.view(0) > before);
}

#[test]
fn two_of_four_certify_nothing_and_three_go_on() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(1_000);
    let before = it.committed(0);
    it.isolate(2).isolate(3);
    it.submit(1, "b");
    it.run(100);
    assert_eq!(it.committed(0), before);
    it.heal().isolate(3);
    it.run_until("R0 to R2 have it", |it| (0..3).all(|id| it.tape(id) == ["a", "b"]));
}

#[test]
fn a_leader_that_is_silent_is_given_up_and_what_it_had_is_ordered() {
    // Also with the shortest terms: three leaders in a row are correct, and that is enough for every rule.
    for (rules, leader_views) in
        [(Rules::ThreeChain, 100), (Rules::TwoChain, 100), (Rules::ThreeChain, 1), (Rules::TwoChain, 1)]
    {
        let mut it = Cluster::with(4, Config { rules, leader_views, ..config() });
        it.client(1).apply(1, "a");
        it.run(2_000);
        it.crash(0);
        it.apply(1, "b");
        assert_eq!(it.tape(1), ["a", "b"]);
    }
}

#[test]
fn leaders_that_are_silent_one_after_the_other_are_passed_over() {
    let mut it = Cluster::with(7, config());
    it.client(1).apply(1, "a");
    it.crash(0).crash(1);
    it.apply(1, "b");
    assert_eq!(it.primary(), Some(2));
}

#[test]
fn a_timeout_ends_the_whole_term_and_the_next_view_is_the_next_terms_first() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.crash(0);
    it.talk();
    it.apply(1, "b");
    let Message::Timeout { timeout, .. } = it.last(1, "Timeout") else { panic!("a timeout") };
    assert_eq!(timeout.statement().view, view(100));
    assert!(it.view(1) > view(100) && it.view(1) < view(200));
}

#[test]
fn f_plus_1_timeouts_draw_the_others_along() {
    // R2 and R3 wait for something that R1 knows nothing of.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(0);
    it.lose(|it| it.label == "Request" && it.to == replica(1));
    it.submit(1, "b");
    it.run_until("R1 gives up, too", |it| it.view(1) > view(100));
}

#[test]
fn what_committed_anywhere_keeps_its_place_under_the_next_leader() {
    // R0 alone learns that `b` is committed, and disappears.
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).apply(1, "a");
        it.run(2_000);
        it.lose(|it| it.label == "NewView");
        it.submit(1, "b");
        it.deliver();
        assert_eq!(it.tape(0), ["a", "b"]);
        assert_eq!(it.tape(2), ["a"]);
        it.isolate(0);
        it.submit(1, "c");
        it.run_until("the others have it", |it| it.tape(2).len() == 3 || it.tape(2).len() == 2);
        assert_eq!(it.tape(2).get(1).map(String::as_str), Some("b"), "{rules:?}");
        it.heal().run(5_000);
        assert_eq!(it.tape(0), it.tape(2));
    }
}

#[test]
fn a_block_that_no_certificate_followed_loses_and_its_requests_are_proposed_again() {
    // Nobody but R1 sees the last block of R0: the highest certificate is of the block before.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Proposal" && it.to != replica(1));
    it.submit(1, "b");
    it.deliver();
    it.crash(0);
    it.heal();
    it.run_until("R1 to R3 have it", |it| (1..4).all(|id| it.tape(id) == ["a", "b"]));
}

#[test]
fn a_replica_behind_everybodys_log_fetches_the_state() {
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
fn a_replica_that_missed_blocks_gets_them_with_their_certificates() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "first").isolate(3);
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.talk();
    it.heal();
    it.run_until("R3 has it all", |it| it.tape(3).len() == 41);
    let talk = it.talk();
    assert!(talk.iter().any(|line| line.starts_with("R3 GetBlocks")));
    assert!(!talk.iter().any(|line| line.contains("GetManifest")));
}

#[test]
fn a_replica_that_missed_a_change_of_leader_is_shown_the_certificates() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").isolate(3).crash(0);
    it.heal().isolate(3).restart(0);
    it.apply(1, "b");
    assert!(it.view(1) > view(100));
    it.heal();
    it.run_until("R3 follows", |it| it.view(3) == it.view(1) && it.tape(3).len() == 2);
}

#[test]
fn a_read_is_answered_without_being_ordered() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.talk();
    let ticket = it.read(1, Consistency::Linearizable);
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("a b"));
    assert_eq!(it.count("Proposal"), 0);
}

#[test]
fn a_read_waits_for_what_may_be_committed() {
    // R0 and R1 have executed `c`; R2 and R3 have voted for what commits it and lack the last certificate.
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).client(2).apply(1, "a").apply(2, "b");
        it.run(2_000);
        it.lose(|it| matches!(it.label, "NewView" | "Block") && (it.to == replica(2) || it.to == replica(3)));
        let write = it.submit(1, "c");
        it.deliver();
        assert!(it.answer(1, write).is_some(), "f + 1 have executed it");
        it.liar(0);
        let read = it.read(2, Consistency::Linearizable);
        let answer = Told::Full("a b".into());
        let stale = pbft::Message::ReadReply { view: view(0), id: 1, op: OpNumber::new(3), answer };
        let bytes = ENVELOPE.seal(&Payload::Protocol(Message::Client(stale)));
        let to = Peer::Client(ClientId::new(2));
        it.hand_over(&Flying { from: replica(0), to, label: "ReadReply", bytes });
        it.deliver();
        assert_eq!(it.answer(2, read), None, "{rules:?}: R2 and R3 do not help a liar to forget it");
        it.heal();
        it.run_until("the read is answered", |it| it.answer(2, read).is_some());
        assert_eq!(it.answer(2, read).as_deref(), Some("a b c"));
    }
}

#[test]
fn a_read_names_the_block_that_it_reflects_and_none_before_it() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        Cluster::with(4, under(rules)).reads_behind_a_write(50);
    }
}

#[test]
fn the_tick_that_the_machine_asked_for_comes_from_the_log() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "lease");
    it.run(1_500);
    assert!(it.agrees(&["lease", "tick"]));
    assert_eq!(it.count("Timeout"), 0);
}

#[test]
fn requests_gather_while_a_block_is_under_way() {
    let mut it = Cluster::with(4, config());
    it.client(1).client(2).client(3).apply(1, "a").apply(2, "b").apply(3, "c");
    it.run(2_000);
    it.talk();
    for index in 0..9 {
        it.submit(1 + index % 3, &format!("x{index}"));
    }
    it.run(500);
    assert_eq!(it.tape(0).len(), 12);
    assert!(it.count("Proposal") <= 5 * 3, "nine requests in few blocks: {}", it.count("Proposal"));
}

#[test]
fn who_is_behind_is_shown_the_certificates_when_it_rests_there_and_not_while_it_moves() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.talk();
    let (now, committed) = (it.view(0).get(), it.status(0).committed);
    let behind = |views| Message::Status(Place { view: view(now - views), high: view(now - views - 1), committed });
    it.say(replica(3), 0, behind(2));
    it.say(replica(3), 0, behind(1));
    assert_eq!(it.count("NewView"), 0, "what it lacks is on its way");
    it.say(replica(3), 0, behind(1));
    assert_eq!(it.count("NewView"), 1);
}
