//! What liars say, signed with their own keys.

use crate::harness::{ENVELOPE, keyring};
use bytes::Bytes;
use quorate_core::crypto::{Certified, Digest, Keyring, Signed, Verified};
use quorate_core::ids::{ClientId, OpNumber, Position, RequestNumber};
use quorate_protocols::hq::{Ask, Grant, Ordered, OrderedAsk, Proof, Version, Write, object_of};

pub const N: usize = 4;

/// A client's request, signed by it.
pub fn write(client: u128, number: u64, operation: &str) -> Write {
    write_after(client, number, operation, 0)
}

/// The same, made after the object's write of this number.
pub fn write_after(client: u128, number: u64, operation: &str, after: u64) -> Write {
    request(client, number, &[operation], after)
}

/// Several operations, of the first one's object, as one write.
pub fn together(client: u128, number: u64, operations: &[&str]) -> Write {
    request(client, number, operations, 0)
}

fn request(client: u128, number: u64, operations: &[&str], after: u64) -> Write {
    let (name, _) = operations.first().and_then(|it| it.split_once('=')).unwrap_or(("a", ""));
    let name = Bytes::from(name.to_owned());
    let operations: Vec<_> = operations.iter().map(|it| Bytes::from((*it).to_owned())).collect();
    let id = ClientId::new(client);
    let hash = Write::hash(id, RequestNumber::new(number), &name, &operations);
    let ask = Ask {
        client: id,
        object: object_of(&name),
        number: RequestNumber::new(number),
        hash,
        after: Position::new(after),
    };
    let keyring = Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, N, id);
    Write { name, operations, ask: keyring.sign_as_client(ask) }
}

/// A client's operation on several objects, signed by it.
pub fn ordered(client: u128, number: u64, operation: &str) -> Ordered {
    ordered_after(client, number, operation, 0)
}

/// The same, of a client that knows of this entry of PBFT.
pub fn ordered_after(client: u128, number: u64, operation: &str, after: u64) -> Ordered {
    let (names, _) = operation.split_once('=').expect("object+object=word");
    let mut names: Vec<Bytes> = names.split('+').map(|name| Bytes::from(name.to_owned())).collect();
    names.sort();
    let operation = Bytes::from(operation.to_owned());
    let (id, number) = (ClientId::new(client), RequestNumber::new(number));
    let hash = Ordered::hash(id, number, &names, &operation);
    let keyring = Keyring::simulated_client(ENVELOPE.cluster, ENVELOPE.epoch, N, id);
    let ask = keyring.sign_as_client(OrderedAsk { client: id, number, hash, after: OpNumber::new(after) });
    Ordered { names, operation, ask }
}

pub const fn version(vs: u64, ts: u64) -> Version {
    Version { vs: OpNumber::new(vs), ts: Position::new(ts) }
}

/// A replica's grant.
pub fn grant(replica: usize, write: &Write, version: Version) -> Signed<Grant> {
    keyring(replica, N).sign(Grant::of(write.ask(), version))
}

/// The grants of these replicas as a certificate, however few they are.
pub fn proof(replicas: &[usize], write: &Write, version: Version) -> Proof {
    let grants: Vec<Verified<Grant>> =
        replicas.iter().map(|it| grant(*it, write, version).verified().expect("it is our own")).collect();
    let statement = Grant::of(write.ask(), version);
    Certified::assemble(&grants, &statement, replicas.len()).expect("all say the same").into_certificate()
}

/// Another digest.
pub fn other(digest: Digest) -> Digest {
    Digest::of(digest.as_bytes())
}
