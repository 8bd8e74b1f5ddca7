//! A disk in memory that breaks on request, the same way for the same requests.
//!
//! Every file has two contents: what a reader sees and what would survive a power loss. A write changes the first, sector
//! by sector (512 bytes, the unit that a disk writes whole or not at all); [`DiskFile::sync_data`] makes the second equal
//! to it. Names likewise: creations, renamings and removals survive after [`Disk::sync_dir`]. [`SimDisk::crash`] keeps a
//! random part of what was not synced, in any order, and so produces lost and torn writes.

use super::{Disk, DiskError, DiskFile, folder_of};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The unit, in bytes, that a disk writes whole or not at all.
pub const SECTOR: usize = 512;

/// A disk in memory. Clones are the same disk, so that a test keeps one while the store owns another.
#[derive(Clone, Debug, Default)]
pub struct SimDisk {
    state: Arc<Mutex<State>>,
}

/// An open file of a [`SimDisk`]. Every use fails after the next [`SimDisk::crash`] or [`SimDisk::wipe`].
#[derive(Debug)]
pub struct SimFile {
    state: Arc<Mutex<State>>,
    name: String,
    inode: u64,
    life: u64,
}

#[derive(Debug, Default)]
struct State {
    life: u64,
    next_inode: u64,
    inodes: BTreeMap<u64, Inode>,
    seen: Names,
    safe: Names,
    pending: BTreeMap<String, Vec<Change>>,
    faults: Faults,
    operations: u64,
    syncs: u64,
}

#[derive(Clone, Debug, Default)]
struct Names {
    files: BTreeMap<String, u64>,
    folders: BTreeSet<String>,
}

/// A change of names in one folder that no `sync_dir` has made safe yet.
#[derive(Debug)]
enum Change {
    Folder(String),
    Link(String, u64),
    Rename(String, String, u64),
    Unlink(String),
}

#[derive(Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    safe_len: usize,
    /// For each sector written since the last sync: what the disk still holds.
    unsynced: BTreeMap<usize, Sector>,
}

#[derive(Debug)]
struct Sector {
    /// `None`: zeros, because no sync has covered it yet.
    on_disk: Option<Box<[u8; SECTOR]>>,
    /// A sync of it failed: the system believes it clean, the disk never gets it.
    dropped: bool,
}

#[derive(Debug, Default)]
struct Faults {
    full: bool,
    power_left: Option<u64>,
    failing_sync: Option<String>,
    misdirected: Option<(String, u64)>,
    lost_write: Option<String>,
    ignored_syncs: Option<String>,
    ignored_dir_syncs: bool,
}

impl SimDisk {
    /// An empty disk.
    pub fn new() -> Self {
        Self::default()
    }

    /// A power loss. Of everything not synced, each sector and each change of a name survives or not, as `random` says;
    /// whatever was open stops working. Equal answers of `random` give equal disks.
    pub fn crash(&self, random: &mut impl FnMut() -> u64) {
        let mut state = self.lock();
        let pending = std::mem::take(&mut state.pending);
        for change in pending.into_values().flatten() {
            if random() & 1 == 1 {
                state.safe.apply(&change);
            }
        }
        let folders = state.safe.folders.clone();
        state.safe.files.retain(|name, _| folder_of(name).is_empty() || folders.contains(folder_of(name)));
        state.seen = state.safe.clone();
        let reachable: BTreeSet<u64> = state.seen.files.values().copied().collect();
        state.inodes.retain(|inode, _| reachable.contains(inode));
        for inode in state.inodes.values_mut() {
            inode.crash(random);
        }
        state.life += 1;
        state.faults = Faults::default();
    }

    /// The process dies and the computer goes on: everything written stays, synced or not; whatever was open stops working.
    pub fn kill(&self) {
        let mut state = self.lock();
        state.life += 1;
        state.faults = Faults::default();
    }

    /// The disk is replaced by an empty one.
    pub fn wipe(&self) {
        let mut state = self.lock();
        let life = state.life + 1;
        *state = State { life, ..State::default() };
    }

