//! **Answers follow the order**: every answer names how many writes it reflects; replaying the agreed order up to there
//! must give exactly that answer. Linear in the history's length, and it judges stale reads too: one that names an entry
//! which its client has seen reflects at least as many writes as the client had seen.

use crate::history::{Entry, History};
use crate::registers::{Operation, Reply};
use quorate_core::protocol::Call;
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// As [`check`], where each register has an order of its own: its answers are judged by that, as if it were alone.
///
/// # Errors
/// Names the answer that is not the order's.
pub fn check_each(history: &History, orders: &BTreeMap<u8, Vec<u64>>) -> Result<(), String> {
    let keys = history.entries().iter().filter_map(|entry| Operation::decode(entry.bytes()).ok());
    for key in keys.flat_map(Operation::keys).collect::<BTreeSet<u8>>() {
        let order = orders.get(&key).cloned().unwrap_or_default();
        check(&alone(history, key), &order)?;
    }
    Ok(())
}

/// What concerns one register. A write of two is a write of each of them; its answer names a place in the order of the first.
fn alone(history: &History, key: u8) -> History {
    history.each(|entry| {
        let operation = Operation::decode(entry.bytes()).ok()?;
        let Operation::Both { key: first, value, .. } = operation else {
            return (operation.key() == key).then(|| entry.clone());
        };
        if !operation.keys().contains(&key) {
            return None;
        }
        let mut entry = entry.clone();
        entry.call = Call::Apply(Operation::Put { key, value }.encode().into());
        if let Some((_, Ok(answer))) = &mut entry.returned
            && let Ok(Reply { revision, found }) = Reply::decode(&answer.reply)
        {
            answer.reply = Reply { revision, found: found & u64::from(u32::MAX) }.encode().into();
        }
        entry.returned = entry.returned.filter(|_| first == key);
        Some(entry)
    })
}

/// Checks all answers against the order that the cluster agreed on.
///
/// # Errors
/// Names the answer that is not the order's.
pub fn check(history: &History, order: &[u64]) -> Result<(), String> {
    let writes: BTreeMap<u64, Operation> = history
        .entries()
        .iter()
        .filter_map(|entry| Operation::decode(entry.bytes()).ok())
        .filter_map(|operation| Some((operation.id()?, operation)))
        .collect();
    let mut states = vec![BTreeMap::new()]; // by revision; short runs, few registers
    for id in order {
        let mut state: BTreeMap<u8, u64> = states.last().cloned().unwrap_or_default();
        if let Some(operation) = writes.get(id) {
            let held = state.get(&operation.key()).copied().unwrap_or(0);
            state.insert(operation.key(), operation.after(held));
        }
        states.push(state);
    }
    for entry in history.entries() {
        check_answer(history, entry, order, &states)?;
    }
    Ok(())
}

fn check_answer(history: &History, entry: &Entry, order: &[u64], states: &[BTreeMap<u8, u64>]) -> Result<(), String> {
    let (Some(answer), Ok(operation)) = (entry.answer(), Operation::decode(entry.bytes())) else { return Ok(()) };
    let client = entry.client;
    let Ok(reply) = Reply::decode(&answer.reply) else {
        return Err(format!("client {client}'s {operation:?} was answered with {:?}", answer.reply));
    };
    // A write's answer tells what its register held before it; a read's what it holds.
    let seen = match operation.id() {
        Some(_) => reply.revision.saturating_sub(1),
        None => reply.revision,
    };
    let at = usize::try_from(seen).unwrap_or(usize::MAX);
    if let Some(id) = operation.id()
        && order.get(at) != Some(&id)
    {
        return Err(format!("client {client} was told that {operation:?} is write {}, but it is not", reply.revision));
    }
    let held = states.get(at).map(|state| state.get(&operation.key()).copied().unwrap_or(0));
    if held != Some(reply.found) {
        return Err(format!(
            "client {client}'s {operation:?} was answered {reply:?}, but the order gives {held:?} there"
        ));
    }
    match entry.stale() {
        Some(at_least) if reply.revision < known(history, entry, at_least) => {
            Err(format!("client {client}'s stale read reflects {} writes, fewer than it had seen", reply.revision))
        }
        _ => Ok(()),
    }
}

/// How many writes this client's answers up to entry `at_least` reflected before it made this call.
fn known(history: &History, entry: &Entry, at_least: quorate_core::ids::OpNumber) -> u64 {
    let before = |earlier: &&Entry| {
        let heard = earlier.returned.as_ref().is_some_and(|(moment, _)| *moment < entry.invoked);
        earlier.client == entry.client && heard
    };
    let answers = history.entries().iter().filter(before).filter_map(Entry::answer);
    let reflected = answers.filter(|answer| answer.op <= at_least).filter_map(|it| Reply::decode(&it.reply).ok());
    reflected.map(|reply| reply.revision).max().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::ids::OpNumber;
    use quorate_core::protocol::{Answer, Call, Consistency};

    fn tell(history: &mut History, call: Call, revision: u64, found: u64) {
        let index = history.invoke(0, call, 0);
        let reply = Reply { revision, found }.encode().into();
        history.complete(index, Ok(Answer { reply, op: OpNumber::new(revision) }));
    }

    fn put(value: u64) -> Call {
        Call::Apply(Operation::Put { key: 0, value }.encode().into())
    }

    fn get(consistency: Consistency) -> Call {
        Call::Read(consistency, Operation::Get { key: 0 }.encode().into())
    }

    fn two_writes() -> History {
        let mut history = History::default();
        tell(&mut history, put(7), 1, 0);
        tell(&mut history, put(8), 2, 7);
        history
    }

    #[test]
    fn answers_that_follow_the_order_hold() {
        let mut history = two_writes();
        tell(&mut history, get(Consistency::Linearizable), 2, 8);
        tell(&mut history, get(Consistency::Stale { at_least: OpNumber::new(1) }), 1, 7);
        assert_eq!(check(&history, &[7, 8]), Ok(()));
    }

    #[test]
    fn an_answer_of_another_order_is_caught() {
        assert!(check(&two_writes(), &[8, 7]).is_err());
    }

    #[test]
    fn a_value_that_the_register_never_held_there_is_caught() {
        let mut history = two_writes();
        tell(&mut history, get(Consistency::Linearizable), 1, 8);
        assert!(check(&history, &[7, 8]).is_err());
    }

    #[test]
    fn a_stale_read_older_than_what_its_client_has_seen_is_caught() {
        let mut history = two_writes();
        tell(&mut history, get(Consistency::Stale { at_least: OpNumber::new(2) }), 1, 7);
        assert!(check(&history, &[7, 8]).is_err());
    }
}
