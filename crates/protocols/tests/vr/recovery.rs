//! Coming back with a disk that is intact, damaged or lost (vr.md §2.5, cases A to D), and getting what is missing.

use crate::harness::{Cluster, config, replica};
use crate::paper::{ask_only, op};
use quorate_core::ids::View;
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::RestoreError;
use quorate_core::wire::Wire;
use quorate_protocols::vr::{Config, Message, Record, rejoin};

/// A cluster with these operations at everybody.
fn with(operations: &[&str], config: Config) -> Cluster {
    let mut it = Cluster::with(3, config);
    for operation in operations.iter() {
        it.apply(1, operation);
    }
    it.run(200);
    it
}

/// Damages the record of an entry; the last one of it.
fn damage(it: &mut Cluster, id: usize, number: u64, class: Option<Class>) {
    let of_entry = |record: &Record| matches!(record, Record::Entry(entry) if entry.header.op == op(number));
    let journal = &mut it.crash(id).hosts[id].journal;
    journal.iter_mut().rfind(|it| of_entry(&it.record())).expect("it has it").damaged = Some(class);
}

fn lost_disk(it: &mut Cluster, id: usize) {
    let host = &mut it.crash(id).hosts[id];
    host.journal.clear();
    host.snapshots.clear();
    (host.durable, host.next_seq) = Default::default();
    host.next_seq = host.next_seq.next();
}

#[test]
fn a_damaged_entry_is_fetched_from_a_peer() {
    let mut it = with(&["a", "b", "c"], config()); // case B
    damage(&mut it, 1, 3, Some(Class::Entry));
    it.restart(1);
    assert_eq!((it.status(1).missing, it.status(1).op), (1, op(4)));
    it.run(500);
    assert_eq!(it.tape(1), ["a", "b", "c"]);
    assert!(it.hosts[1].notes.contains(&Note::Repaired(op(3))));
    assert!(!it.hosts[1].notes.iter().any(|note| matches!(note, Note::Fetched(_))));
    it.restart(1);
    it.run(300);
    assert_eq!((it.status(1).missing, it.tape(1).len()), (0, 3));
}

#[test]
fn entries_that_a_replica_missed_while_it_was_down_are_fetched_and_not_called_damaged() {
    let mut it = with(&["a"], config()); // case A
    it.crash(2);
    for operation in ["b", "c", "d"] {
        it.apply(1, operation);
    }
    it.restart(2);
    it.run(500);
    assert_eq!(it.tape(2), ["a", "b", "c", "d"]);
    let of = |wanted: fn(&Note) -> bool| it.hosts[2].notes.iter().filter(|note| wanted(note)).count();
    assert_eq!((of(|note| matches!(note, Note::Fetched(_))), of(|note| matches!(note, Note::Repaired(_)))), (3, 0));
}

#[test]
fn entries_damaged_in_a_row_are_fetched_from_the_last_to_the_first() {
    let mut it = with(&["a", "b", "c", "d"], config()); // case B: only the last one's checksum is known
    (2..5).for_each(|number| damage(&mut it, 1, number, Some(Class::Entry)));
    it.restart(1);
    assert_eq!(it.status(1).missing, 3);
    it.run(800);
    assert_eq!(it.tape(1), ["a", "b", "c", "d"]);
}

#[test]
fn a_replica_that_cannot_know_the_end_of_its_log_says_nothing_until_it_is_told() {
    let mut it = with(&["a", "b"], config()); // case C
    damage(&mut it, 1, 3, Some(Class::Entry));
    it.isolate(1).restart(1);
    it.talk();
    it.run(2000);
    assert!(it.hosts[1].notes.contains(&Note::RecoveringHead));
    assert!(it.talk().iter().filter(|it| it.starts_with("R1")).all(|it| it.contains("GetView")));
    it.heal().run(500);
    assert_eq!((it.status(1).role.as_str(), it.tape(1).len()), ("backup", 2));
    it.restart(1);
    assert_eq!(it.status(1).role, "backup", "it wrote down what it was told");
}

#[test]
fn an_old_copy_of_the_views_start_does_not_tell_the_end_of_a_log() {
    let mut it = with(&["a"], config()); // case C: a nonce proves that the answer is one
    it.crash(0).run(1000);
    it.restart(0);
    it.run(300);
    let Message::StartView(start) = it.last(1, "StartView") else { unreachable!() };
    it.apply(1, "b").run(100);
    damage(&mut it, 2, 3, Some(Class::Entry));
    it.isolate(2).restart(2);
    it.say(replica(1), 2, Message::StartView(start));
    assert_eq!(it.status(2).role, "recovering");
}

