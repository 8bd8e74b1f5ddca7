//! Calls are answered, whatever was lost and whoever lies: one test for each way in which this once failed. All of them ended
//! with every message delivered, a quorum of correct replicas up, and a call that nobody answered.

use crate::harness::{Cluster, ENVELOPE, Flying, keyring, replica};
use crate::paper::contend;
use crate::words::{N, grant, proof, version, write, write_after};
use quorate_core::crypto::Signed;
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_core::node::Payload;
use quorate_protocols::hq::{Message, Start};
use quorate_protocols::pbft::Told;

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

impl Cluster {
    /// This replica tells this client.
    pub fn tell(&mut self, from: usize, to: u128, message: Message) {
        let bytes = ENVELOPE.seal(&Payload::Protocol(message));
        self.send(Flying { from: replica(from), to: client(to), label: "Injected", bytes });
    }

    fn finishes(&mut self, of: u128, ticket: quorate_core::protocol::Ticket) {
        self.run_until("an answer", |it| it.answer(of, ticket).is_some());
        assert!(self.answer(of, ticket).is_some_and(|answer| !answer.starts_with("error")));
    }
}

#[test]
fn a_write_back_that_was_lost_is_said_again() {
    // A.3, case 2: the client has seen the other one's grants, and is given the same ones when it asks again.
    let mut cluster = Cluster::new(4);
    for id in 0..4 {
        cluster.say(client(9), id, Message::Write1(write(9, 1, "a=left")));
    }
    cluster.client(8).lose(|it| it.label == "WriteBack");
    let ticket = cluster.submit(8, "a=next");
    cluster.run(100).heal();
    cluster.finishes(8, ticket);
    assert!(cluster.agrees(&["a: left next"]), "{:?}", cluster.tape(0));
}

#[test]
fn grants_that_are_over_are_asked_for_anew() {
    // A.3, case 4: two replicas have answered before a resolution, the third after it, and no certificate tells them apart.
    let mut cluster = Cluster::new(4);
    cluster.client(8).lose(|it| it.label == "Write1");
    let ticket = cluster.submit(8, "a=x");
    let other = write(9, 1, "a=other");
    for (id, vs) in [(0, 0), (1, 0), (2, 5)] {
        let grant = grant(id, &other, version(vs, 1));
        cluster.tell(id, 8, Message::Refused { number: other.ask().number, grant, current: None });
    }
    cluster.deliver().heal();
    cluster.finishes(8, ticket);
}

#[test]
fn a_liar_that_grants_a_place_far_ahead_hides_no_conflict() {
    // A.7: the conflict is a quorum's grants of one place, whatever others say of another one.
    let mut cluster = Cluster::new(4);
    cluster.client(8);
    let (nine, eight) = (write(9, 1, "a=nine"), write(8, 1, "a=eight"));
    for id in 0..4 {
        let (of, said) = if id < 2 { (9, nine.clone()) } else { (8, eight.clone()) };
        cluster.say(client(of), id, Message::Write1(said));
    }
    cluster.lose(|it| it.from == replica(2) && ["Granted", "Refused"].contains(&it.label));
    let ticket = cluster.submit(8, "a=eight");
    for _ in 0..20 {
        let grant = grant(2, &nine, version(5, 1));
        cluster.tell(2, 8, Message::Refused { number: eight.ask().number, grant, current: None });
        cluster.run(100);
    }
    assert!(cluster.count("Resolve") > 0);
    cluster.finishes(8, ticket);
}

#[test]
fn a_liar_that_names_a_write_and_does_not_prove_it_starves_no_read() {
    // A.5: one correct replica is behind, and what the liar says hides by what.
    let mut cluster = Cluster::new(4);
    cluster.client(9).isolate(3);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.heal();
    let quiet = |it: &Flying| {
        ["Sums", "Versions", "GetVersions"].contains(&it.label)
            || (it.from == replica(0) && it.label == "ReadAnswer" && matches!(it.to, Peer::Client(_)))
    };
    cluster.lose(quiet);
    let ticket = cluster.read(9, "a");
    for _ in 0..40 {
        let reads = cluster.sent.iter().rev().find_map(|it| match it.message() {
            Some(Message::Read(read)) => Some(read.nonce),
            _ => None,
        });
        let (nonce, answer) = (reads.expect("a read"), Told::Full("lie".into()));
        cluster.tell(0, 9, Message::ReadAnswer { nonce, version: version(9, 9), answer, proof: None });
        cluster.run(50);
    }
    assert_eq!(cluster.answer(9, ticket).as_deref(), Some("1 2"));
}

