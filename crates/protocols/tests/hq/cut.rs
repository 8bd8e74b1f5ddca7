//! PBFT's log in HQ is cut: what its order has led to at an entry stands for all entries up to there.

use crate::harness::{Cluster, config, keyring, replica};
use crate::in_order::{in_order_with, noted};
use crate::words::{N, ordered};
use bytes::Bytes;
use quorate_core::crypto::{Certified, Verified};
use quorate_core::ids::{ClientId, OpNumber, Peer, ReplicaId};
use quorate_protocols::hq::{Config, Cut, Message, ReadRequest, Record};
use quorate_protocols::pbft;
use std::collections::BTreeMap;

const CUT: &str = "PBFT's order was cut";
const TAKEN: &str = "a cut of PBFT's order was taken from others";

fn cutting() -> Config {
    let module = pbft::Config { checkpoint_entries: 4, ..config().module };
    Config { cut_entries: 8, state_steps: 16, log_slack: 8, module, ..config() }
}

fn alike(cluster: &mut Cluster) {
    cluster.run_until("one state", |it| (0..N).all(|id| it.tape(id) == it.tape(0)));
}

/// Two clients in turn.
fn writes(cluster: &mut Cluster, words: std::ops::Range<usize>) {
    for count in words {
        cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
    }
}

/// Records of PBFT on a replica's disk.
fn of_pbft(cluster: &Cluster, id: usize) -> usize {
    let records = cluster.hosts[id].journal.iter().map(crate::harness::OnDisk::record);
    records.filter(|it| matches!(it, Record::Module(_) | Record::Carried(..))).count()
}

#[test]
fn pbfts_log_is_no_longer_than_a_few_cuts() {
    let mut cluster = in_order_with(N, cutting());
    writes(&mut cluster, 0..30);
    let most = (0..N).map(|id| of_pbft(&cluster, id)).max();
    writes(&mut cluster, 30..60);
    cluster.run(3000);
    assert!((0..N).all(|id| noted(&cluster, id, CUT) >= 6), "every eight entries");
    assert!((0..N).map(|id| of_pbft(&cluster, id)).max() <= most.map(|most| most + 32), "it does not grow");
    let mut uncut = in_order_with(N, config());
    writes(&mut uncut, 0..60);
    assert!(of_pbft(&uncut, 0) > 2 * of_pbft(&cluster, 0), "{} {}", of_pbft(&uncut, 0), of_pbft(&cluster, 0));
}

#[test]
fn at_a_start_only_what_came_after_the_last_cut_is_gone_through() {
    let mut cluster = in_order_with(N, cutting());
    writes(&mut cluster, 0..20);
    alike(&mut cluster);
    let before = (0..N).map(|id| noted(&cluster, id, "contention is resolved")).collect::<Vec<_>>();
    power_failure(&mut cluster);
    assert_eq!((0..N).map(|id| noted(&cluster, id, "contention is resolved")).collect::<Vec<_>>(), before);
    cluster.talk();
    writes(&mut cluster, 20..24);
    alike(&mut cluster);
    assert_eq!(cluster.count("Granted"), 0, "the object is in ordered mode: the cut says so");
    assert!(cluster.tape(0)[0].ends_with("w20 w21 w22 w23"));
}

#[test]
fn who_has_slept_through_what_was_cut_takes_the_cut_and_the_objects_from_others() {
    let mut cluster = in_order_with(N, cutting());
    cluster.isolate(3);
    writes(&mut cluster, 0..40);
    cluster.heal();
    writes(&mut cluster, 40..44);
    alike(&mut cluster);
    assert!(noted(&cluster, 3, TAKEN) > 0);
    // And it is one of those that go on.
    cluster.isolate(2);
    writes(&mut cluster, 44..50);
    assert!(cluster.tape(3)[0].ends_with("w48 w49"), "{:?}", cluster.tape(3));
    cluster.heal();
    alike(&mut cluster);
    // Its disk says so, too.
    cluster.restart(3);
    writes(&mut cluster, 50..56);
    alike(&mut cluster);
}

