//! The messages and services of `proto/`, as the build script has compiled them; servers, and clients for tests.

#![allow(missing_docs, clippy::all, clippy::pedantic, reason = "generated code; etcd documents its API")]

/// Leases in a snapshot.
pub mod leasepb {
    tonic::include_proto!("leasepb");
}
/// Permissions, and users and roles in a snapshot.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// Keys and events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Requests, responses and services.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// Locks.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// Elections.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}

/// The definitions themselves, as protobuf's descriptors.
pub(crate) const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
