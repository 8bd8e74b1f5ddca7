//! Groups: consumers that share the events of a source.

use super::bench::*;
use quorate_machines::events::limits::*;
use quorate_machines::events::*;

const SETTINGS: Settings = Settings { retry_after_nanos: 10_000_000_000, attempts_max: 3, in_flight_max: 4 };

fn create(source: Source) -> NewGroup {
    NewGroup { group: "mail".into(), source, filter: Filter::default(), from: 0, settings: SETTINGS }
}

fn filled(events: u64, source: Source) -> Bench {
    let mut bench = Bench::new();
    bench.ok(Operation::CreateGroup(create(source)));
    for number in 1..=events {
        bench.append("a-1", Expected::Any, vec![event(number, &number.to_string())]);
    }
    bench
}

/// (number, attempt)
fn take(bench: &mut Bench, consumer: &str, limit: u32) -> Vec<(u64, u32)> {
    taken(bench, consumer, limit).events.iter().map(|it| (it.number, it.attempt)).collect()
}

fn taken(bench: &mut Bench, consumer: &str, limit: u32) -> Taken {
    bench.reply(&Operation::Take { group: "mail".into(), consumer: consumer.into(), limit }).taken().unwrap()
}

fn ack(bench: &mut Bench, numbers: &[u64]) {
    bench.ok(Operation::Ack { group: "mail".into(), numbers: numbers.into() });
}

fn nack(bench: &mut Bench, consumer: &str, number: u64, verdict: Verdict) {
    let (group, consumer, reason) = ("mail".into(), consumer.into(), "no reason".into());
    bench.ok(Operation::Nack { group, consumer, numbers: vec![number], verdict, reason });
}

#[test]
fn consumers_share_the_events_and_each_goes_to_one_at_a_time() {
    let mut bench = filled(6, Source::All);
    assert_eq!(take(&mut bench, "ann", 2), [(1, 1), (2, 1)]);
    assert_eq!(take(&mut bench, "bob", 9), [(3, 1), (4, 1)], "four in flight at most");
    assert_eq!(take(&mut bench, "bob", 9), []);
    ack(&mut bench, &[2, 3]);
    let rest = taken(&mut bench, "ann", 9);
    assert_eq!(rest.events.iter().map(|it| it.number).collect::<Vec<_>>(), [5, 6]);
    ack(&mut bench, &[1, 4, 5, 6]);
    let info = bench.group("mail");
    assert_eq!((info.next, info.head, info.in_flight, info.finished), (7, 6, 0, 6));
}

#[test]
fn an_event_that_nobody_acknowledges_goes_to_somebody_else_and_is_parked_in_the_end() {
    let mut bench = filled(1, Source::All);
    assert_eq!(take(&mut bench, "ann", 1), [(1, 1)]);
    bench.seconds += 9;
    assert_eq!(take(&mut bench, "bob", 1), []);
    bench.seconds += 1;
    assert_eq!(take(&mut bench, "bob", 1), [(1, 2)]);
    bench.seconds += 10;
    assert_eq!(take(&mut bench, "ann", 1), [(1, 3)]);
    bench.seconds += 10;
    assert_eq!(take(&mut bench, "ann", 1), []);
    let info = bench.group("mail");
    let parked = ParkedInfo { number: 1, attempts: 3, reason: "never acknowledged".into() };
    assert_eq!((info.parked_count, &info.parked[..]), (1, &[parked][..]));
    bench.ok(Operation::Unpark { group: "mail".into(), replay: true });
    assert_eq!(take(&mut bench, "ann", 1), [(1, 1)]);
}

#[test]
fn only_who_holds_an_event_can_give_it_back_and_anybody_can_finish_it() {
    let mut bench = filled(2, Source::All);
    take(&mut bench, "ann", 1);
    bench.seconds += 10;
    assert_eq!(take(&mut bench, "bob", 1), [(1, 2)]);
    nack(&mut bench, "ann", 1, Verdict::Skip);
    assert_eq!(bench.group("mail").in_flight, 1, "ann lost it");
    ack(&mut bench, &[1]); // ann's work was done after all
    assert_eq!((bench.group("mail").in_flight, bench.group("mail").finished), (0, 1));
    nack(&mut bench, "bob", 1, Verdict::Retry);
    assert_eq!(take(&mut bench, "bob", 9), [(2, 1)]);
}

