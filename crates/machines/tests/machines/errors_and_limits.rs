//! etcd's error texts, and every bound at its edge.

use crate::common::*;
use quorate_machines::kv::limits::*;
use quorate_machines::kv::*;

#[test]
fn error_texts_and_codes_are_etcds_to_the_letter() {
    use Code::*;
    let table = [
        (KvError::EmptyKey, InvalidArgument, 3, "etcdserver: key is not provided"),
        (KvError::KeyNotFound, InvalidArgument, 3, "etcdserver: key not found"),
        (KvError::ValueProvided, InvalidArgument, 3, "etcdserver: value is provided"),
        (KvError::LeaseProvided, InvalidArgument, 3, "etcdserver: lease is provided"),
        (KvError::TooManyOps, InvalidArgument, 3, "etcdserver: too many operations in txn request"),
        (KvError::DuplicateKey, InvalidArgument, 3, "etcdserver: duplicate key given in txn request"),
        (
            KvError::Compacted { compact_revision: 7 },
            OutOfRange,
            11,
            "etcdserver: mvcc: required revision has been compacted",
        ),
        (KvError::FutureRevision, OutOfRange, 11, "etcdserver: mvcc: required revision is a future revision"),
        (KvError::LeaseNotFound, NotFound, 5, "etcdserver: requested lease not found"),
        (KvError::LeaseExists, FailedPrecondition, 9, "etcdserver: lease already exists"),
        (KvError::LeaseTtlTooLarge, OutOfRange, 11, "etcdserver: too large lease TTL"),
        (KvError::RequestTooLarge(Limit::Key), InvalidArgument, 3, "etcdserver: request is too large"),
        (KvError::Undecodable, InvalidArgument, 3, "quorate: the bytes are not a request"),
        (KvError::ReplyTooLarge, ResourceExhausted, 8, "quorate: the reply is too large, ask for pages with limit"),
        (KvError::Auth(AuthError::PermissionDenied), PermissionDenied, 7, "etcdserver: permission denied"),
    ];
    for (error, code, number, text) in table {
        assert_eq!(error.etcd(), (code, text));
        assert_eq!(code as u8, number);
        assert!(error.to_string().starts_with(text));
        let bytes = borsh::to_vec(&error).unwrap();
        assert_eq!(borsh::from_slice::<KvError>(&bytes).unwrap(), error);
    }
    let tags: std::collections::BTreeSet<u8> = table.iter().map(|row| borsh::to_vec(&row.0).unwrap()[0]).collect();
    assert_eq!(tags, (0..15).collect(), "every error has its row");
}

#[test]
fn error_texts_about_users_are_etcds_to_the_letter() {
    use AuthError::*;
    let precondition = Code::FailedPrecondition;
    let table = [
        (RootUserMissing, precondition, "etcdserver: root user does not exist"),
        (RootRoleMissing, precondition, "etcdserver: root user does not have root role"),
        (UserExists, precondition, "etcdserver: user name already exists"),
        (UserEmpty, Code::InvalidArgument, "etcdserver: user name is empty"),
        (UserNotFound, precondition, "etcdserver: user name not found"),
        (RoleExists, precondition, "etcdserver: role name already exists"),
        (RoleNotFound, precondition, "etcdserver: role name not found"),
        (RoleEmpty, Code::InvalidArgument, "etcdserver: role name is empty"),
        (PermissionDenied, Code::PermissionDenied, "etcdserver: permission denied"),
        (RoleNotGranted, precondition, "etcdserver: role is not granted to the user"),
        (PermissionNotGranted, precondition, "etcdserver: permission is not granted to the role"),
        (InvalidToken, Code::Unauthenticated, "etcdserver: invalid auth token"),
        (InvalidManagement, Code::InvalidArgument, "etcdserver: invalid auth management"),
        (TooManyUsers, Code::ResourceExhausted, "quorate: there are too many users"),
        (TooManyRoles, Code::ResourceExhausted, "quorate: there are too many roles"),
        (TooManyRolesOfUser, Code::ResourceExhausted, "quorate: the user has too many roles"),
        (TooManyPermissions, Code::ResourceExhausted, "quorate: the role has too many permissions"),
    ];
    for (error, code, text) in table {
        assert_eq!(KvError::Auth(error).etcd(), (code, text));
    }
    let tags: std::collections::BTreeSet<u8> = table.iter().map(|row| borsh::to_vec(&row.0).unwrap()[0]).collect();
    assert_eq!(tags, (0..17).collect(), "every error has its row");
}

