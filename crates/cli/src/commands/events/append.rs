//! `quorate events append`: one event, or a file of them in the order of its lines, each once.
//!
//! An event of a file without an id of its own gets one from the file's contents and its line: running the command again
//! appends nothing twice, and a crash between two attempts does not matter.

use super::{Store, expected};
use crate::errors::{Advise, failure};
use crate::progress::Progress;
use crate::text::{count, thousands};
use bytes::Bytes;
use clap::Args;
use quorate::Digest;
use quorate::events::limits::OPERATION_BYTES_MAX;
use quorate::events::{Append, Appended, EventId, Expected, NewEvent, StoreError, Write, draw_id};
use quorate_server::events::line::{Defaults, parse};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bad lines that are reported one by one; further ones are counted.
const REPORTED_MAX: usize = 20;
/// Before an append that was not acknowledged is sent again.
const RETRY: Duration = Duration::from_millis(100);
/// Bytes of one append, about: half of what is allowed, so that one more event of any allowed size still fits, or stands alone.
const APPEND_BYTES_SOFT_MAX: usize = OPERATION_BYTES_MAX / 2;
/// What an event counts besides its data and metadata, in bytes: more than its names can be.
const EVENT_OVERHEAD_BYTES: usize = 1024;

/// What `append` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events append --stream account-1 --type opened --data '{\"owner\":\"Ann\"}' --expected none
  quorate events append --file events.jsonl
  git log --reverse --format='{\"commit\":\"%H\",\"author\":\"%ae\"}' | quorate events append --file - --raw --stream repo-1 --type commit
  quorate events append --stream votes-1 --type cast --data '{}' --criticality 0        (dev --events --protocol reception)
  quorate events read --all --json | quorate events append --cluster other/cluster.toml --file -

