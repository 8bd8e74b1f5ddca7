//! What replicas and clients say to each other. Each variant says what the sender claims by sending it.
//!
//! What must convince a third party is a signed [`Statement`]: a lane's batches, who holds them, what is proposed, who has
//! seen that. The words of agreement, and where a replica is, rely on the link: nobody passes them on.

use super::agreement::Word;
use crate::pbft::{self, Group, check_group, prove_group};
use crate::quorum_client;
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{Certificate, Digest, Keyring, Signed, Slot, Statement};
use quorate_core::fault::Fault;
use quorate_core::ids::{OpNumber, ReplicaId, View};
use quorate_core::protocol::{Checkpoint, Protocol as _};
use quorate_core::quorum::{ByzantineQuorums, REPLICAS_MAX};
use quorate_core::sessions::OPERATION_BYTES_MAX;
use quorate_core::time::WallTime;
use quorate_core::wire::Wire;
use std::io;
use std::sync::Arc;

/// Requests in one batch, at most.
pub const REQUESTS_MAX: usize = pbft::REQUESTS_MAX;
/// Bytes of one batch's payload at most: several groups of usual size, or one of the largest.
pub const PAYLOAD_BYTES_MAX: usize = 2 * OPERATION_BYTES_MAX;
/// Words in one message at most.
pub const WORDS_MAX: usize = 4096;
/// Decided epochs in one answer at most.
pub const DECIDED_MAX: usize = 64;
/// States that one status names at most.
pub const STATES_MAX: usize = 4;
/// Epochs and heights beyond this are nobody's: it leaves room to count on, whatever a peer says.
const NUMBER_MAX: u64 = 1 << 62;

/// A place in a lane: how high, and what is there. Heights grow along a lane; they may jump, and never fall.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Head {
    /// The height; zero is below the first batch.
    pub height: u64,
    /// The batch's digest.
    pub digest: Digest,
}

/// ⟨Batch i, h, parent, payload⟩: the signer's lane goes on with this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Link {
    /// Its height (h): one batch for each.
    pub height: u64,
    /// The batch before it.
    pub parent: Head,
    /// The digest of the payload.
    pub payload: Digest,
}

impl Statement for Link {
    const DOMAIN: &'static str = "async-tob/1 batch";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: OpNumber::new(self.height) })
    }
}

/// Groups of requests, their encoding and its digest: they cannot disagree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Bytes,
    digest: Digest,
    groups: Arc<Vec<Group>>,
}

impl Payload {
    /// Encodes the groups.
    pub fn new(groups: Vec<Group>) -> Self {
        let bytes = Bytes::from(groups.encode());
        Self { digest: Digest::of_parts(&[b"async-tob payload", &bytes]), bytes, groups: Arc::new(groups) }
    }

    /// The digest of the encoding.
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// The groups, in order.
    pub fn groups(&self) -> &[Group] {
        &self.groups
    }

    /// Bytes of the encoding.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Is nothing in it?
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
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
        let groups = Vec::decode(&bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.0))?;
        Ok(Self { digest: Digest::of_parts(&[b"async-tob payload", &bytes]), bytes, groups: Arc::new(groups) })
    }
}

/// A batch of a lane, which is its signer's.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Batch {
    /// Height, parent and the payload's digest, signed.
    pub link: Signed<Link>,
    /// What is ordered.
    pub payload: Payload,
}

impl Batch {
    /// Whose lane.
    pub const fn lane(&self) -> ReplicaId {
        self.link.by()
    }

    /// Its place.
    pub fn head(&self) -> Head {
        let link = self.link.statement();
        let digest = Digest::of_parts(&[b"async-tob batch", &[self.lane().get()], &link.encode()]);
        Head { height: link.height, digest }
    }

    /// Its height.
    pub const fn height(&self) -> u64 {
        self.link.statement().height
    }

    /// The place before it.
    pub const fn parent(&self) -> Head {
        self.link.statement().parent
    }

    fn check(&self) -> Option<&'static str> {
        let link = self.link.statement();
        if link.payload != self.payload.digest() {
            return Some("a batch with another payload");
        }
        if link.height > NUMBER_MAX || link.height <= link.parent.height {
            return Some("a batch that is not above its parent");
        }
        let requests: usize = self.payload.groups().iter().map(|group| group.statement().requests.len()).sum();
        if self.payload.is_empty() || self.payload.len() > PAYLOAD_BYTES_MAX || requests > REQUESTS_MAX {
            return Some("a batch of nothing, or of too much");
        }
        self.payload.groups().iter().find_map(check_group)
    }

    fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        self.link.prove(keyring)?;
        Arc::make_mut(&mut self.payload.groups).iter_mut().try_for_each(|group| prove_group(group, keyring))
    }
}

/// ⟨Ack i, h, d⟩: the signer holds this batch and everything before it in the lane, and acknowledges no other at this
/// height.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Ack {
    /// The lane (i).
    pub lane: ReplicaId,
    /// Height (h) and digest (d).
    pub head: Head,
}

