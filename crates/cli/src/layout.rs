//! A cluster's folder: who makes the keys and files, and where everything is.
//!
//! ```text
//! D/cluster.toml  client.key          what a client needs
//! D/MADE-BY-DEV                       `dev` has made it, to play with: only here a replica can be told to lie (ADR 032)
//! D/replica-N/    replica.toml        what one replica needs; copy the folder to its machine
//!                 replica.key
//!                 replica.coin        keys for common coins, if the protocol tosses any
//!                 pid                 while it runs
//!                 log                 what it said, when `dev` started it
//!                 data/               its log and snapshots
//!                 data/NEW            it has never run: the first `serve` formats the folder and removes this file
//! D/broker/       nats.conf           the broker that `dev --broker nats` starts
//!                 pid log data/
//! ```
//! `NEW` is what tells a replica that never ran from one that has lost its disk. A folder without it and without a
//! superblock is never formatted: the old self may have promised things that only its disk knew (vr.md §2.5, case D).

use crate::brokers::Choice;
use crate::errors::{Advise, failure};
use crate::served::{Machine, Protocol};
use quorate_core::ids::{ClusterId, Epoch, ReplicaId};
use quorate_core::quorum::ByzantineQuorums;
use quorate_runtime::coin;
use quorate_runtime::config::{ClusterConfig, Limits, MEMBERS_MAX, Member, ReplicaConfig, Timing, draw_cluster_id};
use quorate_runtime::keys::KeyPair;
use std::fs;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};

const CLUSTER_FILE: &str = "cluster.toml";
const CLIENT_KEY_FILE: &str = "client.key";
const REPLICA_KEY_FILE: &str = "replica.key";
const NEW_FILE: &str = "NEW";
const PLAY_FILE: &str = "MADE-BY-DEV";
/// Ports for replicas on this machine. Below the range from which systems take the ports of outgoing connections: a client
/// that dials a stopped replica's port from within that range can end up connected to itself.
const PORTS: Range<u16> = 20_000..32_768;

/// A cluster's folder.
#[derive(Clone, Debug)]
pub struct Layout {
    dir: PathBuf,
}

/// Where one replica's things are.
#[derive(Clone, Debug)]
pub struct ReplicaFolder {
    dir: PathBuf,
}

impl Layout {
    /// The folder of a cluster that exists: `dir` holds its `cluster.toml`.
    pub fn existing(dir: &Path) -> Option<Self> {
        let layout = Self { dir: dir.to_owned() };
        layout.cluster_file().exists().then_some(layout)
    }

    /// Draws keys and writes all files of a new cluster, `cluster.toml` last: for this machine, and at this level of criticality
    /// where the protocol has levels; with this broker where its clients publish.
    ///
    /// # Errors
    /// If the folder holds anything, or cannot be written; if protocol, machine and level do not go together.
    pub fn create(
        dir: &Path,
        protocol: &str,
        machine: Machine,
        criticality: Option<u8>,
        broker: &Choice,
        addresses: &[String],
    ) -> anyhow::Result<Self> {
        check_criticality(protocol, criticality, addresses.len())?;
        let tosses = Protocol::named(protocol).is_some_and(Protocol::tosses);
        if machine != Machine::Kv && Protocol::named(protocol).is_some_and(|it| !it.has_one_order()) {
            let what = format!("{} needs one order of all its operations, and `{protocol}` has none", machine.words());
            return Err(failure(what, "choose another --protocol (hq-total has one), or leave --events out"));
        }
        let layout = Self { dir: dir.to_owned() };
        check_size(addresses.len())?;
        layout.make_empty()?;
        let cluster = draw_cluster_id()?;
        let client = KeyPair::generate()?;
        let keys = addresses.iter().map(|_| KeyPair::generate()).collect::<Result<Vec<_>, _>>()?;
        let members: Vec<Member> = (0_u8..)
            .zip(addresses.iter().zip(&keys))
            .map(|(index, (address, key))| Member {
                replica: ReplicaId::new(index),
                address: address.clone(),
                public_key: key.public(),
            })
            .collect();
        for (member, key) in members.iter().zip(&keys) {
            let config = ReplicaConfig {
                cluster,
                epoch: Epoch::ZERO,
                protocol: protocol.to_owned(),
                machine: machine.name().to_owned(),
                replica: member.replica,
                key_file: REPLICA_KEY_FILE.into(),
                data_dir: "data".into(),
                listen: member.address.clone(),
                clients: vec![client.public()],
                members: members.clone(),
                criticality,
                tentative_requests: None,
                broker: broker.url.clone(),
                limits: Limits::default(),
                timing: Timing::between(addresses),
            };
            layout.write_replica(&config, key)?;
        }
        for (replica, keys) in
            (0..).map(ReplicaId::new).zip(if tosses { coin::deal(addresses.len())? } else { Vec::new() })
        {
            coin::save(&keys, &coin::file_beside(&layout.replica(replica).dir.join(REPLICA_KEY_FILE)))?;
        }
        client.save(&layout.dir.join(CLIENT_KEY_FILE))?;
        let key_file = CLIENT_KEY_FILE.into();
        let (protocol, machine) = (protocol.to_owned(), machine.name().to_owned());
        let config = ClusterConfig {
            cluster,
            epoch: Epoch::ZERO,
            protocol,
            machine,
            key_file,
            broker: broker.url.clone(),
            broker_faults: broker.faults.clone(),
            broker_seed: 0,
            members,
        };
        if let Some(problem) = config.check().into_iter().find(|problem| !problem.is_warning()) {
            return Err(problem.into());
        }
        config.save(&layout.cluster_file())?;
        broker.write_beside(&layout)?;
        Ok(layout)
    }

