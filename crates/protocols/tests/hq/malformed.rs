//! What no handler sees: words whose form or whose signatures are wrong. Each is one lie away from one that is taken.

use crate::harness::{ENVELOPE, keyring};
use crate::words::{N, grant, proof, version, write, write_after};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, ClientKey, Digest, Keyring, Signature, Signed, Statement};
use quorate_core::ids::{ClientId, OpNumber, Position, RequestNumber};
use quorate_core::protocol::Protocol;
use quorate_core::sessions::OPERATION_BYTES_MAX;
use quorate_core::wire::Wire;
use quorate_protocols::hq::{
    Answered, Ask, CLIENTS_MAX, Grant, Hq, Item, List, Message, NAME_BYTES_MAX, OBJECTS_MAX, OUTCOMES_MAX, Ordered,
    OrderedAsk, Outcome, Rank, ReadRequest, Start, State, Transferred, VERSIONS_MAX, Version, WRITES_MAX, Write,
    object_of,
};
use std::collections::BTreeMap;

const BUCKETS: usize = 256;
const GRANTS_MAX: usize = 64;

/// As it comes from the network: nothing is known of its signatures.
fn is_taken(message: &Message) -> bool {
    let mut message = Message::decode(&message.encode()).expect("it has the form of a message");
    Hq::prove(&mut message, &keyring(0, N)).is_ok()
}

fn own(client: u128) -> Keyring {
    Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, N, ClientId::new(client))
}

/// A replica's word with a signature that is none.
fn nonsense<T: Statement + Clone>(of: &Signed<T>) -> Signed<T> {
    Signed::claimed(of.by(), of.statement().clone(), Signature::new([7; 64]))
}

/// A client's.
fn unsigned<T: Statement + Clone>(of: &Signed<T, ClientKey>) -> Signed<T, ClientKey> {
    Signed::claimed(of.by(), of.statement().clone(), Signature::new([7; 64]))
}

// Requests.

#[test]
fn a_request_of_one_object_is_what_its_client_has_signed() {
    let good = write(9, 1, "a=x");
    let taken = |write: &Write| is_taken(&Message::Write1(write.clone()));
    assert!(taken(&good));
    assert!(!taken(&Write { ask: unsigned(&good.ask), ..good.clone() }), "its signature is none");
    let ask = *good.ask();
    let of_b = own(9).sign_as_client(Ask { object: object_of(b"b"), ..ask });
    assert!(!taken(&Write { ask: of_b, ..good.clone() }), "the object is not the name's");
    let eight = ClientId::new(8);
    let hash = Write::hash(eight, ask.number, &good.name, &good.operations);
    let as_eight = own(9).sign_as_client(Ask { client: eight, hash, ..ask });
    assert!(!taken(&Write { ask: as_eight, ..good.clone() }), "the client is not the key's");
    let keys = keyring(1, N);
    let proxy = keys.address(&keys.proxy().expect("a replica's"));
    let hash = Write::hash(proxy, ask.number, &good.name, &good.operations);
    let as_proxy = keys.sign_as_proxy(Ask { client: proxy, hash, ..ask });
    assert!(!taken(&Write { ask: as_proxy, ..good }), "a replica is no client");
}

#[test]
fn an_objects_name_has_its_longest() {
    let long = |bytes: usize| Message::Write1(write(9, 1, &format!("{}=x", "n".repeat(bytes))));
    assert!(is_taken(&long(NAME_BYTES_MAX)) && !is_taken(&long(NAME_BYTES_MAX + 1)));
}

fn across(client: u128, names: &[&str], operation: &str) -> Ordered {
    let names: Vec<Bytes> = names.iter().map(|name| Bytes::from((*name).to_owned())).collect();
    let (operation, number) = (Bytes::from(operation.to_owned()), RequestNumber::new(1));
    let client = ClientId::new(client);
    let hash = Ordered::hash(client, number, &names, &operation);
    let ask = own(client.get()).sign_as_client(OrderedAsk { client, number, hash, after: OpNumber::ZERO });
    Ordered { names, operation, ask }
}

