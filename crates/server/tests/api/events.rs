//! The event store over HTTP in front of a whole cluster: real connections, real replicas, one process.

use crate::common::{PATIENCE, http, parsed};
use quorate::events::EventStore;
use quorate::{ClientOptions, Events, Protocol, Reception, Vr, reception, vr};
use quorate_core::ids::ReplicaId;
use quorate_runtime::local::Local;
use quorate_server::events::limits::{BODY_BYTES_MAX, QUERY_BYTES_MAX, SUBSCRIPTIONS_MAX};
use quorate_server::{EventsGateway, Options, listen};
use serde_json::{Value, json};
use std::net::SocketAddr;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

pub struct Served {
    gateway: EventsGateway,
    local: Local,
}

impl Served {
    async fn start() -> Self {
        let local = Local::start::<Vr, Events>(3, vr::Config::default(), Events::new).expect("a cluster");
        let gateway = Self::gateway(&local).await;
        Self { gateway, local }
    }

    async fn gateway(local: &Local) -> EventsGateway {
        Self::gateway_of::<Vr>(local).await
    }

    async fn gateway_of<P: Protocol>(local: &Local) -> EventsGateway {
        let (config, key) = local.cluster();
        let store = EventStore::connect::<P>(config, key, ClientOptions::default()).expect("a client");
        let listener = listen::bind("127.0.0.1:0").await.expect("a port");
        EventsGateway::start(store, listener, &Options::default()).expect("a gateway")
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(http(self.address(), "GET", path, "").await)
    }

    async fn post(&self, path: &str, body: &str) -> (u16, Value) {
        answer(http(self.address(), "POST", path, body).await)
    }

    /// Appends one event whose data is a number.
    async fn append(&self, stream: &str, number: u64) {
        let body = json!({ "type": "counted", "data": { "number": number } }).to_string();
        assert_eq!(self.post(&format!("/v1/streams/{stream}"), &body).await.0, 201);
    }
}

pub fn answer((status, body): (u16, String)) -> (u16, Value) {
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON with status {status}: {body}")))
}

/// Somebody who follows a source.
struct Follower {
    lines: tokio::io::Lines<BufReader<TcpStream>>,
    /// The last id that was sent.
    id: Option<u64>,
}

/// A message: its name, its id if it has one of its own, its data.
#[derive(Debug, PartialEq)]
struct Message {
    name: String,
    id: Option<u64>,
    data: Value,
}

impl Follower {
    async fn follow(address: SocketAddr, path: &str, seen: Option<u64>) -> Self {
        let seen = seen.map(|seen| format!("last-event-id: {seen}\r\n")).unwrap_or_default();
        let head = format!("GET {path} HTTP/1.0\r\nhost: {address}\r\naccept: text/event-stream\r\n{seen}\r\n");
        let mut stream = TcpStream::connect(address).await.expect("a connection");
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next_line().await.expect("text").expect("a status");
        assert!(first.contains(" 200 "), "{first}");
        while lines.next_line().await.expect("text").is_some_and(|line| !line.is_empty()) {}
        Self { lines, id: None }
    }

    /// The next message with data.
    async fn next(&mut self) -> Message {
        let mut message = Message { name: String::new(), id: None, data: Value::Null };
        loop {
            let line = tokio::time::timeout(PATIENCE, self.lines.next_line()).await.expect("a line in time");
            let line = line.expect("text").expect("the stream goes on");
            match line.split_once(": ") {
                Some(("id", id)) => {
                    message.id = Some(id.parse().expect("a number"));
                    self.id = message.id;
                }
                Some(("event", name)) => name.clone_into(&mut message.name),
                Some(("data", data)) => message.data = serde_json::from_str(data).expect("JSON"),
                _ if line.is_empty() && message.data != Value::Null => return message,
                _ if line.is_empty() => message.id = None,
                _ => {}
            }
        }
    }

    /// So many events: their ids, and their numbers.
    async fn events(&mut self, count: usize) -> Vec<(u64, u64)> {
        let mut events = Vec::new();
        while events.len() < count {
            let message = self.next().await;
            if message.name.is_empty() {
                let number = message.data["data"]["number"].as_u64().expect("a number");
                events.push((message.id.expect("an id"), number));
            }
        }
        events
    }

    /// Waits for a message of this name.
    async fn named(&mut self, name: &str) -> Value {
        loop {
            let message = self.next().await;
            if message.name == name {
                return message.data;
            }
        }
    }
}

