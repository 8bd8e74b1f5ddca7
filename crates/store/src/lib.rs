//! Bytes on disk.

mod bytes;
pub mod disk;
pub mod superblock;
pub mod wal;
