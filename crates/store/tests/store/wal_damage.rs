//! The log under damage: nothing wrong is ever returned, and no damage goes unsaid.

use crate::common::*;
use quorate_store::disk::SimDisk;
use quorate_store::inspect;
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

/// Where each header of the sample stands, and of which record; 0 is the seal.
fn headers(disk: &SimDisk) -> Vec<(u64, u64)> {
    let mut at = RECORDS;
    let mut headers = Vec::new();
    for (seq, len) in [(1, 100), (2, 100), (3, 60), (3, 60), (4, 700), (5, 700), (6, 50), (7, 50), (8, 50)] {
        headers.push((at, seq));
        at += (HEADER + len as u64).next_multiple_of(8);
    }
    let seal = (at + 1).next_multiple_of(512);
    let sealed = disk.bytes(SEGMENT_1).expect("there")[seal as usize..].iter().any(|byte| *byte != 0);
    headers.extend(sealed.then_some((seal, 0)));
    headers
}

/// What is told of damaged numbers: from, to, class.
fn classes(recovered: &quorate_store::wal::Recovered) -> Vec<(u64, u64, Option<Class>)> {
    let class = |item: &Item| match item {
        Item::Damaged { first, last, class } => Some((*first, *last, *class)),
        Item::Found { .. } => None,
    };
    recovered.items.iter().filter_map(class).collect()
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
                assert_eq!(classes(&recovered), [(missing, missing, Some(Class::Entry))], "{context}");
            } else {
                assert!(recovered.report.is_intact(), "{context}: {}", recovered.report);
            }
            // Whatever was found, the log goes on, and the next opening finds the same and the new record.
            let seq = wal.append(Class::Entry, b"after").expect("room");
            wal.sync().expect("works");
            assert_eq!(seq, 9, "{context}: {}", recovered.report);
            let again = open(&disk).1;
            assert_eq!(found.len() + 1, crate::common::found(&again).len(), "{context}");
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
        assert_eq!(crate::common::found(&again).len(), found.len() + 1, "cut at {len}");
    }
    assert_eq!(longest, 8);
}

