//! Events, as published and as read back: ordered, unique, whole revisions, resumable, filtered (etcd's guarantees).

use crate::common::*;
use bytes::Bytes;
use quorate_machines::kv::*;

fn from(from_revision: i64) -> Events {
    Events { range_end: "\0".into(), from_revision, prev_kv: true, ..Events::default() }
}

/// A store with puts, deletes, transactions and leases behind it.
fn lively() -> Bench {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    for round in 0..5 {
        bench.put("a", &round.to_string());
        bench.put_with_lease("leased", 1);
        bench.txn(Txn { success: vec![put_op("b", "1"), put_op("c", "2"), delete_op("a", "")], ..Txn::default() });
    }
    bench.pass(10);
    bench
}

#[test]
fn every_revision_is_published_once_whole_and_in_order() {
    let bench = lively();
    let revisions: Vec<_> = bench.batches.iter().map(|batch| batch.revision).collect();
    assert_eq!(revisions, (2..=bench.revision()).collect::<Vec<_>>());
    for batch in &bench.batches {
        assert!(!batch.events.is_empty());
        assert!(batch.events.iter().all(|event| event.kv.mod_revision == batch.revision));
    }
}

#[test]
fn history_reads_back_what_was_published_from_any_revision() {
    let bench = lively();
    for first in 1..=bench.revision() + 3 {
        let answer = bench.events(from(first));
        let published: Vec<_> = bench.batches.iter().filter(|batch| batch.revision >= first).cloned().collect();
        assert_eq!(answer.batches, published);
        assert_eq!(answer.next_revision, first.max(bench.revision() + 1), "a start in the future stays there");
    }
}

#[test]
fn reading_in_small_steps_gives_every_revision_once_and_never_splits_one() {
    let bench = lively();
    for limit in 1..5 {
        let (mut next, mut read) = (1, Vec::new());
        while next <= bench.revision() {
            let answer = bench.events(Events { limit, ..from(next) });
            assert!(answer.next_revision > next, "there is progress");
            next = answer.next_revision;
            read.extend(answer.batches);
        }
        assert_eq!(read, bench.batches);
    }
}

#[test]
fn from_0_means_from_now_on() {
    let bench = lively();
    for now in [0, -1, i64::MIN] {
        assert_eq!(bench.events(from(now)), EventsResponse { batches: vec![], next_revision: bench.revision() + 1 });
    }
}

#[test]
fn events_say_what_the_key_was_before_and_whether_it_was_created() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.ok(Operation::delete("a"));
    bench.put("a", "3");
    let seen = bench.batches.iter().map(|batch| {
        let event = &batch.events[0];
        (event.kind, event.is_create(), event.prev_kv.as_ref().map(|kv| kv.value.clone()))
    });
    assert_eq!(
        seen.collect::<Vec<_>>(),
        [
            (EventKind::Put, true, None),
            (EventKind::Put, false, Some("1".into())),
            (EventKind::Delete, false, Some("2".into())),
            (EventKind::Put, true, None),
        ]
    );
    assert!(
        bench
            .events(Events { prev_kv: false, ..from(1) })
            .batches
            .iter()
            .all(|batch| batch.events[0].prev_kv.is_none())
    );
}

#[test]
fn a_tombstone_has_only_its_key_and_its_revision() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.put_with_lease("a", 1);
    bench.ok(Operation::delete("a"));
    let kv = bench.batches[1].events[0].kv.clone();
    assert_eq!(kv, KeyValue { key: "a".into(), mod_revision: 3, ..KeyValue::default() });
    assert_eq!(bench.events(from(3)).batches[0].events[0].kv, kv);
}

#[test]
fn keys_and_kinds_are_filtered_and_revisions_without_events_are_left_out() {
    let bench = lively();
    let kinds = |events: Events| {
        let batches = bench.events(events).batches;
        batches
            .iter()
            .flat_map(|batch| &batch.events)
            .map(|event| (event.kv.key.clone(), event.kind))
            .collect::<Vec<_>>()
    };
    let only_a = Events { key: "a".into(), range_end: "".into(), ..from(1) };
    assert_eq!(kinds(only_a.clone()).len(), 10);
    assert!(kinds(only_a.clone()).iter().all(|(key, _)| key == "a"));
    assert_eq!(kinds(Events { no_put: true, ..only_a.clone() }), vec![("a".into(), EventKind::Delete); 5]);
    assert_eq!(kinds(Events { no_delete: true, ..only_a.clone() }), vec![("a".into(), EventKind::Put); 5]);
    assert_eq!(kinds(Events { no_put: true, no_delete: true, ..only_a }), vec![]);
    assert_eq!(kinds(Events { key: "b".into(), range_end: "d".into(), ..from(1) }).len(), 10);
    assert_eq!(kinds(Events { key: "d".into(), range_end: "b".into(), ..from(1) }).len(), 0);
    assert_eq!(kinds(Events { range_end: "".into(), ..from(1) }).len(), 0, "an empty key is one zero byte, one key");
}

