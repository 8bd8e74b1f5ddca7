//! What views start with, and what a view that a liar leads leaves behind, in any weather: four replicas, of which one lies.

use crate::harness::{Cluster, Flying, keyring, replica};
use crate::words::confirmation;
use quorate_core::crypto::{Certificate, Certified, Signed, Statement, Verified};
use quorate_core::ids::{OpNumber, View};
use quorate_core::protocol::Protocol as _;
use quorate_protocols::sync_tob::{Commit, Message, NewView, SyncTob, ViewChange, Vote};

const N: usize = 4;
const QUORUM: usize = 3;

/// Everything that was said so far, as one who heard it all has checked it.
fn said(it: &Cluster) -> Vec<Message> {
    let keyring = keyring(0, N);
    let messages = it.sent.iter().filter_map(Flying::message);
    let proven = messages.map(|mut message| SyncTob::prove(&mut message, &keyring).map(|()| message));
    proven.filter_map(Result::ok).collect()
}

/// The certificate of the last of these statements that a quorum has made.
fn certificate<T: Statement>(words: Vec<Verified<T>>) -> Option<Certificate<T>> {
    let certified = words.iter().rev().find_map(|last| Certified::assemble(&words, last.statement(), QUORUM));
    certified.map(Certified::into_certificate)
}

fn of_votes(it: &Cluster) -> Option<Certificate<Vote>> {
    let votes = said(it).into_iter().filter_map(|it| match it {
        Message::Vote(vote) => vote.verified().ok(),
        _ => None,
    });
    certificate(votes.collect())
}

fn of_commits(it: &Cluster) -> Option<Certificate<Commit>> {
    let commits = said(it).into_iter().filter_map(|it| match it {
        Message::Commit(commit) => commit.verified().ok(),
        _ => None,
    });
    certificate(commits.collect())
}

/// The last view change of this replica for this view.
fn change_of(it: &Cluster, id: usize, view: u64) -> Signed<ViewChange> {
    let from = it.sent.iter().rev().filter(|heard| heard.from == replica(id));
    let changes = from.filter_map(|heard| match heard.message() {
        Some(Message::ViewChange(change)) if change.statement().view.get() == view => Some(*change),
        _ => None,
    });
    changes.into_iter().next().expect("a view change")
}

fn agree(it: &Cluster, ids: &[usize], expected: &[&str]) {
    for id in ids {
        assert_eq!(it.hosts[*id].halted, None, "{}", it.describe(*id));
        assert_eq!(it.tape(*id), expected, "{}", it.describe(*id));
    }
}

/// The liar goes along with whatever these say.
fn confirm(it: &mut Cluster, liar: usize, with: &[usize], from: &mut usize) {
    let heard = it.sent[*from..].to_vec();
    *from = it.sent.len();
    let mine = keyring(liar, N);
    for heard in heard.into_iter().filter(|heard| heard.to == replica(liar)) {
        let Some(message) = heard.message().filter(|_| with.iter().any(|id| heard.from == replica(*id))) else {
            continue;
        };
        let Some(answer) = confirmation(&mine, it.now, message) else { continue };
        for to in with {
            it.say(replica(liar), *to, answer.clone());
        }
    }
}

