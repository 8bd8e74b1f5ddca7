//! Clusters on loopback, on ports that the system chooses, and a caller who speaks TLS but then says what it likes.

use bytes::Bytes;
use quorate_core::crypto::ClientKey;
use quorate_core::ids::{ClusterId, Epoch, Peer, ReplicaId};
use quorate_runtime::config::{ClusterConfig, Limits, Member, ReplicaConfig, Timing};
use quorate_runtime::keys::{KeyPair, PublicKey};
use quorate_runtime::link::{ClientLinks, Incoming, LinkStatus, Links, Pace, frame, hello::Hello, listen, tls};
use std::collections::VecDeque;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};

pub const CLUSTER: ClusterId = ClusterId::new(0xaaaa_bbbb << 96);

/// No test waits longer than this for anything.
pub async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(20), future).await.expect("within 20 s")
}

pub fn key() -> KeyPair {
    KeyPair::generate().expect("a key")
}

pub fn replica(id: u8) -> Peer {
    Peer::Replica(ReplicaId::new(id))
}

/// The client that holds this key and has drawn this number.
pub fn client(key: &KeyPair, nonce: u64) -> Peer {
    Peer::Client(client_key(key, nonce).client())
}

pub fn client_key(key: &KeyPair, nonce: u64) -> ClientKey {
    ClientKey { key: key.public().for_statements(), nonce }
}

/// A replica that has not started.
pub struct Seat {
    pub config: ReplicaConfig,
    pub key: KeyPair,
    pub listener: Option<TcpListener>,
}

/// `count` replicas that know each other and `clients`.
pub async fn seats(count: u8, clients: &[PublicKey]) -> Vec<Seat> {
    let mut seats = Vec::new();
    let mut members = Vec::new();
    for id in (0..count).map(ReplicaId::new) {
        let listener = listen("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let key = key();
        members.push(Member { replica: id, address: address.clone(), public_key: key.public() });
        let config = ReplicaConfig {
            cluster: CLUSTER,
            epoch: Epoch::ZERO,
            protocol: "vr".into(),
            machine: "kv".into(),
            replica: id,
            key_file: PathBuf::new(),
            data_dir: PathBuf::new(),
            listen: address,
            clients: clients.to_vec(),
            members: Vec::new(),
            criticality: None,
            tentative_requests: None,
            broker: None,
            limits: Limits::default(),
            timing: Timing::default(),
        };
        seats.push(Seat { config, key, listener: Some(listener) });
    }
    for seat in &mut seats {
        seat.config.members.clone_from(&members);
    }
    seats
}

impl Seat {
    pub async fn start(&mut self) -> Host<Links> {
        self.start_at(Pace::default()).await
    }

    /// Starts, on the same port if it ran before.
    pub async fn start_at(&mut self, pace: Pace) -> Host<Links> {
        let listener = match self.listener.take() {
            Some(listener) => listener,
            None => listen(&self.config.listen).await.expect("the port of before"),
        };
        Host::new(Links::start(&self.config, &self.key, listener, pace).expect("links"))
    }

    pub fn for_clients(&self) -> ClusterConfig {
        let ReplicaConfig { cluster, epoch, ref protocol, ref machine, ref members, .. } = self.config;
        let (protocol, machine, members) = (protocol.clone(), machine.clone(), members.clone());
        let (broker, broker_faults, broker_seed) = (None, None, 0);
        let key_file = PathBuf::new();
        ClusterConfig { cluster, epoch, protocol, machine, key_file, broker, broker_faults, broker_seed, members }
    }
}

pub fn dial(config: &ClusterConfig, key: &KeyPair, nonce: u64) -> Host<ClientLinks> {
    let pace = Pace { refused_retry: Duration::from_millis(300), ..Pace::default() };
    Host::new(ClientLinks::start(config, key, nonce, pace).expect("links"))
}

pub trait Receive {
    fn recv(&mut self) -> impl Future<Output = Vec<Incoming>>;
    fn status(&self) -> LinkStatus;
}

impl Receive for Links {
    async fn recv(&mut self) -> Vec<Incoming> {
        Links::recv(self).await
    }
    fn status(&self) -> LinkStatus {
        Links::status(self)
    }
}

impl Receive for ClientLinks {
    async fn recv(&mut self) -> Vec<Incoming> {
        ClientLinks::recv(self).await
    }
    fn status(&self) -> LinkStatus {
        ClientLinks::status(self)
    }
}

/// Links, read one item at a time.
pub struct Host<L> {
    pub links: L,
    waiting: VecDeque<Incoming>,
}

impl<L: Receive> Host<L> {
    pub fn new(links: L) -> Self {
        Self { links, waiting: VecDeque::new() }
    }

    pub async fn next(&mut self) -> Incoming {
        while self.waiting.is_empty() {
            self.waiting = soon(self.links.recv()).await.into();
        }
        self.waiting.pop_front().expect("not empty")
    }

    /// Skips to the first item that `choose` takes.
    pub async fn find<T>(&mut self, mut choose: impl FnMut(Incoming) -> Option<T>) -> T {
        loop {
            if let Some(found) = choose(self.next().await) {
                return found;
            }
        }
    }

    pub async fn connected(&mut self, peer: Peer) {
        self.find(|item| (item == Incoming::Connected(peer)).then_some(())).await;
    }

    pub async fn disconnected(&mut self, who: Peer) -> String {
        self.find(|item| match item {
            Incoming::Disconnected { peer, reason } if peer == who => Some(reason.to_string()),
            _ => None,
        })
        .await
    }

    pub async fn message(&mut self) -> (Peer, Bytes) {
        self.find(|item| match item {
            Incoming::Message { from, body } => Some((from, body)),
            _ => None,
        })
        .await
    }

    pub async fn dial_error(&mut self) -> String {
        self.find(|item| match item {
            Incoming::DialFailed { error, .. } => Some(error.to_string()),
            _ => None,
        })
        .await
    }

    /// Waits until the status is as wanted, while nobody receives.
    pub async fn until(&self, wanted: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        soon(async {
            loop {
                let status = self.links.status();
                if wanted(&status) {
                    return status;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await
    }
}

/// A caller with a good key: TLS succeeds, the rest is up to the test.
pub async fn raw(key: &KeyPair, to: &Seat) -> TlsStream<TcpStream> {
    let connector = TlsConnector::from(tls::dialer(key, to.key.public()).expect("a TLS configuration"));
    let stream = TcpStream::connect(&to.config.listen).await.expect("a connection");
    soon(connector.connect(tls::nobody(), stream)).await.expect("a handshake")
}

/// Like `raw`, and greeted as the client with this nonce.
pub async fn raw_greeted(key: &KeyPair, to: &Seat, nonce: u64) -> TlsStream<TcpStream> {
    let mut stream = raw(key, to).await;
    let hello = Hello::of_client(CLUSTER, Epoch::ZERO, client_key(key, nonce), "vr");
    stream.write_all(&hello.frame()).await.expect("a greeting");
    let mut header = [0; frame::HEADER_BYTES];
    soon(stream.read_exact(&mut header)).await.expect("an answer");
    assert_eq!(header[4], frame::Kind::Hello as u8);
    let mut body = vec![0; header[0] as usize];
    soon(stream.read_exact(&mut body)).await.expect("an answer");
    stream
}
