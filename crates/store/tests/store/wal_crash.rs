//! The log under power losses, failing syncs and full disks.

use crate::common::*;
use quorate_store::disk::{Disk, SimDisk};
use quorate_store::wal::{Class, Item, Wal, WalConfig, WalError};

/// Runs a random life on a disk until the power goes out, and returns (bodies appended, last safe number, forgotten below).
fn live(disk: &SimDisk, random: &mut Random, bodies: &mut Vec<Vec<u8>>, wal: &mut Wal<SimDisk>) -> (u64, u64) {
    let mut forgotten = 1;
    loop {
        let step: Result<(), WalError> = match random.below(20) {
            0..=9 => {
                let class = if random.below(4) == 0 { Class::Promise } else { Class::Entry };
                let len = if random.below(8) == 0 { random.below(6000) } else { random.below(700) };
                let mut body = body(wal.next_seq() + random.below(1 << 20) * 512, len as usize);
                let zeros = random.below(12) as usize; // numbers are often small, and then end in zeros
                let end = body.len();
                body[end.saturating_sub(zeros)..].fill(0);
                bodies.truncate(wal.next_seq() as usize - 1);
                bodies.resize(wal.next_seq() as usize - 1, Vec::new());
                bodies.push(body.clone());
                wal.append(class, &body).map(drop)
            }
            10..=15 => wal.sync().map(drop),
            16 | 17 => wal.seal(),
            18 => wal.prepare_next(),
            _ => {
                let below = 1 + random.below(wal.durable_seq() + 1);
                forgotten = forgotten.max(below);
                wal.forget_before(below)
            }
        };
        if step.is_err() {
            assert!(stopped(wal.sync()), "poisoned for good");
            return (wal.durable_seq(), forgotten);
        }
        if disk.operations() > 100_000 {
            panic!("the power never went out");
        }
    }
}

/// One seed: three lives on one disk; after each crash, everything that was safe is there and nothing is damaged.
fn three_lives(seed: u64, crash: impl Fn(&SimDisk, &mut Random)) -> Result<(), String> {
    let mut random = Random(seed);
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    let mut bodies = Vec::new();
    let mut forgotten = 1;
    for life in 0..3 {
        disk.cut_power_after(random.below(60));
        let (safe, below) = live(&disk, &mut random, &mut bodies, &mut wal);
        forgotten = forgotten.max(below);
        crash(&disk, &mut random);
        let context = format!("seed {seed}, life {life}");
        let (next, recovered) = Wal::open(&disk, config()).map_err(|error| format!("{context}: {error}"))?;
        let found = found(&recovered);
        let first = found.first().copied().unwrap_or(next.next_seq());
        let expected: Vec<u64> = (first..next.next_seq()).collect();
        if found != expected || !recovered.report.is_intact() {
            return Err(format!("{context}: found {found:?}, {}", recovered.report));
        }
        if first > forgotten || next.next_seq() <= safe {
            return Err(format!("{context}: {safe} was safe, {first}..{} is there", next.next_seq()));
        }
        for item in &recovered.items {
            let Item::Found { seq, body, .. } = item else { continue };
            if bodies.get(*seq as usize - 1) != Some(body) {
                return Err(format!("{context}: wrong body for {seq}"));
            }
        }
        wal = next;
    }
    Ok(())
}

fn power_loss(disk: &SimDisk, random: &mut Random) {
    let mut source = Random(random.next());
    disk.crash(&mut || source.next());
}

#[test]
fn after_a_power_loss_everything_synced_is_there_and_torn_groups_are_never_called_corruption() {
    for seed in 0..4000 {
        three_lives(seed, power_loss).expect("a seed failed");
    }
}

