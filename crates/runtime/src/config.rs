//! The two files that say who belongs to a cluster: `replica.toml` for one replica, `cluster.toml` for clients.
//!
//! Unknown fields are errors; every error names the file, the line, the column and what to do. Relative paths inside a
//! file start at that file's folder. `check` finds what a file that parses can still get wrong, a sentence for each.

mod check;

pub use check::{MEMBERS_MAX, Problem};

use crate::keys::{PublicKey, hex, random, unhex};
use quorate_core::ids::{ClusterId, Epoch, ReplicaId};
use serde::{Deserialize, Deserializer, de};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `replica.toml`: what one replica must know before it starts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplicaConfig {
    /// The cluster, 32 hexadecimal digits; drawn once, the same in every file of the cluster.
    #[serde(deserialize_with = "cluster_id")]
    pub cluster: ClusterId,
    /// The epoch that `members` describes; 0 until the first reconfiguration.
    #[serde(deserialize_with = "epoch")]
    pub epoch: Epoch,
    /// The protocol of this epoch, for example `vr`.
    pub protocol: String,
    /// The machine that is replicated, for example `kv`, which it is in files that do not say.
    #[serde(default = "default_machine")]
    pub machine: String,
    /// Which of `members` this replica is.
    #[serde(deserialize_with = "replica_id")]
    pub replica: ReplicaId,
    /// The file with this replica's private key.
    pub key_file: PathBuf,
    /// The folder of this replica's log and snapshots.
    pub data_dir: PathBuf,
    /// Where this replica listens, for replicas and clients alike; their keys tell them apart.
    pub listen: String,
    /// The keys that clients may come with.
    #[serde(default)]
    pub clients: Vec<PublicKey>,
    /// All replicas of the epoch, this one included.
    pub members: Vec<Member>,
    /// For protocols that certify who has received what: how many replicas of each publication's committee may lie (e, of
    /// `3e + 1`); the same on all replicas. Without it, as many as the cluster bears.
    #[serde(default)]
    pub criticality: Option<u8>,
    /// For `pbft`: entries of at most so many requests are executed, and answered tentatively, as soon as they are prepared.
    /// Between 0 and 1,024; without it 0: none are.
    #[serde(default)]
    pub tentative_requests: Option<usize>,
    /// For protocols whose clients publish: the broker that they publish to, `nats://host:port`. Without it, publications come
    /// over clients' links only.
    #[serde(default)]
    pub broker: Option<String>,
    /// Bounds on memory.
    #[serde(default)]
    pub limits: Limits,
    /// The protocol's patience.
    #[serde(default)]
    pub timing: Timing,
}

/// `cluster.toml`: what a client must know.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClusterConfig {
    /// The cluster, 32 hexadecimal digits.
    #[serde(deserialize_with = "cluster_id")]
    pub cluster: ClusterId,
    /// The epoch that `members` describes.
    #[serde(deserialize_with = "epoch")]
    pub epoch: Epoch,
    /// The protocol of this epoch.
    pub protocol: String,
    /// The machine that is replicated, as in [`ReplicaConfig::machine`].
    #[serde(default = "default_machine")]
    pub machine: String,
    /// The file with the client's private key.
    pub key_file: PathBuf,
    /// The broker that clients publish to, as in [`ReplicaConfig::broker`].
    #[serde(default)]
    pub broker: Option<String>,
    /// What this client makes the broker do wrong, for tests and demonstrations: see
    /// [`BrokerFaults`](crate::broker::BrokerFaults). Nothing.
    #[serde(default)]
    pub broker_faults: Option<String>,
    /// Decides when it does. 0.
    #[serde(default)]
    pub broker_seed: u64,
    /// All replicas of the epoch.
    pub members: Vec<Member>,
}

/// One replica as the others see it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Member {
    /// Its number.
    #[serde(deserialize_with = "replica_id")]
    pub replica: ReplicaId,
    /// Where it is reached, `host:port`.
    pub address: String,
    /// The key that it must prove to hold.
    pub public_key: PublicKey,
}

/// Bounds on what links may hold in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// The longest frame between replicas, and from a replica to a client, in bytes; 20 MiB. Between 64 KiB and 1 GiB.
    pub max_frame_bytes: usize,
    /// The longest frame that a client may send, in bytes; 2 MiB. `clients_max` times this is what clients together can
    /// make a replica hold in half-received frames.
    pub client_max_frame_bytes: usize,
    /// What may wait for one peer, in bytes; 64 MiB. Beyond it the newest frame is dropped.
    pub peer_outbox_max_bytes: usize,
    /// What may wait for one client, in bytes; 32 MiB. Beyond it the client is disconnected.
    pub client_outbox_max_bytes: usize,
    /// How many clients may be connected; 1024. Further ones are refused.
    pub clients_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_frame_bytes: 20 << 20,
            client_max_frame_bytes: 2 << 20,
            peer_outbox_max_bytes: 64 << 20,
            client_outbox_max_bytes: 32 << 20,
            clients_max: 1024,
        }
    }
}

