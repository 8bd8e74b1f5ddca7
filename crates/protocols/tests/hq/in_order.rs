//! Ordered mode (A.9, pitfall 2): an object that stays contended has its places from PBFT, for a while.

use crate::harness::{Cluster, ENVELOPE, Flying, OnDisk, config, keyring, replica};
use crate::words::{N, grant, ordered, proof, version, write, write_after};
use quorate_core::ids::{ClientId, Peer, RequestNumber, SessionId};
use quorate_core::outbox::Note;
use quorate_core::protocol::Ticket;
use quorate_core::sessions::Body;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{
    ALONE_MAX, CALM_WRITES, CLIENTS_MAX, Config, Entry, Message, Record, WINDOW_MIN, object_of,
};
use quorate_protocols::pbft;

const GOES: &str = "an object goes to ordered mode";
const LEAVES: &str = "an object leaves ordered mode";
const WRITTEN: &str = "a write was executed in ordered mode";

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

/// How often a replica has noted this.
pub fn noted(cluster: &Cluster, id: usize, words: &str) -> usize {
    cluster.hosts[id].notes.iter().filter(|note| matches!(note, Note::Other(text) if *text == words)).count()
}

/// Two clients that nobody hears of again have half of the grants of the next place of `a` each; the next client finds a conflict,
/// and has it resolved.
fn collide(cluster: &mut Cluster, round: u128) {
    let pair = [1000 + 2 * round, 1001 + 2 * round];
    let after = u64::try_from(cluster.tape(0).first().map_or(0, |line| line.split(' ').count() - 1)).expect("small");
    for id in 0..cluster.hosts.len() {
        let one = pair[id % 2];
        cluster.say(client(one), id, Message::Write1(write_after(one, 1, &format!("a=c{one}"), after)));
    }
    cluster.apply(9, &format!("a=r{round}"));
}

/// A cluster whose object `a` is in ordered mode everywhere, with clients 7 to 9.
pub fn in_order(n: usize) -> Cluster {
    in_order_with(n, config())
}

pub fn in_order_with(n: usize, config: Config) -> Cluster {
    let mut cluster = Cluster::with(n, config);
    cluster.client(9).client(8).client(7);
    collide(&mut cluster, 1);
    collide(&mut cluster, 2);
    cluster.run_until("ordered mode", |it| (0..n).all(|id| noted(it, id, GOES) == 1));
    alike(&mut cluster);
    cluster
}

fn alike(cluster: &mut Cluster) {
    cluster.run_until("one state", |it| (0..it.hosts.len()).all(|id| it.tape(id) == it.tape(0)));
}

fn answered(cluster: &mut Cluster, tickets: &[(u128, Ticket)]) {
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    for (client, ticket) in tickets {
        let answer = cluster.answer(*client, *ticket).expect("it was answered");
        assert!(!answer.starts_with("error"), "{answer}");
    }
}

/// Two clients in turn, until ordered mode is over; how many writes that took.
fn through_the_window(cluster: &mut Cluster) -> usize {
    let before = noted(cluster, 0, LEAVES);
    for count in 0.. {
        if noted(cluster, 0, LEAVES) > before {
            alike(cluster);
            return count;
        }
        cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
    }
    unreachable!("it counts on")
}

/// The last word of `a` at a replica.
fn last(cluster: &Cluster, id: usize) -> String {
    cluster.tape(id).first().and_then(|line| line.rsplit(' ').next().map(str::to_owned)).unwrap_or_default()
}

// There and back.

#[test]
fn an_object_that_is_contended_again_soon_goes_to_ordered_mode() {
    let mut cluster = Cluster::new(N);
    collide(&mut cluster, 1);
    cluster.run(1000);
    assert!((0..N).all(|id| noted(&cluster, id, GOES) == 0), "once is a resolution, and that is all");
    collide(&mut cluster, 2);
    cluster.run_until("ordered mode", |it| (0..N).all(|id| noted(it, id, GOES) == 1));
}