#[test]
fn a_certificate_that_one_replica_has_reaches_the_others() {
    // A.8: nobody can vouch for the object, but the certificate proves itself. Replica 3 is down, the client is gone.
    let mut cluster = Cluster::new(4);
    cluster.apply(9, "a=1").gone(9);
    let last = write(9, 2, "a=2");
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write1(last.clone()));
    }
    cluster.crash(3);
    let proof = proof(&[0, 1, 2], &last, version(0, 2));
    cluster.say(client(9), 0, Message::Write2 { proof, write: None, answer: false });
    cluster.run_until("all are even", |it| it.agrees(&["a: 1 2"]));
    cluster.apply(8, "a=3");
}

#[test]
fn who_has_taken_a_write_back_vouches_for_what_the_others_have() {
    // A.6, R4, b: replica 3 takes a write back, replica 2 lacks two writes, replica 0 is down: 1 and 3 must be alike.
    let mut cluster = Cluster::new(4);
    cluster.client(9).isolate(2);
    cluster.apply(9, "a=1").apply(9, "a=2");
    cluster.heal();
    let to_two = ["Write2", "Sums", "Versions", "GetVersions", "Object", "GetObject", "Wrote"];
    cluster.lose(move |it| {
        (to_two.contains(&it.label) && (it.to == replica(2) || it.from == replica(2)))
            || (it.label == "Start" && it.from == replica(3) && it.to != it.from)
    });
    let (nine, eight) = (write(9, 3, "a=nine"), write(8, 1, "a=eight"));
    let certified = proof(&[0, 1, 3], &nine, version(0, 3));
    cluster.say(client(9), 3, Message::Write2 { proof: certified, write: Some(nine.clone()), answer: false });
    assert_eq!(cluster.tape(3), ["a: 1 2 nine"]);
    let grants = [(0, &nine), (1, &eight), (2, &nine)];
    let conflict: Vec<_> = grants.iter().map(|(id, it)| grant(*id, it, version(0, 3))).collect();
    for (id, of) in [(0, 7), (1, 6), (2, 5)] {
        let own = write(of, 1, &format!("a={of}")); // only one replica knows of it: it is not in L
        cluster.say(client(of), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it is taken back", |it| it.tape(3) == ["a: 1 2"]);
    cluster.run(100).crash(0);
    cluster.heal();
    cluster.run_until("it is brought on", |it| it.tape(2) == ["a: 1 2"]);
    cluster.apply(4, "a=next");
}

#[test]
fn a_client_that_dates_one_request_differently_leaves_no_difference() {
    // A.8: what `f + 1` must say alike is what the writes have led to, and not how a client has signed them.
    let mut cluster = Cluster::new(4);
    cluster.client(8).isolate(3);
    cluster.apply(8, "a=1");
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write1(write_after(9, 1, "a=2", id as u64)));
    }
    let certified = proof(&[0, 1, 2], &write(9, 1, "a=2"), version(0, 2));
    for id in 0..3 {
        cluster.say(client(9), id, Message::Write2 { proof: certified.clone(), write: None, answer: false });
    }
    cluster.crash(2);
    cluster.heal();
    cluster.run_until("it is brought on", |it| it.tape(3) == ["a: 1 2"]);
}

