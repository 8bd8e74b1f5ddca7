//! What replicas and clients say to each other. Each variant says what the sender claims by sending it.
//!
//! Grants, requests and STARTs are signed: they convince third parties. A message is proved before a handler sees it, except
//! for certificates that come with a write: a replica looks at the place they are for first, and at their signatures only if
//! they say something new (pitfalls 5 and 10 of the specification).

use super::cut::{CUT_OBJECTS_MAX, Cut};
use super::object::{List, State};
use super::ordered::{ORDERED_CLIENTS_MAX, Rank};
use crate::pbft::{self, Told};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, ClientKey, Digest, Keyring, Signed, Slot, Statement};
use quorate_core::fault::Fault;
use quorate_core::ids::{ClientId, OpNumber, Position, ReplicaId, RequestNumber, View};
use quorate_core::objects::{Image, Step};
use quorate_core::protocol::Protocol;
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::OPERATION_BYTES_MAX;
use quorate_core::wire::Wire;

/// Bytes of an object's name, at most.
pub const NAME_BYTES_MAX: usize = 64 << 10;
/// Requests under consideration for one object, at most; of each client one.
pub const WRITES_MAX: usize = 16;
/// Buckets into which replicas sort their objects to compare them.
pub const BUCKETS: usize = 256;
/// Versions that one answer lists, at most.
pub const VERSIONS_MAX: usize = 1024;
/// Operations of one write, at most.
pub const OPERATIONS_MAX: usize = 64;
/// Grants that one resolution makes, at most.
pub const GRANTS_MAX: usize = 64;
/// Objects that one operation touches, at most.
pub const OBJECTS_MAX: usize = 128;
/// Bytes of an entry of PBFT that are not names and operations, at most: signature, numbers, lengths.
const ENTRY_REST_BYTES: usize = 1024;

/// Where a write stands in the order of its object: the viewstamp (vs), then the timestamp (ts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Version {
    /// The entry of PBFT that resolved contention for the object last, or that gave it a place in ordered mode; zero before the first.
    pub vs: OpNumber,
    /// The number of the write among all writes of the object, from 1; consecutive, also across resolutions.
    pub ts: Position,
}

/// The object with this name.
pub fn object_of(name: &[u8]) -> Digest {
    Digest::of_parts(&[b"hq object", name])
}

/// For people.
pub fn name_of(name: &[u8]) -> String {
    String::from_utf8_lossy(name).chars().take(40).collect()
}

/// ⟨cid, oid, op#, h⟩: what a client signs of its WRITE-1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ask {
    /// Who asks (cid): the address that belongs to the key that signs.
    pub client: ClientId,
    /// What it is about (oid).
    pub object: Digest,
    /// The number of the request, larger than that of any earlier one of the client (op#).
    pub number: RequestNumber,
    /// Stands for all of it (h).
    pub hash: Digest,
    /// A write that the object had seen when the client asked. Replicas that have forgotten the client refuse what is
    /// older than what they have forgotten: a copy of an old request is never taken for a new one.
    pub after: Position,
}

impl Statement for Ask {
    const DOMAIN: &'static str = "hq/1 write-1";
}

/// WRITE-1: what is to be done to an object, and who wants it. All of it has one place in the object's order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Write {
    /// The object's name.
    pub name: Bytes,
    /// The machine's operations (op), in their order; one at least, and [`OPERATIONS_MAX`] at most.
    pub operations: Vec<Bytes>,
    /// The client's word for it.
    pub ask: Signed<Ask, ClientKey>,
}

impl Write {
    /// What stands for a request: H(cid, op#, oid, op). Two clients that want the same have different ones.
    pub fn hash(client: ClientId, number: RequestNumber, name: &[u8], operations: &[Bytes]) -> Digest {
        let numbers = [client.get().to_le_bytes().as_slice(), &number.get().to_le_bytes()].concat();
        let name_bytes = (name.len() as u64).to_le_bytes();
        Digest::of_parts(&[b"hq write", &numbers, &name_bytes, name, &operations.to_vec().encode()])
    }

