//! What a signature proves, and what it does not.

use borsh::{BorshDeserialize, BorshSerialize};
use quorate_core::crypto::{
    Certificate, Certified, ClientKey, Evidence, Keyring, KeyringError, PublicKey, Secret, Signature, Signed, Slot,
    Statement, Verified,
};
use quorate_core::fault::{Fault, Ledger};
use quorate_core::ids::{ClientId, ClusterId, Epoch, OpNumber, Peer, ReplicaId, View};
use quorate_core::wire::Wire;

#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Vote {
    view: View,
    op: OpNumber,
    digest: u64,
}

impl Statement for Vote {
    const DOMAIN: &'static str = "test/1 vote";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: self.op })
    }
}

/// The same bytes in another phase.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Other(Vote);

impl Statement for Other {
    const DOMAIN: &'static str = "test/1 other";
}

const CLUSTER: ClusterId = ClusterId::new(7);

fn id(raw: u8) -> ReplicaId {
    ReplicaId::new(raw)
}

fn vote(op: u64, digest: u64) -> Vote {
    Vote { view: View::new(3), op: OpNumber::new(op), digest }
}

fn secret(raw: u8) -> Secret {
    Secret::from_seed([raw; 32])
}

fn real_of(cluster: ClusterId, epoch: Epoch, me: u8) -> Keyring {
    let replicas: Vec<PublicKey> = (0..4).map(|raw| secret(raw).public()).collect();
    let keyring = Keyring::ed25519(cluster, epoch, &replicas, &[secret(100).public()]).expect("good keys");
    keyring.of_replica(id(me), secret(me)).expect("its own secret")
}

fn real(me: u8) -> Keyring {
    real_of(CLUSTER, Epoch::ZERO, me)
}

fn simulated(me: u8) -> Keyring {
    Keyring::simulated_replica(CLUSTER, Epoch::ZERO, 4, id(me))
}

/// Every rule holds under both schemes.
fn under_both(test: impl Fn(&dyn Fn(u8) -> Keyring)) {
    test(&real);
    test(&simulated);
}

/// As it arrives at somebody else.
fn sent<T: Statement>(signed: &Signed<T>) -> Signed<T> {
    Signed::decode(&signed.encode()).expect("its own encoding")
}

fn verified(keyring: &Keyring, statement: Vote) -> Verified<Vote> {
    keyring.sign(statement).verified().expect("one's own statement")
}

#[test]
fn what_one_replica_signs_every_other_can_check_and_use() {
    under_both(|keyring| {
        let mut arrived = sent(&keyring(1).sign(vote(5, 9)));
        assert!(arrived.clone().verified().is_err(), "nobody has checked it");
        arrived.prove(&keyring(2)).expect("a good signature");
        let believed = arrived.verified().expect("checked");
        assert_eq!((believed.by(), believed.statement()), (id(1), &vote(5, 9)));
    });
}

#[test]
fn that_a_signature_was_checked_does_not_travel() {
    under_both(|keyring| {
        let mut arrived = sent(&keyring(1).sign(vote(5, 9)));
        arrived.prove(&keyring(2)).expect("a good signature");
        assert!(sent(&arrived).verified().is_err());
    });
}

#[test]
fn a_signature_holds_for_no_other_statement_signer_phase_cluster_or_epoch() {
    under_both(|keyring| {
        let signed = keyring(1).sign(vote(5, 9));
        let refused = |mut it: Signed<Vote>, by: &Keyring| assert!(it.prove(by).is_err(), "{it:?}");
        refused(Signed::claimed(id(1), vote(5, 8), *signed.signature()), &keyring(2));
        refused(Signed::claimed(id(3), vote(5, 9), *signed.signature()), &keyring(2));
        refused(Signed::claimed(id(1), vote(5, 9), Signature::new([0; 64])), &keyring(2));
        refused(Signed::claimed(id(200), vote(5, 9), *signed.signature()), &keyring(2));
        let mut other = Signed::claimed(id(1), Other(vote(5, 9)), *signed.signature());
        assert_eq!(other.prove(&keyring(2)), Err(Fault::BadSignature("test/1 other")));
    });
    let signed = real(1).sign(vote(5, 9));
    assert!(sent(&signed).prove(&real_of(ClusterId::new(8), Epoch::ZERO, 2)).is_err());
    assert!(sent(&signed).prove(&real_of(CLUSTER, Epoch::new(1), 2)).is_err());
}

