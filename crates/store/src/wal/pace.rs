//! How fast the next segment is filled with zeros: as the log comes nearer to its need of it, and no faster. At full speed, tens
//! of megabytes of zeros would stand in the disk's queue, and every sync of records behind them.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Bytes of zeros that are written before the log has gone on, so that a log that goes on by leaps finds something there: 4 MiB.
const HEAD_START: u64 = 4 << 20;

/// How far a segment may be filled.
#[derive(Debug)]
pub(super) struct Pace {
    /// Bytes of the segment that is being filled.
    size: u64,
    /// Bytes that the log had left in its own segment when the other one was ordered.
    left: u64,
    allowed: Mutex<Allowed>,
    changed: Condvar,
}

/// What the log has said last.
#[derive(Clone, Copy, Debug)]
struct Allowed {
    /// The first bytes of the segment that may be written.
    bytes: u64,
    /// There is no log any more that would use it.
    ended: bool,
}

impl Pace {
    /// The log has `left` bytes of its segment left, and orders one of `size`.
    pub(super) fn new(size: u64, left: u64) -> Arc<Self> {
        let allowed = Mutex::new(Allowed { bytes: HEAD_START, ended: false });
        Arc::new(Self { size, left: left.max(1), allowed, changed: Condvar::new() })
    }

    /// The log has used so many bytes of what it had left. The segment may be full when three quarters are used.
    fn used(&self, bytes: u64) {
        let share = u128::from(self.size).saturating_mul(u128::from(bytes)).saturating_mul(4);
        let share = share.checked_div(u128::from(self.left).saturating_mul(3)).unwrap_or(u128::MAX);
        self.allow(HEAD_START.saturating_add(u64::try_from(share).unwrap_or(u64::MAX)));
    }

    fn allow(&self, bytes: u64) {
        let mut allowed = self.allowed();
        if bytes > allowed.bytes {
            allowed.bytes = bytes;
            self.changed.notify_all();
        }
    }

    fn end(&self) {
        self.allowed().ended = true;
        self.changed.notify_all();
    }

    /// Blocks until the first `bytes` of the segment may be written; false if nobody will use it.
    pub(super) fn wait_for(&self, bytes: u64) -> bool {
        let mut allowed = self.allowed();
        while allowed.bytes < bytes.min(self.size) && !allowed.ended {
            allowed = self.changed.wait(allowed).unwrap_or_else(PoisonError::into_inner);
        }
        !allowed.ended
    }

    fn allowed(&self) -> MutexGuard<'_, Allowed> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log's end of a pace. When it is dropped the log has ended, and the segment is given up: the next life makes one if it needs one.
#[derive(Debug)]
pub(super) struct Pacemaker {
    pace: Arc<Pace>,
    /// Where the log's segment ended when the other one was ordered.
    from: usize,
}

impl Pacemaker {
    pub(super) const fn new(pace: Arc<Pace>, from: usize) -> Self {
        Self { pace, from }
    }

    /// The log's segment ends at `end` now.
    pub(super) fn at(&self, end: usize) {
        self.pace.used(end.saturating_sub(self.from) as u64);
    }

    /// The log waits for it: at full speed.
    pub(super) fn hurry(&self) {
        self.pace.allow(u64::MAX);
    }
}

impl Drop for Pacemaker {
    fn drop(&mut self) {
        self.pace.end();
    }
}
