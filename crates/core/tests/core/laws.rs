//! The law kit can fail: machines that break a law are caught.

use quorate_core::crypto::Digest;
use quorate_core::laws;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};

/// Adds up bytes; `FLAW` says which law it breaks.
#[derive(Clone, Debug, Default)]
struct Sum<const FLAW: char>(u64);

impl<const FLAW: char> StateMachine for Sum<FLAW> {
    fn apply(&mut self, _: &At, operation: &[u8], out: &mut Output) {
        match operation {
            [byte] => self.0 += u64::from(*byte),
            _ if FLAW == 'p' => panic!("an operation has one byte"),
            _ => out.reply(b"error"),
        }
    }
    fn digest(&self) -> Digest {
        Digest::of(&self.0.to_le_bytes())
    }
    fn fork(&self) -> Option<Self> {
        Some(if FLAW == 'f' { Self(self.0 / 2) } else { self.clone() })
    }
    fn propose(&self, _: &At, _: &[bytes::Bytes]) -> Option<Vec<u8>> {
        Some(self.0.to_le_bytes().to_vec())
    }
    fn proposed(&mut self, _: &At, made: &[u8], _: &mut Output) {
        assert!(FLAW != 'g' || made.len() == 8, "a proposal has eight bytes");
    }
}

impl<const FLAW: char> View for Sum<FLAW> {
    fn query(&self, _: &[u8], reply: &mut Vec<u8>) {
        reply.extend_from_slice(&self.0.to_le_bytes());
    }
}

impl<const FLAW: char> Query for Sum<FLAW> {
    type View = Self;
    fn view(&self) -> Self {
        self.clone()
    }
}

struct Rest<const FLAW: char>(Vec<u8>);

impl<const FLAW: char> Sink<Sum<FLAW>> for Rest<FLAW> {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
    fn finish(mut self) -> Result<Sum<FLAW>, Corrupt> {
        if FLAW == 's' {
            self.0.resize(8, 0);
        }
        self.0.try_into().map(|bytes| Sum(u64::from_le_bytes(bytes))).map_err(|_| Corrupt("not eight bytes".to_owned()))
    }
}

impl<const FLAW: char> Snapshot for Sum<FLAW> {
    type Source = Whole;
    type Sink = Rest<FLAW>;
    fn snapshot(&self) -> Whole {
        Whole::new(self.0.to_le_bytes().to_vec())
    }
    fn rebuild() -> Rest<FLAW> {
        Rest(Vec::new())
    }
}

fn check<const FLAW: char>() -> Result<(), String> {
    laws::check(Sum::<FLAW>::default, &[vec![200], vec![100]], &[Vec::new()])
}

#[test]
fn a_lawful_machine_passes() {
    assert_eq!(check::<'-'>(), Ok(()));
}

#[test]
#[should_panic(expected = "an operation has one byte")]
fn a_machine_that_panics_on_garbage_is_caught() {
    let _ = check::<'p'>();
}

#[test]
fn a_machine_that_takes_any_bytes_for_a_snapshot_is_caught() {
    assert_eq!(check::<'s'>(), Err("bytes that are no machine's snapshot were accepted as one".to_owned()));
}

#[test]
fn a_fork_that_is_another_state_is_caught() {
    assert_eq!(check::<'f'>(), Err("a fork is another state at operation 1".to_owned()));
}

#[test]
#[should_panic(expected = "a proposal has eight bytes")]
fn a_machine_that_panics_on_a_false_proposal_is_caught() {
    let _ = check::<'g'>();
}
