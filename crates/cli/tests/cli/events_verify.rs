//! `quorate events verify`: what lies on disks after kill -9 proves itself, and no flipped byte goes unnamed.

use crate::common::{Cluster, feed};
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::OpNumber;
use quorate_core::sessions::Batch;
use quorate_core::wire::Wire;
use serde_json::json;
use std::fs;
use std::path::Path;

const EVENTS: usize = 200;

/// Four replicas that were killed while they held some events.
fn killed(flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::serve_all_with(flags, 4);
    let line = |number: usize| json!({ "stream": "account-1", "type": "moved", "data": { "number": number } });
    let lines: String = (0..EVENTS).map(|number| format!("{}\n", line(number))).collect();
    let appended = feed(cluster.command(&["events", "append", "--batch", "8", "--file", "-"]), lines.as_bytes());
    assert!(appended.ok, "{}", appended.stderr);
    cluster.wait_until_agreed();
    cluster.kill_all();
    cluster
}

fn verify(cluster: &Cluster, folder: &Path) -> (bool, String) {
    let outcome = cluster.run(&["events", "verify", "--dir", &folder.display().to_string()]);
    assert!(!outcome.stderr.contains("panicked"), "{}", outcome.stderr);
    (outcome.ok, String::from_utf8(outcome.stdout).expect("text") + &outcome.stderr)
}

/// Places all over what is written in a file; if there are to be many, its ends and a few in the zeros behind it, too.
fn places(bytes: &[u8], count: usize) -> Vec<usize> {
    let written: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at] != 0).collect();
    let among = if written.is_empty() { (0..bytes.len()).collect() } else { written };
    let mut places: Vec<usize> = (0..count).map(|step| among[step * among.len() / count]).collect();
    if count > 4 {
        places.extend([among[0], among[among.len() - 1], bytes.len() - 1, bytes.len() * 2 / 3]);
    }
    places.sort_unstable();
    places.dedup();
    places
}

fn proves_itself(flags: &[&str]) {
    let cluster = killed(flags);
    let (ok, said) = verify(&cluster, &cluster.folder());
    assert!(ok && said.ends_with("everything holds\n"), "{said}");
    for replica in 0..4 {
        assert!(said.contains(&format!("R{replica}: ")), "{said}");
    }

    names_every_flip(&cluster, |file| if file == "superblock" { 6 } else { 24 });
}

/// All files below a replica's `data` that hold something, by their names there.
fn files(data: &Path, below: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(data, &path));
        } else if fs::metadata(&path).expect("a file").len() > 0 {
            found.push(path.strip_prefix(data).expect("below it").display().to_string());
        }
    }
    found.sort();
    found
}

/// One bit of R1's folder is flipped, in every file and in so many places of it: verify says so, and names the file.
fn names_every_flip(cluster: &Cluster, count: impl Fn(&str) -> usize) {
    let folder = cluster.replica(1);
    let data = folder.join("data");
    let files = files(&data, &data);
    for file in &files {
        let path = data.join(file);
        let bytes = fs::read(&path).expect("a file");
        for at in places(&bytes, count(file)) {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            fs::write(&path, &bent).expect("a file");
            let (ok, said) = verify(cluster, &folder);
            let in_wal = |line: &str| file.starts_with("wal") && line.starts_with("R1: wal");
            let named = said.lines().any(|line| line.starts_with(&format!("R1: {file}")) || in_wal(line));
            assert!(!ok && (named || said.contains("error: ")), "byte {at} of {file} was flipped:\n{said}");
            assert!(fs::read(&path).expect("a file") == bent, "verify changes nothing");
        }
        fs::write(&path, &bytes).expect("a file");
    }
    assert!(verify(cluster, &folder).0);
}

#[test]
fn what_pbft_leaves_on_disks_proves_itself_and_names_every_flipped_byte() {
    proves_itself(&["--protocol", "pbft", "--events"]);
}

#[test]
fn what_reception_leaves_on_disks_proves_itself_and_names_every_flipped_byte() {
    proves_itself(&["--protocol", "reception", "--criticality", "1", "--events"]);
}

