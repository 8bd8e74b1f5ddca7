//! One test for each lie.

use crate::harness::{Cluster, ENVELOPE, Flying, config, keyring, replica};
use crate::words::{LIAR, batch, batch_message, group, id, op, prop};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, CoinShare, Digest};
use quorate_core::ids::{ClientId, OpNumber, Peer, RequestNumber, SessionId, View};
use quorate_core::node::Payload;
use quorate_core::sessions::Ruling;
use quorate_core::time::WallTime;
use quorate_protocols::async_tob::agreement::Word;
use quorate_protocols::async_tob::{
    Ack, Batch, Config, Decided, Head, LANE_BATCHES_MAX, Link, Message, Payload as LanePayload, Vote,
};
use quorate_protocols::pbft::{self, Reply, Told};

#[test]
fn a_lane_that_forks_gets_one_batch_acknowledged_at_a_height_and_is_convicted() {
    let (mut it, _) = Cluster::with_a_liar();
    let (one, other) = (batch(1, Head::default(), "one"), batch(1, Head::default(), "other"));
    it.say(replica(LIAR), 0, batch_message(&one)).say(replica(LIAR), 1, batch_message(&one));
    it.say(replica(LIAR), 2, batch_message(&other));
    it.say(replica(LIAR), 0, batch_message(&other)).say(replica(LIAR), 2, batch_message(&one));
    it.deliver();
    assert_eq!(it.acknowledged(0), [one.head()]);
    assert_eq!(it.acknowledged(2), [other.head()]);
    assert!(it.is_convicted(0) && it.is_convicted(2));
    it.goes_on();
}

#[test]
fn a_lane_that_runs_away_is_not_acknowledged_beyond_its_window_and_others_go_on() {
    let (mut it, _) = Cluster::with_a_liar();
    let mut parent = Head::default();
    for height in 1..=3 * LANE_BATCHES_MAX as u64 {
        let next = batch(height, parent, "flood");
        parent = next.head();
        it.say(replica(LIAR), 0, batch_message(&next));
    }
    it.deliver();
    assert_eq!(it.acknowledged(0).len(), LANE_BATCHES_MAX);
    assert!(it.hosts[0].journal.len() < 2 * LANE_BATCHES_MAX + 40, "it cannot fill disks");
    it.goes_on();
}

#[test]
fn a_batch_without_what_is_before_it_is_not_acknowledged_and_its_owner_is_asked() {
    let (mut it, _) = Cluster::with_a_liar();
    let first = batch(1, Head::default(), "first");
    let second = batch(2, first.head(), "second");
    it.say(replica(LIAR), 0, batch_message(&second));
    it.deliver();
    assert_eq!(it.acknowledged(0), []);
    assert_eq!(it.said(0, "GetChain").len(), 1);
    it.say(replica(LIAR), 0, batch_message(&first));
    it.deliver();
    assert_eq!(it.acknowledged(0), [first.head(), second.head()]);
}

#[test]
fn two_proposals_of_one_replica_for_one_epoch_get_one_approval_and_convict_it() {
    let (mut it, next) = Cluster::with_a_liar();
    it.say(replica(LIAR), 0, prop(next, 1, Vec::new())).say(replica(LIAR), 0, prop(next, 2, Vec::new()));
    it.deliver();
    let digests: std::collections::BTreeSet<_> = it.approved(0).into_iter().map(|it| it.digest).collect();
    assert_eq!(digests.len(), 1);
    assert!(it.is_convicted(0));
    it.goes_on();
}

#[test]
fn a_head_that_nobody_has_certified_is_refused_with_the_proposal() {
    let (mut it, next) = Cluster::with_a_liar();
    let statement = Ack { lane: id(LIAR), head: Head { height: 7, digest: Digest::of(b"made up") } };
    let own = *keyring(LIAR, 4).sign(statement).signature();
    let forged = Certificate::claimed(statement, vec![(id(0), own), (id(1), own), (id(LIAR), own)]);
    it.say(replica(LIAR), 0, prop(next, 1, vec![forged]));
    it.deliver();
    assert_eq!(it.approved(0), []);
    assert!(it.blamed(0) > 0);
    it.goes_on();
}