#[test]
fn a_keyring_takes_no_key_twice_and_no_strangers_secret() {
    let keys: Vec<PublicKey> = [1, 2, 1].map(|raw| secret(raw).public()).to_vec();
    let shared = Keyring::ed25519(CLUSTER, Epoch::ZERO, &keys, &[]).err();
    assert_eq!(shared, Some(KeyringError::SharedKey(id(0), id(2))));
    let keyring = Keyring::ed25519(CLUSTER, Epoch::ZERO, &keys[..2], &[]).expect("good keys");
    assert_eq!(keyring.of_replica(id(0), secret(9)).err(), Some(KeyringError::NotMine(id(0))));
    let no_point = PublicKey::new(std::array::from_fn(|index| if index == 0 { 2 } else { 0 }));
    assert_eq!(Keyring::ed25519(CLUSTER, Epoch::ZERO, &[no_point], &[]).err(), Some(KeyringError::NoKey(id(0))));
}

#[test]
fn only_a_clients_key_signs_for_its_address() {
    let replica = real(1);
    let keyring = |raw, nonce| {
        let keys = Keyring::ed25519(CLUSTER, Epoch::ZERO, &[], &[]).expect("no keys");
        keys.of_client(nonce, secret(raw))
    };
    let client = keyring(100, 5);
    let mut signed = client.sign_as_client(vote(1, 1));
    signed = Signed::claimed(signed.by(), vote(1, 1), *signed.signature());
    signed.prove(&replica).expect("a client that the replica knows");
    let address = client.client().expect("a client").client();
    assert_ne!(address, keyring(100, 6).client().expect("a client").client(), "each process has its own address");
    assert_ne!(address, keyring(101, 5).client().expect("a client").client(), "each key has its own addresses");
    let stranger = keyring(101, 5).sign_as_client(vote(1, 1));
    let mut stranger = Signed::claimed(stranger.by(), vote(1, 1), *stranger.signature());
    assert!(stranger.prove(&replica).is_err(), "nobody has told the replica of this key");
    let mut stolen = Signed::claimed(ClientKey { nonce: 6, ..signed.by() }, vote(1, 1), *signed.signature());
    assert!(stolen.prove(&replica).is_err(), "the address is signed too");
}

#[test]
fn in_a_simulated_world_clients_have_the_addresses_that_they_are_given() {
    let client = Keyring::simulated_client(CLUSTER, Epoch::ZERO, 4, ClientId::new(42 << 96));
    let signed = client.sign_as_client(vote(1, 1));
    let mut signed = Signed::claimed(signed.by(), vote(1, 1), *signed.signature());
    signed.prove(&simulated(2)).expect("a good signature");
    assert_eq!(simulated(2).address(&signed.by()), ClientId::new(42 << 96));
    let mut other = Signed::claimed(ClientKey { nonce: 1, ..signed.by() }, vote(1, 1), *signed.signature());
    assert!(other.prove(&simulated(2)).is_err());
}

#[test]
fn a_certificate_holds_the_same_statement_of_a_quorum_of_different_members() {
    under_both(|keyring| {
        let votes: Vec<_> = (0..3).map(|raw| verified(&keyring(raw), vote(5, 9))).collect();
        assert_eq!(Certified::assemble(&votes[..2], &vote(5, 9), 3), None);
        let repeated = [&votes[0], &votes[1], &votes[1]];
        assert_eq!(Certified::assemble(repeated, &vote(5, 9), 3), None, "one signer counts once");
        let other = verified(&keyring(2), vote(5, 8));
        assert_eq!(Certified::assemble([&votes[0], &votes[1], &other], &vote(5, 9), 3), None);
        let whole = Certified::assemble(&votes, &vote(5, 9), 3).expect("three agree");
        let mut arrived = Certificate::<Vote>::decode(&whole.certificate().encode()).expect("its own encoding");
        assert!(arrived.clone().certified(3).is_err(), "nobody has checked it");
        arrived.prove(&keyring(3), 3).expect("good signatures");
        assert!(arrived.clone().certified(4).is_err());
        assert_eq!(arrived.certified(3), Ok(whole));
    });
}

