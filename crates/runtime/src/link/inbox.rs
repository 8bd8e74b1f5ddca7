//! What arrived and waits for the host, in two queues: replicas' and clients', so that clients cannot crowd out replicas.
//! Each is bounded in bytes; a connection whose queue is full does not read its socket until the host has taken what is
//! there, and TCP carries the pressure to the sender.

use super::{Incoming, held};
use quorate_core::ids::Peer;
use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Mutex;
use tokio::sync::Notify;

/// What may wait from all replicas together, and from all clients together, in bytes. A connection goes on until it has
/// passed the bound, so each can exceed it by what it read last: 16 KiB, or one frame.
const INBOX_BYTES_MAX: [usize; 2] = [32 << 20, 16 << 20];
/// How much from clients goes into one batch, so that what replicas send meanwhile does not wait behind all of it.
const CLIENT_BATCH_BYTES: usize = 1 << 20;
/// What an event or frame costs beside its body.
const ITEM_OVERHEAD_BYTES: usize = size_of::<Incoming>();

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Replicas = 0,
    Clients = 1,
}

impl Class {
    pub(super) fn of(peer: Peer) -> Self {
        match peer {
            Peer::Replica(_) => Class::Replicas,
            Peer::Client(_) => Class::Clients,
        }
    }
}

/// Both queues.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queues: Mutex<[Queue; 2]>,
    filled: Notify,
    emptied: [Notify; 2],
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Incoming>,
    bytes: usize,
}

impl Inbox {
    /// Adds `items` in order, whether or not there is room: who produces waits for `room` first.
    pub(super) fn push(&self, class: Class, items: impl IntoIterator<Item = Incoming>) {
        let mut queues = held(&self.queues);
        let queue = &mut queues[class as usize];
        for item in items {
            queue.bytes += cost(&item);
            queue.items.push_back(item);
        }
        drop(queues);
        self.filled.notify_one();
    }

    /// Whether the queue is below its bound.
    pub(super) fn has_room(&self, class: Class) -> bool {
        held(&self.queues)[class as usize].bytes < INBOX_BYTES_MAX[class as usize]
    }

    /// Waits until the queue is below its bound.
    pub(super) async fn room(&self, class: Class) {
        while !self.has_room(class) {
            let mut emptied = pin!(self.emptied[class as usize].notified());
            emptied.as_mut().enable(); // from here on no notification is missed
            if !self.has_room(class) {
                emptied.await;
            }
        }
    }

    /// Waits for something, and takes all that replicas sent and, if `with_clients`, up to 1 MiB of what clients sent. Nothing
    /// is lost if the future is dropped.
    pub(super) async fn take(&self, with_clients: bool) -> Vec<Incoming> {
        loop {
            let batch = self.take_ready(with_clients);
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// Takes what is there.
    pub(super) fn take_ready(&self, with_clients: bool) -> Vec<Incoming> {
        let mut queues = held(&self.queues);
        let [replicas, clients] = &mut *queues;
        let mut batch = Vec::from(std::mem::take(&mut replicas.items));
        let freed_replicas = std::mem::take(&mut replicas.bytes) > 0;
        let mut freed_clients = 0;
        while with_clients
            && freed_clients < CLIENT_BATCH_BYTES
            && let Some(item) = clients.items.pop_front()
        {
            freed_clients += cost(&item);
            batch.push(item);
        }
        clients.bytes -= freed_clients;
        drop(queues);
        if freed_replicas {
            self.emptied[Class::Replicas as usize].notify_waiters();
        }
        if freed_clients > 0 {
            self.emptied[Class::Clients as usize].notify_waiters();
        }
        batch
    }
}

fn cost(item: &Incoming) -> usize {
    let body = if let Incoming::Message { body, .. } = item { body.len() } else { 0 };
    ITEM_OVERHEAD_BYTES + body
}
