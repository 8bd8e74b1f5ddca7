//! What must hold, property by property. Each file has the property's name, says what it promises, and proves in its tests
//! that it can fail.
//!
//! Agreement, digests and safety look at every execution while it happens ([`Witness`]), watches at every event that is
//! told; the others look at what clients were told and at the states that are left when a run is over.

pub mod agreement;
pub mod digests;
pub mod durability;
pub mod exactly_once;
pub mod linearizability;
pub mod liveness;
pub mod revisions;
pub mod safety;
pub mod storage;
pub mod together;
pub mod watches;

use quorate_core::crypto::Digest;
use quorate_core::ids::{OpNumber, ReplicaId};
use std::collections::BTreeMap;
use std::fmt;

/// The properties' names.
#[derive(Debug)]
pub struct Property;

impl Property {
    /// All replicas execute the same batch as the same entry.
    pub const AGREEMENT: &'static str = "Agreement";
    /// All replicas are in the same state after the same entry.
    pub const DIGESTS: &'static str = "Equal digests";
    /// Seed 004: outputs are equal for all that run from State0 with the same row of inputs.
    pub const SAFETY: &'static str = "Safety";
    /// Seed 004: what was added to UnProcessed is processed some day.
    pub const LIVENESS_1: &'static str = "Liveness 1";
    /// Seed 004: all outputs are delivered some day.
    pub const LIVENESS_2: &'static str = "Liveness 2";
    /// When everything has healed, all replicas reach one state.
    pub const CONVERGENCE: &'static str = "Convergence";
    /// Each request has its effect once.
    pub const EXACTLY_ONCE: &'static str = "Exactly once";
    /// What a client was told has happened stays.
    pub const DURABILITY: &'static str = "No acknowledged operation lost";
    /// Clients cannot tell the cluster from one machine.
    pub const LINEARIZABILITY: &'static str = "Linearizability";
    /// Every answer is the agreed order's, at the place that it names.
    pub const REVISIONS: &'static str = "Answers follow the order";
    /// A watching client is told the agreed events, in order, each once, without a gap.
    pub const WATCHES: &'static str = "Watches";
    /// Snapshots after one entry are equal byte for byte.
    pub const SNAPSHOTS: &'static str = "Equal snapshots";
    /// What a protocol says of itself after every turn.
    pub const INVARIANT: &'static str = "Protocol invariant";
    /// Nobody holds a proof against a replica that does not lie.
    pub const NO_FALSE_PROOF: &'static str = "No correct replica is convicted";
    /// No replica stops itself: nothing that these faults do is a reason.
    pub const NO_HALT: &'static str = "No replica halts";
    /// No replica panics.
    pub const NO_PANIC: &'static str = "No replica panics";
    /// Messages do not beget ever more messages.
    pub const NO_STORM: &'static str = "No storm of messages";
    /// A disk that does what disks do is never refused.
    pub const STORE: &'static str = "The store opens and writes";
    /// Two runs of one seed are one run.
    pub const DETERMINISM: &'static str = "Determinism";
}

/// Something that must hold and did not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The property's name.
    pub property: &'static str,
    /// What was seen.
    pub detail: String,
    /// When, virtual nanoseconds.
    pub at: u64,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (at {} ms): {}", self.property, self.at / crate::clock::MILLI, self.detail)
    }
}

/// A property that does not hold, and what shows it.
pub type Broken = (&'static str, String);

/// Watches every execution.
#[derive(Debug, Default)]
pub struct Witness {
    agreement: agreement::Agreement,
    safety: safety::Safety,
    digests: digests::Digests,
}

impl Witness {
    /// A replica has executed a batch as an entry, put something out, and is now in a state.
    ///
    /// # Errors
    /// Names the property that this breaks.
    pub fn executed(
        &mut self,
        replica: ReplicaId,
        op: OpNumber,
        batch: Digest,
        output: Digest,
        state: Digest,
    ) -> Result<(), Broken> {
        self.agreement.executed(replica, op, batch).map_err(|detail| (Property::AGREEMENT, detail))?;
        self.safety.put_out(replica, op, output).map_err(|detail| (Property::SAFETY, detail))?;
        self.digests.reached(replica, op, state).map_err(|detail| (Property::DIGESTS, detail))
    }

    /// A replica has replaced its state by a checkpoint's.
    ///
    /// # Errors
    /// When the state is not the one that the others had there.
    pub fn installed(&mut self, replica: ReplicaId, op: OpNumber, state: Digest) -> Result<(), Broken> {
        self.digests.reached(replica, op, state).map_err(|detail| (Property::DIGESTS, detail))
    }
}

/// What was first seen at each entry; everybody else must show the same.
#[derive(Debug, Default)]
struct SameEverywhere {
    first: BTreeMap<OpNumber, (ReplicaId, Digest)>,
}

impl SameEverywhere {
    fn see(&mut self, replica: ReplicaId, op: OpNumber, seen: Digest, what: &str) -> Result<(), String> {
        let (first, expected) = *self.first.entry(op).or_insert((replica, seen));
        if expected == seen {
            return Ok(());
        }
        Err(format!("entry {op}: {first} {what} {expected:?}, {replica} {what} {seen:?}"))
    }
}
