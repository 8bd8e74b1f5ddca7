//! The machines that are replicated: what etcd and an event store would answer, models that they must agree with, and the laws
//! of machines.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod auth;
mod common;
mod counter;
mod errors_and_limits;
mod events;
mod formats;
mod laws;
mod leases;
mod model;
mod own_keys;
mod puts_and_ranges;
mod snapshots;
mod transactions;
mod watching;