#[test]
fn an_object_that_is_contended_after_calm_does_not_go_to_ordered_mode() {
    let mut cluster = Cluster::new(N);
    for round in 1..4 {
        collide(&mut cluster, round);
        for count in 0..=CALM_WRITES {
            cluster.apply(9, &format!("a=calm{count}"));
        }
    }
    assert!(cluster.count("PrePrepare") > 0, "it was contended");
    assert!((0..N).all(|id| noted(&cluster, id, GOES) == 0));
}

#[test]
fn a_resolution_that_ends_in_ordered_mode_needs_no_grants() {
    let mut cluster = Cluster::new(N);
    collide(&mut cluster, 1);
    alike(&mut cluster);
    cluster.talk();
    collide(&mut cluster, 2);
    alike(&mut cluster);
    assert!(cluster.count("Start") > 0);
    assert_eq!(cluster.count("Grants"), 0);
    assert!(cluster.tape(0)[0].contains("c1004") || cluster.tape(0)[0].contains("c1005"), "{:?}", cluster.tape(0));
}

#[test]
fn in_ordered_mode_pbft_gives_the_places_and_nobody_grants_any() {
    let mut cluster = in_order(N);
    cluster.talk();
    cluster.apply(8, "a=x").apply(9, "a=y").apply(7, "a=z");
    alike(&mut cluster);
    let words = ["Granted", "Refused", "Write2", "Resolve", "Start", "Grants"];
    assert_eq!(words.map(|label| cluster.count(label)), [0; 6]);
    assert_eq!(cluster.count("PrePrepare"), 3 * (N - 1));
    assert!(cluster.tape(0)[0].ends_with("x y z"));
    assert!((0..N).all(|id| noted(&cluster, id, WRITTEN) >= 3));
}

#[test]
fn other_objects_are_written_as_always() {
    let mut cluster = in_order(N);
    cluster.talk();
    cluster.apply(8, "b=x");
    assert_eq!((cluster.count("Granted"), cluster.count("PrePrepare")), (3, 0));
}

#[test]
fn requests_that_come_together_go_in_one_entry() {
    let mut cluster = in_order(N);
    for id in 10..30 {
        cluster.client(id);
    }
    cluster.talk();
    let tickets: Vec<_> = (10..30).map(|id| (id, cluster.submit(id, &format!("a=d{id}")))).collect();
    answered(&mut cluster, &tickets);
    assert!(cluster.count("PrePrepare") <= 2 * (N - 1), "{}", cluster.count("PrePrepare"));
    alike(&mut cluster);
}

#[test]
fn when_the_window_is_through_places_are_granted_again() {
    let mut cluster = in_order(N);
    let writes = through_the_window(&mut cluster);
    assert!((1..=WINDOW_MIN as usize).contains(&writes), "{writes}");
    cluster.talk();
    cluster.apply(8, "a=granted").apply(8, "a=again");
    alike(&mut cluster);
    // The first one was asked of everybody, as from a client that does not know that the mode is over.
    assert_eq!((cluster.count("Granted"), cluster.count("PrePrepare")), (N + 3, 0));
    assert!((0..N).all(|id| last(&cluster, id) == "again"));
}

#[test]
fn a_window_doubles_when_contention_follows_and_halves_when_none_does() {
    let mut cluster = in_order(N);
    through_the_window(&mut cluster);
    collide(&mut cluster, 3);
    alike(&mut cluster);
    let second = through_the_window(&mut cluster);
    assert!((WINDOW_MIN as usize + 1..=2 * WINDOW_MIN as usize).contains(&second), "{second}");
    for count in 0..2 * CALM_WRITES {
        cluster.apply(9, &format!("a=calm{count}"));
    }
    collide(&mut cluster, 4);
    collide(&mut cluster, 5);
    alike(&mut cluster);
    let third = through_the_window(&mut cluster);
    assert!(third <= WINDOW_MIN as usize, "{third}");
}

#[test]
fn a_client_that_is_alone_ends_it() {
    let mut cluster = in_order(N);
    for count in 0..ALONE_MAX {
        assert_eq!(noted(&cluster, 0, LEAVES), 0, "{count}");
        cluster.apply(9, &format!("a=alone{count}"));
    }
    assert_eq!(noted(&cluster, 0, LEAVES), 1);
    cluster.talk();
    cluster.apply(8, "a=granted");
    assert_eq!(cluster.count("PrePrepare"), 0);
}

