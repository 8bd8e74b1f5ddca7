//! What a client believes of replicas that say what they like.

use crate::common::{CLUSTER, Host, key, seats, soon};
use crate::support::echo::{Echo, Message};
use crate::support::r;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{Epoch, OpNumber, Peer, Position, ReplicaId, View};
use quorate_core::node::{Payload, Report, Service};
use quorate_core::protocol::Status;
use quorate_core::wire::Envelope;
use quorate_runtime::client::{Client, ClientOptions};
use quorate_runtime::link::{Incoming, Links};
use std::time::Duration;

const ENVELOPE: Envelope = Envelope { cluster: CLUSTER, epoch: Epoch::ZERO };

/// What a replica says of itself, with a number to know it by.
fn report(of: ReplicaId, executed: u64) -> Box<Report> {
    let status = Status {
        role: "backup".into(),
        view: View::ZERO,
        op: OpNumber::new(executed),
        committed: OpNumber::new(executed),
        executed: OpNumber::new(executed),
        checkpoint: OpNumber::ZERO,
        missing: 0,
    };
    Box::new(Report {
        replica: of,
        protocol: "echo".into(),
        status,
        op: OpNumber::new(executed),
        position: Position::ZERO,
        digest: Digest::ZERO,
        milestones: Vec::new(),
        ignored: 0,
        blamed: 0,
        last_fault: None,
        evidence: Vec::new(),
        syncs: 0,
    })
}

/// Waits for a client's question about the status.
async fn asked(host: &mut Host<Links>) -> (Peer, u64) {
    host.find(|item| match item {
        Incoming::Message { from, body } => match Envelope::open::<Payload<Message>>(&body) {
            Ok((_, Payload::Service(Service::GetStatus { nonce }))) => Some((from, nonce)),
            _ => None,
        },
        _ => None,
    })
    .await
}

fn answer(nonce: u64, report: Box<Report>) -> Bytes {
    ENVELOPE.seal(&Payload::<Message>::Service(Service::Status { nonce, report }))
}

#[tokio::test]
async fn no_replica_says_how_another_one_is() {
    let key = key();
    let mut seats = seats(2, &[key.public()]).await;
    seats.iter_mut().for_each(|seat| seat.config.protocol = "echo".into());
    let (mut honest, mut liar) = (seats[0].start().await, seats[1].start().await);
    let client = Client::connect::<Echo>(&seats[0].for_clients(), &key, ClientOptions::default()).expect("a client");
    let ask = |of| {
        let client = client.clone();
        tokio::spawn(async move { client.status(r(of), Duration::from_secs(20)).await })
    };
    let of_liar = ask(1);
    let (caller, nonce) = asked(&mut liar).await;
    let of_honest = ask(0);
    let (_, other) = asked(&mut honest).await;
    // In its own name and in the other's, to every question, and last of all what is true: it has all arrived then.
    for (nonce, of, executed) in [(other, 0, 666), (other, 1, 666), (nonce, 0, 666), (nonce, 1, 7)] {
        liar.links.send(caller, answer(nonce, report(r(of), executed)));
    }
    let heard = soon(of_liar).await.expect("no panic").expect("a status");
    assert_eq!((heard.replica, heard.status.executed), (r(1), OpNumber::new(7)));
    honest.links.send(caller, answer(other, report(r(0), 8)));
    let heard = soon(of_honest).await.expect("no panic").expect("a status");
    assert_eq!((heard.replica, heard.status.executed), (r(0), OpNumber::new(8)));
}
