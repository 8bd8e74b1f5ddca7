//! Looking at a log without changing it.

use super::recover::examine;
use super::report::{Recovered, Report};
use super::scan::Event;
use super::segment;
use super::{WalConfig, WalError};
use crate::disk::Disk;

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
