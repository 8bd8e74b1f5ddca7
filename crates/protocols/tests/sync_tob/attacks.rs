//! One test for each lie.

use crate::harness::{Cluster, Flying, config, replica};
use crate::words::{MS, block, cast, echoed, group, proposal, small};
use quorate_core::ids::{ClientId, OpNumber, Peer};
use quorate_core::time::Duration;
use quorate_protocols::pbft;
use quorate_protocols::sync_tob::{Broadcast, Bundle, Cast, CastId, Chain, Config, Message};
use std::collections::BTreeSet;

/// The tapes of those who run are equal; how long they are.
fn agreed(it: &Cluster) -> usize {
    let running: Vec<usize> = (0..it.hosts.len()).filter(|id| it.hosts[*id].process.is_some()).collect();
    let first = it.tape(running[0]);
    assert!(
        running.iter().all(|id| it.tape(*id) == first),
        "{:?}",
        running.iter().map(|id| it.tape(*id)).collect::<Vec<_>>()
    );
    first.len()
}

#[test]
fn colluders_who_release_a_chain_at_the_last_instant_split_nobody() {
    // For even n, f = n/2 - 1. With n = 5, f = 2: the leader and its accomplice sign a block, and show it to one replica only, at the last moment at which a
    // chain of two counts. It has to pass it on, and the chain of three reaches the others in time.
    for (n, instant, counts) in [
        (4, 0_i64, true),
        (4, 1, false),
        (5, 0, true),
        (5, 1, false),
        (6, 0, true),
        (6, 1, false),
        (7, 0, true),
        (8, 0, true),
    ] {
        let mut it = Cluster::new(n);
        it.client(1).apply(1, "a");
        let f = (n - 1) / 2;
        let liars: Vec<usize> = (n - f..n).collect();
        for liar in &liars {
            it.liar(*liar);
        }
        let leader = liars[0];
        let (entry, _) = it.cast_by(leader, 0, 7, "x");
        let epoch = it.epoch_of(leader, 100);
        let block = block(epoch, vec![entry]);
        let chain = echoed(proposal(leader, n, &block), &liars[1..], n);
        let last = it.schedule().deadline(it.schedule().start(epoch), f);
        it.run_to(last, instant);
        let (start, epoch_of) = (it.committed(0), epoch);
        it.say(replica(leader), 0, Message::Propose { chain, block });
        let signed =
            it.sent.iter().filter(|m| m.label == "Propose" && m.from == replica(0)).filter_map(|m| m.message());
        let passed_on =
            signed.filter(|m| matches!(m, Message::Propose { chain, .. } if chain.statement().epoch == epoch_of));
        assert_eq!(passed_on.count() > 0, counts, "n={n}, {instant} ns after the deadline");
        it.run(3_000);
        assert!(it.committed(0) >= start);
        assert_eq!(agreed(&it), 1);
        assert!((0..n - f).all(|id| it.status(id).view.get() == 0), "no view had to settle it");
        it.apply(1, "and so on");
        it.run(200);
        agreed(&it);
    }
}

#[test]
fn a_leader_that_proposes_two_blocks_gets_neither_is_convicted_and_does_not_lead_for_long() {
    for n in [3, 4, 5] {
        let mut it = Cluster::new(n);
        it.client(1).apply(1, "a");
        let liar = n - 1;
        it.liar(liar);
        let (entry, _) = it.cast_by(liar, 0, 7, "x");
        let epoch = it.epoch_of(liar, 100);
        let (one, other) = (block(epoch, vec![entry]), block(epoch, Vec::new()));
        it.run_to(it.schedule().start(epoch), 0);
        it.say(replica(liar), 0, Message::Propose { chain: proposal(liar, n, &one), block: one });
        it.say(replica(liar), 1, Message::Propose { chain: proposal(liar, n, &other), block: other });
        it.run(1_000);
        assert_eq!(agreed(&it), 1, "two values are no output");
        assert!((0..liar).all(|id| it.blamed(id) > 0), "n={n}: both were passed on to all");
        it.client(2).apply(2, "b"); // the next block carries the proof
        it.run(8_000); // by now it counts
        let epoch = it.epoch_of(liar, 100);
        let block = block(epoch, Vec::new());
        it.client(3).apply(3, "c"); // clocks are known
        let epoch = if it.schedule().start(epoch).as_nanos() > it.now { epoch } else { it.epoch_of(liar, 40) };
        let block = if block.content().epoch == epoch { block } else { crate::words::block(epoch, Vec::new()) };
        it.run_to(it.schedule().start(epoch), 0);
        it.talk();
        for to in 0..liar {
            it.say(replica(liar), to, Message::Propose { chain: proposal(liar, n, &block), block: block.clone() });
        }
        it.deliver();
        let of_liar = |m: &Flying| match m.message() {
            Some(Message::Propose { chain, .. }) => chain.head.by().index() == liar,
            _ => false,
        };
        assert!(!it.sent.iter().any(of_liar), "nobody passes on what it proposes");
    }
}

