//! `quorate events subscribe`: events as they come.

use super::read::write;
use super::{From, Store};
use crate::errors::Advise;
use clap::Args;
use quorate::events::{Item, StoreError, replace_file};
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Between two times that the file is written because nothing of interest has happened.
const PASSED_EVERY: Duration = Duration::from_secs(1);

/// What `subscribe` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate events subscribe --category account
  quorate events subscribe --all --from 1 --json
  quorate events subscribe --all --checkpoint place --json | my-projector

It goes on by itself when replicas fail or the cluster is away, says so on stderr, and neither leaves out nor repeats an event.
With --checkpoint it keeps in a file where it is, after each page that was written: started again, it goes on from there.")]
pub struct Arguments {
    #[command(flatten)]
    from: From,
    /// The first number of interest; without it, what comes from now on
    #[arg(long = "from", value_name = "NUMBER")]
    start: Option<u64>,
    /// Keep in this file where to go on
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Stop after so many events
    #[arg(long)]
    count: Option<u64>,
    /// An object on each line
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// If the first attempt to reach the cluster fails, or something that waiting does not help against.
pub async fn run(store: &Store, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let kept = arguments.checkpoint.as_deref().map(load).transpose()?.flatten();
    let source = arguments.from.source();
    let start = match kept.or(arguments.start) {
        Some(number) => number,
        None => match &arguments.from.stream {
            Some(stream) => match store.store.stream(stream.clone()).await {
                Err(StoreError::Refused(_)) => 1,
                other => store.explain(other)?.version.saturating_add(1),
            },
            None => store.explain(store.store.status().await)?.position.saturating_add(1),
        },
    };
    let mut left = arguments.count.unwrap_or(u64::MAX);
    let mut passed_at = Instant::now();
    let mut subscription = store.store.subscribe(source, arguments.from.filter(), start);
    while left > 0 {
        match store.explain(subscription.next().await)? {
            Item::Events(events, next) => {
                let mut out = io::BufWriter::new(io::stdout().lock());
                let shown = usize::try_from(left).unwrap_or(usize::MAX).min(events.len());
                for event in events.iter().take(shown) {
                    write(&mut out, event, arguments.json)?;
                }
                out.flush()?;
                left = left.saturating_sub(shown as u64);
                let next = events.get(shown).map_or(next, |event| event.number(&arguments.from.source()));
                if let Some(file) = &arguments.checkpoint {
                    replace(file, format!("{next}\n").as_bytes())?;
                }
            }
            Item::Passed(next) => {
                if let Some(file) = &arguments.checkpoint
                    && passed_at.elapsed() >= PASSED_EVERY
                {
                    passed_at = Instant::now();
                    replace(file, format!("{next}\n").as_bytes())?;
                }
            }
            Item::Live => {}
            Item::Silent(why) => {
                eprintln!("the cluster is not heard ({why}); going on from {} when it is", subscription.next_number());
            }
            Item::Heard => eprintln!("the cluster is heard again"),
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn load(file: &Path) -> anyhow::Result<Option<u64>> {
    match fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).explain(format!("cannot read {}", file.display())),
        Ok(text) => text.trim().parse().map(Some).advise(
            format!("{} holds no number", file.display()),
            "name another file, or remove this one to begin where --from says",
        ),
    }
}

/// Replaces a file's contents, all or nothing, also if the power fails.
///
/// # Errors
/// What the system says.
pub fn replace(file: &Path, contents: &[u8]) -> anyhow::Result<()> {
    replace_file(file, contents).explain(format!("cannot write {}", file.display()))
}
