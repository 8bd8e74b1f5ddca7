//! What links do to those who do not behave: refused, closed, counted; never a crash, never a place taken from others.

use crate::common::*;
use bytes::Bytes;
use quorate_core::ids::{ClusterId, Epoch, Peer, ReplicaId};
use quorate_runtime::link::hello::Hello;
use quorate_runtime::link::{Incoming, Links, Pace, Sent};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A replica with two places in its members list and one client, and that client's key.
async fn victim(pace: Pace) -> (Host<Links>, Vec<Seat>, quorate_runtime::keys::KeyPair) {
    let key = key();
    let mut seats = seats(2, &[key.public()]).await;
    let host = seats[1].start_at(pace).await;
    (host, seats, key)
}

/// The replica still serves a client who behaves.
async fn still_serves(host: &mut Host<Links>, seat: &Seat, key: &quorate_runtime::keys::KeyPair) {
    let mut config = seat.for_clients();
    config.members.retain(|member| member.replica == seat.config.replica);
    let mut caller = dial(&config, key, 99);
    let to = seat.config.replica;
    caller.connected(Peer::Replica(to)).await;
    assert_eq!(caller.links.send(to, Bytes::from_static(b"hello")), Sent::Queued);
    assert_eq!(host.message().await, (client(key, 99), Bytes::from_static(b"hello")));
}

#[tokio::test]
async fn an_unknown_key_is_refused_and_told_so() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let mut config = seats[1].for_clients();
    config.members.retain(|member| member.replica == ReplicaId::new(1));
    let mut stranger = dial(&config, &key(), 7);
    let address = &seats[1].config.listen;
    let expected = format!("R1 at {address} does not know our key; add our public key to its replica.toml");
    assert_eq!(stranger.dial_error().await, expected);
    host.until(|status| status.handshakes.unknown_key == 1).await;
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn a_replica_with_the_key_of_another_is_refused() {
    let mut seats = seats(3, &[]).await;
    let mut r2 = seats[2].start().await;

    // Whoever calls: R1's key, R0's name.
    let mut liar = raw(&seats[1].key, &seats[2]).await;
    let hello = Hello::new(CLUSTER, Epoch::ZERO, replica(0), "vr");
    liar.write_all(&hello.frame()).await.expect("sent");
    let mut answer = Vec::new();
    soon(liar.read_to_end(&mut answer)).await.expect("an answer");
    assert!(String::from_utf8_lossy(&answer).contains("your key is not the one that my members list has for R0"));
    r2.until(|status| status.handshakes.refused == 1).await;

    // Whoever answers: at R2's address, R2 does not hold the key that R0 expects there.
    seats[0].config.members[2].public_key = seats[1].key.public();
    seats[0].config.members.remove(1);
    let mut r0 = seats[0].start().await;
    let address = &seats[2].config.listen;
    let expected = format!("whoever answers at {address} does not hold the key that `members` lists for R2");
    assert_eq!(r0.dial_error().await, expected);
    assert_eq!(r0.links.status().handshakes.unknown_key, 1);
    seats[1].config.members.remove(0);
    let _r1 = seats[1].start().await;
    r2.connected(replica(1)).await;
}

#[tokio::test]
async fn a_role_that_the_key_does_not_have_is_refused() {
    let (host, seats, friend) = victim(Pace::default()).await;
    let sentences = [
        (&friend, replica(0), "your key is not the one that my members list has for R0"),
        (&seats[0].key, client(&seats[0].key, 0), "your key is a replica's, not a client's"),
        (&friend, replica(1), "R1 does not dial R1: the lower number dials"),
        (&friend, replica(200), "R200 does not dial R1: the lower number dials"),
    ];
    for (key, role, sentence) in sentences {
        let mut liar = raw(key, &seats[1]).await;
        let hello = Hello::new(CLUSTER, Epoch::ZERO, role, "vr");
        liar.write_all(&hello.frame()).await.expect("sent");
        let mut answer = Vec::new();
        soon(liar.read_to_end(&mut answer)).await.expect("an answer");
        assert!(String::from_utf8_lossy(&answer).contains(sentence), "{answer:?}");
    }
    host.until(|status| status.handshakes.refused == 4).await;
}

