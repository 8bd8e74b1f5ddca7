//! The real disk with a hand on it: syncs of the log wait at a gate, fail, or find no room, as a test says.

use quorate_store::{Disk, DiskError, DiskFile, RealDisk};
use std::io::{Error, ErrorKind};
use std::sync::{Arc, Condvar, Mutex};

#[derive(Debug, Default)]
struct Hand {
    closed: bool,
    failing: bool,
    full: bool,
    waiting: usize,
}

/// What a test keeps.
#[derive(Clone, Debug, Default)]
pub struct Gate {
    hand: Arc<(Mutex<Hand>, Condvar)>,
}

impl Gate {
    fn with<T>(&self, change: impl FnOnce(&mut Hand) -> T) -> T {
        let result = change(&mut self.hand.0.lock().expect("no panic while it is held"));
        self.hand.1.notify_all();
        result
    }

    /// Syncs of the log wait from now on.
    pub fn close(&self) {
        self.with(|hand| hand.closed = true);
    }

    pub fn open(&self) {
        self.with(|hand| hand.closed = false);
    }

    /// Syncs of the log fail from now on.
    pub fn fail(&self) {
        self.with(|hand| hand.failing = true);
    }

    /// No file of the log can be made from now on.
    pub fn fill(&self) {
        self.with(|hand| hand.full = true);
    }

    /// How many syncs wait.
    pub fn waiting(&self) -> usize {
        self.with(|hand| hand.waiting)
    }

    fn pass(&self) -> bool {
        let mut hand = self.hand.0.lock().expect("no panic while it is held");
        hand.waiting += 1;
        while hand.closed {
            hand = self.hand.1.wait(hand).expect("no panic while it is held");
        }
        hand.waiting -= 1;
        !hand.failing
    }
}

#[derive(Clone, Debug)]
pub struct Gated {
    pub disk: RealDisk,
    pub gate: Gate,
}

#[derive(Debug)]
pub struct GatedFile {
    file: <RealDisk as Disk>::File,
    name: String,
    gate: Gate,
}

impl Gated {
    fn gated(&self, name: &str, file: <RealDisk as Disk>::File) -> GatedFile {
        GatedFile { file, name: name.to_owned(), gate: self.gate.clone() }
    }
}

impl Disk for Gated {
    type File = GatedFile;

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.create_dir(dir)
    }
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.disk.list(dir)
    }
    fn open(&self, name: &str) -> Result<GatedFile, DiskError> {
        self.disk.open(name).map(|file| self.gated(name, file))
    }
    fn open_to_read(&self, name: &str) -> Result<GatedFile, DiskError> {
        self.disk.open_to_read(name).map(|file| self.gated(name, file))
    }
    fn create(&self, name: &str) -> Result<GatedFile, DiskError> {
        if name.starts_with("wal/") && self.gate.with(|hand| hand.full) {
            return Err(DiskError::new("create", name, &Error::from(ErrorKind::StorageFull)));
        }
        self.disk.create(name).map(|file| self.gated(name, file))
    }
    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        self.disk.exists(name)
    }
    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        self.disk.rename(from, to)
    }
    fn remove(&self, name: &str) -> Result<(), DiskError> {
        self.disk.remove(name)
    }
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.disk.sync_dir(dir)
    }
}

impl DiskFile for GatedFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.file.len()
    }
    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        self.file.read_at(offset, len)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.file.write_at(offset, bytes)
    }
    fn sync_data(&self) -> Result<(), DiskError> {
        if self.name.starts_with("wal/") && !self.gate.pass() {
            return Err(DiskError::new("sync", &self.name, &Error::other("the disk is gone")));
        }
        self.file.sync_data()
    }
}
