//! Quorate's host: what turns the sans-IO cores into a process. The encrypted links between replicas and from clients,
//! the keys that stand for identities, the files that say who belongs to a cluster, and the brokers between clients and replicas.

mod apart;
pub mod broker;
pub mod client;
pub mod coin;
pub mod config;
pub mod host;
pub mod keys;
pub mod link;
pub mod local;
pub mod replica;
mod vouched;
