//! Every bound of the event store, with its unit in its name. All replicas must agree on them: they are part of the machine.

/// Longest name of a stream, a group or a consumer, in bytes.
pub const NAME_BYTES_MAX: usize = 512;
/// Longest type of an event, in bytes.
pub const KIND_BYTES_MAX: usize = 256;
/// Longest data of an event, in bytes.
pub const DATA_BYTES_MAX: usize = 1024 * 1024;
/// Longest metadata of an event, in bytes.
pub const METADATA_BYTES_MAX: usize = 64 * 1024;
/// Longest operation or query, in bytes: what a session takes.
pub const OPERATION_BYTES_MAX: usize = quorate_core::sessions::OPERATION_BYTES_MAX;
/// Most writes of one append.
pub const WRITES_MAX: usize = 4096;
/// Most events that one append brings, of all streams together.
pub const APPEND_EVENTS_MAX: usize = 4096;
/// Most events of one page.
pub const READ_EVENTS_MAX: u32 = 4096;
/// Bytes of events after which a page ends. A page has one event at least, so it may have one event more than this.
pub const READ_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Events that one read looks at, whether its filter takes them or not, before the page ends.
pub const READ_SCANNED_MAX: usize = 20_000;
/// Most types that a filter names.
pub const FILTER_KINDS_MAX: usize = 64;
/// Most streams or groups of one page of a list.
pub const LIST_MAX: u32 = 4096;
/// Most hidden events whose memory one scavenge frees.
pub const SCAVENGE_EVENTS_MAX: u32 = 10_000;
/// Most groups.
pub const GROUPS_MAX: usize = 1024;
/// Most events of one group that are with consumers at a time.
pub const GROUP_IN_FLIGHT_MAX: u32 = 4096;
/// Most events that a group has set aside; then it gives out nothing more until somebody has decided about them.
pub const GROUP_PARKED_MAX: usize = 10_000;
/// Bytes of events after which a take ends: its answer is kept in the session until the client has acknowledged it.
pub const TAKE_BYTES_SOFT_MAX: usize = 1024 * 1024;
/// Most numbers in one ack or nack.
pub const ACK_NUMBERS_MAX: usize = 4096;
/// Longest reason of a nack, in bytes.
pub const REASON_BYTES_MAX: usize = 512;
/// Longest time for which a consumer may keep an event, in nanoseconds: a day.
pub const RETRY_AFTER_NANOS_MAX: u64 = 86_400 * 1_000_000_000;
/// Highest position that a snapshot may claim: far from overflow, and out of reach by counting.
pub const POSITION_MAX: u64 = 1 << 62;
