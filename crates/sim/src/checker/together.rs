//! **Linearizability across registers**: where each register has an order of its own, and some writes touch two, one order of
//! all calls explains what clients saw. Each register alone may hold while a write of two is seen on one of them and then,
//! later, not on the other.
//!
//! The orders of the registers are known in the end, and every answer names its place in one. So there is nothing to search:
//! calls come after each other as the registers have them, and as their clients have made them, and that must not go round
//! in a circle.

use crate::history::{Entry, History};
use crate::registers::{Operation, Reply};
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// A call that had an effect, or saw one.
#[derive(Clone, Copy, Debug)]
struct Call {
    operation: Operation,
    begins: u64,
    /// `None` if nobody saw the end.
    ends: Option<u64>,
    /// Writes that it has seen, if it is a read.
    saw: Option<u64>,
}

/// Checks all answered calls, and all writes that the orders hold, against the orders.
///
/// # Errors
/// Names calls that come before each other.
pub fn check(history: &History, orders: &BTreeMap<u8, Vec<u64>>) -> Result<(), String> {
    let calls: Vec<Call> = history.entries().iter().filter_map(call).collect();
    let writes = calls.iter().enumerate().filter_map(|(at, call)| Some((call.operation.id()?, at)));
    let writes: BTreeMap<u64, usize> = writes.collect();
    for (call, id) in calls.iter().filter_map(|call| Some((call, call.operation.id()?))) {
        let holds = |key: &u8| orders.get(key).is_some_and(|order| order.contains(&id));
        let there = call.operation.keys().iter().filter(|key| holds(key)).count();
        if there != 0 && there != call.operation.keys().len() {
            return Err(format!("{:?} was applied to one register and not to the other", call.operation));
        }
    }
    let mut after: Vec<Vec<usize>> = vec![Vec::new(); calls.len()];
    let mut add = |one: Option<&usize>, next: Option<&usize>| {
        if let (Some(one), Some(next)) = (one, next)
            && let Some(list) = after.get_mut(*one)
        {
            list.push(*next);
        }
    };
    for (key, order) in orders {
        let place = |index: usize| order.get(index).and_then(|id| writes.get(id));
        for index in 1..order.len() {
            add(place(index - 1), place(index));
        }
        for (at, call) in calls.iter().enumerate().filter(|(_, call)| call.operation.key() == *key) {
            let Some(saw) = call.saw.and_then(|saw| usize::try_from(saw).ok()) else { continue };
            add(saw.checked_sub(1).and_then(place), Some(&at));
            add(Some(&at), place(saw));
        }
    }
    let written: BTreeSet<u64> = orders.values().flatten().copied().collect();
    let in_effect = |call: &Call| call.operation.id().is_none_or(|id| written.contains(&id));
    let counted: Vec<(usize, &Call)> = calls.iter().enumerate().filter(|(_, call)| in_effect(call)).collect();
    for (at, call) in &counted {
        for (next, _) in counted.iter().filter(|(_, other)| call.ends.is_some_and(|end| end < other.begins)) {
            add(Some(at), Some(next));
        }
    }
    in_a_circle(&after).map_or(Ok(()), |circle| {
        let names: Vec<String> = circle.iter().filter_map(|at| calls.get(*at)).map(|it| format!("{it:?}")).collect();
        Err(format!("these come before each other: {}", names.join("; ")))
    })
}

fn call(entry: &Entry) -> Option<Call> {
    let operation = Operation::decode(entry.bytes()).ok()?;
    if entry.stale().is_some() || entry.had_no_effect() {
        return None;
    }
    let told = entry.answer().and_then(|answer| Reply::decode(&answer.reply).ok());
    let ends = entry.returned.as_ref().filter(|_| entry.answer().is_some()).map(|(moment, _)| *moment);
    let saw = told.filter(|_| operation.id().is_none()).map(|reply| reply.revision);
    let unanswered_read = operation.id().is_none() && saw.is_none();
    (!unanswered_read).then_some(Call { operation, begins: entry.invoked, ends, saw })
}

