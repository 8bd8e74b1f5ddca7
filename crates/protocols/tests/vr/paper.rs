//! The claims of the paper, one a test (Liskov and Cowling, *Viewstamped Replication Revisited*; VRR), and the rules that later
//! analyses added (vr.md §2.2 R1-R9, §2.7 CT1-CT7).

use crate::harness::{Cluster, config, replica};
use bytes::Bytes;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber, SessionId, View};
use quorate_core::sessions::Body;
use quorate_core::time::Duration;
use quorate_protocols::vr::{Config, Message, Record, Request, ViewChangePolicy};

/// A client that nobody knows asks this replica alone for a session.
pub fn ask_only(it: &mut Cluster, id: usize, client: u128) {
    let client = ClientId::new(client);
    let requests = vec![(RequestNumber::ZERO, Body::Register)];
    let (session, acknowledged) = (SessionId::ZERO, RequestNumber::ZERO);
    it.say(Peer::Client(client), id, Message::Request(Request { client, session, acknowledged, requests }));
}

pub fn op(number: u64) -> OpNumber {
    OpNumber::new(number)
}

fn acknowledged(it: &Cluster, id: usize) -> OpNumber {
    match it.last(id, "PrepareOk") {
        Message::PrepareOk { op, .. } => op,
        other => panic!("{other:?}"),
    }
}

#[test]
fn one_request_costs_a_prepare_and_an_acknowledgement_for_each_backup_and_one_reply() {
    let mut it = Cluster::new(3); // VRR §4.1
    it.apply(1, "a");
    it.talk();
    it.submit(1, "b");
    it.deliver();
    let mut talk = it.talk();
    talk.sort();
    let expected = [
        "C00000000 Request R0",
        "R0 Prepare R1",
        "R0 Prepare R2",
        "R0 Reply C00000000",
        "R1 PrepareOk R0",
        "R2 PrepareOk R0",
    ];
    assert_eq!(talk, expected);
}

#[test]
fn everybody_applies_everything_in_the_same_order() {
    for n in [1, 2, 3, 4, 5] {
        let mut it = Cluster::new(n); // VRR §4.1
        it.apply(1, "a").apply(2, "b").apply(1, "c").run(200);
        assert!(it.agrees(&["a", "b", "c"]), "n={n}");
    }
}

#[test]
fn a_backup_acknowledges_what_is_on_its_disk_and_not_before() {
    let mut it = Cluster::new(3); // R1
    it.apply(1, "a").run(200);
    (1..3).for_each(|id| it.hosts[id].fast_disk = false);
    let ticket = it.submit(1, "b");
    it.talk();
    it.deliver();
    assert_eq!((it.count("PrepareOk"), it.answer(1, ticket)), (0, None));
    it.sync(1).deliver();
    assert_eq!((it.count("PrepareOk"), it.answer(1, ticket).as_deref()), (1, Some("2")));
}

#[test]
fn the_primary_counts_itself_only_after_its_own_disk() {
    let mut it = Cluster::new(3); // R5
    it.apply(1, "a").run(200).isolate(2);
    it.hosts[0].fast_disk = false;
    let ticket = it.submit(1, "b");
    it.deliver();
    assert_eq!((acknowledged(&it, 1), it.answer(1, ticket)), (op(3), None), "one backup holds it, and nobody else");
    it.sync(0).deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
}

#[test]
fn two_backups_commit_before_a_slow_primary_is_on_disk() {
    let mut it = Cluster::new(3); // VRR §4.1 step 5: f other replicas, with intact disks f + 1 of all
    it.apply(1, "a");
    it.hosts[0].fast_disk = false;
    let ticket = it.submit(1, "b");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
}

#[test]
fn an_entry_whose_predecessor_is_missing_is_not_acknowledged() {
    let mut it = Cluster::new(3); // R1
    it.apply(1, "a").run(200);
    it.lose(|it| it.label == "Prepare" && it.to == replica(1) || it.label == "GetView" || it.label == "StartView");
    it.submit(1, "b");
    it.deliver();
    it.lose(|it| it.label == "GetView" || it.label == "StartView");
    it.submit(1, "c");
    it.deliver();
    assert_eq!(acknowledged(&it, 1), op(2), "entry 4 has come, entry 3 has not");
    it.heal().run(500);
    assert!(it.agrees(&["a", "b", "c"]));
}