#[test]
fn damage_at_the_end_that_a_promise_follows_is_damage_at_the_end() {
    let mut it = with(&["a", "b"], config());
    it.lose(|it| it.label == "StartView").crash(0).run(700);
    damage(&mut it, 2, 3, Some(Class::Entry));
    it.restart(2);
    assert_eq!(it.status(2).role, "recovering", "else it would say that it never had entry 3");
}

#[test]
fn a_replica_whose_promises_are_lost_does_not_start() {
    let mut it = with(&["a"], config());
    it.crash(1).hosts[1].journal[0].damaged = Some(Some(Class::Promise));
    assert!(matches!(it.try_restart(1), Err(RestoreError::PromisesLost(_))));
    it.apply(1, "b").run(100);
    assert_eq!(it.tape(2), ["a", "b"]);
}

#[test]
fn the_first_promise_counts_too() {
    let mut it = with(&["a"], config());
    it.lose(|it| it.label == "StartView").crash(0).run(700);
    it.crash(1).hosts[1].journal[0].damaged = Some(None);
    assert!(matches!(it.try_restart(1), Err(RestoreError::PromisesLost(_))));
}

#[test]
fn a_damaged_promise_that_an_incomplete_one_follows_is_lost() {
    let mut it = with(&["a"], config()); // the damaged one may have said what the log became
    it.crash(0).run(1000).apply(1, "b");
    it.restart(0);
    it.run(300).crash(1).run(1000);
    let promise =
        |it: &crate::harness::OnDisk| matches!(it.record(), Record::Promise(promise) if promise.suffix.is_some());
    it.crash(2);
    let started = it.hosts[2].journal.iter().position(promise).expect("view 1 has started there");
    assert!(it.hosts[2].journal[started + 1..].iter().any(|it| matches!(it.record(), Record::Promise(_))));
    it.hosts[2].journal[started].damaged = Some(None);
    assert!(matches!(it.try_restart(2), Err(RestoreError::PromisesLost(_))));
}

#[test]
fn missing_entries_do_not_explain_a_damaged_promise() {
    let mut it = with(&["a"], config());
    it.isolate(0);
    ask_only(&mut it, 0, 77); // entries 3 and 4 of view 0, which nobody else hears of
    it.run(1500).heal();
    for operation in ["b", "c", "d", "e"] {
        it.apply(1, operation).run(300);
    }
    it.crash(0);
    let mut left = Vec::new();
    for on_disk in &mut it.hosts[0].journal {
        match on_disk.record() {
            Record::Entry(it) if it.header.view > View::ZERO && it.header.op < op(6) => {
                on_disk.damaged = Some(Some(Class::Entry));
            }
            Record::Entry(it) => left.push((it.header.op, it.header.view)),
            Record::Promise(it) if it.suffix.is_some() => on_disk.damaged = Some(Some(Class::Promise)),
            Record::Promise(_) => {}
        }
    }
    let dropped = [1, 2, 3, 4].map(|number| (op(number), View::ZERO));
    assert_eq!(left, [&dropped[..], &[(op(6), View::new(1))]].concat(), "as if entry 5 alone were missing");
    assert!(matches!(it.try_restart(0), Err(RestoreError::PromisesLost(_))));
}

#[test]
fn a_replica_alone_with_a_damaged_end_does_not_pretend() {
    let mut it = Cluster::new(1);
    it.apply(1, "a").apply(1, "b");
    damage(&mut it, 0, 3, Some(Class::Entry));
    assert!(matches!(it.try_restart(0), Err(RestoreError::PromisesLost(_))));
}

#[test]
fn a_lost_disk_comes_back_two_views_on_and_vouches_for_nothing_before() {
    let mut it = with(&["a", "b"], config()); // case D
    lost_disk(&mut it, 2);
    let first = rejoin(it.view(0));
    let host = &mut it.hosts[2];
    host.journal.push(crate::harness::OnDisk { seq: host.next_seq, bytes: first.encode(), damaged: None });
    (host.durable, host.next_seq) = (host.next_seq, host.next_seq.next());
    it.talk();
    it.restart(2);
    assert_eq!((it.view(2), it.status(2).role.as_str()), (View::new(2), "recovering"));
    it.run(3000);
    let votes = it.sent.iter().filter(|it| it.from == replica(2)).filter_map(|it| it.message());
    assert!(votes.into_iter().all(|it| !matches!(it, Message::DoViewChange(change) if change.view <= View::new(2))));
    it.apply(1, "c").run(300);
    assert!(it.agrees(&["a", "b", "c"]) && it.view(2) > View::new(2));
}

