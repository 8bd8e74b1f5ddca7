//! One replica's storage: the folder of `quorate_store::replica`, which the real host opens too, over a disk in memory that
//! loses and tears what was not synced.

use crate::faults::{Aspect, Faults};
use crate::process::CLUSTER;
use crate::random::Random;
use bytes::Bytes;
use quorate_core::executor::{Chunks, Executor, Manifest, Save};
use quorate_core::ids::{Epoch, OpNumber, RecordSeq, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::Part;
use quorate_core::outbox::Class;
use quorate_core::protocol::{Checkpoint, Protocol, Restore};
use quorate_store::replica::{Belongs, Opened, Snapshots, SnapshotsError, format_with, kept, open_with};
use quorate_store::{SimDisk, Wal, WalConfig};
use std::collections::BTreeSet;
use std::fmt::Display;

/// Segments as small as the log allows, so that short runs fill and forget them.
const SEGMENT_BYTES: u64 = 16 << 10;
/// Where a segment's records begin: two headers of 4 KiB come first.
const RECORDS: u64 = 8 << 10;
/// A seal ends at most so many bytes behind the log: it stands at the start of the next sector, and is shorter than another.
const SEAL_REACHES: u64 = 1024;
/// What a disk writes whole or not at all, bytes.
const SECTOR: u64 = 512;
/// A store makes at most about this many changes to its disk in one of the steps that a crash may interrupt.
const CHANGES_MAX: u64 = 8;

/// What a replica finds when it starts.
pub struct Found<P: Protocol, M> {
    /// The machine, as the newest whole snapshot has it.
    pub executor: Executor<M>,
    /// What the protocol starts from.
    pub restore: Restore<P>,
    /// The number of the next record.
    pub next_seq: RecordSeq,
}

/// Log and snapshots of one replica.
#[derive(Debug)]
pub struct Storage {
    disk: SimDisk,
    belongs: Belongs,
    open: Option<(Wal<SimDisk>, Snapshots<SimDisk>)>,
    /// Is this the replica whose log may rot? Only then is `rot_before` worth its price.
    may_rot: bool,
    /// Records before this place were safe before the last group was written: damage there is known for what it is.
    rot_before: Option<(String, u64)>,
    /// Records before this place were followed by a group that is safe, too: even if they vanish, that says that they were.
    vanish_before: Option<(String, u64)>,
    /// A bit has been flipped since the log was opened last.
    rotten: bool,
}

fn text(error: impl Display) -> String {
    error.to_string()
}

impl Storage {
    /// A folder that is formatted and empty.
    pub fn format(replica: ReplicaId, replicas: usize, protocol: &str, may_rot: bool) -> Result<Self, String> {
        let disk = SimDisk::new();
        let replicas = u8::try_from(replicas).map_err(text)?;
        let belongs =
            Belongs { cluster: CLUSTER, epoch: Epoch::ZERO, replica, replicas, protocol: protocol.to_owned() };
        format_with(&disk, &belongs, log(u128::from(replica.get()).saturating_add(1)), &[]).map_err(text)?;
        disk.kill();
        Ok(Self { disk, belongs, open: None, may_rot, rot_before: None, vanish_before: None, rotten: false })
    }

    /// Reads what there is.
    pub fn open<P: Protocol, M: Machine>(
        &mut self,
        config: P::Config,
        machine: fn() -> M,
    ) -> Result<Found<P, M>, String> {
        let mut opened: Opened<SimDisk, M> =
            open_with(self.disk.clone(), &self.belongs, &log, &machine).map_err(text)?;
        let restore = opened.restore::<P>(usize::from(self.belongs.replicas), config).map_err(text)?;
        let next_seq = opened.next_seq();
        self.open = Some((opened.wal, opened.snapshots));
        self.rotten = false;
        Ok(Found { executor: opened.executor, restore, next_seq })
    }

    /// Takes a record; it is safe after [`Storage::sync`].
    pub fn append(&mut self, seq: RecordSeq, class: Class, bytes: &[u8]) -> Result<(), String> {
        match self.log()?.append(kept(class), bytes).map_err(text)? {
            given if given == seq.get() => Ok(()),
            given => Err(format!("the log numbers a record {given} that the node numbers {seq}")),
        }
    }

    /// Makes everything appended safe.
    pub fn sync(&mut self) -> Result<(), String> {
        let durable = self.log()?.durable_seq();
        if self.may_rot {
            self.rot_before = self.end_of_log();
        }
        let synced = self.log()?.sync().map_err(text)?;
        if synced > durable {
            // A seal behind the end of the log must not count as the log: the group that was just written begins before it.
            let before = |(name, end): (String, u64)| (name, end.saturating_sub(SEAL_REACHES));
            self.vanish_before = self.rot_before.clone().map(before);
        }
        Ok(())
    }

    /// The complete snapshots: their files' names and bytes.
    pub fn snapshot_files(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.disk.files().into_iter().filter(|name| name.ends_with(".snap"));
        names.filter_map(|name| Some((name.clone(), self.disk.bytes(&name)?))).collect()
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
    pub fn prepare(&mut self, manifest: &Manifest) -> Result<BTreeSet<u32>, SnapshotsError> {
        self.snapshots().prepare(manifest)
    }

    /// Stores a chunk of it.
    pub fn put(&mut self, checkpoint: Checkpoint, index: u32, bytes: &[u8]) -> Result<(), SnapshotsError> {
        self.snapshots().put(checkpoint, index, bytes)
    }

    /// Makes it a snapshot.
    pub fn finish(&mut self, checkpoint: Checkpoint) -> Result<(), SnapshotsError> {
        self.snapshots().finish(checkpoint)
    }

    /// Stores a snapshot of the replica's own state.
    pub fn save(&mut self, save: Box<dyn Save>) -> Result<Checkpoint, SnapshotsError> {
        self.snapshots().save(save)
    }

    /// Reads a part of a snapshot for a peer.
    pub fn read(&mut self, checkpoint: Checkpoint, part: Part) -> Option<Bytes> {
        self.snapshots().read(checkpoint, part)
    }

    /// A snapshot to restore from.
    pub fn load(&mut self, checkpoint: Checkpoint) -> Result<(Manifest, Box<dyn Chunks>), SnapshotsError> {
        self.snapshots().load(checkpoint)
    }

    /// Drops snapshots before `op`.
    pub fn forget_snapshots(&mut self, op: OpNumber) -> Result<(), SnapshotsError> {
        self.snapshots().forget(op)
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

    /// From now on there is no room, or there is again.
    pub fn full(&self, full: bool) {
        self.disk.full(full);
    }

    /// The next write to the log is reported as done, and is not, or lands elsewhere in the log.
    pub fn lie(&self, random: &mut Random) {
        match (random.below(2), self.end_of_log()) {
            (0, Some((_, end))) => self.disk.misdirect_next_write("wal/", random.between(RECORDS, end)),
            _ => self.disk.lose_next_write("wal/"),
        }
    }

    /// The disk is replaced by an empty one, which is formatted with a first record.
    pub fn replace(&mut self, log_number: u64, record: &(Class, Vec<u8>)) -> Result<(), String> {
        self.disk.wipe();
        let log_id = u128::from(log_number).saturating_add(0x1000);
        format_with(&self.disk, &self.belongs, log(log_id), std::slice::from_ref(record)).map_err(text)?;
        self.disk.kill();
        (self.rot_before, self.vanish_before, self.rotten) = (None, None, false);
        Ok(())
    }

    /// The process dies. Sometimes the computer goes on, and every write of the process stays; sometimes the power is gone,
    /// and of what was not synced each sector and each name survives or not.
    pub fn crash(&mut self, faults: &Faults, random: &mut Random) {
        self.open = None;
        let [lost, torn] = [Aspect::LostWrites, Aspect::TornWrites].map(|aspect| u64::from(faults.aspect(aspect)));
        if random.chance(1_000_000_u64.saturating_sub(7_500 * lost.min(100))) {
            self.disk.kill();
        } else if torn >= 100 || random.chance(10_000 * torn) {
            self.disk.crash(&mut || random.bits());
        } else {
            self.disk.crash(&mut || 0);
        }
    }

    /// Flips one bit of the log, once between two starts, and only where the log can know that it was damaged. False if
    /// there is no such place.
    pub fn rot(&mut self, random: &mut Random) -> bool {
        let Some((name, used)) = self.safe_place(self.rot_before.as_ref(), random) else { return false };
        let offset = random.between(RECORDS, used - 1);
        self.disk.flip_bit(&name, offset, u8::try_from(random.below(8)).unwrap_or(0));
        self.rotten = true;
        true
    }

    /// Flips one bit of a snapshot, once between two starts. False if there is none.
    pub fn rot_snapshot(&mut self, random: &mut Random) -> bool {
        let files: Vec<String> = self.disk.files().into_iter().filter(|it| it.ends_with(".snap")).collect();
        let Some(name) = files.get(random.index(files.len())).filter(|_| !self.rotten) else { return false };
        let len = self.disk.look(name, |bytes| bytes.len() as u64).unwrap_or(0);
        self.disk.flip_bit(name, random.below(len), u8::try_from(random.below(8)).unwrap_or(0));
        self.rotten = true;
        true
    }

    /// Makes the log look as if a write of it had landed in another place of it, long enough ago that the log knows that
    /// both places were safe: what the one should hold is in the other. Once between two starts. False if there is no such
    /// place.
    pub fn misdirect(&mut self, random: &mut Random) -> bool {
        let safe = self.vanish_before.as_ref();
        let (from, to) = (self.safe_place(safe, random), self.safe_place(safe, random));
        let (Some((from, from_used)), Some((to, to_used))) = (from, to) else { return false };
        let sectors = random.between(1, 4);
        let place = |random: &mut Random, used: u64| random.between(RECORDS, used - 1) / SECTOR * SECTOR;
        let (source, target) = (place(random, from_used), place(random, to_used));
        for at in 0..sectors * SECTOR {
            let (source, target) = (source + at, target + at);
            if source >= from_used || target >= to_used {
                break; // beyond, nothing is known to be safe
            }
            let byte = self.byte(&from, source);
            self.disk.corrupt(&to, target, 1, |_| byte);
            self.disk.corrupt(&from, source, 1, |_| 0);
        }
        self.rotten = true;
        true
    }

    fn byte(&self, name: &str, offset: u64) -> u8 {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        self.disk.look(name, |bytes| bytes.get(at).copied()).flatten().unwrap_or(0)
    }

    /// A file of the log, and up to where damage in it is known for what it is.
    fn safe_place(&self, before: Option<&(String, u64)>, random: &mut Random) -> Option<(String, u64)> {
        let (last, end) = before.filter(|_| !self.rotten)?;
        let files: Vec<String> =
            self.disk.files().into_iter().filter(|it| it.ends_with(".seg") && it <= last).collect();
        let name = files.get(random.index(files.len())).cloned()?;
        let used = if name == *last { *end } else { self.used(&name) };
        (used > RECORDS).then_some((name, used))
    }

    /// The file in which the log ends, and the place.
    fn end_of_log(&self) -> Option<(String, u64)> {
        let names = self.disk.files().into_iter().rev().filter(|name| name.ends_with(".seg"));
        names.map(|name| (self.used(&name), name)).find(|(used, _)| *used > RECORDS).map(|(used, name)| (name, used))
    }

    /// The end of what is not zero.
    fn used(&self, name: &str) -> u64 {
        self.disk.look(name, end_of).unwrap_or(0)
    }

    fn log(&mut self) -> Result<&mut Wal<SimDisk>, String> {
        self.open.as_mut().map(|(wal, _)| wal).ok_or_else(|| "the folder is not open".to_owned())
    }

    fn snapshots(&mut self) -> &mut Snapshots<SimDisk> {
        let (_, snapshots) =
            self.open.as_mut().expect("only a process that runs uses its folder, and it has opened it");
        snapshots
    }
}

/// The end of what is not zero.
fn end_of(bytes: &[u8]) -> u64 {
    const ZEROS: [u8; 256] = [0; 256];
    // Most of a segment is zeros: they are compared many at a time.
    let mut end = bytes.len();
    while end >= ZEROS.len() && bytes.get(end - ZEROS.len()..end) == Some(&ZEROS) {
        end -= ZEROS.len();
    }
    let rest = bytes.get(..end).unwrap_or_default();
    rest.iter().rposition(|byte| *byte != 0).map_or(0, |last| last as u64 + 1)
}

fn log(log_id: u128) -> WalConfig {
    WalConfig { segment_bytes: SEGMENT_BYTES, first_segment_bytes: SEGMENT_BYTES, ..WalConfig::new(log_id) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registers::Registers;
    use quorate_core::protocol::Restored;
    use quorate_protocols::naive::{Naive, Record};
    use std::collections::BTreeSet;

    /// The records' numbers, each with whether it could be read.
    fn open(storage: &mut Storage) -> Vec<(u64, bool)> {
        let found = storage.open::<Naive, Registers>((), Registers::default).expect("opens");
        let numbers = found.restore.records.iter().flat_map(|record| match record {
            Restored::Found { seq, .. } => vec![(seq.get(), true)],
            Restored::Damaged { seq, at_most, .. } => (0..*at_most).map(|more| (seq.get() + more, false)).collect(),
        });
        numbers.collect()
    }

    fn formatted() -> Storage {
        Storage::format(ReplicaId::new(0), 3, "naive", true).expect("formats")
    }

    fn record(bytes: usize) -> Vec<u8> {
        use quorate_core::wire::Wire;
        Record { op: OpNumber::ZERO, batch: vec![9; bytes].into() }.encode()
    }

    #[test]
    fn writes_are_lost_and_torn_only_where_that_was_asked_for() {
        // Of the log's bytes that were written and not synced: all stay, none does, or some.
        let outcome = |faults: &str, seed: u64| {
            let mut storage = formatted();
            assert!(open(&mut storage).is_empty());
            storage.disk.ignore_syncs_of("wal/");
            storage.append(RecordSeq::new(1), Class::Entry, &record(9000)).expect("appends");
            storage.sync().expect("syncs");
            storage.crash(&faults.parse().expect("faults"), &mut Random::new(seed));
            let log: Vec<u8> =
                storage.disk.files().iter().filter_map(|name| storage.disk.bytes(name)).flatten().collect();
            match log.iter().filter(|byte| **byte == 9).count() {
                9000.. => "all",
                0..100 => "none", // some numbers are 9, too
                _ => "some",
            }
        };
        let outcomes = |faults: &str| (0..40).map(|seed| outcome(faults, seed)).collect::<BTreeSet<_>>();
        assert_eq!(outcomes("crash"), ["all", "none", "some"].into());
        assert_eq!(outcomes("crash,-lost-writes"), ["all"].into());
        assert_eq!(outcomes("crash,-torn-writes"), ["all", "none"].into());
    }

    #[test]
    fn what_was_synced_survives_a_crash_and_the_rest_may_not() {
        let mut lost = 0;
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut storage = formatted();
            assert!(open(&mut storage).is_empty());
            storage.append(RecordSeq::new(1), Class::Entry, &record(1)).expect("appends");
            storage.sync().expect("syncs");
            storage.append(RecordSeq::new(2), Class::Promise, &record(2)).expect("appends");
            storage.doom(&mut random);
            let synced = storage.sync().is_ok();
            storage.crash(&Faults::all(), &mut random);
            let found = open(&mut storage);
            assert_eq!(found.first(), Some(&(1, true)));
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
            let mut storage = formatted();
            open(&mut storage);
            for seq in 1..20 {
                storage.append(RecordSeq::new(seq), Class::Entry, &record(100)).expect("appends");
                storage.sync().expect("syncs");
            }
            storage.crash(&Faults::all(), &mut random);
            assert!(storage.rot(&mut random));
            assert!(!storage.rot(&mut random), "once between two starts");
            let found = open(&mut storage);
            assert_eq!(found.last().map(|(seq, _)| *seq), Some(19), "seed {seed}: a safe record is silently gone");
            noticed += usize::from(found.iter().any(|(_, intact)| !intact));
        }
        assert!(noticed > 20, "{noticed}");
    }
}
