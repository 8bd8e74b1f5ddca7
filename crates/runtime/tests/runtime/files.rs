//! Key files and configuration files: what is written is read back, what is wrong gets a sentence.

use quorate_core::ids::{ClusterId, Epoch, ReplicaId};
use quorate_runtime::config::{
    ClusterConfig, ConfigError, Limits, Member, Problem, ReplicaConfig, Timing, draw_cluster_id,
};
use quorate_runtime::keys::{KeyError, KeyPair, PublicKey};
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An empty folder for one test.
fn folder(test: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("files-{test}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

fn member(replica: u8, key: PublicKey) -> Member {
    Member {
        replica: ReplicaId::new(replica),
        address: format!("127.0.0.1:{}", 7000 + u16::from(replica)),
        public_key: key,
    }
}

fn public_key(byte: u8) -> PublicKey {
    PublicKey::new([byte; 32])
}

fn replica_config() -> ReplicaConfig {
    ReplicaConfig {
        cluster: ClusterId::new(0x0123_4567_89ab_cdef),
        epoch: Epoch::new(4),
        protocol: "vr".into(),
        machine: "events".into(),
        replica: ReplicaId::new(1),
        key_file: "keys/\"odd\" name.key".into(),
        data_dir: "/var/lib/quorate".into(),
        listen: "127.0.0.1:7001".into(),
        clients: vec![public_key(8), public_key(9)],
        members: (0..3).map(|id| member(id, public_key(id))).collect(),
        criticality: Some(0),
        tentative_requests: Some(16),
        broker: Some("nats://127.0.0.1:4222".into()),
        limits: Limits { clients_max: 12, ..Limits::default() },
        timing: Timing { heartbeat_ms: 20, view_change_ms: 100, ..Timing::default() },
    }
}

#[test]
fn a_replica_file_is_read_as_it_was_written() {
    let path = folder("replica").join("replica.toml");
    let config = replica_config();
    config.save(&path).expect("written");
    let read = ReplicaConfig::load(&path).expect("read");
    let key_file = path.with_file_name("keys/\"odd\" name.key"); // relative to the file
    assert_eq!(read, ReplicaConfig { key_file, ..config });
    assert_eq!(read.data_dir, Path::new("/var/lib/quorate")); // absolute: as it is
    let text = fs::read_to_string(&path).expect("text");
    let fields = text.lines().filter(|line| line.contains(" = ")).count();
    let comments = text.lines().filter(|line| line.starts_with("# ")).count();
    assert!(comments >= fields - 3 * 3, "every field but the members' has its comment:\n{text}");
}

#[test]
fn a_replica_file_without_clients_and_tables_has_the_defaults() {
    let path = folder("defaults").join("replica.toml");
    let config = ReplicaConfig { clients: Vec::new(), ..replica_config() };
    config.save(&path).expect("written");
    let text = fs::read_to_string(&path).expect("text");
    let start = text.find("\n# Bounds").expect("limits");
    let end = text.find("\n# All replicas").expect("members");
    fs::write(&path, format!("{}{}", &text[..start], &text[end..])).expect("written");
    let read = ReplicaConfig::load(&path).expect("read");
    assert_eq!(read.limits, Limits::default());
    assert_eq!(read.timing, Timing::default());
    assert_eq!(read.clients, []);
}

#[test]
fn a_cluster_file_is_read_as_it_was_written() {
    let path = folder("cluster").join("cluster.toml");
    let config = ClusterConfig {
        cluster: draw_cluster_id().expect("randomness"),
        epoch: Epoch::ZERO,
        protocol: "vr".into(),
        machine: "events".into(),
        key_file: "client.key".into(),
        broker: Some("nats://user:secret@broker.example:4222".into()),
        broker_faults: Some("drop,tamper:300".into()),
        broker_seed: 7,
        members: (0..3).map(|id| member(id, public_key(id))).collect(),
    };
    config.save(&path).expect("written");
    let read = ClusterConfig::load(&path).expect("read");
    assert_eq!(read, ClusterConfig { key_file: path.with_file_name("client.key"), ..config });
    assert_eq!(read.check(), []);
}

#[test]
fn a_wrong_file_is_shown_with_line_and_column() {
    let path = folder("wrong").join("replica.toml");
    replica_config().save(&path).expect("written");
    let good = fs::read_to_string(&path).expect("text");
    let cases = [
        ("epoch = 4", "epoch = -4", "integer `-4`"),
        ("epoch = 4", "epok = 4", "unknown field `epok`"),
        ("epoch = 4", "epoch = ", "value"),
        ("replica = 1", "replica = 300", "300"),
        ("heartbeat_ms = 20", "heartbeat = 20", "unknown field `heartbeat`"),
        ("ed25519:0808", "ed25519:08", "a public key is `ed25519:` followed by 64 hexadecimal digits"),
        ("0123456789abcdef\"", "0123\"", "a cluster is 32 hexadecimal digits"),
    ];
    for (from, to, message) in cases {
        assert!(good.contains(from), "{from}");
        let at = good.find(from).expect("the place");
        let line = good[..at].matches('\n').count() + 1;
        fs::write(&path, good.replacen(from, to, 1)).expect("written");
        let error = ReplicaConfig::load(&path).expect_err("wrong");
        let text = error.to_string();
        assert!(text.contains(message), "{text}");
        let start = format!("{}, line {line}, column ", path.display());
        assert!(text.starts_with(&start) && text.contains("; correct that line"), "{text}");
        assert!(matches!(error, ConfigError::Wrong { column, .. } if column >= 1));
    }
    fs::write(&path, good.replacen("protocol = \"vr\"\n", "", 1)).expect("written");
    let text = ReplicaConfig::load(&path).expect_err("a field is missing").to_string();
    assert!(text.contains("missing field `protocol`"), "{text}");
}

#[test]
fn the_column_is_that_of_the_mistake() {
    let path = folder("column").join("cluster.toml");
    fs::write(&path, "cluster = \"00000000000000000000000000000001\"\nepoch = 0\nprotocol =  7\n").expect("written");
    let text = ClusterConfig::load(&path).expect_err("wrong").to_string();
    assert!(text.contains("cluster.toml, line 3, column 13: invalid type: integer `7`, expected a string"), "{text}");
}

#[test]
fn a_file_that_is_not_there_gets_a_sentence() {
    let path = folder("missing").join("replica.toml");
    let text = ReplicaConfig::load(&path).expect_err("missing").to_string();
    assert_eq!(text, format!("there is no file {}; `quorate init` writes one", path.display()));
    let text = ReplicaConfig::load(path.parent().expect("a folder")).expect_err("a folder").to_string();
    assert!(text.starts_with("cannot read "), "{text}");
}

/// What `check` says to a good file after `change`.
fn problems(change: impl Fn(&mut ReplicaConfig)) -> Vec<Problem> {
    let mut config = replica_config();
    change(&mut config);
    config.check(public_key(1))
}

#[test]
fn contradictions_between_members_are_found() {
    let replica = ReplicaId::new;
    let (own, listed, address) = (public_key(1), public_key(5), "127.0.0.1:7000".to_owned());
    assert_eq!(problems(|_| {}), []);
    assert_eq!(problems(|c| c.members.clear()), [Problem::NoMembers]);
    assert_eq!(problems(|c| c.replica = replica(7)), [Problem::NotAMember { replica: replica(7) }]);
    let other = Problem::OtherKey { replica: replica(1), own, listed };
    assert_eq!(problems(|c| c.members[1].public_key = listed), [other]);
    let same = Problem::SameReplica { replica: replica(0) };
    assert_eq!(problems(|c| c.members[2].replica = replica(0)), [same]);
    let same = Problem::SameAddress { address: address.clone() };
    assert_eq!(problems(|c| c.members[2].address.clone_from(&address)), [same]);
    let same = Problem::SameKey { key: public_key(0) };
    assert_eq!(problems(|c| c.members[2].public_key = public_key(0)), [same]);
    let both = Problem::MemberAsClient { key: public_key(0) };
    assert_eq!(problems(|c| c.clients.push(public_key(0))), [both]);
}

#[test]
fn values_out_of_range_are_found() {
    let range = |field, value, min, max| vec![Problem::OutOfRange { field, value, min, max }];
    for value in ["localhost", ":7000", "localhost:70000", ""] {
        let expected = Problem::NoAddress { field: "listen", value: value.to_owned() };
        assert_eq!(problems(|c| c.listen = value.into()), [expected]);
    }
    let small_frame = range("max_frame_bytes", 9, 1 << 16, 1 << 30);
    assert_eq!(problems(|c| c.limits.max_frame_bytes = 9), small_frame);
    let small_outbox = range("peer_outbox_max_bytes", 5, 20 << 20, u64::MAX);
    assert_eq!(problems(|c| c.limits.peer_outbox_max_bytes = 5), small_outbox);
    assert_eq!(problems(|c| c.limits.clients_max = 0), range("clients_max", 0, 1, 65_536));
    let impatient = range("view_change_ms", 50, 80, 3_600_000);
    assert_eq!(problems(|c| c.timing.view_change_ms = 50), impatient);
}

#[test]
fn an_even_number_of_replicas_is_a_warning_where_it_buys_nothing() {
    let even = problems(|c| c.members.truncate(2));
    assert_eq!(even, [Problem::EvenCount { count: 2 }]);
    assert!(even[0].is_warning());
    assert_eq!(even[0].to_string(), "2 members tolerate no more crashes than 1 would; an odd number is cheaper");
    let byzantine = |c: &mut ReplicaConfig| {
        c.protocol = "pbft".into();
        c.members.push(member(3, public_key(3)));
    };
    assert_eq!(problems(byzantine), [], "3f+1 is even for odd f");
}

#[test]
fn a_key_file_is_read_as_it_was_written_and_is_its_owners_alone() {
    let path = folder("key").join("replica.key");
    let key = KeyPair::generate().expect("a key");
    key.save(&path).expect("written");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o600);
    let loaded = KeyPair::load(&path).expect("read");
    assert_eq!(loaded.key.public(), key.public());
    assert_eq!(loaded.warning, None);
    assert_eq!(key.public().to_string().parse(), Ok(key.public()));
    assert!(matches!(key.save(&path), Err(KeyError::Exists { .. })), "an identity is never overwritten");

    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("changed");
    let warning = KeyPair::load(&path).expect("read").warning.expect("a warning");
    let p = path.display();
    let expected = format!("{p} can be read or changed by others than its owner (mode 644); run `chmod 600 {p}`");
    assert_eq!(warning, expected);
}

#[test]
fn a_key_file_that_is_none_gets_a_sentence() {
    let folder = folder("bad-key");
    let path = folder.join("replica.key");
    let text = KeyPair::load(&path).expect_err("missing").to_string();
    assert_eq!(
        text,
        format!("there is no key file {}; `quorate init` writes one, or correct `key_file`", path.display())
    );

    let good = folder.join("good.key");
    KeyPair::generate().expect("a key").save(&good).expect("written");
    let good = fs::read_to_string(&good).expect("text");
    let digits = good.lines().last().expect("digits");
    let at = digits.len() - 1;
    let flipped = if digits.ends_with('0') { "1" } else { "0" };
    let cases: [(Vec<u8>, &str); 6] = [
        (b"".to_vec(), "the digits are no Ed25519 key"),
        (b"-----BEGIN".to_vec(), "hexadecimal digits only"),
        (digits[..at].into(), "hexadecimal digits only"), // an odd number of them
        (format!("{}{flipped}", &digits[..at]).into(), "were damaged"),
        (vec![0xff, 0xfe], "it is not text"),
        (vec![b'0'; 20_000], "it is longer than any key"),
    ];
    for (content, expected) in cases {
        fs::write(&path, content).expect("written");
        let text = KeyPair::load(&path).expect_err("malformed").to_string();
        assert!(text.starts_with(&format!("{} is not a key file: ", path.display())), "{text}");
        assert!(text.contains(expected), "{text}");
    }
    for wrong in ["", "ed25519:", "ed25519:00", &"0".repeat(64), &format!("ed25519:{}é", "0".repeat(62))] {
        assert!(wrong.parse::<PublicKey>().is_err(), "{wrong}");
    }
}
