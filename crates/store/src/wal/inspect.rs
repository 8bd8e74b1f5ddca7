//! Looking at a log without changing it.

use super::frame::HEADER;
use super::recover::examine;
use super::report::{Recovered, Report};
use super::scan::Event;
use super::segment;
use super::{WalConfig, WalError};
use crate::bytes::is_zero;
use crate::disk::{Disk, DiskFile as _};

/// Reads the whole log as [`super::Wal::open`] would and changes nothing; `None` if there is none. What the report calls
/// removed or written again is what opening would do. Without `log_id` the first readable header says which log it is.
///
/// # Errors
/// As [`super::Wal::open`].
pub fn inspect_log(disk: &impl Disk, log_id: Option<u128>) -> Result<Option<Recovered>, WalError> {
    let size = WalConfig::new(0).segment_bytes;
    Ok(examine(disk, log_id, size)?.map(|mut found| found.report()))
}

/// For each segment: its file's name and a report of the records in it alone.
///
/// # Errors
/// As [`super::Wal::open`].
pub fn inspect_segments(disk: &impl Disk, log_id: Option<u128>) -> Result<Vec<(String, Report)>, WalError> {
    let size = WalConfig::new(0).segment_bytes;
    let Some(found) = examine(disk, log_id, size)? else {
        return Ok(Vec::new());
    };
    let mut files = Vec::with_capacity(found.segments.len());
    for (scan, _) in &found.segments {
        let mut report = Report { segments: 1, bytes: scan.len, ..Report::default() };
        for event in &found.events {
            match event {
                Event::Record(record) if record.place.segment == scan.number => {
                    let seq = record.header.seq;
                    report.first_seq.get_or_insert(seq);
                    report.next_seq = seq.saturating_add(1);
                    match record.body {
                        Some(_) => report.records = report.records.saturating_add(1),
                        None => report.damaged.push((seq, seq)),
                    }
                    report.healed.extend(record.healed.then_some(seq));
                }
                Event::Lost(lost) if lost.place.segment == scan.number => report.damaged.push((lost.first, lost.last)),
                _ => {}
            }
        }
        files.push((segment::name(scan.number), report));
    }
    Ok(files)
}

/// Records that stand before something else than the zeros that were written behind them, each with its file: bytes that nobody
/// reads, and that no checksum covers.
///
/// # Errors
/// As [`super::Wal::open`].
pub(crate) fn inspect_padding(disk: &impl Disk, log_id: Option<u128>) -> Result<Vec<(String, u64)>, WalError> {
    let size = WalConfig::new(0).segment_bytes;
    let Some(found) = examine(disk, log_id, size)? else { return Ok(Vec::new()) };
    let mut odd = Vec::new();
    for (scan, _) in &found.segments {
        let name = segment::name(scan.number);
        let bytes = disk.open_to_read(&name)?.read_at(0, usize::try_from(scan.len).unwrap_or(usize::MAX))?;
        for event in &found.events {
            let Event::Record(record) = event else { continue };
            if record.place.segment != scan.number {
                continue;
            }
            let copies = bytes.get(record.place.start..record.place.end).unwrap_or_default();
            let mut copies = copies.chunks(record.header.span());
            let is_odd = |copy: &[u8]| {
                !copy.get(HEADER..).and_then(|rest| rest.get(record.header.len as usize..)).is_none_or(is_zero)
            };
            if copies.any(is_odd) {
                odd.push((name.clone(), record.header.seq));
            }
        }
    }
    Ok(odd)
}
