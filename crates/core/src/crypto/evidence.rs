//! Proof that a replica has lied: two statements where it may make one, both with its signature. Anyone who has the
//! replica's public key can check it; nobody can make it up.

use super::signed::{Signed, Statement, Verified};
use crate::fault::Fault;
use crate::ids::ReplicaId;
use crate::wire::{Malformed, Wire};

/// Two contradictory statements, each signed by the same replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    accused: ReplicaId,
    domain: &'static str,
    words: String,
    first: Vec<u8>,
    second: Vec<u8>,
}

impl Evidence {
    /// The contradiction between two statements: `None` unless one signer has filled one slot differently.
    pub fn of<T: Statement>(first: &Verified<T>, second: &Verified<T>) -> Option<Self> {
        let (one, other) = (first.statement(), second.statement());
        let slot = one.slot()?;
        if one.object() != other.object() || first.by() != second.by() || other.slot() != Some(slot) || one == other {
            return None;
        }
        let accused = first.by();
        let words = format!("signed two different `{}` for view {}, entry {}", T::DOMAIN, slot.view, slot.op);
        let (first, second) = (first.signed().encode(), second.signed().encode());
        Some(Self { accused, domain: T::DOMAIN, words, first, second })
    }

    /// Who lied.
    pub const fn accused(&self) -> ReplicaId {
        self.accused
    }

    /// Of which kind the statements are.
    pub const fn domain(&self) -> &'static str {
        self.domain
    }

    /// The lie, in words.
    pub fn words(&self) -> &str {
        &self.words
    }

    /// The two statements, as they were signed.
    ///
    /// # Errors
    /// [`Malformed`] unless `T` is the type that [`Evidence::domain`] names.
    pub fn statements<T: Statement>(&self) -> Result<(Signed<T>, Signed<T>), Malformed> {
        if T::DOMAIN != self.domain {
            return Err(Malformed(format!("the statements are of `{}`", self.domain)));
        }
        Ok((Signed::decode(&self.first)?, Signed::decode(&self.second)?))
    }
}

impl From<Evidence> for Fault {
    fn from(evidence: Evidence) -> Self {
        Fault::Proof(Box::new(evidence))
    }
}
