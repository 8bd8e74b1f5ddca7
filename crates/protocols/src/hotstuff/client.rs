//! The client is PBFT's (`quorum_client`). What replicas call a view to a client is their term, so that the client finds its
//! leader by PBFT's rule.

use super::HotStuff;
use super::message::Message;
use crate::pbft;
use crate::quorum_client::{self, Speaks};

/// The client's half of HotStuff.
pub type Client = quorum_client::Client<HotStuff>;

impl Speaks for HotStuff {
    fn manner(replicas: usize) -> pbft::Manner {
        pbft::Manner::led(replicas)
    }

    fn from_pbft(message: pbft::Message) -> Message {
        Message::Client(message)
    }

    fn into_pbft(message: Message) -> Option<pbft::Message> {
        if let Message::Client(message) = message { Some(message) } else { None }
    }
}
