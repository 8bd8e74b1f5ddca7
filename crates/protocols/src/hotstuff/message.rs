//! What replicas say to each other. Each variant says what the sender claims by sending it. What clients and replicas say to
//! each other are PBFT's words: the client's rule is the same.

use super::durable::Root;
use crate::pbft::{self, Orders};
use crate::quorum_client;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Certified, Digest, Keyring, Signed, Slot, Statement};
use quorate_core::fault::Fault;
use quorate_core::ids::{OpNumber, View};
use quorate_core::mutated;
use quorate_core::protocol::{Checkpoint, Protocol as _};
use quorate_core::quorum::ByzantineQuorums;
use quorate_core::sessions::{self, Batch, OPERATION_BYTES_MAX};
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use std::io;
use std::sync::Arc;

/// Bytes of one block's payload at most: several groups of usual size, or one of the largest.
pub const PAYLOAD_BYTES_MAX: usize = 2 * OPERATION_BYTES_MAX;
/// Requests in one block at most.
pub(super) const BLOCK_REQUESTS_MAX: usize = 8192;
/// Views and heights beyond this are nobody's: it leaves room to count on, whatever a peer says.
const NUMBER_MAX: u64 = 1 << 62;

/// The block that everybody begins with. Its certificate is [`Justify::Genesis`] and has no signatures: no list of
/// signatures, empty or not, stands for it.
pub fn genesis() -> Digest {
    Digest::of(b"quorate hotstuff genesis")
}

/// What makes a block what it is, signed by the leader of its view: it proposes nothing else in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Header {
    /// The view in which it is proposed.
    pub view: View,
    /// Its height: one more than its parent's.
    pub height: OpNumber,
    /// Its parent, which its certificate certifies.
    pub parent: Digest,
    /// The view of its parent.
    pub parent_view: View,
    /// The digest of the payload.
    pub payload: Digest,
}

impl Header {
    /// The block's name.
    pub fn id(&self) -> Digest {
        Digest::of_parts(&[b"hotstuff block", &self.encode()])
    }
}

impl Statement for Header {
    const DOMAIN: &'static str = "hotstuff/1 proposal";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: OpNumber::ZERO })
    }
}

/// The signer votes for this block, and for no other in this view or a lower one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The block's view.
    pub view: View,
    /// The block.
    pub block: Digest,
}

impl Statement for Vote {
    const DOMAIN: &'static str = "hotstuff/1 vote";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: self.view, op: OpNumber::ZERO })
    }
}

/// The signer votes in no view up to this one any more. It is the last one of a term.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Timeout {
    /// The view.
    pub view: View,
    /// The view of the highest certificate that the signer knows.
    pub high: View,
}

impl Statement for Timeout {
    // No slot: a replica that has lost its disk may give a term up again, and know other certificates by then.
    const DOMAIN: &'static str = "hotstuff/1 timeout";
}

/// The signer has the state after this block on its disk, and serves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateCheckpoint {
    /// The height, and the digest of state, sessions with replies, and history.
    pub checkpoint: Checkpoint,
    /// The block.
    pub root: Root,
}

impl Statement for StateCheckpoint {
    const DOMAIN: &'static str = "hotstuff/1 state";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: self.checkpoint.op })
    }
}

/// The certificate of a block (QC), which nobody may have checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Justify {
    /// The genesis block needs none.
    #[default]
    Genesis,
    /// The votes of a quorum.
    Quorum(Certificate<Vote>),
}

impl Justify {
    /// The block that it certifies.
    pub fn block(&self) -> Digest {
        match self {
            Justify::Genesis => genesis(),
            Justify::Quorum(certificate) => certificate.statement().block,
        }
    }

    /// Its view.
    pub fn view(&self) -> View {
        match self {
            Justify::Genesis => View::ZERO,
            Justify::Quorum(certificate) => certificate.statement().view,
        }
    }

    /// Checks the signatures.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let Justify::Quorum(certificate) = self else { return Ok(()) };
        if certificate.statement().view == View::ZERO {
            return Err(Fault::Malformed("a certificate of view zero, which nobody votes in".to_owned()));
        }
        certificate.prove(keyring, quorum(keyring)?)
    }

    /// It was checked, here and by this process.
    pub(super) fn certified(self, quorum: usize) -> Result<Qc, Fault> {
        Ok(match self {
            Justify::Genesis => Qc::Genesis,
            Justify::Quorum(certificate) => Qc::Quorum(certificate.certified(quorum)?),
        })
    }
}

/// A certificate that was checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Qc {
    #[default]
    Genesis,
    Quorum(Certified<Vote>),
}

impl Qc {
    pub(super) fn block(&self) -> Digest {
        match self {
            Qc::Genesis => genesis(),
            Qc::Quorum(certified) => certified.statement().block,
        }
    }

