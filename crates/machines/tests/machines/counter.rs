//! The counter, and why order matters.

use quorate_core::ids::{Position, SessionId};
use quorate_core::laws;
use quorate_core::machine::{At, Entropy, Output, Sink, Snapshot, StateMachine};
use quorate_core::time::WallTime;
use quorate_machines::Counter;

fn run(operations: &[&str]) -> String {
    let (mut counter, mut reply) = (Counter::default(), Vec::new());
    for operation in operations {
        let at = At {
            position: Position::new(1),
            time: WallTime::default(),
            session: SessionId::new(1),
            entropy: Entropy::Bytes([0; 32]),
        };
        let mut out = Output::default();
        counter.apply(&at, operation.as_bytes(), &mut out);
        reply = out.take().0;
    }
    String::from_utf8(reply).unwrap()
}

#[test]
fn the_order_of_operations_decides_the_state() {
    assert_eq!(run(&["set 1", "div 2", "add 1"]), "1.5");
    assert_eq!(run(&["set 1", "add 1", "div 2"]), "1");
}

#[test]
fn numbers_are_read_and_written_in_thousandths() {
    assert_eq!(run(&["set 1.25", "add -0.5"]), "0.75");
    assert_eq!(run(&["set -0.001"]), "-0.001");
    assert_eq!(run(&["set 1", "div 3"]), "0.333");
    assert_eq!(run(&["set -1", "div 3"]), "-0.333", "towards zero");
    assert_eq!(run(&["set 100"]), "100");
    assert_eq!(run(&["set 0"]), "0");
}

#[test]
fn what_cannot_be_done_is_answered_with_an_error_and_changes_nothing() {
    let max = "170141183460469231731687303715884105.727";
    assert_eq!(run(&[&format!("set {max}")]), max);
    for wrong in [
        "div 0",
        "div",
        "mul 2",
        "",
        "add x",
        "add 1.2345",
        "add --1",
        "add +1",
        "add 1.-2",
        "add 1e3",
        "add .5",
        "add 5.",
    ] {
        assert!(run(&["set 7", wrong]).starts_with("error: "), "{wrong}");
        assert_eq!(run(&["set 7", wrong, "add 0"]), "7", "{wrong}");
    }
    assert!(run(&[&format!("set {max}"), "add 0.001"]).starts_with("error: "));
    assert!(run(&[&format!("set {max}"), "div 0.5"]).starts_with("error: "));
    assert!(run(&[&format!("set 1{}", "0".repeat(200))]).starts_with("error: "));
}

#[test]
fn the_counter_keeps_the_laws() {
    let operations = ["set 1", "div 2", "add 1", "div 0", "\u{0}", "add -99999999999999999999999999999999999"];
    let operations: Vec<_> =
        operations.iter().map(|operation| operation.as_bytes().to_vec()).chain([vec![0xff; 200]]).collect();
    laws::check(Counter::default, &operations, &[vec![], vec![1]]).unwrap();
}

#[test]
fn a_snapshot_of_another_length_is_corrupt() {
    for length in (0..16).chain(17..40) {
        let mut sink = Counter::rebuild();
        assert!(sink.push(&vec![0; length]).and_then(|()| sink.finish()).is_err());
    }
}
