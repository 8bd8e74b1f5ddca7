//! A lost disk is a named operation, never a silent reformat.

use crate::common::Cluster;
use std::fs;

fn fill(cluster: &Cluster, from: usize, count: usize) {
    let lines: String = (from..from + count).map(|index| format!("key-{index:05}\tvalue {index}\n")).collect();
    let imported = crate::common::feed(cluster.command(&["kv", "import", "-"]), lines.as_bytes());
    assert!(imported.ok, "{}", imported.stderr);
}

#[test]
fn a_replica_that_lost_its_disk_does_not_start_until_it_is_recovered() {
    let mut cluster = Cluster::serve_all(3);
    fill(&cluster, 0, 5000);
    let victim = cluster.find("backup");
    cluster.kill(victim);
    fs::remove_dir_all(cluster.replica(victim).join("data")).expect("a data folder");
    cluster.spawn(victim);
    assert_eq!(cluster.ended(victim, crate::common::PATIENCE), Some(false), "it must not start on an empty disk");
    assert!(cluster.log(victim).contains("quorate recover"), "{}", cluster.log(victim));

    let config = cluster.replica(victim).join("replica.toml").display().to_string();
    cluster.must(&["recover", "--config", &config]);
    cluster.serve(victim);
    cluster.wait_until_agreed();
    fill(&cluster, 5000, 1000);
    cluster.wait_until_agreed();

    // Its vote counts again: without another replica, the two go on, and nothing is missing.
    let other = (0..3).find(|replica| *replica != victim).expect("three replicas");
    let before = cluster.export();
    cluster.kill(other);
    fill(&cluster, 6000, 100);
    assert!(cluster.export().starts_with(&before));
    cluster.assert_no_panic();
}

#[test]
fn the_primary_can_lose_its_disk_too() {
    let mut cluster = Cluster::serve_all(3);
    fill(&cluster, 0, 2000);
    let before = cluster.export();
    let victim = cluster.find("primary");
    cluster.kill(victim);
    fs::remove_dir_all(cluster.replica(victim).join("data")).expect("a data folder");
    let config = cluster.replica(victim).join("replica.toml").display().to_string();
    cluster.must(&["recover", "--config", &config]);
    cluster.serve(victim);
    cluster.wait_until_agreed();
    assert_eq!(cluster.export(), before);
    cluster.assert_no_panic();
}

#[test]
fn recover_refuses_a_healthy_folder_and_a_running_replica() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "a", "b"]);
    let config = cluster.replica(1).join("replica.toml").display().to_string();
    let running = cluster.must_fail(&["recover", "--config", &config]);
    assert!(running.contains("running"), "{running}");
    cluster.stop(1);
    let healthy = cluster.must_fail(&["recover", "--config", &config]);
    assert!(healthy.contains("--even-if-readable"), "{healthy}");
    cluster.serve(1);
    cluster.wait_until_agreed();
}

#[test]
fn recover_needs_the_others() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "a", "b"]);
    cluster.kill_all();
    fs::remove_dir_all(cluster.replica(1).join("data")).expect("a data folder");
    let config = cluster.replica(1).join("replica.toml").display().to_string();
    cluster.must_fail(&["recover", "--config", &config, "--timeout", "2"]);
    assert!(!cluster.replica(1).join("data/superblock").exists(), "a failed recovery must leave nothing behind");
}
