//! The client is PBFT's (`quorum_client`). It hands its requests to one replica, which puts them into its lane; what is not
//! answered in time goes to all, one of which at least is correct and reachable. A read that is not ordered needs `n - t` equal
//! answers (`reads.rs` has the argument).

use super::AsyncTob;
use super::message::Message;
use crate::pbft;
use crate::quorum_client::{self, Speaks};
use quorate_core::quorum::ByzantineQuorums;

/// The client's half.
pub type Client = quorum_client::Client<AsyncTob>;

impl Speaks for AsyncTob {
    fn manner(replicas: usize) -> pbft::Manner {
        let quorums = ByzantineQuorums::new(replicas).or_else(|| ByzantineQuorums::new(1));
        let quorums = quorums.expect("one replica is a group");
        pbft::Manner { quorums: quorums.answers(quorums.answering()), led: false }
    }

    fn from_pbft(message: pbft::Message) -> Message {
        Message::Client(message)
    }

    fn into_pbft(message: Message) -> Option<pbft::Message> {
        if let Message::Client(message) = message { Some(message) } else { None }
    }
}