/// The epoch in whose block this replica's next cast was proposed by somebody who runs, if it was.
fn ordered_in(sent: &[Flying], sender: usize) -> Option<u64> {
    let epochs = sent.iter().filter_map(Flying::message).filter_map(|message| match message {
        Message::Propose { block, .. } => {
            let of_sender = |entry: &Chain<Cast>| entry.statement().id.sender.index() == sender;
            block.content().entries.iter().any(of_sender).then(|| block.content().epoch.get())
        }
        _ => None,
    });
    epochs.min()
}

#[test]
fn an_evil_leader_censors_nothing_for_longer_than_f_plus_one_epochs() {
    // The f liars lead f epochs in a row. They say nothing, or order nothing in time. What enough replicas have when an
    // epoch begins is in the block of that epoch or of one of the f after it.
    for (n, silent) in [(3, true), (3, false), (4, false), (5, true), (5, false), (7, false)] {
        let f = (n - 1) / 2;
        let mut it = Cluster::new(n);
        let client = n as u128 - 1; // its requests are cast by an honest replica
        it.client(client).apply(client, "a");
        for liar in 0..f {
            it.liar(liar);
        }
        it.run(500);
        let first = it.epoch_of(0, 60); // of f that liars lead
        it.run_to(it.schedule().start(first), -(5 * MS as i64));
        it.talk();
        let ticket = it.submit(client, "censored");
        for liar in 0..f {
            let epoch = first.plus(liar as u64);
            it.run_to(it.schedule().start(epoch), 0);
            if !silent {
                let block = block(epoch, Vec::new());
                let chain = proposal(liar, n, &block);
                for to in f..n {
                    it.say(replica(liar), to, Message::Propose { chain: chain.clone(), block: block.clone() });
                }
            }
        }
        it.run(it.config.epoch.as_millis() as u64 * 2);
        let epoch = ordered_in(&it.sent, n - 1).expect("somebody orders it");
        assert_eq!(epoch, first.plus(f as u64).get(), "n={n}, silent: {silent}: the first epoch of an honest leader");
        it.run_until("an answer", |it| it.answer(client, ticket).is_some());
        it.run(500);
        assert_eq!(it.tape(f), it.tape(n - 1));
        assert!((f..n).all(|id| it.status(id).view.get() == 0), "no view had to settle it");
    }
}

#[test]
fn a_block_that_orders_what_too_few_have_is_refused_and_its_bearer_blamed() {
    let mut it = Cluster::new(5);
    it.client(1).apply(1, "a");
    it.liar(4);
    let epoch = it.epoch_of(4, 100);
    let bundle = Bundle::new(vec![group(5, 9, 7, "nobody has it")]);
    let entry = echoed(cast(4, 5, (1, 0), it.now, &bundle), &[3], 5); // two signatures, f + 1 is three
    let block = block(epoch, vec![entry]);
    it.run_to(it.schedule().start(epoch), 0);
    it.say(replica(4), 0, Message::Propose { chain: proposal(4, 5, &block), block });
    assert!(it.blamed(0) > 0);
}

#[test]
fn a_sender_that_casts_two_things_under_one_name_is_convicted_and_one_of_them_is_ordered_at_most() {
    for broadcast in [Broadcast::Flood, Broadcast::DolevStrong] {
        let mut it = Cluster::with(3, Config { broadcast, ..config() });
        it.client(1).apply(1, "a");
        it.liar(2);
        let bundles = ["one", "other"].map(|what| Bundle::new(vec![group(3, 9, 7, what)]));
        for (to, bundle) in bundles.iter().enumerate() {
            it.say(replica(2), to, Message::Cast { chain: cast(2, 3, (1, 0), it.now, bundle), bundle: bundle.clone() });
        }
        it.run(2_000);
        assert!(it.blamed(0) + it.blamed(1) > 0, "{broadcast:?}: {:?}", it.talk());
        assert!(agreed(&it) <= 2);
        it.apply(1, "b");
        agreed(&it);
    }
}

