//! etcd's leases, with agreed time.

use crate::common::*;
use quorate_core::machine::{Entropy, Output, StateMachine};
use quorate_core::time::WallTime;
use quorate_machines::kv::*;

#[test]
fn short_leases_are_lengthened_and_the_reply_says_so() {
    let mut bench = Bench::new();
    assert_eq!(bench.grant(1, 1), (1, 2));
    assert_eq!(bench.grant(2, i64::MIN), (2, 2));
    assert_eq!(bench.grant(3, 2), (3, 2));
    assert_eq!(bench.grant(4, 3), (4, 3));
}

#[test]
fn leases_that_are_too_long_or_exist_are_refused() {
    let mut bench = Bench::new();
    assert_eq!(bench.refused(Operation::LeaseGrant { id: 1, ttl: 9_000_000_001 }), KvError::LeaseTtlTooLarge);
    bench.grant(1, 9_000_000_000);
    assert_eq!(bench.refused(Operation::LeaseGrant { id: 1, ttl: 5 }), KvError::LeaseExists);
    assert_eq!(bench.refused(Operation::LeaseRevoke { id: 2 }), KvError::LeaseNotFound);
    assert_eq!(bench.refused(Operation::Put(Put { lease: 2, ..Put::new("a", "1") })), KvError::LeaseNotFound);
}

#[test]
fn id_0_lets_the_store_choose_a_63_bit_id_by_agreement() {
    let ids = || {
        let mut bench = Bench::new();
        (0..50).map(|_| bench.grant(0, 60).0).collect::<Vec<_>>()
    };
    let chosen = ids();
    assert_eq!(chosen, ids(), "the same places in the log give the same ids");
    assert!(chosen.iter().all(|id| *id > 0));
    assert!(chosen.iter().any(|id| *id > 1 << 61), "the whole width is used");
    assert_eq!(chosen.iter().collect::<std::collections::BTreeSet<_>>().len(), 50);
}

#[test]
fn a_chosen_id_steps_past_a_taken_one_and_around_the_end() {
    let mut bench = Bench::new();
    let mut grant = |entropy: [u8; 32]| {
        let at = quorate_core::machine::At { entropy: Entropy::Bytes(entropy), ..bench.at() };
        let mut out = Output::default();
        bench.kv.apply(&at, &Operation::LeaseGrant { id: 0, ttl: 60 }.encode().unwrap(), &mut out);
        Reply::decode(&out.take().0).unwrap().lease().unwrap().0
    };
    assert_eq!(grant([255; 32]), i64::MAX);
    assert_eq!(grant([255; 32]), 1);
    assert_eq!(grant([0; 32]), 2);
}

#[test]
fn a_lease_ends_by_agreed_time_and_takes_its_keys_along_in_one_revision() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    for key in ["b", "a", "c"] {
        bench.put_with_lease(key, 1);
    }
    bench.put("stays", "1");
    assert_eq!(bench.kv.wake(), Some(WallTime::from_nanos(1_010 * 1_000_000_000)));
    bench.pass(9);
    assert_eq!((bench.keys().len(), bench.ttl(1).ttl), (4, 1));
    bench.pass(1);
    assert_eq!((bench.keys(), bench.revision()), (vec!["stays".to_owned()], 5 + 1));
    let batch = bench.batches.last().unwrap();
    assert!(batch.events.iter().all(|event| event.kind == EventKind::Delete && event.prev_kv.is_some()));
    assert_eq!(batch.events.iter().map(|event| event.kv.key.clone()).collect::<Vec<_>>(), ["a", "b", "c"]);
    assert_eq!((bench.kv.wake(), bench.ttl(1).ttl), (None, -1));
}

#[test]
fn leases_that_are_over_at_once_end_in_the_order_of_their_ends_then_of_their_ids() {
    let mut bench = Bench::new();
    for (id, ttl) in [(5, 10), (3, 10), (9, 5), (7, 99)] {
        bench.grant(id, ttl);
        bench.put_with_lease(&format!("of {id}"), id);
    }
    bench.pass(20);
    let gone: Vec<_> =
        bench.batches[4..].iter().map(|batch| (batch.revision, batch.events[0].kv.key.clone())).collect();
    assert_eq!(gone, [(6, "of 9".into()), (7, "of 3".into()), (8, "of 5".into())]);
    assert_eq!(bench.keys(), ["of 7"]);
    assert_eq!(bench.query(&Query::LeaseLeases).result, Ok(Response::LeaseLeases(vec![7])));
}

