//! A disk that was lost: when its replica is back, and what it may do before and after. Replica 3 loses it here.

use crate::harness::{Cluster, Flying, OnDisk, config, replica};
use crate::in_order::{in_order_with, noted, order_all_as, order_as};
use crate::paper::contend;
use crate::words::{N, ordered, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::crypto::Digest;
use quorate_core::ids::{ClientId, Peer, RecordSeq};
use quorate_core::protocol::RestoreError;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{Config, Entry, Message, ReadRequest, Record, object_of};
use quorate_protocols::pbft;

const BEGINS: &str = "a replica begins a new life: its disk was lost";
const RENEWS: &str = "an object is frozen: a replica that has lost its disk may not grant its next place";
const RESOLVED: &str = "contention is resolved";
const CUT: &str = "PBFT's order was cut";
const TAKEN: &str = "a cut of PBFT's order was taken from others";
const BACK: &str = "is back: it has what the others have, and what its former self has promised does not matter";

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// What `quorate recover` leaves.
fn new_disk(cluster: &mut Cluster, id: usize) {
    cluster.crash(id);
    let host = &mut cluster.hosts[id];
    host.journal.clear();
    host.snapshots.clear();
    host.journal.push(OnDisk { seq: RecordSeq::new(1), bytes: Record::Lost.encode(), damaged: None });
    (host.durable, host.next_seq) = (RecordSeq::new(1), RecordSeq::new(2));
}

pub fn is_back(cluster: &Cluster, id: usize) -> bool {
    !cluster.status(id).role.starts_with("rejoining")
}

/// For so long it is not.
fn stays_away(cluster: &mut Cluster, id: usize, ms: u64) {
    for _ in 0..ms / 50 {
        cluster.run(50);
        assert!(!is_back(cluster, id), "{:?}", cluster.status(id));
    }
}

/// Its disk is lost and it starts with a new one.
pub fn loses_its_disk(cluster: &mut Cluster, id: usize) {
    new_disk(cluster, id);
    cluster.restart(id);
}

/// Is it from or to this replica, and another one?
fn of(it: &Flying, id: usize) -> bool {
    it.from != it.to && (it.from == replica(id) || it.to == replica(id))
}

/// How many messages of this name a replica has sent to clients and to other replicas.
fn said(cluster: &Cluster, id: usize, label: &str) -> usize {
    cluster.sent.iter().filter(|it| it.from == replica(id) && it.to != replica(id) && it.label == label).count()
}

fn to_clients(cluster: &Cluster, id: usize) -> Vec<&'static str> {
    let sent = cluster.sent.iter().filter(|it| it.from == replica(id) && matches!(it.to, Peer::Client(_)));
    sent.map(|it| it.label).filter(|label| *label != "Reply").collect()
}

fn read_of(name: &'static str, nonce: u64) -> Message {
    let name = Bytes::from_static(name.as_bytes());
    Message::Read(ReadRequest { nonce, name: Some(name.clone()), query: name, full: None })
}

fn alike(cluster: &mut Cluster) {
    cluster.run_until("one state", |it| (0..N).all(|id| it.tape(id) == it.tape(0)));
}

fn comes_back(cluster: &mut Cluster, id: usize) {
    cluster.run_until("it is back", |it| is_back(it, id));
}

/// A group whose replica 3 has lost its disk and is back; `a` and `b` were written before.
pub fn returned() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(8, "a=2").apply(9, "b=1");
    new_disk(&mut cluster, 3);
    cluster.apply(9, "a=3");
    cluster.restart(3);
    comes_back(&mut cluster, 3);
    cluster
}

#[test]
fn a_replica_whose_disk_was_lost_comes_back_in_a_group_at_rest() {
    let mut cluster = returned();
    assert!(cluster.agrees(&["a: 1 2 3", "b: 1"]), "{:?}", cluster.tape(3));
    assert_eq!(noted(&cluster, 3, BACK), 1);
    cluster.rests_after(20_000);
}

#[test]
fn with_it_back_another_one_may_go() {
    let mut cluster = returned();
    cluster.crash(1);
    cluster.apply(9, "a=4").apply(8, "b=2").apply(7, "new=1").apply(7, "a=5");
    assert!(cluster.agrees(&["a: 1 2 3 4 5", "b: 1 2", "new: 1"]), "{:?}", cluster.tape(3));
    assert_eq!(cluster.look(9, "a"), "1 2 3 4 5");
    assert_eq!(noted(&cluster, 0, RENEWS), 3, "each once");
}

