//! What was violated, in words, by which events; and what everybody executed, side by side.

use crate::checker::{Property, Violation};
use crate::trace::{Happened, Recording, What};
use quorate_core::crypto::Digest;
use quorate_core::ids::OpNumber;
use std::collections::{BTreeMap, BTreeSet};

/// Entries that the table of orders shows at most.
const COLUMNS_MAX: usize = 9;

/// The events that show a violation, oldest first.
pub fn offenders(recording: &Recording, violation: &Violation) -> Vec<usize> {
    let events = || recording.events.iter().enumerate();
    match violation.property {
        Property::AGREEMENT | Property::DIGESTS | Property::SAFETY => {
            // The last execution before the violation is the one that did not fit.
            let is_violation = |event: &Happened| matches!(event.what, What::Violated { .. });
            let end = recording.events.iter().position(is_violation).unwrap_or(recording.events.len());
            let last = events().take(end).rev().find_map(|(index, event)| Some((index, state(event)?)));
            let Some((last, (replica, op, ..))) = last else { return Vec::new() };
            let same_entry = |(index, event): (usize, &Happened)| {
                let (other, at, ..) = state(event)?;
                (at == op && index != last && other != replica).then_some(index)
            };
            let first = events().take(last).find_map(same_entry);
            first.into_iter().chain([last]).collect()
        }
        Property::INVARIANT | Property::STORE | Property::NO_HALT => {
            let replica = violation.detail.strip_prefix('R').and_then(|rest| {
                let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
                digits.parse::<usize>().ok()
            });
            let of_it = |(index, event): (usize, &Happened)| {
                (replica.is_some() && event.at <= violation.at && event.what.replica() == replica).then_some(index)
            };
            events().rev().find_map(of_it).into_iter().collect()
        }
        _ => events().filter_map(|(index, event)| is_named(&event.what, &violation.detail).then_some(index)).collect(),
    }
}

/// Which replica executed which entry, and the batch's and the state's digest.
fn state(event: &Happened) -> Option<(usize, OpNumber, Option<Digest>, Digest)> {
    match &event.what {
        What::Executed { replica, op, batch, state, .. } => Some((*replica, *op, Some(*batch), *state)),
        What::Installed { replica, op, state } => Some((*replica, *op, None, *state)),
        _ => None,
    }
}

/// Does a checker's sentence name the write that this event is about? Writes carry numbers that nobody else writes.
fn is_named(what: &What, detail: &str) -> bool {
    let asked = match what {
        What::Called { asked, .. } => asked,
        _ => return false,
    };
    let Some((_, value)) = asked.split_once(":= ") else { return false };
    let number: String = value.chars().take_while(char::is_ascii_digit).collect();
    [format!("value: {number} }}"), format!("the write of {number} ")].iter().any(|named| detail.contains(named))
}

/// What the property promises, for a person who has not read the checkers.
pub fn promise(property: &str) -> &'static str {
    match property {
        Property::AGREEMENT => "As the same entry, all replicas must execute the same batch.",
        Property::DIGESTS => "After the same entry, all replicas must be in the same state.",
        Property::SAFETY => "As the same entry, all replicas must put out the same.",
        Property::LIVENESS_1 => "When everything has healed, every call must be processed.",
        Property::LIVENESS_2 => "When everything has healed, every caller must be answered.",
        Property::CONVERGENCE => "When everything has healed, all replicas must reach one state.",
        Property::EXACTLY_ONCE => "Each request must have its effect once.",
        Property::DURABILITY => "What a client was told has happened must stay.",
        Property::LINEARIZABILITY => "Clients must not be able to tell the cluster from one machine.",
        Property::REVISIONS => "Every answer must be the agreed order's, at the place that it names.",
        Property::INVARIANT => "What the protocol says of its own state must hold after every turn.",
        Property::NO_HALT => "No replica may stop itself over what these faults do.",
        _ => "",
    }
}

/// One replica's execution of one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The event.
    pub event: usize,
    /// What was executed and what it came to.
    pub text: String,
    /// Is it another batch, or another state, than somebody else has there?
    pub differs: bool,
}

/// What everybody executed: the entries shown, and by replica what each was. `None` where a replica executed nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Orders {
    /// The entries.
    pub entries: Vec<OpNumber>,
    /// By replica, by entry.
    pub rows: Vec<Vec<Option<Cell>>>,
    /// The first entry at which two replicas differ.
    pub first_difference: Option<OpNumber>,
}

