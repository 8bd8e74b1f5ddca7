//! The machine of these tests: remembers every operation in order. A reply is how many there are; a query is answered with
//! all of them. The operation `lease` asks for a tick a second later, which is remembered too.

use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use quorate_core::time::{Duration, WallTime};
use quorate_core::wire::Wire;

/// Operations, and when a tick is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tape {
    pub operations: Vec<Vec<u8>>,
    pub wake: Option<WallTime>,
    /// What leaders' machines have proposed.
    pub made: Vec<Vec<u8>>,
    /// Proposals that were made for another state than the one that they came to.
    pub wrong: u64,
}

impl Tape {
    fn bytes(&self) -> Vec<u8> {
        (self.operations.clone(), self.wake, self.made.clone(), self.wrong).encode()
    }

    /// As text.
    pub fn text(&self) -> Vec<String> {
        self.operations.iter().map(|operation| String::from_utf8_lossy(operation).into_owned()).collect()
    }
}

impl StateMachine for Tape {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        if operation == b"lease" {
            self.wake = Some(at.time.plus(Duration::from_secs(1)));
        }
        self.operations.push(operation.to_vec());
        out.reply(self.operations.len().to_string().as_bytes());
    }

    fn tick(&mut self, _: &At, _: &mut Output) {
        self.wake = None;
        self.operations.push(b"tick".to_vec());
    }

    fn wake(&self) -> Option<WallTime> {
        self.wake
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }

    /// How many operations there are before, and how many follow: wrong in the hands of whoever builds on another state.
    fn propose(&self, _: &At, operations: &[Bytes]) -> Option<Vec<u8>> {
        Some(format!("{}+{}", self.operations.len(), operations.len()).into_bytes())
    }

    fn proposed(&mut self, _: &At, made: &[u8], _: &mut Output) {
        self.made.push(made.to_vec());
        let right = made.split(|byte| *byte == b'+').next() == Some(self.operations.len().to_string().as_bytes());
        self.wrong += u64::from(!right);
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.bytes())
    }
}

impl View for Tape {
    fn query(&self, _: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(self.text().join(" ").as_bytes());
    }
}

impl Query for Tape {
    type View = Self;
    fn view(&self) -> Self {
        self.clone()
    }
}

pub struct Rest(Vec<u8>);

impl Sink<Tape> for Rest {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(self) -> Result<Tape, Corrupt> {
        let (operations, wake, made, wrong) = Wire::decode(&self.0).map_err(|error| Corrupt(error.to_string()))?;
        Ok(Tape { operations, wake, made, wrong })
    }
}

impl Snapshot for Tape {
    type Source = Whole;
    type Sink = Rest;
    fn snapshot(&self) -> Whole {
        Whole::new(self.bytes())
    }
    fn rebuild() -> Rest {
        Rest(Vec::new())
    }
}
