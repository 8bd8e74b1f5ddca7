//! Viewstamped Replication: a cluster in the hands of the test.

mod attacks;
#[path = "../support/chaos.rs"]
mod chaos;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/clients.rs"]
mod clients;
mod defects;
#[path = "../support/dice.rs"]
mod dice;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod journal;
mod luck;
mod paper;
mod reads;
mod recovery;
#[path = "../support/tape.rs"]
mod tape;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::vr::{Config, Message, Record, Vr as Subject};
}
