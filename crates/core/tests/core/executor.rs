//! The executor: snapshots are cut the same way everywhere, and a state never goes back.

use borsh::BorshDeserialize;
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{CHUNK_BYTES, Chunks, Done, Executor, Job, Manifest};
use quorate_core::ids::{ClientId, OpNumber, Peer, Position, RequestNumber, SessionId};
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use quorate_core::objects::{self, Objects, Step};
use quorate_core::sessions::{Batch, Body, Request, Ruling};
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use std::collections::BTreeMap;

/// Keeps every operation, and says how many bytes it holds; a query is its own answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tape(Vec<u8>);

impl StateMachine for Tape {
    fn apply(&mut self, _: &At, operation: &[u8], out: &mut Output) {
        self.0.extend_from_slice(operation);
        out.reply(&self.0.len().to_le_bytes());
    }
    /// Operations that begin with a 7 are quick.
    fn is_quick(&self, operation: &[u8]) -> bool {
        matches!(operation, [7, ..])
    }
    fn objects(_: &[u8]) -> Objects {
        Objects::One(Bytes::from_static(b"tape"))
    }
    fn digest(&self) -> Digest {
        Digest::of(&self.0)
    }
}

impl View for Tape {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(query);
    }
}

impl Query for Tape {
    type View = Self;
    fn view(&self) -> Self {
        self.clone()
    }
}

struct Rest(Vec<u8>);

impl Sink<Tape> for Rest {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(self) -> Result<Tape, Corrupt> {
        Ok(Tape(self.0))
    }
}

impl Snapshot for Tape {
    type Source = Whole;
    type Sink = Rest;
    fn snapshot(&self) -> Whole {
        Whole::new(self.0.clone())
    }
    fn rebuild() -> Rest {
        Rest(Vec::new())
    }
}

struct Stored(Vec<Vec<u8>>);

impl Chunks for Stored {
    fn chunk(&mut self, index: u32) -> Result<Vec<u8>, String> {
        self.0.get(index as usize).cloned().ok_or_else(|| "missing".to_owned())
    }
}

fn request(session: u64, number: u64, body: Body) -> Request {
    let (client, session) = (ClientId::new(9), SessionId::new(session));
    Request { client, session, number: RequestNumber::new(number), acknowledged: RequestNumber::ZERO, body }
}

fn execute(executor: &mut Executor<Tape>, op: u64, requests: Vec<Request>) -> Vec<Ruling> {
    let batch = Batch { time: WallTime::from_nanos(op), tick: false, requests }.encode().into();
    match executor.run(Job::Execute { op: OpNumber::new(op), batch }) {
        Done::Executed { outcome, .. } => outcome.replies.into_iter().map(|reply| reply.ruling).collect(),
        _ => panic!("an execution is answered with what it came to"),
    }
}

/// An executor whose tape holds `length` bytes, after two entries.
fn tape(length: usize) -> Executor<Tape> {
    let mut executor = Executor::new(Tape::default());
    execute(&mut executor, 1, vec![request(0, 1, Body::Register)]);
    execute(&mut executor, 2, vec![request(1, 1, Body::Apply(vec![5; length].into()))]);
    executor
}

fn save(executor: &mut Executor<Tape>) -> (Manifest, Vec<Vec<u8>>) {
    let Done::Saving(mut save) = executor.run(Job::Checkpoint(executor.op())) else { panic!("a checkpoint is saved") };
    let chunks: Vec<_> = std::iter::from_fn(|| save.next_chunk()).collect();
    (save.finish(), chunks)
}

#[test]
fn a_snapshot_is_restored_whatever_side_of_a_chunk_its_end_falls_on() {
    let head = save(&mut tape(0)).0.length as usize;
    for length in [0, 1, CHUNK_BYTES - head - 1, CHUNK_BYTES - head, CHUNK_BYTES - head + 1, 3 * CHUNK_BYTES] {
        let mut executor = tape(length);
        let (manifest, chunks) = save(&mut executor);
        assert!(manifest.is_consistent(), "{length}");
        for (index, chunk) in (0..).zip(&chunks) {
            assert_eq!(manifest.chunk_len(index), chunk.len(), "{length}");
        }
        let restored = Executor::<Tape>::restore(&manifest, &mut Stored(chunks)).expect("its own snapshot");
        assert_eq!(restored.digest(), executor.digest());
        assert_eq!(restored.machine(), executor.machine());
    }
}

