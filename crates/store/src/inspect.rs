//! `quorate verify`: what a data folder holds and what of it is damaged, without changing anything.

use crate::disk::{Disk, DiskError};
use crate::snapshot::SnapshotStore;
use crate::superblock::{SuperblockError, SuperblockRead, peek_superblock};
use crate::wal::{Report, WalError, inspect_log, inspect_segments};
use std::fmt;

/// A look at a data folder; displayed as the lines that a person reads.
#[derive(Clone, Debug)]
pub struct Inspection {
    /// The superblock.
    pub superblock: Result<SuperblockRead, SuperblockError>,
    /// The log as a whole; `None` if there is none. What the report says was repaired is what opening would repair.
    pub log: Result<Option<Report>, WalError>,
    /// Each segment of the log.
    pub segments: Vec<(String, Report)>,
    /// Each complete snapshot, and then each incoming one.
    pub snapshots: Vec<SnapshotReport>,
}

/// A look at one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Its number.
    pub number: u64,
    /// Whether it is still arriving from peers.
    pub incoming: bool,
    /// Its chunks.
    pub chunks: usize,
    /// Chunks that cannot be read, or have not arrived.
    pub unreadable: Vec<usize>,
    /// Why nothing of it can be used, as a sentence.
    pub useless: Option<String>,
}

/// Looks at a whole data folder and changes nothing. Reads every byte of it.
///
/// # Errors
/// If the disk refuses to be read. Damage is no error: it is in what is returned.
pub fn inspect(disk: &impl Disk) -> Result<Inspection, DiskError> {
    let superblock = match peek_superblock(disk) {
        Err(SuperblockError::Disk(error)) => return Err(error),
        other => other,
    };
    let (log, segments) = match (inspect_log(disk, None), inspect_segments(disk, None)) {
        (Err(WalError::Disk(error)), _) | (_, Err(WalError::Disk(error))) => return Err(error),
        (log, segments) => (log.map(|found| found.map(|found| found.report)), segments.unwrap_or_default()),
    };
    let store = SnapshotStore::untouched(disk);
    let mut snapshots = Vec::new();
    for number in store.list()? {
        let mut report = SnapshotReport { number, incoming: false, chunks: 0, unreadable: Vec::new(), useless: None };
        match store.read(number) {
            Ok(reader) => {
                report.chunks = reader.chunk_count();
                report.unreadable = (0..report.chunks).filter(|index| reader.chunk(*index).is_err()).collect();
            }
            Err(error) => report.useless = Some(error.to_string()),
        }
        snapshots.push(report);
    }
    for number in store.list_incoming()? {
        let mut report = SnapshotReport { number, incoming: true, chunks: 0, unreadable: Vec::new(), useless: None };
        match store.peek_incoming(number) {
            Ok((chunks, missing)) => (report.chunks, report.unreadable) = (chunks, missing),
            Err(error) => report.useless = Some(error.to_string()),
        }
        snapshots.push(report);
    }
    Ok(Inspection { superblock, log, segments, snapshots })
}

impl Inspection {
    /// Whether nothing is damaged or missing, as far as one can see. Copies that opening repairs do not count, nor does a
    /// torn write: neither has lost anything.
    pub fn is_intact(&self) -> bool {
        let log = matches!(&self.log, Ok(Some(report)) if report.is_intact());
        let readable = |snapshot: &SnapshotReport| {
            snapshot.incoming || (snapshot.useless.is_none() && snapshot.unreadable.is_empty())
        };
        self.superblock.is_ok() && log && self.snapshots.iter().all(readable)
    }
}

impl fmt::Display for Inspection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.superblock {
            Ok(read) if read.repaired.is_empty() => writeln!(f, "superblock: intact, sequence {}", read.sequence)?,
            Ok(read) => writeln!(f, "superblock: sequence {}, to repair: copies {:?}", read.sequence, read.repaired)?,
            Err(error) => writeln!(f, "superblock: {error}")?,
        }
        match &self.log {
            Ok(Some(report)) => writeln!(f, "{report}")?,
            Ok(None) => writeln!(f, "log: none")?,
            Err(error) => writeln!(f, "log: {error}")?,
        }
        for (name, report) in &self.segments {
            let last = report.next_seq.saturating_sub(1);
            let range = report.first_seq.map_or(String::new(), |first| format!(", sequence {first} to {last}"));
            let damage =
                if report.damaged.is_empty() { String::new() } else { format!(", DAMAGED {:?}", report.damaged) };
            writeln!(f, "{name}: {} records{range}{damage}", report.records)?;
        }
        for snapshot in &self.snapshots {
            let what = if snapshot.incoming { "incoming snapshot" } else { "snapshot" };
            write!(f, "{what} {:016x}: {} chunks", snapshot.number, snapshot.chunks)?;
            match (&snapshot.useless, snapshot.incoming) {
                (Some(why), _) => writeln!(f, ", USELESS: {why}")?,
                (None, true) => writeln!(f, ", {} not arrived", snapshot.unreadable.len())?,
                (None, false) if snapshot.unreadable.is_empty() => writeln!(f, ", intact")?,
                (None, false) => writeln!(f, ", DAMAGED chunks {:?}", snapshot.unreadable)?,
            }
        }
        Ok(())
    }
}