/// Replica 3 has slept, and has asked for a cut; `label` from others is lost.
fn asks_for_a_cut(label: &'static str) -> Cluster {
    let mut cluster = in_order_with(N, cutting());
    cluster.isolate(3);
    writes(&mut cluster, 0..40);
    cluster.heal();
    cluster.lose(move |it| it.label == label && it.to == replica(3) && it.from != it.to);
    cluster.talk();
    writes(&mut cluster, 40..42);
    cluster.run_until("it asks", |it| it.sent.iter().any(|it| it.label == "GetCut"));
    cluster
}

#[test]
fn a_cut_that_no_quorum_has_voted_for_is_not_taken() {
    let mut cluster = asks_for_a_cut("Cut");
    let asked = cluster.sent.iter().rev().find_map(|it| match it.message() {
        Some(Message::GetCut(op)) => Some(op),
        _ => None,
    });
    let lie = Cut { op: asked.expect("it has asked"), ..Cut::default() };
    cluster.say(replica(1), 3, Message::Cut(Box::new(lie)));
    assert_eq!((cluster.blamed(3), noted(&cluster, 3, TAKEN)), (1, 0));
    cluster.heal();
    alike(&mut cluster);
    assert_eq!(noted(&cluster, 3, TAKEN), 1);
}

#[test]
fn a_cut_that_nobody_has_asked_for_is_ignored() {
    let mut cluster = in_order_with(N, cutting());
    writes(&mut cluster, 0..20);
    cluster.say(
        replica(1),
        0,
        Message::Cut(Box::new(Cut { op: quorate_core::ids::OpNumber::new(1000), ..Cut::default() })),
    );
    assert_eq!((cluster.blamed(0), noted(&cluster, 0, TAKEN)), (0, 0));
    writes(&mut cluster, 20..22);
    alike(&mut cluster);
}

#[test]
fn a_replica_votes_for_a_cut_when_its_objects_have_been_through_it() {
    let mut cluster = in_order_with(N, cutting());
    let before = noted(&cluster, 3, CUT);
    cluster.hosts[3].fast_machine = false;
    writes(&mut cluster, 0..30);
    assert!(noted(&cluster, 0, CUT) >= before + 3);
    assert_eq!(noted(&cluster, 3, CUT), before, "it knows the entries, and has not executed them");
    cluster.hosts[3].fast_machine = true;
    cluster.work(3);
    alike(&mut cluster);
    assert!(noted(&cluster, 3, CUT) > before);
}

#[test]
fn who_has_taken_a_cut_answers_no_client_before_its_objects_are_through_it() {
    let mut cluster = asks_for_a_cut("Object");
    cluster.run_until("it has it", |it| noted(it, 3, TAKEN) > 0);
    let read =
        ReadRequest { nonce: 1, name: Some(Bytes::from_static(b"a")), query: Bytes::from_static(b"a"), full: None };
    let client = Peer::Client(ClientId::new(77));
    cluster.talk();
    cluster.say(client, 3, Message::Read(read.clone()));
    cluster.run(100);
    assert_eq!(cluster.count("ReadAnswer"), 0);
    cluster.heal();
    alike(&mut cluster);
    cluster.run(100);
    cluster.say(client, 3, Message::Read(read));
    cluster.run(100);
    assert_eq!(cluster.count("ReadAnswer"), 1);
}

#[test]
fn who_asks_for_a_cut_that_nobody_keeps_any_more_asks_for_a_later_one() {
    let mut cluster = asks_for_a_cut("Cut");
    writes(&mut cluster, 42..90); // others keep the last two
    cluster.heal();
    writes(&mut cluster, 90..92);
    cluster.run_until("it has a later one", |it| noted(it, 3, TAKEN) > 0);
    alike(&mut cluster);
}

/// The cuts that these replicas have voted for, proven, in their order.
fn proven(cluster: &Cluster) -> Vec<Message> {
    let mut votes: BTreeMap<OpNumber, BTreeMap<ReplicaId, Verified<pbft::StateCheckpoint>>> = BTreeMap::new();
    let keyring = keyring(0, N);
    for it in cluster.sent.iter().filter(|it| it.label == "State") {
        let Some(Message::Module(pbft::Message::State(mut vote))) = it.message() else { continue };
        vote.prove(&keyring).expect("it is signed");
        let vote = vote.verified().expect("it was proved");
        votes.entry(vote.statement().checkpoint.op).or_default().insert(vote.by(), vote);
    }
    let certified = votes.into_values().filter_map(|votes| {
        let statement = *votes.values().next()?.statement();
        Certified::assemble(votes.values(), &statement, 3)
    });
    certified.map(|it| Message::Module(pbft::Message::StateStable(it.into_certificate()))).collect()
}