    pub(super) fn view(&self) -> View {
        match self {
            Qc::Genesis => View::ZERO,
            Qc::Quorum(certified) => certified.statement().view,
        }
    }

    /// As it travels.
    pub(super) fn justify(&self) -> Justify {
        match self {
            Qc::Genesis => Justify::Genesis,
            Qc::Quorum(certified) => Justify::Quorum(certified.certificate().clone()),
        }
    }
}

/// Timeouts of a quorum for one view (TC), which nobody may have checked.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct TimeoutCertificate {
    /// In the order of the signers, none twice.
    timeouts: Vec<Signed<Timeout>>,
}

impl TimeoutCertificate {
    /// A certificate as somebody may send it.
    pub const fn claimed(timeouts: Vec<Signed<Timeout>>) -> Self {
        Self { timeouts }
    }

    /// The view that is over.
    pub fn view(&self) -> View {
        self.timeouts.first().map_or(View::ZERO, |it| it.statement().view)
    }

    /// The highest certificate that one of the signers knew.
    pub fn high(&self) -> View {
        self.timeouts.iter().map(|it| it.statement().high).max().unwrap_or_default()
    }

    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let view = self.view();
        let in_order = self.timeouts.is_sorted_by(|one, next| one.by() < next.by());
        let of_one_view = self.timeouts.iter().all(|it| it.statement().view == view);
        if !in_order || !of_one_view || self.timeouts.len() != quorum(keyring)? {
            return Err(Fault::Malformed("a timeout certificate without a quorum for one view".to_owned()));
        }
        self.timeouts.iter_mut().try_for_each(|timeout| timeout.prove(keyring))
    }

    pub(super) fn certified(self, quorum: usize) -> Result<Tc, Fault> {
        let checked = self.timeouts.iter().cloned().map(Signed::verified).collect::<Result<Vec<_>, _>>()?;
        if checked.len() < quorum {
            return Err(Fault::BadSignature(Timeout::DOMAIN));
        }
        Ok(Tc(self))
    }
}

/// Whoever has a timeout certificate was shown the certificates that its signers knew, and shows them, too. Otherwise one liar's
/// timeout, which may speak of any view, would make it a certificate on which nobody can build.
fn lacks_what_is_known(justify: &Justify, tc: Option<&TimeoutCertificate>) -> Option<&'static str> {
    let unknown = tc.is_some_and(|tc| justify.view() < tc.high());
    (unknown && !mutated!("hotstuff/two-chains-without-timeouts"))
        .then_some("a timeout certificate without the certificate that its signers knew")
}

/// A timeout certificate that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tc(TimeoutCertificate);

impl Tc {
    pub(super) fn view(&self) -> View {
        self.0.view()
    }

    pub(super) fn high(&self) -> View {
        self.0.high()
    }

    /// As it travels.
    pub(super) const fn certificate(&self) -> &TimeoutCertificate {
        &self.0
    }
}

/// What a block brings.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
struct Content {
    orders: Orders,
    /// What the leader's machine has proposed for them.
    made: Option<Bytes>,
}

/// What a block orders, its encoding and its digest: they cannot disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    digest: Digest,
    content: Arc<Content>,
}

impl Payload {
    /// Encodes what is ordered.
    pub fn new(orders: Orders) -> Self {
        Self::with(orders, None)
    }

    /// The same, with what the leader's machine has proposed for it.
    pub fn with(orders: Orders, made: Option<Bytes>) -> Self {
        let content = Content { orders, made };
        let bytes = Bytes::from(content.encode());
        Self { digest: Self::digest_of(&bytes), bytes, content: Arc::new(content) }
    }

    /// Nothing: a block that is there for the certificate that it carries.
    pub fn nothing() -> Self {
        Self::new(Orders { time: WallTime::default(), tick: false, groups: Vec::new() })
    }

    fn digest_of(bytes: &[u8]) -> Digest {
        Digest::of_parts(&[b"hotstuff payload", bytes])
    }

    /// The digest of the encoding.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// What is ordered.
    pub fn orders(&self) -> &Orders {
        &self.content.orders
    }

    /// What the leader's machine has proposed.
    pub fn made(&self) -> Option<&Bytes> {
        self.content.made.as_ref()
    }

    /// The operations that clients have asked for, in their order.
    pub fn operations(&self) -> impl Iterator<Item = &Bytes> {
        self.orders().requests().filter_map(|(_, _, body)| match body {
            sessions::Body::Apply(operation) | sessions::Body::Critical(_, operation) => Some(operation),
            _ => None,
        })
    }

