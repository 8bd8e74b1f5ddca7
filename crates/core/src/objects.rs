//! A state as a set of objects, each with an order of its own: what protocols need that do not order everything (HQ).
//!
//! A machine says which object an operation touches ([`crate::machine::StateMachine::objects`]), applies an operation to one
//! object or to several that it names, and gives or takes one object as bytes. The executor does such steps in the order in
//! which this replica asks for them; other replicas may do those of different objects in other orders, so nothing that a step
//! leads to may depend on objects that it does not name.

use crate::crypto::Digest;
use crate::ids::Position;
use bytes::Bytes;

/// What an operation or a query touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// One object, by its name.
    One(Bytes),
    /// These, and they are at least two: in the order of their names, each once.
    Many(Vec<Bytes>),
    /// All, or nobody knows which.
    All,
}

impl Objects {
    /// What touches these, whatever their order and however often each is named; nothing at all is for nobody to order.
    pub fn of(mut names: Vec<Bytes>) -> Self {
        names.sort_unstable();
        names.dedup();
        match names.len() {
            0 => Self::All,
            1 => names.pop().map_or(Self::All, Self::One),
            _ => Self::Many(names),
        }
    }
}

/// How a client finds out what is touched: the machine's [`crate::machine::StateMachine::objects`] and
/// [`crate::machine::StateMachine::queried`].
#[derive(Clone, Copy, Debug)]
pub struct Touches {
    /// By an operation.
    pub operation: fn(&[u8]) -> Objects,
    /// By a query.
    pub query: fn(&[u8]) -> Objects,
}

impl Touches {
    /// What a machine says.
    pub const fn of<M: crate::machine::StateMachine>() -> Self {
        Self { operation: M::objects, query: M::queried }
    }
}

/// An object as bytes; `None`: there is none.
pub type Image = Option<Bytes>;

/// One step of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Apply operations to their object, in order, as one write of it.
    Apply {
        /// The object's name. An operation that touches something else is answered with [`MISPLACED`] and changes nothing.
        object: Bytes,
        /// How many writes the object has seen with this one.
        at: Position,
        /// The operations. When the replies to the first ones are [`REPLIES_BYTES_SOFT_MAX`] long together, the others are not applied.
        operations: Vec<Bytes>,
    },
    /// Apply an operation to several objects at once.
    Across {
        /// Their names, and how many operations each has seen with this one, in the order of their names. An operation that
        /// touches something else is answered with [`MISPLACED`] and changes nothing.
        objects: Vec<(Bytes, Position)>,
        /// The operation.
        operation: Bytes,
    },
    /// Replace an object.
    Put {
        /// Its name.
        object: Bytes,
        /// What it becomes.
        image: Image,
    },
}

/// Bytes of replies after which no more operations of a step are applied: one reply more than so many bytes fits into a frame.
pub const REPLIES_BYTES_SOFT_MAX: usize = 2 << 20;

/// The answer to an operation that does not touch the object that it was ordered for.
pub const MISPLACED: &[u8] = b"this operation touches something else than the object that it was ordered for";

/// What a step led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// The machine's replies to the operations that were applied, in order: one at least, but for [`Step::Put`], which has none.
    pub replies: Vec<Bytes>,
    /// The object as it was before: enough to undo the step. `None` for [`Step::Across`], which nobody takes back.
    pub before: Image,
}

/// Agreed bytes that differ for every operation on every object (see [`crate::machine::At::entropy`]): of a write, for each by its index.
pub fn entropy(object: &[u8], at: Position, index: usize) -> [u8; 32] {
    let (at, index) = (at.get().to_le_bytes(), (index as u64).to_le_bytes());
    *Digest::of_parts(&[b"quorate object entropy", object, &at, &index]).as_bytes()
}

/// The same for an operation on several objects.
pub fn entropy_across(objects: &[(Bytes, Position)]) -> [u8; 32] {
    let each = objects.iter().map(|(object, at)| entropy(object, *at, 0)).collect::<Vec<_>>().concat();
    *Digest::of_parts(&[b"quorate objects entropy", &each]).as_bytes()
}
