//! Keys with an order of their own: what the store is under a protocol that orders each key by itself.

use quorate_core::ids::{Position, SessionId};
use quorate_core::machine::{At, Output, Query as _, Sink, Snapshot, Source, StateMachine, View};
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
    At { position: Position::new(position), time: WallTime::default(), session: SessionId::ZERO, entropy: [0; 32] }
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
    assert_eq!(touched(&txn("a", "b")), Objects::All);
    assert_eq!(Kv::objects(b"garbage"), Objects::All);
    assert_eq!(Kv::queried(&Query::Range(get("a")).encode().expect("a good query")), one("a"));
    assert_eq!(Kv::queried(&Query::Status.encode().expect("a good query")), Objects::All);
}