#[test]
fn a_nack_retries_parks_or_skips() {
    let mut bench = filled(3, Source::All);
    take(&mut bench, "ann", 3);
    nack(&mut bench, "ann", 1, Verdict::Retry);
    nack(&mut bench, "ann", 2, Verdict::Park);
    nack(&mut bench, "ann", 3, Verdict::Skip);
    let info = bench.group("mail");
    assert_eq!((info.waiting, info.parked_count, info.finished), (1, 1, 1));
    assert_eq!(take(&mut bench, "bob", 9), [(1, 2)]);
    bench.ok(Operation::Unpark { group: "mail".into(), replay: false });
    assert_eq!(bench.group("mail").finished, 2);
}

#[test]
fn a_group_has_a_source_a_filter_and_a_beginning() {
    let mut bench = filled(4, Source::All);
    let other = NewGroup { group: "late".into(), from: 3, ..create(of_stream("a-1")) };
    bench.ok(Operation::CreateGroup(other.clone()));
    bench.ok(Operation::CreateGroup(other.clone()));
    let error = bench.refused(Operation::CreateGroup(NewGroup { from: 1, ..other }));
    assert_eq!(error, EventsError::GroupExists { group: "late".into() });
    let late = Operation::Take { group: "late".into(), consumer: "ann".into(), limit: 0 };
    let found = bench.reply(&late).taken().unwrap();
    assert_eq!(found.events.iter().map(|it| it.number).collect::<Vec<_>>(), [3, 4]);
    assert!(found.end);
    assert_eq!(bench.query(&Query::Groups).result, Ok(Response::Groups(vec!["late".into(), "mail".into()])));
    bench.ok(Operation::DeleteGroup { group: "late".into() });
    assert_eq!(bench.refused(late), EventsError::NoGroup { group: "late".into() });
}

#[test]
fn events_that_were_hidden_meanwhile_are_nobodys_work() {
    let mut bench = filled(3, of_stream("a-1"));
    take(&mut bench, "ann", 3);
    bench.seconds += 10;
    bench.ok(Operation::Truncate { stream: "a-1".into(), before: 3 });
    assert_eq!(take(&mut bench, "bob", 9), [(3, 2)]);
    assert_eq!(bench.group("mail").finished, 2);
}

#[test]
fn a_group_with_too_many_parked_events_says_so() {
    let mut bench = Bench::new();
    let settings = Settings { in_flight_max: GROUP_IN_FLIGHT_MAX, attempts_max: 1, ..SETTINGS };
    bench.ok(Operation::CreateGroup(NewGroup { settings, ..create(Source::All) }));
    for first in (0..GROUP_PARKED_MAX as u64 + 4000).step_by(4000) {
        bench.append("a", Expected::Any, (first..first + 4000).map(|it| event(it, "")).collect());
    }
    let take = Operation::Take { group: "mail".into(), consumer: "ann".into(), limit: 0 };
    for _ in 0..3 {
        bench.ok(take.clone());
        bench.seconds += 10;
    }
    assert_eq!(bench.refused(take.clone()), EventsError::GroupFull { group: "mail".into() });
    assert!(restored(&stream(&bench.events)).is_ok());
    bench.ok(Operation::Unpark { group: "mail".into(), replay: false });
}

#[test]
fn settings_beyond_their_bounds_are_refused() {
    let mut bench = Bench::new();
    for settings in [
        Settings { in_flight_max: 0, ..SETTINGS },
        Settings { in_flight_max: GROUP_IN_FLIGHT_MAX + 1, ..SETTINGS },
        Settings { attempts_max: 0, ..SETTINGS },
        Settings { retry_after_nanos: 0, ..SETTINGS },
        Settings { retry_after_nanos: RETRY_AFTER_NANOS_MAX + 1, ..SETTINGS },
    ] {
        let operation = Operation::CreateGroup(NewGroup { settings, ..create(Source::All) });
        assert_eq!(bench.refused(operation), EventsError::TooLarge(Limit::Settings));
    }
}