#[tokio::test]
async fn an_append_that_is_sent_again_is_done_once_by_ids_or_by_a_key() {
    let served = Served::start().await;
    let (status, first) = served
        .post("/v1/streams/a-1?expected=none", "{\"type\":\"t\",\"id\":\"0000000000000000000000000000000a\"}")
        .await;
    assert_eq!(
        (status, first),
        (201, json!({ "writes": [{ "stream": "a-1", "version": 1, "position": 1 }], "repeated": false }))
    );
    let again = served
        .post("/v1/streams/a-1?expected=none", "{\"type\":\"t\",\"id\":\"0000000000000000000000000000000a\"}")
        .await;
    assert_eq!((again.0, &again.1["repeated"]), (200, &json!(true)));

    let keyed = |key: &str| {
        let body = "[{\"type\":\"t\"},{\"type\":\"t\"}]";
        let head = format!("POST /v1/streams/a-2 HTTP/1.0\r\nhost: {}\r\nidempotency-key: {key}", served.address());
        said(served.address(), format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()))
    };
    assert_eq!(keyed("one").await.0, 201);
    let (status, body) = keyed("one").await;
    assert!(status == 200 && body["repeated"] == json!(true) && body["writes"][0]["version"] == json!(2), "{body}");
    assert_eq!(keyed("two").await.1["writes"][0]["version"], json!(4));
    assert_eq!(keyed("").await.0, 400);
    let id_reused =
        served.post("/v1/streams/a-1", "{\"type\":\"u\",\"id\":\"0000000000000000000000000000000a\"}").await;
    assert_eq!((id_reused.0, &id_reused.1["error"]), (409, &json!("id-reused")));
}

#[tokio::test]
async fn several_streams_are_appended_to_all_or_none_and_read_both_ways() {
    let served = Served::start().await;
    served.append("a-1", 1).await;
    let transfer = |expected: u64| {
        json!({ "writes": [
            { "stream": "a-1", "expected": expected, "events": [{ "type": "moved", "data": { "number": 2 } }] },
            { "stream": "b/1 ü", "expected": "none", "events": [{ "type": "moved", "data_text": "no\njson" }] },
        ] })
        .to_string()
    };
    let (status, refused) = served.post("/v1/append", &transfer(7)).await;
    assert_eq!((status, &refused["error"], &refused["version"]), (409, &json!("wrong-version"), &json!(1)));
    assert_eq!(served.get("/v1/streams/b%2F1%20%C3%BC").await.0, 404);
    assert_eq!(served.post("/v1/append", &transfer(1)).await.0, 201);
    let (_, read) = served.get("/v1/streams/b%2F1%20%C3%BC").await;
    assert_eq!(read["events"][0]["data_text"], json!("no\njson"));
    let (_, read) = served.get("/v1/all?backwards=true&limit=2").await;
    let positions: Vec<_> =
        read["events"].as_array().expect("events").iter().map(|it| it["position"].clone()).collect();
    assert_eq!((positions, &read["next"], &read["end"]), (vec![json!(3), json!(2)], &json!(1), &json!(false)));
    let (_, read) = served.get("/v1/categories/a?type=moved").await;
    assert_eq!(read["events"].as_array().map(Vec::len), Some(1));
    let (_, streams) = served.get("/v1/streams").await;
    assert_eq!(streams["streams"].as_array().map(Vec::len), Some(2));
    assert_eq!(served.get("/v1/streams/a-1/status").await.1["version"], json!(2));

    assert_eq!(answer(http(served.address(), "DELETE", "/v1/streams/a-1?expected=1", "").await).0, 409);
    assert_eq!(answer(http(served.address(), "DELETE", "/v1/streams/a-1?expected=2", "").await).0, 200);
    assert_eq!(served.get("/v1/streams/a-1").await.1["error"], json!("stream-deleted"));
    served.append("a-1", 3).await;
    assert_eq!(served.get("/v1/streams/a-1").await.1["events"][0]["version"], json!(3));
    assert_eq!(answer(http(served.address(), "DELETE", "/v1/streams/a-1?forever=true", "").await).0, 200);
    assert_eq!(served.get("/v1/streams/a-1").await.0, 410);
    assert_eq!(served.post("/v1/streams/a-1", "{\"type\":\"t\"}").await.0, 410);
    assert_eq!(served.post("/v1/scavenge", "").await.1, json!({ "freed": 3, "left": 0 }));
}

