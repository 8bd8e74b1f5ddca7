//! Reception: a cluster in the hands of the test, a broker that does its worst, and replicas and clients that lie.

mod attacks;
mod audit;
mod broker;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/clients.rs"]
mod clients;
mod compare;
mod criticality;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod overload;
mod paper;
mod recovery;
mod shares;
#[path = "../support/tape.rs"]
mod tape;
mod words;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::reception::{Config, Message, Reception as Subject, Record};
}
