//! Appending: numbers, expectations, repetitions, several streams at once.

use super::bench::*;
use quorate_machines::events::limits::*;
use quorate_machines::events::*;

#[test]
fn versions_and_positions_count_from_one_without_gaps() {
    let mut bench = Bench::new();
    let first = bench.append("a", Expected::NoStream, vec![event(1, "x"), event(2, "y")]);
    assert_eq!(first.writes, [Written { stream: "a".into(), version: 2, position: 2 }]);
    bench.append("b", Expected::Any, vec![event(1, "z")]);
    let third = bench.append("a", Expected::Exact(2), vec![event(3, "w")]);
    assert_eq!(third.writes, [Written { stream: "a".into(), version: 3, position: 4 }]);
    assert_eq!(bench.all(&Source::All), [(1, "x".into()), (2, "y".into()), (3, "z".into()), (4, "w".into())]);
    assert_eq!(bench.all(&of_stream("a")), [(1, "x".into()), (2, "y".into()), (3, "w".into())]);
    assert_eq!(bench.published, [2, 3, 4]);
}

#[test]
fn a_stream_that_is_not_where_it_is_expected_refuses_and_says_where_it_is() {
    let mut bench = Bench::new();
    bench.append("a", Expected::Exact(0), vec![event(1, "x")]);
    for expected in [Expected::NoStream, Expected::Exact(0), Expected::Exact(2)] {
        let error = bench.refused(append("a", expected, vec![event(9, "y")]));
        assert_eq!(error, EventsError::WrongVersion { stream: "a".into(), expected, found: 1 });
    }
    let error = bench.refused(append("b", Expected::Exact(1), vec![event(9, "y")]));
    assert_eq!(error, EventsError::WrongVersion { stream: "b".into(), expected: Expected::Exact(1), found: 0 });
}

#[test]
fn an_append_that_is_repeated_is_answered_as_before_whatever_it_expects() {
    for expected in [Expected::Any, Expected::NoStream, Expected::Exact(0)] {
        let mut bench = Bench::new();
        let operation = append("a", expected, vec![event(1, "x"), event(2, "y")]);
        let first = bench.reply(&operation).appended().unwrap();
        bench.append("a", Expected::Any, vec![event(3, "later")]);
        let (digest, before) = (bench.status().digest, stream(&bench.events));
        let again = bench.reply(&operation).appended().unwrap();
        assert_eq!(again.writes, first.writes, "{expected}");
        assert!(again.repeated && !first.repeated);
        assert_eq!(bench.status().digest, digest);
        assert!(stream(&bench.events) == before, "a repetition changed the state");
    }
}

#[test]
fn an_id_that_names_another_event_is_refused() {
    let mut bench = Bench::new();
    bench.append("a", Expected::Any, vec![event(1, "x"), event(2, "y")]);
    let reused = |version, number| EventsError::IdReused { stream: "a".into(), id: id(number), version };
    let other_contents = append("a", Expected::Any, vec![event(1, "another")]);
    assert_eq!(bench.refused(other_contents), reused(1, 1));
    let other_kind = NewEvent { kind: "other".into(), ..event(2, "y") };
    assert_eq!(bench.refused(append("a", Expected::Any, vec![other_kind])), reused(2, 2));
    let other_order = append("a", Expected::Any, vec![event(2, "y"), event(1, "x")]);
    assert_eq!(bench.refused(other_order), reused(2, 2));
    let partly_new = append("a", Expected::Any, vec![event(2, "y"), event(3, "z")]);
    assert_eq!(bench.refused(partly_new), reused(2, 2));
    let elsewhere = append("a", Expected::Exact(2), vec![event(1, "x")]);
    assert!(matches!(bench.refused(elsewhere), EventsError::WrongVersion { found: 2, .. }));
    bench.append("b", Expected::Any, vec![event(1, "ids are names within a stream")]);
}

#[test]
fn a_command_changes_several_streams_or_none() {
    let mut bench = Bench::new();
    bench.append("account-1", Expected::NoStream, vec![event(1, "+100")]);
    let write = |stream: &str, expected, events| Write { stream: stream.to_owned(), expected, events };
    let transfer = |expected| {
        Operation::Append(Append {
            writes: vec![
                write("account-1", expected, vec![event(2, "-30")]),
                write("account-2", Expected::NoStream, vec![event(2, "+30")]),
                write("closed", Expected::NoStream, vec![]),
            ],
        })
    };
    let error = bench.refused(transfer(Expected::Exact(7)));
    assert!(matches!(error, EventsError::WrongVersion { stream, .. } if stream == "account-1"));
    let done = bench.reply(&transfer(Expected::Exact(1))).appended().unwrap();
    let places: Vec<_> = done.writes.iter().map(|it| (&*it.stream, it.version, it.position)).collect();
    assert_eq!(places, [("account-1", 2, 2), ("account-2", 1, 3), ("closed", 0, 0)]);
    let again = bench.reply(&transfer(Expected::Exact(1))).appended().unwrap();
    assert!(again.repeated);
    assert_eq!(again.writes, done.writes);
}

