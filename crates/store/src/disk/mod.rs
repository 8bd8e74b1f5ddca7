//! A folder of files as everything above sees it: [`RealDisk`] in production, [`SimDisk`] in the simulator.
//!
//! Names are relative to a root folder and use `/`, as in `wal/0000000000000001.seg`; the root itself is `""`. Two rules
//! of POSIX are part of the contract, because forgetting either loses data: bytes written are safe only after
//! [`DiskFile::sync_data`], and a name created, renamed or removed is safe only after [`Disk::sync_dir`] of its folder.

mod real;
mod simulated;

use std::{fmt, io};

pub use real::{FolderLock, RealDisk, RealFile};
pub use simulated::{SECTOR, SimDisk, SimFile};

/// A folder of files. Cheap to clone: every clone is the same folder.
pub trait Disk: Clone + Send + fmt::Debug + 'static {
    /// An open file of this disk.
    type File: DiskFile;

    /// Makes the folder unless it is there. The name is safe after [`Disk::sync_dir`] of the folder above it.
    ///
    /// # Errors
    /// Whatever the system says.
    fn create_dir(&self, dir: &str) -> Result<(), DiskError>;

    /// The names of the files directly inside `dir`, sorted, without the folder. A folder that is not there is empty.
    ///
    /// # Errors
    /// Whatever the system says.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;

    /// Opens a file that exists, to read and write.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn open(&self, name: &str) -> Result<Self::File, DiskError>;

    /// Opens a file that exists, to read only. What it returns may refuse every write.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn open_to_read(&self, name: &str) -> Result<Self::File, DiskError>;

    /// Makes an empty file.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if the name is taken.
    fn create(&self, name: &str) -> Result<Self::File, DiskError>;

    /// Whether a file of this name exists.
    ///
    /// # Errors
    /// Whatever the system says.
    fn exists(&self, name: &str) -> Result<bool, DiskError>;

    /// Gives a file another name in the same folder, replacing what had it, atomically.
    ///
    /// # Errors
    /// Whatever the system says.
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// [`io::ErrorKind::NotFound`] if it does not exist.
    fn remove(&self, name: &str) -> Result<(), DiskError>;

    /// Makes the names in `dir` safe: without it a power loss may undo any creation, renaming or removal there.
    ///
    /// # Errors
    /// Whatever the system says; the process must stop then, as after a failed [`DiskFile::sync_data`].
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
}

/// An open file. Offsets and lengths are bytes.
pub trait DiskFile: Send + fmt::Debug {
    /// How long the file is.
    ///
    /// # Errors
    /// Whatever the system says.
    fn len(&self) -> Result<u64, DiskError>;

    /// Whether the file has no byte.
    ///
    /// # Errors
    /// As [`DiskFile::len`].
    fn is_empty(&self) -> Result<bool, DiskError> {
        Ok(self.len()? == 0)
    }

    /// Up to `len` bytes from `offset`; fewer only where the file ends.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError>;

    /// Writes all of `bytes` at `offset`, growing the file with zeros if need be. Not safe before [`DiskFile::sync_data`].
    ///
    /// # Errors
    /// Whatever the system says; any part of the bytes may have been written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Makes everything written to this file safe.
    ///
    /// # Errors
    /// Whatever the system says. Never call it again then: the system may have dropped the bytes and report success.
    fn sync_data(&self) -> Result<(), DiskError>;
}

/// A disk refused an operation. The text says what was tried, on which file, why it failed and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {operation} {name}: {cause}. {advice}", advice = advice(*kind))]
pub struct DiskError {
    /// What was tried, as a verb: "write", "sync".
    pub operation: &'static str,
    /// The file or folder.
    pub name: String,
    /// The class of the failure.
    pub kind: io::ErrorKind,
    /// The system's own words.
    pub cause: String,
}

impl DiskError {
    /// The error of `operation` on `name`.
    pub fn new(operation: &'static str, name: impl Into<String>, error: &io::Error) -> Self {
        Self { operation, name: name.into(), kind: error.kind(), cause: error.to_string() }
    }

    /// Whether room on the disk, or the quota of the user, is used up.
    pub fn is_full(&self) -> bool {
        matches!(self.kind, io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge)
    }
}

fn advice(kind: io::ErrorKind) -> &'static str {
    match kind {
        io::ErrorKind::StorageFull => "The disk is full: free space on it or move the data folder to a larger one",
        io::ErrorKind::QuotaExceeded => "The user's disk quota is used up: raise it or free space",
        io::ErrorKind::PermissionDenied => {
            "Give the user that runs the process read and write access to the data folder"
        }
        io::ErrorKind::ReadOnlyFilesystem => {
            "The file system is mounted read-only; a kernel does that after disk errors: look at its log"
        }
        io::ErrorKind::NotFound => "Check that the data folder is the right one and is mounted",
        io::ErrorKind::AlreadyExists => "Another process may be using the data folder",
        io::ErrorKind::InvalidInput => "The name or the offset makes no sense to the file system",
        _ => "Look at the kernel's log and at the health of the disk",
    }
}

/// The folder part of a name; `""` for a file in the root.
pub(crate) fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}
