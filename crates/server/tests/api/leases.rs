//! Leases through gRPC.

use crate::common::{PATIENCE, Served};
use quorate_server::proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
    PutRequest,
};
use tonic::Code;

fn leased(key: &'static str, lease: i64) -> PutRequest {
    PutRequest { key: key.into(), lease, ..PutRequest::default() }
}

#[tokio::test]
async fn a_lease_is_granted_listed_asked_about_and_revoked_with_its_keys() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let granted = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 0 }).await.expect("a lease").into_inner();
    assert!(granted.id > 0);
    assert_eq!((granted.ttl, granted.error.as_str()), (60, ""));
    client.kv.put(leased("a", granted.id)).await.expect("a put");

    let ask = LeaseTimeToLiveRequest { id: granted.id, keys: true };
    let told = client.lease.lease_time_to_live(ask).await.expect("an answer").into_inner();
    assert!((50..=60).contains(&told.ttl), "{}", told.ttl);
    assert_eq!((told.granted_ttl, told.keys.as_slice()), (60, &["a".into()][..]));
    let leases = client.lease.lease_leases(LeaseLeasesRequest {}).await.expect("an answer").into_inner().leases;
    assert_eq!(leases.iter().map(|lease| lease.id).collect::<Vec<_>>(), [granted.id]);

    client.lease.lease_revoke(LeaseRevokeRequest { id: granted.id }).await.expect("it is revoked");
    assert_eq!(client.get("a").await, None);
    let told = client.lease.lease_time_to_live(ask).await.expect("an answer").into_inner();
    assert_eq!((told.ttl, told.granted_ttl), (-1, 0), "a lease that is over is no error");
}

#[tokio::test]
async fn a_lease_that_nobody_keeps_alive_ends_and_takes_its_keys_along() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let lease = client.lease.lease_grant(LeaseGrantRequest { ttl: 1, id: 77 }).await.expect("a lease").into_inner();
    assert_eq!((lease.id, lease.ttl), (77, 2), "two seconds is the shortest, and the answer says so");
    client.kv.put(leased("a", 77)).await.expect("a put");
    let mut watches = client.watches().await;
    watches.key("a", 0).await;
    assert_eq!(watches.events(1).await, [(3, "a".to_owned(), String::new())]);
}

#[tokio::test]
async fn keeping_alive_answers_each_request_and_a_dead_lease_with_zero() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 5 }).await.expect("a lease");
    let requests = [5, 6, 5].map(|id| LeaseKeepAliveRequest { id });
    let stream = client.lease.lease_keep_alive(tokio_stream::iter(requests)).await;
    let mut answers = stream.expect("a stream").into_inner();
    let mut told = Vec::new();
    while let Some(answer) = tokio::time::timeout(PATIENCE, answers.message()).await.expect("in time").expect("one") {
        told.push((answer.id, answer.ttl));
    }
    assert_eq!(told, [(5, 60), (6, 0), (5, 60)]);
}

#[tokio::test]
async fn refusals_about_leases_are_etcds() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 5 }).await.expect("a lease");
    let twice = client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id: 5 }).await.expect_err("it exists");
    assert_eq!((twice.code(), twice.message()), (Code::FailedPrecondition, "etcdserver: lease already exists"));
    let long = client.lease.lease_grant(LeaseGrantRequest { ttl: i64::MAX, id: 0 }).await.expect_err("too long");
    assert_eq!((long.code(), long.message()), (Code::OutOfRange, "etcdserver: too large lease TTL"));
    let none = client.lease.lease_revoke(LeaseRevokeRequest { id: 9 }).await.expect_err("there is none");
    assert_eq!((none.code(), none.message()), (Code::NotFound, "etcdserver: requested lease not found"));
    let none = client.kv.put(leased("a", 9)).await.expect_err("there is none");
    assert_eq!(none.message(), "etcdserver: requested lease not found");
}
