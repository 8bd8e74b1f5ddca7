//! **Liveness 1** and **Liveness 2** of seed 004, judged when everything has healed and a bounded time has passed: "hvis en
//! x er tilføjet til unprocessed, så vil det på sigt blive proseceret" and "alle outputs vil på sigt blive leveret".

use super::{Broken, Property};
use crate::clock::MILLI;
use crate::history::{Entry, History};
use crate::registers::Operation;
use quorate_core::protocol::CallError;
use quorate_core::wire::Wire;

/// Checks that nobody who is alive still waits. `orders` are the effects in each replica's state.
///
/// # Errors
/// Liveness 1 for a write that some replica has not processed, or a read that nobody answered; Liveness 2 for a write that
/// all have processed and whose client has not been told.
pub fn check(history: &History, orders: &[&[u64]]) -> Result<(), Broken> {
    let Some(entry) = history.entries().iter().find(|entry| entry.is_pending()) else { return Ok(()) };
    let operation = Operation::decode(entry.bytes()).ok();
    let processed = operation.and_then(Operation::id).map(|id| orders.iter().all(|order| order.contains(&id)));
    let (client, at) = (entry.client, entry.invoked_at / MILLI);
    let call = format!("client {client}'s {operation:?}, called at {at} ms,");
    Err(match processed {
        Some(true) => (Property::LIVENESS_2, format!("{call} was processed everywhere and never answered")),
        Some(false) => (Property::LIVENESS_1, format!("{call} was never processed everywhere")),
        None => (Property::LIVENESS_1, format!("{call} was never answered")),
    })
}

/// Checks that every call that was pending when everything had healed, or was made later, was answered within `bound`
/// nanoseconds, if its client waited so long: `patience` nanoseconds after the call it gives up.
///
/// # Errors
/// Liveness 1: names the call that was given up.
pub fn answered(history: &History, healed: u64, bound: u64, patience: u64) -> Result<(), Broken> {
    let due = |entry: &&Entry| {
        let gave_up = matches!(entry.returned, Some((_, Err(CallError::Timeout { .. }))));
        gave_up && entry.invoked_at.saturating_add(patience) >= healed.saturating_add(bound)
    };
    let Some(entry) = history.entries().iter().find(due) else { return Ok(()) };
    let (client, at, healed) = (entry.client, entry.invoked_at / MILLI, healed / MILLI);
    let operation = Operation::decode(entry.bytes()).ok();
    let call = format!("client {client}'s {operation:?}, called at {at} ms, had no answer in time");
    Err((Property::LIVENESS_1, format!("{call}, though everything had healed at {healed} ms")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_core::protocol::{Answer, Call};

    fn waiting() -> History {
        let mut history = History::default();
        history.invoke(0, Call::Apply(Operation::Put { key: 0, value: 1 }.encode().into()), 0);
        history
    }

    #[test]
    fn a_request_that_is_never_processed_breaks_liveness_1() {
        assert_eq!(check(&waiting(), &[&[1], &[]]).map_err(|(name, _)| name), Err(Property::LIVENESS_1));
    }

    #[test]
    fn an_output_that_is_never_delivered_breaks_liveness_2() {
        assert_eq!(check(&waiting(), &[&[1], &[1]]).map_err(|(name, _)| name), Err(Property::LIVENESS_2));
    }

    #[test]
    fn a_call_that_is_given_up_long_after_everything_has_healed_breaks_liveness_1() {
        let mut history = waiting();
        history.complete(0, Err(CallError::Timeout { maybe_applied: true }));
        assert_eq!(answered(&history, 0, 10, 10).map_err(|(name, _)| name), Err(Property::LIVENESS_1));
        assert_eq!(answered(&history, 1, 10, 10), Ok(())); // it had less time than the bound
    }

    #[test]
    fn whoever_has_died_or_was_answered_does_not_wait() {
        let (mut answered, mut dead) = (waiting(), waiting());
        answered.complete(0, Ok(Answer { reply: Vec::new().into(), op: Default::default() }));
        dead.abandon(0);
        assert_eq!(check(&answered, &[&[]]), Ok(()));
        assert_eq!(check(&dead, &[&[]]), Ok(()));
    }
}
