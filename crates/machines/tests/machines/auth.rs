//! Users, roles and permissions: who may do what, decided where it is done. Source: etcd 3.4, `auth/store.go` and
//! `etcdserver/apply_auth.go`, as its server behaves (`crates/server/tests/api/auth.rs` compares).

use crate::common::*;
use proptest::prelude::*;
use quorate_core::machine::{Query as _, StateMachine as _, View as _};
use quorate_machines::kv::limits::*;
use quorate_machines::kv::*;

const LOGGED_IN: u64 = u64::MAX;

fn change(operation: AuthOperation) -> Operation {
    Operation::Auth(operation)
}

fn add_user(name: &str) -> Operation {
    change(AuthOperation::UserAdd { name: name.into(), hash: Some("hash".into()) })
}

fn add_role(name: &str) -> Operation {
    change(AuthOperation::RoleAdd { name: name.into() })
}

fn grant_role(name: &str, role: &str) -> Operation {
    change(AuthOperation::UserGrantRole { name: name.into(), role: role.into() })
}

fn revoke_role(name: &str, role: &str) -> Operation {
    change(AuthOperation::UserRevokeRole { name: name.into(), role: role.into() })
}

fn permission(kind: PermissionKind, key: &str, range_end: &str) -> Permission {
    Permission { kind, key: key.to_owned().into(), range_end: range_end.to_owned().into() }
}

fn grant(role: &str, kind: PermissionKind, key: &str, range_end: &str) -> Operation {
    change(AuthOperation::RoleGrantPermission { name: role.into(), permission: permission(kind, key, range_end) })
}

/// With a root, a user `u` whose role `r` has these permissions, and users that count.
fn guarded(permissions: &[(PermissionKind, &str, &str)]) -> Bench {
    let mut bench = Bench::new();
    for operation in [add_user("root"), grant_role("root", "root"), add_user("u"), add_role("r"), grant_role("u", "r")]
    {
        bench.ok(operation);
    }
    for (kind, key, range_end) in permissions {
        bench.ok(grant("r", *kind, key, range_end));
    }
    bench.ok(change(AuthOperation::Enable));
    bench
}

fn since(user: &str, since: u64, operation: Operation) -> Operation {
    Operation::As { who: Who { user: user.into(), since }, operation: Labelled::new(operation) }
}

fn by(user: &str, operation: Operation) -> Operation {
    since(user, LOGGED_IN, operation)
}

fn asked_by(bench: &Bench, user: &str, query: Query) -> Result<Response, KvError> {
    let who = Who { user: user.into(), since: LOGGED_IN };
    bench.query(&Query::As { who, query: Labelled::new(query) }).result
}

fn revision(bench: &Bench) -> u64 {
    match bench.query(&Query::Auth(AuthQuery::Status)).result {
        Ok(Response::Auth(AuthResponse::Status { revision, .. })) => revision,
        other => panic!("{other:?}"),
    }
}

const DENIED: KvError = KvError::Auth(AuthError::PermissionDenied);
const INVALID: KvError = KvError::Auth(AuthError::InvalidToken);
const NOBODY: KvError = KvError::Auth(AuthError::UserEmpty);
use PermissionKind::{Read, ReadWrite, Write};

#[test]
fn until_users_count_everybody_may_do_everything() {
    let mut bench = Bench::new();
    bench.ok(by("", put("a", "1")));
    bench.ok(by("nobody knows", put("a", "2")));
    bench.ok(by("", add_user("root")));
    assert!(asked_by(&bench, "", Query::get("a")).is_ok());
}

#[test]
fn users_count_only_once_there_is_a_root_that_is_root() {
    let mut bench = Bench::new();
    let enable = || change(AuthOperation::Enable);
    assert_eq!(bench.refused(enable()), AuthError::RootUserMissing.into());
    bench.ok(add_user("root"));
    assert_eq!(bench.refused(enable()), AuthError::RootRoleMissing.into());
    bench.ok(grant_role("root", "root"));
    bench.ok(enable());
    let enabled = revision(&bench);
    bench.ok(enable());
    assert_eq!(revision(&bench), enabled, "the second time is no change");
}

