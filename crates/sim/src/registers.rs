//! The machine that runs are judged by: registers that remember, beside their values, every operation ever applied.
//!
//! Every write carries a value that nobody else writes, so the state alone tells which operations were applied, in which
//! order, and whether one was applied twice; that survives snapshots and state transfer. Every answer says how many
//! operations it reflects, so that it can be compared with the order that the cluster agreed on.

use crate::random::Random;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::machine::{At, Corrupt, Output, Query, Sink, Snapshot, StateMachine, View, Whole};
use quorate_core::objects::{Image, Objects};
use quorate_core::wire::Wire;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The topic of its events: one for each write, with the number of writes so far and the write's value.
pub const TOPIC: u32 = 0;

/// What can be asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Operation {
    /// Write.
    Put {
        /// Which register.
        key: u8,
        /// A value that no other operation brings; not zero.
        value: u64,
    },
    /// Write if the register holds `expected`.
    Cas {
        /// Which register.
        key: u8,
        /// What it must hold; zero for "nothing yet".
        expected: u64,
        /// A value that no other operation brings; not zero.
        value: u64,
    },
    /// Read. Only as a query.
    Get {
        /// Which register.
        key: u8,
    },
    /// Write two registers at once. Finds what both held: the first in the low half, the other in the high one.
    Both {
        /// One register.
        key: u8,
        /// Another one.
        other: u8,
        /// A value that no other operation brings; not zero, and less than 2³².
        value: u64,
    },
}

/// What a write of two registers finds, of what each of them held.
pub const fn found_in_both(one: u64, other: u64) -> u64 {
    one.wrapping_add(other << 32)
}

impl Operation {
    /// The register that it is about; of two, the first.
    pub fn key(self) -> u8 {
        match self {
            Operation::Put { key, .. }
            | Operation::Cas { key, .. }
            | Operation::Get { key }
            | Operation::Both { key, .. } => key,
        }
    }

    /// All registers that it is about.
    pub fn keys(self) -> Vec<u8> {
        match self {
            Operation::Both { key, other, .. } => vec![key, other],
            _ => vec![self.key()],
        }
    }

    /// The value by which a write is known; `None` for a read.
    pub fn id(self) -> Option<u64> {
        match self {
            Operation::Put { value, .. } | Operation::Cas { value, .. } | Operation::Both { value, .. } => Some(value),
            Operation::Get { .. } => None,
        }
    }

    /// What a register that holds `held` holds afterwards.
    pub fn after(self, held: u64) -> u64 {
        match self {
            Operation::Put { value, .. } | Operation::Both { value, .. } => value,
            Operation::Cas { expected, value, .. } if expected == held => value,
            Operation::Cas { .. } | Operation::Get { .. } => held,
        }
    }
}

/// What it answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// How many writes the state contains, this one included.
    pub revision: u64,
    /// What the register held before; zero for nothing.
    pub found: u64,
}

/// Another answer in the place of this one, as believable; of another machine than this one, with its last bit turned round. For
/// replicas that lie.
pub(crate) fn other_answer(bytes: &Bytes, random: &mut Random) -> Option<Bytes> {
    if let Ok(told) = Reply::decode(bytes) {
        return Some(Reply { found: told.found ^ random.between(1, 7), ..told }.encode().into());
    }
    let mut bytes = bytes.to_vec();
    *bytes.last_mut()? ^= 1;
    Some(bytes.into())
}

/// An operation or an answer of this machine, in words; `None` for other bytes. Their lengths tell them apart.
pub fn words(bytes: &[u8]) -> Option<String> {
    if let Ok(operation) = Operation::decode(bytes) {
        return Some(match operation {
            Operation::Put { key, value } => format!("r{key} := {value}"),
            Operation::Cas { key, expected, value } => format!("r{key} := {value} if {expected}"),
            Operation::Get { key } => format!("r{key}?"),
            Operation::Both { key, other, value } => format!("r{key}, r{other} := {value}"),
        });
    }
    let Reply { revision, found } = Reply::decode(bytes).ok()?;
    Some(format!("found {found}, write {revision}"))
}

#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct State {
    values: BTreeMap<u8, u64>,
    order: Vec<u64>,
    /// The writes of each register that has an order of its own.
    orders: BTreeMap<u8, Vec<u64>>,
}

