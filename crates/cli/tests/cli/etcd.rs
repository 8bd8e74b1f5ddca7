//! Debian's `etcdctl` against `quorate dev` and `quorate gateway`. Runs if it is installed (Debian: etcd-client);
//! `QUORATE_NEEDS_ETCD` makes its absence a failure.

use crate::common::etcdctl::{Etcdctl, Running};
use crate::common::{Cluster, signal};
use rustix::process::Signal;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn etcdctls_commands_do_with_dev_what_they_do_with_etcd() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    assert_eq!(etcdctl.must(&["put", "a", "1"]), "OK\n");
    assert_eq!(etcdctl.must(&["put", "ab", "2"]), "OK\n");
    assert_eq!(etcdctl.must(&["put", "a", "3", "--prev-kv"]), "OK\na\n1\n");
    assert_eq!(etcdctl.must(&["get", "a"]), "a\n3\n");
    assert_eq!(etcdctl.must(&["get", "a", "--rev", "2"]), "a\n1\n");
    assert_eq!(etcdctl.must(&["get", "a", "--prefix"]), "a\n3\nab\n2\n");
    assert_eq!(
        etcdctl.must(&["get", "a", "--prefix", "--keys-only", "--sort-by", "CREATE", "--order", "DESCEND"]),
        "ab\n\na\n\n"
    );
    assert_eq!(etcdctl.txn("value(\"a\") = \"3\"\n\nput b yes\nget a\n\nput b no\n\n"), "SUCCESS\n\nOK\n\na\n3\n");
    assert_eq!(etcdctl.must(&["del", "a", "--prefix", "--prev-kv"]), "2\na\n3\nab\n2\n");

    let granted = etcdctl.must(&["lease", "grant", "60"]);
    let lease = granted.split(' ').nth(1).expect("an id");
    etcdctl.must(&["put", "leased", "x", "--lease", lease]);
    assert!(etcdctl.must(&["lease", "list"]).contains(lease));
    assert!(etcdctl.must(&["lease", "timetolive", lease, "--keys"]).contains("leased"));
    assert!(etcdctl.must(&["lease", "keep-alive", "--once", lease]).contains("TTL(60)"));
    etcdctl.must(&["lease", "revoke", lease]);
    assert_eq!(etcdctl.must(&["get", "leased"]), "");

    let watched = etcdctl.command(&["watch", "a", "--prefix", "--rev", "2"]).stdout(Stdio::piped()).spawn();
    let mut watched = Running(watched.expect("etcdctl runs"));
    let lines = BufReader::new(watched.0.stdout.take().expect("a pipe")).lines();
    let told: Vec<String> = lines.take(15).map(|line| line.expect("text")).collect();
    drop(watched);
    assert_eq!(told.join(" "), "PUT a 1 PUT ab 2 PUT a 3 DELETE a  DELETE ab "); // a deleted value is an empty line

    assert_eq!(etcdctl.must(&["compaction", "4"]), "compacted revision 4\n");
    let compacted = etcdctl.must_fail(&["get", "a", "--rev", "2"]);
    assert!(compacted.contains("etcdserver: mvcc: required revision has been compacted"), "{compacted}");

    assert_eq!(etcdctl.must(&["member", "list"]).lines().count(), 3);
    assert!(etcdctl.must(&["endpoint", "status"]).contains("3.5.13"));
    etcdctl.must(&["endpoint", "health"]);
    etcdctl.must(&["endpoint", "hashkv"]);
    etcdctl.must(&["alarm", "list"]);
    etcdctl.must(&["defrag"]);
    assert_eq!(etcdctl.must(&["lock", "l", "echo", "locked"]), "locked\n");
    assert_eq!(etcdctl.must(&["user", "list"]), "");
    assert!(cluster.stop_dev());
}

#[test]
fn what_is_not_offered_says_so_to_etcdctl() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    let leader = etcdctl.must(&["member", "list"]).split(',').next().expect("an id").to_owned();
    for (arguments, words) in [
        (&["member", "add", "x", "--peer-urls", "http://127.0.0.1:1"][..], "members are changed with"),
        (&["member", "remove", &leader], "members are changed with"),
        (&["member", "update", &leader, "--peer-urls", "http://127.0.0.1:1"], "members are changed with"),
        (&["member", "promote", &leader], "members are changed with"),
        (&["move-leader", &leader], "the replicas choose their primary themselves"),
    ] {
        let said = etcdctl.must_fail(arguments);
        assert!(said.contains(words), "{arguments:?}: {said}");
    }
    assert!(cluster.stop_dev());
}