/// The protocol's patience, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// How often an idle leader shows that it lives; 50.
    pub heartbeat_ms: u64,
    /// The silence after which the others replace it; 300. At least four heartbeats, or leaders change for nothing.
    pub view_change_ms: u64,
    /// For protocols that trust bounds on time: what a replica sends is processed by another within this; 40. It must cover
    /// the worst moments of network and scheduler: when it is broken, outputs wait. A LAN wants 50, a WAN 500, one machine 20.
    pub delay_bound_ms: u64,
    /// For the same protocols: the clocks of two replicas differ by less than this; 10. A WAN wants 50, one machine 5.
    pub clock_bound_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self { heartbeat_ms: 50, view_change_ms: 300, delay_bound_ms: 40, clock_bound_ms: 10 }
    }
}

impl Timing {
    /// For replicas that all run on this machine: their bounds on time are tighter than on a network.
    pub const fn on_one_machine() -> Self {
        Self { heartbeat_ms: 50, view_change_ms: 300, delay_bound_ms: 20, clock_bound_ms: 5 }
    }

    /// For replicas with these addresses.
    pub fn between<'a>(addresses: impl IntoIterator<Item = &'a String>) -> Self {
        let is_here = |address: &String| address.parse::<SocketAddr>().is_ok_and(|it| it.ip().is_loopback());
        if addresses.into_iter().all(is_here) { Self::on_one_machine() } else { Self::default() }
    }
}

/// Why a file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is not there.
    #[error("there is no file {}; `quorate init` writes one", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file could not be read or written.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// `read` or `write`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not what it should be.
    #[error(
        "{}, line {line}, column {column}: {message}; correct that line, or compare with a file that `quorate init` writes",
        path.display()
    )]
    Wrong {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1, in characters.
        column: usize,
        /// What is wrong there.
        message: String,
    },
}

impl ReplicaConfig {
    /// Reads `path`; paths inside it become relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = parse(&read(path)?, path)?;
        config.key_file = beside(path, &config.key_file);
        config.data_dir = beside(path, &config.data_dir);
        Ok(config)
    }

    /// Writes the file, with a comment at each field. Replaces one that exists.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        write(path, &self.to_text())
    }

    fn to_text(&self) -> String {
        let mut text =
            head("replica.toml: what one replica must know.", self.cluster, self.epoch, &self.protocol, &self.machine);
        comment(&mut text, "Which of the members below this replica is.");
        field(&mut text, "replica", self.replica.get());
        comment(&mut text, "This replica's private key. Relative paths start at this file's folder.");
        field(&mut text, "key_file", quoted(&self.key_file.to_string_lossy()));
        comment(&mut text, "The folder of this replica's log and snapshots.");
        field(&mut text, "data_dir", quoted(&self.data_dir.to_string_lossy()));
        comment(&mut text, "Where it listens, for replicas and clients alike; their keys tell them apart.");
        field(&mut text, "listen", quoted(&self.listen));
        comment(&mut text, "The public keys that clients may come with.");
        let keys: String = self.clients.iter().map(|key| format!("    {},\n", quoted(&key.to_string()))).collect();
        field(&mut text, "clients", if keys.is_empty() { "[]".into() } else { format!("[\n{keys}]") });
        if let Some(level) = self.criticality {
            comment(
                &mut text,
                "Of 3e + 1 replicas that certify when something was received, e may lie; the same on all replicas.",
            );
            field(&mut text, "criticality", level);
        }
        if let Some(requests) = self.tentative_requests {
            comment(
                &mut text,
                "Entries of at most so many requests are answered tentatively, before they are committed.",
            );
            field(&mut text, "tentative_requests", requests);
        }
        broker_text(&mut text, self.broker.as_deref());
        text.push_str(&self.limits.to_text());
        text.push_str(&self.timing.to_text());
        members_text(&mut text, &self.members);
        text
    }
}

impl ClusterConfig {
    /// Reads `path`; the key file's path inside it becomes relative to its folder.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = parse(&read(path)?, path)?;
        config.key_file = beside(path, &config.key_file);
        Ok(config)
    }

    /// Writes the file, with a comment at each field. Replaces one that exists.
    pub fn save(&self, path: &Path) -> Result<(), ConfigError> {
        let mut text =
            head("cluster.toml: what a client must know.", self.cluster, self.epoch, &self.protocol, &self.machine);
        comment(&mut text, "The client's private key. Relative paths start at this file's folder.");
        field(&mut text, "key_file", quoted(&self.key_file.to_string_lossy()));
        broker_text(&mut text, self.broker.as_deref());
        if let Some(faults) = &self.broker_faults {
            comment(
                &mut text,
                "What clients make the broker do wrong, to show that nothing comes of it; and which luck it has.",
            );
            field(&mut text, "broker_faults", quoted(faults));
            field(&mut text, "broker_seed", self.broker_seed);
        }
        members_text(&mut text, &self.members);
        write(path, &text)
    }
}