#[test]
fn an_entry_that_is_only_known_by_its_header_is_not_acknowledged() {
    let mut it = Cluster::new(3); // R1
    it.apply(1, "a").run(200).isolate(2);
    it.apply(1, "b").apply(1, "c").heal().lose(|it| it.label == "Entry").run(300);
    assert_eq!((it.status(2).op, it.status(2).missing, acknowledged(&it, 2)), (op(4), 2, op(2)));
    it.heal().run(300);
    assert_eq!(acknowledged(&it, 2), op(4));
}

#[test]
fn backups_learn_of_a_commit_by_the_next_heartbeat() {
    let mut it = Cluster::new(3); // VRR §4.1 step 6
    it.apply(1, "a");
    assert!(it.tape(1).is_empty());
    it.run(60);
    assert_eq!(it.tape(1), ["a"]);
}

#[test]
fn a_request_whose_reply_was_lost_is_answered_again_and_not_applied_again() {
    let mut it = Cluster::new(3); // VRR §4.1 step 1; CT5, CT6
    it.apply(1, "a").lose(|it| it.label == "Reply");
    let ticket = it.submit(1, "b");
    it.run(100).heal().run(500);
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn a_backup_passes_a_request_on() {
    let mut it = Cluster::new(3); // VRR §4.1
    it.apply(1, "a").talk();
    ask_only(&mut it, 1, 77);
    it.deliver();
    assert_eq!(it.talk().first().map(String::as_str), Some("R1 Request R0"));
    assert_eq!(it.status(0).op, op(3));
}

#[test]
fn a_new_primary_keeps_what_was_acknowledged() {
    for n in [3, 4, 5] {
        let mut it = Cluster::new(n); // VRR §4.2
        it.apply(1, "a");
        it.crash(0);
        it.apply(1, "b");
        assert!(it.leads(1), "n={n}");
        it.restart(0);
        it.run(1000);
        assert!(it.agrees(&["a", "b"]), "n={n}");
    }
}

#[test]
fn no_message_of_a_view_leaves_before_the_view_is_on_disk() {
    let mut it = Cluster::new(3); // R2
    it.apply(1, "a").run(200);
    it.hosts[1].fast_disk = false;
    it.crash(0).talk();
    it.run(2000);
    let from_1 = it.sent.iter().filter(|sent| sent.from == replica(1) && sent.label == "DoViewChange").count();
    assert!(it.view(1) > View::ZERO && from_1 == 0);
    it.sync(1).run(10);
    assert!(it.count("DoViewChange") > 0);
}

#[test]
fn a_replica_says_the_same_of_its_log_in_one_view_also_after_a_crash() {
    let mut it = Cluster::new(3); // R3
    it.apply(1, "a").apply(1, "b").lose(|it| it.label == "StartView").crash(0);
    it.run(700);
    let before = it.last(2, "DoViewChange");
    it.restart(2);
    it.deliver();
    assert_eq!(it.last(2, "DoViewChange"), before);
    it.heal().apply(1, "c");
}

#[test]
fn an_entry_that_comes_late_does_not_change_what_was_vouched_for() {
    let mut it = Cluster::new(3); // R3
    it.apply(1, "a").run(200).isolate(2);
    it.apply(1, "b").heal().lose(|it| it.label == "Entry").run(300);
    let entry = it.last(0, "Entry");
    it.lose(|it| it.label == "Entry" || it.label == "StartView").crash(0).run(400);
    let before = it.last(2, "DoViewChange");
    it.isolate(2).say(replica(1), 2, entry);
    it.talk();
    it.run(150);
    assert_eq!((it.status(2).missing, it.last(2, "DoViewChange")), (1, before));
}

#[test]
fn a_log_is_kept_until_a_quorum_has_the_checkpoint() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 4, ..config() }); // VRR §5.1
    (1..3).for_each(|id| it.hosts[id].fast_machine = false);
    for number in 0..6 {
        it.apply(1, &number.to_string()).run(60);
    }
    assert_eq!(it.status(0).checkpoint, op(4));
    it.say(replica(2), 0, Message::GetView { view: View::ZERO, committed: op(0), nonce: 1 });
    let Message::StartView(start) = it.last(0, "StartView") else { unreachable!() };
    assert_eq!(start.after, op(0));
}

