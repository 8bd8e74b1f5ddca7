//! The two sets of rules, where they differ (HotStuff §5, Jolteon §4), and the counterexamples that others ran into.

use crate::harness::{Cluster, Flying, replica};
use crate::words::{certificate, config, group, header, op, orders, proposal, say, timeouts, under, view};
use quorate_core::ids::{ClientId, Peer};
use quorate_core::protocol::Consistency;
use quorate_protocols::hotstuff::{Config, Header, Message, Payload, Proposal, Rules, genesis};

/// Terms as short as the rules allow. Everything is said by the test, in everybody's name but R3's.
fn alone(rules: Rules) -> Cluster {
    let mut it = Cluster::with(4, Config { leader_views: 1, ..under(rules) });
    it.isolate(3);
    it.believing = true;
    it
}

fn leader(it: &Cluster, view: u64) -> usize {
    usize::try_from((view - 1) / it.config.views()).expect("small") % 4
}

/// A block of this view on that one, certified by R0 to R2; and its header.
fn block(it: &mut Cluster, in_view: u64, on: Option<&Header>, operation: &'static str) -> (Header, Payload) {
    let payload = orders(it.now, if operation.is_empty() { Vec::new() } else { vec![group(9, 1, operation)] });
    let (parent, parent_view, height) = on.map_or((genesis(), 0, 0), |on| (on.id(), on.view.get(), on.height.get()));
    (header(in_view, height + 1, parent, parent_view, &payload), payload)
}

/// R3 is told a block, with what it takes to reach its view.
fn tell(it: &mut Cluster, words: &Header, payload: &Payload, high_of_timeouts: Option<u64>) {
    let by = leader(it, words.view.get());
    if by == 3 {
        return;
    }
    let tc = high_of_timeouts.map(|high| timeouts(words.view.get() - 1, &[(0, high), (1, 0), (2, 0)]));
    let honest = proposal(by, *words, payload, &[0, 1, 2]);
    it.say(replica(by), 3, say(&Proposal { tc, ..honest }));
}

/// R3 is shown the certificate of a block.
fn certify(it: &mut Cluster, words: &Header) {
    let justify = certificate(words.view.get(), words.id(), &[0, 1, 2]);
    it.say(replica(0), 3, Message::NewView { justify, tc: None });
}

#[test]
fn three_chains_commit_only_blocks_of_consecutive_views() {
    // Views 1, 2 and then 4, 5, 6: the certificate of 4 commits nothing, since 3 is missing; that of 6 commits 4.
    let mut it = alone(Rules::ThreeChain);
    let (one, p1) = block(&mut it, 1, None, "a");
    let (two, p2) = block(&mut it, 2, Some(&one), "");
    let (four, p4) = block(&mut it, 4, Some(&two), "");
    tell(&mut it, &one, &p1, None);
    tell(&mut it, &two, &p2, None);
    tell(&mut it, &four, &p4, Some(2));
    certify(&mut it, &four);
    assert_eq!(it.committed(3), 0);
    let (five, p5) = block(&mut it, 5, Some(&four), "");
    let (six, p6) = block(&mut it, 6, Some(&five), "");
    tell(&mut it, &five, &p5, None);
    tell(&mut it, &six, &p6, None);
    assert_eq!(it.committed(3), 0);
    certify(&mut it, &six);
    assert_eq!(it.committed(3), four.height.get());
}

#[test]
fn two_chains_commit_only_blocks_of_consecutive_views() {
    let mut it = alone(Rules::TwoChain);
    let (one, p1) = block(&mut it, 1, None, "a");
    let (three, p3) = block(&mut it, 3, Some(&one), "");
    tell(&mut it, &one, &p1, None);
    tell(&mut it, &three, &p3, Some(1));
    certify(&mut it, &three);
    assert_eq!(it.committed(3), 0, "view 2 may have certified something else");
    let (five, p5) = block(&mut it, 5, Some(&three), "");
    let (six, p6) = block(&mut it, 6, Some(&five), "");
    tell(&mut it, &five, &p5, Some(3));
    tell(&mut it, &six, &p6, None);
    certify(&mut it, &six);
    assert_eq!(it.committed(3), five.height.get());
}

#[test]
fn a_lock_refuses_a_block_whose_certificate_is_older() {
    // R3 has seen 1 ← 2 ← 3 with 3 certified, and is locked on 2. A block of view 5 on 1 gets no vote, one on 2 does.
    let fork = |on_second: bool| {
        let mut it = alone(Rules::ThreeChain);
        let (one, p1) = block(&mut it, 1, None, "");
        let (two, p2) = block(&mut it, 2, Some(&one), "");
        let (three, p3) = block(&mut it, 3, Some(&two), "");
        for (words, payload) in [(&one, &p1), (&two, &p2), (&three, &p3)] {
            tell(&mut it, words, payload, None);
        }
        certify(&mut it, &three);
        let (five, p5) = block(&mut it, 5, Some(if on_second { &two } else { &one }), "fork");
        it.talk();
        tell(&mut it, &five, &p5, Some(1));
        it.voted(3).iter().any(|vote| vote.block == five.id())
    };
    assert!(!fork(false));
    assert!(fork(true), "a lock is no reason to refuse what is as high");
}

