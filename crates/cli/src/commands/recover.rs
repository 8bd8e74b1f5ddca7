//! `quorate recover`: a replica whose disk is lost comes back without breaking the promises of its old self (vr.md §2.5,
//! case D).
//!
//! The old self may have acknowledged entries, and may have taken part in a view change, that nobody here remembers. So the
//! others first commit as many entries as can be in doubt, with the replica down; then the new folder begins two views
//! later than theirs, with a log that vouches for nothing. When it starts, it fetches the state from the others. Where no number of
//! entries says what is in doubt (HQ: each object has its own), the new folder says that the old one is lost, and the replica
//! does the rest itself.

use super::serve::load;
use crate::cluster::{ClusterArgs, Connection};
use crate::errors::{Advise, failure};
use crate::layout::{pid_file_beside, unmark_new};
use crate::processes::hold_pid_file;
use crate::progress::Progress;
use crate::served::{Machine, Served, with_protocol};
use clap::Args;
use quorate_core::ids::{OpNumber, View};
use quorate_core::outbox::Class;
use quorate_core::wire::Wire;
use quorate_runtime::config::{ReplicaConfig, draw_cluster_id};
use quorate_runtime::replica::belongs;
use quorate_store::wal::WalConfig;
use quorate_store::{RealDisk, peek_superblock};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

/// How long one of the others may take to say which view it is in.
const STATUS_PATIENCE: Duration = Duration::from_secs(2);

/// Bring back a replica whose disk was lost
#[derive(Debug, Args)]
#[command(after_help = "Example, with the replica down and the others up:
  quorate recover --config cluster/replica-1/replica.toml
  quorate serve --config cluster/replica-1/replica.toml

A replica whose folder is intact, or damaged in parts, needs only `quorate serve`. This command is for a folder that is gone
or whose superblock cannot be read: what the replica had promised to the others is forgotten. It lets the others commit
entries until nothing of that is in doubt any more, then makes a folder that promises nothing about the past. What is left of
the old folder is kept beside it. It needs all that a view change needs: a majority of the others. Under hq the replica asks the
others itself when it is started; `quorate status` says `rejoining` until it is back, and until then it counts as faulty.")]
pub struct Arguments {
    /// The replica's file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Give up a folder whose superblock can be read. All that only it knows is lost
    #[arg(long)]
    even_if_readable: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it is not safe, or not possible. The old folder is then as it was.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (protocol, config, _) = load(&arguments.config)?;
    with_protocol!(protocol, P => recover::<P>(&arguments, &config).await)
}

async fn recover<P: Served>(arguments: &Arguments, config: &ReplicaConfig) -> anyhow::Result<ExitCode> {
    let _pid = hold_pid_file(&pid_file_beside(&arguments.config))?;
    let Some(witnesses) = P::witnesses(config.members.len()) else {
        let what = format!("{} replicas cannot bring back one of them", config.members.len());
        return Err(failure(what, "with so few replicas, restore a backup"));
    };
    refuse_readable(config, arguments.even_if_readable)?;
    let connection = connect(arguments, config)?;
    let (first, after) = if P::FLUSH_ENTRIES == 0 {
        let text = format!(
            ", and asks the others itself what it may have promised: {witnesses} of them must be up until it is back"
        );
        (P::rejoin(OpNumber::ZERO, View::ZERO), text)
    } else {
        let entries = P::FLUSH_ENTRIES;
        println!("committing {entries} entries without {}, so that nothing it knew is in doubt", config.replica);
        let first = flush(&connection, entries).await?;
        let view = view_of_others(&connection, config, first, witnesses).await?;
        (P::rejoin(first, view), format!(" after view {view}"))
    };
    let kept = move_away(&config.data_dir)?;
    make_folder::<P>(config, first)?;
    if let Some(kept) = kept {
        println!("what was left of the old folder is in {}", kept.display());
    }
    let (program, file) = (super::dev::program(), arguments.config.display());
    println!("{} begins anew{after}; start it: {program} serve --config {file}", config.replica);
    Ok(ExitCode::SUCCESS)
}

