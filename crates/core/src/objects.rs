//! A state as a set of objects, each with an order of its own: what protocols need that do not order everything (HQ).
//!
//! A machine says which object an operation touches ([`crate::machine::StateMachine::objects`]), applies an operation to one
//! object, and gives or takes one object as bytes. The executor does such steps in the order in which this replica asks for
//! them; other replicas may do those of different objects in other orders, so nothing that a step leads to may depend on
//! other objects.

use crate::crypto::Digest;
use crate::ids::Position;
use bytes::Bytes;

/// What an operation or a query touches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Objects {
    /// One object, by its name.
    One(Bytes),
    /// Several, or nobody knows which.
    All,
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
    /// Apply an operation to its object.
    Apply {
        /// The object's name. An operation that touches something else is answered with [`MISPLACED`] and changes nothing.
        object: Bytes,
        /// How many operations the object has seen with this one.
        at: Position,
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

/// The answer to an operation that does not touch the object that it was ordered for.
pub const MISPLACED: &[u8] = b"this operation touches something else than the object that it was ordered for";

/// What a step led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stepped {
    /// The machine's reply; empty for [`Step::Put`].
    pub reply: Bytes,
    /// The object as it was before: enough to undo the step.
    pub before: Image,
}

/// Agreed bytes that differ for every operation on every object (see [`crate::machine::At::entropy`]).
pub fn entropy(object: &[u8], at: Position) -> [u8; 32] {
    *Digest::of_parts(&[b"quorate object entropy", object, &at.get().to_le_bytes()]).as_bytes()
}