/// The machine.
#[derive(Clone, Debug, Default)]
pub struct Registers {
    state: Arc<State>,
    chain: Digest,
}

impl Registers {
    /// The values by which all writes applied are known, in the order of their application.
    pub fn order(&self) -> &[u64] {
        &self.state.order
    }

    /// The same of each register, where each has an order of its own: then [`Registers::order`] has them one after the other.
    pub fn orders(&self) -> &BTreeMap<u8, Vec<u64>> {
        &self.state.orders
    }

    /// A register with an order of its own has changed.
    fn reorder(&mut self) {
        let state = Arc::make_mut(&mut self.state);
        // One that wrote two registers is there once; one that wrote a register twice, twice.
        let mut first: BTreeMap<u64, u8> = BTreeMap::new();
        let each = state.orders.iter().flat_map(|(key, order)| order.iter().map(move |id| (*key, *id)));
        state.order = each.filter(|(key, id)| first.entry(*id).or_insert(*key) == key).map(|(_, id)| id).collect();
        self.chain = Digest::of(&state.encode());
    }

    /// How many writes a read of a register reflects.
    fn revision(&self, key: u8) -> u64 {
        match self.state.orders.get(&key) {
            Some(own) => own.len() as u64,
            None if self.state.orders.is_empty() => self.state.order.len() as u64,
            None => 0, // the others have orders of their own; nothing was written here
        }
    }

    /// What a register holds; zero for nothing.
    pub fn value(&self, key: u8) -> u64 {
        self.state.values.get(&key).copied().unwrap_or(0)
    }

    fn link(chain: Digest, id: u64, key: u8, now: u64) -> Digest {
        Digest::of_parts(&[chain.as_bytes(), &id.to_le_bytes(), &[key], &now.to_le_bytes()])
    }
}

impl StateMachine for Registers {
    fn apply(&mut self, _at: &At, operation: &[u8], out: &mut Output) {
        let Ok(operation) = Operation::decode(operation) else { return out.reply(b"?") };
        let Some(id) = operation.id() else { return out.reply(b"?") };
        let (key, found) = (operation.key(), self.value(operation.key()));
        let now = operation.after(found);
        let state = Arc::make_mut(&mut self.state);
        state.values.insert(key, now);
        state.order.push(id);
        let revision = state.order.len() as u64;
        self.chain = Self::link(self.chain, id, key, now);
        out.event(TOPIC, (revision, id).encode());
        out.reply(&Reply { revision, found }.encode());
    }

    fn objects(operation: &[u8]) -> Objects {
        match Operation::decode(operation) {
            Ok(operation) if operation.id().is_some() => {
                Objects::of(operation.keys().into_iter().map(|key| vec![key].into()).collect())
            }
            _ => Objects::All,
        }
    }

    fn queried(query: &[u8]) -> Objects {
        Operation::decode(query).map_or(Objects::All, |query| Objects::One(vec![query.key()].into()))
    }

    fn apply_to(&mut self, _object: &[u8], _at: &At, operation: &[u8], out: &mut Output) {
        let Ok(operation) = Operation::decode(operation) else { return out.reply(b"?") };
        let Some(id) = operation.id() else { return out.reply(b"?") };
        let (key, found) = (operation.key(), self.value(operation.key()));
        let state = Arc::make_mut(&mut self.state);
        state.values.insert(key, operation.after(found));
        let order = state.orders.entry(key).or_default();
        order.push(id);
        let revision = order.len() as u64;
        out.reply(&Reply { revision, found }.encode());
        self.reorder();
    }

    fn apply_across(&mut self, _objects: &[Bytes], _at: &At, operation: &[u8], out: &mut Output) {
        let Ok(Operation::Both { key, other, value }) = Operation::decode(operation) else { return out.reply(b"?") };
        let found = found_in_both(self.value(key), self.value(other));
        let state = Arc::make_mut(&mut self.state);
        for key in [key, other] {
            state.values.insert(key, value);
            state.orders.entry(key).or_default().push(value);
        }
        let revision = state.orders.get(&key).map_or(0, Vec::len) as u64;
        out.reply(&Reply { revision, found }.encode());
        self.reorder();
    }

