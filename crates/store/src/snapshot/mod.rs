//! Snapshots: a manifest and numbered chunks in one file, complete under its name or not there at all.
//!
//! A snapshot of this replica is written front to back by [`Writer`]; one that peers send arrives in any order through
//! [`Incoming`], which goes on after a restart. Both make `snapshots/<number>.snap`, the number in hexadecimal. Chunks have
//! checksums against damage; whether they are the *right* chunks is for the caller to tell, by the hashes in its manifest.

mod layout;

use crate::disk::{Disk, DiskError, DiskFile};
use layout::{HEADER, Layout, PREFIX, prefix, read_chunk};
use quorate_core::mutated;

/// The longest chunk, in bytes.
pub const CHUNK_BYTES_MAX: usize = 64 << 20;

const FOLDER: &str = "snapshots";
/// Bytes between two syncs of a snapshot that is being written: a sync of the log waits behind so many, not behind all of it.
const SYNC_EVERY: u64 = 1 << 20;

/// The snapshots of a data folder.
#[derive(Clone, Debug)]
pub struct SnapshotStore<D: Disk> {
    disk: D,
}

/// A snapshot being written front to back. Dropped unfinished, it leaves a temporary file that the next
/// [`SnapshotStore::open`] removes.
#[derive(Debug)]
pub struct Writer<D: Disk> {
    disk: D,
    file: D::File,
    number: u64,
    lengths: Vec<u32>,
    end: u64,
    /// Up to where it is synced.
    synced: u64,
}

/// A snapshot arriving in pieces.
#[derive(Debug)]
pub struct Incoming<D: Disk> {
    disk: D,
    file: D::File,
    layout: Layout,
    present: Vec<bool>,
}

/// A complete snapshot.
#[derive(Debug)]
pub struct Reader<D: Disk> {
    file: D::File,
    name: String,
    layout: Layout,
}

/// Why a snapshot cannot be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SnapshotError {
    /// Damage outside the chunks: the whole snapshot is of no use.
    #[error("the {what} of {file} is damaged: remove the snapshot and use an older one or fetch it from a peer")]
    Damaged {
        /// The file.
        file: String,
        /// The part.
        what: &'static str,
    },
    /// One chunk is damaged.
    #[error("chunk {index} of {file} is damaged: fetch it from a peer")]
    DamagedChunk {
        /// The file.
        file: String,
        /// The chunk, from 0.
        index: usize,
    },
    /// No chunk has this number.
    #[error("the snapshot has {count} chunks, there is no chunk {index}")]
    NoChunk {
        /// The chunk asked for, from 0.
        index: usize,
        /// The chunks there are.
        count: usize,
    },
    /// A chunk is longer than allowed, or has another length than announced.
    #[error("a chunk of {len} bytes where {expected} are allowed")]
    ChunkLength {
        /// Its length in bytes.
        len: usize,
        /// The length announced, or the limit.
        expected: usize,
    },
    /// Some chunks have not arrived.
    #[error("{missing} chunks have not arrived")]
    Incomplete {
        /// How many.
        missing: usize,
    },
    /// Another format.
    #[error("{file} has format version {version}, which this program does not know: use the release that wrote it")]
    Version {
        /// The file.
        file: String,
        /// The version found.
        version: u32,
    },
    /// The announced snapshot is longer than a file can be.
    #[error("the snapshot would be longer than a file can be")]
    TooLong,
    /// The disk refused an operation.
    #[error(transparent)]
    Disk(#[from] DiskError),
}

