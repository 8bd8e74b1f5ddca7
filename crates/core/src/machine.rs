//! What a user writes: a deterministic machine. Three small traits; storage and network are not extension points.
//!
//! [`StateMachine`] is the seed's `T(state, input) → (state', output)`. [`Query`] lets reads run without the log where the
//! protocol allows it. [`Snapshot`] lets a replica forget its log and lets another catch up. A machine that
//! [`StateMachine::fork`]s can be applied to ahead of the order; one that [`StateMachine::propose`]s takes part in making it.
//!
//! # The laws
//! The kit in [`crate::laws`] checks them on any machine: replay gives the same digest and replies; snapshot then restore
//! gives the same digest and the same chunks; garbage never panics; a view is untouched by later operations, and so are a
//! fork and what it was forked from by each other's.

use crate::crypto::Digest;
use crate::ids::{Position, SessionId};
use crate::objects::{Image, Objects};
use crate::time::WallTime;
use thiserror::Error;

/// Where and when, by agreement, an operation is applied. The only "environment" that a machine may look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct At {
    /// How many operations were ordered up to and including this one.
    pub position: Position,
    /// Agreed time: what the log says, never what a clock says. Never goes back.
    pub time: WallTime,
    /// Whose request it is; zero for a tick that the machine asked for with [`StateMachine::wake`].
    pub session: SessionId,
    /// Agreed bytes that differ at every position, for machines that would otherwise draw random numbers.
    /// Predictable: not a secret.
    pub entropy: Entropy,
}

/// What [`At::entropy`] is made from, so that only who asks for it pays for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entropy {
    /// The place in the order of everything.
    Position(Position),
    /// These bytes: there are other orders.
    Bytes([u8; 32]),
}

impl Entropy {
    /// The bytes.
    pub fn bytes(&self) -> [u8; 32] {
        match self {
            Entropy::Position(position) => {
                *Digest::of_parts(&[b"quorate entropy", &position.get().to_le_bytes()]).as_bytes()
            }
            Entropy::Bytes(bytes) => *bytes,
        }
    }
}

/// What an operation leads to besides the new state.
#[derive(Debug, Default)]
pub struct Output {
    reply: Vec<u8>,
    events: Vec<(u32, Vec<u8>)>,
    unheard: bool,
}

impl Output {
    /// Appends bytes to the answer that the client receives.
    pub fn reply(&mut self, bytes: &[u8]) {
        self.reply.extend_from_slice(bytes);
    }

    /// For an operation whose events nobody watches at this replica.
    pub fn unheard() -> Self {
        Self { unheard: true, ..Self::default() }
    }

    /// Does anybody watch? If not, an event need not be made. Differs between replicas: for nothing else than that.
    pub fn is_heard(&self) -> bool {
        !self.unheard
    }

    /// Publishes an event: ordered, deterministic, not part of the state. Watches and subscriptions are made of these.
    pub fn event(&mut self, topic: u32, bytes: Vec<u8>) {
        if self.is_heard() {
            self.events.push((topic, bytes));
        }
    }

    /// Takes what has been collected: the reply, and the events with their topics.
    pub fn take(self) -> (Vec<u8>, Vec<(u32, Vec<u8>)>) {
        (self.reply, self.events)
    }
}