    /// Bytes of the name and the operations.
    pub fn bytes(name: &[u8], operations: &[Bytes]) -> usize {
        operations.iter().map(|it| it.len().saturating_add(4)).fold(name.len(), usize::saturating_add)
    }

    /// Is there room for it in an entry of PBFT?
    pub fn fits(name: &[u8], operations: &[Bytes]) -> bool {
        Self::bytes(name, operations).saturating_add(ENTRY_REST_BYTES) <= OPERATION_BYTES_MAX
    }

    /// What the client has signed.
    pub const fn ask(&self) -> &Ask {
        self.ask.statement()
    }

    /// What the machine does with it, at this place of its object's order.
    pub(super) fn step(&self, at: Position) -> Step {
        Step::Apply { object: self.name.clone(), at, operations: self.operations.clone() }
    }

    /// Checks form, then the client's signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let ask = self.ask.statement();
        let some = (1..=OPERATIONS_MAX).contains(&self.operations.len());
        if self.name.len() > NAME_BYTES_MAX || !some || !Self::fits(&self.name, &self.operations) {
            return Err(Fault::Malformed("a write longer than any, or of nothing".to_owned()));
        }
        if ask.object != object_of(&self.name)
            || ask.hash != Self::hash(ask.client, ask.number, &self.name, &self.operations)
        {
            return Err(Fault::Malformed("a write that its client has not signed".to_owned()));
        }
        prove_ask(&mut self.ask, keyring)
    }

    /// The same, if its client's signature was checked.
    ///
    /// # Errors
    /// [`Fault::BadSignature`] if nobody has.
    pub(super) fn proven(self) -> Result<Self, Fault> {
        let ask = self.ask.verified()?.into_signed();
        Ok(Self { ask, ..self })
    }
}

fn prove_ask(ask: &mut Signed<Ask, ClientKey>, keyring: &Keyring) -> Result<(), Fault> {
    if ask.by().is_proxy() || keyring.address(&ask.by()) != ask.statement().client {
        return Err(Fault::BadSignature(Ask::DOMAIN));
    }
    ask.prove(keyring)
}

/// ⟨cid, op#, h⟩: what a client signs of an operation on several objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct OrderedAsk {
    /// Who asks (cid): the address that belongs to the key that signs.
    pub client: ClientId,
    /// The number of the request, larger than that of any earlier one of the client (op#).
    pub number: RequestNumber,
    /// Stands for all of it (h).
    pub hash: Digest,
    /// An entry of PBFT that was ordered when the client asked; zero if it knows of none. As [`Ask::after`].
    pub after: OpNumber,
}

impl Statement for OrderedAsk {
    const DOMAIN: &'static str = "hq/1 ordered";
}

/// ⟨ORDERED, cid, op#, op⟩: an operation on several objects, and who wants it (A.8).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ordered {
    /// The objects' names, in order, each once; two or more. What else the operation touches has no effect.
    pub names: Vec<Bytes>,
    /// The machine's operation (op).
    pub operation: Bytes,
    /// The client's word for it.
    pub ask: Signed<OrderedAsk, ClientKey>,
}

impl Ordered {
    /// What stands for a request: H(cid, op#, oids, op).
    pub fn hash(client: ClientId, number: RequestNumber, names: &[Bytes], operation: &[u8]) -> Digest {
        let numbers = [client.get().to_le_bytes().as_slice(), &number.get().to_le_bytes()].concat();
        Digest::of_parts(&[b"hq ordered", &numbers, &names.to_vec().encode(), operation])
    }

    /// What the client has signed.
    pub const fn ask(&self) -> &OrderedAsk {
        self.ask.statement()
    }