#[test]
fn nobody_may_do_nothing() {
    let mut bench = guarded(&[]);
    let lease = Operation::LeaseGrant { id: 7, ttl: 60 };
    let compact = Operation::Compact { revision: 1 };
    for operation in [put("a", "1"), lease, compact, add_role("x"), Operation::Read(Query::Status)] {
        assert_eq!(bench.refused(by("", operation)), NOBODY);
    }
    assert_eq!(asked_by(&bench, "", Query::get("a")), Err(NOBODY));
}

#[test]
fn a_program_with_a_key_of_the_cluster_needs_no_user() {
    let mut bench = guarded(&[]);
    bench.ok(put("a", "1"));
    assert_eq!(bench.get("a").unwrap().value, "1");
}

#[test]
fn root_may_do_everything() {
    let mut bench = guarded(&[]);
    bench.ok(by("root", put("a", "1")));
    bench.ok(by("root", add_user("x")));
    assert!(asked_by(&bench, "root", Query::prefix("")).is_ok());
    assert!(asked_by(&bench, "root", Query::Auth(AuthQuery::Administer)).is_ok());
}

#[test]
fn only_root_may_change_or_list_users_and_roles() {
    let mut bench = guarded(&[(ReadWrite, "\0", "\0")]);
    let own_password = change(AuthOperation::UserChangePassword { name: "u".into(), hash: None });
    for operation in
        [add_user("x"), add_role("x"), grant_role("u", "root"), change(AuthOperation::Disable), own_password]
    {
        assert_eq!(bench.refused(by("u", operation)), DENIED);
    }
    for query in [AuthQuery::Users, AuthQuery::Roles, AuthQuery::Status, AuthQuery::Administer] {
        assert_eq!(asked_by(&bench, "u", Query::Auth(query)), Err(DENIED));
    }
}

#[test]
fn a_user_may_look_at_itself_and_at_its_roles() {
    let mut bench = guarded(&[(Read, "a", "")]);
    bench.ok(add_role("other"));
    let user = |name: &str| Query::Auth(AuthQuery::User { name: name.into() });
    let role = |name: &str| Query::Auth(AuthQuery::Role { name: name.into() });
    let names = Response::Auth(AuthResponse::Names(vec!["r".into()]));
    assert_eq!(asked_by(&bench, "u", user("u")), Ok(names));
    let permissions = Response::Auth(AuthResponse::Permissions(vec![permission(Read, "a", "")]));
    assert_eq!(asked_by(&bench, "u", role("r")), Ok(permissions));
    assert_eq!(asked_by(&bench, "u", user("root")), Err(DENIED));
    assert_eq!(asked_by(&bench, "u", role("other")), Err(DENIED));
}

#[test]
fn no_user_is_told_a_hash_not_even_root() {
    let mut bench = guarded(&[]);
    let secret = || Query::Auth(AuthQuery::Secret { name: "u".into() });
    assert_eq!(asked_by(&bench, "root", secret()), Err(DENIED));
    assert_eq!(bench.refused(by("root", Operation::Read(secret()))), DENIED);
    let told = bench.query(&secret()).result.unwrap();
    let revision = revision(&bench);
    assert_eq!(told, Response::Auth(AuthResponse::Secret { enabled: true, hash: Some("hash".into()), revision }));
}

#[test]
fn reading_and_writing_are_two_rights() {
    let mut bench = guarded(&[(Read, "r", ""), (Write, "w", ""), (ReadWrite, "b", "")]);
    for (key, reads, writes) in [("r", true, false), ("w", false, true), ("b", true, true), ("x", false, false)] {
        assert_eq!(asked_by(&bench, "u", Query::get(key)).is_ok(), reads, "{key}");
        assert_eq!(bench.reply(&by("u", put(key, "1"))).result.is_ok(), writes, "{key}");
        assert_eq!(bench.reply(&by("u", Operation::delete(key))).result.is_ok(), writes, "{key}");
    }
}

