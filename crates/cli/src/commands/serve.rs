//! `quorate serve`: one replica, one process.

use super::gateway;
use crate::brokers;
use crate::errors::{Advise, failure};
use crate::layout::{is_new, pid_file_beside, unmark_new};
use crate::lying;
use crate::processes::{Control, HeldFile, hold_pid_file};
use crate::served::{Machine, Protocol, Served, with_protocol};
use clap::{Args, ValueEnum as _};
use quorate_core::ids::OpNumber;
use quorate_core::outbox::Note;
use quorate_core::time::Duration;
use quorate_machines::{Events, Kv};
use quorate_runtime::config::ReplicaConfig;
use quorate_runtime::host::{Host, Notes};
use quorate_runtime::keys::KeyPair;
use quorate_runtime::link::LinkHandle;
use quorate_runtime::{link, replica};
use quorate_sim::Simulated;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// A replica that fetched nothing for so long has caught up, or waits for somebody who can help it.
const CATCH_UP_PAUSE: Duration = Duration::from_millis(500);
/// Bytes of a line that is obeyed.
const CONTROL_BYTES_MAX: u64 = 1024;

/// Run one replica
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate serve --config cluster/replica-0/replica.toml

It prints one line when it is ready. SIGTERM or Ctrl-C stops it; so does kill -9, at any moment, without losing what was
acknowledged. The first start formats the data folder that `quorate init` marked as new. A folder that is neither new nor
readable is never formatted: see `quorate recover --help`.")]
pub struct Arguments {
    /// The replica's file, as `quorate init` writes it
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Offer the etcd v3 API, or the event store over HTTP, too: the file that `quorate gateway --config` takes
    #[arg(long, value_name = "FILE")]
    gateway: Option<PathBuf>,
    /// Stop when stdin closes: how `dev` makes sure that its replicas end with it
    #[arg(long, hide = true)]
    until_stdin_closes: bool,
    /// Tell this lie: what the dashboard of `dev` asks for, and refused everywhere but there (ADR 032)
    #[arg(long, hide = true, requires = "until_stdin_closes")]
    lie: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// Why the replica cannot start, or had to stop.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if quorate_core::MUTATIONS {
        return Err(failure(
            "this program was built with `mutations`: it can be broken on request, and keeps no data",
            "build it without that feature",
        ));
    }
    let loaded = load(&arguments.config)?;
    with_protocol!(loaded.0, P => serve::<P>(arguments, loaded.1, loaded.2).await)
}

async fn serve<P: Served + Simulated>(
    arguments: Arguments,
    config: ReplicaConfig,
    key: KeyPair,
) -> anyhow::Result<ExitCode> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mouth = match &arguments.lie {
        Some(lie) => Some(lying::mouth::<P>(lie, &arguments.config, &config, &key)?),
        None => None,
    };
    let (mut host, _pid) = start::<P>(&arguments.config, config.clone(), &key).await?;
    let _brought = brokers::of_replica(&config, host.links())?;
    if let Some(mouth) = mouth {
        host.speak_through(mouth);
    }
    let gateway = match &arguments.gateway {
        Some(file) => Some(gateway::from_file(file).await?),
        None => None,
    };
    if let Some(gateway) = &gateway {
        println!("{} at {}", gateway.words(), gateway.url());
    }
    let links = host.links();
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = stdin_closed(arguments.until_stdin_closes, links) => {}
        }
    };
    host.run_until(stop).await.explain("the replica had to stop")?;
    Ok(ExitCode::SUCCESS)
}

async fn start<P: Served>(file: &Path, config: ReplicaConfig, key: &KeyPair) -> anyhow::Result<(Host<P>, HeldFile)> {
    let pid = hold_pid_file(&pid_file_beside(file))?;
    let listener = link::listen(&config.listen).await?;
    prepare_folder(&config, file)?;
    let patience = P::configure_from(&config);
    let started = match machine(&config, file)? {
        Machine::Kv => replica::start::<P, Kv>(&config, key, listener, patience, &Kv::new, notes()),
        Machine::Events => replica::start::<P, Events>(&config, key, listener, patience, &Events::new, notes()),
    }?;
    for finding in started.findings {
        eprintln!("{finding}");
    }
    println!("ready: {} of {} at {}, process {}", config.replica, config.cluster, config.listen, std::process::id());
    Ok((started.host, pid))
}

/// The machine that the file names, if this release has it.
fn machine(config: &ReplicaConfig, file: &Path) -> anyhow::Result<Machine> {
    Machine::of(&config.machine).ok_or_else(|| {
        let what = format!("{}: this release has no machine `{}`", file.display(), config.machine);
        failure(what, format!("set `machine` to one of {}, on all replicas alike", Machine::list()))
    })
}