    fn make_empty(&self) -> anyhow::Result<()> {
        let shown = self.dir.display();
        fs::create_dir_all(&self.dir)
            .advise(format!("cannot create the folder {shown}"), "choose a folder that you may write to")?;
        match fs::read_dir(&self.dir)?.next() {
            None => Ok(()),
            Some(_) => Err(failure(
                format!("{shown} is not empty, and nothing is overwritten"),
                "choose another folder, or move this one away",
            )),
        }
    }

    fn write_replica(&self, config: &ReplicaConfig, key: &KeyPair) -> anyhow::Result<()> {
        let folder = self.replica(config.replica);
        let data = folder.dir.join("data");
        fs::create_dir_all(&data).explain(format!("cannot create the folder {}", data.display()))?;
        key.save(&folder.dir.join(REPLICA_KEY_FILE))?;
        mark_new(&data, config.cluster, config.replica)?;
        config.save(&folder.config_file())?;
        Ok(())
    }

    /// Lets the replicas answer entries of at most so many requests tentatively (pbft). Before they are started.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn answer_tentatively(&self, replicas: usize, requests: usize) -> anyhow::Result<()> {
        for replica in (0_u8..).take(replicas).map(ReplicaId::new) {
            let file = self.replica(replica).config_file();
            let config = ReplicaConfig::load(&file)?;
            let (key_file, data_dir) = (REPLICA_KEY_FILE.into(), "data".into()); // relative, as they were written
            ReplicaConfig { tentative_requests: Some(requests), key_file, data_dir, ..config }.save(&file)?;
        }
        Ok(())
    }

    /// Says that this cluster was made to be played with.
    ///
    /// # Errors
    /// If that cannot be written.
    pub fn mark_play(&self, cluster: ClusterId) -> anyhow::Result<()> {
        let file = self.dir.join(PLAY_FILE);
        fs::write(&file, play_text(cluster)).explain(format!("cannot write {}", file.display()))
    }

    /// Was this cluster made to be played with?
    pub fn is_play(&self, cluster: ClusterId) -> bool {
        fs::read_to_string(self.dir.join(PLAY_FILE)).is_ok_and(|text| text == play_text(cluster))
    }

    /// What clients need.
    pub fn cluster_file(&self) -> PathBuf {
        self.dir.join(CLUSTER_FILE)
    }

    /// All of it.
    pub fn folder(&self) -> &Path {
        &self.dir
    }

    /// The folder of a broker of ours, if there is one.
    pub fn broker(&self) -> PathBuf {
        self.dir.join("broker")
    }

    /// One replica's folder.
    pub fn replica(&self, replica: ReplicaId) -> ReplicaFolder {
        ReplicaFolder { dir: self.dir.join(format!("replica-{}", replica.get())) }
    }
}

impl ReplicaFolder {
    /// The cluster's folder, if `config_file` is where one keeps a replica's.
    pub fn cluster_of(config_file: &Path) -> Option<Layout> {
        Layout::existing(config_file.parent()?.parent()?)
    }

    /// The replica's configuration.
    pub fn config_file(&self) -> PathBuf {
        self.dir.join("replica.toml")
    }

