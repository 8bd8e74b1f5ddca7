//! One file for each subcommand.

pub mod bench;
pub mod dev;
pub mod gateway;
pub mod init;
pub mod kv;
pub mod recover;
pub mod serve;
pub mod sim;
pub mod status;
pub mod verify;

use clap::ValueEnum;
use std::fmt;

/// The protocols that can run as real processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Protocol {
    /// Viewstamped Replication: 2f+1 replicas survive f crashes
    #[default]
    Vr,
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Protocol::Vr => f.write_str("vr"),
        }
    }
}
