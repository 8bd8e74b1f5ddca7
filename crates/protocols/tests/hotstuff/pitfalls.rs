//! What went wrong in other implementations, by its number in the list that this folder was written against.

use crate::harness::{Cluster, keyring, replica};
use crate::words::{config, group, header, orders, proposal, say, timeouts, under, view, vote};
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{ClientId, ClusterId, Epoch, Peer, ReplicaId};
use quorate_protocols::hotstuff::{Config, Message, Rules, genesis};

#[test]
fn p01_a_request_that_is_authentic_to_the_leader_only_cannot_end_its_term() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    let good = group(9, 1, "x");
    let forged =
        quorate_protocols::pbft::Group::claimed(good.by(), group(9, 1, "y").statement().clone(), *good.signature());
    for to in 0..4 {
        let request = Message::Client(quorate_protocols::pbft::Message::Request(forged.clone()));
        it.say(Peer::Client(ClientId::new(9)), to, request);
    }
    it.run(10_000);
    assert!(it.view(1) < view(100) && it.tape(1).len() == 1);
    assert!((0..4).all(|id| it.blamed(id) == 1));
}

#[test]
fn p02_a_leader_that_leaves_one_client_out_is_given_up_however_busy_it_is() {
    let mut it = Cluster::with(4, config());
    it.client(1).client(2).apply(1, "a").apply(2, "b");
    it.run(1_000);
    let two = Peer::Client(ClientId::new(2));
    it.lose(move |it| {
        it.label == "Request" && it.to == replica(0) && (it.from == two || it.from != Peer::Client(ClientId::new(1)))
    });
    let left_out = it.submit(2, "left out");
    for index in 0..200 {
        it.submit(1, &format!("x{index}"));
        it.run(10);
    }
    assert!(it.answer(2, left_out).is_some());
    assert!(it.view(1) > view(100));
}

#[test]
fn p03_clients_take_turns_whatever_one_of_them_sends() {
    let mut it = Cluster::with(4, Config { block_bytes: 200, ..config() });
    it.client(1).client(2).apply(1, "a").apply(2, "b");
    it.hosts[0].fast_disk = false;
    for number in 2..40 {
        let request = quorate_protocols::pbft::Message::Request(group(1, number, "flood"));
        it.say(Peer::Client(ClientId::new(1)), 0, Message::Client(request));
    }
    let ticket = it.submit(2, "c");
    it.deliver();
    it.hosts[0].fast_disk = true;
    it.sync(0);
    it.run_until("answered", |it| it.answer(2, ticket).is_some());
    let tape = it.tape(0);
    let place = tape.iter().position(|it| it == "c").expect("it was applied");
    assert!(place < 12, "it waited behind the flood: {tape:?}");
}

#[test]
fn p07_numbers_go_on_after_a_restart() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").apply(1, "b");
    let (last, last_view) = (it.committed(0), it.view(0));
    for id in 0..4 {
        it.crash(id);
    }
    (0..4).for_each(|id| it.restart(id));
    it.apply(1, "c");
    assert!(it.committed(0) > last && it.view(0) > last_view);
    it.run(2_000);
    assert!(it.agrees(&["a", "b", "c"]));
}

#[test]
fn p08_a_timeout_is_not_said_before_it_is_durable() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.crash(0);
    it.hosts[1].fast_disk = false;
    it.talk();
    it.submit(1, "b");
    it.run(1_000);
    assert!(!it.talk().iter().any(|line| line.starts_with("R1 Timeout")));
    it.sync(1);
    assert!(it.talk().iter().any(|line| line.starts_with("R1 Timeout")));
}

#[test]
fn p12_ancestors_are_committed_before_their_descendants() {
    // One certificate commits many blocks at once: those of R3, which missed them all, are applied in the order of their heights.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").isolate(3);
    for index in 0..9 {
        it.apply(1, &format!("x{index}"));
    }
    it.heal();
    it.run_until("R3 has it all", |it| it.tape(3).len() == 10);
    assert_eq!(it.tape(3), it.tape(0));
}

#[test]
fn p13_a_vote_that_is_said_again_does_not_keep_a_certificate_from_forming() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.hosts[0].fast_disk = false;
    it.submit(1, "b");
    it.deliver();
    let said = it.last(1, "Vote");
    for _ in 0..5 {
        it.say(replica(1), 0, said.clone());
    }
    it.hosts[0].fast_disk = true;
    it.sync(0);
    it.run_until("it is committed", |it| it.tape(0).len() == 2);
}

#[test]
fn p17_patience_grows_with_each_attempt_and_no_further_than_a_bound() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Proposal");
    it.submit(1, "b");
    it.run(60_000);
    let terms = it.view(1).get() / 100;
    assert!(
        (20..40).contains(&terms),
        "{terms} leaders in a minute: 200 without growth, and 25 at the longest patience"
    );
    it.run(600_000);
    let more = it.view(1).get() / 100;
    assert!(more > terms + 200, "{more}: 300 ms times eight is the longest patience");
    it.heal();
    it.run_until("it is committed", |it| it.tape(1).len() == 2);
}