#[tokio::test]
async fn another_cluster_epoch_or_protocol_gets_the_sentence() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let mut config = seats[1].for_clients();
    config.members.retain(|member| member.replica == ReplicaId::new(1));
    let refused = |what: &str| format!("R1 refused the connection: this replica {what}");

    let mut other = config.clone();
    other.cluster = ClusterId::new(0xcccc_dddd << 96);
    let expected = refused("belongs to cluster-aaaabbbb, you asked for cluster-ccccdddd");
    assert_eq!(dial(&other, &friend, 7).dial_error().await, expected);

    let mut other = config.clone();
    other.epoch = Epoch::new(3);
    assert_eq!(dial(&other, &friend, 7).dial_error().await, refused("is in epoch 0, you asked for epoch 3"));

    let mut other = config.clone();
    other.protocol = "pbft\n\u{1b}[2J".into();
    let expected = refused("runs the protocol vr, you asked for pbft[2J");
    assert_eq!(dial(&other, &friend, 7).dial_error().await, expected);

    host.until(|status| status.handshakes.refused == 3).await;
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn nobody_there_gets_a_sentence_once() {
    let key = key();
    let mut seats = seats(1, &[key.public()]).await;
    drop(seats[0].listener.take());
    let mut caller = dial(&seats[0].for_clients(), &key, 7);
    let address = &seats[0].config.listen;
    let expected = format!("cannot reach R0 at {address}: connection refused; is it running?");
    assert_eq!(caller.dial_error().await, expected);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut host = seats[0].start().await; // the next news is the connection, not the fifth refusal
    assert_eq!(caller.next().await, quorate_runtime::link::Incoming::Connected(replica(0)));
    host.connected(client(&key, 7)).await;
}

#[tokio::test]
async fn callers_without_tls_are_counted_and_forgotten() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let callers: [&[u8]; 5] = [
        b"GET / HTTP/1.1\r\nHost: quorate\r\n\r\n",
        &[0xff; 4096],
        &[0; 70_000],
        &[0x16, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3], // a ClientHello that goes on for 16 KiB, cut short
        b"",
    ];
    for bytes in callers {
        let mut stream = TcpStream::connect(&seats[1].config.listen).await.expect("a connection");
        let _ = stream.write_all(bytes).await;
    }
    host.until(|status| status.handshakes.failed == 5).await;
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn handshakes_that_dawdle_are_cut_off() {
    let pace = Pace { handshake_max: Duration::from_millis(300), ..Pace::default() };
    let (mut host, seats, friend) = victim(pace).await;
    let mut says_nothing = TcpStream::connect(&seats[1].config.listen).await.expect("a connection");
    let mut does_not_greet = raw(&friend, &seats[1]).await;
    let mut slow_loris = raw(&friend, &seats[1]).await;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if slow_loris.write_all(&[1]).await.is_err() || slow_loris.flush().await.is_err() {
            break;
        }
    }
    host.until(|status| status.handshakes.timed_out + status.handshakes.failed == 3).await;
    assert!(host.links.status().handshakes.timed_out >= 2);
    assert_eq!(soon(says_nothing.read(&mut [0])).await.expect("the end"), 0);
    assert!(soon(does_not_greet.read(&mut [0])).await.is_err(), "cut off without a farewell");
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn a_crowd_that_never_finishes_does_not_lock_others_out() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let mut crowd = Vec::new();
    for _ in 0..300 {
        crowd.push(TcpStream::connect(&seats[1].config.listen).await.expect("a connection"));
    }
    still_serves(&mut host, &seats[1], &friend).await;
    assert!(host.links.status().handshakes.crowded_out >= 300 - 256);
}

#[tokio::test]
async fn frames_that_are_none_close_the_connection_with_a_reason() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let header = |length: u32, kind: u8, version: u8, reserved: u8, epoch: u64| {
        let mut bytes = length.to_le_bytes().to_vec();
        bytes.extend([kind, version, reserved, 0]);
        bytes.extend(epoch.to_le_bytes());
        bytes
    };
    let cases: [(Vec<u8>, &str); 10] = [
        (header(u32::MAX, 3, 1, 0, 0), "a frame of 4294967295 bytes, more than the 2097152 that are allowed here"),
        (header((2 << 20) + 1, 3, 1, 0, 0), "a frame of 2097153 bytes, more than the 2097152 that are allowed here"),
        (header(1, 3, 2, 0, 0), "frame version 2, this side speaks version 1"),
        (header(1, 77, 1, 0, 0), "frame kind 77 does not exist"),
        (header(1, 3, 1, 9, 0), "the reserved bits of a frame are not zero"),
        (header(0, 3, 1, 0, 1 << 32), "a frame of epoch 4294967296 on a link of epoch 0"),
        (header(0, 1, 1, 0, 0), "a Hello frame where none belongs"),
        (header(0, 2, 1, 0, 0), "a Refused frame where none belongs"),
        (b"GET / HTTP/1.1\r\nHost: quorate\r\n\r\n".to_vec(), "frame version 32, this side speaks version 1"),
        (vec![0xff; 100_000], "frame version 255, this side speaks version 1"),
    ];
    let count = cases.len() as u64;
    for (bytes, reason) in cases {
        let mut liar = raw_greeted(&friend, &seats[1], 5).await;
        host.connected(client(&friend, 5)).await;
        let _ = liar.write_all(&bytes).await;
        let _ = liar.flush().await;
        assert_eq!(host.disconnected(client(&friend, 5)).await, format!("the other side sent {reason}"));
    }
    assert_eq!(host.links.status().client_traffic.malformed, count);
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn a_frame_cut_short_is_told_from_a_farewell() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    for (bytes, reason) in [
        (
            &[9, 0, 0, 0, 3, 1, 0, 0][..],
            "the other side sent the connection ended inside a frame, after 8 of its bytes",
        ),
        (&[][..], "the other side closed the connection"),
    ] {
        for farewell in [true, false] {
            let mut caller = raw_greeted(&friend, &seats[1], 5).await;
            host.connected(client(&friend, 5)).await;
            caller.write_all(bytes).await.expect("sent");
            caller.flush().await.expect("sent");
            if farewell {
                caller.shutdown().await.expect("closed");
            }
            drop(caller);
            assert_eq!(host.disconnected(client(&friend, 5)).await, reason);
        }
    }
    assert_eq!(host.links.status().client_traffic.malformed, 2);
}