/// Found by the simulator: the last bytes of a record, zeros, were all that it had in a sector, where a seal stood. The power
/// loss left the seal there, and what was torn was called damaged.
#[test]
fn a_record_whose_last_zeros_meet_an_old_seal_is_torn_and_not_damaged() {
    for spill in 1..=7 {
        for lost in [1, 2] {
            let disk = SimDisk::new();
            let mut wal = create(&disk);
            wal.append(Class::Entry, &body(1, 100)).expect("room");
            wal.sync().expect("the disk works");
            wal.seal().expect("the disk works");
            let start = RECORDS as usize + 192; // where the next record stands
            let mut long = body(2, 1024 - 192 - HEADER as usize + spill);
            let end = long.len();
            long[end - spill..].fill(0);
            let before = disk.copy();
            wal.append(Class::Entry, &long).expect("room");
            wal.sync().expect("the disk works");
            // Of the write, this sector was lost: it is as it was before.
            let old = before.bytes(SEGMENT_1).expect("a segment");
            let sector = start / 512 + lost;
            for (at, byte) in old[sector * 512..(sector + 1) * 512].iter().enumerate() {
                disk.corrupt(SEGMENT_1, (sector * 512 + at) as u64, 1, |_| *byte);
            }
            drop(wal);
            let (_, recovered) = open(&disk);
            assert!(recovered.report.is_intact(), "spill {spill}, sector {lost} lost: {}", recovered.report);
        }
    }
}

#[test]
fn after_the_death_of_the_process_alone_everything_synced_is_there() {
    for seed in 0..500 {
        three_lives(seed, |disk, _| disk.kill()).expect("a seed failed");
    }
}

#[test]
fn what_was_found_after_a_dead_process_survives_a_power_loss_right_after() {
    for seed in 0..300 {
        let mut random = Random(seed);
        let disk = SimDisk::new();
        let mut wal = create(&disk);
        group(&mut wal, 2, 300);
        disk.cut_power_after(1); // The write happens, its sync does not.
        for _ in 0..3 {
            wal.append(Class::Entry, &body(wal.next_seq(), 600)).expect("room");
        }
        assert!(stopped(wal.sync()));
        disk.kill();
        let before = open(&disk).1;
        assert_eq!(found(&before), [1, 2, 3, 4, 5]);
        power_loss(&disk, &mut random);
        assert_eq!(open(&disk).1.items, before.items, "seed {seed}");
    }
}

#[test]
fn the_checks_above_fail_on_a_disk_that_ignores_syncs_of_files() {
    let failed = (0..200).filter(|seed| {
        let disk = SimDisk::new();
        disk.ignore_syncs_of("wal/");
        let Ok(mut wal) = Wal::create(&disk, config()) else {
            return true;
        };
        group(&mut wal, 4, 600);
        power_loss(&disk, &mut Random(*seed));
        Wal::open(&disk, config()).map_or(true, |(_, recovered)| found(&recovered) != [1, 2, 3, 4])
    });
    assert!(failed.count() > 100);
}

#[test]
fn the_checks_above_fail_on_a_disk_that_ignores_syncs_of_folders() {
    let failed = (0..200).filter(|seed| {
        let disk = SimDisk::new();
        disk.ignore_dir_syncs();
        let mut wal = create(&disk);
        group(&mut wal, 9, 4000);
        power_loss(&disk, &mut Random(*seed));
        Wal::open(&disk, config()).map_or(true, |(_, recovered)| found(&recovered).len() != 9)
    });
    assert!(failed.count() > 100);
}

#[test]
fn a_new_segment_has_its_name_its_length_and_its_zeros_before_a_record_is_in_it() {
    // A disk that drops all unsynced changes: only what creation itself made safe is left.
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 2, 3000);
    while wal.durable_seq() < 5 {
        group(&mut wal, 1, 3000);
    }
    disk.crash(&mut || 0);
    assert_eq!(disk.bytes(SEGMENT_1).map(|bytes| bytes.len()), Some(16 << 10));
    assert_eq!(disk.bytes(SEGMENT_2).map(|bytes| bytes.len()), Some(32 << 10));
    assert_eq!(found(&open(&disk).1), [1, 2, 3, 4, 5]);
}

#[test]
fn a_failed_sync_stops_the_log_for_good_and_says_why() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 1, 100);
    wal.append(Class::Entry, b"doomed").expect("room");
    disk.fail_next_sync("wal/");
    let error = wal.sync().expect_err("the sync fails");
    assert!(error.to_string().contains("the process must stop"), "{error}");
    assert!(stopped(wal.sync()));
    assert!(stopped(wal.append(Class::Entry, b"more")));
    assert!(stopped(wal.seal()));
    assert!(stopped(wal.forget_before(1)));
    assert_eq!(wal.durable_seq(), 1);
    disk.crash(&mut || 1);
    assert_eq!(found(&open(&disk).1), [1]);
}

