//! Statements, and how far they are believed.

use super::keyring::{Keyring, Proves, Signature};
use crate::fault::Fault;
use crate::ids::{OpNumber, ReplicaId, View};
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use std::fmt::Debug;

/// A place in which one signer says one thing at most: two different statements in one slot convict it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The view.
    pub view: View,
    /// The entry; zero where the view says it all.
    pub op: OpNumber,
}

/// Something that can be signed.
pub trait Statement: Wire + Clone + Debug + PartialEq {
    /// Protocol, version and phase, for example `pbft/1 prepare`. Different for every type of statement.
    const DOMAIN: &'static str;

    /// Does it come again, with the same signature, inside what others say? Then a keyring remembers that it was checked
    /// (`remembered.rs`). Only what replicas sign.
    const COMES_AGAIN: bool = false;

    /// The slot that it fills, if one signer may make only one such statement there.
    fn slot(&self) -> Option<Slot> {
        None
    }

    /// The object that the slot is one of, where each object has slots of its own.
    fn object(&self) -> Option<crate::crypto::Digest> {
        None
    }

    /// The view that it is about, if it holds so many signatures that a keyring checks only what a correct replica may have
    /// to say (`heavy.rs`). A replica signs it, and its views only go up.
    fn heavy(&self) -> Option<View> {
        None
    }

    /// Of a heavy statement: checks the signatures, and no more, of those inside it who thereby say that its view was reached
    /// ([`Signed::claims`]). A quorum of them makes any view plausible, however far away it is.
    ///
    /// # Errors
    /// What is wrong with it.
    fn vouched(&self, _keyring: &Keyring) -> Result<(), Fault> {
        Ok(())
    }

    /// Checks what is signed inside it: whoever signs a statement answers for the proofs that it holds.
    ///
    /// # Errors
    /// What is wrong with it.
    fn prove_inside(&mut self, _keyring: &Keyring) -> Result<(), Fault> {
        Ok(())
    }
}

/// A statement with a signature that nobody may have checked. Decoding one checks nothing; [`Signed::prove`] does.
#[derive(Clone, Debug, BorshSerialize, BorshDeserialize)]
pub struct Signed<T, S = ReplicaId> {
    by: S,
    statement: T,
    signature: Signature,
    /// Never on the wire: whoever decodes a statement has not checked it.
    #[borsh(skip)]
    proven: bool,
}

impl<T: PartialEq, S: PartialEq> PartialEq for Signed<T, S> {
    fn eq(&self, other: &Self) -> bool {
        (&self.by, &self.statement, &self.signature) == (&other.by, &other.statement, &other.signature)
    }
}

impl<T: Eq, S: Eq> Eq for Signed<T, S> {}

impl<T: Statement, S: Proves> Signed<T, S> {
    pub(super) fn own(by: S, statement: T, signature: Signature) -> Self {
        Self { by, statement, signature, proven: true }
    }

    /// A statement as somebody else may have sent it. Believed by nobody before [`Signed::prove`].
    pub fn claimed(by: S, statement: T, signature: Signature) -> Self {
        Self { by, statement, signature, proven: false }
    }

    /// Checks the signature, and what is signed inside the statement, once.
    ///
    /// # Errors
    /// [`Fault::BadSignature`] if it is not the signer's, of this statement, in this cluster and epoch; [`Fault::NotNow`] for a
    /// heavy statement that is not looked at; what [`Statement::prove_inside`] says.
    pub fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        self.prove_as(false, keyring)
    }

    /// As [`Signed::prove`], of a statement inside one that is being checked: it is looked at whatever the signer has said.
    ///
    /// # Errors
    /// As [`Signed::prove`].
    pub fn prove_part(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        self.prove_as(true, keyring)
    }

    /// Checks the signature of a heavy statement, and nothing inside it: its signer has reached the view.
    ///
    /// # Errors
    /// [`Fault::BadSignature`].
    pub fn claims(&self, keyring: &Keyring) -> Result<(), Fault> {
        match self.statement.heavy().zip(self.by.replica()) {
            Some((view, by)) => keyring.claims(by, view, &self.statement, &self.signature).map(|_| ()),
            None => Ok(()),
        }
    }

    fn prove_as(&mut self, part: bool, keyring: &Keyring) -> Result<(), Fault> {
        if self.proven {
            return Ok(());
        }
        if let Some((view, by)) = self.statement.heavy().zip(self.by.replica()) {
            match keyring.admits(by, view, &self.statement, &self.signature, part)? {
                Some(name) => {
                    self.statement.prove_inside(keyring)?;
                    keyring.is_good((T::DOMAIN, by), name);
                }
                None => self.statement.prove_inside(&keyring.trusting())?,
            }
            self.proven = true;
            return Ok(());
        }
        if !keyring.proves(&self.by, &self.statement, &self.signature) {
            return Err(Fault::BadSignature(T::DOMAIN));
        }
        self.statement.prove_inside(keyring)?;
        self.proven = true;
        Ok(())
    }

    /// The signature was checked, here and by this process.
    ///
    /// # Errors
    /// [`Fault::BadSignature`] if nobody has: [`crate::protocol::Protocol::prove`] forgot it.
    pub fn verified(self) -> Result<Verified<T, S>, Fault> {
        if self.proven { Ok(Verified(self)) } else { Err(Fault::BadSignature(T::DOMAIN)) }
    }
}

impl<T, S: Copy> Signed<T, S> {
    /// Who is said to have signed it.
    pub const fn by(&self) -> S {
        self.by
    }

    /// What is said.
    pub const fn statement(&self) -> &T {
        &self.statement
    }

    /// The signature.
    pub const fn signature(&self) -> &Signature {
        &self.signature
    }
}

/// A statement whose signature was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verified<T, S = ReplicaId>(Signed<T, S>);

impl<T, S: Copy> Verified<T, S> {
    /// Who signed it.
    pub const fn by(&self) -> S {
        self.0.by
    }

    /// What was said.
    pub const fn statement(&self) -> &T {
        &self.0.statement
    }

    /// The signature.
    pub const fn signature(&self) -> &Signature {
        &self.0.signature
    }

    /// As it travels; whoever decodes it checks it again.
    pub const fn signed(&self) -> &Signed<T, S> {
        &self.0
    }

    /// As it travels.
    pub fn into_signed(self) -> Signed<T, S> {
        self.0
    }
}