#[test]
fn what_a_write_tells_of_before_must_be_readable() {
    let mut bench = guarded(&[(Write, "w", "")]);
    let put = Operation::Put(Put { prev_kv: true, ..Put::new("w", "1") });
    assert_eq!(bench.refused(by("u", put)), DENIED);
    let delete = Operation::Delete(DeleteRange { key: "w".into(), prev_kv: true, ..DeleteRange::default() });
    assert_eq!(bench.refused(by("u", delete)), DENIED);
}

#[test]
fn a_range_must_be_covered_whole_and_permissions_that_touch_are_one() {
    let bench = guarded(&[(Read, "a", "b"), (Read, "b", "c"), (Read, "d", ""), (Read, "d\0", "e"), (Read, "x", "\0")]);
    let reads = |key: &str, range_end: &str| {
        let range = Range { key: key.to_owned().into(), range_end: range_end.to_owned().into(), ..Range::default() };
        asked_by(&bench, "u", Query::Range(range)).is_ok()
    };
    assert!(reads("a", "c") && reads("aa", "bb") && reads("d", "e") && reads("x", "\0") && reads("y", "z"));
    assert!(!reads("a", "d") && !reads("c", "") && !reads("d", "f") && !reads("w", "\0") && !reads("", "a"));
}

#[test]
fn a_transaction_needs_the_rights_for_all_of_it_whatever_will_be_done_of_it() {
    let mut bench = guarded(&[(ReadWrite, "a", "")]);
    let txn = |compare: &str, success: Vec<TxnOp>, failure: Vec<TxnOp>| {
        let compare = vec![Compare::equal(compare.to_owned(), Operand::Version(0))];
        Operation::Txn(Txn { compare, success, failure })
    };
    let get = |key: &str| TxnOp::Range(Range { key: key.to_owned().into(), ..Range::default() });
    bench.ok(by("u", txn("a", vec![put_op("a", "1")], vec![get("a")])));
    assert_eq!(bench.refused(by("u", txn("b", vec![], vec![]))), DENIED, "a comparison reads");
    assert_eq!(bench.refused(by("u", txn("a", vec![put_op("b", "1")], vec![]))), DENIED, "not done, and yet");
    assert_eq!(bench.refused(by("u", txn("a", vec![], vec![get("b")]))), DENIED);
}

/// etcd 3.4 does not look into them.
#[test]
fn a_nested_transaction_is_no_way_around() {
    let mut bench = guarded(&[(ReadWrite, "a", "")]);
    let inner = Txn { success: vec![put_op("b", "1")], ..Txn::default() };
    let outer = Txn { success: vec![TxnOp::Txn(inner)], ..Txn::default() };
    assert_eq!(bench.refused(by("u", Operation::Txn(outer))), DENIED);
}

#[test]
fn a_lease_that_holds_a_key_of_somebody_else_can_be_neither_used_nor_ended() {
    let mut bench = guarded(&[(ReadWrite, "a", "")]);
    bench.grant(7, 60);
    let leased = || Operation::Put(Put { lease: 7, ..Put::new("a", "1") });
    bench.ok(by("u", leased()));
    bench.put_with_lease("b", 7);
    assert_eq!(bench.refused(by("u", leased())), DENIED);
    let put = TxnOp::Put(Put { lease: 7, ..Put::new("a", "1") });
    let txn = Operation::Txn(Txn { success: vec![put], ..Txn::default() });
    assert_eq!(bench.refused(by("u", txn)), DENIED);
    assert_eq!(bench.refused(by("u", Operation::LeaseRevoke { id: 7 })), DENIED);
    let keys = |keys| Query::LeaseTimeToLive { id: 7, keys, now: Default::default() };
    assert_eq!(asked_by(&bench, "u", keys(true)), Err(DENIED));
    assert!(asked_by(&bench, "u", keys(false)).is_ok());
    bench.ok(Operation::delete("b"));
    bench.ok(by("u", Operation::LeaseRevoke { id: 7 }));
}

