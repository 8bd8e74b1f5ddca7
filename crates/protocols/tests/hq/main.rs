//! HQ: a cluster in the hands of the test, some of whose replicas and clients lie.

mod answers;
mod attacks;
mod believed;
mod bounds;
mod clients;
mod contention;
mod counts;
mod cut;
mod disk;
#[allow(dead_code, reason = "each protocol's tests use a part of it")]
#[path = "../support/harness.rs"]
mod harness;
mod in_order;
mod malformed;
mod module;
mod ordered;
mod paper;
mod pitfalls;
mod progress;
mod recovery;
mod rejoin;
mod room;
mod several;
mod sizes;
mod taken;
mod tape;
mod together;
mod total;
mod turns;
mod words;

/// The protocol that the harness drives.
mod subject {
    pub use quorate_protocols::hq::{Config, Hq as Subject, Message, Record};
}
