//! The etcd v3 API in front of a replicated key-value store, under whichever protocol replicates it.
//!
//! # What it promises
//! A *gateway* is a client of the cluster with a public interface: gRPC and JSON on one port. What etcd's clients can
//! observe through the calls that are offered is what they would observe with etcd; `offered` names the calls that are not.
//! What it answers, the cluster's client has believed by its protocol's rule. It keeps no state that matters: kill it and
//! start another.
//!
//! # Where it deviates from etcd
//! - `MemberList` names the replicas, but the URL of each is this gateway's: replicas themselves do not speak etcd's API.
//! - `HashKV` and `Hash` answer for the present revision, with four bytes of the digest of the whole history.
//! - A token holds for a time that its use does not prolong, at every gateway with the same key.
//! - `Snapshot` is a database of etcd's, which etcd starts from and Quorate does not.
//! - The details that etcd's error texts leave out are in the metadata `quorate-detail`; the texts are etcd's own, since
//!   clients compare them.
//!
//! # How to read it
//! A request's way: [`listen`] accepts connections, `http` tells gRPC, JSON and plain pages apart, `codec` bounds what is
//! decoded, `access` says who asks, `kv`, `lease`, `watch`, `lock`, `election`, `auth`, `maintenance`, `snapshot` answer, through `store`,
//! which is the client of the cluster. `convert` translates messages, `errors` refusals. [`events`] is the same for a cluster that
//! replicates an event store: HTTP, JSON and server-sent events on the same listener.

mod access;
mod auth;
mod codec;
mod config;
mod convert;
pub mod dashboard;
mod election;
mod errors;
pub mod events;
mod gateway;
mod http;
mod hub;
mod json;
mod kv;
mod lease;
pub mod limits;
pub mod listen;
mod lock;
mod maintenance;
mod metrics;
mod offered;
mod pages;
mod passwords;
pub mod proto;
mod snapshot;
mod store;
mod turn;
mod watch;

pub use config::{GatewayConfig, GatewayConfigError};
pub use errors::EtcdError;
pub use events::EventsGateway;
pub use gateway::{Gateway, GatewayError, Options};
