//! `quorate controller`: keeps the replicas of a machine running, and a diverged one from running. `policy` decides, `hands` does it,
//! `journal` keeps what was seen and done.

mod hands;
mod journal;
mod policy;

use super::status::{self, Cluster};
use crate::cluster::{Connection, running_file};
use crate::errors::failure;
use crate::layout::Layout;
use crate::served::Protocol;
use clap::Args;
use hands::Hands;
use journal::Journal;
use policy::{Decision, Millis, Model, Order, Policy, Process, Said, Seen};
use quorate_runtime::config::ReplicaConfig;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};
use tokio::signal::unix::{SignalKind, signal};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long a replica may take to say how it is.
const PATIENCE: Duration = Duration::from_millis(1500);

/// Keep replicas running: start them, watch them, fence and rebuild one that has diverged
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate controller --dir cluster                                   all replicas of a cluster on this machine
  quorate controller --config replica-1/replica.toml --cluster cluster.toml      this machine's replica of several
  quorate controller --dir cluster --show                            how it sees them, and the end of its journal
  quorate controller --dir cluster --release 2                       a person has looked at replica 2

It starts who has ended, after a pause that doubles; who ends again and again is quarantined. Who runs and does not answer is
stopped and started. Who has another state than f + 1 equal others is fenced: stopped, its folder kept, and rebuilt as after the
loss of a disk (quorate recover), if enough others run; never more than f at a time. Replicas that run already are watched as
they are, and go on when the controller ends. Nothing that is safe depends on it.

Several machines: one controller on each, with that machine's replicas. They do not talk to each other; so let one of them rebuild,
and start the others with --no-rebuild.")]
pub struct Arguments {
    /// The cluster's folder, as `quorate init` or `quorate dev` made it: all its replicas are on this machine
    #[arg(long, value_name = "DIR", conflicts_with_all = ["config", "cluster"], required_unless_present = "config")]
    dir: Option<PathBuf>,
    /// The file of a replica on this machine; may be given several times
    #[arg(long, value_name = "FILE")]
    config: Vec<PathBuf>,
    /// The cluster's file; without it QUORATE_CLUSTER, or the `quorate dev` that is running
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// Where to keep what was seen and done; without it the folder `controller` beside the cluster's file
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Keep a diverged replica, and one whose disk is lost, stopped, and leave the rest to people
    #[arg(long)]
    no_rebuild: bool,
    /// Start this replica again, which is fenced or quarantined; may be given several times
    #[arg(long, value_name = "REPLICA")]
    release: Vec<u8>,
    /// Print how the controller sees the replicas, and end
    #[arg(long)]
    show: bool,
}

