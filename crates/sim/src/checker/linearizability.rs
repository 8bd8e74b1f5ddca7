//! **Linearizability**: each call seems to take effect at one moment between its beginning and its end, and so clients
//! cannot tell the cluster from one machine (Herlihy and Wing 1990).
//!
//! The algorithm is Wing and Gong's search as Lowe improved it (2017): undo instead of copying, and a memo of (calls taken,
//! state). Two things make it short here: what nobody has seen need not be tried, and a value that is written once is gone for
//! good when it is overwritten, so whoever has found it comes before that. Registers are independent, so each is judged by
//! itself; a write of two is one of each here, and [`super::together`] judges the whole. A call whose end nobody saw may take
//! effect at any later moment, or never; stale reads promise less and are judged by [`super::revisions`].

use crate::history::{Entry, History};
use crate::registers::{Operation, Reply};
use quorate_core::wire::Wire;
use std::collections::{BTreeMap, BTreeSet};

/// Steps after which a register's history is left undecided. Reached by no history of a run's length so far.
const STEPS_MAX: u64 = 1_000_000;

/// One call on one register.
#[derive(Clone, Copy, Debug)]
struct Item {
    operation: Operation,
    begins: u64,
    /// When it ended and what it found; `None` if nobody saw the end.
    ended: Option<(u64, u64)>,
}

/// Checks every register's history.
///
/// # Errors
/// Names a register for which no order of effects explains what clients saw.
pub fn check(history: &History) -> Result<(), String> {
    let mut registers: BTreeMap<u8, Vec<Item>> = BTreeMap::new();
    for entry in history.entries() {
        let Some(item) = item(entry) else { continue };
        match item.operation {
            Operation::Both { key, other, value } => {
                for (key, shift) in [(key, 0), (other, 32)] {
                    let half = |found: u64| (found >> shift) & u64::from(u32::MAX);
                    let ended = item.ended.map(|(moment, found)| (moment, half(found)));
                    let operation = Operation::Put { key, value };
                    registers.entry(key).or_default().push(Item { operation, ended, ..item });
                }
            }
            operation => registers.entry(operation.key()).or_default().push(item),
        }
    }
    for (key, mut items) in registers {
        drop_unseen(&mut items);
        Search::new(&items).run().map_err(|reason| format!("register {key}: {reason}"))?;
    }
    Ok(())
}

/// Drops unanswered writes whose value nobody found, and no unanswered conditional write expects. If an order of effects has one
/// of them, then one without it explains what clients saw as well: until the next write that is no condition nobody can have
/// been answered, and conditional writes that failed there may never have happened.
fn drop_unseen(items: &mut Vec<Item>) {
    loop {
        let seen: BTreeSet<u64> = items
            .iter()
            .filter_map(|item| match (item.ended, item.operation) {
                (Some((_, found)), _) => Some(found),
                (None, Operation::Cas { expected, .. }) => Some(expected),
                (None, _) => None,
            })
            .collect();
        let before = items.len();
        items.retain(|item| item.ended.is_some() || item.operation.id().is_some_and(|value| seen.contains(&value)));
        if items.len() == before {
            return;
        }
    }
}

fn item(entry: &Entry) -> Option<Item> {
    if entry.stale().is_some() || entry.had_no_effect() {
        return None;
    }
    let operation = Operation::decode(entry.bytes()).ok()?;
    let ended = match &entry.returned {
        Some((moment, Ok(answer))) => Some((*moment, Reply::decode(&answer.reply).ok()?.found)),
        _ => None,
    };
    let unanswered_read = operation.id().is_none() && ended.is_none();
    (!unanswered_read).then_some(Item { operation, begins: entry.invoked, ended })
}

/// A place in the doubly linked list of beginnings and ends, in the order of their moments. Place 0 is the list's head.
#[derive(Clone, Copy, Debug)]
struct Place {
    item: usize,
    is_end: bool,
    previous: usize,
    next: usize,
}

