//! Snapshots under damage, power losses and restarts.

use crate::common::{Random, body};
use quorate_store::disk::{Disk, SimDisk};
use quorate_store::snapshot::{CHUNK_BYTES_MAX, SnapshotError, SnapshotStore};

const NAME: &str = "snapshots/0000000000000007.snap";
const LENGTHS: [usize; 5] = [100, 0, 700, 1, 300];

fn store(disk: &SimDisk) -> SnapshotStore<SimDisk> {
    SnapshotStore::open(disk).expect("works")
}

fn chunks() -> Vec<Vec<u8>> {
    LENGTHS.iter().zip(1..).map(|(len, seed)| body(seed, *len)).collect()
}

fn write(disk: &SimDisk, number: u64, manifest: &[u8]) -> Result<(), SnapshotError> {
    let mut writer = SnapshotStore::open(disk)?.begin(number)?;
    for chunk in chunks() {
        writer.chunk(&chunk)?;
    }
    writer.finish(manifest)
}

fn assert_whole(disk: &SimDisk, number: u64, manifest: &[u8]) {
    let reader = store(disk).read(number).expect("it is there");
    assert_eq!(reader.manifest(), manifest);
    let read: Vec<_> = (0..reader.chunk_count()).map(|index| reader.chunk(index).expect("intact")).collect();
    assert_eq!(read, chunks());
}

#[test]
fn a_snapshot_is_read_as_it_was_written() {
    let disk = SimDisk::new();
    write(&disk, 7, b"manifest").expect("works");
    assert_whole(&disk, 7, b"manifest");
    let reader = store(&disk).read(7).expect("it is there");
    assert_eq!(reader.chunk_lengths(), LENGTHS.map(|len| len as u32));
    assert_eq!(reader.chunk(5), Err(SnapshotError::NoChunk { index: 5, count: 5 }));
    assert_eq!(store(&disk).list().expect("works"), [7]);
    store(&disk).remove(7).expect("works");
    assert!(disk.files().is_empty());
}

#[test]
fn one_flipped_bit_anywhere_is_reported_and_costs_one_chunk_or_the_snapshot() {
    let original = SimDisk::new();
    write(&original, 7, b"manifest").expect("works");
    let size = original.bytes(NAME).expect("there").len() as u64;
    for offset in 0..size {
        let disk = original.copy();
        disk.flip_bit(NAME, offset, (offset % 8) as u8);
        let reader = match store(&disk).read(7) {
            Ok(reader) => reader,
            Err(SnapshotError::Damaged { .. }) => continue,
            Err(error) => panic!("offset {offset}: {error}"),
        };
        assert_eq!(reader.manifest(), b"manifest", "offset {offset}");
        let mut damaged = 0;
        for (index, expected) in chunks().iter().enumerate() {
            match reader.chunk(index) {
                Ok(chunk) => assert_eq!(chunk, *expected, "offset {offset}"),
                Err(SnapshotError::DamagedChunk { .. }) => damaged += 1,
                Err(error) => panic!("offset {offset}: {error}"),
            }
        }
        assert_eq!(damaged, 1, "offset {offset} was noticed");
    }
}

#[test]
fn a_file_cut_at_any_length_is_refused() {
    let original = SimDisk::new();
    write(&original, 7, b"manifest").expect("works");
    for len in 0..original.bytes(NAME).expect("there").len() as u64 {
        let disk = original.copy();
        disk.truncate(NAME, len);
        assert!(matches!(store(&disk).read(7), Err(SnapshotError::Damaged { .. })), "{len}");
    }
}

#[test]
fn a_snapshot_under_the_name_of_another_is_refused() {
    let disk = SimDisk::new();
    write(&disk, 7, b"manifest").expect("works");
    disk.rename(NAME, "snapshots/0000000000000008.snap").expect("works");
    assert!(matches!(store(&disk).read(8), Err(SnapshotError::Damaged { .. })));
}

