//! What always holds, by name. The simulator asks after every turn.

use super::message::weight;
use super::publication::{INSERTED_MAX, PARKED_MAX, Pending};
use super::replica::Replica;
use quorate_core::protocol;

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold: PBFT's, or one's own.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    protocol::Replica::check(&replica.module)?;
    let checks: [(&str, Invariant); 7] = [
        ("the_books_agree", the_books_agree),
        ("what_is_pending_is_not_ordered", what_is_pending_is_not_ordered),
        ("nothing_that_is_here_is_unknown", nothing_that_is_here_is_unknown),
        ("liars_fill_their_own_places_only", liars_fill_their_own_places_only),
        ("no_time_is_ahead_of_the_clock", no_time_is_ahead_of_the_clock),
        ("the_log_keeps_what_is_pending", the_log_keeps_what_is_pending),
        ("what_is_compared_is_pending", what_is_compared_is_pending),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: {} pending in {} bytes, {} unknown, {} lately ordered",
            replica.pending.len(),
            replica.bytes.values().sum::<usize>(),
            replica.unknown.len(),
            replica.inserted.len()
        )),
    }
}

fn the_books_agree(replica: &Replica) -> bool {
    let of = |is: fn(&Pending) -> bool| -> usize {
        replica.pending.values().filter(|pending| is(pending)).map(|pending| weight(&pending.group)).sum()
    };
    let by_clients = replica.client_bytes.values().sum::<usize>();
    of(|_| true) == replica.bytes.values().sum::<usize>() && of(|pending| pending.giver.is_none()) == by_clients
}

fn what_is_pending_is_not_ordered(replica: &Replica) -> bool {
    !replica.pending.keys().any(|digest| replica.inserted.contains_key(digest))
}

fn nothing_that_is_here_is_unknown(replica: &Replica) -> bool {
    let mut told = replica.parked.values().flat_map(|told| &told.digests);
    !replica.unknown.keys().any(|digest| replica.pending.contains_key(digest))
        && told.all(|digest| replica.unknown.contains_key(digest))
}

fn liars_fill_their_own_places_only(replica: &Replica) -> bool {
    let within = replica.parked.values().all(|told| told.digests.len() <= PARKED_MAX);
    within
        && replica.spent.holds()
        && replica.inserted.len() <= INSERTED_MAX
        && replica.inserted.len() <= replica.inserted_order.len()
}

fn what_is_compared_is_pending(replica: &Replica) -> bool {
    replica.comparisons.waiting.iter().all(|digest| replica.pending.contains_key(digest))
}

fn no_time_is_ahead_of_the_clock(replica: &Replica) -> bool {
    replica.pending.values().all(|pending| pending.time <= replica.clock)
}

fn the_log_keeps_what_is_pending(replica: &Replica) -> bool {
    let forgotten = replica.forgotten;
    replica.pending.values().all(|pending| replica.needed.contains(&pending.seq) && pending.seq >= forgotten)
}