    /// Is there room for it in an entry of PBFT?
    pub fn fits(names: &[Bytes], operation: &[u8]) -> bool {
        let bytes = names.iter().map(|name| name.len().saturating_add(4)).fold(operation.len(), usize::saturating_add);
        names.len() <= OBJECTS_MAX && bytes.saturating_add(ENTRY_REST_BYTES) <= OPERATION_BYTES_MAX
    }

    /// Checks form, then the client's signature.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let ask = *self.ask();
        let in_order = self.names.len() >= 2 && self.names.is_sorted_by(|one, next| one < next);
        let short =
            self.names.iter().all(|name| name.len() <= NAME_BYTES_MAX) && Self::fits(&self.names, &self.operation);
        if !in_order || !short || ask.hash != Self::hash(ask.client, ask.number, &self.names, &self.operation) {
            return Err(Fault::Malformed("an operation on several objects that its client has not signed".to_owned()));
        }
        if self.ask.by().is_proxy() || keyring.address(&self.ask.by()) != ask.client {
            return Err(Fault::BadSignature(OrderedAsk::DOMAIN));
        }
        self.ask.prove(keyring)
    }
}

/// ⟨cid, oid, op#, h, vs, ts⟩: the signer lets this operation, and no other, run on the object at this place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Grant {
    /// Whose operation (cid).
    pub client: ClientId,
    /// On what (oid).
    pub object: Digest,
    /// Its number (op#).
    pub number: RequestNumber,
    /// What it is (h).
    pub hash: Digest,
    /// Its place (vs, ts).
    pub version: Version,
}

impl Statement for Grant {
    const DOMAIN: &'static str = "hq/1 grant";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::new(self.version.vs.get()), op: OpNumber::new(self.version.ts.get()) })
    }

    fn object(&self) -> Option<Digest> {
        Some(self.object)
    }
}

impl Grant {
    /// The grant of this request at this place.
    pub const fn of(ask: &Ask, version: Version) -> Self {
        Self { client: ask.client, object: ask.object, number: ask.number, hash: ask.hash, version }
    }

    /// Is it this request that is granted?
    pub fn is_for(&self, ask: &Ask) -> bool {
        *self == Self::of(ask, self.version)
    }
}

/// A quorum's equal grants: the operation runs at this place, or nothing does.
pub type Proof = Certificate<Grant>;

/// ⟨START, oid, conflictC, ops, currentC⟩: the signer executes nothing on this object until contention is resolved; this is
/// what it has executed and what it has been asked for.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Start {
    /// The object (oid).
    pub object: Digest,
    /// The last resolution of the object that the signer knows.
    pub seen: OpNumber,
    /// The grants that contradict each other (conflictC); none if PBFT has ordered an operation that touches this object and
    /// others.
    pub conflict: Vec<Signed<Grant>>,
    /// The requests under consideration (ops), without the operations themselves.
    pub asks: Vec<Signed<Ask, ClientKey>>,
    /// The proof of the latest write that the signer has executed (currentC), if it has one.
    pub current: Option<Proof>,
    /// How many writes the signer has executed since then ([`Start::seen`]): a measure of calm.
    pub calm: u64,
    /// The entry with which the signer's present life began; zero if it has never lost its disk.
    pub life: OpNumber,
}

impl Statement for Start {
    const DOMAIN: &'static str = "hq/1 start";

    fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let quorum = quorum(keyring)?;
        let malformed = |what: &str| Err(Fault::Malformed(what.to_owned()));
        if self.asks.len() > WRITES_MAX || self.asks.iter().any(|ask| ask.statement().object != self.object) {
            return malformed("a START with too many requests, or another object's");
        }
        if self.current.as_ref().is_some_and(|proof| proof.statement().object != self.object) {
            return malformed("a START with another object's certificate");
        }
        if !self.conflict.is_empty() {
            prove_conflict(&mut self.conflict, keyring)?;
        }
        let of_it = |grant: &Signed<Grant>| {
            (grant.statement().object, grant.statement().version.vs) == (self.object, self.seen)
        };
        if !self.conflict.iter().all(of_it) {
            return malformed("a START with another object's conflict, or one that was resolved");
        }
        self.asks.iter_mut().try_for_each(|ask| prove_ask(ask, keyring))?;
        self.current.iter_mut().try_for_each(|proof| proof.prove(keyring, quorum))
    }
}