#[test]
fn what_pbft_has_not_ordered_when_the_mode_ends_is_granted() {
    let mut cluster = in_order(N);
    for id in 10..110 {
        cluster.client(id);
    }
    let tickets: Vec<_> = (10..110).map(|id| (id, cluster.submit(id, &format!("a=d{id}")))).collect();
    cluster.run_until("the mode is over", |it| noted(it, 0, LEAVES) > 0);
    answered(&mut cluster, &tickets);
    alike(&mut cluster);
    let words: Vec<String> = cluster.tape(0)[0].split(' ').map(str::to_owned).collect();
    assert!((10..110).all(|id| words.iter().filter(|word| **word == format!("d{id}")).count() == 1));
}

#[test]
fn pbft_sleeps_again_when_nothing_is_asked() {
    let mut cluster = in_order(N);
    cluster.apply(8, "a=x");
    cluster.run(30_000);
    cluster.talk();
    cluster.run(60_000);
    assert_eq!(cluster.talk(), Vec::<String>::new());
}

// What is promised.

#[test]
fn a_read_sees_what_was_answered() {
    let mut cluster = in_order(N);
    for count in 0..10 {
        cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
        assert!(cluster.look(7, "a").ends_with(&format!("w{count}")));
        assert!(cluster.look(7, "*").ends_with(&format!("w{count}")));
    }
}

#[test]
fn two_answers_are_not_enough_in_ordered_mode_either() {
    let mut cluster = in_order(N);
    cluster.lose(|it| it.label == "Done" && (it.from == replica(0) || it.from == replica(1)));
    let ticket = cluster.submit(8, "a=x");
    cluster.run(1000);
    assert_eq!(cluster.answer(8, ticket), None, "a read from the others may not see it");
    cluster.heal();
    answered(&mut cluster, &[(8, ticket)]);
}

#[test]
fn an_answer_in_ordered_mode_waits_for_the_disk() {
    let mut cluster = in_order(N);
    cluster.talk();
    cluster.lose(|it| it.label == "Done" && it.from != replica(3));
    cluster.submit(8, "a=x");
    cluster.deliver();
    assert_eq!(cluster.count("Done"), 4);
    let last = cluster.hosts[3].journal.iter().rev().find(|it| matches!(it.record(), Record::InOrder { .. }));
    assert!(last.is_some_and(|it| it.seq <= cluster.hosts[3].durable));
}

#[test]
fn a_request_that_pbft_orders_twice_is_done_once() {
    // Everybody hands it to PBFT when it takes long: the primary proposes nothing for a while.
    let mut cluster = in_order(N);
    cluster.lose(|it| it.label == "PrePrepare" && it.from == replica(0));
    let tickets = [(8, cluster.submit(8, "a=once")), (9, cluster.submit(9, "a=also"))];
    cluster.run(200);
    cluster.heal();
    answered(&mut cluster, &tickets);
    cluster.run(5000);
    alike(&mut cluster);
    let tape = cluster.tape(0);
    assert_eq!((tape[0].matches("once").count(), tape[0].matches("also").count()), (1, 1), "{tape:?}");
}

