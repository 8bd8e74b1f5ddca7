//! The superblock: one small body, such as an identity and the number of the newest snapshot, that is replaced as a whole
//! and survives torn writes and the damage of three of its four copies.
//!
//! The file `superblock` has four slots of 4 KiB, each with a copy: `magic | version | slot | sequence | length | crc |
//! body | zeros` (drawn in `docs/formats.md`). [`Superblock::write`] replaces copies 0 and 1 and syncs, then 2 and 3 and
//! syncs, so that at every moment two whole copies of one generation are on the disk. [`Superblock::open`] takes the
//! highest sequence number among the valid copies and rewrites the other slots with it. The slot's number is part of a
//! copy: one that was written to the wrong place counts as damaged.

#![warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)]

use crate::bytes::{array_at, crc, is_zero, u32_at, u64_at};
use crate::disk::{Disk, DiskError, DiskFile};

/// Copies of the superblock.
pub const SUPERBLOCK_COPIES: usize = 4;
/// The longest body of a superblock, in bytes.
pub const SUPERBLOCK_BODY_MAX: usize = SLOT - HEADER;

const NAME: &str = "superblock";
const TEMPORARY: &str = "superblock.tmp";
const MAGIC: [u8; 8] = *b"QUORATE\x01";
const VERSION: u32 = 1;
const SLOT: usize = 4096;
const HEADER: usize = 32;

/// The open superblock of a data folder.
#[derive(Debug)]
pub struct Superblock<D: Disk> {
    file: D::File,
    sequence: u64,
    stopped: Option<DiskError>,
}

/// What a superblock holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SuperblockRead {
    /// The bytes given to the newest write.
    pub body: Vec<u8>,
    /// How many writes there were, the creation included.
    pub sequence: u64,
    /// The copies that were damaged or older than the newest. [`Superblock::open`] has rewritten them.
    pub repaired: Vec<usize>,
}