struct Search<'a> {
    items: &'a [Item],
    places: Vec<Place>,
    /// For each item: its beginning's place and its end's, if it has one.
    where_is: Vec<(usize, Option<usize>)>,
    taken: Vec<u64>,
    ends_left: usize,
    memo: BTreeSet<(Vec<u64>, u64)>,
    /// How many calls that are not taken have found each value; empty where two writes bring one value.
    finders: BTreeMap<u64, usize>,
}

impl<'a> Search<'a> {
    fn new(items: &'a [Item]) -> Self {
        let begins = items.iter().enumerate().map(|(index, item)| (item.begins, index, false));
        let ends = items.iter().enumerate().filter_map(|(index, item)| Some((item.ended?.0, index, true)));
        let mut moments: Vec<_> = begins.chain(ends).collect();
        moments.sort_unstable();
        let count = moments.len();
        let mut places = vec![Place { item: 0, is_end: false, previous: 0, next: if count == 0 { 0 } else { 1 } }];
        let mut where_is = vec![(0, None); items.len()];
        for (index, (_, item, is_end)) in moments.into_iter().enumerate() {
            let place = index + 1;
            places.push(Place { item, is_end, previous: index, next: if place == count { 0 } else { place + 1 } });
            if is_end { where_is[item].1 = Some(place) } else { where_is[item].0 = place }
        }
        let ends_left = items.iter().filter(|item| item.ended.is_some()).count();
        let values: Vec<u64> = items.iter().filter_map(|item| item.operation.id()).collect();
        let mut finders = BTreeMap::new();
        if values.iter().collect::<BTreeSet<_>>().len() == values.len() && !values.contains(&0) {
            for (_, found) in items.iter().filter_map(|item| item.ended) {
                *finders.entry(found).or_insert(0) += 1;
            }
        }
        let taken = vec![0; items.len().div_ceil(64)];
        Self { items, places, where_is, taken, ends_left, memo: BTreeSet::new(), finders }
    }

    fn run(mut self) -> Result<(), String> {
        let mut state = 0;
        let mut undo: Vec<(usize, u64)> = Vec::new();
        let mut place = self.places[0].next;
        let mut longest = (0, self.taken.clone());
        for _ in 0..STEPS_MAX {
            if self.ends_left == 0 {
                return Ok(()); // whatever is left may never have happened
            }
            let Place { item, is_end, next, .. } = self.places[place];
            if is_end {
                // This call ended, so it must be among those taken: take back the last one and try another.
                let Some((last, before)) = undo.pop() else {
                    return Err(self.explain(&longest.1));
                };
                state = before;
                self.put_back(last);
                place = self.places[self.where_is[last].0].next;
                continue;
            }
            match self.after(item, state) {
                Some(after) if self.is_new(item, after) => {
                    undo.push((item, state));
                    state = after;
                    self.take(item);
                    if undo.len() > longest.0 {
                        longest = (undo.len(), self.taken.clone());
                    }
                    place = self.places[0].next;
                }
                _ => place = next,
            }
        }
        Ok(())
    }

    /// The register after this call, if the call can take effect now and find what it found.
    fn after(&self, item: usize, held: u64) -> Option<u64> {
        let Item { operation, ended, .. } = self.items[item];
        let fits = ended.is_none_or(|(_, found)| found == held);
        let after = operation.after(held);
        let others = self.finders.get(&held).map_or(0, |count| count.saturating_sub(usize::from(ended.is_some())));
        (fits && (after == held || others == 0)).then_some(after)
    }

    fn is_new(&mut self, item: usize, state: u64) -> bool {
        let mut taken = self.taken.clone();
        taken[item / 64] |= 1 << (item % 64);
        self.memo.insert((taken, state))
    }

    fn take(&mut self, item: usize) {
        self.taken[item / 64] |= 1 << (item % 64);
        let (begin, end) = self.where_is[item];
        self.unlink(begin);
        if let Some(end) = end {
            self.unlink(end);
            self.ends_left -= 1;
        }
        if let Some(count) = self.found(item) {
            *count -= 1;
        }
    }

