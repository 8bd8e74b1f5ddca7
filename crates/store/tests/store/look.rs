//! A folder that is only looked at: everything is found, nothing is changed, and no flipped bit is overlooked.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::executor::{Done, Executor, Job};
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, ReplicaId, RequestNumber, SessionId};
use quorate_core::machine::{At, Output};
use quorate_core::outbox::Class;
use quorate_core::sessions::{Batch, Body, Request};
use quorate_core::small::Small;
use quorate_core::wire::Wire;
use quorate_store::replica::{Belongs, Snapshots, format_with};
use quorate_store::{Item, SimDisk, WalConfig, look};

/// Everything that was applied, one after the other.
#[derive(Clone, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Tape(Vec<u8>);

impl Small for Tape {
    fn apply(&mut self, _: &At, operation: &[u8], _: &mut Output) {
        self.0.extend_from_slice(operation);
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}
}

/// A folder with both classes of records, long ones and empty ones, and a snapshot.
fn folder() -> SimDisk {
    let disk = SimDisk::new();
    let (cluster, replica) = (ClusterId::new(0xabc), ReplicaId::new(1));
    let belongs = Belongs { cluster, epoch: Epoch::ZERO, replica, replicas: 4, protocol: "pbft".to_owned() };
    let log = WalConfig { segment_bytes: 16 << 10, first_segment_bytes: 16 << 10, ..WalConfig::new(7) };
    let records: Vec<_> =
        [(Class::Promise, 40), (Class::Entry, 700), (Class::Entry, 0), (Class::Promise, 3), (Class::Entry, 97)]
            .into_iter()
            .map(|(class, length)| (class, (1..=length).map(|byte: u32| byte as u8 | 1).collect()))
            .collect();
    format_with(&disk, &belongs, log, &records).expect("formats");
    let mut executor = Executor::new(Tape::default());
    for op in 1..=3 {
        let body = if op == 1 { Body::Register } else { Body::Apply(Bytes::from_static(b"some words")) };
        let (session, number) = (SessionId::new(u64::from(op > 1)), RequestNumber::new(op));
        let request = Request { client: ClientId::new(1), session, number, acknowledged: number.previous(), body };
        let batch = Batch { requests: vec![request], ..Batch::default() };
        executor.run(Job::Execute { op: OpNumber::new(op), batch: batch.encode().into() });
    }
    let Done::Saving(save) = executor.run(Job::Checkpoint(executor.op())) else { panic!("a checkpoint is saved") };
    Snapshots::open(&disk).expect("opens").save(save).expect("saves");
    disk
}

#[test]
fn what_is_whole_is_found_and_nothing_is_wrong_with_it() {
    let disk = folder();
    let found = look::<_, Tape>(&disk).expect("it is a folder");
    assert_eq!(found.findings, Vec::<String>::new());
    assert_eq!(found.belongs.protocol, "pbft");
    assert_eq!(found.items.iter().filter(|item| matches!(item, Item::Found { .. })).count(), 5);
    assert_eq!(found.snapshots.iter().map(|(checkpoint, _)| checkpoint.op.get()).collect::<Vec<_>>(), [3]);
    assert_eq!(found.snapshots[0].1.machine().0, b"some wordssome words");
}

#[test]
fn no_flipped_bit_of_any_file_is_overlooked() {
    let whole = folder();
    let files = whole.files();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in &files {
        let bytes = whole.bytes(file).expect("there");
        // Every byte that says something, and some of the many zeros: those beside what says something, and others.
        let says = |at: usize| bytes[at.saturating_sub(9)..(at + 9).min(bytes.len())].iter().any(|byte| *byte != 0);
        for at in (0..bytes.len()).filter(|at| says(*at) || at % 97 == 0) {
            let disk = whole.copy();
            disk.flip_bit(file, at as u64, (at % 8) as u8);
            let found = look::<_, Tape>(&disk);
            let named = match &found {
                Ok(found) => found
                    .findings
                    .iter()
                    .any(|finding| finding.starts_with(file.as_str()) || finding.starts_with("wal")),
                Err(error) => !error.to_string().is_empty(),
            };
            assert!(named, "bit {} of byte {at} of {file} was flipped, and nobody says so: {found:?}", at % 8);
            assert!(disk.bytes(file) != Some(bytes.clone()), "looking repairs nothing");
        }
    }
}
