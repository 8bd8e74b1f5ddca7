//! Clients that send too much, or nonsense: refused with the limit's name, and nobody else notices.

use crate::common::{Served, http, parsed};
use bytes::Bytes;
use quorate_server::limits::{MESSAGE_BYTES_MAX, WATCHES_PER_STREAM_MAX};
use quorate_server::proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::net::TcpStream;
use tonic::Code;

/// The answer to a request that is given byte by byte.
async fn said(address: SocketAddr, request: String) -> (u16, String) {
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an answer");
        String::from_utf8_lossy(&answer).into_owned()
    });
    let answer = answer.await.expect("no panic");
    (parsed(&answer).0, answer)
}

#[tokio::test]
async fn a_value_beyond_the_limit_is_refused_in_etcds_words_and_names_the_limit() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let put = |bytes| PutRequest { key: "a".into(), value: vec![0; bytes].into(), ..PutRequest::default() };
    let refused = client.kv.put(put(1_600_000)).await.expect_err("too long");
    assert_eq!((refused.code(), refused.message()), (Code::InvalidArgument, "etcdserver: request is too large"));
    let detail = refused.metadata().get("quorate-detail").expect("a detail").to_str().expect("text");
    assert!(detail.contains("1048576 bytes"), "{detail}");
    assert!(client.kv.put(put(1 << 20)).await.is_ok(), "the longest value is taken");
}

#[tokio::test]
async fn a_message_beyond_the_limit_is_refused_before_it_is_read() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let put = PutRequest { key: "a".into(), value: vec![0; 3 << 20].into(), ..PutRequest::default() };
    let refused = client.kv.put(put).await.expect_err("too long");
    assert!(refused.message().contains(&MESSAGE_BYTES_MAX.to_string()), "{refused:?}");
}

#[tokio::test]
async fn a_bomb_of_empty_operations_is_refused() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let bomb = TxnRequest { success: vec![RequestOp::default(); 500_000], ..TxnRequest::default() };
    let refused = client.kv.txn(bomb).await.expect_err("too many");
    assert_eq!(refused.message(), "etcdserver: too many operations in txn request");
    let detail = refused.metadata().get("quorate-detail").expect("a detail").to_str().expect("text");
    assert!(detail.contains("at most 128 in a list"), "{detail}");
    let text = format!("{{\"success\":[{}]}}", vec!["{}"; 500_000].join(","));
    let (status, answer) = http(served.address(), "POST", "/v3/kv/txn", &text).await;
    assert_eq!(status, 400);
    assert!(answer.contains("65536 parts"), "{answer}");
    let deep = format!("{}{}", "{\"success\":[{\"request_txn\":".repeat(200), "}]}".repeat(200));
    assert_eq!(http(served.address(), "POST", "/v3/kv/txn", &deep).await.0, 400);
}

#[tokio::test]
async fn a_stream_has_only_so_many_watches_and_says_how_many() {
    let served = Served::start().await;
    let client = served.client().await;
    let mut watches = client.watches().await;
    for _ in 0..WATCHES_PER_STREAM_MAX {
        assert!(!watches.key("a", 0).await.canceled);
    }
    let refused = watches.key("a", 0).await;
    assert!(refused.created && refused.canceled);
    assert!(refused.cancel_reason.contains("at most 4096 watches"), "{}", refused.cancel_reason);
}

#[tokio::test]
async fn a_web_page_cannot_write_through_its_visitors_browser() {
    let served = Served::start().await;
    let request = |origin: &str| {
        let body = "{\"key\":\"YQ==\"}";
        format!("POST /v3/kv/put HTTP/1.0\r\nhost: x\r\n{origin}content-length: {}\r\n\r\n{body}", body.len())
    };
    assert_eq!(said(served.address(), request("")).await.0, 200);
    assert_eq!(said(served.address(), request("origin: http://example.org\r\n")).await.0, 403);
}

#[tokio::test]
async fn nonsense_on_the_port_ends_its_own_connection_and_no_other() {
    let served = Served::start().await;
    let mut client = served.client().await;
    let address = served.address();
    for nonsense in
        [&b"\0\0\0\0"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\xff\xff\xff\xff\xff", b"GET / HTTP/9.9\r\n\r\n"]
    {
        let nonsense = Bytes::copy_from_slice(nonsense);
        let ended = tokio::task::spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).expect("a connection");
            stream.write_all(&nonsense).expect("it is sent");
            stream.shutdown(std::net::Shutdown::Write).expect("it is half closed");
            stream.read_to_end(&mut Vec::new())
        });
        drop(ended.await.expect("no panic"));
        client.put("a", "1").await;
    }
}

#[tokio::test]
async fn grpc_bytes_that_are_no_message_are_refused() {
    let served = Served::start().await;
    // a message of three bytes: a field that is longer than the message
    let body = "\0\0\0\0\u{3}\n\u{7f}a";
    let request = format!(
        "POST /etcdserverpb.KV/Put HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nte: trailers\r\n\
         connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let (status, answer) = said(served.address(), request).await;
    assert_eq!(status, 200);
    assert!(answer.contains("grpc-status: 13"), "{answer}");
}

#[tokio::test]
async fn what_is_not_offered_says_so_in_a_sentence() {
    let served = Served::start().await;
    for (path, words) in [
        ("/etcdserverpb.Maintenance/MoveLeader", "themselves"),
        ("/etcdserverpb.Cluster/MemberAdd", "configuration"),
        ("/etcdserverpb.Nothing/AtAll", "not a call"),
    ] {
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/grpc\r\nconnection: close\r\n\
             content-length: 5\r\n\r\n\0\0\0\0\0"
        );
        let answer = said(served.address(), request).await.1.replace("%20", " ");
        assert!(answer.contains("grpc-status: 12") && answer.contains(words), "{path}: {answer}");
    }
}
