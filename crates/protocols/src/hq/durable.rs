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
use quorate_core::objects::Image;

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
}
