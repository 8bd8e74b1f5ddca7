//! What replicas and clients say to each other. Each variant says what the sender claims by sending it.
//!
//! Whatever must convince a third party is a signed [`Statement`]; its domain names protocol, version and phase. The rest
//! relies on the link.

use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, ClientKey, Digest, Keyring, Signed, Slot, Statement};
use quorate_core::fault::Fault;
use quorate_core::ids::{ClientId, OpNumber, ReplicaId, RequestNumber, SessionId, View};
use quorate_core::mutated;
use quorate_core::protocol::{Checkpoint, Consistency};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::{Batch, Body, OPERATION_BYTES_MAX, Ruling};
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use std::io;
use std::sync::Arc;

use super::WINDOW_ENTRIES_MAX;

/// Requests in one group, and in one entry, at most.
pub const REQUESTS_MAX: usize = 1024;
/// Bytes of one entry's proposal at most: several groups of usual size, or one of the largest.
pub const PROPOSAL_BYTES_MAX: usize = 2 * OPERATION_BYTES_MAX;
/// Proposals that one `GetProposals` asks for at most.
pub const WANTED_MAX: usize = 64;
/// Views and entries beyond this are nobody's: it leaves room to count on, whatever a peer says.
const NUMBER_MAX: u64 = 1 << 62;

/// A client's requests, signed once for all of them. Their operations together are no longer than the longest may be.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Requests {
    /// Who asks (c): the address that belongs to the key that signs.
    pub client: ClientId,
    /// The client's session; zero to open one.
    pub session: SessionId,
    /// The client knows the answers up to and including this one.
    pub acknowledged: RequestNumber,
    /// The replica that answers in full; the others send digests. `None`: all do.
    pub full: Option<ReplicaId>,
    /// Number (t) and operation (o) of each.
    pub requests: Vec<(RequestNumber, Body)>,
}

impl Statement for Requests {
    const DOMAIN: &'static str = "pbft/1 requests";
}

/// Requests with their client's signature: what is ordered, as a whole.
pub type Group = Signed<Requests, ClientKey>;

/// ⟨v, n, d⟩: the signer has accepted this digest, and no other, as entry n of view v (Castro and Liskov §4.2). The
/// primary's own is the PRE-PREPARE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Prepare {
    /// The view (v).
    pub view: View,
    /// The entry (n).
    pub op: OpNumber,
    /// The proposal (d).
    pub digest: Digest,
}

impl Statement for Prepare {
    const DOMAIN: &'static str = "pbft/1 prepare";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: self.op })
    }
}

/// ⟨v, n, d⟩: the signer holds a certificate that the entry is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Commit {
    /// The view (v).
    pub view: View,
    /// The entry (n).
    pub op: OpNumber,
    /// The proposal (d).
    pub digest: Digest,
}

impl Statement for Commit {
    const DOMAIN: &'static str = "pbft/1 commit";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: self.op })
    }
}

/// ⟨n, d⟩ (§4.3): the signer has executed everything up to entry n, and holds it on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct LogCheckpoint {
    /// The entry (n).
    pub op: OpNumber,
    /// The chain of the digests of all proposals up to it: equal where the same was executed in the same order.
    pub chain: Digest,
}

impl Statement for LogCheckpoint {
    const DOMAIN: &'static str = "pbft/1 checkpoint";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: self.op })
    }
}

/// The signer has the state at this entry on its disk, and serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateCheckpoint {
    /// The entry, and the digest of state, sessions with replies, and history.
    pub checkpoint: Checkpoint,
    /// As in [`LogCheckpoint`].
    pub chain: Digest,
}

impl Statement for StateCheckpoint {
    const DOMAIN: &'static str = "pbft/1 state";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: self.checkpoint.op })
    }
}

/// ⟨v, h, C, P⟩ (§4.4): the signer has left all lower views; this is what it prepared.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct ViewChange {
    /// The view to change to.
    pub view: View,
    /// The last stable checkpoint (h, C); `None` before the first.
    pub stable: Option<Certificate<LogCheckpoint>>,
    /// For each entry above it that was prepared, the certificate of the highest view (P), in the order of the entries.
    pub prepared: Vec<Certificate<Prepare>>,
}