#[test]
fn cuts_that_nobody_keeps_any_more_are_not_in_the_way_of_one_that_is() {
    let mut cluster = in_order_with(N, cutting());
    cluster.isolate(3).talk();
    writes(&mut cluster, 0..80);
    let cuts = proven(&cluster);
    assert!(cuts.len() >= 8, "{}", cuts.len());
    cluster.heal();
    cluster.lose(|it| it.label == "StateStable" || it.label == "State");
    for old in cuts.iter().take(6) {
        cluster.say(replica(1), 3, old.clone());
    }
    cluster.say(replica(0), 3, cuts[cuts.len() - 1].clone());
    cluster.run(500);
    assert_eq!(noted(&cluster, 3, TAKEN), 1);
    cluster.heal();
    alike(&mut cluster);
}

#[test]
fn who_has_taken_a_cut_knows_what_the_last_operations_on_several_objects_came_to() {
    let mut cluster = in_order_with(N, cutting());
    cluster.isolate(3);
    let both = ordered(5, 1, "a+b=both");
    for id in 0..3 {
        cluster.say(Peer::Client(ClientId::new(5)), id, Message::Ordered(Box::new(both.clone())));
    }
    cluster.run_until("it is done", |it| it.tape(0).len() == 2);
    // Not so many operations on several objects that it is not carried by an object any more, and many entries.
    for round in 0..6 {
        cluster.apply(9, &format!("a+b={round}"));
    }
    for round in 0..3 {
        cluster.apply(9, &format!("b+c={round}"));
    }
    cluster.heal();
    cluster.apply(9, "b+c=last");
    alike(&mut cluster);
    assert!(noted(&cluster, 3, TAKEN) > 0);
    cluster.run(200);
    cluster.say(Peer::Client(ClientId::new(5)), 3, Message::Ordered(Box::new(both)));
    let Message::OrderedDone { number, result } = cluster.last(3, "OrderedDone") else { panic!("an answer") };
    assert_eq!((number.get(), result.is_some()), (1, true));
}

fn power_failure(cluster: &mut Cluster) {
    for id in 0..N {
        cluster.crash(id);
    }
    for id in 0..N {
        cluster.restart(id);
    }
    cluster.run(100);
}

#[test]
fn an_operation_on_several_objects_from_before_a_cut_is_not_done_again_after_a_start() {
    let mut cluster = in_order_with(N, cutting());
    let both = ordered(5, 1, "a+b=both");
    let say = |cluster: &mut Cluster| {
        for id in 0..N {
            cluster.say(Peer::Client(ClientId::new(5)), id, Message::Ordered(Box::new(both.clone())));
        }
        cluster.run(200);
    };
    say(&mut cluster);
    assert!((0..N).all(|id| cluster.tape(id).len() == 2));
    for round in 0..8 {
        cluster.apply(9, &format!("b+c={round}"));
    }
    alike(&mut cluster);
    power_failure(&mut cluster);
    say(&mut cluster);
    cluster.run(1000);
    alike(&mut cluster);
    assert_eq!(cluster.tape(0)[0].matches("both").count(), 1, "{:?}", cluster.tape(0));
}

#[test]
fn a_cut_outlives_the_beginning_of_the_log() {
    let mut cluster = in_order_with(N, cutting());
    writes(&mut cluster, 0..12);
    let longest = cluster.hosts[0].journal.len();
    for count in 0..200 {
        cluster.apply(7, &format!("c={count}")); // no entries of PBFT
        let records = cluster.hosts[0].journal.iter().map(crate::harness::OnDisk::record);
        assert!(records.filter(|it| matches!(it, Record::Cut(_))).count() >= 1, "{count}");
    }
    let records = cluster.hosts[0].journal.len();
    assert!(records <= longest + 100, "it goes: {records} after {longest}");
    power_failure(&mut cluster);
    cluster.talk();
    writes(&mut cluster, 12..14);
    assert_eq!(cluster.count("Granted"), 0, "the object is in ordered mode: the cut says so");
    alike(&mut cluster);
}

