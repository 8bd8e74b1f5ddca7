//! The state: users, roles, whether they count; and the operations on it, each as etcd does it.

use super::{AuthOperation, AuthQuery, AuthResponse, Permission, ROOT};
use crate::kv::error::AuthError;
use crate::kv::limits::{PERMISSIONS_PER_ROLE_MAX, ROLES_MAX, ROLES_PER_USER_MAX, USERS_MAX};
use bytes::Bytes;
use imbl::OrdMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// All of it. Shared between the machine and its views; changed by replacing what changes.
#[derive(Clone, Debug)]
pub(in crate::kv) struct Auth {
    /// Whether users count.
    pub(in crate::kv) enabled: bool,
    /// How often anything here was changed, plus one.
    pub(in crate::kv) revision: u64,
    /// The revision that made users count: whoever logged in before must do it again.
    pub(in crate::kv) enabled_at: u64,
    pub(in crate::kv) users: OrdMap<String, Arc<User>>,
    pub(in crate::kv) roles: OrdMap<String, Arc<Role>>,
}

/// A user.
#[derive(Clone, Debug)]
pub(in crate::kv) struct User {
    /// How its password is recognised, if it has one.
    pub(in crate::kv) hash: Option<String>,
    /// The revision that made it, or changed its password: whoever logged in before must do it again.
    pub(in crate::kv) since: u64,
    /// The names of its roles. Each exists, or is `root`.
    pub(in crate::kv) roles: BTreeSet<String>,
}

/// A role.
#[derive(Clone, Debug, Default)]
pub(in crate::kv) struct Role {
    /// Sorted by the first key, among equals by the end.
    pub(in crate::kv) permissions: Vec<Permission>,
}

impl User {
    /// Whether it may do everything.
    pub(in crate::kv) fn is_root(&self) -> bool {
        self.roles.contains(ROOT)
    }
}

impl Auth {
    pub(in crate::kv) fn new() -> Self {
        Self { enabled: false, revision: 1, enabled_at: 0, users: OrdMap::new(), roles: OrdMap::new() }
    }

    /// Does an operation. Whether it changed anything.
    pub(in crate::kv) fn change(&mut self, operation: AuthOperation) -> Result<bool, AuthError> {
        let next = self.revision.saturating_add(1);
        let changed = match operation {
            AuthOperation::Enable => self.enable(next)?,
            AuthOperation::Disable => std::mem::replace(&mut self.enabled, false),
            AuthOperation::UserAdd { name, hash } => self.add_user(name, hash, next)?,
            AuthOperation::UserDelete { name } => self.delete_user(&name)?,
            AuthOperation::UserChangePassword { name, hash } => {
                let user = Arc::make_mut(self.users.get_mut(&name).ok_or(AuthError::UserNotFound)?);
                user.hash = hash.filter(|_| user.hash.is_some());
                user.since = next;
                true
            }
            AuthOperation::UserGrantRole { name, role } => self.grant_role(&name, role)?,
            AuthOperation::UserRevokeRole { name, role } => self.revoke_role(&name, &role)?,
            AuthOperation::RoleAdd { name } => self.add_role(name)?,
            AuthOperation::RoleDelete { name } => self.delete_role(&name)?,
            AuthOperation::RoleGrantPermission { name, permission } => self.grant_permission(&name, permission)?,
            AuthOperation::RoleRevokePermission { name, key, range_end } => {
                self.revoke_permission(&name, &key, &range_end)?
            }
        };
        if changed {
            self.revision = next;
        }
        Ok(changed)
    }

    fn enable(&mut self, next: u64) -> Result<bool, AuthError> {
        if self.enabled {
            return Ok(false);
        }
        let root = self.users.get(ROOT).ok_or(AuthError::RootUserMissing)?;
        if !root.is_root() {
            return Err(AuthError::RootRoleMissing);
        }
        (self.enabled, self.enabled_at) = (true, next);
        Ok(true)
    }

