//! Users, as clients meet them through a gateway: passwords, tokens, and what each service makes of them.

use crate::common::{Client, Served, everything, http_with, revision};
use quorate_server::proto::authpb::Permission;
use quorate_server::proto::etcdserverpb::maintenance_client::MaintenanceClient;
use quorate_server::proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthStatusRequest,
    AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserGrantRoleRequest, AuthUserListRequest,
    AuthenticateRequest, DefragmentRequest, HashKvRequest, HashRequest, LeaseGrantRequest, LeaseKeepAliveRequest,
    PutRequest, RangeRequest, StatusRequest, WatchCreateRequest, WatchResponse,
};
use quorate_server::proto::v3electionpb::election_client::ElectionClient;
use quorate_server::proto::v3electionpb::{CampaignRequest, LeaderRequest};
use quorate_server::proto::v3lockpb::LockRequest;
use quorate_server::proto::v3lockpb::lock_client::LockClient;
use tonic::{Code, Request, Status};

const EMPTY: (Code, &str) = (Code::InvalidArgument, "etcdserver: user name is empty");
const DENIED: (Code, &str) = (Code::PermissionDenied, "etcdserver: permission denied");
const INVALID: (Code, &str) = (Code::Unauthenticated, "etcdserver: invalid auth token");
const FAILED: (Code, &str) = (Code::InvalidArgument, "etcdserver: authentication failed, invalid user ID or password");

fn said(status: &Status) -> (Code, &str) {
    (status.code(), status.message())
}

fn refusal<T: std::fmt::Debug>(answer: Result<T, Status>) -> Status {
    answer.expect_err("it is refused")
}

fn by<T>(token: &str, request: T) -> Request<T> {
    let mut request = Request::new(request);
    request.metadata_mut().insert("token", token.parse().expect("ASCII"));
    request
}

fn put(key: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() }
}

fn get(key: &'static str) -> RangeRequest {
    RangeRequest { key: key.into(), ..RangeRequest::default() }
}

async fn add_user(client: &mut Client, name: &str, password: &str) {
    let request = AuthUserAddRequest { name: name.into(), password: password.into(), ..Default::default() };
    client.auth.user_add(request).await.expect("a user");
}

async fn grant_role(client: &mut Client, user: &str, role: &str) {
    let request = AuthUserGrantRoleRequest { user: user.into(), role: role.into() };
    client.auth.user_grant_role(request).await.expect("a role");
}

async fn log_in(client: &mut Client, name: &str, password: &str) -> Result<String, Status> {
    let request = AuthenticateRequest { name: name.into(), password: password.into() };
    Ok(client.auth.authenticate(request).await?.into_inner().token)
}

/// With root (password `top`), and ann (password `secret`), who may read and write all keys from `a` to before `b`.
async fn guarded() -> (Served, Client) {
    let served = Served::start().await;
    let mut client = served.client().await;
    add_user(&mut client, "root", "top").await;
    grant_role(&mut client, "root", "root").await;
    add_user(&mut client, "ann", "secret").await;
    client.auth.role_add(AuthRoleAddRequest { name: "r".into() }).await.expect("a role");
    let perm = Some(Permission { perm_type: 2, key: "a".into(), range_end: "b".into() });
    let request = AuthRoleGrantPermissionRequest { name: "r".into(), perm };
    client.auth.role_grant_permission(request).await.expect("a permission");
    grant_role(&mut client, "ann", "r").await;
    client.auth.auth_enable(AuthEnableRequest {}).await.expect("it is enabled");
    (served, client)
}

#[tokio::test]
async fn with_a_password_comes_a_token_and_with_the_token_a_users_rights() {
    let (_served, mut client) = guarded().await;
    assert_eq!(said(&refusal(client.kv.put(put("a")).await)), EMPTY);
    for (name, password) in [("ann", "wrong"), ("ann", ""), ("nobody", "secret"), ("", "")] {
        assert_eq!(said(&refusal(log_in(&mut client, name, password).await)), FAILED, "{name} {password}");
    }
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    client.kv.put(by(&ann, put("a"))).await.expect("she may");
    client.kv.range(by(&ann, get("a"))).await.expect("she may");
    assert_eq!(said(&refusal(client.kv.put(by(&ann, put("b"))).await)), DENIED);
    assert_eq!(said(&refusal(client.auth.user_list(by(&ann, AuthUserListRequest {})).await)), DENIED);
    assert_eq!(said(&refusal(client.kv.put(by("made up", put("a"))).await)), INVALID);
    let root = log_in(&mut client, "root", "top").await.expect("a token");
    client.kv.put(by(&root, put("b"))).await.expect("root may");
    let status = client.auth.auth_status(by(&root, AuthStatusRequest {})).await.expect("root may").into_inner();
    assert!(status.enabled && status.auth_revision > 5);
}

