//! A replica's folder, made and opened on a disk in memory and on the real one.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{Done, Executor, Job, Manifest, Save};
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, ReplicaId, RequestNumber, SessionId};
use quorate_core::machine::{At, Output};
use quorate_core::node::Part;
use quorate_core::outbox::Class;
use quorate_core::protocol::Checkpoint;
use quorate_core::sessions::{Batch, Body, Request};
use quorate_core::small::Small;
use quorate_core::wire::Wire;
use quorate_store::replica::{
    Belongs, FolderError, Opened, Snapshots, SnapshotsError, format, format_with, is_formatted, kept, open,
};
use quorate_store::{Disk, Item, RealDisk, SimDisk, Superblock, Wal, WalConfig};

/// Everything that was applied, one after the other; two chunks long after a few operations.
#[derive(Clone, Debug, Default, PartialEq, BorshSerialize, BorshDeserialize)]
struct Tape(Vec<u8>);

impl Small for Tape {
    fn apply(&mut self, _: &At, operation: &[u8], _: &mut Output) {
        self.0.extend_from_slice(operation);
    }

    fn query(&self, _: &[u8], _: &mut Vec<u8>) {}
}

fn belongs() -> Belongs {
    Belongs {
        cluster: ClusterId::new(0xabc),
        epoch: Epoch::ZERO,
        replica: ReplicaId::new(1),
        replicas: 3,
        protocol: "vr".to_owned(),
    }
}

fn opened<D: Disk>(disk: &D) -> Opened<D, Tape> {
    open(disk.clone(), &belongs(), &Tape::default).expect("opens")
}

fn refused<D: Disk>(disk: &D) -> FolderError {
    open(disk.clone(), &belongs(), &Tape::default).expect_err("does not open")
}

/// A machine after `entries` entries, of 400 kB each.
fn machine(entries: u64) -> Executor<Tape> {
    let mut executor = Executor::new(Tape::default());
    let client = ClientId::new(1);
    for op in 1..=entries {
        let body = if op == 1 { Body::Register } else { Body::Apply(Bytes::from(vec![op as u8; 400_000])) };
        let (session, number) = (SessionId::new(u64::from(op > 1)), RequestNumber::new(op));
        let request = Request { client, session, number, acknowledged: number.previous(), body };
        let batch = Batch { requests: vec![request], ..Batch::default() };
        executor.run(Job::Execute { op: OpNumber::new(op), batch: batch.encode().into() });
    }
    executor
}

fn saving(executor: &mut Executor<Tape>) -> Box<dyn Save> {
    match executor.run(Job::Checkpoint(executor.op())) {
        Done::Saving(save) => save,
        _ => panic!("a checkpoint is saved"),
    }
}

fn save<D: Disk>(snapshots: &mut Snapshots<D>, entries: u64) -> Checkpoint {
    snapshots.save(saving(&mut machine(entries))).expect("saves")
}

/// Manifest and chunks, as a peer would send them.
fn sent(entries: u64) -> (Manifest, Vec<Vec<u8>>) {
    let mut save = saving(&mut machine(entries));
    let chunks = std::iter::from_fn(|| save.next_chunk()).collect();
    (save.finish(), chunks)
}

fn round_trip(disk: &impl Disk) {
    assert!(!is_formatted(disk).expect("looks"));
    format(disk, &belongs(), 7).expect("formats");
    assert!(is_formatted(disk).expect("looks"));
    assert!(matches!(format(disk, &belongs(), 8), Err(FolderError::Formatted)));

    let mut first = opened(disk);
    assert_eq!((first.next_seq().get(), first.checkpoint, first.executor.op()), (1, None, OpNumber::ZERO));
    first.wal.append(kept(Class::Promise), b"a promise").expect("appends");
    first.wal.sync().expect("syncs");
    let checkpoint = save(&mut first.snapshots, 5);
    drop(first);

    let second = opened(disk);
    assert_eq!(second.findings, Vec::<String>::new());
    assert_eq!(second.next_seq().get(), 2);
    assert!(matches!(&second.items[..], [Item::Found { seq: 1, body, .. }] if body == b"a promise"));
    assert_eq!(second.checkpoint, Some(checkpoint));
    assert_eq!(second.executor.digest(), machine(5).digest());
}

#[test]
fn what_was_written_is_read_again() {
    round_trip(&SimDisk::new());
    let folder = tempfile::tempdir().expect("a folder");
    round_trip(&RealDisk::open(folder.path()).expect("opens"));
}

