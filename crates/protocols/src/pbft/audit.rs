//! What the log of a replica proves without it ([`Audited`]).

use super::durable::{Base, Record};
use super::log::chained;
use super::message::{Content, Proposal, check_group, prove_group};
use super::{Config, Pbft};
use crate::audit::{Audit, Audited};
use quorate_core::crypto::{ClientKey, Digest, Keyring};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::quorum::ByzantineQuorums;
use std::collections::BTreeMap;

impl Audited for Pbft {
    fn audit(records: Vec<(RecordSeq, Record)>, keyring: &Keyring, _: &Config) -> Audit {
        audit(records, keyring, |by| !by.is_proxy())
    }
}

/// What was read so far.
#[derive(Default)]
struct Read {
    base: Base,
    proposals: BTreeMap<(OpNumber, Digest), Proposal>,
    committed: BTreeMap<OpNumber, (RecordSeq, Digest)>,
    /// Chains that a quorum has signed.
    chains: BTreeMap<OpNumber, (RecordSeq, Digest)>,
}

/// Checks a log. `may_ask` says whose requests an entry may hold: clients', or, inside another protocol, replicas'.
pub(crate) fn audit(
    records: impl IntoIterator<Item = (RecordSeq, Record)>,
    keyring: &Keyring,
    may_ask: fn(&ClientKey) -> bool,
) -> Audit {
    let mut audit = Audit::default();
    let Some(quorums) = ByzantineQuorums::new(keyring.replicas()) else {
        audit.found(None, "without keys nothing can be checked".to_owned());
        return audit;
    };
    let mut read = Read::default();
    for (seq, record) in records {
        read.take(seq, record, keyring, quorums.quorum(), may_ask, &mut audit);
    }
    read.follow(&mut audit);
    audit
}

impl Read {
    fn take(
        &mut self,
        seq: RecordSeq,
        record: Record,
        keyring: &Keyring,
        quorum: usize,
        may_ask: fn(&ClientKey) -> bool,
        audit: &mut Audit,
    ) {
        match record {
            Record::Proposal(op, proposal) => {
                if let Content::Orders(orders) = &*proposal.content() {
                    for group in &orders.groups {
                        if !may_ask(&group.by()) || check_group(group).is_some() {
                            audit.found(Some(seq), format!("entry {op} holds a request that nobody may make"));
                        }
                        let what = format!("the signature of client {} in entry {op}", group.statement().client);
                        audit.checked(seq, &what, prove_group(&mut group.clone(), keyring));
                    }
                }
                self.proposals.insert((op, proposal.digest()), proposal);
            }
            Record::Prepared(mut certificate) => {
                let what = format!("the certificate that entry {} is prepared", certificate.statement().op);
                audit.checked(seq, &what, certificate.prove(keyring, quorum));
            }
            Record::Committed(mut certificate) => {
                let it = *certificate.statement();
                let what = format!("the certificate that entry {} is committed", it.op);
                if !audit.checked(seq, &what, certificate.prove(keyring, quorum)) {
                    return;
                }
                let (_, digest) = *self.committed.entry(it.op).or_insert((seq, it.digest));
                if digest != it.digest {
                    audit.found(
                        Some(seq),
                        format!("two proposals are certified as entry {}: more than f have lied", it.op),
                    );
                }
            }
            Record::Started(mut start) => {
                let what = format!("the start of view {}", start.statement().view);
                audit.checked(seq, &what, start.prove(keyring));
            }
            Record::Stable(mut stable) => {
                let it = *stable.statement();
                if audit.checked(seq, &format!("the checkpoint at entry {}", it.op), stable.prove(keyring, quorum)) {
                    self.chains.insert(it.op, (seq, it.chain));
                }
            }
            Record::Base(mut base) => {
                if let Some(start) = &mut base.start {
                    audit.checked(seq, "the start of the view", start.prove(keyring));
                }
                if let Some(stable) = &mut base.stable {
                    audit.checked(seq, "the checkpoint of the log", stable.prove(keyring, quorum));
                    self.chains.insert(stable.statement().op, (seq, stable.statement().chain));
                }
                if let Some(state) = &mut base.state {
                    let it = *state.statement();
                    if audit.checked(seq, "the certificate of the state", state.prove(keyring, quorum)) {
                        audit.states.insert(it.checkpoint.op, it.checkpoint.id);
                        self.chains.insert(it.checkpoint.op, (seq, it.chain));
                    }
                }
                self.base = *base;
            }
            // A vote of its own, a view that it has left, a snapshot that it says to have: nobody else has signed these.
            Record::Prepare(_) | Record::Left(_) | Record::State(_) => {}
        }
    }

    /// Follows the entries from the log's beginning, as far as each is committed and here, and holds their chain against what
    /// quorums have signed.
    fn follow(&mut self, audit: &mut Audit) {
        let (mut op, mut chain) = (self.base.op, self.base.chain);
        audit.begins = op;
        loop {
            if let Some((seq, signed)) = self.chains.get(&op) {
                if *signed == chain {
                    audit.chained = op;
                } else {
                    audit.found(
                        Some(*seq),
                        format!("up to entry {op} something else was ordered than a quorum has signed"),
                    );
                }
            }
            let next = self.committed.get(&op.next()).map(|(_, digest)| (op.next(), *digest));
            let Some((key, proposal)) = next.and_then(|key| Some((key, self.proposals.get(&key)?))) else { return };
            audit.entries.insert(key.0, proposal.batch());
            chain = chained(chain, key.1);
            op = key.0;
        }
    }
}
