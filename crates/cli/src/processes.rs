//! Processes of ours: the pid file that a replica holds, and the replicas that `dev` and `bench` start.
//!
//! A pid file is *held*: its process keeps a lock on it, which the system releases when the process ends in whatever way.
//! So a pid that is read from a held file is the number of a living process that is ours, and a stale file names nobody.

use crate::errors::{Advise, failure};
use crate::layout::ReplicaFolder;
use quorate_core::ids::ReplicaId;
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

/// A file that this process keeps locked as long as this value lives, with something to read for others.
#[derive(Debug)]
pub struct HeldFile(File);

impl HeldFile {
    /// Takes the file for this process, and writes `text` into it. `None` if another process holds it.
    ///
    /// # Errors
    /// What the system says.
    pub fn hold(path: &Path, text: &str) -> io::Result<Option<Self>> {
        let mut file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file.set_len(0)?;
        file.write_all(text.as_bytes())?;
        Ok(Some(Self(file)))
    }

    /// What the holder wrote; `None` if nobody holds the file.
    pub fn read(path: &Path) -> Option<String> {
        let mut file = File::open(path).ok()?;
        match file.try_lock_shared() {
            Err(TryLockError::WouldBlock) => {}
            Ok(()) | Err(TryLockError::Error(_)) => return None,
        }
        let mut text = String::new();
        file.read_to_string(&mut text).ok()?;
        Some(text)
    }
}

impl Drop for HeldFile {
    fn drop(&mut self) {
        let _stale_is_harmless = self.0.set_len(0);
    }
}

/// Takes a pid file for this process.
///
/// # Errors
/// If a living process holds it, or it cannot be written.
pub fn hold_pid_file(path: &Path) -> anyhow::Result<HeldFile> {
    let shown = path.display();
    let held = HeldFile::hold(path, &format!("{}\n", std::process::id()))
        .advise(format!("cannot write the pid file {shown}"), "the replica's folder must be writable")?;
    held.ok_or_else(|| {
        let pid = HeldFile::read(path).unwrap_or_default();
        let what = format!("this replica is running already, as process {}", pid.trim());
        failure(what, format!("stop that process first; {shown} names it"))
    })
}

/// The living process that holds a pid file.
pub fn holder(path: &Path) -> Option<u32> {
    let pid: u32 = HeldFile::read(path)?.trim().parse().ok()?;
    is_quorate(pid).then_some(pid)
}

/// Guards against the moment between a new holder's lock and its number: the number of the one before may be another
/// program's by now.
fn is_quorate(pid: u32) -> bool {
    let name = |process: &str| fs::read_to_string(format!("/proc/{process}/comm"));
    match (name(&pid.to_string()), name("self")) {
        (Ok(theirs), own) => theirs.trim() == "quorate" || own.is_ok_and(|own| own == theirs), // whatever we are called
        (Err(_), own) => own.is_err(),
    }
}

/// Sends a signal to a process of ours.
///
/// # Errors
/// If there is no such process.
pub fn signal(pid: u32, signal: Signal) -> anyhow::Result<()> {
    let raw = i32::try_from(pid).ok().and_then(Pid::from_raw);
    let pid = raw.ok_or_else(|| failure(format!("{pid} is no process number"), "correct the pid file"))?;
    kill_process(pid, signal).explain(format!("cannot signal process {}", pid.as_raw_nonzero()))
}

/// A replica that this process has started.
#[derive(Debug)]
pub struct Replica {
    /// Which.
    pub id: ReplicaId,
    /// Where its files are.
    pub folder: ReplicaFolder,
    child: Child,
    /// Closing it ends the replica: it does not outlive us, however we end. What is written there it obeys.
    control: Option<ChildStdin>,
}

impl Replica {
    /// Starts `quorate serve` for a replica and waits until it says that it is ready.
    ///
    /// # Errors
    /// If it ends instead; with its last words.
    pub async fn start(id: ReplicaId, folder: ReplicaFolder) -> anyhow::Result<Self> {
        Self::start_to_lie(id, folder, None).await
    }