#[test]
fn a_conflict_that_was_resolved_freezes_nothing_again() {
    // Pitfalls 4 and 5: a liar has kept it, and says that it is new.
    let mut cluster = Cluster::new(4);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.run(3000);
    let Message::Start(old) = cluster.last(1, "Start") else { panic!("a START") };
    let Message::Grants { grants, .. } = cluster.last(1, "Grants") else { panic!("grants") };
    let seen: OpNumber = grants[0].statement().version.vs;
    let lie: Signed<Start> = keyring(1, N).sign(Start { seen, ..old.statement().clone() });
    let blamed = cluster.blamed(0);
    cluster.talk();
    cluster.say(replica(1), 0, Message::Start(Box::new(lie)));
    assert_eq!((cluster.count("Start"), cluster.blamed(0)), (0, blamed + 1));
    assert_eq!(cluster.status(0).role, "replica");
}

#[test]
fn who_has_missed_a_resolution_is_brought_on_by_the_next_one() {
    // A.6: a quorum of STARTs is of replicas that have been through the same resolutions. PBFT tells replica 3 nothing here.
    let mut cluster = Cluster::new(4);
    cluster.isolate(3);
    let tickets = contend(&mut cluster);
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    cluster.heal();
    cluster.lose(|it| {
        // The others stay frozen, and keep telling that they are.
        it.label == "PrePrepare"
            || (it.to == replica(3) && it.from != it.to && !["Start", "Object"].contains(&it.label))
    });
    let Message::Grants { grants, .. } = cluster.last(1, "Grants") else { panic!("grants") };
    let at = version(grants[0].statement().version.vs.get(), 3);
    let (one, two) = (write(7, 1, "a=seven"), write(6, 1, "a=six"));
    let conflict: Vec<_> = [(0, &one), (1, &two), (2, &one)].iter().map(|(id, it)| grant(*id, it, at)).collect();
    cluster.say(client(7), 1, Message::Resolve { conflict, write: one });
    cluster.run_until("it has the object", |it| it.tape(3) == it.tape(1) && !it.tape(3).is_empty());
}

#[test]
fn a_client_whose_conflict_is_resolved_before_its_resolve_arrives_goes_on_at_once() {
    // A.3, case 3: the answer to its RESOLVE is the next place. It was ignored until the client asked again, 300 ms later.
    let mut cluster = Cluster::new(4);
    cluster.client(7).lose(|it| it.from == client(7));
    let ticket = cluster.submit(7, "a=seven");
    let (mine, nine, eight) = (write(7, 1, "a=seven"), write(9, 1, "a=nine"), write(8, 1, "a=eight"));
    for (id, theirs) in [&nine, &eight, &nine, &eight].into_iter().enumerate() {
        let (number, grant) = (mine.ask().number, grant(id, theirs, version(0, 1)));
        cluster.tell(id, 7, Message::Refused { number, grant, current: None });
    }
    cluster.deliver();
    assert_eq!(cluster.count("Resolve"), 4);
    let granted = |id: usize| {
        let current = Some(proof(&[0, 1, 2], &nine, version(1, 2)));
        Message::Granted { grant: grant(id, &mine, version(1, 3)), current }
    };
    cluster.tell(0, 7, granted(0));
    cluster.tell(1, 7, granted(1));
    cluster.tell(2, 7, granted(2));
    cluster.deliver();
    assert_eq!(cluster.count("Write2"), 4);
    assert_eq!(cluster.answer(7, ticket), None);
}

#[test]
fn what_one_replica_says_of_a_later_place_does_not_end_a_resolution() {
    let mut cluster = Cluster::new(4);
    cluster.client(7).lose(|it| it.from == client(7));
    cluster.submit(7, "a=seven");
    let (mine, nine, eight) = (write(7, 1, "a=seven"), write(9, 1, "a=nine"), write(8, 1, "a=eight"));
    for (id, theirs) in [&nine, &eight, &nine].into_iter().enumerate() {
        let (number, grant) = (mine.ask().number, grant(id, theirs, version(0, 1)));
        cluster.tell(id, 7, Message::Refused { number, grant, current: None });
    }
    let (number, lie) = (mine.ask().number, grant(3, &eight, version(0, 1)));
    cluster.tell(3, 7, Message::Refused { number, grant: lie, current: None });
    cluster.deliver();
    let current = Some(proof(&[0, 1, 2], &nine, version(1, 2)));
    cluster.tell(3, 7, Message::Granted { grant: grant(3, &mine, version(1, 3)), current });
    cluster.deliver();
    cluster.talk();
    cluster.run(500);
    assert_eq!(cluster.count("Resolve"), 4, "it asks for the resolution again");
}