#[test]
fn one_clock_moves_agreed_time_neither_forward_nor_back() {
    for lie in [u64::MAX / 2, 0] {
        let (mut it, next) = Cluster::with_a_liar();
        for to in 0..3 {
            it.say(replica(LIAR), to, prop(next, lie, Vec::new()));
        }
        let certificate = it.certificate(&[0, 1, 2], next);
        for to in 0..3 {
            it.say(replica(LIAR), to, certificate.clone());
        }
        it.goes_on();
        let now = WallTime::from_nanos(it.now);
        let history = it.history(0);
        let decided = history.iter().find(|it| it.op == op(next)).expect("it is decided");
        assert!(decided.time <= now && decided.time.as_nanos() > 0, "{:?}", decided.time);
        assert!(history.is_sorted_by_key(|it| it.time));
    }
}

#[test]
fn a_proposal_that_was_shown_to_a_quorum_only_is_pulled_by_the_others_if_it_counts() {
    let (mut it, next) = Cluster::with_a_liar();
    let shown = prop(next, 5, Vec::new());
    it.lose(|_| true); // the adversary decides what arrives when
    it.say(replica(LIAR), 0, shown.clone()).say(replica(LIAR), 1, shown);
    let certificate = it.certificate(&[0, 1], next);
    it.say(replica(LIAR), 0, certificate.clone()).say(replica(LIAR), 1, certificate);
    it.deliver();
    it.heal();
    // With the liar's words on the side of R0 and R1, it counts, and R2 has never seen it.
    for to in 0..3 {
        let about = id(LIAR);
        let words = [Word::Echo1(0, true), Word::Echo2(0, true), Word::Echo3(0, Some(true)), Word::Decide(true)];
        let votes = words.into_iter().map(|word| Vote { op: op(next), about, word }).collect();
        it.say(replica(LIAR), to, Message::Agree(votes));
    }
    it.goes_on();
    assert!(it.committed(2) >= next);
}

#[test]
fn who_asks_again_and_again_is_answered_up_to_its_quota() {
    let (mut it, _) = Cluster::with_a_liar();
    let head = it.history(0).pop().expect("something is decided").heads[0];
    let chain = Message::GetChain { lane: id(0), head, above: 0 };
    let decided = Message::GetDecided { after: OpNumber::ZERO };
    for (question, answer) in [(chain, "Batch"), (decided, "Decided")] {
        it.run(200); // a period of its own
        it.talk();
        it.say(replica(2), 1, question.clone());
        let of_one = it.count(answer);
        it.run(200);
        it.talk();
        for _ in 0..3_000 {
            it.say(replica(LIAR), 1, question.clone());
        }
        let answers = it.sent.iter().filter(|m| m.to == replica(LIAR) && m.label == answer).count();
        assert!((1_000..=2_048).contains(&(answers / of_one.max(1))), "{answers} answers");
        it.talk();
        it.say(replica(2), 1, question.clone());
        assert_eq!(it.count(answer), of_one, "others have quotas of their own");
        it.run(200);
        it.talk();
        it.say(replica(LIAR), 1, question);
        assert_eq!(it.count(answer), of_one, "and there is a next period");
    }
    it.goes_on();
}