#[test]
fn a_request_of_several_objects_is_what_its_client_has_signed() {
    let taken = |ordered: &Ordered| is_taken(&Message::Ordered(Box::new(ordered.clone())));
    let good = across(9, &["a", "b"], "a+b=x");
    assert!(taken(&good));
    assert!(!taken(&across(9, &["a"], "a=x")), "one object is a write");
    assert!(!taken(&across(9, &["b", "a"], "a+b=x")), "names in their order");
    assert!(!taken(&across(9, &["a", "a"], "a+b=x")), "each once");
    assert!(!taken(&Ordered { ask: unsigned(&good.ask), ..good.clone() }), "its signature is none");
    let ask = *good.ask();
    let client = ClientId::new(8);
    let hash = Ordered::hash(client, ask.number, &good.names, &good.operation);
    let as_eight = own(9).sign_as_client(OrderedAsk { client, hash, ..ask });
    assert!(!taken(&Ordered { ask: as_eight, ..good.clone() }), "the client is not the key's");
    let keys = keyring(1, N);
    let client = keys.address(&keys.proxy().expect("a replica's"));
    let hash = Ordered::hash(client, ask.number, &good.names, &good.operation);
    let as_proxy = keys.sign_as_proxy(OrderedAsk { client, hash, ..ask });
    assert!(!taken(&Ordered { ask: as_proxy, ..good }), "a replica is no client");
}

