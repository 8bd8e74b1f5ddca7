//! The store: what was synced is found again, or its damage is reported; never a wrong byte.

mod common;
mod garbage;
mod look;
mod real_disk;
mod replica;
mod snapshot;
mod superblock;
mod wal_crash;
mod wal_damage;