    /// The same for a replica that is to tell a lie, if there is one.
    ///
    /// # Errors
    /// As [`Replica::start`]; also if this cluster may not be lied to.
    pub async fn start_to_lie(id: ReplicaId, folder: ReplicaFolder, lie: Option<&str>) -> anyhow::Result<Self> {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.log_file())
            .explain(format!("cannot write {}", folder.log_file().display()))?;
        let program = std::env::current_exe().explain("cannot tell where this program is")?;
        let mut child = Command::new(program)
            .args(["serve", "--until-stdin-closes", "--config"])
            .arg(folder.config_file())
            .args(lie.map(|lie| format!("--lie={lie}")))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .process_group(0)
            .spawn()
            .explain(format!("cannot start {id}"))?;
        let control = child.stdin.take();
        let mut replica = Self { id, folder, child, control };
        replica.wait_until_ready().await?;
        Ok(replica)
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let Some(stdout) = self.child.stdout.take() else { return Ok(()) };
        let mut lines = BufReader::new(stdout).lines();
        if lines.next_line().await?.is_some() {
            return Ok(());
        }
        let status = self.child.wait().await?;
        let what = format!("{} ended before it was ready ({})", self.id, describe(status));
        let cause = anyhow::Error::msg(last_words(&self.folder));
        Err(cause).advise(what, format!("{} holds all that it said", self.folder.log_file().display()))
    }

    /// Its process, as long as nobody has waited for its end.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits until it ends.
    ///
    /// # Errors
    /// What the system says.
    pub async fn ended(&mut self) -> io::Result<ExitStatus> {
        self.child.wait().await
    }

    /// Lets it drop all messages from and to these replicas, and from and to no others.
    ///
    /// # Errors
    /// What the system says; for example that it has ended.
    pub async fn cut(&mut self, others: &[ReplicaId]) -> io::Result<()> {
        let control = self.control.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        control.write_all(Control::Cut(others.to_vec()).line().as_bytes()).await?;
        control.flush().await
    }

    /// Kills it as a crash would, and waits until it is gone.
    ///
    /// # Errors
    /// What the system says.
    pub async fn kill(&mut self) -> io::Result<()> {
        self.child.kill().await
    }

    /// Asks it to stop, and kills it if it does not in `patience`.
    ///
    /// # Errors
    /// What the system says.
    pub async fn stop(&mut self, patience: Duration) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            let _gone_already = signal(pid, Signal::TERM);
            if tokio::time::timeout(patience, self.child.wait()).await.is_err() {
                self.child.kill().await?;
            }
        }
        Ok(())
    }
}

/// What a replica obeys that comes from its stdin: a pipe that nobody has but the `dev` that started it. One that is started in
/// any other way does not read its stdin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Drop all messages from and to these replicas, and from and to no others.
    Cut(Vec<ReplicaId>),
}

impl Control {
    /// As a line.
    fn line(&self) -> String {
        let Control::Cut(others) = self;
        let numbers: String = others.iter().map(|it| format!(" {}", it.get())).collect();
        format!("cut{numbers}\n")
    }

    /// The control that a line is, if it is one.
    pub fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        match words.next()? {
            "cut" => words.map(|word| word.parse().ok().map(ReplicaId::new)).collect::<Option<_>>().map(Control::Cut),
            _ => None,
        }
    }
}

/// Ends when stdin does: how a process makes sure that those it has started end with it, however it ends itself.
pub async fn stdin_closes() {
    let mut stdin = tokio::io::stdin();
    let mut ignored = [0; 64];
    while matches!(stdin.read(&mut ignored).await, Ok(count) if count > 0) {}
}

/// The last thing that a replica said, for an error message.
pub fn last_words(folder: &ReplicaFolder) -> String {
    let log = fs::read(folder.log_file()).unwrap_or_default();
    let text = String::from_utf8_lossy(&log);
    let lines: Vec<_> = text.lines().collect();
    let start = lines.iter().rposition(|line| line.starts_with("error:"));
    let words = start.and_then(|start| lines.get(start..)).unwrap_or_default().join("\n  ");
    if words.is_empty() { "it said nothing".to_owned() } else { words }
}

/// How a process ended.
pub fn describe(status: ExitStatus) -> String {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit status {code}"),
        (None, Some(9)) => "killed by signal 9".to_owned(),
        (None, Some(signal)) => format!("ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_is_a_line_and_nothing_else_is_a_control() {
        for control in [vec![], vec![1, 2]] {
            let control = Control::Cut(control.into_iter().map(ReplicaId::new).collect());
            assert_eq!(Control::parse(&control.line()), Some(control));
        }
        for nothing in ["", "cut one", "cut 256", "lie", "cut -1"] {
            assert_eq!(Control::parse(nothing), None, "{nothing}");
        }
    }
}
