//! A replicated machine on real sockets and disks, under a protocol that is simple enough to predict.

use crate::common::soon;
use crate::support::{Cluster, r, until};
use quorate_core::outbox::{Class, Note};
use quorate_core::protocol::Consistency;
use quorate_runtime::client::Client;
use quorate_runtime::replica;
use std::time::Duration;

async fn apply(client: &Client, operation: &'static [u8]) -> String {
    let answer = soon(client.apply(operation)).await.expect("an answer");
    String::from_utf8(answer.reply.to_vec()).expect("text")
}

async fn read(client: &Client, consistency: Consistency) -> String {
    let answer = soon(client.read(consistency, "")).await.expect("an answer");
    String::from_utf8(answer.reply.to_vec()).expect("text")
}

/// The last entry of a replica's log, on its disk or not.
async fn log_end(client: &Client, replica: u8) -> u64 {
    let report = soon(client.status(r(replica), Duration::from_secs(20))).await;
    report.expect("a status").status.op.get()
}

#[tokio::test]
async fn three_replicas_apply_and_read() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    assert_eq!(apply(&client, b"four").await, "4");
    assert_eq!(apply(&client, b"sevens!").await, "11");
    assert_eq!(read(&client, Consistency::Linearizable).await, "11");
    assert_eq!(read(&client, Consistency::Ordered).await, "11");
    let calls: Vec<_> =
        (0..200).map(|_| client.clone()).map(|it| tokio::spawn(async move { it.apply("x").await })).collect();
    for call in calls {
        soon(call).await.expect("no panic").expect("an answer");
    }
    assert_eq!(read(&client, Consistency::Linearizable).await, "211");
}

#[tokio::test]
async fn an_acknowledgement_waits_for_the_disk_and_then_leaves() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    apply(&client, b"a").await;
    cluster.gates[1].close();
    cluster.gates[2].close();
    let last = log_end(&client, 0).await;
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.apply("b").await }
    });
    while log_end(&client, 1).await <= last || log_end(&client, 2).await <= last {}
    until(|| cluster.gates[1].waiting() == 1 && cluster.gates[2].waiting() == 1).await;
    cluster.heartbeats(1, 10).await;
    cluster.heartbeats(2, 10).await;
    assert!(!call.is_finished(), "acknowledged without a majority of disks");
    cluster.gates[1].open();
    soon(call).await.expect("no panic").expect("an answer");
    assert_eq!(cluster.gates[2].waiting(), 1);
    cluster.gates[2].open();
}

#[tokio::test]
async fn the_leader_says_nothing_that_its_disk_does_not_hold() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    apply(&client, b"a").await;
    let last = log_end(&client, 0).await;
    while log_end(&client, 1).await < last || log_end(&client, 2).await < last {}
    cluster.gates[0].close();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.apply("b").await }
    });
    until(|| cluster.gates[0].waiting() == 1).await;
    cluster.heartbeats(1, 10).await;
    cluster.heartbeats(2, 10).await;
    assert!(log_end(&client, 0).await > last);
    assert_eq!((log_end(&client, 1).await, log_end(&client, 2).await), (last, last), "it left before its sync");
    assert!(!call.is_finished());
    cluster.gates[0].open();
    soon(call).await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn a_failed_sync_stops_the_replica_and_says_why() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    assert_eq!(apply(&client, b"kept").await, "4");
    cluster.gates[0].fail();
    let call = tokio::spawn({
        let client = client.clone();
        async move { client.apply("more").await }
    });
    let sentence = cluster.ended(0).await;
    assert!(sentence.starts_with("the disk failed: writing the log failed and the process must stop"), "{sentence}");
    assert!(sentence.contains("the disk is gone"), "{sentence}");
    cluster.start(0).await;
    soon(call).await.expect("no panic").expect("an answer, after the restart");
    assert_eq!(read(&client, Consistency::Linearizable).await, "8");
}

#[tokio::test]
async fn a_full_disk_stops_the_replica_and_says_what_to_do() {
    let mut cluster = Cluster::started(1).await;
    let client = cluster.client();
    cluster.gates[0].fill();
    let writer = tokio::spawn(async move { while client.apply(vec![1; 1 << 20]).await.is_ok() {} });
    let sentence = cluster.ended(0).await;
    assert!(sentence.starts_with("the disk is full, so this replica has stopped"), "{sentence}");
    assert!(sentence.contains("Free space"), "{sentence}");
    writer.abort();
}

#[tokio::test]
async fn a_machine_that_panics_leaves_no_zombie() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    cluster.brake.pull(true);
    let call = tokio::spawn(async move { client.apply("block, then panic").await });
    until(|| cluster.brake.held_up() == 3).await;
    call.abort(); // nobody asks for anything any more: the replicas have to notice by themselves
    cluster.heartbeats(1, 10).await;
    cluster.heartbeats(2, 10).await;
    cluster.brake.pull(false);
    for index in 0..3 {
        let sentence = cluster.ended(index).await;
        assert!(sentence.starts_with("the machine thread ended unexpectedly"), "{sentence}");
    }
}

#[tokio::test]
async fn a_slow_machine_delays_no_heartbeat() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    apply(&client, b"a").await;
    cluster.brake.pull(true);
    let call = tokio::spawn(async move { client.apply("block").await });
    until(|| cluster.brake.held_up() == 3).await;
    cluster.heartbeats(1, 30).await;
    cluster.heartbeats(2, 30).await;
    assert!(!call.is_finished());
    assert_eq!(cluster.brake.held_up(), 3);
    cluster.brake.pull(false);
    soon(call).await.expect("no panic").expect("an answer");
}

