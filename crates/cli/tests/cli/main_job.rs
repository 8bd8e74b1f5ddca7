//! The main job, as a new user would: a cluster, real data, replicas that die in the middle, nothing lost.

use crate::common::{Cluster, eventually, text_of};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Child, Stdio};

const LINES_MIN: usize = 50_000;

/// The data set that `scripts/e2e` prepared, or one of our own.
fn data_set(cluster: &Cluster) -> PathBuf {
    if let Some(path) = std::env::var_os("QUORATE_DATASET") {
        return path.into();
    }
    let mut text = String::new();
    for index in 0..LINES_MIN + 1000 {
        let package = (index * 7919) % 1_000_003; // neither sorted nor regular
        text.push_str(&format!(
            "package-{package:07}\tnumber {index}, with a tab \t, and \\t, \\r, \\q and \\ as they are: "
        ));
        text.push_str(&"lorem ipsum dolor sit amet ".repeat(index % 9));
        text.push('\n');
    }
    let path = cluster.scratch().join("data.tsv");
    std::fs::write(&path, text).expect("a file");
    path
}

/// What an export must be: the lines in the order of their keys, the last one of each key.
fn sorted(text: &[u8]) -> Vec<u8> {
    let mut lines: BTreeMap<Vec<u8>, &[u8]> = BTreeMap::new();
    for line in text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
        let key = line.split(|byte| *byte == b'\t').next().expect("a key");
        lines.insert(key.to_vec(), line);
    }
    lines.into_values().flat_map(|line| line.iter().copied().chain([b'\n'])).collect()
}

fn start_import(cluster: &Cluster, data: &PathBuf) -> Child {
    let mut command = cluster.command(&["kv", "import", "--in-flight", "4"]);
    command.arg(data).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("import starts")
}

/// Waits until so much of the import has been applied.
fn wait_until_applied(cluster: &Cluster, import: &mut Child, operations: u64) {
    eventually("the import comes that far", || {
        if let Some(status) = import.try_wait().expect("a child") {
            panic!("the import ended before {operations} lines ({status}):\n{}", text_of(import.stderr.take()));
        }
        cluster.position() >= operations
    });
}

#[test]
fn an_import_survives_kill_9_of_the_primary_and_then_of_a_backup() {
    let mut cluster = Cluster::dev();
    let data = data_set(&cluster);
    let text = std::fs::read(&data).expect("the data set");
    let expected = sorted(&text);
    let lines = text.iter().filter(|byte| **byte == b'\n').count();
    assert!(lines >= LINES_MIN, "{lines} lines are too few");
    let part = |percent: u64| lines as u64 * percent / 100;

    let mut import = start_import(&cluster, &data);
    wait_until_applied(&cluster, &mut import, part(10));
    let primary = cluster.find("primary");
    cluster.kill(primary);
    wait_until_applied(&cluster, &mut import, part(25));
    cluster.serve(primary);
    wait_until_applied(&cluster, &mut import, part(50));
    let backup = cluster.find("backup");
    cluster.kill(backup);
    wait_until_applied(&cluster, &mut import, part(65));
    cluster.serve(backup);

    let status = import.wait().expect("a child");
    let said = text_of(import.stderr);
    assert!(status.success(), "the import failed:\n{said}");
    assert_eq!(cluster.export(), expected, "the export differs from the input");
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
    assert!(cluster.stop_dev(), "dev did not end well");
    assert!((0..3).all(|replica| cluster.pid(replica).is_none()), "replicas are left");
}

#[test]
fn dev_resumes_a_folder_and_client_commands_find_it_without_flags() {
    let mut cluster = Cluster::dev();
    let found = |cluster: &Cluster, arguments: &[&str]| {
        let mut command = cluster.command(arguments);
        command.env_remove("QUORATE_CLUSTER");
        crate::common::outcome(command.output().expect("it runs"))
    };
    assert!(found(&cluster, &["kv", "put", "greeting", "hello"]).ok);
    assert!(cluster.stop_dev());
    let lonely = found(&cluster, &["kv", "get", "greeting"]);
    assert!(!lonely.ok && lonely.stderr.contains("quorate dev"), "{}", lonely.stderr);
    cluster.start_dev();
    let hello = found(&cluster, &["kv", "get", "greeting"]);
    assert_eq!(hello.stdout, b"hello\n", "{}", hello.stderr);
    assert!(!found(&cluster, &["kv", "get", "nothing"]).ok);
}

#[test]
fn replicas_do_not_outlive_a_dev_that_is_killed() {
    let cluster = Cluster::dev();
    crate::common::signal(cluster.dev_pid(), Signal::KILL);
    eventually("all replicas end", || (0..3).all(|replica| cluster.pid(replica).is_none()));
}
