//! One object as a replica knows it.

use super::durable::{INSIDE_BYTES_MAX, Kept, LIST_BYTES_MAX, RESULTS_BYTES_MAX, WRITES_BYTES_MAX};
use super::in_order::Due;
use super::message::{Ask, GRANTS_MAX, Grant, Message, Proof, Start, Version, WRITES_MAX, Write};
use super::ordered::Rank;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Certified, ClientKey, Digest, Keyring, Signed, Verified};
use quorate_core::ids::{ClientId, OpNumber, Peer, Position, RecordSeq, ReplicaId, RequestNumber};
use quorate_core::mutated;
use quorate_core::objects::Image;
use std::collections::{BTreeMap, VecDeque};

/// Clients whose last write of one object is remembered; one more, or more bytes of results than [`RESULTS_BYTES_MAX`], and the one
/// that wrote longest ago is forgotten.
pub const CLIENTS_MAX: usize = 64;
/// Messages that wait while an object is busy or frozen, and of them those of one client.
const DELAYED_MAX: usize = 256;
const CLIENT_DELAYED_MAX: usize = 16;

/// What the last write of a client came to (oldops).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Answered {
    /// Its number.
    pub number: RequestNumber,
    /// What its operations came to, in order; the last ones were not done if there are fewer.
    pub results: Vec<Bytes>,
    /// Where it was executed.
    pub version: Version,
    /// The proof, unless this was had from another replica.
    pub proof: Option<Proof>,
}

/// Operations on several objects whose results' digests an object carries, at most; one more, and the one that PBFT ordered first goes.
pub const OUTCOMES_MAX: usize = 16;

/// What an operation on several objects came to, for those who have the object from others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Outcome {
    /// Whose it was.
    pub client: ClientId,
    /// Its number.
    pub number: RequestNumber,
    /// The digest of its result, as [`crate::pbft::Told::digest`] has it.
    pub result: Digest,
}

/// What the protocol knows of an object's state. A function of the writes executed, but for signatures.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct State {
    /// Where the latest write stands; zero before the first.
    pub at: Version,
    /// The proof of the latest write (currentC); `None` before the first, and if PBFT's order is the proof (ordered mode).
    pub proof: Option<Proof>,
    /// The latest write; `None` before the first, and if it was an operation on several objects.
    pub last: Option<Write>,
    /// The latest operation on several objects among its writes; zero before the first.
    pub joined: Rank,
    /// What these came to: the last [`OUTCOMES_MAX`] of them, by their places in PBFT's order.
    pub outcomes: BTreeMap<Rank, Outcome>,
    /// The last write of each client (oldops).
    pub done: BTreeMap<ClientId, Answered>,
    /// Whoever is not in `done` has written nothing after this.
    pub floor: Position,
}

/// The latest write, by what stands for it; one request for each client: its number, its result, its place. What a client may
/// say differently to different replicas ([`Ask::after`]) is not in it.
type Essence = (
    (Version, bool),
    Option<Digest>,
    (Rank, Vec<(Rank, Outcome)>),
    Vec<(ClientId, RequestNumber, Vec<Bytes>, Version)>,
    Position,
);

impl State {
    /// Where the latest write stands.
    pub const fn version(&self) -> Version {
        self.at
    }

    /// Is there a certificate, of this viewstamp, for the latest write? If not, everybody who has been through that entry of PBFT
    /// has it.
    pub(super) fn is_certified_at(&self, vs: OpNumber) -> bool {
        self.at.vs == vs && self.proof.is_some()
    }

    /// What must be equal on all replicas.
    pub(super) fn essence(&self) -> Essence {
        let done = self.done.iter().map(|(client, it)| (*client, it.number, it.results.clone(), it.version));
        let last = self.last.as_ref().map(|write| write.ask().hash);
        let outcomes = self.outcomes.iter().map(|(rank, outcome)| (*rank, *outcome)).collect();
        ((self.at, self.proof.is_some()), last, (self.joined, outcomes), done.collect(), self.floor)
    }

    /// The state after a write. Without a proof: PBFT has given it its place.
    pub(super) fn after(&self, at: Version, proof: Option<Proof>, write: Write, results: Vec<Bytes>) -> Self {
        let ask = *write.ask();
        let mut next = self.clone();
        next.done.insert(ask.client, Answered { number: ask.number, results, version: at, proof: proof.clone() });
        while (next.done.len() > CLIENTS_MAX || next.results_bytes() > RESULTS_BYTES_MAX)
            && let Some(oldest) = next.done.iter().min_by_key(|(_, it)| it.version).map(|(client, _)| *client)
            && oldest != ask.client
            && let Some(forgotten) = next.done.remove(&oldest)
        {
            next.floor = next.floor.max(forgotten.version.ts);
        }
        (next.at, next.proof, next.last) = (at, proof, Some(write));
        next
    }

