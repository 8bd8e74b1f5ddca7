//! What view changes cost who gets them: each holds the signatures of up to a window of certificates.

use crate::harness::{Cluster, ENVELOPE, keyring, replica};
use crate::words::{op, view};
use quorate_core::crypto::{Certificate, Digest, Keyring, Secret, Signature, Signed};
use quorate_core::fault::{Fault, Why};
use quorate_core::ids::ReplicaId;
use quorate_core::protocol::Protocol as _;
use quorate_core::wire::Wire;
use quorate_protocols::pbft::{LogCheckpoint, Message, NewView, Pbft, Prepare, ViewChange};

/// A statement, signed by R0, R1 and R2.
fn certified<T: quorate_core::crypto::Statement>(words: &T, ring: impl Fn(usize) -> Keyring) -> Certificate<T> {
    let signature =
        |by: usize| (ReplicaId::new(u8::try_from(by).expect("small")), *ring(by).sign(words.clone()).signature());
    Certificate::claimed(words.clone(), (0..3).map(signature).collect())
}

/// To a view, after a stable checkpoint at entry 64, with so many entries prepared.
fn change(by: usize, to: u64, entries: u64) -> Signed<ViewChange> {
    let ring = |by| keyring(by, 4);
    let stable = certified(&LogCheckpoint { op: op(64), chain: Digest::ZERO }, ring);
    let words = (65..65 + entries).map(|at| Prepare { view: view(0), op: op(at), digest: Digest::ZERO });
    let prepared = words.map(|words| certified(&words, ring)).collect();
    keyring(by, 4).sign(ViewChange { view: view(to), stable: Some(stable), prepared })
}

/// A message as the network brings it: nobody here has checked anything.
fn arrived(message: Message) -> Message {
    Message::decode(&message.encode()).expect("its own encoding")
}

fn proven(keyring: &Keyring, message: &mut Message) -> (Result<(), Fault>, u64) {
    let before = keyring.work().checked;
    let result = Pbft::prove(message, keyring);
    (result, keyring.work().checked - before)
}

/// What became of it, and how many signatures were checked for it.
fn opened(keyring: &Keyring, change: Signed<ViewChange>) -> (Result<(), Fault>, u64) {
    proven(keyring, &mut arrived(Message::ViewChange(Box::new(change))))
}

#[test]
fn a_flood_of_view_changes_is_refused_before_their_certificates_are_checked() {
    let receiver = keyring(0, 4);
    for entries in 1..=4 {
        assert_eq!(opened(&receiver, change(3, 1, entries)), (Ok(()), 1 + 3 + 3 * entries));
    }
    for entries in 5..40 {
        assert_eq!(opened(&receiver, change(3, 1, entries)), (Err(Fault::NotNow(Why::Busy)), 1), "one signature");
    }
    let ahead: u64 = (2..60).map(|to| opened(&receiver, change(3, to, 40)).1).sum();
    assert_eq!(ahead, 58 + 3 * (3 + 3 * 40), "of three views more, whatever it signs");
    assert_eq!(opened(&receiver, change(2, 1, 40)).0, Ok(()), "others are heard");
}

#[test]
fn a_view_change_that_is_said_again_is_not_checked_again() {
    let receiver = keyring(0, 4);
    assert_eq!(opened(&receiver, change(3, 1, 20)), (Ok(()), 1 + 3 + 60));
    assert_eq!(opened(&receiver, change(3, 1, 20)), (Ok(()), 0));
}

#[test]
fn a_new_view_checks_only_the_view_changes_that_were_not_checked_before() {
    let receiver = keyring(0, 4);
    for by in [1, 2] {
        assert!(opened(&receiver, change(by, 1, 10)).0.is_ok());
    }
    let own = receiver.sign(change(0, 1, 10).statement().clone());
    let changes = vec![own, change(1, 1, 10), change(2, 1, 10)];
    let votes = (65..75).map(|at| Prepare { view: view(1), op: op(at), digest: Digest::ZERO });
    let proposals = votes.map(|words| keyring(1, 4).sign(words)).collect();
    let start = NewView { view: view(1), changes, proposals };
    let start = || arrived(Message::NewView(Box::new(keyring(1, 4).sign(start.clone()))));
    let mut message = start();
    assert_eq!(proven(&receiver, &mut message), (Ok(()), 1 + 10), "the primary's own word, and its proposals");
    let Message::NewView(started) = message else { unreachable!() };
    let started = started.verified().expect("all of it was checked");
    let stable = started.statement().changes[1].statement().stable.clone().expect("a checkpoint");
    assert!(stable.certified(3).is_ok(), "what was checked before counts as checked");
    let all = 1 + 3 + 3 * (1 + 3 + 30) + 10;
    assert_eq!(
        proven(&keyring(3, 4), &mut start()),
        (Ok(()), all),
        "who has heard nothing checks it all, once it knows that a quorum has signed"
    );
}