#[test]
fn a_watch_needs_the_right_to_read_its_whole_range() {
    let bench = guarded(&[(Read, "a", "b")]);
    let events = |key: &str, range_end: &str| {
        let events = Events { key: key.to_owned().into(), range_end: range_end.to_owned().into(), ..Events::default() };
        asked_by(&bench, "u", Query::Events(events))
    };
    assert!(events("a", "b").is_ok() && events("aa", "").is_ok());
    for (key, range_end) in [("a", "c"), ("", ""), ("", "\0"), ("b", "")] {
        assert_eq!(events(key, range_end), Err(DENIED), "{key:?} to {range_end:?}");
    }
}

#[test]
fn rights_end_with_the_operation_that_takes_them() {
    let mut bench = guarded(&[(ReadWrite, "a", "")]);
    bench.ok(by("u", put("a", "1")));
    let revoke = AuthOperation::RoleRevokePermission { name: "r".into(), key: "a".into(), range_end: "".into() };
    bench.ok(change(revoke));
    assert_eq!(bench.refused(by("u", put("a", "2"))), DENIED);
    bench.ok(grant("r", ReadWrite, "a", ""));
    bench.ok(by("u", put("a", "2")));
    bench.ok(revoke_role("u", "r"));
    assert_eq!(bench.refused(by("u", put("a", "3"))), DENIED);
    bench.ok(grant_role("u", "r"));
    bench.ok(change(AuthOperation::RoleDelete { name: "r".into() }));
    assert_eq!(bench.refused(by("u", put("a", "3"))), DENIED);
    bench.ok(add_role("r"));
    bench.ok(grant("r", ReadWrite, "a", ""));
    assert_eq!(bench.refused(by("u", put("a", "3"))), DENIED, "a new role of the same name is another role");
}

#[test]
fn a_login_is_void_after_a_new_password_a_deletion_or_a_time_without_users() {
    let mut bench = guarded(&[(ReadWrite, "a", "")]);
    let login = revision(&bench);
    let write = |bench: &mut Bench, login| bench.reply(&since("u", login, put("a", "1"))).result;
    assert!(write(&mut bench, login).is_ok());
    bench.ok(add_user("other"));
    assert!(write(&mut bench, login).is_ok(), "what happens to others does not matter");
    bench.ok(change(AuthOperation::UserChangePassword { name: "u".into(), hash: None }));
    assert_eq!(write(&mut bench, login), Err(INVALID));
    let login = revision(&bench);
    assert!(write(&mut bench, login).is_ok());
    bench.ok(change(AuthOperation::Disable));
    bench.ok(change(AuthOperation::Enable));
    assert_eq!(write(&mut bench, login), Err(INVALID));
    let login = revision(&bench);
    bench.ok(change(AuthOperation::UserDelete { name: "u".into() }));
    assert_eq!(write(&mut bench, login), Err(INVALID));
    bench.ok(add_user("u"));
    bench.ok(grant_role("u", "r"));
    assert_eq!(write(&mut bench, login), Err(INVALID), "a new user of the same name is somebody else");
}

#[test]
fn a_user_without_a_password_does_not_get_one_by_changing_it() {
    let mut bench = Bench::new();
    bench.ok(change(AuthOperation::UserAdd { name: "u".into(), hash: None }));
    bench.ok(change(AuthOperation::UserChangePassword { name: "u".into(), hash: Some("hash".into()) }));
    let secret = bench.query(&Query::Auth(AuthQuery::Secret { name: "u".into() })).result.unwrap();
    assert_eq!(secret, Response::Auth(AuthResponse::Secret { enabled: false, hash: None, revision: 3 }));
}

#[test]
fn while_users_count_root_stays_root() {
    let mut bench = guarded(&[]);
    let invalid = KvError::Auth(AuthError::InvalidManagement);
    bench.ok(add_role("root"));
    assert_eq!(bench.refused(change(AuthOperation::UserDelete { name: "root".into() })), invalid);
    assert_eq!(bench.refused(revoke_role("root", "root")), invalid);
    assert_eq!(bench.refused(change(AuthOperation::RoleDelete { name: "root".into() })), invalid);
    bench.ok(change(AuthOperation::Disable));
    bench.ok(revoke_role("root", "root"));
    assert_eq!(bench.refused(change(AuthOperation::Enable)), AuthError::RootRoleMissing.into());
}

