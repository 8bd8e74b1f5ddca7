//! `quorate events group` and `consume`: consumers that share the events of a source.

use super::{From, Store};
use crate::text::thousands;
use clap::{Args, Subcommand};
use quorate::events::{NewGroup, Operation, Query, Response, Settings, Source};
use quorate_server::events::line::print;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How often a consumer asks when nothing was hinted: events that others kept too long come back without a hint.
const ASK_EVERY: Duration = Duration::from_secs(2);

/// What can be done with groups.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a group
    #[command(after_help = "Example:\n  quorate events group create mail --category account --type opened")]
    Create(Create),
    /// Print the names of all groups
    List,
    /// Print how a group is: its lag, what is with consumers, what is parked and why
    Show {
        /// The group
        group: String,
    },
    /// Forget a group
    Delete {
        /// The group
        group: String,
    },
    /// Give out parked events again
    Unpark {
        /// The group
        group: String,
        /// They are done with, instead
        #[arg(long)]
        discard: bool,
    },
}

/// What `group create` is told.
#[derive(Debug, Args)]
pub struct Create {
    /// Its name
    group: String,
    #[command(flatten)]
    from: From,
    /// The first number that it gives out
    #[arg(long = "from", default_value_t = 1, value_name = "NUMBER")]
    start: u64,
    /// After so long without an acknowledgement, somebody else gets the event
    #[arg(long, default_value_t = 30, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    retry_after: u64,
    /// After so many attempts, an event is parked
    #[arg(long, default_value_t = 10)]
    attempts: u32,
    /// Events that are with consumers at a time
    #[arg(long, default_value_t = 256)]
    in_flight: u32,
}

/// What `consume` is told.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate events consume mail --consumer worker-1

Each line is an object with the event, its `number` in the group's source and which `attempt` it is. An event is acknowledged
when its line is written; if the consumer dies in between, somebody else gets it.")]
pub struct Consume {
    /// The group
    group: String,
    /// The name of this consumer
    #[arg(long)]
    consumer: String,
    /// Stop after so many events
    #[arg(long)]
    count: Option<u64>,
    /// Stop when there is nothing left
    #[arg(long)]
    until_empty: bool,
}

/// Runs `group`.
///
/// # Errors
/// Why it could not be done.
pub async fn run(store: &Store, command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Create(create) => {
            let settings = Settings {
                retry_after_nanos: create.retry_after.saturating_mul(1_000_000_000),
                attempts_max: create.attempts,
                in_flight_max: create.in_flight,
            };
            let (source, filter, from) = (create.from.source(), create.from.filter(), create.start);
            let new = NewGroup { group: create.group, source, filter, from, settings };
            store.done(&Operation::CreateGroup(new)).await
        }
        Command::List => {
            let reply = store.explain(store.store.query(&Query::Groups).await)?;
            if let Response::Groups(groups) = reply.result? {
                groups.iter().try_for_each(|group| writeln!(io::stdout(), "{group}"))?;
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Show { group } => show(store, group).await,
        Command::Delete { group } => store.done(&Operation::DeleteGroup { group }).await,
        Command::Unpark { group, discard } => store.done(&Operation::Unpark { group, replay: !discard }).await,
    }
}

async fn show(store: &Store, group: String) -> anyhow::Result<ExitCode> {
    let info = store.explain(store.store.group(group).await)?;
    let source = match &info.group.source {
        Source::All => "all events".to_owned(),
        Source::Category(category) => format!("the category `{category}`"),
        Source::Stream(stream) => format!("the stream `{stream}`"),
    };
    let lag = info.head.saturating_add(1).saturating_sub(info.next);
    let mut out = io::stdout().lock();
    writeln!(out, "{} shares {source}", info.group.group)?;
    writeln!(out, "  next         {} of {} ({} behind)", thousands(info.next), thousands(info.head), thousands(lag))?;
    writeln!(out, "  with consumers  {}", thousands(info.in_flight))?;
    writeln!(out, "  to be retried   {}", thousands(info.waiting))?;
    writeln!(out, "  finished        {}", thousands(info.finished))?;
    writeln!(out, "  parked          {}", thousands(info.parked_count))?;
    for parked in &info.parked {
        writeln!(out, "    {} after {} attempts: {}", parked.number, parked.attempts, parked.reason)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Runs `consume`.
///
/// # Errors
/// Why it could not be done.
pub async fn consume(store: &Store, arguments: Consume) -> anyhow::Result<ExitCode> {
    let mut news = store.store.news();
    let mut left = arguments.count.unwrap_or(u64::MAX);
    while left > 0 {
        let limit = u32::try_from(left).unwrap_or(0);
        let taken = store.explain(store.store.take(&arguments.group, &arguments.consumer, limit).await)?;
        if taken.events.is_empty() {
            if arguments.until_empty && taken.end {
                break;
            }
            let _whichever = tokio::time::timeout(ASK_EVERY, news.wait()).await;
            continue;
        }
        let mut out = io::BufWriter::new(io::stdout().lock());
        for delivery in &taken.events {
            let mut line: Value = serde_json::from_str(&print(&delivery.event)?)?;
            if let Some(object) = line.as_object_mut() {
                object.insert("number".to_owned(), delivery.number.into());
                object.insert("attempt".to_owned(), delivery.attempt.into());
            }
            writeln!(out, "{line}")?;
        }
        out.flush()?;
        left = left.saturating_sub(taken.events.len() as u64);
        let numbers = taken.events.iter().map(|delivery| delivery.number).collect();
        store.explain(store.store.ack(&arguments.group, numbers).await)?;
    }
    Ok(ExitCode::SUCCESS)
}
