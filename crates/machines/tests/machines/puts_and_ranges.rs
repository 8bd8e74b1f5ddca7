//! etcd's KV service without transactions: what is easy to get wrong.

use crate::common::*;
use quorate_machines::kv::*;

#[test]
fn an_empty_store_is_at_revision_1_and_the_first_write_makes_2() {
    let mut bench = Bench::new();
    assert_eq!(bench.revision(), 1);
    assert_eq!(bench.put("a", "1"), 2);
    assert_eq!(bench.put("a", "2"), 3);
}

#[test]
fn deleting_nothing_makes_no_revision_no_event_and_leaves_the_digest() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let before = bench.status();
    let reply = bench.reply(&Operation::delete("b"));
    assert_eq!((reply.revision, reply.deleted().unwrap()), (2, 0));
    assert_eq!((bench.status(), bench.batches.len()), (before, 1));
}

#[test]
fn deleting_a_range_makes_one_revision_and_answers_in_the_order_of_keys() {
    let mut bench = Bench::new();
    for key in ["b", "a", "c"] {
        bench.put(key, key);
    }
    let delete = DeleteRange { key: "a".into(), range_end: "c".into(), prev_kv: true };
    let Response::Delete(answer) = bench.ok(Operation::Delete(delete)) else { panic!() };
    assert_eq!(answer.deleted, 2);
    assert_eq!(answer.prev_kvs.iter().map(|kv| kv.value.clone()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!((bench.revision(), bench.keys()), (5, vec!["c".to_owned()]));
    let Response::Delete(answer) = bench.ok(Operation::delete("c")) else { panic!() };
    assert_eq!((answer.deleted, answer.prev_kvs.len()), (1, 0), "prev_kv only if asked for");
}

#[test]
fn version_and_create_revision_begin_again_after_a_delete() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    let kv = bench.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (2, 3, 2));
    bench.ok(Operation::delete("a"));
    assert_eq!(bench.get("a"), None);
    bench.put("a", "3");
    let kv = bench.get("a").unwrap();
    assert_eq!((kv.create_revision, kv.mod_revision, kv.version), (5, 5, 1));
}

#[test]
fn a_put_answers_with_what_was_before_only_if_asked() {
    let mut bench = Bench::new();
    let asking = |value: &'static str| Operation::Put(Put { prev_kv: true, ..Put::new("a", value) });
    assert_eq!(bench.ok(asking("1")), Response::Put(PutResponse { prev_kv: None }));
    let Response::Put(PutResponse { prev_kv: Some(before) }) = bench.ok(asking("2")) else { panic!() };
    assert_eq!((&before.value[..], before.mod_revision), (&b"1"[..], 2));
    assert_eq!(bench.ok(put("a", "3")), Response::Put(PutResponse { prev_kv: None }));
    bench.ok(Operation::delete("a"));
    assert_eq!(bench.ok(asking("4")), Response::Put(PutResponse { prev_kv: None }), "a tombstone is nothing");
}

#[test]
fn ignore_value_keeps_the_value_and_ignore_lease_the_lease() {
    let mut bench = Bench::new();
    bench.grant(7, 60);
    bench.grant(8, 60);
    bench.ok(Operation::Put(Put { lease: 7, ..Put::new("a", "1") }));
    bench.ok(Operation::Put(Put { ignore_value: true, lease: 8, ..Put::new("a", "") }));
    let kv = bench.get("a").unwrap();
    assert_eq!((&kv.value[..], kv.lease, kv.version), (&b"1"[..], 8, 2));
    bench.ok(Operation::Put(Put { ignore_lease: true, ..Put::new("a", "2") }));
    let kv = bench.get("a").unwrap();
    assert_eq!((&kv.value[..], kv.lease), (&b"2"[..], 8));
    assert_eq!(bench.ttl(8).keys, ["a"]);
}

#[test]
fn ignore_value_and_ignore_lease_are_refused_where_they_make_no_sense() {
    let mut bench = Bench::new();
    let ignoring_value = |value: &'static str| Operation::Put(Put { ignore_value: true, ..Put::new("a", value) });
    let ignoring_lease = |lease| Operation::Put(Put { ignore_lease: true, lease, ..Put::new("a", "1") });
    assert_eq!(bench.refused(ignoring_value("1")), KvError::ValueProvided);
    assert_eq!(bench.refused(ignoring_lease(7)), KvError::LeaseProvided);
    assert_eq!(bench.refused(ignoring_value("")), KvError::KeyNotFound);
    assert_eq!(bench.refused(ignoring_lease(0)), KvError::KeyNotFound);
    bench.put("a", "1");
    bench.ok(Operation::delete("a"));
    assert_eq!(bench.refused(ignoring_value("")), KvError::KeyNotFound, "a deleted key does not exist");
}

