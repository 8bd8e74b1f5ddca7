//! What a log proves by itself: everything that somebody else has signed, to the last byte.

use crate::harness::{Cluster, keyring};
use crate::subject::{Record, Subject};
use bytes::Bytes;
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::sessions::Batch;
use quorate_core::wire::Wire;
use quorate_protocols::audit::{Audit, Audited};
use quorate_protocols::pbft;

/// A group that has taken checkpoints and changed its view.
fn history() -> Cluster {
    let module = pbft::Config { checkpoint_entries: 4, state_entries: 1_000, ..Default::default() };
    let mut it = Cluster::with(4, crate::subject::Config { module, ..crate::harness::config() });
    for index in 0..6 {
        it.apply(1, &format!("event {index}"));
    }
    it.crash(0);
    it.apply(1, "after a view change");
    it.restart(0);
    it.run(10_000);
    it
}

fn records(it: &Cluster, id: usize) -> Vec<(RecordSeq, Record)> {
    it.hosts[id].journal.iter().map(|record| (record.seq, record.record())).collect()
}

fn audit(it: &Cluster, records: Vec<(RecordSeq, Record)>) -> Audit {
    Subject::audit(records, &keyring(3, 4), &it.config)
}

fn operations(batch: &Bytes) -> Vec<Batch> {
    vec![Batch::decode(batch).expect("a batch")]
}

#[test]
fn a_whole_log_proves_every_entry_and_says_what_the_machine_was_given() {
    let it = history();
    for id in 0..4 {
        let audit = audit(&it, records(&it, id));
        assert_eq!(audit.findings, []);
        let last = it.status(id).committed;
        assert_eq!((audit.begins, audit.entries.keys().next_back()), (OpNumber::ZERO, Some(&last)));
        let applied: usize = audit.entries.values().flat_map(operations).map(|batch| batch.requests.len()).sum();
        assert!(applied >= 8, "seven operations, and one that opened the session");
        assert!(audit.chained.get() >= 4, "a quorum has signed the chain");
        assert!(audit.proofs > 30 && audit.receptions >= 8);
    }
}

#[test]
fn no_flipped_byte_of_anything_that_is_signed_is_overlooked() {
    let it = history();
    let whole = records(&it, 1);
    let clean = audit(&it, whole.clone());
    let mut tried = std::collections::BTreeMap::<&str, usize>::new();
    for (index, (seq, record)) in whole.iter().enumerate() {
        let Some(kind) = signed_kind(record) else { continue };
        let tries = tried.entry(kind).or_default();
        *tries += 1;
        if *tries > 2 {
            continue; // two of each kind
        }
        let bytes = record.encode();
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 1 << (at % 8);
            let Ok(bent) = Record::decode(&bent) else { continue }; // it is no record any more
            let mut all = whole.clone();
            all[index] = (*seq, bent);
            let found = audit(&it, all);
            assert!(
                !found.findings.is_empty() || found.entries.len() < clean.entries.len(),
                "byte {at} of {} of a {kind} (record {seq}) was flipped, and everything holds",
                bytes.len()
            );
        }
    }
    assert!(tried.len() >= 5, "{tried:?}");
}

/// What kind of record it is, if somebody has signed what it says.
fn signed_kind(record: &Record) -> Option<&'static str> {
    Some(match record {
        Record::Publication(_) => "publication",
        Record::Module(pbft::Record::Proposal(..)) => "proposal",
        Record::Module(pbft::Record::Prepared(_)) => "certificate that an entry is prepared",
        Record::Module(pbft::Record::Committed(_)) => "certificate that an entry is committed",
        Record::Module(pbft::Record::Started(_)) => "start of a view",
        Record::Module(pbft::Record::Stable(_)) => "checkpoint",
        _ => return None,
    })
}
