//! `quorate kv export`: everything as of one moment.

use super::format::Format;
use super::{Pages, bytes};
use crate::cluster::Connection;
use crate::errors::{Advise, failure};
use crate::progress::Progress;
use crate::text::{count, thousands};
use clap::Args;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What `export` is told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate kv export everything.tsv
  quorate kv export users.tsv --prefix user/
  quorate kv export | gzip > everything.tsv.gz

All pages are read at the revision at which the export began, so the lines are one consistent state, in the order of their
keys. `quorate kv import` reads what is written: each line is key, tab, value, byte for byte. A key with a tab, or anything
with a newline, cannot be written like that: the export stops there and says so. With --escaped everything can be written;
give --escaped to the import too.")]
pub struct Arguments {
    /// The file to write; `-` is stdout. It appears under its name when it is complete
    #[arg(default_value = "-")]
    file: PathBuf,
    /// Only keys that start with it
    #[arg(long, default_value = "", hide_default_value = true)]
    prefix: OsString,
    /// Write a tab as \t, a newline as \n and a backslash as \\
    #[arg(long)]
    escaped: bool,
}

/// Runs the command.
///
/// # Errors
/// Why it could not be done; a file is then left as it was.
pub async fn run(connection: &Connection, arguments: Arguments) -> anyhow::Result<ExitCode> {
    let pages = Pages::new(bytes(arguments.prefix));
    let format = Format::new(arguments.escaped);
    let mut export = Export { connection, pages, format };
    let shown = arguments.file.display();
    if arguments.file.as_os_str() == "-" {
        let lines = export.write(io::stdout().lock()).await?.0;
        eprintln!("exported {}", count(lines, "key"));
        return Ok(ExitCode::SUCCESS);
    }
    let lines = match fs::metadata(&arguments.file) {
        Ok(it) if it.is_dir() => return Err(failure(format!("{shown} is a folder, not a file"), "name a file in it")),
        // A device or a pipe: nothing to replace.
        Ok(it) if !it.is_file() => export.write(create(&arguments.file, &arguments.file)?).await?.0,
        _ => export.replace(&arguments.file).await?,
    };
    eprintln!("exported {} to {shown}", count(lines, "key"));
    Ok(ExitCode::SUCCESS)
}

struct Export<'a> {
    connection: &'a Connection,
    pages: Pages,
    format: Format,
}

impl Export<'_> {
    /// Writes a file beside the one that is wanted, and puts it in its place when it is complete.
    async fn replace(&mut self, file: &Path) -> anyhow::Result<u64> {
        let target = fs::canonicalize(file).unwrap_or_else(|_| file.to_owned()); // what a link leads to
        let mut unfinished = target.clone().into_os_string();
        unfinished.push(".unfinished");
        let unfinished = PathBuf::from(unfinished);
        let out = create(&unfinished, file)?;
        let written = async {
            let (lines, out) = self.write(out).await?;
            out.sync_all()?;
            fs::rename(&unfinished, &target)?;
            anyhow::Ok(lines)
        };
        let written = written.await;
        if written.is_err() {
            let _nothing_to_remove = fs::remove_file(&unfinished);
        }
        written
    }

    /// Writes all lines. How many, and where they went.
    async fn write<W: Write>(&mut self, out: W) -> anyhow::Result<(u64, W)> {
        let mut out = BufWriter::new(out);
        let mut lines = 0_u64;
        let mut progress: Option<Progress> = None;
        while let Some(page) = self.pages.next(self.connection, u64::MAX).await? {
            for found in &page {
                if let Some(why) = self.format.refuses(&found.key, &found.value) {
                    out.flush()?;
                    let advice = "export with --escaped, and import that with --escaped";
                    return Err(failure(format!("{why}; the export stopped after {}", count(lines, "line")), advice));
                }
                let written = self.format.write(&mut out, &found.key, &found.value);
                written.explain(format!("the export stopped after {} lines", thousands(lines)))?;
                lines = lines.saturating_add(1);
            }
            progress.get_or_insert_with(|| Progress::start("export", "keys", self.pages.total)).add(page.len() as u64);
        }
        if let Some(progress) = progress {
            progress.finish();
        }
        let out = out.into_inner().map_err(io::IntoInnerError::into_error);
        Ok((
            lines,
            out.explain(format!("the export stopped before all of its {} lines were written", thousands(lines)))?,
        ))
    }
}

fn create(file: &Path, named: &Path) -> anyhow::Result<File> {
    File::create(file).advise(
        format!("cannot write {}", named.display()),
        "choose a file in a folder that exists and that you may write",
    )
}
