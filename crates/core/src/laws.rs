//! The laws of [`crate::machine`], checked on any machine. A user's test calls [`check`] with operations of its own.

use crate::ids::{Position, SessionId};
use crate::machine::{At, Entropy, Machine, Output, Sink, Source, View};
use crate::time::WallTime;

/// Checks every law on the states that `operations` lead to, starting from `new()`.
///
/// # Errors
/// A sentence that names the broken law and the operation after which it broke.
pub fn check<M: Machine>(new: impl Fn() -> M, operations: &[Vec<u8>], queries: &[Vec<u8>]) -> Result<(), String> {
    let mut first = new();
    let mut second = new();
    for (index, operation) in operations.iter().enumerate() {
        let at = at(index);
        let before = answers(&first, queries);
        let view = first.view();
        if let Some(broken) = forks(&first, &at, operation) {
            return Err(format!("{broken} at operation {index}"));
        }
        if apply(&mut first, &at, operation) != apply(&mut second, &at, operation) {
            return Err(format!("replay gave another reply or event at operation {index}"));
        }
        if first.digest() != second.digest() {
            return Err(format!("replay gave another digest after operation {index}"));
        }
        if before != queries.iter().map(|query| answer(&view, query)).collect::<Vec<_>>() {
            return Err(format!("operation {index} changed a view that was taken before it"));
        }
    }
    let chunks = stream(&first, 4096);
    for piece in [1, 7, 4096] {
        let mut sink = M::rebuild();
        for bytes in chunks.chunks(piece) {
            sink.push(bytes).map_err(|error| format!("restore refused the machine's own snapshot: {error}"))?;
        }
        let restored = sink.finish().map_err(|error| format!("restore refused the machine's own snapshot: {error}"))?;
        if restored.digest() != first.digest() {
            return Err("snapshot then restore gave another digest".to_owned());
        }
        if stream(&restored, 100) != chunks {
            return Err("snapshot then restore gave another snapshot".to_owned());
        }
        if restored.wake() != first.wake() {
            return Err("snapshot then restore gave another wake-up time".to_owned());
        }
        if answers(&restored, queries) != answers(&first, queries) {
            return Err("snapshot then restore gave another answer to a query".to_owned());
        }
    }
    throw_garbage(new(), &chunks, operations, queries)?;
    let mut torn = M::rebuild();
    let half = chunks.get(..chunks.len() / 2).unwrap_or_default();
    let survived = torn.push(half).and_then(|()| torn.finish());
    if !chunks.is_empty() && survived.is_ok_and(|machine| machine.digest() == first.digest()) {
        return Err("half of a snapshot was accepted as the whole".to_owned());
    }
    Ok(())
}

/// A fork is the same state; what is applied to it leaves the state that it was forked from alone, and the other way round.
/// What a leader's machine proposes leaves no trace in either, and has the same effect on both.
fn forks<M: Machine>(machine: &M, at: &At, operation: &[u8]) -> Option<&'static str> {
    let (mut one, mut other) = (machine.fork()?, machine.fork()?);
    let before = machine.digest();
    if one.digest() != before {
        return Some("a fork is another state");
    }
    let made = machine.propose(at, &[operation.to_vec().into()]);
    let mut out = [Output::default(), Output::default()];
    let [first, second] = &mut out;
    if let Some(made) = &made {
        one.proposed(at, made, first);
        other.proposed(at, made, second);
    }
    if apply(&mut one, at, operation) != apply(&mut other, at, operation) || one.digest() != other.digest() {
        return Some("two forks went different ways");
    }
    one.proposed(at, &[0xff; 9], &mut Output::default());
    drop(one);
    (machine.digest() != before).then_some("a fork changed what it was forked from")
}

/// Bent and cut operations, queries and snapshots: a panic fails the test that called [`check`].
fn throw_garbage<M: Machine>(
    mut machine: M,
    snapshot: &[u8],
    operations: &[Vec<u8>],
    queries: &[Vec<u8>],
) -> Result<(), String> {
    for (index, garbage) in operations.iter().chain(queries).flat_map(|bytes| bent(bytes)).enumerate() {
        answer(&machine.view(), &garbage);
        apply(&mut machine, &at(index), &garbage);
    }
    for bytes in bent(snapshot) {
        let mut sink = M::rebuild();
        if sink.push(&bytes).and_then(|()| sink.finish()).is_ok_and(|machine| stream(&machine, 4096) != bytes) {
            return Err("bytes that are no machine's snapshot were accepted as one".to_owned());
        }
    }
    Ok(())
}

/// Some of the ways in which bytes can be wrong.
fn bent(bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut all = vec![Vec::new(), vec![0xff; 64], [bytes, &[0]].concat()];
    for index in (0..bytes.len()).step_by(bytes.len().div_ceil(64).max(1)) {
        all.push(bytes.get(..index).unwrap_or_default().to_vec());
        for bit in [0x01, 0x80, 0xff] {
            let mut wrong = bytes.to_vec();
            if let Some(byte) = wrong.get_mut(index) {
                *byte ^= bit;
            }
            all.push(wrong);
        }
    }
    all
}

fn at(index: usize) -> At {
    let number = index as u64 + 1;
    At {
        position: Position::new(number),
        time: WallTime::from_nanos(number.saturating_mul(1_000_000_000)),
        session: SessionId::new(1),
        entropy: Entropy::Position(Position::new(number)),
    }
}

type Effects = (Vec<u8>, Vec<(u32, Vec<u8>)>);

fn apply<M: Machine>(machine: &mut M, at: &At, operation: &[u8]) -> Effects {
    let mut out = Output::default();
    machine.apply(at, operation, &mut out);
    if machine.wake().is_some_and(|time| time <= at.time) {
        machine.tick(at, &mut out);
    }
    out.take()
}

fn answer(view: &impl View, query: &[u8]) -> Vec<u8> {
    let mut reply = Vec::new();
    view.query(query, &mut reply);
    reply
}

fn answers<M: Machine>(machine: &M, queries: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let view = machine.view();
    queries.iter().map(|query| answer(&view, query)).collect()
}

fn stream<M: Machine>(machine: &M, chunk: usize) -> Vec<u8> {
    let mut source = machine.snapshot();
    let mut bytes = Vec::new();
    while source.next(chunk, &mut bytes) {}
    bytes
}
