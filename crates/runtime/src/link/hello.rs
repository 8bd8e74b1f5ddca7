//! The first frame in either direction, once TLS has proved who holds which key: which cluster, epoch and protocol the
//! speaker means, and in which role it speaks.

use super::frame::{self, HEADER_BYTES, Kind, Malformed};
use borsh::{BorshDeserialize, BorshSerialize};
use bytes::BytesMut;
use quorate_core::crypto::ClientKey;
use quorate_core::ids::{ClusterId, Epoch, Peer};

/// The longest greeting, in bytes. Nothing longer is read from a peer before it has greeted.
pub const GREETING_BYTES_MAX: usize = 1024;
const MAGIC: [u8; 8] = *b"quorate\x02";
/// The longest sentence of a Refused that is shown, in characters.
const SENTENCE_CHARS_MAX: usize = 300;

/// What one side says first.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Hello {
    magic: [u8; 8],
    /// The cluster that the speaker belongs to or asks for.
    pub cluster: ClusterId,
    /// The epoch it is in.
    pub epoch: Epoch,
    /// Whom it claims to be. Its key must agree.
    pub role: Peer,
    /// Of a client: what its id is the digest of, with its key ([`ClientKey::client`]); of a replica zero.
    pub nonce: u64,
    /// The protocol it runs.
    pub protocol: String,
}

impl Hello {
    /// A greeting; of a client, see [`Hello::of_client`].
    pub fn new(cluster: ClusterId, epoch: Epoch, role: Peer, protocol: &str) -> Self {
        Self { magic: MAGIC, cluster, epoch, role, nonce: 0, protocol: protocol.to_owned() }
    }

    /// A client's greeting.
    pub fn of_client(cluster: ClusterId, epoch: Epoch, client: ClientKey, protocol: &str) -> Self {
        Self { nonce: client.nonce, ..Self::new(cluster, epoch, Peer::Client(client.client()), protocol) }
    }

    /// Reads a greeting; `Malformed::Greeting` if the bytes are anything else.
    pub fn decode(body: &[u8]) -> Result<Self, Malformed> {
        let hello = Self::try_from_slice(body).map_err(|_| Malformed::Greeting)?;
        if hello.magic != MAGIC {
            return Err(Malformed::Greeting);
        }
        Ok(hello)
    }

    /// The greeting as a frame.
    pub fn frame(&self) -> BytesMut {
        greeting_frame(Kind::Hello, self.epoch, self)
    }

    /// What this side answers to someone who greets it like that: nothing, or why they do not fit together.
    pub fn refuses(&self, other: &Hello) -> Option<String> {
        if self.cluster != other.cluster {
            let (ours, theirs) = (self.cluster, other.cluster);
            return Some(format!("this replica belongs to {ours}, you asked for {theirs}"));
        }
        if self.epoch != other.epoch {
            let (ours, theirs) = (self.epoch, other.epoch);
            return Some(format!("this replica is in epoch {ours}, you asked for epoch {theirs}"));
        }
        if self.protocol != other.protocol {
            let (ours, theirs) = (&self.protocol, printable(&other.protocol));
            return Some(format!("this replica runs the protocol {ours}, you asked for {theirs}"));
        }
        None
    }
}

/// A Refused as a frame.
pub fn refused_frame(epoch: Epoch, sentence: &str) -> BytesMut {
    greeting_frame(Kind::Refused, epoch, &printable(sentence))
}

/// Reads the sentence of a Refused. It comes from outside: control characters are left out and the length is limited.
pub fn decode_refused(body: &[u8]) -> Result<String, Malformed> {
    let sentence = String::try_from_slice(body).map_err(|_| Malformed::Greeting)?;
    Ok(printable(&sentence))
}

fn printable(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SENTENCE_CHARS_MAX).collect()
}

fn greeting_frame(kind: Kind, epoch: Epoch, content: &impl BorshSerialize) -> BytesMut {
    let body = borsh::to_vec(content).expect("writing to memory does not fail");
    let mut frame = BytesMut::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&frame::header(kind, epoch, body.len()));
    frame.extend_from_slice(&body);
    frame
}
