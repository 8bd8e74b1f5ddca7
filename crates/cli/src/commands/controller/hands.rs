//! What the controller does: processes are started and stopped, folders rebuilt. All of it is what a person would do by hand, with
//! the same commands.

use super::policy::Process;
use crate::errors::{Advise, failure};
use crate::layout::{is_new, pid_file_beside};
use crate::processes::{holder, signal};
use quorate_runtime::config::ReplicaConfig;
use quorate_store::{RealDisk, peek_superblock};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

/// How long a replica may take to stop before it is killed.
const STOP_PATIENCE: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone.
const KILL_PATIENCE: Duration = Duration::from_secs(5);
/// How long a rebuilding may take: the others commit some thousands of entries, one after the other.
const REBUILD_PATIENCE: Duration = Duration::from_secs(600);

/// What a rebuilding came to.
type Rebuilt = Result<(), String>;

/// The replicas of this machine.
#[derive(Debug)]
pub struct Hands {
    cluster: PathBuf,
    replicas: BTreeMap<u8, Held>,
}

#[derive(Debug)]
struct Held {
    file: PathBuf,
    config: ReplicaConfig,
    /// The process that was started here, until it has ended.
    child: Option<Child>,
    rebuilding: Option<JoinHandle<Rebuilt>>,
}

impl Hands {
    /// None yet.
    pub fn new(cluster: PathBuf) -> Self {
        Self { cluster, replicas: BTreeMap::new() }
    }

    /// Looks after one more.
    pub fn take(&mut self, file: PathBuf, config: ReplicaConfig) {
        self.replicas.insert(config.replica.get(), Held { file, config, child: None, rebuilding: None });
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.replicas.len()
    }

    /// How the process of a replica is, whoever started it.
    pub fn process(&mut self, replica: u8) -> Process {
        let Some(held) = self.replicas.get_mut(&replica) else { return Process::Elsewhere };
        if let Some(child) = &mut held.child {
            match child.try_wait() {
                Ok(None) => return Process::Running,
                Ok(Some(_)) | Err(_) => held.child = None,
            }
        }
        match holder(&pid_file_beside(&held.file)) {
            Some(_) if held.rebuilding.is_none() => Process::Running,
            _ => Process::Gone,
        }
    }

    /// Is there neither a readable replica nor a new one in its folder?
    pub fn is_lost(&self, replica: u8) -> bool {
        let Some(held) = self.replicas.get(&replica) else { return false };
        let config = &held.config;
        if held.rebuilding.is_some() || is_new(&config.data_dir, config.cluster, config.replica) {
            return false;
        }
        let readable = |disk: RealDisk| peek_superblock(&disk).is_ok();
        !(config.data_dir.is_dir() && RealDisk::open(&config.data_dir).is_ok_and(readable))
    }

    /// Starts a replica. It goes on when the controller ends.
    pub fn start(&mut self, replica: u8) -> anyhow::Result<()> {
        let held = self.held(replica)?;
        let log = held.log()?;
        let child = Command::new(std::env::current_exe()?)
            .args(["serve", "--config"])
            .arg(&held.file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .explain(format!("replica {replica} cannot be started"))?;
        held.child = Some(child);
        Ok(())
    }

    /// Stops a replica, whoever started it, and kills it if it does not stop.
    pub async fn stop(&mut self, replica: u8) -> anyhow::Result<()> {
        let held = self.held(replica)?;
        let file = pid_file_beside(&held.file);
        for (how, patience) in [(Signal::TERM, STOP_PATIENCE), (Signal::KILL, KILL_PATIENCE)] {
            let ours = held.child.as_ref().and_then(Child::id);
            let Some(pid) = holder(&file).or(ours) else { break };
            let _gone_already = signal(pid, how);
            let until = Instant::now() + patience;
            while Instant::now() < until {
                if let Some(child) = &mut held.child
                    && !matches!(child.try_wait(), Ok(None))
                {
                    held.child = None;
                }
                if held.child.is_none() && holder(&file).is_none() {
                    return Ok(());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        match holder(&file) {
            None => Ok(()),
            Some(pid) => {
                Err(failure(format!("process {pid} of replica {replica} does not end"), "look at the machine"))
            }
        }
    }

    /// Begins to make a new folder for a replica, as for a lost disk: `quorate recover`, which refuses what is not safe. What is left of
    /// the old folder is kept beside it.
    pub fn rebuild(&mut self, replica: u8, diverged: bool) -> anyhow::Result<()> {
        let cluster = self.cluster.clone();
        let held = self.held(replica)?;
        let log = held.log()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("recover").arg("--config").arg(&held.file).arg("--cluster").arg(cluster);
        if diverged {
            command.arg("--even-if-readable");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(Stdio::piped()).kill_on_drop(true);
        let child = command.spawn().explain(format!("replica {replica} cannot be rebuilt"))?;
        held.rebuilding = Some(tokio::spawn(async move {
            let ended = tokio::time::timeout(REBUILD_PATIENCE, child.wait_with_output()).await;
            match ended {
                Err(_) => Err(format!("it took more than {} s", REBUILD_PATIENCE.as_secs())),
                Ok(Err(error)) => Err(error.to_string()),
                Ok(Ok(output)) if output.status.success() => Ok(()),
                Ok(Ok(output)) => {
                    let words = String::from_utf8_lossy(&output.stderr);
                    let first =
                        words.lines().find_map(|line| line.strip_prefix("error: ")).unwrap_or("no reason given");
                    Err(first.to_owned())
                }
            }
        }));
        Ok(())
    }

    /// Rebuildings that have ended since this was asked.
    pub async fn rebuilt(&mut self) -> Vec<(u8, Rebuilt)> {
        let mut ended = Vec::new();
        for (replica, held) in &mut self.replicas {
            if let Some(task) = held.rebuilding.take_if(|task| task.is_finished()) {
                ended.push((*replica, task.await.unwrap_or_else(|error| Err(error.to_string()))));
            }
        }
        ended
    }

    fn held(&mut self, replica: u8) -> anyhow::Result<&mut Held> {
        let what = || failure(format!("replica {replica} is on another machine"), "run a controller there");
        self.replicas.get_mut(&replica).ok_or_else(what)
    }
}

impl Held {
    /// Where the replica says what happens, as under `dev`.
    fn log(&self) -> anyhow::Result<File> {
        let path = self.file.with_file_name("log");
        let opened = OpenOptions::new().create(true).append(true).open(&path);
        opened.explain(format!("cannot write {}", path.display()))
    }
}