impl Statement for Ack {
    const DOMAIN: &'static str = "async-tob/1 ack";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::new(u64::from(self.lane.get())), op: OpNumber::new(self.head.height) })
    }
}

/// ⟨Prop e, i, U⟩: what the signer proposes for an epoch: for each lane that has got on, the highest certificate that it
/// knows; and its clock.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Vector {
    /// The epoch (e).
    pub op: OpNumber,
    /// The signer's clock.
    pub time: WallTime,
    /// Certificates of heads (U), in the order of the lanes, one for each lane at most. A signature over them does not say
    /// that they are good: who approves looks.
    pub heads: Vec<Certificate<Ack>>,
}

impl Vector {
    /// Its name in PAck and PCert.
    pub fn digest(&self) -> Digest {
        Digest::of_parts(&[b"async-tob vector", &self.encode()])
    }
}

impl Statement for Vector {
    const DOMAIN: &'static str = "async-tob/1 prop";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::ZERO, op: self.op })
    }
}

/// ⟨PAck e, j, H(U)⟩: the signer has seen this proposal and keeps it, and approves no other of that replica in that epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Approval {
    /// The epoch (e).
    pub op: OpNumber,
    /// Whose proposal (j).
    pub proposer: ReplicaId,
    /// The vector's digest.
    pub digest: Digest,
}

impl Statement for Approval {
    const DOMAIN: &'static str = "async-tob/1 pack";

    fn slot(&self) -> Option<Slot> {
        Some(Slot { view: View::new(u64::from(self.proposer.get())), op: self.op })
    }
}

/// One word of one agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, BorshSerialize, BorshDeserialize)]
pub struct Vote {
    /// The epoch.
    pub op: OpNumber,
    /// Whose proposal the agreement is about.
    pub about: ReplicaId,
    /// The word.
    pub word: Word,
}

/// What an epoch came to.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Decided {
    /// The epoch.
    pub op: OpNumber,
    /// Its agreed time.
    pub time: WallTime,
    /// How far each lane is committed, by the lanes' numbers.
    pub heads: Vec<Head>,
    /// Whose proposals counted, by the replicas' numbers: in the next epoch, what was decided about each is tried first.
    pub counted: Vec<bool>,
    /// The chain of all that was decided so far.
    pub root: Digest,
}

impl Decided {
    /// Before the first epoch.
    pub fn nothing(replicas: usize) -> Self {
        let (heads, counted) = (vec![Head::default(); replicas], vec![true; replicas]);
        Self { op: OpNumber::ZERO, time: WallTime::default(), heads, counted, root: Digest::ZERO }
    }

    /// What follows on `self` with these heads, at this time, when these proposals counted.
    #[must_use]
    pub fn next(&self, time: WallTime, heads: Vec<Head>, counted: Vec<bool>) -> Self {
        let op = self.op.next();
        let contents = [op.encode(), time.encode(), heads.encode(), counted.encode()].concat();
        let root = Digest::of_parts(&[b"async-tob root", self.root.as_bytes(), &contents]);
        Self { op, time, heads, counted, root }
    }

    /// Is it about a group of so many?
    pub(super) fn is_of(&self, replicas: usize) -> bool {
        self.heads.len() == replicas && self.counted.len() == replicas
    }
}

/// A state that the sender has on its disk, and serves.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct StateMark {
    /// The epoch, and the digest of state, sessions with replies, and history.
    pub checkpoint: Checkpoint,
    /// What that epoch came to.
    pub decided: Decided,
}

/// The words of asynchronous total-order broadcast.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Message {
    /// Client ↔ replica: requests, reads and their answers, in PBFT's words.
    Client(pbft::Message),

    /// Owner → all, and whoever has it → who asks: the lane goes on.
    Batch {
        /// The batch.
        batch: Batch,
        /// The lane's highest certificate that the sender has.
        certificate: Option<Certificate<Ack>>,
    },
    /// Replica → owner of the lane.
    Ack(Signed<Ack>),
    /// Replica → all: what I propose for this epoch.
    Prop(Box<Signed<Vector>>),
    /// Replica → proposer: I have seen it.
    PAck(Signed<Approval>),
    /// Proposer → all: a quorum has seen it.
    PCert(Certificate<Approval>),
    /// Replica → all: words of agreements.
    Agree(Vec<Vote>),
    /// Replica → all: I have committed this epoch.
    Commit {
        /// The epoch.
        op: OpNumber,
        /// The chain of all that was decided so far.
        root: Digest,
    },

    /// Replica → replicas: this is where I am.
    Status {
        /// The last epoch that it has committed.
        committed: OpNumber,
        /// Its log begins after this epoch.
        base: OpNumber,
        /// The states that it serves.
        states: Vec<StateMark>,
        /// Does it want to be told where the other is?
        asks: bool,
    },
    /// Replica → replicas: send me this proposal, with the proof that a quorum has seen it.
    GetProp {
        /// The epoch.
        op: OpNumber,
        /// Whose proposal.
        proposer: ReplicaId,
    },
    /// Replica → replicas: what was decided after this epoch?
    GetDecided {
        /// The epoch.
        after: OpNumber,
    },
    /// The answer: one epoch after the other.
    Decided(Vec<Decided>),
    /// Replica → replica: send me this batch of a lane, and those before it.
    GetChain {
        /// The lane.
        lane: ReplicaId,
        /// The batch.
        head: Head,
        /// Down to this height, without it.
        above: u64,
    },

    /// A replica that has lost promises → all: in which epochs may my former self have spoken?
    GetBound {
        /// Comes back.
        nonce: u64,
    },
    /// The answer.
    Bound {
        /// The question's.
        nonce: u64,
        /// The last epoch that the sender has committed.
        committed: OpNumber,
    },
    /// A silent replica → all, while nothing moves: commit epochs up to this one, so that my silence ends.
    GetBeyond {
        /// The epoch.
        until: OpNumber,
    },
}

