//! PBFT: a cluster in the hands of the test, some of whose replicas lie.

mod attacks;
mod chaos;
mod clients;
mod harness;
mod paper;
mod pitfalls;
mod recovery;
#[path = "../vr/tape.rs"]
mod tape;
mod words;