#[test]
fn who_was_missing_before_does_not_stand_in_for_who_is_missing_now() {
    // R5 and R6 were missing in the epoch before. Now R3 and R4 lie: R4 proposes nothing, so R5's proposal or R6's is needed. Each of
    // them has reached a quorum only because the liars have approved both: R0 and R5 have heard nothing from R6, and R2 and R6
    // nothing from R5. If four that counted and one that did not were enough to give the other one up, both would be given up.
    let mut it = Cluster::new(7);
    it.client(7).apply(7, "a"); // its lane is R0's
    it.crash(5).crash(6);
    it.apply(7, "b").run(2_000);
    it.restart(5);
    it.restart(6);
    it.run(2_000);
    let (next, correct, liars) = (it.committed(0) + 1, [0, 1, 2, 5, 6], [3, 4]);
    it.crash(3).crash(4);
    it.deliver();
    it.talk();
    it.lose(|m: &Flying| {
        let to = |ids: &[usize]| ids.iter().any(|id| m.to == replica(*id));
        let unheard = (m.from == replica(5) && to(&[2, 6])) || (m.from == replica(6) && to(&[0, 5]));
        let untold = [5, 6].iter().any(|id| m.from == replica(*id)) && to(&[1]) && m.label == "PCert";
        (m.label == "Prop" && unheard) || untold
    });
    let ticket = it.submit(7, "c");
    it.deliver();
    for to in correct {
        it.say(replica(LIAR), to, prop(next, 1, Vec::new()));
    }
    it.deliver();
    let certificate = it.certificate(&correct, next);
    for to in correct {
        it.say(replica(LIAR), to, certificate.clone());
    }
    for proposer in [5, 6] {
        let approval = it.said(1, "PAck").into_iter().find_map(|message| match message {
            Message::PAck(approval) if approval.statement().proposer == id(proposer) => Some(*approval.statement()),
            _ => None,
        });
        for liar in liars {
            let approval = keyring(liar, 7).sign(approval.expect("R1 has heard both"));
            it.say(replica(liar), proposer, Message::PAck(approval));
            for to in correct {
                let vote = Vote { op: op(next), about: id(proposer), word: Word::Echo1(0, false) };
                it.say(replica(liar), to, Message::Agree(vec![vote]));
            }
        }
    }
    it.deliver();
    assert_eq!(it.answer(7, ticket), None);
    it.heal();
    it.run_until("their proposals count", |it| it.answer(7, ticket).is_some());
    it.run(2_000);
    assert!(correct.iter().all(|id| it.tape(*id) == ["a", "b", "c"]));
}

#[test]
fn a_share_that_is_none_is_blamed_and_the_coin_falls_without_it() {
    // Nobody gets as far as a coin unless two wish one thing and the liar keeps it from being seen: three rounds of lies.
    let mut blamed = 0;
    for seed in 0..40_u64 {
        let (mut it, next) = Cluster::with_a_liar();
        it.submit(4, "x");
        let mut dice = crate::dice::Dice::new(seed);
        for _ in 0..400 {
            if it.flying.is_empty() {
                break;
            }
            let index = dice.below(it.flying.len());
            if let Some(flying) = it.flying.remove(index) {
                it.hand_over(&flying);
            }
            let (to, round) = (dice.below(3), u32::try_from(dice.below(3)).expect("small"));
            let about = id(dice.below(4));
            let bit = dice.one_in(2);
            let word = match dice.below(5) {
                0 => Word::Echo1(round, bit),
                1 => Word::Echo2(round, bit),
                2 => Word::Echo3(round, None),
                3 => Word::Echo3(round, Some(bit)),
                _ => Word::Share(2, CoinShare::new([7; 48])),
            };
            it.say(replica(LIAR), to, Message::Agree(vec![Vote { op: op(next), about, word }]));
        }
        it.goes_on();
        let notes = (0..3).flat_map(|id| &it.hosts[id].notes);
        blamed += notes.filter(|note| format!("{note:?}").contains("coin")).count();
    }
    println!("{blamed} coins were tossed");
}

#[test]
fn what_one_replica_says_was_decided_is_not_believed() {
    let (mut it, next) = Cluster::with_a_liar();
    let last = it.history(0).pop().expect("something is decided");
    let mut heads = last.heads.clone();
    heads[LIAR] = Head { height: 9, digest: Digest::of(b"made up") };
    let lie: Decided = last.next(last.time, heads, last.counted.clone());
    for to in 0..3 {
        it.say(replica(LIAR), to, Message::Commit { op: op(next + 100), root: lie.root });
        it.say(replica(LIAR), to, Message::Decided(vec![lie.clone()]));
    }
    it.run(5_000);
    assert!((0..3).all(|id| it.committed(id) < next));
    it.goes_on();
}

