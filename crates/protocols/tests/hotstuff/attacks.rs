//! One test for each lie. R0 leads the first term; a liar is a replica that is down, in whose name the test speaks, with its
//! key and nobody else's.

use crate::harness::{Cluster, Flying, keyring, replica};
use crate::words::{config, group, header, op, orders, proposal, say, timeout, timeouts, under, view, vote};
use quorate_core::crypto::{Certificate, Digest, Signed};
use quorate_core::ids::{ClientId, Peer, ReplicaId, View};
use quorate_core::protocol::Consistency;
use quorate_protocols::hotstuff::{Header, Justify, Message, Place, Proposal, Rules, Vote};

fn id(raw: u8) -> ReplicaId {
    ReplicaId::new(raw)
}

/// Four replicas that have executed something, all quiet, and R0 a liar. With the last block, and its certificate.
fn lying_leader() -> (Cluster, Header, Justify) {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let (tip, justify) = it.tip(0);
    it.liar(0);
    it.deliver();
    it.talk();
    (it, tip, justify)
}

/// A block of R0's on the tip, in the view after it.
fn next(tip: &Header, justify: &Justify, groups: Vec<quorate_protocols::pbft::Group>, time: u64) -> Proposal {
    let payload = orders(time, groups);
    let view = tip.view.next().get();
    let it = header(view, tip.height.next().get(), tip.id(), tip.view.get(), &payload);
    Proposal { header: keyring(0, 4).sign(it), justify: justify.clone(), tc: None, payload }
}

/// Everybody but the liars can go on, and agrees.
fn recovers(it: &mut Cluster) {
    it.apply(1, "z");
    it.run(3_000);
    let running: Vec<_> = (0..it.hosts.len()).filter(|id| it.hosts[*id].process.is_some()).collect();
    assert!(running.iter().all(|id| it.tape(*id) == it.tape(running[0])));
    assert_eq!(it.tape(running[0]).iter().filter(|it| *it == "z").count(), 1);
}

#[test]
fn a_leader_that_proposes_two_blocks_in_a_view_gets_one_vote_of_each_and_is_convicted() {
    let (mut it, tip, justify) = lying_leader();
    let one = next(&tip, &justify, vec![group(9, 1, "one")], it.now);
    let other = next(&tip, &justify, vec![group(9, 1, "other")], it.now);
    it.say(replica(0), 1, say(&one));
    it.say(replica(0), 2, say(&other));
    it.say(replica(0), 3, say(&other));
    it.say(replica(0), 1, say(&other));
    let node = &it.hosts[1].process.as_ref().expect("it runs").node;
    let proof = node.ledger().proofs().get(&id(0)).expect("a proof");
    let (mut first, mut second) = proof.statements::<Header>().expect("two headers");
    assert!(first.prove(&keyring(3, 4)).is_ok() && second.prove(&keyring(3, 4)).is_ok());
    let block = one.header.statement().id();
    it.deliver();
    it.run(50);
    assert!(it.hosts[1].journal.iter().any(|it| it.seq.get() > 0));
    assert!(it.voted(1).iter().all(|vote| vote.view != tip.view.next() || vote.block == block), "it voted once");
    recovers(&mut it);
}

#[test]
fn a_replica_that_votes_twice_in_a_view_counts_once_and_is_convicted() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let now = it.view(0).get();
    it.liar(3);
    it.say(replica(3), 0, Message::Vote(vote(3, now, Digest::of(b"one"))));
    it.say(replica(3), 0, Message::Vote(vote(3, now, Digest::of(b"other"))));
    let node = &it.hosts[0].process.as_ref().expect("it runs").node;
    assert!(node.ledger().proofs().contains_key(&id(3)));
    recovers(&mut it);
}

#[test]
fn nobody_votes_in_anothers_name() {
    let (mut it, tip, _) = lying_leader();
    let mine = vote(0, tip.view.get() + 1, Digest::of(b"x"));
    for forged in [1, 2, 3] {
        let vote = Signed::claimed(id(forged), *mine.statement(), *mine.signature());
        it.say(replica(0), 1, Message::Vote(vote));
    }
    let mine = timeout(0, 100, 0);
    for forged in [2, 3] {
        let timeout = Signed::claimed(id(forged), *mine.statement(), *mine.signature());
        it.say(replica(0), 1, Message::Timeout { timeout, justify: Justify::Genesis });
    }
    assert_eq!((it.view(1), it.blamed(1)), (tip.view.next(), 5));
    recovers(&mut it);
}

