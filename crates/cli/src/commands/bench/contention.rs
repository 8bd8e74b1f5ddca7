//! `quorate bench --contention A..B`: what it costs that many want the same key. The protocol that is asked for and PBFT, which
//! orders everything in any case, take turns on the same machine: two clusters, of which one is asked and the other idles.

use super::{Arguments, Level, Results, Target, control};
use crate::commands::Protocol;
use crate::commands::status::columns;
use crate::errors::{Advise, failure};
use crate::plot::{Chart, Line, svg};
use crate::text::thousands;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::str::FromStr;

/// Shares between the ends of a span that are measured, as parts of it: most happens where contention is rare.
const PARTS: [f64; 6] = [0.0, 0.05, 0.1, 0.25, 0.5, 1.0];

/// The share of requests that are for one key: one, or several from one to another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Shares {
    from: f64,
    to: f64,
    span: bool,
}

impl FromStr for Shares {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let share = |text: &str| text.parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share));
        let (from, to) = text.split_once("..").unwrap_or((text, text));
        match (share(from), share(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self { from, to, span: text.contains("..") }),
            _ => Err("write a number from 0 to 1, or two of them, for example 0..1".to_owned()),
        }
    }
}

impl Shares {
    /// Are there several?
    pub const fn is_span(self) -> bool {
        self.span
    }

    /// The first, or the only one.
    pub const fn first(self) -> f64 {
        self.from
    }

    fn all(self) -> Vec<f64> {
        let mut all: Vec<f64> = PARTS.iter().map(|part| self.from + (self.to - self.from) * part).collect();
        all.dedup();
        all
    }
}

/// One row: a share, so many requests in flight, under one protocol.
#[derive(Debug, Serialize)]
struct Row {
    contention: f64,
    protocol: String,
    #[serde(flatten)]
    level: Level,
}

#[derive(Debug, Serialize)]
struct Compared {
    replicas: usize,
    payload_bytes: u32,
    read_percent: u64,
    seconds: u64,
    rows: Vec<Row>,
    raw_before: Vec<control::Raw>,
    raw_after: Vec<control::Raw>,
}

/// Refuses flags that say nothing together.
///
/// # Errors
/// What to leave out.
pub fn check(arguments: &Arguments) -> anyhow::Result<()> {
    let shares = arguments.contention;
    if !shares.is_span() && arguments.plot.is_some() {
        return Err(failure("one share is no line to draw", "ask for several: --contention 0..1"));
    }
    let fails = arguments.failover || arguments.crashed > 0;
    if shares.is_span() && (arguments.cluster.is_some() || arguments.idle || fails) {
        let what = "several shares are measured on clusters of their own, under load and without failures";
        return Err(failure(what, "leave --cluster, --idle, --failover and --crashed out"));
    }
    if shares.is_span() && arguments.api == super::Api::Etcd {
        let what = "several shares are measured as the clusters' own client, which all protocols have";
        return Err(failure(what, "leave --api out"));
    }
    Ok(())
}

