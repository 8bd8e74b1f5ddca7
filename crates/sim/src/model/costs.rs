//! What things cost.

use serde::{Deserialize, Serialize};

/// What the work of a replica costs in time, and how fast its network and its disk are. `quorate sim --calibrate FILE`
/// measures all but the network on the machine it runs on; the network is the user's to describe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Costs {
    /// Making one signature, nanoseconds.
    pub sign_ns: u64,
    /// Checking one signature, nanoseconds.
    pub verify_ns: u64,
    /// Taking one frame from a link, or giving it to one, whatever its length: encryption, system calls, nanoseconds.
    pub frame_ns: u64,
    /// One byte of a frame, on either side: copied, encoded, encrypted, picoseconds.
    pub frame_byte_ps: u64,
    /// One byte of the log: encoded, checksummed, copied, picoseconds.
    pub log_byte_ps: u64,
    /// One turn of the protocol, without signatures, frames and bytes, nanoseconds.
    pub turn_ns: u64,
    /// Applying one operation, nanoseconds.
    pub apply_ns: u64,
    /// One sync of the log, nanoseconds.
    pub sync_ns: u64,
    /// One byte that a sync has to write, picoseconds.
    pub sync_byte_ps: u64,
    /// Cores of a replica that check signatures, beside the one that has the protocol's thread. At least one.
    pub openers: u64,
    /// From one machine to another, one way, nanoseconds.
    pub latency_ns: u64,
    /// One byte on a machine's line, in each direction, picoseconds.
    pub line_byte_ps: u64,
}

impl Costs {
    /// What `--calibrate` measured on two cores of a virtual machine (AMD EPYC, virtual disk) that had nothing else to do; the network
    /// is assumed: 10 Gbit/s, 50 µs one way.
    pub const MEASURED: Self = Self {
        sign_ns: 20_168,
        verify_ns: 32_591,
        frame_ns: 750,
        frame_byte_ps: 462,
        log_byte_ps: 55,
        turn_ns: 2_790,
        apply_ns: 2_240,
        sync_ns: 90_047,
        sync_byte_ps: 330,
        openers: 1,
        latency_ns: 50_000,
        line_byte_ps: 800,
    };

    /// Everything for nothing, at once: to set a price on one thing and see what follows.
    pub const FREE: Self = Self {
        sign_ns: 0,
        verify_ns: 0,
        frame_ns: 0,
        frame_byte_ps: 0,
        log_byte_ps: 0,
        turn_ns: 0,
        apply_ns: 0,
        sync_ns: 0,
        sync_byte_ps: 0,
        openers: 1,
        latency_ns: 0,
        line_byte_ps: 0,
    };

    /// So many bytes at so many picoseconds each, nanoseconds.
    pub(super) fn bytes(bytes: u64, each_ps: u64) -> u64 {
        bytes.saturating_mul(each_ps) / 1000
    }
}

impl Default for Costs {
    fn default() -> Self {
        Self::MEASURED
    }
}
