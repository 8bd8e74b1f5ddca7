//! Refusals. Texts and codes are etcd's, byte for byte: its clients map errors back *by text*
//! (etcd `api/v3rpc/rpctypes/error.go`). Those that etcd does not have begin with `quorate:`.

use super::limits::{EVENTS_MAX, KEY_BYTES_MAX, OPERATION_BYTES_MAX, REPLY_BYTES_MAX, TXN_DEPTH_MAX, VALUE_BYTES_MAX};
use super::limits::{NAME_BYTES_MAX, PERMISSIONS_PER_ROLE_MAX, ROLES_MAX, ROLES_PER_USER_MAX, USERS_MAX};
use super::limits::{TXN_OPS_MAX, TXN_OPS_TOTAL_MAX};
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt;

/// Why a request was refused. A refused request changed nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum KvError {
    /// The key is empty where one is needed.
    EmptyKey,
    /// `ignore_value` or `ignore_lease` on a key that does not exist.
    KeyNotFound,
    /// `ignore_value` together with a value.
    ValueProvided,
    /// `ignore_lease` together with a lease.
    LeaseProvided,
    /// More than [`TXN_OPS_MAX`] entries in a list of a transaction and those that enclose it, more than
    /// [`TXN_OPS_TOTAL_MAX`] in all, or nesting beyond [`TXN_DEPTH_MAX`].
    TooManyOps,
    /// A transaction that could put one key twice, or put and delete it.
    DuplicateKey,
    /// The revision asked for has been compacted away. The oldest readable one comes with it.
    Compacted {
        /// The revision of the latest compaction: the oldest that can still be read.
        compact_revision: i64,
    },
    /// The revision asked for does not exist yet.
    FutureRevision,
    /// No such lease, or it is over.
    LeaseNotFound,
    /// A lease with the id asked for exists already.
    LeaseExists,
    /// A TTL beyond [`super::limits::LEASE_TTL_SECONDS_MAX`].
    LeaseTtlTooLarge,
    /// A key, value or operation beyond its limit.
    RequestTooLarge(Limit),
    /// The bytes are not a request: unknown tag, truncated, or bytes left over.
    Undecodable,
    /// The answer would be beyond [`REPLY_BYTES_MAX`]: ask for pages with `limit`.
    ReplyTooLarge,
    /// About users and roles.
    Auth(AuthError),
}

/// Which limit a request went beyond.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Limit {
    /// [`KEY_BYTES_MAX`]
    Key,
    /// [`VALUE_BYTES_MAX`]
    Value,
    /// [`OPERATION_BYTES_MAX`]
    Operation,
    /// [`EVENTS_MAX`]
    Events,
    /// [`NAME_BYTES_MAX`]
    Name,
}

/// Why something about users and roles was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuthError {
    /// Users cannot begin to count without one called root.
    RootUserMissing,
    /// Nor without one called root that has the role root.
    RootRoleMissing,
    /// A user with this name exists.
    UserExists,
    /// No user is named, where users count.
    UserEmpty,
    /// No such user.
    UserNotFound,
    /// A role with this name exists.
    RoleExists,
    /// No such role.
    RoleNotFound,
    /// A role without a name.
    RoleEmpty,
    /// The user has no right to do this.
    PermissionDenied,
    /// The user does not have the role.
    RoleNotGranted,
    /// The role does not have the permission.
    PermissionNotGranted,
    /// The user has been deleted, its password changed, or users not counted since it logged in.
    InvalidToken,
    /// While users count, root stays root.
    InvalidManagement,
    /// [`USERS_MAX`]
    TooManyUsers,
    /// [`ROLES_MAX`]
    TooManyRoles,
    /// [`ROLES_PER_USER_MAX`]
    TooManyRolesOfUser,
    /// [`PERMISSIONS_PER_ROLE_MAX`]
    TooManyPermissions,
}

/// gRPC's number for a kind of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Code {
    /// The request is wrong whatever the state.
    InvalidArgument = 3,
    /// What the request names does not exist.
    NotFound = 5,
    /// The user has no right to do this.
    PermissionDenied = 7,
    /// A bound of this server, not of etcd.
    ResourceExhausted = 8,
    /// The state is not one in which this can be done.
    FailedPrecondition = 9,
    /// Beyond what exists or is kept.
    OutOfRange = 11,
    /// Whoever asks has not proved who it is.
    Unauthenticated = 16,
}