#[test]
fn a_lost_disk_of_a_group_with_checkpoints_fetches_the_state() {
    let mut it = with(&["a", "b", "c", "d", "e", "f", "g", "h", "i"], Config { checkpoint_entries: 3, ..config() });
    lost_disk(&mut it, 2);
    let first = rejoin(it.view(0));
    let host = &mut it.hosts[2];
    host.journal.push(crate::harness::OnDisk { seq: host.next_seq, bytes: first.encode(), damaged: None });
    (host.durable, host.next_seq) = (host.next_seq, host.next_seq.next());
    it.restart(2);
    it.run(4000);
    assert!(it.tape(2) == it.tape(0) && it.tape(0).len() == 9);
}

#[test]
fn a_replica_whose_snapshot_is_damaged_fetches_one_and_acknowledges_nothing_meanwhile() {
    let mut it = with(&["a", "b", "c", "d", "e", "f", "g", "h", "i"], Config { checkpoint_entries: 3, ..config() });
    it.crash(2).hosts[2].snapshots.clear();
    it.talk();
    it.lose(|it| it.label == "GetManifest").restart(2);
    it.run(100).apply(1, "j");
    assert_eq!(it.status(2).role, "backup, fetching state");
    assert!(it.talk().iter().all(|it| !it.starts_with("R2 PrepareOk")));
    it.heal().run(2000);
    assert_eq!(it.tape(2), it.tape(0));
}

#[test]
fn a_primary_without_its_state_passes_the_view_on() {
    let mut it = with(&["a", "b", "c", "d", "e", "f", "g", "h", "i"], Config { checkpoint_entries: 3, ..config() });
    it.crash(1).hosts[1].snapshots.clear(); // D17
    it.lose(|it| it.label == "GetManifest").restart(1);
    it.crash(0).run(2000);
    assert!(it.leads(2) && it.view(2) == View::new(2));
    it.heal().apply(1, "j").run(2000);
    assert_eq!(it.tape(1), it.tape(2));
}

#[test]
fn a_primary_that_fell_behind_asks_for_the_headers_between() {
    let mut it = with(&["a"], config()); // GetHeaders
    it.isolate(1);
    for number in 0..5 {
        it.apply(1, &number.to_string()).run(60);
    }
    it.crash(0).heal().talk();
    it.run_until("R1 leads", |it| it.leads(1));
    assert!(it.count("GetHeaders") > 0 && it.count("GetEntries") > 0);
    it.run(500);
    assert_eq!(it.tape(1), ["a", "0", "1", "2", "3", "4"]);
}

#[test]
fn what_everybody_has_dropped_is_fetched_as_a_checkpoint() {
    let mut it = with(&["a"], Config { checkpoint_entries: 4, ..config() });
    it.lose(|it| it.to == replica(2) && it.label == "Prepare" || it.label == "Entry");
    for number in 0..20 {
        it.apply(1, &number.to_string()).run(120);
    }
    it.heal().run(2000);
    assert_eq!(it.tape(2), it.tape(0), "R2 knew the headers of entries that nobody holds any more");
}

#[test]
fn entries_fetched_out_of_order_survive_the_forgetting_of_records() {
    let mut it = Cluster::with(3, Config { checkpoint_entries: 4, ..config() });
    let untold = |it: &crate::harness::Flying| it.to == replica(2) && ["Commit", "StartView"].contains(&it.label);
    it.apply(1, "a").lose(untold);
    for operation in ["b", "c", "d", "e", "f"].into_iter() {
        it.apply(1, operation);
    }
    assert_eq!((it.status(2).op, it.status(2).checkpoint), (op(7), op(4)));
    (5..7).for_each(|number| damage(&mut it, 2, number, Some(Class::Entry)));
    it.isolate(2).restart(2);
    it.heal().lose(move |it| it.to == replica(2) && ["Commit", "StartView"].contains(&it.label)).run(800);
    assert_eq!((it.status(2).op, it.status(2).missing), (op(7), 0), "6, then 5");
    let before = it.hosts[2].journal.len();
    it.heal().run(60);
    assert!(it.hosts[2].journal.len() < before, "the log begins after the checkpoint");
    it.isolate(2).restart(2);
    assert_eq!((it.status(2).op, it.status(2).missing), (op(7), 0));
}

#[test]
fn a_deposed_primary_takes_the_log_of_the_new_view() {
    let mut it = with(&["a"], config()); // VRR §4.2 step 6
    it.isolate(0);
    ask_only(&mut it, 0, 77);
    it.run(1000).apply(1, "b").heal().run(300);
    assert_eq!((it.status(0).role.as_str(), it.tape(0)), ("backup", vec!["a".to_owned(), "b".to_owned()]));
}
