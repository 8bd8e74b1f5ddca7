//! Which release of etcd's API the gateway is like, and the calls of that API that it does not offer, each with what to do
//! instead.

use crate::errors::EtcdError;

/// The release whose calls are offered, as clients see it. Some decide by it what they may use: Kubernetes asks for progress
/// notifications from 3.5.13 on.
pub const API_VERSION: &str = "3.5.13";

const MEMBERS: &str = "quorate: members are changed with the replicas' configuration, not through etcd's API";

/// Calls that are refused, and why.
const NOT_OFFERED: [(&str, &str); 7] = [
    ("/etcdserverpb.KV/RangeStream", "quorate: RangeStream is not offered; read pages with Range, limit and revision"),
    ("/etcdserverpb.Cluster/MemberAdd", MEMBERS),
    ("/etcdserverpb.Cluster/MemberRemove", MEMBERS),
    ("/etcdserverpb.Cluster/MemberUpdate", MEMBERS),
    ("/etcdserverpb.Cluster/MemberPromote", MEMBERS),
    ("/etcdserverpb.Maintenance/MoveLeader", "quorate: the replicas choose their primary themselves"),
    ("/etcdserverpb.Maintenance/Downgrade", "quorate: this cluster has no etcd releases to go back to"),
];

/// Why a call is not offered; `None` if nothing is known against it.
pub fn refusal(path: &str) -> Option<EtcdError> {
    NOT_OFFERED.iter().find(|(call, _)| *call == path).map(|(_, why)| EtcdError::NotOffered(why))
}