// Before it is back.

#[test]
fn until_it_is_back_it_answers_no_client_and_tells_nobody_what_it_has_executed() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(8, "b=1");
    loses_its_disk(&mut cluster, 3);
    cluster.lose(|it| ["Executed", "Object", "Sums"].contains(&it.label));
    cluster.run(3000);
    cluster.talk();
    cluster.apply(9, "e=1");
    assert_eq!(cluster.tape(3), ["e: 1"], "by its certificate");
    cluster.lose(|it| it.label == "Executed");
    for id in 0..N {
        let one = [7, 6][id % 2];
        cluster.say(client(one), id, Message::Write1(write(one, 1, &format!("c={one}"))));
    }
    cluster.apply(9, "c=9").apply(9, "a=2");
    assert!(cluster.count("Resolve") > 0);
    cluster.say(client(5), 3, read_of("a", 1)).say(client(5), 3, Message::Write1(write(5, 1, "d=1")));
    cluster.say(replica(1), 3, Message::GetExecuted { nonce: 1, after: Digest::ZERO });
    cluster.apply(9, "a+b=both");
    cluster.run(2000);
    assert!(cluster.tape(3)[0].ends_with("both"), "{:?}", cluster.tape(3));
    assert_eq!((to_clients(&cluster, 3), said(&cluster, 3, "Start")), (Vec::new(), 0));
    assert_eq!(said(&cluster, 3, "Executed"), 0, "it does not know");
    assert!(!is_back(&cluster, 3));
    cluster.heal();
    comes_back(&mut cluster, 3);
    cluster.run(1000);
    cluster.talk();
    cluster.say(client(5), 3, read_of("a", 2));
    assert_eq!(to_clients(&cluster, 3), ["ReadAnswer"]);
}

#[test]
fn until_it_is_back_it_freezes_nothing_though_others_have() {
    // It would say that it has executed nothing, and before PBFT has ordered its new life, that would count.
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    contend(&mut cluster);
    cluster.run(2000);
    let start = cluster.last(1, "Start");
    cluster.lose(|it| it.from != it.to && it.label == "Start" || it.from == replica(3) && it.label == "Request");
    loses_its_disk(&mut cluster, 3);
    cluster.talk();
    cluster.say(replica(1), 3, start);
    cluster.run(3000);
    assert_eq!((said(&cluster, 3, "Start"), noted(&cluster, 0, BEGINS)), (0, 0));
    cluster.heal();
    comes_back(&mut cluster, 3);
    alike(&mut cluster);
}

#[test]
fn what_waits_for_it_is_frozen_and_resolved_when_it_is_back() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).apply(9, "a=1");
    loses_its_disk(&mut cluster, 3);
    cluster.lose(|it| it.label == "Executed");
    cluster.run(3000);
    // Without replica 2 there is no quorum of STARTs.
    cluster.lose(|it| it.label == "Executed" && it.to == replica(3) || it.label == "Start" && of(it, 2));
    let ticket = cluster.submit(9, "a+b=both");
    cluster.run(3000);
    assert_eq!((said(&cluster, 3, "Start"), noted(&cluster, 0, RESOLVED)), (0, 0));
    cluster.lose(|it| it.label == "Start" && of(it, 2));
    cluster.run_until("an answer", |it| it.answer(9, ticket).is_some());
    assert!(is_back(&cluster, 3));
}

#[test]
fn it_is_back_when_a_quorum_of_others_has_told_it_what_they_have() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(0);
    cluster.apply(9, "a=1"); // replica 0 knows nothing of it
    cluster.heal();
    cluster.lose(|it| ["Sums", "Versions", "Executed"].contains(&it.label));
    loses_its_disk(&mut cluster, 3);
    stays_away(&mut cluster, 3, 3000);
    cluster.lose(|it| ["Sums", "Versions"].contains(&it.label) || it.label == "Executed" && it.from != replica(0));
    stays_away(&mut cluster, 3, 3000);
    cluster.lose(|it| ["Sums", "Versions"].contains(&it.label) || it.label == "Executed" && it.from == replica(2));
    stays_away(&mut cluster, 3, 3000);
    cluster.heal();
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.tape(3), ["a: 1"]);
}