impl Message {
    /// Why no correct peer sends this, apart from signatures.
    fn check(&self) -> Option<String> {
        let beyond = |op: OpNumber| op.get() > NUMBER_MAX;
        let lanes = |heads: &[Head]| heads.is_empty() || heads.len() > REPLICAS_MAX;
        let what = match self {
            Message::Batch { batch, certificate } => match certificate {
                Some(it) if it.statement().lane != batch.lane() => Some("a batch with another lane's certificate"),
                _ => batch.check(),
            },
            Message::Prop(vector) => {
                let heads = &vector.statement().heads;
                let in_order = heads.is_sorted_by(|one, next| one.statement().lane < next.statement().lane);
                let far =
                    beyond(vector.statement().op) || heads.iter().any(|it| it.statement().head.height > NUMBER_MAX);
                (!in_order || heads.len() > REPLICAS_MAX || far).then_some("a vector that is none")
            }
            Message::Agree(votes) if votes.len() > WORDS_MAX => Some("more words than any turn has"),
            Message::Status { states, .. } if states.len() > STATES_MAX => Some("more states than anybody keeps"),
            Message::Status { committed, .. } if beyond(*committed) => Some("an epoch out of all bounds"),
            Message::Status { states, .. } if states.iter().any(|it| lanes(&it.decided.heads)) => {
                Some("a state without lanes")
            }
            Message::Commit { op, .. } if beyond(*op) => Some("an epoch out of all bounds"),
            Message::Bound { committed: op, .. } | Message::GetBeyond { until: op } if beyond(*op) => {
                Some("an epoch out of all bounds")
            }
            Message::Decided(all) if all.len() > DECIDED_MAX || all.iter().any(|it| lanes(&it.heads)) => {
                Some("more than one answer holds")
            }
            _ => None,
        };
        what.map(str::to_owned)
    }

    /// Checks form, then signatures: what a handler is given is signed by whom it says. Only the certificates inside a
    /// vector are left: most are known by the time that it is looked at.
    pub(super) fn prove(&mut self, keyring: &Keyring) -> Result<(), Fault> {
        if let Some(what) = self.check() {
            return Err(Fault::Malformed(what));
        }
        let quorum = quorum(keyring)?;
        match self {
            Message::Client(message) => quorum_client::prove(message, keyring),
            Message::Batch { batch, certificate } => {
                batch.prove(keyring)?;
                certificate.iter_mut().try_for_each(|it| it.prove(keyring, quorum))
            }
            Message::Ack(ack) => ack.prove(keyring),
            Message::Prop(vector) => vector.prove(keyring),
            Message::PAck(approval) => approval.prove(keyring),
            Message::PCert(certificate) => certificate.prove(keyring, quorum),
            Message::Agree(_)
            | Message::Commit { .. }
            | Message::Status { .. }
            | Message::GetProp { .. }
            | Message::GetDecided { .. }
            | Message::Decided(_)
            | Message::GetChain { .. }
            | Message::GetBound { .. }
            | Message::Bound { .. }
            | Message::GetBeyond { .. } => Ok(()),
        }
    }

    /// The message's name in the specification.
    pub(super) fn label(&self) -> &'static str {
        match self {
            Message::Client(message) => pbft::Pbft::label(message),
            Message::Batch { .. } => "Batch",
            Message::Ack(_) => "Ack",
            Message::Prop(_) => "Prop",
            Message::PAck(_) => "PAck",
            Message::PCert(_) => "PCert",
            Message::Agree(_) => "Agree",
            Message::Commit { .. } => "Commit",
            Message::Status { .. } => "Status",
            Message::GetProp { .. } => "GetProp",
            Message::GetDecided { .. } => "GetDecided",
            Message::Decided(_) => "Decided",
            Message::GetChain { .. } => "GetChain",
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
