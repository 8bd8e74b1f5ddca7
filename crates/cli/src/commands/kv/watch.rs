//! `quorate kv watch`: changes as they happen. The stream is one replica's, or what enough of them tell alike where one may lie;
//! it is checked against revisions, and every gap is read from history. So a broken connection, a slow terminal or a new
//! primary neither loses nor repeats a change.

use super::bytes;
use crate::cluster::Connection;
use crate::text::{escape, json_bytes};
use bytes::Bytes;
use clap::Args;
use quorate_core::protocol::Consistency;
use quorate_core::wire::Wire;
use quorate_machines::kv::{Event, EventKind, KvError, Query, Response, WATCH_TOPIC, WatchBatch};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// Between two attempts to reach a cluster that does not answer.
const RETRY: Duration = Duration::from_millis(500);

/// What `watch` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv watch
  quorate kv watch user/ --from 1 --json

Each line: revision, `put` or `delete`, key, value, with tabs between them. In key and value, a tab is written \\t, a newline
\\n and a backslash \\\\.")]
pub struct Arguments {
    /// Only keys that start with it
    #[arg(default_value = "")]
    prefix: OsString,
    /// From this revision on, including what happened since; without it, what happens from now on
    #[arg(long, value_name = "REVISION", value_parser = clap::value_parser!(i64).range(1..))]
    from: Option<i64>,
    /// Stop after so many changes
    #[arg(long)]
    count: Option<u64>,
    /// An object on each line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the first attempt to read finds no cluster, or history was compacted away. Later failures are waited out.
pub async fn run(connection: &Connection, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let prefix = bytes(arguments.prefix);
    let next = match arguments.from {
        Some(revision) => revision,
        None => {
            let (reply, _) = connection.query(Consistency::Linearizable, &Query::Status).await?;
            reply.revision.saturating_add(1)
        }
    };
    let left = arguments.count.unwrap_or(u64::MAX);
    let mut watch = Watch { connection, prefix, next, left, json: arguments.json };
    if arguments.from.is_some() {
        watch.catch_up().await?;
    }
    while watch.left > 0 {
        watch.follow().await?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Watch<'a> {
    connection: &'a Connection,
    prefix: Bytes,
    /// The first revision that has not been printed.
    next: i64,
    left: u64,
    json: bool,
}

impl Watch<'_> {
    /// Follows one replica until its stream ends.
    async fn follow(&mut self) -> anyhow::Result<()> {
        let mut stream = match self.connection.client.watch(WATCH_TOPIC).await {
            Ok(stream) => stream,
            Err(error) => return self.wait_out(self.connection.explain(error)).await,
        };
        // What is applied from here on is in the stream; what came before is in history.
        if let Err(error) = self.catch_up().await {
            return self.wait_out(error).await;
        }
        while self.left > 0 {
            let Some(events) = stream.recv().await else { return Ok(()) };
            for event in events {
                let Ok(batch) = WatchBatch::decode(&event.bytes) else { return Ok(()) };
                if batch.revision > self.next || (batch.revision == self.next && batch.events.is_empty()) {
                    if let Err(error) = self.catch_up().await {
                        return self.wait_out(error).await;
                    }
                } else if batch.revision == self.next {
                    self.print(&batch)?;
                    self.next = self.next.saturating_add(1);
                }
            }
        }
        Ok(())
    }

    /// Prints history from `next` on.
    async fn catch_up(&mut self) -> anyhow::Result<()> {
        let mut from_change = 0;
        while self.left > 0 {
            let Query::Events(events) = Query::events(self.prefix.clone(), self.next) else { return Ok(()) };
            let query = Query::EventsPart { events, from_change };
            let (reply, _) = self.connection.query(Consistency::Linearizable, &query).await?;
            let present = reply.revision;
            let Response::EventsPart(found) = reply.result? else { return Err(KvError::Undecodable.into()) };
            for batch in &found.batches {
                self.print(batch)?;
            }
            self.next = self.next.max(found.next_revision);
            from_change = found.next_change;
            if self.next > present {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A cluster that does not answer may come back; a history that is gone, or nobody who reads us, does not.
    async fn wait_out(&self, error: anyhow::Error) -> anyhow::Result<()> {
        if error.is::<KvError>() || error.is::<io::Error>() {
            return Err(error);
        }
        eprintln!("{error}; trying again from revision {}", self.next);
        tokio::time::sleep(RETRY).await;
        Ok(())
    }

    fn print(&mut self, batch: &WatchBatch) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for event in batch.events.iter().filter(|event| event.kv.key.starts_with(&self.prefix)) {
            if self.left == 0 {
                break;
            }
            self.left = self.left.saturating_sub(1);
            if self.json {
                writeln!(out, "{}", json_line(batch.revision, event))?;
            } else {
                write!(out, "{}\t{}\t", batch.revision, kind(event))?;
                out.write_all(&escape(&event.kv.key))?;
                out.write_all(b"\t")?;
                out.write_all(&escape(&event.kv.value))?;
                out.write_all(b"\n")?;
            }
        }
        out.flush()
    }
}

fn kind(event: &Event) -> &'static str {
    match event.kind {
        EventKind::Put => "put",
        EventKind::Delete => "delete",
    }
}

fn json_line(revision: i64, event: &Event) -> Value {
    let mut object = Map::new();
    object.insert("revision".to_owned(), revision.into());
    object.insert("kind".to_owned(), kind(event).into());
    json_bytes(&mut object, "key", &event.kv.key);
    if event.kind == EventKind::Put {
        json_bytes(&mut object, "value", &event.kv.value);
    }
    Value::Object(object)
}
