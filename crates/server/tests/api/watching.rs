//! Watch: ordered, unique, whole revisions, resumable; nobody is blocked by the slow, and the slow lose nothing.

use crate::common::{Served, everything, revision, seen};
use quorate_server::Options;
use quorate_server::proto::etcdserverpb::request_op::Request as Op;
use quorate_server::proto::etcdserverpb::watch_create_request::FilterType;
use quorate_server::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest, WatchCreateRequest};
use quorate_server::proto::mvccpb::event::EventType;
use std::time::Duration;

fn triple(revision: i64, key: &str, value: &str) -> (i64, String, String) {
    (revision, key.to_owned(), value.to_owned())
}

#[tokio::test]
async fn a_watch_says_that_it_is_created_and_then_what_happens_in_order() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let before = client.put("a", "before").await;
    let mut watches = client.watches().await;
    let created = watches.key("a", 0).await;
    assert!(created.created && !created.canceled && created.events.is_empty());
    assert_eq!((created.watch_id, revision(created.header)), (0, before));
    client.put("a", "1").await;
    client.put("b", "not watched").await;
    client.put("a", "2").await;
    client.delete("a").await;
    let events = watches.events(3).await;
    assert_eq!(events, [triple(3, "a", "1"), triple(5, "a", "2"), triple(6, "a", "")]);
}

#[tokio::test]
async fn a_watch_from_a_past_revision_hears_all_since_then_once_and_goes_on() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await;
    }
    let mut watches = client.watches().await;
    assert!(watches.all(3).await.created);
    client.put("a", "4").await;
    let events = watches.events(3).await;
    assert_eq!(events, [triple(3, "a", "2"), triple(4, "a", "3"), triple(5, "a", "4")]);
}

/// etcd #20221
#[tokio::test]
async fn a_watch_from_a_future_revision_hears_nothing_older() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    assert!(watches.key("a", 4).await.created);
    for value in ["1", "2", "3"] {
        client.put("a", value).await;
    }
    assert_eq!(watches.events(1).await, [triple(4, "a", "3")]);
}

#[tokio::test]
async fn all_changes_of_a_transaction_are_in_one_response() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    watches.all(0).await;
    let put = |key: String| PutRequest { key: key.into(), value: "v".into(), ..PutRequest::default() };
    let success = (0..100).map(|n| RequestOp { request: Some(Op::RequestPut(put(format!("k{n:03}")))) });
    client.kv.txn(TxnRequest { success: success.collect(), ..TxnRequest::default() }).await.expect("a transaction");
    let response = watches.next().await;
    assert_eq!(seen(&response).len(), 100);
    assert!(seen(&response).iter().all(|(revision, ..)| *revision == 2));
}