#[test]
fn a_certificate_of_a_lower_view_that_lost_is_not_taken_for_another_history() {
    // Seed 2982 of four replicas. R3 lies, and is the only one who hears in view 0 that a block is certified. View 1 starts
    // without it, and commits another one in its place. Then R3 shows what it has kept, and nobody else shows any certificate:
    // what theirs were of is committed.
    let mut it = Cluster::new(N);
    it.client(1).apply(1, "a");
    it.run(500);
    it.liar(3);
    let (before, committed) = (it.committed(0), of_commits(&it));
    it.lose(|it: &Flying| it.label == "Vote");
    it.submit(1, "b");
    it.run_until("a block is certified, as far as R3 knows", |it| {
        of_votes(it).is_some_and(|known| known.statement().op.get() == before + 1)
    });
    let kept = of_votes(&it).expect("it is");
    it.run_until("all others have left view 0", |it| (0..3).all(|id| it.status(id).view.get() == 1));
    it.heal();
    it.run_until("view 1 has ordered something in its place", |it| (0..3).all(|id| it.committed(id) > before));
    it.run(2_000);
    agree(&it, &[0, 1, 2], &["a", "b"]);

    let links = vec![(kept.statement().epoch, kept.statement().block)];
    let change = ViewChange { view: View::new(2), committed, certified: Some(kept), links };
    let change = Message::ViewChange(Box::new(keyring(3, N).sign(change)));
    for id in 0..3 {
        it.say(replica(3), id, change.clone());
    }
    it.lose(|it: &Flying| it.label == "Vote");
    it.submit(1, "c");
    it.run_until("a view starts with R3's help", |it| (0..3).any(|id| it.noted(id, "ViewStarted { view: View(2)") > 0));
    it.heal();
    it.run(5_000);
    agree(&it, &[0, 1, 2], &["a", "b", "c"]);
}

/// Seed 2468 of four replicas. R1 lies. In view 0 only R0 hears that two more blocks are certified. R1 leads view 1 and starts it in two
/// ways: for R0 with these blocks, for the others without. With R1's votes, the others commit another block.
fn a_view_that_started_in_two_ways() -> Cluster {
    let mut it = Cluster::new(N);
    it.client(1).apply(1, "a");
    it.run(500);
    it.liar(1);
    let before = it.committed(0);
    it.lose(|it: &Flying| it.label == "Commit" || (it.label == "Vote" && it.to != replica(0)));
    it.submit(1, "b");
    it.run(40);
    it.submit(1, "c");
    it.run_until("two more blocks are certified, as far as R0 knows", |it| {
        of_votes(it).is_some_and(|known| known.statement().op.get() == before + 2)
    });
    let left = |it: &Cluster| [0, 2, 3].iter().all(|id| it.status(*id).view.get() == 1);
    it.run_until("all others have left view 0", left);
    it.deliver();
    let [zero, two, three] = [0, 2, 3].map(|id| change_of(&it, id, 1));
    assert_eq!((zero.statement().links.len(), two.statement().links.len()), (2, 0));
    let mine = ViewChange { view: View::new(1), committed: None, certified: None, links: Vec::new() };
    let mine = keyring(1, N).sign(mine);
    let first = it.epoch_of(0, 200);
    let start = |changes: Vec<Signed<ViewChange>>| {
        Message::NewView(Box::new(keyring(1, N).sign(NewView { view: View::new(1), changes, first })))
    };
    let starts = [start(vec![zero, two.clone(), three.clone()]), start(vec![mine, two, three])];
    it.heal().isolate(0);
    let mut heard = it.sent.len();
    for (id, start) in [(0, 0), (2, 1), (3, 1)] {
        it.say(replica(1), id, starts[start].clone());
    }
    for _ in 0..300 {
        if [2, 3].iter().all(|id| it.committed(*id) > before) {
            break;
        }
        confirm(&mut it, 1, &[2, 3], &mut heard);
        it.run(2);
    }
    assert_eq!([0, 2, 3].map(|id| (it.status(id).view.get(), it.committed(id) - before)), [(1, 0), (1, 1), (1, 1)]);
    it
}

#[test]
fn a_certificate_whose_branch_has_lost_is_let_go_when_another_block_is_committed_in_its_place() {
    let mut it = a_view_that_started_in_two_ways();
    let op = OpNumber::new(it.committed(2));
    it.heal();
    it.run_until("R0 hears what is committed", |it| it.committed(0) == op.get()); // the harness checks its invariants
    // R1 says nothing any more. So R0's votes are needed, and its view changes, in which it would show what is on no chain.
    it.run_until("R0, R2 and R3 go on", |it| [0, 2, 3].iter().all(|id| it.tape(*id).len() == 3));
    let tape = it.tape(2);
    agree(&it, &[0, 2, 3], &tape.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!([2, 3].map(|id| it.blamed(id)), [0, 0], "nobody blames R0");
}
