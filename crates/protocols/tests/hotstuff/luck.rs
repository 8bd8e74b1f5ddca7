//! What random histories (`support/chaos.rs`) need to know of HotStuff.

use crate::dice::Dice;
use crate::harness::Cluster;
use quorate_core::outbox::Class;
use quorate_core::protocol::RestoreError;
use quorate_protocols::hotstuff::{Config, Record, Rules};

/// Histories of each kind.
pub const SEEDS: u64 = 300;
/// Sizes of groups, one of which luck chooses.
pub const SIZES: [usize; 7] = [1, 4, 4, 4, 4, 5, 7];
/// The smallest group in which others repair one damaged disk.
pub const REPAIRS: usize = 4;

pub fn config(dice: &mut Dice) -> Config {
    Config {
        rules: [Rules::ThreeChain, Rules::TwoChain][dice.below(2)],
        leader_views: [1, 4, 100][dice.below(3)],
        state_blocks: [6, 12, 4096][dice.below(3)],
        run_ahead: [0, 1, 3][dice.below(3)],
        ..Config::default()
    }
}

/// Is this record damaged, and what does its frame still say of it? Without the record of a snapshot's block, a replica may
/// refuse to start, and says so: not looked at here.
pub fn damage(record: &Record, dice: &mut Dice) -> Option<Option<Class>> {
    let is_entry = matches!(record, Record::Block(_));
    if !is_entry && (!dice.one_in(8) || matches!(record, Record::Root(_) | Record::Base(_))) {
        return None;
    }
    let class = if is_entry { Class::Entry } else { Class::Promise };
    Some(if dice.one_in(3) { None } else { Some(class) })
}

pub fn may_refuse(_: &RestoreError) -> bool {
    false
}

pub fn brief(record: &Record) -> String {
    match record {
        Record::Base(base) => format!("base {}, view {}", base.root.op, base.safety.view),
        other => format!("{other:?}").chars().take(160).collect(),
    }
}

pub fn in_the_end(it: &Cluster) {
    let wrong = (0..it.hosts.len()).any(|id| it.machine(id).wrong > 0);
    assert!(!wrong, "a proposal came to a state that it was not made for");
}