impl Limits {
    fn to_text(self) -> String {
        let mut text = "\n# Bounds on memory.\n[limits]\n".to_owned();
        comment(&mut text, "The longest frame between replicas, and to a client.");
        field(&mut text, "max_frame_bytes", self.max_frame_bytes);
        comment(&mut text, "The longest frame from a client.");
        field(&mut text, "client_max_frame_bytes", self.client_max_frame_bytes);
        comment(&mut text, "What may wait for one replica; beyond it the newest frame is dropped.");
        field(&mut text, "peer_outbox_max_bytes", self.peer_outbox_max_bytes);
        comment(&mut text, "What may wait for one client; beyond it the client is disconnected.");
        field(&mut text, "client_outbox_max_bytes", self.client_outbox_max_bytes);
        comment(&mut text, "How many clients may be connected.");
        field(&mut text, "clients_max", self.clients_max);
        text
    }
}

impl Timing {
    fn to_text(self) -> String {
        let mut text = "\n# The protocol's patience, in milliseconds.\n[timing]\n".to_owned();
        comment(&mut text, "How often an idle leader shows that it lives.");
        field(&mut text, "heartbeat_ms", self.heartbeat_ms);
        comment(&mut text, "The silence after which the others replace it; at least four heartbeats.");
        field(&mut text, "view_change_ms", self.view_change_ms);
        comment(
            &mut text,
            "For protocols that trust time: what a replica sends is processed by another within this. Beyond it, outputs wait.",
        );
        field(&mut text, "delay_bound_ms", self.delay_bound_ms);
        comment(&mut text, "For protocols that trust time: the clocks of two replicas differ by less than this.");
        field(&mut text, "clock_bound_ms", self.clock_bound_ms);
        text
    }
}

/// Draws the identity of a new cluster from the system's randomness.
pub fn draw_cluster_id() -> Result<ClusterId, crate::keys::KeyError> {
    random().map(|bytes| ClusterId::new(u128::from_be_bytes(bytes)))
}

fn read(path: &Path) -> Result<String, ConfigError> {
    fs::read_to_string(path).map_err(|source| match source.kind() {
        io::ErrorKind::NotFound => ConfigError::Missing { path: path.to_owned() },
        _ => ConfigError::Io { action: "read", path: path.to_owned(), source },
    })
}

fn write(path: &Path, text: &str) -> Result<(), ConfigError> {
    fs::write(path, text).map_err(|source| ConfigError::Io { action: "write", path: path.to_owned(), source })
}

fn parse<T: de::DeserializeOwned>(text: &str, path: &Path) -> Result<T, ConfigError> {
    toml::from_str(text).map_err(|error: toml::de::Error| {
        let start = error.span().map_or(0, |span| span.start);
        let before = text.get(..start).unwrap_or(text);
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|&c| c != '\n').count() + 1;
        let message = error.message().trim_end().replace('\n', ", ");
        ConfigError::Wrong { path: path.to_owned(), line, column, message }
    })
}

fn beside(file: &Path, path: &Path) -> PathBuf {
    file.parent().unwrap_or(Path::new("")).join(path)
}

fn cluster_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ClusterId, D::Error> {
    let bytes = unhex(&String::deserialize(deserializer)?).and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
    let bytes = bytes.ok_or_else(|| de::Error::custom("a cluster is 32 hexadecimal digits"))?;
    Ok(ClusterId::new(u128::from_be_bytes(bytes)))
}

fn epoch<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Epoch, D::Error> {
    u32::deserialize(deserializer).map(Epoch::new)
}

fn replica_id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<ReplicaId, D::Error> {
    u8::deserialize(deserializer).map(ReplicaId::new)
}

fn default_machine() -> String {
    "kv".to_owned()
}

fn head(title: &str, cluster: ClusterId, epoch: Epoch, protocol: &str, machine: &str) -> String {
    let mut text = format!("# {title}\n\n");
    comment(&mut text, "The cluster: drawn once, the same in every file of the cluster.");
    field(&mut text, "cluster", quoted(&hex(&cluster.get().to_be_bytes())));
    comment(&mut text, "Counts reconfigurations.");
    field(&mut text, "epoch", epoch);
    comment(&mut text, "The replication protocol of this epoch.");
    field(&mut text, "protocol", quoted(protocol));
    comment(&mut text, "The machine that is replicated; the same for ever, in every file of the cluster.");
    field(&mut text, "machine", quoted(machine));
    text
}

fn broker_text(text: &mut String, broker: Option<&str>) {
    if let Some(broker) = broker {
        comment(text, "Where clients publish; nobody trusts it. The same in all files, or missing.");
        field(text, "broker", quoted(broker));
    }
}

fn members_text(text: &mut String, members: &[Member]) {
    text.push_str("\n# All replicas: number, where it is reached, and the key that it must prove to hold.\n");
    for member in members {
        text.push_str("[[members]]\n");
        field(text, "replica", member.replica.get());
        field(text, "address", quoted(&member.address));
        field(text, "public_key", quoted(&member.public_key.to_string()));
    }
}

fn comment(text: &mut String, sentence: &str) {
    writeln!(text, "# {sentence}").expect("writing to memory does not fail");
}

fn field(text: &mut String, name: &str, value: impl std::fmt::Display) {
    writeln!(text, "{name} = {value}").expect("writing to memory does not fail");
}

fn quoted(value: &str) -> String {
    toml::Value::String(value.to_owned()).to_string()
}