    /// Of all clients.
    fn results_bytes(&self) -> usize {
        self.done.values().flat_map(|it| &it.results).map(Bytes::len).fold(0, usize::saturating_add)
    }

    /// Was this request executed, or a later one of its client?
    pub(super) fn is_over(&self, ask: &Ask) -> bool {
        let is_over = self.done.get(&ask.client).is_some_and(|it| it.number >= ask.number);
        is_over && !mutated!("hq/executes-a-request-twice")
    }

    /// May this request be one of a client that was forgotten?
    pub(super) fn may_be_over(&self, ask: &Ask) -> bool {
        !self.done.contains_key(&ask.client) && ask.after < self.floor
    }
}

/// Contention that is being resolved, from PBFT's decision on.
#[derive(Debug)]
pub(super) struct Resolving {
    /// The entry of PBFT: the viewstamp of what follows from it.
    pub(super) vs: OpNumber,
    /// What all go to (C).
    pub(super) base: Base,
    /// The requests in the STARTs.
    pub(super) asks: Vec<Signed<Ask, ClientKey>>,
    /// The operations on several objects that have waited for it, in PBFT's order.
    pub(super) ordered: Vec<Item>,
    /// Grants of this resolution, by the place and the signer.
    pub(super) votes: BTreeMap<Version, BTreeMap<ReplicaId, Verified<Grant>>>,
    /// Certificates of its list that others have shown, by the place.
    pub(super) shown: BTreeMap<Version, Proof>,
    /// It ends in ordered mode: L is executed without grants.
    pub(super) in_order: bool,
    /// The list of an earlier resolution, in the middle of which this replica was.
    pub(super) left: Option<List>,
    pub(super) stage: Stage,
}

impl Resolving {
    /// Of this viewstamp, and nothing else is known.
    pub(super) fn new(vs: OpNumber) -> Self {
        let (asks, ordered, votes, shown) = (Vec::new(), Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (base, in_order, left) = (Base::Shown(None), false, None);
        Self { vs, base, asks, ordered, votes, shown, in_order, left, stage: Stage::Reaching }
    }

    /// L, if this replica has come so far.
    pub(super) fn plan(&self) -> Option<&Plan> {
        match &self.stage {
            Stage::Granting(plan) | Stage::Running(plan, _) | Stage::Joining(plan) => Some(plan),
            Stage::Reaching | Stage::Undoing | Stage::Executing(..) => None,
        }
    }

    /// The proof for the operation at this index of L, if a quorum has granted it.
    pub(super) fn proof(&self, plan: &Plan, index: usize, quorum: usize) -> Option<Proof> {
        let version = Version { vs: self.vs, ts: plan.list.first.plus(index as u64) };
        let grant = Grant::of(&plan.list.items.get(index)?.ask, version);
        let counted = self.votes.get(&version);
        let counted = counted.and_then(|votes| Certified::assemble(votes.values(), &grant, quorum));
        let shown = || self.shown.get(&version).filter(|proof| *proof.statement() == grant).cloned();
        counted.map(Certified::into_certificate).or_else(shown)
    }
}

/// C.
#[derive(Debug)]
pub(super) enum Base {
    /// The greatest certificate in the STARTs; `None`: nothing was ever executed.
    Shown(Option<Proof>),
    /// What the object was when it had been through this entry of PBFT: no START shows a write after it.
    Through(OpNumber),
}

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// This replica is not at C yet.
    Reaching,
    /// The machine takes the latest write back.
    Undoing,
    /// The machine executes C.
    Executing(Proof, Write),
    /// L is known: grants are collected for it.
    Granting(Plan),
    /// The machine executes an operation of L.
    Running(Plan, Write),
    /// The machine executes an operation of L on this object and others.
    Joining(Plan),
}

/// An operation in L.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Item {
    /// What is granted.
    pub ask: Ask,
    /// Its place in PBFT's order, if it touches several objects.
    pub ordered: Option<Rank>,
}

/// L: what a resolution does to an object, in order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct List {
    /// The resolution.
    pub vs: OpNumber,
    /// The place of the first operation.
    pub first: Position,
    /// The operations, at most `GRANTS_MAX`.
    pub items: Vec<Item>,
    /// Nobody grants them: they are executed as they stand here, and ordered mode follows.
    pub in_order: bool,
}

