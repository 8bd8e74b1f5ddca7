//! Operations on several objects (A.8): one order, one place on all of them, beside writes of single objects.

use crate::harness::{Cluster, ENVELOPE, Flying, OnDisk, config, keyring, replica};
use crate::words::{N, grant, ordered, version, write_after};
use quorate_core::crypto::Signed;
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber};
use quorate_core::node::Payload;
use quorate_core::protocol::{CallError, Ticket};
use quorate_protocols::hq::{Config, Grant, Message, ORDERED_CLIENTS_MAX, Record, Start, object_of};

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn all_answered(cluster: &mut Cluster, tickets: &[(u128, Ticket)]) {
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    for (client, ticket) in tickets {
        let answer = cluster.answer(*client, *ticket).expect("it was answered");
        assert!(!answer.starts_with("error"), "{answer}");
    }
}

fn all_alike(cluster: &mut Cluster) {
    cluster.run_until("one state", |it| (0..N).all(|id| it.tape(id) == it.tape(0)));
}

#[test]
fn an_operation_on_several_objects_is_done_on_all_of_them() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "b=1").apply(9, "a+b=x").apply(8, "a=2").apply(8, "b=2");
    assert!(cluster.agrees(&["a: 1 x 2", "b: 1 x 2"]), "{:?}", cluster.tape(0));
}

#[test]
fn its_answer_is_the_machines() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").client(8);
    let ticket = cluster.submit(8, "b+a=x");
    all_answered(&mut cluster, &[(8, ticket)]);
    assert_eq!(cluster.answer(8, ticket).as_deref(), Some("2 1"), "as many as a and b have seen");
}

#[test]
fn writes_of_single_objects_that_were_answered_before_come_before() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=before").apply(8, "b=before").apply(7, "a+b=both").apply(6, "b=after");
    assert_eq!(cluster.look(6, "*"), "a: before both; b: before both after");
}

#[test]
fn operations_that_share_objects_are_in_one_order_on_all_of_them() {
    let mut cluster = Cluster::new(N);
    let rings = [(9, "a+b=nine"), (8, "b+c=eight"), (7, "a+c=seven"), (6, "a+b+c=six")];
    for (id, _) in rings {
        cluster.client(id);
    }
    let tickets = rings.map(|(id, operation)| (id, cluster.submit(id, operation)));
    all_answered(&mut cluster, &tickets);
    all_alike(&mut cluster);
    let words = |name: &str| {
        let line = cluster.tape(0).into_iter().find(|line| line.starts_with(name)).expect("an object");
        line.split(' ').skip(1).map(str::to_owned).collect::<Vec<_>>()
    };
    let order = |name: &str, one: &str, other: &str| {
        let words = words(name);
        words.iter().position(|it| it == one).expect("there") < words.iter().position(|it| it == other).expect("there")
    };
    assert_eq!(order("a", "nine", "six"), order("b", "nine", "six"));
    assert_eq!(order("b", "eight", "six"), order("c", "eight", "six"));
    assert_eq!(order("a", "seven", "six"), order("c", "seven", "six"));
    // And no circle: nine before eight on b, eight before seven on c, seven before nine on a.
    let circle = [order("b", "nine", "eight"), order("c", "eight", "seven"), order("a", "seven", "nine")];
    assert!(circle != [true; 3] && circle != [false; 3], "{circle:?}");
}

