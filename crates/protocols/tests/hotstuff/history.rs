//! Access to the committed blocks of a log (the seed's README: height → hash, height → block).

use crate::harness::{Cluster, OnDisk};
use crate::words::{config, op, under};
use quorate_protocols::hotstuff::{Config, History, NotHere, Record, Rules};

/// What this replica's disk tells.
fn history(it: &Cluster, id: usize) -> History {
    let intact = it.hosts[id].journal.iter().filter(|record| record.damaged.is_none());
    History::of(intact.map(|record| (record.seq, OnDisk::record(record))), it.config.rules)
}

fn operations(history: &History) -> Vec<String> {
    let all = history.blocks().flat_map(|(_, block)| block.payload.operations());
    all.map(|operation| String::from_utf8_lossy(operation).into_owned()).collect()
}

#[test]
fn every_committed_block_is_found_by_its_height_and_no_other() {
    for rules in [Rules::ThreeChain, Rules::TwoChain] {
        let mut it = Cluster::with(4, under(rules));
        it.client(1).apply(1, "a").apply(1, "b");
        it.run(1_000);
        it.lose(|it| it.label == "Vote");
        it.submit(1, "c");
        it.deliver();
        let history = history(&it, 0);
        assert_eq!(operations(&history), ["a", "b"], "the block of c is on this disk, and certified by nobody");
        assert_eq!(history.head().op.get(), it.committed(0));
        let last = history.head().op;
        for height in 1..=last.get() {
            let block = history.block(op(height)).expect("all of them are here");
            assert_eq!(history.name(op(height)), Ok(block.header.id()));
            assert_eq!(history.name(op(height - 1)), Ok(block.header.parent));
        }
        assert_eq!(history.block(last.next()), Err(NotHere::NotCommitted { asked: last.next(), last }));
    }
}

#[test]
fn a_replica_that_was_killed_tells_what_it_knew_and_after_its_restart_the_rest() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(1_000);
    it.crash(3);
    it.apply(1, "b").apply(1, "c");
    it.run(1_000);
    assert_eq!(operations(&history(&it, 3)), ["a"]);
    it.restart(3);
    it.run_until("R3 has it all", |it| it.tape(3).len() == 3);
    it.run(1_000);
    assert_eq!(history(&it, 3), history(&it, 0));
}

#[test]
fn what_a_snapshot_has_taken_the_place_of_is_forgotten_and_the_rest_is_there() {
    let mut it = Cluster::with(4, Config { state_blocks: 6, ..config() });
    it.client(1);
    let all: Vec<String> = (0..20).map(|index| format!("x{index}")).collect();
    for operation in &all {
        it.apply(1, operation);
    }
    it.run(2_000);
    let history = history(&it, 1);
    let (first, last) = history.heights().expect("the last blocks");
    assert!(first > op(1) && last == history.head().op);
    assert_eq!(history.block(op(1)), Err(NotHere::Forgotten { asked: op(1), first }));
    assert!(history.name(first.previous()).is_ok(), "the snapshot's block is known by name");
    let told = operations(&history);
    assert!(!told.is_empty() && all.ends_with(&told), "{told:?}");
}

#[test]
fn below_a_block_that_cannot_be_read_nothing_is_told() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").apply(1, "b").apply(1, "c");
    it.run(1_000);
    let is_of_b = |record: &OnDisk| match record.record() {
        Record::Block(block) => block.payload.operations().any(|operation| operation == "b"),
        _ => false,
    };
    let lost = it.hosts[0].journal.iter_mut().find(|record| is_of_b(record)).expect("its block");
    lost.damaged = Some(None);
    let history = history(&it, 0);
    assert_eq!(operations(&history), ["c"]);
    assert!(matches!(history.block(op(1)), Err(NotHere::Forgotten { .. })));
}
