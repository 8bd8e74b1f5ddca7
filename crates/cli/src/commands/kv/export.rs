//! `quorate kv export`: everything as of one moment.

use super::{Pages, bytes, write_line};
use crate::cluster::Connection;
use crate::errors::Advise;
use crate::progress::Progress;
use crate::text::{count, thousands};
use clap::Args;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

/// What `export` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv export > everything.tsv
  quorate kv export user/ users.tsv

All pages are read at the revision at which the export began, so the lines are one consistent state, in the order of their
keys. What is written can be read by `quorate kv import`.")]
pub struct Arguments {
    /// Only keys that start with it
    #[arg(default_value = "")]
    prefix: OsString,
    /// Where to; `-` for stdout. A file appears under its name when it is complete
    #[arg(default_value = "-")]
    file: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Why it could not be done; a file is then left as it was.
pub async fn run(connection: &Connection, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut pages = Pages::new(bytes(arguments.prefix));
    if arguments.file.as_os_str() == "-" {
        let mut out = BufWriter::new(io::stdout().lock());
        let lines = write(connection, &mut pages, &mut out).await?;
        out.flush()?;
        eprintln!("exported {}", count(lines, "key"));
        return Ok(ExitCode::SUCCESS);
    }
    let shown = arguments.file.display().to_string();
    let mut unfinished = arguments.file.clone().into_os_string();
    unfinished.push(".unfinished");
    let file = File::create(&unfinished).advise(format!("cannot write {shown}"), "choose a file that you may write")?;
    let mut out = BufWriter::new(file);
    let written = async {
        let lines = write(connection, &mut pages, &mut out).await?;
        out.flush()?;
        out.get_ref().sync_all()?;
        std::fs::rename(&unfinished, &arguments.file)?;
        anyhow::Ok(lines)
    };
    match written.await {
        Ok(lines) => eprintln!("exported {} to {shown}", count(lines, "key")),
        Err(error) => {
            let _nothing_to_remove = std::fs::remove_file(&unfinished);
            return Err(error);
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn write(connection: &Connection, pages: &mut Pages, out: &mut impl Write) -> anyhow::Result<u64> {
    let mut lines = 0_u64;
    let mut progress: Option<Progress> = None;
    while let Some(page) = pages.next(connection, u64::MAX).await? {
        for found in &page {
            write_line(out, found).explain(format!("the export stopped after {} lines", thousands(lines)))?;
            lines = lines.saturating_add(1);
        }
        progress.get_or_insert_with(|| Progress::start("export", "keys", pages.total)).add(page.len() as u64);
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(lines)
}
