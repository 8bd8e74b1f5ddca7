//! Every bound of the store, with its unit in its name. All replicas must agree on them: they are part of the machine.

/// Longest key, in bytes. etcd has no bound of its own for keys; Kubernetes' longest are below 1 KiB.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Longest value, in bytes. Kubernetes refuses objects beyond 1.5 MB, and warns long before.
pub const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Longest operation or query, in bytes: etcd's request limit of 1.5 MiB plus its 512 KiB of allowance.
pub const OPERATION_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most entries in one list of a transaction; enclosed transactions count down from what enclosing ones left (etcd's rule).
pub const TXN_OPS_MAX: usize = 128;
/// Most compares and operations in a transaction with all that it encloses. etcd has no such bound: 2 MiB of nested
/// transactions there are a hundred thousand operations.
pub const TXN_OPS_TOTAL_MAX: usize = 2_048;
/// Deepest nesting of transactions. etcd's is [`TXN_OPS_MAX`]; nobody is known to use more than one.
pub const TXN_DEPTH_MAX: usize = 16;
/// Most bytes that the ranges of one operation or query may return, each key with [`KEY_OVERHEAD_BYTES`]. Below the 20 MiB of
/// a frame that replicas send to clients: what does not fit into one would never arrive.
pub const REPLY_BYTES_MAX: usize = 16 * 1024 * 1024;
/// What a key in an answer costs besides itself and its value: numbers and lengths, in bytes.
pub const KEY_OVERHEAD_BYTES: usize = 40;
/// Most events that one [`super::Events`] query may ask for.
pub const EVENTS_MAX: u64 = 10_000;
/// Bytes of keys and values after which an [`super::Events`] answer ends at the next revision.
pub const EVENTS_BYTES_SOFT_MAX: usize = 4 * 1024 * 1024;
/// Longest event that is published, in bytes: below the 20 MiB of a frame to a client. The changes of a larger revision are
/// only in history.
pub const EVENT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Changes that one [`super::Events`] query looks at, whatever it finds, before it ends at the next revision.
pub const EVENTS_SCANNED_SOFT_MAX: usize = 20_000;
/// Shortest lease, in seconds: etcd's ⌈1.5 × election timeout⌉ with its default of 1 s. Shorter ones are lengthened.
pub const LEASE_TTL_SECONDS_MIN: i64 = 2;
/// Longest lease, in seconds (etcd's `MaxLeaseTTL`).
pub const LEASE_TTL_SECONDS_MAX: i64 = 9_000_000_000;
/// Highest revision that a snapshot may claim: far from overflow, and out of reach by counting.
pub const REVISION_MAX: i64 = 1 << 62;
/// Longest name of a user or role, in bytes. etcd has no bounds on names, users, roles or permissions.
pub const NAME_BYTES_MAX: usize = 256;
/// Longest hash of a password, in bytes.
pub const PASSWORD_HASH_BYTES_MAX: usize = 256;
/// Most users.
pub const USERS_MAX: usize = 4_096;
/// Most roles.
pub const ROLES_MAX: usize = 4_096;
/// Most roles of one user. With the next one, what one check of a permission may cost.
pub const ROLES_PER_USER_MAX: usize = 16;
/// Most permissions of one role.
pub const PERMISSIONS_PER_ROLE_MAX: usize = 100;
