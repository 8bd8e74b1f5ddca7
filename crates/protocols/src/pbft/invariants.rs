//! What always holds, by name. The simulator asks after every turn.

use super::normal::EARLY_ENTRIES_MAX;
use super::replica::{Phase, Replica};
use quorate_core::ids::OpNumber;

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 10] = [
        ("executed_is_committed", executed_is_committed),
        ("votes_are_within_the_watermarks", votes_are_within_the_watermarks),
        ("prepared_before_the_present_view_or_in_it", prepared_before_the_present_view_or_in_it),
        ("a_vote_is_for_what_was_accepted", a_vote_is_for_what_was_accepted),
        ("proposed_within_the_watermarks", proposed_within_the_watermarks),
        ("the_log_begins_below_the_watermark", the_log_begins_below_the_watermark),
        ("few_proposals_are_held_early", few_proposals_are_held_early),
        ("a_view_above_zero_has_a_start", a_view_above_zero_has_a_start),
        ("the_silent_do_not_change_views", the_silent_do_not_change_views),
        ("what_was_tried_comes_next", what_was_tried_comes_next),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: view {}, base {}, h {}, committed {}, proposed {}, last {}, given {}, executed {}",
            replica.view,
            replica.base.0,
            replica.low(),
            replica.committed,
            replica.proposed,
            replica.log.last(),
            replica.machine.dispatched,
            replica.machine.executed,
        )),
    }
}

fn executed_is_committed(replica: &Replica) -> bool {
    let machine = &replica.machine;
    machine.executed <= machine.dispatched && machine.dispatched <= replica.committed
}

fn votes_are_within_the_watermarks(replica: &Replica) -> bool {
    let (low, high) = match replica.silent {
        None => (replica.low(), replica.high()),
        // Whoever has lost the record of its last checkpoint may have votes above the watermark of the one before. Its silence
        // lasts until the log is stable beyond all of them.
        Some(silence) => (OpNumber::ZERO, silence.until.unwrap_or(OpNumber::new(u64::MAX))),
    };
    replica.log.iter().all(|(op, slot)| slot.voted.is_none() || (op > low && op <= high))
}

fn prepared_before_the_present_view_or_in_it(replica: &Replica) -> bool {
    let views = replica.log.iter().filter_map(|(_, slot)| slot.prepared.as_ref());
    views.into_iter().all(|it| it.statement().view <= replica.view)
}

fn a_vote_is_for_what_was_accepted(replica: &Replica) -> bool {
    replica.log.iter().all(|(_, slot)| slot.voted.is_none() || slot.voted == slot.accepted)
}

fn proposed_within_the_watermarks(replica: &Replica) -> bool {
    !replica.is_active() || !replica.is_primary() || replica.proposed <= replica.high().max(replica.committed)
}

fn the_log_begins_below_the_watermark(replica: &Replica) -> bool {
    replica.base.0 <= replica.low()
}

fn few_proposals_are_held_early(replica: &Replica) -> bool {
    replica.early.len() <= EARLY_ENTRIES_MAX // of a view that has not started, they may be more than a small window
}

fn a_view_above_zero_has_a_start(replica: &Replica) -> bool {
    matches!(replica.phase, Phase::Changing { .. }) || replica.view.get() == 0 || replica.start.is_some()
}

fn the_silent_do_not_change_views(replica: &Replica) -> bool {
    replica.may_vote() || replica.own_change.is_none()
}

fn what_was_tried_comes_next(replica: &Replica) -> bool {
    replica.tentative.op().is_none_or(|op| op == replica.machine.dispatched.next() && replica.is_active())
}
