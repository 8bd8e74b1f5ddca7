//! Users, roles and permissions: etcd's, decided by the machine.
//!
//! Whoever asks for something through a gateway comes with a label, [`Who`]: the user that the gateway has made sure of, and
//! since when. Whether that user may do it is decided where it is done, at its place in the log, or in the state that a query
//! reads. So no gateway holds rights, a right that was taken away ends with the operation that took it, and all replicas
//! agree. Passwords never come here: a gateway sends their hashes, and asks for one to compare.
//!
//! What has no label has all rights: it comes from a program that holds a key of the cluster, and that could as well claim to
//! be `root`.
//!
//! # Where we deviate from etcd
//! - Rights are looked at in transactions at every depth (etcd 3.4: not in nested ones), and for a put within a transaction
//!   as for one outside: what it reads with `prev_kv`, and the lease that it names.
//! - Whoever is nobody may do nothing, where users count; etcd 3.4 lets nobody grant and renew leases, and compact.
//! - The keys of a lease are told only to who may read them (etcd since 3.4.26).
//! - Names, users, roles and permissions are bounded ([`super::limits`]).

mod permit;
mod state;

pub(super) use permit::{operation as permit_operation, query as permit_query};
pub(super) use state::{Auth, Role, User};

use super::error::{KvError, Limit};
use super::limits::{KEY_BYTES_MAX, NAME_BYTES_MAX, PASSWORD_HASH_BYTES_MAX};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;

/// The user, and the role, that may do everything; etcd's name for both.
pub const ROOT: &str = "root";

/// Who asks for something, as a gateway has made sure of.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Who {
    /// The user's name; empty: nobody.
    pub user: String,
    /// The revision of users and roles at which the user proved who it is. What it proved is void once its password has been
    /// changed, it has been deleted, or users were not counted.
    pub since: u64,
}

/// Changes users, roles, or whether they count.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuthOperation {
    /// Users count from now on. There must be a user `root` with the role `root`.
    Enable,
    /// Users do not count any more; they are kept.
    Disable,
    /// Adds a user.
    UserAdd {
        /// Its name; not empty.
        name: String,
        /// How its password can be recognised; `None`: it has none, and does not log in with one.
        hash: Option<String>,
    },
    /// Deletes a user.
    UserDelete {
        /// Its name.
        name: String,
    },
    /// Gives a user another password, and ends its logins. A user without a password stays without, as in etcd.
    UserChangePassword {
        /// Its name.
        name: String,
        /// How its password can be recognised; `None`: it has none any more.
        hash: Option<String>,
    },
    /// Gives a user a role. One that it has already is no error.
    UserGrantRole {
        /// The user's name.
        name: String,
        /// The role's name; it must exist, unless it is `root`.
        role: String,
    },
    /// Takes a role from a user.
    UserRevokeRole {
        /// The user's name.
        name: String,
        /// The role's name.
        role: String,
    },
    /// Adds a role without permissions.
    RoleAdd {
        /// Its name; not empty.
        name: String,
    },
    /// Deletes a role, and takes it from whoever has it.
    RoleDelete {
        /// Its name.
        name: String,
    },
    /// Gives a role a permission; one for the same keys is replaced.
    RoleGrantPermission {
        /// The role's name.
        name: String,
        /// What it may do.
        permission: Permission,
    },
    /// Takes a permission from a role.
    RoleRevokePermission {
        /// The role's name.
        name: String,
        /// The first key of the permission.
        key: Bytes,
        /// Its end: exactly as it was given.
        range_end: Bytes,
    },
}

/// What may be done with a range of keys.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Permission {
    /// What.
    pub kind: PermissionKind,
    /// The first key.
    pub key: Bytes,
    /// As in [`super::DeleteRange::range_end`].
    pub range_end: Bytes,
}

/// What may be done with keys. The numbers are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum PermissionKind {
    /// They may be read and watched.
    Read,
    /// They may be written and deleted.
    Write,
    /// Both.
    ReadWrite,
}