#[tokio::test]
async fn a_subscription_resumes_behind_the_last_event_id_at_another_gateway_and_across_a_crash() {
    let mut served = Served::start().await;
    for number in 1..=3 {
        served.append("s", number).await;
    }
    let mut follower = Follower::follow(served.address(), "/v1/all?from=2", None).await;
    assert_eq!(follower.events(2).await, [(2, 2), (3, 3)]);
    assert_eq!(follower.named("live").await, json!({ "next": 4 }));
    let seen = follower.id;
    drop(follower); // nobody hears the next ones
    for number in 4..=6 {
        served.append("s", number).await;
    }
    let another = Served::gateway(&served.local).await;
    let mut follower = Follower::follow(another.address(), "/v1/all", seen).await;
    assert_eq!(follower.events(3).await, [(4, 4), (5, 5), (6, 6)]);
    served.local.crash(ReplicaId::new(0)); // the one that led
    for number in 7..=9 {
        served.append("s", number).await;
    }
    assert_eq!(follower.events(3).await, [(7, 7), (8, 8), (9, 9)]);
    served.local.crash(ReplicaId::new(1)); // and now nobody answers
    follower.named("silent").await;
    served.local.restart(ReplicaId::new(0)).expect("it starts");
    follower.named("heard").await;
    served.append("s", 10).await;
    assert_eq!(follower.events(1).await, [(10, 10)]);
}

#[tokio::test]
async fn whoever_breaks_off_before_the_first_event_comes_back_to_where_it_began() {
    let served = Served::start().await;
    served.append("s", 1).await;
    served.append("other", 1).await;
    let mut follower = Follower::follow(served.address(), "/v1/streams/s", None).await;
    follower.named("live").await;
    assert_eq!(follower.id, Some(1), "from now on: behind version 1");
    drop(follower);
    served.append("s", 2).await;
    let mut follower = Follower::follow(served.address(), "/v1/streams/s", Some(1)).await;
    assert_eq!(follower.events(1).await, [(2, 2)]);
}

#[tokio::test]
async fn a_subscription_says_that_nothing_of_interest_has_happened() {
    let served = Served::start().await;
    let mut follower = Follower::follow(served.address(), "/v1/all?type=rare&from=1", None).await;
    follower.named("live").await;
    served.append("s", 1).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    served.append("s", 2).await;
    served.post("/v1/streams/s", "{\"type\":\"rare\",\"data\":{\"number\":3}}").await;
    assert_eq!(follower.events(1).await, [(3, 3)]);
}

#[tokio::test]
async fn a_group_gives_events_to_consumers_that_wait_and_acknowledge() {
    let served = Served::start().await;
    let put = http(served.address(), "PUT", "/v1/groups/mail", "{\"stream\":\"s\",\"attempts\":1}").await;
    assert_eq!(put.0, 200, "{put:?}");
    let waiting = http(served.address(), "POST", "/v1/groups/mail/take?consumer=ann&wait=30", "");
    let appending = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        served.append("s", 1).await;
        served.append("s", 2).await;
    };
    let (taken, ()) = tokio::join!(waiting, appending);
    let (status, taken) = answer(taken);
    assert_eq!((status, &taken["deliveries"][0]["number"]), (200, &json!(1)));
    let first = taken["deliveries"].as_array().expect("deliveries").len();
    assert_eq!(served.post("/v1/groups/mail/ack", "{\"numbers\":[1]}").await.0, 200);
    if first == 1 {
        served.post("/v1/groups/mail/take?consumer=ann", "").await;
    }
    let nack = "{\"consumer\":\"ann\",\"numbers\":[2],\"verdict\":\"park\",\"reason\":\"bad\"}";
    assert_eq!(served.post("/v1/groups/mail/nack", nack).await.0, 200);
    let (_, info) = served.get("/v1/groups/mail").await;
    assert_eq!(
        (&info["finished"], &info["parked"][0]["reason"], &info["stream"]),
        (&json!(1), &json!("bad"), &json!("s"))
    );
    assert_eq!(served.post("/v1/groups/mail/unpark?discard=true", "").await.0, 200);
    assert_eq!(served.post("/v1/groups/mail/take?consumer=ann", "").await.1, json!({ "deliveries": [], "end": true }));
    assert_eq!(served.get("/v1/groups").await.1, json!({ "groups": ["mail"] }));
    assert_eq!(http(served.address(), "DELETE", "/v1/groups/mail", "").await.0, 200);
    assert_eq!(served.get("/v1/groups/mail").await.1["error"], json!("no-group"));
}

