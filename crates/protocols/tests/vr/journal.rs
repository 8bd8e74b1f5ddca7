//! What a replica finds after a power failure at any moment: every prefix of its journal that reaches the last sync is the
//! log that it promised.

use crate::dice::Dice;
use crate::harness::{Cluster, config, replica};
use quorate_core::ids::OpNumber;
use quorate_protocols::vr::{Config, Message};

/// The last entry that this replica has acknowledged, as far as entries are committed by now.
fn acknowledged(it: &Cluster, id: usize) -> OpNumber {
    let committed = it.applied.last_key_value().map(|(op, _)| *op).unwrap_or_default();
    let own = it.sent.iter().filter(|sent| sent.from == replica(id)).filter_map(|sent| match sent.message() {
        Some(Message::PrepareOk { op, .. }) => Some(op),
        _ => None,
    });
    own.filter(|op| *op <= committed).max().unwrap_or_default()
}

#[test]
fn every_prefix_of_a_journal_that_reaches_the_last_sync_holds_what_was_acknowledged() {
    for seed in 0..60 {
        let mut dice = Dice::new(seed);
        let mut it = Cluster::with(3, Config { checkpoint_entries: [3, 4096][dice.below(2)], ..config() });
        it.apply(1, "a");
        for step in 0..30 {
            it.submit(1, &step.to_string());
            let id = dice.below(3);
            match dice.below(6) {
                0 => it.restart(id),
                1 => {
                    it.isolate(id);
                }
                2 => it.hosts[id].fast_disk = false,
                3 => {
                    it.sync(id);
                }
                _ => {
                    it.heal();
                }
            }
            it.run(dice.next() % 500);
        }
        for id in 0..3 {
            let promised = acknowledged(&it, id);
            let (durable, end) = (it.hosts[id].durable, it.hosts[id].next_seq);
            let journal = it.hosts[id].journal.clone();
            let mut last = durable;
            while last < end {
                let host = &mut it.hosts[id];
                (host.journal, host.durable, host.next_seq) = (journal.clone(), last, end);
                it.isolate(id).restart(id);
                assert!(it.status(id).op >= promised, "seed {seed}, R{id}, cut after {last}: {promised} is gone");
                last = last.next();
            }
        }
    }
}