#[test]
fn a_backup_acknowledges_in_a_view_only_when_the_log_of_the_view_is_on_disk() {
    let mut it = Cluster::new(3); // R4
    it.apply(1, "a").run(100).crash(0);
    it.lose(|it| it.label == "StartView").run(1000).heal();
    it.hosts[2].fast_disk = false;
    it.talk();
    it.run(300);
    assert_eq!((it.status(2).role.as_str(), it.count("PrepareOk")), ("backup", 0));
    it.sync(2).deliver();
    assert!(it.count("PrepareOk") > 0);
}

#[test]
fn an_entry_that_a_view_change_dropped_does_not_come_back_with_the_disk() {
    let mut it = Cluster::new(3); // R6
    it.apply(1, "a").run(200).isolate(0);
    ask_only(&mut it, 0, 77);
    it.run(1500).apply(1, "b").heal().run(500);
    for _ in 0..2 {
        let entries = it.hosts[0].journal.iter().filter(|it| matches!(it.record(), Record::Entry(_))).count();
        assert!(entries > 3, "the dropped entry is still among the records");
        it.restart(0);
        it.run(500);
        assert_eq!((it.status(0).op, it.tape(0)), (op(3), vec!["a".to_owned(), "b".to_owned()]));
    }
}

#[test]
fn a_request_whose_entry_was_dropped_is_applied_when_it_is_asked_again() {
    let mut it = Cluster::new(3); // CT2
    it.apply(1, "a").run(200).lose(|it| it.label == "Prepare");
    let ticket = it.submit(1, "b");
    it.run(10).crash(0);
    it.heal().run(2000);
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    it.restart(0);
    it.run(1000);
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn a_client_that_starts_again_opens_a_session_of_its_own() {
    let mut it = Cluster::new(3); // CT1, CT3
    it.apply(1, "a").apply(2, "b").run(100);
    assert!(it.agrees(&["a", "b"]), "each has sent its request number 1");
}

#[test]
fn a_backup_that_restarts_goes_on_and_a_primary_that_restarts_leads_the_next_view() {
    let mut it = Cluster::new(3); // VRR §4.3; vr.md §2.5 A
    it.apply(1, "a");
    it.restart(1);
    it.run(10);
    assert_eq!(it.view(1), View::ZERO);
    it.restart(0);
    it.run(10);
    assert!(it.leads(1) && it.view(0) == View::new(1));
}

#[test]
fn a_power_failure_of_all_loses_nothing() {
    for n in [1, 2, 3, 4, 5] {
        let mut it = Cluster::new(n); // vr.md §2.5; D6
        it.apply(1, "a").apply(2, "b");
        for id in 0..n {
            it.crash(id);
        }
        (0..n).for_each(|id| it.restart(id));
        it.apply(1, "c").run(300);
        assert!(it.agrees(&["a", "b", "c"]), "n={n}");
    }
}

#[test]
fn a_checkpoint_lets_the_log_go_and_a_restart_begins_from_it() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 4, ..config() }); // VRR §5.1; R8
    for number in 0..20 {
        it.apply(1, &number.to_string()).run(60);
    }
    let tape = it.tape(0);
    for id in 0..3 {
        assert!(it.hosts[id].journal.len() < 14, "R{id} keeps {} records", it.hosts[id].journal.len());
        it.restart(id);
        assert!(it.tape(id).len() >= 15, "R{id} does not begin at the beginning");
    }
    it.run(2000);
    assert!((0..3).all(|id| it.tape(id) == tape));
}

#[test]
fn a_replica_behind_everybodys_log_fetches_the_state() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 4, ..config() }); // VRR §5.2
    it.apply(1, "a").run(60).isolate(2);
    for number in 0..20 {
        it.apply(1, &number.to_string()).run(60);
    }
    it.talk();
    it.heal().run(1000);
    assert!(it.count("GetChunk") > 0 && it.tape(2) == it.tape(0));
}

#[test]
fn a_primary_prepares_no_more_than_the_window() {
    let mut it = Cluster::with(3, Config { batch_bytes: 1, ..config() }); // D20
    it.apply(1, "a").run(100);
    (1..3).for_each(|id| it.hosts[id].fast_disk = false);
    it.talk();
    for number in 0..50 {
        it.submit(1, &number.to_string());
    }
    it.deliver();
    assert_eq!(it.count("Prepare"), 2 * 32);
    it.sync(1).deliver().sync(1).deliver();
    assert_eq!(it.status(0).committed, op(52));
}

