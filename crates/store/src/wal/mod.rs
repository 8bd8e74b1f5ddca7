//! The write-ahead log: bodies get consecutive sequence numbers and are safe after [`Wal::sync`].
//!
//! ```text
//! wal/0000000000000001.seg  │ header │ header │ rec 1 │ rec 2 │ … │ rec 9 │ zeros ─────────────────────────│
//! wal/0000000000000002.seg  │ header │ header │ rec 10 │ rec 10 again (a promise) │ rec 11 │ zeros │ seal │ zeros │
//!                           0        4096     8192
//! ```
//!
//! - **Segments** are filled with zeros and synced before use: a sync of records changes no metadata, and a sector that a
//!   torn write left out is recognised by its zeros. A record that does not fit opens the next segment; the room left stays
//!   zero. Sizes double from [`WalConfig::first_segment_bytes`] to [`WalConfig::segment_bytes`].
//! - **A group** is all that is appended between two syncs: one write, one sync. A segment is left only when synced, so
//!   at most the last group of the last used segment can ever be torn.
//! - **Watermark**: a record says what was safe when it was written; [`Wal::seal`] says it without a record. Damage below the
//!   watermark is corruption, for certain. A seal is 88 bytes at the start of the first sector after the one in which the log
//!   ends, so writing it never touches a record; the next group writes over it or leaves it behind as stale, and a reader
//!   takes either for unwritten zeros.
//! - **A header** stands twice in front of its record (and of a seal): damage of one head is repaired. It also says how many
//!   entries stand directly before the record and whether a promise stands before those, and a seal says it of the end. So
//!   where both heads are gone, what comes after still tells the class of what is lost.
//! - **A promise** is written twice, one copy after the other. Damage of one copy is repaired; one damaged 4 KiB block that
//!   holds both takes both.
//! - **After damage at the end**, the numbers that may have been used are given up: a gap record in a new segment says so.
//!   The damaged bytes stay where they are.
//!
//! A flipped bit therefore costs one entry of known class, if it hits the body, and nothing anywhere else. Lost numbers of
//! unknown class ([`Item::Damaged`] without one) take wider damage: both heads of the last record when no seal follows it or
//! the seal is gone too; and of several lost records, those before the last promise among them.
//!
//! What nobody can tell from the log alone: that its last segments were removed, or that the last group before a crash was
//! reported as written and never was (a lying disk), unless a seal or a later record outlived it.

mod config;
mod error;
mod frame;
mod inspect;
mod pace;
mod recover;
mod report;
mod scan;
pub(crate) mod segment;

use crate::disk::{Disk, DiskError, DiskFile, SECTOR};
pub use config::{Class, WalConfig};
pub use error::WalError;
use frame::{Chain, HEADER, Header, Kind, SEQ_END, Seed};
pub(crate) use inspect::inspect_padding;
pub use inspect::{inspect_log, inspect_segments};
use pace::{Pace, Pacemaker};
use quorate_core::mutated;
pub use report::{DamagedTail, Item, Recovered, Report, Torn};
use segment::{FOLDER, RECORDS, SegmentHeader};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// A buffer above this many bytes is given back after its sync, so that a burst leaves no memory behind.
const BUFFER_KEPT: usize = 1 << 20;

/// An open log.
#[derive(Debug)]
pub struct Wal<D: Disk> {
    disk: D,
    config: WalConfig,
    older: VecDeque<Older>,
    active: Active<D>,
    spare: Option<Spare<D>>,
    /// The order for a spare that is under way.
    ordered: Option<Pacemaker>,
    next_number: u64,
    /// Encoded records that follow what is written.
    buffer: Vec<u8>,
    next_seq: u64,
    synced_below: u64,
    /// What the next record says of those before it.
    chain: Chain,
    sealed: bool,
    stopped: Option<DiskError>,
}

/// A segment that gets no more records. Its last sequence number is 0 if it has none.
#[derive(Debug)]
struct Older {
    number: u64,
    last: u64,
}

