//! `quorate kv`: the key-value store.

mod export;
mod format;
mod import;
mod watch;

use crate::cluster::{ClusterArgs, Connection};
use crate::errors::failure;
use crate::served::{Machine, Protocol};
use crate::text::json_bytes;
use bytes::Bytes;
use clap::{Args, Subcommand};
use format::Format;
use quorate_core::protocol::Consistency;
use quorate_machines::kv::{Expected, KeyValue, Operation, Query, Range, Reply, TxnOpResponse};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::process::ExitCode;

/// Use the key-value store
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv put greeting hello
  quorate kv get greeting
  quorate kv import packages.tsv
  quorate kv export copy.tsv")]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a key
    #[command(after_help = "Examples:\n  quorate kv put greeting hello\n  quorate kv put photo - < photo.jpg")]
    Put {
        /// The key
        key: OsString,
        /// The value; `-` reads it from stdin
        value: OsString,
    },
    /// Print the value of a key; exit status 1 if there is none
    #[command(after_help = "Example:\n  quorate kv get greeting")]
    Get {
        /// The key
        key: OsString,
        /// Print an object with the key, the value and its revisions
        #[arg(long)]
        json: bool,
    },
    /// Delete a key; exit status 1 if there is none
    #[command(after_help = "Examples:\n  quorate kv del greeting\n  quorate kv del --prefix user/")]
    Del {
        /// The key
        key: OsString,
        /// Delete all keys that start with it, and print how many there were
        #[arg(long)]
        prefix: bool,
    },
    /// Print the keys that start with a prefix, and their values
    #[command(after_help = "Example:
  quorate kv range user/ --limit 10

Each line: key, tab, value. In both, a tab is written \\t, a newline \\n and a backslash \\\\, so that a line stays a line.")]
    Range {
        /// The prefix; all keys without one
        #[arg(default_value = "")]
        prefix: OsString,
        /// At most so many keys
        #[arg(long)]
        limit: Option<u64>,
        /// An object on each line, with the revisions too
        #[arg(long)]
        json: bool,
    },
    /// Write a key if it is what you expect (compare and swap); exit status 1 if it is not
    #[command(after_help = "Examples:\n  quorate kv cas leader --absent me\n  quorate kv cas leader --expect me you")]
    Cas {
        /// The key
        key: OsString,
        /// The value that it must have
        #[arg(long, value_name = "VALUE", required_unless_present = "absent", conflicts_with = "absent")]
        expect: Option<OsString>,
        /// It must not exist
        #[arg(long)]
        absent: bool,
        /// The new value
        value: OsString,
    },
    /// Print changes as they happen, across failures, without loss or repetition
    Watch(watch::Arguments),
    /// Write all lines of a file to the store: key, tab, value
    Import(import::Arguments),
    /// Write all keys and values, as of one moment, to a file or stdout: key, tab, value
    Export(export::Arguments),
}

/// Runs the command.
///
/// # Errors
/// Why it could not be done.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let connection = arguments.cluster.connect()?;
    connection.must_replicate(Machine::Kv)?;
    match arguments.command {
        Command::Put { key, value } => put(&connection, bytes(key), value).await,
        Command::Get { key, json } => get(&connection, bytes(key), json).await,
        Command::Del { key, prefix } => del(&connection, bytes(key), prefix).await,
        Command::Range { prefix, limit, json } => range(&connection, bytes(prefix), limit, json).await,
        Command::Cas { key, expect, absent: _, value } => {
            let expected = expect.map_or(Expected::Absent, |value| Expected::Value(bytes(value)));
            cas(&connection, bytes(key), expected, bytes(value)).await
        }
        Command::Watch(_) if Protocol::named(&connection.config.protocol).is_some_and(|it| !it.has_one_order()) => {
            let what = format!(
                "under `{}` each key has an order of its own: there is no order of changes to watch",
                connection.config.protocol
            );
            Err(failure(
                what,
                "read the keys that you want to follow, or use a cluster of another protocol, such as hq-total",
            ))
        }
        Command::Watch(arguments) => watch::run(&connection, arguments).await,
        Command::Import(arguments) => import::run(connection, arguments).await,
        Command::Export(arguments) => export::run(&connection, arguments).await,
    }
}

fn bytes(argument: OsString) -> Bytes {
    argument.into_vec().into()
}

async fn put(connection: &Connection, key: Bytes, value: OsString) -> anyhow::Result<ExitCode> {
    let value = if value == "-" {
        let mut value = Vec::new();
        io::stdin().lock().read_to_end(&mut value)?;
        value.into()
    } else {
        bytes(value)
    };
    connection.apply(&Operation::put(key, value)).await?.result?;
    Ok(ExitCode::SUCCESS)
}