impl ViewChange {
    /// The last stable checkpoint's entry (h).
    pub fn low(&self) -> OpNumber {
        self.stable.as_ref().map_or(OpNumber::ZERO, |stable| stable.statement().op)
    }

    /// Why no correct replica sends it, apart from signatures.
    fn check(&self) -> Option<String> {
        let (low, high) = (self.low(), self.low().plus(WINDOW_ENTRIES_MAX));
        let ops = self.prepared.iter().map(|it| it.statement().op);
        if !ops.clone().is_sorted_by(|one, next| one < next) || ops.clone().any(|op| op <= low || op > high) {
            return Some("its certificates are not of entries of one window, in order".to_owned());
        }
        if self.prepared.iter().any(|it| it.statement().view >= self.view) {
            return Some("it has prepared in the view that it changes to, or later".to_owned());
        }
        None
    }
}

impl Statement for ViewChange {
    // No slot: between two attempts at one view the stable checkpoint may move, and the certificates with it.
    const DOMAIN: &'static str = "pbft/1 view change";

    fn heavy(&self) -> Option<View> {
        Some(self.view)
    }

    fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let quorum = quorum(keyring)?;
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what));
        }
        self.stable.iter_mut().try_for_each(|stable| stable.prove(keyring, quorum))?;
        self.prepared.iter_mut().try_for_each(|prepared| prepared.prove(keyring, quorum))
    }
}

/// ⟨v, V, O⟩ (§4.4): the view has started.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct NewView {
    /// The view.
    pub view: View,
    /// A quorum's view changes (V), in the order of their signers.
    pub changes: Vec<Signed<ViewChange>>,
    /// The primary's PRE-PREPAREs for what follows from them (O), in the order of the entries.
    pub proposals: Vec<Signed<Prepare>>,
}

impl Statement for NewView {
    const DOMAIN: &'static str = "pbft/1 new view";

    fn slot(&self) -> Option<Slot> {
        None // the choice of V is the primary's; what may not differ are the votes in O
    }

    fn heavy(&self) -> Option<View> {
        Some(self.view)
    }

    fn vouched(&self, keyring: &Keyring) -> Result<(), Fault> {
        let quorum = quorum(keyring)?;
        let in_order = self.changes.is_sorted_by(|one, next| one.by() < next.by());
        if !in_order || self.changes.len() != quorum || self.changes.iter().any(|it| it.statement().view != self.view) {
            return Err(Fault::Malformed("a new view without a quorum of view changes".to_owned()));
        }
        self.changes.iter().try_for_each(|change| change.claims(keyring))
    }

    fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if self.proposals.len() as u64 > WINDOW_ENTRIES_MAX {
            return Err(Fault::Malformed("a new view of more than a window".to_owned()));
        }
        self.changes.iter_mut().try_for_each(|change| change.prove_part(keyring))?;
        self.proposals.iter_mut().try_for_each(|vote| vote.prove(keyring))
    }
}

/// What an entry orders.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Content {
    /// Nothing: a new view fills the gap that this entry would be (§4.4).
    Null(OpNumber),
    /// Groups of requests.
    Orders(Orders),
}

/// Groups of requests, at one time.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Orders {
    /// The primary's clock. The agreed time never goes back, so a time too far ahead is refused.
    pub time: WallTime,
    /// Does the machine get the tick that it asked for?
    pub tick: bool,
    /// The groups, in order.
    pub groups: Vec<Group>,
}

impl Orders {
    /// All requests, in order.
    pub fn requests(&self) -> impl Iterator<Item = (&Requests, RequestNumber, &Body)> {
        let groups = self.groups.iter().map(Group::statement);
        groups.flat_map(|group| group.requests.iter().map(move |(number, body)| (group, *number, body)))
    }
}

