//! The gateway in front of a whole cluster, as etcd's clients meet it: real connections, real replicas, one process.

mod auth;
mod auth_differential;
mod common;
mod differential;
mod events;
mod events_lies;

mod hostile;
mod json;
mod kv;
mod leases;
mod lies;
mod locks;
mod outages;
mod protected;
mod watching;
