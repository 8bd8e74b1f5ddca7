//! `quorate controller` with real processes: it keeps replicas running, rebuilds what is lost or has diverged, and is not trusted.

use crate::common::{Cluster, PATIENCE, copy, eventually, signal, text_of, within};
use rustix::process::Signal;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Stdio};

/// A controller, and the replicas that outlive it.
struct Controlled {
    cluster: Cluster,
    controller: Child,
}

impl Controlled {
    /// A cluster's files, and a controller that starts what does not run.
    fn start(flags: &[&str], replicas: usize) -> Self {
        let cluster = Cluster::init_with(flags, replicas);
        let controller = run(&cluster, &[]);
        let controlled = Self { cluster, controller };
        eventually("all replicas are active", || controlled.says("is active") >= replicas);
        controlled
    }

    /// What it has said.
    fn said(&self) -> String {
        fs::read_to_string(self.cluster.scratch().join("said")).unwrap_or_default()
    }

    /// How often it has said this.
    fn says(&self, words: &str) -> usize {
        self.said().matches(words).count()
    }

    fn wait_until_it_says(&self, words: &str) {
        assert!(within(2 * PATIENCE, || self.said().contains(words)), "it does not say `{words}`:\n{}", self.said());
    }

    /// kill -9 of the controller.
    fn kill(&mut self) {
        self.controller.kill().expect("a child");
        self.controller.wait().expect("a child");
    }
}

impl Drop for Controlled {
    fn drop(&mut self) {
        let _ended_already = self.controller.kill();
        let _reaped = self.controller.wait();
        for replica in 0..self.cluster.replicas {
            if let Some(pid) = self.cluster.pid(replica) {
                signal(pid, Signal::KILL);
            }
        }
        let _gone = within(PATIENCE, || (0..self.cluster.replicas).all(|replica| self.cluster.pid(replica).is_none()));
    }
}

fn run(cluster: &Cluster, flags: &[&str]) -> Child {
    let said = fs::File::options().create(true).append(true).open(cluster.scratch().join("said")).expect("a file");
    let mut command = cluster.command(&["controller", "--dir"]);
    command.env_remove("QUORATE_CLUSTER").arg(cluster.folder()).args(flags);
    command.stdout(said.try_clone().expect("a file")).stderr(said).spawn().expect("it starts")
}

fn kill(cluster: &Cluster, replica: usize) {
    let pid = cluster.pid(replica).expect("it runs");
    signal(pid, Signal::KILL);
    eventually("it is gone", || cluster.pid(replica) != Some(pid));
}

#[test]
fn who_is_killed_is_started_again_and_replicas_outlive_their_controller() {
    let mut controlled = Controlled::start(&[], 3);
    controlled.cluster.must(&["kv", "put", "greeting", "hello"]);
    kill(&controlled.cluster, 0);
    eventually("it runs again", || controlled.cluster.pid(0).is_some());
    controlled.cluster.wait_until_agreed();
    assert!(controlled.said().contains("replica 0 has ended"), "{}", controlled.said());

    let second = run(&controlled.cluster, &[]).wait().expect("a child");
    assert!(
        !second.success() && controlled.said().contains("looks after these replicas already"),
        "{}",
        controlled.said()
    );
    controlled.kill();
    assert_eq!(controlled.cluster.must(&["kv", "get", "greeting"]), "hello\n", "the replicas go on");
    let before: Vec<_> = (0..3).map(|replica| controlled.cluster.pid(replica)).collect();
    kill(&controlled.cluster, 2);
    controlled.controller = run(&controlled.cluster, &[]);
    eventually("it runs again", || controlled.cluster.pid(2).is_some());
    controlled.cluster.wait_until_agreed();
    assert_eq!(controlled.cluster.pid(1), before[1], "who runs is left alone");
    let folder = controlled.cluster.folder().display().to_string();
    let shown = controlled.cluster.run(&["controller", "--dir", &folder, "--show"]);
    let shown = String::from_utf8(shown.stdout).expect("text");
    assert!(shown.contains("a controller runs") && shown.contains("replica 1 active"), "{shown}");
    controlled.cluster.assert_no_panic();
}

#[test]
fn a_lost_disk_is_rebuilt() {
    let controlled = Controlled::start(&["--events"], 3);
    let append = ["events", "append", "--stream", "s", "--type", "t", "--data", "1"];
    controlled.cluster.must(&append);
    let pid = controlled.cluster.pid(1).expect("it runs");
    fs::rename(controlled.cluster.replica(1).join("data"), controlled.cluster.scratch().join("gone"))
        .expect("a folder");
    signal(pid, Signal::KILL);
    controlled.wait_until_it_says("replica 1 is rebuilt");
    controlled.cluster.must(&append);
    eventually("it runs again", || controlled.cluster.pid(1).is_some_and(|it| it != pid));
    controlled.cluster.wait_until_agreed();
    assert_eq!(controlled.cluster.must(&["events", "read", "--all"]).lines().count(), 2);
    controlled.cluster.assert_no_panic();
}

/// A cluster whose replica 2 has the folder of another life: the same keys, the same numbers, other contents. So does a machine whose
/// memory is not to be trusted, or a backup that somebody has put back.
fn diverged() -> Cluster {
    let mut cluster = Cluster::init_of("pbft", 4);
    let mut other = Cluster::init_of("pbft", 4);
    fs::remove_dir_all(other.folder()).expect("a folder");
    copy(&cluster.folder(), &other.folder());
    for (life, value) in [(&mut other, "other"), (&mut cluster, "true")] {
        (0..4).for_each(|replica| life.spawn(replica));
        (0..4).for_each(|replica| life.wait_until_ready(replica));
        for number in 0..5 {
            life.must(&["kv", "put", &format!("key-{number}"), value]);
        }
        life.wait_until_agreed();
        (0..4).for_each(|replica| life.stop(replica));
    }
    fs::remove_dir_all(cluster.replica(2).join("data")).expect("a folder");
    copy(&other.replica(2).join("data"), &cluster.replica(2).join("data"));
    cluster
}

