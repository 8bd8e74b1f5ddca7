//! The host: links, files, and replicas on real sockets and disks.

mod client;
mod common;
mod files;
mod frame;
mod host;
mod link;
mod link_attacks;
mod support;
