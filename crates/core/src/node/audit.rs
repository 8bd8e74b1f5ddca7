//! Hashes what turns do: two runs of a seed must agree on every effect. Off, it costs a look at an option.

use crate::crypto::Digest;
use crate::ids::RecordSeq;
use crate::outbox::{Effect, To, When};
use crate::protocol::Protocol;
use std::fmt::{self, Debug, Write};

/// The digest of all turns so far.
#[derive(Debug)]
pub(super) struct Audit(Option<Box<blake3::Hasher>>);

impl Audit {
    /// One that hashes, or one that does nothing.
    pub(super) fn new(wanted: bool) -> Self {
        Self(wanted.then(Box::default))
    }

    /// Does it hash?
    pub(super) const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The digest; `None` if it does not hash.
    pub(super) fn digest(&self) -> Option<Digest> {
        self.0.as_ref().map(|hasher| Digest::new(*hasher.finalize().as_bytes()))
    }

    /// A turn persists a record.
    pub(super) fn persisted(&mut self, seq: RecordSeq, bytes: &[u8]) {
        self.add(0, &seq.get().to_le_bytes(), bytes);
    }

    /// A turn sends a message.
    pub(super) fn sent(&mut self, to: To, when: When, bytes: &[u8]) {
        self.words(1, (to, when));
        self.add(1, &[], bytes);
    }

    /// A turn has an effect that is neither of the two: by its fields where it is frequent or long, by its words otherwise.
    pub(super) fn other<P: Protocol>(&mut self, effect: &Effect<P>) {
        if !self.is_on() {
            return;
        }
        match effect {
            Effect::Arm { timer, at } => {
                self.words(2, timer);
                self.add(2, &at.as_nanos().to_le_bytes(), &[]);
            }
            Effect::Execute { op, batch } => self.add(3, &op.get().to_le_bytes(), batch),
            Effect::Speculate { parent, state, batch } => {
                self.words(4, (parent, state));
                self.add(4, &[], batch);
            }
            Effect::Propose { parent, ticket, batch } => {
                self.words(5, (parent, ticket));
                self.add(5, &[], batch);
            }
            Effect::Query { ticket, query } => {
                self.words(6, ticket);
                self.add(6, &[], query);
            }
            Effect::Persist { .. } | Effect::Send { .. } => {} // told with their bytes
            other => self.words(7, other),
        }
    }

    /// The lengths go in, too, so that no two rows of effects have one row of bytes.
    fn add(&mut self, kind: u8, head: &[u8], bytes: &[u8]) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(&[kind]).update(head).update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }
    }

    fn words(&mut self, kind: u8, what: impl Debug) {
        if let Some(hasher) = &mut self.0 {
            hasher.update(&[kind]);
            let written = write!(Words(hasher), "{what:?}");
            debug_assert!(written.is_ok(), "a hasher takes everything");
            hasher.update(&[0]);
        }
    }
}

/// Lets words go straight into the hasher.
struct Words<'a>(&'a mut blake3::Hasher);

impl Write for Words<'_> {
    fn write_str(&mut self, words: &str) -> fmt::Result {
        self.0.update(words.as_bytes());
        Ok(())
    }
}