    /// How many calls that are not taken have found what this one found.
    fn found(&mut self, item: usize) -> Option<&mut usize> {
        let (_, found) = self.items[item].ended?;
        self.finders.get_mut(&found)
    }

    fn put_back(&mut self, item: usize) {
        self.taken[item / 64] &= !(1 << (item % 64));
        let (begin, end) = self.where_is[item];
        if let Some(end) = end {
            self.link(end); // in the reverse order of unlinking
            self.ends_left += 1;
        }
        if let Some(count) = self.found(item) {
            *count += 1;
        }
        self.link(begin);
    }

    fn unlink(&mut self, place: usize) {
        let Place { previous, next, .. } = self.places[place];
        self.places[previous].next = next;
        self.places[next].previous = previous;
    }

    fn link(&mut self, place: usize) {
        let Place { previous, next, .. } = self.places[place];
        self.places[previous].next = place;
        self.places[next].previous = place;
    }

    /// Names the calls that ended first of those that the longest order found leaves out.
    fn explain(&self, longest: &[u64]) -> String {
        let is_left = |index: &usize| longest.get(index / 64).is_none_or(|word| word & (1 << (index % 64)) == 0);
        let left =
            (0..self.items.len()).filter(is_left).filter_map(|index| Some((self.items.get(index)?.ended?, index)));
        let mut left: Vec<_> = left.collect();
        left.sort_unstable();
        let name = |((ended, found), index): &((u64, u64), usize)| {
            let Item { operation, begins, .. } = self.items[*index];
            format!("{operation:?} from {begins} to {ended} found {found}")
        };
        let names: Vec<String> = left.iter().take(3).map(name).collect();
        let count = self.items.len();
        let ordered: u32 = longest.iter().map(|word| word.count_ones()).sum();
        format!(
            "no order of effects explains what clients saw; of {count} calls {ordered} can be ordered, but not: {}",
            names.join("; ")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;
    use quorate_core::protocol::{Answer, Call, Consistency};

    enum Step {
        Begin(Operation),
        End(usize, u64),
    }
    use Step::{Begin, End};

    fn judge(steps: &[Step]) -> Result<(), String> {
        let mut history = History::default();
        for step in steps {
            match step {
                Begin(operation) => {
                    let bytes = operation.encode().into();
                    let read = operation.id().is_none();
                    let call = if read { Call::Read(Consistency::Linearizable, bytes) } else { Call::Apply(bytes) };
                    history.invoke(0, call, 0);
                }
                End(index, found) => {
                    let reply = Reply { revision: 0, found: *found }.encode().into();
                    history.complete(*index, Ok(Answer { reply, op: Default::default() }));
                }
            }
        }
        check(&history)
    }

    fn put(value: u64) -> Step {
        Begin(Operation::Put { key: 0, value })
    }

    fn get() -> Step {
        Begin(Operation::Get { key: 0 })
    }

    #[test]
    fn calls_one_after_the_other_hold() {
        assert_eq!(judge(&[put(1), End(0, 0), get(), End(1, 1), put(2), End(2, 1), get(), End(3, 2)]), Ok(()));
    }

    #[test]
    fn a_read_that_misses_an_acknowledged_write_is_caught() {
        assert!(judge(&[put(1), End(0, 0), get(), End(1, 0)]).is_err());
    }

    #[test]
    fn calls_at_the_same_time_may_take_effect_in_any_order() {
        assert_eq!(judge(&[put(1), put(2), End(0, 2), End(1, 0), get(), End(2, 1)]), Ok(()));
    }

    #[test]
    fn two_reads_that_see_two_writes_in_two_orders_are_caught() {
        let steps = [put(1), put(2), get(), End(2, 1), get(), End(3, 2), get(), End(4, 1), End(0, 0), End(1, 1)];
        assert!(judge(&steps).is_err());
    }

    #[test]
    fn a_write_that_nobody_saw_end_may_take_effect_late_or_never() {
        assert_eq!(judge(&[put(1), get(), End(1, 0), put(2), End(2, 0), get(), End(3, 1)]), Ok(()));
        assert_eq!(judge(&[put(1), get(), End(1, 0), put(2), End(2, 0), get(), End(3, 2)]), Ok(()));
    }

    #[test]
    fn a_write_that_takes_effect_twice_is_caught() {
        let steps = [put(1), put(2), End(1, 0), get(), End(2, 1), put(3), End(3, 1), get(), End(4, 1)];
        assert!(judge(&steps).is_err());
    }

    #[test]
    fn a_compare_and_swap_that_two_clients_win_is_caught() {
        let cas = |value| Begin(Operation::Cas { key: 0, expected: 0, value });
        assert!(judge(&[cas(1), cas(2), End(0, 0), End(1, 0)]).is_err());
        assert_eq!(judge(&[cas(1), cas(2), End(0, 0), End(1, 1)]), Ok(()));
    }

    #[test]
    fn registers_are_judged_one_by_one() {
        let other = |value| Begin(Operation::Put { key: 1, value });
        assert_eq!(judge(&[put(1), other(2), End(0, 0), End(1, 0)]), Ok(()));
    }

    #[test]
    fn writes_that_nobody_saw_end_or_found_cost_nothing_and_hide_nothing() {
        let unseen = || (10..70).map(put);
        let mut steps: Vec<Step> = unseen().collect();
        steps.extend([put(1), End(60, 0), get(), End(61, 1)]);
        assert_eq!(judge(&steps), Ok(()));
        steps.extend([get(), End(62, 0)]);
        assert!(judge(&steps).is_err(), "what was found first comes back");
        // A compare-and-swap that nobody saw end hangs on such a write: that one is needed.
        let cas = Begin(Operation::Cas { key: 0, expected: 7, value: 8 });
        assert_eq!(judge(&[put(7), cas, get(), End(2, 8)]), Ok(()));
    }

    /// Random histories of one register: calls that overlap, some without an end, found values right or wrong.
    fn history(luck: &mut Random) -> Vec<Item> {
        let mut items: Vec<Item> = Vec::new();
        let mut moment = 0;
        for value in 1..=luck.between(2, 7) {
            let expected = luck.below(value);
            let operation = match luck.below(4) {
                0 => Operation::Get { key: 0 },
                1 => Operation::Cas { key: 0, expected, value },
                _ => Operation::Put { key: 0, value },
            };
            moment += luck.between(1, 3) * 10;
            let end = moment + luck.between(1, 60);
            let ended = luck.chance(700_000).then(|| (end * 100 + value, luck.below(value + 1)));
            if operation.id().is_some() || ended.is_some() {
                items.push(Item { operation, begins: moment * 100 + value, ended });
            }
        }
        items
    }

    #[test]
    fn what_makes_the_search_short_changes_no_verdict() {
        let mut verdicts = BTreeMap::new();
        for seed in 0..20_000 {
            let items = history(&mut Random::new(seed));
            let mut plain = Search::new(&items);
            plain.finders.clear();
            let mut fewer = items.clone();
            drop_unseen(&mut fewer);
            let (long, short) = (plain.run().is_ok(), Search::new(&fewer).run().is_ok());
            assert_eq!(long, short, "seed {seed}: {items:?}");
            *verdicts.entry(long).or_insert(0) += 1;
        }
        assert!(verdicts.len() == 2 && verdicts.values().all(|count| *count > 1000), "{verdicts:?}");
    }

    #[test]
    fn many_calls_at_once_are_decided_quickly() {
        let mut steps: Vec<Step> = (1..=12).map(put).collect();
        steps.extend((0..12).map(|index| End(index, index as u64)));
        steps.extend([get(), End(12, 12)]);
        assert_eq!(judge(&steps), Ok(()));
    }
}
