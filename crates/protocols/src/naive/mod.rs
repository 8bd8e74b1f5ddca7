//! Naive broadcast: the wrong way, on purpose.
//!
//! It promises nothing. A client sends each request to every replica; a replica appends what it receives and executes it
//! at once. Nobody agrees on an order, so replicas that receive in different orders end in different states: from 1, with
//! "÷2" and "+1", in 1.5 or 1 (seed 004, *Problem* and *Naiv implementering*). It runs in the simulator only, where the
//! checkers must catch it: that proves that they can fail.
//!
//! What is absent: `durable.rs` and `invariants.rs` (there is no promise to keep), `normal.rs` (there is no other case),
//! `view_change.rs`, `recovery.rs` and `checkpoint.rs`.

mod client;
mod message;
mod replica;

pub use client::{ClientTimer, NaiveClient};
use message::Reply;
pub use message::{Message, Record};
pub use replica::{NaiveReplica, Timer};

use quorate_core::protocol::Protocol;

/// The protocol, as a type.
#[derive(Clone, Copy, Debug)]
pub struct Naive;

type Outbox = quorate_core::outbox::Outbox<Naive>;
type ClientOutbox = quorate_core::protocol::ClientOutbox<Naive>;

impl Protocol for Naive {
    const NAME: &'static str = "naive";
    type Message = Message;
    type Record = Record;
    type Timer = Timer;
    type ClientTimer = ClientTimer;
    type Config = ();
    type Replica = NaiveReplica;
    type Client = NaiveClient;

    fn label(message: &Message) -> &'static str {
        match message {
            Message::Request(_) => "Request",
            Message::Reply(_) => "Reply",
        }
    }

    fn content(message: &Message, words: &dyn Fn(&[u8]) -> String) -> String {
        match message {
            Message::Request(it) => format!("{}\nsession {}, request {}", it.body.text(words), it.session, it.number),
            Message::Reply(Reply { op, reply }) => {
                let (said, session, number) = (reply.ruling.text(words), reply.session, reply.number);
                format!("{said}\nto session {session}, request {number}, which this replica applied as entry {op}")
            }
        }
    }
}
