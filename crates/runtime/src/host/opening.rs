//! The threads that open frames: they decode them and check their signatures, which takes longer than the turn that follows.
//! Only for protocols that sign. All that comes from one peer goes through one thread, so it stays in its order.

use super::HostError;
use super::thread::{Thread, Threads};
use bytes::Bytes;
use quorate_core::ids::Peer;
use quorate_core::node::{Opened, Opener, Refused};
use quorate_core::protocol::Protocol;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::mpsc;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// Threads at most: a replica has other work for its cores, too.
const THREADS_MAX: usize = 4;
/// Bytes of frames that are being opened; beyond, the host does not read its links.
const OPENING_BYTES_MAX: usize = 32 << 20;
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
    Open(Peer, Bytes),
    Disconnected(Peer),
}

/// The threads, and what is with them.
pub(super) struct Openers<P: Protocol> {
    threads: Vec<mpsc::Sender<Order>>,
    seen: Option<UnboundedReceiver<(usize, Seen<P>)>>,
    bytes: usize,
}

impl<P: Protocol> Openers<P> {
    /// No threads: the node opens frames itself.
    pub(super) const fn none() -> Self {
        Self { threads: Vec::new(), seen: None, bytes: 0 }
    }

    /// One thread for each core, up to [`THREADS_MAX`].
    pub(super) fn start(opener: &Opener<P>, threads: &Threads) -> Result<Self, HostError> {
        let count = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
        let (sender, seen) = unbounded_channel();
        let mut started = Vec::with_capacity(count);
        for _ in 0..count {
            let (orders, inbox) = mpsc::channel();
            let (opener, sender) = (opener.clone(), sender.clone());
            let body = move || {
                run(&opener, &inbox, &sender);
                Ok(())
            };
            threads.spawn(Thread::Opener, body).map_err(HostError::Thread)?;
            started.push(orders);
        }
        Ok(Self { threads: started, seen: Some(seen), bytes: 0 })
    }

    /// Whether more frames may be read from the links.
    pub(super) const fn have_room(&self) -> bool {
        self.bytes < OPENING_BYTES_MAX
    }

    /// Gives a frame to its thread; gives it back if there are none.
    pub(super) fn open(&mut self, from: Peer, bytes: Bytes) -> Option<Bytes> {
        let Some(thread) = self.thread(from) else { return Some(bytes) };
        let cost = cost(&bytes);
        // A thread that has ended says so among the host's events.
        if thread.send(Order::Open(from, bytes)).is_ok() {
            self.bytes += cost;
        }
        None
    }

    /// Lets the end of a connection follow its frames; false if there are no threads.
    pub(super) fn disconnected(&self, peer: Peer) -> bool {
        self.thread(peer).is_some_and(|thread| thread.send(Order::Disconnected(peer)).is_ok())
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

    fn out(&mut self, (cost, seen): (usize, Seen<P>)) -> Seen<P> {
        self.bytes -= cost;
        seen
    }

    fn thread(&self, peer: Peer) -> Option<&mpsc::Sender<Order>> {
        let mut hasher = DefaultHasher::new();
        peer.hash(&mut hasher);
        let index = hasher.finish().checked_rem(self.threads.len() as u64)?;
        self.threads.get(usize::try_from(index).ok()?)
    }
}

fn cost(bytes: &Bytes) -> usize {
    bytes.len() + FRAME_OVERHEAD_BYTES
}

fn run<P: Protocol>(opener: &Opener<P>, orders: &mpsc::Receiver<Order>, out: &UnboundedSender<(usize, Seen<P>)>) {
    while let Ok(order) = orders.recv() {
        let seen = match order {
            Order::Open(from, bytes) => (cost(&bytes), Seen::Frame(Box::new(opener.open(from, &bytes)))),
            Order::Disconnected(peer) => (0, Seen::Disconnected(peer)),
        };
        if out.send(seen).is_err() {
            return;
        }
    }
}
