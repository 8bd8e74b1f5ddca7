//! The threads that open frames: they decode them and check their signatures, which takes longer than the turn that follows.
//! Only for protocols that sign. All that comes from one peer goes through one thread, so it stays in its order; the peers of
//! a thread take turns. A thread opens together what waits, since that is cheaper than one by one.

use super::HostError;
use super::fair::Fair;
use super::thread::{Thread, Threads};
use crate::link::Except;
use bytes::Bytes;
use quorate_core::ids::{Peer, ReplicaId};
use quorate_core::node::{Opened, Opener, Refused};
use quorate_core::protocol::Protocol;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Threads at most: a replica has other work for its cores, too.
const THREADS_MAX: usize = 4;
/// Bytes of frames that are being opened, of one replica; beyond, the host reads what others send, and this one waits.
const OPENING_BYTES_MAX: usize = 8 << 20;
/// Of all clients; beyond, clients wait.
const CLIENTS_OPENING_BYTES_MAX: usize = 4 << 20;
/// Frames that are opened together at most.
const TOGETHER_MAX: usize = 32;
/// What a frame costs beside its bytes.
const FRAME_OVERHEAD_BYTES: usize = 64;

/// What came out.
pub(super) enum Seen<P: Protocol> {
    /// A frame, opened or refused.
    Frame(Box<Result<Opened<P>, Refused>>),
    /// All frames of this peer are out, and it is gone.
    Disconnected(Peer),
}

enum Order {
    Open(Bytes),
    Disconnected,
}

/// The threads, and what is with them.
pub(super) struct Openers<P: Protocol> {
    threads: Vec<Arc<Fair<Order>>>,
    seen: Option<UnboundedReceiver<(Peer, usize, Seen<P>)>>,
    bytes: Bytewise,
}

impl<P: Protocol> Drop for Openers<P> {
    fn drop(&mut self) {
        self.threads.iter().for_each(|thread| thread.close());
    }
}

impl<P: Protocol> Openers<P> {
    /// No threads: the node opens frames itself.
    pub(super) fn none() -> Self {
        Self { threads: Vec::new(), seen: None, bytes: Bytewise::default() }
    }

    /// One thread for each core, up to [`THREADS_MAX`].
    pub(super) fn start(opener: &Opener<P>, threads: &Threads) -> Result<Self, HostError> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (sender, seen) = unbounded_channel();
        let mut started = Vec::with_capacity(count);
        for _ in 0..count {
            let orders = Arc::new(Fair::default());
            let (opener, sender, inbox) = (opener.clone(), sender.clone(), orders.clone());
            let body = move || {
                run(&opener, &inbox, &sender);
                Ok(())
            };
            threads.spawn(Thread::Opener, body).map_err(HostError::Thread)?;
            started.push(orders);
        }
        Ok(Self { threads: started, seen: Some(seen), bytes: Bytewise::default() })
    }

    /// Whose frames may not be read from the links for now.
    pub(super) fn have_enough_of(&self) -> Except {
        self.bytes.enough_of()
    }

    /// Gives a frame to its thread; gives it back if there are none.
    pub(super) fn open(&mut self, from: Peer, bytes: Bytes) -> Option<Bytes> {
        let Some(thread) = self.thread(from) else { return Some(bytes) };
        let cost = cost(&bytes);
        thread.push(from, Order::Open(bytes));
        *self.bytes.of(from) += cost;
        None
    }

    /// Lets the end of a connection follow its frames; false if there are no threads.
    pub(super) fn disconnected(&self, peer: Peer) -> bool {
        let thread = self.thread(peer);
        thread.inspect(|thread| thread.push(peer, Order::Disconnected)).is_some()
    }

    /// The next thing that came out. Never ready without threads.
    pub(super) async fn recv(&mut self) -> Seen<P> {
        let next = match &mut self.seen {
            Some(seen) => seen.recv().await,
            None => None,
        };
        match next {
            Some(next) => self.out(next),
            None => std::future::pending().await, // threads that have ended say so among the host's events
        }
    }

    /// What has come out already.
    pub(super) fn try_recv(&mut self) -> Option<Seen<P>> {
        let next = self.seen.as_mut()?.try_recv().ok()?;
        Some(self.out(next))
    }

    fn out(&mut self, (from, cost, seen): (Peer, usize, Seen<P>)) -> Seen<P> {
        *self.bytes.of(from) -= cost;
        seen
    }

    fn thread(&self, peer: Peer) -> Option<&Arc<Fair<Order>>> {
        let mut hasher = DefaultHasher::new();
        peer.hash(&mut hasher);
        let index = hasher.finish().checked_rem(self.threads.len() as u64)?;
        self.threads.get(usize::try_from(index).ok()?)
    }
}

/// How many bytes are with the threads.
#[derive(Debug, Default)]
struct Bytewise {
    /// Of each replica.
    replicas: BTreeMap<ReplicaId, usize>,
    /// Of all clients.
    clients: usize,
}

impl Bytewise {
    fn of(&mut self, peer: Peer) -> &mut usize {
        match peer {
            Peer::Replica(replica) => self.replicas.entry(replica).or_default(),
            Peer::Client(_) => &mut self.clients,
        }
    }

    fn enough_of(&self) -> Except {
        let full = self.replicas.iter().filter(|(_, bytes)| **bytes >= OPENING_BYTES_MAX);
        Except {
            clients: self.clients >= CLIENTS_OPENING_BYTES_MAX,
            replicas: full.map(|(replica, _)| *replica).collect(),
        }
    }
}

fn cost(bytes: &Bytes) -> usize {
    bytes.len() + FRAME_OVERHEAD_BYTES
}

fn run<P: Protocol>(opener: &Opener<P>, orders: &Fair<Order>, out: &UnboundedSender<(Peer, usize, Seen<P>)>) {
    loop {
        let orders = orders.take(TOGETHER_MAX);
        if orders.is_empty() {
            return;
        }
        let frame = |(peer, order): &(Peer, Order)| match order {
            Order::Open(bytes) => Some((*peer, bytes.clone())),
            Order::Disconnected => None,
        };
        let frames: Vec<(Peer, Bytes)> = orders.iter().filter_map(frame).collect();
        let mut opened = opener.open_all(&frames).into_iter();
        for (peer, order) in orders {
            let seen = match (order, &mut opened) {
                (Order::Disconnected, _) => Some((0, Seen::Disconnected(peer))),
                (Order::Open(bytes), opened) => {
                    opened.next().map(|opened| (cost(&bytes), Seen::Frame(Box::new(opened))))
                }
            };
            if seen.is_some_and(|(cost, seen)| out.send((peer, cost, seen)).is_err()) {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::ClientId;
    use std::collections::BTreeSet;

    #[test]
    fn who_floods_is_not_read_and_everybody_else_is() {
        let mut bytes = Bytewise::default();
        *bytes.of(Peer::Replica(ReplicaId::new(3))) += OPENING_BYTES_MAX;
        *bytes.of(Peer::Replica(ReplicaId::new(1))) += OPENING_BYTES_MAX - 1;
        let enough = bytes.enough_of();
        assert_eq!((enough.clients, enough.replicas), (false, BTreeSet::from([ReplicaId::new(3)])));
        *bytes.of(Peer::Client(ClientId::new(1))) += CLIENTS_OPENING_BYTES_MAX;
        assert!(bytes.enough_of().clients);
        *bytes.of(Peer::Replica(ReplicaId::new(3))) -= 1;
        assert_eq!(bytes.enough_of().replicas, BTreeSet::new());
    }
}
