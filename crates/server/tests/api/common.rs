//! A cluster with a gateway, and clients of it.

use bytes::Bytes;
use quorate_core::ids::ReplicaId;
use quorate_core::machine::Machine;
use quorate_core::protocol::Protocol;
use quorate_machines::kv::Kv;
use quorate_protocols::pbft::{self, Pbft};
use quorate_protocols::vr::{self, Vr};
use quorate_runtime::local::Local;
use quorate_server::proto::etcdserverpb::auth_client::AuthClient;
use quorate_server::proto::etcdserverpb::kv_client::KvClient;
use quorate_server::proto::etcdserverpb::lease_client::LeaseClient;
use quorate_server::proto::etcdserverpb::watch_client::WatchClient;
use quorate_server::proto::etcdserverpb::{
    CompactionRequest, DeleteRangeRequest, PutRequest, RangeRequest, RangeResponse, ResponseHeader, WatchCancelRequest,
    WatchCreateRequest, WatchProgressRequest, WatchRequest, WatchResponse, watch_request,
};
use quorate_server::{Gateway, Options, listen};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Status, Streaming};

/// Long enough for anything that is waited for on a loaded machine; reaching it is a failure.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct Served {
    gateway: Gateway,
    local: Local,
}

impl Served {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let local = Local::start::<Vr, Kv>(3, vr::Config::default(), Kv::new).expect("a cluster");
        let gateway = Self::gateway(&local, options).await;
        Self { gateway, local }
    }

    /// Four replicas, one of which may lie.
    pub async fn start_pbft() -> Self {
        Self::start_of::<Pbft, Kv>(4, pbft::Config::default(), Kv::new).await
    }

    /// Under whichever protocol, with whatever behaves like the store.
    pub async fn start_of<P: Protocol, M: Machine>(
        replicas: u8,
        config: P::Config,
        machine: impl Fn() -> M + Send + Sync + 'static,
    ) -> Self
    where
        P::Config: Sync,
    {
        let local = Local::start::<P, M>(replicas, config, machine).expect("a cluster");
        let listener = listen::bind("127.0.0.1:0").await.expect("a port");
        let (cluster, key) = local.cluster();
        let gateway = Gateway::start::<P>(cluster, key, listener, Options::default()).expect("a gateway");
        Self { gateway, local }
    }

    async fn gateway(local: &Local, options: Options) -> Gateway {
        let listener = listen::bind("127.0.0.1:0").await.expect("a port");
        let (cluster, key) = local.cluster();
        Gateway::start::<Vr>(cluster, key, listener, options).expect("a gateway")
    }

    /// Another gateway to the same cluster.
    pub async fn another(&self) -> Gateway {
        Self::gateway(&self.local, Options::default()).await
    }

    pub fn address(&self) -> SocketAddr {
        self.gateway.address()
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.address()).await
    }

    pub fn crash(&mut self, replica: u8) {
        self.local.crash(ReplicaId::new(replica));
    }

    pub fn restart(&mut self, replica: u8) {
        self.local.restart(ReplicaId::new(replica)).expect("it starts");
    }
}

#[derive(Clone)]
pub struct Client {
    pub channel: Channel,
    pub kv: KvClient<Channel>,
    pub lease: LeaseClient<Channel>,
    pub auth: AuthClient<Channel>,
}

impl Client {
    pub async fn connect(address: SocketAddr) -> Self {
        let channel = Endpoint::from_shared(format!("http://{address}")).expect("an address").connect().await;
        let channel = channel.expect("a connection");
        Self {
            kv: KvClient::new(channel.clone()).max_decoding_message_size(64 << 20),
            lease: LeaseClient::new(channel.clone()),
            auth: AuthClient::new(channel.clone()),
            channel,
        }
    }

