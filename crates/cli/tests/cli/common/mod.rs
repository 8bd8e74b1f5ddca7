//! A cluster of real processes for tests: in a temporary folder, on loopback, stopped when the test ends. Only processes
//! that a test has started, or that its own pid files name, are ever killed.

pub mod etcdctl;
pub mod import;
pub mod pages;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Long enough for anything that is waited for on a loaded machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// A cluster of processes, and how it was started.
pub struct Cluster {
    dir: TempDir,
    dev: Option<Child>,
    served: BTreeMap<usize, Child>,
    pub replicas: usize,
}

/// What a command came to.
pub struct Outcome {
    pub ok: bool,
    pub stdout: Vec<u8>,
    pub stderr: String,
}

impl Cluster {
    /// `quorate init`, and a `quorate serve` for each replica.
    pub fn serve_all(replicas: usize) -> Self {
        Self::serve_all_of("vr", replicas)
    }

    /// `quorate init` for this protocol, and a `quorate serve` for each replica.
    pub fn serve_all_of(protocol: &str, replicas: usize) -> Self {
        Self::serve_all_with(&["--protocol", protocol], replicas)
    }

    /// `quorate init` with these flags, and a `quorate serve` for each replica.
    pub fn serve_all_with(flags: &[&str], replicas: usize) -> Self {
        let mut cluster = Self::init_with(flags, replicas);
        for replica in 0..replicas {
            cluster.spawn(replica);
        }
        for replica in 0..replicas {
            cluster.wait_until_ready(replica);
        }
        cluster
    }

    /// Only the files.
    pub fn init(replicas: usize) -> Self {
        Self::init_of("vr", replicas)
    }

    /// Only the files, for this protocol.
    pub fn init_of(protocol: &str, replicas: usize) -> Self {
        Self::init_with(&["--protocol", protocol], replicas)
    }

