//! A counter that survives the crash of the replica that leads. Run it with `cargo run -p quorate --example counter`.

use quorate::borsh::{BorshDeserialize, BorshSerialize};
use quorate::{At, Consistency, Local, Output, ReplicaId, Small, Vr, vr};

#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
struct Counter {
    value: i64,
}

impl Small for Counter {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        match String::from_utf8_lossy(operation).parse::<i64>() {
            Ok(number) => self.value = self.value.wrapping_add(number),
            Err(error) => return out.reply(format!("error: {error}").as_bytes()),
        }
        out.reply(self.value.to_string().as_bytes());
    }

    fn query(&self, _query: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.value.to_string().as_bytes());
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut cluster = Local::start::<Vr, _>(3, vr::Config::default(), Counter::default)?;
    let client = cluster.client::<Vr>()?;
    for number in ["40", "3", "-1", "many"] {
        let answer = client.apply(number)?;
        println!("add {number:>4}: {}", String::from_utf8_lossy(&answer.reply));
    }
    cluster.crash(ReplicaId::new(0));
    let answer = client.read(Consistency::Linearizable, "")?;
    println!("after a crash: {}", String::from_utf8_lossy(&answer.reply));
    Ok(())
}
