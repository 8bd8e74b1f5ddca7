//! Locks and elections.

use crate::common::{Client, PATIENCE, Served};
use quorate_server::proto::etcdserverpb::{LeaseGrantRequest, LeaseRevokeRequest};
use quorate_server::proto::v3electionpb::election_client::ElectionClient;
use quorate_server::proto::v3electionpb::{CampaignRequest, LeaderKey, LeaderRequest, ProclaimRequest, ResignRequest};
use quorate_server::proto::v3lockpb::lock_client::LockClient;
use quorate_server::proto::v3lockpb::{LockRequest, LockResponse, UnlockRequest};
use std::time::Duration;
use tokio::task::JoinHandle;
use tonic::Status;

async fn lease(client: &mut Client, id: i64) {
    client.lease.lease_grant(LeaseGrantRequest { ttl: 60, id }).await.expect("a lease");
}

fn lock(client: &Client, lease: i64) -> JoinHandle<Result<LockResponse, Status>> {
    let mut locks = LockClient::new(client.channel.clone());
    let request = LockRequest { name: "l".into(), lease };
    tokio::spawn(async move { locks.lock(request).await.map(tonic::Response::into_inner) })
}

async fn held(waiting: JoinHandle<Result<LockResponse, Status>>) -> LockResponse {
    let held = tokio::time::timeout(PATIENCE, waiting).await.expect("in time");
    held.expect("no panic").expect("the lock")
}

/// Gives whoever could wrongly go on the time to do so.
async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(200)).await;
}

async fn unlock(client: &Client, key: bytes::Bytes) {
    LockClient::new(client.channel.clone()).unlock(UnlockRequest { key }).await.expect("it is unlocked");
}

#[tokio::test]
async fn one_holds_the_lock_and_the_others_get_it_in_the_order_in_which_they_came() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for id in [0xa, 0xb, 0xc] {
        lease(&mut client, id).await;
    }
    let first = held(lock(&client, 0xa)).await;
    assert_eq!(first.key, "l/a");
    let second = lock(&client, 0xb);
    a_moment().await;
    let third = lock(&client, 0xc);
    a_moment().await;
    assert!(!second.is_finished() && !third.is_finished());
    assert_eq!(held(lock(&client, 0xa)).await.key, "l/a", "the same lease has it already");
    unlock(&client, first.key).await;
    assert_eq!(held(second).await.key, "l/b");
    a_moment().await;
    assert!(!third.is_finished());
    client.lease.lease_revoke(LeaseRevokeRequest { id: 0xb }).await.expect("it is revoked");
    assert_eq!(held(third).await.key, "l/c", "a holder whose lease ends holds nothing");
}

#[tokio::test]
async fn a_client_that_goes_away_leaves_the_line() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for id in [0xa, 0xb, 0xc] {
        lease(&mut client, id).await;
    }
    let first = held(lock(&client, 0xa)).await;
    let second = lock(&client, 0xb);
    a_moment().await;
    second.abort();
    let third = lock(&client, 0xc);
    a_moment().await;
    unlock(&client, first.key).await;
    assert_eq!(held(third).await.key, "l/c");
    assert_eq!(client.get("l/b").await, None);
}

#[tokio::test]
async fn a_lease_that_ends_while_it_waits_gets_nothing() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for id in [0xa, 0xb] {
        lease(&mut client, id).await;
    }
    let first = held(lock(&client, 0xa)).await;
    let second = lock(&client, 0xb);
    a_moment().await;
    client.lease.lease_revoke(LeaseRevokeRequest { id: 0xb }).await.expect("it is revoked");
    unlock(&client, first.key).await;
    let refused = tokio::time::timeout(PATIENCE, second).await.expect("in time").expect("no panic");
    assert_eq!(refused.expect_err("no lock").message(), "etcdserver: requested lease not found");
}

#[tokio::test]
async fn an_election_has_one_leader_who_proclaims_and_resigns() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut elections = ElectionClient::new(client.channel.clone());
    let name = || LeaderRequest { name: "e".into() };
    let nobody = elections.leader(name()).await.expect_err("nobody leads");
    assert_eq!(nobody.message(), "election: no leader");
    let mut observed = elections.clone().observe(name()).await.expect("a stream").into_inner();
    for id in [0xa, 0xb] {
        lease(&mut client, id).await;
    }
    let campaign = |lease, value: &'static str| {
        let mut elections = elections.clone();
        let request = CampaignRequest { name: "e".into(), lease, value: value.into() };
        tokio::spawn(async move { elections.campaign(request).await.map(tonic::Response::into_inner) })
    };
    let won = campaign(0xa, "first").await.expect("no panic").expect("the election").leader.expect("a key");
    assert_eq!((won.key.as_ref(), won.lease), (&b"e/a"[..], 0xa));
    let second = campaign(0xb, "second");
    a_moment().await;
    assert!(!second.is_finished());

    let proclaim = |leader: &LeaderKey| ProclaimRequest { leader: Some(leader.clone()), value: "again".into() };
    elections.proclaim(proclaim(&won)).await.expect("it leads");
    let leader = elections.leader(name()).await.expect("a leader").into_inner().kv.expect("a key");
    assert_eq!(leader.value, "again");
    elections.resign(ResignRequest { leader: Some(won.clone()) }).await.expect("it resigns");
    assert!(second.await.expect("no panic").is_ok());
    let refused = elections.proclaim(proclaim(&won)).await.expect_err("it does not lead any more");
    assert_eq!(refused.message(), "election: not leader");

    let mut values = Vec::new();
    while values.last().is_none_or(|last| *last != "second") {
        let next = tokio::time::timeout(PATIENCE, observed.message()).await.expect("in time");
        values.push(next.expect("an answer").expect("the stream goes on").kv.expect("a key").value);
    }
    assert_eq!(values, ["first", "again", "second"]);
}