#[tokio::test]
async fn a_cluster_that_crashes_as_a_whole_keeps_its_data() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    assert_eq!(apply(&client, b"before").await, "6");
    for index in 0..3 {
        cluster.kill(index).await;
    }
    for index in 0..3 {
        assert_eq!(cluster.start(index).await, Vec::<String>::new());
    }
    assert_eq!(apply(&client, b"after").await, "11");
}

#[tokio::test]
async fn a_replica_that_is_asked_to_stop_syncs_and_unlocks() {
    let mut cluster = Cluster::started(3).await;
    let client = cluster.client();
    assert_eq!(apply(&client, b"before").await, "6");
    for index in 0..3 {
        cluster.stop(index).await.expect("stops");
        let disk = quorate_store::RealDisk::open(&cluster.seats[index].config.data_dir).expect("opens");
        disk.lock().expect("unlocked once it has stopped");
    }
    for index in 0..3 {
        cluster.start(index).await;
    }
    assert_eq!(read(&client, Consistency::Ordered).await, "6");
}

#[tokio::test]
async fn a_folder_is_locked_while_a_replica_runs() {
    let cluster = Cluster::started(1).await;
    let disk = quorate_store::RealDisk::open(&cluster.seats[0].config.data_dir).expect("opens");
    let error = disk.lock().expect_err("locked").to_string();
    assert!(error.contains("in use by another process"), "{error}");
}

#[tokio::test]
async fn a_folder_of_somebody_else_is_refused_by_name() {
    let mut cluster = Cluster::new(3, 1000).await;
    cluster.seats[0].config.data_dir = cluster.seats[1].config.data_dir.clone();
    let error = cluster.try_start(0).await.expect_err("refused").to_string();
    assert!(error.starts_with(&cluster.seats[1].config.data_dir.display().to_string()), "{error}");
    assert!(error.contains("belongs to R1 of 3") && error.contains("the configuration says R0 of 3"), "{error}");
}

#[tokio::test]
async fn a_record_of_another_release_is_refused_by_its_number() {
    let mut cluster = Cluster::new(1, 1000).await;
    let data_dir = &cluster.seats[0].config.data_dir;
    std::fs::remove_dir_all(data_dir).expect("removes");
    let disk = quorate_store::RealDisk::open(data_dir.as_path()).expect("opens");
    let belongs = replica::belongs(&cluster.seats[0].config);
    let strange = [(Class::Entry, vec![255; 5])];
    quorate_store::replica::format_with(&disk, &belongs, quorate_store::WalConfig::new(1), &strange).expect("formats");
    let error = cluster.try_start(0).await.expect_err("refused").to_string();
    assert!(error.contains("record 1 of the log is whole, but this program does not understand it"), "{error}");
    assert!(error.contains("use the release that wrote it"), "{error}");
}

#[tokio::test]
async fn checkpoints_outlive_a_restart_and_reach_who_was_away() {
    let mut cluster = Cluster::new(3, 10).await;
    cluster.start(0).await;
    cluster.start(1).await;
    let client = cluster.client();
    for _ in 0..35 {
        apply(&client, b"x").await;
    }
    until(|| cluster.count(0, |note| matches!(note, Note::Checkpointed(_))) >= 2).await;
    cluster.kill(0).await;
    cluster.start(0).await;
    assert_eq!(read(&client, Consistency::Ordered).await, "35");
    cluster.start(2).await;
    until(|| cluster.count(2, |note| matches!(note, Note::StateTransfer(_))) == 1).await;
    let (one, two) = soon(async {
        loop {
            let one = client.status(r(0), Duration::from_secs(20)).await.expect("a status");
            let two = client.status(r(2), Duration::from_secs(20)).await.expect("a status");
            if one.op == two.op {
                return (one, two);
            }
        }
    })
    .await;
    assert_eq!((one.digest, one.position), (two.digest, two.position));
}

#[tokio::test]
async fn a_watcher_hears_what_the_machine_says() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    let mut events = soon(client.watch(7)).await.expect("watches");
    apply(&client, b"shout").await;
    let heard = soon(events.recv()).await.expect("events");
    assert_eq!(heard.len(), 1);
    assert_eq!((heard[0].topic, &heard[0].bytes[..]), (7, &b"hear, hear"[..]));
}

#[tokio::test]
async fn a_replica_says_how_it_is() {
    let cluster = Cluster::started(3).await;
    let client = cluster.client();
    apply(&client, b"x").await;
    let report = client.status(r(0), Duration::from_secs(20)).await.expect("a status");
    assert_eq!((report.protocol.as_str(), report.status.role.as_str()), ("echo", "leader"));
    assert_eq!((report.blamed, report.last_fault), (0, None));
}

#[tokio::test]
async fn a_client_that_reaches_nobody_says_whom_it_could_not_reach() {
    let mut cluster = Cluster::new(3, 1000).await;
    let mut reserved = Vec::new(); // ports at which nobody listens, and nobody will while this test runs
    for member in &mut cluster.seats[0].config.members {
        let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
        socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
        member.address = socket.local_addr().expect("an address").to_string();
        reserved.push(socket);
    }
    let client = cluster.patient_client(Duration::from_millis(500));
    let error = soon(client.apply("x")).await.expect_err("nobody is there").to_string();
    assert!(error.starts_with("no answer in time; the operation was not sent"), "{error}");
    for member in &cluster.seats[0].config.members {
        assert!(error.contains(&format!("cannot reach {} at {}", member.replica, member.address)), "{error}");
    }
    let error = soon(client.watch(1)).await.expect_err("nobody is there").to_string();
    assert!(error.contains("cannot reach R1"), "{error}");
}