/// An entry's content, its encoding and its digest: they cannot disagree.
#[derive(Clone, Debug)]
pub struct Proposal {
    bytes: Bytes,
    digest: Digest,
    /// `None` if only the bytes are kept.
    content: Option<Arc<Content>>,
}

impl PartialEq for Proposal {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Eq for Proposal {}

impl Proposal {
    /// Encodes the content.
    pub fn new(content: Content) -> Self {
        let bytes = Bytes::from(content.encode());
        Self { digest: Digest::of_parts(&[b"pbft proposal", &bytes]), bytes, content: Some(Arc::new(content)) }
    }

    /// The null request of this entry: a digest of its own for each entry.
    pub fn null(op: OpNumber) -> Self {
        Self::new(Content::Null(op))
    }

    /// The digest of the encoding (d).
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What is ordered.
    pub fn content(&self) -> Arc<Content> {
        match &self.content {
            Some(content) => content.clone(),
            None => Arc::new(Content::decode(&self.bytes).expect("bytes that were decoded, or encoded, before")),
        }
    }

    /// Keeps the bytes only: every request in the content is an allocation of its own.
    pub(super) fn pack(&mut self) {
        self.content = None;
    }

    /// Bytes of the encoding.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never: every content has an encoding.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// What the machine is given, a [`Batch`]: the groups' requests, one after the other.
    pub fn batch(&self) -> Bytes {
        let content = self.content();
        let Content::Orders(orders) = &*content else { return Batch::default().encode().into() };
        let requests = orders.requests().map(|(group, number, body)| Ordered {
            client: group.client,
            session: group.session,
            number,
            acknowledged: group.acknowledged,
            body,
        });
        let requests: Vec<_> = requests.collect();
        let mut batch = Vec::with_capacity(self.len().saturating_add(requests.len().saturating_mul(ORDERED_BYTES)));
        let encoded = (orders.time, orders.tick, requests).serialize(&mut batch);
        encoded.expect("memory takes everything");
        batch.into()
    }

    /// Checks the clients' signatures.
    fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let Some(content) = &mut self.content else { return Ok(()) }; // what is packed was proved, or is our own
        match Arc::make_mut(content) {
            Content::Null(_) => Ok(()),
            Content::Orders(_) if mutated!("pbft/requests-are-not-checked") => Ok(()),
            Content::Orders(orders) => orders.groups.iter_mut().try_for_each(|group| prove_group(group, keyring)),
        }
    }

    fn check(&self) -> Option<&'static str> {
        let content = self.content();
        let Content::Orders(orders) = &*content else { return None };
        if self.len() > PROPOSAL_BYTES_MAX || orders.requests().count() > REQUESTS_MAX {
            return Some("more than one entry takes");
        }
        orders.groups.iter().find_map(check_group)
    }
}

/// A [`quorate_core::sessions::Request`] whose operation is elsewhere: the same encoding.
#[derive(BorshSerialize)]
struct Ordered<'a> {
    client: ClientId,
    session: SessionId,
    number: RequestNumber,
    acknowledged: RequestNumber,
    body: &'a Body,
}

/// Bytes of an [`Ordered`] beside its operation, about.
const ORDERED_BYTES: usize = 48;

impl BorshSerialize for Proposal {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.bytes.serialize(writer)
    }
}

impl BorshDeserialize for Proposal {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bytes = Bytes::deserialize_reader(reader)?;
        let content = Content::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))?;
        Ok(Self { digest: Digest::of_parts(&[b"pbft proposal", &bytes]), bytes, content: Some(Arc::new(content)) })
    }
}

/// A reply's or an answer's contents, from the replica that was asked for them, or their digest, from the others.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Told<T> {
    /// The whole of it.
    Full(T),
    /// The digest of its encoding.
    Digest(Digest),
}

impl<T: Wire> Told<T> {
    /// What it votes for.
    pub fn digest(&self) -> Digest {
        match self {
            Told::Full(whole) => Digest::of(&whole.encode()),
            Told::Digest(digest) => *digest,
        }
    }

