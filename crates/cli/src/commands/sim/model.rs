//! `quorate sim --bench`: how throughput and latency change with the number of replicas.

use super::super::Protocol;
use super::super::status::columns;
use super::Span;
use crate::errors::{Advise, failure};
use crate::plot::{Chart, Line, svg};
use crate::progress::Progress;
use crate::served::{Served, with_protocol};
use crate::text::thousands;
use clap::Args;
use quorate_core::sessions::WINDOW;
use quorate_runtime::config::Timing;
use quorate_sim::model::{Costs, Found, Question, find};
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Requests that one client keeps in flight at most: half of what a session can, as answers come out of order.
const IN_FLIGHT_EACH: usize = WINDOW as usize / 2;
/// Fewer requests than this say nothing about a percentile.
const REQUESTS_MIN: u64 = 200;
/// The next group is about so much larger than the last, percent.
const GROWTH_PERCENT: usize = 150;

/// What `--bench` understands.
#[derive(Debug, Args)]
pub struct ModelArguments {
    /// Compute throughput and latency, each replica on a machine of its own, for groups of --replicas A..B
    #[arg(long, conflicts_with_all = ["seed", "seeds", "scenario", "script", "exhaustive", "gallery"])]
    pub bench: bool,
    /// Requests that wait for their answers at any time: a list, one row of the table for each (--bench)
    #[arg(long, value_name = "COUNTS", value_delimiter = ',', default_value = "1,64,1000", value_parser = clap::value_parser!(u32).range(1..=16384))]
    in_flight: Vec<u32>,
    /// Bytes of a value (--bench)
    #[arg(long, value_name = "BYTES", default_value_t = 256, value_parser = clap::value_parser!(u32).range(0..=1_048_576))]
    payload: u32,
    /// Requests of a row for the smallest group; larger groups say more for each, and are asked for less (--bench)
    #[arg(long, value_name = "COUNT", default_value_t = 4000, value_parser = clap::value_parser!(u64).range(100..=1_000_000))]
    requests: u64,
    /// What everything costs, as --calibrate writes it; without it, what one computer measured (--bench)
    #[arg(long, value_name = "FILE", requires = "bench")]
    costs: Option<PathBuf>,
    /// Draw throughput and latency over the number of replicas into this SVG file (--bench)
    #[arg(long, value_name = "FILE", requires = "bench")]
    plot: Option<PathBuf>,
}

#[derive(Debug, Serialize)]
struct Row {
    replicas: usize,
    in_flight: u32,
    ops_per_second: f64,
    p50_ms: f64,
    p99_ms: f64,
    /// Of the replica that is busiest: frames it sends and receives for each operation, and their bytes.
    busiest_frames_per_op: f64,
    busiest_bytes_per_op: f64,
    /// Of all replicas together.
    frames_per_op: f64,
    signed_per_op: f64,
    checked_per_op: f64,
    syncs_per_op: f64,
    /// How much of the time the busiest protocol's core worked.
    busiest_core: f64,
    /// The same of the cores that check signatures.
    busiest_opener: f64,
}

/// Runs `sim --bench`.
///
/// # Errors
/// Files that cannot be read or written; groups that cannot do what is asked of them.
pub fn run(protocol: Protocol, span: Option<Span>, arguments: &ModelArguments, json: bool) -> anyhow::Result<ExitCode> {
    let costs = match &arguments.costs {
        Some(file) => read(file)?,
        None => Costs::MEASURED,
    };
    let rows = with_protocol!(protocol, P => table::<P>(span, arguments, costs)?);
    if let Some(file) = &arguments.plot {
        fs::write(file, svg(&charts(protocol, &rows, arguments)))
            .advise(format!("cannot write {}", file.display()), "name a file in a folder that exists")?;
    }
    if json {
        println!("{}", serde_json::to_string_pretty(&rows)?);
    } else {
        show(protocol, &rows, arguments, costs);
    }
    Ok(ExitCode::SUCCESS)
}

/// The costs in a file.
///
/// # Errors
/// If it cannot be read, or is none.
fn read(file: &Path) -> anyhow::Result<Costs> {
    let advice = "write one with: quorate sim --calibrate FILE";
    let text = fs::read_to_string(file).advise(format!("cannot read the costs in {}", file.display()), advice)?;
    let costs: Costs = toml::from_str(&text).advise(format!("{} does not hold costs", file.display()), advice)?;
    Ok(costs)
}

