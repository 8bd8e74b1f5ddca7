//! Machines whose whole state is a small value: two methods, and the rest is derived. The state is cloned for a view and
//! encoded for a digest or a snapshot, so this is for kilobytes. A larger machine implements the traits of
//! [`crate::machine`] itself, over persistent maps.

use crate::crypto::Digest;
use crate::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use crate::wire::Wire;
use borsh::{BorshDeserialize, BorshSerialize};
use std::marker::PhantomData;

/// A machine that is one small value. Whoever implements it has a [`crate::machine::Machine`].
pub trait Small: Clone + BorshSerialize + BorshDeserialize + Send + Sync + 'static {
    /// Applies one operation: synchronous, deterministic, without looking at anything but its arguments. Bad bytes are
    /// answered with an error reply.
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output);

    /// Answers a query by appending to `reply`. Bad bytes are answered with an error reply.
    fn query(&self, query: &[u8], reply: &mut Vec<u8>);

    /// As [`StateMachine::propose`]: what the leader adds to a batch of these operations.
    fn propose(&self, _at: &At, _operations: &[bytes::Bytes]) -> Option<Vec<u8>> {
        None
    }

    /// As [`StateMachine::proposed`]: what a leader has added, which may be a lie.
    fn proposed(&mut self, _at: &At, _made: &[u8], _out: &mut Output) {}
}

impl<T: Small> StateMachine for T {
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output) {
        Small::apply(self, at, operation, out);
    }

    fn digest(&self) -> Digest {
        Digest::of(&self.encode())
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn propose(&self, at: &At, operations: &[bytes::Bytes]) -> Option<Vec<u8>> {
        Small::propose(self, at, operations)
    }

    fn proposed(&mut self, at: &At, made: &[u8], out: &mut Output) {
        Small::proposed(self, at, made, out);
    }
}

/// A copy that later operations do not touch.
#[derive(Clone, Debug)]
pub struct Copied<T>(T);

impl<T: Small> View for Copied<T> {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        self.0.query(query, reply);
    }
}

impl<T: Small> Query for T {
    type View = Copied<T>;

    fn view(&self) -> Copied<T> {
        Copied(self.clone())
    }
}

/// A value whose encoding is arriving.
#[derive(Debug)]
pub struct Encoding<T> {
    bytes: Vec<u8>,
    of: PhantomData<fn() -> T>,
}

impl<T: Small> Snapshot for T {
    type Source = Whole;
    type Sink = Encoding<T>;

    fn snapshot(&self) -> Whole {
        Whole::new(self.encode())
    }

    fn rebuild() -> Encoding<T> {
        Encoding { bytes: Vec::new(), of: PhantomData }
    }
}

impl<T: Small> Sink<T> for Encoding<T> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self) -> Result<T, Corrupt> {
        T::decode(&self.bytes).map_err(|error| Corrupt(error.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
    struct Sum(u64);

    impl Small for Sum {
        fn apply(&mut self, _: &At, operation: &[u8], out: &mut Output) {
            self.0 = operation.iter().fold(self.0, |sum, byte| sum.wrapping_add(u64::from(*byte)));
            out.reply(&self.0.to_le_bytes());
        }

        fn query(&self, _: &[u8], reply: &mut Vec<u8>) {
            reply.extend_from_slice(&self.0.to_le_bytes());
        }
    }

    #[test]
    fn a_small_machine_obeys_the_laws() {
        crate::laws::check(Sum::default, &[b"one".to_vec(), b"".to_vec(), vec![255; 9]], &[b"?".to_vec()])
            .expect("every law");
    }
}