#[test]
fn with_dolev_and_strong_a_cast_that_comes_too_late_is_nobodys() {
    let mut it = Cluster::with(3, Config { broadcast: Broadcast::DolevStrong, ..config() });
    it.client(1).apply(1, "a");
    it.liar(2);
    let bundle = Bundle::new(vec![group(3, 9, 7, "late")]);
    let chain = cast(2, 3, (1, 0), it.now, &bundle);
    it.run_to(it.schedule().deadline(chain.statement().start, 1), 1);
    it.talk();
    it.say(replica(2), 0, Message::Cast { chain, bundle });
    it.run(1_000);
    let of_liar = |m: &Flying| match m.message() {
        Some(Message::Cast { chain, .. }) => chain.head.by().index() == 2,
        Some(Message::Echo { head, .. }) => head.by().index() == 2,
        _ => false,
    };
    assert!(!it.sent.iter().any(of_liar), "nobody signs it or passes it on");
    assert_eq!(agreed(&it), 1);
}

#[test]
fn a_flood_of_casts_fills_its_senders_share_and_nobody_elses() {
    let mut it = Cluster::with(3, Config { sender_bytes: 64 << 10, ..config() });
    it.client(1).apply(1, "a");
    it.liar(2);
    it.talk();
    for seq in 1..2_000 {
        // Without the first, none of them can ever be ordered.
        let bundle = Bundle::new(vec![group(3, 9, seq, "a few bytes of rubbish that nobody will ever order")]);
        let chain = cast(2, 3, (1, seq), it.now, &bundle);
        it.say(replica(2), 0, Message::Cast { chain, bundle });
    }
    it.deliver();
    let echoes = it.sent.iter().filter(|m| m.label == "Echo" && m.from == replica(0)).count();
    assert!(echoes <= 2 * 512, "{echoes}");
    it.apply(1, "b");
    agreed(&it);
}

#[test]
fn who_asks_again_and_again_is_answered_up_to_its_quota() {
    let mut it = Cluster::new(4);
    it.client(1);
    for index in 0..4 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    it.liar(3);
    let body = it.sent.iter().rev().find_map(|m| match m.message() {
        Some(Message::Propose { block, .. }) => Some(block.digest()),
        _ => None,
    });
    let bodies = Message::GetBodies { blocks: vec![body.expect("a block")], bundles: Vec::new() };
    let decided = Message::GetDecided { after: quorate_core::ids::OpNumber::ZERO };
    for (question, answer) in [(bodies, "BlockBody"), (decided, "Decided")] {
        it.run(200); // a period of its own
        it.talk();
        it.say(replica(2), 1, question.clone());
        let of_one = it.count(answer);
        it.run(200);
        it.talk();
        for _ in 0..3_000 {
            it.say(replica(3), 1, question.clone());
        }
        let answers = it.sent.iter().filter(|m| m.to == replica(3) && m.label == answer).count();
        assert!((1_000..=2_048).contains(&(answers / of_one.max(1))), "{answers} answers");
        it.talk();
        it.say(replica(2), 1, question.clone());
        assert_eq!(it.count(answer), of_one, "others have quotas of their own");
        it.run(200);
        it.talk();
        it.say(replica(3), 1, question);
        assert_eq!(it.count(answer), of_one, "and there is a next period");
    }
}

#[test]
fn a_leader_out_of_turn_is_refused_and_its_bearer_blamed() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.liar(2);
    let epoch = it.epoch_of(0, 100);
    let block = block(epoch, Vec::new());
    it.run_to(it.schedule().start(epoch), 0);
    it.say(replica(2), 1, Message::Propose { chain: proposal(2, 3, &block), block });
    assert!(it.blamed(1) > 0);
}

#[test]
fn a_vote_for_two_outputs_of_one_epoch_is_evidence() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.run(500);
    let Message::Vote(vote) = it.last(2, "Vote") else { panic!("no vote") };
    let epoch = it.epoch_of(0, 500);
    let words = quorate_protocols::sync_tob::Vote { epoch, op: vote.statement().op.next(), ..*vote.statement() };
    let other = quorate_protocols::sync_tob::Vote { block: quorate_core::crypto::Digest::of(b"other"), ..words };
    for words in [words, other] {
        it.say(replica(2), 0, Message::Vote(crate::harness::keyring(2, 3).sign(words)));
    }
    assert!(it.blamed(0) > 0);
    let evidence = it.hosts[0].process.as_ref().expect("it runs").node.ledger().proofs().len();
    assert_eq!(evidence, 1);
}