    fn add_user(&mut self, name: String, hash: Option<String>, next: u64) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::UserEmpty);
        }
        if self.users.contains_key(&name) {
            return Err(AuthError::UserExists);
        }
        if self.users.len() >= USERS_MAX {
            return Err(AuthError::TooManyUsers);
        }
        self.users.insert(name, Arc::new(User { hash, since: next, roles: BTreeSet::new() }));
        Ok(true)
    }

    fn delete_user(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.users.remove(name).map(|_| true).ok_or(AuthError::UserNotFound)
    }

    fn grant_role(&mut self, name: &str, role: String) -> Result<bool, AuthError> {
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if role != ROOT && !self.roles.contains_key(&role) {
            return Err(AuthError::RoleNotFound);
        }
        if user.roles.contains(&role) {
            return Ok(false);
        }
        if user.roles.len() >= ROLES_PER_USER_MAX {
            return Err(AuthError::TooManyRolesOfUser);
        }
        Ok(Arc::make_mut(user).roles.insert(role))
    }

    fn revoke_role(&mut self, name: &str, role: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT && role == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        let user = self.users.get_mut(name).ok_or(AuthError::UserNotFound)?;
        if !user.roles.contains(role) {
            return Err(AuthError::RoleNotGranted);
        }
        Ok(Arc::make_mut(user).roles.remove(role))
    }

    fn add_role(&mut self, name: String) -> Result<bool, AuthError> {
        if name.is_empty() {
            return Err(AuthError::RoleEmpty);
        }
        if self.roles.contains_key(&name) {
            return Err(AuthError::RoleExists);
        }
        if self.roles.len() >= ROLES_MAX {
            return Err(AuthError::TooManyRoles);
        }
        self.roles.insert(name, Arc::new(Role::default()));
        Ok(true)
    }

    fn delete_role(&mut self, name: &str) -> Result<bool, AuthError> {
        if self.enabled && name == ROOT {
            return Err(AuthError::InvalidManagement);
        }
        self.roles.remove(name).ok_or(AuthError::RoleNotFound)?;
        let having: Vec<String> =
            self.users.iter().filter(|(_, user)| user.roles.contains(name)).map(|(user, _)| user.clone()).collect();
        for user in having {
            if let Some(user) = self.users.get_mut(&user) {
                Arc::make_mut(user).roles.remove(name);
            }
        }
        Ok(true)
    }

    fn grant_permission(&mut self, name: &str, permission: Permission) -> Result<bool, AuthError> {
        let role = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let place = |it: &Permission| (&it.key, &it.range_end).cmp(&(&permission.key, &permission.range_end));
        match role.permissions.binary_search_by(place) {
            Ok(index) => {
                if let Some(before) = Arc::make_mut(role).permissions.get_mut(index) {
                    *before = permission;
                }
            }
            Err(_) if role.permissions.len() >= PERMISSIONS_PER_ROLE_MAX => return Err(AuthError::TooManyPermissions),
            Err(index) => Arc::make_mut(role).permissions.insert(index, permission),
        }
        Ok(true)
    }

    fn revoke_permission(&mut self, name: &str, key: &Bytes, range_end: &Bytes) -> Result<bool, AuthError> {
        let role = self.roles.get_mut(name).ok_or(AuthError::RoleNotFound)?;
        let place = |it: &Permission| (&it.key, &it.range_end).cmp(&(key, range_end));
        let index = role.permissions.binary_search_by(place).map_err(|_| AuthError::PermissionNotGranted)?;
        Arc::make_mut(role).permissions.remove(index);
        Ok(true)
    }

    /// Answers a query.
    pub(in crate::kv) fn answer(&self, query: &AuthQuery) -> Result<AuthResponse, AuthError> {
        Ok(match query {
            AuthQuery::Status => AuthResponse::Status { enabled: self.enabled, revision: self.revision },
            AuthQuery::User { name } => {
                let user = self.users.get(name).ok_or(AuthError::UserNotFound)?;
                AuthResponse::Names(user.roles.iter().cloned().collect())
            }
            AuthQuery::Users => AuthResponse::Names(self.users.keys().cloned().collect()),
            AuthQuery::Role { name } => {
                let role = self.roles.get(name).ok_or(AuthError::RoleNotFound)?;
                AuthResponse::Permissions(role.permissions.clone())
            }
            AuthQuery::Roles => AuthResponse::Names(self.roles.keys().cloned().collect()),
            AuthQuery::Secret { name } => AuthResponse::Secret {
                enabled: self.enabled,
                hash: self.users.get(name).and_then(|user| user.hash.clone()),
                revision: self.revision,
            },
            AuthQuery::Administer => AuthResponse::Done,
        })
    }
}
