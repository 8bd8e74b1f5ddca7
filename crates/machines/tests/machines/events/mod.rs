//! The event store: one file for each part of its behaviour, a model that it must agree with, and the laws of machines.

mod appending;
mod bench;
mod groups;
mod hiding;
mod model;
mod reading;
mod snapshots;
