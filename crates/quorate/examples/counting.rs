//! The smallest machine with a leader that runs ahead: each proposal counts one on. A machine that speculates wrongly
//! (builds on a block that has lost, or forgets one that was committed) names a number twice, or skips one; here that would
//! show. `cargo run -p quorate --example counting`

use quorate::borsh::{BorshDeserialize, BorshSerialize, to_vec};
use quorate::{At, Consistency, HotStuff, Local, Output, ReplicaId, Small, hotstuff};

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Counting {
    /// The last number that a leader's machine has proposed.
    number: u64,
    /// Proposals that were not the next number.
    wrong: u64,
    requests: u64,
}

impl Small for Counting {
    fn propose(&self, _at: &At, _operations: &[quorate::Bytes]) -> Option<Vec<u8>> {
        to_vec(&(self.number + 1)).ok() // this runs on a state that nobody may have committed yet
    }

    fn proposed(&mut self, _at: &At, made: &[u8], _out: &mut Output) {
        let next = u64::try_from_slice(made).ok().filter(|number| *number == self.number + 1);
        match next {
            Some(number) => self.number = number,
            None => self.wrong += 1,
        }
    }

    fn apply(&mut self, _at: &At, _operation: &[u8], out: &mut Output) {
        self.requests += 1;
        out.reply(self.number.to_string().as_bytes());
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        let Self { number, wrong, requests } = self;
        reply.extend_from_slice(format!("{requests} requests in {number} proposals, {wrong} out of order").as_bytes());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let config = hotstuff::Config { run_ahead: 3, block_requests: 1, ..hotstuff::Config::default() };
    let mut cluster = Local::start::<HotStuff, _>(4, config, Counting::default)?;
    let client = cluster.client::<HotStuff>()?;
    for request in 0..20 {
        if request == 10 {
            cluster.crash(ReplicaId::new(0)); // the leader, with what it had built
        }
        let answer = client.apply("")?;
        println!("request {request:2} is in proposal {}", String::from_utf8_lossy(&answer.reply));
    }
    let answer = client.read(Consistency::Linearizable, "")?;
    println!("{}", String::from_utf8_lossy(&answer.reply));
    Ok(())
}
