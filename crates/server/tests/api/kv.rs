//! Keys, ranges and transactions through gRPC. What the store decides is tested in its own crate; here, that the gateway asks
//! for the right thing and passes on the right answer.

use crate::common::{Served, revision};
use quorate_server::proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_server::proto::etcdserverpb::request_op::Request as Op;
use quorate_server::proto::etcdserverpb::response_op::Response as Done;
use quorate_server::proto::etcdserverpb::{
    Compare, DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest, range_request,
};
use tonic::Code;

fn op(request: Op) -> RequestOp {
    RequestOp { request: Some(request) }
}

fn put(key: &'static str, value: &'static str) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

#[tokio::test]
async fn a_key_is_written_read_overwritten_and_deleted() {
    let served = Served::start().await;
    let mut client = served.client().await;
    assert_eq!(client.put("a", "1").await, 2);
    assert_eq!(client.get("a").await.as_deref(), Some(&b"1"[..]));

    let answer = client.kv.put(PutRequest { prev_kv: true, ..put("a", "2") }).await.expect("a put").into_inner();
    let before = answer.prev_kv.expect("it was there");
    assert_eq!((before.value.as_ref(), before.mod_revision, before.version), (&b"1"[..], 2, 1));

    let delete = DeleteRangeRequest { key: "a".into(), prev_kv: true, ..DeleteRangeRequest::default() };
    let answer = client.kv.delete_range(delete).await.expect("a delete").into_inner();
    assert_eq!((answer.deleted, answer.prev_kvs.len(), revision(answer.header)), (1, 1, 4));
    assert_eq!(client.get("a").await, None);
}

#[tokio::test]
async fn a_range_is_limited_sorted_filtered_counted_and_read_at_old_revisions() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for key in ["k3", "k1", "k2"] {
        client.put(key, key).await;
    }
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let keys = |answer: &quorate_server::proto::etcdserverpb::RangeResponse| {
        answer.kvs.iter().map(|kv| String::from_utf8_lossy(&kv.key).into_owned()).collect::<Vec<_>>()
    };
    let answer = client.range(RangeRequest { limit: 2, ..all.clone() }).await.expect("an answer");
    assert_eq!((keys(&answer), answer.more, answer.count), (vec!["k1".into(), "k2".into()], true, 3));

    let (descend, create) = (range_request::SortOrder::Descend, range_request::SortTarget::Create);
    let newest = RangeRequest { sort_order: descend.into(), sort_target: create.into(), limit: 1, ..all.clone() };
    assert_eq!(keys(&client.range(newest).await.expect("an answer")), ["k2"]);

    let old = client.range(RangeRequest { revision: 3, ..all.clone() }).await.expect("an answer");
    assert_eq!((keys(&old), revision(old.header)), (vec!["k1".into(), "k3".into()], 4));

    let late = RangeRequest { min_mod_revision: 4, keys_only: true, ..all.clone() };
    let late = client.range(late).await.expect("an answer");
    assert_eq!((keys(&late), late.kvs[0].value.len()), (vec!["k2".into()], 0));

    let count = client.range(RangeRequest { count_only: true, ..all.clone() }).await.expect("an answer");
    assert_eq!((count.kvs.len(), count.count), (0, 3));

    let any = client.range(RangeRequest { serializable: true, ..all }).await.expect("an answer");
    assert!(any.count <= 3, "a replica that lags behind may not know them all");
}

