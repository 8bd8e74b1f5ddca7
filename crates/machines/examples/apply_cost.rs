//! What one put costs: 16-byte keys, 256-byte values, on a store of 100,000 keys, in history as it grows.
//!
//! `cargo run --release -p quorate-machines --example apply_cost`

use quorate_core::ids::{Position, SessionId};
use quorate_core::machine::{At, Entropy, Output, Query as _, Snapshot, Source, StateMachine, View};
use quorate_core::time::WallTime;
use quorate_machines::Kv;
use quorate_machines::kv::{Operation, Query};

const KEYS: u64 = 100_000;
const PUTS: u64 = 300_000;

#[expect(clippy::disallowed_types, reason = "an example measures; the machine has no clock")]
type Clock = std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut kv = Kv::new();
    let fill = operations(KEYS, |index| index)?;
    report("put, new key", &mut kv, &fill, 0);
    let random = operations(PUTS, |index| index.wrapping_mul(0x9e37_79b9_7f4a_7c15) % KEYS)?;
    report("put, random key", &mut kv, &random, 0);
    report("put, a view every 100", &mut kv, &random, 100);
    report("put, a view every put", &mut kv, &random, 1);
    let compact = Operation::Compact { revision: revision(&kv)? }.encode()?;
    report("compact all of that", &mut kv, &[compact], 0);
    report("put, random key, compacted", &mut kv, &random, 0);

    let view = kv.view();
    let gets = (0..KEYS).map(|index| Query::get(key(index)).encode()).collect::<Result<Vec<_>, _>>()?;
    let (start, mut reply) = (Clock::now(), Vec::new());
    for get in &gets {
        reply.clear();
        view.query(get, &mut reply);
    }
    println!("{:<28} {:>8} ns", "get", start.elapsed().as_nanos() / u128::from(KEYS));

    let (start, mut source, mut bytes, mut total) = (Clock::now(), kv.snapshot(), Vec::new(), 0);
    while source.next(1 << 20, &mut bytes) {
        total += bytes.len();
        bytes.clear();
    }
    println!("{:<28} {:>8} ms for {} MB", "snapshot", start.elapsed().as_millis(), total / 1_000_000);
    Ok(())
}

fn key(index: u64) -> Vec<u8> {
    format!("key-{index:012}").into_bytes()
}

fn operations(count: u64, key_of: impl Fn(u64) -> u64) -> Result<Vec<Vec<u8>>, quorate_machines::kv::KvError> {
    (0..count).map(|index| Operation::put(key(key_of(index)), vec![b'v'; 256]).encode()).collect()
}

fn revision(kv: &Kv) -> Result<i64, Box<dyn std::error::Error>> {
    let mut reply = Vec::new();
    kv.view().query(&Query::Status.encode()?, &mut reply);
    Ok(quorate_machines::kv::Reply::decode(&reply)?.revision)
}

/// Applies all operations and prints nanoseconds for each. Takes a view after every `view_every`; 0: never.
fn report(what: &str, kv: &mut Kv, operations: &[Vec<u8>], view_every: usize) {
    let (start, mut view) = (Clock::now(), None);
    for (index, operation) in operations.iter().enumerate() {
        let at = At {
            position: Position::new(index as u64),
            time: WallTime::from_nanos(1),
            session: SessionId::new(1),
            entropy: Entropy::Bytes([0; 32]),
        };
        let mut out = Output::default();
        kv.apply(&at, operation, &mut out);
        std::hint::black_box(out.take());
        if view_every > 0 && index % view_every == 0 {
            view = Some(kv.view());
        }
    }
    drop(view);
    println!("{what:<28} {:>8} ns", start.elapsed().as_nanos() / operations.len() as u128);
}
