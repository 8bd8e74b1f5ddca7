//! `quorate recover`: a replica whose disk is lost comes back without breaking the promises of its old self.

use crate::errors::failure;
use clap::Args;
use std::path::PathBuf;
use std::process::ExitCode;

/// Bring back a replica whose disk was lost
#[derive(Debug, Args)]
pub struct Arguments {
    /// The replica's file
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// Why it is not safe, or not possible.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    Err(failure(format!("{}", arguments.config.display()), ""))
}
