//! The disk, rule by rule (A.8): what is needed is in the log, however old it is, and a snapshot knows of nothing that is not.

use crate::harness::{Cluster, Flying, config, keyring, replica};
use crate::in_order::noted;
use crate::paper::contend;
use crate::words::{N, grant, ordered, proof, version, write, write_after};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId};
use quorate_core::outbox::{Outbox, Turn};
use quorate_core::protocol::{Replica as _, Restore, RestoreError, Ticket};
use quorate_core::time::{Instant, WallTime};
use quorate_protocols::hq::{Config, Hq, Message, Record, Write, object_of};
use std::sync::Arc;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// Small logs, often cut.
fn small() -> Config {
    Config { state_steps: 5, log_slack: 4, ..config() }
}

/// A replica hears of a certified write.
fn certify(cluster: &mut Cluster, to: usize, write: &Write, ts: u64) {
    let certified = proof(&[0, 1, 2], write, version(0, ts));
    let of = Peer::Client(write.ask().client);
    cluster.say(of, to, Message::Write2 { proof: certified, write: Some(write.clone()), answer: true });
}

/// The log is cut by what happens to another object.
fn go_on(cluster: &mut Cluster) {
    for round in 0..60 {
        cluster.apply(9, &format!("other={round}"));
    }
    let longest = cluster.hosts.iter().map(|host| host.journal.len()).max().unwrap_or(0);
    assert!(longest < 60, "{longest} records");
}

