//! Reading: pages of events, bounded in events, bytes and work; lists of streams.

use super::limits::{LIST_MAX, READ_BYTES_SOFT_MAX, READ_EVENTS_MAX, READ_SCANNED_MAX};
use super::operation::{Filter, Read, Source};
use super::reply::{Page, StreamInfo};
use super::store::{Event, Store, Stream};
use std::ops::Bound;

/// What a page may hold.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    pub events: u32,
    pub bytes: usize,
}

/// Reads a page.
pub(super) fn read(store: &Store, read: &Read) -> Page {
    let limit = if read.limit == 0 { READ_EVENTS_MAX } else { read.limit.min(READ_EVENTS_MAX) };
    page(store, read, Budget { events: limit, bytes: READ_BYTES_SOFT_MAX })
}

/// Reads a page within a budget.
pub(super) fn page(store: &Store, read: &Read, budget: Budget) -> Page {
    let Some(head) = head(store, &read.source) else {
        return Page { events: Vec::new(), next: if read.backwards { 0 } else { read.from.max(1) }, end: true };
    };
    let mut page = Page { events: Vec::new(), next: 0, end: true };
    let (mut bytes, mut scanned, mut last) = (0_usize, 0_usize, None);
    for (number, position) in numbers(store, read, head) {
        if page.events.len() >= budget.events as usize || bytes >= budget.bytes || scanned >= READ_SCANNED_MAX {
            page.end = false;
            break;
        }
        scanned = scanned.saturating_add(1);
        last = Some(number);
        let Some(event) = store.events.get(&position) else { continue };
        if store.is_visible(event) && takes(&read.filter, event) {
            bytes = bytes.saturating_add(event.data.len()).saturating_add(event.metadata.len());
            page.events.push(store.recorded(position, event));
        }
    }
    page.next = match (read.backwards, page.end, last) {
        (true, true, _) | (true, false, None) => 0,
        (true, false, Some(last)) => last.saturating_sub(1),
        (false, false, Some(last)) => last.saturating_add(1),
        // Whatever comes will come after the present end.
        (false, true, _) | (false, false, None) => read.from.max(head.saturating_add(1)),
    };
    page
}

/// The last number that a source has had; `None` for a stream that never was.
pub(super) fn head(store: &Store, source: &Source) -> Option<u64> {
    match source {
        Source::All | Source::Category(_) => Some(store.position),
        Source::Stream(stream) => store.find(stream).map(|(_, found)| found.version),
    }
}

/// The event with this number, if it can be read.
pub(super) fn visible<'a>(store: &'a Store, source: &Source, number: u64) -> Option<(u64, &'a Event)> {
    let position = match source {
        Source::All | Source::Category(_) => number,
        Source::Stream(stream) => *store.by_stream.get(&(store.find(stream)?.0, number))?,
    };
    let event = store.events.get(&position)?;
    store.is_visible(event).then_some((position, &**event))
}

/// The numbers of a source in the order of the read, with their positions.
fn numbers<'a>(store: &'a Store, read: &Read, head: u64) -> Box<dyn Iterator<Item = (u64, u64)> + 'a> {
    let nothing = || Box::new(std::iter::empty());
    let first = match &read.source {
        Source::All | Source::Category(_) => 1,
        Source::Stream(stream) => store.find(stream).map_or(1, |(_, stream)| stream.first),
    };
    let (from, to) = if read.backwards { (first, read.from.min(head)) } else { (read.from.max(first), head) };
    if from > to {
        return nothing(); // a map's range would panic
    }
    match &read.source {
        Source::All => {
            let found = store.events.range(from..=to);
            ordered(found.map(|(position, _)| (*position, *position)), read.backwards)
        }
        Source::Category(category) => {
            let Some(category) = store.categories.get(category.as_str()).copied() else { return nothing() };
            let found = store.by_category.range((category, from)..=(category, to));
            ordered(found.map(|(_, position)| (*position, *position)), read.backwards)
        }
        Source::Stream(stream) => {
            let Some((stream, _)) = store.find(stream) else { return nothing() };
            let found = store.by_stream.range((stream, from)..=(stream, to));
            ordered(found.map(|((_, version), position)| (*version, *position)), read.backwards)
        }
    }
}

fn ordered<'a, T: 'a>(
    iterator: impl DoubleEndedIterator<Item = T> + 'a,
    backwards: bool,
) -> Box<dyn Iterator<Item = T> + 'a> {
    if backwards { Box::new(iterator.rev()) } else { Box::new(iterator) }
}

fn takes(filter: &Filter, event: &Event) -> bool {
    let kind = filter.kinds.is_empty() || filter.kinds.iter().any(|kind| **kind == *event.kind);
    kind && filter.correlation.is_none_or(|correlation| event.correlation == Some(correlation))
}

/// Streams by name.
pub(super) fn streams(store: &Store, after: &str, category: &str, limit: u32) -> Vec<StreamInfo> {
    let limit = if limit == 0 { LIST_MAX } else { limit.min(LIST_MAX) };
    let prefix = if category.is_empty() { String::new() } else { format!("{category}-") };
    // The stream that is named like the category stands before all others of it.
    let alone = store.numbers.get_key_value(category).filter(|(name, _)| &***name > after);
    let from = if after < prefix.as_str() { Bound::Included(prefix.as_str()) } else { Bound::Excluded(after) };
    let range = store.numbers.range::<(Bound<&str>, Bound<&str>), str>((from, Bound::Unbounded));
    let others = range.take_while(|(name, _)| name.starts_with(&prefix));
    let numbers = alone.into_iter().chain(others).map(|(_, number)| *number);
    numbers.filter_map(|number| store.stream(number).map(Stream::info)).take(limit as usize).collect()
}