    /// Bytes of the encoding.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Does it change nothing at all?
    pub fn is_empty(&self) -> bool {
        *self.orders() == Orders { time: WallTime::default(), tick: false, groups: Vec::new() } && self.made().is_none()
    }

    /// What the machine is given: what its leader has proposed, and then the groups' requests, one after the other.
    pub fn batch(&self) -> Bytes {
        let requests = self.orders().requests().map(|(group, number, body)| sessions::Request {
            client: group.client,
            session: group.session,
            number,
            acknowledged: group.acknowledged,
            body: body.clone(),
        });
        let made = self.made().cloned().map(sessions::Request::of_machine);
        let requests = made.into_iter().chain(requests).collect();
        Batch { time: self.orders().time, tick: self.orders().tick, requests }.encode().into()
    }

    fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        let content = Arc::make_mut(&mut self.content);
        content.orders.groups.iter_mut().try_for_each(|group| pbft::prove_group(group, keyring))
    }

    fn check(&self) -> Option<&'static str> {
        if self.len() > PAYLOAD_BYTES_MAX || self.orders().requests().count() > BLOCK_REQUESTS_MAX {
            return Some("more than one block takes");
        }
        self.orders().groups.iter().find_map(pbft::check_group)
    }
}

impl BorshSerialize for Payload {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        self.bytes.serialize(writer)
    }
}

impl BorshDeserialize for Payload {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let bytes = Bytes::deserialize_reader(reader)?;
        let content = Content::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))?;
        Ok(Self { digest: Self::digest_of(&bytes), bytes, content: Arc::new(content) })
    }
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Block {
    /// What makes it what it is.
    pub header: Header,
    /// The certificate of its parent.
    pub justify: Justify,
    /// What it orders.
    pub payload: Payload,
}

impl Block {
    /// Why no correct replica made it, apart from signatures.
    fn check(&self) -> Option<&'static str> {
        let it = &self.header;
        if it.payload != self.payload.digest() {
            return Some("a block with another payload");
        }
        if (it.parent, it.parent_view) != (self.justify.block(), self.justify.view()) {
            return Some("a block whose certificate is not its parent's");
        }
        if it.view <= it.parent_view || it.height == OpNumber::ZERO {
            return Some("a block before its parent");
        }
        if it.view.get() > NUMBER_MAX || it.height.get() > NUMBER_MAX {
            return Some("a number out of all bounds");
        }
        self.payload.check()
    }
}

/// The leader's block of a view.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Proposal {
    /// Signed by the leader.
    pub header: Signed<Header>,
    /// The certificate of the parent: of the view before, or ..
    pub justify: Justify,
    /// .. of an earlier one, if a quorum has given the views between up.
    pub tc: Option<TimeoutCertificate>,
    /// What it orders.
    pub payload: Payload,
}

impl Proposal {
    pub(super) fn block(&self) -> Block {
        Block { header: *self.header.statement(), justify: self.justify.clone(), payload: self.payload.clone() }
    }

    fn check(&self) -> Option<&'static str> {
        let view = self.header.statement().view;
        let follows = self.justify.view().next() == view;
        let skips = self.tc.as_ref().is_some_and(|tc| tc.view().next() == view);
        if !follows && !skips {
            return Some("a proposal in a view that nothing has led to");
        }
        lacks_what_is_known(&self.justify, self.tc.as_ref()).or_else(|| self.block().check())
    }
}

/// Where a replica is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Place {
    /// Its view.
    pub view: View,
    /// The view of its highest certificate.
    pub high: View,
    /// Everything up to here is committed, and here.
    pub committed: OpNumber,
}

/// The words of HotStuff.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client ↔ replica: requests, reads and their answers, in PBFT's words.
    Client(pbft::Message),
    /// Leader → all: the block of this view (the paper's *generic* message).
    Proposal(Box<Proposal>),
    /// Replica → the next view's leader.
    Vote(Signed<Vote>),
    /// Replica → all: I vote in no view up to this one any more.
    Timeout {
        /// The promise.
        timeout: Signed<Timeout>,
        /// The certificate that it speaks of, or a higher one.
        justify: Justify,
    },
    /// Replica → replica: these certificates have led me to my view (the paper's *new-view* message).
    NewView {
        /// The highest certificate.
        justify: Justify,
        /// How the views between it and the sender's were given up.
        tc: Option<TimeoutCertificate>,
    },
    /// Replica → all: a state is on my disk.
    State(Signed<StateCheckpoint>),

    /// Replica → replicas: this is where I am; tell me what I lack.
    Status(Place),
    /// Replica → replica: send me the blocks after this height.
    GetBlocks {
        /// The height.
        after: OpNumber,
    },
    /// The answer, block by block.
    Block {
        /// A block.
        block: Box<Block>,
        /// Its own certificate.
        proof: Certificate<Vote>,
    },
    /// The answer, if the blocks are gone: a quorum has this state.
    StateStable(Certificate<StateCheckpoint>),

    /// A replica that has lost promises → all: how far may my former self have voted?
    GetBound {
        /// Comes back.
        nonce: u64,
    },
    /// The answer: the highest certificates that the sender knows.
    Bound {
        /// The question's.
        nonce: u64,
        /// The highest certificate.
        justify: Justify,
        /// The highest timeout certificate.
        tc: Option<TimeoutCertificate>,
    },
    /// Replica → itself: what it has written about the block at this height is on its disk.
    Durable(OpNumber),
    /// A silent replica → all, while nothing moves: commit a block of a later view than this, so that my silence ends.
    GetBeyond {
        /// The last view for which the former self may have promised something.
        until: View,
    },
}