#[derive(Debug)]
struct Active<D: Disk> {
    file: D::File,
    number: u64,
    size: usize,
    /// Where the buffer goes.
    written: usize,
    has_safe_record: bool,
}

/// The order for a segment ahead of need; see [`Wal::order_segment`].
#[derive(Debug)]
pub struct SegmentOrder<D: Disk> {
    disk: D,
    header: SegmentHeader,
    pace: Arc<Pace>,
}

/// A segment made ahead of need.
#[derive(Debug)]
pub struct Spare<D: Disk> {
    file: D::File,
    number: u64,
    size: usize,
}

impl<D: Disk> Wal<D> {
    /// Makes an empty log, whose first record gets sequence number 1.
    ///
    /// # Errors
    /// [`WalError::Exists`] if there is one; otherwise if the disk refuses.
    pub fn create(disk: &D, config: WalConfig) -> Result<Self, WalError> {
        config.check()?;
        disk.create_dir(FOLDER)?;
        disk.sync_dir("")?;
        if !recover::numbers(disk)?.is_empty() {
            return Err(WalError::Exists);
        }
        let size = segment::next_size(&config, 0, 0);
        let header = SegmentHeader { log_id: config.log_id, number: 1, floor: 1, size };
        let file = segment::create(disk, &header, |_| true)?;
        let active = Active { file, number: 1, size: to_usize(size), written: RECORDS, has_safe_record: false };
        let chain = Chain::start(config.log_id);
        Ok(Self::assemble(disk, config, VecDeque::new(), active, 1, chain))
    }

    /// Opens a log and tells what it holds. Torn writes are removed, damaged copies are written again, and everything that
    /// is reported as found is safe when this returns. Reads the whole log into memory.
    ///
    /// # Errors
    /// [`WalError::Missing`] if there is none. Damage of records is no error: it is in what is returned.
    pub fn open(disk: &D, config: WalConfig) -> Result<(Self, Recovered), WalError> {
        config.check()?;
        for file in disk.list(FOLDER)?.iter().filter(|file| segment::is_unfinished(file)) {
            disk.remove(&format!("{FOLDER}/{file}"))?;
        }
        let Some(mut found) = recover::examine(disk, Some(config.log_id), config.segment_bytes)? else {
            return Err(WalError::Missing);
        };
        found.repair(disk)?;
        let Some(last) = found.last_used().copied() else {
            return Err(WalError::Missing);
        };
        let last_number = found.segments.last().map_or(last.number, |(scan, _)| scan.number);
        let cut = found.cut.filter(|cut| cut.segment == last.number);
        let fresh = found.tail.is_some() || last.short;
        let active = if fresh {
            let number = last_number.saturating_add(1);
            let made = found.new_segment(disk, &config, number)?;
            (found.next_seq, found.chain) = (made.next_seq, made.chain);
            let has_safe_record = made.append_at > RECORDS;
            Active { file: made.file, number, size: to_usize(made.size), written: made.append_at, has_safe_record }
        } else {
            let written = cut.map_or(last.append_at, |cut| cut.start);
            let file = disk.open(&segment::name(last.number))?;
            Active { file, number: last.number, size: to_usize(last.len), written, has_safe_record: written > RECORDS }
        };
        let mut older = VecDeque::new();
        let mut spare = None;
        for (scan, read) in found.segments.iter().filter(|(scan, _)| scan.number != active.number) {
            let name = segment::name(scan.number);
            if scan.number <= last.number {
                let last = scan.seqs.map_or(0, |(_, last)| last).min(found.next_seq.saturating_sub(1));
                older.push_back(Older { number: scan.number, last });
            } else if !fresh && spare.is_none() && matches!(read, segment::HeaderRead::Both(_)) {
                spare = Some(Spare { file: disk.open(&name)?, number: scan.number, size: to_usize(scan.len) });
            } else {
                disk.remove(&name)?;
            }
        }
        disk.sync_dir(FOLDER)?;
        let recovered = found.report();
        let mut wal = Self::assemble(disk, config, older, active, found.next_seq, found.chain);
        wal.next_number = wal.next_number.max(last_number.saturating_add(1));
        wal.spare = spare;
        Ok((wal, recovered))
    }

