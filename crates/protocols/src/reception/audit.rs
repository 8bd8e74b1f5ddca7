//! What the log of a replica proves without it ([`Audited`]): what PBFT's does, and of each publication that its client has
//! signed it, who has received it, and when.

use super::criticality::Levels;
use super::durable::Record;
use super::message::Message;
use super::order::{Rules, insertion};
use super::{Config, Reception};
use crate::audit::{Audit, Audited};
use crate::pbft;
use quorate_core::crypto::{ClientKey, Keyring};
use quorate_core::ids::RecordSeq;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::wire::Wire;

impl Audited for Reception {
    fn audit(records: Vec<(RecordSeq, Record)>, keyring: &Keyring, config: &Config) -> Audit {
        let (mut module, mut publications) = (Vec::new(), Vec::new());
        for (seq, record) in records {
            match record {
                Record::Module(record) => module.push((seq, record)),
                Record::Publication(group) => publications.push((seq, group)),
                // Its own word about its own clock, and which of the above are ordered: what was signed, others have.
                Record::Received { .. } | Record::Inserted(_) => {}
            }
        }
        let mut audit = pbft::audit(module, keyring, ClientKey::is_proxy);
        for (seq, group) in publications {
            let what = format!("the signature of client {} under its publication", group.statement().client);
            audit.checked(seq, &what, Message::Publication(group).prove(keyring));
        }
        let Some(quorums) = ByzantineQuorums::new(keyring.replicas()) else { return audit };
        let rules = Rules { levels: Levels::new(config, quorums) };
        for batch in audit.entries.values_mut() {
            let mut signatures = 0;
            let found = insertion(batch, &rules, |certified| {
                let holds = certified.prove(keyring).is_ok();
                let count = if holds { certified.receptions.len().saturating_add(1) } else { 0 };
                signatures = u64::saturating_add(signatures, count as u64);
                holds
            });
            audit.receptions = audit.receptions.saturating_add(found.groups.len() as u64);
            for level in found.levels {
                let count = audit.levels.entry(level).or_default();
                *count = count.saturating_add(1);
            }
            audit.void = audit.void.saturating_add(found.void);
            audit.proofs = audit.proofs.saturating_add(signatures);
            *batch = found.batch.encode().into();
        }
        audit
    }
}
