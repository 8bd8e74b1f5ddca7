//! Bad input: one clear sentence, a non-zero exit status, nothing lost.

use crate::common::{Cluster, assert_clear, copy, feed};
use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

/// Starts a replica that must refuse to, and gives what it said.
fn refuses(cluster: &mut Cluster, replica: usize) -> String {
    cluster.spawn(replica);
    assert_eq!(cluster.ended(replica, crate::common::PATIENCE), Some(false), "it must not start");
    let log = cluster.log(replica);
    assert_clear(&log);
    log
}

fn edit(cluster: &Cluster, replica: usize, change: impl Fn(&str) -> String) {
    let path = cluster.replica(replica).join("replica.toml");
    let text = fs::read_to_string(&path).expect("a file");
    let changed = change(&text);
    assert_ne!(text, changed, "nothing was changed");
    fs::write(&path, changed).expect("a file");
}

fn address(cluster: &Cluster, replica: usize) -> String {
    let text = fs::read_to_string(cluster.replica(replica).join("replica.toml")).expect("a file");
    let line = text.lines().find_map(|line| line.strip_prefix("listen = \"")).expect("a listen address");
    line.trim_end_matches('"').to_owned()
}

#[test]
fn malformed_toml_is_told_with_line_and_column() {
    let mut cluster = Cluster::init(3);
    edit(&cluster, 0, |text| {
        text.replace("replica = 0\nkey", "replica = zero\nkey").replacen("epoch = 0", "epoch = = 0", 1)
    });
    let said = refuses(&mut cluster, 0);
    assert!(said.contains("line ") && said.contains("column "), "{said}");
    fs::write(cluster.folder().join("cluster.toml"), "cluster = [").expect("a file");
    let said = cluster.must_fail(&["kv", "get", "a"]);
    assert!(said.contains("line 1, column "), "{said}");
}

#[test]
fn a_file_that_contradicts_itself_is_refused_with_all_its_contradictions() {
    let mut cluster = Cluster::init(3);
    edit(&cluster, 0, |text| text.replacen("heartbeat_ms = 50", "heartbeat_ms = 500", 1));
    let said = refuses(&mut cluster, 0);
    assert!(said.contains("contradicts itself") && said.contains("view_change_ms"), "{said}");
    edit(&cluster, 1, |text| text.replacen("protocol = \"vr\"", "protocol = \"paxos\"", 1));
    let said = refuses(&mut cluster, 1);
    assert!(said.contains("paxos"), "{said}");
}

#[test]
fn a_port_in_use_is_told() {
    let mut cluster = Cluster::init(3);
    let address = address(&cluster, 0);
    let _squatter = TcpListener::bind(&address).expect("a free port");
    let said = refuses(&mut cluster, 0);
    assert!(said.contains(&address), "{said}");
}

#[test]
fn the_data_folder_of_another_replica_or_cluster_is_refused() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "a", "b"]);
    cluster.kill_all();
    let (one, two) = (cluster.replica(1).join("data"), cluster.replica(2).join("data"));
    let kept = cluster.scratch().join("kept");
    fs::rename(&one, &kept).expect("a folder");
    copy(&two, &one);
    refuses(&mut cluster, 1);

    let mut other = Cluster::serve_all(3);
    other.must(&["kv", "put", "a", "other"]);
    other.kill_all();
    fs::remove_dir_all(&one).expect("a folder");
    copy(&other.replica(1).join("data"), &one);
    fs::remove_file(cluster.replica(1).join("log")).expect("a log");
    refuses(&mut cluster, 1);

    fs::remove_dir_all(&one).expect("a folder");
    fs::rename(&kept, &one).expect("a folder");
    (0..3).for_each(|replica| cluster.serve(replica));
    assert_eq!(cluster.must(&["kv", "get", "a"]), "b\n");
}

#[test]
fn a_data_folder_in_use_is_refused() {
    let mut cluster = Cluster::serve_all(3);
    let config = cluster.replica(0).join("replica.toml").display().to_string();
    let said = cluster.must_fail(&["serve", "--config", &config]);
    assert!(said.contains("running already"), "{said}");

    // The same data folder through another file, with another port and pid file.
    let copied = cluster.folder().join("replica-copied");
    fs::create_dir(&copied).expect("a folder");
    fs::copy(cluster.replica(0).join("replica.key"), copied.join("replica.key")).expect("a copy");
    let free = TcpListener::bind("127.0.0.1:0").and_then(|it| it.local_addr()).expect("a port").to_string();
    let text = fs::read_to_string(&config).expect("a file");
    let text = text
        .replacen(&format!("listen = \"{}\"", address(&cluster, 0)), &format!("listen = \"{free}\""), 1)
        .replacen("data_dir = \"data\"", "data_dir = \"../replica-0/data\"", 1);
    fs::write(copied.join("replica.toml"), text).expect("a file");
    let copied = copied.join("replica.toml").display().to_string();
    cluster.must_fail(&["serve", "--config", &copied]);
    cluster.must(&["kv", "put", "a", "b"]);
    cluster.stop(0);
}