#[test]
fn who_has_taken_a_cut_has_it_after_a_start() {
    let mut cluster = asks_for_a_cut("nothing");
    cluster.run_until("it has it", |it| noted(it, 3, TAKEN) > 0);
    cluster.sync(3);
    cluster.restart(3);
    cluster.talk();
    alike(&mut cluster);
    writes(&mut cluster, 42..44);
    alike(&mut cluster);
    assert_eq!(cluster.count("GetCut"), 0);
}

#[test]
fn no_more_operations_on_several_objects_are_ordered_when_a_cut_is_overdue() {
    const FROZEN: &str = "objects are frozen: an operation touches several";
    let mut cluster = in_order_with(N, Config { cut_entries: 3, ..cutting() });
    for id in 20..32 {
        cluster.client(id);
    }
    // None of them is carried out: no cut can be made.
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    let before = noted(&cluster, 0, FROZEN);
    let mut tickets = Vec::new();
    for id in 20..32 {
        tickets.push((id, cluster.submit(id, &format!("x{id}+y{id}=both"))));
        cluster.deliver();
    }
    let frozen = noted(&cluster, 0, FROZEN) - before;
    assert!((3..=6).contains(&frozen), "{frozen} of twelve, each an entry");
    let cuts = noted(&cluster, 0, CUT);
    cluster.heal();
    cluster.run_until("answers", |it| tickets.iter().all(|(id, ticket)| it.answer(*id, *ticket).is_some()));
    assert!(noted(&cluster, 0, CUT) > cuts);
    alike(&mut cluster);
    assert_eq!(cluster.tape(0).iter().filter(|line| line.ends_with(": both")).count(), 24);
}

#[test]
fn what_an_operation_on_several_objects_after_a_cut_came_to_survives_a_power_failure() {
    let mut cluster = in_order_with(N, cutting());
    writes(&mut cluster, 0..10);
    assert!((0..N).all(|id| noted(&cluster, id, CUT) > 0));
    cluster.client(5).lose(|it| it.label == "OrderedDone");
    let ticket = cluster.submit(5, "a+b=x");
    cluster.run_until("it is done", |it| (0..N).all(|id| it.tape(id).len() == 2));
    cluster.run(20);
    for id in 0..N {
        cluster.crash(id);
    }
    cluster.heal();
    for id in 0..N {
        cluster.restart(id);
    }
    cluster.run_until("an answer", |it| it.answer(5, ticket).is_some());
    let seen = cluster.tape(0)[0].split(' ').count() - 1;
    assert_eq!(cluster.answer(5, ticket), Some(format!("{seen} 1")), "not its digest alone");
}

#[test]
fn operations_on_several_objects_are_done_once_though_the_log_is_cut_at_every_chance() {
    let mut cluster = in_order_with(N, Config { cut_entries: 1, ..cutting() });
    for id in [5, 6] {
        cluster.client(id);
    }
    let mut tickets = Vec::new();
    for round in 0..12 {
        for id in [5, 6, 7, 8, 9] {
            let objects = ["a+b", "b+c", "a+b+c", "a", "b"][(id as usize + round) % 5];
            tickets.push((id, cluster.submit(id, &format!("{objects}={id}.{round}."))));
        }
        cluster.run(7);
    }
    cluster.run_until("answers", |it| tickets.iter().all(|(id, ticket)| it.answer(*id, *ticket).is_some()));
    alike(&mut cluster);
    assert!((0..N).all(|id| noted(&cluster, id, CUT) > 4));
    for id in 0..N {
        cluster.restart(id);
    }
    cluster.apply(9, "a+b+c=last");
    alike(&mut cluster);
    let tape = cluster.tape(0);
    for (id, round) in [5, 6, 7, 8, 9].into_iter().flat_map(|id| (0..12).map(move |round| (id, round))) {
        let word = format!("{id}.{round}.");
        let most = tape.iter().map(|line| line.split(' ').filter(|it| **it == word).count()).max();
        assert_eq!(most, Some(1), "{word} in {tape:?}");
    }
    assert!(tape.iter().all(|line| line.ends_with("last")), "{tape:?}");
}
