//! What all tasks of a process's links share: who may connect, which connection leads to whom, what waits, what happened.

use super::hello::Hello;
use super::inbox::Inbox;
use super::outbox::Outbox;
use super::status::{CloseReason, DialError, Handshakes, LinkStatus, ReplicaStatus, Traffic};
use super::{Incoming, Pace, Sent, held};
use crate::config::{Limits, Member};
use crate::keys::PublicKey;
use bytes::Bytes;
use quorate_core::ids::{ClientId, Peer, ReplicaId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// The state behind `Links` and `ClientLinks`.
#[derive(Debug)]
pub(super) struct Hub {
    /// What this process says first on every connection.
    pub(super) hello: Hello,
    pub(super) limits: Limits,
    pub(super) pace: Pace,
    pub(super) inbox: Inbox,
    pub(super) handshakes: Handshakes,
    replicas: BTreeMap<ReplicaId, Remote>,
    client_keys: BTreeSet<PublicKey>,
    clients: Mutex<BTreeMap<ClientId, ClientLane>>,
    client_traffic: Arc<Traffic>,
    /// Replicas that are cut off on purpose, a bit each.
    cut: AtomicU64,
}

/// Another replica, connected or not.
#[derive(Debug)]
pub(super) struct Remote {
    pub(super) member: Member,
    lane: Mutex<Option<Arc<Lane>>>,
    traffic: Arc<Traffic>,
    dial_error: Mutex<Option<DialError>>,
}

/// One live connection.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) peer: Peer,
    pub(super) outbox: Outbox,
    pub(super) traffic: Arc<Traffic>,
}

#[derive(Debug)]
struct ClientLane {
    lane: Arc<Lane>,
    key: PublicKey,
}

impl Hub {
    /// A hub without connections. `members` may include this process itself; it is never connected to.
    pub(super) fn new(hello: Hello, members: &[Member], clients: &[PublicKey], limits: Limits, pace: Pace) -> Self {
        let others = members.iter().filter(|member| Peer::Replica(member.replica) != hello.role);
        let replicas = others.map(|member| (member.replica, Remote::new(member.clone()))).collect();
        let frame_bytes_max = u32::MAX as usize; // what a header can say
        let limits = Limits {
            max_frame_bytes: limits.max_frame_bytes.min(frame_bytes_max),
            client_max_frame_bytes: limits.client_max_frame_bytes.min(frame_bytes_max),
            ..limits
        };
        Self {
            hello,
            limits,
            pace,
            inbox: Inbox::default(),
            handshakes: Handshakes::default(),
            replicas,
            client_keys: clients.iter().copied().collect(),
            clients: Mutex::default(),
            client_traffic: Arc::default(),
            cut: AtomicU64::default(),
        }
    }

    /// Cuts these replicas off, and no others.
    pub(super) fn cut(&self, replicas: &[ReplicaId]) {
        let bits = replicas.iter().fold(0, |bits, replica| bits | bit(*replica));
        self.cut.store(bits, Ordering::Relaxed);
    }

    /// Whether nothing is to pass to and from this peer.
    pub(super) fn is_cut(&self, peer: Peer) -> bool {
        matches!(peer, Peer::Replica(replica) if self.cut.load(Ordering::Relaxed) & bit(replica) != 0)
    }

    pub(super) fn replicas(&self) -> impl Iterator<Item = &Remote> {
        self.replicas.values()
    }

    pub(super) fn replica(&self, id: ReplicaId) -> Option<&Remote> {
        self.replicas.get(&id)
    }

    /// All keys that may open a connection to this process.
    pub(super) fn known_keys(&self) -> impl Iterator<Item = PublicKey> {
        self.replicas().map(|remote| remote.member.public_key).chain(self.client_keys.iter().copied())
    }

    /// The longest body that this process may send, and that it takes from `peer`.
    pub(super) fn frame_bytes_max(&self, sender: Peer) -> usize {
        match sender {
            Peer::Replica(_) => self.limits.max_frame_bytes,
            Peer::Client(_) => self.limits.client_max_frame_bytes,
        }
    }

