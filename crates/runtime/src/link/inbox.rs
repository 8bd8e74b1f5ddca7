//! What arrived and waits for the host: a queue for each replica, and one for all clients, so that nobody crowds out a replica:
//! no client, and no other replica. Each is bounded in bytes; a connection whose queue is full does not read its socket until the
//! host has taken what is there, and TCP carries the pressure to the sender.

use super::{Incoming, held};
use quorate_core::ids::{Peer, ReplicaId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::pin::pin;
use std::sync::Mutex;
use tokio::sync::Notify;

/// What may wait from one replica, in bytes. A connection goes on until it has passed the bound, so it can exceed it by what it read
/// last: 16 KiB, or one frame.
const REPLICA_BYTES_MAX: usize = 8 << 20;
/// The same from all clients together.
const CLIENTS_BYTES_MAX: usize = 16 << 20;
/// How much from each replica, and how much from clients, goes into one batch, so that what others send meanwhile does not wait behind
/// all of it.
const BATCH_BYTES: usize = 1 << 20;
/// What an event or frame costs beside its body.
const ITEM_OVERHEAD_BYTES: usize = size_of::<Incoming>();

/// From whom nothing is taken for now: the host has enough of theirs.
#[derive(Debug, Default)]
pub struct Except {
    /// From no client.
    pub clients: bool,
    /// From none of these replicas.
    pub replicas: BTreeSet<ReplicaId>,
}

/// All queues.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    queues: Mutex<Queues>,
    filled: Notify,
    /// A replica's queue, or that of clients, has been taken from.
    emptied: [Notify; 2],
}

#[derive(Debug, Default)]
struct Queues {
    /// Of members only: nobody else is connected as a replica.
    replicas: BTreeMap<ReplicaId, Queue>,
    clients: Queue,
}

#[derive(Debug, Default)]
struct Queue {
    items: VecDeque<Incoming>,
    bytes: usize,
}

impl Inbox {
    /// Adds `items` of this peer in order, whether or not there is room: who produces waits for `room` first.
    pub(super) fn push(&self, peer: Peer, items: impl IntoIterator<Item = Incoming>) {
        held(&self.queues).of(peer).extend(items);
        self.filled.notify_one();
    }

    /// Whether the queue of this peer is below its bound.
    pub(super) fn has_room(&self, peer: Peer) -> bool {
        let bytes_max = if is_client(peer) { CLIENTS_BYTES_MAX } else { REPLICA_BYTES_MAX };
        held(&self.queues).of(peer).bytes < bytes_max
    }

    /// Waits until the queue of this peer is below its bound.
    pub(super) async fn room(&self, peer: Peer) {
        while !self.has_room(peer) {
            let mut emptied = pin!(self.emptied[usize::from(is_client(peer))].notified());
            emptied.as_mut().enable(); // from here on no notification is missed
            if !self.has_room(peer) {
                emptied.await;
            }
        }
    }

    /// Waits for something, and takes up to 1 MiB of what each replica sent, and of what clients sent, but for those excepted. Nothing
    /// is lost if the future is dropped.
    pub(super) async fn take(&self, except: &Except) -> Vec<Incoming> {
        loop {
            let batch = self.take_ready(except);
            if !batch.is_empty() {
                return batch;
            }
            self.filled.notified().await;
        }
    }

    /// Takes what is there.
    pub(super) fn take_ready(&self, except: &Except) -> Vec<Incoming> {
        let mut batch = Vec::new();
        let mut queues = held(&self.queues);
        for (_, queue) in queues.replicas.iter_mut().filter(|(replica, _)| !except.replicas.contains(replica)) {
            queue.take(&mut batch);
        }
        let from_replicas = batch.len();
        if !except.clients {
            queues.clients.take(&mut batch);
        }
        drop(queues);
        if from_replicas > 0 {
            self.emptied[0].notify_waiters();
        }
        if batch.len() > from_replicas {
            self.emptied[1].notify_waiters();
        }
        batch
    }
}