#[test]
fn it_is_back_when_it_has_itself_what_they_have() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.lose(|it| it.to == replica(3) && ["Object", "Write2"].contains(&it.label));
    loses_its_disk(&mut cluster, 3);
    stays_away(&mut cluster, 3, 5000);
    cluster.heal();
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.tape(3), ["a: 1 2"]);
}

#[test]
fn what_they_have_is_told_page_by_page() {
    let mut cluster = Cluster::new(N);
    let count = quorate_protocols::hq::VERSIONS_MAX + 3;
    for index in 0..count {
        let write = write(5, 1, &format!("{index}=x"));
        let proof = proof(&[0, 1, 2], &write, version(0, 1));
        for id in 0..3 {
            let said = Message::Write2 { proof: proof.clone(), write: Some(write.clone()), answer: false };
            cluster.say(client(5), id, said);
        }
    }
    cluster.lose(|it| ["Sums", "Versions"].contains(&it.label)); // by their sums it would find the rest some day
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.tape(3).len(), count);
}

#[test]
fn what_the_others_have_granted_its_former_self_may_have_executed() {
    // A certificate that it alone has seen: it has answered for it, and may have granted the place after it.
    let mut cluster = Cluster::new(N);
    let write = write(9, 1, "a=x");
    for id in 0..N {
        cluster.say(client(9), id, Message::Write1(write.clone()));
    }
    let proof = proof(&[0, 1, 2], &write, version(0, 1));
    cluster.say(client(9), 3, Message::Write2 { proof, write: None, answer: true });
    assert_eq!((cluster.tape(3), said(&cluster, 3, "Done")), (vec!["a: x".to_owned()], 1));
    loses_its_disk(&mut cluster, 3);
    for _ in 0..2000 {
        if is_back(&cluster, 3) {
            break;
        }
        cluster.run(10);
    }
    assert!(is_back(&cluster, 3));
    assert_eq!(cluster.tape(3), ["a: x"], "in a resolution: nobody else will ever show the certificate");
    assert_eq!(noted(&cluster, 0, RENEWS), 1);
}

#[test]
fn what_one_has_granted_and_nobody_executes_is_not_in_its_way() {
    let mut cluster = Cluster::new(N);
    cluster.say(client(8), 0, Message::Write1(write(8, 1, "a=never"))); // nobody hears of this client again
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    cluster.apply(9, "a=1");
    assert!(!cluster.tape(3)[0].contains("never"));
}

#[test]
fn answers_to_a_former_life_are_not_counted() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.lose(|it| it.label == "Executed");
    loses_its_disk(&mut cluster, 3);
    cluster.run(1000);
    let Message::GetExecuted { nonce, after } = cluster.last(3, "GetExecuted") else { panic!("a question") };
    for id in 0..3 {
        let (nonce, places) = (nonce.wrapping_add(1), Vec::new());
        cluster.say(replica(id), 3, Message::Executed { nonce, after, places });
    }
    stays_away(&mut cluster, 3, 3000);
    for id in 0..3 {
        cluster.say(replica(id), 3, Message::Executed { nonce, after, places: Vec::new() });
    }
    comes_back(&mut cluster, 3);
}

#[test]
fn a_list_out_of_order_is_a_lie() {
    let mut cluster = Cluster::new(N);
    cluster.lose(|it| it.label == "Executed");
    loses_its_disk(&mut cluster, 3);
    cluster.run(1000);
    let Message::GetExecuted { nonce, after } = cluster.last(3, "GetExecuted") else { panic!("a question") };
    let (one, two) = (Digest::of(b"one"), Digest::of(b"two"));
    let (first, second) = (one.min(two), one.max(two));
    let lists = [
        vec![(second, version(0, 1)), (first, version(0, 1))],
        vec![(Digest::ZERO, version(0, 1))],
        vec![(first, version(0, 0))],
    ];
    for (count, places) in (1..).zip(lists) {
        cluster.say(replica(1), 3, Message::Executed { nonce, after, places });
        assert_eq!(cluster.blamed(3), count);
    }
}