/// Puts all executions up to `end` side by side: the first entries, or those around the first difference.
pub fn orders(recording: &Recording, end: u64) -> Orders {
    let mut by_entry: BTreeMap<OpNumber, BTreeMap<usize, Did>> = BTreeMap::new();
    for (index, event) in recording.events.iter().enumerate().filter(|(_, event)| event.at <= end) {
        let Some((replica, op, batch, state)) = state(event) else { continue };
        let text = match &event.what {
            What::Executed { applied, .. } => {
                let words: Vec<String> = applied.iter().map(crate::trace::Applied::text).collect();
                words.join(", ")
            }
            _ => "from a checkpoint".to_owned(),
        };
        by_entry.entry(op).or_default().insert(replica, Did { event: index, text, batch, state });
    }
    let first_difference = by_entry.iter().find(|(_, row)| differ(row)).map(|(op, _)| *op);
    let before = by_entry.range(..first_difference.unwrap_or_default()).count();
    let skip = before.saturating_sub(COLUMNS_MAX / 2);
    let shown: Vec<(OpNumber, BTreeMap<usize, Did>)> = by_entry.into_iter().skip(skip).take(COLUMNS_MAX).collect();
    let rows = (0..recording.replicas).map(|replica| {
        let cell = |column: &BTreeMap<usize, Did>| {
            let Did { event, text, .. } = column.get(&replica)?;
            Some(Cell { event: *event, text: text.clone(), differs: differ(column) })
        };
        shown.iter().map(|(_, column)| cell(column)).collect()
    });
    let rows = rows.collect();
    Orders { entries: shown.iter().map(|(op, _)| *op).collect(), rows, first_difference }
}

/// One replica's execution of one entry, before it is known what the others did.
struct Did {
    event: usize,
    text: String,
    batch: Option<Digest>,
    state: Digest,
}

/// Did two replicas execute different batches here, or reach different states?
fn differ(column: &BTreeMap<usize, Did>) -> bool {
    let batches: BTreeSet<&Digest> = column.values().filter_map(|did| did.batch.as_ref()).collect();
    let states: BTreeSet<&Digest> = column.values().map(|did| &did.state).collect();
    batches.len() > 1 || states.len() > 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Applied;

    fn executed(at: u64, replica: usize, op: u64, batch: &str) -> Happened {
        let applied = vec![Applied { request: batch.to_owned(), reply: Some("ok".to_owned()) }];
        let (op, digest) = (OpNumber::new(op), Digest::of(batch.as_bytes()));
        Happened { at, what: What::Executed { replica, op, batch: digest, state: digest, applied } }
    }

    fn diverged() -> (Recording, Violation) {
        let events = vec![
            executed(1, 0, 1, "set 1"),
            executed(2, 1, 1, "set 1"),
            executed(3, 0, 2, "div 2"),
            executed(4, 1, 2, "add 1"),
        ];
        let violation = Violation { property: Property::AGREEMENT, detail: String::new(), at: 4 };
        (Recording { events, dropped: 0, replicas: 2, clients: 0 }, violation)
    }

    #[test]
    fn two_replicas_that_execute_different_batches_are_the_offenders() {
        let (recording, violation) = diverged();
        assert_eq!(offenders(&recording, &violation), [2, 3]);
    }

    #[test]
    fn the_table_of_orders_shows_where_two_replicas_part() {
        let (recording, _) = diverged();
        let orders = orders(&recording, 4);
        assert_eq!(orders.first_difference, Some(OpNumber::new(2)));
        let differs: Vec<Vec<bool>> =
            orders.rows.iter().map(|row| row.iter().flatten().map(|cell| cell.differs).collect()).collect();
        assert_eq!(differs, [[false, true], [false, true]]);
        assert_eq!(orders.rows[1][1].as_ref().map(|cell| cell.text.as_str()), Some("add 1 ⇒ ok"));
    }

    #[test]
    fn a_lost_write_is_found_by_its_number() {
        let asked =
            |value: u64| What::Called { client: 0, call: 0, asked: format!("r0 := {value} if 1"), reads: false };
        let events = vec![Happened { at: 1, what: asked(12) }, Happened { at: 2, what: asked(112) }];
        let recording = Recording { events, dropped: 0, replicas: 3, clients: 1 };
        let detail = "the write of 12 was acknowledged and is gone".to_owned();
        let violation = Violation { property: Property::DURABILITY, detail, at: 9 };
        assert_eq!(offenders(&recording, &violation), [0]);
    }
}