#[test]
fn it_comes_at_one_place_beside_clients_that_write_the_same_objects() {
    let mut cluster = Cluster::new(N);
    for id in 1..=6 {
        cluster.client(id);
    }
    let mut tickets = Vec::new();
    for round in 0..5 {
        for (id, operation) in
            [(1, "a=one"), (2, "b=two"), (3, "a=three"), (4, "b=four"), (5, "a+b=five"), (6, "b+a=six")]
        {
            tickets.push((id, cluster.submit(id, &format!("{operation}{round}"))));
        }
        cluster.run(3);
    }
    all_answered(&mut cluster, &tickets);
    all_alike(&mut cluster);
    let tape = cluster.tape(0);
    let both = |line: &str| {
        let words = line.split(' ').filter(|word| word.starts_with("five") || word.starts_with("six"));
        words.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(both(&tape[0]), both(&tape[1]), "{tape:?}");
    assert_eq!(
        (both(&tape[0]).len(), tape[0].split(' ').count(), tape[1].split(' ').count()),
        (10, 21, 21),
        "{tape:?}"
    );
}

#[test]
fn a_client_that_asks_again_is_told_and_it_is_done_once() {
    let mut cluster = Cluster::new(N);
    cluster.client(9);
    cluster.lose(|it| it.label == "OrderedDone");
    let ticket = cluster.submit(9, "a+b=x");
    cluster.run(1000);
    assert_eq!(cluster.answer(9, ticket), None);
    cluster.heal();
    all_answered(&mut cluster, &[(9, ticket)]);
    assert!(cluster.agrees(&["a: x", "b: x"]), "{:?}", cluster.tape(0));
}

#[test]
fn a_quorum_must_have_done_it_before_its_client_believes_so() {
    let mut cluster = Cluster::new(N);
    cluster.client(9);
    cluster.lose(|it| it.label == "OrderedDone" && it.from != replica(0) && it.from != replica(1));
    let ticket = cluster.submit(9, "a+b=x");
    cluster.run(1000);
    assert_eq!(cluster.answer(9, ticket), None, "two of four have said so: a read from the others may not see it");
}

#[test]
fn a_primary_that_sits_on_it_is_replaced() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).deliver();
    cluster.lose(|it| it.from == replica(0));
    let ticket = cluster.submit(9, "a+b=x");
    all_answered(&mut cluster, &[(9, ticket)]);
    assert!(cluster.status(1).view.get() > 0, "PBFT has another primary");
}

#[test]
fn one_of_four_may_be_down() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.crash(3);
    cluster.apply(9, "a+b=x").apply(9, "b=2");
    assert!(cluster.agrees(&["a: 1 x", "b: x 2"]), "{:?}", cluster.tape(0));
}

#[test]
fn a_replica_that_missed_it_gets_it_and_all_that_followed() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a+b=x").apply(9, "b=2").apply(9, "b+c=y").apply(9, "a=3");
    cluster.heal();
    cluster.apply(8, "c+d=z");
    cluster.run_until("all have all", |it| it.agrees(&["a: 1 x 3", "b: x 2 y", "c: y z", "d: z"]));
}

#[test]
fn it_survives_that_everybody_loses_power() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").apply(9, "a+b=x").apply(9, "b=2");
    for id in 0..N {
        cluster.crash(id);
    }
    (0..N).for_each(|id| cluster.restart(id));
    cluster.deliver();
    assert!(cluster.agrees(&["a: 1 x", "b: x 2"]), "{:?}", cluster.tape(0));
    cluster.apply(8, "a+b=y").apply(8, "a=3");
    cluster.run(5000);
    assert!(cluster.agrees(&["a: 1 x y 3", "b: x 2 y"]), "{:?}", cluster.tape(0));
}

#[test]
fn it_goes_on_after_everybody_lost_power_while_it_was_under_way() {
    // At every step of the way: ordered, frozen, resolved, granted, executed.
    for ms in 0..6 {
        for label in ["Start", "Prepare", "Commit", "Grants", "OrderedDone"] {
            let mut cluster = Cluster::new(N);
            cluster.apply(9, "a=1").apply(9, "b=1");
            cluster.lose(move |it| it.label == label && it.to != it.from);
            let ticket = cluster.submit(9, "a+b=x");
            cluster.run(ms * 40);
            for id in 0..N {
                cluster.crash(id);
            }
            cluster.heal();
            (0..N).for_each(|id| cluster.restart(id));
            all_answered(&mut cluster, &[(9, ticket)]);
            cluster.run_until("all have it", |it| it.agrees(&["a: 1 x", "b: 1 x"]));
        }
    }
}

