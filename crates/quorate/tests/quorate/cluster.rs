//! A replicated machine under Viewstamped Replication, on real sockets and disks, while replicas crash.

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::{At, BlockingClient, Consistency, Local, Output, ReplicaId, Report, Small, Vr, vr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Counts operations, and is as large as a test wants.
#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Count {
    applied: u64,
    ballast: Vec<u8>,
}

impl Small for Count {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        self.applied += 1;
        self.ballast.extend_from_slice(operation);
        out.reply(self.applied.to_string().as_bytes());
        out.event(3, self.applied.to_string().into_bytes());
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.applied.to_string().as_bytes());
    }
}

const ALL: [ReplicaId; 3] = [ReplicaId::new(0), ReplicaId::new(1), ReplicaId::new(2)];

fn started(config: vr::Config) -> (Local, BlockingClient) {
    let local = Local::start::<Vr, _>(3, config, Count::default).expect("starts");
    let client = local.client::<Vr>().expect("connects");
    (local, client)
}

fn apply(client: &BlockingClient, operation: &[u8]) -> u64 {
    number(&client.apply(operation.to_vec()).expect("an answer").reply)
}

fn read(client: &BlockingClient, consistency: Consistency) -> u64 {
    number(&client.read(consistency, "").expect("an answer").reply)
}

fn number(text: &[u8]) -> u64 {
    std::str::from_utf8(text).expect("text").parse().expect("a number")
}

/// Waits until all three have applied the same, and returns how they are.
fn converged(client: &BlockingClient) -> Vec<Report> {
    let begun = Instant::now();
    loop {
        let reports = ALL.map(|replica| client.status(replica, Duration::from_secs(1)));
        let reports: Vec<Report> = reports.into_iter().flatten().collect();
        let [first, ..] = &reports[..] else { continue };
        if reports.len() == ALL.len() && reports.iter().all(|it| (it.op, it.digest) == (first.op, first.digest)) {
            return reports;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "they do not converge: {reports:#?}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn every_consistency_reads_what_was_written() {
    let (_local, client) = started(vr::Config::default());
    for expected in 1..=20 {
        assert_eq!(apply(&client, b"x"), expected);
    }
    let answer = client.apply("x").expect("an answer");
    assert_eq!(read(&client, Consistency::Linearizable), 21);
    assert_eq!(read(&client, Consistency::Ordered), 21);
    assert_eq!(read(&client, Consistency::Stale { at_least: answer.op }), 21);
}

#[test]
fn crashes_in_turn_lose_nothing_and_repeat_nothing() {
    let (mut local, client) = started(vr::Config::default());
    let (stop, acknowledged) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| {
        let writer = local.client::<Vr>().expect("connects");
        let (stop, acknowledged) = (&stop, &acknowledged);
        scope.spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                let count = apply(&writer, b"x");
                assert_eq!(acknowledged.fetch_add(1, Ordering::Relaxed) + 1, count, "lost, or applied twice");
            }
        });
        for replica in ALL.into_iter().cycle().take(6) {
            let before = acknowledged.load(Ordering::Relaxed);
            local.crash(replica);
            while acknowledged.load(Ordering::Relaxed) < before + 20 {
                thread::sleep(Duration::from_millis(1));
            }
            local.restart(replica).expect("restarts");
            converged_or_busy(&client, replica);
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(read(&client, Consistency::Linearizable), acknowledged.load(Ordering::Relaxed));
    for report in converged(&client) {
        assert_eq!(report.blamed, 0, "{report:?}");
    }
}

/// Waits until a replica that came back takes part again.
fn converged_or_busy(client: &BlockingClient, replica: ReplicaId) {
    let begun = Instant::now();
    loop {
        let report = client.status(replica, Duration::from_secs(1));
        if report.as_ref().is_some_and(|it| it.status.role == "primary" || it.status.role == "backup") {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "{replica} does not come back: {report:#?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_cluster_that_crashes_as_a_whole_keeps_what_it_acknowledged() {
    let (mut local, client) = started(vr::Config::default());
    for expected in 1..=50 {
        assert_eq!(apply(&client, b"x"), expected);
    }
    for round in 1..=3 {
        ALL.into_iter().for_each(|replica| local.crash(replica));
        ALL.into_iter().for_each(|replica| local.restart(replica).expect("restarts"));
        assert_eq!(apply(&client, b"x"), 50 + round);
    }
    converged(&client);
}

#[test]
fn a_replica_that_was_away_for_long_is_sent_a_snapshot() {
    let config = vr::Config { checkpoint_entries: 16, ..vr::Config::default() };
    let (mut local, client) = started(config);
    apply(&client, b"x");
    converged(&client);
    local.crash(ReplicaId::new(2));
    for expected in 2..=200 {
        assert_eq!(apply(&client, &[7; 20_000]), expected); // about four chunks
    }
    local.restart(ReplicaId::new(2)).expect("restarts");
    let reports = converged(&client);
    assert!(reports.iter().all(|it| it.status.checkpoint.get() > 16), "{reports:#?}");
    local.crash(ReplicaId::new(0));
    assert_eq!(apply(&client, b"x"), 201);
    ALL[1..].iter().for_each(|replica| local.crash(*replica));
    ALL.into_iter().for_each(|replica| local.restart(replica).expect("restarts"));
    assert_eq!(read(&client, Consistency::Linearizable), 201);
    converged(&client);
}

#[test]
fn many_calls_in_flight_are_each_applied_once() {
    let (local, client) = started(vr::Config::default());
    let (cluster, key) = local.cluster();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut counts = runtime.block_on(async {
        let client = quorate::Client::connect::<Vr>(cluster, key, Default::default()).expect("connects");
        let calls: Vec<_> = (0..3000)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.apply("x").await })
            })
            .collect();
        let mut counts = Vec::new();
        for call in calls {
            counts.push(number(&call.await.expect("no panic").expect("an answer").reply));
        }
        counts
    });
    counts.sort_unstable();
    assert_eq!(counts, (1..=3000).collect::<Vec<_>>());
    assert_eq!(read(&client, Consistency::Linearizable), 3000);
}

