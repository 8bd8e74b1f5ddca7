//! What went wrong in other implementations, by its number in the list that this folder was written against.

use crate::harness::{Cluster, config, replica};
use crate::words::{group, op, orders, pre_prepare, view};
use quorate_core::crypto::{Certificate, Digest};
use quorate_core::ids::{ClientId, Peer};
use quorate_protocols::pbft::select::select;
use quorate_protocols::pbft::{Config, Message, Prepare, Proposal, ViewChange};

#[test]
fn p01_a_request_that_is_authentic_to_the_primary_only_cannot_cause_a_view_change() {
    // With signatures it is authentic to all or to none: the primary refuses what the backups would refuse.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    let good = group(9, 1, "x");
    let forged =
        quorate_protocols::pbft::Group::claimed(good.by(), group(9, 1, "y").statement().clone(), *good.signature());
    for to in 0..4 {
        it.say(Peer::Client(ClientId::new(9)), to, Message::Request(forged.clone()));
    }
    it.run(10_000);
    assert_eq!((it.view(1), it.tape(1).len()), (view(0), 1));
    assert!((0..4).all(|id| it.blamed(id) == 1));
}

#[test]
fn p03_clients_take_turns_whatever_one_of_them_sends() {
    let mut it = Cluster::with(4, Config { in_flight_entries: 1, batch_bytes: 200, checkpoint_entries: 2, ..config() });
    it.client(1).client(2).apply(1, "a").apply(2, "b");
    it.hosts[0].fast_disk = false;
    for number in 2..40 {
        it.say(Peer::Client(ClientId::new(1)), 0, Message::Request(group(1, number, "flood")));
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
fn p04_a_new_view_whose_proposals_are_missing_here_fetches_them() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    // R1, the next primary, never sees the proposal that R0, R2 and R3 prepare.
    it.lose(|it| (it.to == replica(1) && it.label == "PrePrepare") || it.label == "Commit" || it.label == "Committed");
    it.submit(1, "b");
    it.deliver();
    it.crash(0);
    it.heal().lose(|it| it.label == "Committed");
    it.submit(1, "c");
    it.run_until("R1 leads and has it", |it| it.tape(1).contains(&"b".to_owned()));
    assert!(it.talk().iter().any(|line| line.ends_with("GetProposals R2") || line.ends_with("GetProposals R3")));
}

#[test]
fn p04_a_proposal_that_comes_after_a_quorums_commits_is_executed_at_once() {
    // The simulator's seeds 4888 and 9022: nothing else would have made this replica look at the entry again.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.to == replica(3) && ["PrePrepare", "Proposal", "Committed"].contains(&it.label));
    it.submit(1, "b");
    it.deliver();
    assert_eq!(it.tape(3), ["a"]);
    let late = it.last(0, "PrePrepare");
    it.say(replica(0), 3, late);
    it.deliver();
    assert_eq!(it.tape(3), ["a", "b"]);
}

#[test]
fn p05_null_requests_are_executed_without_effect_and_checkpointed() {
    let it = select([&ViewChange { view: view(1), stable: None, prepared: Vec::new() }]);
    assert!(it.digests.is_empty());
    assert_eq!(Proposal::null(op(4)).batch(), Proposal::null(op(5)).batch());
}

/// A certificate as a view change holds it; whether it is good is looked at elsewhere.
fn prepared(in_view: u64, at: u64, digest: Digest) -> Certificate<Prepare> {
    Certificate::claimed(Prepare { view: view(in_view), op: op(at), digest }, Vec::new())
}

#[test]
fn p06_of_several_certificates_for_an_entry_the_one_of_the_highest_view_wins_whatever_their_order() {
    let (old, new) = (Digest::of(b"old"), Digest::of(b"new"));
    let change = |prepared| ViewChange { view: view(9), stable: None, prepared };
    let changes = [change(vec![prepared(3, 1, old)]), change(vec![prepared(5, 1, new)]), change(Vec::new())];
    for order in [[0, 1, 2], [1, 0, 2], [2, 1, 0]] {
        assert_eq!(select(order.map(|index: usize| &changes[index])).digests, [(op(1), new)]);
    }
}

#[test]
fn p06_a_view_change_tells_what_was_prepared_with_its_proof() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Commit");
    it.submit(1, "b");
    it.deliver();
    it.crash(0);
    it.run(1_000);
    let Message::ViewChange(change) = it.last(2, "ViewChange") else { panic!("a view change") };
    assert!(change.statement().prepared.iter().any(|it| it.signatures().len() == 3));
}

#[test]
fn p07_numbers_go_on_after_a_restart() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a").apply(1, "b");
    let last = it.committed(0);
    for id in 0..4 {
        it.crash(id);
    }
    (0..4).for_each(|id| it.restart(id));
    it.apply(1, "c");
    assert!(it.committed(0) > last);
    it.run(2_000);
    assert!(it.agrees(&["a", "b", "c"]));
}

#[test]
fn p08_nothing_is_said_of_a_view_before_leaving_the_old_one_is_durable() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.hosts[2].fast_disk = false;
    it.submit(1, "b");
    it.run(450);
    assert_eq!(it.view(2), view(1));
    assert!(!it.talk().iter().any(|line| line.starts_with("R2 ViewChange")));
    it.sync(2);
    assert!(it.talk().iter().any(|line| line.starts_with("R2 ViewChange")));
}

#[test]
fn p13_a_repeated_vote_counts_once() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let next = it.committed(0) + 1;
    it.liar(0);
    it.isolate(2).isolate(3);
    let proposal = orders(it.now, vec![group(9, 1, "x")]);
    for _ in 0..4 {
        it.say(replica(0), 1, pre_prepare(0, 0, next, &proposal));
        it.say(replica(0), 1, Message::Prepare(crate::words::prepare(0, 0, next, proposal.digest())));
    }
    assert_eq!(it.count("Commit"), it.talk().iter().filter(|line| line.contains("Commit")).count());
    assert_eq!(it.status(1).op, op(next));
    assert_eq!(it.committed(1), next - 1);
}

