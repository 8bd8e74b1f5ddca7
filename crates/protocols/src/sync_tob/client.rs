//! The client is PBFT's (`quorum_client`). It has a replica of its own choice cast its requests; what is not answered in time
//! goes to all replicas, so that nobody can keep it from the others. All reads but stale ones are ordered.

use super::SyncTob;
use super::message::Message;
use crate::pbft;
use crate::quorum_client::{self, Speaks};
use quorate_core::quorum::SyncQuorums;

/// The client's half.
pub type Client = quorum_client::Client<SyncTob>;

impl Speaks for SyncTob {
    /// Rounds are waited for by the clock.
    const PATIENCE: u32 = 4;

    fn manner(replicas: usize) -> pbft::Manner {
        let quorums = SyncQuorums::new(replicas).or_else(|| SyncQuorums::new(1));
        pbft::Manner { quorums: quorums.expect("one replica is a group").answers(), led: false }
    }

    fn from_pbft(message: pbft::Message) -> Message {
        Message::Client(message)
    }

    fn into_pbft(message: Message) -> Option<pbft::Message> {
        if let Message::Client(message) = message { Some(message) } else { None }
    }
}
