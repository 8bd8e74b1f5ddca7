//! Reading: forwards and backwards, by stream, by category, of all, in bounded pages.

use super::bench::*;
use quorate_machines::events::limits::*;
use quorate_machines::events::*;

fn filled() -> Bench {
    let mut bench = Bench::new();
    for number in 1..=9_u64 {
        let stream = ["account-1", "account-2", "accountant-1"][(number % 3) as usize];
        let kind = if number.is_multiple_of(2) { "even" } else { "odd" };
        let correlation = (number > 6).then_some(id(77));
        let new = NewEvent { kind: kind.into(), correlation, ..event(number, &number.to_string()) };
        bench.append(stream, Expected::Any, vec![new]);
    }
    bench.append("account", Expected::Any, vec![event(10, "10")]);
    bench
}

fn numbers(page: &Page, source: &Source) -> Vec<u64> {
    page.events.iter().map(|event| event.number(source)).collect()
}

/// All pages of a read, each of `limit` events.
fn pages(bench: &Bench, read: &Read, limit: u32) -> Vec<u64> {
    let mut read = Read { limit, ..read.clone() };
    let mut found = Vec::new();
    loop {
        let page = bench.page(read.clone());
        assert!(page.events.len() <= limit as usize);
        found.extend(numbers(&page, &read.source));
        if page.end {
            return found;
        }
        read.from = page.next;
    }
}

#[test]
fn every_source_is_read_in_pages_in_both_directions() {
    let bench = filled();
    let expected = [
        (Source::All, (1..=10).collect::<Vec<u64>>()),
        (of_category("account"), vec![1, 3, 4, 6, 7, 9, 10]),
        (of_category("accountant"), vec![2, 5, 8]),
        (of_stream("account-2"), vec![1, 2, 3]),
        (of_stream("nothing"), vec![]),
        (of_category("nothing"), vec![]),
    ];
    for (source, forwards) in expected {
        let backwards: Vec<_> = forwards.iter().rev().copied().collect();
        for limit in [1, 2, 3, 100] {
            let read = Read { source: source.clone(), ..Read::default() };
            assert_eq!(pages(&bench, &read, limit), forwards, "{source:?}");
            let read = Read { source: source.clone(), from: u64::MAX, backwards: true, ..Read::default() };
            assert_eq!(pages(&bench, &read, limit), backwards, "{source:?} backwards");
        }
    }
}

#[test]
fn a_reader_that_goes_on_from_next_misses_nothing_and_sees_nothing_twice() {
    let mut bench = Bench::new();
    let source = of_category("a");
    let mut seen = Vec::new();
    let mut next = 0;
    for number in 1..=40 {
        let stream = if number % 3 == 0 { "b-1" } else { "a-1" };
        bench.append(stream, Expected::Any, vec![event(number, "")]);
        if number % 4 == 0 {
            let page = bench.page(Read { source: source.clone(), from: next, limit: 2, ..Read::default() });
            seen.extend(numbers(&page, &source));
            next = page.next;
        }
    }
    let rest = bench.page(Read { source: source.clone(), from: next, ..Read::default() });
    seen.extend(numbers(&rest, &source));
    assert_eq!(seen, (1..=40).filter(|it| it % 3 != 0).collect::<Vec<u64>>());
    assert_eq!((rest.end, rest.next), (true, 41));
}

#[test]
fn a_filter_takes_types_and_a_correlation() {
    let bench = filled();
    let read = |kinds: &[&str], correlation| {
        let filter = Filter { kinds: kinds.iter().map(ToString::to_string).collect(), correlation };
        pages(&bench, &Read { filter, ..Read::default() }, 2)
    };
    assert_eq!(read(&["even"], None), [2, 4, 6, 8]);
    assert_eq!(read(&["even", "happened"], None), [2, 4, 6, 8, 10]);
    assert_eq!(read(&[], Some(id(77))), [7, 8, 9]);
    assert_eq!(read(&["odd"], Some(id(77))), [7, 9]);
    assert_eq!(read(&["nothing"], None), [] as [u64; 0]);
}

#[test]
fn pages_are_bounded_in_bytes_and_work() {
    let mut bench = Bench::new();
    let half = vec![0; DATA_BYTES_MAX / 2];
    for number in 0..12 {
        let new = NewEvent { data: half.clone().into(), ..event(number, "") };
        bench.append("large", Expected::Any, vec![new]);
    }
    let page = bench.page(Read { source: of_stream("large"), ..Read::default() });
    assert_eq!((page.events.len(), page.next, page.end), (READ_BYTES_SOFT_MAX / half.len(), 9, false));
    for first in (0..READ_SCANNED_MAX as u64 + 10).step_by(1000) {
        let events = (first..first + 1000).map(|it| event(it, "")).collect();
        bench.append("small", Expected::Any, events);
    }
    let filter = Filter { kinds: vec!["nothing".into()], ..Filter::default() };
    let page = bench.page(Read { source: of_stream("small"), filter, ..Read::default() });
    assert_eq!((page.events.len(), page.next, page.end), (0, READ_SCANNED_MAX as u64 + 1, false));
}

#[test]
fn an_event_brings_everything_that_it_was_given_and_its_time() {
    let mut bench = Bench::new();
    bench.seconds = 5;
    let new = NewEvent {
        id: id(5),
        kind: "opened".into(),
        data: vec![0, 255].into(),
        metadata: "by hand".into(),
        correlation: Some(id(6)),
        causation: Some(id(7)),
    };
    bench.append("account-1", Expected::Any, vec![new.clone()]);
    let found = bench.page(Read::default()).events.remove(0);
    assert_eq!((found.position, &*found.stream, found.version), (1, "account-1", 1));
    assert_eq!(found.time.as_nanos(), 5_000_000_000);
    let Recorded { id, kind, data, metadata, correlation, causation, .. } = found;
    assert_eq!(NewEvent { id, kind, data, metadata, correlation, causation }, new);
}

#[test]
fn streams_are_listed_by_name_and_category_in_pages() {
    let bench = filled();
    let list = |after: &str, category: &str, limit| {
        let query = Query::Streams { after: after.into(), category: category.into(), limit };
        bench.query(&query).streams().unwrap().into_iter().map(|it| it.stream).collect::<Vec<_>>()
    };
    assert_eq!(list("", "", 0), ["account", "account-1", "account-2", "accountant-1"]);
    assert_eq!(list("account", "", 2), ["account-1", "account-2"]);
    assert_eq!(list("", "account", 0), ["account", "account-1", "account-2"]);
    assert_eq!(list("account", "account", 1), ["account-1"]);
    assert_eq!(list("account-1", "account", 0), ["account-2"]);
    assert_eq!(list("account-2", "account", 0), [] as [&str; 0]);
    assert_eq!(list("", "accountant", 0), ["accountant-1"]);
}