fn refuse_readable(config: &ReplicaConfig, anyway: bool) -> anyhow::Result<()> {
    if anyway || !config.data_dir.is_dir() || peek_superblock(&RealDisk::open(&config.data_dir)?).is_err() {
        return Ok(());
    }
    Err(failure(
        format!("{} holds a replica whose superblock can be read", config.data_dir.display()),
        "start it with `quorate serve`: it repairs damage from the others; to give it up all the same, --even-if-readable",
    ))
}

/// The cluster, as a client sees it: the file that was named, or the one that `init` wrote next to the replicas' folders.
fn connect(arguments: &Arguments, config: &ReplicaConfig) -> anyhow::Result<Connection> {
    let mut cluster = arguments.cluster.clone();
    let beside = arguments.config.parent().map(|folder| folder.join("../cluster.toml"));
    cluster.cluster = cluster.cluster.or(beside.filter(|file| file.exists()));
    let connection = cluster.connect()?;
    if connection.config.cluster != config.cluster {
        return Err(failure(
            "the cluster file and the replica's file are of different clusters",
            "name the file of the replica's own cluster with --cluster",
        ));
    }
    Ok(connection)
}

/// Has the others commit entries, one after the other, until the window has passed. The first of them.
async fn flush(connection: &Connection, entries: u64) -> anyhow::Result<OpNumber> {
    let nothing = Machine::of(&connection.config.machine).unwrap_or_default().nothing()?;
    let mut progress = Progress::start("recover", "entries", entries);
    let mut first = None;
    loop {
        let answer = connection.client.apply(nothing.clone()).await.map_err(|error| connection.explain(error));
        let answer = answer.advise("the others do not commit", "a majority must be up without this replica")?;
        let first = *first.get_or_insert(answer.op);
        progress.add(1);
        if answer.op.since(first) > entries {
            progress.finish();
            return Ok(first);
        }
    }
}

/// The greatest view that the others are in: as many as it takes to change views, each of which has what was committed.
async fn view_of_others(
    connection: &Connection,
    config: &ReplicaConfig,
    op: OpNumber,
    quorum: usize,
) -> anyhow::Result<View> {
    let mut views = Vec::new();
    for member in config.members.iter().filter(|member| member.replica != config.replica) {
        if let Some(report) = connection.client.status(member.replica, STATUS_PATIENCE).await
            && report.status.op >= op
        {
            views.push(report.status.view);
        }
    }
    match views.iter().max() {
        Some(view) if views.len() >= quorum => Ok(*view),
        _ => Err(failure(
            format!("{} of the other replicas answer; {quorum} must", views.len()),
            "start the others first, and see `quorate status`",
        )),
    }
}

/// Keeps what is there, under another name.
fn move_away(data: &Path) -> anyhow::Result<Option<PathBuf>> {
    if !data.exists() {
        return Ok(None);
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    let mut name = data.as_os_str().to_owned();
    name.push(format!(".lost-{now}"));
    let kept = PathBuf::from(name);
    fs::rename(data, &kept).explain(format!("cannot rename {} to {}", data.display(), kept.display()))?;
    Ok(Some(kept))
}

fn make_folder<P: Served>(config: &ReplicaConfig, first: P::Record) -> anyhow::Result<()> {
    fs::create_dir_all(&config.data_dir)
        .advise(format!("cannot create {}", config.data_dir.display()), "its place must be writable")?;
    let disk = RealDisk::open(&config.data_dir)?;
    let _lock = disk.lock()?;
    let log = WalConfig::new(draw_cluster_id()?.get()); // any number that was never used
    let promise = (Class::Promise, first.encode());
    quorate_store::replica::format_with(&disk, &belongs(config), log, &[promise])?;
    unmark_new(&config.data_dir)?;
    Ok(())
}