#[test]
fn requests_of_several_levels_of_criticality_meet_in_one_cluster_and_verify_counts_them() {
    let mut cluster = Cluster::serve_all_with(&["--protocol", "reception", "--events"], 4);
    let one = |level: &[&str]| {
        let mut arguments = vec!["events", "append", "--stream", "a", "--type", "x"];
        arguments.extend_from_slice(level);
        let said = cluster.must(&arguments);
        assert!(said.starts_with("a is at version "), "{said}");
    };
    for _ in 0..12 {
        one(&["--criticality", "0"]);
    }
    one(&["--criticality", "1"]);
    one(&[]);
    let refused = cluster.must_fail(&["events", "append", "--stream", "a", "--type", "x", "--criticality", "2"]);
    assert!(refused.contains("its highest is 1"), "{refused}");
    assert_eq!(cluster.must(&["events", "read", "--all", "--json"]).lines().count(), 14);
    cluster.wait_until_agreed();
    cluster.kill_all();
    let (ok, said) = verify(&cluster, &cluster.folder());
    assert!(ok && said.ends_with("everything holds\n"), "{said}");
    assert!(said.lines().any(|line| line.contains(" at level 1, ") && line.contains(" at level 0)")), "{said}");
}

#[test]
fn a_level_of_criticality_is_refused_where_nothing_is_certified() {
    let cluster = Cluster::serve_all_with(&["--protocol", "pbft", "--events"], 4);
    let refused = cluster.must_fail(&["events", "append", "--stream", "a", "--type", "x", "--criticality", "1"]);
    assert!(refused.contains("no levels of criticality"), "{refused}");
}

#[test]
fn an_event_in_the_place_of_another_is_found_though_all_checksums_are_right() {
    // Somebody with access to the disk writes the log anew, with another event in it.
    let cluster = killed(&["--protocol", "reception", "--events"]);
    let data = cluster.replica(2).join("data");
    let forged = forge(&data, b"\"number\":17", b"\"number\":71");
    assert!(forged > 0, "the event is in the log");
    let (ok, said) = verify(&cluster, &cluster.folder());
    assert!(!ok && said.contains("R2: wal: record") && said.contains("signature"), "{said}");
}

/// Writes a replica's log anew, with other words in its records, under right checksums. In how many records.
fn forge(data: &Path, from: &[u8], to: &[u8]) -> usize {
    use quorate_machines::Events;
    use quorate_store::replica::format_with;
    use quorate_store::{Class, Item, RealDisk, WalConfig, look};
    let found = look::<_, Events>(&RealDisk::open(data).expect("a folder")).expect("a replica's");
    let mut forged = 0;
    let records: Vec<_> = found
        .items
        .into_iter()
        .map(|item| {
            let Item::Found { class, mut body, .. } = item else { panic!("the log is whole") };
            while let Some(at) = body.windows(from.len()).position(|window| window == from) {
                body[at..at + to.len()].copy_from_slice(to);
                forged += 1;
            }
            let class = match class {
                Class::Entry => quorate_core::outbox::Class::Entry,
                Class::Promise => quorate_core::outbox::Class::Promise,
            };
            (class, body)
        })
        .collect();
    fs::remove_dir_all(data).expect("a folder");
    format_with(&RealDisk::open(data).expect("a folder"), &found.belongs, WalConfig::new(99), &records)
        .expect("written");
    forged
}

/// Appends events of so many bytes, one after the other: each is an entry of its own. They come in files of this many lines.
fn append(cluster: &Cluster, stream: &str, count: usize, bytes: usize) {
    let text = "x".repeat(bytes);
    let line = |number: usize| json!({ "stream": stream, "type": "grown", "data": { "number": number, "text": text } });
    let lines: String = (0..count).map(|number| format!("{}\n", line(number))).collect();
    let appended = feed(cluster.command(&["events", "append", "--batch", "1", "--file", "-"]), lines.as_bytes());
    assert!(appended.ok, "{}", appended.stderr);
}

/// Flips one bit of a file, verifies, and puts it back.
fn with_a_flip(cluster: &Cluster, folder: &Path, path: &Path, at: usize) -> (bool, String) {
    let bytes = fs::read(path).expect("a file");
    let mut bent = bytes.clone();
    bent[at] ^= 4;
    fs::write(path, &bent).expect("a file");
    let verified = verify(cluster, folder);
    fs::write(path, &bytes).expect("a file");
    verified
}