impl<D: Disk> SnapshotStore<D> {
    /// Opens the folder, made if need be, and removes temporary files of unfinished writers. Incoming snapshots stay.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn open(disk: &D) -> Result<Self, SnapshotError> {
        disk.create_dir(FOLDER)?;
        disk.sync_dir("")?;
        for file in disk.list(FOLDER)?.iter().filter(|file| file.ends_with(".tmp")) {
            disk.remove(&format!("{FOLDER}/{file}"))?;
        }
        Ok(Self { disk: disk.clone() })
    }

    /// The folder as it is, nothing made and nothing removed: for looking at it only.
    pub(crate) fn untouched(disk: &D) -> Self {
        Self { disk: disk.clone() }
    }

    /// The numbers of the complete snapshots, in order.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn list(&self) -> Result<Vec<u64>, DiskError> {
        numbers(&self.disk, ".snap")
    }

    /// The numbers of the incoming snapshots, in order.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn list_incoming(&self) -> Result<Vec<u64>, DiskError> {
        numbers(&self.disk, ".part")
    }

    /// Starts to write a snapshot; one of the same number is replaced when this one is finished.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn begin(&self, number: u64) -> Result<Writer<D>, SnapshotError> {
        let file = create_anew(&self.disk, &name(number, ".tmp"))?;
        file.write_at(0, &layout::header(number))?;
        Ok(Writer { disk: self.disk.clone(), file, number, lengths: Vec::new(), end: HEADER, synced: 0 })
    }

    /// Starts to receive a snapshot, or goes on with what a former start of the same (number, manifest and lengths) left.
    ///
    /// # Errors
    /// [`SnapshotError::ChunkLength`] for a chunk above [`CHUNK_BYTES_MAX`]; [`SnapshotError::TooLong`]; if the disk refuses.
    pub fn begin_incoming(&self, number: u64, manifest: &[u8], lengths: &[u32]) -> Result<Incoming<D>, SnapshotError> {
        if let Some(len) = lengths.iter().map(|len| *len as usize).find(|len| *len > CHUNK_BYTES_MAX) {
            return Err(SnapshotError::ChunkLength { len, expected: CHUNK_BYTES_MAX });
        }
        let layout = Layout::new(number, manifest, lengths).ok_or(SnapshotError::TooLong)?;
        if let Some(incoming) = self.resume(number)?
            && incoming.layout == layout
        {
            return Ok(incoming);
        }
        let file = create_anew(&self.disk, &name(number, ".part"))?;
        file.write_at(0, &layout::header(number))?;
        file.write_at(layout.chunks_end, &layout.end_bytes())?;
        let present = vec![false; lengths.len()];
        Ok(Incoming { disk: self.disk.clone(), file, layout, present })
    }

    /// Goes on with an incoming snapshot, if there is one of this number and its frame is intact. Reads all its chunks.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn resume(&self, number: u64) -> Result<Option<Incoming<D>>, SnapshotError> {
        let name = name(number, ".part");
        if !self.disk.exists(&name)? {
            return Ok(None);
        }
        let file = self.disk.open(&name)?;
        let layout = match Layout::read(&file, &name, number) {
            Ok(layout) => layout,
            Err(SnapshotError::Disk(error)) => return Err(error.into()),
            Err(_) => return Ok(None), // Cut short by a crash before its frame was safe: nothing in it is worth keeping.
        };
        let present = (0..layout.lengths.len()).map(|index| Ok(read_chunk(&file, &layout, index)?.is_some()));
        let present = present.collect::<Result<Vec<_>, SnapshotError>>()?;
        Ok(Some(Incoming { disk: self.disk.clone(), file, layout, present }))
    }

    /// Opens a complete snapshot and checks all but its chunks.
    ///
    /// # Errors
    /// See [`SnapshotError`].
    pub fn read(&self, number: u64) -> Result<Reader<D>, SnapshotError> {
        let name = name(number, ".snap");
        let file = self.disk.open_to_read(&name)?;
        let layout = Layout::read(&file, &name, number)?;
        Ok(Reader { file, name, layout })
    }

    /// Removes a complete snapshot, if it is there.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn remove(&self, number: u64) -> Result<(), SnapshotError> {
        self.remove_file(&name(number, ".snap"))
    }

    /// Removes an incoming snapshot, if it is there.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn remove_incoming(&self, number: u64) -> Result<(), SnapshotError> {
        self.remove_file(&name(number, ".part"))
    }

    /// How many chunks an incoming snapshot has and which have not arrived.
    pub(crate) fn peek_incoming(&self, number: u64) -> Result<(usize, Vec<usize>), SnapshotError> {
        let name = name(number, ".part");
        let file = self.disk.open_to_read(&name)?;
        let layout = Layout::read(&file, &name, number)?;
        let mut missing = Vec::new();
        for index in 0..layout.lengths.len() {
            if read_chunk(&file, &layout, index)?.is_none() {
                missing.push(index);
            }
        }
        Ok((layout.lengths.len(), missing))
    }

    fn remove_file(&self, name: &str) -> Result<(), SnapshotError> {
        if self.disk.exists(name)? {
            self.disk.remove(name)?;
            self.disk.sync_dir(FOLDER)?;
        }
        Ok(())
    }
}

impl<D: Disk> Writer<D> {
    /// Appends the next chunk.
    ///
    /// # Errors
    /// [`SnapshotError::ChunkLength`] above [`CHUNK_BYTES_MAX`]; if the disk refuses.
    pub fn chunk(&mut self, chunk: &[u8]) -> Result<(), SnapshotError> {
        let len = chunk.len();
        let too_long = SnapshotError::ChunkLength { len, expected: CHUNK_BYTES_MAX };
        let short = u32::try_from(len).ok().filter(|_| len <= CHUNK_BYTES_MAX).ok_or(too_long)?;
        self.file.write_at(self.end, &prefix(self.number, self.lengths.len() as u64, chunk))?;
        self.file.write_at(self.end.saturating_add(PREFIX), chunk)?;
        self.end = self.end.saturating_add(PREFIX).saturating_add(u64::from(short));
        self.lengths.push(short);
        if self.end.saturating_sub(self.synced) >= SYNC_EVERY {
            self.file.sync_data()?;
            self.synced = self.end;
        }
        Ok(())
    }

