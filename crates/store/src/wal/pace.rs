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
    allowed: Mutex<u64>,
    changed: Condvar,
}

impl Pace {
    /// The log has `left` bytes of its segment left, and orders one of `size`.
    pub(super) fn new(size: u64, left: u64) -> Arc<Self> {
        let allowed = Mutex::new(HEAD_START);
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
        if bytes > *allowed {
            *allowed = bytes;
            self.changed.notify_all();
        }
    }

    /// Blocks until the first `bytes` of the segment may be written.
    pub(super) fn wait_for(&self, bytes: u64) {
        let mut allowed = self.allowed();
        while *allowed < bytes.min(self.size) {
            allowed = self.changed.wait(allowed).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn allowed(&self) -> MutexGuard<'_, u64> {
        self.allowed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The log's end of a pace. When it is dropped, the segment is filled at full speed: nobody would tell how the log goes on.
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

    /// Nothing tells any more how fast: at full speed.
    pub(super) fn hurry(&self) {
        self.pace.allow(u64::MAX);
    }
}

impl Drop for Pacemaker {
    fn drop(&mut self) {
        self.hurry();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;
    use std::thread;
    use std::time::Duration;

    const MIB: u64 = 1 << 20;

    /// Fills a segment of 64 MiB as told, for a log with 32 MiB left; tells of each MiB.
    fn filler(pace: &Arc<Pace>) -> std::sync::mpsc::Receiver<u64> {
        let (sender, filled) = channel();
        let pace = pace.clone();
        thread::spawn(move || {
            for mib in 1..=64 {
                pace.wait_for(mib * MIB);
                if sender.send(mib).is_err() {
                    return;
                }
            }
        });
        filled
    }

    fn filled(by: &std::sync::mpsc::Receiver<u64>, mib: u64) {
        let last = std::iter::from_fn(|| by.recv_timeout(Duration::from_secs(10)).ok()).find(|it| *it == mib);
        assert_eq!(last, Some(mib));
    }

    #[test]
    fn a_segment_is_filled_as_the_log_goes_on_and_is_full_before_it_is_needed() {
        let pace = Pace::new(64 * MIB, 32 * MIB);
        let pacemaker = Pacemaker::new(pace.clone(), 0);
        let filler = filler(&pace);
        filled(&filler, 4);
        assert_eq!(*pace.allowed(), 4 * MIB, "and waits");
        pacemaker.at(12 << 20); // three eighths
        filled(&filler, 36);
        assert_eq!(*pace.allowed(), 36 * MIB, "half of it, and its start");
        assert!(filler.try_recv().is_err());
        pacemaker.at(24 << 20);
        filled(&filler, 64);
    }

    #[test]
    fn a_segment_whose_log_is_gone_is_filled_at_once() {
        let pace = Pace::new(64 * MIB, 32 * MIB);
        let filler = filler(&pace);
        filled(&filler, 4);
        drop(Pacemaker::new(pace, 0));
        filled(&filler, 64);
    }
}
