//! What a gateway counts, as Prometheus reads it. Names that etcd has are etcd's.

use crate::store::Store;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;
use quorate_machines::kv::Status;
use std::sync::Arc;
use std::time::Duration;
use tonic::Code;

/// How long the cluster may take to say how it is; then the page says that it did not.
const PATIENCE: Duration = Duration::from_secs(1);

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    registry: Registry,
    started: Family<Method, Counter>,
    handled: Family<Handled, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    connections: Gauge,
    connections_refused: Counter,
    streams: Gauge,
    watches: Gauge,
    has_leader: Gauge,
    revision: Gauge,
    compact_revision: Gauge,
    keys: Gauge,
    bytes: Gauge,
    leases: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    grpc_service: &'static str,
    grpc_method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Handled {
    grpc_service: &'static str,
    grpc_method: &'static str,
    grpc_code: &'static str,
}

impl Metrics {
    pub fn new() -> Self {
        let mut registry = Registry::default();
        let buckets: fn() -> Histogram = || Histogram::new(exponential_buckets(0.0001, 2.0, 18));
        let inner = Inner {
            started: Family::default(),
            handled: Family::default(),
            seconds: Family::new_with_constructor(buckets),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            streams: Gauge::default(),
            watches: Gauge::default(),
            has_leader: Gauge::default(),
            revision: Gauge::default(),
            compact_revision: Gauge::default(),
            keys: Gauge::default(),
            bytes: Gauge::default(),
            leases: Gauge::default(),
            registry: Registry::default(),
        };
        registry.register("grpc_server_started", "Calls that began", inner.started.clone());
        registry.register("grpc_server_handled", "Calls that were answered, by gRPC's code", inner.handled.clone());
        registry.register("grpc_server_handling_seconds", "From a call to its answer", inner.seconds.clone());
        registry.register("quorate_gateway_connections", "Open connections", inner.connections.clone());
        let refused = inner.connections_refused.clone();
        registry.register("quorate_gateway_connections_refused", "Connections beyond the limit", refused);
        registry.register("etcd_debugging_mvcc_watch_stream_total", "Watch streams", inner.streams.clone());
        registry.register("etcd_debugging_mvcc_watcher_total", "Watches", inner.watches.clone());
        registry.register("etcd_server_has_leader", "Whether the cluster answers", inner.has_leader.clone());
        registry.register("etcd_debugging_mvcc_current_revision", "The revision", inner.revision.clone());
        let compact = inner.compact_revision.clone();
        registry.register("etcd_debugging_mvcc_compact_revision", "The last compaction's revision", compact);
        registry.register("etcd_debugging_mvcc_keys_total", "Keys", inner.keys.clone());
        registry.register("etcd_mvcc_db_total_size_in_bytes", "Bytes of keys and values kept", inner.bytes.clone());
        registry.register("etcd_debugging_lease_current", "Leases", inner.leases.clone());
        Self(Arc::new(Inner { registry, ..inner }))
    }

    /// What counts the calls of a method; found once, since finding it costs more than counting.
    pub fn of(&self, service: &'static str, method: &'static str) -> Counted {
        let labels = Method { grpc_service: service, grpc_method: method };
        Counted {
            started: self.0.started.get_or_create_owned(&labels),
            answered: self.0.handled.get_or_create_owned(&handled(service, method, 0)),
            seconds: self.0.seconds.get_or_create_owned(&labels),
        }
    }

    /// A call was refused.
    pub fn refused(&self, service: &'static str, method: &'static str, code: i32, took: Duration) {
        self.0.handled.get_or_create(&handled(service, method, code)).inc();
        let method = Method { grpc_service: service, grpc_method: method };
        self.0.seconds.get_or_create(&method).observe(took.as_secs_f64());
    }

    /// A connection, counted as long as the value lives.
    pub fn connection(&self) -> impl Drop + Send + use<> {
        self.0.connections.inc();
        Open(self.0.connections.clone())
    }

    /// A connection beyond the limit.
    pub fn connection_refused(&self) {
        self.0.connections_refused.inc();
    }

    /// The page.
    pub async fn page(&self, store: &Store, streams: usize, watches: usize) -> String {
        let status = tokio::time::timeout(PATIENCE, store.status()).await;
        let inner = &self.0;
        inner.streams.set(i64::try_from(streams).unwrap_or(i64::MAX));
        inner.watches.set(i64::try_from(watches).unwrap_or(i64::MAX));
        match status {
            Ok(Ok(status)) => inner.set(&status),
            Ok(Err(_)) | Err(_) => drop(inner.has_leader.set(0)),
        }
        let mut page = String::new();
        let written = encode(&mut page, &inner.registry);
        if written.is_err() { String::new() } else { page }
    }
}

impl Inner {
    fn set(&self, status: &Status) {
        let signed = crate::convert::signed;
        self.has_leader.set(1);
        self.revision.set(status.revision);
        self.compact_revision.set(status.compact_revision);
        self.keys.set(signed(status.keys));
        self.bytes.set(signed(status.bytes));
        self.leases.set(signed(status.leases));
    }
}

/// Counts the calls of one method.
#[derive(Clone, Debug)]
pub struct Counted {
    started: Counter,
    answered: Counter,
    seconds: Histogram,
}

impl Counted {
    /// A call begins.
    pub fn started(&self) {
        self.started.inc();
    }

    /// It was answered, and not refused.
    pub fn answered(&self, took: Duration) {
        self.answered.inc();
        self.seconds.observe(took.as_secs_f64());
    }
}

fn handled(service: &'static str, method: &'static str, code: i32) -> Handled {
    Handled { grpc_service: service, grpc_method: method, grpc_code: code_name(code) }
}

/// The names that etcd's own metrics have for gRPC's codes.
fn code_name(code: i32) -> &'static str {
    match Code::from_i32(code) {
        Code::Ok => "OK",
        Code::Cancelled => "Canceled",
        Code::Unknown => "Unknown",
        Code::InvalidArgument => "InvalidArgument",
        Code::DeadlineExceeded => "DeadlineExceeded",
        Code::NotFound => "NotFound",
        Code::AlreadyExists => "AlreadyExists",
        Code::PermissionDenied => "PermissionDenied",
        Code::ResourceExhausted => "ResourceExhausted",
        Code::FailedPrecondition => "FailedPrecondition",
        Code::Aborted => "Aborted",
        Code::OutOfRange => "OutOfRange",
        Code::Unimplemented => "Unimplemented",
        Code::Internal => "Internal",
        Code::Unavailable => "Unavailable",
        Code::DataLoss => "DataLoss",
        Code::Unauthenticated => "Unauthenticated",
    }
}

struct Open(Gauge);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}
