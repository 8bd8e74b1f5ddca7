//! etcd's transactions: compares, one revision, whole or not at all, no key written twice.

use crate::common::*;
use quorate_machines::kv::*;

fn revision_of(reply: &TxnOpReply) -> i64 {
    reply.revision
}

#[test]
fn a_transaction_makes_one_revision_with_its_changes_numbered_in_order() {
    let mut bench = Bench::new();
    let reply =
        bench.reply(&Operation::Txn(Txn { success: vec![put_op("b", "1"), put_op("a", "2")], ..Txn::default() }));
    assert_eq!(reply.revision, 2);
    assert_eq!(bench.revision(), 2);
    let batch = &bench.batches[0];
    assert_eq!(batch.events.iter().map(|event| event.kv.key.clone()).collect::<Vec<_>>(), ["b", "a"]);
    assert_eq!(
        bench.events(Events { from_revision: 2, range_end: "\0".into(), ..Events::default() }).batches,
        bench.batches
    );
}

#[test]
fn a_transaction_that_changes_nothing_makes_no_revision() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let before = bench.status();
    let reply = bench.reply(&Operation::Txn(Txn { success: vec![delete_op("x", ""), get_op("a")], ..Txn::default() }));
    assert_eq!(reply.revision, 2);
    assert_eq!(reply.txn().unwrap().responses.iter().map(revision_of).collect::<Vec<_>>(), [2, 2]);
    assert_eq!(bench.status(), before);
}

#[test]
fn a_read_sees_what_the_transaction_wrote_before_it_and_inner_revisions_say_so() {
    let mut bench = Bench::new();
    bench.put("a", "old");
    let ops = vec![get_op("a"), put_op("a", "new"), get_op("a"), delete_op("b", ""), get_op("b")];
    let answer = bench.txn(Txn { success: ops, ..Txn::default() });
    assert_eq!(answer.responses.iter().map(revision_of).collect::<Vec<_>>(), [2, 3, 3, 3, 3]);
    let value = |index: usize| match &answer.responses[index].response {
        TxnOpResponse::Range(range) => range.kvs.first().map(|kv| (kv.value.clone(), kv.mod_revision)),
        other => panic!("{other:?}"),
    };
    assert_eq!((value(0), value(2), value(4)), (Some(("old".into(), 2)), Some(("new".into(), 3)), None));
}

#[test]
fn a_read_at_an_older_revision_does_not_see_what_the_transaction_wrote() {
    let mut bench = Bench::new();
    bench.put("a", "old");
    let old = TxnOp::Range(Range { key: "a".into(), revision: 2, ..Range::default() });
    let answer = bench.txn(Txn { success: vec![put_op("a", "new"), old], ..Txn::default() });
    let TxnOpResponse::Range(range) = &answer.responses[1].response else { panic!() };
    assert_eq!(range.kvs[0].value, "old");
}

#[test]
fn every_compare_target_and_operator_decides_as_in_etcd() {
    use Operator::{Equal, Greater, Less, NotEqual};
    let mut bench = Bench::new();
    bench.grant(7, 60);
    bench.put("x", "");
    bench.put("a", "m");
    bench.put_with_lease("a", 7); // create 3, mod 4, version 2, value v
    let mut check = |operand: fn(i64) -> Operand, actual: i64| {
        for (operator, expected) in [
            (Equal, [false, true, false]),
            (NotEqual, [true, false, true]),
            (Greater, [true, false, false]),
            (Less, [false, false, true]),
        ] {
            for (offset, expected) in [-1, 0, 1].into_iter().zip(expected) {
                let compare = vec![compare("a", operator, operand(actual + offset))];
                let succeeded = bench.txn(Txn { compare, ..Txn::default() }).succeeded;
                assert_eq!(succeeded, expected, "{operator:?} {:?}", operand(actual + offset));
            }
        }
    };
    check(Operand::Version, 2);
    check(Operand::Create, 3);
    check(Operand::Mod, 4);
    check(Operand::Lease, 7);
    check(|byte| Operand::Value(vec![u8::try_from(byte).unwrap()].into()), i64::from(b'v'));
}

#[test]
fn a_missing_key_compares_as_zeros_but_its_value_as_false_whatever_the_operator() {
    let mut bench = Bench::new();
    bench.put("dead", "1");
    bench.ok(Operation::delete("dead"));
    for key in ["never", "dead"] {
        for operand in [Operand::Version(0), Operand::Create(0), Operand::Mod(0), Operand::Lease(0)] {
            assert!(
                bench.txn(Txn { compare: vec![compare(key, Operator::Equal, operand)], ..Txn::default() }).succeeded
            );
        }
        for operator in [Operator::Equal, Operator::NotEqual, Operator::Greater, Operator::Less] {
            let compare = vec![compare(key, operator, Operand::Value("".into()))];
            assert!(!bench.txn(Txn { compare, ..Txn::default() }).succeeded, "{operator:?}");
        }
    }
}