#[test]
fn p18_timeouts_alone_bring_replicas_to_a_new_view() {
    // The first leader is silent from the very beginning: no certificate of a block exists.
    let mut it = Cluster::with(4, config());
    it.crash(0);
    it.apply(1, "a");
    assert!(it.view(1) > view(100));
}

#[test]
fn p20_a_request_in_two_blocks_is_applied_once_and_both_blocks_are_voted_for() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(1_000); // the client says it again, and it is ordered again
    it.heal();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
    it.run(3_000);
    assert!(it.agrees(&["a", "b"]));
    assert_eq!(it.count("Timeout"), 0);
}

#[test]
fn p21_nobody_is_left_one_block_behind_when_the_chain_rests() {
    let mut it = Cluster::with(4, config());
    it.client(1);
    for index in 0..5 {
        it.apply(1, &format!("x{index}"));
    }
    it.lose(|it| it.label == "NewView" && it.to == replica(2));
    it.apply(1, "last");
    assert_eq!(it.tape(2).len(), 5);
    it.heal();
    it.run_until("R2 has it, too", |it| it.tape(2).len() == 6);
}

#[test]
fn p23_a_replica_whose_highest_certificate_is_of_a_forgotten_block_catches_up() {
    let mut it = Cluster::with(4, Config { state_blocks: 6, ..config() });
    it.client(1).apply(1, "a");
    it.run(1_000);
    it.crash(3);
    for index in 0..30 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(1_000);
    it.restart(3);
    it.run_until("R3 has it all", |it| it.tape(3) == it.tape(0));
    it.crash(2);
    it.apply(1, "with R3");
}

#[test]
fn p25_a_vote_of_another_cluster_or_another_view_is_none() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let now = it.view(0).get();
    let other = Keyring::simulated_replica(ClusterId::new(8), Epoch::ZERO, 4, ReplicaId::new(3));
    let foreign = other.sign(*vote(3, now, Digest::of(b"x")).statement());
    it.say(replica(3), 0, Message::Vote(foreign));
    assert_eq!(it.blamed(0), 1);
    it.say(replica(3), 0, Message::Vote(vote(3, now - 1, Digest::of(b"x"))));
    assert_eq!((it.blamed(0), it.view(0)), (1, view(now)));
}

#[test]
fn p27_votes_and_timeouts_that_meet_in_one_view_split_nobody_for_long() {
    // R1 has the certificate of the last block; R2 and R3 time out without it. The certificate goes where the timeouts go.
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).apply(1, "a");
        it.run(2_000);
        it.lose(|it| matches!(it.label, "Proposal" | "NewView") && it.from == replica(0) && it.to != replica(1));
        it.submit(1, "b");
        it.deliver();
        it.crash(0);
        it.heal();
        it.run_until("they go on", |it| (1..4).all(|id| it.tape(id) == ["a", "b"]));
    }
}

#[test]
fn p19_a_proposal_whose_parent_is_missing_waits_and_gets_its_vote_when_the_parent_comes() {
    let mut it = Cluster::with(4, config());
    it.liar(0);
    let (one, two) = (orders(it.now, Vec::new()), orders(it.now + 1, Vec::new()));
    let first = header(1, 1, genesis(), 0, &one);
    let second = header(2, 2, first.id(), 1, &two);
    it.say(replica(0), 2, say(&proposal(0, first, &one, &[])));
    it.say(replica(0), 2, say(&proposal(0, second, &two, &[0, 2, 3])));
    it.say(replica(0), 1, say(&proposal(0, second, &two, &[0, 2, 3])));
    assert!(it.voted(1).is_empty());
    it.run(2_000);
    assert!(it.voted(1).iter().any(|vote| vote.block == second.id()), "R2 had the parent");
}

#[test]
fn p11_two_chains_take_no_proposal_that_skips_views_without_timeouts() {
    let mut it = Cluster::with(4, Config { leader_views: 1, ..under(Rules::TwoChain) });
    it.liar(0).liar(1);
    let payload = orders(it.now, Vec::new());
    let skips = header(2, 1, genesis(), 0, &payload);
    let honest = proposal(1, skips, &payload, &[]);
    it.say(replica(1), 3, say(&honest));
    assert!(it.voted(3).is_empty());
    let tc = Some(timeouts(1, &[(0, 0), (1, 0), (2, 0)]));
    it.say(replica(1), 3, say(&quorate_protocols::hotstuff::Proposal { tc, ..honest }));
    assert_eq!(it.voted(3).len(), 1);
    assert_eq!(keyring(3, 4).replicas(), 4);
}
