//! The event store behind a broker that nobody trusts: real processes, a real NATS server, kill -9 of replicas and of the broker.

use crate::common::{Cluster, PATIENCE, eventually, signal, text_of};
use crate::server::Server;
use rustix::process::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// Events of the large append.
const EVENTS: usize = 24_000;
/// Events of one append.
const BATCH: usize = 8;

/// The lines that `scripts/e2e` prepared, or those that Debian keeps of what is installed; over and over, if they are few.
fn lines() -> Vec<String> {
    let data = std::env::var_os("QUORATE_DATASET").map_or_else(|| PathBuf::from("/var/lib/dpkg/status"), PathBuf::from);
    let text = std::fs::read(data).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<String> = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect();
    if lines.is_empty() { (0..EVENTS).map(|number| format!("line {number}")).collect() } else { lines }
}

/// A file of events, a line each, and what a plain fold over it makes of each stream: the characters in it.
fn data(file: &Path, count: usize) -> BTreeMap<String, Value> {
    let (lines, mut text) = (lines(), String::new());
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for number in 0..count {
        let line = &lines[number % lines.len()];
        let (stream, size) = (format!("text-{}", number * 7919 % 40), line.chars().count() as u64);
        *sums.entry(stream.clone()).or_default() += size;
        let data = json!({ "number": number, "size": size, "line": line });
        text.push_str(&format!("{}\n", json!({ "stream": stream, "type": "read", "data": data })));
    }
    std::fs::write(file, text).expect("a file");
    sums.into_iter().map(|(stream, sum)| (stream, sum.into())).collect()
}

/// Each event's number, in the order of the store.
fn numbers(lines: &str) -> Vec<usize> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    events.map(|event| event["data"]["number"].as_u64().expect("a number") as usize).collect()
}