impl List {
    /// Is an object at this version in the middle of it, or at its end?
    pub(super) fn fits(&self, object: Digest, version: Version) -> bool {
        let of_it = self.items.iter().all(|item| item.ask.object == object);
        let within = version.vs == self.vs && version.ts >= self.first && self.executed(version) <= self.items.len();
        of_it && within && self.items.len() <= GRANTS_MAX
    }

    /// How many of them are executed where the object is at this version.
    pub(super) fn executed(&self, version: Version) -> usize {
        usize::try_from(version.ts.next().since(self.first)).unwrap_or(usize::MAX)
    }

    /// Is this what is granted of it?
    pub(super) fn has(&self, grant: &Grant) -> bool {
        self.grants().any(|it| it == *grant)
    }

    /// The grants for them.
    pub(super) fn grants(&self) -> impl Iterator<Item = Grant> + '_ {
        let places = (0..).map(|index| Version { vs: self.vs, ts: self.first.plus(index) });
        self.items.iter().zip(places).map(|(item, version)| Grant::of(&item.ask, version))
    }
}

/// L, and how far it is.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) list: List,
    /// My grants for it.
    pub(super) own: Vec<Signed<Grant>>,
    /// How many were executed.
    pub(super) executed: usize,
}

impl Plan {
    pub(super) fn new(list: List, executed: usize, keyring: &Keyring) -> Self {
        let granted = list.grants().filter(|_| !list.in_order);
        let own = granted.map(|grant| keyring.sign(grant)).collect();
        Self { list, own, executed }
    }
}

/// What an object is busy with.
#[derive(Debug)]
pub(super) enum Phase {
    /// Nothing.
    Free,
    /// The machine executes a write; is its client to be answered?
    Writing(Box<(Proof, Write)>, bool),
    /// The machine executes a request that PBFT has ordered (ordered mode).
    InOrder(Box<Due>),
    /// The machine takes what another replica has.
    Taking(Box<super::message::Transferred>),
    /// Nothing is executed until contention is resolved; this was said of it.
    Frozen(Box<Signed<Start>>),
    /// PBFT has decided.
    Resolving(Box<Resolving>),
}

/// An object.
#[derive(Debug)]
pub(super) struct Object {
    /// Empty until somebody has said it.
    pub(super) name: Bytes,
    pub(super) now: State,
    /// Before the latest write: the state, and what the machine had (backupC, prev).
    pub(super) before: Option<(State, Image)>,
    /// The last resolution, or the last entry of ordered mode.
    pub(super) seen: OpNumber,
    /// Where it was when it had been through that. A measure of calm, on which nothing else depends.
    pub(super) freed: Position,
    /// The last request that was executed in ordered mode.
    pub(super) through: Rank,
    /// What PBFT has ordered for it in ordered mode, and is not done here; at most
    /// [`WINDOW_MAX`](super::in_order::WINDOW_MAX).
    pub(super) due: VecDeque<Due>,
    /// The one outstanding grant (grantTS).
    pub(super) grant: Option<Signed<Grant>>,
    /// Requests under consideration (ops), one for each client; at most [`WRITES_BYTES_MAX`] together.
    pub(super) writes: BTreeMap<ClientId, Write>,
    /// Operations that were asked for by what stands for them.
    pub(super) bodies: BTreeMap<Digest, Write>,
    /// Operations of the latest resolution: perhaps nobody else who is correct has them (A.8).
    pub(super) settled: BTreeMap<Digest, Write>,
    /// My grants of the latest resolution that is over here: others may lack them.
    pub(super) granted: Vec<Signed<Grant>>,
    /// A certified write whose operation or whose predecessor is not here, and whether its client waits.
    pub(super) pending: Option<(Proof, bool)>,
    pub(super) phase: Phase,
    /// What PBFT has decided, and has to wait for the machine.
    pub(super) decided: Option<Box<Resolving>>,
    pub(super) delayed: VecDeque<(Peer, Message)>,
    /// The first record that is needed to know all this again.
    pub(super) first: Option<RecordSeq>,
}

impl Object {
    pub(super) fn new(name: Bytes) -> Self {
        Self {
            name,
            now: State::default(),
            before: None,
            seen: OpNumber::ZERO,
            freed: Position::ZERO,
            through: Rank::default(),
            due: VecDeque::new(),
            grant: None,
            writes: BTreeMap::new(),
            bodies: BTreeMap::new(),
            settled: BTreeMap::new(),
            granted: Vec::new(),
            pending: None,
            phase: Phase::Free,
            decided: None,
            delayed: VecDeque::new(),
            first: None,
        }
    }

    pub(super) fn is_free(&self) -> bool {
        matches!(self.phase, Phase::Free) && self.pending.is_none() && self.due.is_empty()
    }