#[test]
fn a_watcher_hears_every_event_once_and_in_order() {
    let (local, client) = started(vr::Config::default());
    let (cluster, key) = local.cluster();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let watcher = {
        let _inside = runtime.enter();
        quorate::Client::connect::<Vr>(cluster, key, Default::default()).expect("connects")
    };
    let mut events = runtime.block_on(watcher.watch(3)).expect("watches");
    for _ in 0..50 {
        apply(&client, b"x");
    }
    let mut heard = Vec::new();
    while heard.len() < 50 {
        let batch = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(20), events.recv()).await });
        heard.extend(batch.expect("in time").expect("still watching").iter().map(|event| number(&event.bytes)));
    }
    assert_eq!(heard, (1..=50).collect::<Vec<_>>());
}

#[test]
fn what_replicas_that_are_far_apart_tell_each_other_takes_its_time_and_they_agree() {
    const ONE_WAY: Duration = Duration::from_millis(25);
    let mut local = Local::start_apart::<Vr, _>(3, vr::Config::default(), Count::default, ONE_WAY).expect("starts");
    let client = local.client::<Vr>().expect("connects");
    assert_eq!(apply(&client, b"x"), 1);
    for expected in 2..=5 {
        let begun = Instant::now();
        assert_eq!(apply(&client, b"x"), expected);
        let took = begun.elapsed(); // never less than there and back, however fast the machine is
        assert!(took >= 2 * ONE_WAY, "answered after {took:?}: a backup cannot have been asked");
    }
    local.crash(ReplicaId::new(2));
    assert_eq!(apply(&client, b"x"), 6);
    local.restart(ReplicaId::new(2)).expect("starts again");
    assert_eq!(apply(&client, b"x"), 7);
    converged(&client);
}

#[test]
fn what_somebody_waits_for_is_synced_before_its_time_comes() {
    const LEFT_ALONE: Duration = Duration::from_millis(20); // what nobody waits for is synced so much later (ADR 041)
    let (_local, client) = started(vr::Config::default());
    let took = |()| {
        let begun = Instant::now();
        apply(&client, b"x");
        begun.elapsed()
    };
    // One of so many is soon enough on any machine; if nobody asked the disk, none would be.
    assert!((0..1000).map(|_| took(())).any(|took| took < LEFT_ALONE), "every write waits for the disk's own time");
}
