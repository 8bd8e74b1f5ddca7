//! The superblock under damage and power losses.

use crate::common::Random;
use quorate_store::disk::{Disk, SimDisk};
use quorate_store::superblock::{SUPERBLOCK_BODY_MAX, Superblock, SuperblockError, peek_superblock};

const NAME: &str = "superblock";

fn with(bodies: &[&[u8]]) -> SimDisk {
    let disk = SimDisk::new();
    let mut superblock = Superblock::create(&disk, bodies[0]).expect("an empty disk");
    for body in &bodies[1..] {
        superblock.write(body).expect("works");
    }
    disk
}

#[test]
fn the_last_body_written_is_read() {
    let disk = with(&[b"one", b"two", b"three"]);
    let (superblock, read) = Superblock::open(&disk).expect("intact");
    assert_eq!((read.body.as_slice(), read.sequence, superblock.sequence()), (b"three".as_slice(), 3, 3));
    assert!(read.repaired.is_empty());
}

#[test]
fn one_flipped_bit_anywhere_is_repaired_and_the_body_is_right() {
    let original = with(&[b"one", b"a body of some length"]);
    let bytes = original.bytes(NAME);
    for offset in 0..4 * 4096 {
        let disk = original.copy();
        disk.flip_bit(NAME, offset, (offset % 8) as u8);
        let before = disk.bytes(NAME);
        let seen = peek_superblock(&disk).expect("three copies are intact");
        assert_eq!(disk.bytes(NAME), before, "looking changes nothing");
        let read = Superblock::open(&disk).expect("three copies are intact").1;
        assert_eq!(read, seen);
        assert_eq!((read.body.as_slice(), read.sequence), (b"a body of some length".as_slice(), 2));
        assert_eq!(read.repaired, [offset as usize / 4096]);
        assert_eq!(disk.bytes(NAME), bytes, "offset {offset} is repaired");
    }
}

#[test]
fn any_three_damaged_copies_are_repaired_and_four_are_an_error_that_says_what_to_do() {
    let original = with(&[b"one", b"two"]);
    for survivor in 0..4_u64 {
        let disk = original.copy();
        for copy in (0..4).filter(|copy| *copy != survivor) {
            disk.corrupt(NAME, copy * 4096, 4096, |byte| byte ^ 0x55);
        }
        assert_eq!(Superblock::open(&disk).expect("one copy is intact").1.body, b"two");
        assert_eq!(disk.bytes(NAME), original.bytes(NAME));
        disk.corrupt(NAME, 0, 4 * 4096, |byte| byte ^ 0x55);
        let error = Superblock::open(&disk).expect_err("nothing is intact");
        assert_eq!(error, SuperblockError::AllDamaged);
        assert!(error.to_string().contains("recover the replica from its peers"));
    }
}

#[test]
fn a_power_loss_at_any_moment_leaves_the_old_or_the_new_body_and_never_less_than_promised() {
    for seed in 0..2000 {
        let mut random = Random(seed);
        let disk = with(&[b"0"]);
        let mut safe = 0;
        for _ in 0..3 {
            let mut superblock = Superblock::open(&disk).expect("intact").0;
            disk.cut_power_after(random.below(14));
            while superblock.write(format!("{}", safe + 1).as_bytes()).is_ok() {
                safe += 1;
            }
            let error = superblock.write(b"again").expect_err("stopped");
            assert!(matches!(error, SuperblockError::Stopped { .. }));
            disk.crash(&mut || random.next());
            let read = Superblock::open(&disk).expect("a whole generation is there").1;
            let body: u64 = String::from_utf8(read.body).expect("ours").parse().expect("ours");
            assert!(body == safe || body == safe + 1, "seed {seed}: {body} after {safe}");
            safe = body;
            disk.crash(&mut || random.next());
            let again = Superblock::open(&disk).expect("intact").1;
            assert_eq!(again.body, safe.to_string().as_bytes(), "seed {seed}: what was read is safe");
            assert!(again.repaired.is_empty());
        }
    }
}

#[test]
fn a_power_loss_during_creation_leaves_a_whole_superblock_or_none() {
    for seed in 0..500 {
        let mut random = Random(seed);
        let disk = SimDisk::new();
        disk.cut_power_after(random.below(10));
        let created = Superblock::create(&disk, b"first").is_ok();
        disk.crash(&mut || random.next());
        match Superblock::open(&disk) {
            Ok((_, read)) => assert_eq!(read.body, b"first"),
            Err(error) => {
                assert_eq!((error, created), (SuperblockError::Missing, false), "seed {seed}");
                assert!(Superblock::create(&disk, b"second").is_ok(), "the left-over is no obstacle");
            }
        }
    }
}

#[test]
fn a_superblock_without_a_synced_name_is_lost() {
    let disk = SimDisk::new();
    disk.ignore_dir_syncs();
    Superblock::create(&disk, b"first").expect("works");
    disk.crash(&mut || 0);
    assert_eq!(Superblock::open(&disk).expect_err("its name was never safe"), SuperblockError::Missing);
}

#[test]
fn a_failed_sync_keeps_the_generation_before() {
    let disk = with(&[b"old"]);
    let mut superblock = Superblock::open(&disk).expect("intact").0;
    disk.fail_next_sync(NAME);
    assert!(superblock.write(b"new").is_err());
    disk.crash(&mut || 1);
    assert_eq!(Superblock::open(&disk).expect("intact").1.body, b"old");
}

#[test]
fn a_copy_in_the_wrong_slot_counts_as_damaged() {
    let disk = with(&[b"one", b"two"]);
    let mut superblock = Superblock::open(&disk).expect("intact").0;
    disk.misdirect_next_write(NAME, 4096 * 3);
    superblock.write(b"three").expect("works");
    let read = Superblock::open(&disk).expect("intact").1;
    assert_eq!(read.body, b"three");
    assert_eq!(read.repaired, [0]);
}

#[test]
fn a_body_of_the_greatest_length_fits_and_a_longer_one_is_refused() {
    let body = vec![9; SUPERBLOCK_BODY_MAX];
    let disk = with(&[b"one", &body]);
    let (mut superblock, read) = Superblock::open(&disk).expect("intact");
    assert_eq!(read.body, body);
    let error = superblock.write(&vec![9; SUPERBLOCK_BODY_MAX + 1]).expect_err("too long");
    assert!(matches!(error, SuperblockError::TooLong { .. }));
    assert!(superblock.write(b"fine").is_ok(), "a refused body stops nothing");
}

#[test]
fn a_folder_has_one_superblock() {
    let disk = with(&[b"one"]);
    assert!(Superblock::create(&disk, b"two").expect_err("there is one").to_string().contains("belongs to a replica"));
}

#[test]
fn a_cut_file_never_panics() {
    for len in 0..4 * 4096 {
        let disk = with(&[b"one"]);
        disk.truncate(NAME, len);
        match Superblock::open(&disk) {
            Ok((_, read)) => assert_eq!(read.body, b"one"),
            Err(error) => assert!(len < 4096 && error == SuperblockError::AllDamaged, "{len}: {error}"),
        }
    }
    assert!(!SimDisk::new().exists(NAME).expect("works"));
}
