//! `quorate kv import`: many lines, many requests in flight, each line acknowledged or reported.

mod lines;

use super::format::Format;
use crate::cluster::Connection;
use crate::errors::{Advise, failure};
use crate::progress::Progress;
use crate::text::{count, thousands};
use bytes::Bytes;
use clap::{Args, ValueEnum};
use lines::{Entry, Lines, Source};
use quorate_core::protocol::CallError;
use quorate_machines::kv::{KvError, Operation, Reply};
use quorate_runtime::client::{Client, ClientError};
use std::collections::HashSet;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Bad lines that are reported one by one; further ones are counted.
const REPORTED_MAX: u64 = 20;
/// Before a line that was not acknowledged is sent again.
const RETRY: Duration = Duration::from_millis(100);

/// What `import` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv import packages.tsv
  zcat packages.tsv.gz | quorate kv import - --on-bad-line skip

Each line: key, tab, value, byte for byte: the first tab ends the key, and nothing else means anything special. With
--escaped, \\t stands for a tab, \\n for a newline and \\\\ for a backslash, as `quorate kv export --escaped` writes them.

If a key comes twice, the later line counts. The file is checked before anything is sent. When it ends with status 0, every
line is on the disks of a majority; lines that the cluster did not acknowledge are sent again until it does.")]
pub struct Arguments {
    /// The file; `-` for stdin, which is then read to its end first
    file: PathBuf,
    /// Read \t, \n and \\ as a tab, a newline and a backslash
    #[arg(long)]
    escaped: bool,
    /// What to do if there are bad lines: leave these out (skip), or import nothing (abort)
    #[arg(long, value_name = "WHAT", value_enum, default_value_t = OnBadLine::Abort)]
    on_bad_line: OnBadLine,
    /// Lines that may wait for their acknowledgement at a time
    #[arg(long, value_name = "LINES", default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=1024))]
    in_flight: u16,
    /// Seconds without any acknowledgement after which the import gives up
    #[arg(long, default_value_t = 60, value_name = "SECONDS")]
    give_up_after: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum OnBadLine {
    Skip,
    Abort,
}

/// Runs the command.
///
/// # Errors
/// Bad lines, a file that cannot be read, or a cluster that stays away; with what was imported until then.
pub async fn run(connection: Connection, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let source = Source::open(&arguments.file)?;
    let format = Format::new(arguments.escaped);
    let (good, bad) = check(&source, format)?;
    if good == 0 && bad == 0 {
        println!("{} is empty: there was nothing to import", source.name());
        return Ok(ExitCode::SUCCESS);
    }
    if bad > 0 && arguments.on_bad_line == OnBadLine::Abort {
        return Err(failure(
            format!("{} of {} cannot be imported; nothing was", count(bad, "line"), source.name()),
            "correct them, or leave them out with --on-bad-line skip",
        ));
    }
    let mut import = Import {
        client: connection.client.clone(),
        in_flight: JoinSet::new(),
        keys: HashSet::new(),
        acknowledged: 0,
        last: Instant::now(),
        patience: Duration::from_secs(arguments.give_up_after),
        progress: Progress::start("import", "lines", good),
    };
    let start = Instant::now();
    let result = import.all(&source, format, usize::from(arguments.in_flight)).await;
    import.progress.finish();
    let done = import.acknowledged;
    result
        .map_err(|error| match error.downcast::<ClientError>() {
            Ok(error) => connection.explain(error),
            Err(error) => error,
        })
        .advise(
            format!("the import stopped: {} of {} acknowledged", thousands(done), count(good, "line")),
            "run it again when the cluster answers: importing a line twice changes nothing",
        )?;
    let rate = u128::from(done).saturating_mul(1000) / start.elapsed().as_millis().max(1);
    let seconds = start.elapsed().as_secs_f64();
    let skipped = if bad == 0 { String::new() } else { format!(", {} left out", count(bad, "bad line")) };
    println!("imported {} in {seconds:.1} s ({} a second){skipped}", count(done, "line"), thousands(rate as u64));
    Ok(ExitCode::SUCCESS)
}

/// Reads everything once, and reports the bad lines. How many are good, how many bad.
fn check(source: &Source, format: Format) -> anyhow::Result<(u64, u64)> {
    let (mut good, mut bad) = (0_u64, 0_u64);
    for line in Lines::new(source.reader()?, format) {
        match line?.entry {
            Ok(_) => good = good.saturating_add(1),
            Err(problem) => {
                bad = bad.saturating_add(1);
                if bad <= REPORTED_MAX {
                    eprintln!("{}, {problem}", source.name());
                }
            }
        }
    }
    if bad > REPORTED_MAX {
        eprintln!("{}: {} more", source.name(), count(bad.saturating_sub(REPORTED_MAX), "bad line"));
    }
    Ok((good, bad))
}

struct Import {
    client: Client,
    in_flight: JoinSet<(Entry, Result<(), ClientError>, Option<KvError>)>,
    /// Keys in flight: two lines with one key are never in flight together, so the later one is applied later.
    keys: HashSet<Bytes>,
    acknowledged: u64,
    last: Instant,
    patience: Duration,
    progress: Progress,
}

impl Import {
    async fn all(&mut self, source: &Source, format: Format, in_flight_max: usize) -> anyhow::Result<()> {
        for line in Lines::new(source.reader()?, format) {
            let Ok(entry) = line?.entry else { continue };
            while self.in_flight.len() >= in_flight_max || self.keys.contains(&entry.key) {
                self.wait_for_one().await?;
            }
            self.keys.insert(entry.key.clone());
            self.send(entry, None);
        }
        while !self.in_flight.is_empty() {
            self.wait_for_one().await?;
        }
        Ok(())
    }

    fn send(&mut self, entry: Entry, after: Option<Duration>) {
        let client = self.client.clone();
        self.in_flight.spawn(async move {
            if let Some(after) = after {
                tokio::time::sleep(after).await;
            }
            let bytes = match Operation::put(entry.key.clone(), entry.value.clone()).encode() {
                Ok(bytes) => bytes,
                Err(refusal) => return (entry, Ok(()), Some(refusal)),
            };
            match client.apply(bytes).await {
                Ok(answer) => {
                    let refusal = Reply::decode(&answer.reply).and_then(|reply| reply.result).err();
                    (entry, Ok(()), refusal)
                }
                Err(error) => (entry, Err(error), None),
            }
        });
    }

    async fn wait_for_one(&mut self) -> anyhow::Result<()> {
        let Some(joined) = self.in_flight.join_next().await else { return Ok(()) };
        let (entry, result, refusal) = joined?;
        if let Some(refusal) = refusal {
            let advice = "correct the line and import again";
            return Err(refusal).advise(format!("the store refuses line {}", thousands(entry.line)), advice);
        }
        match result {
            Ok(()) => {
                self.keys.remove(&entry.key);
                self.acknowledged = self.acknowledged.saturating_add(1);
                self.last = Instant::now();
                self.progress.add(1);
                Ok(())
            }
            Err(error) if is_worth_a_retry(&error) && self.last.elapsed() < self.patience => {
                self.send(entry, Some(RETRY)); // a put that was applied after all changes nothing the second time
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn is_worth_a_retry(error: &ClientError) -> bool {
    matches!(error, ClientError::Call { error: CallError::Timeout { .. } | CallError::Evicted { .. }, .. })
}
