//! One replica's storage, as the real host holds it: log, superblock and snapshots of `quorate_store`, over a disk in memory
//! that loses and tears what was not synced.

use crate::random::Random;
use bytes::Bytes;
use quorate_core::executor::{Chunks, Manifest};
use quorate_core::ids::{OpNumber, RecordSeq};
use quorate_core::node::Part;
use quorate_core::outbox::Class;
use quorate_core::protocol::Checkpoint;
use quorate_core::wire::Wire;
use quorate_store::{Incoming, Item, Reader, SimDisk, SnapshotStore, Superblock, Wal, WalConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

/// Segments as small as the log allows, so that short runs fill and forget them.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Where a segment's records begin: two headers of 4 KiB come first.
const RECORDS: u64 = 8 << 10;
/// A store makes at most about this many changes to its disk in one of the steps that a crash may interrupt.
const CHANGES_MAX: u64 = 8;

/// What a replica finds when it starts.
pub struct Found {
    /// The log's records in order.
    pub records: Vec<Item>,
    /// Is there damage at the end?
    pub tail_damaged: bool,
    /// The number of the next record.
    pub next_seq: RecordSeq,
    /// The newest snapshot that is whole.
    pub snapshot: Option<Manifest>,
}

/// Log and snapshots of one replica.
#[derive(Debug)]
pub struct Storage {
    disk: SimDisk,
    log_id: u128,
    wal: Option<Wal<SimDisk>>,
    snapshots: Option<SnapshotStore<SimDisk>>,
    incoming: BTreeMap<Checkpoint, Incoming<SimDisk>>,
    /// Records before this place were safe before the last group was written: damage there is known for what it is.
    rot_before: Option<(String, u64)>,
    /// Is this the replica whose log may rot? Only then is `rot_before` worth its price.
    may_rot: bool,
    /// A bit has been flipped since the log was opened last.
    rotten: bool,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Storage {
    /// A folder that is formatted and empty.
    pub fn format(log_id: u128, may_rot: bool) -> Result<Self, String> {
        let disk = SimDisk::new();
        Superblock::create(&disk, &log_id.to_le_bytes()).map_err(text)?;
        Wal::create(&disk, config(log_id)).map_err(text)?;
        SnapshotStore::open(&disk).map_err(text)?;
        disk.kill();
        let (incoming, rot_before) = (BTreeMap::new(), None);
        Ok(Self { disk, log_id, wal: None, snapshots: None, incoming, rot_before, may_rot, rotten: false })
    }

    /// Reads what there is.
    pub fn open(&mut self) -> Result<Found, String> {
        let (_, superblock) = Superblock::open(&self.disk).map_err(text)?;
        if superblock.body != self.log_id.to_le_bytes() {
            return Err("the superblock is another folder's".to_owned());
        }
        let (wal, recovered) = Wal::open(&self.disk, config(self.log_id)).map_err(text)?;
        let snapshots = SnapshotStore::open(&self.disk).map_err(text)?;
        let snapshot = newest(&snapshots)?;
        let next_seq = RecordSeq::new(wal.next_seq());
        let tail_damaged = recovered.report.tail.is_some();
        (self.wal, self.snapshots, self.rotten) = (Some(wal), Some(snapshots), false);
        Ok(Found { records: recovered.items, tail_damaged, next_seq, snapshot })
    }

    /// Takes a record; it is safe after [`Storage::sync`].
    pub fn append(&mut self, seq: RecordSeq, class: Class, bytes: &[u8]) -> Result<(), String> {
        let class = match class {
            Class::Entry => quorate_store::Class::Entry,
            Class::Promise => quorate_store::Class::Promise,
        };
        match self.log()?.append(class, bytes).map_err(text)? {
            given if given == seq.get() => Ok(()),
            given => Err(format!("the log numbers a record {given} that the node numbers {seq}")),
        }
    }

    /// Makes everything appended safe.
    pub fn sync(&mut self) -> Result<(), String> {
        if self.may_rot {
            self.rot_before = self.end_of_log();
        }
        self.log()?.sync().map(|_| ()).map_err(text)
    }

    /// There is nothing else to do: the log says that all its records are safe, and makes its next segment.
    pub fn idle(&mut self) -> Result<(), String> {
        let log = self.log()?;
        log.seal().map_err(text)?;
        if log.wants_segment() { log.prepare_next().map_err(text) } else { Ok(()) }
    }

    /// Drops records before `seq`.
    pub fn forget(&mut self, seq: RecordSeq) -> Result<(), String> {
        self.log()?.forget_before(seq.get()).map_err(text)
    }

    /// Starts receiving a snapshot; returns the chunks that are not there yet.
    pub fn prepare(&mut self, manifest: &Manifest) -> Result<BTreeSet<u32>, String> {
        let lengths: Vec<u32> = (0u32..)
            .zip(&manifest.chunks)
            .map(|(index, _)| u32::try_from(manifest.chunk_len(index)).unwrap_or(u32::MAX))
            .collect();
        let store = self.store()?;
        let incoming = store.begin_incoming(manifest.op.get(), &manifest.encode(), &lengths).map_err(text)?;
        let missing = incoming.missing().into_iter().filter_map(|index| u32::try_from(index).ok()).collect();
        self.incoming.insert(manifest.checkpoint(), incoming);
        Ok(missing)
    }

    /// Stores a chunk of it.
    pub fn put(&mut self, checkpoint: Checkpoint, index: u32, bytes: &[u8]) -> Result<(), String> {
        match self.incoming.get_mut(&checkpoint) {
            Some(incoming) => incoming.put(index as usize, bytes).map_err(text),
            None => Err("a chunk of a snapshot that nobody prepared for".to_owned()),
        }
    }

    /// Makes it a snapshot.
    pub fn finish(&mut self, checkpoint: Checkpoint) -> Result<(), String> {
        match self.incoming.remove(&checkpoint) {
            Some(incoming) => incoming.finish().map_err(text),
            None => Err("the end of a snapshot that nobody prepared for".to_owned()),
        }
    }

    /// Stores a snapshot of the replica's own state.
    pub fn save(&mut self, manifest: &Manifest, chunks: &[Vec<u8>]) -> Result<(), String> {
        let mut writer = self.store()?.begin(manifest.op.get()).map_err(text)?;
        for chunk in chunks {
            writer.chunk(chunk).map_err(text)?;
        }
        writer.finish(&manifest.encode()).map_err(text)
    }

    /// Reads a part of a snapshot for a peer.
    pub fn read(&self, checkpoint: Checkpoint, part: Part) -> Option<Bytes> {
        let (manifest, reader) = self.reader(checkpoint)?;
        match part {
            Part::Manifest => Some(manifest.encode().into()),
            Part::Chunk(index) => reader.chunk(index as usize).ok().map(Bytes::from),
        }
    }

    /// A snapshot to restore from.
    pub fn snapshot(&self, checkpoint: Checkpoint) -> Option<(Manifest, Box<dyn Chunks>)> {
        let (manifest, reader) = self.reader(checkpoint)?;
        Some((manifest, Box::new(Stored(reader))))
    }

    /// Drops snapshots before `op`.
    pub fn forget_snapshots(&mut self, op: OpNumber) -> Result<(), String> {
        let store = self.store()?;
        for number in store.list().map_err(text)?.into_iter().filter(|number| *number < op.get()) {
            store.remove(number).map_err(text)?;
        }
        for number in store.list_incoming().map_err(text)?.into_iter().filter(|number| *number < op.get()) {
            store.remove_incoming(number).map_err(text)?;
        }
        self.incoming.retain(|checkpoint, _| checkpoint.op >= op);
        Ok(())
    }

    /// Lets the power go out within the changes that follow; [`Storage::crash`] must come next.
    pub fn doom(&self, random: &mut Random) {
        let changes = random.between(1, CHANGES_MAX); // most steps make few
        self.disk.cut_power_after(random.below(changes));
    }

    /// Lets the next sync of the log fail; [`Storage::crash`] must come next.
    pub fn fail_next_sync(&self) {
        self.disk.fail_next_sync("wal/");
    }

    /// The process dies. Sometimes the computer goes on, and every write of the process stays; sometimes the power is gone,
    /// and of what was not synced each sector and each name survives or not.
    pub fn crash(&mut self, random: &mut Random) {
        (self.wal, self.snapshots) = (None, None);
        self.incoming.clear();
        if random.chance(250_000) {
            self.disk.kill();
        } else {
            self.disk.crash(&mut || random.bits());
        }
    }

    /// Flips one bit of the log, once between two starts, and only where the log can know that it was damaged. False if
    /// there is no such place.
    pub fn rot(&mut self, random: &mut Random) -> bool {
        let Some((last, end)) = self.rot_before.clone().filter(|_| !self.rotten) else { return false };
        let files: Vec<String> =
            self.disk.files().into_iter().filter(|it| it.ends_with(".seg") && *it <= last).collect();
        let Some(name) = files.get(random.index(files.len())).cloned() else { return false };
        let used = if name == last { end } else { self.used(&name) };
        if used <= RECORDS {
            return false;
        }
        let offset = random.between(RECORDS, used - 1);
        self.disk.flip_bit(&name, offset, u8::try_from(random.below(8)).unwrap_or(0));
        self.rotten = true;
        true
    }

    /// The file in which the log ends, and the place.
    fn end_of_log(&self) -> Option<(String, u64)> {
        let files = self.disk.files().into_iter().filter(|name| name.ends_with(".seg"));
        let used = files.map(|name| (self.used(&name), name)).filter(|(used, _)| *used > RECORDS);
        used.max_by(|(_, a), (_, b)| a.cmp(b)).map(|(used, name)| (name, used))
    }

    /// The end of what is not zero.
    fn used(&self, name: &str) -> u64 {
        let bytes = self.disk.bytes(name).unwrap_or_default();
        bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
    }

    fn log(&mut self) -> Result<&mut Wal<SimDisk>, String> {
        self.wal.as_mut().ok_or_else(|| "the log is not open".to_owned())
    }

    fn store(&self) -> Result<&SnapshotStore<SimDisk>, String> {
        self.snapshots.as_ref().ok_or_else(|| "the snapshots are not open".to_owned())
    }

    fn reader(&self, checkpoint: Checkpoint) -> Option<(Manifest, Reader<SimDisk>)> {
        let reader = self.store().ok()?.read(checkpoint.op.get()).ok()?;
        let manifest = Manifest::decode(reader.manifest()).ok()?;
        (manifest.checkpoint() == checkpoint).then_some((manifest, reader))
    }
}

fn config(log_id: u128) -> WalConfig {
    WalConfig { segment_bytes: SEGMENT_BYTES, first_segment_bytes: SEGMENT_BYTES, ..WalConfig::new(log_id) }
}

/// The newest snapshot of which every chunk can be read.
fn newest(snapshots: &SnapshotStore<SimDisk>) -> Result<Option<Manifest>, String> {
    for number in snapshots.list().map_err(text)?.into_iter().rev() {
        let Ok(reader) = snapshots.read(number) else { continue };
        let whole = (0..reader.chunk_count()).all(|index| reader.chunk(index).is_ok());
        if whole && let Ok(manifest) = Manifest::decode(reader.manifest()) {
            return Ok(Some(manifest));
        }
    }
    Ok(None)
}

struct Stored(Reader<SimDisk>);

impl Chunks for Stored {
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
        self.0.chunk(index as usize).map_err(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(storage: &mut Storage) -> Vec<u64> {
        storage.open().expect("opens").records.iter().map(Item::first).collect()
    }

    #[test]
    fn what_was_synced_survives_a_crash_and_the_rest_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut storage = Storage::format(7, true).expect("formats");
            assert!(open(&mut storage).is_empty());
            storage.append(RecordSeq::new(1), Class::Entry, b"one").expect("appends");
            storage.sync().expect("syncs");
            storage.append(RecordSeq::new(2), Class::Promise, b"two").expect("appends");
            storage.doom(&mut random);
            let synced = storage.sync().is_ok();
            storage.crash(&mut random);
            let found = open(&mut storage);
            assert_eq!(found.first(), Some(&1));
            assert!(!synced || found.len() == 2, "seed {seed}: {found:?}");
            lost += usize::from(found.len() == 1);
        }
        assert!(lost > 5, "a crash never lost anything");
    }

    #[test]
    fn a_flipped_bit_is_noticed() {
        let mut noticed = 0;
        for seed in 0..30 {
            let mut random = Random::new(seed);
            let mut storage = Storage::format(7, true).expect("formats");
            open(&mut storage);
            for seq in 1..20 {
                storage.append(RecordSeq::new(seq), Class::Entry, &[9; 100]).expect("appends");
                storage.sync().expect("syncs");
            }
            storage.crash(&mut random);
            assert!(storage.rot(&mut random));
            assert!(!storage.rot(&mut random), "once between two starts");
            let found = storage.open().expect("opens");
            let last = found.records.last().map(Item::last);
            assert_eq!(last, Some(19), "seed {seed}: a safe record is silently gone");
            noticed += usize::from(found.records.iter().any(|item| matches!(item, Item::Damaged { .. })));
        }
        assert!(noticed > 20, "{noticed}");
    }
}
