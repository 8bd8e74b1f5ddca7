//! What a file that parses can still get wrong.

use super::{ClusterConfig, Limits, Member, ReplicaConfig, Timing};
use crate::broker::BrokerFaults;
use crate::keys::PublicKey;
use quorate_core::ids::ReplicaId;
use quorate_core::quorum::ByzantineQuorums;
use std::collections::BTreeSet;

/// The smallest and largest `max_frame_bytes` and `client_max_frame_bytes` that make sense.
const FRAME_BYTES_RANGE: std::ops::RangeInclusive<usize> = 64 * 1024..=1024 * 1024 * 1024;
/// No entry has more requests than this.
const TENTATIVE_MAX: usize = 1024;

/// Members of a group at most. A view change of a Byzantine protocol carries a proof from each replica for each entry that is
/// not stable: with more members it would outgrow a frame.
pub const MEMBERS_MAX: usize = 15;

/// What a file that parses can still get wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "each variant's sentence says what it means")]
pub enum Problem {
    #[error("`members` is empty; list every replica of the cluster")]
    NoMembers,
    #[error(
        "{count} members are more than the {MEMBERS_MAX} that a group can have: the messages of a view change would not fit into frames"
    )]
    TooManyMembers { count: usize },
    #[error("this is replica {replica}, but `members` has no such replica; correct `replica` or add the member")]
    NotAMember { replica: ReplicaId },
    #[error(
        "the key in `key_file` is {own}, but `members` says {listed} for {replica}; use the other key or correct it"
    )]
    OtherKey { replica: ReplicaId, own: PublicKey, listed: PublicKey },
    #[error("two members are called {replica}; give each its own number")]
    SameReplica { replica: ReplicaId },
    #[error("two members have the address {address}; give each its own")]
    SameAddress { address: String },
    #[error("the key {key} is listed for two members; every replica needs a key of its own")]
    SameKey { key: PublicKey },
    #[error("the key {key} is both a member's and a client's; make a key of its own for the client")]
    MemberAsClient { key: PublicKey },
    #[error("`{field}` = {value} is no address; write host:port, for example 127.0.0.1:7000")]
    NoAddress { field: &'static str, value: String },
    #[error("`{field}` = {value} is out of range; it must be between {min} and {max}")]
    OutOfRange { field: &'static str, value: u64, min: u64, max: u64 },
    #[error("`broker` = {value} is no broker; write nats://host:port, or leave it out")]
    NoBroker { value: String },
    #[error("{0}; correct `broker_faults`")]
    NoBrokerFaults(crate::broker::UnknownBrokerFault),
    #[error("{count} members tolerate no more crashes than {} would; an odd number is cheaper", count - 1)]
    EvenCount { count: usize },
}

impl Problem {
    /// Whether a replica may start in spite of it.
    pub fn is_warning(&self) -> bool {
        matches!(self, Problem::EvenCount { .. })
    }
}

impl ReplicaConfig {
    /// All contradictions of the file, in the order of its fields; `own` is the public half of the key in `key_file`.
    pub fn check(&self, own: PublicKey) -> Vec<Problem> {
        let mut problems = Vec::new();
        match self.members.iter().find(|member| member.replica == self.replica) {
            None if self.members.is_empty() => {}
            None => problems.push(Problem::NotAMember { replica: self.replica }),
            Some(member) if member.public_key != own => {
                let listed = member.public_key;
                problems.push(Problem::OtherKey { replica: self.replica, own, listed });
            }
            Some(_) => {}
        }
        problems.extend(no_address("listen", &self.listen));
        check_members(&self.members, &self.protocol, &mut problems);
        let members: BTreeSet<_> = self.members.iter().map(|member| member.public_key).collect();
        let both = self.clients.iter().filter(|key| members.contains(key));
        problems.extend(both.map(|&key| Problem::MemberAsClient { key }));
        problems.extend(self.check_criticality());
        problems.extend(self.tentative_requests.and_then(|it| in_range("tentative_requests", it, 0, TENTATIVE_MAX)));
        problems.extend(no_broker(self.broker.as_deref()));
        problems.extend(self.limits.check().into_iter().flatten());
        problems.extend(self.timing.check().into_iter().flatten());
        problems
    }
}

impl ReplicaConfig {
    fn check_criticality(&self) -> Option<Problem> {
        let faults = ByzantineQuorums::new(self.members.len()).map_or(0, |quorums| quorums.faults());
        in_range("criticality", self.criticality?.into(), 0, faults)
    }
}

impl ClusterConfig {
    /// All contradictions of the file.
    pub fn check(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        check_members(&self.members, &self.protocol, &mut problems);
        problems.extend(no_broker(self.broker.as_deref()));
        let faults = self.broker_faults.as_deref().map(str::parse::<BrokerFaults>);
        problems.extend(faults.and_then(Result::err).map(Problem::NoBrokerFaults));
        problems
    }
}

impl Limits {
    fn check(&self) -> [Option<Problem>; 5] {
        let frame = |field, value| in_range(field, value, *FRAME_BYTES_RANGE.start(), *FRAME_BYTES_RANGE.end());
        let outbox = |field, value| in_range(field, value, self.max_frame_bytes, usize::MAX);
        [
            frame("max_frame_bytes", self.max_frame_bytes),
            frame("client_max_frame_bytes", self.client_max_frame_bytes),
            outbox("peer_outbox_max_bytes", self.peer_outbox_max_bytes),
            outbox("client_outbox_max_bytes", self.client_outbox_max_bytes),
            in_range("clients_max", self.clients_max, 1, 65_536),
        ]
    }
}

impl Timing {
    fn check(&self) -> [Option<Problem>; 4] {
        let least = self.heartbeat_ms.saturating_mul(4);
        [
            range("heartbeat_ms", self.heartbeat_ms, 1, 60_000),
            range("view_change_ms", self.view_change_ms, least, 3_600_000),
            range("delay_bound_ms", self.delay_bound_ms, 1, 60_000),
            range("clock_bound_ms", self.clock_bound_ms, 1, 60_000),
        ]
    }
}

fn check_members(members: &[Member], protocol: &str, problems: &mut Vec<Problem>) {
    if members.is_empty() {
        problems.push(Problem::NoMembers);
    }
    if members.len() > MEMBERS_MAX {
        problems.push(Problem::TooManyMembers { count: members.len() });
    }
    let (mut replicas, mut addresses, mut keys) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for member in members {
        problems.extend(no_address("address", &member.address));
        if !replicas.insert(member.replica) {
            problems.push(Problem::SameReplica { replica: member.replica });
        }
        if !addresses.insert(&member.address) {
            problems.push(Problem::SameAddress { address: member.address.clone() });
        }
        if !keys.insert(member.public_key) {
            problems.push(Problem::SameKey { key: member.public_key });
        }
    }
    // 2f+1 replicas: one more tolerates no more. Byzantine protocols need 3f+1, which is even for every odd f.
    if protocol == "vr" && !members.is_empty() && members.len().is_multiple_of(2) {
        problems.push(Problem::EvenCount { count: members.len() });
    }
}

fn no_address(field: &'static str, value: &str) -> Option<Problem> {
    let good = value.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    (!good).then(|| Problem::NoAddress { field, value: value.to_owned() })
}

/// The address may have credentials before its host: `nats://user:password@host:port`.
fn no_broker(broker: Option<&str>) -> Option<Problem> {
    let value = broker?;
    let address = value.strip_prefix("nats://").or_else(|| value.strip_prefix("tls://"));
    let good = address.is_some_and(|address| no_address("broker", address).is_none());
    (!good).then(|| Problem::NoBroker { value: value.to_owned() })
}

fn in_range(field: &'static str, value: usize, min: usize, max: usize) -> Option<Problem> {
    range(field, value as u64, min as u64, max as u64)
}

fn range(field: &'static str, value: u64, min: u64, max: u64) -> Option<Problem> {
    (!(min..=max).contains(&value)).then_some(Problem::OutOfRange { field, value, min, max })
}
