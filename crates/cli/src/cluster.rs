//! Which cluster a client command talks to: `--cluster FILE`, else `QUORATE_CLUSTER`, else the `dev` cluster that runs.
//!
//! A running `dev` keeps a file in a folder of its user's own: `$XDG_RUNTIME_DIR/quorate/`, or `quorate-UID` in the
//! temporary folder. It holds a lock on the file, so what a killed one leaves behind is recognised and ignored.

use crate::brokers;
use crate::errors::{Advise, failure};
use crate::processes::HeldFile;
use crate::served::{Machine, Protocol, with_protocol};
use clap::Args;
use quorate_core::ids::OpNumber;
use quorate_core::objects::Touches;
use quorate_core::protocol::{Answer, Call, CallError, Consistency};
use quorate_machines::kv::{Operation, Query, Reply};
use quorate_machines::{Events, Kv};
use quorate_runtime::client::{Client, ClientError, ClientOptions};
use quorate_runtime::config::ClusterConfig;
use quorate_runtime::keys::KeyPair;
use quorate_runtime::link::DialError;
use serde::{Deserialize, Serialize};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a call that waits looks whether there is any hope.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The flags of every command that talks to a cluster.
#[derive(Clone, Debug, Args)]
pub struct ClusterArgs {
    /// The cluster's file; without it, the `quorate dev` that is running
    #[arg(long, env = "QUORATE_CLUSTER", value_name = "FILE", global = true)]
    pub cluster: Option<PathBuf>,

    /// Seconds after which a call without an answer fails
    #[arg(long, default_value_t = 10, value_name = "SECONDS", global = true, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// A cluster and a client of it.
#[derive(Debug)]
pub struct Connection {
    /// What the cluster's file says.
    pub config: ClusterConfig,
    /// The client.
    pub client: Client,
    timeout: Duration,
}

impl ClusterArgs {
    /// The cluster's file.
    ///
    /// # Errors
    /// If none was named and not exactly one `dev` is running.
    pub fn file(&self) -> anyhow::Result<PathBuf> {
        self.cluster.clone().map_or_else(running_file, Ok)
    }

    /// Makes a client of the cluster.
    ///
    /// # Errors
    /// If its files are missing or wrong. Nothing has been sent yet.
    pub fn connect(&self) -> anyhow::Result<Connection> {
        Connection::open(&self.file()?, Duration::from_secs(self.timeout))
    }
}

/// The file of the one `dev` that is running.
///
/// # Errors
/// If none is, or more than one.
pub fn running_file() -> anyhow::Result<PathBuf> {
    let mut running = registered();
    match running.len() {
        1 => Ok(running.remove(0)),
        0 => Err(failure(
            "no cluster was named, and no `quorate dev` of yours is running",
            "start one with `quorate dev`, or name a cluster's file with --cluster or QUORATE_CLUSTER",
        )),
        count => {
            let list: String = running.iter().map(|file| format!("\n    --cluster {}", file.display())).collect();
            Err(failure(format!("{count} `quorate dev` clusters are running"), format!("choose one:{list}")))
        }
    }
}

fn make_client(config: &ClusterConfig, key: &KeyPair, options: ClientOptions) -> anyhow::Result<Client> {
    let Some(protocol) = Protocol::named(&config.protocol) else {
        let what = format!("this release does not know the protocol `{}` that the cluster runs", config.protocol);
        return Err(failure(what, "use the release that runs the cluster"));
    };
    let touches = match Machine::of(&config.machine) {
        Some(Machine::Events) => Touches::of::<Events>(),
        _ => Touches::of::<Kv>(),
    };
    let options = ClientOptions { touches: Some(touches), ..options };
    let broker = brokers::of_client(config)?;
    Ok(with_protocol!(protocol, P => Client::connect_through::<P>(config, key, options, broker)?))
}

impl Connection {
    /// Makes a client of the cluster that `file` describes.
    ///
    /// # Errors
    /// If the files are missing or wrong.
    pub fn open(file: &Path, timeout: Duration) -> anyhow::Result<Self> {
        let config = ClusterConfig::load(file)?;
        if let Some(problem) = config.check().into_iter().find(|problem| !problem.is_warning()) {
            return Err(problem).explain(format!("{} contradicts itself", file.display()));
        }
        let key = KeyPair::load(&config.key_file)?.key;
        let options = ClientOptions { timeout, ..ClientOptions::default() };
        let client = make_client(&config, &key, options)?;
        Ok(Self { config, client, timeout })
    }

    /// Another client of the same cluster, with a session of its own.
    ///
    /// # Errors
    /// If the key cannot be read any more.
    pub fn another(&self) -> anyhow::Result<Self> {
        let key = KeyPair::load(&self.config.key_file)?.key;
        let options = ClientOptions { timeout: self.timeout, ..ClientOptions::default() };
        let client = make_client(&self.config, &key, options)?;
        Ok(Self { config: self.config.clone(), client, timeout: self.timeout })
    }

    /// Applies an operation, exactly once.
    ///
    /// # Errors
    /// The store's refusal, or why there is no answer.
    pub async fn apply(&self, operation: &Operation) -> anyhow::Result<Reply> {
        let bytes = operation.encode()?;
        let answer = self.with_hope(self.client.apply(bytes)).await?;
        Ok(Reply::decode(&answer.reply)?)
    }

