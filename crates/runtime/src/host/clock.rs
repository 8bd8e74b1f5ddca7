//! The only place that reads clocks and draws random bits for a replica.

use quorate_core::outbox::Turn;
use quorate_core::time::{Instant, WallTime};
use ring::rand::{SecureRandom, SystemRandom};
use std::time::SystemTime;

/// Random bytes that are drawn at once: a call of the system for each turn would be a tenth of a turn's cost.
const RANDOM_BYTES: usize = 1024;

/// A replica's clocks and random source.
pub(crate) struct Clock {
    start: tokio::time::Instant,
    random: SystemRandom,
    /// Random bytes, and how many of them are used.
    drawn: ([u8; RANDOM_BYTES], usize),
}

impl Clock {
    /// Starts counting now.
    pub(crate) fn start() -> Self {
        Self {
            start: tokio::time::Instant::now(),
            random: SystemRandom::new(),
            drawn: ([0; RANDOM_BYTES], RANDOM_BYTES),
        }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// What a turn that begins now is told.
    pub(crate) fn turn(&mut self) -> Turn {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = WallTime::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        // A nonce only has to differ from earlier ones; without randomness the clock still makes it so.
        let entropy = self.nonce().unwrap_or(wall.as_nanos());
        Turn { now: self.now(), wall, entropy }
    }

    /// Eight random bytes, each given out once.
    fn nonce(&mut self) -> Option<u64> {
        let (bytes, used) = &mut self.drawn;
        if *used == RANDOM_BYTES {
            self.random.fill(bytes).ok()?;
            *used = 0;
        }
        let (nonce, _) = bytes.get(*used..)?.split_first_chunk()?;
        *used += nonce.len();
        Some(u64::from_le_bytes(*nonce))
    }

    /// The runtime's instant for one of ours.
    pub(crate) fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.start + std::time::Duration::from_nanos(instant.as_nanos())
    }
}