#[test]
fn one_view_change_draws_nobody_along() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.run(500);
    let words = quorate_protocols::sync_tob::ViewChange {
        view: quorate_core::ids::View::new(5),
        committed: None,
        certified: None,
        links: Vec::new(),
    };
    let change = crate::harness::keyring(2, 3).sign(words);
    for to in 0..2 {
        it.say(replica(2), to, Message::ViewChange(Box::new(change.clone())));
    }
    it.run(2_000);
    assert!((0..2).all(|id| it.status(id).view.get() == 0));
    it.apply(1, "b");
}

/// What this replica has cast.
fn cast_of(it: &Cluster, sender: usize) -> Vec<(CastId, Bundle)> {
    let casts = it.sent.iter().filter(|m| m.from == replica(sender)).filter_map(Flying::message);
    let casts = casts.filter_map(|message| match message {
        Message::Cast { chain, bundle } => Some((chain.statement().id, bundle)),
        _ => None,
    });
    casts.filter(|(id, _)| id.sender.index() == sender).collect()
}

/// The casts of this replica that somebody who runs has ordered.
fn ordered_of(it: &Cluster, sender: usize) -> BTreeSet<CastId> {
    let blocks = it.sent.iter().filter_map(Flying::message).filter_map(|message| match message {
        Message::Propose { block, .. } => Some(block),
        _ => None,
    });
    let ids = blocks.flat_map(|block| block.content().entries.iter().map(|it| it.statement().id).collect::<Vec<_>>());
    ids.filter(|id| id.sender.index() == sender).collect()
}

fn request(replicas: usize, number: u64) -> Message {
    Message::Client(pbft::Message::Request(group(replicas, 9, number, "x")))
}

/// What this replica says who is asked for all there is, and whose log begins later.
fn stable(it: &mut Cluster, id: usize) -> Message {
    it.say(replica(1), id, Message::GetDecided { after: OpNumber::ZERO });
    it.last(id, "StateStable")
}

#[test]
fn who_tells_of_a_state_again_and_again_keeps_nobody_from_one() {
    for former in [false, true] {
        // No fetch fails just when it asks somebody else anyhow.
        let mut it = Cluster::with(3, Config { resend: Duration::from_millis(130), ..small() });
        it.client(1).apply(1, "a");
        it.crash(2);
        for index in 0..5 {
            it.apply(1, &format!("x{index}"));
        }
        it.run(500);
        let first = stable(&mut it, 0);
        for index in 5..24 {
            it.apply(1, &format!("x{index}"));
        }
        it.run(500);
        let last = stable(&mut it, 0);
        it.liar(1);
        it.restart(2);
        for step in 0..1_500 {
            if !former || step == 500 {
                it.lose(|m: &Flying| m.label == "StateStable"); // its voice is the only one, or the first one
            }
            // A state that nobody has any more, or that it does not give away.
            it.say(replica(1), 2, if former { first.clone() } else { last.clone() });
            it.run(10);
        }
        assert_eq!(it.tape(2), it.tape(0), "former: {former}");
    }
}

#[test]
fn a_view_change_that_somebody_else_says_again_is_not_answered_and_ones_own_up_to_a_quota() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    let half = |peer| peer == replica(2) || peer == replica(3);
    it.lose(move |it: &Flying| it.label == "Propose" && (half(it.to) || half(it.from)));
    it.submit(1, "b");
    it.run(400);
    it.heal();
    it.run(5_000);
    let view = it.status(0).view;
    assert!(view.get() > 0 && (1..4).all(|id| it.status(id).view == view));
    let change = it.last(1, "ViewChange");
    assert!(matches!(&change, Message::ViewChange(change) if change.statement().view == view));
    it.talk();
    for _ in 0..100 {
        it.say(replica(3), 0, change.clone());
    }
    assert_eq!(it.count("NewView"), 0);
    for _ in 0..1_000 {
        it.say(replica(1), 0, change.clone());
    }
    assert!((1..=128).contains(&it.count("NewView")), "{}", it.count("NewView"));
}