#[test]
fn what_is_not_there_or_there_already_is_refused_by_name() {
    let mut bench = guarded(&[(Read, "a", "")]);
    let cases = [
        (add_user("u"), AuthError::UserExists),
        (add_user(""), AuthError::UserEmpty),
        (add_role("r"), AuthError::RoleExists),
        (add_role(""), AuthError::RoleEmpty),
        (grant_role("x", "r"), AuthError::UserNotFound),
        (grant_role("u", "x"), AuthError::RoleNotFound),
        (revoke_role("x", "r"), AuthError::UserNotFound),
        (revoke_role("u", "x"), AuthError::RoleNotGranted),
        (grant("x", Read, "a", ""), AuthError::RoleNotFound),
        (change(AuthOperation::UserDelete { name: "x".into() }), AuthError::UserNotFound),
        (change(AuthOperation::RoleDelete { name: "x".into() }), AuthError::RoleNotFound),
        (change(AuthOperation::UserChangePassword { name: "x".into(), hash: None }), AuthError::UserNotFound),
        (
            change(AuthOperation::RoleRevokePermission { name: "r".into(), key: "a".into(), range_end: "b".into() }),
            AuthError::PermissionNotGranted,
        ),
    ];
    for (operation, error) in cases {
        assert_eq!(bench.refused(operation.clone()), error.into(), "{operation:?}");
    }
    let before = bench.kv.digest();
    bench.ok(grant_role("u", "r"));
    assert_eq!(bench.kv.digest(), before, "what is so already is no change");
}

#[test]
fn names_hashes_users_roles_and_permissions_are_bounded() {
    let mut bench = Bench::new();
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    let too_long = KvError::RequestTooLarge(Limit::Name);
    assert_eq!(bench.refused(add_user(&long)), too_long);
    assert_eq!(bench.refused(by(&long, put("a", "1"))), too_long);
    let hash = Some("h".repeat(PASSWORD_HASH_BYTES_MAX + 1));
    assert_eq!(bench.refused(change(AuthOperation::UserAdd { name: "u".into(), hash })), too_long);
    for number in 0..USERS_MAX.max(ROLES_MAX) {
        bench.ok(add_user(&format!("u{number}")));
        bench.ok(add_role(&format!("r{number}")));
    }
    assert_eq!(bench.refused(add_user("one more")), AuthError::TooManyUsers.into());
    assert_eq!(bench.refused(add_role("one more")), AuthError::TooManyRoles.into());
    for number in 0..ROLES_PER_USER_MAX {
        bench.ok(grant_role("u0", &format!("r{number}")));
    }
    assert_eq!(bench.refused(grant_role("u0", "r99")), AuthError::TooManyRolesOfUser.into());
    for number in 0..PERMISSIONS_PER_ROLE_MAX {
        bench.ok(grant("r0", Read, &format!("k{number}"), ""));
    }
    assert_eq!(bench.refused(grant("r0", Read, "one more", "")), AuthError::TooManyPermissions.into());
    bench.ok(grant("r0", Write, "k0", ""));
}

#[test]
fn a_label_within_a_label_is_no_request_however_deep() {
    let mut bench = Bench::new();
    let label = borsh::to_vec(&by("", put("a", "1"))).unwrap();
    let label = &label[..13]; // tag, empty name, since
    for depth in [2, 3, 100_000] {
        assert_eq!(bench.raw(&label.repeat(depth)).result, Err(KvError::Undecodable));
    }
    let label = borsh::to_vec(&Query::As { who: Who::default(), query: Labelled::new(Query::Status) }).unwrap();
    for depth in [2, 100_000] {
        let mut reply = Vec::new();
        bench.kv.view().query(&label[..13].repeat(depth), &mut reply);
        assert_eq!(Reply::decode(&reply).unwrap().result, Err(KvError::Undecodable));
    }
}