#[test]
fn a_replica_that_lies_to_a_client_is_not_believed_alone() {
    let (mut it, next) = Cluster::with_a_liar();
    let ticket = it.submit(4, "x");
    let client = ClientId::new(4);
    for number in 1..4 {
        let rulings = vec![(RequestNumber::new(number), Told::Full(Ruling::Replied(Bytes::from_static(b"a lie"))))];
        for session in 1..4 {
            let reply =
                Reply { view: View::ZERO, op: op(next), session: SessionId::new(session), rulings: rulings.clone() };
            let bytes = ENVELOPE.seal(&Payload::Protocol(Message::Client(pbft::Message::Reply(reply))));
            let lie = Flying { from: replica(LIAR), to: Peer::Client(client), label: "Reply", bytes };
            it.hand_over(&lie);
        }
    }
    it.run(2_000);
    assert_eq!(it.answer(4, ticket).as_deref(), Some("2"));
}

#[test]
fn words_far_ahead_and_numbers_out_of_all_bounds_are_refused() {
    let (mut it, next) = Cluster::with_a_liar();
    for number in [next + 1000, u64::MAX] {
        let vote = Vote { op: op(number), about: id(0), word: Word::Echo1(0, true) };
        it.say(replica(LIAR), 0, Message::Agree(vec![vote]));
        it.say(replica(LIAR), 0, prop(number, 0, Vec::new()));
        it.say(replica(LIAR), 0, Message::Commit { op: op(number), root: Digest::ZERO });
        it.say(replica(LIAR), 0, Message::GetDecided { after: OpNumber::new(number) });
        it.say(replica(LIAR), 0, Message::GetChain { lane: id(9), head: Head::default(), above: number });
        it.say(replica(LIAR), 0, Message::GetProp { op: op(number), proposer: id(9) });
    }
    let vote = Vote { op: op(next), about: id(9), word: Word::Echo1(u32::MAX, true) };
    it.say(replica(LIAR), 0, Message::Agree(vec![vote]));
    it.goes_on();
}

#[test]
fn a_request_in_a_fork_that_is_not_committed_is_ordered_in_another_lane() {
    // A lane that jumps over its own certified batch leaves that one out. Whoever had seen the request there must not think
    // for ever that it is on its way.
    let (mut it, next) = Cluster::with_a_liar();
    it.lose(|it| it.label == "Request");
    let ticket = it.submit(4, "x");
    it.deliver();
    let last = it.sent.iter().rev().find_map(Flying::message);
    let Some(Message::Client(pbft::Message::Request(group))) = last else { panic!("a request") };
    let payload = LanePayload::new(vec![group]);
    let link = keyring(LIAR, 4).sign(Link { height: 1, parent: Head::default(), payload: payload.digest() });
    let left_out = Batch { link, payload };
    let taken = batch(2, Head::default(), "instead");
    for to in 0..3 {
        it.say(replica(LIAR), to, batch_message(&left_out)).say(replica(LIAR), to, batch_message(&taken));
    }
    let certificates = [left_out.head(), taken.head()].map(|head| it.lane_certificate(&[0, 1, 2], head));
    // An epoch is under way, so both certificates are there before the next one proposes the higher.
    for to in 0..3 {
        it.say(replica(LIAR), to, prop(next, 1, Vec::new()));
        for certificate in certificates.clone() {
            let certificate = Some(certificate);
            it.say(replica(LIAR), to, Message::Batch { batch: taken.clone(), certificate });
        }
    }
    it.deliver();
    let decided = it.history(0).pop().expect("something is decided");
    assert_eq!(decided.heads[LIAR], taken.head(), "the fork with the request is left out");
    assert!((0..3).all(|id| it.tape(id) == ["a"]), "the other one's client has no session");
    it.heal();
    it.run_until("it is ordered all the same", |it| it.answer(4, ticket).is_some());
    assert!((0..3).all(|id| it.tape(id) == ["a", "x"]));
}

#[test]
fn a_root_that_a_liar_makes_up_halts_nobody_who_was_just_started() {
    // Just started, a replica is told by statuses where the others are, and no roots.
    let (mut it, next) = Cluster::with_a_liar();
    it.restart(0);
    it.deliver();
    it.say(replica(LIAR), 0, Message::Commit { op: op(next - 1), root: Digest::ZERO });
    assert_eq!(it.hosts[0].halted, None);
    it.goes_on();
}

