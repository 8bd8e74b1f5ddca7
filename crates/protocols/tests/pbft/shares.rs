//! What one liar, client or replica, may take of what others share.

use crate::harness::{Cluster, ENVELOPE, config, keyring, replica};
use crate::words::{group, op, orders, pre_prepare, view};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Keyring};
use quorate_core::fault::Why;
use quorate_core::ids::{ClientId, Peer, ReplicaId, RequestNumber, SessionId};
use quorate_core::protocol::{Consistency, Ticket};
use quorate_core::sessions::{Body, OPERATION_BYTES_MAX};
use quorate_protocols::pbft::{
    Commit, Config, Content, Group, Message, PROPOSAL_BYTES_MAX, Prepare, Proposal, REQUESTS_MAX, Record, Requests,
    ViewChange,
};
use quorate_protocols::{async_tob, hotstuff, sync_tob};

/// Requests from this number on, of so many bytes, signed together.
fn group_of(client: u128, first: u64, bytes: &[usize]) -> Group {
    let id = ClientId::new(client);
    let bodies = bytes.iter().map(|bytes| Body::Apply(Bytes::from(vec![b'x'; *bytes])));
    let requests = Requests {
        client: id,
        session: SessionId::new(1),
        acknowledged: RequestNumber::ZERO,
        full: None,
        requests: (first..).map(RequestNumber::new).zip(bodies).collect(),
    };
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, 4, id).sign_as_client(requests)
}

fn client(id: u128) -> Peer {
    Peer::Client(ClientId::new(id))
}

fn ignored(it: &Cluster, id: usize, why: Why) -> u64 {
    let node = &it.hosts[id].process.as_ref().expect("it runs").node;
    node.ledger().ignored().get(&why).copied().unwrap_or_default()
}

/// Is this client told that a queue is full?
fn is_busy(it: &Cluster, id: u128) -> bool {
    it.sent.iter().any(|it| it.label == "Busy" && it.to == client(id))
}

#[test]
fn a_group_that_no_entry_can_hold_is_taken_by_nobody_and_the_largest_operation_is() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    let long = group_of(9, 1, &[1_200 << 10; 3]);
    for to in 0..4 {
        let before = it.blamed(to);
        it.say(client(9), to, Message::Request(long.clone()));
        assert_eq!(it.blamed(to), before + 1);
    }
    it.apply(1, "b");
    it.run(2_000);
    assert_eq!(it.view(1), view(0), "nobody waits for it");

    let before = it.committed(1);
    it.say(client(9), 0, Message::Request(group_of(9, 4, &[OPERATION_BYTES_MAX])));
    it.run(2_000);
    assert_eq!(it.committed(1), before + 1);
}

#[test]
fn the_largest_group_fits_what_each_protocol_proposes() {
    let most = OPERATION_BYTES_MAX / REQUESTS_MAX;
    for group in [group_of(9, 1, &[OPERATION_BYTES_MAX]), group_of(9, 1, &[most; REQUESTS_MAX])] {
        let bytes = orders(0, vec![group]).len();
        let limits =
            [PROPOSAL_BYTES_MAX, hotstuff::PAYLOAD_BYTES_MAX, async_tob::PAYLOAD_BYTES_MAX, sync_tob::BUNDLE_BYTES_MAX];
        assert!(limits.iter().all(|limit| bytes <= *limit), "{bytes}");
    }
}

#[test]
fn a_request_that_a_replica_passes_on_to_backups_only_deposes_nobody() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    for number in 1..10 {
        for to in [1, 2] {
            it.say(replica(3), to, Message::Request(group(9, number, "x")));
        }
        it.run(1_000);
    }
    assert_eq!((it.view(1), it.view(2)), (view(0), view(0)));
    it.apply(1, "b");
}