    fn assemble(
        disk: &D,
        config: WalConfig,
        older: VecDeque<Older>,
        active: Active<D>,
        next_seq: u64,
        chain: Chain,
    ) -> Self {
        Self {
            disk: disk.clone(),
            config,
            older,
            next_number: active.number.saturating_add(1),
            active,
            spare: None,
            ordered: None,
            buffer: Vec::new(),
            next_seq,
            synced_below: next_seq,
            chain,
            sealed: false,
            stopped: None,
        }
    }

    /// Takes a record into memory and returns its sequence number. It is safe once [`Wal::durable_seq`] reaches that. A
    /// record that does not fit into the segment first syncs what is buffered, then opens the next segment.
    ///
    /// # Errors
    /// [`WalError::TooLong`]; [`WalError::Full`], after which the same append may be tried again later;
    /// [`WalError::Stopped`].
    pub fn append(&mut self, class: Class, body: &[u8]) -> Result<u64, WalError> {
        self.check_running()?;
        if body.len() > self.config.body_bytes_max {
            return Err(WalError::TooLong { len: body.len(), max: self.config.body_bytes_max });
        }
        let copies: u8 = if class == Class::Promise { 2 } else { 1 };
        let need = frame::span(body.len()).saturating_mul(usize::from(copies));
        if self.end().saturating_add(need) > self.active.size {
            self.next_segment(need)?;
        }
        let seq = self.next_seq;
        assert!(seq < SEQ_END, "2^62 records have been written");
        let seed = Seed::new(self.config.log_id, self.active.number);
        let mut chain = self.chain;
        for copy in 0..copies {
            let offset = self.end();
            let header = Header::of(class.into(), seq, self.synced_below, self.chain, body, offset);
            frame::put(&mut self.buffer, &Header { copy, ..header }, body, seed, offset);
            chain = header.after();
        }
        self.chain = chain;
        self.next_seq = seq.saturating_add(1);
        Ok(seq)
    }

    /// Appends each body and returns the range of their sequence numbers.
    ///
    /// # Errors
    /// As [`Wal::append`]; the bodies before the one that failed are appended.
    pub fn append_many<'a>(
        &mut self,
        records: impl IntoIterator<Item = (Class, &'a [u8])>,
    ) -> Result<Range<u64>, WalError> {
        let first = self.next_seq;
        for (class, body) in records {
            self.append(class, body)?;
        }
        Ok(first..self.next_seq)
    }

    /// Makes everything appended safe, with one write and one sync, and returns the last safe sequence number (0: none).
    ///
    /// # Errors
    /// [`WalError::Stopped`]: the process must stop.
    pub fn sync(&mut self) -> Result<u64, WalError> {
        self.check_running()?;
        if !self.buffer.is_empty() {
            let end = self.end();
            // A group that ends inside the place of a seal takes all of it: half a seal would look like damage.
            let seal = end.saturating_sub(1) / SECTOR * SECTOR;
            let zeros = seal.saturating_add(HEADER).saturating_sub(end);
            self.buffer.resize(self.buffer.len().saturating_add(zeros), 0);
            let written = self.active.file.write_at(self.active.written as u64, &self.buffer);
            self.or_stop(written)?;
            let synced = if mutated!("wal/no-sync") { Ok(()) } else { self.active.file.sync_data() };
            self.or_stop(synced)?;
            self.active.written = end;
            self.ordered.iter().for_each(|order| order.at(end));
            self.active.has_safe_record = true;
            self.buffer.clear();
            self.buffer.shrink_to(BUFFER_KEPT);
            self.synced_below = self.next_seq;
            self.sealed = false;
        }
        Ok(self.durable_seq())
    }