#[test]
fn requests_gather_while_the_disk_is_busy() {
    let mut it = Cluster::new(3); // vr.md §2.8: group commit
    it.apply(1, "a");
    it.hosts[0].fast_disk = false;
    (1..3).for_each(|id| it.hosts[id].fast_disk = false);
    for number in 0..40 {
        it.submit(1, &number.to_string());
    }
    it.deliver();
    assert_eq!(it.status(0).op, op(3), "the first goes alone");
    it.sync(0).deliver();
    assert_eq!(it.status(0).op, op(4), "the others in one entry");
}

#[test]
fn full_batches_do_not_wait_and_share_a_sync() {
    let mut it = Cluster::with(3, Config { batch_bytes: 1, ..config() });
    it.apply(1, "a");
    it.hosts[0].fast_disk = false;
    for number in 0..5 {
        it.submit(1, &number.to_string());
    }
    it.deliver();
    assert_eq!(it.status(0).op, op(7));
    it.sync(0).deliver();
    assert_eq!(it.status(0).committed, op(7));
}

#[test]
fn a_primary_whose_queue_is_full_says_so_and_takes_nothing() {
    let mut it = Cluster::with(3, Config { pending_bytes: 200, ..config() }); // vr.md §2.3 step 2
    it.apply(1, "a").run(100);
    (0..3).for_each(|id| it.hosts[id].fast_disk = false);
    it.talk();
    for number in 0..6 {
        it.submit(1, &number.to_string());
    }
    it.deliver();
    assert!(it.count("Busy") > 0);
    (0..3).for_each(|id| it.hosts[id].fast_disk = true);
    for id in 0..3 {
        it.sync(id);
    }
    it.run(3000);
    assert_eq!(it.tape(0).len(), 7);
}

#[test]
fn a_primary_that_nobody_acknowledges_falls_silent_and_the_view_ends() {
    for n in [2, 3, 4, 5] {
        let mut it = Cluster::with(n, Config { abdicate: Duration::from_millis(500), ..config() }); // check-quorum
        it.apply(1, "a").run(100);
        if n == 4 {
            it.crash(3);
        }
        it.deafen(0);
        ask_only(&mut it, 0, 77);
        it.run(3000);
        if n % 2 == 0 {
            it.heal(); // without it there is no quorum
        }
        it.run_until("somebody else leads", |it| it.primary().is_some_and(|id| id != 0 && it.view(id) > View::ZERO));
    }
}

#[test]
fn a_view_goes_on_after_a_silence_of_everybody() {
    for n in [2, 3, 4] {
        let mut it = Cluster::new(n);
        it.apply(1, "a").run(100);
        for id in 0..n {
            it.isolate(id);
        }
        ask_only(&mut it, 0, 77);
        it.run(5000).heal().apply(1, "b");
    }
}

#[test]
fn the_tick_that_the_machine_wants_is_ordered_once() {
    let mut it = Cluster::new(3); // vr.md §2.8: time comes from the log
    it.apply(1, "lease").run(900);
    assert!(it.agrees(&["lease"]));
    it.hosts[0].fast_machine = false;
    it.talk();
    it.submit(1, "a");
    it.run(130);
    assert_eq!(it.count("Prepare"), 4, "one entry for the request, one for the tick");
    it.hosts[0].fast_machine = true;
    it.work(0).run(200);
    assert_eq!(it.count("Prepare"), 4, "the tick is owed until the machine has had it, and ordered");
    assert!(it.agrees(&["lease", "a", "tick"]));
}

#[test]
fn a_new_primary_orders_the_tick_that_the_old_one_owed() {
    let mut it = Cluster::new(3);
    it.apply(1, "lease").run(100).crash(0);
    it.run(3000);
    assert_eq!(it.tape(1), ["lease", "tick"]);
}

#[test]
fn replicas_that_suspect_at_once_change_the_view_too() {
    let mut it = Cluster::with(3, Config { policy: ViewChangePolicy::Direct, ..config() }); // vr.md §2.10
    it.apply(1, "a").crash(0).run(1000);
    it.apply(1, "b").run(200);
    assert!(it.leads(1) && it.count("ExitView") == 0);
    assert!(it.agrees(&["a", "b"]));
}

#[test]
fn operations_are_opaque_bytes() {
    let mut it = Cluster::new(1);
    it.apply(1, "").apply(1, "\0");
    assert_eq!(it.tape(0), ["", "\0"]);
    assert!(Bytes::new().is_empty());
}
