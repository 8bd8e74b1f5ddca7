//! One file for each subcommand.

pub mod bench;
pub mod controller;
pub mod dashboard;
pub mod dev;
pub mod events;
pub mod gateway;
pub mod init;
pub mod kv;
pub mod recover;
pub mod serve;
pub mod sim;
pub mod status;
pub mod top;
pub mod verify;

pub use crate::served::{Machine, Protocol};