#[test]
fn a_request_of_several_objects_has_its_longest() {
    let taken = |ordered: Ordered| is_taken(&Message::Ordered(Box::new(ordered)));
    let names: Vec<String> = (0..=OBJECTS_MAX).map(|it| format!("n{it:04}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(taken(across(9, &names[..OBJECTS_MAX], "x")) && !taken(across(9, &names, "x")));
    let long = "n".repeat(NAME_BYTES_MAX + 1);
    assert!(taken(across(9, &["a", &long[1..]], "x")) && !taken(across(9, &["a", &long], "x")));
    let operation = "x".repeat(OPERATION_BYTES_MAX - 100);
    assert!(!taken(across(9, &["a", "b"], &operation)), "it would not fit an entry of PBFT");
}

#[test]
fn a_query_has_its_longest() {
    let read = |bytes: usize| {
        let query = Bytes::from(vec![b'q'; bytes]);
        Message::Read(ReadRequest { nonce: 1, name: None, query, full: None })
    };
    assert!(is_taken(&read(OPERATION_BYTES_MAX)) && !is_taken(&read(OPERATION_BYTES_MAX + 1)));
}

// Grants and STARTs.

#[test]
fn a_grant_to_a_client_is_signed() {
    let good = grant(1, &write(9, 1, "a=x"), version(0, 1));
    let granted = |grant: Signed<Grant>| Message::Granted { grant, current: None };
    assert!(is_taken(&granted(good.clone())) && !is_taken(&granted(nonsense(&good))));
    let resolved = |grants: Vec<Signed<Grant>>| Message::Grants { grants, again: false };
    assert!(is_taken(&resolved(vec![good.clone()])) && !is_taken(&resolved(vec![nonsense(&good)])));
    let many: Vec<_> = (1..=GRANTS_MAX as u64 + 1).map(|ts| grant(1, &write(9, 1, "a=x"), version(5, ts))).collect();
    assert!(is_taken(&resolved(many[1..].to_vec())) && !is_taken(&resolved(many)), "so many, and no more");
}

#[test]
fn a_conflict_has_a_grant_of_each_replica_at_most() {
    let one = write(9, 1, "a=x");
    let resolve = |of: &[usize]| {
        let conflict = of.iter().map(|id| grant(*id, &one, version(0, 1))).collect();
        Message::Resolve { conflict, write: one.clone() }
    };
    assert!(is_taken(&resolve(&[0, 1, 2, 3])), "whether it is one is looked at later");
    assert!(!is_taken(&resolve(&[0, 1, 2, 3, 3])));
}

fn conflict(of: &[(usize, &Write)], vs: u64) -> Vec<Signed<Grant>> {
    of.iter().map(|(id, write)| grant(*id, write, version(vs, 2))).collect()
}

#[test]
fn a_start_proves_what_it_says() {
    let (nine, eight, last) = (write(9, 1, "a=nine"), write(8, 1, "a=eight"), write(7, 1, "a=last"));
    let good = Start {
        object: object_of(b"a"),
        seen: OpNumber::ZERO,
        conflict: conflict(&[(0, &nine), (1, &eight), (2, &nine)], 0),
        asks: vec![nine.ask.clone(), eight.ask.clone()],
        current: Some(proof(&[0, 1, 2], &last, version(0, 1))),
        calm: 0,
        life: OpNumber::ZERO,
    };
    let taken = |start: Start| is_taken(&Message::Start(Box::new(keyring(1, N).sign(start))));
    assert!(taken(good.clone()));
    assert!(!is_taken(&Message::Start(Box::new(nonsense(&keyring(1, N).sign(good.clone()))))), "its signature");
    let asks = |count: usize| (0..count).map(|it| write(100 + it as u128, 1, "a=x").ask).collect::<Vec<_>>();
    assert!(taken(Start { asks: asks(WRITES_MAX), ..good.clone() }));
    assert!(!taken(Start { asks: asks(WRITES_MAX + 1), ..good.clone() }), "too many requests");
    let (of_b, other_b) = (write(9, 1, "b=nine"), write(8, 1, "b=eight"));
    assert!(!taken(Start { asks: vec![of_b.ask.clone()], ..good.clone() }), "another object's request");
    assert!(!taken(Start { asks: vec![unsigned(&nine.ask)], ..good.clone() }), "a request that nobody has signed");
    let current = |of: &[usize], write: &Write| Some(proof(of, write, version(0, 1)));
    assert!(!taken(Start { current: current(&[0, 1, 2], &of_b), ..good.clone() }), "another object's certificate");
    assert!(!taken(Start { current: current(&[0, 1], &last), ..good.clone() }), "a certificate of too few");
    let with = |conflict: Vec<Signed<Grant>>| Start { conflict, ..good.clone() };
    assert!(!taken(with(conflict(&[(0, &nine), (1, &nine), (2, &nine)], 0))), "a conflict that is none");
    let forged = conflict(&[(0, &nine), (1, &eight), (2, &nine)], 0).iter().map(nonsense).collect();
    assert!(!taken(with(forged)), "a conflict that nobody has signed");
    let on_b = conflict(&[(0, &of_b), (1, &other_b), (2, &of_b)], 0);
    assert!(!taken(with(on_b)), "another object's conflict");
    assert!(!taken(with(conflict(&[(0, &nine), (1, &eight), (2, &nine)], 5))), "another resolution's conflict");
    assert!(taken(with(Vec::new())), "PBFT may have ordered an operation on several objects");
}

// Objects.

fn state(write: &Write, at: Version) -> State {
    let (proof, last) = (Some(proof(&[0, 1, 2], write, at)), Some(write.clone()));
    State { at, proof, last, ..State::default() }
}

fn transferred(now: State, before: Option<State>) -> Transferred {
    let name = Bytes::from_static(b"a");
    let before = before.map(|state| (state, None));
    Transferred { name, seen: OpNumber::ZERO, now, image: None, before, list: None }
}

#[test]
fn an_object_fits_its_certificate() {
    let (one, two) = (write(9, 1, "a=one"), write(9, 2, "a=two"));
    let at = version(0, 2);
    let good = state(&two, at);
    let both = |state: &State| {
        // What is said of an object before its latest write is looked at as what is said of it now.
        let now = is_taken(&Message::Object(Box::new(transferred(state.clone(), None))));
        let before = transferred(self::state(&write(9, 3, "a=three"), version(0, 3)), Some(state.clone()));
        assert_eq!(now, is_taken(&Message::Object(Box::new(before))));
        now
    };
    assert!(both(&good) && both(&State::default()));
    let of_b = write(9, 2, "b=two");
    assert!(!both(&state(&of_b, at)), "another object's");
    assert!(!both(&State { at: version(0, 3), ..good.clone() }), "it stands where its certificate says");
    assert!(!both(&State { last: Some(one), ..good.clone() }), "another write than its certificate's");
    assert!(!both(&State { proof: Some(proof(&[0, 1], &two, at)), ..good.clone() }), "a certificate of too few");
    let unsigned = Write { ask: unsigned(&two.ask), ..two.clone() };
    assert!(!both(&State { last: Some(unsigned), ..good.clone() }), "a request that nobody has signed");
    assert!(!both(&State { last: None, ..good.clone() }), "no write, and none of several objects");
    let rank = Rank { entry: OpNumber::new(3), index: 0 };
    assert!(both(&State { last: None, joined: rank, ..good.clone() }), "one of several objects");
    assert!(!both(&State { at, ..State::default() }), "a place without a write");
    assert!(!both(&State { proof: None, ..good.clone() }), "without a certificate PBFT has given the place");
    let in_order = State { at: version(4, 2), proof: None, ..good.clone() };
    assert!(both(&in_order));
    assert!(!both(&State { last: Some(of_b), ..in_order }), "another object's write");
}

#[test]
fn an_object_remembers_so_many_and_no_more() {
    let good = state(&write(9, 1, "a=x"), version(0, 1));
    let taken = |state: State| is_taken(&Message::Object(Box::new(transferred(state, None))));
    let done = |count: usize| -> BTreeMap<ClientId, Answered> {
        let one = Answered { number: RequestNumber::new(1), results: Vec::new(), version: version(0, 1), proof: None };
        (0..count).map(|it| (ClientId::new(it as u128), one.clone())).collect()
    };
    assert!(taken(State { done: done(CLIENTS_MAX), ..good.clone() }));
    assert!(!taken(State { done: done(CLIENTS_MAX + 1), ..good.clone() }));
    let outcomes = |count: usize| -> BTreeMap<Rank, Outcome> {
        let (client, number) = (ClientId::new(1), RequestNumber::new(1));
        let one = Outcome { client, number, result: Digest::ZERO };
        (0..count).map(|it| (Rank { entry: OpNumber::new(it as u64), index: 0 }, one)).collect()
    };
    assert!(taken(State { outcomes: outcomes(OUTCOMES_MAX), ..good.clone() }));
    assert!(!taken(State { outcomes: outcomes(OUTCOMES_MAX + 1), ..good }));
}

#[test]
fn a_list_is_one_that_the_object_is_in_the_middle_of() {
    let item = |operation: &str| Item { ask: *write_after(9, 4, operation, 3).ask(), ordered: None };
    let now = state(&write_after(9, 4, "a=four", 3), version(5, 4));
    let list = |vs: u64, first: u64, items: Vec<Item>| List {
        vs: OpNumber::new(vs),
        first: Position::new(first),
        items,
        in_order: false,
    };
    let with = |seen: u64, list: List| {
        let it = Transferred { seen: OpNumber::new(seen), list: Some(list), ..transferred(now.clone(), None) };
        is_taken(&Message::Object(Box::new(it)))
    };
    let two = || vec![item("a=four"), item("a=five")];
    assert!(with(3, list(5, 4, two())));
    assert!(!with(5, list(5, 4, two())), "it has been through it");
    assert!(!with(3, list(6, 4, two())), "another resolution's");
    assert!(!with(3, list(5, 5, two())), "it begins later");
    assert!(!with(3, list(5, 3, vec![item("a=three")])), "it ends before");
    assert!(!with(3, list(5, 4, vec![item("a=four"), item("b=five")])), "an item of another object");
    assert!(with(3, list(5, 4, vec![item("a=four"); GRANTS_MAX])));
    assert!(!with(3, list(5, 4, vec![item("a=four"); GRANTS_MAX + 1])), "longer than any");
}

#[test]
fn sums_and_versions_are_as_many_as_they_are() {
    let sums = |count: usize| Message::Sums { sums: vec![0; count], ask: false };
    assert!(is_taken(&sums(BUCKETS)) && !is_taken(&sums(BUCKETS + 1)) && !is_taken(&sums(BUCKETS - 1)));
    let versions = |count: usize| Message::Versions { bucket: 0, versions: vec![(Digest::ZERO, version(0, 1)); count] };
    assert!(is_taken(&versions(VERSIONS_MAX)) && !is_taken(&versions(VERSIONS_MAX + 1)));
}

#[test]
fn a_certificate_is_of_one_statement() {
    // What is signed for another place is no signature for this one.
    let one = write(9, 1, "a=one");
    let other = proof(&[0, 1, 2], &one, version(0, 1));
    let moved = Grant { version: version(0, 2), ..*other.statement() };
    let lie = Certificate::claimed(moved, other.signatures().to_vec());
    let now = State { at: version(0, 2), proof: Some(lie), last: Some(one), ..State::default() };
    assert!(!is_taken(&Message::Object(Box::new(transferred(now, None)))));
}