#[tokio::test]
async fn serializable_reads_are_guarded_like_others() {
    let (_served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let stale = |key| RangeRequest { serializable: true, ..get(key) };
    client.kv.range(by(&ann, stale("a"))).await.expect("she may");
    assert_eq!(said(&refusal(client.kv.range(by(&ann, stale("b"))).await)), DENIED);
    assert_eq!(said(&refusal(client.kv.range(stale("a")).await)), EMPTY);
}

#[tokio::test]
async fn a_token_holds_at_every_gateway_with_the_same_key_whichever_was_started_when() {
    let (served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let another = served.another().await;
    let mut other = Client::connect(another.address()).await;
    other.kv.put(by(&ann, put("a"))).await.expect("it is known there");
}

#[tokio::test]
async fn a_token_is_void_after_a_new_password_and_after_a_time_without_users() {
    let (_served, mut client) = guarded().await;
    let root = log_in(&mut client, "root", "top").await.expect("a token");
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let request = AuthUserChangePasswordRequest { name: "ann".into(), password: "other".into(), ..Default::default() };
    client.auth.user_change_password(by(&root, request)).await.expect("root may");
    assert_eq!(said(&refusal(client.kv.put(by(&ann, put("a"))).await)), INVALID);
    assert_eq!(said(&refusal(log_in(&mut client, "ann", "secret").await)), FAILED);
    let ann = log_in(&mut client, "ann", "other").await.expect("a token");
    client.kv.put(by(&ann, put("a"))).await.expect("she may");
    client.auth.auth_disable(by(&root, AuthDisableRequest {})).await.expect("root may");
    client.kv.put(put("b")).await.expect("everybody may");
    client.kv.put(by("made up", put("b"))).await.expect("everybody may, whatever they say");
    client.auth.auth_enable(AuthEnableRequest {}).await.expect("everybody may");
    for token in [&ann, &root] {
        assert_eq!(said(&refusal(client.kv.put(by(token, put("a"))).await)), INVALID);
    }
}

#[tokio::test]
async fn a_password_goes_hashed_to_the_cluster_and_a_hash_is_not_taken_for_one() {
    let (_served, mut client) = guarded().await;
    let root = log_in(&mut client, "root", "top").await.expect("a token");
    let long = AuthUserAddRequest { name: "u".into(), password: "p".repeat(100), ..Default::default() };
    let refused = refusal(client.auth.user_add(by(&root, long)).await);
    assert_eq!(said(&refused), (Code::InvalidArgument, "quorate: the password is too long"));
    let hashed = AuthUserAddRequest { name: "u".into(), hashed_password: "$2a$".into(), ..Default::default() };
    assert_eq!(refusal(client.auth.user_add(by(&root, hashed)).await).code(), Code::Unimplemented);
    let anybody = AuthUserAddRequest { name: "u".into(), password: "p".into(), ..Default::default() };
    assert_eq!(said(&refusal(client.auth.user_add(anybody).await)), EMPTY, "before anything is hashed for it");
}

/// The watch's first response, and its second if the first is no refusal.
async fn watched(client: &Client, token: &str, create: WatchCreateRequest) -> WatchResponse {
    let mut watches = client.watches_by(token, create).await;
    watches.next().await
}

#[tokio::test]
async fn a_watch_needs_the_right_to_read_and_says_in_etcds_words_what_is_missing() {
    let (_served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let range = |key: &'static str, end: &'static str| WatchCreateRequest {
        key: key.into(),
        range_end: end.into(),
        ..WatchCreateRequest::default()
    };
    for (token, create, why) in [
        (ann.as_str(), range("a", "c"), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        (&ann, everything(), "rpc error: code = PermissionDenied desc = etcdserver: permission denied"),
        ("made up", range("a", ""), "rpc error: code = Unauthenticated desc = etcdserver: invalid auth token"),
    ] {
        let refused = watched(&client, token, create).await;
        assert_eq!((refused.created, refused.canceled, refused.watch_id), (true, true, -1));
        assert_eq!(refused.cancel_reason, why);
    }
    let mut watches = client.watches_by(&ann, range("a", "b")).await;
    assert!(!watches.next().await.canceled);
    let put = client.kv.put(by(&ann, put("a"))).await.expect("she may").into_inner();
    assert_eq!(watches.events(1).await[0].0, revision(put.header));
}

#[tokio::test]
async fn leases_are_for_users_and_are_kept_alive_by_them() {
    let (_served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let grant = LeaseGrantRequest { id: 7, ttl: 60 };
    assert_eq!(said(&refusal(client.lease.lease_grant(grant).await)), EMPTY);
    client.lease.lease_grant(by(&ann, grant)).await.expect("she may");
    let requests = || tokio_stream::iter([LeaseKeepAliveRequest { id: 7 }]);
    let mut answers = client.lease.lease_keep_alive(by(&ann, requests())).await.expect("a stream").into_inner();
    assert_eq!(answers.message().await.expect("an answer").expect("one").ttl, 60);
    let mut answers = client.lease.lease_keep_alive(requests()).await.expect("a stream").into_inner();
    assert_eq!(said(&refusal(answers.message().await)), EMPTY);
}

#[tokio::test]
async fn locks_and_elections_are_done_with_the_callers_rights() {
    let (_served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let mut locks = LockClient::new(client.channel.clone());
    let lock = |name: &'static str| LockRequest { name: name.into(), lease: 0 };
    locks.lock(by(&ann, lock("a-lock"))).await.expect("she may write there");
    assert_eq!(said(&refusal(locks.lock(by(&ann, lock("b-lock"))).await)), DENIED);
    let mut elections = ElectionClient::new(client.channel.clone());
    let campaign = |name: &'static str| CampaignRequest { name: name.into(), lease: 0, value: "ann".into() };
    elections.campaign(by(&ann, campaign("a-post"))).await.expect("she may write there");
    assert_eq!(said(&refusal(elections.campaign(by(&ann, campaign("b-post"))).await)), DENIED);
    let leader = |name: &'static str| LeaderRequest { name: name.into() };
    elections.leader(by(&ann, leader("a-post"))).await.expect("she may read there");
    assert_eq!(said(&refusal(elections.leader(by(&ann, leader("b-post"))).await)), DENIED);
    let mut observed = elections.observe(by(&ann, leader("b-post"))).await.expect("a stream").into_inner();
    assert_eq!(said(&refusal(observed.message().await)), DENIED);
}

#[tokio::test]
async fn maintenance_is_roots_and_looking_at_the_clusters_health_everybodys() {
    let (_served, mut client) = guarded().await;
    let ann = log_in(&mut client, "ann", "secret").await.expect("a token");
    let root = log_in(&mut client, "root", "top").await.expect("a token");
    let mut maintenance = MaintenanceClient::new(client.channel.clone());
    for (token, allowed) in [(&ann, false), (&root, true)] {
        let hash = maintenance.hash(by(token, HashRequest {})).await.map(drop);
        let hash_kv = maintenance.hash_kv(by(token, HashKvRequest { revision: 0 })).await.map(drop);
        let defragment = maintenance.defragment(by(token, DefragmentRequest {})).await.map(drop);
        for answer in [hash, hash_kv, defragment] {
            match allowed {
                true => answer.expect("root may"),
                false => assert_eq!(said(&refusal(answer)), DENIED),
            }
        }
    }
    maintenance.status(StatusRequest {}).await.expect("everybody may");
}

#[tokio::test]
async fn the_json_gateway_takes_tokens_from_the_authorization_header() {
    let (served, _client) = guarded().await;
    let ask = async |path: &str, token: &str, body: &str| {
        let (status, text) = http_with(served.address(), "POST", path, token, body).await;
        (status, serde_json::from_str::<serde_json::Value>(&text).expect("JSON"))
    };
    let (status, answer) = ask("/v3/auth/authenticate", "", r#"{"name":"ann","password":"secret"}"#).await;
    assert_eq!(status, 200, "{answer}");
    let token = answer["token"].as_str().expect("a token");
    let put = r#"{"key":"YQ==","value":"MQ=="}"#; // a, 1
    assert_eq!(ask("/v3/kv/put", token, put).await.0, 200);
    assert_eq!(ask("/v3/kv/put", token, r#"{"key":"Yg==","value":"MQ=="}"#).await.0, 403);
    let (status, answer) = ask("/v3/kv/put", "made up", put).await;
    assert_eq!((status, answer["error"].as_str()), (401, Some("etcdserver: invalid auth token")));
}
