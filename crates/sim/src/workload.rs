//! What the clients of a random run ask for.

use crate::clock::{MICRO, MILLI};
use crate::random::Random;
use crate::registers::Operation;
use quorate_core::ids::OpNumber;
use quorate_core::protocol::{Call, Consistency};
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// Draws calls on registers: writes with values that nobody else writes, and reads of every consistency.
#[derive(Debug)]
pub struct Workload {
    random: Random,
    seed: u64,
    turns: BTreeMap<usize, u64>,
    keys: u64,
    reads: u64,
    /// How many of a million writes are of two registers.
    pairs: u64,
    think: u64,
    burst: u64,
    next_value: u64,
    left: u64,
}

impl Workload {
    /// `calls` calls in all. How many registers there are, how often they are read and how fast, the seed decides. With
    /// `pairs`, some writes are of two registers at once.
    pub fn new(mut random: Random, calls: u64, pairs: bool) -> Self {
        let keys = random.between(1, 5);
        let reads = random.between(50_000, 500_000);
        let think = random.between(2 * MILLI, 80 * MILLI);
        let burst = random.between(1, 8);
        let (seed, turns) = (random.bits(), BTreeMap::new());
        let pairs = if pairs { random.between(0, 200_000) } else { 0 };
        Self { random, seed, turns, keys, reads, pairs, think, burst, next_value: 1, left: calls }
    }

    /// What follows is drawn for this client: from a stream of its own, so that one client's luck is not another's.
    pub fn begin(&mut self, client: usize) {
        let turn = self.turns.entry(client).or_default();
        *turn = turn.saturating_add(1);
        self.random = Random::keyed(self.seed, &[client as u64, *turn]);
    }

    /// Calls that are still to be made.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// How long a client thinks before its next burst, nanoseconds.
    pub fn think(&mut self) -> u64 {
        self.random.between(100 * MICRO, self.think.saturating_mul(2))
    }

    /// How many calls a client makes at once.
    pub fn burst(&mut self) -> u64 {
        self.random.between(1, self.burst)
    }

    /// The next call of a client that has seen the state of entry `seen` and the value `found`; `None` when all are made.
    pub fn call(&mut self, seen: OpNumber, found: u64) -> Option<Call> {
        self.left = self.left.checked_sub(1)?;
        let key = u8::try_from(self.random.below(self.keys)).unwrap_or(0);
        if self.random.chance(self.reads) {
            let consistency = match self.random.below(4) {
                0 => Consistency::Stale { at_least: seen },
                1 => Consistency::Ordered,
                _ => Consistency::Linearizable,
            };
            return Some(Call::Read(consistency, Operation::Get { key }.encode().into()));
        }
        Some(self.write(key, found))
    }

    /// A write that is not counted: does the cluster still work?
    pub fn probe(&mut self) -> Call {
        self.write(0, 0)
    }

    fn write(&mut self, key: u8, found: u64) -> Call {
        let value = self.next_value;
        self.next_value = value.saturating_add(1);
        if self.pairs > 0 && self.keys > 1 && self.random.chance(self.pairs) {
            let last = self.keys.saturating_sub(1);
            let other = u8::try_from(self.random.below(last)).unwrap_or(0);
            let other = if other >= key { other.saturating_add(1) } else { other };
            return Call::Apply(Operation::Both { key, other, value }.encode().into());
        }
        let operation = match self.random.below(3) {
            0 => Operation::Cas { key, expected: found, value },
            _ => Operation::Put { key, value },
        };
        Call::Apply(operation.encode().into())
    }
}