/// Why a superblock cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SuperblockError {
    /// There is none.
    #[error("the data folder has no superblock: it was never formatted, or it is not the right folder")]
    Missing,
    /// No copy can be read.
    #[error(
        "all {SUPERBLOCK_COPIES} copies of the superblock are damaged, so nobody can tell what this replica has promised; \
         keep the folder for inspection and recover the replica from its peers into an empty one"
    )]
    AllDamaged,
    /// Written by a program that knows another format.
    #[error("the superblock has format version {version}, this program reads {VERSION}: use the release that wrote it")]
    Version {
        /// The version found.
        version: u32,
    },
    /// Two valid copies of one sequence number differ.
    #[error(
        "two copies of the superblock have sequence {sequence} and differ: two processes have written to this folder; \
         keep it for inspection and recover the replica from its peers into an empty one"
    )]
    Conflict {
        /// The sequence number.
        sequence: u64,
    },
    /// The body is too long.
    #[error("a superblock body of {len} bytes is longer than {SUPERBLOCK_BODY_MAX}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// An earlier write failed, so that nobody knows what is on the disk.
    #[error("the superblock stopped after an earlier failure and the process must stop too: {cause}")]
    Stopped {
        /// The earlier failure.
        cause: DiskError,
    },
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl<D: Disk> Superblock<D> {
    /// Writes the first superblock of a folder: complete under its name or not there at all.
    ///
    /// # Errors
    /// If there is one already, the body is longer than [`SUPERBLOCK_BODY_MAX`], or the disk refuses.
    pub fn create(disk: &D, body: &[u8]) -> Result<Self, SuperblockError> {
        if disk.exists(NAME)? {
            let cause = "a superblock exists already: this folder belongs to a replica".to_owned();
            let kind = std::io::ErrorKind::AlreadyExists;
            return Err(DiskError { operation: "create", name: NAME.to_owned(), kind, cause }.into());
        }
        if disk.exists(TEMPORARY)? {
            disk.remove(TEMPORARY)?;
        }
        let file = disk.create(TEMPORARY)?;
        for slot in 0..SUPERBLOCK_COPIES {
            file.write_at(offset(slot), &encode(slot, 1, body)?)?;
        }
        file.sync_data()?;
        disk.rename(TEMPORARY, NAME)?;
        disk.sync_dir("")?;
        Ok(Self { file, sequence: 1, stopped: None })
    }

    /// Reads the newest body and repairs the copies that do not hold it.
    ///
    /// # Errors
    /// See [`SuperblockError`]; nothing is written then unless the disk itself failed.
    pub fn open(disk: &D) -> Result<(Self, SuperblockRead), SuperblockError> {
        if !disk.exists(NAME)? {
            return Err(SuperblockError::Missing);
        }
        let file = disk.open(NAME)?;
        let read = choose(&read_slots(&file)?)?;
        for &slot in &read.repaired {
            file.write_at(offset(slot), &encode(slot, read.sequence, &read.body)?)?;
        }
        // Even with nothing to repair: what was read may be in the system's memory only, if a process died before a sync.
        file.sync_data()?;
        Ok((Self { file, sequence: read.sequence, stopped: None }, read))
    }

    /// Replaces the body. When it returns, the new body is safe; if it fails, the old or the new one is.
    ///
    /// # Errors
    /// If the body is longer than [`SUPERBLOCK_BODY_MAX`], or the disk refuses: every later write fails then and the
    /// process must stop.
    pub fn write(&mut self, body: &[u8]) -> Result<u64, SuperblockError> {
        if let Some(cause) = &self.stopped {
            return Err(SuperblockError::Stopped { cause: cause.clone() });
        }
        let sequence = self.sequence.saturating_add(1);
        for half in [[0, 1], [2, 3]] {
            let copies = [(half[0], encode(half[0], sequence, body)?), (half[1], encode(half[1], sequence, body)?)];
            let written = copies.iter().try_for_each(|(slot, copy)| self.file.write_at(offset(*slot), copy));
            if let Err(cause) = written.and_then(|()| self.file.sync_data()) {
                self.stopped = Some(cause.clone());
                return Err(cause.into());
            }
        }
        self.sequence = sequence;
        Ok(sequence)
    }

    /// The number of writes so far, the creation included.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

/// Reads the newest body and changes nothing; `repaired` are the copies that [`Superblock::open`] would rewrite.
///
/// # Errors
/// See [`SuperblockError`].
pub fn peek_superblock(disk: &impl Disk) -> Result<SuperblockRead, SuperblockError> {
    if !disk.exists(NAME)? {
        return Err(SuperblockError::Missing);
    }
    choose(&read_slots(&disk.open_to_read(NAME)?)?)
}

enum Slot {
    Valid { sequence: u64, body: Vec<u8> },
    Damaged,
    Version(u32),
}

fn read_slots(file: &impl DiskFile) -> Result<Vec<Slot>, DiskError> {
    (0..SUPERBLOCK_COPIES).map(|slot| Ok(decode(slot, &file.read_at(offset(slot), SLOT)?))).collect()
}

fn choose(slots: &[Slot]) -> Result<SuperblockRead, SuperblockError> {
    let mut newest: Option<(u64, &[u8])> = None;
    for slot in slots {
        if let Slot::Valid { sequence, body } = slot {
            match newest {
                Some((best, chosen)) if best == *sequence && chosen != body.as_slice() => {
                    return Err(SuperblockError::Conflict { sequence: *sequence });
                }
                Some((best, _)) if best >= *sequence => {}
                _ => newest = Some((*sequence, body)),
            }
        }
    }
    // A slot of another version is whole, so a newer release wrote here: its copies may be the newest, whatever ours say.
    if let Some(version) =
        slots.iter().find_map(|slot| if let Slot::Version(version) = slot { Some(*version) } else { None })
    {
        return Err(SuperblockError::Version { version });
    }
    let Some((sequence, body)) = newest else {
        return Err(SuperblockError::AllDamaged);
    };
    let is_newest = |slot: &Slot| matches!(slot, Slot::Valid { sequence: found, .. } if *found == sequence);
    let repaired = slots.iter().enumerate().filter(|(_, slot)| !is_newest(slot)).map(|(number, _)| number).collect();
    Ok(SuperblockRead { body: body.to_vec(), sequence, repaired })
}

fn offset(slot: usize) -> u64 {
    (slot as u64).saturating_mul(SLOT as u64)
}

fn encode(slot: usize, sequence: u64, body: &[u8]) -> Result<Vec<u8>, SuperblockError> {
    if body.len() > SUPERBLOCK_BODY_MAX {
        return Err(SuperblockError::TooLong { len: body.len() });
    }
    let mut copy = Vec::with_capacity(SLOT);
    copy.extend_from_slice(&MAGIC);
    copy.extend_from_slice(&VERSION.to_le_bytes());
    copy.extend_from_slice(&(slot as u32).to_le_bytes());
    copy.extend_from_slice(&sequence.to_le_bytes());
    copy.extend_from_slice(&(body.len() as u32).to_le_bytes());
    let check = crc(&[&copy, body]);
    copy.extend_from_slice(&check.to_le_bytes());
    copy.extend_from_slice(body);
    copy.resize(SLOT, 0);
    Ok(copy)
}

fn decode(slot: usize, copy: &[u8]) -> Slot {
    try_decode(slot, copy).unwrap_or(Slot::Damaged)
}

fn try_decode(slot: usize, copy: &[u8]) -> Option<Slot> {
    if array_at(copy, 0)? != MAGIC {
        return None;
    }
    let len = usize::try_from(u32_at(copy, 24)?).ok()?;
    let body = copy.get(HEADER..HEADER.checked_add(len)?)?;
    if !is_zero(copy.get(HEADER.checked_add(len)?..SLOT)?) {
        return None;
    }
    if crc(&[copy.get(..HEADER.checked_sub(4)?)?, body]) != u32_at(copy, 28)? || u32_at(copy, 12)? != slot as u32 {
        return None;
    }
    match u32_at(copy, 8)? {
        VERSION => Some(Slot::Valid { sequence: u64_at(copy, 16)?, body: body.to_vec() }),
        version => Some(Slot::Version(version)),
    }
}
