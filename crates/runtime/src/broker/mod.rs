//! Brokers: what carries publications from clients to replicas, for protocols whose clients publish (`Protocol::goes_by_broker`).
//!
//! **Nobody trusts a broker.** A publication proves itself, so a broker can lose, repeat, delay, reorder and forge what it likes;
//! replicas take nothing else from it. Whoever publishes and hears nothing goes to the replicas directly, so a broker that is
//! away costs time and nothing else. Answers never come through brokers.
//!
//! | broker | is | for |
//! |---|---|---|
//! | [`Direct`] | the client's own links | the default: one hop, nothing to operate |
//! | [`InProcess`] | queues in memory | clusters of one process: tests and first steps |
//! | NATS, in the crate `quorate-nats` | a server that others run already | clients and replicas that do not find each other at once |
//! | [`Faulty`] | any of them, at its worst | tests and demonstrations |
//!
//! **Bounds.** What a broker brings waits where clients' frames wait, within the same limits; while there is no room it is not
//! taken from the broker.

mod faulty;
mod in_process;

pub use faulty::{BrokerFault, BrokerFaults, Faulty, UnknownBrokerFault};
pub use in_process::InProcess;

use crate::link::LinkHandle;
use bytes::Bytes;
use quorate_core::ids::{Peer, ReplicaId};
use std::fmt::Debug;
use std::sync::Arc;
use tokio::task::JoinSet;

/// What a broker says of a publication that is left to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// It has it; whether it arrives is another question.
    Taken,
    /// It is away, or has no room: use another way.
    Unavailable,
}

/// Carries publications.
pub trait Broker: Debug + Send + Sync + 'static {
    /// Leaves a copy of a publication for one replica. Never waits.
    fn publish(&self, to: ReplicaId, body: Bytes) -> Left;

    /// Brings this replica what is left for it, on the runtime that this is called in, until the returned set is dropped.
    fn subscribe(self: Arc<Self>, replica: ReplicaId, intake: Intake) -> JoinSet<()>;
}

/// Where a replica takes what a broker brings.
#[derive(Clone, Debug)]
pub struct Intake {
    links: LinkHandle,
}

impl Intake {
    /// The intake of the replica with these links.
    pub const fn of(links: LinkHandle) -> Self {
        Self { links }
    }

    /// Hands a publication to the replica, as soon as there is room for it. What is longer than any is dropped.
    pub async fn bring(&self, body: Bytes) {
        self.links.bring(body).await;
    }
}

/// No broker: a client's own links. What they cannot carry they drop and count.
#[derive(Debug)]
pub struct Direct {
    links: LinkHandle,
}

impl Direct {
    /// Over these links.
    pub const fn over(links: LinkHandle) -> Self {
        Self { links }
    }
}

impl Broker for Direct {
    fn publish(&self, to: ReplicaId, body: Bytes) -> Left {
        self.links.send(Peer::Replica(to), body);
        Left::Taken
    }

    /// Nothing comes on another way than the links.
    fn subscribe(self: Arc<Self>, _: ReplicaId, _: Intake) -> JoinSet<()> {
        JoinSet::new()
    }
}