#[test]
fn a_format_that_the_power_ends_is_never_a_replica_that_forgot() {
    for operations in 0..200 {
        let disk = SimDisk::new();
        disk.cut_power_after(operations);
        let formatted = format(&disk, &belongs(), 7).is_ok();
        let mut bits = operations.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        disk.crash(&mut || {
            bits = bits.rotate_left(7).wrapping_mul(0xd129_42f4_3ac5_9d1b);
            bits >> 32
        });
        match open(disk.clone(), &belongs(), &Tape::default) {
            Ok(opened) => assert!(opened.items.is_empty()),
            Err(FolderError::NotFormatted | FolderError::HalfFormatted) => assert!(!formatted),
            Err(other) => panic!("after {operations} operations: {other}"),
        }
        if formatted {
            return;
        }
    }
    panic!("a format makes fewer than 200 changes");
}

#[test]
fn the_first_records_of_a_replica_that_lost_its_disk_are_there_from_the_start() {
    let disk = SimDisk::new();
    format_with(&disk, &belongs(), WalConfig::new(7), &[(Class::Promise, b"rejoin".to_vec())]).expect("formats");
    let opened = opened(&disk);
    assert!(matches!(&opened.items[..], [Item::Found { seq: 1, body, .. }] if body == b"rejoin"));
}

#[test]
fn a_folder_is_refused_to_all_but_its_owner() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    let others = [
        Belongs { cluster: ClusterId::new(0xdef), ..belongs() },
        Belongs { epoch: Epoch::new(1), ..belongs() },
        Belongs { replica: ReplicaId::new(2), ..belongs() },
        Belongs { replicas: 5, ..belongs() },
        Belongs { protocol: "pbft".to_owned(), ..belongs() },
    ];
    for other in others {
        let error = open(disk.clone(), &other, &Tape::default).expect_err("another replica").to_string();
        let (found, expected) = (belongs(), other);
        let sentence = format!(
            "this folder belongs to {found}; the configuration says {expected}. Correct `data_dir` or the configuration"
        );
        assert_eq!(error, sentence);
    }
    let sentence = "R1 of 3 in cluster 00000000000000000000000000000abc, epoch 0, protocol vr";
    assert_eq!(belongs().to_string(), sentence);
}

#[test]
fn an_empty_folder_is_not_a_replica() {
    let error = refused(&SimDisk::new());
    assert!(matches!(error, FolderError::NotFormatted));
    let text = error.to_string();
    assert!(text.contains("`quorate init`") && text.contains("`quorate recover`, never `init`"), "{text}");
}

#[test]
fn a_folder_without_its_superblock_is_not_a_new_one() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    disk.remove("superblock").expect("removes");
    let error = refused(&disk);
    assert!(matches!(error, FolderError::HalfFormatted));
    assert!(error.to_string().contains("keep the folder and run `quorate recover`"), "{error}");
    assert!(matches!(format(&disk, &belongs(), 7), Err(FolderError::Formatted)));
}

#[test]
fn a_superblock_of_another_release_is_not_damage() {
    let disk = SimDisk::new();
    Wal::create(&disk, WalConfig::new(7)).expect("a log");
    Superblock::create(&disk, &[2, 0, 1, 2, 3]).expect("a superblock");
    let error = refused(&disk).to_string();
    assert!(
        error.contains("version 2, this program knows 1") && error.contains("use the release that wrote it"),
        "{error}"
    );
}

#[test]
fn a_superblock_of_which_nothing_is_left_says_recover() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    for copy in 0..4 {
        disk.flip_bit("superblock", copy * 4096 + 40, 1);
    }
    let error = refused(&disk).to_string();
    assert!(error.contains("all 4 copies of the superblock are damaged"), "{error}");
}

#[test]
fn a_log_that_is_gone_is_not_a_new_one() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    for file in disk.list("wal").expect("lists") {
        disk.remove(&format!("wal/{file}")).expect("removes");
    }
    let error = refused(&disk).to_string();
    assert!(error.contains("the log is gone") && error.contains("recover the replica from its peers"), "{error}");
}

#[test]
fn repairs_are_told_to_people() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    disk.flip_bit("superblock", 40, 1);
    let mut first = opened(&disk);
    assert_eq!(first.findings, ["1 of 4 copies of the superblock were damaged and repaired"]);
    for body in [b"one", b"two", b"six"] {
        first.wal.append(kept(Class::Entry), body).expect("appends");
        first.wal.sync().expect("syncs");
    }
    drop(first);
    let name = format!("wal/{}", disk.list("wal").expect("lists")[0]);
    disk.flip_bit(&name, 8192 + 40, 1);
    let findings = opened(&disk).findings;
    assert_eq!(findings, ["one of two copies of record 1 of the log, or of its header, was damaged and rewritten"]);
    disk.flip_bit(&name, 8192 + 88, 1);
    let findings = opened(&disk).findings;
    assert_eq!(findings, ["record 1 of the log cannot be read; the protocol repairs it from the others"]);
}

