//! One scheduled consensus broadcast (SCB): Dolev and Strong 1983, with deadlines relative to the start that is agreed.
//!
//! A chain of k signatures by different replicas, the sender's first, counts if it comes by `τ + k R`. Who takes a value signs
//! and passes it on at once, so a chain that one correct replica takes in time reaches all others in time, one signature
//! longer; a chain of f + 1 has a correct signer, who has passed it on. At `τ + (f + 1) R` all correct replicas have therefore
//! taken the same values: one value is the output, none or several are ⊥. This holds for any f < n.

use super::message::{Chain, Head};
use super::schedule::Schedule;
use quorate_core::ids::ReplicaId;
use quorate_core::time::WallTime;

/// Values that are kept: two prove that the sender lies, and a third would prove nothing more.
const VALUES_MAX: usize = 2;

/// What became of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// The value is new here and came in time. If the chain is short, it is to be signed and passed on.
    New {
        /// Sign it, and pass it on?
        pass_on: bool,
    },
    /// The value is known.
    Known,
    /// The sender has said two other things already.
    Third,
    /// It comes before a correct replica can have sent it.
    Early,
    /// It comes too late, and at least one correct replica has signed it: this would have been taken if messages and clocks
    /// had kept their bounds.
    Evidence,
    /// It comes too late. Perhaps liars have kept it back; that harms nobody.
    Late,
}

/// One broadcast, as one replica sees it.
#[derive(Clone, Debug)]
pub struct Instance<T> {
    start: WallTime,
    values: Vec<Chain<T>>,
    concluded: bool,
}

impl<T: Head> Instance<T> {
    /// Nothing has come yet.
    pub const fn new(start: WallTime) -> Self {
        Self { start, values: Vec::new(), concluded: false }
    }

    /// A chain has come when this replica's clock showed `clock`. Its signatures were checked.
    pub fn offer(&mut self, chain: &Chain<T>, clock: WallTime, faults: usize, schedule: &Schedule) -> Taken {
        if self.values.iter().any(|known| known.statement() == chain.statement()) {
            return Taken::Known;
        }
        if self.values.len() >= VALUES_MAX {
            return Taken::Third;
        }
        let signers = chain.signers();
        if clock < schedule.opens(self.start, signers) {
            return Taken::Early;
        }
        if self.concluded || clock > schedule.deadline(self.start, signers) {
            return if signers > faults { Taken::Evidence } else { Taken::Late };
        }
        self.values.push(chain.clone());
        Taken::New { pass_on: signers <= faults }
    }

    /// The output at `τ + (f + 1) R`: the value, if there is exactly one. Nothing is taken any more.
    pub fn conclude(&mut self) -> Option<&Chain<T>> {
        self.concluded = true;
        match self.values.as_slice() {
            [one] => Some(one),
            _ => None,
        }
    }

    /// Has it had its output?
    pub const fn is_concluded(&self) -> bool {
        self.concluded
    }

    /// When it began.
    pub const fn start(&self) -> WallTime {
        self.start
    }

    /// What was taken.
    pub fn values(&self) -> &[Chain<T>] {
        &self.values
    }

    /// Who has not signed this chain: those to whom it is passed on.
    pub fn strangers(chain: &Chain<T>, members: impl Iterator<Item = ReplicaId>) -> impl Iterator<Item = ReplicaId> {
        members.filter(move |replica| !chain.is_signed_by(*replica))
    }
}