#[test]
fn a_full_disk_refuses_the_next_segment_and_the_log_goes_on_when_there_is_room() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    disk.full(true);
    let mut refused = None;
    for seq in 1..=20 {
        match wal.append(Class::Entry, &body(seq, 1000)) {
            Ok(_) => assert!(refused.is_none()),
            Err(error) => {
                assert!(matches!(&error, WalError::Full(_)), "{error}");
                assert!(error.to_string().starts_with("the disk is full"), "{error}");
                refused.get_or_insert(seq);
            }
        }
    }
    let refused = refused.expect("a segment of 16 KiB is not endless");
    assert_eq!(wal.durable_seq(), refused - 1, "what was buffered is safe");
    assert_eq!(found(&open(&disk.copy()).1).len() as u64, refused - 1);
    disk.full(false);
    assert_eq!(wal.append(Class::Entry, b"again").expect("room"), refused);
    wal.sync().expect("works");
    assert_eq!(found(&open(&disk).1).len() as u64, refused);
}

#[test]
fn numbers_go_on_after_everything_was_forgotten() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 20, 3000);
    wal.forget_before(wal.next_seq()).expect("works");
    assert!(!disk.exists(SEGMENT_1).expect("works"));
    assert_eq!(disk.files().len(), 1);
    let (wal, recovered) = open(&disk);
    assert_eq!(wal.next_seq(), 21);
    assert!(recovered.report.is_intact(), "{}", recovered.report);
    assert_eq!(recovered.report.first_seq, found(&recovered).first().copied());
}

#[test]
fn a_segment_made_ahead_is_used_and_found_again_by_the_next_process() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    assert!(!wal.wants_segment());
    group(&mut wal, 5, 1000);
    assert!(wal.wants_segment());
    let order = wal.order_segment().expect("it is wanted");
    assert!(!wal.wants_segment(), "one order at a time");
    let built = std::thread::spawn(|| order.build()).join().expect("no panic");
    wal.adopt(built).expect("works");
    let syncs = disk.syncs();
    let mut wal = open(&disk).0;
    assert!(!wal.wants_segment(), "the spare is there");
    assert!(disk.syncs() > syncs);
    group(&mut wal, 1, 9000);
    assert!(disk.bytes(SEGMENT_2).expect("there")[RECORDS as usize] != 0);
}

#[test]
fn a_segment_that_came_too_late_is_dropped() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 5, 1000);
    let order = wal.order_segment().expect("it is wanted");
    group(&mut wal, 8, 1900);
    let built = order.build();
    wal.adopt(built).expect("works");
    assert!(!disk.exists(SEGMENT_2).expect("works"));
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered), (1..=13).collect::<Vec<_>>());
    assert!(recovered.report.is_intact());
}

/// A log whose first segment is half used, and how far the next one is filled.
fn half_used(disk: &SimDisk) -> (Wal<SimDisk>, impl Fn() -> usize + use<>) {
    let config = WalConfig { first_segment_bytes: 16 << 20, segment_bytes: 32 << 20, ..WalConfig::new(7) };
    let mut wal = Wal::create(disk, config).expect("works");
    while !wal.wants_segment() {
        group(&mut wal, 1, 1 << 20);
    }
    let disk = disk.clone();
    let name = "wal/0000000000000002.new";
    (wal, move || disk.look(name, <[u8]>::len).unwrap_or_default())
}

#[test]
fn a_segment_is_filled_as_the_log_goes_on_and_is_there_before_it_is_needed() {
    let disk = SimDisk::new();
    let (mut wal, filled) = half_used(&disk);
    let order = wal.order_segment().expect("it is wanted");
    let builder = std::thread::spawn(|| order.build_slowly());
    while filled() < 4 << 20 {}
    assert_eq!((filled(), builder.is_finished()), (4 << 20, false), "a start, and it waits");
    group(&mut wal, 2, 1 << 20);
    while filled() < 12 << 20 {}
    assert!(filled() < 16 << 20, "a quarter of what was left is used");
    group(&mut wal, 4, 1 << 20);
    let built = builder.join().expect("no panic");
    wal.adopt(built).expect("works");
    group(&mut wal, 2, 1 << 20);
    assert!(disk.bytes(SEGMENT_2).expect("there")[RECORDS as usize] != 0);
}