#[test]
fn two_chains_vote_after_a_timeout_only_for_what_its_signers_knew() {
    // One of the timeouts for view 4 knew a certificate of view 3: a block on view 2 does not get a vote.
    let vote = |high: Option<u64>| {
        let mut it = alone(Rules::TwoChain);
        let (one, p1) = block(&mut it, 1, None, "");
        let (two, p2) = block(&mut it, 2, Some(&one), "");
        tell(&mut it, &one, &p1, None);
        tell(&mut it, &two, &p2, None);
        certify(&mut it, &two);
        let (five, p5) = block(&mut it, 5, Some(&two), "fork");
        it.talk();
        tell(&mut it, &five, &p5, high);
        it.voted(3).iter().any(|vote| vote.block == five.id())
    };
    assert!(vote(Some(2)));
    assert!(!vote(Some(3)));
    assert!(!vote(None), "and without any timeouts nothing leads to view 5");
}

#[test]
fn a_replica_that_has_timed_out_votes_in_no_view_of_the_term() {
    // R3 alone waits for a request that nobody else has heard of.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.from == replica(3));
    let request = Message::Client(quorate_protocols::pbft::Message::Request(group(7, 1, "never ordered")));
    it.say(Peer::Client(ClientId::new(7)), 3, request);
    it.run(1_000);
    assert_eq!(it.status(3).role, "changing view");
    it.talk();
    it.apply(1, "b");
    assert!(it.view(0) < view(100), "R0 leads on");
    assert!(it.voted(3).is_empty());
    assert_eq!(it.tape(3), ["a", "b"], "and follows what the others commit");
}

#[test]
fn both_rules_agree_on_what_a_linearizable_read_sees() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).apply(1, "a");
        let read = it.read(1, Consistency::Linearizable);
        it.run_until("answered", |it| it.answer(1, read).is_some());
        assert_eq!(it.answer(1, read).as_deref(), Some("a"));
    }
}

#[test]
fn a_certificate_of_a_block_that_is_not_here_is_kept_and_the_block_fetched() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Proposal" && it.to == replica(3));
    it.submit(1, "b");
    it.run_until("R3 has it", |it| it.tape(3).len() == 2);
}

/// What R3 has told anybody of blocks.
fn told_blocks(it: &Cluster) -> Vec<Message> {
    let said = it.sent.iter().filter(|it| it.from == replica(3) && it.label == "Block");
    said.filter_map(Flying::message).collect()
}

/// 1 ← 2 ← 3, certified by a certificate that few have seen, commits 1; the group goes on with 2 ← 5, and rests.
fn a_branch_that_was_left(has_block: bool, has_certificate: bool) -> Cluster {
    a_branch_that_ends_with("", has_block, has_certificate)
}

/// The same; 3 orders this operation.
fn a_branch_that_ends_with(operation: &'static str, has_block: bool, has_certificate: bool) -> Cluster {
    let mut it = alone(Rules::ThreeChain);
    let (one, p1) = block(&mut it, 1, None, "a");
    let (two, p2) = block(&mut it, 2, Some(&one), "");
    let (three, p3) = block(&mut it, 3, Some(&two), operation);
    let (five, p5) = block(&mut it, 5, Some(&two), "");
    tell(&mut it, &one, &p1, None);
    tell(&mut it, &two, &p2, None);
    if has_block {
        tell(&mut it, &three, &p3, None);
    }
    if has_certificate {
        certify(&mut it, &three);
    }
    tell(&mut it, &five, &p5, Some(2));
    certify(&mut it, &five);
    it
}

#[test]
fn what_a_branch_that_was_left_has_committed_is_proven_to_whoever_lacks_it() {
    // Who lacks it may have the block, and its certificate only is news (seed 26,371).
    for has_block in [false, true] {
        let (mut knows, mut lacks) = (a_branch_that_was_left(true, true), a_branch_that_was_left(has_block, false));
        assert_eq!((knows.committed(3), lacks.committed(3)), (1, 0));
        knows.say(replica(0), 3, Message::GetBlocks { after: op(0) });
        for message in told_blocks(&knows) {
            lacks.say(replica(0), 3, message);
        }
        assert_eq!(lacks.committed(3), 1);
    }
}

#[test]
fn what_a_branch_that_was_left_has_committed_counts_for_the_quota_of_whoever_asks() {
    // 8 MiB in a period, and the answer that goes beyond them.
    let mut it = a_branch_that_ends_with("x".repeat(1 << 20).leak(), true, true);
    for _ in 0..100 {
        it.say(replica(0), 3, Message::GetBlocks { after: op(0) });
    }
    let is_long = |it: &&Message| matches!(it, Message::Block { block, .. } if block.payload.len() > 1 << 19);
    assert_eq!(told_blocks(&it).iter().filter(is_long).count(), 8);
}

#[test]
fn what_the_highest_branch_proves_is_not_proven_twice() {
    let mut it = alone(Rules::ThreeChain);
    let mut last: Option<Header> = None;
    for in_view in 1..=4 {
        let (next, payload) = block(&mut it, in_view, last.as_ref(), "");
        tell(&mut it, &next, &payload, None);
        certify(&mut it, &next);
        last = Some(next);
    }
    assert_eq!(it.committed(3), 2);
    it.say(replica(0), 3, Message::GetBlocks { after: op(0) });
    assert_eq!(told_blocks(&it).len(), 4, "each block once");
}