#[test]
fn a_certificate_that_lacks_a_signature_or_counts_one_twice_is_refused() {
    let (mut it, tip, justify) = lying_leader();
    let Justify::Quorum(good) = &justify else { panic!("a certificate") };
    let (words, signatures) = (*good.statement(), good.signatures().to_vec());
    let few = signatures[..2].to_vec();
    let twice = vec![signatures[0], signatures[0], signatures[1]];
    for bad in [few, twice, Vec::new()] {
        let justify = Justify::Quorum(Certificate::claimed(words, bad));
        it.say(replica(0), 1, say(&next(&tip, &justify, Vec::new(), it.now)));
        it.say(replica(0), 1, Message::NewView { justify, tc: None });
    }
    assert_eq!((it.view(1), it.blamed(1)), (tip.view.next(), 6));
    recovers(&mut it);
}

#[test]
fn a_certificate_of_genesis_with_signatures_or_without_any_is_none() {
    let (mut it, _, _) = lying_leader();
    let words = Vote { view: View::ZERO, block: quorate_protocols::hotstuff::genesis() };
    let signed = keyring(0, 4).sign(words);
    for signatures in [Vec::new(), vec![(id(0), *signed.signature())]] {
        let justify = Justify::Quorum(Certificate::claimed(words, signatures));
        it.say(replica(0), 1, Message::NewView { justify, tc: None });
    }
    assert_eq!(it.blamed(1), 2);
}

#[test]
fn only_the_leader_of_a_view_proposes_in_it() {
    let (mut it, tip, justify) = lying_leader();
    it.liar(3);
    let honest = next(&tip, &justify, Vec::new(), it.now);
    let words = *honest.header.statement();
    it.say(replica(3), 1, say(&Proposal { header: keyring(3, 4).sign(words), ..honest }));
    assert!(it.voted(1).is_empty());
    assert_eq!(it.blamed(1), 1);
}

#[test]
fn a_leader_cannot_jump_to_a_view_that_nothing_led_to() {
    let (mut it, tip, justify) = lying_leader();
    let payload = orders(it.now, Vec::new());
    let far = header(tip.view.get() + 40, tip.height.next().get(), tip.id(), tip.view.get(), &payload);
    let jump = Proposal { header: keyring(0, 4).sign(far), justify, tc: None, payload };
    it.say(replica(0), 1, say(&jump));
    assert_eq!((it.view(1), it.blamed(1)), (tip.view.next(), 1));
    recovers(&mut it);
}

#[test]
fn a_block_whose_height_or_parent_is_not_its_certificates_gets_no_vote() {
    let (mut it, tip, justify) = lying_leader();
    let payload = orders(it.now, Vec::new());
    let (next_view, tip_view) = (tip.view.get() + 1, tip.view.get());
    let wrong_height = header(next_view, tip.height.get() + 7, tip.id(), tip_view, &payload);
    let wrong_parent = header(next_view, tip.height.get() + 1, Digest::of(b"another"), tip_view, &payload);
    for words in [wrong_parent, wrong_height] {
        let (header, justify, payload) = (keyring(0, 4).sign(words), justify.clone(), payload.clone());
        it.say(replica(0), 1, say(&Proposal { header, justify, tc: None, payload }));
    }
    assert!(it.voted(1).is_empty());
    recovers(&mut it);
}

#[test]
fn a_payload_that_is_not_the_headers_is_refused() {
    let (mut it, tip, justify) = lying_leader();
    let honest = next(&tip, &justify, Vec::new(), it.now);
    let payload = orders(it.now, vec![group(9, 1, "other")]);
    it.say(replica(0), 1, say(&Proposal { payload, ..honest }));
    assert!(it.voted(1).is_empty());
    assert_eq!(it.blamed(1), 1);
}

#[test]
fn a_request_that_its_client_has_not_signed_is_not_ordered() {
    let (mut it, tip, justify) = lying_leader();
    let good = group(9, 1, "mine");
    let mut words = good.statement().clone();
    words.requests[0].1 = quorate_core::sessions::Body::Apply("yours".into());
    let forged = quorate_protocols::pbft::Group::claimed(good.by(), words, *good.signature());
    it.say(replica(0), 1, say(&next(&tip, &justify, vec![forged], it.now)));
    assert!(it.voted(1).is_empty());
    assert_eq!(it.blamed(1), 1);
    recovers(&mut it);
}