#[test]
fn a_zeroed_last_group_is_torn_without_a_seal_and_damage_with_one() {
    for sealed in [false, true] {
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        group(&mut wal, 1, 424); // Ends with its sector, so that the next group has sectors of its own.
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
fn a_flipped_bit_in_any_header_costs_nothing_and_is_taken_back() {
    for sealed in [true, false] {
        let (original, bodies) = sample(sealed);
        for (header, seq) in headers(&original) {
            for bit in 0..HEADER * 8 {
                let disk = original.copy();
                disk.flip_bit(SEGMENT_1, header + bit / 8, (bit % 8) as u8);
                let context = format!("sealed {sealed}, header of {seq} at {header}, bit {bit}");
                let recovered = open(&disk).1;
                assert_eq!(found(&recovered).len(), 8, "{context}: {}", recovered.report);
                assert_true_to(&recovered, &bodies, &context);
                assert!(recovered.report.is_intact() && recovered.report.torn.is_none(), "{context}");
                if seq == 0 {
                    assert!(recovered.report.notes[0].starts_with("one of the two heads of the mark"), "{context}");
                } else {
                    assert_eq!(recovered.report.healed, [seq], "{context}");
                }
                assert_eq!(disk.bytes(SEGMENT_1), original.bytes(SEGMENT_1), "{context}");
            }
        }
    }
}

#[test]
fn a_look_at_a_log_tells_of_a_damaged_head_and_leaves_it() {
    let (disk, _) = sample(true);
    for (header, _) in headers(&disk) {
        disk.flip_bit(SEGMENT_1, header + 50, 2);
    }
    let before = disk.bytes(SEGMENT_1);
    let seen = inspect(&disk).expect("readable");
    let log = seen.log.as_ref().expect("readable").as_ref().expect("there");
    assert_eq!(log.healed, [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(log.is_intact());
    assert_eq!(seen.segments[0].1.healed, log.healed);
    assert!(seen.to_string().contains("one of two copies of record 4, or of its header, was damaged"), "{seen}");
    assert_eq!(disk.bytes(SEGMENT_1), before);
}

#[test]
fn of_a_record_without_its_header_the_next_one_or_the_seal_tells_the_class() {
    for sealed in [true, false] {
        let (original, bodies) = sample(sealed);
        for seq in 1..=8 {
            let disk = original.copy();
            for (header, _) in headers(&original).into_iter().filter(|(_, of)| *of == seq) {
                disk.corrupt(SEGMENT_1, header, if seq == 3 { 148 } else { HEADER as usize }, |byte| !byte);
            }
            let (wal, recovered) = open(&disk);
            let context = format!("sealed {sealed}, {seq}: {}", recovered.report);
            assert_true_to(&recovered, &bodies, &context);
            let class = if seq == 3 { Class::Promise } else { Class::Entry };
            if seq == 8 && !sealed {
                assert_eq!(classes(&recovered)[0].2, None, "{context}");
            } else {
                assert_eq!(classes(&recovered), [(seq, seq, Some(class))], "{context}");
                assert_eq!(wal.next_seq(), 9, "{context}");
            }
            // A gap that covers the end tells the same, also when it is the one that is damaged.
            let again = open(&disk).1;
            assert_eq!(recovered.items, again.items, "{context}");
        }
    }
}

#[test]
fn of_several_lost_records_those_since_the_last_promise_are_known_as_entries() {
    use Class::{Entry, Promise};
    for sealed in [true, false] {
        let (original, _) = sample(sealed);
        let headers = headers(&original);
        let lose = |first: u64, last: u64| {
            let disk = original.copy();
            let place = |seq: u64| headers.iter().find(|(_, of)| *of == seq).map(|(at, _)| *at);
            let start = place(first).expect("in the sample");
            let end = place(last + 1).unwrap_or(record_range(&sample(false).0).end);
            disk.corrupt(SEGMENT_1, start, (end - start) as usize, |byte| !byte);
            let recovered = open(&disk).1;
            assert_eq!(open(&disk).1.items, recovered.items);
            classes(&recovered)
        };
        assert_eq!(lose(1, 2), [(1, 2, Some(Entry))]);
        assert_eq!(lose(1, 3), [(1, 2, None), (3, 3, Some(Promise))]);
        assert_eq!(lose(1, 5), [(1, 2, None), (3, 3, Some(Promise)), (4, 5, Some(Entry))]);
        assert_eq!(lose(3, 6), [(3, 3, Some(Promise)), (4, 6, Some(Entry))]);
        assert_eq!(lose(4, 7), [(4, 7, Some(Entry))]);
        if sealed {
            assert_eq!(lose(4, 8), [(4, 8, Some(Entry))]);
            assert_eq!(lose(3, 8), [(3, 3, Some(Promise)), (4, 8, Some(Entry))]);
        } else {
            assert_eq!(lose(4, 8)[0].2, None);
        }
    }
}

#[test]
fn the_classes_of_given_up_numbers_survive_the_loss_of_the_gap_that_names_them() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    wal.append(Class::Promise, &body(1, 100)).expect("room");
    group(&mut wal, 2, 100);
    wal.seal().expect("works");
    disk.corrupt(SEGMENT_1, RECORDS, 2 * 192 + 192 + 50, |byte| !byte);
    let (mut wal, recovered) = open(&disk);
    let expected = [(1, 1, Some(Class::Promise)), (2, 3, Some(Class::Entry))];
    assert_eq!(classes(&recovered), expected);
    group(&mut wal, 2, 100);
    disk.corrupt(SEGMENT_2, RECORDS, HEADER as usize, |byte| !byte);
    assert_eq!(classes(&open(&disk).1), expected, "record 4 says the same");
    // Of an end about which nothing is known, nothing is claimed later either.
    disk.corrupt(SEGMENT_2, RECORDS + HEADER + 192, HEADER as usize, |byte| !byte);
    let (mut wal, recovered) = open(&disk);
    let tail = *classes(&recovered).last().expect("a tail");
    assert_eq!((tail.0, tail.2), (5, None));
    group(&mut wal, 1, 100);
    assert_eq!(classes(&open(&disk).1), classes(&recovered));
}

#[test]
fn a_short_group_behind_a_seal_is_not_left_out_of_what_a_damaged_end_may_hold() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 1, 20);
    wal.seal().expect("works");
    wal.append(Class::Promise, b"short").expect("room");
    wal.sync().expect("works");
    disk.corrupt(SEGMENT_1, RECORDS, 400, |byte| !byte);
    let (wal, recovered) = open(&disk);
    assert_eq!(classes(&recovered)[0].2, None, "the seal knows of record 1 only");
    assert!(wal.next_seq() > 2);
}

#[test]
fn a_flipped_bit_where_nothing_was_written_is_no_record() {
    for sealed in [true, false] {
        let (original, _) = sample(sealed);
        let end = record_range(&sample(false).0).end.next_multiple_of(8);
        let seal = headers(&original).into_iter().find(|(_, seq)| *seq == 0).map(|(at, _)| at..at + HEADER);
        for offset in end..16 << 10 {
            if seal.as_ref().is_some_and(|seal| seal.contains(&offset)) {
                continue;
            }
            let disk = original.copy();
            disk.flip_bit(SEGMENT_1, offset, (offset % 8) as u8);
            let (wal, recovered) = open(&disk);
            assert_eq!((found(&recovered).len(), wal.next_seq()), (8, 9), "{}", recovered.report);
            assert!(recovered.report.is_intact() && recovered.report.torn.is_none());
            assert_eq!(recovered.report.notes.len(), 1);
            assert_eq!(disk.bytes(SEGMENT_1), original.bytes(SEGMENT_1), "offset {offset}");
        }
    }
}

#[test]
fn a_header_that_reaches_into_two_sectors_is_torn_when_either_is_missing() {
    use quorate_store::disk::{Disk, DiskFile};
    for inside in (8..=HEADER).step_by(8) {
        for missing in [0, 1] {
            for sealed in [false, true] {
                let disk = SimDisk::new();
                let mut wal = create(&disk);
                group(&mut wal, 1, (512 - inside - HEADER) as usize);
                let before = disk.bytes(SEGMENT_1).expect("there");
                group(&mut wal, 1, 600);
                if sealed {
                    wal.seal().expect("works");
                }
                let start = (RECORDS + missing * 512) as usize;
                let file = disk.open(SEGMENT_1).expect("there");
                file.write_at(start as u64, &before[start..start + 512]).expect("works");
                let (wal, recovered) = open(&disk);
                let context = format!("{inside} bytes, {missing}, sealed {sealed}: {}", recovered.report);
                if !sealed {
                    assert_eq!(recovered.report.torn.map(|torn| torn.seq), Some(2), "{context}");
                    assert_eq!((found(&recovered), wal.next_seq()), (vec![1], 2), "{context}");
                    assert!(recovered.report.is_intact());
                } else if missing == 0 && inside <= 44 {
                    assert_eq!((found(&recovered), &recovered.report.healed), (vec![1, 2], &vec![2]), "{context}");
                } else {
                    assert_eq!(classes(&recovered), [(2, 2, Some(Class::Entry))], "{context}");
                }
            }
        }
    }
}

#[test]
fn a_record_that_lost_one_head_is_not_cut_with_a_torn_group_behind_it() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 1, 424);
    group(&mut wal, 1, 424); // Ends with its sector, and is above all that is known to be safe.
    group(&mut wal, 1, 1000);
    disk.corrupt(SEGMENT_1, RECORDS + 1024, 512, |_| 0);
    disk.flip_bit(SEGMENT_1, RECORDS + 512 + 20, 3);
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered), [1, 2], "{}", recovered.report);
    assert_eq!(recovered.report.healed, [2]);
    assert_eq!(recovered.report.torn.map(|torn| torn.seq), Some(3));
}

