//! Synchronous total-order broadcast: a cluster in the hands of the test, some of whose replicas lie.

mod attacks;
mod bounds;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/clients.rs"]
mod clients;
mod diverged;
mod gaps;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod names;
mod paper;
mod recovery;
mod seals;
mod silence;
#[path = "../support/tape.rs"]
mod tape;
mod views;
mod words;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::sync_tob::{Config, Message, Record, SyncTob as Subject};
}
