//! A replica's links: one listener, and a connection for each peer.

use super::accept::accept_all;
use super::dial::keep_connected;
use super::hello::Hello;
use super::hub::Hub;
use super::inbox::Except;
use super::status::LinkStatus;
use super::{Incoming, LinkError, Pace, Sent, tls};
use crate::config::ReplicaConfig;
use crate::keys::KeyPair;
use bytes::Bytes;
use quorate_core::ids::{ClientId, Peer, ReplicaId};
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsConnector};

/// All links of a replica. Dropping it closes them.
#[derive(Debug)]
pub struct Links {
    handle: LinkHandle,
    _tasks: JoinSet<()>,
}

/// Sends and counts; a cheap copy for whoever does not receive. It does not keep links alive.
#[derive(Clone, Debug)]
pub struct LinkHandle {
    pub(super) hub: Arc<Hub>,
}

impl Links {
    /// Starts listening and dialling, on the runtime that this is called in. `config` has been checked, `listener` comes
    /// from `listen`. The only error is a key that the TLS library does not take.
    pub fn start(config: &ReplicaConfig, key: &KeyPair, listener: TcpListener, pace: Pace) -> Result<Self, LinkError> {
        let hello = Hello::new(config.cluster, config.epoch, Peer::Replica(config.replica), &config.protocol);
        let hub = Arc::new(Hub::new(hello, &config.members, &config.clients, config.limits, pace));
        let acceptor = TlsAcceptor::from(tls::acceptor(key, hub.known_keys())?);
        let mut tasks = JoinSet::new();
        for member in hub.replicas().map(|remote| &remote.member) {
            if member.replica > config.replica {
                let connector = TlsConnector::from(tls::dialer(key, member.public_key)?);
                tasks.spawn(keep_connected(hub.clone(), member.replica, connector));
            }
        }
        tasks.spawn(accept_all(hub.clone(), listener, acceptor));
        Ok(Self { handle: LinkHandle { hub }, _tasks: tasks })
    }

    /// Waits for something to happen, and returns what has: up to 1 MiB from each replica, then up to 1 MiB from clients.
    /// Never empty. Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Vec<Incoming> {
        self.recv_except(&Except::default()).await
    }

    /// As `Links::recv`; what those excepted send goes on waiting.
    pub async fn recv_except(&mut self, except: &Except) -> Vec<Incoming> {
        self.handle.hub.inbox.take(except).await
    }

    /// What has happened already; empty if nothing has. See `Links::recv_except`.
    pub fn try_recv_except(&mut self, except: &Except) -> Vec<Incoming> {
        self.handle.hub.inbox.take_ready(except)
    }

    /// Queues `body` for `to`; it is written when this task next waits.
    pub fn send(&self, to: Peer, body: Bytes) -> Sent {
        self.handle.send(to, body)
    }

    /// Connections and counters.
    pub fn status(&self) -> LinkStatus {
        self.handle.status()
    }

    /// A handle that sends and counts.
    pub fn handle(&self) -> LinkHandle {
        self.handle.clone()
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        self.handle.hub.shut_down(); // the tasks are aborted with the set that holds them
    }
}

impl LinkHandle {
    /// Queues `body` for `to`; see `Links::send`.
    pub fn send(&self, to: Peer, body: Bytes) -> Sent {
        self.hub.send(to, body)
    }

    /// Takes what a broker brings for this replica, in its turn among what clients send: waits while they have no room.
    pub(crate) async fn bring(&self, body: Bytes) {
        if body.len() > self.hub.limits.client_max_frame_bytes {
            return; // no client may send so much
        }
        let from = Peer::Client(ClientId::BROKER);
        self.hub.inbox.room(from).await;
        self.hub.inbox.push(from, [Incoming::Message { from, body }]);
    }

    /// Drops, from now on, all messages to and from these replicas, and to and from no others: a partition for
    /// demonstrations and tests. Connections stay, as they do while a real network drops packets; nobody is told.
    pub fn cut(&self, replicas: &[ReplicaId]) {
        self.hub.cut(replicas);
    }

    /// Connections and counters.
    pub fn status(&self) -> LinkStatus {
        self.hub.status()
    }
}