    /// Queues a body for `to` and counts what happens to it.
    pub(super) fn send(&self, to: Peer, body: Bytes) -> Sent {
        let Some(traffic) = self.traffic(to) else {
            return Sent::Unconnected;
        };
        let too_long = body.len() > self.frame_bytes_max(self.hello.role);
        let sent = match self.lane(to) {
            _ if too_long => Sent::TooLong,
            _ if self.is_cut(to) => Sent::Unconnected,
            None => Sent::Unconnected,
            Some(lane) => {
                let sent = lane.outbox.push(body);
                if sent == Sent::Full && matches!(to, Peer::Client(_)) {
                    lane.outbox.close(CloseReason::TooSlow);
                }
                sent
            }
        };
        match sent {
            Sent::Queued => {}
            Sent::Unconnected => traffic.dropped_unconnected.add(1),
            Sent::Full | Sent::TooLong => traffic.dropped_full.add(1),
        }
        sent
    }

    /// Makes a connection the one that leads to `peer`, in place of an older one. `key` was proved by TLS. An error is
    /// the sentence for the other side.
    pub(super) fn admit(&self, peer: Peer, key: PublicKey) -> Result<Arc<Lane>, String> {
        let (lane, older) = match peer {
            Peer::Replica(id) => self.admit_replica(id, key)?,
            Peer::Client(id) => self.admit_client(id, key)?,
        };
        lane.traffic.connects.add(1);
        if let Some(older) = older {
            let why = if older.peer == peer { CloseReason::Replaced } else { CloseReason::CrowdedOut };
            lane.traffic.dropped_unconnected.add(older.outbox.abandon(why.clone()));
            let (peer, reason) = (older.peer, older.outbox.closed().unwrap_or(why));
            self.inbox.push(peer, [Incoming::Disconnected { peer, reason }]);
        }
        self.inbox.push(peer, [Incoming::Connected(peer)]);
        Ok(lane)
    }

    /// The end of a connection: what it did not write is lost.
    pub(super) fn leave(&self, lane: &Arc<Lane>, reason: CloseReason) {
        if let CloseReason::Malformed(_) = reason {
            lane.traffic.malformed.add(1);
        }
        lane.traffic.dropped_unconnected.add(lane.outbox.abandon(reason.clone()));
        if self.remove(lane) {
            let peer = lane.peer;
            self.inbox.push(peer, [Incoming::Disconnected { peer, reason }]);
        }
    }

    /// Closes everything: nothing can be sent any more.
    pub(super) fn shut_down(&self) {
        let replicas = self.replicas().filter_map(|remote| held(&remote.lane).take());
        let clients = std::mem::take(&mut *held(&self.clients));
        for lane in replicas.chain(clients.into_values().map(|client| client.lane)) {
            lane.outbox.abandon(CloseReason::ShutDown);
        }
    }

    /// Remembers why `replica` could not be dialled, and tells the host if that is news.
    pub(super) fn dial_failed(&self, replica: ReplicaId, error: DialError) {
        let Some(remote) = self.replicas.get(&replica) else {
            return;
        };
        if let DialError::WrongKey { .. } = error {
            self.handshakes.unknown_key.add(1);
        }
        let mut last = held(&remote.dial_error);
        if last.as_ref() != Some(&error) {
            *last = Some(error.clone());
            self.inbox.push(Peer::Replica(replica), [Incoming::DialFailed { replica, error }]);
        }
    }

    pub(super) fn status(&self) -> LinkStatus {
        LinkStatus {
            replicas: self.replicas().map(Remote::status).collect(),
            clients: held(&self.clients).keys().copied().collect(),
            client_traffic: self.client_traffic.status(),
            handshakes: self.handshakes.status(),
        }
    }

    fn admit_replica(&self, id: ReplicaId, key: PublicKey) -> Result<(Arc<Lane>, Option<Arc<Lane>>), String> {
        let remote = self.replicas.get(&id).filter(|remote| remote.member.public_key == key);
        let remote = remote.ok_or_else(|| format!("your key is not the one that my members list has for {id}"))?;
        let lane = Lane::new(Peer::Replica(id), self.limits.peer_outbox_max_bytes, &remote.traffic);
        *held(&remote.dial_error) = None;
        let older = held(&remote.lane).replace(lane.clone());
        Ok((lane, older))
    }