fn append(cluster: &Cluster, file: &Path) -> Child {
    let mut command = cluster.command(&["events", "append", "--batch", &BATCH.to_string(), "--file"]);
    command.arg(file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("append starts")
}

/// Waits while the append gets on: how fast is the machine's business, that it does not stand still is ours.
fn wait_until_appended(cluster: &Cluster, appending: &mut Child, events: usize) {
    let (mut reached, mut since) = (0, Instant::now());
    while reached < (events / BATCH) as u64 {
        if let Some(status) = appending.try_wait().expect("a child") {
            panic!("it is over before it was disturbed ({status}):\n{}", text_of(appending.stderr.take()));
        }
        let position = cluster.position();
        if position > reached {
            (reached, since) = (position, Instant::now());
        }
        assert!(since.elapsed() < PATIENCE, "the append stands still at {position} of {}", events / BATCH);
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn succeeds(mut appending: Child) {
    let status = appending.wait().expect("a child");
    assert!(status.success(), "{}{}", text_of(appending.stdout), text_of(appending.stderr));
}

/// Everything is there once, in the order of the file, on all replicas, and the projection is the fold over the file.
fn holds(cluster: &Cluster, count: usize, sums: &BTreeMap<String, Value>) {
    let expected: Vec<usize> = (0..count).collect();
    let all = cluster.must(&["events", "read", "--all", "--json"]);
    assert!(numbers(&all) == expected, "events are lost, twice there, or out of order");
    let out = cluster.scratch().join("sums.json").display().to_string();
    cluster.must(&["events", "project", "--category", "text", "--by", "stream", "--sum", "size", "--out", &out]);
    let found: Value = serde_json::from_str(&std::fs::read_to_string(out).expect("text")).expect("an object");
    assert_eq!(found["state"], json!(sums), "the projection is not the fold over the input");
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}

#[test]
fn certified_events_survive_kill_9_of_replicas_and_of_the_broker() {
    let Some(mut server) = Server::start() else { return };
    let url = server.url();
    let mut cluster = Cluster::serve_all_with(&["--protocol", "reception", "--events", "--broker", &url], 4);
    let file = cluster.scratch().join("events.jsonl");
    let sums = data(&file, EVENTS);
    let mut appending = append(&cluster, &file);
    for (percent, role) in [(10, "backup"), (30, "primary")] {
        wait_until_appended(&cluster, &mut appending, EVENTS * percent / 100);
        let victim = cluster.find(role);
        cluster.kill(victim);
        std::thread::sleep(Duration::from_millis(200));
        cluster.serve(victim);
    }
    wait_until_appended(&cluster, &mut appending, EVENTS / 2);
    assert!(server.messages() > (EVENTS / 4) as u64, "clients publish through it: {}", server.messages());
    server.kill();
    wait_until_appended(&cluster, &mut appending, EVENTS * 55 / 100);
    server.spawn();
    wait_until_appended(&cluster, &mut appending, EVENTS * 80 / 100);
    assert!(server.messages() > 0, "clients publish through it again");
    server.kill();
    server.lose_disk();
    server.spawn();
    succeeds(appending);
    holds(&cluster, EVENTS, &sums);
    // And the disks prove it.
    cluster.kill_all();
    let said = cluster.must(&["events", "verify", "--dir", &cluster.folder().display().to_string()]);
    assert!(said.ends_with("everything holds\n"), "{said}");
}

#[test]
fn events_survive_a_broker_that_does_everything_wrong() {
    let Some(server) = Server::start() else { return };
    let url = server.url();
    let flags = ["--protocol", "reception", "--events", "--broker", &url, "--broker-faults", "all:200"];
    let cluster = Cluster::serve_all_with(&flags, 4);
    let file = cluster.scratch().join("events.jsonl");
    let sums = data(&file, 1_600);
    succeeds(append(&cluster, &file));
    holds(&cluster, 1_600, &sums);
    assert!(server.messages() > 0);
}

#[test]
fn dev_starts_a_broker_and_goes_on_without_it() {
    if Server::start().is_none() {
        return;
    }
    let mut cluster = Cluster::made();
    let flags = ["--protocol", "reception", "--events", "--broker", "nats"];
    let said = cluster.start_dev_with(&flags).join("\n");
    assert!(said.contains("clients publish through nats://127.0.0.1:"), "{said}");
    let one = |cluster: &Cluster| cluster.must(&["events", "append", "--stream", "s-1", "--type", "t", "--data", "1"]);
    assert!(one(&cluster).contains("version 1"));
    let pid_file = cluster.folder().join("broker").join("pid");
    let pid = std::fs::read_to_string(&pid_file).expect("a pid").trim().parse().expect("a number");
    signal(pid, Signal::KILL);
    assert!(one(&cluster).contains("version 2"));
    assert!(cluster.stop_dev());
    cluster.start_dev_with(&[]);
    assert!(one(&cluster).contains("version 3"), "the next dev starts it again");
    let again: i32 = std::fs::read_to_string(&pid_file).expect("a pid").trim().parse().expect("a number");
    assert_ne!(i32::try_from(pid).expect("a pid"), again);
    assert!(cluster.stop_dev());
    assert!(!Path::new(&format!("/proc/{again}")).exists(), "it ends with dev");
}

#[test]
fn a_broker_that_dev_has_started_ends_with_it_also_after_kill_9() {
    if Server::start().is_none() {
        return;
    }
    let mut cluster = Cluster::made();
    let said = cluster.start_dev_with(&["--protocol", "reception", "--events", "--broker", "nats"]).join("\n");
    let address = said.split("nats://").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("where it is");
    let address = address.trim_end_matches(|it: char| !it.is_ascii_digit());
    assert!(TcpStream::connect(address).is_ok(), "{address}");
    signal(cluster.dev_pid(), Signal::KILL);
    eventually("nobody listens there", || TcpStream::connect(address).is_err());
    assert!(!cluster.stop_dev());
}

#[test]
fn a_broker_where_nobody_publishes_is_refused_with_advice() {
    let made = Cluster::made();
    let folder = made.folder().display().to_string();
    let init = |flags: &[&str]| made.must_fail(&[&["init", "--dir", &folder], flags].concat());
    assert!(init(&["--protocol", "pbft", "--broker", "nats://127.0.0.1:4222"]).contains("--protocol reception"));
    assert!(init(&["--protocol", "reception", "--broker", "nats"]).contains("nats://HOST:PORT"));
    assert!(init(&["--protocol", "reception", "--broker", "kafka://x:1"]).contains("nats://host:port"));
    assert!(init(&["--protocol", "reception", "--broker-faults", "dorp"]).contains("drop"));
}
