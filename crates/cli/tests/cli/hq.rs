//! HQ as processes: the same commands and the same store, four replicas one of which may go at any moment, no leader; and what a
//! store whose keys have orders of their own does not do, it refuses.

use crate::common::etcdctl::Etcdctl;
use crate::common::import::Victim::Replica;
use crate::common::{Cluster, PATIENCE, text_of, within};

impl Cluster {
    /// How much the replica that has done most has done.
    fn steps(&self) -> u64 {
        let status = self.status();
        let rows = status["replicas"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["executed"].as_u64()).max().unwrap_or(0)
    }

    /// Waits until all replicas hold the same. Each counts its own steps: these say nothing of it.
    fn wait_until_alike(&self) {
        let mut last = serde_json::Value::Null;
        let alike = within(PATIENCE, || {
            last = self.status();
            last["healthy"] == serde_json::Value::Bool(true)
        });
        let logs: Vec<_> = (0..self.replicas).map(|replica| self.log(replica)).collect();
        assert!(alike, "the replicas do not hold the same: {last:#}\n{}", logs.join("\n--\n"));
        let rows = last["replicas"].as_array().cloned().unwrap_or_default();
        assert!(rows.iter().all(|row| row["digest"] == rows[0]["digest"]), "{last:#}");
    }
}

#[test]
fn an_import_survives_kill_9_of_any_one_of_four() {
    let mut cluster = Cluster::serve_all_of("hq", 4);
    let kills = [(10, Replica(0)), (30, Replica(1)), (50, Replica(3))];
    cluster.import_under_kills((10_000, 8), &kills, Cluster::steps);
    cluster.wait_until_alike();
    let sorted = cluster.export();
    // Everybody at once: what was acknowledged is on the disks.
    cluster.kill_all();
    (0..4).for_each(|replica| cluster.serve(replica));
    assert!(cluster.export() == sorted, "what was imported is gone");
    cluster.wait_until_alike();
    cluster.assert_no_panic();
}

#[test]
fn clients_that_want_the_same_keys_at_once_get_one_order_of_each() {
    let mut cluster = Cluster::serve_all_of("hq", 4);
    let files = ["one", "two"].map(|word| {
        let file = cluster.scratch().join(word);
        let lines: String = (0..300).map(|index| format!("key-{}\t{word} {index}\n", index % 7)).collect();
        std::fs::write(&file, lines).expect("a file");
        file
    });
    let imports = files.each_ref().map(|file| cluster.import(file, 4));
    cluster.kill(2);
    std::thread::sleep(std::time::Duration::from_millis(300));
    cluster.serve(2);
    for mut import in imports {
        let status = import.wait().expect("a child");
        assert!(status.success(), "{}", text_of(import.stderr));
    }
    let found = String::from_utf8(cluster.export()).expect("text");
    assert_eq!(found.lines().count(), 7, "{found}");
    for (line, key) in found.lines().zip(0..) {
        let last = (0..300).rev().find(|index| index % 7 == key).expect("each key was written");
        let said = ["one", "two"].map(|word| format!("key-{key}\t{word} {last}"));
        assert!(
            said.contains(&line.to_owned()),
            "the last write of each import is the last but for the other's: {line}"
        );
        let written = cluster.must(&["kv", "get", "--json", &format!("key-{key}")]);
        let written: serde_json::Value = serde_json::from_str(&written).expect("an object");
        let each = (0..300).filter(|index| index % 7 == key).count() as u64;
        assert_eq!(written["version"], 2 * each, "each write was done once: {written}");
    }
    cluster.wait_until_alike();
    cluster.assert_no_panic();
}