#[test]
fn a_log_that_was_cut_is_verified_from_there_on_and_what_is_not_seen_is_said() {
    // 64 MiB of entries bring a snapshot; when the log is stable beyond it, what is before goes. Events that are nearly as large
    // as they may be come through reception at their own pace, each once.
    let mut cluster = Cluster::serve_all_with(&["--protocol", "reception", "--events"], 4);
    append(&cluster, "large", 95, 875_000);
    append(&cluster, "small", 70, 10);
    cluster.wait_until_agreed();
    let last = cluster.must(&["events", "read", "--all", "--backwards", "--limit", "1"]);
    assert!(last.starts_with("165\t"), "each once: {last}");
    cluster.kill_all();
    let (ok, said) = verify(&cluster, &cluster.folder());
    assert!(ok, "{said}");
    assert!(said.contains("everything that is here holds; the logs of 4 replicas were cut: see above\n"), "{said}");
    for replica in 0..4 {
        let line = said.lines().find(|line| line.starts_with(&format!("R{replica}: not seen: entries 1 to ")));
        assert!(line.is_some_and(|line| line.contains(" events then")), "{said}");
    }

    let (folder, data) = (cluster.replica(1), cluster.replica(1).join("data"));
    let names = files(&data, &data);
    let snapshot = data.join(names.iter().find(|name| name.ends_with(".snap")).expect("a snapshot"));
    let middle = fs::metadata(&snapshot).expect("a file").len() / 2;
    let (ok, said) = with_a_flip(&cluster, &folder, &snapshot, usize::try_from(middle).expect("small"));
    assert!(!ok && said.contains("R1: snapshots/"), "{said}");
    for name in names.iter().filter(|name| name.ends_with(".seg")) {
        let (ok, said) = with_a_flip(&cluster, &folder, &data.join(name), 20_000);
        assert!(!ok && said.contains("R1: wal"), "{name}:\n{said}");
    }
    fs::remove_file(&snapshot).expect("a file");
    let (ok, said) = verify(&cluster, &folder);
    assert!(!ok && said.contains("where the log begins, is not here"), "{said}");
    put_another_state(&data, &snapshot);
    let (ok, said) = verify(&cluster, &folder);
    assert!(!ok && said.contains("it is not the state that a quorum has signed"), "{said}");
    assert!(
        said.contains("after entry") && said.contains("in another state than the one that a quorum has signed"),
        "{said}"
    );
}

/// Puts another state in the place of a snapshot, whole and with right checksums: of a store that has nothing after as many entries.
fn put_another_state(data: &Path, snapshot: &Path) {
    let name = snapshot.file_stem().and_then(|name| name.to_str()).expect("a name");
    let last = u64::from_str_radix(name, 16).expect("an entry");
    let mut executor = Executor::new(quorate_machines::Events::new());
    for op in (1..=last).map(OpNumber::new) {
        executor.run(Job::Execute { op, batch: Batch::default().encode().into() });
    }
    let Done::Saving(save) = executor.run(Job::Checkpoint(OpNumber::new(last))) else { panic!("it is saved") };
    let disk = quorate_store::RealDisk::open(data).expect("a folder");
    quorate_store::replica::Snapshots::open(&disk).expect("a folder").save(save).expect("written");
}

#[test]
fn what_cannot_be_checked_is_said() {
    let mut cluster = Cluster::serve_all_with(&["--events"], 3);
    let folder = cluster.folder().display().to_string();
    assert!(cluster.must_fail(&["events", "verify", "--dir", &folder]).contains("sign nothing"));
    let nowhere = cluster.must_fail(&["events", "verify", "--dir", "/nowhere"]);
    assert!(nowhere.contains("/nowhere") && nowhere.contains("try: "), "{nowhere}");
    cluster.stop(0);
    let kv = Cluster::init_of("pbft", 4);
    assert!(
        kv.must_fail(&["events", "verify", "--dir", &kv.folder().display().to_string()]).contains("not an event store")
    );
    let running = Cluster::serve_all_with(&["--protocol", "reception", "--events"], 4);
    let said = running.must_fail(&["events", "verify", "--dir", &running.folder().display().to_string()]);
    assert!(said.contains("while it runs"), "{said}");
    assert!(
        running
            .must_fail(&["init", "--protocol", "pbft", "--criticality", "0", "--dir", "x"])
            .contains("--criticality")
    );
}
