//! Every bound of a gateway, with its unit in its name. What the store bounds is in `quorate_machines::kv::limits`.

use std::time::Duration;

/// Connections at a time; further ones are closed at once.
pub const CONNECTIONS_MAX: usize = 1024;
/// Requests and streams of one connection at a time; HTTP/2 tells clients, and they wait.
pub const STREAMS_PER_CONNECTION_MAX: u32 = 1024;
/// Requests of all connections at a time; further ones are refused with `too many requests`.
pub const REQUESTS_MAX: usize = 2048;
/// Watch, keep-alive and other streams of all connections at a time; further ones are refused likewise.
pub const STREAMS_MAX: usize = 16_384;
/// Longest message, in bytes: etcd's 1.5 MiB for a request and its allowance of 512 KiB for what surrounds it.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// Longest operation that the cluster takes, in bytes, as the client encodes it.
pub const OPERATION_BYTES_MAX: usize = quorate_core::sessions::OPERATION_BYTES_MAX;
/// Longest list of HTTP headers, in bytes.
pub const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// How long a connection may take to send its first request's headers (HTTP/1).
pub const HEADERS_PATIENCE: Duration = Duration::from_secs(10);
/// How long a handshake may take.
pub const HANDSHAKE_PATIENCE: Duration = Duration::from_secs(10);
/// How long the body of a JSON request may take to arrive.
pub const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Silence after which an HTTP/2 connection is asked whether it is still there, and how long it may take to say so.
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
/// See [`KEEPALIVE_INTERVAL`].
pub const KEEPALIVE_PATIENCE: Duration = Duration::from_secs(20);
/// Keys that are read at a time when a range is too large for one answer of the cluster; fewer if they are long.
pub const PAGE_KEYS_MAX: u64 = 1024;
/// Bytes of keys and values of a range that is read in pages; beyond it, clients ask for pages themselves.
pub const RANGE_BYTES_MAX: usize = 256 << 20;
/// Watches of one stream.
pub const WATCHES_PER_STREAM_MAX: usize = 4096;
/// Responses that wait for a slow client of a stream; then its stream waits, and reads history again.
pub const RESPONSES_WAITING_MAX: usize = 16;
/// Revisions that all watch streams share without asking the cluster.
pub const RECENT_REVISIONS_MAX: usize = 8192;
/// Bytes of keys and values of these revisions.
pub const RECENT_BYTES_MAX: usize = 16 << 20;
/// Bytes of events after which a watch response ends with the revision that it is in.
pub const WATCH_RESPONSE_BYTES_SOFT_MAX: usize = 1 << 20;
/// Bytes of a watch response beyond which a watch that asked for fragments gets them.
pub const FRAGMENT_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// JSON values in the body of one request to a streaming call.
pub const JSON_REQUESTS_MAX: usize = 1024;
/// How long the cluster may take to answer: etcd's patience with its default election timeout.
pub const CALL_PATIENCE: Duration = Duration::from_secs(7);
/// How long a token holds, if nothing ends it before and the gateway's file does not say otherwise. etcd's end 5 minutes after
/// they were last used; ours cannot be prolonged, so they hold for a day.
pub const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest password, in bytes: what bcrypt looks at.
pub const PASSWORD_BYTES_MAX: usize = 71;
/// Passwords that are hashed at a time.
pub const HASHES_AT_A_TIME_MAX: usize = 2;
/// Passwords that wait to be hashed; further ones are refused with `too many requests`.
pub const HASHES_WAITING_MAX: usize = 64;
/// Bytes of one message of a snapshot.
pub const SNAPSHOT_BLOB_BYTES: usize = 32 << 10;
/// Snapshots at a time: each is a file on the gateway's disk.
pub const SNAPSHOTS_MAX: usize = 1;
