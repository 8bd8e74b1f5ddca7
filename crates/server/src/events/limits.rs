//! Every bound of the HTTP interface, with its unit in its name. Connections and headers are bounded by [`crate::limits`], what an
//! append or a read may be by [`quorate::events::limits`].

use std::time::Duration;

/// Requests that are answered at a time, of all connections, until their answers have been read; further ones are refused with
/// status 429.
pub const REQUESTS_MAX: usize = 128;
/// Subscriptions, and consumers that wait for events, at a time; further ones are refused with status 429. Each holds one page of
/// events while its reader is slow.
pub const SUBSCRIPTIONS_MAX: usize = 256;
/// Longest body of a request, in bytes. An append of the longest data, in hexadecimal, fits.
pub const BODY_BYTES_MAX: usize = 4 << 20;
/// Bytes of bodies that are held at a time, of all requests; further ones wait.
pub const BODIES_BYTES_MAX: usize = 64 << 20;
/// How long a body may take to arrive, and to find room.
pub const BODY_PATIENCE: Duration = Duration::from_secs(30);
/// Longest query of a request's address, in bytes.
pub const QUERY_BYTES_MAX: usize = 16 << 10;
/// Longest `Idempotency-Key`, in bytes.
pub const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;
/// Events that a read gives if it does not say how many.
pub const READ_EVENTS_DEFAULT: u32 = 256;
/// Events that a subscription reads at a time.
pub const SUBSCRIPTION_PAGE_EVENTS: u32 = 256;
/// Silence after which a subscription says that it is still there.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// Between two words of a subscription that nothing of interest has happened up to a number.
pub const PASSED_EVERY: Duration = Duration::from_secs(1);
/// Longest that a `take` may wait for events, in seconds.
pub const TAKE_WAIT_SECONDS_MAX: u64 = 60;
/// How often a `take` that waits asks without a hint: events that others kept too long come back without one.
pub const TAKE_ASK_EVERY: Duration = Duration::from_secs(2);
/// How long the cluster may take to answer a call.
pub const CALL_PATIENCE: Duration = Duration::from_secs(10);
/// Projections that are kept to go on from; the one that was asked for longest ago goes first.
pub const PROJECTIONS_MAX: usize = 16;
/// Keys of a projection.
pub const PROJECTION_KEYS_MAX: usize = 100_000;
/// Bytes of a projection's keys and values.
pub const PROJECTION_BYTES_MAX: usize = 8 << 20;
/// How long a request for a projection may read events; then it is told how far it has come, and asks again.
pub const PROJECTION_PATIENCE: Duration = Duration::from_secs(20);
