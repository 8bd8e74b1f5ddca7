//! What always holds, by name. The simulator asks after every turn.

use super::lanes::LANE_BATCHES_MAX;
use super::replica::Replica;

type Invariant = fn(&Replica) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 6] = [
        ("executed_is_committed", executed_is_committed),
        ("what_is_decided_follows_the_base", what_is_decided_follows_the_base),
        ("lanes_are_committed_as_decided", lanes_are_committed_as_decided),
        ("what_is_committed_is_here", what_is_committed_is_here),
        ("lanes_do_not_run_away", lanes_do_not_run_away),
        ("epochs_are_within_the_window", epochs_are_within_the_window),
    ];
    match checks.iter().find(|(_, holds)| !holds(replica)) {
        None => Ok(()),
        Some((name, _)) => Err(format!(
            "{name}: base {}, committed {}, closed {}, given {}, executed {}, epochs {:?}",
            replica.base.op,
            replica.committed(),
            replica.closed(),
            replica.machine.dispatched,
            replica.machine.executed,
            replica.epochs.keys().collect::<Vec<_>>(),
        )),
    }
}

fn executed_is_committed(replica: &Replica) -> bool {
    let machine = &replica.machine;
    // Right after a start, the log may end before the state that the machine is in.
    machine.executed <= machine.dispatched
        && (machine.dispatched <= replica.committed() || machine.dispatched == machine.boundary)
}

fn what_is_decided_follows_the_base(replica: &Replica) -> bool {
    let first = replica.decided.keys().next().is_none_or(|op| *op == replica.base.op.next());
    first && replica.committed().since(replica.base.op) == replica.decided.len() as u64
}

fn lanes_are_committed_as_decided(replica: &Replica) -> bool {
    let heads = &replica.last_decided().heads;
    replica.lanes.iter().zip(heads).all(|(lane, head)| lane.committed == *head)
}

/// Of the last epoch: of all would cost too much.
fn what_is_committed_is_here(replica: &Replica) -> bool {
    let op = replica.committed();
    op == replica.base.op || replica.batches(op).is_some()
}

fn lanes_do_not_run_away(replica: &Replica) -> bool {
    // One that is decided and was missing comes on top.
    replica.lanes.iter().all(|lane| lane.pending().0 <= 2 * LANE_BATCHES_MAX)
}

fn epochs_are_within_the_window(replica: &Replica) -> bool {
    replica.epochs.len() as u64 <= 2 * super::WINDOW_EPOCHS + 1
}