#[test]
fn a_head_longer_than_a_chunk_is_restored() {
    let mut executor = tape(1);
    for number in 2..8 {
        let long = Body::Query(vec![0; CHUNK_BYTES / 2].into());
        execute(&mut executor, number + 1, vec![request(1, number, long)]);
    }
    let (manifest, chunks) = save(&mut executor);
    assert!(chunks.len() > 3, "the replies alone take three chunks");
    let restored = Executor::<Tape>::restore(&manifest, &mut Stored(chunks)).expect("its own snapshot");
    assert_eq!(restored.digest(), executor.digest());
}

#[test]
fn a_damaged_or_foreign_snapshot_is_refused_and_changes_nothing() {
    let (manifest, chunks) = save(&mut tape(3 * CHUNK_BYTES));
    let mut executor = Executor::new(Tape::default());
    let before = executor.digest();
    for index in 0..chunks.len() {
        let mut bent = chunks.clone();
        bent[index][7] ^= 1;
        let Done::Installed { error: Some(_), .. } =
            executor.run(Job::Install { manifest: manifest.clone(), chunks: Box::new(Stored(bent)) })
        else {
            panic!("chunk {index} was bent")
        };
    }
    let bytes = Bytes::from_static(&[0xff; 40]);
    let foreign = Manifest { chunks: vec![Digest::of(&bytes)], length: 40, ..manifest };
    let chunks = Box::new(Stored(vec![bytes.to_vec()]));
    assert!(matches!(executor.run(Job::Install { manifest: foreign, chunks }), Done::Installed { error: Some(_), .. }));
    assert_eq!(executor.digest(), before);
}

#[test]
fn a_checkpoint_that_the_machine_has_overtaken_is_not_installed() {
    let (manifest, chunks) = save(&mut tape(5));
    let mut executor = tape(5);
    execute(&mut executor, 3, vec![request(1, 2, Body::Apply(Bytes::from_static(b"more")))]);
    let done = executor.run(Job::Install { manifest: manifest.clone(), chunks: Box::new(Stored(chunks)) });
    assert!(matches!(done, Done::Overtaken(checkpoint) if checkpoint == manifest.checkpoint()));
    assert_eq!(executor.op(), OpNumber::new(3));
}

#[test]
fn bytes_that_are_no_batch_are_an_empty_batch() {
    let mut executor = tape(1);
    let before = executor.digest();
    let garbage = Bytes::from_static(&[9; 21]);
    assert!(Batch::try_from_slice(&garbage).is_err());
    executor.run(Job::Execute { op: OpNumber::new(3), batch: garbage });
    assert_eq!((executor.op(), executor.digest()), (OpNumber::new(3), before));
}

#[test]
fn a_quick_batch_comes_to_the_same_on_either_thread() {
    let operations = || vec![request(1, 2, Body::Apply(vec![7; 3].into())), request(1, 3, Body::Apply(vec![7].into()))];
    let batch = || Batch { time: WallTime::from_nanos(3), tick: false, requests: operations() };
    let (mut slow, mut quick) = (tape(1), tape(1));
    let rulings = execute(&mut slow, 3, operations());
    let done = quick.run_quick(Job::Execute { op: OpNumber::new(3), batch: batch().encode().into() });
    let Ok(Done::Executed { op, outcome }) = done else { panic!("every operation of the batch is quick") };
    assert_eq!(op, OpNumber::new(3));
    assert_eq!(outcome.replies.into_iter().map(|reply| reply.ruling).collect::<Vec<_>>(), rulings);
    assert_eq!(quick.digest(), slow.digest());
}

#[test]
fn whatever_may_take_long_is_given_back_untouched() {
    let quick = || request(1, 2, Body::Apply(vec![7].into()));
    let batch = |tick, requests| Batch { time: WallTime::from_nanos(3), tick, requests };
    let refused = [
        batch(false, vec![quick(), request(1, 3, Body::Apply(vec![8].into()))]),
        batch(false, vec![request(1, 2, Body::Query(vec![7].into()))]),
        batch(true, vec![quick()]),
        batch(false, (0..9).map(|_| quick()).collect()),
        batch(false, vec![request(1, 2, Body::Apply(vec![7; 17 << 10].into()))]),
    ];
    for batch in refused {
        let mut executor = tape(1);
        let before = executor.digest();
        let bytes: Bytes = batch.encode().into();
        let back = executor.run_quick(Job::Execute { op: OpNumber::new(3), batch: bytes.clone() });
        let Err(Job::Execute { op, batch: back }) = back else { panic!("{batch:?} is not quick") };
        assert_eq!((op, back), (OpNumber::new(3), bytes));
        assert_eq!(executor.digest(), before);
    }
}

