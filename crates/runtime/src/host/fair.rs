//! What waits for a thread, in turns: replicas and clients alternate, and so do the peers of either kind. Whatever one of them
//! sends, nobody else waits behind it. What comes from one peer stays in its order.

use crate::link::held;
use quorate_core::ids::Peer;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::{Condvar, Mutex, PoisonError};

/// Who sends to a thread.
#[derive(Debug)]
pub(super) struct Fair<T> {
    waiting: Mutex<Waiting<T>>,
    filled: Condvar,
}

#[derive(Debug)]
struct Waiting<T> {
    /// Of replicas, of clients.
    kinds: [Turns<T>; 2],
    /// Whose turn it is.
    clients_next: bool,
    closed: bool,
}

/// Peers of one kind, and whose turn it was last.
#[derive(Debug)]
struct Turns<T> {
    queues: BTreeMap<Peer, VecDeque<T>>,
    last: Option<Peer>,
}

impl<T> Default for Turns<T> {
    fn default() -> Self {
        Self { queues: BTreeMap::new(), last: None }
    }
}

impl<T> Default for Fair<T> {
    fn default() -> Self {
        let waiting = Waiting { kinds: [Turns::default(), Turns::default()], clients_next: false, closed: false };
        Self { waiting: Mutex::new(waiting), filled: Condvar::new() }
    }
}

impl<T> Fair<T> {
    /// One more of this peer.
    pub(super) fn push(&self, peer: Peer, item: T) {
        let mut waiting = held(&self.waiting);
        let [replicas, clients] = &mut waiting.kinds;
        let turns = if matches!(peer, Peer::Client(_)) { clients } else { replicas };
        turns.queues.entry(peer).or_default().push_back(item);
        drop(waiting);
        self.filled.notify_one();
    }

    /// No more will come.
    pub(super) fn close(&self) {
        held(&self.waiting).closed = true;
        self.filled.notify_all();
    }

    /// Waits for something, and takes as many as there are, up to `count`; nothing if there will never be anything.
    pub(super) fn take(&self, count: usize) -> Vec<(Peer, T)> {
        let mut waiting = held(&self.waiting);
        loop {
            let taken: Vec<_> = std::iter::from_fn(|| waiting.next()).take(count).collect();
            if !taken.is_empty() || waiting.closed {
                return taken;
            }
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl<T> Waiting<T> {
    fn next(&mut self) -> Option<(Peer, T)> {
        let [replicas, clients] = &mut self.kinds;
        self.clients_next = !self.clients_next;
        if self.clients_next {
            replicas.next().or_else(|| clients.next())
        } else {
            clients.next().or_else(|| replicas.next())
        }
    }
}

impl<T> Turns<T> {
    fn next(&mut self) -> Option<(Peer, T)> {
        let after = self.last.map_or(Unbounded, Excluded);
        let next = self.queues.range((after, Unbounded)).next().or_else(|| self.queues.first_key_value());
        let peer = *next?.0;
        let queue = self.queues.get_mut(&peer)?;
        let item = queue.pop_front();
        if queue.is_empty() {
            self.queues.remove(&peer);
        }
        self.last = Some(peer);
        Some((peer, item?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::{ClientId, ReplicaId};

    fn client(id: u128) -> Peer {
        Peer::Client(ClientId::new(id))
    }

    fn replica(id: u8) -> Peer {
        Peer::Replica(ReplicaId::new(id))
    }

    #[test]
    fn whatever_one_peer_sends_nobody_waits_behind_it() {
        let fair = Fair::default();
        (0..100).for_each(|number| fair.push(client(1), number));
        fair.push(client(2), 200);
        fair.push(replica(1), 300);
        fair.push(replica(2), 400);
        let taken = fair.take(6);
        let place = |wanted| taken.iter().position(|(_, number)| *number == wanted);
        assert!([200, 300, 400].into_iter().all(|number| place(number).is_some()), "{taken:?}");
    }

    #[test]
    fn what_comes_from_one_peer_stays_in_its_order_and_nothing_is_lost() {
        let fair = Fair::default();
        for number in 0..50 {
            fair.push(client(number % 3), number);
            fair.push(replica(u8::try_from(number % 2).expect("small")), number);
        }
        fair.close();
        let mut seen: BTreeMap<Peer, Vec<u128>> = BTreeMap::new();
        loop {
            let taken = fair.take(7);
            if taken.is_empty() {
                break;
            }
            taken.into_iter().for_each(|(peer, number)| seen.entry(peer).or_default().push(number));
        }
        assert_eq!(seen.values().map(Vec::len).sum::<usize>(), 100);
        assert!(seen.values().all(|numbers| numbers.is_sorted()));
    }
}
