//! What random histories (`support/chaos.rs`) need to know of Viewstamped Replication.

use crate::dice::Dice;
use crate::harness::{self, Cluster};
use quorate_core::outbox::Class;
use quorate_core::protocol::RestoreError;
use quorate_core::time::Duration;
use quorate_protocols::vr::{Config, Reads, Record, ViewChangePolicy};

/// Histories of each kind.
pub const SEEDS: u64 = 300;
/// Sizes of groups, one of which luck chooses.
pub const SIZES: [usize; 7] = [1, 2, 3, 3, 3, 4, 5];
/// The smallest group in which others repair one damaged disk.
pub const REPAIRS: usize = 3;

pub fn config(dice: &mut Dice) -> Config {
    Config {
        checkpoint_entries: [3, 8, 4096][dice.below(3)],
        reads: [Reads::Index, Reads::Lease][dice.below(2)],
        policy: [ViewChangePolicy::Quorum, ViewChangePolicy::Quorum, ViewChangePolicy::Direct][dice.below(3)],
        abdicate: Duration::from_millis(500),
        ..harness::config()
    }
}

/// Is this record damaged, and what does the log still say of it?
pub fn damage(record: &Record, dice: &mut Dice) -> Option<Option<Class>> {
    match record {
        Record::Entry(_) => Some(if dice.one_in(8) { None } else { Some(Class::Entry) }),
        Record::Promise(_) => dice.one_in(6).then_some(Some(Class::Promise)),
    }
}

/// A promise that cannot be read is what `quorate recover` is for.
pub fn may_refuse(error: &RestoreError) -> bool {
    matches!(error, RestoreError::PromisesLost(_))
}

pub fn brief(record: &Record) -> String {
    match record {
        Record::Entry(entry) => format!("entry {} of view {}", entry.header.op, entry.header.view),
        Record::Promise(promise) => {
            let suffix = promise.suffix.as_ref().map(|it| (it.after.get(), it.headers.len()));
            let (view, log_view, base) = (promise.view, promise.log_view, promise.base.op);
            format!("view {view}, log of {log_view}, committed {}, base {base}, suffix {suffix:?}", promise.committed)
        }
    }
}

pub fn in_the_end(_: &Cluster) {}