impl KvError {
    /// The code and text that an etcd client expects.
    pub const fn etcd(&self) -> (Code, &'static str) {
        use Code::{FailedPrecondition, InvalidArgument, NotFound, OutOfRange, ResourceExhausted};
        match self {
            KvError::EmptyKey => (InvalidArgument, "etcdserver: key is not provided"),
            KvError::KeyNotFound => (InvalidArgument, "etcdserver: key not found"),
            KvError::ValueProvided => (InvalidArgument, "etcdserver: value is provided"),
            KvError::LeaseProvided => (InvalidArgument, "etcdserver: lease is provided"),
            KvError::TooManyOps => (InvalidArgument, "etcdserver: too many operations in txn request"),
            KvError::DuplicateKey => (InvalidArgument, "etcdserver: duplicate key given in txn request"),
            KvError::Compacted { .. } => (OutOfRange, "etcdserver: mvcc: required revision has been compacted"),
            KvError::FutureRevision => (OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            KvError::LeaseNotFound => (NotFound, "etcdserver: requested lease not found"),
            KvError::LeaseExists => (FailedPrecondition, "etcdserver: lease already exists"),
            KvError::LeaseTtlTooLarge => (OutOfRange, "etcdserver: too large lease TTL"),
            KvError::RequestTooLarge(_) => (InvalidArgument, "etcdserver: request is too large"),
            KvError::Undecodable => (InvalidArgument, "quorate: the bytes are not a request"),
            KvError::ReplyTooLarge => (ResourceExhausted, "quorate: the reply is too large, ask for pages with limit"),
            KvError::Auth(error) => error.etcd(),
        }
    }

    /// What etcd's text leaves out: the limit that was passed, the revision that is still there.
    fn detail(&self) -> String {
        match self {
            KvError::Compacted { compact_revision } => format!(" (oldest readable revision: {compact_revision})"),
            KvError::TooManyOps => {
                format!(" (at most {TXN_OPS_MAX} in a list, {TXN_OPS_TOTAL_MAX} in all, {TXN_DEPTH_MAX} levels)")
            }
            KvError::RequestTooLarge(Limit::Key) => format!(" (a key has at most {KEY_BYTES_MAX} bytes)"),
            KvError::RequestTooLarge(Limit::Value) => format!(" (a value has at most {VALUE_BYTES_MAX} bytes)"),
            KvError::RequestTooLarge(Limit::Operation) => format!(" (at most {OPERATION_BYTES_MAX} bytes)"),
            KvError::RequestTooLarge(Limit::Events) => format!(" (at most {EVENTS_MAX} events at a time)"),
            KvError::RequestTooLarge(Limit::Name) => format!(" (a name has at most {NAME_BYTES_MAX} bytes)"),
            KvError::ReplyTooLarge => format!(" (at most {REPLY_BYTES_MAX} bytes)"),
            KvError::Auth(AuthError::TooManyUsers) => format!(" (at most {USERS_MAX})"),
            KvError::Auth(AuthError::TooManyRoles) => format!(" (at most {ROLES_MAX})"),
            KvError::Auth(AuthError::TooManyRolesOfUser) => format!(" (at most {ROLES_PER_USER_MAX})"),
            KvError::Auth(AuthError::TooManyPermissions) => format!(" (at most {PERMISSIONS_PER_ROLE_MAX})"),
            _ => String::new(),
        }
    }
}

impl AuthError {
    const fn etcd(self) -> (Code, &'static str) {
        use Code::{FailedPrecondition, InvalidArgument, PermissionDenied, ResourceExhausted, Unauthenticated};
        match self {
            AuthError::RootUserMissing => (FailedPrecondition, "etcdserver: root user does not exist"),
            AuthError::RootRoleMissing => (FailedPrecondition, "etcdserver: root user does not have root role"),
            AuthError::UserExists => (FailedPrecondition, "etcdserver: user name already exists"),
            AuthError::UserEmpty => (InvalidArgument, "etcdserver: user name is empty"),
            AuthError::UserNotFound => (FailedPrecondition, "etcdserver: user name not found"),
            AuthError::RoleExists => (FailedPrecondition, "etcdserver: role name already exists"),
            AuthError::RoleNotFound => (FailedPrecondition, "etcdserver: role name not found"),
            AuthError::RoleEmpty => (InvalidArgument, "etcdserver: role name is empty"),
            AuthError::PermissionDenied => (PermissionDenied, "etcdserver: permission denied"),
            AuthError::RoleNotGranted => (FailedPrecondition, "etcdserver: role is not granted to the user"),
            AuthError::PermissionNotGranted => {
                (FailedPrecondition, "etcdserver: permission is not granted to the role")
            }
            AuthError::InvalidToken => (Unauthenticated, "etcdserver: invalid auth token"),
            AuthError::InvalidManagement => (InvalidArgument, "etcdserver: invalid auth management"),
            AuthError::TooManyUsers => (ResourceExhausted, "quorate: there are too many users"),
            AuthError::TooManyRoles => (ResourceExhausted, "quorate: there are too many roles"),
            AuthError::TooManyRolesOfUser => (ResourceExhausted, "quorate: the user has too many roles"),
            AuthError::TooManyPermissions => (ResourceExhausted, "quorate: the role has too many permissions"),
        }
    }
}

impl From<AuthError> for KvError {
    fn from(error: AuthError) -> Self {
        KvError::Auth(error)
    }
}

impl fmt::Display for KvError {
    /// etcd's text, then what it leaves out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.etcd().1, self.detail())
    }
}

impl std::error::Error for KvError {}
