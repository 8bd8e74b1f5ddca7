//! What a new view starts with: a pure function of the view changes, computed by the new primary and again by every backup
//! (Castro and Liskov §4.4, with complete certificates of what was prepared).

use super::message::{LogCheckpoint, Proposal, ViewChange};
use quorate_core::crypto::{Certificate, Digest};
use quorate_core::ids::{OpNumber, View};
use quorate_core::mutated;
use std::collections::BTreeMap;

/// What a new view starts with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected {
    /// The highest stable checkpoint among the view changes (min-s).
    pub stable: Option<Certificate<LogCheckpoint>>,
    /// For each entry after it, up to the last that anybody prepared (max-s), the digest to propose.
    pub digests: Vec<(OpNumber, Digest)>,
}

impl Selected {
    /// The last entry that the view starts with.
    pub fn last(&self) -> OpNumber {
        let low = self.stable.as_ref().map_or(OpNumber::ZERO, |stable| stable.statement().op);
        self.digests.last().map_or(low, |(op, _)| *op)
    }
}

/// Computes it from view changes whose signatures, certificates and form were checked, a quorum of them.
///
/// The checkpoint with the highest number needs no counting: it carries its proof. An entry that committed has a certificate
/// in the view change of a correct replica of every quorum, and no certificate of a higher view for that entry names another
/// digest; so the certificate of the highest view wins, and where nobody has one, nothing can have committed.
pub fn select<'a>(changes: impl IntoIterator<Item = &'a ViewChange>) -> Selected {
    let mut stable: Option<&Certificate<LogCheckpoint>> = None;
    let mut prepared: BTreeMap<OpNumber, (View, Digest)> = BTreeMap::new();
    for change in changes {
        if change.low() > stable.map_or(OpNumber::ZERO, |it| it.statement().op) {
            stable = change.stable.as_ref();
        }
        for certificate in &change.prepared {
            let it = certificate.statement();
            let best = prepared.entry(it.op).or_insert((it.view, it.digest));
            let other = if mutated!("pbft/any-certificate-wins") { *best } else { (it.view, it.digest) };
            *best = (*best).max(other);
        }
    }
    let low = stable.map_or(OpNumber::ZERO, |it| it.statement().op);
    let high = prepared.last_key_value().map_or(low, |(op, _)| *op);
    let mut digests = Vec::new();
    let mut op = low.next();
    while op <= high {
        if mutated!("pbft/a-gap-ends-the-view") && !prepared.contains_key(&op) {
            break;
        }
        let digest = prepared.get(&op).map_or_else(|| Proposal::null(op).digest(), |(_, digest)| *digest);
        digests.push((op, digest));
        op = op.next();
    }
    Selected { stable: stable.cloned(), digests }
}
