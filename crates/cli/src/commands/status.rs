//! `quorate status`: how every replica is, and whether the cluster is well.

use crate::cluster::{ClusterArgs, Connection};
use crate::served::Protocol;
use crate::text::{hex, thousands};
use clap::Args;
use quorate_core::node::Report;
use quorate_runtime::config::Member;
use serde::Serialize;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Show how the replicas are
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate status
  quorate status --json | jq '.replicas[].digest'

Exit status 0 if a majority is reachable and no two replicas contradict each other.")]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
    /// Milliseconds to wait for each replica
    #[arg(long, default_value_t = 1000)]
    patience: u64,
}

/// What one replica said, or why it said nothing.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its number.
    pub replica: u8,
    /// Where it is reached.
    pub address: String,
    /// Did it answer?
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What it answered.
    #[serde(flatten)]
    pub said: Option<Said>,
}

/// What a replica says of itself.
#[derive(Clone, Debug, Serialize)]
pub struct Said {
    pub protocol: String,
    /// `primary`, `backup`, or what else it is busy with.
    pub role: String,
    pub view: u64,
    pub op: u64,
    /// The last entry that it knows to be committed.
    pub committed: u64,
    pub executed: u64,
    pub lag: u64,
    pub checkpoint: u64,
    pub missing: u64,
    pub digest_op: u64,
    pub position: u64,
    pub digest: String,
    /// Its states after the last entries at which all replicas look: see `Report::milestones`.
    #[serde(skip)]
    pub milestones: BTreeMap<u64, String>,
    pub ignored: u64,
    pub blamed: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
    /// Proofs against other replicas, in words.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// How often its log was synced since it started.
    pub syncs: u64,
}

/// All replicas of a cluster.
#[derive(Clone, Debug, Serialize)]
pub struct Cluster {
    pub cluster: String,
    pub protocol: String,
    pub epoch: u32,
    /// Is everything as it should be?
    pub healthy: bool,
    /// In words.
    pub summary: String,
    /// Do two replicas have different states at the same position?
    pub diverged: bool,
    /// In the order of their numbers.
    pub replicas: Vec<Row>,
    #[serde(skip)]
    pub majority: bool,
}

