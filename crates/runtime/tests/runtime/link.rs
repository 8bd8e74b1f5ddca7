//! What links do for those who behave.

use crate::common::*;
use bytes::Bytes;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_runtime::link::{Incoming, Pace, Sent, listen};
use std::time::Duration;

#[tokio::test]
async fn two_replicas_exchange_messages_both_ways() {
    let mut seats = seats(2, &[]).await;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    r1.connected(replica(0)).await;
    assert_eq!(r0.links.send(replica(1), Bytes::from_static(b"ping")), Sent::Queued);
    assert_eq!(r1.message().await, (replica(0), Bytes::from_static(b"ping")));
    assert_eq!(r1.links.send(replica(0), Bytes::from_static(b"pong")), Sent::Queued);
    assert_eq!(r0.message().await, (replica(1), Bytes::from_static(b"pong")));

    let status = r0.links.status();
    assert_eq!(status.replicas.len(), 1);
    assert!(status.replicas[0].connected);
    assert_eq!(status.replicas[0].traffic.frames_in, 1);
    assert_eq!(status.replicas[0].traffic.frames_out, 1);
    assert_eq!(status.replicas[0].traffic.bytes_out, 16 + 4);
}

#[tokio::test]
async fn a_cluster_that_starts_together_is_connected_soon() {
    let mut seats = seats(5, &[]).await;
    let started = tokio::time::Instant::now();
    let mut hosts = Vec::new();
    for seat in &mut seats {
        hosts.push(seat.start().await);
    }
    for host in &hosts {
        host.until(|status| status.replicas.iter().all(|replica| replica.connected)).await;
    }
    assert!(started.elapsed() < Duration::from_secs(2), "took {:?}", started.elapsed()); // 100 ms on an idle machine
}

#[tokio::test]
async fn a_client_reaches_every_replica_and_gets_replies() {
    let key = key();
    let mut seats = seats(3, &[key.public()]).await;
    let mut hosts = Vec::new();
    for seat in &mut seats {
        hosts.push(seat.start().await);
    }
    let mut caller = dial(&seats[0].for_clients(), &key, 7);
    for id in 0..3 {
        caller.until(|status| status.replicas.iter().all(|replica| replica.connected)).await;
        assert_eq!(caller.links.send(ReplicaId::new(id), Bytes::from_static(b"request")), Sent::Queued);
        let host = &mut hosts[usize::from(id)];
        assert_eq!(host.message().await, (client(&key, 7), Bytes::from_static(b"request")));
        assert_eq!(host.links.send(client(&key, 7), Bytes::from_static(b"reply")), Sent::Queued);
        assert_eq!(caller.message().await, (replica(id), Bytes::from_static(b"reply")));
        assert_eq!(host.links.status().clients.into_iter().map(Peer::Client).collect::<Vec<_>>(), [client(&key, 7)]);
    }
}