#[test]
fn a_write_granted_after_ordered_mode_that_f_replicas_executed_is_taken_back() {
    // C is what the last entry of ordered mode has led to: no certificate says so.
    let mut cluster = in_order(N);
    through_the_window(&mut cluster);
    let line = cluster.tape(0)[0].clone();
    let ts = line.split(' ').count() as u64; // the next one
    let Message::Granted { grant: told, .. } = ({
        cluster.say(client(77), 0, Message::Write1(write_after(77, 1, "a=probe", ts - 1)));
        cluster.last(0, "Granted")
    }) else {
        panic!("a grant")
    };
    let place = told.statement().version;
    assert_eq!(place.ts.get(), ts);
    let five = write_after(5, 1, "a=five", ts - 1);
    let certified = proof(&[1, 2, 3], &five, place);
    cluster.say(client(5), 3, Message::Write2 { proof: certified, write: Some(five.clone()), answer: true });
    assert_eq!(last(&cluster, 3), "five");
    cluster.lose(|it| it.label == "Start" && it.from == replica(3) && it.to != it.from);
    let six = write_after(6, 1, "a=six", ts - 1);
    let conflict: Vec<_> = [(0, &five), (1, &six), (2, &five)].iter().map(|(id, it)| grant(*id, it, place)).collect();
    for id in 0..3 {
        cluster.say(client(6), id, Message::Resolve { conflict: conflict.clone(), write: six.clone() });
    }
    cluster.run(100);
    cluster.heal();
    alike(&mut cluster);
    cluster.run_until("it is resolved", |it| (0..N).all(|id| it.tape(id)[0].contains("six")));
    alike(&mut cluster);
    let tape = cluster.tape(0);
    assert!(tape[0].starts_with(&line) && tape[0].matches("five").count() <= 1, "{tape:?}");
    assert_eq!([0, 1, 2, 3].map(|id| noted(&cluster, id, "a write was taken back")), [0, 0, 0, 1]);
}

#[test]
fn a_client_that_was_forgotten_in_ordered_mode_asks_anew_and_is_done_once() {
    let mut cluster = in_order(N);
    for id in 100..(100 + 2 * CLIENTS_MAX as u128) {
        cluster.client(id);
    }
    for round in 0..2 {
        let ids = 100..(100 + 2 * CLIENTS_MAX as u128);
        let tickets: Vec<_> = ids.map(|id| (id, cluster.submit(id, &format!("a=n{id}r{round}.")))).collect();
        answered(&mut cluster, &tickets);
    }
    alike(&mut cluster);
    let tape = cluster.tape(0)[0].clone();
    for id in 100..(100 + 2 * CLIENTS_MAX) {
        assert!((0..2).all(|round| tape.matches(&format!("n{id}r{round}.")).count() == 1), "{id} in {tape}");
    }
}

// Operations on several objects.

#[test]
fn an_operation_on_several_objects_ends_it_and_has_one_place() {
    let mut cluster = in_order(N);
    let tickets =
        [(8, cluster.submit(8, "a=before")), (7, cluster.submit(7, "a+b=both")), (9, cluster.submit(9, "a=beside"))];
    answered(&mut cluster, &tickets);
    alike(&mut cluster);
    assert_eq!(noted(&cluster, 0, LEAVES), 1);
    cluster.apply(8, "a=after").apply(8, "b=after");
    alike(&mut cluster);
    let tape = cluster.tape(0);
    assert_eq!(tape[0].matches("both").count(), 1, "{tape:?}");
    assert_eq!(tape[1], "b: both after");
}

// Restarts, and who is behind.

#[test]
fn everybody_may_lose_power_in_ordered_mode() {
    let mut cluster = in_order(N);
    cluster.apply(8, "a=x").apply(9, "a=y");
    alike(&mut cluster);
    let tape = cluster.tape(0);
    for id in 0..N {
        cluster.crash(id);
    }
    (0..N).for_each(|id| cluster.restart(id));
    cluster.deliver();
    assert!((0..N).all(|id| cluster.tape(id) == tape));
    cluster.talk();
    cluster.apply(8, "a=z");
    assert_eq!(cluster.count("Granted"), 0, "PBFT's log says that the mode goes on");
    assert_eq!(cluster.look(7, "a"), format!("{} z", tape[0].trim_start_matches("a: ")));
}