#[tokio::test]
async fn a_projection_has_everything_that_was_acknowledged_and_goes_on_from_where_it_was() {
    let served = Served::start().await;
    let path = "/v1/projection?category=s&by=stream&sum=number";
    assert_eq!(served.get(path).await.1, json!({ "next": 1, "state": {} }));
    for number in 1..=20 {
        served.append(&format!("s-{}", number % 3), number).await;
        if number == 10 {
            served.get(path).await;
        }
    }
    let fold = json!({ "s-0": 63, "s-1": 70, "s-2": 77 });
    assert_eq!(served.get(path).await.1, json!({ "next": 21, "state": fold }));
    let another = Served::gateway(&served.local).await;
    assert_eq!(answer(http(another.address(), "GET", path, "").await).1["state"], fold);
    assert_eq!(served.get(&format!("{path}&from=19")).await.1["state"], json!({ "s-1": 19, "s-2": 20 }));
    served.post("/v1/streams/s-0", "{\"type\":\"t\",\"data\":{}}").await;
    let (status, refused) = served.get(path).await;
    assert_eq!((status, &refused["position"]), (422, &json!(21)));
    assert_eq!(served.get(&format!("{path}&type=counted")).await.1["state"], fold);
}

/// The answer to a request that is given byte by byte.
async fn said(address: SocketAddr, request: String) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    let _refused_before_the_end = stream.write_all(request.as_bytes()).await;
    let mut text = Vec::new();
    let _reset = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut text)).await.expect("an answer in time");
    answer(parsed(&String::from_utf8_lossy(&text)))
}

#[tokio::test]
async fn what_is_too_large_is_refused_by_the_name_of_its_bound() {
    let served = Served::start().await;
    let head = format!("POST /v1/streams/s HTTP/1.0\r\nhost: {}", served.address());
    let (status, refused) = said(served.address(), format!("{head}\r\ncontent-length: 999999999999\r\n\r\n{{")).await;
    assert_eq!(status, 413);
    assert!(refused["message"].as_str().is_some_and(|it| it.contains(&BODY_BYTES_MAX.to_string())), "{refused}");
    let long = format!("{{\"type\":\"t\",\"data_text\":\"{}\"}}", "x".repeat((1 << 20) + 1));
    let (status, refused) = served.post("/v1/streams/s", &long).await;
    assert!(status == 413 && refused["message"].as_str().is_some_and(|it| it.contains("1048576")), "{refused}");
    let many = format!("[{}]", vec!["{\"type\":\"t\"}"; 5000].join(","));
    let (status, refused) = served.post("/v1/streams/s", &many).await;
    assert!(status == 400 && refused["message"].as_str().is_some_and(|it| it.contains("4096")), "{refused}");
    let bomb = format!("{{\"writes\":[{}", "[".repeat(1_000_000));
    assert_eq!(served.post("/v1/append", &bomb).await.0, 400);
    let numbers = format!("{{\"numbers\":[{}1]}}", "1,".repeat(5000));
    assert_eq!(served.post("/v1/groups/g/ack", &numbers).await.0, 400);
    let query = format!("/v1/all?type={}", "x".repeat(QUERY_BYTES_MAX));
    let (status, refused) = served.get(&query).await;
    assert!(status == 400 && refused["message"].as_str().is_some_and(|it| it.contains("16384")), "{refused}");
    served.append("s", 1).await; // and nobody else notices
}

#[tokio::test]
async fn nonsense_is_refused_with_a_sentence() {
    let served = Served::start().await;
    let bad = [
        ("POST", "/v1/streams/s", "", 400),
        ("POST", "/v1/streams/s", "not json", 400),
        ("POST", "/v1/streams/s", "[]", 400),
        ("POST", "/v1/streams/s", "{\"type\":\"\"}", 400),
        ("POST", "/v1/streams/s", "{\"type\":\"t\",\"stream\":\"other\"}", 400),
        ("POST", "/v1/streams/s", "{\"type\":\"t\",\"date\":1}", 400),
        ("POST", "/v1/streams/s?expected=soon", "{\"type\":\"t\"}", 400),
        ("POST", "/v1/streams/s?expcted=1", "{\"type\":\"t\"}", 400),
        ("POST", "/v1/append", "{\"writes\":[{\"stream\":\"s\",\"expected\":-1,\"events\":[]}]}", 400),
        ("GET", "/v1/all?from=-1", "", 400),
        ("GET", "/v1/all?backwards=maybe", "", 400),
        ("GET", "/v1/all?correlation=1", "", 400),
        ("GET", "/v1/streams/%ff", "", 400),
        ("GET", "/v1/streams/", "", 400),
        ("GET", "/v1/streams/nobody", "", 404),
        ("GET", "/v1/groups/nobody", "", 404),
        ("GET", "/v2/all", "", 404),
        ("GET", "/", "", 404),
        ("PUT", "/v1/all", "", 405),
        ("POST", "/v1/groups/g/take", "", 400),
        ("POST", "/v1/groups/g/take?consumer=c&wait=61", "", 400),
        ("POST", "/v1/groups/g/take?consumer=c", "", 404),
        ("PUT", "/v1/groups/g", "{\"stream\":\"a\",\"category\":\"b\"}", 400),
        ("PUT", "/v1/groups/g", "{\"attempts\":0}", 413),
        ("GET", "/v1/projection?by=type&sum=a&latest", "", 400),
        ("GET", "/v1/projection", "", 400),
    ];
    for (method, path, body, expected) in bad {
        let (status, refused) = answer(http(served.address(), method, path, body).await);
        assert_eq!(status, expected, "{method} {path} {body}: {refused}");
        assert!(refused["message"].as_str().is_some_and(|it| it.len() > 10), "{method} {path}: {refused}");
    }
    assert_eq!(served.get("/v1/status").await.1["position"], json!(0), "nothing was changed");
}