#[test]
fn p15_five_replicas_need_four_votes() {
    let mut it = Cluster::new(5);
    it.client(1).apply(1, "a");
    it.isolate(3).isolate(4);
    let ticket = it.submit(1, "b");
    it.run(5_000);
    assert_eq!(it.answer(1, ticket), None, "three of five could be two groups that meet in a liar");
    it.heal();
    it.run_until("answered", |it| it.answer(1, ticket).is_some());
}

#[test]
fn p17_patience_grows_with_views_that_bring_nothing_and_shrinks_with_progress() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "NewView");
    it.submit(1, "b");
    it.crash(0);
    it.run(8_000);
    let reached = it.view(2).get();
    assert!((3..8).contains(&reached), "views 1, 2, 3… at 0.3, 0.9, 2.1, 4.5 s: {reached}");
    it.heal();
    it.run_until("somebody leads", |it| it.tape(1).len() == 2);
}

#[test]
fn p17_patience_that_has_grown_for_long_does_not_outlast_the_faults_by_more_than_seconds() {
    // R3 has lost its disk and stays away: every fourth view is nobody's. For so long no view can start.
    for lasted in [13_000, 20_000, 27_000, 34_000, 41_000] {
        let mut it = Cluster::new(4);
        it.client(1).apply(1, "a");
        it.crash(3);
        it.lose(|it| it.label == "NewView");
        let ticket = it.submit(1, "b");
        it.crash(0);
        it.run(500);
        it.restart(0);
        it.run(lasted);
        it.heal();
        let other = it.submit(1, "c");
        it.run(8_000);
        let answered = [ticket, other].map(|ticket| it.answer(1, ticket));
        assert_eq!(answered, [Some("2".to_owned()), Some("3".to_owned())], "after {lasted} ms");
    }
}

#[test]
fn p17_a_new_views_first_proposal_does_not_overtake_its_new_view() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.talk();
    it.apply(1, "b");
    let first = |label: &str| it.sent.iter().position(|it| it.from == replica(1) && it.label == label);
    assert!(first("NewView").is_some() && first("NewView") < first("PrePrepare"));
}

#[test]
fn p17_a_proposal_that_overtakes_its_new_view_waits_for_it() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.lose(|it| it.label == "NewView");
    it.submit(1, "b");
    it.run(700);
    let (start, Message::PrePrepare { vote, .. }) = (it.last(1, "NewView"), it.last(1, "PrePrepare")) else {
        panic!("R1 has started view 1, and proposes in it")
    };
    let proposed = *vote.statement();
    assert!(!it.prepared(2).contains(&proposed));
    it.say(replica(1), 2, start);
    assert!(proposed.view == view(1) && it.prepared(2).contains(&proposed), "at once");
}

#[test]
fn p17_the_timer_of_a_view_runs_only_when_a_quorum_wants_it() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.isolate(3);
    it.say(Peer::Client(ClientId::new(9)), 3, Message::Request(group(9, 1, "x")));
    it.run(60_000);
    assert_eq!(it.view(3), view(1), "it waits for the others instead of running ahead");
    it.heal();
    it.apply(1, "b");
    it.run_until("R3 is back", |it| it.tape(3).contains(&"b".to_owned()));
}

#[test]
fn p18_a_silent_primary_is_noticed_by_who_waits_for_it() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.from == replica(0) && it.label == "PrePrepare");
    it.apply(1, "b");
    assert!(it.view(1) > view(0));
}

#[test]
fn p20_a_request_that_is_ordered_twice_is_applied_once() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Reply");
    it.submit(1, "b");
    it.run(2_000);
    it.heal();
    it.run(2_000);
    assert_eq!(it.tape(0), ["a", "b"]);
}

#[test]
fn p25_a_vote_is_bound_to_its_cluster() {
    let mut it = Cluster::new(4);
    let elsewhere = quorate_core::crypto::Keyring::simulated_replica(
        quorate_core::ids::ClusterId::new(99),
        quorate_core::ids::Epoch::ZERO,
        4,
        quorate_core::ids::ReplicaId::new(3),
    );
    let vote = elsewhere.sign(*crate::words::prepare(3, 0, 1, Digest::ZERO).statement());
    it.say(replica(3), 1, Message::Prepare(vote));
    assert_eq!(it.blamed(1), 1);
}

#[test]
fn p29_what_is_proposed_again_in_a_new_view_is_what_was_prepared_not_what_a_clock_says_now() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.lose(|it| it.label == "Commit");
    it.submit(1, "b");
    it.deliver();
    let Message::PrePrepare { vote, .. } = it.last(0, "PrePrepare") else { panic!("a proposal") };
    let before = *vote.statement();
    it.crash(0);
    it.run(1_000);
    it.heal();
    it.run(1_000);
    let Message::NewView(start) = it.last(1, "NewView") else { panic!("a new view") };
    let again = start.statement().proposals.iter().find(|it| it.statement().op == before.op);
    assert_eq!(again.map(|it| it.statement().digest), Some(before.digest));
}

#[test]
fn p32_nothing_is_answered_before_a_quorum_has_it_on_disk() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    for id in 1..4 {
        it.hosts[id].fast_disk = false;
    }
    let ticket = it.submit(1, "b");
    it.run(100);
    assert_eq!(it.answer(1, ticket), None);
    for _ in 0..3 {
        for id in 1..4 {
            it.sync(id);
        }
        it.deliver();
    }
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
}
