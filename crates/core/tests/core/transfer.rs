//! State transfer: a fetch survives whatever the source, the network and our own disk do.

use crate::support::{Act, Stage, replica, short};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::executor::{CHUNK_BYTES, Done, Manifest};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::{OpNumber, Position, ReplicaId};
use quorate_core::machine::Corrupt;
use quorate_core::node::{Input, Part, Payload, READS_MAX};
use quorate_core::time::{Duration, Instant};
use quorate_core::transfer::{ATTEMPTS_MAX, Fetch, Message, RETRY, STRETCH, STRETCH_CHUNKS, Step};
use std::collections::BTreeSet;

fn chunk(index: u32) -> Bytes {
    Bytes::from(vec![index as u8; if index == 2 { 10 } else { CHUNK_BYTES }])
}

/// A snapshot at `op` of three chunks.
fn manifest(op: u64) -> Manifest {
    let chunks = (0..3).map(|index| Digest::of(&chunk(index))).collect();
    let length = 2 * CHUNK_BYTES as u64 + 10;
    Manifest { op: OpNumber::new(op), position: Position::new(op), digest: Digest::ZERO, length, chunks }
}

fn missing() -> BTreeSet<u32> {
    (0..3).collect()
}

fn send(stage: &mut Stage, message: Message) -> Vec<String> {
    short(&stage.payload(replica(0), &Payload::Transfer(message)))
}

/// A node that fetches the checkpoint at `op` from replica 0 and has asked the store to get ready.
fn fetching(op: u64) -> Stage {
    let mut stage = Stage::new();
    stage.tell(&[Act::Fetch(op, manifest(op).checkpoint().id, 0)]);
    assert_eq!(send(&mut stage, Message::Manifest(manifest(op))), ["prepare"]);
    stage
}

/// The same, with every chunk stored.
fn fetched(op: u64) -> Stage {
    let mut stage = fetching(op);
    stage.input(Input::Prepared(manifest(op), missing()));
    let checkpoint = manifest(op).checkpoint();
    for index in 0..3 {
        send(&mut stage, Message::Chunk(checkpoint, index, chunk(index)));
    }
    stage
}

#[test]
fn a_fetch_asks_for_the_manifest_then_for_the_chunks_that_the_store_lacks() {
    let mut stage = fetching(10);
    let asked = short(&stage.input(Input::Prepared(manifest(10), BTreeSet::from([2]))));
    assert_eq!(asked, ["send GetChunk to One(Replica(ReplicaId(0)))"]);
    let checkpoint = manifest(10).checkpoint();
    assert_eq!(send(&mut stage, Message::Chunk(checkpoint, 2, chunk(2))), ["put 2", "finish 10"]);
    assert_eq!(short(&stage.input(Input::Stored(checkpoint))), ["install 10"]);
}

#[test]
fn a_busy_disk_of_our_own_does_not_fail_a_fetch() {
    let mut stage = fetched(10);
    for _ in 0..=ATTEMPTS_MAX * 2 {
        stage.later(RETRY.as_millis() as u64);
        stage.input(Input::Timers);
    }
    assert!(stage.heard().is_empty(), "{:?}", stage.heard());
    assert_eq!(short(&stage.input(Input::Stored(manifest(10).checkpoint()))), ["install 10"]);
}

#[test]
fn a_silent_source_fails_a_fetch() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Fetch(10, manifest(10).checkpoint().id, 0)]);
    for _ in 0..=ATTEMPTS_MAX {
        stage.later(RETRY.as_millis() as u64);
        stage.input(Input::Timers);
    }
    assert_eq!(stage.heard(), ["fetch failed 10"]);
    assert_eq!(stage.node.deadline(), None);
}

/// A fetch of many chunks whose source gives one each `pause`, at the rings in between the fetch looks: how many had come when it failed, and
/// for how long, if it did before all were there.
fn dripped(pause: Duration) -> Option<(u32, Duration)> {
    const CHUNKS: u32 = 200;
    let chunks = vec![Digest::of(&chunk(0)); CHUNKS as usize];
    let manifest = Manifest { length: u64::from(CHUNKS) * CHUNK_BYTES as u64, chunks, ..manifest(10) };
    let began = Instant::from_nanos(0);
    let (mut fetch, _) = Fetch::new(manifest.checkpoint(), ReplicaId::new(0), began);
    fetch.on_manifest(manifest.clone(), began);
    fetch.on_prepared(manifest, (0..CHUNKS).collect(), began);
    let mut now = began;
    for index in 0..CHUNKS {
        let next = now.plus(pause);
        while fetch.deadline() < next {
            now = fetch.deadline();
            if fetch.on_deadline(now) == [Step::Fail] {
                return Some((index, now.since(began)));
            }
        }
        now = next;
        assert!(matches!(fetch.on_chunk(index, chunk(0), now).first(), Some(Step::Put(..))));
    }
    None
}

#[test]
fn a_source_that_gives_a_chunk_now_and_then_is_left_after_a_while_and_a_slow_one_is_not() {
    let (came, after) = dripped(RETRY.saturating_mul(6)).expect("it is left");
    assert!(came < STRETCH_CHUNKS && after < STRETCH.saturating_mul(2), "{came} chunks in {after:?}");
    assert_eq!(dripped(RETRY.saturating_mul(3) / 2), None, "a chunk in each three quarters of a second is enough");
}

