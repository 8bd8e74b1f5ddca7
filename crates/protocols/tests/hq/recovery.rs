//! Disks and restarts (A.8, durability): grants, STARTs and executions are on disk before anybody hears of them.

use crate::harness::{Cluster, config, replica};
use crate::paper::contend;
use crate::words::{version, write};
use quorate_core::ids::{ClientId, Peer};
use quorate_core::protocol::RestoreError;
use quorate_protocols::hq::{Config, Message};

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

#[test]
fn a_grant_waits_for_the_disk() {
    let mut cluster = Cluster::new(4);
    cluster.hosts[0].fast_disk = false;
    cluster.say(client(9), 0, Message::Write1(write(9, 1, "a=x")));
    assert_eq!(cluster.count("Granted"), 0);
    cluster.sync(0);
    assert_eq!(cluster.count("Granted"), 1);
}

#[test]
fn a_grant_outlives_a_power_failure() {
    let mut cluster = Cluster::new(4);
    cluster.say(client(9), 0, Message::Write1(write(9, 1, "a=x")));
    cluster.restart(0);
    cluster.say(client(8), 0, Message::Write1(write(8, 1, "a=y")));
    let Message::Refused { grant, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
    assert_eq!(grant.statement().client, ClientId::new(9), "the place is still the first client's");
}

#[test]
fn an_answer_waits_for_the_disk() {
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.hosts.iter_mut().for_each(|host| host.fast_disk = false);
    let ticket = cluster.submit(9, "a=x");
    cluster.deliver();
    for id in 0..4 {
        cluster.sync(id);
    }
    cluster.deliver();
    assert_eq!((cluster.tape(1), cluster.answer(9, ticket)), (vec!["a: x".to_owned()], None), "executed, not told");
    for id in 0..4 {
        cluster.sync(id);
    }
    cluster.deliver();
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1"));
}

#[test]
fn everybody_may_lose_power_at_once_and_nothing_that_was_told_is_lost() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=1").apply(9, "b=2").apply(8, "a=3");
    for id in 0..4 {
        cluster.crash(id);
    }
    (0..4).for_each(|id| cluster.restart(id));
    assert!(cluster.agrees(&["a: 1 3", "b: 2"]));
    cluster.apply(7, "a=4");
    assert!(cluster.agrees(&["a: 1 3 4", "b: 2"]));
}

#[test]
fn an_operation_that_was_executed_before_a_restart_is_not_executed_again() {
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    cluster.lose(|it| it.label == "Done");
    let ticket = cluster.submit(9, "a=x");
    cluster.deliver();
    (0..4).for_each(|id| cluster.restart(id));
    cluster.heal();
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    assert!(cluster.agrees(&["a: x"]));
}

#[test]
fn a_frozen_object_is_frozen_after_a_restart() {
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| ["Start", "PrePrepare"].contains(&it.label) && it.from != it.to);
    contend(&mut cluster);
    cluster.run(300);
    assert_eq!(cluster.status(1).role, "resolving contention");
    cluster.restart(1);
    assert_eq!(cluster.status(1).role, "resolving contention");
    cluster.talk();
    cluster.say(client(7), 1, Message::Write1(write(7, 1, "a=z")));
    assert_eq!(cluster.count("Granted") + cluster.count("Refused"), 0);
}

#[test]
fn a_restart_at_any_moment_of_a_resolution_changes_nothing() {
    for moment in 0..60 {
        let mut cluster = Cluster::new(4);
        let tickets = contend(&mut cluster);
        for _ in 0..moment * 3 {
            let Some(next) = cluster.flying.pop_front() else { break };
            cluster.hand_over(&next);
        }
        cluster.restart(moment % 4);
        let done = |it: &Cluster| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some());
        cluster.run_until("answers", done);
        cluster.run_until("one state", |it| (1..4).all(|id| it.tape(id) == it.tape(0)));
        let words: Vec<String> = cluster.tape(0);
        assert!(words == ["a: nine eight"] || words == ["a: eight nine"], "moment {moment}: {words:?}");
    }
}

#[test]
fn the_log_is_cut_and_a_restart_finds_everything() {
    let small = Config { state_steps: 5, log_slack: 4, ..config() };
    let mut cluster = Cluster::with(4, small);
    for round in 0..30 {
        cluster.apply(9, &format!("k{}={round}", round % 3));
    }
    let longest = cluster.hosts.iter().map(|host| host.journal.len()).max().unwrap_or(0);
    assert!(longest < 40, "{longest} records");
    let before = cluster.tape(0);
    (0..4).for_each(|id| cluster.restart(id));
    assert!((0..4).all(|id| cluster.tape(id) == before));
    cluster.apply(8, "k0=last");
    assert!(cluster.tape(2)[0].ends_with("last"));
}

#[test]
fn a_replica_whose_promise_cannot_be_read_stays_away() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    cluster.crash(2);
    cluster.hosts[2].journal[1].damaged = Some(None);
    assert!(matches!(cluster.try_restart(2), Err(RestoreError::PromisesLost(_))));
    cluster.apply(9, "a=y");
}

#[test]
fn a_grant_of_a_place_that_is_over_is_not_taken_up_again() {
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=x");
    cluster.restart(0);
    cluster.say(client(8), 0, Message::Write1(write(8, 1, "a=y")));
    let Message::Granted { grant, .. } = cluster.last(0, "Granted") else { panic!("a grant") };
    assert_eq!(grant.statement().version, version(0, 2));
    assert!(cluster.sent.iter().any(|it| it.from == replica(0)));
}