#[tokio::test]
async fn previous_values_and_filters_are_as_asked_for() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    let no_put = WatchCreateRequest { filters: vec![FilterType::Noput.into()], prev_kv: true, ..everything() };
    let no_delete = WatchCreateRequest { filters: vec![FilterType::Nodelete.into()], ..everything() };
    assert_eq!(watches.create(no_put).await.watch_id, 0);
    assert_eq!(watches.create(no_delete).await.watch_id, 1);
    client.put("a", "1").await;
    client.delete("a").await;
    for _ in 0..2 {
        let response = watches.next().await;
        let [event] = response.events.as_slice() else { panic!("{response:?}") };
        let before = event.prev_kv.as_ref().map(|kv| kv.value.clone());
        match response.watch_id {
            0 => assert_eq!((event.r#type(), before), (EventType::Delete, Some("1".into()))),
            _ => assert_eq!((event.r#type(), before), (EventType::Put, None)),
        }
    }
}

#[tokio::test]
async fn a_watch_from_a_compacted_revision_is_created_and_then_canceled_with_the_oldest_that_is_left() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for value in ["1", "2", "3"] {
        client.put("a", value).await;
    }
    client.delete("a").await;
    client.compact(5).await;
    let mut watches = client.watches().await;
    assert!(watches.key("a", 3).await.created);
    let canceled = watches.next().await;
    assert_eq!((canceled.canceled, canceled.compact_revision, canceled.watch_id), (true, 5, 0));
    // the stream goes on, and a deletion made at the compacted revision is still told (etcd #19179)
    assert!(watches.key("a", 5).await.created);
    assert_eq!(watches.events(1).await, [triple(5, "a", "")]);
}

#[tokio::test]
async fn ids_are_chosen_or_taken_and_a_refused_watch_has_none() {
    let served = Served::start().await;
    let client = served.client().await;
    let mut watches = client.watches().await;
    let with_id = |watch_id| WatchCreateRequest { key: "a".into(), watch_id, ..WatchCreateRequest::default() };
    assert_eq!(watches.create(with_id(1)).await.watch_id, 1);
    assert_eq!(watches.create(with_id(0)).await.watch_id, 0);
    assert_eq!(watches.create(with_id(0)).await.watch_id, 2, "1 is taken");
    let twice = watches.create(with_id(1)).await;
    assert!(twice.created && twice.canceled);
    assert_eq!(
        (twice.watch_id, twice.cancel_reason.as_str()),
        (-1, "mvcc: duplicate watch ID provided on the WatchStream")
    );
    let empty = WatchCreateRequest { key: "b".into(), range_end: "a".into(), ..WatchCreateRequest::default() };
    let empty = watches.create(empty).await;
    assert_eq!((empty.watch_id, empty.cancel_reason.as_str()), (-1, "mvcc: watcher range is empty"));
    let negative = watches.key("a", -1).await;
    assert_eq!((negative.watch_id, negative.created, negative.canceled), (-1, true, true));
}

#[tokio::test]
async fn a_canceled_watch_says_so_once_and_hears_nothing_more() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    watches.key("a", 0).await;
    watches.key("a", 0).await;
    watches.cancel(0).await;
    watches.cancel(0).await; // whoever cancels what is not there hears nothing
    let canceled = watches.next().await;
    assert_eq!((canceled.watch_id, canceled.canceled, canceled.created), (0, true, false));
    client.put("a", "1").await;
    let response = watches.next().await;
    assert_eq!((response.watch_id, seen(&response)), (1, vec![triple(2, "a", "1")]));
}

/// etcd #15220, #17507
#[tokio::test]
async fn progress_that_is_asked_for_comes_after_all_that_happened_before_even_to_a_watch_without_events() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for _ in 0..20 {
        client.put("other", "x").await;
    }
    let mut watches = client.watches().await;
    watches.key("a", 2).await;
    watches.ask_for_progress().await;
    let progress = watches.next().await;
    assert_eq!((progress.watch_id, revision(progress.header), progress.events.len()), (-1, 21, 0));
    client.put("a", "1").await;
    assert_eq!(watches.events(1).await, [triple(22, "a", "1")]);
    watches.ask_for_progress().await;
    let progress = watches.next().await;
    assert_eq!((progress.watch_id, revision(progress.header)), (-1, 22));
}

#[tokio::test]
async fn progress_comes_by_itself_to_a_watch_that_wants_it_and_hears_nothing_else() {
    let options = Options { progress_interval: Duration::from_millis(200), ..Options::default() };
    let served = Served::start_with(options).await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    let create = WatchCreateRequest { key: "a".into(), progress_notify: true, ..WatchCreateRequest::default() };
    watches.create(create).await;
    let last = client.put("other", "x").await;
    loop {
        let progress = watches.next().await;
        assert_eq!((progress.watch_id, progress.events.len()), (0, 0));
        if revision(progress.header) == last {
            return;
        }
    }
}

/// etcd #17529
#[tokio::test]
async fn a_watcher_that_does_not_read_blocks_nobody_and_loses_nothing() {
    const VALUE_BYTES: usize = 64 << 10;
    const PUTS: usize = 600; // more than is kept for all, and more than the connection takes in
    let served = Served::start().await;
    let slow = served.client().await;
    let mut slow = slow.watches().await;
    slow.key("a", 0).await;
    let mut client = served.client().await;
    let mut quick = client.watches().await;
    quick.key("a", 0).await;
    for _ in 0..PUTS {
        let request = PutRequest { key: "a".into(), value: vec![7; VALUE_BYTES].into(), ..PutRequest::default() };
        client.kv.put(request).await.expect("a put");
        assert_eq!(seen(&quick.next().await).len(), 1, "a quick watcher hears each at once");
    }
    let revisions: Vec<i64> = slow.events(PUTS).await.iter().map(|(revision, ..)| *revision).collect();
    let expected: Vec<i64> = (2..).take(PUTS).collect();
    assert_eq!(revisions, expected, "every revision once, in order");
}