#[test]
fn a_start_before_the_compacted_revision_is_refused_and_names_it() {
    let mut bench = lively();
    bench.compact(9);
    let refused = bench.query(&Query::Events(from(8))).result.unwrap_err();
    assert_eq!(refused, KvError::Compacted { compact_revision: 9 });
    assert_eq!(bench.events(from(9)).batches[0].revision, 9, "the compacted revision itself is readable");
}

#[test]
fn a_start_at_the_compacted_revision_delivers_a_deletion_made_there() {
    // etcd #19179
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.ok(Operation::delete("a"));
    bench.compact(3);
    let batches = bench.events(from(3)).batches;
    assert_eq!((batches.len(), batches[0].events[0].kind), (1, EventKind::Delete));
    assert_eq!(batches[0].events[0].prev_kv, None, "what was before is compacted away");
    bench.put("b", "");
    bench.compact(4);
    assert_eq!(bench.events(from(4)).batches[0].events[0].kv.key, "b");
    assert_eq!(bench.status().changes, 1, "the tombstone is gone");
}

#[test]
fn the_predecessor_of_the_first_event_after_a_compaction_is_still_there() {
    let mut bench = Bench::new();
    for value in ["1", "2", "3"] {
        bench.put("a", value);
    }
    bench.compact(3);
    let batches = bench.events(from(3)).batches;
    assert_eq!(batches[0].events[0].prev_kv, None);
    assert_eq!(batches[1].events[0].prev_kv.as_ref().unwrap().value, "2");
}

#[test]
fn a_reader_of_rare_keys_moves_on_through_long_histories() {
    let mut bench = Bench::new();
    for _ in 0..limits::EVENTS_SCANNED_SOFT_MAX + 5 {
        bench.put("busy", "");
    }
    let rare = Events { key: "rare".into(), range_end: "".into(), ..from(1) };
    let answer = bench.events(rare.clone());
    assert_eq!(answer.batches, []);
    assert!(answer.next_revision < bench.revision(), "one query looks at a bounded part of history");
    let rest = bench.events(Events { from_revision: answer.next_revision, ..rare });
    assert_eq!(rest.next_revision, bench.revision() + 1);
}

#[test]
fn an_answer_of_events_ends_when_it_is_large_enough() {
    let mut bench = Bench::new();
    let big = "v".repeat(limits::VALUE_BYTES_MAX);
    for _ in 0..6 {
        bench.put("a", &big);
    }
    let answer = bench.events(Events { prev_kv: false, ..from(2) });
    assert_eq!((answer.batches.len(), answer.next_revision), (4, 6));
}

/// More than is published, and more than one answer holds: the event says that there is one, history says what it is.
#[test]
fn a_revision_too_large_to_be_published_is_read_in_parts() {
    let mut bench = Bench::new();
    let keys = limits::EVENT_BYTES_MAX / limits::VALUE_BYTES_MAX + 2;
    for number in 0..keys {
        bench.ok(Operation::put(format!("k{number:02}"), vec![7; limits::VALUE_BYTES_MAX]));
    }
    bench.ok(Operation::delete_prefix("k"));
    bench.put("after", "1");
    let revision = bench.revision() - 1;
    let published = &bench.batches[bench.batches.len() - 2];
    assert_eq!((published.revision, published.events.len()), (revision, 0));
    let interest = Events { prev_kv: true, from_revision: revision, ..Events::default() };
    let all = Events { range_end: Bytes::from_static(&[0]), ..interest };
    assert_eq!(bench.query(&Query::Events(all.clone())).result, Err(KvError::ReplyTooLarge));
    let (mut events, mut answers, mut next, mut from_change) = (Vec::new(), 0, revision, 0);
    while next <= bench.revision() {
        let query = Query::EventsPart { events: Events { from_revision: next, ..all.clone() }, from_change };
        let Response::EventsPart(part) = bench.query(&query).result.unwrap() else { panic!("another answer") };
        events.extend(part.batches.into_iter().flat_map(|batch| batch.events));
        (next, from_change, answers) = (part.next_revision, part.next_change, answers + 1);
    }
    assert!(answers > 3);
    let told: Vec<_> = events.iter().map(|event| (event.kv.mod_revision - revision, event.kv.key.clone())).collect();
    let expected = (0..keys).map(|number| (0, Bytes::from(format!("k{number:02}"))));
    assert_eq!(told, expected.chain([(1, Bytes::from("after"))]).collect::<Vec<_>>());
    assert!(events.iter().take(keys).all(|event| event.prev_kv.is_some()));
}
