//! The disk of this computer, through `std::fs`.

use super::{Disk, DiskError, DiskFile};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const LOCK: &str = "lock";

/// A folder of the file system.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<Path>,
}

/// Keeps other processes out of a data folder for as long as it lives.
#[derive(Debug)]
pub struct FolderLock {
    _file: File,
}

/// An open file of a [`RealDisk`].
#[derive(Debug)]
pub struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealDisk {
    /// The folder `root`, made (and its name made safe) if it does not exist.
    ///
    /// # Errors
    /// If the folder cannot be made or opened.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self, DiskError> {
        let root = root.into();
        let disk = Self { root: Arc::from(root.as_path()) };
        if !root.is_dir() {
            std::fs::create_dir_all(&root).map_err(|error| disk.error("create the folder", "", &error))?;
            if let Some(above) = root.parent().filter(|above| !above.as_os_str().is_empty()) {
                File::open(above)
                    .and_then(|folder| folder.sync_all())
                    .map_err(|error| DiskError::new("sync the folder", above.display().to_string(), &error))?;
            }
        }
        Ok(disk)
    }

    /// The folder.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the folder for this process, until the lock is dropped or the process ends.
    ///
    /// # Errors
    /// If another process has it, or the lock file cannot be made.
    pub fn lock(&self) -> Result<FolderLock, DiskError> {
        let path = self.path(LOCK);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| self.error("create", LOCK, &error))?;
        match file.try_lock() {
            Ok(()) => Ok(FolderLock { _file: file }),
            Err(TryLockError::WouldBlock) => {
                let cause = format!("data folder {} is in use by another process", self.root.display());
                Err(DiskError {
                    operation: "lock",
                    name: path.display().to_string(),
                    kind: ErrorKind::AlreadyExists,
                    cause,
                })
            }
            Err(TryLockError::Error(error)) => Err(self.error("lock", LOCK, &error)),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        if name.is_empty() { self.root.to_path_buf() } else { self.root.join(name) }
    }

    fn error(&self, operation: &'static str, name: &str, error: &io::Error) -> DiskError {
        DiskError::new(operation, self.path(name).display().to_string(), error)
    }

    fn open_as(&self, name: &str, operation: &'static str, options: &OpenOptions) -> Result<RealFile, DiskError> {
        let path = self.path(name);
        let file = options.open(&path).map_err(|error| self.error(operation, name, &error))?;
        Ok(RealFile { file, path })
    }
}

impl Disk for RealDisk {
    type File = RealFile;

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        std::fs::create_dir_all(self.path(dir)).map_err(|error| self.error("create the folder", dir, &error))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let failed = |error: io::Error| self.error("list the folder", dir, &error);
        let entries = match std::fs::read_dir(self.path(dir)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(failed(error)),
        };
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(failed)?;
            if entry.file_type().map_err(failed)?.is_file()
                && let Ok(name) = entry.file_name().into_string()
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn open(&self, name: &str) -> Result<RealFile, DiskError> {
        self.open_as(name, "open", OpenOptions::new().read(true).write(true))
    }

    fn open_to_read(&self, name: &str) -> Result<RealFile, DiskError> {
        self.open_as(name, "open", OpenOptions::new().read(true))
    }

    fn create(&self, name: &str) -> Result<RealFile, DiskError> {
        self.open_as(name, "create", OpenOptions::new().read(true).write(true).create_new(true))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.path(name).try_exists().map_err(|error| self.error("look for", name, &error))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        std::fs::rename(self.path(from), self.path(to)).map_err(|error| self.error("rename", from, &error))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        std::fs::remove_file(self.path(name)).map_err(|error| self.error("remove", name, &error))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        File::open(self.path(dir))
            .and_then(|folder| folder.sync_all())
            .map_err(|error| self.error("sync the folder", dir, &error))
    }
}

impl RealFile {
    fn error(&self, operation: &'static str, error: &io::Error) -> DiskError {
        DiskError::new(operation, self.path.display().to_string(), error)
    }
}

impl DiskFile for RealFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.file.metadata().map(|metadata| metadata.len()).map_err(|error| self.error("read the length of", &error))
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        let room = self.len()?.saturating_sub(offset);
        let mut bytes = vec![0; len.min(usize::try_from(room).unwrap_or(usize::MAX))];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(bytes),
            Err(error) => Err(self.error("read", &error)),
        }
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_all_at(bytes, offset).map_err(|error| self.error("write", &error))
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        self.file.sync_data().map_err(|error| self.error("sync", &error))
    }
}
