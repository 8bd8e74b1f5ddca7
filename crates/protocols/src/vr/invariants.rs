//! What always holds, by name. The simulator asks after every turn.

use super::WINDOW_ENTRIES;
use super::replica::{Phase, Replica};

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 10] = [
        ("view_at_least_log_view", view_at_least_log_view),
        ("normal_means_log_view_is_view", normal_means_log_view_is_view),
        ("log_is_chained", log_is_chained),
        ("log_starts_where_it_was_promised", log_starts_where_it_was_promised),
        ("committed_is_here", committed_is_here),
        ("committed_is_at_most_known", committed_is_at_most_known),
        ("executed_is_committed", executed_is_committed),
        ("primary_leads_its_view", primary_leads_its_view),
        ("primary_has_its_whole_log", primary_has_its_whole_log),
        ("window_is_respected", window_is_respected),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: view {}, log view {}, base {}, whole to {}, head {}, committed {} of {}, given {}, executed {}",
            replica.view(),
            replica.durable.log_view(),
            replica.log.base().op,
            replica.log.whole_to(),
            replica.log.head(),
            replica.committed,
            replica.committed_max,
            replica.machine.dispatched,
            replica.machine.executed,
        )),
    }
}

fn view_at_least_log_view(replica: &Replica) -> bool {
    replica.view() >= replica.durable.log_view()
}

fn normal_means_log_view_is_view(replica: &Replica) -> bool {
    !replica.is_normal() || replica.view() == replica.durable.log_view()
}

fn log_is_chained(replica: &Replica) -> bool {
    replica.log.is_chained()
}

fn log_starts_where_it_was_promised(replica: &Replica) -> bool {
    replica.log.base() == replica.durable.base() || matches!(replica.phase, Phase::RecoveringHead)
}

fn committed_is_here(replica: &Replica) -> bool {
    replica.committed >= replica.log.base().op && replica.committed <= replica.log.whole_to()
}

fn committed_is_at_most_known(replica: &Replica) -> bool {
    replica.committed <= replica.committed_max
}

fn executed_is_committed(replica: &Replica) -> bool {
    let machine = &replica.machine;
    let restored = machine.dispatched == replica.checkpoint().op; // ahead of the log after a crash: `begin_at_checkpoint`
    machine.executed <= machine.dispatched && (machine.dispatched <= replica.committed || machine.behind || restored)
}

fn primary_leads_its_view(replica: &Replica) -> bool {
    !matches!(replica.phase, Phase::Primary(_)) || replica.primary() == replica.me
}

fn primary_has_its_whole_log(replica: &Replica) -> bool {
    !matches!(replica.phase, Phase::Primary(_)) || replica.log.is_whole()
}

/// D20: entries beyond the window are committed, which log selection relies on.
fn window_is_respected(replica: &Replica) -> bool {
    match replica.phase {
        Phase::Primary(_) => replica.log.head().since(replica.committed_max) <= WINDOW_ENTRIES,
        _ => true,
    }
}