#[test]
fn etcdctl_elects_locks_mirrors_and_disarms() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    assert_eq!(etcdctl.must(&["alarm", "disarm"]), "");
    let elected = etcdctl.command(&["elect", "post", "ann"]).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let mut elected = Running(elected);
    let lines = BufReader::new(elected.0.stdout.take().expect("a pipe")).lines();
    let told: Vec<String> = lines.take(2).map(|line| line.expect("text")).collect();
    assert!(told[0].starts_with("post/") && told[1] == "ann", "{told:?}");
    let listened = etcdctl.command(&["elect", "-l", "post"]).stdout(Stdio::piped()).spawn().expect("etcdctl runs");
    let mut listened = Running(listened);
    let lines = BufReader::new(listened.0.stdout.take().expect("a pipe")).lines();
    assert_eq!(lines.take(2).map(|line| line.expect("text")).last().as_deref(), Some("ann"));
    drop((elected, listened));

    etcdctl.must(&["put", "from/a", "1"]);
    let address = url.trim_start_matches("http://");
    let mirror = ["make-mirror", "--prefix", "from/", "--dest-prefix", "to/", address];
    let mut mirror = etcdctl.command(&mirror);
    let _mirror = Running(mirror.stdout(Stdio::null()).spawn().expect("etcdctl runs"));
    let mirrored = |key: &str, value: &str| {
        let until = std::time::Instant::now() + crate::common::PATIENCE;
        while etcdctl.must(&["get", key, "--print-value-only"]) != format!("{value}\n") {
            assert!(std::time::Instant::now() < until, "{key} is not mirrored");
            std::thread::sleep(Duration::from_millis(50));
        }
    };
    mirrored("to/a", "1");
    etcdctl.must(&["put", "from/b", "2"]);
    mirrored("to/b", "2");
    assert!(cluster.stop_dev());
}

/// What etcd's own clients do most, under a protocol whose replicas may lie, before and after one of them is gone.
#[test]
fn under_pbft_etcdctl_goes_on_when_one_of_four_replicas_is_killed() {
    let (mut cluster, url) = Cluster::dev_with_etcd_of("pbft", 4);
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    cluster.serves_etcdctl_through_a_kill(&etcdctl);
    assert!(cluster.stop_dev());
}

#[test]
fn what_etcdctl_wrote_survives_kill_9_of_each_replica_in_turn() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    for replica in 0..3 {
        for number in 0..10 {
            if number == 5 {
                cluster.kill(replica);
            }
            assert_eq!(etcdctl.must(&["put", &format!("k{replica}{number}"), "v"]), "OK\n");
        }
        cluster.spawn(replica);
        cluster.wait_until_ready(replica);
    }
    assert_eq!(
        etcdctl.must(&["get", "k", "--prefix", "--keys-only"]).lines().filter(|line| !line.is_empty()).count(),
        30
    );
    assert!(cluster.stop_dev());
}

/// A moment for the gateway to ask the others; less than a link takes to notice that its other end stands still.
const MOMENT: Duration = Duration::from_secs(6);

/// The gateway follows one replica's events; a replica that stands still says nothing and keeps its connections.
#[test]
fn a_watch_hears_every_put_whichever_replica_stands_still() {
    let (mut cluster, url) = Cluster::dev_with_etcd();
    let Some(etcdctl) = Etcdctl::of(&url) else { return };
    let watched = etcdctl.command(&["watch", "a", "--rev", "2"]).stdout(Stdio::piped()).spawn();
    let mut watched = Running(watched.expect("etcdctl runs"));
    let lines = BufReader::new(watched.0.stdout.take().expect("a pipe")).lines();
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let hears = |value: &str| {
        etcdctl.must(&["put", "a", value]);
        for expected in ["PUT", "a", value] {
            assert_eq!(told.recv_timeout(MOMENT).expect("it is told"), expected);
        }
    };
    hears("all run");
    for replica in 0..3 {
        let pid = cluster.pid(replica).expect("it runs");
        signal(pid, Signal::STOP);
        hears(&format!("without {replica}"));
        signal(pid, Signal::CONT);
        hears(&format!("with {replica}"));
    }
    drop(watched);
    assert!(cluster.stop_dev());
}

#[test]
fn a_gateway_alone_serves_any_cluster_and_says_what_to_do_about_a_taken_port() {
    let cluster = Cluster::serve_all(3);
    let mut command = cluster.command(&["gateway", "--listen", "127.0.0.1:0"]);
    let mut gateway = Running(command.stdout(Stdio::piped()).spawn().expect("it starts"));
    let mut line = String::new();
    BufReader::new(gateway.0.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
    let url = line.split([' ', ',']).find(|word| word.starts_with("http://")).expect("a URL").to_owned();
    if let Some(etcdctl) = Etcdctl::of(&url) {
        assert_eq!(etcdctl.must(&["put", "a", "1"]), "OK\n");
        assert_eq!(cluster.must(&["kv", "get", "a"]), "1\n");
    }
    drop(gateway);

    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let said = cluster.must_fail(&["gateway", "--listen", &address]);
    assert!(said.contains(&format!("{address} is in use by another program")) && said.contains("--listen"), "{said}");
    let said = cluster.must_fail(&["dev", "--etcd", &address]);
    assert!(said.contains("is in use by another program") && said.contains("--etcd off"), "{said}");
}

#[test]
fn a_gateway_beyond_loopback_without_certificates_is_refused() {
    let cluster = Cluster::init(1);
    let said = cluster.must_fail(&["gateway", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("needs TLS and client certificates") && said.contains("client_ca_file"), "{said}");
}
