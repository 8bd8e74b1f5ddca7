//! The arithmetic of time: when epochs begin, by when a chain of signatures must have come, when there is an output.

use super::Config;
use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::quorum::SyncQuorums;
use quorate_core::time::{Duration, WallTime};
use std::fmt;

/// The number of an epoch: epoch `e` begins when clocks show `e T`. Not the epoch of a membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct EpochNumber(u64);

impl EpochNumber {
    /// Before every epoch.
    pub const ZERO: Self = Self(0);

    /// Wraps a raw number.
    pub const fn new(raw: u64) -> Self {
        Self(raw)
    }

    /// The raw number.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The number after this one; saturates.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }

    /// This number plus `count`; saturates.
    #[must_use]
    pub const fn plus(self, count: u64) -> Self {
        Self(self.0.saturating_add(count))
    }
}

impl fmt::Display for EpochNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Deadlines that follow from the configuration. All times are those of the clocks that are kept in step (`clock.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    epoch: u64,
    round: u64,
    rounds: u32,
    epsilon: Duration,
}

impl Schedule {
    /// The schedule of a group.
    pub fn new(config: &Config, quorums: &SyncQuorums) -> Self {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 1024);
        let bound = nanos(config.delta).saturating_add(nanos(config.epsilon));
        let drift = bound / 1_000_000 * config.drift_ppm.min(1_000_000);
        Self {
            epoch: nanos(config.epoch).max(1_000_000),
            round: bound.saturating_add(drift).max(1),
            rounds: u32::try_from(quorums.vouch()).unwrap_or(u32::MAX),
            epsilon: config.epsilon,
        }
    }

    /// One round (R): (Δ + ε)(1 + ρ).
    pub const fn round(&self) -> Duration {
        Duration::from_nanos(self.round)
    }

    /// From the start of a broadcast to its output: (f + 1) R.
    pub fn window(&self) -> Duration {
        self.round().saturating_mul(self.rounds)
    }

    /// When an epoch begins (`τ_e`).
    pub const fn start(&self, epoch: EpochNumber) -> WallTime {
        WallTime::from_nanos(epoch.0.saturating_mul(self.epoch))
    }

    /// The epoch in which a clock is that shows this.
    pub const fn epoch_at(&self, clock: WallTime) -> EpochNumber {
        EpochNumber(clock.as_nanos() / self.epoch)
    }

    /// How many epochs begin within so long.
    pub fn epochs_in(&self, duration: Duration) -> u64 {
        u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX) / self.epoch
    }

    /// By when a chain of `signers` counts: `τ + k R`.
    pub fn deadline(&self, start: WallTime, signers: usize) -> WallTime {
        let signers = u32::try_from(signers).unwrap_or(u32::MAX).min(self.rounds);
        start.plus(self.round().saturating_mul(signers))
    }

    /// From when on a chain of `signers` counts: a clock that is ahead sends early, each signer by ε at most.
    pub fn opens(&self, start: WallTime, signers: usize) -> WallTime {
        let early = self.epsilon.saturating_mul(u32::try_from(signers).unwrap_or(u32::MAX));
        let early = u64::try_from(early.as_nanos()).unwrap_or(u64::MAX);
        WallTime::from_nanos(start.as_nanos().saturating_sub(early))
    }

    /// When a broadcast that begins then has its output: `τ + (f + 1) R`.
    pub fn output(&self, start: WallTime) -> WallTime {
        start.plus(self.window())
    }
}