    /// Tells a later reader that all records are safe, so that damage of the last group is known for what it is. Call it
    /// when there is nothing else to do: one write of 88 bytes, no sync, at most once after each [`Wal::sync`]. Does
    /// nothing while records are buffered, or where the segment has no room.
    ///
    /// # Errors
    /// [`WalError::Stopped`]: the process must stop.
    pub fn seal(&mut self) -> Result<(), WalError> {
        self.check_running()?;
        if self.sealed || !self.buffer.is_empty() || !self.active.has_safe_record {
            return Ok(());
        }
        let at = self.active.written.saturating_add(1).next_multiple_of(SECTOR);
        if at.saturating_add(HEADER) <= self.active.size {
            let seal = Header::of(Kind::Seal, self.durable_seq(), self.synced_below, self.chain, &[], at);
            let seal = Header { len: at.saturating_sub(self.active.written) as u32, ..seal };
            let bytes = seal.encode(Seed::new(self.config.log_id, self.active.number), at);
            let written = self.active.file.write_at(at as u64, &bytes);
            self.or_stop(written)?;
        }
        self.sealed = true;
        Ok(())
    }

    /// Removes whole segments of which every record has a sequence number below `seq`. The segment with the last safe record
    /// always stays, so that the numbers go on after a restart.
    ///
    /// # Errors
    /// [`WalError::Stopped`] if the folder cannot be changed.
    pub fn forget_before(&mut self, seq: u64) -> Result<(), WalError> {
        self.check_running()?;
        while let Some(oldest) = self.older.front() {
            let another = self.active.has_safe_record || self.older.iter().skip(1).any(|older| older.last > 0);
            let needed = oldest.last >= seq && !(mutated!("wal/forgets-one-too-many") && oldest.last == seq);
            if needed || !another {
                break;
            }
            // One by one and each made safe: a power loss never leaves a hole among the segments.
            let removed = self.disk.remove(&segment::name(oldest.number));
            self.or_stop(removed)?;
            let synced = self.disk.sync_dir(FOLDER);
            self.or_stop(synced)?;
            self.older.pop_front();
        }
        Ok(())
    }

    /// Whether it is time to make the next segment ahead of need: half of the current one is used.
    pub fn wants_segment(&self) -> bool {
        self.spare.is_none() && self.ordered.is_none() && self.stopped.is_none() && self.end() > self.active.size / 2
    }

    /// Makes the next segment now, if [`Wal::wants_segment`]. Writes up to [`WalConfig::segment_bytes`] of zeros.
    ///
    /// # Errors
    /// As [`Wal::adopt`].
    pub fn prepare_next(&mut self) -> Result<(), WalError> {
        match self.order_segment() {
            Some(order) => self.adopt(order.build()),
            None => Ok(()),
        }
    }

    /// The order for the next segment, if [`Wal::wants_segment`]: [`SegmentOrder::build`] it, or on another thread
    /// [`SegmentOrder::build_slowly`], and hand the result to [`Wal::adopt`]. Until then the log makes segments itself when it needs them.
    pub fn order_segment(&mut self) -> Option<SegmentOrder<D>> {
        if !self.wants_segment() {
            return None;
        }
        let size = segment::next_size(&self.config, self.active.size as u64, 0);
        let pace = Pace::new(size, self.active.size.saturating_sub(self.active.written) as u64);
        self.ordered = Some(Pacemaker::new(pace.clone(), self.active.written));
        Some(SegmentOrder { disk: self.disk.clone(), header: self.next_header(size), pace })
    }

    /// Takes the segment that was ordered, or the error that building it met.
    ///
    /// # Errors
    /// [`WalError::Full`] if it could not be made for want of room: order again later. [`WalError::Stopped`] otherwise.
    pub fn adopt(&mut self, built: Result<Spare<D>, DiskError>) -> Result<(), WalError> {
        self.ordered = None;
        self.check_running()?;
        let spare = self.or_full(built)?;
        if spare.number > self.active.number {
            self.spare = Some(spare);
            return Ok(());
        }
        // The log could not wait. An empty segment in the middle is passed over when read, so no sync is needed.
        let removed = self.disk.remove(&segment::name(spare.number));
        self.or_stop(removed)
    }

