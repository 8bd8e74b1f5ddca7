//! What always holds, by name. The simulator asks after every turn.

use super::object::{Object, Phase};
use super::ordered::Rank;
use super::replica::Replica;
use quorate_core::crypto::Digest;
use quorate_core::ids::OpNumber;

type Invariant = fn(&Digest, &Object) -> bool;

/// The first invariant that does not hold, with the values that break it.
pub(super) fn check(replica: &Replica) -> Result<(), String> {
    let checks: [(&str, Invariant); 5] = [
        ("a_grant_is_for_the_next_place", a_grant_is_for_the_next_place),
        ("what_is_granted_is_here", what_is_granted_is_here),
        ("the_latest_write_fits_its_proof", the_latest_write_fits_its_proof),
        ("one_write_can_be_taken_back", one_write_can_be_taken_back),
        ("a_frozen_object_is_as_it_said", a_frozen_object_is_as_it_said),
    ];
    for (id, object) in &replica.objects {
        if let Some((name, _)) = checks.iter().find(|(_, holds)| !holds(id, object)) {
            let (version, seen) = (object.now.version(), object.seen);
            return Err(format!("{name}: object {id:?} at {version:?}, resolved at {seen}, grant {:?}", object.grant));
        }
    }
    let idle = |(_, it): &(&Digest, &Object)| matches!(it.phase, Phase::Free) && it.due.is_empty();
    let waits = |(id, it): &(&Digest, &Object)| replica.has_to_freeze(**id, it);
    if let Some((id, _)) = replica.objects.iter().filter(idle).find(waits) {
        return Err(format!("what_an_operation_on_several_waits_for_is_not_free: object {id:?}"));
    }
    let granted = |(id, it): &(&Digest, &Object)| {
        let course = replica.course(**id);
        it.grant.is_some() && course.seen == it.seen && course.is_in_order()
    };
    if let Some((id, _)) = replica.objects.iter().find(granted) {
        return Err(format!("nothing_is_granted_in_ordered_mode: object {id:?}"));
    }
    let life = replica.lives.own();
    if let Some((id, _)) = replica.objects.iter().find(|(_, it)| it.grant.is_some() && it.seen < life) {
        return Err(format!("nothing_is_granted_that_a_former_self_may_have_granted: object {id:?}"));
    }
    let lags = |(id, it): &(&Digest, &Object)| it.is_free() && it.seen != replica.course(**id).seen;
    if !replica.catches_up()
        && let Some((id, it)) = replica.objects.iter().filter(|(_, it)| it.decided.is_none()).find(lags)
    {
        return Err(format!(
            "a_free_object_is_through_what_was_ordered_for_it: object {id:?}, resolved at {}",
            it.seen
        ));
    }
    if replica.steps.done > replica.steps.asked {
        return Err(format!(
            "steps_are_done_after_they_were_asked_for: {} > {}",
            replica.steps.done, replica.steps.asked
        ));
    }
    Ok(())
}

fn a_grant_is_for_the_next_place(_: &Digest, object: &Object) -> bool {
    object.grant.as_ref().is_none_or(|grant| grant.statement().version == object.next())
}

fn what_is_granted_is_here(_: &Digest, object: &Object) -> bool {
    object.grant.as_ref().is_none_or(|grant| object.body(grant.statement().hash).is_some())
}

fn the_latest_write_fits_its_proof(id: &Digest, object: &Object) -> bool {
    match (&object.now.proof, &object.now.last) {
        (None, None) => true,
        (Some(proof), Some(last)) => proof.statement().is_for(last.ask()) && proof.statement().object == *id,
        (Some(proof), None) => proof.statement().object == *id && object.now.joined != Rank::default(),
        (None, Some(last)) => last.ask().object == *id && object.now.version().vs > OpNumber::ZERO, // PBFT gave it its place
    }
}

fn one_write_can_be_taken_back(_: &Digest, object: &Object) -> bool {
    let ts = object.now.version().ts;
    object.before.as_ref().is_none_or(|(state, _)| state.version().ts.next() == ts)
}

fn a_frozen_object_is_as_it_said(_: &Digest, object: &Object) -> bool {
    match &object.phase {
        Phase::Frozen(start) => {
            let said = start.statement();
            (&said.current, said.seen) == (&object.now.proof, object.seen)
        }
        _ => true,
    }
}
