//! `quorate top`, in a terminal and elsewhere; and the load that `bench` puts on etcd's API.

use crate::common::{Cluster, eventually, signal};
use rustix::process::Signal;
use serde_json::Value;
use std::process::{Command, Stdio};

#[test]
fn top_prints_once_where_there_is_no_terminal() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "a", "1"]);
    let text = cluster.must(&["top"]);
    for expected in ["healthy: all 3 replicas answer and agree", "primary", "throughput", "read", "disk syncs"] {
        assert!(text.contains(expected), "{expected}: {text}");
    }
    assert!(!text.contains('\x1b'), "no colours in a pipe: {text:?}");
    let object: Value = serde_json::from_str(&cluster.must(&["top", "--json"])).expect("JSON");
    assert_eq!(object["healthy"], Value::Bool(true));
    assert!(object["read_ms"].as_f64().expect("a read was answered") > 0.0);
    assert_eq!(object["ops_per_second"].as_f64(), Some(0.0), "nobody writes");
    let status = cluster.status();
    for (shown, row) in
        object["replicas"].as_array().expect("rows").iter().zip(status["replicas"].as_array().expect("rows"))
    {
        for name in ["replica", "role", "view", "op", "digest", "checkpoint"] {
            assert_eq!(shown[name], row[name], "top and status say the same of {name}");
        }
    }
    cluster.kill(1);
    cluster.kill(2);
    let alone = cluster.run(&["top"]);
    assert!(!alone.ok && String::from_utf8_lossy(&alone.stdout).contains("DOWN: 1 of 3"), "{}", alone.stderr);
}

#[test]
fn top_keeps_a_terminal_up_to_date_and_leaves_it_as_it_was() {
    let cluster = Cluster::serve_all(3);
    let (pid, seen) = (cluster.scratch().join("pid"), cluster.scratch().join("seen"));
    let line = format!("echo $$ >{}; exec {} top", pid.display(), env!("CARGO_BIN_EXE_quorate"));
    let mut terminal = Command::new("script")
        .args(["-qfec", &line])
        .arg(&seen)
        .env("QUORATE_CLUSTER", cluster.folder().join("cluster.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("a terminal (script, of bsdutils)");
    let shown = || String::from_utf8_lossy(&std::fs::read(&seen).unwrap_or_default()).into_owned();
    eventually("it looks again and again", || shown().matches("all 3 replicas answer").count() >= 3);
    let pid: u32 = std::fs::read_to_string(pid).expect("a number").trim().parse().expect("a number");
    signal(pid, Signal::INT);
    assert!(terminal.wait().expect("it ends").success());
    let shown = shown();
    assert!(shown.contains("\x1b[?1049h") && shown.contains("\x1b[?25l"), "a screen of its own");
    assert!(shown.contains("\x1b[?25h\x1b[?1049l"), "and the old one, with its cursor, at the end");
}

#[test]
fn the_load_of_bench_goes_through_etcds_api_too() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let flags = ["--in-flight", "1,4", "--seconds", "1", "--read-percent", "50", "--json"];
    let dir = cluster.scratch().display().to_string();
    let text = cluster.must(&[&["bench", "--against", &url, "--dir", &dir], &flags[..]].concat());
    let results: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!((results["api"].as_str(), results["protocol"].as_str()), (Some("etcd"), Some(url.as_str())));
    for level in results["levels"].as_array().expect("levels") {
        assert_eq!(level["errors"], 0, "{level}");
        assert!(level["ops_per_second"].as_f64().expect("a number") > 0.0, "{level}");
    }
    assert!(cluster.stop_dev());
    let said = cluster.must_fail(&["bench", "--against", "http://127.0.0.1:1", "--dir", &dir]);
    assert!(said.contains("cannot connect to http://127.0.0.1:1"), "{said}");
}