    /// The sequence number that the next append gets.
    pub fn next_seq(&self) -> u64 {
        self.next_seq
    }

    /// The last sequence number that is safe; 0 if none is.
    pub fn durable_seq(&self) -> u64 {
        self.synced_below.saturating_sub(1)
    }

    /// Bytes appended and not yet synced. The caller bounds them by calling [`Wal::sync`].
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Where the next record would stand in the segment.
    fn end(&self) -> usize {
        self.active.written.saturating_add(self.buffer.len())
    }

    /// Leaves the segment, synced, for one with room for `need` bytes of records.
    fn next_segment(&mut self, need: usize) -> Result<(), WalError> {
        self.sync()?;
        let fits = |spare: &mut Spare<D>| spare.size >= RECORDS.saturating_add(need);
        let next = match self.spare.take_if(fits) {
            Some(spare) => spare,
            None => {
                let size = segment::next_size(&self.config, self.active.size as u64, need);
                let header = self.next_header(size);
                self.ordered.iter().for_each(Pacemaker::hurry); // it comes too late
                let file = self.or_full(segment::create(&self.disk, &header, |_| true))?;
                Spare { file, number: header.number, size: to_usize(header.size) }
            }
        };
        if let Some(small) = self.spare.take() {
            let removed = self.disk.remove(&segment::name(small.number));
            self.or_stop(removed)?;
        }
        let last = if self.active.has_safe_record { self.durable_seq() } else { 0 };
        self.older.push_back(Older { number: self.active.number, last });
        let Spare { file, number, size } = next;
        self.active = Active { file, number, size, written: RECORDS, has_safe_record: false };
        self.sealed = false;
        Ok(())
    }

    /// The header of a new segment. Every call takes another number, so that no two segments ever have the same.
    fn next_header(&mut self, size: u64) -> SegmentHeader {
        let number = self.next_number;
        self.next_number = number.saturating_add(1);
        SegmentHeader { log_id: self.config.log_id, number, floor: self.synced_below, size }
    }

    fn check_running(&self) -> Result<(), WalError> {
        match &self.stopped {
            Some(cause) => Err(WalError::Stopped { cause: cause.clone() }),
            None => Ok(()),
        }
    }

    fn or_stop<T>(&mut self, result: Result<T, DiskError>) -> Result<T, WalError> {
        result.map_err(|cause| {
            self.stopped = (!mutated!("host/goes-on-after-a-failed-sync")).then(|| cause.clone());
            WalError::Stopped { cause }
        })
    }

    /// A new segment that found no room harms nothing that is written.
    fn or_full<T>(&mut self, result: Result<T, DiskError>) -> Result<T, WalError> {
        match result {
            Err(cause) if cause.is_full() => Err(WalError::Full(cause)),
            other => self.or_stop(other),
        }
    }
}

impl<D: Disk> SegmentOrder<D> {
    /// Makes the segment: writes all its zeros, syncs them and its name.
    ///
    /// # Errors
    /// If the disk refuses; hand the error to [`Wal::adopt`].
    pub fn build(self) -> Result<Spare<D>, DiskError> {
        self.make(|_| true)
    }

    /// As [`SegmentOrder::build`], and keeps pace with the log: the segment is full when the log has used three quarters of what
    /// it had left of its own. Blocks while the log stands still, until its next sync or its end.
    ///
    /// # Errors
    /// As [`SegmentOrder::build`]; and if the log has ended, which nobody is left to be told.
    pub fn build_slowly(self) -> Result<Spare<D>, DiskError> {
        let pace = self.pace.clone();
        self.make(|bytes| pace.wait_for(bytes))
    }

    fn make(self, until: impl Fn(u64) -> bool) -> Result<Spare<D>, DiskError> {
        let file = segment::create(&self.disk, &self.header, until)?;
        Ok(Spare { file, number: self.header.number, size: to_usize(self.header.size) })
    }
}

/// A size that is bounded by the configuration or was read from a file that is in memory.
fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