#[test]
fn a_diverged_replica_is_fenced_kept_and_rebuilt() {
    let cluster = diverged();
    let controller = run(&cluster, &[]);
    let controlled = Controlled { cluster, controller };
    controlled.wait_until_it_says("replica 2 is fenced: it has another state");
    controlled.wait_until_it_says("replica 2 is rebuilt\n");
    eventually("it runs again", || controlled.cluster.pid(2).is_some());
    controlled.cluster.wait_until_agreed();
    assert_eq!(controlled.cluster.must(&["kv", "get", "key-3"]), "true\n");
    let entries = fs::read_dir(controlled.cluster.replica(2)).expect("a folder");
    let kept = entries.flatten().any(|it| it.file_name().to_string_lossy().starts_with("data.lost-"));
    assert!(kept, "the folder of the diverged replica is kept for whoever wants to know why");
    controlled.cluster.assert_no_panic();
}

#[test]
fn a_diverged_replica_stays_fenced_across_controllers_when_nothing_is_to_be_rebuilt() {
    let cluster = diverged();
    let controller = run(&cluster, &["--no-rebuild"]);
    let mut controlled = Controlled { cluster, controller };
    controlled.wait_until_it_says("replica 2 is fenced");
    eventually("it is stopped", || controlled.cluster.pid(2).is_none());
    controlled.kill();
    controlled.controller = run(&controlled.cluster, &["--no-rebuild"]);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(controlled.cluster.pid(2), None, "{}", controlled.said());
    let state = fs::read(controlled.cluster.folder().join("controller/state.json")).expect("a file");
    let state: Value = serde_json::from_slice(&state).expect("JSON");
    assert_eq!(state["replicas"]["2"]["state"], json!("fenced"));
    assert_eq!(controlled.cluster.must(&["kv", "get", "key-3"]), "true\n");
}

/// Everything that a controller can do, done by one that means ill: it kills whom it likes, starts replicas twice, gives up folders
/// that are good, of several replicas at a time, and while they run. What the cluster has acknowledged stays, once, in one order.
#[test]
fn a_controller_that_lies_loses_nothing() {
    const EVENTS: usize = 3_000;
    let mut cluster = Cluster::serve_all_with(&["--events", "--protocol", "pbft"], 4);
    let lines: String = (0..EVENTS)
        .map(|number| format!("{{\"stream\":\"s-{}\",\"type\":\"t\",\"data\":{number}}}\n", number % 7))
        .collect();
    let file = cluster.scratch().join("events.jsonl");
    fs::write(&file, lines).expect("a file");
    let mut append = cluster.command(&["events", "append", "--batch", "4", "--give-up-after", "120", "--file"]);
    let mut append = append.arg(&file).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let config =
        |cluster: &Cluster, replica: usize| cluster.replica(replica).join("replica.toml").display().to_string();

    for victim in [0, 2] {
        // A second process of a replica that runs, and a new folder under its feet.
        cluster.must_fail(&["serve", "--config", &config(&cluster, victim)]);
        cluster.must_fail(&["recover", "--even-if-readable", "--config", &config(&cluster, victim)]);
        // Two at a time, which is more than the cluster bears: both folders are good, and both are to be given up.
        let other = victim + 1;
        cluster.kill(victim);
        cluster.kill(other);
        for replica in [victim, other] {
            let recover = ["recover", "--even-if-readable", "--timeout", "2", "--config", &config(&cluster, replica)];
            cluster.must_fail(&recover);
        }
        cluster.serve(other);
        // One alone, for no reason: that is what `recover` is for.
        cluster.must(&["recover", "--even-if-readable", "--timeout", "60", "--config", &config(&cluster, victim)]);
        cluster.serve(victim);
        // And all at once, again and again.
        for _ in 0..2 {
            cluster.kill_all();
            (0..4).for_each(|replica| cluster.spawn(replica));
            (0..4).for_each(|replica| cluster.wait_until_ready(replica));
        }
    }
    let status = append.wait().expect("a child");
    assert!(status.success(), "{}", text_of(append.stderr));
    cluster.wait_until_agreed();
    let all = cluster.must(&["events", "read", "--all", "--json"]);
    let numbers: Vec<u64> = all
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("an object")["data"].as_u64().expect("a number"))
        .collect();
    assert!(numbers == (0..EVENTS as u64).collect::<Vec<_>>(), "events are lost, twice there, or out of order");
    cluster.assert_no_panic();
}

#[test]
fn what_cannot_be_is_refused_with_a_sentence() {
    let cluster = Cluster::init(3);
    let nothing = cluster.scratch().join("nothing").display().to_string();
    let folder = cluster.folder().display().to_string();
    assert!(cluster.must_fail(&["controller", "--dir", &nothing]).contains("no cluster"));
    assert!(cluster.must_fail(&["controller", "--dir", &folder, "--release", "9"]).contains("no replica 9"));
    assert!(cluster.must_fail(&["controller", "--dir", &folder, "--show"]).contains("no controller"));
    fs::create_dir_all(cluster.folder().join("controller")).expect("a folder");
    fs::write(cluster.folder().join("controller/state.json"), "{").expect("a file");
    assert!(cluster.must_fail(&["controller", "--dir", &folder]).contains("cannot be understood"));
}
