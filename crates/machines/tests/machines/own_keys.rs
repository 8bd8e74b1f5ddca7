//! Keys with an order of their own: what the store is under a protocol that orders each key by itself.

use quorate_core::ids::{Position, SessionId};
use quorate_core::machine::{At, Entropy, Output, Query as _, Sink, Snapshot, Source, StateMachine, View};
use quorate_core::objects::Objects;
use quorate_core::time::WallTime;
use quorate_machines::Kv;
use quorate_machines::kv::{
    Compare, DeleteRange, Operand, Operation, Operator, Put, Query, Range, Reply, Response, Txn, TxnOp,
};

fn put(key: &str, value: &str) -> Operation {
    Operation::Put(Put { key: key.to_owned().into(), value: value.to_owned().into(), ..Put::default() })
}

fn at(position: u64) -> At {
    At {
        position: Position::new(position),
        time: WallTime::default(),
        session: SessionId::ZERO,
        entropy: Entropy::Bytes([0; 32]),
    }
}

fn apply(kv: &mut Kv, key: &str, count: u64, operation: &Operation) -> Reply {
    let mut out = Output::default();
    kv.apply_to(key.as_bytes(), &at(count), &operation.encode().expect("a good operation"), &mut out);
    let (reply, events) = out.take();
    assert!(events.is_empty(), "nothing is published: it may be taken back");
    borsh::from_slice(&reply).expect("a reply")
}

fn read(kv: &Kv, range: Range) -> Reply {
    let mut reply = Vec::new();
    kv.view().query(&Query::Range(range).encode().expect("a good query"), &mut reply);
    borsh::from_slice(&reply).expect("a reply")
}

fn get(key: &str) -> Range {
    Range { key: key.to_owned().into(), ..Range::default() }
}

#[test]
fn a_keys_revision_counts_its_own_changes() {
    let mut kv = Kv::new();
    apply(&mut kv, "a", 1, &put("a", "1"));
    apply(&mut kv, "b", 1, &put("b", "1"));
    assert_eq!(apply(&mut kv, "a", 2, &put("a", "2")).revision, 3);
    let Ok(Response::Range(found)) = read(&kv, get("a")).result else { panic!("a range") };
    let it = &found.kvs[0];
    assert_eq!((it.create_revision, it.mod_revision, it.version, it.value.as_ref()), (2, 3, 2, b"2".as_ref()));
}

#[test]
fn the_order_in_which_different_keys_change_leaves_no_trace() {
    let (mut one, mut other) = (Kv::new(), Kv::new());
    for key in ["a", "b", "c"] {
        apply(&mut one, key, 1, &put(key, "x"));
    }
    for key in ["c", "a", "b"] {
        apply(&mut other, key, 1, &put(key, "x"));
    }
    assert_eq!(one.digest(), other.digest());
    apply(&mut other, "a", 2, &put("a", "y"));
    assert_ne!(one.digest(), other.digest());
}

#[test]
fn an_image_takes_one_write_back() {
    let mut kv = Kv::new();
    apply(&mut kv, "a", 1, &put("a", "1"));
    let (digest, image) = (kv.digest(), kv.image(b"a"));
    apply(&mut kv, "a", 2, &Operation::Delete(DeleteRange { key: "a".into(), ..DeleteRange::default() }));
    assert_ne!(kv.digest(), digest);
    kv.put_image(b"a", image.as_deref()).expect("its own image");
    assert_eq!(kv.digest(), digest);
    kv.put_image(b"a", None).expect("nothing");
    assert_eq!(kv.digest(), Kv::new().digest());
    assert!(kv.put_image(b"a", Some(b"garbage")).is_err());
}

#[test]
fn a_snapshot_has_them() {
    let mut kv = Kv::new();
    for index in 0..100 {
        let key = format!("k{index}");
        apply(&mut kv, &key, 1, &put(&key, "value"));
    }
    let (mut source, mut sink, mut bytes) = (kv.snapshot(), Kv::rebuild(), Vec::new());
    while source.next(777, &mut bytes) {
        sink.push(&bytes).expect("its own bytes");
        bytes.clear();
    }
    assert_eq!(sink.finish().expect("a whole stream").digest(), kv.digest());
}

#[test]
fn a_range_shows_every_key_as_it_is() {
    let mut kv = Kv::new();
    for key in ["b", "a", "c"] {
        apply(&mut kv, key, 1, &put(key, key));
    }
    apply(&mut kv, "c", 2, &Operation::Delete(DeleteRange { key: "c".into(), ..DeleteRange::default() }));
    let all = Range { key: "a".into(), range_end: "z".into(), ..Range::default() };
    let Ok(Response::Range(found)) = read(&kv, all).result else { panic!("a range") };
    let keys: Vec<&[u8]> = found.kvs.iter().map(|kv| kv.key.as_ref()).collect();
    assert_eq!(keys, [b"a", b"b"]);
    assert!(read(&kv, Range { revision: 1, ..get("a") }).result.is_err(), "its history is not kept");
}

