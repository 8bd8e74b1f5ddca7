//! Who is behind, and whom it asks: one of those who answer may lie, or say nothing.

use crate::harness::{Cluster, Flying, keyring, replica};
use crate::words::{certificate, config, header, op, orders, say, timeouts, view};
use bytes::Bytes;
use quorate_core::crypto::Certificate;
use quorate_protocols::hotstuff::{Config, Header, Justify, Message, Payload, Place, Proposal, StateCheckpoint};

/// Snapshots every few blocks.
fn small() -> Config {
    Config { state_blocks: 8, ..config() }
}

fn far() -> Message {
    Message::Status(Place { view: view(1), high: view(0), committed: op(1 << 40) })
}

/// What R0 tells a replica that asks for all blocks.
fn answer(it: &mut Cluster, label: &str) -> Vec<Message> {
    it.talk();
    it.say(replica(3), 0, Message::GetBlocks { after: op(0) });
    it.sent.iter().filter(|it| it.label == label).filter_map(Flying::message).collect()
}

#[test]
fn a_block_longer_than_an_answer_is_committed_by_what_the_next_answer_brings() {
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    it.lose(|it| it.label == "Proposal" && it.to == replica(3));
    it.submit(1, &"x".repeat(1_200_000));
    it.deliver();
    it.heal();
    it.run_until("R3 has it", |it| it.tape(3).len() == 2);
    it.rests_after(10_000);
}

#[test]
fn who_has_the_long_block_already_goes_on_behind_it() {
    // The question for what commits it is lost, at first.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let long = it.status(3).op.next();
    it.lose(move |it| match it.message() {
        Some(Message::Proposal(_)) => it.to == replica(3),
        Some(Message::GetBlocks { after }) => after >= long,
        _ => false,
    });
    it.submit(1, &"x".repeat(1_200_000));
    it.run(3_000);
    assert_eq!((it.tape(3).len(), it.status(3).op), (1, long));
    it.heal();
    it.run_until("R3 has it", |it| it.tape(3).len() == 2);
}

/// A block of this leader's with this payload on that one, told to these.
fn tell(it: &mut Cluster, by: usize, to: [usize; 2], on: &mut (Header, Justify), tc: Option<u64>, payload: &Payload) {
    let (tip, justify) = on.clone();
    let in_view = tc.unwrap_or_else(|| tip.view.get()) + 1;
    let words = header(in_view, tip.height.get() + 1, tip.id(), tip.view.get(), payload);
    let high = tip.view.get();
    let tc = tc.map(|end| timeouts(end, &[(0, high), (1, high), (2, high)]));
    let proposal = Proposal { header: keyring(by, 4).sign(words), justify, tc, payload: payload.clone() };
    for to in to {
        it.say(replica(by), to, say(&proposal));
    }
    *on = (words, certificate(in_view, words.id(), &[0, 1, 2]));
}

/// A payload longer than an answer, which no client has asked for.
fn long(it: &Cluster) -> Payload {
    Payload::with(orders(it.now, Vec::new()).orders().clone(), Some(Bytes::from(vec![7; 1_200_000])))
}

#[test]
fn a_leader_cannot_cut_anybody_off_by_one_long_block() {
    // R0 leaves R3 out, and is silent then: the others need R3.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let mut on = it.tip(0);
    it.liar(0);
    let (long, nothing) = (long(&it), orders(it.now, Vec::new()));
    for payload in [&long, &nothing, &nothing] {
        tell(&mut it, 0, [1, 2], &mut on, None, payload);
    }
    let (tip, justify) = on;
    it.say(replica(0), 1, Message::NewView { justify: justify.clone(), tc: None });
    it.say(replica(0), 2, Message::NewView { justify, tc: None });
    assert_eq!(it.committed(1), tip.height.get() - 2);
    it.apply(1, "z");
    it.run_until("R3 has it", |it| it.tape(3) == ["a", "z"]);
}

#[test]
fn long_blocks_that_nobody_has_committed_yet_are_brought_one_after_the_other() {
    // R1's blocks commit nothing when it falls silent, since views were skipped before them.
    let mut it = Cluster::with(4, config());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let mut on = it.tip(0);
    it.liar(1);
    let (long, nothing) = (long(&it), orders(it.now, Vec::new()));
    for (payload, tc) in [(&long, Some(100)), (&long, None), (&nothing, None)] {
        tell(&mut it, 1, [0, 2], &mut on, tc, payload);
    }
    assert_eq!(it.committed(0), it.committed(3));
    it.apply(1, "z");
    it.run_until("R3 has it", |it| it.tape(3) == ["a", "z"]);
}

