//! What clients of a gateway notice when replicas crash.

use crate::common::{Served, http};
use quorate_server::proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

#[tokio::test]
async fn a_crash_of_any_one_replica_loses_no_acknowledged_write_and_no_event() {
    let mut served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    watches.all(0).await;
    let mut revisions = Vec::new();
    for replica in 0..3 {
        served.crash(replica);
        for _ in 0..20 {
            revisions.push(client.put("a", "x").await);
        }
        served.restart(replica);
    }
    // each put is applied once: the revisions are consecutive, and the watch tells of each of them once
    let expected: Vec<i64> = (2..62).collect();
    assert_eq!(revisions, expected);
    let heard: Vec<i64> = watches.events(60).await.iter().map(|(revision, ..)| *revision).collect();
    assert_eq!(heard, expected);
}

#[tokio::test]
async fn without_a_majority_requests_time_out_in_etcds_words_and_go_on_when_it_is_back() {
    let mut served = Served::start().await;
    let mut client = served.client().await;
    client.put("a", "1").await;
    served.crash(0);
    served.crash(1);
    let put = PutRequest { key: "a".into(), value: "2".into(), ..PutRequest::default() };
    let refused = client.kv.put(put).await.expect_err("no majority");
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, "etcdserver: request timed out"));
    let read = RangeRequest { key: "a".into(), serializable: true, ..RangeRequest::default() };
    assert!(client.range(read).await.is_ok(), "whoever wants any replica's state gets it");
    assert_eq!(http(served.address(), "GET", "/health", "").await.0, 503);
    served.restart(0);
    served.restart(1);
    client.put("a", "3").await;
    assert_eq!(client.get("a").await.as_deref(), Some(&b"3"[..]));
}