    /// Is the machine at work on it?
    pub(super) fn is_moving(&self) -> bool {
        match &self.phase {
            Phase::Free | Phase::Frozen(_) => false,
            Phase::Writing(..) | Phase::InOrder(_) | Phase::Taking(_) => true,
            Phase::Resolving(it) => {
                matches!(it.stage, Stage::Undoing | Stage::Executing(..) | Stage::Running(..) | Stage::Joining(_))
            }
        }
    }

    /// Is it in the middle of a resolution's list? Whoever takes it takes the list with it: one could not come back to where
    /// the resolution begins, to compute it.
    pub(super) fn is_between(&self) -> bool {
        self.now.version().vs > self.seen
    }

    /// The list that is being carried out, or in the middle of which it is.
    pub(super) fn list(&self) -> Option<&List> {
        let Phase::Resolving(it) = &self.phase else { return None };
        let left = it.left.as_ref().filter(|_| self.is_between());
        it.plan().map(|plan| &plan.list).or(left)
    }

    /// The place after the latest write.
    pub(super) fn next(&self) -> Version {
        Version { vs: self.seen, ts: self.now.version().ts.next() }
    }

    /// The operation that this stands for, if it is here.
    pub(super) fn body(&self, hash: Digest) -> Option<&Write> {
        let before = self.before.as_ref().and_then(|(state, _)| state.last.as_ref());
        let known = self
            .writes
            .values()
            .chain(&self.now.last)
            .chain(before)
            .chain(self.bodies.values())
            .chain(self.settled.values());
        known.into_iter().find(|write| write.ask().hash == hash)
    }

    /// Keeps a request under consideration; of each client the latest, and of two with one number the first. False if it was kept already, or
    /// there is no room.
    pub(super) fn consider(&mut self, write: &Write) -> bool {
        let client = write.ask().client;
        let is_granted = |it: &Write| self.grant.as_ref().is_some_and(|grant| grant.statement().is_for(it.ask()));
        let keep = match self.writes.get(&client) {
            Some(known) => known.ask().number < write.ask().number && !is_granted(known),
            None => self.writes.len() < WRITES_MAX,
        };
        let others = self.writes.iter().filter(|(other, _)| **other != client).map(|(_, other)| other);
        let keep = keep && bytes_of(others.chain([write])) <= WRITES_BYTES_MAX;
        if keep {
            self.writes.insert(client, write.clone());
        }
        keep
    }

    /// Keeps operations of a resolution; where there is no room for those of the one before, they go.
    pub(super) fn settle(&mut self, writes: Vec<Write>) {
        if bytes_of(self.settled.values().chain(&writes)) > LIST_BYTES_MAX {
            self.settled.clear();
        }
        self.settled.extend(writes.into_iter().map(|write| (write.ask().hash, write)));
    }

    /// Keeps a message until the object is free; false if there is no room.
    pub(super) fn delay(&mut self, from: Peer, message: Message) -> bool {
        if self.delayed.iter().any(|known| (known.0, &known.1) == (from, &message)) {
            return true; // said again
        }
        let of_one = self.delayed.iter().filter(|(peer, _)| *peer == from).count();
        if self.delayed.len() >= DELAYED_MAX || of_one >= CLIENT_DELAYED_MAX {
            return false;
        }
        self.delayed.push_back((from, message));
        true
    }

    /// Of what its record has, what needs a record of its own.
    pub(super) fn kept_apart(kept: &mut Kept) -> Option<(Vec<Write>, Vec<Write>)> {
        let is_long = bytes_of(kept.writes.iter().chain(&kept.settled)) > INSIDE_BYTES_MAX;
        is_long.then(|| (std::mem::take(&mut kept.writes), std::mem::take(&mut kept.settled)))
    }

    /// As its record has it.
    pub(super) fn kept(&self, object: Digest, step: Option<(OpNumber, Image)>, upto: OpNumber) -> Kept {
        let frozen = match &self.phase {
            Phase::Frozen(start) => Some(start.statement().clone()),
            _ => None,
        };
        Kept {
            object,
            name: self.name.clone(),
            now: self.now.clone(),
            before: self.before.clone(),
            seen: self.seen,
            freed: self.freed,
            through: self.through,
            grant: self.grant.clone(),
            writes: self.writes.values().cloned().collect(),
            settled: self.settled.values().cloned().collect(),
            granted: self.granted.clone(),
            frozen,
            list: self.list().cloned(),
            step,
            upto,
        }
    }
}

fn bytes_of<'a>(writes: impl IntoIterator<Item = &'a Write>) -> usize {
    let bytes = writes.into_iter().map(|it| Write::bytes(&it.name, &it.operations));
    bytes.fold(0, usize::saturating_add)
}
