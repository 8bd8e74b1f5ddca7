//! Certificates: one statement, signed by a quorum.

use super::keyring::{Keyring, Signature};
use super::signed::{Statement, Verified};
use crate::fault::Fault;
use crate::ids::ReplicaId;
use borsh::{BorshDeserialize, BorshSerialize};
use std::collections::BTreeMap;

/// A statement and the signatures of several replicas, none of which anybody may have checked.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Certificate<T> {
    statement: T,
    /// In the order of the signers, none twice: a certificate has one encoding for each choice of signatures.
    signatures: Vec<(ReplicaId, Signature)>,
    #[borsh(skip)]
    proven: usize,
}

impl<T: PartialEq> PartialEq for Certificate<T> {
    fn eq(&self, other: &Self) -> bool {
        (&self.statement, &self.signatures) == (&other.statement, &other.signatures)
    }
}

impl<T: Eq> Eq for Certificate<T> {}

impl<T: Statement> Certificate<T> {
    /// A certificate as somebody else may have sent it. Believed by nobody before [`Certificate::prove`].
    pub const fn claimed(statement: T, signatures: Vec<(ReplicaId, Signature)>) -> Self {
        Self { statement, signatures, proven: 0 }
    }

    /// Checks that at least `quorum` different members have signed the statement.
    ///
    /// # Errors
    /// A signer that comes twice or out of order, or is no member; too few signatures; one that is not the signer's.
    pub fn prove(&mut self, keyring: &Keyring, quorum: usize) -> Result<(), Fault> {
        let refused = |what: &str| Err(Fault::Malformed(format!("a certificate of `{}` {what}", T::DOMAIN)));
        if self.proven >= quorum.max(1) {
            return Ok(());
        }
        if !self.signatures.is_sorted_by(|(one, _), (next, _)| one < next) {
            return refused("names a signer twice, or not in order");
        }
        if self.signatures.iter().any(|(signer, _)| signer.index() >= keyring.replicas()) {
            return refused("names a signer that is no member");
        }
        if self.signatures.len() < quorum.max(1) {
            return refused("has too few signatures");
        }
        if !self.signatures.iter().all(|(by, signature)| keyring.proves(by, &self.statement, signature)) {
            return Err(Fault::BadSignature(T::DOMAIN));
        }
        self.proven = self.signatures.len();
        Ok(())
    }

    /// It was checked, here and by this process, that `quorum` have signed.
    ///
    /// # Errors
    /// [`Fault::BadSignature`] if nobody has: [`crate::protocol::Protocol::prove`] forgot it.
    pub fn certified(self, quorum: usize) -> Result<Certified<T>, Fault> {
        if self.proven >= quorum.max(1) { Ok(Certified(self)) } else { Err(Fault::BadSignature(T::DOMAIN)) }
    }

    /// What is said to be signed.
    pub const fn statement(&self) -> &T {
        &self.statement
    }

    /// Signers and signatures.
    pub fn signatures(&self) -> &[(ReplicaId, Signature)] {
        &self.signatures
    }
}

/// A statement that a quorum has signed, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certified<T>(Certificate<T>);

impl<T: Statement> Certified<T> {
    /// What the votes say together: the statement that at least `quorum` of them make, with the signatures of the first
    /// `quorum`. `None` if there are too few votes for any one statement.
    pub fn assemble<'a>(votes: impl IntoIterator<Item = &'a Verified<T>>, statement: &T, quorum: usize) -> Option<Self>
    where
        T: 'a,
    {
        let votes = votes.into_iter().filter(|vote| vote.statement() == statement);
        let signatures: BTreeMap<_, _> = votes.map(|vote| (vote.by(), *vote.signature())).collect();
        if signatures.len() < quorum.max(1) {
            return None;
        }
        let signatures: Vec<_> = signatures.into_iter().take(quorum.max(1)).collect();
        let proven = signatures.len();
        Some(Self(Certificate { statement: statement.clone(), signatures, proven }))
    }

    /// What a quorum has said.
    pub const fn statement(&self) -> &T {
        &self.0.statement
    }

    /// As it travels; whoever decodes it checks it again.
    pub const fn certificate(&self) -> &Certificate<T> {
        &self.0
    }

    /// As it travels.
    pub fn into_certificate(self) -> Certificate<T> {
        self.0
    }
}