#[test]
fn a_liar_that_lists_what_does_not_exist_is_not_needed() {
    // Seven replicas, two faults: one has lost its disk, one lies.
    let mut cluster = Cluster::new(7);
    cluster.apply(9, "a=1");
    cluster.lose(|it| it.label == "Executed" && it.from == replica(1));
    loses_its_disk(&mut cluster, 3);
    cluster.run(50);
    let Message::GetExecuted { nonce, after } = cluster.last(3, "GetExecuted") else { panic!("a question") };
    let mut places: Vec<_> = (0..500_u64).map(|it| (Digest::of(&it.to_le_bytes()), version(0, 7))).collect();
    places.sort();
    cluster.say(replica(1), 3, Message::Executed { nonce, after, places });
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.tape(3), ["a: 1"]);
}

#[test]
fn it_is_back_when_pbft_has_ordered_that_it_begins_a_new_life() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.lose(|it| it.label == "Request" && it.from == replica(3));
    loses_its_disk(&mut cluster, 3);
    stays_away(&mut cluster, 3, 5000);
    assert_eq!((0..N).map(|id| noted(&cluster, id, BEGINS)).sum::<usize>(), 0);
    assert!(cluster.status(3).missing > 0, "no controller takes another one away");
    cluster.heal();
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.status(3).missing, 0);
    assert!((0..N).all(|id| noted(&cluster, id, BEGINS) == 1));
}

#[test]
fn it_is_back_when_pbft_here_votes_again() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.lose(|it| it.label == "GetBeyond");
    loses_its_disk(&mut cluster, 3);
    stays_away(&mut cluster, 3, 5000);
    cluster.heal();
    comes_back(&mut cluster, 3);
}

#[test]
fn it_is_back_when_its_objects_are_through_what_was_ordered_before() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).apply(9, "c=1");
    // A list that nobody gets to the end of.
    cluster.lose(|it| it.label == "Grants" && it.from != it.to);
    cluster.submit(9, "a+b=both");
    cluster.run_until("it is ordered", |it| (0..N).all(|id| noted(it, id, RESOLVED) == 2));
    loses_its_disk(&mut cluster, 3);
    stays_away(&mut cluster, 3, 5000);
    cluster.heal();
    comes_back(&mut cluster, 3);
    assert_eq!(cluster.tape(3), ["a: both", "b: both", "c: 1"]);
}

// In PBFT's order.

#[test]
fn a_statement_of_a_former_life_begins_none() {
    let mut cluster = returned();
    let request = cluster.sent.iter().find(|it| it.from == replica(3) && it.label == "Request" && it.to == replica(0));
    let request = request.expect("it has asked").clone();
    cluster.run(20_000);
    order_as(&mut cluster, 3, &Entry::Rejoin { number: 1, nonce: 77 });
    order_as(&mut cluster, 3, &Entry::Rejoin { number: 3, nonce: 78 });
    (0..N).for_each(|id| cluster.send(Flying { to: replica(id), ..request.clone() }));
    cluster.run(3000);
    assert!((0..N).all(|id| noted(&cluster, id, BEGINS) == 1));
}

#[test]
fn one_replica_does_not_begin_two_lives_within_sixteen_seconds() {
    let mut cluster = returned();
    order_as(&mut cluster, 3, &Entry::Rejoin { number: 2, nonce: 77 });
    cluster.run(1000);
    assert!((0..N).all(|id| noted(&cluster, id, BEGINS) == 1));
    cluster.run(16_000);
    order_as(&mut cluster, 3, &Entry::Rejoin { number: 2, nonce: 77 });
    assert!((0..N).all(|id| noted(&cluster, id, BEGINS) == 2));
}

#[test]
fn a_disk_that_is_lost_again_begins_another_life() {
    let mut cluster = returned();
    loses_its_disk(&mut cluster, 3);
    cluster.run(1000);
    assert!(!is_back(&cluster, 3));
    cluster.run_until("sixteen seconds later", |it| noted(it, 0, BEGINS) == 2);
    comes_back(&mut cluster, 3);
    cluster.crash(1);
    cluster.apply(9, "a=4");
    assert_eq!(cluster.tape(3), ["a: 1 2 3 4", "b: 1"]);
}

