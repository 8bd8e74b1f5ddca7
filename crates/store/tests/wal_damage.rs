//! The log under damage: nothing wrong is ever returned, and no damage goes unsaid.

mod common;

use common::*;
use quorate_store::disk::SimDisk;
use quorate_store::wal::{Class, DamagedTail, Item, Wal, WalError};

/// Three groups, eight records, one of them a promise, the last two unsynced groups sealed or not.
fn sample(sealed: bool) -> (SimDisk, Vec<Vec<u8>>) {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 2, 100);
    wal.append(Class::Promise, &body(3, 60)).expect("room");
    wal.sync().expect("works");
    group(&mut wal, 2, 700);
    group(&mut wal, 3, 50);
    if sealed {
        wal.seal().expect("works");
    }
    let bodies = [100, 100, 60, 700, 700, 50, 50, 50].iter().zip(1..).map(|(len, seq)| body(seq, *len)).collect();
    (disk, bodies)
}

fn record_range(disk: &SimDisk) -> std::ops::Range<u64> {
    let bytes = disk.bytes(SEGMENT_1).expect("the segment");
    let end = bytes.iter().rposition(|byte| *byte != 0).expect("content") as u64;
    RECORDS..end + 1
}

#[test]
fn one_flipped_bit_anywhere_never_yields_a_wrong_body_and_costs_one_record_at_most() {
    for sealed in [true, false] {
        let (original, bodies) = sample(sealed);
        let end = record_range(&original).end;
        for offset in 0..end + 600 {
            let disk = original.copy();
            disk.flip_bit(SEGMENT_1, offset, (offset % 8) as u8);
            let (mut wal, recovered) = open(&disk);
            let context = format!("sealed {sealed}, offset {offset}");
            assert_true_to(&recovered, &bodies, &context);
            let found = found(&recovered);
            assert!(found.len() >= 7, "{context}: found {found:?}");
            if found.len() < 8 {
                let missing = (1..=8).find(|seq| !found.contains(seq)).expect("one is missing");
                assert!(
                    damaged(&recovered).iter().any(|(first, last)| (*first..=*last).contains(&missing)),
                    "{context}: {missing} vanished without a word: {}",
                    recovered.report
                );
            }
            // Whatever was found, the log goes on, and the next opening finds the same and the new record.
            let seq = wal.append(Class::Entry, b"after").expect("room");
            wal.sync().expect("works");
            assert!(seq > 8, "{context}: {seq} was used before");
            let again = open(&disk).1;
            assert_eq!(found.len() + 1, common::found(&again).len(), "{context}");
            assert_eq!(damaged(&recovered), damaged(&again), "{context}");
            assert!(again.report.torn.is_none(), "{context}");
        }
    }
}

#[test]
fn one_zeroed_byte_anywhere_in_the_records_is_never_taken_for_a_torn_write() {
    for sealed in [true, false] {
        let (original, bodies) = sample(sealed);
        for offset in record_range(&original) {
            let disk = original.copy();
            disk.corrupt(SEGMENT_1, offset, 1, |_| 0);
            let recovered = open(&disk).1;
            assert_true_to(&recovered, &bodies, "zeroed");
            let missing = 8 - found(&recovered).len();
            assert!(missing <= 1);
            assert!(missing == 0 || !damaged(&recovered).is_empty(), "offset {offset}: {}", recovered.report);
        }
    }
}

#[test]
fn a_log_cut_at_any_length_opens_and_yields_a_prefix() {
    let (original, bodies) = sample(true);
    let end = record_range(&original).end;
    let mut longest = 0;
    for len in (0..end + 700).chain([original.bytes(SEGMENT_1).expect("there").len() as u64 - 1]) {
        let disk = original.copy();
        disk.truncate(SEGMENT_1, len);
        let (mut wal, recovered) = open(&disk);
        assert_true_to(&recovered, &bodies, &format!("cut at {len}"));
        let found = found(&recovered);
        assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>(), "cut at {len}");
        assert!(found.len() >= longest, "cut at {len}");
        longest = found.len();
        assert!(found.len() == 8 || !recovered.report.is_intact(), "cut at {len}: {}", recovered.report);
        assert!(wal.append(Class::Entry, b"after").expect("room") > 8, "cut at {len}");
        wal.sync().expect("works");
        let again = open(&disk).1;
        assert_eq!(common::found(&again).len(), found.len() + 1, "cut at {len}");
    }
    assert_eq!(longest, 8);
}