    /// Completes the snapshot: when this returns, it is safe under its name.
    ///
    /// # Errors
    /// If the disk refuses: the snapshot is not there then, or all of it is.
    pub fn finish(self, manifest: &[u8]) -> Result<(), SnapshotError> {
        let layout = Layout::new(self.number, manifest, &self.lengths).ok_or(SnapshotError::TooLong)?;
        self.file.write_at(layout.chunks_end, &layout.end_bytes())?;
        complete(&self.disk, &self.file, self.number, ".tmp")
    }
}

impl<D: Disk> Incoming<D> {
    /// The snapshot's number.
    pub fn number(&self) -> u64 {
        self.layout.number
    }

    /// The manifest that the snapshot was announced with.
    pub fn manifest(&self) -> &[u8] {
        &self.layout.manifest
    }

    /// The chunks that have not arrived, in order.
    pub fn missing(&self) -> Vec<usize> {
        self.present.iter().enumerate().filter(|(_, present)| !**present).map(|(index, _)| index).collect()
    }

    /// Takes a chunk, in any order; one that is there already is replaced. Not synced: a chunk that a crash takes is missing
    /// again afterwards.
    ///
    /// # Errors
    /// [`SnapshotError::NoChunk`], [`SnapshotError::ChunkLength`]; if the disk refuses.
    pub fn put(&mut self, index: usize, chunk: &[u8]) -> Result<(), SnapshotError> {
        let count = self.present.len();
        let place = (self.layout.offsets.get(index), self.layout.lengths.get(index), self.present.get_mut(index));
        let (Some(offset), Some(expected), Some(present)) = place else {
            return Err(SnapshotError::NoChunk { index, count });
        };
        if chunk.len() != *expected as usize {
            return Err(SnapshotError::ChunkLength { len: chunk.len(), expected: *expected as usize });
        }
        self.file.write_at(offset.saturating_add(PREFIX), chunk)?;
        self.file.write_at(*offset, &prefix(self.layout.number, index as u64, chunk))?;
        *present = true;
        Ok(())
    }

    /// A chunk that has arrived; `None` if it has not, or was damaged since and has to arrive again.
    ///
    /// # Errors
    /// If the disk refuses.
    pub fn chunk(&mut self, index: usize) -> Result<Option<Vec<u8>>, SnapshotError> {
        let chunk = read_chunk(&self.file, &self.layout, index)?;
        if let Some(present) = self.present.get_mut(index) {
            *present = chunk.is_some();
        }
        Ok(chunk)
    }

    /// Completes the snapshot: when this returns, it is safe under its name.
    ///
    /// # Errors
    /// [`SnapshotError::Incomplete`]; if the disk refuses.
    pub fn finish(self) -> Result<(), SnapshotError> {
        match self.missing().len() {
            0 => complete(&self.disk, &self.file, self.layout.number, ".part"),
            missing => Err(SnapshotError::Incomplete { missing }),
        }
    }
}

impl<D: Disk> Reader<D> {
    /// The manifest.
    pub fn manifest(&self) -> &[u8] {
        &self.layout.manifest
    }

    /// How many chunks there are.
    pub fn chunk_count(&self) -> usize {
        self.layout.lengths.len()
    }

    /// The length of each chunk, in bytes: what a peer needs for [`SnapshotStore::begin_incoming`].
    pub fn chunk_lengths(&self) -> &[u32] {
        &self.layout.lengths
    }

    /// Reads one chunk.
    ///
    /// # Errors
    /// [`SnapshotError::NoChunk`], [`SnapshotError::DamagedChunk`]; if the disk refuses.
    pub fn chunk(&self, index: usize) -> Result<Vec<u8>, SnapshotError> {
        if index >= self.chunk_count() {
            return Err(SnapshotError::NoChunk { index, count: self.chunk_count() });
        }
        let damaged = || SnapshotError::DamagedChunk { file: self.name.clone(), index };
        read_chunk(&self.file, &self.layout, index)?.ok_or_else(damaged)
    }
}

/// The numbers of the files with this ending, in order.
fn numbers(disk: &impl Disk, ending: &str) -> Result<Vec<u64>, DiskError> {
    let number = |file: &String| {
        let digits = file.strip_suffix(ending).filter(|digits| digits.len() == 16)?;
        u64::from_str_radix(digits, 16).ok()
    };
    Ok(disk.list(FOLDER)?.iter().filter_map(number).collect())
}

fn name(number: u64, ending: &str) -> String {
    format!("{FOLDER}/{number:016x}{ending}")
}

fn create_anew<D: Disk>(disk: &D, name: &str) -> Result<D::File, DiskError> {
    if disk.exists(name)? {
        disk.remove(name)?;
    }
    disk.create(name)
}

fn complete<D: Disk>(disk: &D, file: &D::File, number: u64, ending: &str) -> Result<(), SnapshotError> {
    if !mutated!("snapshot/not-synced") {
        file.sync_data()?;
    }
    disk.rename(&name(number, ending), &name(number, ".snap"))?;
    if !mutated!("snapshot/name-not-synced") {
        disk.sync_dir(FOLDER)?;
    }
    Ok(())
}