#[test]
fn a_promise_is_read_from_the_header_of_one_copy_and_the_body_of_the_other() {
    for copy in [0, 1] {
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        wal.append(Class::Promise, &body(1, 100)).expect("room");
        wal.sync().expect("works");
        group(&mut wal, 1, 100);
        let before = disk.bytes(SEGMENT_1);
        disk.corrupt(SEGMENT_1, RECORDS + copy * 192, HEADER as usize, |byte| !byte);
        disk.corrupt(SEGMENT_1, RECORDS + (1 - copy) * 192 + HEADER, 100, |byte| !byte);
        let recovered = open(&disk).1;
        assert_eq!((found(&recovered), &recovered.report.healed), (vec![1, 2], &vec![1]));
        assert_eq!(disk.bytes(SEGMENT_1), before);
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
        for head in [0, 44] {
            disk.flip_bit(SEGMENT_1, RECORDS + 192 + head + 9, 0);
        }
        let (mut wal, recovered) = open(&disk);
        assert_eq!(found(&recovered), [1]);
        assert_eq!(recovered.report.torn, None);
        let Some(DamagedTail { from_seq: 2, at_most }) = recovered.report.tail else { panic!("{}", recovered.report) };
        let class = sealed.then_some(Class::Entry);
        assert_eq!(classes(&recovered), [(2, 1 + at_most, class)]);
        assert_eq!(at_most == 1, sealed, "the seal says where the log ends");
        assert_eq!(wal.next_seq(), 2 + at_most);
        // The gap survives openings with and without records after it.
        let again = open(&disk).1;
        assert_eq!(classes(&again), [(2, 1 + at_most, class)]);
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
    disk.flip_bit(SEGMENT_1, RECORDS + 192 + 108, 3);
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
            let start = RECORDS + 192 + copy * 1088;
            disk.corrupt(SEGMENT_1, if header { start } else { start + HEADER }, 80, |byte| !byte);
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
    disk.flip_bit(SEGMENT_1, RECORDS + 98, 1);
    disk.flip_bit(SEGMENT_1, RECORDS + 192 + 98, 1);
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
    disk.corrupt(SEGMENT_1, RECORDS, HEADER as usize, |byte| !byte); // The reader now searches the body for records.
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
    let start = RECORDS + 2 * 288;
    let stale = other.bytes(SEGMENT_1).expect("there")[start as usize..start as usize + 288].to_vec();
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
    disk.flip_bit(SEGMENT_1, RECORDS + 192 + 108, 3);
    let recovered = open(&disk).1;
    assert_eq!(recovered.report.torn, None);
    assert_eq!(damaged(&recovered), [(2, 2)]);
}