/// Some calls that lie on a circle, or between two.
fn in_a_circle(after: &[Vec<usize>]) -> Option<Vec<usize>> {
    let mut before = vec![0_usize; after.len()];
    for next in after.iter().flatten() {
        if let Some(count) = before.get_mut(*next) {
            *count += 1;
        }
    }
    let mut ready: Vec<usize> = (0..after.len()).filter(|at| before.get(*at) == Some(&0)).collect();
    let mut taken = vec![false; after.len()];
    while let Some(at) = ready.pop() {
        if let Some(it) = taken.get_mut(at) {
            *it = true;
        }
        for next in after.get(at).into_iter().flatten() {
            if let Some(count) = before.get_mut(*next) {
                *count -= 1;
                if *count == 0 {
                    ready.push(*next);
                }
            }
        }
    }
    let left: Vec<usize> = (0..after.len()).filter(|at| taken.get(*at) == Some(&false)).take(4).collect();
    (!left.is_empty()).then_some(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::protocol::{Answer, Call as Asked, Consistency};

    fn begin(history: &mut History, operation: Operation) -> usize {
        let bytes = operation.encode().into();
        let is_read = operation.id().is_none();
        let call = if is_read { Asked::Read(Consistency::Linearizable, bytes) } else { Asked::Apply(bytes) };
        history.invoke(0, call, 0)
    }

    fn end(history: &mut History, index: usize, revision: u64) {
        let reply = Reply { revision, found: 0 }.encode().into();
        history.complete(index, Ok(Answer { reply, op: Default::default() }));
    }

    const BOTH: Operation = Operation::Both { key: 0, other: 1, value: 7 };

    fn orders(one: &[u64], other: &[u64]) -> BTreeMap<u8, Vec<u64>> {
        BTreeMap::from([(0, one.to_vec()), (1, other.to_vec())])
    }

    #[test]
    fn a_write_of_two_that_is_seen_on_both_holds() {
        let mut history = History::default();
        let both = begin(&mut history, BOTH);
        for key in [0, 1] {
            let read = begin(&mut history, Operation::Get { key });
            end(&mut history, read, 1);
        }
        end(&mut history, both, 1);
        assert_eq!(check(&history, &orders(&[7], &[7])), Ok(()));
    }

    #[test]
    fn a_write_of_two_that_is_seen_on_one_and_then_not_on_the_other_is_caught() {
        let mut history = History::default();
        let both = begin(&mut history, BOTH);
        for (key, saw) in [(0, 1), (1, 0)] {
            let read = begin(&mut history, Operation::Get { key });
            end(&mut history, read, saw);
        }
        end(&mut history, both, 1);
        assert!(check(&history, &orders(&[7], &[7])).is_err());
    }

    #[test]
    fn two_writes_of_two_in_two_orders_are_caught() {
        let mut history = History::default();
        begin(&mut history, BOTH);
        begin(&mut history, Operation::Both { key: 0, other: 1, value: 8 });
        assert_eq!(check(&history, &orders(&[7, 8], &[7, 8])), Ok(()));
        assert!(check(&history, &orders(&[7, 8], &[8, 7])).is_err());
    }

    #[test]
    fn a_write_of_two_on_one_of_them_is_caught() {
        let mut history = History::default();
        begin(&mut history, BOTH);
        assert!(check(&history, &orders(&[7], &[])).is_err());
    }

    #[test]
    fn a_write_that_was_answered_before_another_began_comes_first() {
        let mut history = History::default();
        let one = begin(&mut history, Operation::Put { key: 0, value: 3 });
        end(&mut history, one, 1);
        begin(&mut history, BOTH);
        assert_eq!(check(&history, &orders(&[3, 7], &[7])), Ok(()));
        assert!(check(&history, &orders(&[7, 3], &[7])).is_err());
    }
}
