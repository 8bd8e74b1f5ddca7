//! Snapshots: one stream for one state, and no bytes that a sink would believe or choke on.

use crate::common::random;
use crate::common::*;
use proptest::collection::vec;
use proptest::prelude::*;
use quorate_core::crypto::Digest;
use quorate_core::machine::{Corrupt, Sink, Snapshot, Source, StateMachine};
use quorate_machines::Kv;
use quorate_machines::kv::*;

/// Puts, a transaction, a tombstone, leases and a compaction: every kind of frame.
fn lively() -> Bench {
    let mut bench = Bench::new();
    bench.grant(1, 60);
    bench.grant(-2, 60);
    bench.put("a", "1");
    bench.put_with_lease("b", 1);
    bench.txn(Txn { success: vec![put_op("a", "2"), delete_op("b", ""), put_op("c", "3")], ..Txn::default() });
    bench.compact(3);
    bench.put_with_lease("b", -2);
    bench.ok(Operation::delete("c"));
    bench
}

/// The stream with its last hash made to fit again: what an insider could send.
fn rehashed(stream: &[u8]) -> Vec<u8> {
    let body = &stream[..stream.len() - 32];
    [body, Digest::of(body).as_bytes()].concat()
}

#[test]
fn every_flipped_bit_and_every_cut_is_corrupt() {
    let stream = stream(&lively().kv);
    assert!(restore(&stream).is_ok());
    for index in 0..stream.len() {
        for bit in 0..8 {
            let mut flipped = stream.clone();
            flipped[index] ^= 1 << bit;
            assert!(restore(&flipped).is_err(), "byte {index}, bit {bit}");
        }
        assert!(restore(&stream[..index]).is_err(), "cut at {index}");
    }
    assert!(restore(&[stream, vec![0]].concat()).is_err(), "a byte after the end");
}

#[test]
fn a_forged_stream_with_a_fitting_hash_is_corrupt_or_another_state_but_never_a_panic() {
    let bench = lively();
    let original = stream(&bench.kv);
    let mut accepted = 0;
    for index in 0..original.len() - 32 {
        for bit in 0..8 {
            let mut forged = original.clone();
            forged[index] ^= 1 << bit;
            let forged = rehashed(&forged);
            if let Ok(kv) = restore(&forged) {
                accepted += 1;
                assert_eq!(stream(&kv), forged, "what was accepted is exactly what it says");
            }
        }
    }
    assert!(accepted > 0, "values and times can be anything, which only the hash protects");
}

#[test]
fn a_state_restored_goes_on_as_if_nothing_had_happened() {
    let mut bench = lively();
    let mut other = lively();
    other.kv = restore(&stream(&bench.kv)).unwrap();
    for bench in [&mut bench, &mut other] {
        bench.put("a", "3");
        bench.ok(Operation::delete("a"));
        bench.compact(7);
        bench.pass(60);
    }
    assert_eq!((bench.status(), stream(&bench.kv)), (other.status(), stream(&other.kv)));
    assert_eq!(bench.batches, other.batches);
}

#[test]
fn a_stream_is_pulled_in_pieces_while_the_store_goes_on() {
    let mut bench = Bench::new();
    for index in 0..1_000 {
        bench.put(&format!("key {index}"), &"v".repeat(100));
    }
    let whole = stream(&bench.kv);
    let (mut source, mut pieces, mut largest) = (bench.kv.snapshot(), Vec::new(), 0);
    loop {
        let before = pieces.len();
        if !source.next(500, &mut pieces) {
            break;
        }
        largest = largest.max(pieces.len() - before);
        bench.put("meanwhile", "not in the snapshot");
    }
    assert!(pieces == whole && largest < 9_000, "a link of the digest's chain is one piece");
}

