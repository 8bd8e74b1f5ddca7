//! One byte flipped anywhere in one replica's folder while it is down: it repairs itself, or says what to do. Never a wrong
//! answer, never a panic.

use crate::common::{Cluster, assert_clear, copy, is_agreed, within};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A replica that was damaged is given this long to come back or to say that it cannot.
const PATIENCE: Duration = Duration::from_secs(15);

/// What became of a damaged replica.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// It runs, and its digest is that of the others.
    Joined,
    /// It ended, with a clear sentence.
    Refused,
    /// It runs, but cannot reach the others; it, or they, say why.
    Alone,
}

/// A cluster with a log, snapshots and data, where everybody is up to date; and what an export of it is.
fn cluster_with_history() -> (Cluster, Vec<u8>) {
    let cluster = Cluster::serve_all(3);
    let lines: String = (0..9000).map(|index| format!("key-{index:05}\tvalue {index}\n")).collect();
    let imported = crate::common::feed(cluster.command(&["kv", "import", "-", "--in-flight", "2"]), lines.as_bytes());
    assert!(imported.ok, "{}", imported.stderr);
    cluster.wait_until_agreed();
    (cluster, lines.into_bytes())
}

/// All files below a folder, but for those that say nothing about the replica.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            found.extend(files(&path));
        } else if !matches!(name.as_str(), "log" | "pid" | "lock") {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Offsets all over a file: its ends, and evenly between; the same each time.
fn offsets(length: u64, count: u64) -> Vec<u64> {
    let mut offsets: Vec<_> =
        (0..count).map(|step| step * length / count + (step * 37) % (length / count).max(1)).collect();
    offsets.extend([0, length.saturating_sub(1)]);
    offsets.retain(|offset| *offset < length);
    offsets.sort_unstable();
    offsets.dedup();
    offsets
}

fn flip(file: &Path, offset: u64) {
    let mut bytes = fs::read(file).expect("a file");
    bytes[usize::try_from(offset).expect("small")] ^= 1 << (offset % 8);
    fs::write(file, bytes).expect("a file");
}

/// Starts the damaged replica and sees what becomes of it.
fn fate(cluster: &mut Cluster, replica: usize) -> Fate {
    fs::remove_file(cluster.replica(replica).join("log")).expect("a log");
    cluster.spawn(replica);
    let mut ended = None;
    let joined = within(PATIENCE, || {
        ended = cluster.ended(replica, Duration::ZERO);
        ended.is_some() || {
            let status = cluster.status();
            assert_ne!(status["diverged"], serde_json::Value::Bool(true), "a wrong state: {status:#}");
            is_agreed(&status, 3)
        }
    });
    let log = cluster.log(replica);
    assert!(!log.contains("panicked"), "a panic:\n{log}");
    match ended {
        Some(well) => {
            assert!(!well, "it ended without an error:\n{log}");
            assert_clear(&log);
            Fate::Refused
        }
        None => {
            cluster.stop(replica);
            if joined { Fate::Joined } else { Fate::Alone }
        }
    }
}

/// Flips bytes all over the files that `wanted` chooses; each time from the same healthy folder.
fn flip_everywhere(wanted: impl Fn(&Path) -> bool, per_file: u64) -> Vec<(PathBuf, u64, Fate)> {
    let (mut cluster, expected) = cluster_with_history();
    let victim = cluster.find("backup");
    cluster.stop(victim);
    let folder = cluster.replica(victim);
    let healthy = cluster.scratch().join("healthy");
    copy(&folder, &healthy);
    let mut fates = Vec::new();
    for file in files(&healthy).into_iter().filter(|file| wanted(file)) {
        let name = file.strip_prefix(&healthy).expect("below").to_owned();
        for offset in offsets(fs::metadata(&file).expect("a file").len(), per_file) {
            fs::remove_dir_all(&folder).expect("a folder");
            copy(&healthy, &folder);
            flip(&folder.join(&name), offset);
            let fate = fate(&mut cluster, victim);
            println!("{} byte {offset}: {fate:?}", name.display());
            fates.push((name.clone(), offset, fate));
        }
    }
    assert_eq!(cluster.export(), expected, "the others answer wrongly");
    assert!(!fates.is_empty(), "no file was damaged");
    fates
}

#[test]
fn a_flipped_byte_in_the_log_or_a_snapshot_is_repaired_or_refused_in_words() {
    let in_data = |file: &Path| file.components().any(|part| part.as_os_str() == "data");
    let fates = flip_everywhere(in_data, 12);
    let alone: Vec<_> = fates.iter().filter(|it| it.2 == Fate::Alone).collect();
    assert!(alone.is_empty(), "these replicas neither joined nor said why: {alone:?}");
    let joined = fates.iter().filter(|it| it.2 == Fate::Joined).count();
    assert!(joined * 2 > fates.len(), "most damage should be repaired: {fates:?}");
}

#[test]
fn a_flipped_byte_in_a_configuration_or_a_key_is_no_wrong_answer() {
    flip_everywhere(|file| file.parent().is_some_and(|folder| folder.ends_with("healthy")), 12);
}

#[test]
fn a_truncated_file_is_repaired_or_refused_in_words() {
    let (mut cluster, expected) = cluster_with_history();
    let victim = cluster.find("backup");
    cluster.stop(victim);
    let folder = cluster.replica(victim);
    let healthy = cluster.scratch().join("healthy");
    copy(&folder, &healthy);
    for file in files(&healthy) {
        let name = file.strip_prefix(&healthy).expect("below").to_owned();
        let length = fs::metadata(&file).expect("a file").len();
        for keep in [0, length / 2] {
            fs::remove_dir_all(&folder).expect("a folder");
            copy(&healthy, &folder);
            fs::File::options().write(true).open(folder.join(&name)).and_then(|it| it.set_len(keep)).expect("a file");
            let fate = fate(&mut cluster, victim);
            println!("{} cut to {keep}: {fate:?}", name.display());
            assert_ne!(fate, Fate::Alone, "{} cut to {keep}", name.display());
        }
    }
    assert_eq!(cluster.export(), expected, "the others answer wrongly");
}

#[test]
fn verify_finds_a_flipped_byte_and_changes_nothing() {
    let mut cluster = Cluster::serve_all(3);
    for value in ["the first value", "another", "a third"] {
        cluster.must(&["kv", "put", "key", value]);
    }
    cluster.stop(0);
    let folder = cluster.replica(0).display().to_string();
    cluster.must(&["verify", "--dir", &folder]);
    let segment = files(&cluster.replica(0)).into_iter().find(|file| file.extension().is_some_and(|it| it == "seg"));
    let segment = segment.expect("a segment");
    let bytes = fs::read(&segment).expect("a segment");
    let value = bytes.windows(15).position(|window| window == b"the first value").expect("its record");
    flip(&segment, value as u64);
    let damaged = fs::read(&segment).expect("a segment");
    let said = cluster.run(&["verify", "--dir", &folder]);
    assert!(!said.ok, "verify saw nothing:\n{}", String::from_utf8_lossy(&said.stdout));
    assert_eq!(fs::read(&segment).expect("a segment"), damaged, "verify has written");
}