#[test]
fn a_range_compare_needs_every_key_and_an_empty_list_of_compares_holds() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("b", "2");
    let mut holds = |operand| {
        let compare = Compare { range_end: "c".into(), ..compare("a", Operator::Greater, operand) };
        bench.txn(Txn { compare: vec![compare], ..Txn::default() }).succeeded
    };
    assert!(holds(Operand::Value("0".into())));
    assert!(!holds(Operand::Value("1".into())));
    assert!(bench.txn(Txn::default()).succeeded);
    let both =
        vec![compare("a", Operator::Equal, Operand::Version(1)), compare("b", Operator::Equal, Operand::Version(9))];
    assert!(!bench.txn(Txn { compare: both, ..Txn::default() }).succeeded, "all compares must hold");
}

#[test]
fn only_the_branch_that_the_compares_chose_is_done_and_validated() {
    let mut bench = Bench::new();
    let bad = TxnOp::Put(Put { lease: 99, ..Put::new("a", "1") });
    let answer = bench.txn(Txn { success: vec![put_op("b", "1")], failure: vec![bad.clone()], ..Txn::default() });
    assert!(answer.succeeded);
    assert_eq!(bench.keys(), ["b"]);
    let never = vec![compare("b", Operator::Equal, Operand::Version(9))];
    let other = Txn { compare: never, success: vec![bad], failure: vec![put_op("c", "1")] };
    assert!(!bench.txn(other).succeeded);
    assert_eq!(bench.keys(), ["b", "c"]);
}

#[test]
fn a_transaction_is_validated_whole_before_the_first_write() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    bench.put("a", "2");
    bench.compact(3);
    let after_a_write = |op| Operation::Txn(Txn { success: vec![put_op("z", "1"), op], ..Txn::default() });
    let lease = TxnOp::Put(Put { lease: 99, ..Put::new("b", "") });
    let keep = TxnOp::Put(Put { ignore_value: true, ..Put::new("b", "") });
    let at = |revision| TxnOp::Range(Range { key: "a".into(), revision, ..Range::default() });
    assert_eq!(bench.refused(after_a_write(lease.clone())), KvError::LeaseNotFound);
    assert_eq!(bench.refused(after_a_write(keep)), KvError::KeyNotFound);
    assert_eq!(bench.refused(after_a_write(at(4))), KvError::FutureRevision, "its own revision is not there yet");
    assert_eq!(bench.refused(after_a_write(at(2))), KvError::Compacted { compact_revision: 3 });
    assert_eq!(bench.refused(after_a_write(nested(vec![lease], vec![]))), KvError::LeaseNotFound);
}

#[test]
fn one_key_may_not_be_put_twice_nor_put_and_deleted() {
    let mut bench = Bench::new();
    let cases = [
        vec![put_op("a", "1"), put_op("a", "2")],
        vec![put_op("a", "1"), delete_op("a", "")],
        vec![delete_op("a", "c"), put_op("b", "1")],
        vec![delete_op("a", "\0"), put_op("zz", "1")],
        vec![delete_op("a", "c"), delete_op("b", "x"), put_op("d", "1")],
        vec![delete_op("b", ""), delete_op("a", "c"), put_op("bb", "1")],
        vec![put_op("a", "1"), nested(vec![put_op("a", "2")], vec![])],
        vec![nested(vec![put_op("a", "2")], vec![]), nested(vec![], vec![put_op("a", "2")])],
        vec![nested(vec![put_op("a", "2")], vec![]), delete_op("a", "")],
        vec![nested(vec![delete_op("a", "")], vec![]), put_op("a", "1")],
        vec![nested(vec![], vec![delete_op("a", "")]), put_op("a", "1")],
        vec![nested(vec![nested(vec![], vec![put_op("a", "")])], vec![]), put_op("a", "1")],
    ];
    for ops in cases {
        let success = Operation::Txn(Txn { success: ops.clone(), ..Txn::default() });
        assert_eq!(success.encode(), Err(KvError::DuplicateKey), "the client refuses already: {ops:?}");
        assert_eq!(bench.refused(success), KvError::DuplicateKey, "{ops:?}");
        let failure = Operation::Txn(Txn { failure: ops.clone(), ..Txn::default() });
        assert_eq!(bench.refused(failure), KvError::DuplicateKey, "also in the branch not taken: {ops:?}");
    }
}

#[test]
fn branches_that_exclude_each_other_may_write_the_same_key_and_deletes_may_overlap() {
    let mut bench = Bench::new();
    for ops in [
        vec![nested(vec![put_op("a", "1")], vec![put_op("a", "2")])],
        vec![nested(vec![put_op("a", "1")], vec![delete_op("a", "")])],
        vec![delete_op("a", "c"), delete_op("b", "d"), put_op("d", "1")],
        vec![delete_op("a", "b"), put_op("b", "1")],
        vec![delete_op("b", "a"), put_op("b", "1")],
        vec![delete_op("b", ""), put_op("ba", "1"), put_op("a", "1")],
    ] {
        assert!(Operation::Txn(Txn { success: ops.clone(), ..Txn::default() }).encode().is_ok(), "{ops:?}");
        bench.txn(Txn { success: ops.clone(), failure: ops, ..Txn::default() });
    }
}

