//! Digests, keys, signed statements, certificates, evidence.
//!
//! Crash-fault protocols rely on the encrypted, mutually authenticated link and use digests only. What must convince a third
//! party is a [`Statement`]: it is signed over its domain (protocol, version, phase), the cluster, the epoch, the signer and
//! its own canonical encoding, so that no signature means anything anywhere else.
//!
//! **Verified is a type.** [`Signed`] is what the network brings, decoded and not looked at; only this module makes a
//! [`Verified`] or a [`Certified`] of it, and a protocol's handlers take nothing else.
//!
//! Signatures are Ed25519 with the semantics of ZIP-215: every replica accepts exactly the same signatures, whatever library
//! and whether checked one by one or together. That matters here, since a signature that some accept and others do not would
//! split a group. Nothing is ever named by the bytes of a signature: one statement can have several valid ones.

mod certificate;
mod coin;
mod deferred;
mod digest;
mod enough;
mod evidence;
mod heavy;
mod keyring;
mod remembered;
mod signed;

pub use certificate::{Certificate, Certified};
pub use coin::{CoinKeys, CoinShare, Toss};
pub use digest::Digest;
pub use evidence::Evidence;
pub use keyring::{ClientKey, KeyWork, Keyring, KeyringError, Proves, PublicKey, Secret, Signature};
pub use signed::{Signed, Slot, Statement, Verified};
