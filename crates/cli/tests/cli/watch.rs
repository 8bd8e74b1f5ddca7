//! Watches: every change once, in order, whatever happens to the replica that is watched.

use crate::common::{Cluster, eventually};
use std::fs::File;
use std::process::Stdio;

#[test]
fn a_watch_goes_on_after_its_replica_died_without_loss_or_repetition() {
    let mut cluster = Cluster::serve_all(3);
    let out = cluster.scratch().join("watched");
    let file = File::create(&out).expect("a file");
    let mut command = cluster.command(&["kv", "watch", "k/", "--from", "2", "--count", "60"]);
    let mut watch = command.stdout(file).stderr(Stdio::null()).spawn().expect("watch starts");
    for number in 0..60 {
        cluster.must(&["kv", "put", &format!("k/{number}"), &number.to_string()]);
        cluster.must(&["kv", "put", &format!("other/{number}"), "not watched"]);
        if number % 20 == 10 {
            let victim = (number / 20) % 3; // each replica dies once, the watched one among them
            cluster.kill(victim);
            cluster.must(&["kv", "put", "other/between", "x"]);
            cluster.serve(victim);
        }
    }
    eventually("the watch ends", || watch.try_wait().expect("a child").is_some());
    let text = std::fs::read_to_string(&out).expect("text");
    let seen: Vec<(u64, &str, &str)> = text
        .lines()
        .map(|line| {
            let fields: Vec<_> = line.split('\t').collect();
            (fields[0].parse().expect("a revision"), fields[1], fields[2])
        })
        .collect();
    let expected: Vec<String> = (0..60).map(|number| format!("k/{number}")).collect();
    assert_eq!(seen.iter().map(|it| it.2).collect::<Vec<_>>(), expected);
    assert!(seen.windows(2).all(|pair| pair[0].0 < pair[1].0), "revisions go up: {seen:?}");
    assert!(seen.iter().all(|it| it.1 == "put"));
}

#[test]
fn a_watch_without_a_revision_shows_what_happens_from_now_on() {
    let cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "old", "1"]);
    let out = cluster.scratch().join("watched");
    let file = File::create(&out).expect("a file");
    let mut command = cluster.command(&["kv", "watch", "--count", "1", "--json"]);
    let mut watch = command.stdout(file).spawn().expect("watch starts");
    let mut number = 0;
    eventually("the watch sees a new put", || {
        number += 1;
        cluster.must(&["kv", "put", "new", &number.to_string()]);
        watch.try_wait().expect("a child").is_some()
    });
    let line: serde_json::Value = serde_json::from_slice(&std::fs::read(&out).expect("a line")).expect("JSON");
    assert_eq!((&line["key"], &line["kind"]), (&"new".into(), &"put".into()));
}