#[test]
fn who_waits_for_a_request_has_told_the_primary_of_it_after_a_view_change_too() {
    // Only R0 hears of it, while R0 leads, and its client does not ask again.
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.from == replica(0) && it.label == "PrePrepare");
    it.say(client(9), 0, Message::Request(group(9, 1, "x")));
    it.apply(1, "b");
    it.heal();
    it.run(5_000);
    assert_eq!(it.view(0), it.view(1), "R0 does not leave it alone");
    let passed_on = it.sent.iter().filter(|it| it.from == replica(0)).filter_map(crate::harness::Flying::message);
    let is_nines = |it: &Message| matches!(it, Message::Request(group) if group.statement().client == ClientId::new(9));
    assert_eq!(passed_on.filter(is_nines).count(), 1);
    it.apply(1, "c");
    assert_eq!(it.status(0).role, "backup");
}

/// Alone with what is said to it, R0 leads a group whose room is small.
fn alone(room: usize, of_one: usize) -> Cluster {
    let mut it = Cluster::with(4, Config { pending_bytes: room, client_bytes: of_one, ..config() });
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.isolate(1).isolate(2).isolate(3);
    it
}

#[test]
fn what_a_replica_passes_on_is_charged_to_it_and_not_to_the_client() {
    let mut it = alone(3 << 20, 2 << 20);
    let busy = ignored(&it, 0, Why::Busy);
    for number in 100..110 {
        it.say(replica(3), 0, Message::Request(group_of(1, number, &[512 << 10])));
    }
    assert_eq!(ignored(&it, 0, Why::Busy) - busy, 7, "it has its share");
    assert!(!is_busy(&it, 1), "nobody has asked");
    it.say(replica(2), 0, Message::Request(group_of(1, 200, &[512 << 10])));
    assert_eq!(ignored(&it, 0, Why::Busy) - busy, 7, "another one has its own");
    let long = "b".repeat(1 << 20);
    it.submit(1, &long);
    it.deliver();
    assert!(!is_busy(&it, 1), "and so has the client");
}

#[test]
fn a_client_does_not_wait_behind_what_replicas_pass_on() {
    let mut it = alone(32 << 20, 12 << 20);
    it.talk();
    for number in 100..106 {
        it.say(replica(3), 0, Message::Request(group(9, number, "x")));
    }
    it.say(client(9), 0, Message::Request(group(9, 2, "x")));
    it.say(client(9), 0, Message::Request(group(9, 105, "x"))); // R3 has passed it on, too
    it.heal();
    it.run(2_000);
    let proposed = it.sent.iter().filter(|it| it.label == "PrePrepare" && it.to == replica(1));
    let mut order: Vec<u64> = Vec::new();
    for message in proposed.filter_map(crate::harness::Flying::message) {
        let Message::PrePrepare { proposal, .. } = message else { continue };
        let Content::Orders(orders) = &*proposal.content() else { continue };
        order.extend(orders.requests().map(|(_, number, _)| number.get()));
    }
    let mut seen = std::collections::BTreeSet::new();
    order.retain(|number| seen.insert(*number)); // what is lost is said again
    assert_eq!(order, [100, 2, 101, 105, 102, 103, 104]);
}

#[test]
fn nobody_takes_more_of_the_room_than_what_is_left_for_others() {
    let mut it = alone(8_000, 4_000);
    for flooding in 7..10 {
        for number in 1..60 {
            it.say(client(flooding), 0, Message::Request(group(flooding, number, "flood")));
        }
        assert!(is_busy(&it, flooding));
    }
    it.submit(1, "b");
    it.deliver();
    assert!(!is_busy(&it, 1), "who comes with little finds room");
}

#[test]
fn a_read_of_what_nobody_has_prepared_does_not_wait() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let at_least = op(it.committed(1) + 1);
    let read = |id| Message::Read {
        id,
        consistency: Consistency::Stale { at_least },
        full: None,
        query: Bytes::from(vec![0; 1 << 20]),
    };
    for id in 0..20 {
        it.say(client(9), 1, read(id));
    }
    assert_eq!((ignored(&it, 1, Why::NotHere), ignored(&it, 1, Why::Busy)), (20, 0));
}