#[test]
fn a_disk_that_takes_no_more_bytes_stops_the_replica_and_loses_nothing() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "before", "kept"]);
    cluster.stop(2);
    // A limit on the length of files, with the signal ignored, is the disk-full error that an ordinary user can make.
    let script = "trap '' XFSZ; ulimit -f 2048; exec \"$0\" serve --config \"$1\"";
    let mut command = Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_quorate")]).arg(cluster.replica(2).join("replica.toml"));
    let full = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().expect("bash");
    let lines: String = (0..20_000).map(|index| format!("key-{index:05}\t{}\n", "x".repeat(500))).collect();
    let imported = feed(cluster.command(&["kv", "import", "-"]), lines.as_bytes());
    assert!(imported.ok, "{}", imported.stderr);
    let stopped = crate::common::outcome(full.wait_with_output().expect("it ends"));
    assert!(!stopped.ok, "it must stop");
    assert_clear(&stopped.stderr);
    cluster.serve(2);
    cluster.wait_until_agreed();
    assert_eq!(cluster.must(&["kv", "get", "before"]), "kept\n");
}

#[test]
fn garbage_and_oversized_frames_on_a_port_disturb_nobody() {
    let mut cluster = Cluster::serve_all(3);
    for replica in 0..3 {
        let address = address(&cluster, replica);
        let tls_record_of_16_mib = [&[0x16, 0x03, 0x03, 0xff, 0xff][..], &vec![0; 16 << 20]].concat();
        for garbage in [b"GET / HTTP/1.1\r\n\r\n".to_vec(), vec![0xff; 100_000], tls_record_of_16_mib] {
            let mut stream = TcpStream::connect(&address).expect("it listens");
            stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
            let _closed_on_us = stream.write_all(&garbage);
            let mut answer = Vec::new();
            let _reset = stream.read_to_end(&mut answer);
            assert!(answer.len() < 1000, "garbage got an answer");
        }
    }
    cluster.must(&["kv", "put", "a", "b"]);
    cluster.wait_until_agreed();
    (0..3).for_each(|replica| cluster.stop(replica));
    cluster.assert_no_panic();
}

