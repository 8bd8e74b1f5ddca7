//! **Exactly once**: in every replica's state, each request's effect is there once at most, belongs to a call that was
//! made, and is absent if the client was told that the call had no effect.

use crate::history::History;
use crate::registers::Operation;
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// Checks one replica's order of effects.
///
/// # Errors
/// Names the effect that is too many.
pub fn check(history: &History, order: &[u64]) -> Result<(), String> {
    let made: BTreeMap<u64, bool> = history
        .entries()
        .iter()
        .filter_map(|entry| Some((Operation::decode(entry.bytes()).ok()?.id()?, entry.had_no_effect())))
        .collect();
    let mut seen = BTreeSet::new();
    for id in order {
        if !seen.insert(id) {
            return Err(format!("the write of {id} was applied twice"));
        }
        match made.get(id) {
            None => return Err(format!("the write of {id} was applied, but nobody asked for it")),
            Some(true) => {
                return Err(format!("the write of {id} was applied, but its client was told that it was not"));
            }
            Some(false) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::protocol::{Call, CallError};

    fn history() -> History {
        let mut history = History::default();
        for value in [1, 2, 3] {
            history.invoke(0, Call::Apply(Operation::Put { key: 0, value }.encode().into()), 0);
        }
        history.complete(2, Err(CallError::Timeout { maybe_applied: false }));
        history
    }

    #[test]
    fn an_effect_that_is_there_twice_is_caught() {
        assert_eq!(check(&history(), &[1, 2]), Ok(()));
        assert!(check(&history(), &[1, 2, 1]).is_err());
    }

    #[test]
    fn an_effect_that_nobody_asked_for_is_caught() {
        assert!(check(&history(), &[1, 9]).is_err());
    }

    #[test]
    fn an_effect_that_was_denied_is_caught() {
        assert!(check(&history(), &[1, 3]).is_err());
    }
}