#[test]
fn a_zeroed_last_group_is_torn_without_a_seal_and_damage_with_one() {
    for sealed in [false, true] {
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        group(&mut wal, 1, 472); // Ends with its sector, so that the next group has sectors of its own.
        group(&mut wal, 2, 2000);
        if sealed {
            wal.seal().expect("works");
        }
        disk.corrupt(SEGMENT_1, RECORDS + 512 + 1024, 512, |_| 0);
        let (wal, recovered) = open(&disk);
        if sealed {
            assert_eq!(found(&recovered), [1, 3]);
            assert_eq!(damaged(&recovered), [(2, 2)]);
            assert_eq!(wal.next_seq(), 4);
        } else {
            assert_eq!(found(&recovered), [1]);
            assert_eq!(recovered.report.torn.map(|torn| torn.seq), Some(2));
            assert!(recovered.report.is_intact());
            assert_eq!(wal.next_seq(), 2);
        }
    }
}

#[test]
fn a_bad_header_at_the_end_is_a_damaged_tail_and_its_numbers_are_given_up() {
    for sealed in [false, true] {
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        group(&mut wal, 2, 100);
        if sealed {
            wal.seal().expect("works");
        }
        disk.flip_bit(SEGMENT_1, RECORDS + 144 + 9, 0);
        let (mut wal, recovered) = open(&disk);
        assert_eq!(found(&recovered), [1]);
        assert_eq!(recovered.report.torn, None);
        let Some(DamagedTail { from_seq: 2, at_most }) = recovered.report.tail else { panic!("{}", recovered.report) };
        assert_eq!(wal.next_seq(), 2 + at_most);
        // The gap survives openings with and without records after it.
        let again = open(&disk).1;
        assert_eq!(damaged(&again), [(2, 1 + at_most)]);
        assert_eq!(again.report.tail, None);
        drop(wal);
        wal = open(&disk).0;
        group(&mut wal, 3, 10);
        let last = open(&disk).1;
        assert_eq!(damaged(&last), [(2, 1 + at_most)]);
        assert_eq!(found(&last), [1, 2 + at_most, 3 + at_most, 4 + at_most]);
    }
}

#[test]
fn a_bad_body_at_the_end_is_one_damaged_record_of_known_class() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 2, 100);
    disk.flip_bit(SEGMENT_1, RECORDS + 144 + 60, 3);
    let (wal, recovered) = open(&disk);
    assert_eq!(recovered.items[1], Item::Damaged { first: 2, last: 2, class: Some(Class::Entry) });
    assert_eq!(recovered.report.tail, None);
    assert_eq!(wal.next_seq(), 3);
}

#[test]
fn a_promise_survives_the_damage_of_either_copy_and_is_written_again() {
    for copy in [0, 1] {
        for header in [true, false] {
            let disk = SimDisk::new();
            let mut wal = create(&disk);
            group(&mut wal, 1, 100);
            wal.append(Class::Promise, &body(2, 1000)).expect("room");
            wal.sync().expect("works");
            group(&mut wal, 1, 100);
            let before = disk.bytes(SEGMENT_1);
            let start = RECORDS + 144 + copy * 1040;
            disk.corrupt(SEGMENT_1, if header { start } else { start + 40 }, 30, |byte| !byte);
            let recovered = open(&disk).1;
            assert_eq!(found(&recovered), [1, 2, 3]);
            assert_eq!(recovered.report.healed, [2]);
            assert!(recovered.report.is_intact());
            assert_eq!(disk.bytes(SEGMENT_1), before, "the damaged copy is as it was");
            assert!(open(&disk).1.report.healed.is_empty());
        }
    }
}

#[test]
fn a_promise_that_lost_both_copies_is_damaged_and_known_as_a_promise() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    wal.append(Class::Promise, &body(1, 100)).expect("room");
    wal.append(Class::Entry, &body(2, 100)).expect("room");
    wal.sync().expect("works");
    disk.flip_bit(SEGMENT_1, RECORDS + 50, 1);
    disk.flip_bit(SEGMENT_1, RECORDS + 144 + 50, 1);
    let recovered = open(&disk).1;
    assert_eq!(recovered.items[0], Item::Damaged { first: 1, last: 1, class: Some(Class::Promise) });
    assert_eq!(found(&recovered), [2]);
}

#[test]
fn a_misdirected_write_is_noticed_once_anything_later_is_written() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 2, 200);
    disk.misdirect_next_write("wal/", RECORDS);
    group(&mut wal, 1, 200);
    group(&mut wal, 1, 200);
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered), [2, 4], "{}", recovered.report);
    assert_eq!(damaged(&recovered), [(1, 1), (3, 3)]);
}

#[test]
fn a_lost_write_is_noticed_if_a_seal_or_a_record_came_after_it() {
    for sealed in [true, false] {
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        group(&mut wal, 2, 300);
        disk.lose_next_write("wal/");
        group(&mut wal, 2, 300);
        if sealed {
            wal.seal().expect("works");
        } else {
            group(&mut wal, 1, 20);
        }
        let (wal, recovered) = open(&disk);
        assert_eq!(damaged(&recovered), [(3, 4)], "{}", recovered.report);
        assert_eq!(wal.next_seq(), if sealed { 5 } else { 6 });
    }
}