#[test]
fn an_unknown_key_gets_nothing_and_is_told_so_at_once() {
    let cluster = Cluster::serve_all(3);
    let stranger = Cluster::init(3);
    fs::copy(stranger.folder().join("client.key"), cluster.folder().join("stranger.key")).expect("a copy");
    let text = fs::read_to_string(cluster.folder().join("cluster.toml")).expect("a file");
    let path = cluster.folder().join("stranger.toml");
    fs::write(&path, text.replacen("client.key", "stranger.key", 1)).expect("a file");
    let start = Instant::now();
    let said = cluster.must_fail(&["kv", "get", "a", "--cluster", &path.display().to_string()]);
    assert!(said.contains("does not know our key"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(8), "it need not wait for the timeout");
}

#[test]
fn the_file_of_another_cluster_is_told_apart() {
    let cluster = Cluster::serve_all(3);
    let text = fs::read_to_string(cluster.folder().join("cluster.toml")).expect("a file");
    let line = text.lines().find(|line| line.starts_with("cluster = ")).expect("an id");
    let path = cluster.folder().join("other.toml");
    let other = text.replacen(line, "cluster = \"00000000000000000000000000000001\"", 1);
    fs::write(&path, other).expect("a file");
    let said = cluster.must_fail(&["kv", "put", "a", "b", "--cluster", &path.display().to_string()]);
    assert!(said.contains("cluster"), "{said}");
    assert!(!cluster.run(&["kv", "get", "a"]).ok, "nothing was written");
}

#[test]
fn bad_lines_are_reported_by_number_and_the_flag_decides() {
    let cluster = Cluster::serve_all(3);
    let lines = b"good\t1\nno tab\n\tno key\nbad\\escape\tx\nalso good\t2\n";
    let import = ["kv", "import", "-", "--escaped"];
    let aborted = feed(cluster.command(&import), lines);
    assert!(!aborted.ok);
    assert_clear(&aborted.stderr);
    for line in ["line 2:", "line 3:", "line 4:"] {
        assert!(aborted.stderr.contains(line), "{}", aborted.stderr);
    }
    assert_eq!(cluster.export(), b"", "abort imports nothing");
    let skipped = feed(cluster.command(&[&import[..], &["--on-bad-line", "skip"]].concat()), lines);
    assert!(skipped.ok && skipped.stderr.contains("line 3:"), "{}", skipped.stderr);
    assert_eq!(cluster.export(), b"also good\t2\ngood\t1\n");
}

#[test]
fn keys_and_values_over_the_limits_are_refused_by_name() {
    let cluster = Cluster::serve_all(3);
    let said = cluster.must_fail(&["kv", "put", &"k".repeat(5000), "v"]);
    assert!(said.contains("4096"), "{said}");
    let said = cluster.must_fail(&["kv", "put", "", "v"]);
    assert!(said.contains("key is not provided"), "{said}");
    let long = feed(cluster.command(&["kv", "put", "k", "-"]), &vec![b'v'; (1 << 20) + 1]);
    assert!(!long.ok && long.stderr.contains("1048576"), "{}", long.stderr);
    let longest = feed(cluster.command(&["kv", "put", "k", "-"]), &vec![b'v'; 1 << 20]);
    assert!(longest.ok, "{}", longest.stderr);
    let got = cluster.run(&["kv", "get", "k"]);
    assert_eq!(got.stdout.len(), (1 << 20) + 1);
}

#[test]
fn bytes_that_are_not_text_survive() {
    let cluster = Cluster::serve_all(3);
    let mut line = b"\xff\xfe\\r\r\t".to_vec();
    line.extend((0..=255_u8).filter(|byte| *byte != b'\n'));
    line.extend_from_slice(b"\\t\\n\\q\\\r\n");
    assert!(feed(cluster.command(&["kv", "import", "-"]), &line).ok);
    assert_eq!(cluster.export(), line, "raw lines are what they are");
    let escaped = cluster.run(&["kv", "export", "--escaped"]).stdout;
    assert!(feed(cluster.command(&["kv", "import", "-", "--escaped"]), &escaped).ok);
    assert_eq!(cluster.export(), line, "escaped lines are read as they are written");
}

#[test]
fn what_a_raw_line_cannot_say_stops_the_export_and_leaves_the_file_alone() {
    let cluster = Cluster::serve_all(3);
    let file = cluster.scratch().join("out.tsv");
    let path = file.display().to_string();
    cluster.must(&["kv", "put", "a", "1"]);
    cluster.must(&["kv", "put", "b/c", "two\tfields"]);
    cluster.must(&["kv", "export", &path]);
    assert_eq!(fs::read(&file).expect("a file"), b"a\t1\nb/c\ttwo\tfields\n");
    cluster.must(&["kv", "export", &path, "--prefix", "b/"]);
    assert_eq!(fs::read(&file).expect("a file"), b"b/c\ttwo\tfields\n");
    for (key, value) in [("in the key\t", "v"), ("in the key\n", "v"), ("in the value", "two\nlines")] {
        cluster.must(&["kv", "put", key, value]);
        let said = cluster.must_fail(&["kv", "export", &path]);
        assert!(said.contains(&key.escape_default().to_string()) && said.contains("--escaped"), "{said}");
        assert_eq!(fs::read(&file).expect("a file"), b"b/c\ttwo\tfields\n", "the old file is untouched");
        cluster.must(&["kv", "export", &path, "--escaped", "--prefix", "in"]);
        let written = fs::read_to_string(&file).expect("a file");
        assert_eq!(written.trim_end(), format!("{}\t{}", key.escape_default(), value.escape_default()));
        cluster.must(&["kv", "del", key]);
        cluster.must(&["kv", "export", &path, "--prefix", "b/"]);
    }
    let left: Vec<_> = fs::read_dir(cluster.scratch()).expect("a folder").flatten().map(|it| it.file_name()).collect();
    assert!(!left.iter().any(|name| name.to_string_lossy().contains("unfinished")), "{left:?}");
}

#[test]
fn a_file_that_cannot_be_imported_or_exported_is_told_in_a_sentence() {
    let cluster = Cluster::serve_all(3);
    let folder = cluster.scratch().display().to_string();
    let empty = cluster.scratch().join("empty.tsv").display().to_string();
    fs::write(&empty, "").expect("a file");
    let said = cluster.must(&["kv", "import", &empty]);
    assert!(said.contains("empty.tsv is empty"), "{said}");
    for command in [["kv", "import", &folder], ["kv", "export", &folder]] {
        let said = cluster.must_fail(&command);
        assert!(said.contains(&format!("error: {folder} is a folder")), "{said}");
    }
    let said = cluster.must_fail(&["kv", "import", "/nowhere/data.tsv"]);
    assert!(said.contains("error: there is no file /nowhere/data.tsv"), "{said}");
    let said = cluster.must_fail(&["kv", "export", "/nowhere/data.tsv"]);
    assert!(said.contains("error: cannot write /nowhere/data.tsv"), "{said}");
}

#[test]
fn without_a_majority_a_client_gets_an_honest_timeout() {
    let mut cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "put", "a", "b"]);
    cluster.kill(0);
    cluster.kill(1);
    let start = Instant::now();
    let said = cluster.must_fail(&["kv", "put", "a", "c", "--timeout", "2"]);
    let took = start.elapsed();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(6), "{took:?}");
    assert!(said.contains("did not answer within 2 s"), "{said}");
    assert!(said.contains("may have been applied") || said.contains("nothing was applied"), "{said}");
    assert!(said.contains("R0") && said.contains("R1"), "it names who is down: {said}");
    assert!(!cluster.run(&["kv", "get", "a", "--timeout", "2"]).ok, "a minority must not answer reads");
    let status = cluster.run(&["status"]);
    assert!(!status.ok && String::from_utf8_lossy(&status.stdout).contains("DOWN"), "{}", status.stderr);
    cluster.serve(0);
    cluster.serve(1);
    let value = cluster.must(&["kv", "get", "a"]);
    assert!(matches!(value.as_str(), "b\n" | "c\n"), "{value}");
}