#[tokio::test]
async fn many_watches_share_a_stream_and_a_gateway() {
    const WATCHES: i64 = 500;
    let served = Served::start().await;
    let mut client = served.client().await;
    let mut watches = client.watches().await;
    for id in 0..WATCHES {
        assert_eq!(watches.key("a", 0).await.watch_id, id);
    }
    client.put("a", "1").await;
    let mut heard = Vec::new();
    for _ in 0..WATCHES {
        let response = watches.next().await;
        assert_eq!(seen(&response), [triple(2, "a", "1")]);
        heard.push(response.watch_id);
    }
    heard.sort_unstable();
    assert_eq!(heard, (0..WATCHES).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_watch_hears_what_is_written_through_another_gateway() {
    let served = Served::start().await;
    let mut watches = served.client().await.watches().await;
    watches.key("a", 0).await;
    let other = served.another().await;
    let mut client = crate::common::Client::connect(other.address()).await;
    client.put("a", "1").await;
    assert_eq!(watches.events(1).await, [triple(2, "a", "1")]);
}

#[tokio::test]
async fn a_revision_too_large_for_one_message_is_fragmented_for_whoever_asked_for_it() {
    let served = Served::start().await;
    let mut client = served.client().await;
    for part in 0..4 {
        let put = |n| PutRequest {
            key: format!("k{part}{n:02}").into(),
            value: vec![7; 10 << 10].into(),
            ..PutRequest::default()
        };
        let success = (0..100).map(|n| RequestOp { request: Some(Op::RequestPut(put(n))) });
        client.kv.txn(TxnRequest { success: success.collect(), ..TxnRequest::default() }).await.expect("a transaction");
    }
    let mut watches = client.watches().await;
    watches.create(WatchCreateRequest { fragment: true, prev_kv: true, ..everything() }).await;
    let all = quorate_server::proto::etcdserverpb::DeleteRangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv: false,
    };
    client.kv.delete_range(all).await.expect("a delete");
    let (mut events, mut parts) = (0, 0);
    loop {
        let response = watches.next().await;
        events += response.events.len();
        parts += 1;
        if !response.fragment {
            break;
        }
    }
    assert_eq!(events, 400);
    assert!(parts > 1, "4 MB of previous values do not fit into one");
}

/// 30 keys of 900 KiB: more than the cluster publishes as one event, and more than it answers at once.
#[tokio::test]
async fn a_revision_larger_than_an_answer_of_the_cluster_is_told_whole() {
    const KEYS: usize = 30;
    let served = Served::start().await;
    let mut client = served.client().await;
    for number in 0..KEYS {
        let (key, value) = (format!("k{number:02}").into(), vec![7; 900 << 10].into());
        client.kv.put(PutRequest { key, value, ..PutRequest::default() }).await.expect("a put");
    }
    let range = |prev_kv| quorate_server::proto::etcdserverpb::DeleteRangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        prev_kv,
    };
    let refused = client.kv.delete_range(range(true)).await.expect_err("its answer would be too large");
    assert_eq!(refused.message(), "quorate: the reply is too large, ask for pages with limit");
    let mut watches = client.watches().await;
    watches.create(WatchCreateRequest { prev_kv: true, fragment: true, ..everything() }).await;
    let deleted = client.kv.delete_range(range(false)).await.expect("a delete").into_inner();
    assert_eq!(deleted.deleted, 30, "the refused one has changed nothing");
    let deletion = revision(deleted.header);
    let mut before = Vec::new();
    loop {
        let response = watches.next().await;
        assert!(response.events.iter().all(|event| event.kv.as_ref().is_some_and(|kv| kv.mod_revision == deletion)));
        before.extend(response.events.into_iter().filter_map(|event| event.prev_kv));
        if !response.fragment {
            break;
        }
    }
    assert_eq!(before.len(), KEYS);
    assert!(before.iter().all(|kv| kv.value.len() == 900 << 10));
    client.put("after", "1").await;
    assert_eq!(watches.events(1).await, [triple(deletion + 1, "after", "1")]);
}