#[test]
fn a_folder_of_a_former_life_stops() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.crash(3);
    let old: Vec<OnDisk> = cluster.hosts[3].journal.clone();
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    cluster.crash(3);
    let last = old.last().expect("records").seq;
    cluster.hosts[3].journal = old;
    (cluster.hosts[3].durable, cluster.hosts[3].next_seq) = (last, last.next());
    cluster.restart(3);
    cluster.run_until("it stops", |it| it.hosts[3].halted.is_some());
    assert!(cluster.hosts[3].halted.as_ref().is_some_and(|it| it.contains("has replaced")));
}

/// Replica 3 has said that it has frozen `a`, and then loses its disk; of the STARTs of others none has arrived anywhere.
fn former_start(id: usize) -> (Cluster, Message) {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).client(7);
    cluster.lose(move |it| it.label == "Start" && it.from != it.to && it.from != replica(id));
    contend(&mut cluster);
    cluster.run(2000);
    assert!((0..N).all(|it| cluster.status(it).role == "resolving contention"));
    let start = cluster.last(id, "Start");
    (cluster, start)
}

#[test]
fn a_start_of_a_former_life_is_void() {
    let (mut cluster, former) = former_start(3);
    // With it there would be three: replica 2 says nothing to anybody.
    loses_its_disk(&mut cluster, 3);
    cluster.run_until("it begins a new life", |it| (0..N).all(|id| noted(it, id, BEGINS) == 1));
    cluster.lose(|it| it.label == "Start" && of(it, 2));
    for id in 0..2 {
        cluster.say(replica(3), id, former.clone());
    }
    cluster.run(5000);
    assert_eq!((0..N).map(|id| noted(&cluster, id, RESOLVED)).sum::<usize>(), 0);
    // A liar has it ordered.
    let starts = [cluster.last(0, "Start"), cluster.last(1, "Start"), former];
    let starts = starts.into_iter().map(|it| match it {
        Message::Start(start) => *start,
        _ => unreachable!("STARTs"),
    });
    order_as(&mut cluster, 1, &Entry::Starts(starts.collect()));
    cluster.run(2000);
    assert_eq!((0..N).map(|id| noted(&cluster, id, RESOLVED)).sum::<usize>(), 0);
    cluster.heal();
    cluster.run_until("it is resolved", |it| (0..N).all(|id| noted(it, id, RESOLVED) == 1));
    comes_back(&mut cluster, 3);
    alike(&mut cluster);
}

#[test]
fn a_start_of_a_former_life_is_in_nobodys_way() {
    // Replica 0's would be the first of the three that are handed to PBFT.
    for again in [false, true] {
        let (mut cluster, former) = former_start(0);
        loses_its_disk(&mut cluster, 0);
        cluster.run_until("it begins a new life", |it| (1..N).all(|id| noted(it, id, BEGINS) == 1));
        if again {
            for id in 1..N {
                cluster.say(replica(0), id, former.clone());
            }
        }
        cluster.heal();
        cluster.run_until("it is resolved", |it| (1..N).all(|id| noted(it, id, RESOLVED) == 1));
        comes_back(&mut cluster, 0);
        alike(&mut cluster);
    }
}

// What it grants.

#[test]
fn it_grants_no_place_that_its_former_self_may_have_granted() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.say(client(8), 3, Message::Write1(write_after(8, 1, "a=2", 1)));
    let Message::Granted { grant: former, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert_eq!(former.statement().version, version(0, 2));
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    cluster.talk();
    cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=3", 1)));
    cluster.say(client(7), 3, Message::Write1(write(7, 1, "never heard of=1")));
    cluster.run(2000);
    assert!(to_clients(&cluster, 3).is_empty(), "{:?}", to_clients(&cluster, 3));
    // Said again: it is needed.
    cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=3", 1)));
    cluster.run_until("it is renewed", |it| (0..N).all(|id| noted(it, id, RENEWS) == 1));
    cluster.run(2000);
    cluster.say(client(6), 3, Message::Write1(write_after(6, 1, "a=4", 1)));
    let Message::Granted { grant, .. } = cluster.last(3, "Granted") else { panic!("a grant") };
    assert!(grant.statement().version.vs > former.statement().version.vs);
}