#[test]
fn the_queries_of_one_client_take_no_more_than_its_share_and_all_of_them_no_more_than_theirs() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Commit");
    it.submit(1, "b");
    it.deliver();
    let mut taken = Vec::new();
    for asking in 20..30 {
        let busy = ignored(&it, 1, Why::Busy);
        for id in 0..20 {
            let query = Bytes::from(vec![0; 1 << 20]);
            let consistency = Consistency::Linearizable;
            it.say(client(asking), 1, Message::Read { id, consistency, full: None, query });
        }
        taken.push(20 - (ignored(&it, 1, Why::Busy) - busy));
    }
    assert_eq!(taken, [8, 8, 8, 4, 2, 1, 1, 0, 0, 0], "MiB; they wait for b");
}

#[test]
fn a_client_that_was_not_given_the_full_answer_asks_another_one_for_the_next() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, &"x".repeat(100));
    it.run(2_000);
    it.lose(|it| it.from == replica(2) && it.label == "Reply"); // whom client 1 asks
    let first = it.read(1, Consistency::Ordered);
    it.deliver();
    assert_eq!(it.answer(1, first), None);
    it.run(200);
    assert!(it.answer(1, first).is_some());
    let second = it.read(1, Consistency::Ordered);
    it.deliver();
    assert!(it.answer(1, second).is_some(), "at once");
}

#[test]
fn a_state_that_one_replica_does_not_give_is_fetched_from_another_one_whoever_tells_of_it() {
    let mut it = Cluster::with(4, Config { checkpoint_entries: 4, state_entries: 8, ..config() });
    it.client(1).apply(1, "first").isolate(3);
    for index in 0..40 {
        it.apply(1, &format!("x{index}"));
    }
    it.say(replica(3), 0, Message::GetCommitted { after: op(0) });
    let state = it.last(0, "StateStable");
    it.talk();
    let states = |it: &Cluster| {
        let records = it.hosts[3].journal.iter().map(crate::harness::OnDisk::record);
        records.filter(|record| matches!(record, Record::State(_))).count()
    };
    let before = states(&it);
    for _ in 0..3 {
        it.say(replica(1), 3, state.clone()); // R1 tells of it, and is silent
        it.run(5_000);
    }
    let mut asked: Vec<_> = it.sent.iter().filter(|it| it.label == "GetManifest").map(|it| it.to).collect();
    asked.dedup();
    assert_eq!(asked.len(), 3, "one after the other: {asked:?}");
    assert_eq!(asked[0], replica(1));
    assert_eq!(states(&it), before + 1, "and it is noted once");
    it.heal();
    it.run_until("R3 has it all", |it| it.tape(3).len() == 41);
}

#[test]
fn a_primarys_proposals_for_entries_far_away_take_no_place_from_the_first_of_its_view() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.crash(0);
    it.lose(|it| matches!(it.label, "NewView" | "PrePrepare"));
    it.submit(1, "b");
    it.run(700);
    assert_eq!((it.view(2), it.status(2).role.as_str()), (view(1), "changing view"));
    let far = orders(it.now, vec![group(9, 1, "far away")]);
    for index in 0..16 {
        it.say(replica(1), 2, pre_prepare(1, 1, (1 << 40) + index, &far));
    }
    let (start, Message::PrePrepare { vote, proposal }) = (it.last(1, "NewView"), it.last(1, "PrePrepare")) else {
        panic!("R1 has started view 1, and proposes in it")
    };
    let proposed = *vote.statement();
    it.say(replica(1), 2, Message::PrePrepare { vote, proposal });
    assert!(!it.prepared(2).contains(&proposed));
    it.say(replica(1), 2, start);
    assert!(it.prepared(2).contains(&proposed), "at once");
}

