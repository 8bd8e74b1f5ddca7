//! A broker in the memory of one process: a queue for each replica.

use super::{Broker, Intake, Left};
use crate::link::held;
use bytes::Bytes;
use quorate_core::ids::ReplicaId;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};
use tokio::sync::Notify;
use tokio::task::JoinSet;

/// What may wait for one replica, in bytes. Beyond it, publications go another way.
const QUEUE_BYTES_MAX: usize = 8 << 20;
/// What one costs beside its bytes.
const OVERHEAD_BYTES: usize = 64;

/// Queues in memory. What waits for a replica that is away waits for its return, as far as there is room.
#[derive(Debug, Default)]
pub struct InProcess {
    queues: Mutex<BTreeMap<ReplicaId, Arc<Queue>>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<(VecDeque<Bytes>, usize)>,
    filled: Notify,
}

impl InProcess {
    fn queue(&self, replica: ReplicaId) -> Arc<Queue> {
        held(&self.queues).entry(replica).or_default().clone()
    }
}

impl Queue {
    fn push(&self, body: Bytes) -> Left {
        let mut waiting = held(&self.waiting);
        let (queue, bytes) = &mut *waiting;
        let more = *bytes + body.len() + OVERHEAD_BYTES;
        if more > QUEUE_BYTES_MAX {
            return Left::Unavailable;
        }
        *bytes = more;
        queue.push_back(body);
        drop(waiting);
        self.filled.notify_one();
        Left::Taken
    }

    fn pop(&self) -> Option<Bytes> {
        let mut waiting = held(&self.waiting);
        let (queue, bytes) = &mut *waiting;
        let body = queue.pop_front()?;
        *bytes -= body.len() + OVERHEAD_BYTES;
        Some(body)
    }
}

impl Broker for InProcess {
    fn publish(&self, to: ReplicaId, body: Bytes) -> Left {
        self.queue(to).push(body)
    }

    fn subscribe(self: Arc<Self>, replica: ReplicaId, intake: Intake) -> JoinSet<()> {
        let queue = self.queue(replica);
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            loop {
                match queue.pop() {
                    Some(body) => intake.bring(body).await,
                    None => queue.filled.notified().await,
                }
            }
        });
        tasks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_that_is_full_sends_its_clients_elsewhere_and_has_room_again() {
        let broker = InProcess::default();
        let (to, body) = (ReplicaId::new(0), Bytes::from(vec![0; 1 << 20]));
        let taken = (0..100).take_while(|_| broker.publish(to, body.clone()) == Left::Taken).count();
        assert_eq!(taken, QUEUE_BYTES_MAX / ((1 << 20) + OVERHEAD_BYTES));
        assert_eq!(broker.publish(ReplicaId::new(1), body.clone()), Left::Taken, "each replica has its own");
        while broker.queue(to).pop().is_some() {}
        assert_eq!(held(&broker.queue(to).waiting).1, 0);
        assert_eq!(broker.publish(to, body), Left::Taken);
    }
}
