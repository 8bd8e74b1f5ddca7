//! `quorate events project`: a count, a sum or the latest of each key, kept in a file.
//!
//! The file holds the state *and* where in the source it is, and is replaced as a whole: each event counts once, whatever fails
//! between. The reducers are pure: the same events give the same file.

use super::subscribe::replace;
use super::{From, Store};
use crate::errors::{Advise, failure};
use crate::text::count;
use clap::Args;
use quorate::events::{Item, Read, Recorded};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
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
    /// Begin again from the first event
    #[arg(long)]
    rebuild: bool,
    /// Go on with what comes, until it is stopped
    #[arg(long)]
    follow: bool,
}

/// What a projection is: a file with another one is not gone on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Definition {
    source: String,
    types: Vec<String>,
    correlation: Option<String>,
    by: String,
    reducer: Reducer,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Reducer {
    Count,
    Sum(String),
    Latest,
}

/// The file.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Projection {
    definition: Definition,
    /// The first number that is not in the state.
    next: u64,
    state: BTreeMap<String, Value>,
}

/// Runs the command.
///
/// # Errors
/// An event that the projection cannot be made of, a file that cannot be gone on with, or a cluster that is away.
pub async fn run(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let definition = definition(&arguments);
    let kept = if arguments.rebuild { None } else { load(&arguments.out, &definition)? };
    let mut projection = kept.unwrap_or_else(|| Projection { definition, next: 1, state: BTreeMap::new() });
    let mut seen = 0_u64;
    let mut read = Read {
        source: arguments.from.source(),
        filter: arguments.from.filter(),
        from: projection.next,
        ..Read::default()
    };
    loop {
        let page = store.explain(store.store.read(read.clone()).await)?;
        projection.take(&page.events, page.next)?;
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
                projection.take(&events, next)?;
                save(&arguments.out, &projection)?;
            }
            Item::Silent(why) => eprintln!("the cluster is not heard ({why}); going on when it is"),
            Item::Heard => eprintln!("the cluster is heard again"),
            Item::Live => {}
        }
    }
}

fn definition(arguments: &Arguments) -> Definition {
    Definition {
        source: match (&arguments.from.stream, &arguments.from.category) {
            (Some(stream), _) => format!("stream {stream}"),
            (None, Some(category)) => format!("category {category}"),
            (None, None) => "all".to_owned(),
        },
        types: arguments.from.kinds.clone(),
        correlation: arguments.from.correlation.map(|id| id.to_string()),
        by: arguments.by.clone(),
        reducer: match (&arguments.sum, arguments.latest) {
            (Some(field), _) => Reducer::Sum(field.clone()),
            (None, true) => Reducer::Latest,
            (None, false) => Reducer::Count,
        },
    }
}

impl Projection {
    /// Takes a page of events in: all of them, or none.
    fn take(&mut self, events: &[Recorded], next: u64) -> anyhow::Result<()> {
        let mut state = std::mem::take(&mut self.state);
        for event in events {
            reduce(&self.definition, &mut state, event).advise(
                format!("the event at position {} cannot be projected", event.position),
                "leave such events out with --type, or choose another field",
            )?;
        }
        (self.state, self.next) = (state, next);
        Ok(())
    }
}

/// The state after an event.
fn reduce(definition: &Definition, state: &mut BTreeMap<String, Value>, event: &Recorded) -> anyhow::Result<()> {
    let data = || serde_json::from_slice::<Value>(&event.data).map_err(|_| anyhow::Error::msg("its data is not JSON"));
    let key = match definition.by.as_str() {
        "stream" => event.stream.clone(),
        "type" => event.kind.clone(),
        field => match at(&data()?, field) {
            Some(Value::String(text)) => text.clone(),
            Some(other) => other.to_string(),
            None => "null".to_owned(),
        },
    };
    let before = state.get(&key).and_then(Value::as_i64).unwrap_or(0);
    let value = match &definition.reducer {
        Reducer::Count => before.saturating_add(1).into(),
        Reducer::Sum(field) => {
            let data = data()?;
            let number = at(&data, field).and_then(Value::as_i64);
            let number = number.ok_or_else(|| anyhow::Error::msg(format!("its data has no whole number `{field}`")))?;
            let sum = before.checked_add(number);
            sum.ok_or_else(|| anyhow::Error::msg("the sum is out of range: 64 bits"))?.into()
        }
        Reducer::Latest => data()?,
    };
    state.insert(key, value);
    Ok(())
}

/// A field of a value, with dots for fields inside fields.
fn at<'a>(data: &'a Value, field: &str) -> Option<&'a Value> {
    field.split('.').try_fold(data, |value, name| value.get(name))
}

fn load(file: &Path, definition: &Definition) -> anyhow::Result<Option<Projection>> {
    let text = match fs::read(file) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.explain(format!("cannot read {}", file.display()))?,
    };
    let advice = "choose another file, or begin again with --rebuild";
    let kept: Projection =
        serde_json::from_slice(&text).advise(format!("{} is no projection", file.display()), advice)?;
    if kept.definition != *definition {
        return Err(failure(format!("{} holds another projection", file.display()), advice));
    }
    Ok(Some(kept))
}

fn save(file: &Path, projection: &Projection) -> anyhow::Result<()> {
    replace(file, &serde_json::to_vec_pretty(projection)?)
}
