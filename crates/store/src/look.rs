//! A replica's folder, read to the last byte and not changed: for who wants to know what it holds, and whether all of it is as it
//! was written. Unlike [`crate::inspect()`] it gives the contents too, and it names damage that costs nothing since there is another copy.

use crate::bytes::is_zero;
use crate::disk::{Disk, DiskError, DiskFile as _};
use crate::replica::{Belongs, FolderError, Snapshots, belongs};
use crate::superblock::{SUPERBLOCK_COPIES, peek_superblock};
use crate::wal::segment::{BLOCK, LEN};
use crate::wal::{Item, Report, WalError, inspect_log, inspect_padding, inspect_segments};
use quorate_core::executor::Executor;
use quorate_core::ids::RecordSeq;
use quorate_core::machine::Machine;
use quorate_core::protocol::{Checkpoint, Protocol};
use quorate_core::wire::Wire;
use std::io::ErrorKind::NotFound;

/// What a folder holds.
#[derive(Debug)]
pub struct Looked<M> {
    /// Whose it is.
    pub belongs: Belongs,
    /// The records of the log, and what of it cannot be read.
    pub items: Vec<Item>,
    /// The states of the snapshots that are whole, in order.
    pub snapshots: Vec<(Checkpoint, Executor<M>)>,
    /// Everything that is not as it was written, each as a sentence that begins with the file.
    pub findings: Vec<String>,
}

/// Reads everything.
///
/// # Errors
/// [`FolderError`] if nobody can tell whose folder it is, or the disk refuses. Damage is no error.
pub fn look<D: Disk, M: Machine>(disk: &D) -> Result<Looked<M>, FolderError> {
    let superblock = peek_superblock(disk)?;
    let (belongs, log_id) = belongs(&superblock)?;
    let copies = superblock.repaired.iter();
    let mut findings: Vec<String> = copies
        .map(|copy| format!("superblock: copy {copy} of {SUPERBLOCK_COPIES} is damaged; the others are intact"))
        .collect();
    let mut items = Vec::new();
    match inspect_log(disk, Some(log_id))? {
        None => findings.push("wal: there is no log".to_owned()),
        Some(recovered) => {
            for (file, report) in inspect_segments(disk, Some(log_id))? {
                findings.extend(segment_findings(&file, &report));
                findings.extend(stray_findings(disk, &file)?);
            }
            for (file, seq) in inspect_padding(disk, Some(log_id))? {
                findings.push(format!("{file}: behind record {seq} there is something where nothing is written"));
            }
            findings.extend(log_findings(&recovered.report));
            items = recovered.items;
        }
    }
    let mut snapshots = Vec::new();
    for (number, restored) in Snapshots::untouched(disk).restore_each()? {
        match restored {
            Ok(restored) => snapshots.push(restored),
            Err(error) => findings.push(format!("snapshots/{number:016x}.snap: {error}")),
        }
    }
    Ok(Looked { belongs, items, snapshots, findings })
}

/// A segment that was there and is gone, since the log's beginning was forgotten meanwhile: read again so often, at most.
const ATTEMPTS_MAX: usize = 8;

/// The records of a folder's log alone, decoded as those of `P`, and how many numbers cannot be read. The replica may be running:
/// what it writes meanwhile is there or not, and a write that is under way looks like one that was cut short.
///
/// # Errors
/// As [`look`]; [`FolderError::Record`] for a record that is whole and does not decode.
#[expect(clippy::type_complexity, reason = "whose it is, records with their numbers, and a count")]
pub fn look_at_log<P: Protocol>(disk: &impl Disk) -> Result<(Belongs, Vec<(RecordSeq, P::Record)>, u64), FolderError> {
    let (belongs, log_id) = belongs(&peek_superblock(disk)?)?;
    if belongs.protocol != P::NAME {
        return Ok((belongs, Vec::new(), 0)); // its records would not decode; the caller sees whose they are
    }
    let mut attempts = 1..=ATTEMPTS_MAX;
    let recovered = loop {
        match inspect_log(disk, Some(log_id)) {
            Err(WalError::Disk(error)) if error.kind == NotFound && attempts.next().is_some() => {}
            other => break other?,
        }
    };
    let (mut records, mut damaged) = (Vec::new(), 0_u64);
    for item in recovered.map(|recovered| recovered.items).unwrap_or_default() {
        match item {
            Item::Damaged { first, last, .. } => {
                damaged = damaged.saturating_add(last.saturating_sub(first).saturating_add(1));
            }
            Item::Found { seq, body, .. } => {
                let seq = RecordSeq::new(seq);
                let record = P::Record::decode(&body);
                let record = record.map_err(|error| FolderError::Record { seq, error: error.to_string() })?;
                records.push((seq, record));
            }
        }
    }
    Ok((belongs, records, damaged))
}

fn segment_findings<'a>(file: &'a str, report: &'a Report) -> impl Iterator<Item = String> + 'a {
    let damaged = report.damaged.iter().map(move |(first, last)| match first == last {
        true => format!("{file}: record {first} is damaged"),
        false => format!("{file}: records {first} to {last} are damaged"),
    });
    let healed = report.healed.iter();
    damaged.chain(healed.map(move |seq| {
        format!("{file}: one of two copies of record {seq}, or of its header, is damaged; the other is intact")
    }))
}

/// What follows each copy of a segment's header is zero, and nobody reads it.
fn stray_findings<D: Disk>(disk: &D, file: &str) -> Result<Option<String>, DiskError> {
    let opened = disk.open_to_read(file)?;
    for copy in [0, 1] {
        let at = (copy * BLOCK + LEN) as u64;
        if !is_zero(&opened.read_at(at, BLOCK - LEN)?) {
            return Ok(Some(format!(
                "{file}: there is something behind copy {copy} of its header, where nothing is written"
            )));
        }
    }
    Ok(None)
}

fn log_findings(report: &Report) -> Vec<String> {
    let torn = report.torn.map(|torn| {
        format!(
            "wal: {} bytes from record {} on are a write that was cut short, or was changed since; nobody was told that it was safe",
            torn.bytes, torn.seq
        )
    });
    let tail = report.tail.map(|tail| {
        format!("wal: the end is damaged: up to {} records from {} on may be missing", tail.at_most, tail.from_seq)
    });
    torn.into_iter().chain(tail).chain(report.notes.iter().map(|note| format!("wal: {note}"))).collect()
}