#[test]
fn an_object_is_renewed_for_one_who_has_lost_its_disk_and_once() {
    let mut cluster = returned();
    order_as(&mut cluster, 1, &Entry::Renew(object_of(b"a")));
    cluster.run(1000);
    assert_eq!(noted(&cluster, 0, RENEWS), 0);
    for _ in 0..3 {
        order_as(&mut cluster, 3, &Entry::Renew(object_of(b"a")));
        cluster.run(1000);
    }
    assert_eq!((noted(&cluster, 0, RENEWS), noted(&cluster, 0, RESOLVED)), (1, 1));
    cluster.apply(9, "a=4");
    alike(&mut cluster);
}

#[test]
fn an_object_in_ordered_mode_is_not_renewed() {
    let mut cluster = in_order_with(N, config());
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    order_as(&mut cluster, 3, &Entry::Renew(object_of(b"a")));
    assert_eq!(noted(&cluster, 0, RENEWS), 0, "PBFT gives its places");
    cluster.crash(1);
    cluster.apply(9, "a=4");
    assert!(cluster.tape(3)[0].ends_with(" 4"));
}

#[test]
fn so_many_renewals_are_open_at_most() {
    let mut cluster = returned();
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    for lot in 0..5_u64 {
        let of = |it: u64| Entry::Renew(Digest::of(&(60 * lot + it).to_le_bytes()));
        order_all_as(&mut cluster, 3, &(0..60).map(of).collect::<Vec<_>>());
    }
    cluster.run(100);
    assert_eq!(noted(&cluster, 0, RENEWS), 256);
    cluster.heal();
    cluster.apply(9, "a=4");
    cluster.run_until("all are through", |it| noted(it, 0, RESOLVED) >= 256);
}

// Restarts, and the log.

#[test]
fn a_restart_on_the_way_back_goes_on_with_the_same_life() {
    for moment in 0..40 {
        let mut cluster = Cluster::new(N);
        cluster.apply(9, "a=1").apply(8, "b=1");
        new_disk(&mut cluster, 3);
        if moment % 2 == 0 {
            cluster.hosts[3].fast_disk = false;
        }
        cluster.restart(3);
        for _ in 0..moment * moment {
            let Some(next) = cluster.flying.pop_front() else { break };
            cluster.hand_over(&next);
        }
        cluster.hosts[3].fast_disk = true;
        cluster.restart(3);
        comes_back(&mut cluster, 3);
        assert_eq!(noted(&cluster, 0, BEGINS), 1, "moment {moment}");
        assert_eq!(cluster.tape(3), ["a: 1", "b: 1"]);
    }
}

#[test]
fn after_a_restart_it_knows_what_it_may_not_grant() {
    let small = Config { state_steps: 5, log_slack: 4, ..cutting() };
    let mut cluster = Cluster::with(N, small);
    cluster.apply(9, "a=1").apply(9, "b=1");
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    let mut begins = cluster.hosts[3].next_seq;
    for round in 0..2 {
        for count in 0..150 {
            cluster.apply(9, &format!("b={round}.{count}")); // the log's beginning goes
        }
        cluster.restart(3);
        cluster.run(100);
        assert!(is_back(&cluster, 3));
        cluster.talk();
        cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=3", 1)));
        assert!(to_clients(&cluster, 3).is_empty());
        let first = cluster.hosts[3].journal.first().expect("records").seq;
        assert!(first > begins, "the log begins at {first}, as before");
        begins = cluster.hosts[3].next_seq;
    }
    assert_eq!(noted(&cluster, 0, BEGINS), 1);
}

#[test]
fn after_a_restart_it_is_back_though_another_one_has_gone() {
    let mut cluster = returned();
    cluster.crash(1);
    cluster.restart(3);
    cluster.run(100);
    assert!(is_back(&cluster, 3), "it need not hear the others again");
    cluster.apply(9, "a=4");
    assert_eq!(cluster.tape(3), ["a: 1 2 3 4", "b: 1"]);
}

#[test]
fn a_renewal_is_asked_for_until_it_is_ordered() {
    let mut cluster = returned();
    cluster.crash(1).client(7);
    cluster.lose(|it| it.from == replica(3) && it.label == "Request");
    let ticket = cluster.submit(7, "a=4");
    cluster.run(5000);
    assert_eq!((noted(&cluster, 0, RENEWS), cluster.answer(7, ticket)), (0, None));
    cluster.heal();
    cluster.run_until("an answer", |it| it.answer(7, ticket).is_some());
}

