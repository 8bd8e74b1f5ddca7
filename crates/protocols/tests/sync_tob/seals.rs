//! Signatures that come again (an echo brings its cast's, a block brings both) are checked once; forged ones never count.

use crate::harness::{Cluster, ENVELOPE, replica};
use crate::words::group;
use bytes::Bytes;
use quorate_core::crypto::{Keyring, Secret, Signed};
use quorate_core::fault::Fault;
use quorate_core::ids::{Peer, RecordSeq, ReplicaId};
use quorate_core::node::{Identity, Node, Opener, Payload, Refused};
use quorate_core::protocol::Restore;
use quorate_core::time::WallTime;
use quorate_protocols::sync_tob::{Bundle, Cast, CastId, Config, Echo, Message, SyncTob};
use std::sync::Arc;

fn id(raw: u8) -> ReplicaId {
    ReplicaId::new(raw)
}

/// A replica's keyring with real signatures.
fn ed25519(me: u8) -> Keyring {
    let secret = |id: u8| Secret::from_seed([id + 1; 32]);
    let keys: Vec<_> = (0..4).map(|id| secret(id).public()).collect();
    let keyring = Keyring::ed25519(ENVELOPE.cluster, ENVELOPE.epoch, &keys, &[]).expect("four keys");
    keyring.of_replica(id(me), secret(me)).expect("its own")
}

fn opener() -> Opener<SyncTob> {
    let turn = Cluster::new(4).turn();
    let restore = Restore {
        replica: id(0),
        replicas: 4,
        config: Config::default(),
        records: Vec::new(),
        tail_damaged: false,
        checkpoint: None,
        wake: None,
    };
    let identity = Identity { cluster: ENVELOPE.cluster, epoch: ENVELOPE.epoch, replica: id(0) };
    let node = Node::start_with(identity, Arc::new(ed25519(0)), restore, RecordSeq::ZERO.next(), false, turn);
    node.expect("it starts").0.opener()
}

fn cast(seq: u64) -> Cast {
    let bundle = Bundle::new(vec![group(4, 9, seq, "x")]);
    let id = CastId { sender: id(1), life: 1, seq };
    Cast { id, start: WallTime::from_nanos(7), bundle: bundle.digest(), bytes: bundle.len() as u64 }
}

fn frame(from: usize, head: &Signed<Cast>, echo: &Signed<Echo<Cast>>) -> (Peer, Bytes) {
    let message = Message::Echo { head: head.clone(), echo: echo.clone() };
    (replica(from), ENVELOPE.seal(&Payload::Protocol(message)))
}

#[test]
fn a_forged_signature_among_those_that_come_again_is_found_wherever_it_stands() {
    let (head, other) = (ed25519(1).sign(cast(0)), ed25519(1).sign(cast(1)));
    let echoes: Vec<_> = [2, 3].map(|by| ed25519(by).sign(Echo(cast(0)))).into();
    let stolen = Signed::claimed(id(1), cast(0), *other.signature());
    let stranger = Signed::claimed(id(9), Echo(cast(0)), *echoes[0].signature());
    let good = [frame(2, &head, &echoes[0]), frame(3, &head, &echoes[1]), frame(2, &head, &echoes[0])];
    let bad = [frame(3, &stolen, &echoes[1]), frame(3, &head, &stranger)];
    for first in &bad {
        // In every place of a batch, twice in it, before and after the good ones have become known.
        let opener = opener();
        for place in 0..=good.len() {
            let mut frames = good.to_vec();
            frames.insert(place, first.clone());
            frames.push(first.clone());
            for _ in 0..2 {
                let opened = opener.open_all(&frames);
                let refused = |it: &Result<_, Refused>| matches!(it, Err(Refused::Blamed(from, Fault::BadSignature(_))) if *from == replica(3));
                let found: Vec<bool> = opened.iter().map(refused).collect();
                let expected: Vec<bool> = frames.iter().map(|it| it == first).collect();
                assert_eq!(found, expected, "in place {place}");
            }
        }
    }
}

#[test]
fn what_many_bring_is_checked_once() {
    let keyring = crate::harness::keyring(0, 4);
    let sign = |by: usize, words: Cast| crate::harness::keyring(by, 4).sign(words);
    let echo = |by: usize| crate::harness::keyring(by, 4).sign(Echo(cast(0)));
    let checks = |message: Message| {
        use quorate_core::protocol::Protocol as _;
        use quorate_core::wire::Wire;
        let before = keyring.work().checked;
        let mut message = Message::decode(&message.encode()).expect("its own encoding");
        assert_eq!(SyncTob::prove(&mut message, &keyring), Ok(()));
        keyring.work().checked - before
    };
    let head = sign(1, cast(0));
    let brought = [2, 3, 2].map(|by| checks(Message::Echo { head: head.clone(), echo: echo(by) }));
    assert_eq!(brought, [2, 1, 0]);
    let entry = crate::words::echoed(quorate_protocols::sync_tob::Chain::new(head), &[2, 3], 4);
    let block = crate::words::block(quorate_protocols::sync_tob::EpochNumber::new(5), vec![entry]);
    let chain = crate::words::proposal(1, 4, &block);
    assert_eq!(checks(Message::Propose { chain: chain.clone(), block: block.clone() }), 1, "its leader's");
    let passed_on = crate::words::echoed(chain, &[2], 4);
    assert_eq!(checks(Message::Propose { chain: passed_on, block }), 1, "of who passes it on");
}