#[test]
fn an_older_root_that_a_liar_says_again_halts_nobody() {
    // If Commits are lost, a replica is told by statuses that the others have got on, and their last roots are older ones.
    let (mut it, next) = Cluster::with_a_liar();
    let older = it.history(0).pop().expect("something is decided").root;
    it.lose(|m| m.to == replica(0) && m.label == "Commit");
    it.apply(4, "b").run(5_000);
    assert_eq!(it.committed(0), next);
    it.heal().say(replica(LIAR), 0, Message::Commit { op: op(next), root: older });
    assert_eq!(it.hosts[0].halted, None);
    it.goes_on();
}

#[test]
fn a_lie_with_the_right_root_does_not_hide_what_the_others_say_was_decided() {
    // The liar is R0, whose claims are looked at first, and R3 is behind.
    let mut it = Cluster::new(4);
    it.client(5).apply(5, "a"); // its lane is R1's
    it.isolate(3);
    for operation in ["b", "c", "d", "e"] {
        it.apply(5, operation);
    }
    it.crash(0);
    let lie = |it: Decided| Decided { time: WallTime::from_nanos(it.time.as_nanos() + 1), ..it };
    let lies = it.history(1).into_iter().map(lie).collect();
    it.deliver();
    it.heal().say(replica(0), 3, Message::Decided(lies));
    it.run_until("it has caught up", |it| it.tape(3) == ["a", "b", "c", "d", "e"]);
    it.apply(5, "it is needed now");
}

#[test]
fn a_state_is_fetched_though_a_liar_says_that_its_log_would_do() {
    // R2 is away. The liar names the state at epoch 8 to R1 alone, so R1 forgets its log, and R0 does not.
    let mut it = Cluster::with(4, Config { state_epochs: 8, ..config() });
    it.client(4).apply(4, "first").run(2_000);
    it.isolate(2).lose(|m| m.from == replica(LIAR) && m.to == replica(0) && m.label == "Status");
    for _ in 0..12 {
        it.apply(4, "x");
    }
    it.run(5_000);
    let base = |it: &Cluster, id| match it.last(id, "Status") {
        Message::Status { base, .. } => base.get(),
        _ => panic!("a status"),
    };
    assert!(base(&it, 0) <= it.committed(2) && it.committed(2) < base(&it, 1));
    it.crash(LIAR).heal();
    let committed = op(it.committed(0));
    it.say(replica(LIAR), 2, Message::Status { committed, base: op(0), states: Vec::new(), asks: false });
    it.run_until("it has caught up", |it| it.tape(2) == it.tape(0));
    assert!(it.count("GetManifest") > 0);
    it.goes_on();
}

#[test]
fn a_request_that_a_replica_passes_on_is_not_taken() {
    // Nobody correct does that. A liar could fill a client's part of what waits with what that client has asked for long ago.
    let (mut it, _) = Cluster::with_a_liar();
    it.say(replica(LIAR), 0, Message::Client(pbft::Message::Request(group(4, 1, "old"))));
    it.deliver();
    assert_eq!(it.count("Batch"), 0);
    it.goes_on();
}

#[test]
fn a_batch_is_said_again_though_a_liar_begins_epochs_all_the_time() {
    // R0's batch was lost on its way to R2, and it is R2's acknowledgement that it needs. Epochs that order nothing get on.
    let (mut it, _) = Cluster::with_a_liar();
    let elsewhere = |m: &Flying| m.label == "Request" && m.to != replica(0);
    it.lose(move |m| elsewhere(m) || (m.label == "Batch" && m.to == replica(2)));
    let ticket = it.submit(4, "x");
    it.deliver();
    it.lose(elsewhere);
    for _ in 0..40 {
        let next = it.committed(0) + 1;
        for to in 0..3 {
            it.say(replica(LIAR), to, prop(next, 1, Vec::new()));
        }
        it.run(50);
        assert!((0..3).all(|id| it.committed(id) >= next));
    }
    assert_eq!(it.answer(4, ticket).as_deref(), Some("2"));
    it.heal().goes_on();
}
