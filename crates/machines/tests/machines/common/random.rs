//! Random requests over few keys, revisions and leases, so that they meet.

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::time::WallTime;
use quorate_machines::kv::*;

pub fn key() -> impl Strategy<Value = Bytes> {
    prop_oneof![
        9 => prop::sample::select(vec!["a", "aa", "b", "c", "d", "e"]).prop_map(Bytes::from),
        1 => Just(Bytes::from("long ".repeat(20))),
    ]
}

fn range_end() -> impl Strategy<Value = Bytes> {
    prop_oneof![3 => Just(Bytes::new()), 1 => Just(Bytes::from_static(b"\0")), 2 => key()]
}

fn value() -> impl Strategy<Value = Bytes> {
    prop::sample::select(vec!["", "1", "2", "a longer value"]).prop_map(Bytes::from)
}

fn lease() -> impl Strategy<Value = i64> {
    prop_oneof![4 => Just(0_i64), 1 => 1..4_i64]
}

fn put() -> impl Strategy<Value = Put> {
    (key(), value(), lease(), any::<bool>(), 0..12_u8).prop_map(|(key, value, lease, prev_kv, ignore)| {
        let (ignore_value, ignore_lease) = (ignore == 0, ignore == 1);
        Put {
            key,
            value: if ignore_value { Bytes::new() } else { value },
            lease: if ignore_lease { 0 } else { lease },
            prev_kv,
            ignore_value,
            ignore_lease,
        }
    })
}

fn delete() -> impl Strategy<Value = DeleteRange> {
    (key(), range_end(), any::<bool>()).prop_map(|(key, range_end, prev_kv)| DeleteRange { key, range_end, prev_kv })
}

pub fn range() -> impl Strategy<Value = Range> {
    let order = prop::sample::select(vec![SortOrder::None, SortOrder::Ascend, SortOrder::Descend]);
    let target = prop::sample::select(vec![
        SortTarget::Key,
        SortTarget::Version,
        SortTarget::Create,
        SortTarget::Mod,
        SortTarget::Value,
    ]);
    let bound = || prop_oneof![6 => Just(0_i64), 1 => 1..30_i64];
    let revision = prop_oneof![1 => Just(0_i64), 2 => 0..40_i64];
    let flags = (0..6_u8).prop_map(|flag| (flag == 0, flag == 1));
    (key(), range_end(), 0..4_u64, revision, order, target, flags, (bound(), bound(), bound(), bound())).prop_map(
        |(key, range_end, limit, revision, order, target, (keys_only, count_only), bounds)| Range {
            key,
            range_end,
            limit,
            revision,
            order,
            target,
            keys_only,
            count_only,
            min_mod_revision: bounds.0,
            max_mod_revision: bounds.1,
            min_create_revision: bounds.2,
            max_create_revision: bounds.3,
        },
    )
}

fn compare() -> impl Strategy<Value = Compare> {
    let operator = prop::sample::select(vec![Operator::Equal, Operator::NotEqual, Operator::Greater, Operator::Less]);
    let operand = prop_oneof![
        (0..3_i64).prop_map(Operand::Version),
        (0..20_i64).prop_map(Operand::Create),
        (0..20_i64).prop_map(Operand::Mod),
        value().prop_map(Operand::Value),
        (0..3_i64).prop_map(Operand::Lease),
    ];
    (key(), range_end(), operator, operand).prop_map(|(key, range_end, operator, operand)| Compare {
        key,
        range_end,
        operator,
        operand,
    })
}

fn txn() -> impl Strategy<Value = Txn> {
    let leaf =
        prop_oneof![range().prop_map(TxnOp::Range), put().prop_map(TxnOp::Put), delete().prop_map(TxnOp::Delete)];
    let op = leaf.prop_recursive(2, 12, 3, |op| {
        (vec(compare(), 0..2), vec(op.clone(), 0..3), vec(op, 0..3))
            .prop_map(|(compare, success, failure)| TxnOp::Txn(Txn { compare, success, failure }))
    });
    (vec(compare(), 0..3), vec(op.clone(), 0..4), vec(op, 0..4)).prop_map(|(compare, success, failure)| Txn {
        compare,
        success,
        failure,
    })
}

pub fn operation() -> impl Strategy<Value = Operation> {
    prop_oneof![
        8 => put().prop_map(Operation::Put),
        3 => delete().prop_map(Operation::Delete),
        6 => txn().prop_map(Operation::Txn),
        1 => (0..40_i64).prop_map(|revision| Operation::Compact { revision }),
        2 => (0..4_i64, 0..12_i64).prop_map(|(id, ttl)| Operation::LeaseGrant { id, ttl }),
        1 => (1..4_i64).prop_map(|id| Operation::LeaseRevoke { id }),
        1 => (1..4_i64).prop_map(|id| Operation::LeaseKeepAlive { id }),
        2 => query().prop_map(Operation::Read),
    ]
}

pub fn query() -> impl Strategy<Value = Query> {
    let events = (key(), range_end(), 0..40_i64, 0..4_u64, any::<[bool; 3]>()).prop_map(
        |(key, range_end, from_revision, limit, [prev_kv, no_put, no_delete])| {
            Query::Events(Events { key, range_end, from_revision, limit, prev_kv, no_put, no_delete })
        },
    );
    prop_oneof![
        3 => range().prop_map(Query::Range),
        2 => events,
        1 => (1..4_i64, any::<bool>(), 0..60_u64).prop_map(|(id, keys, seconds)| {
            Query::LeaseTimeToLive { id, keys, now: WallTime::from_nanos(seconds * 1_000_000_000) }
        }),
        1 => Just(Query::LeaseLeases),
        1 => Just(Query::Status),
    ]
}