/// Reads a replica's file and key, and refuses contradictions.
///
/// # Errors
/// The first sentence that is wrong; all others have been printed.
pub fn load(file: &Path) -> anyhow::Result<(Protocol, ReplicaConfig, KeyPair)> {
    let config = ReplicaConfig::load(file)?;
    let Some(protocol) = Protocol::named(&config.protocol) else {
        let what = format!("{}: this release cannot run the protocol `{}`", file.display(), config.protocol);
        let known: Vec<_> = Protocol::value_variants().iter().map(|it| format!("`protocol = \"{it}\"`")).collect();
        return Err(failure(what, format!("set {}, on all replicas alike", known.join(" or "))));
    };
    let loaded = KeyPair::load(&config.key_file)?;
    if let Some(warning) = loaded.warning {
        eprintln!("warning: {warning}");
    }
    let (warnings, errors): (Vec<_>, Vec<_>) =
        config.check(loaded.key.public()).into_iter().partition(quorate_runtime::config::Problem::is_warning);
    for warning in warnings {
        eprintln!("warning: {warning}");
    }
    if !errors.is_empty() {
        let sentences: Vec<_> = errors.iter().map(ToString::to_string).collect();
        let what = format!("{} contradicts itself: {}", file.display(), sentences.join("; and "));
        return Err(failure(what, "correct the file; compare it with those of the other replicas"));
    }
    let own = config.members.iter().find(|member| member.replica == config.replica);
    if let Some(own) = own.filter(|own| port(&own.address) != port(&config.listen)) {
        eprintln!("warning: this replica listens on {}, but the others look for it at {}", config.listen, own.address);
    }
    Ok((protocol, config, loaded.key))
}

fn port(address: &str) -> Option<&str> {
    address.rsplit_once(':').map(|(_, port)| port)
}

/// Formats the folder of a replica that never ran, and only that.
fn prepare_folder(config: &ReplicaConfig, file: &Path) -> anyhow::Result<()> {
    let data = &config.data_dir;
    let shown = data.display();
    let is_new = is_new(data, config.cluster, config.replica);
    if is_new && !data.join("superblock").exists() {
        remove_half_formatted(data)?;
        replica::format(config)?;
    } else if !data.is_dir() || !replica::is_formatted(data)? {
        return Err(failure(
            format!("the data folder {shown} holds no replica, and is not marked as that of a new one"),
            format!(
                "check `data_dir`; if the disk was lost, `quorate recover --config {}` puts a new one in its place. It is \
                 never formatted silently: its old self may have made promises that only its disk knew",
                file.display()
            ),
        ));
    }
    unmark_new(data).advise(format!("cannot write to {shown}"), "the data folder must be writable")
}

/// What a first start that was interrupted has left: nobody has ever run from it.
fn remove_half_formatted(data: &Path) -> anyhow::Result<()> {
    for name in ["wal", "snapshots"] {
        match std::fs::remove_dir_all(data.join(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).explain(format!("cannot remove {}", data.join(name).display()));
            }
            _ => {}
        }
    }
    Ok(())
}

/// What happens to the replica, for whoever reads its log.
fn notes() -> Notes {
    let (fetched, behind) = unbounded_channel();
    tokio::spawn(tell_catch_ups(behind));
    Box::new(move |note| say(note, &fetched))
}

/// One line for all entries that a replica fetches because it was behind, when they have come.
async fn tell_catch_ups(mut fetched: UnboundedReceiver<OpNumber>) {
    while let Some(op) = fetched.recv().await {
        let (mut first, mut last) = (op, op);
        while let Ok(Some(op)) = tokio::time::timeout(CATCH_UP_PAUSE, fetched.recv()).await {
            (first, last) = (first.min(op), last.max(op));
        }
        eprintln!("caught up: entries {first} to {last} came from the others");
    }
}

fn say(note: &Note, fetched: &UnboundedSender<OpNumber>) {
    match note {
        Note::Suspects(view) => eprintln!("no sign of the primary of view {view}"),
        Note::ViewChange(view) => eprintln!("changing to view {view}"),
        Note::ViewStarted { view, primary, op } => {
            eprintln!("view {view} has started: {primary} leads, the log ends at {op}");
        }
        Note::Checkpointed(op) => eprintln!("checkpoint at {op}"),
        Note::Repaired(op) => eprintln!("entry {op} was damaged on this disk and is replaced by a peer's copy"),
        Note::Fetched(op) => drop(fetched.send(*op)),
        Note::StateTransfer(op) => eprintln!("too far behind for the log: fetching the checkpoint at {op}"),
        Note::RecoveringHead => eprintln!("the end of the log is damaged: waiting for the primary to say where it is"),
        Note::Other(words) => eprintln!("{words}"),
        Note::Committed(_) => {}
    }
}

/// Ends when stdin does, and obeys what comes from there until then; never ends and reads nothing, if nobody asked.
async fn stdin_closed(asked: bool, links: LinkHandle) {
    if !asked {
        return std::future::pending().await;
    }
    let mut stdin = BufReader::new(tokio::io::stdin());
    let mut line = String::new();
    // A line that is too long ends at its bound, and means nothing.
    while matches!((&mut stdin).take(CONTROL_BYTES_MAX).read_line(&mut line).await, Ok(count) if count > 0) {
        match Control::parse(&line) {
            Some(Control::Cut(others)) if others.is_empty() => eprintln!("no link is cut any more"),
            Some(Control::Cut(others)) => {
                let names: Vec<_> = others.iter().map(ToString::to_string).collect();
                eprintln!("cut off from {}: their messages are dropped, as told", names.join(", "));
            }
            None => eprintln!("not understood: {}", line.trim().escape_debug()),
        }
        if let Some(Control::Cut(others)) = Control::parse(&line) {
            links.cut(&others);
        }
        line.clear();
    }
}