impl Queues {
    fn of(&mut self, peer: Peer) -> &mut Queue {
        match peer {
            Peer::Replica(replica) => self.replicas.entry(replica).or_default(),
            Peer::Client(_) => &mut self.clients,
        }
    }
}

impl Queue {
    fn extend(&mut self, items: impl IntoIterator<Item = Incoming>) {
        for item in items {
            self.bytes += cost(&item);
            self.items.push_back(item);
        }
    }

    /// Moves the first ones to `batch`, until they are [`BATCH_BYTES`].
    fn take(&mut self, batch: &mut Vec<Incoming>) {
        let rest = self.bytes.saturating_sub(BATCH_BYTES);
        while self.bytes > rest
            && let Some(item) = self.items.pop_front()
        {
            self.bytes -= cost(&item);
            batch.push(item);
        }
    }
}

const fn is_client(peer: Peer) -> bool {
    matches!(peer, Peer::Client(_))
}

fn cost(item: &Incoming) -> usize {
    let body = if let Incoming::Message { body, .. } = item { body.len() } else { 0 };
    ITEM_OVERHEAD_BYTES + body
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use quorate_core::ids::ClientId;

    fn replica(id: u8) -> Peer {
        Peer::Replica(ReplicaId::new(id))
    }

    fn word(from: Peer, bytes: usize) -> [Incoming; 1] {
        [Incoming::Message { from, body: Bytes::from(vec![7; bytes]) }]
    }

    fn senders(batch: &[Incoming]) -> Vec<Peer> {
        batch.iter().map(|it| if let Incoming::Message { from, .. } = it { *from } else { unreachable!() }).collect()
    }

    #[test]
    fn who_floods_has_no_room_and_everybody_else_has() {
        let inbox = Inbox::default();
        let client = Peer::Client(ClientId::new(1));
        while inbox.has_room(replica(3)) {
            inbox.push(replica(3), word(replica(3), 64 << 10));
        }
        assert!(inbox.has_room(replica(1)) && inbox.has_room(client));
        while inbox.has_room(client) {
            inbox.push(client, word(client, 64 << 10));
        }
        assert!(inbox.has_room(replica(1)));
    }

    #[test]
    fn what_others_send_waits_behind_one_lot_of_a_flood() {
        let inbox = Inbox::default();
        (0..64).for_each(|_| inbox.push(replica(0), word(replica(0), 64 << 10)));
        inbox.push(replica(1), word(replica(1), 1));
        let batch = senders(&inbox.take_ready(&Except::default()));
        assert_eq!(batch.last(), Some(&replica(1)));
        assert!(batch.len() < 20, "{}", batch.len());
        let rest: usize =
            std::iter::from_fn(|| Some(inbox.take_ready(&Except::default()).len())).take_while(|it| *it > 0).sum();
        assert_eq!(rest + batch.len(), 65, "nothing is lost");
        assert_eq!(held(&inbox.queues).of(replica(0)).bytes, 0);
    }

    #[test]
    fn what_is_not_wanted_now_waits() {
        let inbox = Inbox::default();
        let client = Peer::Client(ClientId::new(1));
        for peer in [replica(1), replica(2), client] {
            inbox.push(peer, word(peer, 1));
        }
        let except = Except { clients: true, replicas: BTreeSet::from([ReplicaId::new(1)]) };
        assert_eq!(senders(&inbox.take_ready(&except)), [replica(2)]);
        assert_eq!(senders(&inbox.take_ready(&except)), []);
        assert_eq!(senders(&inbox.take_ready(&Except::default())), [replica(1), client]);
    }

    #[test]
    fn a_frame_longer_than_a_lot_is_taken() {
        let inbox = Inbox::default();
        inbox.push(replica(1), word(replica(1), 3 << 20));
        inbox.push(replica(1), word(replica(1), 1));
        assert_eq!(inbox.take_ready(&Except::default()).len(), 1);
        assert_eq!(inbox.take_ready(&Except::default()).len(), 1);
    }
}
