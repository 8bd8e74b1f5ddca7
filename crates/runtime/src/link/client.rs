//! A client's links: a connection to every replica.

use super::dial::keep_connected;
use super::hello::Hello;
use super::hub::Hub;
use super::inbox::Except;
use super::status::LinkStatus;
use super::{Incoming, LinkError, LinkHandle, Pace, Sent, tls};
use crate::config::{ClusterConfig, Limits};
use crate::keys::KeyPair;
use bytes::Bytes;
use quorate_core::crypto::ClientKey;
use quorate_core::ids::{Peer, ReplicaId};
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;

/// All links of a client. Dropping it closes them.
#[derive(Debug)]
pub struct ClientLinks {
    handle: LinkHandle,
    _tasks: JoinSet<()>,
}

impl ClientLinks {
    /// Starts dialling every member, on the runtime that this is called in. Where replies go ([`ClientKey::client`]) follows from the key
    /// and `nonce`, which is drawn by each process and never shared by two that run at a time. The only error is a key that the
    /// TLS library does not take.
    pub fn start(config: &ClusterConfig, key: &KeyPair, nonce: u64, pace: Pace) -> Result<Self, LinkError> {
        let client = ClientKey { key: key.public().for_statements(), nonce };
        let hello = Hello::of_client(config.cluster, config.epoch, client, &config.protocol);
        let hub = Arc::new(Hub::new(hello, &config.members, &[], Limits::default(), pace));
        let mut tasks = JoinSet::new();
        for member in hub.replicas().map(|remote| &remote.member) {
            let connector = TlsConnector::from(tls::dialer(key, member.public_key)?);
            tasks.spawn(keep_connected(hub.clone(), member.replica, connector));
        }
        Ok(Self { handle: LinkHandle { hub }, _tasks: tasks })
    }

    /// Waits for something to happen, and returns all that has. A cluster that cannot be reached, or that refuses this
    /// client, says so here as `DialFailed`. Never empty. Nothing is lost if the future is dropped.
    pub async fn recv(&mut self) -> Vec<Incoming> {
        self.handle.hub.inbox.take(&Except::default()).await
    }

    /// Queues `body` for `to`; it is written when this task next waits.
    pub fn send(&self, to: ReplicaId, body: Bytes) -> Sent {
        self.handle.send(Peer::Replica(to), body)
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

impl Drop for ClientLinks {
    fn drop(&mut self) {
        self.handle.hub.shut_down(); // the tasks are aborted with the set that holds them
    }
}
