//! The event store: one file for each part of its behaviour, a model that it must agree with, and the laws of machines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod appending;
mod bench;
mod groups;
mod hiding;
mod model;
mod reading;
mod snapshots;