/// Where grants contradict each other: a quorum of different replicas grant the same place of one object to different
/// requests (conflictC). `None` if they do not: fewer would let one liar wake PBFT at will (A.7).
pub fn conflict_of(grants: &[Signed<Grant>], quorum: usize) -> Option<(Digest, Version)> {
    let first = grants.first()?.statement();
    let in_order = grants.is_sorted_by(|one, next| one.by() < next.by());
    let one_place = grants.iter().all(|it| {
        let it = it.statement();
        (it.object, it.version) == (first.object, first.version)
    });
    let alike = grants.iter().all(|it| it.statement() == first);
    let enough = grants.len() >= quorum;
    (in_order && one_place && !alike && enough).then_some((first.object, first.version))
}

/// Checks a conflict and its signatures.
pub(super) fn prove_conflict(grants: &mut [Signed<Grant>], keyring: &Keyring) -> Result<(), Fault> {
    if grants.len() > keyring.replicas() || conflict_of(grants, quorum(keyring)?).is_none() {
        return Err(Fault::Malformed("a conflict that is none".to_owned()));
    }
    grants.iter_mut().try_for_each(|grant| grant.prove(keyring))
}

/// READ: a query that changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ReadRequest {
    /// Names the read; never used twice by a client process, so that an old answer is known as one.
    pub nonce: u64,
    /// The object's name; `None`: several objects, whatever they are.
    pub name: Option<Bytes>,
    /// The machine's query.
    pub query: Bytes,
    /// The replica that answers in full; `None`: all do.
    pub full: Option<ReplicaId>,
}

/// An object as a replica has it, for one that is behind.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Transferred {
    /// Its name.
    pub name: Bytes,
    /// The last resolution that it has been through.
    pub seen: OpNumber,
    /// What the protocol knows of it.
    pub now: State,
    /// What the machine has.
    pub image: Image,
    /// Both, before the latest write: a resolution may have to take that back.
    pub before: Option<(State, Image)>,
    /// The list that it is in the middle of, if it is: what follows cannot be computed from what is here.
    pub list: Option<List>,
}

impl Transferred {
    /// Equal where the object is the same. Which signatures prove it does not matter.
    pub fn digest(&self) -> Digest {
        let before = self.before.as_ref().map(|(state, image)| (state.essence(), image.clone()));
        Digest::of(&(self.seen, self.now.essence(), self.image.clone(), before, self.list.clone()).encode())
    }

    /// Equal where the object is the same now, whatever it was before, and whatever resolutions its holder knows of.
    pub(super) fn present(&self) -> Digest {
        Digest::of(&(self.now.essence(), self.image.clone()).encode())
    }

    /// Is this a state between resolutions, which is of use to everybody?
    pub(super) fn is_whole(&self) -> bool {
        self.now.version().vs <= self.seen
    }

    /// Is it in the middle of this resolution's list?
    pub(super) fn is_within(&self, vs: OpNumber) -> bool {
        self.list.as_ref().is_some_and(|list| list.vs == vs)
    }

    fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let (object, quorum) = (object_of(&self.name), quorum(keyring)?);
        self.now.prove(object, keyring, quorum)?;
        let version = self.now.version();
        if self.list.as_ref().is_some_and(|list| version.vs <= self.seen || !list.fits(object, version)) {
            return Err(Fault::Malformed("a list that the object is not in the middle of".to_owned()));
        }
        match &mut self.before {
            Some((state, _)) => state.prove(object, keyring, quorum),
            None => Ok(()),
        }
    }
}

