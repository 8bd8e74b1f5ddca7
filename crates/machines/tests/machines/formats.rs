//! The digest tells all differences apart, and the bytes of today are the bytes of tomorrow.

use crate::common::*;
use quorate_core::crypto::Digest;
use quorate_machines::kv::*;

fn digest_after(operations: &[Operation]) -> Digest {
    let mut bench = Bench::new();
    for id in 1..4 {
        bench.grant(id, 60);
    }
    bench.put("old", "1");
    bench.put("old", "2");
    for operation in operations {
        bench.ok(operation.clone());
    }
    bench.status().digest
}

#[test]
fn histories_that_differ_in_anything_have_different_digests() {
    let leased = |lease| Operation::Put(Put { lease, ..Put::new("a", "1") });
    let txn = |success| Operation::Txn(Txn { success, ..Txn::default() });
    let histories = [
        vec![],
        vec![put("a", "1")],
        vec![put("a", "2")],
        vec![put("b", "1")],
        vec![put("a1", "")],
        vec![put("a", "1"), put("a", "1")],
        vec![leased(1)],
        vec![leased(2)],
        vec![put("old", "")],
        vec![Operation::delete("old")],
        vec![put("a", "1"), put("b", "1")],
        vec![txn(vec![put_op("a", "1"), put_op("b", "1")])],
        vec![txn(vec![put_op("b", "1"), put_op("a", "1")])],
        vec![Operation::Compact { revision: 1 }],
        vec![Operation::Compact { revision: 2 }],
        vec![Operation::Compact { revision: 1 }, Operation::Compact { revision: 2 }],
        vec![Operation::LeaseRevoke { id: 1 }],
        vec![Operation::LeaseRevoke { id: 2 }],
        vec![Operation::LeaseGrant { id: 9, ttl: 60 }],
        vec![Operation::LeaseGrant { id: 9, ttl: 61 }],
        vec![Operation::LeaseGrant { id: 8, ttl: 60 }],
    ];
    let digests: std::collections::BTreeSet<_> = histories.iter().map(|history| digest_after(history)).collect();
    assert_eq!(digests.len(), histories.len());
}

#[test]
fn leases_that_end_at_different_times_have_different_digests() {
    let granted_at = |seconds| {
        let mut bench = Bench::new();
        bench.seconds = seconds;
        bench.grant(1, 60);
        bench.status().digest
    };
    assert_ne!(granted_at(1), granted_at(2));
}

#[test]
fn the_bytes_of_format_version_3_do_not_change() {
    let mut bench = Bench::new();
    bench.grant(7, 60);
    bench.put("a", "1");
    bench.put_with_lease("b", 7);
    bench.ok(Operation::delete("a"));
    bench.compact(3);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(&put("k", "v").encode().unwrap()),
        concat!("00", "01000000", "6b", "01000000", "76", "0000000000000000", "000000")
    );
    assert_eq!(hex(&Query::Status.encode().unwrap()), "04");
    assert_eq!(bench.status().digest.to_string(), "e1756f374ab1789d0ca93be802dce9f15e4581976e51aa17ab2bda33e1ba140e");
    assert_eq!(
        Digest::of(&stream(&bench.kv)).to_string(),
        "08122c320407bb20e9eb51cc42a1a8b4ae2fd98b7581f9836423e915756dda99"
    );
}

#[test]
fn the_bytes_of_format_version_4_do_not_change() {
    let mut bench = Bench::new();
    let permission = Permission { kind: PermissionKind::Write, key: "a".into(), range_end: "b".into() };
    for operation in [
        AuthOperation::UserAdd { name: "root".into(), hash: Some("hash".into()) },
        AuthOperation::UserAdd { name: "ann".into(), hash: None },
        AuthOperation::RoleAdd { name: "r".into() },
        AuthOperation::RoleGrantPermission { name: "r".into(), permission },
        AuthOperation::UserGrantRole { name: "ann".into(), role: "r".into() },
        AuthOperation::UserGrantRole { name: "root".into(), role: "root".into() },
        AuthOperation::Enable,
    ] {
        bench.ok(Operation::Auth(operation));
    }
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let by_ann =
        Operation::As { who: Who { user: "ann".into(), since: 7 }, operation: Labelled::new(Operation::delete("a")) };
    assert_eq!(
        hex(&by_ann.encode().unwrap()),
        concat!("08", "03000000", "616e6e", "0700000000000000", "01", "01000000", "61", "00000000", "00")
    );
    assert_eq!(bench.status().digest.to_string(), "dcbcf5942ccaa1a6c973d965b677efd66524510616c7754ca924ed46a4ba90a2");
    let stream = stream(&bench.kv);
    let length = usize::try_from(u32::from_le_bytes(*stream[1..].first_chunk().unwrap())).unwrap();
    let after_header = 1 + 4 + length;
    assert_eq!(
        hex(&stream[after_header..stream.len() - 32]),
        concat!(
            "21000000",
            "01",
            "0800000000000000",
            "0800000000000000",
            "0200000000000000",
            "0100000000000000",
            "19000000",
            "03000000",
            "616e6e",
            "00",
            "0300000000000000",
            "01000000",
            "01000000",
            "72",
            "25000000",
            "04000000",
            "726f6f74",
            "01",
            "04000000",
            "68617368",
            "0200000000000000",
            "01000000",
            "04000000",
            "726f6f74",
            "14000000",
            "01000000",
            "72",
            "01000000",
            "01",
            "01000000",
            "61",
            "01000000",
            "62",
        )
    );
}

#[test]
fn only_a_put_is_applied_by_the_thread_that_votes() {
    use quorate_core::machine::StateMachine;
    let is_quick = |operation: Operation| Kv::new().is_quick(&operation.encode().unwrap());
    assert!(is_quick(put("a", "1")));
    assert!(!is_quick(Operation::delete("a")), "one that deletes a range takes as long as the range");
    assert!(!is_quick(Operation::Compact { revision: 1 }));
    assert!(!is_quick(Operation::Txn(Txn { success: vec![put_op("a", "1")], ..Txn::default() })));
    assert!(!is_quick(Operation::LeaseRevoke { id: 1 }));
}