    /// In full for whom it was promised to, or if a digest would not be shorter.
    pub fn new(whole: T, full: bool) -> Self {
        let bytes = whole.encode();
        if full || bytes.len() <= Digest::ZERO.as_bytes().len() {
            Told::Full(whole)
        } else {
            Told::Digest(Digest::of(&bytes))
        }
    }
}

/// ⟨REPLY v, t, c, i, r⟩: answers to requests of one entry.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Reply {
    /// The sender's view (v): the client learns whom to ask.
    pub view: View,
    /// The entry that ordered them.
    pub op: OpNumber,
    /// The session that they belong to.
    pub session: SessionId,
    /// Number (t) and result (r) of each.
    pub rulings: Vec<(RequestNumber, Told<Ruling>)>,
}

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Place {
    /// Its view.
    pub view: View,
    /// Has the view started there?
    pub active: bool,
    /// It holds everything up to here, committed.
    pub committed: OpNumber,
    /// Its last stable checkpoint.
    pub stable: OpNumber,
}

impl Place {
    /// Where everybody is who has never heard of anything: it need not be told.
    pub(super) const BEGINNING: Self =
        Self { view: View::ZERO, active: true, committed: OpNumber::ZERO, stable: OpNumber::ZERO };
}

/// The words of PBFT.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client → replica, replica → primary: order these.
    Request(Group),
    /// Replica → client: they were ordered and executed.
    Reply(Reply),
    /// Replica → client: a queue is full; nothing of that message was taken.
    Busy {
        /// The sender's view.
        view: View,
    },
    /// Client → replica: answer this query without ordering it.
    Read {
        /// Names the read; never used twice by a client process.
        id: u64,
        /// How fresh.
        consistency: Consistency,
        /// The replica that answers in full; `None`: all do.
        full: Option<ReplicaId>,
        /// The machine's query.
        query: Bytes,
    },
    /// Replica → client: the answer.
    ReadReply {
        /// The sender's view.
        view: View,
        /// The read's.
        id: u64,
        /// An entry that the answer reflects.
        op: OpNumber,
        /// The machine's answer.
        answer: Told<Bytes>,
    },

    /// Primary → backups ⟨PRE-PREPARE v, n, d⟩, m.
    PrePrepare {
        /// The primary's vote (v, n, d).
        vote: Signed<Prepare>,
        /// What it proposes (m).
        proposal: Proposal,
    },
    /// Backup → all ⟨PREPARE v, n, d, i⟩: I have it, and accept nothing else there.
    Prepare(Signed<Prepare>),
    /// Replica → all ⟨COMMIT v, n, d, i⟩.
    Commit(Signed<Commit>),
    /// Replica → all ⟨CHECKPOINT n, d, i⟩.
    Checkpoint(Signed<LogCheckpoint>),
    /// Replica → all: a state is on my disk.
    State(Signed<StateCheckpoint>),

    /// Replica → all ⟨VIEW-CHANGE v, h, C, P, i⟩.
    ViewChange(Box<Signed<ViewChange>>),
    /// New primary → all, and whoever has it → who missed it ⟨NEW-VIEW v, V, O⟩.
    NewView(Box<Signed<NewView>>),

    /// Replica → replicas (the paper's STATUS): this is where I am; tell me what I lack.
    Status(Place),
    /// Replica → replica: send me what is committed after this entry.
    GetCommitted {
        /// The entry.
        after: OpNumber,
    },
    /// The answer: an entry, and the proof that it is committed.
    Committed {
        /// The proof.
        certificate: Certificate<Commit>,
        /// The entry.
        proposal: Proposal,
    },
    /// The answer, if entries below are gone: the log up to here is stable.
    Stable(Certificate<LogCheckpoint>),
    /// The answer, if the entries are gone: a quorum has this state.
    StateStable(Certificate<StateCheckpoint>),
    /// Replica → replicas: send me the proposals with these digests.
    GetProposals {
        /// Entry and digest of each.
        wanted: Vec<(OpNumber, Digest)>,
    },
    /// The answer.
    Proposal {
        /// The entry that it was proposed for.
        op: OpNumber,
        /// What was proposed.
        proposal: Proposal,
    },

    /// A replica that has lost promises → all: how far may my former self have voted?
    GetBound {
        /// Comes back.
        nonce: u64,
    },
    /// The answer.
    Bound {
        /// The question's.
        nonce: u64,
        /// The sender's view.
        view: View,
        /// The sender's last stable checkpoint.
        stable: Option<Certificate<LogCheckpoint>>,
    },

    /// Replica → client: they were executed, and will be committed if a quorum says the same of this view (§5.1).
    Tentative(Reply),

    /// A silent replica → all, while nothing moves: make the log stable at this entry or beyond, so that my silence ends.
    GetBeyond {
        /// The last entry that the former self may have voted for.
        until: OpNumber,
    },
}