async fn get(connection: &Connection, key: Bytes, json: bool) -> anyhow::Result<ExitCode> {
    let (reply, _) = connection.query(Consistency::Linearizable, &Query::get(key)).await?;
    let Some(found) = reply.get()? else { return Ok(ExitCode::FAILURE) };
    let mut out = io::stdout().lock();
    if json {
        writeln!(out, "{}", json_line(&found))?;
    } else {
        out.write_all(&found.value)?;
        out.write_all(b"\n")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn del(connection: &Connection, key: Bytes, prefix: bool) -> anyhow::Result<ExitCode> {
    let operation = if prefix { Operation::delete_prefix(key) } else { Operation::delete(key) };
    let deleted = connection.apply(&operation).await?.deleted()?;
    if prefix {
        writeln!(io::stdout(), "{deleted}")?;
        return Ok(ExitCode::SUCCESS);
    }
    Ok(if deleted == 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn range(connection: &Connection, prefix: Bytes, limit: Option<u64>, json: bool) -> anyhow::Result<ExitCode> {
    let mut pages = Pages::new(prefix);
    let mut left = limit.unwrap_or(u64::MAX);
    let mut out = BufWriter::new(io::stdout().lock());
    while left > 0
        && let Some(page) = pages.next(connection, left).await?
    {
        for found in &page {
            if json {
                writeln!(out, "{}", json_line(found))?;
            } else {
                Format::Escaped.write(&mut out, &found.key, &found.value)?;
            }
        }
        left = left.saturating_sub(page.len() as u64);
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

async fn cas(connection: &Connection, key: Bytes, expected: Expected, value: Bytes) -> anyhow::Result<ExitCode> {
    let reply: Reply = connection.apply(&Operation::compare_and_swap(key, expected, value)).await?;
    let txn = reply.txn()?;
    if txn.succeeded {
        return Ok(ExitCode::SUCCESS);
    }
    let found = match txn.responses.into_iter().next().map(|step| step.response) {
        Some(TxnOpResponse::Range(range)) => range.kvs.into_iter().next(),
        _ => None,
    };
    let what = match found {
        Some(found) => format!("the key is not what you expected; its value is `{}`", found.value.escape_ascii()),
        None => "the key is not what you expected; it does not exist".to_owned(),
    };
    Err(failure(what, "read it again and decide anew; nothing was changed"))
}

fn json_line(found: &KeyValue) -> Value {
    let mut object = Map::new();
    json_bytes(&mut object, "key", &found.key);
    json_bytes(&mut object, "value", &found.value);
    object.insert("create_revision".to_owned(), found.create_revision.into());
    object.insert("mod_revision".to_owned(), found.mod_revision.into());
    object.insert("version".to_owned(), found.version.into());
    Value::Object(object)
}

/// Reads all keys with a prefix, page by page, as they were at one revision: that of the first page.
struct Pages {
    range: Option<Range>,
    consistency: Consistency,
    size: u64,
    /// Keys in the range, in all; known from the first page on.
    total: u64,
}

impl Pages {
    /// Keys of the first page, when nobody knows yet how long values are: a longest one fits into a frame so often.
    const SIZE_FIRST: u64 = 16;
    const SIZE_MAX: u64 = 4096;
    /// What a page is meant to hold.
    const BYTES_AIM: usize = 1 << 20;

    fn new(prefix: Bytes) -> Self {
        let range = Some(Range::prefix(prefix));
        Self { range, consistency: Consistency::Linearizable, size: Self::SIZE_FIRST, total: 0 }
    }

    /// The next page, of at most `limit` keys; `None` after the last.
    async fn next(&mut self, connection: &Connection, limit: u64) -> anyhow::Result<Option<Vec<KeyValue>>> {
        let Some(mut range) = self.range.take() else { return Ok(None) };
        range.limit = self.size.min(limit);
        let (reply, op) = connection.query(self.consistency, &Query::Range(range.clone())).await?;
        let revision = if range.revision == 0 { reply.revision } else { range.revision };
        let found = reply.range()?;
        if self.consistency == Consistency::Linearizable {
            self.total = found.count;
            // Whoever has applied that entry answers the same for that revision.
            self.consistency = Consistency::Stale { at_least: op };
        }
        let bytes: usize = found.kvs.iter().map(|kv| kv.key.len().saturating_add(kv.value.len())).sum();
        let each = (bytes / found.kvs.len().max(1)).max(1);
        let fits = (Self::BYTES_AIM / each) as u64;
        self.size = fits.clamp(Self::SIZE_FIRST, self.size.saturating_mul(8).min(Self::SIZE_MAX));
        if found.more
            && let Some(last) = found.kvs.last()
        {
            self.range = Some(range.after(&last.key, revision));
        }
        Ok((!found.kvs.is_empty()).then_some(found.kvs))
    }
}
