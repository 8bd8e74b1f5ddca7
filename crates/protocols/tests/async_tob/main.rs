//! Asynchronous total-order broadcast: a cluster in the hands of the test, some of whose replicas lie.

mod agreement;
mod attacks;
#[path = "../support/chaos.rs"]
mod chaos;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/clients.rs"]
mod clients;
#[path = "../support/dice.rs"]
mod dice;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod luck;
mod paper;
mod recovery;
mod silence;
mod stall;
#[path = "../support/tape.rs"]
mod tape;
mod words;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::async_tob::{AsyncTob as Subject, Config, Message, Record};
}