    /// Makes a call with bytes of the machine's.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn call(&self, call: Call) -> anyhow::Result<Answer> {
        self.with_hope(self.client.call(call)).await
    }

    /// Refuses a cluster that replicates another machine than the command is for.
    ///
    /// # Errors
    /// What to use instead.
    pub fn must_replicate(&self, machine: Machine) -> anyhow::Result<()> {
        match Machine::of(&self.config.machine) {
            Some(found) if found == machine => Ok(()),
            Some(found) => {
                let what = format!("this cluster replicates {}, not {}", found.words(), machine.words());
                Err(failure(what, format!("use `quorate {}`, or name another cluster", found.name())))
            }
            None => {
                let what = format!("this release does not know the machine `{}` of the cluster", self.config.machine);
                Err(failure(what, "use the release that runs the cluster"))
            }
        }
    }

    /// Asks a query; the entry that the answer reflects comes with it.
    ///
    /// # Errors
    /// As [`Connection::apply`].
    pub async fn query(&self, consistency: Consistency, query: &Query) -> anyhow::Result<(Reply, OpNumber)> {
        let bytes = query.encode()?;
        let answer = self.with_hope(self.client.read(consistency, bytes)).await?;
        Ok((Reply::decode(&answer.reply)?, answer.op))
    }

    /// Waits for a call, unless every replica has said that it does not want this client.
    async fn with_hope<T>(&self, call: impl Future<Output = Result<T, ClientError>>) -> anyhow::Result<T> {
        tokio::select! {
            result = call => result.map_err(|error| self.explain(error)),
            error = self.hopeless() => Err(error),
        }
    }

    /// Ends when no replica will ever answer.
    async fn hopeless(&self) -> anyhow::Error {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let Some(status) = self.client.link_status().await else { continue };
            let refusals: Vec<_> = status.replicas.iter().filter_map(|it| it.dial_error.as_ref()).collect();
            if refusals.len() == status.replicas.len() && refusals.iter().all(|error| !error.is_transient()) {
                let cause = anyhow::Error::msg(lines(refusals));
                let explained = Err::<(), _>(cause).advise(
                    "every replica refuses this client; nothing was sent",
                    "use the cluster file and the client key that belong to these replicas",
                );
                return explained.err().unwrap_or_else(|| failure("refused", "check the cluster file"));
            }
        }
    }

    /// A call's error in words.
    pub fn explain(&self, error: ClientError) -> anyhow::Error {
        let ClientError::Call { error: CallError::Timeout { maybe_applied }, links } = &error else {
            return error.into();
        };
        let outcome = if *maybe_applied { "the operation may have been applied" } else { "nothing was applied" };
        let what = format!("the cluster did not answer within {} s; {outcome}", self.timeout.as_secs());
        let advice = if links.is_empty() {
            "see how the replicas are with `quorate status`"
        } else {
            "start the replicas that are down (`quorate serve --config …/replica.toml`); a majority must be up"
        };
        let cause = if links.is_empty() { error.to_string() } else { lines(links) };
        match Err::<(), _>(anyhow::Error::msg(cause)).advise(what, advice) {
            Err(error) => error,
            Ok(()) => error.into(),
        }
    }
}

fn lines<'a>(errors: impl IntoIterator<Item = &'a DialError>) -> String {
    let lines: Vec<_> = errors.into_iter().map(ToString::to_string).collect();
    lines.join("\n             ")
}

#[derive(Debug, Serialize, Deserialize)]
struct Registration {
    cluster: PathBuf,
}

/// Tells client commands of this user that a cluster is running, as long as the value lives.
///
/// # Errors
/// If the folder for it cannot be made, or belongs to somebody else.
pub fn register(cluster_file: &Path) -> anyhow::Result<HeldFile> {
    let dir = registry();
    make_private(&dir)?;
    let cluster = fs::canonicalize(cluster_file).unwrap_or_else(|_| cluster_file.to_owned());
    let text = toml::to_string(&Registration { cluster })?;
    let path = dir.join(format!("dev-{}.toml", std::process::id()));
    let held = HeldFile::hold(&path, &text).explain(format!("cannot write {}", path.display()))?;
    held.ok_or_else(|| failure(format!("another process holds {}", path.display()), "remove that file"))
}

/// The cluster files of all `dev` that are running.
fn registered() -> Vec<PathBuf> {
    let dir = registry();
    if !is_private(&dir) {
        return Vec::new();
    }
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        match HeldFile::read(&entry.path()) {
            Some(text) => files.extend(toml::from_str::<Registration>(&text).map(|it| it.cluster)),
            None => drop(fs::remove_file(entry.path())),
        }
    }
    files.sort();
    files
}

fn registry() -> PathBuf {
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty()) {
        Some(dir) => PathBuf::from(dir).join("quorate"),
        None => std::env::temp_dir().join(format!("quorate-{}", rustix::process::getuid().as_raw())),
    }
}

fn make_private(dir: &Path) -> anyhow::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).explain(format!("cannot create {}", dir.display()))?;
    if is_private(dir) {
        return Ok(());
    }
    let what = format!("{} can be written by others, so client commands would not trust it", dir.display());
    Err(failure(what, format!("remove it, or run `chmod 700 {}`", dir.display())))
}

/// Only this user could have put something there.
fn is_private(dir: &Path) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|it| it.is_dir() && it.uid() == rustix::process::getuid().as_raw() && it.mode() & 0o022 == 0)
}