#[test]
fn a_replica_that_restarts_in_a_resolution_counts_its_own_grants() {
    // A.6, R4, f: one replica is down, so the grants of all the others are needed, each one's own among them.
    let mut cluster = Cluster::new(4);
    cluster.lose(|it| it.label == "Grants" && it.from != it.to);
    let tickets = contend(&mut cluster);
    cluster.run(500);
    cluster.crash(3);
    for id in 0..3 {
        assert_eq!(cluster.status(id).role, "resolving contention");
        cluster.restart(id);
    }
    cluster.heal();
    cluster.run_until("answers", |it| tickets.iter().all(|(client, ticket)| it.answer(*client, *ticket).is_some()));
    assert!(cluster.agrees(&cluster.tape(0).iter().map(String::as_str).collect::<Vec<_>>()));
}

#[test]
fn an_operation_that_a_replica_vouched_for_outlives_its_way_to_the_greatest_certificate() {
    // A.6, R4, a: replica 2 lacks a write, and replica 3, which alone knows of the same request, shows it to nobody.
    let mut cluster = Cluster::new(4);
    cluster.client(9);
    let late = ["Write2", "WriteBack", "Sums", "Versions", "GetVersions", "Object"];
    cluster.lose(move |it| {
        (late.contains(&it.label) && it.to == replica(2))
            || (it.label == "Start" && it.from == replica(1) && it.to != it.from)
            || (["Wrote", "Write2", "Object"].contains(&it.label) && it.from == replica(3))
    });
    cluster.apply(9, "a=1").gone(9);
    let (nine, eight) = (write(9, 2, "a=nine"), write(8, 1, "a=eight"));
    let grants = [(0, &nine), (1, &eight), (2, &nine)];
    let conflict: Vec<_> = grants.iter().map(|(id, it)| grant(*id, it, version(0, 2))).collect();
    for (id, own) in [(0, write(7, 1, "a=7")), (1, write(6, 1, "a=6")), (2, eight.clone()), (3, eight)] {
        cluster.say(Peer::Client(own.ask().client), id, Message::Resolve { conflict: conflict.clone(), write: own });
    }
    cluster.run_until("it is done", |it| (0..3).all(|id| it.tape(id) == ["a: 1 eight"]));
}

#[test]
fn who_knows_of_a_resolution_and_who_does_not_bring_on_who_lacks_the_object() {
    // A.6, R4, a: replica 2 lacks both writes; 0 has been told of the resolution, 1 has not, and 3 is down. Both have C.
    let mut cluster = Cluster::new(4);
    cluster.client(9).isolate(2);
    cluster.apply(9, "a=1").apply(9, "a=2").gone(9);
    cluster.heal();
    let late = ["Sums", "Versions", "GetVersions", "Object", "Write2", "Wrote"];
    cluster.lose(move |it| it.from == replica(1) || it.to == replica(1) || late.contains(&it.label));
    let (eight, seven) = (write(8, 1, "a=eight"), write(7, 1, "a=seven"));
    let grants = [(0, &eight), (2, &seven), (3, &eight)];
    let conflict: Vec<_> = grants.iter().map(|(id, it)| grant(*id, it, version(0, 3))).collect();
    for (id, own) in [(0, &eight), (3, &eight), (0, &seven), (3, &seven)] {
        let resolve = Message::Resolve { conflict: conflict.clone(), write: own.clone() };
        cluster.say(Peer::Client(own.ask().client), id, resolve);
    }
    cluster.run(1000);
    assert_eq!(cluster.status(0).role, "resolving contention");
    assert_eq!(cluster.status(1).role, "replica");
    cluster.crash(3);
    cluster.heal();
    cluster.run_until("it is done", |it| {
        (0..3).all(|id| {
            it.tape(id).first().is_some_and(|line| line.starts_with("a: 1 2 ") && line.split(' ').count() > 3)
        })
    });
}