#[test]
fn a_delete_or_put_whose_answer_is_too_large_is_refused_and_changes_nothing() {
    let mut bench = Bench::new();
    let keys = REPLY_BYTES_MAX / VALUE_BYTES_MAX + 1;
    for number in 0..keys {
        bench.ok(Operation::put(format!("k{number:02}"), vec![7; VALUE_BYTES_MAX]));
    }
    let delete = |prev_kv| DeleteRange { key: "k".into(), range_end: "l".into(), prev_kv };
    assert_eq!(bench.refused(Operation::Delete(delete(true))), KvError::ReplyTooLarge);
    let in_txn = |op| Operation::Txn(Txn { success: vec![put_op("a", "1"), op], ..Txn::default() });
    assert_eq!(bench.refused(in_txn(TxnOp::Delete(delete(true)))), KvError::ReplyTooLarge);
    let puts = (0..keys).map(|n| TxnOp::Put(Put { prev_kv: true, ..Put::new(format!("k{n:02}"), "") }));
    let puts = Operation::Txn(Txn { success: puts.collect(), ..Txn::default() });
    assert_eq!(bench.refused(puts), KvError::ReplyTooLarge);
    bench.ok(Operation::Delete(delete(false)));
    assert!(bench.keys().is_empty());
}

#[test]
fn errors_name_the_limit_that_was_passed() {
    assert!(KvError::RequestTooLarge(Limit::Key).to_string().contains("4096 bytes"));
    assert!(KvError::RequestTooLarge(Limit::Value).to_string().contains("1048576 bytes"));
    assert!(KvError::RequestTooLarge(Limit::Operation).to_string().contains("2097152 bytes"));
    assert!(KvError::RequestTooLarge(Limit::Events).to_string().contains("10000 events"));
    assert!(KvError::TooManyOps.to_string().contains("at most 128 in a list, 2048 in all, 16 levels"));
    assert!(KvError::ReplyTooLarge.to_string().contains("16777216 bytes"));
    assert!(KvError::Compacted { compact_revision: 7 }.to_string().contains('7'));
}

#[test]
fn keys_and_values_may_be_as_long_as_their_limit_and_not_longer() {
    let mut bench = Bench::new();
    let key = |length: usize| "k".repeat(length);
    bench.ok(Operation::put(key(KEY_BYTES_MAX), "v".repeat(VALUE_BYTES_MAX)));
    let long = key(KEY_BYTES_MAX + 1);
    let error = KvError::RequestTooLarge(Limit::Key);
    assert_eq!(bench.refused(put(&long, "")), error);
    assert_eq!(bench.refused(Operation::delete(long.clone())), error);
    let until = DeleteRange { key: "a".into(), range_end: long.clone().into(), prev_kv: false };
    assert_eq!(bench.refused(Operation::Delete(until)), error);
    assert_eq!(bench.range_error(Range { key: long.clone().into(), ..Range::default() }), error);
    let events = Events { key: long.clone().into(), ..Events::default() };
    assert_eq!(bench.query(&Query::Events(events)).result, Err(error));
    assert_eq!(bench.refused(Operation::Txn(Txn { success: vec![put_op(&long, "")], ..Txn::default() })), error);
    let compares = vec![compare(&long, Operator::Equal, Operand::Version(0))];
    assert_eq!(bench.refused(Operation::Txn(Txn { compare: compares, ..Txn::default() })), error);
    let value = put("a", &"v".repeat(VALUE_BYTES_MAX + 1));
    assert_eq!(bench.refused(value.clone()), KvError::RequestTooLarge(Limit::Value));
    assert_eq!(value.encode(), Err(KvError::RequestTooLarge(Limit::Value)));
}

#[test]
fn operations_and_queries_beyond_their_limit_are_refused_unread() {
    let mut bench = Bench::new();
    let error = KvError::RequestTooLarge(Limit::Operation);
    assert_eq!(bench.raw(&vec![0; OPERATION_BYTES_MAX + 1]).result, Err(error));
    assert_eq!(bench.raw(&vec![0; OPERATION_BYTES_MAX]).result, Err(KvError::Undecodable));
    let value = "v".repeat(VALUE_BYTES_MAX);
    let puts = ["a", "b", "c"].map(|key| put_op(key, &value)).to_vec();
    assert_eq!(Operation::Txn(Txn { success: puts, ..Txn::default() }).encode(), Err(error));
}

#[test]
fn a_query_may_not_ask_for_more_events_than_the_limit() {
    let bench = Bench::new();
    let asking = |limit| bench.query(&Query::Events(Events { limit, ..Events::default() })).result;
    assert!(asking(EVENTS_MAX).is_ok());
    assert_eq!(asking(EVENTS_MAX + 1), Err(KvError::RequestTooLarge(Limit::Events)));
}

#[test]
fn a_range_beyond_the_reply_limit_is_refused_and_pages_of_it_are_not() {
    let mut bench = Bench::new();
    let value = "v".repeat(VALUE_BYTES_MAX);
    for index in 0..16 {
        bench.put(&index.to_string(), &value);
    }
    assert_eq!(bench.range_error(all()), KvError::ReplyTooLarge);
    assert_eq!(bench.range(Range { limit: 15, ..all() }).count, 16);
    assert_eq!(bench.range(Range { keys_only: true, ..all() }).kvs.len(), 16);
    assert_eq!(bench.range(Range { count_only: true, ..all() }).count, 16);
}

