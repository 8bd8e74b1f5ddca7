//! Quorate's bytes on disk: bodies and sequence numbers, never views or protocols. Only [`replica`], which the simulator and
//! the real host share, knows `quorate_core`. Everything is synchronous: the caller decides when, and on which thread.
//!
//! ```text
//! data folder
//! ├─ lock                          held by the process that uses the folder
//! ├─ superblock                    4 copies of one small body        │ copy 0 │ copy 1 │ copy 2 │ copy 3 │   4 KiB each
//! ├─ wal/0000000000000001.seg      the write-ahead log               │ header │ header │ record │ record │ … │ zeros │
//! ├─ wal/0000000000000002.seg
//! └─ snapshots/000000000000002a.snap   one state                     │ header │ chunk │ chunk │ … │ manifest │ trailer │
//! ```
//!
//! - [`disk`]: the [`Disk`] trait; [`RealDisk`] on the file system and [`SimDisk`] in memory, which loses, tears, misdirects
//!   and rots on request.
//! - [`superblock`]: replaced as a whole, survives torn writes and the damage of three copies.
//! - [`wal`]: appended to in groups, one sync each; tells a torn write, which lost nothing, from damage, which may have.
//! - [`snapshot`]: written aside and renamed; received in any order and resumed after a restart.
//! - [`inspect()`] and [`look()`]: look at all of it and change nothing.
//! - [`replica`]: a whole folder, from the name in its superblock to the machine that its newest snapshot restores.
//!
//! Three rules hold everywhere. Bytes found on a disk never cause a panic. Whatever is returned has passed its checksum, in
//! the place where it belongs. After a failed write or sync the affected file takes no more writes, and the process must
//! stop: Linux marks pages clean after a failed sync and reports the next one as good (Rebello et al., "Can Applications
//! Recover from fsync Failures?", USENIX ATC 2020).
//!
//! Every byte is drawn in `docs/formats.md`.

mod bytes;
pub mod disk;
mod inspect;
mod look;
pub mod replica;
pub mod snapshot;
pub mod superblock;
pub mod wal;

pub use disk::{Disk, DiskError, DiskFile, FolderLock, RealDisk, SimDisk};
pub use inspect::{Inspection, SnapshotReport, inspect};
pub use look::{Looked, look, look_at_log};
pub use snapshot::{Incoming, Reader, SnapshotError, SnapshotStore, Writer};
pub use superblock::{Superblock, SuperblockError, SuperblockRead, peek_superblock};
pub use wal::{Class, DamagedTail, Item, Recovered, Report, Torn, Wal, WalConfig, WalError};
