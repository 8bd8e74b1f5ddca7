//! Which release of etcd's API the gateway is like, and the calls of that API that it does not offer, each with what to do
//! instead.

use crate::errors::EtcdError;

/// The release whose calls are offered, as clients see it. Some decide by it what they may use: Kubernetes asks for progress
/// notifications from 3.5.13 on.
pub const API_VERSION: &str = "3.5.13";

const MEMBERS: &str = "quorate: members are changed with the replicas' configuration, not through etcd's API";
const USERS: &str =
    "quorate: users and roles are not offered; beyond loopback, clients prove who they are by certificates";

/// Calls that are refused, and why.
const NOT_OFFERED: [(&str, &str); 24] = [
    ("/etcdserverpb.KV/RangeStream", "quorate: RangeStream is not offered; read pages with Range, limit and revision"),
    ("/etcdserverpb.Cluster/MemberAdd", MEMBERS),
    ("/etcdserverpb.Cluster/MemberRemove", MEMBERS),
    ("/etcdserverpb.Cluster/MemberUpdate", MEMBERS),
    ("/etcdserverpb.Cluster/MemberPromote", MEMBERS),
    (
        "/etcdserverpb.Maintenance/Snapshot",
        "quorate: snapshots in etcd's format are not offered; use `quorate kv export`",
    ),
    ("/etcdserverpb.Maintenance/MoveLeader", "quorate: the replicas choose their primary themselves"),
    ("/etcdserverpb.Maintenance/Downgrade", "quorate: this cluster has no etcd releases to go back to"),
    ("/etcdserverpb.Auth/AuthEnable", USERS),
    ("/etcdserverpb.Auth/UserAdd", USERS),
    ("/etcdserverpb.Auth/UserGet", USERS),
    ("/etcdserverpb.Auth/UserList", USERS),
    ("/etcdserverpb.Auth/UserDelete", USERS),
    ("/etcdserverpb.Auth/UserChangePassword", USERS),
    ("/etcdserverpb.Auth/UserGrantRole", USERS),
    ("/etcdserverpb.Auth/UserRevokeRole", USERS),
    ("/etcdserverpb.Auth/RoleAdd", USERS),
    ("/etcdserverpb.Auth/RoleGet", USERS),
    ("/etcdserverpb.Auth/RoleList", USERS),
    ("/etcdserverpb.Auth/RoleDelete", USERS),
    ("/etcdserverpb.Auth/RoleGrantPermission", USERS),
    ("/etcdserverpb.Auth/RoleRevokePermission", USERS),
    ("/etcdserverpb.Auth/AuthDisable", USERS),
    ("/etcdserverpb.Auth/AuthStatus", USERS),
];

/// Why a call is not offered; `None` if nothing is known against it.
pub fn refusal(path: &str) -> Option<EtcdError> {
    if path == "/etcdserverpb.Auth/Authenticate" {
        return Some(EtcdError::AuthNotEnabled); // etcd's words, by which clients know that they need no token
    }
    NOT_OFFERED.iter().find(|(call, _)| *call == path).map(|(_, why)| EtcdError::NotOffered(why))
}
