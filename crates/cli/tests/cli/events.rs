//! The event store as processes: a long file of events goes in while replicas are killed; each is there once, in order.

use crate::common::{Cluster, eventually, text_of};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Stdio;

const EVENTS: usize = 24_000;
const STREAMS: usize = 40;

/// The lines of a file, and what each stream's amounts add up to.
fn data() -> (String, BTreeMap<String, Value>) {
    let mut text = String::new();
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for number in 0..EVENTS {
        let (stream, amount) = (format!("account-{}", number * 7919 % STREAMS), (number * 31 % 201) as i64 - 100);
        *sums.entry(stream.clone()).or_default() += amount;
        let data = json!({ "amount": amount, "number": number });
        text.push_str(&format!("{}\n", json!({ "stream": stream, "type": "moved", "data": data })));
    }
    (text, sums.into_iter().map(|(stream, sum)| (stream, sum.into())).collect())
}

/// Each event's number, in the order of the store.
fn numbers(lines: &str) -> Vec<u64> {
    let events = lines.lines().map(|line| serde_json::from_str::<Value>(line).expect("an object"));
    events.map(|event| event["data"]["number"].as_u64().expect("a number")).collect()
}

fn survives(protocol: &str, replicas: usize) {
    let mut cluster = Cluster::serve_all_with(&["--protocol", protocol, "--events"], replicas);
    let (text, sums) = data();
    let file = cluster.scratch().join("events.jsonl");
    std::fs::write(&file, text).expect("a file");
    let mut subscribe = cluster.command(&["events", "subscribe", "--all", "--from", "1", "--json", "--count"]);
    let followed = cluster.scratch().join("followed");
    let into = std::fs::File::create(&followed).expect("a file");
    let mut subscribe =
        subscribe.arg(EVENTS.to_string()).stdout(into).stderr(Stdio::null()).spawn().expect("it starts");
    let append = |cluster: &Cluster| {
        let mut command = cluster.command(&["events", "append", "--batch", "8", "--file"]);
        command.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("append starts")
    };
    let mut appending = append(&cluster);
    for (round, percent) in [(0, 10), (1, 30), (2, 50)] {
        eventually("the append comes that far", || {
            assert!(appending.try_wait().expect("a child").is_none(), "it is over before it was disturbed");
            cluster.position() >= (EVENTS / 8 * percent / 100) as u64
        });
        let victim = if round == 1 { cluster.find("backup") } else { cluster.find("primary") };
        cluster.kill(victim);
        std::thread::sleep(std::time::Duration::from_millis(200));
        cluster.serve(victim);
    }
    // The one who appends dies, too. Somebody runs the command again.
    appending.kill().expect("a child");
    appending.wait().expect("a child");
    let mut appending = append(&cluster);
    let status = appending.wait().expect("a child");
    let said = text_of(appending.stdout);
    assert!(status.success() && said.contains("there already"), "{said}{}", text_of(appending.stderr));

    let expected: Vec<u64> = (0..EVENTS as u64).collect();
    let all = cluster.must(&["events", "read", "--all", "--json"]);
    assert!(numbers(&all) == expected, "events are lost, twice there, or out of order");
    assert!(subscribe.wait().expect("a child").success());
    let followed = std::fs::read_to_string(followed).expect("text");
    assert!(followed == all, "the subscription is not what was read");
    let out = cluster.scratch().join("sums.json").display().to_string();
    cluster.must(&["events", "project", "--category", "account", "--by", "stream", "--sum", "amount", "--out", &out]);
    let found: Value = serde_json::from_str(&std::fs::read_to_string(out).expect("text")).expect("an object");
    assert_eq!(found["state"], json!(sums), "the projection is not the fold over the input");
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}

#[test]
fn events_survive_kill_9_of_any_one_of_three() {
    survives("vr", 3);
}

#[test]
fn events_survive_kill_9_of_any_one_of_four_that_may_lie() {
    survives("pbft", 4);
}

#[test]
fn certified_events_survive_kill_9_of_any_one_of_four_that_may_lie() {
    survives("reception", 4);
}

#[test]
fn the_load_of_bench_appends_certified_events() {
    let cluster = Cluster::made();
    let place = cluster.scratch().display().to_string();
    let flags = ["--in-flight", "8", "--seconds", "1", "--read-percent", "20", "--json", "--dir", &place];
    let said = cluster.must(&[&["bench", "--protocol", "reception", "--events"], &flags[..]].concat());
    let results: Value = serde_json::from_str(&said).expect("an object");
    assert_eq!((&results["machine"], &results["levels"][0]["errors"]), (&json!("events"), &json!(0)), "{said}");
    assert!(results["levels"][0]["ops_per_second"].as_f64().is_some_and(|it| it > 0.0), "{said}");
}

