//! What the tests of the log share.

use quorate_store::disk::SimDisk;
use quorate_store::wal::{Class, Item, Recovered, Wal, WalConfig, WalError};

pub const SEGMENT_1: &str = "wal/0000000000000001.seg";
pub const SEGMENT_2: &str = "wal/0000000000000002.seg";
/// Where records start in a segment.
pub const RECORDS: u64 = 8192;
/// Bytes of a record's header.
pub const HEADER: u64 = 88;

pub fn config() -> WalConfig {
    WalConfig { segment_bytes: 32 << 10, first_segment_bytes: 16 << 10, body_bytes_max: 1 << 20, ..WalConfig::new(7) }
}

pub fn create(disk: &SimDisk) -> Wal<SimDisk> {
    Wal::create(disk, config()).expect("an empty disk takes a log")
}

pub fn open(disk: &SimDisk) -> (Wal<SimDisk>, Recovered) {
    Wal::open(disk, config()).expect("the log opens")
}

/// A body that tells its sequence number, of `len` bytes, none of which is zero.
pub fn body(seq: u64, len: usize) -> Vec<u8> {
    (0..len).map(|at| (seq.wrapping_mul(31).wrapping_add(at as u64) % 255) as u8 + 1).collect()
}

/// Appends and syncs one group of entries of `len` bytes.
pub fn group(wal: &mut Wal<SimDisk>, records: usize, len: usize) {
    for _ in 0..records {
        let body = body(wal.next_seq(), len);
        wal.append(Class::Entry, &body).expect("room");
    }
    wal.sync().expect("the disk works");
}

/// The sequence numbers found.
pub fn found(recovered: &Recovered) -> Vec<u64> {
    let seq = |item: &Item| {
        if let Item::Found { seq, .. } = item { Some(*seq) } else { None }
    };
    recovered.items.iter().filter_map(seq).collect()
}

/// The ranges reported as damaged.
pub fn damaged(recovered: &Recovered) -> Vec<(u64, u64)> {
    let range = |item: &Item| {
        if let Item::Damaged { first, last, .. } = item { Some((*first, *last)) } else { None }
    };
    recovered.items.iter().filter_map(range).collect()
}

/// Checks that every found record has the body that was appended under its number, and that items come in order.
pub fn assert_true_to(recovered: &Recovered, appended: &[Vec<u8>], context: &str) {
    let mut next = 0;
    for item in &recovered.items {
        assert!(item.first() > next || next == 0, "{context}: items out of order: {:?}", item.first());
        next = item.last();
        if let Item::Found { seq, body, .. } = item {
            assert_eq!(appended.get(*seq as usize - 1), Some(body), "{context}: wrong body for {seq}");
        }
    }
}

pub fn stopped<T: std::fmt::Debug>(result: Result<T, WalError>) -> bool {
    matches!(result, Err(WalError::Stopped { .. }))
}

/// A small generator of random numbers; the same seed gives the same numbers.
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}