#[test]
fn who_is_far_behind_looks_at_view_changes_that_f_plus_1_claim() {
    let receiver = keyring(0, 4);
    assert_eq!(opened(&receiver, change(1, 57, 3)).0, Err(Fault::NotNow(Why::Busy)), "one could be a liar's");
    assert_eq!(opened(&receiver, change(2, 58, 3)).0, Ok(()));
    assert_eq!(opened(&receiver, change(1, 57, 3)).0, Ok(()), "it comes again");
}

/// Who has lost its disk is in view 0, the others have long been in a view that nobody leaves: it hears of that view by one
/// NEW-VIEW, whoever passes it on.
#[test]
fn a_new_view_far_away_is_looked_at_since_a_quorum_has_signed_for_it() {
    let receiver = keyring(0, 4);
    let start = |to: u64, changes: Vec<Signed<ViewChange>>| {
        let start = NewView { view: view(to), changes, proposals: Vec::new() };
        arrived(Message::NewView(Box::new(keyring(1, 4).sign(start))))
    };
    let good = [1, 2, 3].map(|by| change(by, 1_001, 3)).to_vec();
    assert_eq!(proven(&receiver, &mut start(1_001, good)).0, Ok(()));
    // What the liar signs in others' names.
    let own = change(1, 5_001, 40);
    let forged = |by| Signed::claimed(ReplicaId::new(by), own.statement().clone(), *own.signature());
    let (result, checked) = proven(&receiver, &mut start(5_001, vec![own.clone(), forged(2), forged(3)]));
    assert!(result.is_err() && checked <= 3, "its own two signatures, and the first forged one: {checked}");
}

#[test]
fn a_replica_that_starts_in_a_late_view_hears_of_the_next_one_at_once() {
    let mut it = Cluster::new(4);
    it.client(1).apply(1, "a");
    for _ in 0..8 {
        let leads = it.primary().expect("somebody leads");
        it.crash(leads);
        it.apply(1, "b");
        it.restart(leads);
        it.run(3_000);
    }
    assert!(it.view(1).get() >= 8);
    (0..4).for_each(|id| it.restart(id));
    it.run(3_000);
    let (leads, before) = (it.primary().expect("somebody leads"), it.now);
    it.crash(leads);
    it.apply(1, "c");
    assert!(it.now - before < 700_000_000, "150 ms until the client asks everybody, 300 ms until they give up");
}

#[test]
fn a_view_change_with_a_bad_signature_inside_is_never_taken_for_good() {
    let secret = |id: u8| Secret::from_seed([id + 1; 32]);
    let keys: Vec<_> = (0..4).map(|id| secret(id).public()).collect();
    let ring = |id: usize| {
        let id = u8::try_from(id).expect("small");
        let keyring = Keyring::ed25519(ENVELOPE.cluster, ENVELOPE.epoch, &keys, &[]).expect("four keys");
        keyring.of_replica(ReplicaId::new(id), secret(id)).expect("its own")
    };
    let words = Prepare { view: view(0), op: op(1), digest: Digest::ZERO };
    let good = certified(&words, ring);
    let mut signatures = good.signatures().to_vec();
    signatures[1].1 = Signature::new([7; 64]);
    let bad = Certificate::claimed(words, signatures);
    let change = |certificate| ring(3).sign(ViewChange { view: view(1), stable: None, prepared: vec![certificate] });
    let receiver = std::sync::Arc::new(ring(0));
    let opener = crate::attacks::node(receiver).opener();
    let frame = |change| {
        let message = quorate_core::node::Payload::Protocol(Message::ViewChange(Box::new(change)));
        (replica(3), ENVELOPE.seal(&message))
    };
    let (bad, good) = (frame(change(bad)), frame(change(good)));
    for _ in 0..3 {
        let opened = opener.open_all(&[bad.clone(), good.clone()]);
        assert!(opened[0].is_err() && opened[1].is_ok());
    }
}