#[test]
fn a_new_user_appends_reads_shares_and_hides() {
    let mut cluster = Cluster::serve_all_with(&["--events"], 3);
    let append = |expected: &'static str, id: &'static str| {
        let data = "{\"owner\": \"Ann\"}";
        let of = ["events", "append", "--stream", "account-1", "--type", "opened", "--data", data];
        [&of[..], &["--expected", expected, "--id", id]].concat()
    };
    let ids = ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"];
    assert_eq!(cluster.must(&append("none", ids[0])), "account-1 is at version 1, position 1\n");
    assert!(cluster.must(&append("none", ids[0])).contains("it was there already"));
    let refused = cluster.must_fail(&append("none", ids[1]));
    assert!(refused.contains("at version 1") && refused.contains("try:"), "{refused}");
    assert_eq!(cluster.must(&append("1", ids[1])), "account-1 is at version 2, position 2\n");
    let read = cluster.must(&["events", "read", "--stream", "account-1"]);
    assert_eq!(read.lines().next(), Some("1\taccount-1\t1\topened\t{\"owner\": \"Ann\"}"));
    assert!(!cluster.run(&["events", "read", "--stream", "nobody"]).ok);
    assert_eq!(cluster.must(&["events", "streams"]), "account-1\t2\t1\t\n");

    cluster.must(&["events", "group", "create", "mail", "--category", "account"]);
    let consume = ["events", "consume", "mail", "--consumer", "ann", "--until-empty"];
    let consumed = cluster.must(&consume);
    let attempts: Vec<Value> = consumed.lines().map(|line| serde_json::from_str(line).expect("an object")).collect();
    assert_eq!(attempts.iter().map(|it| it["number"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    (0..3).for_each(|replica| cluster.kill(replica));
    (0..3).for_each(|replica| cluster.spawn(replica));
    (0..3).for_each(|replica| cluster.wait_until_ready(replica));
    assert_eq!(cluster.must(&consume), "", "what was acknowledged is not given out again");
    assert!(cluster.must(&["events", "group", "show", "mail"]).contains("finished        2"));

    cluster.must(&["events", "truncate", "account-1", "--before", "2"]);
    assert_eq!(cluster.must(&["events", "read", "--all"]).lines().count(), 1);
    cluster.must(&["events", "delete", "account-1"]);
    assert_eq!(cluster.must(&["events", "scavenge"]), "freed 2 hidden events\n");
    assert_eq!(cluster.must(&["events", "read", "--all"]), "");
    assert!(cluster.must_fail(&["kv", "put", "a", "b"]).contains("an event store"));
    cluster.assert_no_panic();
}

#[test]
fn a_subscription_goes_on_from_its_checkpoint_and_across_an_outage() {
    let mut cluster = Cluster::serve_all_with(&["--events"], 3);
    let place = cluster.scratch().join("place").display().to_string();
    let append = |cluster: &Cluster, number: usize| {
        let data = format!("{{\"number\":{number}}}");
        cluster.must(&["events", "append", "--stream", "s", "--type", "t", "--data", &data]);
    };
    let subscribe = |cluster: &Cluster, count: &str| {
        let arguments =
            ["events", "subscribe", "--all", "--from", "1", "--json", "--checkpoint", &place, "--count", count];
        cluster.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
    };
    (0..3).for_each(|number| append(&cluster, number));
    let first = subscribe(&cluster, "2").wait_with_output().expect("a child");
    assert_eq!(numbers(&String::from_utf8(first.stdout).expect("text")), [0, 1]);
    let second = subscribe(&cluster, "3");
    std::thread::sleep(std::time::Duration::from_millis(500));
    cluster.kill_all();
    (0..3).for_each(|replica| cluster.spawn(replica));
    (0..3).for_each(|replica| cluster.wait_until_ready(replica));
    (3..5).for_each(|number| append(&cluster, number));
    let second = second.wait_with_output().expect("a child");
    assert_eq!(numbers(&String::from_utf8(second.stdout).expect("text")), [2, 3, 4]);
    let said = String::from_utf8(second.stderr).expect("text");
    assert!(said.contains("not heard") && said.contains("heard again"), "{said}");
}