A line of a file is an event as `read --json` prints it: {\"stream\":…, \"type\":…, \"data\":…}, where --stream and --type stand for
what it leaves out, and its position, version and time count for nothing. With --raw the whole line is the data.

A file is checked before anything is appended, and appended in the order of its lines. An event without an id gets one that is
made of the file and the line: run the command again after a failure, and nothing is appended twice.")]
pub struct Arguments {
    /// The stream
    #[arg(long, required_unless_present = "file")]
    stream: Option<String>,
    /// The type of the event
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file")]
    kind: Option<String>,
    /// What happened, as it is; `-` reads it from stdin
    #[arg(long, conflicts_with = "file")]
    data: Option<String>,
    /// What is to be known about it
    #[arg(long, conflicts_with = "file")]
    metadata: Option<String>,
    /// Its id, a UUID: an event is appended to a stream once; without it, one is drawn
    #[arg(long, conflicts_with = "file")]
    id: Option<EventId>,
    /// What it belongs to
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    correlation: Option<EventId>,
    /// What led to it
    #[arg(long, value_name = "ID", conflicts_with = "file")]
    causation: Option<EventId>,
    /// Where the stream must be
    #[arg(long, value_name = "any|none|VERSION", default_value = "any", conflicts_with = "file", value_parser = expected)]
    expected: Expected,
    /// Append all lines of a file; `-` for stdin, which is then read to its end first
    #[arg(long)]
    file: Option<PathBuf>,
    /// Each line of the file is the data of an event
    #[arg(long, requires_all = ["file", "stream", "kind"])]
    raw: bool,
    /// Events that are appended at a time, all or none
    #[arg(long, default_value_t = 500, value_name = "EVENTS", value_parser = clap::value_parser!(u16).range(1..=4096))]
    batch: u16,
    /// Liars that the certified time bears among the 3 × E + 1 replicas that vouch for it; at most what the cluster bears, which is
    /// the usual level. Less waits for fewer replicas, at the writer's own risk. For --protocol reception
    #[arg(long, value_name = "E")]
    criticality: Option<u8>,
    /// Seconds without any acknowledgement after which the command gives up
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    give_up_after: u64,
}

impl Arguments {
    /// The level of criticality that is asked for.
    pub const fn criticality(&self) -> Option<u8> {
        self.criticality
    }
}

/// Runs the command.
///
/// # Errors
/// Bad lines, a refusal, or a cluster that stays away; with what was appended until then.
pub async fn run(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    match &arguments.file {
        Some(file) => append_file(store, file, &arguments).await,
        None => append_one(store, arguments).await,
    }
}

async fn append_one(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let data = match arguments.data.as_deref() {
        Some("-") => read_all(Path::new("-"))?.into(),
        Some(data) => Bytes::copy_from_slice(data.as_bytes()),
        None => Bytes::new(),
    };
    let event = NewEvent {
        id: arguments.id.unwrap_or_else(draw_id),
        kind: arguments.kind.unwrap_or_default(),
        data,
        metadata: arguments.metadata.unwrap_or_default().into(),
        correlation: arguments.correlation,
        causation: arguments.causation,
    };
    let append = Append::to(arguments.stream.unwrap_or_default(), arguments.expected, vec![event]);
    let patience = Duration::from_secs(arguments.give_up_after);
    let appended = store.explain(persist(store, &append, Instant::now(), patience).await)?;
    for written in &appended.writes {
        let again = if appended.repeated { " (it was there already)" } else { "" };
        println!("{} is at version {}, position {}{again}", written.stream, written.version, written.position);
    }
    Ok(ExitCode::SUCCESS)
}

async fn append_file(store: &Store, file: &Path, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let text = read_all(file)?;
    let name = if file == Path::new("-") { "stdin".to_owned() } else { file.display().to_string() };
    let defaults = Defaults { stream: arguments.stream.clone(), kind: arguments.kind.clone(), raw: arguments.raw };
    let events = events(&text, &name, &defaults)?;
    let total = events.len() as u64;
    let mut progress = Progress::start("append", "events", total);
    let (start, mut last) = (Instant::now(), Instant::now());
    let (mut done, mut repeated) = (0_u64, 0_u64);
    let patience = Duration::from_secs(arguments.give_up_after);
    for append in batches(events, usize::from(arguments.batch)) {
        let events = append.writes.iter().map(|write| write.events.len() as u64).sum::<u64>();
        let result = store.explain(persist(store, &append, last, patience).await);
        let appended = result.advise(
            format!("the append stopped: {} of {} are in the store", thousands(done), count(total, "event")),
            "run it again when this is settled: what is in the store is not appended twice",
        )?;
        (done, last) = (done.saturating_add(events), Instant::now());
        repeated = repeated.saturating_add(if appended.repeated { events } else { 0 });
        progress.add(events);
    }
    progress.finish();
    let rate = u128::from(done).saturating_mul(1000) / start.elapsed().as_millis().max(1);
    let again =
        if repeated == 0 { String::new() } else { format!(", {} of them were there already", thousands(repeated)) };
    let seconds = start.elapsed().as_secs_f64();
    println!("appended {} in {seconds:.1} s ({} a second){again}", count(done, "event"), thousands(rate as u64));
    Ok(ExitCode::SUCCESS)
}

/// Appends until it is acknowledged or refused: with the same ids, it is done once.
async fn persist(store: &Store, append: &Append, last: Instant, patience: Duration) -> Result<Appended, StoreError> {
    loop {
        match store.store.append_all(append.clone()).await {
            Err(error) if error.is_worth_a_retry() && last.elapsed() < patience => tokio::time::sleep(RETRY).await,
            other => return other,
        }
    }
}

/// All events of a file.
fn events(text: &[u8], name: &str, defaults: &Defaults) -> anyhow::Result<Vec<(String, NewEvent)>> {
    let whole = Digest::of(text);
    let (mut events, mut bad) = (Vec::new(), 0_usize);
    for (number, line) in (1_u64..).zip(text.split(|byte| *byte == b'\n')) {
        let Ok(line) = std::str::from_utf8(line) else {
            bad = report(bad, name, number, "it is not UTF-8");
            continue;
        };
        if line.trim().is_empty() {
            continue;
        }
        let id = Digest::of_parts(&[b"event of a file", whole.as_bytes(), &number.to_le_bytes()]);
        let id = EventId(id.as_bytes().first_chunk().copied().unwrap_or_default());
        let parsed = parse(line, defaults, id).and_then(|(stream, event)| {
            // What the store would refuse on sight.
            let alone = Append::to(stream.clone(), Expected::Any, vec![event.clone()]);
            let encoded = quorate::events::Operation::Append(alone).encode();
            encoded.map(|_| (stream, event)).map_err(|error| error.to_string())
        });
        match parsed {
            Ok(event) => events.push(event),
            Err(why) => bad = report(bad, name, number, &why),
        }
    }
    if bad > REPORTED_MAX {
        eprintln!("{name}: {} more", count(bad.saturating_sub(REPORTED_MAX) as u64, "bad line"));
    }
    if bad > 0 {
        let what = format!("{} of {name} cannot be appended; nothing was", count(bad as u64, "line"));
        return Err(failure(what, "correct them and run it again"));
    }
    Ok(events)
}

fn report(bad: usize, name: &str, number: u64, why: &str) -> usize {
    if bad < REPORTED_MAX {
        eprintln!("{name}, line {}: {why}", thousands(number));
    }
    bad.saturating_add(1)
}

/// Cuts the events into appends, in their order. The same events are always cut in the same places: an append that is
/// repeated must be whole.
fn batches(events: Vec<(String, NewEvent)>, events_max: usize) -> Vec<Append> {
    let mut appends: Vec<Append> = Vec::new();
    let (mut count, mut bytes) = (usize::MAX, 0_usize);
    for (stream, event) in events {
        let size = event.data.len().saturating_add(event.metadata.len()).saturating_add(EVENT_OVERHEAD_BYTES);
        if count >= events_max || bytes.saturating_add(size) > APPEND_BYTES_SOFT_MAX {
            appends.push(Append::default());
            (count, bytes) = (0, 0);
        }
        (count, bytes) = (count.saturating_add(1), bytes.saturating_add(size));
        let Some(writes) = appends.last_mut().map(|append| &mut append.writes) else { continue };
        match writes.last_mut().filter(|write| write.stream == stream) {
            Some(write) => write.events.push(event),
            None => writes.push(Write { stream, expected: Expected::Any, events: vec![event] }),
        }
    }
    appends
}

fn read_all(file: &Path) -> anyhow::Result<Vec<u8>> {
    if file != Path::new("-") {
        return std::fs::read(file).advise(format!("cannot read {}", file.display()), "name a file that you can read");
    }
    let mut text = Vec::new();
    std::io::stdin().lock().read_to_end(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate::events::Operation;

    fn event(number: u128, bytes: usize) -> NewEvent {
        let id = EventId(number.to_be_bytes());
        NewEvent { id, kind: "x".into(), data: vec![0; bytes].into(), ..NewEvent::default() }
    }

    #[test]
    fn batches_keep_the_order_and_fit() {
        let sizes = [10, 600_000, 600_000, 1 << 20, 1 << 20, 10, 10];
        let events: Vec<_> =
            (0_u128..).zip(sizes).map(|(number, bytes)| (format!("s-{}", number % 3), event(number, bytes))).collect();
        let appends = batches(events.clone(), 2);
        let flat = appends.iter().flat_map(|append| &append.writes);
        let flat: Vec<_> =
            flat.flat_map(|write| write.events.iter().map(|event| (write.stream.clone(), event.clone()))).collect();
        assert!(flat == events);
        for append in appends {
            assert!(append.writes.iter().map(|write| write.events.len()).sum::<usize>() <= 2);
            assert!(Operation::Append(append).encode().is_ok());
        }
    }

    #[test]
    fn the_id_of_a_line_is_that_of_its_file_and_its_place() {
        let defaults = Defaults { stream: Some("s".into()), kind: Some("k".into()), raw: true };
        let ids = |text: &str| -> Vec<_> {
            events(text.as_bytes(), "f", &defaults).expect("lines").into_iter().map(|(_, event)| event.id).collect()
        };
        let (one, other) = (ids("1\n1\n"), ids("1\n1\n1\n"));
        assert_eq!(one, ids("1\n1\n"));
        assert_ne!(one[0], one[1]);
        assert_ne!(one[0], other[0]);
        assert!(events(b"1\nnot json\n", "f", &defaults).is_err());
    }
}
