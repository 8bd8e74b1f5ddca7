//! Beyond every bound: messages are held up *and* more replicas lie than quorums bear then. Histories differ; whoever meets
//! proof of it halts, and says so.

use crate::harness::{Cluster, keyring, replica};
use crate::words::{confirmation, small};
use quorate_protocols::sync_tob::{Config, Message};

/// R2 lies: whatever R0 or R1 says it confirms, to that one alone.
fn confirm(it: &mut Cluster, from: &mut usize) {
    let said = it.sent[*from..].to_vec();
    *from = it.sent.len();
    let mine = keyring(2, 3);
    for heard in said.into_iter().filter(|heard| heard.to == replica(2)) {
        let (Some(message), Some(to)) = (heard.message(), (0..2).find(|id| heard.from == replica(*id))) else {
            continue;
        };
        let answer = match message {
            Message::State(vote) => Some(Message::State(Box::new(mine.sign(vote.statement().clone())))),
            other => confirmation(&mine, it.now, other),
        };
        let Some(answer) = answer else { continue };
        it.say(replica(2), to, answer);
    }
}

/// R0 and R1 do not hear each other, and R2 makes each believe that it is with a quorum.
fn split(config: Config, more: usize) -> Cluster {
    let mut it = Cluster::with(3, config);
    it.client(3).apply(3, "a").client(4).apply(4, "b");
    it.believing = true;
    it.liar(2);
    it.cut(0, 1).cut(1, 0);
    let mut heard = it.sent.len();
    for index in 0..more {
        it.submit(3, &format!("x{index}"));
        it.submit(4, &format!("y{index}"));
        for _ in 0..50 {
            confirm(&mut it, &mut heard);
            it.run(4);
        }
    }
    let (one, other) = (it.tape(0), it.tape(1));
    assert!(one.len() > 2 && other.len() > 2 && one != other, "histories differ: {one:?} {other:?}");
    it.heal();
    it
}

fn halted(it: &Cluster, id: usize) -> bool {
    it.hosts[id].halted.as_ref().is_some_and(|why| why.starts_with("Diverged"))
}

#[test]
fn who_meets_the_proof_of_another_history_halts_and_says_diverged() {
    let mut it = split(Config::default(), 1);
    // R2 now goes with R0 alone. What they commit next does not follow what R1 has executed.
    let mut heard = it.sent.len();
    let before = it.tape(1);
    it.submit(3, "more");
    for _ in 0..100 {
        confirm(&mut it, &mut heard);
        it.run(10);
        if halted(&it, 0) || halted(&it, 1) {
            break;
        }
    }
    assert!(halted(&it, 0) || halted(&it, 1), "{}\n{}", it.describe(0), it.describe(1));
    let id = usize::from(halted(&it, 1));
    assert!(id == 0 || it.tape(1) == before, "it has executed nothing more");
}

#[test]
fn signed_states_that_differ_are_noticed_by_whoever_has_the_other_one() {
    let mut it = split(small(), 5);
    assert!(it.status(0).checkpoint.get() > 0 && it.status(1).checkpoint.get() > 0);
    let mut heard = it.sent.len();
    it.submit(3, "more");
    for _ in 0..300 {
        confirm(&mut it, &mut heard);
        it.run(10);
        if halted(&it, 0) || halted(&it, 1) {
            return;
        }
    }
    panic!("{}\n{}", it.describe(0), it.describe(1));
}