#[test]
fn a_power_loss_during_writing_leaves_the_old_snapshot_and_a_whole_new_one_or_none() {
    for seed in 0..1000 {
        let mut random = Random(seed);
        let disk = SimDisk::new();
        write(&disk, 1, b"old").expect("works");
        disk.cut_power_after(random.below(18));
        let written = write(&disk, 2, b"new").is_ok();
        disk.crash(&mut || random.next());
        assert_whole(&disk, 1, b"old");
        let list = store(&disk).list().expect("works");
        if list.contains(&2) {
            assert_whole(&disk, 2, b"new");
        } else {
            assert!(!written, "seed {seed}: it was safe");
            assert_eq!(disk.files().len(), 1, "seed {seed}: left-overs are removed");
        }
    }
}

#[test]
fn a_snapshot_whose_name_was_not_synced_can_be_lost() {
    let disk = SimDisk::new();
    store(&disk);
    disk.ignore_dir_syncs();
    write(&disk, 1, b"new").expect("works");
    disk.crash(&mut || 0);
    assert!(store(&disk).list().expect("works").is_empty());
}

#[test]
fn an_incoming_snapshot_goes_on_after_restarts_and_power_losses() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = SimDisk::new();
        let lengths = LENGTHS.map(|len| len as u32);
        let mut rounds = 0;
        loop {
            let mut incoming = store(&disk).begin_incoming(9, b"manifest", &lengths).expect("works");
            let missing = incoming.missing();
            if missing.is_empty() {
                incoming.finish().expect("works");
                break;
            }
            let index = missing[random.below(missing.len() as u64) as usize];
            incoming.put(index, &chunks()[index]).expect("works");
            assert_eq!(incoming.chunk(index).expect("works"), Some(chunks()[index].clone()));
            if random.below(3) == 0 {
                disk.crash(&mut || random.next());
            } else {
                disk.kill();
                assert!(!store(&disk).resume(9).expect("works").expect("kept").missing().contains(&index));
            }
            rounds += 1;
            assert!(rounds < 500, "seed {seed} never ends");
        }
        disk.crash(&mut || 0);
        assert_whole(&disk, 9, b"manifest");
        assert!(store(&disk).list_incoming().expect("works").is_empty());
    }
}

#[test]
fn a_received_snapshot_has_the_bytes_of_a_written_one() {
    let (written, received) = (SimDisk::new(), SimDisk::new());
    write(&written, 7, b"manifest").expect("works");
    let mut incoming = store(&received).begin_incoming(7, b"manifest", &LENGTHS.map(|len| len as u32)).expect("works");
    for index in [4, 1, 0, 3, 2] {
        incoming.put(index, &chunks()[index]).expect("works");
    }
    incoming.finish().expect("works");
    assert_eq!(written.bytes(NAME), received.bytes(NAME));
}

#[test]
fn an_incoming_snapshot_of_another_content_starts_anew() {
    let disk = SimDisk::new();
    let mut incoming = store(&disk).begin_incoming(9, b"one", &[3, 3]).expect("works");
    incoming.put(0, b"abc").expect("works");
    assert_eq!(store(&disk).begin_incoming(9, b"two", &[3, 3]).expect("works").missing(), [0, 1]);
    store(&disk).remove_incoming(9).expect("works");
    assert!(store(&disk).resume(9).expect("works").is_none());
}

#[test]
fn a_damaged_chunk_of_an_incoming_snapshot_is_missing_again() {
    let disk = SimDisk::new();
    let mut incoming = store(&disk).begin_incoming(9, b"m", &[3, 3]).expect("works");
    incoming.put(0, b"abc").expect("works");
    incoming.put(1, b"def").expect("works");
    disk.flip_bit("snapshots/0000000000000009.part", 41, 0);
    assert_eq!(incoming.chunk(0).expect("works"), None);
    assert_eq!(incoming.missing(), [0]);
    assert_eq!(incoming.finish(), Err(SnapshotError::Incomplete { missing: 1 }));
}

#[test]
fn chunks_that_do_not_fit_the_announcement_are_refused() {
    let disk = SimDisk::new();
    let mut incoming = store(&disk).begin_incoming(9, b"m", &[3]).expect("works");
    assert_eq!(incoming.put(0, b"four"), Err(SnapshotError::ChunkLength { len: 4, expected: 3 }));
    assert_eq!(incoming.put(1, b"abc"), Err(SnapshotError::NoChunk { index: 1, count: 1 }));
    let long = CHUNK_BYTES_MAX as u32 + 1;
    assert!(matches!(store(&disk).begin_incoming(9, b"m", &[long]), Err(SnapshotError::ChunkLength { .. })));
}