#[test]
fn compares_of_nested_transactions_look_at_the_state_before_the_outermost() {
    let mut bench = Bench::new();
    let absent = vec![compare("a", Operator::Equal, Operand::Version(0))];
    let inner = TxnOp::Txn(Txn {
        compare: absent,
        success: vec![put_op("b", "absent")],
        failure: vec![put_op("b", "present")],
    });
    let answer = bench.txn(Txn { success: vec![put_op("a", "1"), inner], ..Txn::default() });
    assert_eq!(bench.get("b").unwrap().value, "absent");
    assert_eq!(answer.responses[1].revision, 0, "a nested transaction has no revision of its own in its header");
    let TxnOpResponse::Txn(inner) = &answer.responses[1].response else { panic!() };
    assert!(inner.succeeded);
    assert_eq!((inner.responses[0].revision, bench.revision()), (2, 2));
}

#[test]
fn a_key_that_nested_transactions_put_and_then_delete_has_both_events_and_is_gone() {
    let mut bench = Bench::new();
    bench.put("a", "before");
    let ops = vec![nested(vec![put_op("a", "1")], vec![]), nested(vec![delete_op("a", "")], vec![])];
    bench.txn(Txn { success: ops, ..Txn::default() });
    assert_eq!(bench.get("a"), None);
    let events = &bench.batches[1].events;
    assert_eq!(events.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Put, EventKind::Delete]);
    assert!(events.iter().all(|event| event.prev_kv.as_ref().unwrap().value == "before"));
    let query = Events { from_revision: 3, range_end: "\0".into(), prev_kv: true, ..Events::default() };
    assert_eq!(bench.events(query).batches, bench.batches[1..]);
    assert_eq!(bench.get_at("a", 2).unwrap().value, "before");
    assert_eq!(stream(&restore(&stream(&bench.kv)).unwrap()), stream(&bench.kv));
    bench.compact(3);
    assert_eq!(stream(&restore(&stream(&bench.kv)).unwrap()), stream(&bench.kv));
}

#[test]
fn compare_and_swap_swaps_only_what_was_expected_and_answers_with_what_is_there() {
    let mut bench = Bench::new();
    let mut swap = |expected, value: &'static str| {
        let answer = bench.reply(&Operation::compare_and_swap("a", expected, value)).txn().unwrap();
        match &answer.responses[0].response {
            TxnOpResponse::Range(range) => (answer.succeeded, range.kvs.first().map(|kv| kv.value.clone())),
            _ => (answer.succeeded, None),
        }
    };
    assert_eq!(swap(Expected::Value("".into()), "0"), (false, None));
    assert_eq!(swap(Expected::Absent, "1"), (true, None));
    assert_eq!(swap(Expected::Absent, "2"), (false, Some("1".into())));
    assert_eq!(swap(Expected::Value("1".into()), "2"), (true, None));
    assert_eq!(swap(Expected::ModRevision(2), "3"), (false, Some("2".into())));
    assert_eq!(swap(Expected::ModRevision(3), "3"), (true, None));
}

/// As etcd 3.4 answers, asked the same.
#[test]
fn of_several_reasons_to_refuse_a_transaction_the_same_one_is_given_as_by_etcd() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let future = TxnOp::Range(Range { key: "a".into(), revision: 99, ..Range::default() });
    let leased = TxnOp::Put(Put { lease: 5, ..Put::new("a", "1") });
    let keeping = Put { ignore_value: true, lease: 5, key: "none".into(), ..Put::default() };
    let mut refused = |success| bench.refused(Operation::Txn(Txn { success, ..Txn::default() }));
    assert_eq!(refused(vec![future.clone(), nested(vec![leased], vec![])]), KvError::LeaseNotFound, "puts come first");
    assert_eq!(refused(vec![TxnOp::Put(keeping.clone())]), KvError::KeyNotFound, "what is kept, then the lease");
    assert_eq!(refused(vec![future]), KvError::FutureRevision);
    assert_eq!(bench.refused(Operation::Put(keeping)), KvError::LeaseNotFound, "outside, the lease comes first");
}

/// etcd 3.4 takes a revision below zero for the present one outside a transaction, and for a compacted one inside.
#[test]
fn a_revision_below_zero_is_refused_inside_a_transaction_once_anything_was_compacted() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let below = Range { key: "a".into(), revision: -1, ..Range::default() };
    let txn = Txn { success: vec![TxnOp::Range(below.clone())], ..Txn::default() };
    assert_eq!(bench.txn(txn.clone()).responses.len(), 1);
    bench.compact(2);
    assert_eq!(bench.refused(Operation::Txn(txn)), KvError::Compacted { compact_revision: 2 });
    assert_eq!(bench.range(below).count, 1);
}
