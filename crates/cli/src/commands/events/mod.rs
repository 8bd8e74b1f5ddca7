//! `quorate events`: the event store.

mod append;
mod group;
mod project;
mod read;
mod subscribe;
mod verify;

use crate::cluster::{ClusterArgs, Connection};
use crate::errors::Advise;
use crate::served::Machine;
use clap::{Args, Subcommand};
use quorate::events::{EventId, EventStore, EventsError, Expected, Filter, Operation, Response, Source, StoreError};
use std::process::ExitCode;

/// Use the event store (a cluster that was started with --events)
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate dev --events                                             in another terminal
  quorate events append --stream account-1 --type opened --data '{\"owner\":\"Ann\"}'
  quorate events append --file events.jsonl
  quorate events read --stream account-1
  quorate events subscribe --category account
  quorate events project --all --by type --out counts.json

A stream's versions and the store's positions count from 1 without gaps. What stands before the first - of a stream's name is
its category.")]
pub struct Arguments {
    #[command(flatten)]
    cluster: ClusterArgs,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Append one event, or all of a file, in order
    Append(append::Arguments),
    /// Print the events of a stream, of a category, or all
    Read(read::Arguments),
    /// Print the streams
    Streams(read::StreamsArguments),
    /// Print events as they come, across failures, without loss or repetition
    Subscribe(subscribe::Arguments),
    /// Keep a count or a sum over events in a file, exactly once for each event
    Project(project::Arguments),
    /// Share events among consumers: make groups, look at them, decide about parked events
    #[command(subcommand)]
    Group(group::Command),
    /// Take events of a group, print them, and acknowledge them
    Consume(group::Consume),
    /// Hide the events of a stream before a version
    #[command(after_help = "Example:\n  quorate events truncate account-1 --before 100")]
    Truncate {
        /// The stream
        stream: String,
        /// The first version that stays
        #[arg(long, value_name = "VERSION")]
        before: u64,
    },
    /// Hide all events of a stream; an append brings the stream back, with versions that go on
    #[command(after_help = "Example:\n  quorate events delete account-1 --expected 12")]
    Delete {
        /// The stream
        stream: String,
        /// Only if the stream is at this version
        #[arg(long, value_name = "any|none|VERSION", default_value = "any", value_parser = expected)]
        expected: Expected,
        /// Nobody shall ever append to it again
        #[arg(long)]
        forever: bool,
    },
    /// Free the memory of all hidden events
    Scavenge,
    Verify(verify::Arguments),
}

/// Runs the command.
///
/// # Errors
/// Why it could not be done.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    if let Command::Verify(arguments) = &arguments.command {
        return verify::run(arguments);
    }
    let connection = arguments.cluster.connect()?;
    connection.must_replicate(Machine::Events)?;
    let store = EventStore::over(connection.client.clone(), connection.another()?.client);
    let store = Store { connection, store };
    match arguments.command {
        Command::Append(arguments) => {
            let at_level = store.store.at_criticality(arguments.criticality());
            append::run(&Store { store: at_level, ..store }, arguments).await
        }
        Command::Read(arguments) => read::run(&store, arguments).await,
        Command::Streams(arguments) => read::streams(&store, arguments).await,
        Command::Subscribe(arguments) => subscribe::run(&store, arguments).await,
        Command::Project(arguments) => project::run(&store, arguments).await,
        Command::Group(command) => group::run(&store, command).await,
        Command::Consume(arguments) => group::consume(&store, arguments).await,
        Command::Truncate { stream, before } => store.done(&Operation::Truncate { stream, before }).await,
        Command::Delete { stream, expected, forever } => {
            store.done(&Operation::Delete { stream, expected, forever }).await
        }
        Command::Scavenge => scavenge(&store).await,
        Command::Verify(_) => unreachable!("it needs no connection and was run above"),
    }
}

/// An event store, and what explains its errors.
struct Store {
    connection: Connection,
    store: EventStore,
}

impl Store {
    /// A result in words.
    fn explain<T>(&self, result: Result<T, StoreError>) -> anyhow::Result<T> {
        result.map_err(|error| match error {
            StoreError::Client(error) => self.connection.explain(error),
            StoreError::Refused(error) => explain_refusal(error),
        })
    }

    /// Applies an operation that is done or refused.
    async fn done(&self, operation: &Operation) -> anyhow::Result<ExitCode> {
        let reply = self.explain(self.store.apply(operation).await)?;
        self.explain(reply.result.map_err(StoreError::from))?;
        Ok(ExitCode::SUCCESS)
    }
}

fn explain_refusal(error: EventsError) -> anyhow::Error {
    let advice = match &error {
        EventsError::WrongVersion { .. } => "nothing was changed; read the stream, and append what still makes sense",
        EventsError::IdReused { .. } => "nothing was changed; give each event an id of its own",
        EventsError::NoGroup { .. } => "make it: quorate events group create --help",
        EventsError::GroupFull { .. } => "see why with `quorate events group show`, then unpark them",
        _ => "nothing was changed",
    };
    let words = error.to_string();
    match Err::<(), _>(error).advise(words, advice) {
        Err(error) => error,
        Ok(()) => anyhow::Error::msg(advice),
    }
}

async fn scavenge(store: &Store) -> anyhow::Result<ExitCode> {
    let mut all = 0_u64;
    loop {
        let reply = store.explain(store.store.apply(&Operation::Scavenge { limit: 0 }).await)?;
        let Response::Scavenged { freed, left } = reply.result? else { return Err(EventsError::Undecodable.into()) };
        all = all.saturating_add(freed);
        if left == 0 {
            println!("freed {}", crate::text::count(all, "hidden event"));
            return Ok(ExitCode::SUCCESS);
        }
    }
}

/// Where events are read from.
#[derive(Clone, Debug, Args)]
struct From {
    /// The events of one stream
    #[arg(long, conflicts_with_all = ["category", "all"])]
    stream: Option<String>,
    /// The events of all streams of a category
    #[arg(long, conflicts_with = "all")]
    category: Option<String>,
    /// All events (what is read if nothing is named)
    #[arg(long)]
    all: bool,
    /// Only events of this type; may be given several times
    #[arg(long = "type", value_name = "TYPE")]
    kinds: Vec<String>,
    /// Only events with this correlation
    #[arg(long, value_name = "ID")]
    correlation: Option<EventId>,
}

impl From {
    fn source(&self) -> Source {
        match (&self.stream, &self.category) {
            (Some(stream), _) => Source::Stream(stream.clone()),
            (None, Some(category)) => Source::Category(category.clone()),
            (None, None) => Source::All,
        }
    }

    fn filter(&self) -> Filter {
        Filter { kinds: self.kinds.clone(), correlation: self.correlation }
    }
}

/// `any`, `none`, or a version.
fn expected(text: &str) -> Result<Expected, String> {
    match text {
        "any" => Ok(Expected::Any),
        "none" => Ok(Expected::NoStream),
        _ => text.parse().map(Expected::Exact).map_err(|_| "write any, none, or a version".to_owned()),
    }
}