#[test]
fn everybody_may_lose_power_at_any_moment_of_ordered_mode() {
    for label in ["PrePrepare", "Prepare", "Commit", "Done"] {
        for ms in 0..3 {
            let mut cluster = in_order(N);
            for id in 10..16 {
                cluster.client(id);
            }
            cluster.lose(move |it| it.label == label && it.to != it.from);
            let tickets: Vec<_> = (10..16).map(|id| (id, cluster.submit(id, &format!("a=d{id}")))).collect();
            cluster.run(ms * 60);
            for id in 0..N {
                cluster.crash(id);
            }
            cluster.heal();
            (0..N).for_each(|id| cluster.restart(id));
            answered(&mut cluster, &tickets);
            alike(&mut cluster);
            let tape = cluster.tape(0);
            assert!((10..16).all(|id| tape[0].matches(&format!("d{id}")).count() == 1), "{label} {ms}: {tape:?}");
        }
    }
}

#[test]
fn a_restart_in_the_middle_of_an_entry_goes_on_where_it_was() {
    // The machine takes its time, and the power goes after each of the writes of one entry.
    for steps in 0..6 {
        let mut cluster = in_order(N);
        for id in 10..16 {
            cluster.client(id);
        }
        cluster.hosts[3].fast_machine = false;
        let tickets: Vec<_> = (10..16).map(|id| (id, cluster.submit(id, &format!("a=d{id}")))).collect();
        answered(&mut cluster, &tickets);
        for _ in 0..steps {
            cluster.work_once(3);
        }
        cluster.crash(3);
        cluster.hosts[3].fast_machine = true;
        cluster.restart(3);
        cluster.apply(8, "a=end");
        alike(&mut cluster);
        let tape = cluster.tape(3);
        assert!((10..16).all(|id| tape[0].matches(&format!("d{id}")).count() == 1), "{steps}: {tape:?}");
    }
}

#[test]
fn the_logs_beginning_goes_in_ordered_mode_too() {
    let mut cluster = in_order_with(N, Config { state_steps: 5, log_slack: 4, ..config() });
    for count in 0..6 {
        cluster.apply([7, 8, 9][count % 3], &format!("a=w{count}"));
    }
    for count in 0..150 {
        cluster.apply(7, &format!("b=w{count}"));
    }
    alike(&mut cluster);
    let executed = |it: &&OnDisk| matches!(it.record(), Record::InOrder { .. });
    let kept = |id: usize| cluster.hosts[id].journal.iter().filter(executed).count();
    assert!(
        (0..N).all(|id| noted(&cluster, id, WRITTEN) >= 6 && kept(id) == 0),
        "their executions are in no log any more"
    );
    let tape = cluster.tape(0);
    (0..N).for_each(|id| cluster.restart(id));
    cluster.deliver();
    assert!((0..N).all(|id| cluster.tape(id) == tape));
    cluster.apply(8, "a=end");
    alike(&mut cluster);
}

#[test]
fn what_is_granted_after_ordered_mode_outlives_a_power_failure() {
    // The last entry of the window does nothing: no execution says on the disk that the object has been through it.
    let mut cluster = in_order(N);
    cluster.apply(9, "a=seen");
    for _ in 0..ALONE_MAX {
        order_as(&mut cluster, 0, &Entry::Write(Box::new(write(1002, 1, "a=c1002"))));
    }
    cluster.run_until("the mode is over", |it| (0..N).all(|id| noted(it, id, LEAVES) == 1));
    let ts = cluster.tape(0)[0].split(' ').count() as u64 - 1;
    cluster.say(client(5), 0, Message::Write1(write_after(5, 1, "a=five", ts)));
    let Message::Granted { grant: told, .. } = cluster.last(0, "Granted") else { panic!("a grant") };
    assert_eq!(told.statement().version.ts.get(), ts + 1);
    cluster.restart(0);
    cluster.run(1000);
    cluster.say(client(6), 0, Message::Write1(write_after(6, 1, "a=six", ts)));
    let Message::Refused { grant: again, .. } = cluster.last(0, "Refused") else { panic!("a refusal") };
    assert_eq!(again.statement(), told.statement(), "the place is the first client's");
}

#[test]
fn a_replica_that_was_away_has_it_from_pbfts_log() {
    let mut cluster = in_order(N);
    cluster.isolate(3);
    for count in 0..10 {
        cluster.apply([8, 9][count % 2], &format!("a=w{count}"));
    }
    cluster.heal();
    cluster.talk();
    cluster.apply(7, "a=back");
    alike(&mut cluster);
    assert_eq!(cluster.count("Object"), 0, "nothing but PBFT's entries was needed");
}

