//! kill -9 of all replicas at once, under load, again and again.

use crate::common::Cluster;
use quorate_core::protocol::Consistency;
use quorate_machines::kv::{Operation, Query, Reply};
use quorate_protocols::vr::Vr;
use quorate_runtime::client::{Client, ClientOptions};
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const ROUNDS: u64 = 20;
const WRITERS: u64 = 64;

type Acknowledged = Arc<Mutex<BTreeMap<String, String>>>;

fn connect(cluster: &Path) -> Client {
    let config = ClusterConfig::load(cluster).expect("a cluster file");
    let key = KeyPair::load(&config.key_file).expect("a key").key;
    let options = ClientOptions { timeout: Duration::from_secs(30), ..ClientOptions::default() };
    Client::connect::<Vr>(&config, &key, options).expect("a client")
}

/// Writes keys of its own until it is aborted, and notes each that was acknowledged.
async fn write(client: Client, name: String, acknowledged: Acknowledged) {
    for number in 0_u64.. {
        let (key, value) = (format!("{name}/{number}"), format!("value of {name}/{number}"));
        let operation = Operation::put(key.clone(), value.clone()).encode().expect("a put");
        let Ok(answer) = client.apply(operation).await else { return };
        Reply::decode(&answer.reply).expect("a reply").result.expect("a good reply");
        acknowledged.lock().expect("a lock").insert(key, value);
    }
}

fn exported(cluster: &Cluster) -> BTreeMap<String, String> {
    let text = String::from_utf8(cluster.export()).expect("text");
    let pairs = text.lines().map(|line| line.split_once('\t').expect("a tab"));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Writes from many tasks, on a thread of its own, until told to stop.
fn start_load(cluster: &Cluster, round: u64, acknowledged: &Acknowledged) -> impl FnOnce() + use<> {
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (config, acknowledged) = (cluster.folder().join("cluster.toml"), acknowledged.clone());
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
        runtime.block_on(async {
            let client = connect(&config);
            for writer in 0..WRITERS {
                tokio::spawn(write(client.clone(), format!("{round:02}/{writer:02}"), acknowledged.clone()));
            }
            let _dropped = stopped.await;
        });
    });
    move || {
        drop(stop);
        thread.join().expect("the load ends");
    }
}

#[test]
fn kill_9_of_all_replicas_at_once_loses_nothing_that_was_acknowledged() {
    let mut cluster = Cluster::serve_all(3);
    let acknowledged = Acknowledged::default();
    for round in 0..ROUNDS {
        let before = acknowledged.lock().expect("a lock").len();
        let stop = start_load(&cluster, round, &acknowledged);
        crate::common::eventually("writes are acknowledged", || {
            acknowledged.lock().expect("a lock").len() > before + 500
        });
        std::thread::sleep(Duration::from_millis(round * 13 % 100));
        cluster.kill_all();
        stop();
        (0..3).for_each(|replica| cluster.spawn(replica));
        (0..3).for_each(|replica| cluster.wait_until_ready(replica));
        let found = exported(&cluster);
        let acknowledged = acknowledged.lock().expect("a lock");
        let lost: Vec<_> = acknowledged.iter().filter(|(key, value)| found.get(*key) != Some(*value)).collect();
        if !lost.is_empty() {
            let status = cluster.status();
            let logs: Vec<_> = (0..3).map(|replica| cluster.log(replica)).collect();
            let (count, all) = (lost.len(), acknowledged.len());
            let again = exported(&cluster);
            let still = lost.iter().filter(|(key, value)| again.get(*key) != Some(*value)).count();
            let first = lost.first();
            panic!(
                "round {round}: a linearizable export lacks {count} of {all} acknowledged writes, the next one {still}: \
                 {first:?}\n{status:#}\n{}",
                logs.join("\n--\n")
            );
        }
    }
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}

#[test]
fn a_linearizable_read_sees_the_write_before_it_after_the_primary_died() {
    let mut cluster = Cluster::serve_all(3);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("tokio");
    runtime.block_on(async {
        let client = connect(&cluster.folder().join("cluster.toml"));
        for round in 0..5_u64 {
            let operation = Operation::put("counter", round.to_string()).encode().expect("a put");
            client.apply(operation).await.expect("an answer");
            let primary = cluster.find("primary");
            cluster.kill(primary);
            let query = Query::get("counter").encode().expect("a get");
            let answer = client.read(Consistency::Linearizable, query).await.expect("an answer");
            let found = Reply::decode(&answer.reply).expect("a reply").get().expect("a get").expect("a key");
            assert_eq!(found.value, round.to_string().as_bytes());
            cluster.serve(primary);
        }
    });
    cluster.wait_until_agreed();
    cluster.assert_no_panic();
}
