//! `quorate top`: the dashboard's facts in a terminal.

use super::status::columns;
use crate::cluster::{ClusterArgs, Connection};
use crate::text::thousands;
use crate::watching::look;
use clap::Args;
use quorate_core::protocol::Consistency;
use quorate_machines::kv::{Query, Response};
use quorate_server::dashboard::{Health, History, Look, Point, Process, ReplicaLook};
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// How long a linearizable read may take before it counts as none.
const READ_PATIENCE: Duration = Duration::from_millis(900);
/// Between the two looks that rates are made of when it prints only once.
const ONCE: Duration = Duration::from_secs(1);
/// What a sparkline is made of.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// Points of a sparkline.
const BARS_SHOWN: usize = 60;
/// Faults and proofs that are listed.
const FAULTS_MAX: usize = 8;

/// Show how the replicas are, again and again
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate top
  quorate top --every 5
  quorate top | cat                 prints once, after two looks a second apart
  quorate top --json | jq .ops_per_second

In a terminal it goes on until Ctrl-C; elsewhere, and with --json, it prints once. Throughput counts operations that the
furthest replica has applied; `read` is how long a linearizable read took just now. `quorate status` explains the columns.")]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Seconds between two looks
    #[arg(long, default_value_t = 1, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3600))]
    every: u64,
    /// Print one JSON object, once
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the cluster's files are missing or wrong.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut top = Top { connection: arguments.cluster.connect()?, history: History::default() };
    if arguments.json || !io::stdout().is_terminal() {
        top.look().await;
        tokio::time::sleep(ONCE).await;
        let (look, point) = top.look().await;
        let text = if arguments.json {
            serde_json::to_string_pretty(&object(&look, point))? + "\n"
        } else {
            page(&look, &top.history, Paint(false))
        };
        io::stdout().write_all(text.as_bytes())?;
        return Ok(if look.health == Health::Bad { ExitCode::FAILURE } else { ExitCode::SUCCESS });
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let screen = Screen::enter()?;
    loop {
        let began = tokio::time::Instant::now();
        let (look, _) = top.look().await;
        screen.show(&page(&look, &top.history, Paint(true)))?;
        tokio::select! {
            () = tokio::time::sleep_until(began + Duration::from_secs(arguments.every)) => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
    }
    Ok(ExitCode::SUCCESS)
}

struct Top {
    connection: Connection,
    history: History,
}

impl Top {
    async fn look(&mut self) -> (Look, Point) {
        let read = async {
            let began = Instant::now();
            let read = self.connection.query(Consistency::Linearizable, &Query::Status);
            let (reply, _) = tokio::time::timeout(READ_PATIENCE, read).await.ok()?.ok()?;
            matches!(reply.result, Ok(Response::Status(_))).then(|| began.elapsed())
        };
        let (look, read) = tokio::join!(look(&self.connection, |_| Process::Unknown), read);
        let point = self.history.push(&look, read, Instant::now());
        (look, point)
    }
}

/// The alternate screen of a terminal, until it is dropped.
struct Screen;

impl Screen {
    fn enter() -> io::Result<Self> {
        write!(io::stdout(), "\x1b[?1049h\x1b[?25l")?;
        Ok(Self)
    }

    /// Shows lines from the top, each cut where the terminal does; nothing flickers, since nothing is erased before it
    /// is written over.
    fn show(&self, page: &str) -> io::Result<()> {
        let mut out = io::stdout().lock();
        write!(out, "\x1b[?7l\x1b[H")?;
        for line in page.lines() {
            write!(out, "{line}\x1b[K\r\n")?;
        }
        write!(out, "\x1b[J\x1b[?7h")?;
        out.flush()
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _gone = write!(io::stdout(), "\x1b[?25h\x1b[?1049l");
    }
}

/// Whether to colour.
#[derive(Clone, Copy)]
struct Paint(bool);

impl Paint {
    fn paint(self, code: &str, text: &str) -> String {
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

fn page(look: &Look, history: &History, paint: Paint) -> String {
    let code = match look.health {
        Health::Good => "1;32",
        Health::Strained => "1;33",
        Health::Bad => "1;31",
    };
    let mut page = format!("{}\n", paint.paint(code, &plain(&look.summary)));
    let _infallible =
        writeln!(page, "{}  cluster {}\n", plain(&look.protocol), look.cluster.get(..8).unwrap_or_default());
    page.push_str(&table(look));
    let point = history.last();
    let number = |value: Option<f64>, digits: usize| match value {
        None => "–".to_owned(),
        Some(value) if digits == 0 => thousands(value.round() as u64),
        Some(value) => format!("{value:.digits$}"),
    };
    page.push('\n');
    for (name, unit, value, of) in [
        ("throughput", "op/s", number(point.ops_per_second, 0), (|it| it.ops_per_second) as fn(&Point) -> Option<f64>),
        ("read", "ms", number(point.read_ms, 2), |it| it.read_ms),
        ("disk syncs", "/s", number(point.syncs_per_second, 0), |it| it.syncs_per_second),
    ] {
        let _infallible = writeln!(page, "{name:<11} {value:>9} {unit:<5} {}", bars(history.points().map(of)));
    }
    let faults = faults(look);
    if !faults.is_empty() {
        page.push('\n');
        for line in faults.iter().take(FAULTS_MAX) {
            let _infallible = writeln!(page, "{line}");
        }
    }
    page
}

/// What others say must not steer a terminal.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

fn table(look: &Look) -> String {
    let head =
        ["replica", "role", "view", "log ends at", "committed", "executed", "lag", "checkpoint", "state", "syncs"];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(look.replicas.iter().map(row));
    columns(&lines)
}

fn row(look: &ReplicaLook) -> Vec<String> {
    match &look.facts {
        Err(why) => vec![look.replica.to_string(), format!("not reachable: {}", plain(why))],
        Ok(facts) => vec![
            look.replica.to_string(),
            plain(&facts.role),
            facts.view.to_string(),
            thousands(facts.op),
            thousands(facts.committed),
            thousands(facts.executed),
            thousands(facts.lag),
            thousands(facts.checkpoint),
            format!("{}@{}", facts.digest.get(..8).unwrap_or_default(), thousands(facts.digest_op)),
            thousands(facts.syncs),
        ],
    }
}

fn faults(look: &Look) -> Vec<String> {
    let mut lines = Vec::new();
    for replica in &look.replicas {
        let Ok(facts) = &replica.facts else { continue };
        lines
            .extend(facts.evidence.iter().map(|proof| format!("proof, held by {}: {}", replica.replica, plain(proof))));
        if let Some(fault) = &facts.last_fault {
            lines.push(format!("{} has noticed {} lies, the last: {}", replica.replica, facts.blamed, plain(fault)));
        }
    }
    lines
}

/// The last minute as bars; a gap where nothing is known.
fn bars(points: impl ExactSizeIterator<Item = Option<f64>>) -> String {
    let skip = points.len().saturating_sub(BARS_SHOWN);
    let points: Vec<Option<f64>> = points.skip(skip).collect();
    let top = points.iter().flatten().fold(0.0_f64, |top, value| top.max(*value)).max(1e-9);
    let last = BARS.len() - 1;
    let bar = |value: &Option<f64>| match value {
        None => ' ',
        Some(value) => *BARS.get((value / top * last as f64).round() as usize).unwrap_or(&'█'),
    };
    points.iter().map(bar).collect()
}

fn object(look: &Look, point: Point) -> Value {
    let replica = |it: &ReplicaLook| match &it.facts {
        Err(why) => json!({ "replica": it.replica.get(), "address": it.address, "reachable": false, "error": why }),
        Ok(facts) => json!({
            "replica": it.replica.get(), "address": it.address, "reachable": true,
            "role": facts.role, "view": facts.view, "op": facts.op, "committed": facts.committed,
            "executed": facts.executed, "lag": facts.lag, "checkpoint": facts.checkpoint, "missing": facts.missing,
            "digest_op": facts.digest_op, "position": facts.position, "digest": facts.digest, "ignored": facts.ignored,
            "blamed": facts.blamed, "last_fault": facts.last_fault, "evidence": facts.evidence, "syncs": facts.syncs,
        }),
    };
    json!({
        "cluster": look.cluster, "protocol": look.protocol, "summary": look.summary,
        "healthy": look.health == Health::Good,
        "ops_per_second": point.ops_per_second, "read_ms": point.read_ms, "syncs_per_second": point.syncs_per_second,
        "replicas": look.replicas.iter().map(replica).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_the_last_minute_and_gaps() {
        assert_eq!(bars([Some(0.0), None, Some(7.0), Some(3.5)].into_iter()), "▁ █▅");
        assert_eq!(bars([].into_iter()), "");
        assert_eq!(bars(vec![Some(1.0); 100].into_iter()).chars().count(), BARS_SHOWN);
    }

    #[test]
    fn what_a_replica_says_does_not_steer_the_terminal() {
        assert_eq!(plain("\x1b[2Jprimary\n"), "\u{fffd}[2Jprimary\u{fffd}");
    }
}