#[test]
fn what_touches_one_key_is_known_from_its_bytes() {
    let touched = |operation: &Operation| Kv::objects(&operation.encode().expect("a good operation"));
    let one = |key: &str| Objects::One(key.to_owned().into());
    assert_eq!(touched(&put("a", "1")), one("a"));
    assert_eq!(touched(&Operation::Put(Put { key: "a".into(), lease: 7, ..Put::default() })), Objects::All);
    assert_eq!(touched(&Operation::Compact { revision: 1 }), Objects::All);
    let compare = |key: &str| Compare {
        key: key.to_owned().into(),
        range_end: Default::default(),
        operator: Operator::Equal,
        operand: Operand::Version(0),
    };
    let txn = |compared: &str, written: &str| {
        let Operation::Put(put) = put(written, "x") else { unreachable!("it is one") };
        Operation::Txn(Txn { compare: vec![compare(compared)], success: vec![TxnOp::Put(put)], failure: Vec::new() })
    };
    assert_eq!(touched(&txn("a", "a")), one("a"));
    assert_eq!(touched(&txn("b", "a")), Objects::Many(vec!["a".into(), "b".into()]));
    let Operation::Txn(inner) = txn("c", "a") else { unreachable!("it is one") };
    let Operation::Txn(outer) = txn("a", "b") else { unreachable!("it is one") };
    let nested = Operation::Txn(Txn { failure: vec![TxnOp::Txn(inner)], ..outer });
    assert_eq!(touched(&nested), Objects::Many(vec!["a".into(), "b".into(), "c".into()]));
    let all = DeleteRange { key: "a".into(), range_end: "z".into(), ..DeleteRange::default() };
    let delete = Txn { compare: Vec::new(), success: vec![TxnOp::Delete(all)], failure: Vec::new() };
    assert_eq!(touched(&Operation::Txn(delete)), Objects::All);
    assert_eq!(Kv::objects(b"garbage"), Objects::All);
    assert_eq!(Kv::queried(&Query::Range(get("a")).encode().expect("a good query")), one("a"));
    assert_eq!(Kv::queried(&Query::Status.encode().expect("a good query")), Objects::All);
}

fn across(kv: &mut Kv, keys: &[&str], txn: Txn) -> Reply {
    let mut out = Output::default();
    let keys: Vec<_> = keys.iter().map(|key| bytes::Bytes::from((*key).to_owned())).collect();
    let operation = Operation::Txn(txn).encode().expect("a good operation");
    assert_eq!(Kv::objects(&operation), Objects::Many(keys.clone()));
    kv.apply_across(&keys, &at(1), &operation, &mut out);
    borsh::from_slice(&out.take().0).expect("a reply")
}

fn txn_put(key: &str, value: &str) -> TxnOp {
    TxnOp::Put(Put { key: key.to_owned().into(), value: value.to_owned().into(), ..Put::default() })
}

#[test]
fn a_transaction_over_several_keys_finds_them_as_they_are_and_changes_them_together() {
    let mut kv = Kv::new();
    for count in 1..=3 {
        apply(&mut kv, "a", count, &put("a", "old"));
    }
    apply(&mut kv, "b", 1, &put("b", "old"));
    let equal = |key: &str, revision| Compare {
        key: key.to_owned().into(),
        range_end: Default::default(),
        operator: Operator::Equal,
        operand: Operand::Mod(revision),
    };
    let compare = vec![equal("a", 4), equal("b", 2), equal("c", 0)];
    let success = vec![txn_put("b", "new"), txn_put("c", "new")];
    let failure = vec![txn_put("a", "wrong")];
    let reply = across(&mut kv, &["a", "b", "c"], Txn { compare, success, failure });
    let Ok(Response::Txn(it)) = reply.result else { panic!("a transaction") };
    assert!(it.succeeded);
    assert_eq!(reply.revision, 5, "after the latest of all three");
    let found = |kv: &Kv, key: &str| match read(kv, get(key)).result {
        Ok(Response::Range(found)) => {
            found.kvs.first().map(|kv| (kv.create_revision, kv.mod_revision, kv.version, kv.value.clone()))
        }
        _ => panic!("a range"),
    };
    assert_eq!(found(&kv, "a"), Some((2, 4, 3, "old".into())), "it was looked at, not changed");
    assert_eq!(found(&kv, "b"), Some((2, 5, 2, "new".into())));
    assert_eq!(found(&kv, "c"), Some((5, 5, 1, "new".into())));
    assert_eq!(apply(&mut kv, "b", 3, &put("b", "later")).revision, 6, "and goes on from there");
}

#[test]
fn a_transaction_over_several_keys_changes_all_or_none() {
    let mut kv = Kv::new();
    apply(&mut kv, "a", 1, &put("a", "old"));
    let digest = kv.digest();
    let kept = Put { key: "b".into(), ignore_value: true, ..Put::default() };
    let refused = Txn { compare: Vec::new(), success: vec![txn_put("a", "1"), TxnOp::Put(kept)], failure: Vec::new() };
    assert!(across(&mut kv, &["a", "b"], refused).result.is_err(), "there is no value to keep");
    assert_eq!(kv.digest(), digest);
    let delete = |key: &str| TxnOp::Delete(DeleteRange { key: key.to_owned().into(), ..DeleteRange::default() });
    let gone = Txn { compare: Vec::new(), success: vec![delete("a"), delete("b")], failure: Vec::new() };
    assert_eq!(across(&mut kv, &["a", "b"], gone).revision, 3);
    assert_eq!(apply(&mut kv, "a", 3, &put("a", "again")).revision, 4, "the revision of a key never goes back");
    assert!(kv.image(b"b").is_none(), "nothing was ever there");
}