#[test]
fn one_key_is_written_read_compared_and_deleted_and_the_rest_is_refused() {
    let cluster = Cluster::serve_all_of("hq", 4);
    cluster.must(&["kv", "put", "a", "1"]);
    assert_eq!(cluster.must(&["kv", "get", "a"]).trim(), "1");
    cluster.must(&["kv", "cas", "a", "--expect", "1", "2"]);
    let said = cluster.must_fail(&["kv", "cas", "a", "--expect", "1", "3"]);
    assert!(said.contains("its value is `2`"), "{said}");
    cluster.must(&["kv", "cas", "b", "--absent", "3"]);
    assert_eq!(cluster.must(&["kv", "range"]), "a\t2\nb\t3\n");
    cluster.must(&["kv", "del", "b"]);
    assert!(!cluster.run(&["kv", "get", "b"]).ok);
    let said = cluster.must_fail(&["kv", "del", "--prefix", "a"]);
    assert!(said.contains("touches several"), "{said}");
    let said = cluster.must_fail(&["kv", "watch"]);
    assert!(said.contains("an order of its own"), "{said}");
    let file = cluster.folder().join("cluster.toml").display().to_string();
    let said = cluster.must_fail(&["gateway", "--cluster", &file, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("one order of all keys"), "{said}");
    let other = cluster.scratch().join("other").display().to_string();
    let said = cluster.must_fail(&["init", "--protocol", "hq", "--events", "--dir", &other]);
    assert!(said.contains("an event store needs one order"), "{said}");
    cluster.assert_no_panic();
}

#[test]
fn a_lost_disk_comes_back_through_recover() {
    let mut cluster = Cluster::serve_all_of("hq", 4);
    // Under load: what is under way when it dies is granted, and perhaps executed by it alone.
    let file = cluster.scratch().join("words");
    std::fs::write(&file, (0..4_000).map(|index| format!("key-{index}\t{index}\n")).collect::<String>())
        .expect("a file");
    let mut import = cluster.import(&file, 8);
    std::thread::sleep(std::time::Duration::from_millis(300));
    cluster.lose_and_recover(2);
    assert!(import.wait().expect("a child").success(), "{}", text_of(import.stderr));
    let mut last = serde_json::Value::Null;
    let is_back = within(PATIENCE, || {
        last = cluster.status();
        let rows = last["replicas"].as_array().cloned().unwrap_or_default();
        rows.len() == 4
            && rows.iter().all(|row| row["role"].as_str().is_some_and(|role| !role.starts_with("rejoining")))
    });
    assert!(is_back, "{last:#}\n{}", cluster.log(2));
    cluster.wait_until_alike();
    let before = cluster.export();
    // Another one goes: the one that is back is needed for each write, of old keys and new ones.
    cluster.kill(1);
    cluster.must(&["kv", "put", "key-7", "anew"]);
    cluster.must(&["kv", "put", "never heard of", "1"]);
    assert_eq!(cluster.must(&["kv", "get", "key-7"]).trim(), "anew");
    assert_eq!(cluster.must(&["kv", "get", "without"]).trim(), "2");
    cluster.serve(1);
    cluster.wait_until_alike();
    cluster.must(&["kv", "put", "key-7", "7"]);
    cluster.must(&["kv", "del", "never heard of"]);
    assert!(cluster.export() == before, "what was imported is there");
    cluster.assert_no_panic();
}

/// etcd's API over HQ (ADR 029): what its clients do most, and a replica dies with kill -9 under them. Nobody mixes the orders.
#[test]
fn asked_for_etcds_api_it_takes_total_order_and_says_so() {
    let (mut cluster, url) = Cluster::dev_with_etcd_of("hq", 4);
    let file = std::fs::read_to_string(cluster.replica(0).join("replica.toml")).expect("its file");
    assert!(file.contains("protocol = \"hq-total\""), "{file}");
    if let Some(etcdctl) = Etcdctl::of(&url) {
        cluster.serves_etcdctl_through_a_kill(&etcdctl);
    }
    cluster.must(&["kv", "put", "a", "of the other client"]);
    assert_eq!(cluster.must(&["kv", "get", "a"]).trim(), "of the other client");
    assert!(cluster.stop_dev());
}

#[test]
fn no_client_and_no_folder_of_one_order_goes_with_the_other() {
    let mut cluster = Cluster::serve_all_of("hq-total", 4);
    cluster.must(&["kv", "put", "a", "1"]);
    let files = [cluster.folder().join("cluster.toml"), cluster.replica(0).join("replica.toml")];
    for file in &files {
        let text = std::fs::read_to_string(file).expect("it is there");
        std::fs::write(file, text.replace("\"hq-total\"", "\"hq\"")).expect("it can be written");
    }
    let said = cluster.must_fail(&["kv", "put", "a", "2"]);
    assert!(said.contains("this replica runs the protocol hq-total, you asked for hq"), "{said}");
    cluster.kill(0);
    let said = cluster.must_fail(&["serve", "--config", &files[1].display().to_string()]);
    assert!(said.contains("hq-total"), "{said}");
}