#[test]
fn the_digest_is_the_same_wherever_a_snapshot_cut_its_chain() {
    let mut bench = Bench::new();
    let mut digests = std::collections::BTreeSet::new();
    for index in 0..100 {
        let value = "v".repeat(index * 37 % 700 + usize::from(index == 50) * 20_000); // around the ends of links, and a huge one
        let mut other = Bench::new();
        other.kv = restore(&stream(&bench.kv)).unwrap();
        for bench in [&mut bench, &mut other] {
            bench.put("key", &value);
        }
        assert_eq!(bench.kv.digest(), other.kv.digest(), "change {index}");
        assert!(digests.insert(bench.kv.digest()), "each change changes it");
    }
}

#[test]
fn two_ways_to_one_state_of_keys_have_different_digests_because_their_histories_differ() {
    let (mut one, mut other) = (Bench::new(), Bench::new());
    one.put("a", "1");
    one.put("b", "2");
    other.put("b", "2");
    other.put("a", "1");
    assert_ne!(one.kv.digest(), other.kv.digest());
    let (mut compacted, mut kept) = (Bench::new(), Bench::new());
    compacted.put("a", "1");
    kept.put("a", "1");
    compacted.compact(2);
    assert_ne!(compacted.kv.digest(), kept.kv.digest());
}

/// A stream by hand: header, leases, changes.
fn forge(
    revision: i64,
    compacted: i64,
    leases: &[(i64, i64, u64)],
    changes: &[(u64, KeyValue)],
) -> Result<Kv, Corrupt> {
    let mut bytes = vec![3];
    let mut frame = |body: Vec<u8>| {
        bytes.extend(u32::try_from(body.len()).unwrap().to_le_bytes());
        bytes.extend(body);
    };
    let link = Digest::ZERO.as_bytes().to_vec();
    frame(borsh::to_vec(&(revision, compacted, link, leases.len() as u64, changes.len() as u64)).unwrap());
    leases.iter().for_each(|lease| frame(borsh::to_vec(lease).unwrap()));
    changes.iter().for_each(|change| frame(borsh::to_vec(change).unwrap()));
    let hash = Digest::of(&bytes);
    bytes.extend(hash.as_bytes());
    restore(&bytes)
}

fn kv(key: &'static str, create_revision: i64, mod_revision: i64, version: i64) -> KeyValue {
    KeyValue { key: key.into(), create_revision, mod_revision, version, ..KeyValue::default() }
}