    /// The power goes out during the `operations`-th change from now (0: the next): it and all later ones fail. Reading
    /// goes on. [`SimDisk::crash`] ends it.
    pub fn cut_power_after(&self, operations: u64) {
        self.lock().faults.power_left = Some(operations);
    }

    /// Whether the disk is full: no file can be made or grow.
    pub fn full(&self, full: bool) {
        self.lock().faults.full = full;
    }

    /// The next `sync_data` of a file whose name starts with `prefix` fails. As on Linux, what it should have saved is
    /// lost while later syncs succeed.
    pub fn fail_next_sync(&self, prefix: &str) {
        self.lock().faults.failing_sync = Some(prefix.to_owned());
    }

    /// The next write to a file whose name starts with `prefix` lands at `offset` instead.
    pub fn misdirect_next_write(&self, prefix: &str, offset: u64) {
        self.lock().faults.misdirected = Some((prefix.to_owned(), offset));
    }

    /// The next write to a file whose name starts with `prefix` is reported as done and is not.
    pub fn lose_next_write(&self, prefix: &str) {
        self.lock().faults.lost_write = Some(prefix.to_owned());
    }

    /// From now on `sync_data` of files whose names start with `prefix` does nothing: what a program that forgot to sync
    /// would see. It lets a test prove that a sync is needed.
    pub fn ignore_syncs_of(&self, prefix: &str) {
        self.lock().faults.ignored_syncs = Some(prefix.to_owned());
    }

    /// From now on `sync_dir` does nothing; see [`SimDisk::ignore_syncs_of`].
    pub fn ignore_dir_syncs(&self) {
        self.lock().faults.ignored_dir_syncs = true;
    }

    /// Flips one bit of a file, for readers and on the disk. Nothing happens beyond the end of the file.
    pub fn flip_bit(&self, name: &str, offset: u64, bit: u8) {
        self.corrupt(name, offset, 1, |byte| byte ^ (1 << (bit & 7)));
    }

    /// Changes `len` bytes of a file from `offset`, for readers and on the disk.
    pub fn corrupt(&self, name: &str, offset: u64, len: usize, change: impl Fn(u8) -> u8) {
        let mut state = self.lock();
        let Some(inode) = state.inode_named(name) else { return };
        let start = to_usize(offset);
        for at in start..start.saturating_add(len) {
            if let Some(byte) = inode.bytes.get_mut(at) {
                *byte = change(*byte);
            }
            if let Some(sector) = inode.unsynced.get_mut(&(at / SECTOR)) {
                let on_disk = sector.on_disk.get_or_insert_with(|| Box::new([0; SECTOR]));
                on_disk[at % SECTOR] = change(on_disk[at % SECTOR]);
            }
        }
    }

    /// Cuts a file to `len` bytes, for readers and on the disk.
    pub fn truncate(&self, name: &str, len: u64) {
        if let Some(inode) = self.lock().inode_named(name) {
            inode.bytes.truncate(to_usize(len));
            inode.safe_len = inode.safe_len.min(inode.bytes.len());
        }
    }

    /// The names of all files, sorted.
    pub fn files(&self) -> Vec<String> {
        self.lock().seen.files.keys().cloned().collect()
    }

