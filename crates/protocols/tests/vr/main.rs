//! Viewstamped Replication: a cluster in the hands of the test.

mod attacks;
mod chaos;
mod clients;
mod defects;
mod harness;
mod journal;
mod paper;
mod reads;
mod recovery;
mod tape;
