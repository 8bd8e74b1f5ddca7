//! The only place that reads clocks and draws random bits for a replica.

use quorate_core::outbox::Turn;
use quorate_core::time::{Instant, WallTime};
use ring::rand::{SecureRandom, SystemRandom};
use std::time::SystemTime;

/// A replica's clocks and random source.
pub(crate) struct Clock {
    start: tokio::time::Instant,
    random: SystemRandom,
}

impl Clock {
    /// Starts counting now.
    pub(crate) fn start() -> Self {
        Self { start: tokio::time::Instant::now(), random: SystemRandom::new() }
    }

    /// Nanoseconds since the start.
    pub(crate) fn now(&self) -> Instant {
        Instant::from_nanos(u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX))
    }

    /// What a turn that begins now is told.
    pub(crate) fn turn(&self) -> Turn {
        let wall = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let wall = WallTime::from_nanos(u64::try_from(wall.as_nanos()).unwrap_or(u64::MAX));
        let mut bits = [0; 8];
        // A nonce only has to differ from earlier ones; without randomness the clock still makes it so.
        let entropy = match self.random.fill(&mut bits) {
            Ok(()) => u64::from_le_bytes(bits),
            Err(_) => wall.as_nanos(),
        };
        Turn { now: self.now(), wall, entropy }
    }

    /// The runtime's instant for one of ours.
    pub(crate) fn at(&self, instant: Instant) -> tokio::time::Instant {
        self.start + std::time::Duration::from_nanos(instant.as_nanos())
    }
}