    /// The number of the replica's process, while it runs.
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("pid")
    }

    /// What the replica said on stderr.
    pub fn log_file(&self) -> PathBuf {
        self.dir.join("log")
    }
}

/// The pid file of the replica that `config_file` configures.
pub fn pid_file_beside(config_file: &Path) -> PathBuf {
    config_file.parent().unwrap_or(Path::new("")).join("pid")
}

fn check_size(replicas: usize) -> anyhow::Result<()> {
    if (1..=MEMBERS_MAX).contains(&replicas) {
        return Ok(());
    }
    let what = format!("a cluster of {replicas} replicas is not possible");
    Err(failure(what, format!("choose between 1 and {MEMBERS_MAX}; 3 survive one crash, 5 survive two")))
}

fn check_criticality(protocol: &str, criticality: Option<u8>, replicas: usize) -> anyhow::Result<()> {
    let Some(level) = criticality else { return Ok(()) };
    if !Protocol::named(protocol).is_some_and(Protocol::certifies_reception) {
        let what = format!("`{protocol}` certifies nothing that could be more or less critical");
        return Err(failure(what, "leave --criticality out, or choose --protocol reception"));
    }
    let faults = ByzantineQuorums::new(replicas).map_or(0, |quorums| quorums.faults());
    if usize::from(level) <= faults {
        return Ok(());
    }
    let what = format!("{replicas} replicas bear {faults} that lie, not {level}");
    Err(failure(what, "choose a lower --criticality, or 3 × it + 1 replicas"))
}

fn play_text(cluster: ClusterId) -> String {
    format!(
        "cluster {:032x}\n`quorate dev` has made this cluster, to play with. Its replicas can be told to lie, by a button of its \
         dashboard. Remove this file, and they cannot.\n",
        cluster.get()
    )
}

fn new_text(cluster: ClusterId, replica: ReplicaId) -> String {
    format!(
        "cluster {:032x}\nreplica {}\nThis replica has never run. Its first start formats this folder and removes this file.\n",
        cluster.get(),
        replica.get()
    )
}

/// Says that the replica with this data folder has never run.
///
/// # Errors
/// What the system says.
pub fn mark_new(data: &Path, cluster: ClusterId, replica: ReplicaId) -> io::Result<()> {
    fs::write(data.join(NEW_FILE), new_text(cluster, replica))
}

/// Has this very replica never run?
pub fn is_new(data: &Path, cluster: ClusterId, replica: ReplicaId) -> bool {
    fs::read_to_string(data.join(NEW_FILE)).is_ok_and(|text| text == new_text(cluster, replica))
}

/// From now on, a missing superblock means a lost disk.
///
/// # Errors
/// What the system says.
pub fn unmark_new(data: &Path) -> io::Result<()> {
    match fs::remove_file(data.join(NEW_FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => fs::File::open(data)?.sync_all(),
    }
}

/// Addresses on this machine that nobody listens on.
///
/// # Errors
/// If there are not so many.
pub fn free_addresses(count: usize) -> anyhow::Result<Vec<String>> {
    let width = PORTS.end - PORTS.start;
    let chance = RandomState::new().build_hasher().finish() % u64::from(width);
    let start = u16::try_from(chance).unwrap_or_default();
    let ports = (0..width).map(|step| PORTS.start + (start + step) % width);
    let free: Vec<_> = ports
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .map(|port| format!("{}:{port}", Ipv4Addr::LOCALHOST))
        .collect();
    if free.len() < count {
        let what = format!("no {count} free ports between {} and {} on this machine", PORTS.start, PORTS.end);
        return Err(failure(what, "stop what uses them"));
    }
    Ok(free)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_folder_is_complete_and_never_overwritten() {
        let dir = tempfile::tempdir().expect("it works");
        let addresses = free_addresses(3).expect("it works");
        let layout =
            Layout::create(dir.path(), "vr", Machine::Kv, None, &Choice::default(), &addresses).expect("it works");
        let config = ReplicaConfig::load(&layout.replica(ReplicaId::new(1)).config_file()).expect("it works");
        let key = KeyPair::load(&config.key_file).expect("it works");
        assert_eq!(config.check(key.key.public()), []);
        assert!(is_new(&config.data_dir, config.cluster, config.replica));
        assert!(!is_new(&config.data_dir, config.cluster, ReplicaId::new(2)));
        assert!(Layout::create(dir.path(), "vr", Machine::Kv, None, &Choice::default(), &addresses).is_err());
    }
}
