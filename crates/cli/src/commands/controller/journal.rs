//! What the controller has seen and done, for people and for its next run.
//!
//! `state.json` is replaced as a whole: how each replica is. `journal.jsonl` gets a line for everything that happens, one object each;
//! beyond a bound it is moved to `journal.old.jsonl`, which is then forgotten.

use super::policy::{Kept, State};
use crate::errors::{Advise, failure};
use crate::processes::HeldFile;
use quorate::WallTime;
use quorate::events::replace_file;
use quorate_server::events::line::rfc3339;
use serde_json::{Value, json};
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::SystemTime;

/// Bytes of a journal; then a new one is begun.
const JOURNAL_BYTES_MAX: u64 = 8 << 20;
/// Lines of the journal that are shown.
const SHOWN_LINES: usize = 20;

const STATE_FILE: &str = "state.json";
const JOURNAL_FILE: &str = "journal.jsonl";
const OLD_JOURNAL_FILE: &str = "journal.old.jsonl";
const PID_FILE: &str = "pid";

/// What is kept in a folder.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
    file: File,
    /// What `state.json` holds.
    last: Vec<u8>,
    /// Nobody else looks after these replicas.
    _alone: HeldFile,
}

impl Journal {
    /// Opens or makes it.
    ///
    /// # Errors
    /// If another controller holds it, or it cannot be written.
    pub fn open(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        fs::create_dir_all(folder).advise(format!("cannot create {shown}"), "name another place with --state")?;
        let held = HeldFile::hold(&folder.join(PID_FILE), &format!("{}\n", std::process::id()))
            .explain(format!("cannot write to {shown}"))?;
        let alone = held.ok_or_else(|| {
            let pid = HeldFile::read(&folder.join(PID_FILE)).unwrap_or_default();
            let what = format!("a controller looks after these replicas already, as process {}", pid.trim());
            failure(what, "stop it first")
        })?;
        let file = append_to(&folder.join(JOURNAL_FILE))?;
        Ok(Self { folder: folder.to_owned(), file, last: Vec::new(), _alone: alone })
    }

    /// What an earlier run has kept.
    ///
    /// # Errors
    /// If it cannot be read: who was fenced would be started.
    pub fn kept(&self) -> anyhow::Result<Kept> {
        read(&self.folder)
    }

    /// Keeps how the replicas are.
    ///
    /// # Errors
    /// What the system says.
    pub fn keep(&mut self, kept: &Kept) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(kept)?;
        if text != self.last {
            let path = self.folder.join(STATE_FILE);
            replace_file(&path, &text).explain(format!("cannot write {}", path.display()))?;
            self.last = text;
        }
        Ok(())
    }

    /// Something happened to a replica: a line on stdout and one in the journal.
    ///
    /// # Errors
    /// What the system says.
    pub fn say(&mut self, replica: u8, words: &str) -> anyhow::Result<()> {
        println!("replica {replica} {words}");
        let path = self.folder.join(JOURNAL_FILE);
        if self.file.metadata().is_ok_and(|it| it.len() > JOURNAL_BYTES_MAX) {
            fs::rename(&path, self.folder.join(OLD_JOURNAL_FILE)).explain(format!("cannot move {}", path.display()))?;
            self.file = append_to(&path)?;
        }
        let line = json!({ "time": now(), "replica": replica, "words": words });
        writeln!(self.file, "{line}").explain(format!("cannot write {}", path.display()))
    }
}

fn append_to(path: &Path) -> anyhow::Result<File> {
    OpenOptions::new().create(true).append(true).open(path).explain(format!("cannot write {}", path.display()))
}

fn read(folder: &Path) -> anyhow::Result<Kept> {
    let path = folder.join(STATE_FILE);
    match fs::read(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Kept::default()),
        Err(error) => Err(error).explain(format!("cannot read {}", path.display())),
        Ok(text) => serde_json::from_slice(&text).advise(
            format!("{} cannot be understood", path.display()),
            "remove it; replicas that were fenced are started then, so look at the journal beside it first",
        ),
    }
}

/// Prints how the controller sees the replicas, and the end of its journal.
///
/// # Errors
/// If there is nothing, or it cannot be read.
pub fn show(folder: &Path) -> anyhow::Result<ExitCode> {
    let kept = read(folder)?;
    if kept.replicas.is_empty() {
        let what = format!("no controller has kept anything in {}", folder.display());
        return Err(failure(what, "start one: quorate controller --help"));
    }
    let mut out = std::io::stdout().lock();
    match HeldFile::read(&folder.join(PID_FILE)) {
        Some(pid) => writeln!(out, "a controller runs, as process {}", pid.trim())?,
        None => writeln!(out, "no controller runs; this is what the last one saw")?,
    }
    for (replica, it) in &kept.replicas {
        let why = match &it.state {
            State::Fenced { why, .. } | State::Quarantined { why } => format!(": {why}"),
            _ => String::new(),
        };
        let state = serde_json::to_value(&it.state)?;
        writeln!(out, "replica {replica} {}{why}", state["state"].as_str().unwrap_or_default())?;
    }
    let journal = fs::read_to_string(folder.join(JOURNAL_FILE)).unwrap_or_default();
    let lines: Vec<&str> = journal.lines().collect();
    for line in lines.iter().skip(lines.len().saturating_sub(SHOWN_LINES)) {
        let line: Value = serde_json::from_str(line).unwrap_or_default();
        let text = |name: &str| line[name].as_str().unwrap_or_default().to_owned();
        writeln!(out, "{}  replica {} {}", text("time"), line["replica"], text("words"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn now() -> String {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    rfc3339(WallTime::from_nanos(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)))
}