#[test]
fn a_replica_that_restarts_does_not_do_it_again_though_its_log_has_it() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a+b=x");
    for round in 0..3 {
        for id in 0..N {
            cluster.restart(id);
            cluster.deliver();
        }
        cluster.apply(8, &format!("a={round}"));
    }
    cluster.run(3000);
    assert!(cluster.agrees(&["a: x 0 1 2", "b: x"]), "{:?}", cluster.tape(0));
}

#[test]
fn what_it_came_to_outlives_the_logs_beginning() {
    let small = Config { state_steps: 5, log_slack: 4, ..config() };
    let mut cluster = Cluster::with(N, small);
    cluster.apply(9, "a=1").client(8);
    cluster.lose(|it| it.label == "OrderedDone");
    let ticket = cluster.submit(8, "a+b=x");
    cluster.run(500);
    let is_here = |it: &Cluster| {
        let mut records = it.hosts.iter().flat_map(|host| &host.journal).map(OnDisk::record);
        records.any(|record| matches!(record, Record::Ordered { .. }))
    };
    assert!(is_here(&cluster));
    for round in 0..100 {
        cluster.apply(9, &format!("a={round}"));
    }
    assert!(!is_here(&cluster), "its execution is in no log any more");
    (0..N).for_each(|id| cluster.restart(id));
    cluster.heal();
    all_answered(&mut cluster, &[(8, ticket)]);
    assert_eq!(cluster.answer(8, ticket).as_deref(), Some("2 1"));
}

#[test]
fn a_read_of_an_object_that_it_has_frozen_waits() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).deliver();
    cluster.lose(|it| it.label == "Start" && it.to != it.from);
    let ticket = cluster.submit(9, "a+b=x");
    cluster.run(100);
    cluster.talk();
    let read = cluster.read(8, "a");
    cluster.deliver();
    assert_eq!((cluster.answer(8, read), cluster.count("ReadAnswer")), (None, 0));
    cluster.heal();
    all_answered(&mut cluster, &[(9, ticket), (8, read)]);
}

#[test]
fn a_start_without_a_cause_freezes_nobody() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.talk();
    let words = |seen: u64| Start {
        object: object_of(b"a"),
        seen: OpNumber::new(seen),
        conflict: Vec::new(),
        asks: Vec::new(),
        current: None,
        calm: 0,
        life: OpNumber::ZERO,
    };
    for id in 0..3 {
        for seen in [0, 1] {
            let start = keyring(3, N).sign(words(seen));
            cluster.say(replica(3), id, Message::Start(Box::new(start)));
        }
    }
    cluster.run(2000);
    assert_eq!(cluster.count("PrePrepare"), 0);
    cluster.apply(8, "a=2");
    assert_eq!(cluster.count("Start"), 0, "nobody was frozen");
}

#[test]
fn an_operation_that_its_client_has_not_signed_is_blamed_on_who_says_it() {
    let mut cluster = Cluster::new(N);
    let mut forged = ordered(9, 1, "a+b=x");
    forged.operation = "a+b=y".to_owned().into();
    cluster.say(client(9), 0, Message::Ordered(Box::new(forged)));
    let mut unsorted = ordered(9, 1, "a+b=x");
    unsorted.names.reverse();
    cluster.say(client(9), 0, Message::Ordered(Box::new(unsorted)));
    assert_eq!(cluster.blamed(0), 2);
    // Somebody else's: it is not for the one who says it.
    cluster.say(client(8), 0, Message::Ordered(Box::new(ordered(9, 1, "a+b=x"))));
    cluster.run(1000);
    assert_eq!(cluster.count("PrePrepare"), 0);
}

