//! One test for each claim of the specification, in its order.

use crate::harness::{Cluster, config};

#[test]
fn one_request_costs_what_the_specification_says() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "first");
    it.run(3_000);
    it.talk();
    let ticket = it.submit(1, "second");
    it.deliver();
    assert_eq!(it.answer(1, ticket).as_deref(), Some("2"));
    let counts = ["Request", "Batch", "Ack", "Prop", "PAck", "PCert", "Commit", "Reply"].map(|label| it.count(label));
    let n = 4;
    let all = n * (n - 1);
    assert_eq!(counts, [1, n - 1, n - 1, all, all, all, all, n]);
    println!("{} words", it.count("Agree"));
    let _ = config();
}

#[test]
fn everybody_executes_everything_in_one_order() {
    let mut it = Cluster::new(4);
    it.client(1).client(2).client(3);
    for index in 0..60 {
        it.submit(1 + index % 3, &format!("x{index}"));
    }
    it.run(3_000);
    let tape = it.tape(0);
    assert_eq!(tape.len(), 60);
    assert!((1..4).all(|id| it.tape(id) == tape));
}
