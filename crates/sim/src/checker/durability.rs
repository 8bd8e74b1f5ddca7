//! **No acknowledged operation lost**: a write whose client was answered is in the state of every replica in the end.

use crate::history::History;
use crate::registers::Operation;
use quorate_core::wire::Wire;
use std::collections::BTreeSet;

/// Checks one replica's order of effects.
///
/// # Errors
/// Names the write that is missing.
pub fn check(history: &History, order: &[u64]) -> Result<(), String> {
    let there: BTreeSet<u64> = order.iter().copied().collect();
    for entry in history.entries().iter().filter(|entry| entry.answer().is_some()) {
        if let Some(id) = Operation::decode(entry.bytes()).ok().and_then(Operation::id)
            && !there.contains(&id)
        {
            return Err(format!("the write of {id} was acknowledged and is gone"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::protocol::{Answer, Call};

    #[test]
    fn a_write_that_was_acknowledged_and_is_gone_is_caught() {
        let mut history = History::default();
        for value in [1, 2] {
            history.invoke(0, Call::Apply(Operation::Put { key: 0, value }.encode().into()), 0);
        }
        history.complete(0, Ok(Answer { reply: Vec::new().into(), op: Default::default() }));
        assert_eq!(check(&history, &[1]), Ok(()));
        assert_eq!(check(&history, &[1, 2]), Ok(()));
        assert!(check(&history, &[2]).is_err());
    }
}