#[test]
fn what_a_former_primary_proposed_too_early_takes_no_place_in_the_next_view() {
    let mut it = Cluster::with(4, Config { checkpoint_entries: 16, ..config() });
    it.client(1).apply(1, "a");
    it.run(2_000);
    let former = orders(it.now, vec![group(9, 1, "former")]);
    for index in 33..49 {
        it.say(replica(0), 2, pre_prepare(0, 0, index, &former)); // above the window that R2 votes in
    }
    it.isolate(2);
    it.lose(|it| it.from == replica(0) && it.label == "PrePrepare");
    it.apply(1, "b");
    assert_eq!(it.view(1), view(1));
    let start = it.last(1, "NewView");
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.say(replica(3), 1, Message::GetCommitted { after: op(0) });
    let stable = it.last(1, "Stable");
    let proposal = orders(it.now, vec![group(9, 2, "next")]);
    it.say(replica(1), 2, start);
    it.say(replica(1), 2, pre_prepare(1, 1, 33, &proposal));
    it.say(replica(1), 2, stable);
    assert!(it.prepared(2).iter().any(|vote| (vote.op, vote.view) == (op(33), view(1))), "the window has moved");
}

fn forgotten() -> Proposal {
    orders(0, vec![group(9, 1, "x")])
}

/// R0 leads, and lies: what it proposes for the next entry R1 and R2 vote for, and leave the view before they hear of each
/// other's vote. R1 leads then, and proposes something else, which nobody prepares. So R0 alone has a certificate, of what nobody
/// else has any more.
fn a_certificate_of_what_is_forgotten() -> (Cluster, impl Fn(u64) -> Message) {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    let next = it.committed(1) + 1;
    it.liar(0);
    it.lose(|it| it.label == "Prepare");
    let proposal = forgotten();
    for to in [1, 2] {
        it.say(replica(0), to, pre_prepare(0, 0, next, &proposal));
    }
    it.deliver();
    let words = Prepare { view: view(0), op: op(next), digest: proposal.digest() };
    assert!([1, 2].iter().all(|id| it.prepared(*id).contains(&words)), "both have voted for it");
    it.submit(1, "b");
    it.run_until("another one leads", |it| (1..4).all(|id| it.view(id) == view(1)));
    it.lose(|it| it.label == "Prepare" || (it.label == "ViewChange" && it.to == replica(2)));
    it.run_until("it is given up", |it| (1..4).all(|id| it.view(id) == view(2)));
    let signed = (0..3).map(|by| (ReplicaId::new(by), *keyring(usize::from(by), 4).sign(words).signature())).collect();
    let certificate = Certificate::claimed(words, signed);
    let change = move |to| {
        let words = ViewChange { view: view(to), stable: None, prepared: vec![certificate.clone()] };
        Message::ViewChange(Box::new(keyring(0, 4).sign(words)))
    };
    (it, change)
}

#[test]
fn a_liars_certificate_of_what_nobody_else_has_holds_up_no_view() {
    let (mut it, change) = a_certificate_of_what_is_forgotten();
    for (to, leads) in [(2, 2), (3, 3), (5, 1)] {
        it.say(replica(0), leads, change(to));
    }
    it.heal();
    it.run(5_000);
    assert!((1..4).all(|id| it.view(id) == view(2)), "the first correct primary has its view");
    it.apply(1, "c");
    it.run(1_000);
    assert!((1..4).all(|id| it.tape(id).ends_with(&["b".to_owned(), "c".to_owned()])), "{:?}", it.tape(1));
    let asked = it.sent.iter().filter(|it| it.label == "GetProposals" && it.to == replica(0));
    assert!(asked.count() > 0, "it may still give what it shows");
}

#[test]
fn a_certificate_counts_once_its_replica_has_given_what_it_shows_and_nothing_else_is_kept() {
    // Without R3 there is no quorum but with R0.
    let (mut it, change) = a_certificate_of_what_is_forgotten();
    let next = it.committed(2) + 1;
    it.say(replica(0), 2, change(2));
    it.heal().isolate(3);
    let of_r1 = it.last(1, "ViewChange");
    it.say(replica(1), 2, of_r1);
    assert_eq!((it.view(1), it.view(2), it.status(2).role.as_str()), (view(2), view(2), "changing view"));
    let unasked = ignored(&it, 2, Why::Unasked);
    let give = |proposal| Message::Proposal { op: op(next), proposal };
    it.say(replica(0), 2, give(orders(0, Vec::new())));
    assert_eq!((ignored(&it, 2, Why::Unasked), it.status(2).role.as_str()), (unasked + 1, "changing view"));
    it.say(replica(0), 2, give(forgotten()));
    it.sync(2);
    assert_eq!(it.status(2).role, "primary");
    it.deliver();
    let words = Prepare { view: view(2), op: op(next), digest: forgotten().digest() };
    assert!(it.prepared(1).contains(&words), "and what the view starts with is handed on");
}

