//! `quorate verify`: is a replica's disk whole?

use crate::errors::failure;
use clap::Args;
use quorate_store::{RealDisk, inspect};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Read every byte of a replica's folder and say what is damaged; changes nothing
#[derive(Debug, Args)]
#[command(after_help = "Example:
  quorate verify --dir cluster/replica-0

Exit status 1 if anything is damaged. A replica repairs most damage from the others when it starts; what it cannot repair,
it says. The replica should be down: what a running one is just writing looks damaged.")]
pub struct Arguments {
    /// The replica's folder, or its data folder
    #[arg(long)]
    dir: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If it is no replica's folder, or cannot be read.
pub fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let data = data_folder(&arguments.dir)?;
    let spinner = crate::progress::Progress::start("verify", "files", 0);
    let inspection = inspect(&RealDisk::open(&data)?);
    spinner.finish();
    let inspection = inspection?;
    print!("{inspection}");
    if inspection.is_intact() {
        println!("{} is whole", data.display());
        return Ok(ExitCode::SUCCESS);
    }
    println!(
        "{} is DAMAGED; start the replica: it repairs from the others what it can, and says what it cannot",
        data.display()
    );
    Ok(ExitCode::FAILURE)
}

fn data_folder(dir: &Path) -> anyhow::Result<PathBuf> {
    let below = dir.join("data");
    let data = if below.is_dir() { below } else { dir.to_owned() };
    let looks_like_one = ["superblock", "wal", "snapshots"].iter().any(|name| data.join(name).exists());
    if looks_like_one {
        return Ok(data);
    }
    let what = format!("{} is not the folder of a replica that has run", dir.display());
    Err(failure(what, "name a folder like cluster/replica-0, or its data folder"))
}
