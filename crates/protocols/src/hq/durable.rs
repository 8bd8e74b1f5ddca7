//! What a replica keeps on disk. A grant, an execution and a START are here before anybody hears of them (A.8): a replica that
//! comes back knows what it has promised.

use super::cut::Cut;
use super::message::{Ask, Grant, Proof, Start, Version, Write};
use super::object::{List, State};
use super::ordered::Rank;
use super::rejoin::Life;
use crate::pbft::{self, Told};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::Bytes;
use quorate_core::crypto::{ClientKey, Digest, Signed};
use quorate_core::ids::{ClientId, OpNumber, Position, RecordSeq, RequestNumber};
use quorate_core::objects::{Image, REPLIES_BYTES_SOFT_MAX};
use quorate_core::sessions::OPERATION_BYTES_MAX;

/// Bytes of a record, and of a message that carries as much, at most: the log takes 17 MiB, a frame 20 MiB. Whatever clients do, what
/// follows adds up to no more; a record that the log does not take stops its replica, and the next start does not help.
const RECORD_BYTES_MAX: usize = 16 << 20;
/// Bytes of the reply to an operation on one object, at most: two of the store's longest values, and some more. Where a longer one would be, clients
/// are told [`TOO_LONG`].
pub const REPLY_BYTES_MAX: usize = (2 << 20) + (64 << 10);
/// Bytes of the reply to an operation on several objects, at most; as above.
pub const ACROSS_REPLY_BYTES_MAX: usize = 12 << 20;
/// Bytes of the results that are kept with an object, at most: as many as those of one write. What would be more goes, the oldest first.
pub const RESULTS_BYTES_MAX: usize = REPLIES_BYTES_SOFT_MAX + REPLY_BYTES_MAX;
/// Bytes of the requests under consideration for one object, at most; what is granted is one of them.
pub const WRITES_BYTES_MAX: usize = 2 << 20;
/// Bytes of the operations of a resolution's list, at most. Each of them is under consideration at a correct replica whose START was ordered;
/// with `f` liars in a quorum these are 6 at most, with 15 replicas.
pub(super) const LIST_BYTES_MAX: usize = 6 * WRITES_BYTES_MAX;
/// Bytes of operations that are in the record of their object; more are in a record of their own before it.
pub(super) const INSIDE_BYTES_MAX: usize = 1 << 20;
/// Bytes of an object as the machine has it, at most: the store's longest value, its key, and some more.
const IMAGE_BYTES_MAX: usize = OPERATION_BYTES_MAX;
/// Bytes of all else in one record, at most: a name, numbers and lengths, and the signatures of 130 certificates.
const REST_BYTES_MAX: usize = 512 << 10;

// [`Record::Object`] and [`Message::Object`](super::Message::Object): the object now and before, its latest write at both times.
const _: () = assert!(
    2 * (RESULTS_BYTES_MAX + OPERATION_BYTES_MAX + IMAGE_BYTES_MAX) + INSIDE_BYTES_MAX + REST_BYTES_MAX
        <= RECORD_BYTES_MAX
);
// [`Record::Writes`], with an operation that was fetched to come to where a resolution begins.
const _: () = assert!(WRITES_BYTES_MAX + LIST_BYTES_MAX + OPERATION_BYTES_MAX + REST_BYTES_MAX <= RECORD_BYTES_MAX);
// [`Record::Executed`] and [`Record::InOrder`].
const _: () = assert!(RESULTS_BYTES_MAX + OPERATION_BYTES_MAX + IMAGE_BYTES_MAX + REST_BYTES_MAX <= RECORD_BYTES_MAX);
// [`Record::Ordered`]: the names are there twice.
const _: () = assert!(ACROSS_REPLY_BYTES_MAX + 2 * OPERATION_BYTES_MAX + REST_BYTES_MAX <= RECORD_BYTES_MAX);

