//! What always holds, by name. The simulator asks after every turn.

use super::WINDOW_BLOCKS;
use super::replica::{Phase, Replica};

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 7] = [
        ("executed_is_committed", executed_is_committed),
        ("epochs_of_the_chain_go_up", epochs_of_the_chain_go_up),
        ("what_is_under_way_is_bounded", what_is_under_way_is_bounded),
        ("the_certificate_is_on_the_chain", the_certificate_is_on_the_chain),
        ("the_log_begins_before_what_is_executed", the_log_begins_before_what_is_executed),
        ("a_view_above_zero_has_a_start", a_view_above_zero_has_a_start),
        ("the_silent_do_not_change_views", the_silent_do_not_change_views),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: view {}, base {}, committed {}, tip {}, given {}, executed {}, certified {:?}",
            replica.view,
            replica.base.op,
            replica.committed,
            replica.log.tip().0,
            replica.order.op,
            replica.machine.executed,
            replica.certified.as_ref().map(|it| it.statement().op),
        )),
    }
}

fn executed_is_committed(replica: &Replica) -> bool {
    replica.machine.executed <= replica.order.op && replica.order.op <= replica.committed
}

fn epochs_of_the_chain_go_up(replica: &Replica) -> bool {
    let epochs = replica.log.after(replica.log.base.0).map(|link| link.epoch);
    std::iter::once(replica.log.base.1).chain(epochs).is_sorted_by(|one, next| one < next)
}

fn what_is_under_way_is_bounded(replica: &Replica) -> bool {
    replica.log.tip().0.since(replica.committed) <= WINDOW_BLOCKS.saturating_mul(2)
}

fn the_certificate_is_on_the_chain(replica: &Replica) -> bool {
    let Some(it) = replica.certified.as_ref().map(|it| *it.statement()) else { return true };
    let pending = !matches!(replica.phase, Phase::Active { adopted: true });
    pending || it.op <= replica.committed || replica.log.chain_at(it.op) == Some(it.chain())
}

fn the_log_begins_before_what_is_executed(replica: &Replica) -> bool {
    replica.base.op <= replica.committed && replica.log.base.0 == replica.base.op
}

fn a_view_above_zero_has_a_start(replica: &Replica) -> bool {
    matches!(replica.phase, Phase::Changing { .. }) || replica.view.get() == 0 || replica.start.is_some()
}

fn the_silent_do_not_change_views(replica: &Replica) -> bool {
    !replica.silent || replica.own_change.is_none()
}