impl Message {
    /// Why no correct peer sends this, apart from signatures.
    fn check(&self) -> Option<&'static str> {
        let beyond = |numbers: &[u64]| numbers.iter().any(|number| *number > NUMBER_MAX);
        match self {
            Message::Proposal(proposal) => proposal.check(),
            Message::Block { block, proof }
                if *proof.statement() != (Vote { view: block.header.view, block: block.header.id() }) =>
            {
                Some("a proof of another block")
            }
            Message::Block { block, .. } => block.check(),
            Message::Vote(vote) if beyond(&[vote.statement().view.get()]) => Some("a view out of all bounds"),
            Message::Timeout { timeout, justify } => {
                let Timeout { view, high } = *timeout.statement();
                if beyond(&[view.get()]) {
                    Some("a view out of all bounds")
                } else {
                    (high > justify.view() || high > view).then_some("a timeout without the certificate that it knows")
                }
            }
            Message::GetBeyond { until } if beyond(&[until.get()]) => Some("a view out of all bounds"),
            Message::NewView { justify, tc } | Message::Bound { justify, tc, .. } => {
                lacks_what_is_known(justify, tc.as_ref())
            }
            Message::Status(place) if beyond(&[place.view.get(), place.high.get(), place.committed.get()]) => {
                Some("a number out of all bounds")
            }
            _ => None,
        }
    }

    /// Checks form, then signatures: what a handler is given is signed by whom it says.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what.to_owned()));
        }
        let quorum = quorum(keyring)?;
        let prove_tc = |tc: &mut Option<TimeoutCertificate>| tc.iter_mut().try_for_each(|tc| tc.prove(keyring));
        match self {
            Message::Client(message) => quorum_client::prove(message, keyring),
            Message::Proposal(proposal) => {
                proposal.header.prove(keyring)?;
                proposal.justify.prove(keyring)?;
                prove_tc(&mut proposal.tc)?;
                proposal.payload.prove(keyring)
            }
            Message::Vote(vote) => vote.prove(keyring),
            Message::Timeout { timeout, justify } => {
                timeout.prove(keyring)?;
                justify.prove(keyring)
            }
            Message::NewView { justify, tc } | Message::Bound { justify, tc, .. } => {
                justify.prove(keyring)?;
                prove_tc(tc)
            }
            Message::State(vote) => vote.prove(keyring),
            // A quorum has voted for the block, hence correct replicas have checked what is in it; but its name does not say by
            // whose signatures its parent is certified, and whoever keeps them shows them to others.
            Message::Block { block, proof } => {
                block.justify.prove(keyring)?;
                proof.prove(keyring, quorum)
            }
            Message::StateStable(certificate) => certificate.prove(keyring, quorum),
            Message::Status(_)
            | Message::GetBlocks { .. }
            | Message::GetBound { .. }
            | Message::GetBeyond { .. }
            | Message::Durable(_) => Ok(()),
        }
    }

    /// The message's name in the paper.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Message::Client(message) => pbft::Pbft::label(message),
            Message::Proposal(_) => "Proposal",
            Message::Vote(_) => "Vote",
            Message::Timeout { .. } => "Timeout",
            Message::NewView { .. } => "NewView",
            Message::State(_) => "State",
            Message::Status(_) => "Status",
            Message::GetBlocks { .. } => "GetBlocks",
            Message::Block { .. } => "Block",
            Message::StateStable(_) => "StateStable",
            Message::GetBound { .. } => "GetBound",
            Message::Bound { .. } => "Bound",
            Message::Durable(_) => "Durable",
            Message::GetBeyond { .. } => "GetBeyond",
        }
    }
}

fn quorum(keyring: &Keyring) -> Result<usize, Fault> {
    let quorums = ByzantineQuorums::new(keyring.replicas());
    quorums.map(|it| it.quorum()).ok_or_else(|| Fault::Malformed("a group without keys".to_owned()))
}