    /// Only the files, with these flags.
    pub fn init_with(flags: &[&str], replicas: usize) -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary folder");
        let cluster = Self { dir, dev: None, served: BTreeMap::new(), replicas };
        let folder = cluster.folder();
        let (count, folder) = (replicas.to_string(), folder.display().to_string());
        let made = cluster.run(&[&["init", "--replicas", &count, "--dir", &folder], flags].concat());
        assert!(made.ok, "{}", made.stderr);
        cluster
    }

    /// `quorate dev --dir D` with the etcd API at a free port; and where that is.
    pub fn dev_with_etcd() -> (Self, String) {
        Self::dev_with_etcd_of("vr", 3)
    }

    /// The same with this protocol.
    pub fn dev_with_etcd_of(protocol: &str, replicas: usize) -> (Self, String) {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary folder");
        let mut cluster = Self { dir, dev: None, served: BTreeMap::new(), replicas };
        let said = cluster.start_dev_with(&["--etcd", "127.0.0.1:0", "--dashboard", "off", "--protocol", protocol]);
        let url =
            said.iter().find_map(|line| line.trim().strip_prefix("the etcd v3 API is at ")).expect("it says where");
        (cluster, url.to_owned())
    }

    /// A folder for a cluster of three, with nothing in it.
    pub fn made() -> Self {
        let dir = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a temporary folder");
        Self { dir, dev: None, served: BTreeMap::new(), replicas: 3 }
    }

    /// `quorate dev --dir D`, until it says that the cluster works.
    pub fn dev() -> Self {
        let mut cluster = Self::made();
        cluster.start_dev();
        cluster
    }

    /// Starts `quorate dev` in the cluster's folder; without the etcd API, whose port may be taken.
    pub fn start_dev(&mut self) {
        let _said = self.start_dev_with(&["--etcd", "off", "--dashboard", "off"]);
    }

    /// Starts `quorate dev` in the cluster's folder. What it said until it was ready.
    pub fn start_dev_with(&mut self, flags: &[&str]) -> Vec<String> {
        let mut command = self.command(&["dev", "--dir"]);
        command.arg(self.folder()).args(flags).stdout(Stdio::piped());
        let mut dev = command.spawn().expect("dev starts");
        let mut lines = BufReader::new(dev.stdout.take().expect("a pipe")).lines();
        let mut said = Vec::new();
        let ready = lines.any(|line| {
            said.push(line.expect("text"));
            said.last().is_some_and(|line| line.starts_with("Ctrl-C"))
        });
        assert!(ready, "dev ended before the cluster worked: {:?}", dev.wait());
        std::thread::spawn(move || lines.for_each(drop)); // so that dev can go on talking
        self.dev = Some(dev);
        said
    }

    /// Ctrl-C, for all that matters. How dev ended.
    pub fn stop_dev(&mut self) -> bool {
        let mut dev = self.dev.take().expect("dev runs");
        signal(dev.id(), Signal::TERM);
        dev.wait().expect("dev ends").success()
    }

    /// The process of `dev`.
    pub fn dev_pid(&self) -> u32 {
        self.dev.as_ref().expect("dev runs").id()
    }

    /// The cluster's folder.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("cluster")
    }

    /// A folder of the test's own.
    pub fn scratch(&self) -> &Path {
        self.dir.path()
    }

    /// A replica's folder.
    pub fn replica(&self, replica: usize) -> PathBuf {
        self.folder().join(format!("replica-{replica}"))
    }

    /// The command, told which cluster to use, and seeing nobody else's.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_quorate"));
        command
            .args(arguments)
            .env("QUORATE_CLUSTER", self.folder().join("cluster.toml"))
            .env("XDG_RUNTIME_DIR", self.dir.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Outcome {
        outcome(self.command(arguments).output().expect("it runs"))
    }

    /// Runs a command that must succeed, and gives its output.
    pub fn must(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert!(outcome.ok, "{arguments:?} failed:\n{}", outcome.stderr);
        String::from_utf8(outcome.stdout).expect("text")
    }

    /// Runs a command that must fail with one clear sentence: it says what and what to do, and does not panic.
    pub fn must_fail(&self, arguments: &[&str]) -> String {
        let outcome = self.run(arguments);
        assert!(!outcome.ok, "{arguments:?} should have failed");
        assert_clear(&outcome.stderr);
        outcome.stderr
    }

    /// Starts a replica; its stderr goes to `replica-N/log`.
    pub fn spawn(&mut self, replica: usize) {
        let config = self.replica(replica).join("replica.toml");
        let log = File::options().create(true).append(true).open(self.replica(replica).join("log")).expect("a log");
        let mut command = self.command(&["serve", "--config"]);
        let child = command.arg(config).stdout(Stdio::piped()).stderr(log).spawn().expect("serve starts");
        assert!(self.served.insert(replica, child).is_none(), "replica {replica} runs already");
    }

    /// Waits for a replica's `ready` line.
    pub fn wait_until_ready(&mut self, replica: usize) {
        let child = self.served.get_mut(&replica).expect("it was started");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("a pipe")).read_line(&mut line).expect("text");
        assert!(line.starts_with("ready: "), "replica {replica} is not ready:\n{}", self.log(replica));
    }

    /// Starts a replica and waits until it is ready.
    pub fn serve(&mut self, replica: usize) {
        self.spawn(replica);
        self.wait_until_ready(replica);
    }

    /// Waits until a started replica ends by itself; whether with status 0. `None` if it still runs.
    pub fn ended(&mut self, replica: usize, patience: Duration) -> Option<bool> {
        let until = Instant::now() + patience;
        let child = self.served.get_mut(&replica).expect("it was started");
        loop {
            if let Some(status) = child.try_wait().expect("a child") {
                self.served.remove(&replica);
                return Some(status.success());
            }
            if Instant::now() > until {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What a replica said on stderr.
    pub fn log(&self, replica: usize) -> String {
        String::from_utf8_lossy(&fs::read(self.replica(replica).join("log")).unwrap_or_default()).into_owned()
    }

    /// The living process that a replica's pid file names.
    pub fn pid(&self, replica: usize) -> Option<u32> {
        let path = self.replica(replica).join("pid");
        match File::open(&path).ok()?.try_lock_shared() {
            Err(TryLockError::WouldBlock) => fs::read_to_string(path).ok()?.trim().parse().ok(),
            _ => None,
        }
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self, replica: usize) {
        let pid = self.pid(replica).expect("it runs");
        signal(pid, Signal::KILL);
        self.reap(replica);
    }

    /// kill -9 of all at once.
    pub fn kill_all(&mut self) {
        let pids: Vec<_> = (0..self.replicas).filter_map(|replica| self.pid(replica)).collect();
        pids.into_iter().for_each(|pid| signal(pid, Signal::KILL));
        (0..self.replicas).for_each(|replica| self.reap(replica));
    }

    /// SIGTERM; it must end well.
    pub fn stop(&mut self, replica: usize) {
        signal(self.pid(replica).expect("it runs"), Signal::TERM);
        let well = self.ended(replica, PATIENCE);
        assert_eq!(well, Some(true), "replica {replica} did not stop:\n{}", self.log(replica));
    }

    fn reap(&mut self, replica: usize) {
        if let Some(mut child) = self.served.remove(&replica) {
            child.wait().expect("a child");
        }
        eventually("a killed replica is gone", || self.pid(replica).is_none());
    }

    /// `quorate status --json`.
    pub fn status(&self) -> Value {
        let outcome = self.run(&["status", "--json"]);
        serde_json::from_slice(&outcome.stdout).unwrap_or_else(|_| panic!("no status:\n{}", outcome.stderr))
    }

    /// A replica that says that it has this role.
    pub fn find(&self, role: &str) -> usize {
        let mut found = None;
        eventually(&format!("some replica is {role}"), || {
            let status = self.status();
            let rows = status["replicas"].as_array().cloned().unwrap_or_default();
            found = rows.iter().position(|row| row["role"] == role);
            found.is_some()
        });
        found.expect("it was found")
    }

    /// How many operations the furthest replica has applied.
    pub fn position(&self) -> u64 {
        let status = self.status();
        let rows = status["replicas"].as_array().cloned().unwrap_or_default();
        rows.iter().filter_map(|row| row["position"].as_u64()).max().unwrap_or(0)
    }

    /// Waits until all replicas report one position and one digest.
    pub fn wait_until_agreed(&self) {
        let mut last = Value::Null;
        let agreed = within(PATIENCE, || {
            last = self.status();
            assert_ne!(last["diverged"], Value::Bool(true), "replicas diverge: {last:#}");
            is_agreed(&last, self.replicas)
        });
        let logs: Vec<_> = (0..self.replicas).map(|replica| self.log(replica)).collect();
        assert!(agreed, "the replicas do not agree: {last:#}\n{}", logs.join("\n--\n"));
    }

    /// Waits until no replica is silent any more for what it has forgotten: its vote counts again. Nobody asks the group
    /// for anything meanwhile.
    pub fn wait_until_nobody_is_silent(&self) {
        let mut last = Value::Null;
        let ended = within(PATIENCE, || {
            last = self.status();
            let rows = last["replicas"].as_array().cloned().unwrap_or_default();
            let silent = |row: &Value| row["role"].as_str().is_none_or(|role| role.starts_with("silent"));
            rows.len() == self.replicas && !rows.iter().any(silent)
        });
        assert!(ended, "a replica is silent for ever: {last:#}");
    }

    /// `quorate kv export`.
    pub fn export(&self) -> Vec<u8> {
        let outcome = self.run(&["kv", "export"]);
        assert!(outcome.ok, "{}", outcome.stderr);
        outcome.stdout
    }

    /// No replica, in any of its lives, has panicked.
    pub fn assert_no_panic(&self) {
        for replica in 0..self.replicas {
            let log = self.log(replica);
            assert!(!log.contains("panicked"), "replica {replica} panicked:\n{log}");
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(mut dev) = self.dev.take() {
            signal(dev.id(), Signal::TERM);
            let _ended = dev.wait();
        }
        for child in self.served.values_mut() {
            let _dead_already = child.kill();
            let _reaped = child.wait();
        }
    }
}

/// Do all replicas answer, with one position and one digest?
pub fn is_agreed(status: &Value, replicas: usize) -> bool {
    let rows = status["replicas"].as_array().cloned().unwrap_or_default();
    let state = |row: &Value| (row["digest"].clone(), row["position"].clone(), row["lag"].clone());
    let first = rows.first().map(state).unwrap_or_default();
    rows.len() == replicas
        && first.2 == 0
        && rows.iter().all(|row| row["reachable"] == Value::Bool(true) && state(row) == first)
}

/// Is it true soon?
pub fn within(patience: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let until = Instant::now() + patience;
    loop {
        if condition() {
            return true;
        }
        if Instant::now() > until {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It must be true soon.
pub fn eventually(what: &str, condition: impl FnMut() -> bool) {
    assert!(within(PATIENCE, condition), "not within {PATIENCE:?}: {what}");
}

/// An error for people: what, and what to do; and nobody panicked.
pub fn assert_clear(stderr: &str) {
    assert!(stderr.contains("error: "), "no clear error:\n{stderr}");
    assert!(!stderr.contains("panicked"), "a panic:\n{stderr}");
}

pub fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    let _gone_already = kill_process(pid, signal);
}

pub fn outcome(output: Output) -> Outcome {
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Outcome { ok: output.status.success(), stdout: output.stdout, stderr }
}

/// Runs a child with something to read.
pub fn feed(mut command: Command, input: &[u8]) -> Outcome {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("a pipe").write_all(input).expect("it reads");
    outcome(child.wait_with_output().expect("it ends"))
}

/// Reads what a child that has ended left in its pipe.
pub fn text_of(pipe: Option<impl Read>) -> String {
    let mut text = String::new();
    pipe.expect("a pipe").read_to_string(&mut text).expect("text");
    text
}

/// Copies a folder with all that it holds.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if source.is_dir() {
            copy(&source, &target);
        } else {
            fs::copy(&source, &target).expect("a copy");
        }
    }
}