#[tokio::test]
async fn a_transaction_takes_the_branch_that_its_comparisons_choose() {
    let served = Served::start().await;
    let mut client = served.client().await;
    client.put("lock", "me").await;
    let holds = |value: &'static str| Compare {
        key: "lock".into(),
        result: CompareResult::Equal.into(),
        target: CompareTarget::Value.into(),
        target_union: Some(TargetUnion::Value(value.into())),
        ..Compare::default()
    };
    let txn = |value| TxnRequest {
        compare: vec![holds(value)],
        success: vec![
            op(Op::RequestPut(put("done", "yes"))),
            op(Op::RequestRange(RangeRequest { key: "done".into(), ..RangeRequest::default() })),
        ],
        failure: vec![op(Op::RequestDeleteRange(DeleteRangeRequest { key: "lock".into(), ..Default::default() }))],
    };
    let answer = client.kv.txn(txn("me")).await.expect("an answer").into_inner();
    assert!(answer.succeeded);
    assert_eq!(revision(answer.header), 3);
    let [put, range] = answer.responses.as_slice() else { panic!("two answers") };
    assert!(matches!(put.response, Some(Done::ResponsePut(_))));
    let Some(Done::ResponseRange(range)) = &range.response else { panic!("a range") };
    assert_eq!(range.kvs[0].value, "yes", "a step sees what the steps before it wrote");

    let answer = client.kv.txn(txn("somebody else")).await.expect("an answer").into_inner();
    assert!(!answer.succeeded);
    let Some(Done::ResponseDeleteRange(deleted)) = &answer.responses[0].response else { panic!("a delete") };
    assert_eq!(deleted.deleted, 1);
}

#[tokio::test]
async fn a_range_that_is_too_large_for_one_answer_of_the_cluster_is_read_in_pages_at_one_revision() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for number in 0..25 {
        let (key, value) = (format!("k{number:02}").into(), vec![7; 1 << 20].into());
        client.kv.put(PutRequest { key, value, ..PutRequest::default() }).await.expect("a put");
    }
    let all = RangeRequest { key: "k".into(), range_end: "l".into(), ..RangeRequest::default() };
    let found = client.range(all.clone()).await.expect("an answer");
    let keys: Vec<_> = found.kvs.iter().map(|kv| kv.key.clone()).collect();
    assert_eq!(keys, (0..25).map(|number| format!("k{number:02}").into_bytes()).collect::<Vec<_>>());
    assert_eq!((found.count, found.more, revision(found.header)), (25, false, 26));
    let some = client.range(RangeRequest { limit: 20, ..all.clone() }).await.expect("an answer");
    assert_eq!((some.kvs.len(), some.count, some.more), (20, 25, true));
    let descend = RangeRequest { sort_order: range_request::SortOrder::Descend.into(), ..all };
    let refused = client.range(descend).await.expect_err("it cannot be read in pages");
    assert_eq!(refused.message(), "quorate: the reply is too large, ask for pages with limit");
}

#[tokio::test]
async fn refusals_have_the_codes_and_texts_that_etcds_clients_compare() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await;
    }
    client.compact(3).await;
    let at = |revision| RangeRequest { key: "a".into(), revision, ..RangeRequest::default() };
    let refused = client.range(at(2)).await.expect_err("it is compacted");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision has been compacted");
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.metadata().get("quorate-detail").expect("a detail"), "(oldest readable revision: 3)");
    let refused = client.range(at(99)).await.expect_err("it is not there yet");
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision is a future revision");

    let nothing = client.kv.put(PutRequest::default()).await.expect_err("no key");
    assert_eq!((nothing.code(), nothing.message()), (Code::InvalidArgument, "etcdserver: key is not provided"));
    let twice = TxnRequest { success: vec![op(Op::RequestPut(put("x", "1"))); 2], ..TxnRequest::default() };
    let twice = client.kv.txn(twice).await.expect_err("a key twice");
    assert_eq!(twice.message(), "etcdserver: duplicate key given in txn request");
    let strange = RangeRequest { key: "a".into(), sort_order: 7, ..RangeRequest::default() };
    assert_eq!(client.range(strange).await.expect_err("no order").message(), "etcdserver: invalid sort option");
    let empty = TxnRequest { success: vec![RequestOp { request: None }], ..TxnRequest::default() };
    assert_eq!(client.kv.txn(empty).await.expect_err("no request").message(), "etcdserver: key not found");
}