/// A write of the tape as its third step.
fn write(operations: &[&[u8]]) -> Job {
    let operations = operations.iter().map(|it| Bytes::copy_from_slice(it)).collect();
    let step = Step::Apply { object: Bytes::from_static(b"tape"), at: Position::new(1), operations };
    Job::Step { op: OpNumber::new(3), step }
}

#[test]
fn a_write_of_an_object_is_its_operations_in_order_and_comes_to_the_same_on_either_thread() {
    let operations: [&[u8]; 3] = [&[7, 1], &[7], &[7, 3, 3]];
    let (mut slow, mut quick) = (tape(1), tape(1));
    let before = slow.machine().0.clone();
    let Done::Stepped { stepped, .. } = slow.run(write(&operations)) else { panic!("a step") };
    let Ok(Done::Stepped { op, stepped: same }) = quick.run_quick(write(&operations)) else { panic!("all is quick") };
    assert_eq!(slow.machine().0, [before.clone(), operations.concat()].concat());
    let lengths = [2, 3, 6].map(|more| Bytes::copy_from_slice(&(before.len() + more).to_le_bytes()));
    assert_eq!((stepped.replies.as_slice(), op), (&lengths[..], OpNumber::new(3)));
    assert_eq!((same, quick.digest()), (stepped, slow.digest()));
}

#[test]
fn a_write_of_an_object_that_may_take_long_is_given_back_untouched() {
    let (long, put) = (vec![7; 17 << 10], Step::Put { object: Bytes::from_static(b"tape"), image: None });
    let slow =
        [write(&[&[7], &[8]]), write(&[&[7][..]; 9]), write(&[&long]), Job::Step { op: OpNumber::new(3), step: put }];
    for job in slow {
        let mut executor = tape(1);
        let before = executor.digest();
        assert!(executor.run_quick(job).is_err());
        assert_eq!(executor.digest(), before);
    }
}

#[test]
fn every_operation_of_a_write_draws_bytes_of_its_own() {
    let at = |position, index| objects::entropy(b"tape", Position::new(position), index);
    let drawn = [at(1, 0), at(1, 1), at(2, 0), at(2, 1), objects::entropy(b"other", Position::new(1), 0)];
    assert_eq!(drawn.iter().collect::<std::collections::BTreeSet<_>>().len(), drawn.len());
}

/// The states after earlier entries that this one would report.
fn milestones(executor: &mut Executor<Tape>) -> BTreeMap<u64, Digest> {
    let done = executor.run(Job::Digest { to: Peer::Client(ClientId::new(1)), nonce: 0 });
    let Done::Digest { milestones, .. } = done else { panic!("a digest") };
    milestones.into_iter().map(|(op, digest)| (op.get(), digest)).collect()
}

#[test]
fn states_after_every_64th_and_4096th_entry_tell_replicas_that_differ_whatever_entry_each_is_asked_after() {
    // So many entries; the tape of one of them is another one from an entry on.
    let run = |through: u64, differs_at: u64| {
        let mut executor = tape(1);
        for op in 3..=through {
            let operation = Body::Apply(vec![u8::from(op == differs_at)].into());
            let requests = if op == 39_700 { vec![request(1, 2, operation)] } else { Vec::new() };
            execute(&mut executor, op, requests);
        }
        milestones(&mut executor)
    };
    let (one, ahead, other) = (run(40_000, 0), run(40_030, 0), run(40_100, 39_700));
    let near = (39_552..=40_000).step_by(64);
    let far = (8_192..=36_864).step_by(4_096);
    assert_eq!(one.keys().copied().collect::<Vec<_>>(), far.chain(near).collect::<Vec<_>>());
    assert_eq!(one, ahead, "the next one is after entry 40,064");
    let same = |op: &u64| one[op] == other[op];
    let common: Vec<u64> = one.keys().copied().filter(|op| other.contains_key(op)).collect();
    assert!(common.iter().all(|op| same(op) == (*op < 39_700)), "{common:?}");
    assert!(common.contains(&39_744) && common.contains(&36_864));
}