#[tokio::test]
async fn ten_thousand_messages_of_mixed_sizes_arrive_in_order() {
    let mut seats = seats(2, &[]).await;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    let body = |number: u32| {
        let size = [0, 1, 60, 300, 5_000, 15_000, 70_000][number as usize % 7] + number as usize % 13;
        let size = if number.is_multiple_of(4_000) { 3 << 20 } else { size };
        let mut body = number.to_le_bytes().to_vec();
        body.resize(4 + size, number as u8);
        Bytes::from(body)
    };
    let sender = async {
        for number in 0..10_000 {
            while r0.links.send(replica(1), body(number)) == Sent::Full {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    };
    let receiver = async {
        for number in 0..10_000 {
            assert_eq!(r1.message().await, (replica(0), body(number)));
        }
    };
    tokio::join!(sender, receiver);
}

#[tokio::test]
async fn a_replica_that_restarts_is_connected_again_from_either_side() {
    let mut seats = seats(2, &[]).await;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    r1.connected(replica(0)).await;

    drop(r1); // the side that is dialled
    r0.disconnected(replica(1)).await;
    assert_eq!(r0.links.send(replica(1), Bytes::from_static(b"lost")), Sent::Unconnected);
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    r1.connected(replica(0)).await;

    drop(r0); // the side that dials
    r1.disconnected(replica(0)).await;
    let mut r0 = seats[0].start().await;
    r1.connected(replica(0)).await;
    r0.connected(replica(1)).await;
    r0.links.send(replica(1), Bytes::from_static(b"back"));
    assert_eq!(r1.message().await.1, Bytes::from_static(b"back"));
}

#[tokio::test]
async fn a_newer_connection_of_a_client_replaces_the_older() {
    let key = key();
    let mut seats = seats(1, &[key.public()]).await;
    let mut host = seats[0].start().await;
    let _older = raw_greeted(&key, &seats[0], 7).await;
    host.connected(client(&key, 7)).await;
    let mut newer = dial(&seats[0].for_clients(), &key, 7);
    assert_eq!(host.disconnected(client(&key, 7)).await, "the same peer connected again");
    host.connected(client(&key, 7)).await;
    newer.connected(replica(0)).await;
    host.links.send(client(&key, 7), Bytes::from_static(b"to the newer"));
    assert_eq!(newer.message().await.1, Bytes::from_static(b"to the newer"));
}

#[tokio::test]
async fn idle_links_stay_and_silent_ones_go() {
    let pace =
        Pace { ping_after: Duration::from_millis(100), silence_max: Duration::from_millis(400), ..Pace::default() };
    let key = key();
    let mut seats = seats(2, &[key.public()]).await;
    let mut r0 = seats[0].start_at(pace).await;
    let mut r1 = seats[1].start_at(pace).await;
    r0.connected(replica(1)).await;
    r1.connected(replica(0)).await;
    let _frozen = raw_greeted(&key, &seats[1], 9).await;
    r1.connected(client(&key, 9)).await;
    assert_eq!(r1.disconnected(client(&key, 9)).await, "the other side was silent for too long");
    tokio::time::sleep(Duration::from_millis(800)).await;
    assert_eq!(r1.links.status().replicas[0].traffic.connects, 1);
    assert!(r1.links.status().replicas[0].connected);
}

#[tokio::test]
async fn a_peer_that_does_not_read_costs_bounded_memory() {
    let mut seats = seats(2, &[]).await;
    seats[0].config.limits.peer_outbox_max_bytes = 1 << 20;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    let body = Bytes::from(vec![7; 100_000]);
    let mut queued = 0_u64;
    for _ in 0..2_000 {
        queued += u64::from(r0.links.send(replica(1), body.clone()) == Sent::Queued);
        assert!(r0.links.status().replicas[0].outbox_bytes <= 1 << 20);
        tokio::task::yield_now().await;
    }
    let status = r0.links.status();
    assert!(status.replicas[0].traffic.dropped_full > 0);
    assert!(status.replicas[0].connected, "votes must still find the link when the peer wakes up");
    let arrived = r1.links.status().replicas[0].traffic.bytes_in;
    assert!(arrived < 34 << 20, "{arrived} bytes were read for a host that takes none");
    for _ in 0..queued {
        assert_eq!(r1.message().await.1, body);
    }
}

#[tokio::test]
async fn a_client_that_does_not_read_is_disconnected() {
    let key = key();
    let mut seats = seats(1, &[key.public()]).await;
    let mut host = seats[0].start().await;
    let _sleepy = raw_greeted(&key, &seats[0], 9).await;
    host.connected(client(&key, 9)).await;
    let body = Bytes::from(vec![7; 1 << 20]);
    while host.links.send(client(&key, 9), body.clone()) == Sent::Queued {
        tokio::task::yield_now().await;
    }
    assert!(host.disconnected(client(&key, 9)).await.contains("does not read fast enough"));
    assert!(host.links.status().client_traffic.dropped_full > 0);
    assert_eq!(host.links.status().clients, []);
}

#[tokio::test]
async fn clients_that_flood_leave_replicas_their_queue() {
    let key = key();
    let mut seats = seats(2, &[key.public()]).await;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    let mut flood = dial(&seats[1].for_clients(), &key, 9);
    flood.connected(replica(1)).await;
    for _ in 0..30 {
        flood.links.send(ReplicaId::new(1), Bytes::from(vec![0; 1 << 20]));
    }
    flood.until(|status| status.replicas[1].traffic.bytes_out > 16 << 20).await;
    r0.links.send(replica(1), Bytes::from_static(b"vote"));
    r1.until(|status| status.replicas[0].traffic.frames_in == 1).await;
    let batch = soon(r1.links.recv()).await;
    let first = batch.iter().find(|item| matches!(item, Incoming::Message { .. }));
    let vote = Incoming::Message { from: replica(0), body: Bytes::from_static(b"vote") };
    assert_eq!(first, Some(&vote));
    let bytes: usize =
        batch.iter().map(|item| if let Incoming::Message { body, .. } = item { body.len() } else { 0 }).sum();
    assert!(bytes <= (2 << 20) + 4, "a batch of {bytes} bytes keeps replicas waiting");
}

#[tokio::test]
async fn a_message_longer_than_a_frame_is_not_sent() {
    let mut seats = seats(2, &[]).await;
    seats[0].config.limits.max_frame_bytes = 1000;
    let mut r0 = seats[0].start().await;
    let _r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    assert_eq!(r0.links.send(replica(1), Bytes::from(vec![0; 1001])), Sent::TooLong);
    assert_eq!(r0.links.send(replica(1), Bytes::from(vec![0; 1000])), Sent::Queued);
    assert_eq!(r0.links.send(replica(9), Bytes::new()), Sent::Unconnected);
}

#[tokio::test]
async fn a_cut_drops_messages_both_ways_keeps_the_connection_and_spares_others() {
    let key = key();
    let mut seats = seats(3, &[key.public()]).await;
    let mut hosts = Vec::new();
    for seat in &mut seats {
        hosts.push(seat.start().await);
    }
    for host in &hosts {
        host.until(|status| status.replicas.iter().all(|replica| replica.connected)).await;
    }
    let mut caller = dial(&seats[0].for_clients(), &key, 7);
    caller.until(|status| status.replicas.iter().all(|replica| replica.connected)).await;
    hosts[0].until(|status| status.clients.len() == 1).await;

    hosts[0].links.handle().cut(&[ReplicaId::new(1)]);
    assert_eq!(hosts[0].links.send(replica(1), Bytes::from_static(b"lost")), Sent::Unconnected);
    assert_eq!(hosts[1].links.send(replica(0), Bytes::from_static(b"lost too")), Sent::Queued);
    let dropped = |status: &quorate_runtime::link::LinkStatus| status.replicas[0].traffic.dropped_unconnected == 2;
    hosts[0].until(dropped).await;
    assert_eq!(hosts[0].links.send(replica(2), Bytes::from_static(b"r2")), Sent::Queued);
    assert_eq!(hosts[2].message().await, (replica(0), Bytes::from_static(b"r2")));
    assert_eq!(hosts[0].links.send(client(&key, 7), Bytes::from_static(b"client")), Sent::Queued);
    assert_eq!(caller.message().await, (replica(0), Bytes::from_static(b"client")));

    hosts[0].links.handle().cut(&[]);
    assert_eq!(hosts[1].links.send(replica(0), Bytes::from_static(b"again")), Sent::Queued);
    assert_eq!(hosts[0].message().await, (replica(1), Bytes::from_static(b"again")), "the first that came");
    assert_eq!(hosts[0].links.send(replica(1), Bytes::from_static(b"and back")), Sent::Queued);
    assert_eq!(hosts[1].message().await, (replica(0), Bytes::from_static(b"and back")));
    assert_eq!(hosts[0].links.status().replicas[0].traffic.connects, 1, "the connection was never lost");
}

#[tokio::test]
async fn links_that_were_dropped_take_nothing_more() {
    let mut seats = seats(2, &[]).await;
    let mut r0 = seats[0].start().await;
    let mut r1 = seats[1].start().await;
    r0.connected(replica(1)).await;
    r1.connected(replica(0)).await;
    let handle = r0.links.handle();
    assert_eq!(handle.send(replica(1), Bytes::from_static(b"in time")), Sent::Queued);
    r1.message().await;
    drop(r0);
    assert_eq!(handle.send(replica(1), Bytes::from_static(b"too late")), Sent::Unconnected);
    assert_eq!(r1.disconnected(replica(0)).await, "the other side closed the connection");
    assert!(listen(&seats[0].config.listen).await.is_ok(), "the port is free again");
}

#[tokio::test]
async fn a_port_in_use_gives_one_clear_sentence() {
    let taken = listen("127.0.0.1:0").await.expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let error = listen(&address).await.expect_err("the port is taken").to_string();
    let expected =
        format!("cannot listen on {address}: another process does; stop it, or choose another `listen` address");
    assert_eq!(error, expected);
    let error = listen("nowhere").await.expect_err("no address").to_string();
    assert!(error.starts_with("cannot listen on nowhere: "), "{error}");
}