    fn image(&self, object: &[u8]) -> Image {
        let key = object.first()?;
        let order = self.state.orders.get(key)?;
        Some(Bytes::from((self.value(*key), order.clone()).encode()))
    }

    fn put_image(&mut self, object: &[u8], image: Option<&[u8]>) -> Result<(), Corrupt> {
        let Some(key) = object.first().copied() else { return Err(Corrupt("a register without a name".to_owned())) };
        let decoded = image.map(<(u64, Vec<u64>)>::decode).transpose().map_err(|error| Corrupt(error.0))?;
        let state = Arc::make_mut(&mut self.state);
        match decoded {
            Some((value, order)) => {
                state.values.insert(key, value);
                state.orders.insert(key, order);
            }
            None => {
                state.values.remove(&key);
                state.orders.remove(&key);
            }
        }
        self.reorder();
        Ok(())
    }

    /// A chain over the order: equal chains mean equal orders, hence equal values.
    fn digest(&self) -> Digest {
        self.chain
    }

    fn fork(&self) -> Option<Self> {
        Some(self.clone())
    }

    /// How long the order is before: what it says on a state that it was not made for is wrong.
    fn propose(&self, _: &At, _: &[Bytes]) -> Option<Vec<u8>> {
        Some((self.state.order.len() as u64).encode())
    }

    /// Goes into the chain, and says whether it was made for this state: replicas that speculate differently differ.
    fn proposed(&mut self, _: &At, made: &[u8], _: &mut Output) {
        let right = made == (self.state.order.len() as u64).encode();
        self.chain = Digest::of_parts(&[self.chain.as_bytes(), made, &[u8::from(right)]]);
    }
}

impl Query for Registers {
    type View = Registers;

    fn view(&self) -> Registers {
        self.clone()
    }
}

impl View for Registers {
    fn query(&self, query: &[u8], reply: &mut Vec<u8>) {
        match Operation::decode(query) {
            Ok(Operation::Get { key }) => {
                let answer = Reply { revision: self.revision(key), found: self.value(key) };
                answer.encode_into(reply);
            }
            _ => reply.extend_from_slice(b"?"),
        }
    }
}

impl Snapshot for Registers {
    type Source = Whole;
    type Sink = Rebuild;

    fn snapshot(&self) -> Whole {
        let mut bytes = self.chain.encode();
        self.state.encode_into(&mut bytes);
        Whole::new(bytes)
    }

    fn rebuild() -> Rebuild {
        Rebuild { bytes: Vec::new() }
    }
}

/// Registers under construction.
#[derive(Debug)]
pub struct Rebuild {
    bytes: Vec<u8>,
}

impl Sink<Registers> for Rebuild {
    fn push(&mut self, bytes: &[u8]) -> Result<(), Corrupt> {
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn finish(self) -> Result<Registers, Corrupt> {
        let (chain, state) = <(Digest, State)>::decode(&self.bytes).map_err(|error| Corrupt(error.0))?;
        Ok(Registers { state: Arc::new(state), chain })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::machine::Entropy;

    #[test]
    fn the_registers_keep_the_laws_of_machines() {
        let put = |key, value| Operation::Put { key, value }.encode();
        let cas = |key, expected, value| Operation::Cas { key, expected, value }.encode();
        let operations = [put(1, 10), put(2, 11), cas(1, 10, 12), cas(1, 10, 13), b"garbage".to_vec(), Vec::new()];
        let queries = [Operation::Get { key: 1 }.encode(), Operation::Get { key: 9 }.encode(), b"garbage".to_vec()];
        assert_eq!(quorate_core::laws::check(Registers::default, &operations, &queries), Ok(()));
    }

    #[test]
    fn a_repeated_write_is_visible_in_the_state() {
        let mut machine = Registers::default();
        let at = At {
            position: Default::default(),
            time: Default::default(),
            session: Default::default(),
            entropy: Entropy::Bytes([0; 32]),
        };
        for _ in 0..2 {
            machine.apply(&at, &Operation::Put { key: 1, value: 10 }.encode(), &mut Output::default());
        }
        assert_eq!(machine.order(), [10, 10]);
    }
}
