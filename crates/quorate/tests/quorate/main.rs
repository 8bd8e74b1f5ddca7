//! The library as its users meet it: clusters in one process, on real sockets and disks.

mod blocks;
mod brokers;
mod cluster;
mod events;
mod hq;
