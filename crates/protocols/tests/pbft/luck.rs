//! What random histories (`support/chaos.rs`) need to know of PBFT.

use crate::dice::Dice;
use crate::harness::{self, Cluster};
use quorate_core::outbox::Class;
use quorate_core::protocol::RestoreError;
use quorate_protocols::pbft::{Config, Record};

/// Histories of each kind.
pub const SEEDS: u64 = 300;
/// Sizes of groups, one of which luck chooses.
pub const SIZES: [usize; 7] = [1, 4, 4, 4, 4, 5, 7];
/// The smallest group in which others repair one damaged disk.
pub const REPAIRS: usize = 4;

pub fn config(dice: &mut Dice) -> Config {
    Config {
        checkpoint_entries: [2, 4, 64][dice.below(3)],
        state_entries: [3, 8, 4096][dice.below(3)],
        in_flight_entries: [1, 2, 8][dice.below(3)],
        tentative_requests: [0, 16][dice.below(2)],
        ..harness::config()
    }
}

/// Is this record damaged, and what does its frame still say of it?
pub fn damage(record: &Record, dice: &mut Dice) -> Option<Option<Class>> {
    if !matches!(record, Record::Proposal(..) | Record::Committed(_)) && !dice.one_in(8) {
        return None;
    }
    let is_entry = matches!(record, Record::Proposal(..) | Record::Committed(_) | Record::State(_));
    let class = if is_entry { Class::Entry } else { Class::Promise };
    Some(if dice.one_in(3) { None } else { Some(class) })
}

pub fn may_refuse(_: &RestoreError) -> bool {
    false
}

pub fn brief(record: &Record) -> String {
    match record {
        Record::Base(base) => format!("base {}, view {}", base.op, base.view),
        other => format!("{other:?}").chars().take(160).collect(),
    }
}

pub fn in_the_end(_: &Cluster) {}