#[test]
fn a_clock_far_ahead_of_everybodys_is_not_voted_for() {
    let (mut it, tip, justify) = lying_leader();
    let far = next(&tip, &justify, vec![group(9, 1, "late")], it.now + 11_000_000_000);
    it.say(replica(0), 1, say(&far));
    assert!(it.voted(1).is_empty());
    let near = next(&tip, &justify, vec![group(9, 1, "late")], it.now + 9_000_000_000);
    it.say(replica(0), 2, say(&near));
    it.sync(2);
    assert_eq!(it.hosts[2].halted, None);
    recovers(&mut it);
}

#[test]
fn a_leader_that_leaves_out_the_last_certificate_does_not_undo_what_is_locked() {
    // The forking attack: R0 proposes on the block before the tip, in the view after the tip.
    let (mut it, tip, _) = lying_leader();
    let payload = orders(it.now, vec![group(9, 1, "fork")]);
    let fork = header(tip.view.get() + 1, 1, quorate_protocols::hotstuff::genesis(), 0, &payload);
    let fork = proposal(0, fork, &payload, &[]);
    for to in 1..4 {
        it.say(replica(0), to, say(&fork));
    }
    assert!((1..4).all(|id| it.voted(id).is_empty()));
    recovers(&mut it);
}

#[test]
fn a_timeout_certificate_needs_a_quorum_for_one_view() {
    let (mut it, tip, justify) = lying_leader();
    let forged = [timeouts(100, &[(0, 0)]), timeouts(100, &[(0, 0), (0, 0), (0, 0)])];
    for tc in forged {
        it.say(replica(0), 1, Message::NewView { justify: justify.clone(), tc: Some(tc) });
    }
    assert_eq!((it.view(1), it.blamed(1)), (tip.view.next(), 2));
}

#[test]
fn a_request_that_a_replica_passes_on_to_backups_only_ends_no_term() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    let request = |number| Message::Client(quorate_protocols::pbft::Message::Request(group(9, number, "x")));
    for number in 1..5 {
        for to in [1, 2] {
            it.say(replica(3), to, request(number));
        }
        it.run(1_000);
    }
    assert!(it.view(1) < view(100), "R0 leads on");

    let before = it.committed(1);
    it.say(Peer::Client(ClientId::new(9)), 1, request(4)); // its client asks, too
    it.run(2_000);
    assert!(it.committed(1) > before && it.view(1) < view(100));
    recovers(&mut it);
}

#[test]
fn a_lone_timeout_of_a_backup_ends_nothing() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    for to in 0..3 {
        it.say(replica(3), to, Message::Timeout { timeout: timeout(3, 100, 0), justify: Justify::Genesis });
    }
    it.deliver();
    it.apply(1, "b");
    assert!(it.view(0) < view(100), "R0 leads on");
}

#[test]
fn a_timeout_for_a_view_far_ahead_costs_its_sender_nothing_but_its_own_vote() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    let far = timeout(3, 1 << 40, 0);
    it.say(replica(3), 0, Message::Timeout { timeout: far, justify: Justify::Genesis });
    it.deliver();
    it.apply(1, "b");
    assert!(it.view(0) < view(100));
}

#[test]
fn a_replica_that_says_it_is_far_ahead_is_asked_and_nothing_else() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    let far = Place { view: view(1 << 40), high: view(1 << 40), committed: op(1 << 40) };
    it.say(replica(3), 1, Message::Status(far));
    it.run(5_000);
    recovers(&mut it);
}

#[test]
fn votes_for_many_views_take_no_memory() {
    // §2.4: unbounded maps of future views. One slot for each signer.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    for ahead in 0..5_000 {
        let bytes = ahead.to_string();
        it.say(replica(3), 0, Message::Vote(vote(3, it.view(0).get() + ahead % 90, Digest::of(bytes.as_bytes()))));
    }
    recovers(&mut it);
}

#[test]
fn a_message_to_oneself_is_not_taken_from_others() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.say(replica(3), 1, Message::Durable(op(1)));
    recovers(&mut it);
}

#[test]
fn a_read_that_one_replica_lies_about_is_ordered_instead() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a").apply(1, "b");
    it.run(2_000);
    it.liar(3);
    it.isolate(2);
    let read = it.read(1, Consistency::Linearizable);
    it.deliver();
    assert_eq!(it.answer(1, read), None, "two of four are no quorum");
    it.heal();
    it.run_until("answered", |it| it.answer(1, read).is_some());
    assert_eq!(it.answer(1, read).as_deref(), Some("a b"));
}

