//! The command as its users meet it: real processes, disks and sockets. One program, since each would have to hold everything.

mod async_tob;
mod bad_input;
mod brokers;
mod browser;
mod common;
mod controller;
mod crash;
mod damage;
mod dashboard;
mod etcd;
mod etcd_snapshot;
mod etcd_tls;
mod etcd_users;
mod events;
mod events_http;
mod events_verify;
mod hotstuff;
mod hq;
mod lost_disk;
mod main_job;
mod operations;
mod pbft;
#[path = "../../../nats/tests/support/mod.rs"]
mod server;
mod sync_tob;
mod top;
mod watch;
