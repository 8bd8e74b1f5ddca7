//! Viewstamped Replication: a cluster in the hands of the test.

mod attacks;
mod chaos;
mod clients;
mod harness;
mod paper;
mod tape;
