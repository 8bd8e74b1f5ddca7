//! How fast would it be? A cluster in which nothing goes wrong and everything has a price: signatures, turns, frames, bytes,
//! syncs. It answers what cannot be measured on one computer: how throughput and latency change with the number of
//! replicas, each on a machine of its own.
//!
//! Replicas, executors and clients are the real ones and say every word that they would say; only time is computed. So
//! the counts of frames, bytes, signatures and syncs are exact, and the times are as good as [`Costs`].
//!
//! **What a replica is here.** One core runs the protocol and its links, [`Costs::openers`] cores check signatures, one
//! applies operations, one disk syncs (one sync at a time, which takes everything appended before it began). A line in each
//! direction carries one frame at a time; then the frame travels for [`Costs::latency_ns`].
//!
//! **What is left out.** Clients cost nothing, and their lines are endless. Cores do not share caches or heat. Nothing is
//! lost: TCP's congestion, slow neighbours, pauses and the disk's bad days are not here, and no view changes.

mod costs;
mod replica;
mod world;

pub use costs::Costs;

use quorate_core::protocol::Protocol;
use thiserror::Error;
use world::World;

/// What to find out.
#[derive(Clone, Debug)]
pub struct Question<P: Protocol> {
    /// Replicas, each on a machine of its own.
    pub replicas: usize,
    /// Clients that share the requests in flight.
    pub clients: usize,
    /// Requests that wait for their answers at any time.
    pub in_flight: usize,
    /// Bytes of a value that is put.
    pub payload: usize,
    /// Answers after which it is over; the first tenth is not counted.
    pub answers: u64,
    /// The protocol's configuration.
    pub config: P::Config,
    /// What everything costs.
    pub costs: Costs,
}

/// What was found out. Counts are exact; times are computed from the costs.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// Answers that were counted.
    pub answers: u64,
    /// How long they took together, virtual nanoseconds.
    pub nanos: u64,
    /// From each request to its answer, virtual nanoseconds, sorted.
    pub latencies: Vec<u64>,
    /// What each replica did for them.
    pub replicas: Vec<Work>,
}

/// What one replica did while answers were counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Frames sent, to replicas and clients.
    pub frames_out: u64,
    /// Their bytes.
    pub bytes_out: u64,
    /// Frames received.
    pub frames_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Signatures made.
    pub signed: u64,
    /// Signatures checked.
    pub checked: u64,
    /// Turns of the protocol.
    pub turns: u64,
    /// Syncs of the log.
    pub syncs: u64,
    /// How long the protocol's core was busy, virtual nanoseconds.
    pub busy: u64,
    /// How long the cores that check signatures were busy, together.
    pub opening: u64,
}

/// The model has no answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Unanswered {
    /// A replica cannot start in such a group.
    #[error("a replica cannot start: {0}")]
    Start(String),
    /// Time ran out.
    #[error(
        "only {answers} of {asked} requests were answered in {seconds} virtual seconds: more is asked than the group can do"
    )]
    TooSlow {
        /// Answers.
        answers: u64,
        /// Answers asked for.
        asked: u64,
        /// Virtual seconds.
        seconds: u64,
    },
    /// A replica fell behind its log, or stopped.
    #[error("replica {replica} {what}, which the model does not have")]
    Outside {
        /// Which.
        replica: usize,
        /// What it did.
        what: String,
    },
}

impl Found {
    /// Answers a second.
    pub fn throughput(&self) -> f64 {
        self.answers as f64 * 1e9 / self.nanos.max(1) as f64
    }

    /// The latency that so many of a thousand requests do not exceed, virtual nanoseconds.
    pub fn latency(&self, per_mille: usize) -> u64 {
        let index = self.latencies.len().saturating_sub(1).saturating_mul(per_mille) / 1000;
        self.latencies.get(index).copied().unwrap_or(0)
    }

    /// The replica whose protocol's core was busiest.
    pub fn busiest(&self) -> Work {
        self.replicas.iter().copied().max_by_key(|work| work.busy).unwrap_or_default()
    }
}

/// Computes.
///
/// # Errors
/// [`Unanswered`] when the group cannot do what is asked, or leaves what the model has.
pub fn find<P: Protocol>(question: &Question<P>) -> Result<Found, Unanswered> {
    World::new(question)?.run()
}