#[test]
fn a_damaged_log_is_a_lost_disk() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=x");
    cluster.crash(2);
    cluster.hosts[2].journal[1].damaged = Some(None);
    assert!(matches!(cluster.try_restart(2), Err(RestoreError::PromisesLost(_))));
    loses_its_disk(&mut cluster, 2);
    comes_back(&mut cluster, 2);
    assert!(cluster.agrees(&["a: x"]));
}

#[test]
fn a_group_that_tolerates_nobody_has_no_way_back() {
    let mut cluster = Cluster::new(1);
    cluster.apply(9, "a=x");
    new_disk(&mut cluster, 0);
    assert!(matches!(cluster.try_restart(0), Err(RestoreError::PromisesLost(_))));
}

fn cutting() -> Config {
    let module = pbft::Config { checkpoint_entries: 4, ..config().module };
    Config { cut_entries: 8, state_steps: 16, log_slack: 8, module, ..config() }
}

#[test]
fn whose_disk_is_lost_takes_a_cut_and_a_cut_says_whose_was() {
    let mut cluster = in_order_with(N, cutting());
    let writes = |cluster: &mut Cluster, words: std::ops::Range<usize>| {
        for count in words {
            cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
        }
    };
    writes(&mut cluster, 0..30);
    cluster.apply(9, "b=1");
    cluster.isolate(2);
    new_disk(&mut cluster, 3);
    cluster.heal().isolate(2);
    cluster.restart(3);
    cluster.heal();
    comes_back(&mut cluster, 3);
    assert!(noted(&cluster, 3, TAKEN) > 0);
    cluster.isolate(2);
    writes(&mut cluster, 30..60);
    cluster.heal();
    writes(&mut cluster, 60..64);
    alike(&mut cluster);
    // Somebody who knows of the new life by the cut alone counts what is said in it.
    let before = noted(&cluster, 2, BEGINS);
    loses_its_disk(&mut cluster, 2);
    comes_back(&mut cluster, 2);
    assert!(noted(&cluster, 2, TAKEN) > 0);
    assert_eq!(noted(&cluster, 2, BEGINS), before + 1, "its own, and not replica 3's, which was before the cut");
    // So does who has it from a cut on its own disk.
    [0, 3].into_iter().for_each(|id| cluster.restart(id));
    cluster.run(500);
    cluster.crash(1);
    cluster.apply(9, "b=2");
    assert!(cluster.tape(2)[1] == "b: 1 2" && cluster.tape(3)[1] == "b: 1 2");
}

#[test]
fn no_cut_is_made_while_an_object_is_to_be_renewed() {
    let mut cluster = in_order_with(N, cutting());
    cluster.apply(9, "b=1");
    loses_its_disk(&mut cluster, 3);
    comes_back(&mut cluster, 3);
    cluster.lose(|it| it.label == "Start" && it.from != it.to);
    order_as(&mut cluster, 3, &Entry::Renew(object_of(b"b")));
    let before = noted(&cluster, 0, CUT);
    for count in 0..30 {
        cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
    }
    assert_eq!(noted(&cluster, 0, CUT), before);
    // And none is begun when a cut is overdue.
    order_as(&mut cluster, 3, &Entry::Renew(object_of(b"c")));
    assert_eq!(noted(&cluster, 0, RENEWS), 1);
    cluster.heal();
    cluster.run_until("it is cut", |it| noted(it, 0, CUT) > before);
    cluster.apply(9, "b=2").apply(9, "c=1");
    alike(&mut cluster);
}

#[test]
fn an_operation_on_several_objects_is_not_in_its_way_nor_it_in_the_operations() {
    let mut cluster = returned();
    cluster.client(5);
    let both = ordered(5, 1, "a+b=both");
    for id in 0..N {
        cluster.say(client(5), id, Message::Ordered(Box::new(both.clone())));
    }
    cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=9", 3)));
    cluster.say(client(7), 3, Message::Write1(write_after(7, 1, "a=9", 3)));
    cluster.run_until("both are done", |it| (0..N).all(|id| it.tape(id)[0].ends_with("both")));
    cluster.crash(0);
    cluster.apply(9, "a=4").apply(9, "b=2").apply(9, "a+b=again");
    assert!(cluster.tape(3)[0].ends_with("again"), "{:?}", cluster.tape(3));
}
