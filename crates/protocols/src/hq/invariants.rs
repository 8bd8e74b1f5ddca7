//! What always holds, by name. The simulator asks after every turn.

use super::object::{Object, Phase};
use super::ordered::Rank;
use super::replica::Replica;
use quorate_core::crypto::Digest;

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
    let idle = |(_, it): &(&Digest, &Object)| matches!(it.phase, Phase::Free);
    let waits = |(id, it): &(&Digest, &Object)| replica.across.waits_for(**id, it.now.joined);
    if let Some((id, _)) = replica.objects.iter().filter(idle).find(waits) {
        return Err(format!("what_an_operation_on_several_waits_for_is_not_free: object {id:?}"));
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
        (None, Some(_)) => false,
    }
}

fn one_write_can_be_taken_back(_: &Digest, object: &Object) -> bool {
    let ts = object.now.version().ts;
    object.before.as_ref().is_none_or(|(state, _)| state.version().ts.next() == ts)
}

fn a_frozen_object_is_as_it_said(_: &Digest, object: &Object) -> bool {
    match &object.phase {
        Phase::Frozen(start) => {
            (start.statement().version(), start.statement().seen) == (object.now.version(), object.seen)
        }
        _ => true,
    }
}
