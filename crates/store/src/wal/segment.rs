//! One file of the log: two copies of a header in the first two blocks of 4 KiB, then records, then zeros.
//!
//! A segment is written with zeros to its full size and synced before it gets its name, so that a later sync of records
//! changes no metadata of the file, and so that a sector of a torn write is recognised: it is still zero.

use super::frame::SEQ_END;
use super::{WalConfig, WalError};
use crate::bytes::{array_at, crc, u32_at, u64_at};
use crate::disk::{Disk, DiskError, DiskFile};
use quorate_core::mutated;
use std::io;

/// The folder of the segments.
pub(crate) const FOLDER: &str = "wal";
/// Where the records of a segment start, in bytes.
pub(crate) const RECORDS: usize = 8192;
/// The unit of a segment's size, in bytes.
pub(crate) const BLOCK: usize = 4096;

const MAGIC: [u8; 8] = *b"QUORWAL\x01";
const VERSION: u32 = 2;
/// Bytes of one copy of a segment's header.
pub(crate) const LEN: usize = 64;
/// Bytes of zeros between two syncs: a sync of records that comes meanwhile waits behind so many, not behind the whole segment.
const SYNC_EVERY: u64 = 1 << 20;
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// What a segment says about itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) log_id: u128,
    pub(crate) number: u64,
    /// No record of the segment has a lower sequence number.
    pub(crate) floor: u64,
    /// Bytes of the file.
    pub(crate) size: u64,
}

/// What the two copies of a segment's header say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRead {
    Both(SegmentHeader),
    /// One copy is damaged.
    One(SegmentHeader, usize),
    Neither,
    Version(u32),
}

/// The name of a segment: its number, in hexadecimal.
pub(crate) fn name(number: u64) -> String {
    format!("{FOLDER}/{number:016x}.seg")
}

/// The number in the name of a file of the folder, if the file is a segment.
pub(crate) fn number_of(file: &str) -> Option<u64> {
    let digits = file.strip_suffix(".seg").filter(|digits| digits.len() == 16)?;
    u64::from_str_radix(digits, 16).ok().filter(|number| *number < SEQ_END && *file == format!("{number:016x}.seg"))
}

/// Whether a file of the folder is what a segment is called before it is complete.
pub(crate) fn is_unfinished(file: &str) -> bool {
    file.ends_with(".new")
}

/// The size of the segment after one of `previous` bytes, with room for `need` bytes of records.
pub(crate) fn next_size(config: &WalConfig, previous: u64, need: usize) -> u64 {
    let size = previous.saturating_mul(2).min(config.segment_bytes).max(config.first_segment_bytes);
    let least = RECORDS.saturating_add(need).checked_next_multiple_of(BLOCK).unwrap_or(usize::MAX);
    size.max(least as u64)
}

/// Makes a segment, safe under its name before this returns. Asks `until` before it writes so many bytes of it: that may block, and
/// if it says no, the segment is given up.
pub(crate) fn create<D: Disk>(
    disk: &D,
    header: &SegmentHeader,
    until: impl Fn(u64) -> bool,
) -> Result<D::File, DiskError> {
    let temporary = format!("{FOLDER}/{:016x}.new", header.number);
    if disk.exists(&temporary)? {
        disk.remove(&temporary)?;
    }
    let made = fill(disk, header, &temporary, until);
    if made.is_err() {
        let _ = disk.remove(&temporary); // The first error is the one to tell; an unfinished file is removed at the next start.
    }
    made
}

fn fill<D: Disk>(
    disk: &D,
    header: &SegmentHeader,
    temporary: &str,
    until: impl Fn(u64) -> bool,
) -> Result<D::File, DiskError> {
    let file = disk.create(temporary)?;
    let mut at = 0;
    while at < header.size {
        let len = (ZEROS.len() as u64).min(header.size.saturating_sub(at));
        if !until(at.saturating_add(len)) {
            let ended = io::Error::new(io::ErrorKind::Interrupted, "the log that ordered it has ended");
            return Err(DiskError::new("fill", temporary, &ended));
        }
        file.write_at(at, ZEROS.get(..len as usize).unwrap_or(&ZEROS))?;
        at = at.saturating_add(len);
        if at.is_multiple_of(SYNC_EVERY) {
            file.sync_data()?;
        }
    }
    for copy in [0, 1] {
        write_header(&file, header, copy)?;
    }
    if !mutated!("segment/not-synced") {
        file.sync_data()?;
    }
    disk.rename(temporary, &name(header.number))?;
    if !mutated!("segment/name-not-synced") {
        disk.sync_dir(FOLDER)?;
    }
    Ok(file)
}

/// Writes one copy of a header; the caller syncs.
pub(crate) fn write_header(file: &impl DiskFile, header: &SegmentHeader, copy: usize) -> Result<(), DiskError> {
    let mut bytes = Vec::with_capacity(LEN);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&(copy as u32).to_le_bytes());
    bytes.extend_from_slice(&header.log_id.to_le_bytes());
    bytes.extend_from_slice(&header.number.to_le_bytes());
    bytes.extend_from_slice(&header.floor.to_le_bytes());
    bytes.extend_from_slice(&header.size.to_le_bytes());
    bytes.extend_from_slice(&0_u32.to_le_bytes());
    let check = crc(&[&bytes]);
    bytes.extend_from_slice(&check.to_le_bytes());
    file.write_at((copy as u64).saturating_mul(BLOCK as u64), &bytes)
}

/// Reads the header of a segment from the first bytes of its file.
pub(crate) fn read_header(segment: &[u8]) -> HeaderRead {
    match (decode(segment, 0), decode(segment, 1)) {
        (Some(Err(version)), _) | (_, Some(Err(version))) => HeaderRead::Version(version),
        (Some(Ok(first)), Some(Ok(second))) if first == second => HeaderRead::Both(first),
        (Some(Ok(header)), _) => HeaderRead::One(header, 1),
        (None, Some(Ok(header))) => HeaderRead::One(header, 0),
        (None, None) => HeaderRead::Neither,
    }
}

fn decode(segment: &[u8], copy: usize) -> Option<Result<SegmentHeader, u32>> {
    let bytes: [u8; LEN] = array_at(segment, copy.checked_mul(BLOCK)?)?;
    let (fields, check) = bytes.split_at(60);
    if array_at(fields, 0)? != MAGIC || u32_at(fields, 12)? != copy as u32 || u32_at(check, 0)? != crc(&[fields]) {
        return None;
    }
    match u32_at(fields, 8)? {
        VERSION => {}
        version => return Some(Err(version)),
    }
    let header = SegmentHeader {
        log_id: u128::from_le_bytes(array_at(fields, 16)?),
        number: u64_at(fields, 32)?,
        floor: u64_at(fields, 40)?,
        size: u64_at(fields, 48)?,
    };
    (header.floor < SEQ_END).then_some(Ok(header))
}

/// Checks that a segment is the one that its name says and belongs to the log `log_id`.
pub(crate) fn check_identity(number: u64, log_id: u128, read: &HeaderRead) -> Result<(), WalError> {
    match read {
        HeaderRead::Version(version) => Err(WalError::Version { file: name(number), version: *version }),
        HeaderRead::Both(header) | HeaderRead::One(header, _) if header.log_id != log_id => {
            Err(WalError::Foreign { file: name(number), found: header.log_id, expected: log_id })
        }
        HeaderRead::Both(header) | HeaderRead::One(header, _) if header.number != number => {
            Err(WalError::Misnamed { file: name(number), number: header.number })
        }
        _ => Ok(()),
    }
}