#[test]
fn an_empty_key_is_refused_everywhere_but_in_events() {
    let mut bench = Bench::new();
    assert_eq!(bench.refused(put("", "1")), KvError::EmptyKey);
    assert_eq!(bench.refused(Operation::delete("")), KvError::EmptyKey);
    assert_eq!(bench.range_error(Range::default()), KvError::EmptyKey);
    for txn in [
        Txn { success: vec![put_op("", "")], ..Txn::default() },
        Txn { failure: vec![delete_op("", "")], ..Txn::default() },
        Txn { success: vec![get_op("")], ..Txn::default() },
        Txn { compare: vec![compare("", Operator::Equal, Operand::Version(0))], ..Txn::default() },
    ] {
        assert_eq!(bench.refused(Operation::Txn(txn)), KvError::EmptyKey);
    }
    assert_eq!(bench.events(Events::default()).next_revision, 2);
}

#[test]
fn range_end_is_one_key_a_range_from_a_key_on_or_everything() {
    let mut bench = Bench::new();
    for key in ["a", "b", "ba", "c"] {
        bench.put(key, key);
    }
    let keys = |key: &'static [u8], range_end: &'static [u8]| {
        keys_of(&bench.range(Range { key: key.into(), range_end: range_end.into(), ..Range::default() }))
    };
    assert_eq!(keys(b"b", b""), ["b"]);
    assert_eq!(keys(b"b", b"c"), ["b", "ba"]);
    assert_eq!(keys(b"b", b"\0"), ["b", "ba", "c"]);
    assert_eq!(keys(b"\0", b"\0"), ["a", "b", "ba", "c"]);
    assert_eq!(keys(b"c", b"b"), [""; 0], "an end before the beginning: nothing");
    assert_eq!(keys(b"b", b"b"), [""; 0]);
    assert_eq!(keys(b"x", b""), [""; 0]);
}

#[test]
fn count_is_of_the_whole_range_whatever_the_limit_and_the_filters() {
    let mut bench = Bench::new();
    for key in ["a", "b", "c", "d"] {
        bench.put(key, key);
    }
    let limited = bench.range(Range { limit: 2, ..all() });
    assert_eq!((keys_of(&limited), limited.more, limited.count), (vec!["a".into(), "b".into()], true, 4));
    let exact = bench.range(Range { limit: 4, ..all() });
    assert_eq!((exact.kvs.len(), exact.more, exact.count), (4, false, 4));
    let filtered = bench.range(Range { min_mod_revision: 4, ..all() });
    assert_eq!((keys_of(&filtered), filtered.count, filtered.more), (vec!["c".into(), "d".into()], 4, false));
    let counted = bench.range(Range { count_only: true, limit: 1, ..all() });
    assert_eq!((counted.kvs.len(), counted.more, counted.count), (0, false, 4));
    bench.ok(Operation::delete("a"));
    assert_eq!(bench.range(Range { count_only: true, ..all() }).count, 3);
    assert_eq!(bench.range(Range { count_only: true, revision: 5, ..all() }).count, 4);
}

#[test]
fn filters_look_at_all_keys_before_the_limit_cuts() {
    let mut bench = Bench::new();
    for key in ["a", "b", "c", "d"] {
        bench.put(key, key); // 2, 3, 4, 5
    }
    bench.put("b", "again"); // 6
    let keys = |range: Range| keys_of(&bench.range(range));
    assert_eq!(keys(Range { min_mod_revision: 4, limit: 2, ..all() }), ["b", "c"]);
    assert!(bench.range(Range { min_mod_revision: 4, limit: 2, ..all() }).more);
    assert_eq!(keys(Range { max_mod_revision: 4, ..all() }), ["a", "c"]);
    assert_eq!(keys(Range { min_create_revision: 3, ..all() }), ["b", "c", "d"]);
    assert_eq!(keys(Range { max_create_revision: 3, ..all() }), ["a", "b"]);
}

#[test]
fn sorting_looks_at_all_keys_before_the_limit_cuts_and_values_are_blanked_after_it() {
    let mut bench = Bench::new();
    for (key, value) in [("a", "3"), ("b", "1"), ("c", "2"), ("a", "4")] {
        bench.put(key, value);
    }
    let keys = |order, target, limit| keys_of(&bench.range(Range { order, target, limit, ..all() }));
    assert_eq!(keys(SortOrder::Ascend, SortTarget::Value, 2), ["b", "c"]);
    assert_eq!(keys(SortOrder::Descend, SortTarget::Key, 2), ["c", "b"]);
    assert_eq!(keys(SortOrder::Descend, SortTarget::Version, 1), ["a"]);
    assert_eq!(keys(SortOrder::Ascend, SortTarget::Create, 0), ["a", "b", "c"]);
    assert_eq!(keys(SortOrder::Ascend, SortTarget::Mod, 0), ["b", "c", "a"]);
    assert_eq!(keys(SortOrder::None, SortTarget::Mod, 0), ["b", "c", "a"], "NONE by something else ascends");
    assert_eq!(keys(SortOrder::None, SortTarget::Key, 0), ["a", "b", "c"]);
    let blank = bench.range(Range { target: SortTarget::Value, keys_only: true, ..all() });
    assert_eq!(keys_of(&blank), ["b", "c", "a"]);
    assert!(blank.kvs.iter().all(|kv| kv.value.is_empty() && kv.mod_revision > 0));
}