#[test]
fn what_touches_something_else_than_it_names_changes_nothing() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    let mut lie = ordered(8, 1, "b+c=x");
    lie.names = vec!["a".to_owned().into(), "b".to_owned().into()];
    let hash = quorate_protocols::hq::Ordered::hash(lie.ask().client, lie.ask().number, &lie.names, &lie.operation);
    let words = quorate_protocols::hq::OrderedAsk { hash, ..*lie.ask() };
    let envelope = crate::harness::ENVELOPE;
    let own = quorate_core::crypto::Keyring::simulated_client(envelope.cluster, envelope.epoch, N, ClientId::new(8));
    lie.ask = own.sign_as_client(words);
    for id in 0..N {
        cluster.say(client(8), id, Message::Ordered(Box::new(lie.clone())));
    }
    cluster.run(2000);
    assert!(cluster.count("OrderedDone") > 0, "it had its place, and came to nothing");
    assert!(cluster.agrees(&["a: 1"]), "{:?}", cluster.tape(0));
    cluster.apply(9, "d=1");
}

#[test]
fn two_operations_under_one_number_are_one() {
    let mut cluster = Cluster::new(N);
    for id in 0..N {
        let said = if id < 2 { ordered(9, 1, "a+b=one") } else { ordered(9, 1, "a+b=other") };
        cluster.say(client(9), id, Message::Ordered(Box::new(said)));
    }
    cluster.run(3000);
    let tape = cluster.tape(0);
    assert!(cluster.agrees(&["a: one", "b: one"]) || cluster.agrees(&["a: other", "b: other"]), "{tape:?}");
}

#[test]
fn a_client_that_was_forgotten_is_told_and_an_old_copy_is_not_new() {
    let mut cluster = Cluster::new(N);
    cluster.apply(1, "a+b=first");
    for other in 2..=(ORDERED_CLIENTS_MAX as u128 + 2) {
        cluster.apply(other, "c+d=more").gone(other);
    }
    cluster.talk();
    for id in 0..N {
        cluster.say(client(1), id, Message::Ordered(Box::new(ordered(1, 1, "a+b=first"))));
    }
    cluster.run(1000);
    assert_eq!((cluster.count("OrderedTooOld"), cluster.count("PrePrepare")), (N, 0));
    cluster.apply(1, "a+b=again");
    assert_eq!(cluster.look(1, "a"), "first again");
}

#[test]
fn a_client_that_was_forgotten_while_it_waited_is_told_that_nobody_knows() {
    let mut cluster = Cluster::new(N);
    cluster.client(1);
    cluster.lose(|it| it.label == "OrderedDone" && it.to == client(1));
    let ticket = cluster.submit(1, "a+b=first");
    cluster.run(200);
    for other in 2..=(ORDERED_CLIENTS_MAX as u128 + 2) {
        cluster.apply(other, "c+d=more").gone(other);
    }
    cluster.run_until("an answer", |it| it.answer(1, ticket).is_some());
    let said = &cluster.clients[&ClientId::new(1)].answers[&ticket];
    assert!(matches!(said, Err(CallError::Evicted { maybe_applied: true })), "{said:?}");
    assert_eq!(cluster.look(1, "a"), "first", "once");
}

/// A cluster in which replica 3 has the objects of an operation from others, replica 2 is down, and replica 1 lies to the client: the
/// operation is done, and says not with what result. Replica 0 alone is left of those who have executed it.
fn one_is_left_who_executed_it() -> (Cluster, Ticket) {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8);
    cluster.apply(8, "a=1");
    cluster.lose(|it| it.label == "OrderedDone" || it.to == replica(3) || it.from == replica(3));
    let ticket = cluster.submit(9, "a+b=x");
    cluster.run_until("three have it", |it| (0..3).all(|id| it.tape(id) == ["a: 1 x", "b: x"]));
    cluster.lose(|it| ["OrderedDone", "Grants", "Write2"].contains(&it.label));
    cluster.run_until("the fourth has it from others", |it| it.tape(3) == ["a: 1 x", "b: x"]);
    let executed = cluster.hosts[3].journal.iter().any(|it| matches!(it.record(), Record::Ordered { .. }));
    assert!(!executed, "it has it from others");
    cluster.crash(2);
    cluster.lose(|it| it.label == "OrderedDone" && it.from == replica(1));
    (cluster, ticket)
}

