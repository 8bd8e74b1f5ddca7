//! `quorate events project`: a count, a sum or the latest of each key, kept in a file.
//!
//! What is made of an event, [`quorate_server::events::tally`] says. The file holds the state *and* where in the source it is, and
//! is replaced as a whole: each event counts once, whatever fails between. The reducers are pure: the same events give the same
//! file.

use super::subscribe::replace;
use super::{From, Store};
use crate::errors::{Advise, failure};
use crate::text::count;
use clap::Args;
use quorate::events::{Item, Read, Recorded};
use quorate_server::events::tally::{Definition, Reducer, Tally};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `project` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events project --all --by type --out counts.json
  quorate events project --category account --by stream --sum amount --out balances.json --follow
  quorate events project --stream repo-1 --by author --out commits.json

The file holds the state and where in the source it is: run again, it goes on from there, and each event counts once.")]
pub struct Arguments {
    #[command(flatten)]
    from: From,
    /// What has a number of its own: `stream`, `type`, or a field of the data, with dots for fields inside fields
    #[arg(long, value_name = "KEY")]
    by: String,
    /// Add up this field of the data, a whole number; without it, events are counted
    #[arg(long, value_name = "FIELD", conflicts_with = "latest")]
    sum: Option<String>,
    /// Keep the data of the latest event of each key
    #[arg(long)]
    latest: bool,
    /// The file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Begin again
    #[arg(long)]
    rebuild: bool,
    /// The first number that counts
    #[arg(long = "from", default_value_t = 1, value_name = "NUMBER")]
    begin: u64,
    /// Go on with what comes, until it is stopped
    #[arg(long)]
    follow: bool,
}

/// Runs the command.
///
/// # Errors
/// An event that the projection cannot be made of, a file that cannot be gone on with, or a cluster that is away.
pub async fn run(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let definition = definition(&arguments);
    let kept = if arguments.rebuild { None } else { load(&arguments.out, &definition)? };
    let mut projection = kept.unwrap_or_else(|| Tally::new(definition));
    let mut seen = 0_u64;
    let mut read = Read {
        source: arguments.from.source(),
        filter: arguments.from.filter(),
        from: projection.next,
        ..Read::default()
    };
    loop {
        let page = store.explain(store.store.read(read.clone()).await)?;
        take(&mut projection, &page.events, page.next)?;
        save(&arguments.out, &projection)?;
        seen = seen.saturating_add(page.events.len() as u64);
        read.from = page.next;
        if page.end {
            break;
        }
    }
    let (file, keys) = (arguments.out.display(), count(projection.state.len() as u64, "key"));
    println!("{file} has {keys} after {} more, up to {}", count(seen, "event"), projection.next.saturating_sub(1));
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut subscription = store.store.subscribe(read.source, read.filter, read.from);
    loop {
        match store.explain(subscription.next().await)? {
            Item::Events(events, next) => {
                take(&mut projection, &events, next)?;
                save(&arguments.out, &projection)?;
            }
            Item::Silent(why) => eprintln!("the cluster is not heard ({why}); going on when it is"),
            Item::Heard => eprintln!("the cluster is heard again"),
            Item::Live | Item::Passed(_) => {}
        }
    }
}

fn definition(arguments: &Arguments) -> Definition {
    let reducer = match (&arguments.sum, arguments.latest) {
        (Some(field), _) => Reducer::Sum(field.clone()),
        (None, true) => Reducer::Latest,
        (None, false) => Reducer::Count,
    };
    let (source, filter) = (arguments.from.source(), arguments.from.filter());
    Definition::new(&source, &filter, arguments.begin, arguments.by.clone(), reducer)
}

/// Takes a page of events in: all of them, or none.
fn take(tally: &mut Tally, events: &[Recorded], next: u64) -> anyhow::Result<()> {
    tally
        .take(events, next)
        .map_err(|error| failure(error.to_string(), "leave such events out with --type, or choose another field"))
}

fn load(file: &Path, definition: &Definition) -> anyhow::Result<Option<Tally>> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.explain(format!("cannot read {}", file.display()))?,
    };
    let advice = "choose another file, or begin again with --rebuild";
    let kept: Tally = serde_json::from_slice(&text).advise(format!("{} is no projection", file.display()), advice)?;
    if kept.definition != *definition {
        return Err(failure(format!("{} holds another projection", file.display()), advice));
    }
    Ok(Some(kept))
}

fn save(file: &Path, projection: &Tally) -> anyhow::Result<()> {
    replace(file, &serde_json::to_vec_pretty(projection)?)
}