#[test]
fn a_tick_before_the_end_of_any_lease_changes_nothing() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    let (before, at) = (bench.kv.digest(), bench.at());
    let mut out = Output::default();
    bench.kv.tick(&at, &mut out);
    assert_eq!((bench.kv.digest(), out.take().1.len()), (before, 0));
}

#[test]
fn keeping_alive_begins_the_full_ttl_again() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.put_with_lease("a", 1);
    bench.pass(9);
    let before = bench.kv.digest();
    assert_eq!(bench.ok(Operation::LeaseKeepAlive { id: 1 }), Response::LeaseKeepAlive { id: 1, ttl: 10 });
    assert_ne!(bench.kv.digest(), before, "when a lease ends is state");
    assert_eq!(bench.revision(), 2, "but not a change of keys");
    bench.pass(9);
    assert_eq!((bench.keys().len(), bench.ttl(1).keys), (1, vec!["a".into()]));
    bench.pass(1);
    assert_eq!(bench.keys().len(), 0);
}

#[test]
fn keeping_alive_a_lease_that_is_gone_or_over_answers_0_and_is_no_error() {
    let mut bench = Bench::new();
    let before = bench.kv.digest();
    assert_eq!(bench.ok(Operation::LeaseKeepAlive { id: 1 }), Response::LeaseKeepAlive { id: 1, ttl: 0 });
    assert_eq!(bench.kv.digest(), before);
    bench.grant(1, 10);
    bench.seconds += 10; // over, though the tick has not come yet
    assert_eq!(bench.ok(Operation::LeaseKeepAlive { id: 1 }), Response::LeaseKeepAlive { id: 1, ttl: 0 });
    assert_eq!(bench.ttl(1).ttl, -1);
}

#[test]
fn keeping_alive_twice_at_one_time_changes_nothing_the_second_time() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    let before = bench.kv.digest();
    bench.ok(Operation::LeaseKeepAlive { id: 1 });
    assert_eq!(bench.kv.digest(), before);
}

#[test]
fn revoking_deletes_all_keys_in_one_revision_and_none_if_there_are_none() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.grant(2, 10);
    bench.put_with_lease("a", 1);
    bench.put_with_lease("b", 1);
    assert_eq!(bench.reply(&Operation::LeaseRevoke { id: 1 }).revision, 4);
    assert_eq!((bench.keys().len(), bench.batches[2].events.len()), (0, 2));
    let before = bench.kv.digest();
    assert_eq!(bench.reply(&Operation::LeaseRevoke { id: 2 }).revision, 4);
    assert_ne!(bench.kv.digest(), before, "a lease fewer is another state");
    assert_eq!(bench.status().leases, 0);
}

#[test]
fn a_put_detaches_the_lease_that_the_key_had() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.grant(2, 20);
    for key in ["none", "other", "same", "deleted"] {
        bench.put_with_lease(key, 1);
    }
    bench.put("none", "no lease");
    bench.put_with_lease("other", 2);
    bench.put_with_lease("same", 1);
    bench.ok(Operation::delete("deleted"));
    assert_eq!((bench.ttl(1).keys, bench.ttl(2).keys), (vec!["same".into()], vec!["other".into()]));
    bench.put("deleted", "again, without a lease");
    bench.pass(10);
    assert_eq!(bench.keys(), ["deleted", "none", "other"]);
    bench.pass(10);
    assert_eq!(bench.keys(), ["deleted", "none"]);
}

#[test]
fn time_to_live_says_what_is_left_at_the_time_of_asking() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.put_with_lease("b", 1);
    bench.put_with_lease("a", 1);
    let answer = bench.ttl(1);
    assert_eq!((answer.ttl, answer.granted_ttl, answer.keys.len()), (10, 10, 2));
    assert_eq!(answer.keys, ["a", "b"]);
    bench.seconds += 3;
    assert_eq!((bench.ttl(1).ttl, bench.ttl(1).granted_ttl), (7, 10));
    assert_eq!((bench.ttl(9).ttl, bench.ttl(9).granted_ttl), (-1, 0));
}

#[test]
fn leases_survive_a_snapshot_with_their_ends_and_their_keys() {
    let mut bench = Bench::new();
    bench.grant(1, 10);
    bench.put_with_lease("a", 1);
    bench.put_with_lease("b", 1);
    bench.put("b", "detached");
    let wake = bench.kv.wake();
    bench.kv = restore(&stream(&bench.kv)).unwrap();
    assert_eq!((bench.kv.wake(), bench.ttl(1).keys), (wake, vec!["a".into()]));
    bench.pass(10);
    assert_eq!(bench.keys(), ["b"]);
}