fn one_says_no_result(cluster: &mut Cluster) {
    let number = RequestNumber::new(1); // its client has asked for nothing before
    let nothing = Message::OrderedDone { number, result: None };
    let bytes = ENVELOPE.seal(&Payload::Protocol(nothing));
    cluster.send(Flying { from: replica(1), to: client(9), label: "Injected", bytes });
}

#[test]
fn what_it_came_to_travels_with_the_objects() {
    // 2f + 1 say that it is done; f + 1 must say with what result, and one of these has the objects from others.
    let (mut cluster, ticket) = one_is_left_who_executed_it();
    one_says_no_result(&mut cluster);
    all_answered(&mut cluster, &[(9, ticket)]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("2 1"));
}

#[test]
fn what_it_came_to_elsewhere_outlives_a_restart() {
    let (mut cluster, ticket) = one_is_left_who_executed_it();
    cluster.restart(3);
    one_says_no_result(&mut cluster);
    all_answered(&mut cluster, &[(9, ticket)]);
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("2 1"));
}

#[test]
fn when_it_is_over_pbft_sleeps_and_single_writes_need_it_no_more() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a+b=x");
    cluster.run(30_000);
    cluster.talk();
    cluster.apply(9, "a=1").apply(9, "b=1");
    assert_eq!(cluster.count("PrePrepare") + cluster.count("Start"), 0);
    cluster.run(60_000);
    let armed = |id: usize| cluster.hosts[id].process.as_ref().expect("it runs").node.timers().contains("Module");
    assert!((0..N).all(|id| !armed(id)));
    cluster.talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new());
}

#[test]
fn a_replica_that_slept_through_what_pbft_ordered_has_it_shown() {
    // It is needed: one of the others is down from then on. PBFT sleeps, and nothing but this replica's question wakes it.
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1").isolate(3);
    cluster.apply(9, "a+b=x");
    cluster.run(30_000);
    cluster.heal().crash(0);
    cluster.apply(8, "a=2").apply(8, "b=2");
    cluster.run_until("three are alike", |it| (1..N).all(|id| it.tape(id) == ["a: 1 x 2", "b: x 2"]));
}

/// Would it bring an object from one replica to another?
fn transfers(it: &Flying) -> bool {
    ["Sums", "Versions", "GetVersions", "GetObject", "Object"].contains(&it.label)
}

/// Would it tell this replica of a write of this object?
fn tells(it: &Flying, id: usize, name: &[u8]) -> bool {
    let object = match it.message() {
        Some(Message::Write1(write) | Message::WriteBack { write, .. }) => write.ask().object,
        Some(Message::Write2 { proof, .. }) => proof.statement().object,
        _ => return false,
    };
    it.to == replica(id) && object == object_of(name)
}

/// Nobody tells replica 0 of `a`, nor replica 1 of `b`.
fn is_kept_back(it: &Flying) -> bool {
    transfers(it) || tells(it, 0, b"a") || tells(it, 1, b"b")
}

/// Replica 0 lacks the last writes of `a`, and replica 1 those of `b`.
fn two_lack_one_each() -> Cluster {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).client(7).deliver();
    cluster.lose(is_kept_back);
    cluster.apply(9, "a=1").apply(9, "a=2").apply(8, "b=1").apply(8, "b=2");
    assert_eq!((cluster.tape(0), cluster.tape(1)), (vec!["b: 1 2".to_owned()], vec!["a: 1 2".to_owned()]));
    cluster
}

#[test]
fn replicas_that_lack_different_objects_of_an_operation_do_not_wait_for_each_other() {
    // If 2 and 3 executed it, and 2 were gone, 3 alone could show 0 and 1 what each of them lacks.
    let mut cluster = two_lack_one_each();
    let ticket = cluster.submit(7, "a+b=x");
    cluster.run(1000);
    cluster.crash(2).heal();
    all_answered(&mut cluster, &[(7, ticket)]);
    cluster.run_until("three are alike", |it| [0, 1, 3].iter().all(|id| it.tape(*id) == ["a: 1 2 x", "b: 1 2 x"]));
}

