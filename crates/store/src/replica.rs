//! A replica's folder: the one place where this crate meets `quorate_core`. The simulator and the real host both start a
//! replica through it, so that what a crash leaves behind is read by the same lines in both.
//!
//! [`format()`] makes a folder, once, and writes into its superblock whose it is. [`open`] refuses a folder that is another
//! replica's, gives back what its log holds and restores the machine from the newest snapshot that proves to be whole.
//! [`Snapshots`] is the host's side of checkpoints and state transfer.
//!
//! A folder without a superblock is never taken for a new one: an empty disk under an old name has forgotten its promises,
//! and a replica that goes on from it can undo what the cluster has acknowledged.

use crate::disk::{Disk, DiskError};
use crate::snapshot::{Incoming, Reader, SnapshotError, SnapshotStore};
use crate::superblock::{Superblock, SuperblockError, SuperblockRead};
use crate::wal::{self, Item, Report, Wal, WalConfig, WalError};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{Chunks, Executor, Manifest, Save};
use quorate_core::ids::{ClusterId, Epoch, OpNumber, RecordSeq, ReplicaId};
use quorate_core::machine::Machine;
use quorate_core::node::Part;
use quorate_core::outbox::Class;
use quorate_core::protocol::{Checkpoint, Protocol, Restore, Restored};
use quorate_core::wire::Wire;
use std::collections::BTreeSet;
use std::fmt;
use thiserror::Error;

/// The version of the superblock's body.
const VERSION: u16 = 1;

/// Whose folder it is.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Belongs {
    /// The cluster.
    pub cluster: ClusterId,
    /// The epoch that the members and the protocol are of.
    pub epoch: Epoch,
    /// Which replica of it.
    pub replica: ReplicaId,
    /// How many replicas there are.
    pub replicas: u8,
    /// The protocol's name.
    pub protocol: String,
}

impl fmt::Display for Belongs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, epoch, replica, replicas, protocol } = self;
        write!(f, "{replica} of {replicas} in cluster {:032x}, epoch {epoch}, protocol {protocol}", cluster.get())
    }
}

/// What the superblock holds.
#[derive(BorshSerialize, BorshDeserialize)]
struct Body {
    version: u16,
    belongs: Belongs,
    log_id: u128,
}