/// What clients are told of an operation whose reply would be longer than [`REPLY_BYTES_MAX`], or [`ACROSS_REPLY_BYTES_MAX`].
pub const TOO_LONG: &[u8] = b"this operation is done, and its reply is longer than any that is told";

/// A client's request, as it signed it.
pub type Asked = Signed<Ask, ClientKey>;

/// All that is known of an object.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Kept {
    /// The object.
    pub object: Digest,
    /// Its name; empty while nobody has said it.
    pub name: Bytes,
    /// Its state.
    pub now: State,
    /// Its state and image before the latest write.
    pub before: Option<(State, Image)>,
    /// The last resolution, or the last entry of ordered mode.
    pub seen: OpNumber,
    /// Where it was when it had been through that.
    pub freed: Position,
    /// The last request that was executed in ordered mode.
    pub through: Rank,
    /// The outstanding grant.
    pub grant: Option<Signed<Grant>>,
    /// Requests under consideration.
    pub writes: Vec<Write>,
    /// Operations of the latest resolution, for those who lack them.
    pub settled: Vec<Write>,
    /// What was granted in it.
    pub granted: Vec<Signed<Grant>>,
    /// It is frozen, and this was said.
    pub frozen: Option<Start>,
    /// It is being resolved, and this is done to it.
    pub list: Option<List>,
    /// The step of the machine that led here, if it replaced the object.
    pub step: Option<(OpNumber, Image)>,
    /// The last step of the machine when this was written.
    pub upto: OpNumber,
}

/// One of the objects that an operation on several was executed on.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Joined {
    /// Its name.
    pub name: Bytes,
    /// Why, and where in its order.
    pub proof: Proof,
}

/// A record of the write-ahead log.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub enum Record {
    /// My grant, and what was granted.
    Granted(Signed<Grant>, Write),
    /// The machine has executed a write.
    Executed {
        /// The step of the machine.
        op: OpNumber,
        /// Why.
        proof: Proof,
        /// What.
        write: Write,
        /// What its operations came to.
        results: Vec<Bytes>,
        /// The object before.
        before: Image,
    },
    /// The machine has executed an operation on several objects.
    Ordered {
        /// The step of the machine.
        op: OpNumber,
        /// Its place in PBFT's order.
        rank: Rank,
        /// Whose it was.
        client: ClientId,
        /// Its number.
        number: RequestNumber,
        /// What.
        operation: Bytes,
        /// What it came to.
        result: Bytes,
        /// The objects, in the order of their names.
        joined: Vec<Joined>,
    },
    /// The machine has executed a request that PBFT has ordered (ordered mode).
    InOrder {
        /// The step of the machine.
        op: OpNumber,
        /// Its place in PBFT's order.
        rank: Rank,
        /// Its place in the object's.
        at: Version,
        /// What.
        write: Write,
        /// What its operations came to.
        results: Vec<Bytes>,
        /// The object has been through the entry with it.
        last: bool,
    },
    /// What the last operation of a client on several objects came to, anew.
    Came {
        /// Whose it was.
        client: ClientId,
        /// Its number.
        number: RequestNumber,
        /// What it came to, or its digest, if the objects were had from others.
        result: Told<Bytes>,
    },
    /// Everything about an object, anew.
    Object(Box<Kept>),
    /// What PBFT's order has led to at an entry: a restart begins there.
    Cut(Box<Cut>),
    /// What PBFT keeps.
    Module(pbft::Record),
    /// What PBFT kept under this number, anew: the log's beginning was forgotten.
    Carried(RecordSeq, pbft::Record),
    /// The first record of a replica whose disk was lost (`quorate recover`).
    Lost,
    /// Which life it lives since, and whether it is back.
    Life(Life),
    /// What the record of an object that follows this one would have as [`Kept::writes`] and [`Kept::settled`], which are empty there: together they
    /// would be too long.
    Writes(Vec<Write>, Vec<Write>),
}