#[test]
fn bytes_that_are_not_exactly_a_request_are_refused_and_change_nothing() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    let before = bench.status().digest;
    let good = put("b", "2").encode().unwrap();
    for length in 0..good.len() {
        assert_eq!(bench.raw(&good[..length]).result, Err(KvError::Undecodable));
    }
    assert_eq!(bench.raw(&[good.as_slice(), &[0]].concat()).result, Err(KvError::Undecodable), "bytes left over");
    for tag in 8..=255 {
        assert_eq!(bench.raw(&[tag]).result, Err(KvError::Undecodable));
    }
    let last = good.len() - 1;
    assert_eq!(bench.raw(&[&good[..last], &[2]].concat()).result, Err(KvError::Undecodable), "a flag is 0 or 1");
    assert_eq!(bench.status().digest, before);
}

#[test]
fn replies_with_bottomless_nesting_are_refused_by_clients() {
    let mut deep = [&7_i64.to_le_bytes()[..], &[1, 2]].concat(); // revision, Ok, Response::Txn
    for _ in 0..100_000 {
        deep.extend([1, 1, 0, 0, 0]); // succeeded, one response:
        deep.extend([0; 8]);
        deep.push(3); // a transaction's
    }
    assert_eq!(Reply::decode(&deep), Err(KvError::Undecodable));
}

#[test]
fn more_than_128_entries_in_a_list_are_refused_and_nested_lists_count_down() {
    let mut bench = Bench::new();
    let puts =
        |count: usize, name: &str| (0..count).map(|index| put_op(&format!("{name}{index}"), "")).collect::<Vec<_>>();
    let too_many = |operation: Operation, bench: &mut Bench| {
        assert_eq!(operation.encode(), Err(KvError::TooManyOps));
        assert_eq!(bench.refused(operation), KvError::TooManyOps);
    };
    too_many(Operation::Txn(Txn { success: puts(129, "a"), ..Txn::default() }), &mut bench);
    too_many(Operation::Txn(Txn { failure: puts(129, "a"), ..Txn::default() }), &mut bench);
    let compares = vec![compare("a", Operator::Equal, Operand::Version(0)); 129];
    too_many(Operation::Txn(Txn { compare: compares, ..Txn::default() }), &mut bench);
    let outer = |inner| {
        Operation::Txn(Txn { success: [puts(99, "a"), vec![nested(inner, vec![])]].concat(), ..Txn::default() })
    };
    too_many(outer(puts(29, "b")), &mut bench);
    bench.ok(outer(puts(28, "b")));
    bench.ok(Operation::Txn(Txn { success: puts(128, "c"), ..Txn::default() }));
}

#[test]
fn bottomless_nesting_and_huge_counts_are_refused_without_cost() {
    let mut bench = Bench::new();
    let mut deep = vec![2]; // Operation::Txn
    for _ in 0..100_000 {
        deep.extend([0, 0, 0, 0, 1, 0, 0, 0, 3]); // no compares, one success: a transaction
    }
    assert_eq!(bench.raw(&deep).result, Err(KvError::TooManyOps));
    assert_eq!(bench.raw(&[2, 255, 255, 255, 255]).result, Err(KvError::TooManyOps));
    let mut operation = nested(vec![], vec![]);
    for _ in 0..limits::TXN_DEPTH_MAX - 2 {
        operation = nested(vec![operation], vec![]);
    }
    bench.ok(Operation::Txn(Txn { success: vec![operation.clone()], ..Txn::default() }));
    let deeper = Operation::Txn(Txn { success: vec![nested(vec![operation], vec![])], ..Txn::default() });
    assert_eq!(bench.refused(deeper), KvError::TooManyOps);
    let wide: Vec<_> = (0..60).map(|_| nested(vec![get_op("a"); 60], vec![])).collect();
    assert_eq!(bench.refused(Operation::Txn(Txn { success: wide, ..Txn::default() })), KvError::TooManyOps);
}

#[test]
fn a_transaction_whose_answer_is_too_large_is_undone() {
    let mut bench = Bench::new();
    let big = "v".repeat(limits::VALUE_BYTES_MAX);
    bench.put("big", &big);
    let reads = vec![get_op("big"); limits::REPLY_BYTES_MAX / limits::VALUE_BYTES_MAX];
    let ops = [vec![put_op("a", "1")], reads].concat();
    assert_eq!(bench.refused(Operation::Txn(Txn { success: ops.clone(), ..Txn::default() })), KvError::ReplyTooLarge);
    assert_eq!(bench.keys(), ["big"]);
    bench.txn(Txn { success: ops[..ops.len() - 1].to_vec(), ..Txn::default() });
    assert_eq!(bench.keys(), ["a", "big"]);
}