#[test]
fn a_segment_whose_log_has_ended_is_given_up() {
    let disk = SimDisk::new();
    let (mut wal, filled) = half_used(&disk);
    let order = wal.order_segment().expect("it is wanted");
    let builder = std::thread::spawn(|| order.build_slowly());
    while filled() < 4 << 20 {}
    drop(wal);
    let Err(error) = builder.join().expect("no panic") else { panic!("it is given up") };
    assert!(error.to_string().contains("has ended"), "{error}");
    assert_eq!(disk.look("wal/0000000000000002.new", <[u8]>::len), None, "nothing of it is left");
    assert!(open(&disk).1.report.is_intact());
}

#[test]
fn a_segment_that_comes_too_late_is_filled_at_once() {
    let disk = SimDisk::new();
    let (mut wal, filled) = half_used(&disk);
    let order = wal.order_segment().expect("it is wanted");
    group(&mut wal, 1, 9 << 20); // longer than what was left: the log has made a segment itself
    let builder = std::thread::spawn(|| order.build_slowly());
    let begun = std::time::Instant::now();
    while !builder.is_finished() && begun.elapsed().as_secs() < 30 {}
    assert!(builder.is_finished(), "it waits for a log that stands still");
    let built = builder.join().expect("no panic");
    assert!(filled() == 0 && disk.exists(SEGMENT_2).expect("works"));
    wal.adopt(built).expect("works");
    assert!(!disk.exists(SEGMENT_2).expect("works"), "and is of no use any more");
}

#[test]
fn a_record_longer_than_a_segment_gets_one_of_its_size() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    group(&mut wal, 1, 100);
    wal.prepare_next().expect("works");
    group(&mut wal, 1, 300_000);
    group(&mut wal, 2, 100);
    let recovered = open(&disk).1;
    assert_eq!(found(&recovered), [1, 2, 3, 4]);
    let error = wal.append(Class::Entry, &vec![1; (1 << 20) + 1]).expect_err("over the limit");
    assert!(matches!(error, WalError::TooLong { .. }));
    assert!(wal.append(Class::Entry, b"fine").is_ok(), "a refused record stops nothing");
}

#[test]
fn a_sync_is_one_write_and_one_sync_and_a_seal_one_write() {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    for _ in 0..50 {
        wal.append(Class::Entry, &[7; 50]).expect("room");
    }
    let before = (disk.operations(), disk.syncs());
    wal.sync().expect("works");
    assert_eq!((disk.operations(), disk.syncs()), (before.0 + 2, before.1 + 1));
    wal.sync().expect("works");
    assert_eq!(disk.operations(), before.0 + 2, "nothing to sync");
    wal.seal().expect("works");
    wal.seal().expect("works");
    assert_eq!((disk.operations(), disk.syncs()), (before.0 + 3, before.1 + 1));
}

#[test]
fn equal_runs_leave_equal_bytes() {
    let run = || {
        let disk = SimDisk::new();
        let mut random = Random(5);
        let mut wal = create(&disk);
        disk.cut_power_after(40);
        live(&disk, &mut random, &mut Vec::new(), &mut wal);
        power_loss(&disk, &mut random);
        open(&disk);
        disk.files().into_iter().map(|name| (disk.bytes(&name), name)).collect::<Vec<_>>()
    };
    assert_eq!(run(), run());
}

#[test]
fn a_configuration_that_makes_no_sense_is_refused() {
    for (segment_bytes, first_segment_bytes) in [(1000, 1000), (32 << 10, 64 << 10), (0, 0), (16385, 16384)] {
        let config = WalConfig { segment_bytes, first_segment_bytes, ..WalConfig::new(1) };
        assert!(matches!(Wal::create(&SimDisk::new(), config), Err(WalError::Config(_))));
    }
}
