//! What always holds, by name. The simulator asks after every turn.

use super::normal::OPEN_BLOCKS_MAX;
use super::replica::Replica;
use super::safety::Rules;

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 7] = [
        ("executed_is_committed", executed_is_committed),
        ("a_view_is_entered_with_a_certificate", a_view_is_entered_with_a_certificate),
        ("the_lock_is_certified", the_lock_is_certified),
        ("the_last_vote_is_not_beyond_what_was_promised", the_last_vote_is_not_beyond_what_was_promised),
        ("a_timeout_ends_voting", a_timeout_ends_voting),
        ("open_blocks_are_bounded", open_blocks_are_bounded),
        ("the_silent_propose_nothing", the_silent_propose_nothing),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: view {}, voted {}, high {}, lock {:?}, base {}, committed {}, given {}, executed {}, open {}",
            replica.view(),
            replica.safety.voted,
            replica.high.view(),
            replica.safety.locked,
            replica.tree.base().op,
            replica.committed(),
            replica.machine.dispatched,
            replica.machine.executed,
            replica.tree.open_count(),
        )),
    }
}

fn executed_is_committed(replica: &Replica) -> bool {
    let machine = &replica.machine;
    machine.executed <= machine.dispatched && machine.dispatched <= replica.committed()
}

fn a_view_is_entered_with_a_certificate(replica: &Replica) -> bool {
    let timed_out = replica.tc.as_ref().map(|tc| tc.view().next());
    timed_out.max(Some(replica.high.view().next())) == Some(replica.view())
}

fn the_lock_is_certified(replica: &Replica) -> bool {
    let (lock, high) = (replica.safety.locked.view, replica.high.view());
    match replica.config.rules {
        Rules::ThreeChain => lock < high || high.get() == 0,
        Rules::TwoChain => lock <= high,
    }
}

fn the_last_vote_is_not_beyond_what_was_promised(replica: &Replica) -> bool {
    replica.safety.vote.is_none_or(|vote| vote.view <= replica.safety.voted)
}

fn a_timeout_ends_voting(replica: &Replica) -> bool {
    replica.safety.timeout.is_none_or(|timeout| timeout.view <= replica.safety.voted)
}

fn open_blocks_are_bounded(replica: &Replica) -> bool {
    // Those of the branches that it keeps are never dropped; they bring no requests beyond the bound.
    let open = || replica.tree.open().filter(|(_, block)| !block.payload.is_empty()).count();
    replica.tree.open_count() <= OPEN_BLOCKS_MAX || open() <= 2 * OPEN_BLOCKS_MAX
}

fn the_silent_propose_nothing(replica: &Replica) -> bool {
    replica.may_vote() || replica.own_timeout.is_none()
}