/// Runs the command.
///
/// # Errors
/// If files are missing or wrong, or another controller looks after the same replicas.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let (cluster, files) = files(&arguments)?;
    let folder = arguments.state.clone().unwrap_or_else(|| cluster.with_file_name("controller"));
    if arguments.show {
        return journal::show(&folder);
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let connection = Connection::open(&cluster, PATIENCE)?;
    let mut journal = Journal::open(&folder)?;
    let mut hands = Hands::new(cluster.clone());
    for file in files {
        let config = ReplicaConfig::load(&file)?;
        if config.cluster != connection.config.cluster {
            let what = format!("{} and {} are of different clusters", file.display(), cluster.display());
            return Err(failure(what, "name the file of the replicas' own cluster with --cluster"));
        }
        hands.take(file, config);
    }
    let clock = Clock::new();
    let all = connection.config.members.iter().map(|member| member.replica.get());
    let kept = journal.kept()?;
    let mut policy = Policy::new(model(&connection, &arguments)?, all.clone(), &kept, clock.now());
    for replica in &arguments.release {
        if !all.clone().any(|it| it == *replica) {
            return Err(failure(format!("there is no replica {replica}"), "see `quorate status` for their numbers"));
        }
        policy.release(*replica, clock.now());
    }
    println!("ready: the controller of {} replicas, process {}", hands.count(), std::process::id());
    let mut watch = std::pin::pin!(async {
        loop {
            let looked = look(&connection, &mut policy, &mut hands, &mut journal, &clock).await;
            if let Err(error) = looked {
                break error;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    });
    tokio::select! {
        error = &mut watch => return Err(error),
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    println!("the controller ends; the replicas go on");
    Ok(ExitCode::SUCCESS)
}

/// The cluster's file, and those of the replicas to look after.
fn files(arguments: &Arguments) -> anyhow::Result<(PathBuf, Vec<PathBuf>)> {
    let Some(dir) = &arguments.dir else {
        let named = arguments.cluster.clone().or_else(|| std::env::var_os("QUORATE_CLUSTER").map(PathBuf::from));
        return Ok((named.map_or_else(running_file, Ok)?, arguments.config.clone()));
    };
    let Some(layout) = Layout::existing(dir) else {
        let what = format!("there is no cluster in {}", dir.display());
        return Err(failure(what, "name the folder that `quorate init` or `quorate dev --dir` made"));
    };
    let config = quorate_runtime::config::ClusterConfig::load(&layout.cluster_file())?;
    let file = |member: &quorate_runtime::config::Member| layout.replica(member.replica).config_file();
    let files: Vec<_> = config.members.iter().map(file).filter(|file| file.is_file()).collect();
    if files.is_empty() {
        let what = format!("there is no replica in {}", dir.display());
        return Err(failure(what, "run it where the replicas are"));
    }
    Ok((layout.cluster_file(), files))
}

fn model(connection: &Connection, arguments: &Arguments) -> anyhow::Result<Model> {
    let config = &connection.config;
    let Some(protocol) = Protocol::named(&config.protocol) else {
        let what = format!("this release does not know the protocol `{}` that the cluster runs", config.protocol);
        return Err(failure(what, "use the release that runs the cluster"));
    };
    let replicas = config.members.len();
    Ok(Model {
        needed: protocol.needed(replicas),
        faults: protocol.faults(replicas),
        one_order: protocol.has_one_order(),
        rebuilds: !arguments.no_rebuild,
    })
}

/// Looks once, and does what follows.
async fn look(
    connection: &Connection,
    policy: &mut Policy,
    hands: &mut Hands,
    journal: &mut Journal,
    clock: &Clock,
) -> anyhow::Result<()> {
    let cluster = status::ask(connection, PATIENCE).await;
    let mut decisions: Vec<Decision> = Vec::new();
    for (replica, result) in hands.rebuilt().await {
        decisions.push(policy.rebuilt(replica, result, clock.now()));
    }
    let seen = seen(&cluster, hands);
    decisions.extend(policy.look(&seen, clock.now()));
    for decision in decisions {
        journal.say(decision.replica, &decision.words)?;
        let done = match decision.order {
            None => Ok(()),
            // What is kept before it is done is known to a controller that is started after a crash in between.
            Some(order) => {
                journal.keep(&policy.kept())?;
                carry_out(hands, decision.replica, order).await
            }
        };
        if let Err(error) = done {
            journal.say(decision.replica, &format!("{error:#}"))?;
        }
    }
    journal.keep(&policy.kept())
}

async fn carry_out(hands: &mut Hands, replica: u8, order: Order) -> anyhow::Result<()> {
    match order {
        Order::Start => hands.start(replica),
        Order::Stop => hands.stop(replica).await,
        Order::Rebuild { diverged } => hands.rebuild(replica, diverged),
    }
}

/// What is seen of each replica.
fn seen(cluster: &Cluster, hands: &mut Hands) -> BTreeMap<u8, Seen> {
    let one = |row: &status::Row| {
        let said = row.said.as_ref().map(|said| Said {
            lag: said.lag,
            missing: said.missing,
            digest_op: said.digest_op,
            digest: said.digest.clone(),
            milestones: said.milestones.clone(),
            evidence: said.evidence.clone(),
        });
        let process = hands.process(row.replica);
        let lost = process == Process::Gone && hands.is_lost(row.replica);
        (row.replica, Seen { process, lost, said })
    };
    cluster.replicas.iter().map(one).collect()
}

/// Milliseconds since 1970 as of the start, and a clock that does not go back from there.
struct Clock {
    began: Instant,
    at: Millis,
}

impl Clock {
    fn new() -> Self {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Self { began: Instant::now(), at: Millis::try_from(since.as_millis()).unwrap_or(Millis::MAX) }
    }

    fn now(&self) -> Millis {
        self.at.saturating_add(Millis::try_from(self.began.elapsed().as_millis()).unwrap_or(Millis::MAX))
    }
}
