//! The JSON gateway and the plain pages.

use crate::common::{Served, http};
use serde_json::{Value, json};

async fn post(served: &Served, path: &str, body: Value) -> (u16, Value) {
    let (status, text) = http(served.address(), "POST", path, &body.to_string()).await;
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

#[tokio::test]
async fn keys_and_values_are_base64_numbers_are_strings_and_zeros_are_left_out() {
    let served = Served::start().await;
    let (status, answer) = post(&served, "/v3/kv/put", json!({ "key": "Zm9v", "value": "YmFy" })).await;
    assert_eq!((status, &answer["header"]["revision"]), (200, &json!("2")));
    let (status, answer) = post(&served, "/v3/kv/range", json!({ "key": "Zm9v" })).await;
    let kv = json!({
        "key": "Zm9v", "value": "YmFy", "create_revision": "2", "mod_revision": "2", "version": "1",
    });
    assert_eq!((status, &answer["kvs"], &answer["count"]), (200, &json!([kv]), &json!("1")));
    assert_eq!(answer.get("more"), None);
}

#[tokio::test]
async fn both_spellings_both_kinds_of_numbers_and_unknown_fields_are_understood() {
    let served = Served::start().await;
    for request in [
        json!({ "key": "YQ==", "range_end": "Yg==", "limit": 5, "sort_order": "DESCEND", "unheard": true }),
        json!({ "key": "YQ==", "rangeEnd": "Yg==", "limit": "5", "sortOrder": 2 }),
    ] {
        assert_eq!(post(&served, "/v3/kv/range", request).await.0, 200);
    }
    assert_eq!(post(&served, "/v3beta/kv/range", json!({ "key": "YQ==" })).await.0, 200);
}

#[tokio::test]
async fn a_transaction_and_a_lease_in_json() {
    let served = Served::start().await;
    let txn = json!({
        "compare": [{ "key": "YQ==", "target": "CREATE", "result": "EQUAL", "create_revision": "0" }],
        "success": [{ "request_put": { "key": "YQ==", "value": "MQ==" } }],
        "failure": [{ "request_range": { "key": "YQ==" } }],
    });
    let (_, answer) = post(&served, "/v3/kv/txn", txn.clone()).await;
    assert_eq!(answer["succeeded"], json!(true));
    assert_eq!(answer["responses"], json!([{ "response_put": { "header": { "revision": "2" } } }]));
    let (_, answer) = post(&served, "/v3/kv/txn", txn).await;
    assert_eq!(answer.get("succeeded"), None);
    let (_, answer) = post(&served, "/v3/lease/grant", json!({ "TTL": 60, "ID": "7" })).await;
    assert_eq!((&answer["ID"], &answer["TTL"]), (&json!("7"), &json!("60")));
    let (_, answer) = post(&served, "/v3/lease/keepalive", json!({ "ID": 7 })).await;
    assert_eq!(answer["result"]["TTL"], json!("60"));
}

#[tokio::test]
async fn errors_have_etcds_shape_and_status() {
    let served = Served::start().await;
    let (status, answer) = post(&served, "/v3/kv/range", json!({})).await;
    let text = "etcdserver: key is not provided";
    assert_eq!((status, answer), (400, json!({ "error": text, "message": text, "code": 3 })));
    let (status, answer) = post(&served, "/v3/lease/revoke", json!({ "ID": "9" })).await;
    assert_eq!((status, &answer["code"]), (404, &json!(5)));
    let (status, answer) = post(&served, "/v3/auth/authenticate", json!({ "name": "root" })).await;
    assert_eq!(answer["error"], json!("etcdserver: authentication is not enabled"));
    assert!(status >= 400);
    assert_eq!(post(&served, "/v3/cluster/member/add", json!({})).await.0, 501);
    assert_eq!(post(&served, "/v3/nothing", json!({})).await.0, 404);
    assert_eq!(http(served.address(), "POST", "/v3/kv/put", "{not json").await.0, 400);
    assert_eq!(http(served.address(), "GET", "/v3/kv/put", "").await.0, 405);
}

#[tokio::test]
async fn a_watch_is_a_line_for_each_response() {
    let served = Served::start().await;
    for value in ["MQ==", "Mg=="] {
        post(&served, "/v3/kv/put", json!({ "key": "YQ==", "value": value })).await;
    }
    // the second request cancels the watch, which ends the answer: all that was asked for was answered
    let create = json!({ "create_request": { "key": "YQ==", "start_revision": "2" } });
    let cancel = json!({ "cancel_request": { "watch_id": 0 } });
    let (status, text) = http(served.address(), "POST", "/v3/watch", &format!("{create}\n{cancel}")).await;
    assert_eq!(status, 200);
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let results: Vec<Value> = lines.map(|line| line["result"].clone()).collect();
    assert_eq!(results.first().map(|it| &it["created"]), Some(&json!(true)), "{text}");
    assert_eq!(results.last().map(|it| &it["canceled"]), Some(&json!(true)), "{text}");
}

#[tokio::test]
async fn version_health_and_metrics_are_pages() {
    let served = Served::start().await;
    let (status, version) = http(served.address(), "GET", "/version", "").await;
    let version: Value = serde_json::from_str(&version).expect("JSON");
    assert_eq!((status, version), (200, json!({ "etcdserver": "3.5.13", "etcdcluster": "3.5.0" })));
    let (status, health) = http(served.address(), "GET", "/health", "").await;
    assert_eq!((status, health.as_str()), (200, "{\"health\":\"true\"}"));
    served.client().await.put("a", "1").await;
    let (status, metrics) = http(served.address(), "GET", "/metrics", "").await;
    assert_eq!(status, 200);
    for line in [
        "etcd_server_has_leader 1",
        "etcd_debugging_mvcc_current_revision 2",
        "grpc_server_started_total{grpc_service=\"etcdserverpb.KV\",grpc_method=\"Put\"} 1",
    ] {
        assert!(metrics.lines().any(|it| it == line), "{line} is missing in\n{metrics}");
    }
}