#[test]
fn the_answer_to_an_earlier_question_does_not_fail_a_fetch() {
    let mut stage = Stage::new();
    stage.tell(&[Act::Fetch(10, manifest(10).checkpoint().id, 0)]);
    stage.tell(&[Act::Fetch(20, manifest(20).checkpoint().id, 0)]);
    assert!(send(&mut stage, Message::Manifest(manifest(10))).is_empty());
    assert!(stage.heard().is_empty());
    assert_eq!(send(&mut stage, Message::Manifest(manifest(20))), ["prepare"]);
}

#[test]
fn a_source_that_sends_wrong_bytes_is_blamed() {
    let mut stage = fetching(10);
    stage.input(Input::Prepared(manifest(10), missing()));
    send(&mut stage, Message::Chunk(manifest(10).checkpoint(), 1, chunk(0)));
    assert_eq!(stage.heard(), ["fetch failed 10"]);
    assert!(matches!(stage.node.ledger().last(), Some((from, Fault::WrongBytes(_))) if *from == replica(0)));
}

#[test]
fn the_store_is_asked_to_finish_once_even_if_it_was_prepared_twice() {
    let checkpoint = manifest(10).checkpoint();
    let (mut fetch, _) = Fetch::new(checkpoint, ReplicaId::new(0), Instant::default());
    let now = Instant::default();
    fetch.on_manifest(manifest(10), now);
    assert_eq!(fetch.on_prepared(manifest(10), BTreeSet::new(), now), [Step::Finish(checkpoint)]);
    assert!(fetch.on_prepared(manifest(10), BTreeSet::new(), now).is_empty());
}

fn installed(op: u64) -> Input {
    Input::Done(Done::Installed { checkpoint: manifest(op).checkpoint(), error: None, wake: None })
}

#[test]
fn a_checkpoint_that_the_protocol_no_longer_wants_is_not_installed() {
    let mut stage = fetched(10);
    stage.tell(&[Act::Fetch(20, manifest(20).checkpoint().id, 0)]);
    assert!(short(&stage.input(Input::Stored(manifest(10).checkpoint()))).is_empty());
    assert_eq!(send(&mut stage, Message::Manifest(manifest(20))), ["prepare"]);
}

#[test]
fn an_installation_that_could_not_be_stopped_is_told_and_leaves_the_new_fetch_alone() {
    let mut stage = fetched(10);
    stage.input(Input::Stored(manifest(10).checkpoint()));
    stage.tell(&[Act::Fetch(20, manifest(20).checkpoint().id, 0)]);
    stage.input(installed(10));
    assert_eq!(stage.heard(), ["installed 10"]);
    assert_eq!(send(&mut stage, Message::Manifest(manifest(20))), ["prepare"]);
}

#[test]
fn a_failed_installation_does_not_fail_the_fetch_that_replaced_it() {
    let mut stage = fetched(10);
    stage.input(Input::Stored(manifest(10).checkpoint()));
    stage.tell(&[Act::Fetch(20, manifest(20).checkpoint().id, 0)]);
    let error = Some(Corrupt("bad".to_owned()));
    stage.input(Input::Done(Done::Installed { checkpoint: manifest(10).checkpoint(), error, wake: None }));
    assert!(stage.heard().is_empty());
    assert_eq!(send(&mut stage, Message::Manifest(manifest(20))), ["prepare"]);
}

#[test]
fn executions_asked_for_during_an_installation_are_void_if_it_succeeds_and_done_if_it_fails() {
    let mut stage = fetched(10);
    assert_eq!(short(&stage.tell(&[Act::Execute(1)])), ["run"], "the state is still the old one");
    stage.input(Input::Stored(manifest(10).checkpoint()));
    assert!(short(&stage.tell(&[Act::Execute(2)])).is_empty());
    assert_eq!(short(&stage.input(installed(10))), ["forget snapshots 10"]);
    assert_eq!(short(&stage.tell(&[Act::Execute(11)])), ["run"]);

    let mut stage = fetched(10);
    stage.input(Input::Stored(manifest(10).checkpoint()));
    stage.tell(&[Act::Execute(2)]);
    assert_eq!(short(&stage.input(Input::Done(Done::Overtaken(manifest(10).checkpoint())))), ["run"]);
    assert_eq!(stage.heard(), ["fetch failed 10"]);
}

/// A node that has a snapshot at entry 10.
fn serving() -> Stage {
    let mut stage = Stage::new();
    stage.input(Input::Saved(manifest(10).checkpoint()));
    stage
}

#[test]
fn asking_for_a_chunk_that_does_not_exist_does_not_withdraw_the_snapshot() {
    let mut stage = serving();
    let checkpoint = manifest(10).checkpoint();
    assert_eq!(send(&mut stage, Message::GetChunk(checkpoint, 1 << 30)), ["read for R0"]);
    stage.input(Input::Read { to: ReplicaId::new(0), checkpoint, part: Part::Chunk(1 << 30), bytes: None });
    assert_eq!(send(&mut stage, Message::GetManifest(checkpoint)), ["read for R0"]);
}

#[test]
fn a_peer_cannot_pile_up_reads() {
    let mut stage = serving();
    let checkpoint = manifest(10).checkpoint();
    for _ in 0..1000 {
        send(&mut stage, Message::GetChunk(checkpoint, 0));
    }
    assert_eq!(stage.node.ledger().ignored().get(&Why::Busy), Some(&(1000 - READS_MAX as u64)));
    let bytes = Some(chunk(0));
    let answered = stage.input(Input::Read { to: ReplicaId::new(0), checkpoint, part: Part::Chunk(0), bytes });
    assert_eq!(short(&answered), ["send Chunk to One(Replica(ReplicaId(0)))"]);
    assert_eq!(send(&mut stage, Message::GetChunk(checkpoint, 0)), ["read for R0"]);
}