#[test]
fn what_its_sender_has_to_get_moved_first_has_room_where_the_rest_fills_its_share() {
    for (config, first) in
        [(config(), (1, 0)), (config(), (2, 0)), (Config { sender_bytes: 64 << 10, ..config() }, (1, 0))]
    {
        let mut it = Cluster::with(3, config);
        it.client(1).apply(1, "a");
        it.liar(2);
        let say = |it: &mut Cluster, (life, seq): (u64, u64)| {
            let bundle = Bundle::new(vec![group(3, 9, life * 1_000 + seq, "x")]);
            let chain = cast(2, 3, (life, seq), it.now, &bundle);
            for to in 0..2 {
                it.say(replica(2), to, Message::Cast { chain: chain.clone(), bundle: bundle.clone() });
            }
        };
        (1..=600).for_each(|seq| say(&mut it, (1, seq)));
        it.run(500);
        assert!(ordered_of(&it, 2).is_empty());
        say(&mut it, first);
        it.run(5_000);
        let ordered = ordered_of(&it, 2).len();
        assert!(if first.0 == 1 { ordered > 100 } else { ordered == 1 }, "{first:?}: {ordered} are ordered");
        let next = if first.0 == 1 { ordered as u64 } else { 1 };
        say(&mut it, (first.0, next)); // there is room again
        it.run(1_000);
        assert_eq!(ordered_of(&it, 2).len(), ordered + 1);
        assert_eq!(it.tape(0), it.tape(1));
    }
}

#[test]
fn a_liar_that_begins_many_lives_gets_little_more_than_its_share() {
    let mut it = Cluster::new(5);
    it.client(1).apply(1, "a");
    it.liar(4);
    it.talk();
    for life in 1..700 {
        // Only one has it: nobody can order it.
        let bundle = Bundle::new(vec![group(5, 9, life, "x")]);
        let chain = cast(4, 5, (life, 0), it.now, &bundle);
        it.say(replica(4), 0, Message::Cast { chain, bundle });
    }
    let echoes = it.sent.iter().filter(|m| m.label == "Echo" && m.from == replica(0)).count();
    assert_eq!(echoes, 4 * (512 + 8));
}

#[test]
fn who_casts_what_nobody_moves_casts_no_more_than_the_others_have_room_for() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.lose(|m: &Flying| m.label == "Cast");
    for number in 1..=400 {
        it.say(Peer::Client(ClientId::new(9)), 0, request(3, number));
        it.run(10);
    }
    let names = |it: &Cluster| cast_of(it, 0).into_iter().map(|(id, _)| id).collect::<BTreeSet<_>>();
    assert_eq!(names(&it).len(), 256);
    it.heal();
    it.run(10_000);
    let cast = cast_of(&it, 0);
    let groups = cast.iter().flat_map(|(_, bundle)| bundle.content());
    let numbers: BTreeSet<_> =
        groups.filter(|it| it.statement().client == ClientId::new(9)).map(|it| it.statement().requests[0].0).collect();
    assert_eq!(numbers.len(), 400, "what waited is cast then");
    assert_eq!(ordered_of(&it, 0), names(&it));
}

#[test]
fn a_request_that_a_liar_casts_anew_out_of_turn_is_cast_by_others_all_the_same() {
    let mut it = Cluster::new(3);
    it.client(1).apply(1, "a");
    it.liar(2);
    let say = |it: &mut Cluster, (life, seq): (u64, u64), groups: Vec<pbft::Group>| {
        let bundle = Bundle::new(groups);
        let chain = cast(2, 3, (life, seq), it.now, &bundle);
        for to in 0..2 {
            it.say(replica(2), to, Message::Cast { chain: chain.clone(), bundle: bundle.clone() });
        }
    };
    for life in 1..=8 {
        // What is moved ends the life before, and with it what was cast in it and could never be moved.
        say(&mut it, (life, 0), vec![group(3, 9, 1_000 + life, "x")]);
        it.run(300);
        assert_eq!(ordered_of(&it, 2).len() as u64, life);
        say(&mut it, (life, 5), vec![group(3, 9, 7, "x"), group(3, 9, 2_000 + life, "x")]);
        it.say(Peer::Client(ClientId::new(9)), 0, request(3, 7));
        it.run(50);
    }
    let has = |bundle: &Bundle| bundle.content().iter().any(|it| it.statement().requests[0].0.get() == 7);
    assert!(cast_of(&it, 0).iter().any(|(_, bundle)| has(bundle)), "an evil replica does not censor either");
}