#[test]
fn flags_that_make_no_sense_and_files_that_are_not_there_are_told() {
    let cluster = Cluster::init(3);
    let folder = cluster.folder().display().to_string();
    let said = cluster.must_fail(&["init", "--dir", &folder]);
    assert!(said.contains("not empty"), "{said}");
    let said = cluster.must_fail(&["dev", "--dir", &folder, "--etcd", "off", "--dashboard", "off", "--replicas", "5"]);
    assert!(said.contains("3 replicas"), "{said}");
    cluster.must_fail(&["serve", "--config", "/nowhere/replica.toml"]);
    cluster.must_fail(&["verify", "--dir", &folder]);
    let missing = cluster.must_fail(&["kv", "get", "a", "--cluster", "/nowhere/cluster.toml"]);
    assert!(missing.contains("/nowhere/cluster.toml"), "{missing}");
}

#[test]
fn compare_and_swap_says_what_it_found() {
    let cluster = Cluster::serve_all(3);
    cluster.must(&["kv", "cas", "leader", "--absent", "me"]);
    let said = cluster.must_fail(&["kv", "cas", "leader", "--absent", "you"]);
    assert!(said.contains("`me`"), "{said}");
    cluster.must(&["kv", "cas", "leader", "--expect", "me", "you"]);
    assert_eq!(cluster.must(&["kv", "get", "leader"]), "you\n");
    assert_eq!(cluster.must(&["kv", "range", "lead"]), "leader\tyou\n");
    cluster.must(&["kv", "del", "leader"]);
    assert!(!cluster.run(&["kv", "del", "leader"]).ok);
}

#[test]
fn a_command_whose_output_nobody_reads_ends_without_a_word() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
    command.args(["sim", "--protocol", "vr", "--seed", "7", "--trace"]).stdout(writer);
    let ended = command.stderr(std::process::Stdio::piped()).output().expect("it runs");
    assert_eq!((ended.status.code(), String::from_utf8_lossy(&ended.stderr).into_owned()), (Some(141), String::new()));
}

#[test]
fn a_campaign_begins_at_the_seed_that_is_named() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        let output = command.args(["sim", "--protocol", "naive", "--json"]).args(arguments).output().expect("it runs");
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    };
    let said = run(&["--first", "41", "--seeds", "2"]);
    assert!(said.contains("\"seeds\":2") && said.contains("--seed 41"), "{said}");
    assert!(!said.contains("--seed 1 "), "{said}");
}