#[test]
fn older_revisions_are_read_as_they_were_and_the_reply_says_the_present_one() {
    let mut bench = Bench::new();
    for value in 0..200 {
        bench.put("a", &value.to_string());
    }
    for revision in 2..=201 {
        assert_eq!(bench.get_at("a", revision).unwrap().value, (revision - 2).to_string());
    }
    assert_eq!(bench.get_at("a", 1), None);
    assert_eq!(bench.get_at("a", -3).unwrap().value, "199", "0 or less is the present");
    let old = Query::Range(Range { key: "a".into(), revision: 5, ..Range::default() });
    assert_eq!(bench.query(&old).revision, 201);
}

#[test]
fn future_and_compacted_revisions_are_refused_and_the_compacted_one_itself_is_readable() {
    let mut bench = Bench::new();
    for value in ["1", "2", "3"] {
        bench.put("a", value);
    }
    bench.compact(3);
    let at = |revision| Range { key: "a".into(), revision, ..Range::default() };
    assert_eq!(bench.range_error(at(5)), KvError::FutureRevision);
    assert_eq!(bench.range_error(at(2)), KvError::Compacted { compact_revision: 3 });
    assert_eq!(bench.get_at("a", 3).unwrap().value, "2");
    assert_eq!(bench.get_at("a", 4).unwrap().value, "3");
}

#[test]
fn compacting_backwards_or_into_the_future_is_refused() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    assert_eq!(bench.refused(Operation::Compact { revision: 3 }), KvError::FutureRevision);
    bench.compact(2);
    assert_eq!(bench.refused(Operation::Compact { revision: 2 }), KvError::Compacted { compact_revision: 2 });
    assert_eq!(bench.refused(Operation::Compact { revision: 1 }), KvError::Compacted { compact_revision: 2 });
    assert_eq!(bench.refused(Operation::Compact { revision: i64::MIN }), KvError::Compacted { compact_revision: 2 });
    assert_eq!(bench.refused(Operation::Compact { revision: i64::MAX }), KvError::FutureRevision);
}

#[test]
fn compaction_forgets_old_values_and_old_tombstones_but_no_living_key() {
    let mut bench = Bench::new();
    bench.put("dead", "1"); // 2
    bench.put("live", "1"); // 3
    bench.put("live", "2"); // 4
    bench.ok(Operation::delete("dead")); // 5
    assert_eq!(bench.status().changes, 4);
    bench.compact(5);
    assert_eq!(bench.status().changes, 2, "the living value, and the deletion made at 5, where a watch may start");
    bench.put("x", ""); // 6
    bench.compact(6);
    let status = bench.status();
    assert_eq!((status.changes, status.keys, status.compact_revision), (2, 2, 6));
    assert_eq!(status.bytes, "live2x".len() as u64);
    assert_eq!(bench.get("live").unwrap().version, 2);
    bench.put("dead", "again");
    assert_eq!(bench.get("dead").unwrap().version, 1);
}

#[test]
fn a_query_goes_through_the_log_as_well_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let before = bench.status();
    for query in [Query::get("a"), Query::Status, Query::events("", 1), Query::LeaseLeases] {
        let logged = bench.reply(&Operation::Read(query.clone()));
        assert_eq!(logged, bench.query(&query));
    }
    assert_eq!(bench.status(), before);
}

#[test]
fn pages_of_a_prefix_make_one_consistent_answer() {
    let mut bench = Bench::new();
    for index in 0..10 {
        bench.put(&format!("p/{index}"), "");
    }
    bench.put("q", "");
    let (mut seen, mut page) = (Vec::new(), Range { limit: 3, ..Range::prefix("p/") });
    loop {
        let reply = bench.query(&Query::Range(page.clone()));
        let (revision, found) = (reply.revision.min(12), reply.range().unwrap());
        seen.extend(keys_of(&found));
        let Some(last) = found.kvs.last().filter(|_| found.more) else {
            break;
        };
        page = page.after(&last.key, revision);
        bench.put("p/35", "after the first page");
    }
    assert_eq!(seen, (0..10).map(|index| format!("p/{index}")).collect::<Vec<_>>());
}

#[test]
fn the_end_of_a_prefix_is_the_first_key_after_it() {
    assert_eq!(prefix_end(b"a"), "b");
    assert_eq!(prefix_end(b"a\xff\xff"), "b");
    assert_eq!(prefix_end(b"\xff"), "\0");
    assert_eq!(prefix_end(b""), "\0");
}