#[test]
fn grants_outlive_the_logs_beginning() {
    // Of more objects than are written anew when the log is cut.
    let mut cluster = Cluster::with(N, small());
    let objects: Vec<String> = (0..40).map(|it| format!("a{it}")).collect();
    for (number, object) in (1..).zip(&objects) {
        cluster.say(client(8), 0, Message::Write1(write(8, number, &format!("{object}=x"))));
    }
    for round in 0..60 {
        cluster.apply(9, &format!("other={round}"));
    }
    let first = cluster.hosts[0].journal[0].seq.get();
    assert!(first > 40, "{first}");
    cluster.restart(0);
    for object in &objects {
        cluster.say(client(7), 0, Message::Write1(write(7, 1, &format!("{object}=y"))));
        let Message::Refused { grant, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
        let it = grant.statement();
        assert_eq!(
            (it.client, it.object),
            (ClientId::new(8), object_of(object.as_bytes())),
            "still the first client's"
        );
    }
}

#[test]
fn an_execution_outlives_the_logs_beginning() {
    // Of an object that this replica has granted nothing of.
    let mut cluster = Cluster::with(N, small());
    cluster.lose(|it| ["Sums", "Versions", "Object"].contains(&it.label));
    certify(&mut cluster, 3, &write(8, 1, "a=x"), 1);
    go_on(&mut cluster);
    cluster.restart(3);
    cluster.say(client(7), 3, Message::Write1(write(7, 1, "a=y")));
    let Message::Granted { grant, current } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert_eq!((grant.statement().version, cluster.tape(3)[0].as_str()), (version(0, 2), "a: x"));
    assert!(current.is_some());
}

#[test]
fn what_clients_of_several_objects_were_told_outlives_the_logs_beginning() {
    let mut cluster = Cluster::with(N, small());
    cluster.lose(|it| it.label == "OrderedDone");
    let ask = |cluster: &mut Cluster, id: u128| -> (u128, Ticket) {
        cluster.client(id);
        let ticket = cluster.submit(id, "a+b=x");
        cluster.run(200);
        (id, ticket)
    };
    let tickets: Vec<_> = (20..32).map(|id| ask(&mut cluster, id)).collect();
    for round in 0..60 {
        cluster.apply(9, &format!("other={round}"));
    }
    (0..N).for_each(|id| cluster.restart(id));
    cluster.heal();
    cluster.run_until("answers", |it| tickets.iter().all(|(id, ticket)| it.answer(*id, *ticket).is_some()));
    for (count, (id, ticket)) in (1..).zip(tickets) {
        assert_eq!(cluster.answer(id, ticket), Some(format!("{count} {count}")));
    }
}

#[test]
fn a_snapshot_waits_for_the_record_of_what_is_in_it() {
    // A power failure may take the record: then the snapshot must not have it either.
    let mut cluster = Cluster::with(N, Config { state_steps: 1, ..config() });
    cluster.hosts[3].fast_disk = false;
    certify(&mut cluster, 3, &write(9, 1, "a=x"), 1);
    cluster.deliver();
    assert_eq!((cluster.tape(3), cluster.hosts[3].snapshots.len()), (vec!["a: x".to_owned()], 0));
    let step = OpNumber::new(1);
    cluster.say(replica(1), 3, Message::Steps(step)).deliver();
    assert_eq!(cluster.hosts[3].snapshots.len(), 0, "another replica's word says nothing of this disk");
    cluster.sync(3).deliver();
    assert_eq!(cluster.hosts[3].snapshots.len(), 1);
}

#[test]
fn a_snapshot_waits_for_every_step_that_has_begun() {
    let mut cluster = Cluster::with(N, Config { state_steps: 1, ..config() });
    (cluster.hosts[3].fast_machine, cluster.hosts[3].fast_disk) = (false, false);
    certify(&mut cluster, 3, &write(9, 1, "a=x"), 1);
    certify(&mut cluster, 3, &write(9, 2, "b=y"), 1);
    assert!(cluster.work_once(3));
    cluster.sync(3).deliver().work(3);
    assert_eq!(cluster.tape(3), ["a: x", "b: y"]);
    assert_eq!(cluster.hosts[3].snapshots.len(), 0, "the second one is in the machine, and not on the disk");
    cluster.sync(3).deliver().work(3);
    assert_eq!(cluster.hosts[3].snapshots.len(), 1);
}

#[test]
fn no_step_begins_before_a_snapshot_that_is_due_and_all_of_them_after_it() {
    let mut cluster = Cluster::with(N, Config { state_steps: 1, ..config() });
    cluster.hosts[3].fast_disk = false;
    certify(&mut cluster, 3, &write(9, 1, "a=x"), 1);
    certify(&mut cluster, 3, &write(9, 2, "b=y"), 1);
    cluster.deliver();
    assert_eq!(cluster.tape(3), ["a: x"]);
    cluster.sync(3).deliver();
    assert_eq!(cluster.tape(3), ["a: x", "b: y"], "and it waits for no timer");
}

#[test]
fn an_operation_on_several_objects_waits_for_a_snapshot_that_is_due() {
    let mut cluster = Cluster::with(N, Config { state_steps: 3, ..config() });
    cluster.apply(9, "c=1").apply(9, "c=2").gone(9);
    cluster.lose(|it| it.label == "Grants" && it.to == replica(3));
    for id in 0..N {
        cluster.say(client(8), id, Message::Ordered(Box::new(ordered(8, 1, "a+b=x"))));
    }
    cluster.run_until("the others have it", |it| (0..3).all(|id| it.tape(id)[0] == "a: x"));
    let grants: Vec<_> =
        cluster.sent.iter().filter(|it| it.to == replica(3) && it.label == "Grants").cloned().collect();
    // The third step of replica 3 is the write of `d`, and its disk is slow. Then it hears the others' grants.
    cluster.hosts[3].fast_disk = false;
    certify(&mut cluster, 3, &write(7, 1, "d=y"), 1);
    cluster.lose(|it| it.from != it.to);
    for it in grants {
        cluster.say(it.from, 3, it.message().expect("grants"));
    }
    assert_eq!((cluster.tape(3), cluster.hosts[3].snapshots.len()), (vec!["c: 1 2".to_owned(), "d: y".to_owned()], 0));
    cluster.sync(3).deliver();
    assert_eq!(cluster.hosts[3].snapshots.len(), 1);
    assert_eq!(cluster.tape(3)[0], "a: x", "and it waits for no timer");
}

#[test]
fn what_was_taken_back_is_not_there_after_a_restart() {
    // A.6, R4, b: replica 3 has executed a write that no START shows.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let lost = write_after(9, 9, "a=lost", 1);
    certify(&mut cluster, 3, &lost, 2);
    assert_eq!(cluster.tape(3), ["a: 1 lost"]);
    cluster.lose(|it| it.to != it.from && it.from == replica(3));
    let eight = write_after(8, 9, "a=eight", 1);
    let at = version(0, 2);
    let conflict = vec![grant(0, &lost, at), grant(1, &eight, at), grant(2, &lost, at)];
    for (id, of) in [(0, 7), (1, 6), (2, 5)] {
        let own = write_after(of, 1, &format!("a={of}"), 1);
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it is taken back", |it| it.tape(3) == ["a: 1"]);
    assert!(noted(&cluster, 3, "a write was taken back") == 1);
    cluster.restart(3);
    assert_eq!(cluster.tape(3), ["a: 1"]);
    let told = |it: &Cluster| it.sent.iter().filter(|it| it.from == replica(3) && it.label == "Granted").count();
    cluster.heal();
    cluster.run_until("free", |it| it.status(3).role == "replica");
    let before = told(&cluster);
    cluster.say(client(4), 3, Message::Write1(write_after(4, 1, "a=4", 1)));
    assert_eq!(told(&cluster), before + 1);
    let Message::Granted { grant, current } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert_eq!((grant.statement().version.ts, current.map(|it| it.statement().version)), (at.ts, Some(version(0, 1))));
}

#[test]
fn an_object_that_was_had_from_others_is_there_after_a_restart() {
    let mut cluster = Cluster::with(N, small());
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.heal();
    cluster.run_until("it has it", |it| it.tape(3) == ["a: 1 2"]);
    cluster.restart(3);
    assert_eq!(cluster.tape(3), ["a: 1 2"]);
    go_on(&mut cluster);
    cluster.restart(3);
    assert_eq!(cluster.tape(3)[0], "a: 1 2");
}

#[test]
fn who_has_on_its_disk_more_than_pbft_has_told_it_answers_no_client() {
    // Replica 3 has been through a resolution with an object from others; PBFT may have ordered more for it since.
    let mut cluster = Cluster::new(N);
    cluster.isolate(3);
    let tickets = contend(&mut cluster);
    let done = |it: &Cluster| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some());
    cluster.run_until("answers", done);
    cluster.heal();
    let pbft = |it: &Flying| it.to == replica(3) && matches!(it.message(), Some(Message::Module(_)));
    cluster.lose(pbft);
    cluster.run_until("it has the object", |it| it.tape(3) == it.tape(0));
    cluster.restart(3);
    cluster.deliver();
    let granted = |it: &Cluster| it.sent.iter().filter(|it| it.from == replica(3) && it.label == "Granted").count();
    let (before, ask) = (granted(&cluster), Message::Write1(write_after(5, 1, "a=5", 2)));
    cluster.say(client(5), 3, ask.clone());
    assert_eq!(granted(&cluster), before);
    cluster.heal().run(3000);
    cluster.say(client(5), 3, ask);
    assert_eq!(granted(&cluster), before + 1);
}

// Who does not start.

fn refused(with: usize, of: usize, tail_damaged: bool) -> Option<RestoreError> {
    let restore = Restore::<Hq> {
        replica: ReplicaId::new(0),
        replicas: N,
        config: config(),
        records: Vec::new(),
        tail_damaged,
        checkpoint: None,
        wake: None,
    };
    let turn = Turn { now: Instant::from_nanos(7), wall: WallTime::from_nanos(7), entropy: 7 };
    let mut out = Outbox::<Hq>::new(turn, RecordSeq::new(1));
    quorate_protocols::hq::Replica::start(restore, Arc::new(keyring(with, of)), &mut out).err()
}

#[test]
fn a_replica_starts_with_its_own_key_and_a_log_whose_end_can_be_read() {
    assert!(refused(0, N, false).is_none());
    assert!(matches!(refused(1, N, false), Some(RestoreError::NoKey)), "another replica's key");
    assert!(matches!(refused(0, 7, false), Some(RestoreError::NoKey)), "another group's");
    assert!(matches!(refused(0, N, true), Some(RestoreError::PromisesLost(_))), "the end may have been a promise");
}

#[test]
fn a_replica_whose_snapshot_is_lost_stays_away() {
    let mut cluster = Cluster::with(N, small());
    go_on(&mut cluster);
    cluster.crash(2);
    assert!(!cluster.hosts[2].snapshots.is_empty());
    cluster.hosts[2].snapshots.clear();
    assert!(matches!(cluster.try_restart(2), Err(RestoreError::PromisesLost(_))));
}

#[test]
fn a_replica_whose_log_lacks_its_last_step_stays_away() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").gone(9);
    let (nine, eight) = (write_after(9, 9, "a=nine", 1), write_after(8, 9, "a=eight", 1));
    let at = version(0, 2);
    let conflict = vec![grant(0, &nine, at), grant(1, &eight, at), grant(2, &nine, at)];
    cluster.say(client(8), 2, Message::Resolve { conflict, write: eight });
    cluster.crash(2);
    let is_step = |record: Record| matches!(record, Record::Executed { .. });
    let lost = cluster.hosts[2].journal.iter().position(|it| is_step(it.record())).expect("a step");
    assert!(lost + 1 < cluster.hosts[2].journal.len(), "what was written after it knows of it");
    cluster.hosts[2].journal.remove(lost);
    assert!(matches!(cluster.try_restart(2), Err(RestoreError::PromisesLost(_))));
}