    /// The revision after it.
    pub async fn put(&mut self, key: &'static str, value: &'static str) -> i64 {
        let request = PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() };
        revision(self.kv.put(request).await.expect("a put").into_inner().header)
    }

    /// The revision after it.
    pub async fn delete(&mut self, key: &'static str) -> i64 {
        let request = DeleteRangeRequest { key: key.into(), ..DeleteRangeRequest::default() };
        revision(self.kv.delete_range(request).await.expect("a delete").into_inner().header)
    }

    pub async fn compact(&mut self, revision: i64) {
        let request = CompactionRequest { revision, physical: false };
        self.kv.compact(request).await.expect("a compaction");
    }

    pub async fn range(&mut self, request: RangeRequest) -> Result<RangeResponse, Status> {
        self.kv.range(request).await.map(tonic::Response::into_inner)
    }

    pub async fn get(&mut self, key: &'static str) -> Option<Bytes> {
        let found = self.range(RangeRequest { key: key.into(), ..RangeRequest::default() }).await;
        found.expect("an answer").kvs.into_iter().next().map(|kv| kv.value)
    }

    pub async fn watches(&self) -> Watches {
        self.watches_with(None).await
    }

    /// A stream whose first request is sent before anything is waited for: etcd says nothing before it.
    pub async fn watches_with(&self, create: Option<WatchCreateRequest>) -> Watches {
        self.watches_by("", create).await
    }

    /// With a token, unless it is empty.
    pub async fn watches_by(&self, token: &str, create: impl Into<Option<WatchCreateRequest>>) -> Watches {
        let (requests, stream) = mpsc::channel(64);
        if let Some(create) = create.into() {
            let request_union = Some(watch_request::RequestUnion::CreateRequest(create));
            requests.send(WatchRequest { request_union }).await.expect("there is room");
        }
        let mut request = tonic::Request::new(ReceiverStream::new(stream));
        if !token.is_empty() {
            request.metadata_mut().insert("token", token.parse().expect("ASCII"));
        }
        let responses = WatchClient::new(self.channel.clone()).watch(request).await;
        Watches { requests, responses: responses.expect("a stream").into_inner() }
    }
}

pub fn revision(header: Option<ResponseHeader>) -> i64 {
    header.expect("a header").revision
}

/// A watch stream.
pub struct Watches {
    pub requests: mpsc::Sender<WatchRequest>,
    pub responses: Streaming<WatchResponse>,
}

impl Watches {
    pub async fn send(&self, request: watch_request::RequestUnion) {
        self.requests.send(WatchRequest { request_union: Some(request) }).await.expect("the stream is open");
    }

    /// Creates a watch; the first response to it.
    pub async fn create(&mut self, create: WatchCreateRequest) -> WatchResponse {
        self.send(watch_request::RequestUnion::CreateRequest(create)).await;
        self.next().await
    }

    /// Watches a key from a revision on; 0: from now on.
    pub async fn key(&mut self, key: &'static str, start_revision: i64) -> WatchResponse {
        let create = WatchCreateRequest { key: key.into(), start_revision, ..WatchCreateRequest::default() };
        self.create(create).await
    }

    /// Watches all keys.
    pub async fn all(&mut self, start_revision: i64) -> WatchResponse {
        self.create(WatchCreateRequest { start_revision, ..everything() }).await
    }

    pub async fn cancel(&self, watch_id: i64) {
        self.send(watch_request::RequestUnion::CancelRequest(WatchCancelRequest { watch_id })).await;
    }

    pub async fn ask_for_progress(&self) {
        self.send(watch_request::RequestUnion::ProgressRequest(WatchProgressRequest {})).await;
    }

    pub async fn next(&mut self) -> WatchResponse {
        self.try_next().await.expect("a response")
    }

    pub async fn try_next(&mut self) -> Result<WatchResponse, Status> {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await.expect("it comes in time");
        next.map(|next| next.expect("the stream goes on"))
    }

    /// Events until there are `count`: revision, key, value.
    pub async fn events(&mut self, count: usize) -> Vec<(i64, String, String)> {
        let mut events = Vec::new();
        while events.len() < count {
            let response = self.next().await;
            assert!(!response.canceled, "{response:?}");
            events.extend(seen(&response));
        }
        events
    }
}

pub fn everything() -> WatchCreateRequest {
    let zero = Bytes::from_static(&[0]);
    WatchCreateRequest { key: zero.clone(), range_end: zero, ..WatchCreateRequest::default() }
}

/// The events of a response: revision, key, value.
pub fn seen(response: &WatchResponse) -> Vec<(i64, String, String)> {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let kvs = response.events.iter().map(|event| event.kv.as_ref().expect("a key"));
    kvs.map(|kv| (kv.mod_revision, text(&kv.key), text(&kv.value))).collect()
}

/// One HTTP request and its answer: status, body. As HTTP/1.0, in which an answer ends with its connection.
pub async fn http(address: SocketAddr, method: &str, path: &str, body: &str) -> (u16, String) {
    http_with(address, method, path, "", body).await
}

/// With a token, unless it is empty.
pub async fn http_with(address: SocketAddr, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let token = if token.is_empty() { String::new() } else { format!("authorization: {token}\r\n") };
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {address}\r\n{token}content-length: {length}");
    let request = format!("{head}\r\n\r\n{body}");
    let answer = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::connect(address).expect("a connection");
        stream.write_all(request.as_bytes()).expect("it is sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        answer
    });
    parsed(&answer.await.expect("no panic"))
}

pub fn parsed(answer: &str) -> (u16, String) {
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let status = head.split(' ').nth(1).expect("a status").parse().expect("a number");
    (status, body.to_owned())
}