/// Why a replica cannot start from its folder, or a folder cannot be made. Every text says what to do.
#[derive(Debug, Error)]
pub enum FolderError {
    /// There is no replica in it.
    #[error(
        "there is no replica in this folder: `quorate init` makes the folders of a new cluster. If this replica has run \
         before, its disk is lost and with it what it promised to the others: run `quorate recover`, never `init`"
    )]
    NotFormatted,
    /// There is something of a replica in it, but not the superblock, which is written last.
    #[error(
        "this folder has a log or snapshots but no superblock. If the replica has never run, making the folder was \
         interrupted: remove it and make it again. If it has run, keep the folder and run `quorate recover`"
    )]
    HalfFormatted,
    /// There is a replica in it already.
    #[error("there is a replica in this folder already: choose an empty folder")]
    Formatted,
    /// It is the folder of another replica.
    #[error(
        "this folder belongs to {found}; the configuration says {expected}. Correct `data_dir` or the configuration"
    )]
    Other {
        /// Whose folder it is.
        found: Box<Belongs>,
        /// Whose it should be.
        expected: Box<Belongs>,
    },
    /// The superblock is whole, but was written by another release.
    #[error("the superblock is whole, but this program does not understand it ({0}): use the release that wrote it")]
    Body(String),
    /// A record of the log is whole, but was written by another release.
    #[error(
        "record {seq} of the log is whole, but this program does not understand it ({error}): use the release that wrote it"
    )]
    Record {
        /// Its place.
        seq: RecordSeq,
        /// What the decoder says.
        error: String,
    },
    /// The superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// The log.
    #[error(transparent)]
    Wal(#[from] WalError),
    /// The snapshots' folder.
    #[error(transparent)]
    Snapshots(#[from] SnapshotsError),
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

/// Is there any trace of a replica, readable or not, in the folder?
///
/// # Errors
/// What the disk says.
pub fn is_formatted(disk: &impl Disk) -> Result<bool, DiskError> {
    Ok(disk.exists("superblock")? || has_leftovers(disk)?)
}

fn has_leftovers(disk: &impl Disk) -> Result<bool, DiskError> {
    Ok(!disk.list("wal")?.is_empty() || !disk.list("snapshots")?.is_empty())
}

/// Makes the folder of a new replica. `log_id` is random and never used twice.
///
/// # Errors
/// [`FolderError::Formatted`] if there is any trace of a replica in it; otherwise if the disk refuses.
pub fn format<D: Disk>(disk: &D, belongs: &Belongs, log_id: u128) -> Result<(), FolderError> {
    format_with(disk, belongs, WalConfig::new(log_id), &[])
}

/// Like [`format()`], with a log of another shape, whose first records are already there: what a replica that lost its disk
/// must know when it comes back.
///
/// # Errors
/// As [`format()`].
pub fn format_with<D: Disk>(
    disk: &D,
    belongs: &Belongs,
    log: WalConfig,
    records: &[(Class, Vec<u8>)],
) -> Result<(), FolderError> {
    if is_formatted(disk)? {
        return Err(FolderError::Formatted);
    }
    let body = Body { version: VERSION, belongs: belongs.clone(), log_id: log.log_id }.encode();
    let mut wal = Wal::create(disk, log)?;
    wal.append_many(records.iter().map(|(class, bytes)| (kept(*class), bytes.as_slice())))?;
    wal.sync()?;
    Snapshots::open(disk)?;
    Superblock::create(disk, &body)?; // last: a folder with a superblock is complete
    Ok(())
}

/// How the log keeps a record of this class.
pub fn kept(class: Class) -> wal::Class {
    match class {
        Class::Entry => wal::Class::Entry,
        Class::Promise => wal::Class::Promise,
    }
}

/// A replica's folder, open; the host runs what is in it.
#[derive(Debug)]
pub struct Opened<D: Disk, M> {
    /// The log, ready for the next record.
    pub wal: Wal<D>,
    /// The snapshots.
    pub snapshots: Snapshots<D>,
    /// The machine, as the newest whole snapshot has it, or in its first state.
    pub executor: Executor<M>,
    /// Where that snapshot was taken.
    pub checkpoint: Option<Checkpoint>,
    /// What the log holds; [`Opened::restore`] takes it.
    pub items: Vec<Item>,
    /// What was found damaged, torn or repaired: sentences for people.
    pub findings: Vec<String>,
    replica: ReplicaId,
}

/// Opens the folder of the replica that `expected` names. `machine` makes a machine in its first state.
///
/// # Errors
/// [`FolderError`]. Damaged records and snapshots are no errors: they are told to the protocol, and to people in
/// [`Opened::findings`].
pub fn open<D: Disk, M: Machine>(
    disk: D,
    expected: &Belongs,
    machine: &dyn Fn() -> M,
) -> Result<Opened<D, M>, FolderError> {
    open_with(disk, expected, &WalConfig::new, machine)
}

/// Like [`open`], with a log of another shape: `log` makes it from the log's id.
///
/// # Errors
/// As [`open`].
pub fn open_with<D: Disk, M: Machine>(
    disk: D,
    expected: &Belongs,
    log: &dyn Fn(u128) -> WalConfig,
    machine: &dyn Fn() -> M,
) -> Result<Opened<D, M>, FolderError> {
    let superblock = match Superblock::open(&disk) {
        Ok((_, superblock)) => superblock,
        Err(SuperblockError::Missing) if has_leftovers(&disk)? => return Err(FolderError::HalfFormatted),
        Err(SuperblockError::Missing) => return Err(FolderError::NotFormatted),
        Err(error) => return Err(error.into()),
    };
    let body = read_body(&superblock)?;
    if body.belongs != *expected {
        let (found, expected) = (Box::new(body.belongs), Box::new(expected.clone()));
        return Err(FolderError::Other { found, expected });
    }
    let mut findings = Vec::new();
    if !superblock.repaired.is_empty() {
        findings.push(format!("{} of 4 copies of the superblock were damaged and repaired", superblock.repaired.len()));
    }
    let (wal, recovered) = Wal::open(&disk, log(body.log_id))?;
    findings.extend(log_findings(&recovered.report));
    let snapshots = Snapshots::open(&disk)?;
    let (executor, checkpoint) = match snapshots.restore(&mut findings)? {
        Some((executor, checkpoint)) => (executor, Some(checkpoint)),
        None => (Executor::new(machine()), None),
    };
    let (items, replica) = (recovered.items, expected.replica);
    Ok(Opened { wal, snapshots, executor, checkpoint, items, findings, replica })
}

/// Whose folder it is, as its superblock says, and the id of its log.
pub(crate) fn belongs(superblock: &SuperblockRead) -> Result<(Belongs, u128), FolderError> {
    read_body(superblock).map(|body| (body.belongs, body.log_id))
}

fn read_body(superblock: &SuperblockRead) -> Result<Body, FolderError> {
    let version = u16::decode(superblock.body.get(..2).unwrap_or_default());
    let version = version.map_err(|error| FolderError::Body(error.to_string()))?;
    if version != VERSION {
        return Err(FolderError::Body(format!("its body has version {version}, this program knows {VERSION}")));
    }
    Body::decode(&superblock.body).map_err(|error| FolderError::Body(error.to_string()))
}

/// Each thing that the log's report mentions, as a sentence.
fn log_findings(report: &Report) -> Vec<String> {
    let damaged = report.damaged.iter().map(|(first, last)| match first == last {
        true => format!("record {first} of the log cannot be read; the protocol repairs it from the others"),
        false => {
            format!("records {first} to {last} of the log cannot be read; the protocol repairs them from the others")
        }
    });
    let tail = report.tail.map(|tail| {
        format!(
            "the end of the log is damaged: up to {} records from {} on may be missing",
            tail.at_most, tail.from_seq
        )
    });
    let healed = report.healed.iter().map(|seq| {
        format!("one of two copies of record {seq} of the log, or of its header, was damaged and rewritten")
    });
    let torn = report.torn.map(|torn| {
        format!(
            "a write of {} bytes at record {} was cut short and removed; nobody was told that it was safe",
            torn.bytes, torn.seq
        )
    });
    damaged.chain(tail).chain(healed).chain(torn).chain(report.notes.iter().cloned()).collect()
}

impl<D: Disk, M: Machine> Opened<D, M> {
    /// What the protocol starts from. Takes the log's items out of this.
    ///
    /// # Errors
    /// [`FolderError::Record`] for a record that is whole and does not decode.
    pub fn restore<P: Protocol>(&mut self, replicas: usize, config: P::Config) -> Result<Restore<P>, FolderError> {
        let items = std::mem::take(&mut self.items);
        let tail_damaged = matches!(items.last(), Some(Item::Damaged { .. }));
        let records = items.into_iter().map(restored::<P>).collect::<Result<_, _>>()?;
        let (replica, checkpoint, wake) = (self.replica, self.checkpoint, self.executor.wake());
        Ok(Restore { replica, replicas, config, records, tail_damaged, checkpoint, wake })
    }

    /// The number of the log's next record.
    pub fn next_seq(&self) -> RecordSeq {
        RecordSeq::new(self.wal.next_seq())
    }
}

fn restored<P: Protocol>(item: Item) -> Result<Restored<P::Record>, FolderError> {
    Ok(match item {
        Item::Found { seq, body, .. } => {
            let seq = RecordSeq::new(seq);
            let record = P::Record::decode(&body);
            let record = record.map_err(|error| FolderError::Record { seq, error: error.to_string() })?;
            Restored::Found { seq, record }
        }
        Item::Damaged { first, last, class } => Restored::Damaged {
            seq: RecordSeq::new(first),
            at_most: last.saturating_sub(first).saturating_add(1),
            class: class.map(|class| match class {
                wal::Class::Entry => Class::Entry,
                wal::Class::Promise => Class::Promise,
            }),
        },
    })
}

/// Why a snapshot cannot be saved, stored or read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SnapshotsError {
    /// The disk refused. The process must stop, as after any failed write.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The snapshot is damaged, incomplete or another one than asked for; others are not affected.
    #[error("snapshot {op} cannot be used: {why}")]
    Unusable {
        /// The entry that it follows.
        op: OpNumber,
        /// Why.
        why: String,
    },
}

impl SnapshotsError {
    fn of(op: OpNumber, error: SnapshotError) -> Self {
        match error {
            SnapshotError::Disk(error) => Self::Disk(error),
            other => Self::Unusable { op, why: other.to_string() },
        }
    }
}

/// The snapshots of a replica: one file each, named by the entry that it follows.
#[derive(Debug)]
pub struct Snapshots<D: Disk> {
    store: SnapshotStore<D>,
    /// The one that arrives in chunks: there is one fetch at a time.
    arriving: Option<(Checkpoint, Incoming<D>)>,
    /// The one that was read last: a peer asks for one chunk after the other.
    reading: Option<(Checkpoint, Manifest, Reader<D>)>,
}

impl<D: Disk> Snapshots<D> {
    /// Opens the folder.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn open(disk: &D) -> Result<Self, SnapshotsError> {
        let store = SnapshotStore::open(disk).map_err(|error| SnapshotsError::of(OpNumber::ZERO, error))?;
        Ok(Self { store, arriving: None, reading: None })
    }

    /// The folder as it is, nothing made and nothing removed: for looking at it only.
    pub(crate) fn untouched(disk: &D) -> Self {
        Self { store: SnapshotStore::untouched(disk), arriving: None, reading: None }
    }

    /// Restores every complete snapshot, each by itself, and says which ones cannot be.
    ///
    /// # Errors
    /// If the disk refuses.
    #[expect(clippy::type_complexity, reason = "number, and state or why there is none")]
    pub(crate) fn restore_each<M: Machine>(
        &self,
    ) -> Result<Vec<(u64, Result<(Checkpoint, Executor<M>), SnapshotsError>)>, SnapshotsError> {
        let numbers = self.store.list()?.into_iter();
        Ok(numbers.map(|number| (number, self.restore_one(number))).collect())
    }

    /// Writes a state out. When this returns, the checkpoint is durable. Takes as long as the state is large.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn save(&mut self, mut save: Box<dyn Save>) -> Result<Checkpoint, SnapshotsError> {
        let op = save.op();
        let failed = |error| SnapshotsError::of(op, error);
        let mut writer = self.store.begin(op.get()).map_err(failed)?;
        while let Some(chunk) = save.next_chunk() {
            writer.chunk(&chunk).map_err(failed)?;
        }
        let manifest = save.finish();
        assert_eq!(manifest.op, op, "a snapshot is named by its entry");
        self.reading = None; // one of the same name may have been replaced
        writer.finish(&manifest.encode()).map_err(failed)?;
        Ok(manifest.checkpoint())
    }

    /// A part of a stored snapshot, for a peer: an encoded manifest, or a chunk. `None` if it is not here or not readable.
    pub fn read(&mut self, checkpoint: Checkpoint, part: Part) -> Option<Bytes> {
        if self.reading.as_ref().is_none_or(|(read, ..)| *read != checkpoint) {
            let (manifest, reader) = self.reader(checkpoint).ok()?;
            self.reading = Some((checkpoint, manifest, reader));
        }
        let (_, manifest, reader) = self.reading.as_ref()?;
        match part {
            Part::Manifest => Some(manifest.encode().into()),
            Part::Chunk(index) => reader.chunk(usize::try_from(index).ok()?).ok().map(Bytes::from),
        }
    }

    /// Gets ready to receive a snapshot; returns the chunks that are not there yet. What an earlier attempt at the same one
    /// received is kept, also after a restart; what is left of others is removed.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn prepare(&mut self, manifest: &Manifest) -> Result<BTreeSet<u32>, SnapshotsError> {
        let op = manifest.op;
        self.arriving = None;
        for number in self.store.list_incoming()?.into_iter().filter(|number| *number != op.get()) {
            self.store.remove_incoming(number).map_err(|error| SnapshotsError::of(op, error))?;
        }
        let lengths = (0u32..).zip(&manifest.chunks).map(|(index, _)| manifest.chunk_len(index));
        let lengths: Vec<u32> = lengths.map(|length| u32::try_from(length).unwrap_or(u32::MAX)).collect();
        let mut incoming = self
            .store
            .begin_incoming(op.get(), &manifest.encode(), &lengths)
            .map_err(|error| SnapshotsError::of(op, error))?;
        let mut missing = BTreeSet::new();
        for (index, expected) in (0u32..).zip(&manifest.chunks) {
            let chunk = incoming.chunk(index as usize).map_err(|error| SnapshotsError::of(op, error))?;
            if chunk.is_none_or(|chunk| Digest::of(&chunk) != *expected) {
                missing.insert(index);
            }
        }
        self.arriving = Some((manifest.checkpoint(), incoming));
        Ok(missing)
    }

    /// Stores a chunk of the snapshot that was prepared for.
    ///
    /// # Errors
    /// [`SnapshotsError::Unusable`] if it is of another one; if the disk refuses.
    pub fn put(&mut self, checkpoint: Checkpoint, index: u32, bytes: &[u8]) -> Result<(), SnapshotsError> {
        match &mut self.arriving {
            Some((arriving, incoming)) if *arriving == checkpoint => {
                incoming.put(index as usize, bytes).map_err(|error| SnapshotsError::of(checkpoint.op, error))
            }
            _ => Err(not_prepared(checkpoint)),
        }
    }

    /// Every chunk has arrived: makes it a snapshot, durable when this returns.
    ///
    /// # Errors
    /// [`SnapshotsError::Unusable`] if chunks are missing; if the disk refuses.
    pub fn finish(&mut self, checkpoint: Checkpoint) -> Result<(), SnapshotsError> {
        match self.arriving.take_if(|(arriving, _)| *arriving == checkpoint) {
            Some((_, incoming)) => {
                self.reading = None; // one of the same name may be replaced
                incoming.finish().map_err(|error| SnapshotsError::of(checkpoint.op, error))
            }
            None => Err(not_prepared(checkpoint)),
        }
    }

    /// A stored snapshot, to restore from.
    ///
    /// # Errors
    /// [`SnapshotsError::Unusable`] if it is not here or its frame is damaged; if the disk refuses.
    pub fn load(&self, checkpoint: Checkpoint) -> Result<(Manifest, Box<dyn Chunks>), SnapshotsError> {
        let (manifest, reader) = self.reader(checkpoint)?;
        Ok((manifest, Box::new(Stored(reader))))
    }

    /// Removes what follows earlier entries than this one, whether complete or arriving.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn forget(&mut self, before: OpNumber) -> Result<(), SnapshotsError> {
        self.arriving.take_if(|(arriving, _)| arriving.op < before);
        self.reading.take_if(|(reading, ..)| reading.op < before);
        let failed = |error| SnapshotsError::of(before, error);
        for number in self.store.list()?.into_iter().filter(|number| *number < before.get()) {
            self.store.remove(number).map_err(failed)?;
        }
        for number in self.store.list_incoming()?.into_iter().filter(|number| *number < before.get()) {
            self.store.remove_incoming(number).map_err(failed)?;
        }
        Ok(())
    }

    /// The complete snapshots whose manifest can be read, in order.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn checkpoints(&self) -> Result<Vec<Checkpoint>, SnapshotsError> {
        let mut checkpoints = Vec::new();
        for number in self.store.list()? {
            match self.manifest(number) {
                Ok((manifest, _)) => checkpoints.push(manifest.checkpoint()),
                Err(SnapshotsError::Disk(error)) => return Err(error.into()),
                Err(SnapshotsError::Unusable { .. }) => {}
            }
        }
        Ok(checkpoints)
    }

    /// The machine as the newest snapshot has it that proves to be whole; says which ones do not.
    fn restore<M: Machine>(
        &self,
        findings: &mut Vec<String>,
    ) -> Result<Option<(Executor<M>, Checkpoint)>, SnapshotsError> {
        for number in self.store.list()?.into_iter().rev() {
            match self.restore_one(number) {
                Ok((checkpoint, executor)) => return Ok(Some((executor, checkpoint))),
                // A sector that cannot be read is damage like any other: an older snapshot, or a peer's, may do.
                Err(error) => findings.push(format!("{error}; an older one is used if there is one")),
            }
        }
        Ok(None)
    }

    fn restore_one<M: Machine>(&self, number: u64) -> Result<(Checkpoint, Executor<M>), SnapshotsError> {
        let (manifest, reader) = self.manifest(number)?;
        let why = |corrupt| SnapshotsError::Unusable { op: manifest.op, why: format!("{corrupt}") };
        let executor = Executor::restore(&manifest, &mut Stored(reader)).map_err(why)?;
        Ok((manifest.checkpoint(), executor))
    }

    fn reader(&self, checkpoint: Checkpoint) -> Result<(Manifest, Reader<D>), SnapshotsError> {
        let (manifest, reader) = self.manifest(checkpoint.op.get())?;
        if manifest.checkpoint() == checkpoint {
            Ok((manifest, reader))
        } else {
            Err(SnapshotsError::Unusable { op: checkpoint.op, why: "there is another one of this number".to_owned() })
        }
    }

    fn manifest(&self, number: u64) -> Result<(Manifest, Reader<D>), SnapshotsError> {
        let op = OpNumber::new(number);
        let reader = match self.store.read(number) {
            Err(SnapshotError::Disk(error)) if error.kind == std::io::ErrorKind::NotFound => {
                return Err(SnapshotsError::Unusable { op, why: "it is not here (any more)".to_owned() });
            }
            read => read.map_err(|error| SnapshotsError::of(op, error))?,
        };
        let manifest = Manifest::decode(reader.manifest());
        let manifest = manifest.map_err(|error| SnapshotsError::Unusable { op, why: error.to_string() })?;
        match manifest.op == op && manifest.chunks.len() == reader.chunk_count() {
            true => Ok((manifest, reader)),
            false => Err(SnapshotsError::Unusable { op, why: "its manifest does not describe it".to_owned() }),
        }
    }
}

fn not_prepared(checkpoint: Checkpoint) -> SnapshotsError {
    SnapshotsError::Unusable { op: checkpoint.op, why: "it is not the one that was prepared for".to_owned() }
}

/// The chunks of a complete snapshot.
struct Stored<D: Disk>(Reader<D>);

impl<D: Disk> Chunks for Stored<D> {
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
        let index = usize::try_from(index).map_err(|error| error.to_string())?;
        self.0.chunk(index).map_err(|error| error.to_string())
    }
}
