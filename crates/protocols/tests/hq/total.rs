//! Total order (ADR 029): the module alone, asked by clients themselves. That it keeps its promises with liars, crashes and bad
//! disks is the simulator's business (`quorate-sim`, `hq::in_total_order_…`), and what etcd's clients see the server's.

use crate::harness::{ENVELOPE, keyring};
use crate::words::{N, write};
use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{ClientId, OpNumber, Peer, RecordSeq, ReplicaId, RequestNumber, SessionId};
use quorate_core::outbox::{Effect, Outbox, To, Turn};
use quorate_core::protocol::{Protocol, Replica, Restore, RestoreError, Restored};
use quorate_core::sessions::Body;
use quorate_core::time::{Instant, WallTime};
use quorate_protocols::hq::total::{TotalReplica, rejoin};
use quorate_protocols::hq::{Message, Record, Total};
use quorate_protocols::pbft;
use std::sync::Arc;

const TURN: Turn = Turn { now: Instant::from_nanos(7), wall: WallTime::from_nanos(7), entropy: 7 };

fn requests(client: ClientId) -> pbft::Requests {
    pbft::Requests {
        client,
        session: SessionId::ZERO,
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: vec![(RequestNumber::ZERO, Body::Register)],
    }
}

fn of_client(id: u128) -> Message {
    let id = ClientId::new(id);
    let keyring = Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, N, id);
    Message::Module(pbft::Message::Request(keyring.sign_as_client(requests(id))))
}

fn started(records: Vec<Record>) -> (Result<TotalReplica, RestoreError>, Outbox<Total>) {
    let records = (1..).zip(records).map(|(seq, record)| Restored::Found { seq: RecordSeq::new(seq), record });
    let restore = Restore::<Total> {
        replica: ReplicaId::new(0),
        replicas: N,
        config: pbft::Config { tentative_requests: 64, ..pbft::Config::default() },
        records: records.collect(),
        tail_damaged: false,
        checkpoint: None,
        wake: None,
    };
    let mut out = Outbox::new(TURN, RecordSeq::new(9));
    let replica = TotalReplica::start(restore, Arc::new(keyring(0, N)), &mut out);
    (replica, out)
}

#[test]
fn a_client_asks_the_module_itself_and_replicas_ask_nothing_of_it() {
    let keys = keyring(0, N);
    Total::prove(&mut of_client(9), &keys).expect("a client's request is what there is to order");
    let proxy = keys.address(&keys.proxy().expect("a replica"));
    let mut own = Message::Module(pbft::Message::Request(keys.sign_as_proxy(requests(proxy))));
    Total::prove(&mut own, &keys).expect_err("here a replica is no client");
}

#[test]
fn words_about_objects_are_blamed() {
    let keys = keyring(0, N);
    for mut word in [Message::GetObject { object: Digest::ZERO }, Message::Write1(write(9, 1, "a=x"))] {
        Total::prove(&mut word, &keys).expect_err("there is one order of everything");
    }
}

#[test]
fn what_the_primary_proposes_is_in_the_log_and_out_as_the_modules_words() {
    let (replica, out) = started(Vec::new());
    let (mut replica, mut next) = (replica.expect("it starts"), Outbox::new(TURN, RecordSeq::new(20)));
    for effect in out.into_effects().0 {
        if let Effect::Send { to: To::One(me @ Peer::Replica(_)), message, .. } = effect {
            replica.on_message(me, message, &mut next); // what it says to itself comes back when it is on disk
        }
    }
    let mut out = Outbox::new(TURN, next.next_seq());
    let mut request = of_client(9);
    Total::prove(&mut request, &keyring(0, N)).expect("it is the client's");
    replica.on_message(Peer::Client(ClientId::new(9)), request, &mut out);
    let effects = out.effects();
    assert!(effects.iter().any(|it| matches!(it, Effect::Persist { record: Record::Module(_), .. })), "{effects:?}");
    assert!(
        effects
            .iter()
            .any(|it| matches!(it, Effect::Send { message: Message::Module(pbft::Message::PrePrepare { .. }), .. })),
        "{effects:?}"
    );
    assert!(replica.check().is_ok());
}

#[test]
fn a_log_of_the_other_order_is_no_log_of_this_one() {
    let came = Record::Came {
        client: ClientId::new(9),
        number: RequestNumber::new(1),
        result: pbft::Told::Full(Bytes::new()),
    };
    let (replica, _) = started(vec![came]);
    assert!(matches!(replica, Err(RestoreError::Contradiction(_))), "{replica:?}");
    let (replica, _) = started(vec![rejoin(OpNumber::new(5))]);
    assert_eq!(replica.expect("it starts").status().role, "silent: its promises were lost");
}