#[test]
fn a_replica_that_lacks_the_object_in_ordered_mode_has_it_from_others() {
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2").apply(9, "a=3");
    collide(&mut cluster, 1);
    collide(&mut cluster, 2);
    cluster.apply(8, "a=x").apply(9, "a=y");
    cluster.heal();
    cluster.apply(8, "a=z");
    alike(&mut cluster);
    cluster.crash(0);
    cluster.apply(8, "a=three").apply(9, "a=are").apply(8, "a=enough");
    assert!(last(&cluster, 3) == "enough" || cluster.run(5000).tape(3)[0].ends_with("enough"));
}

#[test]
fn who_has_an_object_from_others_before_pbft_tells_it_grants_nothing() {
    // It cannot know whether PBFT gives the places.
    let mut cluster = Cluster::new(N);
    cluster.client(9).client(8).isolate(3);
    collide(&mut cluster, 1);
    collide(&mut cluster, 2);
    cluster.apply(8, "a=x");
    cluster.heal();
    cluster.lose(|it| it.to == replica(3) && matches!(it.message(), Some(Message::Module(_))));
    cluster.run_until("it has the object", |it| it.tape(3) == it.tape(1));
    cluster.talk();
    cluster.say(client(5), 3, Message::Write1(write_after(5, 1, "a=five", 8)));
    assert_eq!(cluster.count("Granted"), 0);
    cluster.heal();
    cluster.apply(8, "a=y");
    alike(&mut cluster);
}

// Lies.

#[test]
fn one_replica_that_says_so_falsely_costs_three_messages_and_no_round() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    cluster.talk();
    let ticket = cluster.submit(9, "a=2");
    cluster.tell(3, 9, Message::InOrder { object: object_of(b"a"), number: RequestNumber::new(2) });
    cluster.deliver();
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("2"), "no timer was needed");
    let counts = ["Write1", "Submit", "Granted", "Write2", "Done", "PrePrepare"].map(|label| cluster.count(label));
    assert_eq!(counts, [3, 1, 4, 4, 4, 0], "one SUBMIT, and its answers in both phases");
    cluster.talk();
    cluster.apply(9, "a=3");
    assert_eq!(cluster.count("Submit"), 0, "one replica's word is not remembered");
}

#[test]
fn in_phase_two_one_replica_that_says_so_is_not_believed() {
    let mut cluster = Cluster::new(N);
    cluster.client(9);
    cluster.lose(|it| it.label == "Write2");
    let ticket = cluster.submit(9, "a=1");
    cluster.deliver();
    cluster.tell(3, 9, Message::InOrder { object: object_of(b"a"), number: RequestNumber::new(1) });
    cluster.deliver();
    assert_eq!(cluster.count("Submit"), 0);
    cluster.heal();
    answered(&mut cluster, &[(9, ticket)]);
}

#[test]
fn a_replica_that_hides_it_and_grants_gets_no_certificate() {
    let mut cluster = in_order(N);
    let ts = cluster.tape(0)[0].split(' ').count() as u64;
    cluster.client(5).talk();
    let ticket = cluster.submit(5, "a=five");
    let mine = write(5, 1, "a=five");
    cluster.tell(3, 5, Message::Granted { grant: grant(3, &mine, version(90, ts)), current: None });
    answered(&mut cluster, &[(5, ticket)]);
    assert_eq!(cluster.count("Write2"), 0);
}

#[test]
fn a_primary_of_pbft_that_sits_on_requests_is_replaced() {
    let mut cluster = in_order(N);
    cluster.lose(|it| it.label == "PrePrepare" && it.from == replica(0));
    let tickets = [(8, cluster.submit(8, "a=x")), (9, cluster.submit(9, "a=y"))];
    answered(&mut cluster, &tickets);
    assert!(cluster.status(1).view.get() > 0);
}

