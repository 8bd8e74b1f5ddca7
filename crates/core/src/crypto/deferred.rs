//! Ed25519 signatures that are checked together, in one equation: less than half the work of checking them one by one, and
//! the same answer (ZIP-215). If the equation does not hold, one of them is bad, and nobody knows which.

use super::digest::Digest;
use super::heavy::Kind;
use super::keyring::{Preimage, Signature};
use crate::ids::ReplicaId;
use ed25519_zebra::{VerificationKey, VerificationKeyBytes, batch};
use rand_core::{TryCryptoRng, TryRng};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Signatures that were taken for good, and have to be checked; and what is good if all of them are.
#[derive(Default)]
struct Items {
    signatures: Vec<(VerificationKey, Preimage, Signature)>,
    depends: Depends,
}

/// What is good if all signatures are.
#[derive(Default)]
pub(super) struct Depends {
    /// Heavy statements.
    pub(super) heavy: Vec<(Kind, Digest)>,
    /// Signatures that may come again, with their signers.
    pub(super) again: BTreeMap<Digest, ReplicaId>,
}

/// See [`Items`].
#[derive(Default)]
pub(super) struct Deferred(Mutex<Items>);

impl fmt::Debug for Deferred {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("signatures to check")
    }
}

impl Deferred {
    pub(super) fn add(&self, key: VerificationKey, preimage: Preimage, signature: Signature) {
        self.items().signatures.push((key, preimage, signature));
    }

    pub(super) fn add_heavy(&self, kind: Kind, name: Digest) {
        self.items().depends.heavy.push((kind, name));
    }

    /// Notes a signature that may come again.
    pub(super) fn add_again(&self, by: ReplicaId, name: Digest) {
        self.items().depends.again.insert(name, by);
    }

    /// Is it among those that are to be checked?
    pub(super) fn has_again(&self, name: &Digest) -> bool {
        self.items().depends.again.contains_key(name)
    }

    fn items(&self) -> MutexGuard<'_, Items> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Are all of them good? Forgets them; gives back what depends on it, if they are.
    pub(super) fn settle(&self) -> Option<Depends> {
        let Items { signatures, depends } = std::mem::take(&mut *self.items());
        are_good(&signatures).then_some(depends)
    }
}

fn are_good(items: &[(VerificationKey, Preimage, Signature)]) -> bool {
    if let [(key, preimage, signature)] = items {
        return key.verify(&signature.into(), preimage).is_ok();
    }
    let mut coefficients = blake3::Hasher::new_derive_key("quorate coefficients of a batch of signatures");
    let mut verifier = batch::Verifier::new();
    for (key, preimage, signature) in items {
        let key = VerificationKeyBytes::from(*key);
        coefficients.update(key.as_ref()).update(preimage).update(signature.as_bytes());
        verifier.queue((key, signature.into(), preimage));
    }
    items.is_empty() || verifier.verify(Coefficients(coefficients.finalize_xof())).is_ok()
}

impl From<&Signature> for ed25519_zebra::Signature {
    fn from(signature: &Signature) -> Self {
        Self::from_bytes(signature.as_bytes())
    }
}

/// The equation's coefficients. They must be unknown to whoever made the signatures: they follow from all of them, so that
/// nobody can choose a signature by its coefficient, and two runs agree.
struct Coefficients(blake3::OutputReader);

impl TryRng for Coefficients {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        self.0.fill(bytes);
        Ok(())
    }
}

impl TryCryptoRng for Coefficients {}
