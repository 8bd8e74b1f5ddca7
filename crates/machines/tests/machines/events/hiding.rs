//! Truncation, deletion, and what is freed.

use super::bench::*;
use quorate_machines::events::*;

fn filled(events: u64) -> Bench {
    let mut bench = Bench::new();
    for number in 1..=events {
        bench.append("a-1", Expected::Any, vec![event(number, &format!("a{number}"))]);
        bench.append("a-2", Expected::Any, vec![event(number, &format!("b{number}"))]);
    }
    bench
}

fn truncate(stream: &str, before: u64) -> Operation {
    Operation::Truncate { stream: stream.into(), before }
}

fn delete(stream: &str, expected: Expected, forever: bool) -> Operation {
    Operation::Delete { stream: stream.into(), expected, forever }
}

fn texts(found: &[(u64, String)]) -> Vec<&str> {
    found.iter().map(|(_, text)| text.as_str()).collect()
}

#[test]
fn truncated_events_are_in_no_answer_and_the_numbers_of_the_others_stay() {
    let mut bench = filled(3);
    bench.ok(truncate("a-1", 3));
    assert_eq!(bench.all(&of_stream("a-1")), [(3, "a3".into())]);
    assert_eq!(texts(&bench.all(&Source::All)), ["b1", "b2", "a3", "b3"]);
    assert_eq!(texts(&bench.all(&of_category("a"))), ["b1", "b2", "a3", "b3"]);
    assert_eq!((bench.info("a-1").version, bench.info("a-1").first), (3, 3));
    bench.ok(truncate("a-1", 1)); // nothing comes back
    assert_eq!(bench.info("a-1").first, 3);
    bench.ok(truncate("a-1", u64::MAX));
    assert_eq!((bench.info("a-1").version, bench.info("a-1").first), (3, 4));
    assert_eq!(bench.append("a-1", Expected::Exact(3), vec![event(4, "a4")]).writes[0].version, 4);
    assert_eq!(bench.all(&of_stream("a-1")), [(4, "a4".into())]);
}

#[test]
fn a_deleted_stream_is_gone_until_somebody_appends() {
    let mut bench = filled(2);
    assert!(matches!(bench.refused(delete("a-1", Expected::Exact(1), false)), EventsError::WrongVersion { .. }));
    bench.ok(delete("a-1", Expected::Exact(2), false));
    assert!(bench.info("a-1").deleted);
    assert_eq!(texts(&bench.all(&Source::All)), ["b1", "b2"]);
    assert!(matches!(bench.refused(truncate("a-1", 2)), EventsError::NoStream { .. }));
    let back = append("a-1", Expected::NoStream, vec![event(9, "again")]);
    assert_eq!(bench.reply(&back).appended().unwrap().writes[0].version, 3);
    assert_eq!(bench.all(&of_stream("a-1")), [(3, "again".into())]);
    assert!(bench.reply(&back).appended().unwrap().repeated);
}

#[test]
fn a_stream_deleted_for_ever_never_comes_back_but_repetitions_are_still_answered() {
    let mut bench = filled(2);
    bench.ok(delete("a-1", Expected::Any, true));
    assert!(bench.info("a-1").gone);
    let new = append("a-1", Expected::Any, vec![event(9, "again")]);
    assert_eq!(bench.refused(new), EventsError::StreamGone { stream: "a-1".into() });
    bench.ok(delete("a-1", Expected::Any, true));
    assert_eq!(bench.refused(delete("a-1", Expected::Any, false)), EventsError::StreamGone { stream: "a-1".into() });
    let old = append("a-1", Expected::Exact(1), vec![event(2, "a2")]);
    assert!(bench.reply(&old).appended().unwrap().repeated);
}

#[test]
fn scavenging_frees_what_is_hidden_and_nothing_else_in_bounded_steps() {
    let mut bench = filled(10);
    bench.ok(truncate("a-1", 8));
    bench.ok(delete("a-2", Expected::Any, false));
    let visible = bench.all(&Source::All);
    assert_eq!(bench.status().events, 20);
    let steps: Vec<_> = (0..3).map(|_| bench.ok(Operation::Scavenge { limit: 9 })).collect();
    let scavenged = |freed, left| Response::Scavenged { freed, left };
    assert_eq!(steps, [scavenged(9, 8), scavenged(8, 0), scavenged(0, 0)]);
    assert_eq!(bench.all(&Source::All), visible);
    let status = bench.status();
    assert_eq!((status.events, status.bytes, status.position), (3, "a8a9a10".len() as u64, 20));
}

#[test]
fn the_ids_of_freed_events_are_known_for_ever() {
    let mut bench = filled(3);
    let first = append("a-1", Expected::NoStream, vec![event(1, "a1")]);
    bench.ok(truncate("a-1", 4));
    bench.ok(Operation::Scavenge { limit: 0 });
    let again = bench.reply(&first).appended().unwrap();
    assert_eq!(
        again,
        Appended { writes: vec![Written { stream: "a-1".into(), version: 1, position: 1 }], repeated: true }
    );
    assert!(matches!(
        bench.refused(append("a-1", Expected::Any, vec![event(2, "another")])),
        EventsError::IdReused { version: 2, .. }
    ));
}
