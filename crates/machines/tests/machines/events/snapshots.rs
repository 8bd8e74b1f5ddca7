//! Snapshots, digests and formats.

use super::bench::*;
use quorate_core::crypto::Digest;
use quorate_core::machine::StateMachine;
use quorate_machines::Events;
use quorate_machines::events::*;
use std::collections::BTreeSet;

/// A store with something of everything.
fn full() -> Bench {
    let mut bench = Bench::new();
    for number in 1..=5 {
        bench.append("a-1", Expected::Any, vec![event(number, "x")]);
        bench.append("b-1", Expected::Any, vec![event(number, "y"), event(number + 100, "z")]);
    }
    bench.append("c", Expected::Any, vec![event(1, "w")]);
    let group = |name: &str, source| NewGroup {
        group: name.into(),
        source,
        filter: Filter { kinds: vec!["happened".into()], correlation: Some(id(1)) },
        from: 2,
        settings: Settings { attempts_max: 1, ..Settings::default() },
    };
    bench.ok(Operation::CreateGroup(NewGroup { filter: Filter::default(), ..group("g1", Source::All) }));
    bench.ok(Operation::CreateGroup(group("g2", of_stream("a-1"))));
    bench.ok(Operation::Take { group: "g1".into(), consumer: "ann".into(), limit: 3 });
    bench.seconds += 60;
    bench.ok(Operation::Take { group: "g1".into(), consumer: "bob".into(), limit: 2 });
    bench.ok(Operation::Truncate { stream: "a-1".into(), before: 4 });
    bench.ok(Operation::Delete { stream: "b-1".into(), expected: Expected::Any, forever: false });
    bench.ok(Operation::Delete { stream: "c".into(), expected: Expected::Any, forever: true });
    bench.ok(Operation::Scavenge { limit: 5 });
    bench
}

#[test]
fn a_restored_store_goes_on_like_the_one_that_was_saved() {
    let mut bench = full();
    let saved = stream(&bench.events);
    let mut copy = full();
    copy.events = restored(&saved).unwrap();
    assert_eq!(copy.events.digest(), bench.events.digest());
    let operations = [
        append("a-1", Expected::NoStream, vec![event(1, "x")]),
        append("a-1", Expected::Exact(5), vec![event(8, "new")]),
        append("b-1", Expected::NoStream, vec![event(8, "new")]),
        append("c", Expected::Any, vec![event(8, "new")]),
        append("d", Expected::Any, vec![event(8, "new")]),
        Operation::Unpark { group: "g1".into(), replay: true },
        Operation::Take { group: "g1".into(), consumer: "ann".into(), limit: 0 },
        Operation::Take { group: "g2".into(), consumer: "ann".into(), limit: 0 },
        Operation::Scavenge { limit: 0 },
    ];
    for operation in &operations {
        assert_eq!(copy.reply(operation), bench.reply(operation), "{operation:?}");
    }
    assert_eq!(copy.status(), bench.status());
    assert!(stream(&copy.events) == stream(&bench.events));
}

#[test]
fn any_flipped_byte_of_a_snapshot_is_found() {
    let saved = stream(&full().events);
    for index in 0..saved.len() {
        let mut bent = saved.clone();
        bent[index] ^= 1;
        assert!(restored(&bent).is_err(), "byte {index} of {}", saved.len());
    }
    assert!(restored(&saved[..saved.len() - 1]).is_err());
    assert!(restored(&[&saved[..], &[0]].concat()).is_err());
}

/// Appends the right hash to a snapshot whose contents were changed: what a careful liar would send.
fn resealed(mut body: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    body.truncate(body.len() - 32);
    change(&mut body);
    let hash = Digest::of(&body);
    [body, hash.as_bytes().to_vec()].concat()
}

#[test]
fn a_snapshot_with_the_right_hash_and_impossible_contents_is_refused() {
    let mut bench = Bench::new();
    bench.append("s", Expected::Any, vec![event(1, "x"), event(2, "y")]);
    let saved = stream(&bench.events);
    // version 1 | length 4 | position 8 | digest 32 | streams 8 | freed 8 | events 8 | groups 8 | length 4 | "s" 5 | version 8 …
    assert!(restored(&resealed(saved.clone(), |_| ())).is_ok());
    for (name, at) in [("position", 5), ("streams", 45), ("freed", 53), ("events", 61), ("version", 86), ("first", 94)]
    {
        assert!(restored(&resealed(saved.clone(), |body| body[at] ^= 4)).is_err(), "{name}");
    }
}

#[test]
fn histories_that_differ_in_anything_have_different_digests() {
    let named = |change: fn(&mut NewEvent)| {
        let mut new = event(1, "x");
        change(&mut new);
        vec![append("a", Expected::Any, vec![new])]
    };
    let histories = [
        vec![],
        named(|_| ()),
        named(|it| it.id = id(2)),
        named(|it| it.kind = "other".into()),
        named(|it| it.data = "y".into()),
        named(|it| it.metadata = "m".into()),
        named(|it| it.correlation = Some(id(1))),
        named(|it| it.causation = Some(id(1))),
        named(|it| (it.kind, it.data) = ("happenedx".into(), "".into())),
        vec![append("b", Expected::Any, vec![event(1, "x")])],
        vec![append("a", Expected::Any, vec![event(1, "x"), event(2, "y")])],
        vec![append("a", Expected::Any, vec![event(2, "y"), event(1, "x")])],
        [named(|_| ()), vec![Operation::Truncate { stream: "a".into(), before: 2 }]].concat(),
        [named(|_| ()), vec![Operation::Delete { stream: "a".into(), expected: Expected::Any, forever: false }]]
            .concat(),
        [named(|_| ()), vec![Operation::Delete { stream: "a".into(), expected: Expected::Any, forever: true }]]
            .concat(),
    ];
    let digest = |history: &[Operation]| {
        let mut bench = Bench::new();
        history.iter().for_each(|it| drop(bench.ok(it.clone())));
        bench.status().digest
    };
    let digests: BTreeSet<_> = histories.iter().map(|it| digest(it)).collect();
    assert_eq!(digests.len(), histories.len());
}

#[test]
fn the_bytes_of_format_version_1_do_not_change() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let bytes = append("s", Expected::Exact(3), vec![event(1, "x")]).encode().unwrap();
    let expected = concat!(
        "00",
        "01000000",
        "01000000",
        "73",
        "02",
        "0300000000000000",
        "01000000", // one write: "s", exact 3, one event
        "00000000000000000000000000000001",
        "08000000",
        "68617070656e6564",
        "01000000",
        "78",
        "00000000",
        "0000"
    );
    assert_eq!(hex(&bytes), expected);
    let bench = full();
    assert_eq!(bench.status().digest.to_string(), "ff826a2e38fcc65de3d49026bb1a2c0dc764b8687ea48b44f158cd690cbbdd55");
    assert_eq!(
        Digest::of(&stream(&bench.events)).to_string(),
        "05a7241b593474b8ae88995b8ff50bbb44a22b2a80330fda83b923277959c1b4"
    );
}

#[test]
fn only_a_short_append_is_applied_by_the_thread_that_votes() {
    let is_quick = |operation: Operation| Events::new().is_quick(&operation.encode().unwrap());
    assert!(is_quick(append("a", Expected::Any, vec![event(1, "x")])));
    assert!(!is_quick(append("a", Expected::Any, vec![event(1, &"x".repeat(5000))])));
    assert!(!is_quick(Operation::Scavenge { limit: 0 }));
    assert!(!is_quick(Operation::Take { group: "g".into(), consumer: "c".into(), limit: 0 }));
}