/// Required of every machine. Synchronous, total, deterministic: no `Result`, no `async`, no clock, no randomness.
pub trait StateMachine: Send + 'static {
    /// Applies one operation. Bad bytes are answered with an error reply; a panic is a bug and stops the replica.
    fn apply(&mut self, at: &At, operation: &[u8], out: &mut Output);

    /// Does applying this operation take microseconds, however large the state is? A host may then apply it on the thread
    /// that votes and keeps time, which spares two hops between threads, instead of on the machine's own. A machine that says
    /// so of an operation that takes long delays heartbeats; it endangers nothing else.
    fn is_quick(&self, _operation: &[u8]) -> bool {
        false
    }

    /// A copy of the state that shares nothing which operations change, in O(1): a clone of persistent maps. With it, batches
    /// can be applied to states that may never be committed, which are dropped if they are not. `None`: there is no cheap
    /// copy, and every batch is applied when it is committed and no sooner.
    fn fork(&self) -> Option<Self>
    where
        Self: Sized,
    {
        None
    }

    /// The leader's part, for machines whose proposals are work: what a batch of these operations is to begin with, given that
    /// this is the state before it. May take long and use threads; runs on a fork, beside everything else. Whatever it returns
    /// is given to [`StateMachine::proposed`] on every replica, which must not trust it: a leader may lie.
    fn propose(&self, _at: &At, _operations: &[bytes::Bytes]) -> Option<Vec<u8>> {
        None
    }

    /// What a leader's machine has proposed for the operations that follow. Bad bytes have no effect.
    fn proposed(&mut self, _at: &At, _made: &[u8], _out: &mut Output) {}

    /// The tick that [`StateMachine::wake`] asks for has been ordered.
    fn tick(&mut self, _at: &At, _out: &mut Output) {}

    /// When the machine next wants a tick: it comes from the log, at an agreed place, at or after this time (leases).
    /// Part of the state: asked after every operation and after a restore.
    fn wake(&self) -> Option<WallTime> {
        None
    }

    /// Which objects an operation touches, for protocols that order each object by itself. A function of the bytes alone:
    /// clients ask it, too.
    fn objects(_operation: &[u8]) -> Objects
    where
        Self: Sized,
    {
        Objects::All
    }

    /// Which object a query looks at, as [`StateMachine::objects`].
    fn queried(_query: &[u8]) -> Objects
    where
        Self: Sized,
    {
        Objects::All
    }

    /// Applies an operation that touches this one object. Looks at nothing else, and changes nothing else: `at.position`
    /// counts the writes of this object (several operations may be one), there is no time, and events are not published. Only
    /// for machines that have [`StateMachine::objects`].
    fn apply_to(&mut self, _object: &[u8], at: &At, operation: &[u8], out: &mut Output) {
        self.apply(at, operation, out);
    }

    /// Applies an operation that touches these objects, in the order of their names, each once. Looks at nothing else, and
    /// changes nothing else: `at.position` is the greatest count of one of them, there is no time, and events are not
    /// published. Only for machines that say [`Objects::Many`].
    fn apply_across(&mut self, _objects: &[bytes::Bytes], at: &At, operation: &[u8], out: &mut Output) {
        self.apply(at, operation, out);
    }

    /// One object as bytes; `None` if it is as if nothing had ever touched it.
    fn image(&self, _object: &[u8]) -> Image {
        None
    }

    /// Makes one object what [`StateMachine::image`] said.
    ///
    /// # Errors
    /// [`Corrupt`] for bytes that are no image; nothing is changed.
    fn put_image(&mut self, _object: &[u8], _image: Option<&[u8]>) -> Result<(), Corrupt> {
        Err(Corrupt("this machine has no objects".to_owned()))
    }

    /// Different states have different digests; the same operations in the same order lead to equal ones, also across a
    /// snapshot. A chain over the history will do, if the snapshot carries it (`docs/adr/007-digests-and-manifests.md`).
    /// Asked after every checkpoint and status request: keep it incrementally.
    fn digest(&self) -> Digest;
}

/// Reads that do not go through the log. Which reads the client may ask for, and when they are answered, is the protocol's
/// business; the machine only offers a view.
pub trait Query: StateMachine {
    /// An immutable state, untouched by later operations.
    type View: View;

    /// The state as it is now, in O(1): a clone of a persistent map, not of its contents.
    fn view(&self) -> Self::View;
}

/// An immutable state that answers queries.
pub trait View: Send + Sync + 'static {
    /// Answers `query` by appending to `reply`. Bad bytes are answered with an error reply.
    fn query(&self, query: &[u8], reply: &mut Vec<u8>);
}

/// A state as bytes, in canonical order: states with equal digests give equal streams.
pub trait Snapshot: StateMachine + Sized {
    /// The pull side. Runs on another thread while the machine goes on.
    type Source: Source;
    /// The push side: a state under construction.
    type Sink: Sink<Self>;

    /// Starts writing the present state out, in O(1).
    fn snapshot(&self) -> Self::Source;

    /// Starts an empty restore. The machine in use is not touched until the sink has finished without error.
    fn rebuild() -> Self::Sink;
}

/// A canonical stream of a state's bytes.
pub trait Source: Send + 'static {
    /// Appends about `max_bytes` more bytes to `into`; false when there was nothing left to append.
    fn next(&mut self, max_bytes: usize, into: &mut Vec<u8>) -> bool;
}

/// A state under construction from a canonical stream, cut anywhere.
pub trait Sink<M>: Send + 'static {
    /// Takes the next bytes of the stream.
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt>;

    /// The stream is complete.
    fn finish(self) -> Result<M, Corrupt>;
}

/// The bytes of a snapshot do not describe a state of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the snapshot is not a state of this machine: {0}")]
pub struct Corrupt(pub String);

/// What a replica can run: a machine that can be read and saved.
pub trait Machine: StateMachine + Query + Snapshot {}
impl<M: StateMachine + Query + Snapshot> Machine for M {}

/// For machines whose state is small: the whole stream at once. `Source` of a buffer that is already encoded.
#[derive(Debug)]
pub struct Whole {
    bytes: Vec<u8>,
    given: usize,
}

impl Whole {
    /// A source that gives out `bytes`.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self { bytes, given: 0 }
    }
}

impl Source for Whole {
    fn next(&mut self, max_bytes: usize, into: &mut Vec<u8>) -> bool {
        let rest = self.bytes.get(self.given..).unwrap_or_default();
        let part = rest.get(..max_bytes.max(1)).unwrap_or(rest);
        into.extend_from_slice(part);
        self.given = self.given.saturating_add(part.len());
        !part.is_empty()
    }
}