impl Message {
    /// Is it between a client and a replica? Only such words are other protocols' too (`quorum_client`).
    pub(crate) const fn is_clients(&self) -> bool {
        matches!(
            self,
            Message::Request(_)
                | Message::Reply(_)
                | Message::Busy { .. }
                | Message::Read { .. }
                | Message::ReadReply { .. }
        )
    }

    /// Why no correct peer sends this, apart from signatures.
    fn check(&self) -> Option<String> {
        let beyond = |numbers: &[u64]| numbers.iter().any(|number| *number > NUMBER_MAX);
        let what = match self {
            Message::Request(group) => check_group(group),
            Message::PrePrepare { vote, proposal } => match vote.statement() {
                Prepare { digest, .. } if *digest != proposal.digest() => Some("a vote for another proposal"),
                Prepare { view, op, .. } if beyond(&[view.get(), op.get()]) => Some("a number out of all bounds"),
                _ => proposal.check(),
            },
            Message::Committed { certificate, proposal } if certificate.statement().digest != proposal.digest() => {
                Some("a proof for another proposal")
            }
            Message::Committed { proposal, .. } | Message::Proposal { proposal, .. } => proposal.check(),
            Message::Read { query, .. } if query.len() > OPERATION_BYTES_MAX => Some("a query longer than any"),
            Message::GetProposals { wanted } if wanted.len() > WANTED_MAX => Some("a question for too much"),
            Message::Reply(reply) | Message::Tentative(reply) if reply.rulings.len() > REQUESTS_MAX => {
                Some("more answers than questions")
            }
            Message::ViewChange(change) if beyond(&[change.statement().view.get()]) => Some("a view out of all bounds"),
            Message::NewView(view) if beyond(&[view.statement().view.get()]) => Some("a view out of all bounds"),
            Message::Status(place) if beyond(&[place.view.get(), place.committed.get(), place.stable.get()]) => {
                Some("a number out of all bounds")
            }
            _ => None,
        };
        what.map(str::to_owned)
    }

    /// Does this hold of whoever has signed one of the requests in it?
    fn some_signer(&self, is: impl Fn(&ClientKey) -> bool) -> bool {
        let some = |groups: &[Group]| groups.iter().any(|group| is(&group.by()));
        match self {
            Message::Request(group) => is(&group.by()),
            Message::PrePrepare { proposal, .. }
            | Message::Committed { proposal, .. }
            | Message::Proposal { proposal, .. } => match &*proposal.content() {
                Content::Orders(orders) => some(&orders.groups),
                Content::Null(_) => false,
            },
            _ => false,
        }
    }

    /// Has a replica signed a request in it? Not where replicas are no clients.
    pub(super) fn is_by_proxy(&self) -> bool {
        self.some_signer(ClientKey::is_proxy)
    }

