//! What a replica's log proves by itself, to somebody who believes neither the replica nor its disk: signatures of clients and
//! replicas, certificates of quorums, and the chain that ties each entry to all before it. Checksums are the store's business;
//! what the entries do to a machine is the caller's.

use bytes::Bytes;
use quorate_core::crypto::{Digest, Keyring};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::protocol::Protocol;
use std::collections::BTreeMap;

/// A protocol whose log holds proofs.
pub trait Audited: Protocol {
    /// Checks everything in these records that can be checked. `keyring` has the public keys of replicas and clients; it needs no
    /// secret.
    fn audit(records: Vec<(RecordSeq, Self::Record)>, keyring: &Keyring, config: &Self::Config) -> Audit;
}

/// What was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// What is wrong.
    pub findings: Vec<Finding>,
    /// Signed statements and certificates that hold.
    pub proofs: u64,
    /// The log begins after this entry: the state up to it is in a snapshot.
    pub begins: OpNumber,
    /// What the machine is given, by entry, from there on without gaps. Each has the certificate of a quorum.
    pub entries: BTreeMap<OpNumber, Bytes>,
    /// The snapshots that a quorum has signed to have, by entry.
    pub states: BTreeMap<OpNumber, Digest>,
    /// Up to this entry a quorum has signed that nothing else was ordered; the entries above stand each for itself.
    pub chained: OpNumber,
    /// Publications that were inserted, and certificates of reception that the order brought and that do not hold: a primary has
    /// lied, and every replica has passed over them.
    pub receptions: u64,
    /// See [`Audit::receptions`].
    pub void: u64,
    /// Of these publications, how many have a time that so many liars cannot choose.
    pub levels: BTreeMap<usize, u64>,
}

/// Something that is not as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where; `None` if it is about several records.
    pub record: Option<RecordSeq>,
    /// What, as a sentence.
    pub what: String,
}

impl Audit {
    /// Counts a proof that holds, or notes why it does not. Does it hold?
    pub(crate) fn checked<E: std::fmt::Debug>(&mut self, record: RecordSeq, what: &str, result: Result<(), E>) -> bool {
        match &result {
            Ok(()) => self.proofs = self.proofs.saturating_add(1),
            Err(error) => self.found(Some(record), format!("{what} does not hold: {error:?}")),
        }
        result.is_ok()
    }

    pub(crate) fn found(&mut self, record: Option<RecordSeq>, what: String) {
        self.findings.push(Finding { record, what });
    }
}