fn table<P: Served>(span: Option<Span>, arguments: &ModelArguments, costs: Costs) -> anyhow::Result<Vec<Row>> {
    let sizes = sizes(span.unwrap_or(Span { from: P::REPLICAS, to: P::REPLICAS }), P::STEP);
    let mut progress = Progress::start("computing", "rows", (sizes.len() * arguments.in_flight.len()) as u64);
    let mut rows = Vec::new();
    for replicas in sizes {
        for &in_flight in &arguments.in_flight {
            let requests = in_flight as usize;
            let question = Question::<P> {
                replicas,
                clients: requests.div_ceil(IN_FLIGHT_EACH).max(requests.min(4)),
                in_flight: requests,
                payload: arguments.payload as usize,
                answers: requests_of(arguments.requests, replicas, requests),
                config: P::configure(&Timing::default()),
                costs,
            };
            let found = find(&question).map_err(|error| {
                let what = format!("{replicas} replicas, {in_flight} in flight: {error}");
                failure(what, "ask for fewer in flight, fewer replicas or cheaper --costs")
            })?;
            rows.push(row(replicas, in_flight, &found));
            progress.add(1);
        }
    }
    progress.finish();
    Ok(rows)
}

/// Requests after which a group has been watched for long enough: what they say grows with its square.
fn requests_of(asked: u64, replicas: usize, in_flight: usize) -> u64 {
    (asked.saturating_mul(4) / replicas as u64).clamp(REQUESTS_MIN, asked).max(in_flight as u64 * 3)
}

/// Groups from the smallest to the largest, each about half as large again, and all as good as their size allows: 3f + 1, or
/// 2f + 1.
fn sizes(span: Span, step: usize) -> Vec<usize> {
    let mut sizes = vec![span.from];
    let last = span.from + (span.to - span.from) / step * step;
    while let Some(&size) = sizes.last()
        && size < last
    {
        let wanted = (size * GROWTH_PERCENT / 100).max(size + step);
        sizes.push((span.from + (wanted - span.from) / step * step).min(last));
    }
    sizes
}

fn row(replicas: usize, in_flight: u32, found: &Found) -> Row {
    let per_op = |count: u64| count as f64 / found.answers.max(1) as f64;
    let of_time = |nanos: u64| nanos as f64 / found.nanos.max(1) as f64;
    let busiest = found.busiest();
    let all = |count: fn(&quorate_sim::model::Work) -> u64| per_op(found.replicas.iter().map(count).sum());
    Row {
        replicas,
        in_flight,
        ops_per_second: found.throughput(),
        p50_ms: found.latency(500) as f64 / 1e6,
        p99_ms: found.latency(990) as f64 / 1e6,
        busiest_frames_per_op: per_op(busiest.frames_in.saturating_add(busiest.frames_out)),
        busiest_bytes_per_op: per_op(busiest.bytes_in.saturating_add(busiest.bytes_out)),
        frames_per_op: all(|work| work.frames_out),
        signed_per_op: all(|work| work.signed),
        checked_per_op: all(|work| work.checked),
        syncs_per_op: all(|work| work.syncs),
        busiest_core: of_time(busiest.busy),
        busiest_opener: of_time(found.replicas.iter().map(|work| work.opening).max().unwrap_or(0)),
    }
}

fn charts(protocol: Protocol, rows: &[Row], arguments: &ModelArguments) -> Vec<Chart> {
    let chart = |what: &str, up: &'static str, value: fn(&Row) -> f64| {
        let lines = arguments.in_flight.iter().map(|&in_flight| {
            let points = rows.iter().filter(|row| row.in_flight == in_flight);
            let points = points.map(|row| (row.replicas as f64, value(row))).collect();
            Line { name: format!("{in_flight} in flight"), points }
        });
        let title = format!("{protocol}: {what}, {} B values, computed", arguments.payload);
        Chart { title, across: "replicas", up, linear: false, lines: lines.collect() }
    };
    vec![
        chart("throughput", "operations a second", |row| row.ops_per_second),
        chart("latency", "p50, milliseconds", |row| row.p50_ms),
    ]
}

fn show(protocol: Protocol, rows: &[Row], arguments: &ModelArguments, costs: Costs) {
    let head = [
        "replicas",
        "in flight",
        "op/s",
        "p50 ms",
        "p99 ms",
        "frames/op",
        "busiest",
        "B/op busiest",
        "signed/op",
        "checked/op",
        "syncs/op",
        "core",
        "opener",
    ];
    let mut lines = vec![head.map(str::to_owned).to_vec()];
    lines.extend(rows.iter().map(|row| {
        vec![
            row.replicas.to_string(),
            row.in_flight.to_string(),
            thousands(row.ops_per_second as u64),
            format!("{:.2}", row.p50_ms),
            format!("{:.2}", row.p99_ms),
            format!("{:.2}", row.frames_per_op),
            format!("{:.2}", row.busiest_frames_per_op),
            thousands(row.busiest_bytes_per_op as u64),
            format!("{:.2}", row.signed_per_op),
            format!("{:.2}", row.checked_per_op),
            format!("{:.2}", row.syncs_per_op),
            format!("{:.0} %", row.busiest_core * 100.0),
            format!("{:.0} %", row.busiest_opener * 100.0),
        ]
    }));
    print!("{}", columns(&lines));
    println!(
        "computed for {protocol} with {} B values, each replica on a machine of its own; the counts are exact, the times \
         follow from these costs:",
        arguments.payload
    );
    println!("{costs:?}");
}