/// Measures all shares under both protocols in turn.
///
/// # Errors
/// Why it cannot be measured.
pub async fn run(arguments: &Arguments, folder: &Path) -> anyhow::Result<ExitCode> {
    let protocols = match arguments.protocol {
        Protocol::Pbft => vec![Protocol::Pbft],
        other => vec![other, Protocol::Pbft],
    };
    let replicas = arguments.replicas.unwrap_or(arguments.protocol.replicas());
    let raw_before = control::measure(folder).explain("the disk cannot be measured")?;
    let mut targets = Vec::new();
    let mut started = Ok(());
    for protocol in protocols {
        let own = Arguments { protocol, ..arguments.clone() };
        let mut results = Results { replicas, ..Results::default() };
        match Target::start(&own, &folder.join(protocol.name()), &mut results).await {
            Ok(target) => targets.push((own, target)),
            Err(error) => started = Err(error),
        }
    }
    let rows = match started {
        Ok(()) => measure(arguments, &targets).await,
        Err(error) => Err(error),
    };
    for (_, target) in &mut targets {
        target.stop().await;
    }
    let raw_after = control::measure(folder).explain("the disk cannot be measured")?;
    let compared = Compared {
        replicas,
        payload_bytes: arguments.payload,
        read_percent: arguments.read_percent,
        seconds: arguments.seconds,
        rows: rows?,
        raw_before,
        raw_after,
    };
    if let Some(file) = &arguments.plot {
        fs::write(file, svg(&charts(&compared)))
            .advise(format!("cannot write {}", file.display()), "name a file in a folder that exists")?;
    }
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&compared)?);
    } else {
        show(&compared);
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(arguments: &Arguments, targets: &[(Arguments, Target)]) -> anyhow::Result<Vec<Row>> {
    let mut rows = Vec::new();
    for share in arguments.contention.all() {
        for &in_flight in &arguments.in_flight {
            for (own, target) in targets {
                let level = target.level(own, in_flight, share).await?;
                eprintln!(
                    "{share} for one key, {in_flight} in flight, {}: {} op/s, p50 {:.2} ms, p99 {:.2} ms",
                    own.protocol,
                    thousands(level.ops_per_second as u64),
                    level.p50_ms,
                    level.p99_ms
                );
                rows.push(Row { contention: share, protocol: own.protocol.to_string(), level });
            }
        }
    }
    Ok(rows)
}

fn show(compared: &Compared) {
    let head = [
        "one key",
        "in flight",
        "clients",
        "protocol",
        "op/s",
        "p50 ms",
        "p99 ms",
        "max ms",
        "errors",
        "µs/op",
        "× pbft",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    for row in &compared.rows {
        let level = &row.level;
        lines.push(vec![
            format!("{:.2}", row.contention),
            level.in_flight.to_string(),
            level.clients.to_string(),
            row.protocol.clone(),
            thousands(level.ops_per_second as u64),
            format!("{:.2}", level.p50_ms),
            format!("{:.2}", level.p99_ms),
            format!("{:.1}", level.max_ms),
            level.errors.to_string(),
            format!("{:.1}", level.replica_us_per_op),
            beside(compared, row).map_or_else(|| "-".to_owned(), |times| format!("{times:.2}")),
        ]);
    }
    println!(
        "{} replicas each, values of {} bytes, {} % reads, {} s each; `one key`: the share of requests for one key; `× pbft`: p50 \
         over that of pbft",
        compared.replicas, compared.payload_bytes, compared.read_percent, compared.seconds
    );
    println!("{}", columns(&lines));
    for (when, raws) in [("before", &compared.raw_before), ("after", &compared.raw_after)] {
        for raw in raws {
            println!("raw fdatasync {when}: {} B p50 {:.0} µs, p99 {:.0} µs", raw.bytes, raw.p50_us, raw.p99_us);
        }
    }
    let most = compared.rows.iter().map(|row| row.level.foreign_cores).fold(0.0, f64::max);
    let quiet = if most > super::QUIET_CORES_MAX { "NOT QUIET" } else { "quiet" };
    println!("{quiet}: other programs, the idle cluster among them, took up to {most:.2} cores");
}

/// The row's median latency over PBFT's for the same load.
fn beside(compared: &Compared, row: &Row) -> Option<f64> {
    let pbft = Protocol::Pbft.name();
    let same =
        |it: &&Row| it.protocol == pbft && it.level.in_flight == row.level.in_flight && it.contention == row.contention;
    let other = compared.rows.iter().find(same).filter(|_| row.protocol != pbft)?;
    Some(row.level.p50_ms / other.level.p50_ms)
}

fn charts(compared: &Compared) -> [Chart; 2] {
    let chart = |title: &str, up, of: fn(&Level) -> f64| {
        let mut lines: Vec<Line> = Vec::new();
        for row in &compared.rows {
            let name = format!("{}, {} in flight", row.protocol, row.level.in_flight);
            let point = (row.contention, of(&row.level));
            match lines.iter_mut().find(|line| line.name == name) {
                Some(line) => line.points.push(point),
                None => lines.push(Line { name, points: vec![point] }),
            }
        }
        let title = format!("{title}, {} replicas, values of {} bytes", compared.replicas, compared.payload_bytes);
        Chart { title, across: "share of the requests that are for one key", up, linear: true, lines }
    };
    [
        chart("Throughput", "operations a second", |level| level.ops_per_second),
        chart("Latency", "p50, milliseconds", |level| level.p50_ms),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_one_number_or_two() {
        let parse = |text: &str| text.parse::<Shares>();
        assert_eq!(parse("0.25").map(|it| (it.is_span(), it.all())), Ok((false, vec![0.25])));
        let span = parse("0..1").expect("a span");
        assert!(span.is_span());
        assert_eq!(span.all(), PARTS);
        assert_eq!(parse("0.5..0.5").map(Shares::all), Ok(vec![0.5]));
        for wrong in ["", "2", "-1", "1..0", "0..2", "NaN", "0..", "a..b"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