    /// The content of a file as a reader sees it.
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        self.look(name, <[u8]>::to_vec)
    }

    /// Looks at the content of a file as a reader sees it, without a copy. `look` must not use the disk.
    pub fn look<T>(&self, name: &str, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.lock().inode_named(name).map(|inode| look(&inode.bytes))
    }

    /// Changes made so far: writes, syncs and changes of names.
    pub fn operations(&self) -> u64 {
        self.lock().operations
    }

    /// Calls of `sync_data` so far.
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// Another disk with the same content, of which everything is safe.
    #[must_use]
    pub fn copy(&self) -> Self {
        let state = self.lock();
        let mut copy = State { next_inode: state.next_inode, ..State::default() };
        copy.seen = state.seen.clone();
        copy.safe = state.seen.clone();
        for (&number, inode) in &state.inodes {
            let bytes = inode.bytes.clone();
            copy.inodes.insert(number, Inode { safe_len: bytes.len(), bytes, unsynced: BTreeMap::new() });
        }
        Self { state: Arc::new(Mutex::new(copy)) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn file(&self, state: &State, name: &str, inode: u64) -> SimFile {
        SimFile { state: Arc::clone(&self.state), name: name.to_owned(), inode, life: state.life }
    }

    fn change(&self, operation: &'static str, name: &str, change: Change) -> Result<(), DiskError> {
        let mut state = self.lock();
        let powered = state.spend(operation, name);
        state.seen.apply(&change);
        state.pending.entry(folder_of(name).to_owned()).or_default().push(change);
        powered
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn create_dir(&self, dir: &str) -> Result<(), DiskError> {
        if self.lock().seen.folders.contains(dir) {
            return Ok(());
        }
        self.change("create the folder", dir, Change::Folder(dir.to_owned()))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let inside = |name: &&String| folder_of(name) == dir;
        let state = self.lock();
        Ok(state.seen.files.keys().filter(inside).map(|name| name[dir.len()..].trim_matches('/').to_owned()).collect())
    }

    fn open(&self, name: &str) -> Result<SimFile, DiskError> {
        let state = self.lock();
        match state.seen.files.get(name) {
            Some(&inode) => Ok(self.file(&state, name, inode)),
            None => Err(fault("open", name, ErrorKind::NotFound)),
        }
    }

    fn open_to_read(&self, name: &str) -> Result<SimFile, DiskError> {
        self.open(name)
    }

    fn create(&self, name: &str) -> Result<SimFile, DiskError> {
        let inode = {
            let mut state = self.lock();
            if state.seen.files.contains_key(name) {
                return Err(fault("create", name, ErrorKind::AlreadyExists));
            }
            if !folder_of(name).is_empty() && !state.seen.folders.contains(folder_of(name)) {
                return Err(fault("create", name, ErrorKind::NotFound));
            }
            if state.faults.full {
                return Err(fault("create", name, ErrorKind::StorageFull));
            }
            state.next_inode += 1;
            let inode = state.next_inode;
            state.inodes.insert(inode, Inode::default());
            inode
        };
        self.change("create", name, Change::Link(name.to_owned(), inode))?;
        let state = self.lock();
        Ok(self.file(&state, name, inode))
    }

    fn exists(&self, name: &str) -> Result<bool, DiskError> {
        Ok(self.lock().seen.files.contains_key(name))
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), DiskError> {
        assert_eq!(folder_of(from), folder_of(to), "a rename stays in its folder");
        let Some(inode) = self.lock().seen.files.get(from).copied() else {
            return Err(fault("rename", from, ErrorKind::NotFound));
        };
        self.change("rename", from, Change::Rename(from.to_owned(), to.to_owned(), inode))
    }

    fn remove(&self, name: &str) -> Result<(), DiskError> {
        if !self.exists(name)? {
            return Err(fault("remove", name, ErrorKind::NotFound));
        }
        self.change("remove", name, Change::Unlink(name.to_owned()))
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let mut state = self.lock();
        state.spend("sync the folder", dir)?;
        if state.faults.ignored_dir_syncs {
            return Ok(());
        }
        for change in state.pending.remove(dir).unwrap_or_default() {
            state.safe.apply(&change);
        }
        Ok(())
    }
}

impl DiskFile for SimFile {
    fn len(&self) -> Result<u64, DiskError> {
        self.with("read the length of", |_, inode| Ok(inode.bytes.len() as u64))
    }

    fn read_at(&self, offset: u64, len: usize) -> Result<Vec<u8>, DiskError> {
        self.with("read", |_, inode| {
            let start = to_usize(offset).min(inode.bytes.len());
            let end = start.saturating_add(len).min(inode.bytes.len());
            Ok(inode.bytes[start..end].to_vec())
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let powered = self.lock().spend("write", &self.name);
        self.with("write", |faults, inode| {
            let mut start = to_usize(offset);
            if faults.lost_write.take_if(|prefix| self.name.starts_with(prefix.as_str())).is_some() {
                return Ok(());
            }
            if let Some((_, elsewhere)) =
                faults.misdirected.take_if(|(prefix, _)| self.name.starts_with(prefix.as_str()))
            {
                start = to_usize(elsewhere);
            }
            if faults.full && start.saturating_add(bytes.len()) > inode.bytes.len() {
                return Err(fault("write", &self.name, ErrorKind::StorageFull));
            }
            inode.write(start, bytes);
            Ok(())
        })?;
        powered
    }

    fn sync_data(&self) -> Result<(), DiskError> {
        {
            let mut state = self.lock();
            state.syncs += 1;
            state.spend("sync", &self.name)?;
        }
        self.with("sync", |faults, inode| {
            if faults.ignored_syncs.as_ref().is_some_and(|prefix| self.name.starts_with(prefix.as_str())) {
                return Ok(());
            }
            let fails = faults.failing_sync.take_if(|prefix| self.name.starts_with(prefix.as_str())).is_some();
            if fails {
                inode.unsynced.values_mut().for_each(|sector| sector.dropped = true);
                return Err(fault("sync", &self.name, ErrorKind::Other));
            }
            inode.unsynced.retain(|_, sector| sector.dropped);
            inode.safe_len = inode.bytes.len();
            Ok(())
        })
    }
}

impl SimFile {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&mut Faults, &mut Inode) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let mut state = self.lock();
        let State { life, faults, inodes, .. } = &mut *state;
        match inodes.get_mut(&self.inode) {
            Some(inode) if *life == self.life => act(faults, inode),
            _ => Err(fault(operation, &self.name, ErrorKind::NotConnected)),
        }
    }
}

impl State {
    fn inode_named(&mut self, name: &str) -> Option<&mut Inode> {
        let inode = self.seen.files.get(name)?;
        self.inodes.get_mut(inode)
    }

    /// Counts one change; fails if the power is out.
    fn spend(&mut self, operation: &'static str, name: &str) -> Result<(), DiskError> {
        self.operations += 1;
        match &mut self.faults.power_left {
            Some(0) => Err(fault(operation, name, ErrorKind::NotConnected)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Names {
    fn apply(&mut self, change: &Change) {
        match change {
            Change::Folder(name) => {
                self.folders.insert(name.clone());
            }
            Change::Link(name, inode) => {
                self.files.insert(name.clone(), *inode);
            }
            Change::Rename(from, to, inode) => {
                self.files.remove(from);
                self.files.insert(to.clone(), *inode);
            }
            Change::Unlink(name) => {
                self.files.remove(name);
            }
        }
    }
}

impl Inode {
    fn write(&mut self, start: usize, bytes: &[u8]) {
        let end = start + bytes.len();
        for sector in start / SECTOR..end.div_ceil(SECTOR) {
            let on_disk = || {
                let from = (sector * SECTOR).min(self.safe_len);
                let safe = &self.bytes[from..(from + SECTOR).min(self.safe_len)];
                let on_disk = (!safe.is_empty()).then(|| {
                    let mut content = Box::new([0; SECTOR]);
                    content[..safe.len()].copy_from_slice(safe);
                    content
                });
                Sector { on_disk, dropped: false }
            };
            self.unsynced.entry(sector).or_insert_with(on_disk).dropped = false;
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
    }

    fn crash(&mut self, random: &mut impl FnMut() -> u64) {
        for (sector, content) in std::mem::take(&mut self.unsynced) {
            let survives = random() & 1 == 1;
            if survives && !content.dropped {
                continue;
            }
            let from = (sector * SECTOR).min(self.bytes.len());
            let to = (from + SECTOR).min(self.bytes.len());
            match content.on_disk {
                Some(on_disk) => self.bytes[from..to].copy_from_slice(&on_disk[..to - from]),
                None => self.bytes[from..to].fill(0),
            }
        }
        if self.bytes.len() > self.safe_len && random() & 1 == 0 {
            self.bytes.truncate(self.safe_len);
        }
        self.safe_len = self.bytes.len();
    }
}

fn fault(operation: &'static str, name: &str, kind: ErrorKind) -> DiskError {
    DiskError::new(operation, name, &io::Error::from(kind))
}

fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX / 2)
}