/// Reads users and roles.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuthQuery {
    /// Whether users count, and the revision of users and roles.
    Status,
    /// The roles of a user.
    User {
        /// Its name.
        name: String,
    },
    /// The names of all users.
    Users,
    /// The permissions of a role.
    Role {
        /// Its name.
        name: String,
    },
    /// The names of all roles.
    Roles,
    /// What is needed to check a password. Not for users: a query with a label is refused, whoever asks.
    Secret {
        /// The user's name.
        name: String,
    },
    /// Nothing; refused unless who asks has the role `root`, or users do not count. For what a gateway does by itself.
    Administer,
}

/// What is answered about users and roles.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum AuthResponse {
    /// To every operation, and to [`AuthQuery::Administer`].
    Done,
    /// To [`AuthQuery::Status`].
    Status {
        /// Whether users count.
        enabled: bool,
        /// How often users, roles, or whether they count have been changed, plus one.
        revision: u64,
    },
    /// To [`AuthQuery::Users`], [`AuthQuery::Roles`] and [`AuthQuery::User`]: names, sorted.
    Names(Vec<String>),
    /// To [`AuthQuery::Role`]: sorted by the first key.
    Permissions(Vec<Permission>),
    /// To [`AuthQuery::Secret`].
    Secret {
        /// Whether users count: otherwise nobody needs to log in.
        enabled: bool,
        /// How the password is recognised; `None`: there is no such user, or it has no password.
        hash: Option<String>,
        /// The revision of users and roles to which the answer belongs.
        revision: u64,
    },
}

impl Who {
    /// The first bytes of a name that is too long are a name, too; so it is refused.
    pub(super) fn check(&self) -> Result<(), KvError> {
        check_name(&self.user)
    }
}

impl AuthOperation {
    /// Refuses what is wrong whatever the state.
    pub(super) fn check(&self) -> Result<(), KvError> {
        match self {
            AuthOperation::Enable | AuthOperation::Disable => Ok(()),
            AuthOperation::UserAdd { name, hash } | AuthOperation::UserChangePassword { name, hash } => {
                let length = hash.as_ref().map_or(0, String::len);
                if length > PASSWORD_HASH_BYTES_MAX { too_long() } else { check_name(name) }
            }
            AuthOperation::UserDelete { name }
            | AuthOperation::RoleAdd { name }
            | AuthOperation::RoleDelete { name } => check_name(name),
            AuthOperation::UserGrantRole { name, role } | AuthOperation::UserRevokeRole { name, role } => {
                check_name(name).and_then(|()| check_name(role))
            }
            AuthOperation::RoleGrantPermission { name, permission: Permission { key, range_end, .. } }
            | AuthOperation::RoleRevokePermission { name, key, range_end } => {
                if key.len().max(range_end.len()) > KEY_BYTES_MAX {
                    return Err(KvError::RequestTooLarge(Limit::Key));
                }
                check_name(name)
            }
        }
    }
}

impl AuthQuery {
    /// Refuses what is wrong whatever the state.
    pub(super) fn check(&self) -> Result<(), KvError> {
        match self {
            AuthQuery::User { name } | AuthQuery::Role { name } | AuthQuery::Secret { name } => check_name(name),
            AuthQuery::Status | AuthQuery::Users | AuthQuery::Roles | AuthQuery::Administer => Ok(()),
        }
    }
}

fn check_name(name: &str) -> Result<(), KvError> {
    if name.len() > NAME_BYTES_MAX { too_long() } else { Ok(()) }
}

const fn too_long() -> Result<(), KvError> {
    Err(KvError::RequestTooLarge(Limit::Name))
}

impl Permission {
    /// Whether it lets keys be read.
    pub(super) const fn reads(&self) -> bool {
        matches!(self.kind, PermissionKind::Read | PermissionKind::ReadWrite)
    }

    /// Whether it lets keys be written.
    pub(super) const fn writes(&self) -> bool {
        matches!(self.kind, PermissionKind::Write | PermissionKind::ReadWrite)
    }
}