#[test]
fn a_damaged_snapshot_gives_way_to_an_older_one_and_then_to_a_new_machine() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    let mut first = opened(&disk);
    let (old, new) = (save(&mut first.snapshots, 5), save(&mut first.snapshots, 7));
    assert_eq!(first.snapshots.checkpoints(), Ok(vec![old, new]));
    drop(first);
    assert_eq!(opened(&disk).checkpoint, Some(new));

    disk.flip_bit("snapshots/0000000000000007.snap", 1_500_000, 3);
    let second = opened(&disk);
    assert_eq!((second.checkpoint, second.executor.digest()), (Some(old), machine(5).digest()));
    assert_eq!(second.findings.len(), 1);
    assert!(second.findings[0].contains("snapshot 7 cannot be used"), "{:?}", second.findings);
    drop(second);

    disk.flip_bit("snapshots/0000000000000005.snap", 10, 3);
    let third = opened(&disk);
    assert_eq!((third.checkpoint, third.executor.op(), third.findings.len()), (None, OpNumber::ZERO, 2));
}

#[test]
fn a_snapshot_that_is_whole_but_lies_is_not_restored() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    let (mut manifest, chunks) = sent(5);
    manifest.digest = Digest::of(b"another state");
    let mut first = opened(&disk);
    assert_eq!(first.snapshots.prepare(&manifest).expect("prepares").len(), chunks.len());
    for (index, chunk) in (0..).zip(&chunks) {
        first.snapshots.put(manifest.checkpoint(), index, chunk).expect("puts");
    }
    first.snapshots.finish(manifest.checkpoint()).expect("finishes");
    drop(first);
    let second = opened(&disk);
    assert_eq!(second.checkpoint, None);
    assert!(second.findings[0].contains("its state is not the one that its manifest names"), "{:?}", second.findings);
}

#[test]
fn a_snapshot_from_a_peer_is_resumed_after_a_restart() {
    let disk = SimDisk::new();
    format(&disk, &belongs(), 7).expect("formats");
    let (manifest, chunks) = sent(8);
    let checkpoint = manifest.checkpoint();
    assert!(chunks.len() >= 3);
    let mut first = opened(&disk);
    first.snapshots.prepare(&manifest).expect("prepares");
    first.snapshots.put(checkpoint, 1, &chunks[1]).expect("puts");
    let stranger = Checkpoint { op: OpNumber::new(8), id: Digest::of(b"another") };
    let unasked = first.snapshots.put(stranger, 0, &chunks[0]);
    assert!(matches!(unasked, Err(SnapshotsError::Unusable { .. })));
    drop(first);
    disk.kill();

    let mut second = opened(&disk);
    let missing = second.snapshots.prepare(&manifest).expect("prepares");
    assert!(!missing.contains(&1) && missing.len() == chunks.len() - 1, "{missing:?}");
    let early = second.snapshots.finish(checkpoint);
    assert!(matches!(early, Err(SnapshotsError::Unusable { .. })));
    let missing = second.snapshots.prepare(&manifest).expect("prepares again");
    for index in missing {
        second.snapshots.put(checkpoint, index, &chunks[index as usize]).expect("puts");
    }
    second.snapshots.finish(checkpoint).expect("finishes");
    let (loaded, mut chunks) = second.snapshots.load(checkpoint).expect("loads");
    let restored = Executor::<Tape>::restore(&loaded, chunks.as_mut()).expect("restores");
    assert_eq!(restored.digest(), machine(8).digest());
}

#[test]
fn peers_read_snapshots_until_they_are_forgotten() {
    let disk = SimDisk::new();
    let mut snapshots = Snapshots::open(&disk).expect("opens");
    let (old, new) = (save(&mut snapshots, 3), save(&mut snapshots, 6));
    let (manifest, chunks) = sent(3);
    assert_eq!(old, manifest.checkpoint());
    assert_eq!(snapshots.read(old, Part::Manifest), Some(manifest.encode().into()));
    assert_eq!(snapshots.read(old, Part::Chunk(0)), Some(chunks[0].clone().into()));
    assert_eq!(snapshots.read(old, Part::Chunk(99)), None);
    let other = Checkpoint { id: new.id, ..old };
    assert_eq!(snapshots.read(other, Part::Manifest), None);
    snapshots.forget(new.op).expect("forgets");
    assert_eq!(snapshots.read(old, Part::Manifest), None);
    assert!(snapshots.read(new, Part::Manifest).is_some());
    assert_eq!(snapshots.checkpoints(), Ok(vec![new]));
}

#[test]
fn a_fetch_that_is_replaced_leaves_nothing_behind() {
    let disk = SimDisk::new();
    let mut snapshots = Snapshots::open(&disk).expect("opens");
    let ((first, chunks), (second, _)) = (sent(5), sent(6));
    snapshots.prepare(&first).expect("prepares");
    snapshots.put(first.checkpoint(), 0, &chunks[0]).expect("puts");
    snapshots.prepare(&second).expect("prepares");
    assert_eq!(disk.list("snapshots").expect("lists"), ["0000000000000006.part"]);
}