#[test]
fn the_middle_of_a_list_is_had_with_what_follows_in_it() {
    // The same, and something else comes first on `a`: 1, 2 and 3 have done that, and nothing is as the resolution found it.
    let mut cluster = two_lack_one_each();
    for id in 1..N {
        cluster.say(client(6), id, Message::Write1(write_after(6, 1, "a=first", 2)));
    }
    cluster.lose(|it| {
        let of_seven = |grants: &[Signed<Grant>]| grants.iter().any(|it| it.statement().client == ClientId::new(7));
        let granted = matches!(it.message(), Some(Message::Grants { grants, .. }) if of_seven(&grants));
        is_kept_back(it) || (granted && it.from == replica(2))
    });
    let ticket = cluster.submit(7, "a+b=x");
    cluster.run(1000);
    assert_eq!(cluster.tape(1), ["a: 1 2 first"]);
    cluster.crash(2).heal();
    all_answered(&mut cluster, &[(7, ticket)]);
    let all = ["a: 1 2 first x", "b: 1 2 x"];
    cluster.run_until("three are alike", |it| [0, 1, 3].iter().all(|id| it.tape(*id) == all));
    cluster.restart(0);
    cluster.run_until("it comes back with it", |it| it.tape(0) == all);
}

#[test]
fn a_list_that_was_left_in_the_middle_is_not_forgotten() {
    // Replica 1 lacks `b`, and so cannot end the list of `a`; the others go on, its log is cut, and it restarts.
    let small = Config { state_steps: 5, log_slack: 4, ..config() };
    let mut cluster = Cluster::with(N, small);
    cluster.lose(|it| transfers(it) || tells(it, 1, b"b"));
    cluster.apply(9, "b=1").apply(9, "b=2").apply(8, "a=1");
    for id in 0..N {
        cluster.say(client(6), id, Message::Write1(write_after(6, 1, "a=one", 1)));
        cluster.say(client(5), id, Message::Write1(write_after(5, 1, "a=other", 1)));
    }
    cluster.apply(7, "a+b=x").apply(7, "a+c=y");
    for round in 0..60 {
        cluster.apply(9, &format!("d={round}"));
    }
    let words = |id: usize| cluster.tape(id)[0].split(' ').skip(1).count();
    assert_eq!((words(0), words(1)), (5, 3), "{:?}, {:?}", cluster.tape(0), cluster.tape(1));
    cluster.restart(1);
    cluster.run(2000);
    assert_eq!(cluster.hosts[1].halted, None);
    cluster.heal();
    cluster.apply(8, "a=last");
    all_alike(&mut cluster);
}

#[test]
fn what_a_liar_grants_to_one_replica_only_is_of_use_to_all() {
    // A.6, R4, e: 3 alone has a quorum's grants, and finishes; 0 lacks the object, 2 is gone, and 1 and 3 must be alike.
    let mut cluster = two_lack_one_each();
    for id in 1..N {
        cluster.say(client(6), id, Message::Write1(write_after(6, 1, "a=first", 2)));
    }
    cluster.lose(|it| {
        let to_others = it.from == replica(2) && it.to != replica(3);
        is_kept_back(it) || it.label == "Write2" || (it.label == "Grants" && to_others)
    });
    let grants = [(1, "a=one"), (2, "a=two"), (3, "a=one")].map(|(id, operation)| {
        grant(id, &write_after(5, if operation == "a=one" { 1 } else { 2 }, operation, 2), version(0, 3))
    });
    for id in 1..N {
        let own = write_after(5, 1, "a=one", 2);
        cluster.say(client(5), id, Message::Resolve { conflict: grants.to_vec(), write: own });
    }
    cluster.run(1000);
    let done = cluster.tape(3);
    assert_eq!((done[0].split(' ').count(), cluster.tape(1)[0].as_str()), (5, "a: 1 2"), "{done:?}");
    cluster.crash(2).heal();
    cluster.run_until("three are alike", move |it| [0, 1, 3].iter().all(|id| it.tape(*id) == done));
    cluster.apply(4, "a=next");
}