#[tokio::test]
async fn greetings_that_are_none_are_counted() {
    let (mut host, seats, friend) = victim(Pace::default()).await;
    let greetings: [&[u8]; 4] = [
        &[4, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4], // four bytes that are no Hello
        &[1, 4, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],             // a Hello of 1025 bytes
        &[0, 0, 0, 0, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],             // a message before the Hello
        &[0, 0, 0, 0],                                                 // the end inside a frame
    ];
    for bytes in greetings {
        let mut liar = raw(&friend, &seats[1]).await;
        liar.write_all(bytes).await.expect("sent");
        let _ = liar.shutdown().await;
    }
    host.until(|status| status.handshakes.failed == 4).await;
    still_serves(&mut host, &seats[1], &friend).await;
}

#[tokio::test]
async fn a_client_id_cannot_be_taken_with_another_key() {
    let (owner, thief) = (key(), key());
    let mut seats = seats(1, &[owner.public(), thief.public()]).await;
    let mut host = seats[0].start().await;
    let mut robbery = raw(&thief, &seats[0]).await; // before its owner is there
    let hello = Hello::of_client(CLUSTER, Epoch::ZERO, client_key(&owner, 7), "vr");
    robbery.write_all(&hello.frame()).await.expect("sent");
    let mut answer = Vec::new();
    soon(robbery.read_to_end(&mut answer)).await.expect("an answer");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains("is not the id of your key and nonce"), "{answer}");
    let mut rightful = dial(&seats[0].for_clients(), &owner, 7);
    host.connected(client(&owner, 7)).await;
    host.links.send(client(&owner, 7), Bytes::from_static(b"secret"));
    assert_eq!(rightful.message().await.1, Bytes::from_static(b"secret"));
}

#[tokio::test]
async fn clients_beyond_the_limit_are_refused() {
    let key = key();
    let mut seats = seats(1, &[key.public()]).await;
    seats[0].config.limits.clients_max = 1;
    let mut host = seats[0].start().await;
    let first = dial(&seats[0].for_clients(), &key, 1);
    host.connected(client(&key, 1)).await;
    let mut second = dial(&seats[0].for_clients(), &key, 2);
    let expected = "R0 refused the connection: this replica has its 1 clients already";
    assert_eq!(second.dial_error().await, expected);
    drop(first);
    second.connected(replica(0)).await; // it has gone on trying
}

#[tokio::test]
async fn one_key_does_not_take_the_places_of_others() {
    let (crowd, one) = (key(), key());
    let mut seats = seats(1, &[crowd.public(), one.public()]).await;
    seats[0].config.limits.clients_max = 4;
    let mut host = seats[0].start().await;
    let mut connected = Vec::new();
    for nonce in 0..4 {
        connected.push(raw_greeted(&crowd, &seats[0], nonce).await);
        host.connected(client(&crowd, nonce)).await;
    }
    let mut single = Vec::new();
    for nonce in 0..2 {
        single.push(raw_greeted(&one, &seats[0], nonce).await);
        let gone = host.find(|item| match item {
            Incoming::Disconnected { reason, .. } => Some(reason.to_string()),
            _ => None,
        });
        assert_eq!(gone.await, "its key holds most of the places for clients, and another key needs one");
        host.connected(client(&one, nonce)).await;
    }
    let mut third = dial(&seats[0].for_clients(), &one, 2);
    let expected = "R0 refused the connection: this replica has its 4 clients already";
    assert_eq!(third.dial_error().await, expected, "each key has two");
    assert_eq!(host.links.status().clients.len(), 4);
}