    /// As [`quorate_core::protocol::Protocol::prove`], for a protocol inside another one: its clients are the replicas.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn prove_inside(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if self.some_signer(|by| !by.is_proxy()) {
            return Err(Fault::Malformed("a request to the inner protocol that is not a replica's".to_owned()));
        }
        self.prove(keyring)
    }

    /// Checks form, then signatures: what a handler is given is signed by whom it says.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what));
        }
        let quorum = quorum(keyring)?;
        match self {
            Message::Request(group) => prove_group(group, keyring),
            Message::PrePrepare { vote, proposal } => {
                vote.prove(keyring)?;
                proposal.prove(keyring)
            }
            Message::Prepare(vote) => keyring.wants(vote.statement()).and_then(|()| vote.prove(keyring)),
            Message::Commit(vote) => keyring.wants(vote.statement()).and_then(|()| vote.prove(keyring)),
            Message::Checkpoint(vote) => vote.prove(keyring),
            Message::State(vote) => vote.prove(keyring),
            Message::ViewChange(change) => change.prove(keyring),
            Message::NewView(start) => start.prove(keyring),
            Message::Committed { certificate, .. } => certificate.prove(keyring, quorum),
            Message::Stable(certificate) => certificate.prove(keyring, quorum),
            Message::StateStable(certificate) => certificate.prove(keyring, quorum),
            Message::Bound { stable, .. } => stable.iter_mut().try_for_each(|stable| stable.prove(keyring, quorum)),
            Message::Reply(_)
            | Message::Tentative(_)
            | Message::Busy { .. }
            | Message::Read { .. }
            | Message::ReadReply { .. }
            | Message::Status(_)
            | Message::GetCommitted { .. }
            | Message::GetProposals { .. }
            | Message::Proposal { .. }
            | Message::GetBound { .. }
            | Message::GetBeyond { .. } => Ok(()),
        }
    }

    /// The message's name in the paper.
    pub(super) const fn label(&self) -> &'static str {
        match self {
            Message::Request(_) => "Request",
            Message::Reply(_) => "Reply",
            Message::Tentative(_) => "Tentative",
            Message::Busy { .. } => "Busy",
            Message::Read { .. } => "Read",
            Message::ReadReply { .. } => "ReadReply",
            Message::PrePrepare { .. } => "PrePrepare",
            Message::Prepare(_) => "Prepare",
            Message::Commit(_) => "Commit",
            Message::Checkpoint(_) => "Checkpoint",
            Message::State(_) => "State",
            Message::ViewChange(_) => "ViewChange",
            Message::NewView(_) => "NewView",
            Message::Status(_) => "Status",
            Message::GetCommitted { .. } => "GetCommitted",
            Message::Committed { .. } => "Committed",
            Message::Stable(_) => "Stable",
            Message::StateStable(_) => "StateStable",
            Message::GetProposals { .. } => "GetProposals",
            Message::Proposal { .. } => "Proposal",
            Message::GetBound { .. } => "GetBound",
            Message::Bound { .. } => "Bound",
            Message::GetBeyond { .. } => "GetBeyond",
        }
    }
}

fn quorum(keyring: &Keyring) -> Result<usize, Fault> {
    let quorums = ByzantineQuorums::new(keyring.replicas());
    quorums.map(|it| it.quorum()).ok_or_else(|| Fault::Malformed("a group without keys".to_owned()))
}

/// The client's signature, and that the address is the one of its key.
pub(crate) fn prove_group(group: &mut Group, keyring: &Keyring) -> Result<(), Fault> {
    if keyring.address(&group.by()) != group.statement().client {
        return Err(Fault::BadSignature(Requests::DOMAIN));
    }
    group.prove(keyring)
}

/// What a group brings fits an entry of every protocol that orders groups, whatever else is in it: a correct primary must never
/// propose what nobody takes.
pub(crate) fn check_group(group: &Group) -> Option<&'static str> {
    let requests = &group.statement().requests;
    if requests.is_empty() || requests.len() > REQUESTS_MAX {
        return Some("no requests, or too many");
    }
    let bytes = requests.iter().map(|(_, body)| body.len()).fold(0, usize::saturating_add);
    (bytes > OPERATION_BYTES_MAX).then_some("operations longer than the longest")
}
