//! PBFT inside: it sleeps until somebody contends (point 3 of PBFT's task), and what it orders proves itself.

use crate::harness::Cluster;
use crate::paper::contend;
use quorate_protocols::hq::Record;

#[test]
fn without_contention_pbft_sends_no_message_and_arms_no_timer() {
    let mut cluster = Cluster::new(4);
    let armed = |cluster: &Cluster, id: usize| {
        let process = cluster.hosts[id].process.as_ref().expect("it runs");
        process.node.timers().contains("Module")
    };
    for round in 0..20 {
        cluster.apply(9, &format!("a={round}")).apply(8, &format!("b={round}"));
        assert!((0..4).all(|id| !armed(&cluster, id)));
    }
    cluster.look(9, "a");
    cluster.run(30_000);
    assert!((0..4).all(|id| !armed(&cluster, id)));
    let between = cluster.sent.iter().filter(|it| {
        use quorate_protocols::hq::Message as M;
        it.from != it.to && matches!(it.message(), Some(M::Module(_)))
    });
    assert_eq!(between.count(), 0);
}

#[test]
fn after_a_resolution_pbft_falls_asleep_again() {
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run(30_000);
    cluster.talk();
    cluster.apply(7, "b=x");
    cluster.run(60_000);
    let process = |id: usize| cluster.hosts[id].process.as_ref().expect("it runs");
    assert!((0..4).all(|id| !process(id).node.timers().contains("Module")));
}

#[test]
fn pbft_and_hq_keep_their_records_in_one_log() {
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    let kinds = |id: usize| {
        let records: Vec<Record> = cluster.hosts[id].journal.iter().map(|it| it.record()).collect();
        let inner = records.iter().filter(|it| matches!(it, Record::Module(_))).count();
        (inner, records.len() - inner)
    };
    assert!((0..4).all(|id| kinds(id).0 > 1 && kinds(id).1 > 1));
    let seqs: Vec<u64> = cluster.hosts[0].journal.iter().map(|it| it.seq.get()).collect();
    assert!(seqs.is_sorted());
}
