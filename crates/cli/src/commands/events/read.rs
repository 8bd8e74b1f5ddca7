//! `quorate events read` and `streams`.

use super::{From, Store};
use clap::Args;
use quorate::events::limits::READ_EVENTS_MAX;
use quorate::events::{Query, Read, Recorded, StoreError};
use quorate_server::events::line::print;
use std::io::{self, BufWriter, Write};
use std::process::ExitCode;

/// What `read` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events read --stream account-1
  quorate events read --category account --type opened --json
  quorate events read --all --backwards --limit 10

Each line: position, stream, version, type, data, with tabs between them; in the data, a tab is written \\t, a newline \\n and a
backslash \\\\. Numbers are versions in a stream, positions elsewhere. Exit status 1 if the stream does not exist.")]
pub struct Arguments {
    #[command(flatten)]
    from: From,
    /// The first number of interest; backwards, the last
    #[arg(long = "from", value_name = "NUMBER")]
    start: Option<u64>,
    /// The newest first
    #[arg(long)]
    backwards: bool,
    /// At most so many events
    #[arg(long)]
    limit: Option<u64>,
    /// An object on each line, as `append --file` takes it
    #[arg(long)]
    json: bool,
}

/// Runs `read`.
///
/// # Errors
/// Why it could not be done.
pub async fn run(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Some(stream) = &arguments.from.stream {
        match store.store.stream(stream.clone()).await {
            Err(StoreError::Refused(_)) => {
                eprintln!("there is no stream `{stream}`");
                return Ok(ExitCode::FAILURE);
            }
            other => drop(store.explain(other)?),
        }
    }
    let start = arguments.start.unwrap_or(if arguments.backwards { u64::MAX } else { 1 });
    let mut read = Read {
        source: arguments.from.source(),
        filter: arguments.from.filter(),
        from: start,
        backwards: arguments.backwards,
        limit: 0,
    };
    let mut left = arguments.limit.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(io::stdout().lock());
    while left > 0 {
        read.limit = u32::try_from(left).unwrap_or(READ_EVENTS_MAX).min(READ_EVENTS_MAX);
        let page = store.explain(store.store.read(read.clone()).await)?;
        for event in &page.events {
            write(&mut out, event, arguments.json)?;
        }
        left = left.saturating_sub(page.events.len() as u64);
        read.from = page.next;
        if page.end {
            break;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Writes an event's line.
///
/// # Errors
/// What the system says.
pub fn write(out: &mut impl Write, event: &Recorded, json: bool) -> io::Result<()> {
    if json {
        out.write_all(print(event)?.as_bytes())?;
    } else {
        out.write_all(&plain(event))?;
    }
    out.write_all(b"\n")
}

/// What `streams` is told.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate events streams --category account

Each line: stream, version, the first version that can be read, `deleted` or `gone` if it is.")]
pub struct StreamsArguments {
    /// Only of this category
    #[arg(long, default_value = "")]
    category: String,
}

/// Runs `streams`.
///
/// # Errors
/// Why it could not be done.
pub async fn streams(store: &Store, arguments: StreamsArguments) -> anyhow::Result<ExitCode> {
    let mut out = BufWriter::new(io::stdout().lock());
    let mut after = String::new();
    loop {
        let query = Query::Streams { after: after.clone(), category: arguments.category.clone(), limit: 0 };
        let page = store.explain(store.store.query(&query).await)?.streams()?;
        let Some(last) = page.last() else { break };
        after.clone_from(&last.stream);
        for stream in &page {
            let life = match (stream.gone, stream.deleted) {
                (true, _) => "gone",
                (false, true) => "deleted",
                (false, false) => "",
            };
            writeln!(out, "{}\t{}\t{}\t{life}", stream.stream, stream.version, stream.first)?;
        }
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// For a person: position, stream, version, type, data, with tabs between them.
fn plain(event: &Recorded) -> Vec<u8> {
    let mut line = format!("{}\t{}\t{}\t{}\t", event.position, event.stream, event.version, event.kind).into_bytes();
    let data: std::borrow::Cow<'_, [u8]> = crate::text::escape(&event.data);
    line.extend_from_slice(&data);
    line
}
