//! Random operations, random damage, random bytes: no panic, no wrong body, no safe record missing in silence.

use crate::common::*;
use proptest::prelude::*;
use quorate_store::disk::{Disk, DiskFile, SimDisk};
use quorate_store::wal::{Class, Item, Wal};
use quorate_store::{SnapshotStore, Superblock, inspect};

/// What was appended, by sequence number from 1.
type Bodies = Vec<Vec<u8>>;

#[derive(Clone, Debug)]
enum Damage {
    Flip { at: usize, bit: u8 },
    Fill { at: usize, len: usize, byte: u8 },
    Cut { len: usize },
    Empty,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        4 => (0..40_000_usize, 0..8_u8).prop_map(|(at, bit)| Damage::Flip { at, bit }),
        3 => (0..40_000_usize, 1..3000_usize, any::<u8>()).prop_map(|(at, len, byte)| Damage::Fill { at, len, byte }),
        1 => (0..40_000_usize).prop_map(|len| Damage::Cut { len }),
        1 => Just(Damage::Empty),
    ]
}

fn inflict(disk: &SimDisk, which: usize, damage: &Damage) {
    let files = disk.files();
    let name = &files[which % files.len()];
    let len = disk.bytes(name).map_or(0, |bytes| bytes.len()).max(1);
    match damage {
        Damage::Flip { at, bit } => disk.flip_bit(name, (at % len) as u64, *bit),
        Damage::Fill { at, len: run, byte } => disk.corrupt(name, (at % len) as u64, *run, |_| *byte),
        Damage::Cut { len: to } => disk.truncate(name, (to % len) as u64),
        Damage::Empty => disk.truncate(name, 0),
    }
}

/// A body of `len` bytes, most of them zero if `sparse`.
fn mixed(seq: u64, len: usize, sparse: bool) -> Vec<u8> {
    let mut body = body(seq, len);
    if sparse {
        body.iter_mut().skip(1).for_each(|byte| *byte = 0);
    }
    body
}

fn build(groups: &[Vec<(usize, bool, bool)>], seal: bool) -> (SimDisk, Wal<SimDisk>, Bodies) {
    let disk = SimDisk::new();
    let mut wal = create(&disk);
    let mut bodies = Vec::new();
    for group in groups {
        for (len, promise, sparse) in group {
            let body = mixed(wal.next_seq(), *len, *sparse);
            wal.append(if *promise { Class::Promise } else { Class::Entry }, &body).expect("room");
            bodies.push(body);
        }
        wal.sync().expect("works");
    }
    if seal {
        wal.seal().expect("works");
    }
    (disk, wal, bodies)
}

fn groups() -> impl Strategy<Value = Vec<Vec<(usize, bool, bool)>>> {
    let record = (prop_oneof![0..100_usize, 0..3000_usize], any::<bool>(), any::<bool>());
    prop::collection::vec(prop::collection::vec(record, 1..5), 1..10)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_sealed_log_never_loses_a_record_in_silence(
        groups in groups(),
        wounds in prop::collection::vec((0..8_usize, damage()), 1..4),
    ) {
        let (disk, _, bodies) = build(&groups, true);
        let sealed_bytes = disk.copy();
        for (which, damage) in &wounds {
            inflict(&disk, *which, damage);
        }
        let (mut wal, recovered) = open(&disk);
        assert_true_to(&recovered, &bodies, "damaged");
        let found = found(&recovered);
        // One wound spares the seal or the records; several, or a long one, may take both.
        if let [(_, Damage::Flip { .. })] = wounds.as_slice() {
            for seq in 1..=bodies.len() as u64 {
                let said = damaged(&recovered).iter().any(|(first, last)| (*first..=*last).contains(&seq));
                prop_assert!(found.contains(&seq) || said, "{} vanished: {}", seq, recovered.report);
            }
            let unknown = |item: &Item| matches!(item, Item::Damaged { class: None, .. });
            prop_assert!(!recovered.items.iter().any(unknown), "{:?}: {}", wounds, recovered.report);
            prop_assert!(damaged(&recovered).len() <= 1, "{:?}: {}", wounds, recovered.report);
        }
        // The log goes on and reads the same afterwards.
        let seq = wal.append(Class::Promise, b"after").expect("room");
        wal.sync().expect("works");
        let again = open(&disk).1;
        let mut expected = recovered.items.clone();
        expected.push(Item::Found { seq, class: Class::Promise, body: b"after".to_vec() });
        prop_assert_eq!(&again.items, &expected);
        prop_assert_eq!(crate::common::found(&open(&sealed_bytes).1).len(), bodies.len());
    }

    #[test]
    fn bodies_of_zeros_survive_power_losses_too(groups in groups(), cut in 0..3_u64, seed in any::<u64>()) {
        let (disk, mut wal, mut bodies) = build(&groups, seed % 2 == 0);
        let safe = wal.durable_seq();
        disk.cut_power_after(cut);
        for (len, sparse) in [(700, true), (1, false), (2000, true), (30, true)] {
            let body = mixed(wal.next_seq(), len, sparse);
            if wal.append(Class::Promise, &body).is_ok() {
                bodies.push(body);
            }
        }
        let safe = wal.sync().unwrap_or(safe);
        let mut random = Random(seed);
        disk.crash(&mut || random.next());
        let recovered = open(&disk).1;
        assert_true_to(&recovered, &bodies, "crashed");
        for seq in 1..=safe {
            prop_assert!(found(&recovered).contains(&seq), "{} was safe", seq);
        }
    }

    #[test]
    fn files_of_random_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..20_000),
        at in 0..20_000_u64,
        which in 0..3_usize,
    ) {
        let disk = SimDisk::new();
        Superblock::create(&disk, b"who").expect("works");
        let mut wal = create(&disk);
        group(&mut wal, 5, 200);
        let mut writer = SnapshotStore::open(&disk).and_then(|store| store.begin(1)).expect("works");
        writer.chunk(&[1; 5000]).expect("works");
        writer.finish(b"manifest").expect("works");
        let name = disk.files()[which].clone();
        disk.open(&name).expect("there").write_at(at, &bytes).expect("works");
        let _ = inspect(&disk).expect("readable").to_string();
        let _ = Superblock::open(&disk);
        let _ = Wal::open(&disk, config());
        if let Ok(reader) = SnapshotStore::open(&disk).expect("works").read(1) {
            let _ = reader.chunk(0);
        }
    }
}