#[test]
fn a_client_that_says_two_things_in_ordered_mode_gets_one_of_them() {
    let mut cluster = in_order(N);
    for id in 0..N {
        let said = if id < 2 { write(5, 1, "a=uno") } else { write(5, 1, "a=duo") };
        cluster.say(client(5), id, Message::Write1(said));
    }
    cluster.apply(8, "a=honest");
    cluster.run(3000);
    alike(&mut cluster);
    let tape = cluster.tape(0);
    assert_eq!(tape[0].matches("uno").count() + tape[0].matches("duo").count(), 1, "{tape:?}");
}

#[test]
fn a_request_that_its_client_has_not_signed_has_no_place_though_pbft_orders_it() {
    let mut cluster = in_order(N);
    let mut forged = write(5, 1, "a=five");
    forged.operations = vec!["a=other".to_owned().into()];
    order_as(&mut cluster, 0, &Entry::Write(Box::new(forged)));
    cluster.run(1000);
    cluster.apply(8, "a=x");
    alike(&mut cluster);
    assert!(!cluster.tape(0)[0].contains("other") && !cluster.tape(0)[0].contains("five"));
}

#[test]
fn whoever_has_the_request_from_its_client_refuses_other_bytes_under_its_signature_as_everybody_does() {
    let mut cluster = in_order(N);
    let true_one = write(5, 1, "a=five");
    for id in 1..N {
        cluster.say(client(5), id, Message::Write1(true_one.clone()));
    }
    let mut forged = true_one;
    forged.operations = vec!["a=other".to_owned().into()];
    order_as(&mut cluster, 0, &Entry::Write(Box::new(forged)));
    alike(&mut cluster);
    assert!(!cluster.tape(0)[0].contains("other"), "{:?}", cluster.tape(0));
    cluster.run_until("what it has signed is done", |it| (0..N).all(|id| last(it, id) == "five"));
}

#[test]
fn what_pbft_orders_for_an_object_that_is_not_in_ordered_mode_has_no_place() {
    let mut cluster = Cluster::new(N);
    cluster.apply(9, "a=1");
    order_as(&mut cluster, 0, &Entry::Write(Box::new(write(5, 1, "a=five"))));
    cluster.run(1000);
    assert!(cluster.agrees(&["a: 1"]), "{:?}", cluster.tape(0));
    cluster.talk();
    cluster.apply(8, "a=2");
    assert_eq!(cluster.count("Granted"), 3);
}

#[test]
fn an_operation_on_several_objects_after_ordered_mode_finds_what_it_led_to() {
    let mut cluster = in_order(N);
    cluster.apply(8, "a=x");
    let both = ordered(7, 1, "a+b=both");
    for id in 0..N {
        cluster.say(client(7), id, Message::Ordered(Box::new(both.clone())));
    }
    cluster.run_until("all have it", |it| (0..N).all(|id| it.tape(id).len() == 2));
    assert!(cluster.tape(0)[0].ends_with("x both"), "{:?}", cluster.tape(0));
}

/// A liar's replica has PBFT order this.
pub fn order_as(cluster: &mut Cluster, id: usize, entry: &Entry) {
    order_all_as(cluster, id, std::slice::from_ref(entry));
}

/// The same for several, together.
pub fn order_all_as(cluster: &mut Cluster, id: usize, entries: &[Entry]) {
    let keyring = keyring(id, cluster.hosts.len());
    let own = keyring.address(&keyring.proxy().expect("a replica's"));
    let number = RequestNumber::new((1 << 61) + cluster.sent.len() as u64 * 1000 + cluster.now % 1000);
    let bodies = entries.iter().map(|entry| Body::Apply(entry.encode().into()));
    let group = keyring.sign_as_proxy(pbft::Requests {
        client: own,
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: (0..).map(|index| number.plus(index)).zip(bodies).collect(),
    });
    let message = Message::Module(pbft::Message::Request(group));
    let bytes = ENVELOPE.seal(&quorate_core::node::Payload::Protocol(message));
    for to in 0..cluster.hosts.len() {
        cluster.send(Flying { from: replica(id), to: replica(to), label: "Injected", bytes: bytes.clone() });
    }
    cluster.run(50);
}