impl State {
    fn prove(&mut self, object: Digest, keyring: &Keyring, quorum: usize) -> Result<(), Fault> {
        let stands = self.proof.as_ref().is_none_or(|proof| {
            (proof.statement().object, proof.statement().version) == (object, self.at) // where it says that it does
        });
        let fits = match (&self.proof, &self.last) {
            (Some(proof), Some(last)) => proof.statement().is_for(last.ask()),
            // The latest was an operation on several objects; or there is none.
            (Some(_), None) => self.joined != Rank::default(),
            (None, None) => self.at == Version::default(),
            // PBFT has given it its place: whoever vouches for the rest vouches for that.
            (None, Some(last)) => last.ask().object == object && self.at.vs > OpNumber::ZERO,
        };
        let fits = fits && stands;
        let is_short =
            self.done.len() <= super::object::CLIENTS_MAX && self.outcomes.len() <= super::object::OUTCOMES_MAX;
        if !fits || !is_short {
            return Err(Fault::Malformed("a state that does not fit its certificate".to_owned()));
        }
        self.proof.iter_mut().try_for_each(|proof| proof.prove(keyring, quorum))?;
        self.last.iter_mut().try_for_each(|write| write.prove(keyring))
    }
}

/// The words of HQ.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client → replica ⟨WRITE-1, cid, oid, op#, op⟩.
    Write1(Write),
    /// Replica → client ⟨WRITE-1-OK, grantTS, currentC⟩: the next place is yours.
    Granted {
        /// My grant of it to you.
        grant: Signed<Grant>,
        /// The proof of the latest write that I have executed.
        current: Option<Proof>,
    },
    /// Replica → client ⟨WRITE-1-REFUSED, grantTS, cid, oid, op#, currentC⟩: the next place is somebody else's.
    Refused {
        /// Which of your requests.
        number: RequestNumber,
        /// My grant of it to somebody else.
        grant: Signed<Grant>,
        /// The proof of the latest write that I have executed.
        current: Option<Proof>,
    },
    /// Replica → client: I have forgotten you, and your request may be older than that. Ask again after this write.
    TooOld {
        /// The object.
        object: Digest,
        /// Which of your requests.
        number: RequestNumber,
        /// The latest write.
        at: Position,
    },
    /// Anybody → replica ⟨WRITE-2, writeC⟩.
    Write2 {
        /// What proves that it may run.
        proof: Proof,
        /// The operation, for a replica that was not asked in phase 1.
        write: Option<Write>,
        /// Does the sender want an answer?
        answer: bool,
    },
    /// Replica → client ⟨WRITE-2-ANS, result, currentC, rid⟩.
    Done {
        /// The object.
        object: Digest,
        /// Which of your requests.
        number: RequestNumber,
        /// What its operations came to, in order; the last ones were not done if there are fewer.
        results: Vec<Bytes>,
        /// Where it was executed.
        version: Version,
        /// The proof of it, if it is still here.
        proof: Option<Proof>,
    },
    /// Client → replica ⟨WRITEBACK-WRITE, writeC, w1⟩: do that write, then consider mine.
    WriteBack {
        /// The write of somebody else.
        proof: Proof,
        /// Mine.
        write: Write,
    },
    /// Client → replica ⟨READ, cid, oid, op, nonce⟩.
    Read(ReadRequest),
    /// Client → replica ⟨WRITEBACK-READ, writeC, r⟩: do that write, then answer.
    WriteBackRead {
        /// The write of somebody else.
        proof: Proof,
        /// The read.
        read: ReadRequest,
    },
    /// Replica → client ⟨READ-ANS, result, nonce, currentC, rid⟩.
    ReadAnswer {
        /// The question's.
        nonce: u64,
        /// The latest write of the object that the answer reflects.
        version: Version,
        /// The machine's answer.
        answer: Told<Bytes>,
        /// The proof of that write.
        proof: Option<Proof>,
    },
    /// Replica → client: PBFT gives the places of this object now, to your request, too.
    InOrder {
        /// The object.
        object: Digest,
        /// Which of your requests.
        number: RequestNumber,
    },
    /// Client → replica: as WRITE-1, from a client that knows of ordered mode.
    Submit(Write),
    /// Client → replica ⟨RESOLVE, conflictC, w1⟩: these grants contradict each other.
    Resolve {
        /// The grants, in the order of their signers.
        conflict: Vec<Signed<Grant>>,
        /// My request.
        write: Write,
    },

    /// Client → replicas ⟨ORDERED, cid, op#, op⟩: an operation on several objects.
    Ordered(Box<Ordered>),
    /// Replica → client: it is on all of its objects here.
    OrderedDone {
        /// Which of your requests.
        number: RequestNumber,
        /// What it came to, in full if I have executed it, and its digest if I have the objects from others; `None` if they have been
        /// through too many others since.
        result: Option<Told<Bytes>>,
    },
    /// Replica → client: I have forgotten you, and your request may be older than that. Ask again after this entry.
    OrderedTooOld {
        /// Which of your requests.
        number: RequestNumber,
        /// The entry.
        at: OpNumber,
    },

    /// Replica → replicas ⟨START, oid, conflictC, ops, currentC, rid⟩.
    Start(Box<Signed<Start>>),
    /// Replica → replicas: my grants of what a resolution has ordered, in order.
    Grants {
        /// The grants.
        grants: Vec<Signed<Grant>>,
        /// I said this before, and lack yours.
        again: bool,
    },
    /// Replica → replicas: send me the operation that this stands for.
    GetWrite {
        /// The object.
        object: Digest,
        /// The operation.
        hash: Digest,
    },
    /// The answer.
    Wrote(Write),
    /// Replica → replicas: send me this object.
    GetObject {
        /// The object.
        object: Digest,
    },
    /// The answer.
    Object(Box<Transferred>),
    /// Replica → replicas: sums over the versions of all my objects.
    Sums {
        /// One for each bucket.
        sums: Vec<u64>,
        /// Tell me yours.
        ask: bool,
    },
    /// Replica → replica: which versions are in your bucket?
    GetVersions {
        /// The bucket.
        bucket: u8,
        /// From after this object on.
        after: Digest,
    },
    /// The answer.
    Versions {
        /// The bucket.
        bucket: u8,
        /// Objects and versions, in order.
        versions: Vec<(Digest, Version)>,
    },
    /// Replica → replicas: send me the cut of PBFT's order at this entry.
    GetCut(OpNumber),
    /// The answer.
    Cut(Box<Cut>),
    /// Replica → replicas: my disk was lost; what have you executed or granted?
    GetExecuted {
        /// Names my life.
        nonce: u64,
        /// From after this object on.
        after: Digest,
    },
    /// The answer.
    Executed {
        /// The question's.
        nonce: u64,
        /// The question's.
        after: Digest,
        /// Of each object the furthest place, in order of the objects.
        places: Vec<(Digest, Version)>,
    },
    /// Replica → itself: everything up to this step is on my disk.
    Steps(OpNumber),
    /// Replica → replica: what PBFT says.
    Module(pbft::Message),
}

