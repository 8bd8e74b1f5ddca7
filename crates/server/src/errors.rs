//! Refusals, in one table: what the gateway or the store says no to, with the code and text that etcd's clients know.
//! They compare texts (etcd `api/v3rpc/rpctypes/error.go`), so a text is etcd's own, byte for byte, wherever etcd has one.

use quorate_core::protocol::CallError;
use quorate_machines::kv::{self, KvError};
use quorate_runtime::client::ClientError;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The metadata in which a refusal says what etcd's text leaves out.
pub const DETAIL: &str = "quorate-detail";

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EtcdError {
    /// The store's refusal.
    Kv(KvError),
    /// The cluster did not answer in time; a write may or may not have been applied.
    Timeout,
    /// No majority, as far as the gateway knows, and the client wanted to be told.
    NoLeader,
    /// Beyond a bound of the gateway: which.
    TooManyRequests(String),
    /// An operation longer than a cluster takes.
    RequestTooLarge,
    /// A sort order or target that does not exist.
    InvalidSortOption,
    /// A comparison that does not exist.
    InvalidCompare,
    /// Users do not count, so nobody logs in.
    AuthNotEnabled,
    /// No such user, or not its password.
    AuthFailed,
    /// A permission is to be granted, and none is named.
    PermissionNotGiven,
    /// More was there before the last compaction than a snapshot can be sorted from.
    SnapshotTooLarge,
    /// A snapshot's file could not be written or read: why.
    NoRoom(String),
    /// A password longer than can be told from others.
    PasswordTooLong,
    /// An election in which nobody leads.
    NobodyLeads,
    /// The election was won by somebody else since, or was never won with this key.
    NotLeader,
    /// The lease that an election or a lock was to be held with ended meanwhile.
    SessionExpired,
    /// The gateway is stopping.
    Stopped,
    /// What answered is not a store with etcd's data model.
    Strange,
    /// Not offered: why, and what to do instead.
    NotOffered(&'static str),
}

impl EtcdError {
    /// The code and the text.
    pub fn etcd(&self) -> (Code, &str) {
        match self {
            EtcdError::Kv(error) => {
                let (code, text) = error.etcd();
                (kv_code(code), text)
            }
            EtcdError::Timeout => (Code::Unavailable, "etcdserver: request timed out"),
            EtcdError::NoLeader => (Code::Unavailable, "etcdserver: no leader"),
            EtcdError::TooManyRequests(_) => (Code::ResourceExhausted, "etcdserver: too many requests"),
            EtcdError::RequestTooLarge => (Code::InvalidArgument, "etcdserver: request is too large"),
            EtcdError::InvalidSortOption => (Code::InvalidArgument, "etcdserver: invalid sort option"),
            EtcdError::InvalidCompare => (Code::InvalidArgument, "quorate: this comparison does not exist"),
            EtcdError::AuthNotEnabled => (Code::FailedPrecondition, "etcdserver: authentication is not enabled"),
            EtcdError::AuthFailed => {
                (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password")
            }
            EtcdError::PermissionNotGiven => (Code::InvalidArgument, "etcdserver: permission not given"),
            EtcdError::PasswordTooLong => (Code::InvalidArgument, "quorate: the password is too long"),
            EtcdError::SnapshotTooLarge => {
                (Code::ResourceExhausted, "quorate: the store is too large for a snapshot, use `quorate kv export`")
            }
            EtcdError::NoRoom(_) => (Code::Unavailable, "quorate: the gateway has no room for the snapshot's file"),
            EtcdError::NobodyLeads => (Code::Unknown, "election: no leader"),
            EtcdError::NotLeader => (Code::Unknown, "election: not leader"),
            EtcdError::SessionExpired => (Code::NotFound, "etcdserver: requested lease not found"),
            EtcdError::Stopped => (Code::Unavailable, "etcdserver: server stopped"),
            EtcdError::Strange => (Code::Internal, "quorate: the cluster's answer is not that of a key-value store"),
            EtcdError::NotOffered(why) => (Code::Unimplemented, why),
        }
    }

    /// What the text leaves out.
    pub fn detail(&self) -> Option<String> {
        match self {
            EtcdError::Kv(error) => {
                let whole = error.to_string();
                whole.strip_prefix(error.etcd().1).filter(|rest| !rest.is_empty()).map(|rest| rest.trim().to_owned())
            }
            EtcdError::TooManyRequests(bound) | EtcdError::NoRoom(bound) => Some(bound.clone()),
            EtcdError::PasswordTooLong => Some(format!("(at most {} bytes)", crate::limits::PASSWORD_BYTES_MAX)),
            EtcdError::RequestTooLarge => {
                Some(format!("(at most {} bytes, as the gateway encodes them)", crate::limits::OPERATION_BYTES_MAX))
            }
            _ => None,
        }
    }
}

const fn kv_code(code: kv::Code) -> Code {
    match code {
        kv::Code::InvalidArgument => Code::InvalidArgument,
        kv::Code::NotFound => Code::NotFound,
        kv::Code::ResourceExhausted => Code::ResourceExhausted,
        kv::Code::FailedPrecondition => Code::FailedPrecondition,
        kv::Code::OutOfRange => Code::OutOfRange,
        kv::Code::PermissionDenied => Code::PermissionDenied,
        kv::Code::Unauthenticated => Code::Unauthenticated,
    }
}

impl From<EtcdError> for Status {
    fn from(error: EtcdError) -> Self {
        let (code, text) = error.etcd();
        let mut status = Status::new(code, text);
        if let Some(detail) = error.detail().and_then(|detail| MetadataValue::try_from(detail).ok()) {
            status.metadata_mut().insert(DETAIL, detail);
        }
        status
    }
}

impl From<KvError> for EtcdError {
    fn from(error: KvError) -> Self {
        EtcdError::Kv(error)
    }
}

impl From<ClientError> for EtcdError {
    /// etcd has one text for "nobody knows": its clients must look whether a write was applied.
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Call { error: CallError::Timeout { .. } | CallError::Evicted { .. }, .. } => {
                EtcdError::Timeout
            }
            ClientError::Call { error: CallError::Refused(why), .. } => EtcdError::TooManyRequests(why),
            ClientError::TooLong { .. } => EtcdError::RequestTooLarge,
            ClientError::Closed => EtcdError::Stopped,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_machines::kv::Limit;

    /// The table, written down a second time: whoever changes a text or a code changes it for etcd's clients.
    #[test]
    fn every_refusal_has_the_code_and_text_of_etcd() {
        use Code::{FailedPrecondition, Internal, InvalidArgument, NotFound, OutOfRange, ResourceExhausted};
        use Code::{Unavailable, Unimplemented, Unknown};
        let kv = EtcdError::Kv;
        let table = [
            (kv(KvError::EmptyKey), InvalidArgument, "etcdserver: key is not provided"),
            (kv(KvError::KeyNotFound), InvalidArgument, "etcdserver: key not found"),
            (kv(KvError::ValueProvided), InvalidArgument, "etcdserver: value is provided"),
            (kv(KvError::LeaseProvided), InvalidArgument, "etcdserver: lease is provided"),
            (kv(KvError::TooManyOps), InvalidArgument, "etcdserver: too many operations in txn request"),
            (kv(KvError::DuplicateKey), InvalidArgument, "etcdserver: duplicate key given in txn request"),
            (
                kv(KvError::Compacted { compact_revision: 7 }),
                OutOfRange,
                "etcdserver: mvcc: required revision has been compacted",
            ),
            (kv(KvError::FutureRevision), OutOfRange, "etcdserver: mvcc: required revision is a future revision"),
            (kv(KvError::LeaseNotFound), NotFound, "etcdserver: requested lease not found"),
            (kv(KvError::LeaseExists), FailedPrecondition, "etcdserver: lease already exists"),
            (kv(KvError::LeaseTtlTooLarge), OutOfRange, "etcdserver: too large lease TTL"),
            (kv(KvError::RequestTooLarge(Limit::Value)), InvalidArgument, "etcdserver: request is too large"),
            (
                kv(KvError::ReplyTooLarge),
                ResourceExhausted,
                "quorate: the reply is too large, ask for pages with limit",
            ),
            (kv(KvError::Undecodable), InvalidArgument, "quorate: the bytes are not a request"),
            (EtcdError::Timeout, Unavailable, "etcdserver: request timed out"),
            (EtcdError::NoLeader, Unavailable, "etcdserver: no leader"),
            (EtcdError::TooManyRequests("x".into()), ResourceExhausted, "etcdserver: too many requests"),
            (EtcdError::RequestTooLarge, InvalidArgument, "etcdserver: request is too large"),
            (EtcdError::InvalidSortOption, InvalidArgument, "etcdserver: invalid sort option"),
            (EtcdError::InvalidCompare, InvalidArgument, "quorate: this comparison does not exist"),
            (EtcdError::AuthNotEnabled, FailedPrecondition, "etcdserver: authentication is not enabled"),
            (EtcdError::AuthFailed, InvalidArgument, "etcdserver: authentication failed, invalid user ID or password"),
            (EtcdError::PermissionNotGiven, InvalidArgument, "etcdserver: permission not given"),
            (
                EtcdError::SnapshotTooLarge,
                ResourceExhausted,
                "quorate: the store is too large for a snapshot, use `quorate kv export`",
            ),
            (EtcdError::NoRoom("x".into()), Unavailable, "quorate: the gateway has no room for the snapshot's file"),
            (EtcdError::PasswordTooLong, InvalidArgument, "quorate: the password is too long"),
            (EtcdError::NobodyLeads, Unknown, "election: no leader"),
            (EtcdError::NotLeader, Unknown, "election: not leader"),
            (EtcdError::SessionExpired, NotFound, "etcdserver: requested lease not found"),
            (EtcdError::Stopped, Unavailable, "etcdserver: server stopped"),
            (EtcdError::Strange, Internal, "quorate: the cluster's answer is not that of a key-value store"),
            (EtcdError::NotOffered("why"), Unimplemented, "why"),
        ];
        for (error, code, text) in table {
            let status = Status::from(error.clone());
            assert_eq!((status.code(), status.message()), (code, text), "{error:?}");
        }
    }

    #[test]
    fn what_the_text_leaves_out_is_in_the_metadata() {
        let status = Status::from(EtcdError::Kv(KvError::Compacted { compact_revision: 7 }));
        let detail = status.metadata().get(DETAIL).expect("a detail");
        assert_eq!(detail, "(oldest readable revision: 7)");
    }

    #[test]
    fn a_write_whose_fate_is_unknown_is_a_timeout() {
        for error in [CallError::Timeout { maybe_applied: true }, CallError::Evicted { maybe_applied: true }] {
            assert_eq!(EtcdError::from(ClientError::Call { error, links: Vec::new() }), EtcdError::Timeout);
        }
    }
}