#[test]
fn who_misses_a_block_while_the_others_go_on_asks_another_one_than_who_has_said_a_false_word() {
    let mut it = Cluster::with(7, config());
    it.client(1).apply(1, "a");
    it.run(10_000);
    it.liar(6);
    it.say(replica(6), 5, far());
    it.run(1_000);
    it.lose(|it| it.label == "Proposal" && it.to == replica(5));
    it.submit(1, "b");
    it.deliver();
    it.heal();
    for index in 0..200 {
        it.submit(1, &format!("x{index}"));
        it.run(20);
    }
    assert!(it.tape(5).len() > 190, "R5 has applied {} of {}", it.tape(5).len(), it.tape(0).len());
}

#[test]
fn who_is_far_behind_does_not_stay_with_one_who_brings_a_block_at_a_time() {
    let mut it = Cluster::with(7, config());
    it.client(1).apply(1, "a").isolate(5);
    for index in 0..60 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(10_000);
    it.liar(6);
    let blocks = answer(&mut it, "Block");
    it.say(replica(6), 5, far());
    it.heal();
    for block in blocks {
        it.say(replica(6), 5, block);
        it.say(replica(6), 5, far());
        it.run(50);
    }
    assert_eq!(it.tape(5), it.tape(0));
}

/// The certificate of the last state that R0 knows a quorum to have.
fn stable(it: &mut Cluster) -> Certificate<StateCheckpoint> {
    let told = answer(it, "StateStable");
    let Some(Message::StateStable(certificate)) = told.into_iter().next() else { panic!("a state") };
    certificate
}

/// R3 has heard nothing for longer than the others' logs are, and this is the state that they have.
fn behind_everybodys_log() -> (Cluster, Certificate<StateCheckpoint>) {
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a").isolate(3);
    for index in 0..20 {
        it.apply(1, &format!("x{index}"));
    }
    it.run(2_000);
    let state = stable(&mut it);
    (it, state)
}

#[test]
fn who_tells_of_a_state_first_each_time_is_its_source_once() {
    let (mut it, state) = behind_everybodys_log();
    it.liar(2);
    it.heal().talk();
    for _ in 0..1_000 {
        it.say(replica(2), 3, Message::StateStable(state.clone()));
        it.run(10);
    }
    assert!(it.sent.iter().any(|it| it.label == "GetManifest" && it.to == replica(2)));
    assert_eq!(it.tape(3), it.tape(0));
}

#[test]
fn who_has_not_given_a_state_is_asked_again_when_all_have_failed_whoever_tells_of_it() {
    // Nobody answers R3 (seed 71,272: it asked the silent one, of whom others told by their turn, three times).
    let (mut it, state) = behind_everybodys_log();
    it.talk();
    for told_by in [1, 0, 2, 1] {
        it.say(replica(told_by), 3, Message::StateStable(state.clone()));
        it.run(4_000);
    }
    let asked = it.sent.iter().filter(|it| it.from == replica(3) && it.label == "GetManifest").map(|it| it.to);
    let mut sources: Vec<_> = asked.collect();
    sources.dedup();
    assert_eq!(sources, [1, 0, 2, 1].map(replica));
}

#[test]
fn a_machine_does_not_wait_for_a_state_that_what_is_committed_has_passed() {
    // All that R3 is told comes late, but for a word of R2's about a state that it does not serve.
    let mut it = Cluster::with(4, small());
    it.client(1).apply(1, "a");
    it.run(2_000);
    let mut late = Vec::new();
    for index in 0..4 {
        it.submit(1, &format!("x{index}"));
        while let Some(next) = it.flying.pop_front() {
            if next.to == replica(3) { late.push(next) } else { it.hand_over(&next) }
        }
    }
    let state = stable(&mut it);
    it.flying.clear();
    let height = state.statement().checkpoint.op;
    assert!(height > op(it.committed(3)));
    it.liar(2);
    it.say(replica(2), 3, Message::StateStable(state));
    for next in late {
        it.hand_over(&next);
    }
    assert!(it.committed(3) >= height.get());
    assert_eq!(it.tape(3), it.tape(0));
    it.heal().run(10_000);
    it.apply(1, "z");
    it.run_until("R3 goes on", |it| it.tape(3).len() == 6);
}