#[test]
fn a_missing_segment_in_the_middle_is_a_damaged_range() {
    use quorate_store::disk::Disk;
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 12, 5000);
    assert!(disk.files().len() >= 3, "{:?}", disk.files());
    disk.remove(SEGMENT_2).expect("it is there");
    let recovered = open(&disk).1;
    assert_eq!(damaged(&recovered).len(), 1, "{}", recovered.report);
    let (first, last) = damaged(&recovered)[0];
    assert_eq!(found(&recovered), (1..first).chain(last + 1..=12).collect::<Vec<_>>());
}

#[test]
fn an_emptied_segment_never_loses_a_record_in_silence() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 12, 5000);
    for name in disk.files() {
        let broken = disk.copy();
        broken.truncate(&name, 0);
        let (wal, recovered) = open(&broken);
        let missing: Vec<u64> = (1..=12).filter(|seq| !found(&recovered).contains(seq)).collect();
        assert!(!missing.is_empty());
        let said = |seq: &u64| damaged(&recovered).iter().any(|(first, last)| (*first..=*last).contains(seq));
        assert!(missing.iter().all(said), "{name}: {missing:?} {}", recovered.report);
        assert!(wal.next_seq() > 12);
    }
}

#[test]
fn a_segment_of_another_log_and_a_renamed_one_are_refused_by_name() {
    use quorate_store::disk::Disk;
    let disk = SimDisk::new();
    drop(create(&disk));
    let mut other = config();
    other.log_id = 8;
    let error = Wal::open(&disk, other).expect_err("foreign");
    assert!(matches!(&error, WalError::Foreign { file, .. } if file == SEGMENT_1), "{error}");
    disk.rename(SEGMENT_1, SEGMENT_2).expect("it is there");
    let error = Wal::open(&disk, config()).expect_err("misnamed");
    assert!(error.to_string().contains("give it that name again"), "{error}");
}

#[test]
fn a_missing_log_is_not_taken_for_an_empty_one() {
    let disk = SimDisk::new();
    assert_eq!(Wal::open(&disk, config()).expect_err("nothing there"), WalError::Missing);
    drop(create(&disk));
    assert_eq!(Wal::create(&disk, config()).expect_err("one is there"), WalError::Exists);
}

#[test]
fn both_copies_of_a_segment_header_may_be_lost_without_losing_a_record() {
    let (disk, bodies) = sample(true);
    disk.corrupt(SEGMENT_1, 0, 64, |byte| !byte);
    disk.corrupt(SEGMENT_1, 4096, 64, |byte| !byte);
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered).len(), 8);
    assert_true_to(&recovered, &bodies, "headers lost");
    assert_eq!(open(&disk).1.report.notes, Vec::<String>::new(), "the header was written again");
}

#[test]
fn a_body_that_holds_a_copy_of_the_log_is_not_read_as_records() {
    let (source, _) = sample(true);
    let image = source.bytes(SEGMENT_1).expect("there")[RECORDS as usize..RECORDS as usize + 3000].to_vec();
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    wal.append(Class::Entry, &image).expect("room");
    wal.append(Class::Entry, b"last").expect("room");
    wal.sync().expect("works");
    disk.flip_bit(SEGMENT_1, RECORDS + 8, 0); // The reader now searches the body for records.
    let recovered = open(&disk).1;
    assert_eq!(damaged(&recovered), [(1, 1)]);
    assert_eq!(recovered.items[1], Item::Found { seq: 2, class: Class::Entry, body: b"last".to_vec() });
}

#[test]
fn a_record_of_another_history_is_not_taken_for_the_next_one() {
    use quorate_store::disk::{Disk, DiskFile};
    let disk = SimDisk::new();
    group(&mut create(&disk), 1, 200);
    let other = disk.copy();
    let mut wal = open(&other).0;
    for body in [[1; 200], [2; 200]] {
        wal.append(Class::Entry, &body).expect("room");
        wal.sync().expect("works");
    }
    group(&mut open(&disk).0, 1, 200);
    // Record 3 of the other history lands behind our record 2, where its number, its place and its checksums are right.
    let start = RECORDS + 480;
    let stale = other.bytes(SEGMENT_1).expect("there")[start as usize..start as usize + 240].to_vec();
    disk.open(SEGMENT_1).expect("there").write_at(start, &stale).expect("works");
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered), [1, 2]);
    assert!(!recovered.report.is_intact(), "{}", recovered.report);
}

#[test]
fn zeros_in_a_body_are_no_proof_of_a_torn_write() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 1, 100);
    wal.append(Class::Entry, &[0; 3000]).expect("room");
    wal.sync().expect("works");
    disk.flip_bit(SEGMENT_1, RECORDS + 144 + 60, 3);
    let recovered = open(&disk).1;
    assert_eq!(recovered.report.torn, None);
    assert_eq!(damaged(&recovered), [(2, 2)]);
}
