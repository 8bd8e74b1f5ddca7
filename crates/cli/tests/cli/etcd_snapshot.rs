//! `etcdctl snapshot save` from Quorate, and etcd itself started from what it saved: whoever wants to leave can. Needs Debian's
//! etcd, too.

use crate::common::etcdctl::{Etcdctl, Running};
use crate::common::{Cluster, PATIENCE};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port")
}

/// etcd, from a snapshot that `etcdctl snapshot restore` has unpacked.
fn etcd_from(snapshot: &Path, folder: &Path, etcdctl: &Etcdctl) -> (Running, String) {
    let [address, peer] = [free_address(), free_address()];
    let (url, peer_url, data) = (format!("http://{address}"), format!("http://{peer}"), folder.join("restored"));
    let cluster = format!("default={peer_url}");
    let (file, folder_name) = (snapshot.to_str().expect("a path"), data.to_str().expect("a path"));
    let restore = ["snapshot", "restore", file, "--data-dir", folder_name, "--initial-cluster", &cluster];
    etcdctl.must(&[&restore[..], &["--initial-advertise-peer-urls", &peer_url]].concat());
    let started = Command::new("etcd")
        .arg("--data-dir")
        .arg(&data)
        .args(["--listen-client-urls", &url, "--advertise-client-urls", &url, "--listen-peer-urls", &peer_url])
        .args(["--initial-advertise-peer-urls", &peer_url, "--initial-cluster", &cluster, "--logger", "zap"])
        .stdout(Stdio::null())
        .stderr(std::fs::File::create(folder.join("etcd.log")).expect("a log"))
        .spawn();
    let etcd = Running(started.expect("etcd starts"));
    let until = Instant::now() + PATIENCE;
    while TcpStream::connect(address).is_err() {
        assert!(Instant::now() < until, "etcd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    (etcd, url)
}

#[test]
fn etcd_starts_from_a_snapshot_with_history_leases_and_users() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(ours) = Etcdctl::of(&url) else { return };
    if Command::new("etcd").arg("--version").output().is_err() {
        assert!(std::env::var_os("QUORATE_NEEDS_ETCD").is_none(), "etcd is not installed");
        return;
    }
    for number in 0..300 {
        ours.must(&["put", &format!("many/{:03}", number % 100), &format!("value {number}")]);
    }
    ours.must(&["put", "gone", "before"]);
    ours.must(&["compaction", "250"]);
    ours.must(&["del", "gone"]);
    let granted = ours.must(&["lease", "grant", "6000"]);
    let lease = granted.split(' ').nth(1).expect("an id");
    ours.must(&["put", "leased", "x", "--lease", lease]);
    ours.must(&["put", "large", &"v".repeat(100_000)]);
    ours.must(&["user", "add", "root:top"]);
    ours.must(&["user", "add", "ann:secret"]);
    ours.must(&["role", "add", "r"]);
    ours.must(&["role", "grant-permission", "r", "read", "many/", "--prefix"]);
    ours.must(&["user", "grant-role", "root", "root"]);
    ours.must(&["user", "grant-role", "ann", "r"]);
    ours.must(&["auth", "enable"]);
    let (ours_root, ours_ann) = (ours.by("root:top"), ours.by("ann:secret"));

    let file = cluster.scratch().join("snapshot.db");
    let path = file.to_str().expect("a path");
    assert!(ours_ann.must_fail(&["snapshot", "save", path]).contains("permission denied"));
    ours_root.must(&["snapshot", "save", path]);
    let revision: u64 = 1 + 300 + 1 + 1 + 2;
    let told = ours.must(&["snapshot", "status", path]); // checks every page
    assert_eq!(told.split(", ").nth(1), Some(revision.to_string().as_str()), "{told}");

    let (_etcd, url) = etcd_from(&file, cluster.scratch(), &ours);
    let theirs = Etcdctl::of(&url).expect("it is installed");
    let (theirs_root, theirs_ann) = (theirs.by("root:top"), theirs.by("ann:secret"));
    for arguments in [
        &["get", "", "--prefix", "--write-out", "fields"][..],
        &["get", "many/", "--prefix", "--rev", "260"],
        &["get", "gone", "--rev", "302"],
        &["lease", "list"],
        &["user", "list"],
        &["role", "get", "r"],
        &["user", "get", "ann"],
    ] {
        // the ids of cluster and member differ, and so do terms
        let same = |told: String| {
            let lines = told.lines().filter(|line| !line.contains("ID\"") && !line.contains("Term\""));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(same(ours_root.must(arguments)), same(theirs_root.must(arguments)), "{arguments:?}");
    }
    let compacted = theirs_root.must_fail(&["get", "a", "--rev", "249"]);
    assert!(compacted.contains("required revision has been compacted"), "{compacted}");
    assert_eq!(theirs_ann.must(&["get", "many/000"]), ours_ann.must(&["get", "many/000"]), "her password is there");
    assert!(theirs_ann.must_fail(&["get", "large"]).contains("permission denied"));
    assert!(theirs_root.must(&["lease", "timetolive", lease, "--keys"]).contains("leased"));
    theirs_root.must(&["put", "many/000", "goes on"]);
    assert!(cluster.stop_dev());
}