#[tokio::test]
async fn a_web_page_can_neither_write_nor_read() {
    let served = Served::start().await;
    let address = served.address();
    let with = |head: &str| said(address, format!("GET /v1/all HTTP/1.1\r\n{head}\r\nconnection: close\r\n\r\n"));
    assert_eq!(with(&format!("host: {address}")).await.0, 200);
    assert_eq!(with(&format!("host: localhost:{}", address.port())).await.0, 200);
    assert_eq!(with(&format!("host: {address}\r\norigin: http://{address}")).await.0, 403);
    assert_eq!(with(&format!("host: evil.example:{}", address.port())).await.0, 421);
    assert_eq!(with(&format!("host: {address}\r\nhost: evil.example")).await.0, 421);
}

#[tokio::test]
async fn one_subscription_too_many_is_told_to_come_again_and_places_come_back() {
    let served = Served::start().await;
    let mut followers = Vec::new();
    for _ in 0..SUBSCRIPTIONS_MAX {
        followers.push(Follower::follow(served.address(), "/v1/all?from=1", None).await);
    }
    let head = format!("GET /v1/all HTTP/1.0\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", served.address());
    let (status, refused) = said(served.address(), head).await;
    assert_eq!((status, &refused["error"]), (429, &json!("too-many-subscriptions")));
    assert_eq!(served.get("/v1/all").await.0, 200, "readers are not turned away");
    drop(followers);
    for _ in 0..100 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        let mut stream = TcpStream::connect(served.address()).await.expect("a connection");
        let head = format!("GET /v1/all HTTP/1.0\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", served.address());
        stream.write_all(head.as_bytes()).await.expect("it is sent");
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.expect("a status");
        if first.ends_with(b"200") {
            return;
        }
    }
    panic!("places of readers that have gone do not come back");
}

#[tokio::test]
async fn an_append_names_its_level_of_criticality_where_there_are_levels() {
    let one = json!({ "type": "counted" }).to_string();
    let served = Served::start().await;
    let (status, refusal) = served.post("/v1/streams/a?criticality=0", &one).await;
    assert_eq!((status, &refusal["error"]), (400, &json!("bad-request")), "{refusal}");
    assert!(refusal["message"].as_str().is_some_and(|text| text.contains("no levels of criticality")), "{refusal}");

    let local = Local::start::<Reception, Events>(4, reception::Config::default(), Events::new).expect("a cluster");
    let served = Served { gateway: Served::gateway_of::<Reception>(&local).await, local };
    for (path, body, status, position) in [
        ("/v1/streams/a?criticality=0", one.clone(), 201, 1),
        ("/v1/streams/a?criticality=1&expected=1", one.clone(), 201, 2),
        (
            "/v1/append?criticality=0",
            json!({ "writes": [{ "stream": "b", "events": [{ "type": "x" }] }] }).to_string(),
            201,
            3,
        ),
        ("/v1/streams/a", one.clone(), 201, 4),
        ("/v1/streams/a?criticality=2", one.clone(), 400, 0),
        ("/v1/streams/a?criticality=300", one.clone(), 400, 0),
        ("/v1/streams/a?criticality=high", one, 400, 0),
    ] {
        let (found, answer) = served.post(path, &body).await;
        assert_eq!(found, status, "{path}: {answer}");
        assert!(position == 0 || answer["writes"][0]["position"] == json!(position), "{path}: {answer}");
    }
    assert_eq!(served.get("/v1/status").await.1["position"], json!(4));
}