#[test]
fn a_certificate_with_a_duplicate_unknown_disordered_or_bad_signer_or_too_few_is_refused() {
    under_both(|keyring| {
        let signed: Vec<_> = (0..3).map(|raw| (id(raw), *keyring(raw).sign(vote(5, 9)).signature())).collect();
        let refused = |signatures: Vec<(ReplicaId, Signature)>| {
            let mut certificate = Certificate::claimed(vote(5, 9), signatures.clone());
            assert!(certificate.prove(&keyring(3), 3).is_err(), "{signatures:?}");
        };
        refused(vec![signed[0], signed[1]]);
        refused(vec![signed[0], signed[1], signed[1]]);
        refused(vec![signed[1], signed[0], signed[2]]);
        refused(vec![signed[0], signed[1], (id(4), signed[2].1)]);
        refused(vec![signed[0], signed[1], (id(3), signed[2].1)]);
        refused(Vec::new());
        assert!(Certificate::claimed(vote(5, 8), signed.clone()).prove(&keyring(3), 3).is_err());
        assert!(Certificate::claimed(vote(5, 9), signed).prove(&keyring(3), 3).is_ok());
    });
}

#[test]
fn two_statements_in_one_slot_are_evidence_that_others_can_check() {
    let (first, second) = (verified(&real(1), vote(5, 9)), verified(&real(1), vote(5, 8)));
    assert_eq!(Evidence::of(&first, &first), None);
    assert_eq!(Evidence::of(&first, &verified(&real(1), vote(6, 8))), None, "another slot");
    assert_eq!(Evidence::of(&first, &verified(&real(2), vote(5, 8))), None, "another signer");
    let evidence = Evidence::of(&first, &second).expect("a contradiction");
    assert_eq!(evidence.accused(), id(1));
    let (mut one, mut other) = evidence.statements::<Vote>().expect("statements of this kind");
    assert!(one.prove(&real(3)).is_ok() && other.prove(&real(3)).is_ok());
    let mut ledger = Ledger::default();
    ledger.blame(Peer::Replica(id(1)), evidence.clone().into());
    assert_eq!(ledger.proofs().get(&id(1)), Some(&evidence));
}

/// A statement that comes again inside what others say.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Passed(u64);

impl Statement for Passed {
    const DOMAIN: &'static str = "test/1 passed on";
    const COMES_AGAIN: bool = true;
}

#[test]
fn a_signature_that_comes_again_is_checked_once_and_no_other_one_passes_for_it() {
    under_both(|keyring| {
        let (signer, receiver) = (keyring(1), keyring(2));
        let good = signer.sign(Passed(7));
        for _ in 0..3 {
            assert_eq!(sent(&good).prove(&receiver), Ok(()));
        }
        let bad = Err(Fault::BadSignature(Passed::DOMAIN));
        for _ in 0..2 {
            let signature = *good.signature();
            assert_eq!(Signed::claimed(id(1), Passed(8), signature).prove(&receiver), bad, "another statement");
            assert_eq!(Signed::claimed(id(0), Passed(7), signature).prove(&receiver), bad, "another signer");
            assert_eq!(Signed::claimed(id(9), Passed(7), signature).prove(&receiver), bad, "a stranger");
            let mut bytes = *signature.as_bytes();
            bytes[9] ^= 1;
            assert_eq!(Signed::claimed(id(1), Passed(7), Signature::new(bytes)).prove(&receiver), bad);
        }
    });
    let (signer, receiver) = (simulated(1), simulated(2));
    let (good, bad) = (signer.sign(Passed(7)), Signed::claimed(id(1), Passed(8), Signature::new([0; 64])));
    let checked = |it: &Signed<Passed>| {
        let before = receiver.work().checked;
        let _result = sent(it).prove(&receiver);
        receiver.work().checked - before
    };
    assert_eq!([checked(&good), checked(&good), checked(&good)], [1, 0, 0]);
    assert_eq!([checked(&bad), checked(&bad)], [1, 1], "bad ones are not remembered");
    let before = signer.work().checked;
    assert_eq!(sent(&good).prove(&signer), Ok(()));
    assert_eq!(signer.work().checked, before, "one's own comes back");
    let votes = signer.sign(vote(1, 1));
    let before = receiver.work().checked;
    (0..2).for_each(|_| assert_eq!(sent(&votes).prove(&receiver), Ok(())));
    assert_eq!(receiver.work().checked, before + 2, "what does not come again is not remembered");
}