/// Runs the command.
///
/// # Errors
/// If the cluster's files are missing or wrong.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let connection = arguments.cluster.connect()?;
    let cluster = ask(&connection, Duration::from_millis(arguments.patience)).await;
    let mut out = io::stdout().lock();
    if arguments.json {
        serde_json::to_writer_pretty(&mut out, &cluster)?;
        writeln!(out)?;
    } else {
        write!(out, "{}", table(&cluster.replicas))?;
        writeln!(out, "\n{}", cluster.summary)?;
    }
    out.flush()?;
    Ok(if cluster.majority && !cluster.diverged { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Asks all replicas at once.
pub async fn ask(connection: &Connection, patience: Duration) -> Cluster {
    let mut questions = tokio::task::JoinSet::new();
    for member in &connection.config.members {
        let (client, replica) = (connection.client.clone(), member.replica);
        questions.spawn(async move { (replica, client.status(replica, patience).await) });
    }
    let reports: BTreeMap<_, _> = questions.join_all().await.into_iter().collect();
    let links = connection.client.link_status().await;
    let silent = |member: &Member| {
        let link = links.as_ref().and_then(|it| it.replicas.iter().find(|it| it.replica == member.replica));
        match link.and_then(|it| it.dial_error.as_ref()) {
            Some(error) => error.to_string(),
            None => format!("{} does not answer", member.replica),
        }
    };
    let committed = connection.client.vouched(reports.values().flatten().map(|it| it.status.committed.get()));
    // Without one order each replica counts what it has done itself: that says nothing about the others.
    let committed = if has_one_order(connection) { committed } else { 0 };
    let rows = connection.config.members.iter().map(|member| {
        let report = reports.get(&member.replica).and_then(Option::as_ref);
        Row {
            replica: member.replica.get(),
            address: member.address.clone(),
            reachable: report.is_some(),
            error: report.is_none().then(|| silent(member)),
            said: report.map(|report| said(report, committed)),
        }
    });
    judge(connection, rows.collect())
}

fn said(report: &Report, committed: u64) -> Said {
    let status = &report.status;
    Said {
        protocol: report.protocol.clone(),
        role: status.role.clone(),
        view: status.view.get(),
        op: status.op.get(),
        committed: status.committed.get(),
        executed: status.executed.get(),
        lag: committed.saturating_sub(status.executed.get()),
        checkpoint: status.checkpoint.get(),
        missing: status.missing,
        digest_op: report.op.get(),
        position: report.position.get(),
        digest: hex(report.digest.as_bytes()),
        milestones: report.milestones.iter().map(|(op, digest)| (op.get(), hex(digest.as_bytes()))).collect(),
        ignored: report.ignored,
        blamed: report.blamed,
        last_fault: report.last_fault.clone(),
        evidence: report.evidence.clone(),
        syncs: report.syncs,
    }
}

fn judge(connection: &Connection, replicas: Vec<Row>) -> Cluster {
    let said: Vec<&Said> = replicas.iter().filter_map(|row| row.said.as_ref()).collect();
    let one_order = has_one_order(connection);
    let diverged = if one_order { first_difference(&said) } else { None };
    let (up, all) = (said.len(), replicas.len());
    let needed = Protocol::named(&connection.config.protocol).map_or(all, |protocol| protocol.needed(all));
    let enough = up >= needed;
    let led = !one_order || said.iter().any(|it| leads(&it.role));
    let other = |it: &Said| !one_order && said.first().is_some_and(|first| first.digest != it.digest);
    let behind = said.iter().filter(|it| it.lag > 0 || it.missing > 0 || other(it)).count();
    let summary = if let Some(op) = diverged {
        format!("DIVERGED: replicas have different states after entry {op}. Stop writing, and keep all data folders")
    } else if !enough {
        let missing = needed - up;
        format!("DOWN: {up} of {all} replicas answer; {missing} more must run before the cluster does")
    } else if !led {
        format!("NO PRIMARY right now: {up} of {all} replicas answer, and are choosing one")
    } else if up < all {
        let spare = up - needed;
        let spare = if spare == 0 { "no further failure".to_owned() } else { format!("{spare} more failures") };
        format!("degraded: {up} of {all} replicas answer; the cluster works and survives {spare}")
    } else if behind > 0 {
        format!("working: all {all} replicas answer, {behind} of them catching up")
    } else {
        format!("healthy: all {all} replicas answer and agree")
    };
    Cluster {
        cluster: format!("{:032x}", connection.config.cluster.get()),
        protocol: connection.config.protocol.clone(),
        epoch: connection.config.epoch.get(),
        healthy: diverged.is_none() && led && up == all && behind == 0,
        summary,
        diverged: diverged.is_some(),
        majority: enough,
        replicas,
    }
}

/// The first entry after which two replicas say to be in different states: after the last that they have applied, if it is the
/// same, or after an earlier one.
fn first_difference(said: &[&Said]) -> Option<u64> {
    let mut at: BTreeMap<(u64, bool), &str> = BTreeMap::new();
    let mut different = None;
    for one in said {
        let milestones = one.milestones.iter().map(|(op, digest)| ((*op, true), digest));
        for (entry, digest) in std::iter::once(((one.digest_op, false), &one.digest)).chain(milestones) {
            if *at.entry(entry).or_insert(digest) != digest {
                different = Some(different.map_or(entry.0, |first: u64| first.min(entry.0)));
            }
        }
    }
    different
}

/// Is there one order of all operations, which all replicas go through?
fn has_one_order(connection: &Connection) -> bool {
    Protocol::named(&connection.config.protocol).is_none_or(Protocol::has_one_order)
}

/// Does a replica with this role lead, alone or when it is its turn?
pub fn leads(role: &str) -> bool {
    role == "primary" || role == "leads in turn" || role == "member"
}

fn table(rows: &[Row]) -> String {
    let head = ["replica", "role", "view", "op", "committed", "executed", "lag", "checkpoint", "digest", "faults"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in rows {
        lines.push(match &row.said {
            None => vec![row.replica.to_string(), format!("unreachable: {}", row.error.as_deref().unwrap_or("silent"))],
            Some(said) => vec![
                row.replica.to_string(),
                said.role.clone(),
                said.view.to_string(),
                thousands(said.op),
                thousands(said.committed),
                thousands(said.executed),
                thousands(said.lag),
                thousands(said.checkpoint),
                format!("{}@{}", said.digest.get(..8).unwrap_or_default(), thousands(said.digest_op)),
                faults(said),
            ],
        });
    }
    columns(&lines)
}

fn faults(said: &Said) -> String {
    if let Some(first) = said.evidence.first() {
        return format!("{}, proven: {first}", said.blamed);
    }
    match &said.last_fault {
        None if said.missing == 0 => "-".to_owned(),
        None => format!("{} damaged entries", said.missing),
        Some(last) => format!("{}, last: {last}", said.blamed),
    }
}

/// Lines up the cells of full rows; a shorter row runs on.
pub fn columns(lines: &[Vec<String>]) -> String {
    let full = lines.first().map_or(0, Vec::len);
    let widths: Vec<usize> = (0..full)
        .map(|column| {
            let cells = lines.iter().filter(|line| line.len() == full).filter_map(|line| line.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        let padded: Vec<_> = line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}
