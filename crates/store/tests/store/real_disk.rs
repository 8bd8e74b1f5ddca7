//! The main ways through the store on the file system of this computer.

use crate::common::body;
use quorate_store::wal::{Class, Item, Wal, WalConfig, WalError};
use quorate_store::{Disk, DiskFile, RealDisk, SnapshotStore, Superblock, inspect};
use tempfile::TempDir;

fn folder() -> (TempDir, RealDisk) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let disk = RealDisk::open(folder.path().join("data")).expect("it is made");
    (folder, disk)
}

fn small() -> WalConfig {
    WalConfig { segment_bytes: 64 << 10, first_segment_bytes: 16 << 10, ..WalConfig::new(3) }
}

#[test]
fn a_log_is_found_again_with_everything_that_was_synced() {
    let (_folder, disk) = folder();
    let mut wal = Wal::create(&disk, small()).expect("an empty folder");
    for seq in 1..=100 {
        let class = if seq % 10 == 0 { Class::Promise } else { Class::Entry };
        wal.append(class, &body(seq, 1000)).expect("room");
        if seq % 7 == 0 {
            assert_eq!(wal.sync().expect("works"), seq);
        }
        wal.prepare_next().expect("room");
    }
    wal.sync().expect("works");
    wal.seal().expect("works");
    wal.forget_before(50).expect("works");
    drop(wal);
    let (mut wal, recovered) = Wal::open(&disk, small()).expect("it opens");
    assert!(recovered.report.is_intact(), "{}", recovered.report);
    let first = recovered.report.first_seq.expect("records");
    assert!((2..=50).contains(&first));
    let bodies = recovered.items.iter().map(|item| match item {
        Item::Found { seq, body: found, .. } => *found == body(*seq, 1000),
        Item::Damaged { .. } => false,
    });
    assert!(bodies.eq((first..=100).map(|_| true)));
    assert_eq!(wal.append(Class::Entry, b"on").expect("room"), 101);
    wal.sync().expect("works");
}

#[test]
fn the_default_log_is_opened_again_too() {
    let (_folder, disk) = folder();
    let mut wal = Wal::create(&disk, WalConfig::new(1)).expect("an empty folder");
    assert_eq!(disk.open("wal/0000000000000001.seg").expect("there").len().expect("works"), 4 << 20);
    wal.append(Class::Entry, b"first").expect("room");
    wal.sync().expect("works");
    assert_eq!(Wal::open(&disk, WalConfig::new(1)).expect("it opens").1.report.records, 1);
}

#[test]
fn a_data_folder_has_one_user_at_a_time() {
    let (folder, disk) = folder();
    let lock = disk.lock().expect("nobody has it");
    let error = RealDisk::open(folder.path().join("data")).expect("it exists").lock().expect_err("somebody has it");
    assert!(error.to_string().contains("is in use by another process"), "{error}");
    drop(lock);
    assert!(disk.lock().is_ok());
}

#[test]
fn errors_name_the_file_and_say_what_to_do() {
    let (folder, disk) = folder();
    let error = disk.open("wal/none").expect_err("it is not there").to_string();
    assert!(error.contains(folder.path().to_str().expect("a readable name")), "{error}");
    assert!(error.contains("Check that the data folder is the right one"), "{error}");
    assert_eq!(Wal::open(&disk, small()).expect_err("no log"), WalError::Missing);
}

#[test]
fn a_file_is_read_written_listed_renamed_and_removed() {
    let (_folder, disk) = folder();
    disk.create_dir("d").expect("works");
    disk.create_dir("d").expect("twice is once");
    let file = disk.create("d/b").expect("works");
    assert!(disk.create("d/b").is_err());
    disk.create("d/a").expect("works");
    file.write_at(5, b"hello").expect("works");
    file.sync_data().expect("works");
    assert_eq!(file.read_at(3, 100).expect("works"), b"\0\0hello");
    assert_eq!(file.read_at(100, 5).expect("works"), b"");
    assert_eq!(disk.list("d").expect("works"), ["a", "b"]);
    disk.rename("d/b", "d/c").expect("works");
    disk.remove("d/a").expect("works");
    disk.sync_dir("d").expect("works");
    assert_eq!(disk.list("d").expect("works"), ["c"]);
    assert!(disk.list("none").expect("empty").is_empty());
    assert!(disk.open_to_read("d/c").expect("works").write_at(0, b"x").is_err());
}

#[test]
fn a_whole_folder_is_inspected_without_being_changed() {
    let (_folder, disk) = folder();
    Superblock::create(&disk, b"who").expect("works");
    let mut wal = Wal::create(&disk, small()).expect("works");
    for seq in 1..=3 {
        wal.append(Class::Entry, &body(seq, 100)).expect("room");
    }
    wal.sync().expect("works");
    let snapshots = SnapshotStore::open(&disk).expect("works");
    for number in [1, 2] {
        let mut writer = snapshots.begin(number).expect("works");
        writer.chunk(b"chunk").expect("works");
        writer.finish(b"manifest").expect("works");
    }
    snapshots.begin_incoming(3, b"manifest", &[5, 5]).expect("works");
    let seen = inspect(&disk).expect("readable");
    assert!(seen.is_intact(), "{seen}");
    let text = seen.to_string();
    for line in
        ["superblock: intact", "log: 3 records", "seg: 3 records, sequence 1 to 3", "1 chunks, intact", "2 not arrived"]
    {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    // Damage of each kind is told, and the files stay as they are.
    let flip = |name: &str, offset: u64| {
        let file = disk.open(name).expect("there");
        let byte = file.read_at(offset, 1).expect("works")[0];
        file.write_at(offset, &[byte ^ 1]).expect("works");
    };
    let names = ["superblock", "wal/0000000000000001.seg", "snapshots/0000000000000001.snap"];
    flip(names[0], 10);
    flip(names[1], 8192 + 90);
    flip(names[2], 41);
    let read = |name: &&str| disk.open(name).expect("there").read_at(0, 1 << 20).expect("works");
    let before: Vec<_> = names.iter().map(read).collect();
    let seen = inspect(&disk).expect("readable");
    assert!(!seen.is_intact());
    let text = seen.to_string();
    for line in ["to repair: copies [0]", "DAMAGED: sequence 1 to 1", "DAMAGED chunks [0]"] {
        assert!(text.contains(line), "{line} is not in:\n{text}");
    }
    assert_eq!(before, names.iter().map(read).collect::<Vec<_>>());
}