#[test]
fn a_write_without_events_demands_a_version_and_changes_nothing() {
    let mut bench = Bench::new();
    bench.append("config", Expected::Any, vec![event(1, "x")]);
    let guarded = |version, number| {
        Operation::Append(Append {
            writes: vec![
                Write { stream: "config".into(), expected: Expected::Exact(version), events: vec![] },
                Write { stream: "job".into(), expected: Expected::Any, events: vec![event(number, "go")] },
            ],
        })
    };
    assert!(matches!(bench.refused(guarded(2, 1)), EventsError::WrongVersion { found: 1, .. }));
    bench.ok(guarded(1, 1));
    assert_eq!(bench.info("config").version, 1);
}

#[test]
fn a_repetition_in_one_stream_with_something_new_in_another_is_refused() {
    let mut bench = Bench::new();
    bench.append("a", Expected::Any, vec![event(1, "x")]);
    let mixed = Operation::Append(Append {
        writes: ["a", "b"]
            .map(|it| Write { stream: it.into(), expected: Expected::Any, events: vec![event(1, "x")] })
            .into(),
    });
    assert!(matches!(bench.refused(mixed), EventsError::IdReused { stream, .. } if stream == "a"));
}

#[test]
fn events_of_several_streams_keep_their_order_in_one_append() {
    let mut bench = Bench::new();
    let write = |stream: &str, number| Write {
        stream: stream.into(),
        expected: Expected::Any,
        events: vec![event(number, &number.to_string())],
    };
    let operation = Operation::Append(Append { writes: vec![write("a", 1), write("b", 2), write("a", 3)] });
    let first = bench.reply(&operation).appended().unwrap();
    assert_eq!(bench.all(&Source::All), [(1, "1".into()), (2, "2".into()), (3, "3".into())]);
    assert_eq!(bench.all(&of_stream("a")), [(1, "1".into()), (2, "3".into())]);
    let again = bench.reply(&operation).appended().unwrap();
    assert_eq!((again.writes, again.repeated), (first.writes, true));
}

#[test]
fn what_is_wrong_on_sight_is_refused() {
    let mut bench = Bench::new();
    let long = |bytes: usize| "x".repeat(bytes);
    let data = |bytes: usize| NewEvent { data: vec![0; bytes].into(), ..event(1, "") };
    let metadata = |bytes: usize| NewEvent { metadata: vec![0; bytes].into(), ..event(1, "") };
    let twice = |expected, number| Write { stream: "a".into(), expected, events: vec![event(number, "")] };
    let again =
        |expected, number| Operation::Append(Append { writes: vec![twice(Expected::Any, 1), twice(expected, number)] });
    let cases = [
        (append("", Expected::Any, vec![event(1, "")]), EventsError::BadName),
        (append(&long(NAME_BYTES_MAX + 1), Expected::Any, vec![event(1, "")]), EventsError::BadName),
        (append("a\nb", Expected::Any, vec![event(1, "")]), EventsError::BadName),
        (append("a", Expected::Any, vec![NewEvent { kind: String::new(), ..event(1, "") }]), EventsError::BadName),
        (append("a", Expected::Any, vec![]), EventsError::BadList(List::NoEvents)),
        (append("a", Expected::Any, vec![event(1, "x"), event(1, "y")]), EventsError::BadList(List::IdTwice)),
        (again(Expected::Exact(1), 2), EventsError::BadList(List::ExpectedTwice)),
        (again(Expected::Any, 1), EventsError::BadList(List::IdTwice)),
        (append("a", Expected::Any, vec![data(DATA_BYTES_MAX + 1)]), EventsError::TooLarge(Limit::Data)),
        (append("a", Expected::Any, vec![metadata(METADATA_BYTES_MAX + 1)]), EventsError::TooLarge(Limit::Metadata)),
        (
            append("a", Expected::Any, (0..=APPEND_EVENTS_MAX as u64).map(|it| event(it, "")).collect()),
            EventsError::TooLarge(Limit::Events),
        ),
    ];
    for (operation, expected) in cases {
        assert_eq!(operation.encode(), Err(expected.clone()));
        assert_eq!(bench.refused(operation), expected);
    }
    bench.append(&long(NAME_BYTES_MAX), Expected::Any, vec![data(DATA_BYTES_MAX)]);
}

#[test]
fn event_ids_are_written_as_uuids() {
    let text = "0123abcd-4567-89ef-0011-223344556677";
    let id: EventId = text.parse().unwrap();
    assert_eq!(id.to_string(), text);
    assert_eq!("0123ABCD456789ef0011223344556677".parse(), Ok(id));
    assert!("0123".parse::<EventId>().is_err());
    assert!("z123abcd-4567-89ef-0011-223344556677".parse::<EventId>().is_err());
}