#[test]
fn states_that_no_history_leads_to_are_corrupt() {
    let tombstone = |mod_revision| kv("a", 0, mod_revision, 0);
    assert!(forge(1, -1, &[], &[]).is_ok());
    assert!(forge(3, -1, &[(5, 60, 1)], &[(0, kv("a", 2, 2, 1)), (0, tombstone(3))]).is_ok());
    let leased = KeyValue { lease: 5, ..kv("a", 2, 2, 1) };
    assert!(forge(2, -1, &[(5, 60, 1)], &[(0, leased.clone())]).is_ok());
    assert!(forge(9, 9, &[], &[(0, kv("a", 2, 7, 3)), (4, tombstone(9))]).is_err(), "one change of a key up to 9");
    assert!(forge(9, 9, &[], &[(0, kv("b", 2, 7, 3)), (4, tombstone(9))]).is_ok());
    let cases: &[(&str, Result<Kv, Corrupt>)] = &[
        ("revision 0", forge(0, -1, &[], &[])),
        ("revision out of reach", forge(i64::MAX, i64::MAX, &[], &[])),
        ("compacted beyond the revision", forge(1, 2, &[], &[])),
        ("a revision without changes", forge(2, -1, &[], &[])),
        ("a change beyond the revision", forge(1, -1, &[], &[(0, kv("a", 2, 2, 1))])),
        ("a change at revision 1", forge(1, 1, &[], &[(0, kv("a", 1, 1, 1))])),
        ("a gap between revisions", forge(4, -1, &[], &[(0, kv("a", 2, 2, 1)), (0, kv("b", 4, 4, 1))])),
        ("a revision that begins with its second change", forge(2, -1, &[], &[(1, kv("a", 2, 2, 1))])),
        ("a gap between changes", forge(2, -1, &[], &[(0, kv("a", 2, 2, 1)), (2, kv("b", 2, 2, 1))])),
        ("changes out of order", forge(4, 4, &[], &[(0, kv("a", 4, 4, 1)), (0, kv("b", 3, 3, 1))])),
        ("a change twice", forge(2, -1, &[], &[(0, kv("a", 2, 2, 1)), (0, kv("b", 2, 2, 1))])),
        ("an empty key", forge(2, -1, &[], &[(0, kv("", 2, 2, 1))])),
        ("a first version of 2", forge(2, -1, &[], &[(0, kv("a", 2, 2, 2))])),
        ("created in the future", forge(2, -1, &[], &[(0, kv("a", 3, 2, 1))])),
        ("created in the future, compacted", forge(5, 5, &[], &[(0, kv("a", 6, 5, 3))])),
        ("created at its second version", forge(5, 5, &[], &[(0, kv("a", 5, 5, 2))])),
        ("a negative version", forge(5, 5, &[], &[(0, kv("a", 2, 5, -1))])),
        ("a version left out", forge(3, -1, &[], &[(0, kv("a", 2, 2, 1)), (0, kv("a", 2, 3, 3))])),
        ("created again while it lives", forge(3, -1, &[], &[(0, kv("a", 2, 2, 1)), (0, kv("a", 3, 3, 1))])),
        (
            "lives on after its deletion",
            forge(4, 2, &[], &[(0, kv("a", 2, 2, 1)), (0, tombstone(3)), (0, kv("a", 2, 4, 2))]),
        ),
        ("deleted without being there", forge(2, -1, &[], &[(0, tombstone(2))])),
        ("an old tombstone", forge(5, 5, &[], &[(0, tombstone(4)), (0, kv("b", 5, 5, 1))])),
        ("a tombstone with a value", forge(2, 2, &[], &[(0, KeyValue { value: "v".into(), ..tombstone(2) })])),
        ("a lease that does not exist", forge(2, -1, &[], &[(0, leased)])),
        ("lease 0", forge(1, -1, &[(0, 60, 1)], &[])),
        ("leases out of order", forge(1, -1, &[(2, 60, 1), (1, 60, 1)], &[])),
        ("a lease twice", forge(1, -1, &[(2, 60, 1), (2, 60, 1)], &[])),
        ("a lease that is too short", forge(1, -1, &[(2, 1, 1)], &[])),
        ("a lease that is too long", forge(1, -1, &[(2, 9_000_000_001, 1)], &[])),
    ];
    for (what, result) in cases {
        assert!(result.is_err(), "{what}");
    }
}

#[test]
fn a_frame_beyond_its_limit_is_refused_before_it_is_waited_for() {
    let mut sink = Kv::rebuild();
    sink.push(&[3]).unwrap();
    assert!(sink.push(&u32::MAX.to_le_bytes()).is_err());
    assert!(Kv::rebuild().push(&[2]).unwrap_err().0.contains("version 2"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn noise_is_never_a_state_and_never_a_panic(noise in vec(any::<u8>(), 0..300), cut in 0..300_usize) {
        let mut sink = Kv::rebuild();
        let cut = cut.min(noise.len());
        let version = if cut % 2 == 0 { 3 } else { 4 };
        let pushed = sink.push(&[version]).and_then(|()| sink.push(&noise[..cut])).and_then(|()| sink.push(&noise[cut..]));
        prop_assert!(pushed.and_then(|()| sink.finish()).is_err());
    }

    #[test]
    fn any_reachable_state_survives_its_snapshot(operations in vec(random::operation(), 0..60)) {
        let mut bench = Bench::new();
        for operation in &operations {
            bench.reply(operation);
            bench.pass(1);
        }
        let bytes = stream(&bench.kv);
        let restored = restore(&bytes);
        prop_assert!(restored.is_ok(), "{:?}", restored);
        let before = bench.status();
        bench.kv = restored.unwrap();
        prop_assert_eq!(bench.status(), before);
        prop_assert!(stream(&bench.kv) == bytes);
    }
}
