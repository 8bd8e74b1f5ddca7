//! Short ways to say what clients say most.

use super::operation::{Compare, DeleteRange, Events, Operand, Operation, Operator, Put, Query, Range, Txn, TxnOp};
use bytes::Bytes;

/// The end of the range of all keys that start with `prefix`: the first key after them. For a prefix of 0xff bytes, or
/// an empty one, one zero byte: to the end of all keys.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let Some(last) = prefix.iter().rposition(|byte| *byte != 0xff) else {
        return Bytes::from_static(&[0]);
    };
    let mut end = prefix.get(..=last).unwrap_or_default().to_vec();
    if let Some(byte) = end.last_mut() {
        *byte = byte.saturating_add(1);
    }
    end.into()
}

/// The first key of the range of all keys that start with `prefix`; a key cannot be empty.
fn prefix_start(prefix: impl Into<Bytes>) -> Bytes {
    let prefix = prefix.into();
    if prefix.is_empty() { Bytes::from_static(&[0]) } else { prefix }
}

impl Operation {
    /// Writes a key.
    pub fn put(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Operation::Put(Put::new(key, value))
    }

    /// Deletes a key.
    pub fn delete(key: impl Into<Bytes>) -> Self {
        Operation::Delete(DeleteRange { key: key.into(), ..DeleteRange::default() })
    }

    /// Deletes all keys that start with `prefix`.
    pub fn delete_prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let range_end = prefix_end(&prefix);
        Operation::Delete(DeleteRange { key: prefix_start(prefix), range_end, prev_kv: false })
    }

    /// Writes a key if `expected` holds of it; otherwise answers with what it is instead. The answer is a transaction's:
    /// `succeeded`, and one response: to the put, or to the get.
    pub fn compare_and_swap(key: impl Into<Bytes>, expected: Expected, value: impl Into<Bytes>) -> Self {
        let key = key.into();
        let get = Range { key: key.clone(), ..Range::default() };
        let operand = match expected {
            Expected::Value(value) => Operand::Value(value),
            Expected::ModRevision(revision) => Operand::Mod(revision),
            Expected::Absent => Operand::Version(0),
        };
        Operation::Txn(Txn {
            compare: vec![Compare::equal(key.clone(), operand)],
            success: vec![TxnOp::Put(Put::new(key, value))],
            failure: vec![TxnOp::Range(get)],
        })
    }
}

/// What a compare-and-swap wants a key to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It exists, with this value.
    Value(Bytes),
    /// It exists, and was last changed at this revision.
    ModRevision(i64),
    /// It does not exist.
    Absent,
}

impl Put {
    /// A put without a lease, that is not asked for what was before.
    pub fn new(key: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Put { key: key.into(), value: value.into(), ..Put::default() }
    }
}

impl Compare {
    /// A property of one key equals the operand.
    pub fn equal(key: impl Into<Bytes>, operand: Operand) -> Self {
        Compare { key: key.into(), range_end: Bytes::new(), operator: Operator::Equal, operand }
    }
}

impl Query {
    /// Reads one key.
    pub fn get(key: impl Into<Bytes>) -> Self {
        Query::Range(Range { key: key.into(), ..Range::default() })
    }

    /// Reads all keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Query::Range(Range::prefix(prefix))
    }

    /// Reads the changes of all keys that start with `prefix`, from a revision on.
    pub fn events(prefix: impl Into<Bytes>, from_revision: i64) -> Self {
        let prefix = prefix.into();
        let range_end = prefix_end(&prefix);
        Query::Events(Events { key: prefix_start(prefix), range_end, from_revision, ..Events::default() })
    }
}

impl Range {
    /// All keys that start with `prefix`.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        let prefix = prefix.into();
        let range_end = prefix_end(&prefix);
        Range { key: prefix_start(prefix), range_end, ..Range::default() }
    }

    /// The range again, from after `last` on: the next page, if `last` is the last key of the one before. Read all pages
    /// at the revision of the first one's reply, and they are one consistent answer.
    #[must_use]
    pub fn after(mut self, last: &[u8], revision: i64) -> Self {
        self.key = [last, &[0]].concat().into();
        self.revision = revision;
        self
    }
}