#[test]
fn a_labelled_put_is_quick_as_long_as_nothing_is_to_be_checked() {
    let labelled = borsh::to_vec(&by("u", put("a", "1"))).unwrap();
    let deletion = borsh::to_vec(&by("u", Operation::delete("a"))).unwrap();
    let mut bench = Bench::new();
    assert!(bench.kv.is_quick(&labelled));
    assert!(!bench.kv.is_quick(&deletion));
    for length in 0..14 {
        let _whatever = bench.kv.is_quick(&labelled[..length]);
    }
    bench = guarded(&[(Write, "a", "")]);
    assert!(!bench.kv.is_quick(&labelled));
}

#[test]
fn every_change_of_users_and_roles_changes_the_digest_and_survives_a_snapshot() {
    let mut bench = guarded(&[(ReadWrite, "a", "b"), (Read, "c", ""), (Write, "d", "\0")]);
    let mut digests = vec![bench.kv.digest()];
    for operation in [
        add_user("v"),
        add_user("w"),
        change(AuthOperation::UserChangePassword { name: "v".into(), hash: Some("other".into()) }),
        change(AuthOperation::UserChangePassword { name: "w".into(), hash: None }),
        grant_role("v", "r"),
        add_role("s"),
        grant("s", Read, "x", "y"),
        change(AuthOperation::Disable),
    ] {
        bench.ok(operation);
        assert!(!digests.contains(&bench.kv.digest()));
        digests.push(bench.kv.digest());
        let bytes = stream(&bench.kv);
        let restored = restore(&bytes).unwrap();
        assert_eq!(restored.digest(), bench.kv.digest());
        assert_eq!(stream(&restored), bytes);
    }
    bench.ok(change(AuthOperation::Enable));
    let mut restored = Bench::new();
    restored.kv = restore(&stream(&bench.kv)).unwrap();
    assert_eq!(restored.refused(by("u", put("c", "1"))), DENIED);
    restored.ok(by("u", put("a", "1")));
    assert_eq!(restored.refused(by("v", put("b", "1"))), DENIED);
}

#[test]
fn a_store_whose_users_were_never_touched_is_written_as_before_there_were_any() {
    let mut bench = Bench::new();
    bench.put("a", "1");
    assert_eq!(stream(&bench.kv)[0], 3);
    bench.ok(add_role("r"));
    assert_eq!(stream(&bench.kv)[0], 4);
}

/// Whether a key is within a permission, the slow way.
fn within((key, range_end): &(String, String), wanted: &str) -> bool {
    match range_end.as_str() {
        "" => wanted == key,
        "\0" => wanted >= key.as_str(),
        end => key.as_str() <= wanted && wanted < end,
    }
}

fn short() -> impl Strategy<Value = String> {
    prop::sample::select(vec!["a", "a\0", "a\0\0", "aa", "b", "b\0", "c"]).prop_map(str::to_owned)
}

fn end() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), Just("\0".to_owned()), short()]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Of the keys that can tell, all in the range are permitted exactly when the range is.
    #[test]
    fn a_range_is_permitted_when_each_of_its_keys_is(
        permissions in prop::collection::vec((short(), end()), 0..5),
        range in (short(), end()),
    ) {
        let granted: Vec<_> = permissions.iter().map(|(key, end)| (Read, key.as_str(), end.as_str())).collect();
        let bench = guarded(&granted);
        let keys = ["a", "a\0", "a\0\0", "a\0\0\0", "a\0\0a", "a\0a", "aa", "aa\0", "ab", "b", "b\0", "b\0\0", "b\0a", "ba", "c", "c\0", "d"];
        let expected = keys.iter().filter(|key| within(&range, key) || **key == range.0)
            .all(|key| permissions.iter().any(|permission| within(permission, key)));
        let query = Range { key: range.0.clone().into(), range_end: range.1.clone().into(), ..Range::default() };
        prop_assert_eq!(asked_by(&bench, "u", Query::Range(query)).is_ok(), expected, "{:?} of {:?}", range, permissions);
    }
}
