//! Reads without the log (VRR §6.3; vr.md §2.8).

use crate::harness::{Cluster, config, replica};
use crate::paper::op;
use quorate_core::ids::View;
use quorate_core::protocol::Consistency::{Linearizable, Ordered, Stale};
use quorate_protocols::vr::{Config, Message, Reads};

fn leases() -> Config {
    Config { reads: Reads::Lease, ..config() }
}

#[test]
fn a_read_costs_a_round_of_heartbeats_and_nothing_else() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).talk();
    let read = it.read(1, Linearizable);
    it.deliver();
    let mut talk = it.talk();
    talk.sort();
    let expected = [
        "C00000000 Read R0",
        "R0 Commit R1",
        "R0 Commit R2",
        "R0 ReadReply C00000000",
        "R1 CommitOk R0",
        "R2 CommitOk R0",
    ];
    assert_eq!((talk, it.answer(1, read).as_deref()), (expected.map(str::to_owned).to_vec(), Some("a")));
}

#[test]
fn reads_that_come_while_a_round_is_out_share_the_next_one() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).talk();
    let reads: Vec<_> = (0..9).map(|_| it.read(1, Linearizable)).collect();
    it.deliver();
    assert_eq!(it.count("Commit"), 4);
    assert!(reads.into_iter().all(|read| it.answer(1, read).is_some()));
}

#[test]
fn a_primary_that_was_deposed_without_knowing_answers_no_read() {
    for config in [config(), leases()] {
        let mut it = Cluster::with(3, config);
        it.apply(1, "a").run(200);
        it.cut(1, 0).cut(2, 0).cut(0, 1).cut(0, 2).client(2);
        it.lose(|it| {
            it.to == replica(0) && matches!(it.from, quorate_core::ids::Peer::Client(client) if client.get() == 1)
        });
        it.apply(1, "b");
        let read = it.read(2, Linearizable);
        it.run(100);
        assert_ne!(it.answer(2, read).as_deref(), Some("a"), "b was acknowledged before the read began");
    }
}

#[test]
fn a_new_primary_answers_no_read_until_the_log_that_it_inherited_is_committed() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).lose(|it| it.label == "Prepare" && it.to == replica(2) || it.label == "Commit");
    it.apply(1, "b").crash(0);
    it.lose(|it| it.label == "PrepareOk").run_until("R1 leads", |it| it.leads(1));
    let read = it.read(1, Linearizable);
    it.run(1000);
    assert_eq!(it.answer(1, read), None, "R1 does not know yet that b is committed");
    it.heal().run(1000);
    assert_eq!(it.answer(1, read).as_deref(), Some("a b"));
}

#[test]
fn under_a_lease_a_read_costs_no_round() {
    let mut it = Cluster::with(3, leases());
    it.apply(1, "a").run(200).talk();
    let read = it.read(1, Linearizable);
    it.deliver();
    assert_eq!((it.talk().len(), it.answer(1, read).as_deref()), (2, Some("a")));
}

#[test]
fn a_lease_that_ran_out_while_the_machine_was_asked_is_not_used() {
    let mut it = Cluster::with(3, leases());
    it.apply(1, "a").run(200);
    it.hosts[0].fast_machine = false;
    let read = it.read(1, Linearizable);
    it.deliver().isolate(0);
    it.now += 400_000_000; // a pause
    it.talk();
    it.work(0);
    assert_eq!(
        (it.answer(1, read), it.count("ReadReply"), it.count("Commit")),
        (None, 0, 2),
        "it has to be proven now"
    );
}

#[test]
fn a_lease_counts_from_when_the_heartbeat_was_sent() {
    let mut it = Cluster::with(3, leases());
    it.apply(1, "a").run(200);
    let answers = [1, 2].map(|id| it.last(id, "CommitOk"));
    it.now += 250_000_000; // the answers take their time
    for (id, answer) in (1..3).zip(answers) {
        it.say(replica(id), 0, answer);
    }
    it.now += 30_000_000;
    it.talk();
    let read = it.read(1, Linearizable);
    it.deliver();
    assert_eq!((it.count("Commit"), it.answer(1, read).as_deref()), (2, Some("a")));
}

#[test]
fn who_has_promised_stays_and_who_has_not_goes_at_once() {
    for (config, stays) in [(leases(), true), (config(), false)] {
        let mut it = Cluster::with(3, config);
        it.apply(1, "a").run(200);
        it.restart(0); // it leads the next view, and says so
        it.run(100);
        assert_eq!(it.view(1) == it.view(0), !stays);
        it.run(1000).apply(1, "b");
    }
}

#[test]
fn a_replica_that_restarts_keeps_a_promise_that_it_may_have_made() {
    let mut it = Cluster::with(3, leases());
    it.apply(1, "a").run(200).crash(0);
    it.restart(1);
    it.say(replica(2), 1, Message::ExitView { view: View::new(5) });
    assert_eq!(it.view(1), View::ZERO);
    it.apply(1, "b");
}

#[test]
fn a_stale_read_waits_for_the_entry_that_it_must_reflect() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).isolate(0);
    it.talk();
    let (now, later) = (it.read(1, Stale { at_least: op(2) }), it.read(1, Stale { at_least: op(3) }));
    it.run(200);
    assert_eq!((it.answer(1, now).as_deref(), it.answer(1, later)), (Some("a"), None));
    it.heal().apply(1, "b").run(500);
    assert_eq!(it.answer(1, later).as_deref(), Some("a b"));
}

#[test]
fn an_ordered_read_goes_through_the_log() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(100);
    let read = it.read(1, Ordered);
    it.deliver();
    assert_eq!((it.answer(1, read).as_deref(), it.status(0).op), (Some("a"), op(3)));
}

#[test]
fn a_backup_that_is_asked_for_more_than_it_may_say_names_its_view() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").crash(0).run(1000);
    it.restart(0);
    it.run(100).client(2);
    let read = it.read(2, Linearizable);
    it.run(10);
    assert_eq!(it.answer(2, read).as_deref(), Some("a"));
    assert!(it.count("NotPrimary") > 0);
}

#[test]
fn a_read_that_nobody_answers_makes_the_primary_fall_silent() {
    let mut it = Cluster::new(3);
    it.apply(1, "a").run(200).cut(1, 0).cut(2, 0);
    let read = it.read(1, Linearizable);
    it.run(4000).heal().run(1000);
    assert!(!it.leads(0) && it.answer(1, read).as_deref() == Some("a"));
}