/// R0, R2 and R3 prepare something that R1, who is next, has not heard of. Then R0 dies.
fn prepared_without_r1() -> (Cluster, Ticket) {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Commit" || (it.label == "PrePrepare" && it.to == replica(1)));
    let ticket = it.submit(1, "b");
    it.deliver();
    it.crash(0);
    it.talk();
    (it, ticket)
}

#[test]
fn who_is_to_start_a_view_fetches_what_others_have_prepared_and_starts_it_then() {
    let (mut it, ticket) = prepared_without_r1();
    it.heal();
    it.run_until("R1 changes the view", |it| it.view(1) == view(1));
    let began = it.now;
    it.run_until("R1 leads", |it| it.leads(1));
    assert!(it.now - began < 50_000_000, "it has asked at once");
    let talk = it.talk();
    let at = |said: &str| talk.iter().position(|it| it.starts_with(said));
    assert!(at("R2 Proposal R1").is_some() && at("R2 Proposal R1") < at("R1 NewView"), "{talk:?}");
    it.run_until("it is answered", |it| it.answer(1, ticket).is_some());
    it.run(1_000);
    assert!((1..4).all(|id| it.tape(id) == ["a", "b"]), "{:?}", it.tape(1));
}

#[test]
fn who_is_to_start_a_view_asks_again_for_what_was_lost_on_its_way() {
    let (mut it, _) = prepared_without_r1();
    it.lose(|it| it.label == "GetProposals");
    it.run_until("R1 changes the view", |it| it.view(1) == view(1));
    it.deliver();
    it.heal();
    it.run_until("R1 leads", |it| it.leads(1));
    assert_eq!(it.view(1), view(1));
}

#[test]
fn who_is_to_start_a_view_does_not_wait_for_what_has_come_as_committed() {
    let (mut it, _) = prepared_without_r1();
    it.lose(|it| it.label == "GetProposals");
    it.run_until("R1 changes the view", |it| it.view(1) == view(1));
    it.deliver();
    let prepared = it.hosts[2].journal.iter().rev().find_map(|it| match it.record() {
        Record::Proposal(op, proposal) => Some((op, proposal)),
        _ => None,
    });
    let (op, proposal) = prepared.expect("R2 has it");
    let words = Commit { view: view(0), op, digest: proposal.digest() };
    let signed = [0, 2, 3].map(|by| (ReplicaId::new(by), *keyring(usize::from(by), 4).sign(words).signature()));
    let certificate = Certificate::claimed(words, signed.to_vec());
    it.say(replica(2), 1, Message::Committed { certificate, proposal });
    it.run_until("R1 leads", |it| it.leads(1));
    assert_eq!(it.view(1), view(1));
}

#[test]
fn a_certificate_below_the_watermark_is_nothing_to_wait_for() {
    // R0 lies, and without R3 there is no quorum but with it.
    let mut it = Cluster::with(4, Config { checkpoint_entries: 2, state_entries: 6, ..config() });
    it.client(1).apply(1, "a").apply(1, "b").apply(1, "c");
    it.run(10_000);
    it.liar(0).isolate(3);
    let words = Prepare { view: view(0), op: op(1), digest: forgotten().digest() };
    let signed = (0..3).map(|by| (ReplicaId::new(by), *keyring(usize::from(by), 4).sign(words).signature())).collect();
    let shown = vec![Certificate::claimed(words, signed)];
    let change = keyring(0, 4).sign(ViewChange { view: view(1), stable: None, prepared: shown });
    for to in [1, 2] {
        it.say(replica(0), to, Message::ViewChange(Box::new(change.clone())));
    }
    it.run_until("R1 leads", |it| it.leads(1));
    assert_eq!(it.view(1), view(1));
}
