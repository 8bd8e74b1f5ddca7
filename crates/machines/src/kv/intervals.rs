//! Unions of intervals of keys: what a transaction deletes, what a user may read.

use std::collections::BTreeMap;
use std::ops::Bound;

/// Where an interval of keys ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End<'a> {
    /// Before this key.
    Before(&'a [u8]),
    /// With this key.
    With(&'a [u8]),
    /// Nowhere.
    Open,
}

impl End<'_> {
    fn includes(self, key: &[u8]) -> bool {
        match self {
            End::Before(end) => key < end,
            End::With(end) => key <= end,
            End::Open => true,
        }
    }

    fn reaches_further_than(self, other: Self) -> bool {
        match (self, other) {
            (_, End::Open) => false,
            (End::Open, _) => true,
            (End::Before(this), End::Before(that) | End::With(that)) | (End::With(this), End::With(that)) => {
                this > that
            }
            (End::With(this), End::Before(that)) => this >= that,
        }
    }
}

/// A union of intervals of keys: start → end, disjoint.
#[derive(Debug, Default)]
pub(super) struct Intervals<'a>(BTreeMap<&'a [u8], End<'a>>);

impl<'a> Intervals<'a> {
    /// Adds the keys from `key` to `range_end`, as etcd writes it.
    pub(super) fn add(&mut self, key: &'a [u8], range_end: &'a [u8]) {
        match range_end {
            [] => self.add_interval(key, End::With(key)),
            [0] => self.add_interval(key, End::Open),
            end if key < end => self.add_interval(key, End::Before(end)),
            _ => {}
        }
    }

    /// Adds all of `others`.
    pub(super) fn add_all(&mut self, others: Self) {
        others.0.into_iter().for_each(|(start, end)| self.add_interval(start, end));
    }

    fn add_interval(&mut self, start: &'a [u8], end: End<'a>) {
        let (mut start, mut end) = (start, end);
        if let Some((before, its_end)) =
            self.0.range(..=start).next_back().filter(|(_, its_end)| its_end.includes(start))
        {
            start = before;
            end = if end.reaches_further_than(*its_end) { end } else { *its_end };
        }
        loop {
            let next = self
                .0
                .range::<[u8], _>((Bound::Included(start), Bound::Unbounded))
                .next()
                .map(|(key, its_end)| (*key, *its_end));
            let Some((key, its_end)) = next.filter(|(key, _)| end.includes(key)) else {
                break;
            };
            end = if end.reaches_further_than(its_end) { end } else { its_end };
            self.0.remove(key);
        }
        self.0.insert(start, end);
    }

    /// Whether the key is in one of them.
    pub(super) fn contains(&self, key: &[u8]) -> bool {
        self.0
            .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
            .next_back()
            .is_some_and(|(_, end)| end.includes(key))
    }

    /// Whether all keys from `key` to `range_end` are in them, whether any of these keys exists or not. Intervals that
    /// touch are one. `key` must be in them even if the range ends before it begins, as for etcd.
    pub(super) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        if !self.contains(key) {
            return false;
        }
        let mut uncovered = key.to_vec(); // the first key of which nothing is known yet
        loop {
            let reached = match range_end {
                [] => uncovered.as_slice() > key,
                [0] => false,
                end => uncovered.as_slice() >= end,
            };
            if reached {
                return true;
            }
            let before = (Bound::Unbounded, Bound::Included(uncovered.as_slice()));
            let found = self.0.range::<[u8], _>(before).next_back().filter(|(_, end)| end.includes(&uncovered));
            match found {
                Some((_, End::Open)) => return true,
                Some((_, End::Before(end))) => uncovered = end.to_vec(),
                Some((_, End::With(end))) => uncovered = [end, &[0][..]].concat(), // the next possible key
                None => return false,
            }
        }
    }
}