#[test]
fn who_asks_again_and_again_is_answered_up_to_its_quota() {
    // The simulator's seeds 265 and 307 with seven replicas: a liar repeats its former questions, and each answer leads to another one.
    let mut it = Cluster::with(4, config());
    it.client(1);
    for index in 0..10 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.liar(3);
    it.talk();
    let behind = Place { view: View::ZERO, high: View::ZERO, committed: op(0) };
    for _ in 0..1_000 {
        it.say(replica(3), 1, Message::GetBlocks { after: op(0) });
        it.say(replica(3), 1, Message::Status(behind));
    }
    let answers = it.sent.iter().filter(|it| it.to == replica(3) && it.label == "NewView").count();
    assert!((100..=128).contains(&answers), "{answers} answers");
    it.talk();
    it.say(replica(2), 1, Message::GetBlocks { after: op(0) });
    assert!(it.count("Block") > 5, "others have quotas of their own");
    it.talk();
    it.run(200);
    it.talk();
    it.say(replica(3), 1, Message::GetBlocks { after: op(0) });
    assert!(it.count("Block") > 5, "and there is a next period");
}

#[test]
fn a_synced_block_whose_parent_is_certified_by_wrong_signatures_is_refused_and_a_good_copy_taken() {
    // Its name does not cover them. They would be kept, shown to others as a proof, and be as many as a frame holds.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.isolate(3);
    it.apply(1, "b");
    let (before, after) = (it.status(3).op, op(it.committed(3)));
    it.liar(0);
    it.talk();
    it.say(replica(3), 1, Message::GetBlocks { after });
    let answer: Vec<Message> = it.sent.iter().filter(|it| it.label == "Block").filter_map(Flying::message).collect();
    let highest = |message: &Message| match message {
        Message::Block { block, .. } => block.header.height,
        _ => op(0),
    };
    let message = answer.iter().find(|message| highest(message) > before).expect("a block that R3 lacks");
    let Message::Block { block, proof } = message.clone() else { panic!("a block") };
    let Justify::Quorum(good) = &block.justify else { panic!("a certificate") };
    let (words, signatures) = (*good.statement(), good.signatures());
    let many = vec![signatures[0]; 20_000];
    let others = (0..3).map(|by| (id(by), *vote(3, 1, Digest::of(b"x")).signature())).collect();
    for bad in [many, others, Vec::new()] {
        let justify = Justify::Quorum(Certificate::claimed(words, bad));
        let block = Box::new(quorate_protocols::hotstuff::Block { justify, ..(*block).clone() });
        it.say(replica(0), 3, Message::Block { block, proof: proof.clone() });
    }
    assert_eq!((it.blamed(3), it.status(3).op), (3, before));
    it.say(replica(0), 3, message.clone());
    assert_eq!((it.blamed(3), it.status(3).op), (3, before.next()));
    it.heal();
    recovers(&mut it);
}

#[test]
fn a_timeout_that_speaks_of_what_nobody_can_show_does_not_cost_the_next_leader_its_term() {
    // R0 adds its own timeout to two good ones: a quorum's. Who took that certificate could build on nothing.
    let mut it = Cluster::with(4, under(Rules::TwoChain));
    it.client(1).apply(1, "a");
    it.run(2_000);
    let (tip, justify) = it.tip(0);
    it.liar(0);
    let high = tip.view.get();
    let tc = Some(timeouts(100, &[(0, 1 << 40), (1, high), (2, high)]));
    let old = Proposal { tc: tc.clone(), ..next(&tip, &justify, Vec::new(), it.now) };
    it.say(replica(0), 1, say(&old));
    it.say(replica(0), 1, Message::Bound { nonce: 1, justify: justify.clone(), tc: tc.clone() });
    it.say(replica(0), 1, Message::NewView { justify, tc });
    assert_eq!((it.blamed(1), it.view(1)), (3, tip.view.next()));
    recovers(&mut it);
    assert!((101..200).contains(&it.view(1).get()), "R1 has led its term: {}", it.view(1));
}

#[test]
fn old_timeouts_and_questions_for_bounds_are_answered_to_who_says_them_up_to_its_quota() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.liar(3);
    it.talk();
    for nonce in 0..500 {
        // R2's, said again by R3.
        it.say(replica(3), 1, Message::Timeout { timeout: timeout(2, 1, 0), justify: Justify::Genesis });
        it.say(replica(3), 1, Message::GetBound { nonce });
    }
    let to = |it: &Cluster, to| it.sent.iter().filter(|it| it.to == replica(to)).count();
    assert_eq!(to(&it, 2), 0);
    assert!((100..=128).contains(&to(&it, 3)), "{}", to(&it, 3));
    it.say(replica(2), 1, Message::GetBound { nonce: 1 });
    assert_eq!(to(&it, 2), 1, "others have quotas of their own");
    recovers(&mut it);
}