    fn admit_client(&self, id: ClientId, key: PublicKey) -> Result<(Arc<Lane>, Option<Arc<Lane>>), String> {
        if !self.client_keys.contains(&key) {
            return Err("your key is a replica's, not a client's".into());
        }
        let mut clients = held(&self.clients);
        let is_full = clients.len() >= self.limits.clients_max && !clients.contains_key(&id);
        let crowded = if is_full { Some(gives_way_to(key, &clients).ok_or_else(|| self.is_full())?) } else { None };
        let lane = Lane::new(Peer::Client(id), self.limits.client_outbox_max_bytes, &self.client_traffic);
        let older = clients.insert(id, ClientLane { lane: lane.clone(), key });
        let crowded = crowded.and_then(|crowded| clients.remove(&crowded));
        Ok((lane, older.or(crowded).map(|older| older.lane)))
    }

    fn is_full(&self) -> String {
        format!("this replica has its {} clients already", self.limits.clients_max)
    }

    /// Whether `lane` was the one that led to its peer; it no longer is.
    fn remove(&self, lane: &Arc<Lane>) -> bool {
        match lane.peer {
            Peer::Replica(id) => self
                .replicas
                .get(&id)
                .is_some_and(|remote| held(&remote.lane).take_if(|current| Arc::ptr_eq(current, lane)).is_some()),
            Peer::Client(id) => {
                let mut clients = held(&self.clients);
                let current = clients.get(&id).is_some_and(|current| Arc::ptr_eq(&current.lane, lane));
                current && clients.remove(&id).is_some()
            }
        }
    }

    fn lane(&self, peer: Peer) -> Option<Arc<Lane>> {
        match peer {
            Peer::Replica(id) => held(&self.replicas.get(&id)?.lane).clone(),
            Peer::Client(id) => held(&self.clients).get(&id).map(|client| client.lane.clone()),
        }
    }

    fn traffic(&self, peer: Peer) -> Option<&Traffic> {
        match peer {
            Peer::Replica(id) => self.replicas.get(&id).map(|remote| &*remote.traffic),
            Peer::Client(_) => Some(&self.client_traffic),
        }
    }
}

/// Which client leaves when all places are taken and one with this key comes: one of the key that has most, if it has more even then.
/// Ids are free, keys are not: nobody can take all places with one key.
fn gives_way_to(key: PublicKey, clients: &BTreeMap<ClientId, ClientLane>) -> Option<ClientId> {
    let mut of_keys: BTreeMap<PublicKey, (usize, ClientId)> = BTreeMap::new();
    for (id, client) in clients {
        let (count, last) = of_keys.entry(client.key).or_insert((0, *id));
        (*count, *last) = (*count + 1, *id);
    }
    let own = of_keys.get(&key).map_or(0, |(count, _)| *count);
    let (most, last) = of_keys.into_values().max()?;
    (most > own + 1).then_some(last)
}

/// A replica's bit. There are at most 15 replicas; a number beyond 63 is nobody's.
fn bit(replica: ReplicaId) -> u64 {
    1_u64.checked_shl(u32::from(replica.get())).unwrap_or(0)
}

impl Remote {
    fn new(member: Member) -> Self {
        Self { member, lane: Mutex::default(), traffic: Arc::default(), dial_error: Mutex::default() }
    }

    fn status(&self) -> ReplicaStatus {
        let lane = held(&self.lane).clone();
        ReplicaStatus {
            replica: self.member.replica,
            address: self.member.address.clone(),
            connected: lane.is_some(),
            outbox_bytes: lane.map_or(0, |lane| lane.outbox.bytes()),
            dial_error: held(&self.dial_error).clone(),
            traffic: self.traffic.status(),
        }
    }
}

impl Lane {
    fn new(peer: Peer, outbox_bytes_max: usize, traffic: &Arc<Traffic>) -> Arc<Self> {
        Arc::new(Self { peer, outbox: Outbox::new(outbox_bytes_max), traffic: traffic.clone() })
    }
}
