//! Blocks that the leader fills by itself: each brings 4,000 operations of the leader's machine, as an exchange's or a rollup's
//! would, beside one request of a client. How many a second go through consensus and every disk?
//!
//! `cargo run --release -p quorate --example blocks -- [SECONDS] [BYTES]`; BYTES of an operation, 32.

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::{At, Consistency, HotStuff, Local, Output, Small, hotstuff};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Operations of a block.
const OPERATIONS: usize = 4_000;

#[derive(Clone, BorshSerialize, BorshDeserialize)]
struct Filler {
    bytes: u32,
    /// Operations applied, and a sum over all of their bytes: what every replica must agree on.
    applied: u64,
    sum: u64,
}

impl Small for Filler {
    fn propose(&self, _at: &At, _operations: &[quorate::Bytes]) -> Option<Vec<u8>> {
        let operation = |number: u64| (0..u64::from(self.bytes)).map(move |at| (number.wrapping_mul(31) ^ at) as u8);
        Some((0..OPERATIONS as u64).flat_map(|number| operation(self.applied + number)).collect())
    }

    fn proposed(&mut self, _at: &At, made: &[u8], _out: &mut Output) {
        let operations = made.chunks_exact(self.bytes as usize);
        for operation in operations {
            let sum = operation.iter().fold(self.sum, |sum, byte| sum.rotate_left(5) ^ u64::from(*byte));
            (self.applied, self.sum) = (self.applied + 1, sum);
        }
    }

    fn apply(&mut self, _at: &At, _operation: &[u8], out: &mut Output) {
        out.reply(b"done");
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.applied.to_string().as_bytes());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let argument = |at| std::env::args().nth(at).and_then(|it| it.parse().ok());
    let (seconds, bytes) = (argument(1).unwrap_or(3), argument(2).unwrap_or(32).max(1));
    let config = hotstuff::Config { run_ahead: 3, block_requests: 1, ..hotstuff::Config::default() };
    let machine = move || Filler { bytes: u32::try_from(bytes).unwrap_or(32), applied: 0, sum: 0 };
    let cluster = Local::start::<HotStuff, _>(4, config, machine)?;
    let stop = AtomicBool::new(false);
    let clients: Vec<_> = (0..8).map(|_| cluster.client::<HotStuff>()).collect::<Result<_, _>>()?;
    let begun = Instant::now();
    thread::scope(|scope| {
        for client in &clients {
            scope.spawn(|| while client.apply("").is_ok() && !stop.load(Ordering::Relaxed) {});
        }
        thread::sleep(Duration::from_secs(seconds));
        stop.store(true, Ordering::Relaxed);
    });
    let took = begun.elapsed().as_secs_f64();
    let answer = clients[0].read(Consistency::Linearizable, "")?;
    let applied: f64 = String::from_utf8_lossy(&answer.reply).parse()?;
    println!(
        "{:.0} operations of {bytes} bytes a second, in {:.0} blocks",
        applied / took,
        applied / OPERATIONS as f64
    );
    Ok(())
}