impl Message {
    /// Checks form, then signatures, except for certificates that come with a write (see the head of this file).
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let malformed = |what: &str| Err(Fault::Malformed(what.to_owned()));
        match self {
            Message::Write1(write)
            | Message::Submit(write)
            | Message::WriteBack { write, .. }
            | Message::Wrote(write) => write.prove(keyring),
            Message::Resolve { conflict, .. } if conflict.len() > keyring.replicas() => malformed("too many grants"),
            Message::Resolve { write, .. } => write.prove(keyring),
            Message::Granted { grant, .. } | Message::Refused { grant, .. } => grant.prove(keyring),
            Message::Write2 { write, .. } => write.iter_mut().try_for_each(|write| write.prove(keyring)),
            Message::Read(read) | Message::WriteBackRead { read, .. } => {
                if read.query.len() > OPERATION_BYTES_MAX {
                    return malformed("a query longer than any");
                }
                Ok(())
            }
            Message::Ordered(ordered) => ordered.prove(keyring),
            Message::Start(start) => start.prove(keyring),
            Message::Grants { grants, .. } if grants.len() > GRANTS_MAX => malformed("too many grants"),
            Message::Grants { grants, .. } => grants.iter_mut().try_for_each(|grant| grant.prove(keyring)),
            Message::Object(transferred) => transferred.prove(keyring),
            Message::Sums { sums, .. } if sums.len() != BUCKETS => malformed("sums of other buckets"),
            Message::Executed { places, .. } if places.len() > VERSIONS_MAX => malformed("too many places"),
            Message::Versions { versions, .. } if versions.len() > VERSIONS_MAX => malformed("too many versions"),
            Message::Cut(cut) if cut.courses.len() > CUT_OBJECTS_MAX || cut.clients.len() > ORDERED_CLIENTS_MAX => {
                malformed("a cut longer than any")
            }
            Message::Cut(cut) if cut.lives.len() > keyring.replicas() => malformed("a cut with too many lives"),
            Message::Module(message) => message.prove_inside(keyring),
            Message::TooOld { .. }
            | Message::InOrder { .. }
            | Message::OrderedDone { .. }
            | Message::OrderedTooOld { .. }
            | Message::Done { .. }
            | Message::ReadAnswer { .. }
            | Message::GetWrite { .. }
            | Message::GetObject { .. }
            | Message::Sums { .. }
            | Message::GetVersions { .. }
            | Message::Versions { .. }
            | Message::GetCut(_)
            | Message::Cut(_)
            | Message::GetExecuted { .. }
            | Message::Executed { .. }
            | Message::Steps(_) => Ok(()),
        }
    }

    /// The message's name in the paper.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Message::Write1(_) => "Write1",
            Message::Granted { .. } => "Granted",
            Message::Refused { .. } => "Refused",
            Message::TooOld { .. } => "TooOld",
            Message::Write2 { .. } => "Write2",
            Message::Done { .. } => "Done",
            Message::WriteBack { .. } => "WriteBack",
            Message::Read(_) => "Read",
            Message::WriteBackRead { .. } => "WriteBackRead",
            Message::ReadAnswer { .. } => "ReadAnswer",
            Message::InOrder { .. } => "InOrder",
            Message::Submit(_) => "Submit",
            Message::Resolve { .. } => "Resolve",
            Message::Ordered(_) => "Ordered",
            Message::OrderedDone { .. } => "OrderedDone",
            Message::OrderedTooOld { .. } => "OrderedTooOld",
            Message::Start(_) => "Start",
            Message::Grants { .. } => "Grants",
            Message::GetWrite { .. } => "GetWrite",
            Message::Wrote(_) => "Wrote",
            Message::GetObject { .. } => "GetObject",
            Message::Object(_) => "Object",
            Message::Sums { .. } => "Sums",
            Message::GetVersions { .. } => "GetVersions",
            Message::Versions { .. } => "Versions",
            Message::GetCut(_) => "GetCut",
            Message::Cut(_) => "Cut",
            Message::GetExecuted { .. } => "GetExecuted",
            Message::Executed { .. } => "Executed",
            Message::Steps(_) => "Steps",
            Message::Module(message) => pbft::Pbft::label(message),
        }
    }
}

pub(super) fn quorum(keyring: &Keyring) -> Result<usize, Fault> {
    let quorums = ByzantineQuorums::new(keyring.replicas());
    quorums.map(|it| it.quorum()).ok_or_else(|| Fault::Malformed("a group without keys".to_owned()))
}
